//! The other end of a connection: a client of rustls, and the certificates of the tests.
//!
//! Besides the tests of the crate, the benchmarks and the fuzz targets include this file. It uses nothing of the crate.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls::{SupportedProtocolVersion, version};

/// A certificate and its key.
pub type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Returns the chain and the key of a certificate in tests/certificates.
pub fn certificate(name: &str) -> Pair {
    macro_rules! pairs {
        ($($known:literal),*) => {
            match name {
                $($known => (
                    &include_bytes!(concat!("../../../tests/certificates/", $known, ".pem"))[..],
                    &include_bytes!(concat!("../../../tests/certificates/", $known, ".key"))[..],
                ),)*
                _ => panic!("tests/certificates has no {name}"),
            }
        };
    }
    let (chain, key) = pairs!("ca", "server", "rsa", "rsa4096", "p384", "client", "stranger");
    let chain = CertificateDer::pem_slice_iter(chain).map(|certificate| certificate.expect("a certificate"));
    (chain.collect(), PrivateKeyDer::from_pem_slice(key).expect("a key"))
}

/// Returns the store with the authority of the tests.
pub fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca").0.remove(0)).expect("an authority");
    roots
}

/// Returns a configuration of the server with this certificate and these versions.
pub fn server_config(name: &str, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let (chain, key) = certificate(name);
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(versions).expect("versions of the provider");
    let mut config =
        builder.with_no_client_auth().with_single_cert(chain, key).expect("a certificate and its key");
    config.ticketer = Ticketer::new().expect("random numbers");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Returns a configuration of the server for both versions, with a certificate that the suite can use.
pub fn server_config_for(suite: SupportedCipherSuite) -> ServerConfig {
    let certificate = if needs_rsa(suite) { "rsa" } else { "server" };
    server_config(certificate, &[&version::TLS13, &version::TLS12])
}

/// The suites of both versions, each with the version that it belongs to.
pub fn suites() -> Vec<(SupportedCipherSuite, &'static SupportedProtocolVersion)> {
    ALL_CIPHER_SUITES.iter().map(|suite| (*suite, suite.version())).collect()
}

/// Returns true if a suite of TLS 1.2 needs a certificate with an RSA key.
pub fn needs_rsa(suite: SupportedCipherSuite) -> bool {
    format!("{suite:?}").contains("_RSA_")
}

/// Returns a configuration of the client with this suite alone.
pub fn client_config(suite: SupportedCipherSuite) -> ClientConfig {
    let provider = CryptoProvider { cipher_suites: vec![suite], ..default_provider() };
    client_config_with(provider, &[suite.version()])
}

/// Returns a configuration of the client with this provider and these versions.
pub fn client_config_with(
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(versions).expect("versions of the provider");
    let mut config = builder.with_root_certificates(roots()).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// A server name of the certificates `server`, `rsa`, `rsa4096` and `p384`.
pub fn name() -> ServerName<'static> {
    ServerName::try_from("quickio.example").expect("a name")
}

/// Returns a client.
pub fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config.clone(), name()).expect("a configuration for this name")
}

/// Returns the bytes that the client has to send.
pub fn written(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("a vector can be written");
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
        client.read_tls(&mut bytes).expect("a slice can be read");
        client.process_new_packets()?;
        // The end of what has arrived is the error WouldBlock.
        let _ = client.reader().read_to_end(&mut data);
    }
    Ok(data)
}

/// Seals data as the client does.
pub fn sealed(client: &mut ClientConnection, data: &[u8]) -> Vec<u8> {
    client.set_buffer_limit(None);
    client.writer().write_all(data).expect("the client has room");
    written(client)
}
