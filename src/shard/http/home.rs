//! Requests on the shard of their session: they find or create the session, and their events are dispatched.

use crate::limits::HTTP_EARLY_REQUESTS_MAX;
use crate::metrics::Counter;
use crate::protocol::http::{SessionParams, lines};
use crate::protocol::{Framing, http};
use crate::shard::accept::AddressCount;
use crate::shard::addresses::ShareUse;
use crate::shard::connection::{Connection, Stage};
use crate::shard::ending::Cause;
use crate::shard::held::Piece;
use crate::shard::http::life::refusal_of_end;
use crate::shard::sessions::Creator;
use crate::shard::sessions::messages::{LostInput, RequestId, ResponsePart, SessionRequest};
use crate::shard::sessions::refusal::SessionRefusal;
use crate::shard::sessions::session::{EarlyRequest, HttpSession, Hurried, Lost, RequestTurn, TooManyEarly};
use crate::shard::state::State;

impl State {
    /// Handles a request for a session of this shard.
    pub fn handle_session_request(&mut self, request: &SessionRequest<'_>) {
        let Some(slot) = self.session_for(request) else { return };
        let SessionParams { seq, host, close, .. } = request.session;
        let source = self.connections.source(slot);
        self.mesh.begin(source);
        let Some(body) = request.body else {
            return self.open_stream(slot, request.id, request.session.linger);
        };
        if let Some(before) = seq.and_then(|seq| self.held.repeat(source, seq, request.id)) {
            return before.into_iter().for_each(|before| self.respond(before, ResponsePart::empty()));
        }
        let must_hold = self.is_held(slot) || self.mesh.is_over(source);
        let session = self.session_mut(slot);
        match session.turn_of(seq) {
            RequestTurn::Now if must_hold => self.hold_request(slot, request, body),
            RequestTurn::Now => {
                session.begin(seq);
                self.poll(slot, Some(request.id), host, body);
                self.close_if(close, slot);
                self.poll_kept(slot);
            }
            RequestTurn::Later => {
                let early = EarlyRequest {
                    seq: seq.unwrap_or_default(),
                    arrived: self.time.now(),
                    request_id: Some(request.id),
                    host: host.into(),
                    body: body.into(),
                    close,
                    hurried: false,
                };
                self.keep(slot, early);
            }
            RequestTurn::Repeated => {
                if let Some(before) = session.hold_again(request.id) {
                    // The connection of the request is broken, therefore the request gets no output, which would be
                    // lost.
                    self.respond(before, ResponsePart::empty());
                }
                self.outlet_changed(slot);
            }
            RequestTurn::Over => self.refuse_request(request.id, SessionRefusal::Answered),
        }
    }

    /// Handles the loss of a request's connection, or the end of its input.
    ///
    /// If only the input has ended, the output that there is goes to the request, as if it had not ended. A request with
    /// events then waits for their answers, for a limited time. One without events only waits for what may come; its
    /// peer may have disconnected, and what comes is kept for the next request.
    pub fn handle_lost_request(&mut self, sid: http::Sid, request_id: RequestId, how: LostInput) {
        let Some(slot) = self.sessions.find(sid, &self.connections) else { return };
        if how == LostInput::Ended && self.waits_for_answers(slot, request_id) {
            return;
        }
        if self.held.lose(self.connections.source(slot), request_id) {
            return self.respond(request_id, ResponsePart::empty());
        }
        if how == LostInput::Ended {
            self.flush_session(slot);
        }
        match self.session_mut(slot).lose(request_id) {
            Lost::Poll => {
                self.respond(request_id, ResponsePart::empty());
                self.hold(slot, None);
            }
            Lost::LingeringStream => {
                self.respond(request_id, ResponsePart::End);
                self.leave_stream(slot);
            }
            Lost::Early => self.respond(request_id, ResponsePart::empty()),
            // The output in flight on the stream is lost, as with any other connection.
            Lost::Stream => {
                self.respond(request_id, ResponsePart::End);
                self.end(slot, Cause::EndOfStream);
            }
            Lost::Nothing => {}
        }
    }

    /// Returns whether a request whose peer sends nothing more waits for the answers to its events, which may not have
    /// been handled yet. From now on it is held for a limited time, because its peer may have disconnected.
    fn waits_for_answers(&mut self, slot: u32, request_id: RequestId) -> bool {
        let connection = self.connections.live(slot);
        if connection.stage != Stage::Open || !connection.outbox.is_empty() {
            return false;
        }
        if self.held.hurry(self.connections.source(slot), request_id) {
            return true;
        }
        match self.session_mut(slot).hurry(request_id) {
            Hurried::Held => {
                self.outlet_changed(slot);
                true
            }
            Hurried::Early => true,
            Hurried::Nothing => false,
        }
    }

    /// Returns the slot of the session that a request names, and creates the session if the request asks for it.
    /// Returns `None` if the request was refused, in which case it has been answered.
    fn session_for(&mut self, request: &SessionRequest<'_>) -> Option<u32> {
        let SessionParams { sid, connect, .. } = request.session;
        if self
            .sessions
            .find(sid, &self.connections)
            .is_some_and(|slot| self.connections.live(slot).stage == Stage::Ending)
        {
            // A session that ends in this turn takes no more requests.
            self.finish_session_endings();
            if let Some(slot) = self.sessions.find(sid, &self.connections) {
                self.finish_overflowed_session(slot);
            }
        }
        match self.sessions.find(sid, &self.connections) {
            Some(slot) => {
                self.session_used(slot);
                self.takes_requests(slot, request).then_some(slot)
            }
            None if connect => self.create_session(request),
            None => {
                self.count(Counter::SessionsUnknown, 1);
                self.refuse_request(request.id, SessionRefusal::Unknown);
                None
            }
        }
    }

    /// Returns whether a session takes requests. If it has ended, the next poll gets its remaining output.
    fn takes_requests(&mut self, slot: u32, request: &SessionRequest<'_>) -> bool {
        match self.connections.live(slot).stage {
            Stage::Open => return true,
            Stage::Flushing if request.body.is_some() => {
                self.respond_to_poll(slot, request.id);
                self.abort_session(slot);
            }
            _ => self.refuse_request(request.id, SessionRefusal::Ended),
        }
        false
    }

    /// The session of a connection that has not ended.
    pub fn session_mut(&mut self, slot: u32) -> &mut HttpSession {
        self.sessions.of_mut(self.connections.live(slot).transport())
    }

    /// Returns whether no end of a session was decided.
    fn is_session_open(&self, slot: u32) -> bool {
        self.connections.live(slot).stage == Stage::Open
    }

    fn create_session(&mut self, request: &SessionRequest<'_>) -> Option<u32> {
        // A stream takes its connection for itself. A connection of a proxy or from a Unix socket carries the requests of
        // many clients.
        let is_limited = request.body.is_some() && request.peer.is_direct();
        let creator = is_limited.then_some(Creator::of(request.id));
        if let Err(refusal) = self.acquire_session(creator) {
            self.refuse_request(request.id, refusal);
            return None;
        }
        let sid = request.session.sid;
        let session = self.sessions.insert(sid);
        let generation = self.connections.next_generation();
        let connection = Connection::of_session(session, request.peer, generation, self.time.now());
        let slot = self.connections.insert(connection);
        self.sessions.set_connection(sid, slot, &self.connections);
        self.open(slot, Framing::LongPolling);
        let address = self.count_address(slot, generation, request.peer);
        if address == AddressCount::Counted(ShareUse::Full) {
            self.end(slot, Cause::TooManyOfAddress);
            self.refuse_request(request.id, SessionRefusal::AddressFull);
            return None;
        }
        if let Some(subject) = request.certificate {
            self.facts.set_certificate(slot, subject.into());
        }
        if let Some(opening) = request.opening {
            if let Err(reason) = self.opened_with(slot, opening) {
                self.refuse_request(request.id, refusal_of_end(Cause::Reason(reason)));
                return None;
            }
        }
        let Some(creator) = creator else { return Some(slot) };
        let is_pressed = address == AddressCount::Counted(ShareUse::High)
            || self.sessions.share_of(creator) == ShareUse::High
            || self.shared.sessions.used() > self.shared.sessions.total() / 2;
        self.sessions.set_unused(session, creator);
        if is_pressed {
            self.try_session(slot);
        }
        Some(slot)
    }

    /// Takes a place for a session of the whole server, for a request of this connection if that is limited.
    fn acquire_session(&mut self, creator: Option<Creator>) -> Result<(), SessionRefusal> {
        if self.is_shutting_down() {
            self.count(Counter::SessionsRefused, 1);
            return Err(SessionRefusal::GoingAway);
        }
        if creator.is_some_and(|creator| self.sessions.share_of(creator) == ShareUse::Full) {
            self.count(Counter::SessionsRefusedConnection, 1);
            return Err(SessionRefusal::TooManyUnused);
        }
        let is_acquired = self.shared.sessions.acquire(0).is_ok();
        if is_acquired && self.shared.clients.acquire(0).is_ok() {
            return Ok(());
        }
        self.shared.sessions.release(usize::from(is_acquired));
        self.count(Counter::SessionsRefused, 1);
        Err(SessionRefusal::Full)
    }

    /// Lets a session that has had one request end early, unless it has a second one.
    pub fn try_session(&mut self, slot: u32) {
        if self.sessions.try_unused(self.connections.live(slot).transport()) {
            self.wake_session(slot);
        }
    }

    /// Notes that a session has a second request.
    fn session_used(&mut self, slot: u32) {
        self.sessions.set_used(self.connections.live(slot).transport());
    }

    /// Dispatches the events of a request that had to wait, which then waits for output.
    fn poll_early(&mut self, slot: u32, request: &EarlyRequest) {
        let EarlyRequest { request_id, host, body, hurried, .. } = request;
        self.poll(slot, *request_id, host, body);
        // The peer may have sent its end while the request waited.
        let waits = self.is_session_open(slot).then(|| self.session_mut(slot));
        if let (true, Some(request_id), Some(session)) = (*hurried, *request_id, waits) {
            session.hurry(request_id);
            self.outlet_changed(slot);
        }
    }

    /// Dispatches the events of a request, which then waits for output.
    fn poll(&mut self, slot: u32, request_id: Option<RequestId>, host: &str, body: &str) {
        self.answer_held(slot);
        self.heard_of(slot);
        self.apps.set_host(host);
        for text in lines(body) {
            if !self.is_session_open(slot) {
                break;
            }
            self.dispatch(slot, text);
        }
        self.apps.set_host("");
        self.session_mut(slot).begin_wait(lines(body).next().is_some());
        self.hold(slot, request_id);
    }

    /// Holds a request of a session that has caused too many messages to shards that are behind.
    fn hold_request(&mut self, slot: u32, request: &SessionRequest<'_>, body: &str) {
        let SessionParams { seq, host, close, .. } = request.session;
        let source = self.connections.source(slot);
        if self.held.requests(source) >= HTTP_EARLY_REQUESTS_MAX {
            self.count(Counter::HttpRefusedEarly, 1);
            return self.refuse_request(request.id, SessionRefusal::TooManyEarly);
        }
        self.heard_of(slot);
        self.session_mut(slot).begin(seq);
        let arrived = self.time.now();
        if self.held.add(source) {
            self.count(Counter::InputsPaused, 1);
        }
        let held = EarlyRequest {
            seq: seq.unwrap_or_default(),
            arrived,
            request_id: Some(request.id),
            host: host.into(),
            body: body.into(),
            close,
            hurried: false,
        };
        self.held.push(source, Piece::Request(held));
    }

    /// Handles a request that was held.
    pub fn poll_held(&mut self, slot: u32, request: EarlyRequest) {
        self.mesh.begin(self.connections.source(slot));
        self.poll_early(slot, &request);
        self.close_if(request.close, slot);
        self.poll_kept(slot);
    }

    /// Handles the requests that waited for the one that was just handled, unless that one has ended the session.
    fn poll_kept(&mut self, slot: u32) {
        while self.is_session_open(slot) {
            let Some(early) = self.change_kept(slot, HttpSession::next_kept) else { return };
            self.session_mut(slot).begin(Some(early.seq));
            self.poll_early(slot, &early);
            self.close_if(early.close, slot);
        }
    }

    /// Ends a session whose client has requested that.
    fn close_if(&mut self, close: bool, slot: u32) {
        if close {
            self.close_when_handled(slot);
        }
    }

    fn keep(&mut self, slot: u32, early: EarlyRequest) {
        self.heard_of(slot);
        let request_id = early.request_id;
        let bytes = self.session_mut(slot).kept_bytes() + early.text_bytes();
        if self.incomplete.is_too_large(bytes) {
            self.count(Counter::HttpRefusedBusy, 1);
            return request_id.into_iter().for_each(|id| self.refuse_request(id, SessionRefusal::Busy));
        }
        match self.change_kept(slot, |session| session.keep(early)) {
            Ok(None) => self.wake_at(slot, self.time.ms_from_now(self.config.timeout)),
            Ok(Some(before)) => self.respond(before, ResponsePart::empty()),
            Err(TooManyEarly) => {
                self.count(Counter::HttpRefusedEarly, 1);
                if let Some(request_id) = request_id {
                    self.refuse_request(request_id, SessionRefusal::TooManyEarly);
                }
            }
        }
    }

    /// Changes which requests a session keeps, and counts the memory that they take then.
    pub fn change_kept<T>(&mut self, slot: u32, change: impl FnOnce(&mut HttpSession) -> T) -> T {
        let session = self.sessions.of_mut(self.connections.live(slot).transport());
        let before = session.kept_bytes();
        let changed = change(session);
        self.incomplete.changed(before, session.kept_bytes());
        changed
    }

    /// Notes that something was received from the client of a session.
    pub fn heard_of(&mut self, slot: u32) {
        let now = self.time.now();
        self.connections.live_mut(slot).heard(now);
    }
}
