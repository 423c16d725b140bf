//! The subject of a client's certificate, which applications can read.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The maximum length of a subject that is kept, in bytes. The longest that authorities issue have a few hundred.
const SUBJECT_BYTES_MAX: usize = 1024;

/// Returns the subject of a certificate as text (RFC 4514): `CN=device-7,O=Example`. `None` if the certificate cannot be
/// parsed, or if its subject is empty or too long.
pub fn subject_of(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let subject = parsed.tbs_certificate.subject.to_string();
    (1..=SUBJECT_BYTES_MAX).contains(&subject.len()).then(|| subject.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn subjects_are_text() {
        assert_eq!(subject_of(&certificate("device-7")).as_deref(), Some("CN=device-7"));
        assert_eq!(subject_of(&certificate("a,b=c")).as_deref(), Some("CN=a\\,b=c"));
        assert_eq!(subject_of(&certificate("")), None);
        assert_eq!(subject_of(&certificate(&"x".repeat(2000))), None);
        assert_eq!(subject_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
