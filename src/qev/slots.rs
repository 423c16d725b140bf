//! A slab whose records never move. It grows by whole blocks, which means that a large slab is never copied. A new
//! record takes the slot that was freed last, whose memory is most likely still in the processor's cache.

use std::mem;

/// The number of slots in a block. Blocks are allocated whole and are never freed.
const BLOCK: usize = 256;

/// The end of the list of free slots.
const END: u32 = u32::MAX;

/// A slab of records, which are numbered from 0. The number of a removed record is used again.
///
/// Invariants, asserted by [`check`](Slots::check):
///
/// - `len` slots hold a record.
/// - Every other slot is in the list of free slots exactly once. The list begins at `free`.
pub struct Slots<T> {
    blocks: Vec<Box<[Slot<T>]>>,
    /// The first free slot, or `END`.
    free: u32,
    len: usize,
}

enum Slot<T> {
    Used(T),
    /// A free slot, with the number of the next free slot, or `END`.
    Free(u32),
}

impl<T> Slots<T> {
    /// Returns an empty slab without allocating.
    pub const fn new() -> Slots<T> {
        Slots { blocks: Vec::new(), free: END, len: 0 }
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
        if self.free == END {
            self.grow();
        }
        let index = self.free as usize;
        let slot = &mut self.blocks[index / BLOCK][index % BLOCK];
        match mem::replace(slot, Slot::Used(record)) {
            Slot::Free(next) => self.free = next,
            Slot::Used(_) => unreachable!("slot {index} is in the list of free slots but holds a record"),
        }
        self.len += 1;
        index
    }

    /// Removes the record with this number and returns it, or `None` if the slot is free.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let slot = self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        self.len -= 1;
        match mem::replace(slot, Slot::Free(self.free)) {
            Slot::Used(record) => {
                self.free = index as u32;
                Some(record)
            }
            Slot::Free(_) => unreachable!("the slot was used a moment ago"),
        }
    }

    /// Returns the record with this number, or `None` if the slot is free.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        match self.blocks.get(index / BLOCK)?.get(index % BLOCK)? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    /// Returns the record with this number for modification, or `None` if the slot is free.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)? {
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
        self.blocks.iter().flatten().enumerate().filter_map(|(index, slot)| match slot {
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
        let slots = self.slots();
        assert_eq!(self.iter().count(), self.len, "`len` must be the number of used slots");
        let (mut free, mut index) = (0, self.free);
        while index != END {
            assert!(
                free < slots - self.len,
                "the list of free slots must be no longer than there are free slots"
            );
            index = match self.blocks.get(index as usize / BLOCK).map(|block| &block[index as usize % BLOCK])
            {
                Some(Slot::Free(next)) => *next,
                Some(Slot::Used(_)) => panic!("slot {index} is in the list of free slots but holds a record"),
                None => panic!("slot {index} is in the list of free slots but does not exist"),
            };
            free += 1;
        }
        assert_eq!(free, slots - self.len, "every free slot must be in the list of free slots");
    }

    fn grow(&mut self) {
        let first = (self.blocks.len() * BLOCK) as u32;
        let next = |offset: usize| match offset + 1 {
            BLOCK => END,
            following => first + following as u32,
        };
        self.blocks.push((0..BLOCK).map(|offset| Slot::Free(next(offset))).collect());
        self.free = first;
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
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((any::<bool>(), 0usize..700), 1..1200)) {
            let (mut slots, mut model) = (Slots::new(), BTreeMap::new());
            for (step, (insert, at)) in steps.into_iter().enumerate() {
                if insert {
                    let index = slots.insert(step);
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
        slots.free = 3;
        slots.check();
    }

    #[test]
    #[should_panic(expected = "every free slot must be in the list of free slots")]
    fn the_check_finds_a_lost_slot() {
        let mut slots = ten();
        slots.free = 11;
        slots.check();
    }

    #[test]
    #[should_panic(expected = "the list of free slots must be no longer than there are free slots")]
    fn the_check_finds_a_circle_in_the_list_of_free_slots() {
        let mut slots = ten();
        slots.blocks[0][20] = Slot::Free(10);
        slots.check();
    }
}
