//! The seam between a shard and the kernel: operations that a turn requests, and events that it receives back.
//!
//! The shard's ring implements it. Tests and benchmarks replace it with kernels of their own.

use super::receive_shares::ReceiveShares;
use crate::log::throttle;
use crate::qev::buffers::Frame;
use crate::qev::clock::{core_nanos, nanos};
use crate::qev::ring::{
    Completion, Descriptor, Doorbell, Errno, FrameBatch, PeerAddress, Ring, SendId, Token, Wait,
};
use crate::qev::shrink::List;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

/// The two ways of waking a shard.
#[derive(Clone)]
pub struct Wakeup {
    /// The ring to which another shard sends a message.
    pub ring: RawFd,
    /// The doorbell for threads, and for shards whose message fails.
    pub doorbell: Doorbell,
}

/// The token of operations on sockets that have no record. Nothing handles their completions.
const NO_RECORD: Token = Token::MAX;

/// The number of events from which on there may be more than one system call brings. Since Linux 6.14 it works through
/// at most 20 of those that wait, some of which concern no connection.
const EVENTS_AT_ONCE: usize = 16;

/// The first token of links to workers. Smaller tokens are slots of connections.
pub(super) const FIRST_LINK_TOKEN: Token = 1 << 31;

/// The record that a completion belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The connection in this slot.
    Connection(u32),
    /// The link with this index.
    Link(u32),
}

impl Owner {
    /// Decodes a token. Each token is decoded once, when its completion is handled.
    pub fn of(token: Token) -> Owner {
        match token.checked_sub(FIRST_LINK_TOKEN) {
            Some(index) => Owner::Link(index),
            None => Owner::Connection(token),
        }
    }
}

/// An operation for the ring, other than a send.
#[derive(Debug)]
pub(super) enum RingOp {
    /// Receives until the operation is cancelled or fails.
    Receive(Descriptor, Token),
    /// Waits until there is something to receive. This takes the place of a receive, which must have ended.
    AwaitInput(Descriptor, Token),
    /// Shuts down the sending direction.
    ShutDown(Descriptor, Token),
    /// Cancels the receive or the wait for input, and the send that is in flight.
    Cancel { token: Token, send: Option<SendId> },
    /// Cancels the receive or the wait for input only.
    CancelReceive(Token),
    /// Closes a socket that has no record, or no longer has one.
    Discard(Descriptor),
    /// Moves a socket of the process into a reserved place of the ring.
    Adopt(u32, OwnedFd),
    /// Frees a reserved place again.
    Release(u32),
    /// Accepts one connection from the listener with this number.
    Accept(usize),
    /// Closes the listening sockets.
    StopListening,
    /// Sets a mark behind everything that peers have sent so far.
    Mark,
}

/// An event from the kernel. Completions that concern no connection and no link are handled by the kernel itself.
#[derive(Debug)]
pub(super) enum IoEvent<'a> {
    /// A connection was accepted.
    Accepted { listener: usize, socket: Descriptor, peer: PeerAddress },
    /// An accept failed.
    AcceptFailed { listener: usize, error: Errno },
    /// Bytes were received. `ended`: the kernel has ended the receive, which must be submitted again.
    Received { token: Token, data: &'a mut [u8], ended: bool },
    /// There is something to receive, and no receive is in flight.
    InputReady { token: Token },
    /// The receive has ended without data, or the wait for input was cancelled.
    ReceiveEnded { token: Token, result: Result<(), Errno> },
    /// A send has completed.
    Sent { token: Token, result: Result<(), Errno>, frames: FrameBatch },
    /// The kernel has accepted a part of a send.
    SendProgressed { token: Token },
    /// The sending direction has been shut down.
    ShutDown { token: Token },
    /// Everything that had happened when the mark was set has been handled, apart from the exceptions of [`Ring::mark`].
    Marked,
}

/// The kernel, as one shard uses it.
pub(super) trait Kernel {
    /// Wakes another shard.
    fn ring_doorbell(&mut self, peer: usize);

    /// Submits everything that was requested, and waits for events as long as `wait` permits.
    ///
    /// # Errors
    ///
    /// The ring can no longer be used.
    fn enter(&mut self, wait: Wait) -> io::Result<()>;

    /// Passes each event that has occurred to `handle`, in order. `handle` returns by how many bytes the event was more work
    /// than the bytes that it brought.
    fn drain(&mut self, handle: impl FnMut(IoEvent<'_>) -> usize);

    /// Returns whether the events that were passed last are as many as come at once, so that there may be more.
    fn may_have_more(&self) -> bool {
        false
    }

    /// Sends one frame.
    fn send(&mut self, socket: Descriptor, token: Token, frame: Frame) -> SendId;

    /// Sends one frame to a socket that is closed as soon as the send has completed.
    fn send_last(&mut self, socket: Descriptor, token: Token, frame: Frame) -> SendId {
        self.send(socket, token, frame)
    }

    /// Sends several frames with one operation.
    fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>) -> SendId;

    /// The number of sends in flight.
    fn sends_in_flight(&self) -> usize;

    /// Visits sends in flight; see [`Ring::visit_sends`].
    fn visit_sends(&self, from: usize, count: usize, each: impl FnMut(Token)) -> Option<usize>;

    /// Requests an operation other than a send.
    fn submit(&mut self, op: RingOp);

    /// Returns how often the submission queue was full since the last call.
    fn take_submissions_full(&mut self) -> u64;

    /// Gives back the memory that only a turn with many events has needed.
    fn give_back(&mut self) {}
}

/// A shard's ring, and the rings of its peers.
///
/// Invariant: between turns, `completions` has only completions of receives that were deferred, and a mark behind them. For
/// the shard they have not occurred yet.
pub(super) struct RingKernel {
    ring: Ring,
    peers: Arc<[Wakeup]>,
    completions: Vec<Completion>,
    /// Memory for the next list of completions, kept from turn to turn.
    spare: Vec<Completion>,
    shares: ReceiveShares,
    /// The number of completions that were passed in this turn, or deferred.
    drained: usize,
}

impl RingKernel {
    /// A kernel interface without peers.
    pub fn new(ring: Ring) -> RingKernel {
        RingKernel {
            ring,
            peers: Arc::new([]),
            completions: Vec::new(),
            spare: Vec::new(),
            shares: ReceiveShares::new(FIRST_LINK_TOKEN),
            drained: 0,
        }
    }

    /// Adds the listeners, whose numbers count from 0. Each may have `accepts` accepts in flight. `peers` are all shards
    /// in order, this one among them.
    pub fn start(&mut self, listeners: Vec<OwnedFd>, accepts: u16, peers: Arc<[Wakeup]>) {
        self.peers = peers;
        for listener in listeners {
            self.ring.listen(listener, accepts);
        }
    }

    /// Returns whether a completion is handled in this turn. Only those of receives, and a mark behind them, can be deferred.
    fn admit(&mut self, completion: &Completion) -> bool {
        match completion {
            Completion::Received { token, buffer, .. } => {
                self.shares.admit(*token, buffer.len(), nanos, core_nanos)
            }
            Completion::ReceiveEnded { token, .. } => !self.shares.is_deferred(*token),
            // Data that was deferred in this turn is older than the mark.
            Completion::Marked => self.completions.is_empty(),
            _ => true,
        }
    }

    fn complete(&mut self, completion: Completion, handle: &mut impl FnMut(IoEvent<'_>) -> usize) {
        let _ = match completion {
            Completion::Accepted { listener, socket, peer } => {
                handle(IoEvent::Accepted { listener, socket, peer })
            }
            Completion::AcceptFailed { listener, error } => handle(IoEvent::AcceptFailed { listener, error }),
            Completion::Received { token, buffer, ended } => {
                let work = handle(IoEvent::Received { token, data: self.ring.data(&buffer), ended });
                self.ring.recycle(buffer);
                self.shares.charge(token, work);
                0
            }
            Completion::InputReady { token } => handle(IoEvent::InputReady { token }),
            Completion::ReceiveEnded { token, result } => handle(IoEvent::ReceiveEnded { token, result }),
            Completion::Sent { token, result, frames } => handle(IoEvent::Sent { token, result, frames }),
            Completion::SendProgressed { token } => handle(IoEvent::SendProgressed { token }),
            Completion::ShutDown { token } => handle(IoEvent::ShutDown { token }),
            Completion::Marked => handle(IoEvent::Marked),
            Completion::DoorbellFailed { ring, .. } => {
                if let Some(peer) = self.peers.iter().find(|peer| peer.ring == ring) {
                    peer.doorbell.ring();
                }
                0
            }
            Completion::Woken | Completion::Closed { .. } => 0,
        };
    }
}

impl Kernel for RingKernel {
    fn ring_doorbell(&mut self, peer: usize) {
        self.ring.ring_peer(self.peers[peer].ring);
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let wait = if self.completions.is_empty() { wait } else { Wait::No };
        self.ring.turn(wait, &mut self.completions)
    }

    fn drain(&mut self, mut handle: impl FnMut(IoEvent<'_>) -> usize) {
        let mut completions = std::mem::replace(&mut self.completions, std::mem::take(&mut self.spare));
        self.shares.begin_turn();
        self.drained = completions.len();
        for completion in completions.drain(..) {
            if self.admit(&completion) {
                self.complete(completion, &mut handle);
            } else {
                self.completions.push(completion);
            }
        }
        self.spare = completions;
    }

    fn may_have_more(&self) -> bool {
        self.drained >= EVENTS_AT_ONCE
    }

    fn send(&mut self, socket: Descriptor, token: Token, frame: Frame) -> SendId {
        self.ring.send(socket, token, frame)
    }

    fn send_last(&mut self, socket: Descriptor, token: Token, frame: Frame) -> SendId {
        self.ring.send_last(socket, token, frame)
    }

    fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>) -> SendId {
        self.ring.send_gathered(socket, token, frames)
    }

    fn sends_in_flight(&self) -> usize {
        self.ring.sends_in_flight()
    }

    fn visit_sends(&self, from: usize, count: usize, each: impl FnMut(Token)) -> Option<usize> {
        self.ring.visit_sends(from, count, each)
    }

    fn submit(&mut self, op: RingOp) {
        match op {
            RingOp::Receive(socket, token) => self.ring.receive(socket, token),
            RingOp::AwaitInput(socket, token) => self.ring.await_input(socket, token),
            RingOp::ShutDown(socket, token) => self.ring.shut_down(socket, token),
            RingOp::Cancel { token, send } => self.ring.cancel(token, send),
            RingOp::CancelReceive(token) => self.ring.cancel(token, None),
            RingOp::Discard(socket) => self.ring.discard(socket, NO_RECORD),
            RingOp::Adopt(place, socket) => {
                if let Err(error) = self.ring.adopt(place, socket) {
                    // The link's receive fails next, which ends the link.
                    throttle!(error, "link to a worker", %error,
                        "the kernel refused the socket of a link to a worker; the link ends");
                }
            }
            RingOp::Release(place) => self.ring.release(place),
            RingOp::Accept(listener) => self.ring.accept(listener),
            RingOp::StopListening => self.ring.stop_listening(),
            RingOp::Mark => self.ring.mark(),
        }
    }

    fn take_submissions_full(&mut self) -> u64 {
        self.ring.take_submission_overflows()
    }

    fn give_back(&mut self) {
        self.ring.give_back();
        self.completions.give_back();
        self.spare.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_connections_or_links() {
        assert_eq!(Owner::of(7), Owner::Connection(7));
        assert_eq!(Owner::of(FIRST_LINK_TOKEN - 1), Owner::Connection(FIRST_LINK_TOKEN - 1));
        assert_eq!(Owner::of(FIRST_LINK_TOKEN), Owner::Link(0));
        assert_eq!(Owner::of(FIRST_LINK_TOKEN + 3), Owner::Link(3));
    }
}
