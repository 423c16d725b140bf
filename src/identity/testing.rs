//! Keys that sign tokens, for tests.

use super::{Algorithm, AuthKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair};
use aws_lc_rs::{encoding, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::sync::LazyLock;

/// A key that signs, of one algorithm.
pub(crate) struct TestSigner {
    algorithm: Algorithm,
    key: SigningKey,
}

enum SigningKey {
    Secret(Vec<u8>),
    Rsa(&'static RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// An RSA key: making one takes long.
static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"));

impl TestSigner {
    pub fn new(algorithm: Algorithm) -> TestSigner {
        let key = match algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => SigningKey::Secret(vec![7; 64]),
            Algorithm::Es256 => SigningKey::Ec(
                EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            ),
            Algorithm::Es384 => SigningKey::Ec(
                EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"),
            ),
            Algorithm::EdDsa => SigningKey::Ed(Ed25519KeyPair::generate().expect("a key")),
            _ => SigningKey::Rsa(&RSA),
        };
        TestSigner { algorithm, key }
    }

    /// A signer with another secret than that of [`TestSigner::new`].
    pub fn with_secret(algorithm: Algorithm, secret: &[u8]) -> TestSigner {
        TestSigner { algorithm, key: SigningKey::Secret(secret.to_vec()) }
    }

    /// The key that verifies what this one signs.
    pub fn verifier(&self, id: &str) -> AuthKey {
        match &self.key {
            SigningKey::Secret(secret) => AuthKey::from_secret(id, self.algorithm, secret),
            _ => AuthKey::from_pem(id, self.algorithm, self.public_pem().as_bytes()),
        }
        .expect("the key is for its algorithm")
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match &self.key {
            SigningKey::Secret(_) => panic!("a secret has no public key"),
            SigningKey::Rsa(key) => key.public_key().as_der(),
            SigningKey::Ec(key) => key.public_key().as_der(),
            SigningKey::Ed(key) => key.public_key().as_der(),
        }
        .expect("a public key");
        let text = STANDARD.encode(der.as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    /// The public key of a curve, as bytes.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.key {
            SigningKey::Ec(key) => key.public_key().as_ref().to_vec(),
            SigningKey::Ed(key) => key.public_key().as_ref().to_vec(),
            _ => panic!("only keys of curves have such bytes"),
        }
    }

    /// The private key of an RSA signer in PKCS #8, as PEM.
    pub fn private_pem() -> String {
        let der: encoding::Pkcs8V1Der<'_> = RSA.as_der().expect("a private key");
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    /// A token with these claims and the header of the algorithm, and this `kid`.
    pub fn token(&self, kid: Option<&str>, claims: &str) -> String {
        let kid = kid.map(|kid| format!(r#","kid":"{kid}""#)).unwrap_or_default();
        self.sign(&format!(r#"{{"typ":"JWT","alg":"{}"{kid}}}"#, self.algorithm), claims)
    }

    /// A token with this header and these claims.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signature(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            SigningKey::Secret(secret) => {
                let algorithm = match self.algorithm {
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    Algorithm::Hs512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
            }
            SigningKey::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match self.algorithm {
                    Algorithm::Rs384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &SystemRandom::new(), message, &mut signature).expect("a signature");
                signature
            }
            SigningKey::Ec(key) => {
                key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
            }
            SigningKey::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}
