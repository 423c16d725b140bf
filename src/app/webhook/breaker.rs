//! The circuit breaker: a back end that has failed several times in a row is left alone for a while.

use crate::limits::{WEBHOOK_BREAKER_FAILURES, WEBHOOK_BREAKER_WAIT};
use std::time::Duration;

/// The state of the back end, as far as requests have shown it.
///
/// ```text
///            failures in a row                the wait has passed
///   closed -------------------> open ------------------------------> probing
///     ^                          ^                                    |   |
///     |                          +------------ it fails --------------+   |
///     +--------------------------- it succeeds ---------------------------+
/// ```
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// The failures since the last success.
    failures: u32,
    /// The time from which the next request may be made, while the breaker is open.
    open_until: Option<Duration>,
    /// A request finds out if the back end works again.
    is_probing: bool,
}

impl Breaker {
    /// Returns whether a request may be made now. If so, its outcome must be recorded. `now` does not go back.
    pub fn admit(&mut self, now: Duration) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until || self.is_probing => false,
            Some(_) => {
                self.is_probing = true;
                true
            }
        }
    }

    /// Records the outcome of a request. Returns `true` if it has opened the breaker.
    pub fn record(&mut self, has_succeeded: bool, now: Duration) -> bool {
        if has_succeeded {
            *self = Breaker::default();
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        let was_closed = self.open_until.is_none();
        if self.failures >= WEBHOOK_BREAKER_FAILURES {
            self.open_until = Some(now + WEBHOOK_BREAKER_WAIT);
            self.is_probing = false;
        }
        was_closed && self.open_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let mut breaker = Breaker::default();
        let at = Duration::from_secs;
        for _ in 1..WEBHOOK_BREAKER_FAILURES {
            assert!(breaker.admit(at(0)) && !breaker.record(false, at(0)));
        }
        assert!(!breaker.record(true, at(0)), "the failures are not in a row");
        for _ in 1..WEBHOOK_BREAKER_FAILURES {
            assert!(breaker.admit(at(0)) && !breaker.record(false, at(0)));
        }
        assert!(breaker.record(false, at(1)), "it opens");
        let end = at(1) + WEBHOOK_BREAKER_WAIT;
        assert!(!breaker.admit(at(1)) && !breaker.admit(end - Duration::from_millis(1)));
        assert!(breaker.admit(end), "one request probes");
        assert!(!breaker.admit(end), "and no other");
        assert!(!breaker.record(false, end), "it was open already");
        assert!(!breaker.admit(end + WEBHOOK_BREAKER_WAIT - Duration::from_millis(1)));
        assert!(breaker.admit(end + WEBHOOK_BREAKER_WAIT));
        assert!(!breaker.record(true, end + WEBHOOK_BREAKER_WAIT));
        assert!(breaker.admit(end) && breaker.admit(end));
    }
}
