//! quick-event: the machinery under a shard. It knows no events, and could be a crate of its own.

mod bell;
pub mod buffers;
pub mod clock;
pub mod control;
pub mod fair;
pub mod inbox;
pub mod mesh;
pub mod probe;
pub mod ring;
pub mod runtime;
pub mod slots;
pub mod stats;
pub mod timer;
