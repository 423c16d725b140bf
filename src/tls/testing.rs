//! A client of rustls on the other end of a connection, for the tests of this module.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls::{SupportedProtocolVersion, version};

use super::keys::Cipher;
use super::record::TAG_BYTES;
use super::secrets::{SecretLog, TrafficSecrets, capture};
use super::session::SEND;
use super::{Established, Handshake, Opened, TlsContext, TlsFailure, TlsSession};
use aws_lc_rs::aead::{Aad, Nonce};
use rustls::crypto::cipher::make_tls12_aad;
use rustls::{ContentType, ProtocolVersion};

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
    let builder = ServerConfig::builder().with_client_cert_verifier(client_verifier(roots()));
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    config
}

/// Returns a verifier of clients by these authorities.
pub fn client_verifier(roots: RootCertStore) -> Arc<dyn ClientCertVerifier> {
    WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap()
}

/// Returns a context of the server for both versions, with a certificate that the suite can use.
pub fn context(suite: SupportedCipherSuite) -> TlsContext {
    let certificate = if needs_rsa(suite) { "rsa" } else { "server" };
    TlsContext::new(server_config(certificate, &[&version::TLS13, &version::TLS12]))
}

/// Returns true if a suite of TLS 1.2 needs a certificate with an RSA key.
pub fn needs_rsa(suite: SupportedCipherSuite) -> bool {
    format!("{suite:?}").contains("_RSA_")
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

/// Gives bytes of the server to the client, and returns the data in them.
///
/// # Errors
///
/// If the client does not accept them.
pub fn deliver(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut data = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets()?;
        // The end of what has arrived is the error WouldBlock.
        let _ = client.reader().read_to_end(&mut data);
    }
    Ok(data)
}

/// Seals data as the client does.
pub fn sealed(client: &mut ClientConnection, data: &[u8]) -> Vec<u8> {
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
    let established = shake_hands(&mut client, &mut context(suite).accept(), usize::MAX).unwrap();
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

/// The two ends of a connection, both with the record layer that is tested: the first is the client's. It can send what
/// no client of rustls sends.
pub fn ends(suite: SupportedCipherSuite) -> (TlsSession, TlsSession) {
    let mut config = client_config(suite);
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretLog::new(config.key_log));
    let mut client = client(&Arc::new(config));
    let mut handshake = context(suite).accept();
    let mut secrets = TrafficSecrets::default();
    let established = loop {
        let mut output = Vec::new();
        let (_, established) = handshake.receive(&written(&mut client), &mut output).unwrap();
        capture(&mut secrets, || deliver(&mut client, &output)).unwrap();
        if let Some(established) = established {
            break established;
        }
    };
    let mirrored = TrafficSecrets { client: secrets.server.take(), server: secrets.client.take() };
    let extracted = client.dangerous_extract_secrets().unwrap();
    let client = TlsSession::new(suite.version().version, &extracted, &mirrored).unwrap();
    (client, established.session)
}

/// Returns a record with exactly this content. With TLS 1.3 the content is the inner plaintext, with type and padding.
pub fn forged(client: &mut TlsSession, kind: u8, content: &[u8]) -> Vec<u8> {
    let aead = client.keys[SEND].aead(client.cipher, client.tail(SEND));
    let nonce = client.nonce(SEND);
    let is_explicit = !client.is_13 && client.cipher != Cipher::ChaCha20Poly1305;
    let explicit = if is_explicit { &nonce[4..] } else { &[] };
    let len = u16::try_from(explicit.len() + content.len() + TAG_BYTES).unwrap().to_be_bytes();
    let header = [kind, 3, 3, len[0], len[1]];
    let mut body = content.to_vec();
    let nonce_value = Nonce::assume_unique_for_key(nonce);
    let tag = if client.is_13 {
        aead.seal_in_place_separate_tag(nonce_value, Aad::from(header), &mut body)
    } else {
        let (kind, version) = (ContentType::from(kind), ProtocolVersion::TLSv1_2);
        let aad = make_tls12_aad(client.sequences[SEND], kind, version, content.len());
        aead.seal_in_place_separate_tag(nonce_value, Aad::from(aad), &mut body)
    };
    client.sequences[SEND] += 1;
    [&header, explicit, &body, tag.unwrap().as_ref()].concat()
}

/// Returns a protected record of this type.
pub fn record(client: &mut TlsSession, kind: u8, content: &[u8]) -> Vec<u8> {
    if client.is_13 {
        forged(client, 23, &[content, &[kind]].concat())
    } else {
        forged(client, kind, content)
    }
}
