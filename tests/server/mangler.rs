//! `quickio clienttest`: the server, and the proxy in front of it that mangles upgrades.

use crate::listeners::SocketPath;
use crate::support::Ended;
use crate::support::server::{BINARY, client_test_command, run};
use crate::support::wire::{CONTINUATION, Frame, PING, PONG};
use crate::support::{Client, Conversation, DEADLINE, Server, Transport, http};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

/// The lines of the response to an upgrade that is not mangled.
const OPENED: [&str; 5] = [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "Sec-WebSocket-Protocol: quickio",
];

/// The response that reaches the client.
enum Seen {
    /// A response of these lines, and a WebSocket after it.
    Opened(Vec<String>),
    /// The server's own refusal.
    Refused(u16, &'static str),
}

fn start(arguments: &[&str]) -> Server {
    Server::launch(client_test_command(arguments))
}

fn quickio(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    command
}

/// Each mode and its effect, in the order of rotation; `swallow` and `cut` follow these.
fn table() -> Vec<(&'static str, Seen)> {
    let without = |name: &str| {
        let lines = OPENED.iter().filter(|line| !line.starts_with(name));
        Seen::Opened(lines.map(|line| (*line).to_owned()).collect())
    };
    let with = |from: &str, to: &str| {
        assert!(OPENED.contains(&from));
        Seen::Opened(OPENED.iter().map(|line| line.replace(from, to)).collect())
    };
    let wrong_accept = "Sec-WebSocket-Accept: A3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    vec![
        ("status-200", with(OPENED[0], "HTTP/1.1 200 OK")),
        ("connection-removed", Seen::Refused(426, "websocket upgrade required\n")),
        ("upgrade-removed", Seen::Refused(426, "websocket upgrade required\n")),
        ("key-removed", Seen::Refused(400, "invalid websocket key\n")),
        // The accept for the key `AGhlIHNhbXBsZSBub25jZQ==`.
        ("key-changed", with(OPENED[3], "Sec-WebSocket-Accept: JC4TUx6VAiqkmM1MKXa0j+jfbIk=")),
        ("version-removed", Seen::Refused(400, "websocket version must be 13\n")),
        ("version-changed", Seen::Refused(400, "websocket version must be 13\n")),
        ("protocol-removed", without("Sec-WebSocket-Protocol")),
        ("protocol-changed", Seen::Refused(400, "websocket subprotocol must be quickio\n")),
        ("answer-connection-removed", without("Connection")),
        ("answer-upgrade-removed", without("Upgrade")),
        ("answer-protocol-removed", without("Sec-WebSocket-Protocol")),
        ("answer-protocol-changed", with(OPENED[4], "Sec-WebSocket-Protocol: mangled")),
        ("accept-removed", without("Sec-WebSocket-Accept")),
        ("accept-changed", with(OPENED[3], wrong_accept)),
    ]
}

/// Opens a connection and sends an upgrade, with the mode in its target if there is one.
fn upgrading(address: &str, mode: Option<&str>) -> Client {
    let mut client = Client::connect(address, Transport::WebSocket);
    let target = mode.map_or("/".to_owned(), |mode| format!("/some/path?mangle={mode}"));
    let request = http::upgrade("Sec-WebSocket-Protocol: quickio\r\n");
    client.send(request.replace("GET / ", &format!("GET {target} ")).as_bytes());
    client
}

/// Checks that an upgrade has the effect in the table, and that the tunnel works if there is one.
fn assert_seen(mut client: Client, mode: &str, seen: &Seen) {
    match seen {
        Seen::Opened(lines) => {
            client.expect_bytes(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes());
            client.send(&Frame::text("/qio/ohai").bytes());
            assert_eq!(client.text(), "/qio/ohai", "{mode}");
            client.ping();
        }
        Seen::Refused(status, body) => {
            let head = client.head();
            assert_eq!(head.status, *status, "{mode}");
            assert_eq!(head.header("content-length"), Some(body.len().to_string().as_str()), "{mode}");
            client.expect_bytes(body.as_bytes());
            client.expect_disconnect();
        }
    }
}

/// Checks that a response without changes arrives, and nothing after it: neither side receives what the other sends.
fn assert_swallowed(server: &Server, mut client: Client) {
    client.expect_bytes(format!("{}\r\n\r\n", OPENED.join("\r\n")).as_bytes());
    client.send(&Frame::text("/qio/ohai").bytes());
    client.send(&Frame::text("/qio/ping:1=").bytes());
    // In the end the server times out, and its close frame is dropped too.
    server.advance(Duration::from_secs(11));
    server.advance(Duration::from_secs(11));
    client.expect_disconnect();
}

/// Checks that the first half of the response arrives, and then the end of the stream.
fn assert_cut(mut client: Client) {
    let whole = format!("{}\r\n\r\n", OPENED.join("\r\n"));
    assert_eq!(String::from_utf8_lossy(&client.rest()), &whole[..whole.len() / 2]);
}

#[test]
fn every_mode_can_be_chosen_by_the_target() {
    let server = Server::launch(client_test_command(&["--mangle", "none", "--clock", "manual"]));
    for (mode, seen) in table() {
        assert_seen(upgrading(server.proxy(), Some(mode)), mode, &seen);
        server.log_with(&format!("mode=\"{mode}\""));
    }
    assert_cut(upgrading(server.proxy(), Some("cut")));
    assert_swallowed(&server, upgrading(server.proxy(), Some("swallow")));
    // A mode in the target overrides the flag. Without it the flag applies. The server's own port mangles nothing.
    let opened = Seen::Opened(OPENED.map(str::to_owned).to_vec());
    for (address, mode) in
        [(server.proxy(), None), (server.proxy(), Some("none")), (server.address(), Some("cut"))]
    {
        assert_seen(upgrading(address, mode), "none", &opened);
    }
    server.eventually_is("connections", 0);
}

#[test]
fn a_flag_chooses_the_mode() {
    for (mode, seen) in [table().swap_remove(0), table().swap_remove(13)] {
        let server = start(&["--mangle", mode]);
        for _ in 0..2 {
            assert_seen(upgrading(server.proxy(), None), mode, &seen);
        }
    }
}

#[test]
fn modes_rotate_upgrade_by_upgrade() {
    let server = start(&["--clock", "manual"]);
    for _ in 0..2 {
        for (mode, seen) in table() {
            // Plain requests and upgrades with a mode in their target do not advance the rotation.
            http::exchange(
                server.proxy(),
                "GET /nothing/here HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            );
            upgrading(server.proxy(), Some("cut")).rest();
            assert_seen(upgrading(server.proxy(), None), mode, &seen);
        }
        assert_swallowed(&server, upgrading(server.proxy(), None));
        assert_cut(upgrading(server.proxy(), None));
    }
}

#[test]
fn an_unknown_mode_is_refused_with_the_list() {
    let server = start(&[]);
    let request = http::upgrade("").replace("GET / ", "GET /?mangle=cutt ");
    let response = http::exchange_closing(server.proxy(), request);
    assert_eq!(response.head.status, 400);
    for (mode, _) in table() {
        assert!(response.body.contains(mode), "{response:?}");
    }
    assert!(response.body.contains("`cutt`") && response.body.contains("swallow, cut"), "{response:?}");
}

#[test]
fn heads_over_the_limit_are_refused() {
    let server = start(&[]);
    let response =
        http::exchange_closing(server.proxy(), http::upgrade(&format!("X: {}\r\n", "y".repeat(20_000))));
    assert_eq!(response.head.status, 431);
    server.assert_serves();
}

/// Sends a stream in pieces of a size, and returns everything that arrives until the server closes. After a stream
/// that is unfinished, the sending side is closed.
fn exchange_all(address: &str, stream: &str, size: usize, is_unfinished: bool) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_nodelay(true).unwrap();
    for piece in stream.as_bytes().chunks(size) {
        // The server may have refused the stream and closed.
        if socket.write_all(piece).is_err() {
            break;
        }
    }
    if is_unfinished {
        socket.shutdown(Shutdown::Write).unwrap();
    }
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

#[test]
fn other_requests_are_answered_as_without_the_proxy() {
    let server = start(&["--mangle", "cut"]);
    const CLOSE: &str = "Connection: close\r\n";
    let request = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: h\r\n{more}\r\n");
    let get = |target: &str, more: &str| request(&format!("GET {target}"), more);
    let post = |more: &str, body: &str| request("POST /?sid=0", more) + body;
    for stream in [
        get("/", CLOSE),
        get("/?mangle=cut", CLOSE),
        request("HEAD /", "") + &get("/no/such/page", "") + &get("/", CLOSE),
        post("Content-Length: 10\r\n", "0123456789") + &get("/a", "") + &get("/b", CLOSE),
        request("OPTIONS /", "Origin: http://o\r\n") + &get("/", CLOSE),
        request("PUT /", "Content-Length: 1\r\nConnection: close\r\n") + "x",
        post("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n"),
        post("Content-Length: nine\r\n", ""),
        "GET / HTTP/1.0\n\n".to_owned(),
        "GET / HTTP/1.1\r\nHost\r\n\r\n".to_owned(),
        // A key without an upgrade.
        http::upgrade("").replace("Upgrade: websocket\r\n", ""),
        "\u{16}\u{3}\u{1}\u{2}".to_owned(),
        "GET / HT".to_owned(),
    ] {
        let is_unfinished = stream.ends_with("HT");
        for size in [1, 7, stream.len()] {
            let [direct, through] = [server.address(), server.proxy()]
                .map(|address| exchange_all(address, &stream, size, is_unfinished));
            assert_eq!(through, direct, "{stream:?} by {size}");
        }
    }
}

#[test]
fn posts_keep_their_connection_as_long_as_the_server_does() {
    const POSTS: usize = 20;
    let server = start(&[]);
    // The same number is answered as without the proxy, and with the same status.
    let answers = |address: &str| {
        let mut client = Client::connect(address, Transport::Raw);
        let post = |sid: &str, body: &str| {
            let length = body.len();
            format!(
                "POST /?sid={sid}&connect=true HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        };
        let mut statuses = Vec::new();
        for number in 1..=POSTS {
            if !client.try_send(post(&format!("{number:032x}"), "/qio/ping:1=null\n").as_bytes()) {
                break;
            }
            let head = client.head();
            let length = head.header("content-length").expect("a length").parse().unwrap();
            client.take_bytes(length);
            statuses.push(head.status);
            if head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                break;
            }
        }
        statuses
    };
    let direct = answers(server.address());
    assert!(!direct.is_empty());
    assert_eq!(answers(server.proxy()), direct);
}

#[test]
fn websockets_pass_unchanged_in_mode_none() {
    let server = start(&["--mangle", "none", "--message-bytes-max", "4Mi", "--outbox-bytes-max", "64Mi"]);
    let mut through = Client::open(server.proxy(), Transport::WebSocket);
    let mut direct = server.websocket();
    for client in [&mut through, &mut direct] {
        client.subscribe("/relay/large");
    }
    for length in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let data: String = ('a'..='z').cycle().take(length).collect();
        let answer = through.request_code("/clienttest/echo", &format!("\"{data}\""), 200);
        assert_eq!(answer.body["data"], data);
        through.request_code("/relay/large", &format!("\"{data}\""), 200);
        for client in [&mut through, &mut direct] {
            assert_eq!(client.event().data, format!("\"{data}\""));
        }
    }
    // Fragments, a ping between them, and the closing handshake.
    through.send(&Frame::text("/clienttest/ec").unfinished().bytes());
    through.send(&Frame::new(PING, "p").bytes());
    through.send(&Frame::new(CONTINUATION, "ho:99=7").bytes());
    assert_eq!(through.frame().map(|frame| frame.opcode), Some(PONG));
    assert_eq!(through.answer(99).body["data"], 7);
    through.send(&Frame::close(1000, "bye").bytes());
    assert_eq!(through.ended(), Ended::Close(1000, String::new()));
    through.expect_disconnect();
    // Raw TCP is not HTTP, and passes as well.
    let mut raw = Client::open(server.proxy(), Transport::Raw);
    raw.ping();
    raw.reset();
    drop((through, direct));
    server.eventually_is("connections", 0);
}

#[test]
fn the_applications_for_client_tests_run_in_addition_to_others() {
    for arguments in [&[][..], &["--app", "clienttest"], &["--app", ""]] {
        let server = start(arguments);
        let apps = server.greeting.iter().find_map(|line| line.strip_prefix("applications: ")).unwrap();
        assert!(apps.contains("relay") && apps.matches("clienttest").count() == 1, "{apps}");
        let names = ["listening on ", "admin on ", "proxy on "];
        let last: Vec<_> = server.greeting.iter().rev().take(3).rev().collect();
        assert!(last.iter().zip(names).all(|(line, name)| line.starts_with(name)), "{last:?}");
    }
    // The proxy connects to a server that listens on all interfaces and on a Unix socket.
    let socket = SocketPath::new("mangler");
    let listen = format!("{},[::]:0", socket.address());
    let server = start(&["--listen", &listen, "--mangle", "none"]);
    Client::open(server.proxy(), Transport::WebSocket).ping();
}

#[test]
fn signals_end_the_proxy_with_the_server() {
    for signal in ["TERM", "INT"] {
        let mut server = start(&["--mangle", "none"]);
        let mut client = Client::open(server.proxy(), Transport::WebSocket);
        let mut idle = Client::connect(server.proxy(), Transport::Raw);
        let mut undecided = Client::connect(server.proxy(), Transport::WebSocket);
        undecided.send(b"GET / HTTP/1.1\r\nUpgr");
        // The proxy has connected each of them to the server.
        server.eventually_is("connections", 3);
        let proxy = server.proxy().to_owned();
        server.signal(signal);
        let Ended::Close(1001, _) = client.ended() else { panic!("not told") };
        client.try_send(&Frame::close(1001, "").bytes());
        client.expect_disconnect();
        idle.expect_disconnect();
        undecided.rest();
        drop((client, idle, undecided));
        assert_eq!(server.exit().code(), Some(0), "SIG{signal}");
        assert!(TcpStream::connect(proxy).is_err(), "nobody listens any more");
    }
    // The server does not wait forever for clients that do not disconnect, and for one whose frames are dropped.
    let mut server = start(&["--mangle", "swallow", "--shutdown-timeout", "300ms"]);
    let mut swallowed = upgrading(server.proxy(), None);
    swallowed.head();
    let mut idle = Client::connect(server.proxy(), Transport::Raw);
    server.eventually_is("connections", 2);
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    idle.expect_disconnect();
    swallowed.expect_disconnect();
}

#[test]
fn wrong_flags_are_named_and_help_has_the_right_ones() {
    for (arguments, words) in [
        (&["clienttest", "--mangle", "cutt"][..], &["`cutt`", "did you mean `cut`?", "rotate"][..]),
        (&["clienttest", "--mangle"], &["--mangle", "status-200"]),
        (&["clienttest", "--proxy", "here"], &["proxy", "`here`", "ip:port"]),
        (&["clienttest", "--shrads", "1"], &["did you mean `--shards`?"]),
        (&["clienttest", "--app", "relais"], &["relais", "relay, clienttest"]),
        (&["clienttest", "--listen", "unix:/tmp/q"], &["TCP"]),
        (&["--mangle", "cut"], &["unknown setting `--mangle`"]),
        (&["clienttests"], &["no command `clienttests`", "did you mean `clienttest`?"]),
    ] {
        let (code, stdout, stderr) = run(quickio(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {stdout}{stderr}");
        words
            .iter()
            .for_each(|word| assert!(stderr.contains(word), "{arguments:?}: no {word:?} in {stderr:?}"));
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, stderr) = run(client_test_command(&["--proxy", &address]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&address) && stderr.contains("--proxy"), "{stderr}");
    let (code, help, _) = run(quickio(&["clienttest", "--help"]));
    assert_eq!(code, Some(0));
    assert!(help.contains("--mangle MODE|rotate") && help.contains("--proxy ADDRESS"), "{help}");
    table().iter().for_each(|(mode, _)| assert!(help.contains(&format!("\n  {mode}\n")), "{mode}"));
}
