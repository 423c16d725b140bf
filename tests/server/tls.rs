//! Clients that speak TLS to a running server: rustls, curl, OpenSSL, Python, Node, Go and Java.

use crate::support::tls::{Authority, TlsStream, connect};
use crate::support::{Client, Conversation, DEADLINE, Server, Transport, http};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

const OHAI: &str = "/qio/ohai";

/// Starts a server with a listener of this kind: `tls` or `either`.
fn start(kind: &str, arguments: &[&str]) -> (Server, Authority) {
    let authority = Authority::new();
    let [certificate, key] = authority.issue("server", &["localhost"]);
    let listen = format!("{kind}://127.0.0.1:0");
    let own = ["--listen", &listen, "--tls-cert", &certificate, "--tls-key", &key];
    let server = Server::start(&[&own, arguments].concat());
    (server, authority)
}

/// The address of a server without the kind of its listener.
fn socket_address(server: &Server) -> &str {
    server.address().rsplit_once('/').map_or(server.address(), |(_, address)| address)
}

/// Connects a raw client.
fn connect_raw(server: &Server, config: &Arc<ClientConfig>) -> TlsStream {
    let mut stream = connect(server.address(), config, "localhost").unwrap();
    stream.write_all(OHAI.as_bytes()).unwrap();
    let mut greeting = [0; OHAI.len()];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, *OHAI.as_bytes());
    stream
}

fn send(stream: &mut impl Write, text: &str) {
    let mut bytes = (text.len() as u64).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    stream.write_all(&bytes).unwrap();
}

fn receive(stream: &mut impl Read) -> String {
    let mut len = [0; 8];
    stream.read_exact(&mut len).unwrap();
    let mut text = vec![0; u64::from_be_bytes(len) as usize];
    stream.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn subscribe(stream: &mut TlsStream, path: &str) {
    send(stream, &format!("/qio/on:1=\"{path}\""));
    assert!(receive(stream).starts_with("/qio/callback/1"));
}

#[test]
fn events_reach_tls_and_plain_clients_alike() {
    let (server, authority) = start("either", &[]);
    let config = authority.client();
    let mut clients: Vec<TlsStream> = (0..8).map(|_| connect_raw(&server, &config)).collect();
    clients.iter_mut().for_each(|client| subscribe(client, "/relay/room"));
    let mut plain = Client::open(socket_address(&server), Transport::WebSocket);
    plain.subscribe("/relay/room");
    let large = "x".repeat(60_000);
    for text in ["one", &large, &large, "two"] {
        let event = format!("/relay/room:0=\"{text}\"");
        send(&mut clients[0], &event);
        for client in &mut clients {
            assert_eq!(receive(client), event);
        }
        assert_eq!(plain.event().path, "/relay/room");
    }
    let stats = server.stats();
    assert_eq!((stats.value("tls_handshakes"), stats.value("tls_connections")), (8, 8));
    for mut client in clients {
        client.conn.send_close_notify();
        client.flush().unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "the server closes TLS too");
    }
    server.eventually_is("tls_connections", 0);
    assert_eq!(server.stats().value("tls_truncated"), 0);
}

#[test]
fn a_websocket_over_tls() {
    let (server, authority) = start("tls", &[]);
    let mut stream = connect(server.address(), &authority.client(), "localhost").unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: quickio\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    // A mask of zeros changes nothing.
    let frame = |opcode: u8, payload: &[u8]| {
        [&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    };
    stream.write_all(&frame(1, OHAI.as_bytes())).unwrap();
    let mut greeting = [0; 2 + OHAI.len()];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting[2..], *OHAI.as_bytes());
    stream.write_all(&frame(8, &1000_u16.to_be_bytes())).unwrap();
    let mut rest = Vec::new();
    // An end without close_notify is an error.
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 2, 3, 0xe8]);
    assert_eq!(server.stats().value("tls_truncated"), 0);
}

/// Runs curl, and returns what it has printed.
fn curl(server: &Server, authority: &Authority, path: &str, arguments: &[&str]) -> String {
    let port = socket_address(server).rsplit_once(':').unwrap().1;
    let url = format!("https://localhost:{port}{path}");
    let resolve = format!("localhost:{port}:127.0.0.1");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "60", "--resolve", &resolve, "--cacert", &authority.path("ca.pem")]);
    let output = curl.args(arguments).arg(url).output().expect("curl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_loads_polls_and_streams() {
    let (server, authority) = start("tls", &[]);
    assert!(curl(&server, &authority, "/quickio.js", &[]).contains("QuickIO"));
    for version in ["--tlsv1.3", "--tls-max"] {
        let arguments = if version == "--tls-max" { vec!["--tls-max", "1.2"] } else { vec![version] };
        let sid =
            format!("{:032x}", u128::from(std::process::id()) << 8 | u128::from(version == "--tls-max"));
        let on = [&arguments[..], &["-d", "/qio/on:1=\"/relay/room\""]].concat();
        let answer = curl(&server, &authority, &format!("/?sid={sid}&connect=true"), &on);
        assert!(answer.contains("/qio/callback/1"), "{answer}");
        let event = [&arguments[..], &["-d", "/relay/room:2={\"text\":\"hello\"}"]].concat();
        let answer = curl(&server, &authority, &format!("/?sid={sid}"), &event);
        assert!(answer.contains("hello"), "{answer}");
    }
    assert!(server.stats().value("tls_handshakes") >= 5);
}

#[test]
fn openssl_speaks_both_versions() {
    let (server, authority) = start("tls", &[]);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-verify_return_error", version, "-servername", "localhost"]);
        openssl.args(["-connect", socket_address(&server), "-CAfile", &authority.path("ca.pem")]);
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = openssl.spawn().expect("openssl runs");
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        input.write_all(OHAI.as_bytes()).unwrap();
        let mut greeting = [0; OHAI.len()];
        output.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, *OHAI.as_bytes());
        send(&mut input, "/qio/ping:1=null");
        assert!(receive(&mut output).starts_with("/qio/callback/1"));
        drop(input);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// OpenSSL does nothing else until the server has answered.
#[test]
fn openssl_is_refused_another_handshake() {
    let (server, authority) = start("tls", &[]);
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-tls1_2", "-servername", "localhost", "-connect", socket_address(&server)]);
    openssl.args(["-CAfile", &authority.path("ca.pem")]);
    openssl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = openssl.spawn().expect("openssl runs");
    // The command of s_client for another handshake. The input stays open: its end would be the client's.
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"R\n").unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    child.wait().unwrap();
    assert!(errors.contains("no renegotiation"), "{errors}");
}

/// Runs a script of this directory as a client of a server, which is returned. `program` runs it, with these arguments.
fn run_client(program: &[&str], script: &str) -> Server {
    let (server, authority) = start("tls", &["--clock", "manual"]);
    let path = format!("{}/tests/server/{script}", env!("CARGO_MANIFEST_DIR"));
    let port = socket_address(&server).rsplit_once(':').unwrap().1;
    let mut command = Command::new(program[0]);
    // Go would look for a module.
    command.args(&program[1..]).args([&path, port, &authority.path("ca.pem")]).env("GO111MODULE", "off");
    let output = command.output().unwrap_or_else(|error| panic!("{program:?} does not run: {error}"));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ok\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    server.eventually_is("tls_connections", 0);
    server
}

#[test]
fn python_speaks_tls() {
    let server = run_client(&["python3"], "tls.py");
    assert_eq!(server.stats().value("tls_truncated"), 0, "all of its ends were orderly");
    assert_eq!(server.stats().value("tls_resumed"), 2);
}

#[test]
fn node_speaks_tls() {
    run_client(&["node"], "tls.mjs");
}

#[test]
fn go_speaks_tls() {
    let server = run_client(&["go", "run"], "tls.go");
    assert_eq!(server.stats().value("tls_resumed"), 2);
}

#[test]
fn java_speaks_tls() {
    let server = run_client(&["java"], "Tls.java");
    assert_eq!(server.stats().value("tls_resumed"), 2);
}

#[test]
fn http_without_tls_is_told_where_to_go() {
    let (server, _authority) = start("tls", &[]);
    let response = http::exchange(socket_address(&server), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(response.head.status, 400);
    assert!(response.body.contains("https://"), "{response:?}");
    server.eventually_is("tls_failed_plain", 1);
}

#[test]
fn a_client_that_vanishes_is_a_truncation() {
    let (server, authority) = start("tls", &[]);
    let stream = connect_raw(&server, &authority.client());
    drop(stream.sock);
    server.eventually_is("tls_truncated", 1);
    server.eventually_is("connections", 0);
}

#[test]
fn slow_bytes_and_changed_records() {
    let (server, authority) = start("tls", &[]);
    let mut stream = connect_raw(&server, &authority.client());
    stream.sock.set_nodelay(true).unwrap();
    let mut records = Vec::new();
    stream.conn.writer().write_all(b"\0\0\0\0\0\0\0\x10/qio/ping:1=null").unwrap();
    stream.conn.write_tls(&mut records).unwrap();
    for byte in &records {
        stream.sock.write_all(&[*byte]).unwrap();
    }
    assert!(receive(&mut stream).starts_with("/qio/callback/1"));
    *records.last_mut().unwrap() ^= 1;
    stream.sock.write_all(&records).unwrap();
    let error = stream.read(&mut [0; 8]).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    server.eventually_is("tls_bad_records", 1);
}

/// Connects, and sends the beginning of a handshake.
fn begin(server: &Server, config: &Arc<ClientConfig>) -> TlsStream {
    let socket = TcpStream::connect(socket_address(server)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsStream::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket);
    stream.conn.write_tls(&mut stream.sock).unwrap();
    stream
}

#[test]
fn a_thousand_handshakes_at_once() {
    // Nobody is too late, however slow the machine is.
    let (server, authority) = start("tls", &["--connections-per-address-max", "0", "--clock", "manual"]);
    let config = authority.client();
    let mut honest = connect_raw(&server, &config);
    let mut crowd: Vec<TlsStream> = (0..1000).map(|_| begin(&server, &config)).collect();
    send(&mut honest, "/qio/ping:1=null");
    assert!(receive(&mut honest).starts_with("/qio/callback/1"));
    thread::scope(|scope| {
        for part in crowd.chunks_mut(250) {
            scope.spawn(|| {
                for stream in part {
                    while stream.conn.is_handshaking() {
                        stream.conn.complete_io(&mut stream.sock).unwrap();
                    }
                    stream.write_all(OHAI.as_bytes()).unwrap();
                    stream.read_exact(&mut [0; OHAI.len()]).unwrap();
                }
            });
        }
    });
    let stats = server.stats();
    assert_eq!((stats.value("tls_handshakes"), stats.value("clients")), (1001, 1001));
    assert_eq!((stats.value("tls_handshakes_open"), stats.value("tls_handshakes_waiting")), (0, 0));
    drop(crowd);
    server.eventually_is("tls_connections", 1);
}
