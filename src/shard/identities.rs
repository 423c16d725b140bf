//! The identities of a shard's connections, and the table from users to their connections.
//!
//! Connections without an identity take no memory here, unless something is due or pending.

use crate::identity::Identity;
use crate::qev::shrink::shrink;
use crate::qev::slots::BLOCK;
use ahash::AHashMap;
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::mem;
use std::sync::Arc;

/// The end of a list of connections.
const NO_CONNECTION: u32 = u32::MAX;

/// A connection that has an identity.
struct Identified {
    identity: Arc<Identity>,
    /// The neighbours in the list of the connections of this user.
    previous: u32,
    next: u32,
}

/// The connections of one user: a list through their entries.
struct UserConnections {
    first: u32,
    len: u32,
}

/// A user as a key, by the name in an identity of it.
struct UserKey(Arc<Identity>);

impl Borrow<str> for UserKey {
    fn borrow(&self) -> &str {
        &self.0.user
    }
}

impl Hash for UserKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.user.hash(state);
    }
}

impl PartialEq for UserKey {
    fn eq(&self, other: &UserKey) -> bool {
        self.0.user == other.0.user
    }
}

impl Eq for UserKey {}

/// The entries of the connections in a block of slots. There is no memory while none of them has one.
#[derive(Default)]
struct IdentityBlock {
    entries: Box<[Option<Identified>]>,
    used: usize,
}

/// The identities of all connections of a shard, by the slots of the connections.
///
/// Invariants, which [`check`](Identities::check) asserts:
/// - only connections that have not ended have identities;
/// - `len` is the number of identities;
/// - each connection with an identity is once in the list of its user, and no list is empty.
#[derive(Default)]
pub(super) struct Identities {
    blocks: Vec<IdentityBlock>,
    len: usize,
    users: AHashMap<UserKey, UserConnections>,
}

impl Identities {
    /// The identity of a connection, or `None` if its client has not authenticated.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Arc<Identity>> {
        self.entry(slot).map(|identified| &identified.identity)
    }

    #[inline]
    fn entry(&self, slot: u32) -> Option<&Identified> {
        self.blocks.get(slot as usize / BLOCK)?.entries.get(slot as usize % BLOCK)?.as_ref()
    }

    /// The entry of a connection that is in the list of a user.
    ///
    /// # Panics
    ///
    /// The connection has no identity.
    fn listed_mut(&mut self, slot: u32) -> &mut Identified {
        let block = self.blocks.get_mut(slot as usize / BLOCK);
        let entry = block.and_then(|block| block.entries.get_mut(slot as usize % BLOCK)?.as_mut());
        entry.unwrap_or_else(|| panic!("connection {slot} must have an identity"))
    }

    /// Gives a connection an identity, in place of the one that it has. The user stays the same.
    ///
    /// # Panics
    ///
    /// The connection has the identity of another user.
    pub fn set(&mut self, slot: u32, identity: Arc<Identity>) {
        if let Some(before) = self.get(slot) {
            assert!(before.user == identity.user, "connection {slot} belongs to another user");
            self.listed_mut(slot).identity = identity;
            return;
        }
        let (previous, mut next) = (NO_CONNECTION, NO_CONNECTION);
        match self.users.get_mut(&*identity.user) {
            Some(list) => {
                next = mem::replace(&mut list.first, slot);
                list.len += 1;
            }
            None => {
                let list = UserConnections { first: slot, len: 1 };
                self.users.insert(UserKey(Arc::clone(&identity)), list);
            }
        }
        if next != NO_CONNECTION {
            self.listed_mut(next).previous = slot;
        }
        self.insert(slot, Identified { identity, previous, next });
    }

    fn insert(&mut self, slot: u32, identified: Identified) {
        let number = slot as usize / BLOCK;
        while self.blocks.len() <= number {
            self.blocks.push(IdentityBlock::default());
        }
        let block = &mut self.blocks[number];
        if block.entries.is_empty() {
            block.entries = (0..BLOCK).map(|_| None).collect();
        }
        block.entries[slot as usize % BLOCK] = Some(identified);
        block.used += 1;
        self.len += 1;
    }

    /// Removes the identity of a connection, if it has one.
    pub fn remove(&mut self, slot: u32) {
        if self.len == 0 {
            return;
        }
        let Some(block) = self.blocks.get_mut(slot as usize / BLOCK) else { return };
        let entry = block.entries.get_mut(slot as usize % BLOCK).and_then(Option::take);
        let Some(Identified { identity, previous, next }) = entry else { return };
        block.used -= 1;
        if block.used == 0 {
            *block = IdentityBlock::default();
        }
        self.len -= 1;
        if next != NO_CONNECTION {
            self.listed_mut(next).previous = previous;
        }
        if previous != NO_CONNECTION {
            self.listed_mut(previous).next = next;
        }
        let list = self.users.get_mut(&*identity.user).expect("a user with a connection has a list");
        list.len -= 1;
        if previous == NO_CONNECTION {
            list.first = next;
        }
        if list.len == 0 {
            self.users.remove(&*identity.user);
            shrink(&mut self.users);
        }
    }

    /// The slots of the connections of a user, the latest first.
    pub fn connections_of(&self, user: &str) -> impl Iterator<Item = u32> {
        let first = self.users.get(user).map_or(NO_CONNECTION, |list| list.first);
        let listed = |slot: u32| (slot != NO_CONNECTION).then_some(slot);
        std::iter::successors(listed(first), move |slot| {
            listed(self.entry(*slot).expect("a connection in a list has an identity").next)
        })
    }

    /// The number of connections that have an identity.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The number of users that have a connection.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Frees the blocks of slots from `slots` on, which no connection has.
    pub fn give_back(&mut self, slots: usize) {
        if self.blocks.len() > slots.div_ceil(BLOCK) {
            self.blocks.truncate(slots.div_ceil(BLOCK));
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
    }

    /// Asserts the invariants. Linear in the number of identities.
    pub fn check(&self, is_open: impl Fn(u32) -> bool) {
        let mut found = 0;
        for (number, block) in self.blocks.iter().enumerate() {
            let entries =
                block.entries.iter().enumerate().filter_map(|(at, entry)| Some((at, entry.as_ref()?)));
            let mut used = 0;
            for (at, _) in entries {
                let slot = (number * BLOCK + at) as u32;
                assert!(is_open(slot), "connection {slot} has an identity, but has ended");
                used += 1;
            }
            assert_eq!(block.used, used, "the identities of a block");
            found += used;
        }
        assert_eq!(self.len, found, "the number of identities");
        let mut listed = 0;
        for (user, list) in &self.users {
            let mut previous = NO_CONNECTION;
            let mut len = 0;
            for slot in self.connections_of(user.borrow()) {
                let entry = self.entry(slot).expect("a connection in a list has an identity");
                assert!(
                    entry.identity.user == user.0.user,
                    "connection {slot} is in the list of another user"
                );
                assert_eq!(entry.previous, previous, "the neighbours of connection {slot}");
                previous = slot;
                len += 1;
            }
            assert!(len > 0 && list.len == len, "the length of the list of a user");
            listed += len as usize;
        }
        assert_eq!(listed, found, "each connection with an identity is in the list of its user");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn identity(user: u8) -> Arc<Identity> {
        let (user, claims) = (user.to_string().into(), "{}".into());
        Arc::new(Identity { user, expires: None, claims, on: [].into(), send: [].into(), info: None })
    }

    proptest! {
        #[test]
        fn users_have_their_connections(steps in prop::collection::vec((0..2000_u32, 0..5_u8, any::<bool>()), 0..200)) {
            let (mut identities, mut model) = (Identities::default(), BTreeMap::new());
            for (slot, user, is_added) in steps {
                let slot = slot % 10 * 200;
                if is_added {
                    let user = *model.entry(slot).or_insert(user);
                    identities.set(slot, identity(user));
                } else {
                    identities.remove(slot);
                    model.remove(&slot);
                }
                identities.check(|slot| model.contains_key(&slot));
                prop_assert_eq!(identities.len(), model.len());
                for user in 0..5 {
                    let mut found: Vec<u32> = identities.connections_of(&user.to_string()).collect();
                    found.sort_unstable();
                    let expected = model.iter().filter(|(_, of)| **of == user).map(|(slot, _)| *slot);
                    prop_assert_eq!(found, expected.collect::<Vec<_>>());
                }
            }
            let users: std::collections::BTreeSet<u8> = model.values().copied().collect();
            prop_assert_eq!(identities.users(), users.len());
        }
    }

    #[test]
    fn what_is_not_used_takes_no_memory() {
        let mut identities = Identities::default();
        identities.set(5 * BLOCK as u32, identity(1));
        assert!(identities.blocks[..5].iter().all(|block| block.entries.is_empty()));
        identities.remove(5 * BLOCK as u32);
        assert!(identities.blocks.iter().all(|block| block.entries.is_empty()) && identities.users() == 0);
        identities.give_back(0);
        assert!(identities.blocks.is_empty());
        assert_eq!(size_of::<Option<Identified>>(), 16);
    }

    #[test]
    fn a_later_token_takes_the_place_of_the_first() {
        let mut identities = Identities::default();
        identities.set(1, identity(7));
        let later = identity(7);
        identities.set(1, Arc::clone(&later));
        assert!(Arc::ptr_eq(identities.get(1).unwrap(), &later));
        identities.check(|slot| slot == 1);
    }

    #[test]
    #[should_panic(expected = "connection 1 belongs to another user")]
    fn a_connection_keeps_its_user() {
        let mut identities = Identities::default();
        identities.set(1, identity(7));
        identities.set(1, identity(8));
    }

    #[test]
    #[should_panic(expected = "connection 1 has an identity, but has ended")]
    fn the_check_finds_an_identity_that_was_left_over() {
        let mut identities = Identities::default();
        identities.set(1, identity(7));
        identities.check(|_| false);
    }
}
