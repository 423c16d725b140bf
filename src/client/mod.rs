//! A client: its identity, its subscriptions, its open server callbacks.

pub mod callbacks;
pub mod subscriptions;

use std::fmt;

/// Who a client is, server-wide: the shard it lives on, its slot there, and the slot's generation.
///
/// A slot is used again once its client has gone; the generation tells the two apart, so that a late answer
/// to a client that has gone finds nobody.
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
