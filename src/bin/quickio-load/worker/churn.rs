//! Churners: which of them are free, and when the next connection is due.

use quickio::qev::ring::Token;
use std::collections::VecDeque;

/// How long a churner rests after a connection that failed: no busy loop where the server is gone.
const REST_NS: u64 = 100_000_000;

/// The churners of a worker.
#[derive(Debug, Default)]
pub struct Churn {
    /// Those that are free, and from when on.
    free: VecDeque<(Token, u64)>,
    /// Nanoseconds between two connections; 0: as soon as a churner is free.
    interval: u64,
    next: u64,
}

impl Churn {
    /// These churners, doing `rate` connections a second together, from `begin` on.
    pub fn new(begin: u64, tokens: impl Iterator<Item = Token>, rate: f64) -> Churn {
        let interval = if rate > 0.0 { (1e9 / rate) as u64 } else { 0 };
        Churn { free: tokens.map(|token| (token, 0)).collect(), interval, next: begin }
    }

    /// A churner that is to connect now, and for when that was intended.
    pub fn take_due(&mut self, now: u64, until: u64) -> Option<(Token, u64)> {
        let (_, free_from) = *self.free.front()?;
        let at = if self.interval > 0 { self.next } else { now };
        if at > now || at >= until || free_from > now {
            return None;
        }
        self.next += self.interval;
        self.free.pop_front().map(|(token, _)| (token, at))
    }

    /// A churner's connection has ended, well or badly.
    pub fn ended(&mut self, token: Token, now: u64, well: bool) {
        self.free.push_back((token, if well { 0 } else { now + REST_NS }));
    }

    /// When the next connection is due, where a churner is free for it and there is a rate.
    pub fn next_due(&self) -> Option<u64> {
        (self.interval > 0 && !self.free.is_empty()).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_connection_keeps_its_intended_time() {
        let mut churn = Churn::new(1000, [7].into_iter(), 1e8);
        assert_eq!(churn.take_due(999, u64::MAX), None);
        assert_eq!(churn.take_due(1000, u64::MAX), Some((7, 1000)));
        assert_eq!(churn.take_due(1050, u64::MAX), None, "nobody is free");
        churn.ended(7, 1050, true);
        assert_eq!(churn.take_due(1050, u64::MAX), Some((7, 1010)));
    }

    #[test]
    fn without_a_rate_connections_follow_each_other_but_rest_after_a_failure() {
        let mut churn = Churn::new(1000, [7].into_iter(), 0.0);
        assert_eq!(churn.take_due(1005, u64::MAX), Some((7, 1005)));
        churn.ended(7, 1010, false);
        assert_eq!(churn.take_due(1011, u64::MAX), None);
        assert_eq!(churn.take_due(1010 + REST_NS, u64::MAX), Some((7, 1010 + REST_NS)));
        churn.ended(7, 0, true);
        assert_eq!(churn.take_due(5000, 5000), None, "the end is the end");
    }
}
