//! Applications in C++: closures are destroyed, dropped promises are answered, and exceptions are caught.

use super::support::server::{self, BINARY, command};
use super::support::{Conversation, Server};
use super::{assert_all_freed, cc, data, history, object};
use serde_json::json;
use std::fs;
use std::time::Duration;

fn app(name: &str) -> String {
    let define = format!("-DNAME=\"{name}\"");
    object(&cc::shared_object_with(&cc::in_tree("tests/capi/apps/cpp.cpp"), &[&define]))
}

#[test]
fn closures_promises_and_exceptions() {
    let mut server = Server::start_with_clock(&["--app", &app("one"), "--config", &history("/one/on/*")]);
    let mut client = server.websocket();
    assert_eq!(data(&mut client, "/one/name", ""), json!("one"));
    assert_eq!(data(&mut client, "/one/who", ""), json!([null, null, null, null, "127.0.0.1"]));
    client.request_code("/one/throw", "0", 500);
    client.request_code("/one/throw", "1", 500);
    client.request_code("/one/bad", "", 500);
    let error = client.request_code("/one/error", "", 418);
    assert_eq!(error.body, json!({"code": 418, "data": [1], "err_msg": "a teapot"}));
    client.ask("/one/never", "");
    client.ping();
    assert!(client.answers().is_empty());

    let answer = client.request_code("/one/dialogue", "[1]", 200);
    let answer = client.request_code(&format!("/qio/callback/{}", answer.callback), "[2]", 200);
    assert_eq!(answer.body["data"], json!([2]));
    let answer = client.request_code("/one/dialogue", "[1]", 200);
    client.request_code(&format!("/qio/callback/{}", answer.callback), "\"throw\"", 500);
    client.request_code("/one/dialogue", "[1]", 200);

    assert_eq!(data(&mut client, "/one/late", ""), json!("late"));
    client.request_code("/one/dropped", "", 500);
    let id = client.ask("/one/receipt", "");
    let event = client.event();
    assert_eq!(event.path, "/one/confirm");
    client.request_code(&format!("/qio/callback/{}", event.callback), "[4]", 200);
    assert_eq!(client.answer(id).body["data"], json!([4]));
    let id = client.ask("/one/receipt", "");
    client.event();
    server.advance(Duration::from_secs(16));
    assert_eq!(
        client.answer(id).code(),
        500,
        "the receipt was never confirmed, and the promise was dropped with the closure"
    );

    assert_eq!(data(&mut client, "/one/visits", ""), json!(1));
    assert_eq!(data(&mut client, "/one/visits", ""), json!(2));
    assert_eq!(data(&mut client, "/one/take", ""), json!(2));
    assert_eq!(data(&mut client, "/one/take", ""), json!(null));
    assert_eq!(data(&mut client, "/one/room/a/b", ""), json!("/one/room/a/b"));
    client.request_code("/one/after", "", 200);
    server.advance(Duration::from_millis(100));
    assert_eq!(client.event().path, "/one/rang");

    client.subscribe("/one/left");
    let mut on = |word: &str| client.request("/qio/on", &format!(r#"["/one/on/{word}","{word}"]"#)).code();
    assert_eq!((on("yes"), on("no"), on("late"), on("throw")), (200, 404, 200, 404));
    client.unsubscribe("/one/on/late");
    assert_eq!(client.event().data, r#""/late""#);
    for (options, expected) in [("", "null"), (r#",{"history":2}"#, r#"{"history":2}"#)] {
        client.request_code(
            "/qio/on",
            &format!(r#"["/one/on/options{}","options"{options}]"#, options.len()),
            200,
        );
        assert_eq!(client.event().data, expected);
    }

    server.signal("TERM");
    drop(client); // the server waits for the client's end of the stream, up to a timeout
    assert_eq!(server.exit().code(), Some(0));
    let log = server.log_with("stopped with");
    assert_all_freed(&log);
    for place in ["a handler", "a callback", "a timer", "an on-hook"] {
        assert!(log.contains(&format!("thrown in {place}")), "{log}");
    }
    assert!(log.contains("other than a std::exception") && log.contains("a text is not UTF-8"), "{log}");
}

#[test]
fn two_applications_of_one_class_are_independent() {
    let server = Server::start(&["--app", &app("one"), "--app", &app("two")]);
    let mut client = server.websocket();
    assert_eq!(data(&mut client, "/one/name", ""), json!("one"));
    assert_eq!(data(&mut client, "/two/name", ""), json!("two"));
    client.request_code("/one/throw", "0", 500);
    let log = server.log_with("thrown in a handler");
    assert!(log.lines().any(|line| line.contains("thrown in a handler") && line.contains("one")), "{log}");
}

#[test]
fn exceptions_at_the_start_are_reported() {
    let file = cc::temporary("settings-that-fail.toml");
    fs::write(&file, "[app-settings.one]\nfail = true\n").unwrap();
    let arguments = ["--app", &app("one"), "--config", file.to_str().unwrap()];
    let (code, _, log) = server::run(command(BINARY, &arguments));
    assert_eq!(code, Some(2));
    assert!(log.contains("init failed: the constructor threw"), "{log}");
    let output = std::process::Command::new(BINARY).args(["test-app", &app("one")]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("self_test threw"), "{report}");
}
