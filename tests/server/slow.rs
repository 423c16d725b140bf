//! Backpressure: the server closes a client that does not read, names it in the log, and serves the others meanwhile.

use crate::support::Ended;
use crate::support::wire::{Frame, PING};
use crate::support::{Client, Conversation, Server, Transport, http};
use std::time::Duration;

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Far more bytes than the kernel buffers for the two sockets of one connection.
const BYTES_MAX: usize = 64 << 20;

#[test]
fn slow_readers_are_closed_and_others_are_served() {
    // The clock stands still, and so the closing handshake has no timeout for the slow client.
    let server = Server::start_with_clock(&["--outbox-bytes-max", "256Ki"]);
    let mut prompt = server.spread(4);
    let mut publisher = server.websocket();
    for transport in Transport::SOCKETS {
        let mut slow = Client::connect_from(LOOPBACK, server.address(), transport);
        slow.shake_hands();
        slow.subscribe("/relay/flood");
        for client in &mut prompt {
            client.subscribe("/relay/flood");
        }
        let closed_before = server.stats().value("closes_slow");
        let filler = "x".repeat(32 << 10);
        let mut sent = 0;
        // The statistics are the slow part of this loop.
        while sent % 8 != 0 || server.stats().value("closes_slow") == closed_before {
            assert!(
                sent * filler.len() < BYTES_MAX,
                "{transport:?}: a client that never reads is not closed"
            );
            publisher.request_code("/relay/flood", &format!("[{sent},{filler:?}]"), 200);
            for client in &mut prompt {
                let event = client.event();
                assert!(event.data.starts_with(&format!("[{sent},")), "others are served, in order");
            }
            sent += 1;
        }
        let stats = server.stats();
        assert_eq!(stats.value("closes_slow"), closed_before + 1);
        assert!(
            stats.value("outbox_bytes") <= 512 << 10,
            "{} bytes are waiting",
            stats.value("outbox_bytes")
        );
        if closed_before == 0 {
            // Others are only counted, for some seconds.
            server.log_with(&slow.address);
        }

        if transport == Transport::Raw {
            // The client reads what the kernel has buffered, and then the end.
            assert!(slow.rest().len() < sent * filler.len(), "it received everything");
        } else {
            assert!(read_to_the_end(&mut slow) < sent, "it received everything");
        }
        drop(slow);
        server.eventually_is("connections", prompt.len() as u64 + 1);
        for client in &mut prompt {
            client.ping();
            assert_eq!(client.events(), []);
            client.unsubscribe("/relay/flood");
        }
    }
}

/// Reads whole messages, in order from the first, and then the close frame. Returns the number of messages.
fn read_to_the_end(slow: &mut Client) -> usize {
    let mut read = 0;
    loop {
        match slow.next_text() {
            Ok(text) => assert!(text.starts_with(&format!("/relay/flood:0=[{read},")), "message {read}"),
            Err(ended) => {
                assert!(matches!(ended, Ended::Close(1013, _)), "{ended:?}");
                slow.try_send(&Frame::close(1013, "").bytes());
                return read;
            }
        }
        read += 1;
    }
}

/// The same limit holds for a client that does not read the answers to its own events.
#[test]
fn clients_that_do_not_read_their_answers_are_closed() {
    let server = Server::start(&["--outbox-bytes-max", "128Ki", "--close-timeout", "100ms"]);
    let mut client = Client::connect_from(LOOPBACK, server.address(), Transport::WebSocket);
    client.shake_hands();
    let event = client.framed(format!("/clienttest/echo:1=\"{}\"", "q".repeat(16 << 10)));
    let events = event.repeat(8);
    let mut sent = 0;
    while client.try_send(&events) && server.stats().value("closes_slow") == 0 {
        sent += events.len();
        assert!(sent < BYTES_MAX, "a client that never reads is not closed");
    }
    server.eventually_is("closes_slow", 1);
    server.eventually_is("connections", 0);
    server.assert_serves();
}

/// Sends until more than a MiB of output waits for the peer, of which the kernel has taken what it can.
fn fill(server: &Server, mut send: impl FnMut()) {
    let before = server.stats().value("outbox_bytes");
    let mut rounds = 0;
    while server.stats().value("outbox_bytes") < before + (1 << 20) {
        send();
        rounds += 1;
        assert!(rounds < 10_000, "the peer's output is not kept");
    }
}

/// A connection whose peer reads nothing ends after `send-timeout`, on each protocol, although the peer goes on sending.
#[test]
fn a_peer_that_reads_nothing_is_closed_although_it_sends() {
    let arguments = ["--outbox-bytes-max", "64Mi", "--send-timeout", "30s", "--close-timeout", "1s"];
    let server = Server::start_with_clock(&arguments);
    for transport in Transport::SOCKETS {
        let closed_before = server.stats().value("timeouts_send");
        let mut client = Client::connect_from(LOOPBACK, server.address(), transport);
        client.shake_hands();
        let echo = client.framed(format!("/clienttest/echo:1=\"{}\"", "q".repeat(60 << 10)));
        fill(&server, || client.send(&echo));
        let ping = client.framed("/qio/ping:2=null");
        for _ in 0..2 {
            server.advance(Duration::from_secs(10));
            client.send(&ping);
            assert_eq!(
                server.stats().value("timeouts_send"),
                closed_before,
                "{transport:?}: closed too early"
            );
        }
        server.advance(Duration::from_secs(20));
        server.eventually_is("timeouts_send", closed_before + 1);
        server.advance(Duration::from_secs(2));
        server.eventually_is("connections", 0);
        server.eventually_is("outbox_bytes", 0);
    }
    let closed_before = server.stats().value("timeouts_send");
    let mut connection = http::Connection::open_small(server.address());
    let request = "GET /quickio.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    fill(&server, || connection.send(request.repeat(20)));
    server.advance(Duration::from_secs(40));
    server.eventually_is("timeouts_send", closed_before + 1);
    server.advance(Duration::from_secs(2));
    server.eventually_is("connections", 0);
    server.assert_serves();
}

/// A peer that reads slowly is not closed, however long one send to it takes.
#[test]
fn a_peer_that_reads_slowly_is_not_closed() {
    let server = Server::start_with_clock(&["--outbox-bytes-max", "64Mi", "--send-timeout", "30s"]);
    let mut client = Client::connect_from(LOOPBACK, server.address(), Transport::Raw);
    client.shake_hands();
    let echo = client.framed(format!("/clienttest/echo:1=\"{}\"", "q".repeat(60 << 10)));
    // More than this test reads, beyond what the kernel has taken.
    (0..16).for_each(|_| fill(&server, || client.send(&echo)));
    let mut read = 0;
    let waiting = server.stats().value("outbox_bytes");
    // The kernel asks for more when a third of its buffer is free: a few of these steps make one step of progress.
    for _ in 0..12 {
        for _ in 0..3 {
            read += client.take_bytes(256 << 10).len();
            server.advance(Duration::from_secs(3));
        }
        assert_eq!(server.stats().value("timeouts_send"), 0, "closed after {read} bytes were read");
    }
    assert!(server.stats().value("outbox_bytes") > 0, "the output of {waiting} bytes was read in one go");
    assert_eq!(server.stats().value("connections"), 1);
}

/// A client that sends Pings and reads no Pong costs one Pong, and it is closed in the end.
#[test]
fn pongs_that_are_not_read_do_not_pile_up() {
    let server = Server::start_with_clock(&[]);
    let mut client = Client::connect_from(LOOPBACK, server.address(), Transport::WebSocket);
    client.shake_hands();
    let pings = Frame::new(PING, [0; 125]).bytes().repeat(500);
    let mut sent = 0;
    while server.stats().value("pongs_replaced") < 20_000 {
        assert!(sent < 2 * BYTES_MAX, "every Ping is answered");
        client.send(&pings);
        sent += pings.len();
    }
    let waiting = server.stats().value("outbox_bytes");
    // The answers before the first send that did not fit, and the newest Pong.
    assert!(waiting < 512 << 10, "{waiting} bytes wait");
    server.advance(Duration::from_secs(38));
    server.eventually_is("timeouts_send", 1);
    server.assert_serves();
}
