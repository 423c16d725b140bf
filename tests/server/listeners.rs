//! Listeners: several addresses at once, over IPv4, IPv6 and Unix sockets.

use crate::support::{Client, Conversation, DEADLINE, Server, Transport};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// The path of a Unix socket, short enough for one. Dropping it removes the file.
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
        let _ = std::fs::remove_file(&self.0); // fails if the server has removed it
    }
}

#[test]
fn every_kind_of_address_serves_raw_tcp_and_websocket() {
    let path = SocketPath::new("all");
    let unix = path.address();
    let mut arguments = vec!["--listen", "127.0.0.1:0", "--listen", &unix];
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if has_ipv6 {
        arguments.extend(["--listen", "[::1]:0"]);
    } else {
        eprintln!("this host has no IPv6: the IPv6 listener is not tested");
    }
    let server = Server::start(&arguments);
    let addresses = server.addresses();
    assert_eq!(addresses.len(), arguments.len() / 2, "{addresses:?}");
    assert!(addresses.iter().any(|address| *address == unix));
    assert_eq!(addresses.iter().any(|address| address.starts_with("[::1]:")), has_ipv6);
    let mut clients: Vec<Client> = Vec::new();
    for address in &addresses {
        for transport in Transport::SOCKETS {
            let mut client = Client::open(address, transport);
            client.subscribe("/relay/all");
            clients.push(client);
        }
    }
    // All of them are clients of one server.
    clients[0].request_code("/relay/all", "1", 200);
    for client in &mut clients {
        assert_eq!(client.event().path, "/relay/all");
    }
}

#[test]
fn unix_sockets_of_a_killed_server_are_replaced_and_removed_at_exit() {
    let path = SocketPath::new("again");
    let unix = path.address();
    let server = Server::start(&["--listen", &unix]);
    Client::open(&unix, Transport::WebSocket).ping();
    drop(server); // killed: the socket's file remains
    // The kernel closes the sockets of a ring only some time after the process has exited.
    let deadline = Instant::now() + DEADLINE;
    while UnixStream::connect(&path.0).is_ok() {
        assert!(Instant::now() < deadline, "a killed server still accepts");
        thread::sleep(Duration::from_millis(1));
    }
    let mut server = Server::start(&["--listen", &unix]);
    Client::open(&unix, Transport::Raw).ping();
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    assert!(!path.0.exists(), "an orderly exit removes the socket's file");
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
