//! TLS as the settings want it: certificates and keys from files, the choice among them, session tickets, and reloading.
//!
//! | file | content |
//! | --- | --- |
//! | `load` | the configuration that listeners use, from the files that the settings name |
//! | `keypair` | a certificate with its issuers, and its private key |
//! | `x509` | the parts of a certificate that rustls does not tell: names, times, issuer |
//! | `resolver` | the certificate for a client |
//! | `tickets` | session tickets, by one secret for all shards |
//! | `secret_file` | the file of that secret |
//! | `files` | reading the files, and noticing that they have changed |
//! | `service` | the configuration in effect, and its reloads |
//! | `error` | the errors of all these |
//!
//! rustls does the handshakes. The configuration is passed to the shards as a message when it changes: a shard neither
//! locks nor shares anything for it.

mod error;
mod files;
mod keypair;
mod load;
mod resolver;
mod secret_file;
mod service;
#[cfg(test)]
mod tests;
mod tickets;
mod x509;

pub use error::TlsError;
pub(super) use load::check;
pub(super) use service::{Reloaded, TlsService};
