//! The certificate for a client: by the name that it asks for (RFC 6066, section 3) and the keys that it knows.

use super::keypair::KeyPair;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// The certificates of the server, in the order of the setting.
#[derive(Debug)]
pub(super) struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    /// The certificates for a name, by their numbers.
    exact: HashMap<String, Vec<usize>>,
    /// The certificates for `*.NAME`, by NAME. They are for names with exactly one label more (RFC 6125, section 6.4.3).
    wildcard: HashMap<String, Vec<usize>>,
}

impl Certificates {
    /// Arranges certificates by their names.
    pub fn new(pairs: &[KeyPair]) -> Certificates {
        let mut certificates =
            Certificates { keys: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        for (number, pair) in pairs.iter().enumerate() {
            certificates.keys.push(Arc::clone(&pair.key));
            for name in &pair.names {
                match name.strip_prefix("*.") {
                    Some(parent) => certificates.wildcard.entry(parent.to_owned()).or_default().push(number),
                    None => certificates.exact.entry(name.clone()).or_default().push(number),
                }
            }
        }
        certificates
    }

    /// Returns the first certificate for a name whose key the client can use; if there is none, the first of all that it
    /// can use; and otherwise the first, with which the handshake fails.
    fn choose(
        &self,
        name: Option<&str>,
        can_use: impl Fn(&CertifiedKey) -> bool,
    ) -> Option<&Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
        let parent = name.split_once('.').map(|(_, parent)| parent).unwrap_or_default();
        let named = self.exact.get(&name).into_iter().chain(self.wildcard.get(parent)).flatten();
        let mut candidates = named.map(|number| &self.keys[*number]).chain(&self.keys);
        candidates.find(|key| can_use(key)).or_else(|| self.keys.first())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let can_use = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.choose(hello.server_name(), can_use).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tls::tests::pair;
    use rustls::SignatureAlgorithm;

    #[test]
    fn names_choose_certificates() {
        let pairs = [
            pair(&["default.example"]),
            pair(&["A.example", "*.a.example"]),
            pair(&["*.example"]),
            pair(&["b.a.example"]),
        ];
        let certificates = Certificates::new(&pairs);
        for (name, expected) in [
            (None, 0),
            (Some("default.example"), 0),
            (Some("a.example"), 1),
            (Some("A.EXAMPLE"), 1),
            (Some("x.a.example"), 1),
            (Some("b.a.example"), 3),
            (Some("x.y.a.example"), 0),
            (Some("x.example"), 2),
            (Some("example"), 0),
            (Some(""), 0),
            (Some("."), 0),
            (Some("*.example"), 2),
            (Some("other.test"), 0),
        ] {
            let chosen = certificates.choose(name, |_| true).unwrap();
            assert!(Arc::ptr_eq(chosen, &pairs[expected].key), "{name:?}");
        }
    }

    #[test]
    fn the_kind_of_key_chooses_among_certificates_for_one_name() {
        let pairs = [pair(&["a.example"]), pair(&["b.example"]), pair(&["b.example"])];
        let certificates = Certificates::new(&pairs);
        let is_third = |key: &CertifiedKey| std::ptr::eq(key, Arc::as_ptr(&pairs[2].key));
        assert!(Arc::ptr_eq(certificates.choose(Some("b.example"), is_third).unwrap(), &pairs[2].key));
        assert!(
            Arc::ptr_eq(certificates.choose(Some("a.example"), is_third).unwrap(), &pairs[2].key),
            "a wrong name is better than no common kind of key"
        );
        assert!(Arc::ptr_eq(certificates.choose(None, |_| false).unwrap(), &pairs[0].key));
        assert_eq!(pairs[0].key.key.algorithm(), SignatureAlgorithm::ECDSA);
    }
}
