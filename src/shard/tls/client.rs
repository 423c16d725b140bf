//! A client of the shard tests that speaks TLS: rustls, over the simulated sockets.

use crate::app::Application;
use crate::config::{Config, ListenKind};
use crate::protocol::OHAI;
use crate::protocol::websocket::frame::Opcode;
use crate::shard::testing::{PLACES, Peer, UPGRADE, World, client_frame, raw_message, raw_texts};
use crate::tls::{TlsContext, testing};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, ServerConfig, SupportedProtocolVersion};
use std::sync::Arc;

fn client_config(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    Arc::new(testing::client_config_with(aws_lc_rs::default_provider(), versions))
}

/// Creates shards whose listener is of this kind.
pub fn world(shards: usize, kind: ListenKind, config: Config, apps: Vec<Arc<dyn Application>>) -> World {
    world_with(shards, kind, config, apps, testing::server_config("server", rustls::ALL_VERSIONS))
}

/// Creates shards whose listener is of this kind, with this configuration of TLS.
pub fn world_with(
    shards: usize,
    kind: ListenKind,
    config: Config,
    apps: Vec<Arc<dyn Application>>,
    tls: ServerConfig,
) -> World {
    World::with_listener(shards, config, apps, (PLACES, 0), (kind, Some(TlsContext::new(tls))))
}

/// A client that speaks TLS.
pub struct TlsClient {
    pub peer: Peer,
    pub tls: ClientConnection,
    /// The received bytes that are not handled yet, because the test wants to see the records.
    pub received: Vec<u8>,
}

impl TlsClient {
    /// Connects a client, which sends its ClientHello.
    pub fn begin(world: &mut World, shard: usize) -> TlsClient {
        TlsClient::begin_with(world, shard, rustls::ALL_VERSIONS)
    }

    /// Connects a client that supports these versions, which sends its ClientHello.
    pub fn begin_with(
        world: &mut World,
        shard: usize,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsClient {
        TlsClient::begin_as(world, shard, testing::client(&client_config(versions)))
    }

    /// Connects this client, which sends its ClientHello.
    pub fn begin_as(world: &mut World, shard: usize, tls: ClientConnection) -> TlsClient {
        let peer = world.connect(shard);
        let mut client = TlsClient { peer, tls, received: Vec::new() };
        client.send_records(world);
        client
    }

    /// The TLS of a client that has sent nothing.
    pub fn unconnected() -> ClientConnection {
        testing::client(&client_config(rustls::ALL_VERSIONS))
    }

    /// Connects a client and completes its handshake.
    pub fn connect(world: &mut World, shard: usize) -> TlsClient {
        TlsClient::connect_with(world, shard, rustls::ALL_VERSIONS)
    }

    /// Connects a client that supports these versions and completes its handshake.
    pub fn connect_with(
        world: &mut World,
        shard: usize,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsClient {
        let mut client = TlsClient::begin_with(world, shard, versions);
        client.complete(world);
        client
    }

    /// Completes the handshake.
    pub fn complete(&mut self, world: &mut World) {
        for _ in 0..8 {
            world.run_until_idle();
            self.handle(world);
            self.send_records(world);
        }
        assert!(!self.tls.is_handshaking(), "the handshake must be complete");
    }

    /// Connects a client, completes its handshakes with TLS and with raw QuickIO.
    pub fn connect_raw(world: &mut World, shard: usize) -> TlsClient {
        let mut client = TlsClient::connect(world, shard);
        client.greet(world);
        client
    }

    /// Completes the handshake of raw QuickIO.
    pub fn greet(&mut self, world: &mut World) {
        self.send(world, OHAI.as_bytes());
        assert_eq!(self.receive(world), OHAI.as_bytes());
    }

    /// Completes the handshake of a WebSocket client.
    pub fn upgrade(&mut self, world: &mut World) {
        self.send(world, UPGRADE);
        self.send(world, &client_frame(Opcode::Text, OHAI.as_bytes()));
        assert!(self.receive(world).ends_with(OHAI.as_bytes()));
    }

    /// The records that the client has to send.
    pub fn records(&mut self) -> Vec<u8> {
        testing::written(&mut self.tls)
    }

    /// The records of these bytes, which are not sent.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        testing::sealed(&mut self.tls, bytes)
    }

    fn send_records(&mut self, world: &mut World) {
        let records = self.records();
        if !records.is_empty() && !world.is_closed(self.peer) {
            world.send_bytes(self.peer, &records);
        }
    }

    /// Sends bytes. The shard receives them in a later turn.
    pub fn send(&mut self, world: &mut World, bytes: &[u8]) {
        let records = self.seal(bytes);
        world.send_bytes(self.peer, &records);
    }

    /// Sends an event of a raw client.
    pub fn send_event(&mut self, world: &mut World, text: &str) {
        self.send(world, &raw_message(text));
    }

    /// Closes TLS. The stream goes on.
    pub fn send_close_notify(&mut self, world: &mut World) {
        self.tls.send_close_notify();
        self.send_records(world);
    }

    /// Handles what was received; returns the plaintext.
    pub fn handle(&mut self, world: &mut World) -> Vec<u8> {
        self.received.extend(world.take_bytes(self.peer));
        let plain = testing::deliver(&mut self.tls, &self.received).expect("the client accepts the records");
        self.received.clear();
        plain
    }

    /// Runs the shards until they are idle, and returns the plaintext that they have sent.
    pub fn receive(&mut self, world: &mut World) -> Vec<u8> {
        world.run_until_idle();
        self.handle(world)
    }

    /// Returns whether the server has closed TLS, as far as the client has received.
    pub fn is_closed(&mut self) -> bool {
        self.tls.process_new_packets().unwrap().peer_has_closed()
    }

    /// The texts of the messages that the server has sent to a raw client.
    pub fn receive_events(&mut self, world: &mut World) -> Vec<String> {
        raw_texts(&self.receive(world))
    }
}
