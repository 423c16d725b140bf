//! The addresses of peers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address of a peer in a compact form, of which each connection has one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress {
    ip: [u8; 16],
    port: u16,
    kind: PeerKind,
}

/// The kind of a peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PeerKind {
    /// The peer has the IP address.
    Internet,
    /// The peer is at the other end of a Unix socket, and has no address.
    Unix,
    /// The peer is a proxy, which has the IP address and carries the connections of others.
    Proxy,
    /// The same at the other end of a Unix socket.
    UnixProxy,
    /// The peer is behind a proxy, which has told the IP address.
    Forwarded,
}

impl PeerAddress {
    /// The address of a peer on a Unix socket, which has no useful name.
    pub const UNIX: PeerAddress = PeerAddress { ip: [0; 16], port: 0, kind: PeerKind::Unix };

    /// Returns the address of a peer on an internet socket.
    pub fn internet(address: SocketAddr) -> PeerAddress {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        PeerAddress { ip: ip.octets(), port: address.port(), kind: PeerKind::Internet }
    }

    /// Returns the address of a peer behind a proxy, which has told it. The port is unknown.
    pub fn forwarded(ip: IpAddr) -> PeerAddress {
        PeerAddress { kind: PeerKind::Forwarded, ..PeerAddress::internet(SocketAddr::new(ip, 0)) }
    }

    /// Returns the same address, as that of a proxy.
    pub fn as_proxy(self) -> PeerAddress {
        let kind = match self.kind {
            PeerKind::Internet | PeerKind::Proxy | PeerKind::Forwarded => PeerKind::Proxy,
            PeerKind::Unix | PeerKind::UnixProxy => PeerKind::UnixProxy,
        };
        PeerAddress { kind, ..self }
    }

    /// Returns the same address, as that of a peer that speaks for itself.
    pub fn as_itself(self) -> PeerAddress {
        let kind = match self.kind {
            PeerKind::Internet | PeerKind::Proxy => PeerKind::Internet,
            PeerKind::Unix | PeerKind::UnixProxy => PeerKind::Unix,
            PeerKind::Forwarded => PeerKind::Forwarded,
        };
        PeerAddress { kind, ..self }
    }

    /// Returns whether the peer is a proxy.
    pub fn is_proxy(&self) -> bool {
        matches!(self.kind, PeerKind::Proxy | PeerKind::UnixProxy)
    }

    /// Returns whether the peer's connections are its own: it is neither a proxy, nor behind one, nor on a Unix socket.
    pub fn is_direct(&self) -> bool {
        self.kind == PeerKind::Internet
    }

    /// Returns the IP address, or `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        let has_ip = !matches!(self.kind, PeerKind::Unix | PeerKind::UnixProxy);
        has_ip.then(|| Ipv6Addr::from(self.ip).to_canonical())
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(ip) if self.port == 0 => ip.fmt(f),
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
