//! Standard output and standard error that are full, closed or not read: no panic, no process that never ends, and nothing
//! that is lost without being counted.

use crate::support::server::{BINARY, command};
use crate::support::{Client, Conversation, DEADLINE, Server, Transport};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const LOAD_BINARY: &str = env!("CARGO_BIN_EXE_quickio-load");

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stderr(Stdio::piped()).output().expect("the program starts")
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns a pipe that has no reader.
fn closed_pipe() -> Stdio {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    drop(ours);
    OwnedFd::from(theirs).into()
}

#[test]
fn a_text_that_cannot_be_written_is_an_error() {
    let commands: &[(&str, &[&str])] = &[
        (BINARY, &["--help"]),
        (BINARY, &["--version"]),
        (BINARY, &["--generate-config"]),
        (BINARY, &["--generate-docs"]),
        (BINARY, &["clienttest", "--help"]),
        (BINARY, &["test-app", "--help"]),
        (LOAD_BINARY, &["--help"]),
        (LOAD_BINARY, &["sizes"]),
    ];
    for (program, arguments) in commands {
        let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("/dev/full"));
        for stdout in [full(), closed_pipe()] {
            let ended = output(Command::new(program).args(*arguments).stdout(stdout));
            let error = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
            assert!(error.contains("cannot write to standard output"), "{arguments:?}: {error}");
        }
        // The error cannot be written either.
        let mut command = Command::new(program);
        let command = command.args(*arguments).stdin(Stdio::null()).stdout(full()).stderr(full());
        assert_eq!(wait(&mut command.spawn().unwrap()).code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn an_error_that_cannot_be_written_keeps_its_exit_code() {
    for (program, code) in [(BINARY, 2), (LOAD_BINARY, 2)] {
        let mut command = Command::new(program);
        let command =
            command.arg("--nonsense").stdin(Stdio::null()).stdout(Stdio::null()).stderr(closed_pipe());
        assert_eq!(wait(&mut command.spawn().unwrap()).code(), Some(code), "{program}");
    }
}

#[test]
fn errors_at_start_are_json_if_the_log_is() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let json = ["--log-format", "json"];
    let cases: &[(&[&str], Option<&str>, i32)] = &[
        (&["--log-format", "json", "--shards", "none"], None, 2),
        (&["--shards", "none", "--log-format=json"], None, 2),
        (&["--no-such-flag"], Some("json"), 2),
        (&[json[0], json[1], "--listen", &taken], None, 1),
        (&[json[0], json[1], "--app", "no-such-application"], None, 2),
        (&["--listen", &taken], Some("json"), 1),
    ];
    for (arguments, variable, code) in cases {
        let mut command = command(BINARY, arguments);
        command.envs(variable.map(|format| ("QUICKIO_LOG_FORMAT", format)));
        let ended = output(&mut command);
        let text = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(*code), "{arguments:?}: {text}");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{arguments:?}: {line}")))
            .collect();
        let last = lines.last().unwrap_or_else(|| panic!("{arguments:?}: no line"));
        assert_eq!((&last["level"], &last["target"]), (&"ERROR".into(), &"quickio".into()), "{text}");
        assert!(last["timestamp"].is_string() && last["message"].is_string(), "{text}");
    }
    // The environment is not asked if the flag says something else.
    let mut command = command(BINARY, &["--log-format", "text", "--shards", "none"]);
    let ended = output(command.env("QUICKIO_LOG_FORMAT", "json"));
    assert!(String::from_utf8(ended.stderr).unwrap().starts_with("quickio: "));
}

/// Makes lines of the level debug: connections that are reset.
fn make_lines(address: &str, lines: usize) {
    for _ in 0..lines {
        Client::connect(address, Transport::Raw).reset();
    }
}

/// Standard output and standard error are one pipe, which nobody reads after the server is ready.
#[test]
fn a_pipe_that_nobody_reads_does_not_keep_the_server_from_ending() {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let theirs = OwnedFd::from(theirs);
    let mut command = command(BINARY, &["--log-level", "debug", "--shutdown-timeout", "2s"]);
    command.stdin(Stdio::null()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().expect("the server starts");
    // The command has the other end, too, until it is dropped.
    drop(command);
    let mut lines = BufReader::new(ours.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut address = String::new();
    let mut admin = String::new();
    for line in lines.by_ref().take_while(|line| line != "ready") {
        if let Some(listening) = line.strip_prefix("listening on ") {
            address = listening.into();
        } else if let Some(listening) = line.strip_prefix("admin on ") {
            admin = listening.into();
        }
    }
    let dropped = || {
        let request = "GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let response = crate::support::http::exchange(&admin, request);
        let stats: Value = serde_json::from_str(&response.body).unwrap_or_default();
        stats["server"]["log_lines_dropped"].as_u64().unwrap_or(0)
    };
    let deadline = Instant::now() + DEADLINE;
    while dropped() == 0 {
        assert!(Instant::now() < deadline, "the queue of the log never fills");
        make_lines(&address, 1000);
    }
    let mut client = Client::open(&address, Transport::WebSocket);
    client.ping();
    let kill = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(kill.success());
    assert_eq!(wait(&mut child).code(), Some(0));
    drop(ours);
}

#[test]
fn a_log_that_has_reached_the_limit_on_files_goes_on_when_it_can() {
    let file = std::env::temp_dir().join(format!("quickio-test-log-{}", std::process::id()));
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 16; exec \"$@\" 2>>\"$0\""]).arg(&file).arg(BINARY);
    shell.args(command(BINARY, &["--log-level", "debug", "--log-format", "json"]).get_args());
    let mut server = Server::launch(shell);
    let failed = |server: &Server| server.stats().0["server"]["log_lines_failed"].as_u64().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while failed(&server) < 10 {
        assert!(Instant::now() < deadline, "the limit is never reached");
        make_lines(server.address(), 100);
    }
    server.assert_serves();
    // Somebody makes room.
    OpenOptions::new().write(true).open(&file).unwrap().set_len(0).unwrap();
    let lost = "log lines were lost because standard error could not be written";
    while !fs::read_to_string(&file).unwrap().contains(lost) {
        assert!(Instant::now() < deadline, "the log never goes on");
        make_lines(server.address(), 10);
    }
    server.signal("TERM");
    assert!(server.exit().success());
    let text = fs::read_to_string(&file).unwrap();
    let mut reported = 0;
    for line in text.lines() {
        // The first line may be the rest of one that was torn.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        if line["message"] == lost {
            reported += line["lines"].as_u64().unwrap();
            assert!(line["error"].as_str().unwrap().contains("File too large"), "{line}");
        }
    }
    assert!(reported >= 10, "{reported} lines: {text}");
    let _ = fs::remove_file(file);
}
