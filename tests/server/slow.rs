//! Backpressure: the server closes a client that does not read, names it in the log, and serves the others meanwhile.

use crate::support::Ended;
use crate::support::wire::Frame;
use crate::support::{Client, Conversation, Server, Transport};

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
