//! The naive twin of the decoder. It receives one byte at a time, keeps all bytes, and examines them again with each
//! byte. It was written from the RFC and independently of the decoder, and is therefore its oracle.

use std::str;

use crate::protocol::Violation;

use super::Rules;

/// A message or control frame, owned: its opcode and its payload.
pub type Owned = (u8, Vec<u8>);

#[derive(Default)]
pub struct Naive {
    /// The bytes of the incomplete frame.
    frame: Vec<u8>,
    /// The opcode and the payload of the incomplete message, without the payload of the incomplete frame.
    message: Option<Owned>,
}

impl Naive {
    pub fn byte(&mut self, byte: u8, rules: Rules<'_>) -> Result<Option<Owned>, Violation> {
        self.frame.push(byte);
        let Some((header_len, payload_len)) = self.header(rules)? else { return Ok(None) };
        let (key, masked) = self.frame[header_len - 4..].split_at(4);
        let payload: Vec<u8> = masked.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let opcode = self.frame[0] & 0x0F;
        let fin = self.frame[0] & 0x80 != 0;
        let whole = payload.len() as u64 == payload_len;
        if opcode >= 8 {
            return if whole { self.control(opcode, payload).map(Some) } else { Ok(None) };
        }
        let (opcode, mut text) = self.message.clone().unwrap_or((opcode, Vec::new()));
        text.extend(payload);
        if opcode == 1 {
            check_utf8(&text, whole && fin)?;
        }
        match (whole, fin) {
            (false, _) => return Ok(None),
            (true, false) => self.message = Some((opcode, text)),
            (true, true) => {
                *self = Naive::default();
                return Ok(Some((opcode, text)));
            }
        }
        self.frame.clear();
        Ok(None)
    }

    pub fn is_idle(&self) -> bool {
        self.frame.is_empty() && self.message.is_none()
    }

    /// Returns the lengths of header and payload, or `None` if the header is incomplete.
    fn header(&self, rules: Rules<'_>) -> Result<Option<(usize, u64)>, Violation> {
        let frame = &self.frame;
        let opcode = frame[0] & 0x0F;
        let control = opcode >= 8;
        if frame[0] & 0x70 > 0 {
            return Err(Violation::ReservedBits);
        } else if ![0, 1, 2, 8, 9, 10].contains(&opcode) {
            return Err(Violation::ReservedOpcode);
        } else if control && frame[0] < 0x80 {
            return Err(Violation::ControlFragmented);
        } else if frame.len() == 1 {
            return Ok(None);
        } else if frame[1] < 0x80 {
            return Err(Violation::Unmasked);
        } else if control && frame[1] > 0x80 + 125 {
            return Err(Violation::ControlTooLong);
        }
        let len_bytes = [0, 2, 8][usize::from(frame[1].saturating_sub(0x80 + 125))];
        if frame.len() < 2 + len_bytes {
            return Ok(None);
        }
        let len = frame[2..2 + len_bytes].iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
        let len = if len_bytes == 0 { u64::from(frame[1] - 0x80) } else { len };
        if len_bytes == 2 && len < 126 || len_bytes == 8 && len < 65536 {
            return Err(Violation::LengthNotMinimal);
        } else if len >= 1 << 63 {
            return Err(Violation::LengthTooLarge);
        } else if frame.len() < 6 + len_bytes {
            return Ok(None);
        }
        self.check_message(opcode, len, rules)?;
        Ok(Some((6 + len_bytes, len)))
    }

    fn check_message(&self, opcode: u8, len: u64, rules: Rules<'_>) -> Result<(), Violation> {
        let had = self.message.as_ref().map_or(0, |(_, payload)| payload.len());
        match opcode {
            0 if self.message.is_none() => Err(Violation::UnexpectedContinuation),
            1 | 2 if self.message.is_some() => Err(Violation::ExpectedContinuation),
            2 if !rules.binary => Err(Violation::Binary),
            0..=2 if had as u64 + len > rules.message_bytes_max as u64 => Err(Violation::MessageTooLong),
            _ => Ok(()),
        }
    }

    fn control(&mut self, opcode: u8, payload: Vec<u8>) -> Result<Owned, Violation> {
        self.frame.clear();
        if opcode == 8 && !payload.is_empty() {
            let code: u16 = match payload[..] {
                [high, low, ..] => u16::from(high) * 256 + u16::from(low),
                _ => return Err(Violation::CloseTooShort),
            };
            if code < 1000
                || [1004, 1005, 1006].contains(&code)
                || (1015..3000).contains(&code)
                || code > 4999
            {
                return Err(Violation::CloseCode);
            }
            check_utf8(&payload[2..], true)?;
        }
        Ok((opcode, payload))
    }
}

fn check_utf8(bytes: &[u8], whole: bool) -> Result<(), Violation> {
    match str::from_utf8(bytes) {
        Err(error) if whole || error.error_len().is_some() => Err(Violation::InvalidUtf8),
        _ => Ok(()),
    }
}
