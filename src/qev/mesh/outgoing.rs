//! The sending side of the connection to one peer.

use std::collections::VecDeque;

use rtrb::Producer;

use super::Class;

/// The fraction of a ring that only Control may use: one eighth.
const CONTROL_FRACTION: usize = 8;

/// The ring to one peer, and the overflow queues for the messages that did not fit.
pub(super) struct Outgoing<M> {
    ring: Producer<M>,
    control: VecDeque<M>,
    data: VecDeque<M>,
}

impl<M> Outgoing<M> {
    pub fn new(ring: Producer<M>) -> Self {
        Self { ring, control: VecDeque::new(), data: VecDeque::new() }
    }

    /// Returns whether the peer has dropped its port.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Returns whether a message of this class would overtake a message that it must not overtake.
    pub fn must_wait(&self, class: Class) -> bool {
        !self.control.is_empty() || (class == Class::Data && !self.data.is_empty())
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
    pub fn push_overflow(&mut self, message: M, class: Class) {
        match class {
            Class::Control => self.control.push_back(message),
            Class::Data => self.data.push_back(message),
        }
    }

    /// Moves messages from the overflow queues to the ring while there is room. Returns whether it moved any.
    pub fn flush(&mut self) -> bool {
        let before = self.overflow_len();
        while self.can_flush() {
            let Some(message) = self.control.pop_front().or_else(|| self.data.pop_front()) else { break };
            self.push(message);
        }
        self.free_empty_queues();
        self.overflow_len() < before
    }

    /// Returns whether there is room for the first message in the overflow queues.
    pub fn can_flush(&self) -> bool {
        if self.control.is_empty() {
            !self.data.is_empty() && self.has_room(Class::Data)
        } else {
            self.has_room(Class::Control)
        }
    }

    /// Drops the messages in the overflow queues because the peer has ended. Returns their number.
    pub fn drop_overflow(&mut self) -> usize {
        let dropped = self.overflow_len();
        self.control.clear();
        self.data.clear();
        self.free_empty_queues();
        dropped
    }

    /// Returns the number of messages in both overflow queues.
    pub fn overflow_len(&self) -> usize {
        self.control.len() + self.data.len()
    }

    /// Returns the number of messages in the overflow queue of Data.
    pub fn data_overflow_len(&self) -> usize {
        self.data.len()
    }

    fn reserved_for_control(&self) -> usize {
        let capacity = self.ring.buffer().capacity();
        (capacity / CONTROL_FRACTION).max(1).min(capacity - 1)
    }

    /// Frees the memory of empty queues. Overflow is rare, and the memory of a burst is not kept.
    fn free_empty_queues(&mut self) {
        for queue in [&mut self.control, &mut self.data] {
            if queue.is_empty() {
                *queue = VecDeque::new();
            }
        }
    }

    /// The number of messages for which the overflow queues have memory.
    #[cfg(test)]
    pub fn overflow_capacity(&self) -> usize {
        self.control.capacity() + self.data.capacity()
    }
}
