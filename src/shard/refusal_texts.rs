//! The texts (`err_msg`) of refusals that several steps answer with.

/// The server cannot handle a request for now.
pub(super) const BUSY: &str = "the server is busy";

/// A client asks for events of a path that keeps none.
pub(super) const NO_HISTORY: &str = "no history";

/// A client asks for the members of a path that has none.
pub(super) const NO_MEMBERS: &str = "no members";
