//! Subscriptions: asking the application, the limit, the answer, and telling the other shards.

use super::mail::ShardMessage;
use super::state::State;
use crate::app::{Answer, Decision, Json, ReplyTo, Subscription, SubscriptionRule};
use crate::client::ClientId;
use crate::client::subscriptions::{DecisionOutcome, PathId, SubscribeOutcome, UnsubscribeOutcome};
use crate::event::path::Path;
use crate::metrics::Counter;
use crate::qev::mesh::Class;

impl State {
    /// `/qio/on` (protocol.md, section 4).
    pub fn subscribe(&mut self, reply_to: ReplyTo, path: &Path, extra: &Json) {
        let Some((index, rest)) = self.apps.route(path.as_ref()) else {
            return self.answer(0, reply_to, Answer::refusal(404, None));
        };
        if matches!(self.apps.event(index).on, SubscriptionRule::Nobody) {
            return self.refuse(reply_to, index);
        }
        // Whoever was told of a broadcast before this moment is not the one that subscribes now.
        self.fan_out();
        let slot = reply_to.client.slot;
        let held = self.subscriptions.held(slot);
        let id = match self.subscriptions.subscribe(slot, path.as_ref()) {
            SubscribeOutcome::InProgress => return self.answer(0, reply_to, Answer::refusal(202, None)),
            SubscribeOutcome::Active => return self.answer(0, reply_to, Answer::ok()),
            SubscribeOutcome::Decide(id) => id,
        };
        // A first subscription to a path is told to the other shards, and those may not listen.
        let limit = if self.mesh_is_stuck() {
            Some("the server is busy")
        } else {
            self.shared.subscriptions.acquire(held).err().map(|_| "too many subscriptions")
        };
        if let Some(limit) = limit {
            self.subscriptions.decide(slot, id, false);
            self.metrics.counters.add(Counter::SubscriptionsRefusedLimit, 1);
            return self.answer(0, reply_to, Answer::error(420, limit));
        }
        let subscription = Subscription {
            client: reply_to.client,
            path: "",
            extra: rest,
            data: extra.as_str(),
            callback: reply_to.callback,
            id,
        };
        let decision = self.apps.decide(index, subscription);
        self.apply_commands(self.apps.event(index).app as u32);
        self.decided(reply_to, id, decision.unwrap_or(Decision::Fail(500)));
    }

    /// An application has decided, at once or later.
    pub fn decided(&mut self, reply_to: ReplyTo, id: PathId, decision: Decision) {
        if decision == Decision::Later {
            return;
        }
        if self.client(reply_to.client).is_none() {
            return self.metrics.counters.add(Counter::AnswersLateDropped, 1);
        }
        self.fan_out();
        match self.subscriptions.decide(reply_to.client.slot, id, decision == Decision::Accept) {
            DecisionOutcome::Subscribed { first } => {
                self.metrics.counters.add(Counter::Subscribes, 1);
                if first {
                    let path = self.subscriptions.path(id).clone();
                    self.tell_shards(&path, true);
                }
                self.answer(0, reply_to, Answer::ok());
            }
            DecisionOutcome::Unsubscribed { path } => {
                self.shared.subscriptions.release(1);
                self.answer(0, reply_to, Answer::ok());
                self.run_off_hook(reply_to.client, &path);
            }
            DecisionOutcome::Refused { path } => {
                self.shared.subscriptions.release(1);
                match (decision, self.apps.route(path.as_ref())) {
                    (Decision::Fail(code), _) => self.answer(0, reply_to, Answer::refusal(code, None)),
                    (_, Some((index, _))) => self.refuse(reply_to, index),
                    (_, None) => self.answer(0, reply_to, Answer::refusal(404, None)),
                }
            }
            // An application that has decided twice: by what its hook returned, and by a promise that it kept.
            DecisionOutcome::Unknown => {}
        }
    }

    /// `/qio/off` (protocol.md, section 4).
    pub fn unsubscribe(&mut self, reply_to: ReplyTo, path: &Path) {
        if self.apps.route(path.as_ref()).is_none() {
            return self.answer(0, reply_to, Answer::refusal(404, None));
        }
        self.fan_out();
        if let UnsubscribeOutcome::Unsubscribed { path, last } =
            self.subscriptions.unsubscribe(reply_to.client.slot, path.as_ref())
        {
            self.shared.subscriptions.release(1);
            self.subscription_ended(reply_to.client, &path, last);
        }
        self.answer(0, reply_to, Answer::ok());
    }

    /// An active subscription has ended: the application is told, and the other shards where it was the last.
    pub fn subscription_ended(&mut self, client: ClientId, path: &Path, last: bool) {
        self.metrics.counters.add(Counter::Unsubscribes, 1);
        if last {
            self.tell_shards(path, false);
        }
        self.run_off_hook(client, path);
    }

    fn run_off_hook(&mut self, client: ClientId, path: &Path) {
        let Some((index, extra)) = self.apps.route(path.as_ref()) else { return };
        self.apps.ended(index, client, extra);
        self.apply_commands(self.apps.event(index).app as u32);
    }

    /// 401, or 404 where the event handles children: a path below it may be no event at all.
    fn refuse(&mut self, reply_to: ReplyTo, index: u32) {
        self.metrics.counters.add(Counter::SubscriptionsRefusedApp, 1);
        let code = if self.apps.event(index).children { 404 } else { 401 };
        self.answer(0, reply_to, Answer::refusal(code, None));
    }

    /// Tells the other shards that this one has subscribers for a path now, or no longer.
    fn tell_shards(&mut self, path: &Path, subscribed: bool) {
        for shard in 0..self.port.shards() as u16 {
            if shard != self.id {
                self.mail(shard, ShardMessage::Interest { path: path.clone(), subscribed }, Class::Control);
            }
        }
    }
}
