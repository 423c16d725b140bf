//! The ways in which TLS with a client fails.

use std::fmt;

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

/// A reason for which TLS with a client fails. The shard counts failures by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsReason {
    /// The client speaks HTTP without TLS.
    PlainHttp,
    /// The first bytes are neither TLS nor HTTP.
    NotTls,
    /// The client has no version of TLS that the server accepts, or a record has an impossible version.
    Version,
    /// The client and the server have no common suite, group, signature or protocol.
    Incompatible,
    /// A message cannot be decoded.
    Malformed,
    /// A record is longer than TLS allows.
    Oversized,
    /// The client sent more bytes during the handshake than the server accepts.
    HandshakeTooLong,
    /// A record or message that is not allowed at this point.
    UnexpectedMessage,
    /// A message breaks a rule of the protocol in another way.
    Misbehaved,
    /// A record was not protected by the keys of this connection, or arrived out of order.
    BadMac,
    /// The client must present a certificate, and did not.
    CertificateMissing,
    /// The client's certificate is not accepted.
    CertificateInvalid,
    /// The client sent a fatal alert.
    PeerAlert,
    /// The client closed TLS during the handshake.
    Closed,
    /// A client of TLS 1.2 asked for another handshake again after it had been refused.
    Renegotiation,
    /// The client sent too many records without data one after the other.
    Flood,
    /// An error of the server.
    Internal,
}

impl TlsReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [TlsReason; 17] = [
        TlsReason::PlainHttp,
        TlsReason::NotTls,
        TlsReason::Version,
        TlsReason::Incompatible,
        TlsReason::Malformed,
        TlsReason::Oversized,
        TlsReason::HandshakeTooLong,
        TlsReason::UnexpectedMessage,
        TlsReason::Misbehaved,
        TlsReason::BadMac,
        TlsReason::CertificateMissing,
        TlsReason::CertificateInvalid,
        TlsReason::PeerAlert,
        TlsReason::Closed,
        TlsReason::Renegotiation,
        TlsReason::Flood,
        TlsReason::Internal,
    ];

    /// Returns the name for statistics and logs.
    pub fn name(self) -> &'static str {
        match self {
            TlsReason::PlainHttp => "plain_http",
            TlsReason::NotTls => "not_tls",
            TlsReason::Version => "version",
            TlsReason::Incompatible => "incompatible",
            TlsReason::Malformed => "malformed",
            TlsReason::Oversized => "oversized",
            TlsReason::HandshakeTooLong => "handshake_too_long",
            TlsReason::UnexpectedMessage => "unexpected_message",
            TlsReason::Misbehaved => "misbehaved",
            TlsReason::BadMac => "bad_mac",
            TlsReason::CertificateMissing => "certificate_missing",
            TlsReason::CertificateInvalid => "certificate_invalid",
            TlsReason::PeerAlert => "peer_alert",
            TlsReason::Closed => "closed",
            TlsReason::Renegotiation => "renegotiation",
            TlsReason::Flood => "flood",
            TlsReason::Internal => "internal",
        }
    }

    fn description(self) -> &'static str {
        match self {
            TlsReason::PlainHttp => "the client sent HTTP without TLS",
            TlsReason::NotTls => "the client sent bytes that are not TLS",
            TlsReason::Version => "the client and the server have no common version of TLS",
            TlsReason::Incompatible => "the client and the server have no common algorithms",
            TlsReason::Malformed => "the client sent a message that cannot be decoded",
            TlsReason::Oversized => "the client sent a record that is too long",
            TlsReason::HandshakeTooLong => "the client sent too many bytes during the handshake",
            TlsReason::UnexpectedMessage => "the client sent a message that is not allowed at this point",
            TlsReason::Misbehaved => "the client broke a rule of the protocol",
            TlsReason::BadMac => "the client sent a record that cannot be decrypted",
            TlsReason::CertificateMissing => "the client has not sent a certificate",
            TlsReason::CertificateInvalid => "the certificate of the client is not accepted",
            TlsReason::PeerAlert => "the client ended TLS with an alert",
            TlsReason::Closed => "the client closed TLS during the handshake",
            TlsReason::Renegotiation => "the client asked for another handshake again",
            TlsReason::Flood => "the client sent too many records without data",
            TlsReason::Internal => "the server has an error",
        }
    }
}

/// A failure that ends TLS with a client.
#[derive(Debug)]
pub struct TlsFailure {
    /// The reason.
    pub reason: TlsReason,
    /// The alert for the client, or the one that the client sent (`PeerAlert`). `None` if there is none, or if rustls
    /// has chosen it.
    pub alert: Option<AlertDescription>,
    /// The error of rustls, if it found the failure.
    pub error: Option<Error>,
}

impl TlsFailure {
    /// Returns a failure for which the client must receive `alert`.
    pub(super) fn new(reason: TlsReason, alert: AlertDescription) -> TlsFailure {
        TlsFailure { reason, alert: Some(alert), error: None }
    }

    /// Returns the failure of a handshake in which the client sends more bytes than the server accepts.
    pub fn handshake_too_long() -> TlsFailure {
        TlsFailure::new(TlsReason::HandshakeTooLong, AlertDescription::DecodeError)
    }

    /// Returns a failure for which the client receives no alert.
    pub(super) fn silent(reason: TlsReason) -> TlsFailure {
        TlsFailure { reason, alert: None, error: None }
    }

    /// Returns the failure for an alert of the client, which must not be answered (RFC 8446 section 6.2).
    pub(super) fn of_peer(alert: AlertDescription) -> TlsFailure {
        TlsFailure { reason: TlsReason::PeerAlert, alert: Some(alert), error: None }
    }

    /// Returns the alert that the client must receive.
    pub fn alert_to_send(&self) -> Option<AlertDescription> {
        self.alert.filter(|_| self.reason != TlsReason::PeerAlert)
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.description())?;
        match (&self.error, self.alert) {
            (Some(error), _) => write!(f, ": {error}"),
            (None, Some(alert)) => write!(f, " (alert {alert:?})"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for TlsFailure {}

impl From<Error> for TlsFailure {
    /// Returns the failure for an error of a handshake. Its alert is the one of RFC 8446 section 6.2, for the errors
    /// for which rustls sends none.
    fn from(error: Error) -> TlsFailure {
        let (reason, alert) = match &error {
            Error::AlertReceived(alert) => (TlsReason::PeerAlert, *alert),
            Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
                (TlsReason::HandshakeTooLong, AlertDescription::DecodeError)
            }
            Error::InvalidMessage(_) => (TlsReason::Malformed, AlertDescription::DecodeError),
            Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
                (TlsReason::UnexpectedMessage, AlertDescription::UnexpectedMessage)
            }
            Error::PeerIncompatible(why) => incompatible(why),
            Error::NoApplicationProtocol => {
                (TlsReason::Incompatible, AlertDescription::NoApplicationProtocol)
            }
            // rustls has no other error for a key that cannot sign as the client wants.
            Error::General(_) => (TlsReason::Incompatible, AlertDescription::HandshakeFailure),
            Error::PeerMisbehaved(_) => (TlsReason::Misbehaved, AlertDescription::UnexpectedMessage),
            Error::DecryptError => (TlsReason::BadMac, AlertDescription::BadRecordMac),
            Error::PeerSentOversizedRecord => (TlsReason::Oversized, AlertDescription::RecordOverflow),
            Error::NoCertificatesPresented => {
                (TlsReason::CertificateMissing, AlertDescription::CertificateRequired)
            }
            Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => {
                (TlsReason::CertificateInvalid, AlertDescription::BadCertificate)
            }
            _ => (TlsReason::Internal, AlertDescription::InternalError),
        };
        TlsFailure { reason, alert: Some(alert), error: Some(error) }
    }
}

fn incompatible(why: &PeerIncompatible) -> (TlsReason, AlertDescription) {
    match why {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::SupportedVersionsExtensionRequired => {
            (TlsReason::Version, AlertDescription::ProtocolVersion)
        }
        _ => (TlsReason::Incompatible, AlertDescription::HandshakeFailure),
    }
}
