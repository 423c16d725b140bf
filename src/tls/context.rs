//! The configuration of a listener's TLS, prepared so that the secrets of a connection can be taken over.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;

use super::handshake::Handshake;
use super::secrets::SecretLog;

/// The configuration that all connections of a listener share. A clone is another reference to it.
#[derive(Clone)]
pub struct TlsContext {
    config: Arc<ServerConfig>,
    /// The verifier of the certificates of clients, if clients are asked for them. They make handshakes longer.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl TlsContext {
    /// Prepares a configuration: the secrets of its connections can be extracted and are logged to the handshake that
    /// they belong to, and there is no early data. The `key_log` of the configuration still receives the secrets.
    ///
    /// The configuration must use the provider of AWS-LC, whose suites the record layer knows.
    pub fn new(mut config: ServerConfig) -> TlsContext {
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretLog::new(config.key_log));
        // A replay of early data would be a replay of events (RFC 8446 section 8).
        config.max_early_data_size = 0;
        // Data before the client's Finished would be sealed by rustls, with sequence numbers that we do not see.
        config.send_half_rtt_data = false;
        TlsContext { config: Arc::new(config), verifier: None }
    }

    /// Returns the context for a configuration that asks clients for certificates. Their handshakes may be longer, and
    /// `verifier`, which is that of the configuration, verifies the certificates of sessions that are resumed: rustls does
    /// not, and each resumption brings a new ticket, so that a certificate would never expire.
    #[must_use]
    pub fn with_client_certificates(self, verifier: Arc<dyn ClientCertVerifier>) -> TlsContext {
        TlsContext { verifier: Some(verifier), ..self }
    }

    /// Begins the handshake of a connection.
    pub fn accept(&self) -> Handshake {
        Handshake::new(self.config.clone(), self.verifier.clone())
    }

    /// Returns the prepared configuration, for connections that rustls handles alone.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContext")
            .field("asks_for_certificates", &self.verifier.is_some())
            .finish_non_exhaustive()
    }
}
