//! The connections of each address, which `connections-per-address-max` limits.
//!
//! Each address is counted by one shard, whichever shards its connections live on. If the limit is off, nothing is
//! counted and nothing is sent.

use crate::qev::ring::PeerAddress;
use ahash::AHashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

/// The addresses that this shard counts.
///
/// Invariants: an address is listed only while it has connections; if the limit is off, none is.
pub(super) struct Addresses {
    /// The limit; 0 if it is off.
    max: usize,
    connections: AHashMap<IpAddr, usize>,
}

impl Addresses {
    /// Creates an empty table. `max` is the limit for each address, or 0 for no limit.
    pub fn new(max: usize) -> Addresses {
        Addresses { max, connections: AHashMap::new() }
    }

    /// Counts a connection; returns whether it may stay. It is counted in either case, until it is removed.
    pub fn add(&mut self, address: IpAddr) -> bool {
        let connections = self.connections.entry(address).or_default();
        *connections += 1;
        *connections <= self.max
    }

    /// Removes a connection.
    pub fn remove(&mut self, address: IpAddr) {
        if let Some(connections) = self.connections.get_mut(&address) {
            *connections -= 1;
            if *connections == 0 {
                self.connections.remove(&address);
            }
        }
    }

    /// The address by which a peer is counted, or `None` if the peer is not counted: the limit is off, or the socket
    /// has no IP address.
    pub fn counted(&self, peer: PeerAddress) -> Option<IpAddr> {
        if self.max == 0 { None } else { peer.ip().map(network) }
    }

    /// Asserts the invariants. Linear in the number of addresses.
    pub fn check(&self) {
        assert!(
            self.connections.values().all(|connections| *connections > 0),
            "an address without connections"
        );
        assert!(self.max > 0 || self.connections.is_empty(), "an address is counted, but the limit is off");
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }
}

/// Hashes an address. Every shard gets the same result: this hasher has no key.
pub(super) fn hash(address: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish()
}

/// The address by which a peer is counted: its IPv4 address, or the /64 network that an IPv6 host has to itself.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_counted_until_its_last_connection_is_removed() {
        let mut addresses = Addresses::new(2);
        let address = IpAddr::from([127, 0, 0, 1]);
        assert!(addresses.add(address) && addresses.add(address));
        assert!(!addresses.add(address), "the third");
        addresses.remove(address);
        addresses.remove(address);
        assert!(addresses.add(address), "two were removed");
        addresses.remove(address);
        addresses.remove(address);
        assert!(addresses.connections.is_empty());
    }

    #[test]
    #[should_panic(expected = "an address without connections")]
    fn the_check_finds_an_address_without_connections() {
        let mut addresses = Addresses::new(2);
        addresses.connections.insert(IpAddr::from([127, 0, 0, 1]), 0);
        addresses.check();
    }

    #[test]
    #[should_panic(expected = "an address is counted, but the limit is off")]
    fn the_check_finds_an_address_that_is_counted_for_nothing() {
        let mut addresses = Addresses::new(0);
        addresses.add(IpAddr::from([127, 0, 0, 1]));
        addresses.check();
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_address() {
        let ip = |text: &str| network(text.parse().unwrap());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::2:3:4:5"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_ne!(ip("127.0.0.1"), ip("127.0.0.2"));
    }
}
