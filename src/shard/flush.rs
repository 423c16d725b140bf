//! The end of a turn: the queued output goes to the kernel, with one send for each client, regardless of the
//! number of its events.

use super::codecs::Codecs;
use super::connection::{Input, Stage};
use super::connections::QueueEntry;
use super::frames::{COALESCED_BYTES_MAX, CoalescedFrame};
use super::kernel::{Kernel, RingOp};
use super::state::State;
use crate::metrics::Counter;
use crate::qev::ring::FRAMES_PER_SEND_MAX;

/// The number of bytes after which only small outputs are sent in a turn. The kernel copies all of them in one system
/// call, which takes a millisecond or two for these, and more if it has to find the memory first.
const SEND_BYTES_PER_TURN: usize = 2 << 20;

/// The cost, in bytes, up to which an output is small. Small outputs are not held up by those of other clients that are
/// sent much: 1024 of them are 4 MiB at most.
const SMALL_OUTPUT_BYTES: usize = 4 << 10;

/// The number of connections that are looked at for each that may be flushed in a turn.
const LOOKS_PER_SEND: usize = 4;

impl State {
    /// Hands everything to the kernel, which gets it with the next system call. At most `sends-per-turn-max`
    /// connections are flushed, and only small outputs after `SEND_BYTES_PER_TURN`. The others follow in the next turn,
    /// after the input that was received meanwhile.
    pub fn flush(&mut self, codecs: &mut Codecs, kernel: &mut impl Kernel) {
        let (mut coalesced, mut bytes, mut flushed) = (CoalescedFrame::default(), 0, 0);
        let sends_max = self.config.sends_per_turn_max;
        for _ in 0..self.connections.ready().min(sends_max.saturating_mul(LOOKS_PER_SEND)) {
            if flushed == sends_max {
                break;
            }
            let Some(next) = self.connections.pop_ready() else { break };
            let bytes_max = if bytes < SEND_BYTES_PER_TURN { usize::MAX } else { SMALL_OUTPUT_BYTES };
            let Some(sent) = self.flush_connection(codecs, kernel, &mut coalesced, next, bytes_max) else {
                continue;
            };
            bytes += sent;
            flushed += 1;
        }
        self.ring_ops.drain(..).for_each(|op| kernel.submit(op));
        // This comes after the ring operations, which move the sockets of new links into the ring.
        self.flush_links(kernel);
        self.watch_sends(kernel);
    }

    /// Sends what is in the outbox of a connection that was taken from the queue; returns the number of bytes, or `None` if
    /// the connection no longer exists, or has more than `bytes_max` to send and was put back.
    fn flush_connection(
        &mut self,
        codecs: &mut Codecs,
        kernel: &mut impl Kernel,
        coalesced: &mut CoalescedFrame,
        next: QueueEntry,
        bytes_max: usize,
    ) -> Option<usize> {
        let (slot, now) = (next.slot, self.time.now());
        let connection = self.connections.leave_queue(next)?;
        if connection.outbox_bytes as usize > bytes_max {
            self.connections.queue_for_flush(slot);
            return None;
        }
        if connection.is_sending() || connection.stage == Stage::Dead {
            connection.lagging = connection.is_sending();
            return Some(0);
        }
        if connection.is_tls() {
            return Some(self.flush_tls(codecs, kernel, slot));
        }
        if connection.outbox.is_empty() {
            self.flushed(codecs, slot);
            return Some(0);
        }
        let socket = connection.socket().expect("only connections with a socket are flushed");
        connection.sent = now;
        self.metrics.counters.add(Counter::Sends, 1);
        if let Some(frame) = connection.outbox.take_only() {
            let bytes = frame.len();
            // The frame is all that the connection counts.
            connection.in_flight_bytes = connection.outbox_bytes;
            let send = match connection.closes_behind_output() {
                true => kernel.send_last(socket, slot, frame),
                false => kernel.send(socket, slot, frame),
            };
            connection.send = Some(send);
            return Some(bytes);
        }
        let frames = connection.outbox.take_first(FRAMES_PER_SEND_MAX);
        let (mut bytes, mut cost) = (0, 0);
        frames.iter().for_each(|frame| (bytes, cost) = (bytes + frame.len(), cost + frame.cost()));
        if bytes > COALESCED_BYTES_MAX {
            connection.send = Some(kernel.send_gathered(socket, slot, frames.into_iter().collect()));
            self.connections.started(slot, cost, cost);
            return Some(bytes);
        }
        let frame = coalesced.coalesce(frames);
        let coalesced_cost = frame.cost();
        connection.send = Some(kernel.send(socket, slot, frame));
        self.connections.started(slot, cost, coalesced_cost);
        Some(bytes)
    }

    /// Handles a connection whose output has all been sent. If its end waited for the output, the end proceeds.
    pub fn flushed(&mut self, codecs: &mut Codecs, slot: u32) {
        let connection = self.connections.live_mut(slot);
        if connection.stage != Stage::Flushing {
            return;
        }
        match connection.input {
            Input::Ended => return self.abort(codecs, slot),
            // The end of the receive is a moment away.
            Input::Stopping => return,
            Input::Armed | Input::Cancelling | Input::Paused | Input::Retiring | Input::Dormant => {}
        }
        connection.stage = Stage::HalfClosed;
        connection.shutting_down = true;
        self.ring_ops.extend(connection.socket().map(|socket| RingOp::ShutDown(socket, slot)));
    }
}
