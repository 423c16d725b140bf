//! The payload of a message that comes in pieces, or compressed.

use super::{ClientMessage, Rules};
use crate::protocol::websocket::frame::{ClientFrameHeader, Opcode};
use crate::protocol::{Utf8Gatherer, Violation};

/// The payload of a message, as far as it has come. Its memory grows with the received bytes.
#[derive(Debug)]
pub(super) enum GatheredPayload {
    Text(Utf8Gatherer),
    Binary(Vec<u8>),
    /// A text message in its compressed form.
    DeflatedText(Vec<u8>),
    /// A binary message in its compressed form.
    DeflatedBinary(Vec<u8>),
    /// A text message that was complete and is inflated.
    Inflated(String),
}

impl GatheredPayload {
    /// Returns the empty payload of a message that begins with this frame.
    pub fn of(header: &ClientFrameHeader) -> GatheredPayload {
        match (header.opcode, header.compressed) {
            (Opcode::Text, false) => GatheredPayload::Text(Utf8Gatherer::default()),
            (Opcode::Text, true) => GatheredPayload::DeflatedText(Vec::new()),
            (_, false) => GatheredPayload::Binary(Vec::new()),
            (_, true) => GatheredPayload::DeflatedBinary(Vec::new()),
        }
    }

    /// Appends a piece, which is unmasked.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Violation> {
        match self {
            GatheredPayload::Text(text) => text.push(piece)?,
            GatheredPayload::Binary(bytes)
            | GatheredPayload::DeflatedText(bytes)
            | GatheredPayload::DeflatedBinary(bytes) => bytes.extend_from_slice(piece),
            GatheredPayload::Inflated(_) => unreachable!("a message that was complete gets no more pieces"),
        }
        Ok(())
    }

    /// Returns the payload in its inflated form, after its last piece was added. Only now is it known whether a compressed
    /// text is UTF-8 (RFC 6455, 8.1).
    pub fn inflated(self, rules: Rules<'_>) -> Result<GatheredPayload, Violation> {
        let inflate = |payload: &[u8]| {
            let compression = rules.compression.expect("a message is compressed only if that was negotiated");
            compression.inflate(payload, rules.message_bytes_max)
        };
        Ok(match self {
            GatheredPayload::DeflatedText(payload) => {
                let text = String::from_utf8(inflate(&payload)?).map_err(|_| Violation::InvalidUtf8)?;
                GatheredPayload::Inflated(text)
            }
            GatheredPayload::DeflatedBinary(payload) => GatheredPayload::Binary(inflate(&payload)?),
            payload => payload,
        })
    }

    /// Returns the message, after its last piece was added and it was inflated.
    pub fn message(&self) -> Result<ClientMessage<'_>, Violation> {
        Ok(match self {
            GatheredPayload::Text(text) => ClientMessage::Text(text.finish()?),
            GatheredPayload::Binary(bytes) => ClientMessage::Binary(bytes),
            GatheredPayload::Inflated(text) => ClientMessage::Text(text),
            GatheredPayload::DeflatedText(_) | GatheredPayload::DeflatedBinary(_) => {
                unreachable!("a message is inflated when it becomes complete")
            }
        })
    }

    /// Returns the length.
    pub fn len(&self) -> usize {
        match self {
            GatheredPayload::Text(text) => text.len(),
            GatheredPayload::Binary(bytes)
            | GatheredPayload::DeflatedText(bytes)
            | GatheredPayload::DeflatedBinary(bytes) => bytes.len(),
            GatheredPayload::Inflated(text) => text.len(),
        }
    }

    /// Returns the memory in bytes.
    pub fn capacity(&self) -> usize {
        match self {
            GatheredPayload::Text(text) => text.capacity(),
            GatheredPayload::Binary(bytes)
            | GatheredPayload::DeflatedText(bytes)
            | GatheredPayload::DeflatedBinary(bytes) => bytes.capacity(),
            GatheredPayload::Inflated(text) => text.capacity(),
        }
    }
}
