//! The flags that only `quickio clienttest` has, and the ways in which its proxy mangles upgrades.

use std::ffi::OsStr;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};

use super::error::ConfigError;
use super::value::{self, Problem};
use super::{App, Config, Listen, ListenAddress, ListenKind, suggest};

/// The applications that always run. Client libraries are tested against `clienttest`; `relay` broadcasts the events
/// that it receives.
const APPS: [&str; 2] = ["relay", "clienttest"];

/// The value of `--mangle` that selects [`Mangling::Rotate`].
const ROTATE: &str = "rotate";

/// The configuration of `quickio clienttest`: a server, and a proxy in front of it that mangles upgrades.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientTestConfig {
    /// The settings of the server. Its applications include `relay` and `clienttest`.
    pub server: Config,
    /// The address that the proxy listens on.
    pub proxy: SocketAddr,
    /// The mangling of upgrades that do not choose a mode themselves.
    pub mangle: Mangling,
}

/// The choice of a mode for each upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mangling {
    /// The same mode for every upgrade.
    Always(Mode),
    /// Every mode but [`Mode::None`] in turn, in the order of [`Mode::ALL`], repeatedly.
    Rotate,
}

impl Mangling {
    fn parse(text: &str) -> Result<Mangling, Problem> {
        if text == ROTATE {
            return Ok(Mangling::Rotate);
        }
        Mode::find(text).map(Mangling::Always).ok_or_else(|| unknown_mode(text))
    }
}

fn unknown_mode(text: &str) -> Problem {
    let names = Mode::ALL.iter().map(|mode| mode.name()).chain([ROTATE]);
    let suggestion = suggest::nearest(text, names).map(|name| format!(", did you mean `{name}`?"));
    format!("there is no such mode{}", suggestion.unwrap_or_default())
}

/// A way to mangle an upgrade.
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
    /// All modes, in the order of rotation.
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

    /// Returns the mode with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Mode> {
        Mode::ALL.iter().copied().find(|mode| mode.name() == name)
    }

    /// Returns the name of the mode, as the flag accepts it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Returns a phrase that describes the action of the proxy.
    #[must_use]
    pub fn does(self) -> &'static str {
        self.row().1
    }

    /// Returns a phrase that describes the response that the client receives.
    #[must_use]
    pub fn seen(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Mode::None => ("none", "changes nothing", "a working WebSocket"),
            Mode::Status200 => (
                "status-200",
                "replaces the response's 101 with 200 OK",
                "200 with the headers of a 101, on a connection that stays open",
            ),
            Mode::ConnectionRemoved => ("connection-removed", "removes Connection from the request", "426"),
            Mode::UpgradeRemoved => ("upgrade-removed", "removes Upgrade from the request", "426"),
            Mode::KeyRemoved => ("key-removed", "removes Sec-WebSocket-Key from the request", "400"),
            Mode::KeyChanged => (
                "key-changed",
                "replaces Sec-WebSocket-Key in the request",
                "101, with the Sec-WebSocket-Accept of another key",
            ),
            Mode::VersionRemoved => {
                ("version-removed", "removes Sec-WebSocket-Version from the request", "400")
            }
            Mode::VersionChanged => {
                ("version-changed", "changes Sec-WebSocket-Version in the request to 99", "400")
            }
            Mode::ProtocolRemoved => (
                "protocol-removed",
                "removes Sec-WebSocket-Protocol from the request",
                "101 without a subprotocol",
            ),
            Mode::ProtocolChanged => {
                ("protocol-changed", "changes Sec-WebSocket-Protocol in the request to mangled", "400")
            }
            Mode::AnswerConnectionRemoved => (
                "answer-connection-removed",
                "removes Connection from the response",
                "101 without Connection",
            ),
            Mode::AnswerUpgradeRemoved => {
                ("answer-upgrade-removed", "removes Upgrade from the response", "101 without Upgrade")
            }
            Mode::AnswerProtocolRemoved => (
                "answer-protocol-removed",
                "removes Sec-WebSocket-Protocol from the response",
                "101 without a subprotocol",
            ),
            Mode::AnswerProtocolChanged => (
                "answer-protocol-changed",
                "changes Sec-WebSocket-Protocol in the response to mangled",
                "101, with a subprotocol that the client did not offer",
            ),
            Mode::AcceptRemoved => (
                "accept-removed",
                "removes Sec-WebSocket-Accept from the response",
                "101 without Sec-WebSocket-Accept",
            ),
            Mode::AcceptChanged => (
                "accept-changed",
                "replaces Sec-WebSocket-Accept in the response",
                "101, with a wrong Sec-WebSocket-Accept",
            ),
            Mode::Swallow => (
                "swallow",
                "drops all bytes after the handshake, in both directions",
                "a valid 101, then nothing",
            ),
            Mode::Cut => (
                "cut",
                "resets the connection in the middle of the response's head",
                "the first half of a 101",
            ),
        }
    }
}

/// The flags that only this command has.
#[derive(Debug, Default)]
pub(super) struct ClientTestFlags {
    proxy: Option<SocketAddr>,
    mangle: Option<Mangling>,
}

impl ClientTestFlags {
    pub(super) const NAMES: [&'static str; 2] = ["proxy", "mangle"];

    /// Sets one of [`ClientTestFlags::NAMES`]. `None` means that the flag has no value.
    pub(super) fn set(&mut self, name: &str, value: Option<&OsStr>) -> Result<(), ConfigError> {
        match name {
            "proxy" => self.proxy = Some(parse_flag("proxy", value, proxy_address, proxies)?),
            _ => self.mangle = Some(parse_flag("mangle", value, Mangling::parse, modes)?),
        }
        Ok(())
    }

    /// Combines the flags with the settings of the server.
    pub(super) fn with(self, mut server: Config) -> Result<ClientTestConfig, ConfigError> {
        let is_reachable = |listen: &Listen| {
            matches!(listen.address, ListenAddress::Tcp(_)) && server.listen_kind(listen) != ListenKind::Tls
        };
        if !server.listen.iter().any(is_reachable) {
            return Err(ConfigError::ProxyWithoutTcp);
        }
        for app in APPS {
            if !server.app.iter().any(|known| known.name == app) {
                server.app.push(App::from(app));
            }
        }
        let proxy = self.proxy.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8082)));
        let used = server.listen.iter().filter_map(|listen| match &listen.address {
            ListenAddress::Tcp(address) => Some(("listen", *address)),
            ListenAddress::Unix(_) => None,
        });
        let mut used = used.chain(server.admin.iter().map(|address| ("admin", *address)));
        if let Some(one) = used.find(|(_, address)| value::overlap(*address, proxy)) {
            return Err(ConfigError::SameAddress { one, other: ("--proxy", proxy) });
        }
        Ok(ClientTestConfig { server, proxy, mangle: self.mangle.unwrap_or(Mangling::Rotate) })
    }
}

fn parse_flag<T>(
    flag: &'static str,
    value: Option<&OsStr>,
    parse: fn(&str) -> Result<T, Problem>,
    allowed: fn() -> String,
) -> Result<T, ConfigError> {
    let text = value.ok_or_else(|| ConfigError::MissingFlagValue { flag, allowed: allowed() })?;
    let parsed = text.to_str().map_or_else(|| Err("it is not valid UTF-8".into()), parse);
    parsed.map_err(|problem| {
        let text = text.to_string_lossy().into_owned();
        ConfigError::BadFlagValue { flag, text, problem, allowed: allowed() }
    })
}

fn proxies() -> String {
    "ip:port, [ip6]:port or name:port".to_owned()
}

/// Parses the address of the proxy. If a name has several addresses, the proxy uses an IPv4 address.
fn proxy_address(text: &str) -> Result<SocketAddr, Problem> {
    let addresses = value::socket_addresses(text)?;
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    Ok(*first.expect("a name has an address"))
}

fn modes() -> String {
    let names: Vec<&str> = Mode::ALL.iter().map(|mode| mode.name()).collect();
    format!("{}, or {ROTATE}", names.join(", "))
}

/// Returns the modes as a table in Markdown: the output of `quickio clienttest --generate-docs`.
#[must_use]
pub fn docs() -> String {
    let mut out = String::from("| mode | the proxy | the client receives |\n| --- | --- | --- |\n");
    for mode in Mode::ALL {
        let _ = writeln!(out, "| `{}` | {} | {} |", mode.name(), mode.does(), mode.seen());
    }
    out
}
