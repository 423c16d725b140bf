//! Tests of back-pressure: one shard is slow, and a peer floods it.

use crate::app::relay::Relay;
use crate::app::{Answer, Application, Command, Error, Registrar};
use crate::config::Config;
use crate::event::path::Path;
use crate::metrics::{Counter, Gauge};
use crate::protocol::http::Sid;
use crate::shard::ControlMessage;
use crate::shard::addresses::CountedAddress;
use crate::shard::testing::{FnApp, Peer, World, address, client_close};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// The limit of these tests: the share of one source is a sixty-fourth of it, which is two or three messages.
const OVERFLOW_BYTES: usize = 64 << 10;

/// More than the rings and any share hold.
const FLOOD: usize = 1000;

fn config() -> Config {
    Config { mesh_ring_messages: 8, mesh_overflow_bytes_max: OVERFLOW_BYTES, ..Config::default() }
}

/// The relay, and `/burst`, which broadcasts a number of times to `/relay/flood` for each event.
fn world() -> World {
    let burst = |registrar: &mut Registrar| -> Result<(), Error> {
        let path = Path::parse("/relay/flood").unwrap();
        let to_close = registrar.event("/close").handler(|cx, event| {
            cx.close(event.client);
            Answer::ok()
        });
        to_close.register()?;
        let burst = registrar.event("/burst").handler(move |cx, event| {
            for number in 0..event.data.parse().unwrap() {
                cx.broadcast(&path, format!("{number}"));
            }
            Answer::ok()
        });
        burst.register()
    };
    let apps: Vec<Arc<dyn Application>> = vec![Arc::new(Relay), Arc::new(FnApp(burst))];
    World::with_config(2, config(), apps)
}

fn subscribe(world: &mut World, client: Peer, path: &str) {
    world.send_event(client, &format!("/qio/on:0=\"{path}\""));
    world.run_until_idle();
}

/// A subscriber on the slow shard 1, and a publisher on shard 0 whose flood has not been received yet.
fn flooding() -> (World, Peer, Peer) {
    let mut world = world();
    let subscriber = world.connect_raw(1);
    subscribe(&mut world, subscriber, "/relay/flood");
    let publisher = world.connect_raw(0);
    flood(&mut world, publisher);
    (world, subscriber, publisher)
}

fn flood(world: &mut World, publisher: Peer) {
    for number in 0..FLOOD {
        world.send_event(publisher, &format!("/relay/flood:0={number}"));
    }
}

/// The numbers that a raw client has received on a path.
fn numbers(world: &mut World, client: Peer, path: &str) -> Vec<usize> {
    let messages = world.take_raw_messages(client);
    let of_path = messages.iter().filter_map(|text| text.strip_prefix(path)?.strip_prefix(":0="));
    of_path.map(|number| number.parse().unwrap()).collect()
}

fn flood_numbers(world: &mut World, client: Peer) -> Vec<usize> {
    numbers(world, client, "/relay/flood")
}

fn everything() -> Vec<usize> {
    (0..FLOOD).collect()
}

/// The number of a session that shard 0 of two has.
fn sid_of_shard_0(world: &World) -> u128 {
    let home = |sid: &u128| world.shards[0].state().home_of(Sid::from(*sid)) == 0;
    (1 << 100..).find(home).unwrap()
}

/// A request that carries events for a session, which it may create. `more` are further parameters of its query.
fn post(sid: u128, more: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    let query = format!("sid={sid:032x}&connect=true{more}");
    format!("POST /?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}").into_bytes()
}

/// Lines of events with these numbers for `/relay/flood`.
fn flood_lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("/relay/flood:0={number}\n")).collect()
}

/// A world with a subscriber to the flood on shard 1, and a session of shard 0 that may be created.
fn world_with_session() -> (World, Peer, u128) {
    let mut world = world();
    let subscriber = world.connect_raw(1);
    subscribe(&mut world, subscriber, "/relay/flood");
    let sid = sid_of_shard_0(&world);
    (world, subscriber, sid)
}

#[track_caller]
fn assert_nothing_is_left(world: &mut World, peers: impl IntoIterator<Item = Peer>) {
    for peer in peers {
        if !world.is_closed(peer) {
            world.end_stream(peer);
        }
    }
    world.run_until_idle();
    world.run_seconds(15);
    world.assert_empty();
    assert_eq!(world.gauge(Gauge::MeshOverflowBytes) + world.gauge(Gauge::InputBytesHeld), 0);
}

#[test]
fn a_flood_is_held_back_and_nobody_loses_or_waits_for_long() {
    let (mut world, subscriber, publisher) = flooding();
    let (far, near, honest) = (world.connect_raw(1), world.connect_raw(0), world.connect_raw(0));
    for client in [far, near] {
        subscribe(&mut world, client, "/relay/honest");
    }
    flood(&mut world, publisher);
    let (mut sent, mut received, mut worst, mut overflow) = (0, 0, 0, 0);
    // Shard 0 runs ten turns for each of shard 1.
    for turn in 0..1200 {
        if turn % 10 == 0 && sent < 100 {
            world.send_event(honest, &format!("/relay/honest:{}={sent}", sent + 1));
            sent += 1;
        }
        world.turn(0);
        overflow = overflow.max(world.gauge(Gauge::MeshOverflowBytes));
        if turn % 10 == 9 {
            world.turn(1);
            worst = worst.max(sent - received);
            let numbers = numbers(&mut world, far, "/relay/honest");
            assert!(numbers.iter().copied().eq(received..received + numbers.len()));
            received += numbers.len();
        }
    }
    assert!(worst <= 4, "an honest event waited for {worst} turns of the slow shard");
    assert!(overflow <= 8 << 10, "{overflow} bytes waited");
    assert!(world.counter(Counter::InputsPaused) > 0);
    world.run_until_idle();
    let answers = world.take_raw_messages(honest);
    assert_eq!(answers.len(), 100);
    assert!(answers.iter().all(|answer| answer.contains("\"code\":200")), "{answers:?}");
    assert_eq!(numbers(&mut world, near, "/relay/honest"), (0..100).collect::<Vec<_>>());
    assert_eq!(flood_numbers(&mut world, subscriber), [everything(), everything()].concat());
    assert_eq!(world.counter(Counter::MeshRefused), 0);
    assert_nothing_is_left(&mut world, [subscriber, publisher, far, near, honest]);
}

#[test]
fn a_paused_connection_gets_everything_done_before_its_end_of_stream() {
    let (mut world, subscriber, publisher) = flooding();
    world.end_stream(publisher);
    for _ in 0..5 {
        world.turn(0);
    }
    assert_eq!(world.gauge(Gauge::InputsHeld), 1);
    assert!(!world.is_closed(publisher));
    world.run_until_idle();
    assert_eq!(flood_numbers(&mut world, subscriber), everything());
    assert!(world.is_closed(publisher));
    assert_nothing_is_left(&mut world, [subscriber]);
}

#[test]
fn a_paused_connection_is_not_blamed_for_its_silence() {
    let (mut world, subscriber, publisher) = flooding();
    // An unfinished message waits behind the flood.
    world.send_bytes(publisher, &[0; 7]);
    for _ in 0..200 {
        world.advance(Duration::from_secs(1));
        world.turn(0);
    }
    assert_eq!((world.gauge(Gauge::InputsHeld), world.gauge(Gauge::Clients)), (1, 2));
    world.run_until_idle();
    assert_eq!(flood_numbers(&mut world, subscriber), everything());
    world.run_seconds(5);
    assert!(!world.is_closed(publisher));
    world.run_seconds(10);
    assert_eq!(world.counter(Counter::TimeoutsMessage), 1, "its timeout begins when it is listened to again");
    assert_nothing_is_left(&mut world, [subscriber]);
}

#[test]
fn a_paused_connection_can_be_closed_reset_and_shut_down() {
    for how in 0..3 {
        let (mut world, subscriber, publisher) = flooding();
        for _ in 0..3 {
            world.turn(0);
        }
        assert_eq!(world.gauge(Gauge::InputsHeld), 1);
        match how {
            0 => {
                let client = world.shards[0].state().connections.client_ids().next().unwrap();
                world.post_command(0, Command::Close { client });
            }
            1 => world.reset(publisher),
            _ => (0..2).for_each(|shard| {
                world.send_control(shard, ControlMessage::Shutdown { deadline_ns: u64::MAX });
            }),
        }
        for _ in 0..3 {
            world.turn(0);
        }
        world.run_until_idle();
        assert!(world.is_stream_ended(publisher), "{how}");
        assert_nothing_is_left(&mut world, [subscriber, publisher]);
    }
}

/// Runs the shards until shard 0 would listen to a source again in its next turn.
fn run_until_listening(world: &mut World) {
    for _ in 0..1000 {
        if world.shards[0].state().has_source_to_listen_to() {
            return;
        }
        world.turn(1);
        world.turn(0);
    }
    panic!("no source is listened to again");
}

#[test]
fn a_paused_connection_that_is_reset_can_be_closed_when_it_is_listened_to_again() {
    for by_event in [false, true] {
        let (mut world, subscriber, publisher) = flooding();
        if by_event {
            world.send_event(publisher, "/close:0=");
            world.send_event(publisher, "/relay/flood:0=1001");
        }
        world.reset(publisher);
        for _ in 0..3 {
            world.turn(0);
        }
        assert_eq!(world.gauge(Gauge::InputsHeld), 1);
        if !by_event {
            run_until_listening(&mut world);
            let client = world.shards[0].state().connections.client_ids().next().unwrap();
            world.post_command(0, Command::Close { client });
        }
        world.run_until_idle();
        let received = flood_numbers(&mut world, subscriber);
        assert_eq!(received, if by_event { everything() } else { (0..received.len()).collect() });
        assert_eq!(world.counter(Counter::ClosesByApp), 1);
        assert_nothing_is_left(&mut world, [subscriber]);
    }
}

#[test]
fn a_paused_websocket_that_is_closed_is_listened_to_for_its_close() {
    let (mut world, subscriber, publisher) = flooding();
    let websocket = world.connect_websocket(0);
    for _ in 0..3 {
        world.turn(0);
    }
    let message = |text: &str| {
        crate::shard::testing::client_frame(crate::protocol::websocket::frame::Opcode::Text, text.as_bytes())
    };
    for _ in 0..3 {
        (0..20).for_each(|_| world.send_bytes(websocket, &message("/relay/flood:0=7")));
        world.send_bytes(websocket, &message("/close:0="));
        world.turn(0);
    }
    world.send_control(0, ControlMessage::Shutdown { deadline_ns: u64::MAX });
    world.turn(0);
    world.send_bytes(websocket, &client_close(1001));
    world.run_until_idle();
    assert!(world.is_stream_ended(websocket));
    assert_nothing_is_left(&mut world, [subscriber, publisher, websocket]);
}

#[test]
fn requests_of_a_flooding_session_are_held() {
    let (mut world, subscriber, sid) = world_with_session();
    let connections: Vec<Peer> = (0..10).map(|_| world.connect(0)).collect();
    // The other shard may count the address of the connections.
    world.run_until_idle();
    for (number, connection) in connections.iter().enumerate() {
        let body: String =
            (0..60).map(|event| format!("/relay/flood:{}={}\n", event + 1, 60 * number + event)).collect();
        world.send_bytes(*connection, &post(sid, &format!("&seq={}", number + 1), &body));
        world.turn(0);
    }
    world.turn(0);
    assert_eq!(world.gauge(Gauge::InputsHeld), 1);
    // One was handled, eight are held. There is no room for the last one.
    assert_eq!(world.counter(Counter::HttpRefusedEarly), 1);
    world.run_until_idle();
    let expected: Vec<usize> = (0..60 * 9).collect();
    assert_eq!(flood_numbers(&mut world, subscriber), expected);
    let mut answers = 0;
    for connection in &connections {
        let text = String::from_utf8(world.take_bytes(*connection)).unwrap();
        answers += text.matches("\"code\":200").count();
        assert!(!text.contains("\"code\":420"), "{text}");
    }
    assert_eq!(answers, 60 * 9, "each event is answered once");
    assert_nothing_is_left(&mut world, connections.into_iter().chain([subscriber]));
}

#[test]
fn a_held_session_can_end_and_lose_its_requests() {
    for ends in [false, true] {
        let (mut world, subscriber, sid) = world_with_session();
        let [first, second, third] = [world.connect(0), world.connect(0), world.connect(0)];
        world.run_until_idle();
        world.send_bytes(first, &post(sid, "", &flood_lines(0..60)));
        world.turn(0);
        world.send_bytes(second, &post(sid, "", "/relay/flood:0=60\n"));
        world.turn(0);
        world.send_bytes(third, &post(sid, "", "/relay/flood:7=61\n"));
        world.turn(0);
        assert_eq!(world.gauge(Gauge::InputsHeld), 1);
        if ends {
            world.send_control(0, ControlMessage::Shutdown { deadline_ns: u64::MAX });
            world.turn(0);
            assert_eq!((world.gauge(Gauge::InputsHeld), world.gauge(Gauge::HttpSessions)), (0, 0));
            world.run_until_idle();
        } else {
            world.reset(second);
            world.run_until_idle();
            let expected: Vec<usize> = (0..62).collect();
            assert_eq!(
                flood_numbers(&mut world, subscriber),
                expected,
                "events of a lost request are handled"
            );
            let text = String::from_utf8(world.take_bytes(third)).unwrap();
            assert!(text.ends_with("/qio/callback/7:0={\"code\":200,\"data\":null}\n"), "{text}");
        }
        assert_nothing_is_left(&mut world, [first, second, third, subscriber]);
    }
}

#[test]
fn a_held_request_that_ends_its_session_leaves_the_others_refused() {
    let (mut world, subscriber, sid) = world_with_session();
    let peers: Vec<Peer> = (0..3).map(|_| world.connect(0)).collect();
    world.run_until_idle();
    let flood = flood_lines(0..60);
    for (peer, (close, body)) in
        peers.iter().zip([(false, &flood[..]), (true, ""), (false, "/relay/flood:0=60\n")])
    {
        world.send_bytes(*peer, &post(sid, &format!("&close={close}"), body));
        world.turn(0);
    }
    assert_eq!(world.gauge(Gauge::InputsHeld), 1);
    world.run_until_idle();
    assert_eq!(flood_numbers(&mut world, subscriber), (0..60).collect::<Vec<_>>());
    let last = String::from_utf8(world.take_bytes(peers[2])).unwrap();
    assert!(
        last.starts_with("HTTP/1.1 4"),
        "its event was not handled, and its client must learn that: {last}"
    );
    assert_nothing_is_left(&mut world, peers.into_iter().chain([subscriber]));
}

#[test]
fn a_poll_whose_output_waits_for_its_shard_can_be_half_closed() {
    let mut world = world();
    let sid = sid_of_shard_0(&world);
    let (publisher, peer) = (world.connect_raw(0), world.connect(1));
    for body in ["/qio/on:1=\"/relay/flood\"\n", ""] {
        world.send_bytes(peer, &post(sid, "", body));
        world.run_until_idle();
    }
    let far = world.connect_raw(1);
    subscribe(&mut world, far, "/relay/flood");
    world.send_event(publisher, "/burst:0=1000");
    world.turn(0);
    assert!(world.shards[0].state().connections.has_blocked_sessions(), "the poll has output that must wait");
    world.end_stream(peer);
    world.turn(1);
    world.turn(0);
    world.run_until_idle();
    let next = world.connect(1);
    world.send_bytes(next, &post(sid, "", ""));
    world.run_until_idle();
    let output = String::from_utf8(world.take_bytes(next)).unwrap();
    assert!(output.contains("/relay/flood:0=0\n"), "the next request gets the output: {output}");
    assert_nothing_is_left(&mut world, [publisher, far, peer, next]);
}

#[test]
fn connections_that_end_are_not_charged_to_the_peer_before_them() {
    let config = Config { connections_per_address_max: Some(100), ..config() };
    let mut world = World::with_config(2, config, vec![Arc::new(Relay)]);
    let subscriber = world.connect_raw(1);
    subscribe(&mut world, subscriber, "/relay/flood");
    let (honest, publisher) = (world.connect_raw(0), world.connect_raw(0));
    let counter = |ip: &Ipv4Addr| {
        let address = CountedAddress::of((*ip).into());
        world.shards[0].state().mesh.shard_of_hash(world.shared.hasher.hash_one(address))
    };
    let ip = (1..=255).map(|last| Ipv4Addr::new(10, 1, 0, last)).find(|ip| counter(ip) == 1).unwrap();
    let from = address(&format!("{ip}:1"));
    let many: Vec<Peer> = (0..20).map(|_| world.connect_from(0, from)).collect();
    let last = world.connect(0);
    world.run_until_idle();
    flood(&mut world, publisher);
    world.turn(0);
    assert_eq!(world.gauge(Gauge::InputsHeld), 1);
    world.send_event(honest, "/qio/ping:1=");
    many.iter().for_each(|peer| world.reset(*peer));
    // A connection that may bring a request has the ends before it carried out.
    world.send_bytes(last, b"GET");
    world.turn(0);
    world.turn(0);
    world.send_event(honest, "/qio/ping:2=");
    world.turn(0);
    world.turn(0);
    assert_eq!(world.take_raw_messages(honest).len(), 2);
    assert_eq!(world.gauge(Gauge::InputsHeld), 1, "only the publisher is held");
    world.run_until_idle();
    assert_nothing_is_left(&mut world, [subscriber, honest, publisher, last]);
}

#[test]
fn threads_wait_in_their_inbox_and_lose_nothing() {
    let mut world = world();
    let subscriber = world.connect_raw(1);
    subscribe(&mut world, subscriber, "/relay/flood");
    let path = Path::parse("/relay/flood").unwrap();
    for number in 0..FLOOD {
        let data = number.to_string().into();
        world.post_command(0, Command::Broadcast { path: path.clone(), data });
    }
    for _ in 0..20 {
        world.turn(0);
    }
    assert!(world.shards[0].state().threads_must_wait());
    assert!(!world.is_runnable(0), "the shard sleeps until there is room");
    assert!(world.gauge(Gauge::MeshOverflowBytes) <= 4 << 10);
    world.run_until_idle();
    assert_eq!(flood_numbers(&mut world, subscriber), everything());
    assert_nothing_is_left(&mut world, [subscriber]);
}

#[test]
fn timers_wait_and_lose_nothing() {
    let register = |registrar: &mut Registrar| -> Result<(), Error> {
        let shard = registrar.shard();
        let mut number = 0;
        let path = Path::parse("/tick").unwrap();
        registrar.every(Duration::from_millis(1), move |cx| {
            if shard == 0 {
                cx.broadcast(&path, format!("{number}"));
                number += 1;
            }
        });
        registrar.event("/tick").register()
    };
    let mut world = World::with_config(2, config(), vec![Arc::new(FnApp(register))]);
    let subscriber = world.connect_raw(1);
    subscribe(&mut world, subscriber, "/tick");
    for _ in 0..1000 {
        world.advance(Duration::from_millis(1));
        world.turn(0);
    }
    assert!(world.gauge(Gauge::MeshOverflowBytes) <= 4 << 10);
    world.run_until_idle();
    world.advance(Duration::from_millis(20));
    world.run_until_idle();
    let numbers = numbers(&mut world, subscriber, "/tick");
    assert!(numbers.len() > 10 && numbers.iter().copied().eq(numbers[0]..numbers[0] + numbers.len()));
    assert_eq!(world.counter(Counter::MeshRefused), 0);
}

#[test]
fn what_one_handler_causes_beyond_the_limit_is_refused_as_a_whole_and_told() {
    let mut world = world();
    let (far, near) = (world.connect_raw(1), world.connect_raw(0));
    for client in [far, near] {
        subscribe(&mut world, client, "/relay/flood");
    }
    let publisher = world.connect_raw(0);
    world.send_event(publisher, "/burst:1=10");
    world.send_event(publisher, "/burst:2=1000");
    world.run_until_idle();
    let answers = world.take_raw_messages(publisher);
    assert!(answers[0].contains("\"code\":200"), "{answers:?}");
    assert_eq!(
        answers[1],
        "/qio/callback/2:0={\"code\":420,\"data\":null,\"err_msg\":\"the server is busy\"}"
    );
    let refused = world.counter(Counter::MeshRefused) as usize;
    assert!((100..1000).contains(&refused), "{refused}");
    let received = flood_numbers(&mut world, far);
    assert_eq!(received.len(), 1010 - refused);
    assert_eq!(received, flood_numbers(&mut world, near), "a refused broadcast reaches nobody");
    assert_nothing_is_left(&mut world, [far, near, publisher]);
}

#[test]
fn subscribing_and_unsubscribing_in_a_loop_is_held_back() {
    let mut world = world();
    let (client, other) = (world.connect_raw(0), world.connect_raw(0));
    for _ in 0..FLOOD {
        world.send_event(client, "/qio/on:0=\"/relay/a\"");
        world.send_event(client, "/qio/off:0=\"/relay/a\"");
    }
    for _ in 0..100 {
        world.turn(0);
        assert!(world.gauge(Gauge::MeshOverflowBytes) <= 4 << 10);
    }
    world.send_event(other, "/qio/on:1=\"/relay/b\"");
    world.turn(0);
    world.turn(0);
    assert!(world.take_raw_messages(other)[0].contains("\"code\":200"), "others are not affected");
    world.run_until_idle();
    assert_eq!(world.counter(Counter::Unsubscribes) as usize, FLOOD);
    assert_nothing_is_left(&mut world, [client, other]);
}
