//! The memory of incomplete messages: what peers have sent of messages and heads that are not complete, and the requests of
//! HTTP sessions that wait for earlier ones.
//!
//! Each has a limit of its own (`message-bytes-max`) and a time limit (`timeout`), but there may be as many of them as
//! connections and sessions. All of them together have a limit too. While it is reached, each connection and each session
//! may only have a small amount.

use crate::limits::INCOMPLETE_BYTES_MIN;

/// The memory of all incomplete messages of a shard, and its limit.
///
/// Invariant, which [`check`](Incomplete::check) asserts: `bytes` is the sum over all codecs and sessions, TLS handshakes, and
/// TLS records that have begun.
pub(super) struct Incomplete {
    bytes: u64,
    /// The bytes from which on a connection or session may only have [`INCOMPLETE_BYTES_MIN`].
    bytes_max: u64,
}

impl Incomplete {
    /// No message is incomplete.
    pub fn new(bytes_max: u64) -> Incomplete {
        Incomplete { bytes: 0, bytes_max }
    }

    /// The memory of all incomplete messages.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes that what a connection or session has of incomplete messages takes another amount of memory than before.
    pub fn changed(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes + after as u64 - before as u64;
    }

    /// Returns whether a connection or session must not have this amount now.
    pub fn is_too_large(&self, bytes: usize) -> bool {
        bytes > INCOMPLETE_BYTES_MIN && self.bytes > self.bytes_max
    }

    /// Asserts the invariant.
    pub fn check(&self, of_all: u64) {
        assert_eq!(self.bytes, of_all, "the memory of all incomplete messages");
    }
}

#[cfg(test)]
mod tests {
    use crate::app::relay::Relay;
    use crate::config::Config;
    use crate::limits::INCOMPLETE_BYTES_MIN;
    use crate::metrics::{Counter, Gauge};
    use crate::protocol::websocket::frame::Opcode;
    use crate::shard::testing::{Peer, World, client_close, client_frame, raw_message};
    use std::sync::Arc;

    /// Room for three messages of more than 32 KiB: their memory doubles when it is full.
    const ROOM: usize = 256 << 10;

    fn world() -> World {
        let config = Config { incomplete_bytes_max: Some(ROOM), ..Config::default() };
        World::with_config(1, config, vec![Arc::new(Relay)])
    }

    /// An event of about this many bytes, as a frame of a WebSocket.
    fn event(bytes: usize) -> Vec<u8> {
        client_frame(Opcode::Text, format!("/qio/ping:1=\"{}\"", "x".repeat(bytes)).as_bytes())
    }

    fn send_part(world: &mut World, peer: Peer, bytes: &[u8]) {
        for piece in bytes.chunks(4096) {
            world.send_bytes(peer, piece);
        }
        world.run_until_idle();
    }

    #[test]
    fn incomplete_messages_have_a_limit_together() {
        let mut world = world();
        let hogs: Vec<Peer> = (0..40).map(|_| world.connect_websocket(0)).collect();
        let honest = world.connect_websocket(0);
        for hog in &hogs {
            send_part(&mut world, *hog, &event(60 << 10)[..50 << 10]);
        }
        let most = ROOM + (hogs.len() + 1) * (INCOMPLETE_BYTES_MIN + 8192);
        let incomplete = world.gauge(Gauge::IncompleteBytes) as usize;
        assert!((ROOM / 2..=most).contains(&incomplete), "{incomplete}");
        let closed = world.counter(Counter::ClosesIncomplete);
        assert!((30..40).contains(&closed), "{closed}");
        // Others have room for small messages, and for larger ones that come at once.
        let small = event(INCOMPLETE_BYTES_MIN / 2);
        send_part(&mut world, honest, &small);
        assert_eq!(world.take_websocket_messages(honest).len(), 1);
        let last = hogs.last().unwrap();
        let closing = world.take_bytes(*last);
        assert!(closing.windows(2).any(|code| code == 1013u16.to_be_bytes()), "{closing:?}");
        for hog in &hogs {
            world.send_bytes(*hog, &client_close(1013));
            world.end_stream(*hog);
        }
        world.run_until_idle();
        assert_eq!(world.gauge(Gauge::IncompleteBytes), 0);
        send_part(&mut world, honest, &event(60 << 10));
        assert_eq!(world.take_websocket_messages(honest).len(), 1, "there is room again");
    }

    /// A request of a session with this number.
    fn request(session: usize, parameters: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("POST /?sid={session:032x}{parameters} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes()
    }

    /// Opens a session, which then has a request with a body of this many bytes that waits for an earlier one. The request
    /// is never incomplete. Returns its connection.
    fn send_early(world: &mut World, session: usize, bytes: usize) -> Peer {
        let (first, second) = (world.connect(0), world.connect(0));
        send_part(world, first, &request(session, "&connect=true&seq=1", ""));
        world.send_bytes(second, &request(session, "&seq=3", &"x".repeat(bytes)));
        world.run_until_idle();
        second
    }

    #[test]
    fn requests_that_wait_for_earlier_ones_count() {
        let mut world = world();
        let early: Vec<Peer> = (0..20).map(|session| send_early(&mut world, session, 60 << 10)).collect();
        let refused =
            early.iter().filter(|peer| world.take_bytes(**peer).starts_with(b"HTTP/1.1 503")).count();
        assert!((14..18).contains(&refused), "{refused}");
        assert_eq!(world.counter(Counter::HttpRefusedBusy) as usize, refused);
        let kept = world.gauge(Gauge::IncompleteBytes) as usize;
        assert!((ROOM..ROOM + (64 << 10)).contains(&kept), "{kept}");
        let small = send_early(&mut world, 99, INCOMPLETE_BYTES_MIN / 2);
        assert!(world.take_bytes(small).is_empty(), "a small one has room");
        // The one that they wait for does not come.
        world.run_seconds(20);
        assert_eq!(world.gauge(Gauge::IncompleteBytes), 0);
        let last = send_early(&mut world, 100, 60 << 10);
        assert!(world.take_bytes(last).is_empty(), "there is room again");
    }

    #[test]
    fn every_protocol_counts_and_is_told() {
        let mut world = world();
        for _ in 0..8 {
            let hog = world.connect_raw(0);
            send_part(&mut world, hog, &raw_message(&"x".repeat(60 << 10))[..40 << 10]);
        }
        assert!(world.gauge(Gauge::IncompleteBytes) as usize > ROOM / 2);
        let (raw, http) = (world.connect_raw(0), world.connect(0));
        send_part(&mut world, raw, &raw_message(&"x".repeat(60 << 10))[..40 << 10]);
        assert!(world.is_stream_ended(raw));
        let head = "POST /?sid=00000000000000000000000000000001&connect=true HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
        let request = format!("{head}{}", "x".repeat(50_000));
        send_part(&mut world, http, request.as_bytes());
        let response = String::from_utf8(world.take_bytes(http)).unwrap();
        assert!(
            response.starts_with("HTTP/1.1 503") && response.contains("Retry-After: 1\r\n"),
            "{response}"
        );
        assert!(world.is_stream_ended(http));
        world.run_seconds(20);
        assert_eq!(world.gauge(Gauge::IncompleteBytes), 0, "they were not completed in time");
    }
}
