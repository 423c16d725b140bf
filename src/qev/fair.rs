//! The fair pool: one limit that all shards share, and that keeps room for small holders when it runs short.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of things that may exist at once, whoever holds them.
///
/// While less than the pressure's share of the total is used, anybody may take more. From there on only who
/// holds fewer than the minimum may; at the total nobody. With a pressure of 100 percent it is a plain limit.
///
/// Shared by reference between threads. It counts, and orders nothing else: one relaxed atomic. It is for
/// what happens once a connection or a subscription, never once an event.
///
/// ```
/// use quickio::qev::fair::{Pool, Refused};
///
/// let pool = Pool::new(4, 50, 1);
/// assert!(pool.acquire(7).is_ok() && pool.acquire(8).is_ok());
/// assert_eq!(pool.acquire(9), Err(Refused::Share), "half of it is used: only small holders may take more");
/// assert!(pool.acquire(0).is_ok());
/// ```
#[derive(Debug)]
pub struct Pool {
    used: AtomicUsize,
    total: usize,
    /// From this many on, only small holders may take more.
    pressed: usize,
    /// Who holds this many or more is no small holder.
    min: usize,
}

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All of it is used.
    #[error("the limit is reached")]
    Total,
    /// The pool runs short, and this holder has its share.
    #[error("the limit is near, and this holder has its share")]
    Share,
}

impl Pool {
    /// A pool of `total`; under pressure from `pressure_percent` of it on, when `min` is a small holder's
    /// share.
    pub fn new(total: usize, pressure_percent: u8, min: usize) -> Pool {
        let pressed = total as u128 * u128::from(pressure_percent.min(100));
        let pressed = usize::try_from(pressed.div_ceil(100)).expect("it is no more than the total");
        Pool { used: AtomicUsize::new(0), total, pressed, min }
    }

    /// Takes one for a holder that has `holder_has` already. It must be given back.
    pub fn acquire(&self, holder_has: usize) -> Result<(), Refused> {
        let one_more = |used| self.check(used, holder_has).is_ok().then_some(used + 1);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(()),
            Err(used) => self.check(used, holder_has),
        }
    }

    /// Gives back `n` that were taken.
    pub fn release(&self, n: usize) {
        let used = self.used.fetch_sub(n, Ordering::Relaxed);
        debug_assert!(used >= n, "{n} given back, {used} were taken");
    }

    /// How many are taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total
    }

    fn check(&self, used: usize, holder_has: usize) -> Result<(), Refused> {
        if used >= self.total {
            Err(Refused::Total)
        } else if used >= self.pressed && holder_has >= self.min {
            Err(Refused::Share)
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
        // total, percent, minimum, used, holder has, expected
        let cases = [
            (10, 60, 2, 5, 9, Ok(())),
            (10, 60, 2, 6, 9, Err(Refused::Share)),
            (10, 60, 2, 6, 2, Err(Refused::Share)),
            (10, 60, 2, 6, 1, Ok(())),
            (10, 60, 2, 9, 1, Ok(())),
            (10, 60, 2, 10, 0, Err(Refused::Total)),
            (10, 100, 0, 9, 9, Ok(())),
            (10, 100, 0, 10, 0, Err(Refused::Total)),
            (10, 255, 0, 9, 9, Ok(())),
            (10, 0, 1, 0, 1, Err(Refused::Share)),
            (10, 0, 1, 0, 0, Ok(())),
            (0, 60, 2, 0, 0, Err(Refused::Total)),
            (usize::MAX, 60, 2, 1 << 60, 9, Ok(())),
        ];
        for (total, percent, min, used, has, expected) in cases {
            let pool = Pool::new(total, percent, min);
            pool.used.store(used, Ordering::Relaxed);
            assert_eq!(pool.acquire(has), expected, "{used} of {total}, holder has {has}");
            assert_eq!(pool.used(), used + usize::from(expected.is_ok()));
            assert_eq!(pool.total(), total);
        }
    }

    proptest! {
        #[test]
        fn nobody_takes_more_than_fair(
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
    fn threads_never_take_more_than_there_is() {
        const TOTAL: usize = 5;
        let (pool, held) = (Pool::new(TOTAL, 100, 0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        // Two at once, so that four threads want more than there is.
                        let taken =
                            usize::from(pool.acquire(0).is_ok()) + usize::from(pool.acquire(1).is_ok());
                        let together = held.fetch_add(taken, Ordering::SeqCst) + taken;
                        assert!(together <= TOTAL, "{together} are held");
                        held.fetch_sub(taken, Ordering::SeqCst);
                        pool.release(taken);
                    }
                });
            }
        });
        assert_eq!(pool.used(), 0);
    }
}
