//! Tests of TLS on shards without a kernel, with rustls as the other end.

use super::client::{TlsClient, world, world_with};
use super::{Advance, TlsTable};
use crate::app::relay::Relay;
use crate::config::{Config, ListenKind};
use crate::limits::{CLOSING_BYTES_PER_MS, TLS_HANDSHAKES_BUSY_TURN_NS};
use crate::metrics::{Counter, Gauge};
use crate::protocol::websocket::frame::Opcode;
use crate::protocol::{OHAI, testing::Random};
use crate::shard::testing::{UPGRADE, World, client_close, client_frame, raw_message};
use crate::tls::{TlsContext, testing};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::version::{TLS12, TLS13};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// The first byte of a handshake.
const HANDSHAKE_RECORD: u8 = 22;

fn relay(kind: ListenKind) -> World {
    world(1, kind, Config::default(), vec![Arc::new(Relay)])
}

fn counters(world: &World) -> [u64; 4] {
    [Counter::TlsHandshakes, Counter::TlsResumed, Counter::TlsAbandoned, Counter::TlsTruncated]
        .map(|counter| world.counter(counter))
}

/// Ends the stream of a client, and runs until nothing is left.
fn end(world: &mut World, client: &TlsClient) {
    world.end_stream(client.peer);
    world.run_until_idle();
}

#[test]
fn both_versions_carry_events() {
    for version in [&TLS12, &TLS13] {
        let mut world = relay(ListenKind::Tls);
        let mut client = TlsClient::connect_with(&mut world, 0, &[version]);
        client.send(&mut world, OHAI.as_bytes());
        assert_eq!(client.receive(&mut world), OHAI.as_bytes());
        client.send_event(&mut world, "/qio/ping:1=null");
        assert_eq!(client.receive_events(&mut world).len(), 1);
        assert_eq!(world.gauge(Gauge::TlsConnections), 1);
        assert_eq!(counters(&world), [1, 0, 0, 0]);
        client.send_close_notify(&mut world);
        assert!(client.receive(&mut world).is_empty() && client.is_closed(), "close_notify is answered");
        assert!(world.is_stream_ended(client.peer));
        end(&mut world, &client);
        assert_eq!(counters(&world), [1, 0, 0, 0]);
        assert_eq!((world.counter(Counter::ClosesByPeer), world.gauge(Gauge::TlsConnections)), (1, 0));
        world.assert_empty();
    }
}

#[test]
fn bytes_may_arrive_one_at_a_time() {
    let mut world = relay(ListenKind::Tls);
    let peer = world.connect(0);
    let mut client = TlsClient { peer, tls: TlsClient::unconnected(), received: Vec::new() };
    while client.tls.is_handshaking() || client.tls.wants_write() {
        let records = client.records();
        trickle(&mut world, &client, &records);
        client.handle(&mut world);
    }
    for bytes in [OHAI.as_bytes(), &raw_message("/qio/ping:1=null"), &raw_message("/qio/ping:2=null")] {
        let records = client.seal(bytes);
        trickle(&mut world, &client, &records);
    }
    let plain = client.receive(&mut world);
    assert!(plain.starts_with(OHAI.as_bytes()) && plain.len() > 2 * OHAI.len(), "{plain:?}");
    assert_eq!(world.gauge(Gauge::IncompleteBytes), 0);
    client.send_close_notify(&mut world);
    end(&mut world, &client);
    assert_eq!(counters(&world), [1, 0, 0, 0]);
    world.assert_empty();
}

/// Sends bytes one at a time, and runs the shards after each.
fn trickle(world: &mut World, client: &TlsClient, bytes: &[u8]) {
    for byte in bytes {
        world.send_bytes(client.peer, &[*byte]);
        world.run_until_idle();
    }
}

#[test]
fn large_messages_are_cut_anywhere() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::connect_raw(&mut world, 0);
    let mut random = Random::new(7);
    let text = format!("/qio/ping:1=\"{}\"", "x".repeat(50_000));
    for _ in 0..5 {
        let records = client.seal(&raw_message(&text).repeat(2));
        let mut rest = &records[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.below(5000).clamp(1, rest.len()));
            world.send_bytes(client.peer, piece);
            rest = after;
        }
        assert_eq!(client.receive_events(&mut world).len(), 2);
    }
    assert_eq!(world.gauge(Gauge::IncompleteBytes), 0);
}

#[test]
fn a_broadcast_reaches_tls_and_plain_clients() {
    let mut world = relay(ListenKind::Either);
    let mut clients: Vec<TlsClient> = (0..3).map(|_| TlsClient::connect_raw(&mut world, 0)).collect();
    let plain = world.connect_raw(0);
    for client in &mut clients {
        client.send_event(&mut world, "/qio/on:1=\"/relay/room\"");
        assert_eq!(client.receive_events(&mut world).len(), 1);
    }
    world.send_event(plain, "/qio/on:1=\"/relay/room\"");
    world.run_until_idle();
    world.take_raw_messages(plain);
    let large = "y".repeat(60_000);
    for text in ["one", &large, &large, "two"] {
        world.send_event(plain, &format!("/relay/room:0=\"{text}\""));
    }
    world.run_until_idle();
    let expected = world.take_raw_messages(plain);
    assert_eq!(expected.len(), 4);
    for client in &mut clients {
        assert_eq!(client.receive_events(&mut world), expected);
    }
    assert_eq!(world.counter(Counter::TlsHandshakes), 3);
}

#[test]
fn a_websocket_ends_with_close_notify_behind_its_close() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::connect(&mut world, 0);
    client.send(&mut world, UPGRADE);
    client.send(&mut world, &client_frame(Opcode::Text, OHAI.as_bytes()));
    assert!(client.receive(&mut world).ends_with(OHAI.as_bytes()));
    client.send(&mut world, &client_close(1000));
    let close = client.receive(&mut world);
    assert!(close.ends_with(&1000_u16.to_be_bytes()), "{close:?}");
    assert!(client.is_closed(), "close_notify follows the Close");
    assert!(world.is_closed(client.peer), "the socket is closed behind the last output");
    world.assert_empty();
    assert_eq!(counters(&world), [1, 0, 0, 0]);
}

#[test]
fn a_stream_that_ends_without_close_notify_is_truncated() {
    let mut world = relay(ListenKind::Tls);
    let client = TlsClient::connect_raw(&mut world, 0);
    end(&mut world, &client);
    assert!(world.is_closed(client.peer));
    assert_eq!(counters(&world), [1, 0, 0, 1]);
    assert_eq!(world.counter(Counter::ClosesByPeer), 0);
    world.assert_empty();
}

#[test]
fn a_request_is_answered_behind_close_notify_but_not_behind_a_truncation() {
    let request = b"GET /quickio.js HTTP/1.1\r\nHost: a\r\n\r\n";
    for closes in [true, false] {
        let mut world = relay(ListenKind::Tls);
        let mut client = TlsClient::connect(&mut world, 0);
        client.send(&mut world, request);
        if closes {
            client.send_close_notify(&mut world);
        }
        world.end_stream(client.peer);
        let response = client.receive(&mut world);
        assert_eq!(response.starts_with(b"HTTP/1.1 200"), closes);
        assert_eq!(client.is_closed(), closes);
        assert_eq!(world.counter(Counter::TlsTruncated), u64::from(!closes));
        world.assert_empty();
    }
}

#[test]
fn a_changed_record_is_told_with_an_alert() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::connect_raw(&mut world, 0);
    let mut records = client.seal(&raw_message("/qio/ping:1=null"));
    *records.last_mut().unwrap() ^= 1;
    world.send_bytes(client.peer, &records);
    client.send_event(&mut world, "/qio/ping:2=null");
    world.run_until_idle();
    let mut received = &world.take_bytes(client.peer)[..];
    client.tls.read_tls(&mut received).unwrap();
    let error = client.tls.process_new_packets().unwrap_err();
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    assert!(world.is_stream_ended(client.peer), "nothing follows a fatal alert");
    end(&mut world, &client);
    assert_eq!((world.counter(Counter::TlsBadRecords), world.counter(Counter::EventsReceived)), (1, 0));
    world.assert_empty();
}

#[test]
fn http_without_tls_is_told_so() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut world = relay(ListenKind::Tls);
    let http = world.connect(0);
    world.turn(0);
    world.send_bytes(http, request);
    world.run_until_idle();
    let response = String::from_utf8(world.take_bytes(http)).unwrap();
    assert!(response.starts_with("HTTP/1.1 400") && response.contains("takes only TLS"), "{response}");
    assert!(world.is_stream_ended(http));
    let raw = world.connect(0);
    world.turn(0);
    world.send_bytes(raw, OHAI.as_bytes());
    world.run_until_idle();
    assert!(world.take_bytes(raw).is_empty() && world.is_stream_ended(raw));
    assert_eq!(world.counter(Counter::TlsFailedPlain), 2);
    for peer in [http, raw] {
        world.end_stream(peer);
    }
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn handshakes_wait_for_their_share_of_a_turn() {
    let mut world = relay(ListenKind::Tls);
    let mut clients: Vec<TlsClient> = (0..100).map(|_| TlsClient::begin(&mut world, 0)).collect();
    world.turn(0);
    let waiting = world.gauge(Gauge::TlsHandshakesWaiting);
    assert!((1..100).contains(&waiting), "{waiting} of 100 handshakes wait");
    assert!(world.is_runnable(0));
    // One that leaves meanwhile, and one whose stream ends in order.
    world.reset(clients[98].peer);
    world.end_stream(clients[99].peer);
    let gone = clients.split_off(98);
    for client in &mut clients {
        client.complete(&mut world);
    }
    assert!(world.is_closed(gone[0].peer) && world.is_stream_ended(gone[1].peer));
    assert_eq!(counters(&world), [98, 0, 2, 0]);
    assert_eq!(world.gauge(Gauge::TlsHandshakesOpen), 0);
    assert_eq!(world.gauge(Gauge::IncompleteBytes), 0);
    for client in &clients {
        world.reset(client.peer);
    }
    world.run_until_idle();
    world.assert_empty();
}

/// Counts the handshakes of a hundred that are handled in a turn, if each takes 30 us.
fn handled_in_a_turn(is_limited: bool) -> usize {
    let context = TlsContext::new(testing::server_config("server", rustls::ALL_VERSIONS));
    let mut table = TlsTable::default();
    table.begin_turn();
    for slot in 0..100 {
        table.start(slot, false);
        table.begin(slot, 1);
        table.add_input(slot, &[HANDSHAKE_RECORD]);
    }
    if is_limited {
        table.limit_turn();
    }
    let now_ns = Cell::new(0);
    let core_ns = || now_ns.replace(now_ns.get() + 30_000);
    let mut handled = 0;
    while let Some(slot) = table.pop_waiting() {
        assert!(matches!(table.advance(slot, &context, core_ns), Advance::Incomplete));
        handled += 1;
    }
    handled
}

#[test]
fn handshakes_have_a_small_share_of_a_turn_that_is_limited() {
    assert_eq!((handled_in_a_turn(false), handled_in_a_turn(true)), (34, 4));
}

#[test]
fn a_turn_is_limited_if_the_kernel_has_more() {
    let mut world = relay(ListenKind::Tls);
    let peers = [world.connect(0), world.connect(0)];
    world.turn(0);
    world.shards[0].kernel_mut().heard_per_turn = 1;
    for peer in peers {
        world.send_bytes(peer, &[HANDSHAKE_RECORD]);
    }
    world.turn(0);
    let left_ns = world.shards[0].state().tls.budget_ns;
    assert!(left_ns <= TLS_HANDSHAKES_BUSY_TURN_NS, "{left_ns} ns are left");
}

/// A table in which each of these slots has sent a ClientHello.
fn waiting(slots: std::ops::Range<u32>) -> TlsTable {
    let mut table = TlsTable::default();
    for slot in slots {
        table.start(slot, false);
        table.begin(slot, 1);
        table.add_input(slot, &testing::written(&mut TlsClient::unconnected()));
    }
    table
}

#[test]
fn a_signature_that_does_not_fit_into_a_turn_waits() {
    let context = TlsContext::new(testing::server_config("server", rustls::ALL_VERSIONS));
    for (signing_us, in_a_turn) in [(300, 3), (500, 2), (600, 1), (5000, 1)] {
        let mut table = waiting(0..8);
        let now_ns = Cell::new(0);
        let clock = || now_ns.replace(now_ns.get() + signing_us * 1000);
        let mut signed = Vec::new();
        // The first turn learns how long a signature takes.
        for turn in 0..3 {
            table.begin_turn();
            let before = signed.len();
            while let Some(slot) = table.pop_waiting() {
                table.advance(slot, &context, clock);
                assert!(table.has_signed(slot));
                signed.push(slot);
            }
            let expected = if signed.len() == 8 { signed.len() - before } else { in_a_turn };
            assert_eq!(signed.len() - before, expected, "{signing_us} us, turn {turn}");
        }
        assert!(signed.is_sorted(), "in order: {signed:?}");
        table.check(8, |slot| slot < 8);
    }
}

#[test]
fn the_oldest_handshake_makes_room_for_a_new_one() {
    let mut world = relay(ListenKind::Tls);
    world.shards[0].state_mut().tls.set_begun_max(3);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(TlsClient::begin(&mut world, 0));
        world.run_until_idle();
    }
    assert_eq!((world.counter(Counter::TlsEvicted), world.gauge(Gauge::TlsHandshakesOpen)), (1, 3));
    assert!(world.is_stream_ended(clients[0].peer));
    clients[1].complete(&mut world);
    clients.push(TlsClient::begin(&mut world, 0));
    world.run_until_idle();
    assert_eq!(world.counter(Counter::TlsEvicted), 1, "a complete handshake has made room");
    clients[2].complete(&mut world);
}

#[test]
fn a_handshake_and_a_record_must_be_complete_in_time() {
    let mut world = relay(ListenKind::Tls);
    let silent = world.connect(0);
    let half = TlsClient::begin(&mut world, 0);
    let mut slow = TlsClient::connect_raw(&mut world, 0);
    let record = slow.seal(&raw_message("/qio/ping:1=null"));
    world.send_bytes(slow.peer, &record[..record.len() - 1]);
    world.run_until_idle();
    assert!(world.gauge(Gauge::IncompleteBytes) > 0);
    world.run_seconds(30);
    for peer in [silent, half.peer, slow.peer] {
        assert!(world.is_stream_ended(peer));
    }
    assert_eq!(counters(&world), [1, 0, 1, 0]);
    assert_eq!((world.counter(Counter::TimeoutsHandshake), world.counter(Counter::TimeoutsMessage)), (2, 1));
    assert_eq!(world.gauge(Gauge::IncompleteBytes), 0);
    world.run_seconds(30);
    world.assert_empty();
}

#[test]
fn a_full_server_sends_an_alert_instead_of_a_handshake() {
    let config = Config { clients_max: 1, ..Config::default() };
    let mut world = world(1, ListenKind::Either, config, vec![]);
    let _first = TlsClient::connect(&mut world, 0);
    let mut second = TlsClient::begin(&mut world, 0);
    world.run_until_idle();
    let mut received = &world.take_bytes(second.peer)[..];
    second.tls.read_tls(&mut received).unwrap();
    let error = second.tls.process_new_packets().unwrap_err();
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::InternalError));
    assert!(world.is_stream_ended(second.peer));
    let http = world.connect(0);
    world.turn(0);
    world.send_bytes(http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    world.run_until_idle();
    assert!(world.take_bytes(http).starts_with(b"HTTP/1.1 503"));
    assert_eq!(world.counter(Counter::TlsHandshakes), 1);
}

#[test]
fn keys_are_updated_in_both_directions() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::connect_raw(&mut world, 0);
    for number in 0..3 {
        client.tls.refresh_traffic_keys().unwrap();
        client.send_event(&mut world, &format!("/qio/ping:{number}1=null"));
        assert_eq!(client.receive_events(&mut world).len(), 1);
    }
    // Each request of the client changes its own key, and the server answers with a change of its key.
    assert_eq!(world.counter(Counter::TlsKeyUpdates), 6);
}

#[test]
fn a_shutdown_closes_tls() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::connect_raw(&mut world, 0);
    let mut idle = TlsClient::connect(&mut world, 0);
    let half = TlsClient::begin(&mut world, 0);
    world.run_until_idle();
    world.run_seconds(2);
    let deadline_ns = crate::qev::clock::nanos() + 60_000_000_000;
    world.send_control(0, crate::shard::ControlMessage::Shutdown { deadline_ns });
    client.receive(&mut world);
    idle.receive(&mut world);
    assert!(client.is_closed() && idle.is_closed());
    for peer in [client.peer, idle.peer, half.peer] {
        assert!(world.is_stream_ended(peer));
        if !world.is_closed(peer) {
            world.end_stream(peer);
        }
    }
    world.run_until_idle();
    world.assert_empty();
    assert_eq!(counters(&world)[3], 0);
}

#[test]
fn what_a_client_does_not_read_is_not_sealed() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::connect_raw(&mut world, 0);
    client.send_event(&mut world, "/qio/on:1=\"/relay/room\"");
    client.receive_events(&mut world);
    world.set_reading(client.peer, false);
    let mut sender = TlsClient::connect_raw(&mut world, 0);
    let text = format!("/relay/room:0=\"{}\"", "z".repeat(10_000));
    for _ in 0..20 {
        sender.send_event(&mut world, &text);
        world.run_until_idle();
    }
    let waiting = world.gauge(Gauge::OutboxBytes);
    assert!((200_000..300_000).contains(&waiting), "{waiting}");
    world.set_reading(client.peer, true);
    assert_eq!(client.receive_events(&mut world).len(), 20);
    assert_eq!(world.gauge(Gauge::OutboxBytes), 0);
}

#[test]
fn a_record_without_data_that_was_incomplete_is_no_incomplete_message() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::connect_raw(&mut world, 0);
    client.tls.refresh_traffic_keys().unwrap();
    let key_update = client.records();
    let (first, rest) = key_update.split_at(9);
    for piece in [first, rest] {
        world.send_bytes(client.peer, piece);
        world.run_until_idle();
    }
    // Longer than `timeout`.
    world.run_seconds(15);
    assert_eq!(world.counter(Counter::TimeoutsMessage), 0);
    client.receive(&mut world);
    client.send_event(&mut world, "/qio/ping:1=null");
    assert_eq!(client.receive_events(&mut world).len(), 1);
}

#[test]
fn a_client_that_sends_too_much_before_its_handshake_begins_is_not_served_at_once() {
    let mut world = relay(ListenKind::Tls);
    let peer = world.connect(0);
    world.turn(0);
    let mut hello = TlsClient::unconnected();
    let mut bytes = Vec::new();
    hello.write_tls(&mut bytes).unwrap();
    bytes.resize(70_000, 0);
    world.send_bytes(peer, &bytes);
    world.run_until_idle();
    assert_eq!(world.take_bytes(peer), [21, 3, 3, 0, 2, 2, 50], "an alert, and no ServerHello");
    assert!(world.is_stream_ended(peer));
    assert_eq!(world.counter(Counter::TlsFailedProtocol), 1);
    assert_eq!(world.gauge(Gauge::IncompleteBytes), 0);
    world.end_stream(peer);
    world.run_until_idle();
    world.assert_empty();
}

/// Shards that answer the first ClientHello of every client of [`hesitant`] with a HelloRetryRequest.
fn retrying() -> World {
    let provider = CryptoProvider { kx_groups: vec![kx_group::X25519], ..default_provider() };
    let (chain, key) = testing::certificate("server");
    let builder = ServerConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).unwrap().with_no_client_auth();
    let tls = builder.with_single_cert(chain, key).unwrap();
    world_with(1, ListenKind::Tls, Config::default(), vec![Arc::new(Relay)], tls)
}

/// Begins the handshake of a client that prefers a group of which those shards know nothing.
fn hesitant(world: &mut World) -> TlsClient {
    let kx_groups = vec![kx_group::SECP384R1, kx_group::X25519];
    let provider = CryptoProvider { kx_groups, ..default_provider() };
    let tls = testing::client(&Arc::new(testing::client_config_with(provider, &[&TLS13])));
    TlsClient::begin_as(world, 0, tls)
}

#[test]
fn a_second_client_hello_waits_for_its_share_of_a_turn() {
    let mut world = retrying();
    let mut crowd: Vec<TlsClient> = (0..100).map(|_| hesitant(&mut world)).collect();
    world.run_until_idle();
    for client in &mut crowd {
        client.handle(&mut world);
        let second = client.records();
        assert!(!second.is_empty() && client.tls.is_handshaking(), "the server wants another ClientHello");
        world.send_bytes(client.peer, &second);
    }
    world.turn(0);
    let waiting = world.gauge(Gauge::TlsHandshakesWaiting);
    assert!((1..100).contains(&waiting), "{waiting} of 100 handshakes wait");
    for client in &mut crowd {
        client.complete(&mut world);
    }
    assert_eq!(counters(&world), [100, 0, 0, 0]);

    // One that sends too much to wait is not served at once.
    let mut hasty = hesitant(&mut world);
    world.run_until_idle();
    hasty.handle(&mut world);
    let mut bytes = hasty.records();
    bytes.resize(70_000, 0);
    world.send_bytes(hasty.peer, &bytes);
    world.run_until_idle();
    assert_eq!(world.take_bytes(hasty.peer), [21, 3, 3, 0, 2, 2, 50], "an alert, and no ServerHello");
    assert!(world.is_stream_ended(hasty.peer));
    assert_eq!((world.counter(Counter::TlsFailedProtocol), counters(&world)[0]), (1, 100));
}

#[test]
fn much_data_behind_the_last_flight_does_not_wait() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::begin(&mut world, 0);
    world.run_until_idle();
    client.handle(&mut world);
    let mut bytes = client.records();
    bytes.extend(client.seal(&[OHAI.as_bytes(), &raw_message("/qio/ping:1=null").repeat(4000)].concat()));
    assert!(bytes.len() > 90_000);
    world.send_bytes(client.peer, &bytes);
    let received = client.receive(&mut world);
    assert_eq!(received.windows(16).filter(|part| part == b"/qio/callback/1:").count(), 4000);
}

#[test]
fn handshakes_have_room_while_others_use_up_that_of_incomplete_messages() {
    let (mut chain, key) = testing::certificate("server");
    let (authority, _) = testing::certificate("ca");
    // A chain of 12 KiB.
    chain.extend(authority.iter().cycle().take(20).cloned());
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).unwrap().with_no_client_auth();
    let tls = builder.with_single_cert(chain, key).unwrap();
    let config = Config { incomplete_bytes_max: Some(64 << 10), ..Config::default() };
    let mut world = world_with(1, ListenKind::Tls, config, vec![Arc::new(Relay)], tls);
    let silent: Vec<TlsClient> = (0..10).map(|_| TlsClient::begin(&mut world, 0)).collect();
    world.run_until_idle();
    let incomplete = world.gauge(Gauge::IncompleteBytes);
    assert!(incomplete > 64 << 10, "{incomplete}");
    let mut honest = TlsClient::connect_raw(&mut world, 0);
    // Its own incomplete messages have no room.
    honest.send(&mut world, &raw_message(&"x".repeat(60_000))[..40_000]);
    world.run_until_idle();
    assert_eq!((world.counter(Counter::ClosesIncomplete), counters(&world)[0]), (1, 1));
    assert!(silent.iter().all(|client| !world.is_stream_ended(client.peer)));
}

#[test]
fn a_closing_client_that_never_began_tls_loses_time_for_its_bytes() {
    let mut world = relay(ListenKind::Tls);
    let config = Config::default();
    let peer = world.connect(0);
    world.run_seconds(config.timeout.as_secs() + 1);
    assert!(world.is_stream_ended(peer) && !world.is_closed(peer), "its end is awaited");
    let bytes_max = CLOSING_BYTES_PER_MS * config.close_timeout.as_millis() as usize;
    let (piece, mut sent) = (vec![0; 60 << 10], 0);
    while sent < 3 * bytes_max && !world.is_closed(peer) {
        world.send_bytes(peer, &piece);
        sent += piece.len();
        world.turn(0);
        world.advance(Duration::from_millis(1));
    }
    assert!(sent <= 2 * bytes_max + (1 << 20), "{sent}");
    world.assert_empty();
}

#[test]
fn a_closing_client_loses_time_for_its_bytes_and_not_for_its_records() {
    let mut world = relay(ListenKind::Tls);
    let mut client = TlsClient::connect(&mut world, 0);
    client.send(&mut world, UPGRADE);
    client.send(&mut world, &client_frame(Opcode::Text, OHAI.as_bytes()));
    client.receive(&mut world);
    client.send(&mut world, &client_frame(Opcode::Binary, b"not text"));
    let close = client.receive(&mut world);
    assert!(close.windows(2).any(|code| code == 1003_u16.to_be_bytes()), "{close:?}");
    let small = client_frame(Opcode::Text, b"/qio/ping:1=null");
    let records: Vec<u8> = (0..20_000).flat_map(|_| client.seal(&small)).collect();
    world.send_bytes(client.peer, &records);
    world.run_until_idle();
    world.run_seconds(1);
    assert!(!world.is_closed(client.peer), "the client has close-timeout to answer");
    client.send(&mut world, &client_close(1003));
    client.receive(&mut world);
    assert!(client.is_closed() && world.counter(Counter::TimeoutsClose) == 0);
}
