use super::super::testing::{Peer, World};
use crate::api::{
    ApiAction, ApiMessage, ApiQuestion, ApiReply, ApiTarget, ApiTotals, ApiWork, Batch, ByteBudget,
    ClientEntry, EventList,
};
use crate::app::relay::Relay;
use crate::app::{Application, Error, Json, Registrar};
use crate::client::ClientId;
use crate::config::Config;
use crate::event::path::{Path, PathRef};
use crate::history::HistoryBounds;
use crate::identity::Identity;
use crate::limits::{API_DELIVERIES_PER_TURN_MAX, API_EVENTS_PER_TURN_MAX};
use crate::metrics::{Counter, Gauge, RuleGauge};
use crate::rules::Rule;
use futures_channel::mpsc;
use std::sync::Arc;

fn world(shards: usize, config: Config) -> World {
    World::with_config(shards, config, vec![Arc::new(Relay)])
}

/// The batch of a shard that begins all of these broadcasts.
fn batch(events: impl IntoIterator<Item = (&'static str, String)>) -> Batch {
    let mut list = EventList::default();
    for (path, data) in events {
        list.push(PathRef::exact(path).expect("the path is clean"), &data);
    }
    let batches = list.into_batches(ByteBudget::new(0).charge(), 1, |_| 0);
    batches.into_iter().next().expect("there is an event").1
}

fn subscriber(world: &mut World, shard: usize, path: &str) -> Peer {
    let peer = world.connect_raw(shard);
    world.send_event(peer, &format!("/qio/on:1=\"{path}\""));
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(peer), [r#"/qio/callback/1:0={"code":200,"data":null}"#]);
    peer
}

#[test]
fn a_batch_reaches_subscribers_on_all_shards_in_order() {
    let mut world = world(2, Config::default());
    let here = subscriber(&mut world, 0, "/relay/a");
    let there = subscriber(&mut world, 1, "/relay/a");
    let other = subscriber(&mut world, 1, "/relay/b");
    let events = [("/relay/a", "1"), ("/relay/b", ""), ("/relay/c", "3"), ("/relay/a", "{\"x\": 4}")];
    let events = events.map(|(path, data)| (path, data.to_owned()));
    world.post_api(0, ApiMessage::Broadcast(batch(events)));
    world.run_until_idle();
    let of_a = ["/relay/a:0=1", "/relay/a:0={\"x\": 4}"];
    assert_eq!(world.take_raw_messages(here), of_a);
    assert_eq!(world.take_raw_messages(there), of_a);
    assert_eq!(world.take_raw_messages(other), ["/relay/b:0=null"]);
    let broadcasts = world.states().map(|state| state.metrics.counters.get(Counter::Broadcasts));
    assert_eq!(broadcasts.sum::<u64>(), 4);
}

#[test]
fn a_long_batch_takes_several_turns() {
    let mut world = world(1, Config::default());
    let peer = subscriber(&mut world, 0, "/relay/a");
    let events = API_EVENTS_PER_TURN_MAX + 2;
    let numbers = || (0..events).map(|number| number.to_string());
    world.post_api(0, ApiMessage::Broadcast(batch(numbers().map(|number| ("/relay/a", number)))));
    world.post_api(0, ApiMessage::Broadcast(batch([("/relay/a", "\"last\"".to_owned())])));
    world.turn(0);
    let done = world.states().map(|state| state.metrics.counters.get(Counter::Broadcasts)).sum::<u64>();
    assert_eq!(done, API_EVENTS_PER_TURN_MAX as u64);
    world.run_until_idle();
    let mut expected: Vec<String> = numbers().map(|number| format!("/relay/a:0={number}")).collect();
    expected.push("/relay/a:0=\"last\"".into());
    assert_eq!(world.take_raw_messages(peer), expected);
}

#[test]
fn deliveries_are_bounded_in_a_turn() {
    const CLIENTS: usize = 64;
    let mut world = world(1, Config::default());
    for _ in 0..CLIENTS {
        subscriber(&mut world, 0, "/relay/a");
    }
    let events = API_DELIVERIES_PER_TURN_MAX / CLIENTS + 3;
    world.post_api(0, ApiMessage::Broadcast(batch((0..events).map(|_| ("/relay/a", "1".to_owned())))));
    world.turn(0);
    let deliveries = |world: &World| {
        world.states().map(|state| state.metrics.counters.get(Counter::BroadcastDeliveries)).sum::<u64>()
    };
    assert_eq!(deliveries(&world), API_DELIVERIES_PER_TURN_MAX as u64);
    world.run_until_idle();
    assert_eq!(deliveries(&world), (events * CLIENTS) as u64);
}

/// Nothing is lost while another shard is behind: the batch waits, and so do the messages behind it.
#[track_caller]
fn a_batch_waits(config: Config) {
    let config = Config { mesh_ring_messages: 8, mesh_overflow_bytes_max: 64 * 1024, ..config };
    let mut world = world(2, config);
    let begins = usize::from(world.shards[0].state().shard_of_path("/relay/a"));
    let other = 1 - begins;
    let peer = subscriber(&mut world, other, "/relay/a");
    let data = format!("\"{}\"", "x".repeat(1000));
    const EVENTS: usize = 300;
    world.post_api(begins, ApiMessage::Broadcast(batch((0..EVENTS).map(|_| ("/relay/a", data.clone())))));
    world.post_api(begins, ApiMessage::Broadcast(batch([("/relay/a", "1".to_owned())])));
    for _ in 0..10 {
        world.turn(begins);
    }
    let state = world.shards[begins].state();
    let begun = state.metrics.counters.get(Counter::Broadcasts);
    assert!(begun < 100, "{begun} were begun while the other shard did nothing");
    let mut messages = Vec::new();
    for _ in 0..10_000 {
        world.turn(begins);
        world.turn(other);
        messages.append(&mut world.take_raw_messages(peer));
        if messages.len() > EVENTS {
            break;
        }
    }
    assert_eq!(messages.len(), EVENTS + 1);
    assert_eq!(messages.last().map(String::as_str), Some("/relay/a:0=1"));
    let refused = world.states().map(|state| state.metrics.counters.get(Counter::MeshRefused));
    assert_eq!(refused.sum::<u64>(), 0);
}

#[test]
fn a_batch_waits_for_other_shards() {
    a_batch_waits(Config::default());
}

#[test]
fn a_batch_of_numbered_events_waits_for_other_shards() {
    a_batch_waits(keeping());
}

/// Settings with a rule that keeps the events of `/relay/*`.
fn keeping() -> Config {
    let rule = Rule {
        history: Some(HistoryBounds { events: 1000, age_s: None }),
        ..Rule::open("/relay/*".parse().unwrap())
    };
    Config { rules: vec![rule], ..Config::default() }
}

/// Asks a shard for events of a path; returns the position of the answer to a back end, and the rest of it.
fn events(
    world: &mut World,
    shard: usize,
    text: &str,
    before: Option<&str>,
    limit: usize,
) -> (String, String) {
    let before = before.map(|before| before.parse().unwrap());
    match ask(world, shard, ApiWork::Events { path: path(text), before, limit }) {
        ApiReply::Events(Some(page)) => {
            let json = page.to_json();
            (page.at.to_string(), json[json.find("\"events\"").unwrap()..].to_owned())
        }
        other => panic!("another reply: {other:?}"),
    }
}

#[test]
fn events_are_kept_although_nobody_is_subscribed() {
    let mut world = world(2, keeping());
    let shard = usize::from(world.shards[0].state().shard_of_path("/relay/a"));
    let numbers = (1..=5).map(|number| ("/relay/a", number.to_string()));
    world.post_api(shard, ApiMessage::Broadcast(batch(numbers)));
    let (at, last) = events(&mut world, shard, "/relay/a", None, 2);
    assert!(at.ends_with(".5"), "{at}");
    assert_eq!(last, r#""events":[[4,4],[5,5]]}"#);
    let before = at.replace(".5", ".4");
    let earlier = events(&mut world, shard, "/relay/a", Some(&before), 100);
    assert_eq!(earlier, (at, r#""events":[[1,1],[2,2],[3,3]]}"#.into()));
    assert_eq!(events(&mut world, shard, "/relay/a", Some("x.4"), 100).1, r#""events":[]}"#);
    let work = ApiWork::Events { path: path("/other"), before: None, limit: 9 };
    assert!(matches!(ask(&mut world, shard, work), ApiReply::Events(None)));
    let broadcasts = world.states().map(|state| state.metrics.counters.get(Counter::Broadcasts));
    assert_eq!(broadcasts.sum::<u64>(), 5);
    let kept = world.states().map(|state| state.snapshot().rules[0].gauge(RuleGauge::HistoryEvents));
    assert_eq!(kept.collect::<Vec<_>>(), if shard == 0 { [5, 0] } else { [0, 5] });
    let bytes = world.states().map(|state| state.snapshot().rules[0].gauge(RuleGauge::HistoryBytes));
    assert_eq!(bytes.sum::<u64>(), world.gauge(Gauge::HistoryBytes));
}

/// An application that permits no subscription to `/closed`.
struct Closed;

impl Application for Closed {
    fn name(&self) -> &str {
        "closed"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        registrar.event("/closed").no_subscriptions().register()
    }
}

/// Asks a shard, and returns its reply.
fn ask(world: &mut World, shard: usize, work: ApiWork) -> ApiReply {
    let (reply, mut replies) = mpsc::channel(0);
    world.post_api(shard, ApiMessage::Ask(Box::new(ApiQuestion { work, reply })));
    world.run_until_idle();
    let (from, reply) = replies.try_recv().expect("the shard has replied");
    assert_eq!(usize::from(from), shard);
    reply
}

/// Does something on a shard; returns the numbers of clients and of refusals.
fn act(world: &mut World, shard: usize, target: ApiTarget, action: ApiAction) -> (usize, usize) {
    match ask(world, shard, ApiWork::Act { target, action }) {
        ApiReply::Done { clients, refused } => (clients, refused),
        other => panic!("another reply: {other:?}"),
    }
}

/// Makes the client in a slot of a shard one of a user. The slots of clients and connections are the same here.
fn authenticate(world: &mut World, shard: usize, slot: u32, user: &str) {
    let identity = Identity {
        user: user.into(),
        expires: None,
        claims: "{}".into(),
        on: [].into(),
        send: [].into(),
        info: None,
    };
    world.shards[shard].state_mut().identities.set(slot, Arc::new(identity));
}

fn clients(
    world: &mut World,
    shard: usize,
    user: Option<&str>,
    from: u32,
    max: usize,
) -> (Vec<ClientEntry>, Option<u32>) {
    match ask(world, shard, ApiWork::Clients { user: user.map(Into::into), from, max }) {
        ApiReply::Clients { clients, next } => (clients, next),
        other => panic!("another reply: {other:?}"),
    }
}

fn path(text: &str) -> Path {
    Path::parse(text).expect("it is a path")
}

#[test]
fn a_user_and_a_client_are_reached() {
    let mut world = World::with_config(1, Config::default(), vec![Arc::new(Relay), Arc::new(Closed)]);
    let peers = [world.connect_raw(0), world.connect_websocket(0), world.connect_raw(0)];
    let (listed, next) = clients(&mut world, 0, None, 0, 10);
    assert_eq!((listed.len(), next), (3, None));
    assert_eq!(listed.iter().map(|entry| entry.transport).collect::<Vec<_>>(), ["raw", "websocket", "raw"]);
    let ids: Vec<ClientId> = listed.iter().map(|entry| entry.client).collect();
    ids[..2].iter().for_each(|id| authenticate(&mut world, 0, id.slot, "ada"));
    let ada = || ApiTarget::User("ada".into());
    let send = |data| ApiAction::Send { path: path("/note"), data: Json::trusted(data) };
    assert_eq!(act(&mut world, 0, ada(), send("1")), (2, 0));
    assert_eq!(act(&mut world, 0, ApiTarget::Client(ids[2]), send("2")), (1, 0));
    assert_eq!(act(&mut world, 0, ApiTarget::User("bob".into()), send("3")), (0, 0));
    let gone = ClientId { generation: ids[2].generation + 1, ..ids[2] };
    assert_eq!(act(&mut world, 0, ApiTarget::Client(gone), send("4")), (0, 0));
    assert_eq!(world.take_raw_messages(peers[0]), ["/note:0=1"]);
    assert_eq!(world.take_websocket_messages(peers[1]), ["/note:0=1"]);
    assert_eq!(world.take_raw_messages(peers[2]), ["/note:0=2"]);
    let (listed, _) = clients(&mut world, 0, Some("ada"), 0, 10);
    assert_eq!(listed.iter().map(|entry| entry.client).collect::<Vec<_>>(), ids[..2]);
    assert!(listed.iter().all(|entry| entry.user.as_deref() == Some("ada")));

    // Subscriptions, without a message to the client about them.
    let on = |text| ApiAction::On { path: path(text) };
    assert_eq!(act(&mut world, 0, ada(), on("/relay/a")), (2, 0));
    assert_eq!(act(&mut world, 0, ada(), on("/relay/a")), (2, 0), "they are subscribed already");
    assert_eq!(act(&mut world, 0, ada(), on("/closed")), (2, 2));
    assert_eq!(act(&mut world, 0, ada(), on("/nothing")), (2, 2));
    world.post_api(0, ApiMessage::Broadcast(batch([("/relay/a", "5".to_owned())])));
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(peers[0]), ["/relay/a:0=5"]);
    assert_eq!(act(&mut world, 0, ada(), ApiAction::Off { path: path("/relay/a") }), (2, 0));
    let ApiReply::Totals(totals) = ask(&mut world, 0, ApiWork::Totals) else { panic!("another reply") };
    assert_eq!(totals, ApiTotals { clients: 3, identified: 2, subscriptions: 0 });
}

/// A user may have very many connections, such as one whose token all visitors share.
#[test]
fn many_connections_of_a_user_take_several_turns() {
    const CLIENTS: usize = 40;
    let mut world = world(1, Config::default());
    let peers: Vec<Peer> = (0..CLIENTS).map(|_| world.connect_raw(0)).collect();
    let ids = clients(&mut world, 0, None, 0, CLIENTS).0;
    ids.iter().for_each(|entry| authenticate(&mut world, 0, entry.client.slot, "guest"));
    // The broadcasts and the question leave ten events of the share of a turn.
    let events = (0..API_EVENTS_PER_TURN_MAX - 11).map(|_| ("/relay/a", "1".to_owned()));
    world.post_api(0, ApiMessage::Broadcast(batch(events)));
    let (reply, mut replies) = mpsc::channel(1);
    let target = ApiTarget::User("guest".into());
    let action = ApiAction::Send { path: path("/note"), data: Json::trusted("1") };
    let work = ApiWork::Act { target, action };
    world.post_api(0, ApiMessage::Ask(Box::new(ApiQuestion { work, reply })));
    let sent = |world: &World| {
        world.states().map(|state| state.metrics.counters.get(Counter::MessagesSent)).sum::<u64>()
    };
    let before = sent(&world);
    world.turn(0);
    assert_eq!(sent(&world) - before, 10);
    world.run_until_idle();
    for peer in &peers {
        assert_eq!(world.take_raw_messages(*peer), ["/note:0=1"]);
    }
    let (_, done) = replies.try_recv().expect("the shard has replied");
    assert!(matches!(done, ApiReply::Done { clients, refused: 0 } if clients == CLIENTS), "{done:?}");
    // The pages have all of them, each once, in order.
    let (mut from, mut listed) = (Some(0), Vec::new());
    while let Some(at) = from {
        let (page, next) = clients(&mut world, 0, Some("guest"), at, 7);
        listed.extend(page.iter().map(|entry| entry.client));
        from = next;
    }
    assert!(listed.iter().eq(ids.iter().map(|entry| &entry.client)), "{listed:?}");
}

#[test]
fn a_client_is_closed_with_a_reason() {
    let mut world = World::with_config(1, Config::default(), vec![Arc::new(Relay)]);
    let (websocket, raw) = (world.connect_websocket(0), world.connect_raw(0));
    let ids: Vec<ClientId> = clients(&mut world, 0, None, 0, 10).0.iter().map(|entry| entry.client).collect();
    for id in ids {
        let close = ApiAction::Close { reason: Some("you were banned".into()) };
        assert_eq!(act(&mut world, 0, ApiTarget::Client(id), close), (1, 0));
    }
    let frame = [&[0x88, 17, 0x03, 0xe8][..], b"you were banned"].concat();
    assert_eq!(world.take_bytes(websocket), frame);
    assert!(world.is_stream_ended(raw));
}

#[test]
fn lists_go_on_where_they_have_ended() {
    let mut world = world(2, Config::default());
    for number in 0..5 {
        subscriber(&mut world, usize::from(number % 2 == 0), &format!("/relay/{number}"));
    }
    subscriber(&mut world, 0, "/relay/4");
    let list = |world: &mut World, shard, prefix: &str, from, max| match ask(
        world,
        shard,
        ApiWork::Paths { prefix: prefix.into(), from, max },
    ) {
        ApiReply::Paths { paths, next } => {
            let rows = paths.into_iter().map(|row| (row.path.to_string(), row.subscribers));
            (rows.collect::<Vec<_>>(), next)
        }
        other => panic!("another reply: {other:?}"),
    };
    // Each path is reported by the first shard that has subscribers.
    let mut of_zero = list(&mut world, 0, "", 0, 10).0;
    of_zero.sort();
    assert_eq!(of_zero, [1, 3, 4].map(|number| (format!("/relay/{number}"), 1)));
    let (first, next) = list(&mut world, 1, "/relay/", 0, 1);
    let (second, end) = list(&mut world, 1, "/relay/", next.expect("there is more"), 1);
    assert_eq!([first, second].concat(), [0, 2].map(|number| (format!("/relay/{number}"), 1)));
    assert_eq!(end.and_then(|from| list(&mut world, 1, "/relay/", from, 1).0.pop()), None);
    assert_eq!(list(&mut world, 1, "/relay/2", 0, 10).0, [("/relay/2".to_owned(), 1)]);
    let counts = ask(&mut world, 1, ApiWork::Counts([path("/relay/4"), path("/relay/1")].into()));
    assert!(matches!(counts, ApiReply::Counts(counts) if counts == [1, 0]));
    let (first, next) = clients(&mut world, 0, None, 0, 2);
    let (second, end) = clients(&mut world, 0, None, next.expect("there is more"), 2);
    assert_eq!((first.len(), second.len(), end), (2, 1, None));
}
