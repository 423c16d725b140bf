//! The header of a client's frame (RFC 6455, section 5.2).

use crate::protocol::Violation;

/// The length of the longest header: two bytes, a length of eight and a key of four.
pub const HEADER_BYTES_MAX: usize = 14;

/// The maximum length of the payload of a control frame, in bytes (5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The reserved bits of the first byte.
const RESERVED: u8 = 0x70;

/// RSV1, the "Per-Message Compressed" bit (RFC 7692, 6).
pub const COMPRESSED: u8 = 0x40;

/// The opcode of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The frame continues a message.
    Continuation = 0x0,
    /// The frame begins a text message.
    Text = 0x1,
    /// The frame begins a binary message.
    Binary = 0x2,
    /// The frame begins or completes the closing handshake.
    Close = 0x8,
    /// The frame asks for a Pong with the same payload.
    Ping = 0x9,
    /// The frame replies to a Ping, or is unsolicited.
    Pong = 0xA,
}

impl Opcode {
    /// Returns whether the frame is a control frame, which may come between the fragments of a message (5.4).
    pub fn is_control(self) -> bool {
        self as u8 >= Opcode::Close as u8
    }

    fn parse(bits: u8) -> Result<Opcode, Violation> {
        match bits {
            0x0 => Ok(Opcode::Continuation),
            0x1 => Ok(Opcode::Text),
            0x2 => Ok(Opcode::Binary),
            0x8 => Ok(Opcode::Close),
            0x9 => Ok(Opcode::Ping),
            0xA => Ok(Opcode::Pong),
            // "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_."
            _ => Err(Violation::ReservedOpcode),
        }
    }
}

/// The header of a frame that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFrameHeader {
    /// `true` if the frame is the last of its message.
    pub fin: bool,
    pub opcode: Opcode,
    /// `true` if the frame begins a message that is compressed (RFC 7692, 6).
    pub compressed: bool,
    /// The key with which the payload is masked.
    pub key: [u8; 4],
    /// The length of the payload in bytes. It is below 2^63.
    pub payload_len: u64,
}

impl ClientFrameHeader {
    /// Parses a header. Returns it with its length, or `None` if it is incomplete.
    ///
    /// The bytes of an incomplete header are validated too, beginning with the first byte. `deflates`: permessage-deflate was
    /// negotiated.
    #[inline]
    pub fn parse(bytes: &[u8], deflates: bool) -> Result<Option<(ClientFrameHeader, usize)>, Violation> {
        let [first, rest @ ..] = bytes else { return Ok(None) };
        let (fin, opcode, compressed) = parse_first(*first, deflates)?;
        let [second, rest @ ..] = rest else { return Ok(None) };
        check_second(*second, opcode)?;
        let Some((payload_len, rest)) = parse_len(*second & 0x7F, rest)? else { return Ok(None) };
        let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let header = ClientFrameHeader { fin, opcode, compressed, key: *key, payload_len };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

#[inline]
fn parse_first(byte: u8, deflates: bool) -> Result<(bool, Opcode, bool), Violation> {
    // "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values."
    let compressed = byte & RESERVED != 0;
    if compressed && !(deflates && may_be_compressed(byte)) {
        return Err(Violation::ReservedBits);
    }
    let fin = byte & 0x80 != 0;
    let opcode = Opcode::parse(byte & 0x0F)?;
    // 5.5: "All control frames [...] MUST NOT be fragmented."
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }
    Ok((fin, opcode, compressed))
}

/// Returns whether a first byte with reserved bits is allowed if permessage-deflate was negotiated. RFC 7692, 6: RSV1 is set
/// "only on the first fragment of a message", and 6.1: not on control frames.
#[cold]
fn may_be_compressed(byte: u8) -> bool {
    let is_first_of_data = matches!(byte & 0x0F, 0x1 | 0x2);
    byte & RESERVED == COMPRESSED && is_first_of_data
}

#[inline]
fn check_second(byte: u8, opcode: Opcode) -> Result<(), Violation> {
    // 5.1: "The server MUST close the connection upon receiving a frame that is not masked."
    if byte & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    // 5.5: "All control frames MUST have a payload length of 125 bytes or less".
    if opcode.is_control() && usize::from(byte & 0x7F) > CONTROL_BYTES_MAX {
        return Err(Violation::ControlTooLong);
    }
    Ok(())
}

/// Parses the length of the payload. Returns it with the bytes behind it.
#[inline]
fn parse_len(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    let (len, rest, least) = match short {
        126 => {
            let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*len)), rest, 126)
        }
        127 => {
            let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(*len), rest, 1 << 16)
        }
        len => return Ok(Some((u64::from(len), rest))),
    };
    // "the minimal number of bytes MUST be used to encode the length".
    if len < least {
        return Err(Violation::LengthNotMinimal);
    }
    // "the most significant bit MUST be 0".
    if len >> 63 != 0 {
        return Err(Violation::LengthTooLarge);
    }
    Ok(Some((len, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::websocket::encode;

    const KEY: [u8; 4] = [1, 2, 3, 4];

    /// Asserts that a bad header is incomplete at every prefix, up to the byte that makes it bad.
    fn fails_at(bytes: &[u8], bad: usize, violation: Violation) {
        for len in 0..=bytes.len() {
            let expected = if len > bad { Err(violation) } else { Ok(None) };
            assert_eq!(ClientFrameHeader::parse(&bytes[..len], false), expected, "{bytes:X?} up to {len}");
        }
    }

    fn check_every_prefix(opcode: Opcode, payload_len: usize) {
        let mut bytes = Vec::new();
        encode::client_header(&mut bytes, opcode, payload_len, KEY);
        let whole = Ok(Some((
            ClientFrameHeader {
                fin: true,
                opcode,
                compressed: false,
                key: KEY,
                payload_len: payload_len as u64,
            },
            bytes.len(),
        )));
        assert!(bytes.len() <= HEADER_BYTES_MAX);
        for len in 0..bytes.len() {
            assert_eq!(ClientFrameHeader::parse(&bytes[..len], false), Ok(None));
        }
        assert_eq!(ClientFrameHeader::parse(&bytes, false), whole);
        bytes.extend_from_slice(b"payload");
        assert_eq!(ClientFrameHeader::parse(&bytes, false), whole, "bytes behind the header do not matter");
    }

    #[test]
    fn every_prefix_of_every_form() {
        for payload_len in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, usize::MAX >> 1] {
            for opcode in [Opcode::Continuation, Opcode::Text, Opcode::Binary] {
                check_every_prefix(opcode, payload_len);
            }
            for opcode in [Opcode::Close, Opcode::Ping, Opcode::Pong] {
                check_every_prefix(opcode, payload_len.min(CONTROL_BYTES_MAX));
            }
        }
    }

    #[test]
    fn every_first_byte() {
        for first in 0..=0xFF_u8 {
            let expected = match (first & 0x70, first & 0x0F, first & 0x80) {
                (0, 0x0..=0x2, _) | (0, 0x8..=0xA, 0x80) => Ok(None),
                (0, 0x8..=0xA, _) => Err(Violation::ControlFragmented),
                (0, _, _) => Err(Violation::ReservedOpcode),
                _ => Err(Violation::ReservedBits),
            };
            assert_eq!(ClientFrameHeader::parse(&[first], false), expected, "{first:X}");
        }
    }

    #[test]
    fn every_second_byte() {
        for second in 0..0x80 {
            assert_eq!(ClientFrameHeader::parse(&[0x81, second], false), Err(Violation::Unmasked));
            assert_eq!(ClientFrameHeader::parse(&[0x82, 0x80 | second, 0xFF], false), Ok(None));
            let control = if second <= 125 { Ok(None) } else { Err(Violation::ControlTooLong) };
            assert_eq!(ClientFrameHeader::parse(&[0x89, 0x80 | second], false), control);
        }
    }

    #[test]
    fn lengths_that_are_not_allowed() {
        fails_at(&[0x81, 0xFE, 0, 125, 1, 2, 3, 4], 3, Violation::LengthNotMinimal);
        fails_at(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 1, 2, 3, 4], 9, Violation::LengthNotMinimal);
        fails_at(&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 9, Violation::LengthTooLarge);
    }
}
