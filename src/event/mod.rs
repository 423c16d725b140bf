//! Events: their paths, their text form, and the router that finds the handler of a path.

pub mod find;
pub mod path;
pub mod router;
pub mod text;
