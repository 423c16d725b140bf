//! Where a session lives: its requests find it, or create it, and bring events.

use super::life::status_of;
use super::session::{Early, HttpSession, Lost, RequestId, TooManyEarly, Turn};
use super::{ResponsePart, SessionRequest};
use crate::metrics::Counter;
use crate::protocol::http::{SessionParams, lines};
use crate::protocol::{Framing, Reason, http};
use crate::shard::connection::{Cause, Connection, Stage, Transport};
use crate::shard::state::State;

impl State {
    /// A request came for a session of this shard.
    pub fn handle_session_request(&mut self, ask: &SessionRequest<'_>) {
        // One that has ended in this turn takes no request any more.
        self.finish_endings();
        let Some(slot) = self.session_for(ask) else { return };
        let SessionParams { seq, host, close, .. } = ask.session;
        let Some(body) = ask.body else { return self.stream(slot, ask.request_id) };
        let Some(session) = self.session(slot) else { return };
        match session.turn_of(seq) {
            Turn::Now => {
                session.handle(seq);
                self.poll(slot, Some(ask.request_id), host, body);
                self.leave_if(close, slot);
                self.poll_kept(slot);
            }
            Turn::Later => {
                let early = Early {
                    seq: seq.unwrap_or_default(),
                    came: self.now,
                    request_id: Some(ask.request_id),
                    host: host.into(),
                    body: body.into(),
                    close,
                };
                self.keep(slot, early);
            }
            Turn::Again => {
                if let Some(before) = session.hold_again(ask.request_id) {
                    // Its connection is broken: it gets nothing that would be lost with it.
                    self.answer_request(before, ResponsePart::nothing());
                }
                self.outlet_changed(slot);
            }
            Turn::Over => self.refuse_request(ask.request_id, 409),
        }
    }

    /// A request has gone with its connection.
    pub fn lost_request(&mut self, sid: http::Sid, request_id: RequestId) {
        let Some(slot) = self.http.by_sid.get(&sid).copied() else { return };
        // Its peer may only have stopped to write: it is answered, if with nothing.
        match self.session(slot).map(|session| session.lose(request_id)) {
            Some(Lost::Poll) => {
                self.answer_request(request_id, ResponsePart::nothing());
                self.hold(slot, None);
            }
            Some(Lost::Early) => self.answer_request(request_id, ResponsePart::nothing()),
            // What was under way on it is lost, as with any other connection.
            Some(Lost::Stream) => {
                self.answer_request(request_id, ResponsePart::End);
                self.end(slot, Cause::EndOfStream);
            }
            Some(Lost::Nothing) | None => {}
        }
    }

    /// The session that a request names: it may be created by it. Otherwise the request is answered.
    fn session_for(&mut self, ask: &SessionRequest<'_>) -> Option<u32> {
        let SessionParams { sid, connect, .. } = ask.session;
        match self.http.by_sid.get(&sid).copied() {
            Some(slot) => self.takes_requests(slot, ask).then_some(slot),
            None if connect => self.create_session(ask),
            None => {
                self.metrics.counters.add(Counter::SessionsUnknown, 1);
                self.refuse_request(ask.request_id, 403);
                None
            }
        }
    }

    /// Whether a session takes requests. One that has ended answers the last poll with what it has left.
    fn takes_requests(&mut self, slot: u32, ask: &SessionRequest<'_>) -> bool {
        match self.connections.get(slot as usize).map(|connection| connection.stage) {
            Some(Stage::Open) => return true,
            Some(Stage::Flushing) if ask.body.is_some() => {
                self.answer_poll(slot, ask.request_id);
                self.abort(slot);
            }
            _ => self.refuse_request(ask.request_id, 403),
        }
        false
    }

    /// Whether a session is there, and no end of it was decided.
    fn is_session_open(&self, slot: u32) -> bool {
        self.connections.get(slot as usize).is_some_and(|connection| connection.stage == Stage::Open)
    }

    fn create_session(&mut self, ask: &SessionRequest<'_>) -> Option<u32> {
        if self.shutdown.is_some() || self.shared.clients.acquire(0).is_err() {
            self.metrics.counters.add(Counter::SessionsRefused, 1);
            self.refuse_request(ask.request_id, 503);
            return None;
        }
        let sid = ask.session.sid;
        let index = self.http.sessions.insert(HttpSession::new(sid)) as u32;
        let generation = self.next_generation();
        let connection = Connection::of_session(index, ask.peer, generation, self.now);
        let slot = self.connections.insert(connection) as u32;
        self.http.by_sid.insert(sid, slot);
        self.open(slot, Framing::LongPolling);
        self.count_address(slot, generation, ask.peer);
        if !self.is_session_open(slot) {
            self.refuse_request(ask.request_id, status_of(Cause::TooManyOfAddress));
            return None;
        }
        Some(slot)
    }

    /// A request's events are handled, and it waits for output.
    fn poll(&mut self, slot: u32, request_id: Option<RequestId>, host: &str, body: &str) {
        self.answer_held(slot);
        self.heard_of(slot);
        self.apps.runner().host.push_str(host);
        for text in lines(body) {
            if !self.is_session_open(slot) {
                break;
            }
            self.dispatch(slot, text);
        }
        self.apps.runner().host.clear();
        self.hold(slot, request_id);
    }

    /// Handles the requests that waited for the one that was just handled, unless that has ended the session.
    fn poll_kept(&mut self, slot: u32) {
        while self.is_session_open(slot) {
            let Some(session) = self.session(slot) else { return };
            let Some(early) = session.next_kept() else { return };
            session.handle(Some(early.seq));
            self.poll(slot, early.request_id, &early.host, &early.body);
            self.leave_if(early.close, slot);
        }
    }

    /// The client of a session has said that it goes.
    fn leave_if(&mut self, close: bool, slot: u32) {
        if close {
            self.end(slot, Cause::Reason(Reason::Finished));
        }
    }

    fn keep(&mut self, slot: u32, early: Early) {
        self.heard_of(slot);
        let request_id = early.request_id;
        let Some(session) = self.session(slot) else { return };
        match session.keep(early) {
            Ok(None) => self.wake_at(slot, self.ms_in(self.config.timeout)),
            Ok(Some(before)) => self.answer_request(before, ResponsePart::nothing()),
            Err(TooManyEarly) => {
                self.metrics.counters.add(Counter::HttpRefusedEarly, 1);
                request_id.into_iter().for_each(|request_id| self.refuse_request(request_id, 429));
            }
        }
    }

    /// Something came from the client of a session.
    pub fn heard_of(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.received = self.now;
        connection.challenged = false;
    }

    /// What a session is, beyond the record of its connection.
    pub fn session(&mut self, slot: u32) -> Option<&mut HttpSession> {
        match self.connections.get(slot as usize)?.transport {
            Transport::HttpSession(index) => self.http.sessions.get_mut(index as usize),
            Transport::Socket(_) => None,
        }
    }
}
