//! The members of paths: the clients that are subscribed to a path, as others are told of them. Pure: no I/O, no clock, no
//! settings.
//!
//! One shard, which a hash of the path chooses, keeps the list of a path. It tells those who watch it of changes, gathered over
//! a time that grows with the number of members.
//!
//! | file | contents |
//! | --- | --- |
//! | `rosters` | the members of all paths of one shard, and the time at which changes are told |
//! | `roster` | the members of one path: a list, or a count if there are too many |
//! | `list` | a list of members, and its changes since they were told |
//! | `text` | the texts that clients get |

mod list;
mod roster;
mod rosters;
#[cfg(test)]
mod tests;
mod text;

pub use rosters::{Publication, RosterBounds, RosterTotals, Rosters};

use crate::client::ClientId;
use crate::identity::Identity;
use std::sync::Arc;

/// A client that is subscribed to a path, and its identity, if it has authenticated.
pub type Present = (ClientId, Option<Arc<Identity>>);

/// The number of a member of a path. No two members of one server process that the same shard keeps have the same.
pub type MemberId = u64;
