//! The end of a turn: the queued output goes to the kernel, with one send for each client, regardless of the
//! number of its events.

use super::codecs::Codecs;
use super::connection::{Input, Stage};
use super::frames::{COALESCED_BYTES_MAX, CoalescedFrame};
use super::kernel::{Kernel, RingOp};
use super::state::State;
use crate::metrics::Counter;
use crate::qev::ring::FRAMES_PER_SEND_MAX;

/// The number of bytes after which no more are sent in a turn. The kernel copies them in one system call, at a few GiB a
/// second.
const SEND_BYTES_PER_TURN: usize = 16 << 20;

impl State {
    /// Hands everything to the kernel, which gets it with the next system call. At most `sends-per-turn-max`
    /// connections are flushed, and no more after `SEND_BYTES_PER_TURN`; the others follow in the next turn, after the input that was received meanwhile.
    pub fn flush(&mut self, codecs: &mut Codecs, kernel: &mut impl Kernel) {
        let (mut coalesced, mut bytes) = (CoalescedFrame::default(), 0);
        for _ in 0..self.connections.ready().min(self.config.sends_per_turn_max) {
            let Some(slot) = self.connections.pop_ready() else { break };
            bytes += self.flush_connection(codecs, kernel, &mut coalesced, slot);
            if bytes >= SEND_BYTES_PER_TURN {
                break;
            }
        }
        self.ring_ops.drain(..).for_each(|op| kernel.submit(op));
        // This comes after the ring operations, which move the sockets of new links into the ring.
        self.flush_links(kernel);
        self.watch_sends(kernel);
    }

    /// Sends what is in the outbox of a connection; returns the number of bytes.
    fn flush_connection(
        &mut self,
        codecs: &mut Codecs,
        kernel: &mut impl Kernel,
        coalesced: &mut CoalescedFrame,
        slot: u32,
    ) -> usize {
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        if connection.is_sending() || connection.stage == Stage::Dead {
            connection.lagging = connection.is_sending();
            return 0;
        }
        if connection.outbox.is_empty() {
            self.flushed(codecs, slot);
            return 0;
        }
        let socket = connection.socket().expect("only connections with a socket are flushed");
        connection.sent = now;
        self.metrics.counters.add(Counter::Sends, 1);
        if let Some(frame) = connection.outbox.take_only() {
            let bytes = frame.len();
            // The frame is all that the connection counts.
            connection.in_flight_bytes = connection.outbox_bytes;
            connection.send = Some(kernel.send(socket, slot, frame));
            return bytes;
        }
        let frames = connection.outbox.take_first(FRAMES_PER_SEND_MAX);
        let (mut bytes, mut cost) = (0, 0);
        frames.iter().for_each(|frame| (bytes, cost) = (bytes + frame.len(), cost + frame.cost()));
        if bytes > COALESCED_BYTES_MAX {
            connection.send = Some(kernel.send_gathered(socket, slot, frames.into_iter().collect()));
            self.connections.started(slot, cost, cost);
            return bytes;
        }
        let frame = coalesced.coalesce(frames);
        let coalesced_cost = frame.cost();
        connection.send = Some(kernel.send(socket, slot, frame));
        self.connections.started(slot, cost, coalesced_cost);
        bytes
    }

    /// Handles a connection whose output has all been sent. If its end waited for the output, the end proceeds.
    fn flushed(&mut self, codecs: &mut Codecs, slot: u32) {
        let connection = self.connections.live_mut(slot);
        if connection.stage != Stage::Flushing {
            return;
        }
        if connection.input == Input::Ended {
            return self.abort(codecs, slot);
        }
        connection.stage = Stage::HalfClosed;
        connection.shutting_down = true;
        self.ring_ops.extend(connection.socket().map(|socket| RingOp::ShutDown(socket, slot)));
    }
}
