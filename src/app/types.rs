//! The types by which applications act on the server. They refer to each other in a circle, and for this reason they
//! are defined together: a command can carry an answer, an answer can carry a callback, a callback receives a context,
//! and a context queues commands.
//!
//! The methods of [`Answer`] and of the callbacks are in `answer`, those of [`Context`] in `context`, and those of
//! [`Server`] in `server`.

use super::client_info::ClientDirectory;
use super::event::{Reply, ReplyTo};
use super::json::Json;
use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use crate::history::{Position, SubscribeOptions};
use ahash::AHashMap;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The answer to an event. It is dropped if the client did not ask for an answer.
///
/// `C` is the type of the server callback that the answer may offer. An answer that is given later, from another
/// thread, needs a callback that can be sent: [`SendCallback`].
#[must_use = "an answer is given by returning it, or by `Later::answer`"]
pub struct Answer<C = Callback>(pub(crate) AnswerState<C>);

pub(crate) enum AnswerState<C> {
    Ready {
        code: u16,
        data: Json,
        message: Option<Box<str>>,
        callback: Option<C>,
    },
    /// The answer is given later by the holder of a `Later`, or never.
    Deferred,
}

/// The decision of an on-hook about a client that wants to subscribe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Decision {
    /// The client is subscribed and is answered 200.
    Accept,
    /// The client is answered 401, or 404 if the event handles children.
    Refuse,
    /// The client is answered this code. Used if no decision can be made, for example 500 if the worker that decides
    /// is not running.
    Fail(u16),
    /// The decision is made later by the holder of a [`super::LaterDecision`].
    Later,
}

/// A server callback: the function that runs when a client answers an answer or an event. It may answer in turn.
pub struct Callback(pub(super) Box<CallbackFn>);

pub(super) type CallbackFn = dyn FnOnce(&mut Context<'_>, Reply<'_>) -> Answer;

/// A server callback that can be created on one thread and run on another.
pub struct SendCallback(pub(super) Box<SendCallbackFn>);

pub(super) type SendCallbackFn = dyn FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + Send;

/// The handle through which handlers, hooks, callbacks and timers queue commands. The shard applies the commands in
/// order after the function has returned. No method waits.
pub struct Context<'a> {
    pub(crate) shard: u16,
    pub(crate) server: &'a Server,
    pub(crate) commands: &'a mut Vec<LocalCommand>,
    pub(crate) clients: &'a dyn ClientDirectory,
    pub(crate) client_data: &'a mut ClientData,
    /// The number of promises that the application was refused on this shard.
    pub(crate) promises_refused: &'a mut u64,
    /// The generation of the client in each slot of the shard; 0 if the slot is empty.
    pub(crate) generations: &'a [u32],
    pub(crate) now: Duration,
    /// The `Host` of the client's HTTP request. Empty if the event did not come in an HTTP request.
    pub(crate) host: &'a str,
}

/// The data that an application keeps for the clients of one shard. An entry is dropped when its client disconnects.
pub type ClientData = AHashMap<ClientId, Box<dyn Any>>;

/// A handle to the server for an application's own threads. Cloning it costs one reference count.
#[derive(Clone)]
pub struct Server {
    pub(super) post: Arc<dyn Post>,
    /// The number of the application. Callbacks that are offered through this handle run as this application's.
    pub(super) app: u32,
}

/// Delivery of commands from any thread to the shards. The server implements it.
pub trait Post: Send + Sync {
    /// Queues a command of application number `app` for the shard that the command concerns. Never waits.
    ///
    /// # Errors
    ///
    /// Returns the command if the shard's inbox is full.
    fn post(&self, app: u32, command: Command) -> Result<(), Command>;
}

/// A command that any shard or thread may send to a shard.
pub enum Command {
    /// Answers an event, as was promised at this time.
    Answer { reply_to: ReplyTo, answer: Answer<SendCallback>, promised: Instant },
    /// Decides about a pending subscription. `promised`: when the decision was promised, if it was.
    Decide { reply_to: ReplyTo, path: PathId, decision: Decision, promised: Option<Instant> },
    /// Sends an event to one client.
    Send { client: ClientId, path: Path, data: Json, callback: Option<SendCallback> },
    /// Sends an event to all subscribers of a path, on all shards.
    Broadcast { path: Path, data: Json },
    /// Closes a client's connection after the output that is already queued for it has been sent.
    Close { client: ClientId },
}

impl Command {
    /// Returns the client that the command concerns, or `None` for a broadcast, which any shard can start.
    pub fn client(&self) -> Option<ClientId> {
        match self {
            Command::Answer { reply_to, .. } | Command::Decide { reply_to, .. } => Some(reply_to.client),
            Command::Send { client, .. } | Command::Close { client } => Some(*client),
            Command::Broadcast { .. } => None,
        }
    }

    /// Returns the memory in bytes that the command refers to. What a callback has captured is not known.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Command::Answer { answer: Answer(AnswerState::Ready { data, message, .. }), .. } => {
                data.as_str().len() + message.as_deref().map_or(0, str::len)
            }
            Command::Send { path, data, .. } | Command::Broadcast { path, data } => {
                path.as_str().len() + data.as_str().len()
            }
            Command::Answer { .. } | Command::Decide { .. } | Command::Close { .. } => 0,
        }
    }
}

/// The options of a subscription, and their text.
pub struct GivenOptions {
    pub parsed: SubscribeOptions,
    pub text: Json,
}

/// A command that a handler may queue for its own shard.
pub enum LocalCommand {
    /// A command that could also come from another shard or thread.
    Any(Command),
    /// Answers an event of a client of this shard.
    Answer { reply_to: ReplyTo, answer: Answer },
    /// Sends an event to a client of this shard.
    Send { client: ClientId, path: Path, data: Json, callback: Option<Callback> },
    /// Subscribes a client (`/qio/on`). `extra` is JSON for the application's on-hook.
    Subscribe { reply_to: ReplyTo, path: Path, extra: Json, options: Option<Box<GivenOptions>> },
    /// Reads events that are kept (`/qio/history`).
    ReadHistory { reply_to: ReplyTo, path: Path, before: Option<Position>, limit: usize },
    /// Asks for the members of a path (`/qio/members`).
    ReadMembers { reply_to: ReplyTo, path: Path },
    /// Unsubscribes a client (`/qio/off`).
    Unsubscribe { reply_to: ReplyTo, path: Path },
    /// Gives the token of a client (`/qio/auth`).
    Authenticate { reply_to: ReplyTo, token: Box<str> },
    /// Runs a server callback (`/qio/callback/<id>`). `None` if the path did not contain a valid id.
    RunCallback { reply_to: ReplyTo, id: Option<u64>, data: Json },
    /// Sends a text that need not be an event, for tests of client libraries.
    SendText { client: ClientId, text: &'static str },
    /// Runs a function once on this shard, after this time.
    After { time: Duration, run: Box<dyn FnOnce(&mut Context<'_>)> },
}
