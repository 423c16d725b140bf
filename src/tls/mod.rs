//! TLS with clients: the handshake by rustls, and a record layer of our own after it. Without I/O.
//!
//! | file | content |
//! | --- | --- |
//! | `context` | the configuration of a listener, prepared so that secrets can be taken over |
//! | `handshake` | a handshake: rustls, fed record by record |
//! | `secrets` | the traffic secrets of a handshake, from rustls' key log |
//! | `session` | the state after the handshake, in 152 bytes |
//! | `open` | records from the client |
//! | `seal` | records for the client |
//! | `keys` | the keys of a direction: derivation, updates, AEAD |
//! | `record` | headers and sizes of records |
//! | `failure` | the ways to fail, their alerts |
//!
//! [`TlsContext::accept`] begins a [`Handshake`]. The caller gives it what arrives and sends what it appends to the
//! output, until it returns an [`Established`] connection. From there on the caller opens records in its receive buffer
//! ([`TlsSession::open`]) and seals what it sends ([`TlsSession::seal`]).
//!
//! The ciphers, the key derivation and all of the handshake are rustls' and AWS-LC's. Here are only the rules of records:
//! `docs/architecture.md` explains why they are our own. RFC 8446 is TLS 1.3, RFC 5246 TLS 1.2.

mod context;
mod failure;
mod handshake;
mod keys;
mod open;
mod record;
mod seal;
mod secrets;
mod session;
mod subject;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use context::TlsContext;
pub use failure::{TlsFailure, TlsReason};
pub use handshake::{Established, Handshake, TlsPeer};
pub use keys::Cipher;
pub use open::Opened;
pub use record::HEADER_BYTES;
pub use session::TlsSession;
pub use subject::subject_of;
