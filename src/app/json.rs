//! The data of an event: one JSON text, which is shared and immutable.

use serde::de::IgnoredAny;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// One JSON text. The server passes it on byte for byte.
///
/// Text that is not JSON could forge the rest of the event or answer that it becomes a part of, and break the connections
/// of the clients that receive it. A text that was converted with `From` is therefore checked, once, before it is sent: this
/// may be data that a client has sent. [`Json::trusted`] makes a text that is not checked.
///
/// Cloning a text costs one reference count, and nothing if the text is `'static`.
#[derive(Clone)]
pub struct Json(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
    /// A text that may not be JSON.
    Unchecked(Arc<str>),
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
        Json::trusted(&serde_json::Value::from(text).to_string())
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
        if is_json(text) { Ok(Json::trusted(text)) } else { Err(NotJson) }
    }

    /// Returns a text that the caller knows to be JSON, for example because a serializer has produced it. It is never
    /// checked.
    pub fn trusted(text: &str) -> Json {
        Json(Repr::Shared(Arc::from(text)))
    }

    /// Returns this text after checking its syntax, unless it was checked before or is trusted. Cheap if it was.
    ///
    /// # Errors
    ///
    /// The text is not one valid JSON text.
    pub(crate) fn verify(self) -> Result<Json, NotJson> {
        match self.0 {
            Repr::Unchecked(text) if is_json(&text) => Ok(Json(Repr::Shared(text))),
            Repr::Unchecked(_) => Err(NotJson),
            checked => Ok(Json(checked)),
        }
    }

    /// Returns the text, which is copied only if it is part of the program.
    pub(crate) fn to_shared(&self) -> Arc<str> {
        match &self.0 {
            Repr::Shared(text) | Repr::Unchecked(text) if !text.is_empty() => Arc::clone(text),
            _ => Arc::from(self.as_str()),
        }
    }

    /// Returns the text, or `null` if the text is empty.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static("") => "null",
            Repr::Static(text) => text,
            Repr::Shared(text) | Repr::Unchecked(text) if text.is_empty() => "null",
            Repr::Shared(text) | Repr::Unchecked(text) => text,
        }
    }
}

/// Returns whether a text is one JSON text, or empty. The parser has no recursion: nesting may have any depth.
pub(crate) fn is_json(text: &str) -> bool {
    text.is_empty() || serde_json::from_str::<IgnoredAny>(text).is_ok()
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
        if text == "null" { Json::NULL } else { Json(Repr::Unchecked(Arc::from(text))) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_that_may_not_be_json_are_checked() {
        for invalid in
            ["1,\"code\":403", "{", "\"a", "nul", "1 2", "\u{1}", "\"\n\"", "\"\\x\"", "[1,]", "01"]
        {
            assert!(Json::from(invalid).verify().is_err(), "{invalid}");
            assert!(Json::checked(invalid).is_err(), "{invalid}");
            assert!(Json::trusted(invalid).verify().is_ok(), "{invalid}");
        }
        let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
        for valid in ["", "null", "1", "[1,\n 2]", "{\"a\":{}}", "\"\\u0000\"", &deep] {
            let verified = Json::from(valid).verify().expect("it is JSON");
            assert_eq!(verified.as_str(), if valid.is_empty() { "null" } else { valid });
        }
        assert!(Json::from("1 2".to_owned()).verify().is_err());
        assert!(Json::string("1,\"code\":403").verify().is_ok());
    }
}
