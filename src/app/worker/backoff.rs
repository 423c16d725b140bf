//! The delay before a worker that crashed is started again. It doubles with each crash, up to a limit, and is short
//! again after a worker that had served for a while.

use crate::limits::{WORKER_BACKOFF, WORKER_BACKOFF_FORGET, WORKER_BACKOFF_MAX};
use std::time::Duration;

/// The backoff of one instance.
#[derive(Debug, Default)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// Returns the delay before the next worker is started. `served` is how long the worker that has ended had served,
    /// or `None` if it was never ready.
    pub fn next(&mut self, served: Option<Duration>) -> Duration {
        let is_reset = served.is_some_and(|served| served >= WORKER_BACKOFF_FORGET);
        let next = match self.last.filter(|_| !is_reset) {
            Some(last) => (last * 2).min(WORKER_BACKOFF_MAX),
            None => WORKER_BACKOFF,
        };
        self.last = Some(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_limit_and_resets_after_service() {
        let mut backoff = Backoff::default();
        let ms = |duration: Duration| duration.as_millis();
        let delays: Vec<u128> = (0..10).map(|_| ms(backoff.next(None))).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        assert_eq!(ms(backoff.next(Some(Duration::from_millis(9_999)))), 10_000);
        assert_eq!(ms(backoff.next(Some(Duration::from_secs(10)))), 100);
        assert_eq!(ms(backoff.next(Some(Duration::ZERO))), 200);
    }
}
