//! Tests of connections that are closing.

use super::CLOSING_BYTES_PER_MS;
use crate::app::relay::Relay;
use crate::config::Config;
use crate::metrics::Counter;
use crate::protocol::websocket::frame::Opcode;
use crate::shard::testing::{Peer, World, client_close, client_frame};
use std::sync::Arc;
use std::time::Duration;

/// A piece of what a peer sends that has not noticed its end, larger than a buffer.
fn piece() -> Vec<u8> {
    client_frame(Opcode::Text, "x".repeat(60 << 10).as_bytes())
}

/// Connects a client by this function, and has the server close the connection.
fn closing(world: &mut World, connect: fn(&mut World, usize) -> Peer) -> Peer {
    let peer = connect(world, 0);
    world.send_bytes(peer, &client_frame(Opcode::Text, b"no event"));
    world.run_until_idle();
    assert!(!world.take_bytes(peer).is_empty() || world.is_stream_ended(peer));
    assert!(!world.is_closed(peer));
    peer
}

/// The number of bytes that take up all the time of a closing peer.
fn bytes_max() -> usize {
    Config::default().close_timeout.as_millis() as usize * CLOSING_BYTES_PER_MS
}

/// Sends pieces, one in each millisecond, while the server reads them, but no more than `bytes`; returns how many bytes
/// were sent.
fn flood(world: &mut World, peer: Peer, bytes: usize) -> usize {
    let (piece, mut sent) = (piece(), 0);
    while sent < bytes && !world.is_closed(peer) {
        world.send_bytes(peer, &piece);
        sent += piece.len();
        world.turn(0);
        world.advance(Duration::from_millis(1));
    }
    sent
}

#[test]
fn a_peer_that_never_stops_is_read_for_a_limited_number_of_bytes() {
    let mut world = World::new(1, vec![Arc::new(Relay)]);
    for connect in [World::connect_websocket, World::connect_raw] {
        let peer = closing(&mut world, connect);
        let sent = flood(&mut world, peer, 3 * bytes_max());
        assert!((bytes_max()..=2 * bytes_max() + (1 << 20)).contains(&sent), "{sent}");
    }
    assert_eq!(world.counter(Counter::TimeoutsClose), 2);
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_peer_that_is_slow_to_stop_completes_the_closing_handshake() {
    let mut world = World::new(1, vec![Arc::new(Relay)]);
    let peer = closing(&mut world, World::connect_websocket);
    flood(&mut world, peer, bytes_max() / 2);
    world.send_bytes(peer, &client_close(1007));
    world.run_until_idle();
    assert!(world.is_closed(peer));
    assert_eq!(world.counter(Counter::TimeoutsClose), 0);
    world.assert_empty();
}
