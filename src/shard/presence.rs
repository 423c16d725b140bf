//! The members of the paths that this shard keeps, the requests for them, and the messages about them.

use super::questions::Questions;
use crate::app::{Json, ReplyTo};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::identity::Identity;
use crate::limits::MEMBERS_WAITING_MAX;
use crate::members::{Present, Rosters};
use std::collections::BTreeSet;
use std::sync::Arc;

/// News of a member.
pub(super) enum MemberNews {
    /// The client is subscribed from now on. If it asks, it is to get the list, and changes from then on.
    Joined { identity: Option<Arc<Identity>>, asks: bool },
    /// The client has authenticated, or sent another token.
    Identified(Option<Arc<Identity>>),
    /// The client asks for the list, and changes from then on. It may have done so before.
    Asks { is_first: bool },
    /// The client is not subscribed any more, because it has disconnected or for another reason. It may have asked for the list.
    Left { is_gone: bool, has_asked: bool },
}

/// The members of a path, for clients that have asked for them with their subscriptions.
pub struct MembersList {
    pub(super) path: Path,
    /// The data of the event.
    pub(super) data: Json,
    pub(super) clients: Vec<ClientId>,
}

/// A client's question for the members of a path.
pub struct MembersQuestion {
    pub(super) reply_to: ReplyTo,
    pub(super) path: Path,
}

/// The answer to such a question.
pub struct MembersAnswer {
    pub(super) reply_to: ReplyTo,
    /// The data, or `None` if the shard is too busy.
    pub(super) data: Option<Json>,
}

/// The members of a path that are clients of one shard.
pub struct MembersOfShard {
    pub(super) path: Path,
    pub(super) round: u64,
    /// `None` if there are more than a list may have.
    pub(super) members: Option<Vec<Present>>,
}

impl MemberNews {
    pub fn bytes(&self) -> usize {
        match self {
            MemberNews::Joined { identity, .. } | MemberNews::Identified(identity) => bytes(identity),
            MemberNews::Asks { .. } | MemberNews::Left { .. } => 0,
        }
    }
}

impl MembersList {
    pub(super) fn bytes(&self) -> usize {
        let clients = self.clients.len() * size_of::<ClientId>();
        size_of::<MembersList>() + self.path.as_str().len() + self.data.as_str().len() + clients
    }
}

impl MembersQuestion {
    pub(super) fn bytes(&self) -> usize {
        size_of::<MembersQuestion>() + self.path.as_str().len()
    }
}

impl MembersAnswer {
    pub(super) fn bytes(&self) -> usize {
        size_of::<MembersAnswer>() + self.data.as_ref().map_or(0, |data| data.as_str().len())
    }
}

impl MembersOfShard {
    pub(super) fn bytes(&self) -> usize {
        let members = self.members.iter().flatten();
        let of_members: usize = members.map(|(_, identity)| size_of::<Present>() + bytes(identity)).sum();
        size_of::<MembersOfShard>() + self.path.as_str().len() + of_members
    }
}

fn bytes(identity: &Option<Arc<Identity>>) -> usize {
    identity.as_ref().map_or(0, |identity| identity.bytes())
}

/// The members that a shard keeps, and the requests for them that wait for their turn.
///
/// Invariant: a timer is set for what is due next, or for an earlier time.
pub(super) struct Presence {
    pub rosters: Rosters,
    pub questions: Questions<MembersQuestion>,
    /// The times of the timers that are set, in milliseconds.
    timers: BTreeSet<u64>,
    /// The list that was asked for last, and the number of the change before it.
    text: Option<(Path, u64, Json)>,
}

impl Presence {
    pub fn new(rosters: Rosters) -> Presence {
        Presence {
            rosters,
            questions: Questions::new(MEMBERS_WAITING_MAX),
            timers: BTreeSet::new(),
            text: None,
        }
    }

    /// Returns whether requests wait, or something is due.
    #[inline]
    pub fn has_work(&self, now_ms: u64) -> bool {
        !self.rosters.is_empty() && self.rosters.first_due(now_ms).is_some() || !self.questions.is_empty()
    }

    /// Returns the members of a path as they are now, as JSON.
    pub fn text(&mut self, path: &Path) -> Json {
        let Some((version, text)) = self.rosters.text(path) else {
            return Json::of_static(r#"{"count":0,"here":[]}"#);
        };
        match &self.text {
            Some((of, at, text)) if of == path && *at == version => text.clone(),
            _ => {
                let text = Json::trusted(&text());
                self.text = Some((path.clone(), version, text.clone()));
                text
            }
        }
    }

    /// Returns the time for which a timer must be set, if one is missing, and notes that it is.
    pub fn set_timer(&mut self) -> Option<u64> {
        let next = self.rosters.next_ms()?;
        let is_missing = self.timers.first().is_none_or(|at_ms| *at_ms > next);
        is_missing.then(|| {
            self.timers.insert(next);
            next
        })
    }

    /// Notes that the timers up to this time have fired.
    pub fn timer_fired(&mut self, now_ms: u64) {
        while self.timers.first().is_some_and(|at_ms| *at_ms <= now_ms) {
            self.timers.pop_first();
        }
    }

    /// Gives back the memory of the last list, and that only many requests at once have needed.
    pub fn give_back(&mut self) {
        self.text = None;
        self.questions.give_back();
        self.rosters.give_back();
    }

    /// Asserts the invariants. Linear in the number of members.
    pub fn check(&self) {
        self.rosters.check();
        self.questions.check();
        let first = self.timers.first().copied();
        let has_timer = self.rosters.next_ms().is_none_or(|next| first.is_some_and(|at_ms| at_ms <= next));
        assert!(has_timer, "a timer is set for what is due");
    }
}
