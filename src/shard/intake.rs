//! What the kernel brings: connections, bytes, ends of streams, sends that are done.

use super::connection::{Cause, Client, ClientSlot, Connection, Stage};
use super::flush::RingOp;
use super::state::State;
use crate::metrics::{Counter, Gauge, Timing};
use crate::protocol::Reason;
use crate::protocol::{Close, Codec, Framing, Incoming, Options};
use crate::qev::ring::{Descriptor, Errno, FrameBatch, PeerAddress};
use std::rc::Rc;

impl State {
    /// A connection was accepted.
    pub fn accepted(&mut self, socket: Descriptor, peer: PeerAddress) {
        self.metrics.counters.add(Counter::ConnectionsAccepted, 1);
        if self.shutdown.is_some() {
            return self.ring_ops.push(RingOp::Discard(socket));
        }
        if self.shared.clients.acquire(0).is_err() {
            self.metrics.counters.add(Counter::ConnectionsRefusedLimit, 1);
            tracing::info!(%peer, "connection refused: clients-max are connected");
            self.ring_ops.push(RingOp::Discard(socket));
            return;
        }
        let generation = self.next_generation();
        let options = Options { echo: self.config.echo };
        let connection = Connection::new(socket, peer, generation, options, self.now);
        let slot = self.connections.insert(connection) as u32;
        self.ring_ops.push(RingOp::Receive(socket, slot));
        self.wake_at(slot, self.ms_in(self.config.timeout));
        self.count_address(slot, generation, peer);
    }

    /// The kernel could not accept. Unless only that one connection was at fault, accepting waits for better times.
    pub fn accept_failed(&mut self, error: Errno) {
        if error.is_exhaustion() {
            self.metrics.counters.add(Counter::ConnectionsRefusedDescriptors, 1);
            return self.wait_to_accept(error);
        }
        self.metrics.counters.add(Counter::AcceptErrors, 1);
        if error.affects_one_connection() {
            self.ring_ops.push(RingOp::AcceptAgain);
        } else {
            self.wait_to_accept(error);
        }
    }

    /// Bytes came from a peer. `ended`: the kernel has ended the receive, which must be begun again.
    pub fn received(&mut self, slot: u32, data: &mut [u8], ended: bool) {
        self.metrics.counters.add(Counter::BytesReceived, data.len() as u64);
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.received = self.now;
        connection.challenged = false;
        if ended && connection.stage == Stage::Dead {
            connection.receiving = false;
            return self.release_if_idle(slot);
        }
        if ended {
            self.ring_ops.extend(connection.socket().map(|socket| RingOp::Receive(socket, slot)));
        }
        if connection.stage == Stage::Ending {
            self.finish_endings();
        }
        self.decode(slot, data);
    }

    /// A receive ended without data.
    pub fn receive_ended(&mut self, slot: u32, result: Result<(), Errno>) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        match result {
            Err(error) if error.is_no_buffers() && connection.stage < Stage::Dead => {
                self.metrics.counters.add(Counter::BuffersExhausted, 1);
                self.ring_ops.extend(connection.socket().map(|socket| RingOp::Receive(socket, slot)));
            }
            Err(error) => {
                connection.receiving = false;
                self.end_of_input(slot, Cause::Broken(error.0));
            }
            Ok(()) => {
                connection.receiving = false;
                self.end_of_input(slot, Cause::EndOfStream);
            }
        }
    }

    /// A send is done: its latencies are recorded, and what has come meanwhile may go.
    pub fn sent(&mut self, slot: u32, result: Result<(), Errno>, frames: &FrameBatch) {
        let bytes = frames.len();
        self.metrics.gauges.sub(Gauge::OutboxBytes, bytes as u64);
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.sending = false;
        connection.outbox_bytes -= bytes as u32;
        match result {
            Ok(()) => {
                self.metrics.counters.add(Counter::BytesSent, bytes as u64);
                self.record_sent(frames);
                self.queue_for_flush(slot);
                self.release_if_idle(slot);
            }
            Err(error) => {
                self.metrics.counters.add(Counter::SendErrors, 1);
                self.end_of_input(slot, Cause::Broken(error.0));
            }
        }
    }

    /// Decodes what came. Where that ends the connection, the rest is looked at for the peer's Close.
    fn decode(&mut self, slot: u32, mut data: &mut [u8]) {
        while let Some(mut codec) = self.lend_codec(slot) {
            let decoded = self.decode_with(slot, &mut codec, data);
            self.give_back(slot, codec, &decoded);
            if self.connections.get(slot as usize).is_none_or(|c| c.stage != Stage::Ending) {
                return;
            }
            self.finish_endings();
            data = &mut data[decoded.consumed..];
        }
    }

    fn lend_codec(&mut self, slot: u32) -> Option<Codec> {
        let connection = self.connections.get_mut(slot as usize)?;
        let decodes = matches!(connection.stage, Stage::Open | Stage::AwaitingPeer);
        decodes.then(|| std::mem::take(&mut connection.codec))
    }

    fn decode_with(&mut self, slot: u32, codec: &mut Codec, data: &mut [u8]) -> Decoded {
        let settings = Rc::clone(&self.settings);
        let mut decoded = Decoded { consumed: 0, was_idle: false, was_open: codec.is_open() };
        loop {
            let step = codec.decode(&mut data[decoded.consumed..], &settings);
            decoded.consumed += step.consumed;
            match step.incoming {
                Incoming::Incomplete => return decoded,
                Incoming::Event(text) => self.dispatch(slot, text),
                Incoming::Reply(bytes) => self.queue_bytes(slot, bytes),
                Incoming::Open(bytes) => {
                    self.queue_bytes(slot, bytes);
                    let framing = codec.framing().expect("a session that is open knows its protocol");
                    self.open(slot, framing);
                }
                Incoming::Close(Close { bytes, reason, await_peer }) => {
                    self.end_with(slot, Cause::Reason(reason), bytes, await_peer);
                }
                Incoming::Closed => {
                    self.peer_closed(slot);
                    return decoded;
                }
                Incoming::Request(request) => self.requested(slot, &request),
                Incoming::Refused(bytes) => {
                    self.metrics.counters.add(Counter::HttpRefused, 1);
                    self.queue_bytes(slot, bytes);
                }
                Incoming::Ignore => {}
            }
            decoded.was_idle |= codec.is_idle();
            if self.connections.get(slot as usize).is_none_or(|c| c.stage == Stage::Ending) {
                return decoded;
            }
        }
    }

    /// The handshake is complete: the connection has a client now.
    pub fn open(&mut self, slot: u32, framing: Framing) {
        self.metrics.counters.add(counter_of_framing(framing), 1);
        let generation = self.next_generation();
        let client = ClientSlot::new(self.clients.insert(Client::new(generation, slot)) as u32);
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.client = Some(client);
        connection.framing = framing;
        if let Some(client) = self.client_of(slot) {
            self.apps.runner().came(client);
        }
        // The timer of the handshake is set, and mostly early enough.
        if let Some(at_ms) = self.next_due(slot) {
            self.wake_at(slot, at_ms);
        }
    }

    /// The session goes back to its connection; a message that has begun must be complete in time, and so must the
    /// handshake of a WebSocket that a connection of HTTP has become.
    fn give_back(&mut self, slot: u32, codec: Codec, decoded: &Decoded) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let unfinished = codec.is_open() && !codec.is_idle();
        let upgrades = decoded.was_open && !codec.is_open();
        let begins = upgrades || unfinished && (decoded.was_idle || !connection.unfinished);
        connection.unfinished = unfinished;
        connection.codec = codec;
        if begins {
            connection.began = self.now;
            self.wake_at(slot, self.ms_in(self.config.timeout));
        }
    }

    /// The peer's Close completed the handshake that we began.
    fn peer_closed(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if connection.stage == Stage::AwaitingPeer {
            connection.stage = Stage::Flushing;
            self.queue_for_flush(slot);
        }
    }

    /// Nothing more will come from the peer.
    fn end_of_input(&mut self, slot: u32, cause: Cause) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let broken = !matches!(cause, Cause::EndOfStream);
        match connection.stage {
            Stage::Open => {
                // Whoever asks and stops to write at once gets what is there, or on its way here.
                self.answer_requests();
                if broken || !self.give_requests_up(slot) {
                    self.end(slot, cause);
                }
            }
            // What was queued before may still reach a peer that has only stopped to write.
            Stage::AwaitingPeer | Stage::Flushing if !broken => {
                connection.stage = Stage::Flushing;
                self.queue_for_flush(slot);
            }
            Stage::Ending => {}
            Stage::AwaitingPeer | Stage::Flushing | Stage::HalfClosed => self.abort(slot),
            Stage::Dead => self.release_if_idle(slot),
        }
    }

    fn record_sent(&mut self, frames: &FrameBatch) {
        for frame in frames.frames() {
            self.metrics.latencies.record(Timing::Send, self.now_ns.saturating_sub(frame.queued_ns()));
            for accepted in frame.accepted() {
                let took = self.now_ns.saturating_sub(accepted.at_ns);
                self.metrics.latencies.record_n(Timing::Delivery, took, u64::from(accepted.events));
            }
        }
    }

    /// A refusal that the protocol found is counted as such.
    pub(super) fn counter_of(cause: Cause) -> Counter {
        match cause {
            Cause::HandshakeTimeout => Counter::TimeoutsHandshake,
            Cause::MessageTimeout => Counter::TimeoutsMessage,
            Cause::LivenessTimeout => Counter::TimeoutsLiveness,
            Cause::SessionTimeout => Counter::TimeoutsSession,
            Cause::EndOfStream => Counter::ClosesByPeer,
            Cause::Broken(_) => Counter::ClosesReset,
            Cause::TooManyOfAddress => Counter::ConnectionsRefusedAddress,
            Cause::Reason(reason) => counter_of_reason(reason),
        }
    }
}

/// What one piece of input came to.
struct Decoded {
    consumed: usize,
    /// At some point no message was begun: one that was begun before is complete.
    was_idle: bool,
    /// The handshake was complete before.
    was_open: bool,
}

fn counter_of_framing(framing: Framing) -> Counter {
    match framing {
        Framing::WebSocket => Counter::HandshakesWebsocket,
        Framing::Raw => Counter::HandshakesRaw,
        Framing::LongPolling | Framing::EventStream => Counter::SessionsCreated,
    }
}

fn counter_of_reason(reason: Reason) -> Counter {
    match reason {
        Reason::PeerClosed(_) | Reason::Finished => Counter::ClosesByPeer,
        Reason::ConnectionLost => Counter::ClosesReset,
        Reason::UnknownProtocol => Counter::ProtocolUnknown,
        Reason::Refused(_) | Reason::InvalidHandshake => Counter::HandshakesRefused,
        Reason::MalformedEvent => Counter::ClosesMalformedEvent,
        Reason::ClientTimeout => Counter::TimeoutsMessage,
        Reason::SlowClient => Counter::ClosesSlow,
        Reason::TooManyClients => Counter::ConnectionsRefusedLimit,
        Reason::GoingAway => Counter::ClosesShutdown,
        Reason::Application | Reason::ServerError => Counter::ClosesByApp,
        Reason::Violation(violation) => match violation.code() {
            1003 => Counter::ClosesBinary,
            1007 => Counter::ClosesInvalidUtf8,
            1009 => Counter::ClosesTooLarge,
            _ => Counter::ClosesViolation,
        },
    }
}
