//! Pages of events, as clients and back ends are told about them.

use super::position::Position;
use std::fmt::Write;
use std::sync::Arc;

/// Events of a path that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsPage {
    /// The position behind the last event of the path.
    pub at: Position,
    /// The number of the first event of the page.
    pub first: u64,
    /// The data of the events, which is JSON.
    pub events: Vec<Arc<str>>,
}

impl EventsPage {
    /// Returns the JSON `{"at":"e7f3.1044","events":[[1043,data],[1044,data]]}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = format!(r#"{{"at":"{}","events":["#, self.at);
        for (number, event) in (self.first..).zip(&self.events) {
            let separator = if number == self.first { "" } else { "," };
            write!(json, "{separator}[{number},{event}]").expect("a string can be written to");
        }
        json.push_str("]}");
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_json() {
        let page = |events: &[&str]| {
            let events = events.iter().map(|data| Arc::from(*data)).collect();
            EventsPage { at: "e7f3.1044".parse().unwrap(), first: 1043, events }.to_json()
        };
        assert_eq!(page(&[]), r#"{"at":"e7f3.1044","events":[]}"#);
        assert_eq!(
            page(&[r#"{"x": 1}"#, "null"]),
            r#"{"at":"e7f3.1044","events":[[1043,{"x": 1}],[1044,null]]}"#
        );
    }
}
