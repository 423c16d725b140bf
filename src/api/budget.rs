//! A bound on the memory that requests take until their work is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on the memory of requests, in bytes. A clone is another handle of the same bound.
#[derive(Clone, Debug)]
pub struct ByteBudget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    max: usize,
    taken: AtomicUsize,
}

impl ByteBudget {
    /// Creates a bound of `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> ByteBudget {
        ByteBudget(Arc::new(BudgetState { max, taken: AtomicUsize::new(0) }))
    }

    /// Returns a charge of no bytes.
    #[must_use]
    pub fn charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }

    /// Returns the number of bytes that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }
}

/// A part of a [`ByteBudget`]. Dropping it, on any thread, gives the bytes back.
#[derive(Debug)]
pub struct Charge {
    budget: ByteBudget,
    bytes: usize,
}

impl Charge {
    /// Changes the charge to this many bytes. Returns `false`, and changes nothing, if it would take more than is free.
    #[must_use]
    pub fn set(&mut self, bytes: usize) -> bool {
        let state = &self.budget.0;
        if bytes <= self.bytes {
            state.taken.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.bytes;
            let add = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= state.max);
            if state.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
                return false;
            }
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let before = self.budget.0.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        assert!(before >= self.bytes, "bytes are given back once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_up_to_the_bound_and_given_back() {
        let budget = ByteBudget::new(10);
        let (mut one, mut other) = (budget.charge(), budget.charge());
        assert!(one.set(4) && other.set(6) && one.set(4));
        assert!(!one.set(5) && !other.set(usize::MAX));
        assert_eq!(budget.taken(), 10);
        assert!(one.set(1) && other.set(9));
        drop(other);
        assert_eq!(budget.taken(), 1);
        assert!(one.set(10));
        drop(one);
        assert_eq!(budget.taken(), 0);
    }
}
