//! Events of the kernel that concern connections: bytes received, ends of streams, sends that have completed.

use super::codecs::Codecs;
use super::connection::{Input, Stage};
use super::ending::{Cause, Goodbye};
use super::kernel::{IoEvent, Owner};
use super::sessions::messages::LostInput;
use super::state::State;
use crate::log::{Escaped, throttle};
use crate::metrics::{Counter, Timing};
use crate::protocol::{Close, Codec, CodecSettings, Framing, Incoming, Reason};
use crate::qev::buffers::Frame;
use crate::qev::ring::{Errno, FrameBatch};

impl State {
    /// Handles an event of the kernel. Its token is decoded here, once. Returns the bytes that received messages had once
    /// inflated: they count as if they had been received.
    pub fn handle_io(&mut self, codecs: &mut Codecs, event: IoEvent<'_>) -> usize {
        match event {
            IoEvent::Sent { token, result, frames } => match Owner::of(token) {
                Owner::Connection(slot) => self.sent(codecs, slot, result, frames),
                Owner::Link(index) => self.link_sent(index, &frames),
            },
            IoEvent::ShutDown { token } => match Owner::of(token) {
                Owner::Connection(slot) => self.shutdown_done(slot),
                Owner::Link(index) => self.link_shut_down(index),
            },
            IoEvent::Marked => self.time.marked(),
            found => {
                self.has_found = true;
                self.handle_found(codecs, found);
                return self.protocol.compression.take_inflated();
            }
        }
        0
    }

    /// Handles an event that is something new: a connection, bytes, the end of a stream, or room in a socket.
    fn handle_found(&mut self, codecs: &mut Codecs, event: IoEvent<'_>) {
        match event {
            IoEvent::Accepted { listener, socket, peer } => self.accepted(codecs, listener, socket, peer),
            IoEvent::AcceptFailed { listener, error } => self.accept_failed(listener, error),
            IoEvent::Received { token, data, ended } => match Owner::of(token) {
                Owner::Connection(slot) => self.received(codecs, slot, data, ended),
                Owner::Link(index) => self.link_received(index, data, ended),
            },
            IoEvent::InputReady { token } => match Owner::of(token) {
                Owner::Connection(slot) => self.input_ready(slot),
                Owner::Link(index) => unreachable!("link {index} is never dormant"),
            },
            IoEvent::ReceiveEnded { token, result } => match Owner::of(token) {
                Owner::Connection(slot) => self.receive_ended(codecs, slot, result),
                Owner::Link(index) => self.link_receive_ended(index, result),
            },
            IoEvent::SendProgressed { token } => match Owner::of(token) {
                Owner::Connection(slot) => self.connections.live_mut(slot).sent = self.time.now(),
                Owner::Link(index) => self.link_send_progressed(index),
            },
            IoEvent::Sent { .. } | IoEvent::ShutDown { .. } | IoEvent::Marked => {
                unreachable!("the end of what the shard has begun is not new")
            }
        }
    }

    /// Handles bytes from a peer. `ended`: the kernel has ended the receive, which must be submitted again.
    fn received(&mut self, codecs: &mut Codecs, slot: u32, data: &mut [u8], ended: bool) {
        self.count(Counter::BytesReceived, data.len() as u64);
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        connection.heard(now);
        connection.unread = ended || data.len() >= self.config.receive_buffer_bytes;
        if ended && connection.stage == Stage::Dead {
            connection.input = Input::Ended;
            return self.release_if_idle(slot);
        }
        let is_stopping = connection.input == Input::Stopping;
        if ended && is_stopping {
            self.receive_stopped(slot);
        } else if ended {
            self.receive_again(slot);
        }
        if !self.held.is_empty() && self.hold_received(codecs, slot, data) {
            return;
        }
        self.handle_input(codecs, slot, data);
        self.pause_if_over(slot);
    }

    /// Handles bytes from a peer, in the order in which the peer has sent them.
    pub fn handle_input(&mut self, codecs: &mut Codecs, slot: u32, data: &mut [u8]) {
        let connection = self.connections.live(slot);
        let (has_client, is_tls) = (connection.client.is_some(), connection.is_tls());
        if !has_client {
            if let Some(begun) = self.proxy_headers.take(slot) {
                return self.proxy_header_received(codecs, slot, begun, data);
            }
        }
        if is_tls {
            return self.handle_tls_input(codecs, slot, data);
        }
        if !has_client {
            self.charge_closing(slot, data.len());
        }
        self.handle_plaintext(codecs, slot, data);
    }

    /// Handles bytes from a peer that are as the peer's application has sent them.
    #[inline]
    pub fn handle_plaintext(&mut self, codecs: &mut Codecs, slot: u32, data: &mut [u8]) {
        let connection = self.connections.live(slot);
        if connection.client.is_none() || connection.stage == Stage::Ending {
            // Ends that were decided earlier are carried out before a request is handled. Otherwise its session could send
            // output to another request, whose connection broke earlier in this turn.
            self.finish_endings(codecs);
            self.finish_overflowed_of(codecs, slot);
        }
        self.mesh.begin(self.connections.source(slot));
        self.decode(codecs, slot, data);
    }

    /// Handles a receive that has ended without data.
    fn receive_ended(&mut self, codecs: &mut Codecs, slot: u32, result: Result<(), Errno>) {
        let connection = self.connections.live_mut(slot);
        let goes_on = connection.stage < Stage::Dead;
        let is_stopping = connection.input == Input::Stopping;
        match result {
            Err(error) if is_stopping && goes_on && (error.is_cancelled() || error.is_no_buffers()) => {
                self.receive_stopped(slot);
            }
            Err(error) if error.is_no_buffers() && goes_on => {
                connection.unread = true;
                self.count(Counter::BuffersExhausted, 1);
                self.receive_again(slot);
            }
            Err(error) if error.is_cancelled() && goes_on && connection.input == Input::Cancelling => {
                self.receive_again(slot);
            }
            Err(error) if error.is_cancelled() && goes_on && connection.input == Input::Retiring => {
                self.receive_retired(slot);
            }
            result => {
                connection.input = Input::Ended;
                if !self.held.is_empty() && self.hold_end(slot, result) {
                    return;
                }
                self.handle_end_of_input(codecs, slot, result);
            }
        }
    }

    /// Handles the end of a receive that was cancelled because the peer has sent its last bytes.
    pub fn receive_stopped(&mut self, slot: u32) {
        self.connections.live_mut(slot).input = Input::Ended;
        self.connections.queue_for_flush(slot);
    }

    /// Handles the end of a peer's input, after all of that input.
    pub fn handle_end_of_input(&mut self, codecs: &mut Codecs, slot: u32, result: Result<(), Errno>) {
        if self.connections.live(slot).is_tls() && self.handle_tls_end(slot, result) {
            return;
        }
        let cause = result.map_or_else(|error| Cause::Broken(error.0), |()| Cause::EndOfStream);
        self.end_of_input(codecs, slot, cause);
    }

    /// Handles a completed send: its latencies are recorded, and output that has been queued since may be sent.
    fn sent(&mut self, codecs: &mut Codecs, slot: u32, result: Result<(), Errno>, frames: FrameBatch) {
        let (stage, is_tls) = self.connections.sent(slot);
        self.recoveries.look_again();
        if let Err(error) = result {
            return self.send_failed(codecs, slot, error, frames);
        }
        match frames {
            FrameBatch::One(frame) => self.record_sent(&frame),
            FrameBatch::Many(_) => frames.frames().iter().for_each(|frame| self.record_sent(frame)),
        }
        if is_tls && stage != Stage::Dead {
            self.tls_sent(slot);
        } else if stage == Stage::Dead {
            self.release_if_idle(slot);
        }
    }

    #[cold]
    fn send_failed(&mut self, codecs: &mut Codecs, slot: u32, error: Errno, frames: FrameBatch) {
        self.count(Counter::SendErrors, 1);
        if matches!(frames, FrameBatch::Many(_)) {
            self.connections.discard(frames.into_frames());
        }
        self.end_of_input(codecs, slot, Cause::Broken(error.0));
    }

    /// Decodes bytes. If they end the connection, the rest is searched for the peer's Close.
    fn decode(&mut self, codecs: &mut Codecs, slot: u32, mut data: &mut [u8]) {
        while matches!(self.connections.live(slot).stage, Stage::Open | Stage::AwaitingPeer) {
            let codec = codecs.get_mut(slot);
            let before = codec.incomplete_bytes();
            let decoded = self.decode_with(slot, codec, data);
            self.update_progress(slot, codec, &decoded);
            let after = codec.incomplete_bytes();
            if before != after {
                self.incomplete_changed(slot, before, after);
            }
            if self.connections.live(slot).stage != Stage::Ending {
                return;
            }
            self.finish_endings(codecs);
            self.finish_overflowed_of(codecs, slot);
            data = &mut data[decoded.consumed..];
        }
    }

    /// Changes a codec, and counts the memory that its incomplete message takes then.
    pub fn change_codec<T>(
        &mut self,
        codecs: &mut Codecs,
        slot: u32,
        change: impl FnOnce(&mut Codec, &CodecSettings) -> T,
    ) -> T {
        let codec = codecs.get_mut(slot);
        let before = codec.incomplete_bytes();
        let changed = change(codec, &self.protocol);
        self.incomplete.changed(before, codec.incomplete_bytes());
        changed
    }

    /// Counts the memory of an incomplete message after more of it has come. If the message is too large for this moment,
    /// its connection ends.
    pub fn incomplete_changed(&mut self, slot: u32, before: usize, after: usize) {
        self.incomplete.changed(before, after);
        if after > before && self.incomplete.is_too_large(after) {
            self.end(slot, Cause::Reason(Reason::NoRoom));
        }
    }

    /// Decodes until the bytes are used up or the connection's end is decided. The codec is borrowed while its events
    /// are dispatched, which changes everything but codecs.
    fn decode_with(&mut self, slot: u32, codec: &mut Codec, data: &mut [u8]) -> DecodeProgress {
        let mut progress = DecodeProgress { consumed: 0, was_idle: false, was_open: codec.is_open() };
        loop {
            let step = codec.decode(&mut data[progress.consumed..], &self.protocol);
            progress.consumed += step.consumed;
            match step.incoming {
                Incoming::Incomplete => return progress,
                Incoming::Event(text) => self.dispatch(slot, text),
                Incoming::Reply(bytes) => self.queue_reply(slot, bytes),
                Incoming::Pong(bytes) => self.queue_pong(slot, bytes),
                Incoming::Upgraded { response, client, opening } => {
                    self.queue_reply(slot, response);
                    if let Some(client) = client {
                        self.upgraded_for(slot, client);
                    }
                    if let Some(opening) = opening {
                        // If its token is refused, the end of the connection was decided.
                        let _ = self.opened_with(slot, &opening);
                    }
                }
                Incoming::Open(bytes) => {
                    self.queue_reply(slot, bytes);
                    let framing = codec.framing().expect("a codec that is open knows its protocol");
                    self.open(slot, framing);
                }
                Incoming::Close(Close { bytes, reason, await_peer }) => {
                    self.log_refused_origin(slot);
                    self.end_with(slot, Cause::Reason(reason), Goodbye { bytes, await_peer });
                }
                Incoming::Closed { is_last } => {
                    self.peer_closed(slot, is_last);
                    return progress;
                }
                Incoming::Request(request) => self.handle_request(slot, &request),
                Incoming::Refused(bytes) => {
                    self.count(Counter::HttpRefused, 1);
                    self.log_refused_origin(slot);
                    self.queue_reply(slot, bytes);
                }
                Incoming::Ignore => {}
            }
            progress.was_idle |= codec.is_idle();
            if self.connections.live(slot).stage == Stage::Ending {
                return progress;
            }
        }
    }

    /// Logs the origin that a request was refused for, if it was refused for its origin.
    fn log_refused_origin(&self, slot: u32) {
        let Some(origin) = self.protocol.origins.take_refused() else { return };
        let peer = self.connections.live(slot).peer;
        throttle!(info, "refused origin", %peer, shard = self.mesh.shard(), origin = %Escaped(&origin),
            "request refused: its origin is not among those of the setting origin");
    }

    /// Creates the client of a connection whose handshake is complete.
    pub fn open(&mut self, slot: u32, framing: Framing) {
        self.count(counter_of_framing(framing), 1);
        self.count(Counter::HandshakesDeflate, u64::from(matches!(framing, Framing::Deflate(_))));
        let client = self.connections.create_client(slot, framing);
        self.apps.client_connected(client);
        if self.auth.is_on() {
            self.require_token(slot);
        }
        // The timer of the handshake would wake the shard for nothing.
        if let Some(at_ms) = self.next_due(slot) {
            self.move_timer(slot, at_ms);
        }
    }

    /// Records the progress of the connection's messages. A message must be completed in time, and so must the
    /// handshake of an HTTP connection that was upgraded to a WebSocket.
    fn update_progress(&mut self, slot: u32, codec: &Codec, progress: &DecodeProgress) {
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        let unfinished = codec.is_open() && !codec.is_idle();
        let upgrades = progress.was_open && !codec.is_open();
        let begins = upgrades || unfinished && (progress.was_idle || !connection.unfinished);
        connection.unfinished = unfinished;
        let has_spoken = connection.is_silent_proxy && (codec.is_open() || codec.framing().is_some());
        if begins {
            connection.began = now;
            self.wake_at(slot, self.time.ms_from_now(self.config.timeout));
        }
        if has_spoken {
            self.has_spoken(slot);
        }
    }

    /// Handles the end of the closing handshake that the server began. `is_last`: the peer sends nothing more.
    fn peer_closed(&mut self, slot: u32, is_last: bool) {
        let connection = self.connections.live_mut(slot);
        if connection.stage == Stage::AwaitingPeer {
            connection.stage = Stage::Flushing;
            self.connections.queue_for_flush(slot);
            if is_last {
                self.stop_receiving(slot);
            }
        }
    }

    /// Handles the end of a peer's input.
    pub fn end_of_input(&mut self, codecs: &mut Codecs, slot: u32, cause: Cause) {
        let broken = !matches!(cause, Cause::EndOfStream);
        match self.connections.live(slot).stage {
            Stage::Open => {
                // A peer that sends requests and then shuts down its side gets their responses.
                self.deliver_responses(codecs);
                if !broken {
                    self.change_codec(codecs, slot, |codec, _| codec.end_input());
                }
                if broken || !self.abandon_requests(codecs, slot, LostInput::Ended) {
                    self.end(slot, cause);
                }
            }
            // A peer that has only shut down its sending direction can still receive the queued output.
            Stage::AwaitingPeer | Stage::Flushing if !broken => {
                self.connections.live_mut(slot).stage = Stage::Flushing;
                self.connections.queue_for_flush(slot);
            }
            Stage::Ending => {}
            Stage::AwaitingPeer | Stage::Flushing | Stage::HalfClosed => self.abort(codecs, slot),
            Stage::Dead => self.release_if_idle(slot),
        }
    }

    /// Counts a frame that was sent, and records its latencies.
    #[inline]
    fn record_sent(&mut self, frame: &Frame) {
        self.count(Counter::BytesSent, frame.len() as u64);
        let now_ns = self.time.now_ns();
        let timers = &mut self.metrics.latencies;
        timers.record(Timing::Send, now_ns.saturating_sub(frame.queued_ns()));
        for accepted in frame.accepted() {
            let took = now_ns.saturating_sub(accepted.at_ns);
            timers.record_n(Timing::Delivery, took, u64::from(accepted.events));
        }
    }

    /// Queues bytes of the protocol that are not an event.
    fn queue_reply(&mut self, slot: u32, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.queue_bytes(slot, bytes);
        }
    }

    /// Queues the reply to a Ping.
    fn queue_pong(&mut self, slot: u32, pong: Vec<u8>) {
        if self.pubsub.has_broadcasts() && self.connections.would_overflow(slot, pong.len()) {
            self.fan_out();
        }
        let (_, is_newest_only) = self.connections.queue_pong(slot, pong, self.time.now_ns());
        if is_newest_only {
            self.count(Counter::PongsReplaced, 1);
            self.drops.of(slot).pongs_replaced += 1;
        }
    }
}

/// The progress that a piece of input made.
struct DecodeProgress {
    /// The number of input bytes that were used.
    consumed: usize,
    /// At some point no message was incomplete, so a message that had begun before is complete.
    was_idle: bool,
    /// The handshake was complete before.
    was_open: bool,
}

fn counter_of_framing(framing: Framing) -> Counter {
    match framing {
        Framing::WebSocket | Framing::Deflate(_) => Counter::HandshakesWebsocket,
        Framing::Raw => Counter::HandshakesRaw,
        Framing::LongPolling | Framing::EventStream => Counter::SessionsCreated,
    }
}
