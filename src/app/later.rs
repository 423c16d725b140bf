//! Answers and decisions that are given later, and the handle by which any thread reaches the server.

use super::answer::{Answer, Decision, SendCallback};
use super::command::{Command, ReplyTo};
use super::json::Json;
use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// How commands reach shards from any thread. The server implements it.
pub trait Post: Send + Sync {
    /// Leaves a command of application number `app` for the shard that it concerns. Never waits; gives the command
    /// back where the shard's inbox is full.
    fn post(&self, app: u32, command: Command) -> Result<(), Command>;
}

/// A shard's inbox is full (`inbox-messages-max`): nothing was done. Try again later, or tell the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the shard's inbox is full")]
pub struct Busy;

/// The server, for applications' own threads. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    post: Arc<dyn Post>,
    /// Whose handle it is: callbacks that are offered by it run as this application's.
    app: u32,
}

impl Server {
    /// A handle that posts by `post`, of the server's own application.
    pub fn new(post: Arc<dyn Post>) -> Server {
        Server { post, app: 0 }
    }

    /// The number of the application whose handle it is.
    pub(crate) fn app(&self) -> u32 {
        self.app
    }

    /// The same handle, of application number `app`.
    pub(crate) fn of_app(&self, app: u32) -> Server {
        Server { post: Arc::clone(&self.post), app }
    }

    fn post(&self, command: Command) -> Result<(), Busy> {
        self.try_post(command).map_err(|_| Busy)
    }

    fn try_post(&self, command: Command) -> Result<(), Command> {
        self.post.post(self.app, command)
    }

    /// Sends an event to all subscribers of a path.
    pub fn broadcast(&self, path: &Path, data: impl Into<Json>) -> Result<(), Busy> {
        self.post(Command::Broadcast { path: path.clone(), data: data.into() })
    }

    /// Sends an event to one client. A client that has gone gets nothing, and nobody is told.
    pub fn send(&self, client: ClientId, path: &Path, data: impl Into<Json>) -> Result<(), Busy> {
        self.post(Command::Send { client, path: path.clone(), data: data.into(), callback: None })
    }

    /// Sends an event to one client, which may answer it. `callback` runs on the client's shard.
    pub fn send_with_callback(
        &self,
        client: ClientId,
        path: &Path,
        data: impl Into<Json>,
        callback: SendCallback,
    ) -> Result<(), Busy> {
        let callback = Some(callback);
        self.post(Command::Send { client, path: path.clone(), data: data.into(), callback })
    }

    /// Closes a client's connection, once what was queued for it before is sent.
    pub fn close(&self, client: ClientId) -> Result<(), Busy> {
        self.post(Command::Close { client })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

/// The promise to answer an event. Dropped unkept it answers 500.
#[derive(Debug)]
pub struct Later {
    server: Server,
    reply_to: Option<ReplyTo>,
}

impl Later {
    pub(crate) fn new(server: Server, reply_to: ReplyTo) -> Later {
        Later { server, reply_to: Some(reply_to) }
    }

    /// Who waits for the answer.
    pub fn client(&self) -> ClientId {
        self.reply_to.expect("only answering takes it, and consumes the promise").client
    }

    /// Answers, from any thread. Where the client has gone the answer is dropped, and counted.
    ///
    /// # Errors
    ///
    /// The shard's inbox is full: promise and answer come back, to be tried again later.
    pub fn answer(mut self, answer: Answer<SendCallback>) -> Result<(), Unanswered> {
        let reply_to = self.reply_to.take().expect("only answering takes it, and consumes the promise");
        match self.server.try_post(Command::Answer { reply_to, answer }) {
            Err(Command::Answer { reply_to, answer }) => {
                self.reply_to = Some(reply_to);
                Err(Unanswered { later: self, answer })
            }
            _ => Ok(()),
        }
    }
}

/// An answer that the shard's inbox had no room for (`inbox-messages-max`), and the promise that it would have kept.
#[derive(Debug, Error)]
#[error("the shard's inbox is full: the answer was not given")]
pub struct Unanswered {
    /// The promise, still to be kept.
    pub later: Later,
    /// The answer.
    pub answer: Answer<SendCallback>,
}

impl Drop for Later {
    fn drop(&mut self) {
        if let Some(reply_to) = self.reply_to.take() {
            let answer = Answer::refusal(500, None);
            // A full inbox here means that the client waits in vain; the inbox has counted it.
            let _ = self.server.post(Command::Answer { reply_to, answer });
        }
    }
}

/// The promise to decide about a subscription. Dropped unkept it refuses.
#[derive(Debug)]
pub struct LaterDecision {
    server: Server,
    pending: Option<(ReplyTo, PathId)>,
}

impl LaterDecision {
    pub(crate) fn new(server: Server, reply_to: ReplyTo, path: PathId) -> LaterDecision {
        LaterDecision { server, pending: Some((reply_to, path)) }
    }

    /// Who waits for the decision.
    pub fn client(&self) -> ClientId {
        self.pending.expect("only deciding takes it, and consumes the promise").0.client
    }

    /// Accepts (`true`) or refuses, from any thread.
    ///
    /// # Errors
    ///
    /// The shard's inbox is full (`inbox-messages-max`): the promise comes back, to be kept later.
    pub fn decide(mut self, accepted: bool) -> Result<(), LaterDecision> {
        let pending = self.pending.take();
        match pending.map_or(Ok(()), |pending| self.post(pending, accepted)) {
            Ok(()) => Ok(()),
            Err(Busy) => {
                self.pending = pending;
                Err(self)
            }
        }
    }

    fn post(&self, (reply_to, path): (ReplyTo, PathId), accepted: bool) -> Result<(), Busy> {
        let decision = if accepted { Decision::Accept } else { Decision::Refuse };
        self.server.post(Command::Decide { reply_to, path, decision })
    }
}

impl Drop for LaterDecision {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            // As with an answer: the client waits in vain where the inbox is full, and the inbox has counted it.
            let _ = self.post(pending, false);
        }
    }
}
