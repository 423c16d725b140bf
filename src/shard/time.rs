//! The time of a shard: its clocks, which are read once a turn, and its timers.

use super::connection::Moment;
use crate::qev::clock::{Clock, nanos};
use crate::qev::ring::Wait;
use crate::qev::timer::{TimerId, Wheel};
use std::num::NonZeroU32;
use std::time::Duration;

/// The time by which a turn may begin later than planned, in milliseconds, before the shard takes itself to have been
/// stalled: more than a turn of a busy shard takes, and less than any patience with a peer.
const STALL_MS: u64 = 250;

/// The time after a stall in which no timer fires, in milliseconds. What was sent meanwhile may need another turn, or a
/// moment on its way if the whole machine was paused.
const CATCH_UP_MIN_MS: u64 = 100;

/// The longest time after a stall in which no timer fires, in milliseconds: a busy shard always finds something new.
const CATCH_UP_MAX_MS: u64 = 5000;

/// The purpose of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DueTimer {
    /// Checks all deadlines of the connection in this slot.
    Connection(u32),
    /// Runs an application's periodic timer.
    Every(u32),
    /// Runs an application's one-shot timer.
    Once(u32),
    /// Checks the links to workers.
    Links,
    /// Checks the sends that are in flight.
    Sends,
    /// Resumes accepting.
    AcceptAgain,
}

/// A [`DueTimer`] in four bytes, as the wheel stores it: a slot, or a kind and an index. 1 is added, so that it is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedTimer(NonZeroU32);

/// The bit of a packed timer that is not that of a connection. Slots are smaller.
const IS_OTHER: u32 = 1 << 31;

/// The number of bits of the index in a packed timer that is not that of a connection. The kind is above it.
const INDEX_BITS: u32 = 28;

impl From<DueTimer> for PackedTimer {
    #[inline]
    fn from(due: DueTimer) -> PackedTimer {
        let other = |kind: u32, index: u32| {
            assert!(index < 1 << INDEX_BITS, "timer {index} of an application is beyond the limit");
            IS_OTHER | kind << INDEX_BITS | index
        };
        let packed = match due {
            DueTimer::Connection(slot) => slot,
            DueTimer::Every(index) => other(0, index),
            DueTimer::Once(index) => other(1, index),
            DueTimer::Links => other(2, 0),
            DueTimer::Sends => other(3, 0),
            DueTimer::AcceptAgain => other(4, 0),
        };
        PackedTimer(NonZeroU32::new(packed + 1).expect("one was added"))
    }
}

impl From<PackedTimer> for DueTimer {
    #[inline]
    fn from(packed: PackedTimer) -> DueTimer {
        let packed = packed.0.get() - 1;
        if packed & IS_OTHER == 0 {
            return DueTimer::Connection(packed);
        }
        let index = packed & ((1 << INDEX_BITS) - 1);
        match (packed & !IS_OTHER) >> INDEX_BITS {
            0 => DueTimer::Every(index),
            1 => DueTimer::Once(index),
            2 => DueTimer::Links,
            3 => DueTimer::Sends,
            4 => DueTimer::AcceptAgain,
            kind => unreachable!("no timer has kind {kind}"),
        }
    }
}

/// The time of the current turn, and the timers of the shard.
///
/// Two clocks are read once a turn. Timers follow the first one, in milliseconds, which tests can stop and move.
/// Latencies are measured with the monotonic clock, in nanoseconds.
///
/// A shard *stalls* if its process is stopped, its machine is paused, or a handler blocks. Peers go on sending meanwhile.
/// After a stall, the shard catches up: no timer fires until a turn has found nothing new. What peers are given time for
/// begins anew, because they may have waited for the server.
///
/// Invariants, between turns: no timer that has fired is left to be handled; the wheel is consistent.
pub(super) struct Time {
    clock: Clock,
    now_ms: u64,
    now_ns: u64,
    /// The time at which this turn was to begin at the latest, in nanoseconds, or `None` if it had no such time.
    planned_ns: Option<u64>,
    /// The end of the last stall, in milliseconds; 0 if there was none.
    resumed_ms: u64,
    catching_up: Option<CatchingUp>,
    timers: Wheel<PackedTimer>,
    /// Memory for the timers that fire, kept from turn to turn.
    fired: Vec<DueTimer>,
    /// `true` if timers are due that have not fired yet, because too many were due at once.
    is_behind: bool,
}

/// The state of a shard that has stalled.
struct CatchingUp {
    /// The time at which the stall began.
    stalled_ms: u64,
    /// The time until which the shard catches up in any case.
    until_ms: u64,
    /// The time at which timers fire again even if every turn finds something new.
    at_most_ms: u64,
}

/// The number of timers that fire in one turn. Each may close a connection or send a heartbeat, and the timers of
/// thousands of connections may be due in the same millisecond.
const TIMERS_PER_TURN: usize = 1024;

impl Time {
    /// Timers that follow `clock`.
    pub fn new(clock: Clock) -> Time {
        let now_ms = clock.now_ms();
        Time {
            clock,
            now_ms,
            now_ns: nanos(),
            planned_ns: None,
            resumed_ms: 0,
            catching_up: None,
            timers: Wheel::new(now_ms),
            fired: Vec::new(),
            is_behind: false,
        }
    }

    /// Reads both clocks. Called once at the beginning of a turn.
    pub fn begin_turn(&mut self) {
        let before_ms = self.now_ms;
        self.now_ns = nanos();
        self.read_clock();
        let late_ms =
            self.planned_ns.map_or(0, |planned_ns| self.now_ns.saturating_sub(planned_ns) / 1_000_000);
        // A clock that tests move stands still during a stall.
        if late_ms >= STALL_MS && !self.clock.is_manual() {
            self.catch_up(before_ms, late_ms);
        }
    }

    /// Notes how long the kernel may wait before the next turn.
    pub fn plan(&mut self, wait: Wait) {
        self.planned_ns = match wait {
            Wait::No => Some(nanos()),
            Wait::For(time) => Some(nanos().saturating_add(time.as_nanos() as u64)),
            Wait::Forever => None,
        };
    }

    /// Begins to catch up after a stall that began at `stalled_ms` and was `late_ms` long.
    fn catch_up(&mut self, stalled_ms: u64, late_ms: u64) {
        self.resumed_ms = self.now_ms;
        self.catching_up = Some(CatchingUp {
            stalled_ms: self.catching_up.as_ref().map_or(stalled_ms, |before| before.stalled_ms),
            until_ms: self.now_ms + CATCH_UP_MIN_MS,
            at_most_ms: self.now_ms + late_ms.clamp(CATCH_UP_MIN_MS, CATCH_UP_MAX_MS),
        });
    }

    /// Begins to catch up, as if the shard had stalled since the last turn.
    #[cfg(test)]
    pub fn catch_up_for_test(&mut self, stalled_for: Duration) {
        self.read_clock();
        self.catch_up(self.now_ms - ms(stalled_for), ms(stalled_for));
    }

    /// Returns whether timers may fire in this turn, which has found something new or not.
    pub fn may_fire(&mut self, has_found: bool) -> bool {
        let Some(catching_up) = &self.catching_up else { return true };
        let is_over =
            self.now_ms >= catching_up.at_most_ms || (self.now_ms >= catching_up.until_ms && !has_found);
        if is_over {
            self.catching_up = None;
        }
        is_over
    }

    /// Returns for how long a peer has been waited for since `moment`, in milliseconds. After a stall, this begins anew.
    pub fn waited(&self, moment: Moment) -> u64 {
        self.now().since(moment).min(self.now_ms - self.resumed_ms)
    }

    /// As [`Time::waited`], for a time in milliseconds.
    pub fn waited_ms(&self, since_ms: u64) -> u64 {
        self.now_ms - since_ms.max(self.resumed_ms)
    }

    /// The time by which what a peer has sent is judged: while the shard catches up, the time at which its stall began,
    /// because the peer may have sent it then.
    pub fn sent_ms(&self) -> u64 {
        self.catching_up.as_ref().map_or(self.now_ms, |catching_up| catching_up.stalled_ms)
    }

    /// Reads the clock that timers follow.
    pub fn read_clock(&mut self) {
        self.now_ms = self.clock.now_ms();
    }

    /// The time of this turn in milliseconds, by the clock that timers follow.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The time of this turn as a [`Moment`].
    #[inline]
    pub fn now(&self) -> Moment {
        Moment::at(self.now_ms)
    }

    /// The time of this turn in nanoseconds, by the monotonic clock.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Returns the time `duration` from now, in milliseconds. Saturates: applications may ask for any duration.
    pub fn ms_from_now(&self, duration: Duration) -> u64 {
        self.now_ms.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Sets a timer.
    pub fn set(&mut self, at_ms: u64, due: DueTimer) -> TimerId {
        self.timers.insert(at_ms, due.into())
    }

    /// Cancels the timer of the connection in this slot. A timer that has already fired is ignored.
    pub fn cancel(&mut self, timer: TimerId, slot: u32) {
        self.timers.cancel(timer, DueTimer::Connection(slot).into());
    }

    /// Returns when the timer of the connection in this slot fires, in milliseconds, or `None` if it has already fired.
    pub fn due_at(&self, timer: TimerId, slot: u32) -> Option<u64> {
        self.timers.due_at(timer, DueTimer::Connection(slot).into())
    }

    /// The number of timers that are set.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// Takes timers that are due, as many as one turn permits. Return the list by [`Time::reuse`] once it is empty.
    pub fn take_fired(&mut self) -> Vec<DueTimer> {
        let mut fired = std::mem::take(&mut self.fired);
        self.is_behind = !self.timers.advance_some(self.now_ms, TIMERS_PER_TURN, &mut fired);
        fired
    }

    /// Returns whether timers are due that have not fired yet.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Keeps the memory of a list of timers.
    pub fn reuse(&mut self, fired: Vec<DueTimer>) {
        debug_assert!(fired.is_empty(), "every timer that has fired must be handled");
        self.fired = fired;
    }

    /// Asserts the invariants. Linear in the number of timers.
    pub fn check(&self) {
        self.timers.check();
        assert!(self.fired.is_empty(), "a timer that has fired was left over by its turn");
    }

    /// Returns how long the shard may wait for events: until the next timer or `deadline_ns`, whichever is first.
    /// Under a manual clock timers do not limit the wait, because only a message moves that clock.
    pub fn wait(&self, deadline_ns: Option<u64>) -> Wait {
        let deadline = deadline_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(self.now_ns)));
        let timer = self.timers.next_ms().map(|at_ms| at_ms.saturating_sub(self.clock.now_ms()));
        let timer = match (timer, &self.catching_up) {
            // Another turn has to find nothing new.
            (Some(_), Some(catching_up)) => Some(catching_up.until_ms.saturating_sub(self.clock.now_ms())),
            (timer, _) => timer,
        };
        let timer = match timer {
            Some(0) => return Wait::No,
            Some(_) if self.clock.is_manual() => None,
            ms => ms.map(Duration::from_millis),
        };
        match (timer, deadline) {
            (Some(timer), Some(deadline)) => Wait::For(timer.min(deadline)),
            (Some(time), None) | (None, Some(time)) => Wait::For(time),
            (None, None) => Wait::Forever,
        }
    }
}

/// A prime that spreads neighbouring slots over any range.
const SPREAD: u64 = 7919;

/// Returns a part of `range_ms`, always the same for a slot and evenly distributed over slots: what is due for clients
/// that connected at the same time is spread over the range.
pub(super) fn spread(slot: u32, range_ms: u64) -> u64 {
    u64::from(slot).wrapping_mul(SPREAD) % range_ms.max(1)
}

/// Returns a setting's duration in milliseconds. Settings are at most one day.
pub(super) fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> Time {
        Time::new(Clock::manual().0)
    }

    #[test]
    fn a_timer_that_is_due_fires_once() {
        let mut time = time();
        time.set(0, DueTimer::Links);
        assert_eq!(time.wait(None), Wait::No);
        let mut fired = time.take_fired();
        assert_eq!(fired, [DueTimer::Links]);
        fired.clear();
        time.reuse(fired);
        time.check();
        assert_eq!(time.take_fired(), []);
        assert_eq!(time.wait(None), Wait::Forever);
    }

    #[test]
    fn a_timer_keeps_its_purpose() {
        let last = (1 << INDEX_BITS) - 1;
        for due in [
            DueTimer::Connection(0),
            DueTimer::Connection(IS_OTHER - 1),
            DueTimer::Every(0),
            DueTimer::Every(last),
            DueTimer::Once(last),
            DueTimer::Links,
            DueTimer::Sends,
            DueTimer::AcceptAgain,
        ] {
            assert_eq!(DueTimer::from(PackedTimer::from(due)), due);
        }
    }

    #[test]
    fn the_time_of_a_timer_is_known_until_it_fires() {
        let mut time = time();
        let timer = time.set(time.now_ms(), DueTimer::Connection(7));
        assert_eq!((time.due_at(timer, 7), time.due_at(timer, 8)), (Some(time.now_ms()), None));
        assert_eq!(time.take_fired(), [DueTimer::Connection(7)]);
        assert_eq!(time.due_at(timer, 7), None);
        // Another timer has the same place now.
        time.set(time.now_ms(), DueTimer::Connection(9));
        time.cancel(timer, 7);
        assert_eq!(time.timers(), 1);
    }

    #[test]
    fn only_so_many_timers_fire_in_a_turn_and_the_others_in_the_next() {
        let mut time = time();
        for slot in 0..TIMERS_PER_TURN as u32 + 10 {
            time.set(0, DueTimer::Connection(slot));
        }
        let first = time.take_fired();
        assert_eq!((first.len(), time.is_behind(), time.wait(None)), (TIMERS_PER_TURN, true, Wait::No));
        let second = time.take_fired();
        assert_eq!((second.len(), time.is_behind(), time.wait(None)), (10, false, Wait::Forever));
    }

    #[test]
    fn any_duration_from_now_is_a_time() {
        assert_eq!(time().ms_from_now(Duration::MAX), u64::MAX);
    }

    #[test]
    #[should_panic(expected = "a timer that has fired was left over by its turn")]
    fn the_check_finds_a_timer_that_was_left_over() {
        let mut time = time();
        time.fired.push(DueTimer::Links);
        time.check();
    }

    #[test]
    #[should_panic(expected = "every timer that has fired must be handled")]
    fn a_list_with_timers_is_not_kept() {
        time().reuse(vec![DueTimer::Links]);
    }
}
