//! The data of an event: one JSON text, shared and never changed.

use serde::de::IgnoredAny;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// One JSON text. The server passes it through byte for byte; who makes one answers for its form.
///
/// Cloning counts a reference; text of the program's own costs nothing at all.
#[derive(Clone)]
pub struct Json(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Json {
    /// `null`.
    pub const NULL: Json = Json(Text::Static("null"));

    /// A text of the program's own.
    pub const fn of_static(text: &'static str) -> Json {
        Json(Text::Static(text))
    }

    /// This text as a JSON string, quoted and escaped.
    pub fn string(text: &str) -> Json {
        Json::from(serde_json::Value::from(text).to_string())
    }

    /// A text that is checked: none is `null`. No depth is too much for it.
    ///
    /// # Errors
    ///
    /// The text is not one JSON text.
    pub fn checked(text: &str) -> Result<Json, NotJson> {
        if text.is_empty() {
            return Ok(Json::NULL);
        }
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Ok(Json::from(text)),
            Err(_) => Err(NotJson),
        }
    }

    /// The text. Never empty: no text is `null`.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static("") => "null",
            Text::Static(text) => text,
            Text::Shared(text) if text.is_empty() => "null",
            Text::Shared(text) => text,
        }
    }
}

/// A text that is not one JSON text.
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
        if text == "null" { Json::NULL } else { Json(Text::Shared(Arc::from(text))) }
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
