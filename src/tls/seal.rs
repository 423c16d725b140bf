//! Records for the client.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use rustls::crypto::cipher::{NONCE_LEN, make_tls12_aad};
use rustls::{AlertDescription, ContentType, ProtocolVersion};

use super::keys::Cipher;
use super::record::{ALERT_BYTES, CONTENT_BYTES_MAX, HEADER_BYTES, TAG_BYTES};
use super::session::{SEND, TlsSession};
use crate::limits::{TLS_KEY_RECORDS_MAX, TLS_KEY_UPDATE_RECORDS};

/// The part of the nonce that stands before each record of AES-GCM in TLS 1.2 (RFC 5288 section 3).
pub(super) const EXPLICIT_NONCE_BYTES: usize = 8;

/// A KeyUpdate that does not ask for one of the client (RFC 8446 section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// The refusal of another handshake (RFC 5246 section 7.2.2): level and description.
const NO_RENEGOTIATION: [u8; ALERT_BYTES] = [WARNING, 100];

pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;

impl TlsSession {
    /// Appends `plain` to `output` as records, after what is owed. Records are filled, across the borders of slices.
    ///
    /// # Panics
    ///
    /// If the session has sent close_notify or an alert.
    pub fn seal<'a>(&mut self, plain: impl IntoIterator<Item = &'a [u8]>, output: &mut Vec<u8>) {
        assert!(!self.flags.has_closed, "data was sealed after close_notify");
        self.seal_owed(output);
        let aead = self.send_aead();
        let mut record = self.begin_record(output);
        let mut room = CONTENT_BYTES_MAX;
        for mut slice in plain {
            while slice.len() > room {
                let (head, tail) = slice.split_at(room);
                output.extend_from_slice(head);
                self.end_record(&aead, ContentType::ApplicationData, record, output);
                record = self.begin_record(output);
                (slice, room) = (tail, CONTENT_BYTES_MAX);
            }
            output.extend_from_slice(slice);
            room -= slice.len();
        }
        if room == CONTENT_BYTES_MAX {
            output.truncate(record);
        } else {
            self.end_record(&aead, ContentType::ApplicationData, record, output);
        }
    }

    /// Returns the number of bytes that [`seal`](TlsSession::seal) appends for `len` bytes of data, with what is owed.
    pub fn sealed_len(&self, len: usize) -> usize {
        len + len.div_ceil(CONTENT_BYTES_MAX) * self.record_overhead() + self.owed_len()
    }

    /// Returns true if [`seal_owed`](TlsSession::seal_owed) has something to send: the answer to a KeyUpdate, or to a
    /// request for another handshake. Either may wait for the next data.
    pub fn owes(&self) -> bool {
        self.flags.owes
    }

    /// Returns true if what is owed must not wait for the next data: a client of TLS 1.2 that has asked for another
    /// handshake may do nothing else until it is refused.
    pub fn owes_at_once(&self) -> bool {
        self.flags.owes && !self.is_13
    }

    /// Appends what is owed to the client to `output`, and a KeyUpdate of our own if the key has protected enough
    /// records.
    pub fn seal_owed(&mut self, output: &mut Vec<u8>) {
        if self.must_update_key() {
            // The message is the last one with the old keys (RFC 8446 section 4.6.3).
            self.seal_record(ContentType::Handshake, &KEY_UPDATE, output);
            self.update_keys(SEND);
        } else if self.flags.owes {
            self.seal_record(ContentType::Alert, &NO_RENEGOTIATION, output);
        }
        self.flags.owes = false;
    }

    /// Appends close_notify to `output`: the end of our data. Nothing may follow (RFC 8446 section 6.1). Appends
    /// nothing if it or a fatal alert has been sent.
    pub fn close_notify(&mut self, output: &mut Vec<u8>) {
        // RFC 8446 section 6: closure alerts have the level warning.
        self.close_with([WARNING, u8::from(AlertDescription::CloseNotify)], output);
    }

    /// Appends a fatal alert to `output`. Nothing may follow (RFC 8446 section 6.2). Appends nothing if it or a
    /// close_notify has been sent.
    pub fn alert(&mut self, description: AlertDescription, output: &mut Vec<u8>) {
        self.close_with([FATAL, u8::from(description)], output);
    }

    /// Returns the number of bytes that [`close_notify`](TlsSession::close_notify) or [`alert`](TlsSession::alert)
    /// appends.
    pub fn sealed_alert_len(&self) -> usize {
        if self.flags.has_closed { 0 } else { self.record_overhead() + ALERT_BYTES }
    }

    /// Returns true if the session has sent close_notify or a fatal alert. Nothing more may be sealed.
    pub fn has_closed(&self) -> bool {
        self.flags.has_closed
    }

    /// Returns true if the key has protected as many records as it may: the connection must be closed. This happens
    /// only with TLS 1.2, which cannot change keys without renegotiation (RFC 9325 section 4.4).
    pub fn is_worn_out(&self) -> bool {
        !self.is_13 && self.cipher != Cipher::ChaCha20Poly1305 && self.sequences[SEND] >= TLS_KEY_RECORDS_MAX
    }

    fn close_with(&mut self, alert: [u8; ALERT_BYTES], output: &mut Vec<u8>) {
        if self.flags.has_closed {
            return;
        }
        self.seal_record(ContentType::Alert, &alert, output);
        self.flags.has_closed = true;
        self.flags.owes = false;
    }

    /// Returns true if the next data is preceded by a KeyUpdate: the client has asked for one, or the key has protected enough
    /// records.
    pub fn must_update_key(&self) -> bool {
        self.is_13 && (self.flags.owes || self.sequences[SEND] >= TLS_KEY_UPDATE_RECORDS)
    }

    fn owed_len(&self) -> usize {
        if self.must_update_key() {
            self.record_overhead() + KEY_UPDATE.len()
        } else if self.flags.owes {
            self.record_overhead() + NO_RENEGOTIATION.len()
        } else {
            0
        }
    }

    /// Returns the number of bytes that protection adds to a record's content.
    fn record_overhead(&self) -> usize {
        // TLS 1.3 adds the type (RFC 8446 section 5.2).
        self.prefix_len() + usize::from(self.is_13) + TAG_BYTES
    }

    /// Returns the number of bytes before a record's content.
    fn prefix_len(&self) -> usize {
        let is_explicit = !self.is_13 && self.cipher != Cipher::ChaCha20Poly1305;
        HEADER_BYTES + if is_explicit { EXPLICIT_NONCE_BYTES } else { 0 }
    }

    fn seal_record(&mut self, content_type: ContentType, content: &[u8], output: &mut Vec<u8>) {
        let aead = self.send_aead();
        let record = self.begin_record(output);
        output.extend_from_slice(content);
        self.end_record(&aead, content_type, record, output);
    }

    fn send_aead(&self) -> LessSafeKey {
        self.keys[SEND].aead(self.cipher, self.tail(SEND))
    }

    /// Appends room for the bytes before a record's content. Returns the position of the record.
    fn begin_record(&self, output: &mut Vec<u8>) -> usize {
        let record = output.len();
        output.resize(record + self.prefix_len(), 0);
        record
    }

    /// Encrypts the content of the record at the end of `output`, and writes what stands before it and behind it.
    fn end_record(
        &mut self,
        aead: &LessSafeKey,
        content_type: ContentType,
        record: usize,
        output: &mut Vec<u8>,
    ) {
        let start = record + self.prefix_len();
        let content_len = output.len() - start;
        let nonce = self.nonce(SEND);
        let mut outer_type = content_type;
        if self.is_13 {
            output.push(u8::from(content_type));
            outer_type = ContentType::ApplicationData;
        } else if start > record + HEADER_BYTES {
            // RFC 5288 section 3: the explicit part must be unique. Ours is the sequence number with the mask of TLS
            // 1.3, as in rustls.
            output[record + HEADER_BYTES..start].copy_from_slice(&nonce[NONCE_LEN - EXPLICIT_NONCE_BYTES..]);
        }
        let len = output.len() + TAG_BYTES - record - HEADER_BYTES;
        let [high, low] = u16::try_from(len).expect("a record has at most 16 KiB").to_be_bytes();
        // RFC 8446 section 5.2: the version of the record is that of TLS 1.2.
        let header = [u8::from(outer_type), 3, 3, high, low];
        output[record..record + HEADER_BYTES].copy_from_slice(&header);
        let (nonce, content) = (Nonce::assume_unique_for_key(nonce), &mut output[start..]);
        let sealed = if self.is_13 {
            // RFC 8446 section 5.2: the additional data is the header.
            aead.seal_in_place_separate_tag(nonce, Aad::from(header), content)
        } else {
            let sequence = self.sequences[SEND];
            let aad = make_tls12_aad(sequence, content_type, ProtocolVersion::TLSv1_2, content_len);
            aead.seal_in_place_separate_tag(nonce, Aad::from(aad), content)
        };
        let tag = sealed.expect("a record is shorter than the AEAD allows");
        output.extend_from_slice(tag.as_ref());
        self.sequences[SEND] += 1;
    }

    /// Returns the nonce of the next record: the IV with the sequence number (RFC 8446 section 5.3, RFC 7905 section 2).
    pub(super) fn nonce(&self, direction: usize) -> [u8; NONCE_LEN] {
        let mut nonce = *self.keys[direction].iv();
        let sequence = self.sequences[direction].to_be_bytes();
        for (byte, sequence) in nonce[NONCE_LEN - sequence.len()..].iter_mut().zip(sequence) {
            *byte ^= sequence;
        }
        nonce
    }
}
