//! TLS of the clients, by rustls.

use crate::clock;
use crate::plan::{Plan, TlsPlan};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, RootCertStore,
    SignatureScheme,
};
use socket2::Socket;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The TLS that the clients of a worker have in common.
pub struct TlsClients {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// The TLS of a socket.
pub struct TlsClient {
    connection: ClientConnection,
    /// The time at which the socket began to connect.
    began: u64,
    /// The time that its handshake took to compute here, in nanoseconds.
    computed: u64,
}

/// A handshake that has ended.
#[derive(Debug)]
pub struct HandshakeTimes {
    /// The client has resumed a session.
    pub is_resumed: bool,
    /// The time at which the socket began to connect.
    pub began: u64,
    /// The time from then until the end of the handshake, in nanoseconds.
    pub took: u64,
    /// The part of it that was computed by the client, in nanoseconds.
    pub computed: u64,
}

impl TlsClients {
    /// Prepares the clients of a plan with TLS.
    pub fn new(plan: &Plan, tls: &TlsPlan) -> Result<TlsClients, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = match &tls.ca {
            Some(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = if tls.resumes {
            Resumption::store(Arc::new(SharedTickets::default()))
        } else {
            Resumption::disabled()
        };
        let name = match &tls.name {
            Some(name) => {
                ServerName::try_from(name.clone()).map_err(|_| format!("{name} is not a name of a host"))?
            }
            None => ServerName::from(plan.server.ip()),
        };
        Ok(TlsClients { config: Arc::new(config), name })
    }

    /// Begins the handshake of a socket.
    pub fn client(&self) -> Result<TlsClient, String> {
        let began = clock::now();
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut connection = connection.map_err(|error| error.to_string())?;
        // What is sent before the end of the handshake waits there.
        connection.set_buffer_limit(None);
        Ok(TlsClient { connection, began, computed: clock::now() - began })
    }

    /// Completes a handshake on a blocking socket, to check that the server speaks TLS.
    pub fn check(&self, mut socket: &Socket) -> Result<(), String> {
        let mut client = self.client()?;
        while client.connection.is_handshaking() {
            client.connection.complete_io(&mut socket).map_err(|error| {
                format!("the TLS handshake has failed: {error}. Check that the server takes TLS at this address, and the \
                         certificate if --tls-ca is given")
            })?;
        }
        Ok(())
    }
}

impl TlsClient {
    /// Encrypts bytes, as soon as the handshake has ended. [`TlsClient::take_output`] returns them.
    pub fn write(&mut self, bytes: &[u8]) {
        self.connection.writer().write_all(bytes).expect("its buffer has no limit");
    }

    /// Announces the end of what the client sends.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Returns what must be sent to the server.
    pub fn take_output(&mut self) -> Option<Vec<u8>> {
        let mut output = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut output).expect("a vector takes all bytes");
        }
        (!output.is_empty()).then_some(output)
    }

    /// Decrypts a piece of received bytes to the end of `plain`. Returns the handshake if the piece has ended it.
    pub fn receive(
        &mut self,
        mut piece: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<Option<HandshakeTimes>, String> {
        let was_handshaking = self.connection.is_handshaking();
        let from = if was_handshaking { clock::now() } else { 0 };
        while !piece.is_empty() {
            let taken = self.connection.read_tls(&mut piece).map_err(|error| format!("TLS: {error}"))?;
            let state = self.connection.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            let (at, len) = (plain.len(), state.plaintext_bytes_to_read());
            plain.resize(at + len, 0);
            self.connection.reader().read_exact(&mut plain[at..]).map_err(|error| format!("TLS: {error}"))?;
            if taken == 0 {
                // The server has announced the end: what follows means nothing.
                break;
            }
        }
        if !was_handshaking {
            return Ok(None);
        }
        let now = clock::now();
        self.computed += now - from;
        Ok((!self.connection.is_handshaking()).then(|| HandshakeTimes {
            is_resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
            began: self.began,
            took: now - self.began,
            computed: self.computed,
        }))
    }
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let failed = |error: &dyn std::fmt::Display| format!("--tls-ca {}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))? {
        let certificate = certificate.map_err(|error| failed(&error))?;
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() { Err(failed(&"it has no certificate in PEM")) } else { Ok(roots) }
}

/// The tickets of all clients, each of which takes one to resume a session and adds the one that it gets. With TLS 1.2, all
/// resume the last session.
#[derive(Debug, Default)]
struct SharedTickets {
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    tls13: Mutex<Vec<Tls13ClientSessionValue>>,
}

/// The number of tickets that are kept: more than clients connect at once.
const TICKETS_MAX: usize = 4096;

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientSessionStore for SharedTickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        *locked(&self.tls12) = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        locked(&self.tls12).clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *locked(&self.tls12) = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = locked(&self.tls13);
        if tickets.len() < TICKETS_MAX {
            tickets.push(ticket);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        locked(&self.tls13).pop()
    }
}

/// Accepts every certificate: the load generator tests servers of its own host.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Scenario;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    fn server() -> Arc<ServerConfig> {
        let own = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key);
        Arc::new(config.unwrap())
    }

    /// Passes bytes between the ends until none has more. Returns what the client has received, and its handshake.
    fn exchange(
        client: &mut TlsClient,
        server: &mut ServerConnection,
    ) -> Result<(Vec<u8>, Option<HandshakeTimes>), String> {
        let (mut plain, mut times) = (Vec::new(), None);
        loop {
            let sent = client.take_output().unwrap_or_default();
            let mut rest = sent.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().map_err(|error| error.to_string())?;
            }
            let mut received = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut received).unwrap();
            }
            if sent.is_empty() && received.is_empty() {
                return Ok((plain, times));
            }
            // One byte at a time: the pieces of the ring are cut anywhere.
            for byte in received {
                times = client.receive(&[byte], &mut plain)?.or(times);
            }
        }
    }

    #[test]
    fn what_is_written_first_arrives_after_a_full_or_a_resumed_handshake() {
        let config = server();
        for (resumes, expected) in [(true, [false, true, true]), (false, [false; 3])] {
            let tls = TlsPlan { resumes, ..TlsPlan::default() };
            let clients = TlsClients::new(&Plan::new(Scenario::Ping), &tls).unwrap();
            for is_resumed in expected {
                let mut server = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut client = clients.client().unwrap();
                client.write(b"first");
                let (plain, times) = exchange(&mut client, &mut server).unwrap();
                let times = times.expect("the handshake has ended");
                assert_eq!((plain.len(), times.is_resumed), (0, is_resumed));
                assert!(times.computed > 0 && times.computed <= times.took);
                let mut first = [0; 5];
                server.reader().read_exact(&mut first).unwrap();
                assert_eq!(&first, b"first");
                server.writer().write_all(&[7; 40_000]).unwrap();
                let (plain, times) = exchange(&mut client, &mut server).unwrap();
                assert!(plain == [7; 40_000] && times.is_none());
                client.close();
                exchange(&mut client, &mut server).unwrap();
                assert_eq!(server.reader().read(&mut first).unwrap(), 0, "the client has announced the end");
            }
        }
    }

    #[test]
    fn a_certificate_is_verified_if_there_is_an_authority() {
        let file = std::env::temp_dir().join(format!("quickio_load_{}.pem", std::process::id()));
        let other = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
        std::fs::write(&file, other.cert.pem()).unwrap();
        let plan = Plan::new(Scenario::Ping);
        let tls = TlsPlan { ca: Some(file.clone()), name: Some("a.example".into()), resumes: true };
        let clients = TlsClients::new(&plan, &tls).unwrap();
        let mut server = ServerConnection::new(server()).unwrap();
        let error = exchange(&mut clients.client().unwrap(), &mut server).unwrap_err();
        assert!(error.contains("invalid peer certificate"), "{error}");
        std::fs::write(&file, "").unwrap();
        let error = TlsClients::new(&plan, &tls).err().unwrap();
        assert!(error.ends_with("it has no certificate in PEM"), "{error}");
        std::fs::remove_file(&file).unwrap();
        assert!(TlsClients::new(&plan, &tls).err().unwrap().starts_with("--tls-ca "));
    }
}
