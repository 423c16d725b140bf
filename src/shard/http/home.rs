//! Where a session lives: its requests bring events, its output goes to the request that is held, or to its stream.

use super::session::{Asker, Early, HttpSession, Lost, Outlet, TooManyEarly, Turn};
use super::{Answer, Ask, Delivery, Output};
use crate::metrics::{Counter, Gauge};
use crate::protocol::http::{Named, lines};
use crate::protocol::{Kind, Reason, http};
use crate::qev::buffers::Frame;
use crate::shard::connection::{Cause, Connection, OUTBOX_INLINE, Stage, Way};
use crate::shard::state::State;
use smallvec::SmallVec;
use std::time::Duration;

impl State {
    /// A request came for a session of this shard.
    pub fn asked(&mut self, ask: &Ask<'_>) {
        // One that has ended in this turn takes no request any more.
        self.finish_endings();
        let Some(slot) = self.session_for(ask) else { return };
        let Named { seq, host, .. } = ask.session;
        let Some(body) = ask.body else { return self.stream(slot, ask.asker) };
        let Some(session) = self.session(slot) else { return };
        match session.turn_of(seq) {
            Turn::Now => {
                session.handle(seq);
                self.poll(slot, Some(ask.asker), host, body);
                self.poll_kept(slot);
            }
            Turn::Later => {
                let early = Early {
                    seq: seq.unwrap_or_default(),
                    came: self.now,
                    asker: Some(ask.asker),
                    host: host.into(),
                    body: body.into(),
                };
                self.keep(slot, early);
            }
            Turn::Again => {
                if let Some(before) = session.hold_again(ask.asker) {
                    // Its connection is broken: it gets nothing that would be lost with it.
                    self.answer_request(before, Answer::nothing());
                }
                self.outlet_changed(slot);
            }
            Turn::Over => self.refuse_request(ask.asker, 409),
        }
    }

    /// A request has gone with its connection.
    pub fn lost_request(&mut self, sid: http::Sid, asker: Asker) {
        let Some(slot) = self.http.by_sid.get(&sid).copied() else { return };
        match self.session(slot).map(|session| session.lose(asker)) {
            Some(Lost::Poll) => self.hold(slot, None),
            // What was under way on it is lost, as with any other connection.
            Some(Lost::Stream) => self.end(slot, Cause::EndOfStream),
            Some(Lost::Nothing) | None => {}
        }
    }

    /// Hands over what sessions have to say, to whoever waits for it.
    pub fn flush_sessions(&mut self) {
        let mut ready = std::mem::take(&mut self.http.ready);
        for slot in ready.drain(..) {
            self.flush_session(slot);
        }
        self.http.ready = ready;
    }

    /// Sessions whose output waited for the mesh are looked at again.
    pub fn unblock_sessions(&mut self) {
        let mut blocked = std::mem::take(&mut self.http.blocked);
        blocked.drain(..).for_each(|slot| self.look_at_session(slot));
        self.http.blocked = blocked;
    }

    /// Has a session looked at when the turn ends.
    pub fn look_at_session(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        // The slot may be another's by now.
        if !connection.queued && !connection.is_socket() {
            connection.queued = true;
            self.http.ready.push(slot);
        }
    }

    /// A session's timer has fired.
    pub fn session_due(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let waited = self.now.since(connection.began);
        let Some(session) = self.session(slot) else { return };
        let (outlet, gap) = (session.outlet, session.gap_since());
        if gap.is_some_and(|since| self.now.since(since) >= ms(self.config.timeout)) {
            return self.end(slot, Cause::MessageTimeout);
        }
        match outlet {
            Outlet::Stream(_) => self.client_due(slot),
            Outlet::Poll(_) if waited >= self.poll_ms(slot) => {
                self.answer_held(slot);
                self.hold(slot, None);
            }
            Outlet::Nothing if gap.is_none() && waited >= ms(self.config.timeout) => {
                return self.end(slot, Cause::SessionTimeout);
            }
            Outlet::Poll(_) | Outlet::Nothing => {}
        }
        self.expire_callbacks(slot);
        self.wake_session(slot);
    }

    /// The end of a session: whoever waits is answered.
    pub fn finish_session(&mut self, slot: u32, cause: Cause) {
        let orderly = matches!(cause, Cause::Reason(Reason::Application | Reason::GoingAway));
        let Some(session) = self.session(slot) else { return };
        let outlet = std::mem::replace(&mut session.outlet, Outlet::Nothing);
        let status = status_of(cause);
        for asker in session.forget_kept() {
            self.refuse_request(asker, status);
        }
        let has_output = self.connections.get(slot as usize).is_some_and(|c| !c.outbox.is_empty());
        match outlet {
            Outlet::Poll(asker) if orderly && has_output => self.answer_poll(slot, asker),
            Outlet::Poll(asker) => self.refuse_request(asker, status),
            Outlet::Stream(asker) => {
                self.send_to_stream(slot, asker);
                self.answer_request(asker, Answer::End);
            }
            // Where the server goes away, the next request would find no socket.
            Outlet::Nothing if has_output && cause == Cause::Reason(Reason::Application) => {
                return self.linger(slot);
            }
            Outlet::Nothing => {}
        }
        self.bury(slot);
    }

    /// The record of a session has gone.
    pub fn forget_session(&mut self, index: u32) {
        if let Some(session) = self.http.sessions.remove(index as usize) {
            self.http.by_sid.remove(&session.sid);
        }
    }

    /// The session that a request names: it may be created by it. Otherwise the request is answered.
    fn session_for(&mut self, ask: &Ask<'_>) -> Option<u32> {
        let Named { sid, connect, .. } = ask.session;
        match self.http.by_sid.get(&sid).copied() {
            Some(slot) => self.takes_requests(slot, ask).then_some(slot),
            None if connect => self.create_session(ask),
            None => {
                self.metrics.counters.add(Counter::SessionsUnknown, 1);
                self.refuse_request(ask.asker, 403);
                None
            }
        }
    }

    /// Whether a session takes requests. One that has ended answers the last poll with what it has left.
    fn takes_requests(&mut self, slot: u32, ask: &Ask<'_>) -> bool {
        match self.connections.get(slot as usize).map(|connection| connection.stage) {
            Some(Stage::Open) => return true,
            Some(Stage::Flushing) if ask.body.is_some() => {
                self.answer_poll(slot, ask.asker);
                self.bury(slot);
            }
            _ => self.refuse_request(ask.asker, 403),
        }
        false
    }

    /// Whether a session is there, and no end of it was decided.
    fn is_session_open(&self, slot: u32) -> bool {
        self.connections.get(slot as usize).is_some_and(|connection| connection.stage == Stage::Open)
    }

    fn create_session(&mut self, ask: &Ask<'_>) -> Option<u32> {
        if self.shutdown.is_some() || self.shared.clients.take(0).is_err() {
            self.metrics.counters.add(Counter::SessionsRefused, 1);
            self.refuse_request(ask.asker, 503);
            return None;
        }
        let sid = ask.session.sid;
        let index = self.http.sessions.insert(HttpSession::new(sid)) as u32;
        let generation = self.next_generation();
        let connection = Connection::of_session(index, ask.peer, generation, self.now);
        let slot = self.connections.insert(connection) as u32;
        self.http.by_sid.insert(sid, slot);
        self.open(slot, Kind::LongPolling);
        self.count_address(slot, generation, ask.peer);
        if !self.is_session_open(slot) {
            self.refuse_request(ask.asker, status_of(Cause::TooManyOfAddress));
            return None;
        }
        Some(slot)
    }

    /// A request's events are handled, and it waits for output.
    fn poll(&mut self, slot: u32, asker: Option<Asker>, host: &str, body: &str) {
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
        self.hold(slot, asker);
    }

    /// Handles the requests that waited for the one that was just handled, unless that has ended the session.
    fn poll_kept(&mut self, slot: u32) {
        while self.is_session_open(slot) {
            let Some(session) = self.session(slot) else { return };
            let Some(early) = session.next_kept() else { return };
            session.handle(Some(early.seq));
            self.poll(slot, early.asker, &early.host, &early.body);
        }
    }

    fn keep(&mut self, slot: u32, early: Early) {
        self.heard_of(slot);
        let asker = early.asker;
        let Some(session) = self.session(slot) else { return };
        match session.keep(early) {
            Ok(None) => self.wake_at(slot, self.ms_in(self.config.timeout)),
            Ok(Some(before)) => self.answer_request(before, Answer::nothing()),
            Err(TooManyEarly) => asker.into_iter().for_each(|asker| self.refuse_request(asker, 429)),
        }
    }

    /// Output goes to this request from now on; with none it waits for the next. Where a stream is open the request is
    /// answered.
    fn hold(&mut self, slot: u32, asker: Option<Asker>) {
        let Some(session) = self.session(slot) else { return };
        if let Outlet::Stream(_) = session.outlet {
            return asker.into_iter().for_each(|asker| self.answer_request(asker, Answer::nothing()));
        }
        session.outlet = asker.map_or(Outlet::Nothing, Outlet::Poll);
        self.outlet_changed(slot);
    }

    /// A stream is opened: output goes there from now on.
    fn stream(&mut self, slot: u32, asker: Asker) {
        self.answer_held(slot);
        self.heard_of(slot);
        let Some(session) = self.session(slot) else { return };
        let before = std::mem::replace(&mut session.outlet, Outlet::Stream(asker));
        if let Outlet::Stream(before) = before {
            self.send_to_stream(slot, before);
            self.answer_request(before, Answer::End);
        }
        self.metrics.counters.add(Counter::StreamsOpened, 1);
        self.answer_request(asker, Answer::Stream);
        self.frame_for_stream(slot);
        self.outlet_changed(slot);
    }

    /// What waits was encoded for a poll.
    fn frame_for_stream(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if std::mem::replace(&mut connection.kind, Kind::EventStream) == Kind::EventStream {
            return;
        }
        for frame in self.take_outbox(slot) {
            let mut bytes = Vec::new();
            for line in frame.as_slice().split_inclusive(|byte| *byte == b'\n') {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                http::streamed(&mut bytes, |out| out.extend_from_slice(text));
            }
            let frame = Frame::with(bytes, frame.queued_ns(), frame.accepted().into());
            self.queue_frame(slot, frame);
        }
    }

    fn outlet_changed(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.began = self.now;
        connection.sent = self.now;
        if !connection.outbox.is_empty() {
            self.look_at_session(slot);
        }
        self.wake_session(slot);
    }

    /// Answers the request that is held, if one is, with what is there.
    fn answer_held(&mut self, slot: u32) {
        let Some(session) = self.session(slot) else { return };
        if let Outlet::Poll(asker) = session.outlet {
            session.outlet = Outlet::Nothing;
            self.answer_poll(slot, asker);
        }
    }

    fn answer_poll(&mut self, slot: u32, asker: Asker) {
        let output = Output::of(&self.take_outbox(slot));
        self.answer_request(asker, Answer::Whole { status: 200, output });
    }

    fn flush_session(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if connection.is_socket() {
            return; // it has ended, and its slot is another's
        }
        connection.queued = false;
        if connection.outbox.is_empty() || connection.stage != Stage::Open {
            return;
        }
        let Some(outlet) = self.session(slot).map(|session| session.outlet) else { return };
        match outlet {
            Outlet::Nothing => {}
            Outlet::Poll(_) => {
                self.answer_held(slot);
                self.hold(slot, None);
            }
            Outlet::Stream(asker) if asker.shard != self.id && self.mesh_is_stuck() => {
                self.http.blocked.push(slot);
            }
            Outlet::Stream(asker) => self.send_to_stream(slot, asker),
        }
    }

    fn send_to_stream(&mut self, slot: u32, asker: Asker) {
        let frames = self.take_outbox(slot);
        if frames.is_empty() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            connection.sent = self.now;
        }
        if asker.shard == self.id {
            self.http.answers.push((asker, Delivery::Frames(frames)));
        } else {
            self.answer_request(asker, Answer::More(Output::of(&frames)));
        }
    }

    /// What the session's client has not been sent.
    fn take_outbox(&mut self, slot: u32) -> SmallVec<[Frame; OUTBOX_INLINE]> {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return SmallVec::new() };
        self.metrics.gauges.sub(Gauge::OutboxBytes, u64::from(connection.outbox_bytes));
        connection.outbox_bytes = 0;
        std::mem::take(&mut connection.outbox)
    }

    /// A session has ended with something left to say: its next request gets that.
    fn linger(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.stage = Stage::Flushing;
        connection.began = self.now;
        self.wake_at(slot, self.ms_in(self.config.close_timeout));
    }

    fn heard_of(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.received = self.now;
        connection.challenged = false;
    }

    fn session(&mut self, slot: u32) -> Option<&mut HttpSession> {
        match self.connections.get(slot as usize)?.way {
            Way::Session(index) => self.http.sessions.get_mut(index as usize),
            Way::Socket(_) => None,
        }
    }

    /// Sets the timer for what is due next.
    fn wake_session(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let waited = self.now.since(connection.began);
        let Some(session) = self.session(slot) else { return };
        let (outlet, gap) = (session.outlet, session.gap_since());
        let in_ms = |limit: u64, waited: u64| Some(self.now_ms + limit.saturating_sub(waited).max(1));
        let outlet = match outlet {
            Outlet::Stream(_) => self.next_due(slot),
            Outlet::Poll(_) => in_ms(self.poll_ms(slot), waited),
            // Requests that came too early have a time of their own.
            Outlet::Nothing if gap.is_some() => None,
            Outlet::Nothing => in_ms(ms(self.config.timeout), waited),
        };
        let gap = gap.and_then(|since| in_ms(ms(self.config.timeout), self.now.since(since)));
        let callbacks = self.next_callback_expiry(slot);
        if let Some(at_ms) = [outlet, gap, callbacks].into_iter().flatten().min() {
            self.wake_at(slot, at_ms);
        }
    }

    /// How long a request is held: spread, so that those who came together do not come back together.
    fn poll_ms(&self, slot: u32) -> u64 {
        let spread = ms(self.config.poll_slack);
        ms(self.config.poll_interval) - u64::from(slot).wrapping_mul(SPREAD) % spread.max(1)
    }
}

/// Spreads neighbouring slots over the time of `poll-slack`.
const SPREAD: u64 = 7919;

impl Answer {
    fn nothing() -> Answer {
        Answer::Whole { status: 200, output: Output::default() }
    }
}

/// What requests of a session that has ended get (protocol.md, section 5).
fn status_of(cause: Cause) -> u16 {
    match cause {
        Cause::Reason(Reason::MalformedEvent) => 400,
        Cause::Reason(Reason::GoingAway) => 503,
        Cause::TooManyOfAddress => 429,
        _ => 403,
    }
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}
