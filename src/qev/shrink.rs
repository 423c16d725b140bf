//! Tables that give back the memory of a burst. A hash table of the standard library keeps its capacity for ever.

use std::collections::HashMap;
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
}
