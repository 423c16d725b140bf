//! Keys from the files that the settings name.

use crate::config::{AuthKeySource, Config, FileSecret, SecretError};
use crate::identity::{Algorithm, AuthKey, KeyError, TokenPolicy};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// The maximum size of the file of a public key, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The reason why the keys of the settings cannot be used. Each names the setting and the file.
#[derive(Debug, Error)]
pub enum AuthError {
    #[error(
        "auth needs keys, or an application that knows clients, but there is no [[auth-keys]] in the settings file, and no \
         application that authenticates: add a key, or the event connect to events of [app-settings.webhook], or set auth to \
         off"
    )]
    Nobody,
    #[error("{0}")]
    Secret(#[from] SecretError),
    #[error(
        "cannot read {} ({needed_by}): {source}. The server's user must be able to read it; a path without a slash at its \
         beginning is relative to the working directory of the server", .path.display()
    )]
    Read { needed_by: String, path: PathBuf, source: io::Error },
    #[error("{} ({needed_by}): {problem}", .path.display())]
    Key { needed_by: String, path: PathBuf, problem: KeyError },
}

/// The keys of the settings.
pub(super) struct LoadedKeys {
    pub files: Vec<Arc<AuthKey>>,
    pub sets: Vec<PublishedKeys>,
    pub policy: TokenPolicy,
    pub warnings: Vec<String>,
}

/// A key set that is fetched from an address.
#[derive(Clone, Debug)]
pub(super) struct PublishedKeys {
    /// The name of the entry, for the log.
    pub id: String,
    pub url: String,
    pub algorithm: Algorithm,
    /// The keys that were fetched last.
    pub keys: Vec<Arc<AuthKey>>,
}

/// Loads the keys. Those of addresses are not fetched.
pub(super) fn load(config: &Config) -> Result<LoadedKeys, AuthError> {
    let mut loaded =
        LoadedKeys { files: Vec::new(), sets: Vec::new(), policy: policy(config), warnings: Vec::new() };
    for (index, entry) in config.auth_keys.iter().enumerate() {
        let needed_by = |key: &str| format!("{key} of [[auth-keys]] number {}", index + 1);
        let problem = |key: &str, path: &Path, problem| AuthError::Key {
            needed_by: needed_by(key),
            path: path.to_owned(),
            problem,
        };
        match &entry.source {
            AuthKeySource::SecretFile(path) => {
                let secret = FileSecret::read(path, 1, &needed_by("secret-file"))?;
                loaded.warnings.extend(secret.warning);
                let key = AuthKey::from_secret(&entry.id, entry.algorithm, &secret.bytes);
                loaded.files.push(Arc::new(key.map_err(|error| problem("secret-file", path, error))?));
            }
            AuthKeySource::PublicKeyFile(path) => {
                let pem = read(path, &needed_by("public-key-file"))?;
                let key = AuthKey::from_pem(&entry.id, entry.algorithm, &pem);
                loaded.files.push(Arc::new(key.map_err(|error| problem("public-key-file", path, error))?));
            }
            AuthKeySource::JwksUrl(url) => loaded.sets.push(PublishedKeys {
                id: entry.id.clone(),
                url: url.clone(),
                algorithm: entry.algorithm,
                keys: Vec::new(),
            }),
        }
    }
    Ok(loaded)
}

/// Checks that somebody can authenticate: there is a key, or an application that does (`is_asked`).
pub(super) fn check_any(config: &Config, is_asked: bool) -> Result<(), AuthError> {
    let is_any = is_asked || !config.auth_keys.is_empty();
    if is_any { Ok(()) } else { Err(AuthError::Nobody) }
}

/// Checks the keys as far as possible without a server. Returns warnings.
pub(in crate::server) fn check(config: &Config, is_asked: bool) -> Result<Vec<String>, AuthError> {
    check_any(config, is_asked)?;
    load(config).map(|loaded| loaded.warnings)
}

fn policy(config: &Config) -> TokenPolicy {
    TokenPolicy {
        audience: config.auth_audience.clone(),
        issuer: config.auth_issuer.clone(),
        leeway: config.auth_leeway.as_secs(),
    }
}

fn read(path: &Path, needed_by: &str) -> Result<Vec<u8>, AuthError> {
    let unreadable =
        |source| AuthError::Read { needed_by: needed_by.to_owned(), path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(unreadable(io::Error::other("it is too long for a public key")));
    }
    Ok(bytes)
}
