//! Random life of clients and workers on two shards, against a model of what each must get.
//!
//! Clients send events, subscribe, answer callbacks and go; workers answer late and in any order, offer callbacks, watch
//! clients, are replaced and crash, and what they write arrives in any pieces. Whenever everything comes to rest:
//!
//! - each event that wants an answer has got one, as its worker gave it; 500 where that crashed before; none where it gave 0;
//! - a client's events, ends of subscriptions and end reached one worker of its instance after the other, in order;
//! - each callback came back to its worker once: fired, or dropped;
//! - each client that was watched is told gone once, behind all that came from it.
//!
//! In the end nothing is left: no request, no callback, no subscription, no link.

use crate::app::worker::{JoinedWorker, LinkLimits, Manifest, SupervisorHandle, WorkerEvent, WorkerGroup};
use crate::app::worker_app;
use crate::app::{Application, Error, Registrar};
use crate::config::Config;
use crate::metrics::{Counter, Gauge};
use crate::protocol::testing::{Random, fuzz};
use crate::shard::ControlMessage;
use crate::shard::testing::{Peer, World};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SHARDS: usize = 2;
const INSTANCES: u32 = 2;
const PLACES: u32 = 64;

const LIMITS: LinkLimits = LinkLimits {
    requests_max: 1000,
    outbox_bytes_max: 1 << 20,
    unread_bytes_max: 4 << 20,
    request_timeout: Duration::from_secs(60),
};

/// An application whose workers the test plays.
struct Played {
    manifest: Arc<Manifest>,
    supervisor: Arc<Faults>,
    limits: LinkLimits,
}

/// Faults of workers, which tests of good ones must not have.
#[derive(Default)]
struct Faults(Mutex<Vec<(u32, String)>>);

impl SupervisorHandle for Faults {
    fn report_broken(&self, worker: u32, why: &str) {
        self.0.lock().unwrap().push((worker, why.to_owned()));
    }

    /// Those that crash do it.
    fn report_link_end(&self, _: u32) {}
}

impl Application for Played {
    fn name(&self) -> &str {
        "played"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let supervisor = Arc::clone(&self.supervisor) as Arc<dyn SupervisorHandle>;
        let team =
            WorkerGroup::new("played".into(), registrar.shard(), INSTANCES as usize, self.limits, supervisor);
        worker_app::register_events(&team, registrar, &self.manifest)?;
        registrar.add_worker_group(team);
        Ok(())
    }
}

fn manifest() -> Arc<Manifest> {
    let manifest = r#"{"version":1,"events":[
        {"path":"/ask"},{"path":"/room","children":true,"subscriptions":"ask","off":true}]}"#;
    Arc::new(serde_json::from_str(manifest).unwrap())
}

/// What the server sends.
#[derive(Clone, Debug, PartialEq)]
struct Got {
    kind: u8,
    flags: u8,
    request: u32,
    number: u32,
    client: (u32, u32, u32),
    text: String,
    data: String,
}

fn frames(bytes: &mut Vec<u8>) -> Vec<Got> {
    let mut got = Vec::new();
    while bytes.len() >= 40 {
        let n = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let (len, text) = (n(0) as usize + 4, n(28) as usize);
        if bytes.len() < len {
            break;
        }
        let part = |from: usize, to: usize| String::from_utf8(bytes[from..to].to_vec()).unwrap();
        got.push(Got {
            kind: bytes[4],
            flags: bytes[5],
            request: n(8),
            number: n(12),
            client: (n(16), n(20), n(24)),
            text: part(40, 40 + text),
            data: part(40 + text, len),
        });
        bytes.drain(..len);
    }
    got
}

/// What a worker sends.
#[derive(Default)]
struct Said<'a> {
    kind: u8,
    flags: u8,
    code: u16,
    request: u32,
    number: u32,
    client: (u32, u32, u32),
    text: &'a str,
    data: &'a str,
}

impl Said<'_> {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (36 + self.text.len() as u32 + self.data.len() as u32).to_be_bytes().to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.code.to_be_bytes());
        let (shard, slot, generation) = self.client;
        for number in [self.request, self.number, shard, slot, generation, self.text.len() as u32, 0, 0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(self.text.bytes().chain(self.data.bytes()));
        bytes
    }
}

/// One link of a worker, as the worker has it.
struct Link {
    at: Peer,
    worker: u32,
    instance: u32,
    /// Nobody reads what it says any more, and it gets nothing.
    ended: bool,
    received: Vec<u8>,
    unsent: Vec<u8>,
    under_way: Vec<Got>,
    callbacks: BTreeSet<u32>,
    next_callback: u32,
    watched: BTreeSet<(u32, u32, u32)>,
}

struct Client {
    at: Peer,
    id: Option<(u32, u32, u32)>,
    gone: bool,
    next: u64,
    /// By the callback's number: what must be answered, once it is known.
    reply_to: BTreeMap<u64, Option<String>>,
    answered: BTreeSet<u64>,
    /// Server callbacks that it was offered.
    offered: Vec<String>,
}

struct Life {
    world: World,
    faults: Arc<Faults>,
    links: Vec<Link>,
    clients: Vec<Client>,
    workers: u32,
    /// For each client, the numbers of its events as they came, and whether it was told gone.
    came: BTreeMap<(u32, u32, u32), Vec<u64>>,
    told_gone: BTreeSet<(u32, (u32, u32, u32))>,
}

impl Life {
    fn new() -> Life {
        let (faults, manifest) = (Arc::new(Faults::default()), manifest());
        let app = Played { manifest, supervisor: Arc::clone(&faults), limits: LIMITS };
        let world = World::with_link_places(SHARDS, Config::default(), vec![Arc::new(app)], PLACES);
        let (came, told_gone) = (BTreeMap::new(), BTreeSet::new());
        let mut life = Life { world, faults, links: vec![], clients: vec![], workers: 0, came, told_gone };
        (0..INSTANCES).for_each(|instance| life.join(instance));
        life
    }

    /// A worker comes, and takes the place of the one before it.
    fn join(&mut self, instance: u32) {
        self.workers += 1;
        let (worker, manifest) = (self.workers, manifest());
        for shard in 0..SHARDS {
            // Which place it gets is the shard's choice: whichever is new.
            let before: BTreeSet<u32> = self.world.shards[shard].kernel().sockets.keys().copied().collect();
            let socket = UnixStream::pair().unwrap().0.into();
            let joined_at = Duration::ZERO;
            let joined =
                JoinedWorker { app: 1, instance, worker, manifest: Arc::clone(&manifest), joined_at, socket };
            self.world.send_control(shard, ControlMessage::Workers(WorkerEvent::Joined(joined)));
            self.turn(shard);
            let after = self.world.shards[shard].kernel().sockets.keys();
            let place = after.copied().find(|place| *place < PLACES && !before.contains(place)).unwrap();
            self.links.push(Link {
                at: Peer { shard, socket: place },
                worker,
                instance,
                ended: false,
                received: Vec::new(),
                unsent: Vec::new(),
                under_way: Vec::new(),
                callbacks: BTreeSet::new(),
                next_callback: 1,
                watched: BTreeSet::new(),
            });
        }
    }

    /// A turn, before which links take what was sent to them: a place may be another's after it.
    fn turn(&mut self, shard: usize) {
        (0..self.links.len()).for_each(|link| self.take(link));
        self.world.turn(shard);
    }

    fn rest(&mut self) {
        loop {
            (0..self.links.len()).for_each(|link| self.take(link));
            (0..self.clients.len()).for_each(|client| self.listen(client));
            let Some(shard) = (0..SHARDS).find(|shard| self.world.is_runnable(*shard)) else { return };
            self.world.turn(shard);
        }
    }

    /// The worker reads.
    fn take(&mut self, link: usize) {
        let link = &mut self.links[link];
        if link.ended || self.world.is_closed(link.at) {
            return;
        }
        link.received.extend(self.world.take_bytes(link.at));
        for got in frames(&mut link.received) {
            match got.kind {
                1 | 2 => {
                    if got.kind == 1 {
                        let nth = got.data.parse().unwrap();
                        let came = self.came.entry(got.client).or_default();
                        assert!(came.last().is_none_or(|last| *last < nth), "in order: {nth} after {came:?}");
                        came.push(nth);
                    }
                    let instance = (got.client.0 + got.client.1) % INSTANCES;
                    assert_eq!(link.instance, instance, "a client has one instance");
                    assert_eq!(link.at.shard, got.client.0 as usize, "over the link of its shard");
                    link.under_way.push(got);
                }
                3 => assert!(!self.told_gone.contains(&(link.worker, got.client)), "off before gone"),
                4 => {
                    assert!(link.callbacks.remove(&got.number), "a callback comes back once");
                    link.under_way.push(got);
                }
                5 => assert!(link.callbacks.remove(&got.number), "a callback comes back once"),
                7 => {
                    assert!(link.watched.remove(&got.client), "a client that was watched");
                    assert!(self.told_gone.insert((link.worker, got.client)), "gone once");
                }
                kind => panic!("a frame of type {kind}"),
            }
        }
        if self.world.is_stream_ended(link.at) {
            // What it offers and watches from now on nobody will tell it of.
            link.callbacks.clear();
            link.watched.clear();
        }
    }

    /// A client reads.
    fn listen(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if client.gone {
            return;
        }
        for text in self.world.take_raw_messages(client.at) {
            let (path, rest) = text.split_once(':').unwrap();
            let (callback, data) = rest.split_once('=').unwrap();
            let Some(id) = path.strip_prefix("/qio/callback/") else {
                if callback != "0" {
                    client.offered.push(callback.to_owned());
                }
                continue;
            };
            let id: u64 = id.parse().unwrap();
            assert!(client.answered.insert(id), "answered twice: {text}");
            let expected =
                client.reply_to.remove(&id).expect("nobody reply_to").expect("its worker gave no answer");
            assert!(data.contains(&expected), "{data} is not {expected}");
            if callback != "0" {
                client.offered.push(callback.to_owned());
            }
        }
    }

    fn send_event(&mut self, client: usize, path: &str, data: &str, wants: bool) -> u64 {
        let client = &mut self.clients[client];
        client.next += 1;
        if wants {
            client.reply_to.insert(client.next, None);
        }
        let id = if wants { client.next } else { 0 };
        self.world.send_event(client.at, &format!("{path}:{id}={data}"));
        client.next
    }

    fn ask(&mut self, client: usize, random: &mut Random) {
        let next = self.clients[client].next + 1;
        self.send_event(client, random.pick(&["/ask", "/room/a"]), &next.to_string(), !random.once_in(4));
    }

    /// What a client that waits has to get. Who it is, its worker knows by the event's own data.
    fn expect(&mut self, got: &Got, what: &str) {
        let client = self.clients.iter_mut().find(|client| client.id == Some(got.client));
        // Subscriptions and replies do not tell their callback: what is expected of them is found by their order.
        let Some(client) = client.filter(|client| !client.gone) else { return };
        let id = if got.kind == 1 { got.data.parse().unwrap() } else { return };
        if let Some(expected) = client.reply_to.get_mut(&id) {
            *expected = Some(what.to_owned());
        }
    }

    /// A worker answers something that it has under way.
    fn answer(&mut self, link: usize, random: &mut Random) {
        if self.links[link].under_way.is_empty() {
            return;
        }
        let nth = random.below(self.links[link].under_way.len());
        let got = self.links[link].under_way.swap_remove(nth);
        let mut said = Said { kind: 1, request: got.request, code: 200, ..Said::default() };
        let data = format!("\"{}\"", random.next());
        match random.below(6) {
            _ if got.kind == 2 => said.code = random.pick(&[200, 200, 404, 401, 0, 500, 499]),
            0 => (said.code, said.flags, said.text) = (418, 2, "a teapot"),
            1 => said.code = 0,
            2 => {
                let link = &mut self.links[link];
                said.number = link.next_callback;
                link.callbacks.insert(said.number);
                link.next_callback += 1;
                said.data = &data;
            }
            _ => said.data = &data,
        }
        let expected = match said.code {
            418 => r#""code":418,"data":null,"err_msg":"a teapot""#.to_owned(),
            0 => String::new(),
            _ => format!(r#""code":200,"data":{}"#, if said.data.is_empty() { "null" } else { said.data }),
        };
        let bytes = said.to_bytes();
        if said.code == 0 {
            self.forget(&got);
        } else {
            self.expect(&got, &expected);
        }
        self.links[link].unsent.extend(bytes);
    }

    /// An event that will get no answer.
    fn forget(&mut self, got: &Got) {
        let client = self.clients.iter_mut().find(|client| client.id == Some(got.client));
        if let (Some(client), 1) = (client, got.kind) {
            client.reply_to.remove(&got.data.parse().unwrap());
        }
    }

    fn act(&mut self, link: usize, random: &mut Random) {
        let Some(id) = self.clients.get(random.below(self.clients.len().max(1))).and_then(|client| client.id)
        else {
            return;
        };
        let link = &mut self.links[link];
        let mut said = Said { client: id, ..Said::default() };
        match random.below(3) {
            0 => (said.kind, said.text, said.data) = (2, "/room/a", "1"),
            1 if id.0 as usize == link.at.shard => {
                (said.kind, said.text) = (3, "/for/you");
                said.number = link.next_callback;
                link.callbacks.insert(said.number);
                link.next_callback += 1;
            }
            2 if id.0 as usize == link.at.shard
                && !self.told_gone.contains(&(link.worker, id))
                && link.watched.insert(id) =>
            {
                said.kind = 7;
            }
            _ => return,
        }
        link.unsent.extend(said.to_bytes());
    }

    fn send_some(&mut self, link: usize, random: &mut Random) {
        let Life { links, world, .. } = self;
        let link = &mut links[link];
        let len = random.below(link.unsent.len() + 1);
        let piece: Vec<u8> = link.unsent.drain(..len).collect();
        if !piece.is_empty() {
            world.send_bytes(link.at, &piece);
        }
    }

    /// All that is written is sent; answers that a client waits for are expected from now on only.
    fn send_all(&mut self) {
        for link in self.links.iter_mut().filter(|link| !link.ended && !link.unsent.is_empty()) {
            self.world.send_bytes(link.at, &std::mem::take(&mut link.unsent));
        }
    }

    /// A worker's process ends, in the midst of anything.
    fn crash(&mut self, worker: u32) {
        self.send_all();
        self.rest();
        for nth in 0..self.links.len() {
            if self.links[nth].worker != worker || self.links[nth].ended {
                continue;
            }
            for got in std::mem::take(&mut self.links[nth].under_way) {
                self.expect(&got, r#""code":500,"data":null,"err_msg":"the application has ended""#);
            }
            self.links[nth].ended = true;
            self.links[nth].callbacks.clear();
            self.links[nth].watched.clear();
            self.world.reset(self.links[nth].at);
        }
        self.rest();
    }

    /// Workers that were told that no more will come, and have nothing under way, end.
    fn leave(&mut self) {
        for nth in 0..self.links.len() {
            self.take(nth);
            let link = &mut self.links[nth];
            let is_told = !link.ended && self.world.is_stream_ended(link.at);
            if is_told && link.under_way.is_empty() && link.unsent.is_empty() {
                link.ended = true;
                self.world.end_stream(link.at);
            }
        }
    }

    fn connect(&mut self, shard: usize) {
        let at = self.world.connect_raw(shard);
        let clients = self.world.shards[shard].state().connections.client_ids();
        let known: BTreeSet<_> = self.clients.iter().filter_map(|client| client.id).collect();
        let mut ids = clients.map(|id| (shard as u32, id.slot, id.generation));
        let id = ids.find(|id| !known.contains(id)).unwrap();
        self.clients.push(Client {
            at,
            id: Some(id),
            gone: false,
            next: 0,
            reply_to: BTreeMap::new(),
            answered: BTreeSet::new(),
            offered: Vec::new(),
        });
    }

    fn random_step(&mut self, random: &mut Random) {
        let link = random.below(self.links.len());
        let is_live = !self.links[link].ended && !self.world.is_closed(self.links[link].at);
        let client = random.below(self.clients.len());
        let is_here = !self.clients[client].gone;
        match random.below(24) {
            0..=7 if is_here => self.ask(client, random),
            8 if is_here => {
                // What a subscription is answered is checked by the tests of subscriptions: here it is not asked for.
                self.world.send_event(self.clients[client].at, r#"/qio/on:0="/room/a""#);
            }
            9 if is_here => self.world.send_event(self.clients[client].at, r#"/qio/off:0="/room/a""#),
            10 if is_here => {
                if let Some(callback) = self.clients[client].offered.pop() {
                    self.world.send_event(self.clients[client].at, &format!("/qio/callback/{callback}:0=1"));
                }
            }
            11 if is_here && random.once_in(4) => {
                self.rest();
                self.clients[client].gone = true;
                self.world.reset(self.clients[client].at);
                self.rest();
            }
            12 | 13 => self.connect(random.below(SHARDS)),
            14..=17 if is_live => self.answer(link, random),
            18 if is_live => self.act(link, random),
            19 if is_live => self.send_some(link, random),
            20 if self.links.iter().filter(|link| !link.ended).count() < 40 && random.once_in(3) => {
                self.join(random.below(INSTANCES as usize) as u32);
            }
            21 if random.once_in(4) => {
                let worker = self.links[link].worker;
                let instance = self.links[link].instance;
                self.crash(worker);
                // Nobody is without a worker for long; what comes meanwhile has a test of its own.
                self.join(instance);
            }
            22 => self.leave(),
            _ => self.turn(random.below(SHARDS)),
        }
    }

    /// Everything is answered, everybody goes, and nothing is left.
    fn end(mut self, random: &mut Random) {
        loop {
            self.send_all();
            self.rest();
            let busy = (0..self.links.len()).find(|nth| !self.links[*nth].under_way.is_empty());
            let Some(busy) = busy else { break };
            self.answer(busy, random);
        }
        for client in self.clients.iter().filter(|client| !client.gone) {
            assert!(client.reply_to.is_empty(), "never answered: {:?}", client.reply_to);
        }
        assert_eq!(self.world.gauge(Gauge::WorkerRequests), 0);
        for client in 0..self.clients.len() {
            if !self.clients[client].gone {
                self.clients[client].gone = true;
                self.world.reset(self.clients[client].at);
            }
        }
        self.rest();
        for link in self.links.iter().filter(|link| !link.ended) {
            assert!(link.callbacks.is_empty(), "callbacks that never came back: {:?}", link.callbacks);
            assert!(link.watched.is_empty(), "watched, and never told gone: {:?}", link.watched);
        }
        let workers: BTreeSet<u32> = self.links.iter().map(|link| link.worker).collect();
        workers.into_iter().for_each(|worker| self.crash(worker));
        assert_eq!(*self.faults.0.lock().unwrap(), []);
        assert_eq!(self.world.counter(Counter::WorkerFramesRefused), 0);
        assert_eq!(self.world.gauge(Gauge::WorkerLinks), 0);
        self.world.assert_empty();
    }
}

/// A worker that is replaced is told that no more will come when it has answered, and its callbacks have come back.
#[test]
fn what_a_worker_has_is_waited_for() {
    let mut life = Life::new();
    life.connect(0);
    let (client, old) = (life.clients[0].id.unwrap(), 0);
    let instance = (client.0 + client.1) % INSTANCES;
    let old =
        life.links[old..].iter().position(|link| link.at.shard == 0 && link.instance == instance).unwrap();
    let id = life.send_event(0, "/ask", "1", true);
    life.rest();
    life.join(instance);
    life.rest();
    let got = life.links[old].under_way.pop().expect("the old one has it");
    assert!(!life.world.is_stream_ended(life.links[old].at), "it has something under transport");

    let answer = Said { kind: 1, request: got.request, code: 200, number: 5, data: "7", ..Said::default() };
    life.expect(&got, r#""code":200,"data":7"#);
    life.links[old].callbacks.insert(5);
    life.links[old].unsent.extend(answer.to_bytes());
    life.send_all();
    life.rest();
    assert!(life.clients[0].answered.contains(&id));
    assert!(!life.world.is_stream_ended(life.links[old].at), "its callback is open");
    let callback = life.clients[0].offered.pop().unwrap();
    life.world.send_event(life.clients[0].at, &format!("/qio/callback/{callback}:0=8"));
    life.rest();
    let reply = life.links[old].under_way.pop().expect("the callback is the old one's");
    assert_eq!((reply.kind, reply.number, reply.flags, reply.data.as_str()), (4, 5, 0, "8"));
    assert!(!life.world.is_stream_ended(life.links[old].at), "it handles the reply");
    let done = Said { kind: 1, request: reply.request, ..Said::default() };
    life.links[old].unsent.extend(done.to_bytes());
    life.send_all();
    life.rest();
    assert!(life.world.is_stream_ended(life.links[old].at));
    life.end(&mut Random::new(1));
}

/// While no worker is there clients are told so; and whoever comes to an end is not waited for.
#[test]
fn without_a_worker_events_are_answered_500() {
    let mut life = Life::new();
    life.connect(0);
    let workers: Vec<u32> = life.links.iter().map(|link| link.worker).collect();
    workers.into_iter().for_each(|worker| life.crash(worker));
    let at = life.clients[0].at;
    for text in ["/ask:1=1", r#"/qio/on:2="/room/a""#, r#"/qio/off:3="/room/a""#, "/room:4=1"] {
        life.world.send_event(at, text);
    }
    life.world.run_until_idle();
    let not_running = |id| {
        format!(
            r#"/qio/callback/{id}:0={{"code":500,"data":null,"err_msg":"the application is not running"}}"#
        )
    };
    let refused = r#"/qio/callback/2:0={"code":500,"data":null,"err_msg":null}"#.to_owned();
    let off = r#"/qio/callback/3:0={"code":200,"data":null}"#.to_owned();
    assert_eq!(life.world.take_raw_messages(at), [not_running(1), refused, off, not_running(4)]);
    assert_eq!(life.world.counter(Counter::WorkerEventsRefused), 0, "they are the shard's, not the state's");
    life.end(&mut Random::new(1));
}

/// Anything that a worker may send: the shard goes on, and what breaks the frame is told.
#[test]
fn nothing_that_a_worker_says_harms_the_shard() {
    fuzz(|random| {
        let mut life = Life::new();
        life.connect(0);
        (0..20).for_each(|_| life.ask(0, random));
        life.world.run_until_idle();
        let at = life.links[0].at;
        let mut bytes = Vec::new();
        for _ in 0..random.below(20) {
            let (text, data, any) = (random.text(3), random.text(5), random.next() as u32);
            let mut said = Said {
                kind: random.below(9) as u8 + 1,
                flags: random.next() as u8,
                code: random.pick(&[0, 200, 200, 404, 500]),
                request: random.pick(&[0, 1 << 20, 1 << 20 | 1, any]),
                number: random.below(4) as u32,
                client: life.clients[0].id.unwrap(),
                text: random.pick(&["", "/room/a", "no path\0", std::str::from_utf8(&text).unwrap()]),
                data: random.pick(&["", "1", "{", std::str::from_utf8(&data).unwrap()]),
            };
            if random.once_in(4) {
                said.client.0 = random.next() as u32;
            }
            bytes.extend(said.to_bytes());
            if random.once_in(5) {
                random.damage(&mut bytes);
            }
        }
        for piece in random.pieces(&bytes) {
            if !piece.is_empty() {
                life.world.send_bytes(at, piece);
            }
        }
        life.world.run_until_idle();
        // Others are served all the same.
        life.world.advance(Duration::from_secs(120));
        life.world.run_until_idle();
        let other = life.world.connect_raw(1);
        life.world.send_event(other, "/qio/ping:1=null");
        life.world.run_until_idle();
        assert_eq!(life.world.take_raw_messages(other), [r#"/qio/callback/1:0={"code":200,"data":null}"#]);
    });
}

#[test]
fn whatever_happens_everybody_gets_what_is_theirs() {
    fuzz(|random| {
        let mut life = Life::new();
        life.connect(0);
        for _ in 0..random.below(600) {
            life.random_step(random);
        }
        life.end(random);
    });
}
