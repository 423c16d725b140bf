//! The head of a request: its end, its request line and its header fields.

use std::mem::MaybeUninit;

use memchr::memchr_iter;
use smallvec::SmallVec;

use super::body::BodyFraming;
use super::query;
use super::refusal::HttpRefusal;
use crate::limits::HTTP_HEADERS_MAX;

/// Memory for the headers of one head.
pub type HeaderSpace<'a> = [MaybeUninit<httparse::Header<'a>>; HTTP_HEADERS_MAX];

/// Returns uninitialized memory for the headers of one head.
pub fn header_space<'a>() -> HeaderSpace<'a> {
    [const { MaybeUninit::uninit() }; HTTP_HEADERS_MAX]
}

/// Returns the length of the head including its empty line, or `None` if the empty line is not there yet. A line may
/// end with LF alone.
///
/// The first `scanned` bytes were searched by an earlier call and are not searched again.
pub(super) fn head_len(bytes: &[u8], scanned: usize) -> Option<usize> {
    // The head ends with an LF, an optional CR, and an LF. The earlier call may have seen two of these bytes.
    let start = scanned.saturating_sub(2);
    memchr_iter(b'\n', &bytes[start..]).find_map(|at| {
        let line = start + at + 1;
        match bytes[line..] {
            [b'\n', ..] => Some(line + 1),
            [b'\r', b'\n', ..] => Some(line + 2),
            _ => None,
        }
    })
}

/// Returns whether a request line names a version of HTTP, such as `HTTP/2.0`.
fn names_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let parts: SmallVec<[&[u8]; 4]> = line.split(|byte| *byte == b' ').take(4).collect();
    matches!(parts[..], [_, _, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']])
}

/// Returns the origin in a head that is incomplete or malformed, if there is one: a page must be able to read why its
/// request was refused. If there are several, there is none.
pub(super) fn find_origin(head: &[u8]) -> Option<&[u8]> {
    let lines = head.split(|byte| *byte == b'\n');
    let mut origins = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(b"origin").then(|| line[colon + 1..].trim_ascii())
    });
    let origin = origins.next()?;
    origins.next().is_none().then_some(origin)
}

/// A well-formed head.
#[derive(Debug)]
pub struct RequestHead<'h, 'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub is_http_1_0: bool,
    pub headers: Headers<'h, 'a>,
    pub fields: Fields<'a>,
}

impl<'h, 'a> RequestHead<'h, 'a> {
    /// Parses a complete head. The bytes must end with it.
    pub fn parse(head: &'a [u8], space: &'h mut HeaderSpace<'a>) -> Result<RequestHead<'h, 'a>, HttpRefusal> {
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, space) {
            // If the parser disagreed with `head_len` about the end of the head, one request could be taken for two, or
            // two for one.
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(HttpRefusal::TooLarge),
            Err(httparse::Error::Version) if names_version(head) => return Err(HttpRefusal::HttpVersion),
            Ok(_) | Err(_) => return Err(HttpRefusal::Malformed),
        }
        let headers = Headers(request.headers);
        Ok(RequestHead {
            method: request.method.unwrap_or_default(),
            target: request.path.unwrap_or_default(),
            is_http_1_0: request.version == Some(0),
            headers,
            fields: Fields::gather(headers)?,
        })
    }

    /// Returns whether the connection persists behind the response (RFC 9112, 9.3).
    pub fn persists(&self) -> bool {
        !self.fields.close && (!self.is_http_1_0 || self.fields.keep_alive)
    }

    /// Returns whether the request is meant to be a WebSocket handshake, valid or not.
    pub fn wants_upgrade(&self) -> bool {
        self.fields.has_key || self.fields.upgrades
    }

    /// Returns how the end of the body is found, as far as the request is well-formed (RFC 9112, 6.3).
    pub(super) fn body(&self) -> Result<BodyFraming, HttpRefusal> {
        let length = self.fields.content_length;
        match self.fields.transfer_coding {
            None => match length.map(query::number) {
                None => Ok(BodyFraming::Length(0)),
                Some(Some(len)) => {
                    usize::try_from(len).map(BodyFraming::Length).map_err(|_| HttpRefusal::TooLong)
                }
                Some(None) => Err(HttpRefusal::Length),
            },
            // "might indicate an attempt to perform request smuggling".
            Some(_) if length.is_some() => Err(HttpRefusal::Length),
            // 6.1: "MUST treat the message as if the framing is faulty".
            Some(_) if self.is_http_1_0 => Err(HttpRefusal::TransferCoding),
            Some(TransferCoding::Chunked) => Ok(BodyFraming::Chunked),
            Some(TransferCoding::Unsupported) => Err(HttpRefusal::UnsupportedCoding),
            Some(TransferCoding::Empty | TransferCoding::NotChunked | TransferCoding::Invalid) => {
                Err(HttpRefusal::TransferCoding)
            }
        }
    }
}

/// The expectation of a request (RFC 9110, 10.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    #[default]
    None,
    Continue,
    Unknown,
}

/// The transfer codings of a request, which are in all of its `Transfer-Encoding` lines together (RFC 9112, 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferCoding {
    /// There is none, although there is a line.
    Empty,
    /// `chunked` alone.
    Chunked,
    /// Others, and then `chunked`.
    Unsupported,
    /// Others, of which the last is not `chunked`: nothing says where the body ends.
    NotChunked,
    /// Others behind `chunked`, or `chunked` twice: nothing says where the body ends.
    Invalid,
}

impl TransferCoding {
    /// Returns the codings with another one behind them.
    fn with(self, coding: &[u8]) -> TransferCoding {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        match self {
            TransferCoding::Empty if is_chunked => TransferCoding::Chunked,
            TransferCoding::NotChunked if is_chunked => TransferCoding::Unsupported,
            TransferCoding::Empty | TransferCoding::NotChunked => TransferCoding::NotChunked,
            TransferCoding::Chunked | TransferCoding::Unsupported | TransferCoding::Invalid => {
                TransferCoding::Invalid
            }
        }
    }
}

/// The header fields that matter for every request, read in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    pub host: Option<&'a [u8]>,
    pub origin: Option<&'a [u8]>,
    pub content_length: Option<&'a [u8]>,
    pub if_none_match: Option<&'a [u8]>,
    pub transfer_coding: Option<TransferCoding>,
    /// There is a `Sec-WebSocket-Key`.
    pub has_key: bool,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// `Upgrade: websocket`.
    pub upgrades: bool,
    /// An `Accept` lists `text/event-stream`.
    pub accepts_streams: bool,
    pub expectation: Expectation,
}

/// A header field that [`Fields`] has. Names are compared without regard to case.
#[derive(Clone, Copy)]
enum FieldName {
    Host,
    Origin,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Key,
    Accept,
    Expect,
    IfNoneMatch,
}

const NAMES: [(&str, FieldName); 10] = [
    ("Host", FieldName::Host),
    ("Origin", FieldName::Origin),
    ("Content-Length", FieldName::ContentLength),
    ("Transfer-Encoding", FieldName::TransferEncoding),
    ("Connection", FieldName::Connection),
    ("Upgrade", FieldName::Upgrade),
    ("Sec-WebSocket-Key", FieldName::Key),
    ("Accept", FieldName::Accept),
    ("Expect", FieldName::Expect),
    ("If-None-Match", FieldName::IfNoneMatch),
];

impl<'a> Fields<'a> {
    fn gather(headers: Headers<'_, 'a>) -> Result<Fields<'a>, HttpRefusal> {
        let mut fields = Fields::default();
        for header in headers.0 {
            let name = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(header.name));
            if let Some((_, name)) = name {
                fields.add(*name, header.value)?;
            }
        }
        Ok(fields)
    }

    fn add(&mut self, name: FieldName, value: &'a [u8]) -> Result<(), HttpRefusal> {
        match name {
            FieldName::Host => return single(&mut self.host, value, HttpRefusal::RepeatedHeader),
            FieldName::Origin => return single(&mut self.origin, value, HttpRefusal::RepeatedHeader),
            FieldName::ContentLength => return single(&mut self.content_length, value, HttpRefusal::Length),
            // Two lines are treated like one that matches nothing. It does no harm to send a document that is not
            // needed.
            FieldName::IfNoneMatch => {
                self.if_none_match = Some(if self.if_none_match.is_none() { value } else { b"" });
            }
            FieldName::TransferEncoding => {
                let before = self.transfer_coding.unwrap_or(TransferCoding::Empty);
                self.transfer_coding = Some(tokens(value).fold(before, TransferCoding::with));
            }
            FieldName::Key => self.has_key = true,
            FieldName::Connection => {
                self.close |= lists(value, "close");
                self.keep_alive |= lists(value, "keep-alive");
            }
            FieldName::Upgrade => self.upgrades |= lists(value, "websocket"),
            FieldName::Accept => self.accepts_streams |= tokens(value).any(accepts_streams),
            FieldName::Expect => {
                let met = value.eq_ignore_ascii_case(b"100-continue");
                let is_other = !met || self.expectation == Expectation::Unknown;
                self.expectation = if is_other { Expectation::Unknown } else { Expectation::Continue };
            }
        }
        Ok(())
    }
}

fn single<'a>(
    field: &mut Option<&'a [u8]>,
    value: &'a [u8],
    repeated: HttpRefusal,
) -> Result<(), HttpRefusal> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(repeated),
    }
}

/// Returns whether an element of `Accept` accepts event streams, that is, lists them without `q=0` (RFC 9110, 12.4.2).
fn accepts_streams(element: &[u8]) -> bool {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_stream = parts.next().is_some_and(|range| range.eq_ignore_ascii_case(b"text/event-stream"));
    is_stream && !parts.any(is_zero_weight)
}

fn is_zero_weight(parameter: &[u8]) -> bool {
    match parameter {
        [b'q' | b'Q', b'=', b'0'] => true,
        [b'q' | b'Q', b'=', b'0', b'.', decimals @ ..] => decimals.iter().all(|digit| *digit == b'0'),
        _ => false,
    }
}

/// Returns an iterator over the elements of a list (RFC 9110, 5.6.1), without empty ones.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Returns whether a list has this element. Elements are compared without regard to case.
fn lists(value: &[u8], element: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(element.as_bytes()))
}

/// The header fields of a request, for look-ups by name. Names are compared without regard to case.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'h, 'a>(&'h [httparse::Header<'a>]);

impl<'h, 'a: 'h> Headers<'h, 'a> {
    pub fn values(self, name: &str) -> impl Iterator<Item = &'a [u8]> + use<'h, 'a, '_> {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// Returns whether there is a field with this name.
    pub fn has(self, name: &'static str) -> bool {
        self.values(name).next().is_some()
    }

    /// Returns the value of a field that may occur at most once.
    pub fn single(self, name: &'static str) -> Result<Option<&'a [u8]>, HttpRefusal> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(HttpRefusal::RepeatedHeader),
            (value, None) => Ok(value.map(<[u8]>::trim_ascii)),
        }
    }

    /// Returns an iterator over the elements of a list, from all fields with this name.
    pub fn tokens(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + 'h {
        self.values(name).flat_map(tokens)
    }

    /// Returns whether a list has this element. Elements are compared without regard to case.
    pub fn lists(self, name: &'static str, element: &str) -> bool {
        self.values(name).any(|value| lists(value, element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing;
    use proptest::prelude::*;

    /// The naive twin: examines one byte after the other.
    fn naive_head_len(bytes: &[u8]) -> Option<usize> {
        let empty_line = |at: usize| match bytes[at..] {
            [b'\n', b'\n', ..] => Some(at + 2),
            [b'\n', b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        };
        (0..bytes.len()).find_map(empty_line)
    }

    proptest! {
        /// The bytes are mostly line ends and bytes that differ from them by a bit, at every alignment and in two
        /// pieces.
        #[test]
        fn finds_the_same_end_as_the_naive_twin(
            bytes in prop::collection::vec(prop::sample::select(b"\n\r\x0b\x8a\0abcdefgh".to_vec()), 0..80),
            first in 0usize..80,
        ) {
            let expected = naive_head_len(&bytes);
            prop_assert_eq!(head_len(&bytes, 0), expected);
            let first = first.min(bytes.len());
            if head_len(&bytes[..first], 0).is_none() {
                prop_assert_eq!(head_len(&bytes, first), expected);
            }
        }
    }

    #[test]
    fn the_end_of_a_head() {
        for (bytes, len) in [
            ("a\r\n\r\n", Some(5)),
            ("a\n\n", Some(3)),
            ("a\r\n\nb", Some(4)),
            ("a\n\r\nb", Some(4)),
            ("a\r\n\r", None),
            ("a\r\nb\r\n", None),
            ("a\r\r\n\r\r\n", None),
            ("", None),
        ] {
            for scanned in 0..=len.map_or(bytes.len(), |len| len - 1) {
                assert_eq!(head_len(bytes.as_bytes(), scanned), len, "{bytes:?}, {scanned} scanned");
            }
        }
    }

    /// Every complete head of httparse has the same end here. Otherwise one of them would see a request where the other
    /// sees a header.
    #[test]
    fn fuzz_the_end_of_a_head() {
        testing::fuzz(|random| {
            let mut bytes = b"GET / HTTP/1.1".to_vec();
            for _ in 0..random.below(12) {
                let piece: &[u8] = random.pick(&[
                    b"\r\n",
                    b"\n",
                    b"\r",
                    b"\n\r",
                    b"\r\n\r\n",
                    b"\n\n",
                    b"a: b",
                    b"a:",
                    b" ",
                    b":",
                    b"\0",
                    b"\t",
                ]);
                bytes.extend_from_slice(piece);
            }
            let scanned = head_len(&bytes, 0).map_or(bytes.len(), |len| random.below(len));
            let len = head_len(&bytes, scanned);
            assert_eq!(len, head_len(&bytes, 0), "{bytes:?}, {scanned} scanned");
            let mut space = header_space();
            let mut request = httparse::Request::new(&mut []);
            match request.parse_with_uninit_headers(&bytes, &mut space) {
                Ok(httparse::Status::Complete(parsed)) => assert_eq!(len, Some(parsed), "{bytes:?}"),
                Ok(httparse::Status::Partial) => assert_eq!(len, None, "{bytes:?}"),
                Err(_) => {}
            }
        });
    }
}
