//! TLS handshakes: what the peers of connections that take TLS send before their sessions exist.
//!
//! Received bytes are kept in order, and handled behind the kernel's events, as far as one turn permits.

use super::codecs::Codecs;
use super::connection::{Connection, Stage};
use super::ending::{Cause, Goodbye};
use super::kernel::Kernel;
use super::state::State;
use super::tls::{Advance, Completed, TlsPhase};
use crate::config::ListenKind;
use crate::log::{Escaped, throttle};
use crate::metrics::{Counter, Timing};
use crate::protocol::{HttpRefusal, Options, Reason};
use crate::qev::clock::core_nanos;
use crate::tls::{TlsFailure, subject_of};

/// The first byte of a connection that begins with TLS: a handshake record (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// A fatal alert, `internal_error` (RFC 8446, 6.2), for a client that the server has no room for. There is no better one. It
/// spares both sides a handshake.
const NO_ROOM_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// A fatal alert, `decode_error`, for a client that sends too much before its handshake has begun.
const TOO_LONG_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// The time in milliseconds by which a handshake must have waited for its share of a turn to be excused. Also the time after
/// which the due timer of one that waits is examined again.
pub(super) const EXCUSED_MS: u64 = 1000;

impl State {
    /// Expects TLS of a connection that was just accepted, if its listener takes it.
    pub fn expect_tls(&mut self, slot: u32, kind: ListenKind) {
        if kind != ListenKind::Plain {
            self.tls.start(slot, kind == ListenKind::Either);
        }
    }

    /// Handles bytes of a connection whose bytes are handled by TLS, in the order in which the peer has sent them.
    #[inline(never)]
    pub fn handle_tls_input(&mut self, codecs: &mut Codecs, slot: u32, data: &mut [u8]) {
        match self.tls.phase(slot) {
            TlsPhase::Silent { is_either } => self.handle_first_bytes(codecs, slot, *is_either, data),
            TlsPhase::Handshake(_) => self.add_handshake_input(codecs, slot, data),
            TlsPhase::Secured(_) => self.open_records(codecs, slot, data),
            TlsPhase::Failed(_) => self.charge_closing(slot, data.len()),
            TlsPhase::Plain => unreachable!("connection {slot} is handled by TLS without a phase"),
        }
    }

    fn handle_first_bytes(&mut self, codecs: &mut Codecs, slot: u32, is_either: bool, data: &mut [u8]) {
        let connection = self.connections.live(slot);
        let (stage, generation, is_refused) =
            (connection.stage, connection.generation, connection.refusal.is_some());
        if stage != Stage::Open {
            return self.charge_closing(slot, data.len());
        }
        if data.is_empty() {
            return;
        }
        if data[0] != HANDSHAKE_RECORD {
            self.drop_tls(slot);
            if !is_either && !is_refused {
                self.refuse_plain(codecs, slot);
            }
            return self.handle_plaintext(codecs, slot, data);
        }
        if is_refused {
            self.change_tls(slot, |state| state.tls.fail(slot, NO_ROOM_ALERT.into()));
            return self.end_with(slot, Cause::Reason(Reason::TooManyClients), Goodbye::NOTHING);
        }
        self.change_tls(slot, |state| state.tls.begin(slot, generation));
        self.add_handshake_input(codecs, slot, data);
    }

    /// Has a connection without TLS refused in its protocol, because its listener takes only TLS.
    fn refuse_plain(&mut self, codecs: &mut Codecs, slot: u32) {
        codecs.start(slot, Options { echo: false, refusal: Some(HttpRefusal::PlainHttp) });
        let peer = self.connections.live(slot).peer;
        throttle!(info, "no TLS", %peer, shard = self.mesh.shard(),
            "connection refused: its first bytes are not TLS, and this port takes nothing else");
    }

    /// Keeps what was received of a handshake until its turn comes.
    fn add_handshake_input(&mut self, codecs: &mut Codecs, slot: u32, data: &[u8]) {
        if self.connections.live(slot).stage != Stage::Open {
            return;
        }
        let is_over = self.change_tls(slot, |state| state.tls.add_input(slot, data));
        if is_over && self.connections.live(slot).stage == Stage::Open {
            if self.tls.has_signed(slot) {
                self.run_handshake(codecs, slot);
            } else {
                self.refuse_handshake(slot);
            }
        }
    }

    /// Ends a connection whose peer has sent too much before the server has signed: the handshake would not wait for its
    /// turn if it was continued now, and the signature is the expensive part. No client does that, because there is nothing
    /// to send yet.
    fn refuse_handshake(&mut self, slot: u32) {
        self.change_tls(slot, |state| state.tls.fail(slot, TOO_LONG_ALERT.into()));
        self.tls_failed(slot, &TlsFailure::handshake_too_long());
    }

    /// Handles what the peers of handshakes have sent, as far as this turn permits.
    pub fn run_handshakes(&mut self, codecs: &mut Codecs, kernel: &impl Kernel) {
        if !self.tls.has_waiting() {
            return;
        }
        if kernel.may_have_more() {
            self.tls.limit_turn();
        }
        self.finish_endings(codecs);
        while let Some(slot) = self.tls.pop_waiting() {
            self.run_handshake(codecs, slot);
        }
    }

    fn run_handshake(&mut self, codecs: &mut Codecs, slot: u32) {
        if self.connections.live(slot).stage != Stage::Open {
            return;
        }
        if let Some(oldest) = self.tls.too_many(slot) {
            self.evict_handshake(codecs, oldest);
        }
        let (source, has_ended) = (self.connections.source(slot), self.tls.has_ended(slot));
        self.mesh.begin(source);
        self.excuse_waiting(slot);
        let advance = self.change_tls(slot, |state| {
            let context = state.listeners.tls().expect("a listener that takes TLS has a configuration");
            state.tls.advance(slot, context, core_nanos)
        });
        if self.tls.has_output(slot) {
            self.connections.queue_tls_output(slot);
        }
        match advance {
            Advance::Incomplete => {}
            Advance::Complete(completed) => self.handshake_completed(codecs, slot, completed),
            Advance::Failed(failure) => self.tls_failed(slot, &failure),
        }
        if has_ended && self.is_source_live(source) {
            self.handle_end_of_input(codecs, slot, Ok(()));
        }
        self.finish_endings(codecs);
    }

    /// Has the time of a peer begin now, if its handshake has waited for long: it could not go on.
    fn excuse_waiting(&mut self, slot: u32) {
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        if now.since(connection.received) >= EXCUSED_MS {
            connection.began = now;
        }
    }

    /// Ends the handshake that has taken longest, because another one could not begin otherwise.
    fn evict_handshake(&mut self, codecs: &mut Codecs, slot: u32) {
        let (peer, shard) = (self.connections.live(slot).peer, self.mesh.shard());
        throttle!(warn, "TLS handshakes", %peer, shard,
            "{} TLS handshakes are incomplete: the one that began first ends", self.tls.half_open());
        self.change_tls(slot, |state| state.tls.fail(slot, NO_ROOM_ALERT.into()));
        self.end_with(slot, Cause::TlsEvicted, Goodbye::NOTHING);
        self.finish_endings(codecs);
    }

    /// Notes that the end of a connection is carried out. A handshake that is not complete is given up.
    pub fn tls_ends(&mut self, slot: u32, cause: Cause) {
        if matches!(self.tls.phase(slot), TlsPhase::Handshake(_)) {
            self.count(Counter::TlsAbandoned, u64::from(cause != Cause::Reason(Reason::GoingAway)));
            self.change_tls(slot, |state| state.tls.fail(slot, Vec::new()));
        }
    }

    /// Handles the completed send of a TLS connection.
    pub fn tls_sent(&mut self, slot: u32) {
        if self.tls.has_output(slot) {
            self.connections.queue_tls_output(slot);
        }
        if self.tls.secured_mut(slot).is_some_and(|secured| secured.session.is_worn_out()) {
            self.end(slot, Cause::TlsWornOut);
        }
    }

    fn handshake_completed(&mut self, codecs: &mut Codecs, slot: u32, completed: Completed) {
        let Completed { peer, mut rest, core_ns } = completed;
        if let Some(subject) = peer.certificate.as_ref().and_then(|certificate| subject_of(certificate)) {
            self.facts.set_certificate(slot, subject);
        }
        self.count(Counter::TlsHandshakes, 1);
        self.count(Counter::TlsResumed, u64::from(peer.is_resumed));
        self.metrics.latencies.record(Timing::TlsHandshake, core_ns);
        if !rest.is_empty() {
            self.open_records(codecs, slot, &mut rest);
        }
    }

    /// Handles a failure of TLS. The alert for the peer, if there is one, is to be sent.
    pub fn tls_failed(&mut self, slot: u32, failure: &TlsFailure) {
        let (peer, shard) = (self.connections.live(slot).peer, self.mesh.shard());
        let (reason, error) = (failure.reason.name(), failure.to_string());
        throttle!(info, failure.reason.name(), %peer, shard, reason, error = %Escaped(error.as_bytes()),
            "TLS with a client failed; the connection ends");
        self.end_with(slot, Cause::Tls(failure.reason), Goodbye::NOTHING);
    }

    /// Drops the TLS of a connection, which is plain from now on or has ended.
    pub fn drop_tls(&mut self, slot: u32) {
        if self.connections.live(slot).is_tls() {
            self.change_tls(slot, |state| state.tls.remove(slot));
            self.connections.live_mut(slot).set_tls(false);
        }
    }

    /// Changes the TLS of a connection, and counts the memory of what is incomplete then. If it is too much for this moment,
    /// the connection ends.
    pub fn change_tls<T>(&mut self, slot: u32, change: impl FnOnce(&mut State) -> T) -> T {
        let before = self.tls.incomplete_bytes(slot);
        let changed = change(self);
        let after = self.tls.incomplete_bytes(slot);
        if before != after {
            self.incomplete.changed(before, after);
        }
        if after > before && self.incomplete.is_too_large(self.tls.incomplete_input_bytes(slot)) {
            self.end(slot, Cause::Reason(Reason::NoRoom));
        }
        changed
    }

    /// Asserts that the records of connections agree with their TLS.
    pub fn check_tls(&self) {
        let count = self.connections.iter().filter(|(_, connection)| connection.is_tls()).count();
        self.tls.check(count, |slot| self.connections.get(slot).is_some_and(Connection::is_tls));
    }
}
