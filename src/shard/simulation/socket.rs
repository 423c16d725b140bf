//! A connection of the simulation.

use crate::protocol::testing::Random;
use crate::shard::testing::{Peer, World};
use crate::shard::tls::client::TlsClient;

/// A connection, and the output that its client has not sent yet.
pub struct SimSocket {
    pub peer: Peer,
    reads: bool,
    /// The bytes as they are sent: records, if the client speaks TLS.
    pub unsent: Vec<u8>,
    /// The client's side of TLS.
    pub tls: Option<TlsClient>,
}

impl SimSocket {
    pub fn new(peer: Peer) -> SimSocket {
        SimSocket { peer, reads: true, unsent: Vec::new(), tls: None }
    }

    /// The connection of a client that speaks TLS.
    pub fn with_tls(tls: TlsClient) -> SimSocket {
        SimSocket { peer: tls.peer, reads: true, unsent: Vec::new(), tls: Some(tls) }
    }

    /// Queues bytes of the protocol to be sent.
    pub fn queue(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => self.unsent.extend(tls.seal(bytes)),
            None => self.unsent.extend_from_slice(bytes),
        }
    }

    /// Takes the bytes of the protocol that the client has received.
    pub fn take_bytes(&mut self, world: &mut World) -> Vec<u8> {
        match &mut self.tls {
            Some(tls) => tls.handle(world),
            None => world.take_bytes(self.peer),
        }
    }

    pub fn send_some(&mut self, world: &mut World, random: &mut Random) {
        let len = random.below(self.unsent.len() + 1);
        let piece: Vec<u8> = self.unsent.drain(..len).collect();
        if !piece.is_empty() {
            world.send_bytes(self.peer, &piece);
        }
    }

    pub fn send_all(&mut self, world: &mut World) {
        if !self.unsent.is_empty() {
            world.send_bytes(self.peer, &std::mem::take(&mut self.unsent));
        }
    }

    pub fn toggle_reading(&mut self, world: &mut World) {
        self.reads ^= true;
        world.set_reading(self.peer, self.reads);
    }

    pub fn resume_reading(&mut self, world: &mut World) {
        self.reads = true;
        world.set_reading(self.peer, true);
    }
}
