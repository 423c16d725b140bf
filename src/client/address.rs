//! Addresses as they are counted: what one peer may have is bounded by its address.

use std::net::IpAddr;

/// An address as it is counted: an IPv4 address, or the /64 network that an IPv6 host has to itself.
///
/// The networks of IPv6 are their first 64 bits. The IPv4 addresses have the place of networks that are reserved
/// (0000::/8, RFC 4291).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CountedAddress(u64);

/// The upper half of the IPv4 addresses among the networks.
const IPV4: u64 = 1 << 32;

impl CountedAddress {
    /// The address by which a peer with this IP address is counted.
    pub fn of(ip: IpAddr) -> CountedAddress {
        match ip {
            IpAddr::V4(ip) => CountedAddress(IPV4 | u64::from(ip.to_bits())),
            IpAddr::V6(ip) => CountedAddress((ip.to_bits() >> 64) as u64),
        }
    }

    /// Returns the number that stands for the address.
    pub fn number(self) -> u64 {
        self.0
    }
}
