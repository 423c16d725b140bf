//! Hostile input: the server survives it and serves other clients. Other tests check the response to the hostile client
//! itself.

use crate::fuzz::{self, Random};
use crate::support::wire::{self, BINARY, CLOSE, CONTINUATION, Frame, PING, PONG};
use crate::support::{Client, Conversation, Server, Transport, http};

/// Expects that the server still serves, and that it has released everything of the clients before.
fn assert_unharmed(server: &Server) {
    server.assert_serves();
    server.eventually("everything released", |stats| {
        ["connections", "subscriptions", "outbox_bytes", "callbacks_open"]
            .iter()
            .all(|name| stats.value(name) == 0)
    });
}

#[test]
fn random_bytes() {
    let server = Server::start(&[]);
    fuzz::run(|random| {
        let mut client = match random.below(3) {
            0 => Client::connect(server.address(), Transport::Raw),
            1 => server.websocket(),
            _ => server.client(Transport::Raw),
        };
        for _ in 0..random.below(4) {
            let len = random.below(2000);
            client.try_send(&noise(random, len));
        }
        if random.one_in(2) {
            client.reset();
        }
    });
    assert_unharmed(&server);
}

fn noise(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.next() as u8).collect()
}

#[test]
fn damaged_frames() {
    let server = Server::start(&["--message-bytes-max", "4096"]);
    fuzz::run(|random| {
        let mut client = server.websocket();
        for _ in 0..random.below(30) {
            let mut bytes = random_frame(random).bytes();
            if random.one_in(8) && !bytes.is_empty() {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            bytes.truncate(if random.one_in(8) { random.below(bytes.len() + 1) } else { bytes.len() });
            let pieces = 1 + random.below(bytes.len().max(1));
            if !bytes.chunks(pieces).all(|piece| client.try_send(piece)) {
                break;
            }
        }
        if random.one_in(3) {
            client.reset();
        }
    });
    assert_unharmed(&server);
}

fn random_frame(random: &mut Random) -> Frame {
    const PATHS: [&str; 9] = [
        "/qio/on",
        "/qio/off",
        "/qio/ping",
        "/relay/x",
        "/clienttest/echo",
        "/clienttest/in-progress",
        "/qio/callback/1",
        "/clienttest/close",
        "//@//",
    ];
    const DATA: [&str; 6] =
        ["\"/relay/x\"", "\"/clienttest/in-progress\"", "[\"/relay/x\",1]", "null", "", "[[["];
    let event = format!("{}:{}={}", random.pick(&PATHS), random.below(5), random.pick(&DATA));
    let opcode = match random.below(12) {
        0 => BINARY,
        1 => PING,
        2 => PONG,
        3 => CONTINUATION,
        4 if random.one_in(8) => CLOSE,
        5 if random.one_in(8) => random.below(16) as u8,
        _ => wire::TEXT,
    };
    let mut frame = if opcode == CLOSE { Frame::close(1000, "") } else { Frame::new(opcode, event) };
    if random.one_in(6) {
        frame = frame.unfinished();
    }
    if random.one_in(30) {
        frame = frame.reserved(random.below(8) as u8);
    }
    if random.one_in(30) {
        frame = frame.announcing(random.next() >> random.below(64));
    }
    frame
}

#[test]
fn damaged_requests() {
    let server = Server::start(&[]);
    let request = http::upgrade("Sec-WebSocket-Protocol: quickio\r\n").into_bytes();
    fuzz::run(|random| {
        let mut request = request.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(request.len());
            match random.below(4) {
                0 => request[at] = random.next() as u8,
                1 => drop(request.remove(at)),
                2 => request.insert(at, *random.pick(b"\r\n :,=\0\xff")),
                _ => request.truncate(at.max(8)),
            }
        }
        let mut client = Client::connect(server.address(), Transport::WebSocket);
        client.try_send(&request);
        client.shutdown_write();
        let answer = client.rest();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer}");
    });
    assert_unharmed(&server);
}

#[test]
fn floods_of_fragments() {
    let server = Server::start(&[]);
    // Empty fragments need no memory, regardless of their number.
    let mut client = server.websocket();
    let empty = Frame::new(CONTINUATION, "").unfinished().bytes().repeat(1000);
    client.send(&Frame::text("/qio/ping:1=").unfinished().bytes());
    for _ in 0..200 {
        client.send(&empty);
    }
    client.send(&Frame::new(CONTINUATION, "").bytes());
    assert_eq!(client.answer(1).code(), 200);
    // Fragments of one byte are limited by the size of the message.
    let single = Frame::new(CONTINUATION, "x").unfinished().bytes().repeat(1000);
    client.send(&Frame::text("/qio/ping:1=").unfinished().bytes());
    let _ = (0..100).take_while(|_| client.try_send(&single)).count();
    server.eventually_is("closes_too_large", 1);
    drop(client);
    // A flood of pings is answered, or its client is closed. The pongs do not accumulate.
    let mut client = server.websocket();
    let pings = Frame::new(PING, [b'p'; 125]).bytes().repeat(200);
    let _ = (0..200).take_while(|_| client.try_send(&pings)).count();
    drop(client);
    assert_unharmed(&server);
}

#[test]
fn one_byte_at_a_time() {
    let server = Server::start(&[]);
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        let event = client.framed("/clienttest/echo:1={\"slowly\": \"\u{1f40c}\"}");
        for _ in 0..20 {
            for byte in &event {
                client.send(&[*byte]);
            }
            assert_eq!(client.answer(1).body["data"]["slowly"], "\u{1f40c}");
        }
    }
}

#[test]
fn hostile_json() {
    const MANY: usize = 200_000;
    let server = Server::start(&["--message-bytes-max", "1Mi", "--outbox-bytes-max", "4Mi"]);
    let nested = format!("{}{}", "[".repeat(MANY), "]".repeat(MANY));
    let objects = format!("{}1{}", "{\"a\":".repeat(MANY / 2), "}".repeat(MANY / 2));
    let data = [
        nested.clone(),
        "[".repeat(MANY),
        "]".repeat(MANY),
        objects.clone(),
        format!("[\"/relay/x\",{nested}]"),
        format!("[\"/relay/x\",{objects}]"),
        format!("[\"/relay/x\",{}", "[".repeat(MANY)),
        format!("[\"/relay/x\"{}]", ",1".repeat(MANY)),
        format!("\"{}\"", "\\u0041".repeat(MANY / 2)),
        format!("\"/relay/{}\"", "\\/".repeat(MANY)),
        format!("{}\"/relay/x\"", " ".repeat(MANY)),
        "9".repeat(MANY),
        format!("1e{}", "9".repeat(MANY)),
        "\"\\".repeat(MANY),
        "\u{feff}\"/relay/x\"".into(),
        "\"\\u0000\"".into(),
    ];
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        for event in
            ["/qio/on", "/qio/off", "/clienttest/echo", "/relay/x", "/clienttest/on-data", "/qio/ping"]
        {
            for data in &data {
                let id = client.ask(event, data);
                client.answer(id);
                client.tell(&format!("/qio/callback/{id}"), data);
            }
        }
        client.ping();
    }
    assert_unharmed(&server);
}

#[test]
fn hostile_paths() {
    const LONG: usize = 300_000;
    let server = Server::start(&["--message-bytes-max", "1Mi", "--outbox-bytes-max", "4Mi"]);
    let paths = [
        "/".repeat(LONG),
        "/a".repeat(LONG / 2),
        "a".repeat(LONG),
        "@".repeat(LONG),
        "@/".repeat(LONG / 2),
        "é".repeat(LONG / 2),
        format!("/relay{}", "/a".repeat(LONG / 2)),
        format!("/relay/{}", "a".repeat(LONG)),
        format!("/relay{}", "/".repeat(LONG)),
        format!("/clienttest/echo{}", "/clienttest/echo".repeat(LONG / 16)),
        format!("/clienttest/error/{}", "9".repeat(LONG)),
        format!("/qio/callback/{}", "9".repeat(LONG)),
        format!("/qio/callback{}1", "/".repeat(LONG)),
        "/qio".repeat(LONG / 4),
    ];
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        for path in &paths {
            client.request(path, "1");
            let (on, off) = (
                client.request("/qio/on", &format!("{path:?}")),
                client.request("/qio/off", &format!("{path:?}")),
            );
            assert!(on.code() >= 200 && off.code() >= 200);
        }
        client.ping();
    }
    // Codes that are not valid.
    let mut client = server.websocket();
    for code in ["", "x", "-1", "99999", "4294967696", "65936", "0", "4/2"] {
        let answer = client.request(&format!("/clienttest/error/{code}"), "1");
        assert!(answer.code() < 65536, "{}", answer.text);
    }
    drop(client);
    assert_unharmed(&server);
}

#[test]
fn floods_of_half_open_handshakes() {
    let server = Server::start(&["--clients-max", "300"]);
    let beginnings: [&[u8]; 4] = [b"", b"/qio/", b"GET / HTTP/1.1\r\nHost: x\r\n", b"P"];
    let flood: Vec<Client> = (0..400)
        .map(|number| {
            let mut client = Client::connect(server.address(), Transport::Raw);
            client.try_send(beginnings[number % beginnings.len()]);
            client
        })
        .collect();
    let stats = server.eventually("all accepted", |stats| {
        stats.value("connections_accepted") + stats.value("connections_refused_limit") >= 400
    });
    assert!(stats.value("connections") <= 300);
    drop(flood);
    server.eventually_is("connections", 0);
    assert_unharmed(&server);
}

#[test]
fn the_statistics_endpoint_survives() {
    let server = Server::start(&[]);
    let noise = [0xff; 5000];
    let hostile: [&[u8]; 6] = [
        &noise,
        b"GET /stats",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /clock?advance=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /clock?advance=-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"\r\n\r\n\r\n",
    ];
    let mut kept = Vec::new();
    for bytes in hostile {
        let mut client = Client::connect(server.admin(), Transport::Raw);
        client.try_send(bytes);
        client.try_send(&vec![b'a'; 100_000]);
        kept.push(client);
    }
    server.wait_for_shards();
    assert_unharmed(&server);
}
