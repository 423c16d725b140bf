//! The operator's page and its pages of clients and paths, and the password of the admin endpoint.

use crate::support::server::{BINARY, run};
use crate::support::{Client, Conversation, DEADLINE, Server, Transport, http};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const PASSWORD: &str = "correct horse battery";

/// The header with the password. `printf 'operator:correct horse battery' | base64`.
const RIGHT: &str = "Authorization: Basic b3BlcmF0b3I6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5\r\n";

fn page(server: &Server, target: &str) -> Value {
    let response = server.admin_request("GET", target);
    assert_eq!(response.head.status, 200, "{target}: {}", response.body);
    serde_json::from_str(&response.body).unwrap()
}

/// Asks for a page until it fulfils a condition, and returns what the condition returns. Answers about all clients and
/// paths may be a second old.
#[track_caller]
fn eventually<T>(server: &Server, target: &str, is: impl Fn(&Value) -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let page = page(server, target);
        if let Some(found) = is(&page) {
            return found;
        }
        assert!(Instant::now() < deadline, "{target} stays {page:#}");
        thread::sleep(Duration::from_millis(20)); // leaves the core to the server
    }
}

/// A file with a password, which is removed when it is dropped.
struct PasswordFile(PathBuf);

impl PasswordFile {
    fn new(name: &str, content: &str, mode: u32) -> PasswordFile {
        let path = std::env::temp_dir().join(format!("quickio-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        PasswordFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn the_busiest_paths_count_broadcasts_and_subscribers_of_all_shards() {
    let server = Server::start(&[]);
    let mut clients = server.spread(6);
    for client in &mut clients {
        client.subscribe("/relay/busy");
    }
    clients[0].subscribe("/relay/idle");
    let deadline = Instant::now() + DEADLINE;
    let busy = loop {
        // Broadcasts count from the first question on.
        clients[0].request_code("/relay/busy", "1", 200);
        let page = page(&server, "/paths/busiest?count=1");
        if let Some(busy) = page["paths"].get(0) {
            break busy.clone();
        }
        assert!(Instant::now() < deadline, "no path is busy");
    };
    assert_eq!(busy["path"], "/relay/busy");
    assert_eq!(busy["subscribers"], 6);
    assert!(busy["broadcasts_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_slow_client_is_listed_and_has_details_until_it_disconnects() {
    let server = Server::start(&["--outbox-bytes-max", "64Mi"]);
    let mut publisher = server.websocket();
    let mut slow = Client::connect_from(LOOPBACK, server.address(), Transport::Raw);
    slow.shake_hands();
    slow.subscribe("/relay/flood");
    let filler = format!("\"{}\"", "x".repeat(60 << 10));
    let client = loop {
        publisher.request_code("/relay/flood", &filler, 200);
        let page = page(&server, "/clients?slowest=1");
        if let Some(client) =
            page["clients"].get(0).filter(|client| client["outbox_bytes"].as_u64() > Some(100_000))
        {
            break client.clone();
        }
    };
    assert_eq!(client["address"], slow.address);
    assert_eq!(
        (&client["transport"], &client["tls"], &client["user"]),
        (&"raw".into(), &false.into(), &Value::Null)
    );
    let target = format!("/clients/{}", client["id"].as_str().unwrap());
    let details = page(&server, &target);
    assert_eq!((&details["id"], &details["subscriptions"]), (&client["id"], &1.into()));
    assert_eq!(details["paths"], serde_json::json!(["/relay/flood"]));
    assert_eq!(details["outbox_bytes_max"], 64 << 20);
    drop(slow);
    let deadline = Instant::now() + DEADLINE;
    while server.admin_request("GET", &target).head.status != 404 {
        assert!(Instant::now() < deadline, "a client that has disconnected has details");
    }
    eventually(&server, "/clients", |page| (page["clients"] == serde_json::json!([])).then_some(()));
}

#[test]
fn a_password_is_needed_for_all_pages_but_the_health() {
    let file = PasswordFile::new("password", &format!("{PASSWORD}\n"), 0o600);
    let server = Server::start(&["--admin-password-file", file.path()]);
    let status = |target: &str, more: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
        http::exchange(server.admin(), request).head.status
    };
    for target in ["/", "/stats", "/metrics", "/histograms", "/clients", "/paths/busiest", "/workers"] {
        assert_eq!((status(target, ""), status(target, RIGHT)), (401, 200), "{target}");
    }
    assert_eq!(status("/healthz", ""), 200);
    assert_eq!(status("/stats", "Authorization: Basic b3BlcmF0b3I6d3Jvbmc=\r\n"), 401);
    server.log_with("its password is wrong");
}

#[test]
fn passwords_that_cannot_be_used_are_errors() {
    let short = PasswordFile::new("short-password", "short\n", 0o600);
    let long = PasswordFile::new("long-password", &"x".repeat(200), 0o600);
    let good = PasswordFile::new("good-password", PASSWORD, 0o644);
    let check = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["check", "--listen", "127.0.0.1:0", "--app", "relay"]).args(arguments);
        let (code, stdout, _) = run(command);
        (code, stdout)
    };
    let here = ["--admin", "127.0.0.1:0"];
    for (path, part) in [
        ("/nonexistent/password", "cannot read /nonexistent/password (admin-password-file)"),
        (short.path(), "has 5 bytes"),
        (long.path(), "has more than 128 bytes"),
    ] {
        let (code, stdout) = check(&[&here[..], &["--admin-password-file", path]].concat());
        assert_eq!(code, Some(2), "{stdout}");
        assert!(stdout.contains("FAILED admin-password-file") && stdout.contains(part), "{stdout}");
    }
    let (code, stdout) = check(&["--admin", "0.0.0.0:0", "--admin-password-file", good.path()]);
    assert_eq!(code, Some(0), "{stdout}");
    for part in ["ok admin-password-file", "chmod o= ", "is sent unencrypted"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let (_, stdout) = check(&["--admin", "0.0.0.0:0"]);
    assert!(stdout.contains("everybody who can reach admin 0.0.0.0:0"), "{stdout}");
    let (_, stdout) = check(&here);
    assert!(!stdout.contains("WARNING"), "{stdout}");
}
