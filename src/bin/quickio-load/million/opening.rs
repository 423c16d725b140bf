//! The queue of clients that are to be opened: first come, first served, with a bounded number at a time.

use super::client::ClientNumber;
use std::collections::VecDeque;

/// How late openings may be and still be made up for, in nanoseconds. A turn may take a few milliseconds.
const CATCH_UP_NS: f64 = 100e6;

/// The queue of clients that are to be opened.
///
/// Invariant: `under_way` is at most `window`.
#[derive(Debug)]
pub struct OpeningQueue {
    /// The clients to open, in their order.
    waiting: VecDeque<ClientNumber>,
    /// The clients whose opening has begun, in the order in which it did. Those that are open already are removed later.
    begun: VecDeque<ClientNumber>,
    under_way: usize,
    window: usize,
    /// The nanoseconds between two openings; 0: they are not spread.
    interval: f64,
    /// The earliest time of the next opening.
    next: f64,
}

impl OpeningQueue {
    /// Returns an empty queue that opens at most `window` clients at a time, and `rate` per second unless it is 0.
    pub fn new(window: usize, rate: f64) -> OpeningQueue {
        OpeningQueue {
            waiting: VecDeque::new(),
            begun: VecDeque::new(),
            under_way: 0,
            window,
            interval: if rate > 0.0 { 1e9 / rate } else { 0.0 },
            next: 0.0,
        }
    }

    /// Adds a client at the end.
    pub fn push(&mut self, client: ClientNumber) {
        self.waiting.push_back(client);
    }

    /// Removes and returns the next client, if it may be opened now.
    pub fn take(&mut self, now: u64) -> Option<ClientNumber> {
        if self.under_way == self.window || (now as f64) < self.next {
            return None;
        }
        let client = self.waiting.pop_front()?;
        // A queue that is very late does not catch up: the server would see a burst.
        self.next = self.next.max(now as f64 - CATCH_UP_NS) + self.interval;
        self.under_way += 1;
        self.begun.push_back(client);
        Some(client)
    }

    /// Records that an opening has ended, well or not.
    pub fn ended(&mut self) {
        self.under_way = self.under_way.checked_sub(1).expect("an opening that ends must have begun");
    }

    /// Returns the clients whose opening has begun and has not ended according to `is_opening`.
    pub fn under_way(&mut self, is_opening: impl Fn(ClientNumber) -> bool) -> Vec<ClientNumber> {
        self.begun.retain(|client| is_opening(*client));
        self.begun.iter().copied().collect()
    }

    /// Returns whether no client waits and no opening is under way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way == 0
    }

    /// Returns the time at which [`OpeningQueue::take`] should be called again, if that does not depend on the end of
    /// an opening.
    pub fn next_due(&self) -> Option<u64> {
        (!self.waiting.is_empty() && self.under_way < self.window).then_some(self.next as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(window: usize, rate: f64) -> OpeningQueue {
        let mut queue = OpeningQueue::new(window, rate);
        (0..10).for_each(|client| queue.push(client));
        queue
    }

    #[test]
    fn clients_are_opened_in_their_order_and_a_window_at_a_time() {
        let mut queue = queue(2, 0.0);
        assert_eq!([queue.take(5), queue.take(5), queue.take(5)], [Some(0), Some(1), None]);
        assert_eq!(queue.next_due(), None);
        queue.ended();
        assert_eq!([queue.take(6), queue.take(6)], [Some(2), None]);
        assert_eq!(queue.under_way(|client| client != 0), [1, 2]);
        assert!(!queue.is_empty());
    }

    #[test]
    fn a_rate_spreads_them_and_little_is_made_up_for() {
        let mut queue = queue(100, 10.0);
        let second = 1_000_000_000;
        let mut opened = |ms: u64| std::iter::from_fn(|| queue.take(second + ms * 1_000_000)).count();
        assert_eq!([opened(0), opened(50), opened(100)], [2, 0, 1], "the first one counts as late");
        assert_eq!([opened(450), opened(455), opened(1000)], [2, 0, 2]);
        assert_eq!(queue.next_due(), Some(2 * second + 100_000_000));
    }
}
