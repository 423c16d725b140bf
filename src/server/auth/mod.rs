//! The keys that verify the tokens of clients, the thread that verifies those whose algorithm is slow, and the application that
//! is asked about those that no key is for.
//!
//! | file | content |
//! | --- | --- |
//! | `keys` | keys from the files that the settings name |
//! | `store` | the keys in use: those of files, and those that were fetched last |
//! | `fetch` | fetching of published key sets, on the control executor |
//! | `verifier` | the thread that verifies tokens |
//! | `asked` | the clients that an application is asked about |
//! | `results` | the way of results to the shards |

mod asked;
mod fetch;
mod keys;
mod results;
mod store;
mod verifier;

pub use self::keys::AuthError;
pub(super) use self::keys::check;

use self::asked::AskedClients;
use self::fetch::FetchRequests;
use self::store::KeyStore;
use self::verifier::Verifier;
use super::mailboxes::Mailboxes;
use crate::app::Authenticate;
use crate::config::{AuthMode, Config};
use crate::identity::KeySet;
use crate::limits::AUTH_PENDING_MAX;
use crate::qev::control::ControlExecutor;
use crate::shard::{AuthParts, ControlMessage, VerifyTokens};
use std::io;
use std::sync::Arc;

/// The keys of a server whose clients can authenticate.
pub(super) struct AuthService {
    store: Arc<KeyStore>,
    verifier: Arc<Verifier>,
    /// The headers that say who a client is, by their places in `app-headers`, if an application is asked.
    asks: Option<Arc<[u8]>>,
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
    /// Loads the keys of the settings. Returns `None` if nobody can authenticate. `authenticator`: the application that is asked
    /// about what no key verifies.
    pub fn load(
        config: &Config,
        shards: usize,
        authenticator: Option<Arc<dyn Authenticate>>,
    ) -> Result<Option<AuthService>, AuthError> {
        if config.auth == AuthMode::Off {
            if authenticator.is_some() {
                tracing::warn!(
                    "an application authenticates clients, but is never asked, because auth is off; set auth to optional or \
                     required"
                );
            }
            return Ok(None);
        }
        let loaded = keys::load(config)?;
        keys::check_any(config, authenticator.is_some())?;
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let store = Arc::new(KeyStore::new(loaded));
        let asks = authenticator.as_deref().map(|authenticator| credential_places(authenticator, config));
        let asked = authenticator.map(|authenticator| {
            AskedClients::new(authenticator, config.auth_timeout, shards * AUTH_PENDING_MAX)
        });
        let verifier = Verifier::new(Arc::clone(&store), shards, config.auth_cache_bytes_max, asked);
        Ok(Some(AuthService { store, verifier: Arc::new(verifier), asks }))
    }

    /// Returns what shards need for tokens.
    pub fn parts(&self) -> AuthParts {
        let verifier = Arc::clone(&self.verifier) as Arc<dyn VerifyTokens>;
        AuthParts { keys: self.store.keys(), verifier, asks: self.asks.clone() }
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
        let checked = keys::check_any(config, self.asks.is_some());
        let loaded = checked.and_then(|()| keys::load(config)).inspect_err(|error| {
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

/// Returns the places in `app-headers` of the headers that say who a client is.
fn credential_places(authenticator: &dyn Authenticate, config: &Config) -> Arc<[u8]> {
    let names = authenticator.credential_headers();
    let is_credential = |name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    let places = config.app_headers.iter().enumerate().filter(|(_, name)| is_credential(name));
    places.map(|(place, _)| place as u8).collect()
}
