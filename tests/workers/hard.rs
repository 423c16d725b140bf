//! Unusual environments and workers that keep a supervisor busy.

use super::support::server::{BINARY, command};
use super::support::{self, Conversation, DEADLINE, Server, Transport};
use super::{
    Folder, MS, RAW, execute, is_running, pid, request_code, signal, start, tell, wait_for_end,
    wait_for_links, wait_for_log,
};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The parent of the server may have set SIGCHLD to be ignored. The kernel then does not keep the status of children.
#[test]
fn children_are_waited_for_also_if_sigchld_is_ignored() {
    let plain = command(BINARY, &["--app", RAW, "--clock", "manual", "--worker-timeout", "24h"]);
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' CHLD; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    for (name, _) in plain.get_envs() {
        ignoring.env_remove(name);
    }
    let mut server = Server::launch(ignoring);
    let mut client = server.websocket();
    let before = pid(&mut client);
    signal(before, "KILL");
    wait_for_log(&server, "a worker crashed", 1);
    server.advance(MS(100));
    wait_for_links(&server, 1);
    assert_ne!(pid(&mut client), before);
    server.signal("TERM");
    drop(client);
    assert_eq!(server.exit().code(), Some(0));
}

/// A worker that sends `failed` repeatedly does not extend its time to end.
#[test]
fn a_worker_that_reports_failure_repeatedly_ends_soon() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    let failed = json!({"failed": "once more"}).to_string();
    let mut steps = vec![];
    for _ in 0..200 {
        steps.push(json!(["control", {"text": failed}]));
        steps.push(json!(["sleep", {"ms": 100}]));
    }
    tell(&mut client, json!(steps));
    wait_for_end(before);
    wait_for_log(&server, "why=\"once more\"", 1);
}

/// Signals while an application is loading: SIGHUP has nothing to reload, and SIGTERM stops the server at once.
#[test]
fn signals_while_a_worker_starts() {
    let folder = Folder::new();
    let file = folder.settings(&json!({"start": [["print_pid", {}], ["sleep", {"ms": 400}]]}));
    let temporary = folder.file("temporary");
    std::fs::create_dir(&temporary).unwrap();
    for name in ["HUP", "TERM"] {
        let mut command = command(BINARY, &["--app", RAW, "--config", &file]);
        command.env("TMPDIR", &temporary).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let worker = log.find_map(|line| {
            let (_, rest) = line.split_once("process ")?;
            rest.split(' ').next()?.parse::<u32>().ok()
        });
        let worker = worker.expect("the worker prints its process id");
        signal(child.id(), name);
        if name == "HUP" {
            let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            assert!(output.any(|line| line == "ready"), "the server continues");
            signal(child.id(), "TERM");
            assert_eq!(child.wait().unwrap().code(), Some(0));
        } else {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        wait_for_end(worker);
        assert!(std::fs::read_dir(&temporary).unwrap().next().is_none(), "the temporary files are removed");
    }
}

/// A client with many subscriptions disconnects. The worker, which receives the end of each, must not be killed for the
/// size of its outbox.
#[test]
fn the_end_of_a_client_waits_for_its_worker() {
    let small = ["--message-bytes-max", "4096", "--worker-outbox-bytes-max", "8192"];
    let small = [&small[..], &["--clients-subs-max", "20000"]].concat();
    let server = start(json!({}), &small);
    let mut client = server.client(Transport::Raw);
    let worker = pid(&mut client);
    // More than the kernel buffers for a worker that does not read.
    const ROOMS: u64 = 20_000;
    for nth in 0..ROOMS {
        client.tell("/qio/on", &format!("\"/raw/r{nth}\""));
    }
    client.ping();
    server.eventually_is("subscriptions", ROOMS);
    let events_before = server.stats().value("worker_events");
    signal(worker, "STOP");
    client.reset();
    // The outbox of the stopped worker is full.
    server.eventually("a full outbox", |stats| stats.value("worker_outbox_bytes") >= 8192);
    assert!(server.stats().value("subscriptions") > 0, "the other subscriptions have not ended yet");
    signal(worker, "CONT");
    server.eventually_is("subscriptions", 0);
    server.eventually_is("clients", 0);
    let mut other = server.client(Transport::Raw);
    assert_eq!(pid(&mut other), worker, "the worker was not replaced");
    assert_eq!(
        server.stats().value("worker_events"),
        events_before + ROOMS + 1,
        "the end of each subscription, and one request"
    );
}

/// The worker answers pings, but does not read its link.
#[test]
fn a_worker_that_does_not_read_for_long_is_killed() {
    let server = start(json!({}), &["--worker-timeout", "30s"]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    execute(&mut client, json!([["stop_reading", {}]]));
    let data = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..10 {
        client.tell("/raw", &data);
    }
    client.ping();
    let deadline = Instant::now() + DEADLINE;
    while is_running(before) {
        assert!(Instant::now() < deadline, "the worker is not killed");
        server.advance(MS(10_000));
    }
    wait_for_log(&server, "it has read nothing for 30s", 1);
}

/// A child process of the worker has inherited its links. They end with the worker nevertheless.
#[test]
fn links_end_with_their_worker_also_if_a_child_holds_them() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let worker = pid(&mut client);
    let child =
        request_code(&mut client, json!([["child", {"session": true}]]), 200).body["data"].as_u64().unwrap();
    signal(worker, "KILL");
    wait_for_log(&server, "a worker crashed", 1);
    server.eventually("without its links", |stats| {
        server.advance(MS(500));
        stats.value("worker_links") <= 2 && stats.value("workers_started") == 2
    });
    wait_for_links(&server, 1);
    assert_ne!(pid(&mut client), worker);
    signal(child as u32, "KILL");
}

/// The workers of one application are not affected by those of another.
#[test]
fn applications_are_independent() {
    let folder = Folder::new();
    let file = folder.settings(&json!({}));
    let (first, second) = (folder.worker("first"), folder.worker("second"));
    let second_text = std::fs::read_to_string(&second).unwrap();
    std::fs::write(&second, second_text.replace("\"/raw", "\"/second")).unwrap();
    let arguments =
        ["--config", &file, "--worker-timeout", "24h", "--app", &first, "--app", &second, "--reload"];
    let server = Server::start_with_clock(&arguments);
    let mut client = server.websocket();
    let second_pid = |client: &mut support::Client| {
        let answer = client.request_code("/second", &json!([["who", {}]]).to_string(), 200);
        answer.body["data"]["pid"].as_u64().unwrap()
    };
    let (one, other) = (pid(&mut client), second_pid(&mut client));
    signal(one, "KILL");
    wait_for_log(&server, "a worker crashed", 1);
    for _ in 0..10 {
        server.advance(MS(500));
    }
    wait_for_links(&server, 2);
    let next = pid(&mut client);
    assert_ne!(next, one);
    assert_eq!(second_pid(&mut client), other);
    // The same if a worker is replaced because its file has changed.
    let text = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, text + "\n# changed\n").unwrap();
    super::eventually("the first worker replaced", || (pid(&mut client) != next).then_some(()));
    for _ in 0..10 {
        server.advance(MS(500));
    }
    assert_eq!(second_pid(&mut client), other);
    assert_eq!(server.stats().value("workers_crashed"), 1);
}
