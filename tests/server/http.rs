//! protocol.md, section 5: the rules of HTTP, one by one.

use crate::support::http::{self, Connection, Response, Session};
use crate::support::http_client::{HttpClient, Way, new_session};
use crate::support::{Server, Wire};
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn ok(callback: u64) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}\n")
}

/// A request of a session that does not exist yet, with more header lines, and a ping in its body.
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
fn connections_are_kept_alive_as_their_requests_say() {
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
    for (request, told) in &kept {
        let response = connection.ask(request);
        assert_ok(&response, &ok(1));
        assert_eq!(response.head.header("connection"), *told, "{request}");
    }
    let closing = [
        ping(session, "Connection: close\r\n"),
        ping(session, "Connection: x\r\nConnection: CLOSE , keep-alive\r\n"),
        old(ping(session, "")),
        old(ping(session, "Connection: close\r\n")),
    ];
    for request in &closing {
        let response = connection.ask(request.clone() + &ping(session, ""));
        assert_ok(&response, &ok(1));
        assert_eq!(response.head.header("connection"), Some("close"), "{request}");
        connection.assert_closed();
        connection = Connection::open(server.address());
    }
    // What stood behind the last requests was not looked at.
    let events = kept.len() + closing.len();
    assert_eq!(server.stats().value("events_received"), events as u64);
}

#[test]
fn requests_may_be_pipelined() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    // Sessions of both shards, most surely, and documents between.
    let sessions: Vec<Session> = (0..20).map(|_| new_session()).collect();
    let missing = "GET /missing HTTP/1.1\r\nHost: a\r\n\r\n";
    let requests: Vec<String> =
        sessions.iter().map(|session| session.post("&connect=true", "/qio/ping:7=") + missing).collect();
    connection.send(requests.concat());
    for _ in &sessions {
        assert_ok(&connection.response(), &ok(7));
        assert_eq!(connection.response().head.status, 404);
    }
    // One of a session completes the one before it.
    let polls = [sessions[0].post("", ""), sessions[0].post("", ""), sessions[0].post("", "/qio/ping:8=")];
    connection.send(polls.concat());
    for body in ["", "", &ok(8)] {
        assert_ok(&connection.response(), body);
    }
}

#[test]
fn requests_may_come_in_pieces() {
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
    // Several in pieces that fit none of them.
    let all = request.repeat(20);
    all.as_bytes().chunks(61).for_each(|piece| connection.send(piece));
    for _ in 0..20 {
        assert_ok(&connection.response(), &body);
    }
}

#[test]
fn lines_may_end_in_bare_line_feeds_and_be_blank() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let body = "\n\n/qio/ping:1=\n  \n\r\n/qio/ping:2=\r\n/qio/ping:3=";
    let request = new_session().post("&connect=true", body);
    let (head, _) = request.split_once("\r\n\r\n").unwrap();
    for line_end in ["\r\n", "\n"] {
        let request = format!("{0}{1}{1}{body}", head.replace("\r\n", line_end), line_end);
        assert_ok(&connection.ask(request), &[ok(1), ok(2), ok(3)].concat());
    }
    // Some peers send an empty line behind a body.
    assert_ok(&connection.ask("\r\n".to_owned() + &ping(new_session(), "")), &ok(1));
}

#[test]
fn a_client_that_asks_whether_to_send_its_body_is_told_to() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let request = ping(new_session(), "Expect: 100-continue\r\n");
    let (head, body) = request.split_at(request.len() - "/qio/ping:1=".len());
    connection.send(head);
    assert_eq!(connection.read_to("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_ok(&connection.ask(body), &ok(1));
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
    // What it is, the request, its status, and whether the connection can be used again.
    let refused = [
        ("a sid that is too short", with(&sid, &sid[1..]), 403, false),
        ("a sid that is too long", with(&sid, &(sid.clone() + "0")), 403, false),
        ("a sid that is not hexadecimal", with(&sid, &sid.replacen('0', "g", 1)), 403, false),
        ("no sid", with(&format!("sid={sid}&"), ""), 403, false),
        ("an empty sid", with(&sid, ""), 403, false),
        ("a session that is not there", session.post("", ""), 403, true),
        (
            "a stream of a session that is not there",
            get(&format!("/?sid={sid}"), "Accept: text/event-stream\r\n"),
            403,
            false,
        ),
        ("two sids", with("&connect", &format!("&sid={sid}&connect")), 400, false),
        ("a seq that is none", with("&connect", "&seq=0&connect"), 400, false),
        ("a seq that is no number", with("&connect", "&seq=-1&connect"), 400, false),
        ("a method that has no meaning there", with("POST", "PUT"), 405, false),
        ("a method that nobody knows", "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 405, true),
        ("a POST to another path", with("/?", "/events?"), 404, false),
        ("a document that is not there", get("/index.html", ""), 404, true),
        ("a session's output as a document", stream, 406, true),
        ("no length", with("Content-Length: 12\r\n", ""), 411, false),
        ("a body over the limit", with("12", "1001"), 413, false),
        ("a body far over the limit", with("12", "18446744073709551615"), 413, false),
        ("a length over all limits", with("12", "18446744073709551616"), 400, false),
        ("an expectation that nobody knows", with("Host", "Expect: miracles\r\nHost"), 417, false),
        ("a malformed event", with("/qio/ping:1=", "/qio/ping:x="), 400, false),
        ("a body that is no UTF-8", none(), 400, false),
        ("no HTTP", "GET / HTTP/2.0\r\n\r\n".into(), 400, false),
        ("HTTP/1.1 without a host", with("Host: localhost\r\n", ""), 400, false),
    ];
    for (name, request, status, usable) in &refused {
        let mut request = request.clone().into_bytes();
        if request.is_empty() {
            request = with("/qio/ping:1=", "/qio/ping:1#").into_bytes();
            *request.last_mut().unwrap() = 0xff;
        }
        let mut connection = Connection::open(server.address());
        let response = connection.ask(request);
        assert_eq!(response.head.status, *status, "{name}: {response:?}");
        assert_eq!(response.head.header("connection"), (!usable).then_some("close"), "{name}");
        if *usable {
            assert_ok(&connection.ask(ping(new_session(), "")), &ok(1));
        } else {
            connection.assert_closed();
        }
    }
    assert_eq!(server.stats().value("sessions_created"), 1 + refused.iter().filter(|it| it.3).count() as u64);
    server.assert_serves();
}

#[test]
fn a_refusal_says_what_may_be_asked() {
    let server = Server::start(&[]);
    let response = http::exchange(server.address(), "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(response.head.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    assert!(response.body.ends_with('\n') && response.body.len() > 1, "it says why: {response:?}");
}

// Documents.

#[test]
fn documents_are_served_and_known_again() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/quickio.js", "text/javascript; charset=utf-8"),
        ("/quickio.mjs", "text/javascript; charset=utf-8"),
        ("/quickio.d.ts", "text/plain; charset=utf-8"),
    ] {
        let document = connection.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(document.head.status, 200);
        assert_eq!(document.head.header("content-type"), Some(content_type));
        assert!(!document.body.is_empty() && document.head.header("cache-control").is_some());
        let tag = document.head.header("etag").expect("a tag");

        connection.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = connection.head();
        assert_eq!(head.headers, document.head.headers, "HEAD says what GET says");

        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\n\r\n"));
        let unchanged = connection.head();
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some(tag)));
    }
    assert_ok(&connection.ask(ping(new_session(), "")), &ok(1));
}

// Origins.

#[test]
fn every_page_may_connect_by_default() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let session = new_session();
    let asked = connection.ask(ping(session, "Origin: https://any.example\r\n"));
    assert_ok(&asked, &ok(1));
    assert_eq!(asked.head.header("access-control-allow-origin"), Some("*"));
    let silent = connection.ask(ping(session, ""));
    assert_eq!(silent.head.header("access-control-allow-origin"), None, "no page has asked");
    // A page may read why it was refused.
    let unknown = new_session().post("", "").replace("Host", "Origin: null\r\nHost");
    let unknown = connection.ask(unknown);
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
    assert_ok(&connection.ask(ping(session, "")), &ok(1));
}

#[test]
fn pages_that_may_not_connect_are_refused_by_every_protocol() {
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
    // Whoever names no page is no browser's.
    assert_ok(&http::exchange(server.address(), ping(new_session(), "")), &ok(1));
    server.assert_serves();
}

// The host's name.

#[test]
fn the_hostname_is_what_the_client_has_called_the_server() {
    let server = Server::start(&[]);
    let mut connection = Connection::open(server.address());
    let named = |name: &str| format!("/qio/callback/1:0={{\"code\":200,\"data\":\"{name}\"}}\n");
    // On either shard, at once and after it had to wait for another request.
    for number in 0..8 {
        let session = new_session();
        let host = format!("host-{number}.example:8080");
        let request = session.post("&connect=true", "/qio/hostname:1=null").replace("localhost", &host);
        assert_ok(&connection.ask(&request), &named(&host));
        let target = format!("POST http://elsewhere-{number}/?sid");
        assert_ok(
            &connection.ask(request.replace("POST /?sid", &target)),
            &named(&format!("elsewhere-{number}")),
        );
    }
    let server = Server::start(&["--public-address", "public.example"]);
    let request = new_session().post("&connect=true", "/qio/hostname:1=null");
    assert_ok(&http::exchange(server.address(), request), &named("public.example"));
}

// Polls.

#[test]
fn a_poll_is_held_for_50_to_55_seconds() {
    let server = Server::start_with_clock(&[]);
    let mut clients: Vec<(Connection, Session)> =
        (0..20).map(|_| (Connection::open(server.address()), new_session())).collect();
    for (connection, session) in &mut clients {
        assert_ok(&connection.ask(ping(*session, "")), &ok(1));
        connection.send(session.post("", ""));
    }
    server.eventually_is("http_requests", 40);
    server.advance(49 * SECOND);
    for (connection, _) in &clients {
        assert!(connection.is_silent(), "before 50 s");
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
    assert_ok(&one.ask(ping(session, "")), &ok(1));
    for number in 0..10 {
        one.send(session.post("", ""));
        server.eventually_is("http_requests", number * 2 + 2);
        assert_ok(&other.ask(session.post("", "/qio/ping:2=")), &ok(2));
        assert_ok(&one.response(), "");
    }
}

#[test]
fn output_waits_for_a_request_and_the_session_for_ten_seconds() {
    let server = Server::start_with_clock(&[]);
    let mut sender = server.websocket();
    for _ in 0..4 {
        let session = new_session();
        let mut connection = Connection::open(server.address());
        let on = session.post("&connect=true", "/qio/on:1=\"/relay/kept\"");
        assert_ok(&connection.ask(on), &ok(1));
        for number in 1..4 {
            sender.request_code("/relay/kept", &number.to_string(), 200);
        }
        server.advance(9 * SECOND);
        let kept = "/relay/kept:0=1\n/relay/kept:0=2\n/relay/kept:0=3\n";
        assert_ok(&connection.ask(session.post("", "")), kept);
        server.advance(10 * SECOND - MILLISECOND);
        assert_eq!(server.stats().value("subscriptions"), 1);
        server.advance(2 * MILLISECOND);
        server.eventually_is("subscriptions", 0);
        assert_eq!(connection.ask(session.post("", "/qio/ping:1=")).head.status, 403);
    }
    let stats = server.stats();
    assert_eq!((stats.value("timeouts_session"), stats.value("http_sessions")), (4, 0));
    assert_eq!(stats.value("sessions_unknown"), 4);
}

#[test]
fn a_malformed_event_ends_the_session_for_whoever_waits() {
    let server = Server::start(&[]);
    for number in 0..6 {
        let session = new_session();
        let (mut held, mut bad) = (Connection::open(server.address()), Connection::open(server.address()));
        assert_ok(&held.ask(ping(session, "")), &ok(1));
        let early = session.post("&seq=2", "/qio/ping:2=");
        held.send(&early);
        server.eventually_is("http_requests", number * 4 + 2);
        let response = bad.ask(session.post("&seq=1", "/qio/ping:1=\nbad\n/qio/ping:3="));
        assert_eq!((response.head.status, response.body.as_str()), (400, ""));
        bad.assert_closed();
        assert_eq!(held.response().head.status, 400);
        let mut later = Connection::open(server.address());
        assert_eq!(later.ask(session.post("", "")).head.status, 403);
    }
}

#[test]
fn whoever_waits_when_the_server_goes_away_is_told() {
    let mut server = Server::start(&[]);
    let session = new_session();
    let mut connection = Connection::open(server.address());
    assert_ok(&connection.ask(ping(session, "")), &ok(1));
    connection.send(session.post("", ""));
    let mut stream = HttpClient::open(server.address(), Way::Stream);
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
        assert_ok(&requests.ask(session.post("", "/qio/ping:5=")), "");
        assert_eq!(stream.read_to("\n\n"), "data:/qio/callback/5:0={\"code\":200,\"data\":null}\n\n");
        // Another takes its place.
        let mut next = Connection::open(server.address());
        next.send(session.stream(""));
        assert_eq!(next.head().status, 200);
        assert_eq!(next.read_to("\n\n"), ": quickio\n\n");
        stream.assert_closed();
        assert_ok(&requests.ask(session.post("", "/qio/ping:6=")), "");
        assert!(next.read_to("\n\n").starts_with("data:/qio/callback/6:0="));
        // The session ends with its stream.
        drop(next);
        server.eventually_is("http_sessions", 0);
        assert_eq!(requests.ask(session.post("", "")).head.status, 403);
    }
}

#[test]
fn heartbeats_come_over_streams_and_want_an_answer_in_the_end() {
    let server = Server::start_with_clock(&[]);
    let mut clients: Vec<HttpClient> =
        (0..6).map(|_| HttpClient::open(server.address(), Way::Stream)).collect();
    server.advance(60 * SECOND);
    for client in &mut clients {
        assert_eq!(client.text(), "/qio/heartbeat:0=null");
    }
    for _ in 0..15 {
        server.advance(59 * SECOND);
    }
    let challenged = clients.len() as u64;
    server.eventually_is("challenges", challenged);
    let answers = clients.split_off(3);
    for mut client in answers {
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
    server.advance(90 * SECOND);
    server.eventually_is("http_sessions", 3);
    for client in &mut clients[..3] {
        assert_eq!(client.ended(), 403, "it has not answered");
    }
    clients[3..].iter_mut().for_each(HttpClient::ping);
    assert_eq!(server.stats().value("timeouts_liveness"), 3);
}

// Sessions and shards.

/// Each of many sessions is the same wherever its requests come in.
#[test]
fn a_session_lives_on_one_shard_and_is_reached_from_all() {
    let server = Server::start(&["--shards", "3"]);
    let mut connections: Vec<Connection> = (0..12).map(|_| Connection::open(server.address())).collect();
    for number in 0..30 {
        let session = new_session();
        let paths: BTreeSet<String> = (0..12).map(|path| format!("/relay/{number}/{path}")).collect();
        for (connection, path) in connections.iter_mut().zip(&paths) {
            assert_ok(
                &connection.ask(session.post("&connect=true", &format!("/qio/on:1=\"{path}\""))),
                &ok(1),
            );
        }
        let mut told = BTreeSet::new();
        for path in &paths {
            let request = session.post("", &format!("{path}:0=1"));
            let response = connections[number % 12].ask(request);
            told.extend(response.body.lines().map(|line| line.replace(":0=1", "")));
        }
        assert_eq!(told, paths);
    }
    assert_eq!(server.stats().value("sessions_created"), 30);
    assert!(server.stats().value("http_relayed") > 0);
}

/// Whoever upgrades on a connection that had requests before is a WebSocket like any other.
#[test]
fn a_connection_that_has_polled_may_upgrade() {
    let server = Server::start(&[]);
    let mut client = crate::support::Client::connect(server.address(), Wire::WebSocket);
    client.send(ping(new_session(), "").as_bytes());
    let head = client.head();
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(ok(1).len(), length);
    client.expect_bytes(ok(1).as_bytes());
    client.shake_hands();
    client.ping();
}
