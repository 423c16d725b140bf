//! The two ends of connections, for the tests of this module.

mod peer;

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite};

use super::keys::Cipher;
use super::record::TAG_BYTES;
use super::secrets::{SecretLog, TrafficSecrets, capture};
use super::session::SEND;
use super::{Established, Handshake, Opened, TlsContext, TlsFailure, TlsSession};
use aws_lc_rs::aead::{Aad, Nonce};
pub use peer::*;
use rustls::crypto::cipher::make_tls12_aad;
use rustls::{ContentType, ProtocolVersion};

/// Returns a configuration of the server that asks for a certificate.
pub fn asking_config() -> ServerConfig {
    let (chain, key) = certificate("server");
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).unwrap();
    let builder = builder.with_client_cert_verifier(client_verifier(roots()));
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.ticketer = Ticketer::new().unwrap();
    config
}

/// Returns a verifier of clients by these authorities.
pub fn client_verifier(roots: RootCertStore) -> Arc<dyn ClientCertVerifier> {
    WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap()
}

/// Returns a context of the server for both versions, with a certificate that the suite can use.
pub fn context(suite: SupportedCipherSuite) -> TlsContext {
    TlsContext::new(server_config_for(suite))
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
