//! Connections that arrive: accepting them, the limits that refuse them, and pauses when the kernel cannot accept.

use super::addresses::{CountedAddress, ShareUse};
use super::codecs::Codecs;
use super::connection::{Connection, Input, Refusal, Stage};
use super::ending::Cause;
use super::kernel::RingOp;
use super::mesh::SHARD;
use super::messages::ShardMessage;
use super::state::State;
use super::time::DueTimer;
use crate::config::ListenKind;
use crate::limits::REFUSAL_WAIT;
use crate::log::throttle;
use crate::metrics::Counter;
use crate::protocol::{HttpRefusal, Options};
use crate::qev::mesh::Class;
use crate::qev::ring::{Descriptor, Errno, PeerAddress};

/// How long accepting pauses for lack of descriptors or memory, in milliseconds, unless a connection is released
/// earlier.
const PAUSE_MS: u64 = 100;

impl State {
    /// Begins to accept from listeners of these kinds.
    pub fn start_accepting(&mut self, kinds: Vec<ListenKind>) {
        self.acceptor.listen(kinds.len());
        self.listeners.set(kinds);
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
        self.mesh.begin(SHARD);
        self.acceptor.accepted(listener);
        if self.is_shutting_down() {
            return self.discard(socket);
        }
        let sends_header = self.proxy_protocol.trusts(peer.ip());
        let is_proxy = sends_header || self.protocol.proxies.trusts(peer.ip());
        let peer = if is_proxy { peer.as_proxy() } else { peer };
        let refusal = self.refusal_of(peer);
        if refusal.is_some() {
            self.count(Counter::ConnectionsRefusedLimit, 1);
            if !self.refused.add(CountedAddress::of_peer(peer), Refusal::ServerFull) {
                return self.discard(socket);
            }
        }
        self.arm_accepts();
        let generation = self.connections.next_generation();
        let kind = self.listeners.kind(listener);
        let mut connection = Connection {
            refusal,
            is_silent_proxy: is_proxy && refusal.is_none(),
            ..Connection::new(socket, peer, generation, self.time.now())
        };
        connection.set_tls(kind != ListenKind::Plain);
        let slot = self.connections.insert(connection);
        if sends_header {
            self.proxy_headers.expect(slot);
        }
        self.expect_tls(slot, kind);
        if refusal.is_some() {
            return self.receive_to_refuse(codecs, slot, HttpRefusal::ServerFull);
        }
        codecs.start(slot, Options { echo: self.config.echo, refusal: None });
        self.wake_at(slot, self.time.ms_from_now(self.config.timeout));
        match self.count_address(slot, generation, peer) {
            AddressCount::Counted(ShareUse::Full) => self.refuse_address(codecs, slot),
            AddressCount::Counted(_) => self.start_receiving(slot),
            AddressCount::Asked => {}
        }
    }

    /// Counts a connection among the clients, and among those of proxies that have brought no request. If it is one too many,
    /// it is not counted: the refusal is logged and returned.
    fn refusal_of(&mut self, peer: PeerAddress) -> Option<Refusal> {
        if peer.is_proxy() && !self.acceptor.add_silent_proxy() {
            let (max, shard) = (self.acceptor.silent_proxies_max(), self.mesh.shard());
            throttle!(warn, "silent proxies", %peer, shard,
                "connection refused: {max} connections of proxies have sent no request or PROXY header yet, which is \
                 all that the shard permits; find out who opens them, or raise the limit on open files (ulimit -n, \
                 LimitNOFILE)");
            return Some(Refusal::ServerFull);
        }
        if self.shared.clients.acquire(0).is_ok() {
            return None;
        }
        if peer.is_proxy() {
            self.acceptor.remove_silent_proxy();
        }
        self.log_refusal(peer, Refusal::ServerFull);
        Some(Refusal::ServerFull)
    }

    /// Begins to receive from a connection that was accepted.
    fn start_receiving(&mut self, slot: u32) {
        let connection = self.connections.live_mut(slot);
        let socket = connection.socket().expect("what is received comes from a socket");
        connection.input = Input::Armed;
        self.ring_ops.push(RingOp::Receive(socket, slot));
    }

    /// Receives from a connection only to learn how to refuse it.
    fn receive_to_refuse(&mut self, codecs: &mut Codecs, slot: u32, refusal: HttpRefusal) {
        codecs.start(slot, Options { echo: false, refusal: Some(refusal) });
        let now = self.time.now();
        self.connections.live_mut(slot).began = now;
        self.wake_at(slot, self.time.ms_from_now(REFUSAL_WAIT));
        if self.connections.live(slot).input == Input::Ended {
            self.start_receiving(slot);
        }
    }

    /// Logs that a connection or session is refused.
    pub fn log_refusal(&self, peer: PeerAddress, refusal: Refusal) {
        let shard = self.mesh.shard();
        match refusal {
            Refusal::ServerFull => {
                let max = self.shared.clients.total();
                throttle!(warn, "clients-max", %peer, shard,
                    "connection refused: {max} clients are connected (clients-max)");
            }
            Refusal::AddressFull => {
                let max = self.addresses.max();
                throttle!(info, "connections-per-address-max", %peer, shard,
                    "connection refused: its address already has {max} connections and sessions \
                     (connections-per-address-max)");
            }
        }
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

    /// Adds a connection or session to the count of its address, which one of the shards keeps.
    pub fn count_address(&mut self, slot: u32, generation: u32, peer: PeerAddress) -> AddressCount {
        let few = AddressCount::Counted(ShareUse::Low);
        let Some(address) = self.addresses.counted(peer) else { return few };
        let Some(connections) = self.addresses.add(address) else { return few };
        let counter = self.counter_of(address);
        if counter == self.mesh.shard() {
            return AddressCount::Counted(self.addresses.add_reported(address, connections));
        }
        let added = ShardMessage::AddressAdded { address, connections, slot, generation };
        self.send_to_shard(counter, added, Class::Control);
        AddressCount::Asked
    }

    /// Removes a connection or session from the count of its address.
    pub fn forget_address(&mut self, peer: PeerAddress) {
        let Some(address) = self.addresses.counted(peer) else { return };
        // At a shutdown nobody connects any more, and the counts need no messages.
        if !self.addresses.remove(address) || self.is_shutting_down() {
            return;
        }
        let counter = self.counter_of(address);
        if counter == self.mesh.shard() {
            self.addresses.remove_reported(address);
        } else {
            self.send_to_shard(counter, ShardMessage::AddressRemoved { address }, Class::Control);
        }
    }

    /// The shard that counts an address.
    fn counter_of(&self, address: CountedAddress) -> u16 {
        self.mesh.shard_of_hash(self.shared.hasher.hash_one(address))
    }

    /// Handles the count of a connection or session by another shard. The connection may already have been released.
    pub fn address_counted(&mut self, codecs: &mut Codecs, slot: u32, generation: u32, share: ShareUse) {
        let Some(connection) = self.connections.get_of(slot, generation) else { return };
        if connection.stage != Stage::Open {
            return;
        }
        match share {
            ShareUse::Full => self.refuse_address(codecs, slot),
            ShareUse::High if !connection.is_socket() => self.try_session(slot),
            _ if connection.is_socket() && connection.input == Input::Ended && codecs.get(slot).is_new() => {
                // The peer could not be heard before. Others were counted later, and their streams may have ended since.
                self.connections.live_mut(slot).began = self.time.now();
                self.start_receiving(slot);
            }
            ShareUse::Low | ShareUse::High => {}
        }
    }

    /// Refuses a connection that exceeds the limit for its address, or ends a session or client that does.
    pub fn refuse_address(&mut self, codecs: &mut Codecs, slot: u32) {
        let connection = self.connections.live(slot);
        if !connection.is_socket() || !codecs.get(slot).is_new() {
            return self.end(slot, Cause::TooManyOfAddress);
        }
        let peer = connection.peer;
        self.count(Counter::ConnectionsRefusedAddress, 1);
        self.log_refusal(peer, Refusal::AddressFull);
        if self.refused.add(CountedAddress::of_peer(peer), Refusal::AddressFull) {
            self.connections.live_mut(slot).refusal = Some(Refusal::AddressFull);
            self.receive_to_refuse(codecs, slot, HttpRefusal::AddressFull);
        } else {
            self.abort(codecs, slot);
        }
    }
}

/// The outcome of adding a connection to the count of its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AddressCount {
    /// Counted. If the share of its address was full, the connection exceeds it.
    Counted(ShareUse),
    /// The shard that counts the address was asked. Nothing is received from an accepted connection until the reply.
    Asked,
}
