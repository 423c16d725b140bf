//! Random clients of paths with members, which join, leave, disconnect, authenticate and ask, over all transports.
//!
//! Each client that watches a path applies what it is told to its own list. The rules for that are those of protocol.md: the
//! first news is the whole list or a count, a client that leaves was in the list, and the count is the length of the list. At the
//! end of a phase, all of these lists are those that the shard keeps, and the members that are connected are the subscribers
//! of the path on all shards, with their users. Members that are absent are gone after the setting `members-linger`.

use super::app::SimApp;
use super::transport::SimTransport;
use crate::app::Application;
use crate::config::{AuthMode, Config};
use crate::event::path::Path;
use crate::history::HistoryBounds;
use crate::identity::testing::TestSigner;
use crate::identity::{Algorithm, KeySet, TokenPolicy};
use crate::metrics::{Counter, Gauge};
use crate::protocol::testing::{Random, fuzz};
use crate::rules::{Rule, RuleSet};
use crate::shard::auth::{AuthParts, VerifyJob, VerifyTokens};
use crate::shard::messages::ControlMessage;
use crate::shard::testing::World;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The paths. The first one has no members; the third one has history too; subscriptions to the last one are decided late.
const PATHS: [&str; 4] = ["/now/plain", "/now/m/a", "/now/mh/b", "/later/m"];

/// The number of a path that a subscription with members is refused for.
const PLAIN: usize = 0;

/// The number of the path with history.
const KEPT: usize = 2;

/// The users. Several clients have the same one.
const USERS: usize = 4;

/// A client. It survives its connections.
struct Person {
    transport: Option<SimTransport>,
    views: Vec<View>,
    /// The requests that wait for an answer: their paths and kinds.
    requests: BTreeMap<u64, (usize, Request)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Request {
    On,
    /// Subscribe, or only watch if the client is subscribed.
    Watch,
    Off,
    /// To subscribe, but the client has unsubscribed before it was.
    Cancelled,
    Auth,
    /// Ask once.
    Read,
}

/// What a client knows of a path.
#[derive(Clone, Default)]
struct View {
    state: ViewState,
    watch: Watch,
}

#[derive(Clone, Copy, PartialEq, Default, Debug)]
enum ViewState {
    #[default]
    Off,
    /// A request waits for its answer.
    Changing,
    On,
}

/// What a client was told of the members.
#[derive(Clone, PartialEq, Default, Debug)]
enum Watch {
    #[default]
    No,
    /// It has asked.
    Asked,
    /// There are so many members.
    Count(usize),
    /// These are the members: their users and information, by their ids.
    List(Members),
}

type Members = BTreeMap<String, (Value, Value)>;

struct Model {
    world: World,
    people: Vec<Person>,
    app: SimApp,
    signer: TestSigner,
    config: Config,
    next_callback: u64,
    lists: u64,
    changes: u64,
    counts: u64,
}

struct NoJobs;

impl VerifyTokens for NoJobs {
    fn verify(&self, job: VerifyJob) -> Result<(), VerifyJob> {
        Err(job)
    }
}

fn rules(has_members: bool) -> Vec<Rule> {
    let rule =
        |path: &str, history| Rule { history, members: has_members, ..Rule::open(path.parse().unwrap()) };
    let kept = Some(HistoryBounds { events: 5, age_s: None });
    vec![rule("/now/m/*", None), rule("/now/mh/*", kept), rule("/later/*", None)]
}

fn config(random: &mut Random) -> Config {
    Config {
        auth: AuthMode::Optional,
        mesh_ring_messages: 8,
        sends_per_turn_max: 2,
        http_idle_timeout: Duration::from_secs(16 * 60),
        members_linger: Duration::from_secs(random.pick(&[0, 2, 5])),
        members_max: random.pick(&[1000, 1000, 2, 4]),
        members_bytes_max: random.pick(&[64 << 20, 64 << 20, 3000]),
        rules: rules(true),
        ..Config::default()
    }
}

#[test]
fn clients_know_the_members_of_paths() {
    fuzz(|random| {
        let mut model = Model::new(1 + random.below(4), config(random));
        for _ in 0..1 + random.below(8) {
            model.run_phase(random);
        }
        model.finish();
    });
}

/// The runs of this test must do what they are for.
#[test]
fn random_clients_get_lists_changes_and_counts() {
    let (mut lists, mut changes, mut counts, mut dropped) = (0, 0, 0, 0);
    for seed in 0..25 {
        let mut random = Random::new(seed);
        let mut model = Model::new(3, config(&mut random));
        (0..4).for_each(|_| model.run_phase(&mut random));
        (lists, changes, counts) = (lists + model.lists, changes + model.changes, counts + model.counts);
        dropped += model.world.counter(Counter::MembersListsDropped);
        model.finish();
    }
    assert!(
        lists > 100 && changes > 100 && counts > 20 && dropped > 5,
        "{lists}, {changes}, {counts}, {dropped}"
    );
}

impl Model {
    fn new(shards: usize, config: Config) -> Model {
        let app = SimApp::default();
        let apps: Vec<Arc<dyn Application>> = vec![Arc::new(app.clone())];
        let signer = TestSigner::new(Algorithm::Hs256);
        let keys = Arc::new(KeySet::new([signer.verifier("fast")], TokenPolicy::default()));
        let auth = AuthParts { keys, verifier: Arc::new(NoJobs), asks: None };
        Model {
            world: World::with_auth(shards, config.clone(), apps, auth),
            people: Vec::new(),
            app,
            signer,
            config,
            next_callback: 0,
            lists: 0,
            changes: 0,
            counts: 0,
        }
    }

    fn run_phase(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) {
            self.people.push(Person {
                transport: None,
                views: vec![View::default(); PATHS.len()],
                requests: BTreeMap::new(),
            });
        }
        if random.once_in(2) {
            self.world.advance(Duration::from_millis(random.next() % 10_000));
        }
        if random.once_in(10) {
            self.change_rules();
        }
        for _ in 0..if self.people.is_empty() { 0 } else { random.below(300) } {
            self.random_step(random);
        }
        self.settle();
        self.check();
        if random.once_in(3) {
            self.check_absent();
        }
    }

    fn random_step(&mut self, random: &mut Random) {
        let shard = random.below(self.world.shards.len());
        match random.below(10) {
            0..=2 => return self.world.turn(shard),
            3 => return self.app.decide_one(random),
            _ => {}
        }
        let index = random.below(self.people.len());
        if self.people[index].transport.is_none() {
            return self.connect(index, random);
        }
        let path = random.below(PATHS.len());
        match random.below(40) {
            0..=12 => self.change(index, path, random),
            13..=16 => self.authenticate(index, random),
            17..=31 => self.send_some(index, random),
            32 => self.world.advance(Duration::from_millis(random.next() % 300)),
            // The responses to polls may come in another order: they are read at the end of the phase.
            33 | 34 if self.connected(index).0.is_http() => {}
            33 | 34 => self.receive(index),
            35 | 36 => {
                let (transport, world) = self.connected(index);
                transport.toggle_reading(world, random);
            }
            37 => self.ask(index, path, Request::Read, ""),
            _ => self.disconnect(index, random),
        }
    }

    fn connect(&mut self, index: usize, random: &mut Random) {
        let Some(transport) = SimTransport::connect_ordered(&mut self.world, random) else { return };
        self.people[index].transport = Some(transport);
        if random.once_in(2) {
            self.authenticate(index, random);
        }
    }

    /// Sends a token of the client's user, whose information differs from token to token.
    fn authenticate(&mut self, index: usize, random: &mut Random) {
        let user = index % USERS;
        if user == 0 {
            return;
        }
        let expires = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 1_000_000;
        let info = random.pick(&["null", "{\"name\":\"A\"}", "[1, 2]"]);
        let claims = format!(r#"{{"sub":"u{user}","exp":{expires},"qio":{{"info":{info}}}}}"#);
        let token = self.signer.token(Some("fast"), &claims);
        self.ask(index, 0, Request::Auth, &token);
    }

    /// Subscribes or unsubscribes a client, unless an answer is awaited.
    fn change(&mut self, index: usize, path: usize, random: &mut Random) {
        let view = &mut self.people[index].views[path];
        let request = match view.state {
            ViewState::Changing => return,
            ViewState::On => random.pick(&[Request::Off, Request::Off, Request::Watch]),
            ViewState::Off => random.pick(&[Request::On, Request::Watch, Request::Watch]),
        };
        let is_upgrade = view.state == ViewState::On && request == Request::Watch;
        if request == Request::Watch && path != PLAIN && view.watch == Watch::No {
            view.watch = Watch::Asked;
        }
        if path != PLAIN || request != Request::Watch {
            view.state = ViewState::Changing;
        }
        let also = if path == KEPT && !is_upgrade && random.once_in(2) { ",\"history\":3" } else { "" };
        self.ask(index, path, request, also);
        // Without waiting for the answer, a client may change its mind.
        if random.once_in(6) && request != Request::Off && path != PLAIN {
            self.ask(index, path, Request::Off, "");
        }
    }

    fn ask(&mut self, index: usize, path: usize, request: Request, text: &str) {
        self.next_callback += 1;
        let (id, name) = (self.next_callback, PATHS[path]);
        let event = match request {
            Request::Off => format!("/qio/off:{id}=\"{name}\""),
            Request::On => format!("/qio/on:{id}=\"{name}\""),
            Request::Watch => format!("/qio/on:{id}=[\"{name}\",null,{{\"members\":true{text}}}]"),
            Request::Read => format!("/qio/members:{id}=\"{name}\""),
            Request::Cancelled => unreachable!("it was sent before"),
            Request::Auth => format!("/qio/auth:{id}=\"{text}\""),
        };
        self.people[index].requests.insert(id, (path, request));
        self.connected(index).0.queue_event(&event);
    }

    fn send_some(&mut self, index: usize, random: &mut Random) {
        let (transport, world) = self.connected(index);
        transport.send_some(world, random);
    }

    /// The transport of a client that is connected.
    fn connected(&mut self, index: usize) -> (&mut SimTransport, &mut World) {
        (self.people[index].transport.as_mut().expect("it is connected"), &mut self.world)
    }

    /// The client is gone, with everything that it has not received.
    fn disconnect(&mut self, index: usize, random: &mut Random) {
        let person = &mut self.people[index];
        let transport = person.transport.take().expect("it is connected");
        person.requests.clear();
        person.views = vec![View::default(); PATHS.len()];
        transport.lose(&mut self.world, random);
    }

    /// Has everything handled that clients have sent, and tells all changes. A list that is made anew comes after the count.
    fn settle(&mut self) {
        self.drain();
        self.world.run_seconds(2);
        self.drain();
    }

    fn drain(&mut self) {
        let world = &mut self.world;
        for transport in self.people.iter_mut().filter_map(|person| person.transport.as_mut()) {
            transport.send_all(world);
            transport.resume_reading(world);
        }
        world.run_until_idle();
        self.app.decide_all(world);
        world.run_until_idle();
        for index in 0..self.people.len() {
            if let Some(transport) = &mut self.people[index].transport {
                transport.fetch_rest(&mut self.world);
                self.receive(index);
            }
        }
        assert_eq!(self.world.counter(Counter::MeshRefused), 0);
    }

    /// Takes the members from all rules and gives them back. Nobody watches then.
    fn change_rules(&mut self) {
        self.settle();
        for has_members in [false, true] {
            let rules = Arc::new(RuleSet::new(rules(has_members)));
            for shard in 0..self.world.shards.len() {
                self.world.send_control(shard, ControlMessage::Rules(Arc::clone(&rules)));
            }
            self.settle();
            assert_eq!(self.world.gauge(Gauge::Members) > 0, has_members && self.has_subscribers());
        }
        for person in &mut self.people {
            person.views.iter_mut().for_each(|view| view.watch = Watch::No);
        }
    }

    fn has_subscribers(&self) -> bool {
        (1..PATHS.len()).any(|path| !self.subscribers(path).is_empty())
    }

    /// Handles what a client has received.
    fn receive(&mut self, index: usize) {
        let (transport, world) = self.connected(index);
        let texts = transport.take_texts(world);
        for text in texts {
            let (name, data) = text.split_once(":0=").unwrap_or_else(|| panic!("{text} is no event"));
            if let Some(id) = name.strip_prefix("/qio/callback/") {
                self.answered(index, id.parse().unwrap(), data);
            } else if name == "/qio/members" {
                let (path, news): (String, Value) = serde_json::from_str(data).unwrap();
                self.told(index, path_number(&path), &news);
            } else {
                assert_eq!(name, "/qio/heartbeat");
            }
        }
    }

    fn answered(&mut self, index: usize, id: u64, data: &str) {
        let person = &mut self.people[index];
        let (path, request) = person.requests.remove(&id).expect("an answer to a request");
        let data: Value = serde_json::from_str(data).unwrap();
        let code = data["code"].as_u64().unwrap();
        let changes = |(_, (other, request)): (&u64, &(usize, Request))| {
            *other == path && !matches!(request, Request::Auth | Request::Read)
        };
        let waits = person.requests.iter().any(changes);
        let view = &mut person.views[path];
        match request {
            Request::Auth => assert_eq!(code, 200, "{data}"),
            Request::Read if path == PLAIN => {
                assert_eq!((code, &data["err_msg"]), (400, &"no members".into()))
            }
            Request::Read if code == 401 => assert_eq!(PATHS[path], "/later/m", "{data}"),
            Request::Read => {
                assert_eq!(code, 200, "{data}");
                assert!(data["data"]["count"].is_u64(), "{data}");
            }
            Request::Watch if path == PLAIN => {
                assert_eq!((code, &data["err_msg"]), (400, &"no members".into()));
            }
            Request::On | Request::Watch => {
                assert_eq!(code, 200, "{data}");
                if !waits {
                    view.state = ViewState::On;
                }
            }
            Request::Cancelled => {
                assert_eq!(code, 200, "{data}");
                view.state = if waits { ViewState::Changing } else { ViewState::Off };
            }
            Request::Off => {
                assert_eq!(code, 200, "{data}");
                view.state = if waits { ViewState::Changing } else { ViewState::Off };
                view.watch = Watch::No;
                for (other, request) in person.requests.values_mut() {
                    if *other == path && matches!(request, Request::On | Request::Watch) {
                        *request = Request::Cancelled;
                    }
                }
            }
        }
    }

    /// Applies news of the members of a path to what a client knows.
    fn told(&mut self, index: usize, path: usize, news: &Value) {
        let watch = &mut self.people[index].views[path].watch;
        assert_ne!(*watch, Watch::No, "client {index} does not watch {}: {news}", PATHS[path]);
        let count = usize::try_from(news["count"].as_u64().unwrap()).unwrap();
        let (join, leave) = (news["join"].as_array(), news["leave"].as_array());
        if let Some(here) = news["here"].as_array() {
            self.lists += 1;
            *watch = Watch::List(members(here));
        } else if join.is_none() && leave.is_none() {
            self.counts += 1;
            *watch = Watch::Count(count);
        } else {
            self.changes += 1;
            let Watch::List(list) = watch else { panic!("client {index} has no list: {watch:?}, {news}") };
            for id in leave.into_iter().flatten() {
                assert!(list.remove(id.as_str().unwrap()).is_some(), "{id} is not in the list: {news}");
            }
            list.extend(members(join.map_or(&[], Vec::as_slice)));
        }
        if let Watch::List(list) = watch {
            assert_eq!(list.len(), count, "client {index} at {}: {news}", PATHS[path]);
        }
    }

    /// The users of the subscribers of a path, on all shards.
    fn subscribers(&self, path: usize) -> Vec<Value> {
        let name = Path::parse(PATHS[path]).unwrap();
        let mut users = Vec::new();
        for state in self.world.states() {
            let Some(id) = state.pubsub.find(name.as_ref()) else { continue };
            let (_, subscribers) = state.pubsub.subscribers_at(id.index()).unwrap();
            for subscriber in subscribers {
                let slot = state.connections.connection_of_subscriber(subscriber.client());
                let identity = slot.and_then(|slot| state.identities.get(slot));
                users.push(identity.map_or(Value::Null, |identity| Value::from(&*identity.user)));
            }
        }
        users.sort_by_key(Value::to_string);
        users
    }

    /// What the shard that keeps the members of a path says.
    fn kept(&mut self, path: usize) -> Watch {
        let name = Path::parse(PATHS[path]).unwrap();
        let keeper = self.world.shards[0].state().shard_of_path(name.as_str());
        let text = self.world.shards[usize::from(keeper)].state_mut().presence.text(&name);
        let news: Value = serde_json::from_str(text.as_str()).unwrap();
        match news["here"].as_array() {
            Some(here) => Watch::List(members(here)),
            None => Watch::Count(news["count"].as_u64().unwrap() as usize),
        }
    }

    fn check(&mut self) {
        for (path, name) in PATHS.iter().enumerate().skip(1) {
            let (kept, subscribers) = (self.kept(path), self.subscribers(path));
            match &kept {
                Watch::Count(count) => assert_eq!(*count, subscribers.len(), "{}", name),
                Watch::List(list) => {
                    let mut users: Vec<_> = list.values().map(|(user, _)| user.clone()).collect();
                    for user in &subscribers {
                        let place = users.iter().position(|other| other == user);
                        users.swap_remove(place.unwrap_or_else(|| panic!("{user} is not in {list:?}")));
                    }
                    // Those who are left over are absent, and have users.
                    assert!(!users.contains(&Value::Null), "{list:?} for {subscribers:?}");
                    assert!(users.is_empty() || !self.config.members_linger.is_zero(), "{users:?} linger");
                }
                other => panic!("{other:?}"),
            }
            for (index, person) in self.people.iter().enumerate() {
                let view = &person.views[path];
                assert_ne!(view.state, ViewState::Changing, "client {index}: {:?}", person.requests);
                if view.watch != Watch::No {
                    assert_eq!(view.watch, kept, "client {index} at {}", name);
                }
            }
        }
        let members: usize = (1..PATHS.len()).map(|path| self.subscribers(path).len()).sum();
        assert_eq!(self.world.gauge(Gauge::Members), members as u64);
    }

    /// Waits for longer than absent members stay. Nobody is left but the subscribers.
    fn check_absent(&mut self) {
        let ended = self.world.counter(Counter::Unsubscribes);
        self.world.run_seconds(7);
        self.settle();
        self.check();
        if self.world.counter(Counter::Unsubscribes) != ended {
            return;
        }
        for (path, name) in PATHS.iter().enumerate().skip(1) {
            if let Watch::List(list) = self.kept(path) {
                assert_eq!(list.len(), self.subscribers(path).len(), "{}: {list:?}", name);
            }
        }
    }

    fn finish(mut self) {
        for transport in self.people.iter_mut().filter_map(|person| person.transport.as_mut()) {
            transport.close(&mut self.world);
        }
        self.world.run_until_idle();
        self.world.run_seconds(85);
        self.world.assert_empty();
        for gauge in [Gauge::Members, Gauge::MembersPaths, Gauge::MembersBytes] {
            assert_eq!(self.world.gauge(gauge), 0);
        }
    }
}

fn members(list: &[Value]) -> Members {
    let member =
        |member: &Value| (member[0].as_str().unwrap().to_owned(), (member[1].clone(), member[2].clone()));
    let members: Members = list.iter().map(member).collect();
    assert_eq!(members.len(), list.len(), "ids differ: {list:?}");
    members
}

fn path_number(name: &str) -> usize {
    PATHS.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{name} is not one of PATHS"))
}
