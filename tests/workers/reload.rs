//! Workers are replaced on SIGHUP and when a file changes. No request is lost, and the old workers continue if the new ones
//! fail.

use super::support::{Client, Conversation, Server, Transport};
use super::{
    Folder, MS, RAW, ask, describe, eventually, execute, one_of_each_shard, pid, received, request_code,
    signal, start, wait_for_end, wait_for_links, wait_for_log,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn with_instances(count: usize) -> String {
    format!("{RAW},instances={count}")
}

/// Waits until `started` workers have been started in total, and the ones in `before` have ended.
fn wait_for_replacement(server: &Server, started: u64, before: &BTreeSet<u32>) {
    server.eventually_is("workers_started", started);
    before.iter().for_each(|pid| wait_for_end(*pid));
}

#[test]
fn nothing_is_lost_under_load() {
    let server = start(json!({}), &["--app", &with_instances(2), "--worker-requests-max", "1000"]);
    let is_over = AtomicBool::new(false);
    let pids = |client: &mut Client| {
        let ids: Vec<u64> = (0..10).map(|_| ask(client, &json!([["pid", {}]]))).collect();
        let mut pids = BTreeSet::new();
        for id in ids {
            let answer = client.answer(id);
            assert_eq!(answer.code(), 200, "{}", answer.text);
            pids.insert(answer.body["data"].as_u64().unwrap() as u32);
        }
        pids
    };
    let mut clients: Vec<Client> =
        (0..4).flat_map(|_| Transport::SOCKETS).map(|transport| server.client(transport)).collect();
    let mut seen: BTreeSet<u32> = clients.iter_mut().flat_map(pids).collect();
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let is_over = &is_over;
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        pids(&mut client);
                    }
                    let last = pids(&mut client);
                    client.ping();
                    assert_eq!(client.answers().len(), 0, "no request is answered twice");
                    last
                })
            })
            .collect();
        for round in 1..=3 {
            let before = seen.clone();
            server.signal("HUP");
            wait_for_replacement(&server, 2 + 2 * round, &before);
            let mut fresh = server.spread(8);
            let now: BTreeSet<u32> = fresh.iter_mut().flat_map(pids).collect();
            assert!(now.is_disjoint(&before), "{now:?} after {before:?}");
            seen = now;
        }
        is_over.store(true, Ordering::Relaxed);
        let last: BTreeSet<u32> = running.into_iter().flat_map(|client| client.join().unwrap()).collect();
        assert!(last.is_subset(&seen), "{last:?} and {seen:?}");
    });
    let stats = server.stats();
    for name in ["workers_crashed", "worker_requests_failed", "worker_events_refused", "worker_answers_late"]
    {
        assert_eq!(stats.value(name), 0, "{name}");
    }
    assert_eq!(stats.value("worker_links"), 4);
}

/// Waits until the events of a client go to another worker, and returns its process id.
fn new_one(client: &mut Client, before: u32) -> u32 {
    eventually("a new worker", || Some(pid(client)).filter(|pid| *pid != before))
}

#[test]
fn pending_requests_are_answered_by_the_old_worker() {
    let server = start(json!({}), &["--worker-request-timeout", "5s"]);
    let mut clients = one_of_each_shard(&server, Transport::WebSocket);
    let before = pid(&mut clients[0]);
    let held = ["a", "b"].map(|name| json!([["hold", {"name": name}]]));
    let held = [ask(&mut clients[0], &held[0]), ask(&mut clients[1], &held[1])];
    let pending = clients[0].ask("/qio/on", r#"["/raw/ask/room", [["hold", {"name": "on"}]]]"#);
    // Callbacks of the old worker, with which the test controls it after the reload.
    let offered = clients.each_mut().map(|client| {
        let answer = request_code(client, json!([["answer", {"callback": 1}]]), 200);
        format!("/qio/callback/{}", answer.callback)
    });
    server.signal("HUP");
    for client in &mut clients {
        assert_ne!(new_one(client, before), before);
    }
    clients.iter_mut().for_each(|client| assert!(client.answers().is_empty()));
    let late = json!(["answer", {"held": "a", "data": "late", "callback": 77}]);
    let steps = json!([late, ["answer", {"held": "on"}], ["pid", {}]]);
    assert_eq!(clients[0].request_code(&offered[0], &steps.to_string(), 200).body["data"], json!(before));
    let late = clients[0].answer(held[0]);
    assert_eq!((late.code(), &late.body["data"]), (200, &json!("late")));
    assert_eq!(clients[0].answer(pending).code(), 200);
    // A callback that the old worker offers during the reload works as well.
    let steps = json!([["pid", {}]]).to_string();
    let pid_of_late = clients[0].request_code(&format!("/qio/callback/{}", late.callback), &steps, 200);
    assert_eq!(pid_of_late.body["data"], json!(before));
    clients[1].request_code(&offered[1], "1", 200);
    clients[1].ping();
    assert!(super::is_running(before), "one request is still pending");
    server.advance(MS(5000));
    assert_eq!(clients[1].answer(held[1]).code(), 500, "the request without an answer");
    wait_for_end(before);
    // The new worker receives the end of subscriptions that began before.
    execute(&mut clients[1], json!([["broadcast", {"path": "/raw/ask/room"}]]));
    assert_eq!(clients[0].event().path, "/raw/ask/room");
    clients[0].unsubscribe("/raw/ask/room");
    assert_eq!(received(&mut clients[0], "OFF").len(), 1);
    let stats = server.stats();
    assert_eq!((stats.value("workers_crashed"), stats.value("workers_started")), (0, 2));
}

#[test]
fn open_callbacks_are_waited_for() {
    let server = start(json!({}), &["--clients-cb-max-age", "15s"]);
    let mut client = server.websocket();
    let mut before = pid(&mut client);
    let offer = json!([["answer", {"callback": 5}]]);
    let offered = request_code(&mut client, offer.clone(), 200).callback;
    server.signal("HUP");
    let now = new_one(&mut client, before);
    let steps = json!([["answer", {"callback": 6, "data": "more"}]]);
    let answer = client.request_code(&format!("/qio/callback/{offered}"), &steps.to_string(), 200);
    assert_eq!(answer.body["data"], "more");
    // The old worker continues while a callback is open, also one that was offered later.
    let steps = json!([["pid", {}]]);
    let answer = client.request_code(&format!("/qio/callback/{}", answer.callback), &steps.to_string(), 200);
    assert_eq!(answer.body["data"], json!(before));
    wait_for_end(before);
    // A callback that expires ends the wait.
    before = now;
    request_code(&mut client, offer, 200);
    server.signal("HUP");
    new_one(&mut client, before);
    assert!(super::is_running(before));
    server.advance(MS(15_000));
    wait_for_end(before);
    assert_eq!(server.stats().value("workers_crashed"), 0);
}

#[test]
fn a_worker_that_does_not_finish_is_killed() {
    // Pending requests and open callbacks have their own timeouts before that.
    let stop = ["--worker-stop-timeout", "300ms"];
    let own = ["--worker-request-timeout", "100ms", "--clients-cb-max-age", "100ms"];
    let server = start(json!({}), &[&stop[..], &own].concat());
    let mut client = server.websocket();
    let before = pid(&mut client);
    execute(&mut client, json!([["ignore_stop", {}]]));
    server.signal("HUP");
    wait_for_end(before);
    let log = wait_for_log(&server, "worker-stop-timeout", 1);
    assert!(!log.contains("again_in"), "the new worker has replaced it already: {log}");
    wait_for_links(&server, 1);
    assert_ne!(pid(&mut client), before);
    assert_eq!(server.stats().value("workers_started"), 2);
}

#[test]
fn a_new_worker_can_register_other_events() {
    let folder = Folder::new();
    let file = folder.file("more.json");
    let events = json!([
        {"path": "/raw", "children": true},
        {"path": "/old"},
        {"path": "/narrow"},
        {"path": "/wide", "children": true},
        {"path": "/quiet", "handler": false},
        {"path": "/room", "off": true},
        {"path": "/closed", "subscriptions": "nobody"},
    ]);
    let server = start(json!({"events": events, "file": file}), &["--app", &with_instances(2)]);
    let mut clients = one_of_each_shard(&server, Transport::WebSocket);
    for client in &mut clients {
        client.subscribe("/room");
        let codes: Vec<u64> = ["/old", "/new", "/narrow/x", "/wide/x", "/quiet"]
            .map(|path| client.request(path, "1").code())
            .into();
        assert_eq!(codes, [200, 404, 404, 200, 500]);
        client.request_code("/qio/on", r#""/closed""#, 401);
    }
    let more = json!([
        {"path": "/new", "off": true},
        {"path": "/closed", "subscriptions": "ask"},
        {"path": "/room", "subscriptions": "nobody", "off": true},
        {"path": "/quiet"},
        {"path": "/wide"},
        {"path": "/narrow", "children": true},
        {"path": "/raw", "children": true},
    ]);
    fs::write(&file, json!({"events": more.to_string()}).to_string()).unwrap();
    server.signal("HUP");
    server.eventually_is("workers_started", 4);
    wait_for_links(&server, 2);
    for client in &mut clients {
        eventually("the new worker", || (client.request("/new", "1").code() == 200).then_some(()));
        let codes: Vec<u64> = ["/old", "/new", "/narrow/x", "/wide/x", "/quiet"]
            .map(|path| client.request(path, "1").code())
            .into();
        assert_eq!(codes, [404, 200, 200, 404, 200]);
        client.request_code("/qio/on", r#"["/closed", [["answer", {"code": 418}]]]"#, 418);
        // Existing subscriptions remain.
        execute(client, json!([["broadcast", {"path": "/room", "data": 1}]]));
    }
    for client in &mut clients {
        assert_eq!([client.event().data, client.event().data], ["1", "1"]);
        client.unsubscribe("/room");
        client.request_code("/qio/on", r#""/room""#, 401);
        assert_eq!(received(client, "OFF")[0][0], "/room");
    }
}

#[test]
fn events_of_other_applications_are_not_registered() {
    let folder = Folder::new();
    let file = folder.file("more.json");
    let server = start(json!({"file": file}), &[]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    let more = json!([{"path": "/raw", "children": true}, {"path": "/relay", "children": true}]);
    fs::write(&file, json!({"events": more.to_string()}).to_string()).unwrap();
    server.signal("HUP");
    // Of the lines of the two shards one is logged, and the other counted.
    wait_for_log(&server, "the path /relay is already registered by relay", 1);
    client.subscribe("/relay/x");
    client.request_code("/relay/x", "5", 200);
    assert_eq!(client.event().data, "5", "the event of relay");
    execute(&mut client, json!([]));
    // The next worker registers only its own event.
    fs::remove_file(&file).unwrap();
    server.signal("HUP");
    wait_for_end(before);
    eventually("the third worker", || (client.request("/raw/alone", "1").code() == 200).then_some(()));
}

#[test]
fn a_worker_that_does_not_get_ready_replaces_none() {
    let folder = Folder::new();
    let file = folder.file("more.json");
    let arguments = ["--app", &with_instances(2), "--worker-start-timeout", "10s"];
    let server = start(json!({"file": file}), &arguments);
    let mut clients = server.spread(8);
    let before: BTreeSet<u32> = clients.iter_mut().map(pid).collect();
    let held = ask(&mut clients[0], &json!([["hold", {"name": "a"}]]));
    let ready =
        |ready: Value| json!([["control", {"text": json!({"ready": ready}).to_string()}], ["hang", {}]]);
    for (steps, words) in [
        (
            json!([["control", {"text": "{\"failed\": \"no database\"}"}], ["exit", {"code": 1}]]),
            "no database",
        ),
        (json!([["print", {"to": "stderr", "text": "SyntaxError"}], ["exit", {"code": 5}]]), "SyntaxError"),
        (json!([["hang", {}]]), "it was not ready within worker-start-timeout"),
        (json!([["control", {"text": "what?"}]]), "an invalid line"),
        (ready(json!({"version": 2})), "it uses version 2"),
        (ready(json!({"version": 1, "events": [{"path": "/a"}, {"path": "/a"}]})), "it registers /a twice"),
    ] {
        fs::write(&file, json!({"start": steps.to_string()}).to_string()).unwrap();
        let given_up = server.log_with("").matches("gave up replacing the workers").count();
        server.signal("HUP");
        let log = wait_for_log(&server, "gave up replacing the workers", given_up + 1);
        assert!(log.contains(words), "no {words:?} in {log}");
        assert!(!log.contains("again_in"), "no worker has ended: {log}");
        let now: BTreeSet<u32> = clients.iter_mut().map(pid).collect();
        assert_eq!(now, before);
    }
    execute(&mut clients[0], json!([["answer", {"held": "a"}]]));
    assert_eq!(clients[0].answer(held).code(), 200);
    let started = server.stats().value("workers_started");
    assert_eq!(started, 8, "the second is not started if the first does not get ready");
    fs::remove_file(&file).unwrap();
    server.signal("HUP");
    wait_for_replacement(&server, started + 2, &before);
    clients.iter_mut().for_each(|client| execute(client, json!([])));
}

#[test]
fn a_missing_program_replaces_none() {
    let folder = Folder::new();
    let app = folder.worker("raw");
    let server = start(json!({}), &["--app", &app]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    fs::rename(&app, folder.file("away")).unwrap();
    server.signal("HUP");
    let log = wait_for_log(&server, "gave up replacing the workers", 1);
    assert!(log.contains(&app), "{log}");
    assert_eq!(pid(&mut client), before);
    // A crashed worker is not restarted either while the program is missing.
    signal(before, "KILL");
    wait_for_log(&server, "again_in=100ms", 1);
    server.advance(MS(100));
    wait_for_log(&server, "a worker cannot be started", 1);
    fs::rename(folder.file("away"), &app).unwrap();
    server.advance(MS(200));
    wait_for_links(&server, 1);
    execute(&mut client, json!([]));
}

#[test]
fn a_reload_does_not_wait_for_a_delayed_restart() {
    let server = start(json!({}), &["--app", &with_instances(2)]);
    let mut clients = server.spread(8);
    let before: BTreeSet<u32> = clients.iter_mut().map(pid).collect();
    assert_eq!(before.len(), 2);
    for (pid, nth) in before.iter().zip(1..) {
        signal(*pid, "KILL");
        wait_for_log(&server, "again_in=100ms", nth);
    }
    server.signal("HUP");
    wait_for_replacement(&server, 4, &before);
    wait_for_links(&server, 2);
    server.advance(MS(100));
    clients.iter_mut().for_each(|client| execute(client, json!([])));
    assert_eq!(server.stats().value("workers_started"), 4, "no worker is started twice");
}

#[test]
fn a_reload_that_fails_does_not_end_the_restarts() {
    let folder = Folder::new();
    let file = folder.file("more.json");
    let server = start(json!({"file": file}), &[]);
    let mut client = server.websocket();
    let before = pid(&mut client);
    let steps = json!([["exit", {"code": 5}]]);
    fs::write(&file, json!({"start": steps.to_string()}).to_string()).unwrap();
    signal(before, "KILL");
    wait_for_log(&server, "again_in=100ms", 1);
    // The instance has no worker now, and the one that the reload starts fails.
    server.signal("HUP");
    wait_for_log(&server, "gave up replacing the workers", 1);
    wait_for_log(&server, "again_in=200ms", 1);
    fs::remove_file(&file).unwrap();
    server.advance(MS(200));
    wait_for_links(&server, 1);
    execute(&mut client, json!([]));
}

#[test]
fn two_reloads_at_once() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let first = pid(&mut client);
    server.signal("HUP");
    wait_for_log(&server, "replacing the workers", 1);
    server.signal("HUP");
    wait_for_log(&server, "replacing the workers", 2);
    wait_for_replacement(&server, 3, &[first].into());
    wait_for_links(&server, 1);
    eventually("the end of the second worker", || (describe(&mut client)["pings"] != json!(0)).then_some(()));
    assert_eq!(server.stats().value("workers_crashed"), 0);
}

#[test]
fn a_file_that_changes_replaces_the_worker() {
    let folder = Folder::new();
    let app = folder.worker("raw");
    let library = folder.file("library");
    fs::write(&library, "1").unwrap();
    let files = json!([app, library, folder.file("none")]);
    let server = start(json!({"files": files}), &["--app", &app, "--reload"]);
    let mut client = server.websocket();
    let mut before = pid(&mut client);
    // Editors replace the old file by a new one, or write into the old one.
    let text = fs::read_to_string(&app).unwrap() + "# more\n";
    let edited = folder.worker("edited");
    fs::write(&edited, text).unwrap();
    for (nth, change) in
        (1..).zip([&|| fs::rename(&edited, &app), &|| fs::write(&library, "22")] as [&dyn Fn() -> _; 2])
    {
        change().unwrap();
        let log = wait_for_log(&server, "replacing the workers", nth);
        assert!(log.contains("a file changed"), "{log}");
        wait_for_replacement(&server, nth as u64 + 1, &[before].into());
        before = pid(&mut client);
    }
}

#[test]
fn a_reload_without_workers_is_logged() {
    let server = Server::start(&[]);
    server.signal("HUP");
    server.log_with("the reload is complete: 0 of 0 workers were replaced");
    server.assert_serves();
}
