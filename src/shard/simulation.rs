//! A simulation of a few shards with random clients, compared with a model of the broadcasts that each client must get.
//!
//! A run has phases. In a phase, clients subscribe, unsubscribe, broadcast, stop reading and disconnect, in random
//! order and in pieces of bytes. Meanwhile the shards run turns in random order, and subscriptions are decided late.
//! At the end of a phase the shards run until they are idle, and the broadcasts that each client received are compared
//! with the model:
//!
//! - A client that was subscribed throughout the phase received every broadcast once, those of one sender in order.
//! - A client that was never subscribed in the phase received none.
//! - Any other client received no broadcast twice and those of one sender in order. Of its own broadcasts it received
//!   exactly those between its subscribing and its unsubscribing.
//!
//! HTTP clients have several connections each. Their requests are held, answered, pipelined, split and distributed over
//! the connections, with sequence numbers (`seq`) or without. Between phases, some of their connections break. Some of
//! these clients have an event stream.
//!
//! In half of the runs, some of the other clients speak TLS, change their keys, or give up their handshakes.
//!
//! After all clients have disconnected, nothing is left: no record, no session, no subscription, no count.

mod app;
mod browser;
mod history;
mod hostile;
mod members;
mod socket;
mod transport;

use super::testing::{World, raw_message};
use super::tls::client::{self, TlsClient};
use crate::app::Application;
use crate::config::{Config, ListenKind};
use crate::metrics::Counter;
use crate::protocol::testing::{Random, fuzz};
use app::SimApp;
use browser::Browser;
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use socket::SimSocket;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use transport::SimTransport;

/// The paths of the simulation. Subscriptions to those from [`FIRST_LATER`] on are decided late.
const PATHS: [&str; 5] = ["/now/a", "/now/b", "/now/c/d", "/later/a", "/later/b"];
const FIRST_LATER: usize = 3;

/// A client, and its state in the model.
struct SimClient {
    transport: SimTransport,
    has_left: bool,
    /// The paths to which the client is subscribed after everything in `unsent` has been handled.
    subscribed: BTreeSet<usize>,
    /// The paths to which the client was subscribed throughout this phase, and at any time in this phase.
    always_subscribed: BTreeSet<usize>,
    ever_subscribed: BTreeSet<usize>,
    /// The client's own broadcasts that it must receive, by path.
    own_broadcasts: BTreeMap<usize, Vec<u64>>,
}

/// The shards, the clients and the model.
struct Simulation {
    world: World,
    /// The listeners take TLS too.
    takes_tls: bool,
    clients: Vec<SimClient>,
    app: SimApp,
    /// The broadcasts of this phase: path, sender, number.
    broadcasts: Vec<(usize, usize, u64)>,
    number: u64,
}

#[test]
fn random_clients_receive_what_the_model_expects_and_leave_nothing_behind() {
    fuzz(|random| {
        let app = SimApp::default();
        // The rings have the smallest allowed size, which makes most messages wait for room.
        // In half of the runs, a connection may cause only a few messages that wait before it is paused.
        let mesh_overflow_bytes_max = if random.once_in(2) { 64 << 10 } else { 16 << 20 };
        let config = Config {
            mesh_ring_messages: 8,
            mesh_overflow_bytes_max,
            sends_per_turn_max: 2,
            // The model knows nothing of connections that end because they are idle.
            http_idle_timeout: Duration::from_secs(16 * 60),
            ..Config::default()
        };
        let shards = 1 + random.below(3);
        let apps: Vec<Arc<dyn Application>> = vec![Arc::new(app.clone())];
        let takes_tls = random.once_in(2);
        let kind = if takes_tls { ListenKind::Either } else { ListenKind::Plain };
        let world = client::world(shards, kind, config, apps);
        let mut sim =
            Simulation { world, takes_tls, clients: Vec::new(), app, broadcasts: Vec::new(), number: 0 };
        for _ in 0..1 + random.below(12) {
            sim.run_phase(random);
        }
        sim.finish();
    });
}

impl Simulation {
    fn run_phase(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) {
            self.connect(random);
        }
        self.world.run_until_idle();
        self.break_some(random);
        self.world.advance(Duration::from_millis(random.next() % 20_000));
        for client in &mut self.clients {
            client.always_subscribed = client.subscribed.clone();
            client.ever_subscribed = client.subscribed.clone();
        }
        let late = random.once_in(2);
        self.world.shards.iter_mut().for_each(|shard| shard.kernel_mut().delays_shutdowns = late);
        for _ in 0..random.below(150) {
            self.random_step(random);
        }
        self.drain();
        self.check();
    }

    fn connect(&mut self, random: &mut Random) {
        let shard = random.below(self.world.shards.len());
        let is_tls = self.takes_tls && random.once_in(2);
        if is_tls && random.once_in(8) {
            self.give_up_handshake(shard, random);
        }
        let transport = match random.below(4) {
            0 if is_tls => SimTransport::WebSocket(self.connect_tls(shard, random, TlsClient::upgrade)),
            1 if is_tls => SimTransport::Raw(self.connect_tls(shard, random, TlsClient::greet)),
            0 => SimTransport::WebSocket(SimSocket::new(self.world.connect_websocket(shard))),
            1 => SimTransport::Raw(SimSocket::new(self.world.connect_raw(shard))),
            _ => SimTransport::Http(Browser::open(&mut self.world, random)),
        };
        self.clients.push(SimClient {
            transport,
            has_left: false,
            subscribed: BTreeSet::new(),
            always_subscribed: BTreeSet::new(),
            ever_subscribed: BTreeSet::new(),
            own_broadcasts: BTreeMap::new(),
        });
    }

    /// Connects a client with TLS, whose handshake `greet` completes.
    fn connect_tls(
        &mut self,
        shard: usize,
        random: &mut Random,
        greet: fn(&mut TlsClient, &mut World),
    ) -> SimSocket {
        let version = if random.once_in(2) { &TLS12 } else { &TLS13 };
        let mut tls = TlsClient::connect_with(&mut self.world, shard, &[version]);
        greet(&mut tls, &mut self.world);
        SimSocket::with_tls(tls)
    }

    /// Connects somebody who leaves during the handshake, or says nothing more.
    fn give_up_handshake(&mut self, shard: usize, random: &mut Random) {
        let client = TlsClient::begin(&mut self.world, shard);
        if random.once_in(2) {
            self.world.turn(shard);
        }
        match random.below(3) {
            0 => self.world.end_stream(client.peer),
            1 => self.world.reset(client.peer),
            _ => {}
        }
    }

    fn random_step(&mut self, random: &mut Random) {
        let shard = random.below(self.world.shards.len());
        match random.below(10) {
            0..=2 => return self.world.turn(shard),
            3 => return self.app.decide_one(random),
            _ if self.clients.is_empty() => return,
            _ => {}
        }
        let index = random.below(self.clients.len());
        if self.clients[index].has_left {
            return;
        }
        let path = random.below(PATHS.len());
        match random.below(40) {
            0..=7 => self.subscribe(index, path),
            8..=12 => self.unsubscribe(index, path),
            13..=22 => self.broadcast(index, path),
            23..=36 => self.clients[index].transport.send_some(&mut self.world, random),
            37 => self.clients[index].transport.toggle_reading(&mut self.world, random),
            38 => self.queue_event(index, "/qio/ping:0=null"),
            39 if random.once_in(2) => self.change_key(index),
            _ => self.leave(index, random),
        }
    }

    fn subscribe(&mut self, index: usize, path: usize) {
        self.queue_event(index, &format!("/qio/on:0=\"{}\"", PATHS[path]));
        self.clients[index].subscribed.insert(path);
        self.clients[index].ever_subscribed.insert(path);
    }

    fn unsubscribe(&mut self, index: usize, path: usize) {
        self.queue_event(index, &format!("/qio/off:0=\"{}\"", PATHS[path]));
        self.clients[index].subscribed.remove(&path);
        self.clients[index].always_subscribed.remove(&path);
    }

    fn broadcast(&mut self, index: usize, path: usize) {
        self.number += 1;
        self.queue_event(index, &format!("{}:0={}", PATHS[path], self.number));
        self.broadcasts.push((path, index, self.number));
        if self.clients[index].subscribed.contains(&path) {
            self.clients[index].own_broadcasts.entry(path).or_default().push(self.number);
        }
    }

    fn queue_event(&mut self, index: usize, text: &str) {
        self.clients[index].transport.queue_event(text);
    }

    /// Has a client change its key, and ask for another one of the server, if it speaks TLS 1.3.
    fn change_key(&mut self, index: usize) {
        let (SimTransport::Raw(socket) | SimTransport::WebSocket(socket)) =
            &mut self.clients[index].transport
        else {
            return;
        };
        let is_13 = |tls: &&mut TlsClient| tls.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        if let Some(tls) = socket.tls.as_mut().filter(is_13) {
            tls.tls.refresh_traffic_keys().unwrap();
            socket.unsent.extend(tls.records());
        }
    }

    /// Disconnects a client after all of its output has been sent.
    fn leave(&mut self, index: usize, random: &mut Random) {
        let world = &mut self.world;
        let client = &mut self.clients[index];
        client.transport.send_all(world);
        client.has_left = true;
        let socket = match &mut client.transport {
            SimTransport::Raw(socket) | SimTransport::WebSocket(socket) => socket,
            SimTransport::Http(browser) => return browser.leave(world, random),
        };
        match random.below(4) {
            0 => world.end_stream(socket.peer),
            1 => world.reset(socket.peer),
            2 => {
                if let Some(tls) = &mut socket.tls {
                    tls.send_close_notify(world);
                }
                world.end_stream(socket.peer);
            }
            _ => {
                socket.queue(&raw_message("no event"));
                socket.send_all(world);
                world.end_stream(socket.peer);
            }
        }
    }

    /// Breaks some connections of HTTP clients, which continue on new ones. The shards must be idle.
    fn break_some(&mut self, random: &mut Random) {
        for client in self.clients.iter_mut().filter(|client| !client.has_left) {
            let SimTransport::Http(browser) = &mut client.transport else { continue };
            if random.once_in(2) {
                browser.break_some(&mut self.world, random);
            }
        }
        self.world.run_until_idle();
    }

    /// Sends everything, makes the pending decisions, and runs the shards until all clients have received their output.
    fn drain(&mut self) {
        self.world.shards.iter_mut().for_each(|shard| shard.kernel_mut().delays_shutdowns = false);
        let world = &mut self.world;
        for client in self.clients.iter_mut().filter(|client| !client.has_left) {
            client.transport.send_all(world);
            client.transport.resume_reading(world);
        }
        world.run_until_idle();
        self.app.decide_all(world);
        world.run_until_idle();
        for client in self.clients.iter_mut().filter(|client| !client.has_left) {
            client.transport.fetch_rest(world);
        }
    }

    /// Compares the broadcasts that each client received in this phase with the model.
    fn check(&mut self) {
        for index in 0..self.clients.len() {
            if self.clients[index].has_left {
                continue;
            }
            let received = self.take_broadcasts(index);
            for path in 0..PATHS.len() {
                self.check_path(index, path, received.get(&path).map_or(&[], Vec::as_slice));
            }
            self.clients[index].own_broadcasts.clear();
        }
        let world = &mut self.world;
        // When a socket number is reused, the unread output of its previous socket must be gone.
        let is_connected = |client: &SimClient| match &client.transport {
            SimTransport::Http(browser) => browser.is_connected(),
            _ => false,
        };
        self.clients.retain(|client| !client.has_left || is_connected(client));
        world.shards.iter_mut().for_each(|shard| shard.kernel_mut().unread_output.clear());
        self.broadcasts.clear();
        assert_eq!(world.counter(Counter::MeshRefused), 0);
    }

    fn check_path(&self, index: usize, path: usize, received: &[u64]) {
        let client = &self.clients[index];
        let sent = |by: usize| -> Vec<u64> {
            let sent = self.broadcasts.iter().filter(|(to, sender, _)| (*to, *sender) == (path, by));
            sent.map(|(.., number)| *number).collect()
        };
        for sender in 0..self.clients.len() {
            let sent = sent(sender);
            let received: Vec<u64> =
                received.iter().copied().filter(|number| sent.contains(number)).collect();
            let context = format!("client {index} at {}, broadcasts of client {sender}", PATHS[path]);
            if client.always_subscribed.contains(&path) {
                assert_eq!(received, sent, "{context}: subscribed throughout");
            } else if !client.ever_subscribed.contains(&path) {
                assert!(received.is_empty(), "{context}: never subscribed, received {received:?}");
            } else if sender == index && path < FIRST_LATER {
                assert_eq!(
                    received,
                    client.own_broadcasts.get(&path).cloned().unwrap_or_default(),
                    "{context}: own broadcasts"
                );
            } else {
                assert!(received.is_sorted_by(|a, b| a < b), "{context}: {received:?}");
            }
        }
    }

    /// Takes the broadcasts that a client received in this phase, by path.
    fn take_broadcasts(&mut self, index: usize) -> BTreeMap<usize, Vec<u64>> {
        let texts = self.clients[index].transport.take_texts(&mut self.world);
        let mut received: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for text in texts {
            let (path, data) = text.split_once(":0=").expect("an event without a callback");
            if path != "/qio/heartbeat" {
                let path = PATHS.iter().position(|known| *known == path).expect("one of PATHS");
                received.entry(path).or_default().push(data.parse().unwrap());
            }
        }
        if let SimTransport::Http(Browser { ordered: false, .. }) = self.clients[index].transport {
            // The order of responses to unnumbered requests is unknown. Lost and repeated broadcasts are still found.
            received.values_mut().for_each(|numbers| numbers.sort_unstable());
        }
        received
    }

    fn finish(mut self) {
        for client in &mut self.clients {
            if !client.has_left || client.transport.is_http() {
                client.transport.close(&mut self.world);
            }
        }
        self.world.run_until_idle();
        // Requests whose clients have left may be held for `poll-interval`, if others had to be handled first. Sessions end
        // after `timeout` without a request.
        self.world.run_seconds(75);
        self.world.assert_empty();
        let count = |counter| self.world.counter(counter);
        assert_eq!(count(Counter::Subscribes), count(Counter::Unsubscribes));
        assert_eq!(count(Counter::ConnectionsAccepted), count(Counter::ConnectionsClosed));
        assert_eq!(count(Counter::TimeoutsMessage) + count(Counter::ClosesSlow), 0);
    }
}
