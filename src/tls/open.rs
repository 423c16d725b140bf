//! Records from the client: decrypted in place, and handled unless they are data.

use std::ops::Range;

use aws_lc_rs::aead::{Aad, Nonce};
use rustls::crypto::cipher::{NONCE_LEN, make_tls12_aad};
use rustls::{AlertDescription, ContentType, HandshakeType, ProtocolVersion};

use super::failure::{TlsFailure, TlsReason};
use super::keys::Cipher;
use super::record::{
    ALERT_BYTES, CONTENT_BYTES_MAX, EXPANSION_BYTES_MAX_12, EXPANSION_BYTES_MAX_13, HEADER_BYTES,
    RecordHeader, TAG_BYTES,
};
use super::seal::{EXPLICIT_NONCE_BYTES, FATAL, WARNING};
use super::session::{RECEIVE, TlsSession};
use crate::limits::{TLS_IDLE_RECORDS_MAX, TLS_RENEGOTIATIONS_MAX};

/// The first bytes of each KeyUpdate: its type and a length of one byte (RFC 8446 section 4.6.3). The request follows.
const KEY_UPDATE_HEAD: [u8; 4] = [24, 0, 0, 1];

/// The result of opening a record. `used` is the number of bytes that the caller must remove from the start of its
/// input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The input holds no complete record. The next one is complete when the input has `needed` bytes.
    Incomplete {
        /// The size of the record, or of a header if not even that is complete.
        needed: usize,
    },
    /// A record with data.
    Data {
        /// The size of the record.
        used: usize,
        /// The part of the input that now holds the plaintext. It may be empty.
        plain: Range<usize>,
    },
    /// A record that the session has handled itself. [`TlsSession::owes`] tells if there is something to send now.
    Handled {
        /// The size of the record.
        used: usize,
    },
    /// The client's close_notify: no data follows. All of the input has been used: what follows a close_notify must
    /// be ignored (RFC 8446 section 6.1).
    CloseNotify {
        /// The size of the input.
        used: usize,
    },
}

impl TlsSession {
    /// Opens the first record of `input` in place.
    ///
    /// # Errors
    ///
    /// If the client broke a rule, or sent a fatal alert. The caller sends the alert of the failure with
    /// [`alert`](TlsSession::alert), and closes the connection.
    pub fn open(&mut self, input: &mut [u8]) -> Result<Opened, TlsFailure> {
        if self.flags.received_close_notify {
            return Ok(Opened::CloseNotify { used: input.len() });
        }
        let Some(header) = self.read_header(input)? else {
            return Ok(Opened::Incomplete { needed: HEADER_BYTES });
        };
        let used = header.record_len();
        let Some(record) = input.get_mut(..used) else {
            return Ok(Opened::Incomplete { needed: used });
        };
        let (content_type, plain) =
            if self.is_13 { self.decrypt_13(record)? } else { self.decrypt_12(header, record)? };
        // RFC 8446 section 5.1: no other record may stand between the parts of a handshake message.
        if self.key_update_bytes > 0 && content_type != ContentType::Handshake {
            return Err(unexpected());
        }
        match content_type {
            ContentType::ApplicationData => {
                if plain.is_empty() {
                    self.count_idle_record()?;
                } else {
                    self.idle_records = 0;
                }
                Ok(Opened::Data { used, plain })
            }
            ContentType::Alert => {
                self.handle_alert(&record[plain])?;
                let closed = self.flags.received_close_notify;
                Ok(if closed { Opened::CloseNotify { used: input.len() } } else { Opened::Handled { used } })
            }
            ContentType::Handshake => {
                self.handle_handshake(&record[plain])?;
                Ok(Opened::Handled { used })
            }
            // RFC 8446 section 5: a change_cipher_spec is dropped only before the client's Finished. RFC 5246 section
            // 7.1: it announces the end of a handshake, and there is none.
            _ => Err(unexpected()),
        }
    }

    /// Reads the header of the next record. A record that is too long or of the wrong kind fails before its bytes are
    /// waited for.
    fn read_header(&self, input: &[u8]) -> Result<Option<RecordHeader>, TlsFailure> {
        let expansion = if self.is_13 { EXPANSION_BYTES_MAX_13 } else { EXPANSION_BYTES_MAX_12 };
        let Some(header) = RecordHeader::read(input, CONTENT_BYTES_MAX + expansion)? else {
            return Ok(None);
        };
        if self.is_13 {
            // RFC 8446 section 5.2: all protected records have this type.
            if header.content_type != ContentType::ApplicationData {
                return Err(unexpected());
            }
        } else if header.version != u16::from(ProtocolVersion::TLSv1_2) {
            return Err(TlsFailure::new(TlsReason::Version, AlertDescription::ProtocolVersion));
        }
        Ok(Some(header))
    }

    /// Decrypts a record of TLS 1.3 (RFC 8446 section 5.2).
    fn decrypt_13(&mut self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), TlsFailure> {
        let (header, body) = record.split_first_chunk_mut::<HEADER_BYTES>().expect("a record has a header");
        // RFC 8446 section 5.2: the additional data is the header as it was sent.
        let (nonce, aad) = (self.nonce(RECEIVE), Aad::from(*header));
        let opened = self.keys[RECEIVE].aead(self.cipher, self.tail(RECEIVE)).open_in_place(
            Nonce::assume_unique_for_key(nonce),
            aad,
            body,
        );
        // RFC 8446 section 5.2: if the decryption fails, the alert is bad_record_mac.
        let inner = opened.map_err(|_| bad_mac())?;
        self.sequences[RECEIVE] += 1;
        // RFC 8446 section 5.4: the full inner plaintext must not exceed 2^14 + 1 bytes.
        if inner.len() > CONTENT_BYTES_MAX + 1 {
            return Err(TlsFailure::new(TlsReason::Oversized, AlertDescription::RecordOverflow));
        }
        // RFC 8446 section 5.4: the type is the last byte that is not zero. If there is none, the alert is
        // unexpected_message.
        let end = inner.iter().rposition(|byte| *byte != 0).ok_or_else(unexpected)?;
        let content_type = ContentType::from(inner[end]);
        // RFC 8446 section 5.4: alerts and handshake messages must not be empty.
        if end == 0 && content_type != ContentType::ApplicationData {
            return Err(unexpected());
        }
        Ok((content_type, HEADER_BYTES..HEADER_BYTES + end))
    }

    /// Decrypts a record of TLS 1.2 (RFC 5246 section 6.2.3.3, RFC 5288 section 3, RFC 7905 section 2).
    fn decrypt_12(
        &mut self,
        header: RecordHeader,
        record: &mut [u8],
    ) -> Result<(ContentType, Range<usize>), TlsFailure> {
        let mut nonce = self.nonce(RECEIVE);
        let mut start = HEADER_BYTES;
        if self.cipher != Cipher::ChaCha20Poly1305 {
            // RFC 5288 section 3: four bytes of the nonce are secret, and the client chooses the others.
            let salt = NONCE_LEN - EXPLICIT_NONCE_BYTES;
            let explicit = &record[HEADER_BYTES..];
            let explicit = explicit.first_chunk::<EXPLICIT_NONCE_BYTES>().ok_or_else(bad_mac)?;
            nonce[..salt].copy_from_slice(&self.keys[RECEIVE].iv()[..salt]);
            nonce[salt..].copy_from_slice(explicit);
            start += EXPLICIT_NONCE_BYTES;
        }
        let body = &mut record[start..];
        let len = body.len().checked_sub(TAG_BYTES).ok_or_else(bad_mac)?;
        // RFC 5246 section 6.2.1: the content must not exceed 2^14 bytes.
        if len > CONTENT_BYTES_MAX {
            return Err(TlsFailure::new(TlsReason::Oversized, AlertDescription::RecordOverflow));
        }
        let aad = make_tls12_aad(self.sequences[RECEIVE], header.content_type, ProtocolVersion::TLSv1_2, len);
        self.keys[RECEIVE]
            .aead(self.cipher, self.tail(RECEIVE))
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), body)
            .map_err(|_| bad_mac())?;
        self.sequences[RECEIVE] += 1;
        // RFC 5246 section 6.2.1: only data may be empty.
        if len == 0 && header.content_type != ContentType::ApplicationData {
            return Err(unexpected());
        }
        Ok((header.content_type, start..start + len))
    }

    fn handle_alert(&mut self, alert: &[u8]) -> Result<(), TlsFailure> {
        // RFC 8446 section 5.1: a record holds exactly one alert.
        let &[level, description] = <&[u8; ALERT_BYTES]>::try_from(alert)
            .map_err(|_| TlsFailure::new(TlsReason::Malformed, AlertDescription::DecodeError))?;
        let description = AlertDescription::from(description);
        match (level, description) {
            (WARNING | FATAL, AlertDescription::CloseNotify) => {
                self.flags.received_close_notify = true;
                Ok(())
            }
            // RFC 8446 section 6.1: user_canceled is followed by close_notify.
            (WARNING, AlertDescription::UserCanceled) => self.count_idle_record(),
            // RFC 8446 section 6.2: all other alerts are errors, whatever their level is.
            (WARNING | FATAL, _) if self.is_13 => Err(TlsFailure::of_peer(description)),
            (FATAL, _) => Err(TlsFailure::of_peer(description)),
            // RFC 5246 section 7.2.2: after a warning, the connection can go on.
            (WARNING, _) => self.count_idle_record(),
            _ => Err(TlsFailure::new(TlsReason::Malformed, AlertDescription::IllegalParameter)),
        }
    }

    fn handle_handshake(&mut self, message: &[u8]) -> Result<(), TlsFailure> {
        self.count_idle_record()?;
        if self.is_13 { self.handle_key_update(message) } else { self.refuse_renegotiation(message) }
    }

    /// Handles a KeyUpdate or a part of one (RFC 8446 section 4.6.3). Clients may send no other handshake message: a
    /// NewSessionTicket is for servers, and we never ask for a certificate after the handshake.
    fn handle_key_update(&mut self, bytes: &[u8]) -> Result<(), TlsFailure> {
        for (nth, byte) in bytes.iter().enumerate() {
            let at = usize::from(self.key_update_bytes);
            match KEY_UPDATE_HEAD.get(at) {
                Some(expected) if byte == expected => self.key_update_bytes += 1,
                Some(_) if at == 0 => return Err(unexpected()),
                Some(_) => {
                    return Err(TlsFailure::new(TlsReason::Malformed, AlertDescription::DecodeError));
                }
                None => {
                    // RFC 8446 section 5.1: messages before a change of keys must end with their record.
                    if nth + 1 != bytes.len() {
                        return Err(unexpected());
                    }
                    self.key_update_bytes = 0;
                    return self.follow_key_update(*byte);
                }
            }
        }
        Ok(())
    }

    fn follow_key_update(&mut self, request: u8) -> Result<(), TlsFailure> {
        const UPDATE_NOT_REQUESTED: u8 = 0;
        const UPDATE_REQUESTED: u8 = 1;
        match request {
            UPDATE_NOT_REQUESTED => {}
            // RFC 8446 section 4.6.3: several requests may be answered by a single update, before our next data.
            UPDATE_REQUESTED => self.flags.owes = !self.flags.has_closed,
            // RFC 8446 section 4.6.3: any other value is an illegal_parameter.
            _ => return Err(TlsFailure::new(TlsReason::Malformed, AlertDescription::IllegalParameter)),
        }
        self.update_keys(RECEIVE);
        Ok(())
    }

    /// Refuses a ClientHello of TLS 1.2 after the handshake with a warning, as RFC 5246 section 7.2.2 has it: the
    /// client decides if it goes on without. It may ask only so many times.
    fn refuse_renegotiation(&mut self, message: &[u8]) -> Result<(), TlsFailure> {
        let whole = message.split_first_chunk::<4>().filter(|([kind, high, middle, low], rest)| {
            *kind == u8::from(HandshakeType::ClientHello)
                && rest.len() == u32::from_be_bytes([0, *high, *middle, *low]) as usize
        });
        if whole.is_none() {
            return Err(unexpected());
        }
        if self.renegotiations == TLS_RENEGOTIATIONS_MAX {
            return Err(TlsFailure::new(TlsReason::Renegotiation, AlertDescription::UnexpectedMessage));
        }
        self.renegotiations += 1;
        self.flags.owes = !self.flags.has_closed;
        Ok(())
    }

    fn count_idle_record(&mut self) -> Result<(), TlsFailure> {
        if self.idle_records == TLS_IDLE_RECORDS_MAX {
            return Err(TlsFailure::new(TlsReason::Flood, AlertDescription::UnexpectedMessage));
        }
        self.idle_records += 1;
        Ok(())
    }
}

fn unexpected() -> TlsFailure {
    TlsFailure::new(TlsReason::UnexpectedMessage, AlertDescription::UnexpectedMessage)
}

fn bad_mac() -> TlsFailure {
    TlsFailure::new(TlsReason::BadMac, AlertDescription::BadRecordMac)
}
