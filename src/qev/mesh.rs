//! The mesh, through which shards send each other messages without locks, without waiting and without losing a wake-up.
//!
//! Each ordered pair of shards has its own single-producer single-consumer rings, usually one. Each shard owns its ends of
//! the rings: its [`Port`]. In each turn a shard calls these methods, in any order:
//!
//! ```text
//! end_sleep    after it slept
//! receive      handles messages from other shards
//! send         any number of times
//! flush        moves messages that did not fit into rings that have room again
//! doorbells    tells which sleeping peers to wake, once for all messages of the turn
//! try_sleep    asks whether the shard may block
//! ```
//!
//! # Rings that grow
//!
//! A mesh of 54 shards has 2,862 pairs, most of which have little to say to each other, and a full ring of 4096 messages
//! takes a quarter of a MiB. A pair therefore has no ring before its first message, then one of a few messages. A sender
//! whose ring is full puts the next message into a new one of twice the size, and hands its other end to the receiver. The
//! receiver goes on to the new ring when the old one is empty, and both free the old one. The rings of a pair hold
//! `ring_messages` together, and behave as one ring of this size: everything below says "ring" for all of them. A ring
//! that has grown and is hardly used is given back ([`Port::flush`]).
//!
//! A shard does not look into the rings of all others in each turn. A sender notes itself with its receiver (`Arrivals`)
//! after each message, and the receiver looks into the rings of the senders that it has found there. In `qev/bell.rs`, W1
//! is the message and this note, and L2 the look at the notes.
//!
//! # Full rings
//!
//! Sending never waits. If there is no room for a message, it goes to an overflow queue, of which the sender has one
//! for each peer and class. [`Port::flush`] moves messages from these queues to the ring when the peer has received
//! others. There are two classes:
//!
//! - **Data** may use seven eighths of the ring, and then an overflow queue of `overflow_bytes_max`. If the queue is
//!   full too, the message is refused, and the sender must report this.
//! - **Control** may use the whole ring. It therefore overtakes Data that waits in the overflow queue. It is never
//!   refused.
//!
//! The port knows for each message in an overflow queue what has caused it ([`LoadSource`]) and what it costs. The sender
//! must keep each source within a share of the overflow ([`Port::share`]), by not listening to it while it is beyond.
//! This bounds the overflow of both classes, and keeps the sources from delaying each other.
//!
//! Order: messages of the same class from one shard to another arrive in the order in which they were sent, and no Data
//! arrives before Control that was sent earlier. Messages to a shard that has ended (its port was dropped) are refused
//! or dropped. All messages are counted: [`MeshCounters`].
//!
//! # Sleeping
//!
//! `qev/bell.rs` explains why no wake-up is lost. A shard may sleep while it has messages in overflow queues; it is
//! woken when there is room for them.

mod incoming;
mod outgoing;
mod shard_set;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use ahash::AHashMap;

use self::incoming::{Arrivals, IncomingRings};
use self::outgoing::Outgoing;
use self::shard_set::ShardSet;
use super::bell::Bell;
pub use super::bell::Waker;
use super::inbox::{self, Inbox, Mailbox, MessageSource};
use crate::limits::SHARDS_MAX;

/// The sizes of a mesh.
#[derive(Clone, Copy, Debug)]
pub struct MeshSettings {
    /// The number of messages that may be on their way from one shard to another, at least 1. In a ring of one message
    /// there is no difference between Control and Data.
    pub ring_messages: usize,
    /// The cost in bytes of the Data messages in the overflow queue for each peer at which more are refused.
    pub overflow_bytes_max: usize,
}

/// The source of a message, such as a connection. The caller numbers its sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadSource(pub u64);

/// The source of a message, and the cost of the message while it is in an overflow queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The source of the message.
    pub source: LoadSource,
    /// The memory in bytes that the message refers to. The port adds the message itself and its place in the queue.
    pub bytes: usize,
}

/// The part of `overflow_bytes_max` that all sources together may use before their shares become smaller: a sixteenth.
/// The messages of one source wait behind those of all others, so the overflow must stay short.
const SHARED_FRACTION: usize = 16;

/// The part of `overflow_bytes_max` that the share of a source is at most: a sixty-fourth.
const SHARE_MAX_FRACTION: usize = 64;

/// The part of `overflow_bytes_max` that the share of a source is at least.
const SHARE_MIN_FRACTION: usize = 4096;

/// The number of turns between two searches for rings that have grown and are hardly used. A busy shard takes a thousand
/// turns in a second or two; the rings of a burst are not given back between two of its parts.
const GIVE_BACK_INTERVAL: u32 = 1024;

/// The class of a message, which decides what happens to it when the ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Never refused by a shard that runs, because the shards would disagree from then on.
    Control,
    /// Refused if the peer does not keep up.
    Data,
}

/// The outcome of sending a message.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a refused message is lost unless the sender reports it"]
pub enum SendOutcome<M> {
    /// The message is in the peer's ring.
    Queued,
    /// The message is in an overflow queue of the sender until there is room.
    Overflowed,
    /// The message was not sent: the overflow queue is full too, or the peer has ended.
    Refused(M),
}

/// The counters of a port since its creation. They count messages, except for `doorbells`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshCounters {
    /// Messages that were queued or overflowed.
    pub sent: u64,
    /// Messages that were received.
    pub received: u64,
    /// Messages that were sent but had to wait for room.
    pub overflowed: u64,
    /// Messages that were not sent.
    pub refused: u64,
    /// Messages that overflowed and were dropped because the peer ended.
    pub dropped: u64,
    /// Sleeping peers that had to be woken.
    pub doorbells: u64,
}

/// Returns the ports of a mesh of `shards` shards, in the order of the shards.
///
/// ```
/// use quickio::qev::mesh::{Class, MeshSettings, SendOutcome, mesh};
///
/// let mut ports = mesh(2, MeshSettings { ring_messages: 1024, overflow_bytes_max: 1 << 20 });
/// let (mut one, mut zero) = (ports.pop().unwrap(), ports.pop().unwrap());
///
/// assert!(one.try_sleep()); // shard 1 has nothing to do and may block
/// assert_eq!(zero.send(1, "hello", Class::Data), SendOutcome::Queued);
/// let mut to_wake = Vec::new();
/// zero.doorbells(|peer| to_wake.push(peer));
/// assert_eq!(to_wake, [1]); // shard 0 must wake shard 1
///
/// one.end_sleep();
/// assert_eq!(one.receive(100, |from, message| assert_eq!((from, message), (0, "hello"))), 1);
/// ```
///
/// # Panics
///
/// Panics unless there are 1 to [`SHARDS_MAX`] shards, and each ring holds at least one message.
pub fn mesh<M: Send>(shards: usize, settings: MeshSettings) -> Vec<Port<M>> {
    assert!((1..=SHARDS_MAX).contains(&shards), "a mesh has 1 to {SHARDS_MAX} shards, not {shards}");
    assert!(settings.ring_messages > 0, "a ring must hold at least one message");
    let bells: Vec<Arc<Bell>> = (0..shards).map(|_| Arc::default()).collect();
    let arrivals: Vec<Arc<Arrivals<M>>> = (0..shards).map(|_| Arc::new(Arrivals::new())).collect();
    (0..shards).map(|shard| Port::new(shard, bells.clone(), arrivals.clone(), settings)).collect()
}

/// The end of the mesh that belongs to one shard. It is moved to the shard's thread, which alone uses it.
///
/// A shard may send messages to itself as to any other shard.
///
/// Invariants, asserted by [`check`](Port::check):
///
/// - There is one `outgoing`, one `incoming`, one bell and one `arrivals` for each shard of the mesh.
/// - A sender with messages in its rings is in `pending`, or noted in this shard's `arrivals`.
/// - `growing` has the peers to which there is more than one ring, and `grown` those to which a ring is not the smallest.
/// - `overflowing` is the set of the peers for which a message is in an overflow queue.
/// - `charges` has the sum of the costs of each source's messages in overflow queues, and no other sources.
/// - A message is in an overflow queue, was dropped, or left the queue for the ring: `overflowed` counts all three, and
///   `sent` counts these and the messages that went to the ring at once.
pub struct Port<M> {
    shard: usize,
    overflow_bytes_max: usize,
    /// The cost of the messages in overflow queues, by source.
    charges: AHashMap<LoadSource, usize>,
    /// The outgoing side of each peer.
    outgoing: Vec<Outgoing<M>>,
    /// The receiving side of each peer.
    incoming: Vec<IncomingRings<M>>,
    /// The peers from which messages may wait, as far as this port has looked at its arrivals.
    pending: ShardSet,
    /// The arrivals of each shard, this one included.
    arrivals: Vec<Arc<Arrivals<M>>>,
    growing: ShardSet,
    grown: ShardSet,
    /// The number of calls of [`Port::flush`] until it looks for rings to give back.
    give_back_in: u32,
    inboxes: Vec<Arc<dyn MessageSource>>,
    /// The bell of each shard, this one included.
    bells: Vec<Arc<Bell>>,
    overflowing: ShardSet,
    /// Peers into whose rings a message was put since the last call of [`Port::doorbells`].
    sent_to: ShardSet,
    /// Peers from whose rings a message was removed since the last call of [`Port::doorbells`].
    received_from: ShardSet,
    /// The peer whose messages the next call of [`Port::receive`] handles first.
    next_sender: usize,
    counters: MeshCounters,
}

impl<M> Port<M> {
    fn new(
        shard: usize,
        bells: Vec<Arc<Bell>>,
        arrivals: Vec<Arc<Arrivals<M>>>,
        settings: MeshSettings,
    ) -> Self {
        let shards = bells.len();
        Self {
            shard,
            overflow_bytes_max: settings.overflow_bytes_max,
            charges: AHashMap::new(),
            outgoing: (0..shards).map(|_| Outgoing::new(settings.ring_messages)).collect(),
            incoming: (0..shards).map(|_| IncomingRings::new()).collect(),
            pending: ShardSet::default(),
            arrivals,
            growing: ShardSet::default(),
            grown: ShardSet::default(),
            give_back_in: GIVE_BACK_INTERVAL,
            inboxes: Vec::new(),
            bells,
            overflowing: ShardSet::default(),
            sent_to: ShardSet::default(),
            received_from: ShardSet::default(),
            next_sender: 0,
            counters: MeshCounters::default(),
        }
    }

    /// Returns the shard that owns this port.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Returns the number of shards in the mesh.
    pub fn shards(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends a message to shard `to` without waiting, as [`Port::send_weighed`] with a message that refers to no memory
    /// and is of no particular source.
    ///
    /// # Panics
    ///
    /// Panics if there is no shard `to`.
    pub fn send(&mut self, to: usize, message: M, class: Class) -> SendOutcome<M> {
        self.send_weighed(to, message, class, |_| Load::default())
    }

    /// Sends a message to shard `to` without waiting. [`Port::doorbells`] wakes that shard. `weigh` is only called if
    /// the message has to wait.
    ///
    /// # Panics
    ///
    /// Panics if there is no shard `to`.
    #[inline]
    pub fn send_weighed(
        &mut self,
        to: usize,
        message: M,
        class: Class,
        weigh: impl FnOnce(&M) -> Load,
    ) -> SendOutcome<M> {
        let must_wait = self.overflowing.contains(to) && self.outgoing[to].must_wait(class);
        if must_wait || !self.outgoing[to].has_room(class) {
            let load = weigh(&message);
            return self.overflow(to, message, class, load);
        }
        let (arrivals, shard) = (&self.arrivals[to], self.shard);
        let mut grows = false;
        self.outgoing[to].push(message, |ring| {
            grows = true;
            arrivals.hand_over(shard, ring);
        });
        arrivals.note(shard);
        if grows {
            self.mark_growth(to);
        }
        self.sent_to.insert(to);
        self.counters.sent += 1;
        SendOutcome::Queued
    }

    /// Moves messages from the overflow queues to the rings that have room again, and frees rings that are no longer
    /// needed. To be called in every turn.
    #[inline]
    pub fn flush(&mut self) {
        if !self.overflowing.is_empty() {
            self.flush_overflow();
        }
        if !self.growing.is_empty() {
            self.drop_emptied_rings();
        }
        if !self.grown.is_empty() {
            self.give_back_rings();
        }
    }

    fn flush_overflow(&mut self) {
        let mut peers = self.overflowing;
        while let Some(to) = peers.pop_first() {
            let (outgoing, charges) = (&mut self.outgoing[to], &mut self.charges);
            let (arrivals, shard) = (&self.arrivals[to], self.shard);
            let mut grows = false;
            let hand_over = |ring| {
                grows = true;
                arrivals.hand_over(shard, ring);
            };
            if outgoing.flush(|load| discharge(charges, load), hand_over) {
                arrivals.note(shard);
                self.sent_to.insert(to);
            }
            if arrivals.is_closed() {
                self.counters.dropped += outgoing.overflow_len() as u64;
                outgoing.drop_overflow(|load| discharge(charges, load));
            }
            if outgoing.overflow_len() == 0 {
                self.overflowing.remove(to);
            }
            if grows {
                self.mark_growth(to);
            }
        }
    }

    /// Notes that there is a new ring to shard `to`.
    #[cold]
    fn mark_growth(&mut self, to: usize) {
        self.growing.insert(to);
        if self.outgoing[to].has_grown() {
            self.grown.insert(to);
        }
    }

    /// Drops the rings that were followed by larger ones and that their receivers have emptied.
    fn drop_emptied_rings(&mut self) {
        let mut peers = self.growing;
        while let Some(to) = peers.pop_first() {
            if !self.outgoing[to].drop_emptied() {
                self.growing.remove(to);
            }
        }
    }

    /// Gives back rings that have grown and are hardly used. Their receivers free their ends when they next look; they
    /// are not woken for it.
    fn give_back_rings(&mut self) {
        self.give_back_in -= 1;
        if self.give_back_in > 0 {
            return;
        }
        self.give_back_in = GIVE_BACK_INTERVAL;
        let mut peers = self.grown;
        while let Some(to) = peers.pop_first() {
            if self.outgoing[to].give_back() {
                self.grown.remove(to);
                self.arrivals[to].note(self.shard);
            }
        }
    }

    /// Returns `true` if there are messages in the overflow queues.
    #[inline]
    pub fn has_overflow(&self) -> bool {
        !self.overflowing.is_empty()
    }

    /// Returns the number of messages in the overflow queues.
    pub fn overflow_len(&self) -> usize {
        self.outgoing.iter().map(Outgoing::overflow_len).sum()
    }

    /// Returns the cost of the messages in the overflow queues for shard `to`, in bytes.
    pub fn overflow_bytes(&self, to: usize) -> usize {
        self.outgoing[to].overflow_bytes()
    }

    /// Returns whether Data to shard `to` would be refused if the ring has no room.
    pub fn is_full(&self, to: usize) -> bool {
        self.outgoing[to].data_overflow_bytes() >= self.overflow_bytes_max
    }

    /// Returns the cost in bytes of the messages in overflow queues that this source has caused.
    pub fn charge(&self, source: LoadSource) -> usize {
        self.charges.get(&source).copied().unwrap_or(0)
    }

    /// Returns the cost in bytes beyond which a source must be kept from causing more messages. The more sources have
    /// messages in the overflow queues, the smaller it is.
    pub fn share(&self) -> usize {
        let each = self.overflow_bytes_max / SHARED_FRACTION / self.charges.len().max(1);
        let least = self.overflow_bytes_max / SHARE_MIN_FRACTION;
        each.clamp(least, self.overflow_bytes_max / SHARE_MAX_FRACTION)
    }

    /// Receives up to `max` messages and passes each to `handle`, with the number of its sender. Returns the number of
    /// messages.
    ///
    /// If messages are left, the next call begins with the next sender.
    pub fn receive(&mut self, max: usize, mut handle: impl FnMut(usize, M)) -> usize {
        incoming::collect(&self.arrivals[self.shard], &mut self.pending, &mut self.incoming);
        let mut senders = self.pending;
        let mut received = 0;
        while received < max {
            let Some(from) = senders.pop_first_from(self.next_sender) else { return received };
            received += self.receive_from(from, max - received, &mut handle);
            if received == max {
                self.next_sender = if from + 1 == self.incoming.len() { 0 } else { from + 1 };
            }
        }
        received
    }

    /// Calls `ring` for each peer that must be woken. These are the peers that sleep, or are about to, and
    ///
    /// - were sent a message since the last call, or
    /// - wait for room in a ring from which a message was removed since the last call.
    ///
    /// The caller must wake each of them soon and in any case, because no other shard will. If a doorbell fails, the
    /// caller must use another.
    pub fn doorbells(&mut self, mut ring: impl FnMut(usize)) {
        if self.owes_doorbells() {
            // This fence is F1 in `qev/bell.rs`: it stands between the messages that were sent and removed, and the
            // check which shards sleep.
            fence(Ordering::SeqCst);
        }
        while let Some(peer) = self.sent_to.pop_first() {
            if self.grown.contains(peer) {
                self.outgoing[peer].note_peak();
            }
            if self.bells[peer].must_ring() {
                self.counters.doorbells += 1;
                ring(peer);
            }
        }
        while let Some(peer) = self.received_from.pop_first() {
            if self.bells[peer].must_ring_starving() {
                self.counters.doorbells += 1;
                ring(peer);
            }
        }
    }

    /// Announces that this shard will sleep.
    ///
    /// If this returns `true`, the shard may block until its doorbell rings or for as long as it likes, and then calls
    /// [`Port::end_sleep`]. Between these two calls the shard may look at things of its own, but it must not consume
    /// the signal of its doorbell.
    ///
    /// If this returns `false`, the shard is still awake and must take another turn, because
    ///
    /// - a message waits to be received,
    /// - there is room for a message in an overflow queue,
    /// - a thread left a note ([`Waker`]), or
    /// - [`Port::doorbells`] was not called since a message was sent or received.
    #[must_use = "a shard that blocks although this returned `false` may never wake up"]
    pub fn try_sleep(&mut self) -> bool {
        // This check could be left to the one below, but then a busy shard would make others ring for nothing.
        if self.owes_doorbells() || self.has_work() {
            return false;
        }
        if !self.bells[self.shard].announce_sleep(self.has_overflow()) {
            return false;
        }
        if self.has_work() {
            self.end_sleep();
            return false;
        }
        true
    }

    /// Withdraws the announcement of [`Port::try_sleep`]. To be called after waking up for any reason.
    pub fn end_sleep(&mut self) {
        self.bells[self.shard].end_sleep();
    }

    /// Creates an inbox of at most `messages_max` messages, to which threads that are not shards post messages for this
    /// shard.
    ///
    /// Memory: the size of a message and a word, for each message that waits.
    ///
    /// # Panics
    ///
    /// Panics if `messages_max` is 0.
    pub fn inbox<N: Send + 'static>(&mut self, messages_max: usize) -> (Mailbox<N>, Inbox<N>) {
        let bell = Arc::clone(&self.bells[self.shard]);
        let (mailbox, inbox, waiting) = inbox::inbox(messages_max, bell);
        self.inboxes.push(waiting);
        (mailbox, inbox)
    }

    /// Returns the handle by which threads that are not shards find out whether they must wake this shard.
    pub fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.bells[self.shard]))
    }

    /// Returns the counters of this port.
    pub fn counters(&self) -> MeshCounters {
        self.counters
    }

    /// Asserts the invariants. The cost is linear in the number of shards and of messages in overflow queues.
    ///
    /// # Panics
    ///
    /// Panics if an invariant is broken.
    pub fn check(&self) {
        let shards = self.bells.len();
        assert_eq!(self.outgoing.len(), shards, "there must be one outgoing side for each shard");
        assert_eq!(self.incoming.len(), shards, "there must be one incoming side for each shard");
        assert_eq!(self.arrivals.len(), shards, "there must be arrivals for each shard");
        assert!(self.shard < shards && self.next_sender < shards, "shards must be in the mesh");
        let all =
            [self.overflowing, self.sent_to, self.received_from, self.pending, self.growing, self.grown];
        assert!(all.iter().all(|set| set.is_within(shards)), "sets of shards must be within the mesh");
        for (to, outgoing) in self.outgoing.iter().enumerate() {
            outgoing.check();
            assert!(
                self.grown.contains(to) || !outgoing.has_grown(),
                "a ring to shard {to} that has grown must be marked"
            );
            let has_overflow = outgoing.overflow_len() > 0;
            assert_eq!(self.overflowing.contains(to), has_overflow, "overflow to shard {to} must be marked");
        }
        let mut charges: AHashMap<LoadSource, usize> = AHashMap::new();
        for load in self.outgoing.iter().flat_map(Outgoing::overflow_loads) {
            *charges.entry(load.source).or_default() += load.bytes;
        }
        assert_eq!(charges, self.charges, "messages in overflow queues must be charged to their sources");
        let bytes: usize = self.outgoing.iter().map(Outgoing::overflow_bytes).sum();
        let charged: usize = charges.values().sum();
        assert_eq!(bytes, charged, "the bytes of overflow queues must be those of their messages");
        let MeshCounters { sent, overflowed, dropped, .. } = self.counters;
        assert!(overflowed <= sent, "messages that overflowed must be counted as sent");
        let left = self.overflow_len() as u64 + dropped;
        assert!(
            left <= overflowed,
            "messages in overflow queues and dropped ones must be counted as overflowed"
        );
    }

    /// Puts a message for which there is no room into an overflow queue, or refuses it.
    fn overflow(&mut self, to: usize, message: M, class: Class, load: Load) -> SendOutcome<M> {
        let is_full = class == Class::Data && self.is_full(to);
        let outgoing = &mut self.outgoing[to];
        if is_full || self.arrivals[to].is_closed() {
            self.counters.refused += 1;
            return SendOutcome::Refused(message);
        }
        let load = Load { bytes: load.bytes + Outgoing::<M>::entry_bytes(), ..load };
        *self.charges.entry(load.source).or_default() += load.bytes;
        outgoing.push_overflow(message, class, load);
        self.overflowing.insert(to);
        self.counters.sent += 1;
        self.counters.overflowed += 1;
        SendOutcome::Overflowed
    }

    fn receive_from(&mut self, from: usize, max: usize, handle: &mut impl FnMut(usize, M)) -> usize {
        let mut received = 0;
        while received < max {
            let Some(message) = self.incoming[from].pop() else {
                // A message that arrives from now on is noted again.
                self.pending.remove(from);
                if received == 0 {
                    self.incoming[from].free_returned();
                }
                break;
            };
            self.received_from.insert(from);
            self.counters.received += 1;
            received += 1;
            handle(from, message);
        }
        received
    }

    fn owes_doorbells(&self) -> bool {
        !self.sent_to.is_empty() || !self.received_from.is_empty()
    }

    /// Returns whether a message waits to be received or can be moved from an overflow queue: L2 in `qev/bell.rs`.
    fn has_work(&mut self) -> bool {
        incoming::collect(&self.arrivals[self.shard], &mut self.pending, &mut self.incoming);
        let (mut overflowing, mut pending) = (self.overflowing, self.pending);
        std::iter::from_fn(|| pending.pop_first()).any(|from| !self.incoming[from].is_empty())
            || std::iter::from_fn(|| overflowing.pop_first()).any(|to| self.outgoing[to].can_flush())
            || self.inboxes.iter().any(|inbox| inbox.has_messages())
    }
}

impl<M> Drop for Port<M> {
    fn drop(&mut self) {
        self.arrivals[self.shard].close();
    }
}

/// Notes that a message has left its overflow queue.
fn discharge(charges: &mut AHashMap<LoadSource, usize>, load: Load) {
    let charge = charges.get_mut(&load.source).expect("a message that waits is charged to its source");
    *charge -= load.bytes;
    if *charge == 0 {
        charges.remove(&load.source);
        if charges.is_empty() {
            // Overflow is rare, and the memory of a burst is not kept.
            *charges = AHashMap::new();
        }
    }
}
