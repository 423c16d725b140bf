//! Black-box tests of the chat in `examples/`, over two shards. The chat passes the same tests in every language.

#[path = "support/cc.rs"]
#[allow(dead_code, reason = "other tests need the rest")]
mod cc;
#[allow(dead_code, unused_imports, reason = "other tests need the rest")]
mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::server::{BINARY, command};
use support::{Client, Conversation, Server, Transport};

/// The language of a chat.
#[derive(Clone, Copy)]
enum Language {
    Rust,
    C,
    Cpp,
    Python,
    JavaScript,
}

/// Starts the server with the chat in this language.
fn start(language: Language) -> Server {
    let loaded = |file: PathBuf| {
        command(BINARY, &["--clock", "manual", "--app", file.to_str().expect("a path in UTF-8")])
    };
    let compiled = |source| loaded(cc::shared_object(&cc::in_tree(source)));
    Server::launch(match language {
        Language::Rust => command(example().to_str().expect("a path in UTF-8"), &["--clock", "manual"]),
        Language::C => compiled("examples/chat.c"),
        Language::Cpp => compiled("examples/chat.cpp"),
        Language::Python => loaded(cc::in_tree("examples/chat.py")),
        Language::JavaScript => loaded(cc::in_tree("examples/chat.mjs")),
    })
}

/// Returns the path of the example in Rust. Cargo builds the examples before it runs the tests.
fn example() -> PathBuf {
    let programs = Path::new(BINARY).parent().expect("the folder of the programs");
    let example = programs.join("examples/chat");
    assert!(example.exists(), "{} does not exist: run `cargo build --examples`", example.display());
    example
}

/// Defines the same tests for each language.
macro_rules! suite {
    ($($test:ident),+ $(,)?) => {
        suite!(rust, Language::Rust, $($test),+);
        suite!(c, Language::C, $($test),+);
        suite!(cpp, Language::Cpp, $($test),+);
        suite!(python, Language::Python, $($test),+);
        suite!(javascript, Language::JavaScript, $($test),+);
    };
    ($module:ident, $language:expr, $($test:ident),+) => {
        mod $module {
            use super::Language;
            $(#[test]
            fn $test() {
                super::$test($language);
            })+
        }
    };
}

suite! {
    messages_reach_the_room_in_order_and_stay_in_its_history,
    names_are_unique_in_a_room_while_they_are_used,
    events_that_are_not_allowed_are_refused,
    messages_can_have_any_text,
    a_receipt_is_answered_by_its_recipient,
    the_rate_limit_is_that_of_one_client,
    statistics_are_broadcast_every_second,
    clients_can_disconnect_at_any_moment,
    an_orderly_shutdown,
}

/// Joins a room, and returns the code of the answer.
fn join(client: &mut impl Conversation, room: &str, name: &str) -> u64 {
    let data = json!([format!("/chat/room/{room}"), { "name": name }]).to_string();
    client.request("/qio/on", &data).code()
}

/// Connects a client that joins a room.
fn joined(server: &Server, transport: Transport, room: &str, name: &str) -> Client {
    let mut client = server.client(transport);
    assert_eq!(join(&mut client, room, name), 200, "{name}");
    client
}

/// Sends a message to a room, and returns its number.
fn say(client: &mut impl Conversation, room: &str, text: &str) -> Value {
    let data = json!({ "text": text }).to_string();
    client.request_code(&format!("/chat/room/{room}"), &data, 200).body["data"].clone()
}

fn history(client: &mut impl Conversation, room: &str) -> Value {
    client.request_code(&format!("/chat/history/{room}"), "", 200).body["data"].clone()
}

/// Receives events until one has this path and this data, and returns its callback.
fn expect_event(client: &mut impl Conversation, path: &str, data: &Value) -> u64 {
    loop {
        let event = client.event();
        if event.path == path && serde_json::from_str::<Value>(&event.data).is_ok_and(|got| got == *data) {
            return event.callback;
        }
    }
}

fn messages_reach_the_room_in_order_and_stay_in_its_history(language: Language) {
    let server = start(language);
    // Enough members that both shards have some.
    let mut members: Vec<Box<dyn Conversation>> =
        (0..24).map(|nth| server.conversation(Transport::ALL[nth % 4])).collect();
    for (member, nth) in members.iter_mut().zip(0..) {
        assert_eq!(join(member, "rust", &format!("member {nth}")), 200);
    }
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

fn names_are_unique_in_a_room_while_they_are_used(language: Language) {
    let server = start(language);
    let mut ada = joined(&server, Transport::WebSocket, "rust", "ada");
    let mut other = server.client(Transport::Raw);
    assert_eq!(join(&mut other, "rust", "ada"), 404, "the name is taken");
    assert_eq!(join(&mut other, "zig", "ada"), 200, "the name is free in another room");
    ada.unsubscribe("/chat/room/rust");
    // The room has ended with its only member. The keeper of the rooms receives the off-hook before this.
    assert_eq!(join(&mut ada, "rust", "ada again"), 200);
    assert_eq!(join(&mut other, "rust", "ada"), 200);
    expect_event(&mut ada, "/chat/room/rust", &json!({"joined": "ada"}));
    other.reset();
    expect_event(&mut ada, "/chat/room/rust", &json!({"left": "ada"}));
}

fn events_that_are_not_allowed_are_refused(language: Language) {
    let server = start(language);
    let mut client = server.client(Transport::WebSocket);
    for data in [r#""/chat/room/rust""#, r#"["/chat/room/rust",{}]"#, r#"["/chat/room/rust",{"name":""}]"#] {
        client.request_code("/qio/on", data, 404);
    }
    client.request_code("/qio/on", r#"["/chat/room",{"name":"ada"}]"#, 404);
    client.request_code("/qio/on", r#""/chat/history/rust""#, 404);
    client.request_code("/chat/room/rust", r#"{"text":"nobody is there"}"#, 404);
    let _ada = joined(&server, Transport::Raw, "rust", "ada");
    client.request_code("/chat/room/rust", r#"{"text":"not a member"}"#, 401);
    client.request_code("/chat/room/rust", r#"{"txt":1}"#, 400);
    let long = json!({ "text": "x".repeat(2001) }).to_string();
    client.request_code("/chat/room/rust", &long, 400);
}

/// Quotes, control characters, and other characters than ASCII.
fn messages_can_have_any_text(language: Language) {
    let server = start(language);
    let name = "\"a\\d\na\"";
    let mut ada = joined(&server, Transport::WebSocket, "rust", name);
    for text in ["", "\"", "\u{1}\r\n\t\\", "é🦀\u{2028}", &"\u{1}".repeat(2000)] {
        let id = say(&mut ada, "rust", text);
        expect_event(&mut ada, "/chat/room/rust", &json!({"id": id, "from": name, "text": text}));
    }
    assert_eq!(history(&mut ada, "rust").as_array().unwrap().len(), 5);
}

/// A client can disconnect before its join is confirmed or before an answer. No such client stays in a room.
fn clients_can_disconnect_at_any_moment(language: Language) {
    let server = start(language);
    for nth in 0..60 {
        let mut client = server.client(Transport::SOCKETS[nth % 2]);
        let data = json!(["/chat/room/rust", { "name": format!("guest {nth}") }]).to_string();
        client.ask("/qio/on", &data);
        client.ask("/chat/room/rust", r#"{"text":"hello"}"#);
        client.reset();
    }
    server.eventually_is("clients", 0);
    let mut client = joined(&server, Transport::WebSocket, "zig", "ada");
    client.subscribe("/chat/stats");
    // The keeper of the rooms may still have to remove some.
    loop {
        server.advance(Duration::from_secs(1));
        let event = client.event();
        let stats: Value = serde_json::from_str(&event.data).unwrap();
        if event.path == "/chat/stats" && stats["rooms"] == 1 && stats["members"] == 1 {
            break;
        }
    }
}

fn a_receipt_is_answered_by_its_recipient(language: Language) {
    let server = start(language);
    let mut ada = joined(&server, Transport::WebSocket, "rust", "ada");
    let mut bob = joined(&server, Transport::Raw, "rust", "bob");
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
    assert_eq!(ada.answer(id).code(), 500, "bob's callback has expired");
}

fn the_rate_limit_is_that_of_one_client(language: Language) {
    let server = start(language);
    let mut ada = joined(&server, Transport::WebSocket, "rust", "ada");
    let mut bob = joined(&server, Transport::WebSocket, "rust", "bob");
    // The join was the first of twenty events.
    for nth in 1..20 {
        assert_eq!(say(&mut ada, "rust", "spam"), json!(nth));
    }
    ada.request_code("/chat/room/rust", r#"{"text":"spam"}"#, 420);
    assert_eq!(say(&mut bob, "rust", "hello"), json!(20));
    server.advance(Duration::from_secs(1));
    assert_eq!(say(&mut ada, "rust", "sorry"), json!(21));
}

fn statistics_are_broadcast_every_second(language: Language) {
    let server = start(language);
    let mut client = joined(&server, Transport::WebSocket, "rust", "ada");
    client.subscribe("/chat/stats");
    say(&mut client, "rust", "hello");
    server.advance(Duration::from_secs(1));
    expect_event(&mut client, "/chat/stats", &json!({"rooms": 1, "members": 1, "messages": 1}));
}

fn an_orderly_shutdown(language: Language) {
    let mut server = start(language);
    let mut client = joined(&server, Transport::WebSocket, "rust", "ada");
    let names = server.greeting.iter().find_map(|line| line.strip_prefix("applications: "));
    assert!(names.is_some_and(|names| names.split(", ").any(|name| name == "chat")), "{:?}", server.greeting);
    server.signal("TERM");
    client.expect_closed(1001, "server going away");
    drop(client); // the server waits for the client's end of the stream, up to a timeout
    assert_eq!(server.exit().code(), Some(0));
}
