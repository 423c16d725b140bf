//! The causes of a connection's end, and ends that have been decided but not carried out.

use crate::metrics::Counter;
use crate::protocol::{HttpRefusal, Reason};
use crate::tls::TlsReason;

/// The cause of a connection's end: a reason of the protocol, or a cause that the peer is not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// A reason that has a close code.
    Reason(Reason),
    /// The handshake was not completed in time.
    HandshakeTimeout,
    /// A message was begun and not completed in time.
    MessageTimeout,
    /// Nothing was received for too long.
    LivenessTimeout,
    /// The peer read nothing of what it was sent for too long.
    SendTimeout,
    /// No request came on an HTTP connection for too long.
    IdleTimeout,
    /// An HTTP session had no request to respond to for too long.
    SessionTimeout,
    /// The peer closed its side of the stream.
    EndOfStream,
    /// The network failed, or the peer reset the connection. The value is an `errno`.
    Broken(i32),
    /// The peer's address already has as many connections as it may have.
    TooManyOfAddress,
    /// TLS has failed, which was logged. The peer is sent an alert.
    Tls(TlsReason),
    /// The peer closed its side of the stream, but has not closed TLS: what it sent last may be lost (RFC 8446, 6.1).
    TlsTruncated,
    /// The TLS handshake of the peer took the longest when there were too many.
    TlsEvicted,
    /// The key of TLS 1.2 has protected as many records as it may, and cannot be changed.
    TlsWornOut,
}

/// An end that has been decided. It is carried out before the turn is over.
pub(super) struct Ending {
    /// The slot of the connection.
    pub slot: u32,
    /// The cause of the end.
    pub cause: Cause,
    /// The last bytes for the peer, if the codec has already provided them. Otherwise the codec is asked.
    pub goodbye: Option<Goodbye>,
}

/// The last bytes sent to a peer.
pub(super) struct Goodbye {
    /// The bytes; may be empty.
    pub bytes: Vec<u8>,
    /// `true` if the peer's own Close is awaited.
    pub await_peer: bool,
}

impl Goodbye {
    /// An end without last bytes.
    pub const NOTHING: Goodbye = Goodbye { bytes: Vec::new(), await_peer: false };
}

impl Cause {
    /// The reason that the peer is told.
    pub fn reason(self) -> Reason {
        match self {
            Cause::Reason(reason) => reason,
            Cause::HandshakeTimeout
            | Cause::MessageTimeout
            | Cause::LivenessTimeout
            | Cause::IdleTimeout
            | Cause::SessionTimeout => Reason::ClientTimeout,
            Cause::SendTimeout => Reason::SlowClient,
            Cause::TooManyOfAddress => Reason::TooManyClients,
            Cause::TlsEvicted => Reason::TooManyClients,
            Cause::TlsWornOut => Reason::GoingAway,
            Cause::EndOfStream | Cause::Broken(_) | Cause::Tls(_) | Cause::TlsTruncated => {
                Reason::ConnectionLost
            }
        }
    }

    /// Returns whether the connection is closed without a message to the peer and without waiting for it, because the
    /// peer cannot be reached.
    pub fn is_abrupt(self) -> bool {
        matches!(self, Cause::Broken(_) | Cause::TlsTruncated)
    }

    /// Returns whether what waits for the peer is dropped: the peer does not read it, or it cannot be sealed any more.
    pub fn drops_output(self) -> bool {
        self.is_slow_peer() || matches!(self, Cause::Tls(_))
    }

    /// Returns whether the peer does not read. What waits for it is dropped, and it would not read a reason sent after it.
    pub fn is_slow_peer(self) -> bool {
        matches!(self, Cause::SendTimeout | Cause::Reason(Reason::SlowClient))
    }

    /// The counter of connections that ended for this cause.
    pub fn counter(self) -> Counter {
        match self {
            Cause::HandshakeTimeout => Counter::TimeoutsHandshake,
            Cause::MessageTimeout => Counter::TimeoutsMessage,
            Cause::LivenessTimeout => Counter::TimeoutsLiveness,
            Cause::SendTimeout => Counter::TimeoutsSend,
            Cause::IdleTimeout => Counter::TimeoutsIdle,
            Cause::SessionTimeout => Counter::TimeoutsSession,
            Cause::EndOfStream => Counter::ClosesByPeer,
            Cause::Broken(_) => Counter::ClosesReset,
            Cause::TooManyOfAddress => Counter::ConnectionsRefusedAddress,
            Cause::Tls(reason) => counter_of_tls(reason),
            Cause::TlsTruncated => Counter::TlsTruncated,
            Cause::TlsEvicted => Counter::TlsEvicted,
            Cause::TlsWornOut => Counter::TlsWornOut,
            Cause::Reason(reason) => counter_of_reason(reason),
        }
    }
}

fn counter_of_tls(reason: TlsReason) -> Counter {
    match reason {
        TlsReason::PlainHttp | TlsReason::NotTls => Counter::TlsFailedPlain,
        TlsReason::Version | TlsReason::Incompatible => Counter::TlsFailedIncompatible,
        TlsReason::CertificateMissing | TlsReason::CertificateInvalid => Counter::TlsFailedCertificate,
        TlsReason::BadMac => Counter::TlsBadRecords,
        TlsReason::PeerAlert => Counter::TlsFailedAlert,
        TlsReason::Closed => Counter::TlsAbandoned,
        TlsReason::Internal => Counter::TlsFailedInternal,
        TlsReason::Malformed
        | TlsReason::Oversized
        | TlsReason::HandshakeTooLong
        | TlsReason::UnexpectedMessage
        | TlsReason::Misbehaved
        | TlsReason::Renegotiation
        | TlsReason::Flood => Counter::TlsFailedProtocol,
    }
}

fn counter_of_reason(reason: Reason) -> Counter {
    match reason {
        Reason::PeerClosed(_) | Reason::Finished => Counter::ClosesByPeer,
        Reason::ConnectionLost => Counter::ClosesReset,
        Reason::UnknownProtocol | Reason::Tls => Counter::ProtocolUnknown,
        Reason::NoProxyHeader | Reason::InvalidProxyHeader | Reason::UnexpectedProxyHeader => {
            Counter::ProxyHeadersRefused
        }
        Reason::Refused(HttpRefusal::PlainHttp) => Counter::TlsFailedPlain,
        Reason::Refused(_) | Reason::InvalidHandshake => Counter::HandshakesRefused,
        Reason::MalformedEvent => Counter::ClosesMalformedEvent,
        Reason::ClientTimeout => Counter::TimeoutsMessage,
        Reason::SlowClient => Counter::ClosesSlow,
        Reason::NoRoom => Counter::ClosesIncomplete,
        Reason::TooManyClients => Counter::ConnectionsRefusedLimit,
        Reason::AuthTimeout => Counter::TimeoutsAuth,
        Reason::TokenExpired => Counter::ClosesTokenExpired,
        Reason::TokenInvalid | Reason::AuthBusy | Reason::AuthUnavailable => Counter::ClosesTokenRefused,
        Reason::GoingAway => Counter::ClosesShutdown,
        Reason::Application | Reason::ServerError => Counter::ClosesByApp,
        Reason::Violation(violation) => match violation.code() {
            1003 => Counter::ClosesBinary,
            1007 => Counter::ClosesInvalidUtf8,
            1009 => Counter::ClosesTooLarge,
            _ => Counter::ClosesViolation,
        },
    }
}
