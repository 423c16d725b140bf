//! The API over real sockets, with shards that only record what they are sent.

use super::*;
use crate::client::ClientId;
use crate::config::Scope;
use crate::event::path::Path;
use crate::history::EventsPage;
use crate::metrics::{Counter, Counters};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const ALL: &str = "secret-of-all-scopes";
const READER: &str = "secret-of-the-reader";

/// Shards that record the events that they are to broadcast.
#[derive(Clone, Default)]
struct FakeShards {
    broadcasts: Arc<Mutex<Vec<(usize, String, String)>>>,
    /// Batches that the shards have not handled yet.
    waiting: Arc<Mutex<Vec<ApiMessage>>>,
    is_full: Arc<AtomicBool>,
    is_silent: Arc<AtomicBool>,
    questions: Arc<Mutex<Vec<String>>>,
    keeps: Arc<AtomicBool>,
}

impl Shards for FakeShards {
    fn count(&self) -> usize {
        2
    }

    fn of_path(&self, path: &str) -> usize {
        path.len() % 2
    }

    fn post_all(&self, messages: Vec<(usize, ApiMessage)>) -> Result<(), ShardsBusy> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(ShardsBusy);
        }
        for (shard, message) in messages {
            let batch = match &message {
                ApiMessage::Broadcast(batch) => batch,
                ApiMessage::Ask(question) => {
                    self.reply(shard, question);
                    continue;
                }
            };
            for number in 0..batch.len() {
                let (path, data) = batch.event(number);
                self.broadcasts.lock().unwrap().push((shard, path.as_str().into(), data.into()));
            }
            if self.keeps.load(Ordering::SeqCst) {
                self.waiting.lock().unwrap().push(message);
            }
        }
        Ok(())
    }
}

impl FakeShards {
    /// Replies as a shard with two clients, one of which is not subscribed, and a path.
    fn reply(&self, shard: usize, question: &ApiQuestion) {
        self.questions.lock().unwrap().push(format!("{shard} {:?}", question.work));
        let reply = match &question.work {
            ApiWork::Act { .. } => ApiReply::Done { clients: 2, refused: 1 },
            ApiWork::Paths { from, .. } => {
                let row = |text| PathCount { path: Path::parse(text).unwrap(), subscribers: 3 };
                let (paths, next) = match (shard, from) {
                    (0, 0) => (vec![row("/a")], Some(7)),
                    (0, _) => (vec![], None),
                    _ => (vec![row("/b")], None),
                };
                ApiReply::Paths { paths, next }
            }
            ApiWork::Counts(paths) => ApiReply::Counts(vec![10; paths.len()]),
            ApiWork::Clients { .. } => {
                let client = ClientId { shard: shard as u16, slot: 1, generation: 2 };
                let (user, address) = (Some("ada".into()), "127.0.0.1:9".into());
                let entry = ClientEntry { client, user, address, transport: "raw", subscriptions: 4 };
                ApiReply::Clients { clients: vec![entry], next: None }
            }
            ApiWork::Events { path, .. } if path.as_str() == "/kept" => {
                let at = "e7f3.1044".parse().unwrap();
                ApiReply::Events(Some(EventsPage { at, first: 1044, events: vec!["[1, 2]".into()] }))
            }
            ApiWork::Events { .. } => ApiReply::Events(None),
            ApiWork::Totals => ApiReply::Totals(ApiTotals { clients: 5, identified: 1, subscriptions: 7 }),
        };
        if !self.is_silent.load(Ordering::SeqCst) {
            question.reply.clone().try_send((shard as u16, reply)).unwrap();
        }
    }
}

/// A running API.
struct Setup {
    address: SocketAddr,
    shards: FakeShards,
    keys: ApiKeys,
    counters: Arc<SharedCounters>,
    _control: ControlExecutor,
}

fn key(name: &str, secret: &str, scopes: &[Scope]) -> ApiKey {
    ApiKey::new(name, secret.as_bytes(), scopes.iter().copied().collect()).unwrap()
}

fn start() -> Setup {
    start_with(ApiBounds { body_bytes: 10_000, bytes: 100_000 }, ApiTimes::default())
}

fn start_with(bounds: ApiBounds, times: ApiTimes) -> Setup {
    let control = ControlExecutor::start("api-test").unwrap();
    let shards = FakeShards::default();
    let keys = ApiKeys::new(vec![key("all", ALL, Scope::ALL), key("reader", READER, &[Scope::Read])]);
    let counters = Arc::new(SharedCounters::new());
    let parts = ApiParts { tls: None, keys: keys.clone(), bounds, counters: Arc::clone(&counters) };
    let of_endpoint = shards.clone();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let address = serve_within(times, &control, &[address], parts, |_| of_endpoint).unwrap()[0];
    Setup { address, shards, keys, counters, _control: control }
}

impl Setup {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    fn count(&self, counter: Counter) -> u64 {
        let mut counters = Counters::new();
        self.counters.add_to(&mut counters);
        counters.get(counter)
    }

    fn take_broadcasts(&self) -> Vec<(usize, String, String)> {
        std::mem::take(&mut *self.shards.broadcasts.lock().unwrap())
    }

    /// Sends one request on a connection of its own; returns the status, the head and the body of the response.
    fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        read_response(&mut stream)
    }

    fn broadcast(&self, kind: &str, more: &str, body: &str) -> (u16, String) {
        let headers = format!("Authorization: Bearer {ALL}\r\nContent-Type: {kind}\r\n{more}");
        let (status, _, body) = self.ask("POST", "/broadcast", &headers, body);
        (status, body)
    }

    fn lines(&self, body: &str) -> (u16, String) {
        self.broadcast("text/plain", "", body)
    }
}

/// Reads one response with a length.
fn read_response(stream: &mut TcpStream) -> (u16, String, String) {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "no response: {}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), head, String::from_utf8(body).unwrap())
}

#[test]
fn broadcasts_reach_their_shards() {
    let setup = start();
    let body = "/a:0=1\n/bb:0={\"x\":2}\n/c:0=\n";
    assert_eq!(setup.lines(body), (200, "{\"accepted\":3}\n".into()));
    let expected = [(0, "/a", "1"), (0, "/c", ""), (1, "/bb", "{\"x\":2}")];
    let owned = |events: &[(usize, &str, &str)]| -> Vec<(usize, String, String)> {
        events.iter().map(|(shard, path, data)| (*shard, (*path).into(), (*data).into())).collect()
    };
    assert_eq!(setup.take_broadcasts(), owned(&expected));
    let json = r#"[{"path":"/a","data":[1, 2]}]"#;
    let (status, body) = setup.broadcast("Application/JSON; charset=utf-8", "", json);
    assert_eq!((status, body.as_str()), (200, "{\"accepted\":1}\n"));
    assert_eq!(setup.take_broadcasts(), owned(&[(0, "/a", "[1, 2]")]));
    assert_eq!(setup.lines(""), (200, "{\"accepted\":0}\n".into()));
    assert_eq!((setup.count(Counter::ApiEvents), setup.count(Counter::ApiRequests)), (4, 3));
}

#[test]
fn a_request_with_a_bad_line_broadcasts_nothing() {
    let setup = start();
    let (status, body) = setup.lines("/a:0=1\n/b\n");
    assert_eq!(status, 400);
    let expected =
        r#"{"error":"line 2: there is no `:` behind the event path; write /path:0=JSON","line":2}"#;
    assert_eq!(body.trim_end(), expected);
    let (status, body) = setup.broadcast("application/json", "", r#"[{"path":"/a"},{"path":"b"}]"#);
    assert_eq!(status, 400);
    assert_eq!(body.trim_end(), r#"{"error":"event 2: the path must begin with a slash","event":2}"#);
    assert_eq!(setup.take_broadcasts(), []);
    assert_eq!(setup.count(Counter::ApiRefusedInvalid), 2);
}

#[test]
fn keys_and_scopes_are_checked() {
    let setup = start();
    let status = |authorization: &str| {
        let headers = format!("{authorization}Content-Type: text/plain\r\n");
        let (status, head, _) = setup.ask("POST", "/broadcast", &headers, "/a:0=1");
        assert_eq!(status == 401, head.contains("Www-Authenticate: Bearer realm=\"quickio\"\r\n"), "{head}");
        status
    };
    assert_eq!(status(""), 401);
    assert_eq!(status("Authorization: Bearer secret-of-nobody-at-all\r\n"), 401);
    assert_eq!(status(&format!("Authorization: Basic {ALL}\r\n")), 401);
    assert_eq!(status("Authorization: Bearer\r\n"), 401);
    assert_eq!(status(&format!("Authorization: Bearer {READER}\r\n")), 403);
    assert_eq!(status(&format!("authorization: bearer {ALL}\r\n")), 200);
    assert_eq!(setup.take_broadcasts().len(), 1);
    setup.keys.set(vec![key("new", READER, &[Scope::Broadcast])]);
    assert_eq!(status(&format!("Authorization: Bearer {ALL}\r\n")), 401);
    assert_eq!(status(&format!("Authorization: Bearer {READER}\r\n")), 200);
    assert_eq!((setup.count(Counter::ApiRefusedKey), setup.count(Counter::ApiRefusedScope)), (5, 1));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let setup = start();
    assert_eq!(setup.ask("GET", "/nothing", "", "").0, 404);
    let (status, head, _) = setup.ask("GET", "/broadcast", "", "");
    assert!(status == 405 && head.contains("Allow: POST\r\n"), "{head}");
    assert_eq!(setup.broadcast("text/html", "", "/a:0=1").0, 415);
    assert_eq!(setup.broadcast("application/json", "", "{").0, 400);
    assert_eq!(setup.broadcast("text/plain", "Idempotency-Key: \r\n", "/a:0=1").0, 400);
    assert_eq!(setup.broadcast("text/plain", "Idempotency-Key: a b\r\n", "/a:0=1").0, 400);
    let (status, _, document) = setup.ask("GET", "/openapi.json", "", "");
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(status, 200);
    assert!(document["paths"]["/broadcast"]["post"].is_object(), "{document}");
    assert_eq!(setup.ask("DELETE", "/openapi.json", "", "").0, 405);
    assert_eq!(setup.take_broadcasts(), []);
}

#[test]
fn large_bodies_are_refused_before_they_are_received() {
    let setup = start();
    let mut stream = setup.connect();
    let head = format!("POST /broadcast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALL}\r\n");
    write!(stream, "{head}Content-Type: text/plain\r\nContent-Length: 10001\r\n\r\n").unwrap();
    let (status, _, body) = read_response(&mut stream);
    assert_eq!(status, 413);
    assert!(body.contains("api-body-bytes-max"), "{body}");
    // A body in chunks announces no length.
    let mut stream = setup.connect();
    write!(stream, "{head}Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..11 {
        // The server may have refused already.
        let _ = write!(stream, "3e8\r\n{}\r\n", "x".repeat(1000));
    }
    assert_eq!(read_response(&mut stream).0, 413);
    assert_eq!(setup.lines(&format!("/a:0=\"{}\"", "x".repeat(10_000 - 7))).0, 200);
}

#[test]
fn a_full_shard_refuses_the_whole_request_for_now() {
    let setup = start();
    setup.shards.is_full.store(true, Ordering::SeqCst);
    let headers =
        format!("Authorization: Bearer {ALL}\r\nContent-Type: text/plain\r\nIdempotency-Key: k\r\n");
    let (status, head, _) = setup.ask("POST", "/broadcast", &headers, "/a:0=1");
    assert!(status == 503 && head.contains("Retry-After: 1\r\n"), "{head}");
    assert_eq!(setup.count(Counter::ApiRefusedBusy), 1);
    // What was refused may be repeated under the same key.
    setup.shards.is_full.store(false, Ordering::SeqCst);
    assert_eq!(setup.ask("POST", "/broadcast", &headers, "/a:0=1").0, 200);
    assert_eq!(setup.take_broadcasts().len(), 1);
}

#[test]
fn the_memory_of_all_requests_is_bounded() {
    let setup = start_with(ApiBounds { body_bytes: 10_000, bytes: 20_000 }, ApiTimes::default());
    setup.shards.keeps.store(true, Ordering::SeqCst);
    let body = format!("/a:0=\"{}\"", "x".repeat(8_000));
    assert_eq!(setup.lines(&body).0, 200);
    assert_eq!(setup.lines(&body).0, 200);
    let (status, error) = setup.lines(&body);
    assert_eq!(status, 503, "{error}");
    assert!(error.contains("api-bytes-max"), "{error}");
    // The shards handle them.
    setup.shards.waiting.lock().unwrap().clear();
    assert_eq!(setup.lines(&body).0, 200);
}

#[test]
fn a_repeated_request_is_answered_and_not_repeated() {
    let setup = start();
    let keyed = |key: &str, kind: &str, body: &str| {
        setup.broadcast(kind, &format!("Idempotency-Key: {key}\r\n"), body)
    };
    assert_eq!(keyed("k", "text/plain", "/a:0=1"), (200, "{\"accepted\":1}\n".into()));
    assert_eq!(keyed("k", "text/plain", "/a:0=1"), (200, "{\"accepted\":1}\n".into()));
    assert_eq!(setup.take_broadcasts().len(), 1);
    let (status, body) = keyed("k", "text/plain", "/a:0=2");
    assert_eq!(status, 422, "{body}");
    assert_eq!(keyed("other", "text/plain", "/a:0=1").0, 200);
    // A request that was refused has done nothing.
    assert_eq!(keyed("bad", "text/plain", "/a").0, 400);
    assert_eq!(keyed("bad", "text/plain", "/a:0=1").0, 200);
    assert_eq!(setup.count(Counter::ApiReplayed), 1);
}

impl Setup {
    fn json(&self, key: &str, method: &str, target: &str, body: &str) -> (u16, String) {
        let headers = format!("Authorization: Bearer {key}\r\nContent-Type: application/json\r\n");
        let (status, _, body) = self.ask(method, target, &headers, body);
        (status, body.trim_end().to_owned())
    }

    fn take_questions(&self) -> Vec<String> {
        std::mem::take(&mut *self.shards.questions.lock().unwrap())
    }
}

#[test]
fn commands_go_to_the_shard_of_a_client_or_to_all_shards() {
    let setup = start();
    let post = |target, body| setup.json(ALL, "POST", target, body);
    assert_eq!(post("/send", r#"{"client":"1.2.3","path":"/a","data":7}"#), (200, r#"{"clients":2}"#.into()));
    let questions = setup.take_questions();
    assert!(
        questions.len() == 1 && questions[0].starts_with("1 Act { target: Client(1.2.3)"),
        "{questions:?}"
    );
    assert_eq!(post("/on", r#"{"user":"7","path":"/a"}"#), (200, r#"{"clients":4,"refused":2}"#.into()));
    assert_eq!(setup.take_questions().len(), 2);
    assert_eq!(post("/off", r#"{"user":"7","path":"/a"}"#), (200, r#"{"clients":4}"#.into()));
    assert_eq!(post("/close", r#"{"user":"7","reason":"bye"}"#), (200, r#"{"clients":4}"#.into()));
    setup.take_questions();
    // A shard that does not exist has no clients.
    assert_eq!(post("/close", r#"{"client":"2.2.3"}"#), (200, r#"{"clients":0}"#.into()));
    assert_eq!(post("/send", r#"{"path":"/a"}"#).0, 400);
    assert_eq!(setup.take_questions(), [""; 0]);
    let text = format!("Authorization: Bearer {ALL}\r\nContent-Type: text/plain\r\n");
    assert_eq!(setup.ask("POST", "/send", &text, "{}").0, 415);
    for target in ["/send", "/close", "/on", "/off"] {
        assert_eq!(setup.json(READER, "POST", target, "{}").0, 403, "{target}");
        assert_eq!(setup.json(ALL, "GET", target, "").0, 405, "{target}");
    }
}

#[test]
fn lists_are_made_of_the_replies_of_all_shards() {
    let setup = start();
    let get = |target| setup.json(READER, "GET", target, "");
    let paths = r#"{"paths":[{"path":"/a","subscribers":13},{"path":"/b","subscribers":3}],"next":null}"#;
    assert_eq!(get("/paths"), (200, paths.into()));
    let first = r#"{"paths":[{"path":"/a","subscribers":13}],"next":"0.7"}"#;
    assert_eq!(get("/paths?limit=1&prefix=%2F"), (200, first.into()));
    let second = r#"{"paths":[{"path":"/b","subscribers":3}],"next":null}"#;
    assert_eq!(get("/paths?limit=1&next=0.7"), (200, second.into()));
    let client = |shard| {
        format!(
            r#"{{"client":"{shard}.1.2","user":"ada","address":"127.0.0.1:9","transport":"raw","subscriptions":4}}"#
        )
    };
    let clients = format!(r#"{{"clients":[{},{}],"next":null}}"#, client(0), client(1));
    assert_eq!(get("/clients?user=ada"), (200, clients));
    let (status, info) = get("/info");
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!((status, &info["clients"], &info["subscriptions"]), (200, &10.into(), &14.into()));
    assert_eq!(get("/paths?user=7").0, 400);
    assert_eq!(get("/paths?next=9.0"), (200, r#"{"paths":[],"next":null}"#.into()));
    assert_eq!(setup.json("secret-of-nobody-at-all", "GET", "/info", "").0, 401);
}

#[test]
fn the_shard_that_numbers_a_path_is_asked_for_its_events() {
    let setup = start();
    let get = |target: &str| setup.json(READER, "GET", target, "");
    let page = r#"{"at":"e7f3.1044","events":[[1044,[1, 2]]]}"#;
    assert_eq!(get("/history?path=/kept&before=e7f3.1045&limit=2"), (200, page.into()));
    let questions = setup.take_questions();
    assert!(
        matches!(&questions[..], [question] if question.starts_with("1 Events") && question.ends_with("limit: 2 }")),
        "{questions:?}"
    );
    let (status, error) = get("/history?path=/other");
    assert!(status == 404 && error.contains("no events of this path are kept"), "{status} {error}");
    for (query, expected) in [
        ("", "the parameter path is needed"),
        ("?path=", "the path is empty"),
        ("?path=kept", "the path must begin with a slash"),
        ("?path=/kept//a", "the path has characters or slashes"),
        ("?path=/qio/on", "/qio is the server's own namespace"),
    ] {
        let (status, error) = get(&format!("/history{query}"));
        assert!(status == 400 && error.contains(expected), "{query}: {status} {error}");
    }
    assert_eq!(setup.json("secret-of-nobody-at-all", "GET", "/history?path=/kept", "").0, 401);
}

#[test]
fn shards_that_do_not_reply_are_not_waited_for() {
    let setup = start();
    setup.shards.is_silent.store(true, Ordering::SeqCst);
    let headers =
        format!("Authorization: Bearer {ALL}\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\n");
    let body = r#"{"user":"7","path":"/a"}"#;
    assert_eq!(setup.ask("POST", "/send", &headers, body).0, 504);
    // It may have been carried out, and is not repeated.
    setup.shards.is_silent.store(false, Ordering::SeqCst);
    assert_eq!(setup.ask("POST", "/send", &headers, body).0, 504);
    assert_eq!(setup.count(Counter::ApiReplayed), 1);
    setup.shards.is_full.store(true, Ordering::SeqCst);
    assert_eq!(setup.json(ALL, "GET", "/info", "").0, 503);
}

/// The document describes each path that there is, and no other.
#[test]
fn the_document_has_all_paths_and_statuses() {
    let setup = start();
    let (_, _, document) = setup.ask("GET", "/openapi.json", "", "");
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let other = if method == "get" { "POST" } else { "GET" };
            assert_eq!(setup.json(ALL, other, path, "").0, 405, "{other} {path}");
            assert_ne!(setup.json(ALL, &method.to_uppercase(), path, "").0, 404, "{method} {path}");
        }
    }
    let mut names: Vec<&str> = paths.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "/broadcast",
        "/clients",
        "/close",
        "/history",
        "/info",
        "/off",
        "/on",
        "/openapi.json",
        "/paths",
        "/send",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_connection_carries_many_requests() {
    let setup = start();
    let mut stream = setup.connect();
    for number in 0..3 {
        let body = format!("/a:0={number}");
        write!(
            stream,
            "POST /broadcast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALL}\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        assert_eq!(read_response(&mut stream).0, 200);
    }
    assert_eq!(setup.take_broadcasts().len(), 3);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the server closes its side too");
}

#[test]
fn slow_peers_are_given_up() {
    let short = Duration::from_millis(50);
    let bounds = ApiBounds { body_bytes: 10_000, bytes: 100_000 };
    let setup = start_with(bounds, ApiTimes { head: short, body: short, ..ApiTimes::default() });
    let mut idle = setup.connect();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "no request came");
    let mut slow = setup.connect();
    write!(
        slow,
        "POST /broadcast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALL}\r\nContent-Type: text/plain\r\n\
         Content-Length: 10\r\n\r\n/a:0"
    )
    .unwrap();
    assert_eq!(read_response(&mut slow).0, 408);
    assert_eq!(setup.take_broadcasts(), []);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let setup = start();
    let control = ControlExecutor::start("api-test").unwrap();
    let parts = ApiParts {
        tls: None,
        keys: setup.keys.clone(),
        bounds: ApiBounds { body_bytes: 1, bytes: 1 },
        counters: Arc::default(),
    };
    let error = serve(&control, &[setup.address], parts, |_| FakeShards::default()).unwrap_err();
    assert!(error.to_string().contains(&setup.address.to_string()), "{error}");
}
