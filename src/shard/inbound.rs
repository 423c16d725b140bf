//! Handling of messages from other shards and from threads.

use super::Inboxes;
use super::codecs::Codecs;
use super::kernel::RingOp;
use super::mesh::{SHARD, THREADS};
use super::messages::{AppCommand, ControlMessage, ShardMessage};
use super::state::State;
use crate::metrics::{Counter, Timing};
use crate::qev::mesh::Class;

/// The number of messages taken from an inbox in one turn, so that busy threads cannot starve the shard's own clients.
const INBOX_MESSAGES_PER_TURN_MAX: usize = 4096;

impl State {
    /// Sends a message to another shard. Never waits.
    pub fn send_to_shard(&mut self, to: u16, message: ShardMessage, class: Class) {
        self.mesh.send(to, message, class, self.time.now_ns());
    }

    /// Handles the messages from other shards and from threads.
    ///
    /// A thread may act because a client has been told that it is subscribed on another shard. The commands of threads
    /// are therefore gathered before the mesh is drained, which delivers the message about that subscription, and
    /// applied after it. If they cause more than their share of the messages that wait for other shards, the rest of them
    /// is applied later, and no more are taken from the inbox.
    ///
    /// Messages of the server's own threads come before the mesh: a shard that has begun later than others gets its links to
    /// workers before the requests of their connections.
    pub fn handle_messages(&mut self, codecs: &mut Codecs, inboxes: &mut Inboxes) {
        if !self.threads_must_wait() {
            let take = |command| self.app_commands.push_back(command);
            let received = inboxes.app_commands.receive(INBOX_MESSAGES_PER_TURN_MAX, take);
            self.has_found |= received > 0;
            self.count(Counter::InboxReceived, received as u64);
        }
        self.gather_api_messages(&mut inboxes.api);
        inboxes.control.receive(INBOX_MESSAGES_PER_TURN_MAX, |message| self.handle_control(message));
        self.handle_mesh(codecs);
        while !self.mesh.is_over(THREADS) {
            let Some(AppCommand { app, command }) = self.app_commands.pop_front() else { break };
            self.mesh.begin(THREADS);
            self.apply(app, command);
        }
        self.handle_api_messages();
    }

    fn handle_mesh(&mut self, codecs: &mut Codecs) {
        // At most as many messages as all rings hold, because messages about subscriptions must not wait for another
        // turn.
        let max = usize::from(self.mesh.shards()) * self.config.mesh_ring_messages;
        let mut received = self.mesh.receive(max);
        self.has_found |= !received.is_empty();
        for (from, envelope) in received.drain(..) {
            let hop_ns = self.time.now_ns().saturating_sub(envelope.sent_ns);
            self.metrics.latencies.record(Timing::MeshHop, hop_ns);
            self.handle_message(codecs, from, envelope.message);
        }
        self.mesh.reuse(received);
    }

    fn handle_message(&mut self, codecs: &mut Codecs, from: u16, message: ShardMessage) {
        self.mesh.begin(SHARD);
        match message {
            ShardMessage::Broadcast { path, data, accepted_ns, kind } => {
                if let Some(path) = self.pubsub.find(path.as_ref()) {
                    self.pubsub.queue(path, data, accepted_ns, kind);
                }
            }
            ShardMessage::Keep { path, data, accepted_ns } => self.keep_broadcast(&path, data, accepted_ns),
            ShardMessage::AskEvents(question) => self.asked_for_events(from, question),
            ShardMessage::Events(answer) => self.events_found(*answer),
            ShardMessage::Member { path, client, news } => self.member_told(&path, client, news),
            ShardMessage::MembersList(list) => self.list_came(*list),
            ShardMessage::AskMembers(question) => self.asked_for_members(from, question),
            ShardMessage::Members(answer) => self.members_found(*answer),
            ShardMessage::ListMembers { path, round } => self.list_members(from, path, round),
            ShardMessage::MembersOfShard(members) => self.shard_listed(from, *members),
            ShardMessage::Interest { path, subscribed: true } => self.pubsub.remote_on(&path, from),
            ShardMessage::Interest { path, subscribed: false } => self.pubsub.remote_off(&path, from),
            ShardMessage::Command { app, command } => self.apply(app, command),
            ShardMessage::AddressAdded { address, connections, slot, generation } => {
                let share = self.addresses.add_reported(address, connections);
                let counted = ShardMessage::AddressCounted { slot, generation, share };
                self.send_to_shard(from, counted, Class::Control);
            }
            ShardMessage::AddressRemoved { address } => self.addresses.remove_reported(address),
            ShardMessage::AddressCounted { slot, generation, share } => {
                self.address_counted(codecs, slot, generation, share);
            }
            ShardMessage::Request(request) => {
                // As for requests of this shard's own connections; see `received`.
                self.finish_endings(codecs);
                self.handle_session_request(&request.as_request());
            }
            ShardMessage::RequestLost { request_id, sid, how } => {
                self.handle_lost_request(sid, request_id, how);
            }
            ShardMessage::Response(request_id, part) => self.deliver(codecs, request_id, *part),
        }
    }

    fn handle_control(&mut self, message: ControlMessage) {
        match message {
            // The receiver may have given up.
            ControlMessage::Snapshot(mut reply) => drop(reply.try_send((self.mesh.shard(), self.snapshot()))),
            ControlMessage::Inspect(inspection) => self.inspect(inspection),
            ControlMessage::Workers(event) => self.handle_worker_event(event),
            ControlMessage::Shutdown { deadline_ns } => self.begin_shutdown(deadline_ns),
            ControlMessage::Rules(rules) => self.set_rules(rules),
            ControlMessage::Tls(config) => self.listeners.set_tls(config),
            ControlMessage::AuthKeys(keys) => self.auth.set_keys(keys),
            ControlMessage::TokenVerified(verified) => self.token_verified(*verified),
            ControlMessage::ClockMoved(reply) => {
                self.time.read_clock();
                self.clock_was_read();
                self.clock_watchers.push(reply);
            }
        }
    }

    fn begin_shutdown(&mut self, deadline_ns: u64) {
        self.shutdown_deadline_ns = Some(deadline_ns);
        self.acceptor.stop();
        self.ring_ops.push(RingOp::StopListening);
        self.shutdown_from = Some(0);
    }

    /// Replies to the tests that have moved the clock, because the timers that became due have run.
    pub fn notify_clock_watchers(&mut self) {
        let has_none = self.clock_watchers.is_empty();
        if has_none || self.time.is_behind() || self.time.is_marking() || self.stalls.is_checking() {
            return;
        }
        for mut watcher in self.clock_watchers.drain(..) {
            // The receiver may have given up.
            let _ = watcher.try_send(());
        }
    }
}
