//! The server API: its start, its way to the shards, and reloads of its keys.

use super::api_keys::{ApiKeyError, read_keys};
use super::error::ServerError;
use super::mailboxes::Mailboxes;
use super::services::Services;
use crate::api::{self, ApiBounds, ApiError, ApiKeys, ApiMessage, ApiParts, Shards, ShardsBusy};
use crate::config::{ApiKeySetting, Config};
use crate::metrics::SharedCounters;
use crate::qev::control::TlsAcceptor;
use rustls::ServerConfig;
use std::sync::Arc;

/// The server API, while it runs.
pub(super) struct ApiService {
    keys: ApiKeys,
    /// The TLS of its listeners, if they have it.
    tls: Option<TlsAcceptor>,
}

impl ApiService {
    /// Starts the server API, if the settings have it.
    pub fn start(
        config: &Config,
        tls: Option<TlsAcceptor>,
        counters: &Arc<SharedCounters>,
        mailboxes: &Arc<Mailboxes>,
        services: &mut Services,
    ) -> Result<Option<ApiService>, ServerError> {
        if config.api.is_empty() {
            return Ok(None);
        }
        let keys = ApiKeys::new(read_keys(&config.api_keys)?);
        let tls = tls.filter(|_| config.api_tls);
        let parts = ApiParts {
            tls: tls.clone(),
            keys: keys.clone(),
            bounds: ApiBounds { body_bytes: config.api_body_bytes_max, bytes: config.api_bytes_max },
            counters: Arc::clone(counters),
        };
        let shards = ApiShards(Arc::clone(mailboxes));
        let prefix = if config.api_tls { "tls://" } else { "" };
        services.start("api", |control| {
            let addresses = api::serve(control, &config.api, parts, |_| shards)?;
            Ok::<_, ApiError>(addresses.iter().map(|address| format!("{prefix}{address}")).collect())
        })?;
        Ok(Some(ApiService { keys, tls }))
    }

    /// Replaces the configuration of TLS.
    pub fn set_tls(&self, config: &Arc<ServerConfig>) {
        if let Some(tls) = &self.tls {
            tls.set(Arc::clone(config));
        }
    }

    /// Reads the keys again, for requests that come from now on. If a key cannot be read, all keys stay as they are.
    pub fn reload(&self, settings: &[ApiKeySetting]) -> Result<(), ApiKeyError> {
        self.keys.set(read_keys(settings)?);
        Ok(())
    }
}

/// The shards, as the server API reaches them.
struct ApiShards(Arc<Mailboxes>);

impl Shards for ApiShards {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn of_path(&self, path: &str) -> usize {
        self.0.of_path(path)
    }

    fn post_all(&self, messages: Vec<(usize, ApiMessage)>) -> Result<(), ShardsBusy> {
        self.0.post_api(messages)
    }
}
