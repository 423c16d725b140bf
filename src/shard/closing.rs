//! How connections end: decided anywhere in a turn, carried out in one place before the turn is over.

use super::connection::{Cause, Connection, Moment, Stage, Transport};
use super::flush::RingOp;
use super::state::State;
use crate::client::ClientId;
use crate::client::subscriptions::EndedSubscription;
use crate::event::path::Path;
use crate::metrics::{Counter, Gauge};
use crate::protocol::Reason;
use crate::qev::buffers::Frame;

/// A peer that asked for nothing for so long, in milliseconds, has read what it got.
const QUIET_MS: u64 = 1000;

/// A connection that is to end, and what its peer gets.
pub(super) struct Ending {
    slot: u32,
    cause: Cause,
    /// What the protocol has found already; otherwise the session is asked.
    goodbye: Option<Goodbye>,
}

struct Goodbye {
    bytes: Vec<u8>,
    await_peer: bool,
}

impl State {
    /// Ends a connection, for our reason or because the peer has gone. Before the turn is over.
    pub fn end(&mut self, slot: u32, cause: Cause) {
        self.decide_ending(slot, cause, None);
    }

    /// Ends a connection as its protocol says.
    pub fn end_with(&mut self, slot: u32, cause: Cause, bytes: Vec<u8>, await_peer: bool) {
        self.decide_ending(slot, cause, Some(Goodbye { bytes, await_peer }));
    }

    /// Ends every connection: the server shuts down.
    pub fn end_all(&mut self) {
        let slots: Vec<u32> = self.connections.iter().map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.end(slot, Cause::Reason(Reason::GoingAway));
        }
    }

    /// Carries out what was decided. Hooks may decide more; that happens here too.
    pub fn finish_endings(&mut self) {
        while !self.endings.is_empty() {
            for ending in std::mem::take(&mut self.endings) {
                self.finish(ending);
            }
        }
    }

    /// The peer gets no more, and nothing that it sends matters: what is in flight is cancelled. Where the kernel found
    /// nothing to cancel, because it was just at it, this is done again after a while.
    pub fn abort(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.stage = Stage::Dead;
        self.metrics.gauges.sub(Gauge::OutboxBytes, connection.drop_outbox());
        if connection.receiving || connection.sending {
            self.ring_ops.push(RingOp::Cancel { token: slot, sending: connection.sending });
            self.wake_at(slot, self.ms_in(self.config.close_timeout));
        }
        self.release_if_idle(slot);
    }

    /// The peer has been told the end of our stream.
    pub fn shutdown_done(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.shutting_down = false;
        self.release_if_idle(slot);
    }

    /// Where nothing is in flight any more, the socket is closed and the record is gone.
    pub fn release_if_idle(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        if connection.stage != Stage::Dead || connection.is_under_way() {
            return;
        }
        let connection = self.connections.remove(slot as usize).expect("it was just looked at");
        if let Some(timer) = connection.timer {
            self.timers.cancel(timer);
        }
        self.shared.clients.release(1);
        self.forget_address(connection.peer);
        match connection.transport {
            Transport::Socket(socket) => {
                self.ring_ops.push(RingOp::Discard(socket));
                self.metrics.counters.add(Counter::ConnectionsClosed, 1);
            }
            Transport::HttpSession(session) => self.forget_session(session),
        }
        if self.accepts_wait {
            self.accepts_wait = false;
            self.ring_ops.push(RingOp::AcceptAgain);
        }
    }

    fn decide_ending(&mut self, slot: u32, cause: Cause, goodbye: Option<Goodbye>) {
        // What was broadcast before is before its end.
        self.fan_out();
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if connection.stage == Stage::Open {
            connection.stage = Stage::Ending;
            self.endings.push(Ending { slot, cause, goodbye });
        }
    }

    fn finish(&mut self, ending: Ending) {
        let Ending { slot, cause, goodbye } = ending;
        self.note(slot, cause);
        self.release_client(slot);
        let Some(connection) = self.connections.get(slot as usize) else { return };
        if !connection.is_socket() {
            return self.finish_session(slot, cause);
        }
        if cause == Cause::Reason(Reason::GoingAway) && connection.is_quiet(self.now) {
            return self.abort(slot);
        }
        self.abandon_requests(slot);
        if cause.is_abrupt() {
            return self.abort(slot);
        }
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if cause == Cause::Reason(Reason::SlowClient) {
            // There is no room for what it did not read, and it would not read the reason behind all that.
            self.metrics.gauges.sub(Gauge::OutboxBytes, connection.drop_outbox());
        }
        let goodbye = goodbye.unwrap_or_else(|| Goodbye::of(connection, cause));
        // A peer that has ended its stream cannot answer, but it may read what was queued before.
        let await_peer = goodbye.await_peer && connection.receiving;
        connection.stage = if await_peer { Stage::AwaitingPeer } else { Stage::Flushing };
        connection.began = self.now;
        if !goodbye.bytes.is_empty() {
            connection.outbox_bytes += goodbye.bytes.len() as u32;
            self.metrics.gauges.add(Gauge::OutboxBytes, goodbye.bytes.len() as u64);
            connection.outbox.push(Frame::new(goodbye.bytes, self.now_ns));
        }
        self.wake_at(slot, self.ms_in(self.config.close_timeout));
        self.queue_for_flush(slot);
    }

    /// Counts and logs the end: one line with the peer and the reason.
    fn note(&mut self, slot: u32, cause: Cause) {
        self.metrics.counters.add(State::counter_of(cause), 1);
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let (peer, shard) = (connection.peer, self.id);
        match cause {
            Cause::Reason(Reason::PeerClosed(code)) => {
                tracing::debug!(%peer, shard, code, "closed by the client")
            }
            Cause::Reason(Reason::GoingAway | Reason::Application | Reason::Finished) => {
                tracing::debug!(%peer, shard, reason = cause.reason().text(), "connection closed");
            }
            Cause::EndOfStream => tracing::debug!(%peer, shard, "end of stream"),
            Cause::SessionTimeout => {
                tracing::debug!(%peer, shard, "session ended: no request came for timeout")
            }
            Cause::Broken(error) => {
                let error = std::io::Error::from_raw_os_error(error);
                tracing::debug!(%peer, shard, %error, "connection lost");
            }
            Cause::TooManyOfAddress => {
                tracing::info!(%peer, shard, "connection refused: its address has connections-per-address-max");
            }
            Cause::HandshakeTimeout => tracing::info!(%peer, shard, "handshake timeout"),
            Cause::MessageTimeout => tracing::info!(%peer, shard, "message timeout"),
            Cause::LivenessTimeout => tracing::info!(%peer, shard, "nothing heard for heartbeat-timeout"),
            Cause::Reason(reason) => {
                let outbox_bytes = connection.outbox_bytes;
                tracing::info!(%peer, shard, code = reason.code(), reason = reason.text(), outbox_bytes,
                    "connection closed");
            }
        }
    }

    /// The client is gone, although its connection may still be closing: its callbacks are dropped, its
    /// subscriptions end.
    fn release_client(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let Some(client) = connection.client.take() else { return };
        // What it is subscribed to it has until now.
        self.fan_out();
        let slot = client.get();
        let Some(record) = self.clients.get_mut(slot as usize) else { return };
        let id = ClientId { shard: self.id, slot, generation: record.generation() };
        let open = record.detach() as u64;
        self.metrics.gauges.sub(Gauge::CallbacksOpen, open);
        self.leaving.push_back(id);
        self.finish_leaving();
    }

    /// Ends subscriptions of clients that have gone, with their off-hooks, and drops what applications keep for
    /// them. A client may have had a million: only so many are ended in one turn, and none while a worker that may have to be
    /// told of them does not keep up.
    pub fn finish_leaving(&mut self) {
        while let Some(id) = self.leaving.front().copied() {
            if self.leave_budget == 0 || self.links.are_full() {
                return;
            }
            if self.end_subscriptions(id) {
                self.leaving.pop_front();
                self.clients.remove(id.slot as usize);
                self.apps.runner().forget(id);
            }
        }
    }

    /// Whether none is left.
    fn end_subscriptions(&mut self, id: ClientId) -> bool {
        self.fan_out();
        let mut ended: Vec<(Path, EndedSubscription)> = Vec::new();
        let max = self.leave_budget;
        let done = self.subscriptions.close_some(id.slot, max, |path, how| ended.push((path, how)));
        self.leave_budget -= ended.len();
        self.shared.subscriptions.release(ended.len());
        for (path, how) in ended {
            if let EndedSubscription::Active { last } = how {
                self.subscription_ended(id, &path, last);
            }
        }
        done
    }
}

impl Goodbye {
    fn of(connection: &mut Connection, cause: Cause) -> Goodbye {
        if cause == Cause::EndOfStream {
            return Goodbye { bytes: Vec::new(), await_peer: false };
        }
        let close = connection.codec.close(cause.reason());
        Goodbye { bytes: close.bytes, await_peer: close.await_peer }
    }
}

impl Connection {
    /// Whether the kernel is still at something that names the socket.
    fn is_under_way(&self) -> bool {
        self.receiving || self.sending || self.shutting_down
    }

    /// Whether its peer has nothing to read any more, and says nothing: a connection of HTTP between two requests, or of
    /// which nothing has come. Closing it takes nothing from anybody.
    fn is_quiet(&self, now: Moment) -> bool {
        let is_client = self.client.is_some() || self.codec.framing().is_some();
        let waits = self.unfinished || self.codec.unanswered().next().is_some();
        let is_silent = now.since(self.received) >= QUIET_MS;
        !is_client && !waits && is_silent && self.outbox.is_empty() && !self.sending
    }

    /// Drops what waits to be sent (not what is in flight); answers its bytes.
    fn drop_outbox(&mut self) -> u64 {
        let bytes: usize = self.outbox.drain(..).map(|frame| frame.len()).sum();
        self.outbox.shrink_to_fit();
        self.outbox_bytes -= bytes as u32;
        bytes as u64
    }
}
