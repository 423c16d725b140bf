//! The receiving side of the connections to all peers.
//!
//! A sender creates its rings when it needs them, and hands the receiver the other end of each: [`Arrivals`]. The receiver
//! empties one ring before it looks into the next one, which has the later messages.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::SegQueue;
use rtrb::Consumer;

use super::shard_set::{AtomicShardSet, ShardSet};

/// The notes and ends of rings that senders leave for one shard beside the messages, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Arrivals<M> {
    /// The senders that have put a message into a ring, or have given a ring back, since the shard last looked.
    senders: AtomicShardSet,
    /// The ends of new rings, with their senders. A sender has at most two times as many slots as `ring_messages` in
    /// all of its rings, and each ring is twice as large as the one before: there are few.
    rings: SegQueue<(usize, Consumer<M>)>,
    /// `false` after the shard has dropped its port.
    open: AtomicBool,
}

impl<M> Arrivals<M> {
    pub fn new() -> Self {
        Self { senders: AtomicShardSet::default(), rings: SegQueue::new(), open: AtomicBool::new(true) }
    }

    /// Notes that a sender has put a message into its ring, or has given its ring back.
    ///
    /// The receiver may remove the note and look into the ring at any time, so that each message needs a note of its own.
    #[inline]
    pub fn note(&self, from: usize) {
        self.senders.insert(from);
    }

    /// Hands over the end of a new ring. To be called before the first message is put into it and noted.
    pub fn hand_over(&self, from: usize, ring: Consumer<M>) {
        self.rings.push((from, ring));
        // Either `close` finds the ring, or this function finds that the port was dropped.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            self.discard();
        }
    }

    /// Returns whether the shard has dropped its port.
    pub fn is_closed(&self) -> bool {
        !self.open.load(Ordering::Relaxed)
    }

    /// Notes that the shard drops its port.
    pub fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.discard();
    }

    fn discard(&self) {
        while self.rings.pop().is_some() {}
    }
}

/// The receiving ends of the rings from one peer, in the order in which they were created. There is no ring before the
/// first message.
pub(super) struct IncomingRings<M> {
    ring: Option<Consumer<M>>,
    later: VecDeque<Consumer<M>>,
}

impl<M> IncomingRings<M> {
    pub const fn new() -> Self {
        Self { ring: None, later: VecDeque::new() }
    }

    /// Removes the next message.
    #[inline]
    pub fn pop(&mut self) -> Option<M> {
        loop {
            if let Some(message) = self.ring.as_mut().and_then(|ring| ring.pop().ok()) {
                return Some(message);
            }
            // The sender put nothing more into the ring after it had handed over a later one.
            self.ring = Some(self.later.pop_front()?);
        }
    }

    /// Returns whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.ring.iter().chain(&self.later).all(Consumer::is_empty)
    }

    /// Frees the ring if its sender has given it back.
    pub fn free_returned(&mut self) {
        if self.later.is_empty() && self.ring.as_ref().is_some_and(Consumer::is_abandoned) {
            // The sender may have put a last message into the ring before it ended.
            fence(Ordering::Acquire);
            if self.is_empty() {
                *self = Self::new();
            }
        }
    }

    /// Returns the number of messages for which there is memory.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.ring.iter().chain(&self.later).map(|ring| ring.buffer().capacity()).sum()
    }
}

/// Takes what senders have left: adds the senders to `pending`, and new rings to the rings of their senders.
#[inline]
pub(super) fn collect<M>(arrivals: &Arrivals<M>, pending: &mut ShardSet, incoming: &mut [IncomingRings<M>]) {
    // Usually nobody has sent anything.
    if !arrivals.senders.is_empty() {
        collect_noted(arrivals, pending, incoming);
    }
}

fn collect_noted<M>(arrivals: &Arrivals<M>, pending: &mut ShardSet, incoming: &mut [IncomingRings<M>]) {
    *pending |= arrivals.senders.take();
    // A new ring is handed over before its first message is noted.
    while !arrivals.rings.is_empty() {
        let Some((from, ring)) = arrivals.rings.pop() else { break };
        incoming[from].later.push_back(ring);
    }
}
