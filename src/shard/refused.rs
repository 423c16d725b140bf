//! Connections over a limit that are kept for a moment to be refused in the protocol that they speak.
//!
//! A connection that is closed at once is reset as soon as its peer sends something, and the peer does not learn the
//! reason. A few connections are therefore kept until their first bytes have told the protocol: HTTP requests, upgrades to
//! WebSocket included, are answered. The others are closed at once, without an answer.

use super::addresses::CountedAddress;
use super::connection::Refusal;
use crate::limits::{REFUSALS_MAX, REFUSALS_PER_ADDRESS_MAX, REFUSALS_UNCOUNTED_MAX};
use ahash::AHashMap;

/// The connections of a shard that are being refused.
///
/// Invariants: there are at most `REFUSALS_MAX` of them, at most `REFUSALS_PER_ADDRESS_MAX` from one address, and at most
/// `REFUSALS_UNCOUNTED_MAX` from peers that are not counted by an address. An address is listed only while it has any.
#[derive(Default)]
pub(super) struct RefusedConnections {
    /// The connections of each address. `None`: peers that are not counted by an address.
    connections: AHashMap<Option<CountedAddress>, usize>,
    count: usize,
    /// Those of them that `clients-max` does not count.
    uncounted: usize,
}

impl RefusedConnections {
    /// The number of connections.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The number of connections that `clients-max` does not count.
    pub fn uncounted(&self) -> usize {
        self.uncounted
    }

    /// Adds a connection, if there may be one more; returns whether it was added.
    pub fn add(&mut self, address: Option<CountedAddress>, refusal: Refusal) -> bool {
        let of_address = self.connections.get(&address).copied().unwrap_or_default();
        if self.count == REFUSALS_MAX || of_address == max_of(address) {
            return false;
        }
        self.connections.insert(address, of_address + 1);
        self.count += 1;
        self.uncounted += usize::from(refusal == Refusal::ServerFull);
        true
    }

    /// Removes a connection, which has been released.
    pub fn remove(&mut self, address: Option<CountedAddress>, refusal: Refusal) {
        let of_address = self.connections.get_mut(&address).expect("a connection that is removed was added");
        *of_address -= 1;
        if *of_address == 0 {
            self.connections.remove(&address);
        }
        self.count -= 1;
        self.uncounted -= usize::from(refusal == Refusal::ServerFull);
    }

    /// Asserts the invariants. `count` is the number of connections that have a [`Refusal`], and `uncounted` of them are
    /// not counted by `clients-max`.
    pub fn check(&self, count: usize, uncounted: usize) {
        assert_eq!((self.count, self.uncounted), (count, uncounted), "connections that are being refused");
        assert_eq!(self.connections.values().sum::<usize>(), count, "refused connections of all addresses");
        assert!(count <= REFUSALS_MAX, "{count} connections are being refused");
        for (address, connections) in &self.connections {
            assert!(
                (1..=max_of(*address)).contains(connections),
                "{connections} of {address:?} are being refused"
            );
        }
    }
}

fn max_of(address: Option<CountedAddress>) -> usize {
    if address.is_some() { REFUSALS_PER_ADDRESS_MAX } else { REFUSALS_UNCOUNTED_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Option<CountedAddress> {
        Some(CountedAddress::of([127, 0, 0, last].into()))
    }

    fn add(refused: &mut RefusedConnections, address: Option<CountedAddress>) -> bool {
        refused.add(address, Refusal::AddressFull)
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let mut refused = RefusedConnections::default();
        let added = (0..REFUSALS_MAX).filter(|_| add(&mut refused, address(1))).count();
        assert_eq!(added, REFUSALS_PER_ADDRESS_MAX);
        let uncounted = (0..REFUSALS_MAX).filter(|_| refused.add(None, Refusal::ServerFull)).count();
        assert_eq!(uncounted, REFUSALS_UNCOUNTED_MAX);
        let others = (2..).take_while(|last| add(&mut refused, address(*last))).count();
        assert_eq!(added + uncounted + others, REFUSALS_MAX);
        refused.check(REFUSALS_MAX, REFUSALS_UNCOUNTED_MAX);
        refused.remove(address(2), Refusal::AddressFull);
        refused.check(REFUSALS_MAX - 1, REFUSALS_UNCOUNTED_MAX);
        assert!(add(&mut refused, address(100)) && !add(&mut refused, address(101)));
        refused.remove(address(1), Refusal::AddressFull);
        assert!(add(&mut refused, address(1)));
        refused.remove(None, Refusal::ServerFull);
        refused.check(REFUSALS_MAX - 1, REFUSALS_UNCOUNTED_MAX - 1);
    }

    #[test]
    #[should_panic(expected = "connections that are being refused")]
    fn the_check_finds_a_connection_that_was_not_removed() {
        let mut refused = RefusedConnections::default();
        add(&mut refused, None);
        refused.check(0, 0);
    }

    #[test]
    #[should_panic(expected = "a connection that is removed was added")]
    fn a_connection_cannot_be_removed_twice() {
        RefusedConnections::default().remove(None, Refusal::AddressFull);
    }
}
