//! The handshake of a connection: rustls, fed record by record.
//!
//! rustls' own reader takes whatever it is given, data behind the handshake included. Here, rustls is given one whole
//! record at a time, and no more of them once the handshake is complete. What follows is the caller's.

use std::fmt;
use std::mem;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{AlertDescription, ContentType, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

use super::failure::{TlsFailure, TlsReason};
use super::record::{CONTENT_BYTES_MAX, EXPANSION_BYTES_MAX_13, RecordHeader};
use super::seal::FATAL;
use super::secrets::{self, TrafficSecrets};
use super::session::TlsSession;
use crate::limits::{TLS_HANDSHAKE_BYTES, TLS_HANDSHAKE_BYTES_MAX, TLS_HANDSHAKE_CERTIFICATE_BYTES_MAX};

/// The longest method of HTTP that is told from other bytes.
const HTTP_METHOD_BYTES_MAX: usize = 16;

/// The handshake of a connection. It is a pointer: the memory is released when the handshake ends.
pub struct Handshake(Box<Inner>);

struct Inner {
    /// `None` after the end of the handshake, and after an error in taking over the secrets.
    connection: Option<ServerConnection>,
    /// The verifier of the client's certificate, if the session is resumed and has one.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    secrets: TrafficSecrets,
    /// The bytes that the client has sent.
    received: usize,
    received_max: usize,
    /// rustls has sent something: records may be encrypted from here on.
    has_answered: bool,
}

/// The result of a complete handshake.
#[derive(Debug)]
pub struct Established {
    /// The keys of the connection.
    pub session: TlsSession,
    /// The client's side of the handshake.
    pub peer: TlsPeer,
}

/// The facts about the client that a handshake tells.
#[derive(Clone, Debug, Default)]
pub struct TlsPeer {
    /// The name of the server for which the client asked (RFC 6066 section 3).
    pub server_name: Option<Box<str>>,
    /// The protocol that was chosen (RFC 7301).
    pub alpn: Option<Box<[u8]>>,
    /// The certificate that the client presented, which has been verified.
    pub certificate: Option<CertificateDer<'static>>,
    /// The handshake resumed an earlier session.
    pub is_resumed: bool,
}

impl Handshake {
    pub(super) fn new(config: Arc<ServerConfig>, verifier: Option<Arc<dyn ClientCertVerifier>>) -> Handshake {
        let connection = ServerConnection::new(config).expect("the configuration has no limit for fragments");
        let received_max =
            if verifier.is_some() { TLS_HANDSHAKE_CERTIFICATE_BYTES_MAX } else { TLS_HANDSHAKE_BYTES_MAX };
        Handshake(Box::new(Inner {
            connection: Some(connection),
            verifier,
            secrets: TrafficSecrets::default(),
            received: 0,
            received_max,
            has_answered: false,
        }))
    }

    /// Handles the complete records at the start of `input`, up to the end of the handshake, and appends what must be
    /// sent to `output`. Returns the number of bytes to remove from the input, and the result of the handshake if it
    /// is complete: what follows in the input are records for the session.
    ///
    /// # Errors
    ///
    /// If the client broke a rule or the two have nothing in common. The alert is in the output: the caller sends it
    /// and closes the connection. With [`TlsReason::PlainHttp`] there is none, and the caller can answer in HTTP.
    ///
    /// # Panics
    ///
    /// If the handshake is over.
    pub fn receive(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(usize, Option<Established>), TlsFailure> {
        let mut used = 0;
        loop {
            let Some(record) = self.0.next_record(&input[used..], output)? else {
                return Ok((used, None));
            };
            self.0.handle(record, output)?;
            used += record.len();
            if !self.0.connection().is_handshaking() {
                return Ok((used, Some(self.0.take_over(output)?)));
            }
        }
    }

    /// Returns a bound of the memory that the handshake occupies, in bytes.
    pub fn memory(&self) -> usize {
        // rustls keeps messages until they are complete, and may have doubled its buffer for them.
        TLS_HANDSHAKE_BYTES + 2 * self.0.received
    }

    /// Returns the number of bytes that the client has sent and that were handled.
    pub fn received(&self) -> usize {
        self.0.received
    }

    /// Returns true if the server has sent its last flight before that of the client, with its signature, which is the
    /// expensive part. This is not so behind a HelloRetryRequest (RFC 8446 section 4.1.4): the next ClientHello costs a
    /// signature.
    pub fn has_signed(&self) -> bool {
        // rustls logs the server's traffic secret with its Finished. TLS 1.2 has no such request.
        let version = self.0.connection.as_ref().and_then(|connection| connection.protocol_version());
        self.0.secrets.server.is_some() || self.0.has_answered && version == Some(ProtocolVersion::TLSv1_2)
    }
}

impl Inner {
    fn connection(&mut self) -> &mut ServerConnection {
        self.connection.as_mut().expect("a handshake must not be continued after its end")
    }

    /// Returns the first record of `input`, if it is complete and allowed.
    fn next_record<'a>(
        &mut self,
        input: &'a [u8],
        output: &mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, TlsFailure> {
        if self.received == 0 {
            check_start(input).map_err(|failure| self.fail(failure, output))?;
        }
        // The server's ServerHello precedes every encrypted record. TLS 1.2 encrypts only one short message here.
        let expansion = if self.has_answered { EXPANSION_BYTES_MAX_13 } else { 0 };
        let header = RecordHeader::read(input, CONTENT_BYTES_MAX + expansion);
        let Some(header) = header.map_err(|failure| self.fail(failure, output))? else {
            return Ok(None);
        };
        if self.received + header.record_len() > self.received_max {
            let failure = TlsFailure::handshake_too_long();
            return Err(self.fail(failure, output));
        }
        let record = input.get(..header.record_len());
        // An alert that is longer is encrypted.
        if record.is_some_and(|record| matches!(record, [kind, _, _, 0, 2, _, description]
            if *kind == u8::from(ContentType::Alert) && *description == u8::from(AlertDescription::CloseNotify)))
        {
            return Err(TlsFailure::silent(TlsReason::Closed));
        }
        Ok(record)
    }

    fn handle(&mut self, record: &[u8], output: &mut Vec<u8>) -> Result<(), TlsFailure> {
        self.received += record.len();
        let mut secrets = mem::take(&mut self.secrets);
        let result = secrets::capture(&mut secrets, || feed(self.connection(), record));
        self.secrets = secrets;
        let sent = self.write(output);
        // If rustls has found the failure, it has sent the alert, encrypted where it must be.
        result.map_err(|failure| if sent > 0 { failure } else { self.fail(failure, output) })
    }

    /// Appends what rustls has to send. Returns the number of bytes.
    fn write(&mut self, output: &mut Vec<u8>) -> usize {
        let before = output.len();
        let connection = self.connection();
        while connection.wants_write() {
            connection.write_tls(output).expect("a vector can be written");
        }
        let sent = output.len() - before;
        self.has_answered |= sent > 0;
        sent
    }

    fn take_over(&mut self, output: &mut Vec<u8>) -> Result<Established, TlsFailure> {
        let connection = self.connection.take().expect("the handshake has just ended");
        let peer = TlsPeer {
            server_name: connection.server_name().map(Box::from),
            alpn: connection.alpn_protocol().map(Box::from),
            certificate: connection.peer_certificates().and_then(|chain| chain.first().cloned()),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        let verified = match (&self.verifier, connection.peer_certificates()) {
            (Some(verifier), Some([first, issuers @ ..])) if peer.is_resumed => {
                verifier.verify_client_cert(first, issuers, UnixTime::now()).map(|_| ())
            }
            _ => Ok(()),
        };
        let version = connection.protocol_version().expect("a complete handshake has a version");
        let extracted = connection.dangerous_extract_secrets().map_err(|error| TlsFailure {
            reason: TlsReason::Internal,
            alert: None,
            error: Some(error),
        })?;
        let mut session = TlsSession::new(version, &extracted, &self.secrets)?;
        if let Err(error) = verified {
            let failure = TlsFailure::from(error);
            failure.alert_to_send().into_iter().for_each(|alert| session.alert(alert, output));
            return Err(failure);
        }
        Ok(Established { session, peer })
    }

    /// Appends the alert of `failure`, which rustls has not sent.
    fn fail(&mut self, failure: TlsFailure, output: &mut Vec<u8>) -> TlsFailure {
        let Some(alert) = failure.alert_to_send() else { return failure };
        let connection = self.connection();
        let is_12 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let suite = connection.negotiated_cipher_suite();
        if let (Some(suite), Some(secret)) = (suite, &self.secrets.server) {
            // The server has sent its Finished: from there on it sends with the first traffic secret (RFC 8446 section
            // 7.1), and rustls has not used it yet.
            if let Some(mut session) = TlsSession::for_alert(suite.suite(), secret.as_bytes()) {
                session.alert(alert, output);
            }
        } else if !(is_12 && is_resumed && self.has_answered) {
            // In a resumed handshake of TLS 1.2 the server encrypts already, with keys that rustls has not given away:
            // there is no alert. In all others it does not.
            output.extend_from_slice(&[u8::from(ContentType::Alert), 3, 3, 0, 2, FATAL, u8::from(alert)]);
        }
        failure
    }
}

/// Gives a record to rustls, and handles it.
fn feed(connection: &mut ServerConnection, mut record: &[u8]) -> Result<(), TlsFailure> {
    while !record.is_empty() {
        // rustls keeps at most 64 KiB of a message.
        let too_long = |_| TlsFailure::handshake_too_long();
        connection.read_tls(&mut record).map_err(too_long)?;
        if connection.process_new_packets()?.peer_has_closed() {
            return Err(TlsFailure::silent(TlsReason::Closed));
        }
    }
    Ok(())
}

/// Checks the first bytes of a connection, which must be those of a handshake record.
fn check_start(input: &[u8]) -> Result<(), TlsFailure> {
    match input.first() {
        None => Ok(()),
        Some(first) if *first == u8::from(ContentType::Handshake) => Ok(()),
        Some(_) if looks_like_http(input) => Err(TlsFailure::silent(TlsReason::PlainHttp)),
        Some(_) => Err(TlsFailure::new(TlsReason::NotTls, AlertDescription::UnexpectedMessage)),
    }
}

/// Returns true if `input` begins like the method of an HTTP request (RFC 9110 section 9.1), in capital letters and with
/// a space behind it if that much has arrived.
fn looks_like_http(input: &[u8]) -> bool {
    let method_len = input.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    method_len > 0
        && method_len <= HTTP_METHOD_BYTES_MAX
        && matches!(input.get(method_len), None | Some(b' '))
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("received", &self.0.received)
            .field("has_answered", &self.0.has_answered)
            .finish_non_exhaustive()
    }
}
