//! Several addresses at once: IPv4, IPv6 and Unix sockets.

use crate::support::{Client, DEADLINE, Server, Wire};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// A path for a Unix socket, short enough for one, that is removed at the end.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> SocketPath {
        SocketPath(std::env::temp_dir().join(format!("quickio-{}-{name}", std::process::id())))
    }

    fn address(&self) -> String {
        format!("unix:{}", self.0.display())
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // the server may have removed it
    }
}

#[test]
fn every_kind_of_address_serves_both_protocols() {
    let path = SocketPath::new("all");
    let unix = path.address();
    let mut arguments = vec!["--listen", "127.0.0.1:0", "--listen", &unix];
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if has_ipv6 {
        arguments.extend(["--listen", "[::1]:0"]);
    } else {
        eprintln!("this host has no IPv6: its listener is not tested");
    }
    let server = Server::start(&arguments);
    let addresses = server.addresses();
    assert_eq!(addresses.len(), arguments.len() / 2, "{addresses:?}");
    assert!(addresses.iter().any(|address| *address == unix));
    assert_eq!(addresses.iter().any(|address| address.starts_with("[::1]:")), has_ipv6);
    let mut clients: Vec<Client> = Vec::new();
    for address in &addresses {
        for wire in Wire::ALL {
            let mut client = Client::open(address, wire);
            client.subscribe("/relay/all");
            clients.push(client);
        }
    }
    // They are clients of one server.
    clients[0].request_code("/relay/all", "1", 200);
    for client in &mut clients {
        assert_eq!(client.event().path, "/relay/all");
    }
}

#[test]
fn unix_sockets_are_taken_over_from_the_dead_and_given_back() {
    let path = SocketPath::new("again");
    let unix = path.address();
    let server = Server::start(&["--listen", &unix]);
    Client::open(&unix, Wire::WebSocket).ping();
    drop(server); // killed: the socket's file stays
    // The kernel lets go of what a ring held only after the process has gone.
    let deadline = Instant::now() + DEADLINE;
    while UnixStream::connect(&path.0).is_ok() {
        assert!(Instant::now() < deadline, "a dead server accepts");
        thread::sleep(Duration::from_millis(1));
    }
    let mut server = Server::start(&["--listen", &unix]);
    Client::open(&unix, Wire::Raw).ping();
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    assert!(!path.0.exists(), "an orderly end removes the socket's file");
}

#[test]
fn more_shards_than_cores() {
    let server = Server::start(&["--shards", "5"]);
    let mut clients = server.spread(40);
    assert_eq!(server.stats().shards().count(), 5);
    for client in &mut clients {
        client.subscribe("/relay/all");
    }
    clients[0].request_code("/relay/all", "1", 200);
    for client in &mut clients {
        assert_eq!(client.event().data, "1");
    }
}
