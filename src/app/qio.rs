//! The built-in `/qio` events (docs/protocol.md, section 4), which are an ordinary application on the ordinary API.

use super::{Answer, Application, Context, Error, Event, GivenOptions, Json, LocalCommand, Registrar};
use crate::event::path::Path;
use crate::history::{OptionsError, SubscribeOptions};
use crate::limits::{HISTORY_PAGE_DEFAULT, HISTORY_PAGE_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The server's own application.
pub struct Qio {
    /// The answer to `/qio/hostname`, if the setting `public-address` is set.
    pub public_address: Option<String>,
    /// The answer to `/qio/hostname` otherwise, unless the client's HTTP request named a host.
    pub hostname: String,
    /// Clients can authenticate: there is `/qio/auth`.
    pub has_auth: bool,
    /// The setting `message-bytes-max`, which is the answer to `/qio/limits`.
    pub message_bytes_max: usize,
}

impl Application for Qio {
    fn name(&self) -> &str {
        "qio"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let public = self.public_address.as_deref().map(Json::string);
        let hostname = Json::string(&self.hostname);
        let limits = Json::trusted(&format!(r#"{{"message_bytes_max":{}}}"#, self.message_bytes_max));
        let mut own = |path, children, handler: fn(&mut Context<'_>, Event<'_>) -> Answer| {
            let event = registrar.event(path).no_subscriptions().handler(handler);
            if children { event.children().register_anywhere() } else { event.register_anywhere() }
        };
        own("/qio/on", false, on)?;
        own("/qio/off", false, off)?;
        own("/qio/history", false, history)?;
        own("/qio/members", false, members)?;
        if self.has_auth {
            own("/qio/auth", false, auth)?;
        }
        own("/qio/ping", false, |_, _| Answer::ok())?;
        own("/qio/callback", true, callback)?;
        registrar
            .event("/qio/limits")
            .no_subscriptions()
            .handler(move |_, _| Answer::data(limits.clone()))
            .register_anywhere()?;
        registrar
            .event("/qio/hostname")
            .no_subscriptions()
            .handler(move |cx, _| {
                Answer::data(match &public {
                    Some(public) => public.clone(),
                    None if cx.host.is_empty() => hostname.clone(),
                    None => Json::string(cx.host),
                })
            })
            .register_anywhere()
    }
}

fn on(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let Some((path, extra, options)) = parse_on(event.data) else { return invalid_path() };
    let options = match options.map(parse_options).transpose() {
        Ok(options) => options.flatten(),
        Err(error) => return Answer::error(400, error.to_string()),
    };
    // A path that is empty or too long is well-formed JSON. No event can have such a path: 404.
    let Ok(path) = Path::parse(&path) else { return no_such_event() };
    cx.push_local(LocalCommand::Subscribe { reply_to: event.reply_to(), path, extra, options });
    Answer::never()
}

/// Handles `/qio/history`: `"path"` or `["path", {"limit": 50, "before": "e7f3.1000"}]`.
fn history(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let parsed = match serde_json::from_str(event.data) {
        Ok(path) => Some((path, PageOptions::default())),
        Err(_) => serde_json::from_str(event.data).ok(),
    };
    let Some((path, options)): Option<(String, PageOptions)> = parsed else {
        return Answer::error(400, "invalid json ev_path or options");
    };
    let Ok(path) = Path::parse(&path) else { return no_such_event() };
    let Ok(before) = options.before.map(|before| before.parse()).transpose() else {
        return Answer::error(400, "invalid options");
    };
    let limit = options.limit.map_or(HISTORY_PAGE_DEFAULT, |limit| limit.min(HISTORY_PAGE_MAX));
    cx.push_local(LocalCommand::ReadHistory { reply_to: event.reply_to(), path, before, limit });
    Answer::never()
}

/// The options of `/qio/history`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageOptions {
    limit: Option<usize>,
    before: Option<String>,
}

/// Handles `/qio/members`: `"path"`.
fn members(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let Ok(path) = serde_json::from_str::<String>(event.data) else { return invalid_path() };
    let Ok(path) = Path::parse(&path) else { return no_such_event() };
    cx.push_local(LocalCommand::ReadMembers { reply_to: event.reply_to(), path });
    Answer::never()
}

fn off(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let Ok(path) = serde_json::from_str::<String>(event.data) else { return invalid_path() };
    let Ok(path) = Path::parse(&path) else { return no_such_event() };
    cx.push_local(LocalCommand::Unsubscribe { reply_to: event.reply_to(), path });
    Answer::never()
}

fn auth(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let Ok(token) = serde_json::from_str::<Box<str>>(event.data) else {
        return Answer::error(400, "invalid json token");
    };
    cx.push_local(LocalCommand::Authenticate { reply_to: event.reply_to(), token });
    Answer::never()
}

fn callback(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let id = parse_callback_id(event.extra);
    cx.push_local(LocalCommand::RunCallback { reply_to: event.reply_to(), id, data: Json::from(event.data) });
    Answer::never()
}

fn invalid_path() -> Answer {
    Answer::error(400, "invalid json ev_path")
}

fn no_such_event() -> Answer {
    Answer::refusal(404, None)
}

/// Parses `"path"`, `["path", extra]` or `["path", extra, options]`.
fn parse_on(data: &str) -> Option<(String, Json, Option<Json>)> {
    if let Ok(path) = serde_json::from_str(data) {
        return Some((path, Json::NULL, None));
    }
    if let Ok((path, extra)) = serde_json::from_str::<(String, &RawValue)>(data) {
        return Some((path, Json::trusted(extra.get()), None));
    }
    let (path, extra, options): (String, &RawValue, &RawValue) = serde_json::from_str(data).ok()?;
    Some((path, Json::trusted(extra.get()), Some(Json::trusted(options.get()))))
}

/// Parses the options of a subscription; `None` if there is no option.
fn parse_options(text: Json) -> Result<Option<Box<GivenOptions>>, OptionsError> {
    let parsed = SubscribeOptions::parse(text.as_str())?;
    Ok((!parsed.is_empty()).then(|| Box::new(GivenOptions { parsed, text })))
}

/// Parses the id in `/7`: decimal digits, not 0.
fn parse_callback_id(extra: &str) -> Option<u64> {
    let digits = extra.strip_prefix('/')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|id| *id != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_a_path_or_a_path_with_extra_json() {
        let extra = |data| parse_on(data).map(|(path, extra, _)| (path, extra.as_str().to_owned()));
        let found = |path: &str, extra: &str| Some((path.to_owned(), extra.to_owned()));
        assert_eq!(extra(r#""/a/b""#), found("/a/b", "null"));
        assert_eq!(extra(r#""/\u0061""#), found("/a", "null"));
        assert_eq!(extra(r#" [ "/a" , {"k": [1]} ] "#), found("/a", r#"{"k": [1]}"#));
        for data in
            ["1", "null", "{}", "[]", r#"["/a"]"#, r#"["/a",1,{},2]"#, r#"[1,2]"#, r#""/a"#, "", "true"]
        {
            assert_eq!(extra(data), None, "{data}");
        }
    }

    #[test]
    fn deep_nesting_is_accepted_without_overflow() {
        let nested = format!(r#"["/a",{}{}]"#, "[".repeat(200_000), "]".repeat(200_000));
        assert!(parse_on(&nested).is_some());
        assert!(parse_on(&"[".repeat(200_000)).is_none());
    }

    #[test]
    fn callback_ids_are_digits() {
        assert_eq!(parse_callback_id("/7"), Some(7));
        assert_eq!(parse_callback_id("/18446744073709551615"), Some(u64::MAX));
        for extra in ["", "/", "/0", "/-1", "/a", "/7/8", "/18446744073709551616", "/+7"] {
            assert_eq!(parse_callback_id(extra), None, "{extra}");
        }
    }
}
