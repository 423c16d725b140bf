//! A queue whose owners take turns: what one of them has queued does not delay what another one queues by more than one item of
//! each.

use ahash::AHashMap;
use std::collections::VecDeque;
use std::hash::Hash;

/// A queue of items, each of an owner. The owners take turns, and the items of one of them stay in order.
///
/// Invariants: the owners in `turns` are those in `items`, each once, and each of them has an item.
pub(super) struct FairQueue<K, T> {
    items: AHashMap<K, VecDeque<T>>,
    turns: VecDeque<K>,
}

impl<K: Copy + Eq + Hash, T> FairQueue<K, T> {
    pub fn new() -> FairQueue<K, T> {
        FairQueue { items: AHashMap::new(), turns: VecDeque::new() }
    }

    /// Adds an item.
    pub fn push(&mut self, owner: K, item: T) {
        let own = self.items.entry(owner).or_default();
        if own.is_empty() {
            self.turns.push_back(owner);
        }
        own.push_back(item);
    }

    /// Takes the first item of the owner whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let owner = self.turns.pop_front()?;
        let own = self.items.get_mut(&owner).expect("an owner whose turn it is has items");
        let item = own.pop_front().expect("no queue of an owner is empty");
        if own.is_empty() {
            self.items.remove(&owner);
        } else {
            self.turns.push_back(owner);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_take_turns_and_their_items_stay_in_order() {
        let mut queue = FairQueue::new();
        (0..4).for_each(|number| queue.push("greedy", number));
        queue.push("modest", 10);
        assert_eq!(queue.pop(), Some(0));
        assert_eq!(queue.pop(), Some(10), "the others of the first one wait");
        queue.push("late", 20);
        assert_eq!((0..4).map(|_| queue.pop().unwrap()).collect::<Vec<_>>(), [1, 20, 2, 3]);
        assert_eq!(queue.pop(), None);
        assert!(queue.items.is_empty() && queue.turns.is_empty());
    }
}
