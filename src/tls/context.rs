//! The configuration of a listener's TLS, prepared so that the secrets of a connection can be taken over.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;

use super::handshake::Handshake;
use super::secrets::SecretLog;

/// The configuration that all connections of a listener share. A clone is another reference to it.
#[derive(Clone)]
pub struct TlsContext {
    config: Arc<ServerConfig>,
    /// Clients may present certificates, which make handshakes longer.
    asks_for_certificates: bool,
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
        TlsContext { config: Arc::new(config), asks_for_certificates: false }
    }

    /// Returns the context for a configuration that asks clients for certificates. Their handshakes may be longer.
    #[must_use]
    pub fn with_client_certificates(self) -> TlsContext {
        TlsContext { asks_for_certificates: true, ..self }
    }

    /// Begins the handshake of a connection.
    pub fn accept(&self) -> Handshake {
        Handshake::new(self.config.clone(), self.asks_for_certificates)
    }

    /// Returns the prepared configuration, for connections that rustls handles alone.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContext")
            .field("asks_for_certificates", &self.asks_for_certificates)
            .finish_non_exhaustive()
    }
}
