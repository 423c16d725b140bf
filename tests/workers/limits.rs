//! The limits of a worker: its pending requests, and the bytes that it has not read.

use super::support::{Conversation, Server, Transport};
use super::{
    Client, MS, ask, execute, one_of_each_shard, pid, start, tell, two_of_one_shard, wait_for_end,
    wait_for_links, wait_for_log,
};
use serde_json::json;

const BUSY: &str = "the application is busy";

/// A limit that is reached soon, but not by one event.
const OUTBOX: [&str; 4] = ["--worker-outbox-bytes-max", "64Ki", "--message-bytes-max", "32Ki"];

/// Expects that an event is refused because the worker is busy.
#[track_caller]
fn busy(client: &mut Client, path: &str, data: &str) {
    let answer = client.request_code(path, data, 420);
    assert_eq!(answer.body["err_msg"], BUSY);
}

#[test]
fn the_number_of_pending_requests_is_limited() {
    let server = start(json!({}), &["--worker-requests-max", "3"]);
    let [mut client, mut other] = one_of_each_shard(&server, Transport::WebSocket);
    let mut held: Vec<u64> =
        ["a", "b"].map(|name| ask(&mut client, &json!([["hold", {"name": name}]]))).into();
    held.push(client.ask("/qio/on", r#"["/raw/ask/x", [["hold", {"name": "c"}]]]"#));
    server.eventually_is("worker_requests", 3);
    busy(&mut client, "/raw", "1");
    client.tell("/raw", "1");
    client.request_code("/qio/on", r#""/raw/ask/y""#, 420);
    server.eventually_is("worker_events_refused", 3);
    client.subscribe("/raw/everybody");
    client.request_code("/raw/no-handler", "", 500);
    // Each link has its own limit.
    execute(&mut other, json!([["answer", {"held": "a"}]]));
    assert_eq!(client.answer(held[0]).code(), 200);
    execute(&mut client, json!([["answer", {"held": "b"}], ["answer", {"held": "c"}]]));
    assert_eq!([client.answer(held[1]).code(), client.answer(held[2]).code()], [200, 200]);
    server.eventually_is("worker_requests", 0);
    // Events without a callback count as well, until the worker has ended them.
    (0..3).for_each(|nth| tell(&mut client, json!([["hold", {"name": nth.to_string()}]])));
    busy(&mut client, "/raw", "1");
    execute(&mut other, json!([["answer", {"held": "0"}]]));
    server.eventually_is("worker_requests", 2);
    execute(&mut client, json!([]));
}

/// Stops the worker from reading this client's link, and sends events until one is refused. Returns the callbacks of the
/// accepted ones.
fn fill(server: &Server, client: &mut Client) -> Vec<u64> {
    execute(client, json!([["stop_reading", {}]]));
    let data = format!("\"{}\"", "x".repeat(10_000));
    let mut sent = Vec::new();
    // The bytes in the kernel's buffers do not count.
    loop {
        assert!(sent.len() < 1000, "no event is refused");
        let id = client.ask("/raw", &data);
        client.ping();
        if server.stats().value("worker_events_refused") > 0 {
            assert_eq!(client.answer(id).code(), 420);
            return sent;
        }
        sent.push(id);
    }
}

/// A client that keeps a worker busy gets only its share of the worker. Others are served.
#[test]
fn one_client_cannot_keep_others_from_a_worker() {
    let server = start(json!({}), &["--worker-requests-max", "1000"]);
    let [mut hog, mut other] = two_of_one_shard(&server);
    let asked: Vec<u64> =
        (0..1000).map(|nth| ask(&mut hog, &json!([["hold", {"name": nth.to_string()}]]))).collect();
    hog.ping();
    server.eventually_is("worker_requests", 200);
    let stats = server.stats();
    assert_eq!([stats.value("worker_events_refused"), stats.value("worker_shares_refused")], [800, 800]);
    for nth in 0..20 {
        ask(&mut other, &json!([["hold", {"name": format!("other {nth}")}]]));
        execute(&mut other, json!([]));
    }
    server.eventually_is("worker_requests", 220);
    // The share is free again with each answer.
    for (nth, id) in asked.iter().enumerate().take(20) {
        execute(&mut other, json!([["answer", {"held": nth.to_string()}]]));
        assert_eq!(hog.answer(*id).code(), 200);
    }
    execute(&mut hog, json!([]));
}

#[test]
fn the_bytes_for_a_worker_that_does_not_read_are_limited() {
    let server = start(json!({}), &OUTBOX);
    let [mut client, mut other] = one_of_each_shard(&server, Transport::Raw);
    let sent = fill(&server, &mut client);
    busy(&mut client, "/raw", "1");
    client.request_code("/qio/on", r#""/raw/ask/y""#, 420);
    let shard = super::name(&mut other)[0].as_u64().unwrap();
    execute(&mut other, json!([["read_again", {"link": 1 - shard}]]));
    for id in sent {
        assert_eq!(client.answer(id).code(), 200);
    }
    server.eventually_is("worker_outbox_bytes", 0);
    client.request_code("/raw", "1", 200);
    assert_eq!(server.stats().value("workers_crashed"), 0);
}

#[test]
fn a_worker_that_never_reads_is_killed() {
    let server = start(json!({}), &[&OUTBOX[..], &["--worker-timeout", "5s"]].concat());
    let [mut client, mut other] = one_of_each_shard(&server, Transport::Raw);
    let before = pid(&mut client);
    let sent = fill(&server, &mut client);
    // Frames that the worker must receive are sent beyond the limit, up to a second limit and a timeout.
    let path = format!("\"/raw/{}\"", "x".repeat(1000));
    for times in 0.. {
        if server.stats().value("worker_links") < 2 {
            break;
        }
        assert!(times < 200, "the worker is not killed");
        for _ in 0..10 {
            client.tell("/qio/on", &path);
            client.tell("/qio/off", &path);
        }
        client.ping();
        other.ping();
        server.advance(MS(50));
    }
    for id in sent {
        assert_eq!(client.answer(id).code(), 500);
    }
    wait_for_end(before);
    let log = wait_for_log(&server, "again_in=100ms", 1);
    let line = log.lines().find(|line| line.contains("again_in")).unwrap();
    assert!(line.contains(" read") && line.contains("bytes are waiting"), "{line}");
    server.advance(MS(100));
    wait_for_links(&server, 1);
    execute(&mut client, json!([]));
    execute(&mut other, json!([]));
}
