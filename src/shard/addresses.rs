//! The connections of each address, which `connections-per-address-max` limits.
//!
//! Each address is counted by one shard, whichever shards its connections live on. So that most connections cost no
//! message between shards, a shard reports an address only when it has several connections from it. If the limit is off,
//! nothing is counted and nothing is sent.

pub(super) use crate::client::CountedAddress;
use crate::qev::ring::PeerAddress;
use crate::qev::shrink::shrink;
use ahash::AHashMap;

/// The number of connections from one address that a shard has without reporting them, unless the limit is small.
const UNREPORTED_MAX: usize = 4;

/// The part of the limit that unreported connections may take.
const UNREPORTED_PART: usize = 16;

/// How much of what one peer may have is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ShareUse {
    /// Less than half.
    Low,
    /// Half or more.
    High,
    /// All.
    Full,
}

impl CountedAddress {
    /// The address by which a peer may be counted, or `None` for a Unix socket and for a proxy, which carries the
    /// connections of others.
    pub fn of_peer(peer: PeerAddress) -> Option<CountedAddress> {
        peer.ip().filter(|_| !peer.is_proxy()).map(CountedAddress::of)
    }
}

/// The connections of each address: those of this shard, and those of all shards for the addresses that this shard counts.
///
/// Invariants: an address is listed only while it has connections; if the limit is off, none is. What this shard has
/// reported is part of what the counting shard has counted.
pub(super) struct Addresses {
    /// The limit; 0 if it is off.
    max: usize,
    /// The number of connections from one address that each shard has without reporting them.
    unreported_max: u32,
    /// The most connections of one address that may be reported: with those that no shard reports, they are at most
    /// `max`.
    reported_max: usize,
    /// The connections of this shard.
    own: AHashMap<CountedAddress, OwnConnections>,
    /// The connections that were reported to this shard.
    reported: AHashMap<CountedAddress, usize>,
}

/// The connections of a shard from one address.
#[derive(Clone, Copy, Default)]
struct OwnConnections {
    count: u32,
    /// `true` if all of them have been reported, and each change is.
    are_reported: bool,
}

impl Addresses {
    /// Creates an empty table for one of this many shards. `max` is the limit for each address, or 0 for no limit.
    pub fn new(max: usize, shards: usize) -> Addresses {
        // If the limit is small, it is exact. Otherwise the shards that report nothing have a small part of it.
        let is_small = max < shards * UNREPORTED_MAX * UNREPORTED_PART;
        let unreported_max = if is_small { 0 } else { UNREPORTED_MAX };
        let reported_max = max - unreported_max * shards.saturating_sub(1);
        let (own, reported) = (AHashMap::new(), AHashMap::new());
        Addresses { max, unreported_max: unreported_max as u32, reported_max, own, reported }
    }

    /// The limit for each address, or 0 if there is none.
    pub fn max(&self) -> usize {
        self.max
    }

    /// The address by which a peer is counted, or `None` if the peer is not counted: the limit is off, or the peer is
    /// a Unix socket or a proxy.
    pub fn counted(&self, peer: PeerAddress) -> Option<CountedAddress> {
        if self.max == 0 { None } else { CountedAddress::of_peer(peer) }
    }

    /// Adds a connection of this shard; returns how many must be reported to the shard that counts the address, if any.
    pub fn add(&mut self, address: CountedAddress) -> Option<u32> {
        let own = self.own.entry(address).or_default();
        own.count += 1;
        if own.are_reported {
            return Some(1);
        }
        own.are_reported = own.count > self.unreported_max;
        own.are_reported.then_some(own.count)
    }

    /// Removes a connection of this shard; returns whether that must be reported.
    pub fn remove(&mut self, address: CountedAddress) -> bool {
        let own = self.own.get_mut(&address).expect("a connection that is removed was added");
        own.count -= 1;
        let are_reported = own.are_reported;
        if own.count == 0 {
            self.own.remove(&address);
            shrink(&mut self.own);
        }
        are_reported
    }

    /// Counts reported connections. If the share was full before the last one of them, that one exceeds it. It is counted
    /// nevertheless, until it is removed.
    pub fn add_reported(&mut self, address: CountedAddress, connections: u32) -> ShareUse {
        let reported = self.reported.entry(address).or_default();
        *reported += connections as usize;
        if *reported > self.reported_max {
            ShareUse::Full
        } else if *reported > self.reported_max / 2 {
            ShareUse::High
        } else {
            ShareUse::Low
        }
    }

    /// Removes a reported connection.
    pub fn remove_reported(&mut self, address: CountedAddress) {
        let reported = self.reported.get_mut(&address).expect("a connection that is removed was reported");
        *reported -= 1;
        if *reported == 0 {
            self.reported.remove(&address);
            shrink(&mut self.reported);
        }
    }

    /// Asserts the invariants. `counted` is the number of connections of this shard that are counted. Linear in the
    /// number of addresses.
    pub fn check(&self, counted: usize) {
        let own: usize = self.own.values().map(|own| own.count as usize).sum();
        assert_eq!(
            own,
            if self.max == 0 { 0 } else { counted },
            "connections that are counted by their address"
        );
        assert!(self.own.values().all(|own| own.count > 0), "an address without connections");
        assert!(self.reported.values().all(|count| *count > 0), "an address without reported connections");
        for own in self.own.values() {
            let is_few = own.count <= self.unreported_max;
            assert!(own.are_reported || is_few, "{} connections of an address are not reported", own.count);
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.reported.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> CountedAddress {
        CountedAddress::of(text.parse().unwrap())
    }

    #[test]
    fn a_small_limit_is_exact() {
        let mut addresses = Addresses::new(2, 2);
        let address = address("127.0.0.1");
        for expected in [ShareUse::Low, ShareUse::High, ShareUse::Full] {
            let report = addresses.add(address).unwrap();
            assert_eq!(addresses.add_reported(address, report), expected);
        }
        addresses.check(3);
        for _ in 0..3 {
            assert!(addresses.remove(address));
            addresses.remove_reported(address);
        }
        addresses.check(0);
        assert!(addresses.is_empty());
    }

    #[test]
    fn few_connections_of_an_address_are_not_reported() {
        let mut addresses = Addresses::new(1024, 8);
        let address = address("127.0.0.1");
        let mut reports = || addresses.add(address);
        assert_eq!([reports(), reports(), reports(), reports()], [None; 4]);
        assert_eq!([reports(), reports()], [Some(5), Some(1)], "the fifth brings the others with it");
        addresses.check(6);
        assert!((0..6).all(|_| addresses.remove(address)), "what was reported is reported when it goes");
        assert_eq!(addresses.add(address), None);
        assert!(!addresses.remove(address) && addresses.is_empty());
    }

    /// However the connections are spread over shards, there are at most as many as the limit, and at least 15/16 of it.
    #[test]
    fn the_limit_holds_over_all_shards() {
        for (max, shards) in [(1, 1), (3, 2), (100, 2), (1024, 8), (1024, 128), (65_536, 128)] {
            for spread in 1..=shards {
                let mut tables: Vec<Addresses> = (0..shards).map(|_| Addresses::new(max, shards)).collect();
                let (address, mut staying) = (address("127.0.0.1"), 0);
                for connection in 0..2 * max {
                    let report = tables[connection % spread].add(address);
                    let mut fits = |count| tables[0].add_reported(address, count) != ShareUse::Full;
                    staying += usize::from(report.is_none_or(&mut fits));
                }
                assert!(
                    staying <= max && staying >= max - max / UNREPORTED_PART,
                    "{staying} of {max}, {shards} shards"
                );
            }
        }
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_address() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::2:3:4:5"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_ne!(address("127.0.0.1"), address("127.0.0.2"));
        assert_ne!(address("::1"), address("0.0.0.0"));
    }

    #[test]
    fn without_a_limit_nobody_is_counted() {
        let peer = PeerAddress::internet("127.0.0.1:1".parse().unwrap());
        assert_eq!(Addresses::new(0, 2).counted(peer), None);
        assert_eq!(Addresses::new(1, 2).counted(peer), Some(address("127.0.0.1")));
        assert_eq!(Addresses::new(1, 2).counted(PeerAddress::UNIX), None);
        assert_eq!(Addresses::new(1, 2).counted(peer.as_proxy()), None);
    }

    #[test]
    #[should_panic(expected = "connections that are counted by their address")]
    fn the_check_finds_a_connection_that_is_not_counted() {
        Addresses::new(2, 1).check(1);
    }

    #[test]
    #[should_panic(expected = "an address without reported connections")]
    fn the_check_finds_an_address_without_connections() {
        let mut addresses = Addresses::new(2, 1);
        addresses.reported.insert(address("127.0.0.1"), 0);
        addresses.check(0);
    }

    #[test]
    #[should_panic(expected = "5 connections of an address are not reported")]
    fn the_check_finds_connections_that_were_not_reported() {
        let mut addresses = Addresses::new(1024, 2);
        addresses.own.insert(address("127.0.0.1"), OwnConnections { count: 5, are_reported: false });
        addresses.check(5);
    }
}
