//! The one clock that timers go by, which tests hold still and move by hand; and the stopwatch for latencies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

const NANOS_PER_MS: u64 = 1_000_000;

/// Milliseconds since the server began: the time that timers go by. It never runs backwards.
///
/// Clones tell the same time, so every shard is given a clone of the server's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System { began: Instant },
    Manual { nanos: Arc<AtomicU64> },
}

impl Clock {
    /// The machine's monotonic clock (`CLOCK_MONOTONIC`), which reads 0 ms now.
    pub fn system() -> Self {
        Self { source: Source::System { began: Instant::now() } }
    }

    /// A clock that stands still at 0 ms, and the hand that moves it.
    pub fn manual() -> (Self, ClockHandle) {
        let nanos = Arc::new(AtomicU64::new(0));
        (Self { source: Source::Manual { nanos: Arc::clone(&nanos) } }, ClockHandle { nanos })
    }

    /// Whole milliseconds since the server began, rounded down.
    pub fn now_ms(&self) -> u64 {
        match &self.source {
            Source::System { began } => nanos_of(began.elapsed()) / NANOS_PER_MS,
            Source::Manual { nanos } => nanos.load(Ordering::Acquire) / NANOS_PER_MS,
        }
    }

    /// Whether the clock is moved by a [`ClockHandle`]: sleeping until a time of its own would then never end.
    pub fn is_manual(&self) -> bool {
        matches!(self.source, Source::Manual { .. })
    }
}

/// Moves a manual [`Clock`], from any thread.
///
/// It wakes nobody: a shard that sleeps has to be woken for it to see the new time.
#[derive(Clone, Debug)]
pub struct ClockHandle {
    nanos: Arc<AtomicU64>,
}

impl ClockHandle {
    /// Moves the clock forward; parts of a millisecond add up. It stops at the end of time (584 years).
    ///
    /// What this thread wrote before is seen by whoever reads the new time.
    pub fn advance(&self, by: Duration) {
        let by = nanos_of(by);
        let moved = self
            .nanos
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |nanos| Some(nanos.saturating_add(by)));
        debug_assert!(moved.is_ok(), "the update always gives a new time");
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC` since this process first asked: what latencies are measured with.
///
/// Comparable across threads, and never stopped by tests: no [`ClockHandle`] moves it.
pub fn nanos() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    nanos_of(BEGAN.elapsed())
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_by_hand_only() {
        let (clock, hand) = Clock::manual();
        assert!(clock.is_manual());
        assert_eq!(clock.now_ms(), 0);
        hand.advance(Duration::from_millis(15));
        assert_eq!(clock.now_ms(), 15);
        assert_eq!(clock.clone().now_ms(), 15, "clones tell the same time");
    }

    #[test]
    fn parts_of_a_millisecond_add_up() {
        let (clock, hand) = Clock::manual();
        for _ in 0..3 {
            hand.clone().advance(Duration::from_micros(400));
        }
        assert_eq!(clock.now_ms(), 1, "1.2 ms, rounded down");
    }

    #[test]
    fn the_end_of_time_is_no_overflow() {
        let (clock, hand) = Clock::manual();
        hand.advance(Duration::from_secs(1));
        hand.advance(Duration::MAX);
        hand.advance(Duration::MAX);
        assert_eq!(clock.now_ms(), u64::MAX / NANOS_PER_MS);
    }

    #[test]
    fn a_time_is_seen_with_what_was_written_before_it() {
        let (clock, hand) = Clock::manual();
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                written.store(7, Ordering::Relaxed);
                hand.advance(Duration::from_millis(1));
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
        assert!(elsewhere >= ns, "threads share one origin");
    }
}
