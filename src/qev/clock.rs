//! The clock of timers, which tests can stop and advance, and the stopwatch for latencies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

const NANOS_PER_MS: u64 = 1_000_000;

/// The clock of timers: milliseconds since the server started. It never runs backwards.
///
/// All clones have the same time. Every shard has a clone of the server's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    source: ClockSource,
}

#[derive(Clone, Debug)]
enum ClockSource {
    System { started_ns: u64 },
    Manual { nanos: Arc<AtomicU64> },
}

impl Clock {
    /// Returns the system's monotonic clock (`CLOCK_MONOTONIC`), starting at 0 ms.
    pub fn system() -> Self {
        Self { source: ClockSource::System { started_ns: nanos() } }
    }

    /// Returns a clock that is stopped at 0 ms, and the handle that advances it.
    pub fn manual() -> (Self, ClockHandle) {
        let nanos = Arc::new(AtomicU64::new(0));
        (Self { source: ClockSource::Manual { nanos: Arc::clone(&nanos) } }, ClockHandle { nanos })
    }

    /// Returns the milliseconds since the server started, rounded down.
    pub fn now_ms(&self) -> u64 {
        self.ms_at(nanos())
    }

    /// Returns the milliseconds as of a moment at which [`nanos`] was read. A clock that is advanced by hand returns its
    /// time of now.
    pub fn ms_at(&self, now_ns: u64) -> u64 {
        let since_start = match &self.source {
            ClockSource::System { started_ns } => now_ns.saturating_sub(*started_ns),
            ClockSource::Manual { nanos } => nanos.load(Ordering::Acquire),
        };
        since_start / NANOS_PER_MS
    }

    /// Returns whether the clock is advanced by a [`ClockHandle`]. Sleeping until a time of such a clock may never end.
    pub fn is_manual(&self) -> bool {
        matches!(self.source, ClockSource::Manual { .. })
    }
}

/// The handle that advances a manual [`Clock`] from any thread.
///
/// The handle does not wake shards: a shard that sleeps must be woken to see the new time.
#[derive(Clone, Debug)]
pub struct ClockHandle {
    nanos: Arc<AtomicU64>,
}

impl ClockHandle {
    /// Advances the clock. Fractions of a millisecond accumulate. The clock stops at its maximum, 584 years.
    ///
    /// A thread that reads the new time also sees everything that this thread wrote before.
    pub fn advance(&self, by: Duration) {
        let by = nanos_of(by);
        let moved = self
            .nanos
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |nanos| Some(nanos.saturating_add(by)));
        debug_assert!(moved.is_ok(), "the update never fails");
    }
}

/// Returns the nanoseconds of `CLOCK_MONOTONIC` since the first call in this process. Latencies are measured with it.
///
/// The times of different threads are comparable. Tests cannot stop this clock: it has no [`ClockHandle`].
pub fn nanos() -> u64 {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    nanos_of(STARTED.elapsed())
}

/// Returns the nanoseconds for which this thread has had a core. A system call.
pub fn core_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_is_advanced_by_its_handle() {
        let (clock, handle) = Clock::manual();
        assert!(clock.is_manual());
        assert_eq!(clock.now_ms(), 0);
        handle.advance(Duration::from_millis(15));
        assert_eq!(clock.now_ms(), 15);
        assert_eq!(clock.clone().now_ms(), 15, "clones have the same time");
    }

    #[test]
    fn a_thread_that_sleeps_has_no_core() {
        let before = core_nanos();
        std::thread::sleep(Duration::from_millis(200));
        assert!(core_nanos() - before < 100_000_000);
        let busy = core_nanos();
        while core_nanos() == busy {}
    }

    #[test]
    fn fractions_of_a_millisecond_accumulate() {
        let (clock, handle) = Clock::manual();
        for _ in 0..3 {
            handle.clone().advance(Duration::from_micros(400));
        }
        assert_eq!(clock.now_ms(), 1, "1.2 ms, rounded down");
    }

    #[test]
    fn the_clock_stops_at_its_maximum() {
        let (clock, handle) = Clock::manual();
        handle.advance(Duration::from_secs(1));
        handle.advance(Duration::MAX);
        handle.advance(Duration::MAX);
        assert_eq!(clock.now_ms(), u64::MAX / NANOS_PER_MS);
    }

    #[test]
    fn a_new_time_publishes_earlier_writes() {
        let (clock, handle) = Clock::manual();
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                written.store(7, Ordering::Relaxed);
                handle.advance(Duration::from_millis(1));
            });
            while clock.now_ms() == 0 {
                std::thread::yield_now();
            }
            assert_eq!(written.load(Ordering::Relaxed), 7);
        });
    }

    #[test]
    fn the_system_clock_and_the_stopwatch_never_run_backwards() {
        let clock = Clock::system();
        assert!(!clock.is_manual());
        let (mut ms, mut ns) = (clock.now_ms(), nanos());
        for _ in 0..1000 {
            let (next_ms, next_ns) = (clock.now_ms(), nanos());
            assert!(next_ms >= ms && next_ns >= ns);
            (ms, ns) = (next_ms, next_ns);
        }
        let elsewhere = std::thread::spawn(nanos).join().expect("the thread only reads a clock");
        assert!(elsewhere >= ns, "threads have the same origin");
    }
}
