//! The keys that verify the tokens of clients, and the thread that verifies those whose algorithm is slow.
//!
//! | file | content |
//! | --- | --- |
//! | `keys` | keys from the files that the settings name |
//! | `store` | the keys in use: those of files, and those that were fetched last |
//! | `fetch` | fetching of published key sets, on the control executor |
//! | `verifier` | the thread that verifies tokens |

mod fetch;
mod keys;
mod store;
mod verifier;

pub use self::keys::AuthError;
pub(super) use self::keys::check;

use self::fetch::FetchRequests;
use self::store::KeyStore;
use self::verifier::Verifier;
use super::mailboxes::Mailboxes;
use crate::config::{AuthMode, Config};
use crate::identity::KeySet;
use crate::qev::control::ControlExecutor;
use crate::shard::{AuthParts, ControlMessage, VerifyTokens};
use std::io;
use std::sync::Arc;

/// The keys of a server whose clients can authenticate.
pub(super) struct AuthService {
    store: Arc<KeyStore>,
    verifier: Arc<Verifier>,
}

/// Returns the keys of files that the settings name. Those of addresses are not fetched: the set then
/// [may grow](KeySet::may_grow).
pub(super) fn keys_of_files(config: &Config) -> Result<Arc<KeySet>, AuthError> {
    Ok(KeyStore::new(keys::load(config)?).keys())
}

/// What a service needs once the shards run.
struct KeyPublisher {
    store: Arc<KeyStore>,
    mailboxes: Arc<Mailboxes>,
    verifier: Arc<Verifier>,
}

impl KeyPublisher {
    /// Has everybody use the keys of the store.
    fn publish(&self) {
        let keys = self.store.keys();
        self.verifier.keys_changed();
        let told = self.mailboxes.send_to_all(|| ControlMessage::AuthKeys(Arc::clone(&keys)));
        if told < self.mailboxes.len() {
            tracing::error!(
                told,
                shards = self.mailboxes.len(),
                "some shards are stuck and keep the old keys of tokens; restart the server"
            );
        }
    }
}

impl AuthService {
    /// Loads the keys of the settings. Returns `None` if nobody can authenticate.
    pub fn load(config: &Config, shards: usize) -> Result<Option<AuthService>, AuthError> {
        if config.auth == AuthMode::Off {
            return Ok(None);
        }
        let loaded = keys::load(config)?;
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let store = Arc::new(KeyStore::new(loaded));
        let verifier = Arc::new(Verifier::new(Arc::clone(&store), shards, config.auth_cache_bytes_max));
        Ok(Some(AuthService { store, verifier }))
    }

    /// Returns what shards need for tokens.
    pub fn parts(&self) -> AuthParts {
        AuthParts { keys: self.store.keys(), verifier: Arc::clone(&self.verifier) as Arc<dyn VerifyTokens> }
    }

    /// Starts the thread that verifies tokens.
    pub fn start(&self, mailboxes: &Arc<Mailboxes>) -> io::Result<()> {
        self.verifier.start(Arc::clone(mailboxes))
    }

    /// Starts to fetch the key sets that the settings name, if there are any.
    pub fn fetch(&self, control: &ControlExecutor, mailboxes: &Arc<Mailboxes>) {
        let requests: FetchRequests = self.verifier.take_requests();
        let publisher = KeyPublisher {
            store: Arc::clone(&self.store),
            mailboxes: Arc::clone(mailboxes),
            verifier: Arc::clone(&self.verifier),
        };
        control.spawn(move |_| fetch::run(publisher, requests));
    }

    /// Loads the keys of files again. If one cannot be used, all that were loaded before stay in use.
    pub fn reload(&self, config: &Config, mailboxes: &Arc<Mailboxes>) -> Result<(), AuthError> {
        let loaded = keys::load(config).inspect_err(|error| {
            tracing::error!(
                "the keys of tokens were not reloaded; those that were loaded before stay in use: {error}"
            );
        })?;
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let has_changed = self.store.replace(loaded);
        KeyPublisher {
            store: Arc::clone(&self.store),
            mailboxes: Arc::clone(mailboxes),
            verifier: Arc::clone(&self.verifier),
        }
        .publish();
        if has_changed {
            let keys = self.store.keys();
            let names: Vec<&str> = keys.keys().iter().map(|key| key.id().unwrap_or("-")).collect();
            tracing::info!("the keys of tokens were reloaded ({})", names.join(", "));
        }
        self.verifier.request_fetch();
        Ok(())
    }
}
