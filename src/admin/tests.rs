//! The endpoint over real sockets: every page and status, peers that are slow, silent or hostile, and its end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, UNIX_EPOCH};

use super::connection::{HEAD_BYTES_MAX, HEADERS_MAX};
use super::*;
use crate::inspect::testing::{busy, summary};
use crate::inspect::{ClientDrops, ClientSummary};
use crate::metrics::{AppCounter, AppTiming, Counter, Gauge, Timing};

/// The properties of a server that does not exist.
pub(super) fn info() -> Info {
    Info {
        version: "1.2.3",
        started: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        uptime: Duration::from_millis(2500),
        listen: vec!["127.0.0.1:8080".into(), "unix:/\"q\"".into()],
        shards: 2,
        manual_clock: true,
        certificates: vec![],
        log_lines_dropped: 0,
        log_lines_failed: 0,
        log_lines_suppressed: 0,
        logins: LoginCounts::default(),
    }
}

/// Snapshots of two shards.
pub(super) fn two_shards() -> Vec<Snapshot> {
    let (mut one, mut two) = (Snapshot::with_apps(["qio", "chat"]), Snapshot::with_apps(["qio", "chat"]));
    one.app(1).add(AppCounter::Events, 5);
    two.app(1).add(AppCounter::Events, 6);
    two.app(1).record(AppTiming::Answer, Duration::from_micros(250));
    one.counters.add(Counter::Sends, 10);
    two.counters.add(Counter::Sends, 20);
    one.gauges.set(Gauge::Clients, 1);
    two.gauges.set(Gauge::Clients, 2);
    one.latencies.record(Timing::Turn, 1_000);
    two.latencies.record_n(Timing::Turn, 3_000_000, 2);
    vec![one, two]
}

/// A source with the values that a test needs.
struct Fake {
    info: Info,
    health: Health,
    shards: Option<Vec<Snapshot>>,
    clients: Vec<ClientSummary>,
    advanced_ms: Arc<AtomicU64>,
}

impl Default for Fake {
    fn default() -> Fake {
        Fake {
            info: info(),
            health: Health::Healthy,
            shards: Some(two_shards()),
            clients: (1..=3).rev().map(|number| summary(number, number.into())).collect(),
            advanced_ms: Arc::default(),
        }
    }
}

impl Source for Fake {
    async fn snapshot(&self) -> Option<Rc<[Snapshot]>> {
        self.shards.clone().map(Into::into)
    }

    async fn health(&self) -> Health {
        self.health.clone()
    }

    async fn advance_clock(&self, by: Duration) -> bool {
        self.advanced_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        self.info.manual_clock
    }

    async fn slowest_clients(&self) -> Option<Rc<SlowestClients>> {
        self.shards.as_ref()?;
        Some(Rc::new(SlowestClients { clients: self.clients.clone(), next: None }))
    }

    async fn client(&self, id: ClientId) -> Option<Option<Box<ClientDetails>>> {
        self.shards.as_ref()?;
        let summary = self.clients.iter().find(|client| client.id == id).cloned();
        let details = |summary| ClientDetails {
            summary,
            compressed: false,
            outbox_bytes_max: 1000,
            silent_seconds: 0.5,
            paused: false,
            subscriptions: 1,
            paths: vec!["/a".into()],
            drops: ClientDrops::default(),
        };
        Some(summary.map(details).map(Box::new))
    }

    async fn busiest_paths(&self) -> Option<Rc<BusiestPaths>> {
        self.shards.as_ref()?;
        let mut busiest = BusiestPaths::merge([vec![busy("/busy", 2.5)]]);
        busiest.add_subscribers(&[7]);
        Some(Rc::new(busiest))
    }

    async fn workers(&self) -> Option<Rc<[WorkerStatus]>> {
        self.shards.as_ref()?;
        Some(Rc::new([]))
    }

    fn info(&self) -> Info {
        self.info.clone()
    }
}

/// A time that no test waits for, and one that a test waits for.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(20);

const PATIENT: Bounds =
    Bounds { connections: 1000, handshake: LONG, request: LONG, response: LONG, close: LONG };

/// A running endpoint, the sum of its clock's advances, and its executor.
struct Setup {
    address: SocketAddr,
    advanced_ms: Arc<AtomicU64>,
    _control: ControlExecutor,
}

fn start(bounds: Bounds, fake: Fake) -> Setup {
    start_with(bounds, fake, None)
}

fn start_with(bounds: Bounds, fake: Fake, password: Option<&str>) -> Setup {
    let password = password.map(|password| Zeroizing::new(password.as_bytes().to_vec()));
    let protection = AdminProtection { hosts: vec!["admin.example".into()], tls: None, password };
    let advanced_ms = Arc::clone(&fake.advanced_ms);
    let control = ControlExecutor::start("admin-test").unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let address = serve_within(bounds, &control, &[address], protection, |_| fake).unwrap()[0];
    Setup { address, advanced_ms, _control: control }
}

fn connect(setup: &Setup) -> TcpStream {
    TcpStream::connect(setup.address).unwrap()
}

/// Returns everything that the endpoint sends until it closes or resets the connection.
fn read_all(mut stream: &TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Sends bytes and returns the status, the head and the body of the response.
fn exchange(setup: &Setup, request: &str) -> (u16, String, String) {
    let mut stream = connect(setup);
    stream.write_all(request.as_bytes()).unwrap();
    split(&read_all(&stream))
}

fn split(response: &str) -> (u16, String, String) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}"));
    let (version, rest) = head.split_once(' ').unwrap();
    assert!(["HTTP/1.0", "HTTP/1.1"].contains(&version), "{head}");
    (rest[..3].parse().unwrap(), head.to_owned(), body.to_owned())
}

fn ask(setup: &Setup, method: &str, target: &str) -> (u16, String, String) {
    exchange(setup, &format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.clone().find(|(field, _)| *field == name).unwrap_or_else(|| panic!("{name} in {head}")).1
}

#[test]
fn pages_are_served() {
    let setup = start(PATIENT, Fake::default());
    let (status, head, body) = ask(&setup, "GET", "/stats");
    assert_eq!((status, header(&head, "Content-Type")), (200, "application/json"));
    assert_eq!(header(&head, "Content-Length"), body.len().to_string());
    assert_eq!(header(&head, "Connection"), "close");
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["counters"]["sends"], 30);
    assert!(page["process"]["rss_bytes"].is_u64());

    let (status, head, body) = ask(&setup, "GET", "/metrics?name=value");
    assert_eq!((status, header(&head, "Content-Type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert!(body.contains("\nquickio_sends_total{shard=\"1\"} 20\n"));
    assert!(body.contains("\nquickio_process_rss_bytes "));

    let (status, _, body) = ask(&setup, "GET", "/healthz");
    assert_eq!((status, body.as_str()), (200, "ok\n"));
}

#[test]
fn clients_and_paths_are_served() {
    let setup = start(PATIENT, Fake::default());
    let page = |target: &str| -> serde_json::Value {
        let (status, head, body) = ask(&setup, "GET", target);
        assert_eq!((status, header(&head, "Content-Type")), (200, "application/json"), "{target}");
        serde_json::from_str(&body).unwrap()
    };
    let ids = |page: &serde_json::Value| -> Vec<String> {
        page["clients"]
            .as_array()
            .unwrap()
            .iter()
            .map(|client| client["id"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!(ids(&page("/clients")), ["0.3.1", "0.2.1", "0.1.1"]);
    assert_eq!(ids(&page("/clients?slowest=2")), ["0.3.1", "0.2.1"]);
    let client = page("/clients/0.2.1");
    assert_eq!((&client["id"], &client["outbox_bytes"]), (&"0.2.1".into(), &2.into()));
    assert_eq!((&client["paths"][0], &client["user"]), (&"/a".into(), &serde_json::Value::Null));
    assert_eq!(client["drops"]["requests_refused"], 0);
    let busiest = page("/paths/busiest?count=5");
    assert_eq!(busiest["paths"][0]["path"], "/busy");
    assert_eq!(busiest["paths"][0]["subscribers"], 7);
    assert_eq!(page("/workers"), serde_json::json!({"workers": []}));
    let (status, head, body) = ask(&setup, "GET", "/");
    assert_eq!((status, header(&head, "Content-Type")), (200, "text/html; charset=utf-8"));
    assert!(body.starts_with("<!doctype html>"));
}

#[test]
fn a_password_protects_everything_but_the_health() {
    let setup = start_with(PATIENT, Fake::default(), Some("correct horse"));
    let ask = |target: &str, credentials: &str| {
        let authorization = match credentials {
            "" => String::new(),
            credentials => format!("Authorization: Basic {credentials}\r\n"),
        };
        exchange(&setup, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n"))
    };
    // `printf 'operator:correct horse' | base64`, and the same with `wrong`.
    let (right, wrong) = ("b3BlcmF0b3I6Y29ycmVjdCBob3JzZQ==", "b3BlcmF0b3I6d3Jvbmc=");
    for target in [
        "/",
        "/page.js",
        "/stats",
        "/metrics",
        "/histograms",
        "/clients",
        "/clients/0.1.1",
        "/paths/busiest",
        "/workers",
    ] {
        let (status, head, _) = ask(target, "");
        assert_eq!(
            (status, header(&head, "Www-Authenticate").starts_with("Basic realm=")),
            (401, true),
            "{target}"
        );
        assert_eq!(ask(target, right).0, 200, "{target}");
    }
    assert_eq!(ask("/nothing", "").0, 401, "no stranger learns which pages there are");
    assert_eq!(ask("/nothing", right).0, 404);
    assert_eq!(ask("/healthz", "").0, 200);
    assert_eq!(ask("/stats", wrong).0, 401);
    let stats: serde_json::Value = serde_json::from_str(&ask("/stats", right).2).unwrap();
    assert_eq!(stats["server"]["admin_logins_failed"], 1);
    assert!(ask("/metrics", right).2.contains("\nquickio_admin_logins_failed_total 1\n"));
    let refused = (0..20).map(|_| ask("/stats", wrong).0).find(|status| *status == 429);
    assert_eq!(refused, Some(429), "an address that guesses has to wait");
    let (status, head, _) = ask("/stats", right);
    assert_eq!((status, header(&head, "Retry-After")), (429, "6"));
}

#[test]
fn heads_have_no_body() {
    let setup = start(PATIENT, Fake::default());
    for page in ["/", "/stats", "/histograms", "/metrics", "/healthz", "/clients", "/workers"] {
        let (status, head, body) = ask(&setup, "HEAD", page);
        assert_eq!((status, body.as_str()), (200, ""), "{page}");
        assert!(header(&head, "Content-Length").parse::<usize>().unwrap() > 0);
    }
    let (status, _, body) = ask(&setup, "HEAD", "/nothing");
    assert_eq!((status, body.as_str()), (404, ""));
}

#[test]
fn bad_requests_are_answered_with_the_reason() {
    let setup = start(PATIENT, Fake::default());
    for (method, target, expected, allow) in [
        ("GET", "/page.html", 404, ""),
        ("GET", "/clients/", 400, ""),
        ("GET", "/clients/0.1", 400, ""),
        ("GET", "/clients/0.99.1", 404, ""),
        ("GET", "/clients?slowest=101", 400, ""),
        ("GET", "/paths/busiest?count=0", 400, ""),
        ("GET", "/paths", 404, ""),
        ("GET", "/histograms?latency=nothing", 404, ""),
        ("POST", "/", 405, "GET, HEAD"),
        ("POST", "/clients/0.1.1", 405, "GET, HEAD"),
        ("GET", "/stats/", 404, ""),
        ("GET", "/../stats", 404, ""),
        ("GET", "/Stats", 404, ""),
        ("DELETE", "/nothing", 404, ""),
        ("POST", "/stats", 405, "GET, HEAD"),
        ("DELETE", "/metrics", 405, "GET, HEAD"),
        ("POST", "/histograms", 405, "GET, HEAD"),
        ("OPTIONS", "/healthz", 405, "GET, HEAD"),
        ("GET", "/clock?advance=1", 405, "POST"),
        ("HEAD", "/clock", 405, "POST"),
    ] {
        let (status, head, _) = ask(&setup, method, target);
        assert_eq!(status, expected, "{method} {target}");
        if !allow.is_empty() {
            assert_eq!(header(&head, "Allow"), allow, "{method} {target}");
        }
    }
    const NO_HTTP: &str = "not an HTTP/1.1 request\n";
    const LARGE: &str = "head too large\n";
    const HOST: &str = "one Host header is needed\n";
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
    let many = format!("GET /stats HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX));
    for (request, expected, body) in [
        ("nonsense\r\n\r\n", 400, NO_HTTP),
        ("GET /stats\r\n\r\n", 400, NO_HTTP),
        ("GET /stats HTTP/1.1\r\n\r\n", 400, HOST),
        ("GET /stats HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, HOST),
        ("GET /stats HTTP/1.1\r\nHost localhost\r\n\r\n", 400, NO_HTTP),
        ("GET /stats HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, NO_HTTP),
        ("GET /stats HTTP/3.0\r\nHost: a\r\n\r\n", 400, NO_HTTP),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, NO_HTTP),
        ("\u{16}\u{3}\u{1}\u{2}", 400, NO_HTTP),
        (long.as_str(), 431, LARGE),
        (many.as_str(), 431, LARGE),
    ] {
        let (status, head, text) = exchange(&setup, request);
        assert_eq!((status, text.as_str()), (expected, body), "{request:.60}");
        assert_eq!(header(&head, "Connection"), "close", "{request:.60}");
    }
}

#[test]
fn requests_of_every_form_are_answered() {
    let setup = start(PATIENT, Fake::default());
    for request in [
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.1\nHost: localhost\n\n",
        "GET /healthz? HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET http://localhost:1/healthz?b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let (status, _, body) = exchange(&setup, request);
        assert_eq!((status, body.as_str()), (200, "ok\n"), "{request:?}");
    }
    // The peer may close its side after its request.
    let mut stream = connect(&setup);
    stream.write_all(HEALTHZ.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(split(&read_all(&stream)).0, 200);
}

#[test]
fn the_manual_clock_is_advanced() {
    let setup = start(PATIENT, Fake::default());
    let (status, _, body) = ask(&setup, "POST", "/clock?advance=1500");
    assert_eq!((status, body.as_str()), (200, "{\"advanced_ms\":1500}\n"));
    assert_eq!(setup.advanced_ms.load(Ordering::SeqCst), 1500);
    for target in ["/clock", "/clock?advance=soon", "/clock?advance=-1"] {
        assert_eq!(ask(&setup, "POST", target).0, 400, "{target}");
    }
    assert_eq!(setup.advanced_ms.load(Ordering::SeqCst), 1500);
}

#[test]
fn the_system_clock_is_not_advanced() {
    let setup = start(PATIENT, Fake { info: Info { manual_clock: false, ..info() }, ..Fake::default() });
    for method in ["GET", "POST"] {
        assert_eq!(ask(&setup, method, "/clock?advance=1500").0, 404);
    }
    assert_eq!(setup.advanced_ms.load(Ordering::SeqCst), 0);
}

#[test]
fn an_unhealthy_server_answers_503() {
    let health = Health::Unhealthy("shard 1 does not answer".into());
    let setup = start(PATIENT, Fake { health, shards: None, ..Fake::default() });
    assert_eq!(ask(&setup, "GET", "/stats").0, 503);
    assert_eq!(ask(&setup, "GET", "/metrics").0, 503);
    for target in ["/clients", "/clients/0.1.1", "/paths/busiest", "/workers"] {
        assert_eq!(ask(&setup, "GET", target).0, 503, "{target}");
    }
    let (status, _, body) = ask(&setup, "GET", "/healthz");
    assert_eq!((status, body.as_str()), (503, "shard 1 does not answer\n"));
}

#[test]
fn requests_may_arrive_byte_by_byte_and_have_a_body() {
    let setup = start(PATIENT, Fake::default());
    let mut stream = connect(&setup);
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(split(&read_all(&stream)).0, 200);

    let body = "x".repeat(20_000);
    let head = "POST /clock?advance=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n";
    let request = format!("{head}{body}");
    let (status, _, body) = exchange(&setup, &request);
    assert_eq!(
        (status, body.as_str()),
        (200, "{\"advanced_ms\":1}\n"),
        "the unread body does not destroy the response"
    );
}

#[test]
fn a_peer_that_does_not_complete_its_request_gets_408() {
    let setup = start(Bounds { request: SHORT, ..PATIENT }, Fake::default());
    assert_eq!(ask_again(&setup, "GET /stats HT").0, 408);
    let silent = connect(&setup);
    assert_eq!(read_all(&silent), "", "a peer that has sent nothing gets nothing");
}

#[test]
fn a_peer_that_does_not_read_is_disconnected() {
    // More than the kernel holds for any connection.
    const BYTES: usize = 64 << 20;
    let health = Health::Unhealthy("x".repeat(BYTES));
    let setup = start(Bounds { response: SHORT, ..PATIENT }, Fake { health, ..Fake::default() });
    let mut stream = connect(&setup);
    stream.write_all(HEALTHZ.as_bytes()).unwrap();
    // Longer than the peer has to read the response.
    std::thread::sleep(SHORT * 10);
    assert!(read_all(&stream).len() < BYTES, "only the bytes that the kernel held have arrived");
    assert_eq!(ask(&setup, "GET", "/metrics").0, 200);
}

#[test]
fn idle_peers_do_not_delay_others() {
    let setup = start(PATIENT, Fake::default());
    let idle: Vec<TcpStream> = (0..200).map(|_| connect(&setup)).collect();
    assert_eq!(ask(&setup, "GET", "/healthz").0, 200);
    drop(idle);
}

#[test]
fn one_connection_too_many_is_refused() {
    let setup = start(Bounds { connections: 2, ..PATIENT }, Fake::default());
    let mut first = connect(&setup);
    let second = connect(&setup);
    for _ in 0..3 {
        let (status, _, body) = split(&read_all(&connect(&setup)));
        assert_eq!((status, body.as_str()), (503, "too many connections\n"));
    }
    first.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(split(&read_all(&first)).0, 200);
    drop((first, second));
    // The endpoint notices a moment later that they have disconnected.
    let deadline = Instant::now() + LONG;
    while ask_again(&setup, HEALTHZ).0 == 503 {
        assert!(Instant::now() < deadline, "connections are refused forever");
    }
}

#[test]
fn a_request_must_name_an_allowed_host() {
    let setup = start(PATIENT, Fake::default());
    for (host, expected) in [
        ("127.0.0.1:8081", 200),
        ("[::1]", 200),
        ("localhost:9090", 200),
        ("Admin.Example", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8081", 421),
        ("", 421),
    ] {
        for target in ["/healthz", "/stats", "/metrics", "/nothing"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let (status, _, body) = exchange(&setup, &request);
            let expected = if target == "/nothing" && expected == 200 { 404 } else { expected };
            assert_eq!(status, expected, "{host} {target}");
            assert_eq!(body.contains("admin-hosts"), expected == 421, "{body}");
        }
    }
    let (status, _, body) = exchange(&setup, "POST /clock?advance=1 HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!((status, setup.advanced_ms.load(Ordering::SeqCst)), (421, 0), "{body}");
}

const HEALTHZ: &str = "GET /healthz HTTP/1.0\r\n\r\n";

/// Sends bytes until there is a response. If the time for requests is short, they may arrive too late on a busy
/// machine, and the connection is closed without a response.
fn ask_again(setup: &Setup, request: &str) -> (u16, String, String) {
    loop {
        let mut stream = connect(setup);
        let _ = stream.write_all(request.as_bytes());
        let response = read_all(&stream);
        if !response.is_empty() {
            return split(&response);
        }
    }
}

#[test]
fn stopping_ends_all_connections_and_frees_the_address() {
    let setup = start(PATIENT, Fake::default());
    let address = setup.address;
    let mut half = connect(&setup);
    half.write_all(b"GET /st").unwrap();
    let idle = connect(&setup);
    assert_eq!(ask(&setup, "GET", "/healthz").0, 200);
    drop(setup);
    assert_eq!(read_all(&half), "");
    assert_eq!(read_all(&idle), "");
    TcpListener::bind(address).unwrap();
}

#[test]
fn the_error_names_an_address_in_use() {
    let setup = start(PATIENT, Fake::default());
    let control = ControlExecutor::start("admin-test").unwrap();
    let error =
        serve(&control, &[setup.address], AdminProtection::default(), |_| Fake::default()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(&setup.address.to_string()) && message.contains("setting admin"), "{message}");
}

#[test]
fn random_input_does_no_harm() {
    let seed = seed();
    let mut random = seed;
    let setup = start(Bounds { request: SHORT, response: SHORT, close: SHORT, ..PATIENT }, Fake::default());
    let deadline = Instant::now() + fuzz_time();
    while Instant::now() < deadline {
        let mut stream = connect(&setup);
        let _ = stream.write_all(&noise(&mut random));
        if next(&mut random) % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let response = read_all(&stream);
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 "), "seed {seed}: {response:?}");
    }
    assert_eq!(ask_again(&setup, HEALTHZ).0, 200, "seed {seed}");
}

/// Returns pieces of requests and random bytes, mixed.
fn noise(random: &mut u64) -> Vec<u8> {
    const PIECES: [&[u8]; 8] = [
        b"GET ",
        b"POST /clock?advance=",
        b"/stats",
        b" HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\xff\x00",
    ];
    let mut bytes = Vec::new();
    for _ in 0..next(random) % 8 {
        match next(random) % 4 {
            0 => bytes.extend_from_slice(&next(random).to_le_bytes()),
            _ => bytes.extend_from_slice(PIECES[(next(random) % 8) as usize]),
        }
    }
    bytes
}

/// The generator xorshift64.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

fn seed() -> u64 {
    let given = std::env::var("QUICKIO_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let of_time = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = given.unwrap_or_else(of_time) | 1;
    println!("QUICKIO_FUZZ_SEED={seed}");
    seed
}

fn fuzz_time() -> Duration {
    let given = std::env::var("QUICKIO_FUZZ_MILLIS").ok().and_then(|text| text.parse().ok());
    Duration::from_millis(given.unwrap_or(300))
}
