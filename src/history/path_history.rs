//! The events of one path.

use super::HistoryBounds;
use super::position::{Epoch, Position};
use crate::event::path::Path;
use std::collections::VecDeque;
use std::collections::vec_deque;
use std::sync::Arc;

/// The cost of an event apart from its data, in bytes: its place in the list, of which up to an eighth is unused, and what
/// its allocation needs.
pub(super) const EVENT_BYTES: usize = 48;

/// The number of places by which a list grows at least.
const GROWN_MIN: usize = 4;

/// The cost of a path without events, in bytes, apart from its text: the entry, its places in the index and in the table, and
/// the places of a short list that are unused.
pub(super) const ENTRY_BYTES: usize = size_of::<PathHistory>() + 88 + GROWN_MIN * size_of::<StoredEvent>();

/// The index of no path.
pub(super) const NONE: u32 = u32::MAX;

/// The last events of a path. It is in a list of the paths of its share, from the one that was used last to the one that was
/// not used for the longest time.
#[derive(Debug)]
pub(super) struct PathHistory {
    pub path: Path,
    /// The index of the share.
    pub share: u32,
    /// The indices of the neighbours in the list; [`NONE`] at its ends.
    pub newer: u32,
    pub older: u32,
    epoch: Epoch,
    /// The number of the event that was added last, or 0.
    last: u64,
    /// The last events.
    events: VecDeque<StoredEvent>,
    /// The cost of the events.
    event_bytes: usize,
}

#[derive(Debug)]
struct StoredEvent {
    data: Arc<str>,
    /// When it was added.
    at_s: u32,
}

/// The data of events, from the oldest one to the newest.
#[derive(Clone, Debug, Default)]
pub struct Events<'a>(vec_deque::Iter<'a, StoredEvent>);

impl<'a> Iterator for Events<'a> {
    type Item = &'a Arc<str>;

    fn next(&mut self) -> Option<&'a Arc<str>> {
        self.0.next().map(|event| &event.data)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Events<'_> {}

impl PathHistory {
    pub fn new(path: Path, share: u32, epoch: Epoch) -> PathHistory {
        PathHistory {
            path,
            share,
            newer: NONE,
            older: NONE,
            epoch,
            last: 0,
            events: VecDeque::new(),
            event_bytes: 0,
        }
    }

    /// The number of events that are kept.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// The cost in bytes.
    pub fn bytes(&self) -> usize {
        ENTRY_BYTES + self.path.as_str().len() + self.event_bytes
    }

    /// The position behind the last event.
    pub fn at(&self) -> Position {
        Position { epoch: self.epoch, number: self.last }
    }

    /// The number of the first event that is kept, or of the next one if none is.
    pub fn first(&self) -> u64 {
        self.last + 1 - self.events.len() as u64
    }

    /// The events from number `first` up to, but not including, `end`. All of them must be kept.
    pub fn events(&self, first: u64, end: u64) -> Events<'_> {
        let at = |number: u64| (number - self.first()) as usize;
        Events(self.events.range(at(first)..at(end)))
    }

    /// Adds an event, and returns its position.
    pub fn push(&mut self, data: Arc<str>, at_s: u32, bounds: HistoryBounds) -> Position {
        while self.events.len() >= bounds.events as usize {
            self.pop();
        }
        if self.events.len() == self.events.capacity() {
            let room = bounds.events as usize - self.events.len();
            self.events.reserve_exact((self.events.len() / 8).max(GROWN_MIN).min(room));
        }
        self.event_bytes += data.len() + EVENT_BYTES;
        self.events.push_back(StoredEvent { data, at_s });
        self.last += 1;
        self.at()
    }

    /// Drops the oldest event. Returns `false` if there was none.
    pub fn pop(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else { return false };
        self.event_bytes -= event.data.len() + EVENT_BYTES;
        true
    }

    /// Drops the events that are too many or too old now.
    pub fn expire(&mut self, bounds: HistoryBounds, now_s: u32) {
        let is_old =
            |event: &StoredEvent| bounds.age_s.is_some_and(|age_s| now_s.saturating_sub(event.at_s) >= age_s);
        while self.events.len() > bounds.events as usize || self.events.front().is_some_and(is_old) {
            self.pop();
        }
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.len() + GROWN_MIN);
        }
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        let bytes = |event: &StoredEvent| event.data.len() + EVENT_BYTES;
        assert_eq!(
            self.event_bytes,
            self.events.iter().map(bytes).sum::<usize>(),
            "`event_bytes` of {}",
            self.path
        );
        assert!(self.events.len() as u64 <= self.last, "each event of {} has a number", self.path);
        assert!(self.events.iter().is_sorted_by_key(|event| event.at_s), "events of {} in order", self.path);
    }
}
