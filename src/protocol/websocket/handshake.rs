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
