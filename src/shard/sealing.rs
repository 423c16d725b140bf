//! The output of TLS connections: it is sealed when it is sent, and not when it is queued. A broadcast is one frame in the
//! outboxes of all subscribers; as records it would be another one for each of them, and wait in the memory of each.

use super::codecs::Codecs;
use super::connection::Stage;
use super::frames::Outbox;
use super::kernel::Kernel;
use super::state::State;
use crate::limits::TLS_SEND_BYTES;
use crate::metrics::Counter;
use crate::qev::buffers::Frame;
use smallvec::SmallVec;

impl State {
    /// Seals and sends what is in the outbox of a TLS connection, as far as one send permits; returns the number of bytes.
    /// Behind the last output of a connection that ends, it closes TLS, in the same send.
    pub fn flush_tls(&mut self, codecs: &mut Codecs, kernel: &mut impl Kernel, slot: u32) -> usize {
        let now = self.time.now();
        let mut sealed = match self.tls.has_output(slot) {
            true => self.change_tls(slot, |state| state.tls.take_output(slot)),
            false => Vec::new(),
        };
        let connection = self.connections.live_mut(slot);
        let frames = connection.outbox.take_bytes(TLS_SEND_BYTES);
        let is_last = connection.stage == Stage::Flushing && connection.outbox.is_empty();
        if let Some(secured) = self.tls.secured_mut(slot) {
            let session = &mut secured.session;
            if !frames.is_empty() {
                sealed.reserve_exact(session.sealed_len(frames.iter().map(Frame::len).sum()));
                self.metrics.counters.add(Counter::TlsKeyUpdates, u64::from(session.must_update_key()));
                session.seal(frames.iter().map(Frame::as_slice), &mut sealed);
            }
            if session.owes_at_once() {
                session.seal_owed(&mut sealed);
            }
            if is_last {
                session.close_notify(&mut sealed);
            }
        } else {
            assert!(frames.is_empty(), "connection {slot} has output, but no TLS session");
        }
        if sealed.is_empty() {
            self.flushed(codecs, slot);
            return 0;
        }
        let connection = self.connections.live_mut(slot);
        let socket = connection.socket().expect("only connections with a socket are flushed");
        let closes = is_last && connection.closes_behind_output();
        connection.sent = now;
        self.metrics.counters.add(Counter::Sends, 1);
        let before = frames.iter().map(Frame::cost).sum();
        let frame = in_place_of(&frames, sealed, self.time.now_ns());
        let (bytes, cost) = (frame.len(), frame.cost());
        let send =
            if closes { kernel.send_last(socket, slot, frame) } else { kernel.send(socket, slot, frame) };
        connection.send = Some(send);
        self.connections.started(slot, before, cost);
        bytes
    }
}

/// Returns the frame of these bytes, which are sent in place of others. Latencies are measured as if those were sent.
fn in_place_of(frames: &Outbox, bytes: Vec<u8>, now_ns: u64) -> Frame {
    let queued_ns = frames.iter().next().map_or(now_ns, Frame::queued_ns);
    let accepted: SmallVec<_> = frames.iter().flat_map(Frame::accepted).copied().collect();
    Frame::with_broadcasts(bytes, queued_ns, accepted)
}
