//! Tests of connections that begin with a header of the PROXY protocol.

use crate::app::relay::Relay;
use crate::config::{Config, TrustedProxy};
use crate::metrics::{Counter, Gauge};
use crate::protocol::OHAI;
use crate::qev::ring::PeerAddress;
use crate::shard::addresses::CountedAddress;
use crate::shard::connection::Input;
use crate::shard::testing::{Peer, World, address, raw_message};
use std::net::Ipv4Addr;
use std::sync::Arc;

const LINE: &str = "PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n";

fn network(text: &str) -> TrustedProxy {
    TrustedProxy::Network(text.parse().unwrap())
}

fn config() -> Config {
    Config { proxy_protocol: vec![network("10.0.0.0/8")], ..Config::default() }
}

fn world(config: Config) -> World {
    World::with_config(1, config, vec![Arc::new(Relay)])
}

/// A header of version 2: for a client, or for the proxy itself.
fn binary(client: Option<[u8; 4]>) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    match client {
        Some(ip) => [&signature[..], b"\x21\x11\0\x0c", &ip, &[192, 0, 2, 2, 0x12, 0x67, 1, 187]].concat(),
        None => [&signature[..], b"\x20\0\0\0"].concat(),
    }
}

fn send(world: &mut World, peer: Peer, bytes: &[u8]) -> Vec<u8> {
    world.send_bytes(peer, bytes);
    world.run_until_idle();
    world.take_bytes(peer)
}

/// Connects from a proxy, and sends this header and the greeting behind it.
fn greet(world: &mut World, header: &[u8]) -> (Peer, Vec<u8>) {
    let peer = world.connect(0);
    let answer = send(world, peer, &[header, OHAI.as_bytes()].concat());
    (peer, answer)
}

fn close_all(world: &mut World, peers: impl IntoIterator<Item = Peer>) {
    peers.into_iter().for_each(|peer| world.end_stream(peer));
    world.run_seconds(12);
    world.assert_empty();
    assert!(world.states().all(|state| state.addresses.is_empty() && state.proxy_headers.is_empty()));
    assert_eq!(world.gauge(Gauge::IncompleteBytes), 0);
}

#[test]
fn a_header_may_come_in_any_pieces() {
    for header in [LINE.as_bytes().to_vec(), binary(Some([192, 0, 2, 1])), binary(None)] {
        let mut world = world(config());
        let all = [&header[..], OHAI.as_bytes()].concat();
        let mut peers = Vec::new();
        for split in 0..=all.len() {
            let peer = world.connect(0);
            let mut answer = send(&mut world, peer, &all[..split]);
            answer.extend(send(&mut world, peer, &all[split..]));
            assert_eq!(answer, OHAI.as_bytes(), "{split}");
            peers.push(peer);
        }
        let slow = world.connect(0);
        let answers: Vec<u8> = all.iter().flat_map(|byte| send(&mut world, slow, &[*byte])).collect();
        assert_eq!(answers, OHAI.as_bytes());
        assert_eq!(world.counter(Counter::ProxyHeaders), peers.len() as u64 + 1);
        assert_eq!(world.counter(Counter::ProxyHeadersRefused), 0);
        peers.push(slow);
        close_all(&mut world, peers);
    }
}

#[test]
fn every_protocol_may_follow_a_header() {
    let mut world = world(config());
    let (raw, _) = greet(&mut world, LINE.as_bytes());
    send(&mut world, raw, &raw_message("/qio/ping:1="));
    let websocket = world.connect(0);
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = send(&mut world, websocket, format!("{LINE}{upgrade}").as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let http = world.connect(0);
    let answer = send(
        &mut world,
        http,
        &[&binary(Some([192, 0, 2, 3]))[..], b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"].concat(),
    );
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));
    close_all(&mut world, [raw, websocket, http]);
}

/// If another shard counts the address, a connection that is too many may be greeted before it is closed.
#[test]
fn clients_count_by_the_addresses_in_the_headers() {
    for shards in [1, 2] {
        let config = Config { connections_per_address_max: Some(2), ..config() };
        let mut world = World::with_config(shards, config, vec![Arc::new(Relay)]);
        let mut peers = Vec::new();
        for number in 0..4 {
            let (peer, answer) = greet(&mut world, LINE.as_bytes());
            assert!(answer == OHAI.as_bytes() || number >= 2, "{number} of {shards} shards");
            assert_eq!(world.is_stream_ended(peer), number >= 2, "{number} of {shards} shards");
            peers.push(peer);
        }
        let (other, answer) = greet(&mut world, &binary(Some([192, 0, 2, 7])));
        assert_eq!(answer, OHAI.as_bytes());
        assert_eq!(world.counter(Counter::ConnectionsRefusedAddress), 2);
        peers.push(other);
        close_all(&mut world, peers);
    }
}

/// Those of one address that are too many are refused in their protocol, if one shard counts.
#[test]
fn a_client_that_has_too_many_connections_is_told_in_http() {
    let mut world = world(Config { connections_per_address_max: Some(1), ..config() });
    let (first, _) = greet(&mut world, LINE.as_bytes());
    let second = world.connect(0);
    let answer = send(&mut world, second, format!("{LINE}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 429 "), "{}", String::from_utf8_lossy(&answer));
    close_all(&mut world, [first, second]);
}

#[test]
fn a_connection_of_the_proxy_itself_counts_for_the_proxy() {
    let mut world = world(Config { connections_per_address_max: Some(2), ..config() });
    for header in [binary(None), b"PROXY UNKNOWN\r\n".to_vec()] {
        let greeted: Vec<_> = (0..3).map(|_| greet(&mut world, &header)).collect();
        assert!(greeted[..2].iter().all(|(_, answer)| answer == OHAI.as_bytes()));
        assert!(greeted[2].1.is_empty());
        close_all(&mut world, greeted.into_iter().map(|(peer, _)| peer));
    }
}

#[test]
fn a_proxy_behind_a_proxy_tells_its_clients_itself() {
    let trusted_proxies = vec![network("192.0.2.1/32")];
    let mut world = world(Config { trusted_proxies, connections_per_address_max: Some(1), ..config() });
    let mut peers = Vec::new();
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: 203.0.113.";
    for (client, is_first) in [("1", true), ("2", true), ("1", false)] {
        let peer = world.connect(0);
        let answer = send(&mut world, peer, format!("{LINE}{upgrade}{client}\r\n\r\n").as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        assert_eq!(answer.ends_with(b"too many clients"), !is_first, "{client}");
        peers.push(peer);
    }
    close_all(&mut world, peers);
}

#[test]
fn a_proxy_that_sends_no_header_or_a_wrong_one_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        OHAI.as_bytes(),
        b"PROXY TCP4 1 2 3 4\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\0\0\0",
    ] {
        let mut world = world(config());
        let peer = world.connect(0);
        assert_eq!(send(&mut world, peer, bytes), b"", "{bytes:?}");
        assert!(world.is_stream_ended(peer));
        assert_eq!(world.counter(Counter::ProxyHeadersRefused), 1);
        // Whatever follows does not matter.
        assert_eq!(send(&mut world, peer, LINE.as_bytes()), b"");
        close_all(&mut world, [peer]);
        assert_eq!(world.counter(Counter::ProxyHeaders), 0);
    }
}

#[test]
fn a_header_may_be_optional() {
    let mut world = world(Config { proxy_protocol_optional: true, ..config() });
    let (direct, answer) = greet(&mut world, b"");
    assert_eq!(answer, OHAI.as_bytes());
    // The first bytes are those of a header, but then it is none.
    let pieces = world.connect(0);
    assert_eq!(send(&mut world, pieces, b"P"), b"");
    let answer = send(&mut world, pieces, b"OST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    let (proxied, answer) = greet(&mut world, LINE.as_bytes());
    assert_eq!(answer, OHAI.as_bytes());
    assert_eq!(world.counter(Counter::ProxyHeaders), 1);
    let (wrong, answer) = greet(&mut world, b"PROXY X\r\n");
    assert_eq!(answer, b"");
    close_all(&mut world, [direct, pieces, proxied, wrong]);
}

#[test]
fn a_peer_from_elsewhere_may_not_send_a_header() {
    let mut world = world(config());
    for header in [LINE.as_bytes().to_vec(), binary(Some([192, 0, 2, 1]))] {
        for stranger in [address("192.0.2.9:1"), PeerAddress::UNIX] {
            let peer = world.connect_from(0, stranger);
            assert_eq!(send(&mut world, peer, &[&header[..], OHAI.as_bytes()].concat()), b"");
            assert!(world.is_stream_ended(peer));
            close_all(&mut world, [peer]);
        }
        // Nor a second one.
        let (peer, answer) = greet(&mut world, &[LINE.as_bytes(), &header].concat());
        assert_eq!(answer, b"");
        close_all(&mut world, [peer]);
    }
    assert_eq!(world.counter(Counter::ProxyHeadersRefused), 6);
}

#[test]
fn a_header_that_is_never_complete_ends_with_the_handshake() {
    let mut world = world(config());
    let slow = world.connect(0);
    let (broken, silent) = (world.connect(0), world.connect(0));
    send(&mut world, slow, &LINE.as_bytes()[..20]);
    send(&mut world, broken, &LINE.as_bytes()[..20]);
    assert!(world.gauge(Gauge::IncompleteBytes) > 0);
    world.reset(broken);
    world.run_seconds(12);
    assert!(world.is_stream_ended(slow) && world.is_stream_ended(silent));
    assert_eq!(world.counter(Counter::TimeoutsHandshake), 2);
    close_all(&mut world, [slow, silent]);
}

#[test]
fn a_full_server_answers_behind_the_header() {
    let mut world = world(Config { clients_max: 1, ..config() });
    let (first, _) = greet(&mut world, LINE.as_bytes());
    let second = world.connect(0);
    let answer = send(&mut world, second, format!("{LINE}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    close_all(&mut world, [first, second]);
}

/// Two shards of which the second one is slow, and headers for clients whose addresses the second one counts.
fn world_with_slow_counter(mesh_overflow_bytes_max: usize) -> (World, Vec<[u8; 4]>) {
    let connections_per_address_max = Some(4);
    let config =
        Config { connections_per_address_max, mesh_ring_messages: 8, mesh_overflow_bytes_max, ..config() };
    let world = World::with_config(2, config, vec![Arc::new(Relay)]);
    let counter = |ip: &Ipv4Addr| {
        let address = CountedAddress::of((*ip).into());
        world.shards[0].state().mesh.shard_of_hash(world.shared.hasher.hash_one(address))
    };
    let all = (1..=255).map(|last| Ipv4Addr::new(192, 0, 2, last)).filter(|ip| counter(ip) == 1);
    let clients = all.map(|ip| ip.octets()).collect();
    (world, clients)
}

/// The stream of a client ends while the client is not listened to, and before another shard has counted its address.
#[test]
fn a_client_that_has_ended_is_not_received_from_when_it_is_counted() {
    let (mut world, clients) = world_with_slow_counter(64 << 10);
    let subscriber = world.connect_from(1, PeerAddress::UNIX);
    send(&mut world, subscriber, OHAI.as_bytes());
    send(&mut world, subscriber, &raw_message("/qio/on:0=\"/relay/flood\""));
    world.take_bytes(subscriber);
    let publisher = world.connect(0);
    world.run_until_idle();
    world.send_bytes(publisher, &[&binary(Some(clients[0])), OHAI.as_bytes()].concat());
    for number in 0..100 {
        world.send_event(publisher, &format!("/relay/flood:0={number}"));
    }
    world.end_stream(publisher);
    world.turn(0);
    let input = |world: &World| world.shards[0].state().connections.iter().next().unwrap().1.input;
    assert_eq!((world.gauge(Gauge::InputsHeld), input(&world)), (1, Input::Ended));
    world.turn(1);
    world.turn(0);
    assert_eq!(input(&world), Input::Ended, "the end is held");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(subscriber).len(), 100);
    assert!(world.is_closed(publisher));
    close_all(&mut world, [subscriber]);
}

/// The messages that count an address are charged to the connection that has sent the header, and to no other.
#[test]
fn counting_is_charged_to_the_connection_with_the_header() {
    let (mut world, clients) = world_with_slow_counter(64);
    let (first, _) = greet(&mut world, &binary(Some(clients[0])));
    let proxied: Vec<Peer> = clients[..20].iter().map(|_| world.connect(0)).collect();
    world.run_until_idle();
    for (peer, client) in proxied.iter().zip(&clients) {
        world.send_event(first, "/qio/ping:1=");
        world.send_bytes(*peer, &binary(Some(*client)));
        world.turn(0);
    }
    let state = world.shards[0].state();
    let mut over =
        state.connections.iter().map(|(slot, _)| state.mesh.is_over(state.connections.source(slot)));
    assert_eq!(over.next(), Some(false), "a client that has only sent pings");
    assert!(over.any(|is_over| is_over));
    drop(over);
    world.run_until_idle();
    close_all(&mut world, proxied.into_iter().chain([first]));
}
