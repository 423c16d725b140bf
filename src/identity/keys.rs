//! The keys that tokens are signed with. Each has exactly one algorithm, which a token cannot choose.

use super::Identity;
use super::algorithm::{Algorithm, KeyFamily};
use super::claims::{self, TokenPolicy};
use super::error::{KeyError, TokenError};
use ahash::{AHashMap, AHashSet};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::ParsedPublicKey;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::sync::Arc;

/// A key that verifies tokens.
pub struct AuthKey {
    /// The name that tokens give as their `kid`. `None` for a key of a key set that has no name there.
    pub(super) id: Option<Box<str>>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    mark: KeyMark,
}

/// A number that stands for a key and its algorithm. The same key has the same number when it is loaded again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyMark(u64);

impl AuthKey {
    /// Returns a key that is a secret, which whoever signs tokens has too.
    ///
    /// # Errors
    ///
    /// The algorithm needs a public key, or the secret is too short.
    pub fn from_secret(id: &str, algorithm: Algorithm, secret: &[u8]) -> Result<AuthKey, KeyError> {
        let min = algorithm.secret_bytes_min();
        if !algorithm.is_symmetric() {
            return Err(KeyError::NeedsPublicKey { algorithm });
        }
        if secret.len() < min {
            return Err(KeyError::SecretTooShort { algorithm, len: secret.len(), min });
        }
        Ok(AuthKey::new(Some(id), algorithm, DecodingKey::from_secret(secret)))
    }

    /// Returns a public key in PEM.
    ///
    /// # Errors
    ///
    /// The algorithm needs a secret, or the text is not a public key for it.
    pub fn from_pem(id: &str, algorithm: Algorithm, pem: &[u8]) -> Result<AuthKey, KeyError> {
        if pem.windows(PRIVATE.len()).any(|text| text == PRIVATE) {
            return Err(KeyError::PrivateKey);
        }
        if algorithm.is_symmetric() {
            return Err(KeyError::NeedsSecret { algorithm });
        }
        let parsed = SubjectPublicKeyInfoDer::from_pem_slice(pem);
        let der = parsed.map_err(|error| KeyError::Pem { algorithm, problem: error.to_string() })?;
        let key = match algorithm.family() {
            KeyFamily::Secret | KeyFamily::Rsa => DecodingKey::from_rsa_der(&der),
            KeyFamily::P256 | KeyFamily::P384 => DecodingKey::from_ec_der(&der),
            KeyFamily::Ed25519 => DecodingKey::from_ed_der(&der),
        };
        AuthKey::checked(Some(id), algorithm, key)
    }

    /// Returns a public key, if it is one for the algorithm.
    pub(super) fn checked(
        id: Option<&str>,
        algorithm: Algorithm,
        key: DecodingKey,
    ) -> Result<AuthKey, KeyError> {
        let fits = match (key.kind(), algorithm.verifier()) {
            (DecodingKeyKind::SecretOrDer(bytes), Some(verifier)) => {
                ParsedPublicKey::new(verifier, bytes).is_ok()
            }
            (DecodingKeyKind::RsaModulusExponent { n, e }, Some(_)) => {
                algorithm.family() == KeyFamily::Rsa
                    && RSA_BYTES.contains(&significant(n))
                    && significant(e) <= 4
            }
            (_, None) => false,
        };
        if fits { Ok(AuthKey::new(id, algorithm, key)) } else { Err(KeyError::WrongKind { algorithm }) }
    }

    fn new(id: Option<&str>, algorithm: Algorithm, key: DecodingKey) -> AuthKey {
        let mark = KeyMark::of(algorithm, &key);
        AuthKey { id: id.map(Box::from), algorithm, key, mark }
    }

    /// Returns the number that stands for the key.
    #[must_use]
    pub fn mark(&self) -> KeyMark {
        self.mark
    }

    /// Returns the name of the key.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the algorithm of the key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// The text that a private key in PEM has.
const PRIVATE: &[u8] = b"PRIVATE KEY-----";

/// The lengths of the moduli of RSA keys that are accepted, in bytes: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Returns the number of bytes behind leading zeros.
fn significant(number: &[u8]) -> usize {
    number.iter().skip_while(|byte| **byte == 0).count()
}

impl KeyMark {
    fn of(algorithm: Algorithm, key: &DecodingKey) -> KeyMark {
        let mut material = algorithm.name().as_bytes().to_vec();
        match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => material.extend_from_slice(bytes),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                material.extend_from_slice(&(n.len() as u64).to_be_bytes());
                material.extend_from_slice(n);
                material.extend_from_slice(e);
            }
        }
        let digest = digest(&SHA256, &material);
        let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        KeyMark(u64::from_ne_bytes(*first))
    }
}

impl fmt::Debug for AuthKey {
    /// Shows no part of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The keys that are valid at a time, and what tokens must say. A change makes a new set.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Arc<AuthKey>>,
    by_id: AHashMap<Box<str>, Arc<AuthKey>>,
    marks: AHashSet<KeyMark>,
    policy: TokenPolicy,
    may_grow: bool,
}

impl KeySet {
    /// Returns a set of these keys. If two have the same name, the first one has it.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = impl Into<Arc<AuthKey>>>, policy: TokenPolicy) -> KeySet {
        let keys: Vec<Arc<AuthKey>> = keys.into_iter().map(Into::into).collect();
        let mut by_id = AHashMap::new();
        for key in &keys {
            if let Some(id) = &key.id {
                by_id.entry(id.clone()).or_insert_with(|| Arc::clone(key));
            }
        }
        let marks = keys.iter().map(|key| key.mark).collect();
        KeySet { keys, by_id, marks, policy, may_grow: false }
    }

    /// Returns the set as one that may get further keys: some are fetched from an address.
    #[must_use]
    pub fn growing(self) -> KeySet {
        KeySet { may_grow: true, ..self }
    }

    /// Returns whether a key that is not in the set may be fetched.
    #[must_use]
    pub fn may_grow(&self) -> bool {
        self.may_grow
    }

    /// Returns what tokens must say.
    #[must_use]
    pub fn policy(&self) -> &TokenPolicy {
        &self.policy
    }

    /// Checks what a token says that was verified before, when other things may have been wanted of tokens, at a time in Unix
    /// seconds.
    ///
    /// # Errors
    ///
    /// The token is not accepted.
    pub fn check_again(&self, identity: &Identity, now: u64) -> Result<(), TokenError> {
        claims::check(identity.claims.to_string(), &self.policy, now).map(drop)
    }

    /// Returns whether a key is in the set.
    #[must_use]
    pub fn has(&self, mark: KeyMark) -> bool {
        self.marks.contains(&mark)
    }

    /// Returns the keys.
    #[must_use]
    pub fn keys(&self) -> &[Arc<AuthKey>] {
        &self.keys
    }

    /// Returns the key of this name. Without a name, returns the only key of this algorithm, if there is exactly one.
    pub(super) fn find(&self, id: Option<&str>, algorithm: &str) -> Option<&Arc<AuthKey>> {
        if let Some(id) = id {
            return self.by_id.get(id);
        }
        let mut of_algorithm = self.keys.iter().filter(|key| key.algorithm.name() == algorithm);
        let key = of_algorithm.next()?;
        of_algorithm.next().is_none().then_some(key)
    }
}
