//! The parts of a certificate that rustls does not tell: its names, its times, its issuer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

/// The facts of a certificate.
#[derive(Debug)]
pub(super) struct Facts {
    /// The names of hosts that it is for, in lower case.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub subject: Name,
    pub issuer: Name,
}

impl Facts {
    /// Reads a certificate in DER. The error is a phrase that states the problem.
    pub fn of(der: &[u8]) -> Result<Facts, String> {
        let certificate = Certificate::from_der(der).map_err(|error| error.to_string())?.tbs_certificate;
        let names = match certificate.get::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0.iter().filter_map(host).collect(),
            Ok(None) => Vec::new(),
            Err(error) => return Err(format!("its names cannot be read: {error}")),
        };
        let time = |since_1970: Duration| UNIX_EPOCH + since_1970;
        Ok(Facts {
            names,
            not_before: time(certificate.validity.not_before.to_unix_duration()),
            not_after: time(certificate.validity.not_after.to_unix_duration()),
            subject: certificate.subject,
            issuer: certificate.issuer,
        })
    }

    /// Returns the first name, or the subject of a certificate that is for no host.
    pub fn title(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| self.subject.to_string())
    }
}

fn host(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    }
}
