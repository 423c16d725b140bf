//! The parameters of an application's functions: events, replies, subscriptions and their ends.

use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use crate::event::path::{Path, PathRef};

/// The client that waits for an answer, and the callback id under which it waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    pub client: ClientId,
    /// The client's callback id. 0: the client wants no answer.
    pub callback: u64,
}

/// An event that a client sent.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The client that sent the event.
    pub client: ClientId,
    /// The path at which the handler is registered.
    pub path: &'a str,
    /// The rest of the event's path, beginning with a slash. Empty if the event was sent to `path` itself.
    pub extra: &'a str,
    /// One JSON text, which the server has not checked. `null` if the client sent no data.
    pub data: &'a str,
    pub(crate) callback: u64,
    /// The whole path, as it was cleaned when the event was received.
    pub(crate) full_path: PathRef<'a>,
}

impl Event<'_> {
    /// Returns whether the client wants an answer.
    pub fn wants_answer(&self) -> bool {
        self.callback != 0
    }

    /// Returns the whole path that the event was sent to: `path` followed by `extra`. A broadcast to this path
    /// reaches the clients that subscribed to it.
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
        self.full_path.to_path()
    }

    pub(crate) fn reply_to(&self) -> ReplyTo {
        ReplyTo { client: self.client, callback: self.callback }
    }
}

/// A client's answer to an event or an answer that offered a server callback.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The client that answered.
    pub client: ClientId,
    /// One JSON text, which the server has not checked. `null` if the client sent no data.
    pub data: &'a str,
    pub(crate) callback: u64,
}

impl Reply<'_> {
    /// Returns whether the client wants an answer to its reply.
    pub fn wants_answer(&self) -> bool {
        self.callback != 0
    }

    pub(crate) fn reply_to(&self) -> ReplyTo {
        ReplyTo { client: self.client, callback: self.callback }
    }
}

/// A request of a client to subscribe, which an on-hook decides about.
#[derive(Clone, Copy, Debug)]
pub struct Subscription<'a> {
    /// The client that wants to subscribe.
    pub client: ClientId,
    /// The path at which the event is registered.
    pub path: &'a str,
    /// The rest of the requested path, beginning with a slash. Empty if the client subscribes to `path` itself.
    pub extra: &'a str,
    /// The extra JSON of `["path", extra]`, or `null` if the client sent only a path.
    pub data: &'a str,
    /// The options of `["path", extra, options]` as JSON, or `null` if the client sent none: the earlier events that it asks for.
    pub options: &'a str,
    pub(crate) callback: u64,
    pub(crate) id: PathId,
}

impl Subscription<'_> {
    pub(crate) fn reply_to(&self) -> ReplyTo {
        ReplyTo { client: self.client, callback: self.callback }
    }
}

/// A subscription that has ended, for an off-hook.
#[derive(Clone, Copy, Debug)]
pub struct Unsubscribed<'a> {
    /// The client that was subscribed.
    pub client: ClientId,
    /// The path at which the event is registered.
    pub path: &'a str,
    /// The rest of the path of the subscription, beginning with a slash. Empty if it was `path` itself.
    pub extra: &'a str,
}
