//! The end of a turn: the queued output goes to the kernel, with one send for each client, regardless of the
//! number of its events.

use super::codecs::Codecs;
use super::connection::{Input, Stage};
use super::frames::{COALESCED_BYTES_MAX, CoalescedFrame};
use super::kernel::{Kernel, RingOp};
use super::state::State;
use crate::metrics::Counter;
use crate::qev::buffers::Frame;
use crate::qev::ring::FRAMES_PER_SEND_MAX;

impl State {
    /// Hands everything to the kernel, which gets it with the next system call. At most `sends-per-turn-max`
    /// connections are flushed; the others follow in the next turn, after the input that was received meanwhile.
    pub fn flush(&mut self, codecs: &mut Codecs, kernel: &mut impl Kernel) {
        let mut coalesced = CoalescedFrame::default();
        for _ in 0..self.connections.ready().min(self.config.sends_per_turn_max) {
            let Some(slot) = self.connections.pop_ready() else { break };
            self.flush_connection(codecs, kernel, &mut coalesced, slot);
        }
        self.ring_ops.drain(..).for_each(|op| kernel.submit(op));
        // This comes after the ring operations, which move the sockets of new links into the ring.
        self.flush_links(kernel);
    }

    fn flush_connection(
        &mut self,
        codecs: &mut Codecs,
        kernel: &mut impl Kernel,
        coalesced: &mut CoalescedFrame,
        slot: u32,
    ) {
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        if connection.sending || connection.stage == Stage::Dead {
            return;
        }
        if connection.outbox.is_empty() {
            return self.flushed(codecs, slot);
        }
        let socket = connection.socket().expect("only connections with a socket are flushed");
        connection.sending = true;
        connection.sent = now;
        self.metrics.counters.add(Counter::Sends, 1);
        if connection.outbox.len() == 1 {
            let frame = connection.outbox.pop().expect("the outbox has one frame");
            return kernel.send(socket, slot, frame);
        }
        let frames = std::mem::take(&mut connection.outbox);
        if frames.iter().map(Frame::len).sum::<usize>() <= COALESCED_BYTES_MAX {
            return kernel.send(socket, slot, coalesced.coalesce(frames));
        }
        let mut frames = frames.into_vec();
        if frames.len() > FRAMES_PER_SEND_MAX {
            connection.outbox = frames.split_off(FRAMES_PER_SEND_MAX).into();
        }
        kernel.send_gathered(socket, slot, frames);
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
