//! The head of a request: where it ends, and what its lines say.

use std::mem::MaybeUninit;

use super::refusal::Refusal;
use crate::event::find::find_byte;
use crate::limits::HTTP_HEADERS_MAX;

/// Memory for the headers of one head.
pub type HeaderSpace<'a> = [MaybeUninit<httparse::Header<'a>>; HTTP_HEADERS_MAX];

/// Memory that nothing was written to.
pub fn header_space<'a>() -> HeaderSpace<'a> {
    [const { MaybeUninit::uninit() }; HTTP_HEADERS_MAX]
}

/// Bytes of the head, its empty line included; `None` where that is not there yet. Line ends may be bare LF.
///
/// The first `scanned` bytes were searched by an earlier call, and are not searched again.
pub(super) fn head_len(bytes: &[u8], scanned: usize) -> Option<usize> {
    // The empty line is an LF, perhaps a CR, an LF: two bytes of that may have been there.
    let mut line = scanned.saturating_sub(2);
    while let Some(end) = find_byte(&bytes[line..], b'\n') {
        line += end + 1;
        match bytes[line..] {
            [b'\n', ..] => return Some(line + 1),
            [b'\r', b'\n', ..] => return Some(line + 2),
            _ => {}
        }
    }
    None
}

/// A head that is well-formed.
#[derive(Debug)]
pub struct Head<'h, 'a> {
    pub method: &'a str,
    pub target: &'a str,
    /// HTTP/1.0.
    pub old: bool,
    pub headers: Headers<'h, 'a>,
    pub fields: Fields<'a>,
}

impl<'h, 'a> Head<'h, 'a> {
    /// Parses a whole head, and nothing behind it.
    pub fn parse(head: &'a [u8], space: &'h mut HeaderSpace<'a>) -> Result<Head<'h, 'a>, Refusal> {
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, space) {
            // Two opinions on where a head ends would make one request of two, or two of one.
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
            Ok(_) | Err(_) => return Err(Refusal::Malformed),
        }
        let headers = Headers(request.headers);
        Ok(Head {
            method: request.method.unwrap_or_default(),
            target: request.path.unwrap_or_default(),
            old: request.version == Some(0),
            headers,
            fields: Fields::gather(headers)?,
        })
    }

    /// Whether the connection is to live on behind the response (RFC 9112, 9.3).
    pub fn persists(&self) -> bool {
        !self.fields.close && (!self.old || self.fields.keep_alive)
    }

    /// Whether it means to be the handshake of a WebSocket, right or wrong.
    pub fn wants_upgrade(&self) -> bool {
        self.fields.has_key || self.fields.upgrades
    }

    /// The target without its query.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }
}

/// An `Expect` (RFC 9110, 10.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    #[default]
    None,
    Continue,
    Unknown,
}

/// What every request is asked, read in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    pub host: Option<&'a [u8]>,
    pub origin: Option<&'a [u8]>,
    pub content_length: Option<&'a [u8]>,
    pub if_none_match: Option<&'a [u8]>,
    /// A `Transfer-Encoding`, whatever it is.
    pub has_transfer_encoding: bool,
    /// A `Sec-WebSocket-Key`.
    pub has_key: bool,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// `Upgrade: websocket`.
    pub upgrades: bool,
    /// An `Accept` that lists `text/event-stream`.
    pub accepts_streams: bool,
    pub expectation: Expectation,
}

/// A header that [`Fields`] come from. Names are compared without case.
#[derive(Clone, Copy)]
enum Name {
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

const NAMES: [(&str, Name); 10] = [
    ("Host", Name::Host),
    ("Origin", Name::Origin),
    ("Content-Length", Name::ContentLength),
    ("Transfer-Encoding", Name::TransferEncoding),
    ("Connection", Name::Connection),
    ("Upgrade", Name::Upgrade),
    ("Sec-WebSocket-Key", Name::Key),
    ("Accept", Name::Accept),
    ("Expect", Name::Expect),
    ("If-None-Match", Name::IfNoneMatch),
];

impl<'a> Fields<'a> {
    fn gather(headers: Headers<'_, 'a>) -> Result<Fields<'a>, Refusal> {
        let mut fields = Fields::default();
        for header in headers.0 {
            let name = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(header.name));
            if let Some((_, name)) = name {
                fields.add(*name, header.value)?;
            }
        }
        Ok(fields)
    }

    fn add(&mut self, name: Name, value: &'a [u8]) -> Result<(), Refusal> {
        match name {
            Name::Host => return single(&mut self.host, value, Refusal::RepeatedHeader),
            Name::Origin => return single(&mut self.origin, value, Refusal::RepeatedHeader),
            Name::ContentLength => return single(&mut self.content_length, value, Refusal::Length),
            // Two lines are taken for one that matches nothing: a document too many does no harm.
            Name::IfNoneMatch => {
                self.if_none_match = Some(if self.if_none_match.is_none() { value } else { b"" });
            }
            Name::TransferEncoding => self.has_transfer_encoding = true,
            Name::Key => self.has_key = true,
            Name::Connection => {
                self.close |= lists(value, "close");
                self.keep_alive |= lists(value, "keep-alive");
            }
            Name::Upgrade => self.upgrades |= lists(value, "websocket"),
            Name::Accept => self.accepts_streams |= tokens(value).any(accepts_streams),
            Name::Expect => {
                let met = value.eq_ignore_ascii_case(b"100-continue");
                let is_other = !met || self.expectation == Expectation::Unknown;
                self.expectation = if is_other { Expectation::Unknown } else { Expectation::Continue };
            }
        }
        Ok(())
    }
}

fn single<'a>(field: &mut Option<&'a [u8]>, value: &'a [u8], repeated: Refusal) -> Result<(), Refusal> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(repeated),
    }
}

/// Whether an element of `Accept` is event streams, and not their refusal by `q=0` (RFC 9110, 12.4.2).
fn accepts_streams(element: &[u8]) -> bool {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_it = parts.next().is_some_and(|range| range.eq_ignore_ascii_case(b"text/event-stream"));
    is_it && !parts.any(is_zero_weight)
}

fn is_zero_weight(parameter: &[u8]) -> bool {
    match parameter {
        [b'q' | b'Q', b'=', b'0'] => true,
        [b'q' | b'Q', b'=', b'0', b'.', decimals @ ..] => decimals.iter().all(|digit| *digit == b'0'),
        _ => false,
    }
}

/// The elements of a list (RFC 9110, 5.6.1). Empty ones do not count.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a list has this element. Elements are compared without case.
fn lists(value: &[u8], element: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(element.as_bytes()))
}

/// The headers of a request, asked by name. Names are compared without case.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'h, 'a>(&'h [httparse::Header<'a>]);

impl<'h, 'a: 'h> Headers<'h, 'a> {
    fn values(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + 'h {
        self.0.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// Whether it is there.
    pub fn has(self, name: &'static str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of a header that may be there once.
    pub fn single(self, name: &'static str) -> Result<Option<&'a [u8]>, Refusal> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Refusal::RepeatedHeader),
            (value, None) => Ok(value.map(<[u8]>::trim_ascii)),
        }
    }

    /// The elements of a list, over all lines that it is spread over.
    pub fn tokens(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + 'h {
        self.values(name).flat_map(tokens)
    }

    /// Whether a list has this element. Elements are compared without case.
    pub fn lists(self, name: &'static str, element: &str) -> bool {
        self.values(name).any(|value| lists(value, element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing;
    use proptest::prelude::*;

    /// Byte by byte.
    fn naive_head_len(bytes: &[u8]) -> Option<usize> {
        let empty_line = |at: usize| match bytes[at..] {
            [b'\n', b'\n', ..] => Some(at + 2),
            [b'\n', b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        };
        (0..bytes.len()).find_map(empty_line)
    }

    proptest! {
        /// Mostly line ends, and what differs from them by a bit, at every alignment and in two pieces.
        #[test]
        fn the_empty_line_is_found_as_it_is_byte_by_byte(
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

    /// Nothing that httparse takes for a whole head ends elsewhere: else one side would see a request where the other
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
