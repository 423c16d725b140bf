//! Hostile HTTP: whatever comes, each bound holds and is counted, nothing is left, and others are served meanwhile.

use crate::fuzz::{self, Random};
use crate::support::http::{self, Connection, Session};
use crate::support::http_client::{HttpClient, Way, new_session};
use crate::support::server::Stats;
use crate::support::{Client, Server, Wire};
use std::fs;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Far more than the kernel keeps for two sockets of one connection.
const BYTES_MAX: usize = 64 << 20;

fn ok(callback: u64) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}\n")
}

/// The server still serves, by every protocol, and nothing of what was is left once sessions had their time.
fn assert_unharmed(server: &Server) {
    server.assert_serves();
    for way in Way::ALL {
        HttpClient::open(server.address(), way).ping();
    }
    assert_nothing_left(server);
}

fn assert_nothing_left(server: &Server) {
    const GAUGES: [&str; 5] =
        ["connections", "http_sessions", "subscriptions", "outbox_bytes", "callbacks_open"];
    server.eventually("everything is given back", |stats| GAUGES.iter().all(|name| stats.value(name) == 0));
}

// Requests that do not end.

#[test]
fn heads_are_bounded_and_so_is_their_time() {
    let server = Server::start_with_clock(&[]);
    let session = new_session();
    let good = session.post("&connect=true", "");
    let (line, _) = good.split_once("\r\n").unwrap();
    // Too long, in one line or in many, at once or behind a request that was good; and too many lines.
    let long = format!("{line}\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    let many = format!("{line}\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(70));
    let ping = session.post("&connect=true", "/qio/ping:1=");
    for bad in [&long, &target, &many] {
        assert_eq!(http::exchange_closing(server.address(), bad).head.status, 431);
        let mut connection = Connection::open(server.address());
        connection.ask(&ping);
        assert_eq!(connection.ask(bad).head.status, 431);
        connection.assert_closed();
    }
    assert_eq!(server.stats().value("handshakes_refused"), 6);
    // Slowly: the time is that of the whole request, however often something comes.
    let mut slow: Vec<Connection> = (0..4).map(|_| Connection::open(server.address())).collect();
    slow[0].ask(&ping);
    slow[1].ask(&ping);
    // The third in its head, the fourth in its first bytes; the others behind a request that was good.
    let pieces = [&ping[..70], &ping[ping.len() - 12..ping.len() - 11], &ping[..70], "PO"];
    let head = &ping[..ping.len() - 12];
    slow[1].send(head);
    for (connection, piece) in slow.iter_mut().zip(pieces) {
        connection.send(piece);
    }
    server.eventually("all has been read", |stats| {
        stats.value("bytes_received") >= received(&slow, &ping, head, &pieces)
    });
    server.advance(9 * SECOND);
    assert!(slow.iter().all(Connection::is_silent));
    server.advance(2 * SECOND);
    let ends: Vec<Vec<(u16, String)>> = slow.iter_mut().map(Connection::responses).collect();
    let timeout = vec![(408, "request took too long\n".to_owned())];
    assert_eq!(ends, [timeout.clone(), timeout.clone(), timeout, vec![]]);
    let stats = server.stats();
    assert_eq!((stats.value("timeouts_message"), stats.value("timeouts_handshake")), (2, 2));
}

/// What was sent in all, as far as this test's connections sent it.
fn received(slow: &[Connection], ping: &str, head: &str, pieces: &[&str]) -> u64 {
    assert_eq!(slow.len(), pieces.len());
    (2 * ping.len() + head.len() + pieces.iter().map(|piece| piece.len()).sum::<usize>()) as u64
}

#[test]
fn bodies_that_never_come_take_neither_memory_nor_time() {
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
    server.eventually("they were read", |stats| stats.value("bytes_received") >= 200 * head.len() as u64);
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

#[test]
fn sessions_that_are_left_are_bounded_and_gone_after_their_time() {
    const MAX: u64 = 3000;
    let server = Server::start_with_clock(&["--clients-max", &MAX.to_string()]);
    let mut connection = Connection::open(server.address());
    let mut created = 0;
    let refused = loop {
        assert!(created <= MAX, "no bound");
        let request = new_session().post("&connect=true", "/qio/on:1=\"/relay/left\"");
        let response = connection.ask(request);
        match response.head.status {
            200 => created += 1,
            status => break status,
        }
    };
    assert_eq!((refused, created), (503, MAX - 1), "the connection is one, too");
    let stats = server.stats();
    assert_eq!((stats.value("http_sessions"), stats.value("sessions_refused")), (created, 1));
    assert_eq!(stats.value("subscriptions"), created);
    server.advance(11 * SECOND);
    server.eventually_is("http_sessions", 0);
    // It can be used again at once.
    let session = new_session();
    assert_eq!(connection.ask(session.post("&connect=true", "/qio/ping:1=")).body, ok(1));
    let stats = server.eventually_is("subscriptions", 0);
    assert_eq!(stats.value("timeouts_session"), created);
    server.advance(11 * SECOND);
    drop(connection);
    assert_nothing_left(&server);
}

#[test]
fn guesses_at_sids_are_counted_and_no_sid_is_ever_logged() {
    let mut server = Server::start_with_clock(&["--log-level", "trace"]);
    let session = new_session();
    let mut connection = Connection::open(server.address());
    assert_eq!(connection.ask(session.post("&connect=true", "/qio/ping:1=")).body, ok(1));
    connection.send(session.post("", ""));
    let mut guesser = Connection::open(server.address());
    for guess in 1..=1000 {
        // One bit beside it, or anything.
        let guess = if guess <= 128 { session.0 ^ (1 << (guess - 1)) } else { session.0.wrapping_mul(guess) };
        let response = guesser.ask(Session(guess).post("", "/qio/ping:1="));
        assert_eq!((response.head.status, response.body.as_str()), (403, ""));
    }
    let stats = server.stats();
    assert_eq!((stats.value("sessions_unknown"), stats.value("events_received")), (1000, 1));
    assert_eq!(stats.value("http_refused"), 1000);
    // Ends of all kinds, which the log has.
    let mut ends = [new_session(), new_session(), new_session()];
    for (which, end) in ends.iter_mut().enumerate() {
        let body = ["bad", "/clienttest/close:0=", "/qio/ping:1="][which];
        Connection::open(server.address()).ask(end.post("&connect=true", body));
    }
    let mut stream = Connection::open(server.address());
    stream.send(new_session().stream("&connect=true"));
    stream.read_to(": quickio\n\n");
    stream.vanish();
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

// Smuggling: whoever stands between sees other requests than the server.

#[test]
fn requests_that_can_be_read_in_two_ways_are_refused_and_nothing_behind_them_is_done() {
    let server = Server::start(&[]);
    let session = new_session();
    let smuggled = session.post("&connect=true", "/qio/ping:2=");
    let len = smuggled.len();
    let post = |target: &str, headers: &str| format!("POST {target} HTTP/1.1\r\n{headers}\r\n");
    let target = format!("/?sid={:032x}&connect=true", session.0);
    let with = |headers: &str| post(&target, &format!("Host: a\r\n{headers}"));
    let mut bad: Vec<String> = [
        // Lengths that disagree, are repeated, listed, or no numbers.
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
        // Lines that some take for another, or for none.
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
        // Two hosts, or one that is none.
        "Host: b\r\nContent-Length: 0\r\n".into(),
        "Host: a\r\nContent-Length: 0\r\n".into(),
    ]
    .map(|headers| with(&headers))
    .into();
    // Encodings: none is known, and none has a length beside it.
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
            bad.push(with(&format!("{name}: {encoding}\r\n")) + "0\r\n\r\n");
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
        let refused = ["400", "403", "404", "405", "411", "413", "431"];
        // What is no HTTP from the first byte on gets no answer in HTTP.
        let is_http = !request.starts_with("POST\t");
        let is_refused =
            statuses.len() == usize::from(is_http) && statuses.iter().all(|it| refused.contains(it));
        assert!(is_refused, "{request:?}: {responses:?}");
    }
    let stats = server.stats();
    assert_eq!((stats.value("events_received"), stats.value("sessions_created")), (0, 0));
    assert_unharmed(&server);
}

/// The same, in noise that nobody thought of: no request that stands behind a refused one is done.
#[test]
fn damaged_requests_are_answered_in_http_or_not_at_all() {
    let server = Server::start(&[]);
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
            0 => connection.vanish(),
            1 => drop(connection),
            _ => {
                connection.shutdown_write();
                let answer = connection.rest();
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer}");
            }
        }
    });
    // Sessions that were left in peace have their time.
    let sessions = |stats: &Stats| stats.value("http_sessions");
    server.eventually("connections are gone", |stats| stats.value("connections") == 0);
    if sessions(&server.stats()) > 0 {
        server.eventually("sessions are gone", |stats| sessions(stats) == 0);
    }
    assert_unharmed(&server);
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
fn pipelines_behind_a_request_that_is_held_are_bounded() {
    let server = Server::start(&[]);
    let (held, busy) = (new_session(), new_session());
    let mut connection = Connection::open(server.address());
    connection.ask(held.post("&connect=true", "/qio/ping:1="));
    connection.send(held.post("", ""));
    let request = busy.post("&connect=true", "/qio/ping:1=");
    let batch = request.repeat(50);
    let _ = (0..100).take_while(|_| connection.try_send(&batch)).count();
    server.eventually_is("connections", 1);
    // The poll is answered, then the others, and at last why there are no more of them.
    Connection::open(server.address()).ask(held.post("", "/qio/ping:2="));
    let responses = connection.responses();
    assert_eq!(responses.last(), Some(&(429, "too many requests unanswered\n".into())));
    assert_eq!(responses.len(), 257);
    assert!(responses[1..256].iter().all(|response| *response == (200, ok(1))), "{responses:?}");
    assert_eq!(server.eventually_is("connections", 0).value("handshakes_refused"), 1);
}

#[test]
fn answers_that_wait_for_a_request_that_is_held_are_bounded_in_bytes() {
    let server = Server::start(&["--outbox-bytes-max", "256Ki"]);
    for _ in 0..4 {
        let before = server.stats().value("closes_slow");
        let (held, busy) = (new_session(), new_session());
        let mut connection = Connection::open(server.address());
        connection.ask(held.post("&connect=true", "/qio/ping:1="));
        connection.send(held.post("", ""));
        let filler = "e".repeat(50_000);
        let echo = busy.post("&connect=true", &format!("/clienttest/echo:1=\"{filler}\""));
        let _ = (0..20).take_while(|_| connection.try_send(&echo)).count();
        server.eventually_is("closes_slow", before + 1);
        let rest = connection.rest();
        assert!(rest.len() < 1000, "{} bytes for whoever did not wait", rest.len());
    }
    server.eventually_is("connections", 0);
}

/// Whoever asks and asks and reads nothing is closed when its outbox is full.
#[test]
fn responses_that_are_never_read_are_bounded() {
    let server = Server::start(&["--outbox-bytes-max", "256Ki", "--close-timeout", "100ms"]);
    let echo = |session: Session| {
        session.post("&connect=true", &format!("/clienttest/echo:1=\"{}\"", "q".repeat(16 << 10)))
    };
    let document = || "GET /quickio.js HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    for request in [echo(new_session()), echo(new_session()), echo(new_session()), document()] {
        let before = server.stats();
        let ended = |stats: &Stats, name| stats.value(name) > before.value(name);
        let over = |stats: &Stats| ended(stats, "closes_slow") || ended(stats, "handshakes_refused");
        let mut asker = Connection::open_small(server.address());
        let mut asked = 0;
        while asker.try_send(&request) && !over(&server.stats()) {
            asked += request.len();
            assert!(asked < BYTES_MAX, "a peer that never reads is not closed");
            assert!(server.stats().value("outbox_bytes") <= 1 << 20);
        }
        server.eventually("it is closed", over);
        server.eventually_is("connections", 0);
    }
}

#[test]
fn a_stream_that_is_never_read_is_closed_and_others_are_served() {
    let server = Server::start_with_clock(&["--outbox-bytes-max", "256Ki"]);
    let mut sender = server.websocket();
    let mut prompt: Vec<HttpClient> =
        (0..4).flat_map(|_| Way::ALL).map(|way| HttpClient::open(server.address(), way)).collect();
    prompt.iter_mut().for_each(|client| client.subscribe("/relay/flood"));
    let filler = "x".repeat(32 << 10);
    for round in 1..=3 {
        let session = new_session();
        let mut slow = Connection::open_small(server.address());
        slow.send(session.stream("&connect=true"));
        slow.read_to(": quickio\n\n");
        let mut requests = Connection::open(server.address());
        requests.ask(session.post("", "/qio/on:0=\"/relay/flood\""));
        let mut sent = 0;
        while server.stats().value("closes_slow") < round {
            assert!(sent * filler.len() < BYTES_MAX, "a stream that is never read is not closed");
            sender.request_code("/relay/flood", &format!("[{sent},{filler:?}]"), 200);
            for client in &mut prompt {
                assert!(client.event().data.starts_with(&format!("[{sent},")), "others are served, in order");
            }
            sent += 1;
        }
        assert_eq!(requests.ask(session.post("", "")).head.status, 403, "its session is closed");
        let stats = server.eventually_is("http_sessions", prompt.len() as u64);
        assert!(stats.value("outbox_bytes") <= 512 << 10);
    }
}

// Ends.

#[test]
fn whoever_stops_to_write_loses_nothing() {
    let server = Server::start(&[]);
    for number in 0..40 {
        let session = new_session();
        let mut other = Connection::open(server.address());
        other.ask(session.post("&connect=true", "/qio/ping:1="));
        let mut half = Connection::open(server.address());
        half.send(session.post("", "/qio/ping:2="));
        half.shutdown_write();
        // Either by the response, or by the next request: once.
        let mut told: String = half.responses().into_iter().map(|(_, body)| body).collect();
        told += &other.ask(session.post("", "/qio/ping:3=")).body;
        assert_eq!(told, [ok(2), ok(3)].concat(), "{number}");
    }
    // A poll that is held is given up.
    let session = new_session();
    let mut half = Connection::open(server.address());
    half.ask(session.post("&connect=true", "/qio/ping:1="));
    half.send(session.post("", ""));
    half.shutdown_write();
    assert_eq!(half.responses(), [(200, String::new())]);
    server.eventually_is("connections", 0);
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
                // It has been read.
                server.ask("GET", "/healthz");
            }
            connection.vanish();
        }
    }
    server.eventually_is("connections", 0);
    server.advance(11 * SECOND);
    assert_unharmed_by_hand(&server);
}

/// As [`assert_unharmed`], where the clock has to be moved for sessions to end.
fn assert_unharmed_by_hand(server: &Server) {
    server.assert_serves();
    HttpClient::open(server.address(), Way::Poll).ping();
    HttpClient::open(server.address(), Way::Stream).ping();
    server.eventually_is("connections", 0);
    server.advance(11 * SECOND);
    assert_nothing_left(server);
}

#[test]
fn nothing_behind_the_last_request_is_done() {
    let server = Server::start(&[]);
    let session = new_session();
    let ping = session.post("&connect=true", "/qio/ping:1=");
    let last = ping.replace("Host", "Connection: close\r\nHost");
    let old = ping.replace("HTTP/1.1", "HTTP/1.0");
    let mut done = 0;
    for first in [&last, &old] {
        let mut connection = Connection::open(server.address());
        connection.try_send(first.clone() + &ping.repeat(5));
        assert_eq!(connection.responses(), [(200, ok(1))]);
        done += 1;
    }
    // A stream is the last, too.
    let mut stream = Connection::open(server.address());
    stream.send(session.stream("") + &ping);
    stream.read_to(": quickio\n\n");
    Connection::open(server.address()).ask(session.post("", "/qio/ping:2="));
    assert_eq!(stream.read_to("\n\n"), format!("data:{}\n", ok(2)));
    done += 1;
    assert_eq!(server.stats().value("events_received"), done);
}

#[test]
fn an_upgrade_in_a_pipeline_is_refused_or_takes_all_that_follows() {
    let server = Server::start(&[]);
    let session = new_session();
    let ping = session.post("&connect=true", "/qio/ping:1=");
    // Behind a request that is not answered: nobody could tell where frames begin.
    let mut connection = Connection::open(server.address());
    connection.ask(&ping);
    connection.send(session.post("", "") + &http::upgrade("") + &ping);
    server.eventually_is("http_requests", 2);
    Connection::open(server.address()).ask(session.post("", "/qio/ping:2="));
    let responses = connection.responses();
    assert_eq!(responses[0], (200, String::new()));
    assert_eq!((responses.len(), responses[1].0), (2, 400));
    // Alone: what follows are frames, and a request is none.
    let mut client = Client::connect(server.address(), Wire::WebSocket);
    client.send((http::upgrade("") + &ping).as_bytes());
    assert_eq!(client.head().status, 101);
    client.expect_closed(1002, "reserved bits must be 0");
    assert_eq!(server.stats().value("events_received"), 2);
    assert_eq!(server.stats().value("closes_violation"), 1);
}

#[test]
fn garbage_behind_a_body_is_refused_as_a_request() {
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
fn requests_without_end_over_one_connection_leave_memory_where_it_was() {
    const REQUESTS: usize = 100_000;
    const AT_ONCE: usize = 50;
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    // Of both shards, most surely.
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

/// Connections that have been used keep nothing.
#[test]
fn sessions_come_and_go_and_leave_memory_where_it_was() {
    let server = Server::start_with_clock(&[]);
    let round = || {
        let mut connection = Connection::open(server.address());
        for _ in 0..500 {
            let request = new_session().post("&connect=true", "/qio/on:1=\"/relay/x\"\n/clienttest/echo:1=1");
            assert_eq!(connection.ask(request).head.status, 200);
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
