//! The origins of pages that may connect (RFC 6454), and the origins of pages that may read a response (Fetch, 3.2).

use std::rc::Rc;

/// The origins that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Any origin is allowed.
    #[default]
    Any,
    /// These origins are allowed, in the form in which browsers write them: `https://example.com`,
    /// `http://localhost:8080`. They are reference-counted because a request that is held keeps one of them for its
    /// response.
    Only(Vec<Rc<str>>),
}

/// The pages that may read a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Cors {
    /// The request did not come from a page.
    #[default]
    Silent,
    /// Pages of any origin.
    Any,
    /// Pages of this origin.
    Only(Rc<str>),
}

impl Origins {
    /// Returns the pages that may read a response to a page of this origin, or `None` if the page may not connect.
    /// Browsers write each origin in only one way, which means that it suffices to compare the bytes.
    pub(super) fn admit(&self, origin: &[u8]) -> Option<Cors> {
        match self {
            Origins::Any => Some(Cors::Any),
            Origins::Only(allowed) => {
                allowed.iter().find(|allowed| allowed.as_bytes() == origin).cloned().map(Cors::Only)
            }
        }
    }
}
