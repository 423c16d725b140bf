//! The schedule of churners: which of them are free, and when the next connection is due.

use quickio::qev::ring::Token;
use std::collections::VecDeque;

/// How long a churner pauses after a failed connection, which avoids a busy loop if the server is not running.
const PAUSE_NS: u64 = 100_000_000;

/// The schedule of a worker's churners.
#[derive(Debug, Default)]
pub struct ChurnSchedule {
    /// The free churners, each with the time from which it is free.
    free: VecDeque<(Token, u64)>,
    /// The nanoseconds between two connections; 0: each starts as soon as a churner is free.
    interval: u64,
    /// The time of the next connection.
    next: u64,
}

impl ChurnSchedule {
    /// Returns a schedule in which the churners open `rate` connections per second together, starting at `begin`.
    pub fn new(begin: u64, tokens: impl Iterator<Item = Token>, rate: f64) -> ChurnSchedule {
        let interval = if rate > 0.0 { (1e9 / rate) as u64 } else { 0 };
        ChurnSchedule { free: tokens.map(|token| (token, 0)).collect(), interval, next: begin }
    }

    /// Removes and returns a churner that must connect now, with the intended time of the connection.
    pub fn take_due(&mut self, now: u64, until: u64) -> Option<(Token, u64)> {
        let (_, free_from) = *self.free.front()?;
        let at = if self.interval > 0 { self.next } else { now };
        if at > now || at >= until || free_from > now {
            return None;
        }
        self.next += self.interval;
        self.free.pop_front().map(|(token, _)| (token, at))
    }

    /// Makes a churner free after its connection has ended. After a failure it pauses first.
    pub fn release(&mut self, token: Token, now: u64, succeeded: bool) {
        self.free.push_back((token, if succeeded { 0 } else { now + PAUSE_NS }));
    }

    /// Returns the time of the next connection, if there is a rate and a churner is free.
    pub fn next_due(&self) -> Option<u64> {
        (self.interval > 0 && !self.free.is_empty()).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_connection_keeps_its_intended_time() {
        let mut churn = ChurnSchedule::new(1000, [7].into_iter(), 1e8);
        assert_eq!(churn.take_due(999, u64::MAX), None);
        assert_eq!(churn.take_due(1000, u64::MAX), Some((7, 1000)));
        assert_eq!(churn.take_due(1050, u64::MAX), None, "no churner is free");
        churn.release(7, 1050, true);
        assert_eq!(churn.take_due(1050, u64::MAX), Some((7, 1010)));
    }

    #[test]
    fn without_a_rate_connections_follow_each_other_and_pause_after_a_failure() {
        let mut churn = ChurnSchedule::new(1000, [7].into_iter(), 0.0);
        assert_eq!(churn.take_due(1005, u64::MAX), Some((7, 1005)));
        churn.release(7, 1010, false);
        assert_eq!(churn.take_due(1011, u64::MAX), None);
        assert_eq!(churn.take_due(1010 + PAUSE_NS, u64::MAX), Some((7, 1010 + PAUSE_NS)));
        churn.release(7, 0, true);
        assert_eq!(churn.take_due(5000, 5000), None, "the run has ended");
    }
}
