//! The encoding of frames: those of the server and, for tests and the load generator, those of a client.

use bytes::BufMut;

use super::frame::{COMPRESSED, CONTROL_BYTES_MAX, Opcode};
use super::mask;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Returns the length of the header that [`header`] appends for a payload of this length: 2, 4 or 10.
pub const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Appends the header of an unfragmented and unmasked frame. The payload must follow it.
#[inline]
pub fn header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    write_header(out, opcode, payload_len, 0);
}

/// Appends an unfragmented and unmasked frame.
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(header_len(payload.len()) + payload.len());
    header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends an unfragmented and unmasked frame with a payload that permessage-deflate has compressed.
pub fn compressed_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let start = out.len();
    frame(out, opcode, payload);
    out[start] |= COMPRESSED;
}

/// Returns the payload of an unmasked frame.
pub fn payload(frame: &[u8]) -> &[u8] {
    let header_len = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    &frame[header_len..]
}

/// Appends a Close with a code and a reason. The reason is truncated to the complete characters that fit into a control
/// frame (123 bytes).
pub fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = truncate(reason, CONTROL_BYTES_MAX - 2);
    header(out, Opcode::Close, 2 + reason.len());
    out.put_u16(code);
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a Close without a code, which is the reply to a Close without a code.
pub fn close_without_code(out: &mut Vec<u8>) {
    header(out, Opcode::Close, 0);
}

/// Appends the header of an unfragmented frame of a client. The payload must follow, masked with the key
/// ([`mask::unmask`], which is its own inverse).
pub fn client_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize, key: [u8; 4]) {
    write_header(out, opcode, payload_len, MASKED);
    out.extend_from_slice(&key);
}

/// Appends an unfragmented frame of a client.
pub fn client_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    client_header(out, opcode, payload.len(), key);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::unmask(&mut out[start..], key, 0);
}

/// 5.2: "the minimal number of bytes MUST be used to encode the length".
fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize, masked: u8) {
    let first = FIN | opcode as u8;
    match payload_len {
        0..=125 => out.put_slice(&[first, masked | payload_len as u8]),
        126..=0xFFFF => {
            out.put_slice(&[first, masked | 126]);
            out.put_u16(payload_len as u16);
        }
        _ => {
            out.put_slice(&[first, masked | 127]);
            out.put_u64(payload_len as u64);
        }
    }
}

/// Returns the longest prefix of the text that has at most this many bytes and ends with a complete character.
fn truncate(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_their_shortest_form() {
        for (len, expected) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xFFFF, &[0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            header(&mut out, Opcode::Text, len);
            assert_eq!(out, expected);
            assert_eq!(out.len(), header_len(len));
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // 5.7: "A single-frame unmasked text message", and a masked one.
        let mut out = Vec::new();
        frame(&mut out, Opcode::Text, b"Hello");
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F]);
        out.clear();
        client_frame(&mut out, Opcode::Text, b"Hello", [0x37, 0xFA, 0x21, 0x3D]);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]);
    }

    #[test]
    fn a_reason_is_truncated_to_the_frame() {
        for (reason, len) in [("", 0), ("why", 3), (&*"x".repeat(123), 123), (&*"x".repeat(124), 123)] {
            let mut out = Vec::new();
            close(&mut out, 1001, reason);
            assert_eq!(out[..4], [0x88, 2 + len, 0x03, 0xE9]);
            assert_eq!(&out[4..], &reason.as_bytes()[..usize::from(len)]);
        }
    }

    #[test]
    fn a_truncated_reason_ends_with_a_complete_character() {
        for before in 118..=123 {
            let mut out = Vec::new();
            close(&mut out, 1001, &("x".repeat(before) + "😀"));
            let kept = std::str::from_utf8(&out[4..]).expect("whole characters");
            assert_eq!(kept.len(), if before <= 119 { before + 4 } else { before });
        }
    }
}
