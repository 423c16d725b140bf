//! The origins of pages that may connect (RFC 6454), and the origins of pages that may read a response (Fetch, 3.2).

use std::cell::RefCell;
use std::rc::Rc;

/// The origins that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Any origin is allowed.
    #[default]
    Any,
    /// Only these origins are allowed.
    Only(AllowedOrigins),
}

/// The origins that are allowed, and the one that was refused last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins {
    /// In the form in which browsers write them: `https://example.com`, `http://localhost:8080`. They are
    /// reference-counted because a request that is held keeps one of them for its response.
    allowed: Vec<Rc<String>>,
    /// The origin that was refused last, if it was not taken since. A head is bounded, and so is an origin.
    refused: RefCell<Option<Vec<u8>>>,
}

impl From<Vec<Rc<str>>> for AllowedOrigins {
    fn from(allowed: Vec<Rc<str>>) -> AllowedOrigins {
        let allowed = allowed.into_iter().map(|origin| Rc::new(String::from(&*origin))).collect();
        AllowedOrigins { allowed, refused: RefCell::default() }
    }
}

/// The pages that may read a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Cors {
    /// The request did not come from a page.
    #[default]
    Silent,
    /// Pages of any origin.
    Any,
    /// Pages of this origin. A `str` would make each request that waits larger by 8 bytes.
    Only(Rc<String>),
}

impl Origins {
    /// Returns the pages that may read a response to a page of this origin, or `None` if the page may not connect.
    /// Browsers write each origin in only one way, which means that it suffices to compare the bytes.
    pub(super) fn admit(&self, origin: &[u8]) -> Option<Cors> {
        match self {
            Origins::Any => Some(Cors::Any),
            Origins::Only(AllowedOrigins { allowed, .. }) => {
                allowed.iter().find(|allowed| allowed.as_bytes() == origin).cloned().map(Cors::Only)
            }
        }
    }

    /// Notes that a request was refused because of its origin.
    pub(super) fn refused(&self, origin: &[u8]) {
        if let Origins::Only(origins) = self {
            origins.refused.replace(Some(origin.to_vec()));
        }
    }

    /// Takes the origin that was refused last, for the log: the response does not name it.
    pub fn take_refused(&self) -> Option<Vec<u8>> {
        match self {
            Origins::Any => None,
            Origins::Only(origins) => origins.refused.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_that_was_refused_last_is_kept_once() {
        let origins = Origins::Only(vec!["https://a.example".into()].into());
        assert_eq!(
            origins.admit(b"https://a.example"),
            Some(Cors::Only(String::from("https://a.example").into()))
        );
        assert_eq!(origins.take_refused(), None);
        for refused in [&b"https://b.example"[..], b"https://a.example/", b"", b"\xff\n"] {
            assert_eq!(origins.admit(refused), None);
            origins.refused(b"other");
            origins.refused(refused);
            assert_eq!(origins.take_refused().as_deref(), Some(refused));
            assert_eq!(origins.take_refused(), None);
        }
        assert_eq!(Origins::Any.admit(b"other"), Some(Cors::Any));
        assert_eq!(Origins::Any.take_refused(), None);
    }
}
