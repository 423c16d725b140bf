//! HTTP, as a shard has it. A request comes by a connection of this shard (`intake` finds it) and asks for something
//! of a session, which lives on the shard that its sid hashes to: this one, or another, to which the request is
//! relayed. The answer takes the same way back.
//!
//! | file | is |
//! | --- | --- |
//! | `mod` (this one) | the shard that has the socket: requests go to their session, answers to their request |
//! | `home` | the shard that has the session: requests find it, their events are dispatched |
//! | `outlet` | there, too: output is handed to whoever waits for it |
//! | `life` | there, too: timers and ends |
//! | `session` | what is decided there, apart from sockets and clients |
//!
//! A session is a record among the connections, without a socket: its client, its outbox and its timer are what those
//! of any other connection are.

mod home;
mod life;
mod outlet;
pub(super) mod session;
#[cfg(test)]
mod tests;

use super::connection::{Cause, Stage};
use super::liveness::ms;
use super::mail::ShardMessage;
use super::state::State;
use crate::metrics::Counter;
use crate::protocol::Reason;
use crate::protocol::http::{
    HttpRequest, HttpResponse, Persistence, ReadyResponses, RequestKind, SessionParams, Sid,
};
use crate::qev::buffers::{AcceptedBroadcasts, Frame};
use crate::qev::mesh::Class;
use crate::qev::ring::PeerAddress;
use crate::qev::slots::Slots;
use crate::web;
use ahash::AHashMap;
use session::{HttpSession, RequestId};
use smallvec::SmallVec;

/// What a shard keeps for HTTP.
#[derive(Default)]
pub(super) struct Http {
    pub sessions: Slots<HttpSession>,
    /// The session's slot among the connections.
    pub by_sid: AHashMap<Sid, u32>,
    /// Sessions that have output, or were told to look.
    pub ready: Vec<u32>,
    /// Sessions whose output has to wait until the mesh gets it across.
    pub blocked: Vec<u32>,
    /// Answers to requests of this shard's own connections. They wait for the end of the step: while a request is
    /// handled, the protocol of its connection is busy.
    pub answers: Vec<(RequestId, PendingResponse)>,
}

/// A request for a session, on the way to it.
pub(super) struct SessionRequest<'a> {
    pub request_id: RequestId,
    pub peer: PeerAddress,
    pub session: SessionParams<'a>,
    /// The events of a poll; none for a stream.
    pub body: Option<&'a str>,
}

/// A request that crosses to the shard that has its session.
pub(super) struct RelayedRequest {
    request_id: RequestId,
    peer: PeerAddress,
    sid: Sid,
    connect: bool,
    close: bool,
    seq: Option<u64>,
    host: Box<str>,
    body: Option<Box<str>>,
}

/// What a request gets, and may cross to the shard that has its connection.
pub(super) enum ResponsePart {
    /// The whole response.
    Whole { status: u16, output: Output },
    /// The head of a stream.
    Stream,
    /// More of a stream.
    More(Output),
    /// The stream ends.
    End,
}

/// What is to be done for a request of this shard's.
pub(super) enum PendingResponse {
    Part(ResponsePart),
    Document(web::StaticResponse),
    /// More of a stream: frames that others are sent too.
    Frames(SmallVec<[Frame; super::connection::OUTBOX_INLINE]>),
}

/// A session's output, copied out of the frames it was encoded in.
#[derive(Default)]
pub(super) struct Output {
    pub bytes: Vec<u8>,
    pub accepted: SmallVec<[AcceptedBroadcasts; 1]>,
}

impl Output {
    pub fn of(frames: &[Frame]) -> Output {
        let mut output = Output::default();
        output.bytes.reserve(frames.iter().map(Frame::len).sum());
        for frame in frames {
            output.bytes.extend_from_slice(frame.as_slice());
            output.accepted.extend_from_slice(frame.accepted());
        }
        output
    }
}

impl RelayedRequest {
    fn of(ask: &SessionRequest<'_>) -> RelayedRequest {
        let SessionParams { sid, connect, close, seq, host } = ask.session;
        let body = ask.body.map(Box::from);
        RelayedRequest {
            request_id: ask.request_id,
            peer: ask.peer,
            sid,
            connect,
            close,
            seq,
            host: host.into(),
            body,
        }
    }

    pub fn as_ask(&self) -> SessionRequest<'_> {
        let RelayedRequest { sid, connect, close, seq, ref host, .. } = *self;
        let session = SessionParams { sid, connect, close, seq, host };
        SessionRequest { request_id: self.request_id, peer: self.peer, session, body: self.body.as_deref() }
    }
}

impl State {
    /// A connection has brought a request.
    pub fn requested(&mut self, slot: u32, request: &HttpRequest<'_>) {
        self.metrics.counters.add(Counter::HttpRequests, 1);
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let (generation, peer) = (connection.generation, connection.peer);
        let request_id = RequestId { shard: self.id, connection: slot, generation, number: request.number };
        match request.kind {
            RequestKind::Poll { session, body } => {
                self.ask(SessionRequest { request_id, peer, session, body: Some(body) })
            }
            RequestKind::Stream { session } => {
                self.ask(SessionRequest { request_id, peer, session, body: None })
            }
            RequestKind::Document { path, if_none_match } => {
                let document = web::respond(path, if_none_match);
                let refused = u64::from(document.status == 404);
                self.metrics.counters.add(Counter::HttpRefused, refused);
                self.http.answers.push((request_id, PendingResponse::Document(document)));
            }
        }
    }

    fn ask(&mut self, ask: SessionRequest<'_>) {
        let home = self.home_of(ask.session.sid);
        if home == self.id {
            self.handle_session_request(&ask);
        } else if self.mesh_is_stuck() {
            self.metrics.counters.add(Counter::HttpRefusedBusy, 1);
            self.refuse_request(ask.request_id, 503);
        } else {
            self.metrics.counters.add(Counter::HttpRelayed, 1);
            self.mail(home, ShardMessage::Request(Box::new(RelayedRequest::of(&ask))), Class::Control);
        }
    }

    /// The shard that a session lives on.
    pub(in crate::shard) fn home_of(&self, sid: Sid) -> u16 {
        (self.shared.sids.hash_one(sid) % self.port.shards() as u64) as u16
    }

    /// Answers a request without output.
    pub fn refuse_request(&mut self, request_id: RequestId, status: u16) {
        self.metrics.counters.add(Counter::HttpRefused, 1);
        self.answer_request(request_id, ResponsePart::Whole { status, output: Output::default() });
    }

    /// Answers a request, wherever its connection is.
    pub fn answer_request(&mut self, request_id: RequestId, answer: ResponsePart) {
        if request_id.shard == self.id {
            self.http.answers.push((request_id, PendingResponse::Part(answer)));
        } else {
            self.mail(
                request_id.shard,
                ShardMessage::ResponsePart(request_id, Box::new(answer)),
                Class::Control,
            );
        }
    }

    /// Hands answers to the connections whose requests they are for.
    pub fn deliver_answers(&mut self) {
        if self.http.answers.is_empty() {
            return;
        }
        let mut answers = std::mem::take(&mut self.http.answers);
        for (request_id, delivery) in answers.drain(..) {
            match delivery {
                PendingResponse::Part(answer) => self.deliver(request_id, answer),
                PendingResponse::Document(web::StaticResponse { status, headers, body }) => {
                    let due = self.respond(request_id, &HttpResponse::Whole { status, headers, body });
                    self.send_due(request_id, due, SmallVec::new());
                }
                PendingResponse::Frames(frames) if self.is_there(request_id) => {
                    for frame in frames {
                        self.queue_frame(request_id.connection, frame);
                    }
                }
                PendingResponse::Frames(_) => {}
            }
        }
        self.http.answers = answers;
    }

    /// Hands an answer to the connection whose request it is for.
    pub fn deliver(&mut self, request_id: RequestId, answer: ResponsePart) {
        match answer {
            ResponsePart::Whole { status, output } => {
                let due = self
                    .respond(request_id, &HttpResponse::Whole { status, headers: "", body: &output.bytes });
                self.send_due(request_id, due, output.accepted);
            }
            ResponsePart::Stream => {
                let due = self.respond(request_id, &HttpResponse::Stream);
                self.send_due(request_id, due, SmallVec::new());
            }
            ResponsePart::More(_) | ResponsePart::End if !self.is_there(request_id) => {}
            ResponsePart::More(output) => {
                let frame = Frame::with_broadcasts(output.bytes, self.now_ns, output.accepted);
                self.queue_frame(request_id.connection, frame);
            }
            ResponsePart::End => self.end(request_id.connection, Cause::Reason(Reason::Finished)),
        }
    }

    /// The peer of a connection has stopped to write. Whether requests of it are not answered: they soon are, as their
    /// sessions are told, and with the last answer the connection ends.
    pub fn give_requests_up(&mut self, slot: u32) -> bool {
        self.abandon_requests(slot);
        self.connections.get(slot as usize).is_some_and(|c| c.codec.unanswered().next().is_some())
    }

    /// A connection ends: the sessions whose requests it has are told.
    pub fn abandon_requests(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let generation = connection.generation;
        let unanswered: SmallVec<[(u32, Option<Sid>); 2]> = connection.codec.unanswered().collect();
        for (number, sid) in unanswered {
            let Some(sid) = sid else { continue };
            let request_id = RequestId { shard: self.id, connection: slot, generation, number };
            let home = self.home_of(sid);
            if home == self.id {
                self.lost_request(sid, request_id);
            } else {
                self.mail(home, ShardMessage::RequestLost { request_id, sid }, Class::Control);
            }
        }
    }

    /// A connection that speaks HTTP is looked at: its request must be complete in time, and where nothing is asked for
    /// it may be silent as long as any client.
    pub fn http_connection_due(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let silence = self.now.since(connection.received);
        let waits = connection.codec.unanswered().next().is_some();
        let left = if connection.unfinished {
            match ms(self.config.timeout).checked_sub(self.now.since(connection.began)) {
                Some(left @ 1..) => left,
                _ => return self.end(slot, Cause::MessageTimeout),
            }
        } else if waits {
            ms(self.config.heartbeat_timeout)
        } else {
            match ms(self.config.heartbeat_timeout).checked_sub(silence) {
                Some(left @ 1..) => left,
                _ => return self.end(slot, Cause::LivenessTimeout),
            }
        };
        self.wake_at(slot, self.now_ms + left);
    }

    fn respond(&mut self, request_id: RequestId, response: &HttpResponse<'_>) -> ReadyResponses {
        let Some(connection) = self.connections.get_mut(request_id.connection as usize) else {
            return ReadyResponses::default();
        };
        if connection.generation != request_id.generation {
            return ReadyResponses::default();
        }
        let due = connection.codec.respond(request_id.number, *response);
        // A peer that asks on and on behind a request that is held must not have all the answers gather here.
        if connection.codec.waiting_bytes() > self.config.outbox_bytes_max {
            self.end(request_id.connection, Cause::Reason(Reason::SlowClient));
        }
        due
    }

    fn send_due(
        &mut self,
        request_id: RequestId,
        due: ReadyResponses,
        accepted: SmallVec<[AcceptedBroadcasts; 1]>,
    ) {
        let slot = request_id.connection;
        match due.persistence {
            Persistence::KeepAlive if due.bytes.is_empty() => {}
            Persistence::KeepAlive => {
                self.queue_response(slot, Frame::with_broadcasts(due.bytes, self.now_ns, accepted));
                let Some(connection) = self.connections.get(slot as usize) else { return };
                if !connection.receiving && connection.codec.unanswered().next().is_none() {
                    self.end(slot, Cause::EndOfStream);
                }
            }
            Persistence::Close(reason) => self.end_with(slot, Cause::Reason(reason), due.bytes, false),
        }
    }

    /// Whether the connection of a request is still there, and no end of it was decided.
    fn is_there(&self, request_id: RequestId) -> bool {
        self.connections.get(request_id.connection as usize).is_some_and(|connection| {
            connection.generation == request_id.generation && connection.stage == Stage::Open
        })
    }
}
