//! Records at places that do not move: a slab that grows by blocks, so that a million records are never copied
//! and the places that were freed last, whose memory is warm, are used first.

/// Records of one block. Blocks are allocated whole, and kept.
const BLOCK: usize = 256;

/// A slab of `T`, numbered from 0. Numbers of removed records are used again.
pub struct Slots<T> {
    blocks: Vec<Box<[Slot<T>]>>,
    free: u32,
    len: usize,
}

enum Slot<T> {
    Used(T),
    /// The next free slot, or `END`.
    Free(u32),
}

const END: u32 = u32::MAX;

impl<T> Slots<T> {
    /// No records, no memory.
    pub const fn new() -> Slots<T> {
        Slots { blocks: Vec::new(), free: END, len: 0 }
    }

    /// Records that are there.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a record in; answers its number.
    pub fn insert(&mut self, record: T) -> usize {
        if self.free == END {
            self.grow();
        }
        let index = self.free as usize;
        let slot = &mut self.blocks[index / BLOCK][index % BLOCK];
        match std::mem::replace(slot, Slot::Used(record)) {
            Slot::Free(next) => self.free = next,
            Slot::Used(_) => unreachable!("the list of free slots names free slots only"),
        }
        self.len += 1;
        index
    }

    /// Takes a record out; none where that slot is free.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let slot = self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        self.len -= 1;
        match std::mem::replace(slot, Slot::Free(self.free)) {
            Slot::Used(record) => {
                self.free = index as u32;
                Some(record)
            }
            Slot::Free(_) => unreachable!("it was just looked at"),
        }
    }

    /// The record of that number, if any.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        match self.blocks.get(index / BLOCK)?.get(index % BLOCK)? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    /// The record of that number, if any, to be changed.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match self.blocks.get_mut(index / BLOCK)?.get_mut(index % BLOCK)? {
            Slot::Used(record) => Some(record),
            Slot::Free(_) => None,
        }
    }

    /// All records with their numbers, in the order of the numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.blocks.iter().flatten().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Used(record) => Some((index, record)),
            Slot::Free(_) => None,
        })
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
        fn behaves_as_a_map_does(steps in prop::collection::vec((any::<bool>(), 0usize..700), 1..1200)) {
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
            prop_assert!(slots.iter().map(|(i, v)| (i, *v)).eq(model.into_iter()));
        }
    }

    #[test]
    fn numbers_of_removed_records_are_used_again_first() {
        let mut slots = Slots::new();
        (0..10).for_each(|n| assert_eq!(slots.insert(n), n));
        slots.remove(3);
        assert_eq!(slots.insert(33), 3);
        assert_eq!(slots.get(9), Some(&9));
        assert_eq!(slots.get(10), None);
    }
}
