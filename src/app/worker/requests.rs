//! The requests that a worker has not answered yet, on one link. Their numbers cross the link and come back. A number
//! that is no longer pending, or never was, is not found.

use crate::limits::WORKER_CALLBACKS_MAX;
use std::time::Duration;

/// Low bits of a number: the index of the slot. The high bits are the generation of the slot.
const SLOT_BITS: u32 = 20;

/// The largest number of pending requests that numbers can distinguish: `worker-requests-max` events, and callbacks
/// beyond that.
pub const REQUESTS_MAX: usize = 1 << SLOT_BITS;

/// The largest `worker-requests-max`, with all callbacks, fits.
const _: () = assert!((512 << 10) + WORKER_CALLBACKS_MAX < REQUESTS_MAX);

/// The largest generation of a slot. Generations begin with 1, and for this reason no number is 0. After the largest
/// generation comes 1 again.
const GENERATION_MAX: u32 = (1 << (u32::BITS - SLOT_BITS)) - 1;

/// The pending requests of one link, by number.
///
/// Invariants, which [`check`](RequestTable::check) asserts: `free` contains the index of each empty slot once and no
/// other index, and `len` is the number of occupied slots.
pub struct RequestTable<T> {
    slots: Vec<RequestSlot<T>>,
    free: Vec<u32>,
    len: usize,
}

struct RequestSlot<T> {
    /// Distinguishes the request from those that had this slot before.
    generation: u32,
    pending: Option<PendingRequest<T>>,
}

struct PendingRequest<T> {
    began: Duration,
    request: T,
}

impl<T> RequestTable<T> {
    pub fn new() -> RequestTable<T> {
        RequestTable { slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Returns the number of pending requests.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds a request that began at this time. Returns its number, which is never 0. The caller must not add a request
    /// if [`REQUESTS_MAX`] are pending.
    pub fn begin(&mut self, request: T, now: Duration) -> u32 {
        debug_assert!(self.len < REQUESTS_MAX, "the caller limits the number of requests");
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(RequestSlot { generation: 0, pending: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.pending.is_none(), "slot {index} is in the list of free slots and is occupied");
        slot.generation = slot.generation % GENERATION_MAX + 1;
        slot.pending = Some(PendingRequest { began: now, request });
        self.len += 1;
        slot.generation << SLOT_BITS | index
    }

    /// Removes and returns a request, or returns `None` if the number is not pending.
    pub fn end(&mut self, number: u32) -> Option<T> {
        let index = number & (REQUESTS_MAX as u32 - 1);
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != number >> SLOT_BITS {
            return None;
        }
        let pending = slot.pending.take()?;
        self.free.push(index);
        self.len -= 1;
        Some(pending.request)
    }

    /// Removes the requests that began at `time` or earlier, and passes them to `ended`. Returns the time at which the
    /// oldest remaining request began.
    pub fn end_until(&mut self, time: Duration, mut ended: impl FnMut(T)) -> Option<Duration> {
        let mut oldest: Option<Duration> = None;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(pending) = slot.pending.take_if(|pending| pending.began <= time) {
                self.free.push(index as u32);
                self.len -= 1;
                ended(pending.request);
            } else if let Some(pending) = &slot.pending {
                oldest = Some(oldest.map_or(pending.began, |began| began.min(pending.began)));
            }
        }
        oldest
    }

    /// Removes all requests, and passes them to `ended`.
    pub fn end_all(&mut self, ended: impl FnMut(T)) {
        self.end_until(Duration::MAX, ended);
        debug_assert_eq!(self.len, 0, "no request begins after the end of time");
    }

    /// Asserts the invariants of the table.
    pub fn check(&self) {
        let occupied = self.slots.iter().filter(|slot| slot.pending.is_some()).count();
        assert_eq!(self.len, occupied, "the number of requests is the number of occupied slots");
        assert_eq!(
            self.free.len(),
            self.slots.len() - occupied,
            "each empty slot is in the list of free slots"
        );
        let listed: std::collections::BTreeSet<u32> = self.free.iter().copied().collect();
        assert_eq!(listed.len(), self.free.len(), "a free slot is listed once");
        for index in listed {
            let slot = &self.slots[index as usize];
            assert!(slot.pending.is_none(), "slot {index} is in the list of free slots and is occupied");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_number_is_found_once() {
        let mut requests = RequestTable::new();
        let mut seen = BTreeMap::new();
        for nth in 0..10_000u32 {
            let number = requests.begin(nth, MS(0));
            assert_ne!(number, 0);
            let before = seen.insert(number, nth);
            assert!(
                before.is_none_or(|before| nth - before > 4000),
                "a number returns after all generations"
            );
            assert_eq!(requests.end(number), Some(nth));
            assert_eq!(requests.end(number), None);
            assert_eq!(requests.end(0), None);
            requests.check();
        }
        assert_eq!(requests.len(), 0);
        assert_eq!(requests.slots.len(), 1);
    }

    #[test]
    fn requests_end_in_any_order() {
        let mut requests = RequestTable::new();
        let mut numbers: Vec<(u32, u32)> = (0..1000).map(|nth| (requests.begin(nth, MS(1)), nth)).collect();
        numbers.sort_by_key(|(_, nth)| nth % 7);
        for (left, (number, nth)) in numbers.into_iter().enumerate() {
            assert_eq!(requests.len(), 1000 - left);
            assert_eq!(requests.end(number), Some(nth));
            assert_eq!(requests.end(u32::MAX), None);
            requests.check();
        }
    }

    #[test]
    fn old_requests_end_and_the_oldest_other_one_is_found() {
        let mut requests = RequestTable::new();
        let numbers: Vec<u32> = [5, 9, 3, 7].map(|ms| requests.begin(ms, MS(ms))).to_vec();
        let mut ended = Vec::new();
        assert_eq!(requests.end_until(MS(5), |request| ended.push(request)), Some(MS(7)));
        requests.check();
        assert_eq!((ended.as_slice(), requests.len()), (&[5, 3][..], 2));
        assert_eq!(requests.end(numbers[0]), None);
        assert_eq!(requests.end(numbers[1]), Some(9));
        requests.end_all(|request| ended.push(request));
        requests.check();
        assert_eq!((ended.as_slice(), requests.len()), (&[5, 3, 7][..], 0));
        assert_eq!(requests.end_until(MS(9), |_| panic!("no request is left")), None);
    }
}
