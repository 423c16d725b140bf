//! Who a client is: tokens (JSON Web Tokens, RFC 7519), the keys that they are signed with, and what they say. There is no
//! I/O here, and no clock: the caller gives the bytes of keys, and the time.
//!
//! | file | content |
//! | --- | --- |
//! | `algorithm` | the algorithms of signatures |
//! | `keys`, `jwks` | keys, each with exactly one algorithm; keys in a JSON Web Key Set |
//! | `token` | a token and its key; verification |
//! | `claims` | what a token says, and the checks of it |
//! | `seen` | tokens that were verified recently |
//! | `error` | the reasons for refusing a token or a key |
//!
//! ```
//! use quickio::identity::{Algorithm, AuthKey, KeySet, TokenPolicy};
//!
//! let key = AuthKey::from_secret("2026", Algorithm::Hs256, &[7; 32]).expect("a key of 32 bytes");
//! let keys = KeySet::new(vec![key], TokenPolicy::default());
//! let token = keys.open("eyJhbGciOiJub25lIn0.eyJzdWIiOiI3In0.");
//! assert_eq!(token.unwrap_err().message(), "token invalid");
//! ```

mod algorithm;
mod claims;
mod error;
mod jwks;
mod keys;
mod seen;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod token;

pub use algorithm::Algorithm;
pub use claims::TokenPolicy;
pub use error::{Flaw, KeyError, TokenError};
pub use jwks::{SkippedKeys, keys_of_jwks};
pub use keys::{AuthKey, KeyMark, KeySet};
pub use seen::{Seen, SeenTokens, TokenDigest};
pub use token::OpenToken;

use crate::rules::Pattern;

/// What a verified token says about its client. It is shared by all that need it, and never changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user: the claim `sub`.
    pub user: Box<str>,
    /// The time at which the token expires, in Unix seconds: the claim `exp`. `None` for a token that does not.
    pub expires: Option<u64>,
    /// All claims, as one JSON object, as the token has them.
    pub claims: Box<str>,
    /// The patterns of the paths that the token permits to subscribe to: `qio.on`.
    pub on: Box<[Pattern]>,
    /// The patterns of the paths that the token permits to send to: `qio.send`.
    pub send: Box<[Pattern]>,
    /// What others may know of the client, as JSON: `qio.info`.
    pub info: Option<Box<str>>,
}

impl Identity {
    /// Returns the identity of a user that somebody vouches for who is trusted, until `expires` in Unix seconds. `claims` is a
    /// JSON object that applications can read; without it, there are the claims `sub` and `exp`. `permissions` is JSON in the
    /// form of the claim `qio`: `{"on": [patterns], "send": [patterns], "info": any}`.
    ///
    /// ```
    /// use quickio::identity::Identity;
    ///
    /// let identity = Identity::vouched("7", None, None, Some(r#"{"on": ["/room/*"]}"#)).unwrap();
    /// assert_eq!((&*identity.user, &*identity.claims, identity.on.len()), ("7", r#"{"sub":"7"}"#, 1));
    /// ```
    ///
    /// # Errors
    ///
    /// The user is empty or too long, another part does not have its form, or all of it is longer than a token may be.
    pub fn vouched(
        user: &str,
        expires: Option<u64>,
        claims: Option<&str>,
        permissions: Option<&str>,
    ) -> Result<Identity, TokenError> {
        claims::checked(user, expires, claims, permissions)
    }

    /// Returns the memory in bytes that the identity takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |pattern: &Pattern| size_of::<Pattern>() + pattern.as_str().len();
        let patterns = |list: &[Pattern]| list.iter().map(bytes).sum::<usize>();
        let texts = self.user.len() + self.claims.len() + self.info.as_deref().map_or(0, str::len);
        size_of::<Identity>() + texts + patterns(&self.on) + patterns(&self.send)
    }

    /// Returns whether the token has expired at this time, in Unix seconds.
    #[must_use]
    pub fn has_expired(&self, now: u64, leeway: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires.saturating_add(leeway))
    }
}
