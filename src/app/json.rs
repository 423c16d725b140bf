//! The data of an event: one JSON text, which is shared and immutable.

use serde::de::IgnoredAny;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// One JSON text. The server passes it on byte for byte and does not check it: the creator of the value is responsible
/// for its syntax.
///
/// Cloning a text costs one reference count, and nothing if the text is `'static`.
#[derive(Clone)]
pub struct Json(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Json {
    /// The text `null`.
    pub const NULL: Json = Json(Repr::Static("null"));

    /// Returns a text that is part of the program.
    pub const fn of_static(text: &'static str) -> Json {
        Json(Repr::Static(text))
    }

    /// Returns this text as a JSON string, quoted and escaped.
    pub fn string(text: &str) -> Json {
        Json::from(serde_json::Value::from(text).to_string())
    }

    /// Returns this text after checking its syntax, or `null` if the text is empty. Any depth of nesting is accepted.
    ///
    /// # Errors
    ///
    /// The text is not one valid JSON text.
    pub fn checked(text: &str) -> Result<Json, NotJson> {
        if text.is_empty() {
            return Ok(Json::NULL);
        }
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Ok(Json::from(text)),
            Err(_) => Err(NotJson),
        }
    }

    /// Returns the text, or `null` if the text is empty.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static("") => "null",
            Repr::Static(text) => text,
            Repr::Shared(text) if text.is_empty() => "null",
            Repr::Shared(text) => text,
        }
    }
}

/// The error of a text that is not one valid JSON text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("it is not JSON")]
pub struct NotJson;

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        if text == "null" { Json::NULL } else { Json(Repr::Shared(Arc::from(text))) }
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::from(text.as_str())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
