//! The opening handshake of RFC 6455, section 4: an HTTP request to the answer that opens the WebSocket, or refuses.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1_smol::Sha1;

use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

/// The subprotocol that the server speaks.
pub const SUBPROTOCOL: &str = "quickio";

/// "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" (1.3): proves that the server means WebSocket.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Keys are read as generously as possible: bits behind the 16 bytes, which some clients choose at random, are ignored.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// What the bytes of a request came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Handshake {
    /// The head is not whole. All of the input was consumed.
    NotYet,
    /// The handshake is accepted. Frames follow.
    Upgrade {
        /// The response: 101, whole.
        answer: Vec<u8>,
        /// Whether the client gets back what it sends, instead of being a client of QuickIO.
        echo: bool,
    },
    /// The request is refused: its [answer](Refusal::answer) is due, and the connection is to be closed behind it.
    Refuse(Refusal),
}

/// A request that arrives in pieces.
#[derive(Debug)]
pub struct Request {
    /// At most [`HTTP_HEAD_BYTES_MAX`]. All of it was searched for the end of the head.
    bytes: Vec<u8>,
    echo: bool,
}

impl Request {
    /// A request that begins with these bytes: at most a method. With `echo` the path `/echo` needs no subprotocol.
    pub fn new(first: &[u8], echo: bool) -> Request {
        Request { bytes: first.to_vec(), echo }
    }

    /// Adds a piece; returns how much of it belonged to the request, and what came of that.
    pub fn read(&mut self, input: &[u8]) -> (usize, Handshake) {
        let had = self.bytes.len();
        let room = HTTP_HEAD_BYTES_MAX - had;
        self.bytes.extend_from_slice(&input[..input.len().min(room)]);
        match head_len(&self.bytes, had) {
            Some(len) => (len - had, parse(&self.bytes[..len], self.echo)),
            None if input.len() < room => (input.len(), Handshake::NotYet),
            None => (room, Handshake::Refuse(Refusal::TooLarge)),
        }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No HTTP/1.x request.
    Malformed,
    /// A header that must be single is there twice.
    RepeatedHeader,
    /// No `Host` (RFC 9112, 3.2).
    NoHost,
    /// A handshake in HTTP/1.0 (RFC 6455, 4.2.1).
    OldHttp,
    /// A handshake with a body.
    Body,
    /// No `Sec-WebSocket-Key`, or none that is 16 bytes in base64.
    Key,
    /// A version other than 13.
    Version,
    /// Subprotocols are offered, but not `quickio`.
    Subprotocol,
    /// A handshake by a method other than GET.
    Method,
    /// A key, but not the headers that ask for an upgrade.
    UpgradeMissing,
    /// More than [`HTTP_HEAD_BYTES_MAX`] bytes, or more than [`HTTP_HEADERS_MAX`] headers.
    TooLarge,
    /// No handshake at all, but some other request.
    NotWebSocket,
}

impl Refusal {
    /// The status of the response.
    pub const fn status(self) -> u16 {
        match self {
            Refusal::Method => 405,
            Refusal::UpgradeMissing => 426,
            Refusal::TooLarge => 431,
            Refusal::NotWebSocket => 501,
            _ => 400,
        }
    }

    /// What is wrong: the body of the response.
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed request",
            Refusal::RepeatedHeader => "repeated header",
            Refusal::NoHost => "host missing",
            Refusal::OldHttp => "websocket needs HTTP/1.1",
            Refusal::Body => "websocket handshake must have no body",
            Refusal::Key => "invalid websocket key",
            Refusal::Version => "websocket version must be 13",
            Refusal::Subprotocol => "websocket subprotocol must be quickio",
            Refusal::Method => "websocket handshake must be GET",
            Refusal::UpgradeMissing => "websocket upgrade required",
            Refusal::TooLarge => "request head too large",
            Refusal::NotWebSocket => "only websocket is spoken here",
        }
    }

    /// The response, whole. The connection is to be closed behind it.
    pub fn answer(self) -> Vec<u8> {
        let text = self.text();
        format!(
            "HTTP/1.1 {} {}\r\n{}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}\n",
            self.status(),
            self.status_text(),
            self.headers(),
            text.len() + 1,
        )
        .into_bytes()
    }

    const fn status_text(self) -> &'static str {
        match self.status() {
            405 => "Method Not Allowed",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            _ => "Bad Request",
        }
    }

    const fn headers(self) -> &'static str {
        match self {
            // RFC 9110, 15.5.6 and 15.5.22; RFC 6455, 4.4.
            Refusal::Method => "Connection: close\r\nAllow: GET\r\n",
            Refusal::UpgradeMissing => {
                "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            }
            Refusal::Version => "Connection: close\r\nSec-WebSocket-Version: 13\r\n",
            _ => "Connection: close\r\n",
        }
    }
}

/// Bytes of the head, its empty line included; `None` where that is not there yet. Line ends may be bare LF.
///
/// The first `scanned` bytes were searched by an earlier call, and are not searched again.
fn head_len(bytes: &[u8], scanned: usize) -> Option<usize> {
    // The empty line is an LF, perhaps a CR, an LF: two bytes of that may have been there.
    let from = scanned.saturating_sub(2);
    let line_ends = (from..bytes.len()).filter(|at| bytes[*at] == b'\n');
    line_ends.map(|at| at + 1).find_map(|line| match bytes[line..] {
        [b'\n', ..] => Some(line + 1),
        [b'\r', b'\n', ..] => Some(line + 2),
        _ => None,
    })
}

/// Answers a whole head.
fn parse(head: &[u8], echo: bool) -> Handshake {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let upgrade = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => upgrade(&request, echo),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::TooLarge),
        // Partial: the empty line was the request's first line.
        Ok(httparse::Status::Partial) | Err(_) => Err(Refusal::Malformed),
    };
    upgrade.unwrap_or_else(Handshake::Refuse)
}

/// The checks of RFC 6455, 4.2.1, in the order in which their answers help most.
fn upgrade(request: &httparse::Request<'_, '_>, echo: bool) -> Result<Handshake, Refusal> {
    let headers = Headers(request.headers);
    let echo = echo && path(request) == "/echo";
    check_http(request, headers)?;
    check_upgrade(headers)?;
    let key = check_key(headers)?;
    let subprotocol = choose_subprotocol(headers, echo)?;
    Ok(Handshake::Upgrade { answer: switching_protocols(key, subprotocol), echo })
}

fn check_http(request: &httparse::Request<'_, '_>, headers: Headers<'_>) -> Result<(), Refusal> {
    if !headers.has("Sec-WebSocket-Key") && !headers.lists("Upgrade", "websocket") {
        return Err(Refusal::NotWebSocket);
    }
    // "The handshake MUST be a valid HTTP request", "the method of the request MUST be GET, and the HTTP version MUST
    // be at least 1.1" (4.1).
    if request.method != Some("GET") {
        return Err(Refusal::Method);
    }
    if request.version != Some(1) {
        return Err(Refusal::OldHttp);
    }
    headers.single("Host")?.ok_or(Refusal::NoHost)?;
    // A body would be taken for frames.
    if headers.has("Transfer-Encoding") || headers.single("Content-Length")?.is_some_and(|len| len != b"0") {
        return Err(Refusal::Body);
    }
    Ok(())
}

fn check_upgrade(headers: Headers<'_>) -> Result<(), Refusal> {
    if !headers.lists("Upgrade", "websocket") || !headers.lists("Connection", "upgrade") {
        return Err(Refusal::UpgradeMissing);
    }
    if headers.single("Sec-WebSocket-Version")? != Some(b"13") {
        return Err(Refusal::Version);
    }
    Ok(())
}

/// "a base64-encoded value that, when decoded, is 16 bytes in length".
fn check_key<'a>(headers: Headers<'a>) -> Result<&'a [u8], Refusal> {
    let key = headers.single("Sec-WebSocket-Key")?.ok_or(Refusal::Key)?;
    let mut decoded = [0; 18];
    match KEY_BASE64.decode_slice(key, &mut decoded) {
        Ok(16) => Ok(key),
        Ok(_) | Err(_) => Err(Refusal::Key),
    }
}

/// What is echoed of the subprotocols that the client offers. Their names are compared exactly, as browsers compare the
/// one that is echoed.
fn choose_subprotocol(headers: Headers<'_>, echo: bool) -> Result<Option<&'static str>, Refusal> {
    if !headers.has("Sec-WebSocket-Protocol") {
        return Ok(None);
    }
    match headers.tokens("Sec-WebSocket-Protocol").any(|token| token == SUBPROTOCOL.as_bytes()) {
        true => Ok(Some(SUBPROTOCOL)),
        false if echo => Ok(None),
        false => Err(Refusal::Subprotocol),
    }
}

fn switching_protocols(key: &[u8], subprotocol: Option<&str>) -> Vec<u8> {
    let accept = accept(key);
    let (name, subprotocol, end) =
        subprotocol.map_or(("", "", ""), |subprotocol| ("Sec-WebSocket-Protocol: ", subprotocol, "\r\n"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{name}{subprotocol}{end}\r\n"
    )
    .into_bytes()
}

/// The SHA-1 of key and GUID, in base64 (4.2.2).
fn accept(key: &[u8]) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update(ACCEPT_GUID);
    STANDARD.encode(sha1.digest().bytes())
}

/// The target without its query.
fn path<'a>(request: &httparse::Request<'_, 'a>) -> &'a str {
    let target = request.path.unwrap_or_default();
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// The headers of a request, asked by name. Names are compared without case.
#[derive(Clone, Copy)]
struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    fn values(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    fn has(self, name: &'static str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of a header that may be there once.
    fn single(self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Refusal::RepeatedHeader),
            (value, None) => Ok(value.map(<[u8]>::trim_ascii)),
        }
    }

    /// The elements of a list, over all lines that it is spread over (RFC 9110, 5.6.1). Empty ones do not count.
    fn tokens(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let tokens = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        tokens.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
    }

    /// Whether a list has this element. Elements are compared without case.
    fn lists(self, name: &'static str, element: &str) -> bool {
        self.tokens(name).any(|token| token.eq_ignore_ascii_case(element.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "Host: quickio.example";
    const UPGRADE: &str = "Upgrade: websocket";
    const CONNECTION: &str = "Connection: Upgrade";
    const VERSION: &str = "Sec-WebSocket-Version: 13";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    const ALL: [&str; 5] = [HOST, UPGRADE, CONNECTION, VERSION, KEY];

    fn get(headers: &[&str]) -> String {
        request("GET / HTTP/1.1", headers)
    }

    fn request(line: &str, headers: &[&str]) -> String {
        let lines: Vec<_> = [&[line], headers, &["", ""]].concat();
        lines.join("\r\n")
    }

    /// All of the headers, the one of this name replaced by these.
    fn with(header: &str, others: &[&str]) -> String {
        let name = header.split_once(':').expect("a header has a colon").0;
        let kept = ALL.into_iter().filter(|kept| !kept.starts_with(name));
        get(&kept.chain(others.iter().copied()).collect::<Vec<_>>())
    }

    fn without(header: &str) -> String {
        with(header, &[])
    }

    /// What comes of the request: the same at every split and byte by byte, and nothing behind it is consumed.
    fn shake_hands(request: &str) -> Handshake {
        let whole = read_in(&[request.as_bytes()]);
        for split in 0..request.len() {
            let (left, right) = request.as_bytes().split_at(split);
            assert_eq!(read_in(&[left, right]), whole, "split at {split}");
        }
        assert_eq!(read_in(&request.as_bytes().chunks(1).collect::<Vec<_>>()), whole);
        let behind = [request.as_bytes(), b"\r\n\r\nbehind"].concat();
        assert_eq!(Request::new(b"", false).read(&behind).0, request.len());
        whole
    }

    fn read_in(pieces: &[&[u8]]) -> Handshake {
        let mut request = Request::new(b"", false);
        let (last, first) = pieces.split_last().expect("at least one piece");
        for piece in first {
            assert_eq!(request.read(piece), (piece.len(), Handshake::NotYet), "{request:?}");
        }
        let (consumed, handshake) = request.read(last);
        assert_eq!(consumed, last.len());
        handshake
    }

    fn refusal(request: &str) -> Refusal {
        match shake_hands(request) {
            Handshake::Refuse(refusal) => refusal,
            other => panic!("{other:?} for {request}"),
        }
    }

    fn upgraded(request: &str) -> String {
        match shake_hands(request) {
            Handshake::Upgrade { answer, echo: false } => {
                String::from_utf8(answer).expect("answers are text")
            }
            other => panic!("{other:?} for {request}"),
        }
    }

    #[test]
    fn the_rfcs_example() {
        // 1.3.
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            upgraded(&get(&ALL)),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn what_is_accepted() {
        let long = format!("Cookie: {}", "x".repeat(500));
        for request in [
            get(&ALL).replace("GET / ", "GET /any/path?and=query "),
            get(&ALL).replace("\r\n", "\n"),
            get(&ALL)
                .to_ascii_lowercase()
                .replace("get / http", "GET / HTTP")
                .replace(&KEY.to_ascii_lowercase(), KEY),
            get(&[&ALL[..], &["Content-Length: 0", "Origin: null", &long]].concat()),
            with(UPGRADE, &["uPGRADE:  h2c , WebSocket \t"]),
            with(UPGRADE, &["Upgrade: h2c", "Upgrade: websocket"]),
            with(CONNECTION, &["Connection: keep-alive, Upgrade"]),
            with(CONNECTION, &["Connection: keep-alive", "Connection:,,UPGRADE,"]),
            // 16 bytes, and bits behind them.
            with(KEY, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="]),
        ] {
            let answer = upgraded(&request);
            assert!(!answer.contains("Protocol:"), "none was offered: {answer}");
        }
    }

    #[test]
    fn the_subprotocol_is_echoed_where_it_is_offered() {
        for offers in [
            &["Sec-WebSocket-Protocol: quickio"][..],
            &["Sec-WebSocket-Protocol: chat,quickio , other"],
            &["Sec-WebSocket-Protocol: chat", "sec-websocket-protocol: quickio"],
        ] {
            let answer = upgraded(&get(&[&ALL, offers].concat()));
            assert!(answer.ends_with("\r\nSec-WebSocket-Protocol: quickio\r\n\r\n"), "{answer}");
        }
        for offers in ["", "chat", "quickio2", "QuickIO", "quick, io"] {
            let offers = format!("Sec-WebSocket-Protocol: {offers}");
            assert_eq!(refusal(&get(&[&ALL[..], &[&offers]].concat())), Refusal::Subprotocol, "{offers}");
        }
    }

    #[test]
    fn what_is_refused() {
        let key = |key| with(KEY, &[&*format!("Sec-WebSocket-Key: {key}")]);
        let many: Vec<_> = ALL.iter().chain(["X: y"; HTTP_HEADERS_MAX - 4].iter()).copied().collect();
        for (refused, request) in [
            (Refusal::Malformed, request("GET / HTTP/1.1", &["no colon"])),
            (Refusal::Malformed, request("GET / HTTP/1.1", &["Host : a"])),
            (Refusal::Malformed, request("GET /", &ALL)),
            (Refusal::Malformed, request("GET / HTTP/2.0", &ALL)),
            (Refusal::Malformed, request("GET  / HTTP/1.1", &ALL)),
            (Refusal::Malformed, with(HOST, &["Host: a\0b"])),
            (Refusal::Malformed, with(HOST, &["Host: a", " folded"])),
            (Refusal::NotWebSocket, get(&[])),
            (Refusal::NotWebSocket, request("POST / HTTP/1.1", &[HOST])),
            (Refusal::NotWebSocket, get(&[HOST, "Upgrade: h2c", "Connection: Upgrade"])),
            (Refusal::Method, request("POST / HTTP/1.1", &ALL)),
            (Refusal::Method, request("get / HTTP/1.1", &ALL)),
            (Refusal::OldHttp, request("GET / HTTP/1.0", &ALL)),
            (Refusal::NoHost, without(HOST)),
            (Refusal::RepeatedHeader, with(HOST, &["Host: a", "Host: a"])),
            (Refusal::RepeatedHeader, with(VERSION, &[VERSION, VERSION])),
            (Refusal::RepeatedHeader, with(KEY, &[KEY, KEY])),
            (Refusal::Body, get(&[&ALL[..], &["Content-Length: 1"]].concat())),
            (Refusal::Body, get(&[&ALL[..], &["Transfer-Encoding: chunked"]].concat())),
            (Refusal::UpgradeMissing, without(UPGRADE)),
            (Refusal::UpgradeMissing, without(CONNECTION)),
            (Refusal::UpgradeMissing, with(UPGRADE, &["Upgrade: websocket2"])),
            (Refusal::UpgradeMissing, with(CONNECTION, &["Connection: close"])),
            (Refusal::Version, without(VERSION)),
            (Refusal::Version, with(VERSION, &["Sec-WebSocket-Version: 8"])),
            (Refusal::Version, with(VERSION, &["Sec-WebSocket-Version: 13, 8"])),
            (Refusal::Key, without(KEY)),
            (Refusal::Key, key("")),
            (Refusal::Key, key("dGhlIHNhbXBsZSBub25jZQ")),
            (Refusal::Key, key("dGhlIHNhbXBsZSBub25j")),
            (Refusal::Key, key("dGhlIHNhbXBsZSBub25jZQAA")),
            (Refusal::Key, key("dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==")),
            (Refusal::Key, key("dGhlIHNhbXBsZSBub25j!Q==")),
            (Refusal::TooLarge, get(&many)),
        ] {
            assert_eq!(refusal(&request), refused, "{request}");
        }
        upgraded(&get(&many[..HTTP_HEADERS_MAX]));
    }

    #[test]
    fn a_head_has_its_limit() {
        let empty = get(&[&ALL[..], &["X: "]].concat()).len();
        for (len, accepted) in [(HTTP_HEAD_BYTES_MAX, true), (HTTP_HEAD_BYTES_MAX + 1, false)] {
            let padding = format!("X: {}", "x".repeat(len - empty));
            let head = get(&[&ALL[..], &[&padding]].concat());
            assert_eq!(head.len(), len);
            for size in [1, 1000, 10_000] {
                let mut request = Request::new(b"", false);
                let last = head
                    .as_bytes()
                    .chunks(size)
                    .map(|piece| request.read(piece).1)
                    .find(|it| *it != Handshake::NotYet);
                match last {
                    Some(Handshake::Upgrade { .. }) => assert!(accepted),
                    last => assert!(!accepted && last == Some(Handshake::Refuse(Refusal::TooLarge))),
                }
                assert!(request.bytes.len() <= HTTP_HEAD_BYTES_MAX);
            }
        }
    }

    #[test]
    fn the_end_of_a_head() {
        for (bytes, len) in [
            ("a\r\n\r\n", Some(5)),
            ("a\n\n", Some(3)),
            ("a\r\n\nb", Some(4)),
            ("a\n\r\nb", Some(4)),
            ("a\r\n\r", None),
            ("a\r\nb\r\n", None),
            ("a\r\r\n\r\r\n", None),
            ("", None),
        ] {
            for scanned in 0..=len.map_or(bytes.len(), |len| len - 1) {
                assert_eq!(head_len(bytes.as_bytes(), scanned), len, "{bytes:?}, {scanned} scanned");
            }
        }
    }

    #[test]
    fn refusals_are_whole_responses() {
        for (refusal, start) in [
            (Refusal::Malformed, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"),
            (
                Refusal::Version,
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\n",
            ),
            (Refusal::Method, "HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nAllow: GET\r\n"),
            (
                Refusal::UpgradeMissing,
                "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n",
            ),
            (Refusal::TooLarge, "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n"),
            (Refusal::NotWebSocket, "HTTP/1.1 501 Not Implemented\r\nConnection: close\r\n"),
        ] {
            let answer = String::from_utf8(refusal.answer()).expect("answers are text");
            assert!(answer.starts_with(start), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head has an end");
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{answer}");
            assert_eq!(body.trim_end(), refusal.text());
        }
    }

    #[test]
    fn echo_has_one_path_and_needs_no_subprotocol() {
        let echo = |target: &str, headers: &[&str]| {
            let head = request(&format!("GET {target} HTTP/1.1"), &[&ALL, headers].concat());
            Request::new(b"", true).read(head.as_bytes()).1
        };
        let is_echo = |handshake: Handshake| matches!(handshake, Handshake::Upgrade { echo: true, .. });
        assert!(is_echo(echo("/echo", &[])));
        assert!(is_echo(echo("/echo?case=1", &["Sec-WebSocket-Protocol: other"])));
        assert!(!is_echo(echo("/echo/", &[])));
        assert!(!is_echo(echo("/", &[])));
        assert_eq!(echo("/", &["Sec-WebSocket-Protocol: other"]), Handshake::Refuse(Refusal::Subprotocol));
    }
}
