//! The traffic secrets of TLS 1.3 connections, taken from rustls' key log.
//!
//! rustls gives the keys and IVs of a finished handshake away, but not the traffic secrets, from which a KeyUpdate
//! derives the next keys. It logs them, however: to the key log of the configuration, which all connections share.
//! rustls logs during a call for a connection and on the thread of that call. [`capture`] therefore puts a slot for the
//! secrets in a variable of the thread for the time of the call, and there is nothing to look up and no lock.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::KeyLog;
use zeroize::Zeroize;

/// The maximum size of a traffic secret: the output of SHA-384 (RFC 8446 section 7.1).
pub const SECRET_BYTES_MAX: usize = 48;

const CLIENT_LABEL: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER_LABEL: &str = "SERVER_TRAFFIC_SECRET_0";

/// A traffic secret. It is wiped when it is dropped.
#[derive(Clone, Default)]
pub struct TrafficSecret {
    bytes: Vec<u8>,
}

impl TrafficSecret {
    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for TrafficSecret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// The first traffic secrets of a connection. With TLS 1.2 there are none.
#[derive(Clone, Default)]
pub struct TrafficSecrets {
    /// The secret of the records that the client sends.
    pub client: Option<TrafficSecret>,
    /// The secret of the records that the server sends.
    pub server: Option<TrafficSecret>,
}

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficSecrets").finish_non_exhaustive()
    }
}

thread_local! {
    /// The secrets of the connection that this thread handles at the moment.
    static CURRENT: RefCell<Option<TrafficSecrets>> = const { RefCell::new(None) };
}

/// Calls `handle`, and adds the secrets that rustls logs meanwhile to `secrets`.
pub fn capture<T>(secrets: &mut TrafficSecrets, handle: impl FnOnce() -> T) -> T {
    CURRENT.set(Some(std::mem::take(secrets)));
    let result = handle();
    *secrets = CURRENT.take().expect("the secrets were put here before the call");
    result
}

/// A key log that gives traffic secrets to the connection of the current call ([`capture`]), and everything to the key
/// log that the configuration had before.
pub struct SecretLog {
    next: Arc<dyn KeyLog>,
}

impl SecretLog {
    /// Returns a log before `next`.
    pub fn new(next: Arc<dyn KeyLog>) -> SecretLog {
        SecretLog { next }
    }
}

impl KeyLog for SecretLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if self.next.will_log(label) {
            self.next.log(label, client_random, secret);
        }
        CURRENT.with_borrow_mut(|current| {
            // Connections that rustls handles alone, such as those of the admin endpoint, need no secrets.
            let Some(secrets) = current else { return };
            let slot = match label {
                CLIENT_LABEL => &mut secrets.client,
                SERVER_LABEL => &mut secrets.server,
                _ => return,
            };
            *slot = Some(TrafficSecret { bytes: secret.to_vec() });
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT_LABEL | SERVER_LABEL) || self.next.will_log(label)
    }
}

impl fmt::Debug for SecretLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretLog")
    }
}
