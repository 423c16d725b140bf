//! Listeners: several addresses at once, over IPv4, IPv6 and Unix sockets.

use crate::support::server::{BINARY, command, run};
use crate::support::{Client, Conversation, DEADLINE, Server, Transport};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The path of a Unix socket, short enough for one. Dropping it removes the file.
pub struct SocketPath(PathBuf);

impl SocketPath {
    pub fn new(name: &str) -> SocketPath {
        SocketPath(std::env::temp_dir().join(format!("quickio-{}-{name}", std::process::id())))
    }

    pub fn address(&self) -> String {
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

/// Returns the permissions of the socket of a server that is started with this umask.
fn mode_of_socket(name: &str, umask: &str, arguments: &[&str]) -> u32 {
    let path = SocketPath::new(name);
    let unix = path.address();
    let server = command(BINARY, &[&["--listen", &unix], arguments].concat());
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask \"$0\"; exec \"$@\"", umask, BINARY]).args(server.get_args());
    let _server = Server::launch(shell);
    Client::open(&unix, Transport::Raw).ping();
    std::fs::metadata(&path.0).unwrap().permissions().mode() & 0o7777
}

#[test]
fn unix_sockets_have_the_permissions_of_the_settings_whatever_the_umask() {
    assert_eq!(mode_of_socket("mode-1", "077", &[]), 0o666, "every user may connect, as to a TCP port");
    assert_eq!(mode_of_socket("mode-2", "022", &["--listen-mode", "0660"]), 0o660);
    assert_eq!(mode_of_socket("mode-3", "0", &["--listen-mode", "600", "--listen-group", "0"]), 0o600);
}

/// Expects that a server with these arguments does not start, and that its message has these words.
#[track_caller]
fn assert_does_not_start(exit_code: i32, arguments: &[&str], words: &[&str]) {
    let (code, stdout, stderr) = run(command(BINARY, arguments));
    assert_eq!(code, Some(exit_code), "{arguments:?}: {stdout}{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: no {word:?} in {stderr:?}");
    }
}

#[test]
fn unix_sockets_that_cannot_be_created_have_a_remedy() {
    let (path, file) = (SocketPath::new("taken"), SocketPath::new("file"));
    let (unix, of_file) = (path.address(), file.address());
    std::fs::write(&file.0, "text").unwrap();
    let server = Server::start(&["--listen", &unix]);
    assert_does_not_start(1, &["--listen", &unix], &[&unix, "in use", "stop it"]);
    assert_does_not_start(1, &["--listen", &of_file], &[&of_file, "not a socket", "remove"]);
    assert_does_not_start(
        1,
        &["--listen", "unix:/nonexistent/socket"],
        &["/nonexistent does not exist", "create"],
    );
    let long = format!("unix:/{}", "x".repeat(108));
    assert_does_not_start(2, &["--listen", &long], &["more than 107 bytes"]);
    let group = ["--listen", &unix, "--listen-group", "no-such-group"];
    assert_does_not_start(2, &group, &["no-such-group", "listen-group"]);
    assert_does_not_start(2, &["--listen-mode", "0888"], &["listen-mode", "0888", "0660"]);
    Client::open(server.address(), Transport::Raw).ping();
    assert_eq!(std::fs::read_to_string(&file.0).unwrap(), "text");
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
