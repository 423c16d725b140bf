//! The settings of the server, from flags, the environment and a TOML file into one [`Config`].
//!
//! | file | contents |
//! | --- | --- |
//! | `table` | one row for each setting: name, kind, default, bounds, description. Everything else is derived from it |
//! | `entries` | the same for settings that are arrays of tables, such as `[[rules]]`: rows for their keys, and reading an entry |
//! | `arrays` | the list of these rows |
//! | `rules`, `api_keys` | the rows of `[[rules]]` and `[[api-keys]]` |
//! | `secret` | reads the file of a secret that an entry names |
//! | `sources` | reads flags, variables and the file into raw values, each with its location |
//! | `foreign` | the variables of Kubernetes and Docker that look like settings |
//! | `resolve` | converts raw values into a `Config` and checks the relations between settings |
//! | `value` | parses the text of one value: counts, durations, addresses |
//! | `clienttest` | the flags and modes that only `quickio clienttest` has |
//! | `explain` | the arguments of `quickio explain` |
//! | `changes` | the settings that differ between two configurations |
//! | `generate` | the table as `--help`, as a settings file, and as the table in the docs |
//! | `error` | the errors, each with the location of the value that caused it |
//!
//! A flag overrides the environment, the environment overrides the file, and the file overrides the default.

mod api_keys;
pub mod arrays;
mod auth;
mod changes;
pub mod clienttest;
pub mod entries;
mod error;
mod explain;
mod foreign;
mod generate;
mod resolve;
mod rules;
mod secret;
mod sources;
mod suggest;
pub mod table;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::identity::Algorithm;
use crate::rules::Rule;

pub use api_keys::{ApiKeySetting, Scope};
pub use changes::changed;
pub use clienttest::ClientTestConfig;
pub use error::{ConfigError, Location};
pub use explain::{ExplainConfig, explain_from_args};
pub use generate::{GeneratedText, docs, help, settings_file, version, wrap};
pub use secret::{FileSecret, SecretError};
pub use suggest::nearest;
pub use value::{count as parse_count, duration as parse_duration};

use clienttest::ClientTestFlags;
use sources::{Flags, OwnArgs, ParsedArgs};

/// The exit code of a process whose settings are invalid.
pub const EXIT_CODE: u8 = 2;

/// The action that a command line requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<Settings = Config> {
    /// Run with these settings.
    Run(Settings),
    /// Print this text on standard output and exit with 0: `--help`, `--version`, `--generate-config`,
    /// `--generate-docs`.
    Print(GeneratedText),
}

/// Reads the settings from `args` (without the program's name), from `env`, and from the file that either of them
/// names.
///
/// # Errors
///
/// Returns the first problem found, with the name of the setting, the value, the allowed values, and the location of
/// the value. The process should print the error and exit with [`EXIT_CODE`].
///
/// # Examples
///
/// ```
/// use quickio::config::{self, Action};
///
/// let args = ["--shards", "2", "--timeout=3s"].map(Into::into);
/// let Ok(Action::Run(config)) = config::from_args(args, []) else { panic!("these settings are valid") };
/// assert_eq!(config.shards, Some(2));
///
/// let error = config::from_args(["--timeout=soon".into()], []).unwrap_err();
/// assert!(error.to_string().contains("500ms, 10s, 15m or 1h"));
/// ```
pub fn from_args(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Action, ConfigError> {
    match sources::flags(args, &mut OwnArgs::default())? {
        ParsedArgs::Settings(flags) => from_sources(flags, env).map(Action::Run),
        ParsedArgs::Print(text) => Ok(Action::Print(text)),
    }
}

/// Returns the format in which the program reports that its settings are invalid: the one that `args` or `env` name, as
/// far as this can be told from settings that may be invalid. The settings file is not read.
pub fn log_format_of(args: &[OsString], env: impl IntoIterator<Item = (OsString, OsString)>) -> LogFormat {
    const FLAG: &str = "--log-format";
    let mut named = None;
    for (at, arg) in args.iter().enumerate() {
        let Some(rest) = arg.to_str().and_then(|arg| arg.strip_prefix(FLAG)) else { continue };
        match rest.strip_prefix('=') {
            Some(value) => named = Some(value.to_owned()),
            None if rest.is_empty() => {
                named = args.get(at + 1).and_then(|value| value.to_str()).map(str::to_owned)
            }
            None => {}
        }
    }
    let variable = || {
        let mut env = env.into_iter();
        env.find(|(name, _)| name == "QUICKIO_LOG_FORMAT").and_then(|(_, value)| value.into_string().ok())
    };
    match named.or_else(variable).as_deref() {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    }
}

/// Reads the settings of a running server again, from the command line and the environment of its start and from the file
/// as it is now.
///
/// # Errors
///
/// As [`from_args`].
///
/// # Panics
///
/// Panics if the command line does not run a server.
pub fn read_again(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    match from_args(args, env)? {
        Action::Run(config) => Ok(config),
        Action::Print(_) => panic!("the same command line started the server"),
    }
}

/// Reads the arguments of `quickio test-app`: the settings of [`from_args`], and applications without a flag.
///
/// # Errors
///
/// Returns the errors of [`from_args`], and an error if no application is named.
///
/// # Examples
///
/// ```
/// use quickio::config::{self, Action};
///
/// let args = ["--app-dir", "/srv/apps", "chat", "./other.so"].map(Into::into);
/// let Ok(Action::Run(config)) = config::test_app_from_args(args, []) else { panic!("these settings are valid") };
/// assert_eq!(config.app, ["chat".into(), "./other.so".into()]);
/// ```
pub fn test_app_from_args(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Action, ConfigError> {
    let mut own = OwnArgs { takes_words: true, ..OwnArgs::default() };
    match sources::flags(args, &mut own)? {
        ParsedArgs::Settings(mut flags) => {
            for app in &own.words {
                sources::add_app(app, &mut flags.settings)?;
            }
            let config = from_sources(flags, env)?;
            if config.app.is_empty() { Err(ConfigError::MissingApp) } else { Ok(Action::Run(config)) }
        }
        ParsedArgs::Print(text) => Ok(Action::Print(text)),
    }
}

/// Returns whether `app` is a file rather than a name: it has a slash, or the ending `.so`, `.py`, `.js`, `.mjs` or
/// `.cjs`.
#[must_use]
pub fn is_file(app: &str) -> bool {
    value::is_file(app)
}

/// Returns whether `text` is a valid name of an application.
#[must_use]
pub fn is_name(text: &str) -> bool {
    value::name(text).is_ok()
}

/// Reads the arguments of `quickio clienttest`: the settings of [`from_args`], and two more flags.
///
/// # Errors
///
/// Returns the errors of [`from_args`], and an error if the server would have no TCP listener.
///
/// # Examples
///
/// ```
/// use quickio::config::{self, Action};
///
/// let args = ["--mangle", "cut", "--shards", "1"].map(Into::into);
/// let Ok(Action::Run(tests)) = config::client_test_from_args(args, []) else { panic!("these settings are valid") };
/// assert_eq!(tests.server.app, ["relay".into(), "clienttest".into()]);
/// ```
pub fn client_test_from_args(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Action<ClientTestConfig>, ConfigError> {
    let mut own = OwnArgs { flags: &ClientTestFlags::NAMES, ..OwnArgs::default() };
    match sources::flags(args, &mut own)? {
        ParsedArgs::Settings(flags) => {
            let mut own_flags = ClientTestFlags::default();
            for (name, value) in &own.values {
                own_flags.set(name, value.as_deref())?;
            }
            own_flags.with(from_sources(flags, env)?).map(Action::Run)
        }
        ParsedArgs::Print(text) => Ok(Action::Print(text)),
    }
}

fn from_sources(
    flags: Flags,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    let environment = sources::environment(env)?;
    let mut settings = match flags.file.or(environment.file) {
        Some(path) => sources::file(&path)?,
        None => sources::RawSettings::default(),
    };
    settings.override_with(environment.settings);
    settings.override_with(flags.settings);
    resolve::config(&settings)
}

/// The settings file for fuzz targets.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    use super::{Config, ConfigError, resolve, sources};

    /// Reads settings from the text of a file.
    ///
    /// # Errors
    ///
    /// Returns the first problem found.
    pub fn from_file_text(text: &str) -> Result<Config, ConfigError> {
        resolve::config(&sources::text(text, "fuzzed.toml".as_ref())?)
    }
}

/// Who has to authenticate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Nobody can.
    #[default]
    Off,
    /// Clients may.
    Optional,
    /// Clients must, before they send anything else.
    Required,
}

/// A key of `[[auth-keys]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthKeyEntry {
    /// The name that tokens give as their `kid`. For a key set, a name for the log.
    pub id: String,
    /// The only algorithm for which the key is used.
    pub algorithm: Algorithm,
    /// The place that has the key.
    pub source: AuthKeySource,
}

/// The place that has a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthKeySource {
    /// The file of a secret.
    SecretFile(PathBuf),
    /// The file of a public key in PEM.
    PublicKeyFile(PathBuf),
    /// The address of a JSON Web Key Set.
    JwksUrl(String),
}

/// The settings of a server. [`Config::default`] has the defaults.
///
/// [`table::SETTINGS`] has the bounds and the description of each setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The listeners: the addresses at which clients connect; at least one.
    pub listen: Vec<Listen>,
    /// The permissions of Unix sockets in `listen`, as the last nine bits of a mode.
    pub listen_mode: u32,
    /// The group of Unix sockets in `listen`, by name or number, or `None` for the group of the server.
    pub listen_group: Option<String>,
    /// The addresses that serve statistics over HTTP; none to not serve them.
    pub admin: Vec<SocketAddr>,
    /// The addresses in `admin` take TLS, and nothing else.
    pub admin_tls: bool,
    /// The addresses of the server API. Empty if there is none.
    pub api: Vec<SocketAddr>,
    /// The addresses in `api` take TLS, and nothing else.
    pub api_tls: bool,
    /// The keys of the server API.
    pub api_keys: Vec<ApiKeySetting>,
    /// The maximum size of the body of a request to the server API, in bytes.
    pub api_body_bytes_max: usize,
    /// The maximum memory of all requests to the server API that are not done yet, in bytes.
    pub api_bytes_max: usize,
    /// The file with the password of the admin endpoint. `None` if it has none.
    pub admin_password_file: Option<PathBuf>,
    /// The names that requests to the admin endpoint may use for this host, in addition to `localhost` and IP addresses.
    pub admin_hosts: Vec<String>,
    /// The number of shards, or `None` for one on each available core.
    pub shards: Option<usize>,
    /// The applications to run.
    pub app: Vec<App>,
    /// The directory of the files of applications that are given by name and are not bundled.
    pub app_dir: Option<PathBuf>,
    /// The settings of applications, by name and key, from the sections `[app-settings.NAME]` of the file.
    pub app_settings: BTreeMap<String, BTreeMap<String, String>>,
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// The interpreter of Python applications.
    pub python: PathBuf,
    /// The interpreter of JavaScript applications.
    pub node: PathBuf,
    /// Replace workers when their files change.
    pub reload: bool,
    /// The result of `/qio/hostname`, or `None` if the server has no public address.
    pub public_address: Option<String>,
    /// The origins of the pages that browsers may connect from, as browsers write them; a single `*` for all.
    pub origin: Vec<String>,
    /// The files of the certificates, each with the certificates of its issuers; none to not take TLS. The first one is
    /// the default.
    pub tls_cert: Vec<PathBuf>,
    /// The files of their private keys, in the same order; none if the files of the certificates have them.
    pub tls_key: Vec<PathBuf>,
    /// The oldest version of TLS that a client may use.
    pub tls_min_version: TlsVersion,
    /// The file of the certificates of those who issue the certificates of clients, or `None` to ask clients for none.
    pub tls_client_ca: Option<PathBuf>,
    /// The treatment of clients that have no certificate, if `tls_client_ca` is set.
    pub tls_client_auth: TlsClientAuth,
    /// The file of the key of session tickets, or `None` for a key that ends with the process.
    pub tls_ticket_key_file: Option<PathBuf>,
    /// Who has to authenticate.
    pub auth: AuthMode,
    /// The keys that verify tokens.
    pub auth_keys: Vec<AuthKeyEntry>,
    /// The audiences that tokens must be for, one of them; none if tokens must not name any.
    pub auth_audience: Vec<String>,
    /// The issuers that tokens must be from, one of them; none if the issuer does not matter.
    pub auth_issuer: Vec<String>,
    /// How long a client may take to authenticate, if it must.
    pub auth_timeout: Duration,
    /// How long a client may take to send another token after its token has expired.
    pub auth_grace: Duration,
    /// The time by which the clocks of the server and of those who sign tokens may differ.
    pub auth_leeway: Duration,
    /// The memory of each shard for tokens that were verified recently, in bytes.
    pub auth_cache_bytes_max: usize,
    /// The memory of each shard for the last events of paths, in bytes.
    pub history_bytes_max: usize,
    /// The number of members of a path above which they are only counted.
    pub members_max: usize,
    /// The memory of each shard for the members of paths, in bytes.
    pub members_bytes_max: usize,
    /// The time for which a user whose connection has ended stays a member.
    pub members_linger: Duration,
    /// The headers of requests that applications can read, by their names in lower case.
    pub app_headers: Vec<String>,
    /// The least severe level that is logged.
    pub log_level: LogLevel,
    /// The format of a log line.
    pub log_format: LogFormat,
    /// The time source of the timers.
    pub clock: ClockKind,
    /// The maximum number of clients of the whole server.
    pub clients_max: usize,
    /// The proxies whose headers tell the addresses of their clients.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The proxies that begin each connection with a header of the PROXY protocol.
    pub proxy_protocol: Vec<TrustedProxy>,
    /// Serve these proxies' connections without such a header too.
    pub proxy_protocol_optional: bool,
    /// The percentage of `clients_max` that HTTP sessions may take.
    pub sessions_share: u8,
    /// The maximum number of connections and sessions from one peer address; 0 for no limit. `None`: a sixteenth of what the
    /// server can hold, but at least 1024.
    pub connections_per_address_max: Option<usize>,
    /// The maximum size of a message from a client, in bytes.
    pub message_bytes_max: usize,
    /// Compress WebSocket messages for clients that offer permessage-deflate.
    pub compression: bool,
    /// The length from which on a broadcast is compressed, in bytes.
    pub compression_min_bytes: usize,
    /// The length from which on a message for one client is compressed, in bytes.
    pub compression_single_min_bytes: usize,
    /// The maximum size of the head of an HTTP request, in bytes.
    pub http_head_bytes_max: usize,
    /// The maximum number of bytes that may wait for one client to read them.
    pub outbox_bytes_max: usize,
    /// The amount of output that may wait for all clients together, in bytes, or `None` for a quarter of the memory.
    pub outboxes_bytes_max: Option<usize>,
    /// The memory of the incomplete messages of all connections together, in bytes, or `None` for an eighth of the memory.
    pub incomplete_bytes_max: Option<usize>,
    /// The maximum number of subscriptions of all clients together.
    pub clients_subs_total: usize,
    /// The percentage of `clients_subs_total` above which clients that have `clients_subs_min` get no more.
    pub clients_subs_pressure: u8,
    /// The number of subscriptions that a client may have even above that percentage.
    pub clients_subs_min: usize,
    /// The maximum number of subscriptions of one client.
    pub clients_subs_max: usize,
    /// The maximum cost of the paths of all subscriptions, in bytes.
    pub paths_bytes_max: usize,
    /// How long a client may take to fire a server callback.
    pub clients_cb_max_age: Duration,
    /// How long a peer may take to complete its handshake, or a message that it has begun.
    pub timeout: Duration,
    /// How long a peer may take to complete the closing handshake.
    pub close_timeout: Duration,
    /// How long a peer may read nothing of what it is sent.
    pub send_timeout: Duration,
    /// How long an HTTP connection may be idle between requests.
    pub http_idle_timeout: Duration,
    /// The longest time during which a client is sent nothing.
    pub heartbeat_interval: Duration,
    /// How much earlier than `heartbeat_interval` a heartbeat may be sent.
    pub heartbeat_slack: Duration,
    /// The longest time that an HTTP poll is held before it is answered.
    pub poll_interval: Duration,
    /// How much earlier than `poll_interval` a poll may be answered.
    pub poll_slack: Duration,
    /// How long a client may be silent before it is sent a heartbeat that it must answer.
    pub heartbeat_challenge: Duration,
    /// How long a client may be silent before it is closed.
    pub heartbeat_timeout: Duration,
    /// The longest time that an orderly shutdown takes.
    pub shutdown_timeout: Duration,
    /// How long a worker may take to become ready.
    pub worker_start_timeout: Duration,
    /// How long a worker may take to answer a ping.
    pub worker_timeout: Duration,
    /// How long a worker may take to answer an event.
    pub worker_request_timeout: Duration,
    /// How long a worker that is replaced or stopped may take to finish its requests.
    pub worker_stop_timeout: Duration,
    /// The maximum number of events from one shard that a worker may be handling.
    pub worker_requests_max: usize,
    /// The maximum number of bytes from one shard that may wait for a worker to read them.
    pub worker_outbox_bytes_max: usize,
    /// The number of receive buffers of each shard: a power of two.
    pub receive_buffers: usize,
    /// The size of each receive buffer, in bytes.
    pub receive_buffer_bytes: usize,
    /// The maximum number of sends that a shard submits in one turn.
    pub sends_per_turn_max: usize,
    /// The number of connections that the kernel keeps for each listener until they are accepted.
    pub listen_backlog: usize,
    /// The number of accept operations that each listener keeps in the ring.
    pub accepts_in_flight: usize,
    /// The capacity of the queue from one shard to another, in messages: a power of two.
    pub mesh_ring_messages: usize,
    /// The maximum number of messages that wait, for each pair of shards, when that queue is full.
    pub mesh_overflow_bytes_max: usize,
    /// The maximum number of commands from application threads that wait for one shard.
    pub inbox_messages_max: usize,
    /// Sentences about settings that are valid and probably a mistake, for the log.
    pub warnings: Vec<String>,
    /// Echoes every WebSocket message on the path `/echo`, with no subprotocol and no `/qio/ohai`, as the WebSocket
    /// conformance suite needs. For programs that use this crate; there is no flag for it.
    pub echo: bool,
}

/// The part of what the server can hold that one address may have by default.
const ADDRESS_PART: usize = 16;

/// The number of connections that an address may have by default even if that is a larger part: many people may share
/// an address.
const ADDRESS_MIN: usize = 1024;

impl Config {
    /// Returns the kind of a listener. By default, a TCP port takes TLS if there are certificates: who sets them wants no
    /// client to connect without, and a client that tries to is told so. A Unix socket is plain: it does not leave the host.
    #[must_use]
    pub fn listen_kind(&self, listen: &Listen) -> ListenKind {
        listen.kind.unwrap_or(match listen.address {
            ListenAddress::Tcp(_) if !self.tls_cert.is_empty() => ListenKind::Tls,
            ListenAddress::Tcp(_) | ListenAddress::Unix(_) => ListenKind::Plain,
        })
    }

    /// Returns the maximum number of HTTP sessions: at least one.
    pub(crate) fn sessions_max(&self) -> usize {
        let share = self.clients_max as u128 * u128::from(self.sessions_share) / 100;
        usize::try_from(share).expect("a share is at most the whole").max(1)
    }

    /// Returns the maximum number of connections and sessions from one address, or 0 for no limit. `places` is the
    /// number of connections for which the rings of all shards have places.
    pub(crate) fn connections_per_address(&self, places: usize) -> usize {
        let auto = || (self.clients_max.min(places) / ADDRESS_PART).max(ADDRESS_MIN);
        self.connections_per_address_max.unwrap_or_else(auto)
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)).into()],
            listen_mode: 0o666,
            listen_group: None,
            admin: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8081))],
            admin_tls: false,
            api: Vec::new(),
            api_tls: false,
            api_keys: Vec::new(),
            api_body_bytes_max: 4 << 20,
            api_bytes_max: 64 << 20,
            admin_password_file: None,
            admin_hosts: Vec::new(),
            shards: None,
            app: Vec::new(),
            app_dir: None,
            app_settings: BTreeMap::new(),
            rules: Vec::new(),
            python: "python3".into(),
            node: "node".into(),
            reload: false,
            public_address: None,
            origin: vec!["*".into()],
            tls_cert: Vec::new(),
            tls_key: Vec::new(),
            tls_min_version: TlsVersion::Tls12,
            tls_client_ca: None,
            tls_client_auth: TlsClientAuth::Required,
            tls_ticket_key_file: None,
            auth: AuthMode::Off,
            auth_keys: Vec::new(),
            auth_audience: Vec::new(),
            auth_issuer: Vec::new(),
            auth_timeout: Duration::from_secs(10),
            auth_grace: Duration::from_secs(25),
            auth_leeway: Duration::from_secs(5),
            auth_cache_bytes_max: 64 << 20,
            history_bytes_max: 64 << 20,
            members_max: 1000,
            members_bytes_max: 64 << 20,
            members_linger: Duration::from_secs(15),
            app_headers: Vec::new(),
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            clock: ClockKind::System,
            clients_max: 1_048_576,
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            proxy_protocol_optional: false,
            sessions_share: 75,
            connections_per_address_max: None,
            message_bytes_max: 65_536,
            compression: false,
            compression_min_bytes: 256,
            compression_single_min_bytes: 1024,
            http_head_bytes_max: 16_384,
            outbox_bytes_max: 1_048_576,
            outboxes_bytes_max: None,
            incomplete_bytes_max: None,
            clients_subs_total: 4_194_304,
            clients_subs_pressure: 60,
            clients_subs_min: 128,
            clients_subs_max: 4096,
            paths_bytes_max: 1 << 30,
            clients_cb_max_age: Duration::from_secs(15),
            timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(30),
            http_idle_timeout: Duration::from_secs(75),
            heartbeat_interval: Duration::from_secs(50),
            heartbeat_slack: Duration::from_secs(10),
            poll_interval: Duration::from_secs(50),
            poll_slack: Duration::from_secs(5),
            heartbeat_challenge: Duration::from_secs(15 * 60),
            heartbeat_timeout: Duration::from_secs(16 * 60),
            shutdown_timeout: Duration::from_secs(10),
            worker_start_timeout: Duration::from_secs(30),
            worker_timeout: Duration::from_secs(30),
            worker_request_timeout: Duration::from_secs(60),
            worker_stop_timeout: Duration::from_secs(30),
            worker_requests_max: 16_384,
            worker_outbox_bytes_max: 8_388_608,
            receive_buffers: 512,
            receive_buffer_bytes: 4096,
            sends_per_turn_max: 1024,
            listen_backlog: 4096,
            accepts_in_flight: 64,
            mesh_ring_messages: 1024,
            mesh_overflow_bytes_max: 16 << 20,
            inbox_messages_max: 8_192,
            warnings: Vec::new(),
            echo: false,
        }
    }
}

/// An application to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The application's name, or its file (see [`is_file`]).
    pub name: String,
    /// The number of its workers, if it was given.
    pub instances: Option<usize>,
}

impl From<&str> for App {
    fn from(name: &str) -> App {
        App { name: name.to_owned(), instances: None }
    }
}

/// Writes the application as a flag accepts it.
impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.instances.map_or(Ok(()), |instances| write!(f, ",instances={instances}"))
    }
}

/// A listener: an address at which clients connect, and the kind of their connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The address.
    pub address: ListenAddress,
    /// The kind of the connections, or `None` for the default, see [`Config::listen_kind`].
    pub kind: Option<ListenKind>,
}

/// Writes the listener as a flag accepts it: `127.0.0.1:8080`, `tls://[::1]:8443`, `plain://unix:/run/quickio.sock`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.map_or(Ok(()), |kind| write!(f, "{}://", kind.name()))?;
        self.address.fmt(f)
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Listen {
        Listen { address: ListenAddress::Tcp(address), kind: None }
    }
}

/// An address at which clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IPv4 or IPv6 address and a TCP port; for port 0 the kernel chooses one.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket, which the server creates.
    Unix(PathBuf),
}

/// Writes the address as a flag accepts it: `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/quickio.sock`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The kind of the connections of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenKind {
    /// No connection is encrypted.
    Plain,
    /// Every connection begins with the handshake of TLS.
    Tls,
    /// The first byte tells whether a connection begins with the handshake of TLS.
    Either,
}

impl ListenKind {
    /// All kinds.
    pub const ALL: [ListenKind; 3] = [ListenKind::Plain, ListenKind::Tls, ListenKind::Either];

    /// Returns the word that stands before `://` in the setting `listen`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ListenKind::Plain => "plain",
            ListenKind::Tls => "tls",
            ListenKind::Either => "either",
        }
    }
}

/// The oldest version of TLS that a client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 and newer.
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// The treatment of clients that have no certificate, if `tls-client-ca` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsClientAuth {
    /// Their handshake fails.
    Required,
    /// They may connect.
    Optional,
}

/// A group of proxies that tell the addresses of their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// The peers in this network.
    Network(IpNet),
    /// The peers on Unix sockets.
    Unix,
}

/// The severity of a log event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Needs an operator's attention.
    Error,
    /// May need an operator's attention.
    Warn,
    /// Starts, stops, and clients that were closed for their own fault.
    Info,
    /// Details that help to find a fault.
    Debug,
    /// Everything.
    Trace,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The time source of the timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    /// The kernel's monotonic time.
    System,
    /// A clock for tests, which stands still until `POST /clock?advance=MS` on the admin endpoint moves it.
    Manual,
}
