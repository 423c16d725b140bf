//! `quickio clienttest`: its own flags, and the ways in which its proxy mangles upgrades.

use std::ffi::OsStr;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

use super::error::ConfigError;
use super::value::{self, Why};
use super::{App, Config, Listen, suggest};

/// The word that a command line begins with.
pub const COMMAND: &str = "clienttest";

/// The applications that run in any case: what libraries are tested against, and what broadcasts what it is sent.
const APPS: [&str; 2] = ["relay", "clienttest"];

/// What stands for [`Mangling::Rotate`].
const ROTATE: &str = "rotate";

/// What `quickio clienttest` runs: a server, and a proxy before it that mangles upgrades.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientTest {
    /// The server's settings; its applications are `relay`, `clienttest` and whatever else is asked for.
    pub server: Config,
    /// Where the proxy listens.
    pub proxy: SocketAddr,
    /// What it does to upgrades that do not say themselves.
    pub mangle: Mangling,
}

/// Which mode an upgrade gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mangling {
    /// Each the same.
    Always(Mode),
    /// Each the next of all but [`Mode::None`], in the order of [`Mode::ALL`], over and over.
    Rotate,
}

impl Mangling {
    fn parse(text: &str) -> Result<Mangling, Why> {
        if text == ROTATE {
            return Ok(Mangling::Rotate);
        }
        Mode::find(text).map(Mangling::Always).ok_or_else(|| unknown_mode(text))
    }
}

fn unknown_mode(text: &str) -> Why {
    let names = Mode::ALL.iter().map(|mode| mode.name()).chain([ROTATE]);
    let meant = suggest::nearest(text, names).map(|name| format!(", did you mean `{name}`?"));
    format!("there is no such mode{}", meant.unwrap_or_default())
}

/// A way in which an upgrade is mangled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    None,
    Status200,
    ConnectionRemoved,
    UpgradeRemoved,
    KeyRemoved,
    KeyChanged,
    VersionRemoved,
    VersionChanged,
    ProtocolRemoved,
    ProtocolChanged,
    AnswerConnectionRemoved,
    AnswerUpgradeRemoved,
    AnswerProtocolRemoved,
    AnswerProtocolChanged,
    AcceptRemoved,
    AcceptChanged,
    Swallow,
    Cut,
}

impl Mode {
    /// All of them, in the order of rotation.
    pub const ALL: &'static [Mode] = &[
        Mode::None,
        Mode::Status200,
        Mode::ConnectionRemoved,
        Mode::UpgradeRemoved,
        Mode::KeyRemoved,
        Mode::KeyChanged,
        Mode::VersionRemoved,
        Mode::VersionChanged,
        Mode::ProtocolRemoved,
        Mode::ProtocolChanged,
        Mode::AnswerConnectionRemoved,
        Mode::AnswerUpgradeRemoved,
        Mode::AnswerProtocolRemoved,
        Mode::AnswerProtocolChanged,
        Mode::AcceptRemoved,
        Mode::AcceptChanged,
        Mode::Swallow,
        Mode::Cut,
    ];

    /// The mode of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Mode> {
        Mode::ALL.iter().copied().find(|mode| mode.name() == name)
    }

    /// Its name, as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// What the proxy does.
    #[must_use]
    pub fn does(self) -> &'static str {
        self.words().1
    }

    /// What reaches the client.
    #[must_use]
    pub fn seen(self) -> &'static str {
        self.words().2
    }

    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Mode::None => ("none", "nothing", "a WebSocket that works"),
            Mode::Status200 => (
                "status-200",
                "the answer's 101 becomes 200 OK",
                "200 with the headers of a 101, on a connection that stays open",
            ),
            Mode::ConnectionRemoved => ("connection-removed", "the request loses Connection", "426"),
            Mode::UpgradeRemoved => ("upgrade-removed", "the request loses Upgrade", "426"),
            Mode::KeyRemoved => ("key-removed", "the request loses Sec-WebSocket-Key", "400"),
            Mode::KeyChanged => (
                "key-changed",
                "the request gets another Sec-WebSocket-Key",
                "101, its accept for another key",
            ),
            Mode::VersionRemoved => ("version-removed", "the request loses Sec-WebSocket-Version", "400"),
            Mode::VersionChanged => {
                ("version-changed", "the request's Sec-WebSocket-Version becomes 99", "400")
            }
            Mode::ProtocolRemoved => {
                ("protocol-removed", "the request loses Sec-WebSocket-Protocol", "101 without a subprotocol")
            }
            Mode::ProtocolChanged => {
                ("protocol-changed", "the request's Sec-WebSocket-Protocol becomes mangled", "400")
            }
            Mode::AnswerConnectionRemoved => {
                ("answer-connection-removed", "the answer loses Connection", "101 without Connection")
            }
            Mode::AnswerUpgradeRemoved => {
                ("answer-upgrade-removed", "the answer loses Upgrade", "101 without Upgrade")
            }
            Mode::AnswerProtocolRemoved => (
                "answer-protocol-removed",
                "the answer loses Sec-WebSocket-Protocol",
                "101 without a subprotocol",
            ),
            Mode::AnswerProtocolChanged => (
                "answer-protocol-changed",
                "the answer's Sec-WebSocket-Protocol becomes mangled",
                "101, with a subprotocol that it did not offer",
            ),
            Mode::AcceptRemoved => {
                ("accept-removed", "the answer loses Sec-WebSocket-Accept", "101 without an accept")
            }
            Mode::AcceptChanged => {
                ("accept-changed", "the answer gets another Sec-WebSocket-Accept", "101, its accept wrong")
            }
            Mode::Swallow => (
                "swallow",
                "whatever follows the handshake vanishes, in both directions",
                "a clean 101, then nothing",
            ),
            Mode::Cut => (
                "cut",
                "the connection is reset in the middle of the answer's head",
                "the first half of a 101",
            ),
        }
    }
}

/// The flags that only this command has.
#[derive(Debug, Default)]
pub(super) struct Own {
    proxy: Option<SocketAddr>,
    mangle: Option<Mangling>,
}

impl Own {
    pub(super) const FLAGS: [&'static str; 2] = ["proxy", "mangle"];

    /// Sets one of [`Own::FLAGS`]; `None` is a flag without its value.
    pub(super) fn set(&mut self, name: &str, value: Option<&OsStr>) -> Result<(), ConfigError> {
        match name {
            "proxy" => self.proxy = Some(read("proxy", value, value::socket_address, proxies)?),
            _ => self.mangle = Some(read("mangle", value, Mangling::parse, modes)?),
        }
        Ok(())
    }

    /// With the server's settings they are what the command runs.
    pub(super) fn with(self, mut server: Config) -> Result<ClientTest, ConfigError> {
        if !server.listen.iter().any(|listen| matches!(listen, Listen::Tcp(_))) {
            return Err(ConfigError::ProxyWithoutTcp);
        }
        for app in APPS {
            if !server.app.iter().any(|known| known.name == app) {
                server.app.push(App::from(app));
            }
        }
        let proxy = self.proxy.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8082)));
        Ok(ClientTest { server, proxy, mangle: self.mangle.unwrap_or(Mangling::Rotate) })
    }
}

fn read<T>(
    flag: &'static str,
    value: Option<&OsStr>,
    parse: fn(&str) -> Result<T, Why>,
    allowed: fn() -> String,
) -> Result<T, ConfigError> {
    let text = value.ok_or_else(|| ConfigError::MissingFlagValue { flag, allowed: allowed() })?;
    let parsed = text.to_str().map_or_else(|| Err("it is not valid UTF-8".into()), parse);
    parsed.map_err(|why| {
        let text = text.to_string_lossy().into_owned();
        ConfigError::BadFlagValue { flag, text, why, allowed: allowed() }
    })
}

fn proxies() -> String {
    "ip:port or [ip6]:port".to_owned()
}

fn modes() -> String {
    let names: Vec<&str> = Mode::ALL.iter().map(|mode| mode.name()).collect();
    format!("{}, or {ROTATE}", names.join(", "))
}

/// What `quickio clienttest --generate-docs` prints: the modes as a table in Markdown.
#[must_use]
pub fn docs() -> String {
    let mut out = String::from("| mode | the proxy | the client gets |\n| --- | --- | --- |\n");
    for mode in Mode::ALL {
        let _ = writeln!(out, "| `{}` | {} | {} |", mode.name(), mode.does(), mode.seen());
    }
    out
}
