//! Workers that crash, hang, never answer, or violate the protocol: the server answers their requests, starts another
//! worker, and clients of others are not affected.

use super::support::{Conversation, Server, Transport};
use super::{
    Client, MS, ask, describe, eventually, execute, is_running, name, one_of_each_shard, pid, request,
    request_code, signal, start, tell, wait_for_end, wait_for_links, wait_for_log,
};
use serde_json::{Value, json};

const NOT_RUNNING: &str = "the application is not running";

/// Expects an answer that the application failed, with this reason.
#[track_caller]
fn failed(client: &mut Client, id: u64, reason: impl Into<Value>) {
    let answer = client.answer(id);
    assert_eq!((answer.code(), &answer.body["err_msg"]), (500, &reason.into()), "{}", answer.text);
}

/// Waits until the links of the worker have ended, and the log has its next start in `ms` for the `count`th time.
fn waits(server: &Server, ms: &str, count: usize) {
    wait_for_log(server, &format!("again_in={ms}"), count);
    server.eventually_is("worker_links", 0);
}

/// Waits until the next worker serves, and returns its process id.
fn replaced(server: &Server, client: &mut Client, before: u32) -> u32 {
    wait_for_links(server, 1);
    let now = pid(client);
    assert_ne!(now, before);
    wait_for_end(before);
    now
}

/// Returns the worker that `/workers` has. An answer may be a second old, so that it is asked for until it is as expected.
#[track_caller]
fn listed(server: &Server, is: impl Fn(&Value) -> bool) -> Value {
    eventually("the worker in /workers", || {
        let page = server.admin_request("GET", "/workers");
        let page: Value = serde_json::from_str(&page.body).unwrap();
        Some(page["workers"][0].clone()).filter(&is)
    })
}

#[test]
fn operators_see_a_crash_and_the_restart() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    let worker = listed(&server, |worker| worker["state"] == "serving");
    assert_eq!(
        (&worker["app"], &worker["instance"], &worker["pid"]),
        (&"raw".into(), &0.into(), &before.into())
    );
    assert_eq!((&worker["restarts"], &worker["crashes"]), (&0.into(), &0.into()));
    tell(&mut client, json!([["exit", {"code": 3}]]));
    let worker = listed(&server, |worker| worker["state"] == "waiting");
    assert_eq!((&worker["pid"], &worker["crashes"]), (&Value::Null, &1.into()));
    assert!(worker["restart_in_seconds"].as_f64().unwrap() > 0.0);
    server.advance(std::time::Duration::from_secs(1));
    let now = replaced(&server, &mut client, before);
    let worker = listed(&server, |worker| worker["state"] == "serving");
    assert_eq!(
        (&worker["pid"], &worker["restarts"], &worker["crashes"]),
        (&now.into(), &1.into(), &1.into())
    );
}

#[test]
fn a_crash_fails_only_the_pending_requests() {
    for (steps, status) in [
        (json!([["exit", {"code": 3}]]), "exit status: 3"),
        (json!([["exit", {}]]), "exit status: 0"),
        (json!([["kill", {"name": "KILL"}]]), "signal: 9"),
        (json!([["kill", {"name": "SEGV"}]]), "signal: 11"),
    ] {
        let server = start(json!({}), &[]);
        let [mut one, mut other] = one_of_each_shard(&server, Transport::WebSocket);
        for path in ["/raw/room", "/raw/ask/room", "/relay/room"] {
            one.subscribe(path);
        }
        execute(
            &mut one,
            json!([["print", {"to": "stderr", "text": "my last words"}], ["timer", {"number": 1, "ms": 50}]]),
        );
        let offered = request_code(&mut one, json!([["answer", {"callback": 1}]]), 200).callback;
        let held = [&mut one, &mut other].map(|client| ask(client, &json!([["hold", {"name": "event"}]])));
        let pending = one.ask("/qio/on", r#"["/raw/ask/pending", [["hold", {"name": "on"}]]]"#);
        let before = pid(&mut one);
        pid(&mut other);
        tell(&mut other, steps);

        failed(&mut one, held[0], "the application has ended");
        failed(&mut other, held[1], "the application has ended");
        failed(&mut one, pending, Value::Null);
        waits(&server, "100ms", 1);
        let log = wait_for_log(&server, "a worker crashed", 1);
        let line = log.lines().find(|line| line.contains("a worker crashed")).unwrap();
        for words in ["ERROR", "worker=\"raw#0\"", status, "my last words"] {
            assert!(line.contains(words), "no {words:?} in {line:?}");
        }
        let stats = server.stats();
        assert_eq!((stats.value("workers_crashed"), stats.value("workers_hung")), (1, 0));
        assert_eq!(stats.value("worker_requests_failed"), 4, "including the one that caused the crash");
        assert_eq!(stats.value("worker_requests"), 0);

        // Until the next worker starts.
        let id = one.ask("/raw", "1");
        failed(&mut one, id, NOT_RUNNING);
        one.request_code("/qio/on", r#""/raw/ask/another""#, 500);
        let id = one.ask(&format!("/qio/callback/{offered}"), "1");
        failed(&mut one, id, NOT_RUNNING);
        other.request_code("/relay/room", "1", 200);
        assert_eq!(one.event().path, "/relay/room");
        assert!(server.stats().value("worker_events_refused") >= 2);
        server.advance(MS(99));
        assert_eq!(server.stats().value("workers_started"), 1);
        server.advance(MS(1));
        assert_eq!(server.stats().value("workers_started"), 2);

        replaced(&server, &mut one, before);
        assert!(super::received(&mut one, "TIMER").is_empty(), "the timers of the crashed worker have ended");
        for path in ["/raw/room", "/raw/ask/room"] {
            execute(&mut other, json!([["broadcast", {"path": path}]]));
            assert_eq!(one.event().path, path, "subscriptions remain");
        }
        one.unsubscribe("/raw/ask/room");
        let me = name(&mut one);
        assert_eq!(super::received(&mut one, "OFF"), [json!(["/raw/ask/room", me])]);
    }
}

#[test]
fn other_instances_continue() {
    let server = start(json!({}), &["--app", &format!("{},instances=2", super::RAW)]);
    let instance = |client: &mut Client| describe(client)["hello"]["instance"].as_u64().unwrap() as usize;
    let mut clients = server.spread(16);
    let mut of_instance: [Vec<Client>; 2] = [Vec::new(), Vec::new()];
    clients.drain(..).for_each(|mut client| of_instance[instance(&mut client)].push(client));
    let [first, second] = &mut of_instance;
    assert!(!first.is_empty() && !second.is_empty());
    let held = ask(&mut second[0], &json!([["hold", {"name": "a"}]]));
    let before = pid(&mut first[0]);
    signal(before, "KILL");
    wait_for_log(&server, "again_in=100ms", 1);
    server.eventually_is("worker_links", 2);
    first.iter_mut().for_each(|client| _ = client.request_code("/raw", "1", 500));
    second.iter_mut().for_each(|client| _ = client.request_code("/raw", "1", 200));
    server.advance(MS(100));
    wait_for_links(&server, 2);
    assert_ne!(pid(&mut first[0]), before);
    assert_eq!(instance(&mut first[0]), 0);
    execute(&mut second[0], json!([["answer", {"held": "a"}]]));
    assert_eq!(second[0].answer(held).code(), 200);
}

#[test]
fn the_delay_before_a_restart_grows_until_a_worker_has_served() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let mut before = pid(&mut client);
    for (nth, wait) in [100, 200, 400, 800].into_iter().enumerate() {
        signal(before, "KILL");
        waits(&server, &format!("{wait}ms"), 1);
        let started = nth as u64 + 1;
        server.advance(MS(wait - 1));
        assert_eq!(server.stats().value("workers_started"), started);
        server.advance(MS(1));
        assert_eq!(server.stats().value("workers_started"), started + 1);
        before = replaced(&server, &mut client, before);
    }
    server.advance(MS(10_000));
    signal(before, "KILL");
    waits(&server, "100ms", 2);
    assert_eq!(server.stats().value("workers_crashed"), 5);
}

#[test]
fn a_worker_that_does_not_get_ready_is_started_again() {
    let folder = super::Folder::new();
    let file = folder.file("more.json");
    let server = start(json!({"file": file}), &["--worker-start-timeout", "10s"]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    let steps = [
        (
            json!([["control", {"text": "{\"failed\": \"no database\"}"}], ["exit", {"code": 1}]]),
            "no database",
        ),
        (json!([["exit", {"code": 4}]]), "exit status: 4"),
        (json!([["hang", {}]]), "worker-start-timeout"),
    ];
    signal(before, "KILL");
    for (wait, (steps, words)) in [100, 200, 400].into_iter().zip(steps) {
        std::fs::write(&file, json!({"start": steps.to_string()}).to_string()).unwrap();
        waits(&server, &format!("{wait}ms"), 1);
        server.advance(MS(wait));
        wait_for_log(&server, words, 1);
    }
    std::fs::remove_file(&file).unwrap();
    waits(&server, "800ms", 1);
    client.request_code("/raw", "1", 500);
    server.advance(MS(800));
    replaced(&server, &mut client, before);
    assert_eq!(server.stats().value("workers_crashed"), 4);
}

/// Waits until the server has received the answer to the first ping.
fn has_answered_its_ping(server: &Server, client: &mut Client) {
    eventually("a ping", || describe(client)["pings"].as_u64().filter(|pings| *pings > 0));
    execute(client, json!([["log", {"level": "info", "text": "it has answered a ping"}]]));
    server.log_with("it has answered a ping");
}

#[test]
fn a_hanging_worker_is_killed() {
    for hang in ["stopped process", "endless loop"] {
        let server = start(json!({}), &["--worker-timeout", "5s"]);
        let mut client = server.websocket();
        let mut other = server.client(Transport::Raw);
        let before = pid(&mut client);
        has_answered_its_ping(&server, &mut client);
        let held = if hang == "endless loop" {
            ask(&mut client, &json!([["hang", {}]]))
        } else {
            signal(before, "STOP");
            client.ask("/raw", "1")
        };
        server.eventually_is("worker_requests", 1);
        server.advance(MS(5000));
        assert_eq!(server.stats().value("workers_hung"), 0, "the ping was sent just now");
        server.advance(MS(4999));
        assert!(is_running(before));
        other.ping();
        server.advance(MS(1));
        failed(&mut client, held, "the application has ended");
        wait_for_end(before);
        waits(&server, "100ms", 1);
        let stats = server.stats();
        assert_eq!((stats.value("workers_hung"), stats.value("workers_crashed")), (1, 1));
        server.log_with("it hangs");
        server.advance(MS(100));
        replaced(&server, &mut client, before);
        other.ping();
    }
}

#[test]
fn a_worker_that_answers_its_pings_is_not_killed() {
    let server = start(json!({}), &["--worker-timeout", "5s"]);
    let mut client = server.websocket();
    has_answered_its_ping(&server, &mut client);
    for nth in 0..5 {
        server.advance(MS(5000));
        eventually("the next ping", || {
            describe(&mut client)["pings"].as_u64().filter(|pings| *pings >= nth + 2)
        });
        let text = format!("ping {nth}");
        execute(&mut client, json!([["log", {"level": "info", "text": text}]]));
        server.log_with(&text);
    }
    let stats = server.stats();
    assert_eq!((stats.value("workers_started"), stats.value("workers_crashed")), (1, 0));
}

#[test]
fn requests_without_an_answer_time_out() {
    let server = start(json!({}), &["--worker-request-timeout", "5s"]);
    let mut client = server.websocket();
    let first = ask(&mut client, &json!([["hold", {"name": "first"}]]));
    let pending = client.ask("/qio/on", r#"["/raw/ask/room", [["hold", {"name": "on"}]]]"#);
    tell(&mut client, json!([["hold", {"name": "silent"}]]));
    execute(&mut client, json!([]));
    server.advance(MS(3000));
    let second = ask(&mut client, &json!([["hold", {"name": "second"}]]));
    execute(&mut client, json!([]));
    server.advance(MS(1999));
    client.ping();
    assert!(client.answers().is_empty(), "before the timeout of 5 s");
    server.advance(MS(1));
    failed(&mut client, first, "the application did not answer in time");
    failed(&mut client, pending, Value::Null);
    assert_eq!(server.stats().value("worker_requests_timed_out"), 3);
    assert_eq!(server.stats().value("worker_requests"), 1);
    // Late answers are ignored. An answer before the timeout is sent.
    for held in ["first", "on", "silent"] {
        execute(&mut client, json!([["answer", {"held": held, "data": "late"}]]));
    }
    server.eventually_is("worker_answers_late", 3);
    execute(&mut client, json!([["answer", {"held": "second", "data": "in time"}]]));
    assert_eq!(client.answer(second).body["data"], "in time");
    execute(&mut client, json!([["broadcast", {"path": "/raw/ask/room"}]]));
    client.ping();
    assert!(client.events().is_empty() && client.answers().is_empty());
    // The same for further requests.
    server.advance(MS(60_000));
    let third = ask(&mut client, &json!([["hold", {"name": "third"}]]));
    execute(&mut client, json!([]));
    server.advance(MS(4999));
    client.ping();
    assert!(client.answers().is_empty());
    server.advance(MS(1));
    failed(&mut client, third, "the application did not answer in time");
    assert_eq!(server.stats().value("workers_crashed"), 0, "the worker is not killed");
}

/// Sends steps for which the worker must be killed. Expects `words` in the log, and that the next worker serves.
fn killed_for(server: &Server, client: &mut Client, steps: Value, words: &str) {
    let mut other = server.client(Transport::Raw);
    let (before, crashed) = (pid(client), server.stats().value("workers_crashed"));
    // A worker that has served for so long is restarted after the shortest delay.
    server.advance(MS(10_000));
    let held = ask(client, &json!([["hold", {"name": "a"}]]));
    execute(client, json!([]));
    let log_before = server.log_with("").len();
    tell(client, steps.clone());
    failed(client, held, "the application has ended");
    wait_for_end(before);
    waits(server, "100ms", crashed as usize + 1);
    let log = server.log_with("").split_off(log_before);
    assert!(
        log.lines().any(|line| line.contains("crashed") && line.contains(words)),
        "{steps}: no {words:?} in {log}"
    );
    assert_eq!(server.stats().value("workers_crashed"), crashed + 1);
    other.request_code("/relay/x", "1", 200);
    server.advance(MS(100));
    replaced(server, client, before);
}

#[test]
fn a_worker_that_sends_invalid_frames_is_killed() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let frame = |fields: Value| json!([["frame", fields]]);
    for (steps, words) in [
        (frame(json!({"kind": 1, "length": 35})), "length of a frame is 35"),
        (frame(json!({"kind": 1, "length": 0})), "length of a frame is 0"),
        (frame(json!({"kind": 2, "length": (16 << 20) + 1})), "length of a frame is 16777217"),
        (frame(json!({"kind": 2, "length": u32::MAX})), "length of a frame is 4294967295"),
        (frame(json!({"kind": 0})), "type 0"),
        (frame(json!({"kind": 9})), "type 9"),
        (frame(json!({"kind": 255})), "type 255"),
        (frame(json!({"kind": 2, "text": "/a", "raw": "1", "text_length": 4})), "text of a frame is longer"),
        (frame(json!({"kind": 1, "text_length": u32::MAX})), "text of a frame is longer"),
        (
            json!([["bytes", {"bytes": "a text of more than 40 bytes, which is no frame at all"}]]),
            "length of a frame is",
        ),
    ] {
        killed_for(&server, &mut client, steps, words);
    }
}

#[test]
fn frames_after_an_invalid_one_are_ignored() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    client.subscribe("/raw/room");
    let broadcast = |data: u32| json!(["broadcast", {"path": "/raw/room", "data": data}]);
    let steps = json!([broadcast(1), ["frame", {"kind": 77}], broadcast(2), ["answer", {}], broadcast(3)]);
    let id = ask(&mut client, &steps);
    failed(&mut client, id, "the application has ended");
    assert_eq!(client.event().data, "1");
    client.ping();
    assert!(client.events().is_empty());
}

#[test]
fn a_worker_that_sends_invalid_control_lines_is_killed() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let line = |text: &str| json!([["control", {"text": text}]]);
    for (steps, words) in [
        (line("no JSON"), "no JSON"),
        (line("[]"), "an invalid line"),
        (line(r#"{"pong": "x"}"#), "an invalid line"),
        (line(r#"{"log": "loud", "text": "x"}"#), "an invalid line"),
        (line(r#"{"log": "info", "text": 5}"#), "an invalid line"),
        (json!([["control", {"text": "0123456789", "times": 200_000}]]), "longer than 1048576 bytes"),
        (
            json!([["control", {"text": "0123456789", "times": 200_000, "end": ""}]]),
            "longer than 1048576 bytes",
        ),
        (line(r#"{"failed": "I give up"}"#), "I give up"),
    ] {
        killed_for(&server, &mut client, steps, words);
    }
}

#[test]
fn unknown_keys_are_ignored() {
    let more = json!({"more": [1, {"a": null}]});
    let events = json!([{"path": "/raw", "children": true, "more": more}]);
    let server = start(json!({"events": events}), &[]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    for line in [
        json!({"pong": 1, "more": more}),
        json!({"log": "info", "text": "a line with more", "more": more}),
        json!({"more": more, "pong": 4_000_000_000u64}),
        json!({"ready": {"version": 1, "events": [{"path": "/other"}]}}),
    ] {
        let steps =
            json!([["control", {"text": line.to_string()}], ["log", {"level": "info", "text": "behind it"}]]);
        execute(&mut client, steps);
    }
    wait_for_log(&server, "behind it", 4);
    wait_for_log(&server, "a line with more", 1);
    assert_eq!(pid(&mut client), before);
    client.request_code("/other", "1", 404);
}

#[test]
fn a_worker_that_closes_a_link_is_replaced() {
    for steps in [json!([["close_link", {}]]), json!([["close_link", {"only_write": true}]])] {
        let server = start(json!({}), &[]);
        let [mut client, mut other] = one_of_each_shard(&server, Transport::Raw);
        let before = pid(&mut client);
        let held = ask(&mut client, &json!([["hold", {"name": "a"}]]));
        execute(&mut client, json!([]));
        tell(&mut client, steps);
        failed(&mut client, held, "the application has ended");
        wait_for_end(before);
        waits(&server, "100ms", 1);
        server.advance(MS(100));
        replaced(&server, &mut client, before);
        request(&mut other, json!([["answer", {}]]));
    }
}

#[test]
fn a_worker_that_closes_its_control_socket_is_replaced() {
    let server = start(json!({}), &["--worker-timeout", "5s"]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    has_answered_its_ping(&server, &mut client);
    execute(&mut client, json!([["close_control", {}]]));
    server.advance(MS(5000));
    server.advance(MS(5000));
    wait_for_end(before);
    waits(&server, "100ms", 1);
    server.advance(MS(100));
    replaced(&server, &mut client, before);
}
