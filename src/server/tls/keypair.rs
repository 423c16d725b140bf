//! A certificate with its issuers, and its private key.

use super::error::TlsError;
use super::files::FilesRead;
use super::x509::Facts;
use httpdate::fmt_http_date;
use rustls::SignatureAlgorithm;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The setting that names the files of certificates.
const CERTIFICATES: &str = "tls-cert";

/// The setting that names the files of keys.
const KEYS: &str = "tls-key";

/// A certificate that expires earlier than this after it was loaded causes a warning: whoever issues certificates for 90
/// days has renewed them 30 days before, and those for a week are renewed in its middle.
const EXPIRY_WARNING: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// The length of the longest RSA key whose handshake fits into a shard's share of a turn (`TLS_HANDSHAKES_TURN_NS`).
/// docs/operations.md has what handshakes cost.
const RSA_BITS_MAX: usize = 3072;

/// A certificate that the server can present.
pub(super) struct KeyPair {
    pub key: Arc<CertifiedKey>,
    /// The names of hosts that the certificate is for.
    pub names: Vec<String>,
    /// The name under which statistics and messages show it.
    pub title: String,
    /// The time at which it or one of its issuers expires.
    pub expires: SystemTime,
}

impl KeyPair {
    /// Reads a certificate and its private key, which may be in one file. Appends sentences about what is probably a
    /// mistake to `warnings`.
    pub fn read(
        certificate: &Path,
        key: Option<&Path>,
        provider: &CryptoProvider,
        files: &mut FilesRead,
        warnings: &mut Vec<String>,
    ) -> Result<KeyPair, TlsError> {
        let chain = certificates(CERTIFICATES, certificate, files)?;
        let facts = facts(CERTIFICATES, certificate, &chain)?;
        let (setting, key_path) = key.map_or((CERTIFICATES, certificate), |path| (KEYS, path));
        let key = private_key(setting, key_path, provider, files)?;
        check_pair(certificate, key_path, &chain, &key)?;
        warnings.extend(mode_warning(key_path));
        warnings.extend(slow_key_warning(key_path, &*key));
        warnings.extend(chain_warning(certificate, &facts));
        warnings.extend(time_warning(certificate, &facts, SystemTime::now()));
        let expires = facts.iter().map(|facts| facts.not_after).min().expect("a chain has a certificate");
        Ok(KeyPair {
            title: facts[0].title(),
            names: facts.into_iter().next().expect("a chain has a certificate").names,
            key: Arc::new(CertifiedKey::new(chain, key)),
            expires,
        })
    }
}

/// Reads the certificates of a file: at least one.
pub(super) fn certificates(
    setting: &'static str,
    path: &Path,
    files: &mut FilesRead,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = files.read(setting, path)?;
    let sections: Result<Vec<(SectionKind, Vec<u8>)>, pem::Error> =
        <(SectionKind, Vec<u8>)>::pem_slice_iter(&content).collect();
    let sections = sections.map_err(|error| bad_pem(setting, path, &error))?;
    let has_key = sections.iter().any(|(kind, _)| !matches!(kind, SectionKind::Certificate));
    let certificates: Vec<CertificateDer<'static>> = sections
        .into_iter()
        .filter(|(kind, _)| matches!(kind, SectionKind::Certificate))
        .map(|(_, der)| der.into())
        .collect();
    if certificates.is_empty() {
        let hint = match content.first() {
            Some(0x30) => "; it is in DER: convert it with `openssl x509 -inform der`",
            _ if has_key && setting == CERTIFICATES => {
                "; it has a private key: have tls-cert and tls-key been exchanged?"
            }
            _ => "",
        };
        return Err(TlsError::NoCertificate { setting, path: path.to_owned(), hint });
    }
    Ok(certificates)
}

fn facts(setting: &'static str, path: &Path, chain: &[CertificateDer<'_>]) -> Result<Vec<Facts>, TlsError> {
    let facts = chain.iter().enumerate().map(|(number, der)| {
        Facts::of(der).map_err(|problem| TlsError::BadCertificate {
            setting,
            path: path.to_owned(),
            number: number + 1,
            problem,
        })
    });
    facts.collect()
}

fn private_key(
    setting: &'static str,
    path: &Path,
    provider: &CryptoProvider,
    files: &mut FilesRead,
) -> Result<Arc<dyn SigningKey>, TlsError> {
    let content = files.read(setting, path)?;
    let has = |text: &str| memchr::memmem::find(&content, text.as_bytes()).is_some();
    if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey { setting, path: path.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_slice(&content).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { setting, path: path.to_owned() },
        error => bad_pem(setting, path, &error),
    })?;
    provider.key_provider.load_private_key(key).map_err(|error| TlsError::BadKey {
        setting,
        path: path.to_owned(),
        problem: error.to_string(),
    })
}

fn bad_pem(setting: &'static str, path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Pem { setting, path: path.to_owned(), problem: error.to_string() }
}

/// Checks that the key belongs to the first certificate.
fn check_pair(
    certificate: &Path,
    key_path: &Path,
    chain: &[CertificateDer<'static>],
    key: &Arc<dyn SigningKey>,
) -> Result<(), TlsError> {
    let belongs_to = |der: &CertificateDer<'static>| {
        let pair = CertifiedKey::new(vec![der.clone()], Arc::clone(key));
        pair.keys_match().is_ok()
    };
    match chain.iter().position(belongs_to) {
        Some(0) => Ok(()),
        Some(other) => Err(TlsError::WrongOrder { path: certificate.to_owned(), number: other + 1 }),
        None => Err(TlsError::OtherKey { certificate: certificate.to_owned(), key: PathBuf::from(key_path) }),
    }
}

/// Returns a warning if every user of the host can read a key.
fn mode_warning(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o004 != 0).then(|| {
        format!(
            "every user of this host can read the private key in {path} (mode {mode:04o}); run `chmod o= {path}`",
            path = path.display()
        )
    })
}

/// Returns a warning if a key signs so slowly that the clients of a shard notice each handshake.
fn slow_key_warning(path: &Path, key: &dyn SigningKey) -> Option<String> {
    /// The length of a public RSA key in DER without its modulus, if that has 1024 to 16384 bits.
    const DER_BYTES: usize = 38;
    let public = key.public_key().filter(|_| key.algorithm() == SignatureAlgorithm::RSA)?;
    let bits = public.len().saturating_sub(DER_BYTES) * 8;
    (bits > RSA_BITS_MAX).then(|| {
        format!(
            "the RSA key in {} has {bits} bits: each TLS handshake takes a shard longer than a millisecond, in which its other \
             clients wait; use an ECDSA key (P-256), or an RSA key with 2048 bits",
            path.display()
        )
    })
}

/// Returns a warning if a certificate is not followed by that of its issuer: many clients refuse such a chain.
fn chain_warning(path: &Path, facts: &[Facts]) -> Option<String> {
    let broken = facts.windows(2).position(|pair| pair[0].issuer != pair[1].subject)?;
    Some(format!(
        "certificate {} in {} (setting tls-cert) is not that of the issuer of certificate {}: many clients will refuse the \
         server; each issuer must follow the certificate that it has signed",
        broken + 2,
        path.display(),
        broken + 1
    ))
}

/// Returns a warning if a certificate of the chain has expired, will do so soon, or is not valid yet.
fn time_warning(path: &Path, facts: &[Facts], now: SystemTime) -> Option<String> {
    let file = path.display();
    if let Some(future) = facts.iter().find(|facts| facts.not_before > now) {
        let (title, from) = (future.title(), fmt_http_date(future.not_before));
        return Some(format!(
            "the certificate of {title} in {file} is valid only from {from}: clients refuse it until then; check the clock \
             of this host"
        ));
    }
    let first = facts.iter().min_by_key(|facts| facts.not_after)?;
    let (title, date) = (first.title(), fmt_http_date(first.not_after));
    if first.not_after <= now {
        Some(format!("the certificate of {title} in {file} expired on {date}: clients refuse it; renew it"))
    } else if first.not_after <= now + EXPIRY_WARNING {
        Some(format!("the certificate of {title} in {file} expires soon, on {date}; renew it"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tls::tests::{DAY, certificate, chain_of};

    #[test]
    fn times_of_certificates() {
        let now = SystemTime::now();
        for (from, to, expected) in [
            (now - DAY, now + 90 * DAY, None),
            (now - 90 * DAY, now + 2 * DAY, Some("expires soon, on ")),
            (now - 90 * DAY, now - DAY, Some("expired on ")),
            (now + DAY, now + 90 * DAY, Some("is valid only from ")),
        ] {
            let own = certificate(&["a.example"], from, to);
            let facts = [Facts::of(own.der()).unwrap()];
            let warning = time_warning(Path::new("a.pem"), &facts, now);
            match (expected, warning) {
                (None, None) => {}
                (Some(expected), Some(warning)) => {
                    assert!(warning.contains(expected), "{warning}");
                    assert!(warning.contains("a.example in a.pem"), "{warning}");
                }
                (expected, warning) => panic!("{expected:?}: {warning:?}"),
            }
        }
    }

    #[test]
    fn keys_that_sign_slowly_are_told() {
        for (name, is_slow) in [("server", false), ("p384", false), ("rsa", false), ("rsa4096", true)] {
            let path = format!("{}/tests/certificates/{name}.key", env!("CARGO_MANIFEST_DIR"));
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let key = private_key(KEYS, Path::new(&path), &provider, &mut FilesRead::new()).unwrap();
            let warning = slow_key_warning(Path::new(&path), &*key);
            assert_eq!(warning.is_some(), is_slow, "{warning:?}");
            assert!(warning.is_none_or(|warning| warning.contains("has 4096 bits")));
        }
    }

    #[test]
    fn an_issuer_must_follow_what_it_has_signed() {
        let chain = chain_of("a.example");
        let facts: Vec<Facts> = chain.iter().map(|der| Facts::of(der).unwrap()).collect();
        assert_eq!(chain_warning(Path::new("a.pem"), &facts), None);
        let facts: Vec<Facts> = chain.iter().rev().map(|der| Facts::of(der).unwrap()).collect();
        let warning = chain_warning(Path::new("a.pem"), &facts).unwrap();
        assert!(warning.contains("certificate 2 in a.pem"), "{warning}");
    }
}
