//! Decodes messages from the server out of pieces of any size. Complete frames are decoded in place; only the
//! unfinished end of a piece is copied.

use crate::encoder::{
    ACCEPT, CLOSE, GREETING, HOSTNAME_ID, PING, PING_ID, PONG, SUBSCRIBE_ID, TEXT, time_of,
};
use crate::error::ProtocolError;
use crate::plan::Protocol;
use crate::response_head;
use flate2::{Decompress, FlushDecompress};
use std::cell::RefCell;

/// The maximum size of a frame in bytes. No run needs longer ones.
const FRAME_BYTES_MAX: u64 = 64 << 20;

/// The comment with which a stream starts, which tells the client that it is open.
const STREAM_GREETING: &[u8] = b": quickio";

/// The end of every event of a stream.
const STREAM_EVENT_END: &[u8] = b"\n\n";

/// The bit of a frame's first byte that marks a compressed message (RFC 7692, 6).
const COMPRESSED: u8 = 0x40;

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The WebSocket handshake is complete.
    Upgraded,
    /// `/qio/ohai`, or its equivalent over HTTP: the connection is open.
    Greeted,
    /// An answer to a ping.
    Pong,
    /// An answer to the subscription.
    Subscribed,
    /// An answer with a code other than 200, with its text.
    Refused(&'a [u8]),
    /// A published event, with the time that it contains.
    Published(u64),
    /// A heartbeat. If the callback id is not 0, it must be answered.
    Heartbeat(u64),
    /// The end of a response.
    ResponseEnd,
    /// A WebSocket ping.
    ControlPing(&'a [u8]),
    /// A WebSocket close frame: its code, if it has one, and its reason.
    Close(Option<u16>, &'a [u8]),
    /// Another event.
    Other(&'a [u8]),
}

/// The decoder of one connection.
#[derive(Debug)]
pub struct Decoder {
    expected: Expected,
    /// The bytes of an incomplete item.
    unfinished: Vec<u8>,
}

/// The kind of item that a decoder expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    UpgradeResponse,
    RawGreeting,
    /// The next frame. It may be compressed if the server has accepted that.
    WebSocket {
        deflates: bool,
    },
    Raw,
    /// The next response. When its head is complete: the length of the head and of the whole response, in bytes.
    Response {
        head: usize,
        len: usize,
    },
    StreamHead,
    /// The next event of a stream. The first `searched` unfinished bytes do not contain its end.
    Stream {
        searched: usize,
    },
}

/// A response of which no byte was received.
const NEXT_RESPONSE: Expected = Expected::Response { head: 0, len: 0 };

impl Decoder {
    /// Returns the decoder of a new connection. Over HTTP, it is for the first connection of a session.
    pub fn new(protocol: Protocol) -> Decoder {
        let expected = match protocol {
            Protocol::WebSocket | Protocol::None => Expected::UpgradeResponse,
            Protocol::Raw => Expected::RawGreeting,
            Protocol::LongPolling => NEXT_RESPONSE,
            Protocol::EventStream => Expected::StreamHead,
        };
        Decoder { expected, unfinished: Vec::new() }
    }

    /// Returns the decoder of a connection that carries requests with events, one at a time.
    pub fn for_requests() -> Decoder {
        Decoder { expected: NEXT_RESPONSE, unfinished: Vec::new() }
    }

    /// Resets the decoder for the next connection.
    pub fn reset(&mut self, protocol: Protocol) {
        self.expected = Decoder::new(protocol).expected;
        self.unfinished.clear();
    }

    /// Decodes a piece and calls `on_message` for each message in it, in order.
    pub fn decode(
        &mut self,
        piece: &[u8],
        mut on_message: impl FnMut(Message<'_>),
    ) -> Result<(), ProtocolError> {
        let mut piece = piece;
        if !self.unfinished.is_empty() {
            let Some(rest) = self.finish(piece, &mut on_message)? else { return Ok(()) };
            piece = rest;
        }
        while let Some(len) = self.expected.next(piece)? {
            self.emit(&piece[..len], &mut on_message)?;
            piece = &piece[len..];
        }
        self.unfinished.extend_from_slice(piece);
        Ok(())
    }

    /// Completes the unfinished item. Returns the rest of the piece, or `None` if the item is still incomplete.
    fn finish<'p>(
        &mut self,
        piece: &'p [u8],
        on_message: &mut impl FnMut(Message<'_>),
    ) -> Result<Option<&'p [u8]>, ProtocolError> {
        let had = self.unfinished.len();
        let mut unfinished = std::mem::take(&mut self.unfinished);
        unfinished.extend_from_slice(piece);
        let len = self.expected.next(&unfinished)?;
        if let Some(len) = len {
            self.emit(&unfinished[..len], on_message)?;
            unfinished.clear();
        }
        self.unfinished = unfinished;
        Ok(len.map(|len| &piece[len - had..]))
    }

    /// Passes the messages of a complete item to `on_message`.
    fn emit(&mut self, item: &[u8], on_message: &mut impl FnMut(Message<'_>)) -> Result<(), ProtocolError> {
        match self.expected {
            Expected::UpgradeResponse => {
                let accepted = b"permessage-deflate";
                let deflates = item.windows(accepted.len()).any(|part| part == accepted);
                self.expected = Expected::WebSocket { deflates };
                on_message(Message::Upgraded);
            }
            Expected::RawGreeting => {
                self.expected = Expected::Raw;
                on_message(Message::Greeted);
            }
            Expected::Raw => on_message(event_message(&item[8..])),
            Expected::WebSocket { .. } if item[0] & COMPRESSED != 0 => inflate(item, |frame| {
                on_message(frame_message(frame)?);
                Ok(())
            })?,
            Expected::WebSocket { .. } => on_message(frame_message(item)?),
            Expected::Response { head, .. } => {
                self.expected = NEXT_RESPONSE;
                let events = item[head..].split(|byte| *byte == b'\n').filter(|event| !event.is_empty());
                events.for_each(|event| on_message(event_message(event)));
                on_message(Message::ResponseEnd);
            }
            Expected::StreamHead => self.expected = Expected::Stream { searched: 0 },
            Expected::Stream { .. } => on_message(stream_message(item)?),
        }
        Ok(())
    }
}

impl Expected {
    /// Returns the length of the item at the start of `bytes`, or `None` if the item is incomplete.
    #[inline]
    fn next(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let len = match self {
            Expected::WebSocket { deflates } => websocket_frame_len(bytes, *deflates)?,
            Expected::Raw => raw_frame_len(bytes)?,
            Expected::Response { head, len } => response_len(bytes, head, len)?,
            Expected::UpgradeResponse => {
                return response_head::parse(bytes, |head| head.check_upgrade(ACCEPT).map(|()| head.len));
            }
            Expected::RawGreeting => return greeting_len(bytes),
            Expected::StreamHead => {
                return response_head::parse(bytes, |head| head.check_event_stream().map(|()| head.len));
            }
            Expected::Stream { searched } => return stream_event_len(bytes, searched),
        };
        Ok(len.filter(|len| *len <= bytes.len()))
    }
}

#[inline]
fn websocket_frame_len(bytes: &[u8], deflates: bool) -> Result<Option<usize>, ProtocolError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let allowed = if deflates && first & 0x0f == TEXT { COMPRESSED } else { 0 };
    if first & 0x70 & !allowed != 0 {
        return Err(ProtocolError::Frame("compressed, or has reserved bits"));
    }
    if second & 0x80 != 0 {
        return Err(ProtocolError::Frame("masked"));
    }
    let (head, payload) = match (second, rest) {
        (len @ 0..=125, _) => (2, u64::from(*len)),
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        _ => return Ok(None),
    };
    bounded(head, payload)
}

#[inline]
fn raw_frame_len(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    match bytes {
        [a, b, c, d, e, f, g, h, ..] => bounded(8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        _ => Ok(None),
    }
}

#[inline]
fn bounded(head: usize, payload: u64) -> Result<Option<usize>, ProtocolError> {
    if payload > FRAME_BYTES_MAX {
        return Err(ProtocolError::Frame("longer than 64 MiB"));
    }
    Ok(Some(head + payload as usize))
}

fn greeting_len(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    let len = bytes.len().min(GREETING.len());
    if bytes[..len] != GREETING[..len] {
        return Err(ProtocolError::Greeting);
    }
    Ok((len == GREETING.len()).then_some(len))
}

/// Returns the length of the response at the start of `bytes`. The lengths are stored when they are known.
fn response_len(bytes: &[u8], head: &mut usize, len: &mut usize) -> Result<Option<usize>, ProtocolError> {
    if *len == 0 {
        let Some((head_len, body_len)) =
            response_head::parse(bytes, |head| Ok((head.len, head.body_len()?)))?
        else {
            return Ok(None);
        };
        (*head, *len) = (head_len, bounded(head_len, body_len)?.unwrap_or(0));
    }
    Ok(Some(*len))
}

/// Returns the length of the event at the start of `bytes`, including the empty line after it. The first `searched`
/// bytes do not contain its end.
fn stream_event_len(bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, ProtocolError> {
    let from = searched.saturating_sub(1);
    let end = bytes[from..].windows(STREAM_EVENT_END.len()).position(|pair| pair == STREAM_EVENT_END);
    *searched = bytes.len();
    match end {
        Some(at) => {
            *searched = 0;
            Ok(Some(from + at + STREAM_EVENT_END.len()))
        }
        None => bounded(0, bytes.len() as u64).map(|_| None),
    }
}

/// Returns the message of an event of a stream.
fn stream_message(event: &[u8]) -> Result<Message<'_>, ProtocolError> {
    let event = &event[..event.len() - STREAM_EVENT_END.len()];
    if event == STREAM_GREETING {
        return Ok(Message::Greeted);
    }
    match event.strip_prefix(b"data:") {
        Some(text) if !text.contains(&b'\n') => Ok(event_message(text.strip_prefix(b" ").unwrap_or(text))),
        _ if event.starts_with(b":") => Ok(Message::Other(event)),
        _ => Err(ProtocolError::Frame("neither a comment nor one line of data")),
    }
}

thread_local! {
    /// The inflater of all clients of a thread: each message is compressed for itself.
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Calls `then` with the inflated form of a compressed frame.
fn inflate(frame: &[u8], then: impl FnOnce(&[u8]) -> Result<(), ProtocolError>) -> Result<(), ProtocolError> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        // An unfragmented frame with an empty payload, which the message is appended to. Its length does not matter.
        let mut inflated = Vec::with_capacity(16 * frame.len());
        inflated.extend([frame[0] & !COMPRESSED, 0]);
        let tail = [0x00, 0x00, 0xff, 0xff];
        for mut part in [payload(frame), &tail[..]] {
            while !part.is_empty() {
                let before = inflater.total_in();
                let status = inflater.decompress_vec(part, &mut inflated, FlushDecompress::Sync);
                if status.is_err() || inflated.len() as u64 > FRAME_BYTES_MAX {
                    return Err(ProtocolError::Frame("compressed, and cannot be inflated"));
                }
                part = &part[(inflater.total_in() - before) as usize..];
                if inflated.len() == inflated.capacity() {
                    inflated.reserve(inflated.len());
                }
            }
        }
        then(&inflated)
    })
}

/// Returns the payload of a complete frame.
#[inline]
fn payload(frame: &[u8]) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

/// Returns the message of a complete frame.
#[inline]
fn frame_message(frame: &[u8]) -> Result<Message<'_>, ProtocolError> {
    match (frame[0], payload(frame)) {
        (first, text) if first == 0x80 | TEXT => Ok(event_message(text)),
        (first, []) if first == 0x80 | CLOSE => Ok(Message::Close(None, b"")),
        (first, [a, b, reason @ ..]) if first == 0x80 | CLOSE => {
            Ok(Message::Close(Some(u16::from_be_bytes([*a, *b])), reason))
        }
        (first, data) if first == 0x80 | PING => Ok(Message::ControlPing(data)),
        (first, data) if first == 0x80 | PONG => Ok(Message::Other(data)),
        _ => Err(ProtocolError::Frame("neither a complete text nor a control frame")),
    }
}

/// Returns the message of an event.
#[inline]
fn event_message(text: &[u8]) -> Message<'_> {
    if text.starts_with(b"/relay/") {
        return time_of(text).map_or(Message::Other(text), Message::Published);
    }
    if let Some(answer) = text.strip_prefix(b"/qio/callback/") {
        return answer_message(answer, text);
    }
    if let Some(heartbeat) = text.strip_prefix(b"/qio/heartbeat:") {
        return Message::Heartbeat(number(heartbeat));
    }
    if text == GREETING { Message::Greeted } else { Message::Other(text) }
}

/// Returns the message of an answer to a callback.
#[inline]
fn answer_message<'a>(answer: &[u8], text: &'a [u8]) -> Message<'a> {
    let data = answer.iter().position(|byte| *byte == b'=').map_or(&b""[..], |at| &answer[at + 1..]);
    match number(answer) {
        _ if !data.starts_with(b"{\"code\":200") => Message::Refused(text),
        PING_ID => Message::Pong,
        SUBSCRIBE_ID => Message::Subscribed,
        HOSTNAME_ID => Message::Greeted,
        _ => Message::Other(text),
    }
}

/// Parses the number at the start of a text.
#[inline]
fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(len as u8),
            len => out.extend_from_slice(&[126, (len >> 8) as u8, len as u8]),
        }
        out.extend_from_slice(payload);
        out
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u64).to_be_bytes(), text].concat()
    }

    /// Returns all messages in these pieces, as text.
    fn decode(protocol: Protocol, pieces: &[&[u8]]) -> Result<Vec<String>, ProtocolError> {
        let (mut decoder, mut all) = (Decoder::new(protocol), Vec::new());
        for piece in pieces {
            decoder.decode(piece, |message| all.push(format!("{message:?}")))?;
        }
        assert!(decoder.unfinished.is_empty());
        Ok(all)
    }

    fn at_every_split(protocol: Protocol, bytes: &[u8], expected: &[Message<'_>]) {
        let expected: Vec<String> = expected.iter().map(|message| format!("{message:?}")).collect();
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(decode(protocol, &[a, b]).unwrap(), expected, "split at {at}");
        }
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(protocol, &bytewise).unwrap(), expected);
    }

    const TEXTS: [&[u8]; 7] = [
        b"/qio/ohai",
        b"/qio/callback/1:0={\"code\":200,\"data\":null}",
        b"/qio/callback/2:0={\"code\":200,\"data\":null}",
        b"/qio/callback/2:0={\"code\":420,\"data\":null,\"err_msg\":null}",
        b"/relay/room000007:0={\"t\":1000000000001234567                      }",
        b"/qio/heartbeat:12=null",
        b"/qio/move:0=\"elsewhere\"",
    ];

    fn messages_of_texts() -> Vec<Message<'static>> {
        vec![
            Message::Greeted,
            Message::Subscribed,
            Message::Pong,
            Message::Refused(TEXTS[3]),
            Message::Published(1_234_567),
            Message::Heartbeat(12),
            Message::Other(TEXTS[6]),
        ]
    }

    #[test]
    fn decodes_websocket_at_every_split() {
        let mut bytes = UPGRADED.as_bytes().to_vec();
        TEXTS.iter().for_each(|text| bytes.extend(frame(0x81, text)));
        bytes.extend(frame(0x89, b"you there?"));
        bytes.extend(frame(0x81, &[b'x'; 300]));
        bytes.extend(frame(0x88, b"\x03\xf5slow"));
        let mut expected = vec![Message::Upgraded];
        expected.extend(messages_of_texts());
        expected.extend([Message::ControlPing(b"you there?"), Message::Other(&[b'x'; 300])]);
        expected.push(Message::Close(Some(1013), b"slow"));
        at_every_split(Protocol::WebSocket, &bytes, &expected);
    }

    fn compressed(text: &[u8]) -> Vec<u8> {
        let mut deflater = flate2::Compress::new(flate2::Compression::fast(), false);
        let mut bytes = Vec::with_capacity(text.len() + 100);
        deflater.compress_vec(text, &mut bytes, flate2::FlushCompress::Sync).unwrap();
        frame(0xc1, &bytes[..bytes.len() - 4])
    }

    #[test]
    fn inflates_messages_if_the_server_has_accepted_compression() {
        let long = [b"/qio/move:0=".to_vec(), vec![b'x'; 20_000]].concat();
        let mut frames = Vec::new();
        TEXTS.iter().for_each(|text| frames.extend(compressed(text)));
        frames.extend(compressed(&long));
        let accepted =
            UPGRADED.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        let mut expected = vec![Message::Upgraded];
        expected.extend(messages_of_texts());
        expected.push(Message::Other(&long));
        at_every_split(Protocol::WebSocket, &[accepted.as_bytes(), &frames].concat(), &expected);
        let refused = decode(Protocol::WebSocket, &[UPGRADED.as_bytes(), &frames]);
        assert_eq!(refused, Err(ProtocolError::Frame("compressed, or has reserved bits")));
        for bytes in [&[0xc1, 2, 0xff, 0xff][..], &[0xc9, 0]] {
            assert!(decode(Protocol::WebSocket, &[accepted.as_bytes(), bytes]).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn decodes_raw_at_every_split() {
        let mut bytes = GREETING.to_vec();
        TEXTS[1..].iter().for_each(|text| bytes.extend(raw(text)));
        at_every_split(Protocol::Raw, &bytes, &messages_of_texts());
    }

    fn response(body: &[u8]) -> Vec<u8> {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn decodes_responses_at_every_split() {
        let hostname: &[u8] = b"/qio/callback/3:0={\"code\":200,\"data\":\"here:80\"}";
        let mut bytes = response(&[hostname, b"\n"].concat());
        bytes.extend(response(b""));
        bytes.extend(response(&TEXTS[1..].join(&b"\n"[..])));
        bytes.extend(response(b"\n\n"));
        let mut expected = vec![Message::Greeted, Message::ResponseEnd, Message::ResponseEnd];
        expected.extend(messages_of_texts().into_iter().skip(1));
        expected.extend([Message::ResponseEnd, Message::ResponseEnd]);
        at_every_split(Protocol::LongPolling, &bytes, &expected);
    }

    #[test]
    fn decodes_a_stream_at_every_split() {
        let mut bytes = STREAM_HEAD.as_bytes().to_vec();
        bytes.extend(b": quickio\n\n: anything\n\ndata: /qio/heartbeat:0=null\n\n");
        TEXTS[1..].iter().for_each(|text| bytes.extend([b"data:", *text, b"\n\n"].concat()));
        let mut expected = vec![Message::Greeted, Message::Other(b": anything"), Message::Heartbeat(0)];
        expected.extend(messages_of_texts().into_iter().skip(1));
        at_every_split(Protocol::EventStream, &bytes, &expected);
    }

    #[test]
    fn a_long_response_is_searched_once() {
        let mut decoder = Decoder::new(Protocol::LongPolling);
        let bytes = response(&[b'x'; 1000]);
        let head = bytes.len() - 1000;
        decoder.decode(&bytes[..head], |_| panic!("incomplete")).unwrap();
        assert_eq!(decoder.expected, Expected::Response { head, len: bytes.len() });
        let mut decoder = Decoder { expected: Expected::Stream { searched: 0 }, unfinished: Vec::new() };
        decoder.decode(b"data:abc\n", |_| panic!("incomplete")).unwrap();
        assert_eq!(decoder.expected, Expected::Stream { searched: 9 });
        let mut messages = 0;
        decoder.decode(b"\n", |_| messages += 1).unwrap();
        assert_eq!((messages, decoder.expected), (1, Expected::Stream { searched: 0 }));
    }

    const STREAM_HEAD: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nConnection: close\r\n\r\n";

    #[test]
    fn rejects_invalid_responses() {
        let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
        let stream = |rest: &str| format!("{STREAM_HEAD}{rest}");
        let cases: [(Protocol, String, ProtocolError); 9] = [
            (
                Protocol::LongPolling,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".into(),
                ProtocolError::Status("403 Forbidden".into()),
            ),
            (Protocol::LongPolling, ok("\r\n"), ProtocolError::Response("without a length")),
            (
                Protocol::LongPolling,
                ok("Content-Length: -1\r\n\r\n"),
                ProtocolError::Response("without a length"),
            ),
            (
                Protocol::LongPolling,
                ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
                ProtocolError::Response("without a length"),
            ),
            (
                Protocol::LongPolling,
                ok("Content-Length: 99999999999\r\n\r\n"),
                ProtocolError::Frame("longer than 64 MiB"),
            ),
            (
                Protocol::EventStream,
                ok("Content-Length: 0\r\n\r\n"),
                ProtocolError::Response("that is not an event stream"),
            ),
            (
                Protocol::EventStream,
                "HTTP/1.1 503 Service Unavailable\r\n\r\n".into(),
                ProtocolError::Status("503 Service Unavailable".into()),
            ),
            (
                Protocol::EventStream,
                stream("data:a\ndata:b\n\n"),
                ProtocolError::Frame("neither a comment nor one line of data"),
            ),
            (
                Protocol::EventStream,
                stream("event:a\n\n"),
                ProtocolError::Frame("neither a comment nor one line of data"),
            ),
        ];
        for (protocol, bytes, error) in cases {
            assert_eq!(decode(protocol, &[bytes.as_bytes()]), Err(error), "{bytes}");
        }
        let endless = ok(&"a: b\r\n".repeat(31)) + &"x".repeat(20_000);
        assert_eq!(
            decode(Protocol::LongPolling, &[endless.as_bytes()]),
            Err(ProtocolError::Http("its head is too long".into()))
        );
    }

    #[test]
    fn rejects_invalid_frames() {
        let refused = b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
        let cases: [(Protocol, Vec<u8>, ProtocolError); 6] = [
            (Protocol::WebSocket, refused.to_vec(), ProtocolError::Upgrade("503 Service Unavailable".into())),
            (Protocol::WebSocket, b"/qio/ohai".to_vec(), ProtocolError::Http("invalid HTTP version".into())),
            (Protocol::Raw, b"HTTP/1.1 400".to_vec(), ProtocolError::Greeting),
            (Protocol::Raw, [GREETING, &[0xff; 8]].concat(), ProtocolError::Frame("longer than 64 MiB")),
            (
                Protocol::WebSocket,
                [UPGRADED.as_bytes(), &[0x81, 0x80]].concat(),
                ProtocolError::Frame("masked"),
            ),
            (
                Protocol::WebSocket,
                [UPGRADED.as_bytes(), &[0x01, 0]].concat(),
                ProtocolError::Frame("neither a complete text nor a control frame"),
            ),
        ];
        for (protocol, bytes, error) in cases {
            assert_eq!(decode(protocol, &[&bytes]), Err(error));
        }
    }
}
