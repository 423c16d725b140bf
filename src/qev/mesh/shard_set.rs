//! Sets of shards.

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

    pub fn pop_first(&mut self) -> Option<usize> {
        let first = (self.0 != 0).then(|| self.0.trailing_zeros() as usize);
        self.0 &= self.0.wrapping_sub(1);
        first
    }

    /// Returns whether all shards in the set are among the first `shards` shards.
    pub fn is_within(self, shards: usize) -> bool {
        self.0.checked_shr(shards as u32).unwrap_or(0) == 0
    }
}
