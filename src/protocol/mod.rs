//! Bytes to events and back, without I/O: a protocol is told bytes and returns what it found.

pub mod raw;
pub mod websocket;
