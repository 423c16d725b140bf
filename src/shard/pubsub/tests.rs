//! Tests of subscriptions and fan-out.

use super::*;
use crate::app::relay::Relay;
use crate::config::Config;
use crate::metrics::Counter;
use crate::protocol::Framing;
use crate::protocol::websocket::frame::Opcode;
use crate::protocol::{CompressionBounds, OHAI};
use crate::qev::ring::{Descriptor, PeerAddress};
use crate::shard::connection::{Connection, Moment};
use crate::shard::testing::{Peer, UPGRADE, World, client_frame};
use std::sync::Arc;

const PATH: &str = "/path";

fn path() -> Path {
    Path::parse(PATH).unwrap()
}

/// A client that is subscribed, and its connection.
fn one() -> (PubSub, Connections, ClientId) {
    let (mut pubsub, mut connections) = (PubSub::new(), Connections::new(0, 1000));
    let generation = connections.next_generation();
    let socket = Descriptor::made_up(0);
    let connection = Connection::new(socket, PeerAddress::UNIX, generation, Moment::default());
    let slot = connections.insert(connection);
    let client = connections.create_client(slot, Framing::WebSocket);
    let SubscribeOutcome::Decide(id) = pubsub.on(client.slot, &path()) else { panic!() };
    pubsub.decide(client.slot, id, true);
    (pubsub, connections, client)
}

#[test]
fn a_client_that_disconnects_keeps_its_record_until_its_subscriptions_have_ended() {
    let (mut pubsub, mut connections, client) = one();
    pubsub.check(&connections);
    connections.detach_client(0);
    pubsub.disconnected(client);
    pubsub.check(&connections);
    assert_eq!(pubsub.next_leaving(), Some(client));
    let (ended, done) = pubsub.end_some();
    assert_eq!(
        (ended, done),
        (vec![(path(), EndedSubscription::Active { last: true, membership: Membership::None })], true)
    );
    connections.remove_client(client);
    pubsub.check(&connections);
}

#[test]
fn only_so_many_subscriptions_end_in_a_turn() {
    let (mut pubsub, mut connections, client) = one();
    connections.detach_client(0);
    pubsub.disconnected(client);
    pubsub.budget = 1;
    assert!(pubsub.end_some().1);
    pubsub.disconnected(client);
    assert_eq!(pubsub.next_leaving(), None);
    pubsub.begin_turn();
    assert_eq!(pubsub.next_leaving(), Some(client));
}

fn broadcast(pubsub: &mut PubSub) {
    let id = pubsub.find(path().as_ref()).unwrap();
    pubsub.queue(id, Json::NULL, 0, BroadcastKind::Plain);
}

#[test]
#[should_panic(expected = "a broadcast was left over by its turn")]
fn the_check_finds_a_broadcast_that_was_left_over() {
    let (mut pubsub, connections, _) = one();
    broadcast(&mut pubsub);
    pubsub.check(&connections);
}

#[test]
#[should_panic(expected = "slot 0 has subscriptions, but no client")]
fn the_check_finds_subscriptions_of_a_client_that_was_removed() {
    let (pubsub, mut connections, client) = one();
    connections.detach_client(0);
    connections.remove_client(client);
    pubsub.check(&connections);
}

#[test]
#[should_panic(expected = "each client that was detached is leaving")]
fn the_check_finds_a_client_that_was_forgotten() {
    let (pubsub, mut connections, _) = one();
    connections.detach_client(0);
    pubsub.check(&connections);
}

#[test]
#[should_panic(expected = "is leaving, but was not detached")]
fn the_check_finds_a_client_that_leaves_although_it_is_connected() {
    let (mut pubsub, connections, client) = one();
    pubsub.disconnected(client);
    pubsub.check(&connections);
}

/// Does something while a broadcast waits.
fn during_a_broadcast(change: impl FnOnce(&mut PubSub, PathId)) {
    let (mut pubsub, _, client) = one();
    pubsub.disconnected(client);
    broadcast(&mut pubsub);
    let id = pubsub.find(path().as_ref()).unwrap();
    change(&mut pubsub, id);
}

#[test]
#[should_panic(expected = "a broadcast waits while subscriptions change")]
fn nobody_subscribes_while_a_broadcast_waits() {
    during_a_broadcast(|pubsub, _| {
        pubsub.on(1, &path());
    });
}

#[test]
#[should_panic(expected = "a broadcast waits while subscriptions change")]
fn nothing_is_decided_while_a_broadcast_waits() {
    during_a_broadcast(|pubsub, id| drop(pubsub.decide(0, id, true)));
}

#[test]
#[should_panic(expected = "a broadcast waits while subscriptions change")]
fn nobody_unsubscribes_while_a_broadcast_waits() {
    during_a_broadcast(|pubsub, _| drop(pubsub.off(0, path().as_ref())));
}

#[test]
#[should_panic(expected = "a broadcast waits while subscriptions change")]
fn no_subscription_of_a_disconnected_client_ends_while_a_broadcast_waits() {
    during_a_broadcast(|pubsub, _| drop(pubsub.end_some()));
}

// Compression.

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate";

fn compressing() -> World {
    let config = Config { compression: true, ..Config::default() };
    World::with_config(1, config, vec![Arc::new(Relay)])
}

/// A WebSocket client with these offers, which is subscribed.
fn subscribed(world: &mut World, offers: &str) -> Peer {
    let peer = world.connect(0);
    world.turn(0);
    let upgrade = String::from_utf8(UPGRADE.to_vec()).unwrap();
    world.send_bytes(peer, upgrade.replace("\r\n\r\n", &format!("\r\n{offers}\r\n\r\n")).as_bytes());
    world.send_bytes(peer, &client_frame(Opcode::Text, OHAI.as_bytes()));
    world.send_bytes(peer, &client_frame(Opcode::Text, b"/qio/on:0=\"/relay/room\""));
    world.run_until_idle();
    world.take_bytes(peer);
    peer
}

/// Splits bytes into unfragmented frames of the server; returns whether each is compressed, with its inflated text.
fn texts(mut bytes: &[u8]) -> Vec<(bool, String)> {
    let compression = Compression::new(CompressionBounds { broadcast_bytes_min: 1, single_bytes_min: 1 });
    let mut texts = Vec::new();
    while let [first, short, ..] = *bytes {
        let (head, len) = match short {
            127 => (10, u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize),
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            len => (2, usize::from(len)),
        };
        let payload = &bytes[head..head + len];
        let text =
            if first == 0xC1 { compression.inflate(payload, 1 << 20).unwrap() } else { payload.to_vec() };
        assert!(matches!(first, 0x81 | 0xC1), "{first:x}");
        texts.push((first == 0xC1, String::from_utf8(text).unwrap()));
        bytes = &bytes[head + len..];
    }
    texts
}

/// The events of these lengths, which are published in one turn.
fn publish(world: &mut World, publisher: Peer, lengths: &[usize]) -> Vec<String> {
    let events: Vec<String> =
        lengths.iter().map(|len| format!("/relay/room:0=\"{}\"", "x".repeat(*len))).collect();
    let frames = events.iter().flat_map(|event| client_frame(Opcode::Text, event.as_bytes()));
    world.send_bytes(publisher, &frames.collect::<Vec<u8>>());
    world.run_until_idle();
    events
}

#[test]
fn broadcasts_that_are_combined_are_messages_of_their_own() {
    let mut world = compressing();
    let publisher = world.connect_websocket(0);
    let plain = subscribed(&mut world, "X: y");
    let full = [subscribed(&mut world, OFFER), subscribed(&mut world, OFFER)];
    let small = subscribed(&mut world, &format!("{OFFER}; server_max_window_bits=9"));
    for (lengths, compressed, fits_small) in [
        (&[300, 10, 400][..], &[true, false, true][..], true),
        (&[300, 600], &[true, true], false),
        (&[10, 20], &[false, false], true),
    ] {
        let before = world.counter(Counter::MessagesCompressed);
        let events = publish(&mut world, publisher, lengths);
        let expected: Vec<_> = compressed.iter().copied().zip(events.iter().cloned()).collect();
        let uncompressed: Vec<_> = events.iter().map(|event| (false, event.clone())).collect();
        for client in full {
            assert_eq!(texts(&world.take_bytes(client)), expected);
        }
        assert_eq!(texts(&world.take_bytes(plain)), uncompressed);
        // A run with a message that is longer than the window is sent as it is.
        assert_eq!(texts(&world.take_bytes(small)), if fits_small { expected } else { uncompressed });
        // Each was compressed once, whatever the number of subscribers.
        let once = compressed.iter().filter(|compressed| **compressed).count() as u64;
        assert_eq!(world.counter(Counter::MessagesCompressed) - before, once);
    }
}

#[test]
fn a_flood_of_broadcasts_is_sent_without_compression() {
    let mut world = compressing();
    let publisher = world.connect_websocket(0);
    let client = subscribed(&mut world, OFFER);
    let lengths = [60_000; 8];
    for _ in 0..20 {
        let events = publish(&mut world, publisher, &lengths);
        let found = texts(&world.take_bytes(client));
        assert_eq!(found.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), events);
    }
    let compressed = world.counter(Counter::MessagesCompressed);
    let skipped = world.counter(Counter::CompressionSkipped);
    assert_eq!((compressed + skipped, world.counter(Counter::MessagesIncompressible)), (160, 0));
    let turns = world.counter(Counter::Turns);
    assert!(compressed <= turns * 17, "a turn compresses at most 1 MiB: {compressed} in {turns} turns");
}
