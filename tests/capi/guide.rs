//! The code samples of the guide in C and C++: each compiles, passes its self-test, and does what the guide says.

use super::support::server::BINARY;
use super::support::{Conversation, Server};
use super::{cc, data, object};
use serde_json::json;
use std::fs;
use std::process::Command;

/// Returns the samples of a language, compiled to shared objects.
fn samples(language: &str, extension: &str) -> Vec<String> {
    let guide = fs::read_to_string(cc::in_tree("docs/applications.md")).unwrap();
    let fence = format!("```{language}\n");
    let texts =
        guide.split(&fence).skip(1).map(|rest| rest.split("```\n").next().expect("the end of the fence"));
    texts
        .enumerate()
        .map(|(nth, text)| {
            let source = cc::temporary(&format!("guide-{language}-{nth}-{}.{extension}", std::process::id()));
            fs::write(&source, text).unwrap();
            object(&cc::shared_object(&source))
        })
        .collect()
}

fn assert_self_tests_pass(objects: &[String]) {
    assert!(!objects.is_empty());
    for object in objects {
        let output = Command::new(BINARY).args(["test-app", object]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn samples_of_c() {
    let objects = samples("c", "c");
    assert_eq!(objects.len(), 2);
    assert_self_tests_pass(&objects);
    let server = Server::start(&["--app", &objects[0], "--app", &objects[1]]);
    let mut client = server.websocket();
    assert_eq!(data(&mut client, "/hello", ""), json!("hello"));
    client.request_code("/refuse", "", 400);
    let answer = client.request_code("/order", "", 200);
    client.request_code(&format!("/qio/callback/{}", answer.callback), "1", 200);
    assert_eq!(data(&mut client, "/ask", ""), json!(42));
    server.log_with("here I am");
}

#[test]
fn samples_of_cpp() {
    let objects = samples("cpp", "cpp");
    assert_self_tests_pass(&objects);
    let server = Server::start(&["--app", &objects[0]]);
    let mut client = server.websocket();
    assert_eq!(data(&mut client, "/hello", ""), json!("hello"));
    client.request_code("/qio/on", r#"["/room/a","open sesame"]"#, 200);
    client.request_code("/qio/on", r#"["/room/b","please"]"#, 404);
    client.request_code("/room/a", "5", 200);
    assert_eq!(client.event().path, "/room/a");
    let answer = client.request_code("/order", "", 200);
    client.request_code(&format!("/qio/callback/{}", answer.callback), "1", 200);
}
