//! The data of an event: one JSON text, shared and never changed.

use std::fmt;
use std::sync::Arc;

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
