//! The commands of this shard's handlers, of other shards and of threads.

use super::connection::Stage;
use super::directory::directory;
use super::ending::Cause;
use super::frames::encode_for_one;
use super::messages::ShardMessage;
use super::pubsub::BroadcastKind;
use super::state::State;
use super::time::DueTimer;
use crate::app::{Answer, Callback, Command, Json, LocalCommand, Reply, ReplyTo};
use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use crate::event::path::{Path, PathRef};
use crate::metrics::{AppCounter, AppTiming, Counter};
use crate::protocol::Reason;
use crate::qev::mesh::Class;
use std::sync::Arc;

impl State {
    /// Applies the commands that code of application number `app` has queued, in order.
    pub fn apply_commands(&mut self, app: u32) {
        if !self.apps.has_commands() {
            return;
        }
        // Hooks and callbacks that run meanwhile queue their commands in a new list, which is applied before the rest.
        for command in self.apps.take_commands() {
            self.apply_local(app, command);
        }
    }

    /// Applies a command, or sends it to the shard of its client.
    pub fn apply(&mut self, app: u32, command: Command) {
        match command.client() {
            Some(client) if client.shard != self.mesh.shard() => {
                if client.shard < self.mesh.shards() {
                    // A send may be refused, so that no application can fill this shard's memory.
                    let is_send = matches!(command, Command::Send { .. });
                    if is_send && self.mesh.is_full(client.shard) {
                        return self.refuse_message(client.shard);
                    }
                    let class = if is_send { Class::Data } else { Class::Control };
                    self.send_to_shard(client.shard, ShardMessage::Command { app, command }, class);
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
                self.send(app, client, &path, data, callback)
            }
            LocalCommand::Subscribe { reply_to, path, extra, options } => {
                self.subscribe_itself(reply_to, &path, &extra, options.as_deref())
            }
            LocalCommand::ReadHistory { reply_to, path, before, limit } => {
                self.read_history(reply_to, path, before, limit)
            }
            LocalCommand::ReadMembers { reply_to, path } => self.read_members(reply_to, path),
            LocalCommand::Unsubscribe { reply_to, path } => self.unsubscribe(reply_to, &path),
            LocalCommand::Authenticate { reply_to, token } => self.authenticate(reply_to, &token),
            LocalCommand::RunCallback { reply_to, id, data } => self.fire(reply_to, id, &data),
            LocalCommand::SendText { client, text } => self.send_text(client, text),
            LocalCommand::After { time, run } => {
                let once = self.apps.add_once(app, run);
                self.time.set(self.time.ms_from_now(time), DueTimer::Once(once));
            }
        }
    }

    fn apply_here(&mut self, app: u32, command: Command) {
        match command {
            Command::Answer { reply_to, answer, promised } => {
                self.metrics.app(app).record(AppTiming::Answer, promised.elapsed());
                self.answer(app, reply_to, answer.into_local());
            }
            Command::Decide { reply_to, path, decision, promised } => {
                if let Some(promised) = promised {
                    self.metrics.app(app).record(AppTiming::Answer, promised.elapsed());
                }
                self.decided_later(reply_to, path, decision, promised);
            }
            Command::Send { client, path, data, callback } => {
                self.send(app, client, &path, data, callback.map(Callback::from));
            }
            Command::Broadcast { path, data } => self.broadcast(&path, data),
            Command::Close { client } => self.close_client(client),
        }
    }

    /// Sends an event to a client of this shard.
    pub fn send(&mut self, app: u32, id: ClientId, path: &Path, data: Json, callback: Option<Callback>) {
        let Some(slot) = self.connections.connection_of(id) else { return };
        let Ok(data) = data.verify() else { return self.refuse_data(path) };
        let callback = callback.map_or(0, |callback| self.issue(id, app, Some(callback)));
        self.queue_event(slot, path.as_str(), callback, data.as_str());
    }

    fn close_client(&mut self, id: ClientId) {
        if let Some(slot) = self.connections.connection_of(id) {
            self.end(slot, Cause::Reason(Reason::Application));
        }
    }

    /// Closes a client of this shard. A WebSocket client is told the reason, if there is one.
    pub fn close_client_with(&mut self, id: ClientId, reason: Option<&Arc<str>>) {
        let Some(slot) = self.connections.connection_of(id) else { return };
        let connection = self.connections.live(slot);
        if connection.is_socket() && connection.stage == Stage::Open {
            self.goodbye_texts.extend(reason.map(|reason| (slot, Arc::clone(reason))));
        }
        self.end(slot, Cause::Reason(Reason::Application));
    }

    fn send_text(&mut self, id: ClientId, text: &str) {
        let Some(slot) = self.connections.connection_of(id) else { return };
        let framing = self.connections.live(slot).framing;
        let bytes = encode_for_one(&self.protocol.compression, framing, text.len(), |out| {
            out.extend_from_slice(text.as_bytes());
        });
        self.queue_bytes(slot, bytes);
    }

    /// Fires a server callback that a client was offered.
    fn fire(&mut self, reply_to: ReplyTo, id: Option<u64>, data: &Json) {
        let Some(id) = id else {
            self.count(Counter::CallbacksUnknown, 1);
            return self.answer(0, reply_to, Answer::error(400, "invalid server callback id"));
        };
        let now_ms = self.time.sent_ms();
        let Some((fired, expired)) = self.connections.take_callback(reply_to.client, id, now_ms) else {
            return;
        };
        let Some(fired) = fired else {
            self.count(Counter::CallbacksUnknown, 1);
            if let Some(slot) = self.connections.connection_of(reply_to.client) {
                self.callbacks_expired(slot, expired);
            }
            return self.answer(0, reply_to, Answer::error(404, "callback doesn't exist"));
        };
        self.count(Counter::CallbacksFired, 1);
        let reply = Reply { client: reply_to.client, data: data.as_str(), callback: reply_to.callback };
        let answer = match fired.run {
            Some(run) => {
                self.metrics.app(fired.app).add(AppCounter::Events, 1);
                self.apps.call(&directory!(self), fired.app, run, reply)
            }
            None => Answer::ok(),
        };
        self.apply_commands(fired.app);
        let answer = self.answer_or_refusal(answer);
        self.answer(fired.app, reply_to, answer);
    }

    /// Broadcasts data to the subscribers on this shard and to the other shards with subscribers. All broadcasts start
    /// here. If too much waits for one of these shards, the broadcast is refused, and reaches nobody.
    pub fn broadcast(&mut self, path: &Path, data: Json) {
        self.count(Counter::Broadcasts, 1);
        if self.access.has_history() {
            if let Some(rule) = self.history_rule(path.as_ref()) {
                return self.broadcast_numbered(rule, path, data);
            }
        }
        let Some(id) = self.pubsub.find(path.as_ref()) else { return };
        let Ok(data) = data.verify() else { return self.refuse_data(path) };
        if let Some(full) = self.pubsub.remote(id).find(|shard| self.mesh.is_full(*shard)) {
            return self.refuse_message(full);
        }
        self.broadcast_to(id, data, self.time.now_ns(), BroadcastKind::Plain);
    }

    /// Returns a shard with subscribers for a path for which too much waits.
    pub fn full_shard(&self, path: PathRef<'_>) -> Option<u16> {
        let id = self.pubsub.find(path)?;
        self.pubsub.remote(id).find(|shard| self.mesh.is_full(*shard))
    }

    /// Broadcasts data that was accepted, on this shard or another one.
    pub fn broadcast_accepted(&mut self, path: &Path, data: Json, accepted_ns: u64, kind: BroadcastKind) {
        if let Some(id) = self.pubsub.find(path.as_ref()) {
            self.broadcast_to(id, data, accepted_ns, kind);
        }
    }

    #[inline]
    fn broadcast_to(&mut self, id: PathId, data: Json, accepted_ns: u64, kind: BroadcastKind) {
        if self.busiest.is_counting() {
            self.count_broadcast(id);
        }
        self.distribute(id, data, accepted_ns, kind);
    }

    /// Sends data to the shards with subscribers, and queues it for those of this shard.
    #[inline]
    pub fn distribute(&mut self, id: PathId, data: Json, accepted_ns: u64, kind: BroadcastKind) {
        for shard in self.pubsub.remote(id) {
            // The text of the path is the one that subscriptions share.
            let path = self.pubsub.path(id).clone();
            let message = ShardMessage::Broadcast { path, data: data.clone(), accepted_ns, kind };
            self.send_to_shard(shard, message, Class::Data);
        }
        self.pubsub.queue(id, data, accepted_ns, kind);
    }

    /// Counts a broadcast for the operator who looks at the busiest paths.
    #[cold]
    #[inline(never)]
    fn count_broadcast(&mut self, id: PathId) {
        self.busiest.count(id, self.pubsub.path(id));
    }

    /// Puts this turn's broadcasts into the outboxes of their subscribers. Called at the end of the turn, and before a
    /// subscription changes or a connection ends: a broadcast reaches exactly the clients that were subscribed when
    /// it was accepted.
    #[inline]
    pub fn fan_out(&mut self) {
        if self.pubsub.has_broadcasts() {
            let compression = &self.protocol.compression;
            let messages = self.pubsub.fan_out(&mut self.connections, compression, self.time.now_ns());
            self.count(Counter::BroadcastDeliveries, messages);
            self.count(Counter::MessagesSent, messages);
        }
    }
}
