//! The messages that reach a shard: from other shards over the mesh, and from threads through its inboxes.

use super::addresses::{CountedAddress, ShareUse};
use super::auth::VerifiedToken;
use super::presence::{MemberNews, MembersAnswer, MembersList, MembersOfShard, MembersQuestion};
use super::pubsub::BroadcastKind;
use super::replays::{EventsAnswer, EventsQuestion};
use super::sessions::messages::{LostInput, RelayedRequest, RequestId, ResponsePart};
use crate::app::worker::WorkerEvent;
use crate::app::{Command, Json};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::identity::KeySet;
use crate::inspect::Inspection;
use crate::metrics::Snapshot;
use crate::protocol::http::Sid;
use crate::rules::RuleSet;
use crate::tls::TlsContext;
use futures_channel::mpsc;
use std::sync::Arc;

/// A message between shards, with the time at which it was sent.
pub struct Envelope {
    pub(super) sent_ns: u64,
    pub(super) message: ShardMessage,
}

/// A message from one shard to another.
pub(super) enum ShardMessage {
    /// A broadcast for the receiver's subscribers.
    Broadcast { path: Path, data: Json, accepted_ns: u64, kind: BroadcastKind },
    /// A broadcast to a path whose events the receiver numbers.
    Keep { path: Path, data: Json, accepted_ns: u64 },
    /// A client of the sender asks for events of a path that the receiver numbers.
    AskEvents(Box<EventsQuestion>),
    /// The answer to such a question.
    Events(Box<EventsAnswer>),
    /// News of a client of the sender, a member of a path whose members the receiver keeps.
    Member { path: Path, client: ClientId, news: MemberNews },
    /// The members of a path, for clients of the receiver that have asked for them with their subscriptions.
    MembersList(Box<MembersList>),
    /// A client of the sender asks once for the members of a path that the receiver keeps.
    AskMembers(Box<MembersQuestion>),
    /// The answer to such a question.
    Members(Box<MembersAnswer>),
    /// The sender makes the list of the members of the path anew, with this number, and asks for those of the receiver.
    ListMembers { path: Path, round: u64 },
    /// The answer to that.
    MembersOfShard(Box<MembersOfShard>),
    /// The sender has subscribers for the path now, or no longer.
    Interest { path: Path, subscribed: bool },
    /// A command for one of the receiver's clients, from application number `app`.
    Command { app: u32, command: Command },
    /// The sender has these connections more, the last of them in this slot, from an address that the receiver counts.
    AddressAdded { address: CountedAddress, connections: u32, slot: u32, generation: u32 },
    /// The sender has released a connection from an address that the receiver counts.
    AddressRemoved { address: CountedAddress },
    /// The receiver's connection was counted. If the share of its address was full, the connection exceeds it.
    AddressCounted { slot: u32, generation: u32, share: ShareUse },
    /// An HTTP request for a session that lives on the receiver.
    Request(Box<RelayedRequest>),
    /// The connection of that HTTP request has been lost, or its peer sends nothing more.
    RequestLost { request_id: RequestId, sid: Sid, how: LostInput },
    /// A part of the response to an HTTP request on a connection of the receiver.
    Response(RequestId, Box<ResponsePart>),
}

impl ShardMessage {
    /// Returns the memory in bytes that the message refers to. Text that is shared counts in full: this message may be
    /// the one that keeps it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            ShardMessage::Broadcast { path, data, .. } | ShardMessage::Keep { path, data, .. } => {
                path.as_str().len() + data.as_str().len()
            }
            ShardMessage::AskEvents(question) => question.bytes(),
            ShardMessage::Events(answer) => answer.bytes(),
            ShardMessage::Member { path, news, .. } => path.as_str().len() + news.bytes(),
            ShardMessage::MembersList(list) => list.bytes(),
            ShardMessage::AskMembers(question) => question.bytes(),
            ShardMessage::Members(answer) => answer.bytes(),
            ShardMessage::MembersOfShard(members) => members.bytes(),
            ShardMessage::Interest { path, .. } | ShardMessage::ListMembers { path, .. } => {
                path.as_str().len()
            }
            ShardMessage::Command { command, .. } => command.bytes(),
            ShardMessage::Request(request) => request.bytes(),
            ShardMessage::Response(_, part) => part.bytes(),
            ShardMessage::AddressAdded { .. }
            | ShardMessage::AddressRemoved { .. }
            | ShardMessage::AddressCounted { .. }
            | ShardMessage::RequestLost { .. } => 0,
        }
    }
}

/// A command from a thread of an application.
pub struct AppCommand {
    /// The application's number.
    pub app: u32,
    /// The command.
    pub command: Command,
}

/// A message from one of the server's own threads. These messages have an inbox of their own, which applications
/// cannot fill.
pub enum ControlMessage {
    /// Requests everything counted so far; the reply carries the shard's number.
    Snapshot(mpsc::Sender<(u16, Snapshot)>),
    /// Asks about clients or paths.
    Inspect(Inspection),
    /// Stops accepting, closes every connection, and ends the shard at `deadline_ns` (as measured by
    /// [`nanos`](crate::qev::clock::nanos)) at the latest.
    Shutdown { deadline_ns: u64 },
    /// An event concerning an application's workers.
    Workers(WorkerEvent),
    /// Certificates were reloaded: handshakes that begin from now on use this configuration.
    Tls(TlsContext),
    /// Tokens are verified with these keys from now on.
    AuthKeys(Arc<KeySet>),
    /// A token was verified beside the shard.
    TokenVerified(Box<VerifiedToken>),
    /// Rules have changed.
    Rules(Arc<RuleSet>),
    /// A test has moved the clock; the reply is sent once everything due by then is done.
    ClockMoved(mpsc::Sender<()>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_small() {
        assert!(size_of::<Envelope>() <= 128, "{}", size_of::<Envelope>());
    }
}
