//! Timers: timeouts, heartbeats, callbacks that expire, and the timers of applications.
//!
//! A connection has one timer, which fires no later than anything that is due. Most deadlines of a connection
//! are postponed all the time (the heartbeat by every send). The timer is not moved each time; when it fires, every
//! deadline is checked.

#[cfg(test)]
mod tests;

use super::backpressure::POSTPONED_MS;
use super::codecs::Codecs;
use super::connection::{Input, Moment, Stage};
use super::directory::directory;
use super::ending::Cause;
use super::handshakes::EXCUSED_MS;
use super::kernel::{Kernel, Owner, RingOp};
use super::mesh::TIMERS;
use super::stalls::CHECKED_PER_TURN_MAX;
use super::state::State;
use super::time::{DueTimer, Judgement, PARKED_MS, ms, spread};
use crate::limits::REFUSAL_WAIT;
use crate::metrics::Counter;
use smallvec::SmallVec;
use std::time::Duration;

/// The number of parts of `heartbeat-slack`. Heartbeats are due at multiples of a part, so that a shard wakes for many
/// of them at once. The clients of a shard are spread over the parts: if all of them have connected at the same time, it
/// does not send all of their heartbeats in one turn.
const SLACK_PARTS: u64 = 10;

impl State {
    /// Sets the timers that applications have registered.
    pub fn start_app_timers(&mut self) {
        let timers: Vec<(u32, Duration)> = self.apps.timers().collect();
        for (index, period) in timers {
            self.time.set(self.time.ms_from_now(period), DueTimer::Every(index));
        }
    }

    /// Handles the timers that are due, unless the shard is catching up after a stall.
    pub fn run_timers(&mut self, codecs: &mut Codecs) {
        if !self.time.may_fire(self.has_found) {
            return self.restart_patience_with_workers();
        }
        self.mesh.begin(TIMERS);
        for due in self.time.take_unparked() {
            self.unpark(codecs, due);
        }
        let mut fired = self.time.take_fired();
        for due in fired.drain(..) {
            self.timer_fired(codecs, due);
        }
        self.time.reuse(fired);
    }

    /// Handles what was due, now that everything has been handled that peers had sent by then.
    fn unpark(&mut self, codecs: &mut Codecs, due: DueTimer) {
        let DueTimer::Connection(slot) = due else { return self.stalls.begin_check() };
        // Another connection may have the slot, for which nothing is due.
        if self.connections.get_mut(slot).is_some_and(|connection| connection.timer.is_some()) {
            self.drop_timer(slot);
            self.connection_due(codecs, slot);
        }
    }

    /// Sets a mark if something that is due waits for one.
    pub fn set_mark(&mut self) {
        if self.time.set_mark() {
            self.ring_ops.push(RingOp::Mark);
        }
    }

    fn timer_fired(&mut self, codecs: &mut Codecs, due: DueTimer) {
        match due {
            DueTimer::Every(_) | DueTimer::Once(_) if self.timers_must_wait() => {
                self.time.set(self.time.now_ms() + POSTPONED_MS, due);
            }
            DueTimer::Connection(slot) => self.connection_due(codecs, slot),
            DueTimer::Every(index) => {
                let (app, period) = self.apps.run_every(&directory!(self), index);
                self.apply_commands(app);
                self.time.set(self.time.ms_from_now(period), DueTimer::Every(index));
            }
            DueTimer::Once(index) => {
                let app = self.apps.run_once(&directory!(self), index);
                self.apply_commands(app);
            }
            DueTimer::Links => self.links_due(),
            DueTimer::Sends => self.time.park(due),
            DueTimer::AcceptAgain => self.accept_timer_fired(),
            DueTimer::Members => self.members_due(),
        }
    }

    /// Has the sends in flight examined after a while, if there are any.
    pub fn watch_sends(&mut self, kernel: &impl Kernel) {
        if kernel.sends_in_flight() > 0 {
            if let Some(after) = self.stalls.arrange(self.config.send_timeout) {
                self.time.set(self.time.ms_from_now(after), DueTimer::Sends);
            }
        }
    }

    /// Examines some of the sends in flight, if it is time to: a connection whose send has made no progress for
    /// `send-timeout` ends. Connections that are closing already are bounded by `close-timeout`, and links to workers by
    /// `worker-timeout`.
    pub fn check_sends(&mut self, kernel: &impl Kernel) {
        let Some(from) = self.stalls.next() else { return };
        let mut stalled: SmallVec<[u32; 8]> = SmallVec::new();
        let timeout = ms(self.config.send_timeout);
        let next = kernel.visit_sends(from, CHECKED_PER_TURN_MAX, |token| {
            let Owner::Connection(slot) = Owner::of(token) else { return };
            let connection = self.connections.live(slot);
            let judgement = self.time.judge(connection.sent, timeout);
            if connection.stage == Stage::Open && matches!(judgement, Judgement::Over { .. }) {
                stalled.push(slot);
            }
        });
        self.stalls.advance(next);
        stalled.into_iter().for_each(|slot| self.end(slot, Cause::SendTimeout));
    }

    /// Makes sure that a connection's timer fires at this time or earlier.
    pub fn wake_at(&mut self, slot: u32, at_ms: u64) {
        self.set_timer(slot, at_ms, |due_ms| due_ms > at_ms);
    }

    /// Sets a connection's timer to this time, even if it is set to an earlier one.
    pub fn move_timer(&mut self, slot: u32, at_ms: u64) {
        self.set_timer(slot, at_ms, |_| true);
    }

    fn set_timer(&mut self, slot: u32, at_ms: u64, moves: impl FnOnce(u64) -> bool) {
        let connection = self.connections.live_mut(slot);
        if let Some(timer) = connection.timer {
            match self.time.due_at(timer, slot) {
                Some(due_ms) if moves(due_ms) => self.time.cancel(timer, slot),
                // The timer may have fired already, and is handled in this turn.
                Some(_) | None => return,
            }
        }
        connection.timer = Some(self.time.set(at_ms, DueTimer::Connection(slot)));
    }

    /// Cancels a connection's timer, if it has one.
    pub fn drop_timer(&mut self, slot: u32) {
        if let Some(timer) = self.connections.live_mut(slot).timer.take() {
            self.time.cancel(timer, slot);
        }
    }

    fn connection_due(&mut self, codecs: &mut Codecs, slot: u32) {
        // A timer that fired earlier in this turn may have released the connection.
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.timer = None;
        if connection.stage == Stage::Open && self.is_held(slot) {
            // The peer may have sent what it should have; the shard does not read it.
            return self.wake_at(slot, self.time.now_ms() + POSTPONED_MS);
        }
        let connection = self.connections.live(slot);
        if connection.is_tls() && self.tls.is_waiting(slot) {
            return self.wake_at(slot, self.time.now_ms() + EXCUSED_MS);
        }
        match connection.stage {
            Stage::Open if !connection.is_socket() => self.session_due(slot),
            Stage::Open if connection.client.is_some() => self.client_due(slot),
            Stage::Open if codecs.get(slot).is_open() => self.http_connection_due(codecs, slot),
            Stage::Open => self.handshake_due(slot),
            Stage::Ending => {}
            Stage::Dead => self.abort(codecs, slot),
            Stage::AwaitingPeer | Stage::Flushing | Stage::HalfClosed => self.end_due(codecs, slot),
        }
    }

    fn handshake_due(&mut self, slot: u32) {
        let connection = self.connections.live(slot);
        if connection.input == Input::Ended {
            // The shard that counts the address has not replied. The peer's time begins when it has.
            return self.wake_at(slot, self.time.ms_from_now(self.config.timeout));
        }
        let timeout = self.config.timeout;
        if self.is_over(slot, if connection.refusal.is_some() { timeout.min(REFUSAL_WAIT) } else { timeout })
        {
            self.end(slot, Cause::HandshakeTimeout);
        }
    }

    /// Returns how long the peer of a connection may take to complete its end.
    pub fn close_timeout(&self, slot: u32) -> Duration {
        let is_refused = self.connections.live(slot).refusal.is_some();
        let timeout = self.config.close_timeout;
        if is_refused { timeout.min(REFUSAL_WAIT) } else { timeout }
    }

    fn end_due(&mut self, codecs: &mut Codecs, slot: u32) {
        if self.is_over(slot, self.close_timeout(slot)) {
            self.count(Counter::TimeoutsClose, 1);
            if self.connections.live(slot).is_socket() {
                self.abort(codecs, slot);
            } else {
                self.abort_session(slot);
            }
        }
    }

    /// Returns whether the handshake, message or end that a connection has begun has taken longer than `timeout`. If
    /// not, the timer is set to the time at which it may have.
    fn is_over(&mut self, slot: u32, timeout: Duration) -> bool {
        let began = self.connections.live(slot).began;
        let is_over = self.has_exceeded(slot, began, timeout);
        if !is_over {
            self.wake_at(slot, self.patience_end_ms(began, timeout));
        }
        is_over
    }

    /// Returns whether the peer of a connection has been waited for since this moment for longer than `timeout`, and
    /// everything that it has sent by then has been handled. If the latter is not known, the connection is parked: its
    /// deadlines are checked again as soon as it is.
    pub fn has_exceeded(&mut self, slot: u32, since: Moment, timeout: Duration) -> bool {
        let is_over = match self.time.judge(since, ms(timeout)) {
            Judgement::Waits(_) => return false,
            Judgement::Unheard => false,
            Judgement::Over { is_final: true } => true,
            // If there was more than one receive takes, or no buffer for it, the next mark is behind the rest.
            Judgement::Over { .. } => !std::mem::take(&mut self.connections.live_mut(slot).unread),
        };
        if !is_over {
            self.time.park(DueTimer::Connection(slot));
        }
        is_over
    }

    /// Returns the time at which a peer may have been waited for for longer than `timeout`. If it may have been already, it
    /// is parked, and the time is a later one.
    pub fn patience_end_ms(&self, since: Moment, timeout: Duration) -> u64 {
        match self.time.patience(since, ms(timeout)) {
            0 => self.time.now_ms() + PARKED_MS,
            left => self.time.now_ms() + left,
        }
    }

    /// Checks everything that the connection of a client waits for.
    pub fn client_due(&mut self, slot: u32) {
        self.expire_callbacks(slot);
        let connection = self.connections.live(slot);
        let (began, received, sent) = (connection.began, connection.received, connection.sent);
        let (unfinished, challenged) = (connection.unfinished, connection.challenged);
        if unfinished && self.has_exceeded(slot, began, self.config.timeout) {
            return self.end(slot, Cause::MessageTimeout);
        }
        if self.has_exceeded(slot, received, self.config.heartbeat_timeout) {
            return self.end(slot, Cause::LivenessTimeout);
        }
        if self.end_if_unauthenticated(slot) {
            return;
        }
        let config = &self.config;
        let heartbeat_after = ms(config.heartbeat_interval - config.heartbeat_slack);
        if !challenged && self.time.patience(received, ms(config.heartbeat_challenge)) == 0 {
            self.challenge(slot);
        } else if self.time.now().since(sent) >= heartbeat_after {
            self.count(Counter::Heartbeats, 1);
            self.send_heartbeat(slot, 0);
        }
        // If the peer may be late, the receive must read what it has sent.
        if self.time.patience(received, ms(self.config.heartbeat_timeout)) > 0 {
            self.retire_if_silent(slot);
        }
        if let Some(at_ms) = self.next_due(slot) {
            self.wake_at(slot, at_ms);
        }
    }

    /// Returns the time at which a client's connection has to be checked next, at the latest, or `None` if the
    /// connection has no client.
    pub fn next_due(&self, slot: u32) -> Option<u64> {
        let connection = self.connections.live(slot);
        connection.client?;
        let (now, now_ms) = (self.time.now(), self.time.now_ms());
        let after =
            |moment: Moment, time: Duration| now_ms + ms(time).saturating_sub(now.since(moment)).max(1);
        let config = &self.config;
        // A frame that is still queued will be sent in this turn.
        let sent = if connection.queued { now } else { connection.sent };
        let slack = ms(config.heartbeat_slack);
        let part = (slack / SLACK_PARTS).max(1);
        // Rounding takes less than a part of the slack.
        let early = Duration::from_millis(spread(slot, slack.saturating_sub(part) + 1));
        let heartbeat = after(sent, config.heartbeat_interval - early) / part * part;
        let silence =
            if connection.challenged { config.heartbeat_timeout } else { config.heartbeat_challenge };
        let silence = self.patience_end_ms(connection.received, silence);
        let message = connection.unfinished.then(|| self.patience_end_ms(connection.began, config.timeout));
        let due = heartbeat.max(now_ms + 1).min(silence);
        let callback = self.connections.next_callback_expiry(slot);
        [message, callback, self.auth_due_ms(slot)].into_iter().flatten().chain([due]).min()
    }

    /// Drops the callbacks of a connection's client that have expired.
    pub fn expire_callbacks(&mut self, slot: u32) {
        let expired = self.connections.expire_callbacks(slot, self.time.now_ms());
        self.callbacks_expired(slot, expired);
    }

    /// Counts callbacks of a connection's client that have expired.
    pub fn callbacks_expired(&mut self, slot: u32, expired: usize) {
        if expired > 0 {
            self.count(Counter::CallbacksExpired, expired as u64);
            self.drops.of(slot).callbacks_dropped += expired as u32;
        }
    }

    /// Sends a heartbeat that the client must answer, because nothing was received from it for heartbeat-challenge.
    fn challenge(&mut self, slot: u32) {
        let Some(client) = self.connections.client_of(slot) else { return };
        let callback = self.issue(client, 0, None);
        self.connections.live_mut(slot).challenged = true;
        self.count(Counter::Challenges, 1);
        self.send_heartbeat(slot, callback);
    }

    fn send_heartbeat(&mut self, slot: u32, callback: u64) {
        self.queue_event(slot, "/qio/heartbeat", callback, "null");
    }
}
