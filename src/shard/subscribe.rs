//! Subscribing and unsubscribing: the limit, the application's decision, the answer, and the messages to other shards.

use super::directory::directory;
use super::messages::ShardMessage;
use super::recoveries::RecoveryStage;
use super::refusal_texts::{BUSY, NO_HISTORY, NO_MEMBERS};
use super::state::State;
use crate::app::{Answer, Decision, GivenOptions, Json, ReplyTo, Subscription, SubscriptionRule};
use crate::client::ClientId;
use crate::client::subscriptions::{DecisionOutcome, PathId, SubscribeOutcome, UnsubscribeOutcome};
use crate::event::path::Path;
use crate::metrics::{AppCounter, Counter};
use crate::qev::mesh::Class;
use std::time::Instant;

impl State {
    /// Handles `/qio/on` (protocol.md, section 4).
    pub fn subscribe_itself(
        &mut self,
        reply_to: ReplyTo,
        path: &Path,
        extra: &Json,
        options: Option<&GivenOptions>,
    ) {
        if self.access.has_rules() {
            if let Some(refusal) = self.refuse_subscription(reply_to.client, path) {
                return self.answer(0, reply_to, refusal);
            }
        }
        self.subscribe(reply_to, path, extra, options);
    }

    /// Subscribes a client. Rules do not apply: they are about what clients do themselves.
    pub fn subscribe(
        &mut self,
        reply_to: ReplyTo,
        path: &Path,
        extra: &Json,
        options: Option<&GivenOptions>,
    ) {
        let replay = options.and_then(|options| options.parsed.replay);
        if replay.is_some() && self.history_rule(path.as_ref()).is_none() {
            return self.answer(0, reply_to, Answer::error(400, NO_HISTORY));
        }
        let asks_for_members = options.is_some_and(|options| options.parsed.members);
        if asks_for_members && !self.access.tells_members(path.as_str()) {
            return self.answer(0, reply_to, Answer::error(400, NO_MEMBERS));
        }
        let Some((index, rest)) = self.apps.route(path.as_ref()) else {
            return self.answer(0, reply_to, Answer::refusal(404, None));
        };
        if matches!(self.apps.event(index).on, SubscriptionRule::Nobody) {
            return self.refuse(reply_to, index);
        }
        // If the client has unsubscribed meanwhile, the subscription ends with the next events.
        if self.is_catching_up(reply_to.client, path) {
            return self.answer(0, reply_to, Answer::error(420, BUSY));
        }
        // A broadcast that was accepted earlier does not reach the client that subscribes now.
        self.fan_out();
        let slot = reply_to.client.slot;
        let held = self.pubsub.held(slot);
        let id = match self.pubsub.on(slot, path) {
            SubscribeOutcome::InProgress => {
                return self.answer(0, reply_to, Answer::error(202, "subscription pending"));
            }
            SubscribeOutcome::Active if replay.is_some() => {
                return self.answer(0, reply_to, Answer::error(409, "already subscribed"));
            }
            SubscribeOutcome::Active => {
                if asks_for_members {
                    return self.watch_also(reply_to, path);
                }
                return self.answer(0, reply_to, Answer::ok());
            }
            SubscribeOutcome::Decide(id) => id,
        };
        // The first subscription to a path needs messages to the other shards, which may not keep up.
        let limit = if self.mesh.is_stuck() { Some(BUSY) } else { self.acquire_subscription(held).err() };
        if let Some(limit) = limit {
            self.pubsub.decide(slot, id, false);
            self.release_subscriptions(0);
            self.count(Counter::SubscriptionsRefusedLimit, 1);
            return self.answer(0, reply_to, Answer::error(420, limit));
        }
        let subscription = Subscription {
            client: reply_to.client,
            path: "",
            extra: rest,
            data: extra.as_str(),
            options: options.map_or("null", |options| options.text.as_str()),
            callback: reply_to.callback,
            id,
        };
        if asks_for_members {
            self.pubsub.ask_for_members(slot, id);
        }
        if let Some(from) = replay {
            self.recoveries.add(reply_to, id, path.clone(), from);
        }
        let app = self.apps.event(index).app as u32;
        if matches!(self.apps.event(index).on, SubscriptionRule::Ask(_)) {
            self.metrics.app(app).add(AppCounter::Events, 1);
        }
        let decision = self.apps.decide(&directory!(self), index, subscription);
        self.apply_commands(app);
        self.decided(reply_to, id, decision.unwrap_or(Decision::Fail(500)));
    }

    /// Acquires what the subscription that was just begun costs, for a client that has `held` others.
    ///
    /// # Errors
    ///
    /// The message for the client: a limit is reached.
    fn acquire_subscription(&mut self, held: usize) -> Result<(), &'static str> {
        const TOO_MANY: &str = "too many subscriptions";
        if held >= self.config.clients_subs_max {
            return Err(TOO_MANY);
        }
        self.shared.subscriptions.acquire(held).map_err(|_| TOO_MANY)?;
        let bytes = self.pubsub.uncharged_path_bytes(self.mesh.shards());
        if bytes > 0 && self.shared.path_bytes.acquire_many(bytes, held).is_err() {
            self.shared.subscriptions.release(1);
            return Err("too many bytes of paths");
        }
        self.pubsub.charge_path_bytes(bytes);
        Ok(())
    }

    /// Releases `n` subscriptions that have ended, and the paths that nobody here holds any more.
    pub fn release_subscriptions(&mut self, n: usize) {
        self.shared.subscriptions.release(n);
        let bytes = self.pubsub.take_freed_path_bytes(self.mesh.shards());
        if bytes > 0 {
            self.shared.path_bytes.release(bytes);
        }
    }

    /// Handles a decision that an application has made later than at `asked`: rules may have changed in the meantime.
    pub fn decided_later(
        &mut self,
        reply_to: ReplyTo,
        id: PathId,
        decision: Decision,
        asked: Option<Instant>,
    ) {
        let has_changed = self.access.has_changed_since(asked);
        let accepts = decision == Decision::Accept && self.connections.is_connected(reply_to.client);
        let is_allowed = || {
            let path = self.pubsub.pending_path(reply_to.client.slot, id);
            path.is_none_or(|path| self.still_allows(reply_to.client, path))
        };
        let decision = if has_changed && accepts && !is_allowed() { Decision::Fail(401) } else { decision };
        self.decided(reply_to, id, decision);
    }

    /// Handles an application's decision, made at once or later.
    pub fn decided(&mut self, reply_to: ReplyTo, id: PathId, decision: Decision) {
        if decision == Decision::Later {
            return;
        }
        if !self.connections.is_connected(reply_to.client) {
            return self.count(Counter::AnswersLateDropped, 1);
        }
        if let Some(recovery) = self.recoveries.get(reply_to.client, id) {
            match (recovery.stage, decision) {
                (RecoveryStage::Undecided(from), Decision::Accept) => {
                    return self.begin_recovery(reply_to.client, id, from);
                }
                (RecoveryStage::Undecided(_), _) => drop(self.recoveries.remove(reply_to.client, id)),
                // The application has decided twice.
                _ => return,
            }
        }
        self.fan_out();
        match self.pubsub.decide(reply_to.client.slot, id, decision == Decision::Accept) {
            DecisionOutcome::Subscribed { first } => {
                self.subscription_began(reply_to.client, id, first);
                self.answer(0, reply_to, Answer::ok());
            }
            DecisionOutcome::Unsubscribed { path } => {
                self.release_subscriptions(1);
                self.answer(0, reply_to, Answer::ok());
                self.run_off_hook(reply_to.client, &path);
            }
            DecisionOutcome::Refused { path } => {
                self.release_subscriptions(1);
                match (decision, self.apps.route(path.as_ref())) {
                    (Decision::Fail(code), routed) => {
                        let app = routed.map_or(0, |(index, _)| self.apps.event(index).app as u32);
                        self.answer(app, reply_to, Answer::refusal(code, None));
                    }
                    (_, Some((index, _))) => self.refuse(reply_to, index),
                    (_, None) => self.answer(0, reply_to, Answer::refusal(404, None)),
                }
            }
            // The application has decided twice: its hook has returned a decision, and a promise was kept too.
            DecisionOutcome::Unknown => {}
        }
    }

    /// Tells the other shards about an active subscription if it is the first one of its path, and the shard that keeps the
    /// members of the path if it has any.
    pub fn subscription_began(&mut self, client: ClientId, id: PathId, first: bool) {
        self.count(Counter::Subscribes, 1);
        if first {
            let path = self.pubsub.path(id).clone();
            self.tell_shards(&path, true);
        }
        self.begin_membership(client, id);
    }

    /// Handles `/qio/on` of a client that is subscribed already, and now asks for the members of the path too.
    fn watch_also(&mut self, reply_to: ReplyTo, path: &Path) {
        let id = self.pubsub.find(path.as_ref()).expect("the client is subscribed");
        if self.mesh.is_stuck() {
            return self.answer(0, reply_to, Answer::error(420, BUSY));
        }
        self.answer(0, reply_to, Answer::ok());
        self.watch_members(reply_to.client, id);
    }

    /// Handles `/qio/off` (protocol.md, section 4).
    pub fn unsubscribe(&mut self, reply_to: ReplyTo, path: &Path) {
        if self.apps.route(path.as_ref()).is_none() {
            return self.answer(0, reply_to, Answer::refusal(404, None));
        }
        self.fan_out();
        if let UnsubscribeOutcome::Unsubscribed { path, last, membership } =
            self.pubsub.off(reply_to.client.slot, path.as_ref())
        {
            self.release_subscriptions(1);
            self.end_membership(reply_to.client, &path, membership, false);
            self.subscription_ended(reply_to.client, &path, last);
        }
        self.answer(0, reply_to, Answer::ok());
    }

    /// Tells the application that an active subscription has ended, and the other shards if it was the path's last.
    pub fn subscription_ended(&mut self, client: ClientId, path: &Path, last: bool) {
        self.count(Counter::Unsubscribes, 1);
        if last {
            self.tell_shards(path, false);
        }
        self.run_off_hook(client, path);
    }

    pub fn run_off_hook(&mut self, client: ClientId, path: &Path) {
        let Some((index, extra)) = self.apps.route(path.as_ref()) else { return };
        self.apps.ended(&directory!(self), index, client, extra);
        self.apply_commands(self.apps.event(index).app as u32);
    }

    /// Answers 401, or 404 if the event handles children: there may be no event at a path below it.
    fn refuse(&mut self, reply_to: ReplyTo, index: u32) {
        self.count(Counter::SubscriptionsRefusedApp, 1);
        let code = if self.apps.event(index).children { 404 } else { 401 };
        self.answer(0, reply_to, Answer::refusal(code, None));
    }

    /// Tells the other shards that this one has subscribers for a path now, or no longer has any.
    ///
    /// At a shutdown, all shards lose all their subscribers, and do not tell each other: 54 shards with a thousand common
    /// paths would send three million messages. A broadcast to a shard without subscribers has no effect.
    fn tell_shards(&mut self, path: &Path, subscribed: bool) {
        if self.is_shutting_down() && !subscribed {
            return;
        }
        // The shard that numbers the path broadcasts to this one while clients recover.
        let kept = Some(path).filter(|path| !subscribed && self.recoveries.hold(path));
        let kept = kept.map(|path| self.shard_of_path(path.as_str()));
        for shard in self.mesh.others().filter(|shard| Some(*shard) != kept) {
            self.tell_shard(shard, path, subscribed);
        }
    }

    /// Tells another shard that this one has subscribers for a path now, or no longer has any.
    pub fn tell_shard(&mut self, shard: u16, path: &Path, subscribed: bool) {
        let message = ShardMessage::Interest { path: path.clone(), subscribed };
        self.send_to_shard(shard, message, Class::Control);
    }
}
