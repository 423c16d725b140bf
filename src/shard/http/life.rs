//! How long requests are held and sessions live, and how they end.

use super::ResponsePart;
use super::session::Outlet;
use crate::protocol::Reason;
use crate::shard::connection::{Cause, Stage};
use crate::shard::liveness::ms;
use crate::shard::state::State;

/// Spreads neighbouring slots over the time of `poll-slack`.
const SPREAD: u64 = 7919;

impl State {
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
        let by_client = cause == Cause::Reason(Reason::Finished);
        let orderly = by_client || matches!(cause, Cause::Reason(Reason::Application | Reason::GoingAway));
        let Some(session) = self.session(slot) else { return };
        let outlet = std::mem::replace(&mut session.outlet, Outlet::Nothing);
        let status = status_of(cause);
        for request_id in session.forget_kept() {
            self.refuse_request(request_id, status);
        }
        let has_output = self.connections.get(slot as usize).is_some_and(|c| !c.outbox.is_empty());
        match outlet {
            Outlet::Poll(request_id) if by_client || (orderly && has_output) => {
                self.answer_poll(slot, request_id)
            }
            Outlet::Poll(request_id) => self.refuse_request(request_id, status),
            Outlet::Stream(request_id) => {
                self.send_to_stream(slot, request_id);
                self.answer_request(request_id, ResponsePart::End);
            }
            // Where the server goes away, the next request would find no socket.
            Outlet::Nothing if has_output && cause == Cause::Reason(Reason::Application) => {
                return self.linger(slot);
            }
            Outlet::Nothing => {}
        }
        self.abort(slot);
    }

    /// The record of a session has gone.
    pub fn forget_session(&mut self, index: u32) {
        if let Some(session) = self.http.sessions.remove(index as usize) {
            self.http.by_sid.remove(&session.sid);
        }
    }

    /// Sets the timer for what is due next.
    pub fn wake_session(&mut self, slot: u32) {
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

    /// A session has ended with something left to say: its next request gets that.
    fn linger(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.stage = Stage::Flushing;
        connection.began = self.now;
        self.wake_at(slot, self.ms_in(self.config.close_timeout));
    }

    /// How long a request is held: spread, so that those who came together do not come back together.
    fn poll_ms(&self, slot: u32) -> u64 {
        let spread = ms(self.config.poll_slack);
        ms(self.config.poll_interval) - u64::from(slot).wrapping_mul(SPREAD) % spread.max(1)
    }
}

/// What requests of a session that has ended get (protocol.md, section 5).
pub(super) fn status_of(cause: Cause) -> u16 {
    match cause {
        Cause::Reason(Reason::MalformedEvent) => 400,
        Cause::Reason(Reason::GoingAway) => 503,
        Cause::TooManyOfAddress => 429,
        _ => 403,
    }
}
