//! protocol.md, section 5: the rules for HTTP, one by one.

use crate::support::http::{self, Connection, Response, Session};
use crate::support::http_client::new_session;
use crate::support::{Client, Conversation, Ended, HttpClient, Server, Transport};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn ok(callback: u64) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}\n")
}

/// Returns a request that opens a session, with more header lines, and a ping in its body.
fn ping(session: Session, headers: &str) -> String {
    session
        .post("&connect=true", "/qio/ping:1=")
        .replace("Host: localhost\r\n", &format!("Host: localhost\r\n{headers}"))
}

fn assert_ok(response: &Response, body: &str) {
    assert_eq!((response.head.status, response.body.as_str()), (200, body), "{response:?}");
}

// Connections.

#[test]
fn keep_alive_follows_the_request() {
    let server = Server::start(&[]);
    let old = |request: String| request.replace("HTTP/1.1", "HTTP/1.0");
    let session = new_session();
    let kept = [
        (ping(session, ""), None),
        (ping(session, "Connection: keep-alive\r\n"), None),
        (ping(session, "Connection: Keep-Alive, x\r\n"), None),
        (old(ping(session, "Connection: keep-alive\r\n")), Some("keep-alive")),
        (
            old(ping(session, "connection: x, KEEP-ALIVE\r\n").replace("Host: localhost\r\n", "")),
            Some("keep-alive"),
        ),
    ];
    let mut connection = Connection::open(server.address());
    for (request, header) in &kept {
        let response = connection.request(request);
        assert_ok(&response, &ok(1));
        assert_eq!(response.head.header("connection"), *header, "{request}");
    }
    let closing = [
        ping(session, "Connection: close\r\n"),
        ping(session, "Connection: x\r\nConnection: CLOSE , keep-alive\r\n"),
        old(ping(session, "")),
        old(ping(session, "Connection: close\r\n")),
    ];
    for request in &closing {
        let response = connection.request(request.clone() + &ping(session, ""));
        assert_ok(&response, &ok(1));
        assert_eq!(response.head.header("connection"), Some("close"), "{request}");
        connection.assert_closed();
        connection = Connection::open(server.address());
    }
    // The server ignores requests after the last one of a connection.
    let events = kept.len() + closing.len();
    assert_eq!(server.stats().value("events_received"), events as u64);
}

#[test]
fn requests_can_be_pipelined() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    // Enough sessions that both shards almost certainly have some, with documents between.
    let sessions: Vec<Session> = (0..20).map(|_| new_session()).collect();
    let missing = "GET /missing HTTP/1.1\r\nHost: a\r\n\r\n";
    let requests: Vec<String> =
        sessions.iter().map(|session| session.post("&connect=true", "/qio/ping:7=") + missing).collect();
    connection.send(requests.concat());
    for _ in &sessions {
        assert_ok(&connection.response(), &ok(7));
        assert_eq!(connection.response().head.status, 404);
    }
    // A request of a session completes the one before it.
    let polls = [sessions[0].post("", ""), sessions[0].post("", ""), sessions[0].post("", "/qio/ping:8=")];
    connection.send(polls.concat());
    for body in ["", "", &ok(8)] {
        assert_ok(&connection.response(), body);
    }
}

#[test]
fn requests_can_arrive_in_pieces() {
    let server = Server::start(&[]);
    let session = new_session();
    let request = session.post("&connect=true", "/clienttest/error/201:1=\"\u{1f40c}\"\n/qio/ping:2=");
    let body = "/qio/callback/1:0={\"code\":201,\"data\":\"you requested an error?\",\"err_msg\":\"201s are fun!\"}\n";
    let body = body.to_owned() + &ok(2);
    let mut connection = Connection::open(server.address());
    for size in [1, 2, 3, 5, 7, 11, 50, 1000] {
        request.as_bytes().chunks(size).for_each(|piece| connection.send(piece));
        assert_ok(&connection.response(), &body);
    }
    // Several requests, in pieces whose ends are within the requests.
    let all = request.repeat(20);
    all.as_bytes().chunks(61).for_each(|piece| connection.send(piece));
    for _ in 0..20 {
        assert_ok(&connection.response(), &body);
    }
}

#[test]
fn lines_can_end_in_bare_line_feeds_and_be_blank() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let body = "\n\n/qio/ping:1=\n  \n\r\n/qio/ping:2=\r\n/qio/ping:3=";
    let request = new_session().post("&connect=true", body);
    let (head, _) = request.split_once("\r\n\r\n").unwrap();
    for line_end in ["\r\n", "\n"] {
        let request = format!("{0}{1}{1}{body}", head.replace("\r\n", line_end), line_end);
        assert_ok(&connection.request(request), &[ok(1), ok(2), ok(3)].concat());
    }
    // Some peers send an empty line after a body.
    assert_ok(&connection.request("\r\n".to_owned() + &ping(new_session(), "")), &ok(1));
}

#[test]
fn expect_100_continue_is_answered() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let request = ping(new_session(), "Expect: 100-continue\r\n");
    let (head, body) = request.split_at(request.len() - "/qio/ping:1=".len());
    connection.send(head);
    assert_eq!(connection.read_to("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_ok(&connection.request(body), &ok(1));
}

// Refusals.

#[test]
fn each_refusal_has_its_status() {
    let server = Server::start(&["--message-bytes-max", "1000"]);
    let session = new_session();
    let good = session.post("&connect=true", "/qio/ping:1=");
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    let sid = format!("{:032x}", session.0);
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let stream = get(&format!("/?sid={sid}"), "");
    let none = || String::from("");
    // The name, the request, its status, and whether the connection can be used again.
    let refused = [
        ("a sid that is too short", with(&sid, &sid[1..]), 403, false),
        ("a sid that is too long", with(&sid, &(sid.clone() + "0")), 403, false),
        ("a sid that is not hexadecimal", with(&sid, &sid.replacen('0', "g", 1)), 403, false),
        ("no sid", with(&format!("sid={sid}&"), ""), 403, false),
        ("an empty sid", with(&sid, ""), 403, false),
        ("an unknown session", session.post("", ""), 403, true),
        (
            "a stream of an unknown session",
            get(&format!("/?sid={sid}"), "Accept: text/event-stream\r\n"),
            403,
            false,
        ),
        ("two sids", with("&connect", &format!("&sid={sid}&connect")), 400, false),
        ("a seq of 0", with("&connect", "&seq=0&connect"), 400, false),
        ("a seq that is not a number", with("&connect", "&seq=-1&connect"), 400, false),
        ("a method that sessions do not have", with("POST", "PUT"), 405, false),
        ("an unknown method", "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 405, true),
        ("a POST to another path", with("/?", "/events?"), 404, false),
        ("an unknown document", get("/index.html", ""), 404, true),
        ("a session's output as a document", stream, 406, true),
        (
            "a coding that is not known",
            with("Content-Length: 12", "Transfer-Encoding: gzip, chunked"),
            501,
            false,
        ),
        ("a body over the limit", with("12", "1001"), 413, false),
        ("a body far over the limit", with("12", "18446744073709551615"), 413, false),
        ("a length over all limits", with("12", "18446744073709551616"), 400, false),
        ("an unknown expectation", with("Host", "Expect: miracles\r\nHost"), 417, false),
        ("a malformed event", with("/qio/ping:1=", "/qio/ping:x="), 400, false),
        ("a body that is not UTF-8", none(), 400, false),
        ("another version of HTTP", "GET / HTTP/2.0\r\n\r\n".into(), 505, false),
        ("another unknown method", "PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501, true),
        ("HTTP/1.1 without a host", with("Host: localhost\r\n", ""), 400, false),
    ];
    for (name, request, status, usable) in &refused {
        let mut request = request.clone().into_bytes();
        if request.is_empty() {
            request = with("/qio/ping:1=", "/qio/ping:1#").into_bytes();
            *request.last_mut().unwrap() = 0xff;
        }
        let mut connection = Connection::open(server.address());
        let response = connection.request(request);
        assert_eq!(response.head.status, *status, "{name}: {response:?}");
        let is_line = response.body.find('\n').is_some_and(|end| end > 0 && end + 1 == response.body.len());
        assert!(is_line, "{name}: the body is a line that says why: {response:?}");
        assert_eq!(response.head.header("connection"), (!usable).then_some("close"), "{name}");
        if *usable {
            assert_ok(&connection.request(ping(new_session(), "")), &ok(1));
        } else {
            connection.assert_closed();
        }
    }
    assert_eq!(server.stats().value("sessions_created"), 1 + refused.iter().filter(|it| it.3).count() as u64);
    server.assert_serves();
}

#[test]
fn posts_need_no_length_and_may_be_chunked() {
    let server = Server::start(&[]);
    let session = new_session();
    let target = format!("POST /?sid={:032x}&connect=true HTTP/1.1\r\nHost: a\r\n", session.0);
    // Without a length, as several libraries and proxies send a POST without a body. Subscribing holds the next poll.
    let mut connection = Connection::open(server.address());
    assert_ok(&connection.request(session.post("&connect=true", "/qio/on:1=\"/relay/x\"")), &ok(1));
    connection.send(format!("{target}\r\n"));
    server.eventually_is("http_requests", 2);
    let chunked = |body: &str| format!("{target}Transfer-Encoding: chunked\r\n\r\n{body}");
    let mut other = Connection::open(server.address());
    let body = "5;x\r\n/rela\r\n8\r\ny/x:0=1\n\r\nc\r\n/qio/ping:2=\r\n0\r\nX: y\r\n\r\n";
    for byte in chunked(body).bytes() {
        other.send([byte]);
    }
    assert_ok(&connection.response(), "");
    let response = other.response();
    let lines: BTreeSet<&str> = response.body.split_inclusive('\n').collect();
    assert_eq!(lines, BTreeSet::from(["/relay/x:0=1\n", &ok(2)]));
    assert_eq!(server.stats().value("events_received"), 3);
}

#[test]
fn every_response_has_a_date() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let session = new_session();
    for request in [
        session.post("&connect=true", "/qio/ping:1="),
        new_session().post("", ""),
        "GET /quickio.js HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "bad\r\n\r\n".into(),
    ] {
        connection.send(&request);
        let head =
            if request.starts_with("OPTIONS") { connection.head() } else { connection.response().head };
        let date =
            head.header("date").unwrap_or_else(|| panic!("no Date in response to {request}")).to_owned();
        let sent = httpdate::parse_http_date(&date).expect("a date");
        let age = SystemTime::now().duration_since(sent).expect("not in the future");
        assert!(age < Duration::from_secs(60), "{date}");
    }
}

#[test]
fn a_405_names_the_allowed_methods() {
    let server = Server::start(&[]);
    let response = http::exchange(server.address(), "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(response.head.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    assert!(
        response.body.ends_with('\n') && response.body.len() > 1,
        "the body has the reason: {response:?}"
    );
}

// Documents.

#[test]
fn documents_are_served_and_cached() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/quickio.js", "text/javascript; charset=utf-8"),
        ("/quickio.mjs", "text/javascript; charset=utf-8"),
        ("/quickio.d.ts", "text/plain; charset=utf-8"),
    ] {
        let document = connection.request(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(document.head.status, 200);
        assert_eq!(document.head.header("content-type"), Some(content_type));
        assert!(!document.body.is_empty() && document.head.header("cache-control").is_some());
        let tag = document.head.header("etag").expect("a tag");

        connection.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = connection.head();
        assert_eq!(head.headers, document.head.headers, "HEAD returns the headers of GET");

        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\n\r\n"));
        let unchanged = connection.head();
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some(tag)));
    }
    assert_ok(&connection.request(ping(new_session(), "")), &ok(1));
}

// Origins.

#[test]
fn every_origin_is_allowed_by_default() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let session = new_session();
    let response = connection.request(ping(session, "Origin: https://any.example\r\n"));
    assert_ok(&response, &ok(1));
    assert_eq!(response.head.header("access-control-allow-origin"), Some("*"));
    let response = connection.request(ping(session, ""));
    assert_eq!(response.head.header("access-control-allow-origin"), None, "the request has no origin");
    // A page can read the reason of a refusal.
    let unknown = new_session().post("", "").replace("Host", "Origin: null\r\nHost");
    let unknown = connection.request(unknown);
    assert_eq!((unknown.head.status, unknown.head.header("access-control-allow-origin")), (403, Some("*")));
    for target in ["/", "*", "/?sid=x", "/anything"] {
        connection.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n\r\n"));
        let head = connection.head();
        assert_eq!(head.status, 204);
        assert_eq!(head.header("access-control-allow-origin"), Some("*"));
        assert_eq!(head.header("access-control-allow-methods"), Some("GET, POST, OPTIONS"));
        assert_eq!(head.header("access-control-allow-headers"), Some("Content-Type"));
        assert_eq!(head.header("access-control-max-age"), Some("86400"));
    }
    assert_ok(&connection.request(ping(session, "")), &ok(1));
}

#[test]
fn origins_that_are_not_allowed_are_refused_over_every_transport() {
    let server = Server::start(&["--origin", "https://good.example,http://localhost:8080"]);
    let session = new_session();
    let requests = [
        ("POST", session.post("&connect=true", "/qio/ping:1=")),
        ("stream", session.stream("&connect=true")),
        ("OPTIONS", "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("upgrade", http::upgrade("")),
    ];
    for (name, request) in &requests {
        for bad in [
            "https://good.example.evil.example",
            "http://good.example",
            "https://good.example:8443",
            "null",
            "",
        ] {
            let request = request.replacen("Host", &format!("Origin: {bad}\r\nHost"), 1);
            let response = http::exchange(server.address(), request);
            assert_eq!(response.head.status, 403, "{name} of {bad:?}: {response:?}");
            assert_eq!(response.head.header("access-control-allow-origin"), None, "{name}");
        }
    }
    assert_eq!(server.stats().value("sessions_created"), 0);
    for (name, request) in &requests {
        for good in ["https://good.example", "http://localhost:8080"] {
            let mut connection = Connection::open(server.address());
            connection.send(request.replacen("Host", &format!("Origin: {good}\r\nHost"), 1));
            let head = connection.head();
            assert!([200, 204, 101].contains(&head.status), "{name} of {good}: {head:?}");
            if head.status != 101 {
                assert_eq!(head.header("access-control-allow-origin"), Some(good), "{name}");
                assert_eq!(head.header("vary"), Some("Origin"), "{name}");
            }
        }
    }
    // A request without an origin does not come from a browser.
    assert_ok(&http::exchange(server.address(), ping(new_session(), "")), &ok(1));
    server.assert_serves();
}

// The hostname.

#[test]
fn the_hostname_is_that_of_the_request() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let named = |name: &str| format!("/qio/callback/1:0={{\"code\":200,\"data\":\"{name}\"}}\n");
    // On either shard, for a new session and for one that exists.
    for number in 0..8 {
        let session = new_session();
        let host = format!("host-{number}.example:8080");
        let request = session.post("&connect=true", "/qio/hostname:1=null").replace("localhost", &host);
        assert_ok(&connection.request(&request), &named(&host));
        let target = format!("POST http://elsewhere-{number}/?sid");
        assert_ok(
            &connection.request(request.replace("POST /?sid", &target)),
            &named(&format!("elsewhere-{number}")),
        );
    }
    let server = Server::start(&["--public-address", "public.example"]);
    let request = new_session().post("&connect=true", "/qio/hostname:1=null");
    assert_ok(&http::exchange(server.address(), request), &named("public.example"));
}

// Polls.

#[test]
fn a_poll_is_held_for_45_to_50_seconds() {
    let server = Server::start_with_clock(&[]);
    let mut clients: Vec<(Connection, Session)> =
        (0..20).map(|_| (Connection::open(server.address()), new_session())).collect();
    for (connection, session) in &mut clients {
        assert_ok(&connection.request(ping(*session, "")), &ok(1));
        connection.send(session.post("", ""));
    }
    server.eventually_is("http_requests", 40);
    server.advance(44 * SECOND);
    for (connection, _) in &clients {
        assert!(connection.is_silent(), "before 45 s");
    }
    server.advance(7 * SECOND);
    for (connection, _) in &mut clients {
        assert_ok(&connection.response(), "");
    }
    assert_eq!(server.stats().value("http_sessions"), 20);
}

#[test]
fn a_request_completes_the_one_that_is_held() {
    let server = Server::start(&[]);
    let session = new_session();
    let (mut one, mut other) = (Connection::open(server.address()), Connection::open(server.address()));
    assert_ok(&one.request(ping(session, "")), &ok(1));
    for number in 0..10 {
        one.send(session.post("", ""));
        server.eventually_is("http_requests", number * 2 + 2);
        assert_ok(&other.request(session.post("", "/qio/ping:2=")), &ok(2));
        assert_ok(&one.response(), "");
    }
}

#[test]
fn output_waits_for_a_request_and_a_session_for_ten_seconds() {
    let server = Server::start_with_clock(&[]);
    let mut sender = server.websocket();
    for _ in 0..4 {
        let session = new_session();
        let mut connection = Connection::open(server.address());
        let on = session.post("&connect=true", "/qio/on:1=\"/relay/kept\"");
        assert_ok(&connection.request(on), &ok(1));
        for number in 1..4 {
            sender.request_code("/relay/kept", &number.to_string(), 200);
        }
        server.advance(9 * SECOND);
        let kept = "/relay/kept:0=1\n/relay/kept:0=2\n/relay/kept:0=3\n";
        assert_ok(&connection.request(session.post("", "")), kept);
        server.advance(10 * SECOND - MILLISECOND);
        assert_eq!(server.stats().value("subscriptions"), 1);
        server.advance(2 * MILLISECOND);
        server.eventually_is("subscriptions", 0);
        assert_eq!(connection.request(session.post("", "/qio/ping:1=")).head.status, 403);
    }
    let stats = server.stats();
    assert_eq!((stats.value("timeouts_session"), stats.value("http_sessions")), (4, 0));
    assert_eq!(stats.value("sessions_unknown"), 4);
}

#[test]
fn a_malformed_event_ends_the_session_for_all_its_requests() {
    let server = Server::start(&[]);
    for number in 0..6 {
        let session = new_session();
        let (mut held, mut bad) = (Connection::open(server.address()), Connection::open(server.address()));
        assert_ok(&held.request(ping(session, "")), &ok(1));
        let early = session.post("&seq=2", "/qio/ping:2=");
        held.send(&early);
        server.eventually_is("http_requests", number * 4 + 2);
        let response = bad.request(session.post("&seq=1", "/qio/ping:1=\nbad\n/qio/ping:3="));
        let line = "a line of the body is not an event: the session is closed\n";
        assert_eq!((response.head.status, response.body.as_str()), (400, line));
        bad.assert_closed();
        let response = held.response();
        assert_eq!((response.head.status, response.body.as_str()), (400, line));
        let mut later = Connection::open(server.address());
        assert_eq!(later.request(session.post("", "")).head.status, 403);
    }
}

#[test]
fn held_requests_are_answered_at_shutdown() {
    let mut server = Server::start(&[]);
    let session = new_session();
    let mut connection = Connection::open(server.address());
    assert_ok(&connection.request(ping(session, "")), &ok(1));
    connection.send(session.post("", ""));
    let mut stream = server.http_client(Transport::Stream);
    stream.ping();
    server.eventually_is("http_requests", 4);
    server.signal("TERM");
    assert_eq!(connection.response().head.status, 503);
    connection.assert_closed();
    assert!(server.exit().success());
}

// Event streams.

#[test]
fn a_stream_is_what_browsers_expect() {
    let server = Server::start(&[]);
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let session = new_session();
        let mut stream = Connection::open(server.address());
        stream.send(session.stream("&connect=true").replace("HTTP/1.1", version));
        let head = stream.head();
        assert_eq!(head.status, 200);
        for (name, value) in [
            ("content-type", Some("text/event-stream")),
            ("cache-control", Some("no-store, no-transform")),
            ("connection", Some("close")),
            ("content-length", None),
            ("transfer-encoding", None),
        ] {
            assert_eq!(head.header(name), value, "{name} in {version}");
        }
        assert_eq!(stream.read_to("\n\n"), ": quickio\n\n");
        let mut requests = Connection::open(server.address());
        assert_ok(&requests.request(session.post("", "/qio/ping:5=")), "");
        assert_eq!(stream.read_to("\n\n"), "data:/qio/callback/5:0={\"code\":200,\"data\":null}\n\n");
        // Another stream replaces it.
        let mut next = Connection::open(server.address());
        next.send(session.stream(""));
        assert_eq!(next.head().status, 200);
        assert_eq!(next.read_to("\n\n"), ": quickio\n\n");
        stream.assert_closed();
        assert_ok(&requests.request(session.post("", "/qio/ping:6=")), "");
        assert!(next.read_to("\n\n").starts_with("data:/qio/callback/6:0="));
        // The session ends with its stream.
        drop(next);
        server.eventually_is("http_sessions", 0);
        assert_eq!(requests.request(session.post("", "")).head.status, 403);
    }
}

#[test]
fn heartbeats_and_challenges_are_sent_over_streams() {
    let server = Server::start_with_clock(&[]);
    let mut clients: Vec<HttpClient> = (0..6).map(|_| server.http_client(Transport::Stream)).collect();
    server.advance(60 * SECOND);
    for client in &mut clients {
        assert_eq!(client.text(), "/qio/heartbeat:0=null");
    }
    for _ in 0..15 {
        server.advance(59 * SECOND);
    }
    let challenged = clients.len() as u64;
    server.eventually_is("challenges", challenged);
    for mut client in clients.split_off(3) {
        let callback = loop {
            match client.event().callback {
                0 => {}
                callback => break callback,
            }
        };
        client.tell(&format!("/qio/callback/{callback}"), "null");
        client.ping();
        clients.push(client);
    }
    for _ in 0..2 {
        server.advance(45 * SECOND);
        // The connection of their requests must not be idle for too long.
        clients[3..].iter_mut().for_each(HttpClient::ping);
    }
    server.eventually_is("http_sessions", 3);
    for client in &mut clients[..3] {
        assert_eq!(client.ended(), Ended::Status(403), "it did not answer the challenge");
    }
    clients[3..].iter_mut().for_each(HttpClient::ping);
    assert_eq!(server.stats().value("timeouts_liveness"), 3);
}

// Sessions and shards.

/// Requests of a session reach it from every shard.
#[test]
fn a_session_lives_on_one_shard_and_is_reached_from_all() {
    let server = Server::start(&["--shards", "3"]);
    let mut connections: Vec<Connection> = (0..12).map(|_| Connection::open(server.address())).collect();
    for number in 0..30 {
        let session = new_session();
        let paths: BTreeSet<String> = (0..12).map(|path| format!("/relay/{number}/{path}")).collect();
        for (connection, path) in connections.iter_mut().zip(&paths) {
            assert_ok(
                &connection.request(session.post("&connect=true", &format!("/qio/on:1=\"{path}\""))),
                &ok(1),
            );
        }
        let mut received = BTreeSet::new();
        for path in &paths {
            let request = session.post("", &format!("{path}:0=1"));
            let response = connections[number % 12].request(request);
            received.extend(response.body.lines().map(|line| line.replace(":0=1", "")));
        }
        assert_eq!(received, paths);
    }
    assert_eq!(server.stats().value("sessions_created"), 30);
    assert!(server.stats().value("http_relayed") > 0);
}

/// A connection that was used for requests can become a WebSocket.
#[test]
fn a_connection_that_has_polled_can_upgrade() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.address(), Transport::WebSocket);
    client.send(ping(new_session(), "").as_bytes());
    let head = client.head();
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(ok(1).len(), length);
    client.expect_bytes(ok(1).as_bytes());
    client.shake_hands();
    client.ping();
}
