//! The subscriptions of a shard's clients that get earlier events before the live ones.

use crate::app::ReplyTo;
use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use crate::history::{Position, ReplayFrom};
use crate::qev::shrink::{List, shrink};
use ahash::AHashMap;
use std::collections::VecDeque;

/// A subscription that will get earlier events, or gets them.
pub(super) struct Recovery {
    pub reply_to: ReplyTo,
    pub path: Path,
    pub stage: RecoveryStage,
}

/// The stage of a recovery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RecoveryStage {
    /// The application decides about the subscription.
    Undecided(ReplayFrom),
    /// The shard that numbers the path was asked for the first events.
    Begun,
    /// It was asked for those that follow this position, up to which the client has got them.
    Asked(Position),
    /// The client has to receive what it was sent up to this position.
    Paced(Position),
}

/// The recoveries of a shard.
///
/// The shard that numbers a path broadcasts its events to the shards with subscribers. A recovery counts as one, from the time
/// at which that shard is asked: `interest` has the number of recoveries of each path since then.
///
/// Invariants: `interest` is as said; `paced` has each recovery of that stage once, and perhaps some that have ended since.
#[derive(Default)]
pub(super) struct Recoveries {
    recoveries: AHashMap<(ClientId, PathId), Recovery>,
    interest: AHashMap<Path, u32>,
    paced: VecDeque<(ClientId, PathId)>,
    /// The number of those in `paced` that have to be looked at.
    unseen: usize,
}

impl Recoveries {
    /// The number of recoveries.
    pub fn len(&self) -> usize {
        self.recoveries.len()
    }

    /// Adds a subscription that the application decides about.
    pub fn add(&mut self, reply_to: ReplyTo, id: PathId, path: Path, from: ReplayFrom) {
        let recovery = Recovery { reply_to, path, stage: RecoveryStage::Undecided(from) };
        let before = self.recoveries.insert((reply_to.client, id), recovery);
        assert!(before.is_none(), "a subscription waits for one decision");
    }

    /// The recovery of a client's subscription.
    #[inline]
    pub fn get(&self, client: ClientId, id: PathId) -> Option<&Recovery> {
        if self.recoveries.is_empty() { None } else { self.recoveries.get(&(client, id)) }
    }

    /// Notes that the first events are asked for.
    pub fn begin(&mut self, client: ClientId, id: PathId) {
        let recovery = self.expect(client, id);
        recovery.stage = RecoveryStage::Begun;
        let path = recovery.path.clone();
        *self.interest.entry(path).or_default() += 1;
    }

    /// Notes that the client has to receive what it was sent up to this position.
    pub fn pace(&mut self, client: ClientId, id: PathId, until: Position) {
        self.expect(client, id).stage = RecoveryStage::Paced(until);
        self.paced.push_back((client, id));
    }

    /// Notes that the events behind a position are asked for.
    pub fn ask(&mut self, client: ClientId, id: PathId, after: Position) {
        self.expect(client, id).stage = RecoveryStage::Asked(after);
    }

    fn expect(&mut self, client: ClientId, id: PathId) -> &mut Recovery {
        self.recoveries.get_mut(&(client, id)).expect("the subscription is recovered")
    }

    /// Ends a recovery. Returns its path if it was the last one that counted as a subscriber of the path.
    pub fn remove(&mut self, client: ClientId, id: PathId) -> Option<Path> {
        let recovery = self.recoveries.remove(&(client, id))?;
        shrink(&mut self.recoveries);
        if let RecoveryStage::Undecided(_) = recovery.stage {
            return None;
        }
        let count = self.interest.get_mut(recovery.path.as_str()).expect("the recovery was counted");
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.interest.remove(recovery.path.as_str());
            shrink(&mut self.interest);
        }
        is_last.then_some(recovery.path)
    }

    /// Returns whether recoveries count as subscribers of a path.
    #[inline]
    pub fn hold(&self, path: &Path) -> bool {
        !self.interest.is_empty() && self.interest.contains_key(path.as_str())
    }

    // Clients that have to receive what they were sent.

    /// Notes that clients may have received what they were sent, or have left.
    #[inline]
    pub fn look_again(&mut self) {
        self.unseen = self.paced.len();
    }

    /// Returns whether recoveries have to be looked at.
    #[inline]
    pub fn has_unseen(&self) -> bool {
        self.unseen > 0
    }

    /// Takes the next recovery that has to be looked at, with its position.
    pub fn next_paced(&mut self) -> Option<(ClientId, PathId, Position)> {
        while self.unseen > 0 {
            self.unseen -= 1;
            let (client, id) = self.paced.pop_front().expect("those that were not seen are in the queue");
            if let Some(RecoveryStage::Paced(position)) = self.get(client, id).map(|found| found.stage) {
                return Some((client, id, position));
            }
        }
        None
    }

    /// Puts back a recovery that was taken and has to wait longer.
    pub fn put_back(&mut self, client: ClientId, id: PathId) {
        self.paced.push_back((client, id));
    }

    /// Gives back the memory that only many recoveries at once have needed.
    pub fn give_back(&mut self) {
        self.paced.give_back();
    }

    /// Asserts the invariants. Linear in the number of recoveries.
    pub fn check(&self) {
        let mut counts: AHashMap<&Path, u32> = AHashMap::new();
        let counted = |recovery: &&Recovery| !matches!(recovery.stage, RecoveryStage::Undecided(_));
        for recovery in self.recoveries.values().filter(counted) {
            *counts.entry(&recovery.path).or_default() += 1;
        }
        assert_eq!(counts.len(), self.interest.len(), "the paths of recoveries");
        for (path, count) in counts {
            assert_eq!(self.interest.get(path.as_str()), Some(&count), "the recoveries of {path}");
        }
        for (key, recovery) in &self.recoveries {
            let places = self.paced.iter().filter(|place| *place == key).count();
            let is_paced = matches!(recovery.stage, RecoveryStage::Paced(_));
            assert!(!is_paced || places == 1, "the recovery of {} is paced once", recovery.path);
        }
        assert!(self.unseen <= self.paced.len(), "those that were not seen are in the queue");
    }
}
