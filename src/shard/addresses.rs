//! The limit on connections of one address (`connections-per-address-max`). Each address is counted by one shard,
//! whichever shards its connections live on; where the limit is off nothing is counted and nothing is sent.

use super::connection::Cause;
use super::mail::ShardMessage;
use super::state::State;
use crate::qev::mesh::Class;
use crate::qev::ring::PeerAddress;
use ahash::AHashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

/// The addresses that this shard counts.
pub(super) struct Addresses {
    max: usize,
    connections: AHashMap<IpAddr, usize>,
}

impl Addresses {
    pub fn new(max: usize) -> Addresses {
        Addresses { max, connections: AHashMap::new() }
    }

    /// One connection more; whether it may stay. It is counted either way, until it has left.
    pub fn came(&mut self, address: IpAddr) -> bool {
        let connections = self.connections.entry(address).or_default();
        *connections += 1;
        *connections <= self.max
    }

    /// One connection less.
    pub fn left(&mut self, address: IpAddr) {
        if let Some(connections) = self.connections.get_mut(&address) {
            *connections -= 1;
            if *connections == 0 {
                self.connections.remove(&address);
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    fn counted(&self, peer: PeerAddress) -> Option<IpAddr> {
        if self.max == 0 { None } else { peer.ip().map(network) }
    }
}

impl State {
    /// Has a new connection counted where its address is counted.
    pub fn count_address(&mut self, slot: u32, generation: u32, peer: PeerAddress) {
        let Some(address) = self.addresses.counted(peer) else { return };
        let counter = self.counter_of_address(address);
        if counter != self.id {
            self.mail(counter, ShardMessage::AddressCame { address, slot, generation }, Class::Control);
        } else if !self.addresses.came(address) {
            self.refuse_address(slot, generation);
        }
    }

    /// A connection has left.
    pub fn forget_address(&mut self, peer: PeerAddress) {
        let Some(address) = self.addresses.counted(peer) else { return };
        let counter = self.counter_of_address(address);
        if counter == self.id {
            self.addresses.left(address);
        } else {
            self.mail(counter, ShardMessage::AddressLeft { address }, Class::Control);
        }
    }

    /// A connection was one too many, if it is still the one that was counted.
    pub fn refuse_address(&mut self, slot: u32, generation: u32) {
        if self.connections.get(slot as usize).is_some_and(|c| c.generation == generation) {
            self.end(slot, Cause::TooManyOfAddress);
        }
    }

    fn counter_of_address(&self, address: IpAddr) -> u16 {
        // Every shard must come to the same result: this hasher has no key.
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        (hasher.finish() % self.port.shards() as u64) as u16
    }
}

/// What counts as one address: an IPv4 address, or the /64 network that an IPv6 host has for itself.
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
    fn an_address_is_counted_until_its_last_connection_has_left() {
        let mut addresses = Addresses::new(2);
        let address = IpAddr::from([127, 0, 0, 1]);
        assert!(addresses.came(address) && addresses.came(address));
        assert!(!addresses.came(address), "the third");
        addresses.left(address);
        addresses.left(address);
        assert!(addresses.came(address), "two have left");
        addresses.left(address);
        addresses.left(address);
        assert!(addresses.connections.is_empty());
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_address() {
        let ip = |text: &str| network(text.parse().unwrap());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::2:3:4:5"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_ne!(ip("127.0.0.1"), ip("127.0.0.2"));
    }
}
