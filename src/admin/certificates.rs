//! The times at which the certificates of the server expire.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The time at which a certificate expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateExpiry {
    /// The first name that the certificate is for.
    pub name: String,
    /// The time at which it or one of its issuers expires.
    pub expires: SystemTime,
}

impl CertificateExpiry {
    /// Returns the seconds until the certificate expires, which are negative if it has expired.
    #[must_use]
    pub fn seconds_left(&self, now: SystemTime) -> i64 {
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
        };
        seconds(self.expires) - seconds(now)
    }
}

/// The certificates of the server, which any thread may replace. A clone is another handle of the table.
#[derive(Clone, Debug, Default)]
pub struct CertificateTable(Arc<Mutex<Vec<CertificateExpiry>>>);

impl CertificateTable {
    /// Replaces the certificates.
    pub fn set(&self, certificates: Vec<CertificateExpiry>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    /// Returns the certificates.
    #[must_use]
    pub fn get(&self) -> Vec<CertificateExpiry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn seconds_are_negative_after_the_end() {
        let second = Duration::from_secs(1);
        let now = UNIX_EPOCH + 1_000_000 * second;
        for (expires, left) in [(now + 5 * second, 5), (now, 0), (now - 7 * second, -7)] {
            let certificate = CertificateExpiry { name: "a.example".into(), expires };
            assert_eq!(certificate.seconds_left(now), left);
        }
    }
}
