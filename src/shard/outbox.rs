//! What is to be sent to a client waits in its outbox, which is bounded in bytes.

use super::connection::{Cause, Stage, Transport};
use super::state::State;
use crate::app::Json;
use crate::event::path::Path;
use crate::event::text;
use crate::metrics::{Counter, Gauge};
use crate::protocol::Reason;
use crate::protocol::{self, Framing};
use crate::qev::buffers::Frame;

impl State {
    /// Puts a frame into the outbox of a connection. Where that is full, the connection ends: its peer does not
    /// keep up. Whether the frame is in the outbox.
    #[inline]
    pub fn queue_frame(&mut self, slot: u32, frame: Frame) -> bool {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return false };
        if connection.stage != Stage::Open {
            return false;
        }
        let bytes = connection.outbox_bytes as usize + frame.len();
        if bytes > self.config.outbox_bytes_max {
            self.end(slot, Cause::Reason(Reason::SlowClient));
            return false;
        }
        self.push_frame(slot, frame);
        true
    }

    /// Puts a response of HTTP into the outbox of its connection. What a session's outbox could hold fits for itself:
    /// only what the peer has not read of others counts against it.
    pub fn queue_response(&mut self, slot: u32, frame: Frame) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        if connection.outbox_bytes > 0 {
            self.queue_frame(slot, frame);
        } else if connection.stage == Stage::Open {
            self.push_frame(slot, frame);
        }
    }

    fn push_frame(&mut self, slot: u32, frame: Frame) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.outbox_bytes += frame.len() as u32;
        self.metrics.gauges.add(Gauge::OutboxBytes, frame.len() as u64);
        connection.outbox.push(frame);
        if !connection.queued {
            connection.queued = true;
            match connection.transport {
                Transport::Socket(_) => self.ready.push_back(slot),
                Transport::HttpSession(_) => self.http.ready.push(slot),
            }
        }
    }

    /// Puts bytes that are no event into the outbox: the protocol's own.
    pub fn queue_bytes(&mut self, slot: u32, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.queue_frame(slot, Frame::new(bytes, self.now_ns));
        }
    }

    /// Puts an event for one client into its outbox.
    pub fn queue_event(&mut self, slot: u32, path: &Path, callback: u64, data: &Json) {
        let Some(framing) = self.framing_of(slot) else { return };
        let bytes = encode_event(framing, path, callback, data);
        let queued = self.queue_frame(slot, Frame::new(bytes, self.now_ns));
        self.metrics.counters.add(Counter::MessagesSent, u64::from(queued));
    }

    /// The protocol in which a connection is to be sent events.
    pub fn framing_of(&self, slot: u32) -> Option<Framing> {
        self.connections.get(slot as usize).map(|connection| connection.framing)
    }

    /// Has a connection looked at when the turn is flushed.
    pub fn queue_for_flush(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        let idle = connection.outbox.is_empty() && connection.stage == Stage::Open;
        if !connection.queued && !idle {
            connection.queued = true;
            self.ready.push_back(slot);
        }
    }
}

/// An event as a protocol sends it.
pub(super) fn encode_event(framing: Framing, path: &Path, callback: u64, data: &Json) -> Vec<u8> {
    let (path, data) = (path.as_str(), data.as_str());
    encode(framing, text::event_len(path, callback, data), |out| text::write_event(out, path, callback, data))
}

/// A text of known length as a protocol sends it, in memory that is allocated once.
pub(super) fn encode(framing: Framing, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(protocol::frame_len(framing, len));
    protocol::frame_with(framing, &mut bytes, len, write);
    bytes
}
