//! The state of a connection after the handshake: keys, sequence numbers, and what is owed to the client.
//!
//! `open` handles what the client sends, `seal` what it receives.

use std::fmt;

use rustls::{AlertDescription, CipherSuite, ExtractedSecrets, ProtocolVersion};

use super::failure::{TlsFailure, TlsReason};
use super::keys::{Cipher, DirectionKeys, KeyMaterial, KeyTail};
use super::secrets::TrafficSecrets;

/// The two directions, as indexes.
pub(super) const SEND: usize = 0;
pub(super) const RECEIVE: usize = 1;

/// A connection's TLS after the handshake. It has 152 bytes with AES-128-GCM, and 64 more with the other suites.
///
/// Invariants, which `check()` asserts:
/// - `tails` is there exactly if the cipher has keys that are longer than those of AES-128-GCM.
/// - With TLS 1.2, no KeyUpdate has begun. With TLS 1.3, nobody has asked for another handshake.
/// - After our close_notify or fatal alert nothing is owed.
pub struct TlsSession {
    pub(super) keys: [DirectionKeys; 2],
    /// The sequence numbers of the next records (RFC 8446 section 5.3).
    pub(super) sequences: [u64; 2],
    pub(super) tails: Option<Box<[KeyTail; 2]>>,
    pub(super) cipher: Cipher,
    pub(super) is_13: bool,
    /// The records without data that the client has sent since its last record with data.
    pub(super) idle_records: u8,
    /// The bytes of a KeyUpdate that have arrived, if it is spread over several records.
    pub(super) key_update_bytes: u8,
    /// The requests for another handshake that a client of TLS 1.2 has made.
    pub(super) renegotiations: u8,
    pub(super) flags: TlsFlags,
}

/// The yes-or-no state of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsFlags {
    /// A message must precede our next data: a KeyUpdate with TLS 1.3, the warning no_renegotiation with TLS 1.2.
    pub owes: bool,
    pub received_close_notify: bool,
    /// We have sent close_notify or a fatal alert, after which nothing may follow.
    pub has_closed: bool,
}

impl TlsSession {
    /// Takes over a connection whose handshake is complete.
    ///
    /// # Errors
    ///
    /// If the secrets are not those of the connection, which would be an error of the server.
    pub(super) fn new(
        version: ProtocolVersion,
        extracted: &ExtractedSecrets,
        secrets: &TrafficSecrets,
    ) -> Result<TlsSession, TlsFailure> {
        let internal = || TlsFailure::new(TlsReason::Internal, AlertDescription::InternalError);
        let is_13 = version == ProtocolVersion::TLSv1_3;
        let (cipher, mut send) = KeyMaterial::extracted(&extracted.tx.1).ok_or_else(internal)?;
        let (_, mut receive) = KeyMaterial::extracted(&extracted.rx.1).ok_or_else(internal)?;
        if is_13 {
            for (material, secret) in [(&mut send, &secrets.server), (&mut receive, &secrets.client)] {
                let secret = secret.as_ref().ok_or_else(internal)?;
                let derived = KeyMaterial::derived(cipher, secret.as_bytes()).ok_or_else(internal)?;
                if !derived.has_keys_of(material) {
                    return Err(internal());
                }
                *material = derived;
            }
        }
        let sequences = [extracted.tx.0, extracted.rx.0];
        Ok(TlsSession::with_keys(is_13, cipher, &[send, receive], sequences))
    }

    /// Returns a session of TLS 1.3 that can only send an alert, with the first key of the server. Returns `None` for a
    /// suite that is not one of TLS 1.3.
    pub(super) fn for_alert(suite: CipherSuite, secret: &[u8]) -> Option<TlsSession> {
        let cipher = Cipher::of_suite(suite)?;
        let send = KeyMaterial::derived(cipher, secret)?;
        Some(TlsSession::with_keys(true, cipher, &[send, KeyMaterial::zero()], [0, 0]))
    }

    fn with_keys(
        is_13: bool,
        cipher: Cipher,
        materials: &[KeyMaterial; 2],
        sequences: [u64; 2],
    ) -> TlsSession {
        let mut tails = cipher.has_tail().then(Box::<[KeyTail; 2]>::default);
        let mut keep = |direction: usize| {
            DirectionKeys::new(&materials[direction], tails.as_mut().map(|tails| &mut tails[direction]))
        };
        let session = TlsSession {
            keys: [keep(SEND), keep(RECEIVE)],
            sequences,
            tails,
            cipher,
            is_13,
            idle_records: 0,
            key_update_bytes: 0,
            renegotiations: 0,
            flags: TlsFlags::default(),
        };
        session.check();
        session
    }

    /// Returns the version of TLS.
    pub fn version(&self) -> ProtocolVersion {
        if self.is_13 { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 }
    }

    /// Returns the AEAD.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Returns true if the client has sent close_notify: the end of its data is not a truncation (RFC 8446 section
    /// 6.1).
    pub fn received_close_notify(&self) -> bool {
        self.flags.received_close_notify
    }

    /// Returns the number of records that the present key of the client has protected: none if the last one has changed the key.
    pub fn records_received(&self) -> u64 {
        self.sequences[RECEIVE]
    }

    /// Returns the memory outside the session itself, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.tails.as_ref().map_or(0, |tails| size_of_val(&**tails))
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        assert_eq!(self.tails.is_some(), self.cipher.has_tail(), "the tails are those of {:?}", self.cipher);
        if self.is_13 {
            assert_eq!(self.renegotiations, 0, "TLS 1.3 has no renegotiation");
        } else {
            assert_eq!(self.key_update_bytes, 0, "TLS 1.2 has no KeyUpdate");
        }
        assert!(!(self.flags.has_closed && self.flags.owes), "a closed session owes nothing");
    }

    pub(super) fn tail(&self, direction: usize) -> Option<&KeyTail> {
        self.tails.as_ref().map(|tails| &tails[direction])
    }

    /// Replaces the keys of a direction by the next ones (RFC 8446 section 7.2).
    pub(super) fn update_keys(&mut self, direction: usize) {
        let next = self.keys[direction].next(self.cipher, self.tail(direction));
        let tail = self.tails.as_mut().map(|tails| &mut tails[direction]);
        self.keys[direction] = DirectionKeys::new(&next, tail);
        // RFC 8446 section 5.3: the sequence number is set to zero whenever the key is changed.
        self.sequences[direction] = 0;
    }
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("version", &self.version())
            .field("cipher", &self.cipher)
            .field("sequences", &self.sequences)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}
