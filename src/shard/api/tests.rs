use super::super::testing::{Peer, World};
use crate::api::{ApiMessage, Batch, ByteBudget, EventList};
use crate::app::relay::Relay;
use crate::config::Config;
use crate::event::path::PathRef;
use crate::limits::{API_DELIVERIES_PER_TURN_MAX, API_EVENTS_PER_TURN_MAX};
use crate::metrics::Counter;
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
#[test]
fn a_batch_waits_for_other_shards() {
    let config = Config { mesh_ring_messages: 8, mesh_overflow_bytes_max: 64 * 1024, ..Config::default() };
    let mut world = world(2, config);
    let peer = subscriber(&mut world, 1, "/relay/a");
    let data = format!("\"{}\"", "x".repeat(1000));
    const EVENTS: usize = 300;
    world.post_api(0, ApiMessage::Broadcast(batch((0..EVENTS).map(|_| ("/relay/a", data.clone())))));
    world.post_api(0, ApiMessage::Broadcast(batch([("/relay/a", "1".to_owned())])));
    for _ in 0..10 {
        world.turn(0);
    }
    let broadcasts = |world: &World| {
        world.states().next().map(|state| state.metrics.counters.get(Counter::Broadcasts)).unwrap()
    };
    assert!(broadcasts(&world) < 100, "{} were begun while the other shard did nothing", broadcasts(&world));
    let mut messages = Vec::new();
    for _ in 0..10_000 {
        world.turn(0);
        world.turn(1);
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
