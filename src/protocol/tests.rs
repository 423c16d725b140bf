//! Tests of codecs from their first byte to their last, at every split.

use super::testing::Random;
use super::websocket::close::NO_STATUS;
use super::*;

mod http;

use self::http::ReceivedRequest;

const SETTINGS: CodecSettings = CodecSettings {
    message_bytes_max: 1024,
    http_head_bytes_max: 16_384,
    origins: Origins::Any,
    proxies: TrustedProxies::NONE,
    compression: Compression::OFF,
    wanted: WantedHeaders::NONE,
    date: HttpDate::EPOCH,
};

/// Returns responses without their `Date`, which each of them must have.
fn without_dates(responses: &str) -> String {
    let date = "\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    let statuses = responses.matches("HTTP/1.1 ").count() - responses.matches("HTTP/1.1 1").count();
    assert_eq!(responses.matches(date).count(), statuses, "a Date in each response: {responses}");
    responses.replace(date, "\r\n")
}

const UPGRADE: &str = "GET /any?where HTTP/1.1\r\nHost: quickio.example\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: quickio\r\n\r\n";

const UPGRADE_ECHO: &str = "GET /echo HTTP/1.1\r\nHost: quickio.example\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: quickio\r\n\r\n";

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// An owned [`Incoming`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Reply(Vec<u8>),
    Open(Vec<u8>),
    Event(String),
    Request(u32, ReceivedRequest),
    Close(Vec<u8>, Reason, bool),
    Closed,
    Ignore,
}

/// Decodes a piece, to its end or to the end of the connection, as a caller would.
fn feed(codec: &mut Codec, piece: &[u8], seen: &mut Vec<Seen>) {
    let mut piece = piece.to_vec();
    let mut at = 0;
    loop {
        let decoded = codec.decode(&mut piece[at..], &SETTINGS);
        at += decoded.consumed;
        seen.push(match decoded.incoming {
            Incoming::Incomplete => break assert_eq!(at, piece.len()),
            Incoming::Reply(bytes) | Incoming::Pong(bytes) => Seen::Reply(bytes),
            Incoming::Upgraded { response, .. } => Seen::Reply(response),
            Incoming::Open(bytes) => Seen::Open(bytes),
            Incoming::Event(text) => Seen::Event(text.to_owned()),
            Incoming::Close(close) => Seen::Close(close.bytes, close.reason, close.await_peer),
            Incoming::Closed { .. } => Seen::Closed,
            Incoming::Request(request) => Seen::Request(request.number, ReceivedRequest::of(&request.kind)),
            Incoming::Refused(bytes) => Seen::Reply(bytes),
            Incoming::Ignore => Seen::Ignore,
        });
    }
}

/// Returns the items in the input, which must be the same at every split and for pieces of every size.
fn see(options: Options, input: &[u8]) -> Vec<Seen> {
    let pieces = |pieces: &[&[u8]]| {
        let mut codec = Codec::new(options);
        let mut seen = Vec::new();
        pieces.iter().for_each(|piece| feed(&mut codec, piece, &mut seen));
        seen
    };
    let whole = pieces(&[input]);
    for split in 0..=input.len() {
        let (left, right) = input.split_at(split);
        assert_eq!(pieces(&[left, right]), whole, "split at {split}");
    }
    for size in 1..20 {
        assert_eq!(pieces(&input.chunks(size).collect::<Vec<_>>()), whole, "pieces of {size}");
    }
    whole
}

fn client(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::client_frame(&mut bytes, opcode, payload, KEY);
    bytes
}

fn server(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::frame(&mut bytes, opcode, payload);
    bytes
}

fn server_close(code: u16, reason: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::close(&mut bytes, code, reason);
    bytes
}

fn open_websocket() -> Codec {
    let mut codec = Codec::new(Options::default());
    feed(&mut codec, UPGRADE.as_bytes(), &mut Vec::new());
    feed(&mut codec, &client(Opcode::Text, OHAI.as_bytes()), &mut Vec::new());
    assert!(codec.is_open() && codec.is_idle());
    codec
}

/// Returns the items that an open WebSocket decodes from these frames.
fn see_open(frames: &[Vec<u8>]) -> Vec<Seen> {
    let ohai = client(Opcode::Text, OHAI.as_bytes());
    let seen = see(Options::default(), &[UPGRADE.as_bytes(), &ohai, &frames.concat()].concat());
    assert_eq!(seen[0], Seen::Reply(SWITCHING.into()));
    assert_eq!(seen[1], Seen::Open(server(Opcode::Text, OHAI.as_bytes())));
    seen[2..].to_vec()
}

#[test]
fn a_codec_is_small() {
    assert!(size_of::<Codec>() <= 24, "{}", size_of::<Codec>());
}

#[test]
fn a_websocket_connection() {
    let close = [&1000u16.to_be_bytes()[..], b"bye"].concat();
    let seen = see_open(&[
        client(Opcode::Text, b"/a:0=1"),
        client(Opcode::Ping, b"?"),
        client(Opcode::Pong, b""),
        client(Opcode::Text, "/b:1=\"ü€😀\"".as_bytes()),
        client(Opcode::Close, &close),
        client(Opcode::Text, b"/ignored:0="),
    ]);
    assert_eq!(
        seen,
        [
            Seen::Event("/a:0=1".into()),
            Seen::Reply(server(Opcode::Pong, b"?")),
            Seen::Ignore,
            Seen::Event("/b:1=\"ü€😀\"".into()),
            Seen::Close(server_close(1000, ""), Reason::PeerClosed(1000), false),
        ]
    );
}

#[test]
fn the_reply_to_a_close_without_a_code_has_no_code() {
    let seen = see_open(&[client(Opcode::Close, b"")]);
    assert_eq!(seen, [Seen::Close(vec![0x88, 0], Reason::PeerClosed(NO_STATUS), false)]);
}

#[test]
fn a_raw_connection() {
    let mut input = OHAI.as_bytes().to_vec();
    for text in ["/a:0=1", "", "/b:1=\"ü€😀\""] {
        frame(Framing::Raw, &mut input, text);
    }
    input.extend_from_slice(&1025u64.to_be_bytes());
    input.extend_from_slice(b"whatever");
    assert_eq!(
        see(Options::default(), &input),
        [
            Seen::Open(OHAI.into()),
            Seen::Event("/a:0=1".into()),
            Seen::Event("".into()),
            Seen::Event("/b:1=\"ü€😀\"".into()),
            Seen::Close(vec![], Reason::Violation(Violation::MessageTooLong), false),
        ]
    );
}

#[test]
fn raw_texts_must_be_utf8() {
    for bad in [&b"/a:0=\xFF"[..], b"/a:0=\xE2\x82", b"\xC0\x80", b"/a:0=\xED\xA0\x80x"] {
        let input = [OHAI.as_bytes(), &(bad.len() as u64).to_be_bytes(), bad].concat();
        let closed = Seen::Close(vec![], Reason::Violation(Violation::InvalidUtf8), false);
        assert_eq!(see(Options::default(), &input), [Seen::Open(OHAI.into()), closed]);
    }
}

#[test]
fn the_first_bytes_decide_the_protocol() {
    for len in 0..OHAI.len() {
        for split in 0..=len {
            assert_eq!(detect(split, &OHAI.as_bytes()[split..len]), Detection::Incomplete, "{split}..{len}");
        }
        let other = [&OHAI.as_bytes()[..len], b"\0"].concat();
        for split in 0..=len {
            assert_eq!(detect(split, &other[split..]), Detection::Unknown, "{split}..{len}");
        }
        assert_eq!(detect(len, &OHAI.as_bytes()[len..]), Detection::Raw);
        assert_eq!(detect(len, &[OHAI.as_bytes(), b"more"].concat()[len..]), Detection::Raw);
    }
    for byte in 0..=u8::MAX {
        let expected = match byte {
            b'/' => Detection::Incomplete,
            0x16 => Detection::Tls,
            b'\r' | b'\n' => Detection::Http,
            _ if byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte) => Detection::Http,
            _ => Detection::Unknown,
        };
        assert_eq!(detect(0, &[byte]), expected, "{byte:#x}");
        if byte != b'/' {
            assert_eq!(detect(0, &[byte, b'/']), expected, "{byte:#x}, and more");
        }
    }
}

#[test]
fn an_unknown_protocol_is_closed_without_a_reply() {
    for input in ["/qio/oha1", "/ HTTP/1.1", " GET / HTTP/1.1\r\n", "\0", "(", "\x15\x03\x01", "é"] {
        let closed = Seen::Close(vec![], Reason::UnknownProtocol, false);
        assert_eq!(see(Options::default(), input.as_bytes()), [closed], "{input:?}");
    }
}

#[test]
fn a_client_that_speaks_tls_is_told_so_in_tls() {
    // A record with a ClientHello. The alert is fatal: handshake_failure.
    for input in [&b"\x16"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03GET / HTTP/1.1\r\n\r\n"] {
        let closed = Seen::Close(b"\x15\x03\x01\0\x02\x02\x28".to_vec(), Reason::Tls, false);
        assert_eq!(see(Options::default(), input), [closed], "{input:?}");
    }
}

#[test]
fn a_peer_that_is_no_proxy_may_not_tell_the_address_of_a_client() {
    for input in
        [&b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n/qio/ohai"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0/qio/ohai"]
    {
        assert_eq!(detect(0, input), Detection::ProxyHeader);
        let (mut codec, mut seen) = (Codec::new(Options::default()), Vec::new());
        feed(&mut codec, input, &mut seen);
        assert_eq!(seen, [Seen::Close(vec![], Reason::UnexpectedProxyHeader, false)]);
    }
}

#[test]
fn only_ohai_opens_a_websocket() {
    let invalid = Seen::Close(server_close(1002, "invalid handshake"), Reason::InvalidHandshake, true);
    for text in ["", "/qio/oha", "/qio/ohai ", "/a:0=1"] {
        let frames = [client(Opcode::Text, text.as_bytes()), client(Opcode::Close, b"\x03\xEA")];
        let seen = see(Options::default(), &[UPGRADE.as_bytes(), &frames.concat()].concat());
        assert_eq!(seen[1..], [invalid.clone(), Seen::Closed], "{text:?}");
    }
}

#[test]
fn a_ping_before_ohai_is_answered() {
    let frames = [client(Opcode::Ping, b"x"), client(Opcode::Text, OHAI.as_bytes())].concat();
    let seen = see(Options::default(), &[UPGRADE.as_bytes(), &frames].concat());
    let open = Seen::Open(server(Opcode::Text, OHAI.as_bytes()));
    assert_eq!(seen[1..], [Seen::Reply(server(Opcode::Pong, b"x")), open]);
}

#[test]
fn violations_have_their_close_codes() {
    let mut unmasked = Vec::new();
    encode::frame(&mut unmasked, Opcode::Text, b"/a:0=1");
    let binary = client(Opcode::Binary, b"\0");
    let long = client(Opcode::Text, &[b' '; 1025]);
    let invalid = client(Opcode::Text, b"\xFF");
    for (frame, violation, code, text) in [
        (unmasked, Violation::Unmasked, 1002, "client must mask data"),
        (binary, Violation::Binary, 1003, "binary messages are not accepted"),
        (invalid, Violation::InvalidUtf8, 1007, "invalid UTF-8"),
        (long, Violation::MessageTooLong, 1009, "message too long"),
    ] {
        let closed = Seen::Close(server_close(code, text), Reason::Violation(violation), false);
        assert_eq!(see_open(&[client(Opcode::Text, b"1"), frame]), [Seen::Event("1".into()), closed]);
    }
}

#[test]
fn only_the_peers_close_matters_after_our_close() {
    let behind = [
        client(Opcode::Text, b"/a:0=1"),
        client(Opcode::Text, b"\xFF invalid, and longer than the limit").repeat(50),
        client(Opcode::Binary, &[7; 2000]),
        client(Opcode::Continuation, b""),
        client(Opcode::Ping, b"?"),
    ]
    .concat();
    let close = client(Opcode::Close, b"\x03\xE8 whatever \xFF");
    let input = [&behind[..], &close].concat();
    for split in 0..=input.len() {
        let mut codec = open_websocket();
        let mut seen = Vec::new();
        let began = codec.close(Reason::GoingAway, &SETTINGS);
        assert_eq!(began.bytes, server_close(1001, "server going away"));
        assert!(began.await_peer && !codec.is_open() && !codec.is_idle());
        feed(&mut codec, &input[..split], &mut seen);
        feed(&mut codec, &input[split..], &mut seen);
        assert_eq!(seen, [Seen::Closed], "split at {split}");
        feed(&mut codec, &client(Opcode::Text, b"more"), &mut seen);
        assert_eq!(seen.len(), 1);
    }
}

#[test]
fn our_close_may_come_at_any_point() {
    let mut fragment = client(Opcode::Text, b"begun");
    fragment[0] &= 0x7F;
    let input = [fragment, client(Opcode::Ping, b"??"), client(Opcode::Close, b"")].concat();
    for split in 0..input.len() {
        let mut codec = open_websocket();
        feed(&mut codec, &input[..split], &mut Vec::new());
        assert!(codec.close(Reason::ClientTimeout, &SETTINGS).await_peer);
        let mut seen = Vec::new();
        feed(&mut codec, &input[split..], &mut seen);
        assert_eq!(seen, [Seen::Closed], "split at {split}");
    }
}

#[test]
fn a_violation_after_our_close_ends_the_connection() {
    let mut codec = open_websocket();
    codec.close(Reason::GoingAway, &SETTINGS);
    let mut seen = Vec::new();
    feed(&mut codec, b"\xFF\xFF\xFF\xFF", &mut seen);
    assert_eq!(seen, [Seen::Closed]);
}

#[test]
fn closing_twice_sends_one_close() {
    let mut codec = open_websocket();
    codec.close(Reason::GoingAway, &SETTINGS);
    assert_eq!(codec.close(Reason::ClientTimeout, &SETTINGS), Close::silent(Reason::ClientTimeout));
}

#[test]
fn codes_that_must_not_be_sent_are_not_sent() {
    for reason in [Reason::ConnectionLost, Reason::PeerClosed(NO_STATUS), Reason::Refused(HttpRefusal::Key)] {
        assert_eq!(open_websocket().close(reason, &SETTINGS).bytes, [0x88, 0], "{reason}");
    }
}

#[test]
fn echo_needs_no_greeting() {
    let options = Options { echo: true, ..Options::default() };
    let frames = [client(Opcode::Text, "ü".as_bytes()), client(Opcode::Binary, b"\xFF")].concat();
    let seen = see(options, &[UPGRADE_ECHO.as_bytes(), &frames].concat());
    assert!(matches!(&seen[0], Seen::Open(answer) if answer.starts_with(b"HTTP/1.1 101 ")));
    let text = Seen::Reply(server(Opcode::Text, "ü".as_bytes()));
    assert_eq!(seen[1..], [text, Seen::Reply(server(Opcode::Binary, b"\xFF"))]);
}

#[test]
fn echo_is_off_unless_asked_for_and_only_at_its_path() {
    let binary = client(Opcode::Binary, b"\xFF");
    for (echo, request) in [(false, UPGRADE_ECHO), (true, UPGRADE)] {
        let seen = see(Options { echo, ..Options::default() }, &[request.as_bytes(), &binary].concat());
        assert!(matches!(&seen[0], Seen::Reply(_)));
        assert!(matches!(&seen[1], Seen::Close(_, Reason::Violation(Violation::Binary), false)));
    }
}

#[test]
fn open_and_idle_follow_the_connection() {
    let mut codec = Codec::new(Options::default());
    let mut at = |piece: &[u8], framing, open, idle| {
        feed(&mut codec, piece, &mut Vec::new());
        assert_eq!((codec.framing(), codec.is_open(), codec.is_idle()), (framing, open, idle), "{piece:?}");
    };
    let websocket = Some(Framing::WebSocket);
    at(b"G", None, false, false);
    at(&UPGRADE.as_bytes()[1..20], None, false, false);
    at(&UPGRADE.as_bytes()[20..], websocket, false, false);
    at(&client(Opcode::Text, OHAI.as_bytes()), websocket, true, true);
    let mut fragment = client(Opcode::Text, b"begun");
    fragment[0] &= 0x7F;
    at(&fragment[..1], websocket, true, false);
    at(&fragment[1..], websocket, true, false);
    at(&client(Opcode::Ping, b""), websocket, true, false);
    at(&client(Opcode::Continuation, b"")[..3], websocket, true, false);
    at(&client(Opcode::Continuation, b"")[3..], websocket, true, true);
    at(&client(Opcode::Close, b""), websocket, false, false);
}

#[test]
fn frames_have_the_announced_length() {
    for len in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000] {
        let text = "x".repeat(len);
        for framing in [Framing::WebSocket, Framing::Raw] {
            let mut bytes = Vec::new();
            frame(framing, &mut bytes, &text);
            assert_eq!(bytes.len(), frame_len(framing, len));
            assert!(bytes.ends_with(text.as_bytes()));
        }
    }
}

#[test]
fn each_reason_has_its_own_text() {
    let reasons = [
        Reason::PeerClosed(1000),
        Reason::ConnectionLost,
        Reason::Finished,
        Reason::UnknownProtocol,
        Reason::Tls,
        Reason::NoProxyHeader,
        Reason::InvalidProxyHeader,
        Reason::UnexpectedProxyHeader,
        Reason::InvalidHandshake,
        Reason::MalformedEvent,
        Reason::ClientTimeout,
        Reason::SlowClient,
        Reason::NoRoom,
        Reason::TooManyClients,
        Reason::GoingAway,
        Reason::Application,
        Reason::ServerError,
    ];
    let mut texts: Vec<_> = reasons.iter().map(|reason| reason.text()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), reasons.len());
    assert!(reasons.iter().all(|reason| reason.text().len() <= 123));
}

/// Returns the input of a connection that is mostly valid.
fn random_connection(random: &mut Random) -> Vec<u8> {
    let mut input = match random.below(5) {
        0 => OHAI.into(),
        1 => UPGRADE_ECHO.as_bytes().to_vec(),
        2 => self::http::random_requests(random).into_bytes(),
        3 => [self::http::random_requests(random).as_bytes(), UPGRADE.as_bytes()].concat(),
        _ => [UPGRADE.as_bytes(), &client(Opcode::Text, OHAI.as_bytes())].concat(),
    };
    if random.once_in(4) {
        random.damage(&mut input);
    }
    for _ in 0..random.below(8) {
        let len = random.below(150);
        let text = random.text(len);
        match (input.starts_with(OHAI.as_bytes()), random.below(10)) {
            (true, _) => frame(Framing::Raw, &mut input, std::str::from_utf8(&text).expect("valid text")),
            (false, 0) => input.extend(client(Opcode::Ping, &text[..text.len().min(125)])),
            (false, 1) => input.extend(client(Opcode::Binary, &text)),
            (false, 2) if random.once_in(2) => input.extend(client(Opcode::Close, b"\x03\xE8")),
            (false, _) => input.extend(client(Opcode::Text, &text)),
        }
    }
    if random.once_in(3) {
        random.damage(&mut input);
    }
    input
}

/// The items do not depend on how the input is split, and no item follows the end of the connection.
#[test]
fn fuzz_connections_in_pieces() {
    testing::fuzz(|random| {
        let input = random_connection(random);
        let options = Options { echo: random.once_in(2), ..Options::default() };
        let see_in = |pieces: &[&[u8]]| {
            let mut codec = Codec::new(options);
            let mut seen = Vec::new();
            pieces.iter().for_each(|piece| feed(&mut codec, piece, &mut seen));
            (seen, codec.framing(), codec.is_open(), codec.is_idle())
        };
        let whole = see_in(&[&input]);
        assert_eq!(see_in(&random.pieces(&input)), whole);
        assert_eq!(see_in(&input.chunks(1).collect::<Vec<_>>()), whole);
        check_order(&whole.0);
    });
}

/// Asserts that events come behind the handshake, and that nothing comes behind the end.
fn check_order(seen: &[Seen]) {
    let opened = seen.iter().position(|it| matches!(it, Seen::Open(_))).unwrap_or(seen.len());
    let event = seen.iter().position(|it| matches!(it, Seen::Event(_))).unwrap_or(seen.len());
    let closed = seen.iter().position(|it| matches!(it, Seen::Close(..))).unwrap_or(seen.len());
    assert!(event >= opened, "{seen:?}");
    let awaited = matches!(seen.get(closed), Some(Seen::Close(_, _, true)));
    match &seen[seen.len().min(closed + 1)..] {
        [] => {}
        [Seen::Closed] if awaited => {}
        behind => panic!("items behind the end: {behind:?}"),
    }
}
