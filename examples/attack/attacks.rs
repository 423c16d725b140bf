//! The attacks, one row for each.

use super::churn::Churn;
use super::flood::{Flood, Opening, Reading};
use super::target::Target;
use super::wire;
use std::time::Duration;

/// An attack.
pub struct Attack {
    pub name: &'static str,
    pub doc: &'static str,
    /// The default number of connections.
    pub connections: usize,
    /// Runs the attack over a number of connections until it is over.
    pub run: fn(&mut Target, usize),
}

/// The size of a chunk that a flood sends at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The size of the data of an event that is broadcast.
const BROADCAST_BYTES: usize = 1000;

/// The size of the data of a large event. With its head it stays below the default of `message-bytes-max`.
const EVENT_BYTES: usize = 60_000;

/// All attacks.
pub const ATTACKS: &[Attack] = &[
    Attack { name: "sessions", doc: "POSTs, each to a session of its own", connections: 1, run: sessions },
    Attack { name: "pings", doc: "empty Pings, from peers that never read", connections: 8, run: pings },
    Attack {
        name: "pings-read-late",
        doc: "empty Pings, from slow readers",
        connections: 8,
        run: pings_read_late,
    },
    Attack { name: "tiny-frames", doc: "messages in frames of one byte", connections: 8, run: tiny_frames },
    Attack { name: "subscriptions", doc: "subscriptions to long paths", connections: 8, run: subscriptions },
    Attack {
        name: "first-bytes",
        doc: "connections whose first bytes are invalid",
        connections: 16,
        run: first_bytes,
    },
    Attack { name: "refused-posts", doc: "POSTs that are refused", connections: 8, run: refused_posts },
    Attack {
        name: "broadcasts",
        doc: "broadcasts, of which none is of use to others",
        connections: 4,
        run: broadcasts,
    },
    Attack {
        name: "slow-readers",
        doc: "subscribers that read a byte a second",
        connections: 1000,
        run: slow_readers,
    },
    Attack {
        name: "slow-writers",
        doc: "messages that arrive byte by byte",
        connections: 1000,
        run: slow_writers,
    },
    Attack {
        name: "never-reads",
        doc: "events whose answers are not read",
        connections: 8,
        run: never_reads,
    },
    Attack { name: "vanish", doc: "subscribers that vanish", connections: 500, run: vanish },
    Attack { name: "half-open", doc: "connections that send nothing", connections: 1000, run: half_open },
    Attack { name: "connects", doc: "handshakes, one after the other", connections: 1, run: connects },
    Attack { name: "worker", doc: "events for the slowest handler of a worker", connections: 1, run: worker },
];

/// Returns the same chunk again and again: one message, repeated.
fn repeated(message: impl Fn(&mut Vec<u8>)) -> impl FnMut(usize, &mut Vec<u8>) {
    let mut chunk = Vec::new();
    while chunk.len() < CHUNK_BYTES {
        message(&mut chunk);
    }
    move |_, out| out.extend_from_slice(&chunk)
}

/// A flood of WebSocket messages as fast as the server reads them.
fn flood(target: &mut Target, connections: usize, reading: Reading, next: impl FnMut(usize, &mut Vec<u8>)) {
    let opening = Opening::WebSocket;
    Flood { connections, opening, reading, pause: Duration::ZERO, reopens: true, next }.run(target);
}

fn sessions(target: &mut Target, connections: usize) {
    let mut sid = u128::from(std::process::id()) << 64;
    let next = move |_, out: &mut Vec<u8>| {
        while out.len() < CHUNK_BYTES {
            sid += 1;
            wire::post(out, sid, "/qio/ping:1=null");
        }
    };
    let (opening, reading, pause) = (Opening::Nothing, Reading::All, Duration::ZERO);
    Flood { connections, opening, reading, pause, reopens: true, next }.run(target);
}

fn pings(target: &mut Target, connections: usize) {
    flood(target, connections, Reading::Never, repeated(|out| wire::frame(out, wire::PING, b"")));
}

fn pings_read_late(target: &mut Target, connections: usize) {
    let reading = Reading::Slowly(4096, Duration::from_millis(100));
    flood(target, connections, reading, repeated(|out| wire::frame(out, wire::PING, b"")));
}

fn tiny_frames(target: &mut Target, connections: usize) {
    let message = |out: &mut Vec<u8>| {
        let (text, last) = (b"/qio/ping:1=nul", b"l");
        for (index, byte) in text.iter().enumerate() {
            wire::frame_of(out, if index == 0 { wire::TEXT } else { 0 }, &[*byte]);
            wire::frame_of(out, 0, b"");
        }
        wire::frame_of(out, 0x80, last);
    };
    flood(target, connections, Reading::All, repeated(message));
}

fn subscriptions(target: &mut Target, connections: usize) {
    let mut number = 0_u64;
    let next = move |_, out: &mut Vec<u8>| {
        while out.len() < CHUNK_BYTES {
            number += 1;
            wire::event(out, &format!("/qio/on:1=\"/relay/{number:0>1000}\""));
        }
    };
    flood(target, connections, Reading::All, next);
}

fn first_bytes(target: &mut Target, connections: usize) {
    let first = |out: &mut Vec<u8>| out.extend_from_slice(&[0xff; 32]);
    Churn { connections, opening: Opening::Nothing, resets: false, first }.run(target);
}

fn refused_posts(target: &mut Target, connections: usize) {
    let next = repeated(|out| {
        out.extend_from_slice(b"POST /?sid=short HTTP/1.1\r\nHost: server\r\nContent-Length: 0\r\n\r\n");
    });
    let (opening, reading, pause) = (Opening::Nothing, Reading::All, Duration::ZERO);
    Flood { connections, opening, reading, pause, reopens: true, next }.run(target);
}

/// All peers subscribe to the path, so that every shard has to carry every broadcast.
fn broadcasts(target: &mut Target, connections: usize) {
    let text = format!("/relay/unwanted:0=\"{}\"", "x".repeat(BROADCAST_BYTES));
    let mut chunks = repeated(|out| wire::event(out, &text));
    let mut subscribed = vec![false; connections];
    let next = move |number: usize, out: &mut Vec<u8>| {
        if !std::mem::replace(&mut subscribed[number], true) {
            wire::event(out, "/qio/on:1=\"/relay/unwanted\"");
        }
        chunks(number, out);
    };
    flood(target, connections, Reading::All, next);
}

/// One peer publishes large events to the others, which hardly read.
fn slow_readers(target: &mut Target, connections: usize) {
    let text = format!("/relay/slow:0=\"{}\"", "x".repeat(EVENT_BYTES / 4));
    let mut subscribed = vec![false; connections];
    let next = move |number: usize, out: &mut Vec<u8>| {
        if number == 0 {
            wire::event(out, &text);
        } else if !std::mem::replace(&mut subscribed[number], true) {
            wire::event(out, "/qio/on:1=\"/relay/slow\"");
        }
    };
    let reading = Reading::Slowly(1, Duration::from_secs(1));
    let (opening, pause) = (Opening::WebSocket, Duration::from_millis(25));
    Flood { connections, opening, reading, pause, reopens: true, next }.run(target);
}

fn slow_writers(target: &mut Target, connections: usize) {
    let mut message = Vec::new();
    wire::event(&mut message, &format!("/relay/never:0=\"{}\"", "x".repeat(EVENT_BYTES)));
    let mut sent = vec![0; connections];
    let next = move |number: usize, out: &mut Vec<u8>| {
        let sent = &mut sent[number];
        // Most of the message at once, and the rest byte by byte.
        let end = if *sent == 0 { message.len() - 1000 } else { (*sent + 1).min(message.len()) };
        out.extend_from_slice(&message[*sent..end]);
        *sent = end % message.len();
    };
    let (opening, pause) = (Opening::WebSocket, Duration::from_secs(1));
    Flood { connections, opening, reading: Reading::All, pause, reopens: true, next }.run(target);
}

fn never_reads(target: &mut Target, connections: usize) {
    flood(target, connections, Reading::Never, repeated(|out| wire::event(out, "/qio/ping:1=null")));
}

fn vanish(target: &mut Target, connections: usize) {
    let first = |out: &mut Vec<u8>| {
        for room in 0..8 {
            wire::event(out, &format!("/qio/on:1=\"/relay/room{room}\""));
        }
    };
    Churn { connections, opening: Opening::WebSocket, resets: true, first }.run(target);
}

fn half_open(target: &mut Target, connections: usize) {
    let (opening, reading, pause) = (Opening::Nothing, Reading::All, Duration::from_secs(1));
    Flood { connections, opening, reading, pause, reopens: true, next: |_, _: &mut Vec<u8>| {} }.run(target);
}

fn connects(target: &mut Target, connections: usize) {
    Churn { connections, opening: Opening::WebSocket, resets: false, first: |_: &mut Vec<u8>| {} }
        .run(target);
}

/// The application `attacked.py` handles `/slow` for a second.
fn worker(target: &mut Target, connections: usize) {
    flood(target, connections, Reading::All, repeated(|out| wire::event(out, "/slow:1=null")));
}
