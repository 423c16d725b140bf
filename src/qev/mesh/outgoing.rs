//! The sending side of the connection to one peer.

use std::collections::VecDeque;

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::{Class, Load};

/// The fraction of a ring that only Control may use: one eighth.
const CONTROL_FRACTION: usize = 8;

/// The number of messages that the first ring to a peer holds. Most shards send each other few messages at a time, and a
/// mesh of 54 shards has 2,916 of these rings. Each takes about a KiB, half of which does not depend on this number.
const RING_MESSAGES_AT_FIRST: usize = 8;

/// A ring is given back if it was never filled beyond this part of it for some time: a quarter. The next ring is then
/// half as large at most.
const UNUSED_FRACTION: usize = 4;

/// The rings to one peer, and the overflow queues for the messages that did not fit.
///
/// The rings together hold `messages_max` messages at most, and the receiver cannot tell them from one large ring. The
/// first one is small. A ring that is full while fewer messages than that are on their way is followed by one of twice its
/// size. A large ring that is hardly used is given back when it is empty.
///
/// Invariants: `messages_max` is not less than the number of messages in all rings; only the last ring, `ring`, gets
/// messages.
pub(super) struct Outgoing<M> {
    /// The ring into which the next message is put, or `None` if there is none yet.
    ring: Option<Producer<M>>,
    /// The rings before it, of which the receiver has not emptied the last.
    older: Vec<Producer<M>>,
    messages_max: usize,
    /// The largest number of messages that were found in `ring` since [`Outgoing::give_back`] was last called.
    peak: usize,
    control: OverflowQueue<M>,
    data: OverflowQueue<M>,
}

/// Messages that wait for room, and the sum of their costs.
struct OverflowQueue<M> {
    messages: VecDeque<(M, Load)>,
    bytes: usize,
}

impl<M> OverflowQueue<M> {
    const fn new() -> Self {
        Self { messages: VecDeque::new(), bytes: 0 }
    }

    fn push(&mut self, message: M, load: Load) {
        self.bytes += load.bytes;
        self.messages.push_back((message, load));
    }

    fn pop(&mut self) -> Option<(M, Load)> {
        let popped = self.messages.pop_front();
        self.bytes -= popped.as_ref().map_or(0, |(_, load)| load.bytes);
        popped
    }
}

impl<M> Outgoing<M> {
    pub fn new(messages_max: usize) -> Self {
        let (control, data) = (OverflowQueue::new(), OverflowQueue::new());
        Self { ring: None, older: Vec::new(), messages_max, peak: 0, control, data }
    }

    /// Returns the cost in bytes of a message in an overflow queue, apart from the memory that the message refers to.
    /// The queues grow by doubling: at worst, half of their memory is unused.
    pub const fn entry_bytes() -> usize {
        2 * size_of::<(M, Load)>()
    }

    /// Returns whether a message of this class would overtake a message that it must not overtake.
    pub fn must_wait(&self, class: Class) -> bool {
        !self.control.messages.is_empty() || (class == Class::Data && !self.data.messages.is_empty())
    }

    /// Returns whether the rings have room for a message of this class.
    #[inline]
    pub fn has_room(&self, class: Class) -> bool {
        let max = match class {
            Class::Control => self.messages_max,
            Class::Data => self.messages_max - self.reserved_for_control(),
        };
        let Some(ring) = &self.ring else { return true };
        // The sender's own count of free slots often suffices and avoids a look at the receiver's cache line.
        let at_most = ring.buffer().capacity() - ring.cached_slots();
        self.older.is_empty() && at_most < max || self.in_rings() < max
    }

    /// Puts a message into the last ring. The rings must have room. If there has to be a new ring, passes its other end to
    /// `hand_over`.
    #[inline]
    pub fn push(&mut self, message: M, hand_over: impl FnOnce(Consumer<M>)) {
        let message = match &mut self.ring {
            Some(ring) => match ring.push(message) {
                Ok(()) => return,
                Err(PushError::Full(message)) => message,
            },
            None => message,
        };
        hand_over(self.grow());
        let ring = self.ring.as_mut().expect("a ring was just created");
        ring.push(message).expect("a new ring is empty, and holds at least one message");
    }

    /// Creates a ring of twice the size of the last one, and returns its other end.
    #[cold]
    fn grow(&mut self) -> Consumer<M> {
        let twice = self.ring.as_ref().map_or(RING_MESSAGES_AT_FIRST, |ring| 2 * ring.buffer().capacity());
        let (producer, consumer) = RingBuffer::new(twice.min(self.messages_max));
        self.drop_emptied();
        self.older.extend(self.ring.replace(producer));
        self.peak = 0;
        consumer
    }

    /// Drops the rings before the last one that the receiver has emptied. Returns whether one of these is left.
    pub fn drop_emptied(&mut self) -> bool {
        self.older.retain(|ring| len(ring) > 0);
        if self.older.is_empty() {
            self.older = Vec::new();
        }
        !self.older.is_empty()
    }

    /// Returns whether there is a ring larger than the first.
    pub fn has_grown(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.buffer().capacity() > RING_MESSAGES_AT_FIRST)
    }

    /// Notes how many messages are in the last ring.
    pub fn note_peak(&mut self) {
        self.peak = self.peak.max(self.ring.as_ref().map_or(0, len));
    }

    /// Drops the last ring if it is empty and was hardly used since the last call. Returns whether it was dropped: the
    /// receiver must be told.
    pub fn give_back(&mut self) -> bool {
        let peak = std::mem::take(&mut self.peak);
        let is_unused =
            |ring: &Producer<M>| peak <= ring.buffer().capacity() / UNUSED_FRACTION && len(ring) == 0;
        let gives_back =
            self.has_grown() && self.older.is_empty() && self.ring.as_ref().is_some_and(is_unused);
        if gives_back {
            self.ring = None;
        }
        gives_back
    }

    /// Returns the number of messages in all rings.
    fn in_rings(&self) -> usize {
        self.ring.iter().chain(&self.older).map(len).sum()
    }

    /// Puts a message into the overflow queue of its class.
    pub fn push_overflow(&mut self, message: M, class: Class, load: Load) {
        match class {
            Class::Control => self.control.push(message, load),
            Class::Data => self.data.push(message, load),
        }
    }

    /// Moves messages from the overflow queues to the rings while there is room, and passes the load of each to `moved`.
    /// Returns whether it moved any.
    pub fn flush(&mut self, mut moved: impl FnMut(Load), mut hand_over: impl FnMut(Consumer<M>)) -> bool {
        let before = self.overflow_len();
        while self.can_flush() {
            let Some((message, load)) = self.control.pop().or_else(|| self.data.pop()) else { break };
            self.push(message, &mut hand_over);
            moved(load);
        }
        self.free_empty_queues();
        self.overflow_len() < before
    }

    /// Returns whether there is room for the first message in the overflow queues.
    pub fn can_flush(&self) -> bool {
        if self.control.messages.is_empty() {
            !self.data.messages.is_empty() && self.has_room(Class::Data)
        } else {
            self.has_room(Class::Control)
        }
    }

    /// Drops the messages in the overflow queues because the peer has ended, and passes the load of each to `dropped`.
    pub fn drop_overflow(&mut self, mut dropped: impl FnMut(Load)) {
        while let Some((_, load)) = self.control.pop().or_else(|| self.data.pop()) {
            dropped(load);
        }
        self.free_empty_queues();
    }

    /// Returns the number of messages in both overflow queues.
    pub fn overflow_len(&self) -> usize {
        self.control.messages.len() + self.data.messages.len()
    }

    /// Returns the cost of the messages in both overflow queues, in bytes.
    pub fn overflow_bytes(&self) -> usize {
        self.control.bytes + self.data.bytes
    }

    /// Returns the cost of the messages in the overflow queue of Data, in bytes.
    pub fn data_overflow_bytes(&self) -> usize {
        self.data.bytes
    }

    /// Returns the loads of the messages in both overflow queues.
    pub fn overflow_loads(&self) -> impl Iterator<Item = Load> {
        self.control.messages.iter().chain(&self.data.messages).map(|(_, load)| *load)
    }

    fn reserved_for_control(&self) -> usize {
        (self.messages_max / CONTROL_FRACTION).max(1).min(self.messages_max - 1)
    }

    /// Frees the memory of empty queues. Overflow is rare, and the memory of a burst is not kept.
    fn free_empty_queues(&mut self) {
        for queue in [&mut self.control, &mut self.data] {
            if queue.messages.is_empty() {
                *queue = OverflowQueue::new();
            }
        }
    }

    /// The number of messages for which the rings have memory.
    #[cfg(test)]
    pub fn ring_capacity(&self) -> usize {
        self.ring.iter().chain(&self.older).map(|ring| ring.buffer().capacity()).sum()
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        assert!(self.in_rings() <= self.messages_max, "the rings must not hold more messages than they may");
        assert!(
            self.ring.is_some() || self.older.is_empty(),
            "the last ring must be there if an older one is"
        );
    }

    /// The number of messages for which the overflow queues have memory.
    #[cfg(test)]
    pub fn overflow_capacity(&self) -> usize {
        self.control.messages.capacity() + self.data.messages.capacity()
    }
}

/// Returns the number of messages in a ring.
fn len<M>(ring: &Producer<M>) -> usize {
    ring.buffer().capacity() - ring.slots()
}
