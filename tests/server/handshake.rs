//! protocol.md, section 5: the first bytes decide the protocol, and each protocol has its handshake.

use crate::support::wire::Frame;
use crate::support::{Client, Conversation, Ended, Server, Transport, http, http_client};

#[test]
fn raw_tcp() {
    let server = Server::start(&[]);
    // At every split. The shards have read the first part before the second is sent.
    for split in 1..9 {
        let mut client = Client::connect(server.address(), Transport::Raw);
        client.send(&b"/qio/ohai"[..split]);
        server.wait_for_shards();
        client.send(&b"/qio/ohai"[split..]);
        client.expect_bytes(b"/qio/ohai");
        client.ping();
    }
    // The first event in one piece with the handshake.
    let mut client = Client::connect(server.address(), Transport::Raw);
    let event = client.framed("/qio/ping:9=");
    client.send(&[b"/qio/ohai", event.as_slice()].concat());
    client.expect_bytes(b"/qio/ohai");
    assert_eq!(client.answer(9).code(), 200);
    assert_eq!(server.stats().value("handshakes_raw"), 9);
}

#[test]
fn websocket() {
    let server = Server::start(&[]);
    let upgrades = [
        ("the protocol alone", http::upgrade("Sec-WebSocket-Protocol: quickio\r\n"), Some("quickio")),
        ("one of a list", http::upgrade("Sec-WebSocket-Protocol: chat, quickio,x\r\n"), Some("quickio")),
        (
            "a list in two lines",
            http::upgrade("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: quickio\r\n"),
            Some("quickio"),
        ),
        ("no protocol", http::upgrade(""), None),
        ("any path", http::upgrade("").replace("GET / ", "GET /some/path?and=query "), None),
        (
            "names and tokens in other cases",
            http::upgrade("").replace("Upgrade: websocket", "UPGRADE: WebSocket"),
            None,
        ),
        (
            "a list of connection options",
            http::upgrade("").replace("Connection: Upgrade", "Connection: keep-alive, upgrade"),
            None,
        ),
        (
            "an extension that the server does not support",
            http::upgrade("Sec-WebSocket-Extensions: x-unheard-of\r\n"),
            None,
        ),
    ];
    for (name, request, protocol) in &upgrades {
        let mut client = Client::connect(server.address(), Transport::WebSocket);
        client.send(request.as_bytes());
        let head = client.head();
        assert_eq!(head.status, 101, "{name}: {head:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some(http::ACCEPT), "{name}");
        assert_eq!(
            head.header("upgrade").map(str::to_ascii_lowercase).as_deref(),
            Some("websocket"),
            "{name}"
        );
        assert_eq!(
            head.header("connection").map(str::to_ascii_lowercase).as_deref(),
            Some("upgrade"),
            "{name}"
        );
        assert_eq!(head.header("sec-websocket-protocol"), *protocol, "{name}");
        assert_eq!(head.header("sec-websocket-extensions"), None, "{name}");
        client.send_text("/qio/ohai");
        assert_eq!(client.text(), "/qio/ohai", "{name}: the server sends nothing else before");
        client.ping();
    }
    assert_eq!(server.stats().value("handshakes_websocket"), upgrades.len() as u64);
}

#[test]
fn websocket_in_pieces_of_every_size() {
    let server = Server::start(&[]);
    let request = http::upgrade("Sec-WebSocket-Protocol: quickio\r\n");
    let ohai = Frame::text("/qio/ohai").bytes();
    let ping = Frame::text("/qio/ping:1=null").bytes();
    let all = [request.as_bytes(), &ohai, &ping].concat();
    for size in [1, 2, 3, 7, 64, all.len()] {
        let mut client = Client::connect(server.address(), Transport::WebSocket);
        for piece in all.chunks(size) {
            client.send(piece);
        }
        assert_eq!(client.head().status, 101);
        assert_eq!(client.text(), "/qio/ohai");
        assert_eq!(client.answer(1).code(), 200, "in pieces of {size}");
    }
}

/// A request that is refused: its name, its bytes, the status, and a header that the response must have.
type Refusal<'a> = (&'a str, String, u16, Option<(&'a str, &'a str)>);

#[test]
fn refused_requests() {
    let without = |line: &str| http::upgrade("").replacen(&format!("{line}\r\n"), "", 1);
    let with = |from: &str, to: &str| http::upgrade("").replacen(from, to, 1);
    let version = Some(("sec-websocket-version", "13"));
    let upgrade = Some(("upgrade", "websocket"));
    let plenty = (0..110).map(|number| format!("X-{number}: x\r\n")).collect::<String>();
    let refusals: [Refusal; 24] = [
        ("a key without Upgrade", without("Upgrade: websocket"), 426, upgrade),
        ("a key without Connection", without("Connection: Upgrade"), 426, upgrade),
        ("a key, upgrade to something else", with("Upgrade: websocket", "Upgrade: h2c"), 426, upgrade),
        ("an old version", with("Version: 13", "Version: 8"), 400, version),
        ("a version that is not a number", with("Version: 13", "Version: x"), 400, version),
        ("no version", without("Sec-WebSocket-Version: 13"), 400, version),
        ("a list without quickio", http::upgrade("Sec-WebSocket-Protocol: chat, quickio2\r\n"), 400, None),
        ("an empty list", http::upgrade("Sec-WebSocket-Protocol: \r\n"), 400, None),
        ("a key that is too short", with(http::KEY, "dGhl"), 400, None),
        ("a key that is not base64", with(http::KEY, "!!!!!!!!!!!!!!!!!!!!!!=="), 400, None),
        ("an upgrade without a key", without(&format!("Sec-WebSocket-Key: {}", http::KEY)), 400, None),
        ("two keys", http::upgrade(&format!("Sec-WebSocket-Key: {}\r\n", http::KEY)), 400, None),
        ("two versions", http::upgrade("Sec-WebSocket-Version: 13\r\n"), 400, None),
        ("two hosts", http::upgrade("Host: elsewhere\r\n"), 400, None),
        ("no host (RFC 9112, 3.2)", without("Host: localhost"), 400, None),
        ("HTTP/1.0", with("HTTP/1.1", "HTTP/1.0"), 400, None),
        ("another method", with("GET", "POST"), 405, Some(("allow", "GET"))),
        ("a header line without a colon", with("Host: localhost", "Host localhost"), 400, None),
        ("a request line without a target", with("GET / HTTP/1.1", "GET HTTP/1.1"), 400, None),
        ("too many headers", http::upgrade(&plenty), 431, None),
        ("a head over 16 KiB", http::upgrade(&format!("X: {}\r\n", "x".repeat(17_000))), 431, None),
        ("the target of OPTIONS", with("GET /", "GET *"), 400, None),
        ("a target of another scheme", with("GET /", "GET ftp://a/"), 400, None),
        ("an unknown expectation", http::upgrade("Expect: foo\r\n"), 417, None),
    ];
    let server = Server::start(&[]);
    for (name, request, status, header) in &refusals {
        let response = http::exchange_closing(server.address(), request);
        assert_eq!(response.head.status, *status, "{name}: {response:?}");
        let connection = response.head.header("connection").expect("the connection's options");
        assert!(connection.split(", ").any(|option| option == "close"), "{name}: {response:?}");
        if let Some((header, value)) = header {
            assert_eq!(response.head.header(header), Some(*value), "{name}");
        }
    }
    let refused = server.eventually_is("connections", 0).value("handshakes_refused");
    assert_eq!(refused, refusals.len() as u64);
    server.assert_serves();
}

#[test]
fn heads_with_many_cookies_are_accepted_up_to_a_limit_on_every_transport() {
    // The head is longer than a buffer of the server, and than those of other tests.
    for (limit, cookie) in [("16384", 15_000), ("32Ki", 30_000), ("1Ki", 500)] {
        let server = Server::start(&["--http-head-bytes-max", limit]);
        let cookie = format!("Cookie: {}\r\n", "x".repeat(cookie));
        let session = http_client::new_session();
        let with = |request: String| request.replacen("Host:", &format!("{cookie}Host:"), 1);
        let mut client = Client::connect(server.address(), Transport::WebSocket);
        client.send(with(http::upgrade("")).as_bytes());
        assert_eq!(client.head().status, 101, "{limit}");
        let poll = with(session.post("&connect=true", "/qio/ping:1="));
        assert_eq!(http::exchange(server.address(), &poll).head.status, 200, "{limit}");
        let mut stream = http::Connection::open(server.address());
        stream.send(with(session.stream("")));
        assert_eq!(stream.head().status, 200, "{limit}");
        let longer = cookie.repeat(3);
        let refused = http::exchange_closing(server.address(), poll.replacen(&cookie, &longer, 1));
        assert_eq!(refused.head.status, 431, "{limit}");
    }
}

#[test]
fn endless_heads_are_refused() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.address(), Transport::WebSocket);
    client.send(b"GET / HTTP/1.1\r\nX: ");
    while client.try_send(&[b'x'; 512]) && server.stats().value("handshakes_refused") == 0 {}
    assert_eq!(client.head().status, 431);
}

#[test]
fn first_messages_other_than_ohai() {
    let server = Server::start(&[]);
    for first in ["", "/qio/oha", "/qio/ohai ", "/qio/ohai\n", "/qio/ping:1=null", "ohai"] {
        let mut client = Client::connect(server.address(), Transport::WebSocket);
        client.upgrade();
        client.send_text(first);
        assert_eq!(client.ended(), Ended::Close(1002, "invalid handshake".into()), "{first:?}");
        client.try_send(&Frame::close(1002, "").bytes());
        client.expect_disconnect();
    }
    // In fragments it is valid.
    let mut client = Client::connect(server.address(), Transport::WebSocket);
    client.upgrade();
    client.send(&Frame::text("/qio").unfinished().bytes());
    client.send(&Frame::new(0, "/ohai").bytes());
    assert_eq!(client.text(), "/qio/ohai");
    client.ping();
}

#[test]
fn garbage_first_bytes() {
    let server = Server::start(&[]);
    let garbage: [&[u8]; 6] =
        [b"\0", b"\xff\xff\xff\xff", b"/qio/ohaI", b"/qio/x", b" GET / HTTP/1.1\r\n", b"{\"hello\":1}"];
    for bytes in garbage {
        let mut client = Client::connect(server.address(), Transport::Raw);
        client.send(bytes);
        client.expect_disconnect();
    }
    // The beginning of a handshake is not garbage.
    let mut client = Client::connect(server.address(), Transport::Raw);
    client.send(b"/");
    server.assert_serves();
    client.send(b"qio/ohai");
    client.expect_bytes(b"/qio/ohai");
    client.ping();
    // TLS, which the server does not support, is answered with an alert of TLS.
    let mut client = Client::connect(server.address(), Transport::Raw);
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01");
    client.expect_bytes(b"\x15\x03\x01\x00\x02\x02\x28");
    client.expect_disconnect();
    server.log_with(
        "reason=\"TLS on a port that takes none; connect without it, or to a port that takes TLS\"",
    );
    assert_eq!(server.stats().value("protocol_unknown"), garbage.len() as u64 + 1);
}

#[test]
fn every_request_line_gets_an_answer_in_http() {
    let server = Server::start(&[]);
    for (line, status) in [
        ("PROPFIND / HTTP/1.1", 501),
        ("get / HTTP/1.1", 501),
        ("PROPFIND / HTTP/1.0", 501),
        ("DELETE / HTTP/1.1", 405),
        ("CONNECT a:443 HTTP/1.1", 405),
        ("PRI * HTTP/2.0", 505),
        ("nonsense", 400),
    ] {
        for before in ["", "\r\n", "\n\r\n"] {
            let request = format!("{before}{line}\r\nHost: a\r\n\r\n");
            assert_eq!(http::exchange(server.address(), &request).head.status, status, "{request:?}");
            // The first byte alone already tells that it is HTTP.
            let mut connection = http::Connection::open(server.address());
            for byte in request.bytes() {
                connection.send([byte]);
            }
            assert_eq!(connection.response().head.status, status, "{request:?}, byte by byte");
        }
    }
    assert_eq!(server.stats().value("protocol_unknown"), 0);
}
