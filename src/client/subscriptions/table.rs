//! An open-addressing table of pairs of `u32`, eight bytes a slot: a large client's list, and the index of
//! paths.
//!
//! A standard map would be as small, but for a shard it has three faults. It hashes every key again when it
//! grows, which for paths means a cache miss and a string for each, all in one turn; here 32 bits of the hash
//! are the key. It cannot be emptied in pieces. And each carries a hasher, where here one secret serves all.
//!
//! Linear probing, at most three quarters full; removal moves later slots back, so there are no tombstones.
//! Where a key's probe begins is decided with a [`Secret`], since a peer may choose which keys it keeps.

use ahash::RandomState;

/// A value that no slot may have: the slot is vacant.
pub(super) const VACANT: u32 = u32::MAX;

/// A table is made with this many slots, and has no fewer.
const SLOTS_MIN: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub key: u32,
    pub value: u32,
}

impl Slot {
    pub const VACANT: Slot = Slot { key: 0, value: VACANT };

    pub fn is_vacant(self) -> bool {
        self.value == VACANT
    }
}

/// What makes the order of slots unpredictable. Every table of a shard uses the same; it is not kept in each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secret {
    mixed: u64,
    factor: u64,
}

impl Secret {
    pub fn new(random: &RandomState) -> Secret {
        // Odd, so that no bit of the key is lost.
        Secret { mixed: random.hash_one(1), factor: random.hash_one(2) | 1 }
    }

    /// One multiplication to 128 bits, its halves folded.
    fn spread(self, key: u32) -> usize {
        let product = u128::from(u64::from(key) ^ self.mixed) * u128::from(self.factor);
        ((product >> 64) as u64 ^ product as u64) as usize
    }
}

/// Invariants: the slots are a power of two; a quarter of them at least is vacant; between the slot where a
/// key's probe begins and the slot that has it, none is vacant; every slot from `end` on is vacant.
#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[Slot]>,
    len: u32,
    end: u32,
}

impl Table {
    pub fn new() -> Table {
        Table::with_slots(SLOTS_MIN)
    }

    fn with_slots(slots: usize) -> Table {
        Table { slots: vec![Slot::VACANT; slots].into(), len: 0, end: 0 }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Where the pair is whose key is `key` and whose value `is` it; keys need not be unique, pairs must.
    pub fn find(&self, secret: Secret, key: u32, mut is: impl FnMut(u32) -> bool) -> Option<usize> {
        let mut at = self.home(secret, key);
        loop {
            let slot = self.slots[at];
            if slot.is_vacant() {
                return None;
            }
            if slot.key == key && is(slot.value) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    pub fn value(&self, at: usize) -> u32 {
        self.slots[at].value
    }

    pub fn set(&mut self, at: usize, value: u32) {
        debug_assert!(value != VACANT && !self.slots[at].is_vacant());
        self.slots[at].value = value;
    }

    /// Adds a pair that is not there.
    pub fn insert(&mut self, secret: Secret, slot: Slot) {
        debug_assert!(!slot.is_vacant());
        if (self.len() + 1) * 4 > self.slots.len() * 3 {
            self.rebuild(secret, self.slots.len() * 2);
        }
        self.place(secret, slot);
    }

    /// Removes the pair at `at`. Positions found before mean nothing afterwards.
    pub fn remove(&mut self, secret: Secret, at: usize) {
        self.close_gap(secret, at);
        self.len -= 1;
        // Half full again afterwards at most, and not at every insertion and removal around one size.
        if self.len() * 16 < self.slots.len() * 3 && self.slots.len() > SLOTS_MIN {
            self.rebuild(secret, self.slots.len() / 2);
        }
    }

    /// Removes some pair. Emptying a table by this is linear in its slots, and may stop half way.
    pub fn pop(&mut self, secret: Secret) -> Option<Slot> {
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

    pub fn iter(&self) -> impl Iterator<Item = Slot> {
        self.slots.iter().copied().filter(|slot| !slot.is_vacant())
    }

    fn rebuild(&mut self, secret: Secret, slots: usize) {
        let mut rebuilt = Table::with_slots(slots);
        self.iter().for_each(|slot| rebuilt.place(secret, slot));
        *self = rebuilt;
    }

    fn place(&mut self, secret: Secret, slot: Slot) {
        let mut at = self.home(secret, slot.key);
        while !self.slots[at].is_vacant() {
            at = self.after(at);
        }
        self.slots[at] = slot;
        self.len += 1;
        self.end = self.end.max(u32::try_from(at + 1).expect("a table has fewer than 2^32 slots"));
    }

    /// Moves back whatever had to go past `gap` when it was placed.
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
        self.slots[gap] = Slot::VACANT;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Secret {
        /// Every probe begins at the same slot.
        pub fn colliding() -> Secret {
            Secret { mixed: 0, factor: 0 }
        }

        fn seeded(seed: u64) -> Secret {
            Secret::new(&RandomState::with_seeds(seed, 1, 2, 3))
        }
    }

    impl Table {
        pub fn assert_invariants(&self, secret: Secret) {
            assert!(self.slots.len().is_power_of_two());
            assert!(self.len() * 4 <= self.slots.len() * 3, "too full");
            assert!(self.len() * 16 >= self.slots.len() * 3 || self.slots.len() == SLOTS_MIN, "too empty");
            assert_eq!(self.iter().count(), self.len());
            assert!(self.slots[self.end as usize..].iter().all(|slot| slot.is_vacant()));
            for slot in self.iter() {
                assert!(self.find(secret, slot.key, |value| value == slot.value).is_some());
            }
        }

        pub fn heap_bytes(&self) -> usize {
            size_of_val(&*self.slots)
        }

        /// Slots that are looked at to find the key that is the hardest to find.
        fn longest_probe(&self, secret: Secret) -> usize {
            let slots = self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_vacant());
            slots.map(|(at, slot)| self.distance(self.home(secret, slot.key), at) + 1).max().unwrap_or(0)
        }
    }

    #[test]
    fn a_slot_is_eight_bytes() {
        assert_eq!(size_of::<Slot>(), 8);
        assert!(size_of::<Table>() <= 24);
    }

    #[test]
    fn equal_keys_are_told_apart_by_value() {
        let (secret, mut table) = (Secret::seeded(0), Table::new());
        for value in 0..20 {
            table.insert(secret, Slot { key: 7, value });
        }
        for value in 0..20 {
            let at = table.find(secret, 7, |candidate| candidate == value).unwrap();
            table.remove(secret, at);
            table.assert_invariants(secret);
            assert_eq!(table.find(secret, 7, |candidate| candidate == value), None);
        }
    }

    /// Keys as a peer may choose them among dense ids: all, strides, and those that collide under another
    /// secret.
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
                let (secret, mut table) = (Secret::seeded(seed), Table::new());
                keys.iter().for_each(|key| table.insert(secret, Slot { key: *key, value: 0 }));
                let longest = table.longest_probe(secret);
                assert!(longest < 256, "{longest} slots looked at, seed {seed}");
            }
        }
    }

    #[test]
    fn emptying_is_linear() {
        let (secret, mut table) = (Secret::seeded(1), Table::new());
        (0..100_000).for_each(|key| table.insert(secret, Slot { key, value: 1 }));
        let mut popped: Vec<u32> = std::iter::from_fn(|| table.pop(secret)).map(|slot| slot.key).collect();
        popped.sort_unstable();
        assert!(popped.into_iter().eq(0..100_000));
        assert_eq!(table.slots.len(), SLOTS_MIN);
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
        fn as_the_model(steps in steps(), seed in 0..4_u64) {
            let secret = if seed == 0 { Secret::colliding() } else { Secret::seeded(seed) };
            let (mut table, mut model) = (Table::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        if model.insert(key, value).is_none() {
                            table.insert(secret, Slot { key, value });
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
                            prop_assert_eq!(model.remove(&slot.key), Some(slot.value));
                        }
                    }
                }
                table.assert_invariants(secret);
                for (key, value) in &model {
                    let at = table.find(secret, *key, |_| true);
                    prop_assert_eq!(at.map(|at| table.value(at)), Some(*value));
                }
            }
        }
    }
}
