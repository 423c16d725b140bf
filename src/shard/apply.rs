//! Commands are applied here: those of this shard's handlers, and those that came from other shards and threads.

use super::connection::Cause;
use super::liveness::{DueTimer, Once};
use super::mail::ShardMessage;
use super::state::State;
use crate::app::{Answer, Callback, Command, Json, LocalCommand, Reply, ReplyTo};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::metrics::{Counter, Gauge};
use crate::protocol;
use crate::protocol::Reason;
use crate::qev::mesh::Class;
use std::time::Duration;

impl State {
    /// Applies what a piece of application `app` has pushed, in order.
    pub fn apply_commands(&mut self, app: u32) {
        if self.apps.runner().commands.is_empty() {
            return;
        }
        // Hooks and callbacks that run meanwhile push into a list of their own, and are applied before the rest.
        for command in std::mem::take(&mut self.apps.runner().commands) {
            self.apply_local(app, command);
        }
    }

    /// Applies a command, or passes it to the shard that its client lives on.
    pub fn apply(&mut self, app: u32, command: Command) {
        match command.client() {
            Some(client) if client.shard != self.id => {
                if client.shard < self.port.shards() as u16 {
                    // Whoever sends without end must not fill this shard's memory; all else is bounded.
                    let is_send = matches!(command, Command::Send { .. });
                    let class = if is_send { Class::Data } else { Class::Control };
                    self.mail(client.shard, ShardMessage::Command { app, command }, class);
                }
            }
            _ => self.apply_here(app, command),
        }
    }

    fn apply_local(&mut self, app: u32, command: LocalCommand) {
        match command {
            LocalCommand::Any(command) => self.apply(app, command),
            LocalCommand::Answer { reply_to, answer } => self.answer(app, reply_to, answer),
            LocalCommand::Send { client, path, data, callback } => {
                self.send(app, client, &path, &data, callback)
            }
            LocalCommand::Subscribe { reply_to, path, extra } => self.subscribe(reply_to, &path, &extra),
            LocalCommand::Unsubscribe { reply_to, path } => self.unsubscribe(reply_to, &path),
            LocalCommand::RunCallback { reply_to, id, data } => self.fire(reply_to, id, &data),
            LocalCommand::SendText { client, text } => self.send_text(client, text),
            LocalCommand::After { time, run } => self.run_after(time, Once { app, run }),
        }
    }

    fn apply_here(&mut self, app: u32, command: Command) {
        match command {
            Command::Answer { reply_to, answer } => self.answer(app, reply_to, answer.into_local()),
            Command::Decide { reply_to, path, decision } => self.decided(reply_to, path, decision),
            Command::Send { client, path, data, callback } => {
                self.send(app, client, &path, &data, callback.map(Callback::from));
            }
            Command::Broadcast { path, data } => self.broadcast(&path, data),
            Command::Close { client } => self.close_client(client),
        }
    }

    /// Sends an event to a client of this shard.
    pub fn send(&mut self, app: u32, id: ClientId, path: &Path, data: &Json, callback: Option<Callback>) {
        let Some(slot) = self.connection_of(id) else { return };
        let callback = callback.map_or(0, |callback| self.issue(id, app, Some(callback)));
        self.queue_event(slot, path, callback, data);
    }

    fn close_client(&mut self, id: ClientId) {
        if let Some(slot) = self.connection_of(id) {
            self.end(slot, Cause::Reason(Reason::Application));
        }
    }

    fn send_text(&mut self, id: ClientId, text: &str) {
        let Some(slot) = self.connection_of(id) else { return };
        let Some(framing) = self.framing_of(slot) else { return };
        let mut bytes = Vec::new();
        protocol::frame(framing, &mut bytes, text);
        self.queue_bytes(slot, bytes);
    }

    /// A client fires a server callback that it was offered.
    fn fire(&mut self, reply_to: ReplyTo, id: Option<u64>, data: &Json) {
        let Some(id) = id else {
            self.metrics.counters.add(Counter::CallbacksUnknown, 1);
            return self.answer(0, reply_to, Answer::error(400, "invalid server callback id"));
        };
        let now_ms = self.now_ms;
        let Some(client) = self.client(reply_to.client) else { return };
        let open = client.callbacks.len();
        let fired = client.callbacks.take(id, now_ms);
        let closed = open - client.callbacks.len();
        self.metrics.gauges.sub(Gauge::CallbacksOpen, closed as u64);
        let Some(fired) = fired else {
            self.metrics.counters.add(Counter::CallbacksUnknown, 1);
            self.metrics.counters.add(Counter::CallbacksExpired, closed as u64);
            return self.answer(0, reply_to, Answer::error(404, "callback doesn't exist"));
        };
        self.metrics.counters.add(Counter::CallbacksFired, 1);
        let reply = Reply { client: reply_to.client, data: data.as_str(), callback: reply_to.callback };
        let answer = match fired.run {
            Some(run) => self.apps.runner().call(fired.app, run, reply),
            None => Answer::ok(),
        };
        self.apply_commands(fired.app);
        self.answer(fired.app, reply_to, answer);
    }

    fn run_after(&mut self, time: Duration, once: Once) {
        let once = self.onces.insert(once) as u32;
        self.timers.insert(self.ms_in(time), DueTimer::Once(once));
    }
}
