//! The codec of an HTTP connection: requests in pieces, and responses in the order of their requests.

use std::mem;
use std::str;

use smallvec::SmallVec;

use super::head::head_len;
use super::refusal::HttpRefusal;
use super::request::{self, ImmediateResponse, RequestContext, ValidRequest, Validation};
use super::response::{self, CONTINUE, ResponseFraming};
use super::{HttpRequest, HttpResponse, Persistence, ReadyResponses, Sid};
use crate::limits::{HTTP_EMPTY_LINES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_REQUESTS_UNANSWERED_MAX};
use crate::protocol::utf8::Utf8Gatherer;
use crate::protocol::{Close, CodecSettings, Reason};

/// The codec of an HTTP connection. It has 24 bytes, and no heap while it is idle.
///
/// ```text
/// Opening --first complete request--> Open --last request--> Finishing --its response--> Ended
///                                                               |
///                                                               +--head of a stream--> Streaming
/// ```
///
/// Invariants, asserted after each call in debug builds:
///
/// - The requests in `pipeline` have consecutive numbers, and `next` follows the last of them. There is no empty
///   pipeline.
/// - Unless the connection has ended, the first request in `pipeline` has no response: otherwise its response would
///   have been sent.
/// - The connection closes behind a request in `pipeline` if the phase is `Finishing`, and behind none if it is
///   `Opening` or `Open`.
#[derive(Debug)]
pub struct HttpCodec {
    /// A request that is incomplete, or that the last call lent to the caller.
    partial: Option<Box<PartialRequest>>,
    /// The requests that were not answered.
    pipeline: Option<Box<Pipeline>>,
    /// The number of the next request.
    next: u32,
    phase: HttpPhase,
    empty_lines: EmptyLines,
    echo: bool,
    /// The reason for refusing every request, if the connection is over a limit.
    refusal: Option<HttpRefusal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpPhase {
    /// No request was complete yet.
    Opening,
    /// The connection accepts requests.
    Open,
    /// The last request has come. The input that follows it is discarded.
    Finishing,
    /// The response is an event stream, which ends with the connection.
    Streaming,
    /// The last response was sent. There may be requests that were not answered.
    Ended,
}

/// The requests that were not answered, in their order. Nearly always there is one.
#[derive(Debug)]
struct Pipeline {
    /// The number of the first request. The others have the numbers that follow it.
    first: u32,
    requests: SmallVec<[PipelinedRequest; 1]>,
}

/// A request that waits for its response, or whose response waits for earlier responses.
#[derive(Debug)]
struct PipelinedRequest {
    /// The response, if it is known.
    response: Option<Vec<u8>>,
    /// The reason for which the connection closes behind the response, if it does.
    close_reason: Option<Reason>,
    session: Option<Sid>,
    is_stream: bool,
    framing: ResponseFraming,
}

/// A request of which a part has come.
#[derive(Debug, Default)]
struct PartialRequest {
    /// The head, of at most [`HTTP_HEAD_BYTES_MAX`] bytes. All of it was searched for its end.
    head: Vec<u8>,
    /// The validated head, once it is complete.
    valid: Option<(ValidRequest, ResponseFraming)>,
    body: Utf8Gatherer,
    /// The request is complete and was lent to the caller.
    delivered: bool,
}

/// The outcome of decoding a piece of input.
#[derive(Debug)]
pub enum HttpOutcome<'i> {
    /// No request is complete. All of the input was consumed.
    Incomplete,
    /// These bytes must be sent.
    Reply(Vec<u8>),
    /// A request was answered, but the response waits for earlier responses.
    Ignore,
    /// A request was refused, and the connection persists. These bytes must be sent; they are empty if the refusal
    /// waits for earlier responses.
    Refused(Vec<u8>),
    /// A request is complete. [`HttpCodec::request`] returns it.
    Request(CompleteRequest<'i>),
    /// The connection becomes a WebSocket.
    Upgrade { response: Vec<u8>, echo: bool },
    /// The connection ends.
    Close(Close),
}

/// A complete request. Its head and its body are in the input, or were gathered in the codec.
#[derive(Debug)]
pub struct CompleteRequest<'i> {
    number: u32,
    valid: ValidRequest,
    head: Option<&'i [u8]>,
    body: Option<&'i str>,
}

impl HttpCodec {
    /// Returns the codec of a connection that has begun with these bytes, which are at most a method.
    pub fn new(first: &[u8], echo: bool) -> HttpCodec {
        let partial = PartialRequest { head: first.to_vec(), ..PartialRequest::default() };
        HttpCodec {
            partial: (!first.is_empty()).then(|| Box::new(partial)),
            pipeline: None,
            next: 0,
            phase: HttpPhase::Opening,
            empty_lines: EmptyLines::default(),
            echo,
            refusal: None,
        }
    }

    /// Refuses the first request for this reason, if there is one.
    pub fn refusing(self, refusal: Option<HttpRefusal>) -> HttpCodec {
        HttpCodec { refusal, ..self }
    }

    /// Decodes the next item of the input. Returns the number of consumed bytes with the outcome.
    pub fn decode<'i>(&mut self, input: &'i [u8], settings: &CodecSettings) -> (usize, HttpOutcome<'i>) {
        if self.partial.as_ref().is_some_and(|partial| partial.delivered) {
            self.partial = None;
        }
        let decoded = match self.phase {
            HttpPhase::Finishing | HttpPhase::Streaming | HttpPhase::Ended => {
                (input.len(), HttpOutcome::Incomplete)
            }
            HttpPhase::Opening | HttpPhase::Open if self.partial.is_some() => {
                self.continue_request(input, settings)
            }
            HttpPhase::Opening | HttpPhase::Open => self.begin_request(input, settings),
        };
        self.check();
        decoded
    }

    /// Returns the request that was just decoded.
    pub fn request<'a>(&'a self, complete: CompleteRequest<'a>) -> HttpRequest<'a> {
        let CompleteRequest { number, valid, head, body } = complete;
        let gathered = || self.partial.as_deref().expect("a part that is not in the input was gathered");
        let head = head.unwrap_or_else(|| &gathered().head);
        let body = body.unwrap_or_else(|| gathered().body.finish().expect("the body was found to be UTF-8"));
        HttpRequest { number, kind: valid.kind(head, body) }
    }

    /// Answers a request; see [`Codec::respond`](crate::protocol::Codec::respond).
    pub fn respond(&mut self, number: u32, response: HttpResponse<'_>) -> ReadyResponses {
        let ready = self.respond_to(number, response).unwrap_or_default();
        self.check();
        ready
    }

    /// Answers a request. Returns `None` if there is no request with this number that was not answered.
    fn respond_to(&mut self, number: u32, response: HttpResponse<'_>) -> Option<ReadyResponses> {
        if matches!(self.phase, HttpPhase::Streaming | HttpPhase::Ended) {
            return None;
        }
        let pipeline = self.pipeline.as_deref_mut()?;
        let place = number.wrapping_sub(pipeline.first) as usize;
        let request = pipeline.requests.get_mut(place).filter(|request| request.response.is_none())?;
        let mut bytes = Vec::new();
        match response {
            HttpResponse::Whole { status, headers, body } => {
                if status == 400 {
                    request.framing.close = true;
                    request.close_reason = Some(Reason::Finished);
                    self.phase = HttpPhase::Finishing;
                    self.partial = None;
                }
                response::whole(&mut bytes, &request.framing, status, headers, body);
            }
            HttpResponse::Stream => {
                assert!(request.is_stream, "the request must ask for an event stream");
                // The response need not wait: a request for a stream is refused while others are not answered, and no
                // request is accepted behind it.
                response::stream(&mut bytes, &request.framing);
                self.phase = HttpPhase::Streaming;
                return Some(ReadyResponses { bytes, ..ReadyResponses::default() });
            }
        }
        request.response = Some(bytes);
        Some(self.take_ready())
    }

    /// Returns an iterator over the requests that were not answered, in their order. An event stream is never answered.
    pub fn unanswered(&self) -> impl Iterator<Item = (u32, Option<Sid>)> {
        let pipeline = self.pipeline.iter();
        let numbered = pipeline.flat_map(|it| (it.first..=u32::MAX).chain(0..).zip(&it.requests));
        let unanswered = numbered.filter(|(_, request)| request.response.is_none());
        unanswered.map(|(number, request)| (number, request.session))
    }

    /// Returns the total length of the responses that wait for earlier responses.
    pub fn waiting_bytes(&self) -> usize {
        let requests = self.pipeline.iter().flat_map(|pipeline| &pipeline.requests);
        requests.filter_map(|request| request.response.as_ref()).map(Vec::len).sum()
    }

    /// Ends the connection. Returns the bytes that its peer receives.
    pub fn close(&mut self, reason: Reason) -> Close {
        let mut bytes = Vec::new();
        if matches!(self.phase, HttpPhase::Streaming | HttpPhase::Ended) {
            return Close { bytes, reason, await_peer: false };
        }
        if let Some(first) = self.pipeline.as_deref().and_then(|pipeline| pipeline.requests.first()) {
            let framing = ResponseFraming { close: true, ..first.framing.clone() };
            response::plain(&mut bytes, &framing, 503, "", reason.text());
        } else if reason == Reason::ClientTimeout && self.has_partial_request() {
            bytes = ImmediateResponse::refusal(HttpRefusal::Timeout).bytes;
        }
        Close { bytes, reason, await_peer: false }
    }

    /// Returns whether a request was complete and the last response was not sent.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, HttpPhase::Opening | HttpPhase::Ended)
    }

    /// Returns whether the connection is open and no request is incomplete.
    pub fn is_idle(&self) -> bool {
        self.is_open() && !self.has_partial_request()
    }

    fn has_partial_request(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| !partial.delivered)
    }

    /// Decodes a request from its beginning. The parts of it that are complete are decoded in place.
    fn begin_request<'i>(&mut self, input: &'i [u8], settings: &CodecSettings) -> (usize, HttpOutcome<'i>) {
        let Some(skipped) = self.empty_lines.skip(input) else {
            return (input.len(), self.answer(ImmediateResponse::refusal(HttpRefusal::Malformed)));
        };
        let rest = &input[skipped..];
        if rest.is_empty() {
            return (input.len(), HttpOutcome::Incomplete);
        }
        let Some(len) = head_len(&rest[..rest.len().min(HTTP_HEAD_BYTES_MAX)], 0) else {
            if rest.len() >= HTTP_HEAD_BYTES_MAX {
                return (input.len(), self.answer(ImmediateResponse::refusal(HttpRefusal::TooLarge)));
            }
            let partial = PartialRequest { head: rest.to_vec(), ..PartialRequest::default() };
            self.partial = Some(Box::new(partial));
            return (input.len(), HttpOutcome::Incomplete);
        };
        let (head, rest) = rest.split_at(len);
        let (consumed, outcome) = match self.validate(head, settings) {
            Validation::Accepted(valid, framing) => self.decode_body(head, (valid, framing), rest),
            Validation::Answered(response) => (0, self.answer(response)),
            Validation::Upgrade { response, echo } => (0, HttpOutcome::Upgrade { response, echo }),
        };
        (skipped + len + consumed, outcome)
    }

    /// Decodes the body of a request whose head is in the input.
    fn decode_body<'i>(
        &mut self,
        head: &'i [u8],
        (valid, framing): (ValidRequest, ResponseFraming),
        rest: &'i [u8],
    ) -> (usize, HttpOutcome<'i>) {
        let Some(body) = rest.get(..valid.body_len) else {
            let sends_continue = self.sends_continue(&valid, rest);
            let partial = PartialRequest {
                head: head.to_vec(),
                valid: Some((valid, framing)),
                ..PartialRequest::default()
            };
            self.partial = Some(Box::new(partial));
            if sends_continue {
                return (0, HttpOutcome::Reply(CONTINUE.into()));
            }
            return self.gather_body(rest);
        };
        match str::from_utf8(body) {
            Ok(text) => {
                let number = self.push_request(&valid, framing);
                let complete = CompleteRequest { number, valid, head: Some(head), body: Some(text) };
                (body.len(), HttpOutcome::Request(complete))
            }
            Err(_) => (rest.len(), self.answer(refuse_body(framing))),
        }
    }

    /// Decodes more of a request that is incomplete.
    fn continue_request<'i>(
        &mut self,
        input: &'i [u8],
        settings: &CodecSettings,
    ) -> (usize, HttpOutcome<'i>) {
        let partial = self.partial.as_deref_mut().expect("a request must be incomplete");
        if partial.valid.is_some() {
            return self.gather_body(input);
        }
        let Some(len) = partial.gather_head(input) else {
            if partial.head.len() < HTTP_HEAD_BYTES_MAX {
                return (input.len(), HttpOutcome::Incomplete);
            }
            return (input.len(), self.answer(ImmediateResponse::refusal(HttpRefusal::TooLarge)));
        };
        let head = mem::take(&mut partial.head);
        match self.validate(&head, settings) {
            Validation::Accepted(valid, framing) => {
                let sends_continue = self.sends_continue(&valid, &input[len..]);
                let partial = self.partial.as_deref_mut().expect("a request must be incomplete");
                partial.head = head;
                partial.valid = Some((valid, framing));
                if sends_continue {
                    return (len, HttpOutcome::Reply(CONTINUE.into()));
                }
                let (consumed, outcome) = self.gather_body(&input[len..]);
                (len + consumed, outcome)
            }
            Validation::Answered(response) => (len, self.answer(response)),
            Validation::Upgrade { response, echo } => (len, HttpOutcome::Upgrade { response, echo }),
        }
    }

    /// Returns whether to send 100 Continue: the client waits for it, no part of the body has come, and no earlier
    /// response is due.
    fn sends_continue(&self, valid: &ValidRequest, rest: &[u8]) -> bool {
        valid.awaits_continue && valid.body_len > 0 && rest.is_empty() && self.pipeline.is_none()
    }

    /// Adds input to the body of the incomplete request.
    fn gather_body<'i>(&mut self, input: &'i [u8]) -> (usize, HttpOutcome<'i>) {
        let partial = self.partial.as_deref_mut().expect("a request must be incomplete");
        let valid = partial.valid.as_ref().expect("the head must be complete").0;
        let piece = &input[..input.len().min(valid.body_len - partial.body.len())];
        let gathered = partial.body.push(piece);
        if gathered.is_ok() && partial.body.len() < valid.body_len {
            return (input.len(), HttpOutcome::Incomplete);
        }
        let (_, framing) = partial.valid.take().expect("the head must be complete");
        if gathered.is_err() || partial.body.finish().is_err() {
            return (input.len(), self.answer(refuse_body(framing)));
        }
        partial.delivered = true;
        let number = self.push_request(&valid, framing);
        (piece.len(), HttpOutcome::Request(CompleteRequest { number, valid, head: None, body: None }))
    }

    fn validate(&self, head: &[u8], settings: &CodecSettings) -> Validation {
        let unanswered = self.pipeline.as_ref().map_or(0, |pipeline| pipeline.requests.len());
        if unanswered >= HTTP_REQUESTS_UNANSWERED_MAX {
            return Validation::Answered(ImmediateResponse::refusal(HttpRefusal::TooMany));
        }
        request::validate(
            head,
            RequestContext { settings, echo: self.echo, is_pipelined: unanswered > 0, refusal: self.refusal },
        )
    }

    /// Adds a request that the caller will answer. Returns its number.
    fn push_request(&mut self, valid: &ValidRequest, framing: ResponseFraming) -> u32 {
        let close_reason = framing.close.then_some(Reason::Finished);
        let (session, is_stream) = (valid.sid(), valid.is_stream());
        self.push(PipelinedRequest { response: None, close_reason, session, is_stream, framing })
    }

    /// Answers a request at once, or as soon as the earlier requests are answered.
    fn answer(&mut self, response: ImmediateResponse) -> HttpOutcome<'static> {
        self.partial = None;
        let ImmediateResponse { bytes, close_reason, is_refusal } = response;
        if self.pipeline.is_some() {
            let framing = ResponseFraming::default();
            let response = Some(bytes);
            self.push(PipelinedRequest { response, close_reason, session: None, is_stream: false, framing });
            let persists = close_reason.is_none();
            return if is_refusal && persists {
                HttpOutcome::Refused(Vec::new())
            } else {
                HttpOutcome::Ignore
            };
        }
        match close_reason {
            Some(reason) => HttpOutcome::Close(Close { bytes, reason, await_peer: false }),
            None => {
                self.phase = HttpPhase::Open;
                if is_refusal { HttpOutcome::Refused(bytes) } else { HttpOutcome::Reply(bytes) }
            }
        }
    }

    fn push(&mut self, request: PipelinedRequest) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.phase = if request.close_reason.is_some() { HttpPhase::Finishing } else { HttpPhase::Open };
        let empty = || Box::new(Pipeline { first: number, requests: SmallVec::new() });
        self.pipeline.get_or_insert_with(empty).requests.push(request);
        number
    }

    /// Removes and returns the responses that no longer wait for earlier ones.
    fn take_ready(&mut self) -> ReadyResponses {
        let mut ready = ReadyResponses::default();
        let Some(pipeline) = self.pipeline.as_deref_mut() else { return ready };
        let known = pipeline.requests.iter().take_while(|request| request.response.is_some()).count();
        // No response follows the one behind which the connection closes.
        let last = pipeline.requests[..known].iter().position(|request| request.close_reason.is_some());
        let count = last.map_or(known, |last| last + 1);
        for request in pipeline.requests.drain(..count) {
            let bytes = request.response.unwrap_or_default();
            if ready.bytes.is_empty() {
                ready.bytes = bytes;
            } else {
                ready.bytes.extend_from_slice(&bytes);
            }
            if let Some(reason) = request.close_reason {
                ready.persistence = Persistence::Close(reason);
                self.phase = HttpPhase::Ended;
            }
        }
        pipeline.first = pipeline.first.wrapping_add(count as u32);
        if pipeline.requests.is_empty() {
            self.pipeline = None;
        }
        ready
    }

    /// Asserts the invariants in debug builds. The cost is linear in the number of requests that were not answered.
    fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let requests = self.pipeline.as_deref().map_or(&[][..], |pipeline| &pipeline.requests);
        let first = self.pipeline.as_deref().map_or(self.next, |pipeline| pipeline.first);
        assert_eq!(self.pipeline.is_some(), !requests.is_empty(), "there must be no empty pipeline");
        assert_eq!(self.next, first.wrapping_add(requests.len() as u32), "numbers must be consecutive");
        if self.phase != HttpPhase::Ended {
            let is_sent = requests.first().is_some_and(|request| request.response.is_some());
            assert!(!is_sent, "the response to the first request must have been sent");
        }
        let closes = requests.iter().any(|request| request.close_reason.is_some());
        match self.phase {
            HttpPhase::Opening | HttpPhase::Open => assert!(!closes, "the phase must be `Finishing`"),
            HttpPhase::Finishing => assert!(closes, "the connection must close behind a request"),
            HttpPhase::Streaming | HttpPhase::Ended => {}
        }
    }
}

/// Returns the refusal of a body that is not UTF-8. The connection closes behind it.
fn refuse_body(framing: ResponseFraming) -> ImmediateResponse {
    ImmediateResponse::refusal_in(HttpRefusal::InvalidUtf8, &ResponseFraming { close: true, ..framing })
}

impl PartialRequest {
    /// Adds input to the head. If the head is then complete, returns how much of the input belongs to it.
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
    /// The number of empty lines in the upper bits. The lowest bit is set if a CR has come whose LF is due.
    state: u8,
}

impl EmptyLines {
    /// Skips empty lines and returns their length. Returns `None` if there are too many, or if a line does not end.
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

    #[test]
    fn records_are_within_their_budgets() {
        assert_eq!(size_of::<HttpCodec>(), 24);
        assert!(size_of::<Pipeline>() <= 128, "{}", size_of::<Pipeline>());
    }

    #[test]
    fn an_idle_connection_needs_no_heap() {
        let poll = POLL.replace("1000000000000", "2") + "ab";
        for size in [1, 30, poll.len() - 1, poll.len()] {
            let mut http = HttpCodec::new(b"", false);
            for piece in poll.as_bytes().chunks(size) {
                let mut at = 0;
                while at < piece.len() {
                    let (consumed, outcome) = http.decode(&piece[at..], &SETTINGS);
                    at += consumed;
                    if let HttpOutcome::Request(complete) = outcome {
                        let request = http.request(complete);
                        assert!(matches!(request.kind, RequestKind::Poll { body: "ab", .. }), "{request:?}");
                    }
                }
            }
            assert!(http.is_idle());
            assert!(matches!(http.decode(b"", &SETTINGS), (0, HttpOutcome::Incomplete)));
            assert!(http.partial.is_none(), "a delivered request is freed");
            http.respond(0, HttpResponse::Whole { status: 200, headers: "", body: b"" });
            assert!(http.pipeline.is_none());
        }
    }

    #[test]
    fn memory_grows_with_the_bytes_received_not_with_those_announced() {
        let mut http = HttpCodec::new(b"", false);
        let input = [POLL.as_bytes(), &[b'x'; 100]].concat();
        assert!(
            matches!(http.decode(&input, &SETTINGS), (consumed, HttpOutcome::Incomplete) if consumed == input.len())
        );
        let partial = http.partial.as_deref().expect("a request is incomplete");
        assert!(partial.body.capacity() <= 200 && partial.head.capacity() <= 2 * POLL.len());
    }

    #[test]
    fn numbers_wrap_around() {
        let mut http = HttpCodec::new(b"", false);
        http.next = u32::MAX;
        let poll = POLL.replace("1000000000000", "0").repeat(3);
        let mut at = 0;
        while at < poll.len() {
            at += http.decode(&poll.as_bytes()[at..], &SETTINGS).0;
        }
        let numbers = |http: &HttpCodec| http.unanswered().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers(&http), [u32::MAX, 0, 1]);
        let response = HttpResponse::Whole { status: 200, headers: "", body: b"" };
        assert!(http.respond(0, response).bytes.is_empty());
        assert!(!http.respond(u32::MAX, response).bytes.is_empty());
        assert_eq!(numbers(&http), [1]);
    }

    /// A connection with two requests that were not answered.
    fn two_requests() -> HttpCodec {
        let mut http = HttpCodec::new(b"", false);
        let poll = POLL.replace("1000000000000", "0");
        for _ in 0..2 {
            http.decode(poll.as_bytes(), &SETTINGS);
        }
        http
    }

    fn first(http: &mut HttpCodec) -> &mut PipelinedRequest {
        &mut http.pipeline.as_deref_mut().expect("two requests").requests[0]
    }

    #[test]
    #[should_panic(expected = "numbers must be consecutive")]
    fn the_check_finds_a_wrong_number() {
        let mut http = two_requests();
        http.next += 1;
        http.check();
    }

    #[test]
    #[should_panic(expected = "the response to the first request must have been sent")]
    fn the_check_finds_a_response_that_was_not_sent() {
        let mut http = two_requests();
        first(&mut http).response = Some(Vec::new());
        http.check();
    }

    #[test]
    #[should_panic(expected = "the phase must be `Finishing`")]
    fn the_check_finds_a_wrong_phase() {
        let mut http = two_requests();
        first(&mut http).close_reason = Some(Reason::Finished);
        http.check();
    }
}
