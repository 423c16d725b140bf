//! A bound on the number of things that exist at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on the number of things that exist at the same time, such as the connections of a service.
#[derive(Clone, Debug)]
pub struct Permits(Arc<PermitCount>);

#[derive(Debug)]
struct PermitCount {
    max: usize,
    taken: AtomicUsize,
}

impl Permits {
    /// Creates a bound of `max`.
    #[must_use]
    pub fn new(max: usize) -> Permits {
        Permits(Arc::new(PermitCount { max, taken: AtomicUsize::new(0) }))
    }

    /// Returns a permit, or `None` if all are taken.
    #[must_use]
    pub fn try_acquire(&self) -> Option<Permit> {
        let more = |taken| (taken < self.0.max).then_some(taken + 1);
        let acquired = self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        acquired.is_ok().then(|| Permit(self.clone()))
    }

    /// Returns the number of permits that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }
}

/// One of the things that [`Permits`] bound. Dropping it gives the permit back.
#[derive(Debug)]
pub struct Permit(Permits);

impl Drop for Permit {
    fn drop(&mut self) {
        let taken = self.0.0.taken.fetch_sub(1, Ordering::Relaxed);
        assert!(taken > 0, "a permit is given back once");
    }
}
