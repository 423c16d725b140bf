//! The codec of an HTTP connection: requests in pieces, and responses in the order of their requests.

use std::mem;
use std::net::IpAddr;
use std::str;

use smallvec::SmallVec;

use super::body::{BodyFraming, PartialBody};
use super::head::head_len;
use super::refusal::{HttpRefusal, RETRY_SOON};
use super::request::{self, ImmediateResponse, RequestContext, ValidRequest, Validation};
use super::response::{self, CONTINUE, ResponseFraming};
use super::{HttpRequest, HttpResponse, Persistence, ReadyResponses, Sid};
use crate::limits::{HTTP_EMPTY_LINES_MAX, HTTP_REQUESTS_UNANSWERED_MAX};
use crate::protocol::websocket::handshake::Upgrade;
use crate::protocol::{Close, CodecSettings, OpeningHeaders, Reason};

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
/// - There is no empty pipeline. The requests in it have consecutive numbers, and `next` is the number that follows.
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
    requests: SmallVec<[PipelinedRequest; 1]>,
}

/// A request that waits for its response, or whose response waits for earlier responses.
#[derive(Debug)]
struct PipelinedRequest {
    /// The response, if it is known and waits.
    #[expect(clippy::box_collection, reason = "few responses wait for others: 8 bytes, not 24")]
    response: Option<Box<Vec<u8>>>,
    /// The reason for which the connection closes behind the response, if it does.
    close_reason: Option<Reason>,
    session: Option<Sid>,
    is_stream: bool,
    framing: ResponseFraming,
}

/// A request of which a part has come.
#[derive(Debug)]
enum PartialRequest {
    /// The head, of at most `http-head-bytes-max` bytes. All of it was searched for its end.
    Head(Vec<u8>),
    /// A validated head whose body is incomplete. Only the part of the head that is needed is kept.
    Body { head: Vec<u8>, valid: ValidRequest, framing: ResponseFraming, body: PartialBody },
    /// A complete request, which was lent to the caller.
    Delivered { head: Vec<u8>, body: PartialBody },
}

impl PartialRequest {
    /// Returns the memory of the request, in bytes.
    fn bytes(&self) -> usize {
        let gathered = match self {
            PartialRequest::Head(head) => head.capacity(),
            PartialRequest::Body { head, valid, body, .. } => {
                let opening = valid.opening.as_deref().map_or(0, OpeningHeaders::bytes);
                head.capacity() + body.capacity() + opening
            }
            PartialRequest::Delivered { head, body } => head.capacity() + body.capacity(),
        };
        size_of::<PartialRequest>() + gathered
    }
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
    Upgrade { upgrade: Upgrade, echo: bool, client: Option<IpAddr>, opening: Option<Box<OpeningHeaders>> },
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
    /// Returns the codec of a connection from its first byte on.
    pub fn new(echo: bool) -> HttpCodec {
        HttpCodec {
            partial: None,
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
        if matches!(self.partial.as_deref(), Some(PartialRequest::Delivered { .. })) {
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
        let (head, body) = match (head, body, self.partial.as_deref()) {
            (Some(head), Some(body), _) => (head, body),
            (None, None, Some(PartialRequest::Delivered { head, body })) => (&head[..], body.text()),
            _ => unreachable!("a request is in the input, or was gathered"),
        };
        let kind = valid.kind(head, body);
        HttpRequest { number, client: valid.client, opening: valid.opening, kind }
    }

    /// Answers a request; see [`Codec::respond`](crate::protocol::Codec::respond).
    pub fn respond(
        &mut self,
        number: u32,
        response: HttpResponse<'_>,
        settings: &CodecSettings,
    ) -> ReadyResponses {
        let ready = self.respond_to(number, response, settings).unwrap_or_default();
        self.check();
        ready
    }

    /// Answers a request. Returns `None` if there is no request with this number that was not answered.
    fn respond_to(
        &mut self,
        number: u32,
        response: HttpResponse<'_>,
        settings: &CodecSettings,
    ) -> Option<ReadyResponses> {
        if matches!(self.phase, HttpPhase::Streaming | HttpPhase::Ended) {
            return None;
        }
        let place = number.wrapping_sub(self.first()) as usize;
        let pipeline = self.pipeline.as_deref_mut()?;
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
                response::whole(&mut bytes, settings, &request.framing, status, headers, body);
            }
            HttpResponse::Stream => {
                assert!(request.is_stream, "the request must ask for an event stream");
                // The response need not wait: a request for a stream is refused while others are not answered, and no
                // request is accepted behind it.
                response::stream(&mut bytes, settings, &request.framing);
                self.phase = HttpPhase::Streaming;
                return Some(ReadyResponses { bytes, ..ReadyResponses::default() });
            }
        }
        if place > 0 {
            request.response = Some(Box::new(bytes));
            return Some(ReadyResponses::default());
        }
        Some(self.take_ready(bytes))
    }

    /// Returns the number of the first request that was not answered, or of the next one if there is none.
    fn first(&self) -> u32 {
        self.next.wrapping_sub(self.pipeline.as_deref().map_or(0, |pipeline| pipeline.requests.len()) as u32)
    }

    /// Returns an iterator over the requests that were not answered, in their order. An event stream is never answered.
    pub fn unanswered(&self) -> impl Iterator<Item = (u32, Option<Sid>)> {
        let requests = self.pipeline.iter().flat_map(|pipeline| &pipeline.requests);
        let numbered = (self.first()..=u32::MAX).chain(0..).zip(requests);
        let unanswered = numbered.filter(|(_, request)| request.response.is_none());
        unanswered.map(|(number, request)| (number, request.session))
    }

    /// Returns the total length of the responses that wait for earlier responses.
    pub fn waiting_bytes(&self) -> usize {
        let requests = self.pipeline.iter().flat_map(|pipeline| &pipeline.requests);
        requests.filter_map(|request| request.response.as_ref()).map(|response| response.len()).sum()
    }

    /// Returns the memory of an incomplete request, in bytes.
    #[inline]
    pub fn incomplete_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, PartialRequest::bytes)
    }

    /// Notes that the peer sends nothing more, but can still read. An incomplete request is dropped, and the connection
    /// closes behind the response to the last request, as if that request had said `Connection: close`.
    pub fn end_input(&mut self) {
        if !matches!(self.phase, HttpPhase::Opening | HttpPhase::Open) {
            return;
        }
        self.partial = None;
        let last = self.pipeline.as_deref_mut().and_then(|pipeline| pipeline.requests.last_mut());
        if let Some(last) = last.filter(|last| last.response.is_none()) {
            last.framing.close = true;
            last.close_reason = Some(Reason::Finished);
            self.phase = HttpPhase::Finishing;
        }
        self.check();
    }

    /// Ends the connection. Returns the bytes that its peer receives.
    pub fn close(&mut self, reason: Reason, settings: &CodecSettings) -> Close {
        let mut bytes = Vec::new();
        if matches!(self.phase, HttpPhase::Streaming | HttpPhase::Ended) {
            return Close { bytes, reason, await_peer: false };
        }
        if let Some(first) = self.pipeline.as_deref().and_then(|pipeline| pipeline.requests.first()) {
            let framing = ResponseFraming { close: true, ..first.framing.clone() };
            response::plain(&mut bytes, settings, &framing, 503, RETRY_SOON, reason.text());
        } else if let Some(refusal) = refusal_of_incomplete(reason) {
            let refusal = match self.partial.as_deref() {
                Some(PartialRequest::Head(head)) => {
                    Some(ImmediateResponse::refusal_of_part(refusal, head, settings))
                }
                Some(PartialRequest::Body { framing, .. }) => {
                    Some(refuse_body(refusal, framing.clone(), settings))
                }
                Some(PartialRequest::Delivered { .. }) | None => None,
            };
            bytes = refusal.map_or_else(Vec::new, |refusal| refusal.bytes);
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
        self.partial.as_deref().is_some_and(|partial| !matches!(partial, PartialRequest::Delivered { .. }))
    }

    /// Decodes a request from its beginning. The parts of it that are complete are decoded in place.
    fn begin_request<'i>(&mut self, input: &'i [u8], settings: &CodecSettings) -> (usize, HttpOutcome<'i>) {
        let Some(skipped) = self.empty_lines.skip(input) else {
            return (input.len(), self.refuse_part(HttpRefusal::Malformed, &[], settings));
        };
        let rest = &input[skipped..];
        if rest.is_empty() {
            return (input.len(), HttpOutcome::Incomplete);
        }
        let first = &rest[..rest.len().min(settings.http_head_bytes_max)];
        let Some(len) = head_len(first, 0) else {
            if first.len() == settings.http_head_bytes_max {
                return (input.len(), self.refuse_part(HttpRefusal::TooLarge, first, settings));
            }
            self.partial = Some(Box::new(PartialRequest::Head(rest.to_vec())));
            return (input.len(), HttpOutcome::Incomplete);
        };
        let (head, rest) = rest.split_at(len);
        let (consumed, outcome) = self.decode_head(head, rest, settings);
        (skipped + len + consumed, outcome)
    }

    /// Decodes more of a request that is incomplete.
    fn continue_request<'i>(
        &mut self,
        input: &'i [u8],
        settings: &CodecSettings,
    ) -> (usize, HttpOutcome<'i>) {
        let partial = self.partial.as_deref_mut().expect("a request must be incomplete");
        let PartialRequest::Head(head) = partial else { return self.gather_body(input, settings) };
        let Some(len) = gather_head(head, input, settings.http_head_bytes_max) else {
            if head.len() < settings.http_head_bytes_max {
                return (input.len(), HttpOutcome::Incomplete);
            }
            let head = mem::take(head);
            return (input.len(), self.refuse_part(HttpRefusal::TooLarge, &head, settings));
        };
        let head = mem::take(head);
        self.partial = None;
        // The request is lent from the memory of the codec, because its head is not in the input.
        match self.validate(&head, settings) {
            Validation::Accepted(mut valid, framing) => {
                let head = valid.keep_head(&head);
                let (consumed, outcome) = self.begin_body(head, valid, framing, &input[len..], settings);
                (len + consumed, outcome)
            }
            Validation::Answered(response) => (len, self.answer(response)),
            Validation::Upgrade { upgrade, echo, client, opening } => {
                (len, HttpOutcome::Upgrade { upgrade, echo, client, opening })
            }
        }
    }

    /// Decodes a request whose head is in the input, before `rest`. If its body is in the input too, nothing is copied.
    fn decode_head<'i>(
        &mut self,
        head: &'i [u8],
        rest: &'i [u8],
        settings: &CodecSettings,
    ) -> (usize, HttpOutcome<'i>) {
        let (mut valid, framing) = match self.validate(head, settings) {
            Validation::Accepted(valid, framing) => (valid, framing),
            Validation::Answered(response) => return (0, self.answer(response)),
            Validation::Upgrade { upgrade, echo, client, opening } => {
                return (0, HttpOutcome::Upgrade { upgrade, echo, client, opening });
            }
        };
        let body = match valid.body {
            BodyFraming::Length(len) => rest.get(..len),
            BodyFraming::Chunked => None,
        };
        let Some(body) = body else {
            let head = valid.keep_head(head);
            return self.begin_body(head, valid, framing, rest, settings);
        };
        match str::from_utf8(body) {
            Ok(text) => {
                let number = self.push_request(&valid, framing);
                let complete = CompleteRequest { number, valid, head: Some(head), body: Some(text) };
                (body.len(), HttpOutcome::Request(complete))
            }
            Err(_) => (rest.len(), self.answer(refuse_body(HttpRefusal::InvalidUtf8, framing, settings))),
        }
    }

    /// Decodes the beginning of a body that is gathered in the codec.
    fn begin_body<'i>(
        &mut self,
        head: Vec<u8>,
        valid: ValidRequest,
        framing: ResponseFraming,
        rest: &'i [u8],
        settings: &CodecSettings,
    ) -> (usize, HttpOutcome<'i>) {
        let sends_continue = self.sends_continue(&valid, rest);
        let body = PartialBody::new(valid.body);
        self.partial = Some(Box::new(PartialRequest::Body { head, valid, framing, body }));
        if sends_continue {
            return (0, HttpOutcome::Reply(CONTINUE.into()));
        }
        self.gather_body(rest, settings)
    }

    /// Returns whether to send 100 Continue: the client waits for it, no part of the body has come, and no earlier
    /// response is due.
    fn sends_continue(&self, valid: &ValidRequest, rest: &[u8]) -> bool {
        valid.awaits_continue && valid.body.has_body() && rest.is_empty() && self.pipeline.is_none()
    }

    /// Adds input to the body of the incomplete request.
    fn gather_body<'i>(&mut self, input: &'i [u8], settings: &CodecSettings) -> (usize, HttpOutcome<'i>) {
        let Some(PartialRequest::Body { body, .. }) = self.partial.as_deref_mut() else {
            unreachable!("the body of a request must be incomplete");
        };
        let gathered = body.push(input, settings.message_bytes_max);
        if let Ok((consumed, false)) = gathered {
            return (consumed, HttpOutcome::Incomplete);
        }
        let Some(PartialRequest::Body { head, valid, framing, body }) = self.partial.take().map(|it| *it)
        else {
            unreachable!("the body of a request must be incomplete");
        };
        match gathered {
            Ok((consumed, _)) => {
                self.partial = Some(Box::new(PartialRequest::Delivered { head, body }));
                let number = self.push_request(&valid, framing);
                let complete = CompleteRequest { number, valid, head: None, body: None };
                (consumed, HttpOutcome::Request(complete))
            }
            Err(refusal) => (input.len(), self.answer(refuse_body(refusal, framing, settings))),
        }
    }

    /// Refuses a request of which only a part of its head is known.
    fn refuse_part(
        &mut self,
        refusal: HttpRefusal,
        head: &[u8],
        settings: &CodecSettings,
    ) -> HttpOutcome<'static> {
        self.answer(ImmediateResponse::refusal_of_part(refusal, head, settings))
    }

    fn validate(&self, head: &[u8], settings: &CodecSettings) -> Validation {
        let unanswered = self.pipeline.as_ref().map_or(0, |pipeline| pipeline.requests.len());
        if unanswered >= HTTP_REQUESTS_UNANSWERED_MAX {
            let refusal = ImmediateResponse::refusal_of_part(HttpRefusal::TooMany, head, settings);
            return Validation::Answered(refusal);
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
            let response = Some(Box::new(bytes));
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
        let empty = || Box::new(Pipeline { requests: SmallVec::new() });
        self.pipeline.get_or_insert_with(empty).requests.push(request);
        number
    }

    /// Removes the first request, whose response is `first`, and those behind it whose responses are known. Returns these
    /// responses.
    fn take_ready(&mut self, first: Vec<u8>) -> ReadyResponses {
        let mut ready = ReadyResponses { bytes: first, ..ReadyResponses::default() };
        let Some(pipeline) = self.pipeline.as_deref_mut() else { return ready };
        let behind = pipeline.requests.iter().skip(1);
        let known = 1 + behind.take_while(|request| request.response.is_some()).count();
        // No response follows the one behind which the connection closes.
        let last = pipeline.requests[..known].iter().position(|request| request.close_reason.is_some());
        let count = last.map_or(known, |last| last + 1);
        for request in pipeline.requests.drain(..count) {
            if let Some(bytes) = request.response {
                ready.bytes.extend_from_slice(&bytes);
            }
            if let Some(reason) = request.close_reason {
                ready.persistence = Persistence::Close(reason);
                self.phase = HttpPhase::Ended;
            }
        }
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
        assert_eq!(self.pipeline.is_some(), !requests.is_empty(), "there must be no empty pipeline");
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

/// Returns how a request is refused whose connection ends for this reason before the request is complete, or `None` if its
/// peer is told nothing.
fn refusal_of_incomplete(reason: Reason) -> Option<HttpRefusal> {
    match reason {
        Reason::ClientTimeout => Some(HttpRefusal::Timeout),
        Reason::NoRoom => Some(HttpRefusal::NoRoom),
        _ => None,
    }
}

/// Returns the refusal of a request whose head is valid, because of its body. The connection closes behind it.
fn refuse_body(
    refusal: HttpRefusal,
    framing: ResponseFraming,
    settings: &CodecSettings,
) -> ImmediateResponse {
    ImmediateResponse::refusal(refusal, &ResponseFraming { close: true, ..framing }, settings)
}

/// Adds input to a head, up to `max` bytes in all. If the head is then complete, returns how much of the input belongs
/// to it. The memory never exceeds `max` bytes.
fn gather_head(head: &mut Vec<u8>, input: &[u8], max: usize) -> Option<usize> {
    let had = head.len();
    let piece = &input[..input.len().min(max - had)];
    if head.capacity() < had + piece.len() {
        head.reserve_exact((2 * had).clamp(had + piece.len(), max) - had);
    }
    head.extend_from_slice(piece);
    let len = head_len(head, had)?;
    head.truncate(len);
    Some(len - had)
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
    use crate::protocol::http::{HttpDate, RequestKind};
    use crate::protocol::{Compression, Origins, TrustedProxies, WantedHeaders};

    const SETTINGS: CodecSettings = CodecSettings {
        message_bytes_max: 1 << 40,
        http_head_bytes_max: 16_384,
        origins: Origins::Any,
        proxies: TrustedProxies::NONE,
        compression: Compression::OFF,
        wanted: WantedHeaders::NONE,
        date: HttpDate::EPOCH,
    };

    const POLL: &str = "POST /?sid=0123456789abcdef0123456789abcdef HTTP/1.1\r\nHost: a\r\n\
        Content-Length: 1000000000000\r\n\r\n";

    #[test]
    fn records_are_within_their_budgets() {
        assert_eq!(size_of::<HttpCodec>(), 24);
        assert!(size_of::<Pipeline>() <= 48, "{}", size_of::<Pipeline>());
    }

    #[test]
    fn an_idle_connection_needs_no_heap() {
        let poll = POLL.replace("1000000000000", "2") + "ab";
        for size in [1, 30, poll.len() - 1, poll.len()] {
            let mut http = HttpCodec::new(false);
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
            http.respond(0, HttpResponse::Whole { status: 200, headers: "", body: b"" }, &SETTINGS);
            assert!(http.pipeline.is_none());
        }
    }

    #[test]
    fn memory_grows_with_the_bytes_received_not_with_those_announced() {
        let mut http = HttpCodec::new(false);
        let input = [POLL.as_bytes(), &[b'x'; 100]].concat();
        assert!(
            matches!(http.decode(&input, &SETTINGS), (consumed, HttpOutcome::Incomplete) if consumed == input.len())
        );
        let Some(PartialRequest::Body { head, body, .. }) = http.partial.as_deref() else {
            panic!("a request is incomplete")
        };
        assert!(body.capacity() <= 200 && head.capacity() == "a".len(), "of the head, only the host is kept");
    }

    #[test]
    fn the_memory_of_a_head_never_exceeds_its_limit_and_is_freed_with_it() {
        let max = SETTINGS.http_head_bytes_max;
        let lines = "Cookie: x\r\n".repeat(50);
        let head = POLL.replace("Host", &format!("X: {}\r\n{lines}Host", "x".repeat(max - 1000)));
        assert!((max - 500..max).contains(&head.len()));
        for size in [1, 100, 4096] {
            let mut http = HttpCodec::new(false);
            for piece in head.as_bytes().chunks(size) {
                let (consumed, outcome) = http.decode(piece, &SETTINGS);
                assert!(consumed == piece.len() && matches!(outcome, HttpOutcome::Incomplete));
                match http.partial.as_deref().expect("a request is incomplete") {
                    PartialRequest::Head(head) => assert!(head.capacity() <= max, "{}", head.capacity()),
                    PartialRequest::Body { head, .. } => assert_eq!(head.capacity(), "a".len()),
                    PartialRequest::Delivered { .. } => panic!("the body is incomplete"),
                }
            }
            assert!(matches!(http.partial.as_deref(), Some(PartialRequest::Body { .. })));
        }
    }

    #[test]
    fn numbers_wrap_around() {
        let mut http = HttpCodec::new(false);
        http.next = u32::MAX;
        let poll = POLL.replace("1000000000000", "0").repeat(3);
        let mut at = 0;
        while at < poll.len() {
            at += http.decode(&poll.as_bytes()[at..], &SETTINGS).0;
        }
        let numbers = |http: &HttpCodec| http.unanswered().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers(&http), [u32::MAX, 0, 1]);
        let response = HttpResponse::Whole { status: 200, headers: "", body: b"" };
        assert!(http.respond(0, response, &SETTINGS).bytes.is_empty());
        assert!(!http.respond(u32::MAX, response, &SETTINGS).bytes.is_empty());
        assert_eq!(numbers(&http), [1]);
    }

    /// A connection with two requests that were not answered.
    fn two_requests() -> HttpCodec {
        let mut http = HttpCodec::new(false);
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
    #[should_panic(expected = "the response to the first request must have been sent")]
    fn the_check_finds_a_response_that_was_not_sent() {
        let mut http = two_requests();
        first(&mut http).response = Some(Box::default());
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
