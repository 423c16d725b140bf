//! Why a connection ends: every cause once, with the code and the words that the peer and the log get.

use std::fmt;

pub use super::http::Refusal;
use super::utf8::InvalidUtf8;
use super::websocket::close::NO_STATUS;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The peer began the closing handshake, with this code; 1005 where its Close had none (RFC 6455, 7.1.5).
    PeerClosed(u16),
    /// The stream ended, or broke, without a closing handshake.
    ConnectionLost,
    /// The first bytes fit no protocol.
    UnknownProtocol,
    /// The HTTP request is refused, and what follows it cannot be told or is not wanted.
    Refused(Refusal),
    /// The last response of an HTTP connection that does not persist.
    Finished,
    /// The bytes break the protocol, or a limit.
    Violation(Violation),
    /// The first WebSocket message was not `/qio/ohai`.
    InvalidHandshake,
    /// The text of a message is no event. Found by whoever parses it.
    MalformedEvent,
    /// The handshake or a message was not completed in time, or nothing was heard for too long.
    ClientTimeout,
    /// The client does not read as fast as it is sent to.
    SlowClient,
    /// The server holds as many clients as it may.
    TooManyClients,
    /// The server stops.
    GoingAway,
    /// An application asked for it.
    Application,
    /// The server failed.
    ServerError,
}

impl Reason {
    /// The close code of WebSocket (RFC 6455, 7.4.1), 1005 and 1006 among them, which are never sent: 1005 is also what
    /// has no code; where an HTTP request is refused, the status.
    pub const fn code(self) -> u16 {
        match self {
            Reason::PeerClosed(code) => code,
            Reason::Finished => NO_STATUS,
            Reason::Application => 1000,
            Reason::GoingAway => 1001,
            Reason::UnknownProtocol | Reason::InvalidHandshake | Reason::MalformedEvent => 1002,
            Reason::ConnectionLost => 1006,
            Reason::ClientTimeout => 1008,
            Reason::ServerError => 1011,
            Reason::SlowClient | Reason::TooManyClients => 1013,
            Reason::Violation(violation) => violation.code(),
            Reason::Refused(refusal) => refusal.status(),
        }
    }

    /// What the peer and the log are told: one text for each cause.
    pub const fn text(self) -> &'static str {
        match self {
            Reason::PeerClosed(_) => "closed by the client",
            Reason::ConnectionLost => "connection lost",
            Reason::Finished => "last response sent",
            Reason::UnknownProtocol => "unknown protocol",
            Reason::InvalidHandshake => "invalid handshake",
            Reason::MalformedEvent => "invalid event format",
            Reason::ClientTimeout => "client timeout",
            Reason::SlowClient => "client reads too slowly",
            Reason::TooManyClients => "too many clients",
            Reason::GoingAway => "server going away",
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

/// How the bytes of a peer break the protocol, or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed upon.
    ReservedBits,
    /// An opcode that has no meaning.
    ReservedOpcode,
    /// A frame of a client that is not masked.
    Unmasked,
    /// A control frame without FIN.
    ControlFragmented,
    /// A control frame of more than 125 bytes.
    ControlTooLong,
    /// A length that would fit a shorter form.
    LengthNotMinimal,
    /// A length of 2^63 or more.
    LengthTooLarge,
    /// A continuation frame, but no message was begun.
    UnexpectedContinuation,
    /// A new message, but the last one is not finished.
    ExpectedContinuation,
    /// A Close with one byte of payload.
    CloseTooShort,
    /// A close code that must not be sent.
    CloseCode,
    /// A binary message where only texts have a meaning.
    Binary,
    /// A text, or the reason of a Close, that is not UTF-8.
    InvalidUtf8,
    /// A message longer than the limit.
    MessageTooLong,
}

impl Violation {
    /// The close code of WebSocket (RFC 6455, 7.4.1).
    pub const fn code(self) -> u16 {
        match self {
            Violation::Binary => 1003,
            Violation::InvalidUtf8 => 1007,
            Violation::MessageTooLong => 1009,
            _ => 1002,
        }
    }

    /// What the peer and the log are told.
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
        }
    }
}

impl From<InvalidUtf8> for Violation {
    fn from(_: InvalidUtf8) -> Violation {
        Violation::InvalidUtf8
    }
}
