//! A simulation of peers that keep to no rules, on shards that have low limits and run irregularly: whatever they do, no
//! shard panics, the invariants hold after each turn, and nothing is left of them in the end.

use crate::app::relay::Relay;
use crate::app::{Answer, Application, Command, Error, Json, Registrar};
use crate::config::Config;
use crate::event::path::Path;
use crate::protocol::OHAI;
use crate::protocol::testing::{Random, fuzz};
use crate::protocol::websocket::frame::Opcode;
use crate::qev::ring::PeerAddress;
use crate::shard::ControlMessage;
use crate::shard::testing::{FnApp, Peer, UPGRADE, World, address, client_close, client_frame, raw_message};
use std::sync::Arc;
use std::time::Duration;

/// The way in which a peer speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Raw,
    WebSocket,
    Http,
    Nothing,
}

/// A peer, which may be gone.
struct Hostile {
    peer: Peer,
    speech: Speech,
}

/// An application whose events close their client, or cause many messages.
fn app(registrar: &mut Registrar) -> Result<(), Error> {
    let close = registrar.event("/close").handler(|cx, event| {
        cx.close(event.client);
        Answer::ok()
    });
    close.register()?;
    let path = Path::parse("/relay/a").unwrap();
    let burst = registrar.event("/burst").handler(move |cx, _| {
        (0..30).for_each(|number| cx.broadcast(&path, format!("{number}")));
        Answer::ok()
    });
    burst.register()
}

const EVENTS: [&str; 10] = [
    "/qio/on:1=\"/relay/a\"",
    "/qio/on:2=\"/relay/b\"",
    "/qio/off:0=\"/relay/a\"",
    "/relay/a:0=1",
    "/relay/b:3=2",
    "/burst:0=",
    "/burst:4=",
    "/close:0=",
    "/qio/ping:5=",
    "no event",
];

fn events(random: &mut Random) -> Vec<&'static str> {
    // Malformed events and closes are rare, because nothing comes of a peer after them.
    let last = if random.once_in(8) { EVENTS.len() } else { 7 };
    (0..=random.below(20)).map(|_| EVENTS[random.below(last)]).collect()
}

fn message(random: &mut Random, speech: Speech) -> Vec<u8> {
    let events = events(random);
    let mut bytes = match speech {
        Speech::Raw => events.into_iter().flat_map(raw_message).collect(),
        Speech::WebSocket => match random.below(10) {
            0 => client_close(1000),
            1 => (0..40).flat_map(|_| client_frame(Opcode::Ping, b"ping")).collect(),
            _ => events.into_iter().flat_map(|text| client_frame(Opcode::Text, text.as_bytes())).collect(),
        },
        Speech::Http | Speech::Nothing => request(random, &events),
    };
    if random.once_in(30) {
        random.damage(&mut bytes);
    }
    bytes
}

fn request(random: &mut Random, events: &[&str]) -> Vec<u8> {
    let sid = random.below(6);
    let parameters =
        random.pick(&["", "&connect=true", "&connect=true&linger=true", "&connect=true&close=true"]);
    let seq = if random.once_in(2) { format!("&seq={}", 1 + random.below(12)) } else { String::new() };
    let target = format!("/?sid={sid:032x}{parameters}{seq}");
    let body = events.join("\n");
    let text = match random.below(8) {
        0 => "GET /none HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        1 => format!("GET {target} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"),
        2 => format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ),
        _ => format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    };
    text.into_bytes()
}

fn config(random: &mut Random) -> Config {
    Config {
        mesh_ring_messages: 8,
        mesh_overflow_bytes_max: 64 << 10,
        sends_per_turn_max: 2,
        outbox_bytes_max: random.pick(&[1 << 10, 8 << 10, 1 << 20]),
        outboxes_bytes_max: random.pick(&[None, Some(64 << 10)]),
        incomplete_bytes_max: random.pick(&[None, Some(32 << 10)]),
        clients_max: random.pick(&[8, 1000]),
        connections_per_address_max: random.pick(&[None, Some(0), Some(5)]),
        heartbeat_challenge: Duration::from_secs(60),
        heartbeat_timeout: Duration::from_secs(120),
        ..Config::default()
    }
}

fn connect(world: &mut World, random: &mut Random, peers: &mut Vec<Hostile>) {
    let shard = random.below(world.shards.len());
    let from = random.pick(&["10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1", ""]);
    let from = if from.is_empty() { PeerAddress::UNIX } else { address(from) };
    let Some(peer) = world.try_connect_from(shard, from) else { return };
    let speech = random.pick(&[Speech::Raw, Speech::WebSocket, Speech::Http, Speech::Http, Speech::Nothing]);
    peers.push(Hostile { peer, speech });
    if world.is_closed(peer) {
        return;
    }
    match speech {
        Speech::Raw => world.send_bytes(peer, OHAI.as_bytes()),
        Speech::WebSocket => {
            world.send_bytes(peer, UPGRADE);
            world.send_bytes(peer, &client_frame(Opcode::Text, OHAI.as_bytes()));
        }
        Speech::Http | Speech::Nothing => {}
    }
}

fn command(world: &mut World, random: &mut Random) {
    let shard = random.below(world.shards.len());
    let clients: Vec<_> = world.shards[shard].state().connections.client_ids().collect();
    let path = Path::parse("/relay/a").unwrap();
    let command = match random.below(3) {
        _ if clients.is_empty() => Command::Broadcast { path, data: Json::NULL },
        0 => Command::Broadcast { path, data: Json::NULL },
        1 => Command::Close { client: random.pick(&clients) },
        _ => Command::Send { client: random.pick(&clients), path, data: Json::NULL, callback: None },
    };
    let to = random.below(world.shards.len());
    world.post_command(to, command);
}

fn step(world: &mut World, random: &mut Random, peers: &mut Vec<Hostile>) {
    match random.below(100) {
        0..5 => return connect(world, random, peers),
        5..45 => return world.turn(random.below(world.shards.len())),
        45..50 => return command(world, random),
        50 => return world.advance(Duration::from_millis(random.next() % 20_000)),
        51..55 => return world.advance(Duration::from_millis(random.next() % 100)),
        55 => {
            let stall = Duration::from_millis(250 + random.next() % 10_000);
            world.advance(stall);
            let shard = random.below(world.shards.len());
            return world.shards[shard].state_mut().time.catch_up_for_test(stall);
        }
        _ => {}
    }
    peers.retain(|hostile| !world.is_closed(hostile.peer));
    if peers.is_empty() {
        return;
    }
    let at = random.below(peers.len());
    let Hostile { peer, speech } = peers[at];
    match random.below(40) {
        0 => world.end_stream(peer),
        1 => world.reset(peer),
        2 => world.set_reading(peer, false),
        3 => world.set_reading(peer, true),
        4 => world.read_a_part(peer),
        _ => {
            let bytes = message(random, speech);
            if random.once_in(4) {
                random.pieces(&bytes).into_iter().for_each(|piece| world.send_bytes(peer, piece));
            } else {
                world.send_bytes(peer, &bytes);
            }
            return;
        }
    }
    if random.once_in(3) {
        peers.remove(at);
    }
}

#[test]
fn hostile_peers_cause_no_panic_and_leave_nothing_behind() {
    fuzz(|random| {
        let apps: Vec<Arc<dyn Application>> = vec![Arc::new(Relay), Arc::new(FnApp(app))];
        let shards = 1 + random.below(3);
        let mut world = World::with_config(shards, config(random), apps);
        for shard in &mut world.shards {
            let kernel = shard.kernel_mut();
            kernel.delays_shutdowns = random.once_in(2);
            kernel.irregular = Some(random.clone());
        }
        let mut peers = Vec::new();
        for _ in 0..random.below(800) {
            step(&mut world, random, &mut peers);
        }
        if random.once_in(2) {
            for shard in 0..shards {
                world.send_control(shard, ControlMessage::Shutdown { deadline_ns: u64::MAX });
                for _ in 0..random.below(20) {
                    step(&mut world, random, &mut peers);
                }
            }
        }
        for shard in &mut world.shards {
            shard.kernel_mut().delays_shutdowns = false;
        }
        // Whatever a peer does not read or send, no connection outlives all timeouts.
        world.run_until_idle();
        world.run_seconds(200);
        world.assert_empty();
    });
}
