//! One connection that speaks HTTP: requests as they come, and responses in their order.

use std::mem;
use std::str;

use smallvec::SmallVec;

use super::head::head_len;
use super::refusal::Refusal;
use super::request::{self, Answer, Circumstances, Facts, Verdict};
use super::response::{self, CONTINUE, Manner};
use super::{HttpRequest, HttpResponse, Persistence, ReadyResponses, Sid};
use crate::limits::{HTTP_EMPTY_LINES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_REQUESTS_UNANSWERED_MAX};
use crate::protocol::utf8::Utf8Gatherer;
use crate::protocol::{Close, CodecSettings, Reason};

/// One connection: 24 bytes, and no heap while it is idle.
///
/// ```text
/// Opening --whole request--> Open --the last request--> Finishing --its response--> Ended
///                                                          |
///                                                          +------a stream's head--> Streaming
/// ```
#[derive(Debug)]
pub struct Http {
    /// A request that has begun and is not at its end, or was lent to the caller by the last call.
    unfinished: Option<Box<Unfinished>>,
    /// The requests that are not answered. The first of them never is.
    queue: Option<Box<Queue>>,
    /// The number of the next request.
    next: u32,
    phase: Phase,
    empty_lines: EmptyLines,
    echo: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No request was whole yet.
    Opening,
    /// Requests come.
    Open,
    /// The last request has come: what follows does not matter.
    Finishing,
    /// Events are sent, and end with the connection.
    Streaming,
    /// The last response was sent, although others may have been waited for.
    Ended,
}

/// The requests that are not answered, in their order. Nearly always there is one.
#[derive(Debug)]
struct Queue {
    /// The number of the first. Those behind it have the numbers that follow.
    first: u32,
    requests: SmallVec<[Unanswered; 1]>,
}

/// A request that waits for its response, or whose response waits for those before it.
#[derive(Debug)]
struct Unanswered {
    /// The response, where it is known and its turn has not come.
    ready: Option<Vec<u8>>,
    /// The connection ends behind the response, for this reason.
    ends: Option<Reason>,
    session: Option<Sid>,
    /// An event stream was asked for.
    stream: bool,
    manner: Manner,
}

/// A request of which a part has come.
#[derive(Debug, Default)]
struct Unfinished {
    /// At most [`HTTP_HEAD_BYTES_MAX`]. All of it was searched for the end of the head.
    head: Vec<u8>,
    /// What the head says, once it is whole.
    facts: Option<(Facts, Manner)>,
    body: Utf8Gatherer,
    /// All of it was lent to the caller.
    lent: bool,
}

/// What a piece of input came to.
#[derive(Debug)]
pub enum Read<'i> {
    /// Nothing more: all of the input was consumed.
    NotYet,
    /// These bytes are to be sent.
    Reply(Vec<u8>),
    /// What is to be sent has to wait.
    Ignore,
    /// A request is refused and the connection lives on. These bytes are to be sent; none where they have to wait.
    Refused(Vec<u8>),
    /// A request, to be made of what [`Http::lend`] is given.
    Whole(Whole<'i>),
    /// The connection becomes a WebSocket.
    Upgrade { answer: Vec<u8>, echo: bool },
    /// The connection ends.
    Close(Close),
}

/// A request that is whole: in the input, as far as it is here.
#[derive(Debug)]
pub struct Whole<'i> {
    number: u32,
    facts: Facts,
    head: Option<&'i [u8]>,
    body: Option<&'i str>,
}

impl Http {
    /// A connection that has begun with these bytes: at most a method.
    pub fn new(first: &[u8], echo: bool) -> Http {
        let begun = Unfinished { head: first.to_vec(), ..Unfinished::default() };
        Http {
            unfinished: (!first.is_empty()).then(|| Box::new(begun)),
            queue: None,
            next: 0,
            phase: Phase::Opening,
            empty_lines: EmptyLines::default(),
            echo,
        }
    }

    /// Finds what is next in the input; returns how much of it that took.
    pub fn read<'i>(&mut self, input: &'i [u8], settings: &CodecSettings) -> (usize, Read<'i>) {
        if self.unfinished.as_ref().is_some_and(|unfinished| unfinished.lent) {
            self.unfinished = None;
        }
        match self.phase {
            Phase::Finishing | Phase::Streaming | Phase::Ended => (input.len(), Read::NotYet),
            Phase::Opening | Phase::Open if self.unfinished.is_some() => self.go_on(input, settings),
            Phase::Opening | Phase::Open => self.begin(input, settings),
        }
    }

    /// The request that was just read.
    pub fn lend<'a>(&'a self, whole: Whole<'a>) -> HttpRequest<'a> {
        let Whole { number, facts, head, body } = whole;
        let gathered = || self.unfinished.as_deref().expect("what is not in the input was gathered");
        let head = head.unwrap_or_else(|| &gathered().head);
        let body = body.unwrap_or_else(|| gathered().body.finish().expect("it was found to be whole"));
        HttpRequest { number, kind: facts.asks(head, body) }
    }

    /// Answers a request; see [`Codec::respond`](crate::protocol::Codec::respond).
    pub fn respond(&mut self, number: u32, response: HttpResponse<'_>) -> ReadyResponses {
        let mut due = ReadyResponses::default();
        if matches!(self.phase, Phase::Streaming | Phase::Ended) {
            return due;
        }
        let Some(queue) = self.queue.as_deref_mut() else { return due };
        let place = number.wrapping_sub(queue.first) as usize;
        let Some(request) = queue.requests.get_mut(place).filter(|it| it.ready.is_none()) else { return due };
        match response {
            HttpResponse::Whole { status, headers, body } => {
                if status == 400 {
                    request.manner.last = true;
                    request.ends = Some(Reason::Finished);
                    self.phase = Phase::Finishing;
                    self.unfinished = None;
                }
                response::whole(&mut due.bytes, &request.manner, status, headers, body);
            }
            HttpResponse::Stream => {
                assert!(request.stream, "only who asked for a stream gets one");
                // None is asked for while others wait, and nothing is read behind it: its turn has come.
                response::stream(&mut due.bytes, &request.manner);
                self.phase = Phase::Streaming;
                return due;
            }
        }
        request.ready = Some(mem::take(&mut due.bytes));
        self.flush()
    }

    /// The requests that were not answered, in their order; a stream never is.
    pub fn unanswered(&self) -> impl Iterator<Item = (u32, Option<Sid>)> {
        let numbered =
            self.queue.iter().flat_map(|queue| (queue.first..=u32::MAX).chain(0..).zip(&queue.requests));
        numbered.filter(|(_, it)| it.ready.is_none()).map(|(number, it)| (number, it.session))
    }

    /// Bytes of responses that wait for those before them.
    pub fn waiting_bytes(&self) -> usize {
        let waiting = self.queue.iter().flat_map(|queue| &queue.requests);
        waiting.filter_map(|it| it.ready.as_ref()).map(Vec::len).sum()
    }

    /// Ends the connection: what its peer is told.
    pub fn close(&mut self, reason: Reason) -> Close {
        let mut bytes = Vec::new();
        if matches!(self.phase, Phase::Streaming | Phase::Ended) {
            return Close { bytes, reason, await_peer: false };
        }
        if let Some(first) = self.queue.as_deref().and_then(|queue| queue.requests.first()) {
            let manner = Manner { last: true, ..first.manner.clone() };
            response::plain(&mut bytes, &manner, 503, "", reason.text());
        } else if reason == Reason::ClientTimeout && self.is_begun() {
            bytes = Answer::refusal(Refusal::Timeout).bytes;
        }
        Close { bytes, reason, await_peer: false }
    }

    /// Whether a request was whole, and the last response was not sent.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Opening | Phase::Ended)
    }

    /// Whether it is open, and no request is begun.
    pub fn is_idle(&self) -> bool {
        self.is_open() && !self.is_begun()
    }

    fn is_begun(&self) -> bool {
        self.unfinished.as_ref().is_some_and(|unfinished| !unfinished.lent)
    }

    /// Reads from the beginning of a request, in place as far as it is there.
    fn begin<'i>(&mut self, input: &'i [u8], settings: &CodecSettings) -> (usize, Read<'i>) {
        let Some(skipped) = self.empty_lines.skip(input) else {
            return (input.len(), self.answer(Answer::refusal(Refusal::Malformed)));
        };
        let rest = &input[skipped..];
        if rest.is_empty() {
            return (input.len(), Read::NotYet);
        }
        let Some(len) = head_len(&rest[..rest.len().min(HTTP_HEAD_BYTES_MAX)], 0) else {
            if rest.len() >= HTTP_HEAD_BYTES_MAX {
                return (input.len(), self.answer(Answer::refusal(Refusal::TooLarge)));
            }
            self.unfinished = Some(Box::new(Unfinished { head: rest.to_vec(), ..Unfinished::default() }));
            return (input.len(), Read::NotYet);
        };
        let (head, rest) = rest.split_at(len);
        let (consumed, read) = match self.judge(head, settings) {
            Verdict::Ask(facts, manner) => self.take_body(head, (facts, manner), rest),
            Verdict::Answer(answer) => (0, self.answer(answer)),
            Verdict::Upgrade { answer, echo } => (0, Read::Upgrade { answer, echo }),
        };
        (skipped + len + consumed, read)
    }

    /// Reads the body of a request whose head lies in the input.
    fn take_body<'i>(
        &mut self,
        head: &'i [u8],
        (facts, manner): (Facts, Manner),
        rest: &'i [u8],
    ) -> (usize, Read<'i>) {
        let Some(body) = rest.get(..facts.body_len) else {
            let invites = self.invites(&facts, rest);
            let begun =
                Unfinished { head: head.to_vec(), facts: Some((facts, manner)), ..Unfinished::default() };
            self.unfinished = Some(Box::new(begun));
            if invites {
                return (0, Read::Reply(CONTINUE.into()));
            }
            return self.gather_body(rest);
        };
        match str::from_utf8(body) {
            Ok(text) => {
                let number = self.queue_up(&facts, manner);
                (body.len(), Read::Whole(Whole { number, facts, head: Some(head), body: Some(text) }))
            }
            Err(_) => (rest.len(), self.answer(Answer::of(Refusal::InvalidUtf8, &last(manner)))),
        }
    }

    /// Reads on where a request has begun.
    fn go_on<'i>(&mut self, input: &'i [u8], settings: &CodecSettings) -> (usize, Read<'i>) {
        let unfinished = self.unfinished.as_deref_mut().expect("a request has begun");
        if unfinished.facts.is_some() {
            return self.gather_body(input);
        }
        let Some(len) = unfinished.gather_head(input) else {
            if unfinished.head.len() < HTTP_HEAD_BYTES_MAX {
                return (input.len(), Read::NotYet);
            }
            return (input.len(), self.answer(Answer::refusal(Refusal::TooLarge)));
        };
        let head = mem::take(&mut unfinished.head);
        match self.judge(&head, settings) {
            Verdict::Ask(facts, manner) => {
                let invites = self.invites(&facts, &input[len..]);
                let unfinished = self.unfinished.as_deref_mut().expect("it was just taken from");
                unfinished.head = head;
                unfinished.facts = Some((facts, manner));
                if invites {
                    return (len, Read::Reply(CONTINUE.into()));
                }
                let (consumed, read) = self.gather_body(&input[len..]);
                (len + consumed, read)
            }
            Verdict::Answer(answer) => (len, self.answer(answer)),
            Verdict::Upgrade { answer, echo } => (len, Read::Upgrade { answer, echo }),
        }
    }

    /// Whether to tell the client to send the body: not before earlier responses, and not where it comes already.
    fn invites(&self, facts: &Facts, rest: &[u8]) -> bool {
        facts.awaits_continue && facts.body_len > 0 && rest.is_empty() && self.queue.is_none()
    }

    /// Adds to the body of the request that has begun.
    fn gather_body<'i>(&mut self, input: &'i [u8]) -> (usize, Read<'i>) {
        let unfinished = self.unfinished.as_deref_mut().expect("a request has begun");
        let facts = unfinished.facts.as_ref().expect("its head was whole").0;
        let piece = &input[..input.len().min(facts.body_len - unfinished.body.len())];
        let gathered = unfinished.body.push(piece);
        if gathered.is_ok() && unfinished.body.len() < facts.body_len {
            return (input.len(), Read::NotYet);
        }
        let (_, manner) = unfinished.facts.take().expect("its head was whole");
        if gathered.is_err() || unfinished.body.finish().is_err() {
            return (input.len(), self.answer(Answer::of(Refusal::InvalidUtf8, &last(manner))));
        }
        unfinished.lent = true;
        let number = self.queue_up(&facts, manner);
        (piece.len(), Read::Whole(Whole { number, facts, head: None, body: None }))
    }

    fn judge(&self, head: &[u8], settings: &CodecSettings) -> Verdict {
        let waiting = self.queue.as_ref().map_or(0, |queue| queue.requests.len());
        if waiting >= HTTP_REQUESTS_UNANSWERED_MAX {
            return Verdict::Answer(Answer::refusal(Refusal::TooMany));
        }
        request::judge(head, Circumstances { settings, echo: self.echo, pipelined: waiting > 0 })
    }

    /// A request for the caller waits for its response; returns its number.
    fn queue_up(&mut self, facts: &Facts, manner: Manner) -> u32 {
        let ends = manner.last.then_some(Reason::Finished);
        let session = facts.sid();
        self.push(Unanswered { ready: None, ends, session, stream: facts.is_stream(), manner })
    }

    /// Answers a request ourselves, as soon as those before it are answered.
    fn answer(&mut self, answer: Answer) -> Read<'static> {
        self.unfinished = None;
        let Answer { bytes, ends, refuses } = answer;
        if self.queue.is_some() {
            let manner = Manner::default();
            self.push(Unanswered { ready: Some(bytes), ends, session: None, stream: false, manner });
            return if refuses && ends.is_none() { Read::Refused(Vec::new()) } else { Read::Ignore };
        }
        match ends {
            Some(reason) => Read::Close(Close { bytes, reason, await_peer: false }),
            None => {
                self.phase = Phase::Open;
                if refuses { Read::Refused(bytes) } else { Read::Reply(bytes) }
            }
        }
    }

    fn push(&mut self, request: Unanswered) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.phase = if request.ends.is_some() { Phase::Finishing } else { Phase::Open };
        let queue =
            self.queue.get_or_insert_with(|| Box::new(Queue { first: number, requests: SmallVec::new() }));
        queue.requests.push(request);
        number
    }

    /// The responses whose turn has come.
    fn flush(&mut self) -> ReadyResponses {
        let mut due = ReadyResponses::default();
        let Some(queue) = self.queue.as_deref_mut() else { return due };
        let known = queue.requests.iter().take_while(|it| it.ready.is_some()).count();
        // Nothing follows the response behind which the connection ends.
        let last = queue.requests[..known].iter().position(|it| it.ends.is_some());
        let count = last.map_or(known, |last| last + 1);
        for request in queue.requests.drain(..count) {
            let bytes = request.ready.unwrap_or_default();
            if due.bytes.is_empty() {
                due.bytes = bytes;
            } else {
                due.bytes.extend_from_slice(&bytes);
            }
            if let Some(reason) = request.ends {
                due.persistence = Persistence::Close(reason);
                self.phase = Phase::Ended;
            }
        }
        queue.first = queue.first.wrapping_add(count as u32);
        if queue.requests.is_empty() {
            self.queue = None;
        }
        due
    }
}

fn last(manner: Manner) -> Manner {
    Manner { last: true, ..manner }
}

impl Unfinished {
    /// Adds to the head; returns how much of the input belongs to it, once its end is there.
    fn gather_head(&mut self, input: &[u8]) -> Option<usize> {
        let had = self.head.len();
        self.head.extend_from_slice(&input[..input.len().min(HTTP_HEAD_BYTES_MAX - had)]);
        let len = head_len(&self.head, had)?;
        self.head.truncate(len);
        Some(len - had)
    }
}

/// The empty lines before a request. "A server that is expecting to receive and parse a request-line SHOULD ignore at
/// least one empty line received prior to the request-line" (RFC 9112, 2.2).
#[derive(Clone, Copy, Debug, Default)]
struct EmptyLines {
    /// Their number, and behind it, in the lowest bit, whether a CR has come whose LF is due.
    state: u8,
}

impl EmptyLines {
    /// Skips them; returns how many bytes they took, or `None` where they are too many, or no line ends.
    fn skip(&mut self, input: &[u8]) -> Option<usize> {
        for (at, byte) in input.iter().enumerate() {
            let after_cr = self.state & 1 == 1;
            match byte {
                b'\r' if !after_cr => self.state |= 1,
                b'\n' if self.state >> 1 < HTTP_EMPTY_LINES_MAX => self.state = ((self.state >> 1) + 1) << 1,
                b'\r' | b'\n' => return None,
                _ if after_cr => return None,
                _ => {
                    self.state = 0;
                    return Some(at);
                }
            }
        }
        Some(input.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Origins;
    use crate::protocol::http::RequestKind;

    const SETTINGS: CodecSettings = CodecSettings { message_bytes_max: 1 << 40, origins: Origins::Any };

    const POLL: &str = "POST /?sid=0123456789abcdef0123456789abcdef HTTP/1.1\r\nHost: a\r\n\
        Content-Length: 1000000000000\r\n\r\n";

    /// What a held request takes, beside its connection.
    #[test]
    fn records_keep_to_their_budget() {
        assert_eq!(size_of::<Http>(), 24);
        assert!(size_of::<Queue>() <= 128, "{}", size_of::<Queue>());
    }

    #[test]
    fn an_idle_connection_has_no_heap() {
        let poll = POLL.replace("1000000000000", "2") + "ab";
        for size in [1, 30, poll.len() - 1, poll.len()] {
            let mut http = Http::new(b"", false);
            for piece in poll.as_bytes().chunks(size) {
                let mut at = 0;
                while at < piece.len() {
                    let (consumed, read) = http.read(&piece[at..], &SETTINGS);
                    at += consumed;
                    if let Read::Whole(whole) = read {
                        let request = http.lend(whole);
                        assert!(matches!(request.kind, RequestKind::Poll { body: "ab", .. }), "{request:?}");
                    }
                }
            }
            assert!(http.is_idle());
            assert!(matches!(http.read(b"", &SETTINGS), (0, Read::NotYet)));
            assert!(http.unfinished.is_none(), "what was lent is given back");
            http.respond(0, HttpResponse::Whole { status: 200, headers: "", body: b"" });
            assert!(http.queue.is_none());
        }
    }

    #[test]
    fn memory_grows_with_the_bytes_received_not_with_those_announced() {
        let mut http = Http::new(b"", false);
        let input = [POLL.as_bytes(), &[b'x'; 100]].concat();
        assert!(matches!(http.read(&input, &SETTINGS), (consumed, Read::NotYet) if consumed == input.len()));
        let unfinished = http.unfinished.as_deref().expect("a request has begun");
        assert!(unfinished.body.capacity() <= 200 && unfinished.head.capacity() <= 2 * POLL.len());
    }

    #[test]
    fn numbers_wrap() {
        let mut http = Http::new(b"", false);
        http.next = u32::MAX;
        let poll = POLL.replace("1000000000000", "0").repeat(3);
        let mut at = 0;
        while at < poll.len() {
            at += http.read(&poll.as_bytes()[at..], &SETTINGS).0;
        }
        let numbers = |http: &Http| http.unanswered().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers(&http), [u32::MAX, 0, 1]);
        let response = HttpResponse::Whole { status: 200, headers: "", body: b"" };
        assert!(http.respond(0, response).bytes.is_empty());
        assert!(!http.respond(u32::MAX, response).bytes.is_empty());
        assert_eq!(numbers(&http), [1]);
    }
}
