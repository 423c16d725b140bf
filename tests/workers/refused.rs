//! Errors of an application: its invalid frames are dropped, counted and wait_for_log, and its worker continues.

use super::support::{Conversation, Server};
use super::{Client, MS, ask, execute, one_of_each_shard, pid, received, request_code, start, wait_for_log};
use serde_json::{Value, json};

const NOT_UTF8: &str = "\u{ff}\u{fe}";

/// Waits until `count` frames have been refused, and the first of them was logged.
fn refused(server: &Server, count: u64) {
    server.eventually_is("worker_frames_refused", count);
    wait_for_log(server, "ignored an invalid command", 1);
}

#[test]
fn invalid_answers_become_500() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    let table = [
        json!({"raw": "{no JSON"}),
        json!({"raw": "1 2"}),
        json!({"raw": " "}),
        json!({"raw": "[1,]"}),
        json!({"raw": format!("\"{NOT_UTF8}\"")}),
        json!({"raw": "nonsense", "code": 404, "message": "no"}),
        json!({"raw_message": NOT_UTF8, "code": 404}),
        json!({"raw": "nonsense", "callback": 5}),
    ];
    for (given, nth) in table.iter().zip(1..) {
        let answer = request_code(&mut client, json!([["answer", given]]), 500);
        assert_eq!((answer.callback, &answer.body["data"]), (0, &Value::Null), "{given}");
        refused(&server, nth);
    }
    // For an event without a callback, no answer is sent.
    client.tell("/raw", r#"[["answer", {"raw": "{no JSON"}]]"#);
    execute(&mut client, json!([]));
    // Each reason is a kind of its own.
    for reason in ["its data is not JSON", "its data is not UTF-8", "its text is not UTF-8"] {
        wait_for_log(&server, reason, 1);
    }
    let log = server.log_with("");
    let line = log.lines().find(|line| line.contains("ignored an invalid command")).unwrap();
    assert!(line.contains("WARN") && line.contains("worker=\"raw#0\""), "{line}");
    assert_eq!(pid(&mut client), before);
}

#[test]
fn invalid_commands_are_dropped() {
    let server = start(json!({}), &[]);
    let [mut client, mut other] = one_of_each_shard(&server, super::Transport::WebSocket);
    client.subscribe("/raw/room");
    let before = pid(&mut client);
    let stranger = super::name(&mut other);
    let long = "/a".repeat(1000);
    let table = [
        json!(["broadcast", {"path": ""}]),
        json!(["broadcast", {"path": "///"}]),
        json!(["broadcast", {"path": long}]),
        json!(["broadcast", {"path": NOT_UTF8}]),
        json!(["broadcast", {"path": "/raw/room", "raw": "{no JSON"}]),
        json!(["broadcast", {"path": "/raw/room", "raw": NOT_UTF8}]),
        json!(["send", {"path": ""}]),
        json!(["send", {"path": long, "callback": 1}]),
        json!(["send", {"path": NOT_UTF8}]),
        json!(["send", {"path": "/a", "raw": "no JSON", "callback": 2}]),
        json!(["send", {"path": "/a", "client": stranger, "callback": 3}]),
        json!(["move", {"address": NOT_UTF8}]),
    ];
    for (step, nth) in table.iter().zip(1..) {
        execute(&mut client, json!([step]));
        refused(&server, nth);
    }
    client.ping();
    other.ping();
    assert!(client.events().is_empty() && other.events().is_empty());
    let dropped: Vec<Value> =
        received(&mut client, "DROPPED").iter().map(|received| received[0].clone()).collect();
    assert_eq!(dropped, [1, 2, 3], "callbacks that could not be offered");
    assert_eq!(pid(&mut client), before);
    assert_eq!(server.stats().value("workers_crashed"), 0);
}

/// Invalid frames of one kind are logged once in a few seconds, and all are counted.
#[test]
fn a_flood_of_invalid_frames_does_not_flood_the_log() {
    const FRAMES: usize = 500;
    let mut server = start(json!({}), &[]);
    let mut client = server.websocket();
    execute(&mut client, json!(vec![json!(["broadcast", {"path": ""}]); FRAMES]));
    server.eventually_is("worker_frames_refused", FRAMES as u64);
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    let log = server.log_with("");
    let logged = log.matches("ignored an invalid command").count();
    let counts = log.lines().filter(|line| line.contains("more lines of this kind were not logged"));
    let counts =
        counts.filter_map(|line| line.split(" lines=").nth(1)?.split(' ').next()?.parse::<usize>().ok());
    // On a slow machine the flood may last longer than the few seconds.
    assert!((1..FRAMES / 10).contains(&logged), "{logged} lines");
    assert_eq!(logged + counts.sum::<usize>(), FRAMES, "{log}");
}

#[test]
fn answers_without_a_pending_request_are_dropped() {
    let server = start(json!({}), &[]);
    let [mut client, mut other] = one_of_each_shard(&server, super::Transport::WebSocket);
    let before = pid(&mut client);
    // A second answer, and answers with numbers that the request might have had.
    let id =
        ask(&mut client, &json!([["answer", {"data": 1}], ["answer", {"data": 2}], ["answer", {"code": 0}]]));
    assert_eq!(client.answer(id).body["data"], json!(1));
    execute(&mut client, json!([]));
    server.eventually_is("worker_answers_late", 2);
    for number in [0, 1, 2, 0xffff_ffffu32, 0x0010_0000, 0xfff0_0000] {
        execute(
            &mut client,
            json!([["hold", {"name": "x"}], ["answer", {"request": number, "data": "wrong"}]]),
        );
    }
    server.eventually("late answers", |stats| stats.value("worker_answers_late") >= 7);
    // The request of another link is not one of this link.
    let held = ask(&mut other, &json!([["hold", {"name": "other"}]]));
    execute(
        &mut other,
        json!([["answer", {"held": "other", "keep": true, "link": 0, "data": "wrong link"}]]),
    );
    execute(&mut other, json!([["answer", {"held": "other", "data": "right"}]]));
    assert_eq!(other.answer(held).body["data"], "right");
    // A subscription is decided only once.
    let twice = json!(["/raw/ask/x", [["answer", {"code": 401}], ["answer", {}]]]);
    client.request_code("/qio/on", &twice.to_string(), 404);
    execute(&mut client, json!([["broadcast", {"path": "/raw/ask/x"}]]));
    client.ping();
    assert!(client.events().is_empty() && client.answers().is_empty());
    let stats = server.stats();
    assert_eq!((stats.value("worker_frames_refused"), stats.value("workers_crashed")), (0, 0));
    assert_eq!(pid(&mut client), before);
}

#[test]
fn the_number_of_timers_of_a_link_is_limited() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let timers = |client: &mut Client, first: u32, count: u32| {
        execute(client, json!([["timers", {"first": first, "count": count, "ms": 3_600_000}]]));
    };
    timers(&mut client, 1, 65_536);
    timers(&mut client, 1, 10);
    assert_eq!(server.stats().value("worker_frames_refused"), 0, "ten are set again");
    execute(&mut client, json!([["timer", {"number": 100_000, "ms": 10}]]));
    server.eventually_is("worker_frames_refused", 1);
    execute(&mut client, json!([["cancel", {"number": 7}], ["timer", {"number": 100_001, "ms": 10}]]));
    server.advance(MS(10));
    let received: Vec<Value> =
        received(&mut client, "TIMER").iter().map(|received| received[0].clone()).collect();
    assert_eq!(received, [100_001]);
    assert_eq!(server.stats().value("worker_frames_refused"), 1);
}

#[test]
fn unknown_clients_and_extreme_times_are_harmless() {
    let server = start(json!({}), &[]);
    let [mut client, mut other] = one_of_each_shard(&server, super::Transport::Raw);
    let before = pid(&mut client);
    for shard in [0u32, 1, 2, 127, 65_535, 65_536, u32::MAX] {
        for (slot, generation) in [(0, 0), (0, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
            let nobody = json!([shard, slot, generation]);
            execute(
                &mut client,
                json!([
                    ["send", {"path": "/a", "client": nobody}],
                    ["send", {"path": "/a", "client": nobody, "callback": 1}],
                    ["close", {"client": nobody}],
                    ["move", {"client": nobody, "address": "x"}],
                    ["watch", {"client": nobody}],
                ]),
            );
        }
    }
    for ms in [0, 1, u64::from(u32::MAX), u64::MAX / 1_000_000, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        for repeat in [false, true] {
            execute(&mut client, json!([["timer", {"number": 7, "ms": ms, "repeat": repeat}]]));
            server.advance(MS(1));
        }
    }
    client.ping();
    other.ping();
    assert_eq!(pid(&mut client), before);
    server.assert_serves();
}

/// The server and the worker survive frames of random content.
#[test]
fn random_frames_are_harmless() {
    for seed in 0..8 {
        let server = start(json!({}), &[]);
        let mut clients = one_of_each_shard(&server, super::Transport::Raw);
        let before = pid(&mut clients[0]);
        clients.iter_mut().for_each(|client| client.subscribe("/raw/fuzzed"));
        super::tell(&mut clients[0], json!([["fuzz", {"seed": seed, "count": 2000}]]));
        for client in &mut clients {
            // Once from each link.
            (0..2).for_each(|_| while client.event().path != "/raw/fuzzed" {});
        }
        server.advance(MS(1000));
        for client in &mut clients {
            assert_eq!(pid(client), before, "seed {seed}");
        }
        server.assert_serves();
        let stats = server.stats();
        assert_eq!(stats.value("workers_crashed"), 0, "seed {seed}");
        assert!(stats.value("worker_frames_refused") > 100 && stats.value("worker_answers_late") > 10);
    }
}
