//! The admin endpoint: JSON, Prometheus and health, and that all values in them change.

use crate::support::{Client, Conversation, DEADLINE, Server, Transport, http};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::time::Instant;

const MEMBERS: [&str; 9] = ["count", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];

/// Makes every kind of event happen.
fn exercise(server: &Server) -> Vec<Client> {
    let mut clients = server.spread(6);
    clients.push(server.client(Transport::Raw));
    for client in &mut clients {
        client.subscribe("/relay/stats");
    }
    for round in 0..5 {
        clients[0].request_code("/relay/stats", "1", 200);
        for client in &mut clients {
            assert_eq!(client.event().data, "1", "{round}");
            client.request_code("/clienttest/echo", "1", 200);
        }
    }
    clients[0].request_code("/nowhere", "1", 404);
    clients[0].request_code("/qio/callback/77", "1", 404);
    clients
}

#[test]
fn json() {
    // While the clock stands still, no application does anything on its own.
    let server = Server::start_with_clock(&[]);
    let clients = exercise(&server);
    let count = clients.len() as u64;
    let stats = server.stats();
    let expected = [
        ("connections", count),
        ("clients", count),
        ("connections_accepted", count),
        ("handshakes_websocket", count - 1),
        ("handshakes_raw", 1),
        ("subscriptions", count),
        ("subscribes", count),
        ("broadcasts", 5),
        ("broadcast_deliveries", 5 * count),
        ("events_received", count + 5 + 5 * count + 2),
        ("events_unrouted", 1),
        ("answers", count + 5 + 5 * count + 2),
        ("callbacks_issued", 5 * count),
        ("callbacks_unknown", 1),
        ("callbacks_evicted", count),
        ("callbacks_open", 4 * count),
    ];
    for (name, value) in expected {
        assert_eq!(stats.value(name), value, "{name}");
    }
    let moved = [
        "bytes_received",
        "bytes_sent",
        "sends",
        "messages_sent",
        "mesh_sent",
        "mesh_received",
        "turns",
        "timers",
    ];
    for name in moved {
        assert!(stats.value(name) > 0, "{name}");
    }
    // The merged numbers are the sums over the shards.
    assert_eq!(stats.shards().count(), 2);
    for kind in ["counters", "gauges"] {
        for (name, value) in stats.0[kind].as_object().expect("names and numbers") {
            let sum: u64 = stats.shards().map(|shard| shard[kind][name].as_u64().expect("a number")).sum();
            assert_eq!(value.as_u64(), Some(sum), "{name}");
        }
    }
}

#[test]
fn histograms() {
    let server = Server::start(&[]);
    let clients = exercise(&server);
    let count = clients.len() as u64;
    let stats = server.eventually("every send is complete", |stats| {
        stats.timer("delivery")["count"].as_u64() == Some(5 * count)
    });
    for name in ["turn", "route", "mesh_hop", "send", "delivery"] {
        let timer = stats.timer(name);
        let members: BTreeSet<&str> =
            timer.as_object().expect("a histogram").keys().map(String::as_str).collect();
        assert_eq!(members, MEMBERS.into(), "{name}");
        let number = |member: &str| timer[member].as_f64().expect("a number");
        assert!(number("count") > 0.0, "{name}: {timer}");
        let rising = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(number);
        assert!(rising.is_sorted() && rising[0] >= 0.0, "{name}: {timer}");
        assert!((number("min")..=number("max")).contains(&number("mean")), "{name}: {timer}");
        assert!(number("max") < 60e6, "{name} in microseconds: {timer}");
        let sum: u64 = stats.shards().map(|shard| shard["timers"][name]["count"].as_u64().unwrap()).sum();
        assert_eq!(timer["count"].as_u64(), Some(sum), "{name}");
    }
    assert_eq!(stats.timer("route")["count"].as_u64(), Some(stats.value("events_received")));
}

#[test]
fn prometheus() {
    let server = Server::start(&[]);
    let clients = exercise(&server);
    let response = server.admin_request("GET", "/metrics");
    assert_eq!(response.head.status, 200);
    assert!(response.head.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let mut helped = BTreeSet::new();
    let mut typed = BTreeSet::new();
    let mut connections = 0.0;
    for line in response.body.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help @ ..] => assert!(!help.is_empty() && helped.insert(*name), "{line}"),
            ["#", "TYPE", name, kind] => {
                assert!(["counter", "gauge", "summary"].contains(kind) && typed.insert(*name), "{line}");
            }
            [sample @ .., value] => {
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                let sample = sample.join(" ");
                let name = sample.split('{').next().unwrap();
                assert!(name.starts_with("quickio_"), "{line}");
                let base = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count")).unwrap_or(name);
                assert!(typed.contains(name) || typed.contains(base), "no TYPE before {line}");
                if name == "quickio_connections" {
                    connections += value;
                }
            }
            [] => unreachable!("split gives at least one"),
        }
    }
    assert_eq!(helped, typed);
    assert!(connections as usize >= clients.len());
}

#[test]
fn other_requests() {
    let server = Server::start(&[]);
    server.wait_for_shards();
    assert_eq!(server.admin_request("GET", "/nowhere").head.status, 404);
    assert_eq!(server.admin_request("POST", "/stats").head.status, 405);
    // Only the manual clock can be advanced.
    assert!(server.admin_request("POST", "/clock?advance=1000").head.status >= 400);
    let manual = Server::start_with_clock(&[]);
    for bad in ["", "?advance=", "?advance=-1", "?advance=x", "?advance=99999999999999999999999"] {
        assert_eq!(manual.admin_request("POST", &format!("/clock{bad}")).head.status, 400, "{bad:?}");
    }
    assert_eq!(manual.admin_request("GET", "/clock?advance=1").head.status, 405);
}

#[test]
fn healthz_is_answered_while_hundreds_of_connections_idle() {
    const IDLE: usize = 500;
    let server = Server::start(&[]);
    let deadline = Instant::now() + DEADLINE;
    // The endpoint closes idle connections after a while. On a slow machine this may happen before the response
    // arrives, and another attempt is needed.
    loop {
        let idle: Vec<TcpStream> =
            (0..IDLE).map(|_| TcpStream::connect(server.admin()).expect("a connection")).collect();
        let response = server.admin_request("GET", "/healthz");
        assert_eq!((response.head.status, response.body.as_str()), (200, "ok\n"));
        if idle.iter().all(is_open) {
            return;
        }
        assert!(Instant::now() < deadline, "there are never {IDLE} idle connections");
    }
}

/// Returns whether the peer has neither sent anything nor closed the connection.
fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket can be set so");
    stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn host_names_must_be_allowed() {
    let server = Server::start(&["--admin-hosts", "Admin.Example,quickio"]);
    for (host, status) in [
        ("localhost", 405),
        ("127.0.0.1:8081", 405),
        ("admin.example:80", 405),
        ("quickio", 405),
        ("other.example", 421),
    ] {
        // This request asks no shard: a shard that is late on a loaded machine makes no difference.
        let request = format!("POST /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(http::exchange(server.admin(), request).head.status, status, "{host}");
    }
}

#[test]
fn without_an_endpoint() {
    let server = Server::start(&["--admin", "off"]);
    assert!(server.greeting.iter().all(|line| !line.starts_with("admin on")), "{:?}", server.greeting);
    server.assert_serves();
}

#[test]
fn a_server_at_rest_sleeps() {
    let server = Server::start_with_clock(&[]);
    let mut clients = server.spread(4);
    clients.iter_mut().for_each(Client::ping);
    let turns = |stats: &Value| stats["counters"]["turns"].as_u64().unwrap();
    let before = turns(&server.stats().0);
    // Real time passes during the requests. A loop that spins would take many turns.
    for _ in 0..50 {
        server.stats();
    }
    let after = turns(&server.stats().0);
    assert!(after - before < 10_000, "{} turns for 50 requests", after - before);
}
