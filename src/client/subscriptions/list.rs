//! The list of one client's subscriptions. Two of them need no heap; more are in a table, which finds each of them in
//! constant time.

use super::PathId;
use crate::qev::pairs::{PairTable, Secret, TableSlot, VACANT};

/// The state of a client's subscription to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionState {
    /// The subscription waits for a decision.
    Pending,
    /// The subscription waits for a decision, but the client has unsubscribed in the meantime.
    Tombstoned,
    /// The client is subscribed. The value is its place among the path's subscribers.
    Active(u32),
}

const PENDING: u32 = VACANT - 1;
const TOMBSTONED: u32 = VACANT - 2;

/// The maximum number of subscribers of a path.
pub(super) const PLACES_MAX: u32 = TOMBSTONED;

impl SubscriptionState {
    fn to_value(self) -> u32 {
        match self {
            SubscriptionState::Pending => PENDING,
            SubscriptionState::Tombstoned => TOMBSTONED,
            SubscriptionState::Active(place) => place,
        }
    }

    fn from_value(value: u32) -> SubscriptionState {
        match value {
            PENDING => SubscriptionState::Pending,
            TOMBSTONED => SubscriptionState::Tombstoned,
            place => SubscriptionState::Active(place),
        }
    }
}

/// The paths of one client with their states. The keys of the slots are paths, the values are states. The list has 16
/// bytes, and each client's slot has one.
///
/// Invariants, asserted by [`check`](ClientPaths::check): a path is in the list at most once, and a table has more than
/// one path.
#[derive(Debug)]
pub(super) enum ClientPaths {
    Few([TableSlot; 2]),
    Many(Box<PairTable>),
}

impl ClientPaths {
    pub const EMPTY: ClientPaths = ClientPaths::Few([TableSlot::VACANT; 2]);

    pub fn len(&self) -> usize {
        match self {
            ClientPaths::Few(slots) => slots.iter().filter(|slot| !slot.is_vacant()).count(),
            ClientPaths::Many(table) => table.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, secret: Secret, path: PathId) -> Option<SubscriptionState> {
        let value = match self {
            ClientPaths::Few(slots) => slots[find(slots, path)?].value(),
            ClientPaths::Many(table) => table.value(table.find(secret, path.0, |_| true)?),
        };
        Some(SubscriptionState::from_value(value))
    }

    /// Adds a path that is not in the list.
    pub fn insert(&mut self, secret: Secret, path: PathId, state: SubscriptionState) {
        let added = TableSlot::new(path.0, state.to_value());
        if let ClientPaths::Few(slots) = self {
            if let Some(vacant) = slots.iter_mut().find(|slot| slot.is_vacant()) {
                *vacant = added;
                return;
            }
        }
        self.table(secret).insert(secret, added);
    }

    /// Changes the state of a path that is in the list.
    pub fn set(&mut self, secret: Secret, path: PathId, state: SubscriptionState) {
        match self {
            ClientPaths::Few(slots) => {
                slots[find(slots, path).expect(IN_LIST)] = TableSlot::new(path.0, state.to_value());
            }
            ClientPaths::Many(table) => {
                let at = table.find(secret, path.0, |_| true).expect(IN_LIST);
                table.set(at, state.to_value());
            }
        }
    }

    /// Removes a path that is in the list.
    pub fn remove(&mut self, secret: Secret, path: PathId) {
        match self {
            ClientPaths::Few(slots) => slots[find(slots, path).expect(IN_LIST)] = TableSlot::VACANT,
            ClientPaths::Many(table) => {
                let at = table.find(secret, path.0, |_| true).expect(IN_LIST);
                table.remove(secret, at);
                self.shrink();
            }
        }
    }

    /// Removes any path. Returns it with its state, or `None` if the list is empty.
    pub fn pop(&mut self, secret: Secret) -> Option<(PathId, SubscriptionState)> {
        let slot = match self {
            ClientPaths::Few(slots) => {
                let taken = slots.iter_mut().find(|slot| !slot.is_vacant())?;
                std::mem::replace(taken, TableSlot::VACANT)
            }
            ClientPaths::Many(table) => {
                let taken = table.pop(secret)?;
                self.shrink();
                taken
            }
        };
        Some(subscription(slot))
    }

    /// Returns an iterator over the paths and their states.
    pub fn iter(&self) -> impl Iterator<Item = (PathId, SubscriptionState)> {
        self.slots().iter().filter(|slot| !slot.is_vacant()).map(|slot| subscription(*slot))
    }

    /// Returns an iterator over all slots, with the paths in them and their states.
    pub fn places(&self) -> impl Iterator<Item = Option<(PathId, SubscriptionState)>> {
        self.slots().iter().map(|slot| (!slot.is_vacant()).then(|| subscription(*slot)))
    }

    /// Returns an iterator over the paths in up to `count` slots, which are chosen by `turn`, and their states.
    pub fn iter_some(&self, turn: u64, count: usize) -> impl Iterator<Item = (PathId, SubscriptionState)> {
        let slots = self.slots();
        let some = super::window(turn, count, slots.len()).map(|at| slots[at]);
        some.filter(|slot| !slot.is_vacant()).map(subscription)
    }

    /// Asserts the invariants. The cost is linear in the number of paths.
    pub fn check(&self, secret: Secret) {
        if let ClientPaths::Many(table) = self {
            table.check(secret);
            assert!(table.len() > 1, "a list of at most one path must not have a table");
        }
        for (path, state) in self.iter() {
            assert_eq!(self.get(secret, path), Some(state), "path {} must be in the list once", path.0);
        }
    }

    fn slots(&self) -> &[TableSlot] {
        match self {
            ClientPaths::Few(slots) => slots,
            ClientPaths::Many(table) => table.slots(),
        }
    }

    /// Returns the table. Creates it if the list has none.
    fn table(&mut self, secret: Secret) -> &mut PairTable {
        if let ClientPaths::Few(slots) = *self {
            let mut table = Box::new(PairTable::new());
            slots.iter().filter(|slot| !slot.is_vacant()).for_each(|slot| table.insert(secret, *slot));
            *self = ClientPaths::Many(table);
        }
        match self {
            ClientPaths::Many(table) => table,
            ClientPaths::Few(_) => unreachable!("the list has just become a table"),
        }
    }

    /// Frees the table if only one path is left. A list of two keeps it, because the next path would need it again.
    fn shrink(&mut self) {
        if let ClientPaths::Many(table) = self {
            if table.len() <= 1 {
                let left = table.iter().next().unwrap_or(TableSlot::VACANT);
                *self = ClientPaths::Few([left, TableSlot::VACANT]);
            }
        }
    }
}

const IN_LIST: &str = "the path of a subscription must be in the list of its client";

fn find(slots: &[TableSlot; 2], path: PathId) -> Option<usize> {
    slots.iter().position(|slot| slot.key == path.0 && !slot.is_vacant())
}

fn subscription(slot: TableSlot) -> (PathId, SubscriptionState) {
    (PathId(slot.key), SubscriptionState::from_value(slot.value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ClientPaths {
        pub fn heap_bytes(&self) -> usize {
            match self {
                ClientPaths::Few(_) => 0,
                ClientPaths::Many(table) => size_of::<PairTable>() + table.heap_bytes(),
            }
        }
    }

    #[test]
    fn a_list_is_within_its_budget() {
        assert_eq!(size_of::<ClientPaths>(), 16);
    }

    #[test]
    fn states_are_told_apart() {
        for state in [
            SubscriptionState::Pending,
            SubscriptionState::Tombstoned,
            SubscriptionState::Active(0),
            SubscriptionState::Active(PLACES_MAX - 1),
        ] {
            assert_eq!(SubscriptionState::from_value(state.to_value()), state);
            assert_ne!(state.to_value(), VACANT);
        }
    }

    #[test]
    fn two_paths_need_no_heap() {
        let (secret, mut list) = (Secret::colliding(), ClientPaths::EMPTY);
        let heap = |list: &ClientPaths| list.heap_bytes() > 0;
        for (path, expected) in [(0, false), (1, false), (2, true), (3, true)] {
            list.insert(secret, PathId(path), SubscriptionState::Pending);
            assert_eq!(heap(&list), expected, "after inserting path {path}");
        }
        for (path, expected) in [(0, true), (3, true), (1, false), (2, false)] {
            list.remove(secret, PathId(path));
            assert_eq!(heap(&list), expected, "after removing path {path}");
        }
        assert_eq!(list.len(), 0);
    }

    #[test]
    #[should_panic(expected = "path 7 must be in the list once")]
    fn the_check_finds_a_path_that_is_in_the_list_twice() {
        let (secret, mut list) = (Secret::colliding(), ClientPaths::EMPTY);
        list.insert(secret, PathId(7), SubscriptionState::Pending);
        list.insert(secret, PathId(7), SubscriptionState::Active(0));
        list.check(secret);
    }
}
