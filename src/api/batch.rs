//! Events to broadcast: those of one request, and the parts of them that each shard begins.

use super::budget::Charge;
use crate::event::path::PathRef;
use std::sync::Arc;

/// The memory in bytes of an event, besides its text.
pub(super) const EVENT_BYTES: usize = size_of::<EventSpan>();

/// The places of an event in the text of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EventSpan {
    path: u32,
    path_len: u16,
    data: u32,
    data_len: u32,
}

/// The events of one request: a text, and the places of each event in it.
///
/// Invariants: the places are within the text, at the boundaries of characters. Each path is clean, and each data is one
/// JSON text or empty, which means `null`.
#[derive(Debug, Default)]
pub struct EventList {
    text: String,
    events: Vec<EventSpan>,
}

impl EventList {
    /// Begins a list of events that are parts of this text.
    pub(super) fn of_text(text: String) -> EventList {
        EventList { text, events: Vec::new() }
    }

    /// Returns the text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds an event that is a part of the text. `path` and `data` are the offsets and the lengths of its parts.
    ///
    /// # Panics
    ///
    /// If the text is longer than 4 GiB, or the path longer than a path may be: the caller has checked both.
    pub(super) fn add_part(&mut self, (path, path_len): (usize, usize), (data, data_len): (usize, usize)) {
        let offset = |at: usize| u32::try_from(at).expect("a body is much shorter than 4 GiB");
        self.events.push(EventSpan {
            path: offset(path),
            path_len: u16::try_from(path_len).expect("a path has at most 1024 bytes"),
            data: offset(data),
            data_len: offset(data_len),
        });
    }

    /// Appends an event to the text.
    pub fn push(&mut self, path: PathRef<'_>, data: &str) {
        let (path, start) = (path.as_str(), self.text.len());
        self.text.push_str(path);
        self.text.push_str(data);
        self.add_part((start, path.len()), (start + path.len(), data.len()));
    }

    /// Returns the number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns whether there are no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns the memory that the events take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.capacity() + self.events.capacity() * EVENT_BYTES
    }

    /// Divides the events among this many shards, in order. `shard_of` returns the shard that begins the broadcasts to a
    /// path. Shards without events have no batch. `charge` is given back when all batches have been dropped.
    #[must_use]
    pub fn into_batches(
        self,
        charge: Charge,
        shards: usize,
        shard_of: impl Fn(&str) -> usize,
    ) -> Vec<(usize, Batch)> {
        let EventList { text, events } = self;
        let mut parts = vec![Vec::new(); shards];
        if let [only] = parts.as_mut_slice() {
            *only = events;
        } else {
            for event in events {
                parts[shard_of(path_of(&text, event).as_str())].push(event);
            }
        }
        let text = Arc::new(BatchText { text, _charge: charge });
        let parts = parts.into_iter().enumerate().filter(|(_, events)| !events.is_empty());
        parts.map(|(shard, events)| (shard, Batch { text: Arc::clone(&text), events })).collect()
    }
}

/// The text that the batches of a request share.
#[derive(Debug)]
struct BatchText {
    text: String,
    _charge: Charge,
}

/// The events of a request that one shard begins to broadcast, in order.
#[derive(Debug)]
pub struct Batch {
    text: Arc<BatchText>,
    events: Vec<EventSpan>,
}

impl Batch {
    /// Returns the number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns whether there are no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns the path and the data of an event. The data is one JSON text, or empty.
    #[must_use]
    pub fn event(&self, index: usize) -> (PathRef<'_>, &str) {
        let event = self.events[index];
        (path_of(&self.text.text, event), part(&self.text.text, event.data, event.data_len))
    }
}

fn path_of(text: &str, event: EventSpan) -> PathRef<'_> {
    PathRef::exact(part(text, event.path, event.path_len.into())).expect("each path of a list is clean")
}

fn part(text: &str, at: u32, len: u32) -> &str {
    &text[at as usize..(at + len) as usize]
}

#[cfg(test)]
mod tests {
    use super::super::budget::ByteBudget;
    use super::*;

    fn list(events: &[(&str, &str)]) -> EventList {
        let mut list = EventList::default();
        for (path, data) in events {
            list.push(PathRef::exact(path).expect("the path is clean"), data);
        }
        list
    }

    fn contents(batch: &Batch) -> Vec<(&str, &str)> {
        (0..batch.len()).map(|at| batch.event(at)).map(|(path, data)| (path.as_str(), data)).collect()
    }

    #[test]
    fn events_keep_their_order_on_the_shards_that_begin_them() {
        let events = [("/a", "1"), ("/bb", "\"\u{e9}\""), ("/a", ""), ("/c", "[]"), ("/bb", "2")];
        let budget = ByteBudget::new(100);
        let mut charge = budget.charge();
        assert!(charge.set(7));
        let shard_of = |path: &str| path.len() - 2;
        let batches = list(&events).into_batches(charge, 3, shard_of);
        assert_eq!(batches.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(contents(&batches[0].1), [("/a", "1"), ("/a", ""), ("/c", "[]")]);
        assert_eq!(contents(&batches[1].1), [("/bb", "\"\u{e9}\""), ("/bb", "2")]);
        assert_eq!(budget.taken(), 7);
        drop(batches);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn one_shard_begins_everything() {
        let never = |_: &str| -> usize { unreachable!("one shard needs no choice") };
        let batches = list(&[("/a", "1"), ("/b", "2")]).into_batches(ByteBudget::new(0).charge(), 1, never);
        assert_eq!(contents(&batches[0].1), [("/a", "1"), ("/b", "2")]);
        assert!(EventList::default().into_batches(ByteBudget::new(0).charge(), 1, never).is_empty());
    }

    #[test]
    fn an_event_is_small() {
        assert_eq!(EVENT_BYTES, 16);
    }
}
