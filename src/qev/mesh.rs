//! The mesh: shards send each other messages, without locks, without waiting, without losing a wake-up.
//!
//! There is one single-producer single-consumer ring for each ordered pair of shards, and each shard owns its
//! ends of them: its [`Port`]. A turn of a shard calls, in this order or any other:
//!
//! ```text
//! awake        after it slept
//! receive      takes what the others sent
//! send         any number of times
//! flush        what did not fit moves up, where there is room again
//! doorbells    which sleeping peers to wake, for all messages of the turn at once
//! try_sleep    may it block?
//! ```
//!
//! # When a ring is full
//!
//! Sending never waits. A message for which there is no room goes to the sender's overflow queue for that
//! peer, and [`Port::flush`] moves it up as the peer takes others. There are two classes:
//!
//! - **Data** has room up to seven eighths of the ring, then an overflow queue of `overflow_messages_max`;
//!   where that is full too the message is refused, which is for the sender to answer.
//! - **Control** may use the whole ring, so it goes past Data that waits in the overflow queue. Its own queue
//!   has no bound here: a sender may only send as Control what is bounded by its cause (an answer to a
//!   request that was let in, the first and the last subscription to a path).
//!
//! Order: messages of one class from one shard to another arrive as they were sent, and no Data arrives
//! before Control that was sent earlier. Messages to a shard that has gone (its port was dropped) are refused
//! or dropped. Everything is counted: [`MeshCounters`].
//!
//! # Sleeping
//!
//! [`Port::try_sleep`] says why and how nothing is lost: the argument is in `qev/bell.rs`. A shard with
//! overflowing messages may sleep, and is woken when there is room for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rtrb::{Consumer, Producer, RingBuffer};

use super::bell::Bell;
pub use super::bell::Waker;
use super::inbox::{self, Inbox, Mailbox, Waiting};
use crate::limits::SHARDS_MAX;

/// The share of a ring that only Control may use: one eighth.
const CONTROL_SHARE: usize = 8;

/// The sizes of a mesh.
#[derive(Clone, Copy, Debug)]
pub struct MeshSettings {
    /// Messages that each ring holds; there are shards x shards of them. At least 1; Control and Data are
    /// told apart from 2.
    pub ring_messages: usize,
    /// Data messages that wait for each peer whose ring is full, at most.
    pub overflow_messages_max: usize,
}

/// What becomes of a message when the ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Never refused, as something would be inconsistent for ever. Bounded by what causes it.
    Control,
    /// Refused when the peer does not keep up.
    Data,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a refused message is lost unless the sender answers for it"]
pub enum SendOutcome<M> {
    /// It is in the peer's ring.
    Queued,
    /// It waits at this side until there is room.
    Overflowed,
    /// Not sent: the overflow queue is full, too, or the peer has gone.
    Refused(M),
}

/// What a port did since the beginning, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshCounters {
    /// Accepted: queued or overflowed.
    pub sent: u64,
    /// Taken from the rings of the others.
    pub received: u64,
    /// Accepted, but had to wait for room.
    pub overflowed: u64,
    /// Not accepted.
    pub refused: u64,
    /// Accepted, and dropped while they waited for room, as the peer has gone.
    pub dropped: u64,
    /// Sleeping peers that had to be woken (not messages).
    pub doorbells: u64,
}

/// The ports of `shards` shards that all know each other: the first is shard 0's.
///
/// ```
/// use quickio::qev::mesh::{Class, SendOutcome, MeshSettings, mesh};
///
/// let mut ports = mesh(2, MeshSettings { ring_messages: 1024, overflow_messages_max: 4096 });
/// let (mut one, mut zero) = (ports.pop().unwrap(), ports.pop().unwrap());
///
/// assert!(one.try_sleep()); // shard 1 has nothing to do, and may block
/// assert_eq!(zero.send(1, "hello", Class::Data), SendOutcome::Queued);
/// let mut to_wake = Vec::new();
/// zero.doorbells(|peer| to_wake.push(peer));
/// assert_eq!(to_wake, [1]); // for shard 0 to see to
///
/// one.end_sleep();
/// assert_eq!(one.receive(100, |from, message| assert_eq!((from, message), (0, "hello"))), 1);
/// ```
///
/// # Panics
///
/// Unless there are 1 to [`SHARDS_MAX`] shards, and rings of at least one message.
pub fn mesh<M: Send>(shards: usize, settings: MeshSettings) -> Vec<Port<M>> {
    assert!((1..=SHARDS_MAX).contains(&shards), "1 to {SHARDS_MAX} shards, not {shards}");
    assert!(settings.ring_messages > 0, "a ring holds one message at least");
    let bells: Vec<Arc<Bell>> = (0..shards).map(|_| Arc::default()).collect();
    let mut ports: Vec<Port<M>> =
        (0..shards).map(|shard| Port::new(shard, bells.clone(), settings)).collect();
    for from in 0..shards {
        for to in 0..shards {
            let (producer, consumer) = RingBuffer::new(settings.ring_messages);
            ports[from].outgoing.push(Outgoing::new(producer));
            ports[to].incoming.push(consumer);
        }
    }
    ports
}

/// One shard's end of the mesh: to be moved to its thread, and used by that alone.
///
/// A shard may send to itself like to any other.
pub struct Port<M> {
    shard: usize,
    overflow_messages_max: usize,
    /// By peer. Invariant: `overflowing` has exactly those whose queues are not both empty.
    outgoing: Vec<Outgoing<M>>,
    incoming: Vec<Consumer<M>>,
    inboxes: Vec<Arc<dyn Waiting>>,
    bells: Vec<Arc<Bell>>,
    overflowing: Peers,
    /// Peers into whose rings something went since the last [`Port::doorbells`].
    sent_to: Peers,
    /// Peers from whose rings something was taken since the last [`Port::doorbells`].
    taken_from: Peers,
    /// Who is received from first.
    next: usize,
    counters: MeshCounters,
}

impl<M> Port<M> {
    fn new(shard: usize, bells: Vec<Arc<Bell>>, settings: MeshSettings) -> Self {
        Self {
            shard,
            overflow_messages_max: settings.overflow_messages_max,
            outgoing: Vec::with_capacity(bells.len()),
            incoming: Vec::with_capacity(bells.len()),
            inboxes: Vec::new(),
            bells,
            overflowing: Peers::default(),
            sent_to: Peers::default(),
            taken_from: Peers::default(),
            next: 0,
            counters: MeshCounters::default(),
        }
    }

    /// The shard whose port this is.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// How many shards the mesh has.
    pub fn shards(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends a message to shard `to`, without waiting; [`Port::doorbells`] wakes it.
    ///
    /// # Panics
    ///
    /// If there is no shard `to`.
    pub fn send(&mut self, to: usize, message: M, class: Class) -> SendOutcome<M> {
        let waits = self.overflowing.contains(to) && self.outgoing[to].must_wait(class);
        if waits || !self.outgoing[to].has_room(class) {
            return self.overflow(to, message, class);
        }
        self.outgoing[to].push(message);
        self.sent_to.insert(to);
        self.counters.sent += 1;
        SendOutcome::Queued
    }

    /// Moves messages that overflowed into rings that have room again. To be called in every turn.
    pub fn flush(&mut self) {
        let mut peers = self.overflowing;
        while let Some(to) = peers.take_first() {
            let outgoing = &mut self.outgoing[to];
            if outgoing.flush() {
                self.sent_to.insert(to);
            }
            if outgoing.ring.is_abandoned() {
                self.counters.dropped += outgoing.abandon() as u64;
            }
            if outgoing.waiting() == 0 {
                self.overflowing.remove(to);
            }
        }
    }

    /// Whether messages wait at this side until there is room.
    pub fn has_overflow(&self) -> bool {
        !self.overflowing.is_empty()
    }

    /// How many messages wait at this side until there is room.
    pub fn overflow_len(&self) -> usize {
        self.outgoing.iter().map(Outgoing::waiting).sum()
    }

    /// Takes up to `max` messages that others sent, and hands each to `take` with the number of its sender;
    /// returns how many. Where that leaves some, the next call begins with the next sender.
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(usize, M)) -> usize {
        let mut received = 0;
        for _ in 0..self.incoming.len() {
            if received == max {
                break;
            }
            let from = self.next;
            self.next = if from + 1 == self.incoming.len() { 0 } else { from + 1 };
            received += self.receive_from(from, max - received, &mut take);
        }
        received
    }

    /// Calls `ring` for every peer that must be woken: it sleeps, or is about to, and was sent something
    /// since the last call, or starves for room in a ring from which something was taken since then.
    ///
    /// The caller has to wake each of them, soon and always (where a doorbell fails, by another): nobody else
    /// will.
    pub fn doorbells(&mut self, mut ring: impl FnMut(usize)) {
        if self.owes_doorbells() {
            // Between what was sent and taken, and the look at who sleeps: F1 in `qev/bell.rs`.
            fence(Ordering::SeqCst);
        }
        while let Some(peer) = self.sent_to.take_first() {
            if self.bells[peer].must_ring() {
                self.counters.doorbells += 1;
                ring(peer);
            }
        }
        while let Some(peer) = self.taken_from.take_first() {
            if self.bells[peer].must_ring_starving() {
                self.counters.doorbells += 1;
                ring(peer);
            }
        }
    }

    /// Announces that this shard will sleep. `true`: it may block now, until its doorbell rings, or for as
    /// long as it likes; then it calls [`Port::end_sleep`]. `false`: it is awake, and must take another turn, as
    /// a message waits, or there is room for one that overflowed, or a thread left a note ([`Waker`]), or
    /// [`Port::doorbells`] was not asked since something was sent or received.
    ///
    /// Between `true` and blocking the shard may look at things of its own, but must not take its doorbell's
    /// signal away.
    #[must_use = "a shard that blocks without leave sleeps for ever"]
    pub fn try_sleep(&mut self) -> bool {
        // Before the announcement, too: a busy shard should not make others ring for nothing.
        if self.owes_doorbells() || self.has_work() {
            return false;
        }
        if !self.bells[self.shard].announce(self.has_overflow()) {
            return false;
        }
        if self.has_work() {
            self.end_sleep();
            return false;
        }
        true
    }

    /// Takes the announcement of [`Port::try_sleep`] back. To be called after waking up, whatever the reason.
    pub fn end_sleep(&mut self) {
        self.bells[self.shard].awake();
    }

    /// An inbox of at most `messages_max` messages, for threads that are no shard to post to this one.
    ///
    /// Memory: all of it at once, `messages_max` times the size of a message and a word.
    ///
    /// # Panics
    ///
    /// If `messages_max` is 0.
    pub fn inbox<N: Send + 'static>(&mut self, messages_max: usize) -> (Mailbox<N>, Inbox<N>) {
        let bell = Arc::clone(&self.bells[self.shard]);
        let (mailbox, inbox, waiting) = inbox::inbox(messages_max, bell);
        self.inboxes.push(waiting);
        (mailbox, inbox)
    }

    /// How threads that are no shard find out whether they must wake this one.
    pub fn waker(&self) -> Waker {
        Waker::new(Arc::clone(&self.bells[self.shard]))
    }

    /// What this port did since the beginning.
    pub fn counters(&self) -> MeshCounters {
        self.counters
    }

    /// Keeps a message for which there is no room, in order.
    fn overflow(&mut self, to: usize, message: M, class: Class) -> SendOutcome<M> {
        let outgoing = &mut self.outgoing[to];
        let queue = match class {
            Class::Control => &mut outgoing.control,
            Class::Data => &mut outgoing.data,
        };
        let full = class == Class::Data && queue.len() >= self.overflow_messages_max;
        if full || outgoing.ring.is_abandoned() {
            self.counters.refused += 1;
            return SendOutcome::Refused(message);
        }
        queue.push_back(message);
        self.overflowing.insert(to);
        self.counters.sent += 1;
        self.counters.overflowed += 1;
        SendOutcome::Overflowed
    }

    fn receive_from(&mut self, from: usize, max: usize, take: &mut impl FnMut(usize, M)) -> usize {
        let mut received = 0;
        while received < max {
            let Ok(message) = self.incoming[from].pop() else { break };
            self.taken_from.insert(from);
            self.counters.received += 1;
            received += 1;
            take(from, message);
        }
        received
    }

    fn owes_doorbells(&self) -> bool {
        !self.sent_to.is_empty() || !self.taken_from.is_empty()
    }

    /// Whether a message waits to be received, or can be flushed: L2 in `qev/bell.rs`.
    fn has_work(&self) -> bool {
        let mut peers = self.overflowing;
        std::iter::from_fn(|| peers.take_first()).any(|to| self.outgoing[to].can_flush())
            || self.incoming.iter().any(|ring| !ring.is_empty())
            || self.inboxes.iter().any(|inbox| inbox.is_waiting())
    }
}

/// The way to one peer: its ring, and what did not fit.
struct Outgoing<M> {
    ring: Producer<M>,
    control: VecDeque<M>,
    data: VecDeque<M>,
}

impl<M> Outgoing<M> {
    fn new(ring: Producer<M>) -> Self {
        Self { ring, control: VecDeque::new(), data: VecDeque::new() }
    }

    /// Whether a message would overtake one that it must not overtake.
    fn must_wait(&self, class: Class) -> bool {
        !self.control.is_empty() || (class == Class::Data && !self.data.is_empty())
    }

    /// Whether the ring has room for a message of this class.
    fn has_room(&self, class: Class) -> bool {
        let kept = match class {
            Class::Control => 0,
            Class::Data => self.kept_for_control(),
        };
        // What this side knows is often enough, and spares a look at the receiver's cache line.
        self.ring.cached_slots() > kept || self.ring.slots() > kept
    }

    /// Puts a message into the ring, which was found to have room.
    fn push(&mut self, message: M) {
        self.ring.push(message).expect("only this side takes room away");
    }

    fn kept_for_control(&self) -> usize {
        let capacity = self.ring.buffer().capacity();
        (capacity / CONTROL_SHARE).max(1).min(capacity - 1)
    }

    /// Moves up what there is room for; whether that is anything.
    fn flush(&mut self) -> bool {
        let before = self.waiting();
        while self.can_flush() {
            let Some(message) = self.control.pop_front().or_else(|| self.data.pop_front()) else { break };
            self.push(message);
        }
        self.give_memory_back();
        self.waiting() < before
    }

    /// Whether there is room for the first message that waits.
    fn can_flush(&self) -> bool {
        if self.control.is_empty() {
            !self.data.is_empty() && self.has_room(Class::Data)
        } else {
            self.has_room(Class::Control)
        }
    }

    /// Drops what waits, as nobody will take it; returns how many.
    fn abandon(&mut self) -> usize {
        let dropped = self.waiting();
        self.control.clear();
        self.data.clear();
        self.give_memory_back();
        dropped
    }

    fn waiting(&self) -> usize {
        self.control.len() + self.data.len()
    }

    /// Overflow is rare: a storm's memory is not kept.
    fn give_memory_back(&mut self) {
        for queue in [&mut self.control, &mut self.data] {
            if queue.is_empty() {
                *queue = VecDeque::new();
            }
        }
    }
}

/// A set of shards.
#[derive(Clone, Copy, Debug, Default)]
struct Peers(u128);

const _: () = assert!(SHARDS_MAX <= u128::BITS as usize, "a set of shards is a u128");

impl Peers {
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn contains(self, peer: usize) -> bool {
        self.0 >> peer & 1 == 1
    }

    fn insert(&mut self, peer: usize) {
        self.0 |= 1 << peer;
    }

    fn remove(&mut self, peer: usize) {
        self.0 &= !(1 << peer);
    }

    fn take_first(&mut self) -> Option<usize> {
        let first = (self.0 != 0).then(|| self.0.trailing_zeros() as usize);
        self.0 &= self.0.wrapping_sub(1);
        first
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports<M: Send>(shards: usize, ring_messages: usize, overflow_messages_max: usize) -> Vec<Port<M>> {
        mesh(shards, MeshSettings { ring_messages, overflow_messages_max })
    }

    fn pair(ring_messages: usize, overflow_messages_max: usize) -> (Port<u32>, Port<u32>) {
        let mut ports = ports(2, ring_messages, overflow_messages_max).into_iter();
        (ports.next().expect("shard 0"), ports.next().expect("shard 1"))
    }

    fn received<M>(port: &mut Port<M>, max: usize) -> Vec<M> {
        let mut messages = Vec::new();
        let count = port.receive(max, |_, message| messages.push(message));
        assert_eq!(count, messages.len());
        messages
    }

    fn doorbells<M>(port: &mut Port<M>) -> Vec<usize> {
        let mut rung = Vec::new();
        port.doorbells(|peer| rung.push(peer));
        rung
    }

    #[test]
    fn a_port_moves_to_its_thread_and_a_waker_is_shared() {
        fn is_send<T: Send>() {}
        fn is_shared<T: Send + Sync + Clone>() {}
        is_send::<Port<u64>>();
        is_send::<Inbox<u64>>();
        is_shared::<Waker>();
        is_shared::<Mailbox<u64>>();
    }

    #[test]
    fn control_has_an_eighth_of_the_ring_for_itself() {
        for (ring_messages, for_data) in [(1, 1), (2, 1), (3, 2), (8, 7), (9, 8), (16, 14), (64, 56)] {
            let (mut zero, _one) = pair(ring_messages, 1);
            for _ in 0..for_data {
                assert_eq!(zero.send(1, 0, Class::Data), SendOutcome::Queued, "ring of {ring_messages}");
            }
            assert_eq!(zero.send(1, 0, Class::Data), SendOutcome::Overflowed, "ring of {ring_messages}");
            for _ in for_data..ring_messages {
                assert_eq!(zero.send(1, 0, Class::Control), SendOutcome::Queued, "ring of {ring_messages}");
            }
            assert_eq!(zero.send(1, 0, Class::Control), SendOutcome::Overflowed, "ring of {ring_messages}");
        }
    }

    #[test]
    fn data_is_refused_when_its_overflow_is_full_and_control_never() {
        let (mut zero, mut one) = pair(1, 2);
        assert_eq!(zero.send(1, 1, Class::Data), SendOutcome::Queued);
        assert_eq!(zero.send(1, 2, Class::Data), SendOutcome::Overflowed);
        assert_eq!(zero.send(1, 3, Class::Data), SendOutcome::Overflowed);
        assert_eq!(zero.send(1, 4, Class::Data), SendOutcome::Refused(4));
        for number in 5..100 {
            assert_eq!(zero.send(1, number, Class::Control), SendOutcome::Overflowed);
        }
        assert_eq!(zero.overflow_len(), 2 + 95);
        let expected = MeshCounters { sent: 98, overflowed: 97, refused: 1, ..MeshCounters::default() };
        assert_eq!(zero.counters(), expected);
        let mut all = Vec::new();
        while zero.has_overflow() {
            all.extend(received(&mut one, 10));
            zero.flush();
        }
        all.extend(received(&mut one, 10));
        let order: Vec<u32> = [1].into_iter().chain(5..100).chain([2, 3]).collect();
        assert_eq!(all, order, "Control passes Data that overflowed");
        assert_eq!(one.counters(), MeshCounters { received: 98, ..MeshCounters::default() });
    }

    #[test]
    fn data_does_not_pass_control_that_waits() {
        let (mut zero, mut one) = pair(2, 9);
        for number in 0..3 {
            let _ = zero.send(1, number, Class::Control);
        }
        assert_eq!(received(&mut one, 9), [0, 1]);
        assert_eq!(
            zero.send(1, 3, Class::Data),
            SendOutcome::Overflowed,
            "there is room, but 2 waits for it"
        );
        zero.flush();
        assert_eq!(received(&mut one, 9), [2]);
        zero.flush();
        assert_eq!(received(&mut one, 9), [3]);
    }

    #[test]
    fn an_overflow_gives_its_memory_back() {
        let (mut zero, mut one) = pair(1, 1000);
        for number in 0..1000 {
            let _ = zero.send(1, number, if number % 2 == 0 { Class::Data } else { Class::Control });
        }
        while zero.has_overflow() {
            assert_eq!(received(&mut one, 9).len(), 1);
            zero.flush();
        }
        assert_eq!(zero.outgoing[1].control.capacity() + zero.outgoing[1].data.capacity(), 0);
    }

    #[test]
    fn a_busy_sender_does_not_keep_the_others_waiting() {
        let mut ports = ports::<usize>(4, 64, 0);
        let mut receiver = ports.remove(0);
        for (port, messages) in ports.iter_mut().zip([50, 1, 2]) {
            for _ in 0..messages {
                let _ = port.send(0, port.shard(), Class::Data);
            }
        }
        let rounds: Vec<Vec<usize>> = (0..4).map(|_| received(&mut receiver, 5)).collect();
        assert_eq!(rounds[0], [1; 5]);
        assert_eq!(rounds[1], [2, 3, 3, 1, 1]);
        assert_eq!(rounds[2], [1; 5]);
    }

    #[test]
    fn a_shard_may_send_to_itself() {
        let mut port = ports::<u32>(1, 4, 4).remove(0);
        assert_eq!(port.send(0, 7, Class::Data), SendOutcome::Queued);
        assert_eq!(doorbells(&mut port), [0; 0], "it is awake");
        assert!(!port.try_sleep());
        assert_eq!(received(&mut port, 9), [7]);
        assert_eq!(doorbells(&mut port), [0; 0]);
        assert!(port.try_sleep());
    }

    #[test]
    fn a_sleeping_peer_is_rung_once() {
        let mut ports = ports::<u32>(3, 4, 4);
        assert!(ports[1].try_sleep());
        for to in [1, 1, 2] {
            let _ = ports[0].send(to, 7, Class::Data);
        }
        assert_eq!(doorbells(&mut ports[0]), [1], "2 is awake");
        assert_eq!(doorbells(&mut ports[0]), [0; 0]);
        let _ = ports[0].send(1, 8, Class::Data);
        let _ = ports[2].send(1, 9, Class::Data);
        assert_eq!(doorbells(&mut ports[0]), [0; 0], "rung already");
        assert_eq!(doorbells(&mut ports[2]), [0; 0], "rung already, by another");
        assert_eq!(ports[0].counters().doorbells, 1);
        ports[1].end_sleep();
        assert_eq!(received(&mut ports[1], 9), [7, 7, 8, 9]);
    }

    #[test]
    fn nobody_sleeps_on_something_to_do() {
        let (mut zero, mut one) = pair(4, 4);
        let (mailbox, mut inbox) = one.inbox(4);
        assert!(one.try_sleep());
        one.end_sleep();
        let _ = zero.send(1, 7, Class::Data);
        assert!(!zero.try_sleep(), "it did not ask whom to wake");
        assert_eq!(doorbells(&mut zero), [0; 0]);
        assert!(!one.try_sleep(), "a message waits");
        assert_eq!(received(&mut one, 9), [7]);
        assert!(!one.try_sleep(), "it did not ask who starves");
        assert_eq!(doorbells(&mut one), [0; 0]);
        assert_eq!(mailbox.post("posted"), Ok(false));
        assert!(!one.try_sleep() && !one.try_sleep(), "a message waits in the inbox");
        assert_eq!(inbox.receive(9, |_| ()), 1);
        assert!(!one.waker().needs_wake());
        assert!(!one.try_sleep(), "a note was left");
        assert!(one.try_sleep());
        assert!(one.waker().needs_wake() && !one.waker().needs_wake());
    }

    #[test]
    fn a_shard_that_starves_for_room_sleeps_until_there_is_some() {
        let (mut zero, mut one) = pair(2, 4);
        for number in 0..3 {
            let _ = zero.send(1, number, Class::Control);
        }
        assert_eq!(doorbells(&mut zero), [0; 0]);
        assert!(zero.try_sleep(), "the ring is full, so there is nothing to be done");
        assert_eq!(received(&mut one, 1), [0]);
        assert_eq!(doorbells(&mut one), [0]);
        zero.end_sleep();
        assert!(!zero.try_sleep(), "there is room");
        zero.flush();
        assert_eq!(doorbells(&mut zero), [0; 0]);
        assert!(zero.try_sleep(), "nothing overflows");
        assert_eq!(received(&mut one, 1), [1]);
        assert_eq!(doorbells(&mut one), [0; 0], "it does not wait for room");
    }

    #[test]
    fn messages_to_a_shard_that_has_gone_are_refused_or_dropped() {
        let (mut zero, one) = pair(2, 2);
        for number in 0..4 {
            let _ = zero.send(1, number, Class::Control);
        }
        drop(one);
        assert_eq!(zero.send(1, 4, Class::Control), SendOutcome::Refused(4));
        zero.flush();
        assert!(!zero.has_overflow());
        let counters = zero.counters();
        assert_eq!((counters.sent, counters.dropped, counters.refused), (4, 2, 1));
        assert_eq!(doorbells(&mut zero), [0; 0]);
        assert!(zero.try_sleep());
    }

    #[test]
    fn messages_on_their_way_are_freed_with_their_ports() {
        let message = Arc::new(());
        let mut ports = ports::<Arc<()>>(2, 2, 2);
        for class in [Class::Data, Class::Data, Class::Control, Class::Control] {
            let _ = ports[0].send(1, Arc::clone(&message), class);
        }
        assert_eq!(Arc::strong_count(&message), 5);
        drop(ports);
        assert_eq!(Arc::strong_count(&message), 1);
    }

    #[test]
    fn the_largest_mesh_has_all_its_shards() {
        let mut ports = ports::<usize>(SHARDS_MAX, 1, 0);
        let last = SHARDS_MAX - 1;
        for (from, port) in ports.iter_mut().enumerate() {
            assert_eq!(port.send(last, from, Class::Data), SendOutcome::Queued);
        }
        assert_eq!(received(&mut ports[last], usize::MAX), (0..SHARDS_MAX).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic(expected = "1 to 128 shards")]
    fn a_mesh_too_large_is_a_bug() {
        let _ = ports::<u32>(SHARDS_MAX + 1, 1, 1);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Send(Class),
        Flush,
        Receive(usize),
    }

    fn some_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Send(Class::Data)),
            2 => Just(Step::Send(Class::Control)),
            1 => Just(Step::Flush),
            2 => (0..5_usize).prop_map(Step::Receive),
        ]
    }

    /// The oracle: one way of the mesh as three lists.
    struct Model {
        ring_messages: usize,
        overflow_messages_max: usize,
        ring: VecDeque<u32>,
        control: VecDeque<u32>,
        data: VecDeque<u32>,
    }

    impl Model {
        fn room(&self, class: Class) -> bool {
            let kept = match class {
                Class::Data if self.ring_messages > 1 => (self.ring_messages / 8).max(1),
                _ => 0,
            };
            self.ring.len() < self.ring_messages - kept
        }

        fn send(&mut self, message: u32, class: Class) -> SendOutcome<u32> {
            let first = self.control.is_empty() && (class == Class::Control || self.data.is_empty());
            if first && self.room(class) {
                self.ring.push_back(message);
                return SendOutcome::Queued;
            }
            if class == Class::Control {
                self.control.push_back(message);
            } else if self.data.len() == self.overflow_messages_max {
                return SendOutcome::Refused(message);
            } else {
                self.data.push_back(message);
            }
            SendOutcome::Overflowed
        }

        fn flush(&mut self) {
            while self.room(Class::Control) {
                let Some(message) = self.control.pop_front() else { break };
                self.ring.push_back(message);
            }
            while self.control.is_empty() && self.room(Class::Data) {
                let Some(message) = self.data.pop_front() else { break };
                self.ring.push_back(message);
            }
        }

        fn receive(&mut self, max: usize) -> Vec<u32> {
            self.ring.drain(..max.min(self.ring.len())).collect()
        }
    }

    proptest! {
        #[test]
        fn one_way_of_the_mesh_is_three_lists(
            ring_messages in 1..20_usize,
            overflow_messages_max in 0..6_usize,
            steps in prop::collection::vec(some_step(), 1..200),
        ) {
            let (mut zero, mut one) = pair(ring_messages, overflow_messages_max);
            let (ring, control, data) = Default::default();
            let mut model = Model { ring_messages, overflow_messages_max, ring, control, data };
            for (number, step) in (0..).zip(steps) {
                match step {
                    Step::Send(class) => {
                        prop_assert_eq!(zero.send(1, number, class), model.send(number, class));
                    }
                    Step::Flush => {
                        zero.flush();
                        model.flush();
                    }
                    Step::Receive(max) => prop_assert_eq!(received(&mut one, max), model.receive(max)),
                }
                prop_assert_eq!(zero.overflow_len(), model.control.len() + model.data.len());
                prop_assert_eq!(zero.has_overflow(), zero.overflow_len() > 0);
            }
        }
    }
}
