//! Tests of the answers to operators, on the simulated kernel.

use crate::app::clienttest::ClientTest;
use crate::app::relay::Relay;
use crate::client::ClientId;
use crate::config::Config;
use crate::event::path::Path;
use crate::inspect::{BusyPath, ClientDetails, Inspection, SlowestClients};
use crate::limits::{CLIENT_PATHS_LISTED_MAX, CLIENTS_LISTED_MAX};
use crate::metrics::Gauge;
use crate::shard::ControlMessage;
use crate::shard::testing::{Peer, World};
use futures_channel::mpsc;
use std::sync::Arc;
use std::time::Duration;

fn world(shards: usize) -> World {
    World::new(shards, vec![Arc::new(Relay), Arc::new(ClientTest::default())])
}

/// Asks a shard, and returns its answer, which it gives in one turn.
fn ask<T>(world: &mut World, shard: usize, question: impl FnOnce(mpsc::Sender<T>) -> Inspection) -> T {
    let (reply, mut replies) = mpsc::channel(0);
    world.send_control(shard, ControlMessage::Inspect(question(reply)));
    world.turn(shard);
    replies.try_recv().expect("the shard answers in the turn of the question")
}

fn slowest(world: &mut World, shard: usize) -> SlowestClients {
    ask(world, shard, |reply| Inspection::Slowest { from: 0, reply }).1
}

fn details(world: &mut World, id: ClientId) -> Option<Box<ClientDetails>> {
    ask(world, usize::from(id.shard), |reply| Inspection::Client { id, reply })
}

/// The only client of a shard.
fn only_client(world: &World, shard: usize) -> ClientId {
    let ids: Vec<ClientId> = world.shards[shard].state().connections.client_ids().collect();
    let [id] = ids[..] else { panic!("the shard has clients {ids:?}") };
    id
}

fn subscribe(world: &mut World, peer: Peer, path: &str) {
    world.send_event(peer, &format!("/qio/on:1=\"{path}\""));
    world.run_until_idle();
    world.take_bytes(peer);
}

#[test]
fn the_slowest_clients_are_those_with_most_output() {
    let mut world = world(1);
    let peers: Vec<Peer> = (0..5).map(|_| world.connect_raw(0)).collect();
    for peer in &peers {
        subscribe(&mut world, *peer, "/relay/a");
    }
    assert_eq!(slowest(&mut world, 0), SlowestClients::default(), "nothing waits");
    for peer in &peers[1..4] {
        world.set_reading(*peer, false);
    }
    subscribe(&mut world, peers[2], "/relay/b");
    for path in ["/relay/a", "/relay/b", "/relay/b"] {
        world.send_event(peers[0], &format!("{path}:0=\"{}\"", "x".repeat(100)));
        world.run_until_idle();
    }
    world.advance(Duration::from_secs(3));
    let answer = slowest(&mut world, 0);
    assert_eq!((answer.clients.len(), answer.next), (3, None));
    let bytes: Vec<u64> = answer.clients.iter().map(|client| client.outbox_bytes).collect();
    assert!(bytes[0] > bytes[1] && bytes[1] == bytes[2], "{bytes:?}");
    assert!(answer.clients[0].stalled_seconds.unwrap() >= 3.0);
    assert_eq!((answer.clients[0].transport, &*answer.clients[0].address), ("raw", "10.0.0.1:1000"));
    let first = details(&mut world, answer.clients[0].id).unwrap();
    assert_eq!((first.subscriptions, first.paths), (2, vec!["/relay/a".into(), "/relay/b".into()]));
    assert_eq!((first.summary.outbox_bytes, first.summary.user), (bytes[0], None));
}

#[test]
fn a_large_shard_answers_in_pieces() {
    let mut world = world(1);
    let clients: Vec<Peer> = (0..CLIENTS_LISTED_MAX + 30).map(|_| world.connect_raw(0)).collect();
    for peer in &clients {
        subscribe(&mut world, *peer, "/relay/a");
        world.set_reading(*peer, false);
    }
    world.send_event(clients[0], "/relay/a:0=1");
    world.run_until_idle();
    let whole = slowest(&mut world, 0);
    assert_eq!((whole.clients.len(), whole.next), (CLIENTS_LISTED_MAX, None));
    let state = world.shards[0].state();
    let (mut pieces, mut from, mut found) = (SlowestClients::default(), Some(0), 0);
    while let Some(next) = from {
        let piece = state.slowest(next, 50);
        found += piece.clients.len();
        pieces.merge(piece);
        from = pieces.next;
    }
    assert_eq!((found, pieces.clients.len()), (clients.len(), CLIENTS_LISTED_MAX));
    assert_eq!(state.slowest(u32::MAX, 50), SlowestClients::default());
}

#[test]
fn a_client_is_told_apart_from_earlier_ones() {
    let mut world = world(2);
    let peer = world.connect_websocket(1);
    let id = only_client(&world, 1);
    world.advance(Duration::from_secs(2));
    let details_of = details(&mut world, id).unwrap();
    assert_eq!((details_of.summary.transport, details_of.subscriptions), ("websocket", 0));
    assert!((2.0..3.0).contains(&details_of.silent_seconds));
    assert_eq!(details(&mut world, ClientId { generation: id.generation + 1, ..id }), None);
    assert_eq!(details(&mut world, ClientId { slot: 77, ..id }), None);
    world.reset(peer);
    world.run_until_idle();
    assert_eq!(details(&mut world, id), None);
}

#[test]
fn the_paths_of_a_client_are_bounded() {
    let mut world = world(1);
    let peer = world.connect_raw(0);
    let count = CLIENT_PATHS_LISTED_MAX + 50;
    (0..count).for_each(|number| subscribe(&mut world, peer, &format!("/relay/{number:03}")));
    let id = only_client(&world, 0);
    let details = details(&mut world, id).unwrap();
    assert_eq!((details.subscriptions as usize, details.paths.len()), (count, CLIENT_PATHS_LISTED_MAX));
    assert!(details.paths.is_sorted());
}

#[test]
fn losses_are_those_of_the_client() {
    let config = Config { clients_subs_max: 1, ..Config::default() };
    let mut world = World::with_config(1, config, vec![Arc::new(Relay), Arc::new(ClientTest::default())]);
    let peer = world.connect_raw(0);
    let id = only_client(&world, 0);
    subscribe(&mut world, peer, "/relay/a");
    subscribe(&mut world, peer, "/relay/b");
    subscribe(&mut world, peer, "/relay/c");
    // Each answer offers a server callback, and a client may hold four.
    for callback in 1..=6 {
        world.send_event(peer, &format!("/clienttest/echo:{callback}=1"));
        world.run_until_idle();
    }
    let drops = details(&mut world, id).unwrap().drops;
    assert_eq!((drops.requests_refused, drops.callbacks_dropped, drops.pongs_replaced), (2, 2, 0));
    world.reset(peer);
    world.run_until_idle();
    world.connect_raw(0);
    let next = only_client(&world, 0);
    assert_eq!(details(&mut world, next).unwrap().drops, Default::default());
}

#[test]
fn the_busiest_paths_are_counted_while_somebody_asks() {
    let mut world = world(2);
    let (one, two) = (world.connect_raw(0), world.connect_raw(1));
    for path in ["/relay/a", "/relay/b"] {
        subscribe(&mut world, one, path);
    }
    subscribe(&mut world, two, "/relay/a");
    world.send_event(one, "/relay/a:0=0");
    world.run_until_idle();
    let busiest = |world: &mut World, shard| ask(world, shard, |reply| Inspection::Busiest { reply });
    assert!(busiest(&mut world, 0).is_empty(), "broadcasts before the first question are not counted");
    for (path, times) in [("/relay/a", 3), ("/relay/b", 5), ("/relay/nobody", 9)] {
        (0..times).for_each(|_| world.send_event(one, &format!("{path}:0=0")));
    }
    world.run_until_idle();
    let busy = busiest(&mut world, 0);
    let order: Vec<&str> = busy.iter().map(|busy| busy.path.as_str()).collect();
    assert_eq!(order, ["/relay/b", "/relay/a"]);
    assert!(busy[0].broadcasts_per_second > busy[1].broadcasts_per_second);
    let of_other: Vec<BusyPath> = busiest(&mut world, 1);
    assert!(of_other.is_empty(), "a broadcast counts where it starts");
    let paths: Arc<[Path]> = busy.iter().map(|busy| busy.path.clone()).collect();
    for (shard, expected) in [(0, vec![1, 1]), (1, vec![0, 1])] {
        let paths = Arc::clone(&paths);
        let subscribers = ask(&mut world, shard, |reply| Inspection::Subscribers { paths, reply });
        assert_eq!(subscribers, expected, "{shard}");
    }
}

#[test]
fn clients_are_counted_by_transport() {
    let mut world = world(1);
    let raw = world.connect_raw(0);
    world.connect_websocket(0);
    world.connect_websocket(0);
    let counts = |world: &World| [Gauge::ClientsWebsocket, Gauge::ClientsRaw].map(|gauge| world.gauge(gauge));
    assert_eq!(counts(&world), [2, 1]);
    world.reset(raw);
    world.run_until_idle();
    assert_eq!(counts(&world), [2, 0]);
}
