//! Tables and lists that give back the memory of a burst. Those of the standard library keep their capacity for ever.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// The capacity that a table keeps in any case, in entries.
const KEPT: usize = 1024;

/// Gives back memory if less than a quarter of it is used. To be called after an entry was removed. What this costs is
/// linear in the number of entries that are left, and as many entries must be removed before it is due again.
#[inline]
pub fn shrink<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if map.capacity() > KEPT && map.len() < map.capacity() / 4 {
        map.shrink_to((map.len() * 2).max(KEPT / 2));
    }
}

/// The capacity that a list keeps in any case, in items. The lists of most turns are shorter.
const LIST_KEPT: usize = 256;

/// A list whose memory is kept from turn to turn, although one turn may need far more of it than all others.
pub trait List {
    /// Gives back the memory beyond what the list needs now, or beyond a few hundred items. To be called once in a while,
    /// but not after each turn: a list that is long in every turn would be allocated again each time.
    fn give_back(&mut self);
}

impl<T> List for Vec<T> {
    fn give_back(&mut self) {
        if self.capacity() > LIST_KEPT {
            self.shrink_to(LIST_KEPT);
        }
    }
}

impl<T> List for VecDeque<T> {
    fn give_back(&mut self) {
        if self.capacity() > LIST_KEPT {
            self.shrink_to(LIST_KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shrinks_with_its_entries_and_keeps_them() {
        let mut map: HashMap<usize, usize> = (0..100_000).map(|number| (number, number)).collect();
        let mut shrinks = 0;
        for number in 10..100_000 {
            let before = map.capacity();
            map.remove(&number);
            shrink(&mut map);
            // The capacity may also fall by one with each entry that is removed.
            shrinks += usize::from(map.capacity() + 1 < before);
            assert!(map.capacity() <= (2 * KEPT).max(map.len() * 8), "{} for {}", map.capacity(), map.len());
        }
        assert!((3..10).contains(&shrinks), "{shrinks} times");
        assert!((0..10).all(|number| map[&number] == number));
    }

    #[test]
    fn a_list_keeps_its_items_and_little_more() {
        let mut list: Vec<usize> = (0..10_000).collect();
        list.give_back();
        assert!(list.len() == 10_000 && list.capacity() < 20_000);
        list.truncate(3);
        list.give_back();
        assert!(list == [0, 1, 2] && (3..=LIST_KEPT).contains(&list.capacity()), "{}", list.capacity());
        let mut queue: VecDeque<usize> = (0..10_000).collect();
        queue.drain(..9_997);
        queue.give_back();
        assert!(queue == [9_997, 9_998, 9_999] && (3..=LIST_KEPT).contains(&queue.capacity()));
    }
}
