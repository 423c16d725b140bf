//! The questions of operators about single clients and paths, and the answers.
//!
//! The admin endpoint asks, `server` passes the questions to the shards, and each shard answers for itself, in bounded
//! work: a question about all clients is asked once for each piece of a shard.

mod clients;
mod paths;
#[cfg(test)]
pub(crate) mod testing;
mod workers;

pub use crate::client::ClientId;
pub use clients::{ClientDetails, ClientDrops, ClientSummary, SlowestClients};
pub use paths::{BusiestPaths, BusyPath};
pub use workers::WorkerStatus;

use crate::event::path::Path;
use futures_channel::mpsc;
use std::sync::Arc;

/// A question to a shard. The shard sends its answer without waiting; the receiver may have given up.
pub enum Inspection {
    /// The clients that have most output waiting, among those in the slots from this one on. The answer carries the
    /// shard's number.
    Slowest { from: u32, reply: mpsc::Sender<(u16, SlowestClients)> },
    /// A client of the shard, or `None` if it has disconnected.
    Client { id: ClientId, reply: mpsc::Sender<Option<Box<ClientDetails>>> },
    /// The paths to which most broadcasts were accepted by the shard. It begins to count when this is first asked.
    Busiest { reply: mpsc::Sender<Vec<BusyPath>> },
    /// The number of the shard's subscribers of each of these paths, in the same order.
    Subscribers { paths: Arc<[Path]>, reply: mpsc::Sender<Vec<u64>> },
}
