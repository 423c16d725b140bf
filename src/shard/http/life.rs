//! Time limits of held requests and of sessions, and the ends of sessions.

use crate::limits::{SESSION_FIRST_WAIT, STREAM_LINGER};
use crate::metrics::Counter;
use crate::protocol::Reason;
use crate::shard::connection::Stage;
use crate::shard::ending::Cause;
use crate::shard::held::Piece;
use crate::shard::sessions::messages::ResponsePart;
use crate::shard::sessions::refusal::SessionRefusal;
use crate::shard::sessions::session::{EarlyRequest, HttpSession, Outlet};
use crate::shard::state::State;
use crate::shard::time::{ms, spread};
use std::time::Duration;

impl State {
    /// Checks all deadlines of a session.
    pub fn session_due(&mut self, slot: u32) {
        let connection = self.connections.live(slot);
        let began = connection.began;
        let session = self.sessions.of(connection.transport());
        let (outlet, gap) = (session.outlet, session.gap_since());
        if gap.is_some_and(|since| self.has_exceeded(slot, since, self.config.timeout)) {
            return self.end(slot, Cause::MessageTimeout);
        }
        if self.end_if_unauthenticated(slot) {
            return;
        }
        match outlet {
            Outlet::Stream(_) => self.client_due(slot),
            Outlet::Poll(_) if self.time.now().since(began) >= self.poll_ms(slot) => {
                self.answer_held(slot);
                self.hold(slot, None);
            }
            Outlet::Left if self.time.now().since(began) >= ms(STREAM_LINGER) => {
                return self.end(slot, Cause::EndOfStream);
            }
            Outlet::Nothing if gap.is_none() => {
                let timeout = self.session_timeout(slot);
                if self.has_exceeded(slot, began, timeout) {
                    self.count(Counter::SessionsEndedEarly, u64::from(timeout < self.config.timeout));
                    return self.end(slot, Cause::SessionTimeout);
                }
            }
            Outlet::Poll(_) | Outlet::Nothing | Outlet::Left => {}
        }
        self.expire_callbacks(slot);
        self.wake_session(slot);
    }

    /// Carries out the end of a session: every request that waits gets a response.
    pub fn finish_session(&mut self, slot: u32, cause: Cause) {
        let by_client = cause == Cause::Reason(Reason::Finished);
        let orderly = by_client || matches!(cause, Cause::Reason(Reason::Application | Reason::GoingAway));
        let connection = self.connections.live(slot);
        let has_output = !connection.outbox.is_empty();
        let session = self.sessions.of_mut(connection.transport());
        let outlet = std::mem::replace(&mut session.outlet, Outlet::Nothing);
        let refusal = refusal_of_end(cause);
        for request_id in self.change_kept(slot, HttpSession::forget_kept) {
            self.refuse_request(request_id, refusal);
        }
        for piece in self.held.remove(self.connections.source(slot)).into_iter().flatten() {
            let Piece::Request(EarlyRequest { request_id: Some(request_id), .. }) = piece else { continue };
            self.refuse_request(request_id, refusal);
        }
        match outlet {
            Outlet::Poll(request_id) if by_client || (orderly && has_output) => {
                self.respond_to_poll(slot, request_id)
            }
            Outlet::Poll(request_id) => self.refuse_request(request_id, refusal),
            Outlet::Stream(request_id) => {
                self.send_to_stream(slot, request_id);
                self.respond(request_id, ResponsePart::End);
            }
            // When the server shuts down, there is no next request that could get the output.
            Outlet::Nothing if has_output && cause == Cause::Reason(Reason::Application) => {
                return self.linger(slot);
            }
            Outlet::Nothing | Outlet::Left => {}
        }
        self.abort_session(slot);
    }

    /// Sets the timer of a session for the first thing that is due.
    pub fn wake_session(&mut self, slot: u32) {
        let (now, now_ms) = (self.time.now(), self.time.now_ms());
        let connection = self.connections.live(slot);
        let began = connection.began;
        let session = self.sessions.of(connection.transport());
        let (outlet, gap) = (session.outlet, session.gap_since());
        let outlet = match outlet {
            Outlet::Stream(_) => self.next_due(slot),
            Outlet::Poll(_) => Some(now_ms + self.poll_ms(slot).saturating_sub(now.since(began)).max(1)),
            Outlet::Left => Some(now_ms + ms(STREAM_LINGER).saturating_sub(now.since(began)).max(1)),
            // Requests that have arrived too early have a time limit of their own.
            Outlet::Nothing if gap.is_some() => None,
            Outlet::Nothing => Some(self.patience_end_ms(began, self.session_timeout(slot))),
        };
        let gap = gap.map(|since| self.patience_end_ms(since, self.config.timeout));
        let callbacks = self.connections.next_callback_expiry(slot);
        if let Some(at_ms) = [outlet, gap, callbacks, self.auth_due_ms(slot)].into_iter().flatten().min() {
            self.wake_at(slot, at_ms);
        }
    }

    /// Keeps a session that has ended with output left, which its next request gets.
    fn linger(&mut self, slot: u32) {
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        connection.stage = Stage::Flushing;
        connection.began = now;
        self.wake_at(slot, self.time.ms_from_now(self.config.close_timeout));
    }

    /// Returns how long a session may be without a request.
    fn session_timeout(&self, slot: u32) -> Duration {
        let is_on_trial = self.sessions.of(self.connections.live(slot).transport()).is_on_trial;
        if is_on_trial { self.config.timeout.min(SESSION_FIRST_WAIT) } else { self.config.timeout }
    }

    /// Returns the time for which a request is held, in milliseconds. If its peer sends nothing more and may have
    /// disconnected, this is `timeout`. Otherwise it differs between sessions, which keeps clients
    /// that connected at the same time from polling at the same time.
    fn poll_ms(&self, slot: u32) -> u64 {
        if self.sessions.of(self.connections.live(slot).transport()).is_hurried() {
            return ms(self.config.timeout);
        }
        ms(self.config.poll_interval) - spread(slot, ms(self.config.poll_slack))
    }
}

/// Returns the reason for refusing the requests that wait when a session ends for this cause.
pub(super) fn refusal_of_end(cause: Cause) -> SessionRefusal {
    match cause {
        Cause::Reason(Reason::MalformedEvent) => SessionRefusal::MalformedEvent,
        Cause::Reason(Reason::GoingAway) => SessionRefusal::GoingAway,
        Cause::Reason(Reason::TokenInvalid) => SessionRefusal::TokenInvalid,
        Cause::Reason(Reason::TokenExpired) => SessionRefusal::TokenExpired,
        Cause::Reason(Reason::AuthTimeout) => SessionRefusal::AuthTimeout,
        Cause::Reason(Reason::AuthBusy) => SessionRefusal::Busy,
        Cause::Reason(Reason::AuthUnavailable) => SessionRefusal::AuthUnavailable,
        Cause::TooManyOfAddress => SessionRefusal::AddressFull,
        _ => SessionRefusal::Ended,
    }
}
