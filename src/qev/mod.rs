//! The event machinery below a shard. It does not depend on the rest of the server and could be a crate of its own.

mod affinity;
mod bell;
pub mod blocks;
pub mod buffers;
pub mod clock;
pub mod control;
pub mod fair;
pub mod inbox;
pub mod mesh;
pub mod pairs;
pub mod probe;
pub mod ring;
pub mod runtime;
pub mod shrink;
pub mod slots;
pub mod stats;
pub mod timer;
