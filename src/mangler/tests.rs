//! The proxy between real sockets, in front of a server that the test plays.

use super::*;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

/// The longest time that a test waits for anything: far more than is ever needed.
const DEADLINE: Duration = Duration::from_secs(20);

const UPGRADE: &str = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const OPENED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

const UNKNOWN_MODE: &str = "there is no mode `acept-removed`; there are: none, status-200, connection-removed, \
                            upgrade-removed, key-removed, key-changed, version-removed, version-changed, \
                            protocol-removed, protocol-changed, answer-connection-removed, \
                            answer-upgrade-removed, answer-protocol-removed, answer-protocol-changed, \
                            accept-removed, accept-changed, swallow, cut";

/// The proxy, and the listener in place of the server.
struct Setup {
    control: ControlExecutor,
    address: SocketAddr,
    permits: Permits,
    listener: TcpListener,
}

/// Both ends of a proxied connection.
struct Ends {
    client: TcpStream,
    server: TcpStream,
}

impl Setup {
    fn new(mangling: Mangling) -> Setup {
        Setup::with_patience(mangling, Patience { stall: DEADLINE, linger: DEADLINE })
    }

    fn with_linger(mangling: Mangling, linger: Duration) -> Setup {
        Setup::with_patience(mangling, Patience { stall: DEADLINE, linger })
    }

    fn with_patience(mangling: Mangling, patience: Patience) -> Setup {
        Setup::with(mangling, patience, MANGLER_CONNECTIONS_MAX)
    }

    fn with(mangling: Mangling, patience: Patience, connections: usize) -> Setup {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let control = ControlExecutor::start("proxy-test").unwrap();
        let permits = Permits::new(connections);
        let server = listener.local_addr().unwrap();
        let address = serve_within(patience, permits.clone(), &control, any, server, mangling).unwrap();
        Setup { control, address, permits, listener }
    }

    fn connect(&self) -> Ends {
        let client = self.client();
        let (server, _) = self.listener.accept().unwrap();
        server.set_read_timeout(Some(DEADLINE)).unwrap();
        Ends { client, server }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    }

    /// Waits until the proxy has this number of connections.
    fn eventually_has(&self, connections: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.permits.taken() != connections {
            assert!(Instant::now() < deadline, "never {connections} connections");
            thread::yield_now();
        }
    }
}

impl Ends {
    /// Sends a text from one end, which must reach the other end unchanged.
    fn passes_to_server(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).unwrap();
        expect(&mut self.server, text);
    }

    fn passes_to_client(&mut self, text: &str) {
        self.server.write_all(text.as_bytes()).unwrap();
        expect(&mut self.client, text);
    }
}

/// Reads exactly this text.
#[track_caller]
fn expect(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// Reads to the end of the stream, which may be a reset.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

#[test]
fn an_upgrade_may_follow_requests_on_the_same_connection() {
    let setup = Setup::new(Mangling::Always(Mode::AcceptRemoved));
    let mut ends = setup.connect();
    let post = "POST /?sid=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\nGET /\r\nevent";
    for byte in post.bytes() {
        ends.client.write_all(&[byte]).unwrap();
    }
    expect(&mut ends.server, post);
    // Two more requests while the first one waits for its response; then all responses, in pieces.
    ends.passes_to_server(&format!("{GET}HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"));
    let responses =
        format!("HTTP/1.1 100 Continue\r\n\r\n{OK}{OK}HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    for byte in responses.bytes() {
        ends.server.write_all(&[byte]).unwrap();
    }
    expect(&mut ends.client, &responses);
    // Bytes that are sent too early wait until the upgrade is decided.
    ends.client.write_all(format!("{UPGRADE}early").as_bytes()).unwrap();
    expect(&mut ends.server, UPGRADE);
    ends.server.write_all(format!("{OPENED}first").as_bytes()).unwrap();
    let mangled = OPENED.replace("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "");
    expect(&mut ends.client, &format!("{mangled}first"));
    expect(&mut ends.server, "early");
    // Frames are not examined.
    ends.passes_to_server(UPGRADE);
    ends.passes_to_client(OPENED);
}

#[test]
fn a_refused_upgrade_does_not_change_the_connection() {
    let setup = Setup::new(Mangling::Always(Mode::UpgradeRemoved));
    let mut ends = setup.connect();
    for _ in 0..2 {
        ends.client.write_all(UPGRADE.as_bytes()).unwrap();
        expect(&mut ends.server, &UPGRADE.replace("Upgrade: websocket\r\n", ""));
        ends.passes_to_client(OK);
    }
    ends.passes_to_server(GET);
}

#[test]
fn bodies_pass_as_they_arrive() {
    let setup = Setup::new(Mangling::Rotate);
    let mut ends = setup.connect();
    ends.passes_to_server("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
    ends.passes_to_server("a");
    ends.passes_to_server("bc");
    let mut ends = setup.connect();
    ends.passes_to_server(GET);
    ends.passes_to_client("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: quickio\n\n");
    ends.passes_to_client("data:/a:0=1\n\n");
    // Another request, which a client may send, does not disturb the stream.
    ends.passes_to_server(GET);
    ends.passes_to_client("data:/a:0=2\n\n");
}

#[test]
fn input_that_cannot_be_followed_passes() {
    for begin in [
        "/qio/ohai",
        "\u{16}\u{3}\u{1}",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/2.0\r\n",
    ] {
        let setup = Setup::new(Mangling::Always(Mode::Cut));
        let mut ends = setup.connect();
        ends.passes_to_server(begin);
        ends.passes_to_server(UPGRADE);
        ends.passes_to_client(begin);
        ends.passes_to_client(OPENED);
        ends.passes_to_server("x");
    }
}

#[test]
fn half_closed_connections_continue_in_the_other_direction() {
    let setup = Setup::new(Mangling::Rotate);
    let mut ends = setup.connect();
    ends.passes_to_server(GET);
    ends.client.write_all(b"GET /un").unwrap();
    ends.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut ends.server), "GET /un", "the beginning of a request, and the end");
    ends.passes_to_client(OK);
    drop(ends.server);
    assert_eq!(rest(&mut ends.client), "");
    setup.eventually_has(0);

    let mut ends = setup.connect();
    ends.server.write_all(b"HTTP/1.1 408 Re").unwrap();
    ends.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut ends.client), "HTTP/1.1 408 Re");
    ends.passes_to_server(GET);
    drop(ends.client);
    assert_eq!(rest(&mut ends.server), "");
    setup.eventually_has(0);
}

#[test]
fn a_peer_that_vanishes_ends_the_connection() {
    let setup = Setup::with_linger(Mangling::Always(Mode::None), Duration::from_millis(20));
    // The client resets the connection: in HTTP, and while an upgrade is undecided.
    for begin in [GET, UPGRADE] {
        let mut ends = setup.connect();
        ends.passes_to_server(begin);
        SockRef::from(&ends.client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(ends.client);
        assert_eq!(rest(&mut ends.server), "");
        setup.eventually_has(0);
    }
    // The server ends while the client stays, idle or in the middle of a head.
    for begin in ["", "GET / HT"] {
        let mut ends = setup.connect();
        ends.client.write_all(begin.as_bytes()).unwrap();
        drop(ends.server);
        assert_eq!(rest(&mut ends.client), "");
        setup.eventually_has(0);
    }
}

#[test]
fn a_client_that_reads_nothing_is_reset_in_the_end() {
    let stall = Duration::from_millis(50);
    let setup = Setup::with_patience(Mangling::Rotate, Patience { stall, linger: DEADLINE });
    let mut ends = setup.connect();
    ends.passes_to_server(GET);
    ends.server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let chunk = vec![b'x'; 1 << 20];
    // Until the proxy resets the client, which is connected all the time.
    while ends.server.write_all(&chunk).is_ok() {}
    setup.eventually_has(0);
    drop(ends.client);
}

#[test]
fn a_response_reaches_a_client_that_is_still_sending() {
    let setup = Setup::new(Mangling::Rotate);
    let mut ends = setup.connect();
    ends.passes_to_server("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n");
    ends.server.write_all(OK.as_bytes()).unwrap();
    drop(ends.server);
    let mut client = ends.client.try_clone().unwrap();
    let sends = thread::spawn(move || {
        let sent = client.write_all(&vec![b'x'; 50_000_000]);
        client.shutdown(Shutdown::Write).unwrap();
        sent
    });
    assert_eq!(rest(&mut ends.client), OK);
    sends.join().unwrap().unwrap();
    setup.eventually_has(0);
}

#[test]
fn a_slow_reader_slows_down_the_writer() {
    const MORE_THAN_BUFFERS: usize = 64 << 20;
    let setup = Setup::new(Mangling::Always(Mode::None));
    for to_client in [true, false] {
        let mut ends = setup.connect();
        ends.passes_to_server(UPGRADE);
        ends.passes_to_client(OPENED);
        let (mut writer, mut reader) =
            if to_client { (ends.server, ends.client) } else { (ends.client, ends.server) };
        writer.set_nonblocking(true).unwrap();
        // Longer than a writer that is not held up needs between two writes.
        let patience = Duration::from_millis(500);
        let (mut written, mut last) = (0, Instant::now());
        let chunk: Vec<u8> = (0..=250).cycle().take(251 * 64).collect();
        while last.elapsed() < patience && written < MORE_THAN_BUFFERS {
            match writer.write(&chunk[written % 251..]) {
                Ok(len) => (written, last) = (written + len, Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(written < MORE_THAN_BUFFERS, "the proxy buffers without a bound");
        writer.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), written);
        assert!(bytes.iter().zip((0..=250).cycle()).all(|(byte, expected)| *byte == expected));
    }
}

#[test]
fn the_own_responses_of_the_proxy_follow_those_of_the_server() {
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    let unknown = UPGRADE.replace("/x", "/?a=b&mangle=acept-removed");
    for (request, status) in [(long, "431 Request Header Fields Too Large"), (unknown, "400 Bad Request")] {
        let setup = Setup::new(Mangling::Rotate);
        let mut ends = setup.connect();
        ends.passes_to_server(GET);
        ends.client.write_all(request.as_bytes()).unwrap();
        ends.client.write_all(&vec![b'x'; 1_000_000]).unwrap();
        ends.server.write_all(&OK.as_bytes()[..OK.len() - 1]).unwrap();
        expect(&mut ends.client, &OK[..OK.len() - 1]);
        ends.passes_to_client("\n");
        let response = rest(&mut ends.client);
        assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\nConnection: close\r\n")), "{response}");
        if status.starts_with("400") {
            assert!(response.ends_with(&format!("\r\n\r\n{UNKNOWN_MODE}\n")), "{response}");
        }
        assert_eq!(rest(&mut ends.server), "", "no part of it reaches the server");
        drop(ends.client);
        setup.eventually_has(0);
    }
}

#[test]
fn one_connection_too_many_is_refused() {
    const MAX: usize = 3;
    let setup = Setup::with(Mangling::Rotate, Patience { stall: DEADLINE, linger: DEADLINE }, MAX);
    let mut all: Vec<Ends> = (0..MAX).map(|_| setup.connect()).collect();
    for _ in 0..3 {
        let response = rest(&mut setup.client());
        assert!(response.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{response}");
    }
    all.pop();
    setup.eventually_has(MAX - 1);
    setup.connect().passes_to_server(GET);
}

#[test]
fn many_connections_are_relayed_at_once() {
    let setup = Setup::new(Mangling::Always(Mode::None));
    let mut all: Vec<Ends> = (0..100).map(|_| setup.connect()).collect();
    for ends in &mut all {
        ends.client.write_all(UPGRADE.as_bytes()).unwrap();
    }
    for ends in &mut all {
        expect(&mut ends.server, UPGRADE);
        ends.server.write_all(OPENED.as_bytes()).unwrap();
    }
    for ends in &mut all {
        expect(&mut ends.client, OPENED);
        ends.passes_to_server("frame");
    }
    drop(all);
    setup.eventually_has(0);
}

#[test]
fn an_unreachable_server_is_answered_with_502() {
    let setup = Setup::new(Mangling::Rotate);
    drop(setup.listener);
    let mut client = TcpStream::connect(setup.address).unwrap();
    let response = rest(&mut client);
    assert!(response.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{response}");
}

#[test]
fn stopping_ends_all_connections() {
    let setup = Setup::new(Mangling::Always(Mode::Swallow));
    let mut idle = setup.connect();
    let mut undecided = setup.connect();
    undecided.passes_to_server(UPGRADE);
    undecided.client.write_all(b"early").unwrap();
    let mut swallowed = setup.connect();
    swallowed.passes_to_server(UPGRADE);
    swallowed.passes_to_client(OPENED);
    swallowed.server.write_all(b"frame").unwrap();
    let mut half = setup.connect();
    half.server.shutdown(Shutdown::Write).unwrap();
    let address = setup.address;
    drop(setup.control);
    for ends in [&mut idle, &mut undecided, &mut swallowed, &mut half] {
        assert_eq!(rest(&mut ends.client), "");
        rest(&mut ends.server);
    }
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}

#[test]
fn rotation_has_all_modes_but_none() {
    let modes = Modes::new(Mangling::Rotate);
    for _ in 0..2 {
        for mode in &Mode::ALL[1..] {
            assert_eq!(
                modes.choose(Some("none")),
                Some(Mode::None),
                "a chosen mode does not advance the rotation"
            );
            assert_eq!(modes.choose(None), Some(*mode));
        }
    }
    let always = Modes::new(Mangling::Always(Mode::Cut));
    for (chosen, mode) in [
        (None, Some(Mode::Cut)),
        (Some("swallow"), Some(Mode::Swallow)),
        (Some("rotate"), None),
        (Some("Swallow"), None),
        (Some(""), None),
    ] {
        assert_eq!(always.choose(chosen), mode, "{chosen:?}");
    }
}

#[test]
fn a_server_on_every_interface_is_reached_by_loopback() {
    for (server, reached) in
        [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
    {
        assert_eq!(reachable(server.parse().unwrap()).to_string(), reached);
    }
}
