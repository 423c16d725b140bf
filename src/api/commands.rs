//! Bodies of `POST /send`, `/close`, `/on` and `/off`.

use super::bodies::checked_path;
use super::messages::{ApiAction, ApiTarget};
use super::refusal::ApiRefusal;
use crate::app::Json;
use crate::event::path::Path;
use crate::limits::{API_REASON_BYTES_MAX, AUTH_USER_BYTES_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What is done to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandKind {
    Send,
    Close,
    On,
    Off,
}

/// The fields of all bodies.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandBody<'a> {
    user: Option<String>,
    client: Option<String>,
    path: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    reason: Option<String>,
}

/// Parses the body of a command.
///
/// # Errors
///
/// The reason why it is not valid.
pub(super) fn parse(kind: CommandKind, body: &[u8]) -> Result<(ApiTarget, ApiAction), ApiRefusal> {
    let body: CommandBody<'_> = serde_json::from_slice(body)
        .map_err(|error| ApiRefusal::invalid(&format!("the body is not JSON as expected: {error}")))?;
    let needs =
        |condition: bool, error: &str| if condition { Ok(()) } else { Err(ApiRefusal::invalid(error)) };
    needs(kind == CommandKind::Send || body.data.is_none(), "only /send has data")?;
    needs(kind == CommandKind::Close || body.reason.is_none(), "only /close has a reason")?;
    needs(kind != CommandKind::Close || body.path.is_none(), "/close has no path")?;
    let target = target(body.user.as_deref(), body.client.as_deref())?;
    let action = match kind {
        CommandKind::Send => ApiAction::Send {
            path: path(body.path.as_deref())?,
            data: body.data.map_or(Json::NULL, |data| Json::trusted(data.get())),
        },
        CommandKind::Close => {
            ApiAction::Close { reason: body.reason.map(reason).transpose()?.map(Into::into) }
        }
        CommandKind::On => ApiAction::On { path: path(body.path.as_deref())? },
        CommandKind::Off => ApiAction::Off { path: path(body.path.as_deref())? },
    };
    Ok((target, action))
}

fn target(user: Option<&str>, client: Option<&str>) -> Result<ApiTarget, ApiRefusal> {
    match (user, client) {
        (Some(user), None) => self::user(user).map(|user| ApiTarget::User(user.into())),
        (None, Some(client)) => client
            .parse()
            .map(ApiTarget::Client)
            .map_err(|error| ApiRefusal::invalid(&format!("client: {error}"))),
        _ => Err(ApiRefusal::invalid("the body needs either user or client")),
    }
}

/// Checks the name of a user.
pub(super) fn user(user: &str) -> Result<&str, ApiRefusal> {
    // No token has a longer one. Characters are counted, because a description of the API can count nothing else.
    if (1..=AUTH_USER_BYTES_MAX).contains(&user.chars().count()) {
        return Ok(user);
    }
    Err(ApiRefusal::invalid(&format!("a user has 1 to {AUTH_USER_BYTES_MAX} characters")))
}

fn path(path: Option<&str>) -> Result<Path, ApiRefusal> {
    exact_path(path.ok_or_else(|| ApiRefusal::invalid("the body needs a path"))?)
}

/// Checks a path.
pub(super) fn exact_path(path: &str) -> Result<Path, ApiRefusal> {
    match checked_path(path) {
        Ok(path) => Ok(path.to_path()),
        Err(error) => Err(ApiRefusal::invalid(&error.to_string())),
    }
}

/// Returns a reason, as far as a Close frame has room for it.
fn reason(mut reason: String) -> Result<String, ApiRefusal> {
    if reason.chars().count() > API_REASON_BYTES_MAX {
        return Err(ApiRefusal::invalid(&format!("a reason has at most {API_REASON_BYTES_MAX} characters")));
    }
    while reason.len() > API_REASON_BYTES_MAX {
        reason.pop();
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientId;

    fn parsed(kind: CommandKind, body: &str) -> String {
        match parse(kind, body.as_bytes()) {
            Ok((target, action)) => format!("{target:?} {action:?}"),
            Err(refusal) => {
                assert_eq!(refusal.status, 400);
                refusal.error
            }
        }
    }

    #[test]
    fn bodies_name_a_target_and_what_is_done() {
        let client = ClientId { shard: 1, slot: 2, generation: 3 };
        let (target, action) =
            parse(CommandKind::Send, br#"{"client":"1.2.3","path":"\/a","data":{"x": 1}}"#).unwrap();
        assert_eq!(target, ApiTarget::Client(client));
        assert!(
            matches!(action, ApiAction::Send { path, data } if path.as_str() == "/a" && data.as_str() == "{\"x\": 1}")
        );
        let (target, action) = parse(CommandKind::Close, br#"{"user":"\u00e9","reason":"bye"}"#).unwrap();
        assert_eq!(target, ApiTarget::User("\u{e9}".into()));
        assert!(matches!(action, ApiAction::Close { reason: Some(reason) } if &*reason == "bye"));
        assert!(matches!(
            parse(CommandKind::Close, br#"{"user":"7"}"#),
            Ok((_, ApiAction::Close { reason: None }))
        ));
        let long = format!(r#"{{"user":"7","reason":"{}"}}"#, "\u{e9}".repeat(API_REASON_BYTES_MAX));
        let (_, action) = parse(CommandKind::Close, long.as_bytes()).unwrap();
        assert!(matches!(action, ApiAction::Close { reason: Some(reason) } if reason.len() == 122));
        for (kind, is_on) in [(CommandKind::On, true), (CommandKind::Off, false)] {
            let (_, action) = parse(kind, br#"{"user":"7","path":"/a"}"#).unwrap();
            assert_eq!(matches!(action, ApiAction::On { .. }), is_on);
        }
    }

    #[test]
    fn errors_say_what_is_missing_or_too_much() {
        use CommandKind::{Close, Off, On, Send};
        let long = format!(r#"{{"user":"7","reason":"{}"}}"#, "x".repeat(API_REASON_BYTES_MAX + 1));
        let user = format!(r#"{{"user":"{}","path":"/a"}}"#, "x".repeat(AUTH_USER_BYTES_MAX + 1));
        for (kind, body, error) in [
            (Send, r#"{"path":"/a"}"#, "the body needs either user or client"),
            (Send, r#"{"user":"7","client":"1.2.3","path":"/a"}"#, "the body needs either user or client"),
            (Send, r#"{"user":"","path":"/a"}"#, "a user has 1 to 256 characters"),
            (Send, &user, "a user has 1 to 256 characters"),
            (Send, r#"{"client":"1.2","path":"/a"}"#, "client: it is not the id of a client, such as 0.17.3"),
            (Send, r#"{"user":"7"}"#, "the body needs a path"),
            (On, r#"{"user":"7","path":"/a/"}"#, "the path has characters or slashes"),
            (On, r#"{"user":"7","path":"/a","data":1}"#, "only /send has data"),
            (Off, r#"{"user":"7","path":"/a","reason":"x"}"#, "only /close has a reason"),
            (Close, r#"{"user":"7","path":"/a"}"#, "/close has no path"),
            (Close, &long, "a reason has at most 123 characters"),
            (Send, r#"{"user":"7","path":"/qio/x"}"#, "/qio is the server's own namespace"),
            (Send, r#"{"user":7}"#, "the body is not JSON as expected: invalid type"),
            (Send, r#"{"users":"7"}"#, "the body is not JSON as expected: unknown field"),
            (Send, "[]", "the body is not JSON as expected"),
        ] {
            let got = parsed(kind, body);
            assert!(got.starts_with(error), "{body}: {got}");
        }
    }
}
