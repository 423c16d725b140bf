//! The server's bytes into responses, without I/O: where each begins and ends, and how an upgrade ended.

use std::mem;

use super::edits;
use super::exchange::{ExpectedResponse, Tunnel};
use super::requests::{BodyLength, body_length};
use crate::config::clienttest::Mode;
use crate::limits::{HTTP_HEADERS_MAX, MANGLER_HEAD_BYTES_MAX};

/// The meaning of the next bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseStep {
    /// The number of bytes.
    pub(super) consumed: usize,
    pub(super) output: ClientOutput,
    pub(super) event: ResponseEvent,
}

/// The bytes that go to the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientOutput {
    Nothing,
    /// The consumed bytes.
    Bytes,
    /// These bytes, in place of the consumed ones.
    Head(Vec<u8>),
}

/// The event to handle after the output has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseEvent {
    None,
    /// The response that was expected next is complete.
    Complete,
    /// A 101: there are no more requests and responses.
    Upgraded(Tunnel),
    /// The connection has to be reset.
    Cut,
}

/// The parser of the responses of one connection.
#[derive(Debug, Default)]
pub(super) struct ResponseParser {
    state: ResponseState,
    /// The beginning of a head; at most [`MANGLER_HEAD_BYTES_MAX`].
    held: Vec<u8>,
}

#[derive(Debug, Default)]
enum ResponseState {
    #[default]
    Head,
    /// This many bytes of a body are still to come.
    Body(u64),
    /// Everything passes, until the connection ends.
    Tunnel,
    /// Everything is dropped.
    Swallow,
}

impl ResponseParser {
    /// Consumes the first part of `input`. `expected` is called if a head begins or is complete.
    pub(super) fn read(&mut self, input: &[u8], expected: impl FnOnce() -> ExpectedResponse) -> ResponseStep {
        let all = |output| ResponseStep { consumed: input.len(), output, event: ResponseEvent::None };
        match self.state {
            ResponseState::Head => self.read_head(input, expected()),
            ResponseState::Body(left) => {
                let consumed = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                let event = self.continue_body(left - consumed as u64);
                ResponseStep { consumed, output: ClientOutput::Bytes, event }
            }
            ResponseState::Tunnel => all(ClientOutput::Bytes),
            ResponseState::Swallow => all(ClientOutput::Nothing),
        }
    }

    /// Returns the beginning of a head that the server did not complete.
    pub(super) fn rest(&self) -> &[u8] {
        &self.held
    }

    fn read_head(&mut self, input: &[u8], expected: ExpectedResponse) -> ResponseStep {
        let had = self.held.len();
        let room = MANGLER_HEAD_BYTES_MAX - had;
        self.held.extend_from_slice(&input[..input.len().min(room)]);
        let parsed =
            if expected == ExpectedResponse::Unknown { ParsedResponse::Unknown } else { parse(&self.held) };
        match parsed {
            ParsedResponse::Complete(response) => {
                self.held.truncate(response.len);
                let head = mem::take(&mut self.held);
                let (head, event) = self.handle_head(head, &response, expected);
                ResponseStep { consumed: response.len - had, output: ClientOutput::Head(head), event }
            }
            ParsedResponse::Incomplete if self.held.len() < MANGLER_HEAD_BYTES_MAX => ResponseStep {
                consumed: input.len(),
                output: ClientOutput::Nothing,
                event: ResponseEvent::None,
            },
            ParsedResponse::Incomplete | ParsedResponse::Unknown => {
                self.state = ResponseState::Tunnel;
                let held = mem::take(&mut self.held);
                ResponseStep {
                    consumed: held.len() - had,
                    output: ClientOutput::Head(held),
                    event: ResponseEvent::None,
                }
            }
        }
    }

    /// Returns the head that goes to the client, and what follows from it.
    fn handle_head(
        &mut self,
        head: Vec<u8>,
        response: &ResponseHead,
        expected: ExpectedResponse,
    ) -> (Vec<u8>, ResponseEvent) {
        match (response.status, expected) {
            (101, ExpectedResponse::Upgrade(mode)) => (edits::response(mode, &head), self.upgrade(mode)),
            (101, _) => {
                self.state = ResponseState::Tunnel;
                (head, ResponseEvent::None)
            }
            // An interim response: the final one is still to come.
            (100..=199, _) => (head, ResponseEvent::None),
            (status, expected) => (head, self.begin_body(status, expected, &response.body)),
        }
    }

    fn upgrade(&mut self, mode: Mode) -> ResponseEvent {
        match mode {
            Mode::Cut => ResponseEvent::Cut,
            Mode::Swallow => {
                self.state = ResponseState::Swallow;
                ResponseEvent::Upgraded(Tunnel::Swallow)
            }
            _ => {
                self.state = ResponseState::Tunnel;
                ResponseEvent::Upgraded(Tunnel::Pass)
            }
        }
    }

    /// RFC 9112, section 6.3: which responses have a body, and how long it is.
    fn begin_body(&mut self, status: u16, expected: ExpectedResponse, length: &BodyLength) -> ResponseEvent {
        if expected == ExpectedResponse::WithoutBody || matches!(status, 204 | 304) {
            return self.continue_body(0);
        }
        match length {
            BodyLength::Bytes(bytes) => self.continue_body(*bytes),
            BodyLength::Missing | BodyLength::Unclear => {
                self.state = ResponseState::Tunnel;
                ResponseEvent::None
            }
        }
    }

    fn continue_body(&mut self, left: u64) -> ResponseEvent {
        if left > 0 {
            self.state = ResponseState::Body(left);
            return ResponseEvent::None;
        }
        self.state = ResponseState::Head;
        ResponseEvent::Complete
    }
}

enum ParsedResponse {
    Incomplete,
    Complete(ResponseHead),
    Unknown,
}

struct ResponseHead {
    /// The size of the head in bytes.
    len: usize,
    status: u16,
    body: BodyLength,
}

fn parse(bytes: &[u8]) -> ParsedResponse {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => {
            let status = response.code.unwrap_or_default();
            ParsedResponse::Complete(ResponseHead { len, status, body: body_length(response.headers) })
        }
        Ok(httparse::Status::Partial) => ParsedResponse::Incomplete,
        Err(_) => ParsedResponse::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    const OPENED: &str =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nHTTP";
    const TEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";

    /// Returns the bytes that go to the client, and the events.
    fn read_all(pieces: &[&[u8]], expected: &[ExpectedResponse]) -> (String, Vec<ResponseEvent>) {
        let mut expected: VecDeque<ExpectedResponse> = expected.iter().copied().collect();
        let (mut responses, mut sent, mut happened) = (ResponseParser::default(), Vec::new(), Vec::new());
        'pieces: for piece in pieces {
            let mut input = *piece;
            while !input.is_empty() {
                let step =
                    responses.read(input, || expected.front().copied().unwrap_or(ExpectedResponse::WithBody));
                match step.output {
                    ClientOutput::Nothing => {}
                    ClientOutput::Bytes => sent.extend_from_slice(&input[..step.consumed]),
                    ClientOutput::Head(bytes) => sent.extend(bytes),
                }
                if step.event != ResponseEvent::None {
                    happened.push(step.event);
                    expected.pop_front();
                }
                if step.event == ResponseEvent::Cut {
                    break 'pieces;
                }
                input = &input[step.consumed..];
            }
        }
        sent.extend_from_slice(responses.rest());
        (String::from_utf8(sent).unwrap(), happened)
    }

    #[test]
    fn responses_are_separated_at_every_split() {
        const UPGRADE: ExpectedResponse = ExpectedResponse::Upgrade(Mode::AcceptRemoved);
        let mangled = OPENED.replace("Sec-WebSocket-Accept: x\r\n", "");
        let opened = ResponseEvent::Upgraded(Tunnel::Pass);
        let same = |stream: String| (stream.clone(), stream);
        let table = [
            (
                same(format!("{OK}{OK}")),
                vec![ExpectedResponse::WithBody; 2],
                vec![ResponseEvent::Complete; 2],
            ),
            // A response that no request expects, and one to a HEAD.
            (
                same(format!("{TEN}{OK}{OK}")),
                vec![ExpectedResponse::WithoutBody],
                vec![ResponseEvent::Complete; 3],
            ),
            (
                (format!("{OK}{OPENED}{OPENED}"), format!("{OK}{mangled}{OPENED}")),
                vec![ExpectedResponse::WithBody, UPGRADE],
                vec![ResponseEvent::Complete, opened],
            ),
            (
                (
                    format!("HTTP/1.1 100 Continue\r\n\r\n{OPENED}{OK}"),
                    format!("HTTP/1.1 100 Continue\r\n\r\n{mangled}{OK}"),
                ),
                vec![UPGRADE],
                vec![opened],
            ),
            // A refused upgrade, then another.
            (
                (format!("{OK}{OPENED}"), format!("{OK}{mangled}")),
                vec![UPGRADE, UPGRADE],
                vec![ResponseEvent::Complete, opened],
            ),
            (
                same(format!(
                    "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nHTTP/1.1 204 No\r\n\r\n{OK}"
                )),
                vec![ExpectedResponse::WithBody; 3],
                vec![ResponseEvent::Complete; 3],
            ),
            // Up to the end of the stream: no length, a transfer coding, no HTTP, a 101 that no upgrade expects.
            (
                same(format!("HTTP/1.1 200 OK\r\n\r\n: quickio{OK}")),
                vec![ExpectedResponse::WithBody; 2],
                vec![],
            ),
            (
                same(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{OK}")),
                vec![UPGRADE],
                vec![],
            ),
            (same(format!("/qio/ohai{OPENED}")), vec![UPGRADE], vec![]),
            (same(format!("{OPENED}{OPENED}")), vec![ExpectedResponse::WithBody, UPGRADE], vec![]),
            (same(format!("{OK}{OPENED}")), vec![ExpectedResponse::Unknown, UPGRADE], vec![]),
            (same("HTTP/1.1 101 Swi".to_owned()), vec![UPGRADE], vec![]),
        ];
        for ((stream, sent), expected, happened) in table {
            for at in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(at);
                let got = read_all(&[first, second], &expected);
                assert_eq!(got, (sent.clone(), happened.clone()), "{at} of {stream:?}");
            }
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(read_all(&bytes, &expected), (sent, happened), "{stream:?}, byte by byte");
        }
    }

    #[test]
    fn every_mode_works_at_every_split() {
        let stream = format!("{OPENED}frames");
        for mode in Mode::ALL {
            let head = String::from_utf8(edits::response(*mode, OPENED.as_bytes())).unwrap();
            let expected = match mode {
                Mode::Swallow => (head, vec![ResponseEvent::Upgraded(Tunnel::Swallow)]),
                Mode::Cut => (head, vec![ResponseEvent::Cut]),
                _ => (head + "frames", vec![ResponseEvent::Upgraded(Tunnel::Pass)]),
            };
            for at in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(at);
                let got = read_all(&[first, second], &[ExpectedResponse::Upgrade(*mode)]);
                assert_eq!(got, expected, "{mode:?} at {at}");
            }
            // Other responses than a 101 pass unchanged.
            let (sent, happened) = read_all(&[OK.as_bytes()], &[ExpectedResponse::Upgrade(*mode)]);
            assert_eq!((sent.as_str(), happened), (OK, vec![ResponseEvent::Complete]), "{mode:?}");
        }
    }

    #[test]
    fn heads_over_the_limits_pass_unexamined() {
        for head in [
            format!("HTTP/1.1 101 S\r\nX: {}\r\n\r\n", "y".repeat(MANGLER_HEAD_BYTES_MAX)),
            format!("HTTP/1.1 101 S\r\n{}\r\n", "X: y\r\n".repeat(HTTP_HEADERS_MAX + 1)),
        ] {
            for size in [1, 1000, head.len()] {
                let pieces: Vec<&[u8]> = head.as_bytes().chunks(size).collect();
                let got = read_all(&pieces, &[ExpectedResponse::Upgrade(Mode::Status200)]);
                assert_eq!(got, (head.clone(), vec![]), "{size}");
            }
        }
    }
}
