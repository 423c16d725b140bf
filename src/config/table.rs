//! The settings: one row each. Parser, help, settings file and docs are all made from these rows.
//!
//! A setting has one name and three spellings: the flag `--clients-max`, the variable `QUICKIO_CLIENTS_MAX`, the
//! file's key `clients-max`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::duration_text;
use super::{App, ClockKind, Config, Listen, LogFormat, LogLevel};
use crate::limits::SHARDS_MAX;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name, in the flag's spelling without the dashes.
    pub name: &'static str,
    /// Under which heading it is shown.
    pub group: Group,
    /// What its value is, what is allowed, and the field that it sets.
    pub kind: Kind,
    /// The default, as it would be typed; empty where the default is nothing at all.
    pub default: &'static str,
    /// What it does, in whole sentences.
    pub doc: &'static str,
}

impl Setting {
    /// The setting of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The name of its variable in the environment.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("QUICKIO_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// The headings under which settings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where the server listens and what it runs.
    Serving,
    /// The log.
    Log,
    /// What clients may take.
    Limits,
    /// Timeouts and heartbeats.
    Times,
    /// Workers: applications in processes of their own.
    Workers,
    /// The sizes of a shard's machinery.
    Machinery,
    /// What only tests need.
    Tests,
}

impl Group {
    /// All of them, in the order they are shown.
    pub const ALL: &'static [Group] = &[
        Group::Serving,
        Group::Log,
        Group::Limits,
        Group::Times,
        Group::Workers,
        Group::Machinery,
        Group::Tests,
    ];

    /// The heading.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Group::Serving => "Where it listens, and what it runs",
            Group::Log => "The log",
            Group::Limits => "Limits",
            Group::Times => "Timeouts and heartbeats",
            Group::Workers => "Workers",
            Group::Machinery => "The sizes of a shard's machinery",
            Group::Tests => "For tests",
        }
    }
}

/// What a setting's value is, what is allowed, and the field of [`Config`] that it sets.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Count {
        /// The least allowed.
        min: usize,
        /// The most allowed.
        max: usize,
        /// Whether it must be a power of two.
        power_of_two: bool,
        /// What one is: `bytes`, `connections`.
        unit: &'static str,
        /// Where it goes.
        field: fn(&mut Config) -> &mut usize,
    },
    /// 1 to 100.
    Percent(fn(&mut Config) -> &mut u8),
    /// A time, from `min` on, at most [`DURATION_MAX`].
    Duration {
        /// The least allowed.
        min: Duration,
        /// Where it goes.
        field: fn(&mut Config) -> &mut Duration,
    },
    /// `auto`, or 1 to [`SHARDS_MAX`].
    Shards(fn(&mut Config) -> &mut Option<usize>),
    /// A list of addresses; at least one.
    Addresses(fn(&mut Config) -> &mut Vec<Listen>),
    /// An address, or `off`.
    AddressOrOff(fn(&mut Config) -> &mut Option<SocketAddr>),
    /// A list of names and files of applications; may be empty.
    Apps(fn(&mut Config) -> &mut Vec<App>),
    /// `*`, or a list of origins of pages; at least one.
    Origins(fn(&mut Config) -> &mut Vec<String>),
    /// A text without spaces; empty for none.
    Text(fn(&mut Config) -> &mut Option<String>),
    /// On or off; the flag alone is on.
    Switch(fn(&mut Config) -> &mut bool),
    /// The name or path of a program.
    Program(fn(&mut Config) -> &mut PathBuf),
    /// The path of a folder; empty for none.
    Folder(fn(&mut Config) -> &mut Option<PathBuf>),
    /// One of a few words.
    Choice {
        /// The words.
        words: &'static [&'static str],
        /// Takes the word's index.
        put: fn(&mut Config, usize),
    },
}

/// The longest time that may be set: one day.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const NO_TIME: Duration = Duration::ZERO;
const ONE_MS: Duration = Duration::from_millis(1);
const KI: usize = 1 << 10;
const MI: usize = 1 << 20;

/// Every setting, in the order they are shown.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        group: Group::Serving,
        kind: Kind::Addresses(|config| &mut config.listen),
        default: "0.0.0.0:8080",
        doc: "Where clients connect, over any protocol. Every shard listens at every one of these addresses, and \
              the kernel spreads the connections.",
    },
    Setting {
        name: "admin",
        group: Group::Serving,
        kind: Kind::AddressOrOff(|config| &mut config.admin),
        default: "127.0.0.1:8081",
        doc: "Where statistics are served over HTTP: /stats, /metrics, /healthz. It asks for no password: keep it \
              where only operators reach it.",
    },
    Setting {
        name: "shards",
        group: Group::Serving,
        kind: Kind::Shards(|config| &mut config.shards),
        default: "auto",
        doc: "How many shards run, each on a thread and core of its own; auto is one for each online core. More \
              than cores is allowed.",
    },
    Setting {
        name: "app",
        group: Group::Serving,
        kind: Kind::Apps(|config| &mut config.app),
        default: "",
        doc: "The applications to run: names of bundled ones or of files in app-dir, without their ending; or the files \
              themselves, with a slash or the ending in their names. .so is C; .py and .js, .mjs, .cjs run in workers, as \
              does a program that begins with #!. FILE,instances=4 has four of them.",
    },
    Setting {
        name: "app-dir",
        group: Group::Serving,
        kind: Kind::Folder(|config| &mut config.app_dir),
        default: "",
        doc: "The folder of applications: NAME is looked for there as NAME.so, NAME.py, NAME.mjs, NAME.js, NAME.cjs.",
    },
    Setting {
        name: "python",
        group: Group::Serving,
        kind: Kind::Program(|config| &mut config.python),
        default: "python3",
        doc: "What runs applications in Python: CPython 3.9 or newer, a virtual environment's perhaps.",
    },
    Setting {
        name: "node",
        group: Group::Serving,
        kind: Kind::Program(|config| &mut config.node),
        default: "node",
        doc: "What runs applications in JavaScript: Node 18 or newer.",
    },
    Setting {
        name: "reload",
        group: Group::Serving,
        kind: Kind::Switch(|config| &mut config.reload),
        default: "off",
        doc: "Whether workers are replaced when a file that they were loaded from changes, as they are on SIGHUP: for \
              development.",
    },
    Setting {
        name: "public-address",
        group: Group::Serving,
        kind: Kind::Text(|config| &mut config.public_address),
        default: "",
        doc: "The name or address at which clients reach this very server, behind whatever balances the load: what \
              /qio/hostname answers.",
    },
    Setting {
        name: "origin",
        group: Group::Serving,
        kind: Kind::Origins(|config| &mut config.origin),
        default: "*",
        doc: "The pages that browsers may connect from, by whatever protocol: what their Origin header says. A request \
              of any other page is answered 403; one that names no page is no browser's, and is let in. * is all pages.",
    },
    Setting {
        name: "log-level",
        group: Group::Log,
        kind: Kind::Choice {
            words: &["error", "warn", "info", "debug", "trace"],
            put: |config, index| {
                config.log_level =
                    [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
                        [index];
            },
        },
        default: "info",
        doc: "The least important events that are logged, on standard error.",
    },
    Setting {
        name: "log-format",
        group: Group::Log,
        kind: Kind::Choice {
            words: &["text", "json"],
            put: |config, index| config.log_format = [LogFormat::Text, LogFormat::Json][index],
        },
        default: "text",
        doc: "How a log line is written: for people, or as one JSON object.",
    },
    Setting {
        name: "clients-max",
        group: Group::Limits,
        kind: Kind::Count {
            min: 1,
            max: SHARDS_MAX * MI,
            power_of_two: false,
            unit: "connections",
            field: |config| &mut config.clients_max,
        },
        default: "1048576",
        doc: "Connections of the whole server, counted from their accept on. One more is closed at once.",
    },
    Setting {
        name: "connections-per-address-max",
        group: Group::Limits,
        kind: Kind::Count {
            min: 0,
            max: SHARDS_MAX * MI,
            power_of_two: false,
            unit: "connections",
            field: |config| &mut config.connections_per_address_max,
        },
        default: "0",
        doc: "Connections of one peer's address; one more is closed at once. 0 is no limit, as clients behind one \
              proxy have one address.",
    },
    Setting {
        name: "message-bytes-max",
        group: Group::Limits,
        kind: Kind::Count {
            min: 64,
            max: 256 * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.message_bytes_max,
        },
        default: "65536",
        doc: "One message from a client, all its fragments together. A longer one closes the connection (1009).",
    },
    Setting {
        name: "outbox-bytes-max",
        group: Group::Limits,
        kind: Kind::Count {
            min: KI,
            max: KI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.outbox_bytes_max,
        },
        default: "1048576",
        doc: "What waits for one client to read it. A client that lets more gather is closed (1013).",
    },
    Setting {
        name: "clients-subs-total",
        group: Group::Limits,
        kind: Kind::Count {
            min: 1,
            max: KI * MI,
            power_of_two: false,
            unit: "subscriptions",
            field: |config| &mut config.clients_subs_total,
        },
        default: "4194304",
        doc: "Subscriptions of all clients together. One more is answered 420.",
    },
    Setting {
        name: "clients-subs-pressure",
        group: Group::Limits,
        kind: Kind::Percent(|config| &mut config.clients_subs_pressure),
        default: "60",
        doc: "How much of clients-subs-total may be taken before a client that has clients-subs-min subscriptions \
              already is answered 420.",
    },
    Setting {
        name: "clients-subs-min",
        group: Group::Limits,
        kind: Kind::Count {
            min: 0,
            max: KI * MI,
            power_of_two: false,
            unit: "subscriptions",
            field: |config| &mut config.clients_subs_min,
        },
        default: "128",
        doc: "Subscriptions that one client may have even above clients-subs-pressure.",
    },
    Setting {
        name: "clients-cb-max-age",
        group: Group::Limits,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.clients_cb_max_age },
        default: "15s",
        doc: "How long a client may take to answer a server callback before it is dropped.",
    },
    Setting {
        name: "timeout",
        group: Group::Times,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.timeout },
        default: "10s",
        doc: "How long a peer may take for its handshake, or to finish a message that it began, before it is \
              closed (1008).",
    },
    Setting {
        name: "close-timeout",
        group: Group::Times,
        kind: Kind::Duration { min: NO_TIME, field: |config| &mut config.close_timeout },
        default: "5s",
        doc: "How long a peer may take for its part of the closing handshake before its connection is dropped.",
    },
    Setting {
        name: "heartbeat-interval",
        group: Group::Times,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.heartbeat_interval },
        default: "60s",
        doc: "A client that was sent nothing for so long is sent a heartbeat, never later. Clients reconnect when \
              they heard nothing for 65s.",
    },
    Setting {
        name: "heartbeat-slack",
        group: Group::Times,
        kind: Kind::Duration { min: NO_TIME, field: |config| &mut config.heartbeat_slack },
        default: "10s",
        doc: "How much earlier than heartbeat-interval a heartbeat may be sent, so that many are sent in one turn.",
    },
    Setting {
        name: "poll-interval",
        group: Group::Times,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.poll_interval },
        default: "55s",
        doc: "An HTTP request that polls is answered after so long at the latest, with nothing. Proxies between must \
              wait longer.",
    },
    Setting {
        name: "poll-slack",
        group: Group::Times,
        kind: Kind::Duration { min: NO_TIME, field: |config| &mut config.poll_slack },
        default: "5s",
        doc: "How much earlier than poll-interval a poll may be answered, so that not all come back at once.",
    },
    Setting {
        name: "heartbeat-challenge",
        group: Group::Times,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.heartbeat_challenge },
        default: "15m",
        doc: "A client from which nothing came for so long is sent a heartbeat that it must answer.",
    },
    Setting {
        name: "heartbeat-timeout",
        group: Group::Times,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.heartbeat_timeout },
        default: "16m",
        doc: "A client from which nothing came for so long is closed (1008).",
    },
    Setting {
        name: "shutdown-timeout",
        group: Group::Times,
        kind: Kind::Duration { min: NO_TIME, field: |config| &mut config.shutdown_timeout },
        default: "10s",
        doc: "How long an orderly shutdown may take: clients are told, what is queued is sent, applications stop. \
              Whatever is left then is dropped.",
    },
    Setting {
        name: "worker-start-timeout",
        group: Group::Workers,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.worker_start_timeout },
        default: "30s",
        doc: "How long a worker may take to load its application and to get ready.",
    },
    Setting {
        name: "worker-timeout",
        group: Group::Workers,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.worker_timeout },
        default: "30s",
        doc: "A worker that does not answer a ping for so long hangs: it is killed, and another one started. It is pinged \
              as often.",
    },
    Setting {
        name: "worker-request-timeout",
        group: Group::Workers,
        kind: Kind::Duration { min: ONE_MS, field: |config| &mut config.worker_request_timeout },
        default: "60s",
        doc: "How long a worker may take to answer an event, before its client is answered 500.",
    },
    Setting {
        name: "worker-stop-timeout",
        group: Group::Workers,
        kind: Kind::Duration { min: NO_TIME, field: |config| &mut config.worker_stop_timeout },
        default: "30s",
        doc: "How long a worker may take to end when the server stops, before it is killed. One that is replaced has this \
              and worker-request-timeout (or clients-cb-max-age, if that is longer).",
    },
    Setting {
        name: "worker-requests-max",
        group: Group::Workers,
        kind: Kind::Count {
            min: 1,
            max: 512 * KI,
            power_of_two: false,
            unit: "events",
            field: |config| &mut config.worker_requests_max,
        },
        default: "16384",
        doc: "Events of one shard that a worker has under way. One more is answered 420.",
    },
    Setting {
        name: "worker-outbox-bytes-max",
        group: Group::Workers,
        kind: Kind::Count {
            min: KI,
            max: KI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.worker_outbox_bytes_max,
        },
        default: "8388608",
        doc: "Bytes of one shard that a worker has not read. While there are so many, events are answered 420.",
    },
    Setting {
        name: "receive-buffers",
        group: Group::Machinery,
        kind: Kind::Count {
            min: 2,
            max: 32 * KI,
            power_of_two: true,
            unit: "buffers",
            field: |config| &mut config.receive_buffers,
        },
        default: "512",
        doc: "Buffers of each shard that the kernel receives into; all its connections share them. Where \
              buffers_exhausted is counted often, there are too few.",
    },
    Setting {
        name: "receive-buffer-bytes",
        group: Group::Machinery,
        kind: Kind::Count {
            min: 64,
            max: MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.receive_buffer_bytes,
        },
        default: "4096",
        doc: "The size of one receive buffer. A message that fits is decoded where it lies.",
    },
    Setting {
        name: "sends-per-turn-max",
        group: Group::Machinery,
        kind: Kind::Count {
            min: 1,
            max: 32 * KI,
            power_of_two: false,
            unit: "sends",
            field: |config| &mut config.sends_per_turn_max,
        },
        default: "1024",
        doc: "Sends that a shard submits in one turn; other clients' output goes out in the next. It bounds how long \
              what arrives has to wait for a large broadcast.",
    },
    Setting {
        name: "listen-backlog",
        group: Group::Machinery,
        kind: Kind::Count {
            min: 1,
            max: 65_535,
            power_of_two: false,
            unit: "connections",
            field: |config| &mut config.listen_backlog,
        },
        default: "4096",
        doc: "Connections that the kernel keeps for each listener until they are accepted; net.core.somaxconn \
              bounds it too.",
    },
    Setting {
        name: "accepts-in-flight",
        group: Group::Machinery,
        kind: Kind::Count {
            min: 1,
            max: 4096,
            power_of_two: false,
            unit: "accepts",
            field: |config| &mut config.accepts_in_flight,
        },
        default: "64",
        doc: "Accepts that wait in a shard's ring for each listener: so many connections can begin in one turn.",
    },
    Setting {
        name: "mesh-ring-messages",
        group: Group::Machinery,
        kind: Kind::Count {
            min: 8,
            max: MI,
            power_of_two: true,
            unit: "messages",
            field: |config| &mut config.mesh_ring_messages,
        },
        default: "1024",
        doc: "Messages that one shard may have under way to another. There is a ring for each ordered pair of \
              shards, so its memory grows with the square of their number.",
    },
    Setting {
        name: "mesh-overflow-messages-max",
        group: Group::Machinery,
        kind: Kind::Count {
            min: 0,
            max: 16 * MI,
            power_of_two: false,
            unit: "messages",
            field: |config| &mut config.mesh_overflow_messages_max,
        },
        default: "65536",
        doc: "Messages that wait where such a ring is full. When these are full too, broadcasts are lost to that \
              shard, and counted as mesh_refused.",
    },
    Setting {
        name: "inbox-messages-max",
        group: Group::Machinery,
        kind: Kind::Count {
            min: 1,
            max: 16 * MI,
            power_of_two: false,
            unit: "messages",
            field: |config| &mut config.inbox_messages_max,
        },
        default: "8192",
        doc: "Commands of applications' own threads that wait for one shard; one more is refused, and the \
              application told.",
    },
    Setting {
        name: "clock",
        group: Group::Tests,
        kind: Kind::Choice {
            words: &["system", "manual"],
            put: |config, index| config.clock = [ClockKind::System, ClockKind::Manual][index],
        },
        default: "system",
        doc: "Which time the timers go by. manual is for tests: time stands still, and POST /clock?advance=MS on \
              the admin endpoint moves it.",
    },
];

/// Two settings whose values must be in order.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) lesser: &'static str,
    pub(super) greater: &'static str,
    /// Whether they may be equal.
    pub(super) or_equal: bool,
    pub(super) holds: fn(&Config) -> bool,
    /// What would go wrong otherwise.
    pub(super) why: &'static str,
}

/// What must hold between settings.
pub(super) static RELATIONS: &[Relation] = &[
    Relation {
        lesser: "heartbeat-slack",
        greater: "heartbeat-interval",
        or_equal: false,
        holds: |config| config.heartbeat_slack < config.heartbeat_interval,
        why: "heartbeats would be sent without a pause",
    },
    Relation {
        lesser: "poll-slack",
        greater: "poll-interval",
        or_equal: false,
        holds: |config| config.poll_slack < config.poll_interval,
        why: "polls would be answered at once",
    },
    Relation {
        lesser: "heartbeat-challenge",
        greater: "heartbeat-timeout",
        or_equal: false,
        holds: |config| config.heartbeat_challenge < config.heartbeat_timeout,
        why: "a silent client would be closed without having been asked",
    },
    Relation {
        lesser: "message-bytes-max",
        greater: "outbox-bytes-max",
        or_equal: false,
        holds: |config| config.message_bytes_max < config.outbox_bytes_max,
        why: "a message that is sent back or broadcast would close whoever gets it",
    },
    Relation {
        lesser: "clients-subs-min",
        greater: "clients-subs-total",
        or_equal: true,
        holds: |config| config.clients_subs_min <= config.clients_subs_total,
        why: "no client could have what each is granted",
    },
];

impl Kind {
    /// Whether the value is a list: flags may be repeated, and commas separate.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self, Kind::Addresses(_) | Kind::Apps(_) | Kind::Origins(_))
    }

    /// Whether a file may give it as a number, without quotes.
    #[must_use]
    pub fn takes_numbers(&self) -> bool {
        matches!(self, Kind::Count { .. } | Kind::Percent(_) | Kind::Shards(_))
    }

    /// What is allowed, for people: the end of a sentence.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Kind::Count { min, max, power_of_two, unit, .. } => {
                let power = if *power_of_two { ", a power of two" } else { "" };
                format!("{min} to {max} {unit}{power}")
            }
            Kind::Percent(_) => "1 to 100 percent".into(),
            Kind::Duration { min, .. } => {
                format!("{} to {}", duration_text(*min), duration_text(DURATION_MAX))
            }
            Kind::Shards(_) => format!("auto, or 1 to {SHARDS_MAX}"),
            Kind::Addresses(_) => "one or more of ip:port, [ip6]:port and unix:/path".into(),
            Kind::AddressOrOff(_) => "ip:port, [ip6]:port, or off".into(),
            Kind::Apps(_) => "names and files".into(),
            Kind::Origins(_) => "*, or one or more of http://host, https://host and either with :port".into(),
            Kind::Text(_) => "a text without spaces, or nothing".into(),
            Kind::Switch(_) => "on or off".into(),
            Kind::Program(_) => "a program".into(),
            Kind::Folder(_) => "a folder, or nothing".into(),
            Kind::Choice { words, .. } => one_of(words),
        }
    }

    /// How the value is written, where that is not plain; help and docs say it once, errors each time.
    #[must_use]
    pub fn form(&self) -> Option<&'static str> {
        match self {
            Kind::Count { power_of_two: false, .. } => Some("k, M, Ki, Mi or Gi may follow the number"),
            Kind::Duration { .. } => Some("a whole number with its unit: 500ms, 10s, 15m or 1h"),
            Kind::Addresses(_) | Kind::Apps(_) | Kind::Origins(_) => Some("separated by commas"),
            _ => None,
        }
    }

    /// What stands for the value after the flag.
    #[must_use]
    pub fn placeholder(&self) -> String {
        match self {
            Kind::Count { unit: "bytes", .. } => "BYTES".into(),
            Kind::Count { .. } => "COUNT".into(),
            Kind::Percent(_) => "PERCENT".into(),
            Kind::Duration { .. } => "DURATION".into(),
            Kind::Shards(_) => "auto|COUNT".into(),
            Kind::Addresses(_) => "ADDRESS,...".into(),
            Kind::AddressOrOff(_) => "ADDRESS|off".into(),
            Kind::Apps(_) => "NAME|FILE,...".into(),
            Kind::Origins(_) => "*|ORIGIN,...".into(),
            Kind::Text(_) => "TEXT".into(),
            Kind::Switch(_) => "[=off]".into(),
            Kind::Program(_) => "PROGRAM".into(),
            Kind::Folder(_) => "FOLDER".into(),
            Kind::Choice { words, .. } => words.join("|"),
        }
    }
}

/// `a, b or c`.
fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_are_well_formed() {
        let mut seen = BTreeSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.name), "{} stands twice", setting.name);
            assert!(setting.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", setting.name);
            assert!(setting.doc.ends_with('.') && !setting.doc.contains("  "), "{}", setting.name);
            assert!(Setting::find(setting.name).is_some_and(|found| std::ptr::eq(found, setting)));
        }
    }

    #[test]
    fn groups_are_shown_in_the_order_of_the_rows() {
        let mut groups: Vec<Group> = SETTINGS.iter().map(|setting| setting.group).collect();
        groups.dedup();
        assert_eq!(groups, Group::ALL);
    }

    #[test]
    fn relations_name_settings_and_hold_by_default() {
        for relation in RELATIONS {
            assert!(Setting::find(relation.lesser).is_some() && Setting::find(relation.greater).is_some());
            assert!((relation.holds)(&Config::default()), "{}", relation.why);
        }
    }
}
