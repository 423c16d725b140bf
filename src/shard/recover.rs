//! Earlier events for clients: of a subscription, before the live ones, and by `/qio/history`.
//!
//! ```text
//!   the client's shard                                   the shard that numbers the path
//!   /qio/on with options; the application accepts
//!   Interest, AskEvents  ------------------------------>  reads the store
//!   answer, events, then live  <------------------------  Events
//! ```
//!
//! `Events` is a message of the class Data, as the broadcasts are, and cannot overtake them: those before it have numbers up to
//! its position, and those behind it have higher ones. The subscription becomes active when it is handled. So there is no gap
//! and no duplicate.
//!
//! A client gets a long replay in pieces, each after it has received the one before. Its subscription stays pending meanwhile,
//! and broadcasts do not reach it; the last piece is the one that ends at the position of its answer.

#[cfg(test)]
mod tests;

use super::frames::encode_event_for_one;
use super::messages::ShardMessage;
use super::numbered;
use super::recoveries::RecoveryStage;
use super::refusal_texts::{BUSY, NO_HISTORY};
use super::replays::{Ask, EventsAnswer, EventsQuestion, FoundEvents};
use super::state::State;
use crate::app::{Answer, Json, ReplyTo, SubscriptionRule};
use crate::client::ClientId;
use crate::client::subscriptions::{DecisionOutcome, EventForm, PathId};
use crate::event::path::Path;
use crate::history::{EventsPage, Position, Replay, ReplayFrom};
use crate::limits::{
    REPLAY_BYTES_MAX, REPLAY_EVENTS_MAX, REPLAYED_BYTES_PER_TURN_MAX, REPLAYED_PER_TURN_MAX,
};
use crate::metrics::{Counter, RuleCounter};
use crate::qev::mesh::Class;
use std::sync::Arc;

/// The number of recoveries that are looked at in a turn.
const LOOKED_AT_PER_TURN: usize = 256;

/// The cost of a question without events, in events.
const QUESTION_COST: usize = 2;

// On the shard that numbers the path.

impl State {
    /// Handles a question of a client of another shard, or of this one.
    pub fn asked_for_events(&mut self, from: u16, question: Box<EventsQuestion>) {
        if let Err(question) = self.replays.questions.push(from, question) {
            let EventsQuestion { reply_to, path, ask } = *question;
            self.answer_question(from, EventsAnswer { reply_to, path, ask, found: None });
        }
    }

    /// Answers the questions that wait, as far as a turn permits.
    #[inline]
    pub fn answer_questions(&mut self) {
        if !self.replays.questions.is_empty() {
            self.answer_some_questions();
        }
    }

    fn answer_some_questions(&mut self) {
        let (mut events, mut bytes) = (0, 0);
        while events < REPLAYED_PER_TURN_MAX && bytes < REPLAYED_BYTES_PER_TURN_MAX {
            let Some((to, question)) = self.replays.questions.pop() else { return };
            let EventsQuestion { reply_to, path, ask } = *question;
            let found = self.find_events(&path, ask);
            let answer = EventsAnswer { reply_to, path, ask, found };
            events += QUESTION_COST + answer.found.as_ref().map_or(0, |found| found.events.len());
            bytes += answer.bytes();
            self.answer_question(to, answer);
        }
    }

    /// Finds the events that a question is about. `None` if the rules were changed, and the path keeps none.
    fn find_events(&mut self, path: &Path, ask: Ask) -> Option<FoundEvents> {
        let rule = self.history_rule(path.as_ref())?;
        let now_s = self.now_s();
        let store = &mut self.replays.store;
        let found = match ask {
            Ask::Begin(_, from) => FoundEvents::some_of(store.replay(rule, path.as_ref(), from, now_s)),
            Ask::Go(_, position) => {
                let from = ReplayFrom { since: Some(position), last: Some(u32::MAX) };
                FoundEvents::some_of(store.replay(rule, path.as_ref(), from, now_s))
            }
            Ask::Page(before, limit) => {
                FoundEvents::last_of(store.page(rule, path.as_ref(), before, limit, now_s))
            }
        };
        if let Ask::Begin(_, ReplayFrom { since: Some(_), .. }) = ask {
            let counter = match found.is_complete {
                true => RuleCounter::RecoveriesComplete,
                false => RuleCounter::RecoveriesIncomplete,
            };
            self.metrics.rules[rule].add(counter, 1);
        }
        Some(found)
    }

    /// Returns at most `limit` events of a path that this shard numbers: the last ones, or those before a position. `None` if no
    /// rule keeps events of the path.
    pub fn page_of_events(
        &mut self,
        path: &Path,
        before: Option<Position>,
        limit: usize,
    ) -> Option<EventsPage> {
        let FoundEvents { at, first, events, .. } = self.find_events(path, Ask::Page(before, limit))?;
        Some(EventsPage { at, first, events })
    }

    fn answer_question(&mut self, to: u16, mut answer: EventsAnswer) {
        if to == self.mesh.shard() {
            return self.events_found(answer);
        }
        if self.mesh.is_full(to) {
            answer.found = None;
        }
        let class = if answer.found.is_some() { Class::Data } else { Class::Control };
        self.send_to_shard(to, ShardMessage::Events(Box::new(answer)), class);
    }
}

impl FoundEvents {
    /// The first events of a replay, as many as a client is sent at once.
    fn some_of(replay: Replay<'_>) -> FoundEvents {
        let Replay { at, is_complete, first, events } = replay;
        let (total, mut bytes) = (events.len() as u64, 0);
        let fits = |data: &&Arc<str>| {
            let is_first = bytes == 0;
            bytes += data.len() + size_of::<Arc<str>>();
            is_first || bytes <= REPLAY_BYTES_MAX
        };
        let events = events.take(REPLAY_EVENTS_MAX).take_while(fits).cloned().collect();
        FoundEvents { at, is_complete, first, total, events }
    }

    /// The last events of a page, as many as fit into an answer.
    fn last_of(page: Replay<'_>) -> FoundEvents {
        let Replay { at, is_complete, first, events } = page;
        let mut events: Vec<Arc<str>> = events.cloned().collect();
        let mut bytes = 0;
        let fits = |data: &&Arc<str>| {
            bytes += data.len();
            bytes <= REPLAY_BYTES_MAX
        };
        let fitting = events.iter().rev().take_while(fits).count().max(1).min(events.len());
        let dropped = events.len() - fitting;
        events.drain(..dropped);
        let (first, total) = (first + dropped as u64, fitting as u64);
        FoundEvents { at, is_complete: is_complete && dropped == 0, first, total, events }
    }
}

// On the shard of the client.

impl State {
    /// Asks for the events before a subscription that the application has accepted.
    pub fn begin_recovery(&mut self, client: ClientId, id: PathId, from: ReplayFrom) {
        let path = self.pubsub.path(id).clone();
        let numbers = self.shard_of_path(path.as_str());
        let is_new = self.pubsub.subscribers(id) == 0 && !self.recoveries.hold(&path);
        if is_new && numbers != self.mesh.shard() {
            self.tell_shard(numbers, &path, true);
        }
        self.recoveries.begin(client, id);
        self.ask_for_events(ReplyTo { client, callback: 0 }, path, Ask::Begin(id, from));
    }

    fn ask_for_events(&mut self, reply_to: ReplyTo, path: Path, ask: Ask) {
        let to = self.shard_of_path(path.as_str());
        let question = Box::new(EventsQuestion { reply_to, path, ask });
        if to == self.mesh.shard() {
            self.asked_for_events(to, question);
        } else {
            self.send_to_shard(to, ShardMessage::AskEvents(question), Class::Control);
        }
    }

    /// Handles events that a client of this shard has asked for.
    pub fn events_found(&mut self, answer: EventsAnswer) {
        let EventsAnswer { reply_to, path, ask, found } = answer;
        let client = reply_to.client;
        match ask {
            Ask::Page(..) => {
                // Events up to the position of the answer come before it.
                self.fan_out();
                self.answer(0, reply_to, page_answer(found));
            }
            Ask::Begin(id, _) | Ask::Go(id, _) if !self.connections.is_connected(client) => {
                self.end_recovery(client, id);
            }
            Ask::Begin(id, _) | Ask::Go(id, _) if self.pubsub.pending_path(client.slot, id).is_none() => {
                self.give_up_recovery(client, id);
            }
            Ask::Begin(id, _) => self.first_events_found(client, id, &path, found),
            Ask::Go(id, after) => self.more_events_found(client, id, &path, after, found),
        }
    }

    /// Ends the recovery of a client that has unsubscribed meanwhile.
    fn give_up_recovery(&mut self, client: ClientId, id: PathId) {
        self.fan_out();
        let recovery = self.recoveries.get(client, id).expect("a recovery waits for events");
        let reply_to = Some(recovery.reply_to).filter(|_| recovery.stage == RecoveryStage::Begun);
        if let DecisionOutcome::Unsubscribed { path } =
            self.pubsub.accept_in(client.slot, id, EventForm::Plain)
        {
            self.release_subscriptions(1);
            if let Some(reply_to) = reply_to {
                self.answer(0, reply_to, Answer::ok());
            }
            self.run_off_hook(client, &path);
        }
        self.end_recovery(client, id);
    }

    fn first_events_found(&mut self, client: ClientId, id: PathId, path: &Path, found: Option<FoundEvents>) {
        let reply_to = self.recoveries.get(client, id).expect("a recovery waits for events").reply_to;
        // Rules or the client's token may have changed meanwhile.
        let is_allowed = self.still_allows(client, path);
        let Some(found) = found.filter(|_| is_allowed) else {
            self.end_recovery(client, id);
            self.fan_out();
            if let DecisionOutcome::Refused { path } = self.pubsub.decide(client.slot, id, false) {
                self.release_subscriptions(1);
                self.run_off_hook(client, &path);
            }
            let answer = match (is_allowed, self.history_rule(path.as_ref())) {
                (false, _) => Answer::refusal(401, None),
                (true, None) => Answer::error(400, NO_HISTORY),
                (true, Some(_)) => Answer::error(420, BUSY),
            };
            return self.answer(0, reply_to, answer);
        };
        let FoundEvents { at, total, is_complete, .. } = &found;
        let data = format!(r#"{{"at":"{at}","events":{total},"complete":{is_complete}}}"#);
        self.fan_out();
        self.answer(0, reply_to, Answer::data(Json::trusted(&data)));
        self.send_events(client, id, path, &found);
    }

    fn more_events_found(
        &mut self,
        client: ClientId,
        id: PathId,
        path: &Path,
        after: Position,
        found: Option<FoundEvents>,
    ) {
        if !self.still_allows(client, path) {
            return self.revoke_recovery(client, id, path);
        }
        match found {
            Some(found) => {
                self.fan_out();
                let is_same = found.at.epoch == after.epoch;
                if !found.is_complete {
                    let lost = is_same.then(|| found.first - after.number - 1);
                    self.send_own_event(client, "/qio/lost", &numbered::lost_data(path.as_str(), lost));
                    self.count(Counter::ReplaysOutrun, 1);
                }
                if !is_same {
                    let before = Position { number: found.first - 1, ..found.at };
                    self.send_own_event(client, "/qio/at", &numbered::epoch_data(path.as_str(), before));
                }
                self.send_events(client, id, path, &found);
            }
            // The shard that numbers the path is told again.
            None if self.history_rule(path.as_ref()).is_some() => {
                self.recoveries.pace(client, id, after);
                self.recoveries.look_again();
            }
            None => self.revoke_recovery(client, id, path),
        }
    }

    /// Ends the subscription of a client that was told that it has one, but may not have it any more.
    fn revoke_recovery(&mut self, client: ClientId, id: PathId, path: &Path) {
        self.end_recovery(client, id);
        self.fan_out();
        if let DecisionOutcome::Refused { .. } = self.pubsub.decide(client.slot, id, false) {
            self.release_subscriptions(1);
        }
        if let Some(slot) = self.connections.connection_of(client) {
            self.tell_revoked(slot, path);
        }
        self.run_off_hook(client, path);
    }

    /// Sends events to a client. If they are the last ones before the live ones, its subscription becomes active.
    fn send_events(&mut self, client: ClientId, id: PathId, path: &Path, found: &FoundEvents) {
        let Some(slot) = self.connections.connection_of(client) else {
            return self.end_recovery(client, id);
        };
        let framing = self.connections.live(slot).framing;
        let mut bytes = Vec::new();
        for (number, data) in (found.first..).zip(&found.events) {
            let path = numbered::event_path(path.as_str(), number);
            bytes.extend(encode_event_for_one(&self.protocol.compression, framing, &path, 0, data));
        }
        let sent = found.events.len() as u64;
        self.count(Counter::EventsReplayed, sent);
        self.count(Counter::MessagesSent, sent);
        if !bytes.is_empty() {
            self.queue_bytes(slot, bytes);
        }
        if sent < found.total {
            let until = Position { number: found.first + sent - 1, ..found.at };
            return self.recoveries.pace(client, id, until);
        }
        self.fan_out();
        let outcome = self.pubsub.accept_in(client.slot, id, EventForm::Numbered);
        if let DecisionOutcome::Subscribed { first } = outcome {
            self.subscription_began(client, id, first);
        }
        self.end_recovery(client, id);
    }

    fn send_own_event(&mut self, client: ClientId, path: &str, data: &str) {
        if let Some(slot) = self.connections.connection_of(client) {
            self.queue_event(slot, path, 0, data);
        }
    }

    /// Goes on with the recoveries of clients that have received what they were sent.
    #[inline]
    pub fn go_on_with_recoveries(&mut self) {
        if self.has_recoveries_to_look_at() {
            self.look_at_recoveries();
        }
    }

    /// Returns whether clients may have received what they were sent, and the other shards keep up.
    #[inline]
    pub fn has_recoveries_to_look_at(&self) -> bool {
        self.recoveries.has_unseen() && !self.mesh.is_stuck()
    }

    fn look_at_recoveries(&mut self) {
        for _ in 0..LOOKED_AT_PER_TURN {
            let Some((client, id, position)) = self.recoveries.next_paced() else { return };
            let Some(slot) = self.connections.connection_of(client) else {
                self.end_recovery(client, id);
                continue;
            };
            let connection = self.connections.live(slot);
            if connection.outbox_bytes as usize > REPLAY_BYTES_MAX {
                self.recoveries.put_back(client, id);
                continue;
            }
            self.recoveries.ask(client, id, position);
            let path = self.pubsub.path(id).clone();
            self.ask_for_events(ReplyTo { client, callback: 0 }, path, Ask::Go(id, position));
        }
    }

    /// Returns whether a client gets earlier events of a path, and its request for them was answered.
    pub fn is_catching_up(&self, client: ClientId, path: &Path) -> bool {
        if self.recoveries.len() == 0 {
            return false;
        }
        let id = self.pubsub.find(path.as_ref());
        let recovery = id.and_then(|id| self.recoveries.get(client, id));
        recovery.is_some_and(|found| matches!(found.stage, RecoveryStage::Asked(_) | RecoveryStage::Paced(_)))
    }

    /// Ends a recovery whose client has disconnected, unless events were asked for: then it ends with them.
    pub fn abandon_recovery(&mut self, client: ClientId, id: PathId) {
        let stage = self.recoveries.get(client, id).map(|recovery| recovery.stage);
        if let Some(RecoveryStage::Undecided(_) | RecoveryStage::Paced(_)) = stage {
            self.end_recovery(client, id);
        }
    }

    /// Ends a recovery. If it was the last that counted as a subscriber, the shard that numbers the path is told.
    fn end_recovery(&mut self, client: ClientId, id: PathId) {
        let Some(path) = self.recoveries.remove(client, id) else { return };
        let has_subscribers =
            self.pubsub.find(path.as_ref()).is_some_and(|id| self.pubsub.subscribers(id) > 0);
        let numbers = self.shard_of_path(path.as_str());
        if !has_subscribers && numbers != self.mesh.shard() && !self.is_shutting_down() {
            self.tell_shard(numbers, &path, false);
        }
    }

    /// Handles `/qio/history`: reads events that are kept, without subscribing. A client may do so if it may subscribe. If
    /// an application decides about that, it must be subscribed.
    pub fn read_history(&mut self, reply_to: ReplyTo, path: Path, before: Option<Position>, limit: usize) {
        let problem = self.history_rule(path.as_ref()).is_none().then_some(NO_HISTORY);
        if let Some(refusal) = self.refuse_reading(reply_to.client, &path, problem) {
            return self.answer(0, reply_to, refusal);
        }
        if self.mesh.is_stuck() {
            return self.answer(0, reply_to, Answer::error(420, BUSY));
        }
        self.ask_for_events(reply_to, path, Ask::Page(before, limit));
    }

    /// Returns the answer to a client that may not read what is known of a path, or `None` if it may. The `problem` is the
    /// reason why nothing is known.
    pub fn refuse_reading(
        &mut self,
        client: ClientId,
        path: &Path,
        problem: Option<&'static str>,
    ) -> Option<Answer> {
        if self.access.has_rules() {
            if let Some(refusal) = self.refuse_subscription(client, path) {
                return Some(refusal);
            }
        }
        let Some((index, _)) = self.apps.route(path.as_ref()) else {
            return Some(Answer::refusal(404, None));
        };
        if let Some(problem) = problem {
            return Some(Answer::error(400, problem));
        }
        match self.apps.event(index).on {
            SubscriptionRule::Nobody => Some(Answer::refusal(401, None)),
            SubscriptionRule::Ask(_) if !self.pubsub.is_active(client.slot, path.as_ref()) => {
                Some(Answer::error(401, "subscribe first"))
            }
            _ => None,
        }
    }
}

/// Returns the answer with a page of events.
fn page_answer(found: Option<FoundEvents>) -> Answer {
    let Some(FoundEvents { at, first, events, .. }) = found else { return Answer::error(420, BUSY) };
    Answer::data(Json::trusted(&EventsPage { at, first, events }.to_json()))
}
