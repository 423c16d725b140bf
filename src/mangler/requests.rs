//! The client's bytes into requests, without I/O: where each begins and ends, and which are upgrades.

use std::mem;

use httparse::Header;

use super::exchange::ExpectedResponse;
use super::refusal::ProxyRefusal;
use crate::limits::{HTTP_HEADERS_MAX, MANGLER_HEAD_BYTES_MAX};

/// The meaning of the next bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RequestEvent {
    /// The beginning of a head, which is held.
    Incomplete,
    /// Bytes that pass unchanged.
    Bytes,
    /// A request that is not an upgrade: its head, and the response that it expects.
    Plain { head: Vec<u8>, response: ExpectedResponse },
    /// An upgrade to WebSocket: its head, and the `mangle=` of its target.
    Upgrade { head: Vec<u8>, mangle: Option<String> },
    /// Input that cannot be followed: the held bytes pass, and everything after them.
    Unknown(Vec<u8>),
    /// Input that does not pass.
    Refused(ProxyRefusal),
}

/// The parser of the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct RequestParser {
    state: RequestState,
    /// The beginning of a head; at most [`MANGLER_HEAD_BYTES_MAX`].
    held: Vec<u8>,
}

#[derive(Debug, Default)]
enum RequestState {
    #[default]
    Head,
    /// This many bytes of a body are still to come.
    Body(u64),
    /// Everything passes unexamined.
    Unknown,
}

impl RequestParser {
    /// Consumes the first part of `input`. Returns its size and its meaning.
    pub(super) fn read(&mut self, input: &[u8]) -> (usize, RequestEvent) {
        match self.state {
            RequestState::Head => self.read_head(input),
            RequestState::Body(left) => {
                let consumed = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                self.continue_body(left - consumed as u64);
                (consumed, RequestEvent::Bytes)
            }
            RequestState::Unknown => (input.len(), RequestEvent::Bytes),
        }
    }

    /// Returns the beginning of a head that the client did not complete.
    pub(super) fn rest(&self) -> &[u8] {
        &self.held
    }

    /// Parses the whole head again with each piece that arrives: heads are short, and their length is bounded.
    fn read_head(&mut self, input: &[u8]) -> (usize, RequestEvent) {
        let had = self.held.len();
        let room = MANGLER_HEAD_BYTES_MAX - had;
        self.held.extend_from_slice(&input[..input.len().min(room)]);
        let parsed = parse(&self.held);
        let consumed = match &parsed {
            ParsedRequest::Complete(request) => request.len - had,
            _ => self.held.len() - had,
        };
        let event = match parsed {
            ParsedRequest::Complete(request) => self.handle_head(request),
            ParsedRequest::Incomplete if self.held.len() < MANGLER_HEAD_BYTES_MAX => RequestEvent::Incomplete,
            ParsedRequest::Incomplete | ParsedRequest::TooLarge => {
                self.held.clear();
                RequestEvent::Refused(ProxyRefusal::TooLarge)
            }
            ParsedRequest::Unknown => {
                self.state = RequestState::Unknown;
                RequestEvent::Unknown(mem::take(&mut self.held))
            }
        };
        (consumed, event)
    }

    fn handle_head(&mut self, request: ProxiedRequest) -> RequestEvent {
        self.held.truncate(request.len);
        let head = mem::take(&mut self.held);
        self.continue_body(request.body);
        if request.is_upgrade {
            RequestEvent::Upgrade { head, mangle: request.mangle }
        } else {
            RequestEvent::Plain { head, response: request.response }
        }
    }

    fn continue_body(&mut self, left: u64) {
        self.state = if left > 0 { RequestState::Body(left) } else { RequestState::Head };
    }
}

enum ParsedRequest {
    Incomplete,
    Complete(ProxiedRequest),
    TooLarge,
    Unknown,
}

struct ProxiedRequest {
    /// The size of the head in bytes.
    len: usize,
    /// The size of the body in bytes.
    body: u64,
    response: ExpectedResponse,
    is_upgrade: bool,
    mangle: Option<String>,
}

fn parse(bytes: &[u8]) -> ParsedRequest {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => classify(&request, len),
        Ok(httparse::Status::Partial) => ParsedRequest::Incomplete,
        Err(httparse::Error::TooManyHeaders) => ParsedRequest::TooLarge,
        Err(_) => ParsedRequest::Unknown,
    }
}

fn classify(request: &httparse::Request<'_, '_>, len: usize) -> ParsedRequest {
    let body = match body_length(request.headers) {
        BodyLength::Bytes(bytes) => bytes,
        BodyLength::Missing => 0,
        BodyLength::Unclear => return ParsedRequest::Unknown,
    };
    let response = if request.method == Some("HEAD") {
        ExpectedResponse::WithoutBody
    } else {
        ExpectedResponse::WithBody
    };
    // The server refuses an upgrade with a body.
    let is_upgrade = body == 0 && asks_for_websocket(request.headers);
    let mangle = mangle_of(request.path.unwrap_or_default());
    ParsedRequest::Complete(ProxiedRequest { len, body, response, is_upgrade, mangle })
}

fn asks_for_websocket(headers: &[Header<'_>]) -> bool {
    let upgrades = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Upgrade"));
    let mut protocols = upgrades.flat_map(|header| header.value.split(|byte| *byte == b','));
    protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

/// Returns the `mangle=` in a target's query; the first one, if there are several.
fn mangle_of(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("mangle=")).map(str::to_owned)
}

/// The length of a body, according to the headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Missing,
    Bytes(u64),
    /// A transfer coding, more than one length, or a length that is not a number. The server sends none of these.
    Unclear,
}

pub(super) fn body_length(headers: &[Header<'_>]) -> BodyLength {
    if headers.iter().any(|header| header.name.eq_ignore_ascii_case("Transfer-Encoding")) {
        return BodyLength::Unclear;
    }
    let mut lengths = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Content-Length"));
    match (lengths.next(), lengths.next()) {
        (None, _) => BodyLength::Missing,
        (Some(header), None) => digits(header.value).map_or(BodyLength::Unclear, BodyLength::Bytes),
        (Some(_), Some(_)) => BodyLength::Unclear,
    }
}

/// Parses a number that has only digits: `parse` would accept a sign.
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

    /// Returns the events, without bytes and incomplete heads, and all bytes that would go to the server.
    fn read_all(pieces: &[&[u8]]) -> (Vec<RequestEvent>, Vec<u8>) {
        let (mut requests, mut found, mut passed) = (RequestParser::default(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut input = *piece;
            while !input.is_empty() {
                let (consumed, event) = requests.read(input);
                match &event {
                    RequestEvent::Bytes => passed.extend_from_slice(&input[..consumed]),
                    RequestEvent::Plain { head, .. }
                    | RequestEvent::Upgrade { head, .. }
                    | RequestEvent::Unknown(head) => {
                        passed.extend_from_slice(head);
                    }
                    RequestEvent::Incomplete => {}
                    RequestEvent::Refused(_) => return (vec![event], passed),
                }
                if !matches!(event, RequestEvent::Bytes | RequestEvent::Incomplete) {
                    found.push(event);
                }
                input = &input[consumed..];
            }
        }
        passed.extend_from_slice(requests.rest());
        (found, passed)
    }

    fn plain(head: &str) -> RequestEvent {
        RequestEvent::Plain { head: head.into(), response: ExpectedResponse::WithBody }
    }

    fn upgrade(head: &str, mangle: Option<&str>) -> RequestEvent {
        RequestEvent::Upgrade { head: head.into(), mangle: mangle.map(Into::into) }
    }

    #[test]
    fn requests_are_separated_at_every_split() {
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
                    RequestEvent::Plain { head: head.into(), response: ExpectedResponse::WithoutBody },
                    plain(&format!("\r\n{POST}")),
                    plain(POST),
                ],
            ),
            (format!("{POST}abcde{unclear}{UPGRADE}"), vec![plain(POST), RequestEvent::Unknown(Vec::new())]),
            (format!("/qio/ohai{UPGRADE}"), vec![RequestEvent::Unknown(Vec::new())]),
            (format!("{with_body}x{UPGRADE}"), vec![plain(&with_body), upgrade(UPGRADE, None)]),
        ] {
            for at in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(at);
                let (mut found, passed) = read_all(&[first, second]);
                // The number of held bytes depends on the split.
                found.iter_mut().for_each(|found| {
                    if let RequestEvent::Unknown(held) = found {
                        held.clear();
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
        let refused = vec![RequestEvent::Refused(ProxyRefusal::TooLarge)];
        let long = |len: usize| {
            let start = "GET / HTTP/1.1\r\nX: ";
            format!("{start}{}\r\n\r\n", "y".repeat(len - start.len() - 4))
        };
        let many = |headers: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(headers));
        let (fits, longer) = (long(MANGLER_HEAD_BYTES_MAX), long(MANGLER_HEAD_BYTES_MAX + 1));
        assert_eq!(read_all(&[fits.as_bytes()]).0, [plain(&fits)]);
        assert_eq!(read_all(&[longer.as_bytes()]).0, refused);
        for at in [1, 100, MANGLER_HEAD_BYTES_MAX - 1, MANGLER_HEAD_BYTES_MAX] {
            let (first, second) = longer.as_bytes().split_at(at);
            assert_eq!(read_all(&[first, second]).0, refused, "{at}");
        }
        let fits = many(HTTP_HEADERS_MAX);
        assert_eq!(read_all(&[fits.as_bytes()]).0, [plain(&fits)]);
        assert_eq!(read_all(&[many(HTTP_HEADERS_MAX + 1).as_bytes()]).0, refused);
    }

    #[test]
    fn body_lengths() {
        for (lines, expected) in [
            ("", BodyLength::Missing),
            ("Content-Length: 0\r\n", BodyLength::Bytes(0)),
            ("content-length:\t18446744073709551615 \r\n", BodyLength::Bytes(u64::MAX)),
            ("Content-Length: 18446744073709551616\r\n", BodyLength::Unclear),
            ("Content-Length: +5\r\n", BodyLength::Unclear),
            ("Content-Length: 5, 5\r\n", BodyLength::Unclear),
            ("Content-Length:\r\n", BodyLength::Unclear),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", BodyLength::Unclear),
            ("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", BodyLength::Unclear),
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
        fn all_bytes_pass_unchanged(
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
