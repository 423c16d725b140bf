//! HTTP/1.x (RFC 9112): it decodes requests and encodes responses in the order of their requests. A request may ask for
//! a poll or a stream of a session, or for a document. The sessions themselves are not kept here.
//!
//! | file | contents |
//! | --- | --- |
//! | `connection` | the codec of a connection: requests in pieces, and responses that wait for earlier ones |
//! | `head` | the end of a head, its request line and its header fields |
//! | `body`, `chunked` | a body in pieces; the chunked transfer coding |
//! | `request` | the validation of a head |
//! | `query` | the parameters of a session's requests |
//! | `response`, `date` | the encoding of responses; their `Date` |
//! | `refusal` | the reasons for refusing a request: status, text, headers |

mod body;
mod chunked;
mod connection;
mod date;
pub(super) mod head;
mod query;
mod refusal;
mod request;
mod response;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

pub(super) use self::chunked::is_token_byte;
pub(super) use self::connection::{HttpCodec, HttpOutcome};
pub use self::date::HttpDate;
pub use self::refusal::HttpRefusal;

/// The id of a session: 128 bits that its client has chosen at random. A peer that knows them can act as the client,
/// and they are therefore never shown. They are stored as bytes, because the alignment of a `u128` would enlarge each
/// record.
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

/// An HTTP request that the caller must answer.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpRequest<'a> {
    /// The number of the request on its connection, for [`Codec::respond`](super::Codec::respond).
    pub number: u32,
    /// The address of the client according to the headers, which means something only if the peer is a trusted proxy.
    pub client: Option<IpAddr>,
    /// The headers that are kept, if the request may create a session.
    pub opening: Option<Box<super::OpeningHeaders>>,
    pub kind: RequestKind<'a>,
}

/// The kind of a request, with its content.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestKind<'a> {
    /// `POST /?sid=`: brings events, one in each line (see [`lines`]), and asks for the session's output.
    Poll { session: SessionParams<'a>, body: &'a str },
    /// `GET /?sid=` that accepts `text/event-stream`: asks for the session's output from now on. All earlier requests
    /// are answered when it comes, and it is the last request of its connection.
    Stream { session: SessionParams<'a> },
    /// `GET` or `HEAD` of a document. `path` begins with a slash and has no query.
    Document { path: &'a str, if_none_match: Option<&'a str> },
}

/// The session that a request names, and the parameters of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionParams<'a> {
    pub sid: Sid,
    /// The session may be created: `connect=true`.
    pub connect: bool,
    /// The session ends when the events of this request are handled: `close=true`.
    pub close: bool,
    /// If the stream that this request asks for is broken off, the session takes requests for a moment: `linger=true`.
    pub linger: bool,
    /// The position of the request in the order of the session's requests: `seq=`, from 1.
    pub seq: Option<u64>,
    /// The `Host` of the request, which is empty if it has none.
    pub host: &'a str,
}

/// A response to a request.
#[derive(Clone, Copy, Debug)]
pub enum HttpResponse<'a> {
    /// A complete response. `headers` are complete lines. The codec adds those for the connection, the length and CORS,
    /// and for [`RequestKind::Poll`] and [`RequestKind::Stream`] those that make the body plain text that is not
    /// cached. In a response to HEAD the body is only counted. The connection closes behind 400 (protocol.md, section
    /// 5).
    Whole { status: u16, headers: &'a str, body: &'a [u8] },
    /// The head of an event stream, in response to [`RequestKind::Stream`]. Events are sent behind it, and the stream
    /// ends with the connection.
    Stream,
}

/// The responses that must be sent now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadyResponses {
    /// The responses that no longer wait for earlier ones. May be empty.
    pub bytes: Vec<u8>,
    /// The persistence of the connection behind them.
    pub persistence: Persistence,
}

/// The persistence of a connection behind responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// The connection persists. More responses may follow.
    #[default]
    KeepAlive,
    /// The connection closes for this reason.
    Close(super::Reason),
}

/// The number of bytes that [`line()`] adds to a text.
pub const LINE_BYTES: usize = 1;

/// The number of bytes that [`streamed`] adds to a text.
pub const STREAMED_BYTES: usize = "data:\n\n".len();

/// Appends a text as a line. `write` appends the text.
pub fn line(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    replace_line_ends(&mut out[start..]);
    out.push(b'\n');
}

/// Appends a text as an event of a stream (WHATWG HTML, 9.2.5). `write` appends the text.
pub fn streamed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"data:");
    let start = out.len();
    write(out);
    replace_line_ends(&mut out[start..]);
    out.extend_from_slice(b"\n\n");
}

/// Replaces line ends by spaces. In JSON they can only be between tokens, where a space has the same meaning.
fn replace_line_ends(text: &mut [u8]) {
    text.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

/// Returns an iterator over the events of a body: its lines without their ends. Blank lines are skipped.
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
    fn splits_a_body_into_lines() {
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
    fn events_are_framed_replace_line_ends() {
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

    /// Events that are encoded as lines are decoded as the same events.
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
