//! Parts of a client: its identity, its subscriptions and its open server callbacks.

pub mod callbacks;
pub mod subscriptions;

use std::fmt;

/// The identity of a client in the server: its shard, its slot on this shard, and the slot's generation.
///
/// A slot is used again when its client has disconnected. The generation distinguishes the two clients: a late answer
/// to the first one is not delivered to the second.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.shard, self.slot, self.generation)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
