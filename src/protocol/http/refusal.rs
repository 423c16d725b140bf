//! The reasons for refusing a request, each with its status, its text and its headers.

/// The header that tells a client to try again in a second (RFC 9110, 10.2.3).
pub(super) const RETRY_SOON: &str = "Retry-After: 1\r\n";

/// The reason for refusing a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpRefusal {
    /// The head is not an HTTP/1.x request.
    Malformed,
    /// A header that must be single occurs twice.
    RepeatedHeader,
    /// There is no `Host` (RFC 9112, 3.2).
    NoHost,
    /// The `Host` or the authority of the target is not a valid host.
    Host,
    /// The target is neither a path, nor a URL, nor the `*` of OPTIONS.
    Target,
    /// The version of HTTP is neither 1.0 nor 1.1.
    HttpVersion,
    /// The `Content-Length` is not a single number, or there is also a `Transfer-Encoding`.
    Length,
    /// The transfer codings do not say where the body ends, or the request is HTTP/1.0, which has none.
    TransferCoding,
    /// There is a transfer coding apart from `chunked`.
    UnsupportedCoding,
    /// The body is not a valid chunked body.
    Chunk,
    /// A chunked body has more than [`HTTP_CHUNK_OVERHEAD_BYTES_MAX`](crate::limits::HTTP_CHUNK_OVERHEAD_BYTES_MAX)
    /// bytes, and one more for each byte of data, that are not data.
    ChunkOverhead,
    /// The request has a body, but its method gives it no meaning.
    Body,
    /// The body is not UTF-8.
    InvalidUtf8,
    /// A parameter that must be single occurs twice, or `seq` is not a number of at least 1.
    Parameters,
    /// The request asks for an event stream or an upgrade while earlier requests are not answered.
    Pipelined,
    /// The handshake is HTTP/1.0 (RFC 6455, 4.2.1).
    OldHttp,
    /// There is no `Sec-WebSocket-Key`, or it is not 16 bytes in base64.
    Key,
    /// The WebSocket version is not 13.
    Version,
    /// The offered extensions do not have the form of RFC 6455, 9.1.
    Extensions,
    /// The client offers subprotocols, but not `quickio`.
    Subprotocol,
    /// There is no `sid`, or it is not 32 hex digits.
    Sid,
    /// The request comes from a page that may not connect.
    Origin,
    /// The path does not accept POST.
    NotFound,
    /// The server does not know the method.
    UnknownMethod,
    /// The server knows the method, but has nothing that allows it.
    MethodNotAllowed,
    /// The method of the handshake is not GET.
    Method,
    /// The request asks for the output of a session, but does not accept an event stream.
    NotAcceptable,
    /// The request was not complete in time.
    Timeout,
    /// The body is longer than the limit on messages.
    TooLong,
    /// The expectation is not `100-continue`.
    Expectation,
    /// There is a `Sec-WebSocket-Key`, but not the headers that ask for an upgrade.
    UpgradeMissing,
    /// More than [`HTTP_REQUESTS_UNANSWERED_MAX`](crate::limits::HTTP_REQUESTS_UNANSWERED_MAX) requests are not
    /// answered.
    TooMany,
    /// The head has more than `http-head-bytes-max` bytes, or more than
    /// [`HTTP_HEADERS_MAX`](crate::limits::HTTP_HEADERS_MAX) headers.
    TooLarge,
    /// The request is large and incomplete, and all connections together have begun too many.
    NoRoom,
    /// The connection exceeds the number that its address may have.
    AddressFull,
    /// The connection exceeds the number that the server may have.
    ServerFull,
    /// The port takes only TLS.
    PlainHttp,
}

impl HttpRefusal {
    /// Returns the status of the response.
    pub const fn status(self) -> u16 {
        match self {
            HttpRefusal::Sid | HttpRefusal::Origin => 403,
            HttpRefusal::NotFound => 404,
            HttpRefusal::MethodNotAllowed | HttpRefusal::Method => 405,
            HttpRefusal::NotAcceptable => 406,
            HttpRefusal::Timeout => 408,
            HttpRefusal::TooLong => 413,
            HttpRefusal::Expectation => 417,
            HttpRefusal::UpgradeMissing => 426,
            HttpRefusal::TooMany | HttpRefusal::AddressFull => 429,
            HttpRefusal::TooLarge => 431,
            HttpRefusal::UnknownMethod | HttpRefusal::UnsupportedCoding => 501,
            HttpRefusal::NoRoom | HttpRefusal::ServerFull => 503,
            HttpRefusal::HttpVersion => 505,
            _ => 400,
        }
    }

    /// Returns the text for the body of the response.
    pub const fn text(self) -> &'static str {
        match self {
            HttpRefusal::Malformed => "malformed request",
            HttpRefusal::RepeatedHeader => "repeated header",
            HttpRefusal::NoHost => "host missing",
            HttpRefusal::Host => "invalid host",
            HttpRefusal::Target => "invalid request target",
            HttpRefusal::HttpVersion => "HTTP version must be 1.1 or 1.0",
            HttpRefusal::Length => "invalid content length",
            HttpRefusal::TransferCoding => "invalid transfer encoding",
            HttpRefusal::UnsupportedCoding => "transfer encoding must be chunked",
            HttpRefusal::Chunk => "invalid chunk",
            HttpRefusal::ChunkOverhead => "too many small chunks, or chunk extensions or trailers too long",
            HttpRefusal::Body => "request must have no body",
            HttpRefusal::InvalidUtf8 => "body must be UTF-8",
            HttpRefusal::Parameters => "repeated sid or seq, or invalid seq",
            HttpRefusal::Pipelined => "earlier requests must be answered first",
            HttpRefusal::OldHttp => "websocket needs HTTP/1.1",
            HttpRefusal::Key => "invalid websocket key",
            HttpRefusal::Version => "websocket version must be 13",
            HttpRefusal::Extensions => "invalid websocket extensions",
            HttpRefusal::Subprotocol => "websocket subprotocol must be quickio",
            HttpRefusal::Sid => "sid must be 32 hex digits",
            HttpRefusal::Origin => "origin not allowed",
            HttpRefusal::NotFound => "nothing can be posted here",
            HttpRefusal::UnknownMethod => "unknown method",
            HttpRefusal::MethodNotAllowed => "method not allowed",
            HttpRefusal::Method => "websocket handshake must be GET",
            HttpRefusal::NotAcceptable => "only an event stream can be had here",
            HttpRefusal::Timeout => "request took too long",
            HttpRefusal::TooLong => "body too long",
            HttpRefusal::Expectation => "unknown expectation",
            HttpRefusal::UpgradeMissing => "websocket upgrade required",
            HttpRefusal::TooMany => "too many requests unanswered",
            HttpRefusal::TooLarge => "request head too large",
            HttpRefusal::NoRoom => "too many requests are incomplete",
            HttpRefusal::AddressFull => "too many connections from this address",
            HttpRefusal::ServerFull => "the server is full",
            HttpRefusal::PlainHttp => "this port takes only TLS: use https:// or wss://",
        }
    }

    /// Returns the headers that the response needs, as complete lines.
    pub(super) const fn headers(self) -> &'static str {
        match self {
            // RFC 9110, 15.5.6, 15.5.22 and 7.8; RFC 6455, 4.4.
            HttpRefusal::UnknownMethod | HttpRefusal::MethodNotAllowed => {
                "Allow: GET, HEAD, POST, OPTIONS\r\n"
            }
            HttpRefusal::Method => "Allow: GET\r\n",
            HttpRefusal::UpgradeMissing => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            }
            // RFC 9110, 10.2.3. Places become free when clients disconnect, which can take a while.
            HttpRefusal::AddressFull | HttpRefusal::ServerFull => "Retry-After: 10\r\n",
            HttpRefusal::Version => "Sec-WebSocket-Version: 13\r\n",
            HttpRefusal::TooMany | HttpRefusal::NoRoom => RETRY_SOON,
            _ => "",
        }
    }

    /// Returns whether the connection may persist: the bytes that the peer sends next are certainly the beginning of a
    /// request, and this request may be valid. A connection never persists behind a 400 (protocol.md, section 5).
    pub(super) const fn may_persist(self) -> bool {
        matches!(
            self,
            HttpRefusal::Sid
                | HttpRefusal::Origin
                | HttpRefusal::NotFound
                | HttpRefusal::UnknownMethod
                | HttpRefusal::MethodNotAllowed
                | HttpRefusal::NotAcceptable
        )
    }
}
