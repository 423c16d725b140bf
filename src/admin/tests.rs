//! The endpoint over real sockets: every page and status, peers that are slow, silent or hostile, and its end.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use std::time::UNIX_EPOCH;

use super::*;
use crate::metrics::{Counter, Gauge, Timing};

/// Settings of a server that never was.
pub(super) fn info() -> Info {
    Info {
        version: "1.2.3",
        started: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        uptime: Duration::from_millis(2500),
        listen: vec!["127.0.0.1:8080".into(), "unix:/\"q\"".into()],
        shards: 2,
        manual_clock: true,
        log_lines_dropped: 0,
    }
}

/// What two shards may have counted.
pub(super) fn two_shards() -> Vec<Snapshot> {
    let (mut one, mut two) = (Snapshot::new(), Snapshot::new());
    one.counters.add(Counter::Sends, 10);
    two.counters.add(Counter::Sends, 20);
    one.gauges.set(Gauge::Clients, 1);
    two.gauges.set(Gauge::Clients, 2);
    one.latencies.record(Timing::Turn, 1_000);
    two.latencies.record_n(Timing::Turn, 3_000_000, 2);
    vec![one, two]
}

/// A server that says what a test wants.
struct Fake {
    info: Info,
    health: Health,
    shards: Option<Vec<Snapshot>>,
    advanced_ms: AtomicU64,
}

impl Default for Fake {
    fn default() -> Fake {
        Fake {
            info: info(),
            health: Health::Healthy,
            shards: Some(two_shards()),
            advanced_ms: AtomicU64::new(0),
        }
    }
}

impl Source for Fake {
    fn snapshot(&self) -> Option<Vec<Snapshot>> {
        self.shards.clone()
    }

    fn healthy(&self) -> Health {
        self.health.clone()
    }

    fn advance_clock(&self, by: Duration) -> bool {
        self.advanced_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        self.info.manual_clock
    }

    fn info(&self) -> Info {
        self.info.clone()
    }
}

/// Times that no test waits for, or exactly waits for.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(20);

const PATIENT: Times = Times { request: LONG, response: LONG, close: LONG };

fn start(times: Times, fake: Fake) -> (Handle, Arc<Fake>) {
    let fake = Arc::new(fake);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    (serve_within(times, address, Arc::clone(&fake) as Arc<dyn Source>).unwrap(), fake)
}

fn connect(handle: &Handle) -> TcpStream {
    TcpStream::connect(handle.address()).unwrap()
}

/// Everything that the endpoint sends until it closes; what it sent before a reset.
fn read_all(mut stream: &TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Sends bytes, and gives status, head and body of the answer.
fn exchange(handle: &Handle, request: &str) -> (u16, String, String) {
    let mut stream = connect(handle);
    stream.write_all(request.as_bytes()).unwrap();
    split(&read_all(&stream))
}

fn split(response: &str) -> (u16, String, String) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {response:?}"));
    let status = head.strip_prefix("HTTP/1.1 ").unwrap().split(' ').next().unwrap();
    (status.parse().unwrap(), head.to_owned(), body.to_owned())
}

fn ask(handle: &Handle, method: &str, target: &str) -> (u16, String, String) {
    exchange(handle, &format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.clone().find(|(field, _)| *field == name).unwrap_or_else(|| panic!("{name} in {head}")).1
}

#[test]
fn pages_are_served() {
    let (handle, _) = start(PATIENT, Fake::default());
    let (status, head, body) = ask(&handle, "GET", "/stats");
    assert_eq!((status, header(&head, "Content-Type")), (200, "application/json"));
    assert_eq!(header(&head, "Content-Length"), body.len().to_string());
    assert_eq!(header(&head, "Connection"), "close");
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(page["counters"]["sends"], 30);
    assert!(page["process"]["rss_bytes"].is_u64());

    let (status, head, body) = ask(&handle, "GET", "/metrics?name=value");
    assert_eq!((status, header(&head, "Content-Type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert!(body.contains("\nquickio_sends_total{shard=\"1\"} 20\n"));
    assert!(body.contains("\nquickio_process_rss_bytes "));

    let (status, _, body) = ask(&handle, "GET", "/healthz");
    assert_eq!((status, body.as_str()), (200, "ok\n"));
}

#[test]
fn heads_have_no_body() {
    let (handle, _) = start(PATIENT, Fake::default());
    for page in ["/stats", "/metrics", "/healthz"] {
        let (status, head, body) = ask(&handle, "HEAD", page);
        assert_eq!((status, body.as_str()), (200, ""), "{page}");
        assert!(header(&head, "Content-Length").parse::<usize>().unwrap() > 0);
    }
    let (status, _, body) = ask(&handle, "HEAD", "/nothing");
    assert_eq!((status, body.as_str()), (404, ""));
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let (handle, _) = start(PATIENT, Fake::default());
    for (method, target, expected, allow) in [
        ("GET", "/", 404, ""),
        ("GET", "/stats/", 404, ""),
        ("GET", "/../stats", 404, ""),
        ("GET", "/Stats", 404, ""),
        ("DELETE", "/nothing", 404, ""),
        ("POST", "/stats", 405, "GET, HEAD"),
        ("DELETE", "/metrics", 405, "GET, HEAD"),
        ("OPTIONS", "/healthz", 405, "GET, HEAD"),
        ("GET", "/clock?advance=1", 405, "POST"),
        ("HEAD", "/clock", 405, "POST"),
    ] {
        let (status, head, _) = ask(&handle, method, target);
        assert_eq!(status, expected, "{method} {target}");
        if !allow.is_empty() {
            assert_eq!(header(&head, "Allow"), allow, "{method} {target}");
        }
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
    let many = format!("GET /stats HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(65));
    for (request, expected) in [
        ("nonsense\r\n\r\n", 400),
        ("GET /stats HTTP/1.1\r\n\r\n", 400),
        ("GET /stats HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        (long.as_str(), 431),
        (many.as_str(), 431),
    ] {
        let (status, _, _) = exchange(&handle, request);
        assert_eq!(status, expected, "{:.60}", request);
    }
}

#[test]
fn the_manual_clock_is_moved() {
    let (handle, fake) = start(PATIENT, Fake::default());
    let (status, _, body) = ask(&handle, "POST", "/clock?advance=1500");
    assert_eq!((status, body.as_str()), (200, "{\"advanced_ms\":1500}\n"));
    assert_eq!(fake.advanced_ms.load(Ordering::SeqCst), 1500);
    for target in ["/clock", "/clock?advance=soon", "/clock?advance=-1"] {
        assert_eq!(ask(&handle, "POST", target).0, 400, "{target}");
    }
    assert_eq!(fake.advanced_ms.load(Ordering::SeqCst), 1500);
}

#[test]
fn the_systems_clock_is_not_moved() {
    let (handle, fake) =
        start(PATIENT, Fake { info: Info { manual_clock: false, ..info() }, ..Fake::default() });
    for method in ["GET", "POST"] {
        assert_eq!(ask(&handle, method, "/clock?advance=1500").0, 404);
    }
    assert_eq!(fake.advanced_ms.load(Ordering::SeqCst), 0);
}

#[test]
fn a_server_in_trouble_says_so() {
    let health = Health::Unhealthy("shard 1 does not answer".into());
    let (handle, _) = start(PATIENT, Fake { health, shards: None, ..Fake::default() });
    assert_eq!(ask(&handle, "GET", "/stats").0, 503);
    assert_eq!(ask(&handle, "GET", "/metrics").0, 503);
    let (status, _, body) = ask(&handle, "GET", "/healthz");
    assert_eq!((status, body.as_str()), (503, "shard 1 does not answer\n"));
}

#[test]
fn requests_may_come_byte_by_byte_and_with_a_body() {
    let (handle, _) = start(PATIENT, Fake::default());
    let mut stream = connect(&handle);
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(split(&read_all(&stream)).0, 200);

    let body = "x".repeat(20_000);
    let request = format!("POST /clock?advance=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n{body}");
    let (status, _, body) = exchange(&handle, &request);
    assert_eq!(
        (status, body.as_str()),
        (200, "{\"advanced_ms\":1}\n"),
        "the answer survives the unread body"
    );
}

#[test]
fn a_peer_that_stops_in_its_request_is_told_and_closed() {
    let (handle, _) = start(Times { request: SHORT, ..PATIENT }, Fake::default());
    assert_eq!(ask_again(&handle, "GET /stats HT").0, 408);
    let silent = connect(&handle);
    assert_eq!(read_all(&silent), "", "one that said nothing is closed without a word");
}

#[test]
fn a_peer_that_does_not_read_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    // More than the kernel holds for any connection.
    let error = write_within(&stream, &vec![0; 64 << 20], SHORT).unwrap_err();
    assert!(is_timeout(&error), "{error}");
}

#[test]
fn peers_that_only_connect_hold_nobody_up_for_long() {
    let (handle, _) = start(Times { request: SHORT, ..PATIENT }, Fake::default());
    let idle: Vec<TcpStream> = (0..THREADS * 3).map(|_| connect(&handle)).collect();
    assert_eq!(ask_again(&handle, HEALTHZ).0, 200);
    drop(idle);
}

const HEALTHZ: &str = "GET /healthz HTTP/1.0\r\n\r\n";

/// Sends bytes until there is an answer: where requests have a short time, these may come too late on a machine
/// that is busy, and are closed without a word.
fn ask_again(handle: &Handle, request: &str) -> (u16, String, String) {
    loop {
        let mut stream = connect(handle);
        let _ = stream.write_all(request.as_bytes());
        let response = read_all(&stream);
        if !response.is_empty() {
            return split(&response);
        }
    }
}

#[test]
fn stopping_cuts_off_whoever_is_served_and_frees_the_address() {
    let (handle, _) = start(PATIENT, Fake::default());
    let address = handle.address();
    let mut half = connect(&handle);
    half.write_all(b"GET /st").unwrap();
    let idle = connect(&handle);
    assert_eq!(ask(&handle, "GET", "/healthz").0, 200);
    handle.stop();
    assert_eq!(read_all(&half), "");
    assert_eq!(read_all(&idle), "");
    assert!(serve(address, Arc::new(Fake::default())).is_ok());
}

#[test]
fn an_address_in_use_is_named() {
    let (handle, _) = start(PATIENT, Fake::default());
    let error = serve(handle.address(), Arc::new(Fake::default())).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains(&handle.address().to_string()) && message.contains("setting admin"),
        "{message}"
    );
}

#[test]
fn noise_does_no_harm() {
    let seed = seed();
    let mut random = seed;
    let (handle, _) = start(Times { request: SHORT, response: SHORT, close: SHORT }, Fake::default());
    let deadline = Instant::now() + fuzz_time();
    while Instant::now() < deadline {
        let mut stream = connect(&handle);
        let _ = stream.write_all(&noise(&mut random));
        if next(&mut random) % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let response = read_all(&stream);
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 "), "seed {seed}: {response:?}");
    }
    assert_eq!(ask_again(&handle, HEALTHZ).0, 200, "seed {seed}");
    assert!(handle.threads.iter().all(|thread| !thread.is_finished()), "seed {seed}: a thread panicked");
}

/// Pieces of requests and random bytes.
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

/// xorshift64.
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
