//! One client's own list of subscriptions: two without heap, more in a table that finds each at once.

use super::PathId;
use super::table::{Secret, Slot, Table, VACANT};

/// What a client has at a path. Without a state it has nothing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Whether it may subscribe is being decided.
    Pending,
    /// As pending, but it has unsubscribed meanwhile.
    Tombstoned,
    /// Subscribed: its place among the path's subscribers.
    Active(u32),
}

const PENDING: u32 = VACANT - 1;
const TOMBSTONED: u32 = VACANT - 2;

/// A path may have fewer subscribers than this.
pub(super) const PLACES_MAX: u32 = TOMBSTONED;

impl State {
    fn to_value(self) -> u32 {
        match self {
            State::Pending => PENDING,
            State::Tombstoned => TOMBSTONED,
            State::Active(place) => place,
        }
    }

    fn from_value(value: u32) -> State {
        match value {
            PENDING => State::Pending,
            TOMBSTONED => State::Tombstoned,
            place => State::Active(place),
        }
    }
}

/// Keys are paths, values are states. A path is in it once at most.
#[derive(Debug)]
pub(super) enum List {
    Few([Slot; 2]),
    Many(Box<Table>),
}

impl List {
    pub const EMPTY: List = List::Few([Slot::VACANT; 2]);

    pub fn len(&self) -> usize {
        match self {
            List::Few(slots) => slots.iter().filter(|slot| !slot.is_vacant()).count(),
            List::Many(table) => table.len(),
        }
    }

    pub fn get(&self, secret: Secret, path: PathId) -> Option<State> {
        let value = match self {
            List::Few(slots) => slots[find(slots, path)?].value,
            List::Many(table) => table.value(table.find(secret, path.0, |_| true)?),
        };
        Some(State::from_value(value))
    }

    /// Adds a path that is not there.
    pub fn insert(&mut self, secret: Secret, path: PathId, state: State) {
        let added = Slot { key: path.0, value: state.to_value() };
        if let List::Few(slots) = self {
            if let Some(vacant) = slots.iter_mut().find(|slot| slot.is_vacant()) {
                *vacant = added;
                return;
            }
        }
        self.table(secret).insert(secret, added);
    }

    /// Changes the state of a path that is there.
    pub fn set(&mut self, secret: Secret, path: PathId, state: State) {
        match self {
            List::Few(slots) => slots[find(slots, path).expect(THERE)].value = state.to_value(),
            List::Many(table) => {
                let at = table.find(secret, path.0, |_| true).expect(THERE);
                table.set(at, state.to_value());
            }
        }
    }

    /// Removes a path that is there.
    pub fn remove(&mut self, secret: Secret, path: PathId) {
        match self {
            List::Few(slots) => slots[find(slots, path).expect(THERE)] = Slot::VACANT,
            List::Many(table) => {
                let at = table.find(secret, path.0, |_| true).expect(THERE);
                table.remove(secret, at);
                self.settle();
            }
        }
    }

    /// Removes some path.
    pub fn pop(&mut self, secret: Secret) -> Option<(PathId, State)> {
        let slot = match self {
            List::Few(slots) => {
                let taken = slots.iter_mut().find(|slot| !slot.is_vacant())?;
                std::mem::replace(taken, Slot::VACANT)
            }
            List::Many(table) => {
                let taken = table.pop(secret)?;
                self.settle();
                taken
            }
        };
        Some((PathId(slot.key), State::from_value(slot.value)))
    }

    /// The table, made of the few where it is not there yet.
    fn table(&mut self, secret: Secret) -> &mut Table {
        if let List::Few(slots) = *self {
            let mut table = Box::new(Table::new());
            slots.iter().filter(|slot| !slot.is_vacant()).for_each(|slot| table.insert(secret, *slot));
            *self = List::Many(table);
        }
        match self {
            List::Many(table) => table,
            List::Few(_) => unreachable!("it has just been made a table"),
        }
    }

    /// Gives the table back when one path is left: not at two, where the next one would need it again.
    fn settle(&mut self) {
        if let List::Many(table) = self {
            if table.len() <= 1 {
                let left = table.iter().next().unwrap_or(Slot::VACANT);
                *self = List::Few([left, Slot::VACANT]);
            }
        }
    }
}

const THERE: &str = "a client's list has every path that it has a state at";

fn find(slots: &[Slot; 2], path: PathId) -> Option<usize> {
    slots.iter().position(|slot| slot.key == path.0 && !slot.is_vacant())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl List {
        pub fn states(&self) -> Vec<(PathId, State)> {
            let slots: Vec<Slot> = match self {
                List::Few(slots) => slots.iter().copied().filter(|slot| !slot.is_vacant()).collect(),
                List::Many(table) => table.iter().collect(),
            };
            slots.into_iter().map(|slot| (PathId(slot.key), State::from_value(slot.value))).collect()
        }

        pub fn assert_invariants(&self, secret: Secret) {
            if let List::Many(table) = self {
                table.assert_invariants(secret);
                assert!(table.len() > 1, "so few need no table");
            }
        }

        pub fn heap_bytes(&self) -> usize {
            match self {
                List::Few(_) => 0,
                List::Many(table) => size_of::<Table>() + table.heap_bytes(),
            }
        }
    }

    #[test]
    fn states_are_told_apart() {
        for state in [State::Pending, State::Tombstoned, State::Active(0), State::Active(PLACES_MAX - 1)] {
            assert_eq!(State::from_value(state.to_value()), state);
            assert_ne!(state.to_value(), VACANT);
        }
    }

    #[test]
    fn two_need_no_heap() {
        let (secret, mut list) = (Secret::colliding(), List::EMPTY);
        let heap = |list: &List| list.heap_bytes() > 0;
        for (path, expected) in [(0, false), (1, false), (2, true), (3, true)] {
            list.insert(secret, PathId(path), State::Pending);
            assert_eq!(heap(&list), expected, "with {path} before");
        }
        for (path, expected) in [(0, true), (3, true), (1, false), (2, false)] {
            list.remove(secret, PathId(path));
            assert_eq!(heap(&list), expected, "without {path}");
        }
        assert_eq!(list.len(), 0);
    }
}
