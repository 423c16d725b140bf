//! The time of a shard: its clocks, which are read at the beginning of a turn, and its timers.

use super::connection::Moment;
use super::lost_time::LostTime;
use crate::qev::clock::{Clock, nanos};
use crate::qev::ring::Wait;
use crate::qev::shrink::List;
use crate::qev::timer::{TimerId, Wheel};
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time that a turn may take, in milliseconds, before the shard takes itself to have been stalled: more than a turn of
/// a busy shard takes, and less than any patience with a peer. Of a longer turn, this much counts as time in which peers
/// were waited for.
const STALL_MS: u64 = 250;

/// The number of times that a peer's time may be used up in all, stalls not counted, before it is over in any case: stalls
/// that come again and again do not give it its time anew for ever.
const PATIENCE_MAX: u64 = 2;

/// The time until the timer of a connection that is parked fires, in milliseconds. The mark that it waits for comes
/// earlier.
pub(super) const PARKED_MS: u64 = 60_000;

/// The time after a stall in which no timer fires, in milliseconds. What was sent meanwhile may need another turn, or a
/// moment on its way if the whole machine was paused.
const CATCH_UP_MIN_MS: u64 = 100;

/// The longest time after a stall in which no timer fires, in milliseconds: a busy shard always finds something new.
const CATCH_UP_MAX_MS: u64 = 5000;

/// The number of stalls for which timers wait before they fire in any case: if a shard has more to do than it can, every
/// turn is a stall.
const STALLS_MAX: u32 = 3;

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
    /// Tells changes of members of paths, and removes those that were absent for long.
    Members,
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
            DueTimer::Members => other(5, 0),
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
            5 => DueTimer::Members,
            kind => unreachable!("no timer has kind {kind}"),
        }
    }
}

/// The time of the current turn, and the timers of the shard.
///
/// The monotonic clock is read at the beginning and at the end of a turn, in nanoseconds. Latencies are measured with it.
/// Timers follow a clock in milliseconds, which tests can stop and move; otherwise it is the same one.
///
/// A shard *stalls* if its process is stopped, its machine is paused, its thread waits for a core, or a handler blocks: a
/// turn takes longer than 250 ms, apart from its sleep. Peers go on sending meanwhile. After a stall, the shard catches up:
/// no timer fires until a turn has found nothing new. What peers are given time for begins anew, because they may have
/// waited for the server, but at most [`PATIENCE_MAX`] times: see [`Time::judge`].
///
/// Data of a peer may wait in its socket even if no turn is long: the shard may have thousands of sockets to read. A
/// peer is therefore judged by the last *mark*. When a mark comes back, everything has been handled that peers had sent when
/// it was set. Connections whose time seems to be over are *parked* until the next mark.
///
/// Invariants, between turns: no timer that has fired is left to be handled; the wheel is consistent; if something is
/// parked, a mark is set or about to be.
pub(super) struct Time {
    clock: Clock,
    /// The Unix time in milliseconds at which a clock that tests move began.
    began_unix_ms: u64,
    now_ms: u64,
    now_ns: u64,
    /// The end of the last turn, in nanoseconds.
    ended_ns: u64,
    /// The time at which the turn after it was to begin at the latest, in nanoseconds.
    planned_ns: u64,
    /// The end of the last stall, in milliseconds; 0 if there was none.
    resumed_ms: u64,
    lost: LostTime,
    /// The time up to which everything that peers have sent has been handled, in milliseconds.
    heard_ms: u64,
    /// The time at which the mark was set that has not come back, in milliseconds.
    marked_ms: Option<u64>,
    /// The connections that were due, and wait for the next mark. Other connections may have the slots by then.
    parked: Vec<DueTimer>,
    /// The connections that the last mark has freed, of which each turn handles some.
    unparked: Vec<DueTimer>,
    catching_up: Option<CatchingUp>,
    timers: Wheel<PackedTimer>,
    /// Memory for the timers that fire, kept from turn to turn.
    fired: Vec<DueTimer>,
    /// `true` if timers are due that have not fired yet, because too many were due at once.
    is_behind: bool,
}

/// The judgement of a peer that has been waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Judgement {
    /// The peer has this many milliseconds left.
    Waits(u64),
    /// The time is over, but what the peer has sent in time may not have been read yet.
    Unheard,
    /// The time is over, and everything that was sent in it has been read. `is_final`: the time is over in any case.
    Over { is_final: bool },
}

/// The state of a shard that has stalled.
struct CatchingUp {
    /// The time at which the stall began.
    stalled_ms: u64,
    /// The time until which the shard catches up in any case.
    until_ms: u64,
    /// The time at which timers fire again even if every turn finds something new.
    at_most_ms: u64,
    /// The number of stalls since timers fired last.
    stalls: u32,
}

/// Returns the Unix time of the host, in milliseconds.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The number of timers that fire in one turn. Each may close a connection or send a heartbeat, and the timers of
/// thousands of connections may be due in the same millisecond.
const TIMERS_PER_TURN: usize = 1024;

impl Time {
    /// Timers that follow `clock`.
    pub fn new(clock: Clock) -> Time {
        let (now_ms, now_ns) = (clock.now_ms(), nanos());
        Time {
            began_unix_ms: unix_ms().saturating_sub(now_ms),
            clock,
            now_ms,
            now_ns,
            ended_ns: now_ns,
            planned_ns: u64::MAX,
            resumed_ms: 0,
            lost: LostTime::default(),
            heard_ms: now_ms,
            marked_ms: None,
            parked: Vec::new(),
            unparked: Vec::new(),
            catching_up: None,
            timers: Wheel::new(now_ms),
            fired: Vec::new(),
            is_behind: false,
        }
    }

    /// The present Unix time, in milliseconds: that of the host, or of the clock that tests move.
    pub fn unix_ms(&self) -> u64 {
        if self.clock.is_manual() { self.began_unix_ms + self.now_ms } else { unix_ms() }
    }

    /// Reads the clocks. Called once at the beginning of a turn.
    pub fn begin_turn(&mut self) {
        let busy_ns = self.ended_ns.saturating_sub(self.now_ns);
        self.now_ns = nanos();
        self.now_ms = self.clock.ms_at(self.now_ns);
        let late_ns = self.now_ns.saturating_sub(self.planned_ns);
        let stall_ms = (busy_ns + late_ns) / 1_000_000;
        // A clock that tests move stands still during a stall.
        if stall_ms >= STALL_MS && !self.clock.is_manual() {
            self.catch_up(self.now_ms.saturating_sub(stall_ms), stall_ms);
        }
    }

    /// Notes the end of the turn; returns how long it has taken, in nanoseconds.
    pub fn end_turn(&mut self) -> u64 {
        self.ended_ns = nanos();
        self.ended_ns - self.now_ns
    }

    /// Notes how long the kernel may wait between the turn that has ended and the next one.
    pub fn plan(&mut self, wait: Wait) {
        self.planned_ns = match wait {
            Wait::No => self.ended_ns,
            Wait::For(time) => self.ended_ns.saturating_add(time.as_nanos() as u64),
            Wait::Forever => u64::MAX,
        };
    }

    /// Begins to catch up after a stall that began at `stalled_ms` and was `stall_ms` long, unless the shard has stalled too
    /// often while it caught up.
    fn catch_up(&mut self, stalled_ms: u64, stall_ms: u64) {
        self.resumed_ms = self.now_ms;
        self.lost.add(stalled_ms, self.now_ms, stall_ms.saturating_sub(STALL_MS));
        let (stalled_ms, stalls) = self
            .catching_up
            .as_ref()
            .map_or((stalled_ms, 1), |before| (before.stalled_ms, before.stalls + 1));
        let patience_ms =
            if stalls > STALLS_MAX { 0 } else { stall_ms.clamp(CATCH_UP_MIN_MS, CATCH_UP_MAX_MS) };
        self.catching_up = Some(CatchingUp {
            stalled_ms,
            stalls,
            until_ms: self.now_ms + CATCH_UP_MIN_MS,
            at_most_ms: self.now_ms + patience_ms,
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

    /// Judges a peer that may take `limit_ms` from `since` on.
    ///
    /// Its time is over when it has been waited for for `limit_ms` without a stall, or for [`PATIENCE_MAX`] times as long
    /// apart from stalls; both up to the last mark, so that what it had sent by then has been handled.
    pub fn judge(&self, since: Moment, limit_ms: u64) -> Judgement {
        match self.left(self.now_ms, since, limit_ms) {
            (0, _) => match self.left(self.heard_ms, since, limit_ms) {
                (0, is_final) => Judgement::Over { is_final },
                _ => Judgement::Unheard,
            },
            (left, _) => Judgement::Waits(left),
        }
    }

    /// Returns the time that a peer has left, in milliseconds, which is 0 if it may be over.
    pub fn patience(&self, since: Moment, limit_ms: u64) -> u64 {
        self.left(self.now_ms, since, limit_ms).0
    }

    /// Returns the time that a peer has left at the time `at_ms`, and whether it has used up all of it.
    fn left(&self, at_ms: u64, since: Moment, limit_ms: u64) -> (u64, bool) {
        // A time that input was charged to may have begun before the server.
        let waited = self.now().since(since);
        let lost = self.lost.since(self.now_ms.saturating_sub(waited));
        let attended = (at_ms + waited).saturating_sub(self.now_ms).saturating_sub(lost);
        let at_a_stretch = attended.min(at_ms.saturating_sub(self.resumed_ms));
        let in_all = (limit_ms * PATIENCE_MAX).saturating_sub(attended);
        (limit_ms.saturating_sub(at_a_stretch).min(in_all), in_all == 0)
    }

    /// Parks what is due until everything has been handled that peers have sent up to now.
    pub fn park(&mut self, due: DueTimer) {
        self.parked.push(due);
    }

    /// Returns whether a mark must be set now, because something is parked. It comes back as [`Time::marked`].
    pub fn set_mark(&mut self) -> bool {
        let sets = !self.parked.is_empty() && self.marked_ms.is_none() && self.unparked.is_empty();
        if sets {
            self.marked_ms = Some(self.now_ms);
        }
        sets
    }

    /// Notes that the mark has come back: everything that was sent before it has been handled.
    pub fn marked(&mut self) {
        self.heard_ms = self.marked_ms.take().expect("a mark that comes back was set");
        debug_assert!(self.unparked.is_empty(), "a mark is set when what the last one has freed was handled");
        self.unparked = std::mem::take(&mut self.parked);
    }

    /// Takes what has waited for the mark that has come back, as much as one turn permits.
    pub fn take_unparked(&mut self) -> Vec<DueTimer> {
        match self.unparked.len().checked_sub(TIMERS_PER_TURN) {
            Some(rest @ 1..) => self.unparked.split_off(rest),
            // The memory of a storm is not kept.
            _ => std::mem::take(&mut self.unparked),
        }
    }

    /// Returns whether something that is due waits for a mark.
    pub fn is_marking(&self) -> bool {
        self.marked_ms.is_some() || !self.parked.is_empty() || !self.unparked.is_empty()
    }

    /// Returns for how long a worker has been waited for since a time in milliseconds. After a stall, this begins anew, but
    /// it is not less than the share of [`PATIENCE_MAX`] of the time apart from stalls.
    pub fn waited_ms(&self, since_ms: u64) -> u64 {
        let in_all = (self.now_ms - since_ms).saturating_sub(self.lost.since(since_ms));
        (self.now_ms - since_ms.max(self.resumed_ms)).max(in_all / PATIENCE_MAX)
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

    /// Gives back the memory that only many timers at once have needed.
    pub fn give_back(&mut self) {
        self.parked.give_back();
        self.unparked.give_back();
        self.fired.give_back();
    }

    /// Keeps the memory of a list of timers.
    pub fn reuse(&mut self, fired: Vec<DueTimer>) {
        debug_assert!(fired.is_empty(), "every timer that has fired must be handled");
        self.fired = fired;
    }

    /// Asserts the invariants. Linear in the number of timers.
    pub fn check(&self) {
        self.timers.check();
        self.lost.check();
        assert!(self.fired.is_empty(), "a timer that has fired was left over by its turn");
    }

    /// Returns how long the shard may wait for events: until the next timer or `deadline_ns`, whichever is first.
    /// Under a manual clock timers do not limit the wait, because only a message moves that clock.
    pub fn wait(&self, deadline_ns: Option<u64>) -> Wait {
        let deadline = deadline_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(self.now_ns)));
        let now_ms = self.clock.ms_at(self.ended_ns);
        let timer = self.timers.next_ms().map(|at_ms| at_ms.saturating_sub(now_ms));
        let timer = if self.unparked.is_empty() { timer } else { Some(0) };
        let timer = match (timer, &self.catching_up) {
            // Another turn has to find nothing new.
            (Some(_), Some(catching_up)) => Some(catching_up.until_ms.saturating_sub(now_ms)),
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
            DueTimer::Members,
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

    /// A handler that blocks is a stall, although the turn after it begins as planned.
    #[test]
    fn a_turn_that_takes_long_is_a_stall() {
        let mut time = Time::new(Clock::system());
        time.begin_turn();
        time.end_turn();
        time.plan(Wait::No);
        time.begin_turn();
        let since = time.now();
        std::thread::sleep(Duration::from_millis(STALL_MS + 150));
        assert!(time.end_turn() >= (STALL_MS + 150) * 1_000_000);
        time.plan(Wait::Forever);
        time.begin_turn();
        assert!(!time.may_fire(true), "what was sent meanwhile comes first");
        assert!(time.now().since(since) >= STALL_MS + 150);
        assert!(time.patience(since, 1000) >= 1000 - 50, "the time of a peer has begun anew");
    }

    #[test]
    fn a_peer_has_its_time_anew_after_a_stall_but_not_for_ever() {
        let (clock, handle) = Clock::manual();
        let mut time = Time::new(clock);
        time.begin_turn();
        let since = time.now();
        let mut waited = 0;
        // Every three seconds the shard stalls for ten. It attends to its peers for three and a quarter of the thirteen.
        while time.patience(since, 10_000) > 0 {
            handle.advance(Duration::from_secs(13));
            time.catch_up_for_test(Duration::from_secs(10));
            waited += 3250;
            assert!(time.patience(since, 10_000) <= 10_000);
            assert!(waited <= 20_000 + 3250, "the end comes after twice the time");
        }
        assert!(waited >= 20_000, "{waited}");
        assert_eq!(time.judge(since, 10_000), Judgement::Unheard, "no mark has come back");
        time.park(DueTimer::Connection(7));
        assert!(time.set_mark() && !time.set_mark() && time.is_marking());
        time.marked();
        assert_ne!(time.wait(None), Wait::No, "the shard catches up");
        assert_eq!(time.take_unparked(), [DueTimer::Connection(7)]);
        assert_eq!(time.judge(since, 10_000), Judgement::Over { is_final: true });
        assert!(!time.is_marking());
        time.check();
    }

    /// The turns of a shard that has more to do than it can may all be stalls.
    #[test]
    fn timers_fire_although_every_turn_is_a_stall() {
        let (clock, handle) = Clock::manual();
        let mut time = Time::new(clock);
        let mut stall = |ms| {
            handle.advance(Duration::from_millis(ms));
            time.catch_up_for_test(Duration::from_millis(ms));
            time.may_fire(true)
        };
        for ms in [300, 20_000, 260, 300, 310, 320, 10_000, 5000] {
            for _ in 0..STALLS_MAX {
                assert!(!stall(ms), "what was sent meanwhile comes first");
            }
            assert!(stall(ms), "but not for ever");
        }
    }

    #[test]
    fn a_worker_is_waited_for_anew_after_a_stall_but_not_for_ever() {
        let (clock, handle) = Clock::manual();
        let mut time = Time::new(clock);
        let mut waited = Vec::new();
        for _ in 0..100 {
            handle.advance(Duration::from_millis(500));
            time.catch_up_for_test(Duration::from_millis(500));
            waited.push(time.waited_ms(0));
        }
        assert_eq!((waited[0], waited[1], waited[99]), (125, 250, 12_500), "half of 250 ms of each stall");
    }

    #[test]
    fn a_mark_tells_what_was_heard_when_it_was_set() {
        let (clock, handle) = Clock::manual();
        let mut time = Time::new(clock);
        let since = time.now();
        let advance = |time: &mut Time, ms| {
            handle.advance(Duration::from_millis(ms));
            time.begin_turn();
        };
        advance(&mut time, 900);
        time.park(DueTimer::Sends);
        assert!(time.set_mark());
        assert_eq!(time.judge(since, 1000), Judgement::Waits(100));
        advance(&mut time, 200);
        time.marked();
        assert_eq!(time.judge(since, 1000), Judgement::Unheard, "the mark was set before the time was over");
        assert_eq!(time.take_unparked().len(), 1);
        time.park(DueTimer::Sends);
        assert!(time.set_mark());
        time.marked();
        assert_eq!(time.judge(since, 1000), Judgement::Over { is_final: false });
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
