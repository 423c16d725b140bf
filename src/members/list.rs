//! A list of members, and its changes since they were told.

use super::text::{self, member_len};
use super::{MemberId, Present};
use crate::client::ClientId;
use crate::identity::Identity;
use crate::limits::{MEMBER_BYTES, MEMBERS_LIST_BYTES_MAX};
use crate::qev::shrink::shrink;
use ahash::AHashMap;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A member of a path.
#[derive(Debug)]
struct Member {
    /// The client, or `None` if it has disconnected: the member leaves unless its user comes back.
    client: Option<ClientId>,
    identity: Option<Arc<Identity>>,
    /// Those who watch the path were told of this member.
    is_known: bool,
}

/// A user as a key, by the name in an identity of it.
#[derive(Debug)]
struct AbsentUser(Arc<Identity>);

impl Borrow<str> for AbsentUser {
    fn borrow(&self) -> &str {
        &self.0.user
    }
}

impl Hash for AbsentUser {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.user.hash(state);
    }
}

impl PartialEq for AbsentUser {
    fn eq(&self, other: &AbsentUser) -> bool {
        self.0.user == other.0.user
    }
}

impl Eq for AbsentUser {}

/// The members of a path.
///
/// Invariants, which [`check`](MemberList::check) asserts:
/// - `by_client` has the clients of the members that have one;
/// - `absent` has the members without a client, each once, by their users;
/// - `joins` are members, and have those that nobody was told of; `leaves` are not members;
/// - `text_bytes` is the length of the texts of all members.
#[derive(Debug, Default)]
pub struct MemberList {
    members: BTreeMap<MemberId, Member>,
    by_client: AHashMap<ClientId, MemberId>,
    absent: AHashMap<AbsentUser, Vec<MemberId>>,
    /// The members that are new or have changed since this was told last.
    joins: BTreeSet<MemberId>,
    /// Those that have left since then, and were known.
    leaves: Vec<MemberId>,
    text_bytes: usize,
}

impl MemberList {
    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The number of members whose clients are connected.
    pub fn connected(&self) -> usize {
        self.by_client.len()
    }

    /// Returns whether the text of the list is too long to be sent.
    pub fn is_too_long(&self) -> bool {
        self.text_bytes > MEMBERS_LIST_BYTES_MAX
    }

    /// The memory that the list takes, in bytes.
    pub fn bytes(&self) -> usize {
        let items = self.members.len() + self.leaves.len();
        items * MEMBER_BYTES + self.text_bytes
    }

    /// Adds a client, which takes the place of a member of the same user that has disconnected, if there is one. If it is
    /// there already, it may have another identity. Otherwise, it becomes the member with this id, and `true` is returned.
    pub fn join(&mut self, (client, identity): Present, id: MemberId) -> bool {
        if self.by_client.contains_key(&client) {
            self.identify(client, identity);
            return false;
        }
        if let Some(absent) = identity.as_ref().and_then(|identity| self.take_absent(&identity.user)) {
            self.members.get_mut(&absent).expect(LISTED).client = Some(client);
            self.by_client.insert(client, absent);
            self.identify(client, identity);
            return false;
        }
        self.text_bytes += member_len(identity.as_deref());
        self.members.insert(id, Member { client: Some(client), identity, is_known: false });
        self.by_client.insert(client, id);
        self.joins.insert(id);
        true
    }

    /// Takes the member of a user that has been absent for longest.
    fn take_absent(&mut self, user: &str) -> Option<MemberId> {
        let members = self.absent.get_mut(user)?;
        let id = members.remove(0);
        if members.is_empty() {
            self.absent.remove(user);
            shrink(&mut self.absent);
        }
        Some(id)
    }

    /// Notes the identity of a member's client, if there is this member. A member whose user or information is another one than
    /// before has changed.
    pub fn identify(&mut self, client: ClientId, identity: Option<Arc<Identity>>) {
        let Some(id) = self.by_client.get(&client) else { return };
        let member = self.members.get_mut(id).expect(LISTED);
        if shown(member.identity.as_deref()) != shown(identity.as_deref()) {
            self.joins.insert(*id);
        }
        self.text_bytes += member_len(identity.as_deref());
        self.text_bytes -= member_len(member.identity.as_deref());
        member.identity = identity;
    }

    /// Removes a client, and its member.
    pub fn leave(&mut self, client: ClientId) {
        if let Some(id) = self.by_client.remove(&client) {
            shrink(&mut self.by_client);
            self.remove(id);
        }
    }

    /// Notes that a client has disconnected. If its user is known, the member stays, and its id is returned.
    pub fn disconnect(&mut self, client: ClientId) -> Option<MemberId> {
        let id = self.by_client.remove(&client)?;
        shrink(&mut self.by_client);
        let member = self.members.get_mut(&id).expect(LISTED);
        let Some(identity) = member.identity.clone() else {
            self.remove(id);
            return None;
        };
        member.client = None;
        self.absent.entry(AbsentUser(identity)).or_default().push(id);
        Some(id)
    }

    /// Removes a member whose user has not come back. Returns `false` if it has, or the member has left.
    pub fn expire(&mut self, id: MemberId) -> bool {
        let Some(Member { client: None, identity, .. }) = self.members.get(&id) else { return false };
        let user = identity.clone().expect("only members with users stay when they are absent");
        let members = self.absent.get_mut(&*user.user).expect("a member without a client is absent");
        members.retain(|other| *other != id);
        if members.is_empty() {
            self.absent.remove(&*user.user);
            shrink(&mut self.absent);
        }
        self.remove(id);
        true
    }

    fn remove(&mut self, id: MemberId) {
        let member = self.members.remove(&id).expect(LISTED);
        self.text_bytes -= member_len(member.identity.as_deref());
        self.joins.remove(&id);
        if member.is_known {
            self.leaves.push(id);
        }
    }

    /// Returns whether there are changes that were not told.
    pub fn has_changed(&self) -> bool {
        !self.joins.is_empty() || !self.leaves.is_empty()
    }

    /// Returns the text of the changes that were not told.
    pub fn changes(&self) -> String {
        let joins = self.joins.iter().map(|id| (*id, self.members[id].identity.as_deref()));
        text::changed(self.len(), joins, &self.leaves)
    }

    /// Notes that all changes were told, or that nobody wants to know them.
    pub fn set_told(&mut self) {
        for id in std::mem::take(&mut self.joins) {
            self.members.get_mut(&id).expect(LISTED).is_known = true;
        }
        self.leaves = Vec::new();
    }

    /// Returns the text of the list.
    pub fn text(&self) -> String {
        text::listed(self.len(), self.members.iter().map(|(id, member)| (*id, member.identity.as_deref())))
    }

    /// Asserts the invariants. Linear in the number of members.
    pub fn check(&self) {
        for (client, id) in &self.by_client {
            assert_eq!(self.members[id].client, Some(*client), "the member of client {client}");
        }
        let connected = self.members.values().filter(|member| member.client.is_some()).count();
        assert_eq!(connected, self.by_client.len(), "each client has its member");
        let mut absent = 0;
        for (user, ids) in &self.absent {
            for id in ids {
                let member = &self.members[id];
                let is_of_user =
                    member.identity.as_ref().is_some_and(|identity| identity.user == user.0.user);
                assert!(member.client.is_none() && is_of_user, "member {id} is absent");
                absent += 1;
            }
        }
        assert_eq!(absent, self.members.len() - connected, "each member without a client is absent");
        for (id, member) in &self.members {
            assert!(member.is_known || self.joins.contains(id), "member {id} is known or new");
        }
        assert!(self.joins.iter().all(|id| self.members.contains_key(id)), "those who join are members");
        assert!(!self.leaves.iter().any(|id| self.members.contains_key(id)), "those who have left are not");
        let lengths = self.members.values().map(|member| member_len(member.identity.as_deref()));
        assert_eq!(lengths.sum::<usize>(), self.text_bytes, "the length of the list");
    }
}

/// The parts of an identity that others are told.
fn shown(identity: Option<&Identity>) -> Option<(&str, Option<&str>)> {
    identity.map(|identity| (&*identity.user, identity.info.as_deref()))
}

const LISTED: &str = "an id of the list is the id of a member";
