//! The keys of back ends, and what each may do.

use crate::config::Scope;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The minimum length of a secret in bytes. Nobody can guess 16 random bytes.
pub const SECRET_BYTES_MIN: usize = 16;

/// The maximum length of a secret in bytes: it must fit into a header beside others.
pub const SECRET_BYTES_MAX: usize = 1024;

/// The scopes of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Returns whether a scope is among these.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Scopes {
        Scopes(scopes.into_iter().fold(0, |all, scope| all | scope as u8))
    }
}

/// A key of a back end. It holds the digest of the secret, and not the secret.
#[derive(Clone)]
pub struct ApiKey {
    name: Arc<str>,
    digest: [u8; 32],
    scopes: Scopes,
}

/// The reason why a text cannot be the secret of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySecretError {
    /// The secret is too short or too long.
    #[error(
        "the secret must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} characters; `openssl rand -hex 32` makes a good one"
    )]
    Length,
    /// The secret has a character that a header cannot carry.
    #[error("the secret must consist of visible ASCII characters; `openssl rand -hex 32` makes a good one")]
    Character,
}

impl ApiKey {
    /// Creates a key. White space around the secret, such as the line end of its file, is not a part of it.
    ///
    /// # Errors
    ///
    /// The secret is too short, too long, or cannot be sent in a header.
    pub fn new(name: &str, secret: &[u8], scopes: Scopes) -> Result<ApiKey, KeySecretError> {
        let secret = secret.trim_ascii();
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
            return Err(KeySecretError::Length);
        }
        if !secret.iter().all(u8::is_ascii_graphic) {
            return Err(KeySecretError::Character);
        }
        Ok(ApiKey { name: name.into(), digest: hash(secret), scopes })
    }

    /// Returns the name of the key.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns whether another key has the same secret.
    #[must_use]
    pub fn has_same_secret(&self, other: &ApiKey) -> bool {
        verify_slices_are_equal(&self.digest, &other.digest).is_ok()
    }

    /// Returns whether the key has a scope.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

fn hash(secret: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
    bytes
}

/// The keys of a server. Any thread may replace them. A clone is another handle of the same keys.
#[derive(Clone, Debug)]
pub struct ApiKeys(Arc<Mutex<Arc<[ApiKey]>>>);

impl ApiKeys {
    /// Begins with these keys.
    #[must_use]
    pub fn new(keys: Vec<ApiKey>) -> ApiKeys {
        ApiKeys(Arc::new(Mutex::new(keys.into())))
    }

    /// Replaces the keys, for requests that come from now on.
    pub fn set(&self, keys: Vec<ApiKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    /// Returns the key with this secret.
    ///
    /// The time that this takes depends on the number of keys and on the length of what the peer has sent, but not on the
    /// secrets: digests are compared, each with all of its bytes, and all keys are examined.
    #[must_use]
    pub fn find(&self, secret: &str) -> Option<ApiKey> {
        let keys = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let digest = hash(secret.as_bytes());
        let mut found = None;
        for key in &*keys {
            if verify_slices_are_equal(&key.digest, &digest).is_ok() {
                found = Some(key);
            }
        }
        found.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const OTHER: &str = "0123456789abcdeF";

    fn key(name: &str, secret: &str, scopes: &[Scope]) -> ApiKey {
        ApiKey::new(name, secret.as_bytes(), scopes.iter().copied().collect()).expect("the secret is valid")
    }

    #[test]
    fn a_secret_finds_its_key() {
        let keys = ApiKeys::new(vec![
            key("one", &format!("{ONE}\n"), &[Scope::Broadcast, Scope::Read]),
            key("other", OTHER, &[Scope::Send]),
        ]);
        let found = keys.find(ONE).expect("the key is there");
        assert_eq!(&**found.name(), "one");
        let has: Vec<_> = Scope::ALL.iter().map(|scope| found.has(*scope)).collect();
        assert_eq!(has, [true, false, false, true]);
        assert_eq!(&**keys.find(OTHER).expect("the key is there").name(), "other");
        for wrong in ["", "0123456789abcde", "0123456789abcdef ", "0123456789abcdef\n", "1123456789abcdef"] {
            assert!(keys.find(wrong).is_none(), "{wrong:?}");
        }
        let handle = keys.clone();
        handle.set(vec![key("new", OTHER, &[])]);
        assert!(keys.find(ONE).is_none());
        assert_eq!(&**keys.find(OTHER).expect("the key is there").name(), "new");
    }

    #[test]
    fn secrets_can_be_sent_and_cannot_be_guessed() {
        let new = |secret: &str| ApiKey::new("a", secret.as_bytes(), Scopes::default()).map(|_| ());
        assert_eq!(new(&"x".repeat(SECRET_BYTES_MIN)), Ok(()));
        assert_eq!(new(&"x".repeat(SECRET_BYTES_MAX)), Ok(()));
        assert_eq!(new(" 0123456789abcdef\r\n"), Ok(()));
        assert_eq!(new(&"x".repeat(SECRET_BYTES_MIN - 1)), Err(KeySecretError::Length));
        assert_eq!(new(&"x".repeat(SECRET_BYTES_MAX + 1)), Err(KeySecretError::Length));
        assert_eq!(new(""), Err(KeySecretError::Length));
        assert_eq!(new("0123456789 abcdef"), Err(KeySecretError::Character));
        assert_eq!(new("0123456789\u{e9}abcdef"), Err(KeySecretError::Character));
        assert!(!format!("{:?}", key("a", ONE, &[])).contains(ONE));
    }
}
