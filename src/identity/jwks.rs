//! Keys in a JSON Web Key Set (RFC 7517), as identity providers publish them.

use super::algorithm::{Algorithm, KeyFamily};
use super::error::KeyError;
use super::keys::AuthKey;
use crate::limits::JWKS_KEYS_MAX;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

/// The number of keys of a set that are not for the algorithm, or not for signatures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SkippedKeys(pub usize);

/// Returns the keys of a set that are for this algorithm. Others are left out: a set may have keys for encryption, and for
/// other algorithms.
///
/// # Errors
///
/// The text is not a key set, or has too many keys, or the algorithm needs a secret, which nobody may publish.
pub fn keys_of_jwks(text: &[u8], algorithm: Algorithm) -> Result<(Vec<AuthKey>, SkippedKeys), KeyError> {
    if algorithm.is_symmetric() {
        return Err(KeyError::NeedsSecret { algorithm });
    }
    let set: PublishedSet =
        serde_json::from_slice(text).map_err(|error| KeyError::NotJwks(error.to_string()))?;
    if set.keys.len() > JWKS_KEYS_MAX {
        return Err(KeyError::TooManyKeys(JWKS_KEYS_MAX));
    }
    let total = set.keys.len();
    let keys: Vec<AuthKey> = set
        .keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<PublishedKey>(key).ok()?.for_algorithm(algorithm))
        .collect();
    let skipped = SkippedKeys(total - keys.len());
    Ok((keys, skipped))
}

/// A key set. Its keys are parsed one by one: one of an unknown kind does not spoil the others.
#[derive(Deserialize)]
struct PublishedSet {
    keys: Vec<serde_json::Value>,
}

/// The members of a key that concern public keys.
#[derive(Deserialize)]
struct PublishedKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl PublishedKey {
    fn for_algorithm(&self, algorithm: Algorithm) -> Option<AuthKey> {
        let is_for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        // RFC 9864 gives the curve of EdDSA a name of its own.
        let names_it =
            |name: &str| name == algorithm.name() || algorithm == Algorithm::EdDsa && name == "Ed25519";
        if !is_for_signatures || !self.alg.as_deref().is_none_or(names_it) {
            return None;
        }
        let (kty, crv) = (self.kty.as_str(), self.crv.as_deref());
        let key = match (algorithm.family(), kty, crv) {
            (KeyFamily::Rsa, "RSA", _) => {
                DecodingKey::from_rsa_components(self.n.as_ref()?, self.e.as_ref()?)
            }
            (KeyFamily::P256, "EC", Some("P-256")) | (KeyFamily::P384, "EC", Some("P-384")) => {
                DecodingKey::from_ec_components(self.x.as_ref()?, self.y.as_ref()?)
            }
            (KeyFamily::Ed25519, "OKP", Some("Ed25519")) => DecodingKey::from_ed_components(self.x.as_ref()?),
            _ => return None,
        };
        AuthKey::checked(self.kid.as_deref(), algorithm, key.ok()?).ok()
    }
}
