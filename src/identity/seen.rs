//! Tokens that were verified recently: after a restart of a proxy or a network, a hundred thousand clients come back with
//! tokens that the server has just verified.

use super::Identity;
use super::keys::{KeyMark, KeySet};
use ahash::AHashMap;
use aws_lc_rs::digest::{SHA256, digest};
use std::sync::Arc;

/// The SHA-256 of a token: two tokens never have the same, and what is kept is no use to anybody who reads memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Returns the digest of a token.
    #[must_use]
    pub fn of(token: &str) -> TokenDigest {
        let digest = digest(&SHA256, token.as_bytes());
        TokenDigest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// A token that was verified.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the token says.
    pub identity: Arc<Identity>,
    /// The key that has verified it.
    pub key: KeyMark,
}

/// The memory in bytes that an entry takes in addition to its identity.
const ENTRY_BYTES: usize = 2 * (size_of::<TokenDigest>() + size_of::<Seen>());

/// Tokens that were verified recently, within a bound of memory.
///
/// They are in two generations. When the younger one has half of the memory, it becomes the older one, and the older one
/// is dropped. A token that is seen again moves to the younger one. What is dropped is therefore what was not seen for
/// long, and no order has to be kept.
///
/// Invariants, which [`check`](SeenTokens::check) asserts: the bytes of each generation are the costs of its entries, and
/// at most half of the maximum.
#[derive(Debug)]
pub struct SeenTokens {
    young: Generation,
    old: Generation,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Generation {
    tokens: AHashMap<TokenDigest, Seen>,
    bytes: usize,
}

impl SeenTokens {
    /// Returns a memory of tokens that takes at most this many bytes. 0 remembers none.
    #[must_use]
    pub fn new(bytes_max: usize) -> SeenTokens {
        SeenTokens { young: Generation::default(), old: Generation::default(), bytes_max }
    }

    /// Returns what a token says that was verified with a key that is still in use. It may have expired since.
    pub fn get(&mut self, token: &TokenDigest, keys: &KeySet) -> Option<Arc<Identity>> {
        let is_valid = |seen: &Seen| keys.has(seen.key);
        if let Some(seen) = self.young.tokens.get(token) {
            return is_valid(seen).then(|| Arc::clone(&seen.identity));
        }
        let seen = self.old.tokens.remove(token)?;
        self.old.bytes -= cost(&seen);
        if !is_valid(&seen) {
            return None;
        }
        let identity = Arc::clone(&seen.identity);
        self.insert(*token, seen);
        Some(identity)
    }

    /// Remembers a token that was verified.
    pub fn insert(&mut self, token: TokenDigest, seen: Seen) {
        let cost = cost(&seen);
        if cost > self.bytes_max / 2 {
            return;
        }
        if self.young.bytes + cost > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += cost;
        if let Some(before) = self.young.tokens.insert(token, seen) {
            self.young.bytes -= self::cost(&before);
        }
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        (self.young, self.old) = (Generation::default(), Generation::default());
    }

    /// Returns the memory in bytes that the tokens take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    /// Returns the number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.tokens.len() + self.old.tokens.len()
    }

    /// Returns whether no token is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asserts the invariants. Linear in the number of tokens.
    pub fn check(&self) {
        for generation in [&self.young, &self.old] {
            let bytes: usize = generation.tokens.values().map(cost).sum();
            assert_eq!(generation.bytes, bytes, "the bytes of the tokens that were seen");
            assert!(bytes <= self.bytes_max / 2, "too many tokens are remembered");
        }
    }
}

fn cost(seen: &Seen) -> usize {
    ENTRY_BYTES + seen.identity.bytes()
}
