//! The addresses of peers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address of a peer in a compact form, of which each connection has one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress {
    ip: [u8; 16],
    port: u16,
    unix: bool,
}

impl PeerAddress {
    /// The address of a peer on a Unix socket, which has no useful name.
    pub const UNIX: PeerAddress = PeerAddress { ip: [0; 16], port: 0, unix: true };

    /// Returns the address of a peer on an internet socket.
    pub fn internet(address: SocketAddr) -> PeerAddress {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        PeerAddress { ip: ip.octets(), port: address.port(), unix: false }
    }

    /// Returns the IP address, or `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        (!self.unix).then(|| Ipv6Addr::from(self.ip).to_canonical())
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => f.write_str("unix"),
        }
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
