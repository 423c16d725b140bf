//! The reasons for which connections end, each with its code and its text for the peer and the log.

use std::fmt;

pub use super::http::HttpRefusal;
use super::utf8::InvalidUtf8;
use super::websocket::close::NO_STATUS;

/// The reason for which a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The peer began the closing handshake with this code, or 1005 if its Close had no code (RFC 6455, 7.1.5).
    PeerClosed(u16),
    /// The stream ended or failed without a closing handshake.
    ConnectionLost,
    /// The first bytes do not belong to a known protocol.
    UnknownProtocol,
    /// The first byte begins a TLS connection, but the listener takes none.
    Tls,
    /// The peer is one of `proxy-protocol`, but its first bytes are no header of the PROXY protocol.
    NoProxyHeader,
    /// The header of the PROXY protocol is malformed or too long.
    InvalidProxyHeader,
    /// The first bytes are a header of the PROXY protocol, but the peer is not one of `proxy-protocol`.
    UnexpectedProxyHeader,
    /// The HTTP request was refused, and the bytes that follow it are ambiguous or unwanted.
    Refused(HttpRefusal),
    /// The last response of an HTTP connection that does not persist was sent.
    Finished,
    /// The peer violated the protocol or a limit.
    Violation(Violation),
    /// The first WebSocket message was not `/qio/ohai`.
    InvalidHandshake,
    /// The text of a message is not an event. Codecs do not parse events; the caller detects this.
    MalformedEvent,
    /// The handshake or a message was not complete in time, or nothing was received for too long.
    ClientTimeout,
    /// The client does not read its output fast enough.
    SlowClient,
    /// The message that the peer has begun is large, and all connections together have begun too many.
    NoRoom,
    /// The server has its maximum number of clients.
    TooManyClients,
    /// The server is shutting down.
    GoingAway,
    /// The client has not authenticated in time.
    AuthTimeout,
    /// The token of the client has expired, and it has sent no other.
    TokenExpired,
    /// A token of the client was not accepted.
    TokenInvalid,
    /// Too many tokens are being verified.
    AuthBusy,
    /// The application that authenticates clients does not answer.
    AuthUnavailable,
    /// An application closed the connection.
    Application,
    /// The server failed.
    ServerError,
}

impl Reason {
    /// Returns the WebSocket close code (RFC 6455, 7.4.1), or the status with which an HTTP request was refused. The
    /// codes 1005 and 1006 are never sent; reasons without a code have 1005.
    pub const fn code(self) -> u16 {
        match self {
            Reason::PeerClosed(code) => code,
            Reason::Finished => NO_STATUS,
            Reason::Application => 1000,
            Reason::GoingAway => 1001,
            Reason::UnknownProtocol | Reason::Tls | Reason::InvalidHandshake | Reason::MalformedEvent => 1002,
            Reason::NoProxyHeader | Reason::InvalidProxyHeader | Reason::UnexpectedProxyHeader => 1002,
            Reason::ConnectionLost => 1006,
            Reason::ClientTimeout | Reason::AuthTimeout | Reason::TokenExpired | Reason::TokenInvalid => 1008,
            Reason::ServerError => 1011,
            Reason::SlowClient | Reason::NoRoom | Reason::TooManyClients => 1013,
            Reason::AuthBusy | Reason::AuthUnavailable => 1013,
            Reason::Violation(violation) => violation.code(),
            Reason::Refused(refusal) => refusal.status(),
        }
    }

    /// Returns the text for the peer and the log.
    pub const fn text(self) -> &'static str {
        match self {
            Reason::PeerClosed(_) => "closed by the client",
            Reason::ConnectionLost => "connection lost",
            Reason::Finished => "last response sent",
            Reason::UnknownProtocol => "unknown protocol",
            Reason::Tls => "TLS on a port that takes none; connect without it, or to a port that takes TLS",
            Reason::NoProxyHeader => {
                "no PROXY header; the setting proxy-protocol lists the peer, which must send one"
            }
            Reason::InvalidProxyHeader => "invalid PROXY header",
            Reason::UnexpectedProxyHeader => {
                "a PROXY header was sent; to trust it, list the peer in the setting proxy-protocol"
            }
            Reason::InvalidHandshake => "invalid handshake",
            Reason::MalformedEvent => "invalid event format",
            Reason::ClientTimeout => "client timeout",
            Reason::SlowClient => "client reads too slowly",
            Reason::NoRoom => "too many messages are incomplete; try again later",
            Reason::TooManyClients => "too many clients",
            Reason::GoingAway => "server going away",
            Reason::AuthTimeout => "authentication timeout",
            Reason::TokenExpired => "token expired",
            Reason::TokenInvalid => "token invalid",
            Reason::AuthBusy => "too many tokens are being verified; try again later",
            Reason::AuthUnavailable => "authentication unavailable; try again later",
            Reason::Application => "closed by the application",
            Reason::ServerError => "internal error",
            Reason::Violation(violation) => violation.text(),
            Reason::Refused(refusal) => refusal.text(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl From<Violation> for Reason {
    fn from(violation: Violation) -> Reason {
        Reason::Violation(violation)
    }
}

/// A violation of the protocol or of a limit by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A reserved bit is set, although no extension was negotiated that gives it a meaning in this frame.
    ReservedBits,
    /// An opcode is reserved.
    ReservedOpcode,
    /// A frame of a client is not masked.
    Unmasked,
    /// A control frame has no FIN.
    ControlFragmented,
    /// A control frame has more than 125 bytes of payload.
    ControlTooLong,
    /// A length is not encoded in its shortest form.
    LengthNotMinimal,
    /// A length is 2^63 or more.
    LengthTooLarge,
    /// A continuation frame came, but no message was begun.
    UnexpectedContinuation,
    /// A new message began before the last one was complete.
    ExpectedContinuation,
    /// A Close has one byte of payload.
    CloseTooShort,
    /// A close code must not be sent.
    CloseCode,
    /// A message is binary, but must be text.
    Binary,
    /// A text or the reason of a Close is not UTF-8.
    InvalidUtf8,
    /// A message is longer than the limit, as it was sent or after it was inflated.
    MessageTooLong,
    /// The payload of a compressed message cannot be inflated.
    Deflate,
}

impl Violation {
    /// Returns the WebSocket close code (RFC 6455, 7.4.1).
    pub const fn code(self) -> u16 {
        match self {
            Violation::Binary => 1003,
            Violation::InvalidUtf8 | Violation::Deflate => 1007,
            Violation::MessageTooLong => 1009,
            _ => 1002,
        }
    }

    /// Returns the text for the peer and the log.
    pub const fn text(self) -> &'static str {
        match self {
            Violation::ReservedBits => "reserved bits must be 0",
            Violation::ReservedOpcode => "reserved opcode",
            Violation::Unmasked => "client must mask data",
            Violation::ControlFragmented => "control frame must not be fragmented",
            Violation::ControlTooLong => "control frame too long",
            Violation::LengthNotMinimal => "length must be minimal",
            Violation::LengthTooLarge => "length must be below 2^63",
            Violation::UnexpectedContinuation => "no message to continue",
            Violation::ExpectedContinuation => "message must be continued",
            Violation::CloseTooShort => "close payload too short",
            Violation::CloseCode => "invalid close code",
            Violation::Binary => "binary messages are not accepted",
            Violation::InvalidUtf8 => "invalid UTF-8",
            Violation::MessageTooLong => "message too long",
            Violation::Deflate => "invalid compressed data",
        }
    }
}

impl From<InvalidUtf8> for Violation {
    fn from(_: InvalidUtf8) -> Violation {
        Violation::InvalidUtf8
    }
}
