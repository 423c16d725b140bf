//! The end of a turn: what was queued and decided is handed to the ring. One send for each client with output,
//! however many events it got.

use super::connection::{OUTBOX_INLINE, Stage};
use super::state::State;
use crate::metrics::Counter;
use crate::qev::buffers::Frame;
use crate::qev::ring::{Descriptor, FRAMES_PER_SEND_MAX, Ring, Token};
use smallvec::SmallVec;
use std::os::fd::OwnedFd;

/// Bytes up to which the frames of one send are copied into one frame. A copy of this size costs less than the
/// kernel takes to walk an iovec, and is shared by all clients that have the same frames to send.
pub(super) const JOINED_BYTES_MAX: usize = 64 << 10;

/// The token of sockets that have no record: their completions interest nobody.
const NOBODY: Token = Token::MAX;

/// What the ring is to do, beside sends.
pub(super) enum RingOp {
    Receive(Descriptor, Token),
    ShutDown(Descriptor, Token),
    /// Cancels the receive, and the send where one is under way.
    Cancel {
        token: Token,
        sending: bool,
    },
    /// Closes a socket that has no record (any more).
    Discard(Descriptor),
    /// Puts a socket of the process into a place of the ring's that is reserved.
    Adopt(u32, OwnedFd),
    /// Takes it out again.
    Release(u32),
    AcceptAgain,
    StopListening,
}

/// What a turn asks of the kernel. The ring does it; tests put a kernel of their own in its place.
pub(super) trait Kernel {
    fn send(&mut self, socket: Descriptor, token: Token, frame: Frame);
    fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>);
    fn order(&mut self, order: RingOp);
}

impl Kernel for Ring {
    fn send(&mut self, socket: Descriptor, token: Token, frame: Frame) {
        Ring::send(self, socket, token, frame);
    }

    fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>) {
        Ring::send_gathered(self, socket, token, frames);
    }

    fn order(&mut self, order: RingOp) {
        match order {
            RingOp::Receive(socket, token) => self.receive(socket, token),
            RingOp::ShutDown(socket, token) => self.shut_down(socket, token),
            RingOp::Cancel { token, sending } => self.cancel(token, sending),
            RingOp::Discard(socket) => self.close(socket, NOBODY),
            RingOp::Adopt(place, socket) => {
                if let Err(error) = self.adopt(place, socket) {
                    // Its receive fails then, and so the link ends.
                    tracing::error!(%error, "the kernel does not take a worker's link");
                }
            }
            RingOp::Release(place) => self.release(place),
            RingOp::AcceptAgain => self.accept_again(),
            RingOp::StopListening => self.stop_listening(),
        }
    }
}

/// The frame that was joined last, and what it was joined from. In a fan-out most clients have the same frames to
/// send: it is made once. It lives for one turn.
#[derive(Default)]
pub(super) struct CoalescedFrame(Option<(SmallVec<[Frame; OUTBOX_INLINE]>, Frame)>);

impl CoalescedFrame {
    fn join(&mut self, frames: SmallVec<[Frame; OUTBOX_INLINE]>) -> Frame {
        if let Some((parts, joined)) = &self.0 {
            if parts.len() == frames.len()
                && parts.iter().zip(&frames).all(|(part, frame)| part.ptr_eq(frame))
            {
                return joined.clone();
            }
        }
        let joined = Frame::joined(&frames);
        self.0 = Some((frames, joined.clone()));
        joined
    }

    fn clear(&mut self) {
        self.0 = None;
    }
}

impl State {
    /// Hands everything to the ring, which submits it with the next call into the kernel. At most
    /// `sends-per-turn-max` sends: the others wait for the next turn, behind whatever was received meanwhile.
    pub fn flush(&mut self, kernel: &mut impl Kernel) {
        for _ in 0..self.ready.len().min(self.config.sends_per_turn_max) {
            let Some(slot) = self.ready.pop_front() else { break };
            self.flush_connection(kernel, slot);
        }
        self.joined.clear();
        self.ring_ops.drain(..).for_each(|order| kernel.order(order));
        // Behind the orders, by which new links come into the ring.
        self.flush_links(kernel);
    }

    fn flush_connection(&mut self, kernel: &mut impl Kernel, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.queued = false;
        if connection.sending || connection.stage == Stage::Dead {
            return;
        }
        if connection.outbox.is_empty() {
            return self.flushed(slot);
        }
        let Some(socket) = connection.socket() else { return };
        connection.sending = true;
        connection.sent = self.now;
        self.metrics.counters.add(Counter::Sends, 1);
        if connection.outbox.len() == 1 {
            let frame = connection.outbox.pop().expect("there is one");
            return kernel.send(socket, slot, frame);
        }
        let frames = std::mem::take(&mut connection.outbox);
        if frames.iter().map(Frame::len).sum::<usize>() <= JOINED_BYTES_MAX {
            return kernel.send(socket, slot, self.joined.join(frames));
        }
        let mut frames = frames.into_vec();
        if frames.len() > FRAMES_PER_SEND_MAX {
            connection.outbox = frames.split_off(FRAMES_PER_SEND_MAX).into();
        }
        kernel.send_gathered(socket, slot, frames);
    }

    /// Everything that was queued is sent. A connection that only waited for that goes on to its end.
    fn flushed(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if connection.stage != Stage::Flushing {
            return;
        }
        if !connection.receiving {
            return self.abort(slot);
        }
        connection.stage = Stage::HalfClosed;
        connection.shutting_down = true;
        self.ring_ops.extend(connection.socket().map(|socket| RingOp::ShutDown(socket, slot)));
    }
}
