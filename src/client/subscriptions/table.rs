//! An open-addressing table of pairs of `u32`, eight bytes a slot: a large client's list, and the index of paths.
//!
//! The standard map would do, but for three things. It takes 9 to 20 bytes for such a pair where this takes 11 to
//! 21 in all, so that the list itself can be the index; it keeps its memory for ever, so that clients who
//! subscribe and unsubscribe in turns could make a shard hold far more than its limits say; and it hashes every key again when it
//! grows, which for paths means a cache miss and a string for each.
//!
//! Linear probing, at most three quarters full; removal moves later slots back, so there are no tombstones. Where a
//! key's probe begins is decided with a [`Secret`], since a peer may choose which keys it keeps.

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

/// Invariants: the slots are a power of two; a quarter of them at least is vacant; between the slot where a key's
/// probe begins and the slot that has it, none is vacant; every slot from `end` on is vacant.
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
