//! Connections that arrive: accepting them, the limits that refuse them, and pauses when the kernel cannot accept.

use super::addresses;
use super::codecs::Codecs;
use super::connection::Connection;
use super::ending::Cause;
use super::kernel::RingOp;
use super::messages::ShardMessage;
use super::state::State;
use super::time::DueTimer;
use crate::metrics::Counter;
use crate::protocol::Options;
use crate::qev::mesh::Class;
use crate::qev::ring::{Descriptor, Errno, PeerAddress};

/// How long accepting pauses for lack of descriptors or memory, in milliseconds, unless a connection is released
/// earlier.
const PAUSE_MS: u64 = 100;

impl State {
    /// Handles a connection that was accepted.
    pub fn accepted(&mut self, codecs: &mut Codecs, socket: Descriptor, peer: PeerAddress) {
        self.count(Counter::ConnectionsAccepted, 1);
        if self.is_shutting_down() {
            return self.ring_ops.push(RingOp::Discard(socket));
        }
        if self.shared.clients.acquire(0).is_err() {
            self.count(Counter::ConnectionsRefusedLimit, 1);
            tracing::info!(%peer, "connection refused: clients-max clients are connected");
            return self.ring_ops.push(RingOp::Discard(socket));
        }
        let generation = self.connections.next_generation();
        let connection = Connection::new(socket, peer, generation, self.time.now());
        let slot = self.connections.insert(connection);
        codecs.start(slot, Options { echo: self.config.echo });
        self.ring_ops.push(RingOp::Receive(socket, slot));
        self.wake_at(slot, self.time.ms_from_now(self.config.timeout));
        self.count_address(slot, generation, peer);
    }

    /// Handles an accept that failed. Accepting pauses unless only one connection was at fault.
    pub fn accept_failed(&mut self, error: Errno) {
        if error.is_exhaustion() {
            self.count(Counter::ConnectionsRefusedDescriptors, 1);
            return self.pause_accepting(error);
        }
        self.count(Counter::AcceptErrors, 1);
        if error.affects_one_connection() {
            self.ring_ops.push(RingOp::AcceptAgain);
        } else {
            self.pause_accepting(error);
        }
    }

    fn pause_accepting(&mut self, error: Errno) {
        if self.acceptor.pause() {
            tracing::warn!(shard = self.mesh.shard(), %error, "the kernel cannot accept connections; accepting pauses");
            self.time.set(self.time.now_ms() + PAUSE_MS, DueTimer::AcceptAgain);
        }
    }

    /// Handles the timer that ends a pause.
    pub fn accept_timer_fired(&mut self) {
        self.acceptor.timer_fired();
        self.resume_accepting();
    }

    /// Resumes accepting if it has paused.
    pub fn resume_accepting(&mut self) {
        if self.acceptor.resume() {
            self.ring_ops.push(RingOp::AcceptAgain);
        }
    }

    /// Adds a new connection to the count of its address, which one of the shards keeps.
    pub fn count_address(&mut self, slot: u32, generation: u32, peer: PeerAddress) {
        let Some(address) = self.addresses.counted(peer) else { return };
        let counter = self.mesh.shard_of_hash(addresses::hash(address));
        if counter != self.mesh.shard() {
            self.send_to_shard(
                counter,
                ShardMessage::AddressAdded { address, slot, generation },
                Class::Control,
            );
        } else if !self.addresses.add(address) {
            self.refuse_address(slot, generation);
        }
    }

    /// Removes a connection from the count of its address.
    pub fn forget_address(&mut self, peer: PeerAddress) {
        let Some(address) = self.addresses.counted(peer) else { return };
        let counter = self.mesh.shard_of_hash(addresses::hash(address));
        if counter == self.mesh.shard() {
            self.addresses.remove(address);
        } else {
            self.send_to_shard(counter, ShardMessage::AddressRemoved { address }, Class::Control);
        }
    }

    /// Ends a connection that exceeds the limit for its address. The connection may already have been released.
    pub fn refuse_address(&mut self, slot: u32, generation: u32) {
        if self.connections.get_of(slot, generation).is_some() {
            self.end(slot, Cause::TooManyOfAddress);
        }
    }
}
