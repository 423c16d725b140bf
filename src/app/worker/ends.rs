//! Ends of subscriptions and of clients that wait until an instance has a worker again.

use crate::app::shares::{ShareRefusal, Shares};
use crate::client::ClientId;
use std::collections::VecDeque;

/// Bytes that an end takes besides its text: its place in the queue, and the overhead of an allocation.
const END_BYTES: usize = size_of::<ClientEnd>() + 16;

/// The end of a subscription, or of a client.
#[derive(PartialEq, Eq, Debug)]
pub enum ClientEnd {
    /// A subscription has ended. The number is the group's number of the event.
    Unsubscribed { event_number: u32, client: ClientId, extra: Box<str> },
    /// A client that a worker has watched has disconnected.
    Gone { client: ClientId },
}

impl ClientEnd {
    pub fn client(&self) -> ClientId {
        match self {
            ClientEnd::Unsubscribed { client, .. } | ClientEnd::Gone { client } => *client,
        }
    }

    fn cost(&self) -> usize {
        match self {
            ClientEnd::Unsubscribed { extra, .. } => END_BYTES + extra.len(),
            ClientEnd::Gone { .. } => END_BYTES,
        }
    }
}

/// The ends of which no worker has been told, in order.
///
/// Invariant, which [`check`](WaitingEnds::check) asserts: the shares are what the ends cost.
pub struct WaitingEnds {
    ends: VecDeque<ClientEnd>,
    /// Bytes, by client.
    shares: Shares,
    bytes_max: usize,
}

impl WaitingEnds {
    /// Returns an empty queue that takes ends of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> WaitingEnds {
        WaitingEnds { ends: VecDeque::new(), shares: Shares::new(bytes_max, 0), bytes_max }
    }

    /// Checks whether a client may begin something whose end would wait.
    ///
    /// # Errors
    ///
    /// The queue is full, or the client has its share of it.
    pub fn admit(&self, client: ClientId) -> Result<(), ShareRefusal> {
        self.shares.admit(client)
    }

    /// Adds an end. Returns `false`, and adds nothing, if there is no room.
    pub fn push(&mut self, end: ClientEnd) -> bool {
        let has_room = self.shares.used() + end.cost() <= self.bytes_max;
        if has_room {
            self.shares.add(end.client(), end.cost());
            self.ends.push_back(end);
        }
        has_room
    }

    /// Removes and returns all ends, in order.
    pub fn take(&mut self) -> VecDeque<ClientEnd> {
        self.shares.clear();
        std::mem::take(&mut self.ends)
    }

    /// Asserts the invariant. Linear in the number of ends.
    pub fn check(&self) {
        self.shares.check();
        let cost: usize = self.ends.iter().map(ClientEnd::cost).sum();
        assert_eq!(self.shares.used(), cost, "the shares are what the ends cost");
        assert!(cost <= self.bytes_max, "the ends cost {cost} bytes, more than {}", self.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_wait_in_order_and_are_bounded_in_bytes() {
        let client = |slot| ClientId { shard: 0, slot, generation: 1 };
        let off =
            |slot| ClientEnd::Unsubscribed { event_number: 3, client: client(slot), extra: "/a".into() };
        let mut waiting = WaitingEnds::new(10 * END_BYTES);
        assert!(waiting.push(off(1)) && waiting.push(ClientEnd::Gone { client: client(1) }));
        waiting.check();
        assert_eq!(waiting.admit(client(1)), Err(ShareRefusal::Share));
        assert_eq!(waiting.admit(client(2)), Ok(()));
        let fitting = (2..100).take_while(|slot| waiting.push(off(*slot))).count();
        assert_eq!(fitting, 7, "the texts count too");
        waiting.check();
        let taken = waiting.take();
        assert_eq!((taken.len(), &taken[0], &taken[1]), (9, &off(1), &ClientEnd::Gone { client: client(1) }));
        waiting.check();
        assert!(waiting.push(off(1)));
    }
}
