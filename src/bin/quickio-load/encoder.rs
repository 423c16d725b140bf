//! Encodes messages to the server: handshakes, events and control frames. They are encoded before they are needed.

use crate::plan::{Plan, Protocol, Role, Room};
use quickio::qev::buffers::Frame;
use serde::Serialize;

/// The nonce of every handshake: the example of RFC 6455 (1.3). Servers must accept a repeated nonce, and there is
/// only one correct answer to compare with.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The server's answer to [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The size of the server's response to an upgrade.
const UPGRADED_BYTES: usize =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: \r\nSec-WebSocket-Protocol: quickio\r\n\r\n"
        .len()
        + ACCEPT.len();

/// The offer of compression that Chromium and Firefox make.
const EXTENSIONS: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// The code in a client's Close frame: 1000, the purpose of the connection is fulfilled (RFC 6455, 7.4.1).
pub const CLOSE_CODE: [u8; 2] = 1000u16.to_be_bytes();

/// The first message on a connection, in both directions.
pub const GREETING: &[u8] = b"/qio/ohai";

/// The mask of every frame. Masks protect proxies, and there is no proxy here.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The number that is added to a time in nanoseconds, which makes its text always 19 digits long.
const TIME_BASE: u64 = 1_000_000_000_000_000_000;

/// The number of digits of a time.
const TIME_DIGITS: usize = 19;

/// The callback ids of the requests, by which answers are matched.
pub const SUBSCRIBE_ID: u64 = 1;
pub const PING_ID: u64 = 2;
pub const HOSTNAME_ID: u64 = 3;

/// The text before and after the time in the data of a published event. Spaces fill the data up to its size.
const DATA_HEAD: &str = "{\"t\":";
const DATA_TAIL: &str = "}";

/// The size of the smallest data of a published event: `{"t":1000000000000000000}`.
pub const DATA_BYTES_MIN: usize = DATA_HEAD.len() + TIME_DIGITS + DATA_TAIL.len();

/// The position of the time in the text of a published event: after `/relay/room000000:0={"t":`.
const TIME_AT: usize = Room::PATH_BYTES + ":0=".len() + DATA_HEAD.len();

/// WebSocket opcodes.
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The encoder of a protocol.
#[derive(Clone, Copy, Debug)]
pub struct Encoder(pub Protocol);

impl Encoder {
    /// Returns the first message of the client that opens a connection as number `opening` of all. It is empty over HTTP,
    /// where a request comes first.
    pub fn first_message(self, plan: &Plan, opening: usize) -> Vec<u8> {
        match self.0 {
            Protocol::WebSocket | Protocol::None => upgrade(plan, opening),
            Protocol::Raw => GREETING.to_vec(),
            Protocol::LongPolling | Protocol::EventStream => Vec::new(),
        }
    }

    /// Encodes an event, or the greeting.
    pub fn event(self, text: &[u8]) -> Vec<u8> {
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

    /// Returns the first event of a polling session. Its answer confirms that the session exists (protocol.md,
    /// section 5).
    pub fn hostname(self) -> Vec<u8> {
        self.event(format!("/qio/hostname:{HOSTNAME_ID}=null").as_bytes())
    }

    /// Encodes a control frame. The result is empty if the protocol has none.
    pub fn control(self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if matches!(self.0, Protocol::WebSocket | Protocol::None) {
            websocket_frame(&mut out, opcode, payload);
        }
        out
    }

    /// Returns the event that subscribes to a room.
    pub fn subscribe(self, room: Room) -> Vec<u8> {
        self.event(format!("/qio/on:{SUBSCRIBE_ID}=\"{}\"", room.path()).as_bytes())
    }

    /// Returns the answer to a heartbeat that must be answered.
    pub fn heartbeat_answer(self, callback: u64) -> Vec<u8> {
        self.event(format!("/qio/callback/{callback}:0=null").as_bytes())
    }

    /// Returns frames with 1, 2, ... up to `count_max` pings.
    pub fn pings(self, event: &str, count_max: usize) -> Vec<Frame> {
        let ping = self.event(format!("{event}:{PING_ID}=null").as_bytes());
        (1..=count_max).map(|count| Frame::new(ping.repeat(count), 0)).collect()
    }
}

/// A burst of published events. Only the times in it change.
pub struct Burst {
    bytes: Vec<u8>,
    /// The positions of the times.
    positions: Vec<usize>,
    masked: bool,
}

impl Burst {
    /// Returns a burst for a room, with the size and number of events of the plan.
    pub fn new(plan: &Plan, room: Room) -> Burst {
        let event = Encoder(plan.protocol).event(&published(plan, room, 0));
        let text_at = match plan.protocol {
            protocol if protocol.is_http() => 0,
            _ => event.len() - published(plan, room, 0).len(),
        };
        let positions = (0..plan.burst).map(|n| n * event.len() + text_at + TIME_AT).collect();
        let bytes = event.repeat(plan.burst);
        Burst { bytes, positions, masked: matches!(plan.protocol, Protocol::WebSocket | Protocol::None) }
    }

    /// Returns the frame of a burst that is intended for time `ns`.
    pub fn at(&mut self, ns: u64) -> Frame {
        let mut digits = time_digits(ns);
        if self.masked {
            (0..TIME_DIGITS).for_each(|i| digits[i] ^= MASK[(TIME_AT + i) % 4]);
        }
        for at in &self.positions {
            self.bytes[*at..*at + TIME_DIGITS].copy_from_slice(&digits);
        }
        Frame::new(self.bytes.clone(), ns)
    }
}

/// Returns the time in the text of a published event, or `None` if the text is not such an event.
pub fn time_of(text: &[u8]) -> Option<u64> {
    let digits = text.get(TIME_AT..TIME_AT + TIME_DIGITS)?;
    let time = digits.iter().try_fold(0u64, |time, digit| {
        digit.is_ascii_digit().then(|| time.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })?;
    time.checked_sub(TIME_BASE)
}

/// The sizes of messages over WebSocket in bytes. A program without a protocol needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FrameSizes {
    /// The request for an upgrade.
    pub upgrade: usize,
    /// Its response.
    pub upgraded: usize,
    /// The greeting.
    pub greeting: usize,
    /// Its answer.
    pub greeted: usize,
    /// The client's Close frame, which has a code.
    pub close: usize,
    /// Its answer.
    pub closed: usize,
    /// One ping.
    pub ping: usize,
    /// The answer to a ping.
    pub answer: usize,
    /// One published event.
    pub published: usize,
    /// One such event as a subscriber receives it.
    pub delivered: usize,
}

impl FrameSizes {
    /// Returns the sizes for a plan.
    pub fn of(plan: &Plan) -> FrameSizes {
        let client = |text: &[u8]| Encoder(Protocol::WebSocket).event(text).len();
        let server = |text: &[u8]| client(text) - MASK.len();
        let answer = format!("/qio/callback/{PING_ID}:0={{\"code\":200,\"data\":null}}");
        let event = published(plan, Room::Busy(0), 0);
        let close = Encoder(Protocol::WebSocket).control(CLOSE, &CLOSE_CODE).len();
        FrameSizes {
            upgrade: upgrade(plan, 0).len(),
            upgraded: UPGRADED_BYTES,
            greeting: client(GREETING),
            greeted: server(GREETING),
            close,
            closed: close - MASK.len(),
            ping: client(format!("{}:{PING_ID}=null", plan.ping_event).as_bytes()),
            answer: server(answer.as_bytes()),
            published: client(&event),
            delivered: server(&event),
        }
    }

    /// Returns the size of a message from the server to a client with this role, without a protocol.
    pub fn received_by(self, role: Role) -> usize {
        if role == Role::Pinger { self.answer } else { self.delivered }
    }

    /// Returns the sizes as JSON, for scripts.
    pub fn to_json(self) -> String {
        serde_json::to_string(&self).expect("numbers can be written as JSON")
    }
}

fn upgrade(plan: &Plan, opening: usize) -> Vec<u8> {
    let extensions = if plan.compression { EXTENSIONS } else { "" };
    let token = plan.tokens.get(opening % plan.tokens.len().max(1));
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: quickio\r\n{extensions}{token}\r\n",
        plan.server
    )
    .into_bytes()
}

/// Returns the text of a published event, with the size of the plan.
fn published(plan: &Plan, room: Room, ns: u64) -> Vec<u8> {
    let mut text = format!("{}:0={DATA_HEAD}", room.path()).into_bytes();
    text.extend_from_slice(&time_digits(ns));
    let end = text.len() + plan.size.saturating_sub(DATA_BYTES_MIN);
    if plan.has_rows {
        push_rows(&mut text, end);
    }
    text.resize(end, b' ');
    text.extend_from_slice(DATA_TAIL.as_bytes());
    text
}

/// Appends an array of rows, such as applications send, up to this length at most.
fn push_rows(text: &mut Vec<u8>, end: usize) {
    const HEAD: &str = ",\"rows\":[";
    let mut rows = String::from(HEAD);
    // Numbers that look like ids and prices: a few digits of each are the same in neighbouring rows.
    let row = |n: u64| {
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        format!(
            r#"{{"id":{},"user":"user-{:04}","price":{}.{:02}}}"#,
            100_000 + n,
            mixed % 10_000,
            mixed % 977,
            mixed % 97
        )
    };
    for row in (0..).map(row) {
        let comma = if rows.len() > HEAD.len() { "," } else { "" };
        if text.len() + rows.len() + comma.len() + row.len() + 1 > end {
            break;
        }
        rows.push_str(comma);
        rows.push_str(&row);
    }
    rows.push(']');
    if text.len() + rows.len() <= end {
        text.extend_from_slice(rows.as_bytes());
    }
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

    /// Returns the payload of a masked frame of at most 125 bytes.
    fn unmasked(frame: &[u8]) -> Vec<u8> {
        assert_eq!(frame[1], 0x80 | (frame.len() - 6) as u8);
        frame[6..].iter().enumerate().map(|(i, byte)| byte ^ frame[2 + i % 4]).collect()
    }

    #[test]
    fn frames_events_for_each_protocol() {
        assert_eq!(unmasked(&Encoder(Protocol::WebSocket).event(b"/a:0=null")), b"/a:0=null");
        assert_eq!(Encoder(Protocol::Raw).event(b"/a:0=null"), b"\0\0\0\0\0\0\0\x09/a:0=null");
        assert_eq!(Encoder(Protocol::WebSocket).control(CLOSE, &[3, 232])[..2], [0x88, 0x82]);
        assert_eq!(Encoder(Protocol::Raw).control(CLOSE, &[3, 232]), b"");
    }

    #[test]
    fn long_frames_have_minimal_lengths() {
        let frame = |len| Encoder(Protocol::WebSocket).event(&vec![b'x'; len]);
        assert_eq!(frame(126)[..4], [0x81, 0x80 | 126, 0, 126]);
        assert_eq!(frame(65_536)[..10], [0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn every_event_of_a_burst_contains_its_time() {
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
    fn rows_are_json_of_the_same_size() {
        for size in (DATA_BYTES_MIN..200).chain([1000, 1024, 5000]) {
            let plan = Plan { size, has_rows: true, ..Plan::new(Scenario::Fanout) };
            let text = published(&plan, Room::Busy(7), 5);
            let spaces = published(&Plan { has_rows: false, ..plan }, Room::Busy(7), 5);
            assert_eq!((text.len(), time_of(&text)), (spaces.len(), Some(5)));
            let data = &text[Room::PATH_BYTES + 3..];
            let data: serde_json::Value = serde_json::from_slice(data).unwrap();
            assert_eq!(data["rows"].as_array().is_some_and(|rows| !rows.is_empty()), size >= 80, "{size}");
        }
    }

    #[test]
    fn returns_no_time_for_other_texts() {
        for text in ["", "/qio/heartbeat:0=null", "/relay/room000007:0={\"t\":10000000000012345x7}"] {
            assert_eq!(time_of(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn clients_take_tokens_in_turn() {
        let tokens = ["one".to_owned(), "two".to_owned()].into();
        let plan = Plan { tokens, ..Plan::new(Scenario::Churn) };
        let first =
            |opening| String::from_utf8(Encoder(Protocol::WebSocket).first_message(&plan, opening)).unwrap();
        for (opening, token) in [(0, "one"), (1, "two"), (2, "one"), (1001, "two")] {
            assert!(first(opening).ends_with(&format!("\r\nAuthorization: Bearer {token}\r\n\r\n")));
        }
    }

    #[test]
    fn computes_the_sizes_of_websocket_frames() {
        let plan = Plan::new(Scenario::Fanout);
        let sizes = FrameSizes::of(&plan);
        let FrameSizes { greeting, greeted, close, closed, ping, answer, published, delivered, .. } = sizes;
        assert_eq!((greeting, greeted, close, closed), (15, 11, 8, 4));
        assert_eq!((ping, answer, published, delivered), (22, 44, 90, 86));
    }
}
