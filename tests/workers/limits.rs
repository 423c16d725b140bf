//! How much a worker is given: requests under way, and bytes that it has not read.

use super::support::{Conversation, Server, Transport};
use super::{Client, MS, ask, ends, is_served_by, logged, one_of_each_shard, order, pid, start, tell};
use serde_json::json;

const BUSY: &str = "the application is busy";

/// A bound that is reached soon, and that one event does not reach.
const OUTBOX: [&str; 4] = ["--worker-outbox-bytes-max", "64Ki", "--message-bytes-max", "32Ki"];

/// The event is not given to the worker, and its client told why.
#[track_caller]
fn busy(client: &mut Client, path: &str, data: &str) {
    let answer = client.request_code(path, data, 420);
    assert_eq!(answer.body["err_msg"], BUSY);
}

#[test]
fn so_many_requests_are_under_way() {
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
    // Each link has its own.
    order(&mut other, json!([["answer", {"held": "a"}]]));
    assert_eq!(client.answer(held[0]).code(), 200);
    order(&mut client, json!([["answer", {"held": "b"}], ["answer", {"held": "c"}]]));
    assert_eq!([client.answer(held[1]).code(), client.answer(held[2]).code()], [200, 200]);
    server.eventually_is("worker_requests", 0);
    // Those that want no answer count as well, until the worker has ended them.
    (0..3).for_each(|nth| tell(&mut client, json!([["hold", {"name": nth.to_string()}]])));
    busy(&mut client, "/raw", "1");
    order(&mut other, json!([["answer", {"held": "0"}]]));
    server.eventually_is("worker_requests", 2);
    order(&mut client, json!([]));
}

/// The worker stops to read this client's link, and so many bytes are sent that events are refused.
fn fill(server: &Server, client: &mut Client) -> Vec<u64> {
    order(client, json!([["stop_reading", {}]]));
    let data = format!("\"{}\"", "x".repeat(10_000));
    let mut sent = Vec::new();
    // What the kernel holds is not counted.
    while server.stats().value("worker_outbox_bytes") < 64 << 10 {
        assert!(sent.len() < 1000, "it takes everything");
        sent.push(client.ask("/raw", &data));
        client.ping();
    }
    sent
}

#[test]
fn so_many_bytes_wait_for_one_that_does_not_read() {
    let server = start(json!({}), &OUTBOX);
    let [mut client, mut other] = one_of_each_shard(&server, Transport::Raw);
    let sent = fill(&server, &mut client);
    busy(&mut client, "/raw", "1");
    client.request_code("/qio/on", r#""/raw/ask/y""#, 420);
    let shard = super::name(&mut other)[0].as_u64().unwrap();
    order(&mut other, json!([["read_again", {"link": 1 - shard}]]));
    for id in sent {
        assert_eq!(client.answer(id).code(), 200);
    }
    server.eventually_is("worker_outbox_bytes", 0);
    client.request_code("/raw", "1", 200);
    assert_eq!(server.stats().value("workers_crashed"), 0);
}

#[test]
fn one_that_never_reads_is_killed() {
    let server = start(json!({}), &[&OUTBOX[..], &["--worker-timeout", "5s"]].concat());
    let [mut client, mut other] = one_of_each_shard(&server, Transport::Raw);
    let before = pid(&mut client);
    let sent = fill(&server, &mut client);
    // What must reach it comes on top of that, and waits neither for ever nor in whatever number.
    let path = format!("\"/raw/{}\"", "x".repeat(1000));
    for times in 0.. {
        if server.stats().value("worker_links") < 2 {
            break;
        }
        assert!(times < 200, "it is not killed");
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
    ends(before);
    let log = logged(&server, "again_in=100ms", 1);
    let line = log.lines().find(|line| line.contains("again_in")).unwrap();
    assert!(line.contains(" read") && line.contains("bytes wait for it"), "{line}");
    server.advance(MS(100));
    is_served_by(&server, 1);
    order(&mut client, json!([]));
    order(&mut other, json!([]));
}
