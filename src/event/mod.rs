//! Events: their paths, their text form, and the router that finds who handles them.

pub mod find;
pub mod path;
pub mod router;
pub mod text;
