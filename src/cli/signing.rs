//! Signs tokens with the key in a file.

use crate::identity::{Algorithm, AuthKey};
use jsonwebtoken::{EncodingKey, Header};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use x509_cert::der::asn1::{AnyRef, OctetStringRef};
use x509_cert::der::{Decode, Header as DerHeader, SliceReader};

/// The maximum size of a file with a key, in bytes. A key of RSA-8192 has 6 KiB in PEM.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// Returns a token with these claims. The error is a phrase about the file.
pub(super) fn sign(
    file: &Path,
    algorithm: Algorithm,
    key_id: Option<&str>,
    claims: &Value,
) -> Result<String, String> {
    if fs::metadata(file).map_err(|error| error.to_string())?.len() > KEY_BYTES_MAX {
        return Err(format!("it has more than {KEY_BYTES_MAX} bytes"));
    }
    let content = fs::read(file).map_err(|error| error.to_string())?;
    let key = if algorithm.is_symmetric() {
        secret(algorithm, &content)?
    } else {
        private_key(algorithm, &content)?
    };
    let name = jsonwebtoken::Algorithm::from_str(algorithm.name()).expect("the crate has all of them");
    let header = Header { kid: key_id.map(str::to_owned), ..Header::new(name) };
    jsonwebtoken::encode(&header, claims, &key)
        .map_err(|error| format!("it is no private key for {algorithm}: {error}"))
}

fn secret(algorithm: Algorithm, content: &[u8]) -> Result<EncodingKey, String> {
    if content.starts_with(b"-----BEGIN ") {
        return Err("it is a key in PEM, not a secret; name its --algorithm".into());
    }
    let secret = content.strip_suffix(b"\n").unwrap_or(content);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    // The server would refuse it too.
    AuthKey::from_secret("", algorithm, secret).map_err(|error| error.to_string())?;
    Ok(EncodingKey::from_secret(secret))
}

fn private_key(algorithm: Algorithm, content: &[u8]) -> Result<EncodingKey, String> {
    let key = PrivateKeyDer::from_pem_slice(content);
    let key =
        key.map_err(|error| format!("it has no private key in PEM ({error}), which {algorithm} needs"))?;
    match (algorithm, &key) {
        (Algorithm::Es256 | Algorithm::Es384, PrivateKeyDer::Pkcs8(der)) => {
            Ok(EncodingKey::from_ec_der(der.secret_pkcs8_der()))
        }
        (Algorithm::EdDsa, PrivateKeyDer::Pkcs8(der)) => Ok(EncodingKey::from_ed_der(der.secret_pkcs8_der())),
        (Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa, _) => {
            Err("its key is not in PKCS #8; convert it with openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW"
                .into())
        }
        (_, PrivateKeyDer::Pkcs1(der)) => Ok(EncodingKey::from_rsa_der(der.secret_pkcs1_der())),
        (_, PrivateKeyDer::Pkcs8(der)) => {
            let inner = pkcs1_of(der.secret_pkcs8_der());
            let inner = inner.map_err(|error| format!("it is no private key for {algorithm}: {error}"))?;
            Ok(EncodingKey::from_rsa_der(&inner))
        }
        _ => Err(format!("it is no private key for {algorithm}")),
    }
}

/// Returns the key in PKCS #1 that a key of RSA in PKCS #8 contains (RFC 5208, 5): after a version and an algorithm.
fn pkcs1_of(der: &[u8]) -> x509_cert::der::Result<Vec<u8>> {
    let mut reader = SliceReader::new(der)?;
    let sequence = DerHeader::decode(&mut reader)?;
    sequence.tag.assert_eq(x509_cert::der::Tag::Sequence)?;
    u8::decode(&mut reader)?;
    AnyRef::decode(&mut reader)?;
    let key = OctetStringRef::decode(&mut reader)?;
    Ok(key.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::TestSigner;
    use crate::identity::{KeySet, TokenPolicy};
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    #[test]
    fn secrets_sign_what_the_server_verifies() {
        let folder = std::env::temp_dir();
        let file = folder.join(format!("quickio_secret_{}", std::process::id()));
        let secret = [b'x'; 64];
        for end in ["", "\n", "\r\n"] {
            std::fs::write(&file, [&secret[..], end.as_bytes()].concat()).unwrap();
            for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
                let token = sign(&file, algorithm, Some("k"), &json!({"sub": "7"})).unwrap();
                let keys = KeySet::new(
                    [AuthKey::from_secret("k", algorithm, &secret).unwrap()],
                    TokenPolicy::default(),
                );
                let identity = keys.open(&token).unwrap().verify(&keys, 1000).unwrap();
                assert_eq!(&*identity.user, "7");
            }
        }
        std::fs::write(&file, "short").unwrap();
        assert!(sign(&file, Algorithm::Hs256, None, &json!({})).is_err());
        std::fs::write(&file, TestSigner::private_pem()).unwrap();
        assert!(sign(&file, Algorithm::Hs256, None, &json!({})).unwrap_err().contains("--algorithm"));
        assert!(
            sign(&file, Algorithm::Es256, None, &json!({})).unwrap_err().contains("no private key for ES256")
        );
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn private_keys_sign_what_the_server_verifies() {
        use aws_lc_rs::encoding::PublicKeyX509Der;
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
        let file = std::env::temp_dir().join(format!("quickio_private_{}", std::process::id()));
        let pem = |kind: &str, der: &[u8]| {
            format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
        };
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let ed = Ed25519KeyPair::generate().unwrap();
        let ed_private: Pkcs8V1Der<'_> = ed.as_der().unwrap();
        let ec_public: PublicKeyX509Der<'_> = ec.public_key().as_der().unwrap();
        let ed_public: PublicKeyX509Der<'_> = ed.public_key().as_der().unwrap();
        let rsa = TestSigner::new(Algorithm::Rs256);
        let keys = [
            (
                Algorithm::Es256,
                pem("PRIVATE KEY", ec.to_pkcs8v1().unwrap().as_ref()),
                pem("PUBLIC KEY", ec_public.as_ref()),
            ),
            (
                Algorithm::EdDsa,
                pem("PRIVATE KEY", ed_private.as_ref()),
                pem("PUBLIC KEY", ed_public.as_ref()),
            ),
            (Algorithm::Rs256, TestSigner::private_pem(), rsa.public_pem()),
            (Algorithm::Ps512, TestSigner::private_pem(), rsa.public_pem()),
        ];
        for (algorithm, private, public) in keys {
            std::fs::write(&file, private).unwrap();
            let token = sign(&file, algorithm, Some("k"), &json!({"sub": "7"})).unwrap();
            let key = AuthKey::from_pem("k", algorithm, public.as_bytes()).unwrap();
            let keys = KeySet::new([key], TokenPolicy::default());
            let identity = keys.open(&token).unwrap().verify(&keys, 1000).unwrap();
            assert_eq!(&*identity.user, "7", "{algorithm}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}
