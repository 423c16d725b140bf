//! The tests of this module. The other end is a client of rustls, or, for what such a client never sends, the same record
//! layer.

mod bad_records;
mod exchange;
mod handshakes;
