//! The messages to a service manager, as systemd receives them with `Type=notify` and `WatchdogSec=`.

use crate::support::server::{BINARY, command};
use crate::support::{DEADLINE, Server};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

/// A service manager. Dropping it removes its socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let path = std::env::temp_dir().join(format!("quickio-{}-{name}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Manager { socket, path }
    }

    /// Returns a server that reports to this manager.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut server = command(BINARY, arguments);
        server.env("NOTIFY_SOCKET", &self.path);
        server
    }

    /// Returns the next message that has this line. Those before it are dropped.
    #[track_caller]
    fn until(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let len = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {line}: {error}"));
            let message = String::from_utf8(buffer[..len].to_vec()).unwrap();
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn a_service_manager_follows_the_server() {
    let manager = Manager::new("notify");
    let mut server = Server::launch(manager.command(&[]));
    manager.until("STATUS=starting");
    let ready = manager.until("READY=1");
    assert!(ready.contains(&format!("STATUS=listening on {}", server.address())), "{ready}");
    server.signal("HUP");
    let reloading = manager.until("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.until("READY=1");
    server.signal("TERM");
    manager.until("STOPPING=1");
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_service_manager_is_told_why_a_start_failed() {
    let manager = Manager::new("failed");
    let (code, _, _) = crate::support::server::run(manager.command(&["--app", "no-such-app"]));
    assert_eq!(code, Some(2));
    let mut buffer = [0; 4096];
    manager.until("STATUS=starting");
    let len = manager.socket.recv(&mut buffer).unwrap();
    let message = std::str::from_utf8(&buffer[..len]).unwrap();
    assert!(message.starts_with("STATUS=") && message.contains("no-such-app"), "{message}");
}

#[test]
fn a_watchdog_hears_from_a_server_that_works() {
    for admin in ["127.0.0.1:0", "off"] {
        let manager = Manager::new("watchdog");
        let mut command = manager.command(&["--admin", admin]);
        command.env("WATCHDOG_USEC", "50000");
        let server = Server::launch(command);
        manager.until("WATCHDOG=1");
        manager.until("WATCHDOG=1");
        server.assert_serves();
    }
    // The period is for another process.
    let manager = Manager::new("watchdog-other");
    let mut command = manager.command(&[]);
    command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let mut server = Server::launch(command);
    server.signal("TERM");
    server.exit();
    manager.until("READY=1");
    assert!(manager.until("STOPPING=1").starts_with("STOPPING"), "no message of a watchdog came before");
}

#[test]
fn workers_do_not_speak_for_the_server() {
    let manager = Manager::new("workers");
    let script = std::env::temp_dir().join(format!("quickio_environment_{}.py", std::process::id()));
    let names = "[name for name in os.environ if name.startswith(('NOTIFY', 'WATCHDOG', 'QUICKIO'))]";
    std::fs::write(
        &script,
        format!("import os, sys\nprint('names:', {names}, file=sys.stderr, flush=True)\n"),
    )
    .unwrap();
    let mut command = manager.command(&["--app", script.to_str().unwrap()]);
    command.env("WATCHDOG_USEC", "60000000");
    let server = Server::launch(command);
    let log = server.log_with("names:");
    let line = log.lines().find(|line| line.contains("names:")).unwrap();
    assert!(line.contains("QUICKIO_WORKER"), "{line}");
    assert!(!line.contains("NOTIFY") && !line.contains("WATCHDOG"), "{line}");
    drop(server);
    std::fs::remove_file(script).unwrap();
}
