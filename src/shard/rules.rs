//! Rules: before an event is handled, before an application is asked about a subscription, and for the subscriptions that
//! exist when rules change.

#[cfg(test)]
mod tests;

use super::access::{Enforcement, RuleVerdict};
use super::addresses::CountedAddress;
use super::state::State;
use crate::app::{Answer, Json, ReplyTo};
use crate::client::ClientId;
use crate::client::subscriptions::{PathId, Subscriber, UnsubscribeOutcome};
use crate::event::path::{Path, PathRef};
use crate::identity::Identity;
use crate::metrics::RuleCounter;
use crate::rules::{Access, RuleAction, RuleSet, Subject};
use std::sync::Arc;

/// The number of paths and subscriptions that are checked in one turn after rules have changed, and of subscriptions that
/// end in it for eight times as much each: they take about a millisecond.
const CHECKED_PER_TURN_MAX: usize = 8192;

/// The cost of ending a subscription, in subscriptions checked.
const ENDING_COST: usize = 8;

impl State {
    /// Returns the answer to an event that the rules refuse, or `None` if it may be handled.
    pub fn refuse_event(&mut self, slot: u32, reply_to: ReplyTo, path: PathRef<'_>) -> Option<Answer> {
        if is_own(path) {
            return None;
        }
        let subject = subject(self.identities.get(slot));
        match self.access.judge(RuleAction::Send, path.as_str(), &subject) {
            RuleVerdict::Open => None,
            RuleVerdict::Allowed(rule) => {
                let address = CountedAddress::of_peer(self.connections.live(slot).peer);
                let (addresses, now_ms) = (&self.shared.address_buckets, self.time.now_ms());
                if self.access.take(rule, reply_to.client, address, addresses, now_ms) {
                    return None;
                }
                self.metrics.rules[rule].add(RuleCounter::EventsLimited, 1);
                Some(Answer::error(420, "rate limit"))
            }
            RuleVerdict::Refused(rule) => {
                self.metrics.rules[rule].add(RuleCounter::EventsRefused, 1);
                Some(self.refusal(rule, RuleAction::Send, slot))
            }
        }
    }

    /// Returns the answer to a request to subscribe that the rules refuse, or `None` if the application may be asked.
    pub fn refuse_subscription(&mut self, client: ClientId, path: &Path) -> Option<Answer> {
        // An application may have ended the connection meanwhile.
        let slot = self.connections.connection_of(client)?;
        let RuleVerdict::Refused(rule) = self.judge_subscription(slot, path) else { return None };
        self.metrics.rules[rule].add(RuleCounter::SubscriptionsRefused, 1);
        Some(self.refusal(rule, RuleAction::On, slot))
    }

    /// Judges a subscription of a connection's client. The server's own paths cannot be subscribed to.
    fn judge_subscription(&self, slot: u32, path: &Path) -> RuleVerdict {
        self.access.judge(RuleAction::On, path.as_str(), &subject(self.identities.get(slot)))
    }

    /// Returns the answer of a rule that refuses. A client that could be allowed with a token is told so.
    fn refusal(&self, rule: usize, action: RuleAction, slot: u32) -> Answer {
        let needs_user = !matches!(self.access.allowed(rule, action), Access::Anyone | Access::Nobody);
        let is_unknown = self.identities.get(slot).is_none();
        Answer::error(401, if needs_user && is_unknown { "authenticate first" } else { "not allowed" })
    }

    // Rules that have changed.

    /// Replaces the rules. Subscriptions that they do not allow end in this turn and the next ones.
    pub fn set_rules(&mut self, rules: Arc<RuleSet>) {
        self.access.set_rules(rules, &self.shared.address_buckets);
        self.metrics.rules = self.access.counters(&self.metrics.rules);
        self.replays.store.set_rules(self.access.histories());
    }

    /// Returns whether subscriptions have to be checked, and workers and other shards keep up with the ends of them.
    pub fn can_enforce_rules(&self) -> bool {
        let has_to = self.access.enforcing().is_some() || !self.grant_checks.is_empty();
        has_to && !self.links.are_full() && !self.mesh.is_stuck()
    }

    /// Checks subscriptions after rules or tokens have changed, as many as a turn permits, and ends those that are not allowed.
    pub fn enforce_rules(&mut self) {
        let mut budget = CHECKED_PER_TURN_MAX;
        while budget > 0 && self.can_enforce_rules() {
            let refused = match self.access.enforcing() {
                Some(_) => self.next_refused(&mut budget),
                None => self.next_not_granted(&mut budget),
            };
            if let Some((slot, path)) = refused {
                self.revoke(slot, &path);
                budget = budget.saturating_sub(ENDING_COST);
            }
        }
    }

    /// Goes on to the next subscription that is not allowed, and returns its connection and path, or `None` at the end of the
    /// budget or if there is none.
    fn next_refused(&mut self, budget: &mut usize) -> Option<(u32, Path)> {
        let mut place = self.access.enforcing()?;
        while *budget > 0 && place.path < self.pubsub.path_ids() {
            *budget -= 1;
            let refused = self.check_place(&mut place);
            self.access.set_enforcing(Some(place));
            if refused.is_some() {
                return refused;
            }
        }
        // Paths at the end may have been removed meanwhile.
        if place.path >= self.pubsub.path_ids() {
            self.access.set_enforcing(None);
        }
        None
    }

    /// Checks the subscription at a place, and moves the place on.
    fn check_place(&self, place: &mut Enforcement) -> Option<(u32, Path)> {
        let (path, subscriber) = self.next_subscription(place)?;
        // Subscriptions of clients that have disconnected end anyway.
        let slot = self.connections.connection_of_subscriber(subscriber.client())?;
        match self.judge_subscription(slot, path) {
            // Nobody's subscription to this path is refused.
            RuleVerdict::Open => *place = place.next_path(),
            RuleVerdict::Allowed(rule) if self.access.allowed(rule, RuleAction::On) == Access::Anyone => {
                *place = place.next_path()
            }
            RuleVerdict::Allowed(_) => {}
            RuleVerdict::Refused(_) => return Some((slot, path.clone())),
        }
        None
    }

    /// Returns the subscription at a place, and moves the place on: to the one before it, or to the next path if none is left.
    pub fn next_subscription(&self, place: &mut Enforcement) -> Option<(&Path, Subscriber)> {
        let found = self.pubsub.subscribers_at(place.path).and_then(|(path, subscribers)| {
            // Others may have unsubscribed since the last turn.
            let unchecked = place.unchecked.unwrap_or(usize::MAX).min(subscribers.len());
            let last = unchecked.checked_sub(1)?;
            place.unchecked = Some(last);
            Some((path, subscribers[last]))
        });
        if found.is_none() {
            *place = place.next_path();
        }
        found
    }

    /// Goes on to the next subscription that only an earlier token of its client has granted, and returns its connection and
    /// path; those that see the members of the paths are told of the new token. Returns `None` at the end of the budget or of a client's subscriptions.
    fn next_not_granted(&mut self, budget: &mut usize) -> Option<(u32, Path)> {
        *budget -= 1;
        if let Some(slot) = self.grant_checks.take_waiting() {
            let client = self.connections.client_of(slot)?;
            self.grant_checks.begin(slot, self.pubsub.path_ids_of(client.slot));
        }
        while let Some((slot, id)) = self.grant_checks.next_path() {
            self.identify_member(slot, id);
            if let Some(path) = self.not_granted(slot, id) {
                return Some((slot, path));
            }
            *budget = budget.checked_sub(1)?;
        }
        None
    }

    /// Returns a path if the token of a connection's client has to grant it, and does not.
    fn not_granted(&self, slot: u32, id: PathId) -> Option<Path> {
        let client = self.connections.client_of(slot)?;
        self.connections.connection_of(client)?;
        let path = self.pubsub.path_in_use(id)?;
        let RuleVerdict::Refused(rule) = self.judge_subscription(slot, path) else { return None };
        let needs_grant = self.access.allowed(rule, RuleAction::On) == Access::Granted;
        (needs_grant && self.pubsub.is_wanted(client.slot, path.as_ref())).then(|| path.clone())
    }

    /// Ends a subscription that is not allowed any more, and tells its client.
    fn revoke(&mut self, slot: u32, path: &Path) {
        let client = self.connections.client_of(slot).expect("a connected subscriber is a client");
        self.fan_out();
        let outcome = self.pubsub.off(client.slot, path.as_ref());
        if outcome == UnsubscribeOutcome::Tombstoned {
            // The application has not decided yet, and its decision has no effect any more.
            return self.tell_revoked(slot, path);
        }
        if let UnsubscribeOutcome::Unsubscribed { path, last, membership } = outcome {
            if let RuleVerdict::Refused(rule) = self.judge_subscription(slot, &path) {
                self.metrics.rules[rule].add(RuleCounter::SubscriptionsEnded, 1);
            }
            self.release_subscriptions(1);
            self.tell_revoked(slot, &path);
            self.end_membership(client, &path, membership, false);
            self.subscription_ended(client, &path, last);
        }
    }

    /// Tells a client that a subscription, which it was told that it has, is not allowed any more.
    pub fn tell_revoked(&mut self, slot: u32, path: &Path) {
        self.queue_event(slot, "/qio/off", 0, Json::string(path.as_str()).as_str());
    }

    /// Returns whether the rules still allow a subscription that an application has accepted later.
    pub fn still_allows(&self, client: ClientId, path: &Path) -> bool {
        let slot = self.connections.connection_of(client).filter(|_| self.access.has_rules());
        slot.is_none_or(|slot| !matches!(self.judge_subscription(slot, path), RuleVerdict::Refused(_)))
    }
}

/// Returns whether a path is one of the server's own, which rules do not apply to.
fn is_own(path: PathRef<'_>) -> bool {
    path.as_str().starts_with("/qio/")
}

/// Returns a client as the rules see it.
fn subject(identity: Option<&Arc<Identity>>) -> Subject<'_> {
    match identity {
        Some(identity) => Subject { user: Some(&identity.user), on: &identity.on, send: &identity.send },
        None => Subject::default(),
    }
}
