//! The sending side of the connection to one peer.

use std::collections::VecDeque;

use rtrb::Producer;

use super::{Class, Load};

/// The fraction of a ring that only Control may use: one eighth.
const CONTROL_FRACTION: usize = 8;

/// The ring to one peer, and the overflow queues for the messages that did not fit.
pub(super) struct Outgoing<M> {
    ring: Producer<M>,
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
    pub fn new(ring: Producer<M>) -> Self {
        Self { ring, control: OverflowQueue::new(), data: OverflowQueue::new() }
    }

    /// Returns the cost in bytes of a message in an overflow queue, apart from the memory that the message refers to.
    /// The queues grow by doubling: at worst, half of their memory is unused.
    pub const fn entry_bytes() -> usize {
        2 * size_of::<(M, Load)>()
    }

    /// Returns whether the peer has dropped its port.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Returns whether a message of this class would overtake a message that it must not overtake.
    pub fn must_wait(&self, class: Class) -> bool {
        !self.control.messages.is_empty() || (class == Class::Data && !self.data.messages.is_empty())
    }

    /// Returns whether the ring has room for a message of this class.
    pub fn has_room(&self, class: Class) -> bool {
        let reserved = match class {
            Class::Control => 0,
            Class::Data => self.reserved_for_control(),
        };
        // The sender's own count of free slots often suffices and avoids a look at the receiver's cache line.
        self.ring.cached_slots() > reserved || self.ring.slots() > reserved
    }

    /// Puts a message into the ring, which must have room.
    pub fn push(&mut self, message: M) {
        self.ring.push(message).expect("the ring had room, and only this side fills it");
    }

    /// Puts a message into the overflow queue of its class.
    pub fn push_overflow(&mut self, message: M, class: Class, load: Load) {
        match class {
            Class::Control => self.control.push(message, load),
            Class::Data => self.data.push(message, load),
        }
    }

    /// Moves messages from the overflow queues to the ring while there is room, and passes the load of each to `moved`.
    /// Returns whether it moved any.
    pub fn flush(&mut self, mut moved: impl FnMut(Load)) -> bool {
        let before = self.overflow_len();
        while self.can_flush() {
            let Some((message, load)) = self.control.pop().or_else(|| self.data.pop()) else { break };
            self.push(message);
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
        let capacity = self.ring.buffer().capacity();
        (capacity / CONTROL_FRACTION).max(1).min(capacity - 1)
    }

    /// Frees the memory of empty queues. Overflow is rare, and the memory of a burst is not kept.
    fn free_empty_queues(&mut self) {
        for queue in [&mut self.control, &mut self.data] {
            if queue.messages.is_empty() {
                *queue = OverflowQueue::new();
            }
        }
    }

    /// The number of messages for which the overflow queues have memory.
    #[cfg(test)]
    pub fn overflow_capacity(&self) -> usize {
        self.control.messages.capacity() + self.data.messages.capacity()
    }
}
