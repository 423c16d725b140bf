//! The members of one path.

use super::list::MemberList;
use super::text;
use super::{MemberId, Present};
use crate::client::ClientId;
use crate::limits::{MEMBERS_GATHER_MAX, MEMBERS_GATHER_MIN, ROSTER_BYTES, SHARDS_MAX};
use std::collections::BTreeSet;

/// The number of members for each millisecond over which changes are gathered.
const MEMBERS_PER_MS: usize = 10;

/// The members of a path.
///
/// If there are too many for a list, they are only counted. A list is made anew when there are fewer again: all shards are
/// asked for theirs. What a shard tells later changes the part of the new list that is its own, and what it has told before does
/// not.
///
/// Invariants: `connections` is the number of clients in the list, if there is one; there is a list or a new one is being made,
/// not both.
#[derive(Debug)]
pub(super) struct Roster {
    /// The clients that have joined and have not left.
    connections: usize,
    /// The clients that have asked for the list, and are told of changes.
    pub watchers: usize,
    /// Those of them that have asked and wait for it.
    pub askers: BTreeSet<ClientId>,
    list: Option<MemberList>,
    renewal: Option<Relisting>,
    /// The list was made anew, and nobody knows it.
    is_new: bool,
    /// The count that was told last while there was no list.
    told_count: Option<usize>,
    /// The number of connections from which on a list is made anew.
    listed_again_at: usize,
    /// The time at which changes are told, if there are any.
    pub due_ms: Option<u64>,
    /// The time up to which they are gathered.
    pub quiet_until_ms: u64,
    /// A number that is another one after each change.
    pub version: u64,
}

/// A list that is made anew.
#[derive(Debug)]
struct Relisting {
    round: u64,
    /// The shards that have not told their members, a bit for each.
    waits_for: u128,
    list: MemberList,
}

impl Roster {
    pub fn new() -> Roster {
        Roster {
            connections: 0,
            watchers: 0,
            askers: BTreeSet::new(),
            list: Some(MemberList::default()),
            renewal: None,
            is_new: false,
            told_count: None,
            listed_again_at: 0,
            due_ms: None,
            quiet_until_ms: 0,
            version: 0,
        }
    }

    /// The number of clients that are members.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// The number of members as clients are told it: those of the list, or those that are connected.
    pub fn count(&self) -> usize {
        self.list.as_ref().map_or(self.connections, MemberList::len)
    }

    /// The memory in bytes that it takes, apart from the text of its path.
    pub fn bytes(&self) -> usize {
        let lists = self.list.iter().chain(self.renewal.as_ref().map(|renewal| &renewal.list));
        ROSTER_BYTES + lists.map(MemberList::bytes).sum::<usize>()
    }

    /// Returns whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.connections == 0 && self.list.as_ref().is_none_or(MemberList::is_empty)
    }

    /// Returns whether the list, or the new one, has more members than this or is too long.
    pub fn is_too_long(&self, members_max: usize) -> bool {
        let lists = self.list.iter().chain(self.renewal.as_ref().map(|renewal| &renewal.list));
        lists.into_iter().any(|list| list.len() > members_max || list.is_too_long())
    }

    /// The list that a client of this shard belongs to: none if it is only counted, or its shard will list it.
    fn list_of(&mut self, client: ClientId) -> Option<&mut MemberList> {
        let renewal = self.renewal.as_mut().filter(|renewal| renewal.waits_for & bit(client.shard) == 0);
        self.list.as_mut().or(renewal.map(|renewal| &mut renewal.list))
    }

    /// Adds a client. Returns `true` if it has become a new member with this id.
    pub fn join(&mut self, member: Present, id: MemberId) -> bool {
        self.connections += 1;
        self.list_of(member.0).is_some_and(|list| list.join(member, id))
    }

    /// Notes the identity of a client.
    pub fn identify(&mut self, (client, identity): Present) {
        if let Some(list) = self.list_of(client) {
            list.identify(client, identity);
        }
    }

    /// Removes a client. If it has disconnected and its member stays, the id of the member is returned.
    pub fn leave(&mut self, client: ClientId, stays: bool) -> Option<MemberId> {
        self.connections -= 1;
        self.askers.remove(&client);
        // Before others know the list, nobody misses those who leave it.
        let stays = stays && self.list.is_some();
        match self.list_of(client)? {
            list if stays => list.disconnect(client),
            list => {
                list.leave(client);
                None
            }
        }
    }

    /// Removes a member whose user has not come back. Returns `false` if it has.
    pub fn expire(&mut self, id: MemberId) -> bool {
        self.list.as_mut().is_some_and(|list| list.expire(id))
    }

    /// Drops the list: from now on, members are only counted. Members that have disconnected are not counted.
    pub fn drop_list(&mut self) {
        (self.list, self.renewal, self.is_new, self.told_count) = (None, None, false, None);
        self.listed_again_at = self.connections - self.connections.div_ceil(4);
    }

    /// Returns whether there may be a list again.
    pub fn may_be_listed(&self) -> bool {
        let is_counted = self.list.is_none() && self.renewal.is_none();
        is_counted && self.connections <= self.listed_again_at
    }

    /// Begins a new list, for which these shards are asked for their members.
    pub fn renew(&mut self, round: u64, shards: u16) {
        let waits_for = (0..shards).map(bit).fold(0, |bits, bit| bits | bit);
        self.renewal = Some(Relisting { round, waits_for, list: MemberList::default() });
    }

    /// Adds the members of a shard to the new list. The members are `None` if the shard has too many. The ids from this one on
    /// are theirs.
    pub fn add_shard(&mut self, round: u64, shard: u16, members: Option<Vec<Present>>, first: MemberId) {
        let Some(renewal) = self.renewal.as_mut().filter(|renewal| renewal.round == round) else { return };
        let Some(members) = members else { return self.drop_list() };
        assert!(renewal.waits_for & bit(shard) != 0, "shard {shard} tells its members once");
        renewal.waits_for &= !bit(shard);
        for (id, member) in (first..).zip(members) {
            renewal.list.join(member, id);
        }
        if renewal.waits_for == 0 {
            let renewal = self.renewal.take().expect("it was there");
            (self.list, self.is_new) = (Some(renewal.list), true);
        }
    }

    /// Returns the text of the members as they are now: a list, or a count.
    pub fn text(&self) -> String {
        self.list.as_ref().map_or_else(|| text::counted(self.connections), MemberList::text)
    }

    /// Returns the text of what has changed since the last call, if it has, and if somebody watches.
    pub fn publish(&mut self, now_ms: u64) -> Option<String> {
        let is_watched = self.watchers > self.askers.len();
        let gather_ms = (self.count() / MEMBERS_PER_MS) as u64;
        self.quiet_until_ms = now_ms + gather_ms.clamp(MEMBERS_GATHER_MIN, MEMBERS_GATHER_MAX);
        let Some(list) = &mut self.list else {
            let has_changed = self.told_count != Some(self.connections);
            self.told_count = Some(self.connections);
            return (has_changed && is_watched).then(|| text::counted(self.connections));
        };
        let text = match (is_watched, self.is_new) {
            (true, true) => Some(list.text()),
            (true, false) => list.has_changed().then(|| list.changes()),
            (false, _) => None,
        };
        list.set_told();
        self.is_new = false;
        text
    }

    /// Asserts the invariants. Linear in the number of members.
    pub fn check(&self) {
        assert!(self.list.is_none() || self.renewal.is_none(), "there is one list");
        if let Some(list) = &self.list {
            list.check();
            assert_eq!(list.connected(), self.connections, "the clients of the list");
        }
        if let Some(renewal) = &self.renewal {
            renewal.list.check();
            assert!(renewal.waits_for != 0, "a new list waits for a shard");
            assert!(renewal.list.connected() <= self.connections, "the clients of the new list");
        }
        assert!(self.askers.len() <= self.watchers, "those who ask watch");
        assert!(self.watchers <= self.connections, "those who watch are members");
    }
}

fn bit(shard: u16) -> u128 {
    assert!(usize::from(shard) < SHARDS_MAX, "shard {shard} is beyond the limit");
    1 << shard
}
