//! The TLS of a client: the authorities that it trusts, and a certificate of its own.

use super::error::PeerError;
use super::url::{ServerHost, ServerUrl};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a client's TLS.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct TlsFiles {
    /// The certificates of the authorities that are trusted instead of the system's.
    pub(in crate::cli) ca: Option<PathBuf>,
    /// The certificate of the client, with those of its issuers.
    pub(in crate::cli) cert: Option<PathBuf>,
    /// Its private key, if it is not in the same file.
    pub(in crate::cli) key: Option<PathBuf>,
}

impl TlsFiles {
    /// Begins a handshake with this server.
    pub(super) fn connection(&self, url: &ServerUrl) -> Result<ClientConnection, PeerError> {
        let ServerHost::Tcp { name, .. } = &url.host else { unreachable!("a Unix socket has no TLS") };
        let failed = |error: &dyn Display| PeerError::Certificates(error.to_string());
        let name = ServerName::try_from(name.clone()).map_err(|error| failed(&error))?;
        let connection = ClientConnection::new(Arc::new(self.config()?), name);
        connection.map_err(|error| failed(&error))
    }

    fn config(&self) -> Result<ClientConfig, PeerError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| PeerError::Certificates(error.to_string()))?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.cert {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let key_file = self.key.as_deref().unwrap_or(file);
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| named("--tls-key", key_file, &error))?;
                let own = builder.with_client_auth_cert(certificates("--tls-cert", file)?, key);
                own.map_err(|error| named("--tls-cert", file, &error))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, PeerError> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca {
            for certificate in certificates("--tls-ca", file)? {
                roots.add(certificate).map_err(|error| named("--tls-ca", file, &error))?;
            }
            return Ok(roots);
        }
        // Some files of a system may be unreadable or outdated; the others suffice.
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(PeerError::Certificates(
                "this system has no certificates of authorities: install the package ca-certificates, or give \
                 --tls-ca FILE"
                    .into(),
            ));
        }
        Ok(roots)
    }
}

fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, PeerError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| named(flag, file, &error))?;
    if certificates.is_empty() {
        return Err(named(flag, file, &"it has no certificate in PEM"));
    }
    Ok(certificates)
}

fn named(flag: &str, file: &Path, problem: &dyn Display) -> PeerError {
    PeerError::Certificates(format!("{flag} {}: {problem}", file.display()))
}
