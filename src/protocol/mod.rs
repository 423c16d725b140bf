//! Bytes to events and back, without I/O: a protocol is told bytes and returns what it found.
//!
//! A [`Codec`] is the protocol's state of one connection. The first bytes decide which protocol it is; from then on
//! [`Codec::decode`] finds one thing after the other in the bytes that came, and the caller acts on it:
//!
//! ```
//! use quickio::protocol::{Incoming, Options, Origins, CodecSettings, Codec};
//!
//! let mut session = Codec::new(Options::default());
//! let settings = CodecSettings { message_bytes_max: 1024, origins: Origins::Any };
//! let mut received = *b"/qio/ohai\0\0\0\0\0\0\0\x10/qio/ping:1=null";
//! let mut events = Vec::new();
//! let mut at = 0;
//! loop {
//!     let step = session.decode(&mut received[at..], &settings);
//!     at += step.consumed;
//!     match step.incoming {
//!         Incoming::Incomplete => break,
//!         Incoming::Open(bytes) => assert_eq!(bytes, b"/qio/ohai"),
//!         Incoming::Event(text) => events.push(text.to_owned()),
//!         _ => unreachable!(),
//!     }
//! }
//! assert_eq!(events, ["/qio/ping:1=null"]);
//! ```
//!
//! A further protocol is one folder or file, a [`Kind`], its first bytes in `FIRST_BYTES` with a `Language` of its own,
//! and a `State`.
//!
//! In HTTP a connection is not a client: what it brings are requests ([`Incoming::Request`]), which the caller answers by
//! [`Codec::respond`], in any order and at any time.

pub mod http;
mod origin;
pub mod raw;
mod reason;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod utf8;
pub mod websocket;

use self::http::{Http, HttpResponse, Read, ReadyResponses, Sid};
pub use self::origin::Origins;
use self::raw::Raw;
pub use self::reason::{Reason, Refusal, Violation};
pub use self::utf8::{InvalidUtf8, Utf8Gatherer};
use self::websocket::frame::Opcode;
use self::websocket::{WebSocket, encode};

/// The greeting of every protocol: a client says it, the server says it back, and the connection is open.
pub const OHAI: &str = "/qio/ohai";

/// The protocols, as clients are sent events by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// WebSocket, RFC 6455: a frame each.
    WebSocket,
    /// Lengths and texts.
    Raw,
    /// HTTP long polling: a line each.
    LongPolling,
    /// Server-sent events: a `data` field and an empty line each.
    EventStream,
}

impl Framing {
    /// How many there are: for tables by `kind as usize`.
    pub const COUNT: usize = 4;
}

/// What the first bytes of a connection tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    /// HTTP, and with it WebSocket.
    Http,
    Raw,
}

/// What the first bytes of a connection may be, and whose they are. None is the beginning of another.
const FIRST_BYTES: [(&[u8], Language); 10] = [
    (b"GET ", Language::Http),
    (b"POST ", Language::Http),
    (OHAI.as_bytes(), Language::Raw),
    (b"HEAD ", Language::Http),
    (b"OPTIONS ", Language::Http),
    // Requests that will be refused, but in HTTP.
    (b"PUT ", Language::Http),
    (b"PATCH ", Language::Http),
    (b"DELETE ", Language::Http),
    (b"TRACE ", Language::Http),
    (b"CONNECT ", Language::Http),
];

/// Bytes of the longest of [`FIRST_BYTES`].
const FIRST_BYTES_MAX: usize = OHAI.len();

/// What is told from the first bytes.
#[derive(Debug, PartialEq, Eq)]
enum Detected {
    /// All of the bytes may begin this one of [`FIRST_BYTES`].
    NotYet(usize),
    Language(Language),
    Unknown,
}

/// What a session is to do beyond its protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Conformance tests: a WebSocket at `/echo` needs no subprotocol and no greeting, may send binary messages, and
    /// gets every message back.
    pub echo: bool,
}

/// What the settings say about peers.
#[derive(Clone, Debug)]
pub struct CodecSettings {
    /// Bytes of the text of one event, as it is received.
    pub message_bytes_max: usize,
    /// The pages that browsers may connect from.
    pub origins: Origins,
}

/// What one call of [`Codec::decode`] came to.
#[derive(Debug, PartialEq, Eq)]
pub struct DecodeOutcome<'a> {
    /// Bytes of the input that were used up.
    pub consumed: usize,
    /// What they were.
    pub incoming: Incoming<'a>,
}

impl DecodeOutcome<'_> {
    fn not_yet(consumed: usize) -> DecodeOutcome<'static> {
        DecodeOutcome { consumed, incoming: Incoming::Incomplete }
    }
}

/// What was found in the bytes of a peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Nothing more: all of the input was consumed.
    Incomplete,
    /// These bytes are to be sent as they are: the answer to a handshake that goes on, a Pong, an echo.
    Reply(Vec<u8>),
    /// The handshake is complete: these bytes are to be sent, and events may follow them.
    Open(Vec<u8>),
    /// The text of an event, not parsed.
    Event(&'a str),
    /// An HTTP request that the caller has to answer, at once or later, by [`Codec::respond`].
    Request(http::HttpRequest<'a>),
    /// An HTTP request that was refused, by these bytes; none where they have to wait for the answers to others. The
    /// connection lives on.
    Refused(Vec<u8>),
    /// The connection ends.
    Close(Close),
    /// The peer's Close completed the closing handshake that we began, or what came instead makes it pointless.
    Closed,
    /// Something that needs no answer.
    Ignore,
}

/// How a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Close {
    /// What is to be sent before: a Close frame, the refusal of an HTTP request, or nothing.
    pub bytes: Vec<u8>,
    /// Why.
    pub reason: Reason,
    /// Whether to go on reading and decoding until [`Incoming::Closed`] (or the end of the stream, or a timeout).
    ///
    /// Otherwise nothing that comes matters; [`Codec::decode`] discards it. Input that was never read makes the
    /// kernel reset the connection, and the peer may lose the bytes above: shut the sending side down and discard
    /// until the peer has closed too, for a short time.
    pub await_peer: bool,
}

impl Close {
    fn silent(reason: Reason) -> Close {
        Close { bytes: Vec::new(), reason, await_peer: false }
    }
}

/// The protocol's state of one connection: 24 bytes, and what is unfinished on the heap.
#[derive(Debug)]
pub struct Codec {
    state: State,
}

#[derive(Debug)]
enum State {
    Detecting(FirstBytes, Options),
    Http(Http),
    WebSocket(WebSocket),
    Raw(Raw),
    Ended,
}

impl Default for Codec {
    /// A session that has ended: it discards what it is given.
    fn default() -> Codec {
        Codec { state: State::Ended }
    }
}

impl Codec {
    /// A connection of which nothing is known yet.
    pub fn new(options: Options) -> Codec {
        Codec { state: State::Detecting(FirstBytes::default(), options) }
    }

    /// Finds the next thing in the input, which may begin and end anywhere in the stream. Payloads are unmasked in
    /// place.
    ///
    /// Call it with the input that is behind `consumed` until it is [`Incoming::Incomplete`], also where no input is left:
    /// only then is the memory of a message that came in pieces given back. After [`Incoming::Close`] and
    /// [`Incoming::Closed`] the rest need not be decoded, unless [`Close::await_peer`] says so.
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        match self.state {
            State::WebSocket(ref mut websocket) => websocket.decode(input, settings),
            State::Raw(ref mut raw) => raw.decode(input, settings),
            State::Detecting(first, options) => self.detect(first, options, input, settings),
            State::Http(_) => self.decode_http(input, settings),
            State::Ended => DecodeOutcome::not_yet(input.len()),
        }
    }

    /// Answers the HTTP request of this number, which [`Incoming::Request`] has brought.
    ///
    /// Responses go in the order of their requests: what may be sent now may be nothing, or several. A request that was
    /// answered, or dropped with its connection, is answered in vain.
    pub fn respond(&mut self, number: u32, response: HttpResponse<'_>) -> ReadyResponses {
        let State::Http(http) = &mut self.state else { return ReadyResponses::default() };
        http.respond(number, response)
    }

    /// Bytes of HTTP responses that wait for the responses before them.
    pub fn waiting_bytes(&self) -> usize {
        if let State::Http(http) = &self.state { http.waiting_bytes() } else { 0 }
    }

    /// The HTTP requests that were not answered, with the session that each names, if any; a stream never is. Also where
    /// the last response was sent before theirs; they are dropped by [`Codec::close`].
    pub fn unanswered(&self) -> impl Iterator<Item = (u32, Option<Sid>)> {
        let http = if let State::Http(http) = &self.state { Some(http) } else { None };
        http.into_iter().flat_map(Http::unanswered)
    }

    /// Ends the connection from our side.
    ///
    /// In HTTP the oldest request that is not answered is answered 503, or 408 one that was not finished in time.
    pub fn close(&mut self, reason: Reason) -> Close {
        match &mut self.state {
            State::WebSocket(websocket) => websocket.close(reason),
            State::Raw(raw) => raw.close(reason),
            State::Http(http) => {
                let close = http.close(reason);
                self.state = State::Ended;
                close
            }
            State::Detecting(..) | State::Ended => self.end(reason),
        }
    }

    /// How this connection's client is sent events, once that is known: never in HTTP, where clients are sessions of
    /// many connections.
    pub fn framing(&self) -> Option<Framing> {
        match self.state {
            State::WebSocket(_) => Some(Framing::WebSocket),
            State::Raw(_) => Some(Framing::Raw),
            State::Detecting(..) | State::Http(_) | State::Ended => None,
        }
    }

    /// Whether the handshake is complete and no end has begun: whether events may be sent. In HTTP, whether a request
    /// was whole.
    pub fn is_open(&self) -> bool {
        match &self.state {
            State::WebSocket(websocket) => websocket.is_open(),
            State::Raw(raw) => raw.is_open(),
            State::Http(http) => http.is_open(),
            State::Detecting(..) | State::Ended => false,
        }
    }

    /// Whether it is open, and no message is begun: whether the peer owes nothing, and may be silent.
    pub fn is_idle(&self) -> bool {
        match &self.state {
            State::WebSocket(websocket) => websocket.is_idle(),
            State::Raw(raw) => raw.is_idle(),
            State::Http(http) => http.is_idle(),
            State::Detecting(..) | State::Ended => false,
        }
    }

    fn detect<'a>(
        &'a mut self,
        first: FirstBytes,
        options: Options,
        input: &'a [u8],
        settings: &CodecSettings,
    ) -> DecodeOutcome<'a> {
        match first.detect(input) {
            Detected::NotYet(which) => {
                let len = first.len + input.len() as u8;
                self.state = State::Detecting(FirstBytes { which: which as u8, len }, options);
                DecodeOutcome::not_yet(input.len())
            }
            Detected::Language(Language::Raw) => {
                self.state = State::Raw(Raw::default());
                DecodeOutcome {
                    consumed: OHAI.len() - usize::from(first.len),
                    incoming: Incoming::Open(OHAI.into()),
                }
            }
            Detected::Language(Language::Http) => {
                self.state = State::Http(Http::new(first.as_slice(), options.echo));
                self.decode_http(input, settings)
            }
            Detected::Unknown => DecodeOutcome {
                consumed: input.len(),
                incoming: Incoming::Close(self.end(Reason::UnknownProtocol)),
            },
        }
    }

    fn decode_http<'a>(&'a mut self, input: &'a [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        let State::Http(http) = &mut self.state else { return DecodeOutcome::not_yet(input.len()) };
        let (consumed, read) = http.read(input, settings);
        let incoming = match read {
            Read::NotYet => Incoming::Incomplete,
            Read::Reply(bytes) => Incoming::Reply(bytes),
            Read::Ignore => Incoming::Ignore,
            Read::Refused(bytes) => Incoming::Refused(bytes),
            Read::Whole(whole) => match &self.state {
                State::Http(http) => Incoming::Request(http.lend(whole)),
                _ => unreachable!("it was just read from"),
            },
            Read::Upgrade { answer, echo } => {
                self.state = State::WebSocket(WebSocket::new(echo));
                if echo { Incoming::Open(answer) } else { Incoming::Reply(answer) }
            }
            Read::Close(close) => {
                self.state = State::Ended;
                Incoming::Close(close)
            }
        };
        DecodeOutcome { consumed, incoming }
    }

    fn end(&mut self, reason: Reason) -> Close {
        self.state = State::Ended;
        Close::silent(reason)
    }
}

/// The bytes that came before the protocol is known: the first `len` of one of [`FIRST_BYTES`].
#[derive(Clone, Copy, Debug, Default)]
struct FirstBytes {
    which: u8,
    len: u8,
}

impl FirstBytes {
    fn as_slice(self) -> &'static [u8] {
        &FIRST_BYTES[usize::from(self.which)].0[..usize::from(self.len)]
    }

    /// Tells the protocol by these bytes and the input behind them.
    fn detect(self, input: &[u8]) -> Detected {
        let mut joined = [0; FIRST_BYTES_MAX];
        let had = self.as_slice();
        let more = input.len().min(FIRST_BYTES_MAX - had.len());
        joined[..had.len()].copy_from_slice(had);
        joined[had.len()..][..more].copy_from_slice(&input[..more]);
        detect(&joined[..had.len() + more])
    }
}

/// Tells the protocol by the first bytes of a connection.
fn detect(bytes: &[u8]) -> Detected {
    if let Some((_, language)) = FIRST_BYTES.iter().find(|(first, _)| bytes.starts_with(first)) {
        return Detected::Language(*language);
    }
    match FIRST_BYTES.iter().position(|(first, _)| first.starts_with(bytes)) {
        Some(which) => Detected::NotYet(which),
        None => Detected::Unknown,
    }
}

/// Bytes of an event's text of this length as this protocol sends it.
pub const fn frame_len(framing: Framing, text_len: usize) -> usize {
    let around = match framing {
        Framing::WebSocket => encode::head_len(text_len),
        Framing::Raw => raw::HEAD_BYTES,
        Framing::LongPolling => http::LINE_BYTES,
        Framing::EventStream => http::STREAMED_BYTES,
    };
    around + text_len
}

/// Appends an event's text as this protocol sends it. `write` appends the text, which has this length.
#[inline]
pub fn frame_with(framing: Framing, out: &mut Vec<u8>, text_len: usize, write: impl FnOnce(&mut Vec<u8>)) {
    match framing {
        Framing::WebSocket => encode::head(out, Opcode::Text, text_len),
        Framing::Raw => raw::head(out, text_len),
        Framing::LongPolling => return http::line(out, write),
        Framing::EventStream => return http::streamed(out, write),
    }
    write(out);
}

/// Appends an event's text as this protocol sends it.
pub fn frame(framing: Framing, out: &mut Vec<u8>, text: &str) {
    out.reserve(frame_len(framing, text.len()));
    frame_with(framing, out, text.len(), |out| out.extend_from_slice(text.as_bytes()));
}
