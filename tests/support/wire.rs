//! The bytes of WebSocket frames (RFC 6455) as a client writes and reads them, including malformed ones, and of raw TCP
//! messages.

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// A frame to send. By default it is valid: finished, masked, without reserved bits, with its real length.
#[derive(Clone)]
pub struct Frame {
    opcode: u8,
    payload: Vec<u8>,
    finished: bool,
    reserved: u8,
    key: Option<[u8; 4]>,
    announced: Option<u64>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
        let payload = payload.as_ref().to_vec();
        Frame {
            opcode,
            payload,
            finished: true,
            reserved: 0,
            key: Some([0x37, 0xfa, 0x21, 0x3d]),
            announced: None,
        }
    }

    pub fn text(payload: impl AsRef<[u8]>) -> Frame {
        Frame::new(TEXT, payload)
    }

    pub fn close(code: u16, reason: &str) -> Frame {
        Frame::new(CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// Clears the FIN bit: more fragments follow.
    pub fn unfinished(mut self) -> Frame {
        self.finished = false;
        self
    }

    pub fn unmasked(mut self) -> Frame {
        self.key = None;
        self
    }

    pub fn masked_with(mut self, key: [u8; 4]) -> Frame {
        self.key = Some(key);
        self
    }

    /// Sets the reserved bits RSV1 (4), RSV2 (2), RSV3 (1).
    pub fn reserved(mut self, bits: u8) -> Frame {
        self.reserved = bits;
        self
    }

    /// Announces a length other than the real one.
    pub fn announcing(mut self, len: u64) -> Frame {
        self.announced = Some(len);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let len = self.announced.unwrap_or(self.payload.len() as u64);
        let mask_bit = if self.key.is_some() { 0x80 } else { 0 };
        let mut out = vec![u8::from(self.finished) << 7 | self.reserved << 4 | self.opcode];
        match len {
            0..=125 => out.push(mask_bit | len as u8),
            126..=0xffff => {
                out.push(mask_bit | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                out.push(mask_bit | 127);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
        match self.key {
            None => out.extend_from_slice(&self.payload),
            Some(key) => {
                out.extend_from_slice(&key);
                out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            }
        }
        out
    }
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub finished: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
    /// `true` if RSV1 is set (RFC 7692, 6).
    pub compressed: bool,
}

/// Removes the first frame from `input` and returns it, or returns `None` if it is not complete. Panics if a server must
/// not send such a frame to a client without compression.
pub fn take_frame(input: &mut Vec<u8>) -> Option<Received> {
    let frame = take_compressible_frame(input)?;
    assert!(!frame.compressed, "reserved bits from the server");
    Some(frame)
}

/// As [`take_frame`], for a client with compression.
pub fn take_compressible_frame(input: &mut Vec<u8>) -> Option<Received> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    let allowed = if first & 0x0f == TEXT { 0x40 } else { 0 };
    assert_eq!(first & 0x70 & !allowed, 0, "reserved bits from the server");
    assert_eq!(second & 0x80, 0, "a masked frame from the server (RFC 6455, 5.1)");
    let (len, head) = match second {
        126 => (u64::from(u16::from_be_bytes(input.get(2..4)?.try_into().unwrap())), 4),
        127 => (u64::from_be_bytes(input.get(2..10)?.try_into().unwrap()), 10),
        short => (u64::from(short), 2),
    };
    let minimal = [2, 4, 10][usize::from(len > 125) + usize::from(len > 0xffff)];
    assert_eq!(head, minimal, "a length of {len} that is not minimal (RFC 6455, 5.2)");
    let end = head + usize::try_from(len).unwrap();
    let payload = input.get(head..end)?.to_vec();
    input.drain(..end);
    let (finished, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
    Some(Received { finished, opcode: first & 0x0f, payload, compressed })
}

/// Removes the first raw TCP message from `input` and returns it, or returns `None` if it is not complete.
pub fn take_raw(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = u64::from_be_bytes(input.get(..8)?.try_into().unwrap());
    let end = 8 + usize::try_from(len).unwrap();
    let text = input.get(8..end)?.to_vec();
    input.drain(..end);
    Some(text)
}

/// Returns the bytes of a raw TCP message.
pub fn raw(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_be_bytes(), text].concat()
}
