//! The keys of one direction: derived from traffic secrets, kept in few bytes, and turned into the suite's AEAD for the
//! records of one call.
//!
//! The key schedule of AES is computed for each call instead of being kept: it has more than 600 bytes, and sealing 64
//! bytes takes 0.24 us with it (`cargo bench --bench tls`). AWS-LC holds it in memory of the C allocator meanwhile; nothing
//! else is allocated for a record.

use aws_lc_rs::aead::{self, LessSafeKey, UnboundKey};
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::cipher::NONCE_LEN;
use rustls::crypto::tls13::{HkdfExpander, OkmBlock};
use rustls::{CipherSuite, ConnectionTrafficSecrets, Tls13CipherSuite};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::secrets::SECRET_BYTES_MAX;

/// The maximum size of a key: AES-256 and ChaCha20.
const KEY_BYTES_MAX: usize = 32;
/// The size of the parts of key and secret that each session has. The rest is a [`KeyTail`].
const KEY_HEAD_BYTES: usize = 16;
const SECRET_HEAD_BYTES: usize = 32;

/// The AEAD of a connection. Each AEAD has one suite in TLS 1.3 (RFC 8446 appendix B.4), whose hash derives the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-128 in Galois/Counter Mode.
    Aes128Gcm,
    /// AES-256 in Galois/Counter Mode.
    Aes256Gcm,
    /// ChaCha20 with Poly1305.
    ChaCha20Poly1305,
}

impl Cipher {
    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn key_len(self) -> usize {
        match self {
            Cipher::Aes128Gcm => 16,
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => KEY_BYTES_MAX,
        }
    }

    /// Returns the size of traffic secrets, which is that of the hash.
    fn secret_len(self) -> usize {
        match self {
            Cipher::Aes128Gcm | Cipher::ChaCha20Poly1305 => 32,
            Cipher::Aes256Gcm => SECRET_BYTES_MAX,
        }
    }

    /// Returns the AEAD of a suite of TLS 1.3.
    pub fn of_suite(suite: CipherSuite) -> Option<Cipher> {
        let all = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
        all.into_iter().find(|cipher| cipher.suite().common.suite == suite)
    }

    /// Returns true if keys or secrets have a tail, which those of AES-128-GCM do not need.
    pub fn has_tail(self) -> bool {
        self.key_len() > KEY_HEAD_BYTES
    }

    fn suite(self) -> &'static Tls13CipherSuite {
        let suite = match self {
            Cipher::Aes128Gcm => &TLS13_AES_128_GCM_SHA256,
            Cipher::Aes256Gcm => &TLS13_AES_256_GCM_SHA384,
            Cipher::ChaCha20Poly1305 => &TLS13_CHACHA20_POLY1305_SHA256,
        };
        suite.tls13().expect("the suites above are those of TLS 1.3")
    }
}

/// The keys of a direction in full length, while they are derived. They are wiped when they are dropped.
pub struct KeyMaterial {
    /// The traffic secret, or zeros with TLS 1.2.
    secret: [u8; SECRET_BYTES_MAX],
    key: [u8; KEY_BYTES_MAX],
    iv: [u8; NONCE_LEN],
}

impl KeyMaterial {
    /// Returns keys that protect nothing.
    pub fn zero() -> KeyMaterial {
        KeyMaterial { secret: [0; SECRET_BYTES_MAX], key: [0; KEY_BYTES_MAX], iv: [0; NONCE_LEN] }
    }

    /// Takes the keys that rustls extracted. Returns `None` for an AEAD that is not known.
    pub fn extracted(secrets: &ConnectionTrafficSecrets) -> Option<(Cipher, KeyMaterial)> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Cipher::ChaCha20Poly1305, key, iv),
            _ => return None,
        };
        let mut material = KeyMaterial::zero();
        material.key[..cipher.key_len()].copy_from_slice(key.as_ref());
        material.iv.copy_from_slice(iv.as_ref());
        Some((cipher, material))
    }

    /// Derives key and IV from a traffic secret (RFC 8446 section 7.3). Returns `None` if the secret has the size of
    /// another hash.
    pub fn derived(cipher: Cipher, secret: &[u8]) -> Option<KeyMaterial> {
        if secret.len() != cipher.secret_len() {
            return None;
        }
        let mut material = KeyMaterial::zero();
        material.secret[..secret.len()].copy_from_slice(secret);
        let expander = cipher.suite().hkdf_provider.expander_for_okm(&OkmBlock::new(secret));
        expand_label(&*expander, b"key", &mut material.key[..cipher.key_len()]);
        expand_label(&*expander, b"iv", &mut material.iv);
        Some(material)
    }

    /// Returns true if key and IV are the same. The time is the same for all keys only as far as it must be: this
    /// compares two keys of ours.
    pub fn has_keys_of(&self, other: &KeyMaterial) -> bool {
        self.key == other.key && self.iv == other.iv
    }
}

impl Drop for KeyMaterial {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
        self.iv.zeroize();
    }
}

/// The keys of a direction as a session keeps them: everything with AES-128-GCM, which is the usual suite, and the heads
/// of longer keys and secrets. They are wiped when they are dropped.
pub struct DirectionKeys {
    secret: [u8; SECRET_HEAD_BYTES],
    key: [u8; KEY_HEAD_BYTES],
    iv: [u8; NONCE_LEN],
}

/// The rest of a key and a secret that are longer than those of AES-128-GCM. It is wiped when it is dropped.
#[derive(Default)]
pub struct KeyTail {
    secret: [u8; SECRET_BYTES_MAX - SECRET_HEAD_BYTES],
    key: [u8; KEY_BYTES_MAX - KEY_HEAD_BYTES],
}

impl DirectionKeys {
    /// Keeps `material`: its tails in `tail`, which must be there if the cipher has tails.
    pub fn new(material: &KeyMaterial, tail: Option<&mut KeyTail>) -> DirectionKeys {
        let (secret, secret_tail) =
            material.secret.split_first_chunk().expect("a secret has the size of its head");
        let (key, key_tail) = material.key.split_first_chunk().expect("a key has the size of its head");
        if let Some(tail) = tail {
            tail.secret.copy_from_slice(secret_tail);
            tail.key.copy_from_slice(key_tail);
        }
        DirectionKeys { secret: *secret, key: *key, iv: material.iv }
    }

    /// Returns the AEAD of these keys.
    pub fn aead(&self, cipher: Cipher, tail: Option<&KeyTail>) -> LessSafeKey {
        let unbound = match tail {
            None => UnboundKey::new(cipher.algorithm(), &self.key),
            Some(tail) => {
                let mut key = Zeroizing::new([0; KEY_BYTES_MAX]);
                key[..KEY_HEAD_BYTES].copy_from_slice(&self.key);
                key[KEY_HEAD_BYTES..].copy_from_slice(&tail.key);
                UnboundKey::new(cipher.algorithm(), &*key)
            }
        };
        LessSafeKey::new(unbound.expect("the key has the size of its cipher"))
    }

    /// Returns the IV.
    pub fn iv(&self) -> &[u8; NONCE_LEN] {
        &self.iv
    }

    /// Derives the next traffic secret and its keys (RFC 8446 section 7.2).
    pub fn next(&self, cipher: Cipher, tail: Option<&KeyTail>) -> KeyMaterial {
        let mut secret = Zeroizing::new([0; SECRET_BYTES_MAX]);
        secret[..SECRET_HEAD_BYTES].copy_from_slice(&self.secret);
        if let Some(tail) = tail {
            secret[SECRET_HEAD_BYTES..].copy_from_slice(&tail.secret);
        }
        let secret = &mut secret[..cipher.secret_len()];
        let expander = cipher.suite().hkdf_provider.expander_for_okm(&OkmBlock::new(secret));
        expand_label(&*expander, b"traffic upd", secret);
        KeyMaterial::derived(cipher, secret).expect("the secret has the size of its cipher")
    }
}

impl Drop for DirectionKeys {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
        self.iv.zeroize();
    }
}

impl Drop for KeyTail {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.key.zeroize();
    }
}

impl ZeroizeOnDrop for KeyMaterial {}
impl ZeroizeOnDrop for DirectionKeys {}
impl ZeroizeOnDrop for KeyTail {}

/// Fills `output` with HKDF-Expand-Label, without a context (RFC 8446 section 7.1).
fn expand_label(expander: &dyn HkdfExpander, label: &[u8], output: &mut [u8]) {
    const PREFIX: &[u8] = b"tls13 ";
    let len = u16::try_from(output.len()).expect("keys are short").to_be_bytes();
    let label_len = [u8::try_from(PREFIX.len() + label.len()).expect("labels are short")];
    let context_len = [0];
    let info: [&[u8]; 5] = [&len, &label_len, PREFIX, label, &context_len];
    expander.expand_slice(&info, output).expect("a key is shorter than 255 hashes");
}
