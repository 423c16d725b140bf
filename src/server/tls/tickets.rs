//! Session tickets (RFC 8446, section 4.6.1; RFC 5077), by one secret for all shards and listeners.
//!
//! The key of a ticket is derived from the secret (HKDF, RFC 5869) and from the period of the clock in which the ticket is
//! issued. All shards, servers with the same secret, and a server after its restart have the same keys without having to
//! agree on them, and nothing is locked or stored. A ticket is accepted in its period and in the next one.
//!
//! rustls has a ticketer too. It has random keys, which end with the process, and locks them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// The size of a new secret, and the minimum, in bytes.
pub(super) const SECRET_BYTES: usize = 32;

/// The time for which a key encrypts tickets, in seconds. A ticket is accepted for at least this long, and for at most
/// twice as long. Random nonces allow for 2^32 tickets with one key, which is 99,000 for each second.
const PERIOD_SECONDS: u64 = 12 * 60 * 60;

/// The maximum size of a ticket from a client that is looked at, in bytes: the length field of a ticket in TLS 1.2 and 1.3
/// has 16 bits.
const TICKET_BYTES_MAX: usize = u16::MAX as usize;

/// The bytes of a ticket before its encrypted part: the period.
const PERIOD_BYTES: usize = 4;

/// The salt of the derivation, which separates it from any other use of the secret.
const SALT: &[u8] = b"quickio session tickets, version 1";

/// The encryption of tickets.
pub(super) struct Tickets {
    /// The secret, bound to what a ticket replaces: tickets that were issued while other client certificates were
    /// accepted are not.
    key: Prk,
    context: Vec<u8>,
}

/// The length of a derived key.
struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        SECRET_BYTES
    }
}

/// Returns a new random secret.
pub(super) fn new_secret() -> Zeroizing<[u8; SECRET_BYTES]> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    rand::fill(&mut *secret).expect("AWS-LC ends the process if it has no random bytes");
    secret
}

impl Tickets {
    /// Derives the encryption from a secret. `context` is what a session that is resumed does not check again: tickets
    /// of another context are refused.
    pub fn new(secret: &[u8], context: &[u8]) -> Tickets {
        Tickets { key: Salt::new(HKDF_SHA256, SALT).extract(secret), context: context.to_vec() }
    }

    /// Derives the key of a period.
    fn period_key(&self, period: [u8; PERIOD_BYTES]) -> RandomizedNonceKey {
        let mut key = Zeroizing::new([0; SECRET_BYTES]);
        let info: [&[u8]; 2] = [&period, &self.context];
        let derived = self.key.expand(&info, KeyBytes).and_then(|okm| okm.fill(&mut *key));
        derived.expect("HKDF-SHA256 derives up to 8160 bytes");
        RandomizedNonceKey::new(&AES_256_GCM, &*key).expect("AES-256 has keys of 32 bytes")
    }

    fn seal(&self, state: &[u8], period: u32) -> Option<Vec<u8>> {
        let period = period.to_be_bytes();
        let mut sealed = state.to_vec();
        let nonce = self.period_key(period).seal_in_place_append_tag(Aad::from(period), &mut sealed).ok()?;
        Some([&period[..], &nonce.as_ref()[..], &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u32) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (period, rest) = ticket.split_first_chunk::<PERIOD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let issued = u32::from_be_bytes(*period);
        // The clock of another server may be ahead.
        if issued < now.saturating_sub(1) || issued > now + 1 {
            return None;
        }
        let mut state = sealed.to_vec();
        let key = self.period_key(*period);
        let len = key.open_in_place(Nonce::from(nonce), Aad::from(*period), &mut state).ok()?.len();
        state.truncate(len);
        Some(state)
    }
}

fn current_period() -> u32 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since_1970.as_secs() / PERIOD_SECONDS).unwrap_or(u32::MAX - 1)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD_SECONDS as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, current_period())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, current_period())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 40_000;

    #[test]
    fn a_ticket_is_accepted_in_its_period_and_the_next() {
        let tickets = Tickets::new(&[1; 32], b"");
        let ticket = tickets.seal(b"state", NOW).unwrap();
        for (now, expected) in [(-2, false), (-1, true), (0, true), (1, true), (2, false), (40_000, false)] {
            let opened = tickets.open(&ticket, NOW.checked_add_signed(now).unwrap());
            assert_eq!(opened.as_deref(), expected.then_some(b"state".as_slice()), "{now} periods later");
        }
    }

    #[test]
    fn only_the_same_secret_and_context_open_a_ticket() {
        let ticket = Tickets::new(&[1; 32], b"context").seal(b"state", NOW).unwrap();
        for (secret, context, expected) in [
            (vec![1; 32], b"context".as_slice(), true),
            (vec![2; 32], b"context", false),
            (vec![1; 33], b"context", false),
            (vec![1; 32], b"contexts", false),
            (vec![1; 32], b"", false),
        ] {
            let opened = Tickets::new(&secret, context).open(&ticket, NOW);
            assert_eq!(opened.is_some(), expected, "{context:?}");
        }
    }

    #[test]
    fn a_changed_or_cut_ticket_is_refused() {
        let tickets = Tickets::new(&new_secret()[..], b"");
        let ticket = tickets.seal(b"state", NOW).unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.open(&changed, NOW), None, "byte {at} was changed");
            assert_eq!(tickets.open(&ticket[..at], NOW), None, "cut to {at} bytes");
        }
        assert_eq!(tickets.open(&vec![0; TICKET_BYTES_MAX + 1], NOW), None);
    }

    #[test]
    fn two_tickets_for_one_state_differ() {
        let tickets = Tickets::new(&[1; 32], b"");
        assert_ne!(tickets.encrypt(b"state"), tickets.encrypt(b"state"));
        let ticket = tickets.encrypt(b"state").unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(b"state".as_slice()));
    }
}
