//! The losses of single clients, for operators. Most clients have none, and no memory here.

use crate::inspect::ClientDrops;
use crate::qev::shrink::shrink;
use ahash::AHashMap;

/// The losses of the clients of a shard, by the slots of their connections.
///
/// Invariant, which [`check`](Drops::check) asserts: each connection here is open, or its end was decided and not carried
/// out. Their number is therefore bounded by `clients-max`.
#[derive(Default)]
pub(super) struct Drops(AHashMap<u32, ClientDrops>);

impl Drops {
    /// The losses of the client of a connection, to be added to.
    #[cold]
    pub fn of(&mut self, slot: u32) -> &mut ClientDrops {
        self.0.entry(slot).or_default()
    }

    /// The losses of the client of a connection.
    pub fn get(&self, slot: u32) -> ClientDrops {
        self.0.get(&slot).copied().unwrap_or_default()
    }

    /// Forgets the losses of a client, which is released.
    #[inline]
    pub fn remove(&mut self, slot: u32) {
        if !self.0.is_empty() {
            self.0.remove(&slot);
            shrink(&mut self.0);
        }
    }

    /// Asserts the invariant. Linear in the number of entries.
    pub fn check(&self, is_unreleased: impl Fn(u32) -> bool) {
        for slot in self.0.keys() {
            assert!(is_unreleased(*slot), "connection {slot} has ended, but its losses are kept");
        }
    }
}
