//! A client of rustls on the other end of a connection, for the tests of this module.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls::{SupportedProtocolVersion, version};

use super::{Established, Handshake, Opened, TlsContext, TlsFailure, TlsSession};

/// The suites of both versions, each with the version that it belongs to.
pub fn suites() -> Vec<(SupportedCipherSuite, &'static SupportedProtocolVersion)> {
    let all = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES.iter();
    all.map(|suite| (*suite, suite.version())).collect()
}

/// Returns the chain and the key of a certificate in tests/certificates.
pub fn certificate(name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let file = |ending: &str| format!("{}/tests/certificates/{name}.{ending}", env!("CARGO_MANIFEST_DIR"));
    let chain = CertificateDer::pem_file_iter(file("pem")).unwrap().map(Result::unwrap).collect();
    (chain, PrivateKeyDer::from_pem_file(file("key")).unwrap())
}

/// Returns the store with the authority of the tests.
pub fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca").0.remove(0)).unwrap();
    roots
}

/// Returns a configuration of the server with this certificate and these versions.
pub fn server_config(name: &str, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let (chain, key) = certificate(name);
    let mut config = ServerConfig::builder_with_protocol_versions(versions)
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Returns a configuration of the server that asks for a certificate.
pub fn asking_config() -> ServerConfig {
    let (chain, key) = certificate("server");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots())).build().unwrap();
    ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
}

/// Returns a context of the server for both versions.
pub fn context() -> TlsContext {
    TlsContext::new(server_config("server", &[&version::TLS13, &version::TLS12]))
}

/// Returns a configuration of the client with this suite alone.
pub fn client_config(suite: SupportedCipherSuite) -> ClientConfig {
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![suite],
        ..rustls::crypto::aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[suite.version()])
        .unwrap()
        .with_root_certificates(roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// A server name of the certificates `server` and `rsa`.
pub fn name() -> ServerName<'static> {
    ServerName::try_from("quickio.example").unwrap()
}

/// Returns a client.
pub fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config.clone(), name()).unwrap()
}

/// Returns the bytes that the client has to send.
pub fn written(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Gives bytes of the server to the client.
///
/// # Errors
///
/// If the client does not accept them.
pub fn deliver(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// Returns the data that the client has received.
pub fn received(client: &mut ClientConnection) -> Vec<u8> {
    use std::io::Read;
    let mut data = Vec::new();
    // The end of the data is WouldBlock, or UnexpectedEof if the connection has been closed without close_notify.
    let _ = client.reader().read_to_end(&mut data);
    data
}

/// Seals data as the client does.
pub fn sealed(client: &mut ClientConnection, data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    client.set_buffer_limit(None);
    client.writer().write_all(data).unwrap();
    written(client)
}

/// Completes a handshake in pieces of `size` bytes from the client.
///
/// # Errors
///
/// If the server does not accept what the client sends. The client has the alert.
pub fn shake_hands(
    client: &mut ClientConnection,
    handshake: &mut Handshake,
    size: usize,
) -> Result<Established, TlsFailure> {
    let mut input = Vec::new();
    loop {
        let sent = written(client);
        assert!(!sent.is_empty(), "both ends wait");
        for piece in sent.chunks(size) {
            input.extend_from_slice(piece);
            let mut output = Vec::new();
            let result = handshake.receive(&input, &mut output);
            let delivered = deliver(client, &output);
            let (used, established) = result?;
            delivered.expect("the client accepts what the server sends");
            input.drain(..used);
            if let Some(established) = established {
                assert!(input.is_empty(), "{} bytes were left over", input.len());
                return Ok(established);
            }
        }
    }
}

/// A client and the server's session, after their handshake.
pub fn connected(suite: SupportedCipherSuite) -> (ClientConnection, TlsSession) {
    let mut client = client(&Arc::new(client_config(suite)));
    let established = shake_hands(&mut client, &mut context().accept(), usize::MAX).unwrap();
    (client, established.session)
}

/// Opens all records of `input`, and returns their data.
///
/// # Errors
///
/// If a record is not accepted.
pub fn open_all(session: &mut TlsSession, input: &mut [u8]) -> Result<Vec<u8>, TlsFailure> {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let opened = session.open(&mut input[at..])?;
        session.check();
        match opened {
            Opened::Incomplete { .. } => {
                assert_eq!(at, input.len(), "an incomplete record");
                return Ok(data);
            }
            Opened::Data { used, plain } => {
                data.extend_from_slice(&input[at..][plain]);
                at += used;
            }
            Opened::Handled { used } => at += used,
            Opened::CloseNotify { used } => {
                assert_eq!(at + used, input.len());
                return Ok(data);
            }
        }
    }
}
