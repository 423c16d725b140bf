//! HTTP/1.x (RFC 9112): requests in, responses out, in order. What its requests may ask for is a poll or a stream of a
//! session, or a document; sessions themselves are not known here.
//!
//! | file | is |
//! | --- | --- |
//! | `connection` | one connection: requests that come in pieces, responses that wait for their turn |
//! | `head` | where a head ends, and what its lines say |
//! | `request` | what a head asks for, or why it is refused |
//! | `query` | the parameters of a session's requests |
//! | `response` | responses as bytes |
//! | `refusal` | why requests are refused: status, words, headers |

mod connection;
pub(super) mod head;
mod query;
mod refusal;
mod request;
mod response;

use std::fmt;
use std::hash::{Hash, Hasher};

pub(super) use self::connection::{Http, Read};
pub use self::refusal::Refusal;

/// What a session is known by: 128 bits that its client has chosen at random. Whoever knows them is that client, so it
/// is never shown. As bytes, because a `u128` would make every record that has one longer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sid(pub(super) [u8; 16]);

impl From<u128> for Sid {
    fn from(bits: u128) -> Sid {
        Sid(bits.to_ne_bytes())
    }
}

impl Hash for Sid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.0));
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sid(secret)")
    }
}

/// A request that the caller has to answer.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpRequest<'a> {
    /// Its number on the connection, for [`Codec::respond`](super::Codec::respond).
    pub number: u32,
    pub kind: RequestKind<'a>,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestKind<'a> {
    /// `POST /?sid=`: takes events, one a line (see [`lines`]), and wants the session's output.
    Poll { session: SessionParams<'a>, body: &'a str },
    /// `GET /?sid=` that accepts `text/event-stream`: wants the session's output from now on. It comes only where no
    /// earlier request is unanswered, and nothing comes behind it: whatever its answer, it is the connection's last.
    Stream { session: SessionParams<'a> },
    /// `GET` or `HEAD` of a document. `path` begins with a slash and has no query.
    Document { path: &'a str, if_none_match: Option<&'a str> },
}

/// The session that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionParams<'a> {
    pub sid: Sid,
    /// It may be created: `connect=true`.
    pub connect: bool,
    /// Its client goes: it ends once this request's events are handled: `close=true`.
    pub close: bool,
    /// The place of the request in the order of the session's: `seq=`, from 1.
    pub seq: Option<u64>,
    /// The `Host` of the request; empty where it has none.
    pub host: &'a str,
}

/// An answer to a request.
#[derive(Clone, Copy, Debug)]
pub enum HttpResponse<'a> {
    /// A whole response. `headers` are whole lines; those of the connection, of the length and of CORS are added, and
    /// to [`Asks::Poll`] and [`Asks::Stream`] those that make the body plain text which nobody keeps. In answer to HEAD
    /// the body is only counted. The connection ends behind 400 (protocol.md, section 5).
    Whole { status: u16, headers: &'a str, body: &'a [u8] },
    /// The head of an event stream, in answer to [`Asks::Stream`]. Its events are sent behind it, and the connection
    /// ends with them.
    Stream,
}

/// What is to be sent now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadyResponses {
    /// The responses whose turn has come; may be empty.
    pub bytes: Vec<u8>,
    /// What follows.
    pub persistence: Persistence,
}

/// What follows behind responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// More responses, when they are known.
    #[default]
    KeepAlive,
    /// The connection ends, for this reason.
    Close(super::Reason),
}

/// Bytes that [`line()`] adds to a text.
pub const LINE_BYTES: usize = 1;

/// Bytes that [`streamed`] adds to a text.
pub const STREAMED_BYTES: usize = "data:\n\n".len();

/// Appends a text as a line.
pub fn line(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    without_line_ends(&mut out[start..]);
    out.push(b'\n');
}

/// Appends a text as an event of a stream (WHATWG HTML, 9.2.5).
pub fn streamed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"data:");
    let start = out.len();
    write(out);
    without_line_ends(&mut out[start..]);
    out.extend_from_slice(b"\n\n");
}

/// Line ends can stand only between the tokens of JSON, where a space means the same.
fn without_line_ends(text: &mut [u8]) {
    text.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

/// The events of a body: its lines without their ends, but those that are blank.
pub fn lines(body: &str) -> impl Iterator<Item = &str> {
    body.split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .filter(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing;
    use crate::protocol::{Framing, frame, frame_len};

    #[test]
    fn lines_of_a_body() {
        for (body, expected) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("\r\n\na\r\n \t\r\nb\n\r", &["a", "b"]),
            (" a \r\r\nb\rc", &[" a \r", "b\rc"]),
            ("\u{3000}\né", &["é"]),
        ] {
            assert_eq!(lines(body).collect::<Vec<_>>(), expected, "{body:?}");
        }
    }

    #[test]
    fn events_are_framed_without_line_ends() {
        let text = "/a:0={\"b\":\r\n1,\n\"c\":\"\\n\"}";
        let expected = "/a:0={\"b\":  1, \"c\":\"\\n\"}";
        for (framing, start, end) in
            [(Framing::LongPolling, "", "\n"), (Framing::EventStream, "data:", "\n\n")]
        {
            let mut bytes = b"before\n".to_vec();
            frame(framing, &mut bytes, text);
            assert_eq!(bytes, format!("before\n{start}{expected}{end}").as_bytes());
            assert_eq!(bytes.len() - 7, frame_len(framing, text.len()));
        }
    }

    /// What is framed as lines is read as the same events.
    #[test]
    fn fuzz_lines() {
        testing::fuzz(|random| {
            let texts: Vec<String> = (0..random.below(5))
                .map(|_| {
                    (0..random.below(5)).map(|_| random.pick(&["x", "\r", "\n", " ", "é", "\t"])).collect()
                })
                .collect();
            let mut bytes = Vec::new();
            texts.iter().for_each(|text| frame(Framing::LongPolling, &mut bytes, text));
            let body = std::str::from_utf8(&bytes).expect("text");
            let expected: Vec<_> = texts.iter().map(|text| text.replace(['\r', '\n'], " ")).collect();
            let found: Vec<_> = lines(body).collect();
            assert_eq!(found, expected.iter().filter(|text| !text.trim().is_empty()).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_sid_is_not_shown() {
        assert_eq!(format!("{:?}", Sid::from(0xDEAD_BEEF)), "Sid(secret)");
    }
}
