//! Decodes what a server sends after the handshake: WebSocket messages (RFC 6455, 5) and the texts of raw TCP.

use crate::protocol::raw::HEADER_BYTES;
use crate::protocol::websocket::close;
use crate::protocol::websocket::frame::{CONTROL_BYTES_MAX, Opcode};

/// The maximum length of a message, in bytes. It bounds the memory that a server can take: servers send up to
/// `message-bytes-max`, which is 64 KiB by default and may be larger for applications.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

/// An item of the stream from a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerItem {
    /// A complete event, or the greeting.
    Text(String),
    /// A Ping, whose payload the Pong repeats.
    Ping(Vec<u8>),
    /// The end of a WebSocket: the code, if it has one, and the reason.
    Close(Option<u16>, String),
}

/// The framing of a connection.
#[derive(Debug)]
pub(super) enum ServerFraming {
    /// WebSocket. The fragments of a message that is not complete.
    WebSocket(Option<Vec<u8>>),
    /// Raw TCP.
    Raw,
}

/// The reason why bytes are not from a server.
pub(super) type FramingError = String;

impl ServerFraming {
    /// Decodes the first item of the input. Returns the number of bytes that were consumed, and the item if it is complete.
    pub(super) fn next(&mut self, input: &[u8]) -> Result<(usize, Option<ServerItem>), FramingError> {
        let ServerFraming::WebSocket(fragments) = self else { return raw_text(input) };
        let mut consumed = 0;
        while let Some((header, len)) = FrameHeader::parse(&input[consumed..])? {
            let Some(payload) = input[consumed + len..].get(..header.payload_len) else { break };
            consumed += len + header.payload_len;
            if let Some(item) = header.item(payload.to_vec(), fragments)? {
                return Ok((consumed, Some(item)));
            }
        }
        Ok((consumed, None))
    }
}

fn raw_text(input: &[u8]) -> Result<(usize, Option<ServerItem>), FramingError> {
    let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok((0, None)) };
    let len = checked_len(u64::from_be_bytes(*header))?;
    match rest.get(..len) {
        Some(text) => Ok((HEADER_BYTES + len, Some(ServerItem::Text(utf8(text.to_vec())?)))),
        None => Ok((0, None)),
    }
}

/// The header of a server's frame.
struct FrameHeader {
    fin: bool,
    opcode: u8,
    payload_len: usize,
}

impl FrameHeader {
    /// Parses a header. Returns it with its length, or `None` if it is incomplete.
    fn parse(input: &[u8]) -> Result<Option<(FrameHeader, usize)>, FramingError> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        if first & RESERVED != 0 || second & MASKED != 0 {
            return Err("a frame is masked, or has reserved bits".into());
        }
        let (len, header_len) = match second {
            126 => match rest.first_chunk::<2>() {
                Some(len) => (u64::from(u16::from_be_bytes(*len)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(len) => (u64::from_be_bytes(*len), 10),
                None => return Ok(None),
            },
            len => (u64::from(*len), 2),
        };
        let header =
            FrameHeader { fin: first & FIN != 0, opcode: first & OPCODE, payload_len: checked_len(len)? };
        let is_control = header.opcode >= Opcode::Close as u8;
        if is_control && (!header.fin || header.payload_len > CONTROL_BYTES_MAX) {
            return Err("a control frame is fragmented or too long".into());
        }
        Ok(Some((header, header_len)))
    }

    /// Returns the item that a frame completes. A message may have any number of fragments.
    fn item(
        &self,
        payload: Vec<u8>,
        fragments: &mut Option<Vec<u8>>,
    ) -> Result<Option<ServerItem>, FramingError> {
        const TEXT: u8 = Opcode::Text as u8;
        const CONTINUATION: u8 = Opcode::Continuation as u8;
        const PING: u8 = Opcode::Ping as u8;
        const PONG: u8 = Opcode::Pong as u8;
        const CLOSE: u8 = Opcode::Close as u8;
        match (self.opcode, fragments.take()) {
            (PING, before) => {
                *fragments = before;
                Ok(Some(ServerItem::Ping(payload)))
            }
            (PONG, before) => {
                *fragments = before;
                Ok(None)
            }
            (CLOSE, _) => {
                let closed = close::parse(&payload).map_err(|_| "a Close is malformed")?;
                let (code, reason) = closed.unzip();
                Ok(Some(ServerItem::Close(code, reason.unwrap_or_default().to_owned())))
            }
            (TEXT, None) => self.add(Vec::new(), payload, fragments),
            (CONTINUATION, Some(before)) => self.add(before, payload, fragments),
            _ => Err("a frame is binary, unknown or out of place".into()),
        }
    }

    fn add(
        &self,
        mut before: Vec<u8>,
        payload: Vec<u8>,
        fragments: &mut Option<Vec<u8>>,
    ) -> Result<Option<ServerItem>, FramingError> {
        checked_len((before.len() + payload.len()) as u64)?;
        if before.is_empty() {
            before = payload;
        } else {
            before.extend_from_slice(&payload);
        }
        if self.fin {
            return Ok(Some(ServerItem::Text(utf8(before)?)));
        }
        *fragments = Some(before);
        Ok(None)
    }
}

fn checked_len(len: u64) -> Result<usize, FramingError> {
    let fits = usize::try_from(len).ok().filter(|len| *len <= MESSAGE_BYTES_MAX);
    fits.ok_or_else(|| format!("a message has {len} bytes"))
}

fn utf8(text: Vec<u8>) -> Result<String, FramingError> {
    String::from_utf8(text).map_err(|_| "a text is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::websocket::encode;

    /// Decodes a stream that comes in pieces of this length.
    fn items(framing: &mut ServerFraming, stream: &[u8], piece: usize) -> Result<Vec<ServerItem>, String> {
        let (mut input, mut items) = (Vec::new(), Vec::new());
        for piece in stream.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                let (consumed, item) = framing.next(&input)?;
                input.drain(..consumed);
                let Some(item) = item else { break };
                items.push(item);
            }
        }
        if input.is_empty() { Ok(items) } else { Err(format!("{} bytes are left", input.len())) }
    }

    #[test]
    fn messages_in_pieces_of_any_length() {
        let long = "ü".repeat(40_000);
        let mut stream = Vec::new();
        encode::frame(&mut stream, Opcode::Text, b"/a:0=1");
        stream.extend([0x01, 2]); // a fragmented text, with a Ping between its parts
        stream.extend(b"/b");
        encode::frame(&mut stream, Opcode::Ping, b"x");
        encode::frame(&mut stream, Opcode::Pong, b"y");
        stream.extend([0x80, 4]);
        stream.extend(b":0=2");
        encode::frame(&mut stream, Opcode::Text, &[b'x'; 300]);
        encode::frame(&mut stream, Opcode::Text, long.as_bytes());
        encode::close(&mut stream, 1001, "bye");
        let expected = [
            ServerItem::Text("/a:0=1".into()),
            ServerItem::Ping(b"x".to_vec()),
            ServerItem::Text("/b:0=2".into()),
            ServerItem::Text("x".repeat(300)),
            ServerItem::Text(long),
            ServerItem::Close(Some(1001), "bye".into()),
        ];
        for piece in [1, 2, 3, 7, 1000, stream.len()] {
            let decoded = items(&mut ServerFraming::WebSocket(None), &stream, piece).unwrap();
            assert!(decoded == expected, "{piece}");
        }
    }

    #[test]
    fn raw_texts_in_pieces_of_any_length() {
        let mut stream = Vec::new();
        for text in ["/a:0=1", "", "ü"] {
            crate::protocol::raw::header(&mut stream, text.len());
            stream.extend(text.as_bytes());
        }
        let expected = ["/a:0=1", "", "ü"].map(|text| ServerItem::Text(text.into()));
        for piece in 1..=stream.len() {
            assert_eq!(items(&mut ServerFraming::Raw, &stream, piece).unwrap(), expected);
        }
    }

    #[test]
    fn bytes_that_no_server_sends() {
        for (stream, problem) in [
            (&[0x81, 0x81, 0, 0, 0, 0, 0][..], "masked"),
            (&[0xC1, 0], "reserved"),
            (&[0x82, 0], "binary"),
            (&[0x80, 0], "out of place"),
            (&[0x01, 0, 0x01, 0], "out of place"),
            (&[0x09, 0], "fragmented"),
            (&[0x89, 126, 0, 126], "too long"),
            (&[0x88, 1, 0], "Close"),
            (&[0x81, 1, 0xff], "UTF-8"),
            (&[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0], "4294967296 bytes"),
        ] {
            let error = items(&mut ServerFraming::WebSocket(None), stream, 1).unwrap_err();
            assert!(error.contains(problem), "{stream:?}: {error}");
        }
        assert!(items(&mut ServerFraming::Raw, &[0xff; 8], 1).unwrap_err().contains("bytes"));
        assert!(
            items(&mut ServerFraming::Raw, &[0, 0, 0, 0, 0, 0, 0, 1, 0xff], 1).unwrap_err().contains("UTF-8")
        );
    }
}
