//! Connections that arrive: accepting them, the limits that refuse them, and pauses when the kernel cannot accept.

use super::addresses;
use super::codecs::Codecs;
use super::connection::Connection;
use super::ending::Cause;
use super::kernel::RingOp;
use super::messages::ShardMessage;
use super::state::State;
use super::time::DueTimer;
use crate::log::throttle;
use crate::metrics::Counter;
use crate::protocol::Options;
use crate::qev::mesh::Class;
use crate::qev::ring::{Descriptor, Errno, PeerAddress};

/// How long accepting pauses for lack of descriptors or memory, in milliseconds, unless a connection is released
/// earlier.
const PAUSE_MS: u64 = 100;

impl State {
    /// Begins to accept from this many listeners.
    pub fn start_accepting(&mut self, listeners: usize) {
        self.acceptor.listen(listeners);
        self.arm_accepts();
    }

    /// Arms an accept for each place that is free, up to the limits for a listener.
    fn arm_accepts(&mut self) {
        while let Some(listener) = self.acceptor.arm() {
            self.ring_ops.push(RingOp::Accept(listener));
        }
        if self.acceptor.has_filled() {
            self.count(Counter::AcceptsPaused, 1);
            let (shard, places) = (self.mesh.shard(), self.acceptor.places());
            throttle!(
                warn,
                "places",
                shard,
                "all {places} places of the shard are taken: new connections wait until others end; raise the \
                 limit on open files (ulimit -n, LimitNOFILE) or start more shards"
            );
        }
    }

    /// Closes a socket that has no record, or no longer has one. Its place is free again.
    pub fn discard(&mut self, socket: Descriptor) {
        self.ring_ops.push(RingOp::Discard(socket));
        self.acceptor.closed();
        self.acceptor.resume();
        self.arm_accepts();
    }

    /// Handles a connection that was accepted.
    pub fn accepted(&mut self, codecs: &mut Codecs, listener: usize, socket: Descriptor, peer: PeerAddress) {
        self.count(Counter::ConnectionsAccepted, 1);
        self.acceptor.accepted(listener);
        if self.is_shutting_down() {
            return self.discard(socket);
        }
        if self.shared.clients.acquire(0).is_err() {
            self.count(Counter::ConnectionsRefusedLimit, 1);
            throttle!(info, "clients-max", %peer, "connection refused: clients-max clients are connected");
            return self.discard(socket);
        }
        self.arm_accepts();
        let generation = self.connections.next_generation();
        let connection = Connection::new(socket, peer, generation, self.time.now());
        let slot = self.connections.insert(connection);
        codecs.start(slot, Options { echo: self.config.echo });
        self.ring_ops.push(RingOp::Receive(socket, slot));
        self.wake_at(slot, self.time.ms_from_now(self.config.timeout));
        self.count_address(slot, generation, peer);
    }

    /// Handles an accept that failed. Accepting pauses unless only one connection was at fault.
    pub fn accept_failed(&mut self, listener: usize, error: Errno) {
        self.acceptor.completed(listener);
        if error.is_exhaustion() {
            self.count(Counter::ConnectionsRefusedDescriptors, 1);
        } else {
            self.count(Counter::AcceptErrors, 1);
        }
        if !error.affects_one_connection() {
            self.pause_accepting(error);
        }
        self.arm_accepts();
    }

    fn pause_accepting(&mut self, error: Errno) {
        if self.acceptor.pause() {
            self.time.set(self.time.now_ms() + PAUSE_MS, DueTimer::AcceptAgain);
        }
        let shard = self.mesh.shard();
        throttle!(warn, "accept", shard, %error, "the kernel cannot accept connections; accepting pauses");
    }

    /// Handles the timer that ends a pause.
    pub fn accept_timer_fired(&mut self) {
        self.acceptor.timer_fired();
        self.acceptor.resume();
        self.arm_accepts();
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
