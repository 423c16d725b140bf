//! The chat of `examples/chat.rs`, as its clients see it: the example is started and spoken to over two shards.

#[allow(dead_code, unused_imports, reason = "other tests need the rest")]
mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::server::{BINARY, command};
use support::{Client, Server, Wire};

/// Cargo builds the examples before it runs the tests, beside the programs.
fn example() -> PathBuf {
    let programs = Path::new(BINARY).parent().expect("a program lies in a folder");
    let example = programs.join("examples/chat");
    assert!(example.exists(), "{}: `cargo build --examples` makes it", example.display());
    example
}

fn start() -> Server {
    Server::launch(command(example().to_str().expect("a path in UTF-8"), &["--clock", "manual"]))
}

/// Joins a room; answers the code.
fn join(client: &mut Client, room: &str, name: &str) -> u64 {
    let data = json!([format!("/chat/room/{room}"), { "name": name }]).to_string();
    client.request("/qio/on", &data).code()
}

fn joined(server: &Server, wire: Wire, room: &str, name: &str) -> Client {
    let mut client = server.client(wire);
    assert_eq!(join(&mut client, room, name), 200, "{name}");
    client
}

/// Says something; answers its number.
fn say(client: &mut Client, room: &str, text: &str) -> Value {
    let data = json!({ "text": text }).to_string();
    client.request_code(&format!("/chat/room/{room}"), &data, 200).body["data"].clone()
}

fn history(client: &mut Client, room: &str) -> Value {
    client.request_code(&format!("/chat/history/{room}"), "", 200).body["data"].clone()
}

/// Takes events until one has this data.
fn expect_event(client: &mut Client, path: &str, data: &Value) -> u64 {
    loop {
        let event = client.event();
        if event.path == path && serde_json::from_str::<Value>(&event.data).is_ok_and(|got| got == *data) {
            return event.callback;
        }
    }
}

#[test]
fn what_is_said_reaches_the_room_in_order_and_stays_in_its_history() {
    let server = start();
    // So many that both shards have some of them.
    let mut members: Vec<Client> =
        (0..24).map(|nth| joined(&server, Wire::ALL[nth % 2], "rust", &format!("member {nth}"))).collect();
    for nth in 1..=60 {
        let speaker = nth % 4;
        assert_eq!(say(&mut members[speaker], "rust", &format!("message {nth}")), json!(nth));
    }
    for member in &mut members {
        for nth in 1..=60 {
            let said =
                json!({"id": nth, "from": format!("member {}", nth % 4), "text": format!("message {nth}")});
            expect_event(member, "/chat/room/rust", &said);
        }
    }
    let history = history(&mut members[0], "rust");
    let ids: Vec<u64> = history.as_array().unwrap().iter().map(|said| said["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (11..=60).collect::<Vec<_>>(), "the last fifty");
}

#[test]
fn names_are_unique_in_a_room_while_they_are_used() {
    let server = start();
    let mut ada = joined(&server, Wire::WebSocket, "rust", "ada");
    let mut other = server.client(Wire::Raw);
    assert_eq!(join(&mut other, "rust", "ada"), 404, "the name is taken");
    assert_eq!(join(&mut other, "zig", "ada"), 200, "in another room it is not");
    ada.unsubscribe("/chat/room/rust");
    // The room has ended with its only member; the off-hook and this reach the keeper in order.
    assert_eq!(join(&mut ada, "rust", "ada again"), 200);
    assert_eq!(join(&mut other, "rust", "ada"), 200);
    expect_event(&mut ada, "/chat/room/rust", &json!({"joined": "ada"}));
    other.vanish();
    expect_event(&mut ada, "/chat/room/rust", &json!({"left": "ada"}));
}

#[test]
fn what_is_not_allowed_is_answered_so() {
    let server = start();
    let mut client = server.client(Wire::WebSocket);
    for data in [r#""/chat/room/rust""#, r#"["/chat/room/rust",{}]"#, r#"["/chat/room/rust",{"name":""}]"#] {
        client.request_code("/qio/on", data, 404);
    }
    client.request_code("/qio/on", r#"["/chat/room",{"name":"ada"}]"#, 404);
    client.request_code("/qio/on", r#""/chat/history/rust""#, 404);
    client.request_code("/chat/room/rust", r#"{"text":"nobody is there"}"#, 404);
    let _ada = joined(&server, Wire::Raw, "rust", "ada");
    client.request_code("/chat/room/rust", r#"{"text":"not a member"}"#, 401);
    client.request_code("/chat/room/rust", r#"{"txt":1}"#, 400);
    let long = json!({ "text": "x".repeat(2001) }).to_string();
    client.request_code("/chat/room/rust", &long, 400);
}

#[test]
fn a_receipt_is_answered_by_whom_it_was_sent_to() {
    let server = start();
    let mut ada = joined(&server, Wire::WebSocket, "rust", "ada");
    let mut bob = joined(&server, Wire::Raw, "rust", "bob");
    ada.request_code("/chat/tell/rust", r#"{"to":"eve","text":"psst"}"#, 404);

    let id = ada.ask("/chat/tell/rust", r#"{"to":"bob","text":"psst"}"#);
    let callback = expect_event(&mut bob, "/chat/told", &json!({"from": "ada", "text": "psst"}));
    ada.ping();
    assert!(ada.answers().is_empty(), "bob has not confirmed it yet");
    bob.request_code(&format!("/qio/callback/{callback}"), "", 200);
    assert_eq!(ada.answer(id).body, json!({"code": 200, "data": "delivered"}));

    let id = ada.ask("/chat/tell/rust", r#"{"to":"bob","text":"again"}"#);
    expect_event(&mut bob, "/chat/told", &json!({"from": "ada", "text": "again"}));
    server.advance(Duration::from_secs(16));
    assert_eq!(ada.answer(id).code(), 500, "bob's time is over");
}

#[test]
fn one_client_is_slowed_down_and_the_others_are_not() {
    let server = start();
    let mut ada = joined(&server, Wire::WebSocket, "rust", "ada");
    let mut bob = joined(&server, Wire::WebSocket, "rust", "bob");
    // Joining was the first of twenty.
    for nth in 1..20 {
        assert_eq!(say(&mut ada, "rust", "spam"), json!(nth));
    }
    ada.request_code("/chat/room/rust", r#"{"text":"spam"}"#, 420);
    assert_eq!(say(&mut bob, "rust", "hello"), json!(20));
    server.advance(Duration::from_secs(1));
    assert_eq!(say(&mut ada, "rust", "sorry"), json!(21));
}

#[test]
fn statistics_are_broadcast_every_second() {
    let server = start();
    let mut client = joined(&server, Wire::WebSocket, "rust", "ada");
    client.subscribe("/chat/stats");
    say(&mut client, "rust", "hello");
    server.advance(Duration::from_secs(1));
    expect_event(&mut client, "/chat/stats", &json!({"rooms": 1, "members": 1, "messages": 1}));
}

#[test]
fn it_stops_in_order() {
    let mut server = start();
    let mut client = joined(&server, Wire::WebSocket, "rust", "ada");
    assert!(server.greeting.contains(&"applications: chat".into()), "{:?}", server.greeting);
    server.signal("TERM");
    client.expect_closed(1001, "server going away");
    drop(client); // the server waits, for a while, for the end of its stream
    assert_eq!(server.exit().code(), Some(0));
}
