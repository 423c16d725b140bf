//! Backpressure: a client that does not read is closed, named in the log, and others are served meanwhile.

use crate::support::client::Ended;
use crate::support::wire::Frame;
use crate::support::{Client, Server, Wire};

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Far more than the kernel keeps for two sockets of one connection.
const BYTES_MAX: usize = 64 << 20;

#[test]
fn slow_readers_are_closed_and_others_are_served() {
    // The clock stands still, so that the closing handshake waits for the slow one as long as it needs.
    let server = Server::start_with_clock(&["--outbox-bytes-max", "256Ki"]);
    let mut prompt = server.spread(4);
    let mut publisher = server.websocket();
    for wire in Wire::ALL {
        let mut slow = Client::connect_from(LOOPBACK, server.address(), wire);
        slow.shake_hands();
        slow.subscribe("/relay/flood");
        for client in &mut prompt {
            client.subscribe("/relay/flood");
        }
        let closed_before = server.stats().value("closes_slow");
        let filler = "x".repeat(32 << 10);
        let mut sent = 0;
        while server.stats().value("closes_slow") == closed_before {
            assert!(sent * filler.len() < BYTES_MAX, "{wire:?}: a client that never reads is not closed");
            publisher.request_code("/relay/flood", &format!("[{sent},{filler:?}]"), 200);
            for client in &mut prompt {
                let event = client.event();
                assert!(event.data.starts_with(&format!("[{sent},")), "others are served, in order");
            }
            sent += 1;
        }
        let stats = server.stats();
        assert_eq!(stats.value("closes_slow"), closed_before + 1);
        assert!(stats.value("outbox_bytes") <= 512 << 10, "{} wait", stats.value("outbox_bytes"));
        server.log_with(&slow.address);

        if wire == Wire::Raw {
            // Nothing can be said to it any more; it reads what the kernel has and then the end.
            assert!(slow.rest().len() < sent * filler.len(), "nothing was kept from it");
        } else {
            assert!(read_to_the_end(&mut slow) < sent, "nothing was kept from it");
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

/// Whole messages in order from the first on, and then the reason for the end; returns how many messages.
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

/// A client that asks and does not read the answers is bounded by the same limit.
#[test]
fn askers_that_do_not_read_are_closed() {
    let server = Server::start(&["--outbox-bytes-max", "128Ki", "--close-timeout", "100ms"]);
    let mut asker = Client::connect_from(LOOPBACK, server.address(), Wire::WebSocket);
    asker.shake_hands();
    let question = asker.framed(format!("/clienttest/echo:1=\"{}\"", "q".repeat(16 << 10)));
    let mut asked = 0;
    while asker.try_send(&question) && server.stats().value("closes_slow") == 0 {
        asked += question.len();
        assert!(asked < BYTES_MAX, "a client that never reads is not closed");
    }
    server.eventually_is("closes_slow", 1);
    server.eventually_is("connections", 0);
    server.assert_serves();
}
