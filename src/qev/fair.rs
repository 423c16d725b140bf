//! The fair pool: one limit that all shards share, and that keeps room for small holders when it runs short.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of things that may exist at once, whoever holds them.
///
/// While less than the pressure's share of the total is used, anybody may take more. From there on only who holds
/// fewer than the minimum may; at the total nobody. With a pressure of 100 percent it is a plain limit.
///
/// Shared by reference between threads. It counts, and orders nothing else: one relaxed atomic. It is for what
/// happens once a connection or a subscription, never once an event.
///
/// ```
/// use quickio::qev::fair::{Pool, Refused};
///
/// let pool = Pool::new(4, 50, 1);
/// assert!(pool.take(7).is_ok() && pool.take(8).is_ok());
/// assert_eq!(pool.take(9), Err(Refused::Share), "half of it is used: only small holders may take more");
/// assert!(pool.take(0).is_ok());
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
    /// A pool of `total`; under pressure from `pressure_percent` of it on, when `min` is a small holder's share.
    pub fn new(total: usize, pressure_percent: u8, min: usize) -> Pool {
        let pressed = total as u128 * u128::from(pressure_percent.min(100)) / 100;
        let pressed = usize::try_from(pressed).expect("it is no more than the total");
        Pool { used: AtomicUsize::new(0), total, pressed, min }
    }

    /// Takes one for a holder that has `holder_has` already. It must be given back.
    pub fn take(&self, holder_has: usize) -> Result<(), Refused> {
        let one_more = |used| self.check(used, holder_has).is_ok().then_some(used + 1);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(()),
            Err(used) => self.check(used, holder_has),
        }
    }

    /// Gives back `n` that were taken.
    pub fn give(&self, n: usize) {
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
