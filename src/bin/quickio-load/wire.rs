//! Bytes to the server: handshakes, events and control frames, encoded before they are needed.

use crate::plan::{Plan, Protocol, Role, Room};
use quickio::qev::buffers::Frame;
use serde::Serialize;

/// The nonce of every handshake: the RFC's example (1.3). Servers may not mind; one answer is right for all.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What the server answers to [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What opens a connection, in both directions.
pub const GREETING: &[u8] = b"/qio/ohai";

/// The mask of every frame. A client's mask protects proxies, and there is none here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A time as text: nanoseconds added to this, so that there are always 19 digits.
const TIME_BASE: u64 = 1_000_000_000_000_000_000;
const TIME_DIGITS: usize = 19;

/// Callback ids: what an answer is the answer to.
pub const SUBSCRIBE_ID: u64 = 1;
pub const PING_ID: u64 = 2;
pub const HOSTNAME_ID: u64 = 3;

/// Before and behind the time in the data of a published event; spaces fill it up to its size.
const DATA_HEAD: &str = "{\"t\":";
const DATA_TAIL: &str = "}";

/// Bytes of the smallest data of a published event: `{"t":1000000000000000000}`.
pub const DATA_BYTES_MIN: usize = DATA_HEAD.len() + TIME_DIGITS + DATA_TAIL.len();

/// Where the time stands in the text of a published event: behind `/relay/room000000:0={"t":`.
const TIME_AT: usize = Room::PATH_BYTES + ":0=".len() + DATA_HEAD.len();

/// WebSocket opcodes.
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Writes what clients of one protocol send.
#[derive(Clone, Copy, Debug)]
pub struct Writer(pub Protocol);

impl Writer {
    /// What a client sends first; empty where there is no protocol, or what is sent first is a request.
    pub fn hello(self, plan: &Plan) -> Vec<u8> {
        match self.0 {
            Protocol::WebSocket => upgrade(plan),
            Protocol::Raw => GREETING.to_vec(),
            Protocol::LongPolling | Protocol::EventStream | Protocol::None => Vec::new(),
        }
    }

    /// One event, or the greeting.
    pub fn text(self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 14);
        match self.0 {
            Protocol::WebSocket | Protocol::None => websocket_frame(&mut out, TEXT, text),
            Protocol::Raw => {
                out.extend_from_slice(&(text.len() as u64).to_be_bytes());
                out.extend_from_slice(text);
            }
            Protocol::LongPolling | Protocol::EventStream => {
                out.extend_from_slice(text);
                out.push(b'\n');
            }
        }
        out
    }

    /// The event that a session begins with, where nothing else tells that it is there (protocol.md, section 5).
    pub fn hostname(self) -> Vec<u8> {
        self.text(format!("/qio/hostname:{HOSTNAME_ID}=null").as_bytes())
    }

    /// A control frame; empty where the protocol has none.
    pub fn control(self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.0 == Protocol::WebSocket {
            websocket_frame(&mut out, opcode, payload);
        }
        out
    }

    /// The event that subscribes to a room.
    pub fn subscribe(self, room: Room) -> Vec<u8> {
        self.text(format!("/qio/on:{SUBSCRIBE_ID}=\"{}\"", room.path()).as_bytes())
    }

    /// The answer to a heartbeat that asks for one.
    pub fn heartbeat_answer(self, callback: u64) -> Vec<u8> {
        self.text(format!("/qio/callback/{callback}:0=null").as_bytes())
    }

    /// Frames of 1, 2, ... up to `most` pings.
    pub fn pings(self, event: &str, most: usize) -> Vec<Frame> {
        let ping = self.text(format!("{event}:{PING_ID}=null").as_bytes());
        (1..=most).map(|count| Frame::new(ping.repeat(count), 0)).collect()
    }
}

/// A burst of published events, of which only the time changes.
pub struct Burst {
    bytes: Vec<u8>,
    /// Where the digits of the times stand.
    times: Vec<usize>,
    masked: bool,
}

impl Burst {
    /// A burst into that room, as the plan has its size and number.
    pub fn new(plan: &Plan, room: Room) -> Burst {
        let event = Writer(plan.protocol).text(&published(room, plan.size, 0));
        let text_at = match plan.protocol {
            protocol if protocol.is_http() => 0,
            _ => event.len() - published(room, plan.size, 0).len(),
        };
        let times = (0..plan.burst).map(|n| n * event.len() + text_at + TIME_AT).collect();
        let bytes = event.repeat(plan.burst);
        Burst { bytes, times, masked: matches!(plan.protocol, Protocol::WebSocket | Protocol::None) }
    }

    /// The burst, intended for that time.
    pub fn at(&mut self, ns: u64) -> Frame {
        let mut digits = time_digits(ns);
        if self.masked {
            (0..TIME_DIGITS).for_each(|i| digits[i] ^= MASK[(TIME_AT + i) % 4]);
        }
        for at in &self.times {
            self.bytes[*at..*at + TIME_DIGITS].copy_from_slice(&digits);
        }
        Frame::new(self.bytes.clone(), ns)
    }
}

/// The time in the text of a published event; none where it is no such text.
pub fn time_of(text: &[u8]) -> Option<u64> {
    let digits = text.get(TIME_AT..TIME_AT + TIME_DIGITS)?;
    let time = digits.iter().try_fold(0u64, |time, digit| {
        digit.is_ascii_digit().then(|| time.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })?;
    time.checked_sub(TIME_BASE)
}

/// Bytes of what travels in each direction over WebSocket: what a program without protocol must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// One ping.
    pub ping: usize,
    /// Its answer.
    pub answer: usize,
    /// One published event.
    pub published: usize,
    /// One such event as a subscriber gets it.
    pub delivered: usize,
}

impl Sizes {
    /// The sizes of that plan.
    pub fn of(plan: &Plan) -> Sizes {
        let client = |text: &[u8]| Writer(Protocol::WebSocket).text(text).len();
        let server = |text: &[u8]| client(text) - MASK.len();
        let answer = format!("/qio/callback/{PING_ID}:0={{\"code\":200,\"data\":null}}");
        let event = published(Room::Busy(0), plan.size, 0);
        Sizes {
            ping: client(format!("{}:{PING_ID}=null", plan.ping_event).as_bytes()),
            answer: server(answer.as_bytes()),
            published: client(&event),
            delivered: server(&event),
        }
    }

    /// What the server sends to a client of that role, without a protocol.
    pub fn received_by(self, role: Role) -> usize {
        if role == Role::Pinger { self.answer } else { self.delivered }
    }

    /// As JSON, for scripts.
    pub fn to_json(self) -> String {
        serde_json::to_string(&self).expect("four numbers have no form that JSON lacks")
    }
}

fn upgrade(plan: &Plan) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: quickio\r\n\r\n",
        plan.server
    )
    .into_bytes()
}

/// The text of a published event: its data has `size` bytes.
fn published(room: Room, size: usize, ns: u64) -> Vec<u8> {
    let mut text = format!("{}:0={DATA_HEAD}", room.path()).into_bytes();
    text.extend_from_slice(&time_digits(ns));
    text.resize(text.len() + size.saturating_sub(DATA_BYTES_MIN), b' ');
    text.extend_from_slice(DATA_TAIL.as_bytes());
    text
}

fn time_digits(ns: u64) -> [u8; TIME_DIGITS] {
    let mut rest = TIME_BASE + ns;
    let mut digits = [b'0'; TIME_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

fn websocket_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ MASK[i % 4]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Scenario;

    /// The payload of a masked frame of at most 125 bytes.
    fn unmasked(frame: &[u8]) -> Vec<u8> {
        assert_eq!(frame[1], 0x80 | (frame.len() - 6) as u8);
        frame[6..].iter().enumerate().map(|(i, byte)| byte ^ frame[2 + i % 4]).collect()
    }

    #[test]
    fn events_are_framed_as_the_protocols_say() {
        assert_eq!(unmasked(&Writer(Protocol::WebSocket).text(b"/a:0=null")), b"/a:0=null");
        assert_eq!(Writer(Protocol::Raw).text(b"/a:0=null"), b"\0\0\0\0\0\0\0\x09/a:0=null");
        assert_eq!(Writer(Protocol::WebSocket).control(CLOSE, &[3, 232])[..2], [0x88, 0x82]);
        assert_eq!(Writer(Protocol::Raw).control(CLOSE, &[3, 232]), b"");
    }

    #[test]
    fn long_frames_have_minimal_lengths() {
        let frame = |len| Writer(Protocol::WebSocket).text(&vec![b'x'; len]);
        assert_eq!(frame(126)[..4], [0x81, 0x80 | 126, 0, 126]);
        assert_eq!(frame(65_536)[..10], [0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_burst_carries_its_time_in_every_event() {
        for protocol in [Protocol::WebSocket, Protocol::Raw, Protocol::LongPolling, Protocol::EventStream] {
            let plan = Plan { protocol, burst: 3, ..Plan::new(Scenario::Fanout) };
            let frame = Burst::new(&plan, Room::Busy(7)).at(1_234_567);
            let events: Vec<&[u8]> = frame.as_slice().chunks_exact(frame.len() / 3).collect();
            assert_eq!(events.len(), 3);
            for event in events {
                let text = match protocol {
                    Protocol::WebSocket => unmasked(event),
                    Protocol::Raw => event[8..].to_vec(),
                    _ => event.strip_suffix(b"\n").unwrap().to_vec(),
                };
                assert_eq!(text.len(), Room::PATH_BYTES + 3 + 64);
                assert!(text.starts_with(b"/relay/room000007:0={\"t\":1000000000001234567   "));
                assert_eq!(time_of(&text), Some(1_234_567));
            }
        }
    }

    #[test]
    fn only_published_events_have_a_time() {
        for text in ["", "/qio/heartbeat:0=null", "/relay/room000007:0={\"t\":10000000000012345x7}"] {
            assert_eq!(time_of(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_those_of_websocket() {
        let plan = Plan::new(Scenario::Fanout);
        assert_eq!(Sizes::of(&plan), Sizes { ping: 22, answer: 44, published: 90, delivered: 86 });
    }
}
