//! Promises: answers and decisions that are given later, from any thread.

use super::event::{Event, Reply, ReplyTo, Subscription};
use super::server::Busy;
use super::types::{Answer, Command, Context, Decision, SendCallback, Server};
use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use std::time::Instant;
use thiserror::Error;

impl Event<'_> {
    /// Defers the answer. Returns the value that the handler must return, and a promise with which any thread can
    /// answer later.
    pub fn later(&self, cx: &Context<'_>) -> (Answer, Later) {
        (Answer::never(), Later::new(cx.server.clone(), self.reply_to()))
    }
}

impl Reply<'_> {
    /// Defers the answer. Returns the value that the callback must return, and a promise with which any thread can
    /// answer later.
    pub fn later(&self, cx: &Context<'_>) -> (Answer, Later) {
        (Answer::never(), Later::new(cx.server.clone(), self.reply_to()))
    }
}

impl Subscription<'_> {
    /// Defers the decision. Returns the value that the on-hook must return, and a promise with which any thread can
    /// decide later.
    pub fn later(&self, cx: &Context<'_>) -> (Decision, LaterDecision) {
        (Decision::Later, LaterDecision::new(cx.server.clone(), self.reply_to(), self.id))
    }
}

/// A promise to answer an event. Dropping it without an answer answers 500.
#[derive(Debug)]
pub struct Later {
    server: Server,
    promised: Instant,
    /// `None` once the promise has been kept, which consumes it.
    reply_to: Option<ReplyTo>,
}

impl Later {
    pub(crate) fn new(server: Server, reply_to: ReplyTo) -> Later {
        Later { server, promised: Instant::now(), reply_to: Some(reply_to) }
    }

    /// Returns the client that waits for the answer.
    pub fn client(&self) -> ClientId {
        self.reply_to.expect("a promise that was not consumed has its client").client
    }

    /// Drops the promise without an answer, because the event gets another one.
    pub(crate) fn forget(mut self) {
        self.reply_to = None;
    }

    /// Answers the event. If the client has disconnected, the answer is dropped and counted.
    ///
    /// # Errors
    ///
    /// The inbox of the client's shard is full. The error returns the promise and the answer. Try again later.
    #[expect(
        clippy::result_large_err,
        reason = "the error gives back what the caller has passed, and is rare"
    )]
    pub fn answer(mut self, answer: Answer<SendCallback>) -> Result<(), Unanswered> {
        let reply_to = self.reply_to.take().expect("a promise that was not consumed has its client");
        let promised = self.promised;
        match self.server.try_post(Command::Answer { reply_to, answer, promised }) {
            Err(Command::Answer { reply_to, answer, .. }) => {
                self.reply_to = Some(reply_to);
                Err(Unanswered { later: self, answer })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        if let Some(reply_to) = self.reply_to.take() {
            let answer = Answer::refusal(500, None);
            // If the inbox is full, the client never receives an answer. The inbox has counted the refusal.
            let _ = self.server.post(Command::Answer { reply_to, answer, promised: self.promised });
        }
    }
}

/// The error of an answer that did not fit into the inbox of the client's shard (`inbox-messages-max`).
#[derive(Debug, Error)]
#[error("the shard's inbox is full: the answer was not given")]
pub struct Unanswered {
    /// The promise, which is still to be kept.
    pub later: Later,
    /// The answer that was not given.
    pub answer: Answer<SendCallback>,
}

/// A promise to decide about a subscription. Dropping it without a decision refuses the subscription.
#[derive(Debug)]
pub struct LaterDecision {
    server: Server,
    promised: Instant,
    /// `None` once the promise has been kept, which consumes it.
    pending: Option<(ReplyTo, PathId)>,
}

impl LaterDecision {
    pub(crate) fn new(server: Server, reply_to: ReplyTo, path: PathId) -> LaterDecision {
        LaterDecision { server, promised: Instant::now(), pending: Some((reply_to, path)) }
    }

    /// Returns the client that waits for the decision.
    pub fn client(&self) -> ClientId {
        self.pending.expect("a promise that was not consumed has its client").0.client
    }

    /// Drops the promise without a decision, because another one is made.
    pub(crate) fn forget(mut self) {
        self.pending = None;
    }

    /// Accepts (`true`) or refuses (`false`) the subscription.
    ///
    /// # Errors
    ///
    /// The inbox of the client's shard is full (`inbox-messages-max`). The error is the promise. Try again later.
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
        self.server.post(Command::Decide { reply_to, path, decision, promised: Some(self.promised) })
    }
}

impl Drop for LaterDecision {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            // If the inbox is full, the client never receives a decision. The inbox has counted the refusal.
            let _ = self.post(pending, false);
        }
    }
}
