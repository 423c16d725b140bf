//! The shutdown: workers receive everything before their links end, finish, and are killed if they do not.

use super::support::server::{BINARY, command};
use super::support::{Client, Conversation, Server, Transport};
use super::{
    Folder, MS, RAW, ask, eventually, execute, is_running, one_of_each_shard, pid, request_code, signal,
    start, tell, wait_for_end, wait_for_log,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// Starts a server whose temporary files are in `folder`.
fn start_in(folder: &Folder, settings: Value, arguments: &[&str]) -> Server {
    let temporary = folder.file("temporary");
    fs::create_dir(&temporary).unwrap();
    let file = folder.settings(&settings);
    let all = [&["--config", &file, "--worker-timeout", "24h", "--clock", "manual"], arguments].concat();
    let mut command = command(BINARY, &all);
    command.env("TMPDIR", &temporary);
    Server::launch(command)
}

fn is_empty(folder: &Folder) -> bool {
    fs::read_dir(folder.file("temporary")).unwrap().next().is_none()
}

/// Returns the process ids of the clients' workers.
fn pids(clients: &mut [Client]) -> BTreeSet<u32> {
    clients.iter_mut().map(pid).collect()
}

#[test]
fn workers_finish_in_order() {
    for signal in ["TERM", "INT"] {
        let folder = Folder::new();
        let settings = json!({"echo_told": "on", "at_end": [
            ["print", {"text": "it finishes"}], ["sleep", {"ms": 50}],
            ["print", {"text": "never ended", "end": ""}]]});
        let mut server = start_in(&folder, settings, &["--app", RAW]);
        let mut clients = one_of_each_shard(&server, Transport::WebSocket);
        let worker = pid(&mut clients[0]);
        for client in &mut clients {
            client.subscribe("/raw/ask/room");
            execute(client, json!([["watch", {}]]));
            request_code(client, json!([["answer", {"callback": 5}]]), 200);
            ask(client, &json!([["hold", {"name": "a"}]]));
            execute(client, json!([]));
        }
        server.signal(signal);
        drop(clients);
        assert_eq!(server.exit().code(), Some(0));
        assert!(!is_running(worker), "the server waits for its end");
        assert!(is_empty(&folder));
        let log = server.log_with("it finishes");
        let last = |words: &str| log.rfind(words).unwrap_or_else(|| panic!("no {words} in {log}"));
        for words in [r#"["OFF","/raw/ask/room""#, r#"["GONE""#, r#"["DROPPED",5"#] {
            assert_eq!(log.matches(words).count(), 2, "{words}: {log}");
            assert!(last(words) < last(r#"["END",0]"#).max(last(r#"["END",1]"#)), "{log}");
        }
        assert!(last(r#"["END""#) < last("it finishes") && log.contains("never ended"), "{log}");
        assert!(!log.contains("did not end"), "{log}");
    }
}

/// The end of a link comes after all its frames.
#[test]
fn a_link_ends_after_its_frames() {
    let folder = Folder::new();
    let settings = json!({"echo_told": "on"});
    let mut server = start_in(&folder, settings, &["--app", RAW, "--shards", "1"]);
    let mut clients: Vec<Client> = (0..20).map(|_| server.websocket()).collect();
    clients.iter_mut().for_each(|client| client.subscribe("/raw/ask/room"));
    server.signal("TERM");
    drop(clients);
    assert_eq!(server.exit().code(), Some(0));
    let log = server.log_with("END");
    assert_eq!(log.matches(r#"["OFF""#).count(), 20);
    assert!(log.rfind(r#"["OFF""#) < log.rfind(r#"["END",0]"#), "{log}");
}

#[test]
fn a_worker_that_does_not_finish_is_killed_with_its_children() {
    let mut server = start(json!({}), &["--worker-stop-timeout", "300ms"]);
    let mut client = server.websocket();
    let worker = pid(&mut client);
    let child = request_code(&mut client, json!([["child", {}]]), 200).body["data"].as_u64().unwrap() as u32;
    execute(&mut client, json!([["ignore_stop", {}]]));
    assert!(is_running(worker) && is_running(child));
    server.signal("TERM");
    drop(client);
    assert_eq!(server.exit().code(), Some(0));
    wait_for_end(worker);
    wait_for_end(child);
    server.log_with("worker-stop-timeout");
}

#[test]
fn a_stopped_worker_is_killed() {
    let mut server =
        start(json!({}), &["--worker-stop-timeout", "300ms", "--app", &format!("{RAW},instances=2")]);
    let mut clients = server.spread(8);
    let workers = pids(&mut clients);
    workers.iter().for_each(|pid| signal(*pid, "STOP"));
    server.signal("TERM");
    drop(clients);
    assert_eq!(server.exit().code(), Some(0));
    workers.into_iter().for_each(wait_for_end);
}

#[test]
fn children_do_not_outlive_a_worker() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    for (nth, steps) in (1..).zip([
        json!([["exit", {}]]),
        json!([["kill", {"name": "KILL"}]]),
        json!([["frame", {"kind": 0}]]),
    ]) {
        let child =
            request_code(&mut client, json!([["child", {}]]), 200).body["data"].as_u64().unwrap() as u32;
        tell(&mut client, steps);
        wait_for_end(child);
        wait_for_log(&server, "again_in", nth);
        server.eventually_is("worker_links", 0);
        server.advance(MS(10_000));
        super::wait_for_links(&server, 1);
    }
}

#[test]
fn workers_end_if_the_server_is_killed() {
    let server = start(json!({}), &["--app", &format!("{RAW},instances=3")]);
    let mut clients = server.spread(30);
    let workers = pids(&mut clients);
    assert_eq!(workers.len(), 3);
    server.signal("KILL");
    workers.into_iter().for_each(wait_for_end);
}

#[test]
fn a_second_signal_kills_workers_at_once() {
    let mut server = start(json!({}), &["--shutdown-timeout", "1h", "--close-timeout", "1h"]);
    let mut client = server.websocket();
    let worker = pid(&mut client);
    execute(&mut client, json!([["ignore_stop", {}]]));
    server.signal("TERM");
    // The server waits for the close frame of this client, which never comes.
    client.ended();
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(130));
    wait_for_end(worker);
}

#[test]
fn the_server_stops_in_every_state_of_its_workers() {
    // A worker whose restart is delayed.
    let mut server = start(json!({}), &[]);
    signal(pid(&mut server.websocket()), "KILL");
    wait_for_log(&server, "again_in", 1);
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    // A worker that is starting to replace another.
    let folder = Folder::new();
    let file = folder.file("more.json");
    let mut server = start(json!({"file": file}), &[]);
    let before = pid(&mut server.websocket());
    let start_steps = json!([["print_pid", {}], ["hang", {}]]);
    fs::write(&file, json!({"start": start_steps.to_string()}).to_string()).unwrap();
    server.signal("HUP");
    let log = wait_for_log(&server, ": process ", 1);
    let starting: u32 = log.split(": process ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    [before, starting].into_iter().for_each(wait_for_end);
    // A worker that has been replaced, but waits for an open callback.
    let mut server = start(json!({}), &[]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    request_code(&mut client, json!([["answer", {"callback": 1}]]), 200);
    server.signal("HUP");
    let now = eventually("a new worker", || Some(pid(&mut client)).filter(|now| *now != before));
    server.signal("TERM");
    drop(client);
    assert_eq!(server.exit().code(), Some(0));
    [before, now].into_iter().for_each(wait_for_end);
    // A reload and a stop at once.
    let mut server = start(json!({}), &[]);
    server.signal("HUP");
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
}
