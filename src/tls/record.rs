//! The headers of records, and the sizes that RFC 8446 and RFC 5246 allow.

use rustls::ContentType;

use super::failure::{TlsFailure, TlsReason};
use rustls::AlertDescription;

/// The size of a record's header: type, version and length (RFC 8446 section 5.1).
pub const HEADER_BYTES: usize = 5;

/// The maximum size of the content of a record (RFC 8446 section 5.1, RFC 5246 section 6.2.1).
pub const CONTENT_BYTES_MAX: usize = 1 << 14;

/// The most bytes that the protection of TLS 1.3 may add to a record (RFC 8446 section 5.2). Content type, padding
/// and tag count.
pub const EXPANSION_BYTES_MAX_13: usize = 256;

/// The most bytes that the protection of TLS 1.2 may add to a record (RFC 5246 section 6.2.3).
pub const EXPANSION_BYTES_MAX_12: usize = 2048;

/// The size of the tag of every AEAD that is used.
pub const TAG_BYTES: usize = 16;

/// The size of an alert: level and description (RFC 8446 section 6).
pub const ALERT_BYTES: usize = 2;

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The type: for records that TLS 1.3 protects it says nothing (RFC 8446 section 5.2).
    pub content_type: ContentType,
    /// The version, for example 0x0303.
    pub version: u16,
    /// The number of bytes that follow the header.
    pub len: usize,
}

impl RecordHeader {
    /// Reads the header at the start of `input`. Returns `None` if the input is shorter.
    ///
    /// # Errors
    ///
    /// If the header is that of no version of TLS, or announces more than `len_max` bytes.
    pub fn read(input: &[u8], len_max: usize) -> Result<Option<RecordHeader>, TlsFailure> {
        let Some(&[kind, major, minor, high, low]) = input.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        // All versions from SSL 3.0 to TLS 1.3 have this major version (RFC 8446 section 5.1).
        if major != 3 {
            return Err(TlsFailure::new(TlsReason::Version, AlertDescription::ProtocolVersion));
        }
        // RFC 8446 section 5.1 and 5.2: an endpoint that receives a longer record must send record_overflow.
        if len > len_max {
            return Err(TlsFailure::new(TlsReason::Oversized, AlertDescription::RecordOverflow));
        }
        let version = u16::from_be_bytes([major, minor]);
        Ok(Some(RecordHeader { content_type: ContentType::from(kind), version, len }))
    }

    /// Returns the size of the record, header included.
    pub fn record_len(&self) -> usize {
        HEADER_BYTES + self.len
    }
}
