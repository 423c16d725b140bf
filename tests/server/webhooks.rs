//! The bundled application `webhook`: a back end in plain Python answers for it, and everything that can go wrong with one.

use super::api::ApiFiles;
use super::ports::free_ports;
use crate::support::{Client, Conversation, DEADLINE, Server};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

const SECRET: &str = "0123456789abcdef-webhook";

/// The back end of `examples/back-ends/chat.py`. Dropping it kills it.
struct BackEnd {
    child: Child,
    port: u16,
}

impl BackEnd {
    fn start(files: &ApiFiles, api: u16, secret: &str) -> BackEnd {
        files.write("hook", secret);
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/back-ends/chat.py");
        let mut command = Command::new("python3");
        command.arg(script).env("PORT", "0").env("API", format!("http://127.0.0.1:{api}"));
        command.env("SECRET_FILE", files.path("hook")).env("KEY_FILE", files.path("writer"));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening on ").expect("the back end prints its port");
        BackEnd { child, port: port.parse().unwrap() }
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails if it has ended already
        let _ = self.child.wait();
    }
}

/// Starts a server that asks a back end on this port.
fn start(files: ApiFiles, api: u16, port: u16, more: &str) -> (Server, ApiFiles) {
    files.write("secret", SECRET);
    files.append_settings(&format!(
        "\n[app-settings.webhook]\nurl = 'http://127.0.0.1:{port}/hook'\nsecret-file = '{}'\npaths = '/chat'\n{more}\n",
        files.path("secret").display()
    ));
    files.start(&["--api", &format!("127.0.0.1:{api}"), "--app", "webhook"])
}

fn join(client: &mut Client, room: &str, name: &str) -> u64 {
    client.request("/qio/on", &json!([room, {"name": name}]).to_string()).code()
}

/// Returns the next event that is not about somebody who has joined: a member may hear of itself, or not.
fn next_event(client: &mut Client) -> Value {
    loop {
        let event: Value = serde_json::from_str(&client.event().data).unwrap();
        if event["joined"].is_null() {
            return event;
        }
    }
}

#[test]
fn a_chat_in_plain_python() {
    let (files, api) = (ApiFiles::new("chat"), free_ports("127.0.0.1"));
    let back_end = BackEnd::start(&files, api, SECRET);
    let (server, _files) = start(files, api, back_end.port, "timeout = '20s'");
    let (mut ada, mut bob) = (server.websocket(), server.websocket());
    assert_eq!(join(&mut ada, "/chat/rust", "ada"), 200);
    assert_eq!(join(&mut bob, "/chat/rust", "ada"), 404, "the name is taken");
    assert_eq!(join(&mut bob, "/chat/rust", "not a name"), 404);
    bob.request_code("/chat/rust", r#"{"text":"hi"}"#, 401);
    assert_eq!(join(&mut bob, "/chat/rust", "bob"), 200);
    for number in 1..=20 {
        let speaker = if number % 2 == 0 { &mut ada } else { &mut bob };
        let data = json!({"text": format!("message {number} \u{e9} \"\n")}).to_string();
        let answer = speaker.request_code("/chat/rust", &data, 200);
        assert_eq!(answer.body["data"], number);
    }
    for number in 1..=20 {
        let from = if number % 2 == 0 { "ada" } else { "bob" };
        let said = json!({"id": number, "from": from, "text": format!("message {number} \u{e9} \"\n")});
        assert_eq!(next_event(&mut ada), said);
        assert_eq!(next_event(&mut bob), said);
    }
    let refused = bob.request_code("/chat/rust", "7", 400);
    assert_eq!(refused.body["err_msg"], "say a text");
    bob.request_code("/chat/rust", "{", 400);
    // A client that disconnects is told, and its name is free.
    bob.reset();
    assert_eq!(next_event(&mut ada), json!({"left": "bob"}));
    let mut other = server.websocket();
    assert_eq!(join(&mut other, "/chat/rust", "bob"), 200);
    let stats = server.stats();
    assert!(stats.value("webhook_requests") >= 26, "{stats:?}");
    assert_eq!((stats.value("webhook_failures"), stats.value("webhook_gone_dropped")), (0, 0));
}

#[test]
fn a_back_end_with_another_secret_refuses_everything() {
    let (files, api) = (ApiFiles::new("hook_secret"), free_ports("127.0.0.1"));
    let back_end = BackEnd::start(&files, api, "0123456789abcdef-another");
    let (server, _files) = start(files, api, back_end.port, "timeout = '20s'");
    let mut client = server.websocket();
    assert_eq!(join(&mut client, "/chat/rust", "ada"), 404);
    let refused = client.request_code("/chat/rust", r#"{"text":"hi"}"#, 401);
    assert_eq!(refused.body["err_msg"], "the signature is wrong");
}

/// A back end that a test controls: it hands over the bodies of requests, and answers each with what the test says.
struct ScriptedBackEnd {
    port: u16,
    requests: Receiver<(String, TcpStream)>,
}

impl ScriptedBackEnd {
    fn start() -> ScriptedBackEnd {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || {
                    while let Some(body) = read_request(&stream) {
                        if sender.send((body, stream.try_clone().unwrap())).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        ScriptedBackEnd { port, requests }
    }

    #[track_caller]
    fn next(&self) -> (Value, TcpStream) {
        let (body, stream) = self.requests.recv_timeout(DEADLINE).expect("a request comes");
        (serde_json::from_str(&body).unwrap(), stream)
    }
}

fn read_request(stream: &TcpStream) -> Option<String> {
    let mut input = BufReader::with_capacity(1, stream);
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

fn reply(mut stream: TcpStream, status: &str, body: &str) {
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()); // fails if it was given up
}

#[test]
fn failures_open_the_breaker_and_ends_are_told_until_they_are_taken() {
    let (files, api) = (ApiFiles::new("hook_failures"), free_ports("127.0.0.1"));
    let back_end = ScriptedBackEnd::start();
    let (server, _files) = start(files, api, back_end.port, "timeout = '20s'");
    let mut client = server.websocket();
    // Answers that are no answers.
    for (status, body) in [("500 Broken", ""), ("302 Elsewhere", ""), ("200 OK", "<html>")] {
        let id = client.ask("/chat/rust", "1");
        reply(back_end.next().1, status, body);
        assert_eq!(client.answer(id).code(), 500, "{status} {body}");
    }
    // Ten failures in a row. Those before them were answers, except for the first.
    let asked: Vec<u64> = (0..10).map(|_| client.ask("/chat/rust", "1")).collect();
    asked.iter().for_each(|_| reply(back_end.next().1, "503 Busy", ""));
    for id in asked {
        assert_eq!(client.answer(id).code(), 500);
    }
    client.request_code("/chat/rust", "1", 500);
    let stats = server.eventually_is("webhook_skipped", 1);
    assert_eq!((stats.value("webhook_breaker_opened"), stats.value("webhook_failures")), (1, 11));
    // The end of the client is told when the breaker lets a request through, and again because the back end has failed.
    client.reset();
    for status in ["500 Broken", "200 OK"] {
        let (told, stream) = back_end.next();
        assert_eq!((&told["event"], told["clients"].as_array().map(Vec::len)), (&"gone".into(), Some(1)));
        reply(stream, status, "");
    }
    server.eventually("told", |stats| stats.value("webhook_gone_retries") >= 1);
    // The success has closed the breaker.
    let mut client = server.websocket();
    let id = client.ask("/chat/rust", r#"{"x": 1}"#);
    let (event, stream) = back_end.next();
    assert_eq!(event["data"], json!({"x": 1}));
    assert_eq!(
        (&event["event"], &event["path"], &event["address"]),
        (&"send".into(), &"/chat/rust".into(), &"127.0.0.1".into())
    );
    reply(stream, "200 OK", "[1, 2]");
    assert_eq!(client.answer(id).body["data"], json!([1, 2]));
}

#[test]
fn a_back_end_that_is_silent_or_away_costs_its_clients_only() {
    let (files, api) = (ApiFiles::new("hook_silent"), free_ports("127.0.0.1"));
    let back_end = ScriptedBackEnd::start();
    let (server, _files) = start(files, api, back_end.port, "timeout = '100ms'\nevents = 'send'");
    let mut client = server.websocket();
    client.request_code("/chat/rust", "1", 500);
    let _silent = back_end.next();
    server.eventually_is("webhook_failures", 1);
    client.subscribe("/chat/rust"); // nobody is asked: `events` has no `on`
    let mut other = server.websocket();
    other.subscribe("/relay/a");
    assert_eq!(other.request("/relay/a", "1").code(), 200);
}

#[test]
fn one_client_does_not_use_up_all_requests() {
    let (files, api) = (ApiFiles::new("hook_share"), free_ports("127.0.0.1"));
    let back_end = ScriptedBackEnd::start();
    let (server, _files) = start(files, api, back_end.port, "timeout = '60s'");
    let mut greedy = server.websocket();
    let asked: Vec<u64> = (0..300).map(|_| greedy.ask("/chat/rust", "1")).collect();
    server.eventually("refused", |stats| stats.value("webhook_refused") >= 249);
    assert_eq!(server.stats().value("webhook_refused"), 249, "51 of 300 were passed on");
    let mut other = server.websocket();
    let id = other.ask("/chat/rust", "2");
    let mut waiting = Vec::new();
    loop {
        let (event, stream) = back_end.next();
        if event["data"] == 2 {
            reply(stream, "200 OK", "2");
            break;
        }
        waiting.push(stream);
    }
    assert_eq!(other.answer(id).code(), 200);
    // What was answered makes room again.
    waiting.into_iter().for_each(|stream| reply(stream, "200 OK", ""));
    let codes: Vec<u64> = asked.into_iter().map(|id| greedy.answer(id).code()).collect();
    let answered = codes.iter().filter(|code| **code == 200).count();
    assert_eq!((answered, codes.iter().filter(|code| **code == 420).count()), (51, 249));
}
