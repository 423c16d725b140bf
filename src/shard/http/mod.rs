//! HTTP on the shard that has the socket.
//!
//! A request arrives on a connection of this shard (`intake` decodes it) and is meant for a session, which lives on the
//! shard that its sid hashes to: this one, or another, to which the request is relayed. The response goes the same way back.
//!
//! | file | content |
//! | --- | --- |
//! | `mod` (this one) | the shard that has the socket: requests go to their sessions, responses to their requests |
//! | `home` | the shard that has the session: requests find it, and their events are dispatched |
//! | `outlet` | the same shard: output goes to the request or stream that waits for it |
//! | `life` | the same shard: timers and ends of sessions |
//!
//! `sessions` has the table of sessions, the rules of one session, and the messages between the two shards.
//!
//! A session is a record among the connections, without a socket: its client, outbox and timer are like those of any other
//! connection.

mod home;
mod life;
mod outlet;
#[cfg(test)]
mod tests;

use super::codecs::Codecs;
use super::connection::{Input, Stage};
use super::ending::{Cause, Goodbye};
use super::messages::ShardMessage;
use super::sessions::messages::{
    LostInput, PendingResponse, RelayedRequest, RequestId, ResponsePart, SessionRequest,
};
use super::sessions::refusal::SessionRefusal;
use super::state::State;
use crate::metrics::Counter;
use crate::protocol::Reason;
use crate::protocol::http::{
    HttpRequest, HttpResponse, Persistence, ReadyResponses, RequestKind, SessionParams, Sid,
};
use crate::qev::buffers::{AcceptedBroadcasts, Frame};
use crate::qev::mesh::Class;
use crate::web::{self, StaticResponse};
use smallvec::SmallVec;

impl State {
    /// Handles a request that a connection has received.
    pub fn handle_request(&mut self, slot: u32, request: &HttpRequest<'_>) {
        self.count(Counter::HttpRequests, 1);
        let connection = self.connections.live(slot);
        let generation = connection.generation;
        let peer = self.client_address(connection.peer, request.client);
        self.sessions.asks(slot, generation);
        let id = RequestId { shard: self.mesh.shard(), connection: slot, generation, number: request.number };
        let opening = request.opening.as_deref();
        match request.kind {
            RequestKind::Poll { session, body } => {
                let certificate = self.certificate_for(slot, &session);
                let (certificate, body) = (certificate.as_deref(), Some(body));
                self.send_to_session(SessionRequest { id, peer, session, opening, certificate, body })
            }
            RequestKind::Stream { session } => {
                let certificate = self.certificate_for(slot, &session);
                let (certificate, body) = (certificate.as_deref(), None);
                self.send_to_session(SessionRequest { id, peer, session, opening, certificate, body })
            }
            RequestKind::Document { path, if_none_match } => {
                let document = web::respond(path, if_none_match);
                self.count(Counter::HttpRefused, u64::from(document.status == 404));
                self.sessions.respond_later(id, PendingResponse::Document(document));
            }
        }
    }

    /// Returns the subject of the certificate that a connection has presented, for the session that its request creates.
    fn certificate_for(&self, slot: u32, session: &SessionParams<'_>) -> Option<Box<str>> {
        if self.facts.is_empty() || !session.connect {
            return None;
        }
        self.facts.get(slot)?.certificate.clone()
    }

    fn send_to_session(&mut self, request: SessionRequest<'_>) {
        let home = self.home_of(request.session.sid);
        if home == self.mesh.shard() {
            self.handle_session_request(&request);
        } else if self.mesh.is_stuck() {
            self.count(Counter::HttpRefusedBusy, 1);
            self.refuse_request(request.id, SessionRefusal::Busy);
        } else {
            self.mesh.begin(self.connections.source(request.id.connection));
            self.count(Counter::HttpRelayed, 1);
            let relayed = Box::new(RelayedRequest::of(&request));
            self.send_to_shard(home, ShardMessage::Request(relayed), Class::Control);
        }
    }

    /// The shard that a session lives on.
    pub(in crate::shard) fn home_of(&self, sid: Sid) -> u16 {
        self.mesh.shard_of_hash(self.shared.hasher.hash_one(sid))
    }

    /// Refuses a request of a session.
    pub fn refuse_request(&mut self, request_id: RequestId, refusal: SessionRefusal) {
        self.count(Counter::HttpRefused, 1);
        self.respond(request_id, ResponsePart::Refused(refusal));
    }

    /// Responds to a request, whichever shard has its connection.
    pub fn respond(&mut self, request_id: RequestId, part: ResponsePart) {
        if request_id.shard == self.mesh.shard() {
            self.sessions.respond_later(request_id, PendingResponse::Part(part));
        } else {
            let message = ShardMessage::Response(request_id, Box::new(part));
            self.send_to_shard(request_id.shard, message, Class::Control);
        }
    }

    /// Hands the output of sessions, and the responses that wait, to the connections of their requests.
    pub fn deliver_responses(&mut self, codecs: &mut Codecs) {
        self.flush_sessions();
        self.deliver_pending(codecs);
        self.drop_timers_of_waiting(codecs);
    }

    /// Drops the timers of connections that have brought a request in this turn, which is held or became a stream: nothing
    /// is due on the connection until the request is answered, and the session has a timer of its own.
    fn drop_timers_of_waiting(&mut self, codecs: &Codecs) {
        while let Some((slot, generation)) = self.sessions.pop_asking() {
            let waits = self.connections.is_open(slot, generation)
                && !self.connections.live(slot).unfinished
                && codecs.get(slot).unanswered().next().is_some();
            if waits {
                self.drop_timer(slot);
            }
        }
    }

    /// Hands the responses that wait to the connections of their requests.
    fn deliver_pending(&mut self, codecs: &mut Codecs) {
        if !self.sessions.has_responses() {
            return;
        }
        let mut responses = self.sessions.take_responses();
        for (request_id, response) in responses.drain(..) {
            match response {
                PendingResponse::Part(part) => self.deliver(codecs, request_id, part),
                PendingResponse::Document(StaticResponse { status, headers, body }) => {
                    let response = HttpResponse::Whole { status, headers, body };
                    self.send_response(codecs, request_id, response, SmallVec::new());
                }
                PendingResponse::Frames(frames) if self.is_waiting(request_id) => {
                    for frame in frames {
                        self.connections.queue(request_id.connection, frame);
                    }
                }
                PendingResponse::Frames(_) => {}
            }
        }
        self.sessions.reuse(responses);
    }

    /// Hands a part of a response to the connection of its request, if that still exists.
    pub fn deliver(&mut self, codecs: &mut Codecs, request_id: RequestId, part: ResponsePart) {
        match part {
            ResponsePart::Output(output) => {
                let response = HttpResponse::Whole { status: 200, headers: "", body: &output.bytes };
                self.send_response(codecs, request_id, response, output.accepted);
            }
            ResponsePart::Refused(refusal) => {
                let (status, headers) = (refusal.status(), refusal.headers());
                let response = HttpResponse::Whole { status, headers, body: refusal.line().as_bytes() };
                self.send_response(codecs, request_id, response, SmallVec::new());
            }
            ResponsePart::Stream => {
                self.send_response(codecs, request_id, HttpResponse::Stream, SmallVec::new());
            }
            ResponsePart::More(_) | ResponsePart::End if !self.is_waiting(request_id) => {}
            ResponsePart::More(output) => {
                let frame = Frame::with_broadcasts(output.bytes, self.time.now_ns(), output.accepted);
                self.connections.queue(request_id.connection, frame);
                // The client of an event stream sends nothing on its connection.
                self.retire_if_silent(request_id.connection);
            }
            ResponsePart::End => self.end(request_id.connection, Cause::Reason(Reason::Finished)),
        }
    }

    /// Tells the sessions of a connection's unanswered requests what has happened to the connection; returns whether
    /// there are any. Each of them still gets a response, because the peer may only have shut down its side.
    pub fn abandon_requests(&mut self, codecs: &Codecs, slot: u32, how: LostInput) -> bool {
        let generation = self.connections.live(slot).generation;
        let unanswered: SmallVec<[(u32, Option<Sid>); 2]> = codecs.get(slot).unanswered().collect();
        for (number, sid) in &unanswered {
            let Some(sid) = *sid else { continue };
            let shard = self.mesh.shard();
            let request_id = RequestId { shard, connection: slot, generation, number: *number };
            let home = self.home_of(sid);
            if home == shard {
                self.handle_lost_request(sid, request_id, how);
            } else {
                self.send_to_shard(home, ShardMessage::RequestLost { request_id, sid, how }, Class::Control);
            }
        }
        !unanswered.is_empty()
    }

    /// Checks a connection that speaks HTTP. A request must be complete in time. Between requests the connection may be
    /// silent for `http-idle-timeout`, from the end of the last response on. While a request waits for its response, nothing
    /// is due.
    pub fn http_connection_due(&mut self, codecs: &Codecs, slot: u32) {
        let connection = self.connections.live(slot);
        let waits = codecs.get(slot).unanswered().next().is_some();
        let (timeout, idle_timeout) = (self.config.timeout, self.config.http_idle_timeout);
        let (began, received, sent) = (connection.began, connection.received, connection.sent);
        let at_ms = if connection.unfinished {
            if self.has_exceeded(slot, began, timeout) {
                return self.end(slot, Cause::MessageTimeout);
            }
            self.patience_end_ms(began, timeout)
        } else if waits {
            // The response sets the timer.
            return;
        } else if connection.is_sending() {
            self.time.ms_from_now(idle_timeout)
        } else {
            let now = self.time.now();
            let since = if now.since(sent) < now.since(received) { sent } else { received };
            if self.has_exceeded(slot, since, idle_timeout) {
                return self.end(slot, Cause::IdleTimeout);
            }
            self.patience_end_ms(since, idle_timeout)
        };
        self.wake_at(slot, at_ms);
    }

    /// Passes a response to the codec of the request's connection, and queues the responses whose turn has come.
    fn send_response(
        &mut self,
        codecs: &mut Codecs,
        request_id: RequestId,
        response: HttpResponse<'_>,
        accepted: SmallVec<[AcceptedBroadcasts; 1]>,
    ) {
        let slot = request_id.connection;
        if self.connections.get_of(slot, request_id.generation).is_none() {
            return;
        }
        let ready = self.change_codec(codecs, slot, |codec, settings| {
            codec.respond(request_id.number, response, settings)
        });
        let codec = codecs.get(slot);
        let is_answered = codec.unanswered().next().is_none();
        // The responses to a peer that sends more and more requests behind one that is held must not pile up here.
        if codec.waiting_bytes() > self.config.outbox_bytes_max {
            self.end(slot, Cause::Reason(Reason::SlowClient));
        }
        self.queue_ready_responses(slot, ready, accepted, is_answered);
        let connection = self.connections.live(slot);
        if is_answered && connection.timer.is_none() && connection.stage == Stage::Open {
            self.wake_at(slot, self.time.ms_from_now(self.config.http_idle_timeout));
        }
    }

    fn queue_ready_responses(
        &mut self,
        slot: u32,
        ready: ReadyResponses,
        accepted: SmallVec<[AcceptedBroadcasts; 1]>,
        is_answered: bool,
    ) {
        match ready.persistence {
            Persistence::KeepAlive if ready.bytes.is_empty() => {}
            Persistence::KeepAlive => {
                self.connections.queue_response(slot, ready.bytes, accepted, self.time.now_ns());
                let has_ended = self.connections.live(slot).input == Input::Ended && !self.is_held(slot);
                if is_answered && has_ended {
                    self.end(slot, Cause::EndOfStream);
                }
            }
            Persistence::Close(reason) => {
                let goodbye = Goodbye { bytes: ready.bytes, await_peer: false };
                self.end_with(slot, Cause::Reason(reason), goodbye);
            }
        }
    }

    /// Returns whether the connection of a request still exists, and no end of it was decided.
    fn is_waiting(&self, request_id: RequestId) -> bool {
        self.connections.is_open(request_id.connection, request_id.generation)
    }
}
