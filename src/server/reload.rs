//! The reload that SIGHUP asks for: settings that can change while the server runs are applied, and the others are named.

use crate::app::worker::ReplaceOutcome;
use crate::config::{self, AuthMode, Config, ConfigError};
use crate::log::LevelHandle;
use std::sync::Arc;

/// A function that reads the settings of the server again.
pub type ReadSettings = Box<dyn Fn() -> Result<Config, ConfigError> + Send>;

/// The settings that a reload applies. All others are used when a shard, a listener or a worker is created, or decide how
/// much memory is reserved.
const APPLIED: [&str; 4] = ["log-level", "shutdown-timeout", "rules", "api-keys"];

/// The settings of TLS. A reload applies them if the server takes TLS before and after it: the kind of a listener does not
/// change.
const APPLIED_WITH_TLS: [&str; 6] =
    ["tls-cert", "tls-key", "tls-min-version", "tls-client-ca", "tls-client-auth", "tls-ticket-key-file"];

/// The settings of tokens. A reload applies them if clients can authenticate before and after it.
const APPLIED_WITH_AUTH: [&str; 3] = ["auth-keys", "auth-audience", "auth-issuer"];

/// The reloads of a server.
pub(super) struct Reloads {
    /// `None` if the settings do not come from a command line.
    read: Option<ReadSettings>,
    level: LevelHandle,
    /// The number of applications whose workers are being replaced.
    waiting: usize,
    /// The workers of the applications that have finished.
    outcome: ReplaceOutcome,
}

impl Reloads {
    pub fn new(read: Option<ReadSettings>, level: LevelHandle) -> Reloads {
        Reloads { read, level, waiting: 0, outcome: ReplaceOutcome::default() }
    }

    /// Reads the settings again, applies those that can be applied, and logs the others. Returns the settings that are in
    /// effect. `has_workers` tells if the application of this name runs in workers, which get their new settings.
    pub fn read(
        &self,
        current: &Arc<Config>,
        has_workers: impl Fn(&str) -> bool,
    ) -> Result<Arc<Config>, ConfigError> {
        let Some(read) = &self.read else { return Ok(Arc::clone(current)) };
        let new = read()?;
        new.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let changed = config::changed(current, &new);
        let keeps_tls = !current.tls_cert.is_empty() && !new.tls_cert.is_empty();
        let keeps_auth = current.auth != AuthMode::Off && new.auth != AuthMode::Off;
        let is_applied = |name: &&str| {
            APPLIED.contains(name)
                || keeps_tls && APPLIED_WITH_TLS.contains(name)
                || keeps_auth && APPLIED_WITH_AUTH.contains(name)
        };
        let (applied, mut pending): (Vec<&str>, Vec<&str>) = changed.into_iter().partition(is_applied);
        let sections = changed_sections(current, &new);
        let (of_workers, of_others): (Vec<String>, Vec<String>) =
            sections.into_iter().partition(|name| has_workers(name));
        let sections: Vec<String> = of_others.iter().map(|name| format!("app-settings.{name}")).collect();
        pending.extend(sections.iter().map(String::as_str));
        let mut config = Config::clone(current);
        config.log_level = new.log_level;
        config.shutdown_timeout = new.shutdown_timeout;
        config.api_keys = new.api_keys;
        config.rules = new.rules;
        if keeps_tls {
            config.tls_cert = new.tls_cert;
            config.tls_key = new.tls_key;
            config.tls_min_version = new.tls_min_version;
            config.tls_client_ca = new.tls_client_ca;
            config.tls_client_auth = new.tls_client_auth;
            config.tls_ticket_key_file = new.tls_ticket_key_file;
        }
        if keeps_auth {
            config.auth_keys = new.auth_keys;
            config.auth_audience = new.auth_audience;
            config.auth_issuer = new.auth_issuer;
        }
        for name in &of_workers {
            match new.app_settings.get(name) {
                Some(settings) => _ = config.app_settings.insert(name.clone(), settings.clone()),
                None => _ = config.app_settings.remove(name),
            }
        }
        self.level.set(config.log_level);
        if !applied.is_empty() {
            tracing::info!("changed settings that take effect without a restart: {}", applied.join(", "));
        }
        if !of_workers.is_empty() {
            tracing::info!("the new workers get changed settings: {}", of_workers.join(", "));
        }
        if !pending.is_empty() {
            tracing::warn!("changed settings take effect only after a restart: {}", pending.join(", "));
        }
        Ok(Arc::new(config))
    }

    /// Begins to wait for the workers of this many applications. Returns whether the reload is complete already.
    pub fn begin(&mut self, applications: usize) -> bool {
        self.waiting += applications;
        self.end_if_complete()
    }

    /// Counts the workers of an application. Returns whether the reload is complete now.
    pub fn count(&mut self, outcome: ReplaceOutcome) -> bool {
        assert!(self.waiting > 0, "an application reports once for each reload");
        self.waiting -= 1;
        self.outcome.replaced += outcome.replaced;
        self.outcome.instances += outcome.instances;
        self.end_if_complete()
    }

    fn end_if_complete(&mut self) -> bool {
        if self.waiting > 0 {
            return false;
        }
        let ReplaceOutcome { replaced, instances } = std::mem::take(&mut self.outcome);
        if replaced == instances {
            tracing::info!("the reload is complete: {replaced} of {instances} workers were replaced");
        } else {
            tracing::error!(
                "the reload has ended: {replaced} of {instances} workers were replaced, and the others keep running; the \
                 lines above have the reason"
            );
        }
        true
    }
}

/// Returns the names of the applications whose settings differ.
fn changed_sections(one: &Config, other: &Config) -> Vec<String> {
    let mut names: Vec<&String> = one.app_settings.keys().chain(other.app_settings.keys()).collect();
    names.sort();
    names.dedup();
    let differing =
        names.into_iter().filter(|name| one.app_settings.get(*name) != other.app_settings.get(*name));
    differing.cloned().collect()
}
