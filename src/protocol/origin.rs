//! The pages that browsers may connect from (RFC 6454): what `Origin` may say, and what is said back (Fetch, 3.2).

use std::rc::Rc;

/// The origins that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Whatever `Origin` says.
    #[default]
    Any,
    /// These, as browsers write them: `https://example.com`, `http://localhost:8080`. A request that is held keeps one
    /// of them for its response, so they are shared.
    Only(Vec<Rc<str>>),
}

/// Which pages may read a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Cors {
    /// No page has asked.
    #[default]
    Silent,
    /// Every page.
    Any,
    /// The pages of this origin.
    Only(Rc<str>),
}

impl Origins {
    /// What is said to a page of this origin; `None` where it may not connect. Browsers write an origin in one way
    /// only, so that comparing its bytes is enough.
    pub(super) fn admit(&self, origin: &[u8]) -> Option<Cors> {
        match self {
            Origins::Any => Some(Cors::Any),
            Origins::Only(allowed) => {
                allowed.iter().find(|allowed| allowed.as_bytes() == origin).cloned().map(Cors::Only)
            }
        }
    }
}
