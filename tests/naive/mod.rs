//! Naive implementations of the event's routines, directly from the text of protocol.md. They are the oracles of the tests,
//! and the benchmarks compare the real routines with them.

#![allow(dead_code, reason = "not every program that has this module needs all of it")]

use std::collections::HashMap;

use quickio::event::path::PathError;
use quickio::event::text::{EventText, EventTextError};
use quickio::limits::PATH_BYTES_MAX;

/// Cleans a path: drops other characters, collapses slashes, and drops the last one.
pub fn clean(raw: &str) -> Result<String, PathError> {
    let kept: String = raw.chars().filter(|c| c.is_ascii_alphanumeric() || "_-/".contains(*c)).collect();
    let absolute = kept.starts_with('/');
    let segments: Vec<&str> = kept.split('/').filter(|segment| !segment.is_empty()).collect();
    if segments.is_empty() {
        return Err(PathError::Empty);
    }
    let cleaned = format!("{}{}", if absolute { "/" } else { "" }, segments.join("/"));
    if cleaned.len() > PATH_BYTES_MAX { Err(PathError::TooLong) } else { Ok(cleaned) }
}

/// Splits an event's text.
pub fn parse(text: &str) -> Result<EventText<'_>, EventTextError> {
    let colon = text.find(':').ok_or(EventTextError::NoColon)?;
    let rest = &text[colon + 1..];
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    if digits.is_empty() {
        return Err(EventTextError::NoDigits);
    }
    let callback = digits.parse().map_err(|_| EventTextError::CallbackTooLarge)?;
    let data = rest[digits.len()..].strip_prefix('=').ok_or(EventTextError::NoEquals)?;
    Ok(EventText { path: &text[..colon], callback, data: if data.is_empty() { "null" } else { data } })
}

/// Events by path. A path is looked up as it is, then without its last segment, and so on.
#[derive(Default)]
pub struct Router<T> {
    events: HashMap<String, (bool, T)>,
}

impl<T> Router<T> {
    /// Registers an event, and returns `false` if it exists already.
    pub fn register(&mut self, path: &str, children: bool, value: T) -> bool {
        if self.events.contains_key(path) {
            return false;
        }
        self.events.insert(path.to_owned(), (children, value));
        true
    }

    pub fn route<'a>(&self, path: &'a str) -> Option<(&T, &'a str)> {
        let mut end = path.len();
        loop {
            if let Some((children, value)) = self.events.get(&path[..end]) {
                if *children || end == path.len() {
                    return Some((value, &path[end..]));
                }
            }
            end = path[..end].rfind('/')?;
        }
    }
}
