//! The requests that a worker has under way on one link. Their numbers cross to it and come back: one that was ended, and one
//! that never was, finds nothing.

use crate::limits::WORKER_CALLBACKS_MAX;
use std::time::Duration;

/// What a number's low bits count: places. The rest tells whose place it is now.
const PLACE_BITS: u32 = 20;

/// As many as numbers can tell: `worker-requests-max` of events, and callbacks beyond.
pub const REQUESTS_MAX: usize = 1 << PLACE_BITS;

const _: () = assert!((512 << 10) + WORKER_CALLBACKS_MAX < REQUESTS_MAX);

/// Turns of a place, from 1 on, so that no number is 0; then they begin again.
const TURNS: u32 = (1 << (u32::BITS - PLACE_BITS)) - 1;

/// Requests of one link, by their number.
pub struct Requests<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    len: usize,
}

struct Place<T> {
    /// Told from the request that had this place before.
    turn: u32,
    request: Option<Open<T>>,
}

struct Open<T> {
    since: Duration,
    what: T,
}

impl<T> Requests<T> {
    pub fn new() -> Requests<T> {
        Requests { places: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Begins one; answers its number, which is never 0. The caller bounds them, by [`REQUESTS_MAX`] at most.
    pub fn begin(&mut self, what: T, since: Duration) -> u32 {
        debug_assert!(self.len < REQUESTS_MAX, "the caller bounds them");
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { turn: 0, request: None });
            self.places.len() as u32 - 1
        });
        let record = &mut self.places[place as usize];
        record.turn = record.turn % TURNS + 1;
        record.request = Some(Open { since, what });
        self.len += 1;
        record.turn << PLACE_BITS | place
    }

    /// Ends one.
    pub fn end(&mut self, number: u32) -> Option<T> {
        let place = number & (REQUESTS_MAX as u32 - 1);
        let record = self.places.get_mut(place as usize)?;
        let is_turn = record.turn == number >> PLACE_BITS;
        let open = if is_turn { record.request.take()? } else { return None };
        self.free.push(place);
        self.len -= 1;
        Some(open.what)
    }

    /// Ends all that began so long ago or longer, and tells when the oldest of the others began.
    pub fn end_before(&mut self, moment: Duration, mut ended: impl FnMut(T)) -> Option<Duration> {
        let mut oldest = None;
        for (place, record) in self.places.iter_mut().enumerate() {
            match &record.request {
                Some(open) if open.since > moment => {
                    oldest = Some(oldest.map_or(open.since, |since: Duration| since.min(open.since)));
                }
                Some(_) => {
                    ended(record.request.take().expect("it was just looked at").what);
                    self.free.push(place as u32);
                    self.len -= 1;
                }
                None => {}
            }
        }
        oldest
    }

    /// Ends all.
    pub fn end_all(&mut self, ended: impl FnMut(T)) {
        self.end_before(Duration::MAX, ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_number_is_good_once() {
        let mut requests = Requests::new();
        let mut seen = BTreeMap::new();
        for nth in 0..10_000u32 {
            let number = requests.begin(nth, MS(0));
            assert_ne!(number, 0);
            let before = seen.insert(number, nth);
            assert!(before.is_none_or(|before| nth - before > 4000), "it comes again after its turns only");
            assert_eq!(requests.end(number), Some(nth));
            assert_eq!(requests.end(number), None);
            assert_eq!(requests.end(0), None);
        }
        assert_eq!(requests.len(), 0);
        assert_eq!(requests.places.len(), 1);
    }

    #[test]
    fn many_are_under_way_and_end_in_any_order() {
        let mut requests = Requests::new();
        let mut numbers: Vec<(u32, u32)> = (0..1000).map(|nth| (requests.begin(nth, MS(1)), nth)).collect();
        numbers.sort_by_key(|(_, nth)| nth % 7);
        for (left, (number, nth)) in numbers.into_iter().enumerate() {
            assert_eq!(requests.len(), 1000 - left);
            assert_eq!(requests.end(number), Some(nth));
            assert_eq!(requests.end(u32::MAX), None);
        }
    }

    #[test]
    fn the_old_are_ended_and_the_oldest_of_the_others_is_told() {
        let mut requests = Requests::new();
        let numbers: Vec<u32> = [5, 9, 3, 7].map(|ms| requests.begin(ms, MS(ms))).to_vec();
        let mut ended = Vec::new();
        assert_eq!(requests.end_before(MS(5), |what| ended.push(what)), Some(MS(7)));
        assert_eq!((ended.as_slice(), requests.len()), (&[5, 3][..], 2));
        assert_eq!(requests.end(numbers[0]), None);
        assert_eq!(requests.end(numbers[1]), Some(9));
        requests.end_all(|what| ended.push(what));
        assert_eq!((ended.as_slice(), requests.len()), (&[5, 3, 7][..], 0));
        assert_eq!(requests.end_before(MS(9), |_| panic!("there are none")), None);
    }
}
