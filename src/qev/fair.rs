//! The fair pool: a limit that all shards share. When it is nearly reached, the rest is reserved for small holders.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A limited number of permits.
///
/// While the used permits are below a percentage of the total, the pressure, every holder may acquire more. From there
/// on only holders with fewer permits than a minimum may. When all permits are used, no holder may. With a pressure of
/// 100 percent the pool is a plain limit.
///
/// Threads share the pool by reference. It is one relaxed atomic, which counts and does not order other memory
/// accesses. The pool is meant for operations that happen once for each connection or subscription, and not for each
/// event.
///
/// Invariant, asserted in debug builds: the used permits are at most the total.
///
/// ```
/// use quickio::qev::fair::{Pool, AcquireError};
///
/// let pool = Pool::new(4, 50, 1);
/// assert!(pool.acquire(7).is_ok() && pool.acquire(8).is_ok());
/// // Half of the permits are used: only small holders may acquire more.
/// assert_eq!(pool.acquire(9), Err(AcquireError::Share));
/// assert!(pool.acquire(0).is_ok());
/// ```
#[derive(Debug)]
pub struct Pool {
    used: AtomicUsize,
    total: usize,
    /// The number of used permits from which on only small holders may acquire more.
    pressure_from: usize,
    /// A holder with fewer permits is a small holder.
    min: usize,
}

/// The reason why no permit was acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// All permits are used.
    #[error("the limit is reached")]
    Total,
    /// The limit is near, and the holder is not a small one.
    #[error("the limit is near, and this holder has its share")]
    Share,
}

impl Pool {
    /// Returns a pool of `total` permits. From `pressure_percent` of them on, only holders with fewer than `min` may
    /// acquire more.
    pub fn new(total: usize, pressure_percent: u8, min: usize) -> Pool {
        let pressure_from = total as u128 * u128::from(pressure_percent.min(100));
        let pressure_from =
            usize::try_from(pressure_from.div_ceil(100)).expect("the pressure is at most the total");
        Pool { used: AtomicUsize::new(0), total, pressure_from, min }
    }

    /// Acquires a permit for a holder that already has `held`. It must be released later.
    pub fn acquire(&self, held: usize) -> Result<(), AcquireError> {
        self.acquire_many(1, held)
    }

    /// Acquires `n` permits at once, or none, for a holder that already has `held`. The unit of `held` and of the pool's
    /// minimum may be another one than that of the permits.
    pub fn acquire_many(&self, n: usize, held: usize) -> Result<(), AcquireError> {
        let more = |used| self.check(used, n, held).is_ok().then_some(used + n);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(used) => {
                debug_assert!(used + n <= self.total, "the used permits must be at most the total");
                Ok(())
            }
            Err(used) => self.check(used, n, held),
        }
    }

    /// Releases `n` permits.
    pub fn release(&self, n: usize) {
        let used = self.used.fetch_sub(n, Ordering::Relaxed);
        debug_assert!(used >= n, "{n} permits are released, but only {used} are used");
    }

    /// Returns the number of used permits.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the total number of permits.
    pub fn total(&self) -> usize {
        self.total
    }

    fn check(&self, used: usize, n: usize, held: usize) -> Result<(), AcquireError> {
        if n > self.total.saturating_sub(used) {
            Err(AcquireError::Total)
        } else if used >= self.pressure_from && held >= self.min {
            Err(AcquireError::Share)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pressure_begins_at_its_share() {
        // The columns: total, percent, minimum, used, held by the holder, expected result.
        let cases = [
            (10, 60, 2, 5, 9, Ok(())),
            (10, 60, 2, 6, 9, Err(AcquireError::Share)),
            (10, 60, 2, 6, 2, Err(AcquireError::Share)),
            (10, 60, 2, 6, 1, Ok(())),
            (10, 60, 2, 9, 1, Ok(())),
            (10, 60, 2, 10, 0, Err(AcquireError::Total)),
            (10, 100, 0, 9, 9, Ok(())),
            (10, 100, 0, 10, 0, Err(AcquireError::Total)),
            (10, 255, 0, 9, 9, Ok(())),
            (10, 0, 1, 0, 1, Err(AcquireError::Share)),
            (10, 0, 1, 0, 0, Ok(())),
            (0, 60, 2, 0, 0, Err(AcquireError::Total)),
            (usize::MAX, 60, 2, 1 << 60, 9, Ok(())),
        ];
        for (total, percent, min, used, has, expected) in cases {
            let pool = Pool::new(total, percent, min);
            pool.used.store(used, Ordering::Relaxed);
            assert_eq!(pool.acquire(has), expected, "{used} of {total} used, the holder has {has}");
            assert_eq!(pool.used(), used + usize::from(expected.is_ok()));
            assert_eq!(pool.total(), total);
        }
    }

    #[test]
    fn many_permits_are_acquired_at_once_or_not_at_all() {
        let pool = Pool::new(10, 50, 2);
        assert_eq!(pool.acquire_many(11, 0), Err(AcquireError::Total));
        assert_eq!(pool.acquire_many(6, 9), Ok(()));
        assert_eq!(pool.acquire_many(1, 2), Err(AcquireError::Share));
        assert_eq!(pool.acquire_many(5, 1), Err(AcquireError::Total));
        assert_eq!(pool.acquire_many(4, 1), Ok(()));
        assert_eq!(pool.used(), 10);
    }

    proptest! {
        #[test]
        fn permits_are_shared_fairly(
            total in 0..40_usize, percent in 0..=100_u8, min in 0..6_usize,
            steps in prop::collection::vec((0..5_usize, any::<bool>()), 0..200),
        ) {
            let (pool, mut holders) = (Pool::new(total, percent, min), [0; 5]);
            for (holder, takes) in steps {
                let used: usize = holders.iter().sum();
                if takes {
                    let below_pressure = used * 100 < total * usize::from(percent);
                    let room = used < total && (below_pressure || holders[holder] < min);
                    prop_assert_eq!(pool.acquire(holders[holder]).is_ok(), room);
                    holders[holder] += usize::from(room);
                } else {
                    pool.release(holders[holder]);
                    holders[holder] = 0;
                }
                prop_assert_eq!(pool.used(), holders.iter().sum::<usize>());
            }
        }
    }

    #[test]
    fn threads_never_acquire_more_than_the_total() {
        const TOTAL: usize = 5;
        let (pool, held) = (Pool::new(TOTAL, 100, 0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        // Four threads that acquire two permits each want more than the total.
                        let taken =
                            usize::from(pool.acquire(0).is_ok()) + usize::from(pool.acquire(1).is_ok());
                        let together = held.fetch_add(taken, Ordering::SeqCst) + taken;
                        assert!(together <= TOTAL, "{together} permits are held");
                        held.fetch_sub(taken, Ordering::SeqCst);
                        pool.release(taken);
                    }
                });
            }
        });
        assert_eq!(pool.used(), 0);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "2 permits are released, but only 1 are used")]
    fn releasing_more_than_was_acquired_is_a_panic() {
        let pool = Pool::new(2, 100, 0);
        pool.acquire(0).expect("the pool has permits");
        pool.release(2);
    }
}
