//! What a shard counts of its links.

use crate::metrics::{Counter, Counters};
use std::cell::RefCell;

/// Counters of the links of one application on one shard.
#[derive(Default)]
pub struct WorkerCounters(RefCell<Counters>);

impl WorkerCounters {
    fn add(&self, counter: Counter, n: u64) {
        self.0.borrow_mut().add(counter, n);
    }

    /// Events, hooks and replies sent to a worker.
    pub fn sent(&self, n: u64) {
        self.add(Counter::WorkerEvents, n);
    }

    /// An event that no worker could be given.
    pub fn event_refused(&self) {
        self.add(Counter::WorkerEventsRefused, 1);
    }

    /// Requests whose worker has ended.
    pub fn failed(&self, n: u64) {
        self.add(Counter::WorkerRequestsFailed, n);
    }

    /// Requests that took too long.
    pub fn timed_out(&self, n: u64) {
        self.add(Counter::WorkerRequestsTimedOut, n);
    }

    /// An answer to a request that is not under way.
    pub fn answered_late(&self) {
        self.add(Counter::WorkerAnswersLate, 1);
    }

    /// A frame that asked for something that cannot be.
    pub fn frame_refused(&self) {
        self.add(Counter::WorkerFramesRefused, 1);
    }

    /// Adds what was counted.
    pub fn add_to(&self, counters: &mut Counters) {
        counters.merge(&self.0.borrow());
    }
}
