//! The bundled application `webhook`: a back end in plain Python answers for it, and everything that can go wrong with one.

use super::api::ApiFiles;
use super::ports::free_ports;
use crate::support::http::Connection;
use crate::support::http_client::new_session;
use crate::support::server::{BINARY, command};
use crate::support::{Client, Conversation, DEADLINE, Ended, Server, Transport, http};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

const SECRET: &str = "0123456789abcdef-webhook";

/// The users of the sessions of the back ends in `examples`.
const SESSIONS: &str = r#"{"5f2a": "ada", "77b0": "bob"}"#;

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
        files.write("sessions", SESSIONS);
        command.env("SESSIONS_FILE", files.path("sessions"));
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
fn the_chat_knows_the_users_of_its_sessions() {
    let (files, api) = (ApiFiles::new("chat_users"), free_ports("127.0.0.1"));
    let back_end = BackEnd::start(&files, api, SECRET);
    let settings = "events = 'connect,on,send,gone'\ntimeout = '20s'";
    files.write("quickio.toml", &format!("auth = 'optional'\n{}", files.read("quickio.toml")));
    let (server, _files) = start(files, api, back_end.port, settings);
    let mut ada = server.websocket();
    let answer = ada.request_code("/qio/auth", "\"5f2a\"", 200);
    assert_eq!(answer.body["data"]["user"], "ada");
    let mut bob = server.websocket();
    assert_eq!(bob.request_code("/qio/auth", "\"5f2b\"", 401).body["err_msg"], "token invalid");
    bob.request_code("/qio/auth", "\"77b0\"", 200);
    for client in [&mut ada, &mut bob] {
        client.subscribe("/chat/rust");
    }
    bob.request_code("/chat/rust", r#"{"text":"hi"}"#, 200);
    assert_eq!(next_event(&mut ada), json!({"id": 1, "from": "bob", "text": "hi"}));
}

/// The web server of PHP with `examples/back-ends/connect.php`. Dropping it kills it.
struct PhpBackEnd(Child);

impl Drop for PhpBackEnd {
    fn drop(&mut self) {
        let _ = self.0.kill(); // fails if it has ended already
        let _ = self.0.wait();
    }
}

#[test]
fn a_back_end_in_php_knows_the_users_of_its_sessions() {
    if Command::new("php").arg("--version").output().is_err() {
        return; // as on hosts without PHP
    }
    let (files, port) = (ApiFiles::new("php"), free_ports("127.0.0.1"));
    files.write("sessions", SESSIONS);
    let server = start_asking(&files, port, "optional", CONNECT);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/back-ends");
    let mut command = Command::new("php");
    // The web server routes each path to this script.
    command.args(["-S", &format!("127.0.0.1:{port}"), folder.join("connect.php").to_str().unwrap()]);
    command.env("SECRET_FILE", files.path("secret")).env("SESSIONS_FILE", files.path("sessions"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _php = PhpBackEnd(child);
    let deadline = std::time::Instant::now() + DEADLINE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < deadline, "PHP does not listen");
        thread::sleep(std::time::Duration::from_millis(10)); // leaves the core to PHP
    }
    let mut client = server.websocket();
    client.request_code("/qio/auth", "\"0000\"", 401);
    assert_eq!(client.request_code("/qio/auth", "\"77b0\"", 200).body["data"]["user"], "bob");
    let mut known = Client::connect(server.address(), Transport::WebSocket);
    known.send(http::upgrade("Cookie: a=b; session=5f2a\r\n").as_bytes());
    server.eventually_is("clients_authenticated", 2);
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
fn one_address_does_not_use_up_all_requests() {
    let (files, api) = (ApiFiles::new("hook_share"), free_ports("127.0.0.1"));
    let back_end = ScriptedBackEnd::start();
    let (server, _files) = start(files, api, back_end.port, "timeout = '60s'");
    let mut greedy = server.websocket();
    let asked: Vec<u64> = (0..300).map(|_| greedy.ask("/chat/rust", "1")).collect();
    server.eventually("refused", |stats| stats.value("webhook_refused") >= 249);
    assert_eq!(server.stats().value("webhook_refused"), 249, "51 of 300 were passed on");
    // Another client of the same address has the same share, and one of another address has its own.
    server.websocket().request_code("/chat/rust", "3", 420);
    let mut other = Client::connect_from([127, 0, 0, 2].into(), server.address(), Transport::Raw);
    other.shake_hands();
    let id = other.ask("/chat/rust", "2");
    // All of them reach the back end, in any order.
    let (mut waiting, mut of_other) = (Vec::new(), None);
    while waiting.len() < 51 || of_other.is_none() {
        let (event, stream) = back_end.next();
        match event["data"] == 2 {
            true => of_other = Some(stream),
            false => waiting.push(stream),
        }
    }
    reply(of_other.expect("it was found"), "200 OK", "2");
    assert_eq!(other.answer(id).code(), 200);
    // What was answered makes room again.
    waiting.into_iter().for_each(|stream| reply(stream, "200 OK", ""));
    let codes: Vec<u64> = asked.into_iter().map(|id| greedy.answer(id).code()).collect();
    let answered = codes.iter().filter(|code| **code == 200).count();
    assert_eq!((answered, codes.iter().filter(|code| **code == 420).count()), (51, 249));
}

/// Starts a server that asks a back end who clients are.
fn start_asking(files: &ApiFiles, port: u16, auth: &str, more: &str) -> Server {
    files.write("secret", SECRET);
    files.write(
        "quickio.toml",
        &format!(
            "auth = '{auth}'\napp-headers = ['origin', 'cookie']\n\n\
             [app-settings.webhook]\nurl = 'http://127.0.0.1:{port}/hook'\nsecret-file = '{}'\n{more}\n",
            files.path("secret").display()
        ),
    );
    let config = files.path("quickio.toml");
    Server::launch(command(BINARY, &["--config", config.to_str().unwrap(), "--app", "webhook"]))
}

const CONNECT: &str = "events = 'connect'\ntimeout = '20s'";

#[test]
fn a_back_end_authenticates_clients_over_every_transport() {
    let files = ApiFiles::new("connect");
    let back_end = ScriptedBackEnd::start();
    let server = start_asking(&files, back_end.port, "required", CONNECT);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.request_code("/relay/room", "1", 401);
        for (status, body, code, message) in [
            ("401 No", r#"{"error":"not you"}"#, 401, "token invalid"),
            ("403 No", r#"{"error":"token expired"}"#, 401, "token expired"),
            ("200 OK", r#"{"user":"7","expires":1}"#, 401, "token expired"),
            ("503 Busy", "", 503, "authentication unavailable"),
            ("200 OK", "<html>", 503, "authentication unavailable"),
        ] {
            let id = client.ask("/qio/auth", "\"opaque\"");
            let (asked, stream) = back_end.next();
            let name = match transport {
                Transport::Raw => "raw",
                Transport::WebSocket => "websocket",
                Transport::Poll | Transport::Stream => "http",
            };
            assert_eq!(
                (&asked["event"], &asked["token"], &asked["address"], &asked["transport"]),
                (&"connect".into(), &"opaque".into(), &"127.0.0.1".into(), &name.into())
            );
            reply(stream, status, body);
            let answer = client.answer(id);
            assert_eq!((answer.code(), &answer.body["err_msg"]), (code, &message.into()), "{transport:?}");
        }
        // Events that follow the token wait for the answer.
        let id = client.ask("/qio/auth", "\"opaque\"");
        let on = client.ask("/qio/on", "\"/relay/room\"");
        reply(back_end.next().1, "200 OK", r#"{"user":7,"expires":4000000000,"claims":{"role":"admin"}}"#);
        assert_eq!(client.answer(id).body["data"], json!({"user": "7", "expires": 4_000_000_000_u64}));
        assert_eq!(client.answer(on).code(), 200, "{transport:?}");
        let id = client.ask("/qio/auth", "\"another\"");
        reply(back_end.next().1, "200 OK", r#"{"user":"8"}"#);
        assert_eq!(client.answer(id).body["err_msg"], "token of another user");
    }
    let stats = server.stats();
    assert_eq!((stats.value("auth_accepted"), stats.value("auth_refused_app")), (4, 4));
    assert_eq!((stats.value("auth_unavailable"), stats.value("webhook_unusable")), (8, 4));
}

#[test]
fn a_back_end_knows_clients_by_their_request() {
    let files = ApiFiles::new("cookie");
    let back_end = ScriptedBackEnd::start();
    let server = start_asking(&files, back_end.port, "optional", CONNECT);
    let upgraded = |headers: &str| {
        let mut client = Client::connect(server.address(), Transport::WebSocket);
        client.send(http::upgrade(headers).as_bytes());
        assert_eq!(client.head().status, 101);
        client.send(&client.framed("/qio/ohai"));
        assert_eq!(client.text(), "/qio/ohai");
        client
    };
    let cookie = "Cookie: session=1\r\nOrigin: https://shop.example\r\n";
    let known = |answer: &str, headers: &str| {
        let client = upgraded(headers);
        let (asked, stream) = back_end.next();
        reply(stream, "200 OK", answer);
        (client, asked)
    };
    let (mut client, asked) = known(r#"{"user":"7"}"#, cookie);
    let headers = json!({"cookie": "session=1", "origin": "https://shop.example"});
    assert_eq!(
        (&asked["token"], &asked["origin"], &asked["headers"]),
        (&Value::Null, &"https://shop.example".into(), &headers)
    );
    client.ping();
    server.eventually_is("clients_authenticated", 1);
    let (_, asked) = known(r#"{"user":"7"}"#, "Authorization: Bearer opaque\r\nCookie: session=1\r\n");
    assert_eq!(asked["token"], "opaque");
    let (mut nobody, _) = known(r#"{"user":null}"#, cookie);
    nobody.ping();
    upgraded("Origin: https://shop.example\r\n").ping();
    for (status, code, reason) in
        [("401 No", 1008, "token invalid"), ("502 Bad", 1013, "authentication unavailable; try again later")]
    {
        let mut refused = upgraded(cookie);
        reply(back_end.next().1, status, "");
        assert_eq!(refused.ended(), Ended::Close(code, reason.into()));
    }
    // The request that creates a session.
    for (status, code) in [("200 OK", 200), ("401 No", 401), ("500 Oh", 503)] {
        let session = new_session();
        let mut connection = Connection::open(server.address());
        let body = "/relay/room:1=1"; // waits for the answer of the back end
        connection.send(format!(
            "POST /?sid={:032x}&connect=true HTTP/1.1\r\nHost: x\r\n{cookie}Content-Length: {}\r\n\r\n{body}",
            session.0,
            body.len()
        ));
        let (asked, stream) = back_end.next();
        assert_eq!((&asked["transport"], &asked["headers"]), (&"http".into(), &headers));
        reply(stream, status, r#"{"user":"7"}"#);
        assert_eq!(connection.response().head.status, code, "{status}");
    }
}

#[test]
fn clients_are_told_to_try_again_if_the_back_end_is_away() {
    let files = ApiFiles::new("away");
    let port = free_ports("127.0.0.1");
    let server = start_asking(&files, port, "required", "events = 'connect'");
    let mut client = server.websocket();
    for _ in 0..15 {
        let answer = client.request_code("/qio/auth", "\"opaque\"", 503);
        assert_eq!(answer.body["err_msg"], "authentication unavailable");
    }
    let stats = server.stats();
    assert_eq!((stats.value("webhook_failures"), stats.value("webhook_breaker_opened")), (10, 1));
    assert_eq!((stats.value("webhook_skipped"), stats.value("auth_unavailable")), (5, 15));
}

#[test]
fn auth_needs_somebody_who_knows_clients() {
    let files = ApiFiles::new("nobody");
    let port = free_ports("127.0.0.1");
    files.write("secret", SECRET);
    for (events, part) in
        [("events = 'gone'", "auth needs keys"), ("events = 'connect'\nconnect-headers = 'x'", "`x`")]
    {
        let secret = files.path("secret");
        files.write(
            "quickio.toml",
            &format!(
                "auth = 'optional'\napp = ['webhook']\n[app-settings.webhook]\nurl = 'http://127.0.0.1:{port}/'\n\
                 secret-file = '{}'\n{events}\n",
                secret.display()
            ),
        );
        for arguments in [&["check"][..], &[]] {
            let config = files.path("quickio.toml");
            let mut command = Command::new(BINARY);
            command.args(arguments).args(["--config", config.to_str().unwrap()]);
            let output = command.args(["--listen", "127.0.0.1:0", "--admin", "off"]).output().unwrap();
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(part), "{text}");
        }
    }
}
