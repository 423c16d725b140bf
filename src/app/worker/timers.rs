//! The timers of a worker on one link. The shard's own cannot be stopped, so only the earliest of these is set there: one
//! that is stopped, or set anew, leaves nothing behind.

use crate::limits::WORKER_TIMERS_MAX;
use ahash::AHashMap;
use std::collections::BTreeSet;
use std::time::Duration;

/// The time now, and all times that are due, are since the server began.
#[derive(Default)]
pub struct Timers {
    by_number: AHashMap<u32, Timer>,
    by_due: BTreeSet<(Duration, u32)>,
    /// When the shard's own timers fire that were set for these. They cannot be stopped: one that is set for a time that is
    /// not needed any more serves what is due by then.
    armed: BTreeSet<Duration>,
}

struct Timer {
    due: Duration,
    period: Option<Duration>,
}

impl Timers {
    /// Sets one, or sets it anew; whether there is room for it.
    pub fn set(&mut self, number: u32, due: Duration, period: Option<Duration>) -> bool {
        self.cancel(number);
        let has_room = self.by_number.len().max(self.armed.len()) < WORKER_TIMERS_MAX;
        if has_room {
            self.by_number.insert(number, Timer { due, period });
            self.by_due.insert((due, number));
        }
        has_room
    }

    /// Stops one, if it is set.
    pub fn cancel(&mut self, number: u32) {
        if let Some(timer) = self.by_number.remove(&number) {
            self.by_due.remove(&(timer.due, number));
        }
    }

    /// Stops those that repeat, and those that are due later than this.
    pub fn keep_until(&mut self, last: Duration) {
        let Timers { by_number, by_due, .. } = self;
        by_number.retain(|number, timer| {
            let stays = timer.period.is_none() && timer.due <= last;
            stays || !by_due.remove(&(timer.due, *number))
        });
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub fn clear(&mut self) {
        self.by_number.clear();
        self.by_due.clear();
    }

    /// Takes one that is due; it is set again where it repeats, a period from now.
    pub fn take_due(&mut self, now: Duration) -> Option<u32> {
        let (due, number) = *self.by_due.first().filter(|(due, _)| *due <= now)?;
        self.by_due.remove(&(due, number));
        let timer = self.by_number.get_mut(&number).expect("whatever is due has a number");
        match timer.period {
            Some(period) => {
                timer.due = now + period;
                self.by_due.insert((timer.due, number));
            }
            None => _ = self.by_number.remove(&number),
        }
        Some(number)
    }

    /// The shard's timers have fired that were set for this time or an earlier one.
    pub fn fired(&mut self, now: Duration) {
        while self.armed.first().is_some_and(|armed| *armed <= now) {
            self.armed.pop_first();
        }
    }

    /// When another one of the shard's timers has to fire: none fires as early as something is due.
    pub fn arm(&mut self) -> Option<Duration> {
        let (due, _) = *self.by_due.first()?;
        let is_armed = self.armed.first().is_some_and(|armed| *armed <= due);
        (!is_armed && self.armed.insert(due)).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn take_all(timers: &mut Timers, now: u64) -> Vec<u32> {
        timers.fired(MS(now));
        std::iter::from_fn(|| timers.take_due(MS(now))).collect()
    }

    #[test]
    fn they_fire_in_order_and_the_earliest_is_armed() {
        let mut timers = Timers::default();
        assert_eq!(timers.arm(), None);
        assert!(timers.set(1, MS(30), None));
        assert_eq!(timers.arm(), Some(MS(30)));
        assert!(timers.set(2, MS(10), None) && timers.set(3, MS(20), Some(MS(5))));
        assert_eq!((timers.arm(), timers.arm()), (Some(MS(10)), None));
        assert!(take_all(&mut timers, 9).is_empty());
        assert_eq!(timers.arm(), None, "it is still to fire");
        assert_eq!(take_all(&mut timers, 22), [2, 3]);
        assert_eq!(timers.arm(), Some(MS(27)), "a period from now");
        assert_eq!(take_all(&mut timers, 100), [3, 1]);
        timers.cancel(3);
        assert_eq!((take_all(&mut timers, 1000), timers.arm()), (vec![], None));
    }

    #[test]
    fn one_that_is_stopped_or_set_anew_leaves_nothing_behind() {
        let mut timers = Timers::default();
        for nth in 0..1000 {
            assert!(timers.set(7, MS(5000 + nth), None));
            timers.arm();
        }
        assert_eq!((timers.by_number.len(), timers.by_due.len(), timers.armed.len()), (1, 1, 1));
        // What was armed fires in vain, and the rest is armed then.
        assert_eq!((take_all(&mut timers, 5000), timers.arm()), (vec![], Some(MS(5999))));
        timers.cancel(7);
        timers.cancel(8);
        assert_eq!((timers.by_number.len(), timers.by_due.len()), (0, 0));
        assert_eq!((take_all(&mut timers, 5999), timers.arm()), (vec![], None));
    }

    /// A long one does not have the shard set a timer again and again behind each short one.
    #[test]
    fn short_ones_before_a_long_one_leave_nothing_behind() {
        let mut timers = Timers::default();
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
    fn those_that_repeat_and_those_far_off_are_stopped() {
        let mut timers = Timers::default();
        assert!(timers.set(1, MS(10), None) && timers.set(2, MS(10), Some(MS(10))));
        assert!(timers.set(3, MS(40), None) && timers.set(4, MS(41), None));
        timers.keep_until(MS(40));
        assert_eq!((timers.by_number.len(), take_all(&mut timers, 50)), (2, vec![1, 3]));
        assert!(timers.is_empty() && timers.by_due.is_empty());
    }

    #[test]
    fn there_are_so_many() {
        let mut timers = Timers::default();
        assert!((0..WORKER_TIMERS_MAX as u32).all(|number| timers.set(number, MS(1), None)));
        assert!(!timers.set(u32::MAX, MS(1), None) && timers.set(0, MS(2), None));
        timers.clear();
        assert!(timers.set(u32::MAX, MS(1), None));
    }
}
