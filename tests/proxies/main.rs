//! Tests with nginx and HAProxy in front of the server, with the configurations of docs/operations.md.
//!
//! scripts/test.sh installs the two programs. Each test starts its own, as a child in the foreground.

mod proxy;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the server's tests need the rest")]
mod support;

use proxy::{Folder, Program, Proxy};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use support::http::{self, Connection};
use support::http_client::new_session;
use support::stream::{self, Stream};
use support::wire::Frame;
use support::{Client, Conversation, DEADLINE, Ended, Server, Transport, tls};

fn ok(callback: u64) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}\n")
}

/// A client that polls through a proxy: a connection for each request, as the proxy decides.
fn poll(address: &str, request: &str) -> (u16, String) {
    let response = http::exchange(address, request);
    (response.head.status, response.body)
}

/// Expects that a client can talk to the server through the proxy over each transport.
fn assert_serves(proxy: &Proxy) {
    let mut websocket = Client::open(&proxy.address, Transport::WebSocket);
    websocket.ping();
    websocket.subscribe("/relay/proxied");
    let session = new_session();
    let request = session.post("&connect=true", "/qio/on:1=\"/relay/proxied\"");
    assert_eq!(poll(&proxy.address, &request), (200, ok(1)));
    let streaming = new_session();
    let mut stream = Connection::open(&proxy.address);
    stream.send(streaming.stream("&connect=true"));
    assert_eq!(stream.head().status, 200);
    stream.read_to(": quickio\n\n");
    assert_eq!(
        poll(&proxy.address, &streaming.post("", "/qio/on:1=\"/relay/proxied\"")),
        (200, String::new())
    );
    stream.read_to("data:/qio/callback/1:0={\"code\":200,\"data\":null}\n\n");
    // An event that one of them publishes reaches all.
    assert_eq!(poll(&proxy.address, &streaming.post("", "/relay/proxied:0=[1]")), (200, String::new()));
    stream.read_to("data:/relay/proxied:0=[1]\n\n");
    assert_eq!(websocket.text(), "/relay/proxied:0=[1]");
    assert_eq!(poll(&proxy.address, &session.post("", "")), (200, "/relay/proxied:0=[1]\n".into()));
    assert_eq!(poll(&proxy.address, &session.post("&close=true", "")), (200, String::new()));
}

fn sleep_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}

#[test]
fn every_transport_works_and_an_idle_client_stays_connected_for_longer_than_the_proxy_waits() {
    // The proxies wait 60 s, in real time. All of their clients wait at the same time.
    const IDLE: Duration = Duration::from_secs(72);
    let server = Server::start(&[]);
    let proxies = Program::ALL.map(|program| Proxy::start(program, &[server.address()]));
    thread::scope(|scope| {
        for proxy in &proxies {
            assert_serves(proxy);
            scope.spawn(|| {
                let mut client = Client::open(&proxy.address, Transport::WebSocket);
                let begin = Instant::now();
                assert_eq!(client.text(), "/qio/heartbeat:0=null");
                sleep_until(begin + IDLE);
                client.ping();
            });
            scope.spawn(|| {
                let session = new_session();
                let mut stream = Connection::open(&proxy.address);
                stream.send(session.stream("&connect=true"));
                stream.read_to(": quickio\n\n");
                let begin = Instant::now();
                stream.read_to("data:/qio/heartbeat:0=null\n\n");
                sleep_until(begin + IDLE);
                assert_eq!(poll(&proxy.address, &session.post("", "/qio/ping:1=")), (200, String::new()));
                stream.read_to("data:/qio/callback/1:0=");
            });
            scope.spawn(|| {
                let session = new_session();
                let request = session.post("&connect=true", "/qio/ping:1=");
                assert_eq!(poll(&proxy.address, &request), (200, ok(1)));
                let begin = Instant::now();
                assert_eq!(
                    poll(&proxy.address, &session.post("", "")),
                    (200, String::new()),
                    "held to its end"
                );
                let mut held = Connection::open(&proxy.address);
                held.send(session.post("", ""));
                sleep_until(begin + IDLE);
                assert_eq!(poll(&proxy.address, &session.post("", "/qio/ping:2=")), (200, ok(2)));
                assert_eq!(held.response().head.status, 200);
            });
            // Connections of the proxy to the server that are idle until one of the two closes them.
            scope.spawn(|| {
                let get = "GET /quickio.js HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                for seconds in [0, 59, 2, 11, 4] {
                    thread::sleep(Duration::from_secs(seconds));
                    assert_eq!(http::exchange(&proxy.address, get).head.status, 200, "{seconds} s later");
                }
            });
        }
    });
    assert_eq!(server.stats().value("timeouts_liveness"), 0);
    for proxy in &proxies {
        assert_serves(proxy);
    }
}

#[test]
fn posts_of_every_form_arrive() {
    let server = Server::start(&[]);
    for program in Program::ALL {
        let proxy = Proxy::start(program, &[server.address()]);
        let session = new_session();
        let target = format!("POST /?sid={:032x}&connect=true HTTP/1.1\r\nHost: a\r\n", session.0);
        let chunked = format!(
            "{target}Transfer-Encoding: chunked\r\n\r\n5\r\n/qio/\r\n7\r\nping:1=\r\n0\r\nX-Trailer: y\r\n\r\n"
        );
        assert_eq!(poll(&proxy.address, &chunked), (200, ok(1)), "{program:?}");
        // Without a length, and closed at once because there is nothing to wait for.
        let bodyless = target.replace("&connect=true", "&close=true") + "\r\n";
        assert_eq!(poll(&proxy.address, &bodyless), (200, String::new()), "{program:?}");
    }
}

/// Runs curl with HTTP/2 and returns the status and the body of the response.
fn curl(url: &str, arguments: &[&str], input: &str) -> (u16, String) {
    use std::io::Write;
    use std::process::Stdio;
    let mut curl = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--http2-prior-knowledge",
            "--write-out",
            "%{http_version} %{http_code}",
        ])
        .args(arguments)
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    curl.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("curl reads");
    let output = curl.wait_with_output().expect("curl ends");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, status) = text.split_at(text.len() - "2 200".len());
    assert!(status.starts_with("2 "), "HTTP/2, not {status}");
    (status[2..].parse().expect("a status"), body.to_owned())
}

#[test]
fn clients_may_speak_http_2_to_the_proxy() {
    let server = Server::start(&[]);
    for program in Program::ALL {
        let proxy = Proxy::start(program, &[server.address()]);
        let session = new_session();
        let url = |query: &str| format!("http://{}/?sid={:032x}{query}", proxy.h2, session.0);
        let events = "/qio/ping:1=";
        assert_eq!(curl(&url("&connect=true"), &["--data", events], ""), (200, ok(1)), "{program:?}");
        // A body whose length is not known when the request begins: the proxy may pass it on chunked.
        let streamed = ["--request", "POST", "--upload-file", "-"];
        assert_eq!(curl(&url(""), &streamed, events), (200, ok(1)), "{program:?}");
        // No body: HTTP/2 does not need a length to say so.
        assert_eq!(
            curl(&url("&close=true"), &["--request", "POST"], ""),
            (200, String::new()),
            "{program:?}"
        );
        assert_eq!(curl(&url(""), &["--data", events], "").0, 403, "{program:?}");
    }
}

#[test]
fn an_unknown_method_does_not_take_a_server_down_for_others() {
    let servers = [Server::start(&[]), Server::start(&[])];
    for program in Program::ALL {
        let proxy = Proxy::start(program, &servers.each_ref().map(Server::address));
        let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        for (line, status) in [("PROPFIND /", 501), ("PURGE /x", 501), ("DELETE /", 405), ("get /", 501)] {
            for _ in 0..6 {
                let response = http::exchange(&proxy.address, request(line));
                // HAProxy and nginx answer some of them themselves.
                let own = [400, 403, 405];
                let is_expected = response.head.status == status || own.contains(&response.head.status);
                assert!(is_expected, "{program:?}, {line}: {response:?}");
                assert_eq!(http::exchange(&proxy.address, request("GET /")).head.status, 200, "{program:?}");
            }
        }
    }
    // Both servers have served requests.
    assert!(servers.iter().all(|server| server.stats().value("http_requests") > 0));
}

#[test]
fn a_full_server_is_not_taken_for_down() {
    let server = Server::start(&["--clients-max", "6"]);
    for program in Program::ALL {
        let mut clients: Vec<Client> = (0..6).map(|_| server.websocket()).collect();
        let proxy = Proxy::start(program, &[server.address()]);
        let request = new_session().post("&connect=true", "/qio/ping:1=");
        for _ in 0..5 {
            let response = http::exchange(&proxy.address, &request);
            assert_eq!(response.head.status, 503, "{program:?}: {response:?}");
            assert_eq!(response.body, "the server is full\n", "{program:?}: it is the server's response");
            assert!(response.head.header("retry-after").is_some(), "{program:?}: {response:?}");
        }
        clients.iter_mut().for_each(Client::ping);
        drop(clients);
        server.eventually("places are free", |stats| stats.value("clients") == 0);
        let session = new_session();
        let request = session.post("&connect=true", "/qio/ping:1=");
        assert_eq!(poll(&proxy.address, &request), (200, ok(1)), "{program:?}: at once");
        assert_eq!(poll(&proxy.address, &session.post("&close=true", "")), (200, String::new()));
        drop(proxy);
        server.eventually_is("connections", 0);
    }
}

/// As root, the workers of nginx run as www-data, and may connect because of the mode or the group of the socket.
#[test]
fn a_proxy_connects_through_a_unix_socket() {
    let is_root = rustix::process::getuid().is_root();
    let group = ["--listen-mode", "0660", "--listen-group", "www-data"];
    for arguments in [&[][..], if is_root { &group } else { &[] }] {
        let folder = Folder::create();
        let socket = format!("unix:{}", folder.path().join("socket").display());
        let server = Server::start(&[&["--listen", &socket], arguments].concat());
        for program in Program::ALL {
            assert_serves(&Proxy::start(program, &[&socket]));
        }
        drop(server);
    }
}

/// Starts a server that listens here. If that is for TLS, it has a certificate of the tests.
fn server_on(listen: &str, arguments: &[&str]) -> Server {
    let [chain, key] = tls::OF_TESTS;
    let listen = ["--listen", listen, "--tls-cert", chain, "--tls-key", key];
    let listen = if listen[1].starts_with("tls://") { &listen[..] } else { &listen[..2] };
    Server::start(&[listen, arguments].concat())
}

/// Connects to a proxy from this address over raw TCP, with TLS if the proxy wants it. Returns whether the server has
/// greeted.
fn greet_from(source: &str, proxy: &Proxy) -> (Option<Box<dyn Stream>>, bool) {
    let source = source.parse().expect("an address of the loopback");
    // Over TLS, a connection beyond the limit is refused in the handshake.
    let Ok((mut stream, _)) = stream::try_connect_from(source, &proxy.address) else {
        assert!(proxy.address.starts_with("tls://"), "the proxy listens");
        return (None, false);
    };
    stream.write_all(b"/qio/ohai").expect("the proxy reads");
    let mut answer = [0; 9];
    let is_greeted = stream.read_exact(&mut answer).is_ok();
    assert!(!is_greeted || answer == *b"/qio/ohai");
    (Some(stream), is_greeted)
}

#[test]
fn clients_have_their_own_addresses_through_the_proxy_protocol() {
    let folder = Folder::create();
    let socket = format!("unix:{}", folder.path().join("socket").display());
    let limits = ["--proxy-protocol", "127.0.0.0/8,unix", "--connections-per-address-max", "8"];
    for listen in ["127.0.0.1:0", "tls://127.0.0.1:0", &socket] {
        let server = server_on(listen, &[&limits[..], &["--shards", "1"]].concat());
        for program in Program::PASSING_ON {
            let proxy = Proxy::start(program, &[server.address()]);
            let mut greeted = Vec::new();
            for source in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
                for number in 0..9 {
                    let (stream, is_greeted) = greet_from(source, &proxy);
                    assert_eq!(is_greeted, number < 8, "{program:?}, {listen}: {number} of {source}");
                    greeted.push(stream);
                }
            }
            drop(greeted);
            server.eventually("the connections have ended", |stats| stats.value("connections") == 0);
            assert_serves(&proxy);
        }
        if listen == socket {
            continue;
        }
        // Past the proxy, a connection without a header is refused.
        let address = server.address().trim_start_matches("tls://");
        let mut direct = TcpStream::connect(address).expect("the server listens");
        direct.write_all(b"GET /quickio.js HTTP/1.1\r\nHost: a\r\n\r\n").expect("the server reads");
        direct.set_read_timeout(Some(DEADLINE)).expect("a socket");
        assert_eq!(direct.read_to_end(&mut Vec::new()).expect("an orderly end"), 0);
        server.eventually("it is counted", |stats| stats.value("proxy_headers_refused") >= 1);
    }
}

/// What clients write into `X-Forwarded-For` themselves does not count.
#[test]
fn clients_have_their_own_addresses_through_headers_with_and_without_tls() {
    let limits = ["--trusted-proxies", "127.0.0.1", "--connections-per-address-max", "3", "--shards", "1"];
    let server = server_on("127.0.0.1:0", &limits);
    let forged = ["", "X-Forwarded-For: 203.0.113.7\r\n", "X-Forwarded-For: 127.0.0.1, nonsense\r\n"];
    for program in Program::ALL.into_iter().chain(Program::WITH_TLS) {
        let proxy = Proxy::start(program, &[server.address()]);
        let mut clients = Vec::new();
        for source in ["127.0.0.2", "127.0.0.3"] {
            for number in 0..4 {
                let mut client =
                    Client::connect_from(source.parse().unwrap(), &proxy.address, Transport::WebSocket);
                let forged = forged[number % forged.len()];
                client
                    .send(http::upgrade(&format!("Sec-WebSocket-Protocol: quickio\r\n{forged}")).as_bytes());
                assert_eq!(client.head().status, 101, "{program:?}");
                if number < 3 {
                    client.send(&Frame::text("/qio/ohai").bytes());
                    assert_eq!(client.text(), "/qio/ohai", "{program:?}: {number} of {source}");
                } else {
                    let ended = client.ended();
                    assert!(matches!(ended, Ended::Close(1013, _)), "{program:?}, {source}: {ended:?}");
                }
                clients.push(client);
            }
        }
        drop(clients);
        server.eventually("the clients have left", |stats| stats.value("clients") == 0);
        assert_serves(&proxy);
    }
}
