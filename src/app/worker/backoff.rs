//! When a worker that crashed is started again: later each time, and at once again where it had served for a while.

use crate::limits::{WORKER_BACKOFF, WORKER_BACKOFF_FORGET, WORKER_BACKOFF_MAX};
use std::time::Duration;

/// How long the next worker of an instance is waited with.
#[derive(Debug, Default)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// A worker has ended that had served for so long, or never; after which time the next one is started.
    pub fn next(&mut self, served: Option<Duration>) -> Duration {
        let forgets = served.is_some_and(|served| served >= WORKER_BACKOFF_FORGET);
        let next = match self.last.filter(|_| !forgets) {
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
    fn it_doubles_up_to_a_bound_and_forgets() {
        let mut backoff = Backoff::default();
        let ms = |duration: Duration| duration.as_millis();
        let waits: Vec<u128> = (0..10).map(|_| ms(backoff.next(None))).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        assert_eq!(ms(backoff.next(Some(Duration::from_millis(9_999)))), 10_000);
        assert_eq!(ms(backoff.next(Some(Duration::from_secs(10)))), 100);
        assert_eq!(ms(backoff.next(Some(Duration::ZERO))), 200);
    }
}
