//! The watch over sends that make no progress, because the peer does not read.
//!
//! Nothing is done for a send that completes soon. While sends are in flight, a timer of the shard fires several times
//! within `send-timeout`, and the sends that are in flight at that moment are examined, some in each turn.

use std::time::Duration;

/// The number of times that sends are examined within `send-timeout`. A send that makes no progress is noticed at most
/// one such interval late.
const CHECKS_PER_TIMEOUT: u32 = 4;

/// The number of places of sends that are examined in one turn, each of which may end a connection.
pub(super) const CHECKED_PER_TURN_MAX: usize = 1024;

/// The progress of examining the sends in flight.
#[derive(Default)]
pub(super) struct Stalls {
    /// `true` if the timer that begins the next check is set.
    timer_is_set: bool,
    /// The place at which a check that has begun continues.
    next: Option<usize>,
}

impl Stalls {
    /// Returns the time after which the sends in flight are to be examined, or `None` if that is already arranged.
    pub fn arrange(&mut self, timeout: Duration) -> Option<Duration> {
        if self.timer_is_set || self.next.is_some() {
            return None;
        }
        self.timer_is_set = true;
        Some((timeout / CHECKS_PER_TIMEOUT).max(Duration::from_millis(1)))
    }

    /// Notes that the timer has fired: a check begins.
    pub fn begin_check(&mut self) {
        (self.timer_is_set, self.next) = (false, Some(0));
    }

    /// Returns whether a check has begun and has not examined all sends.
    pub fn is_checking(&self) -> bool {
        self.next.is_some()
    }

    /// The place from which on sends are examined next.
    pub fn next(&self) -> Option<usize> {
        self.next
    }

    /// Notes where the check continues, or that it is over.
    pub fn advance(&mut self, next: Option<usize>) {
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_arranged_once_until_it_is_over() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.arrange(Duration::from_secs(30)), Some(Duration::from_millis(7500)));
        assert_eq!(stalls.arrange(Duration::from_secs(30)), None);
        stalls.begin_check();
        assert_eq!((stalls.next(), stalls.arrange(Duration::from_secs(30))), (Some(0), None));
        stalls.advance(Some(CHECKED_PER_TURN_MAX));
        assert!(stalls.is_checking());
        stalls.advance(None);
        assert!(!stalls.is_checking());
        assert_eq!(stalls.arrange(Duration::ZERO), Some(Duration::from_millis(1)));
    }
}
