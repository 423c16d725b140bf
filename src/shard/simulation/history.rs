//! Random clients of paths with history, which disconnect and come back with their positions, compared with a model.
//!
//! The model does not know in which order the shards number the events of different senders. It collects the number of each
//! event from all clients, and all of them must agree: on each number of each epoch, for each path. Of each client it knows the
//! position, and accepts nothing but the next event, or the news that events were lost. At the end of a phase, everybody who
//! is subscribed has received all events, and the events of one sender have ascending numbers.

use super::app::SimApp;
use super::transport::SimTransport;
use crate::app::Application;
use crate::config::Config;
use crate::event::path::Path;
use crate::history::{HistoryBounds, Position, ReplayFrom};
use crate::metrics::{Counter, RuleCounter};
use crate::protocol::testing::{Random, fuzz};
use crate::rules::Rule;
use crate::shard::testing::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The paths. Subscriptions to the last one are decided late, and the first one has no history.
const PATHS: [&str; 4] = ["/now/plain", "/now/h/a", "/now/h/b", "/later/h"];

/// The number of a path that a subscription with options is refused for.
const PLAIN: usize = 0;

/// A client. It survives its connections, as an application on a phone does.
struct Phone {
    transport: Option<SimTransport>,
    views: Vec<View>,
    /// The requests that wait for an answer: their callbacks, paths and kinds.
    requests: BTreeMap<u64, (usize, Request)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Request {
    /// With what the client has asked for.
    On(Wish),
    Off,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Wish {
    Live,
    Last(u32),
    Since(Position),
}

/// What a client knows of a path.
#[derive(Clone, Default)]
struct View {
    state: ViewState,
    /// The position behind the last event that the client has got, or `None` if it was told that it does not know it.
    at: Option<Position>,
}

#[derive(Clone, Copy, PartialEq, Default, Debug)]
enum ViewState {
    #[default]
    Off,
    /// A request waits for its answer.
    Changing,
    /// Subscribed without options.
    Live,
    /// Subscribed with positions.
    Numbered,
}

impl View {
    /// Returns whether the client may get events with numbers: it is subscribed, or is about to unsubscribe.
    fn is_numbered(&self) -> bool {
        matches!(self.state, ViewState::Numbered | ViewState::Changing)
    }
}

struct Model {
    world: World,
    phones: Vec<Phone>,
    app: SimApp,
    /// The data of each event, by path, epoch and number.
    events: BTreeMap<(usize, String, u64), String>,
    /// The numbers of events, by path and data.
    numbers: BTreeMap<(usize, String), (String, u64)>,
    /// The events that plain subscribers got before their numbers were known: the phone, the path, the data in order.
    unnumbered: Vec<(usize, usize, Vec<String>)>,
    next_callback: u64,
    next_event: u64,
    /// One in so many events is long.
    long_once_in: usize,
    complete: u64,
    incomplete: u64,
}

fn config(random: &mut Random) -> Config {
    let rule = |path: &str, history| Rule { history, ..Rule::open(path.parse().unwrap()) };
    let events = 1 + random.below(30) as u32;
    let age_s = random.once_in(3).then_some(60);
    Config {
        mesh_ring_messages: 8,
        sends_per_turn_max: 2,
        http_idle_timeout: Duration::from_secs(16 * 60),
        // The model knows nothing of clients that are disconnected because they do not read.
        outbox_bytes_max: 256 << 20,
        history_bytes_max: if random.once_in(3) { 3000 } else { 2 << 20 },
        rules: vec![
            rule("/now/h/*", Some(HistoryBounds { events, age_s })),
            rule("/later/*", Some(HistoryBounds { events: 5, age_s: None })),
        ],
        ..Config::default()
    }
}

#[test]
fn clients_that_come_back_get_what_they_missed_or_are_told() {
    fuzz(|random| {
        let shards = 1 + random.below(4);
        let config = config(random);
        let mut model = Model::new(shards, config.clone());
        for _ in 0..1 + random.below(8) {
            model.run_phase(random);
            if random.once_in(8) {
                model.restart(shards, config.clone());
            }
        }
        model.finish();
    });
}

/// The runs of this test must do what they are for.
#[test]
fn random_clients_recover_in_both_ways() {
    let (mut complete, mut incomplete) = (0, 0);
    for seed in 0..25 {
        let mut random = Random::new(seed);
        let config = config(&mut random);
        let mut model = Model::new(3, config);
        (0..4).for_each(|_| model.run_phase(&mut random));
        (complete, incomplete) = (complete + model.complete, incomplete + model.incomplete);
        model.finish();
    }
    assert!(complete > 20 && incomplete > 20, "{complete}, {incomplete}");
}

impl Model {
    fn new(shards: usize, config: Config) -> Model {
        let app = SimApp::default();
        let apps: Vec<Arc<dyn Application>> = vec![Arc::new(app.clone())];
        Model {
            world: World::with_config(shards, config, apps),
            phones: Vec::new(),
            app,
            events: BTreeMap::new(),
            numbers: BTreeMap::new(),
            unnumbered: Vec::new(),
            next_callback: 0,
            next_event: 0,
            long_once_in: 20,
            complete: 0,
            incomplete: 0,
        }
    }

    /// Replaces the server: everybody has lost the connection, and all events are lost.
    fn restart(&mut self, shards: usize, config: Config) {
        let phones = std::mem::take(&mut self.phones);
        let before = std::mem::replace(self, Model::new(shards, config));
        (self.events, self.numbers) = (before.events, before.numbers);
        (self.next_callback, self.next_event) = (before.next_callback, before.next_event);
        self.phones = phones;
        for phone in &mut self.phones {
            phone.transport = None;
            phone.lose_connection();
        }
    }

    fn run_phase(&mut self, random: &mut Random) {
        self.long_once_in = if random.once_in(4) { 2 } else { 100 };
        if self.phones.is_empty() || random.once_in(2) {
            let views = vec![View::default(); PATHS.len()];
            self.phones.push(Phone { transport: None, views, requests: BTreeMap::new() });
        }
        if random.once_in(2) {
            self.world.advance(Duration::from_millis(random.next() % 20_000));
        }
        for _ in 0..random.below(400) {
            self.random_step(random);
        }
        self.drain();
        self.check_all_have_everything();
    }

    fn random_step(&mut self, random: &mut Random) {
        let shard = random.below(self.world.shards.len());
        match random.below(10) {
            0..=2 => return self.world.turn(shard),
            3 => return self.app.decide_one(random),
            _ => {}
        }
        let index = random.below(self.phones.len());
        if self.phones[index].transport.is_none() {
            return self.connect(index, random);
        }
        let path = random.below(PATHS.len());
        match random.below(40) {
            0..=9 => self.change(index, path, random),
            10..=22 => self.broadcast(index, path, random),
            23..=34 => self.send_some(index, random),
            // The responses to polls may come in another order: they are read at the end of the phase.
            35 | 36 if self.connected(index).0.is_http() => {}
            35 | 36 => self.receive(index),
            37 | 38 => {
                let (transport, world) = self.connected(index);
                transport.toggle_reading(world, random);
            }
            _ => self.disconnect(index, random),
        }
    }

    fn connect(&mut self, index: usize, random: &mut Random) {
        let Some(transport) = SimTransport::connect_ordered(&mut self.world, random) else { return };
        self.phones[index].transport = Some(transport);
    }

    /// Subscribes or unsubscribes a client, unless an answer is awaited.
    fn change(&mut self, index: usize, path: usize, random: &mut Random) {
        let view = &mut self.phones[index].views[path];
        let request = match view.state {
            ViewState::Changing => return,
            ViewState::Live | ViewState::Numbered => Request::Off,
            ViewState::Off => Request::On(match (view.at, random.below(4)) {
                (_, 0) => Wish::Live,
                (Some(at), 1 | 2) => Wish::Since(at),
                _ => Wish::Last(random.below(8) as u32),
            }),
        };
        view.state = ViewState::Changing;
        self.ask(index, path, request);
        // Without waiting for the answer, a client may change its mind.
        if random.once_in(6) && request != Request::Off {
            self.ask(index, path, Request::Off);
        }
    }

    fn ask(&mut self, index: usize, path: usize, request: Request) {
        self.next_callback += 1;
        let (id, name) = (self.next_callback, PATHS[path]);
        let text = match request {
            Request::Off => format!("/qio/off:{id}=\"{name}\""),
            Request::On(Wish::Live) => format!("/qio/on:{id}=\"{name}\""),
            Request::On(Wish::Last(last)) => format!("/qio/on:{id}=[\"{name}\",null,{{\"history\":{last}}}]"),
            Request::On(Wish::Since(at)) => format!("/qio/on:{id}=[\"{name}\",1,{{\"since\":\"{at}\"}}]"),
        };
        self.phones[index].requests.insert(id, (path, request));
        self.connected(index).0.queue_event(&text);
    }

    fn broadcast(&mut self, index: usize, path: usize, random: &mut Random) {
        self.next_event += 1;
        // Some are so long that a replay takes several pieces.
        let is_http = self.connected(index).0.is_http();
        let len = if !is_http && random.once_in(self.long_once_in) {
            random.below(40_000)
        } else {
            random.below(20)
        };
        let data = format!("\"{index}.{}.{}\"", self.next_event, "x".repeat(len));
        self.connected(index).0.queue_event(&format!("{}:0={data}", PATHS[path]));
    }

    fn send_some(&mut self, index: usize, random: &mut Random) {
        let (transport, world) = self.connected(index);
        transport.send_some(world, random);
    }

    /// The transport of a client that is connected.
    fn connected(&mut self, index: usize) -> (&mut SimTransport, &mut World) {
        (self.phones[index].transport.as_mut().expect("it is connected"), &mut self.world)
    }

    /// The client is gone, with everything that it has not received.
    fn disconnect(&mut self, index: usize, random: &mut Random) {
        let phone = &mut self.phones[index];
        let transport = phone.transport.take().expect("it is connected");
        phone.lose_connection();
        transport.lose(&mut self.world, random);
    }

    fn drain(&mut self) {
        let world = &mut self.world;
        for transport in self.phones.iter_mut().filter_map(|phone| phone.transport.as_mut()) {
            transport.send_all(world);
            transport.resume_reading(world);
        }
        world.run_until_idle();
        self.app.decide_all(world);
        world.run_until_idle();
        for index in 0..self.phones.len() {
            if let Some(transport) = &mut self.phones[index].transport {
                transport.fetch_rest(&mut self.world);
                self.receive(index);
            }
        }
        assert_eq!(self.world.counter(Counter::MeshRefused), 0);
    }

    /// Handles what a client has received.
    fn receive(&mut self, index: usize) {
        let (transport, world) = self.connected(index);
        let texts = transport.take_texts(world);
        for text in texts {
            self.received(index, &text);
        }
    }

    fn received(&mut self, index: usize, text: &str) {
        let (name, data) = text.split_once(":0=").unwrap_or_else(|| panic!("{text} is no event"));
        if name == "/qio/heartbeat" {
            return;
        }
        if let Some(id) = name.strip_prefix("/qio/callback/") {
            return self.answered(index, id.parse().unwrap(), data);
        }
        if let Some(rest) = name.strip_prefix("/qio/at/") {
            let slash = rest.find('/').unwrap();
            let number = rest[..slash].parse().unwrap();
            return self.numbered(index, path_number(&rest[slash..]), number, data);
        }
        if name == "/qio/at" {
            let (path, at): (String, String) = serde_json::from_str(data).unwrap();
            let view = &mut self.phones[index].views[path_number(&path)];
            assert!(view.is_numbered(), "{text}");
            view.at = Some(at.parse().unwrap());
            return;
        }
        if name == "/qio/lost" {
            let (path, lost): (String, Option<u64>) = serde_json::from_str(data).unwrap();
            let view = &mut self.phones[index].views[path_number(&path)];
            assert!(view.is_numbered() && lost != Some(0), "{text}");
            view.at = view.at.zip(lost).map(|(at, lost)| Position { number: at.number + lost, ..at });
            return;
        }
        self.plain(index, path_number(name), data);
    }

    fn answered(&mut self, index: usize, id: u64, data: &str) {
        let phone = &mut self.phones[index];
        let (path, request) = phone.requests.remove(&id).expect("an answer to a request");
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        let code = data["code"].as_u64().unwrap();
        let waits = phone.requests.values().any(|(other, _)| *other == path);
        let view = &mut phone.views[path];
        match request {
            Request::Off => {
                assert_eq!(code, 200);
                view.state = if waits { ViewState::Changing } else { ViewState::Off };
            }
            Request::On(Wish::Live) => {
                assert_eq!(code, 200);
                // A second request may have ended the subscription before it began.
                if view.state == ViewState::Changing {
                    view.state = ViewState::Live;
                }
            }
            Request::On(_) if path == PLAIN => {
                assert_eq!((code, data["err_msg"].as_str()), (400, Some("no history")));
                view.state = if waits { ViewState::Changing } else { ViewState::Off };
            }
            Request::On(_) if data["data"].is_null() => {
                // The client has unsubscribed before it was subscribed.
                assert_eq!(code, 200, "{data}");
                if !waits {
                    view.state = ViewState::Off;
                }
            }
            Request::On(wish) => {
                assert_eq!(code, 200, "{data}");
                let at: Position = data["data"]["at"].as_str().unwrap().parse().unwrap();
                let events = data["data"]["events"].as_u64().unwrap();
                let is_complete = data["data"]["complete"].as_bool().unwrap();
                let begin = Position { number: at.number - events, ..at };
                match wish {
                    Wish::Since(since) if is_complete => {
                        assert_eq!(since, begin, "{data}");
                        self.complete += 1;
                    }
                    Wish::Since(_) => {
                        assert_eq!(events, 0, "{data}");
                        self.incomplete += 1;
                    }
                    Wish::Last(last) => assert!(events <= u64::from(last), "{data}"),
                    Wish::Live => unreachable!("it has no options"),
                }
                (view.state, view.at) = (ViewState::Numbered, Some(begin));
            }
        }
    }

    fn numbered(&mut self, index: usize, path: usize, number: u64, data: &str) {
        let view = &mut self.phones[index].views[path];
        assert!(view.is_numbered(), "{} of {number} in {:?}", PATHS[path], view.state);
        let at =
            view.at.unwrap_or_else(|| panic!("client {index} does not know the epoch of {}", PATHS[path]));
        assert_eq!(number, at.number + 1, "client {index} at {}", PATHS[path]);
        view.at = Some(Position { number, ..at });
        let epoch = at.epoch.to_string();
        let known = self.events.entry((path, epoch.clone(), number)).or_insert_with(|| data.to_owned());
        assert_eq!(known, data, "all clients agree on event {number} of {}", PATHS[path]);
        let known = self.numbers.entry((path, data.to_owned())).or_insert_with(|| (epoch.clone(), number));
        assert_eq!(*known, (epoch, number), "an event has one number");
    }

    fn plain(&mut self, index: usize, path: usize, data: &str) {
        let view = &self.phones[index].views[path];
        assert!(matches!(view.state, ViewState::Live | ViewState::Changing), "{:?}", view.state);
        if path == PLAIN {
            return;
        }
        match self.unnumbered.last_mut() {
            Some((phone, last, events)) if (*phone, *last) == (index, path) => events.push(data.to_owned()),
            _ => self.unnumbered.push((index, path, vec![data.to_owned()])),
        }
    }

    fn check_all_have_everything(&mut self) {
        let world = &mut self.world;
        for (path, name) in PATHS.iter().enumerate().skip(1) {
            let name = Path::parse(name).unwrap();
            let numbers = world.shards[0].state().shard_of_path(name.as_str());
            let state = world.shards[usize::from(numbers)].state_mut();
            let (rule, now_s) = (state.history_rule(name.as_ref()).unwrap(), state.now_s());
            let from = ReplayFrom { since: None, last: Some(0) };
            let at = state.replays.store.replay(rule, name.as_ref(), from, now_s).at;
            for (index, phone) in self.phones.iter().enumerate() {
                let view = &phone.views[path];
                assert_ne!(view.state, ViewState::Changing, "client {index}: {:?}", phone.requests);
                // An epoch that has ended without a new event has no position to compare.
                if view.state == ViewState::Numbered && at.number > 0 {
                    assert_eq!(view.at, Some(at), "client {index} at {}", PATHS[path]);
                }
            }
        }
        // Those who got no numbers got the events in the same order.
        for (index, path, events) in self.unnumbered.drain(..) {
            let numbers: Vec<_> = events.iter().map(|data| self.numbers.get(&(path, data.clone()))).collect();
            for pair in numbers.windows(2) {
                let [Some((epoch, one)), Some((same, other))] = pair else { continue };
                assert!(epoch != same || one < other, "client {index} at {}", PATHS[path]);
            }
        }
        // The events of a sender are in order.
        let mut last: BTreeMap<(usize, &str, &str), u64> = BTreeMap::new();
        for ((path, epoch, _), data) in &self.events {
            let (sender, rest) = data.trim_matches('"').split_once('.').unwrap();
            let number = rest.split('.').next().unwrap().parse().unwrap();
            let before = last.insert((*path, epoch, sender), number).unwrap_or(0);
            assert!(before < number, "events of client {sender} at {}", PATHS[*path]);
        }
        assert!(world.states().all(|state| state.recoveries.len() == 0));
    }

    fn finish(mut self) {
        let of_rules = |state: &crate::shard::state::State, counter| -> u64 {
            state.metrics.rules.iter().map(|rule| rule.get(counter)).sum()
        };
        let counted: u64 =
            self.world.states().map(|state| of_rules(state, RuleCounter::RecoveriesComplete)).sum();
        assert!(counted >= self.complete, "{counted} complete recoveries were counted");
        for transport in self.phones.iter_mut().filter_map(|phone| phone.transport.as_mut()) {
            transport.close(&mut self.world);
        }
        self.world.run_until_idle();
        self.world.run_seconds(75);
        self.world.assert_empty();
    }
}

impl Phone {
    fn lose_connection(&mut self) {
        self.requests.clear();
        for view in &mut self.views {
            view.state = ViewState::Off;
        }
    }
}

fn path_number(name: &str) -> usize {
    PATHS.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{name} is not one of PATHS"))
}
