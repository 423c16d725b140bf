//! The code measured by `benches/api.rs`: the parsers of bodies.

use super::{EventList, bodies};

/// Parses a body of lines; returns `None` if it is not valid.
pub fn parse_lines(body: Vec<u8>) -> Option<EventList> {
    bodies::parse_lines(body).ok()
}

/// Parses a body of JSON; returns `None` if it is not valid.
pub fn parse_json(body: &[u8]) -> Option<EventList> {
    bodies::parse_json(body).ok()
}
