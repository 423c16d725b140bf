//! Compression of WebSocket messages (permessage-deflate, RFC 7692), with flate2 as the client.

use crate::support::wire::{self, Frame};
use crate::support::{Client, Conversation, Server, Transport, http};
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress};

/// The offer of Chromium and Firefox.
const BROWSER: &str = "permessage-deflate; client_max_window_bits";

const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

fn server(arguments: &[&str]) -> Server {
    Server::start(&[&["--compression"], arguments].concat())
}

/// Sends a handshake with offers. Returns the client with the extensions that the server has accepted.
fn upgraded(server: &Server, offers: &[&str]) -> (Client, Option<String>) {
    let mut client = Client::connect(server.address(), Transport::WebSocket);
    let lines = offers.iter().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    let lines = format!("Sec-WebSocket-Protocol: quickio\r\n{}", lines.collect::<String>());
    client.send(http::upgrade(&lines).as_bytes());
    let head = client.head();
    assert_eq!(head.status, 101, "{head:?}");
    (client, head.header("sec-websocket-extensions").map(str::to_owned))
}

/// Connects with the offer of a browser, and greets in a compressed message.
fn browser(server: &Server) -> Client {
    let (mut client, accepted) = upgraded(server, &[BROWSER]);
    assert_eq!(accepted.as_deref(), Some(ACCEPTED));
    client.send(&compressed("/qio/ohai"));
    assert_eq!(client.text(), "/qio/ohai");
    client
}

/// Compresses a payload as browsers do.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut deflater = Compress::new(flate2::Compression::default(), false);
    let mut bytes = Vec::with_capacity(payload.len() + 100);
    deflater.compress_vec(payload, &mut bytes, FlushCompress::Sync).unwrap();
    bytes.truncate(bytes.len() - TAIL.len());
    bytes
}

fn compressed(text: &str) -> Vec<u8> {
    Frame::text(deflated(text.as_bytes())).reserved(4).bytes()
}

/// Returns the next text with the length of its payload, and whether it was compressed.
fn next(client: &mut Client) -> (String, usize, bool) {
    let frame = client.compressible_frame().expect("a frame comes");
    assert_eq!((frame.opcode, frame.finished), (wire::TEXT, true));
    let len = frame.payload.len();
    let payload = match frame.compressed {
        true => {
            let mut text = Vec::with_capacity(1 << 20);
            let mut inflater = Decompress::new(false);
            let whole = [&frame.payload[..], &TAIL].concat();
            inflater.decompress_vec(&whole, &mut text, FlushDecompress::Sync).unwrap();
            text
        }
        false => frame.payload,
    };
    (String::from_utf8(payload).unwrap(), len, frame.compressed)
}

/// JSON of about this many bytes, as an application sends it.
fn json(len: usize) -> String {
    let rows = (0..).map(|i| format!(r#"{{"id":{i},"name":"user {}"}}"#, i * 7919 % 1000));
    let mut text = String::from("[0");
    for row in rows {
        if text.len() + row.len() >= len {
            break;
        }
        text = format!("{text},{row}");
    }
    text + "]"
}

#[test]
fn offers_are_negotiated() {
    let server = server(&[]);
    let window = |bits| format!("{ACCEPTED}; server_max_window_bits={bits}");
    for (offers, accepted) in [
        (vec![BROWSER], Some(ACCEPTED.to_owned())),
        // ws and websockets.
        (vec!["permessage-deflate; client_max_window_bits"], Some(ACCEPTED.to_owned())),
        (vec!["permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"], Some(window(12))),
        (vec!["permessage-deflate; server_max_window_bits=\"8\""], Some(window(8))),
        (vec!["x, permessage-deflate; foo, permessage-deflate; server_max_window_bits=9"], Some(window(9))),
        (
            vec!["permessage-deflate; server_max_window_bits=16", "permessage-deflate"],
            Some(ACCEPTED.to_owned()),
        ),
        (vec!["permessage-deflate; client_max_window_bits; client_max_window_bits"], None),
        (vec!["permessage-deflate; foo"], None),
        (vec!["x-unheard-of"], None),
        (vec![], None),
    ] {
        let (mut client, found) = upgraded(&server, &offers);
        assert_eq!(found, accepted, "{offers:?}");
        client.send(&Frame::text("/qio/ohai").bytes());
        assert_eq!(client.text(), "/qio/ohai");
        client.ping();
    }
    assert_eq!(server.stats().value("handshakes_deflate"), 6);
    let mut client = Client::connect(server.address(), Transport::WebSocket);
    client.send(http::upgrade("Sec-WebSocket-Extensions: permessage-deflate;\r\n").as_bytes());
    assert_eq!(client.head().status, 400);
    assert_eq!(client.rest(), b"invalid websocket extensions\n");
}

#[test]
fn compression_is_off_by_default() {
    let server = Server::start(&[]);
    let (mut client, accepted) = upgraded(&server, &[BROWSER, "malformed;"]);
    assert_eq!(accepted, None);
    client.send(&Frame::text("/qio/ohai").bytes());
    assert_eq!(client.text(), "/qio/ohai");
    client.send(&compressed("/qio/ping:1=null"));
    client.expect_closed(1002, "reserved bits must be 0");
}

#[test]
fn answers_are_compressed_from_their_bound_on() {
    let server = server(&[]);
    let mut client = browser(&server);
    for (len, is_compressed) in [(10, false), (900, false), (2000, true), (60_000, true)] {
        let data = json(len);
        client.send(&compressed(&format!("/clienttest/echo:7={data}")));
        let (text, sent, was_compressed) = next(&mut client);
        let rest = text.strip_prefix("/qio/callback/7:").unwrap();
        assert!(rest.ends_with(&format!("={{\"code\":200,\"data\":{data}}}")), "{text}");
        assert_eq!(was_compressed, is_compressed, "{len}");
        assert!(!is_compressed || sent < text.len() * 6 / 10, "{sent} of {}", text.len());
    }
    let stats = server.stats();
    assert_eq!(stats.value("messages_compressed"), 2);
    assert_eq!(stats.value("messages_inflated"), 5);
    assert!(stats.value("compressed_bytes_after") * 10 < stats.value("compressed_bytes_before") * 6);
    assert!(stats.value("inflated_bytes") > 62_000);
}

#[test]
fn a_broadcast_is_compressed_once_for_those_who_take_it() {
    let server = server(&["--shards", "1"]);
    let mut plain = server.websocket();
    let mut raw = Client::open(server.address(), Transport::Raw);
    let mut deflates: Vec<Client> = (0..5).map(|_| browser(&server)).collect();
    let small = {
        let (mut client, accepted) = upgraded(&server, &["permessage-deflate; server_max_window_bits=9"]);
        assert!(accepted.is_some_and(|accepted| accepted.ends_with("server_max_window_bits=9")));
        client.send(&Frame::text("/qio/ohai").bytes());
        assert_eq!(client.text(), "/qio/ohai");
        client
    };
    deflates.push(small);
    for client in deflates.iter_mut().chain([&mut plain, &mut raw]) {
        client.send_text("/qio/on:1=\"/relay/room\"");
        assert_eq!(client.answer(1).code(), 200);
    }
    for (count, (len, is_compressed, fits)) in
        [(100, false, true), (400, true, true), (3000, true, false)].into_iter().enumerate()
    {
        let data = json(len);
        let event = format!("/relay/room:0={data}");
        plain.send_text(&event);
        for (index, client) in deflates.iter_mut().enumerate() {
            let (text, _, was_compressed) = next(client);
            assert_eq!(text, event);
            // The last one has a window of 512 bytes.
            assert_eq!(was_compressed, is_compressed && (index < 5 || fits), "{len} for client {index}");
        }
        assert_eq!(plain.text(), event);
        assert_eq!(raw.text(), event);
        assert_eq!(server.stats().value("messages_compressed"), count as u64);
    }
    // Broadcasts of one turn, which are combined into one frame, are messages of their own.
    let events: Vec<String> = [300, 50, 5000].map(|len| format!("/relay/room:0={}", json(len))).into();
    plain.send_texts(&events);
    for client in &mut deflates {
        for event in &events {
            assert_eq!(&next(client).0, event);
        }
    }
    for client in [&mut plain, &mut raw] {
        events.iter().for_each(|event| assert_eq!(&client.text(), event));
    }
    // What does not shrink is sent as it is.
    let noise: String = (0..600_u64).map(|i| char::from(b'!' + (i * i * 7919 % 89) as u8)).collect();
    let noise = format!("/relay/room:0=\"{}\"", noise.replace(['"', '\\'], "x"));
    plain.send_text(&noise);
    for client in &mut deflates {
        let (text, len, was_compressed) = next(client);
        assert_eq!(text, noise);
        assert!(!was_compressed || len * 10 <= text.len() * 9);
    }
}

#[test]
fn a_bomb_is_refused() {
    let server = server(&["--message-bytes-max", "100000", "--shards", "1"]);
    let event = |len: usize| format!("/clienttest/echo:0=\"{}\"", "x".repeat(len));
    let mut client = browser(&server);
    let fits = event(99_979);
    assert_eq!(fits.len(), 100_000);
    client.send(&compressed(&fits));
    client.send(&compressed("/qio/ping:3=null"));
    assert_eq!(client.answer(3).code(), 200);
    client.send(&compressed(&event(99_980)));
    client.expect_closed(1009, "message too long");
    let bomb = compressed(&event(2 << 20));
    assert!(bomb.len() < 10_000, "{}", bomb.len());
    let mut client = browser(&server);
    client.send(&bomb);
    client.expect_closed(1009, "message too long");
    // In fragments too.
    let payload = deflated(event(1 << 20).as_bytes());
    let mut client = browser(&server);
    client.send(&Frame::text(&payload[..10]).reserved(4).unfinished().bytes());
    client.send(&Frame::new(wire::CONTINUATION, &payload[10..]).bytes());
    client.expect_closed(1009, "message too long");
    let stats = server.stats();
    assert_eq!((stats.value("inflations_refused"), stats.value("closes_too_large")), (3, 3));
    assert_eq!(server.eventually_is("connections", 0).value("incomplete_bytes"), 0);
    server.assert_serves();
}

#[test]
fn invalid_messages_are_refused() {
    let server = server(&[]);
    let ping = deflated(b"/qio/ping:1=null");
    for (bytes, code, reason) in [
        (Frame::text([0xFF; 20]).reserved(4).bytes(), 1007, "invalid compressed data"),
        (Frame::text(deflated(b"/a:0=\"\xFF\"")).reserved(4).bytes(), 1007, "invalid UTF-8"),
        (Frame::new(wire::PING, "x").reserved(4).bytes(), 1002, "reserved bits must be 0"),
        (Frame::text(&ping).reserved(2).bytes(), 1002, "reserved bits must be 0"),
        (Frame::text(&ping).reserved(6).bytes(), 1002, "reserved bits must be 0"),
        (
            [
                Frame::text(&ping[..3]).reserved(4).unfinished().bytes(),
                Frame::new(wire::CONTINUATION, &ping[3..]).reserved(4).bytes(),
            ]
            .concat(),
            1002,
            "reserved bits must be 0",
        ),
        (
            Frame::new(wire::BINARY, deflated(b"x")).reserved(4).bytes(),
            1003,
            "binary messages are not accepted",
        ),
    ] {
        let mut client = browser(&server);
        client.send(&bytes);
        client.expect_closed(code, reason);
    }
    // A message that ends with BFINAL, as some libraries send it, and one in fragments with a Ping between them.
    let mut client = browser(&server);
    let mut deflater = Compress::new(flate2::Compression::best(), false);
    let mut finished = Vec::with_capacity(200);
    deflater.compress_vec(b"/qio/ping:5=null", &mut finished, FlushCompress::Finish).unwrap();
    client.send(&Frame::text(&finished).reserved(4).bytes());
    assert_eq!(client.answer(5).code(), 200);
    client.send(&Frame::text(&ping[..3]).reserved(4).unfinished().bytes());
    client.send(&Frame::new(wire::PING, "").bytes());
    assert_eq!(client.frame().map(|frame| frame.opcode), Some(wire::PONG));
    client.send(&Frame::new(wire::CONTINUATION, &ping[3..]).bytes());
    assert_eq!(client.answer(1).code(), 200);
}
