//! The rules of a shard, the token buckets of its clients, and the progress of enforcing rules that have changed.

use super::addresses::CountedAddress;
use crate::client::ClientId;
use crate::history::HistoryBounds;
use crate::metrics::NamedRule;
use crate::rules::{Access, Buckets, Rate, RuleAction, RuleSet, Subject};
use std::sync::Arc;
use std::time::Instant;

/// The rules that apply to clients.
///
/// Invariants: `rates` has an entry for each rule; there are buckets if a rule has a rate.
pub(super) struct AccessControl {
    rules: Arc<RuleSet>,
    rates: Vec<RuleRates>,
    /// A rule keeps events.
    has_history: bool,
    /// A rule has members.
    has_members: bool,
    /// The buckets of clients, from the time on when a rule has a rate.
    buckets: Option<Box<Buckets>>,
    /// The place up to which subscriptions have been checked since the rules changed, or `None` if all of them have been.
    enforcing: Option<Enforcement>,
    /// The place up to which it was looked at whether subscribers are members, since the rules changed, or `None` if all of them
    /// have been.
    renewing: Option<Enforcement>,
    /// The time at which the rules were changed last.
    changed: Option<Instant>,
}

/// The rates of a rule, each with a number that stands for the rule and the rate in the keys of buckets.
#[derive(Clone, Copy, Default)]
struct RuleRates {
    client: Option<(Rate, u64)>,
    address: Option<(Rate, u64)>,
}

/// The judgement of the rules about an action of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RuleVerdict {
    /// No rule matches.
    Open,
    /// The rule with this number allows it.
    Allowed(usize),
    /// The rule with this number refuses it.
    Refused(usize),
}

/// The progress of checking all subscriptions, path by path, and the subscribers of each from the last to the first: when one
/// is removed, the last one takes its place, and has been checked.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Enforcement {
    /// The index of the path whose subscribers are checked.
    pub path: usize,
    /// The number of its subscribers that have not been checked, or `None` if none of them has been.
    pub unchecked: Option<usize>,
}

impl Enforcement {
    /// The place of the next path.
    pub fn next_path(self) -> Enforcement {
        Enforcement { path: self.path + 1, unchecked: None }
    }
}

impl AccessControl {
    pub fn new(rules: Arc<RuleSet>, addresses: &Buckets) -> AccessControl {
        let mut access = AccessControl {
            rules,
            rates: Vec::new(),
            has_history: false,
            has_members: false,
            buckets: None,
            enforcing: None,
            renewing: None,
            changed: None,
        };
        access.set_rates(addresses);
        access
    }

    /// Returns whether there are rules.
    #[inline]
    pub fn has_rules(&self) -> bool {
        !self.rates.is_empty()
    }

    /// Replaces the rules, and begins to enforce them. `addresses` are the buckets of addresses.
    pub fn set_rules(&mut self, rules: Arc<RuleSet>, addresses: &Buckets) {
        self.rules = rules;
        self.changed = Some(Instant::now());
        self.enforcing = self.has_rules_on().then(Enforcement::default);
        let had_members = self.has_members;
        self.set_rates(addresses);
        self.renewing = (had_members || self.has_members).then(Enforcement::default);
    }

    /// Returns whether the rules may have changed since this time, or at all if it is not known.
    pub fn has_changed_since(&self, time: Option<Instant>) -> bool {
        self.changed.is_some_and(|changed| time.is_none_or(|time| time <= changed))
    }

    /// Returns whether a rule keeps events.
    #[inline]
    pub fn has_history(&self) -> bool {
        self.has_history
    }

    /// Returns the number of the rule that keeps the events of a path, if there is one.
    pub fn history_rule(&self, path: &str) -> Option<usize> {
        let rules = self.rules.as_slice();
        self.rules.find(path).filter(|rule| rules[*rule].history.is_some())
    }

    /// Returns whether a rule has members.
    #[inline]
    pub fn has_members(&self) -> bool {
        self.has_members
    }

    /// Returns whether the members of a path are told to those who ask.
    pub fn tells_members(&self, path: &str) -> bool {
        let rules = self.rules.as_slice();
        self.has_members && self.rules.find(path).is_some_and(|rule| rules[rule].members)
    }

    /// Returns the path of each rule, and the bounds of the events that it keeps.
    pub fn histories(&self) -> impl Iterator<Item = (&str, Option<HistoryBounds>)> {
        self.rules.as_slice().iter().map(|rule| (rule.pattern.as_str(), rule.history))
    }

    /// Returns whether a rule may refuse a subscription.
    fn has_rules_on(&self) -> bool {
        self.rules.as_slice().iter().any(|rule| rule.on != Access::Anyone)
    }

    /// Numbers the rates. A rule that keeps its path and its rate keeps its number, and its clients their buckets.
    fn set_rates(&mut self, addresses: &Buckets) {
        let rules = self.rules.as_slice();
        if rules.iter().any(|rule| rule.rate.is_some()) {
            self.buckets.get_or_insert_default();
        }
        let number = |path: &str, rate: Option<Rate>| rate.map(|rate| (rate, addresses.number((path, rate))));
        let rates = rules.iter().map(|rule| RuleRates {
            client: number(rule.pattern.as_str(), rule.rate),
            address: number(rule.pattern.as_str(), rule.address_rate),
        });
        self.rates = rates.collect();
        self.has_history = rules.iter().any(|rule| rule.history.is_some());
        self.has_members = rules.iter().any(|rule| rule.members);
    }

    /// Judges an action of a client on a clean path.
    pub fn judge(&self, action: RuleAction, path: &str, subject: &Subject<'_>) -> RuleVerdict {
        match self.rules.find(path) {
            None => RuleVerdict::Open,
            Some(rule) if self.rules.allows(rule, action, path, subject) => RuleVerdict::Allowed(rule),
            Some(rule) => RuleVerdict::Refused(rule),
        }
    }

    /// Returns the clients to whom a rule allows an action.
    pub fn allowed(&self, rule: usize, action: RuleAction) -> Access {
        let rule = &self.rules.as_slice()[rule];
        match action {
            RuleAction::On => rule.on,
            RuleAction::Send => rule.send,
        }
    }

    /// Takes a token for an event of a client from the buckets of a rule, and returns whether they had one.
    #[inline]
    pub fn take(
        &self,
        rule: usize,
        client: ClientId,
        address: Option<CountedAddress>,
        addresses: &Buckets,
        now_ms: u64,
    ) -> bool {
        let RuleRates { client: of_client, address: of_address } = self.rates[rule];
        let now_us = now_ms.wrapping_mul(1000);
        if let Some((rate, number)) = of_client {
            let buckets = self.buckets.as_ref().expect("there are buckets if a rule has a rate");
            if !buckets.take(buckets.key((number, client.slot, client.generation)), rate, now_us) {
                return false;
            }
        }
        match of_address.zip(address) {
            Some(((rate, number), address)) => addresses.take(addresses.key((number, address)), rate, now_us),
            None => true,
        }
    }

    /// The memory of the buckets of clients, in bytes.
    pub fn bucket_bytes(&self) -> usize {
        self.buckets.as_ref().map_or(0, |buckets| buckets.bytes())
    }

    /// The number of buckets of clients that have made room for others.
    pub fn evicted(&self) -> u64 {
        self.buckets.as_ref().map_or(0, |buckets| buckets.evicted())
    }

    /// Returns the counters of these rules, with the counts that rules of the same paths have had before.
    pub fn counters(&self, before: &[NamedRule]) -> Vec<NamedRule> {
        let of_path = |path: &str| before.iter().find(|rule| &*rule.path == path).cloned();
        let paths = self.rules.as_slice().iter().map(|rule| rule.pattern.as_str());
        paths.map(|path| of_path(path).unwrap_or_else(|| NamedRule::new(path))).collect()
    }

    // Enforcing rules that have changed.

    /// The place at which checking subscriptions goes on, if not all of them have been checked.
    #[inline]
    pub fn enforcing(&self) -> Option<Enforcement> {
        self.enforcing
    }

    /// Sets the place at which checking subscriptions goes on; `None` if all of them have been checked.
    pub fn set_enforcing(&mut self, place: Option<Enforcement>) {
        self.enforcing = place;
    }

    /// The place at which subscribers become members or end to be members, if not all of them have been looked at.
    #[inline]
    pub fn renewing(&self) -> Option<Enforcement> {
        self.renewing
    }

    /// Sets that place; `None` if all have been looked at.
    pub fn set_renewing(&mut self, place: Option<Enforcement>) {
        self.renewing = place;
    }

    /// Asserts the invariants.
    pub fn check(&self, counters: &[NamedRule]) {
        let rules = self.rules.as_slice();
        assert_eq!(self.rates.len(), rules.len(), "each rule has its rates");
        let paths = rules.iter().map(|rule| rule.pattern.as_str());
        assert!(paths.eq(counters.iter().map(|rule| &*rule.path)), "each rule has its counters");
        let has_rate = rules.iter().any(|rule| rule.rate.is_some());
        assert!(!has_rate || self.buckets.is_some(), "there are buckets if a rule has a rate");
    }
}
