//! Tests of HTTP clients: polls, event streams and sessions, on the simulated kernel of the shard's tests.

use crate::app::clienttest::ClientTest;
use crate::app::relay::Relay;
use crate::app::{Answer, Application, Error, Json, Registrar};
use crate::config::{Config, TrustedProxy};
use crate::event::path::Path;
use crate::limits::{HTTP_EARLY_REQUESTS_MAX, SESSIONS_UNUSED_MAX, STREAM_LINGER};
use crate::metrics::{Counter, Gauge};
use crate::protocol::http::Sid;
use crate::qev::ring::PeerAddress;
use crate::shard::ControlMessage;
use crate::shard::sessions::refusal::SessionRefusal;
use crate::shard::testing::{FnApp, Peer, World, address};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A session, as its client knows it. Its methods build requests.
#[derive(Clone, Copy)]
struct TestSession {
    sid: u128,
}

/// Responses in the order in which they were received: the status and the body of each.
type Responses = Vec<(u16, String)>;

fn apps() -> Vec<Arc<dyn Application>> {
    vec![Arc::new(Relay), Arc::new(ClientTest::default())]
}

/// Returns a session whose home is this shard.
fn session_on(world: &World, shard: usize) -> TestSession {
    let state = &world.shards[shard].state();
    let sid = (1 << 100..).find(|sid| usize::from(state.home_of(Sid::from(*sid))) == shard).unwrap();
    TestSession { sid }
}

impl TestSession {
    fn post(self, query: &str, body: &str) -> String {
        let sid = self.sid;
        let len = body.len();
        format!(
            "POST /?sid={sid:032x}{query} HTTP/1.1\r\nHost: there:80\r\nContent-Length: {len}\r\n\r\n{body}"
        )
    }

    fn stream(self, query: &str) -> String {
        let sid = self.sid;
        format!("GET /?sid={sid:032x}{query} HTTP/1.1\r\nHost: there\r\nAccept: text/event-stream\r\n\r\n")
    }
}

/// Sends a request, or several, and returns the complete responses received so far.
fn exchange(world: &mut World, peer: Peer, request: &str) -> Responses {
    world.send_bytes(peer, request.as_bytes());
    world.run_until_idle();
    take_responses(world, peer)
}

/// Takes the responses received since the last call, all of which must be complete.
fn take_responses(world: &mut World, peer: Peer) -> Responses {
    let bytes = world.take_bytes(peer);
    let mut ok_response = Responses::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (status, head_len, body_len) = parse_head(rest);
        let body = &rest[head_len..][..body_len.expect("a response with a length, not a stream")];
        ok_response.push((status, String::from_utf8(body.to_vec()).unwrap()));
        rest = &rest[head_len + body.len()..];
    }
    ok_response
}

/// Parses the head of a response; returns the status, the length of the head, and the length of the body if it is
/// known.
fn parse_head(bytes: &[u8]) -> (u16, usize, Option<usize>) {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_len) = response.parse(bytes).unwrap() else {
        panic!("the head is incomplete")
    };
    let length = response.headers.iter().find(|header| header.name == "Content-Length");
    let length = length.map(|header| std::str::from_utf8(header.value).unwrap().parse().unwrap());
    (response.code.unwrap(), head_len, length)
}

/// Opens a stream and returns what was received after its head.
fn open_stream(world: &mut World, peer: Peer, request: &str) -> String {
    world.send_bytes(peer, request.as_bytes());
    world.run_until_idle();
    let bytes = world.take_bytes(peer);
    let (status, head_len, length) = parse_head(&bytes);
    assert_eq!((status, length), (200, None));
    String::from_utf8(bytes[head_len..].to_vec()).unwrap()
}

/// Takes the text received on a stream since the last call.
fn take_stream(world: &mut World, peer: Peer) -> String {
    String::from_utf8(world.take_bytes(peer)).unwrap()
}

/// Returns the line with which the server replies to a callback successfully and without data.
fn reply_ok(callback: u64) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}\n")
}

/// Returns the response that refuses a request for this reason.
fn refused(refusal: SessionRefusal) -> (u16, String) {
    (refusal.status(), refusal.line().into())
}

/// Returns a single response with status 200 and this body.
fn ok_response(body: impl Into<String>) -> Responses {
    vec![(200, body.into())]
}

/// Broadcasts to a path of the relay, from a raw client on shard 0 that connects and disconnects for this.
fn broadcast(world: &mut World, path: &str, data: &str) {
    let peer = world.connect_raw(0);
    world.send_event(peer, &format!("{path}:0={data}"));
    world.run_until_idle();
    world.end_stream(peer);
    world.run_until_idle();
}

/// Creates two shards, a connection to each, and a session that is subscribed to `/relay/a`. The session's home is
/// shard 0. Both connections have made a request. Returns the connection to the home, the other connection, and the
/// session.
fn world_with_subscriber() -> (World, Peer, Peer, TestSession) {
    let mut world = World::new(2, apps());
    let (home_peer, remote_peer) = (world.connect(0), world.connect(1));
    let missing = "GET /nowhere HTTP/1.1\r\nHost: here\r\n\r\n";
    assert_eq!(exchange(&mut world, remote_peer, missing)[0].0, 404);
    let session = session_on(&world, 0);
    let request = session.post("&connect=true", "/qio/on:1=\"/relay/a\"");
    assert_eq!(exchange(&mut world, home_peer, &request), ok_response(reply_ok(1)));
    (world, home_peer, remote_peer, session)
}

// Polls.

#[test]
fn events_in_a_body_are_answered_in_order_on_any_shard() {
    let mut world = World::new(2, apps());
    for home in [0, 1] {
        let peer = world.connect(0);
        let session = session_on(&world, home);
        let body = "/qio/ping:1=null\r\n\n/qio/ping:2=\n/nobody:3=1";
        let missing = "/qio/callback/3:0={\"code\":404,\"data\":null,\"err_msg\":null}\n";
        let expected = ok_response([reply_ok(1), reply_ok(2), missing.into()].concat());
        assert_eq!(exchange(&mut world, peer, &session.post("&connect=true", body)), expected);
        let connected = format!("/qio/callback/4:0={}\n", r#"{"code":200,"data":"there:80"}"#);
        assert_eq!(exchange(&mut world, peer, &session.post("", "/qio/hostname:4=")), ok_response(connected));
    }
    assert_eq!(world.counter(Counter::HttpRelayed), 2);
    assert_eq!((world.gauge(Gauge::HttpSessions), world.gauge(Gauge::Connections)), (2, 2));
}

#[test]
fn sessions_count_by_the_way_in_which_they_receive() {
    let mut world = World::new(1, apps());
    let (peer, streaming) = (world.connect(0), world.connect(0));
    let session = session_on(&world, 0);
    let counts =
        |world: &World| [Gauge::ClientsPolling, Gauge::ClientsStreaming].map(|gauge| world.gauge(gauge));
    exchange(&mut world, peer, &session.post("&connect=true", ""));
    assert_eq!(counts(&world), [1, 0]);
    open_stream(&mut world, streaming, &session.stream(""));
    assert_eq!(counts(&world), [0, 1]);
    world.reset(streaming);
    world.run_seconds(30);
    assert_eq!(counts(&world), [0, 0]);
}

#[test]
fn a_raw_client_is_told_the_servers_hostname() {
    let mut world = World::new(1, apps());
    let peer = world.connect_raw(0);
    world.send_event(peer, "/qio/hostname:1=");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(peer), ["/qio/callback/1:0={\"code\":200,\"data\":\"here\"}"]);
}

#[test]
fn a_poll_is_held_until_there_is_output() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    for peer in [home_peer, remote_peer] {
        assert_eq!(exchange(&mut world, peer, &session.post("", "")), []);
        broadcast(&mut world, "/relay/a", "[1]");
        assert_eq!(take_responses(&mut world, peer), ok_response("/relay/a:0=[1]\n"));
    }
}

#[test]
fn output_waits_for_the_next_poll() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    for data in 1..=3 {
        broadcast(&mut world, "/relay/a", &data.to_string());
    }
    assert_eq!(take_responses(&mut world, home_peer), []);
    let expected = ok_response("/relay/a:0=1\n/relay/a:0=2\n/relay/a:0=3\n");
    assert_eq!(exchange(&mut world, remote_peer, &session.post("", "")), expected);
    assert_eq!(world.gauge(Gauge::OutboxBytes), 0);
}

#[test]
fn a_request_completes_and_replaces_the_held_request() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), []);
    assert_eq!(exchange(&mut world, remote_peer, &session.post("", "/qio/ping:0=")), []);
    assert_eq!(take_responses(&mut world, home_peer), ok_response(""));
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "/qio/ping:2=")), ok_response(reply_ok(2)));
    assert_eq!(take_responses(&mut world, remote_peer), ok_response(""));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut world = World::new(2, apps());
    for home in [0, 1] {
        let peer = world.connect(0);
        let session = session_on(&world, home);
        let pipeline: String = (1..=50)
            .map(|callback| session.post("&connect=true", &format!("/qio/ping:{callback}=")))
            .collect();
        let expected: Responses = (1..=50).map(|callback| (200, reply_ok(callback))).collect();
        assert_eq!(exchange(&mut world, peer, &pipeline), expected, "home {home}");
    }
}

#[test]
fn two_sessions_share_a_connection() {
    let mut world = World::new(2, apps());
    let peer = world.connect(0);
    let sessions = [session_on(&world, 0), session_on(&world, 1)];
    // The first request is held; the response to the second has to wait for it.
    let held = sessions[0].post("&connect=true", "/qio/on:0=\"/relay/a\"");
    assert_eq!(exchange(&mut world, peer, &held), []);
    assert_eq!(exchange(&mut world, peer, &sessions[1].post("&connect=true", "/qio/ping:1=")), []);
    broadcast(&mut world, "/relay/a", "1");
    assert_eq!(take_responses(&mut world, peer), [(200, "/relay/a:0=1\n".into()), (200, reply_ok(1))]);
}

#[test]
fn a_held_poll_gets_an_empty_response_after_45_to_50_seconds() {
    let (mut world, home_peer, _, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), []);
    world.run_seconds(44);
    assert_eq!(take_responses(&mut world, home_peer), []);
    world.run_seconds(6);
    assert_eq!(take_responses(&mut world, home_peer), ok_response(""));
    // The session does not time out while it polls.
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), []);
    world.run_seconds(51);
    assert_eq!(take_responses(&mut world, home_peer), ok_response(""));
}

#[test]
fn line_ends_in_json_become_spaces() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    broadcast(&mut world, "/relay/a", "{\n\"a\":\r\n1}");
    assert_eq!(
        exchange(&mut world, home_peer, &session.post("", "")),
        ok_response("/relay/a:0={ \"a\":  1}\n")
    );
    open_stream(&mut world, remote_peer, &session.stream(""));
    broadcast(&mut world, "/relay/a", "[\n1]");
    assert_eq!(take_stream(&mut world, remote_peer), "data:/relay/a:0=[ 1]\n\n");
}

// Ends of sessions.

#[test]
fn a_session_without_requests_times_out_with_its_subscriptions() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    world.run_seconds(9);
    assert_eq!(world.gauge(Gauge::Subscriptions), 1);
    world.run_seconds(1);
    assert_eq!(world.counter(Counter::TimeoutsSession), 1);
    assert_eq!((world.gauge(Gauge::HttpSessions), world.gauge(Gauge::Subscriptions)), (0, 0));
    assert_eq!(exchange(&mut world, remote_peer, &session.post("", "")), [refused(SessionRefusal::Unknown)]);
    for peer in [home_peer, remote_peer] {
        world.end_stream(peer);
    }
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_client_can_close_its_session() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, home_peer, &session.post("&seq=1", "")), []);
    // This request waits for request 2, which has not arrived yet.
    assert_eq!(exchange(&mut world, remote_peer, &session.post("&seq=3&close=true", "/qio/ping:3=")), []);
    assert_eq!(exchange(&mut world, home_peer, &session.post("&seq=2", "/relay/a:2=1")).len(), 2);
    assert_eq!(take_responses(&mut world, remote_peer), ok_response(reply_ok(3) + "/relay/a:0=1\n"));
    assert_eq!((world.gauge(Gauge::HttpSessions), world.gauge(Gauge::Subscriptions)), (0, 0));
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), [refused(SessionRefusal::Unknown)]);
    // A close without events, of a session with a stream.
    let stream = world.connect(1);
    open_stream(&mut world, stream, &session.stream("&connect=true"));
    assert_eq!(exchange(&mut world, home_peer, &session.post("&close=true", "")), ok_response(""));
    assert!(world.is_stream_ended(stream));
    assert_eq!(world.gauge(Gauge::HttpSessions), 0);
}

#[test]
fn an_unknown_session_is_refused_and_the_connection_stays_open() {
    let mut world = World::new(2, apps());
    let peer = world.connect(0);
    for home in [0, 1] {
        let session = session_on(&world, home);
        assert_eq!(
            exchange(&mut world, peer, &session.post("", "/qio/ping:1=")),
            [refused(SessionRefusal::Unknown)]
        );
    }
    let session = session_on(&world, 0);
    assert_eq!(exchange(&mut world, peer, &session.stream("")), [refused(SessionRefusal::Unknown)]);
    assert_eq!(world.counter(Counter::SessionsUnknown), 3);
    assert_eq!(world.counter(Counter::EventsReceived), 0);
}

#[test]
fn a_malformed_event_ends_the_session_and_the_connection() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, remote_peer, &session.post("", "")), []);
    let body = "/qio/ping:2=\nno event\n/qio/ping:3=";
    assert_eq!(
        exchange(&mut world, home_peer, &session.post("", body)),
        [refused(SessionRefusal::MalformedEvent)]
    );
    assert_eq!(
        take_responses(&mut world, remote_peer),
        ok_response(""),
        "the poll was completed before the error"
    );
    assert!(world.is_stream_ended(home_peer));
    assert_eq!(exchange(&mut world, remote_peer, &session.post("", "")), [refused(SessionRefusal::Unknown)]);
    assert_eq!(world.counter(Counter::EventsReceived), 2, "events after the malformed one are not handled");
}

#[test]
fn events_sent_before_a_close_are_delivered() {
    let mut world = World::new(2, apps());
    let peer = world.connect(0);
    for home in [0, 1] {
        let session = session_on(&world, home);
        let body = "/clienttest/move:1=\"there\"";
        let moved = ok_response("/qio/move:0=\"there\"\n");
        assert_eq!(exchange(&mut world, peer, &session.post("&connect=true", body)), moved);
        assert_eq!(exchange(&mut world, peer, &session.post("", "")), [refused(SessionRefusal::Unknown)]);
    }
    assert_eq!(world.gauge(Gauge::HttpSessions), 0);
}

/// Registers `/bye`, which is answered; a second later the client is sent `/last` and is closed.
fn reply_then_close(registrar: &mut Registrar) -> Result<(), Error> {
    registrar
        .event("/bye")
        .handler(|cx, event| {
            let client = event.client;
            cx.after(SECOND, move |cx| {
                cx.send(client, &Path::parse("/last").unwrap(), Json::NULL);
                cx.close(client);
            });
            Answer::ok()
        })
        .register()
}

#[test]
fn output_of_a_closed_session_waits_for_a_request_for_a_limited_time() {
    let mut world = World::new(1, vec![Arc::new(FnApp(reply_then_close))]);
    let peer = world.connect(0);
    let session = session_on(&world, 0);
    for polls_again in [true, false] {
        assert_eq!(
            exchange(&mut world, peer, &session.post("&connect=true", "/bye:1=")),
            ok_response(reply_ok(1))
        );
        world.run_seconds(2);
        if polls_again {
            assert_eq!(exchange(&mut world, peer, &session.post("", "")), ok_response("/last:0=null\n"));
        }
        world.run_seconds(10);
        assert_eq!(exchange(&mut world, peer, &session.post("", "")), [refused(SessionRefusal::Unknown)]);
    }
    world.end_stream(peer);
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn output_survives_the_loss_of_the_held_request() {
    for disconnect in [World::end_stream, World::reset] {
        let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
        assert_eq!(exchange(&mut world, remote_peer, &session.post("", "")), []);
        disconnect(&mut world, remote_peer);
        world.run_until_idle();
        broadcast(&mut world, "/relay/a", "1");
        assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), ok_response("/relay/a:0=1\n"));
    }
}

#[test]
fn a_client_that_ends_its_stream_after_a_request_is_answered() {
    // The stream ends at each stage of the request's way to the session's shard and of the response's way back.
    for (home, turns) in [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4)] {
        let mut world = World::new(2, apps());
        let peer = world.connect(0);
        let session = session_on(&world, home);
        world.send_bytes(peer, session.post("&connect=true", "/qio/ping:1=").as_bytes());
        (0..turns).for_each(|turn| world.turn(turn % 2));
        world.end_stream(peer);
        world.run_until_idle();
        assert_eq!(take_responses(&mut world, peer), ok_response(reply_ok(1)), "{home} {turns}");
        assert!(world.is_closed(peer), "as if it had asked for that");
        // The next request is not affected.
        let next = world.connect(1);
        let request = session.post("", "/qio/ping:2=");
        assert_eq!(exchange(&mut world, next, &request), ok_response(reply_ok(2)), "{home} {turns}");
    }
}

/// Registers `/late`, which is not answered; a second later the client is sent `/late`.
fn send_late(registrar: &mut Registrar) -> Result<(), Error> {
    registrar
        .event("/late")
        .handler(|cx, event| {
            let client = event.client;
            cx.after(SECOND, move |cx| cx.send(client, &Path::parse("/late").unwrap(), Json::NULL));
            Answer::never()
        })
        .register()
}

#[test]
fn a_client_that_ends_its_stream_waits_for_the_answers_to_its_events() {
    for home in [0, 1] {
        let mut world = World::new(2, vec![Arc::new(FnApp(send_late)), Arc::new(Relay)]);
        let session = session_on(&world, home);
        let (peer, idle) = (world.connect(0), world.connect(0));
        world.send_bytes(peer, session.post("&connect=true", "/late:0=").as_bytes());
        world.end_stream(peer);
        world.run_until_idle();
        assert!(!world.is_closed(peer));
        world.run_seconds(1);
        let response = String::from_utf8(world.take_bytes(peer)).unwrap();
        assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\n/late:0=null\n"), "{response}");
        assert!(world.is_closed(peer));
        // If nothing is answered, the request is held for `timeout`, and then the session has its time.
        world.send_bytes(idle, session.post("", "/relay/x:0=1").as_bytes());
        world.end_stream(idle);
        world.run_until_idle();
        world.run_seconds(9);
        assert!(!world.is_closed(idle));
        world.run_seconds(1);
        assert_eq!(take_responses(&mut world, idle), ok_response(""));
        assert!(world.is_closed(idle));
        world.run_seconds(9);
        assert_eq!(world.gauge(Gauge::HttpSessions), 1);
        world.run_seconds(1);
        assert_eq!(world.gauge(Gauge::HttpSessions), 0);
    }
}

#[test]
fn a_stream_that_is_ended_by_its_client_gets_what_there_is() {
    for home in [0, 1] {
        let mut world = World::new(2, apps());
        let (peer, stream) = (world.connect(0), world.connect(0));
        let session = session_on(&world, home);
        let on = session.post("&connect=true", "/qio/on:1=\"/relay/a\"");
        assert_eq!(exchange(&mut world, peer, &on), ok_response(reply_ok(1)));
        broadcast(&mut world, "/relay/a", "1");
        world.send_bytes(stream, session.stream("").as_bytes());
        world.end_stream(stream);
        world.run_until_idle();
        let text = String::from_utf8(world.take_bytes(stream)).unwrap();
        assert!(text.ends_with("\r\n\r\n: quickio\n\ndata:/relay/a:0=1\n\n"), "{home}: {text}");
        assert!(world.is_closed(stream));
        assert_eq!(world.gauge(Gauge::HttpSessions), 0);
    }
}

#[test]
fn held_requests_are_completed_when_their_client_ends_its_stream() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, remote_peer, &session.post("&seq=3", "/relay/b:0=3")), []);
    assert_eq!(exchange(&mut world, home_peer, &session.post("&seq=1", "")), []);
    world.end_stream(home_peer);
    world.end_stream(remote_peer);
    world.run_until_idle();
    assert_eq!(take_responses(&mut world, home_peer), ok_response(""));
    assert!(world.is_closed(home_peer) && !world.is_closed(remote_peer), "one waits for its turn");
    let stream = world.connect(1);
    open_stream(&mut world, stream, &session.stream(""));
    let peer = world.connect(0);
    assert_eq!(exchange(&mut world, peer, &session.post("&seq=2", "/relay/b:0=2")), ok_response(""));
    assert_eq!(world.counter(Counter::Broadcasts), 2, "the broadcast of request 3 was handled too");
    assert_eq!(take_responses(&mut world, remote_peer), ok_response(""));
    assert!(world.is_closed(remote_peer));
    world.end_stream(stream);
    world.run_until_idle();
    assert!(world.is_closed(stream));
    assert_eq!(world.gauge(Gauge::HttpSessions), 0);
}

#[test]
fn shutdown_answers_held_requests() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), []);
    let other = session_on(&world, 1);
    assert_eq!(exchange(&mut world, remote_peer, &other.post("&connect=true", "")), []);
    for shard in 0..world.shards.len() {
        world.send_control(shard, ControlMessage::Shutdown { deadline_ns: u64::MAX });
    }
    world.run_until_idle();
    for peer in [home_peer, remote_peer] {
        assert_eq!(take_responses(&mut world, peer), [(503, "server going away\n".into())]);
        assert!(world.is_stream_ended(peer));
        world.end_stream(peer);
    }
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn shutdown_does_not_wait_for_sessions_without_a_held_request() {
    let (mut world, home_peer, remote_peer, _) = world_with_subscriber();
    broadcast(&mut world, "/relay/a", "1");
    for peer in [home_peer, remote_peer] {
        world.end_stream(peer);
    }
    for shard in 0..world.shards.len() {
        world.send_control(shard, ControlMessage::Shutdown { deadline_ns: u64::MAX });
    }
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn shutdown_does_not_wait_for_idle_connections() {
    let mut world = World::new(1, apps());
    let (idle, busy, mute) = (world.connect(0), world.connect(0), world.connect(0));
    let missing = "GET /nowhere HTTP/1.1\r\nHost: here\r\n\r\n";
    assert_eq!(exchange(&mut world, idle, missing)[0].0, 404);
    world.run_seconds(2);
    assert_eq!(exchange(&mut world, busy, missing)[0].0, 404);
    world.send_control(0, ControlMessage::Shutdown { deadline_ns: u64::MAX });
    world.run_until_idle();
    assert!(world.is_closed(idle) && world.is_closed(mute));
    assert!(
        world.is_stream_ended(busy) && !world.is_closed(busy),
        "the client may still be reading its response"
    );
    world.end_stream(busy);
    world.run_until_idle();
    world.assert_empty();
}

// Limits.

#[test]
fn sessions_count_towards_the_limit_of_clients() {
    let mut world = World::with_config(1, Config { clients_max: 2, ..Config::default() }, apps());
    let peer = world.connect(0);
    let session = session_on(&world, 0);
    assert_eq!(
        exchange(&mut world, peer, &session.post("&connect=true", "/qio/ping:1=")),
        ok_response(reply_ok(1))
    );
    let other = TestSession { sid: session.sid + 1 };
    assert_eq!(exchange(&mut world, peer, &other.post("&connect=true", "")), [refused(SessionRefusal::Full)]);
    assert_eq!(world.counter(Counter::SessionsRefused), 1);
}

#[test]
fn sessions_count_towards_the_limit_of_their_address() {
    let config = Config { connections_per_address_max: Some(2), ..Config::default() };
    let mut world = World::with_config(2, config, apps());
    let peer = world.connect_from(0, address("10.0.0.9:1"));
    world.run_until_idle();
    let session = session_on(&world, 0);
    assert_eq!(
        exchange(&mut world, peer, &session.post("&connect=true", "/qio/ping:1=")),
        ok_response(reply_ok(1))
    );
    let other = TestSession { sid: session_on(&world, 0).sid ^ 1 << 90 };
    let answer = exchange(&mut world, peer, &other.post("&connect=true", ""));
    assert_eq!(answer, [refused(SessionRefusal::AddressFull)]);
}

/// Creates sessions with these numbers, with one request each, many of them in one buffer; returns the statuses.
fn create_sessions(world: &mut World, peer: Peer, numbers: std::ops::Range<u128>) -> Vec<u16> {
    let requests: Vec<String> = numbers
        .map(|number| TestSession { sid: number << 64 }.post("&connect=true", "/qio/ping:1="))
        .collect();
    let mut statuses = Vec::new();
    for pipelined in requests.chunks(200) {
        statuses.extend(exchange(world, peer, &pipelined.concat()).into_iter().map(|(status, _)| status));
    }
    statuses
}

#[test]
fn one_connection_creates_few_sessions_that_have_one_request() {
    let mut world = World::new(2, apps());
    let peer = world.connect(0);
    let statuses = create_sessions(&mut world, peer, 1..5001);
    let created = statuses.iter().filter(|status| **status == 200).count();
    assert!((SESSIONS_UNUSED_MAX / 2..=SESSIONS_UNUSED_MAX).contains(&created), "{created}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)));
    assert_eq!(world.counter(Counter::SessionsRefusedConnection) as usize, 5000 - created);
    assert_eq!(world.gauge(Gauge::HttpSessions) as usize, created);
    // Other connections are not concerned, also from the same address.
    let other = world.connect(1);
    assert_eq!(create_sessions(&mut world, other, 6000..6100), [200; 100]);
    // A session that has a second request no longer counts.
    for number in 6000..6100u128 {
        let again = TestSession { sid: number << 64 }.post("", "/qio/ping:2=");
        assert_eq!(exchange(&mut world, other, &again), ok_response(reply_ok(2)));
    }
    assert_eq!(create_sessions(&mut world, other, 7000..7100), [200; 100]);
    world.run_seconds(11);
    assert_eq!(world.gauge(Gauge::HttpSessions), 0);
    assert_eq!(create_sessions(&mut world, peer, 8000..8100), [200; 100]);
}

#[test]
fn a_peer_that_carries_many_clients_creates_any_number_of_sessions() {
    let mut world = World::new(1, apps());
    let proxy = world.connect_from(0, PeerAddress::UNIX);
    assert_eq!(create_sessions(&mut world, proxy, 1..1001), [200; 1000]);
}

/// Behind a trusted proxy, each client counts by the address that the proxy tells. The proxy's own connections count for
/// nobody, and carry any number of sessions.
#[test]
fn clients_behind_a_proxy_count_by_their_own_addresses() {
    let config = Config {
        connections_per_address_max: Some(3),
        trusted_proxies: vec![TrustedProxy::Network("10.0.0.0/8".parse().unwrap()), TrustedProxy::Unix],
        ..Config::default()
    };
    let mut world = World::with_config(2, config, apps());
    let mut number = 0u128;
    let mut create = |world: &mut World, peer: Peer, header: &str| {
        number += 1;
        let post = TestSession { sid: number << 64 }.post("&connect=true", "/qio/ping:1=");
        exchange(world, peer, &post.replace("Host", &format!("{header}Host")))[0].0
    };
    let proxies = [world.connect(0), world.connect(1), world.connect_from(1, PeerAddress::UNIX)];
    for (client, peer) in proxies.into_iter().enumerate() {
        let header = format!("X-Forwarded-For: 192.0.2.{client}, 10.1.1.1\r\n");
        let statuses: Vec<u16> = (0..5).map(|_| create(&mut world, peer, &header)).collect();
        assert_eq!(statuses[..3], [200; 3]);
        // A client that writes into the header itself gains nothing, and harms nobody.
        let forged = format!("X-Forwarded-For: 192.0.2.7, 192.0.2.{client}\r\n");
        create(&mut world, peer, &forged);
        // If another shard counts the address, the session may be answered once before it is ended.
        assert_eq!(world.gauge(Gauge::HttpSessions), 3 * (client as u64 + 1));
    }
    assert_eq!(world.counter(Counter::ConnectionsRefusedAddress), 9);
    // Without an address, or with rubbish, only the proxy is known. Nor are clients on its own network counted.
    for header in ["", "X-Forwarded-For: unknown\r\n", "X-Forwarded-For: 10.2.2.2\r\n"] {
        (0..10).for_each(|_| assert_eq!(create(&mut world, proxies[0], header), 200, "{header}"));
    }
    // A peer that is no proxy counts by its own address, whatever it writes.
    let direct = world.connect_from(0, address("192.0.2.99:1"));
    let before = world.gauge(Gauge::HttpSessions);
    for client in 100..104 {
        create(&mut world, direct, &format!("X-Forwarded-For: 192.0.2.{client}\r\n"));
    }
    assert_eq!(world.gauge(Gauge::HttpSessions), before + 2, "the connection counts, too");
    for peer in proxies.into_iter().chain([direct]) {
        world.end_stream(peer);
    }
    world.run_seconds(12);
    world.assert_empty();
    assert!(world.shards.iter().all(|shard| shard.state().addresses.is_empty()));
}

#[test]
fn websockets_behind_a_proxy_count_by_their_own_addresses() {
    let config = Config {
        connections_per_address_max: Some(2),
        trusted_proxies: vec![TrustedProxy::Network("10.0.0.0/8".parse().unwrap())],
        ..Config::default()
    };
    let mut world = World::with_config(2, config, apps());
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        X-Forwarded-For: 192.0.2.1\r\n\r\n";
    let mut peers = Vec::new();
    for number in 0..4 {
        let peer = world.connect(number % 2);
        world.send_bytes(peer, upgrade.as_bytes());
        world.run_until_idle();
        let answer = world.take_bytes(peer);
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "the limit is known only then");
        let is_refused = answer.ends_with(b"\x03\xf5too many clients");
        assert_eq!(is_refused, number >= 2, "{number}: {}", String::from_utf8_lossy(&answer));
        peers.push(peer);
    }
    assert_eq!(world.counter(Counter::ConnectionsRefusedAddress), 2);
    peers.into_iter().for_each(|peer| world.end_stream(peer));
    world.run_seconds(6);
    world.assert_empty();
    assert!(world.shards.iter().all(|shard| shard.state().addresses.is_empty()));
}

#[test]
fn proxies_that_say_nothing_take_a_part_of_the_places() {
    let config = Config {
        trusted_proxies: vec![TrustedProxy::Network("10.0.0.0/8".parse().unwrap())],
        ..Config::default()
    };
    let mut world = World::with_places(1, config, apps(), 64, 0);
    let silent: Vec<Peer> = (0..16)
        .map(|_| {
            let peer = world.connect(0);
            world.run_until_idle();
            peer
        })
        .collect();
    let session = session_on(&world, 0);
    let refused = world.connect(0);
    let answer = exchange(&mut world, refused, &session.post("&connect=true", ""));
    assert_eq!(answer, [(503, "the server is full\n".into())]);
    let direct = world.connect_from(0, address("192.0.2.1:1"));
    let created = exchange(&mut world, direct, &session.post("&connect=true", "/qio/ping:1="));
    assert_eq!(created, ok_response(reply_ok(1)));
    // One that has brought a request makes room for another one.
    assert_eq!(exchange(&mut world, silent[0], &session.post("", "/qio/ping:2=")), ok_response(reply_ok(2)));
    let next = world.connect(0);
    assert_eq!(exchange(&mut world, next, &session.post("", "/qio/ping:3=")), ok_response(reply_ok(3)));
    for peer in silent.into_iter().chain([refused, direct, next]) {
        world.end_stream(peer);
    }
    world.run_seconds(12);
    world.assert_empty();
}

#[test]
fn sessions_take_a_share_of_the_clients() {
    let config = Config { clients_max: 100, ..Config::default() };
    let mut world = World::with_config(2, config, apps());
    let peer = world.connect(0);
    let statuses = create_sessions(&mut world, peer, 1..201);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 75);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 125);
    // The rest is for connections.
    for number in 1..25 {
        world.connect_raw(number % 2);
    }
    assert_eq!((world.gauge(Gauge::Connections), world.counter(Counter::ConnectionsRefusedLimit)), (25, 0));
}

/// A session that had one request only ends after 4 s if much of a limit is used, and after `timeout` otherwise. A client
/// whose second request comes in time has `timeout` between all its requests.
#[test]
fn sessions_with_one_request_end_early_under_pressure() {
    // The columns: clients-max, the sessions that are created first, and those after that. The sessions of each second
    // group are under pressure, because of all sessions, of the connection, or of the address.
    let share = Config { clients_max: 100, sessions_share: 40, ..Config::default() };
    let address = Config { connections_per_address_max: Some(40), ..Config::default() };
    for (config, calm, pressed) in [(share, 20, 10), (Config::default(), 128, 20), (address, 18, 10)] {
        let mut world = World::with_config(1, config, apps());
        let peer = world.connect(0);
        assert_eq!(create_sessions(&mut world, peer, 1..calm + 1), vec![200; calm as usize]);
        assert_eq!(create_sessions(&mut world, peer, 1001..1001 + pressed), vec![200; pressed as usize]);
        world.advance(Duration::from_millis(3900));
        world.run_until_idle();
        let second = TestSession { sid: 1001 << 64 };
        assert_eq!(exchange(&mut world, peer, &second.post("", "/qio/ping:2=")), ok_response(reply_ok(2)));
        world.run_seconds(2);
        let ended = pressed as u64 - 1;
        assert_eq!(world.gauge(Gauge::HttpSessions), calm as u64 + 1);
        assert_eq!(world.counter(Counter::SessionsEndedEarly), ended);
        world.run_seconds(5);
        assert_eq!(world.gauge(Gauge::HttpSessions), 1, "the others have ended after `timeout`");
        assert_eq!(exchange(&mut world, peer, &second.post("", "/qio/ping:3=")), ok_response(reply_ok(3)));
        assert_eq!(world.counter(Counter::SessionsEndedEarly), ended);
    }
}

#[test]
fn a_session_ends_when_its_outbox_overflows() {
    let config = Config { outbox_bytes_max: 1000, message_bytes_max: 900, ..Config::default() };
    let mut world = World::with_config(1, config, apps());
    let peer = world.connect(0);
    let session = session_on(&world, 0);
    let on = session.post("&connect=true", "/qio/on:1=\"/relay/a\"");
    assert_eq!(exchange(&mut world, peer, &on), ok_response(reply_ok(1)));
    for _ in 0..4 {
        broadcast(&mut world, "/relay/a", &format!("\"{}\"", "x".repeat(300)));
    }
    assert_eq!(world.counter(Counter::ClosesSlow), 1);
    assert_eq!(exchange(&mut world, peer, &session.post("", "")), [refused(SessionRefusal::Unknown)]);
    assert_eq!(world.gauge(Gauge::OutboxBytes), 0);
}

#[test]
fn a_refusal_says_why_and_when_to_try_again_on_any_shard() {
    for home in [0, 1] {
        let mut world = World::with_config(2, Config { clients_max: 1, ..Config::default() }, apps());
        let peer = world.connect(0);
        let session = session_on(&world, home);
        world.send_bytes(peer, session.post("&connect=true", "").as_bytes());
        world.run_until_idle();
        let response = String::from_utf8(world.take_bytes(peer)).unwrap();
        assert!(response.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{response}");
        assert!(response.contains("\r\nRetry-After: 10\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nthe server is full\n"), "{response}");
    }
}

// Requests with sequence numbers.

#[test]
fn requests_that_arrive_out_of_order_are_handled_in_order() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    let observer = world.connect_raw(0);
    world.send_event(observer, "/qio/on:0=\"/relay/a\"");
    let mut requests = String::new();
    for seq in [3, 1] {
        requests.push_str(&session.post(&format!("&seq={seq}"), &format!("/relay/a:0={seq}")));
    }
    let second = session.post("&seq=2", "/relay/a:0=2");
    assert_eq!(exchange(&mut world, remote_peer, &second), [], "request 2 waits for request 1");
    let mut responses: Responses = exchange(&mut world, home_peer, &requests);
    responses.extend(take_responses(&mut world, remote_peer));
    responses.extend(take_responses(&mut world, home_peer));
    let text: String = responses.iter().map(|(_, body)| body.as_str()).collect();
    let in_order = "/relay/a:0=1\n/relay/a:0=2\n/relay/a:0=3\n";
    assert_eq!(text.len(), in_order.len());
    assert!(responses.iter().all(|(status, _)| *status == 200));
    assert_eq!(world.counter(Counter::Broadcasts), 3);
    let broadcasts = [1, 2, 3].map(|number| format!("/relay/a:0={number}"));
    assert_eq!(world.take_raw_messages(observer), broadcasts);
}

#[test]
fn an_answered_request_is_not_handled_again() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(
        exchange(&mut world, home_peer, &session.post("&seq=1", "/qio/ping:2=")),
        ok_response(reply_ok(2))
    );
    assert_eq!(
        exchange(&mut world, remote_peer, &session.post("&seq=1", "/qio/ping:2=")),
        [refused(SessionRefusal::Answered)]
    );
}

#[test]
fn a_held_request_can_be_repeated() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    let request = session.post("&seq=1", "/relay/b:0=1");
    assert_eq!(exchange(&mut world, home_peer, &request), []);
    assert_eq!(exchange(&mut world, remote_peer, &request), []);
    assert_eq!(take_responses(&mut world, home_peer), ok_response(""));
    assert_eq!(world.counter(Counter::Broadcasts), 1);
    broadcast(&mut world, "/relay/a", "1");
    assert_eq!(take_responses(&mut world, remote_peer), ok_response("/relay/a:0=1\n"));
}

#[test]
fn a_held_request_can_be_repeated_after_its_connection_broke() {
    // A request with events waits for their answers if its client may only have ended its direction of the stream.
    for body in ["", "/relay/b:0=1"] {
        let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
        let request = session.post("&seq=1", body);
        assert_eq!(exchange(&mut world, remote_peer, &request), []);
        if body.is_empty() {
            world.end_stream(remote_peer);
        } else {
            world.reset(remote_peer);
        }
        world.run_until_idle();
        broadcast(&mut world, "/relay/a", "1");
        assert_eq!(exchange(&mut world, home_peer, &request), ok_response("/relay/a:0=1\n"));
        let broadcasts = 1 + u64::from(!body.is_empty());
        assert_eq!(world.counter(Counter::Broadcasts), broadcasts, "the events were handled once");
        assert_eq!(
            exchange(&mut world, home_peer, &request),
            [refused(SessionRefusal::Answered)],
            "the request has been answered"
        );
    }
}

#[test]
fn an_early_request_waits_for_its_predecessor_for_a_limited_time() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), []);
    world.run_seconds(45);
    assert_eq!(exchange(&mut world, remote_peer, &session.post("&seq=2", "")), []);
    world.run_seconds(9);
    assert_eq!(world.gauge(Gauge::HttpSessions), 1);
    world.run_seconds(2);
    assert_eq!(take_responses(&mut world, remote_peer), [refused(SessionRefusal::Ended)]);
    assert_eq!(world.gauge(Gauge::HttpSessions), 0);
}

#[test]
fn the_number_of_early_requests_is_limited() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    for seq in 0..HTTP_EARLY_REQUESTS_MAX {
        assert_eq!(exchange(&mut world, home_peer, &session.post(&format!("&seq={}", seq + 2), "")), []);
    }
    assert_eq!(
        exchange(&mut world, remote_peer, &session.post("&seq=100", "")),
        [refused(SessionRefusal::TooManyEarly)]
    );
    assert_eq!(world.counter(Counter::HttpRefusedEarly), 1);
}

// Streams.

#[test]
fn output_goes_to_the_stream_and_polls_are_answered_immediately() {
    let mut world = World::new(2, apps());
    for (home, of_stream, of_post) in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)] {
        let (stream, peer) = (world.connect(of_stream), world.connect(of_post));
        let session = session_on(&world, home);
        assert_eq!(open_stream(&mut world, stream, &session.stream("&connect=true")), ": quickio\n\n");
        let body = "/qio/on:1=\"/relay/a\"\n/relay/a:2=[5]";
        assert_eq!(exchange(&mut world, peer, &session.post("&seq=1", body)), ok_response(""));
        let text = take_stream(&mut world, stream);
        let mut texts: Vec<&str> = text.split_terminator("\n\n").collect();
        texts.sort_unstable();
        let answers = [reply_ok(1), reply_ok(2)].map(|line| format!("data:{}", line.trim_end()));
        assert_eq!(texts, [&answers[0], &answers[1], "data:/relay/a:0=[5]"]);
        world.end_stream(stream);
        world.run_until_idle();
        assert_eq!(world.gauge(Gauge::HttpSessions), 0, "a session ends with its stream");
        assert_eq!(exchange(&mut world, peer, &session.post("", "")), [refused(SessionRefusal::Unknown)]);
    }
}

#[test]
fn a_stream_gets_pending_output_and_replaces_an_older_stream() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    broadcast(&mut world, "/relay/a", "1");
    broadcast(&mut world, "/relay/a", "2");
    let opened = open_stream(&mut world, remote_peer, &session.stream(""));
    assert_eq!(opened, ": quickio\n\ndata:/relay/a:0=1\n\ndata:/relay/a:0=2\n\n");
    let again = world.connect(1);
    assert_eq!(open_stream(&mut world, again, &session.stream("")), ": quickio\n\n");
    assert!(world.is_stream_ended(remote_peer), "the new stream has replaced the old one");
    broadcast(&mut world, "/relay/a", "3");
    assert_eq!(take_stream(&mut world, again), "data:/relay/a:0=3\n\n");
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), ok_response(""));
}

#[test]
fn a_stream_completes_the_held_poll() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, home_peer, &session.post("", "")), []);
    assert_eq!(open_stream(&mut world, remote_peer, &session.stream("")), ": quickio\n\n");
    assert_eq!(take_responses(&mut world, home_peer), ok_response(""));
}

#[test]
fn the_connection_of_a_stream_is_dormant_until_it_ends() {
    for resets in [false, true] {
        let (mut world, _, remote_peer, session) = world_with_subscriber();
        open_stream(&mut world, remote_peer, &session.stream(""));
        world.run_seconds(101);
        assert_eq!(world.counter(Counter::InputsDormant), 1);
        let heartbeats = "data:/qio/heartbeat:0=null\n\n".repeat(2);
        assert_eq!(take_stream(&mut world, remote_peer), heartbeats);
        match resets {
            true => world.reset(remote_peer),
            false => world.end_stream(remote_peer),
        }
        world.run_until_idle();
        assert!(world.is_closed(remote_peer));
        world.run_seconds(15);
        let peer = world.connect(0);
        assert_eq!(exchange(&mut world, peer, &session.post("", "")), [refused(SessionRefusal::Unknown)]);
    }
}

#[test]
fn heartbeats_on_a_stream_must_be_answered() {
    let (mut world, _, remote_peer, session) = world_with_subscriber();
    open_stream(&mut world, remote_peer, &session.stream(""));
    world.run_seconds(51);
    assert_eq!(take_stream(&mut world, remote_peer), "data:/qio/heartbeat:0=null\n\n");
    world.run_seconds(14 * 60 + 10);
    let text = take_stream(&mut world, remote_peer);
    assert!(text.contains("data:/qio/heartbeat:1=null\n\n"), "{text}");
    let peer = world.connect(0);
    assert_eq!(exchange(&mut world, peer, &session.post("", "/qio/callback/1:0=null")), ok_response(""));
    world.run_seconds(2 * 60);
    assert_eq!(world.gauge(Gauge::HttpSessions), 1);
    world.run_seconds(15 * 60);
    assert_eq!(world.gauge(Gauge::HttpSessions), 0, "the client was silent for 16 minutes");
    assert!(world.is_stream_ended(remote_peer));
}

#[test]
fn a_stream_that_is_not_read_ends_together_with_its_session() {
    for shard in [0, 1] {
        let config = Config { outbox_bytes_max: 1000, message_bytes_max: 900, ..Config::default() };
        let mut world = World::with_config(2, config, apps());
        let (home_peer, stream) = (world.connect(0), world.connect(shard));
        let session = session_on(&world, 0);
        open_stream(&mut world, stream, &session.stream("&connect=true"));
        assert_eq!(
            exchange(&mut world, home_peer, &session.post("", "/qio/on:0=\"/relay/a\"")),
            ok_response("")
        );
        world.set_reading(stream, false);
        for _ in 0..5 {
            broadcast(&mut world, "/relay/a", &format!("\"{}\"", "x".repeat(300)));
        }
        assert_eq!((world.counter(Counter::ClosesSlow), world.gauge(Gauge::HttpSessions)), (1, 0));
    }
}

// Connections.

#[test]
fn idle_connections_time_out_after_75_seconds_and_slow_requests_after_10_seconds() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    world.run_seconds(74);
    assert!(!world.is_stream_ended(home_peer) && !world.is_stream_ended(remote_peer));
    world.run_seconds(1);
    assert!(world.is_stream_ended(home_peer) && world.is_stream_ended(remote_peer));
    assert_eq!(world.counter(Counter::TimeoutsIdle), 2);
    // A connection with a poll that is held is not idle, on any shard; it is idle from the response on.
    for shard in [0, 1] {
        let peer = world.connect(shard);
        assert_eq!(exchange(&mut world, peer, &session.post("&connect=true", "")).len(), 0);
        world.run_seconds(50);
        assert_eq!(take_responses(&mut world, peer), ok_response(""));
        assert_eq!(exchange(&mut world, peer, &session.post("&close=true", "")), ok_response(""));
        world.run_seconds(74);
        assert!(!world.is_stream_ended(peer));
        world.run_seconds(1);
        assert!(world.is_stream_ended(peer));
    }
    assert_eq!(world.counter(Counter::TimeoutsIdle), 4);
    assert_eq!(world.counter(Counter::TimeoutsLiveness), 0);
    let slow = world.connect(0);
    assert_eq!(
        exchange(&mut world, slow, &session.post("&connect=true", "/qio/ping:1=")),
        ok_response(reply_ok(1))
    );
    let request = session.post("", "/qio/ping:2=");
    for byte in request.bytes().take(8) {
        world.send_bytes(slow, &[byte]);
        world.run_seconds(1);
    }
    assert!(!world.is_stream_ended(slow));
    world.run_seconds(3);
    assert_eq!(take_responses(&mut world, slow), [(408, "request took too long\n".into())]);
    assert!(world.is_stream_ended(slow));
}

#[test]
fn a_connection_whose_request_waits_has_no_timer() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    let timers = |world: &World| world.states().map(|state| state.time.timers()).sum::<usize>();
    let idle = timers(&world);
    for peer in [home_peer, remote_peer] {
        assert_eq!(exchange(&mut world, peer, &session.post("", "")), []);
        assert_eq!(timers(&world), idle - 1);
        broadcast(&mut world, "/relay/a", "[1]");
        assert_eq!(take_responses(&mut world, peer), ok_response("/relay/a:0=[1]\n"));
        assert_eq!(timers(&world), idle);
    }
    open_stream(&mut world, remote_peer, &session.stream(""));
    assert_eq!(timers(&world), idle - 1);
}

#[test]
fn a_connection_with_an_open_stream_does_not_time_out() {
    let mut world = World::new(2, apps());
    let stream = world.connect(1);
    let session = session_on(&world, 0);
    open_stream(&mut world, stream, &session.stream("&connect=true"));
    let peer = world.connect(0);
    for _ in 0..40 {
        assert_eq!(exchange(&mut world, peer, &session.post("", "")), ok_response(""));
        world.run_seconds(60);
    }
    assert!(!world.is_stream_ended(stream), "after 40 minutes");
}

// Errors that coincide with other events.

/// Creates a session on each shard and subscribes both to `/relay/a` by requests on one connection.
fn subscribe_two_sessions(world: &mut World, peer: Peer) -> [TestSession; 2] {
    [0, 1].map(|home| {
        let session = session_on(world, home);
        let request = session.post("&connect=true", "/qio/on:1=\"/relay/a\"");
        assert_eq!(exchange(world, peer, &request), ok_response(reply_ok(1)));
        session
    })
}

#[test]
fn a_response_that_ends_its_connection_does_not_lose_output_of_another_session() {
    for (bad, good) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
        let mut world = World::new(2, apps());
        let (peer, elsewhere) = (world.connect(0), world.connect(1));
        let sessions = subscribe_two_sessions(&mut world, peer);
        let bad = if bad == good { TestSession { sid: sessions[bad].sid ^ 1 << 99 } } else { sessions[bad] };
        let bad = bad.post("&connect=true", "no event");
        let answer = exchange(&mut world, peer, &[bad, sessions[good].post("", "")].concat());
        assert_eq!(answer, [refused(SessionRefusal::MalformedEvent)]);
        assert!(world.is_stream_ended(peer));
        broadcast(&mut world, "/relay/a", "1");
        assert_eq!(
            exchange(&mut world, elsewhere, &sessions[good].post("", "")),
            ok_response("/relay/a:0=1\n")
        );
    }
}

#[test]
fn the_content_of_a_full_outbox_fits_into_one_response() {
    let config = Config { outbox_bytes_max: 1400, message_bytes_max: 900, ..Config::default() };
    let mut world = World::with_config(2, config, apps());
    let peer = world.connect(0);
    for session in subscribe_two_sessions(&mut world, peer) {
        assert_eq!(exchange(&mut world, peer, &session.post("", "/qio/ping:1=")), ok_response(reply_ok(1)));
    }
    broadcast(&mut world, "/relay/a", &format!("\"{}\"", "x".repeat(500)));
    broadcast(&mut world, "/relay/a", &format!("\"{}\"", "y".repeat(490)));
    for home in [0, 1] {
        let request = session_on(&world, home).post("", "");
        let responses = exchange(&mut world, peer, &request);
        assert_eq!((responses.len(), responses[0].0), (1, 200));
        assert!(responses[0].1.len() > 1000, "{responses:?}");
    }
    assert_eq!(world.counter(Counter::ClosesSlow), 0);
}

#[test]
fn responses_waiting_behind_a_held_request_are_bounded() {
    let config = Config { outbox_bytes_max: 10_000, message_bytes_max: 9_000, ..Config::default() };
    let mut world = World::with_config(2, config, apps());
    for home in [0, 1] {
        let peer = world.connect(0);
        let (held, busy) = (session_on(&world, 0), session_on(&world, home));
        let busy = TestSession { sid: busy.sid ^ if home == 0 { 1 << 98 } else { 0 } };
        assert_eq!(exchange(&mut world, peer, &held.post("&connect=true", "")), []);
        let echo = busy.post("&connect=true", &format!("/clienttest/echo:1=\"{}\"", "e".repeat(3000)));
        for _ in 0..3 {
            assert_eq!(exchange(&mut world, peer, &echo), []);
        }
        assert!(!world.is_stream_ended(peer));
        exchange(&mut world, peer, &echo);
        assert!(world.is_stream_ended(peer));
        assert_eq!(world.counter(Counter::ClosesSlow), 1 + home as u64);
    }
}

#[test]
fn the_request_that_ends_a_session_gets_the_error() {
    // A later request waits for the failing one.
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    assert_eq!(exchange(&mut world, remote_peer, &session.post("&seq=2", "/qio/ping:3=")), []);
    assert_eq!(
        exchange(&mut world, home_peer, &session.post("&seq=1", "no event")),
        [refused(SessionRefusal::MalformedEvent)]
    );
    assert_eq!(take_responses(&mut world, remote_peer), [refused(SessionRefusal::MalformedEvent)]);
    // Another request arrives in the same turn.
    let (mut world, home_peer, _, session) = world_with_subscriber();
    let other = world.connect(0);
    world.send_bytes(home_peer, session.post("", "no event").as_bytes());
    world.send_bytes(other, session.post("", "/qio/ping:3=").as_bytes());
    world.run_until_idle();
    assert_eq!(take_responses(&mut world, home_peer), [refused(SessionRefusal::MalformedEvent)]);
    assert_eq!(take_responses(&mut world, other), [refused(SessionRefusal::Unknown)]);
    assert_eq!(world.counter(Counter::EventsReceived), 1, "only the subscription was received");
}

#[test]
fn remaining_output_of_a_closed_session_is_fetched_by_polls_only() {
    let mut world = World::new(1, vec![Arc::new(FnApp(reply_then_close))]);
    let peer = world.connect(0);
    let session = session_on(&world, 0);
    assert_eq!(
        exchange(&mut world, peer, &session.post("&connect=true", "/bye:1=")),
        ok_response(reply_ok(1))
    );
    world.run_seconds(2);
    let stream = world.connect(0);
    assert_eq!(exchange(&mut world, stream, &session.stream("")), [refused(SessionRefusal::Ended)]);
    assert_eq!(exchange(&mut world, peer, &session.post("", "")), ok_response("/last:0=null\n"));
}

#[test]
fn a_session_beyond_the_limit_of_its_address_is_refused_for_polls_and_streams() {
    let config = Config { connections_per_address_max: Some(1), ..Config::default() };
    let mut world = World::with_config(1, config, apps());
    let session = session_on(&world, 0);
    for request in [session.post("&connect=true", "/qio/ping:1="), session.stream("&connect=true")] {
        let peer = world.connect(0);
        assert_eq!(exchange(&mut world, peer, &request), [refused(SessionRefusal::AddressFull)]);
        world.end_stream(peer);
        world.run_until_idle();
        world.assert_empty();
    }
    assert_eq!(world.counter(Counter::EventsReceived), 0);
}

#[test]
fn shutdown_does_not_wait_for_output_to_be_fetched() {
    let (mut world, home_peer, remote_peer, _) = world_with_subscriber();
    broadcast(&mut world, "/relay/a", "1");
    for shard in 0..world.shards.len() {
        world.send_control(shard, ControlMessage::Shutdown { deadline_ns: u64::MAX });
    }
    world.run_until_idle();
    for peer in [home_peer, remote_peer] {
        world.end_stream(peer);
    }
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn an_early_request_waits_for_a_limited_time_beside_a_stream() {
    let mut world = World::new(1, apps());
    let (stream, peer) = (world.connect(0), world.connect(0));
    let session = session_on(&world, 0);
    open_stream(&mut world, stream, &session.stream("&connect=true"));
    assert_eq!(exchange(&mut world, peer, &session.post("&seq=1", "/clienttest/echo:1=")), ok_response(""));
    world.run_seconds(10);
    assert_eq!(exchange(&mut world, peer, &session.post("&seq=3", "")), []);
    world.run_seconds(11);
    assert_eq!(take_responses(&mut world, peer), [refused(SessionRefusal::Ended)]);
    assert!(world.is_stream_ended(stream));
}

#[test]
fn a_session_with_an_early_request_does_not_time_out_before_that_request() {
    let (mut world, home_peer, remote_peer, session) = world_with_subscriber();
    world.run_seconds(9);
    assert_eq!(exchange(&mut world, remote_peer, &session.post("&seq=2", "/qio/ping:2=")), []);
    world.run_seconds(5);
    let both = [
        exchange(&mut world, home_peer, &session.post("&seq=1", "/qio/ping:1=")),
        take_responses(&mut world, remote_peer),
    ];
    assert_eq!(both, [ok_response(reply_ok(1)), ok_response(reply_ok(2))]);
}

#[test]
fn a_late_upgrade_gets_the_full_handshake_timeout() {
    let mut world = World::new(1, apps());
    let missing = "GET /nowhere HTTP/1.1\r\nHost: here\r\n\r\n";
    let upgrade = "GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (number, late) in [(1, 9), (2, 70)] {
        let peer = world.connect(0);
        assert_eq!(exchange(&mut world, peer, missing)[0].0, 404);
        world.run_seconds(late);
        world.send_bytes(peer, upgrade.as_bytes());
        world.run_until_idle();
        assert!(world.take_bytes(peer).starts_with(b"HTTP/1.1 101 "));
        world.run_seconds(9);
        assert_eq!(world.counter(Counter::TimeoutsHandshake), number - 1, "after {late} s");
        world.run_seconds(1);
        assert_eq!(world.counter(Counter::TimeoutsHandshake), number, "after {late} s");
    }
}

// Ends that share a turn with other events.

#[test]
fn a_timer_due_in_the_turn_in_which_its_session_ends_is_ignored() {
    let mut world = World::new(2, apps());
    let peer = world.connect(0);
    // The session's shard never accepts a connection with a socket in this test.
    let session = session_on(&world, 1);
    assert_eq!(
        exchange(&mut world, peer, &session.post("&connect=true", "/qio/ping:1=")),
        ok_response(reply_ok(1))
    );
    world.advance(11 * SECOND);
    let moved = session.post("", "/clienttest/move:1=\"there\"");
    let again = session.post("&connect=true", "/qio/ping:2=");
    let expected = [(200, "/qio/move:0=\"there\"\n".into()), (200, reply_ok(2))];
    assert_eq!(exchange(&mut world, peer, &[moved, again].concat()), expected);
    assert_eq!((world.gauge(Gauge::HttpSessions), world.gauge(Gauge::Connections)), (1, 1));
}

#[test]
fn a_session_recreated_in_the_turn_in_which_it_ends_exceeds_no_limit() {
    let by_clients = Config { clients_max: 2, ..Config::default() };
    let by_address = Config { connections_per_address_max: Some(2), ..Config::default() };
    for config in [by_clients, by_address] {
        let mut world = World::with_config(1, config, apps());
        let peer = world.connect(0);
        let session = session_on(&world, 0);
        assert_eq!(
            exchange(&mut world, peer, &session.post("&connect=true", "/qio/ping:1=")),
            ok_response(reply_ok(1))
        );
        let last = session.post("&close=true", "/qio/ping:2=");
        let first = session.post("&connect=true", "/qio/ping:3=");
        assert_eq!(
            exchange(&mut world, peer, &[last, first].concat()),
            [(200, reply_ok(2)), (200, reply_ok(3))]
        );
    }
}

#[test]
fn a_broadcast_accepted_before_a_stream_overflowed_is_delivered() {
    let config = Config { outbox_bytes_max: 1300, message_bytes_max: 1000, ..Config::default() };
    let mut world = World::with_config(1, config, apps());
    let (stream, peer) = (world.connect(0), world.connect(0));
    let session = session_on(&world, 0);
    open_stream(&mut world, stream, &session.stream("&connect=true"));
    assert_eq!(exchange(&mut world, peer, &session.post("", "/qio/on:0=\"/relay/a\"")), ok_response(""));
    let echo = |callback: u32, bytes| format!("/clienttest/echo:{callback}=\"{}\"\n", "e".repeat(bytes));
    let bodies = [echo(1, 400), "/relay/a:0=5".into(), echo(2, 900)];
    world.send_bytes(peer, bodies.map(|body| session.post("", &body)).concat().as_bytes());
    world.run_until_idle();
    let text = take_stream(&mut world, stream);
    assert!(text.ends_with("\n\ndata:/relay/a:0=5\n\n"), "{text}");
    assert_eq!((world.counter(Counter::ClosesSlow), world.gauge(Gauge::HttpSessions)), (1, 0));
}

#[test]
fn a_request_gets_the_output_for_a_request_lost_in_the_same_turn() {
    let mut world = World::new(1, apps());
    let broken = world.connect(0);
    let raw = world.connect_raw(0);
    let next = world.connect(0);
    let session = session_on(&world, 0);
    let on = session.post("&connect=true", "/qio/on:1=\"/relay/a\"");
    assert_eq!(exchange(&mut world, broken, &on), ok_response(reply_ok(1)));
    assert_eq!(exchange(&mut world, broken, &session.post("", "")), []);
    world.reset(broken);
    world.send_event(raw, "/relay/a:0=1");
    world.send_event(raw, "/qio/on:0=\"/relay/b\"");
    assert_eq!(exchange(&mut world, next, &session.post("", "")), ok_response("/relay/a:0=1\n"));
}

/// Registers `/me`, which remembers the client, and `/kick`, which sends `/last` to that client and closes it.
fn kick(registrar: &mut Registrar) -> Result<(), Error> {
    let client = Rc::new(Cell::new(None));
    let set = Rc::clone(&client);
    registrar
        .event("/me")
        .handler(move |_, event| {
            set.set(Some(event.client));
            Answer::ok()
        })
        .register()?;
    registrar
        .event("/kick")
        .handler(move |cx, _| {
            let client = client.get().expect("a client has sent `/me`");
            cx.send(client, &Path::parse("/last").unwrap(), Json::NULL);
            cx.close(client);
            Answer::ok()
        })
        .register()
}

#[test]
fn a_session_closed_in_the_turn_in_which_its_connection_broke_keeps_its_output() {
    let mut world = World::new(1, vec![Arc::new(FnApp(kick))]);
    let broken = world.connect(0);
    let raw = world.connect_raw(0);
    let session = session_on(&world, 0);
    assert_eq!(
        exchange(&mut world, broken, &session.post("&connect=true", "/me:1=")),
        ok_response(reply_ok(1))
    );
    assert_eq!(exchange(&mut world, broken, &session.post("", "")), []);
    world.reset(broken);
    world.send_event(raw, "/kick:0=");
    world.run_until_idle();
    let next = world.connect(0);
    assert_eq!(exchange(&mut world, next, &session.post("", "")), ok_response("/last:0=null\n"));
}

#[test]
fn requests_answered_by_shutdown_are_not_counted_as_refused() {
    let mut world = World::new(1, apps());
    let peer = world.connect(0);
    let session = session_on(&world, 0);
    assert_eq!(exchange(&mut world, peer, &session.post("&connect=true", "")), []);
    world.send_control(0, ControlMessage::Shutdown { deadline_ns: u64::MAX });
    world.run_until_idle();
    assert_eq!(take_responses(&mut world, peer), [(503, "server going away\n".into())]);
    assert_eq!(world.counter(Counter::HttpRefused), 0);
}

// A full mesh: one of the shards runs no turns.

/// Creates two shards whose mesh holds only a few messages.
fn world_with_small_mesh() -> World {
    let config = Config { mesh_ring_messages: 8, mesh_overflow_bytes_max: 1, ..Config::default() };
    World::with_config(2, config, apps())
}

#[test]
fn a_full_mesh_refuses_only_requests_for_other_shards() {
    let mut world = world_with_small_mesh();
    let peer = world.connect(0);
    let (home, away) = (session_on(&world, 0), session_on(&world, 1));
    let requests = 20;
    for _ in 0..requests {
        world.send_bytes(peer, away.post("&connect=true", "/qio/ping:1=").as_bytes());
        world.turn(0);
    }
    let crossed = world.counter(Counter::HttpRelayed) as usize;
    assert!((8..requests).contains(&crossed), "the connection is paused: {crossed}");
    let neighbour = world.connect(0);
    world.send_bytes(neighbour, home.post("&connect=true", "/qio/ping:1=").as_bytes());
    world.send_bytes(neighbour, away.post("", "/qio/ping:2=").as_bytes());
    for _ in 0..3 {
        world.turn(0);
    }
    let responses = take_responses(&mut world, neighbour);
    assert_eq!(
        responses,
        [(200, reply_ok(1)), refused(SessionRefusal::Busy)],
        "half of the limit is exceeded"
    );
    assert_eq!(world.counter(Counter::HttpRefusedBusy), 1);
    world.run_until_idle();
    assert_eq!(take_responses(&mut world, peer), vec![(200, reply_ok(1)); requests], "none was refused");
}

#[test]
fn a_session_that_ends_while_its_output_waits_for_the_mesh_is_released() {
    let mut world = world_with_small_mesh();
    let (stream, peer) = (world.connect(1), world.connect(0));
    let session = session_on(&world, 0);
    open_stream(&mut world, stream, &session.stream("&connect=true"));
    assert_eq!(exchange(&mut world, peer, &session.post("", "/qio/on:0=\"/relay/a\"")), ok_response(""));
    let raw = world.connect_raw(0);
    for number in 0..12 {
        world.send_event(raw, &format!("/relay/a:0={number}"));
        world.turn(0);
    }
    assert!(world.shards[0].state().connections.has_blocked_sessions());
    world.send_bytes(peer, session.post("&close=true", "").as_bytes());
    world.turn(0);
    assert_eq!((world.gauge(Gauge::HttpSessions), world.gauge(Gauge::Connections)), (0, 3));
    world.turn(0);
    assert!(
        !world.shards[0].state().connections.has_blocked_sessions(),
        "the record of the session has been released"
    );
    [stream, peer, raw].into_iter().for_each(|peer| world.end_stream(peer));
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_stream_gets_everything_after_the_mesh_was_full() {
    for more in 0..4 {
        let mut world = world_with_small_mesh();
        let (stream, peer) = (world.connect(1), world.connect(0));
        let session = session_on(&world, 0);
        open_stream(&mut world, stream, &session.stream("&connect=true"));
        assert_eq!(exchange(&mut world, peer, &session.post("", "/qio/on:0=\"/relay/a\"")), ok_response(""));
        let raw = world.connect_raw(0);
        let broadcasts = 9 + more;
        for number in 0..broadcasts {
            world.send_event(raw, &format!("/relay/a:0={number}"));
            world.turn(0);
        }
        assert_eq!(!world.shards[0].state().connections.has_blocked_sessions(), more == 0, "{more}");
        world.run_until_idle();
        let expected: String =
            (0..broadcasts).map(|number| format!("data:/relay/a:0={number}\n\n")).collect();
        assert_eq!(take_stream(&mut world, stream), expected);
    }
}

#[test]
fn a_session_whose_stream_breaks_off_takes_last_events_if_its_client_has_asked_for_it() {
    for lingers in [false, true] {
        for home in 0..2 {
            let mut world = World::new(2, apps());
            let subscriber = world.connect_raw(0);
            world.send_event(subscriber, "/qio/on:0=\"/relay/a\"");
            world.run_until_idle();
            let session = session_on(&world, home);
            let (stream, page) = (world.connect(0), world.connect(1));
            let query = format!("&connect=true&linger={lingers}");
            open_stream(&mut world, stream, &session.stream(&query));
            exchange(&mut world, page, &session.post("&seq=1", "/qio/on:1=\"/relay/b\""));
            take_stream(&mut world, stream);
            world.reset(stream);
            world.run_until_idle();
            // The second request arrives first.
            world.send_bytes(page, session.post("&seq=3", "/relay/a:0=3").as_bytes());
            world.run_until_idle();
            let (late, again) = (world.connect(0), world.connect(0));
            let response = exchange(&mut world, late, &session.post("&seq=2", "/relay/a:0=2\n/relay/b:0=9"));
            let events = world.take_raw_messages(subscriber);
            let refused = SessionRefusal::Unknown.status();
            if !lingers {
                assert_eq!((response[0].0, events.len()), (refused, 0), "the session has ended");
                continue;
            }
            assert_eq!(response, [(200, String::new())], "output is not delivered any more");
            assert_eq!(take_responses(&mut world, page), [(200, String::new())]);
            assert_eq!(events, ["/relay/a:0=2", "/relay/a:0=3"]);
            assert_eq!(world.gauge(Gauge::OutboxBytes), 0);
            let response = exchange(&mut world, again, &session.stream(""));
            assert_eq!(response[0].0, SessionRefusal::Ended.status(), "it has no streams any more");
            // Requests do not make it last longer.
            for seq in 4..20 {
                world.advance(STREAM_LINGER / 8);
                world.run_until_idle();
                let status = exchange(&mut world, page, &session.post(&format!("&seq={seq}"), ""))[0].0;
                assert_eq!(status, if seq < 11 { 200 } else { refused }, "{seq}");
            }
            assert_eq!((world.gauge(Gauge::HttpSessions), world.gauge(Gauge::Subscriptions)), (0, 1));
            assert_eq!(world.counter(Counter::StreamsLingered), 1);
        }
    }
}

#[test]
fn the_last_request_of_a_page_ends_its_session_at_once() {
    let mut world = World::new(1, apps());
    let session = session_on(&world, 0);
    let (stream, page) = (world.connect(0), world.connect(0));
    open_stream(&mut world, stream, &session.stream("&connect=true&linger=true"));
    world.reset(stream);
    world.run_until_idle();
    assert_eq!(world.gauge(Gauge::HttpSessions), 1);
    assert_eq!(exchange(&mut world, page, &session.post("&seq=1&close=true", "/qio/ping:0="))[0].0, 200);
    assert_eq!(world.gauge(Gauge::HttpSessions), 0);
}
