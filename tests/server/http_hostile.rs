//! Hostile HTTP: each limit holds and is counted, the server releases everything, and serves other clients meanwhile.

use crate::fuzz::{self, Random};
use crate::support::http::{self, Connection, Session};
use crate::support::http_client::new_session;
use crate::support::server::Stats;
use crate::support::{Client, Conversation, HttpClient, Server, Transport};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Far more bytes than the kernel buffers for the two sockets of one connection.
const BYTES_MAX: usize = 64 << 20;

fn ok(callback: u64) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}\n")
}

/// Expects that the server, whose clock the test moves, still serves over every transport, and that it releases
/// everything, sessions included.
fn assert_unharmed(server: &Server) {
    for transport in Transport::ALL {
        server.conversation(transport).ping();
    }
    server.eventually_is("connections", 0);
    server.advance(11 * SECOND);
    assert_nothing_left(server);
}

fn assert_nothing_left(server: &Server) {
    const GAUGES: [&str; 5] =
        ["connections", "http_sessions", "subscriptions", "outbox_bytes", "callbacks_open"];
    server.eventually("everything released", |stats| GAUGES.iter().all(|name| stats.value(name) == 0));
}

// Unfinished requests.

#[test]
fn heads_are_limited_in_size_and_time() {
    let server = Server::start_with_clock(&[]);
    let session = new_session();
    let good = session.post("&connect=true", "");
    let (line, _) = good.split_once("\r\n").unwrap();
    // Too long, in one line or in many, as the first request or after a valid one; and too many lines.
    let long = format!("{line}\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(20_000));
    let many = format!("{line}\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(110));
    let ping = session.post("&connect=true", "/qio/ping:1=");
    for bad in [&long, &target, &many] {
        assert_eq!(http::exchange_closing(server.address(), bad).head.status, 431);
        let mut connection = Connection::open(server.address());
        connection.request(&ping);
        assert_eq!(connection.request(bad).head.status, 431);
        connection.assert_closed();
    }
    assert_eq!(server.stats().value("handshakes_refused"), 6);
    // Slow requests: the limit is that of the whole request, and bytes do not extend it.
    let mut slow: Vec<Connection> = (0..4).map(|_| Connection::open(server.address())).collect();
    slow[0].request(&ping);
    slow[1].request(&ping);
    // The third stops within its head, the fourth within its first bytes. The first two follow a valid request: one
    // stops within its head, the other within its body.
    let pieces = [&ping[..70], &ping[ping.len() - 12..ping.len() - 11], &ping[..70], "PO"];
    let head = &ping[..ping.len() - 12];
    slow[1].send(head);
    for (connection, piece) in slow.iter_mut().zip(pieces) {
        connection.send(piece);
    }
    server.eventually("all bytes received", |stats| {
        stats.value("bytes_received") >= received(&slow, &ping, head, &pieces)
    });
    server.advance(9 * SECOND);
    assert!(slow.iter().all(Connection::is_silent));
    server.advance(2 * SECOND);
    let ends: Vec<Vec<(u16, String)>> = slow.iter_mut().map(Connection::responses).collect();
    let timeout = vec![(408, "request took too long\n".to_owned())];
    assert_eq!(ends, [timeout.clone(), timeout.clone(), timeout.clone(), timeout]);
    let stats = server.stats();
    assert_eq!((stats.value("timeouts_message"), stats.value("timeouts_handshake")), (2, 2));
}

/// Returns the number of bytes that the connections of this test have sent.
fn received(slow: &[Connection], ping: &str, head: &str, pieces: &[&str]) -> u64 {
    assert_eq!(slow.len(), pieces.len());
    (2 * ping.len() + head.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>()) as u64
}

#[test]
fn announced_bodies_need_no_memory_and_time_out() {
    let server = Server::start_with_clock(&["--message-bytes-max", "128Mi", "--outbox-bytes-max", "256Mi"]);
    let before = resident(&server);
    let head =
        new_session().post("&connect=true", "").replace("Length: 0", &format!("Length: {}", 128 << 20));
    let mut waiting: Vec<Connection> = (0..200)
        .map(|_| {
            let mut connection = Connection::open(server.address());
            connection.send(head.clone() + "/qio/ping:1=");
            connection
        })
        .collect();
    server.eventually_is("connections", 200);
    server.eventually("all heads received", |stats| stats.value("bytes_received") >= 200 * head.len() as u64);
    assert!(resident(&server) < before + (64 << 20), "200 x 128 MiB were announced");
    server.advance(11 * SECOND);
    for connection in &mut waiting {
        assert_eq!(connection.responses(), [(408, "request took too long\n".into())]);
    }
    assert_eq!(server.stats().value("events_received"), 0);
    drop(waiting);
    assert_nothing_left(&server);
}

fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

// Sessions.

/// Sessions may take 75 percent of `clients-max`, however many connections create them.
#[test]
fn abandoned_sessions_are_limited_and_end_after_their_time() {
    const MAX: u64 = 3000;
    const SHARE: u64 = MAX / 100 * 75;
    const OF_CONNECTION: usize = 150;
    let limits = ["--clients-max", &MAX.to_string(), "--connections-per-address-max", "0"];
    let server = Server::start_with_clock(&limits);
    let mut connections = Vec::new();
    let mut created = 0;
    let refused = 'refused: loop {
        let mut connection = Connection::open(server.address());
        for _ in 0..OF_CONNECTION {
            assert!(created <= MAX, "no limit");
            let request = new_session().post("&connect=true", "/qio/on:1=\"/relay/left\"");
            match connection.request(request).head.status {
                200 => created += 1,
                status => break 'refused status,
            }
        }
        connections.push(connection);
    };
    assert_eq!((refused, created), (503, SHARE));
    let stats = server.stats();
    assert_eq!((stats.value("http_sessions"), stats.value("sessions_refused")), (created, 1));
    assert_eq!(stats.value("subscriptions"), created);
    // WebSockets have a place nevertheless.
    server.assert_serves();
    server.advance(11 * SECOND);
    server.eventually_is("http_sessions", 0);
    // Afterwards new sessions are accepted at once.
    let session = new_session();
    let mut connection = Connection::open(server.address());
    assert_eq!(connection.request(session.post("&connect=true", "/qio/ping:1=")).body, ok(1));
    let stats = server.eventually_is("subscriptions", 0);
    assert_eq!(stats.value("timeouts_session"), created);
    server.advance(11 * SECOND);
    drop((connection, connections));
    assert_nothing_left(&server);
}

/// One connection creates 5000 sessions while clients of other addresses come and go over HTTP. None of them is refused,
/// although their server has room for 1000 clients only.
#[test]
fn one_connection_that_creates_sessions_takes_no_place_from_others() {
    const SIDS: usize = 5000;
    const AT_ONCE: usize = 100;
    let server = Server::start(&["--clients-max", "1000"]);
    let address = server.address();
    thread::scope(|scope| {
        let hostile = scope.spawn(move || {
            let mut connection = Connection::open(address);
            let mut statuses = Vec::new();
            for _ in 0..SIDS / AT_ONCE {
                let batch: String =
                    (0..AT_ONCE).map(|_| new_session().post("&connect=true", "/qio/ping:1=")).collect();
                connection.send(&batch);
                statuses.extend((0..AT_ONCE).map(|_| connection.response().head.status));
            }
            statuses
        });
        for thread in 0..4 {
            scope.spawn(move || {
                for last in 0..25 {
                    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1 + thread, 1 + last));
                    let mut connection = Connection::open_from(source, address);
                    let session = new_session();
                    for (number, query) in (1..).zip(["&connect=true", "", "", "&close=true"]) {
                        let response =
                            connection.request(session.post(query, &format!("/qio/ping:{number}=")));
                        assert_eq!((response.head.status, response.body), (200, ok(number)));
                    }
                }
            });
        }
        let statuses = hostile.join().unwrap();
        assert!(statuses.iter().all(|status| [200, 429].contains(status)));
        assert!(statuses.iter().filter(|status| **status == 429).count() > SIDS / 2);
    });
    assert_eq!(server.stats().value("sessions_refused"), 0);
}

#[test]
fn guessed_sids_are_counted_and_no_sid_is_logged() {
    let mut server = Server::start_with_clock(&["--log-level", "trace"]);
    let session = new_session();
    let mut connection = Connection::open(server.address());
    assert_eq!(connection.request(session.post("&connect=true", "/qio/ping:1=")).body, ok(1));
    connection.send(session.post("", ""));
    let mut guesser = Connection::open(server.address());
    for guess in 1..=1000 {
        // A sid that differs in one bit, or an arbitrary one.
        let guess = if guess <= 128 { session.0 ^ (1 << (guess - 1)) } else { session.0.wrapping_mul(guess) };
        let response = guesser.request(Session(guess).post("", "/qio/ping:1="));
        let line = "unknown session: connect again, with connect=true\n";
        assert_eq!((response.head.status, response.body.as_str()), (403, line));
    }
    let stats = server.stats();
    assert_eq!((stats.value("sessions_unknown"), stats.value("events_received")), (1000, 1));
    assert_eq!(stats.value("http_refused"), 1000);
    // Sessions that end in every way, which is logged.
    let mut ends = [new_session(), new_session(), new_session()];
    for (which, end) in ends.iter_mut().enumerate() {
        let body = ["bad", "/clienttest/close:0=", "/qio/ping:1="][which];
        Connection::open(server.address()).request(end.post("&connect=true", body));
    }
    let mut stream = Connection::open(server.address());
    stream.send(new_session().stream("&connect=true"));
    stream.read_to(": quickio\n\n");
    stream.reset();
    server.advance(66 * SECOND);
    server.advance(11 * SECOND);
    server.eventually_is("http_sessions", 0);
    server.signal("TERM");
    assert!(server.exit().success());
    let log = server.log_with("session").to_lowercase();
    for sid in ends.iter().chain([&session]) {
        let (hex, decimal) = (format!("{:x}", sid.0), sid.0.to_string());
        assert!(!log.contains(&hex) && !log.contains(&decimal), "a sid is in the log:\n{log}");
    }
    assert!(!log.contains("sid="), "{log}");
}

// Smuggling: a proxy in front of the server sees other requests than the server.

#[test]
fn ambiguous_requests_are_refused_and_nothing_after_them_is_handled() {
    let server = Server::start_with_clock(&[]);
    let session = new_session();
    let smuggled = session.post("&connect=true", "/qio/ping:2=");
    let len = smuggled.len();
    let post = |target: &str, headers: &str| format!("POST {target} HTTP/1.1\r\n{headers}\r\n");
    let target = format!("/?sid={:032x}&connect=true", session.0);
    let with = |headers: &str| post(&target, &format!("Host: a\r\n{headers}"));
    let mut bad: Vec<String> = [
        // Lengths that disagree, are repeated, are lists, or are not numbers.
        format!("Content-Length: 0\r\nContent-Length: {len}\r\n"),
        format!("Content-Length: {len}\r\nContent-Length: 0\r\n"),
        "Content-Length: 0\r\nContent-Length: 0\r\n".into(),
        "Content-Length: 0, 0\r\n".into(),
        format!("Content-Length: 0,{len}\r\n"),
        "Content-Length: +0\r\n".into(),
        "Content-Length: -0\r\n".into(),
        "Content-Length: 0x0\r\n".into(),
        "Content-Length: 0 0\r\n".into(),
        "Content-Length: 0;\r\n".into(),
        "Content-Length: \r\n".into(),
        "Content-Length: 00000000000000000000000000000000000000000x\r\n".into(),
        "Content-Length: 18446744073709551616\r\n".into(),
        "Content-Length: \u{660}\r\n".into(),
        // Lines that some parsers read as another header, or as none.
        "Content-Length : 0\r\n".into(),
        "Content-Length\t: 0\r\n".into(),
        " Content-Length: 0\r\n".into(),
        "X: y\r\n Content-Length: 0\r\nContent-Length: 0\r\n".into(),
        "X: y\r\n\tz\r\nContent-Length: 0\r\n".into(),
        "Content-Length:\r\n 0\r\n".into(),
        "Content-Length: 0\rX: y\r\n".into(),
        "Content-Length: 0\0\r\n".into(),
        "Content-Length\0: 0\r\n".into(),
        "Content-Length: 0\r\nX: a\rb\r\n".into(),
        "Content-Length: 0\r\nX\r\n".into(),
        "Content-Length: 0\r\n: y\r\n".into(),
        "Content-Length: 0\r\nX Y: z\r\n".into(),
        "Content-Length: 0\r\n\r: x\r\n".into(),
        // Two hosts.
        "Host: b\r\nContent-Length: 0\r\n".into(),
        "Host: a\r\nContent-Length: 0\r\n".into(),
    ]
    .map(|headers| with(&headers))
    .into();
    // Transfer encodings: the server supports only chunked, and not together with a length.
    for encoding in [
        "chunked",
        "Chunked",
        "identity",
        "",
        "gzip, chunked",
        "chunked, identity",
        "x",
        "\"chunked\"",
        "chunked;q=1",
        "\x0bchunked",
        "chunked\r\nTransfer-Encoding: identity",
    ] {
        for name in ["Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING"] {
            if !encoding.eq_ignore_ascii_case("chunked") {
                bad.push(with(&format!("{name}: {encoding}\r\n")) + "0\r\n\r\n");
            }
            bad.push(with(&format!("Content-Length: 0\r\n{name}: {encoding}\r\n")));
            bad.push(with(&format!("{name}: {encoding}\r\nContent-Length: 0\r\n")));
        }
    }
    for spelling in [
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding\r\n: chunked",
        "Transfer-Encoding:\r\n chunked",
    ] {
        bad.push(with(&format!("{spelling}\r\nContent-Length: 0\r\n")));
    }
    // Request lines.
    let length = "Host: a\r\nContent-Length: 0\r\n";
    for target in ["http://a b/?", "http:///?", "ftp://a/?", "a", "", "http://a,b/?", "http://a@b/?"] {
        bad.push(post(&format!("{target}sid={:032x}&connect=true", session.0), length));
    }
    bad.push(with("Content-Length: 0\r\n").replace("POST /", "POST  /"));
    bad.push(with("Content-Length: 0\r\n").replace("POST /", "POST\t/"));
    bad.push(with("Content-Length: 0\r\n").replace(" HTTP/1.1", ""));
    bad.push(with("Content-Length: 0\r\n").replace("HTTP/1.1", "HTTP/1.1 "));
    bad.push(with("Content-Length: 0\r\n").replace("HTTP/1.1", "HTTP/1.1\rX: y"));
    bad.push(with("Content-Length: 0\r\n").replace("HTTP/1.1", "HTTP/1.10"));
    bad.push(with("Content-Length: 0\r\n").replace("HTTP/1.1", "http/1.1"));
    bad.push(with("Content-Length: 0\r\n").replace("sid=", "\0sid="));
    bad.push(
        with("Content-Length: 0\r\n").replace("&connect", "&sid=00000000000000000000000000000001&connect"),
    );
    // Bodies where none has a meaning.
    let body = format!("Host: a\r\nContent-Length: {len}\r\n");
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"] {
        bad.push(format!("{method} / HTTP/1.1\r\n{body}\r\n"));
        bad.push(format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    }
    bad.push(format!(
        "GET /?sid={:032x}&connect=true HTTP/1.1\r\nAccept: text/event-stream\r\n{body}\r\n",
        session.0
    ));
    bad.push(http::upgrade(&body.replace("Host: a\r\n", "")));
    for request in &bad {
        let mut connection = Connection::open(server.address());
        connection.try_send(request.clone() + &smuggled);
        connection.shutdown_write();
        let responses = connection.rest();
        let statuses: Vec<&str> =
            responses.match_indices("HTTP/1.1 ").map(|(at, it)| &responses[at + it.len()..][..3]).collect();
        let refused = ["400", "403", "404", "405", "413", "431", "501", "505"];
        let is_refused = statuses.len() == 1 && statuses.iter().all(|it| refused.contains(it));
        assert!(is_refused, "{request:?}: {responses:?}");
    }
    let stats = server.stats();
    assert_eq!((stats.value("events_received"), stats.value("sessions_created")), (0, 0));
    assert_unharmed(&server);
}

/// The same for random damage: no request after a refused one is handled.
#[test]
fn damaged_requests_are_answered_in_http_or_not_at_all() {
    // A request that waits for an earlier one is answered after this time, although its peer has sent its end.
    let server = Server::start(&["--timeout", "300ms"]);
    fuzz::run(|random| {
        let session = new_session();
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(3) {
            bytes.extend(random_request(random, session).into_bytes());
        }
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *random.pick(b"\r\n :,=\0\xff0")),
                _ => bytes.truncate(at.max(8)),
            }
        }
        let mut connection = Connection::open(server.address());
        let pieces = 1 + random.below(bytes.len());
        let _ = bytes.chunks(pieces).all(|piece| connection.try_send(piece));
        match random.below(3) {
            0 => connection.reset(),
            1 => drop(connection),
            _ => {
                connection.shutdown_write();
                let answer = connection.rest();
                // A first byte of TLS is answered with an alert.
                let is_alert = bytes[0] == 0x16 && answer.starts_with('\x15');
                assert!(answer.is_empty() || is_alert || answer.starts_with("HTTP/1.1 "), "{answer:?}");
            }
        }
    });
    for transport in Transport::ALL {
        server.conversation(transport).ping();
    }
    assert_nothing_left(&server);
}

fn random_request(random: &mut Random, session: Session) -> String {
    const BODIES: [&str; 6] =
        ["", "/qio/ping:1=", "/qio/on:2=\"/relay/x\"\n/relay/x:3=1", "bad", "/clienttest/close:0=", "\n\n"];
    let query = *random.pick(&["&connect=true", "&connect=true&seq=1", "&seq=2", ""]);
    let body = *random.pick(&BODIES);
    match random.below(6) {
        0 => session.stream(query),
        1 => "GET /quickio.js HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        2 => "OPTIONS * HTTP/1.0\r\n\r\n".into(),
        _ => session.post(query, body),
    }
}

// Pipelines.

#[test]
fn pipelines_after_a_held_request_are_limited() {
    let server = Server::start(&[]);
    let (held, busy) = (new_session(), new_session());
    let mut connection = Connection::open(server.address());
    connection.request(held.post("&connect=true", "/qio/ping:1="));
    connection.send(held.post("", ""));
    let request = busy.post("&connect=true", "/qio/ping:1=");
    let batch = request.repeat(50);
    let _ = (0..100).take_while(|_| connection.try_send(&batch)).count();
    server.eventually_is("connections", 1);
    // The responses to the poll, to the other requests, and at last the refusal of all further ones.
    Connection::open(server.address()).request(held.post("", "/qio/ping:2="));
    let responses = connection.responses();
    assert_eq!(responses.last(), Some(&(429, "too many requests unanswered\n".into())));
    assert_eq!(responses.len(), 257);
    assert!(responses[1..256].iter().all(|response| *response == (200, ok(1))), "{responses:?}");
    assert_eq!(server.eventually_is("connections", 0).value("handshakes_refused"), 1);
}

#[test]
fn responses_after_a_held_request_are_limited_in_bytes() {
    let server = Server::start(&["--outbox-bytes-max", "256Ki"]);
    for _ in 0..4 {
        let before = server.stats().value("closes_slow");
        let (held, busy) = (new_session(), new_session());
        let mut connection = Connection::open(server.address());
        connection.request(held.post("&connect=true", "/qio/ping:1="));
        connection.send(held.post("", ""));
        let filler = "e".repeat(50_000);
        let echo = busy.post("&connect=true", &format!("/clienttest/echo:1=\"{filler}\""));
        let _ = (0..20).take_while(|_| connection.try_send(&echo)).count();
        server.eventually_is("closes_slow", before + 1);
        let rest = connection.rest();
        assert!(rest.len() < 1000, "{} bytes of the closed connection", rest.len());
    }
    server.eventually_is("connections", 0);
}

/// A client that sends requests and does not read is closed when its outbox is full.
#[test]
fn responses_that_are_never_read_are_limited() {
    let server = Server::start(&["--outbox-bytes-max", "256Ki", "--close-timeout", "100ms"]);
    let echo = |session: Session| {
        session.post("&connect=true", &format!("/clienttest/echo:1=\"{}\"", "q".repeat(16 << 10)))
    };
    let document = || "GET /quickio.js HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    for request in [echo(new_session()), echo(new_session()), echo(new_session()), document()] {
        let before = server.stats();
        let ended = |stats: &Stats, name| stats.value(name) > before.value(name);
        let over = |stats: &Stats| ended(stats, "closes_slow") || ended(stats, "handshakes_refused");
        let mut client = Connection::open_small(server.address());
        let mut sent = 0;
        while client.try_send(&request) {
            sent += request.len();
            assert!(sent < BYTES_MAX, "a peer that never reads is not closed");
            // The statistics are the slow part of this loop.
            if sent / request.len() % 16 == 0 {
                let stats = server.stats();
                assert!(stats.value("outbox_bytes") <= 1 << 20);
                if over(&stats) {
                    break;
                }
            }
        }
        server.eventually("closed", over);
        server.eventually_is("connections", 0);
    }
}

#[test]
fn a_stream_that_is_never_read_is_closed_and_others_are_served() {
    let server = Server::start_with_clock(&["--outbox-bytes-max", "256Ki"]);
    let mut sender = server.websocket();
    let mut prompt: Vec<HttpClient> =
        (0..4).flat_map(|_| Transport::HTTP).map(|way| server.http_client(way)).collect();
    prompt.iter_mut().for_each(|client| client.subscribe("/relay/flood"));
    let filler = "x".repeat(32 << 10);
    for round in 1..=3 {
        let session = new_session();
        let mut slow = Connection::open_small(server.address());
        slow.send(session.stream("&connect=true"));
        slow.read_to(": quickio\n\n");
        let mut requests = Connection::open(server.address());
        requests.request(session.post("", "/qio/on:0=\"/relay/flood\""));
        let mut sent = 0;
        // The statistics are the slow part of this loop.
        while sent % 8 != 0 || server.stats().value("closes_slow") < round {
            assert!(sent * filler.len() < BYTES_MAX, "a stream that is never read is not closed");
            sender.request_code("/relay/flood", &format!("[{sent},{filler:?}]"), 200);
            for client in &mut prompt {
                assert!(client.event().data.starts_with(&format!("[{sent},")), "others are served, in order");
            }
            sent += 1;
        }
        assert_eq!(requests.request(session.post("", "")).head.status, 403, "its session has ended");
        let stats = server.eventually_is("http_sessions", prompt.len() as u64);
        assert!(stats.value("outbox_bytes") <= 512 << 10);
    }
}

// Ends.

#[test]
fn a_half_closed_connection_loses_nothing() {
    let server = Server::start(&[]);
    for number in 0..40 {
        let session = new_session();
        let mut other = Connection::open(server.address());
        other.request(session.post("&connect=true", "/qio/ping:1="));
        let mut half = Connection::open(server.address());
        half.send(session.post("", "/qio/ping:2="));
        half.shutdown_write();
        // The answer comes once: in the response, or in that of the next request.
        let mut received: String = half.responses().into_iter().map(|(_, body)| body).collect();
        received += &other.request(session.post("", "/qio/ping:3=")).body;
        assert_eq!(received, [ok(2), ok(3)].concat(), "{number}");
    }
    // A held poll ends.
    let session = new_session();
    let mut half = Connection::open(server.address());
    half.request(session.post("&connect=true", "/qio/ping:1="));
    half.send(session.post("", ""));
    half.shutdown_write();
    assert_eq!(half.responses(), [(200, String::new())]);
    server.eventually_is("connections", 0);
}

/// A request that arrives before its predecessor waits. If its peer has sent its end meanwhile, it is held for `timeout`
/// at most, like any other request of such a peer.
#[test]
fn an_early_request_of_a_half_closed_connection_is_held_for_the_timeout() {
    let server = Server::start_with_clock(&["--timeout", "10s", "--poll-interval", "50s"]);
    let session = new_session();
    Connection::open(server.address()).request(session.post("&connect=true&seq=1", "/qio/ping:1="));
    let mut early = Connection::open(server.address());
    early.send(session.post("&seq=3", "/relay/x:0=1"));
    early.shutdown_write();
    server.eventually_is("http_requests", 2);
    server.wait_for_shards();
    let mut before = Connection::open(server.address());
    before.send(session.post("&seq=2", "/relay/x:0=1"));
    server.eventually_is("events_received", 3);
    server.advance(Duration::from_millis(10_100));
    assert_eq!(early.responses(), [(200, String::new())]);
}

#[test]
fn resets_at_every_point_leave_nothing() {
    let server = Server::start_with_clock(&[]);
    let session = new_session();
    let request = session.post("&connect=true", "/qio/on:1=\"/relay/x\"");
    let stream = session.stream("&connect=true");
    for request in [&request, &stream] {
        for at in 1..=request.len() {
            let mut connection = Connection::open(server.address());
            connection.send(&request[..at]);
            if at % 3 == 0 {
                // The server reads the bytes before the reset.
                server.wait_for_shards();
            }
            connection.reset();
        }
    }
    assert_unharmed(&server);
}

#[test]
fn nothing_after_the_last_request_is_handled() {
    let server = Server::start(&[]);
    let session = new_session();
    let ping = session.post("&connect=true", "/qio/ping:1=");
    let last = ping.replace("Host", "Connection: close\r\nHost");
    let old = ping.replace("HTTP/1.1", "HTTP/1.0");
    let mut handled = 0;
    for first in [&last, &old] {
        let mut connection = Connection::open(server.address());
        connection.try_send(first.clone() + &ping.repeat(5));
        assert_eq!(connection.responses(), [(200, ok(1))]);
        handled += 1;
    }
    // A stream is the last request of its connection, too.
    let mut stream = Connection::open(server.address());
    stream.send(session.stream("") + &ping);
    stream.read_to(": quickio\n\n");
    Connection::open(server.address()).request(session.post("", "/qio/ping:2="));
    assert_eq!(stream.read_to("\n\n"), format!("data:{}\n", ok(2)));
    handled += 1;
    assert_eq!(server.stats().value("events_received"), handled);
}

#[test]
fn an_upgrade_in_a_pipeline_is_refused_or_takes_all_that_follows() {
    let server = Server::start(&[]);
    let session = new_session();
    let ping = session.post("&connect=true", "/qio/ping:1=");
    // After a request without a response, the upgrade is refused: the beginning of the frames would be ambiguous.
    let mut connection = Connection::open(server.address());
    connection.request(&ping);
    connection.send(session.post("", "") + &http::upgrade("") + &ping);
    server.eventually_is("http_requests", 2);
    Connection::open(server.address()).request(session.post("", "/qio/ping:2="));
    let responses = connection.responses();
    assert_eq!(responses[0], (200, String::new()));
    assert_eq!((responses.len(), responses[1].0), (2, 400));
    // An upgrade alone: the bytes after it are frames, and a request is not a valid frame.
    let mut client = Client::connect(server.address(), Transport::WebSocket);
    client.send((http::upgrade("") + &ping).as_bytes());
    assert_eq!(client.head().status, 101);
    client.expect_closed(1002, "reserved bits must be 0");
    assert_eq!(server.stats().value("events_received"), 2);
    assert_eq!(server.stats().value("closes_violation"), 1);
}

#[test]
fn garbage_after_a_body_is_refused_as_a_request() {
    let server = Server::start(&[]);
    let session = new_session();
    let ping = session.post("&connect=true", "/qio/ping:1=");
    for garbage in ["x", "\0", "}\r\n", "/qio/ping:1=\n", "\r\n\r\n\r\n\r\n\r\n\r\n", "GET\r\n\r\n"] {
        let mut connection = Connection::open(server.address());
        connection.send(ping.clone() + garbage + "\r\n\r\n" + &ping);
        let statuses: Vec<u16> = connection.responses().into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, [200, 400], "{garbage:?}");
    }
    assert_eq!(server.stats().value("events_received"), 6);
}

// Memory.

#[test]
fn memory_does_not_grow_with_the_requests_of_a_connection() {
    const REQUESTS: usize = 100_000;
    const AT_ONCE: usize = 50;
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    // Enough sessions that both shards almost certainly have some.
    let batch: String = (0..AT_ONCE).map(|_| new_session().post("&connect=true", "/qio/ping:1=")).collect();
    let mut ask = |times| {
        for _ in 0..times {
            connection.send(&batch);
            for _ in 0..AT_ONCE {
                assert_eq!(connection.response().body, ok(1));
            }
        }
    };
    ask(100);
    let before = resident(&server);
    ask(REQUESTS / AT_ONCE);
    let after = resident(&server);
    assert!(after < before + (8 << 20), "{before} bytes before, {after} after {REQUESTS} requests");
    assert_eq!(server.stats().value("http_requests"), (REQUESTS + 100 * AT_ONCE) as u64);
}

#[test]
fn memory_does_not_grow_with_the_sessions_of_a_connection() {
    let server = Server::start_with_clock(&[]);
    let round = || {
        for _ in 0..5 {
            let mut connection = Connection::open(server.address());
            for _ in 0..100 {
                let request =
                    new_session().post("&connect=true", "/qio/on:1=\"/relay/x\"\n/clienttest/echo:1=1");
                assert_eq!(connection.request(request).head.status, 200);
            }
        }
        server.advance(11 * SECOND);
        server.eventually_is("http_sessions", 0);
    };
    (0..2).for_each(|_| round());
    let before = resident(&server);
    (0..10).for_each(|_| round());
    let after = resident(&server);
    assert!(after < before + (8 << 20), "{before} bytes before, {after} after 5000 sessions");
    assert_nothing_left(&server);
}
