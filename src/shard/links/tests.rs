//! A simulation of random clients and workers on two shards, compared with a model of what each of them must receive.
//!
//! Clients send events, subscribe, answer callbacks and disconnect. Workers answer late and in random order, offer
//! callbacks, watch clients, are replaced, and crash. Their output arrives in random pieces. The tests check that:
//!
//! - Each event that wants an answer gets exactly one: the worker's, or 500 if the worker crashed before. If the worker
//!   ended the request with code 0, there is no answer.
//! - The events of a client, the ends of its subscriptions and its own end arrive in order, at the worker that serves
//!   its instance at the time.
//! - Each callback comes back to its worker once: answered or dropped.
//! - Each watched client is reported gone once, after everything received from it: to the workers that watch it, or to
//!   another worker of its instance if they have ended.
//!
//! At the end nothing is left: no request, no callback, no subscription, no link.

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

/// An application whose workers are simulated by the test.
struct ScriptedApp {
    manifest: Arc<Manifest>,
    supervisor: Arc<ReportedFaults>,
    limits: LinkLimits,
}

/// The faults of workers that the shards reported. Tests with correct workers expect none.
#[derive(Default)]
struct ReportedFaults(Mutex<Vec<(u32, String)>>);

impl SupervisorHandle for ReportedFaults {
    fn report_broken(&self, worker: u32, why: &str) {
        self.0.lock().unwrap().push((worker, why.to_owned()));
    }

    /// Ignored: links of crashed workers end.
    fn report_link_end(&self, _: u32) {}
}

impl Application for ScriptedApp {
    fn name(&self) -> &str {
        "played"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let supervisor = Arc::clone(&self.supervisor) as Arc<dyn SupervisorHandle>;
        let group =
            WorkerGroup::new("played".into(), registrar.shard(), INSTANCES as usize, self.limits, supervisor);
        worker_app::register_events(&group, registrar, &self.manifest)?;
        registrar.add_worker_group(group);
        Ok(())
    }
}

fn manifest() -> Arc<Manifest> {
    let manifest = r#"{"version":1,"events":[
        {"path":"/ask"},{"path":"/room","children":true,"subscriptions":"ask","off":true},
        {"path":"/open","children":true,"off":true},
        {"path":"/news","subscriptions":"everyone"}]}"#;
    Arc::new(serde_json::from_str(manifest).unwrap())
}

/// The types of frames from the server.
const EVENT: u8 = 1;
const ON: u8 = 2;
const OFF: u8 = 3;
const REPLY: u8 = 4;
const DROPPED: u8 = 5;
const GONE: u8 = 7;

/// The types of frames to the server.
const ANSWER: u8 = 1;
const BROADCAST: u8 = 2;
const SEND: u8 = 3;
const WATCH: u8 = 7;

/// A frame from the server to a worker (docs/workers.md).
#[derive(Clone, Debug, PartialEq)]
struct ReceivedFrame {
    kind: u8,
    flags: u8,
    request: u32,
    number: u32,
    client: (u32, u32, u32),
    text: String,
    data: String,
}

/// Decodes the complete frames at the start of `bytes` and removes them from it.
fn decode_frames(bytes: &mut Vec<u8>) -> Vec<ReceivedFrame> {
    let mut frames = Vec::new();
    while bytes.len() >= 40 {
        let number = |offset: usize| u32::from_be_bytes(bytes[offset..offset + 4].try_into().unwrap());
        let (len, text) = (number(0) as usize + 4, number(28) as usize);
        if bytes.len() < len {
            break;
        }
        let part = |from: usize, to: usize| String::from_utf8(bytes[from..to].to_vec()).unwrap();
        frames.push(ReceivedFrame {
            kind: bytes[4],
            flags: bytes[5],
            request: number(8),
            number: number(12),
            client: (number(16), number(20), number(24)),
            text: part(40, 40 + text),
            data: part(40 + text, len),
        });
        bytes.drain(..len);
    }
    frames
}

/// A frame from a worker to the server (docs/workers.md).
#[derive(Default)]
struct SentFrame<'a> {
    kind: u8,
    flags: u8,
    code: u16,
    request: u32,
    number: u32,
    client: (u32, u32, u32),
    text: &'a str,
    data: &'a str,
}

impl SentFrame<'_> {
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

/// A worker's end of one of its links.
struct TestLink {
    peer: Peer,
    worker: u32,
    instance: u32,
    /// `true` if the worker has ended this link.
    ended: bool,
    received: Vec<u8>,
    unsent: Vec<u8>,
    open_requests: Vec<ReceivedFrame>,
    callbacks: BTreeSet<u32>,
    next_callback: u32,
    watched: BTreeSet<(u32, u32, u32)>,
}

/// A client, and its state in the model.
struct TestClient {
    peer: Peer,
    id: Option<(u32, u32, u32)>,
    has_left: bool,
    next: u64,
    /// The replies that the client still has to get, by callback number; `None` until the worker has decided.
    expected_replies: BTreeMap<u64, Option<String>>,
    answered: BTreeSet<u64>,
    /// The ids of the callbacks that the server offered to the client.
    offered: Vec<String>,
}

/// The shards, the clients, the workers and the model.
struct WorkerSimulation {
    world: World,
    faults: Arc<ReportedFaults>,
    links: Vec<TestLink>,
    clients: Vec<TestClient>,
    workers: u32,
    /// The numbers of each client's events, in the order in which workers received them.
    events_received: BTreeMap<(u32, u32, u32), Vec<u64>>,
    reported_gone: BTreeSet<(u32, (u32, u32, u32))>,
    /// The clients that workers have watched which have ended.
    inherited: BTreeSet<(u32, u32, u32)>,
    /// Those of them of which a worker that watched them too was told. If the WATCH of the worker that has ended was handled
    /// after the client had left, the worker that runs is told as well.
    maybe_inherited: BTreeSet<(u32, u32, u32)>,
}

impl WorkerSimulation {
    fn new() -> WorkerSimulation {
        WorkerSimulation::with_limits(LIMITS)
    }

    fn with_limits(limits: LinkLimits) -> WorkerSimulation {
        let mut sim = WorkerSimulation::without_workers(limits);
        (0..INSTANCES).for_each(|instance| sim.join_worker(instance));
        sim
    }

    fn without_workers(limits: LinkLimits) -> WorkerSimulation {
        let (faults, manifest) = (Arc::new(ReportedFaults::default()), manifest());
        let app = ScriptedApp { manifest, supervisor: Arc::clone(&faults), limits };
        // The rings have the smallest allowed size, which makes most messages wait for room.
        let config = Config { mesh_ring_messages: 8, mesh_overflow_bytes_max: 64 << 10, ..Config::default() };
        let world = World::with_places(SHARDS, config, vec![Arc::new(app)], 1 << 10, PLACES);
        let (events_received, reported_gone) = (BTreeMap::new(), BTreeSet::new());
        WorkerSimulation {
            world,
            faults,
            links: vec![],
            clients: vec![],
            workers: 0,
            events_received,
            reported_gone,
            inherited: BTreeSet::new(),
            maybe_inherited: BTreeSet::new(),
        }
    }

    /// Adds a worker, which replaces the current worker of its instance.
    fn join_worker(&mut self, instance: u32) {
        self.workers += 1;
        let (worker, manifest) = (self.workers, manifest());
        for shard in 0..SHARDS {
            // The shard chooses the place of the link. The test finds the one that is new.
            let before: BTreeSet<u32> = self.world.shards[shard].kernel().sockets.keys().copied().collect();
            let socket = UnixStream::pair().unwrap().0.into();
            let joined_at = Duration::ZERO;
            let joined =
                JoinedWorker { app: 1, instance, worker, manifest: Arc::clone(&manifest), joined_at, socket };
            self.world.send_control(shard, ControlMessage::Workers(WorkerEvent::Joined(joined)));
            self.turn(shard);
            let after = self.world.shards[shard].kernel().sockets.keys();
            let place = after.copied().find(|place| *place < PLACES && !before.contains(place)).unwrap();
            self.links.push(TestLink {
                peer: Peer { shard, socket: place },
                worker,
                instance,
                ended: false,
                received: Vec::new(),
                unsent: Vec::new(),
                open_requests: Vec::new(),
                callbacks: BTreeSet::new(),
                next_callback: 1,
                watched: BTreeSet::new(),
            });
        }
    }

    /// Runs a turn. Links are read before it, because the turn may give the place of a link to another one.
    fn turn(&mut self, shard: usize) {
        (0..self.links.len()).for_each(|link| self.read_link(link));
        self.world.turn(shard);
    }

    /// Runs the shards until they are idle, with all clients and workers reading.
    fn run_until_idle(&mut self) {
        loop {
            (0..self.links.len()).for_each(|link| self.read_link(link));
            (0..self.clients.len()).for_each(|client| self.read_client(client));
            let Some(shard) = (0..SHARDS).find(|shard| self.world.is_runnable(*shard)) else { return };
            self.world.turn(shard);
        }
    }

    /// Reads the frames on a link and checks them against the model.
    fn read_link(&mut self, link: usize) {
        let link = &mut self.links[link];
        if link.ended || self.world.is_closed(link.peer) {
            return;
        }
        link.received.extend(self.world.take_bytes(link.peer));
        for frame in decode_frames(&mut link.received) {
            match frame.kind {
                EVENT | ON => {
                    if frame.kind == EVENT {
                        let nth = frame.data.parse().unwrap();
                        let events_received = self.events_received.entry(frame.client).or_default();
                        assert!(
                            events_received.last().is_none_or(|last| *last < nth),
                            "out of order: {nth} after {events_received:?}"
                        );
                        events_received.push(nth);
                    }
                    let instance = (frame.client.0 + frame.client.1) % INSTANCES;
                    assert_eq!(link.instance, instance, "a client belongs to one instance");
                    assert_eq!(
                        link.peer.shard, frame.client.0 as usize,
                        "events use the link of the client's shard"
                    );
                    link.open_requests.push(frame);
                }
                OFF => assert!(!self.reported_gone.contains(&(link.worker, frame.client)), "OFF after GONE"),
                REPLY => {
                    assert!(link.callbacks.remove(&frame.number), "a callback comes back once");
                    link.open_requests.push(frame);
                }
                DROPPED => assert!(link.callbacks.remove(&frame.number), "a callback comes back once"),
                GONE => {
                    let is_inherited = self.inherited.remove(&frame.client);
                    if link.watched.remove(&frame.client) {
                        self.maybe_inherited.extend(is_inherited.then_some(frame.client));
                    } else {
                        let may_come = is_inherited || self.maybe_inherited.contains(&frame.client);
                        assert!(may_come, "GONE for a client that is not watched");
                    }
                    assert!(
                        self.reported_gone.insert((link.worker, frame.client)),
                        "GONE for the second time"
                    );
                }
                kind => panic!("a frame of type {kind}"),
            }
        }
        if self.world.is_stream_ended(link.peer) {
            // The worker gets no more frames on this link: no callback comes back, and another worker is told of clients.
            link.callbacks.clear();
            self.inherited.append(&mut link.watched);
        }
    }

    /// Reads a client's messages and checks the replies among them.
    fn read_client(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if client.has_left {
            return;
        }
        for text in self.world.take_raw_messages(client.peer) {
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
            let expected = client
                .expected_replies
                .remove(&id)
                .expect("no reply was expected")
                .expect("the worker has not answered");
            assert!(data.contains(&expected), "{data} does not contain {expected}");
            if callback != "0" {
                client.offered.push(callback.to_owned());
            }
        }
    }

    /// Sends an event from a client; returns its number.
    fn send_client_event(&mut self, client: usize, path: &str, data: &str, wants_answer: bool) -> u64 {
        let client = &mut self.clients[client];
        client.next += 1;
        if wants_answer {
            client.expected_replies.insert(client.next, None);
        }
        let id = if wants_answer { client.next } else { 0 };
        self.world.send_event(client.peer, &format!("{path}:{id}={data}"));
        client.next
    }

    fn send_random_event(&mut self, client: usize, random: &mut Random) {
        let next = self.clients[client].next + 1;
        self.send_client_event(
            client,
            random.pick(&["/ask", "/room/a"]),
            &next.to_string(),
            !random.once_in(4),
        );
    }

    /// Notes the reply that the client of an event must get. The data of the event is its callback number.
    fn expect_reply(&mut self, frame: &ReceivedFrame, what: &str) {
        let client = self.clients.iter_mut().find(|client| client.id == Some(frame.client));
        // Frames of the types ON and REPLY do not contain the callback number. Their replies are not checked.
        let Some(client) = client.filter(|client| !client.has_left) else { return };
        let id = if frame.kind == EVENT { frame.data.parse().unwrap() } else { return };
        if let Some(expected) = client.expected_replies.get_mut(&id) {
            *expected = Some(what.to_owned());
        }
    }

    /// Answers a random open request of a worker.
    fn answer_random_request(&mut self, link: usize, random: &mut Random) {
        if self.links[link].open_requests.is_empty() {
            return;
        }
        let nth = random.below(self.links[link].open_requests.len());
        let frame = self.links[link].open_requests.swap_remove(nth);
        let mut sent = SentFrame { kind: ANSWER, request: frame.request, code: 200, ..SentFrame::default() };
        let data = format!("\"{}\"", random.next());
        match random.below(6) {
            _ if frame.kind == ON => sent.code = random.pick(&[200, 200, 404, 401, 0, 500, 499]),
            0 => (sent.code, sent.flags, sent.text) = (418, 2, "a teapot"),
            1 => sent.code = 0,
            2 => {
                let link = &mut self.links[link];
                sent.number = link.next_callback;
                link.callbacks.insert(sent.number);
                link.next_callback += 1;
                sent.data = &data;
            }
            _ => sent.data = &data,
        }
        let expected = match sent.code {
            418 => r#""code":418,"data":null,"err_msg":"a teapot""#.to_owned(),
            0 => String::new(),
            _ => format!(r#""code":200,"data":{}"#, if sent.data.is_empty() { "null" } else { sent.data }),
        };
        let bytes = sent.to_bytes();
        if sent.code == 0 {
            self.expect_no_reply(&frame);
        } else {
            self.expect_reply(&frame, &expected);
        }
        self.links[link].unsent.extend(bytes);
    }

    /// Notes that the client of an event gets no reply.
    fn expect_no_reply(&mut self, frame: &ReceivedFrame) {
        let client = self.clients.iter_mut().find(|client| client.id == Some(frame.client));
        if let (Some(client), EVENT) = (client, frame.kind) {
            client.expected_replies.remove(&frame.data.parse().unwrap());
        }
    }

    fn send_random_command(&mut self, link: usize, random: &mut Random) {
        let Some(id) = self.clients.get(random.below(self.clients.len().max(1))).and_then(|client| client.id)
        else {
            return;
        };
        let link = &mut self.links[link];
        let mut sent = SentFrame { client: id, ..SentFrame::default() };
        match random.below(3) {
            0 => (sent.kind, sent.text, sent.data) = (BROADCAST, "/room/a", "1"),
            1 if id.0 as usize == link.peer.shard => {
                (sent.kind, sent.text) = (SEND, "/for/you");
                sent.number = link.next_callback;
                link.callbacks.insert(sent.number);
                link.next_callback += 1;
            }
            2 if id.0 as usize == link.peer.shard
                && !self.reported_gone.contains(&(link.worker, id))
                && link.watched.insert(id) =>
            {
                sent.kind = WATCH;
            }
            _ => return,
        }
        link.unsent.extend(sent.to_bytes());
    }

    fn send_some(&mut self, link: usize, random: &mut Random) {
        let WorkerSimulation { links, world, .. } = self;
        let link = &mut links[link];
        let len = random.below(link.unsent.len() + 1);
        let piece: Vec<u8> = link.unsent.drain(..len).collect();
        if !piece.is_empty() {
            world.send_bytes(link.peer, &piece);
        }
    }

    /// Sends the unsent output of all links.
    fn send_all(&mut self) {
        for link in self.links.iter_mut().filter(|link| !link.ended && !link.unsent.is_empty()) {
            self.world.send_bytes(link.peer, &std::mem::take(&mut link.unsent));
        }
    }

    /// Crashes a worker: its links are reset, and its open requests must be answered 500.
    fn crash_worker(&mut self, worker: u32) {
        self.send_all();
        self.run_until_idle();
        for nth in 0..self.links.len() {
            if self.links[nth].worker != worker || self.links[nth].ended {
                continue;
            }
            for frame in std::mem::take(&mut self.links[nth].open_requests) {
                self.expect_reply(&frame, r#""code":500,"data":null,"err_msg":"the application has ended""#);
            }
            self.links[nth].ended = true;
            self.links[nth].callbacks.clear();
            self.inherited.append(&mut self.links[nth].watched);
            self.world.reset(self.links[nth].peer);
        }
        self.run_until_idle();
    }

    /// Ends the links on which the server sends no more and that have no open requests.
    fn end_drained_workers(&mut self) {
        for nth in 0..self.links.len() {
            self.read_link(nth);
            let link = &mut self.links[nth];
            let is_drained = !link.ended && self.world.is_stream_ended(link.peer);
            if is_drained && link.open_requests.is_empty() && link.unsent.is_empty() {
                link.ended = true;
                self.world.end_stream(link.peer);
            }
        }
    }

    fn connect(&mut self, shard: usize) {
        let peer = self.world.connect_raw(shard);
        let clients = self.world.shards[shard].state().connections.client_ids();
        let known: BTreeSet<_> = self.clients.iter().filter_map(|client| client.id).collect();
        let mut ids = clients.map(|id| (shard as u32, id.slot, id.generation));
        let id = ids.find(|id| !known.contains(id)).unwrap();
        self.clients.push(TestClient {
            peer,
            id: Some(id),
            has_left: false,
            next: 0,
            expected_replies: BTreeMap::new(),
            answered: BTreeSet::new(),
            offered: Vec::new(),
        });
    }

    fn random_step(&mut self, random: &mut Random) {
        let link = random.below(self.links.len());
        let is_live = !self.links[link].ended && !self.world.is_closed(self.links[link].peer);
        let client = random.below(self.clients.len());
        let is_here = !self.clients[client].has_left;
        match random.below(24) {
            0..=7 if is_here => self.send_random_event(client, random),
            8 if is_here => {
                // The replies to subscriptions are tested elsewhere; this one does not ask for a reply.
                self.world.send_event(self.clients[client].peer, r#"/qio/on:0="/room/a""#);
            }
            9 if is_here => self.world.send_event(self.clients[client].peer, r#"/qio/off:0="/room/a""#),
            10 if is_here => {
                if let Some(callback) = self.clients[client].offered.pop() {
                    self.world
                        .send_event(self.clients[client].peer, &format!("/qio/callback/{callback}:0=1"));
                }
            }
            11 if is_here && random.once_in(4) => {
                self.run_until_idle();
                self.clients[client].has_left = true;
                self.world.reset(self.clients[client].peer);
                self.run_until_idle();
            }
            12 | 13 => self.connect(random.below(SHARDS)),
            14..=17 if is_live => self.answer_random_request(link, random),
            18 if is_live => self.send_random_command(link, random),
            19 if is_live => self.send_some(link, random),
            20 if self.links.iter().filter(|link| !link.ended).count() < 40 && random.once_in(3) => {
                self.join_worker(random.below(INSTANCES as usize) as u32);
            }
            21 if random.once_in(4) => {
                let worker = self.links[link].worker;
                let instance = self.links[link].instance;
                self.crash_worker(worker);
                // The replacement joins at once. Events without any worker are covered by another test.
                self.join_worker(instance);
            }
            22 => self.end_drained_workers(),
            _ => self.turn(random.below(SHARDS)),
        }
    }

    /// Answers all requests, disconnects all clients, ends all workers, and checks that nothing is left.
    fn finish(mut self, random: &mut Random) {
        loop {
            self.send_all();
            self.run_until_idle();
            let busy = (0..self.links.len()).find(|nth| !self.links[*nth].open_requests.is_empty());
            let Some(busy) = busy else { break };
            self.answer_random_request(busy, random);
        }
        for client in self.clients.iter().filter(|client| !client.has_left) {
            assert!(client.expected_replies.is_empty(), "never answered: {:?}", client.expected_replies);
        }
        assert_eq!(self.world.gauge(Gauge::WorkerRequests), 0);
        for client in 0..self.clients.len() {
            if !self.clients[client].has_left {
                self.clients[client].has_left = true;
                self.world.reset(self.clients[client].peer);
            }
        }
        self.run_until_idle();
        for link in self.links.iter().filter(|link| !link.ended) {
            assert!(link.callbacks.is_empty(), "callbacks were not returned: {:?}", link.callbacks);
            assert!(link.watched.is_empty(), "watched clients were not reported gone: {:?}", link.watched);
        }
        // A client whose watchers have ended is reported to the next worker of its instance.
        (0..INSTANCES).for_each(|instance| self.join_worker(instance));
        self.run_until_idle();
        assert!(self.inherited.is_empty(), "nobody was told that they are gone: {:?}", self.inherited);
        let workers: BTreeSet<u32> = self.links.iter().map(|link| link.worker).collect();
        workers.into_iter().for_each(|worker| self.crash_worker(worker));
        assert_eq!(*self.faults.0.lock().unwrap(), []);
        assert_eq!(self.world.counter(Counter::WorkerFramesRefused), 0);
        assert_eq!(self.world.gauge(Gauge::WorkerLinks), 0);
        self.world.assert_empty();
    }
}

/// The server ends the links of a replaced worker only after the worker has answered all requests and all of its
/// callbacks have come back.
#[test]
fn a_replaced_worker_keeps_its_links_until_its_requests_and_callbacks_are_done() {
    let mut sim = WorkerSimulation::new();
    sim.connect(0);
    let (client, old) = (sim.clients[0].id.unwrap(), 0);
    let instance = (client.0 + client.1) % INSTANCES;
    let old =
        sim.links[old..].iter().position(|link| link.peer.shard == 0 && link.instance == instance).unwrap();
    let id = sim.send_client_event(0, "/ask", "1", true);
    sim.run_until_idle();
    sim.join_worker(instance);
    sim.run_until_idle();
    let frame = sim.links[old].open_requests.pop().expect("the old worker has the request");
    assert!(!sim.world.is_stream_ended(sim.links[old].peer), "a request is open");

    let answer = SentFrame {
        kind: ANSWER,
        request: frame.request,
        code: 200,
        number: 5,
        data: "7",
        ..SentFrame::default()
    };
    sim.expect_reply(&frame, r#""code":200,"data":7"#);
    sim.links[old].callbacks.insert(5);
    sim.links[old].unsent.extend(answer.to_bytes());
    sim.send_all();
    sim.run_until_idle();
    assert!(sim.clients[0].answered.contains(&id));
    assert!(!sim.world.is_stream_ended(sim.links[old].peer), "a callback is open");
    let callback = sim.clients[0].offered.pop().unwrap();
    sim.world.send_event(sim.clients[0].peer, &format!("/qio/callback/{callback}:0=8"));
    sim.run_until_idle();
    let reply = sim.links[old].open_requests.pop().expect("the reply goes to the old worker");
    assert_eq!((reply.kind, reply.number, reply.flags, reply.data.as_str()), (REPLY, 5, 0, "8"));
    assert!(!sim.world.is_stream_ended(sim.links[old].peer), "the reply is a request, which is open");
    let done = SentFrame { kind: ANSWER, request: reply.request, ..SentFrame::default() };
    sim.links[old].unsent.extend(done.to_bytes());
    sim.send_all();
    sim.run_until_idle();
    assert!(sim.world.is_stream_ended(sim.links[old].peer));
    sim.finish(&mut Random::new(1));
}

/// Without a worker, clients are answered 500, and the end of a client or of the server waits for nothing.
#[test]
fn without_a_worker_events_are_answered_500() {
    let mut sim = WorkerSimulation::new();
    sim.connect(0);
    let workers: Vec<u32> = sim.links.iter().map(|link| link.worker).collect();
    workers.into_iter().for_each(|worker| sim.crash_worker(worker));
    let peer = sim.clients[0].peer;
    for text in ["/ask:1=1", r#"/qio/on:2="/room/a""#, r#"/qio/off:3="/room/a""#, "/room:4=1"] {
        sim.world.send_event(peer, text);
    }
    sim.world.run_until_idle();
    let not_running = |id| {
        format!(
            r#"/qio/callback/{id}:0={{"code":500,"data":null,"err_msg":"the application is not running"}}"#
        )
    };
    let refused = r#"/qio/callback/2:0={"code":500,"data":null,"err_msg":null}"#.to_owned();
    let off = r#"/qio/callback/3:0={"code":200,"data":null}"#.to_owned();
    assert_eq!(sim.world.take_raw_messages(peer), [not_running(1), refused, off, not_running(4)]);
    let refused = sim.world.counter(Counter::WorkerEventsRefused);
    assert_eq!(refused, 3, "two events and a subscription; an off needs no worker");
    sim.finish(&mut Random::new(1));
}

/// A worker broadcasts more than the other shard can take, on its link to shard 0. It is not listened to meanwhile.
#[test]
fn a_worker_that_floods_another_shard_is_held_back_and_loses_nothing() {
    const FLOOD: usize = 1000;
    for leaves in [false, true] {
        let mut sim = WorkerSimulation::new();
        let subscriber = sim.world.connect_raw(1);
        sim.world.send_event(subscriber, "/qio/on:0=\"/news\"");
        sim.run_until_idle();
        let link = sim.links[0].peer;
        assert_eq!(link.shard, 0);
        for number in 0..FLOOD {
            let data = number.to_string();
            let sent = SentFrame { kind: BROADCAST, text: "/news", data: &data, ..SentFrame::default() };
            sim.world.send_bytes(link, &sent.to_bytes());
        }
        for _ in 0..100 {
            // Longer than worker-timeout, in all.
            sim.world.advance(Duration::from_secs(1));
            sim.world.turn(0);
            assert!(sim.world.gauge(Gauge::MeshOverflowBytes) <= 4 << 10);
        }
        assert_eq!(sim.world.gauge(Gauge::InputsHeld), 1);
        if leaves {
            let left = WorkerEvent::Left { app: 1, worker: 1 };
            sim.world.send_control(0, ControlMessage::Workers(left));
            sim.world.end_stream(link);
            sim.world.turn(0);
            sim.world.turn(0);
            assert_eq!(sim.world.gauge(Gauge::InputsHeld), 0, "what it has sent is finite");
        }
        sim.world.run_until_idle();
        let messages = sim.world.take_raw_messages(subscriber);
        let expected: Vec<String> = (0..FLOOD).map(|number| format!("/news:0={number}")).collect();
        let refused = sim.world.counter(Counter::MeshRefused) as usize;
        assert!(leaves || refused == 0);
        let news: Vec<String> = messages.into_iter().filter(|text| text.starts_with("/news")).collect();
        assert_eq!(news, expected[..FLOOD - refused]);
        assert!(sim.faults.0.lock().unwrap().is_empty());
    }
}

impl WorkerSimulation {
    /// The index of the latest link to the worker of a client.
    fn link_of(&self, client: (u32, u32, u32)) -> usize {
        let instance = (client.0 + client.1) % INSTANCES;
        let is_its = |link: &TestLink| link.peer.shard == client.0 as usize && link.instance == instance;
        self.links.iter().rposition(is_its).expect("each instance has a link to each shard")
    }

    /// Connects clients until two of them belong to one worker. Returns their indexes.
    fn connect_two_of_one_worker(&mut self) -> [usize; 2] {
        (0..=INSTANCES).for_each(|_| self.connect(0));
        let link = |nth: usize| self.link_of(self.clients[nth].id.unwrap());
        let pairs = (0..self.clients.len()).flat_map(|one| (0..one).map(move |other| [other, one]));
        pairs.into_iter().find(|[one, other]| link(*one) == link(*other)).expect("more clients than workers")
    }

    /// Returns the codes that a client has been answered since the last call.
    fn codes(&mut self, client: usize) -> Vec<u32> {
        self.run_shards();
        let texts = self.world.take_raw_messages(self.clients[client].peer);
        let code = |text: &String| text.split_once("\"code\":")?.1.get(..3)?.parse().ok();
        texts.iter().filter_map(code).collect()
    }

    /// Runs the shards until they are idle. Nobody reads.
    fn run_shards(&mut self) {
        while let Some(shard) = (0..SHARDS).find(|shard| self.world.is_runnable(*shard)) {
            self.world.turn(shard);
        }
    }

    /// Returns the types of the frames that wait on a link, of those about one client.
    fn kinds(&mut self, link: usize, client: (u32, u32, u32)) -> Vec<u8> {
        let mut bytes = self.world.take_bytes(self.links[link].peer);
        let frames = decode_frames(&mut bytes);
        frames.iter().filter(|frame| frame.client == client).map(|frame| frame.kind).collect()
    }

    /// Answers the request that the worker got last, with code 200.
    fn accept_last(&mut self, link: usize) {
        self.run_until_idle();
        let request = self.links[link].open_requests.pop().expect("the worker has a request").request;
        let accept = SentFrame { kind: ANSWER, request, code: 200, ..SentFrame::default() };
        self.world.send_bytes(self.links[link].peer, &accept.to_bytes());
        self.run_until_idle();
    }

    /// Has a client subscribe to a room, and a worker accept it and watch the client.
    fn subscribe_and_watch(&mut self, client: usize) -> (u32, u32, u32) {
        let id = self.clients[client].id.unwrap();
        let link = self.link_of(id);
        self.world.send_event(self.clients[client].peer, r#"/qio/on:0="/room/a""#);
        self.accept_last(link);
        let watch = SentFrame { kind: WATCH, client: id, ..SentFrame::default() };
        self.links[link].watched.insert(id);
        self.world.send_bytes(self.links[link].peer, &watch.to_bytes());
        self.run_until_idle();
        id
    }

    fn disconnect(&mut self, client: usize) {
        self.clients[client].has_left = true;
        self.world.reset(self.clients[client].peer);
        self.run_shards();
    }
}

#[test]
fn one_client_cannot_take_all_requests_of_a_worker() {
    let mut sim = WorkerSimulation::new();
    let [hog, other] = sim.connect_two_of_one_worker();
    for nth in 1..=2000 {
        sim.world.send_event(sim.clients[hog].peer, &format!("/ask:{nth}=1"));
    }
    assert_eq!(
        sim.codes(hog),
        [420].repeat(1800),
        "the limit is 1000: it gets a quarter of what it leaves free"
    );
    for nth in 1..=20 {
        sim.world.send_event(sim.clients[other].peer, &format!("/ask:{nth}=1"));
    }
    assert_eq!(sim.codes(other), [0; 0], "all 20 are with the worker");
    assert_eq!(sim.world.gauge(Gauge::WorkerRequests), 220);
    let refused =
        [Counter::WorkerEventsRefused, Counter::WorkerSharesRefused].map(|of| sim.world.counter(of));
    assert_eq!(refused, [1800, 1800]);
}

#[test]
fn the_events_of_one_client_cannot_fill_the_output_to_a_worker() {
    let limits = LinkLimits { outbox_bytes_max: 100_000, ..LIMITS };
    let mut sim = WorkerSimulation::with_limits(limits);
    let [hog, other] = sim.connect_two_of_one_worker();
    let link = sim.link_of(sim.clients[hog].id.unwrap());
    sim.world.set_reading(sim.links[link].peer, false);
    let data = "x".repeat(1000);
    for nth in 1..=500 {
        sim.world.send_event(sim.clients[hog].peer, &format!("/ask:{nth}=\"{data}\""));
    }
    let refused = sim.codes(hog);
    assert!(refused.len() > 450 && refused.iter().all(|code| *code == 420), "{refused:?}");
    for nth in 1..=10 {
        sim.world.send_event(sim.clients[other].peer, &format!("/ask:{nth}=\"{data}\""));
    }
    assert_eq!(sim.codes(other), [0; 0]);
    // Ends of subscriptions take room too. They cannot be refused, but the subscriptions before them can.
    for _ in 0..2000 {
        sim.world.send_event(sim.clients[hog].peer, r#"/qio/on:1="/open/a""#);
        sim.world.send_event(sim.clients[hog].peer, r#"/qio/off:0="/open/a""#);
    }
    assert!(sim.codes(hog).contains(&420));
    assert!(sim.world.gauge(Gauge::WorkerOutboxBytes) < 100_000);
    sim.world.send_event(sim.clients[other].peer, "/ask:11=1");
    assert_eq!(sim.codes(other), [0; 0]);
}

/// The next worker is told of all ends that occur while an instance has none, in order and before anything else.
#[test]
fn ends_without_a_worker_are_told_to_the_next_one() {
    let mut sim = WorkerSimulation::new();
    let [one, other] = sim.connect_two_of_one_worker();
    let gone = sim.subscribe_and_watch(one);
    let unsubscribed = sim.subscribe_and_watch(other);
    let (instance, worker) = ((gone.0 + gone.1) % INSTANCES, sim.links[sim.link_of(gone)].worker);
    sim.crash_worker(worker);
    sim.disconnect(one);
    sim.world.send_event(sim.clients[other].peer, r#"/qio/off:0="/room/a""#);
    sim.world.send_event(sim.clients[other].peer, r#"/qio/on:0="/open/b""#);
    sim.world.send_event(sim.clients[other].peer, r#"/qio/off:0="/open/b""#);
    sim.run_shards();
    assert_eq!(sim.world.counter(Counter::WorkerEndsDropped), 0);
    sim.join_worker(instance);
    sim.world.send_event(sim.clients[other].peer, "/ask:0=1");
    sim.run_shards();
    let link = sim.link_of(gone);
    let mut bytes = sim.world.take_bytes(sim.links[link].peer);
    let frames: Vec<_> =
        decode_frames(&mut bytes).into_iter().map(|frame| (frame.kind, frame.client)).collect();
    let expected =
        [(OFF, gone), (GONE, gone), (OFF, unsubscribed), (OFF, unsubscribed), (EVENT, unsubscribed)];
    assert_eq!(frames, expected);
}

/// The worker that a reload has started is told of clients that only the old worker has watched.
#[test]
fn a_client_that_leaves_after_a_reload_is_reported_to_the_new_worker() {
    let mut sim = WorkerSimulation::new();
    sim.connect(0);
    let client = sim.subscribe_and_watch(0);
    let old = sim.link_of(client);
    sim.join_worker((client.0 + client.1) % INSTANCES);
    let new = sim.link_of(client);
    sim.run_shards();
    assert!(sim.world.is_stream_ended(sim.links[old].peer), "nothing keeps the old worker");
    sim.disconnect(0);
    assert_eq!((sim.kinds(old, client), sim.kinds(new, client)), (vec![], vec![OFF, GONE]));
    // A watch of the new worker that was on its way brings no second report.
    let watch = SentFrame { kind: WATCH, client, ..SentFrame::default() };
    sim.world.send_bytes(sim.links[new].peer, &watch.to_bytes());
    sim.run_shards();
    assert_eq!(sim.kinds(new, client), [0u8; 0]);
}

/// While no worker runs, one client cannot fill the memory for ends, nor keep those of others out.
#[test]
fn waiting_ends_are_bounded_and_shared() {
    let mut sim = WorkerSimulation::with_limits(LinkLimits { outbox_bytes_max: 200_000, ..LIMITS });
    let [hog, other] = sim.connect_two_of_one_worker();
    let of_other = sim.subscribe_and_watch(other);
    let worker = sim.links[sim.link_of(of_other)].worker;
    sim.crash_worker(worker);
    for _ in 0..5000 {
        sim.world.send_event(sim.clients[hog].peer, r#"/qio/on:1="/open/a""#);
        sim.world.send_event(sim.clients[hog].peer, r#"/qio/off:0="/open/a""#);
    }
    let codes = sim.codes(hog);
    let accepted = codes.iter().filter(|code| **code == 200).count();
    assert!((100..1000).contains(&accepted), "{accepted}");
    sim.disconnect(other);
    assert_eq!(sim.world.counter(Counter::WorkerEndsDropped), 0);
    sim.join_worker((of_other.0 + of_other.1) % INSTANCES);
    sim.run_shards();
    let link = sim.link_of(of_other);
    assert_eq!(sim.kinds(link, of_other), [OFF, GONE]);
}

/// A shard that has begun later than another one first gets its links, and then what the other one has sent it.
#[test]
fn links_come_before_the_requests_of_other_shards() {
    let mut sim = WorkerSimulation::without_workers(LIMITS);
    let client = sim.world.connect(0);
    sim.world.turn(0);
    for number in 1..=8 {
        let sid = format!("{number:02}").repeat(16);
        let event = "/ask:1=1";
        let head =
            format!("POST /?sid={sid}&connect=true HTTP/1.1\r\nHost: x\r\nContent-Length: {}", event.len());
        sim.world.send_bytes(client, format!("{head}\r\n\r\n{event}").as_bytes());
    }
    // The workers of the first shard are not joined, so that its own sessions tell that the event needs one.
    while sim.world.is_runnable(0) {
        sim.world.turn(0);
    }
    for instance in 0..INSTANCES {
        let socket = UnixStream::pair().unwrap().0.into();
        let (worker, joined_at) = (instance + 1, Duration::ZERO);
        let joined = JoinedWorker { app: 1, instance, worker, manifest: manifest(), joined_at, socket };
        sim.world.send_control(1, ControlMessage::Workers(WorkerEvent::Joined(joined)));
    }
    while sim.world.is_runnable(1) {
        sim.world.turn(1);
    }
    let refused: Vec<u64> =
        sim.world.states().map(|state| state.snapshot().counters.get(Counter::WorkerEventsRefused)).collect();
    let sessions: Vec<u64> =
        sim.world.states().map(|state| state.snapshot().gauges.get(Gauge::HttpSessions)).collect();
    assert!(sessions.iter().all(|sessions| *sessions > 0), "both shards have sessions: {sessions:?}");
    assert_eq!(refused, [sessions[0], 0]);
}

/// A worker may send anything: the shard must keep serving other clients.
#[test]
fn random_frames_of_a_worker_do_not_harm_the_shard() {
    fuzz(|random| {
        let mut sim = WorkerSimulation::new();
        sim.connect(0);
        (0..20).for_each(|_| sim.send_random_event(0, random));
        sim.world.run_until_idle();
        let peer = sim.links[0].peer;
        let mut bytes = Vec::new();
        for _ in 0..random.below(20) {
            let (text, data, any) = (random.text(3), random.text(5), random.next() as u32);
            let mut sent = SentFrame {
                kind: random.below(9) as u8 + 1,
                flags: random.next() as u8,
                code: random.pick(&[0, 200, 200, 404, 500]),
                request: random.pick(&[0, 1 << 20, 1 << 20 | 1, any]),
                number: random.below(4) as u32,
                client: sim.clients[0].id.unwrap(),
                text: random.pick(&["", "/room/a", "no path\0", std::str::from_utf8(&text).unwrap()]),
                data: random.pick(&["", "1", "{", std::str::from_utf8(&data).unwrap()]),
            };
            if random.once_in(4) {
                sent.client.0 = random.next() as u32;
            }
            bytes.extend(sent.to_bytes());
            if random.once_in(5) {
                random.damage(&mut bytes);
            }
        }
        for piece in random.pieces(&bytes) {
            if !piece.is_empty() {
                sim.world.send_bytes(peer, piece);
            }
        }
        sim.world.run_until_idle();
        // Other clients are still served.
        sim.world.advance(Duration::from_secs(120));
        sim.world.run_until_idle();
        let other = sim.world.connect_raw(1);
        sim.world.send_event(other, "/qio/ping:1=null");
        sim.world.run_until_idle();
        assert_eq!(sim.world.take_raw_messages(other), [r#"/qio/callback/1:0={"code":200,"data":null}"#]);
    });
}

#[test]
fn random_clients_and_workers_receive_what_the_model_expects() {
    fuzz(|random| {
        let mut sim = WorkerSimulation::new();
        sim.connect(0);
        for _ in 0..random.below(600) {
            sim.random_step(random);
        }
        sim.finish(random);
    });
}
