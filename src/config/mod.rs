//! Every setting once: from flags, the environment and a TOML file to one [`Config`].
//!
//! | file | is |
//! | --- | --- |
//! | `table` | the settings: name, kind, default, what is allowed, doc. Everything else is made from it |
//! | `sources` | what was typed: flags, variables and the file, each word with the place where it stood |
//! | `meaning` | what it means: words into a `Config`, and the relations between settings |
//! | `value` | one word's text into a value: counts, durations, addresses |
//! | `clienttest` | what only `quickio clienttest` has: its flags, its modes |
//! | `generate` | the table as `--help`, as a settings file, and as the table of the docs |
//! | `error` | what can be wrong, and where it stood |
//!
//! A flag goes before the environment, the environment before the file, the file before the default.

pub mod clienttest;
mod error;
mod generate;
mod meaning;
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

pub use clienttest::ClientTest;
pub use error::{ConfigError, Place};
pub use generate::{client_test_help, docs, help, settings_file, version};

use sources::{Asked, Command, Flags};

/// The exit code of a process whose settings are wrong.
pub const EXIT_CODE: u8 = 2;

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<Settings = Config> {
    /// Run with these settings.
    Run(Settings),
    /// Print this text on standard output, and exit with 0: `--help`, `--version`, `--generate-config`,
    /// `--generate-docs`.
    Print(String),
}

/// Reads the settings from `args` (without the program's name), from `env`, and from the file that either names.
///
/// # Errors
///
/// The first thing that is wrong, with the setting's name, the value, what is allowed, and the place where it
/// stood. The process should print it and exit with [`EXIT_CODE`].
///
/// # Examples
///
/// ```
/// use quickio::config::{self, Action};
///
/// let args = ["--shards", "2", "--timeout=3s"].map(Into::into);
/// let Ok(Action::Run(config)) = config::from_args(args, []) else { panic!("these are good settings") };
/// assert_eq!(config.shards, Some(2));
///
/// let wrong = config::from_args(["--timeout=soon".into()], []).unwrap_err();
/// assert!(wrong.to_string().contains("500ms, 10s, 15m or 1h"));
/// ```
pub fn from_args(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Action, ConfigError> {
    match sources::flags(args, Command::Serve)? {
        Asked::Settings(flags) => from_sources(flags, env).map(Action::Run),
        Asked::Print(what) => Ok(Action::Print(what.text())),
    }
}

/// The word that a command line begins with which tests applications.
pub const TEST_APP: &str = "test-app";

/// As [`from_args`], for what follows the word [`TEST_APP`]: the same settings, and applications without a flag.
///
/// # Errors
///
/// As [`from_args`]; or no application is named.
///
/// # Examples
///
/// ```
/// use quickio::config::{self, Action};
///
/// let args = ["--app-dir", "/srv/apps", "chat", "./other.so"].map(Into::into);
/// let Ok(Action::Run(config)) = config::test_app_from_args(args, []) else { panic!("these are good settings") };
/// assert_eq!(config.app, ["chat".into(), "./other.so".into()]);
/// ```
pub fn test_app_from_args(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Action, ConfigError> {
    match sources::flags(args, Command::TestApp)? {
        Asked::Settings(flags) => {
            let config = from_sources(flags, env)?;
            if config.app.is_empty() { Err(ConfigError::MissingApp) } else { Ok(Action::Run(config)) }
        }
        Asked::Print(what) => Ok(Action::Print(what.text())),
    }
}

/// Whether an application is named by its file: by a slash, or by the ending `.so`, `.py`, `.js`, `.mjs` or `.cjs`.
#[must_use]
pub fn is_file(app: &str) -> bool {
    value::is_file(app)
}

/// Whether a text can be the name of an application.
#[must_use]
pub fn is_name(text: &str) -> bool {
    value::name(text).is_ok()
}

/// As [`from_args`], for what follows the word [`clienttest::COMMAND`]: the same settings, and two flags more.
///
/// # Errors
///
/// As [`from_args`].
///
/// # Examples
///
/// ```
/// use quickio::config::{self, Action};
///
/// let args = ["--mangle", "cut", "--shards", "1"].map(Into::into);
/// let Ok(Action::Run(tests)) = config::client_test_from_args(args, []) else { panic!("these are good settings") };
/// assert_eq!(tests.server.app, ["relay".into(), "clienttest".into()]);
/// ```
pub fn client_test_from_args(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Action<ClientTest>, ConfigError> {
    let mut own = clienttest::Own::default();
    match sources::flags(args, Command::ClientTest(&mut own))? {
        Asked::Settings(flags) => own.with(from_sources(flags, env)?).map(Action::Run),
        Asked::Print(what) => Ok(Action::Print(what.client_test_text())),
    }
}

fn from_sources(
    flags: Flags,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    let environment = sources::environment(env)?;
    let mut typed = match flags.file.or(environment.file) {
        Some(path) => sources::file(&path)?,
        None => sources::Typed::default(),
    };
    typed.replace_with(environment.typed);
    typed.replace_with(flags.typed);
    meaning::config(&typed)
}

/// The settings of a server; [`Config::default`] is what it does when nobody says anything.
///
/// [`table::SETTINGS`] has the allowed values and the reasons of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listen: Vec<Listen>,
    /// Where statistics are served over HTTP; `None` where they are not.
    pub admin: Option<SocketAddr>,
    /// How many shards; `None` for one on each online core.
    pub shards: Option<usize>,
    /// The applications to run.
    pub app: Vec<App>,
    /// Where the files of those are that are named and not bundled.
    pub app_dir: Option<PathBuf>,
    /// What the file has for applications: by name and key, in its sections `[app-settings.NAME]`.
    pub app_settings: BTreeMap<String, BTreeMap<String, String>>,
    /// What Python applications run under.
    pub python: PathBuf,
    /// What JavaScript applications run under.
    pub node: PathBuf,
    /// Whether workers are replaced when their files change.
    pub reload: bool,
    /// What `/qio/hostname` answers; `None` where the server has no public address.
    pub public_address: Option<String>,
    /// The origins of the pages that browsers may connect from, as browsers write them; `*` alone for all.
    pub origin: Vec<String>,
    /// The least important events that are logged.
    pub log_level: LogLevel,
    /// How a log line is written.
    pub log_format: LogFormat,
    /// Which time the timers go by.
    pub clock: ClockKind,
    /// Clients of the whole server, at most.
    pub clients_max: usize,
    /// Connections of one peer's address, at most; 0 for no limit.
    pub connections_per_address_max: usize,
    /// Bytes of one message from a client, at most.
    pub message_bytes_max: usize,
    /// Bytes that wait for one client to read them, at most.
    pub outbox_bytes_max: usize,
    /// Subscriptions of all clients together, at most.
    pub clients_subs_total: usize,
    /// Percent of `clients_subs_total` from which on clients with many subscriptions get no more.
    pub clients_subs_pressure: u8,
    /// Subscriptions that a client may have even then.
    pub clients_subs_min: usize,
    /// How long a client may take to fire a server callback.
    pub clients_cb_max_age: Duration,
    /// How long a peer may take for its handshake, or to finish a message that it began.
    pub timeout: Duration,
    /// How long a peer may take for its part of the closing handshake.
    pub close_timeout: Duration,
    /// The longest that a client is sent nothing.
    pub heartbeat_interval: Duration,
    /// How much earlier than `heartbeat_interval` a heartbeat may be sent.
    pub heartbeat_slack: Duration,
    /// After which time an HTTP request that polls is answered, at the latest.
    pub poll_interval: Duration,
    /// How much earlier it may be.
    pub poll_slack: Duration,
    /// How long nothing comes from a client before it is challenged.
    pub heartbeat_challenge: Duration,
    /// How long nothing comes from a client before it is closed.
    pub heartbeat_timeout: Duration,
    /// The longest that an orderly shutdown takes.
    pub shutdown_timeout: Duration,
    /// How long a worker may take to get ready.
    pub worker_start_timeout: Duration,
    /// How long a worker may take to answer a ping.
    pub worker_timeout: Duration,
    /// How long a worker may take to answer an event.
    pub worker_request_timeout: Duration,
    /// How long a worker that is replaced or stopped may take to finish what it has.
    pub worker_stop_timeout: Duration,
    /// Events that a worker has under way from one shard, at most.
    pub worker_requests_max: usize,
    /// Bytes that wait for a worker to read them from one shard, at most.
    pub worker_outbox_bytes_max: usize,
    /// Receive buffers of each shard: a power of two.
    pub receive_buffers: usize,
    /// Bytes of each receive buffer.
    pub receive_buffer_bytes: usize,
    /// Sends that a shard submits in one turn, at most.
    pub sends_per_turn_max: usize,
    /// Connections that the kernel keeps for each listener until they are accepted.
    pub listen_backlog: usize,
    /// Accepts that each listener has in the ring at once.
    pub accepts_in_flight: usize,
    /// Messages in the ring from one shard to another: a power of two.
    pub mesh_ring_messages: usize,
    /// Messages that wait, for each pair of shards, where that ring is full.
    pub mesh_overflow_messages_max: usize,
    /// Commands of application threads that wait for one shard.
    pub inbox_messages_max: usize,
    /// Answer every WebSocket message on the path `/echo` with itself, with no subprotocol and no `/qio/ohai`: what
    /// the WebSocket conformance suite needs. For programs that use this crate; there is no flag for it.
    pub echo: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec![Listen::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)))],
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8081))),
            shards: None,
            app: Vec::new(),
            app_dir: None,
            app_settings: BTreeMap::new(),
            python: "python3".into(),
            node: "node".into(),
            reload: false,
            public_address: None,
            origin: vec!["*".into()],
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            clock: ClockKind::System,
            clients_max: 1_048_576,
            connections_per_address_max: 0,
            message_bytes_max: 65_536,
            outbox_bytes_max: 1_048_576,
            clients_subs_total: 4_194_304,
            clients_subs_pressure: 60,
            clients_subs_min: 128,
            clients_cb_max_age: Duration::from_secs(15),
            timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(60),
            heartbeat_slack: Duration::from_secs(10),
            poll_interval: Duration::from_secs(55),
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
            mesh_overflow_messages_max: 65_536,
            inbox_messages_max: 8_192,
            echo: false,
        }
    }
}

/// An application to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name, or its file ([`is_file`]).
    pub name: String,
    /// How many workers it has, where that was said.
    pub instances: Option<usize>,
}

impl From<&str> for App {
    fn from(name: &str) -> App {
        App { name: name.to_owned(), instances: None }
    }
}

/// As it is typed.
impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.instances.map_or(Ok(()), |instances| write!(f, ",instances={instances}"))
    }
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// An IPv4 or IPv6 address and a TCP port; port 0 lets the kernel choose one.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket, which is created.
    Unix(PathBuf),
}

/// As it is typed: `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/quickio.sock`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How important an event is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What needs somebody's attention.
    Error,
    /// What may need it.
    Warn,
    /// Starts, stops, and clients closed for their own fault.
    Info,
    /// What helps to find a fault.
    Debug,
    /// All there is.
    Trace,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which time the timers go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockKind {
    /// The kernel's monotonic time.
    System,
    /// One that stands still until `POST /clock?advance=MS` on the admin endpoint moves it: for tests.
    Manual,
}
