//! The distribution of clients over the instances of an application: all events of a client go to one worker, in execute,
//! and each worker has clients.

use super::support::{Conversation, Transport};
use super::{RAW, describe, received, request_code, start};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[test]
fn a_clients_events_reach_one_worker_in_order() {
    const EVENTS: usize = 50;
    let server = start(json!({}), &["--app", &format!("{RAW},instances=3")]);
    let mut clients: Vec<_> =
        (0..30).flat_map(|_| Transport::SOCKETS).map(|transport| server.client(transport)).collect();
    let asked: Vec<Vec<u64>> = (0..clients.len())
        .map(|nth| {
            let client = &mut clients[nth];
            (0..EVENTS).map(|event| client.ask(&format!("/raw/of-{nth}/{event}"), "")).collect()
        })
        .collect();
    for (client, ids) in clients.iter_mut().zip(asked) {
        ids.into_iter().for_each(|id| assert_eq!(client.answer(id).code(), 200));
    }
    // The process id and the received events of each instance.
    let mut of_worker: BTreeMap<u64, (Value, Vec<Value>)> = BTreeMap::new();
    let mut shards: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for (nth, client) in clients.iter_mut().enumerate() {
        let who = describe(client);
        let instance = who["hello"]["instance"].as_u64().unwrap();
        assert_eq!(who["hello"]["instances"], json!(3));
        *shards.entry((instance, who["link"].as_u64().unwrap())).or_default() += 1;
        let (pid, events) =
            of_worker.entry(instance).or_insert_with(|| (who["pid"].clone(), received(client, "EVENT")));
        assert_eq!(*pid, who["pid"]);
        let mine: Vec<&str> = events
            .iter()
            .filter_map(|received| received[0].as_str())
            .filter(|path| path.starts_with(&format!("/raw/of-{nth}/")))
            .collect();
        let expected: Vec<String> = (0..EVENTS).map(|event| format!("/raw/of-{nth}/{event}")).collect();
        assert_eq!(mine, expected);
    }
    assert_eq!(of_worker.len(), 3, "each instance has clients");
    assert_eq!(shards.len(), 6, "of each shard: {shards:?}");
    let total: usize = of_worker.values().map(|(_, events)| events.len()).sum();
    assert_eq!(total, clients.len() * EVENTS);
    // All other frames of a client go to the same worker.
    for client in &mut clients {
        let before = describe(client)["pid"].clone();
        client.request_code("/qio/on", r#"["/raw/ask/x", 5]"#, 200);
        let answer = request_code(client, json!([["answer", {"callback": 1}]]), 200);
        let fired =
            client.request_code(&format!("/qio/callback/{}", answer.callback), r#"[["pid", {}]]"#, 200);
        assert_eq!(fired.body["data"], before);
        assert!(received(client, "ON").contains(&json!(["/raw/ask/x", "5"])));
    }
}
