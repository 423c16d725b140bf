//! The last events of paths, and their numbers. Pure: no I/O, no clock, no settings.
//!
//! The events of a path are numbered from 1 in the order in which they are delivered. A [`Position`] is the number of an
//! event in an [`Epoch`], one lifetime of the numbering.
//!
//! | file | contents |
//! | --- | --- |
//! | `position` | epochs and positions, and their text |
//! | `options` | the options of a subscription |
//! | `page` | events that follow each other, as JSON |
//! | `store` | the events of all paths of one shard |
//! | `path_history` | the events of one path |

mod options;
mod page;
mod path_history;
mod position;
mod store;

pub use options::{OptionsError, ReplayFrom, SubscribeOptions};
pub use page::EventsPage;
pub use path_history::Events;
pub use position::{Epoch, Position, PositionError};
pub use store::{Replay, Store, StoredTotals};

/// The bounds of the events of each path of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBounds {
    /// The number of events that are kept, at least 1.
    pub events: u32,
    /// The time for which an event is kept, in seconds, or `None` without a bound.
    pub age_s: Option<u32>,
}
