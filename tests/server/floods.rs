//! Log lines that peers cause: of each kind one in a few seconds, and a count of the others.

use crate::support::{Client, Server, Transport, http};
use serde_json::Value;
use std::time::Instant;

/// The seconds during which a kind is logged once (`LOG_WINDOW`).
const WINDOW_SECONDS: u64 = 5;

/// The lines of a log in JSON.
struct Lines(Vec<Value>);

impl Lines {
    fn of(log: &str) -> Lines {
        Lines(log.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect())
    }

    /// The lines with this message.
    fn with<'a>(&'a self, message: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |line| line["message"] == message)
    }

    /// The number of lines of this kind that were counted and not logged, by the summaries.
    fn suppressed(&self, kind: &str) -> u64 {
        let summaries = self.with("more lines of this kind were not logged");
        summaries.filter(|line| line["kind"] == kind).map(|line| line["lines"].as_u64().unwrap()).sum()
    }
}

#[test]
fn each_kind_is_logged_once_and_counted() {
    const CONNECTIONS: u64 = 300;
    let began = Instant::now();
    let mut server = Server::start(&["--log-format", "json", "--connections-per-address-max", "3"]);
    let held: Vec<Client> = (0..3).map(|_| server.websocket()).collect();
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(server.address(), Transport::Raw);
        client.try_send(b"/qio/ohai");
        client.expect_disconnect();
    }
    drop(held);
    server.eventually_is("connections", 0);
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(server.address(), Transport::Raw);
        client.try_send(b"\x01\x02\x03");
        client.expect_disconnect();
    }
    let stats = server.eventually_is("protocol_unknown", CONNECTIONS);
    assert_eq!(stats.value("connections_refused_address"), CONNECTIONS);
    let suppressed = stats.0["server"]["log_lines_suppressed"].as_u64().unwrap();
    server.signal("TERM");
    assert!(server.exit().success());
    let lines = Lines::of(&server.log_with(""));

    let refused = "connection refused: its address already has 3 connections and sessions (connections-per-address-max)";
    let windows = began.elapsed().as_secs() / WINDOW_SECONDS + 1;
    let mut counted = 0;
    for (message, kind) in
        [(refused, "connections-per-address-max"), ("connection closed", "unknown protocol")]
    {
        let logged = lines.with(message).count() as u64;
        assert!((1..=windows).contains(&logged), "{logged} lines of {kind} in {windows} windows");
        assert!(lines.with(message).all(|line| line["peer"].as_str().unwrap().starts_with("127.0.0.1:")));
        assert_eq!(logged + lines.suppressed(kind), CONNECTIONS, "{kind}: each line is logged or counted");
        counted += lines.suppressed(kind);
    }
    assert_eq!(suppressed, counted);
}

/// An origin is named as it came, but for what could break the line.
#[test]
fn refused_origins_and_hosts_are_named() {
    let mut server = Server::start(&["--log-format", "json", "--origin", "https://allowed.example"]);
    let request = |head: &str| {
        let request = http::upgrade("Sec-WebSocket-Protocol: quickio\r\n");
        http::exchange(server.address(), request.replacen("\r\n", &format!("\r\n{head}\r\n"), 1)).head.status
    };
    assert_eq!(request("Origin: https://other.example\x1b[31m\u{202e}"), 400, "not an HTTP head");
    assert_eq!(request("Origin: https://other.example\u{202e}"), 403);
    assert_eq!(request("Origin: https://third.example"), 403);
    let admin = |host: &str| {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        http::exchange(server.admin(), request).head.status
    };
    assert_eq!(admin("attacker.example"), 421);
    assert_eq!(admin(&"x".repeat(1000)), 421);
    server.signal("TERM");
    assert!(server.exit().success());
    let lines = Lines::of(&server.log_with(""));

    let message = "request refused: its origin is not among those of the setting origin";
    let line = lines.with(message).next().expect("the refused origin is logged");
    assert_eq!(line["origin"], "https://other.example\\u{202e}");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(lines.with(message).count() as u64 + lines.suppressed("refused origin"), 2);

    let message = "request refused by the admin endpoint: its Host is no IP address, not localhost and not among admin-hosts";
    assert_eq!(lines.with(message).next().expect("the refused host is logged")["host"], "attacker.example");
    assert_eq!(lines.with(message).count() as u64 + lines.suppressed("host of the admin endpoint"), 2);
}
