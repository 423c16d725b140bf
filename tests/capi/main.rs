//! Black-box tests of applications in C: the real server loads shared objects that the tests compile, and clients send
//! events to them.

mod bad;
#[path = "../support/cc.rs"]
mod cc;
mod cpp;
mod guide;
mod headers;
mod sanitizer;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other tests need the rest")]
mod support;

use serde_json::{Value, json};
use std::fs;
use std::time::Duration;
use support::server::{self, BINARY};
use support::{Client, Conversation, Server, Transport};

/// Returns the path of the application that uses the whole API.
fn all() -> String {
    object(&cc::shared_object(&cc::in_tree("tests/capi/apps/all.c")))
}

fn object(path: &std::path::Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn start(arguments: &[&str]) -> Server {
    Server::start_with_clock(&[&["--app", &all()], arguments].concat())
}

fn data(client: &mut impl Conversation, path: &str, data: &str) -> Value {
    client.request_code(path, data, 200).body["data"].clone()
}

/// Stops the server while these clients are connected, and expects that the application's data has been freed.
fn stop<Clients>(mut server: Server, clients: Clients) {
    server.signal("TERM");
    drop(clients);
    assert_eq!(server.exit().code(), Some(0));
    assert_all_freed(&server.log_with("stopped with"));
}

fn assert_all_freed(log: &str) {
    let line = log.lines().find(|line| line.starts_with("stopped with")).expect("stop was called");
    let counts: Vec<u32> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!(counts.len(), 2, "{line}");
    assert!(counts[0] > 0 && counts[0] == counts[1], "{line}");
    assert_eq!(log.matches("stopped with").count(), 1, "once");
}

/// What the applications of this crate answer to `who`, in a request that opens a session.
fn who(server: &Server, path: &str) -> Value {
    let body = format!("{path}:1=");
    let request = format!(
        "POST /?sid={}&connect=true HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        "0a".repeat(16),
        body.len()
    );
    let response = support::http::exchange(server.address(), request);
    let (_, answer) = response.body.split_once('=').expect("an answer");
    serde_json::from_str::<Value>(answer).unwrap()["data"].clone()
}

#[test]
fn clients_are_known_to_applications() {
    let server = start(&["--app-headers", "origin,cookie"]);
    let expected = json!({
        "user": null, "claims": null, "origin": "https://a.example", "cookie": null, "certificate": null,
        "address": "127.0.0.1"
    });
    assert_eq!(who(&server, "/c/who"), expected);
}

#[test]
fn answers() {
    let server = start(&[]);
    assert!(
        server.greeting.contains(&"applications: relay, clienttest, all".into()),
        "{:?}",
        server.greeting
    );
    let mut client = server.websocket();
    assert_eq!(data(&mut client, "/c/echo", r#"{"a":[1,2]}"#), json!({"a": [1, 2]}));
    assert_eq!(data(&mut client, "/c/null", "1"), Value::Null);
    let error = client.request_code("/c/error", "", 420);
    assert_eq!(error.body, json!({"code": 420, "data": null, "err_msg": "calm down"}));
    let error = client.request_code("/c/error-without-words", "", 404);
    assert_eq!(error.body, json!({"code": 404, "data": null, "err_msg": null}));
    let error = client.request_code("/c/error-with-data", "[7]", 418);
    assert_eq!(error.body, json!({"code": 418, "data": [7], "err_msg": "a teapot"}));
    client.request_code("/c/forget", "", 500);
    client.request_code("/c/no-handler", "", 500);
    client.request_code("/c/promise-nowhere", "", 500);
    client.ask("/c/never", "");
    client.ping();
    assert!(client.answers().is_empty());
    stop(server, client);
}

#[test]
fn events_have_a_path_an_extra_and_a_client() {
    let server = start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.subscribe("/c/place/in/here");
        let place = data(&mut client, "/c/place/in/@here/", "5");
        assert_eq!(place, json!(["/c/place", "/in/here", "/c/place/in/here", 1]));
        let event = client.event();
        assert_eq!((event.path.as_str(), event.data.as_str()), ("/c/place/in/here", "5"));
        assert_eq!(data(&mut client, "/c/place", ""), json!(["/c/place", "", "/c/place", 1]));
    }
    let mut shards: Vec<u64> = server
        .spread(8)
        .iter_mut()
        .map(|client| {
            let shard = data(client, "/c/shard", "");
            assert_eq!(shard[0], shard[1], "a handler runs on the shard of its client");
            shard[0].as_u64().unwrap()
        })
        .collect();
    shards.sort_unstable();
    shards.dedup();
    assert_eq!(shards, [0, 1]);
    let mut client = server.websocket();
    let before = data(&mut client, "/c/shard", "")[2].as_u64().unwrap();
    server.advance(Duration::from_millis(1234));
    assert_eq!(data(&mut client, "/c/shard", "")[2], before + 1234);
    client.request_code("/qio/on", r#""/c/shard""#, 401);
}

/// A shard is pinned to a core. What a handler starts must not compete with it there.
#[test]
fn threads_and_processes_of_a_handler_run_on_all_cores() {
    let server = start(&[]);
    let mut client = server.websocket();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(data(&mut client, "/c/cores", ""), json!([1, cores, cores]));
    stop(server, client);
}

#[test]
fn callbacks_run_once_and_are_always_freed() {
    let server = start(&[]);
    let mut client = server.websocket();
    let frees = |client: &mut Client| {
        let frees = data(client, "/c/frees", "");
        frees[0].as_i64().unwrap() - frees[1].as_i64().unwrap()
    };
    let held = frees(&mut client);

    let mut answer = client.request_code("/c/dialogue", "", 200);
    for nth in 1..4 {
        assert_eq!(frees(&mut client), held + 1);
        let id = answer.callback;
        answer = client.request_code(&format!("/qio/callback/{id}"), &nth.to_string(), 200);
        assert_eq!(answer.body["data"], json!(nth));
        client.request_code(&format!("/qio/callback/{id}"), "", 404);
    }
    // The last callback is open. Five more evict the two oldest.
    for _ in 0..5 {
        client.request_code("/c/dialogue", "", 200);
    }
    assert_eq!(frees(&mut client), held + 4, "four are open");
    server.advance(Duration::from_secs(16));
    assert_eq!(frees(&mut client), held, "all have expired");
    client.request_code("/c/dialogue", r#""refused""#, 400);
    assert_eq!(frees(&mut client), held, "an error offers no callback");
    client.tell("/c/dialogue", "");
    assert_eq!(frees(&mut client), held, "the event asks for no answer");

    let mut other = server.websocket();
    other.request_code("/c/dialogue", "", 200);
    assert_eq!(frees(&mut client), held + 1);
    other.reset();
    server.eventually_is("clients", 1);
    assert_eq!(frees(&mut client), held, "its client has disconnected");

    client.request_code("/c/dialogue", "", 200);
    stop(server, client);
}

#[test]
fn a_receipt_comes_back() {
    let server = start(&[]);
    let mut client = server.client(Transport::Raw);
    client.request_code("/c/receipt", "[1]", 200);
    let event = client.event();
    assert_eq!((event.path.as_str(), event.data.as_str()), ("/c/confirm", "[1]"));
    client.request_code(&format!("/qio/callback/{}", event.callback), "\"thanks\"", 200);
    let event = client.event();
    assert_eq!((event.path.as_str(), event.data.as_str(), event.callback), ("/c/confirmed", "\"thanks\"", 0));
    client.request_code("/c/receipt", "", 200);
    stop(server, client);
}

#[test]
fn promises_are_completed_by_another_thread() {
    let server = start(&[]);
    for mut client in server.spread(4) {
        assert_eq!(data(&mut client, "/c/late", ""), json!("late"));
        client.request_code("/c/dropped", "", 500);
        let answer = client.request_code("/c/late-dialogue", "", 200);
        let answer = client.request_code(&format!("/qio/callback/{}", answer.callback), "[3]", 200);
        assert_eq!(answer.body["data"], json!([3]));
    }
    // The client disconnects before its answers.
    let mut client = server.websocket();
    for _ in 0..100 {
        client.ask("/c/late-dialogue", "");
    }
    client.reset();
    server.assert_serves();
    stop(server, ());
}

#[test]
fn threads_retry_if_an_inbox_is_full() {
    let server = start(&["--inbox-messages-max", "1", "--shards", "1"]);
    let mut client = server.websocket();
    let ids: Vec<u64> = (0..500).map(|_| client.ask("/c/late", "")).collect();
    for id in ids {
        assert_eq!(client.answer(id).code(), 200);
    }
    stop(server, client);
}

#[test]
fn misuse_returns_a_status() {
    let server = start(&[]);
    let mut client = server.websocket();
    client.subscribe("/c/misused");
    assert_eq!(data(&mut client, "/c/misuse", ""), json!(""));
    assert_eq!(client.event().data, "\"\"");
    client.request_code("/c/keep-context", "", 200);
    assert_eq!(data(&mut client, "/c/statuses", ""), json!(""));
    client.request_code("/qio/on", r#"["/c/on/room","misused"]"#, 200);
    server.assert_serves();
    stop(server, client);
}

#[test]
fn threads_send_to_clients_at_any_time() {
    let server = start(&[]);
    let mut client = server.websocket();
    client.subscribe("/c/tick");
    client.request_code("/c/unasked", "", 200);
    let event = client.event();
    assert_eq!((event.path.as_str(), event.data.as_str()), ("/c/confirm", "\"from a thread\""));
    client.request_code(&format!("/qio/callback/{}", event.callback), "2", 200);
    let mut paths: Vec<String> = (0..3).map(|_| client.event().path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/c/confirmed", "/c/sent", "/c/tick"]);
    client.request_code("/c/move-later", "", 200);
    let event = client.event();
    assert_eq!((event.path.as_str(), event.data.as_str()), ("/qio/move", r#""ws://elsewhere \"""#));
    client.expect_closed(1000, "closed by the application");
    drop(client);
    let mut client = server.client(Transport::Raw);
    client.request_code("/c/close-later", "", 200);
    client.expect_disconnect();
    stop(server, client);
}

#[test]
fn hooks_decide_subscriptions_and_receive_their_ends() {
    let server = start(&[]);
    let mut client = server.websocket();
    client.subscribe("/c/left");
    let mut on = |data: &str| client.request("/qio/on", &format!(r#"["/c/on/{data}","{data}"]"#)).code();
    assert_eq!(on("yes"), 200);
    assert_eq!(on("no"), 404);
    assert_eq!(on("fail"), 500);
    assert_eq!(on("later"), 200);
    assert_eq!(on("later no"), 404);
    assert_eq!(on("dropped"), 404);
    assert_eq!(on("bad"), 404);
    assert_eq!(on("promised nothing"), 404);
    client.unsubscribe("/c/on/yes");
    assert_eq!(client.event().data, r#""/yes""#);

    let mut other = server.websocket();
    other.request_code("/qio/on", r#"["/c/on/other","later"]"#, 200);
    other.reset();
    assert_eq!(client.event().data, r#""/other""#);
    server.log_with("an on-hook returned 99");
    stop(server, client);
}

#[test]
fn hooks_see_the_options() {
    let settings = history("/c/on/*");
    let server = start(&["--config", &settings]);
    let mut client = server.websocket();
    let on = |path: &str, options: &str| format!(r#"["{path}","options"{options}]"#);
    client.request_code("/qio/on", &on("/c/on/a", ""), 404);
    assert_eq!(client.event().data, "null");
    client.request_code("/qio/on", &on("/c/on/a", r#", {"history": 2}"#), 200);
    assert_eq!(client.event().data, r#"{"history": 2}"#);
    stop(server, client);
}

/// Writes settings with a rule that keeps the events of paths; returns their file.
fn history(paths: &str) -> String {
    let file = cc::temporary(&format!("history{}.toml", paths.replace(['/', '*'], "-")));
    fs::write(&file, format!("[[rules]]\npath = '{paths}'\nhistory = 10\n")).unwrap();
    object(&file)
}

#[test]
fn a_client_has_data() {
    let server = start(&[]);
    let (mut one, mut other) = (server.websocket(), server.client(Transport::Raw));
    for nth in 1..4 {
        assert_eq!(data(&mut one, "/c/visits", ""), json!(nth));
    }
    assert_eq!(data(&mut other, "/c/visits", ""), json!(1));
    one.request_code("/c/replace", "", 200);
    assert_eq!(data(&mut one, "/c/visits", ""), json!(1));
    assert_eq!(data(&mut one, "/c/take", ""), json!(true));
    assert_eq!(data(&mut one, "/c/take", ""), json!(false));
    assert_eq!(data(&mut one, "/c/visits", ""), json!(1));
    let frees = data(&mut one, "/c/frees", "");
    other.reset();
    server.eventually_is("clients", 1);
    let now = data(&mut one, "/c/frees", "");
    assert_eq!(now[1].as_i64().unwrap(), frees[1].as_i64().unwrap() + 1);
    stop(server, one);
}

#[test]
fn timers_follow_the_clock_of_the_server() {
    let server = start(&[]);
    let mut client = server.websocket();
    client.subscribe("/c/tick");
    client.request_code("/c/after", "", 200);
    server.advance(Duration::from_millis(99));
    client.ping();
    assert!(client.events().is_empty());
    server.advance(Duration::from_millis(1));
    assert_eq!(client.event().path, "/c/rang");
    server.advance(Duration::from_millis(900));
    let event = client.event();
    assert_eq!((event.path.as_str(), event.data.as_str()), ("/c/tick", "\"tick\""));
    client.request_code("/c/after", "", 200);
    stop(server, client);
}

#[test]
fn clients_are_closed_and_moved() {
    let server = start(&[]);
    let mut client = server.websocket();
    client.ask("/c/close", "");
    client.expect_closed(1000, "closed by the application");
    drop(client);
    let mut client = server.client(Transport::Raw);
    client.ask("/c/move", "");
    let event = client.event();
    assert_eq!((event.path.as_str(), event.data.as_str()), ("/qio/move", "\"ws://elsewhere\""));
    client.expect_disconnect();
    stop(server, client);
}

#[test]
fn an_application_has_settings_and_a_log() {
    let file = cc::temporary("settings-of-all.toml");
    let text = "shards = 1\n[app-settings.all]\nname = \"Ada\"\nmany = 1_000\non = true\npart = 0.5\n[app-settings.other]\na = 1\n";
    fs::write(&file, text).unwrap();
    let server = start(&["--config", file.to_str().unwrap(), "--log-level", "info"]);
    server.log_with("there are settings for an application that does not run: other");
    let mut client = server.websocket();
    assert_eq!(data(&mut client, "/c/settings", ""), json!("many=1_000;name=Ada;on=true;part=0.5;"));
    assert_eq!(data(&mut client, "/c/log", ""), json!([1, 0]));
    let log = server.log_with("an info of c, with \u{fffd} in it");
    assert!(log.contains("an error of c") && log.contains("a warning of c"));
    assert!(log.lines().filter(|line| line.contains(" of c")).all(|line| line.contains("all")), "{log}");
    assert!(!log.contains("a debug of c"));
    stop(server, client);
}

#[test]
fn applications_are_found_in_the_app_dir() {
    let folder = cc::temporary(&format!("apps-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::copy(all(), folder.join("by-name.so")).unwrap();
    let folder = folder.to_str().unwrap();
    let server = Server::start(&["--app-dir", folder, "--app", "by-name"]);
    server.websocket().request_code("/c/null", "", 200);
    stop(server, ());
    let (code, _, log) = server::run(server::command(BINARY, &["--app-dir", folder, "--app", "nobody"]));
    assert_eq!(code, Some(2));
    assert!(log.contains(r#"no application "nobody""#) && log.contains(folder), "{log}");
}
