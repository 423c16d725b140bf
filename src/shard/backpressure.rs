//! Back-pressure: a shard does not listen to a peer that has caused more than its share of the messages that wait for other
//! shards.
//!
//! Messages to a shard that is behind overflow (`qev::mesh`). Each of them is charged to its source: a connection, a link
//! to a worker, the applications' threads, or timers. A source beyond its share is kept from causing more:
//!
//! | source | means |
//! | --- | --- |
//! | connection | its receive is cancelled, and what had been received until then is held |
//! | HTTP session | its requests are held; a few, the others are answered 429 |
//! | link to a worker | as a connection |
//! | threads of applications | their commands stay in the inbox, which gets full: `Busy` |
//! | timers of applications | they are postponed |
//!
//! All go on when half of their share has been delivered. Nothing is lost, and the peer notices nothing but a socket that is
//! not read. What cannot be held back is what a single event, callback, hook or timer causes at once. If that exceeds
//! `mesh-overflow-bytes-max`, the rest is refused as a whole: it reaches nobody, its client is answered 420, and it is
//! counted and logged.

#[cfg(test)]
mod tests;

use super::codecs::Codecs;
use super::connection::{Input, Stage};
use super::connections::connection_of_source;
use super::held::{HELD_BYTES_MAX, Piece};
use super::kernel::RingOp;
use super::link_table::{link_of_source, source_of_link, token};
use super::mesh::{THREADS, TIMERS};
use super::refusal_texts::BUSY;
use super::state::State;
use crate::app::{Answer, AnswerState};
use crate::event::path::Path;
use crate::log::throttle;
use crate::metrics::Counter;
use crate::qev::mesh::LoadSource;
use crate::qev::ring::Errno;

/// The number of sources that are examined in one turn.
const EXAMINED_PER_TURN_MAX: usize = 256;

/// The time after which a due timer of a connection is examined again if the shard does not listen to the connection, and
/// the time by which timers of applications are postponed, in milliseconds.
pub(super) const POSTPONED_MS: u64 = 10;

impl State {
    /// Returns whether a connection's input, or a session's requests, are held.
    pub fn is_held(&self, slot: u32) -> bool {
        !self.held.is_empty() && self.held.has(self.connections.source(slot))
    }

    /// Stops listening to a connection if it has caused more than its share of the messages that wait.
    #[inline]
    pub fn pause_if_over(&mut self, slot: u32) {
        if !self.mesh.has_overflow() {
            return;
        }
        let source = self.connections.source(slot);
        let connection = self.connections.live_mut(slot);
        if connection.stage != Stage::Open || connection.input == Input::Ended || !self.mesh.is_over(source) {
            return;
        }
        self.cancel_receive(slot, Input::Cancelling);
        if self.held.add(source) {
            self.count(Counter::InputsPaused, 1);
        }
    }

    /// Cancels what waits for a connection's input, if that was not done for another reason: `reason`, which is the state
    /// until the cancellation has completed.
    pub fn cancel_receive(&mut self, slot: u32, reason: Input) {
        let connection = self.connections.live_mut(slot);
        match connection.input {
            Input::Armed | Input::Dormant => self.ring_ops.push(RingOp::CancelReceive(slot)),
            // The cancellation of a retiring connection is under way.
            Input::Retiring => {}
            Input::Cancelling | Input::Stopping | Input::Paused | Input::Ended => return,
        }
        connection.input = reason;
    }

    /// Receives from a connection again, or once the shard listens to it again.
    pub fn receive_again(&mut self, slot: u32) {
        let is_held = self.is_held(slot);
        let connection = self.connections.live_mut(slot);
        connection.input = if is_held { Input::Paused } else { Input::Armed };
        if !is_held {
            self.ring_ops.extend(connection.socket().map(|socket| RingOp::Receive(socket, slot)));
        }
    }

    /// Holds bytes from a connection; returns `false` if they must be handled now.
    pub fn hold_received(&mut self, codecs: &mut Codecs, slot: u32, data: &[u8]) -> bool {
        let source = self.connections.source(slot);
        if !self.held.has(source) {
            return false;
        }
        if self.held.bytes() >= HELD_BYTES_MAX {
            self.listen_again(codecs, slot);
            return false;
        }
        self.held.push(source, Piece::Bytes(data.into()));
        true
    }

    /// Holds the end of a connection's input; returns `false` if it must be handled now.
    pub fn hold_end(&mut self, slot: u32, result: Result<(), Errno>) -> bool {
        let source = self.connections.source(slot);
        let is_held = self.held.has(source);
        if is_held {
            self.held.push(source, Piece::End(result));
        }
        is_held
    }

    /// Handles everything that is held of a connection, and listens to it again. If a piece of it is being handled, the
    /// others follow later, because they are behind it.
    pub fn listen_again(&mut self, codecs: &mut Codecs, slot: u32) {
        let source = self.connections.source(slot);
        if self.held.is_handled(source) {
            return;
        }
        let Some(pieces) = self.held.remove(source) else { return };
        for piece in pieces {
            if !self.is_source_live(source) {
                return;
            }
            self.handle_piece(codecs, source, piece);
        }
        self.rearm(source);
    }

    /// Listens again to sources whose messages have been delivered, and handles what is held of them.
    pub fn listen_to_sources_again(&mut self, codecs: &mut Codecs) {
        for _ in 0..self.held.len().min(EXAMINED_PER_TURN_MAX) {
            let Some(source) = self.held.next() else { return };
            if self.may_listen_to(source) {
                self.resume(codecs, source);
            } else {
                self.held.put_back(source);
            }
        }
    }

    /// Returns whether a source that is held can be listened to now.
    pub fn has_source_to_listen_to(&self) -> bool {
        self.held.front().is_some_and(|source| self.may_listen_to(source))
    }

    fn may_listen_to(&self, source: LoadSource) -> bool {
        self.mesh.may_resume(source)
    }

    /// Handles what is held of a source, until it is beyond its share again. If nothing is left, it is listened to. If a
    /// piece has ended the connection, the end decides about the others.
    fn resume(&mut self, codecs: &mut Codecs, source: LoadSource) {
        while let Some(piece) = self.held.pop(source) {
            self.held.set_handled(Some(source));
            self.handle_piece(codecs, source, piece);
            self.held.set_handled(None);
            if !self.held.has(source) {
                return;
            }
            match connection_of_source(source).map(|(slot, _)| (slot, self.connections.live(slot).stage)) {
                Some((_, Stage::Ending)) => return self.held.put_back(source),
                Some((slot, Stage::AwaitingPeer | Stage::Flushing)) => {
                    return self.listen_again(codecs, slot);
                }
                _ => {}
            }
            if self.mesh.is_over(source) {
                return self.held.put_back(source);
            }
        }
        self.held.remove(source);
        self.rearm(source);
    }

    fn handle_piece(&mut self, codecs: &mut Codecs, source: LoadSource, piece: Piece) {
        match (connection_of_source(source), link_of_source(source), piece) {
            (Some((slot, _)), _, Piece::Bytes(mut bytes)) => self.handle_input(codecs, slot, &mut bytes),
            (Some((slot, _)), _, Piece::End(result)) => self.handle_end_of_input(codecs, slot, result),
            (Some((slot, _)), _, Piece::Request(request)) => self.poll_held(slot, request),
            (None, Some(index), Piece::Bytes(bytes)) => self.handle_link_input(index, &bytes),
            (None, ..) => unreachable!("{source:?} has no such input"),
        }
    }

    /// Returns whether the connection or link that is a source still exists.
    pub fn is_source_live(&self, source: LoadSource) -> bool {
        match connection_of_source(source) {
            Some((slot, generation)) => self.connections.get_of(slot, generation).is_some(),
            None => true,
        }
    }

    /// Arms the receive of a source that is no longer held, unless its cancellation has not completed: then its
    /// completion does that. The peer was not listened to, and gets as much time as if it had just been heard.
    fn rearm(&mut self, source: LoadSource) {
        if let Some(index) = link_of_source(source) {
            let end = self.links.live_mut(index);
            end.link.set_paused(false);
            end.sent_ms = self.time.now_ms();
            if end.input == Input::Paused {
                self.receive_from_link_again(index);
            }
            return;
        }
        let Some((slot, _)) = connection_of_source(source).filter(|_| self.is_source_live(source)) else {
            return;
        };
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        connection.heard(now);
        if connection.stage == Stage::Open {
            connection.began = now;
        }
        if connection.input == Input::Paused {
            self.receive_again(slot);
        }
    }

    // Links to workers.

    /// Stops listening to a worker if it has caused more than its share of the messages that wait.
    pub fn pause_link_if_over(&mut self, index: u32) {
        let source = source_of_link(index);
        if !self.mesh.has_overflow() || !self.mesh.is_over(source) {
            return;
        }
        let end = self.links.live_mut(index);
        // The input of a worker that has ended is finite.
        if end.input != Input::Armed || end.left_ms.is_some() {
            return;
        }
        end.input = Input::Cancelling;
        end.link.set_paused(true);
        self.ring_ops.push(RingOp::CancelReceive(token(index)));
        if self.held.add(source) {
            self.count(Counter::InputsPaused, 1);
        }
    }

    /// Receives from a worker again, or once the shard listens to it again.
    pub fn receive_from_link_again(&mut self, index: u32) {
        let is_held = self.held.has(source_of_link(index));
        let end = self.links.live_mut(index);
        end.input = if is_held { Input::Paused } else { Input::Armed };
        let socket = end.socket();
        if !is_held {
            self.ring_ops.push(RingOp::Receive(socket, token(index)));
        }
    }

    /// Holds bytes from a worker; returns `false` if they must be handled now.
    pub fn hold_received_from_link(&mut self, index: u32, data: &[u8]) -> bool {
        let source = source_of_link(index);
        if !self.held.has(source) {
            return false;
        }
        if self.held.bytes() >= HELD_BYTES_MAX {
            self.handle_held_of_link(index);
            self.rearm(source);
            return false;
        }
        self.held.push(source, Piece::Bytes(data.into()));
        true
    }

    /// Handles everything that is held of a worker.
    pub fn handle_held_of_link(&mut self, index: u32) {
        for piece in self.held.remove(source_of_link(index)).into_iter().flatten() {
            match piece {
                Piece::Bytes(bytes) => self.handle_link_input(index, &bytes),
                Piece::End(_) | Piece::Request(_) => unreachable!("only bytes of links are held"),
            }
        }
    }

    /// Listens again to the workers that have ended: what they have sent is finite.
    pub fn listen_to_links_that_left(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let left: Vec<u32> =
            self.links.left().filter(|index| self.held.has(source_of_link(*index))).collect();
        for index in left {
            self.handle_held_of_link(index);
            self.rearm(source_of_link(index));
        }
    }

    // Threads and timers of applications.

    /// Returns whether commands of threads must stay in their inbox.
    pub fn threads_must_wait(&self) -> bool {
        !self.app_commands.is_empty() || self.mesh.is_over(THREADS)
    }

    /// Returns whether timers of applications must wait.
    pub fn timers_must_wait(&self) -> bool {
        self.mesh.is_over(TIMERS)
    }

    // Refusals.

    /// Refuses a broadcast or an event, because too much waits for another shard.
    pub fn refuse_message(&mut self, to: u16) {
        self.count(Counter::MeshRefused, 1);
        self.mesh.refuse(to);
    }

    /// Refuses a broadcast or event of an application whose data is not JSON: it would break the connections of others.
    pub fn refuse_data(&mut self, path: &Path) {
        self.count(Counter::DataRefused, 1);
        self.has_refused_data = true;
        let shard = self.mesh.shard();
        throttle!(warn, "invalid JSON", shard, %path,
            "an application sent data that is not JSON; it was dropped. Data of clients has to be checked");
    }

    /// Returns the answer to an event; or 420 if something that the event has caused was refused, or 400 if it was not JSON.
    #[inline]
    pub fn answer_or_refusal(&mut self, answer: Answer) -> Answer {
        if std::mem::take(&mut self.has_refused_data)
            && matches!(answer.0, AnswerState::Ready { code: 200, .. })
        {
            return Answer::error(400, "invalid json");
        }
        if !self.mesh.take_refusal() || !matches!(answer.0, AnswerState::Ready { code: 200, .. }) {
            return answer;
        }
        Answer::error(420, BUSY)
    }

    /// Asserts that the held sources and the connections agree.
    pub fn check_held(&self) {
        self.held.check();
        let mut paused = 0;
        for (slot, connection) in self.connections.iter().filter(|(_, connection)| connection.is_paused()) {
            let is_held = self.held.has(self.connections.source(slot));
            assert!(is_held || connection.input == Input::Cancelling, "connection {slot} is paused for ever");
            paused += usize::from(is_held);
        }
        for source in self.held.sources() {
            let Some((slot, generation)) = connection_of_source(source) else { continue };
            let connection = self.connections.get_of(slot, generation);
            let connection =
                connection.unwrap_or_else(|| panic!("{source:?} is held, but has been released"));
            // An end that was decided because of a full outbox may be carried out in a later turn.
            let is_open = matches!(connection.stage, Stage::Open | Stage::Ending);
            assert!(is_open, "connection {slot} is held, but has ended");
            let is_heard = matches!(connection.input, Input::Armed | Input::Retiring | Input::Dormant);
            assert!(!is_heard, "connection {slot} is held, but listened to");
            paused -= usize::from(connection.is_paused());
        }
        assert_eq!(paused, 0, "each connection that is paused is held once");
    }
}
