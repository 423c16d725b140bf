//! The busiest paths of a shard, by the broadcasts that start on it, while an operator looks at them.
//!
//! The counts are a Space-Saving sketch (Metwally and others, 2005): a path that is not counted yet takes the place of the
//! one with the smallest count, and takes over its count as its error. The count of a path is never too small, and too
//! large by at most its error. A path with more than `1 / PATHS_COUNTED_MAX` of all broadcasts always has a place.
//!
//! The place with the smallest count is found by a hand that goes around, as that of a clock. It stops at the first count
//! that equals the known minimum. If it finds none in a whole round, the minimum has grown. The sum of all counts is the
//! number of broadcasts, so that the minimum grows once in as many broadcasts as there are places: a broadcast moves the hand
//! by two places on average, however the paths are distributed.

use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use crate::inspect::BusyPath;
use crate::limits::{PATHS_COUNTED_FOR, PATHS_COUNTED_MAX, PATHS_LISTED_MAX};
use ahash::AHashMap;

/// The time in which the weight of a broadcast halves, in seconds.
const HALF_LIFE_SECONDS: f64 = 10.0;

/// The shortest time over which a rate is computed, in seconds.
const SECONDS_MIN: f64 = 0.5;

/// The broadcasts to the busiest paths, if they are counted.
#[derive(Default)]
pub(super) struct Busiest(Option<Box<BroadcastCounts>>);

impl Busiest {
    /// Returns whether broadcasts are counted now.
    #[inline]
    pub fn is_counting(&self) -> bool {
        self.0.is_some()
    }

    /// Counts a broadcast to a path, which has this id now.
    pub fn count(&mut self, id: PathId, path: &Path) {
        if let Some(counts) = &mut self.0 {
            counts.add(id, path);
        }
    }

    /// Returns the busiest paths, the busiest first, without their numbers of subscribers. Begins to count if nobody has
    /// asked for long.
    pub fn ask(&mut self, now_ns: u64) -> Vec<BusyPath> {
        let counts = self.0.get_or_insert_with(|| Box::new(BroadcastCounts::new(now_ns)));
        counts.asked_ns = now_ns;
        counts.age(now_ns);
        counts.rates()
    }

    /// Stops to count if nobody has asked for long.
    pub fn expire(&mut self, now_ns: u64) {
        let is_unused = |counts: &mut Box<BroadcastCounts>| {
            u128::from(now_ns.saturating_sub(counts.asked_ns)) > PATHS_COUNTED_FOR.as_nanos()
        };
        self.0.take_if(is_unused);
    }
}

/// A path and its broadcasts.
struct BroadcastCount {
    id: PathId,
    /// The path with this id when it was counted first. The id may have another path by now.
    path: Path,
    count: u64,
    /// The part of `count` that may not belong to the path.
    error: u64,
}

/// The counts of a bounded number of paths.
///
/// Invariants, which the tests assert: `places` has the place of each path in `counts`; no count is below `min` once
/// all places are taken; an error is at most its count.
struct BroadcastCounts {
    counts: Vec<BroadcastCount>,
    places: AHashMap<PathId, u32>,
    min: u64,
    hand: usize,
    /// The seconds in which the broadcasts were counted, with the weight that the broadcasts have.
    seconds: f64,
    /// The time up to which `seconds` goes.
    aged_ns: u64,
    /// The seconds of `seconds` since the weights were halved.
    fresh_seconds: f64,
    asked_ns: u64,
}

impl BroadcastCounts {
    fn new(now_ns: u64) -> BroadcastCounts {
        BroadcastCounts {
            counts: Vec::with_capacity(PATHS_COUNTED_MAX),
            places: AHashMap::with_capacity(PATHS_COUNTED_MAX),
            min: 0,
            hand: 0,
            seconds: 0.0,
            aged_ns: now_ns,
            fresh_seconds: 0.0,
            asked_ns: now_ns,
        }
    }

    fn add(&mut self, id: PathId, path: &Path) {
        let Some(place) = self.places.get(&id) else { return self.add_new(id, path) };
        let counted = &mut self.counts[*place as usize];
        if std::ptr::eq(counted.path.as_str(), path.as_str()) {
            counted.count += 1;
        } else {
            // The path that had this id is no longer in use. What it had counted is the error of the new one.
            counted.path = path.clone();
            counted.error = counted.count;
            counted.count += 1;
        }
    }

    fn add_new(&mut self, id: PathId, path: &Path) {
        let place = if self.counts.len() < PATHS_COUNTED_MAX {
            self.counts.push(BroadcastCount { id, path: path.clone(), count: 1, error: 0 });
            self.counts.len() - 1
        } else {
            let place = self.smallest();
            let smallest = &mut self.counts[place];
            self.places.remove(&smallest.id);
            *smallest =
                BroadcastCount { id, path: path.clone(), count: smallest.count + 1, error: smallest.count };
            place
        };
        self.places.insert(id, place as u32);
    }

    /// Returns a place that has the smallest count.
    fn smallest(&mut self) -> usize {
        let places = self.counts.len();
        for step in 0..places {
            let place = (self.hand + step) % places;
            if self.counts[place].count <= self.min {
                self.hand = place;
                return place;
            }
        }
        let (place, min) = self
            .counts
            .iter()
            .map(|counted| counted.count)
            .enumerate()
            .min_by_key(|it| it.1)
            .expect("all places are taken");
        self.min = min;
        self.hand = place;
        place
    }

    /// Halves the weight of all broadcasts for each half-life that has passed.
    fn age(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.aged_ns) as f64 / 1e9;
        self.aged_ns = now_ns;
        self.seconds += passed;
        self.fresh_seconds += passed;
        while self.fresh_seconds >= HALF_LIFE_SECONDS {
            self.fresh_seconds -= HALF_LIFE_SECONDS;
            self.seconds /= 2.0;
            self.halve();
        }
    }

    fn halve(&mut self) {
        for counted in &mut self.counts {
            counted.count = counted.count.div_ceil(2);
            counted.error /= 2;
        }
        self.min /= 2;
    }

    fn rates(&self) -> Vec<BusyPath> {
        let seconds = self.seconds.max(SECONDS_MIN);
        let rate = |counted: &BroadcastCount| BusyPath {
            path: counted.path.clone(),
            broadcasts_per_second: (counted.count - counted.error) as f64 / seconds,
            uncertainty: counted.error as f64 / seconds,
            subscribers: 0,
        };
        let mut paths: Vec<BusyPath> = self.counts.iter().map(rate).collect();
        paths.sort_by(|one, other| other.broadcasts_per_second.total_cmp(&one.broadcasts_per_second));
        paths.truncate(PATHS_LISTED_MAX);
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::subscriptions::Subscriptions;
    use crate::protocol::testing::Random;
    use std::collections::BTreeMap;

    const SECOND: u64 = 1_000_000_000;

    /// Paths in use, with their ids.
    fn paths(count: usize) -> Vec<(PathId, Path)> {
        let mut subscriptions = Subscriptions::new();
        let path = |number| Path::parse(&format!("/path/{number}")).unwrap();
        let add = |number| {
            subscriptions.subscribe(0, &path(number));
            let id = subscriptions.find(path(number).as_ref()).unwrap();
            (id, subscriptions.path(id).clone())
        };
        (0..count).map(add).collect()
    }

    impl BroadcastCounts {
        fn check(&self) {
            assert_eq!(self.places.len(), self.counts.len());
            for (place, counted) in self.counts.iter().enumerate() {
                assert_eq!(self.places[&counted.id], place as u32);
                assert!(counted.error <= counted.count);
                assert!(self.counts.len() < PATHS_COUNTED_MAX || counted.count >= self.min);
            }
        }
    }

    #[test]
    fn counts_are_never_too_small_and_frequent_paths_have_places() {
        let mut random = Random::new(7);
        let paths = paths(3000);
        for skew in [1, 2, 4] {
            let mut counts = BroadcastCounts::new(0);
            let mut exact: BTreeMap<PathId, u64> = BTreeMap::new();
            let total = 60_000;
            for _ in 0..total {
                let part = (random.below(1 << 16) as f64 / f64::from(1 << 16)).powi(skew);
                let (id, path) = &paths[(part * paths.len() as f64) as usize];
                counts.add(*id, path);
                *exact.entry(*id).or_default() += 1;
            }
            counts.check();
            assert_eq!(counts.counts.iter().map(|counted| counted.count).sum::<u64>(), total);
            for counted in &counts.counts {
                let exact = exact.get(&counted.id).copied().unwrap_or_default();
                assert!((counted.count - counted.error..=counted.count).contains(&exact), "skew {skew}");
            }
            for (id, exact) in exact {
                let is_frequent = exact > total / PATHS_COUNTED_MAX as u64;
                assert!(!is_frequent || counts.places.contains_key(&id), "skew {skew}: {exact} broadcasts");
            }
        }
    }

    #[test]
    fn rates_follow_the_last_seconds() {
        let paths = paths(2);
        let mut busiest = Busiest::default();
        assert!(!busiest.is_counting());
        assert!(busiest.ask(0).is_empty() && busiest.is_counting());
        let count = |busiest: &mut Busiest, which: usize, times| {
            (0..times).for_each(|_| busiest.count(paths[which].0, &paths[which].1));
        };
        let rates = |busy: Vec<BusyPath>| -> Vec<(String, f64)> {
            busy.iter().map(|busy| (busy.path.as_str().to_owned(), busy.broadcasts_per_second)).collect()
        };
        count(&mut busiest, 0, 100);
        count(&mut busiest, 1, 50);
        assert_eq!(rates(busiest.ask(5 * SECOND)), [("/path/0".into(), 20.0), ("/path/1".into(), 10.0)]);
        // The second path gets all broadcasts of the next half-minute.
        for second in 6..36 {
            count(&mut busiest, 1, 40);
            busiest.ask(second * SECOND);
        }
        let now = rates(busiest.ask(36 * SECOND));
        assert_eq!(now[0].0, "/path/1");
        assert!((36.0..42.0).contains(&now[0].1), "{now:?}");
        assert!(now[1].1 < 3.0, "{now:?}");
    }

    #[test]
    fn a_new_path_with_the_id_of_another_is_not_that_path() {
        let paths = paths(1);
        let other = Path::parse("/other").unwrap();
        let mut busiest = Busiest::default();
        busiest.ask(0);
        (0..10).for_each(|_| busiest.count(paths[0].0, &paths[0].1));
        busiest.count(paths[0].0, &other);
        let [busy] = &busiest.ask(SECOND)[..] else { panic!("one id was counted") };
        assert_eq!((busy.path.as_str(), busy.broadcasts_per_second, busy.uncertainty), ("/other", 1.0, 10.0));
    }

    #[test]
    fn counting_ends_when_nobody_asks() {
        let mut busiest = Busiest::default();
        busiest.expire(SECOND);
        busiest.ask(SECOND);
        busiest.expire(30 * SECOND);
        assert!(busiest.is_counting());
        busiest.expire(32 * SECOND);
        assert!(!busiest.is_counting());
    }
}
