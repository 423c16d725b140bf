//! The options of a subscription: the third element of `/qio/on`.

use super::position::Position;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use thiserror::Error;

/// The options of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The events before the subscription that the client asks for. Without it, events come without their numbers.
    pub replay: Option<ReplayFrom>,
    /// The client asks for the members of the path, and for their changes.
    pub members: bool,
}

/// The events that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayFrom {
    /// The client has everything up to this position, and asks for what came later.
    pub since: Option<Position>,
    /// The number of the last events that the client asks for, if there is no such position or not all is there that came
    /// later.
    pub last: Option<u32>,
}

/// The error of options that are not understood, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid options")]
pub struct OptionsError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionsForm {
    #[serde(default)]
    history: Option<u32>,
    #[serde(default, deserialize_with = "position")]
    since: Option<Position>,
    #[serde(default)]
    members: Option<bool>,
}

fn position<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Position>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

impl SubscribeOptions {
    /// Parses a JSON object such as `{"since":"e7f3.1041"}`.
    ///
    /// # Errors
    ///
    /// The text is not such an object, or has a key that is not known.
    pub fn parse(json: &str) -> Result<SubscribeOptions, OptionsError> {
        // An array would be taken for the fields in their order.
        if !json.trim_start().starts_with('{') {
            return Err(OptionsError);
        }
        let OptionsForm { history, since, members } = serde_json::from_str(json).map_err(|_| OptionsError)?;
        let asks = history.is_some() || since.is_some();
        Ok(SubscribeOptions {
            replay: asks.then_some(ReplayFrom { since, last: history }),
            members: members == Some(true),
        })
    }

    /// Returns whether there is no option.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == SubscribeOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let position: Position = "e7f3.1041".parse().unwrap();
        let replay =
            |since, last| Ok(SubscribeOptions { replay: Some(ReplayFrom { since, last }), members: false });
        let replay_and_members =
            SubscribeOptions { replay: Some(ReplayFrom { since: None, last: Some(2) }), members: true };
        for (json, expected) in [
            ("{}", Ok(SubscribeOptions::default())),
            (r#"{"history":null,"since":null}"#, Ok(SubscribeOptions::default())),
            (r#" {"history":20}"#, replay(None, Some(20))),
            (r#"{"history":0}"#, replay(None, Some(0))),
            (r#"{"since":"e7f3.1041"}"#, replay(Some(position), None)),
            (r#"{"since":"e7f3.1041","history":1}"#, replay(Some(position), Some(1))),
            (r#"{"members":true}"#, Ok(SubscribeOptions { replay: None, members: true })),
            (r#"{"members":true,"history":2}"#, Ok(replay_and_members)),
            (r#"{"members":false}"#, Ok(SubscribeOptions::default())),
            (r#"{"members":null}"#, Ok(SubscribeOptions::default())),
            (r#"{"members":1}"#, Err(OptionsError)),
            (r#"{"since":"e7f3"}"#, Err(OptionsError)),
            (r#"{"since":7}"#, Err(OptionsError)),
            (r#"{"history":-1}"#, Err(OptionsError)),
            (r#"{"history":4294967296}"#, Err(OptionsError)),
            (r#"{"history":1.5}"#, Err(OptionsError)),
            (r#"{"history":1,"history":2}"#, Err(OptionsError)),
            (r#"{"hisotry":1}"#, Err(OptionsError)),
            ("[20,null]", Err(OptionsError)),
            ("null", Err(OptionsError)),
            ("20", Err(OptionsError)),
            ("", Err(OptionsError)),
        ] {
            assert_eq!(SubscribeOptions::parse(json), expected, "{json}");
        }
    }
}
