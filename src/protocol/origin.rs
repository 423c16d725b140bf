//! The pages that browsers may connect from (RFC 6454): what `Origin` may say.

/// The origins that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Whatever `Origin` says.
    #[default]
    Any,
    /// These, as browsers write them: `https://example.com`, `http://localhost:8080`.
    Only(Vec<String>),
}
