//! The server's bytes into answers, without I/O: where each begins and ends, and what came of an upgrade.

use std::mem;

use super::exchange::{Expected, Tunnel};
use super::mangle;
use super::requests::{Length, body_length};
use crate::config::clienttest::Mode;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

/// What the next bytes come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// So many of them.
    pub(super) taken: usize,
    pub(super) out: Out,
    pub(super) then: Then,
}

/// What goes to the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Out {
    Nothing,
    /// The bytes that were taken.
    Bytes,
    /// These, in their place.
    Head(Vec<u8>),
}

/// What has happened, when that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// The answer that was expected next is over.
    Answered,
    /// It was a 101: requests and answers are over.
    Opened(Tunnel),
    /// The connection is to be reset.
    Cut,
}

/// The answers of one connection.
#[derive(Debug, Default)]
pub(super) struct Answers {
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
    /// Everything passes: it ends with the connection.
    Tunnel,
    /// Everything vanishes.
    Swallow,
}

impl Answers {
    /// Takes the first part of `input`. `expected` is asked where a head begins or is whole.
    pub(super) fn read(&mut self, input: &[u8], expected: impl FnOnce() -> Expected) -> Step {
        let all = |out| Step { taken: input.len(), out, then: Then::Nothing };
        match self.state {
            State::Head => self.read_head(input, expected()),
            State::Body(left) => {
                let taken = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                Step { taken, out: Out::Bytes, then: self.go_on(left - taken as u64) }
            }
            State::Tunnel => all(Out::Bytes),
            State::Swallow => all(Out::Nothing),
        }
    }

    /// The beginning of a head behind which the server ended.
    pub(super) fn rest(&self) -> &[u8] {
        &self.held
    }

    fn read_head(&mut self, input: &[u8], expected: Expected) -> Step {
        let had = self.held.len();
        let room = HTTP_HEAD_BYTES_MAX - had;
        self.held.extend_from_slice(&input[..input.len().min(room)]);
        let parsed = if expected == Expected::Unknown { Parsed::Unknown } else { parse(&self.held) };
        match parsed {
            Parsed::Whole(answer) => {
                self.held.truncate(answer.len);
                let head = mem::take(&mut self.held);
                let (head, then) = self.whole(head, &answer, expected);
                Step { taken: answer.len - had, out: Out::Head(head), then }
            }
            Parsed::NotYet if self.held.len() < HTTP_HEAD_BYTES_MAX => {
                Step { taken: input.len(), out: Out::Nothing, then: Then::Nothing }
            }
            Parsed::NotYet | Parsed::Unknown => {
                self.state = State::Tunnel;
                let kept = mem::take(&mut self.held);
                Step { taken: kept.len() - had, out: Out::Head(kept), then: Then::Nothing }
            }
        }
    }

    /// What of a whole head goes to the client, and what it means.
    fn whole(&mut self, head: Vec<u8>, answer: &Answer, expected: Expected) -> (Vec<u8>, Then) {
        match (answer.status, expected) {
            (101, Expected::Upgrade(mode)) => (mangle::answer(mode, &head), self.open(mode)),
            (101, _) => {
                self.state = State::Tunnel;
                (head, Then::Nothing)
            }
            // An interim answer: the one that counts is still to come.
            (100..=199, _) => (head, Then::Nothing),
            (status, expected) => (head, self.begin_body(status, expected, &answer.body)),
        }
    }

    fn open(&mut self, mode: Mode) -> Then {
        match mode {
            Mode::Cut => Then::Cut,
            Mode::Swallow => {
                self.state = State::Swallow;
                Then::Opened(Tunnel::Swallow)
            }
            _ => {
                self.state = State::Tunnel;
                Then::Opened(Tunnel::Pass)
            }
        }
    }

    /// RFC 9112, 6.3: which answers have a body, and how long it is.
    fn begin_body(&mut self, status: u16, expected: Expected, length: &Length) -> Then {
        if expected == Expected::NoBody || matches!(status, 204 | 304) {
            return self.go_on(0);
        }
        match length {
            Length::Bytes(bytes) => self.go_on(*bytes),
            Length::Missing | Length::Unclear => {
                self.state = State::Tunnel;
                Then::Nothing
            }
        }
    }

    fn go_on(&mut self, body_left: u64) -> Then {
        if body_left > 0 {
            self.state = State::Body(body_left);
            return Then::Nothing;
        }
        self.state = State::Head;
        Then::Answered
    }
}

enum Parsed {
    NotYet,
    Whole(Answer),
    Unknown,
}

struct Answer {
    /// Bytes of the head.
    len: usize,
    status: u16,
    body: Length,
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => {
            let status = answer.code.unwrap_or_default();
            Parsed::Whole(Answer { len, status, body: body_length(answer.headers) })
        }
        Ok(httparse::Status::Partial) => Parsed::NotYet,
        Err(_) => Parsed::Unknown,
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

    /// What goes to the client, and what happened.
    fn read_all(pieces: &[&[u8]], expected: &[Expected]) -> (String, Vec<Then>) {
        let mut expected: VecDeque<Expected> = expected.iter().copied().collect();
        let (mut answers, mut sent, mut happened) = (Answers::default(), Vec::new(), Vec::new());
        'pieces: for piece in pieces {
            let mut input = *piece;
            while !input.is_empty() {
                let step = answers.read(input, || expected.front().copied().unwrap_or(Expected::Body));
                match step.out {
                    Out::Nothing => {}
                    Out::Bytes => sent.extend_from_slice(&input[..step.taken]),
                    Out::Head(bytes) => sent.extend(bytes),
                }
                if step.then != Then::Nothing {
                    happened.push(step.then);
                    expected.pop_front();
                }
                if step.then == Then::Cut {
                    break 'pieces;
                }
                input = &input[step.taken..];
            }
        }
        sent.extend_from_slice(answers.rest());
        (String::from_utf8(sent).unwrap(), happened)
    }

    #[test]
    fn answers_are_told_apart_at_every_split() {
        const UPGRADE: Expected = Expected::Upgrade(Mode::AcceptRemoved);
        let mangled = OPENED.replace("Sec-WebSocket-Accept: x\r\n", "");
        let opened = Then::Opened(Tunnel::Pass);
        let same = |stream: String| (stream.clone(), stream);
        let table = [
            (same(format!("{OK}{OK}")), vec![Expected::Body; 2], vec![Then::Answered; 2]),
            // One that nobody asked for, and one to HEAD.
            (same(format!("{TEN}{OK}{OK}")), vec![Expected::NoBody], vec![Then::Answered; 3]),
            (
                (format!("{OK}{OPENED}{OPENED}"), format!("{OK}{mangled}{OPENED}")),
                vec![Expected::Body, UPGRADE],
                vec![Then::Answered, opened],
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
                vec![Then::Answered, opened],
            ),
            (
                same(format!(
                    "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nHTTP/1.1 204 No\r\n\r\n{OK}"
                )),
                vec![Expected::Body; 3],
                vec![Then::Answered; 3],
            ),
            // To the end of the stream: no length, a transfer coding, no HTTP, a 101 that nobody asked for.
            (same(format!("HTTP/1.1 200 OK\r\n\r\n: quickio{OK}")), vec![Expected::Body; 2], vec![]),
            (
                same(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{OK}")),
                vec![UPGRADE],
                vec![],
            ),
            (same(format!("/qio/ohai{OPENED}")), vec![UPGRADE], vec![]),
            (same(format!("{OPENED}{OPENED}")), vec![Expected::Body, UPGRADE], vec![]),
            (same(format!("{OK}{OPENED}")), vec![Expected::Unknown, UPGRADE], vec![]),
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
    fn every_mode_at_every_split() {
        let stream = format!("{OPENED}frames");
        for mode in Mode::ALL {
            let head = String::from_utf8(mangle::answer(*mode, OPENED.as_bytes())).unwrap();
            let expected = match mode {
                Mode::Swallow => (head, vec![Then::Opened(Tunnel::Swallow)]),
                Mode::Cut => (head, vec![Then::Cut]),
                _ => (head + "frames", vec![Then::Opened(Tunnel::Pass)]),
            };
            for at in 0..=stream.len() {
                let (first, second) = stream.as_bytes().split_at(at);
                let got = read_all(&[first, second], &[Expected::Upgrade(*mode)]);
                assert_eq!(got, expected, "{mode:?} at {at}");
            }
            // What is no 101 is not touched.
            let (sent, happened) = read_all(&[OK.as_bytes()], &[Expected::Upgrade(*mode)]);
            assert_eq!((sent.as_str(), happened), (OK, vec![Then::Answered]), "{mode:?}");
        }
    }

    #[test]
    fn heads_over_the_limits_pass_unseen() {
        for head in [
            format!("HTTP/1.1 101 S\r\nX: {}\r\n\r\n", "y".repeat(HTTP_HEAD_BYTES_MAX)),
            format!("HTTP/1.1 101 S\r\n{}\r\n", "X: y\r\n".repeat(HTTP_HEADERS_MAX + 1)),
        ] {
            for size in [1, 1000, head.len()] {
                let pieces: Vec<&[u8]> = head.as_bytes().chunks(size).collect();
                let got = read_all(&pieces, &[Expected::Upgrade(Mode::Status200)]);
                assert_eq!(got, (head.clone(), vec![]), "{size}");
            }
        }
    }
}
