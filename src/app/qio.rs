//! The built-in `/qio` events (docs/protocol.md, section 4), which are an ordinary application on the ordinary API.

use super::{Answer, Application, Context, Error, Event, Json, LocalCommand, Registrar};
use crate::event::path::Path;
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
    let Some((path, extra)) = parse_on(event.data) else { return invalid_path() };
    // A path that is empty or too long is well-formed JSON. No event can have such a path: 404.
    let Ok(path) = Path::parse(&path) else { return no_such_event() };
    cx.push_local(LocalCommand::Subscribe { reply_to: event.reply_to(), path, extra });
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

/// Parses `"path"` or `["path", extra]`.
fn parse_on(data: &str) -> Option<(String, Json)> {
    if let Ok(path) = serde_json::from_str(data) {
        return Some((path, Json::NULL));
    }
    let (path, extra): (String, &RawValue) = serde_json::from_str(data).ok()?;
    Some((path, Json::trusted(extra.get())))
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
        let extra = |data| parse_on(data).map(|(path, extra)| (path, extra.as_str().to_owned()));
        let found = |path: &str, extra: &str| Some((path.to_owned(), extra.to_owned()));
        assert_eq!(extra(r#""/a/b""#), found("/a/b", "null"));
        assert_eq!(extra(r#""/\u0061""#), found("/a", "null"));
        assert_eq!(extra(r#" [ "/a" , {"k": [1]} ] "#), found("/a", r#"{"k": [1]}"#));
        for data in ["1", "null", "{}", "[]", r#"["/a"]"#, r#"["/a",1,2]"#, r#"[1,2]"#, r#""/a"#, "", "true"]
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
