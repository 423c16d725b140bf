//! Errors that prevent a server with workers from starting, and their messages; and `quickio test-app`.

use super::support::server::{self, BINARY, command};
use super::{Folder, RAW, is_running, wait_for_end};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Expects that the server does not start, with this exit code and these words in its log, and that it removes its
/// temporary files. Returns the log.
#[track_caller]
fn refused(arguments: &[&str], settings: Value, code: i32, words: &[&str]) -> String {
    let folder = Folder::new();
    let file = folder.settings(&settings);
    let temporary = folder.file("temporary");
    fs::create_dir(&temporary).unwrap();
    let mut command = command(BINARY, &[&["--config", &file], arguments].concat());
    command.env("TMPDIR", &temporary);
    let (exit, stdout, stderr) = server::run(command);
    assert_eq!(exit, Some(code), "{stderr}");
    assert!(!stdout.contains("ready"), "{stdout}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: no {word:?} in {stderr}");
    }
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().map(|left| left.unwrap().file_name()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    stderr
}

/// As [`refused`], with a worker that executes the steps `start`.
#[track_caller]
fn refused_for(start: Value, words: &[&str]) {
    refused(&["--app", RAW, "--worker-start-timeout", "20s"], json!({"start": start}), 1, words);
}

fn line(text: impl ToString) -> Value {
    json!(["control", {"text": text.to_string()}])
}

/// Returns steps that send this `ready`, and nothing more.
fn ready(ready: Value) -> Value {
    json!([line(json!({"ready": ready})), ["hang", {}]])
}

#[test]
fn a_worker_that_does_not_get_ready_stops_the_server() {
    let failed = json!({"failed": "no \"database\""});
    refused_for(json!([line(&failed), ["exit", {"code": 1}]]), &["raw", RAW, "no \"database\""]);
    refused_for(json!([line(&failed), ["hang", {}]]), &["no \"database\""]);
    let traceback = json!(["print", {"to": "stderr", "text": "SyntaxError: line 7"}]);
    refused_for(json!([traceback, ["exit", {"code": 5}]]), &["exit status: 5", "SyntaxError: line 7"]);
    refused_for(json!([["print", {"text": "on stdout"}], ["exit", {}]]), &["exit status: 0", "on stdout"]);
    refused_for(json!([["kill", {"name": "SEGV"}]]), &["signal: 11"]);
    let timeout = ["--app", RAW, "--worker-start-timeout", "200ms"];
    refused(&timeout, json!({"start": [["hang", {}]]}), 1, &["it was not ready within worker-start-timeout"]);
}

/// A traceback can be long. At least its beginning must be logged.
#[test]
fn a_long_message_arrives() {
    let message = format!("no database{}", "x".repeat(500_000));
    let folder = Folder::new();
    let file = folder.file("more.json");
    let start = json!([line(json!({"failed": message})), ["exit", {"code": 1}]]);
    fs::write(&file, json!({"start": start.to_string()}).to_string()).unwrap();
    refused(&["--app", RAW], json!({"file": file}), 1, &["no database"]);
}

#[test]
fn invalid_control_lines_are_refused() {
    refused_for(json!([line("hello"), ["hang", {}]]), &["an invalid line", "hello"]);
    refused_for(json!([line("{\"ready\": {}}"), ["hang", {}]]), &["an invalid line", "version"]);
    let long = json!([["control", {"text": "0123456789", "times": 200_000, "end": ""}], ["hang", {}]]);
    refused_for(long, &["longer than 1048576 bytes"]);
    refused_for(
        ready(json!({"version": 2})),
        &["it uses version 2 of the worker protocol, and this server uses version 1"],
    );
    let strange = json!({"version": 1, "events": [{"path": "/a", "subscriptions": "some"}]});
    refused_for(ready(strange), &["an invalid line", "some"]);
    let many: Vec<Value> = (0..4097).map(|nth| json!({"path": format!("/{nth}")})).collect();
    let folder = Folder::new();
    let file = folder.file("more.json");
    fs::write(&file, json!({"events": json!(many).to_string()}).to_string()).unwrap();
    refused(&["--app", RAW], json!({"file": file}), 1, &["more than 4096 events"]);
}

/// The exit code is 1, as for applications in other languages.
#[test]
fn paths_must_be_valid_and_free() {
    let events = |paths: &[&str]| -> Value {
        let events: Vec<Value> = paths.iter().map(|path| json!({"path": path})).collect();
        json!({"events": events})
    };
    for (paths, words) in [
        (&["/a", "/b", "/(a)/"][..], "it registers /a twice"),
        (&["/qio"], "/qio is the server's own namespace"),
        (&["/qio/mine"], "/qio is the server's own namespace"),
        (&["/relay"], "the path /relay is already registered by relay"),
        (&[""], "the path is empty"),
        (&["mine"], "it must begin with a slash"),
        (&[&"/a".repeat(1000)], "cannot be registered"),
    ] {
        refused(&["--app", RAW], events(paths), 1, &[words, "raw"]);
    }
}

#[test]
fn programs_must_exist() {
    let folder = Folder::new();
    let file = |name: &str, text: &str, mode: u32| {
        let file = folder.file(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    };
    let python = file("x.py", "", 0o644);
    refused(
        &["--app", &python, "--python", "/nonexistent"],
        json!({}),
        2,
        &["/nonexistent", "the setting python", "No such file"],
    );
    let node = file("x.mjs", "", 0o644);
    refused(
        &["--app", &node, "--node", "/nonexistent"],
        json!({}),
        2,
        &["/nonexistent", "the setting node", "No such file"],
    );
    let program = file("stray", "#!/nonexistent/perl\n", 0o755);
    refused(&["--app", &program], json!({}), 2, &[&program, "No such file"]);
    refused(
        &["--app", &file("plain", "#!/bin/sh\n", 0o644)],
        json!({}),
        2,
        &["plain", "not a shared object"],
    );
    for missing in ["none.py", "none.mjs", "none.js", "none.cjs", "./none"] {
        let missing = folder.file(missing);
        refused(&["--app", &missing], json!({}), 2, &[&missing, "No such file"]);
    }
    refused(&["--app", "none", "--app-dir", &folder.file("")], json!({}), 2, &["no application \"none\""]);
}

#[test]
fn names_and_instances_must_be_valid() {
    let folder = Folder::new();
    for name in ["a b", "a.b.c", "b\u{e9}"] {
        refused(
            &["--app", &folder.worker(name)],
            json!({}),
            2,
            &["is not a valid application name", &name[..3]],
        );
    }
    refused(&["--app", &folder.worker("relay")], json!({}), 2, &["two applications have the name relay"]);
    refused(&["--app", &folder.worker("qio")], json!({}), 2, &["two applications have the name qio"]);
    refused(
        &["--app", RAW, "--app", &folder.worker("raw")],
        json!({}),
        2,
        &["two applications have the name raw"],
    );
    refused(&["--app", "clienttest,instances=2"], json!({}), 2, &["clienttest has no workers"]);
    for instances in ["0", "x", "-1", ""] {
        refused(&["--app", &format!("{RAW},instances={instances}")], json!({}), 2, &["instances"]);
    }
    refused(&["--app", &format!("{RAW},instances=257")], json!({}), 2, &["instances must be 1 to 256"]);
}

/// Returns the process ids that workers have printed.
fn printed_pids(log: &str) -> Vec<u32> {
    let after = log.split("process: process ").skip(1).map(|rest| rest.split(' ').next().expect("a word"));
    after.map(|pid| pid.parse().expect("a number")).collect()
}

#[test]
fn all_instances_end_if_one_fails() {
    let bad = json!([["sleep", {"ms": 100}], line(json!({"failed": "of three"})), ["exit", {"code": 1}]]);
    let start = json!([["print_pid", {}], ["of_instance", {"instance": 1, "then": bad}]]);
    let log = refused(&["--app", &format!("{RAW},instances=3")], json!({"start": start}), 1, &["of three"]);
    let pids = printed_pids(&log);
    assert!(!pids.is_empty() && pids.len() <= 3, "{log}");
    assert!(pids.iter().all(|pid| !is_running(*pid)), "the workers end before the server");
    // Workers end also if something else fails after they have been started.
    let start = json!({"start": [["print_pid", {}]]});
    for arguments in [&["--app", RAW, "--app", "./none.py"][..], &["--app", RAW, "--listen", "192.0.2.1:1"]] {
        let code = if arguments.contains(&"--listen") { 1 } else { 2 };
        let log = refused(arguments, start.clone(), code, &[]);
        let pids = printed_pids(&log);
        assert_eq!(pids.len(), 1, "{log}");
        wait_for_end(pids[0]);
    }
}

/// Settings reach a worker up to the length of a line of the control socket.
#[test]
fn long_settings_arrive() {
    let long = "0123456789".repeat(50_000);
    let server = super::start(json!({"long": long}), &[]);
    let mut client = server.websocket();
    let fits = json!([["answer", {}]]);
    super::request_code(&mut client, fits, 200);
}

/// Runs `quickio test-app` and returns its exit code, its report and its log.
fn test(apps: &[&str], settings: Value) -> (Option<i32>, String, String) {
    let folder = Folder::new();
    let mut command = Command::new(BINARY);
    command.args(["test-app", "--config", &folder.settings(&settings)]).args(apps);
    server::run(command)
}

#[test]
fn self_tests_are_run_and_reported() {
    let passes = format!("ok {RAW}\nok relay\n2 passed, 0 failed");
    let (code, report, log) = test(&[RAW, "relay"], json!({"start": [["print_pid", {}]]}));
    assert_eq!((code, report), (Some(0), passes));
    printed_pids(&log).into_iter().for_each(wait_for_end);
    for (settings, reason) in [
        (json!({"test": [line(json!({"failed": "no template"})), ["exit", {"code": 1}]]}), "no template"),
        (json!({"test": [line(json!({"tested": false}))]}), "self-test failed"),
        (json!({"test": [["exit", {}]]}), "it ended before its self-test did"),
        (
            json!({"test": [["print", {"to": "stderr", "text": "AssertionError"}], ["exit", {"code": 1}]]}),
            "AssertionError",
        ),
        (json!({"start": [line(json!({"failed": "no database"})), ["exit", {"code": 1}]]}), "no database"),
        (json!({"start": [["exit", {"code": 9}]]}), "exit status: 9"),
        (json!({"start": [line("[]"), ["hang", {}]]}), "an invalid line"),
    ] {
        let (code, report, _) = test(&["relay", RAW], settings.clone());
        assert_eq!(code, Some(1), "{settings}");
        let lines: Vec<&str> = report.lines().collect();
        assert_eq!((lines[0], lines[2]), ("ok relay", "1 passed, 1 failed"), "{report}");
        assert!(
            lines[1].starts_with(&format!("FAILED {RAW}: ")) && lines[1].contains(reason),
            "{reason}: {report}"
        );
    }
    // The hello says that this is a test, and has no links.
    let (_, _, log) =
        test(&[&format!("{RAW},instances=4")], json!({"test": [["print_hello", {}], ["exit", {}]]}));
    assert!(
        log.contains(r#""instances":1"#) && log.contains(r#""links":[]"#) && log.contains(r#""test":true"#),
        "{log}"
    );
    let (code, report, _) = test(&["./none.py"], json!({}));
    assert!(code == Some(1) && report.starts_with("FAILED ./none.py: "), "{report}");
}

#[test]
fn a_self_test_that_does_not_end_fails() {
    let (code, report, log) =
        test(&["--worker-start-timeout", "3s", RAW], json!({"test": [["print_pid", {}], ["hang", {}]]}));
    assert!(code == Some(1) && report.starts_with(&format!("FAILED {RAW}: its self-test")), "{report}");
    printed_pids(&log).into_iter().for_each(wait_for_end);
}

/// The message of a script that does not load has the error and its place.
#[test]
fn errors_in_scripts_are_reported() {
    let folder = Folder::new();
    let file = |name: &str, text: &str| {
        let file = folder.file(name);
        fs::write(&file, text).unwrap();
        file
    };
    for (name, text, words) in [
        ("syntax.py", "from quickio import app\n\ndef broken(:\n", &["SyntaxError", "line 3"][..]),
        ("syntax.mjs", "import { app } from 'quickio'\n\nfunction broken( {\n", &["SyntaxError"]),
        ("missing.py", "import no_such_module\n", &["ModuleNotFoundError", "no_such_module"]),
        ("missing.mjs", "import 'no-such-module'\n", &["no-such-module"]),
        ("leaves.py", "raise SystemExit(3)\n", &["the script called exit(3)"]),
        ("leaves.cjs", "process.exit(3)\n", &["the script called exit(3)"]),
        ("own.py", "from quickio import app\napp.event('/qio/mine')\n", &["/qio/mine", "own"]),
        ("own.mjs", "import { app } from 'quickio'\napp.event('/qio/mine')\n", &["/qio/mine", "own"]),
        ("twice.py", "from quickio import app\napp.event('/a')\napp.event('/a/')\n", &["/a", "already"]),
        (
            "twice.js",
            "const { app } = require('quickio')\napp.event('/a')\napp.event('/a/')\n",
            &["/a", "already"],
        ),
    ] {
        refused(&["--app", &file(name, text)], json!({}), 1, words);
    }
}
