//! Tests of storms: very many peers connect at once, and a shard is behind with reading what they send.

use crate::app::relay::Relay;
use crate::config::Config;
use crate::metrics::Counter;
use crate::protocol::OHAI;
use crate::shard::testing::{Peer, World, address};
use std::sync::Arc;
use std::time::Duration;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Shards whose kernels hand over the input of this many sockets in a turn, as Linux does.
fn world(shards: usize, heard_per_turn: usize) -> World {
    let mut world = World::new(shards, vec![Arc::new(Relay)]);
    for shard in &mut world.shards {
        shard.kernel_mut().heard_per_turn = heard_per_turn;
    }
    world
}

/// Connects a peer and has the shard listen to it.
fn connect(world: &mut World) -> Peer {
    let peer = world.connect(0);
    world.turn(0);
    peer
}

fn timeouts(world: &World) -> u64 {
    world.counter(Counter::TimeoutsHandshake) + world.counter(Counter::TimeoutsMessage)
}

fn is_greeted(world: &mut World, peer: Peer) -> bool {
    world.take_bytes(peer) == OHAI.as_bytes()
}

/// The shard takes no turn for longer than `timeout`, while what peers have sent lies in their sockets; then it reads them
/// over many turns. None is late but one that has sent nothing.
#[test]
fn what_waits_in_sockets_is_not_late() {
    let mut world = world(1, 4);
    let peers: Vec<Peer> = (0..200).map(|_| connect(&mut world)).collect();
    let (silent, punctual) = peers.split_first().unwrap();
    world.advance(seconds(9));
    punctual.iter().for_each(|peer| world.send_bytes(*peer, OHAI.as_bytes()));
    world.advance(seconds(6));
    world.run_until_idle();
    let greeted = punctual.iter().filter(|peer| is_greeted(&mut world, **peer)).count();
    assert_eq!((greeted, timeouts(&world)), (199, 1));
    assert!(world.is_stream_ended(*silent));
}

/// Data behind a mark is late: each peer has the time of the mark, and no more.
#[test]
fn what_is_sent_after_the_time_is_over_is_late() {
    let mut world = world(1, 4);
    let peers: Vec<Peer> = (0..40).map(|_| connect(&mut world)).collect();
    world.advance(seconds(11));
    world.turn(0);
    peers[20..].iter().for_each(|peer| world.send_bytes(*peer, OHAI.as_bytes()));
    world.run_until_idle();
    // The turn in which the mark comes back reads three more.
    let late = timeouts(&world);
    assert!(late >= 37, "the mark was set before they have sent anything, but only {late} are late");
}

/// Peers that always have something to say, more than the shard reads in a turn, do not postpone the end of a silent one.
#[test]
fn a_hostile_storm_does_not_postpone_the_end_of_a_silent_peer() {
    let mut world = world(1, 10);
    let chatty: Vec<Peer> = (0..30).map(|_| world.connect_raw(0)).collect();
    let silent = connect(&mut world);
    world.advance(seconds(10));
    let mut turns = 0;
    while !world.is_stream_ended(silent) {
        for peer in &chatty {
            world.send_event(*peer, "/qio/ping:0=");
        }
        world.turn(0);
        turns += 1;
        assert!(turns < 12, "the mark must come back behind what was there when it was set");
    }
    // A peer that dribbles its handshake does too, a byte in each turn.
    let dribbling = connect(&mut world);
    world.advance(seconds(10));
    for turn in 0.. {
        if world.is_stream_ended(dribbling) {
            break;
        }
        chatty.iter().for_each(|peer| world.send_event(*peer, "/qio/ping:0="));
        OHAI.as_bytes()[..8].iter().skip(turn).take(1).for_each(|byte| world.send_bytes(dribbling, &[*byte]));
        world.turn(0);
        assert!(turn < 12, "what is read does not give a peer more time");
    }
}

/// A receive that has no buffer may have left something in its socket. The peer is waited for until it was read, but not for
/// ever.
#[test]
fn a_receive_without_a_buffer_does_not_count_against_the_peer() {
    for (beyond_timeout, serves) in [(5, true), (11, false)] {
        let mut world = World::new(1, vec![Arc::new(Relay)]);
        let peer = connect(&mut world);
        world.send_bytes(peer, OHAI.as_bytes());
        world.shards[0].kernel_mut().lacks_buffers = true;
        for _ in 0..10 + beyond_timeout {
            world.advance(seconds(1));
            (0..4).for_each(|_| world.turn(0));
        }
        world.shards[0].kernel_mut().lacks_buffers = false;
        world.run_until_idle();
        assert_eq!(is_greeted(&mut world, peer), serves, "{beyond_timeout}");
        assert_eq!(timeouts(&world), u64::from(!serves));
    }
}

/// A receive that the kernel has ended may have left something in its socket, too.
#[test]
fn a_receive_that_was_ended_does_not_count_against_the_peer() {
    let mut world = world(1, 1);
    let client = world.connect_raw(0);
    let (peer, silent) = (connect(&mut world), connect(&mut world));
    world.shards[0].kernel_mut().ends_receives = true;
    // The mark is set in the turn that hears the client, and comes back before what the peer has sent last.
    world.send_event(client, "/qio/ping:1=");
    let (first, rest) = OHAI.as_bytes().split_at(5);
    world.send_bytes(peer, first);
    world.send_bytes(peer, rest);
    world.advance(seconds(10));
    world.run_until_idle();
    assert!(is_greeted(&mut world, peer) && world.is_stream_ended(silent));
    assert_eq!(timeouts(&world), 1);
}

/// While another shard has not counted the address of a connection, nothing is received from the peer, and its time has not
/// begun.
#[test]
fn waiting_for_the_count_of_an_address_does_not_count_against_the_peer() {
    let config = Config { connections_per_address_max: Some(20), ..Config::default() };
    let mut world = World::with_config(2, config, vec![Arc::new(Relay)]);
    let mut peers = Vec::new();
    for connection in 0..80 {
        let peer = world.connect_from(0, address(&format!("10.0.0.{}:1000", connection % 8)));
        world.send_bytes(peer, OHAI.as_bytes());
        peers.push(peer);
    }
    for _ in 0..15 {
        world.advance(seconds(1));
        (0..3).for_each(|_| world.turn(0));
    }
    let greeted = peers.iter().filter(|peer| is_greeted(&mut world, **peer)).count();
    assert!(greeted < peers.len(), "some addresses are counted by the other shard");
    assert_eq!(timeouts(&world), 0);
    world.run_until_idle();
    let rest = peers.iter().filter(|peer| is_greeted(&mut world, **peer)).count();
    assert_eq!((greeted + rest, timeouts(&world)), (peers.len(), 0));
}

/// A storm of connections beside clients: in each turn the kernel hands over less than has arrived for a while, and every
/// ping is answered when everything has been that was there before it.
#[test]
fn pings_are_answered_in_their_turn_during_a_storm() {
    const PER_TURN: usize = 20;
    let mut world = world(1, PER_TURN);
    let clients: Vec<Peer> = (0..10).map(|_| world.connect_raw(0)).collect();
    let mut storm = Vec::new();
    for turn in 0..100 {
        for _ in 0..if turn < 30 { 30 } else { 0 } {
            // Those that find no accept armed wait in the backlog.
            let Some(peer) = world.try_connect_from(0, address("10.0.0.1:1000")) else { break };
            world.send_bytes(peer, OHAI.as_bytes());
            storm.push(peer);
        }
        let client = clients[turn % clients.len()];
        world.send_event(client, "/qio/ping:1=");
        // The kernel has queued those that were accepted before, which are at most all of the storm.
        let (before, mut turns) = (storm.len(), 0);
        while world.take_raw_messages(client).is_empty() {
            world.turn(0);
            turns += 1;
            assert!(turns <= before / PER_TURN + 4, "a ping waited for {turns} turns behind {before}");
        }
    }
    world.run_until_idle();
    assert!(storm.len() >= 800, "{}", storm.len());
    assert!(storm.iter().all(|peer| is_greeted(&mut world, *peer)));
}
