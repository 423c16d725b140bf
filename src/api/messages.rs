//! The messages by which the server API reaches the shards, and their replies.

use super::batch::Batch;
use crate::app::Json;
use crate::client::ClientId;
use crate::event::path::Path;
use crate::history::{EventsPage, Position};
use futures_channel::mpsc;
use std::sync::Arc;

/// A message from the server API to a shard.
#[derive(Debug)]
pub enum ApiMessage {
    /// Broadcasts these events, in order.
    Broadcast(Batch),
    /// Does something and replies.
    Ask(Box<ApiQuestion>),
}

/// A question to a shard.
#[derive(Debug)]
pub struct ApiQuestion {
    /// The work.
    pub work: ApiWork,
    /// The channel for the number of the shard and its reply.
    pub reply: mpsc::Sender<(u16, ApiReply)>,
}

/// The work that a shard is asked to do.
#[derive(Clone, Debug)]
pub enum ApiWork {
    /// Does something to the connections of a target: [`ApiReply::Done`].
    Act {
        /// The connections.
        target: ApiTarget,
        /// What is done to each of them.
        action: ApiAction,
    },
    /// Lists paths with subscribers: [`ApiReply::Paths`].
    Paths {
        /// The beginning of the paths.
        prefix: Arc<str>,
        /// The place to begin at.
        from: u32,
        /// The maximum number of paths.
        max: usize,
    },
    /// Counts the subscribers of paths: [`ApiReply::Counts`].
    Counts(Arc<[Path]>),
    /// Lists clients: [`ApiReply::Clients`].
    Clients {
        /// The user whose clients are listed, or `None` for all clients.
        user: Option<Arc<str>>,
        /// The place to begin at.
        from: u32,
        /// The maximum number of clients.
        max: usize,
    },
    /// Counts clients and subscriptions: [`ApiReply::Totals`].
    Totals,
    /// Reads events that are kept of a path that the shard numbers: [`ApiReply::Events`].
    Events {
        /// The path.
        path: Path,
        /// The position before which the events are, or `None` for the last ones.
        before: Option<Position>,
        /// The maximum number of events.
        limit: usize,
    },
}

/// The connections that a back end means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiTarget {
    /// One client.
    Client(ClientId),
    /// All clients that have authenticated as a user.
    User(Arc<str>),
}

/// Something that is done to a connection.
#[derive(Clone, Debug)]
pub enum ApiAction {
    /// Sends an event.
    Send {
        /// Its path.
        path: Path,
        /// Its data.
        data: Json,
    },
    /// Closes the connection behind its output.
    Close {
        /// The text for WebSocket clients, or `None` for the usual one.
        reason: Option<Arc<str>>,
    },
    /// Subscribes the client.
    On {
        /// The path.
        path: Path,
    },
    /// Unsubscribes the client.
    Off {
        /// The path.
        path: Path,
    },
}

/// The reply of a shard.
#[derive(Clone, Debug)]
pub enum ApiReply {
    /// Something was done to connections.
    Done {
        /// The number of connections.
        clients: usize,
        /// The number of those among them that an application or a limit did not permit to subscribe.
        refused: usize,
    },
    /// Paths.
    Paths {
        /// The paths that this shard reports: no shard with a lower number has subscribers.
        paths: Vec<PathCount>,
        /// The place to go on at, or `None` at the end.
        next: Option<u32>,
    },
    /// The numbers of subscribers, in the order of the paths.
    Counts(Vec<usize>),
    /// Clients.
    Clients {
        /// The clients.
        clients: Vec<ClientEntry>,
        /// The place to go on at, or `None` at the end.
        next: Option<u32>,
    },
    /// Counts of the shard.
    Totals(ApiTotals),
    /// Events of a path, or `None` if no rule keeps any.
    Events(Option<EventsPage>),
}

/// A path and its subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathCount {
    /// The path.
    pub path: Path,
    /// The number of subscribers on the shard.
    pub subscribers: usize,
}

/// A client, as a back end is told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEntry {
    /// The client.
    pub client: ClientId,
    /// Its user, if it has authenticated.
    pub user: Option<Box<str>>,
    /// The address of its peer.
    pub address: String,
    /// Its transport: `websocket`, `raw`, `polling` or `stream`.
    pub transport: &'static str,
    /// The number of its subscriptions, pending ones included.
    pub subscriptions: usize,
}

/// The counts of a shard, or of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiTotals {
    /// Clients.
    pub clients: usize,
    /// Clients that have authenticated.
    pub identified: usize,
    /// Subscriptions.
    pub subscriptions: usize,
}

/// The error of messages that were posted to no shard, because one of the shards has no room for its message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardsBusy;

/// The shards, as the server API reaches them. The value lives on the control executor.
pub trait Shards: 'static {
    /// Returns the number of shards.
    fn count(&self) -> usize;

    /// Returns the shard that begins the broadcasts to a path, and numbers and keeps its events if a rule says so. It is always
    /// the same one, so that they stay in order.
    fn of_path(&self, path: &str) -> usize;

    /// Posts each message to the shard with its number, or none of them. Never waits.
    ///
    /// # Errors
    ///
    /// A shard has no room for its message now.
    fn post_all(&self, messages: Vec<(usize, ApiMessage)>) -> Result<(), ShardsBusy>;
}
