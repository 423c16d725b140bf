//! The events of all paths of one shard, within a bound in bytes.

#[cfg(test)]
mod tests;

use super::path_history::{Events, NONE, PathHistory};
use super::position::{Epoch, Position};
use super::{HistoryBounds, ReplayFrom};
use crate::event::path::{Path, PathRef};
use ahash::AHashMap;
use std::sync::Arc;

/// The last events of the paths of one shard.
///
/// When its memory is full, the path that was not used for the longest time is evicted: its epoch ends. Paths of the rule
/// that has the most memory are evicted first, so that many new paths of one rule do not cost another rule its events.
///
/// A path without an entry needs no memory, but has a position: `0` in the epoch `void`. An entry begins in that epoch, which
/// is replaced at every eviction. Therefore, a path that is still in the epoch of such a position has lost no event since: if it
/// had, its entry was evicted in between.
///
/// Invariants, asserted by [`check`](Store::check):
///
/// - `index` finds each entry by its path, and has nothing else;
/// - each entry is once in the list of its share, whose `events` and `bytes` are the sums of those of its entries;
/// - `bytes` is the sum over all shares, and at most `bytes_max` unless a single entry without events costs more.
#[derive(Debug)]
pub struct Store {
    bytes_max: usize,
    entries: Vec<Option<Box<PathHistory>>>,
    vacant: Vec<u32>,
    index: AHashMap<Path, u32>,
    /// One for each rule that keeps events, and for those that have been removed while paths of theirs are left.
    shares: Vec<Share>,
    /// The share of each rule that keeps events, by the number of the rule.
    of_rule: Vec<Option<u32>>,
    bytes: usize,
    evicted: u64,
    void: Epoch,
    random: u64,
    /// The index of the entry that is swept next.
    swept: usize,
}

/// The entries of a rule.
#[derive(Debug)]
struct Share {
    /// The path of the rule.
    rule: Box<str>,
    /// `None` if the rule was removed or keeps no events any more.
    bounds: Option<HistoryBounds>,
    /// The ends of the list of entries: those that were used last, and not for the longest time.
    newest: u32,
    oldest: u32,
    events: usize,
    bytes: usize,
}

/// The answer to a client that asks for events.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    /// The position behind the last event of the path.
    pub at: Position,
    /// The events are all that the client has missed.
    pub is_complete: bool,
    /// The number of the first of the events.
    pub first: u64,
    /// The events.
    pub events: Events<'a>,
}

/// The contents of a store, or of one rule in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredTotals {
    /// The number of events.
    pub events: usize,
    /// Their cost and that of their paths, in bytes.
    pub bytes: usize,
}

impl Store {
    /// Returns an empty store with room for this many bytes. The names of its epochs are made from `random`.
    #[must_use]
    pub fn new(bytes_max: usize, random: u64) -> Store {
        let mut store = Store {
            bytes_max,
            entries: Vec::new(),
            vacant: Vec::new(),
            index: AHashMap::new(),
            shares: Vec::new(),
            of_rule: Vec::new(),
            bytes: 0,
            evicted: 0,
            void: Epoch::from_random(0),
            random,
            swept: 0,
        };
        store.renew_void();
        store
    }

    /// Replaces the rules: for each in its order, its path, and the bounds of its events if it keeps any. Events of a rule
    /// that keeps none any more are dropped by [`Store::sweep`].
    pub fn set_rules<'a>(&mut self, rules: impl Iterator<Item = (&'a str, Option<HistoryBounds>)>) {
        self.shares.iter_mut().for_each(|share| share.bounds = None);
        self.of_rule.clear();
        for (rule, bounds) in rules {
            let share = bounds.map(|bounds| self.share_for(rule, bounds));
            self.of_rule.push(share);
        }
    }

    fn share_for(&mut self, rule: &str, bounds: HistoryBounds) -> u32 {
        let same = self.shares.iter().position(|share| &*share.rule == rule);
        let is_unused = |share: &Share| share.bounds.is_none() && share.newest == NONE;
        let index = same.or_else(|| self.shares.iter().position(is_unused)).unwrap_or_else(|| {
            self.shares.push(Share::new());
            self.shares.len() - 1
        });
        let share = &mut self.shares[index];
        (share.rule, share.bounds) = (rule.into(), Some(bounds));
        index as u32
    }

    /// Returns whether the rule with this number keeps events.
    #[must_use]
    pub fn keeps(&self, rule: usize) -> bool {
        self.of_rule.get(rule).is_some_and(Option::is_some)
    }

    /// Numbers and keeps an event of a path to which a rule applies that keeps events. Times are in seconds, and never
    /// go back.
    ///
    /// # Panics
    ///
    /// Panics if the rule keeps no events.
    pub fn append(&mut self, rule: usize, path: &Path, data: Arc<str>, now_s: u32) -> Position {
        let share = self.of_rule[rule].expect("the rule keeps events");
        let index = match self.index.get(path.as_ref().as_str()) {
            Some(&index) => index,
            None => self.add(share, path),
        };
        self.use_entry(index, share);
        let bounds = self.shares[share as usize].bounds.expect("the share has a rule");
        let at = self.change(index, |entry| {
            entry.expire(bounds, now_s);
            entry.push(data, now_s, bounds)
        });
        self.make_room(index);
        at
    }

    /// Returns the events of a path that a client asks for.
    ///
    /// # Panics
    ///
    /// Panics if the rule keeps no events.
    pub fn replay(&mut self, rule: usize, path: PathRef<'_>, from: ReplayFrom, now_s: u32) -> Replay<'_> {
        let void = self.void_position();
        let Some(entry) = self.read(rule, path, now_s) else {
            let at = void;
            let is_complete = from.since.is_none_or(|since| since == at);
            return Replay { at, is_complete, first: 1, events: Events::default() };
        };
        let (at, first) = (entry.at(), entry.first());
        let from_last = |last: u32| (at.number + 1).saturating_sub(u64::from(last)).max(first);
        let (is_complete, from) = match from.since {
            Some(since) if since.epoch == at.epoch && (first - 1..=at.number).contains(&since.number) => {
                (true, since.number + 1)
            }
            Some(_) => (false, from.last.map_or(at.number + 1, from_last)),
            None => {
                let last = from.last.unwrap_or(0);
                let number = from_last(last);
                (number == 1 || at.number + 1 - number == u64::from(last), number)
            }
        };
        Replay { at, is_complete, first: from, events: entry.events(from, at.number + 1) }
    }

    /// Returns at most `limit` events of a path: the last ones, or those before a position. Those before a position that is
    /// not in this epoch are none.
    ///
    /// # Panics
    ///
    /// Panics if the rule keeps no events.
    pub fn page(
        &mut self,
        rule: usize,
        path: PathRef<'_>,
        before: Option<Position>,
        limit: usize,
        now_s: u32,
    ) -> Replay<'_> {
        let void = self.void_position();
        let Some(entry) = self.read(rule, path, now_s) else {
            let at = void;
            return Replay { at, is_complete: true, first: 1, events: Events::default() };
        };
        let at = entry.at();
        let end = match before {
            None => at.number + 1,
            Some(before) if before.epoch == at.epoch => before.number.clamp(entry.first(), at.number + 1),
            Some(_) => entry.first(),
        };
        let first = end.saturating_sub(limit as u64).max(entry.first());
        Replay { at, is_complete: first == 1, first, events: entry.events(first, end) }
    }

    /// Examines the next `max` entries: drops events that are too old, and paths whose rule keeps no events any more.
    pub fn sweep(&mut self, max: usize, now_s: u32) {
        for _ in 0..max.min(self.entries.len()) {
            let index = if self.swept < self.entries.len() { self.swept } else { 0 };
            self.swept = index + 1;
            let Some(entry) = &self.entries[index] else { continue };
            match self.shares[entry.share as usize].bounds {
                Some(bounds) => self.change(index as u32, |entry| entry.expire(bounds, now_s)),
                None => self.evict(index as u32),
            }
        }
    }

    /// The number of paths.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.index.len()
    }

    /// The number of events and bytes.
    #[must_use]
    pub fn totals(&self) -> StoredTotals {
        let events = self.shares.iter().map(|share| share.events).sum();
        StoredTotals { events, bytes: self.bytes }
    }

    /// The number of events and bytes of the rule with this number.
    #[must_use]
    pub fn totals_of(&self, rule: usize) -> StoredTotals {
        let share = self.of_rule.get(rule).copied().flatten().map(|share| &self.shares[share as usize]);
        share.map_or(StoredTotals::default(), |share| StoredTotals {
            events: share.events,
            bytes: share.bytes,
        })
    }

    /// The number of paths that were evicted.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn void_position(&self) -> Position {
        Position { epoch: self.void, number: 0 }
    }

    /// Finds the entry of a path, which is used now. Its events that are too old are dropped.
    fn read(&mut self, rule: usize, path: PathRef<'_>, now_s: u32) -> Option<&PathHistory> {
        let share = self.of_rule[rule].expect("the rule keeps events");
        let bounds = self.shares[share as usize].bounds.expect("the share has a rule");
        let index = *self.index.get(path.as_str())?;
        self.use_entry(index, share);
        self.change(index, |entry| entry.expire(bounds, now_s));
        Some(self.entry(index))
    }

    // Entries.

    fn entry(&self, index: u32) -> &PathHistory {
        self.entries[index as usize].as_ref().expect(IN_USE)
    }

    fn entry_mut(&mut self, index: u32) -> &mut PathHistory {
        self.entries[index as usize].as_mut().expect(IN_USE)
    }

    fn add(&mut self, share: u32, path: &Path) -> u32 {
        let entry = Box::new(PathHistory::new(path.clone(), share, self.void));
        let bytes = entry.bytes();
        let index = match self.vacant.pop() {
            Some(index) => {
                self.entries[index as usize] = Some(entry);
                index
            }
            None => {
                self.entries.push(Some(entry));
                u32::try_from(self.entries.len() - 1).expect("entries are bounded by their bytes")
            }
        };
        self.index.insert(path.clone(), index);
        self.link(index);
        self.shares[share as usize].bytes += bytes;
        self.bytes += bytes;
        index
    }

    /// Changes the events of an entry.
    fn change<T>(&mut self, index: u32, change: impl FnOnce(&mut PathHistory) -> T) -> T {
        let entry = self.entries[index as usize].as_mut().expect(IN_USE);
        let (events, bytes) = (entry.len(), entry.bytes());
        let result = change(entry);
        let share = &mut self.shares[entry.share as usize];
        share.events = share.events + entry.len() - events;
        share.bytes = share.bytes + entry.bytes() - bytes;
        self.bytes = self.bytes + entry.bytes() - bytes;
        result
    }

    /// Evicts paths, or drops the oldest events of this one, until everything is within the bound.
    fn make_room(&mut self, kept: u32) {
        while self.bytes > self.bytes_max {
            let fattest =
                self.shares.iter().max_by_key(|share| share.bytes).expect("the bytes are of a share");
            let mut victim = fattest.oldest;
            if victim == kept {
                // The only path of the share was used just now: it is also the newest.
                if self.change(kept, PathHistory::pop) {
                    continue;
                }
                let mut others = self.shares.iter().map(|share| share.oldest);
                let Some(other) = others.find(|oldest| *oldest != NONE && *oldest != kept) else {
                    return;
                };
                victim = other;
            }
            self.evict(victim);
        }
    }

    fn evict(&mut self, index: u32) {
        self.unlink(index);
        let entry = self.entries[index as usize].take().expect(IN_USE);
        let share = &mut self.shares[entry.share as usize];
        share.events -= entry.len();
        share.bytes -= entry.bytes();
        self.bytes -= entry.bytes();
        self.index.remove(entry.path.as_str());
        self.vacant.push(index);
        self.evicted += 1;
        self.renew_void();
    }

    /// Replaces the epoch of paths without an entry.
    fn renew_void(&mut self) {
        // The generator SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.void = Epoch::from_random(mixed ^ (mixed >> 31));
    }

    // Lists of entries.

    /// Moves an entry to the front of the list of a share, which may be another one than before.
    fn use_entry(&mut self, index: u32, share: u32) {
        let entry = self.entry(index);
        if entry.share == share && entry.newer == NONE {
            return;
        }
        let (before, events, bytes) = (entry.share, entry.len(), entry.bytes());
        self.unlink(index);
        self.entry_mut(index).share = share;
        self.link(index);
        for (share, sign) in [(before, false), (share, true)] {
            let share = &mut self.shares[share as usize];
            let add = |sum: usize, n: usize| if sign { sum + n } else { sum - n };
            (share.events, share.bytes) = (add(share.events, events), add(share.bytes, bytes));
        }
    }

    fn link(&mut self, index: u32) {
        let share = self.entry(index).share as usize;
        let second = std::mem::replace(&mut self.shares[share].newest, index);
        if second == NONE {
            self.shares[share].oldest = index;
        } else {
            self.entry_mut(second).newer = index;
        }
        let entry = self.entry_mut(index);
        (entry.newer, entry.older) = (NONE, second);
    }

    fn unlink(&mut self, index: u32) {
        let entry = self.entry(index);
        let (share, newer, older) = (entry.share as usize, entry.newer, entry.older);
        if newer == NONE {
            self.shares[share].newest = older;
        } else {
            self.entry_mut(newer).older = older;
        }
        if older == NONE {
            self.shares[share].oldest = newer;
        } else {
            self.entry_mut(older).newer = newer;
        }
    }

    /// Asserts the invariants. Linear in the number of paths and events.
    ///
    /// # Panics
    ///
    /// Panics if an invariant is broken.
    pub fn check(&self) {
        let mut listed = 0;
        for (number, share) in self.shares.iter().enumerate() {
            let (mut index, mut newer, mut events, mut bytes) = (share.newest, NONE, 0, 0);
            while index != NONE {
                let entry = self.entry(index);
                assert_eq!(
                    (entry.share as usize, entry.newer),
                    (number, newer),
                    "the list of {}",
                    share.rule
                );
                assert_eq!(
                    self.index.get(entry.path.as_str()),
                    Some(&index),
                    "the index must find {}",
                    entry.path
                );
                entry.check();
                (events, bytes, listed) = (events + entry.len(), bytes + entry.bytes(), listed + 1);
                (newer, index) = (index, entry.older);
            }
            assert_eq!(share.oldest, newer, "the end of the list of {}", share.rule);
            assert_eq!((share.events, share.bytes), (events, bytes), "the sums of {}", share.rule);
        }
        assert_eq!(listed, self.index.len(), "each entry is in a list");
        assert_eq!(listed + self.vacant.len(), self.entries.len(), "each place is used or vacant");
        assert_eq!(
            self.bytes,
            self.shares.iter().map(|share| share.bytes).sum::<usize>(),
            "`bytes` is the sum of all shares"
        );
        assert!(self.bytes <= self.bytes_max || self.index.len() <= 1, "{} bytes are too many", self.bytes);
    }
}

impl Share {
    fn new() -> Share {
        Share { rule: Box::default(), bounds: None, newest: NONE, oldest: NONE, events: 0, bytes: 0 }
    }
}

const IN_USE: &str = "the place must have an entry";
