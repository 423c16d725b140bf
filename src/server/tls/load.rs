//! The configuration that listeners use, from the files that the settings name.

use super::error::TlsError;
use super::files::{Content, FilesRead, Fingerprint};
use super::keypair::{self, KeyPair};
use super::resolver::Certificates;
use super::secret_file;
use super::tickets::Tickets;
use crate::admin::CertificateExpiry;
use crate::config::{Config, TlsClientAuth, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use std::path::PathBuf;
use std::sync::Arc;

/// The suites, in the order of preference of the server: AES-128 costs the least where the processor has instructions for
/// it, as all servers do, and no known attack on it is cheaper than one on the key exchange.
const SUITES: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The protocol inside TLS (RFC 7301). WebSocket has the same name, because it begins as HTTP/1.1; clients of raw TCP do
/// not negotiate. A client that offers other protocols only, such as h2, gets the alert `no_application_protocol`, as
/// section 3.2 requires: it could not continue anyway.
const PROTOCOL: &[u8] = b"http/1.1";

/// The number of tickets for each TLS 1.3 handshake. A client has one long connection most of the time, and gets a new
/// ticket whenever it uses one. A second ticket would only help clients that open two connections at once, and would cost
/// every handshake an encryption and some 250 bytes.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// The configuration of TLS, as it was loaded.
pub(super) struct Loaded {
    pub config: ServerConfig,
    /// The same configuration, but no session is resumed.
    pub without_tickets: ServerConfig,
    /// The verifier of the certificates of clients, if clients are asked for them.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub certificates: Vec<CertificateExpiry>,
    /// Sentences about what is probably a mistake.
    pub warnings: Vec<String>,
    /// A digest of everything that the configuration was made of.
    pub fingerprint: Fingerprint,
    /// The directories in which a change of a file shows.
    pub directories: Vec<PathBuf>,
}

/// The secret of session tickets, if no file has it.
#[derive(Clone, Copy)]
pub(super) enum TicketSecret<'a> {
    /// This one, or that of the file, which may be created.
    OfProcess(&'a [u8]),
    /// None is needed: only the files are checked, and none is created.
    Checked,
}

/// Checks the files that the settings name, without creating any. Returns sentences about what is probably a mistake.
pub(in crate::server) fn check(settings: &Config) -> Result<Vec<String>, TlsError> {
    load(settings, TicketSecret::Checked).map(|loaded| loaded.warnings)
}

/// Loads the certificates of the settings: at least one.
pub(super) fn load(settings: &Config, secret: TicketSecret<'_>) -> Result<Loaded, TlsError> {
    let provider = Arc::new(provider());
    let mut files = FilesRead::new();
    let mut warnings = Vec::new();
    let mut pairs = Vec::new();
    for (number, certificate) in settings.tls_cert.iter().enumerate() {
        let key = settings.tls_key.get(number).map(PathBuf::as_path);
        pairs.push(KeyPair::read(certificate, key, &provider, &mut files, &mut warnings)?);
    }
    let auth = ClientAuth::read(settings, &provider, &mut files)?;
    let secret = ticket_secret(settings, secret, &mut files)?;
    files.note(&[settings.tls_min_version as u8]);
    files.note(&auth.context);
    let mut config = builder(settings.tls_min_version, &provider, auth.verifier.clone(), &pairs)?;
    let mut without_tickets = config.clone();
    without_tickets.send_tls13_tickets = 0;
    config.ticketer = Arc::new(Tickets::new(&secret, &auth.context));
    let (fingerprint, directories) = files.finish();
    Ok(Loaded {
        config,
        without_tickets,
        verifier: auth.verifier,
        certificates: pairs
            .into_iter()
            .map(|pair| CertificateExpiry { name: pair.title, expires: pair.expires })
            .collect(),
        warnings,
        fingerprint,
        directories,
    })
}

/// Returns the provider of AWS-LC, with the suites in our order.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: SUITES.to_vec(), ..aws_lc_rs::default_provider() }
}

fn builder(
    min_version: TlsVersion,
    provider: &Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    pairs: &[KeyPair],
) -> Result<ServerConfig, TlsError> {
    let versions: &[&SupportedProtocolVersion] = match min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(pairs)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.ignore_client_order = true;
    // Tickets take their place, and this one would be locked.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    // A replay of early data would be a replay of events (RFC 8446, section 8).
    config.max_early_data_size = 0;
    Ok(config)
}

fn ticket_secret(
    settings: &Config,
    secret: TicketSecret<'_>,
    files: &mut FilesRead,
) -> Result<Content, TlsError> {
    match (&settings.tls_ticket_key_file, secret) {
        (Some(path), TicketSecret::OfProcess(_)) => {
            secret_file::create_if_missing(path)?;
            secret_file::read(path, files)
        }
        (Some(path), TicketSecret::Checked) if path.exists() => secret_file::read(path, files),
        (Some(path), TicketSecret::Checked) => {
            secret_file::check_directory(path).map(|()| Content::default())
        }
        (None, TicketSecret::OfProcess(secret)) => Ok(secret.to_vec().into()),
        (None, TicketSecret::Checked) => Ok(Content::default()),
    }
}

/// The verification of clients.
struct ClientAuth {
    /// `None` if clients are not asked for certificates.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// The conditions that a session does not check again when it is resumed.
    context: Vec<u8>,
}

impl ClientAuth {
    fn read(
        settings: &Config,
        provider: &Arc<CryptoProvider>,
        files: &mut FilesRead,
    ) -> Result<ClientAuth, TlsError> {
        let Some(path) = &settings.tls_client_ca else {
            return Ok(ClientAuth { verifier: None, context: Vec::new() });
        };
        let authorities = keypair::certificates("tls-client-ca", path, files)?;
        let bad = |problem: String| TlsError::BadAuthority { path: path.clone(), problem };
        let mut roots = RootCertStore::empty();
        let mut context = vec![settings.tls_client_auth as u8];
        for (number, authority) in authorities.into_iter().enumerate() {
            context.extend_from_slice(&(authority.len() as u64).to_be_bytes());
            context.extend_from_slice(&authority);
            let added = roots.add(authority);
            added.map_err(|error| bad(format!("certificate {} is malformed: {error}", number + 1)))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = match settings.tls_client_auth {
            TlsClientAuth::Required => builder,
            TlsClientAuth::Optional => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(|error| bad(error.to_string()))?;
        Ok(ClientAuth { verifier: Some(verifier), context: digest(&context) })
    }
}

/// Returns a digest of fixed size: the derivation of keys takes no long context.
fn digest(bytes: &[u8]) -> Vec<u8> {
    ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}
