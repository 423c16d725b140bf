//! Connections that proxies have opened for their clients: who the client is, and for whom a connection counts.

use super::accept::AddressCount;
use super::addresses::ShareUse;
use super::codecs::Codecs;
use super::connection::{Refusal, Stage};
use super::ending::Cause;
use super::state::State;
use crate::limits::PROXY_HEADER_BYTES_MAX;
use crate::metrics::Counter;
use crate::protocol::Reason;
use crate::protocol::proxy_header::ProxyHeader;
use crate::qev::ring::PeerAddress;
use std::net::{IpAddr, SocketAddr};

#[cfg(test)]
mod tests;

impl State {
    /// Handles bytes of a connection that has to begin with a header of the PROXY protocol. What follows the header is
    /// the peer's input.
    pub fn proxy_header_received(&mut self, codecs: &mut Codecs, slot: u32, begun: Vec<u8>, data: &mut [u8]) {
        if self.connections.live(slot).stage != Stage::Open {
            self.incomplete.changed(begun.capacity(), 0);
            return self.handle_input(codecs, slot, data);
        }
        let (had, before) = (begun.len(), begun.capacity());
        let mut header = begun;
        header.extend_from_slice(&data[..data.len().min(PROXY_HEADER_BYTES_MAX - had)]);
        let parsed = ProxyHeader::parse(&header);
        let after = if parsed == ProxyHeader::Incomplete { header.capacity() } else { 0 };
        self.incomplete.changed(before, after);
        match parsed {
            ProxyHeader::Incomplete => self.proxy_headers.put(slot, header),
            ProxyHeader::Complete { len, client } => {
                self.count(Counter::ProxyHeaders, 1);
                self.proxied_for(codecs, slot, client);
                self.handle_input(codecs, slot, &mut data[len - had..]);
            }
            ProxyHeader::Missing if self.config.proxy_protocol_optional => {
                self.proxied_for(codecs, slot, None);
                self.handle_input(codecs, slot, &mut header[..had]);
                self.handle_input(codecs, slot, data);
            }
            ProxyHeader::Missing => self.end(slot, Cause::Reason(Reason::NoProxyHeader)),
            ProxyHeader::Invalid => self.end(slot, Cause::Reason(Reason::InvalidProxyHeader)),
        }
    }

    /// Notes for whom a proxy has opened a connection: a client, for which it counts from now on, or itself.
    fn proxied_for(&mut self, codecs: &mut Codecs, slot: u32, client: Option<SocketAddr>) {
        let connection = self.connections.live_mut(slot);
        let generation = connection.generation;
        let client = client.map_or(connection.peer.as_itself(), PeerAddress::internet);
        if self.protocol.proxies.trusts(client.ip()) {
            // The client is itself a proxy, whose requests tell their clients.
            connection.peer = client.as_proxy();
            return;
        }
        if connection.refusal == Some(Refusal::ServerFull) {
            // The connection is not counted.
            return;
        }
        connection.peer = client;
        self.has_spoken(slot);
        self.mesh.begin(self.connections.source(slot));
        if self.count_address(slot, generation, client) == AddressCount::Counted(ShareUse::Full) {
            self.refuse_address(codecs, slot);
        }
    }

    /// Forgets the header of a connection that is released.
    pub fn forget_proxy_header(&mut self, slot: u32) {
        if !self.proxy_headers.is_empty() {
            self.incomplete.changed(self.proxy_headers.forget(slot), 0);
        }
    }

    /// Notes that a connection has brought its first request or completed its handshake, or that it ends.
    pub fn has_spoken(&mut self, slot: u32) {
        let connection = self.connections.live_mut(slot);
        if std::mem::take(&mut connection.is_silent_proxy) {
            self.acceptor.remove_silent_proxy();
        }
    }

    /// The address of the client that a peer speaks for: its own, or the one that a trusted proxy has told.
    pub fn client_address(&self, peer: PeerAddress, told: Option<IpAddr>) -> PeerAddress {
        match told {
            Some(ip) if peer.is_proxy() && self.protocol.proxies.trusts(Some(ip)) => {
                PeerAddress::forwarded(ip).as_proxy()
            }
            Some(ip) if peer.is_proxy() => PeerAddress::forwarded(ip),
            _ => peer,
        }
    }

    /// Notes that a connection has been upgraded for a client, whose address the headers tell. If the peer is a trusted
    /// proxy, the connection counts for that client from now on.
    pub fn upgraded_for(&mut self, slot: u32, client: IpAddr) {
        let connection = self.connections.live(slot);
        let (peer, generation) = (connection.peer, connection.generation);
        if !peer.is_proxy() {
            return;
        }
        let client = self.client_address(peer, Some(client));
        self.connections.live_mut(slot).peer = client;
        if self.count_address(slot, generation, client) == AddressCount::Counted(ShareUse::Full) {
            self.end(slot, Cause::TooManyOfAddress);
        }
    }
}
