//! The timers of a worker on one link. A timer of the shard cannot be stopped. For this reason only the earliest of the
//! worker's timers has a timer of the shard, and a timer that is cancelled or set again leaves nothing behind.

use crate::limits::WORKER_TIMERS_MAX;
use ahash::AHashMap;
use std::collections::BTreeSet;
use std::time::Duration;

/// The timers of a worker. All times are durations since the server started.
///
/// Invariants, which [`check`](WorkerTimers::check) asserts: `by_number` and `by_due` contain the same timers, and no
/// more than `WORKER_TIMERS_MAX`.
#[derive(Default)]
pub struct WorkerTimers {
    by_number: AHashMap<u32, WorkerTimer>,
    by_due: BTreeSet<(Duration, u32)>,
    /// The times at which timers of the shard fire that were set for these timers. They cannot be stopped: one whose
    /// timer has been cancelled serves the timers that are due by then.
    armed: BTreeSet<Duration>,
}

struct WorkerTimer {
    due: Duration,
    /// `None` if the timer fires once.
    period: Option<Duration>,
}

impl WorkerTimers {
    /// Sets a timer, in place of one with the same number. Returns `false`, and sets nothing, if there are too many
    /// timers.
    pub fn set(&mut self, number: u32, due: Duration, period: Option<Duration>) -> bool {
        self.cancel(number);
        let has_room = self.by_number.len().max(self.armed.len()) < WORKER_TIMERS_MAX;
        if has_room {
            self.by_number.insert(number, WorkerTimer { due, period });
            self.by_due.insert((due, number));
        }
        has_room
    }

    /// Cancels a timer, if it is set.
    pub fn cancel(&mut self, number: u32) {
        if let Some(timer) = self.by_number.remove(&number) {
            let was_due = self.by_due.remove(&(timer.due, number));
            debug_assert!(was_due, "timer {number} must be in both tables");
        }
    }

    /// Cancels the timers that repeat, and those that are due after `last`.
    pub fn cancel_after(&mut self, last: Duration) {
        let WorkerTimers { by_number, by_due, .. } = self;
        by_number.retain(|number, timer| {
            let stays = timer.period.is_none() && timer.due <= last;
            stays || !by_due.remove(&(timer.due, *number))
        });
    }

    /// Returns whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Cancels all timers.
    pub fn clear(&mut self) {
        self.by_number.clear();
        self.by_due.clear();
    }

    /// Returns the number of a timer that is due, or `None` if none is. A timer that repeats is set again, for one
    /// period after `now`; any other one is removed.
    pub fn take_due(&mut self, now: Duration) -> Option<u32> {
        let (due, number) = *self.by_due.first().filter(|(due, _)| *due <= now)?;
        self.by_due.remove(&(due, number));
        let timer = self.by_number.get_mut(&number).expect("a timer must be in both tables");
        match timer.period {
            Some(period) => {
                timer.due = now + period;
                self.by_due.insert((timer.due, number));
            }
            None => _ = self.by_number.remove(&number),
        }
        Some(number)
    }

    /// Records that all timers of the shard that were set for `now` or earlier have fired.
    pub fn shard_timers_fired(&mut self, now: Duration) {
        while self.armed.first().is_some_and(|armed| *armed <= now) {
            self.armed.pop_first();
        }
    }

    /// Returns the time at which one more timer of the shard must fire, or `None` if one fires early enough for the
    /// first of these timers. The caller must set it.
    pub fn arm(&mut self) -> Option<Duration> {
        let (due, _) = *self.by_due.first()?;
        let is_armed = self.armed.first().is_some_and(|armed| *armed <= due);
        (!is_armed && self.armed.insert(due)).then_some(due)
    }

    /// Asserts the invariants of the tables.
    pub fn check(&self) {
        assert_eq!(self.by_number.len(), self.by_due.len(), "each timer is in both tables");
        assert!(self.by_number.len() <= WORKER_TIMERS_MAX, "{} timers are set", self.by_number.len());
        for (number, timer) in &self.by_number {
            assert!(self.by_due.contains(&(timer.due, *number)), "timer {number} must be in both tables");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn take_all(timers: &mut WorkerTimers, now: u64) -> Vec<u32> {
        timers.shard_timers_fired(MS(now));
        let taken = std::iter::from_fn(|| timers.take_due(MS(now))).collect();
        timers.check();
        taken
    }

    #[test]
    fn timers_fire_in_order_and_the_earliest_is_armed() {
        let mut timers = WorkerTimers::default();
        assert_eq!(timers.arm(), None);
        assert!(timers.set(1, MS(30), None));
        assert_eq!(timers.arm(), Some(MS(30)));
        assert!(timers.set(2, MS(10), None) && timers.set(3, MS(20), Some(MS(5))));
        assert_eq!((timers.arm(), timers.arm()), (Some(MS(10)), None));
        assert!(take_all(&mut timers, 9).is_empty());
        assert_eq!(timers.arm(), None, "the shard's timer has not fired yet");
        assert_eq!(take_all(&mut timers, 22), [2, 3]);
        assert_eq!(timers.arm(), Some(MS(27)), "one period from now");
        assert_eq!(take_all(&mut timers, 100), [3, 1]);
        timers.cancel(3);
        assert_eq!((take_all(&mut timers, 1000), timers.arm()), (vec![], None));
    }

    #[test]
    fn a_timer_that_is_cancelled_or_set_again_leaves_nothing_behind() {
        let mut timers = WorkerTimers::default();
        for nth in 0..1000 {
            assert!(timers.set(7, MS(5000 + nth), None));
            timers.arm();
        }
        assert_eq!((timers.by_number.len(), timers.by_due.len(), timers.armed.len()), (1, 1, 1));
        // The armed timer fires for nothing, and the timer that is set is armed then.
        assert_eq!((take_all(&mut timers, 5000), timers.arm()), (vec![], Some(MS(5999))));
        timers.cancel(7);
        timers.cancel(8);
        assert_eq!((timers.by_number.len(), timers.by_due.len()), (0, 0));
        assert_eq!((take_all(&mut timers, 5999), timers.arm()), (vec![], None));
    }

    /// A long timer does not make the shard set a timer again after each short one.
    #[test]
    fn short_timers_before_a_long_one_leave_nothing_behind() {
        let mut timers = WorkerTimers::default();
        assert!(timers.set(1, MS(1_000_000), None));
        assert_eq!(timers.arm(), Some(MS(1_000_000)));
        for nth in 1..1000 {
            assert!(timers.set(2, MS(nth * 10), None));
            assert_eq!(timers.arm(), Some(MS(nth * 10)));
            assert_eq!((take_all(&mut timers, nth * 10), timers.arm()), (vec![2], None));
        }
        assert_eq!(timers.armed.len(), 1);
    }

    #[test]
    fn repeating_and_distant_timers_are_cancelled() {
        let mut timers = WorkerTimers::default();
        assert!(timers.set(1, MS(10), None) && timers.set(2, MS(10), Some(MS(10))));
        assert!(timers.set(3, MS(40), None) && timers.set(4, MS(41), None));
        timers.cancel_after(MS(40));
        timers.check();
        assert_eq!((timers.by_number.len(), take_all(&mut timers, 50)), (2, vec![1, 3]));
        assert!(timers.is_empty() && timers.by_due.is_empty());
    }

    #[test]
    fn their_number_is_limited() {
        let mut timers = WorkerTimers::default();
        assert!((0..WORKER_TIMERS_MAX as u32).all(|number| timers.set(number, MS(1), None)));
        assert!(!timers.set(u32::MAX, MS(1), None) && timers.set(0, MS(2), None));
        timers.check();
        timers.clear();
        assert!(timers.set(u32::MAX, MS(1), None));
    }
}
