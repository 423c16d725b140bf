//! The keys of the server API, which are read from the files that the settings name.

use crate::api::{ApiKey, KeySecretError, SECRET_BYTES_MIN};
use crate::config::{ApiKeySetting, FileSecret, SecretError};
use std::path::PathBuf;
use thiserror::Error;

/// An error of the keys of the server API.
#[derive(Debug, Error)]
pub enum ApiKeyError {
    #[error(
        "the server API needs a key (setting api): add a section [[api-keys]] with name, secret-file and scopes to the \
         settings file, or set api = \"off\""
    )]
    NoKeys,
    #[error("{0}")]
    File(#[from] SecretError),
    #[error("the API key {name} has no secret that can be used, in {}: {error} (secret-file of [[api-keys]])", .path.display())]
    Secret { name: String, path: PathBuf, error: KeySecretError },
    #[error(
        "the API keys {one} and {other} have the same secret; give each a secret of its own (secret-file of [[api-keys]])"
    )]
    SameSecret { one: String, other: String },
}

/// Reads the keys of the settings.
pub(super) fn read_keys(settings: &[ApiKeySetting]) -> Result<Vec<ApiKey>, ApiKeyError> {
    let mut keys: Vec<ApiKey> = Vec::new();
    for setting in settings {
        let needed_by = format!("secret-file of [[api-keys]] {}", setting.name);
        let secret = FileSecret::read(&setting.secret_file, SECRET_BYTES_MIN, &needed_by)?;
        secret.warning.iter().for_each(|warning| tracing::warn!("{warning}"));
        let key = ApiKey::new(&setting.name, &secret.bytes, setting.scopes.iter().copied().collect());
        let key = key.map_err(|error| ApiKeyError::Secret {
            name: setting.name.clone(),
            path: setting.secret_file.clone(),
            error,
        })?;
        if let Some(same) = keys.iter().find(|other| other.has_same_secret(&key)) {
            return Err(ApiKeyError::SameSecret {
                one: same.name().to_string(),
                other: setting.name.clone(),
            });
        }
        keys.push(key);
    }
    if keys.is_empty() { Err(ApiKeyError::NoKeys) } else { Ok(keys) }
}
