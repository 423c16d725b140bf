//! Starts that fail: each message has the remedy. And the limits that a start needs.

use crate::support::server::{BINARY, command, run};
use crate::support::{Client, Conversation, Server, Transport};
use std::net::TcpListener;
use std::process::Command;

/// Expects that a server with these arguments does not start, and that its message has these words.
#[track_caller]
fn assert_fails(server: Command, exit_code: i32, words: &[&str]) {
    let name = format!("{server:?}");
    let (code, stdout, stderr) = run(server);
    assert_eq!(code, Some(exit_code), "{name}: {stdout}{stderr}");
    assert!(!stdout.contains("ready") && !stderr.contains("panicked"), "{name}: {stdout}{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{name}: no {word:?} in {stderr:?}");
    }
}

/// Runs a shell command before the server with these arguments, such as `ulimit`.
fn after(shell: &str, arguments: &[&str]) -> Command {
    let mut command_in_shell = Command::new("sh");
    command_in_shell.args(["-c", &format!("{shell}; exec \"$@\""), "sh", BINARY]);
    command_in_shell.args(command(BINARY, arguments).get_args());
    command_in_shell
}

#[test]
fn an_admin_address_that_is_in_use() {
    let in_use = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = in_use.local_addr().unwrap().to_string();
    assert_fails(command(BINARY, &["--admin", &address]), 1, &[&address, "setting admin", "another port"]);
    assert_fails(command(BINARY, &["--admin", "192.0.2.1:80"]), 1, &["192.0.2.1:80", "No network interface"]);
    assert_fails(
        command(BINARY, &["--listen", "192.0.2.1:80"]),
        1,
        &["192.0.2.1:80", "No network interface"],
    );
}

#[test]
fn addresses_that_cannot_be_meant() {
    for (arguments, words) in [
        (
            &["--listen", "127.0.0.1:8099", "--admin", "127.0.0.1:8099"][..],
            &["listen", "admin", "another port"][..],
        ),
        (&["--listen", "0.0.0.0:8099", "--admin", "127.0.0.1:8099"], &["0.0.0.0:8099", "127.0.0.1:8099"]),
        (&["--listen", "0.0.0.0:8099,127.0.0.1:8099"], &["0.0.0.0:8099", "127.0.0.1:8099"]),
        (&["--listen", "127.0.0.1:99999"], &["the port 99999 is too large", "65535"]),
        (&["--admin", "localhost:99999"], &["admin", "the port 99999 is too large"]),
        (&["--listen", "no-such-host.invalid:80"], &["no-such-host.invalid", "cannot be looked up"]),
    ] {
        assert_fails(command(BINARY, arguments), 2, words);
    }
    let mut tests = Command::new(BINARY);
    tests.args(["clienttest", "--listen", "127.0.0.1:8099", "--admin", "off", "--proxy", "127.0.0.1:8099"]);
    assert_fails(tests, 2, &["--proxy", "listen", "another port"]);
}

#[test]
fn localhost_is_every_address_of_this_name() {
    let server = Server::start(&["--listen", "localhost:0", "--admin", "localhost:0"]);
    assert!(
        server.addresses().iter().any(|address| address.starts_with("127.0.0.1:")),
        "{:?}",
        server.addresses()
    );
    for address in server.addresses() {
        Client::open(address, Transport::WebSocket).ping();
    }
    assert_eq!(server.stats().shards().count(), 2);
}

#[test]
fn too_few_descriptors() {
    let eight = ["--shards", "8"];
    assert_fails(
        after("ulimit -n 30", &eight),
        1,
        &["open files is 30", "8 shards need at least", "ulimit -n"],
    );
}

#[test]
fn the_descriptors_that_a_server_asks_for_suffice() {
    // The message of the server names the number. With this number, the server starts.
    for arguments in [&["--shards", "1"][..], &["--shards", "8"], &["--shards", "4", "--admin", "off"]] {
        let (_, _, stderr) = run(after("ulimit -n 10", arguments));
        let (_, number) = stderr.split_once("need at least ").expect("the message names the number");
        let number = number.split(',').next().unwrap();
        Server::launch(after(&format!("ulimit -n {number}"), arguments)).assert_serves();
    }
}

/// Returns a command that runs the server as an ordinary user with this limit on locked memory in KiB, or `None` if this
/// process may not do that.
fn as_ordinary_user(locked_kib: u64, arguments: &[&str]) -> Option<Command> {
    let setpriv = ["--reuid=65533", "--regid=65533", "--clear-groups", "--bounding-set=-all"];
    if !Command::new("setpriv")
        .args(setpriv)
        .arg(BINARY)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success())
    {
        eprintln!("**** SKIPPED: an ordinary user cannot run the server here ****");
        return None;
    }
    let mut user = Command::new("setpriv");
    user.args(setpriv).args(["sh", "-c", &format!("ulimit -l {locked_kib}; exec \"$@\""), "sh", BINARY]);
    user.args(command(BINARY, arguments).get_args());
    Some(user)
}

#[test]
fn too_little_locked_memory() {
    let Some(server) = as_ordinary_user(1024, &["--shards", "16"]) else { return };
    let words = ["ulimit -l", "1024 KiB", "16 shards need up to 10368 KiB", "fewer shards"];
    assert_fails(server, 1, &words);
    let server = as_ordinary_user(256, &["--shards", "1"]).unwrap();
    assert_fails(server, 1, &["locked memory is 262144 bytes", "LimitMEMLOCK"]);
    // The limit that the message asks for suffices.
    let server = as_ordinary_user(4 * 648, &["--shards", "4"]).unwrap();
    Server::launch(server).assert_serves();
}
