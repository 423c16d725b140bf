//! The API over real sockets, with shards that only record what they are sent.

use super::*;
use crate::config::Scope;
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
            let ApiMessage::Broadcast(batch) = &message;
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
