//! The client's bytes into requests, without I/O: where each begins and ends, and which ask for an upgrade.

use std::mem;

use httparse::Header;

use super::exchange::Expected;
use super::refusal::Refusal;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The beginning of a head, which is kept.
    NotYet,
    /// They are to pass as they are.
    Bytes,
    /// A request that is no upgrade: its head, and what will answer it.
    Plain { head: Vec<u8>, answer: Expected },
    /// An upgrade to WebSocket: its head, and the `mangle=` of its target.
    Upgrade { head: Vec<u8>, mangle: Option<String> },
    /// Nothing that can be followed: what was kept is to pass, and everything behind it.
    Unknown(Vec<u8>),
    /// Nothing that is passed on.
    Refused(Refusal),
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    state: State,
    /// The beginning of a head; at most [`HTTP_HEAD_BYTES_MAX`].
    held: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    /// Nothing is looked at any more.
    Unknown,
}

impl Requests {
    /// Takes the first part of `input`: how many bytes it has, and what they are.
    pub(super) fn read(&mut self, input: &[u8]) -> (usize, Found) {
        match self.state {
            State::Head => self.read_head(input),
            State::Body(left) => {
                let taken = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                self.go_on(left - taken as u64);
                (taken, Found::Bytes)
            }
            State::Unknown => (input.len(), Found::Bytes),
        }
    }

    /// The beginning of a head behind which the client ended.
    pub(super) fn rest(&self) -> &[u8] {
        &self.held
    }

    /// A head is parsed anew with each piece that comes: it is short, and its length bounded.
    fn read_head(&mut self, input: &[u8]) -> (usize, Found) {
        let had = self.held.len();
        let room = HTTP_HEAD_BYTES_MAX - had;
        self.held.extend_from_slice(&input[..input.len().min(room)]);
        let parsed = parse(&self.held);
        let taken = match &parsed {
            Parsed::Whole(request) => request.len - had,
            _ => self.held.len() - had,
        };
        let found = match parsed {
            Parsed::Whole(request) => self.whole(request),
            Parsed::NotYet if self.held.len() < HTTP_HEAD_BYTES_MAX => Found::NotYet,
            Parsed::NotYet | Parsed::TooLarge => {
                self.held.clear();
                Found::Refused(Refusal::TooLarge)
            }
            Parsed::Unknown => {
                self.state = State::Unknown;
                Found::Unknown(mem::take(&mut self.held))
            }
        };
        (taken, found)
    }

    fn whole(&mut self, request: Request) -> Found {
        self.held.truncate(request.len);
        let head = mem::take(&mut self.held);
        self.go_on(request.body);
        if request.is_upgrade {
            Found::Upgrade { head, mangle: request.mangle }
        } else {
            Found::Plain { head, answer: request.answer }
        }
    }

    fn go_on(&mut self, body_left: u64) {
        self.state = if body_left > 0 { State::Body(body_left) } else { State::Head };
    }
}

enum Parsed {
    NotYet,
    Whole(Request),
    TooLarge,
    Unknown,
}

struct Request {
    /// Bytes of the head.
    len: usize,
    /// Bytes of the body.
    body: u64,
    answer: Expected,
    is_upgrade: bool,
    mangle: Option<String>,
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => whole(&request, len),
        Ok(httparse::Status::Partial) => Parsed::NotYet,
        Err(httparse::Error::TooManyHeaders) => Parsed::TooLarge,
        Err(_) => Parsed::Unknown,
    }
}

fn whole(request: &httparse::Request<'_, '_>, len: usize) -> Parsed {
    let body = match body_length(request.headers) {
        Length::Bytes(bytes) => bytes,
        Length::Missing => 0,
        Length::Unclear => return Parsed::Unknown,
    };
    let answer = if request.method == Some("HEAD") { Expected::NoBody } else { Expected::Body };
    // One with a body is refused by the server.
    let is_upgrade = body == 0 && asks_for_websocket(request.headers);
    let mangle = mangle_of(request.path.unwrap_or_default());
    Parsed::Whole(Request { len, body, answer, is_upgrade, mangle })
}

fn asks_for_websocket(headers: &[Header<'_>]) -> bool {
    let upgrades = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Upgrade"));
    let mut protocols = upgrades.flat_map(|header| header.value.split(|byte| *byte == b','));
    protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

/// The `mangle=` in a target's query; the first, where there are more.
fn mangle_of(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("mangle=")).map(str::to_owned)
}

/// What the headers say of the body's length.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Length {
    Missing,
    Bytes(u64),
    /// A transfer coding, more than one length, or one that is no number. The server speaks none of these.
    Unclear,
}

pub(super) fn body_length(headers: &[Header<'_>]) -> Length {
    if headers.iter().any(|header| header.name.eq_ignore_ascii_case("Transfer-Encoding")) {
        return Length::Unclear;
    }
    let mut lengths = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Content-Length"));
    match (lengths.next(), lengths.next()) {
        (None, _) => Length::Missing,
        (Some(header), None) => digits(header.value).map_or(Length::Unclear, Length::Bytes),
        (Some(_), Some(_)) => Length::Unclear,
    }
}

/// Digits only: `parse` would take a sign.
fn digits(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c, WebSocket\r\n\r\n";
    const POST: &str = "POST /?sid=0 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n";

    /// What was found, bytes that pass and beginnings left out; and all bytes that would go to the server.
    fn read_all(pieces: &[&[u8]]) -> (Vec<Found>, Vec<u8>) {
        let (mut requests, mut found, mut passed) = (Requests::default(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut input = *piece;
            while !input.is_empty() {
                let (taken, what) = requests.read(input);
                match &what {
                    Found::Bytes => passed.extend_from_slice(&input[..taken]),
                    Found::Plain { head, .. } | Found::Upgrade { head, .. } | Found::Unknown(head) => {
                        passed.extend_from_slice(head);
                    }
                    Found::NotYet => {}
                    Found::Refused(_) => return (vec![what], passed),
                }
                if !matches!(what, Found::Bytes | Found::NotYet) {
                    found.push(what);
                }
                input = &input[taken..];
            }
        }
        passed.extend_from_slice(requests.rest());
        (found, passed)
    }

    fn plain(head: &str) -> Found {
        Found::Plain { head: head.into(), answer: Expected::Body }
    }

    fn upgrade(head: &str, mangle: Option<&str>) -> Found {
        Found::Upgrade { head: head.into(), mangle: mangle.map(Into::into) }
    }

    #[test]
    fn requests_are_told_apart_at_every_split() {
        let head = "HEAD / HTTP/1.0\n\n";
        let chosen = UPGRADE.replace("/ HTTP", "http://h/x?a&mangle=cut&mangle=none HTTP");
        let unclear = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let with_body = UPGRADE.replace("Host: h", "Content-Length: 1");
        for (stream, expected) in [
            (format!("{POST}a\r\n\r\n{UPGRADE}"), vec![plain(POST), upgrade(UPGRADE, None)]),
            (chosen.clone(), vec![upgrade(&chosen, Some("cut"))]),
            (
                format!("{head}\r\n{POST}GET /{POST}GET /"),
                vec![
                    Found::Plain { head: head.into(), answer: Expected::NoBody },
                    plain(&format!("\r\n{POST}")),
                    plain(POST),
                ],
            ),
            (format!("{POST}abcde{unclear}{UPGRADE}"), vec![plain(POST), Found::Unknown(Vec::new())]),
            (format!("/qio/ohai{UPGRADE}"), vec![Found::Unknown(Vec::new())]),
            (format!("{with_body}x{UPGRADE}"), vec![plain(&with_body), upgrade(UPGRADE, None)]),
        ] {
            for at in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(at);
                let (mut found, passed) = read_all(&[first, second]);
                // How much was kept before the end of sight depends on the split.
                found.iter_mut().for_each(|found| {
                    if let Found::Unknown(kept) = found {
                        kept.clear();
                    }
                });
                assert_eq!(found, expected, "{at} of {stream:?}");
                assert_eq!(passed, stream.as_bytes(), "{at} of {stream:?}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(read_all(&bytes).1, stream.as_bytes());
        }
    }

    #[test]
    fn heads_over_the_limits_are_refused() {
        let refused = vec![Found::Refused(Refusal::TooLarge)];
        let long = |len: usize| {
            let start = "GET / HTTP/1.1\r\nX: ";
            format!("{start}{}\r\n\r\n", "y".repeat(len - start.len() - 4))
        };
        let many = |headers: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(headers));
        let (fits, longer) = (long(HTTP_HEAD_BYTES_MAX), long(HTTP_HEAD_BYTES_MAX + 1));
        assert_eq!(read_all(&[fits.as_bytes()]).0, [plain(&fits)]);
        assert_eq!(read_all(&[longer.as_bytes()]).0, refused);
        for at in [1, 100, HTTP_HEAD_BYTES_MAX - 1, HTTP_HEAD_BYTES_MAX] {
            let (first, second) = longer.as_bytes().split_at(at);
            assert_eq!(read_all(&[first, second]).0, refused, "{at}");
        }
        let fits = many(HTTP_HEADERS_MAX);
        assert_eq!(read_all(&[fits.as_bytes()]).0, [plain(&fits)]);
        assert_eq!(read_all(&[many(HTTP_HEADERS_MAX + 1).as_bytes()]).0, refused);
    }

    #[test]
    fn lengths() {
        for (lines, expected) in [
            ("", Length::Missing),
            ("Content-Length: 0\r\n", Length::Bytes(0)),
            ("content-length:\t18446744073709551615 \r\n", Length::Bytes(u64::MAX)),
            ("Content-Length: 18446744073709551616\r\n", Length::Unclear),
            ("Content-Length: +5\r\n", Length::Unclear),
            ("Content-Length: 5, 5\r\n", Length::Unclear),
            ("Content-Length:\r\n", Length::Unclear),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Length::Unclear),
            ("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", Length::Unclear),
        ] {
            let text = format!("{lines}\r\n");
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let Ok(httparse::Status::Complete((_, headers))) =
                httparse::parse_headers(text.as_bytes(), &mut headers)
            else {
                panic!("{lines:?}")
            };
            assert_eq!(body_length(headers), expected, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_passes_unharmed(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            requests in prop::collection::vec(0..3usize, 0..4),
            size in 1..50usize,
        ) {
            let known = [UPGRADE, POST, "GET / HTTP/1.1\r\n\r\n"];
            let mut stream: Vec<u8> = requests.iter().flat_map(|at| known[*at].bytes()).collect();
            stream.extend_from_slice(&bytes);
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            prop_assert_eq!(read_all(&pieces).1, stream);
        }
    }
}
