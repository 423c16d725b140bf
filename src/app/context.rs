//! What a handler is given: the event, and the context by which it asks for things to be done.

use super::answer::{Answer, Decision, SendCallback};
use super::command::{Command, LocalCommand, ReplyTo};
use super::json::Json;
use super::later::{Later, LaterDecision, Server};
use super::paths;
use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use ahash::AHashMap;
use std::any::Any;
use std::time::Duration;

/// An event that a client sent, for its handler.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Who sent it.
    pub client: ClientId,
    /// The path at which the handler is registered.
    pub path: &'a str,
    /// What follows it in the event's path, from the slash on; empty where the path is the handler's own.
    pub extra: &'a str,
    /// One JSON text, unchecked: `null` where the client sent nothing.
    pub data: &'a str,
    pub(crate) callback: u64,
}

/// What a client answered to a server callback.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Who answered.
    pub client: ClientId,
    /// One JSON text, unchecked.
    pub data: &'a str,
    pub(crate) callback: u64,
}

/// A subscription that a client asks for, for the on-hook.
#[derive(Clone, Copy, Debug)]
pub struct Subscription<'a> {
    /// Whose it is.
    pub client: ClientId,
    /// The path at which the event is registered.
    pub path: &'a str,
    /// What follows it in the path subscribed to, from the slash on.
    pub extra: &'a str,
    /// The extra JSON of `["path", extra]`; `null` otherwise.
    pub data: &'a str,
    pub(crate) callback: u64,
    pub(crate) id: PathId,
}

/// A subscription that has ended, for the off-hook.
#[derive(Clone, Copy, Debug)]
pub struct Unsubscribed<'a> {
    /// Whose it was.
    pub client: ClientId,
    /// The path at which the event is registered.
    pub path: &'a str,
    /// What follows it in the path subscribed to, from the slash on.
    pub extra: &'a str,
}

/// Data that an application keeps for clients of one shard. It is dropped when the client has gone.
pub type ClientData = AHashMap<ClientId, Box<dyn Any>>;

/// By which a handler, hook, callback or timer asks for things to be done. They are done in the order asked,
/// when the handler has returned; none of them waits.
pub struct Context<'a> {
    pub(crate) shard: u16,
    pub(crate) server: &'a Server,
    pub(crate) commands: &'a mut Vec<LocalCommand>,
    pub(crate) client_data: &'a mut ClientData,
    pub(crate) generations: &'a [u32],
    pub(crate) now: Duration,
    /// By which name the client's HTTP request called the server; empty where there is none.
    pub(crate) host: &'a str,
}

impl Event<'_> {
    /// Whether the client wants an answer.
    pub fn wants_answer(&self) -> bool {
        self.callback != 0
    }

    /// The whole path that the event was sent to: `path` and `extra`. What is broadcast to it reaches those who
    /// subscribed to it.
    ///
    /// ```
    /// use quickio::app::{Answer, Context, Event};
    ///
    /// fn chat(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    ///     cx.broadcast(&event.full_path(), event.data);
    ///     Answer::ok()
    /// }
    /// ```
    pub fn full_path(&self) -> Path {
        let path = [self.path, self.extra].concat();
        Path::parse(&path).expect("it was cleaned, and neither empty nor too long, when it was routed")
    }

    /// The answer to return, and the promise to answer later, from any thread.
    pub fn later(&self, cx: &Context<'_>) -> (Answer, Later) {
        (Answer::never(), Later::new(cx.server.clone(), self.reply_to()))
    }

    pub(crate) fn reply_to(&self) -> ReplyTo {
        ReplyTo { client: self.client, callback: self.callback }
    }
}

impl Reply<'_> {
    /// Whether the client wants an answer.
    pub fn wants_answer(&self) -> bool {
        self.callback != 0
    }

    /// The answer to return, and the promise to answer later, from any thread.
    pub fn later(&self, cx: &Context<'_>) -> (Answer, Later) {
        let reply_to = ReplyTo { client: self.client, callback: self.callback };
        (Answer::never(), Later::new(cx.server.clone(), reply_to))
    }
}

impl Subscription<'_> {
    /// The decision to return, and the promise to decide later, from any thread.
    pub fn later(&self, cx: &Context<'_>) -> (Decision, LaterDecision) {
        let reply_to = ReplyTo { client: self.client, callback: self.callback };
        (Decision::Later, LaterDecision::new(cx.server.clone(), reply_to, self.id))
    }
}

impl Context<'_> {
    /// The shard that this runs on, from 0.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The time since the server began, by the clock that timers go by.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The handle by which other threads reach the server.
    pub fn server(&self) -> &Server {
        self.server
    }

    /// Sends an event to all subscribers of a path, on all shards, in the order of these calls.
    pub fn broadcast(&mut self, path: &Path, data: impl Into<Json>) {
        self.push(Command::Broadcast { path: path.clone(), data: data.into() });
    }

    /// Sends an event to one client, wherever it lives. It need not be subscribed.
    pub fn send(&mut self, client: ClientId, path: &Path, data: impl Into<Json>) {
        self.push(Command::Send { client, path: path.clone(), data: data.into(), callback: None });
    }

    /// Sends an event to one client, which may answer it. `callback` runs on the client's shard.
    pub fn send_with_callback(
        &mut self,
        client: ClientId,
        path: &Path,
        data: impl Into<Json>,
        callback: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + Send + 'static,
    ) {
        let callback = Some(SendCallback::new(callback));
        self.push(Command::Send { client, path: path.clone(), data: data.into(), callback });
    }

    /// Closes a client's connection, once what was queued for it before is sent.
    pub fn close(&mut self, client: ClientId) {
        self.push(Command::Close { client });
    }

    /// Sends a client to another server, by `/qio/move`, and closes its connection.
    pub fn move_to(&mut self, client: ClientId, address: &str) {
        self.send(client, &paths::of_move(), Json::string(address));
        self.close(client);
    }

    /// Runs something once, later, on this shard.
    pub fn after(&mut self, time: Duration, run: impl FnOnce(&mut Context<'_>) + 'static) {
        self.commands.push(LocalCommand::After { time, run: Box::new(run) });
    }

    /// What this application keeps for a client of this shard, if it keeps a `T`.
    pub fn client_data<T: 'static>(&mut self, client: ClientId) -> Option<&mut T> {
        self.client_data.get_mut(&client)?.downcast_mut()
    }

    /// Keeps something for a client of this shard, in the place of what was kept before. It is dropped when
    /// the client has gone. `false`: nothing was kept, as the client has gone already or lives on another shard.
    pub fn set_client_data<T: 'static>(&mut self, client: ClientId, value: T) -> bool {
        let is_here = client.shard == self.shard
            && self.generations.get(client.slot as usize).is_some_and(|here| *here == client.generation);
        if is_here {
            self.client_data.insert(client, Box::new(value));
        }
        is_here
    }

    /// Stops to keep what this application keeps for a client of this shard, and returns it if it is a `T`.
    pub fn take_client_data<T: 'static>(&mut self, client: ClientId) -> Option<T> {
        self.client_data::<T>(client)?;
        self.client_data.remove(&client)?.downcast().ok().map(|kept| *kept)
    }

    pub(crate) fn push_local(&mut self, command: LocalCommand) {
        self.commands.push(command);
    }

    fn push(&mut self, command: Command) {
        self.commands.push(LocalCommand::Any(command));
    }
}
