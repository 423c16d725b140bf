//! Tests of connections whose peers are silent for long.

use crate::app::relay::Relay;
use crate::config::Config;
use crate::metrics::Counter;
use crate::protocol::OHAI;
use crate::protocol::testing::{Random, fuzz};
use crate::shard::ControlMessage;
use crate::shard::connection::Input;
use crate::shard::testing::{Peer, World, client_close};
use std::sync::Arc;
use std::time::Duration;

/// The time, in seconds, by which the first heartbeat has been sent.
const HEARTBEAT: u64 = 50;

fn world(shards: usize) -> World {
    World::new(shards, vec![Arc::new(Relay)])
}

/// The state of the input of the only connection of a shard.
fn input(world: &World, shard: usize) -> Input {
    let mut connections = world.shards[shard].state().connections.iter();
    let (_, connection) = connections.next().expect("the shard must have a connection");
    assert!(connections.next().is_none(), "the shard must have one connection");
    connection.input
}

fn times_dormant(world: &World) -> u64 {
    world.counter(Counter::InputsDormant)
}

/// Runs turns second by second until the input of the only connection is in this state, which it passes through or stays in.
#[track_caller]
fn run_until(world: &mut World, state: Input) {
    for _ in 0..=HEARTBEAT {
        world.advance(Duration::from_secs(1));
        for _ in 0..3 {
            if input(world, 0) == state {
                return;
            }
            world.turn(0);
        }
    }
    panic!("the connection must become {state:?}");
}

#[track_caller]
fn assert_answers(world: &mut World, client: Peer, number: u64) {
    world.take_bytes(client);
    world.send_event(client, &format!("/qio/ping:{number}="));
    world.run_until_idle();
    assert_eq!(answers(world, client), [number]);
}

/// The numbers of the pings that were answered since the last call.
fn answers(world: &mut World, client: Peer) -> Vec<u64> {
    let messages = world.take_raw_messages(client);
    let numbers = messages.iter().filter_map(|text| text.strip_prefix("/qio/callback/")?.split(':').next());
    numbers.map(|number| number.parse().unwrap()).collect()
}

#[test]
fn a_silent_client_is_dormant_until_it_sends_something() {
    let mut world = world(1);
    let client = world.connect_raw(0);
    for round in 1..=3 {
        world.run_seconds(HEARTBEAT + 1);
        assert_eq!((input(&world, 0), times_dormant(&world)), (Input::Dormant, round));
        assert_answers(&mut world, client, round);
        assert_eq!(input(&world, 0), Input::Armed);
    }
    world.end_stream(client);
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_client_that_speaks_keeps_its_receive() {
    let mut world = world(1);
    let client = world.connect_raw(0);
    for number in 1..20 {
        world.run_seconds(25);
        assert_answers(&mut world, client, number);
    }
    assert_eq!(times_dormant(&world), 0);
}

/// A client that is sent something all the time and sends nothing itself is silent, too.
#[test]
fn a_subscriber_is_dormant() {
    let mut world = world(1);
    let client = world.connect_raw(0);
    world.send_event(client, "/qio/on:0=\"/relay/a\"");
    world.run_until_idle();
    for _ in 0..2 * HEARTBEAT {
        let path = crate::event::path::Path::parse("/relay/a").unwrap();
        world.post_command(0, crate::app::Command::Broadcast { path, data: crate::app::Json::NULL });
        world.run_seconds(1);
    }
    assert_eq!((input(&world, 0), world.counter(Counter::Heartbeats)), (Input::Dormant, 0));
    assert_eq!(world.take_raw_messages(client).len(), 2 * HEARTBEAT as usize);
}

#[test]
fn what_comes_while_a_receive_is_cancelled_is_not_lost() {
    let mut world = world(1);
    let client = world.connect_raw(0);
    run_until(&mut world, Input::Retiring);
    assert_answers(&mut world, client, 1);
    assert_eq!(input(&world, 0), Input::Armed);
}

/// Everything that ends a connection ends a dormant one, and one that is about to be dormant.
#[test]
fn dormant_connections_end_as_others_do() {
    type End = fn(&mut World, Peer);
    let ends: [(&str, End); 5] = [
        ("the end of the stream", |world, peer| world.end_stream(peer)),
        ("a reset", |world, peer| world.reset(peer)),
        ("a Close", |world, peer| world.send_bytes(peer, &client_close(1000))),
        ("a Close and the end", |world, peer| {
            world.send_bytes(peer, &client_close(1000));
            world.end_stream(peer);
        }),
        ("a shutdown", |world, peer| {
            world.send_control(0, ControlMessage::Shutdown { deadline_ns: u64::MAX });
            world.run_until_idle();
            world.send_bytes(peer, &client_close(1001));
            world.end_stream(peer);
        }),
    ];
    for state in [Input::Retiring, Input::Dormant] {
        for (name, end) in ends {
            let mut world = world(1);
            let client = world.connect_websocket(0);
            run_until(&mut world, state);
            end(&mut world, client);
            world.run_until_idle();
            assert!(world.is_closed(client), "{name}, {state:?}");
            world.assert_empty();
        }
        // A peer that reads nothing and says nothing is closed when its time is over.
        let mut world = world(1);
        let client = world.connect_websocket(0);
        run_until(&mut world, state);
        world.run_seconds(16 * 60 + 10);
        assert!(world.is_closed(client), "{state:?}");
        assert_eq!(world.counter(Counter::TimeoutsLiveness), 1);
        world.assert_empty();
    }
}

/// The answers of dormant clients to a challenge lie in their sockets while the shard reads one of them in a turn. None of
/// the clients is late but one that has not answered.
#[test]
fn a_dormant_client_that_has_answered_is_not_late() {
    let mut world = world(1);
    let clients: Vec<Peer> = (0..100).map(|_| world.connect_raw(0)).collect();
    world.run_seconds(15 * 60 + 50);
    assert_eq!(times_dormant(&world), 100);
    // As after a mark that came back during a stall.
    (0..100).for_each(|slot| world.shards[0].state_mut().connections.live_mut(slot).unread = false);
    world.shards[0].kernel_mut().heard_per_turn = 1;
    let (silent, punctual) = clients.split_first().unwrap();
    for (number, client) in (1..).zip(punctual) {
        world.take_bytes(*client);
        world.send_event(*client, &format!("/qio/ping:{number}="));
    }
    // The mark comes back when all sockets have been announced and none has been read.
    world.advance(Duration::from_secs(15));
    world.run_until_idle();
    for (number, client) in (1..).zip(punctual) {
        assert_eq!(answers(&mut world, *client), [number]);
    }
    assert!(world.is_stream_ended(*silent));
    assert_eq!(world.counter(Counter::TimeoutsLiveness), 1);
}

/// A client of the simulation, and the pings that it has sent.
struct Pinging {
    peer: Peer,
    sent: u64,
    answered: u64,
}

impl Pinging {
    fn check(&mut self, world: &mut World) {
        for number in answers(world, self.peer) {
            self.answered += 1;
            assert_eq!(number, self.answered, "the answers come in order");
        }
    }
}

fn connect(world: &mut World, random: &mut Random) -> Pinging {
    let peer = world.connect(random.below(world.shards.len()));
    world.turn(peer.shard);
    world.send_bytes(peer, OHAI.as_bytes());
    world.run_until_idle();
    assert_eq!(world.take_bytes(peer), OHAI.as_bytes());
    world.send_event(peer, "/qio/on:0=\"/relay/a\"");
    Pinging { peer, sent: 0, answered: 0 }
}

fn step(world: &mut World, random: &mut Random, clients: &mut [Pinging]) {
    let at = random.below(clients.len());
    let client = &mut clients[at];
    match random.below(100) {
        0..60 => return world.turn(random.below(world.shards.len())),
        60..65 => return world.advance(Duration::from_millis(random.next() % 3000)),
        65..70 => return world.run_seconds(random.pick(&[1, 10, HEARTBEAT])),
        // More than a client may send at once to a shard that takes no turn meanwhile.
        70 => {
            for _ in 0..100 {
                world.send_event(client.peer, "/relay/a:0=null");
            }
            return;
        }
        71 => world.end_stream(client.peer),
        72 => world.reset(client.peer),
        _ => {
            client.sent += 1;
            world.send_event(client.peer, &format!("/qio/ping:{}=", client.sent));
            return;
        }
    }
    clients[at] = connect(world, random);
}

/// Clients are silent, speak and disconnect at random, on kernels that end and cancel receives at every moment, while some
/// of them are not listened to. Every ping is answered once, and in the end everybody who is silent is dormant.
#[test]
fn random_silence_loses_nothing() {
    let times = std::cell::Cell::new(0);
    fuzz(|random| {
        let config = Config {
            mesh_ring_messages: 8,
            mesh_overflow_bytes_max: 64 << 10,
            heartbeat_challenge: Duration::from_secs(1 << 20),
            heartbeat_timeout: Duration::from_secs(1 << 21),
            ..Config::default()
        };
        let mut world = World::with_config(1 + random.below(2), config, vec![Arc::new(Relay)]);
        for shard in &mut world.shards {
            shard.kernel_mut().irregular = Some(random.clone());
        }
        let mut clients: Vec<Pinging> = (0..4).map(|_| connect(&mut world, random)).collect();
        for _ in 0..random.below(300) {
            step(&mut world, random, &mut clients);
        }
        for _ in 0..2 {
            world.run_until_idle();
            for client in &mut clients {
                client.check(&mut world);
                assert_eq!(client.answered, client.sent, "every ping is answered");
            }
            // The second heartbeat at the latest finds everybody silent.
            world.run_seconds(2 * HEARTBEAT + 10);
            let connections = world.states().flat_map(|state| state.connections.iter());
            connections.for_each(|(slot, connection)| assert_eq!(connection.input, Input::Dormant, "{slot}"));
            for client in &mut clients {
                client.sent += 1;
                world.send_event(client.peer, &format!("/qio/ping:{}=", client.sent));
            }
        }
        world.run_until_idle();
        clients.iter().for_each(|client| world.end_stream(client.peer));
        world.run_until_idle();
        world.run_seconds(15);
        times.set(times.get() + times_dormant(&world));
        world.assert_empty();
    });
    assert!(times.get() > 0, "nobody was dormant");
}
