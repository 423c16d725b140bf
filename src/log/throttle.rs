//! The bound on log lines that peers cause: of each kind one line in a few seconds, and a count of the others.
//!
//! A kind is a short text, such as the reason for which a connection was closed. Its first line opens a *window* of
//! [`LOG_WINDOW`], during which further lines of the kind are counted and not logged. A summary with the count follows
//! when the window is over: the thread of the log writes it, also if no further line of the kind is caused. The end of
//! the process writes the summaries of the windows that are still open.
//!
//! The windows belong to the whole process: their number does not grow with the number of shards. Shards share a few
//! atomic numbers for each kind, which they touch only when a line of that kind is due to be logged. The time is real
//! time, also if the server uses the manual clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::limits::{LOG_KINDS_MAX, LOG_THROTTLED_LINES_MAX, LOG_WINDOW};

/// Logs a line that a peer can cause, unless a line of the same kind was logged less than [`LOG_WINDOW`] ago.
///
/// The arguments are the level (`error`, `warn` or `info`), the kind as a `&'static str`, and those of the macros of
/// `tracing`. A kind is always logged at the same level.
macro_rules! throttle {
    (error, $($rest:tt)+) => { $crate::log::throttle!(@at ERROR, $($rest)+) };
    (warn, $($rest:tt)+) => { $crate::log::throttle!(@at WARN, $($rest)+) };
    (info, $($rest:tt)+) => { $crate::log::throttle!(@at INFO, $($rest)+) };
    (@at $level:ident, $kind:expr, $($line:tt)+) => {
        if ::tracing::enabled!(::tracing::Level::$level)
            && $crate::log::admit($kind, ::tracing::Level::$level)
        {
            ::tracing::event!(::tracing::Level::$level, $($line)+)
        }
    };
}
pub(crate) use throttle;

const WINDOW_MS: u64 = LOG_WINDOW.as_millis() as u64;

/// The windows of this process.
static WINDOWS: Windows = Windows::new();

/// The moment from which the times of [`WINDOWS`] are counted.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns whether a line of this kind may be logged now, and counts it if not. [`throttle`] calls it.
pub(crate) fn admit(kind: &'static str, level: Level) -> bool {
    let admitted = WINDOWS.admit(kind, level, now_ms());
    if let Some(Some(summary)) = &admitted {
        summary.log();
    }
    admitted.is_some()
}

/// Logs the summaries that are due. Returns the time after which the next one may be due, or `None` if no window is open.
pub(super) fn log_due() -> Option<Duration> {
    WINDOWS.take_due(now_ms(), |summary| summary.log());
    let now_ms = now_ms();
    let due_ms = WINDOWS.next_due(now_ms)?;
    Some(Duration::from_millis(due_ms.saturating_sub(now_ms)).max(RETRY))
}

/// Logs all summaries, because the log ends.
pub(super) fn log_all() {
    WINDOWS.take_all(now_ms(), |summary| summary.log());
}

/// Returns the number of lines that were counted instead of being logged.
pub(super) fn suppressed_lines() -> u64 {
    WINDOWS.suppressed_lines()
}

/// The pause before the next attempt to log a summary, if the present second has no line left for it.
const RETRY: Duration = Duration::from_millis(100);

/// The milliseconds since the first call, and one more: 0 is before all windows.
fn now_ms() -> u64 {
    START.elapsed().as_millis() as u64 + 1
}

/// The lines of one kind that were counted.
#[derive(Debug, PartialEq, Eq)]
struct SuppressedLines {
    kind: &'static str,
    level: Level,
    lines: u64,
    /// The time since the line of the kind that was logged.
    seconds: u64,
}

impl SuppressedLines {
    fn log(&self) {
        const TEXT: &str = "more lines of this kind were not logged";
        let SuppressedLines { kind, lines, seconds, .. } = self;
        match self.level {
            Level::ERROR => tracing::error!(kind, lines, seconds, "{TEXT}"),
            Level::WARN => tracing::warn!(kind, lines, seconds, "{TEXT}"),
            _ => tracing::info!(kind, lines, seconds, "{TEXT}"),
        }
    }
}

/// The windows of all kinds. Any thread may use them; nothing is locked.
///
/// Invariants: a kind has one slot, except that the last slot is shared by the kinds that find no other one; a slot keeps
/// its kind; in each slot, `reported <= suppressed`; each line that was not admitted is in one summary, or still
/// unreported.
struct Windows {
    slots: [Window; LOG_KINDS_MAX],
    /// A second, and the number of lines that were admitted in it, as `second << 32 | lines`.
    spent: AtomicU64,
}

/// The window of one kind, in a cache line of its own.
#[repr(align(64))]
struct Window {
    kind: OnceLock<(&'static str, Level)>,
    /// The end of the last window; 0 if there was none.
    ends_ms: AtomicU64,
    /// The lines that were counted since the start of the process.
    suppressed: AtomicU64,
    /// The number of these that are in summaries.
    reported: AtomicU64,
}

impl Windows {
    const fn new() -> Windows {
        Windows { slots: [const { Window::new() }; LOG_KINDS_MAX], spent: AtomicU64::new(0) }
    }

    /// Opens a window for a line of this kind, and returns the summary of the lines before it if there were any. Returns
    /// `None` if the line is counted and not logged.
    fn admit(&self, kind: &'static str, level: Level, now_ms: u64) -> Option<Option<SuppressedLines>> {
        let slot = self.slot(kind, level);
        let ends_ms = slot.ends_ms.load(Ordering::Relaxed);
        let admitted = now_ms >= ends_ms && self.spend_line(now_ms) && slot.open(ends_ms, now_ms);
        if !admitted {
            slot.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let summary = (slot.has_unreported() && self.spend_line(now_ms))
            .then(|| slot.take_summary(ends_ms, now_ms))
            .flatten();
        Some(summary)
    }

    /// Passes the summaries of the windows that are over to `log`, as far as this second has lines for them.
    fn take_due(&self, now_ms: u64, mut log: impl FnMut(SuppressedLines)) {
        for slot in &self.slots {
            let ends_ms = slot.ends_ms.load(Ordering::Relaxed);
            if now_ms < ends_ms || !slot.has_unreported() {
                continue;
            }
            if !self.spend_line(now_ms) {
                return;
            }
            if let Some(summary) = slot.take_summary(ends_ms, now_ms) {
                log(summary);
            }
        }
    }

    /// Passes all summaries to `log`.
    fn take_all(&self, now_ms: u64, log: impl FnMut(SuppressedLines)) {
        let summaries = self.slots.iter().filter_map(|slot| {
            let ends_ms = slot.ends_ms.load(Ordering::Relaxed);
            slot.take_summary(ends_ms, now_ms)
        });
        summaries.for_each(log);
    }

    /// Returns the earliest time at which a summary may be due, or `None` if no window is open and no line unreported.
    /// While a window is open, lines may be counted at any time.
    fn next_due(&self, now_ms: u64) -> Option<u64> {
        let ends = self.slots.iter().filter_map(|slot| {
            let ends_ms = slot.ends_ms.load(Ordering::Relaxed);
            (now_ms < ends_ms || slot.has_unreported()).then_some(ends_ms)
        });
        ends.min()
    }

    fn suppressed_lines(&self) -> u64 {
        self.slots.iter().map(|slot| slot.suppressed.load(Ordering::Relaxed)).sum()
    }

    /// Returns the slot of a kind, which it takes if the kind has none yet.
    fn slot(&self, kind: &'static str, level: Level) -> &Window {
        let (last, slots) = self.slots.split_last().expect("LOG_KINDS_MAX is not 0");
        // FNV-1a.
        let hash = kind.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let (before, after) = slots.split_at(hash as usize % slots.len());
        let mut probed = after.iter().chain(before);
        let found = probed.find(|slot| slot.kind.get_or_init(|| (kind, level)).0 == kind);
        found.unwrap_or_else(|| {
            last.kind.get_or_init(|| ("other", level));
            last
        })
    }

    /// Takes one of the lines of this second; returns whether there was one.
    fn spend_line(&self, now_ms: u64) -> bool {
        let second = now_ms / 1000;
        let spend = |spent: u64| {
            // Another thread may have read the clock earlier and come later. It uses the newer second.
            let (newest, lines) = (spent >> 32, spent & u64::from(u32::MAX));
            match lines {
                _ if second > newest => Some(second << 32 | 1),
                lines if lines < LOG_THROTTLED_LINES_MAX => Some(spent + 1),
                _ => None,
            }
        };
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

impl Window {
    const fn new() -> Window {
        Window {
            kind: OnceLock::new(),
            ends_ms: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
            reported: AtomicU64::new(0),
        }
    }

    /// Opens a window after the one that ended at `ended_ms`. Returns `false` if another thread did so before.
    fn open(&self, ended_ms: u64, now_ms: u64) -> bool {
        let ends_ms = now_ms + WINDOW_MS;
        self.ends_ms.compare_exchange(ended_ms, ends_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn has_unreported(&self) -> bool {
        self.suppressed.load(Ordering::Relaxed) > self.reported.load(Ordering::Relaxed)
    }

    /// Returns the summary of the lines that are in none yet, after a window that ends at `ends_ms`.
    fn take_summary(&self, ends_ms: u64, now_ms: u64) -> Option<SuppressedLines> {
        let &(kind, level) = self.kind.get()?;
        let suppressed = self.suppressed.load(Ordering::Relaxed);
        // Another thread may take a summary at the same time. Each line is in one of them.
        let reported = self.reported.fetch_max(suppressed, Ordering::Relaxed);
        let lines = suppressed.checked_sub(reported).filter(|lines| *lines > 0)?;
        let began_ms = ends_ms.saturating_sub(WINDOW_MS);
        Some(SuppressedLines { kind, level, lines, seconds: now_ms.saturating_sub(began_ms).div_ceil(1000) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const SECOND: u64 = 1000;

    fn admit(windows: &Windows, kind: &'static str, now_ms: u64) -> Option<Option<SuppressedLines>> {
        windows.admit(kind, Level::INFO, now_ms)
    }

    fn due(windows: &Windows, now_ms: u64) -> Vec<SuppressedLines> {
        let mut summaries = Vec::new();
        windows.take_due(now_ms, |summary| summaries.push(summary));
        summaries
    }

    fn summary(kind: &'static str, lines: u64, seconds: u64) -> SuppressedLines {
        SuppressedLines { kind, level: Level::INFO, lines, seconds }
    }

    #[test]
    fn a_window_admits_one_line_and_counts_the_others() {
        let windows = Windows::new();
        assert_eq!(windows.next_due(1), None);
        assert_eq!(admit(&windows, "a", 1), Some(None));
        assert_eq!(windows.next_due(1), Some(1 + WINDOW_MS), "lines may follow");
        for now_ms in 1..=WINDOW_MS {
            assert_eq!(admit(&windows, "a", now_ms), None);
        }
        assert!(due(&windows, WINDOW_MS).is_empty(), "the window is open");
        // The next line brings the summary.
        assert_eq!(admit(&windows, "a", 1 + WINDOW_MS), Some(Some(summary("a", WINDOW_MS, 5))));
        assert!(due(&windows, 1 + 2 * WINDOW_MS).is_empty(), "nothing was counted since");
        assert_eq!(windows.next_due(1 + 2 * WINDOW_MS), None);
        assert_eq!(admit(&windows, "a", 1 + 2 * WINDOW_MS), Some(None));
        assert_eq!(windows.suppressed_lines(), WINDOW_MS);
    }

    #[test]
    fn the_end_of_a_flood_is_reported_without_a_further_line() {
        let windows = Windows::new();
        for kind in ["a", "b", "a", "a"] {
            let _ = admit(&windows, kind, 1);
        }
        assert_eq!(due(&windows, 1 + WINDOW_MS), [summary("a", 2, 5)]);
        assert_eq!(admit(&windows, "b", 2 + WINDOW_MS), Some(None));
        assert_eq!(admit(&windows, "b", 3 + WINDOW_MS), None);
        // At the end of the process, windows that are open are reported too.
        let mut last = Vec::new();
        windows.take_all(4 + WINDOW_MS, |summary| last.push(summary));
        assert_eq!(last, [summary("b", 1, 1)]);
    }

    #[test]
    fn a_second_has_a_bounded_number_of_lines() {
        let windows = Windows::new();
        let kinds: Vec<&'static str> = (0..LOG_KINDS_MAX * 2).map(|n| &*format!("kind {n}").leak()).collect();
        let (mut lines, mut counted, mut calls) = (0, 0, 0);
        for second in 1..=20 {
            let mut of_second = 0;
            for ms in [0, 1, 500, 999] {
                let now_ms = second * SECOND + ms;
                for kind in &kinds {
                    calls += 1;
                    if let Some(summary) = admit(&windows, kind, now_ms) {
                        lines += 1;
                        of_second += 1 + u64::from(summary.is_some());
                        counted += summary.map_or(0, |summary| summary.lines);
                    }
                }
                for summary in due(&windows, now_ms) {
                    of_second += 1;
                    counted += summary.lines;
                }
            }
            assert!(of_second <= LOG_THROTTLED_LINES_MAX, "{of_second} lines in second {second}");
        }
        assert_eq!(windows.suppressed_lines(), calls - lines);
        windows.take_all(30 * SECOND, |summary| counted += summary.lines);
        assert_eq!(lines + counted, calls, "each line is logged or counted");
        let mut known: Vec<&str> = windows.slots.iter().map(|slot| slot.kind.get().unwrap().0).collect();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), LOG_KINDS_MAX, "each kind has one slot");
        assert_eq!(windows.slots.last().unwrap().kind.get().unwrap().0, "other");
    }

    #[test]
    fn threads_lose_no_line() {
        const LINES: u64 = 20_000;
        const THREADS: u64 = 4;
        let windows = Windows::new();
        let (lines, counted) = (AtomicU64::new(0), AtomicU64::new(0));
        let add = |summary: SuppressedLines| _ = counted.fetch_add(summary.lines, Ordering::Relaxed);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for n in 0..LINES {
                        if let Some(summary) = admit(&windows, "a", 1 + n) {
                            lines.fetch_add(1, Ordering::Relaxed);
                            summary.into_iter().for_each(add);
                        }
                    }
                });
            }
            scope.spawn(|| (0..LINES).for_each(|n| windows.take_due(n, add)));
        });
        windows.take_all(LINES, add);
        let lines = lines.into_inner();
        assert_eq!(lines + counted.into_inner(), LINES * THREADS);
        assert!(lines <= 1 + LINES / WINDOW_MS, "{lines} lines");
    }
}
