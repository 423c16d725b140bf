//! The messages of the server API that a shard has received and not handled yet.

use crate::api::{ApiAction, ApiMessage, ApiReply, Batch};
use crate::client::ClientId;
use futures_channel::mpsc;
use std::collections::VecDeque;

/// Something that is being done to the connections of a target, to a part of them in each turn.
pub(super) struct ActionInProgress {
    /// The clients to whom it was not done yet. Some may have disconnected.
    pub clients: std::vec::IntoIter<ClientId>,
    pub action: ApiAction,
    /// The number of clients to whom it was done, and of those who were not permitted to subscribe.
    pub done: usize,
    pub refused: usize,
    pub reply: mpsc::Sender<(u16, ApiReply)>,
}

/// The messages of the server API that are being handled, in order. A batch of events, and what is done to all connections of a
/// user, may take several turns.
///
/// Invariants: `done` is less than the number of events of the first message if that is a batch, and 0 otherwise. While
/// something is being done to connections, no batch is begun.
#[derive(Default)]
pub(super) struct ApiQueue {
    /// The work that is done before the messages.
    action: Option<ActionInProgress>,
    messages: VecDeque<ApiMessage>,
    /// The number of events of the first batch that were broadcast.
    done: usize,
    /// The other shards are behind, so that what is first must wait for them.
    is_blocked: bool,
}

impl ApiQueue {
    /// Returns whether no message waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.action.is_none()
    }

    /// Returns whether what is first waits for other shards.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Adds a message that was received.
    pub fn push(&mut self, message: ApiMessage) {
        let is_nothing = matches!(&message, ApiMessage::Broadcast(batch) if batch.is_empty());
        if !is_nothing {
            self.messages.push_back(message);
        }
    }

    /// Removes the first message, and returns it with the number of its events that were broadcast already.
    pub fn pop(&mut self) -> Option<(ApiMessage, usize)> {
        self.is_blocked = false;
        let message = self.messages.pop_front()?;
        Some((message, std::mem::take(&mut self.done)))
    }

    /// Puts a batch back, of which this many events, and not all, were broadcast. `is_blocked` tells that it has to wait for
    /// other shards.
    pub fn put_back(&mut self, batch: Batch, done: usize, is_blocked: bool) {
        self.is_blocked = is_blocked;
        self.messages.push_front(ApiMessage::Broadcast(batch));
        self.done = done;
    }

    /// Takes what is being done to connections.
    pub fn take_action(&mut self) -> Option<ActionInProgress> {
        let action = self.action.take();
        self.is_blocked &= action.is_none();
        action
    }

    /// Goes on with this before the messages that wait. `is_blocked` tells that it has to wait for other shards.
    pub fn put_action(&mut self, action: ActionInProgress, is_blocked: bool) {
        self.is_blocked = is_blocked;
        self.action = Some(action);
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        let events = match self.messages.front() {
            Some(ApiMessage::Broadcast(batch)) => batch.len(),
            Some(ApiMessage::Ask(_)) | None => 1,
        };
        assert!(self.done < events, "{} of {events} events were broadcast, and the batch waits", self.done);
        assert!(!self.is_empty() || !self.is_blocked, "nothing waits for other shards");
        assert!(!self.is_empty() || self.done == 0, "events of no batch were broadcast");
        assert!(self.action.is_none() || self.done == 0, "a batch was begun before something else was done");
    }
}
