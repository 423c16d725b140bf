//! The clients whose latest token grants other paths than the one before: their subscriptions have to be checked.

use crate::client::subscriptions::PathId;
use std::collections::BTreeSet;

/// The connections whose subscriptions have to be checked, one after the other. Each waits once, however often its client sends
/// another token. A connection may end meanwhile, and another one may get its slot: its subscriptions are then checked in vain.
///
/// Invariants: a connection that is being checked has paths that are left.
#[derive(Default)]
pub(super) struct GrantChecks {
    waiting: BTreeSet<u32>,
    /// The connection that is being checked, and the paths that are left. Some may no longer be in use.
    current: Option<(u32, Vec<PathId>)>,
    /// The slot that has waited longest or has a higher number: clients of low slots cannot keep others waiting.
    next: u32,
}

impl GrantChecks {
    /// Has the subscriptions of a connection's client checked.
    pub fn request(&mut self, slot: u32) {
        self.waiting.insert(slot);
    }

    /// Returns whether no connection has to be checked.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.waiting.is_empty()
    }

    /// Takes the connection that is to be checked next, if none is being checked.
    pub fn take_waiting(&mut self) -> Option<u32> {
        if self.current.is_some() {
            return None;
        }
        let slot = self.waiting.range(self.next..).next().or(self.waiting.first()).copied()?;
        self.waiting.remove(&slot);
        self.next = slot.wrapping_add(1);
        Some(slot)
    }

    /// Begins to check the paths of a connection's client.
    ///
    /// # Panics
    ///
    /// Another connection is being checked.
    pub fn begin(&mut self, slot: u32, paths: Vec<PathId>) {
        assert!(self.current.is_none(), "one connection is checked at a time");
        self.current = (!paths.is_empty()).then_some((slot, paths));
    }

    /// Takes the next path to be checked, and the connection whose it is.
    pub fn next_path(&mut self) -> Option<(u32, PathId)> {
        let (slot, paths) = self.current.as_mut()?;
        let next = (*slot, paths.pop()?);
        if paths.is_empty() {
            self.current = None;
        }
        Some(next)
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        let has_paths = self.current.as_ref().is_none_or(|(_, paths)| !paths.is_empty());
        assert!(has_paths, "a connection is being checked that has no paths");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns() {
        let mut checks = GrantChecks::default();
        for slot in [7, 3, 7, 5] {
            checks.request(slot);
        }
        assert_eq!(checks.take_waiting(), Some(3));
        checks.request(3);
        checks.request(1);
        for slot in [5, 7, 1, 3] {
            assert_eq!(checks.take_waiting(), Some(slot));
            checks.begin(slot, Vec::new());
            checks.check();
        }
        assert!(checks.is_empty() && checks.take_waiting().is_none() && checks.next_path().is_none());
    }
}
