//! protocol.md, section 5: every way in which a connection ends, with its code, its reason and its counter.

use crate::support::Ended;
use crate::support::wire::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, raw};
use crate::support::{Client, Conversation, Server, Transport};
use std::time::Duration;

/// A violation: the bytes from the client, the close code and reason from the server, and the counter. `None` accepts any
/// reason.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    code: u16,
    reason: Option<&'static str>,
    counter: &'static str,
}

fn case(
    name: &'static str,
    bytes: Vec<u8>,
    code: u16,
    reason: Option<&'static str>,
    counter: &'static str,
) -> Case {
    Case { name, bytes, code, reason, counter }
}

fn violation(name: &'static str, bytes: Vec<u8>) -> Case {
    case(name, bytes, 1002, None, "closes_violation")
}

fn malformed(name: &'static str, text: &str) -> Case {
    case(name, Frame::text(text).bytes(), 1002, Some("invalid event format"), "closes_malformed_event")
}

fn invalid_utf8(name: &'static str, bytes: Vec<u8>) -> Case {
    case(name, bytes, 1007, None, "closes_invalid_utf8")
}

fn too_large(name: &'static str, bytes: Vec<u8>) -> Case {
    case(name, bytes, 1009, None, "closes_too_large")
}

fn fragments(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

/// Returns all cases, for a `message-bytes-max` of 1000.
fn cases() -> Vec<Case> {
    let start = || Frame::text("/qio/").unfinished();
    let unmasked = Some("client must mask data");
    let mut cases = vec![
        malformed("no colon", "/qio/ping"),
        malformed("no digits", "/qio/ping:=null"),
        malformed("letters for digits", "/qio/ping:x=null"),
        malformed("a sign", "/qio/ping:-1=null"),
        malformed("a space", "/qio/ping: 1=null"),
        malformed("no equals sign", "/qio/ping:1"),
        malformed("another character in place of the equals sign", "/qio/ping:1null"),
        malformed("a callback over 2^64-1", "/qio/ping:18446744073709551616=null"),
        malformed("a callback far over 2^64-1", "/qio/ping:99999999999999999999999999999999=null"),
        malformed("nothing", ""),
        malformed("ohai again", "/qio/ohai"),
        case(
            "unmasked text",
            Frame::text("/qio/ping:1=").unmasked().bytes(),
            1002,
            unmasked,
            "closes_violation",
        ),
        case("unmasked ping", Frame::new(PING, "").unmasked().bytes(), 1002, unmasked, "closes_violation"),
        case("binary", Frame::new(BINARY, "/qio/ping:1=").bytes(), 1003, None, "closes_binary"),
        case("an empty binary", Frame::new(BINARY, "").bytes(), 1003, None, "closes_binary"),
        invalid_utf8("bytes that are not UTF-8", Frame::text(b"/qio/ping:1=\xff").bytes()),
        invalid_utf8("a surrogate", Frame::text(b"/qio/ping:1=\xed\xa0\x80").bytes()),
        invalid_utf8("an overlong slash", Frame::text(b"/qio/ping:1=\xc0\xaf").bytes()),
        invalid_utf8("half a character at the end", Frame::text(b"/qio/ping:1=\xe2\x82").bytes()),
        invalid_utf8(
            "invalid UTF-8 in a fragment, without the next one",
            fragments(&[start(), { Frame::new(CONTINUATION, b"\xf4\x90").unfinished() }]),
        ),
        invalid_utf8(
            "invalid UTF-8 in half a frame, without the rest",
            Frame::text(b"ab\xffcd").announcing(900).bytes(),
        ),
        too_large("one byte over the limit", Frame::text(vec![b'a'; 1001]).bytes()),
        too_large("announced, but not sent", Frame::text("").announcing(1001).bytes()),
        too_large("announced with 64 bits", Frame::text("").announcing(1 << 62).bytes()),
        too_large(
            "in fragments",
            fragments(&[Frame::text(vec![b'a'; 600]).unfinished(), {
                Frame::new(CONTINUATION, vec![b'a'; 401])
            }]),
        ),
        violation("a continuation of nothing", Frame::new(CONTINUATION, "a").bytes()),
        violation("a text within a text", fragments(&[start(), Frame::text("/qio/ping:1=")])),
        violation("a binary within a text", fragments(&[start(), Frame::new(BINARY, "")])),
        violation("a ping in fragments", Frame::new(PING, "a").unfinished().bytes()),
        violation("a close in fragments", Frame::new(CLOSE, [3, 232]).unfinished().bytes()),
        violation("a long ping", Frame::new(PING, [0; 126]).bytes()),
        violation("a long pong", Frame::new(PONG, [0; 126]).bytes()),
        violation("a close of one byte", Frame::new(CLOSE, [3]).bytes()),
    ];
    for bits in [1, 2, 4, 7] {
        cases.push(violation("reserved bits", Frame::text("/qio/ping:1=").reserved(bits).bytes()));
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        cases.push(violation("a reserved opcode", Frame::new(opcode, "").bytes()));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999] {
        cases.push(violation("a close code that must not be sent", Frame::close(code, "").bytes()));
    }
    cases
}

#[test]
fn every_violation_has_its_code() {
    let server = Server::start(&["--message-bytes-max", "1000"]);
    let cases = cases();
    for case in &cases {
        let mut client = server.websocket();
        client.send(&case.bytes);
        let Ended::Close(code, reason) = client.ended() else { panic!("{}: no close frame", case.name) };
        assert_eq!(code, case.code, "{}: {reason}", case.name);
        if let Some(expected) = case.reason {
            assert_eq!(reason, expected, "{}", case.name);
        }
        client.try_send(&Frame::close(code, "").bytes());
        client.expect_disconnect();
    }
    let stats = server.eventually_is("connections", 0);
    for counter in [
        "closes_malformed_event",
        "closes_violation",
        "closes_binary",
        "closes_invalid_utf8",
        "closes_too_large",
    ] {
        let expected = cases.iter().filter(|case| case.counter == counter).count() as u64;
        assert_eq!(stats.value(counter), expected, "{counter}");
    }
    server.assert_serves();
}

#[test]
fn messages_up_to_the_limit_are_served() {
    let server = Server::start(&["--message-bytes-max", "1000"]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let event = format!("/clienttest/echo:1={:>980}", 5);
        assert_eq!(event.len(), 999);
        client.send_text(&event);
        assert_eq!(client.answer(1).body["data"], 5);
        client.send_text(&event.replace(":1=", ":10="));
        assert_eq!(client.answer(10).body["data"], 5);
        // Clients can ask for the limit.
        assert_eq!(client.request_code("/qio/limits", "", 200).body["data"]["message_bytes_max"], 1000);
    }
    // The limit is that of a message, regardless of the number of fragments and of the frames between them.
    let mut client = server.websocket();
    for _ in 0..3 {
        client.send(&Frame::text("/qio/ping:1=").unfinished().bytes());
        for _ in 0..988 {
            client.send(&Frame::new(CONTINUATION, " ").unfinished().bytes());
        }
        client.send(&Frame::new(PONG, [0; 125]).bytes());
        client.send(&Frame::new(CONTINUATION, "").bytes());
        assert_eq!(client.answer(1).code(), 200);
    }
}

#[test]
fn violations_close_raw_connections() {
    let server = Server::start(&["--message-bytes-max", "1000"]);
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("no colon", raw("/qio/ping"), "closes_malformed_event"),
        ("nothing", raw(""), "closes_malformed_event"),
        ("no equals sign", raw("/a:1"), "closes_malformed_event"),
        ("invalid UTF-8", raw(b"/qio/ping:1=\xff"), "closes_invalid_utf8"),
        ("one byte over the limit", raw(vec![b'a'; 1001]), "closes_too_large"),
        ("announced over the limit", 1001u64.to_be_bytes().to_vec(), "closes_too_large"),
        ("announced with the largest number", u64::MAX.to_be_bytes().to_vec(), "closes_too_large"),
    ];
    for (name, bytes, counter) in &cases {
        let before = server.stats().value(counter);
        let mut client = server.client(Transport::Raw);
        client.send(bytes);
        assert_eq!(client.ended(), Ended::Disconnected, "{name}");
        drop(client); // the server waits for the client's end of the stream, up to a timeout
        assert_eq!(server.eventually_is("connections", 0).value(counter), before + 1, "{name}");
    }
}

#[test]
fn events_before_a_violation_are_handled() {
    let server = Server::start(&[]);
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        client.subscribe("/relay/last");
        let good = client.framed("/qio/ping:9=");
        let broadcast = client.framed("/relay/last:0=\"before\"");
        let bad = client.framed("no event");
        let after = client.framed("/relay/last:0=\"after\"");
        client.send(&[good, broadcast, bad, after].concat());
        assert_eq!(client.answer(9).code(), 200);
        assert_eq!(client.event().data, "\"before\"");
        client.expect_closed(1002, "invalid event format");
    }
}

#[test]
fn a_close_frame_is_echoed() {
    let server = Server::start(&[]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        let mut client = server.websocket();
        let last = client.framed("/qio/ping:1=");
        let ignored = client.framed("/qio/ping:2=");
        client.send(&[last, Frame::close(code, "bye").bytes(), ignored].concat());
        assert_eq!(client.answer(1).code(), 200);
        let Ended::Close(echoed, _) = client.ended() else { panic!("{code} was not echoed") };
        assert_eq!(echoed, code);
        client.expect_disconnect();
    }
    // A close frame without a code.
    let mut client = server.websocket();
    client.send(&Frame::new(CLOSE, "").bytes());
    let ended = client.ended();
    assert!(matches!(ended, Ended::Close(1005 | 1000, _)), "{ended:?}");
    client.expect_disconnect();
    drop(client);
    // During the handshake.
    let mut client = Client::connect(server.address(), Transport::WebSocket);
    client.upgrade();
    client.send(&Frame::close(1000, "").bytes());
    assert!(matches!(client.ended(), Ended::Close(1000, _)));
    client.expect_disconnect();
    drop(client);
    assert_eq!(server.eventually_is("connections", 0).value("closes_by_peer"), 15);
}

#[test]
fn a_close_reason_must_be_utf8() {
    let server = Server::start(&[]);
    let mut client = server.websocket();
    client.send(&Frame::new(CLOSE, b"\x03\xe8\xff").bytes());
    // RFC 6455 has no code for this violation, which is one of 5.5.1 and of 8.1.
    assert!(matches!(client.ended(), Ended::Close(1002 | 1007, _)));
    client.expect_disconnect();
}

#[test]
fn a_peer_that_does_not_answer_a_close_frame_is_disconnected() {
    let server = Server::start_with_clock(&[]);
    let mut client = server.websocket();
    client.send_text("no event");
    assert_eq!(client.ended(), Ended::Close(1002, "invalid event format".into()));
    // Everything else from the peer is ignored.
    for _ in 0..100 {
        client.send_text("/qio/ping:1=null");
    }
    client.send(b"\xff\xff\xff\xff garbage");
    server.advance(Duration::from_millis(5_001));
    client.expect_disconnect();
    server.eventually_is("connections", 0);
}

#[test]
fn disconnected_peers_leave_nothing() {
    let server = Server::start(&[]);
    let mut watcher = server.websocket();
    watcher.subscribe("/relay/watched");
    let half = Frame::text("/qio/ping:1=null").bytes()[..9].to_vec();
    let cases: [(&str, &dyn Fn() -> Client); 6] = [
        ("at once", &|| Client::connect(server.address(), Transport::Raw)),
        ("in the head", &|| {
            let mut client = Client::connect(server.address(), Transport::WebSocket);
            client.send(b"GET / HTTP/1.1\r\nHos");
            client
        }),
        ("before ohai", &|| {
            let mut client = Client::connect(server.address(), Transport::WebSocket);
            client.upgrade();
            client
        }),
        ("in a frame", &|| {
            let mut client = server.websocket();
            client.subscribe("/relay/watched");
            client.send(&half);
            client
        }),
        ("in a message of raw TCP", &|| {
            let mut client = server.client(Transport::Raw);
            client.subscribe("/relay/watched");
            client.send(&[0, 0, 0]);
            client
        }),
        ("with unread answers", &|| {
            let mut client = server.websocket();
            let pings: Vec<u8> = (0..500).flat_map(|_| client.framed("/clienttest/echo:1=2")).collect();
            client.send(&pings);
            client
        }),
    ];
    for (name, client) in cases {
        client().reset();
        let quiet = client();
        quiet.shutdown_write();
        drop(client()); // an orderly end of TCP without a WebSocket close
        server.eventually(&format!("disconnected {name}"), |stats| stats.value("connections") <= 2);
        drop(quiet);
        server.eventually_is("connections", 1);
        watcher.request_code("/relay/watched", "1", 200);
        assert_eq!(watcher.event().data, "1", "{name}");
    }
    let stats = server.eventually_is("outbox_bytes", 0);
    assert_eq!(stats.value("subscriptions"), 1);
    assert_eq!(stats.value("connections_accepted"), stats.value("connections_closed") + 1);
    server.assert_serves();
}
