//! An open-addressing table of pairs of `u32`, with eight bytes a slot. It is the list of a client with many
//! subscriptions, the index of paths, and the table of session ids.
//!
//! A table doubles when it is three quarters full: an entry takes 11 to 21 bytes. It does not grow in smaller steps,
//! because each step places every pair again.
//!
//! A standard map would be as small, but has three drawbacks for a shard. It hashes every key again when it grows,
//! which for paths means a cache miss and a string for each, all in one turn; here the key is 32 bits of the hash. It
//! cannot be emptied in pieces. And each map has a hasher of its own; here one secret serves all tables.
//!
//! Collisions are resolved by linear probing. The table is at most three quarters full. Removal moves later slots back,
//! which means that there are no tombstones. The slot at which the probe for a key begins depends on a [`Secret`],
//! because a peer may choose which keys are in the table.

use ahash::RandomState;
use std::num::NonZeroU32;

/// The value of a vacant slot. No value is larger.
pub const VACANT: u32 = u32::MAX - 1;

/// The minimum number of slots.
const SLOTS_MIN: usize = 4;

/// A slot: a pair of a key and a value, or vacant.
///
/// The value is stored with its bits inverted, and is therefore not 0: the list of a client uses this to tell its two
/// forms apart without another word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSlot {
    inverted: NonZeroU32,
    pub key: u32,
}

impl TableSlot {
    pub const VACANT: TableSlot = TableSlot::new(0, VACANT);

    /// Returns a pair of a key and a value.
    #[inline]
    pub const fn new(key: u32, value: u32) -> TableSlot {
        TableSlot { inverted: NonZeroU32::new(!value).expect("a value is at most `VACANT`"), key }
    }

    #[inline]
    pub fn value(self) -> u32 {
        !self.inverted.get()
    }

    #[inline]
    pub fn is_vacant(self) -> bool {
        self.value() == VACANT
    }
}

/// A secret that makes the order of slots unpredictable. All tables of a shard share one secret, which is passed to
/// their methods and not stored in each table.
#[derive(Clone, Copy, Debug)]
pub struct Secret {
    mixed: u64,
    factor: u64,
}

impl Secret {
    pub fn new(random: &RandomState) -> Secret {
        // An odd factor loses no bit of the key.
        Secret { mixed: random.hash_one(1), factor: random.hash_one(2) | 1 }
    }

    /// Returns a hash of the key: a multiplication to 128 bits, the halves of which are combined by XOR.
    fn spread(self, key: u32) -> usize {
        let product = u128::from(u64::from(key) ^ self.mixed) * u128::from(self.factor);
        ((product >> 64) as u64 ^ product as u64) as usize
    }
}

/// A table of pairs of a key and a value. Keys need not be unique, but pairs must be.
///
/// Invariants, asserted by [`check`](PairTable::check):
///
/// - The number of slots is a power of two. At most three quarters of them are used, and at least three sixteenths,
///   unless the table has the minimum size.
/// - `len` is the number of used slots, and all slots from `end` on are vacant.
/// - No slot is vacant between the one at which a key's probe begins and the one that has the key.
#[derive(Debug)]
pub struct PairTable {
    slots: Box<[TableSlot]>,
    len: u32,
    end: u32,
}

impl PairTable {
    pub fn new() -> PairTable {
        PairTable::with_slots(SLOTS_MIN)
    }

    fn with_slots(slots: usize) -> PairTable {
        PairTable { slots: vec![TableSlot::VACANT; slots].into(), len: 0, end: 0 }
    }

    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns `true` if there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the position of the pair with this key whose value matches the predicate.
    pub fn find(&self, secret: Secret, key: u32, mut matches: impl FnMut(u32) -> bool) -> Option<usize> {
        let mut at = self.home(secret, key);
        loop {
            let slot = self.slots[at];
            if slot.is_vacant() {
                return None;
            }
            if slot.key == key && matches(slot.value()) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    pub fn value(&self, at: usize) -> u32 {
        self.slots[at].value()
    }

    pub fn set(&mut self, at: usize, value: u32) {
        debug_assert!(value != VACANT && !self.slots[at].is_vacant());
        self.slots[at] = TableSlot::new(self.slots[at].key, value);
    }

    /// Adds a pair that is not in the table.
    pub fn insert(&mut self, secret: Secret, slot: TableSlot) {
        debug_assert!(!slot.is_vacant());
        if (self.len() + 1) * 4 > self.slots.len() * 3 {
            self.rebuild(secret, self.slots.len() * 2);
        }
        self.place(secret, slot);
    }

    /// Removes the pair at a position. Positions that were found earlier are no longer valid.
    pub fn remove(&mut self, secret: Secret, at: usize) {
        self.close_gap(secret, at);
        self.len -= 1;
        // Afterwards the table is at most half full. It is therefore not rebuilt by every insertion and removal around
        // one size.
        if self.len() * 16 < self.slots.len() * 3 && self.slots.len() > SLOTS_MIN {
            self.rebuild(secret, self.slots.len() / 2);
        }
    }

    /// Removes any pair and returns it. Emptying a table in this way has linear cost, and may be interrupted.
    pub fn pop(&mut self, secret: Secret) -> Option<TableSlot> {
        if self.len == 0 {
            return None;
        }
        while self.slots[self.end as usize - 1].is_vacant() {
            self.end -= 1;
        }
        let at = self.end as usize - 1;
        let slot = self.slots[at];
        self.remove(secret, at);
        Some(slot)
    }

    pub fn slots(&self) -> &[TableSlot] {
        &self.slots
    }

    /// Returns an iterator over the pairs.
    pub fn iter(&self) -> impl Iterator<Item = TableSlot> {
        self.slots.iter().copied().filter(|slot| !slot.is_vacant())
    }

    /// Asserts the invariants. The cost is linear in the number of slots.
    pub fn check(&self, secret: Secret) {
        assert!(self.slots.len().is_power_of_two(), "the number of slots must be a power of two");
        assert!(self.len() * 4 <= self.slots.len() * 3, "at most three quarters of the slots may be used");
        let is_dense = self.len() * 16 >= self.slots.len() * 3 || self.slots.len() == SLOTS_MIN;
        assert!(is_dense, "at least three sixteenths of the slots must be used");
        assert_eq!(self.iter().count(), self.len(), "`len` must be the number of used slots");
        let mut rest = self.slots[self.end as usize..].iter();
        assert!(rest.all(|slot| slot.is_vacant()), "the slots from `end` on must be vacant");
        for slot in self.iter() {
            let found = self.find(secret, slot.key, |value| value == slot.value());
            assert!(found.is_some(), "the probe for key {} must find the pair", slot.key);
        }
    }

    fn rebuild(&mut self, secret: Secret, slots: usize) {
        let mut rebuilt = PairTable::with_slots(slots);
        self.iter().for_each(|slot| rebuilt.place(secret, slot));
        *self = rebuilt;
    }

    fn place(&mut self, secret: Secret, slot: TableSlot) {
        let mut at = self.home(secret, slot.key);
        while !self.slots[at].is_vacant() {
            at = self.after(at);
        }
        self.slots[at] = slot;
        self.len += 1;
        self.end = self.end.max(u32::try_from(at + 1).expect("a table has fewer than 2^32 slots"));
    }

    /// Moves back the pairs that would now be placed at `gap` or before it, and makes the slot that remains vacant.
    fn close_gap(&mut self, secret: Secret, mut gap: usize) {
        let mut at = self.after(gap);
        while !self.slots[at].is_vacant() {
            let probed = self.distance(self.home(secret, self.slots[at].key), at);
            if probed >= self.distance(gap, at) {
                self.slots[gap] = self.slots[at];
                gap = at;
            }
            at = self.after(at);
        }
        self.slots[gap] = TableSlot::VACANT;
    }

    fn home(&self, secret: Secret, key: u32) -> usize {
        secret.spread(key) & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

impl Default for PairTable {
    fn default() -> PairTable {
        PairTable::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Secret {
        /// Returns a secret with which every probe begins at the same slot.
        pub fn colliding() -> Secret {
            Secret { mixed: 0, factor: 0 }
        }

        fn seeded(seed: u64) -> Secret {
            Secret::new(&RandomState::with_seeds(seed, 1, 2, 3))
        }
    }

    impl PairTable {
        pub fn heap_bytes(&self) -> usize {
            size_of_val(&*self.slots)
        }

        /// The number of slots that are examined to find the key with the longest probe.
        fn longest_probe(&self, secret: Secret) -> usize {
            let slots = self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_vacant());
            slots.map(|(at, slot)| self.distance(self.home(secret, slot.key), at) + 1).max().unwrap_or(0)
        }
    }

    #[test]
    fn a_slot_is_eight_bytes() {
        assert_eq!(size_of::<TableSlot>(), 8);
        assert!(size_of::<PairTable>() <= 24);
    }

    #[test]
    fn equal_keys_are_told_apart_by_value() {
        let (secret, mut table) = (Secret::seeded(0), PairTable::new());
        for value in 0..20 {
            table.insert(secret, TableSlot::new(7, value));
        }
        for value in 0..20 {
            let at = table.find(secret, 7, |candidate| candidate == value).unwrap();
            table.remove(secret, at);
            table.check(secret);
            assert_eq!(table.find(secret, 7, |candidate| candidate == value), None);
        }
    }

    /// The keys that a peer may choose among dense ids: all, strides, and those that collide under another secret.
    #[test]
    fn chosen_keys_do_not_make_long_probes() {
        const KEYS: usize = 3 << 12;
        let known = Secret::seeded(99);
        let collide = |key: &u32| known.spread(*key) & 0x3fff < 0x100;
        let chosen: [Vec<u32>; 4] = [
            (0..KEYS as u32).collect(),
            (0..KEYS as u32).map(|key| key << 14).collect(),
            (0..KEYS as u32).map(|key| key * 0x1_0001).collect(),
            (0..).filter(collide).take(KEYS).collect(),
        ];
        for seed in 0..4 {
            for keys in &chosen {
                let (secret, mut table) = (Secret::seeded(seed), PairTable::new());
                keys.iter().for_each(|key| table.insert(secret, TableSlot::new(*key, 0)));
                let longest = table.longest_probe(secret);
                assert!(longest < 256, "{longest} slots examined, seed {seed}");
            }
        }
    }

    #[test]
    fn emptying_has_linear_cost() {
        let (secret, mut table) = (Secret::seeded(1), PairTable::new());
        (0..100_000).for_each(|key| table.insert(secret, TableSlot::new(key, 1)));
        let mut popped: Vec<u32> = std::iter::from_fn(|| table.pop(secret)).map(|slot| slot.key).collect();
        popped.sort_unstable();
        assert!(popped.into_iter().eq(0..100_000));
        assert_eq!(table.slots.len(), SLOTS_MIN);
    }

    fn three() -> (Secret, PairTable) {
        let (secret, mut table) = (Secret::colliding(), PairTable::new());
        (0..3).for_each(|key| table.insert(secret, TableSlot::new(key, key)));
        (secret, table)
    }

    #[test]
    #[should_panic(expected = "the probe for key 2 must find the pair")]
    fn the_check_finds_a_pair_behind_a_gap() {
        let (secret, mut table) = three();
        table.slots[1] = TableSlot::VACANT;
        table.len -= 1;
        table.check(secret);
    }

    #[test]
    #[should_panic(expected = "`len` must be the number of used slots")]
    fn the_check_finds_a_wrong_length() {
        let (secret, mut table) = three();
        table.len -= 1;
        table.check(secret);
    }

    #[test]
    #[should_panic(expected = "the slots from `end` on must be vacant")]
    fn the_check_finds_a_wrong_end() {
        let (secret, mut table) = three();
        table.end -= 1;
        table.check(secret);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, u32),
        Set(u32, u32),
        Remove(u32),
        Pop,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0..60_u32;
        let step = prop_oneof![
            4 => (key.clone(), 0..9_u32).prop_map(|(key, value)| Step::Insert(key, value)),
            1 => (key.clone(), 0..9_u32).prop_map(|(key, value)| Step::Set(key, value)),
            2 => key.prop_map(Step::Remove),
            1 => Just(Step::Pop),
        ];
        prop::collection::vec(step, 0..150)
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in steps(), seed in 0..4_u64) {
            let secret = if seed == 0 { Secret::colliding() } else { Secret::seeded(seed) };
            let (mut table, mut model) = (PairTable::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        if model.insert(key, value).is_none() {
                            table.insert(secret, TableSlot::new(key, value));
                        } else {
                            let at = table.find(secret, key, |_| true).unwrap();
                            table.set(at, value);
                        }
                    }
                    Step::Set(key, value) => {
                        let at = table.find(secret, key, |_| true);
                        prop_assert_eq!(at.is_some(), model.contains_key(&key));
                        if let Some(at) = at {
                            table.set(at, value);
                            model.insert(key, value);
                        }
                    }
                    Step::Remove(key) => {
                        let at = table.find(secret, key, |_| true);
                        prop_assert_eq!(at.map(|at| table.value(at)), model.remove(&key));
                        at.into_iter().for_each(|at| table.remove(secret, at));
                    }
                    Step::Pop => {
                        let popped = table.pop(secret);
                        prop_assert_eq!(popped.is_some(), !model.is_empty());
                        if let Some(slot) = popped {
                            prop_assert_eq!(model.remove(&slot.key), Some(slot.value()));
                        }
                    }
                }
                table.check(secret);
                for (key, value) in &model {
                    let at = table.find(secret, *key, |_| true);
                    prop_assert_eq!(at.map(|at| table.value(at)), Some(*value));
                }
            }
        }
    }
}
