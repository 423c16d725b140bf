//! The counters of workers: those of a shard's links, and those of a supervisor.

use crate::metrics::{AppCounter, AppStatistics, AppTiming, Counter, Counters};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The counters of the links of one application on one shard.
#[derive(Default)]
pub struct WorkerCounters {
    links: RefCell<Counters>,
    app: RefCell<AppStatistics>,
}

impl WorkerCounters {
    fn add(&self, counter: Counter, n: u64) {
        self.links.borrow_mut().add(counter, n);
    }

    /// Counts an event, hook or reply that was sent to a worker.
    pub fn add_sent(&self) {
        self.add(Counter::WorkerEvents, 1);
    }

    /// Counts an event, hook or reply that could not be sent to a worker.
    pub fn add_event_refused(&self) {
        self.add(Counter::WorkerEventsRefused, 1);
    }

    /// Counts an event, hook or reply that was refused because its client has its share.
    pub fn add_share_refused(&self) {
        self.add(Counter::WorkerSharesRefused, 1);
    }

    /// Counts the end of a subscription or client of which no worker is told.
    pub fn add_end_dropped(&self) {
        self.add(Counter::WorkerEndsDropped, 1);
    }

    /// Counts requests that failed because their worker ended.
    pub fn add_failed(&self, n: u64) {
        self.add(Counter::WorkerRequestsFailed, n);
    }

    /// Counts requests that were not answered in time.
    pub fn add_timed_out(&self, n: u64) {
        self.add(Counter::WorkerRequestsTimedOut, n);
    }

    /// Counts an answer to a request that is no longer pending.
    pub fn add_late_answer(&self) {
        self.add(Counter::WorkerAnswersLate, 1);
    }

    /// Counts a frame that contained an invalid command.
    pub fn add_frame_refused(&self) {
        self.add(Counter::WorkerFramesRefused, 1);
    }

    /// Records the time that a worker has taken to answer.
    pub fn record_answer(&self, time: Duration) {
        self.app.borrow_mut().record(AppTiming::Answer, time);
    }

    /// Counts an answer of a worker that no client waits for.
    pub fn add_unsent_answer(&self, code: u16) {
        self.app.borrow_mut().add_answer(code);
    }

    /// Adds these counters to `counters`, and the statistics of the application to `app`.
    pub fn add_to(&self, counters: &mut Counters, app: &mut AppStatistics) {
        counters.merge(&self.links.borrow());
        app.merge(&self.app.borrow());
    }
}

/// The counters of a supervisor, which belong to no shard.
#[derive(Default)]
pub struct SupervisorCounters {
    pub started: AtomicCounter,
    pub crashed: AtomicCounter,
    pub hung: AtomicCounter,
    pub lines_dropped: AtomicCounter,
    /// Records that workers have logged as errors.
    pub errors: AtomicCounter,
}

impl SupervisorCounters {
    /// Adds these counters to `counters`, and the statistics of the application to `app`.
    pub fn add_to(&self, counters: &mut Counters, app: &mut AppStatistics) {
        app.add(AppCounter::Errors, self.errors.get());
        counters.add(Counter::WorkersStarted, self.started.get());
        counters.add(Counter::WorkersCrashed, self.crashed.get());
        counters.add(Counter::WorkersHung, self.hung.get());
        counters.add(Counter::WorkerLinesDropped, self.lines_dropped.get());
    }
}

/// A counter that one thread increments and others read.
#[derive(Default)]
pub struct AtomicCounter(AtomicU64);

impl AtomicCounter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
