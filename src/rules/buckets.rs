//! Token buckets, which enforce rates.
//!
//! A bucket is eight bytes: the time at which it is full again (the generic cell rate algorithm), and a few bits of its
//! key. A bucket that is full is the same as none. It therefore needs no removal: its place is free for others from then on.

use super::rate::Rate;
use crate::limits::RATE_BUCKETS_MAX;
use ahash::RandomState;
use std::hash::Hash;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of places among which a bucket has its own: a cache line.
const SET: usize = 8;

/// The number of places that are allocated together: a page.
const BLOCK: usize = 512;

/// The number of bits of the time in a place, in microseconds: 203 days, after which it begins anew. Above it are bits of the
/// key.
const TIME_BITS: u32 = 44;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

const _: () =
    assert!(RATE_BUCKETS_MAX.is_power_of_two() && RATE_BUCKETS_MAX % BLOCK == 0 && BLOCK % SET == 0);
const _: () =
    assert!(2 * Rate::FULL_MAX.as_micros() < 1 << (TIME_BITS - 1), "a time in the future must not look past");

/// Token buckets in a table of a fixed number of places, of which pages exist once they are used. Shards can share it.
///
/// Two keys are taken for the same with a probability of one to a million for each of the seven others among which a bucket
/// has its place. If all of them are in use, the one that is nearest to being full makes room: its client gets a few events
/// more than its rate.
pub struct Buckets {
    blocks: Box<[OnceLock<Box<[AtomicU64; BLOCK]>>]>,
    hasher: RandomState,
    evicted: AtomicU64,
}

/// The key of a bucket, hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketKey(u64);

impl Buckets {
    /// Returns a table without buckets.
    #[must_use]
    pub fn new() -> Buckets {
        Buckets {
            blocks: (0..RATE_BUCKETS_MAX / BLOCK).map(|_| OnceLock::new()).collect(),
            hasher: RandomState::new(),
            evicted: AtomicU64::new(0),
        }
    }

    /// Returns the key of a bucket in this table.
    #[inline]
    pub fn key(&self, key: impl Hash) -> BucketKey {
        BucketKey(self.hasher.hash_one(key))
    }

    /// Returns a number that stands for a value in keys of this table and of others.
    pub fn number(&self, value: impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    /// Takes a token from a bucket, and returns whether it had one. A key must be used with the same rate each time: the rate
    /// is part of what was hashed.
    pub fn take(&self, key: BucketKey, rate: Rate, now_us: u64) -> bool {
        let places = self.places(key);
        let tag = key.0 & !TIME_MASK;
        let (interval, tolerance) = rate.as_micros();
        // Another shard may use a place at the same time. It can do so only a few times before this shard has its turn.
        loop {
            let (place, found) = find(places, tag, now_us);
            let full_at = left(found, now_us);
            if found & !TIME_MASK == tag && full_at > tolerance {
                return false;
            }
            let is_evicted = found & !TIME_MASK != tag && full_at > 0;
            let begins = if is_evicted { 0 } else { full_at };
            let filled = tag | now_us.wrapping_add(begins + interval) & TIME_MASK;
            if place.compare_exchange(found, filled, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.evicted.fetch_add(u64::from(is_evicted), Ordering::Relaxed);
                return true;
            }
        }
    }

    /// Returns the number of buckets that have made room for others before they were full.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Returns the memory that the places take, in bytes.
    pub fn bytes(&self) -> usize {
        let used = self.blocks.iter().filter(|block| block.get().is_some()).count();
        used * size_of::<[AtomicU64; BLOCK]>()
    }

    /// Returns the places of which one is that of a bucket.
    fn places(&self, key: BucketKey) -> &[AtomicU64] {
        let set = key.0 as usize % (RATE_BUCKETS_MAX / SET);
        let at = set * SET;
        let block = self.blocks[at / BLOCK].get_or_init(|| Box::new([const { AtomicU64::new(0) }; BLOCK]));
        &block[at % BLOCK..][..SET]
    }
}

/// Returns the place of a bucket, and its content: the bucket itself, or a free place, or the bucket that is nearest to being
/// full.
fn find(places: &[AtomicU64], tag: u64, now_us: u64) -> (&AtomicU64, u64) {
    let mut best: Option<(&AtomicU64, u64)> = None;
    for place in places {
        let found = place.load(Ordering::Relaxed);
        if found & !TIME_MASK == tag && left(found, now_us) > 0 {
            return (place, found);
        }
        if best.is_none_or(|(_, other)| left(found, now_us) < left(other, now_us)) {
            best = Some((place, found));
        }
    }
    best.expect("a set has places")
}

/// Returns the time in microseconds until a bucket is full; 0 if it is. A time too far in the future is one of long ago.
#[inline]
fn left(place: u64, now_us: u64) -> u64 {
    let left = place.wrapping_sub(now_us) & TIME_MASK;
    if left <= 2 * Rate::FULL_MAX.as_micros() as u64 { left } else { 0 }
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const SECOND: u64 = 1_000_000;

    fn rate(text: &str, burst: Option<u32>) -> Rate {
        Rate::parse(text, burst).unwrap()
    }

    /// Returns how many of `tries` events at one time pass.
    fn passed(buckets: &Buckets, key: BucketKey, rate: Rate, now_us: u64, tries: usize) -> usize {
        (0..tries).filter(|_| buckets.take(key, rate, now_us)).count()
    }

    #[test]
    fn a_bucket_has_its_burst_and_fills_at_its_rate() {
        for start in [0, 5, TIME_MASK - SECOND, u64::MAX >> 10] {
            let buckets = Buckets::new();
            assert_eq!(buckets.bytes(), 0);
            let key = buckets.key((1, 2));
            let ten = rate("10/s", None);
            assert_eq!(passed(&buckets, key, ten, start, 50), 10);
            assert_eq!(passed(&buckets, key, ten, start + SECOND / 10 - 1, 50), 0);
            assert_eq!(passed(&buckets, key, ten, start + SECOND / 10, 50), 1);
            assert_eq!(passed(&buckets, key, ten, start + SECOND / 2, 50), 4);
            assert_eq!(passed(&buckets, key, ten, start + 10 * SECOND, 50), 10);
            assert_eq!(
                passed(&buckets, buckets.key((1, 3)), ten, start + 10 * SECOND, 50),
                10,
                "another bucket"
            );
            assert_eq!(
                buckets.bytes(),
                4096 * buckets.blocks.iter().filter(|block| block.get().is_some()).count()
            );
        }
        let buckets = Buckets::new();
        let key = buckets.key(0);
        assert_eq!(passed(&buckets, key, rate("1/h", Some(3)), 0, 9), 3);
        assert_eq!(passed(&buckets, key, rate("1/h", Some(3)), 3600 * SECOND, 9), 1);
        assert_eq!(passed(&buckets, buckets.key(1), rate("10000/s", None), 7200 * SECOND, 20_000), 10_000);
    }

    /// A model with exact times, which forgets nothing.
    #[test]
    fn buckets_agree_with_a_model() {
        let buckets = Buckets::new();
        let rates = [rate("10/s", None), rate("7/m", Some(2)), rate("1000/s", Some(3)), rate("100/h", None)];
        let mut model: HashMap<(u32, usize), u64> = HashMap::new();
        let (mut seed, mut now, mut passed) = (1_u64, 0, 0);
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = seed >> 33;
            now += (bits % 64) * (bits % 97);
            let (client, rule) = ((bits >> 8) as u32 % 50, (bits >> 16) as usize % rates.len());
            let (interval, tolerance) = rates[rule].as_micros();
            let full_at = model.entry((client, rule)).or_default();
            let expected = full_at.saturating_sub(now) <= tolerance;
            if expected {
                *full_at = (*full_at).max(now) + interval;
            }
            passed += usize::from(expected);
            assert_eq!(buckets.take(buckets.key((client, rule)), rates[rule], now), expected);
        }
        assert!(passed > 10_000 && passed < 190_000, "{passed}");
        assert_eq!(buckets.evicted(), 0);
    }

    #[test]
    fn more_buckets_than_places_make_room() {
        let buckets = Buckets::new();
        let hour = rate("1/h", None);
        let keys = 2 * RATE_BUCKETS_MAX as u64;
        let admitted = (0..keys).filter(|key| buckets.take(buckets.key(key), hour, 0)).count() as u64;
        assert!(admitted > keys - keys / 1000, "only keys that look alike are refused: {admitted} of {keys}");
        assert!(buckets.evicted() > RATE_BUCKETS_MAX as u64 / 2);
        assert_eq!(buckets.bytes(), 8 * RATE_BUCKETS_MAX);
        assert!(buckets.take(buckets.key("another"), hour, 2 * 3600 * SECOND));
    }

    #[test]
    fn shards_share_buckets() {
        let buckets = Buckets::new();
        let (key, rate) = (buckets.key(1), rate("1000/s", None));
        let threads = 4;
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..threads).map(|_| scope.spawn(|| passed(&buckets, key, rate, 0, 1000))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }
}
