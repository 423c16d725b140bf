//! Tests of complete shards on the simulated kernel, observed from the peers' ends of the connections.

use super::ControlMessage;
use super::testing::{FnApp, Peer, World, address, client_close, client_frame, raw_message};
use crate::app::clienttest::ClientTest;
use crate::app::relay::Relay;
use crate::app::{Answer, Application, Decision, Error, Later, LaterDecision, Registrar};
use crate::config::Config;
use crate::event::path::Path;
use crate::limits::{REFUSALS_MAX, REFUSALS_PER_ADDRESS_MAX};
use crate::metrics::{Counter, Gauge};
use crate::protocol::OHAI;
use crate::protocol::websocket::encode;
use crate::protocol::websocket::frame::Opcode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn app(
    register: impl Fn(&mut Registrar) -> Result<(), Error> + Send + Sync + 'static,
) -> Vec<Arc<dyn Application>> {
    vec![Arc::new(FnApp(register))]
}

fn relay() -> Vec<Arc<dyn Application>> {
    vec![Arc::new(Relay)]
}

fn clienttest() -> Vec<Arc<dyn Application>> {
    vec![Arc::new(ClientTest::default())]
}

fn path(path: &str) -> Path {
    Path::parse(path).unwrap()
}

/// Returns the event with which the server replies to a callback successfully and without data.
fn reply_ok(callback: u64) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}")
}

/// Returns the event with which the server replies to a callback with an error.
fn reply_error(callback: u64, code: u16) -> String {
    let message = if code == 202 { "\"subscription pending\"" } else { "null" };
    format!("/qio/callback/{callback}:0={{\"code\":{code},\"data\":null,\"err_msg\":{message}}}")
}

/// Subscribes a raw client and checks the server's reply.
fn subscribe(world: &mut World, client: Peer, path: &str) {
    world.send_event(client, &format!("/qio/on:1=\"{path}\""));
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client), [reply_ok(1)], "{path}");
}

/// Encodes a Close frame as the server sends it.
fn server_close(code: u16, reason: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::close(&mut bytes, code, reason);
    bytes
}

// Closing.

#[test]
fn a_closed_connection_leaves_nothing_behind() {
    let mut world = World::new(2, relay());
    for shard in [0, 1] {
        let client = world.connect_raw(shard);
        subscribe(&mut world, client, "/relay/a");
        world.end_stream(client);
        world.run_until_idle();
        assert!(world.is_closed(client));
    }
    let client = world.connect_websocket(0);
    world.send_bytes(client, &client_close(1000));
    world.run_until_idle();
    assert_eq!(world.take_bytes(client), server_close(1000, ""));
    assert!(world.is_closed(client), "the peer has sent its last bytes");
    world.assert_empty();
}

#[test]
fn a_peer_that_has_sent_its_close_gets_everything_before_the_end() {
    let mut world = World::new(1, relay());
    let client = world.connect_websocket(0);
    world.set_reading(client, false);
    let mut bytes = client_frame(Opcode::Text, b"/qio/ping:1=null");
    bytes.extend(client_close(1000));
    world.send_bytes(client, &bytes);
    world.run_until_idle();
    assert!(!world.is_closed(client), "nothing was read");
    world.send_bytes(client, &client_frame(Opcode::Text, b"/qio/ping:2=null"));
    world.run_until_idle();
    world.set_reading(client, true);
    world.run_until_idle();
    let mut expected = Vec::new();
    encode::frame(&mut expected, Opcode::Text, b"/qio/callback/1:0={\"code\":200,\"data\":null}");
    expected.extend(server_close(1000, ""));
    assert_eq!(world.take_bytes(client), expected, "what follows a Close is not answered");
    assert!(world.is_closed(client));
    world.assert_empty();
}

#[test]
fn a_peer_that_breaks_the_closing_handshake_is_not_reset() {
    let mut world = World::new(1, clienttest());
    let client = world.connect_websocket(0);
    world.send_bytes(client, &client_frame(Opcode::Text, b"/clienttest/close:0=null"));
    world.send_bytes(client, &[0xff; 20]);
    world.run_until_idle();
    assert_eq!(world.take_bytes(client), server_close(1000, "closed by the application"));
    assert!(world.is_stream_ended(client) && !world.is_closed(client), "it may send more");
    world.end_stream(client);
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_socket_is_closed_only_after_its_shutdown_has_completed() {
    let mut world = World::new(1, relay());
    let client = world.connect_raw(0);
    world.shards[0].kernel_mut().delays_shutdowns = true;
    world.send_bytes(client, &raw_message("no event"));
    world.run_until_idle();
    // The shutdown is pending in the kernel when the peer ends its stream. If the socket were closed now, another
    // connection could get its number before the shutdown is executed.
    world.end_stream(client);
    world.run_until_idle();
    assert!(!world.is_closed(client));
    world.shards[0].kernel_mut().delays_shutdowns = false;
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_close_received_together_with_the_closing_event_is_handled() {
    let mut world = World::new(1, clienttest());
    let client = world.connect_websocket(0);
    let mut bytes = client_frame(Opcode::Text, b"/clienttest/close:0=null");
    bytes.extend(client_frame(Opcode::Text, b"/qio/ping:1=null"));
    bytes.extend(client_close(1000));
    let (first, second) = bytes.split_at(bytes.len() - 3);
    world.send_bytes(client, first);
    world.send_bytes(client, second);
    world.run_until_idle();
    assert_eq!(world.take_bytes(client), server_close(1000, "closed by the application"));
    assert!(world.is_closed(client), "both sides have sent Close");
    world.assert_empty();
}

#[test]
fn a_half_closed_peer_still_gets_the_queued_messages_and_the_close() {
    let mut world = World::new(1, clienttest());
    let client = world.connect_websocket(0);
    world.set_reading(client, false);
    world.send_bytes(client, &client_frame(Opcode::Text, b"/qio/ping:1=null"));
    world.turn(0);
    world.send_bytes(client, &client_frame(Opcode::Text, b"/qio/ping:2=null"));
    world.send_bytes(client, &client_frame(Opcode::Text, b"/clienttest/close:0=null"));
    world.turn(0);
    world.end_stream(client);
    world.turn(0);
    world.turn(0);
    world.set_reading(client, true);
    world.turn(0);
    world.turn(0);
    let bytes = world.take_bytes(client);
    world.run_until_idle();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(&reply_ok(1)) && text.contains(&reply_ok(2)), "{text}");
    assert!(text.contains("closed by the application"), "{text}");
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn messages_and_broadcasts_queued_before_a_close_are_sent() {
    let mut world = World::new(1, {
        app(|registrar| {
            registrar.event("/all").register()?;
            registrar
                .event("/last")
                .handler(|cx, event| {
                    cx.broadcast(&path("/all"), "\"last\"");
                    cx.send(event.client, &path("/all"), "\"yours\"");
                    cx.close(event.client);
                    Answer::never()
                })
                .register()
        })
    });
    let client = world.connect_raw(0);
    subscribe(&mut world, client, "/all");
    world.send_event(client, "/last:0=null");
    world.turn(0);
    world.turn(0);
    let mut texts = world.take_raw_messages(client);
    texts.sort();
    assert_eq!(texts, ["/all:0=\"last\"", "/all:0=\"yours\""]);
    world.end_stream(client);
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_subscriber_whose_outbox_overflows_is_closed_in_the_same_turn() {
    let config = Config { outbox_bytes_max: 100_000, ..Config::default() };
    let mut world = World::with_config(1, config, relay());
    let [slow, sender] = [0, 0].map(|shard| world.connect_raw(shard));
    subscribe(&mut world, slow, "/relay/a");
    world.set_reading(slow, false);
    let data = "x".repeat(30_000);
    for _ in 0..4 {
        world.send_event(sender, &format!("/relay/a:0=\"{data}\""));
        world.turn(0);
    }
    assert_eq!(world.counter(Counter::ClosesSlow), 1);
    assert_eq!(world.counter(Counter::BroadcastDeliveries), 3, "the fourth broadcast overflowed the outbox");
    assert!(
        !world.shards[0].state().connections.has_endings(),
        "a decided end must not wait for the next turn: nothing would wake the shard"
    );
    world.run_seconds(6);
    assert!(world.is_closed(slow), "close-timeout has expired");
    world.end_stream(sender);
    world.run_until_idle();
    world.assert_empty();
}

/// One broadcast exceeds the outboxes of many clients. Their ends are spread over turns, in which others are served.
#[test]
fn many_clients_that_do_not_keep_up_end_over_several_turns() {
    const CLIENTS: usize = 1500;
    let config = Config { outbox_bytes_max: 4000, message_bytes_max: 3000, ..Config::default() };
    let mut world = World::with_config(1, config, relay());
    let clients: Vec<Peer> = (0..CLIENTS)
        .map(|_| {
            let client = world.connect_raw(0);
            subscribe(&mut world, client, "/relay/x");
            world.set_reading(client, false);
            client
        })
        .collect();
    let publisher = world.connect_raw(0);
    let text = format!("/relay/x:1=\"{}\"", "x".repeat(2000));
    world.send_event(publisher, &text);
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(publisher), [reply_ok(1)]);
    world.send_event(publisher, &text);
    world.turn(0);
    let closed = world.counter(Counter::ClosesSlow) as usize;
    assert!(closed > 0 && closed < CLIENTS, "{closed} ends were carried out in one turn");
    world.send_event(publisher, "/qio/ping:2=null");
    // Input on a connection whose end was decided does not wait for that end.
    let last = clients[CLIENTS - 1];
    world.send_event(last, "/qio/ping:3=null");
    world.turn(0);
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(publisher), [reply_ok(1), reply_ok(2)]);
    assert_eq!(world.counter(Counter::ClosesSlow) as usize, CLIENTS);
    assert_eq!(world.gauge(Gauge::Subscriptions), 0);
    world.run_seconds(6);
    assert_eq!(world.gauge(Gauge::Connections), 1);
    world.end_stream(publisher);
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_shutdown_ends_many_connections_over_several_turns() {
    const CLIENTS: usize = 1500;
    let mut world = World::new(1, relay());
    let clients: Vec<Peer> = (0..CLIENTS).map(|_| world.connect_raw(0)).collect();
    world.send_control(0, ControlMessage::Shutdown { deadline_ns: u64::MAX });
    world.turn(0);
    let closed = world.counter(Counter::ClosesShutdown) as usize;
    assert!(closed > 0 && closed < CLIENTS, "{closed} ends were carried out in one turn");
    world.run_until_idle();
    assert_eq!(world.counter(Counter::ClosesShutdown) as usize, CLIENTS);
    clients.iter().for_each(|client| world.end_stream(*client));
    world.run_until_idle();
    world.assert_empty();
}

/// A request for an upgrade, and a plain one.
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const POST: &str = "POST /?sid=0123456789abcdef0123456789abcdef&connect=true HTTP/1.1\r\nHost: a\r\n\
    Content-Length: 100\r\n\r\n";

/// Sends bytes from a peer that is over a limit; returns the server's answer. The server must then end the stream.
fn answer_to(world: &mut World, peer: Peer, bytes: &str) -> String {
    world.send_bytes(peer, bytes.as_bytes());
    world.run_until_idle();
    let answer = String::from_utf8(world.take_bytes(peer)).unwrap();
    assert!(world.is_stream_ended(peer), "{answer}");
    answer
}

#[test]
fn a_connection_beyond_the_limit_of_its_address_is_refused_in_its_protocol() {
    let config = Config { connections_per_address_max: Some(2), ..Config::default() };
    let mut world = World::with_config(3, config, relay());
    let from = |port: u16| address(&format!("192.0.2.1:{port}"));
    let first = world.connect_from(0, from(1));
    let second = world.connect_from(1, from(2));
    world.run_until_idle();
    for (shard, request) in [(0, UPGRADE), (1, POST), (2, UPGRADE)] {
        let third = world.connect_from(shard, from(3));
        let answer = answer_to(&mut world, third, request);
        assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 10\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\ntoo many connections from this address\n"), "{answer}");
        world.end_stream(third);
        world.run_until_idle();
        assert!(world.is_closed(third));
    }
    let raw = world.connect_from(2, from(3));
    assert_eq!(answer_to(&mut world, raw, "/qio/ohai"), "", "another protocol is closed without an answer");
    world.end_stream(raw);
    assert!(!world.is_closed(first) && !world.is_closed(second));
    assert_eq!(world.counter(Counter::ConnectionsRefusedAddress), 4);
    world.end_stream(first);
    world.run_until_idle();
    let fourth = world.connect_from(2, from(4));
    world.send_bytes(fourth, b"/qio/ohai");
    world.run_until_idle();
    assert_eq!(world.take_bytes(fourth), b"/qio/ohai", "one of the two connections has ended");
    [second, fourth].into_iter().for_each(|client| world.end_stream(client));
    world.run_until_idle();
    world.assert_empty();
    assert!(world.shards.iter().all(|shard| shard.state().addresses.is_empty()));
}

#[test]
fn a_connection_beyond_clients_max_is_refused_in_its_protocol() {
    let config = Config { clients_max: 1, ..Config::default() };
    let mut world = World::with_config(1, config, relay());
    let client = world.connect_raw(0);
    for (request, status) in [(UPGRADE, "503"), (POST, "503"), ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "503")]
    {
        let other = world.connect(0);
        let answer = answer_to(&mut world, other, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} Service Unavailable\r\n")), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 10\r\n"), "{answer}");
        assert_eq!(answer.ends_with("the server is full\n"), !request.starts_with("HEAD"), "{answer}");
        world.end_stream(other);
        world.run_until_idle();
        assert!(world.is_closed(other));
    }
    let raw = world.connect(0);
    assert_eq!(answer_to(&mut world, raw, "/qio/ohai"), "");
    world.end_stream(raw);
    world.run_until_idle();
    assert_eq!(world.counter(Counter::ConnectionsRefusedLimit), 4);
    assert_eq!(world.counter(Counter::HandshakesRefused), 0);
    world.send_event(client, "/qio/ping:1=");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client), [reply_ok(1)]);
}

#[test]
fn few_refused_connections_are_kept_and_not_for_long() {
    let config = Config { clients_max: 1, ..Config::default() };
    let mut world = World::with_config(1, config, relay());
    let client = world.connect_raw(0);
    let mut silent = Vec::new();
    for host in 1..40 {
        for port in 1..20 {
            let peer = world.connect_from(0, address(&format!("192.0.2.{host}:{port}")));
            world.run_until_idle();
            if !world.is_closed(peer) {
                silent.push((host, peer));
            }
        }
    }
    assert_eq!(silent.len(), REFUSALS_MAX, "the others were closed at once");
    let of_first = silent.iter().filter(|(host, _)| *host == 1).count();
    assert_eq!(of_first, REFUSALS_PER_ADDRESS_MAX);
    world.run_seconds(2);
    // Their streams have ended. Those that do not end their own are closed soon after.
    assert!(silent.iter().all(|(_, peer)| world.is_stream_ended(*peer)));
    world.run_seconds(3);
    assert!(silent.iter().all(|(_, peer)| world.is_closed(*peer)));
    let late = world.connect(0);
    assert!(answer_to(&mut world, late, UPGRADE).starts_with("HTTP/1.1 503 "), "there is room again");
    [client, late].into_iter().for_each(|peer| world.end_stream(peer));
    world.run_until_idle();
    world.assert_empty();
}

/// Connections of many shards are refused by one that counts the address. Most addresses have few connections, which cost
/// no messages.
#[test]
fn few_connections_of_an_address_cost_no_messages() {
    let mut world = World::new(3, relay());
    for host in 1..50 {
        for shard in 0..3 {
            world.connect_from(shard, address(&format!("192.0.2.{host}:1")));
        }
        world.run_until_idle();
    }
    assert_eq!(world.counter(Counter::MeshSent), 0);
}

#[test]
fn a_full_shard_leaves_newcomers_in_the_backlog_until_a_place_is_free() {
    const PLACES: u32 = 40;
    let mut world = World::with_places(2, Config::default(), relay(), PLACES, 3);
    let mut peers = Vec::new();
    while let Some(peer) = world.try_connect_from(0, address("10.0.0.1:1000")) {
        peers.push(peer);
        world.run_until_idle();
    }
    assert_eq!(peers.len(), PLACES as usize);
    assert_eq!(world.counter(Counter::AcceptsPaused), 1);
    for round in 1..4 {
        let last = peers.pop().unwrap();
        world.end_stream(last);
        world.run_until_idle();
        assert!(world.is_closed(last));
        peers.push(world.connect(0));
        world.run_until_idle();
        assert!(world.try_connect_from(0, address("10.0.0.1:1000")).is_none());
        assert_eq!(world.counter(Counter::AcceptsPaused), 1 + round);
    }
    assert!(world.try_connect_from(1, address("10.0.0.1:1000")).is_some(), "the other shard has places");
    assert_eq!(world.counter(Counter::ConnectionsRefusedDescriptors), 0);
}

#[test]
fn many_subscriptions_of_a_disconnected_client_end_over_several_turns() {
    let mut world = World::with_config(2, Config { clients_subs_max: 1 << 20, ..Config::default() }, relay());
    let client = world.connect_raw(0);
    for n in 0..5000 {
        world.send_event(client, &format!("/qio/on:0=\"/relay/{n}\""));
    }
    world.run_until_idle();
    assert_eq!(world.gauge(Gauge::Subscriptions), 5000);
    assert_eq!(world.shards[1].state().pubsub.paths(), 5000);
    world.end_stream(client);
    world.turn(0);
    world.turn(0);
    assert!(world.gauge(Gauge::Subscriptions) > 0, "one turn must not end all of them");
    world.run_until_idle();
    world.assert_empty();
}

// Time.

#[test]
fn a_peer_that_reads_nothing_is_closed_after_the_send_timeout_whatever_it_sends() {
    let mut world = World::new(1, relay());
    let (stuck, slow, idle) = (world.connect_raw(0), world.connect_raw(0), world.connect_raw(0));
    for peer in [stuck, slow] {
        world.set_reading(peer, false);
        world.send_event(peer, "/qio/ping:1=null");
    }
    for second in 0..90 {
        if !world.is_closed(stuck) {
            world.send_event(stuck, "/qio/ping:2=null");
        }
        if second % 20 == 0 {
            world.read_a_part(slow);
        }
        world.run_seconds(1);
        // The timeout is noticed up to a quarter of it late. The close timeout ends a peer that does not read its Close.
        assert!(second >= 29 || world.counter(Counter::TimeoutsSend) == 0, "after {second} s");
        assert!(second < 38 || world.counter(Counter::TimeoutsSend) == 1, "after {second} s");
    }
    assert!(world.is_closed(stuck));
    assert!(
        !world.is_closed(slow) && !world.is_closed(idle),
        "one reads slowly, the other has read everything"
    );
    world.set_reading(slow, true);
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(slow)[0], reply_ok(1));
    assert_eq!((world.counter(Counter::TimeoutsSend), world.counter(Counter::TimeoutsLiveness)), (1, 0));
}

#[test]
fn a_peer_that_sends_pings_and_reads_nothing_costs_one_pong() {
    let mut world = World::new(1, vec![]);
    let peer = world.connect_websocket(0);
    world.set_reading(peer, false);
    for number in 0..1000u32 {
        world.send_bytes(peer, &client_frame(Opcode::Ping, &number.to_be_bytes()));
        world.turn(0);
    }
    let bytes = world.gauge(Gauge::OutboxBytes);
    assert!(bytes < 512, "{bytes} bytes wait");
    assert_eq!(world.counter(Counter::PongsReplaced), 998);
    world.set_reading(peer, true);
    world.run_until_idle();
    let pong = |number: u32| [&[0x8a, 4], &number.to_be_bytes()[..]].concat();
    assert_eq!(world.take_bytes(peer), [pong(0), pong(999)].concat());
    // A peer that reads gets each one, also if the Pings come at once.
    for number in 0..10u32 {
        world.send_bytes(peer, &client_frame(Opcode::Ping, &number.to_be_bytes()));
    }
    world.run_until_idle();
    assert_eq!(world.take_bytes(peer), (0..10).flat_map(pong).collect::<Vec<u8>>());
}

#[test]
fn every_client_is_sent_something_at_least_once_a_minute() {
    let mut world = World::new(1, relay());
    let [idle, busy] = [0, 0].map(|shard| world.connect_raw(shard));
    let mut silence = [0; 2];
    for second in 0..600 {
        if second % 37 == 0 {
            world.send_event(busy, "/qio/ping:7=null");
        }
        // Without events from the client, the server would challenge it.
        world.send_event(idle, "/qio/ping:0=null");
        world.run_seconds(1);
        for (client, silence) in [idle, busy].into_iter().zip(&mut silence) {
            let texts = world.take_raw_messages(client);
            *silence += 1;
            if texts.iter().any(|text| text == "/qio/heartbeat:0=null") {
                assert!((40..=50).contains(silence), "a heartbeat after {silence} s");
            }
            if !texts.is_empty() {
                *silence = 0;
            }
            assert!(*silence <= 50);
        }
    }
    assert!(world.counter(Counter::Heartbeats) >= 10);
}

#[test]
fn a_long_handshake_timeout_does_not_delay_heartbeats() {
    let config = Config { timeout: 10 * MINUTE, ..Config::default() };
    let mut world = World::with_config(1, config, relay());
    let client = world.connect_raw(0);
    world.run_seconds(50);
    assert_eq!(world.take_raw_messages(client), ["/qio/heartbeat:0=null"]);
}

#[test]
fn the_heartbeats_of_clients_that_connect_at_once_are_spread_over_the_slack() {
    let mut world = World::new(1, relay());
    let clients: Vec<Peer> = (0..500).map(|_| world.connect_raw(0)).collect();
    world.run_seconds(40);
    assert_eq!(world.counter(Counter::Heartbeats), 0, "at most 10 s early");
    let in_each_second: Vec<u64> = (0..10)
        .map(|_| {
            let before = world.counter(Counter::Heartbeats);
            world.run_seconds(1);
            world.counter(Counter::Heartbeats) - before
        })
        .collect();
    assert_eq!(in_each_second.iter().sum::<u64>(), 500, "at the latest after 50 s");
    assert!(in_each_second.iter().all(|count| *count <= 100), "not all at once: {in_each_second:?}");
    for client in clients {
        assert_eq!(world.take_raw_messages(client), ["/qio/heartbeat:0=null"]);
    }
}

#[test]
fn a_due_timer_is_not_postponed_by_a_command_in_the_same_turn() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar
                .event("/ask")
                .handler(|cx, event| {
                    cx.send_with_callback(event.client, &path("/ask"), "1", |_, _| Answer::ok());
                    Answer::never()
                })
                .register()
        }),
    );
    let client = world.connect_raw(0);
    // An incomplete message, and a callback with a later deadline that is issued in the turn in which the message
    // times out.
    world.send_bytes(client, &[0]);
    world.run_until_idle();
    world.advance(11 * SECOND);
    let state = world.shards[0].state_mut();
    let client = state.connections.client_of(0).unwrap();
    state.begin_turn();
    state.issue(client, 0, None);
    world.run_until_idle();
    assert_eq!(world.counter(Counter::TimeoutsMessage), 1);
    assert_eq!(world.gauge(Gauge::Timers), 1, "only the timer of the close is left");
}

#[test]
fn a_silent_client_is_challenged_after_15_minutes_and_closed_after_16() {
    let mut world = World::new(1, relay());
    let [silent, responsive] = [0, 0].map(|shard| world.connect_raw(shard));
    world.run_seconds(15 * 60 - 1);
    assert!(world.take_raw_messages(silent).iter().all(|text| text == "/qio/heartbeat:0=null"));
    world.run_seconds(1);
    assert_eq!(world.take_raw_messages(silent), ["/qio/heartbeat:1=null"]);
    assert_eq!(world.take_raw_messages(responsive).pop().as_deref(), Some("/qio/heartbeat:1=null"));
    world.send_event(responsive, "/qio/callback/1:0=null");
    world.run_seconds(59);
    assert!(!world.is_stream_ended(silent));
    world.run_seconds(1);
    assert!(world.is_stream_ended(silent) && !world.is_stream_ended(responsive));
    assert_eq!(world.counter(Counter::TimeoutsLiveness), 1);
    assert_eq!(world.counter(Counter::Challenges), 2);
}

#[test]
fn the_message_timeout_restarts_with_each_message() {
    let mut world = World::new(1, relay());
    let [streaming, stuck] = [0, 0].map(|shard| world.connect_raw(shard));
    let message = raw_message("/qio/ping:0=null");
    let (head, tail) = message.split_at(5);
    world.send_bytes(streaming, head);
    world.send_bytes(stuck, head);
    for second in 0..30 {
        // Each piece ends one message and begins the next.
        world.send_bytes(streaming, &[tail, head].concat());
        world.run_seconds(1);
        assert!(!world.is_stream_ended(streaming), "after {second} s");
    }
    assert!(world.is_stream_ended(stuck));
    assert_eq!(world.counter(Counter::TimeoutsMessage), 1);
    world.run_seconds(10);
    assert!(world.is_stream_ended(streaming), "the last message was never completed");
}

#[test]
fn pings_do_not_extend_the_message_timeout() {
    let mut world = World::new(1, relay());
    let client = world.connect_websocket(0);
    let mut begun = client_frame(Opcode::Text, b"/qio");
    begun[0] &= 0x7F;
    world.send_bytes(client, &begun);
    for _ in 0..11 {
        world.send_bytes(client, &client_frame(Opcode::Ping, b""));
        world.run_seconds(1);
    }
    assert_eq!(world.counter(Counter::TimeoutsMessage), 1);
}

#[test]
fn an_incomplete_handshake_times_out() {
    let mut world = World::new(1, relay());
    let [silent, half] = [0, 0].map(|shard| world.connect(shard));
    world.send_bytes(half, b"GET / HTTP/1.1\r\n");
    world.run_seconds(9);
    assert!(!world.is_stream_ended(silent) && !world.is_stream_ended(half));
    world.run_seconds(1);
    assert!(world.is_stream_ended(silent) && world.is_stream_ended(half));
    assert_eq!(world.counter(Counter::TimeoutsHandshake), 2);
    world.run_seconds(6);
    world.assert_empty();
}

#[test]
fn the_number_of_timers_does_not_grow_with_events() {
    let mut world = World::new(1, clienttest());
    let client = world.connect_raw(0);
    for n in 0..200 {
        world.send_event(client, &format!("/clienttest/echo:{}=1", n + 1));
        world.run_seconds(1 + n % 7);
    }
    // That of the connection.
    assert_eq!(world.gauge(Gauge::Timers), 1);
}

#[test]
fn the_deadline_of_a_handshake_does_not_wake_a_shard_after_the_handshake() {
    let mut world = World::new(1, clienttest());
    let due_ms = |world: &World| {
        let state = world.states().next().unwrap();
        let (slot, connection) = state.connections.iter().next().unwrap();
        state.time.due_at(connection.timer.unwrap(), slot).unwrap() - state.time.now_ms()
    };
    let peer = world.connect(0);
    world.run_until_idle();
    assert_eq!(due_ms(&world), 10_000);
    world.send_bytes(peer, OHAI.as_bytes());
    world.run_until_idle();
    assert!(due_ms(&world) >= 40_000, "that of its first heartbeat, which may be 10 s early");
}

#[test]
fn clienttest_has_a_timer_only_while_there_are_subscriptions() {
    let mut world = World::new(1, clienttest());
    let clients = [world.connect_raw(0), world.connect_raw(0)];
    let send = |world: &mut World, client, path| {
        world.send_event(client, &format!("{path}:0=\"/clienttest/broadcast\""));
        // The sends of the last broadcast are watched for some seconds.
        world.run_seconds(10);
        // Each connection has a timer too.
        world.gauge(Gauge::Timers) - 2
    };
    for _ in 0..2 {
        assert!(send(&mut world, clients[0], "/qio/on") > 0);
        assert!(send(&mut world, clients[0], "/qio/on") > 0, "subscribed already");
        assert!(send(&mut world, clients[1], "/qio/on") > 0);
        assert!(send(&mut world, clients[0], "/qio/off") > 0, "the other one is still subscribed");
        assert_eq!(send(&mut world, clients[1], "/qio/off"), 0);
    }
    assert!(send(&mut world, clients[0], "/qio/on") > 0);
    clients.into_iter().for_each(|client| world.reset(client));
    world.run_seconds(10);
    assert_eq!(world.gauge(Gauge::Timers), 0);
}

// Applications.

#[test]
fn a_promise_dropped_after_a_refusal_has_no_effect() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar
                .event("/never")
                .on(|cx, subscription| {
                    let (_, _promise) = subscription.later(cx);
                    Decision::Refuse
                })
                .register()
        }),
    );
    let client = world.connect_raw(0);
    world.send_event(client, "/qio/on:1=\"/never\"");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client), [reply_error(1, 401)]);
    world.send_event(client, "/qio/ping:2=null");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client), [reply_ok(2)]);
}

#[test]
fn a_panic_in_an_application_fails_only_its_event() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar.event("/on").on(|_, _| panic!("on")).register()?;
            registrar.event("/off").off(|_, _| panic!("off")).register()?;
            registrar
                .event("/offer")
                .handler(|_, _| Answer::ok().with_callback(|_, _| panic!("callback")))
                .register()?;
            registrar
                .event("/after")
                .handler(|cx, _| {
                    cx.after(Duration::ZERO, |_| panic!("after"));
                    Answer::ok()
                })
                .register()?;
            registrar.every(SECOND, |_| panic!("every"));
            registrar.event("/handler").handler(|_, _| panic!("handler")).register()
        }),
    );
    let client = world.connect_raw(0);
    let mut check = |text: &str, expected: &str| {
        world.send_event(client, text);
        world.run_until_idle();
        assert_eq!(world.take_raw_messages(client), [expected], "{text}");
    };
    check("/handler:1=null", &reply_error(1, 500));
    check("/qio/on:2=\"/on\"", &reply_error(2, 500));
    check("/qio/on:3=\"/off\"", &reply_ok(3));
    check("/qio/off:4=\"/off\"", &reply_ok(4));
    check("/after:5=null", &reply_ok(5));
    check("/offer:6=null", "/qio/callback/6:1={\"code\":200,\"data\":null}");
    check("/qio/callback/1:7=null", &reply_error(7, 500));
    world.run_seconds(3);
    world.end_stream(client);
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn the_longest_durations_do_not_overflow() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar.every(Duration::MAX, |_| panic!("never"));
            registrar.every(Duration::from_millis(u64::MAX), |_| panic!("never"));
            registrar
                .event("/after")
                .handler(|cx, _| {
                    cx.after(Duration::MAX, |_| panic!("never"));
                    Answer::ok()
                })
                .register()
        }),
    );
    let client = world.connect_raw(0);
    world.run_seconds(5);
    world.send_event(client, "/after:1=null");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client), [reply_ok(1)]);
    world.run_seconds(5);
}

#[test]
fn a_dropped_promise_is_answered_500_and_a_kept_one_with_its_answer() {
    let kept: Arc<Mutex<Vec<Later>>> = Arc::default();
    let promises = Arc::clone(&kept);
    let mut world = World::new(
        2,
        app(move |registrar| {
            let promises = Arc::clone(&promises);
            registrar.event("/drop").handler(|cx, event| event.later(cx).0).register()?;
            registrar
                .event("/keep")
                .handler(move |cx, event| {
                    let (answer, later) = event.later(cx);
                    promises.lock().unwrap().push(later);
                    answer
                })
                .register()
        }),
    );
    let client = world.connect_raw(1);
    world.send_event(client, "/drop:1=null");
    world.send_event(client, "/keep:2=null");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client), [reply_error(1, 500)]);
    let later = kept.lock().unwrap().pop().unwrap();
    later.answer(Answer::data("7")).unwrap();
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client), ["/qio/callback/2:0={\"code\":200,\"data\":7}"]);
    world.send_event(client, "/keep:3=null");
    world.end_stream(client);
    world.run_until_idle();
    kept.lock().unwrap().clear();
    world.run_until_idle();
    assert_eq!(world.counter(Counter::AnswersLateDropped), 1);
    world.assert_empty();
}

#[test]
fn a_callback_offered_by_a_promise_runs_in_its_application() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar
                .event("/offer")
                .handler(|cx, event| {
                    cx.set_client_data(event.client, String::from("\"mine\""));
                    let (answer, later) = event.later(cx);
                    let offer = Answer::ok().with_send_callback(|cx, reply| {
                        let mine = cx.client_data::<String>(reply.client).cloned();
                        Answer::data(mine.unwrap_or_default())
                    });
                    later.answer(offer).unwrap();
                    answer
                })
                .register()
        }),
    );
    let client = world.connect_raw(0);
    world.send_event(client, "/offer:1=null");
    world.run_until_idle();
    world.send_event(client, "/qio/callback/1:2=null");
    world.run_until_idle();
    assert_eq!(
        world.take_raw_messages(client).pop().unwrap(),
        "/qio/callback/2:0={\"code\":200,\"data\":\"mine\"}"
    );
}

#[test]
fn client_data_is_dropped_when_the_client_disconnects() {
    let data = Arc::new(());
    let registered_data = Arc::clone(&data);
    let mut world = World::new(
        1,
        app(move |registrar| {
            let (data, late) = (Arc::clone(&registered_data), Arc::clone(&registered_data));
            registrar
                .event("/keep")
                .handler(move |cx, event| {
                    cx.set_client_data(event.client, Arc::clone(&data));
                    let (late, client) = (Arc::clone(&late), event.client);
                    cx.after(SECOND, move |cx| {
                        cx.set_client_data(client, late);
                    });
                    Answer::ok()
                })
                .register()
        }),
    );
    let registered = Arc::strong_count(&data);
    for late in [false, true] {
        let client = world.connect_raw(0);
        world.send_event(client, "/keep:0=null");
        world.run_until_idle();
        assert!(Arc::strong_count(&data) > registered);
        if late {
            world.run_seconds(2);
        }
        world.end_stream(client);
        world.run_until_idle();
        world.run_seconds(2);
        assert_eq!(Arc::strong_count(&data), registered, "data of a disconnected client was not dropped");
    }
}

#[test]
fn every_spelling_of_a_reserved_or_invalid_path_is_rejected() {
    let is_rejected = |path: &'static str| {
        let created = std::panic::catch_unwind(|| World::new(1, app(move |r| r.event(path).register())));
        created.is_err()
    };
    for path in ["/qio", "/qio/x", "//qio/x", "/@qio/x", "/q.io", "/qio/", "", "/", "relative", "@"] {
        assert!(is_rejected(path), "{path:?}");
    }
    for path in ["/qiox", "/a/qio", "/qi/o"] {
        assert!(!is_rejected(path), "{path:?}");
    }
}

// Subscriptions.

#[test]
fn late_decisions_respect_what_the_client_has_requested_since() {
    let promises: Arc<Mutex<Vec<LaterDecision>>> = Arc::default();
    let off_hook_runs: Arc<Mutex<usize>> = Arc::default();
    let (keep, count) = (Arc::clone(&promises), Arc::clone(&off_hook_runs));
    let mut world = World::new(
        2,
        app(move |registrar| {
            let (keep, count) = (Arc::clone(&keep), Arc::clone(&count));
            registrar
                .event("/later")
                .on(move |cx, subscription| {
                    let (decision, later) = subscription.later(cx);
                    keep.lock().unwrap().push(later);
                    decision
                })
                .off(move |_, _| *count.lock().unwrap() += 1)
                .register()
        }),
    );
    let client = world.connect_raw(0);
    // The events that the client sends, the codes of the immediate replies, the late decision, the code of the reply to
    // it, whether the client is subscribed then, and the number of runs of the off-hook.
    const ON: &str = "/qio/on:CB=\"/later\"";
    const OFF: &str = "/qio/off:CB=\"/later\"";
    type Case = (&'static [&'static str], &'static [u16], bool, u16, bool, usize);
    let cases: [Case; 5] = [
        (&[ON, ON], &[202], true, 200, true, 0),
        (&[ON, OFF], &[200], true, 200, false, 1),
        (&[ON, OFF], &[200], false, 401, false, 0),
        (&[ON, OFF, ON], &[200, 202], true, 200, true, 0),
        (&[ON], &[], false, 401, false, 0),
    ];
    for (sent, immediate_codes, accepted, final_code, subscribed, off_hooks) in cases {
        for text in sent {
            world.send_event(client, &text.replace("CB", "5"));
        }
        world.run_until_idle();
        let reply = |code| if code == 200 { reply_ok(5) } else { reply_error(5, code) };
        assert_eq!(
            world.take_raw_messages(client),
            immediate_codes.iter().map(|code| reply(*code)).collect::<Vec<_>>(),
            "{sent:?}"
        );
        promises.lock().unwrap().pop().unwrap().decide(accepted).unwrap();
        world.run_until_idle();
        assert_eq!(world.take_raw_messages(client), [reply(final_code)], "{sent:?}");
        assert_eq!(world.gauge(Gauge::Subscriptions), u64::from(subscribed), "{sent:?}");
        assert_eq!(std::mem::take(&mut *off_hook_runs.lock().unwrap()), off_hooks, "{sent:?}");
        world.send_event(client, &OFF.replace("CB", "0"));
        world.run_until_idle();
        *off_hook_runs.lock().unwrap() = 0;
        assert_eq!(world.shared.subscriptions.used(), 0);
    }
    world.send_event(client, "/qio/on:9=\"/later\"");
    world.end_stream(client);
    world.run_until_idle();
    promises.lock().unwrap().clear();
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn broadcasts_are_sent_only_to_shards_with_subscribers() {
    let mut world = World::new(3, relay());
    let [sender, near, far] = [0, 0, 2].map(|shard| world.connect_raw(shard));
    subscribe(&mut world, near, "/relay/a");
    subscribe(&mut world, far, "/relay/a");
    let before = [0, 1, 2].map(|shard| world.shards[shard].state().mesh.counters().received);
    for n in 0..10 {
        world.send_event(sender, &format!("/relay/a:0={n}"));
    }
    world.run_until_idle();
    let expected: Vec<String> = (0..10).map(|n| format!("/relay/a:0={n}")).collect();
    assert_eq!(world.take_raw_messages(near), expected);
    assert_eq!(world.take_raw_messages(far), expected);
    let after = [0, 1, 2].map(|shard| world.shards[shard].state().mesh.counters().received);
    assert_eq!([0, 1, 2].map(|shard| after[shard] - before[shard]), [0, 0, 10]);
}

// Shutdown.

#[test]
fn shutdown_sends_queued_messages_and_closes_every_connection() {
    let mut world = World::new(1, relay());
    let [websocket, raw, handshaking] = [world.connect_websocket(0), world.connect_raw(0), world.connect(0)];
    subscribe(&mut world, raw, "/relay/a");
    world.send_event(raw, "/relay/a:0=\"last\"");
    world.turn(0);
    world.send_control(0, ControlMessage::Shutdown { deadline_ns: u64::MAX });
    world.turn(0);
    world.run_until_idle();
    assert!(world.shards[0].kernel().has_stopped_listening);
    assert_eq!(world.take_raw_messages(raw), ["/relay/a:0=\"last\""]);
    assert_eq!(world.take_bytes(websocket), server_close(1001, "server going away"));
    assert!(world.is_stream_ended(raw) && world.is_stream_ended(handshaking));
    world.send_bytes(websocket, &client_close(1001));
    world.run_until_idle();
    assert!(world.is_closed(websocket), "both sides have sent Close");
    [raw, handshaking].into_iter().for_each(|client| world.end_stream(client));
    world.run_until_idle();
    assert!(world.shards[0].state().is_done());
    world.assert_empty();
}

#[test]
fn a_full_mesh_pauses_its_cause_refuses_new_paths_of_others_and_keeps_existing_subscriptions() {
    let config = Config { mesh_ring_messages: 8, mesh_overflow_bytes_max: 1, ..Config::default() };
    let mut world = World::with_config(2, config, relay());
    let (client, other) = (world.connect_raw(0), world.connect_raw(0));
    subscribe(&mut world, other, "/relay/old");
    world.take_bytes(other);
    // The other shard runs no turn. Messages about new paths fill its ring and overflow.
    for number in 2..30 {
        world.send_event(client, &format!("/qio/on:{number}=\"/relay/{number}\""));
    }
    world.turn(0);
    world.turn(0);
    let answers = world.take_raw_messages(client);
    let all: Vec<String> = (2..30).map(reply_ok).collect();
    assert!((8..28).contains(&answers.len()) && all.starts_with(&answers), "{answers:?}");
    assert_eq!((world.gauge(Gauge::InputsHeld), world.counter(Counter::InputsPaused)), (1, 1));
    world.send_event(other, "/qio/on:1=\"/relay/new\"");
    world.send_event(other, "/qio/on:2=\"/relay/old\"");
    world.turn(0);
    world.turn(0);
    let busy = "/qio/callback/1:0={\"code\":420,\"data\":null,\"err_msg\":\"the server is busy\"}".to_owned();
    let answered = world.take_raw_messages(other);
    assert_eq!(answered, [busy, reply_ok(2)], "a repeated `on` needs no message to other shards");
    assert_eq!(world.counter(Counter::SubscriptionsRefusedLimit), 1);
    world.run_until_idle();
    let rest = world.take_raw_messages(client);
    assert_eq!([answers, rest].concat(), all, "everything that had to wait is handled, in order");
    world.send_event(other, "/qio/on:3=\"/relay/new\"");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(other), [reply_ok(3)], "the mesh has room again");
    [client, other].into_iter().for_each(|client| world.end_stream(client));
    world.run_until_idle();
    world.assert_empty();
}

// Stalls: the process was stopped, and peers have gone on sending.

/// Everything that was sent during a stall is handled before a timer fires, although it takes several turns.
#[test]
fn what_was_sent_during_a_stall_is_not_late() {
    let register = |registrar: &mut Registrar| {
        let event = registrar.event("/offer").handler(|_, _| Answer::ok().with_callback(|_, _| Answer::ok()));
        event.register()
    };
    let mut world = World::new(1, app(register));
    let [message, handshake, offered, silent] =
        [world.connect_raw(0), world.connect(0), world.connect_raw(0), world.connect(0)];
    world.run_until_idle();
    world.send_event(offered, "/offer:1=");
    world.send_bytes(silent, &OHAI.as_bytes()[..4]);
    let bytes = raw_message("/qio/ping:1=");
    world.send_bytes(message, &bytes[..10]);
    world.send_bytes(handshake, &OHAI.as_bytes()[..4]);
    world.run_until_idle();
    assert!(world.take_raw_messages(offered)[0].starts_with("/qio/callback/1:1="));
    stall(&mut world, 20 * SECOND);
    // The first turns find nothing.
    world.turn(0);
    world.turn(0);
    world.send_bytes(message, &bytes[10..11]);
    world.turn(0);
    world.send_bytes(message, &bytes[11..]);
    world.send_bytes(handshake, &OHAI.as_bytes()[4..]);
    world.send_event(offered, "/qio/callback/1:2=");
    world.turn(0);
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(message), [reply_ok(1)]);
    assert_eq!(world.take_bytes(handshake), OHAI.as_bytes());
    assert_eq!(world.take_raw_messages(offered), [reply_ok(2)]);
    assert_eq!(world.counter(Counter::TimeoutsHandshake) + world.counter(Counter::TimeoutsMessage), 0);
    world.run_seconds(9);
    assert!(!world.is_closed(silent), "its time has begun anew");
    world.run_seconds(3);
    assert_eq!(world.counter(Counter::TimeoutsHandshake), 1, "but it is not endless");
}

/// A shard that always finds something new fires its timers nevertheless.
#[test]
fn timers_fire_soon_after_a_stall_also_on_a_busy_shard() {
    let mut world = World::new(1, relay());
    let (busy, silent) = (world.connect_raw(0), world.connect(0));
    world.run_until_idle();
    stall(&mut world, 20 * SECOND);
    for _ in 0..170 {
        world.advance(Duration::from_millis(100));
        world.send_event(busy, "/qio/ping:0=");
        world.turn(0);
    }
    world.send_event(busy, "/qio/ping:0=");
    world.turn(0);
    assert_eq!(world.counter(Counter::TimeoutsHandshake), 1);
    assert!(!world.is_closed(busy));
    let _ = silent;
}

/// Moves the clock as if the process had been stopped for this time.
fn stall(world: &mut World, time: Duration) {
    world.advance(time);
    world.shards[0].state_mut().time.catch_up_for_test(time);
}

// Paths.

/// Two shards know a path, and have its text once.
#[test]
fn the_text_of_a_path_is_shared_by_all_shards() {
    let mut world = World::new(3, relay());
    let client = world.connect_raw(1);
    subscribe(&mut world, client, "/relay/a");
    let text = |shard: usize| {
        let pubsub = &world.shards[shard].state().pubsub;
        pubsub.path(pubsub.find(path("/relay/a").as_ref()).unwrap()).as_str().as_ptr()
    };
    assert_eq!((text(0), text(2)), (text(1), text(1)));
}

#[test]
fn a_client_has_a_maximum_of_subscriptions() {
    let config = Config { clients_subs_max: 3, clients_subs_min: 3, ..Config::default() };
    let mut world = World::with_config(1, config, relay());
    let (client, other) = (world.connect_raw(0), world.connect_raw(0));
    (0..3).for_each(|number| subscribe(&mut world, client, &format!("/relay/{number}")));
    world.send_event(client, "/qio/on:7=\"/relay/3\"");
    world.send_event(client, "/qio/on:8=\"/relay/2\"");
    world.send_event(client, "/qio/off:9=\"/relay/2\"");
    world.send_event(client, "/qio/on:10=\"/relay/3\"");
    world.run_until_idle();
    let refused =
        "/qio/callback/7:0={\"code\":420,\"data\":null,\"err_msg\":\"too many subscriptions\"}".to_owned();
    assert_eq!(world.take_raw_messages(client), [refused, reply_ok(8), reply_ok(9), reply_ok(10)]);
    subscribe(&mut world, other, "/relay/4");
    assert_eq!(world.counter(Counter::SubscriptionsRefusedLimit), 1);
    [client, other].into_iter().for_each(|client| world.end_stream(client));
    world.run_until_idle();
    world.assert_empty();
}

/// The bytes of paths are bounded. Above the pressure, only clients with few subscriptions get new paths; paths that are in
/// use cost nothing more.
#[test]
fn the_bytes_of_paths_are_bounded_and_shared_fairly() {
    let config = Config {
        paths_bytes_max: 100_000,
        clients_subs_pressure: 50,
        clients_subs_min: 2,
        ..Config::default()
    };
    let mut world = World::with_config(2, config, relay());
    let greedy = world.connect_raw(0);
    let long = "x".repeat(1000);
    for number in 1..=100 {
        world.send_event(greedy, &format!("/qio/on:{number}=\"/relay/{number}/{long}\""));
    }
    world.run_until_idle();
    let answers = world.take_raw_messages(greedy);
    let accepted = answers.iter().filter(|answer| answer.contains("\"code\":200")).count();
    assert!((30..51).contains(&accepted), "{accepted}");
    assert!(answers[99].contains("\"code\":420,\"data\":null,\"err_msg\":\"too many bytes of paths\""));
    let used = world.shared.path_bytes.used();
    assert!((50_000..52_000).contains(&used), "{used}");
    assert_eq!(world.gauge(Gauge::PathBytes) as usize, used);
    // Others are not affected.
    let others: Vec<Peer> = (0..10).map(|shard| world.connect_raw(shard % 2)).collect();
    for (number, other) in others.iter().enumerate() {
        subscribe(&mut world, *other, &format!("/relay/other{number}/{long}"));
        subscribe(&mut world, *other, "/relay/common");
    }
    assert!(world.shared.path_bytes.used() < 100_000);
    for number in 1..=accepted {
        world.send_event(greedy, &format!("/qio/off:0=\"/relay/{number}/{long}\""));
    }
    world.run_until_idle();
    world.take_bytes(greedy);
    subscribe(&mut world, greedy, &format!("/relay/again/{long}"));
    others.into_iter().chain([greedy]).for_each(|client| world.end_stream(client));
    world.run_until_idle();
    world.assert_empty();
}

// Data that is not JSON.

/// A client's data that is not JSON reaches nobody else, and forges no answer.
#[test]
fn data_that_is_not_json_is_refused() {
    let register = |registrar: &mut Registrar| {
        registrar.event("/echo").handler(|_, event| Answer::data(event.data)).register()?;
        let room = Path::parse("/room").unwrap();
        let to_all = registrar.event("/room").handler(move |cx, event| {
            cx.broadcast(&room, event.data);
            cx.send(event.client, &room, event.data);
            Answer::ok()
        });
        to_all.register()
    };
    let mut world = World::new(2, [app(register), relay()].concat());
    let (client, near, far) = (world.connect_raw(0), world.connect_raw(0), world.connect_raw(1));
    for other in [near, far] {
        ["/room", "/relay/a"].iter().for_each(|path| subscribe(&mut world, other, path));
    }
    for (number, path) in (1..).zip(["/echo", "/room", "/relay/a"]) {
        world.send_event(client, &format!("{path}:{number}=1,\"code\":403"));
    }
    world.run_until_idle();
    let refused =
        |id| format!("/qio/callback/{id}:0={{\"code\":400,\"data\":null,\"err_msg\":\"invalid json\"}}");
    assert_eq!(world.take_raw_messages(client), (1..4).map(refused).collect::<Vec<_>>());
    world.send_event(client, "/relay/a:4=[1, 2]");
    world.send_event(client, "/echo:5={}");
    world.run_until_idle();
    let echoed = "/qio/callback/5:0={\"code\":200,\"data\":{}}".to_owned();
    assert_eq!(world.take_raw_messages(client), [reply_ok(4), echoed]);
    for other in [near, far] {
        assert_eq!(world.take_raw_messages(other), ["/relay/a:0=[1, 2]"]);
    }
    assert_eq!(world.counter(Counter::DataRefused), 3);
}
