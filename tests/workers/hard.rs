//! What a review found: surroundings and workers that wear a supervisor out.

use super::support::server::{BINARY, command};
use super::support::{self, Conversation, DEADLINE, Server, Transport};
use super::{
    Folder, MS, RAW, ends, is_served_by, logged, order, pid, request_code, runs, signal, start, tell,
};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Who starts the server may have SIGCHLD ignored, and then the kernel keeps nothing of children that end.
#[test]
fn children_can_be_waited_for_where_sigchld_is_ignored() {
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
    logged(&server, "a worker crashed", 1);
    server.advance(MS(100));
    is_served_by(&server, 1);
    assert_ne!(pid(&mut client), before);
    server.signal("TERM");
    drop(client);
    assert_eq!(server.exit().code(), Some(0));
}

/// One that says again and again that it failed is not given time again and again.
#[test]
fn who_says_that_it_failed_ends_soon() {
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
    ends(before);
    logged(&server, "why=\"once more\"", 1);
}

/// A signal that comes while an application is loading: to reload there is nothing yet, and to stop is done at once.
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
        let worker = worker.expect("it prints its number");
        signal(child.id(), name);
        if name == "HUP" {
            let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            assert!(output.any(|line| line == "ready"), "it goes on");
            signal(child.id(), "TERM");
            assert_eq!(child.wait().unwrap().code(), Some(0));
        } else {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        ends(worker);
        assert!(std::fs::read_dir(&temporary).unwrap().next().is_none(), "nothing is left behind");
    }
}

/// A client that had many subscriptions goes: its worker, which has to be told of each, has done nothing wrong.
#[test]
fn the_end_of_a_client_is_put_off_while_its_worker_does_not_keep_up() {
    let small = ["--message-bytes-max", "4096", "--worker-outbox-bytes-max", "8192"];
    let server = start(json!({}), &small);
    let mut client = server.client(Transport::Raw);
    let worker = pid(&mut client);
    // More than the kernel takes for a worker that does not read.
    const ROOMS: u64 = 20_000;
    for nth in 0..ROOMS {
        client.tell("/qio/on", &format!("\"/raw/r{nth}\""));
    }
    client.ping();
    server.eventually_is("subscriptions", ROOMS);
    let told = server.stats().value("worker_events");
    signal(worker, "STOP");
    client.reset();
    // It cannot be told of more than fits, and of nothing at all while it stands still.
    server.eventually("some wait to be told", |stats| stats.value("worker_outbox_bytes") >= 8192);
    assert!(server.stats().value("subscriptions") > 0, "the others are not ended yet");
    signal(worker, "CONT");
    server.eventually_is("subscriptions", 0);
    server.eventually_is("clients", 0);
    let mut other = server.client(Transport::Raw);
    assert_eq!(pid(&mut other), worker, "it goes on");
    assert_eq!(server.stats().value("worker_events"), told + ROOMS + 1, "it was told of all, and asked once");
}

/// A worker that answers pings, and reads nothing of what it is sent.
#[test]
fn one_that_does_not_read_for_long_is_killed() {
    let server = start(json!({}), &["--worker-timeout", "30s"]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    order(&mut client, json!([["stop_reading", {}]]));
    let data = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..10 {
        client.tell("/raw", &data);
    }
    client.ping();
    let deadline = Instant::now() + DEADLINE;
    while runs(before) {
        assert!(Instant::now() < deadline, "it lives on");
        server.advance(MS(10_000));
    }
    logged(&server, "it has not read for 30s", 1);
}

/// A process that a worker has started holds its links: they end with the worker all the same.
#[test]
fn links_end_with_their_worker_whoever_holds_them() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let worker = pid(&mut client);
    let child =
        request_code(&mut client, json!([["child", {"session": true}]]), 200).body["data"].as_u64().unwrap();
    signal(worker, "KILL");
    logged(&server, "a worker crashed", 1);
    server.eventually("its links end", |stats| {
        server.advance(MS(500));
        stats.value("worker_links") <= 2 && stats.value("workers_started") == 2
    });
    is_served_by(&server, 1);
    assert_ne!(pid(&mut client), worker);
    signal(child as u32, "KILL");
}

/// What happens to the workers of one application is nothing to those of another.
#[test]
fn applications_do_not_fall_with_each_other() {
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
    logged(&server, "a worker crashed", 1);
    for _ in 0..10 {
        server.advance(MS(500));
    }
    is_served_by(&server, 2);
    let next = pid(&mut client);
    assert_ne!(next, one);
    assert_eq!(second_pid(&mut client), other);
    // The same where one is replaced because its file has changed.
    let text = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, text + "\n# changed\n").unwrap();
    super::eventually("the first is replaced", || (pid(&mut client) != next).then_some(()));
    for _ in 0..10 {
        server.advance(MS(500));
    }
    assert_eq!(second_pid(&mut client), other);
    assert_eq!(server.stats().value("workers_crashed"), 1);
}
