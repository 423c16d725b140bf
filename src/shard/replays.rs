//! The events of paths that this shard numbers, and the questions of clients about them.

use super::questions::Questions;
use crate::app::ReplyTo;
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use crate::history::{Position, ReplayFrom, Store};
use crate::limits::REPLAYS_WAITING_MAX;
use std::sync::Arc;

/// A client's question about the events of a path, for the shard that numbers them.
pub struct EventsQuestion {
    pub(super) reply_to: ReplyTo,
    pub(super) path: Path,
    pub(super) ask: Ask,
}

/// The events that a question is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// Those that a client asks for with its subscription, which waits under this id.
    Begin(PathId, ReplayFrom),
    /// The ones that follow what the client of that subscription got.
    Go(PathId, Position),
    /// At most so many, before this position.
    Page(Option<Position>, usize),
}

/// The answer to a question.
pub struct EventsAnswer {
    pub(super) reply_to: ReplyTo,
    pub(super) path: Path,
    pub(super) ask: Ask,
    /// `None` if the shard is too busy, or numbers no events of the path.
    pub(super) found: Option<FoundEvents>,
}

/// Events of a path.
pub(super) struct FoundEvents {
    /// The position behind the last event of the path.
    pub at: Position,
    /// The client gets everything that it has asked for.
    pub is_complete: bool,
    /// The number of the first of the events.
    pub first: u64,
    /// The number of all events that are found, of which those in `events` are the first.
    pub total: u64,
    pub events: Vec<Arc<str>>,
}

impl EventsQuestion {
    pub(super) fn bytes(&self) -> usize {
        size_of::<EventsQuestion>() + self.path.as_str().len()
    }
}

impl EventsAnswer {
    pub(super) fn bytes(&self) -> usize {
        let events = self.found.iter().flat_map(|found| &found.events);
        let of_events: usize = events.map(|data| size_of::<Arc<str>>() + data.len()).sum();
        size_of::<EventsAnswer>() + self.path.as_str().len() + of_events
    }
}

/// The store of a shard, and the questions about it that wait for their turn.
pub(super) struct Replays {
    pub store: Store,
    pub questions: Questions<EventsQuestion>,
}

impl Replays {
    pub fn new(store: Store) -> Replays {
        Replays { store, questions: Questions::new(REPLAYS_WAITING_MAX) }
    }

    /// Asserts the invariants. Linear in the number of events.
    pub fn check(&self) {
        self.store.check();
        self.questions.check();
    }
}
