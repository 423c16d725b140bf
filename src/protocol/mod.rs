//! Codecs without I/O: they decode the bytes that a peer sent, and return the bytes to send.
//!
//! A [`Codec`] is the protocol state of one connection. The first bytes decide which protocol it is. From then on
//! [`Codec::decode`] returns the items in the received bytes, one after the other, and the caller acts on them:
//!
//! ```
//! use quickio::protocol::http::HttpDate;
//! use quickio::protocol::{
//!     Codec, CodecSettings, Compression, Incoming, Options, Origins, TrustedProxies, WantedHeaders,
//! };
//!
//! let mut codec = Codec::new(Options::default());
//! let settings = CodecSettings {
//!     message_bytes_max: 1024,
//!     http_head_bytes_max: 16_384,
//!     origins: Origins::Any,
//!     proxies: TrustedProxies::NONE,
//!     compression: Compression::OFF,
//!     wanted: WantedHeaders::NONE,
//!     date: HttpDate::at(std::time::SystemTime::now()),
//! };
//! let mut received = *b"/qio/ohai\0\0\0\0\0\0\0\x10/qio/ping:1=null";
//! let mut events = Vec::new();
//! let mut at = 0;
//! loop {
//!     let decoded = codec.decode(&mut received[at..], &settings);
//!     at += decoded.consumed;
//!     match decoded.incoming {
//!         Incoming::Incomplete => break,
//!         Incoming::Open(bytes) => assert_eq!(bytes, b"/qio/ohai"),
//!         Incoming::Event(text) => events.push(text.to_owned()),
//!         _ => unreachable!(),
//!     }
//! }
//! assert_eq!(events, ["/qio/ping:1=null"]);
//! ```
//!
//! To add a protocol, add a folder or file, a [`Framing`], its first bytes in `detect` with a `Detection`, and a
//! `CodecState`.
//!
//! An HTTP connection is not a client. It brings requests ([`Incoming::Request`]), which the caller answers with
//! [`Codec::respond`], in any order and at any time.

pub mod http;
mod opening;
mod origin;
mod proxies;
pub mod proxy_header;
pub mod raw;
mod reason;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod utf8;
pub mod websocket;

use std::net::IpAddr;

use self::http::{HttpCodec, HttpDate, HttpOutcome, HttpResponse, ReadyResponses, Sid, is_token_byte};
pub use self::opening::{OpeningHeaders, WantedHeaders};
pub use self::origin::{AllowedOrigins, Origins};
pub use self::proxies::TrustedProxies;
use self::proxy_header::ProxyHeader;
use self::raw::RawCodec;
pub use self::reason::{HttpRefusal, Reason, Violation};
pub use self::utf8::{InvalidUtf8, Utf8Gatherer};
pub use self::websocket::deflate::{Compression, CompressionBounds, CompressionCounts};
use self::websocket::extensions::Deflate;
pub use self::websocket::extensions::WindowBits;
use self::websocket::frame::Opcode;
use self::websocket::handshake::Upgrade;
use self::websocket::{WebSocketCodec, encode};

/// The greeting of every protocol. The client sends it, the server replies with the same, and the connection is open.
pub const OHAI: &str = "/qio/ohai";

/// The formats in which events are sent to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// WebSocket, RFC 6455: a frame for each event.
    WebSocket,
    /// Raw TCP: a length and a text for each event.
    Raw,
    /// HTTP long polling: a line for each event.
    LongPolling,
    /// Server-sent events: a `data` field and an empty line for each event.
    EventStream,
    /// WebSocket with permessage-deflate, RFC 7692: as `WebSocket`, but a frame may be compressed with this window.
    Deflate(WindowBits),
}

impl Framing {
    /// The number of framings without compression, for tables that are indexed by [`Framing::plain_index`].
    pub const PLAIN_COUNT: usize = 4;

    /// Returns the index of the framing, or of the framing that it has without compression.
    #[inline]
    pub const fn plain_index(self) -> usize {
        match self {
            Framing::WebSocket | Framing::Deflate(_) => 0,
            Framing::Raw => 1,
            Framing::LongPolling => 2,
            Framing::EventStream => 3,
        }
    }
}

/// The first byte of a TLS connection: a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// A fatal TLS alert, `handshake_failure` (RFC 8446, 6.2): a client that speaks TLS to a port without TLS is told in its
/// own protocol that it gets no connection.
const TLS_ALERT: [u8; 7] = [0x15, 3, 1, 0, 2, 2, 40];

/// The outcome of looking at the first bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Detection {
    /// All of the bytes are a prefix of [`OHAI`].
    Incomplete,
    /// The bytes begin with [`OHAI`].
    Raw,
    /// The first byte may begin an HTTP request, with any method, or an empty line before one. Everything that follows
    /// gets an answer in HTTP.
    Http,
    Tls,
    /// A header of the PROXY protocol, which the server does not expect from this peer.
    ProxyHeader,
    Unknown,
}

/// The options of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// For conformance tests: a WebSocket at `/echo` needs no subprotocol and no greeting, may send binary messages,
    /// and receives every message back.
    pub echo: bool,
    /// The reason for refusing the first HTTP request: the connection is over a limit, or should speak TLS. Another protocol
    /// is closed without an answer.
    pub refusal: Option<HttpRefusal>,
}

/// The settings of a shard that concern its codecs.
#[derive(Clone, Debug)]
pub struct CodecSettings {
    /// The maximum length of the text of a received event, in bytes.
    pub message_bytes_max: usize,
    /// The maximum length of the head of an HTTP request, in bytes.
    pub http_head_bytes_max: usize,
    /// The origins of the pages that may connect.
    pub origins: Origins,
    /// The proxies whose headers tell the addresses of their clients.
    pub proxies: TrustedProxies,
    /// The compression of WebSocket messages.
    pub compression: Compression,
    /// The headers of requests that open a connection which are kept.
    pub wanted: WantedHeaders,
    /// The present time, for the `Date` of responses. The caller renews it every second.
    pub date: HttpDate,
}

/// The outcome of a call of [`Codec::decode`].
#[derive(Debug, PartialEq, Eq)]
pub struct DecodeOutcome<'a> {
    /// The number of input bytes that were consumed.
    pub consumed: usize,
    /// The item that these bytes completed.
    pub incoming: Incoming<'a>,
}

impl DecodeOutcome<'_> {
    fn incomplete(consumed: usize) -> DecodeOutcome<'static> {
        DecodeOutcome { consumed, incoming: Incoming::Incomplete }
    }
}

/// An item in the bytes of a peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// There is no complete item. All of the input was consumed.
    Incomplete,
    /// These bytes must be sent as they are: the reply to a handshake that is not complete, or an echo.
    Reply(Vec<u8>),
    /// These bytes are the Pong for a Ping. They must be sent, unless another Pong follows before they are (RFC 6455,
    /// 5.5.3).
    Pong(Vec<u8>),
    /// The connection was upgraded by a request that tells something of its client: the address, which means something only
    /// if the peer is a trusted proxy, or headers that are kept. The response must be sent; the handshake is not complete.
    Upgraded { response: Vec<u8>, client: Option<IpAddr>, opening: Option<Box<OpeningHeaders>> },
    /// The handshake is complete. These bytes must be sent, and events may follow them.
    Open(Vec<u8>),
    /// The text of an event, which is not parsed.
    Event(&'a str),
    /// An HTTP request. The caller must answer it with [`Codec::respond`], now or later.
    Request(http::HttpRequest<'a>),
    /// An HTTP request was refused. These bytes must be sent; they are empty if the refusal waits for earlier
    /// responses. The connection persists.
    Refused(Vec<u8>),
    /// The connection ends.
    Close(Close),
    /// The closing handshake that we began is over: the peer's Close completed it, behind which nothing follows
    /// (`is_last`), or the peer broke the protocol.
    Closed { is_last: bool },
    /// The item needs no reply.
    Ignore,
}

/// The end of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Close {
    /// The last bytes to send: a Close frame, the refusal of an HTTP request, or nothing.
    pub bytes: Vec<u8>,
    /// The reason.
    pub reason: Reason,
    /// If `true`, the caller must keep on reading and decoding until [`Incoming::Closed`], the end of the stream, or a
    /// timeout.
    ///
    /// Otherwise the bytes that still arrive do not matter; [`Codec::decode`] discards them. If input was never read,
    /// the kernel resets the connection, and the peer may lose the bytes above. The caller should therefore shut down
    /// the sending side and discard input for a short time, until the peer has closed too.
    pub await_peer: bool,
}

impl Close {
    /// Returns an end for which nothing is sent.
    fn silent(reason: Reason) -> Close {
        Close { bytes: Vec::new(), reason, await_peer: false }
    }
}

/// The protocol state of a connection. It has 24 bytes; incomplete items are on the heap.
#[derive(Debug)]
pub struct Codec {
    state: CodecState,
}

#[derive(Debug)]
enum CodecState {
    /// This many bytes have come, a prefix of [`OHAI`].
    Detecting(u8, Options),
    Http(HttpCodec),
    WebSocket(WebSocketCodec),
    Raw(RawCodec),
    Ended,
}

impl Default for Codec {
    /// Returns a codec that has ended. It discards its input.
    fn default() -> Codec {
        Codec { state: CodecState::Ended }
    }
}

impl Codec {
    /// Returns the codec of a connection that has received nothing.
    pub fn new(options: Options) -> Codec {
        Codec { state: CodecState::Detecting(0, options) }
    }

    /// Decodes the next item of the input. The input may begin and end anywhere in the stream. Payloads are unmasked in
    /// place.
    ///
    /// Call this with the input behind `consumed` until it returns [`Incoming::Incomplete`], even if no input is left:
    /// only then is the memory of a message that came in pieces freed. After [`Incoming::Close`] and
    /// [`Incoming::Closed`] the rest of the input need not be decoded, unless [`Close::await_peer`] is set.
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        match self.state {
            CodecState::WebSocket(ref mut websocket) => websocket.decode(input, settings),
            CodecState::Raw(ref mut raw) => raw.decode(input, settings),
            CodecState::Detecting(len, options) => self.detect(len, options, input, settings),
            CodecState::Http(_) => self.decode_http(input, settings),
            CodecState::Ended => DecodeOutcome::incomplete(input.len()),
        }
    }

    /// Answers the HTTP request with this number, which [`Incoming::Request`] has brought.
    ///
    /// Responses are sent in the order of their requests: the result may contain no response or several. If the request
    /// was already answered, or dropped with its connection, the response is ignored.
    pub fn respond(
        &mut self,
        number: u32,
        response: HttpResponse<'_>,
        settings: &CodecSettings,
    ) -> ReadyResponses {
        let CodecState::Http(http) = &mut self.state else { return ReadyResponses::default() };
        http.respond(number, response, settings)
    }

    /// Notes that the peer sends nothing more, but can still read. In HTTP, the connection closes behind the response to
    /// the last request that was complete.
    pub fn end_input(&mut self) {
        if let CodecState::Http(http) = &mut self.state {
            http.end_input();
        }
    }

    /// Returns the total length of the HTTP responses that wait for earlier responses.
    pub fn waiting_bytes(&self) -> usize {
        if let CodecState::Http(http) = &self.state { http.waiting_bytes() } else { 0 }
    }

    /// Returns the memory of a message, head or body that is incomplete, in bytes, or 0 if none is. What the last call of
    /// [`Codec::decode`] lent to the caller counts too.
    #[inline]
    pub fn incomplete_bytes(&self) -> usize {
        match &self.state {
            CodecState::WebSocket(websocket) => websocket.incomplete_bytes(),
            CodecState::Raw(raw) => raw.incomplete_bytes(),
            CodecState::Http(http) => http.incomplete_bytes(),
            CodecState::Detecting(..) | CodecState::Ended => 0,
        }
    }

    /// Returns an iterator over the HTTP requests that were not answered, each with the session that it names, if any.
    /// An event stream is never answered.
    ///
    /// The iterator includes requests for which the connection has ended because the response to an earlier request was
    /// its last. [`Codec::close`] drops them.
    pub fn unanswered(&self) -> impl Iterator<Item = (u32, Option<Sid>)> {
        let http = if let CodecState::Http(http) = &self.state { Some(http) } else { None };
        http.into_iter().flat_map(HttpCodec::unanswered)
    }

    /// Ends the connection from our side.
    ///
    /// In HTTP, the oldest request that was not answered is answered with 503. A request that was not complete in time
    /// is answered with 408.
    pub fn close(&mut self, reason: Reason, settings: &CodecSettings) -> Close {
        match &mut self.state {
            CodecState::WebSocket(websocket) => websocket.close(reason),
            CodecState::Raw(raw) => raw.close(reason),
            CodecState::Http(http) => {
                let close = http.close(reason, settings);
                self.state = CodecState::Ended;
                close
            }
            CodecState::Detecting(..) | CodecState::Ended => self.end(reason),
        }
    }

    /// Ends the connection from our side, with another text for a WebSocket client than that of the reason.
    pub fn close_with(&mut self, reason: Reason, text: &str, settings: &CodecSettings) -> Close {
        match &mut self.state {
            CodecState::WebSocket(websocket) => websocket.close_with(reason, text),
            _ => self.close(reason, settings),
        }
    }

    /// Returns how events are sent to the client of this connection, or `None` if this is not known yet. An HTTP
    /// connection never has a framing, because its clients are sessions of many connections.
    pub fn framing(&self) -> Option<Framing> {
        match self.state {
            CodecState::WebSocket(ref websocket) => Some(websocket.framing()),
            CodecState::Raw(_) => Some(Framing::Raw),
            CodecState::Detecting(..) | CodecState::Http(_) | CodecState::Ended => None,
        }
    }

    /// Returns whether nothing was received yet.
    pub fn is_new(&self) -> bool {
        matches!(self.state, CodecState::Detecting(0, _))
    }

    /// Returns whether the connection has ended as far as the codec is concerned, which then discards its input.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, CodecState::Ended)
    }

    /// Returns whether events may be sent: the handshake is complete, and the connection is not being closed. In HTTP,
    /// returns whether a request was complete.
    pub fn is_open(&self) -> bool {
        match &self.state {
            CodecState::WebSocket(websocket) => websocket.is_open(),
            CodecState::Raw(raw) => raw.is_open(),
            CodecState::Http(http) => http.is_open(),
            CodecState::Detecting(..) | CodecState::Ended => false,
        }
    }

    /// Returns whether the connection is open and no message is incomplete. The peer may then be silent.
    pub fn is_idle(&self) -> bool {
        match &self.state {
            CodecState::WebSocket(websocket) => websocket.is_idle(),
            CodecState::Raw(raw) => raw.is_idle(),
            CodecState::Http(http) => http.is_idle(),
            CodecState::Detecting(..) | CodecState::Ended => false,
        }
    }

    fn detect<'a>(
        &'a mut self,
        len: u8,
        options: Options,
        input: &'a [u8],
        settings: &CodecSettings,
    ) -> DecodeOutcome<'a> {
        match detect(usize::from(len), input) {
            Detection::Incomplete => {
                self.state = CodecState::Detecting(len + input.len() as u8, options);
                DecodeOutcome::incomplete(input.len())
            }
            Detection::Raw if options.refusal.is_some() => {
                let reason = match options.refusal {
                    Some(HttpRefusal::PlainHttp) => Reason::Refused(HttpRefusal::PlainHttp),
                    _ => Reason::TooManyClients,
                };
                let incoming = Incoming::Close(self.end(reason));
                DecodeOutcome { consumed: input.len(), incoming }
            }
            Detection::Raw => {
                self.state = CodecState::Raw(RawCodec::default());
                let consumed = OHAI.len() - usize::from(len);
                DecodeOutcome { consumed, incoming: Incoming::Open(OHAI.into()) }
            }
            Detection::Http => {
                self.state = CodecState::Http(HttpCodec::new(options.echo).refusing(options.refusal));
                self.decode_http(input, settings)
            }
            Detection::Tls => {
                let close = Close { bytes: TLS_ALERT.into(), ..self.end(Reason::Tls) };
                DecodeOutcome { consumed: input.len(), incoming: Incoming::Close(close) }
            }
            Detection::ProxyHeader => {
                let incoming = Incoming::Close(self.end(Reason::UnexpectedProxyHeader));
                DecodeOutcome { consumed: input.len(), incoming }
            }
            Detection::Unknown => {
                let incoming = Incoming::Close(self.end(Reason::UnknownProtocol));
                DecodeOutcome { consumed: input.len(), incoming }
            }
        }
    }

    fn decode_http<'a>(&'a mut self, input: &'a [u8], settings: &CodecSettings) -> DecodeOutcome<'a> {
        let CodecState::Http(http) = &mut self.state else { return DecodeOutcome::incomplete(input.len()) };
        let (consumed, outcome) = http.decode(input, settings);
        let incoming = match outcome {
            HttpOutcome::Incomplete => Incoming::Incomplete,
            HttpOutcome::Reply(bytes) => Incoming::Reply(bytes),
            HttpOutcome::Ignore => Incoming::Ignore,
            HttpOutcome::Refused(bytes) => Incoming::Refused(bytes),
            HttpOutcome::Request(request) => match &self.state {
                CodecState::Http(http) => Incoming::Request(http.request(request)),
                _ => unreachable!("the request was decoded in this state"),
            },
            HttpOutcome::Upgrade { upgrade: Upgrade { response, deflate }, echo, client, opening } => {
                let window = deflate.map(Deflate::window);
                self.state = CodecState::WebSocket(WebSocketCodec::new(echo, window));
                match client {
                    _ if echo => Incoming::Open(response),
                    None if opening.is_none() => Incoming::Reply(response),
                    client => Incoming::Upgraded { response, client, opening },
                }
            }
            HttpOutcome::Close(close) => {
                self.state = CodecState::Ended;
                Incoming::Close(close)
            }
        };
        DecodeOutcome { consumed, incoming }
    }

    fn end(&mut self, reason: Reason) -> Close {
        self.state = CodecState::Ended;
        Close::silent(reason)
    }
}

/// Detects the protocol from the first bytes of a connection: `had` bytes of [`OHAI`], and the input that follows them.
fn detect(had: usize, input: &[u8]) -> Detection {
    let due = &OHAI.as_bytes()[had..];
    if input.starts_with(due) {
        return Detection::Raw;
    }
    if due.starts_with(input) {
        return Detection::Incomplete;
    }
    match input[0] {
        _ if had > 0 => Detection::Unknown,
        TLS_HANDSHAKE => Detection::Tls,
        _ if ProxyHeader::begins(input) => Detection::ProxyHeader,
        b'\r' | b'\n' => Detection::Http,
        byte if is_token_byte(byte) => Detection::Http,
        _ => Detection::Unknown,
    }
}

/// Returns the length of an event in this framing, before compression. `text_len` is the length of the event's text.
pub const fn frame_len(framing: Framing, text_len: usize) -> usize {
    let overhead = match framing {
        Framing::WebSocket | Framing::Deflate(_) => encode::header_len(text_len),
        Framing::Raw => raw::HEADER_BYTES,
        Framing::LongPolling => http::LINE_BYTES,
        Framing::EventStream => http::STREAMED_BYTES,
    };
    overhead + text_len
}

/// Appends an event in this framing, without compression. `write` appends the event's text, whose length is `text_len`.
#[inline]
pub fn frame_with(framing: Framing, out: &mut Vec<u8>, text_len: usize, write: impl FnOnce(&mut Vec<u8>)) {
    match framing {
        Framing::WebSocket | Framing::Deflate(_) => encode::header(out, Opcode::Text, text_len),
        Framing::Raw => raw::header(out, text_len),
        Framing::LongPolling => return http::line(out, write),
        Framing::EventStream => return http::streamed(out, write),
    }
    write(out);
}

/// Appends an event with this text in this framing, without compression.
pub fn frame(framing: Framing, out: &mut Vec<u8>, text: &str) {
    out.reserve(frame_len(framing, text.len()));
    frame_with(framing, out, text.len(), |out| out.extend_from_slice(text.as_bytes()));
}
