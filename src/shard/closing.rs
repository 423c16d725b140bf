//! How connections end: the end is decided anywhere in a turn, and carried out by the functions of this file before
//! the turn is over.

#[cfg(test)]
mod tests;

use super::addresses::CountedAddress;
use super::codecs::Codecs;
use super::connection::{Connection, Input, Moment, Refusal, Stage, Transport};
use super::ending::{Cause, Ending, Goodbye};
use super::kernel::RingOp;
use super::sessions::messages::LostInput;
use super::state::State;
use super::tls::TlsPhase;
use crate::client::ClientId;
use crate::client::subscriptions::EndedSubscription;
use crate::limits::CLOSING_BYTES_PER_MS;
use crate::log::throttle;
use crate::metrics::Counter;
use crate::protocol::{Codec, CodecSettings, Reason};
use crate::qev::buffers::Frame;

/// The time without input, in milliseconds, after which a peer without an open request is taken to have read its last
/// response.
const QUIET_MS: u64 = 1000;

/// The number of connections whose ends are carried out in one turn because they do not keep up, or because the server
/// shuts down. With their log lines, that takes a few milliseconds.
pub(super) const ENDS_PER_TURN: usize = 1024;

impl State {
    /// Ends a connection, for a reason of the server's or because its peer has disconnected, before the turn is over.
    pub fn end(&mut self, slot: u32, cause: Cause) {
        // A broadcast that was accepted earlier still reaches the connection.
        self.fan_out();
        self.connections.end(slot, cause, None);
    }

    /// Ends a connection with the bytes that its codec has provided.
    pub fn end_with(&mut self, slot: u32, cause: Cause, goodbye: Goodbye) {
        self.fan_out();
        self.connections.end(slot, cause, Some(goodbye));
    }

    /// Ends the next connections, because the server shuts down: those among a number of slots that one turn permits.
    pub fn end_some_for_shutdown(&mut self) {
        let Some(from) = self.shutdown_from else { return };
        self.fan_out();
        let to = from.saturating_add(ENDS_PER_TURN as u32).min(self.connections.slots() as u32);
        for slot in from..to {
            if self.connections.get_mut(slot).is_some() {
                self.connections.end(slot, Cause::Reason(Reason::GoingAway), None);
            }
        }
        // Nobody connects while the server shuts down, which would need a slot that was passed.
        self.shutdown_from = (to < self.connections.slots() as u32).then_some(to);
    }

    /// Carries out ends of connections that do not keep up, as far as this turn permits. Each costs one unit of the
    /// budget, and more if its outbox is long. Returns whether there were any.
    pub fn finish_overflowed(&mut self, codecs: &mut Codecs, budget: &mut usize) -> bool {
        let before = *budget;
        while *budget > 0 {
            let Some(slot) = self.connections.pop_overflowed() else { break };
            *budget -= 1;
            self.finish_overflowed_of(codecs, slot);
        }
        *budget < before
    }

    /// Carries out the end of a connection that does not keep up, if it was decided: it must not wait when input has
    /// arrived on the connection. All other ends must have been carried out.
    pub fn finish_overflowed_of(&mut self, codecs: &mut Codecs, slot: u32) {
        if self.connections.live(slot).stage == Stage::Ending {
            self.finish(codecs, Ending { slot, cause: Cause::Reason(Reason::SlowClient), goodbye: None });
        }
    }

    /// As [`State::finish_overflowed_of`], for an HTTP session. It has no codec, so this may happen while one is
    /// borrowed.
    pub fn finish_overflowed_session(&mut self, slot: u32) {
        if self.connections.live(slot).stage == Stage::Ending {
            self.finish_session_ending(slot, Cause::Reason(Reason::SlowClient));
        }
    }

    /// Carries out the ends that were decided, and those that hooks decide meanwhile.
    pub fn finish_endings(&mut self, codecs: &mut Codecs) {
        while self.connections.has_endings() {
            for ending in self.connections.take_endings() {
                self.finish(codecs, ending);
            }
        }
    }

    /// Carries out the ends of HTTP sessions that were decided. They have no codecs, so this may happen while one is
    /// borrowed.
    pub fn finish_session_endings(&mut self) {
        for Ending { slot, cause, .. } in self.connections.take_session_endings() {
            self.finish_session_ending(slot, cause);
        }
    }

    fn finish_session_ending(&mut self, slot: u32, cause: Cause) {
        self.log_end(slot, cause);
        self.release_client(slot);
        self.finish_session(slot, cause);
    }

    fn finish(&mut self, codecs: &mut Codecs, ending: Ending) {
        let Ending { slot, cause, goodbye } = ending;
        let text = self.goodbye_texts.remove(&slot);
        // The messages that the end causes are not charged to the peer that is handled at the moment.
        self.mesh.begin(self.connections.source(slot));
        self.log_end(slot, cause);
        self.release_client(slot);
        self.tls_ends(slot, cause);
        if !self.connections.live(slot).is_socket() {
            return self.finish_session(slot, cause);
        }
        let is_quiet = || self.connections.live(slot).is_quiet(codecs.get(slot), self.time.now());
        // An end without close_notify is a truncation to a peer that speaks TLS.
        let is_secured = matches!(self.tls.phase(slot), TlsPhase::Secured(_));
        if cause == Cause::Reason(Reason::GoingAway) && !is_secured && is_quiet() {
            return self.abort(codecs, slot);
        }
        self.abandon_requests(codecs, slot, LostInput::Broken);
        if cause.is_abrupt() {
            return self.abort(codecs, slot);
        }
        if cause.drops_output() {
            self.connections.drop_outbox(slot);
        }
        let goodbye = goodbye.unwrap_or_else(|| {
            let text = text.as_deref();
            self.change_codec(codecs, slot, |codec, settings| Goodbye::of(codec, cause, text, settings))
        });
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        // A peer that has shut down its side cannot send a Close, but it may read what was queued before.
        let await_peer = goodbye.await_peer && connection.input != Input::Ended;
        connection.stage = if await_peer { Stage::AwaitingPeer } else { Stage::Flushing };
        connection.began = now;
        if matches!(cause, Cause::Reason(Reason::PeerClosed(_))) {
            self.stop_receiving(slot);
        }
        if !goodbye.bytes.is_empty() {
            self.connections.queue_goodbye(slot, Frame::new(goodbye.bytes, self.time.now_ns()));
        }
        self.wake_at(slot, self.time.ms_from_now(self.close_timeout(slot)));
        self.connections.queue_for_flush(slot);
        // The peer's Close is behind what is held, and the socket has to be read for it.
        self.listen_again(codecs, slot);
    }

    /// Ends the receive of a connection whose peer has sent a Close, behind which it sends nothing (RFC 6455, 5.5.1). The
    /// socket can then be closed as soon as the output has been sent: no input is left that could reset the connection
    /// before the peer has read it.
    pub fn stop_receiving(&mut self, slot: u32) {
        self.cancel_receive(slot, Input::Stopping);
    }

    /// Charges the peer of a closing connection for what it sends, which is read only to find its Close, and to close the
    /// socket without resetting the connection: it takes from the time that the peer has.
    pub fn charge_closing(&mut self, slot: u32, bytes: usize) {
        let timeout = self.close_timeout(slot);
        let connection = self.connections.live_mut(slot);
        if matches!(connection.stage, Stage::AwaitingPeer | Stage::Flushing | Stage::HalfClosed) {
            connection.began = connection.began.before(bytes.div_ceil(CLOSING_BYTES_PER_MS) as u64);
            let began = connection.began;
            self.wake_at(slot, self.patience_end_ms(began, timeout));
        }
    }

    /// Ends a connection with a socket immediately: nothing more is sent to the peer, its input is discarded, and the
    /// operations in flight are cancelled. If the kernel is executing an operation at this moment, it cannot cancel
    /// it; the timer then repeats the cancellation.
    pub fn abort(&mut self, codecs: &mut Codecs, slot: u32) {
        self.drop_tls(slot);
        self.change_codec(codecs, slot, |codec, _| *codec = Codec::default());
        self.connections.drop_outbox(slot);
        self.held.remove(self.connections.source(slot));
        let connection = self.connections.live_mut(slot);
        connection.stage = Stage::Dead;
        let send = connection.send;
        if connection.input.is_in_flight() || send.is_some() {
            self.ring_ops.push(RingOp::Cancel { token: slot, send });
            self.wake_at(slot, self.time.ms_from_now(self.config.close_timeout));
        }
        self.release_if_idle(slot);
    }

    /// Ends the connection of an HTTP session at once. Its sid may name a new session from now on.
    pub fn abort_session(&mut self, slot: u32) {
        self.connections.drop_outbox(slot);
        self.held.remove(self.connections.source(slot));
        let connection = self.connections.live_mut(slot);
        connection.stage = Stage::Dead;
        if let Transport::HttpSession(session) = connection.transport() {
            self.sessions.remove(session, slot);
            self.shared.sessions.release(1);
        }
        self.release_if_idle(slot);
    }

    /// Handles a shutdown of the sending direction that has completed.
    pub fn shutdown_done(&mut self, slot: u32) {
        self.connections.live_mut(slot).shutting_down = false;
        self.release_if_idle(slot);
    }

    /// Releases a connection that has ended when it has no operation in flight: closes its socket and removes its
    /// record.
    pub fn release_if_idle(&mut self, slot: u32) {
        let connection = self.connections.live(slot);
        if connection.stage != Stage::Dead || connection.is_in_flight() {
            return;
        }
        self.has_spoken(slot);
        self.forget_proxy_header(slot);
        let connection = self.connections.remove(slot);
        if let Some(timer) = connection.timer {
            self.time.cancel(timer, slot);
        }
        if connection.is_counted() {
            self.shared.clients.release(1);
            self.forget_address(connection.peer);
        }
        if let Some(refusal) = connection.refusal {
            self.refused.remove(CountedAddress::of_peer(connection.peer), refusal);
        }
        if let Transport::Socket(socket) = connection.transport() {
            self.count(Counter::ConnectionsClosed, 1);
            self.discard(socket);
        }
    }

    /// Counts and logs an end: one line with the peer and the reason. Its kind is the reason.
    fn log_end(&mut self, slot: u32, cause: Cause) {
        let connection = self.connections.live(slot);
        if connection.refusal.is_some() {
            // The refusal was counted and logged at its time.
            return;
        }
        self.metrics.counters.add(cause.counter(), 1);
        let (peer, shard) = (connection.peer, self.mesh.shard());
        match cause {
            Cause::Reason(Reason::PeerClosed(code)) => {
                tracing::debug!(%peer, shard, code, "closed by the client")
            }
            Cause::Reason(Reason::GoingAway | Reason::Application | Reason::Finished) => {
                tracing::debug!(%peer, shard, reason = cause.reason().text(), "connection closed");
            }
            Cause::EndOfStream => tracing::debug!(%peer, shard, "end of stream"),
            Cause::IdleTimeout => tracing::debug!(%peer, shard, "no request came for http-idle-timeout"),
            Cause::SessionTimeout => {
                tracing::debug!(%peer, shard, "session ended: no request was received for `timeout`")
            }
            Cause::Broken(error) => {
                let error = std::io::Error::from_raw_os_error(error);
                tracing::debug!(%peer, shard, %error, "connection lost");
            }
            Cause::TlsTruncated => {
                tracing::debug!(%peer, shard, "end of stream, but TLS was not closed: the last data may be lost");
            }
            Cause::TlsWornOut => {
                tracing::debug!(%peer, shard, "the key of TLS 1.2 has protected as many records as it may");
            }
            // These were logged at their time.
            Cause::Tls(_) | Cause::TlsEvicted => {}
            Cause::TooManyOfAddress => self.log_refusal(peer, Refusal::AddressFull),
            Cause::HandshakeTimeout => {
                throttle!(info, "handshake timeout", %peer, shard, "handshake timeout")
            }
            Cause::MessageTimeout => throttle!(info, "message timeout", %peer, shard, "message timeout"),
            Cause::SendTimeout => {
                let outbox_bytes = connection.outbox_bytes;
                throttle!(info, "send timeout", %peer, shard, outbox_bytes,
                    "the peer read nothing of its output for send-timeout");
            }
            Cause::LivenessTimeout => {
                throttle!(info, "heartbeat timeout", %peer, shard, "nothing was received for heartbeat-timeout")
            }
            Cause::Reason(reason) => {
                let outbox_bytes = connection.outbox_bytes;
                throttle!(info, reason.text(), %peer, shard, code = reason.code(), reason = reason.text(),
                    outbox_bytes, "connection closed");
            }
        }
    }

    /// Releases a connection's client, although the connection may still be closing: the client's callbacks are
    /// dropped, and its subscriptions end.
    fn release_client(&mut self, slot: u32) {
        // Broadcasts accepted before this moment still reach the client.
        self.fan_out();
        self.drops.remove(slot);
        if self.auth.is_on() {
            self.identities.remove(slot);
            let freed = self.auth.forget(slot);
            self.incomplete.changed(freed, 0);
        }
        if !self.facts.is_empty() {
            self.facts.remove(slot);
        }
        if let Some(client) = self.connections.detach_client(slot) {
            self.pubsub.disconnected(client);
            self.end_subscriptions();
        }
    }

    /// Ends subscriptions of disconnected clients, with their off-hooks, and drops what applications keep for these
    /// clients. A client may have had a million subscriptions. A limited number of them ends in one turn, and none
    /// while a worker that handles ends of subscriptions, or another shard, does not keep up.
    pub fn end_subscriptions(&mut self) {
        while let Some(client) = self.pubsub.next_leaving() {
            if self.links.are_full() || self.mesh.is_stuck() {
                return;
            }
            if self.end_subscriptions_of(client) {
                self.connections.remove_client(client);
                self.apps.client_disconnected(client);
            }
        }
    }

    /// Ends subscriptions of one client as far as this turn permits; returns whether none is left.
    fn end_subscriptions_of(&mut self, client: ClientId) -> bool {
        self.fan_out();
        let (ended, done) = self.pubsub.end_some();
        self.release_subscriptions(ended.len());
        for (path, how) in ended {
            match how {
                EndedSubscription::Active { last, membership } => {
                    self.end_membership(client, &path, membership, true);
                    self.subscription_ended(client, &path, last);
                }
                EndedSubscription::Pending(id) => self.abandon_recovery(client, id),
            }
        }
        done
    }
}

impl Goodbye {
    fn of(codec: &mut Codec, cause: Cause, text: Option<&str>, settings: &CodecSettings) -> Goodbye {
        if cause == Cause::EndOfStream {
            return Goodbye::NOTHING;
        }
        let close = match text {
            Some(text) => codec.close_with(cause.reason(), text, settings),
            None => codec.close(cause.reason(), settings),
        };
        Goodbye { bytes: close.bytes, await_peer: close.await_peer }
    }
}

impl Connection {
    /// Returns whether the peer has nothing left to read and sends nothing: an HTTP connection between two requests, or
    /// one from which nothing was received. Closing such a connection loses no data.
    fn is_quiet(&self, codec: &Codec, now: Moment) -> bool {
        let is_client = self.client.is_some() || codec.framing().is_some();
        let waits = self.unfinished || codec.unanswered().next().is_some();
        let is_silent = now.since(self.received) >= QUIET_MS;
        !is_client && !waits && is_silent && self.outbox.is_empty() && !self.is_sending()
    }
}
