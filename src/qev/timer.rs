//! A hierarchical timing wheel: any number of timers, each of which is set, cancelled and fired in constant time.
//!
//! Times are `u64` milliseconds, read as eleven digits of base 64. A timer is kept at the *level* of the highest digit
//! in which its time differs from the wheel's time, in the slot that this digit of its time numbers:
//!
//! ```text
//! wheel's time      .. 0  3 17 40        level 0: slots of 1 ms, in which a timer's time is exact
//! timer's time      .. 0  3 21  5        level 1: slots of 64 ms      <- this timer: level 1, slot 21
//!                         ^  ^           level 2: slots of 4.1 s
//! level                   2  1           ...     level 10: all of time, therefore no timer is too far away
//! ```
//!
//! When the wheel's time reaches a slot of a higher level, the timers in this slot move to lower levels.
//!
//! A node has only the lower half of its time, which together with the wheel's time says which one it is. Timers that are
//! further away than that permits, 24 days, are therefore not in the wheel, but in a set beside it.

use super::slots::Slots;
use std::collections::BTreeSet;
use std::mem;
use std::num::NonZeroU32;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;

/// The place of the list of timers that are already due. The lists of the slots have the places below it.
const DUE: usize = LEVELS * SLOTS;

/// The end of a list.
const NONE: u32 = u32::MAX;

/// The place before a node that is in no list, because its timer is far away.
const FAR: u32 = u32::MAX - 1;

/// The distance from the wheel's time, in milliseconds, from which on a new timer is far away: half of what the lower half
/// of a time can tell apart.
const FAR_MS: u64 = 1 << 31;

/// The distance at which a timer that was far away is put into the wheel. Also how far in the past the time of a timer can be:
/// an earlier time counts as that one.
const NEAR_MS: u64 = 1 << 30;

/// The name of a node, for the message of a panic.
const TIMER: &str = "timer";

/// The place of a timer in a [`Wheel`]. It has 4 bytes, as has `Option<TimerId>`.
///
/// When the timer has fired or was cancelled, its place may be taken by another timer. The value tells the two apart: the
/// caller must not have two timers with equal values, of which one is cancelled by a place that the other may have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(NonZeroU32);

impl TimerId {
    fn of(index: u32) -> TimerId {
        TimerId(NonZeroU32::new(index + 1).expect("an index is less than `NONE`"))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// The timers of one shard. The resolution is 1 ms. There is no ticking: [`Wheel::next_ms`] returns when to advance.
///
/// ```
/// use quickio::qev::timer::Wheel;
///
/// let mut wheel = Wheel::new(1_000);
/// let heartbeat = wheel.insert(1_060, "heartbeat");
/// wheel.insert(1_010, "timeout");
/// assert_eq!(wheel.next_ms(), Some(1_010));
///
/// let mut fired = Vec::new();
/// wheel.advance(1_012, &mut fired);
/// assert_eq!(fired, ["timeout"]);
/// assert!(wheel.cancel(heartbeat, "heartbeat"));
/// assert_eq!(wheel.next_ms(), None);
/// ```
///
/// Memory: 3 KiB, plus a node for each timer, in blocks that are freed when they are empty. A node has 16 bytes if the
/// value has 4 and is not 0. The caller must bound the number of timers; setting more than 2^32 - 2 at once panics.
///
/// Invariants, asserted by [`check`](Wheel::check):
///
/// - The time of a timer in a slot is later than the wheel's time and equal to it in all digits above the slot's level.
///   Hence no slot is ever in the past, nothing wraps around, and the place of a timer follows from the two times
///   alone. All timers of a level are earlier than those of any higher level: the first used slot of the lowest used
///   level is the next one to be opened, and two bit scans find it. Time in which nothing fires costs nothing, be it an
///   hour or a year.
/// - A timer that was set for the wheel's time or an earlier time is in the list of due timers, which the next advance
///   empties. So is a timer that an advance has left, because enough had fired.
/// - Each list is doubly linked, and every node is in one of these lists or in `far`.
/// - Timers in the lists are less than `FAR_MS` later than the wheel's time, and at most `NEAR_MS` earlier. Those in `far`
///   are at least `NEAR_MS` later.
/// - `len` is the number of nodes that are in the lists of the slots, in the list of due timers, and in `far`.
/// - A bit of `occupied` is set if the list of this slot is not empty, and a bit of `levels` if this level has such a
///   slot.
pub struct Wheel<T: Copy + PartialEq> {
    now_ms: u64,
    len: usize,
    nodes: Slots<Node<T>>,
    /// The first node of each slot's list, level by level, followed by that of the list of due timers.
    heads: [u32; DUE + 1],
    /// The used slots of each level.
    occupied: [u64; LEVELS],
    /// The used levels.
    levels: u16,
    /// The timers that are far away: their times and their nodes.
    far: BTreeSet<(u64, u32)>,
}

#[derive(Debug)]
struct Node<T> {
    /// The lower half of the time in milliseconds.
    at_ms_low: u32,
    value: T,
    /// The next node of the list, or the upper half of the time of a timer that is far away.
    next: u32,
    /// The previous node of the list, or [`FAR`].
    previous: u32,
}

impl<T: Copy + PartialEq> Wheel<T> {
    /// Returns a wheel without timers whose time is `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self {
            now_ms,
            len: 0,
            nodes: Slots::new(),
            heads: [NONE; DUE + 1],
            occupied: [0; LEVELS],
            levels: 0,
            far: BTreeSet::new(),
        }
    }

    /// Sets a timer, which fires at the first advance to `at_ms` or later. If `at_ms` is not in the future, this is the
    /// next advance.
    pub fn insert(&mut self, at_ms: u64, value: T) -> TimerId {
        let at_ms = at_ms.max(self.now_ms.saturating_sub(NEAR_MS));
        let index = self.allocate_node(at_ms, value);
        if at_ms.saturating_sub(self.now_ms) < FAR_MS {
            self.link(index);
        } else {
            self.keep_far(index, at_ms);
        }
        self.len += 1;
        TimerId::of(index)
    }

    /// Cancels the timer with this value; returns `false` if it has already fired or was cancelled.
    pub fn cancel(&mut self, id: TimerId, value: T) -> bool {
        let is_set = self.find(id, value).is_some();
        if is_set {
            self.unlink(id.index());
            self.free_node(id.index());
        }
        is_set
    }

    /// Returns the time for which the timer with this value is set, or `None` if it has already fired or was cancelled.
    pub fn due_at(&self, id: TimerId, value: T) -> Option<u64> {
        self.find(id, value).map(|node| self.at_ms(node))
    }

    fn find(&self, id: TimerId, value: T) -> Option<&Node<T>> {
        self.nodes.get(id.index() as usize).filter(|node| node.value == value)
    }

    /// Moves the wheel's time to `now_ms` and appends the values of all timers that are due to `fired`. The timers that
    /// were set for a past time come first, followed by the others in the order of their times. Timers of the same
    /// millisecond are in no particular order.
    ///
    /// If `now_ms` is earlier than the wheel's time, the wheel's time does not change, and only the timers that are
    /// already due fire.
    pub fn advance(&mut self, now_ms: u64, fired: &mut Vec<T>) {
        self.advance_some(now_ms, usize::MAX, fired);
    }

    /// As [`Wheel::advance`], but fires at most `max` timers. Returns `true` if no timer is left that is due; otherwise the
    /// rest fires at the next advance, and can be cancelled until then.
    pub fn advance_some<F: From<T>>(&mut self, now_ms: u64, max: usize, fired: &mut Vec<F>) -> bool {
        let full = fired.len().saturating_add(max);
        self.fire_due(full, fired);
        while self.heads[DUE] == NONE {
            let Some(start_ms) = self.next_start_ms().filter(|start_ms| *start_ms <= now_ms) else { break };
            match self.first_slot() {
                Some((slot, first_ms)) if first_ms == start_ms => {
                    self.now_ms = start_ms;
                    self.open(slot, full, fired);
                }
                _ => self.bring_near(start_ms),
            }
        }
        if self.heads[DUE] != NONE {
            return false;
        }
        self.now_ms = self.now_ms.max(now_ms);
        true
    }

    /// Returns when to advance next, or `None` if there are no timers. A time that is not in the future means at once.
    ///
    /// The result is exact if the first timer is due within the wheel's current 64 ms. Otherwise it may be earlier than
    /// this timer, but is never later. The early times are the starts of slots of higher levels, of which there is at
    /// most one for each such level: a timer that is a minute away wakes its shard three times instead of once.
    pub fn next_ms(&self) -> Option<u64> {
        if self.heads[DUE] != NONE {
            return Some(self.now_ms);
        }
        self.next_start_ms()
    }

    /// Returns the number of timers that are set and have not fired.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns `true` if no timer is set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asserts the invariants. The cost is linear in the number of nodes, plus 705 lists.
    ///
    /// # Panics
    ///
    /// Panics if an invariant is broken.
    pub fn check(&self) {
        let linked: usize = (0..=DUE).map(|place| self.check_list(place)).sum::<usize>() + self.far.len();
        assert_eq!(linked, self.len, "`len` must be the number of timers in the lists");
        for (at_ms, index) in &self.far {
            let node = self.node(*index);
            assert!(node.previous == FAR && *at_ms - self.now_ms >= NEAR_MS, "node {index} must be far away");
            assert_eq!(self.at_ms(node), *at_ms, "node {index} must have the time of its place");
        }
        for level in 0..LEVELS {
            let is_used = self.levels >> level & 1 == 1;
            assert_eq!(
                is_used,
                self.occupied[level] != 0,
                "level {level} must be marked if it has a used slot"
            );
        }
        self.nodes.check();
        assert_eq!(linked, self.nodes.len(), "every node must be in one list");
    }

    /// Asserts the invariants of one list and returns the number of its nodes.
    fn check_list(&self, place: usize) -> usize {
        let (mut nodes, mut previous, mut index) = (0, NONE, self.heads[place]);
        while index != NONE {
            let node = self.node(index);
            assert_eq!(node.previous, previous, "node {index} must point back to the node before it");
            assert_eq!(self.place(self.at_ms(node)), place, "node {index} must be in the list of its time");
            (nodes, previous, index) = (nodes + 1, index, node.next);
        }
        if place != DUE {
            let is_used = self.occupied[place / SLOTS] >> (place % SLOTS) & 1 == 1;
            assert_eq!(is_used, nodes > 0, "slot {place} must be marked if it has a timer");
        }
        nodes
    }

    /// Fires the timers in the list of due timers, while fewer than `full` have fired.
    fn fire_due<F: From<T>>(&mut self, full: usize, fired: &mut Vec<F>) {
        while self.heads[DUE] != NONE && fired.len() < full {
            let next = self.fire(self.heads[DUE], fired);
            self.heads[DUE] = next;
            if next != NONE {
                self.node_mut(next).previous = NONE;
            }
        }
    }

    /// Empties a slot whose time has come: its timers fire or move to a lower level. Those that are due after `full` have
    /// fired move to the list of due timers.
    fn open<F: From<T>>(&mut self, slot: usize, full: usize, fired: &mut Vec<F>) {
        let mut index = mem::replace(&mut self.heads[slot], NONE);
        self.mark_empty(slot);
        while index != NONE {
            let node = self.node(index);
            let (at_ms, next) = (self.at_ms(node), node.next);
            debug_assert!(at_ms >= self.now_ms, "a slot must be opened before its timers are late");
            if at_ms == self.now_ms && fired.len() < full {
                index = self.fire(index, fired);
            } else {
                self.link(index);
                index = next;
            }
        }
    }

    /// Fires the timer of a node whose list is being emptied. Returns the next node of the list.
    fn fire<F: From<T>>(&mut self, index: u32, fired: &mut Vec<F>) -> u32 {
        let Node { value, next, .. } = *self.node(index);
        fired.push(value.into());
        self.free_node(index);
        next
    }

    /// Puts the timers that are no longer far away into the wheel, when its time has come to `now_ms`.
    #[cold]
    fn bring_near(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        while let Some((at_ms, index)) = self.far.first().copied() {
            if near_from(at_ms) > now_ms {
                break;
            }
            self.far.pop_first();
            self.link(index);
        }
    }

    /// Returns the time at which the next slot starts, or the next timer is no longer far away.
    fn next_start_ms(&self) -> Option<u64> {
        let slot = self.first_slot().map(|(_, start_ms)| start_ms);
        let Some((far_ms, _)) = self.far.first() else { return slot };
        let near_ms = near_from(*far_ms);
        Some(slot.map_or(near_ms, |start_ms| start_ms.min(near_ms)))
    }

    /// Returns the used slot with the earliest start, and its start.
    fn first_slot(&self) -> Option<(usize, u64)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let digit = self.occupied[level as usize].trailing_zeros();
        let shift = level * DIGIT_BITS;
        let above = self.now_ms.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
        let start_ms = above.checked_shl(shift + DIGIT_BITS).unwrap_or(0) | u64::from(digit) << shift;
        Some((level as usize * SLOTS + digit as usize, start_ms))
    }

    /// Returns the time of a timer.
    #[inline]
    fn at_ms(&self, node: &Node<T>) -> u64 {
        if node.previous == FAR {
            return u64::from(node.next) << 32 | u64::from(node.at_ms_low);
        }
        let distance = node.at_ms_low.wrapping_sub(self.now_ms as u32) as i32;
        self.now_ms.wrapping_add_signed(distance.into())
    }

    /// Returns the place of the list that a timer for `at_ms` belongs to.
    fn place(&self, at_ms: u64) -> usize {
        if at_ms <= self.now_ms {
            return DUE;
        }
        let level = (at_ms ^ self.now_ms).ilog2() / DIGIT_BITS;
        let digit = at_ms >> (level * DIGIT_BITS) & (SLOTS as u64 - 1);
        level as usize * SLOTS + digit as usize
    }

    fn keep_far(&mut self, index: u32, at_ms: u64) {
        let node = self.node_mut(index);
        (node.next, node.previous) = ((at_ms >> 32) as u32, FAR);
        self.far.insert((at_ms, index));
    }

    fn link(&mut self, index: u32) {
        let place = self.place(self.at_ms(self.node(index)));
        let next = mem::replace(&mut self.heads[place], index);
        self.node_mut(index).next = next;
        self.node_mut(index).previous = NONE;
        if next != NONE {
            self.node_mut(next).previous = index;
        }
        self.mark_used(place);
    }

    fn unlink(&mut self, index: u32) {
        let node = self.node(index);
        let (at_ms, next, previous) = (self.at_ms(node), node.next, node.previous);
        if previous == FAR {
            self.far.remove(&(at_ms, index));
            return;
        }
        if next != NONE {
            self.node_mut(next).previous = previous;
        }
        if previous != NONE {
            self.node_mut(previous).next = next;
            return;
        }
        let place = self.place(at_ms);
        debug_assert_eq!(self.heads[place], index, "the place of a timer must follow from the two times");
        self.heads[place] = next;
        if next == NONE {
            self.mark_empty(place);
        }
    }

    fn mark_used(&mut self, place: usize) {
        if place != DUE {
            self.occupied[place / SLOTS] |= 1 << (place % SLOTS);
            self.levels |= 1 << (place / SLOTS);
        }
    }

    fn mark_empty(&mut self, place: usize) {
        if place == DUE {
            return;
        }
        let slots = &mut self.occupied[place / SLOTS];
        *slots &= !(1 << (place % SLOTS));
        if *slots == 0 {
            self.levels &= !(1 << (place / SLOTS));
        }
    }

    #[inline]
    fn node(&self, index: u32) -> &Node<T> {
        self.nodes.expect(index as usize, TIMER)
    }

    #[inline]
    fn node_mut(&mut self, index: u32) -> &mut Node<T> {
        self.nodes.expect_mut(index as usize, TIMER)
    }

    fn allocate_node(&mut self, at_ms: u64, value: T) -> u32 {
        let node = Node { at_ms_low: at_ms as u32, value, next: NONE, previous: NONE };
        let index = u32::try_from(self.nodes.insert(node)).unwrap_or(NONE);
        assert!(index < FAR, "the caller must bound the number of timers");
        index
    }

    fn free_node(&mut self, index: u32) {
        self.nodes.expect_remove(index as usize, TIMER);
        self.len -= 1;
    }
}

/// Returns the time at which a timer is no longer far away: the start of a slot of level 1, as if it were in one.
fn near_from(at_ms: u64) -> u64 {
    (at_ms - NEAR_MS) >> DIGIT_BITS << DIGIT_BITS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn advance(wheel: &mut Wheel<u64>, now_ms: u64) -> Vec<u64> {
        let mut fired = Vec::new();
        wheel.advance(now_ms, &mut fired);
        wheel.check();
        fired
    }

    #[test]
    fn sizes_are_as_promised() {
        assert_eq!(size_of::<Option<Node<NonZeroU32>>>(), 16);
        assert_eq!(size_of::<Option<TimerId>>(), 4);
        assert!(size_of::<Wheel<u64>>() <= 3040);
    }

    #[test]
    fn every_distance_fires_on_its_millisecond_and_not_before() {
        let starts = [0, 1, 63, 64, 4095, 123_456_789, u64::MAX >> 1];
        let distances = (0..63).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for (start, distance) in distances.flat_map(|distance| starts.map(|start| (start, distance))) {
            let mut wheel = Wheel::new(start);
            let at_ms = start.saturating_add(distance);
            wheel.insert(at_ms, 1);
            assert!(wheel.next_ms() <= Some(at_ms));
            if distance > 0 {
                assert!(advance(&mut wheel, at_ms - 1).is_empty(), "{distance} ms after {start}");
            }
            assert_eq!(wheel.next_ms(), Some(at_ms), "exact one millisecond before");
            assert_eq!(advance(&mut wheel, at_ms), [1], "{distance} ms after {start}");
            assert_eq!(wheel.next_ms(), None);
        }
    }

    #[test]
    fn a_past_time_fires_at_the_next_advance() {
        let mut wheel = Wheel::new(1000);
        wheel.insert(0, 1);
        wheel.insert(1000, 2);
        assert_eq!(wheel.next_ms(), Some(1000), "the next advance fires it");
        let mut fired = advance(&mut wheel, 1000);
        fired.sort_unstable();
        assert_eq!(fired, [1, 2]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn the_end_of_time_is_a_time() {
        let mut wheel = Wheel::new(0);
        wheel.insert(u64::MAX, 1);
        assert!(advance(&mut wheel, u64::MAX - 1).is_empty());
        assert_eq!(advance(&mut wheel, u64::MAX), [1]);
        wheel.insert(u64::MAX, 2);
        assert_eq!(advance(&mut wheel, u64::MAX), [2]);
    }

    #[test]
    fn time_does_not_run_backwards() {
        let mut wheel = Wheel::new(100);
        wheel.insert(150, 1);
        assert!(advance(&mut wheel, 20).is_empty());
        wheel.insert(90, 2);
        assert_eq!(advance(&mut wheel, 20), [2], "a due timer fires at any time");
        assert_eq!(advance(&mut wheel, 150), [1]);
    }

    #[test]
    fn an_old_id_cancels_nothing() {
        let mut wheel = Wheel::new(0);
        let fired = wheel.insert(1, 1);
        assert_eq!(advance(&mut wheel, 1), [1]);
        assert!(!wheel.cancel(fired, 1), "fired");
        let cancelled = wheel.insert(5, 2);
        assert_eq!((wheel.due_at(cancelled, 2), wheel.due_at(fired, 1)), (Some(5), None));
        assert!(wheel.cancel(cancelled, 2));
        assert!(!wheel.cancel(cancelled, 2), "cancelled");
        let present = wheel.insert(5, 3);
        assert_eq!(present, fired, "the node is used again");
        assert!(!wheel.cancel(fired, 1) && !wheel.cancel(cancelled, 2));
        assert!(wheel.cancel(present, 3));
        wheel.check();
    }

    #[test]
    fn an_id_of_another_wheel_cancels_nothing() {
        let id = Wheel::new(0).insert(1, 1);
        assert!(!Wheel::<u64>::new(0).cancel(id, 1));
    }

    #[test]
    fn a_minute_away_takes_three_wake_ups() {
        let mut wheel = Wheel::new(12_345);
        wheel.insert(72_345, 1);
        let mut wake_ups = 0;
        while let Some(now_ms) = wheel.next_ms() {
            advance(&mut wheel, now_ms);
            wake_ups += 1;
        }
        assert_eq!(wake_ups, 3);
    }

    fn three() -> Wheel<u64> {
        let mut wheel = Wheel::new(1000);
        for at_ms in [1001, 1001, 5000] {
            wheel.insert(at_ms, at_ms);
        }
        wheel
    }

    #[test]
    #[should_panic(expected = "`len` must be the number of timers in the lists")]
    fn the_check_finds_a_wrong_length() {
        let mut wheel = three();
        wheel.len -= 1;
        wheel.check();
    }

    #[test]
    #[should_panic(expected = "node 0 must point back to the node before it")]
    fn the_check_finds_a_broken_link() {
        let mut wheel = three();
        wheel.node_mut(0).previous = NONE;
        wheel.check();
    }

    #[test]
    #[should_panic(expected = "node 2 must be in the list of its time")]
    fn the_check_finds_a_timer_in_the_wrong_list() {
        let mut wheel = three();
        wheel.node_mut(2).at_ms_low = 5_000_000;
        wheel.check();
    }

    #[test]
    #[should_panic(expected = "must be marked if it has a timer")]
    fn the_check_finds_a_slot_that_is_not_marked() {
        let mut wheel = three();
        wheel.occupied[0] = 0;
        wheel.check();
    }

    #[test]
    #[should_panic(expected = "level 0 must be marked if it has a used slot")]
    fn the_check_finds_a_level_that_is_not_marked() {
        let mut wheel = three();
        wheel.levels &= !1;
        wheel.check();
    }

    #[test]
    #[should_panic(expected = "every node must be in one list")]
    fn the_check_finds_a_lost_node() {
        let mut wheel = three();
        wheel.allocate_node(2000, 1);
        wheel.check();
    }

    #[test]
    #[should_panic(expected = "node 1 must be far away")]
    fn the_check_finds_a_far_timer_that_is_near() {
        let mut wheel = three();
        wheel.keep_far(1, 5000);
        wheel.heads = [NONE; DUE + 1];
        (wheel.occupied, wheel.levels, wheel.len) = ([0; LEVELS], 0, 1);
        wheel.check();
    }

    #[test]
    fn timers_that_are_far_away_are_in_no_list_until_they_are_near() {
        let mut wheel = Wheel::new(1000);
        for (distance, far) in [(FAR_MS - 1, 0), (FAR_MS, 1), (FAR_MS + (7 << 40), 2), (FAR_MS, 3)] {
            wheel.insert(1000 + distance, distance);
            assert_eq!(wheel.far.len(), far);
            wheel.check();
        }
        let cancelled = wheel.insert(1000 + (5 << 40), 5);
        assert_eq!(wheel.due_at(cancelled, 5), Some(1000 + (5 << 40)));
        assert!(wheel.cancel(cancelled, 5) && !wheel.cancel(cancelled, 5));
        wheel.check();
        assert!(advance(&mut wheel, 1000 + FAR_MS - NEAR_MS).is_empty());
        assert_eq!((wheel.far.len(), wheel.len()), (1, 4));
        assert_eq!(advance(&mut wheel, 1000 + FAR_MS - 1), [FAR_MS - 1]);
        assert_eq!(advance(&mut wheel, 1000 + FAR_MS), [FAR_MS, FAR_MS]);
        assert_eq!(advance(&mut wheel, u64::MAX), [FAR_MS + (7 << 40)]);
    }

    /// The time at which a far timer is near is that of a slot whose timers do not all fire at once.
    #[test]
    fn a_far_timer_may_be_due_to_come_near_while_others_are_left() {
        let mut wheel = Wheel::new(0);
        for (at_ms, value) in [(FAR_MS, 1_u64), (FAR_MS - NEAR_MS, 2), (FAR_MS - NEAR_MS, 3)] {
            wheel.insert(at_ms, value);
        }
        let mut fired: Vec<u64> = Vec::new();
        assert!(!wheel.advance_some(FAR_MS - NEAR_MS, 1, &mut fired));
        assert_eq!((fired.len(), wheel.far.len()), (1, 1));
        wheel.check();
        assert!(wheel.advance_some(FAR_MS, 9, &mut fired));
        assert_eq!((fired.len(), fired[2]), (3, 1));
        wheel.check();
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Sets a timer at this distance from now. A negative distance is in the past.
        Insert(i64),
        /// Cancels one of all timers that were ever set.
        Cancel(prop::sample::Index),
        /// Moves the time by this much.
        Advance(u64),
        /// Moves the time to the wheel's `next_ms`.
        Wake,
    }

    fn some_step() -> impl Strategy<Value = Step> {
        let distance = prop_oneof![
            4 => -3..70_i64,
            2 => 0..5_000_i64,
            2 => 0..70_000_i64,
            1 => -100_000..100_000_000_000_i64,
            1 => Just(i64::MAX),
        ];
        let forward = prop_oneof![4 => 0..70_u64, 2 => 0..70_000_u64, 1 => 0..100_000_000_000_u64];
        prop_oneof![
            5 => distance.prop_map(Step::Insert),
            2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            1 => forward.prop_map(Step::Advance),
            3 => Just(Step::Wake),
        ]
    }

    /// The oracle: timers in the order of their times and numbers.
    struct Model {
        now_ms: u64,
        timers: BTreeMap<(u64, u64), ()>,
        /// The time and the id of every timer that was ever set. The value of a timer is its index here.
        ids: Vec<(u64, TimerId)>,
    }

    impl Model {
        fn run(start_ms: u64, steps: Vec<Step>) {
            let mut model = Self { now_ms: start_ms, timers: BTreeMap::new(), ids: Vec::new() };
            let mut wheel = Wheel::new(start_ms);
            for step in steps {
                model.step(&mut wheel, step);
                wheel.check();
                assert_eq!(wheel.len(), model.timers.len());
                model.check_next(&wheel);
            }
            while let Some(next_ms) = wheel.next_ms() {
                model.advance(&mut wheel, next_ms);
            }
            assert!(model.timers.is_empty());
        }

        fn step(&mut self, wheel: &mut Wheel<u64>, step: Step) {
            match step {
                Step::Insert(distance) => self.insert(wheel, self.now_ms.saturating_add_signed(distance)),
                Step::Cancel(_) if self.ids.is_empty() => {}
                Step::Cancel(which) => self.cancel(wheel, which.index(self.ids.len())),
                Step::Advance(by_ms) => self.advance(wheel, self.now_ms.saturating_add(by_ms)),
                Step::Wake => self.advance(wheel, wheel.next_ms().unwrap_or(self.now_ms)),
            }
        }

        fn insert(&mut self, wheel: &mut Wheel<u64>, at_ms: u64) {
            let number = self.ids.len() as u64;
            self.ids.push((at_ms, wheel.insert(at_ms, number)));
            self.timers.insert((at_ms, number), ());
        }

        fn cancel(&mut self, wheel: &mut Wheel<u64>, number: usize) {
            let (at_ms, id) = self.ids[number];
            let was_set = self.timers.remove(&(at_ms, number as u64)).is_some();
            assert_eq!(wheel.due_at(id, number as u64), was_set.then_some(at_ms));
            assert_eq!(wheel.cancel(id, number as u64), was_set);
        }

        fn advance(&mut self, wheel: &mut Wheel<u64>, now_ms: u64) {
            let mut fired: Vec<u64> = Vec::new();
            // Some at a time, which makes no difference.
            while !wheel.advance_some(now_ms, 3, &mut fired) {
                wheel.check();
            }
            // The timers that were set for a past time come first, in any order; the others follow in the order of
            // time.
            let order = |number: &u64| (self.ids[*number as usize].0.max(self.now_ms), *number);
            assert!(fired.is_sorted_by_key(|number| order(number).0));
            fired.sort_by_key(order);
            let is_due = |key: &&(u64, u64)| key.0 <= now_ms;
            let mut due: Vec<u64> = self.timers.keys().take_while(is_due).map(|key| key.1).collect();
            self.timers.retain(|key, ()| !is_due(&key));
            due.sort_by_key(order);
            assert_eq!(fired, due);
            self.now_ms = now_ms;
        }

        fn check_next(&self, wheel: &Wheel<u64>) {
            let first = self.timers.keys().next().map(|(at_ms, _)| (*at_ms).max(self.now_ms));
            let next = wheel.next_ms();
            assert_eq!(next.is_some(), first.is_some());
            assert!(next <= first, "`next_ms` is never late");
            if first.is_some_and(|at_ms| at_ms / 64 == self.now_ms / 64) {
                assert_eq!(next, first, "`next_ms` is exact if the timer is near");
            }
            assert!(
                next.is_none_or(|at_ms| at_ms > self.now_ms || first == next),
                "every wake-up makes progress"
            );
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(
            start_ms in prop_oneof![Just(0), 0..1_000_000_u64, Just(u64::MAX - 100_000)],
            steps in prop::collection::vec(some_step(), 1..200),
        ) {
            Model::run(start_ms, steps);
        }
    }
}
