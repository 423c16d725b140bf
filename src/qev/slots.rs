//! A slab whose records never move. It grows and shrinks by whole blocks, which means that a large slab is never copied,
//! and that it gives back the memory of a burst. A new record takes a slot of the first block that has a free one, so
//! that later blocks become empty; within the block it takes the slot that was freed last, whose memory is most likely
//! still in the processor's cache.

use std::mem;

/// The number of slots in a block. Blocks are allocated and freed whole.
pub const BLOCK: usize = 256;

/// A lane of a slab: a block only has records of one lane. Tables beside the slab can then leave out whole blocks of
/// records that do not need them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    First,
    Second,
    Third,
}

/// The number of lanes.
const LANES: usize = 3;

/// The end of the list of free slots.
const END: u32 = u32::MAX;

/// A slab of records, which are numbered from 0. The number of a removed record is used again.
///
/// Invariants, asserted by [`check`](Slots::check):
///
/// - `len` slots hold a record.
/// - Every other slot of a block is in the block's list of free slots exactly once. A block that was freed has no slots.
/// - No block before the `first_open` of a lane has a free slot that the lane can take: the block is full, or has records
///   of another lane.
/// - `empty` blocks have memory but no records; it is at most one, which is kept for the next record.
pub struct Slots<T> {
    blocks: Vec<Block<T>>,
    /// For each lane: no block before this one has a free slot that the lane can take.
    first_open: [usize; LANES],
    /// The number of blocks that have memory but no records.
    empty: usize,
    len: usize,
}

struct Block<T> {
    /// The slots, or none if the block was freed.
    slots: Box<[Slot<T>]>,
    /// The first free slot, by its number in the block, or `END`.
    free: u32,
    used: u16,
    /// The lane of the records. A block without records can be taken by any lane.
    lane: Lane,
}

enum Slot<T> {
    Used(T),
    /// A free slot, with the number of the next free slot, or `END`.
    Free(u32),
}

impl<T> Slots<T> {
    /// Returns an empty slab without allocating.
    pub const fn new() -> Slots<T> {
        Slots { blocks: Vec::new(), first_open: [0; LANES], empty: 0, len: 0 }
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of slots, free ones included.
    pub fn slots(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// Returns `true` if there are no records.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Inserts a record and returns its number.
    pub fn insert(&mut self, record: T) -> usize {
        self.insert_in(Lane::First, record)
    }

    /// Inserts a record in this lane and returns its number.
    pub fn insert_in(&mut self, lane: Lane, record: T) -> usize {
        let mut number = self.first_open[lane as usize];
        while self.blocks.get(number).is_some_and(|block| !block.is_open_to(lane)) {
            number += 1;
        }
        self.first_open[lane as usize] = number;
        if self.blocks.get(number).is_none_or(|block| block.slots.is_empty()) {
            self.allocate(number);
        }
        let block = &mut self.blocks[number];
        block.lane = lane;
        self.empty -= usize::from(block.used == 0);
        let at = block.free as usize;
        match mem::replace(&mut block.slots[at], Slot::Used(record)) {
            Slot::Free(next) => block.free = next,
            Slot::Used(_) => {
                unreachable!("slot {at} of a block is in the list of free slots but holds a record")
            }
        }
        block.used += 1;
        self.len += 1;
        number * BLOCK + at
    }

    /// Removes the record with this number and returns it, or `None` if the slot is free.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let block = self.blocks.get_mut(index / BLOCK)?;
        let slot = block.slots.get_mut(index % BLOCK)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let Slot::Used(record) = mem::replace(slot, Slot::Free(block.free)) else {
            unreachable!("the slot was used a moment ago")
        };
        block.free = (index % BLOCK) as u32;
        block.used -= 1;
        self.len -= 1;
        let (lane, is_empty) = (block.lane as usize, block.used == 0);
        self.first_open[lane] = self.first_open[lane].min(index / BLOCK);
        if is_empty {
            self.empty += 1;
            // Any lane can take the block now.
            self.first_open = self.first_open.map(|first| first.min(index / BLOCK));
            self.free_a_block(index / BLOCK, lane);
        }
        Some(record)
    }

    /// Frees the memory of a block that has become empty, if another one is empty too, or an earlier one has free slots.
    fn free_a_block(&mut self, block: usize, lane: usize) {
        let first = &self.blocks[self.first_open[lane]];
        let is_open = first.lane as usize == lane && !first.slots.is_empty() && !first.is_full();
        let has_others = self.first_open[lane] < block && is_open;
        if self.empty > 1 || has_others {
            self.blocks[block].slots = Box::default();
            self.empty -= 1;
        }
        while self.blocks.last().is_some_and(|block| block.slots.is_empty()) {
            self.blocks.pop();
        }
        if self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
    }

    /// Returns the record with this number, or `None` if the slot is free.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        match self.blocks.get(index / BLOCK)?.slots.get(index % BLOCK)? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    /// Returns the record with this number for modification, or `None` if the slot is free.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match self.blocks.get_mut(index / BLOCK)?.slots.get_mut(index % BLOCK)? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    /// Returns the record in a slot that must hold one. `what` names the record in the panic's message, without an
    /// article.
    ///
    /// # Panics
    ///
    /// Panics if the slot is free: `slot 7 must hold a connection`.
    #[inline]
    #[track_caller]
    pub fn expect(&self, index: usize, what: &str) -> &T {
        match self.get(index) {
            Some(record) => record,
            None => must_hold(index, what),
        }
    }

    /// Returns the record in a slot that must hold one for modification. `what` names the record in the panic's
    /// message, without an article.
    ///
    /// # Panics
    ///
    /// Panics if the slot is free: `slot 7 must hold a connection`.
    #[inline]
    #[track_caller]
    pub fn expect_mut(&mut self, index: usize, what: &str) -> &mut T {
        match self.get_mut(index) {
            Some(record) => record,
            None => must_hold(index, what),
        }
    }

    /// Removes and returns the record in a slot that must hold one. `what` names the record in the panic's message,
    /// without an article.
    ///
    /// # Panics
    ///
    /// Panics if the slot is free: `slot 7 must hold a connection`.
    #[track_caller]
    pub fn expect_remove(&mut self, index: usize, what: &str) -> T {
        match self.remove(index) {
            Some(record) => record,
            None => must_hold(index, what),
        }
    }

    /// Returns an iterator over the records and their numbers, in ascending order of the numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots =
            (0..).step_by(BLOCK).zip(&self.blocks).flat_map(|(first, block)| (first..).zip(&block.slots));
        slots.filter_map(|(index, slot)| match slot {
            Slot::Used(record) => Some((index, record)),
            Slot::Free(_) => None,
        })
    }

    /// Asserts the invariants. The cost is linear in the number of slots.
    ///
    /// # Panics
    ///
    /// Panics if an invariant is broken.
    pub fn check(&self) {
        assert_eq!(self.iter().count(), self.len, "`len` must be the number of used slots");
        for (number, block) in self.blocks.iter().enumerate() {
            block.check(number * BLOCK);
            for lane in [Lane::First, Lane::Second, Lane::Third] {
                let is_passed = number < self.first_open[lane as usize];
                assert!(!is_passed || !block.is_open_to(lane), "block {number} must be full");
            }
        }
        let empty = self.blocks.iter().filter(|block| block.used == 0 && !block.slots.is_empty()).count();
        assert_eq!(empty, self.empty, "blocks without records must be counted");
        assert!(empty <= 1, "{empty} blocks without records have memory");
    }

    /// Allocates the slots of a block, which was freed or is a new one behind the others.
    fn allocate(&mut self, number: usize) {
        let next = |offset: usize| if offset + 1 == BLOCK { END } else { offset as u32 + 1 };
        let slots = (0..BLOCK).map(|offset| Slot::Free(next(offset))).collect();
        let block = Block { slots, free: 0, used: 0, lane: Lane::First };
        match self.blocks.get_mut(number) {
            Some(freed) => *freed = block,
            None => self.blocks.push(block),
        }
        self.empty += 1;
    }
}

impl<T> Block<T> {
    /// Returns whether the next record of a lane may be inserted into the block.
    #[inline]
    fn is_open_to(&self, lane: Lane) -> bool {
        self.used == 0 || (self.lane == lane && !self.is_full())
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.used as usize == BLOCK
    }

    /// Asserts the invariants of a block whose first slot has the number `first`.
    fn check(&self, first: usize) {
        let (mut free, mut index) = (0, self.free);
        let slots = self.slots.len();
        let used = self.slots.iter().filter(|slot| matches!(slot, Slot::Used(_))).count();
        assert_eq!(used, self.used as usize, "`used` must be the number of used slots of the block");
        while index != END && slots > 0 {
            assert!(
                free < slots - used,
                "the list of free slots must be no longer than there are free slots"
            );
            let slot = first + index as usize;
            index = match self.slots.get(index as usize) {
                Some(Slot::Free(next)) => *next,
                Some(Slot::Used(_)) => panic!("slot {slot} is in the list of free slots but holds a record"),
                None => panic!("slot {slot} is in the list of free slots but does not exist"),
            };
            free += 1;
        }
        assert_eq!(free, slots - used, "every free slot must be in the list of free slots");
    }
}

#[cold]
#[track_caller]
fn must_hold(index: usize, what: &str) -> ! {
    let article = if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    panic!("slot {index} must hold {article} {what}")
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn behaves_like_a_map(
            steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0usize..1200), 1..2000),
        ) {
            let (mut slots, mut model) = (Slots::new(), BTreeMap::new());
            for (step, (insert, lane, at)) in steps.into_iter().enumerate() {
                if insert {
                    let lane = if lane { Lane::Second } else { Lane::First };
                    let index = slots.insert_in(lane, step);
                    prop_assert_eq!(model.insert(index, step), None, "a used slot was given away");
                } else {
                    prop_assert_eq!(slots.remove(at), model.remove(&at));
                }
                prop_assert_eq!(slots.len(), model.len());
                prop_assert_eq!(slots.get(at), model.get(&at));
            }
            slots.check();
            prop_assert!(slots.iter().map(|(i, v)| (i, *v)).eq(model.into_iter()));
        }
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back() {
        let mut slots = Slots::new();
        let burst: Vec<usize> = (0..100 * BLOCK).map(|number| slots.insert(number)).collect();
        // One record in a high block stays, which keeps that block only.
        let kept = 70 * BLOCK + 5;
        burst
            .iter()
            .filter(|index| **index != kept)
            .for_each(|index| assert!(slots.remove(*index).is_some()));
        slots.check();
        let with_memory = slots.blocks.iter().filter(|block| !block.slots.is_empty()).count();
        assert!(with_memory <= 2, "{with_memory} blocks have memory");
        assert_eq!((slots.get(kept), slots.get(kept + 1), slots.get(3)), (Some(&kept), None, None));
        let first = slots.insert(1);
        assert!(first < BLOCK, "the first blocks are used first, and not {first}");
        slots.remove(kept);
        slots.check();
        assert_eq!(slots.slots(), BLOCK);
        assert!(slots.blocks.capacity() <= 100 / 4);
    }

    #[test]
    fn a_block_has_records_of_one_lane() {
        let mut slots = Slots::new();
        let lanes = [Lane::First, Lane::Second];
        let numbers =
            lanes.map(|lane| (0..BLOCK + 10).map(|_| slots.insert_in(lane, lane)).collect::<Vec<_>>());
        slots.check();
        let blocks = |numbers: &[usize]| numbers.iter().map(|number| number / BLOCK).collect::<BTreeSet<_>>();
        assert!(blocks(&numbers[0]).is_disjoint(&blocks(&numbers[1])));
        assert_eq!(slots.slots(), 4 * BLOCK);
        // A block without records is taken by the lane that needs one.
        numbers[0].iter().for_each(|number| assert!(slots.remove(*number).is_some()));
        slots.check();
        assert!(slots.insert_in(Lane::Second, Lane::Second) < BLOCK);
        slots.check();
    }

    fn ten() -> Slots<usize> {
        let mut slots = Slots::new();
        (0..10).for_each(|number| assert_eq!(slots.insert(number), number));
        slots
    }

    #[test]
    fn numbers_of_removed_records_are_used_again_first() {
        let mut slots = ten();
        slots.remove(3);
        assert_eq!(slots.insert(33), 3);
        assert_eq!(slots.get(9), Some(&9));
        assert_eq!(slots.get(10), None);
    }

    #[test]
    fn expected_records_are_returned() {
        let mut slots = ten();
        *slots.expect_mut(3, "number") += 30;
        assert_eq!(slots.expect(3, "number"), &33);
        assert_eq!(slots.expect_remove(3, "number"), 33);
        assert_eq!(slots.get(3), None);
    }

    #[test]
    #[should_panic(expected = "slot 10 must hold a number")]
    fn a_free_slot_that_is_expected_to_be_used_is_a_panic() {
        ten().expect_mut(10, "number");
    }

    #[test]
    #[should_panic(expected = "slot 256 must hold an event")]
    fn a_slot_beyond_the_last_block_is_free() {
        ten().expect(256, "event");
    }

    #[test]
    #[should_panic(expected = "block 0 must be full")]
    fn the_check_finds_a_free_slot_that_would_never_be_used() {
        let mut slots = ten();
        slots.first_open[0] = 1;
        slots.check();
    }

    #[test]
    #[should_panic(expected = "`used` must be the number of used slots of the block")]
    fn the_check_finds_a_block_that_counts_wrong() {
        let mut slots = ten();
        slots.blocks[0].used = 11;
        slots.check();
    }

    #[test]
    #[should_panic(expected = "blocks without records must be counted")]
    fn the_check_finds_an_empty_block_that_is_not_counted() {
        let mut slots = ten();
        (0..10).for_each(|index| assert!(slots.remove(index).is_some()));
        slots.empty = 0;
        slots.check();
    }

    #[test]
    #[should_panic(expected = "`len` must be the number of used slots")]
    fn the_check_finds_a_wrong_length() {
        let mut slots = ten();
        slots.len += 1;
        slots.check();
    }

    #[test]
    #[should_panic(expected = "slot 3 is in the list of free slots but holds a record")]
    fn the_check_finds_a_used_slot_in_the_list_of_free_slots() {
        let mut slots = ten();
        slots.blocks[0].free = 3;
        slots.check();
    }

    #[test]
    #[should_panic(expected = "every free slot must be in the list of free slots")]
    fn the_check_finds_a_lost_slot() {
        let mut slots = ten();
        slots.blocks[0].free = 11;
        slots.check();
    }

    #[test]
    #[should_panic(expected = "the list of free slots must be no longer than there are free slots")]
    fn the_check_finds_a_circle_in_the_list_of_free_slots() {
        let mut slots = ten();
        slots.blocks[0].slots[20] = Slot::Free(10);
        slots.check();
    }
}
