//! `quickio check`: reports what would keep a server from starting, with the exit code that the server would have.

use crate::support::Server;
use crate::support::server::{BINARY, run};
use std::process::Command;

fn check(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("check").args(arguments);
    for name in ["QUICKIO_CONFIG", "QUICKIO_APP", "QUICKIO_LISTEN"] {
        command.env_remove(name);
    }
    command
}

/// Expects the exit code of a check, and lines that contain these words.
#[track_caller]
fn assert_checked(arguments: &[&str], exit_code: i32, expected: &[&[&str]]) {
    let (code, stdout, stderr) = run(check(arguments));
    assert_eq!(code, Some(exit_code), "{arguments:?}: {stdout}\n{stderr}");
    assert!(!stdout.contains("ready"), "{stdout}");
    for words in expected {
        let found = stdout.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "{arguments:?}: no line has {words:?}: {stdout}");
    }
}

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "off"];

#[test]
fn settings_that_a_server_can_run_with() {
    let server = Server::start(&[]);
    // The addresses of a running server are not an error: its settings are checked before a reload.
    let arguments = ["--listen", server.address(), "--admin", server.admin(), "--app", "relay"];
    let address = format!("listen {}", server.address());
    assert_checked(
        &arguments,
        0,
        &[&["ok settings"], &["ok kernel", "Linux"], &["ok", &address], &["ok application relay"]],
    );
    server.assert_serves();
    assert_checked(&FREE, 0, &[&["WARNING", "no application runs"]]);
}

#[test]
fn failures_have_the_exit_code_of_the_server() {
    let with = |more: &[&'static str]| [&FREE[..], more].concat();
    let file = std::env::temp_dir().join(format!("quickio-{}-check.py", std::process::id()));
    std::fs::write(&file, "raise Exception('it must not run')").unwrap();
    let file = file.to_str().unwrap();
    assert_checked(&[&FREE[..], &["--app", file]].concat(), 0, &[&["ok application", file]]);
    let missing = [&FREE[..], &["--app", file, "--python", "/nonexistent/python"]].concat();
    assert_checked(&missing, 2, &[&["FAILED", file, "/nonexistent/python", "setting python"]]);
    std::fs::remove_file(file).unwrap();

    assert_checked(
        &with(&["--app", "no-such-app"]),
        2,
        &[&["FAILED application no-such-app", "available: relay"]],
    );
    assert_checked(&with(&["--app", "/nonexistent.py"]), 2, &[&["FAILED", "/nonexistent.py"]]);
    assert_checked(&with(&["--app", "/etc/hosts"]), 2, &[&["FAILED", "not a shared object"]]);
    assert_checked(
        &["--listen", "unix:/nonexistent/socket"],
        1,
        &[&["FAILED listen", "/nonexistent does not exist"]],
    );
    assert_checked(
        &["--listen", "192.0.2.1:80", "--admin", "off"],
        1,
        &[&["FAILED listen 192.0.2.1:80", "No network interface"]],
    );
    assert_checked(
        &["--listen", "unix:/tmp/x", "--listen-group", "no-such-group"],
        2,
        &[&["FAILED", "no-such-group"]],
    );
    // The server's own application has this name.
    let own = std::env::temp_dir().join(format!("quickio-{}-check", std::process::id()));
    std::fs::create_dir(&own).unwrap();
    let script = own.join("qio.py");
    std::fs::write(&script, "").unwrap();
    let arguments = [&FREE[..], &["--app", script.to_str().unwrap()]].concat();
    assert_checked(&arguments, 2, &[&["FAILED application", "two applications have the name qio"]]);
    std::fs::remove_dir_all(own).unwrap();

    // All failures are reported at once.
    let two = ["--listen", "unix:/nonexistent/socket", "--admin", "192.0.2.1:80", "--app", "no-such-app"];
    assert_checked(&two, 2, &[&["FAILED listen"], &["FAILED admin"], &["FAILED application"]]);

    let (code, stdout, stderr) = run(check(&["--timeout", "soon"]));
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("timeout cannot be `soon`"), "{stderr}");
}

#[test]
fn a_check_leaves_no_socket() {
    let folder = std::env::temp_dir().join(format!("quickio-{}-check-folder", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let address = format!("unix:{}/socket", folder.display());
    assert_checked(&["--listen", &address, "--admin", "off"], 0, &[&["ok listen", &address]]);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    std::fs::remove_dir(&folder).unwrap();
}
