//! Sets of shards.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::SHARDS_MAX;

/// A set of shards: a bit for each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ShardSet(u128);

const _: () = assert!(SHARDS_MAX <= u128::BITS as usize, "a set of shards is a u128");

impl ShardSet {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, shard: usize) -> bool {
        self.0 >> shard & 1 == 1
    }

    pub fn insert(&mut self, shard: usize) {
        self.0 |= 1 << shard;
    }

    pub fn remove(&mut self, shard: usize) {
        self.0 &= !(1 << shard);
    }

    #[inline]
    pub fn pop_first(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let first = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(first)
    }

    /// Removes and returns the first shard from `start` on, or else the first of all.
    pub fn pop_first_from(&mut self, start: usize) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let mut rest = Self(self.0 & u128::MAX << start);
        let first = rest.pop_first().or_else(|| Self(self.0).pop_first())?;
        self.remove(first);
        Some(first)
    }

    /// Returns whether all shards in the set are among the first `shards` shards.
    pub fn is_within(self, shards: usize) -> bool {
        self.0.checked_shr(shards as u32).unwrap_or(0) == 0
    }
}

/// A set of shards to which several threads add and from which one takes.
#[derive(Debug, Default)]
pub(super) struct AtomicShardSet([AtomicU64; SHARDS_MAX / 64]);

impl AtomicShardSet {
    /// Adds a shard. A thread that then takes the set sees everything that this thread wrote before.
    pub fn insert(&self, shard: usize) {
        self.0[shard / 64].fetch_or(1 << (shard % 64), Ordering::Release);
    }

    /// Returns whether there is no shard in the set. This only reads, and leaves the cache line to the threads that add.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|bits| bits.load(Ordering::Relaxed) == 0)
    }

    /// Removes and returns all shards.
    pub fn take(&self) -> ShardSet {
        let mut taken = ShardSet::default();
        for (word, bits) in self.0.iter().enumerate() {
            // An exchange for nothing would take the cache line from the senders.
            if bits.load(Ordering::Relaxed) != 0 {
                taken.0 |= u128::from(bits.swap(0, Ordering::Acquire)) << (64 * word);
            }
        }
        taken
    }
}

impl std::ops::BitOrAssign for ShardSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shards: &[usize]) -> ShardSet {
        let mut set = ShardSet::default();
        shards.iter().for_each(|shard| set.insert(*shard));
        set
    }

    #[test]
    fn shards_are_popped_in_a_circle() {
        for start in [0, 1, 5, 63, 64, 65, 126, 127] {
            let shards = [0, 1, 5, 63, 64, 65, 127];
            let mut left = set(&shards);
            let popped: Vec<usize> = std::iter::from_fn(|| left.pop_first_from(start)).collect();
            let (before, from): (Vec<usize>, Vec<usize>) = shards.iter().partition(|shard| **shard < start);
            assert_eq!(popped, [from, before].concat(), "from {start}");
        }
    }

    #[test]
    fn what_is_taken_is_removed() {
        let atomic = AtomicShardSet::default();
        [127, 0, 64, 63, 0].into_iter().for_each(|shard| atomic.insert(shard));
        assert_eq!(atomic.take().0, set(&[0, 63, 64, 127]).0);
        assert!(atomic.take().is_empty());
    }
}
