//! Bodies of `POST /broadcast`: lines of text, or JSON. A body is accepted or refused as a whole.

use super::batch::EventList;
use super::refusal::ApiRefusal;
use crate::app::is_json;
use crate::event::path::{PathError, PathRef};
use crate::event::text::{self, EventTextError};
use crate::limits::PATH_BYTES_MAX;
use memchr::memchr_iter;
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The namespace of the server's own events, which nobody may send in its name.
const OWN_NAMESPACE: &str = "/qio";

/// The reason why an event of a body cannot be broadcast.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EventError {
    #[error("{0}; write /path:0=JSON")]
    Text(#[from] EventTextError),
    #[error("the callback id must be 0: nobody waits for an answer to a broadcast")]
    Callback,
    #[error("{0}")]
    Path(#[from] EventPathError),
    #[error("the data is not one JSON text")]
    Data,
}

/// The reason why back ends may not send to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EventPathError {
    #[error("the path must begin with a slash")]
    NoSlash,
    #[error(
        "the path has characters or slashes that it must not have: segments of A-Z a-z 0-9 _ - are separated by single \
         slashes, with none at the end"
    )]
    NotClean,
    #[error("{0}")]
    Length(PathError),
    #[error("/qio is the server's own namespace")]
    Own,
}

/// Returns the path if back ends may send to it. Nothing is cleaned: a path that is not clean is a mistake of the back
/// end.
pub(super) fn checked_path(raw: &str) -> Result<PathRef<'_>, EventPathError> {
    if raw.len() > PATH_BYTES_MAX {
        return Err(EventPathError::Length(PathError::TooLong));
    }
    if raw.is_empty() {
        return Err(EventPathError::Length(PathError::Empty));
    }
    if !raw.starts_with('/') {
        return Err(EventPathError::NoSlash);
    }
    let path = PathRef::exact(raw).ok_or(EventPathError::NotClean)?;
    match raw.strip_prefix(OWN_NAMESPACE) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Err(EventPathError::Own),
        _ => Ok(path),
    }
}

/// Parses a body of lines. Each line is an event, `/path:0=JSON`. Empty lines are ignored, and a line may end with CR LF.
///
/// # Errors
///
/// The first line that is not an event, counted from 1.
pub(super) fn parse_lines(body: Vec<u8>) -> Result<EventList, ApiRefusal> {
    let body = String::from_utf8(body).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        ApiRefusal::line(1 + memchr_iter(b'\n', valid).count(), "it is not UTF-8")
    })?;
    let mut list = EventList::of_text(body);
    let (mut start, mut number) = (0, 0);
    while start < list.text().len() {
        number += 1;
        let rest = &list.text().as_bytes()[start..];
        let end = start + memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &list.text()[start..end];
        let line = line.strip_suffix('\r').unwrap_or(line);
        if !line.is_empty() {
            let (path_len, data_len) =
                parse_line(line).map_err(|error| ApiRefusal::line(number, &error.to_string()))?;
            let data = start + line.len() - data_len;
            list.add_part((start, path_len), (data, data_len));
        }
        start = end + 1;
    }
    Ok(list)
}

/// Returns the lengths of the path and of the data of a line.
fn parse_line(line: &str) -> Result<(usize, usize), EventError> {
    let event = text::parse(line)?;
    if event.callback != 0 {
        return Err(EventError::Callback);
    }
    checked_path(event.path)?;
    if !is_json(event.data) {
        return Err(EventError::Data);
    }
    // Empty data is returned as `null`, which is not a part of the line. No JSON text ends with `=`.
    let data_len = if line.ends_with('=') { 0 } else { event.data.len() };
    Ok((event.path.len(), data_len))
}

/// Parses a body of JSON: `{"path": ..., "data": ...}`, or an array of such objects.
///
/// # Errors
///
/// The first event that is not valid, counted from 1, or the place where the body is not JSON.
pub(super) fn parse_json(body: &[u8]) -> Result<EventList, ApiRefusal> {
    let mut list = EventList::default();
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let mut failed = None;
    let mut parser = serde_json::Deserializer::from_slice(body);
    let events = EventsSeed { list: &mut list, failed: &mut failed };
    let parsed = if is_array { events.deserialize(&mut parser) } else { events.one(&mut parser) };
    match parsed.and_then(|()| parser.end()) {
        Ok(()) => Ok(list),
        Err(error) => Err(match failed {
            Some((number, reason)) if is_array => ApiRefusal::event(number, &reason),
            Some((_, reason)) => ApiRefusal::invalid(&reason),
            None => ApiRefusal::invalid(&format!("the body is not JSON as expected: {error}")),
        }),
    }
}

/// An event in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonEvent<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// The target of the events of a JSON body.
struct EventsSeed<'l> {
    list: &'l mut EventList,
    /// The number of the event that is not valid, and the reason.
    failed: &'l mut Option<(usize, String)>,
}

impl EventsSeed<'_> {
    fn one<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let event = JsonEvent::deserialize(deserializer)?;
        self.add(1, &event)
    }

    fn add<E: de::Error>(self, number: usize, event: &JsonEvent<'_>) -> Result<(), E> {
        match checked_path(&event.path) {
            Ok(path) => {
                self.list.push(path, event.data.map_or("", RawValue::get));
                Ok(())
            }
            Err(error) => {
                *self.failed = Some((number, error.to_string()));
                Err(E::custom(error))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for EventsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EventsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        let EventsSeed { list, failed } = self;
        for number in 1.. {
            let event = events.next_element::<JsonEvent<'_>>().inspect_err(|error| {
                *failed = Some((number, error.to_string()));
            })?;
            let Some(event) = event else { break };
            EventsSeed { list: &mut *list, failed: &mut *failed }.add(number, &event)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
