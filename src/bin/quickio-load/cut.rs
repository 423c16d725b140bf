//! Bytes from the server, in whatever pieces they come, cut into frames. Whole frames are looked at where they
//! lie; only what is unfinished at the end of a piece is copied.

use crate::head;
use crate::plan::Protocol;
use crate::wire::{ACCEPT, CLOSE, GREETING, HOSTNAME_ID, PING, PING_ID, PONG, SUBSCRIBE_ID, TEXT, time_of};

/// Bytes of a frame, at most: a server that announces more is broken.
const FRAME_BYTES_MAX: u64 = 64 << 20;

/// The first event of a stream, by which its client knows that it is open, and what ends every event.
const STREAM_GREETING: &[u8] = b": quickio";
const STREAMED_END: &[u8] = b"\n\n";

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// The WebSocket handshake is done.
    Upgraded,
    /// `/qio/ohai`, or what stands for it over HTTP: the connection is open.
    Greeted,
    /// An answer to a ping.
    Pong,
    /// An answer to the subscription.
    Subscribed,
    /// Any answer with another code than 200: its text.
    Refused(&'a [u8]),
    /// A published event, and the time that is in it.
    Published(u64),
    /// A heartbeat; where the id is not 0 it wants an answer.
    Heartbeat(u64),
    /// The end of a response.
    Answered,
    /// A WebSocket ping.
    ControlPing(&'a [u8]),
    /// A WebSocket close: its code, if any, and its reason.
    Close(Option<u16>, &'a [u8]),
    /// Another event.
    Other(&'a [u8]),
}

/// What the server must never say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("upgrade refused: {0}")]
    Upgrade(String),
    #[error("no HTTP answer: {0}")]
    Http(String),
    #[error("answered {0}")]
    Status(String),
    #[error("a response {0}")]
    Response(&'static str),
    #[error("the answer to the greeting is not /qio/ohai")]
    Greeting,
    #[error("a frame that is {0}")]
    Frame(&'static str),
}

/// What is expected next on a connection, and what is unfinished.
#[derive(Debug)]
pub struct Cutter {
    stage: Stage,
    unfinished: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    HttpAnswer,
    RawGreeting,
    WebSocket,
    Raw,
    /// Responses, one after the other. Once the head of the next is whole: bytes of the head, and of all.
    Response {
        head: usize,
        len: usize,
    },
    StreamHead,
    /// Events of a stream. So many bytes of what is unfinished have no end of one.
    Stream {
        searched: usize,
    },
}

/// A response of which nothing is known.
const NEXT_RESPONSE: Stage = Stage::Response { head: 0, len: 0 };

impl Cutter {
    /// For a new connection; over HTTP, for the first of a session.
    pub fn new(protocol: Protocol) -> Cutter {
        let stage = match protocol {
            Protocol::WebSocket | Protocol::None => Stage::HttpAnswer,
            Protocol::Raw => Stage::RawGreeting,
            Protocol::LongPolling => NEXT_RESPONSE,
            Protocol::EventStream => Stage::StreamHead,
        };
        Cutter { stage, unfinished: Vec::new() }
    }

    /// For a connection by which requests with events go, one at a time.
    pub fn of_requests() -> Cutter {
        Cutter { stage: NEXT_RESPONSE, unfinished: Vec::new() }
    }

    /// Begins anew, for the next connection.
    pub fn reset(&mut self, protocol: Protocol) {
        self.stage = Cutter::new(protocol).stage;
        self.unfinished.clear();
    }

    /// Tells what a piece of bytes says, in order.
    pub fn cut(&mut self, piece: &[u8], mut each: impl FnMut(Said<'_>)) -> Result<(), Broken> {
        let mut piece = piece;
        if !self.unfinished.is_empty() {
            let Some(rest) = self.finish(piece, &mut each)? else { return Ok(()) };
            piece = rest;
        }
        while let Some(len) = self.stage.next(piece)? {
            self.say(&piece[..len], &mut each)?;
            piece = &piece[len..];
        }
        self.unfinished.extend_from_slice(piece);
        Ok(())
    }

    /// Finishes what is unfinished; the rest of the piece, or none where it takes still more.
    fn finish<'p>(
        &mut self,
        piece: &'p [u8],
        each: &mut impl FnMut(Said<'_>),
    ) -> Result<Option<&'p [u8]>, Broken> {
        let had = self.unfinished.len();
        let mut unfinished = std::mem::take(&mut self.unfinished);
        unfinished.extend_from_slice(piece);
        let len = self.stage.next(&unfinished)?;
        if let Some(len) = len {
            self.say(&unfinished[..len], each)?;
            unfinished.clear();
        }
        self.unfinished = unfinished;
        Ok(len.map(|len| &piece[len - had..]))
    }

    fn say(&mut self, whole: &[u8], each: &mut impl FnMut(Said<'_>)) -> Result<(), Broken> {
        match self.stage {
            Stage::HttpAnswer => {
                self.stage = Stage::WebSocket;
                each(Said::Upgraded);
            }
            Stage::RawGreeting => {
                self.stage = Stage::Raw;
                each(Said::Greeted);
            }
            Stage::Raw => each(said(&whole[8..])),
            Stage::WebSocket => each(frame_says(whole)?),
            Stage::Response { head, .. } => {
                self.stage = NEXT_RESPONSE;
                let events = whole[head..].split(|byte| *byte == b'\n').filter(|event| !event.is_empty());
                events.for_each(|event| each(said(event)));
                each(Said::Answered);
            }
            Stage::StreamHead => self.stage = Stage::Stream { searched: 0 },
            Stage::Stream { .. } => each(stream_says(whole)?),
        }
        Ok(())
    }
}

impl Stage {
    /// Bytes of the next whole thing at the start of `bytes`; none where more bytes are needed.
    #[inline]
    fn next(&mut self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        let len = match self {
            Stage::WebSocket => websocket_len(bytes)?,
            Stage::Raw => raw_len(bytes)?,
            Stage::Response { head, len } => response_len(bytes, head, len)?,
            Stage::HttpAnswer => {
                return head::read(bytes, |head| head.upgraded(ACCEPT).map(|()| head.len));
            }
            Stage::RawGreeting => return greeting_len(bytes),
            Stage::StreamHead => return head::read(bytes, |head| head.streams().map(|()| head.len)),
            Stage::Stream { searched } => return streamed_len(bytes, searched),
        };
        Ok(len.filter(|len| *len <= bytes.len()))
    }
}

#[inline]
fn websocket_len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Broken::Frame("compressed, or worse"));
    }
    if second & 0x80 != 0 {
        return Err(Broken::Frame("masked"));
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
fn raw_len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    match bytes {
        [a, b, c, d, e, f, g, h, ..] => bounded(8, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        _ => Ok(None),
    }
}

#[inline]
fn bounded(head: usize, payload: u64) -> Result<Option<usize>, Broken> {
    if payload > FRAME_BYTES_MAX {
        return Err(Broken::Frame("longer than any that was asked for"));
    }
    Ok(Some(head + payload as usize))
}

fn greeting_len(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    let len = bytes.len().min(GREETING.len());
    if bytes[..len] != GREETING[..len] {
        return Err(Broken::Greeting);
    }
    Ok((len == GREETING.len()).then_some(len))
}

/// Bytes of the response at the start of `bytes`, which are put down once they are known.
fn response_len(bytes: &[u8], head: &mut usize, len: &mut usize) -> Result<Option<usize>, Broken> {
    if *len == 0 {
        let Some((of_head, body)) = head::read(bytes, |head| Ok((head.len, head.body_len()?)))? else {
            return Ok(None);
        };
        (*head, *len) = (of_head, bounded(of_head, body)?.unwrap_or(0));
    }
    Ok(Some(*len))
}

/// Bytes of the event at the start of `bytes`, the empty line behind it included; `searched` of them have no end.
fn streamed_len(bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, Broken> {
    let from = searched.saturating_sub(1);
    let end = bytes[from..].windows(STREAMED_END.len()).position(|pair| pair == STREAMED_END);
    *searched = bytes.len();
    match end {
        Some(at) => {
            *searched = 0;
            Ok(Some(from + at + STREAMED_END.len()))
        }
        None => bounded(0, bytes.len() as u64).map(|_| None),
    }
}

/// What an event of a stream says.
fn stream_says(event: &[u8]) -> Result<Said<'_>, Broken> {
    let event = &event[..event.len() - STREAMED_END.len()];
    if event == STREAM_GREETING {
        return Ok(Said::Greeted);
    }
    match event.strip_prefix(b"data:") {
        Some(text) if !text.contains(&b'\n') => Ok(said(text.strip_prefix(b" ").unwrap_or(text))),
        _ if event.starts_with(b":") => Ok(Said::Other(event)),
        _ => Err(Broken::Frame("neither a comment nor one line of data")),
    }
}

/// What a whole frame says.
#[inline]
fn frame_says(frame: &[u8]) -> Result<Said<'_>, Broken> {
    let payload = match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    };
    match (frame[0], payload) {
        (first, text) if first == 0x80 | TEXT => Ok(said(text)),
        (first, []) if first == 0x80 | CLOSE => Ok(Said::Close(None, b"")),
        (first, [a, b, reason @ ..]) if first == 0x80 | CLOSE => {
            Ok(Said::Close(Some(u16::from_be_bytes([*a, *b])), reason))
        }
        (first, data) if first == 0x80 | PING => Ok(Said::ControlPing(data)),
        (first, data) if first == 0x80 | PONG => Ok(Said::Other(data)),
        _ => Err(Broken::Frame("neither a whole text nor a control frame")),
    }
}

/// What an event says.
#[inline]
fn said(text: &[u8]) -> Said<'_> {
    if text.starts_with(b"/relay/") {
        return time_of(text).map_or(Said::Other(text), Said::Published);
    }
    if let Some(answer) = text.strip_prefix(b"/qio/callback/") {
        return answered(answer, text);
    }
    if let Some(heartbeat) = text.strip_prefix(b"/qio/heartbeat:") {
        return Said::Heartbeat(number(heartbeat));
    }
    if text == GREETING { Said::Greeted } else { Said::Other(text) }
}

#[inline]
fn answered<'a>(answer: &[u8], text: &'a [u8]) -> Said<'a> {
    let data = answer.iter().position(|byte| *byte == b'=').map_or(&b""[..], |at| &answer[at + 1..]);
    match number(answer) {
        _ if !data.starts_with(b"{\"code\":200") => Said::Refused(text),
        PING_ID => Said::Pong,
        SUBSCRIBE_ID => Said::Subscribed,
        HOSTNAME_ID => Said::Greeted,
        _ => Said::Other(text),
    }
}

/// The number at the start of a text.
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

    /// Everything that is said by those pieces, as text.
    fn cut(protocol: Protocol, pieces: &[&[u8]]) -> Result<Vec<String>, Broken> {
        let (mut cutter, mut all) = (Cutter::new(protocol), Vec::new());
        for piece in pieces {
            cutter.cut(piece, |said| all.push(format!("{said:?}")))?;
        }
        assert!(cutter.unfinished.is_empty());
        Ok(all)
    }

    fn at_every_split(protocol: Protocol, bytes: &[u8], expected: &[Said<'_>]) {
        let expected: Vec<String> = expected.iter().map(|said| format!("{said:?}")).collect();
        for at in 0..=bytes.len() {
            let (a, b) = bytes.split_at(at);
            assert_eq!(cut(protocol, &[a, b]).unwrap(), expected, "split at {at}");
        }
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(cut(protocol, &bytewise).unwrap(), expected);
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

    fn texts_say() -> Vec<Said<'static>> {
        vec![
            Said::Greeted,
            Said::Subscribed,
            Said::Pong,
            Said::Refused(TEXTS[3]),
            Said::Published(1_234_567),
            Said::Heartbeat(12),
            Said::Other(TEXTS[6]),
        ]
    }

    #[test]
    fn websocket_says_the_same_at_every_split() {
        let mut bytes = UPGRADED.as_bytes().to_vec();
        TEXTS.iter().for_each(|text| bytes.extend(frame(0x81, text)));
        bytes.extend(frame(0x89, b"you there?"));
        bytes.extend(frame(0x81, &[b'x'; 300]));
        bytes.extend(frame(0x88, b"\x03\xf5slow"));
        let mut expected = vec![Said::Upgraded];
        expected.extend(texts_say());
        expected.extend([Said::ControlPing(b"you there?"), Said::Other(&[b'x'; 300])]);
        expected.push(Said::Close(Some(1013), b"slow"));
        at_every_split(Protocol::WebSocket, &bytes, &expected);
    }

    #[test]
    fn raw_says_the_same_at_every_split() {
        let mut bytes = GREETING.to_vec();
        TEXTS[1..].iter().for_each(|text| bytes.extend(raw(text)));
        at_every_split(Protocol::Raw, &bytes, &texts_say());
    }

    fn response(body: &[u8]) -> Vec<u8> {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn responses_say_the_same_at_every_split() {
        let hostname: &[u8] = b"/qio/callback/3:0={\"code\":200,\"data\":\"here:80\"}";
        let mut bytes = response(&[hostname, b"\n"].concat());
        bytes.extend(response(b""));
        bytes.extend(response(&TEXTS[1..].join(&b"\n"[..])));
        bytes.extend(response(b"\n\n"));
        let mut expected = vec![Said::Greeted, Said::Answered, Said::Answered];
        expected.extend(texts_say().into_iter().skip(1));
        expected.extend([Said::Answered, Said::Answered]);
        at_every_split(Protocol::LongPolling, &bytes, &expected);
    }

    #[test]
    fn a_stream_says_the_same_at_every_split() {
        let mut bytes = STREAM_HEAD.as_bytes().to_vec();
        bytes.extend(b": quickio\n\n: anything\n\ndata: /qio/heartbeat:0=null\n\n");
        TEXTS[1..].iter().for_each(|text| bytes.extend([b"data:", *text, b"\n\n"].concat()));
        let mut expected = vec![Said::Greeted, Said::Other(b": anything"), Said::Heartbeat(0)];
        expected.extend(texts_say().into_iter().skip(1));
        at_every_split(Protocol::EventStream, &bytes, &expected);
    }

    #[test]
    fn a_long_response_is_not_searched_twice() {
        let mut cutter = Cutter::new(Protocol::LongPolling);
        let bytes = response(&[b'x'; 1000]);
        let head = bytes.len() - 1000;
        cutter.cut(&bytes[..head], |_| panic!("it is not whole")).unwrap();
        assert_eq!(cutter.stage, Stage::Response { head, len: bytes.len() });
        let mut cutter = Cutter { stage: Stage::Stream { searched: 0 }, unfinished: Vec::new() };
        cutter.cut(b"data:abc\n", |_| panic!("it is not whole")).unwrap();
        assert_eq!(cutter.stage, Stage::Stream { searched: 9 });
        let mut said = 0;
        cutter.cut(b"\n", |_| said += 1).unwrap();
        assert_eq!((said, cutter.stage), (1, Stage::Stream { searched: 0 }));
    }

    const STREAM_HEAD: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nConnection: close\r\n\r\n";

    #[test]
    fn what_a_server_must_not_respond_is_named() {
        let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}");
        let stream = |rest: &str| format!("{STREAM_HEAD}{rest}");
        let cases: [(Protocol, String, Broken); 9] = [
            (
                Protocol::LongPolling,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".into(),
                Broken::Status("403 Forbidden".into()),
            ),
            (Protocol::LongPolling, ok("\r\n"), Broken::Response("without a length")),
            (Protocol::LongPolling, ok("Content-Length: -1\r\n\r\n"), Broken::Response("without a length")),
            (
                Protocol::LongPolling,
                ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
                Broken::Response("without a length"),
            ),
            (
                Protocol::LongPolling,
                ok("Content-Length: 99999999999\r\n\r\n"),
                Broken::Frame("longer than any that was asked for"),
            ),
            (
                Protocol::EventStream,
                ok("Content-Length: 0\r\n\r\n"),
                Broken::Response("that is no event stream"),
            ),
            (
                Protocol::EventStream,
                "HTTP/1.1 503 Service Unavailable\r\n\r\n".into(),
                Broken::Status("503 Service Unavailable".into()),
            ),
            (
                Protocol::EventStream,
                stream("data:a\ndata:b\n\n"),
                Broken::Frame("neither a comment nor one line of data"),
            ),
            (
                Protocol::EventStream,
                stream("event:a\n\n"),
                Broken::Frame("neither a comment nor one line of data"),
            ),
        ];
        for (protocol, bytes, broken) in cases {
            assert_eq!(cut(protocol, &[bytes.as_bytes()]), Err(broken), "{bytes}");
        }
        let endless = ok(&"a: b\r\n".repeat(31)) + &"x".repeat(20_000);
        assert_eq!(
            cut(Protocol::LongPolling, &[endless.as_bytes()]),
            Err(Broken::Http("its head does not end".into()))
        );
    }

    #[test]
    fn what_a_server_must_not_say_is_named() {
        let refused = b"HTTP/1.1 503 Service Unavailable\r\n\r\n";
        let cases: [(Protocol, Vec<u8>, Broken); 6] = [
            (Protocol::WebSocket, refused.to_vec(), Broken::Upgrade("503 Service Unavailable".into())),
            (Protocol::WebSocket, b"/qio/ohai".to_vec(), Broken::Http("invalid HTTP version".into())),
            (Protocol::Raw, b"HTTP/1.1 400".to_vec(), Broken::Greeting),
            (
                Protocol::Raw,
                [GREETING, &[0xff; 8]].concat(),
                Broken::Frame("longer than any that was asked for"),
            ),
            (Protocol::WebSocket, [UPGRADED.as_bytes(), &[0x81, 0x80]].concat(), Broken::Frame("masked")),
            (
                Protocol::WebSocket,
                [UPGRADED.as_bytes(), &[0x01, 0]].concat(),
                Broken::Frame("neither a whole text nor a control frame"),
            ),
        ];
        for (protocol, bytes, broken) in cases {
            assert_eq!(cut(protocol, &[&bytes]), Err(broken));
        }
    }
}
