//! The requests of back ends: broadcasts, and what they ask of clients.

use super::api_queue::ActionInProgress;
use super::mesh::THREADS;
use super::state::State;
use crate::api::{ApiMessage, ApiReply, Batch};
use crate::app::Json;
use crate::limits::{API_DELIVERIES_PER_TURN_MAX, API_EVENTS_PER_TURN_MAX, API_MESSAGES_MAX};
use crate::metrics::Counter;
use crate::qev::inbox::Inbox;

#[cfg(test)]
mod tests;

/// The work that the server API may cause in the rest of a turn.
struct TurnShare {
    events: usize,
    deliveries: usize,
}

impl State {
    /// Receives the messages of the server API, unless earlier ones are not done yet: the inbox gets full meanwhile.
    ///
    /// A back end may act because a client has been told that it is subscribed on another shard. Messages are therefore
    /// received before the mesh is drained, and handled after it.
    #[inline]
    pub fn gather_api_messages(&mut self, inbox: &mut Inbox<ApiMessage>) {
        if self.api.is_empty() {
            let queue = &mut self.api;
            let received = inbox.receive(API_MESSAGES_MAX, |message| queue.push(message));
            self.has_found |= received > 0;
        }
    }

    /// Returns whether messages of the server API can be handled.
    #[inline]
    pub fn has_api_work(&self) -> bool {
        !self.api.is_empty() && (!self.api.is_blocked() || !self.mesh.has_overflow())
    }

    /// Handles messages of the server API, as far as this turn permits.
    #[inline]
    pub fn handle_api_messages(&mut self) {
        if !self.api.is_empty() {
            self.handle_some_api_messages();
        }
    }

    fn handle_some_api_messages(&mut self) {
        let mut share =
            TurnShare { events: API_EVENTS_PER_TURN_MAX, deliveries: API_DELIVERIES_PER_TURN_MAX };
        while share.events > 0 && share.deliveries > 0 {
            if let Some(action) = self.api.take_action() {
                if self.go_on_with(action, &mut share.events) {
                    continue;
                }
                return;
            }
            let Some((message, done)) = self.api.pop() else { return };
            match message {
                ApiMessage::Broadcast(batch) => {
                    let done = self.broadcast_some(&batch, done, &mut share);
                    if done < batch.len() {
                        let is_blocked = share.events > 0 && share.deliveries > 0;
                        return self.api.put_back(batch, done, is_blocked);
                    }
                }
                ApiMessage::Ask(question) => {
                    self.mesh.begin(THREADS);
                    let read = self.answer_api(*question);
                    share.events = share.events.saturating_sub(1 + read);
                }
            }
        }
    }

    /// Does something to the next connections of a target, as far as this turn and the other shards permit. Returns whether it was
    /// done to all of them.
    fn go_on_with(&mut self, mut action: ActionInProgress, left: &mut usize) -> bool {
        while *left > 0 && !self.mesh.is_over(THREADS) {
            let Some(client) = action.clients.next() else {
                let done = ApiReply::Done { clients: action.done, refused: action.refused };
                // The API may have given up.
                drop(action.reply.try_send((self.mesh.shard(), done)));
                return true;
            };
            self.mesh.begin(THREADS);
            *left -= 1;
            if self.is_here(client) {
                action.done += 1;
                action.refused += usize::from(!self.act(client, &action.action));
            }
        }
        self.api.put_action(action, *left > 0);
        false
    }

    /// Broadcasts the events of a batch from number `done` on, as far as this turn and the other shards permit. Returns the
    /// number of events that were broadcast.
    fn broadcast_some(&mut self, batch: &Batch, mut done: usize, share: &mut TurnShare) -> usize {
        while done < batch.len() && share.events > 0 && share.deliveries > 0 && !self.mesh.is_over(THREADS) {
            let (path, data) = batch.event(done);
            let id = self.pubsub.find(path);
            // The event is not refused: a shard that is behind delays it. This shard numbers the events of the path.
            if id.is_some_and(|id| self.pubsub.remote(id).any(|shard| self.mesh.is_full(shard))) {
                break;
            }
            match id {
                Some(id) => {
                    self.mesh.begin(THREADS);
                    share.deliveries = share.deliveries.saturating_sub(self.pubsub.subscribers(id));
                    let path = self.pubsub.path(id).clone();
                    self.broadcast(&path, Json::trusted(data));
                }
                // The event is kept, although nobody gets it now.
                None if self.access.has_history() && self.history_rule(path).is_some() => {
                    self.mesh.begin(THREADS);
                    self.broadcast(&path.to_path(), Json::trusted(data));
                }
                None => self.count(Counter::Broadcasts, 1),
            }
            share.events -= 1;
            done += 1;
        }
        done
    }
}
