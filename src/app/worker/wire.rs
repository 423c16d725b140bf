//! The frames of a link (docs/workers.md): a header of 40 bytes, a text, and data. All numbers are big-endian.
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | length of the frame without these four bytes |
//! | 1 | type |
//! | 1 | flags |
//! | 2 | code |
//! | 4 | request |
//! | 4 | number |
//! | 12 | client: shard, slot, generation |
//! | 4 | length of the text |
//! | 8 | time in milliseconds |

use crate::client::ClientId;
use crate::limits::WORKER_FRAME_BYTES_MAX;
use bytes::{Buf, BufMut};

/// Bytes of a header, including the length.
pub const HEADER_BYTES: usize = 40;

/// Bytes of the length itself, which the length does not count.
const LENGTH_BYTES: usize = 4;

/// The flag of EVENT and REPLY: the client waits for an answer.
pub const WANTS_ANSWER: u8 = 1;
/// The flag of EVENT and ON: behind the text, and the options if there are any, on a line of its own, is what the server knows of the client, as JSON.
pub const HAS_INFO: u8 = 4;
/// The flag of ON: behind the path, on a line of its own, are the options of the subscription, as JSON.
pub const HAS_OPTIONS: u8 = 8;
/// The flag of TIMER from a worker: the timer repeats.
pub const REPEATS: u8 = 1;
/// The flag of ANSWER: the text is the message of an error.
pub const HAS_MESSAGE: u8 = 2;

/// The type of a frame to a worker.
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

/// The type of a frame from a worker.
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
    fn from_number(number: u8) -> Option<FromWorker> {
        use FromWorker::{Answer, Broadcast, Cancel, Close, Move, Send, Timer, Watch};
        [Answer, Broadcast, Send, Close, Move, Timer, Watch, Cancel]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// The header of a frame without its type and its lengths. Fields that a type does not use are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkFrameHeader {
    pub flags: u8,
    pub code: u16,
    pub request: u32,
    pub number: u32,
    pub client: ClientId,
    pub time_ms: u64,
}

/// The client of a frame that concerns no client.
pub const NO_CLIENT: ClientId = ClientId { shard: 0, slot: 0, generation: 0 };

impl LinkFrameHeader {
    /// Returns a header with this time and all other fields 0.
    pub fn at(time_ms: u64) -> LinkFrameHeader {
        LinkFrameHeader { flags: 0, code: 0, request: 0, number: 0, client: NO_CLIENT, time_ms }
    }
}

/// A frame from a worker.
#[derive(PartialEq, Eq, Debug)]
pub struct WorkerFrame<'a> {
    pub kind: FromWorker,
    pub header: LinkFrameHeader,
    /// Has to be UTF-8, which is not checked yet.
    pub text: &'a [u8],
    /// Has to be JSON, which is not checked yet.
    pub data: &'a [u8],
}

/// A violation of the frame format. The bytes that follow cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the length of a frame is {0}, which is shorter than its header")]
    TooShort(u32),
    #[error("the length of a frame is {0}, and at most {WORKER_FRAME_BYTES_MAX} is allowed")]
    TooLong(u32),
    #[error("a frame has the unknown type {0}")]
    UnknownType(u8),
    #[error("the text of a frame is longer than the frame")]
    TextTooLong,
}

/// Appends a frame to `out`.
pub fn encode(out: &mut Vec<u8>, kind: ToWorker, header: &LinkFrameHeader, text: &str, data: &str) {
    let length = HEADER_BYTES - LENGTH_BYTES + text.len() + data.len();
    let mut bytes = [0; HEADER_BYTES];
    let mut rest = &mut bytes[..];
    rest.put_u32(length as u32);
    rest.put_u8(kind as u8);
    rest.put_u8(header.flags);
    rest.put_u16(header.code);
    rest.put_u32(header.request);
    rest.put_u32(header.number);
    rest.put_u32(header.client.shard.into());
    rest.put_u32(header.client.slot);
    rest.put_u32(header.client.generation);
    rest.put_u32(text.len() as u32);
    rest.put_u64(header.time_ms);
    debug_assert!(rest.is_empty(), "the fields fill the header");
    out.reserve(HEADER_BYTES + text.len() + data.len());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(data.as_bytes());
}

/// Decodes the frame at the beginning of `bytes`. Returns the frame and its size in bytes, or `None` if the frame is
/// not complete yet.
///
/// # Errors
///
/// The bytes are not a frame. The error is returned as soon as the header is complete.
pub fn decode(bytes: &[u8]) -> Result<Option<(WorkerFrame<'_>, usize)>, FrameError> {
    let Some((mut fields, body)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    let length = fields.get_u32();
    if (length as usize) < HEADER_BYTES - LENGTH_BYTES {
        return Err(FrameError::TooShort(length));
    }
    if length as usize > WORKER_FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    let body_length = length as usize - (HEADER_BYTES - LENGTH_BYTES);
    let kind = fields.get_u8();
    let kind = FromWorker::from_number(kind).ok_or(FrameError::UnknownType(kind))?;
    let (flags, code) = (fields.get_u8(), fields.get_u16());
    let (request, number) = (fields.get_u32(), fields.get_u32());
    // A shard number above `u16::MAX` belongs to no shard. Its client is treated like one that has disconnected.
    let shard = u16::try_from(fields.get_u32()).unwrap_or(u16::MAX);
    let client = ClientId { shard, slot: fields.get_u32(), generation: fields.get_u32() };
    let text_length = fields.get_u32() as usize;
    let header = LinkFrameHeader { flags, code, request, number, client, time_ms: fields.get_u64() };
    if text_length > body_length {
        return Err(FrameError::TextTooLong);
    }
    let Some(body) = body.get(..body_length) else { return Ok(None) };
    let (text, data) = body.split_at(text_length);
    Ok(Some((WorkerFrame { kind, header, text, data }, HEADER_BYTES + body_length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(kind: ToWorker, header: &LinkFrameHeader, text: &str, data: &str) -> Vec<u8> {
        let mut out = b"before".to_vec();
        encode(&mut out, kind, header, text, data);
        out.split_off(6)
    }

    const HEADER: LinkFrameHeader = LinkFrameHeader {
        flags: 1,
        code: 0x0203,
        request: 0x0405_0607,
        number: 0x0809_0a0b,
        client: ClientId { shard: 0x0c0d, slot: 0x0e0f_1011, generation: 0x1213_1415 },
        time_ms: 0x1617_1819_1a1b_1c1d,
    };

    #[test]
    fn a_frame_has_the_documented_bytes() {
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 41, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
            0, 0, 0, 2, 22, 23, 24, 25, 26, 27, 28, 29, b'/', b'a', b'1', b'2', b'3',
        ];
        assert_eq!(encoded(ToWorker::On, &HEADER, "/a", "123"), expected);
    }

    proptest! {
        /// Both directions have the same frame format. A frame of which any byte is missing is not complete.
        #[test]
        fn decoding_reverses_encoding(kind in 1u8..=7, header in any::<[u8; 28]>(), text in ".{0,20}", data in ".{0,40}") {
            let n = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            let client = ClientId { shard: n(0) as u16, slot: n(4), generation: n(8) };
            let header = LinkFrameHeader {
                flags: header[12], code: n(16) as u16, request: n(20), number: n(24), client, time_ms: u64::from(n(0)) << 20,
            };
            let kinds = [ToWorker::Event, ToWorker::On, ToWorker::Off, ToWorker::Reply, ToWorker::Dropped,
                ToWorker::Timer, ToWorker::Gone];
            let mut bytes = encoded(kinds[kind as usize - 1], &header, &text, &data);
            let len = bytes.len();
            for cut in 0..len {
                prop_assert_eq!(decode(&bytes[..cut]), Ok(None));
            }
            bytes.extend_from_slice(b"the next");
            let kind = FromWorker::from_number(kind).unwrap();
            let frame = WorkerFrame { kind, header, text: text.as_bytes(), data: data.as_bytes() };
            prop_assert_eq!(decode(&bytes), Ok(Some((frame, len))));
        }

        #[test]
        fn any_bytes_are_decoded_or_rejected(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), short in any::<bool>()) {
            // Most random lengths are too long.
            if short && bytes.len() > 4 {
                bytes[..3].fill(0);
            }
            if let Ok(Some((frame, len))) = decode(&bytes) {
                prop_assert_eq!(HEADER_BYTES + frame.text.len() + frame.data.len(), len);
                prop_assert!(len <= bytes.len());
            }
        }
    }

    #[test]
    fn a_violation_is_reported_with_the_header() {
        let mut bytes = encoded(ToWorker::Event, &HEADER, "/a", "1");
        bytes.truncate(HEADER_BYTES);
        let with = |at: usize, values: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + values.len()].copy_from_slice(values);
            decode(&bytes).map(|frame| frame.is_some())
        };
        assert_eq!(with(4, &[8]), Ok(false), "the rest is missing");
        assert_eq!(with(0, &[0, 0, 0, 35]), Err(FrameError::TooShort(35)));
        assert_eq!(with(0, &[255; 4]), Err(FrameError::TooLong(u32::MAX)));
        assert_eq!(with(4, &[0]), Err(FrameError::UnknownType(0)));
        assert_eq!(with(4, &[9]), Err(FrameError::UnknownType(9)));
        assert_eq!(with(28, &[0, 0, 0, 4]), Err(FrameError::TextTooLong));
    }

    #[test]
    fn an_impossible_shard_is_that_of_no_client() {
        let mut bytes = encoded(ToWorker::Event, &HEADER, "", "");
        bytes[16] = 1;
        let (frame, _) = decode(&bytes).unwrap().unwrap();
        assert_eq!(frame.header.client.shard, u16::MAX);
    }
}
