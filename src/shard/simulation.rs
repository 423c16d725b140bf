//! Random life on a few shards, against a model of what clients must get.
//!
//! A run has phases. In each, clients subscribe, unsubscribe, broadcast, stop to read and go, in any order and in
//! pieces of bytes, while shards take turns in any order and decisions come late. At its end everything comes to rest,
//! and each client's share is compared with the model:
//!
//! - who was subscribed all the time got every broadcast once, those of one sender in their order;
//! - who was not subscribed at any time got none;
//! - of the others' nobody got one twice or out of order; of one's own everyone got exactly those between one's own
//!   subscribing and unsubscribing.
//!
//! Clients of HTTP have several connections each: their requests are held, answered, pipelined, cut to pieces and mixed
//! up over all of them, with a place (`seq`) or without, and between phases their connections break. Some have a stream.
//!
//! When all have gone nothing is left: no record, no session, no subscription, no count.

mod browser;

use super::testing::{Peer, World, client_frame, raw_message};
use crate::app::{Answer, Application, Context, Error, Event, LaterDecision, Registrar};
use crate::config::Config;
use crate::event::path::Path;
use crate::metrics::Counter;
use crate::protocol::testing::{Random, fuzz};
use crate::protocol::websocket::frame::Opcode;
use browser::Browser;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Subscriptions to the last ones are decided later.
const PATHS: [&str; 5] = ["/now/a", "/now/b", "/now/c/d", "/later/a", "/later/b"];
const FIRST_LATER: usize = 3;

type Promises = Arc<Mutex<Vec<LaterDecision>>>;

struct Sim(Promises);

impl Application for Sim {
    fn name(&self) -> &str {
        "sim"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let promises = Arc::clone(&self.0);
        registrar.event("/now").children().handler(broadcast).register()?;
        let later = registrar.event("/later").children().handler(broadcast);
        later
            .on(move |cx, subscription| {
                let (decision, promise) = subscription.later(cx);
                promises.lock().unwrap().push(promise);
                decision
            })
            .register()
    }
}

fn broadcast(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let path = Path::parse(&[event.path, event.extra].concat()).unwrap();
    cx.broadcast(&path, event.data);
    Answer::ok()
}

/// How a client speaks.
enum WorkerLink {
    Raw(Socket),
    WebSocket(Socket),
    Http(Browser),
}

/// A connection, and what its client has said and not sent.
struct Socket {
    at: Peer,
    reads: bool,
    unsent: Vec<u8>,
}

/// A client, and what the model knows of it.
struct Client {
    link: WorkerLink,
    gone: bool,
    /// Paths that it is subscribed to, once all that it has said is done.
    subscribed: BTreeSet<usize>,
    /// Paths that it was subscribed to all through this phase, and those that it was for a part of it.
    always: BTreeSet<usize>,
    sometimes: BTreeSet<usize>,
    /// What it must get of its own broadcasts.
    own: BTreeMap<usize, Vec<u64>>,
}

struct Simulation {
    world: World,
    clients: Vec<Client>,
    promises: Promises,
    /// Broadcasts of this phase: path, sender, number.
    broadcasts: Vec<(usize, usize, u64)>,
    number: u64,
}

#[test]
fn everybody_gets_what_they_are_subscribed_to_and_nothing_is_left() {
    fuzz(|random| {
        let promises = Promises::default();
        // Rings as small as they may be: most messages have to wait for room.
        let config = Config { mesh_ring_messages: 8, sends_per_turn_max: 2, ..Config::default() };
        let shards = 1 + random.below(3);
        let world = World::with_config(shards, config, vec![Arc::new(Sim(Arc::clone(&promises)))]);
        let mut sim = Simulation { world, clients: Vec::new(), promises, broadcasts: Vec::new(), number: 0 };
        for _ in 0..1 + random.below(12) {
            sim.phase(random);
        }
        sim.end();
    });
}

impl Simulation {
    fn phase(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) {
            self.connect(random);
        }
        self.world.run_until_idle();
        self.break_some(random);
        self.world.advance(Duration::from_millis(random.next() % 20_000));
        for client in &mut self.clients {
            client.always = client.subscribed.clone();
            client.sometimes = client.subscribed.clone();
        }
        let late = random.once_in(2);
        self.world.shards.iter_mut().for_each(|shard| shard.kernel_mut().delays_shutdowns = late);
        for _ in 0..random.below(150) {
            self.step(random);
        }
        self.come_to_rest();
        self.check();
    }

    fn connect(&mut self, random: &mut Random) {
        let shard = random.below(self.world.shards.len());
        let link = match random.below(4) {
            0 => WorkerLink::WebSocket(Socket::new(self.world.connect_websocket(shard))),
            1 => WorkerLink::Raw(Socket::new(self.world.connect_raw(shard))),
            _ => WorkerLink::Http(Browser::open(&mut self.world, random)),
        };
        self.clients.push(Client {
            link,
            gone: false,
            subscribed: BTreeSet::new(),
            always: BTreeSet::new(),
            sometimes: BTreeSet::new(),
            own: BTreeMap::new(),
        });
    }

    fn step(&mut self, random: &mut Random) {
        let shard = random.below(self.world.shards.len());
        match random.below(10) {
            0..=2 => return self.world.turn(shard),
            3 => return self.decide(random),
            _ if self.clients.is_empty() => return,
            _ => {}
        }
        let who = random.below(self.clients.len());
        if self.clients[who].gone {
            return;
        }
        let path = random.below(PATHS.len());
        match random.below(40) {
            0..=7 => self.subscribe(who, path),
            8..=12 => self.unsubscribe(who, path),
            13..=22 => self.broadcast(who, path),
            23..=36 => self.send_some(who, random),
            37 => match &mut self.clients[who].link {
                WorkerLink::Raw(socket) | WorkerLink::WebSocket(socket) => {
                    socket.reads ^= true;
                    self.world.set_reading(socket.at, socket.reads);
                }
                WorkerLink::Http(browser) => browser.stop_or_go_on_reading(&mut self.world, random),
            },
            38 => self.say(who, "/qio/ping:0=null"),
            _ => self.leave(who, random),
        }
    }

    fn subscribe(&mut self, who: usize, path: usize) {
        self.say(who, &format!("/qio/on:0=\"{}\"", PATHS[path]));
        self.clients[who].subscribed.insert(path);
        self.clients[who].sometimes.insert(path);
    }

    fn unsubscribe(&mut self, who: usize, path: usize) {
        self.say(who, &format!("/qio/off:0=\"{}\"", PATHS[path]));
        self.clients[who].subscribed.remove(&path);
        self.clients[who].always.remove(&path);
    }

    fn broadcast(&mut self, who: usize, path: usize) {
        self.number += 1;
        self.say(who, &format!("{}:0={}", PATHS[path], self.number));
        self.broadcasts.push((path, who, self.number));
        if self.clients[who].subscribed.contains(&path) {
            self.clients[who].own.entry(path).or_default().push(self.number);
        }
    }

    fn say(&mut self, who: usize, text: &str) {
        match &mut self.clients[who].link {
            WorkerLink::Raw(socket) => socket.unsent.extend(raw_message(text)),
            WorkerLink::WebSocket(socket) => {
                socket.unsent.extend(client_frame(Opcode::Text, text.as_bytes()))
            }
            WorkerLink::Http(browser) => browser.say(text),
        }
    }

    /// A piece of what it has said, cut anywhere.
    fn send_some(&mut self, who: usize, random: &mut Random) {
        match &mut self.clients[who].link {
            WorkerLink::Raw(socket) | WorkerLink::WebSocket(socket) => {
                socket.send_some(&mut self.world, random)
            }
            WorkerLink::Http(browser) => browser.send_some(&mut self.world, random),
        }
    }

    /// Everything that it has said is sent before it goes.
    fn leave(&mut self, who: usize, random: &mut Random) {
        self.send_all(who);
        let world = &mut self.world;
        let client = &mut self.clients[who];
        client.gone = true;
        let at = match &mut client.link {
            WorkerLink::Raw(socket) | WorkerLink::WebSocket(socket) => socket.at,
            WorkerLink::Http(browser) => return browser.leave(world, random),
        };
        match random.below(3) {
            0 => world.end_stream(at),
            1 => world.reset(at),
            _ => {
                world.send_bytes(at, &raw_message("no event"));
                world.end_stream(at);
            }
        }
    }

    fn send_all(&mut self, who: usize) {
        match &mut self.clients[who].link {
            WorkerLink::Raw(socket) | WorkerLink::WebSocket(socket) => socket.send_all(&mut self.world),
            WorkerLink::Http(browser) => browser.send_all(&mut self.world),
        }
    }

    /// Everything is at rest: connections of clients of HTTP break, and they go on by others.
    fn break_some(&mut self, random: &mut Random) {
        for client in self.clients.iter_mut().filter(|client| !client.gone) {
            let WorkerLink::Http(browser) = &mut client.link else { continue };
            if random.once_in(2) {
                browser.break_some(&mut self.world, random);
            }
        }
        self.world.run_until_idle();
    }

    fn decide(&mut self, random: &mut Random) {
        let mut promises = self.promises.lock().unwrap();
        if !promises.is_empty() {
            let which = random.below(promises.len());
            let promise = promises.swap_remove(which);
            drop(promises);
            promise.decide(true).unwrap();
        }
    }

    fn come_to_rest(&mut self) {
        self.world.shards.iter_mut().for_each(|shard| shard.kernel_mut().delays_shutdowns = false);
        for who in (0..self.clients.len()).filter(|who| !self.clients[*who].gone).collect::<Vec<_>>() {
            self.send_all(who);
            match &mut self.clients[who].link {
                WorkerLink::Raw(socket) | WorkerLink::WebSocket(socket) => socket.read(&mut self.world),
                WorkerLink::Http(browser) => browser.read(&mut self.world),
            }
        }
        self.world.run_until_idle();
        while let Some(promise) = { self.promises.lock().unwrap().pop() } {
            promise.decide(true).unwrap();
            self.world.run_until_idle();
        }
        self.world.run_until_idle();
        // Whatever is left for those who poll, they get; and they wait for more.
        for client in self.clients.iter_mut().filter(|client| !client.gone) {
            let WorkerLink::Http(browser) = &mut client.link else { continue };
            browser.wait_for_more(&mut self.world);
        }
    }

    fn check(&mut self) {
        for who in 0..self.clients.len() {
            if self.clients[who].gone {
                continue;
            }
            let got = self.take_broadcasts(who);
            for path in 0..PATHS.len() {
                self.check_path(who, path, got.get(&path).map_or(&[], Vec::as_slice));
            }
            self.clients[who].own.clear();
        }
        let world = &mut self.world;
        // A socket whose number is used again takes the last words of the one before it.
        let world_has =
            |client: &Client| matches!(&client.link, WorkerLink::Http(browser) if browser.is_connected());
        self.clients.retain(|client| !client.gone || world_has(client));
        world.shards.iter_mut().for_each(|shard| shard.kernel_mut().unread_output.clear());
        self.broadcasts.clear();
        assert_eq!(world.counter(Counter::MeshRefused), 0);
    }

    fn check_path(&self, who: usize, path: usize, got: &[u64]) {
        let client = &self.clients[who];
        let sent = |by: usize| -> Vec<u64> {
            let sent = self.broadcasts.iter().filter(|(to, sender, _)| (*to, *sender) == (path, by));
            sent.map(|(.., number)| *number).collect()
        };
        for sender in 0..self.clients.len() {
            let sent = sent(sender);
            let got: Vec<u64> = got.iter().copied().filter(|number| sent.contains(number)).collect();
            let told = format!("client {who} at {}, of {sender}", PATHS[path]);
            if client.always.contains(&path) {
                assert_eq!(got, sent, "{told}: subscribed all the time");
            } else if !client.sometimes.contains(&path) {
                assert!(got.is_empty(), "{told}: never subscribed, got {got:?}");
            } else if sender == who && path < FIRST_LATER {
                assert_eq!(got, client.own.get(&path).cloned().unwrap_or_default(), "{told}: one's own");
            } else {
                assert!(got.is_sorted_by(|a, b| a < b), "{told}: {got:?}");
            }
        }
    }

    /// By path, the broadcasts that a client got in this phase.
    fn take_broadcasts(&mut self, who: usize) -> BTreeMap<usize, Vec<u64>> {
        let texts = match &mut self.clients[who].link {
            WorkerLink::WebSocket(socket) => self.world.take_websocket_messages(socket.at),
            WorkerLink::Raw(socket) => self.world.take_raw_messages(socket.at),
            WorkerLink::Http(browser) => browser.take_raw_messages(&mut self.world),
        };
        let mut got: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for text in texts {
            let (path, data) = text.split_once(":0=").expect("events without callbacks only");
            if path != "/qio/heartbeat" {
                let path = PATHS.iter().position(|known| *known == path).expect("a path of these");
                got.entry(path).or_default().push(data.parse().unwrap());
            }
        }
        if let WorkerLink::Http(Browser { ordered: false, .. }) = self.clients[who].link {
            // Nobody knows which of its requests came first. What was lost or came twice is seen all the same.
            got.values_mut().for_each(|numbers| numbers.sort_unstable());
        }
        got
    }

    fn end(mut self) {
        for client in &mut self.clients {
            match &mut client.link {
                WorkerLink::Raw(socket) | WorkerLink::WebSocket(socket) if !client.gone => {
                    self.world.end_stream(socket.at);
                }
                WorkerLink::Raw(_) | WorkerLink::WebSocket(_) => {}
                WorkerLink::Http(browser) => browser.close(&mut self.world),
            }
        }
        self.world.run_until_idle();
        // A session ends when no request has come for `timeout`.
        for _ in 0..12 {
            self.world.advance(Duration::from_secs(1));
            self.world.run_until_idle();
        }
        self.world.assert_empty();
        let count = |counter| self.world.counter(counter);
        assert_eq!(count(Counter::Subscribes), count(Counter::Unsubscribes));
        assert_eq!(count(Counter::ConnectionsAccepted), count(Counter::ConnectionsClosed));
        assert_eq!(count(Counter::TimeoutsMessage) + count(Counter::ClosesSlow), 0);
    }
}

impl Socket {
    fn new(at: Peer) -> Socket {
        Socket { at, reads: true, unsent: Vec::new() }
    }

    fn send_some(&mut self, world: &mut World, random: &mut Random) {
        let len = random.below(self.unsent.len() + 1);
        let piece: Vec<u8> = self.unsent.drain(..len).collect();
        if !piece.is_empty() {
            world.send_bytes(self.at, &piece);
        }
    }

    fn send_all(&mut self, world: &mut World) {
        if !self.unsent.is_empty() {
            world.send_bytes(self.at, &std::mem::take(&mut self.unsent));
        }
    }

    fn read(&mut self, world: &mut World) {
        self.reads = true;
        world.set_reading(self.at, true);
    }
}
