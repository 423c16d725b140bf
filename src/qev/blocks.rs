//! A growable array in blocks of a fixed size. It grows without copying its items, which for a large `Vec` takes
//! milliseconds of a turn, and reserves at most a block ahead, where a `Vec` doubles.

use std::ops::{Index, IndexMut};

/// The number of items in a block.
const BLOCK: usize = 256;

/// A growable array in blocks.
///
/// Invariant: every block but the last one is full, and the last one is not empty.
#[derive(Debug)]
pub struct Blocks<T> {
    blocks: Vec<Vec<T>>,
}

impl<T> Blocks<T> {
    /// Returns an empty array without allocating.
    pub const fn new() -> Blocks<T> {
        Blocks { blocks: Vec::new() }
    }

    /// Returns the number of items.
    #[inline]
    pub fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK + last.len())
    }

    /// Returns `true` if there are no items.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds an item behind the others.
    pub fn push(&mut self, item: T) {
        if self.blocks.last().is_none_or(|last| last.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        self.blocks.last_mut().expect("a block was added if there was none").push(item);
    }

    /// Removes and returns the last item. The memory of a block is freed with its first item.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.blocks.last_mut()?;
        let item = last.pop();
        if last.is_empty() {
            self.blocks.pop();
            if self.blocks.len() < self.blocks.capacity() / 4 {
                self.blocks.shrink_to(self.blocks.len() * 2);
            }
        }
        item
    }

    /// Returns an iterator over the items.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    /// Returns the number of items for which there is memory.
    pub fn capacity(&self) -> usize {
        self.blocks.iter().map(Vec::capacity).sum()
    }
}

impl<T> Default for Blocks<T> {
    fn default() -> Blocks<T> {
        Blocks::new()
    }
}

impl<T> Index<usize> for Blocks<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        &self.blocks[index / BLOCK][index % BLOCK]
    }
}

impl<T> IndexMut<usize> for Blocks<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.blocks[index / BLOCK][index % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_vec(pushes in prop::collection::vec(prop::bool::weighted(0.6), 0..3000)) {
            let (mut blocks, mut model) = (Blocks::new(), Vec::new());
            for (step, push) in pushes.into_iter().enumerate() {
                if push {
                    blocks.push(step);
                    model.push(step);
                } else {
                    prop_assert_eq!(blocks.pop(), model.pop());
                }
                prop_assert_eq!((blocks.len(), blocks.is_empty()), (model.len(), model.is_empty()));
                prop_assert!(blocks.capacity() < blocks.len() + BLOCK, "at most a block is ahead");
            }
            prop_assert!(blocks.iter().eq(&model));
            for (index, item) in model.iter().enumerate() {
                prop_assert_eq!(blocks[index], *item);
            }
        }
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back() {
        let mut blocks = Blocks::new();
        (0..100 * BLOCK).for_each(|item| blocks.push(item));
        blocks[5] = 7;
        while blocks.len() > 10 {
            blocks.pop();
        }
        assert_eq!((blocks[5], blocks.capacity()), (7, BLOCK));
        assert!(blocks.blocks.capacity() <= 100 / 4);
    }
}
