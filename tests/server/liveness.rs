//! protocol.md, sections 5 and 6: timeouts, heartbeats and challenges. The tests move the server's clock.

use crate::support::Ended;
use crate::support::wire::Frame;
use crate::support::{Client, Conversation, Server, Transport};
use std::time::Duration;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn handshakes_have_ten_seconds() {
    let server = Server::start_with_clock(&[]);
    let mut silent = Client::connect(server.address(), Transport::Raw);
    let mut raw = Client::connect(server.address(), Transport::Raw);
    raw.send(b"/qio/oh");
    let mut head = Client::connect(server.address(), Transport::WebSocket);
    head.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n");
    let mut upgraded = Client::connect(server.address(), Transport::WebSocket);
    upgraded.upgrade();
    let mut in_time = Client::connect(server.address(), Transport::WebSocket);
    in_time.upgrade();
    // The timeout of a connection begins when the server accepts it.
    server.eventually("all accepted and read", |stats| {
        stats.value("connections") == 5 && stats.value("bytes_received") > 7 + 33 + 200
    });

    server.advance(seconds(9));
    in_time.send_text("/qio/ohai");
    assert_eq!(in_time.text(), "/qio/ohai");
    assert_eq!(server.stats().value("timeouts_handshake"), 0);

    server.advance(Duration::from_millis(1_001));
    assert_eq!(silent.ended(), Ended::Disconnected);
    assert_eq!(raw.ended(), Ended::Disconnected);
    // The server may respond to an unfinished request with 408 (RFC 9110, 15.5.9).
    let rest = String::from_utf8(head.rest()).unwrap();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408 "), "{rest}");
    upgraded.expect_closed(1008, "client timeout");
    drop((silent, raw, head, upgraded));
    assert_eq!(server.eventually_is("connections", 1).value("timeouts_handshake"), 4);

    // After the handshake, a client may be idle.
    server.advance(seconds(40));
    in_time.ping();
}

#[test]
fn a_message_must_be_complete_after_ten_seconds() {
    let server = Server::start_with_clock(&[]);
    let fragment = Frame::text("/qio/pi").unfinished().bytes();
    let half = Frame::text("/qio/ping:3=null").bytes()[..9].to_vec();
    let head = Frame::text("/qio/ping:3=null").bytes()[..1].to_vec();
    for (name, unfinished) in
        [("half a frame", half), ("the first byte of a head", head), ("a fragment", fragment)]
    {
        let mut client = server.websocket();
        // The answer to the ping in the same piece shows that the server has received the piece.
        let ping = client.framed("/qio/ping:1=");
        client.send(&[ping, unfinished].concat());
        client.answer(1);
        server.advance(seconds(9));
        server.assert_serves();
        server.advance(Duration::from_millis(1_001));
        assert_eq!(client.ended(), Ended::Close(1008, "client timeout".into()), "{name}");
    }
    let mut raw = server.client(Transport::Raw);
    let ping = raw.framed("/qio/ping:1=");
    raw.send(&[&ping[..], &ping[..5]].concat());
    raw.answer(1);
    server.advance(seconds(10) + Duration::from_millis(1));
    assert_eq!(raw.ended(), Ended::Disconnected);
    drop(raw);
    assert_eq!(server.eventually_is("connections", 0).value("timeouts_message"), 4);
}

#[test]
fn a_slow_message_is_accepted_within_its_time_and_bytes_do_not_extend_it() {
    let server = Server::start_with_clock(&[]);
    let mut slow = server.websocket();
    let mut endless = server.websocket();
    let event = slow.framed("/qio/ping:2=null");
    let ping = slow.framed("/qio/ping:1=null");
    slow.send(&[&ping[..], &event[..8]].concat());
    endless.send(&[&ping[..], &event[..8]].concat());
    slow.answer(1);
    endless.answer(1);
    server.advance(seconds(6));
    slow.send(&event[8..]);
    assert_eq!(slow.answer(2).code(), 200);
    let before = server.stats().value("bytes_received");
    endless.send(&event[8..9]);
    server.eventually("one more byte", |stats| stats.value("bytes_received") > before);
    server.advance(seconds(5));
    assert_eq!(endless.ended(), Ended::Close(1008, "client timeout".into()));
    // The next message of the first client has ten seconds again.
    slow.send(&[&ping[..], &event[..8]].concat());
    slow.answer(1);
    server.advance(seconds(9));
    slow.send(&event[8..]);
    assert_eq!(slow.answer(2).code(), 200);
}

#[test]
fn heartbeats() {
    let server = Server::start_with_clock(&[]);
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        // A heartbeat comes at most ten seconds early.
        server.advance(seconds(39));
        client.ping();
        assert!(client.events().is_empty(), "a heartbeat before its time");
        // A heartbeat comes at most 50 s after the last event to the client.
        for _ in 0..3 {
            server.advance(seconds(50));
            assert_eq!(client.text(), "/qio/heartbeat:0=null", "{transport:?}");
        }
        // Every event to the client delays the next heartbeat.
        client.subscribe("/relay/busy");
        let mut sender = server.client(transport);
        for _ in 0..4 {
            server.advance(seconds(35));
            sender.request_code("/relay/busy", "1", 200);
            assert_eq!(client.text(), "/relay/busy:0=1");
        }
    }
    assert!(server.stats().value("heartbeats") >= 6);
}

#[test]
fn silent_clients_are_challenged() {
    let server = Server::start_with_clock(&[]);
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        for round in 1..=3 {
            let callback = advance_to_challenge(&server, &mut client);
            client.tell(&format!("/qio/callback/{callback}"), "null");
            client.ping();
            assert!(client.answers().is_empty());
            assert_eq!(server.stats().value("timeouts_liveness"), 0, "{transport:?}, round {round}");
        }
        // Every event from the client restarts the time.
        server.advance(seconds(14 * 60));
        client.ping();
        server.advance(seconds(14 * 60));
        client.ping();
    }
    assert!(server.stats().value("challenges") >= 6);
}

/// The server waits for a client that was silent for long in another way, and the client notices nothing.
#[test]
fn silent_clients_are_heard() {
    let server = Server::start_with_clock(&[]);
    let mut times = 0;
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        for round in 0..4 {
            server.advance(seconds(50));
            assert_eq!(client.text(), "/qio/heartbeat:0=null", "{transport:?}");
            times += 1;
            server.eventually("the client is dormant", |stats| stats.value("inputs_dormant") == times);
            if round < 3 {
                client.ping();
            }
        }
        drop(client);
        server.eventually_is("connections", 0);
    }
}

#[test]
fn clients_that_stay_silent_are_closed() {
    let server = Server::start_with_clock(&[]);
    for (transport, closed) in Transport::SOCKETS.into_iter().zip(1..) {
        let mut client = server.client(transport);
        advance_to_challenge(&server, &mut client);
        assert_eq!(server.stats().value("clients"), 1);
        server.advance(seconds(60));
        if transport == Transport::Raw {
            assert_eq!(client.ended(), Ended::Disconnected);
        } else {
            client.expect_closed(1008, "client timeout");
        }
        drop(client);
        assert_eq!(server.eventually_is("connections", 0).value("timeouts_liveness"), closed);
    }
}

/// Advances the clock by 15 minutes, receives up to the challenge, and returns its callback.
fn advance_to_challenge(server: &Server, client: &mut Client) -> u64 {
    server.advance(seconds(15 * 60));
    loop {
        let event = client.event();
        assert_eq!((event.path.as_str(), event.data.as_str()), ("/qio/heartbeat", "null"));
        if event.callback != 0 {
            return event.callback;
        }
    }
}

#[test]
fn settings_change_every_timeout() {
    let server = Server::start_with_clock(&[
        "--timeout",
        "2s",
        "--heartbeat-interval",
        "5s",
        "--heartbeat-slack",
        "0ms",
        "--heartbeat-challenge",
        "20s",
        "--heartbeat-timeout",
        "30s",
    ]);
    let mut late = Client::connect(server.address(), Transport::WebSocket);
    late.upgrade();
    let mut client = server.websocket();
    server.advance(Duration::from_millis(2_001));
    late.expect_closed(1008, "client timeout");
    server.advance(Duration::from_millis(2_998)); // 4.999 s in all
    server.assert_serves();
    client.ping(); // at 4.999 s; without slack, no heartbeat is early
    assert!(client.events().is_empty());
    server.advance(seconds(5));
    assert_eq!(client.text(), "/qio/heartbeat:0=null");
    server.advance(seconds(15));
    loop {
        if client.event().callback != 0 {
            break;
        }
    }
    server.advance(seconds(10));
    client.expect_closed(1008, "client timeout");
}
