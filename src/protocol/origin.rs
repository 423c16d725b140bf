//! The origins of pages that may connect (RFC 6454), and the origins of pages that may read a response (Fetch, 3.2).

use std::cell::RefCell;
use std::rc::Rc;

use crate::limits::ORIGINS_MAX;

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
    /// In the form in which browsers write them: `https://example.com`, `http://localhost:8080`. There are at most
    /// [`ORIGINS_MAX`].
    allowed: Vec<Rc<str>>,
    /// The origin that was refused last, if it was not taken since. A head is bounded, and so is an origin.
    refused: RefCell<Option<Vec<u8>>>,
}

impl From<Vec<Rc<str>>> for AllowedOrigins {
    /// # Panics
    ///
    /// There are more than [`ORIGINS_MAX`].
    fn from(allowed: Vec<Rc<str>>) -> AllowedOrigins {
        assert!(allowed.len() <= ORIGINS_MAX, "the settings have no more origins");
        AllowedOrigins { allowed, refused: RefCell::default() }
    }
}

/// The pages that may read a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cors {
    /// The request did not come from a page.
    #[default]
    Silent,
    /// Pages of any origin.
    Any,
    /// Pages of the allowed origin with this number. Its text would make each request that waits larger by 16 bytes.
    Only(u16),
}

impl Origins {
    /// Returns the pages that may read a response to a page of this origin, or `None` if the page may not connect.
    /// Browsers write each origin in only one way, which means that it suffices to compare the bytes.
    pub(super) fn admit(&self, origin: &[u8]) -> Option<Cors> {
        match self {
            Origins::Any => Some(Cors::Any),
            Origins::Only(AllowedOrigins { allowed, .. }) => {
                let number = allowed.iter().position(|allowed| allowed.as_bytes() == origin)?;
                Some(Cors::Only(u16::try_from(number).expect("there are at most ORIGINS_MAX")))
            }
        }
    }

    /// Returns the allowed origin with this number.
    ///
    /// # Panics
    ///
    /// There is none.
    pub(super) fn allowed(&self, number: u16) -> &str {
        match self {
            Origins::Any => unreachable!("no origin has a number if all are allowed"),
            Origins::Only(AllowedOrigins { allowed, .. }) => &allowed[usize::from(number)],
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
        assert_eq!(origins.admit(b"https://a.example"), Some(Cors::Only(0)));
        assert_eq!(origins.allowed(0), "https://a.example");
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
