//! The members of all paths of one shard, and the time at which changes are told.

use super::roster::Roster;
use super::{MemberId, Present};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::limits::{MEMBERS_GATHER_MIN, ROSTER_BYTES};
use crate::qev::shrink::{List as _, shrink};
use ahash::AHashMap;
use std::collections::{BTreeSet, VecDeque};

/// The bounds of the members of paths.
#[derive(Clone, Copy, Debug)]
pub struct RosterBounds {
    /// The number of members of a path above which they are only counted.
    pub members_max: usize,
    /// The memory of all lists, in bytes, above which paths get none.
    pub bytes_max: usize,
    /// The time for which a user that has disconnected stays a member, in milliseconds.
    pub linger_ms: u64,
}

/// The sums over all paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RosterTotals {
    /// The clients that are members, by the paths of which they are.
    pub connections: usize,
    /// The memory in bytes.
    pub bytes: usize,
    /// The lists that were dropped because they were too long.
    pub dropped: u64,
}

/// The news about a path that have to be told.
#[derive(Debug, Default)]
pub struct Publication {
    /// The text for those who watch the path already, if there are changes.
    pub changes: Option<String>,
    /// Those who wait for the list.
    pub askers: BTreeSet<ClientId>,
    /// All shards have to be asked for their members, with this number.
    pub round: Option<u64>,
}

/// A member that leaves if its user does not come back.
#[derive(Debug)]
struct Absence {
    until_ms: u64,
    path: Path,
    id: MemberId,
}

/// The members of the paths that a shard keeps.
///
/// Invariants, which [`check`](Rosters::check) asserts: `totals` are sums over all paths; no path is empty; `due` has each path
/// with changes once; `absences` are in the order of their times.
#[derive(Debug)]
pub struct Rosters {
    bounds: RosterBounds,
    /// The number of shards.
    shards: u16,
    paths: AHashMap<Path, Roster>,
    due: BTreeSet<(u64, Path)>,
    /// Members that are absent, and some that have come back or left since.
    absences: VecDeque<Absence>,
    next_id: MemberId,
    next_round: u64,
    next_version: u64,
    totals: RosterTotals,
}

impl Rosters {
    /// Returns no members. The ids of members begin with `first_id`.
    #[must_use]
    pub fn new(bounds: RosterBounds, shards: u16, first_id: MemberId) -> Rosters {
        Rosters {
            bounds,
            shards,
            paths: AHashMap::new(),
            due: BTreeSet::new(),
            absences: VecDeque::new(),
            next_id: first_id,
            next_round: 0,
            next_version: 0,
            totals: RosterTotals::default(),
        }
    }

    /// The number of paths with members.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.paths.len()
    }

    /// The sums over all paths.
    #[must_use]
    pub fn totals(&self) -> RosterTotals {
        self.totals
    }

    /// Returns whether no path has members.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    // What shards tell of their clients.

    /// Adds a client to the members of a path. If it asks for the list, it is told it, and what changes from then on.
    pub fn join(&mut self, path: &Path, member: Present, asks: bool, now_ms: u64) {
        let id = self.next_id;
        if !self.paths.contains_key(path.as_str()) {
            self.paths.insert(path.clone(), Roster::new());
            self.totals.bytes += ROSTER_BYTES + path.as_str().len();
        }
        let client = member.0;
        let is_new = self.change(path, now_ms, |roster| {
            let is_new = roster.join(member, id);
            if asks {
                roster.watchers += 1;
                roster.askers.insert(client);
            }
            is_new
        });
        self.next_id += MemberId::from(is_new == Some(true));
    }

    /// Notes that a member's client has another identity.
    pub fn identify(&mut self, path: &Path, member: Present, now_ms: u64) {
        self.change(path, now_ms, |roster| roster.identify(member));
    }

    /// Notes that a member asks for the list. It may have done so before.
    pub fn ask(&mut self, path: &Path, client: ClientId, is_first: bool, now_ms: u64) {
        self.change(path, now_ms, |roster| {
            roster.watchers += usize::from(is_first);
            roster.askers.insert(client);
        });
    }

    /// Removes a client from the members of a path. It may have disconnected, and have asked for the list before.
    pub fn leave(&mut self, path: &Path, client: ClientId, is_gone: bool, has_asked: bool, now_ms: u64) {
        let linger_ms = self.bounds.linger_ms;
        let absent = self.change(path, now_ms, |roster| {
            roster.watchers -= usize::from(has_asked);
            roster.leave(client, is_gone && linger_ms > 0)
        });
        if let Some(id) = absent.flatten() {
            let until_ms = now_ms + linger_ms;
            self.absences.push_back(Absence { until_ms, path: path.clone(), id });
        }
    }

    /// Adds the members of a shard to the list that is made anew.
    pub fn add_shard(
        &mut self,
        path: &Path,
        round: u64,
        shard: u16,
        members: Option<Vec<Present>>,
        now_ms: u64,
    ) {
        let first = self.next_id;
        self.next_id += members.as_ref().map_or(0, Vec::len) as MemberId;
        self.change(path, now_ms, |roster| roster.add_shard(round, shard, members, first));
    }

    /// Changes the members of a path, if it has any, and has this told.
    fn change<T>(&mut self, path: &Path, now_ms: u64, change: impl FnOnce(&mut Roster) -> T) -> Option<T> {
        let roster = self.paths.get_mut(path.as_str())?;
        let before = (roster.connections(), roster.bytes());
        let changed = change(roster);
        self.next_version += 1;
        roster.version = self.next_version;
        self.totals.connections = self.totals.connections + roster.connections() - before.0;
        self.totals.bytes = self.totals.bytes + roster.bytes() - before.1;
        let is_full = self.totals.bytes > self.bounds.bytes_max;
        let is_longer = roster.bytes() > before.1;
        if roster.is_too_long(self.bounds.members_max) || is_full && is_longer {
            let bytes = roster.bytes();
            roster.drop_list();
            self.totals.bytes = self.totals.bytes + roster.bytes() - bytes;
            self.totals.dropped += 1;
        }
        if roster.is_empty() {
            self.remove(path);
        } else if roster.due_ms.is_none() {
            let due_ms = roster.quiet_until_ms.max(now_ms);
            self.set_due(path, due_ms);
        }
        Some(changed)
    }

    fn set_due(&mut self, path: &Path, due_ms: u64) {
        let roster = self.paths.get_mut(path.as_str()).expect("the path has members");
        assert!(roster.due_ms.is_none(), "a path is due once");
        roster.due_ms = Some(due_ms);
        self.due.insert((due_ms, path.clone()));
    }

    fn remove(&mut self, path: &Path) {
        let roster = self.paths.remove(path.as_str()).expect("the path has members");
        self.totals.bytes -= roster.bytes() + path.as_str().len();
        if let Some(due_ms) = roster.due_ms {
            self.due.remove(&(due_ms, path.clone()));
        }
        shrink(&mut self.paths);
    }

    // What those who watch are told.

    /// The next time at which something is due, if it is known.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let due = self.due.first().map(|(at_ms, _)| *at_ms);
        let absence = self.absences.front().map(|absence| absence.until_ms);
        due.into_iter().chain(absence).min()
    }

    /// Removes members that have been absent for too long: at most `max` of them are looked at.
    pub fn expire(&mut self, now_ms: u64, max: usize) {
        for _ in 0..max {
            if self.absences.front().is_none_or(|absence| absence.until_ms > now_ms) {
                return;
            }
            let absence = self.absences.pop_front().expect("there is one");
            self.change(&absence.path, now_ms, |roster| roster.expire(absence.id));
        }
    }

    /// The path whose changes are due first, if they are.
    #[must_use]
    #[inline]
    pub fn first_due(&self, now_ms: u64) -> Option<&Path> {
        self.due.first().filter(|(at_ms, _)| *at_ms <= now_ms).map(|(_, path)| path)
    }

    /// Postpones what is due for a path: it cannot be told now.
    pub fn postpone(&mut self, path: &Path, now_ms: u64) {
        self.take_due(path);
        self.set_due(path, now_ms + MEMBERS_GATHER_MIN);
    }

    fn take_due(&mut self, path: &Path) {
        let roster = self.paths.get_mut(path.as_str()).expect("the path has members");
        let due_ms = roster.due_ms.take().expect("the path is due");
        self.due.remove(&(due_ms, path.clone()));
    }

    /// Takes what is due for a path.
    pub fn publish(&mut self, path: &Path, now_ms: u64) -> Publication {
        self.take_due(path);
        let roster = self.paths.get_mut(path.as_str()).expect("the path has members");
        let bytes = roster.bytes();
        let changes = roster.publish(now_ms);
        let round = roster.may_be_listed().then(|| {
            self.next_round += 1;
            roster.renew(self.next_round, self.shards);
            self.next_round
        });
        self.totals.bytes = self.totals.bytes + roster.bytes() - bytes;
        Publication { changes, askers: std::mem::take(&mut roster.askers), round }
    }

    /// Returns the text of the members of a path as they are now, which is `None` if there are none, and a number that is
    /// another one after each change.
    pub fn text(&self, path: &Path) -> Option<(u64, impl FnOnce() -> String + '_)> {
        let roster = self.paths.get(path.as_str())?;
        Some((roster.version, || roster.text()))
    }

    /// The number of members of a path, as clients are told it.
    #[must_use]
    pub fn count(&self, path: &Path) -> usize {
        self.paths.get(path.as_str()).map_or(0, Roster::count)
    }

    /// Gives back the memory that only many absent members at once have needed.
    pub fn give_back(&mut self) {
        self.absences.give_back();
    }

    /// Asserts the invariants. Linear in the number of members.
    pub fn check(&self) {
        let (mut connections, mut bytes, mut due) = (0, 0, 0);
        for (path, roster) in &self.paths {
            roster.check();
            assert!(!roster.is_empty(), "{path} has members");
            connections += roster.connections();
            bytes += roster.bytes() + path.as_str().len();
            if let Some(due_ms) = roster.due_ms {
                assert!(self.due.contains(&(due_ms, path.clone())), "{path} is due");
                due += 1;
            }
        }
        assert_eq!((connections, bytes), (self.totals.connections, self.totals.bytes), "the totals");
        assert_eq!(due, self.due.len(), "the paths that are due");
        let times: Vec<u64> = self.absences.iter().map(|absence| absence.until_ms).collect();
        assert!(times.is_sorted(), "those who are absent leave in order");
    }
}
