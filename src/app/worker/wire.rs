//! The frames of a link (docs/workers.md): a head of 40 bytes, a text, and data.

use crate::client::ClientId;
use crate::limits::WORKER_FRAME_BYTES_MAX;

/// Bytes of a head, its length among them.
pub const HEAD_BYTES: usize = 40;

/// Bytes that a frame's length does not count: its own.
const LENGTH_BYTES: usize = 4;

/// The client waits for an answer (EVENT, REPLY).
pub const WANTS_ANSWER: u8 = 1;
/// Again and again (TIMER).
pub const REPEATS: u8 = 1;
/// The text is the message of an error (ANSWER).
pub const HAS_MESSAGE: u8 = 2;

/// What a frame to a worker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ToWorker {
    Event = 1,
    On = 2,
    Off = 3,
    Reply = 4,
    Dropped = 5,
    Timer = 6,
    Gone = 7,
}

/// What a frame of a worker's is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FromWorker {
    Answer = 1,
    Broadcast = 2,
    Send = 3,
    Close = 4,
    Move = 5,
    Timer = 6,
    Watch = 7,
    Cancel = 8,
}

impl FromWorker {
    fn of(number: u8) -> Option<FromWorker> {
        use FromWorker::{Answer, Broadcast, Cancel, Close, Move, Send, Timer, Watch};
        [Answer, Broadcast, Send, Close, Move, Timer, Watch, Cancel]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// The head of a frame, but its type and lengths. What a type does not name stays 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub flags: u8,
    pub code: u16,
    pub request: u32,
    pub number: u32,
    pub client: ClientId,
    pub time_ms: u64,
}

/// Nobody: frames that name no client.
pub const NOBODY: ClientId = ClientId { shard: 0, slot: 0, generation: 0 };

impl Head {
    /// All 0, at this time.
    pub fn at(time_ms: u64) -> Head {
        Head { flags: 0, code: 0, request: 0, number: 0, client: NOBODY, time_ms }
    }
}

/// A frame of a worker's.
#[derive(PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    pub kind: FromWorker,
    pub head: Head,
    /// In UTF-8 by promise only.
    pub text: &'a [u8],
    pub data: &'a [u8],
}

/// How a worker's bytes break the frame. Nothing behind it can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("a frame's length is {0}, which is less than its head")]
    TooShort(u32),
    #[error("a frame's length is {0}, and {WORKER_FRAME_BYTES_MAX} are allowed")]
    TooLong(u32),
    #[error("a frame has the type {0}, which is none")]
    UnknownType(u8),
    #[error("a frame's text is longer than the frame")]
    TextTooLong,
}

/// Writes a frame behind what is there.
pub fn write(out: &mut Vec<u8>, kind: ToWorker, head: &Head, text: &str, data: &str) {
    let length = HEAD_BYTES - LENGTH_BYTES + text.len() + data.len();
    let mut bytes = [0; HEAD_BYTES];
    bytes[..4].copy_from_slice(&(length as u32).to_be_bytes());
    bytes[4] = kind as u8;
    bytes[5] = head.flags;
    bytes[6..8].copy_from_slice(&head.code.to_be_bytes());
    bytes[8..12].copy_from_slice(&head.request.to_be_bytes());
    bytes[12..16].copy_from_slice(&head.number.to_be_bytes());
    bytes[16..20].copy_from_slice(&u32::from(head.client.shard).to_be_bytes());
    bytes[20..24].copy_from_slice(&head.client.slot.to_be_bytes());
    bytes[24..28].copy_from_slice(&head.client.generation.to_be_bytes());
    bytes[28..32].copy_from_slice(&(text.len() as u32).to_be_bytes());
    bytes[32..].copy_from_slice(&head.time_ms.to_be_bytes());
    out.reserve(HEAD_BYTES + text.len() + data.len());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(data.as_bytes());
}

/// Reads the frame that bytes begin with, and tells its length; `None`: not all of it is there yet.
///
/// # Errors
///
/// The bytes are no frame, which is told as soon as its head is there.
pub fn read(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Broken> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (length, text_length) = (number(0), number(28) as usize);
    if (length as usize) < HEAD_BYTES - LENGTH_BYTES {
        return Err(Broken::TooShort(length));
    }
    if length as usize > WORKER_FRAME_BYTES_MAX {
        return Err(Broken::TooLong(length));
    }
    let kind = FromWorker::of(head[4]).ok_or(Broken::UnknownType(head[4]))?;
    let body = length as usize - (HEAD_BYTES - LENGTH_BYTES);
    if text_length > body {
        return Err(Broken::TextTooLong);
    }
    let Some(body) = rest.get(..body) else { return Ok(None) };
    let (text, data) = body.split_at(text_length);
    let client = ClientId {
        // There are no such many shards: a client of none has gone.
        shard: u16::try_from(number(16)).unwrap_or(u16::MAX),
        slot: number(20),
        generation: number(24),
    };
    let head = Head {
        flags: head[5],
        code: u16::from_be_bytes([head[6], head[7]]),
        request: number(8),
        number: number(12),
        client,
        time_ms: u64::from(number(32)) << 32 | u64::from(number(36)),
    };
    Ok(Some((Frame { kind, head, text, data }, length as usize + LENGTH_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(kind: ToWorker, head: &Head, text: &str, data: &str) -> Vec<u8> {
        let mut out = b"before".to_vec();
        write(&mut out, kind, head, text, data);
        out.split_off(6)
    }

    const HEAD: Head = Head {
        flags: 1,
        code: 0x0203,
        request: 0x0405_0607,
        number: 0x0809_0a0b,
        client: ClientId { shard: 0x0c0d, slot: 0x0e0f_1011, generation: 0x1213_1415 },
        time_ms: 0x1617_1819_1a1b_1c1d,
    };

    #[test]
    fn a_frame_is_what_the_docs_say() {
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 41, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
            0, 0, 0, 2, 22, 23, 24, 25, 26, 27, 28, 29, b'/', b'a', b'1', b'2', b'3',
        ];
        assert_eq!(bytes_of(ToWorker::On, &HEAD, "/a", "123"), expected);
    }

    proptest! {
        /// Both directions have the same frames; a frame of which anything is missing is none yet.
        #[test]
        fn what_is_written_is_read(kind in 1u8..=7, head in any::<[u8; 28]>(), text in ".{0,20}", data in ".{0,40}") {
            let n = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            let client = ClientId { shard: n(0) as u16, slot: n(4), generation: n(8) };
            let head = Head {
                flags: head[12], code: n(16) as u16, request: n(20), number: n(24), client, time_ms: u64::from(n(0)) << 20,
            };
            let kinds = [ToWorker::Event, ToWorker::On, ToWorker::Off, ToWorker::Reply, ToWorker::Dropped,
                ToWorker::Timer, ToWorker::Gone];
            let mut bytes = bytes_of(kinds[kind as usize - 1], &head, &text, &data);
            let len = bytes.len();
            for cut in 0..len {
                prop_assert_eq!(read(&bytes[..cut]), Ok(None));
            }
            bytes.extend_from_slice(b"the next");
            let frame = Frame { kind: FromWorker::of(kind).unwrap(), head, text: text.as_bytes(), data: data.as_bytes() };
            prop_assert_eq!(read(&bytes), Ok(Some((frame, len))));
        }

        #[test]
        fn anything_is_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), short in any::<bool>()) {
            // Most lengths that chance makes are too long.
            if short && bytes.len() > 4 {
                bytes[..3].fill(0);
            }
            if let Ok(Some((frame, len))) = read(&bytes) {
                prop_assert_eq!(HEAD_BYTES + frame.text.len() + frame.data.len(), len);
                prop_assert!(len <= bytes.len());
            }
        }
    }

    #[test]
    fn what_breaks_the_frame_is_told_at_once() {
        let mut bytes = bytes_of(ToWorker::Event, &HEAD, "/a", "1");
        bytes.truncate(HEAD_BYTES);
        let with = |at: usize, values: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + values.len()].copy_from_slice(values);
            read(&bytes).map(|frame| frame.is_some())
        };
        assert_eq!(with(4, &[8]), Ok(false), "the rest is missing");
        assert_eq!(with(0, &[0, 0, 0, 35]), Err(Broken::TooShort(35)));
        assert_eq!(with(0, &[255; 4]), Err(Broken::TooLong(u32::MAX)));
        assert_eq!(with(4, &[0]), Err(Broken::UnknownType(0)));
        assert_eq!(with(4, &[9]), Err(Broken::UnknownType(9)));
        assert_eq!(with(28, &[0, 0, 0, 4]), Err(Broken::TextTooLong));
    }

    #[test]
    fn a_shard_that_cannot_be_is_a_clients_that_has_gone() {
        let mut bytes = bytes_of(ToWorker::Event, &HEAD, "", "");
        bytes[16] = 1;
        let (frame, _) = read(&bytes).unwrap().unwrap();
        assert_eq!(frame.head.client.shard, u16::MAX);
    }
}
