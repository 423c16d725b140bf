//! A token and its key, and the verification.

use super::Identity;
use super::claims;
use super::error::{Flaw, TokenError};
use super::keys::{AuthKey, KeyMark, KeySet};
use crate::limits::AUTH_TOKEN_BYTES_MAX;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::sync::Arc;

/// A token whose key is known, and whose signature was not verified.
#[derive(Debug)]
pub struct OpenToken<'t> {
    key: Arc<AuthKey>,
    /// The parts that are signed: header and claims.
    message: &'t str,
    claims: &'t str,
    signature: &'t str,
}

/// The parts of a token's header that decide something (RFC 7515, 4.1).
#[derive(Deserialize)]
struct TokenHeader<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<Cow<'a, str>>,
    /// Extensions that must be understood. There are none that the server does.
    crit: Option<IgnoredAny>,
    /// The claims may not be encoded (RFC 7797).
    b64: Option<IgnoredAny>,
    /// The claims may be encrypted or compressed (RFC 7516).
    enc: Option<IgnoredAny>,
    zip: Option<IgnoredAny>,
}

impl KeySet {
    /// Finds the key of a token. The token is not verified yet.
    ///
    /// # Errors
    ///
    /// The token is malformed, or no key is for it.
    pub fn open<'t>(&self, token: &'t str) -> Result<OpenToken<'t>, TokenError> {
        let [header, claims, signature] = parts(token)?;
        let decoded = decode(header)?;
        let header: TokenHeader<'_> =
            serde_json::from_slice(&decoded).map_err(|_| TokenError::Invalid(Flaw::Header))?;
        let is_plain =
            header.crit.is_none() && header.b64.is_none() && header.enc.is_none() && header.zip.is_none();
        if !is_plain {
            return Err(TokenError::Invalid(Flaw::Header));
        }
        let key = self.find(header.kid.as_deref(), &header.alg);
        let key = key.ok_or(TokenError::Invalid(Flaw::UnknownKey))?;
        // The key decides. A token that names another algorithm was made to be taken for something else.
        if key.algorithm.name() != header.alg {
            return Err(TokenError::Invalid(Flaw::Algorithm));
        }
        let message = &token[..token.len() - signature.len() - 1];
        Ok(OpenToken { key: Arc::clone(key), message, claims, signature })
    }

    /// Returns what a token says about its client if its signature is right, which is not verified. The claims are checked at a
    /// time in Unix seconds. For explanations: nobody is authenticated by it.
    ///
    /// # Errors
    ///
    /// The token is malformed, or its claims are not accepted.
    pub fn read_unverified(&self, token: &str, now: u64) -> Result<Identity, TokenError> {
        let [_, claims, _] = parts(token)?;
        check_claims(claims, self, now)
    }
}

impl OpenToken<'_> {
    /// Returns whether the verification takes only a few microseconds: the key is a secret.
    #[must_use]
    pub fn is_fast(&self) -> bool {
        self.key.algorithm.is_symmetric()
    }

    /// Returns the number that stands for the key.
    #[must_use]
    pub fn key_mark(&self) -> KeyMark {
        self.key.mark()
    }

    /// Verifies the signature, and checks the claims at a time in Unix seconds.
    ///
    /// # Errors
    ///
    /// The token is not accepted.
    pub fn verify(&self, keys: &KeySet, now: u64) -> Result<Identity, TokenError> {
        let (key, algorithm) = (&self.key.key, self.key.algorithm.of_crate());
        let verified = jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, algorithm);
        if !verified.unwrap_or(false) {
            return Err(TokenError::Invalid(Flaw::Signature));
        }
        check_claims(self.claims, keys, now)
    }
}

/// Returns the header, the claims and the signature, as they are encoded.
fn parts(token: &str) -> Result<[&str; 3], TokenError> {
    if token.len() > AUTH_TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid(Flaw::TooLong));
    }
    let split = |text| str::split_once(text, '.').ok_or(TokenError::Invalid(Flaw::Form));
    let (header, rest) = split(token)?;
    let (claims, signature) = split(rest)?;
    if signature.contains('.') {
        Err(TokenError::Invalid(Flaw::Form))
    } else {
        Ok([header, claims, signature])
    }
}

fn check_claims(encoded: &str, keys: &KeySet, now: u64) -> Result<Identity, TokenError> {
    let claims = String::from_utf8(decode(encoded)?);
    claims::check(claims.map_err(|_| TokenError::Invalid(Flaw::Claims))?, keys.policy(), now)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Invalid(Flaw::Form))
}
