//! The settings of the application, in `[app-settings.webhook]`.

use super::sign::HookSecret;
use hyper::Uri;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// The names of all settings.
const NAMES: [&str; 7] = ["url", "secret-file", "paths", "events", "connect-headers", "timeout", "ca-file"];

/// An event that the back end can be asked about or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookEvent {
    Connect,
    On,
    Send,
    Gone,
}

impl HookEvent {
    const ALL: [HookEvent; 4] = [HookEvent::Connect, HookEvent::On, HookEvent::Send, HookEvent::Gone];

    pub(super) const fn name(self) -> &'static str {
        match self {
            HookEvent::Connect => "connect",
            HookEvent::On => "on",
            HookEvent::Send => "send",
            HookEvent::Gone => "gone",
        }
    }
}

/// The address of the back end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HookUrl {
    pub is_https: bool,
    pub host: String,
    pub port: u16,
    /// The host and the port, as the header `Host` has them.
    pub authority: String,
    /// The path and the query.
    pub target: String,
}

/// The settings.
#[derive(Clone, Debug)]
pub(super) struct WebhookSettings {
    pub url: HookUrl,
    pub secret: HookSecret,
    pub paths: Vec<String>,
    events: Vec<HookEvent>,
    /// The headers that say who a client without a token is.
    pub connect_headers: Vec<String>,
    pub timeout: Duration,
    /// The file with the authorities that certificates of the back end must come from, or `None` for those of the host.
    pub ca_file: Option<PathBuf>,
}

/// The reason why the settings cannot be used.
#[derive(Debug, Error)]
pub enum WebhookError {
    #[error("the application webhook needs the setting `{0}` in [app-settings.webhook]")]
    Missing(&'static str),
    #[error(
        "the application webhook has no setting `{0}`; there are url, secret-file, paths, events, connect-headers, \
         timeout and ca-file"
    )]
    Unknown(String),
    #[error("url of [app-settings.webhook] cannot be `{0}`: write http://HOST/PATH or https://HOST/PATH")]
    Url(String),
    #[error(
        "paths of [app-settings.webhook] cannot be `{0}`: write paths that begin with a slash, with commas between them"
    )]
    Paths(String),
    #[error(
        "events of [app-settings.webhook] cannot be `{0}`: write some of connect, on, send and gone, with commas between \
         them"
    )]
    Events(String),
    #[error(
        "connect-headers of [app-settings.webhook] cannot have `{0}`: write names of headers that the setting app-headers has \
         too, with commas between them"
    )]
    ConnectHeaders(String),
    #[error("connect-headers of [app-settings.webhook] has no effect, because events does not have connect")]
    UnusedHeaders,
    #[error("timeout of [app-settings.webhook] cannot be `{0}`: write 1ms to 60s, such as 500ms or 2s")]
    Timeout(String),
    #[error("cannot read {} (secret-file of [app-settings.webhook]): {source}", .path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    #[error(
        "the secret in {} (secret-file of [app-settings.webhook]) is shorter than 16 bytes; write a longer one: (umask 077; \
         openssl rand -hex 32 > FILE)", .0.display()
    )]
    ShortSecret(PathBuf),
}

impl WebhookSettings {
    /// Reads the settings. `app_headers` is the setting `app-headers`.
    pub(super) fn read(
        settings: &BTreeMap<String, String>,
        app_headers: &[String],
    ) -> Result<WebhookSettings, WebhookError> {
        if let Some(unknown) = settings.keys().find(|name| !NAMES.contains(&name.as_str())) {
            return Err(WebhookError::Unknown(unknown.clone()));
        }
        let given = |name: &'static str| settings.get(name).map(String::as_str);
        let needed = |name| given(name).ok_or(WebhookError::Missing(name));
        let url = needed("url")?;
        let path = PathBuf::from(needed("secret-file")?);
        let secret = match std::fs::read(&path) {
            Ok(secret) => HookSecret::new(secret.trim_ascii()).ok_or(WebhookError::ShortSecret(path))?,
            Err(source) => return Err(WebhookError::Secret { path, source }),
        };
        let events = events(given("events").unwrap_or("on,send,gone"))?;
        let has_paths = events.contains(&HookEvent::On) || events.contains(&HookEvent::Send);
        let paths = match given("paths") {
            None if !has_paths => Vec::new(),
            given => paths(given.ok_or(WebhookError::Missing("paths"))?)?,
        };
        let connect_headers = match given("connect-headers") {
            None => vec![COOKIE.to_owned()],
            Some(_) if !events.contains(&HookEvent::Connect) => return Err(WebhookError::UnusedHeaders),
            Some(names) => connect_headers(names, app_headers)?,
        };
        Ok(WebhookSettings {
            url: HookUrl::parse(url).ok_or_else(|| WebhookError::Url(url.to_owned()))?,
            secret,
            paths,
            events,
            connect_headers,
            timeout: timeout(given("timeout").unwrap_or("1s"))?,
            ca_file: given("ca-file").map(PathBuf::from),
        })
    }

    pub(super) fn has(&self, event: HookEvent) -> bool {
        self.events.contains(&event)
    }
}

impl HookUrl {
    fn parse(text: &str) -> Option<HookUrl> {
        let uri: Uri = text.parse().ok()?;
        let is_https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        Some(HookUrl {
            is_https,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            authority: authority.to_string(),
            target: uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        })
    }
}

fn paths(text: &str) -> Result<Vec<String>, WebhookError> {
    let paths: Vec<String> = text.split(',').map(|path| path.trim().to_owned()).collect();
    let is_path = |path: &String| path.len() > 1 && path.starts_with('/');
    if paths.iter().all(is_path) { Ok(paths) } else { Err(WebhookError::Paths(text.to_owned())) }
}

/// The header that says who a client is, if the settings do not name others.
const COOKIE: &str = "cookie";

/// Parses names of headers, of which there may be none.
fn connect_headers(text: &str, app_headers: &[String]) -> Result<Vec<String>, WebhookError> {
    let names = text.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty());
    let is_kept = |name: String| match app_headers.iter().any(|kept| kept.eq_ignore_ascii_case(&name)) {
        true => Ok(name),
        false => Err(WebhookError::ConnectHeaders(name)),
    };
    names.map(is_kept).collect()
}

fn events(text: &str) -> Result<Vec<HookEvent>, WebhookError> {
    let find = |name: &str| HookEvent::ALL.into_iter().find(|event| event.name() == name.trim());
    text.split(',').map(find).collect::<Option<_>>().ok_or_else(|| WebhookError::Events(text.to_owned()))
}

fn timeout(text: &str) -> Result<Duration, WebhookError> {
    let number = |digits: &str, unit| digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let ms = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => number(digits, 1),
        (None, Some(digits)) => number(digits, 1000),
        (None, None) => None,
    };
    let ms = ms.filter(|ms| (1..=60_000).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(|| WebhookError::Timeout(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let url = HookUrl::parse("https://hooks.example/quickio?x=1").unwrap();
        assert_eq!((url.is_https, url.host.as_str(), url.port), (true, "hooks.example", 443));
        assert_eq!((url.authority.as_str(), url.target.as_str()), ("hooks.example", "/quickio?x=1"));
        let url = HookUrl::parse("http://[::1]:8000").unwrap();
        assert_eq!((url.is_https, url.host.as_str(), url.port), (false, "::1", 8000));
        assert_eq!((url.authority.as_str(), url.target.as_str()), ("[::1]:8000", "/"));
        for wrong in ["", "hooks.example", "/quickio", "ftp://a/", "http://", "http://a:b@c/"] {
            assert_eq!(HookUrl::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lists_and_times_are_parsed() {
        assert_eq!(paths("/chat, /a/b").unwrap(), ["/chat", "/a/b"]);
        for wrong in ["", "/", "chat", "/chat,", "/a,,/b"] {
            assert!(paths(wrong).is_err(), "{wrong}");
        }
        let kept = ["Cookie".to_owned(), "x-user".to_owned()];
        assert_eq!(connect_headers("cookie, X-User", &kept).unwrap(), ["cookie", "x-user"]);
        assert!(connect_headers("", &kept).unwrap().is_empty(), "only tokens are asked about");
        assert!(connect_headers("origin", &kept).unwrap_err().to_string().contains("`origin`"));
        assert_eq!(events("connect").unwrap(), [HookEvent::Connect]);
        assert_eq!(events("gone, on").unwrap(), [HookEvent::Gone, HookEvent::On]);
        assert!(events("on,off").is_err() && events("").is_err());
        assert_eq!(timeout("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(timeout("60s").unwrap(), Duration::from_secs(60));
        for wrong in ["0ms", "61s", "1", "1m", "", "s", "-1s"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let read = |pairs: &[(&str, &str)]| {
            let settings =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            WebhookSettings::read(&settings, &[]).map(|_| ()).unwrap_err().to_string()
        };
        assert!(read(&[]).contains("needs the setting `url`"));
        assert!(read(&[("url", "http://a/"), ("secret-file", "/nowhere")]).contains("cannot read /nowhere"));
        assert!(read(&[("urls", "http://a/")]).contains("has no setting `urls`"));
    }
}
