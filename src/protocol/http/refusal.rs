//! Why a request is refused: each cause once, with its status, its words and its headers.

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No HTTP/1.x request.
    Malformed,
    /// A header that must be single is there twice.
    RepeatedHeader,
    /// No `Host` (RFC 9112, 3.2).
    NoHost,
    /// A `Host`, or the authority of the target, that can be no host.
    Host,
    /// A target that is neither a path, nor a URL, nor the `*` of OPTIONS.
    Target,
    /// A `Content-Length` that is no single number, or one beside `Transfer-Encoding`.
    Length,
    /// A body where none has a meaning.
    Body,
    /// A body that is not UTF-8.
    InvalidUtf8,
    /// A parameter that must be single is there twice, or a `seq` that is no number from 1.
    Parameters,
    /// An event stream or an upgrade while earlier requests are not answered.
    Pipelined,
    /// A handshake in HTTP/1.0 (RFC 6455, 4.2.1).
    OldHttp,
    /// No `Sec-WebSocket-Key`, or none that is 16 bytes in base64.
    Key,
    /// A version other than 13.
    Version,
    /// Subprotocols are offered, but not `quickio`.
    Subprotocol,
    /// No `sid`, or one that is not 32 hex digits.
    Sid,
    /// A page that may not connect.
    Origin,
    /// Nothing can be posted there.
    NotFound,
    /// A method that is not known.
    UnknownMethod,
    /// A handshake by a method other than GET.
    Method,
    /// A session is asked for its output, but not as an event stream.
    NotAcceptable,
    /// The request was not complete in time.
    Timeout,
    /// A POST without `Content-Length`.
    NoLength,
    /// A body longer than the limit of a message.
    TooLong,
    /// An expectation other than `100-continue`.
    Expectation,
    /// A key, but not the headers that ask for an upgrade.
    UpgradeMissing,
    /// More requests than [`HTTP_REQUESTS_UNANSWERED_MAX`](crate::limits::HTTP_REQUESTS_UNANSWERED_MAX) are not answered.
    TooMany,
    /// More bytes than [`HTTP_HEAD_BYTES_MAX`](crate::limits::HTTP_HEAD_BYTES_MAX), or more headers than
    /// [`HTTP_HEADERS_MAX`](crate::limits::HTTP_HEADERS_MAX).
    TooLarge,
}

impl Refusal {
    /// The status of the response.
    pub const fn status(self) -> u16 {
        match self {
            Refusal::Sid | Refusal::Origin => 403,
            Refusal::NotFound => 404,
            Refusal::UnknownMethod | Refusal::Method => 405,
            Refusal::NotAcceptable => 406,
            Refusal::Timeout => 408,
            Refusal::NoLength => 411,
            Refusal::TooLong => 413,
            Refusal::Expectation => 417,
            Refusal::UpgradeMissing => 426,
            Refusal::TooMany => 429,
            Refusal::TooLarge => 431,
            _ => 400,
        }
    }

    /// What is wrong: the body of the response.
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed request",
            Refusal::RepeatedHeader => "repeated header",
            Refusal::NoHost => "host missing",
            Refusal::Host => "invalid host",
            Refusal::Target => "invalid request target",
            Refusal::Length => "invalid content length",
            Refusal::Body => "request must have no body",
            Refusal::InvalidUtf8 => "body must be UTF-8",
            Refusal::Parameters => "repeated sid or seq, or invalid seq",
            Refusal::Pipelined => "earlier requests must be answered first",
            Refusal::OldHttp => "websocket needs HTTP/1.1",
            Refusal::Key => "invalid websocket key",
            Refusal::Version => "websocket version must be 13",
            Refusal::Subprotocol => "websocket subprotocol must be quickio",
            Refusal::Sid => "sid must be 32 hex digits",
            Refusal::Origin => "origin not allowed",
            Refusal::NotFound => "nothing can be posted here",
            Refusal::UnknownMethod => "unknown method",
            Refusal::Method => "websocket handshake must be GET",
            Refusal::NotAcceptable => "only an event stream can be had here",
            Refusal::Timeout => "request took too long",
            Refusal::NoLength => "content length required",
            Refusal::TooLong => "body too long",
            Refusal::Expectation => "unknown expectation",
            Refusal::UpgradeMissing => "websocket upgrade required",
            Refusal::TooMany => "too many requests unanswered",
            Refusal::TooLarge => "request head too large",
        }
    }

    /// The headers that belong to it, whole lines.
    pub(super) const fn headers(self) -> &'static str {
        match self {
            // RFC 9110, 15.5.6, 15.5.22 and 7.8; RFC 6455, 4.4.
            Refusal::UnknownMethod => "Allow: GET, HEAD, POST, OPTIONS\r\n",
            Refusal::Method => "Allow: GET\r\n",
            Refusal::UpgradeMissing => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            }
            Refusal::Version => "Sec-WebSocket-Version: 13\r\n",
            _ => "",
        }
    }

    /// Whether the same connection can be used again, as far as this goes: what the peer sends next is surely the
    /// beginning of a request, and it may well be a better one. Never behind a 400 (protocol.md, section 5).
    pub(super) const fn may_persist(self) -> bool {
        matches!(
            self,
            Refusal::Sid
                | Refusal::Origin
                | Refusal::NotFound
                | Refusal::UnknownMethod
                | Refusal::NotAcceptable
        )
    }
}
