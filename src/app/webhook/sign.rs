//! The signature of a request: HMAC-SHA256 over the time and the body.

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use std::fmt::{self, Write};

/// The minimum length of a secret in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// The secret that the server and the back end share.
#[derive(Clone)]
pub(super) struct HookSecret(Key);

impl HookSecret {
    /// Returns the secret, or `None` if it is too short.
    pub fn new(secret: &[u8]) -> Option<HookSecret> {
        (secret.len() >= SECRET_BYTES_MIN).then(|| HookSecret(Key::new(HMAC_SHA256, secret)))
    }

    /// Returns the signature of a body that is sent at this time, in Unix seconds: `v1=` and 64 hexadecimal digits. What is
    /// signed is the time in decimal, a dot, and the body.
    pub fn sign(&self, time: u64, body: &[u8]) -> String {
        let mut context = Context::with_key(&self.0);
        context.update(itoa::Buffer::new().format(time).as_bytes());
        context.update(b".");
        context.update(body);
        let mut signature = "v1=".to_owned();
        for byte in context.sign().as_ref() {
            write!(signature, "{byte:02x}").expect("a text takes everything");
        }
        signature
    }
}

impl fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected value is that of `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn time_and_body_are_signed() {
        let secret = HookSecret::new(b"0123456789abcdef").unwrap();
        assert_eq!(secret.sign(1_700_000_000, br#"{"a":1}"#), EXPECTED);
        assert_ne!(secret.sign(1_700_000_001, br#"{"a":1}"#), EXPECTED);
        assert!(HookSecret::new(b"0123456789abcde").is_none());
    }

    const EXPECTED: &str = "v1=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23";
}
