//! The one vocabulary of what changes a shard. Handlers push commands, the shard applies them in its own turn;
//! commands are also what crosses from other shards and from threads.

use super::answer::{Answer, Callback, Decision, SendCallback};
use super::context::Context;
use super::json::Json;
use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use std::time::Duration;

/// Who asked, and under which callback id the answer is awaited; 0: none is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    pub client: ClientId,
    pub callback: u64,
}

/// What any shard or thread may ask of a shard.
pub enum Command {
    /// Answers an event.
    Answer { reply_to: ReplyTo, answer: Answer<SendCallback> },
    /// Decides about a subscription that waits for it.
    Decide { reply_to: ReplyTo, path: PathId, decision: Decision },
    /// Sends an event to one client.
    Send { client: ClientId, path: Path, data: Json, callback: Option<SendCallback> },
    /// Sends an event to all subscribers of a path, on all shards.
    Broadcast { path: Path, data: Json },
    /// Closes a client's connection, once what was queued for it before is sent.
    Close { client: ClientId },
}

impl Command {
    /// The client that it is for; none for broadcasts, which any shard can start.
    pub fn client(&self) -> Option<ClientId> {
        match self {
            Command::Answer { reply_to, .. } | Command::Decide { reply_to, .. } => Some(reply_to.client),
            Command::Send { client, .. } | Command::Close { client } => Some(*client),
            Command::Broadcast { .. } => None,
        }
    }
}

/// What a handler may ask of its own shard.
pub enum LocalCommand {
    /// What may be asked from anywhere.
    Any(Command),
    /// Answers an event of a client of this shard.
    Answer { reply_to: ReplyTo, answer: Answer },
    /// Sends an event to a client of this shard.
    Send { client: ClientId, path: Path, data: Json, callback: Option<Callback> },
    /// `/qio/on`: `extra` is JSON for the application's on-hook.
    Subscribe { reply_to: ReplyTo, path: Path, extra: Json },
    /// `/qio/off`.
    Unsubscribe { reply_to: ReplyTo, path: Path },
    /// `/qio/callback/<id>`: fires a server callback. No id: what stood there is none.
    Fire { reply_to: ReplyTo, id: Option<u64>, data: Json },
    /// Sends a text that need not be an event: for tests of client libraries.
    SendText { client: ClientId, text: &'static str },
    /// Runs once, later, on this shard.
    After { time: Duration, run: Box<dyn FnOnce(&mut Context<'_>)> },
}
