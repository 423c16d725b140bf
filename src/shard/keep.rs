//! Broadcasts to paths whose events are numbered and kept.
//!
//! One shard, which a hash of the path chooses, numbers the events of a path, keeps them and sends them to all shards with
//! subscribers. Therefore all subscribers get the same events in the same order.

use super::messages::ShardMessage;
use super::pubsub::BroadcastKind;
use super::state::State;
use crate::app::Json;
use crate::event::path::{Path, PathRef};
use crate::metrics::{NamedRule, RuleGauge};
use crate::qev::mesh::Class;

impl State {
    /// Returns the number of the rule that keeps the events of a path, if there is one.
    pub fn history_rule(&self, path: PathRef<'_>) -> Option<usize> {
        // Without a slash, the event with a number would have an ambiguous path.
        let has_slash = path.as_str().starts_with('/');
        self.access.history_rule(path.as_str()).filter(|_| has_slash)
    }

    /// Returns the shard that numbers the events of a path.
    pub fn shard_of_path(&self, path: &str) -> u16 {
        self.mesh.shard_of_hash(self.shared.hasher.hash_one(path))
    }

    /// Broadcasts an event to a path whose rule keeps events. If too much waits for a shard, the broadcast is refused.
    pub fn broadcast_numbered(&mut self, rule: usize, path: &Path, data: Json) {
        let Ok(data) = data.verify() else { return self.refuse_data(path) };
        let (to, accepted_ns) = (self.shard_of_path(path.as_str()), self.time.now_ns());
        if to == self.mesh.shard() {
            return self.number(rule, path, data, accepted_ns);
        }
        if self.mesh.is_full(to) {
            return self.refuse_message(to);
        }
        self.send_to_shard(to, ShardMessage::Keep { path: path.clone(), data, accepted_ns }, Class::Data);
    }

    /// Handles a broadcast that another shard has accepted, to a path that it thinks this shard numbers.
    pub fn keep_broadcast(&mut self, path: &Path, data: Json, accepted_ns: u64) {
        match self.history_rule(path.as_ref()) {
            Some(rule) => self.number(rule, path, data, accepted_ns),
            // The rules were changed meanwhile.
            None => match self.full_shard(path.as_ref()) {
                Some(full) => self.refuse_message(full),
                None => self.broadcast_accepted(path, data, accepted_ns, BroadcastKind::Plain),
            },
        }
    }

    /// Numbers and keeps an event, and broadcasts it. If too much waits for a shard with subscribers, the event is refused
    /// before it has a number: it reaches nobody.
    fn number(&mut self, rule: usize, path: &Path, data: Json, accepted_ns: u64) {
        if let Some(full) = self.full_shard(path.as_ref()) {
            return self.refuse_message(full);
        }
        let now_s = self.now_s();
        let at = self.replays.store.append(rule, path, data.to_shared(), now_s);
        self.broadcast_accepted(path, data, accepted_ns, BroadcastKind::Numbered(at));
    }

    /// Adds the events that are kept to the statistics of their rules.
    pub fn add_kept(&self, rules: &mut [NamedRule]) {
        for (number, rule) in rules.iter_mut().enumerate() {
            let kept = self.replays.store.totals_of(number);
            rule.set_gauge(RuleGauge::HistoryEvents, kept.events as u64);
            rule.set_gauge(RuleGauge::HistoryBytes, kept.bytes as u64);
        }
    }

    /// The time for the ages of events, in seconds.
    pub fn now_s(&self) -> u32 {
        u32::try_from(self.time.now_ms() / 1000).unwrap_or(u32::MAX)
    }
}
