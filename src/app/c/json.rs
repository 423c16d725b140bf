//! The JSON functions of the C API, for applications without a JSON library.

use super::abi::Fault;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Checks that a text is JSON. Any depth of nesting is accepted.
///
/// # Errors
///
/// [`Fault::BadJson`]
pub fn check(json: &str) -> Result<(), Fault> {
    serde_json::from_str::<IgnoredAny>(json).map(drop).map_err(|_| Fault::BadJson)
}

/// Returns the text of a JSON string.
///
/// # Errors
///
/// [`Fault::BadJson`] if `json` is not a JSON string.
pub fn text(json: &str) -> Result<String, Fault> {
    serde_json::from_str(json).map_err(|_| Fault::BadJson)
}

/// Returns the value of an object's first member of this name, as JSON.
///
/// # Errors
///
/// [`Fault::BadJson`] if `json` is not a JSON object, and [`Fault::NotFound`] if it has no such member.
pub fn member<'a>(json: &'a str, name: &str) -> Result<&'a str, Fault> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_map(FindMember(name)).map_err(|_| Fault::BadJson)?;
    deserializer.end().map_err(|_| Fault::BadJson)?;
    found.map(RawValue::get).ok_or(Fault::NotFound)
}

/// A visitor that finds the first member of this name.
struct FindMember<'n>(&'n str);

impl<'de> Visitor<'de> for FindMember<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(MemberName(name)) = map.next_key()? {
            if found.is_none() && name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The name of a member, which is borrowed if it contains no escape sequences.
#[derive(serde::Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_parts_of_the_text() {
        let json = r#" {"a": [1, {"b": 2}] ,"b":"x","\u0063":null,"a":3} "#;
        assert_eq!(member(json, "a"), Ok(r#"[1, {"b": 2}]"#), "the first of that name");
        assert_eq!(member(json, "b"), Ok(r#""x""#));
        assert_eq!(member(json, "c"), Ok("null"));
        assert_eq!(member(json, "d"), Err(Fault::NotFound));
        for bad in ["", "[]", "1", r#"{"a":1"#, r#"{"a":1}}"#, r#"{"a":1} x"#, r#"{a:1}"#, r#"{"a":}"#] {
            assert_eq!(member(bad, "a"), Err(Fault::BadJson), "{bad}");
        }
    }

    #[test]
    fn texts_are_unescaped() {
        assert_eq!(text(r#""a\n\u00e9\ud83e\udd80\"""#), Ok("a\né🦀\"".into()));
        for bad in ["a", "1", "\"", r#""\ud83e""#, r#""a" "b""#] {
            assert_eq!(text(bad), Err(Fault::BadJson), "{bad}");
        }
    }

    #[test]
    fn any_depth_is_accepted() {
        let deep = |open: &str, close: &str| open.repeat(200_000) + "1" + &close.repeat(200_000);
        assert_eq!(check(&deep("[", "]")), Ok(()));
        assert_eq!(check(&deep(r#"{"a":"#, "}")), Ok(()));
        assert_eq!(check(&"[".repeat(200_000)), Err(Fault::BadJson));
        let json = format!(r#"{{"a":{},"b":1}}"#, deep("[", "]"));
        assert_eq!(member(&json, "b"), Ok("1"));
    }
}
