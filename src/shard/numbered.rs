//! Events with their numbers, as the clients get them that have asked for positions (protocol.md, "History").

use crate::app::Json;
use crate::history::Position;

/// Calls `each` with the path and the data of an event that has this position. Before the first event of an epoch, clients are
/// told the name of that epoch: they may have been subscribed before it began.
pub(super) fn each_event(path: &str, at: Position, data: &Json, each: &mut impl FnMut(&str, &str)) {
    if at.number == 1 {
        each("/qio/at", &epoch_data(path, Position { number: 0, ..at }));
    }
    each(&event_path(path, at.number), data.as_str());
}

/// Returns the path of an event with a number.
pub(super) fn event_path(path: &str, number: u64) -> String {
    format!("/qio/at/{number}{}", path)
}

/// Returns the data of the event that tells where in its history a path is.
pub(super) fn epoch_data(path: &str, at: Position) -> String {
    format!(r#"["{}","{at}"]"#, path)
}

/// Returns the data of the event that tells how many events of a path were lost, if that is known.
pub(super) fn lost_data(path: &str, lost: Option<u64>) -> String {
    let lost = lost.map_or_else(|| "null".to_owned(), |lost| lost.to_string());
    format!(r#"["{}",{lost}]"#, path)
}
