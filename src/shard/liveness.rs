//! Timers: timeouts, heartbeats, callbacks that expire, and what applications have asked for.
//!
//! A connection has one timer, which fires no later than whatever is due next. Most of what it waits for is put
//! off all the time (a heartbeat by every send): the timer stays where it is, and looks again when it fires.

use super::connection::{Cause, Moment, Stage};
use super::flush::RingOp;
use super::state::State;
use crate::app::{Context, Json};
use crate::event::path::Path;
use crate::metrics::{Counter, Gauge};
use crate::qev::ring::Errno;
use std::time::Duration;

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum DueTimer {
    Connection(u32),
    /// An application's timer that runs again and again.
    Every(u32),
    /// An application's timer that runs once.
    Once(u32),
    /// Links to workers are to be looked at.
    Links,
    AcceptAgain,
}

/// What an application wants to be run once.
pub(super) struct Once {
    pub app: u32,
    pub run: Box<dyn FnOnce(&mut Context<'_>)>,
}

/// How long accepting waits where descriptors or memory have run out and no connection ends before.
const ACCEPT_AGAIN_MS: u64 = 100;

/// Heartbeats are due at multiples of this part of `heartbeat-slack`, so that a shard wakes for many at once.
const SLACK_PARTS: u64 = 10;

impl State {
    /// Starts the timers that applications registered.
    pub fn start_app_timers(&mut self) {
        let timers: Vec<(u32, Duration)> = self.apps.timers().collect();
        for (index, period) in timers {
            self.timers.insert(self.ms_in(period), DueTimer::Every(index));
        }
    }

    /// The time so far from now, in milliseconds; what an application asks for may lie beyond the end of time.
    pub fn ms_in(&self, time: Duration) -> u64 {
        self.now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// Makes sure that a connection is looked at by then.
    pub fn wake_at(&mut self, slot: u32, at_ms: u64) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        match connection.timer {
            // It may be past, and fires in this turn.
            Some(_) if !connection.timer_at.is_after(Moment::at(at_ms)) => return,
            Some(timer) => drop(self.timers.cancel(timer)),
            None => {}
        }
        connection.timer = Some(self.timers.insert(at_ms, DueTimer::Connection(slot)));
        connection.timer_at = Moment::at(at_ms);
    }

    /// Accepting goes on when a connection ends, or after a while.
    pub fn wait_to_accept(&mut self, error: Errno) {
        self.accepts_wait = true;
        if !self.accept_timer {
            tracing::warn!(shard = self.id, %error, "accepting pauses");
            self.accept_timer = true;
            self.timers.insert(self.now_ms + ACCEPT_AGAIN_MS, DueTimer::AcceptAgain);
        }
    }

    /// A timer has fired.
    pub fn due(&mut self, due: DueTimer) {
        match due {
            DueTimer::Connection(slot) => self.connection_due(slot),
            DueTimer::Every(index) => {
                let (app, period) = self.apps.every(index);
                self.apply_commands(app);
                self.timers.insert(self.ms_in(period), DueTimer::Every(index));
            }
            DueTimer::Once(index) => {
                let Some(Once { app, run }) = self.onces.remove(index as usize) else { return };
                let _ = self.apps.runner().run(app, run);
                self.apply_commands(app);
            }
            DueTimer::Links => self.links_due(),
            DueTimer::AcceptAgain => {
                self.accept_timer = false;
                if std::mem::take(&mut self.accepts_wait) {
                    self.ring_ops.push(RingOp::AcceptAgain);
                }
            }
        }
    }

    fn connection_due(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.timer = None;
        match connection.stage {
            Stage::Open if !connection.is_socket() => self.session_due(slot),
            Stage::Open if connection.client.is_some() => self.client_due(slot),
            Stage::Open if connection.codec.is_open() => self.http_connection_due(slot),
            Stage::Open => self.handshake_due(slot),
            Stage::Ending => {}
            Stage::Dead => self.abort(slot),
            Stage::AwaitingPeer | Stage::Flushing | Stage::HalfClosed => self.end_due(slot),
        }
    }

    fn handshake_due(&mut self, slot: u32) {
        if self.is_over(slot, self.config.timeout) {
            self.end(slot, Cause::HandshakeTimeout);
        }
    }

    fn end_due(&mut self, slot: u32) {
        if self.is_over(slot, self.config.close_timeout) {
            self.metrics.counters.add(Counter::TimeoutsClose, 1);
            self.abort(slot);
        }
    }

    /// Whether what a connection began has taken this long; where it has not, it is looked at again when it has.
    fn is_over(&mut self, slot: u32, timeout: Duration) -> bool {
        let Some(connection) = self.connections.get(slot as usize) else { return false };
        match ms(timeout).checked_sub(self.now.since(connection.began)) {
            Some(left @ 1..) => {
                self.wake_at(slot, self.now_ms + left);
                false
            }
            _ => true,
        }
    }

    pub fn client_due(&mut self, slot: u32) {
        self.expire_callbacks(slot);
        let config = std::sync::Arc::clone(&self.config);
        let Some(connection) = self.connections.get(slot as usize) else { return };
        let silent = self.now.since(connection.received);
        if connection.unfinished && self.now.since(connection.began) >= ms(config.timeout) {
            return self.end(slot, Cause::MessageTimeout);
        }
        if silent >= ms(config.heartbeat_timeout) {
            return self.end(slot, Cause::LivenessTimeout);
        }
        if silent >= ms(config.heartbeat_challenge) && !connection.challenged {
            self.challenge(slot);
        } else if self.now.since(connection.sent) >= ms(config.heartbeat_interval - config.heartbeat_slack) {
            self.metrics.counters.add(Counter::Heartbeats, 1);
            self.heartbeat(slot, 0);
        }
        if let Some(at_ms) = self.next_due(slot) {
            self.wake_at(slot, at_ms);
        }
    }

    /// When the next of a client's callbacks expires.
    pub fn next_callback_expiry(&self, slot: u32) -> Option<u64> {
        let connection = self.connections.get(slot as usize)?;
        self.clients.get(connection.client?.get() as usize)?.callbacks.next_expiry()
    }

    /// When a client has to be looked at next, at the latest.
    pub fn next_due(&self, slot: u32) -> Option<u64> {
        let connection = self.connections.get(slot as usize)?;
        let client = self.clients.get(connection.client?.get() as usize)?;
        let after = |moment: Moment, time: Duration| {
            self.now_ms + ms(time).saturating_sub(self.now.since(moment)).max(1)
        };
        let config = &self.config;
        // A send that was only queued counts from now.
        let sent = if connection.queued { self.now } else { connection.sent };
        let part = (ms(config.heartbeat_slack) / SLACK_PARTS).max(1);
        let heartbeat = after(sent, config.heartbeat_interval) / part * part;
        let silence =
            if connection.challenged { config.heartbeat_timeout } else { config.heartbeat_challenge };
        let silence = after(connection.received, silence);
        let message = connection.unfinished.then(|| after(connection.began, config.timeout));
        let due = heartbeat.max(self.now_ms + 1).min(silence);
        [message, client.callbacks.next_expiry()].into_iter().flatten().chain([due]).min()
    }

    pub fn expire_callbacks(&mut self, slot: u32) {
        let Some(client) = self.connections.get(slot as usize).and_then(|c| c.client) else { return };
        let Some(client) = self.clients.get_mut(client.get() as usize) else { return };
        let expired = client.callbacks.expire(self.now_ms) as u64;
        self.metrics.counters.add(Counter::CallbacksExpired, expired);
        self.metrics.gauges.sub(Gauge::CallbacksOpen, expired);
    }

    /// Nothing was heard for long: the client must answer this.
    fn challenge(&mut self, slot: u32) {
        let Some(client) = self.client_of(slot) else { return };
        let callback = self.issue(client, 0, None);
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            connection.challenged = true;
        }
        self.metrics.counters.add(Counter::Challenges, 1);
        self.heartbeat(slot, callback);
    }

    fn heartbeat(&mut self, slot: u32, callback: u64) {
        let path = self.heartbeat.clone();
        self.queue_event(slot, &path, callback, &Json::NULL);
    }
}

/// A setting's time in milliseconds: it is a day at most.
pub(super) fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// The event of heartbeats.
pub(super) fn heartbeat_path() -> Path {
    Path::parse("/qio/heartbeat").expect("a path of the program's own is clean")
}
