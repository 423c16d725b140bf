//! The table of settings. The parser, the help, the settings file and the docs are all made from its rows.
//!
//! A setting has one name in three spellings: the flag `--clients-max`, the variable `QUICKIO_CLIENTS_MAX`, and the
//! file's key `clients-max`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::duration_text;
use super::{
    App, AuthMode, ClockKind, Config, Listen, LogFormat, LogLevel, TlsClientAuth, TlsVersion, TrustedProxy,
};
use crate::limits::{MEMBERS_MAX, SHARDS_MAX};

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// The name, as the flag spells it, without the dashes.
    pub name: &'static str,
    /// The heading under which it is shown.
    pub group: Group,
    /// The type of its value, the allowed values, and the field that it sets.
    pub kind: ValueKind,
    /// The default, as a flag accepts it; empty if there is none.
    pub default: &'static str,
    /// The description, in whole sentences.
    pub doc: &'static str,
}

impl Setting {
    /// Returns the setting with this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Returns the name of its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("QUICKIO_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// The headings under which settings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Addresses and applications.
    Serving,
    /// Certificates, and what clients need to encrypt their connections.
    Tls,
    /// Who the clients are.
    Identity,
    /// The log.
    Log,
    /// The resources that clients may use.
    Limits,
    /// Timeouts and heartbeats.
    Times,
    /// Workers: applications in processes of their own.
    Workers,
    /// The sizes of a shard's buffers and queues.
    Sizes,
    /// Settings that only tests need.
    Tests,
}

impl Group {
    /// All groups, in the order in which they are shown.
    pub const ALL: &'static [Group] = &[
        Group::Serving,
        Group::Tls,
        Group::Identity,
        Group::Log,
        Group::Limits,
        Group::Times,
        Group::Workers,
        Group::Sizes,
        Group::Tests,
    ];

    /// Returns the heading.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Group::Serving => "Addresses and applications",
            Group::Tls => "TLS",
            Group::Identity => "Identity",
            Group::Log => "Log",
            Group::Limits => "Limits",
            Group::Times => "Timeouts and heartbeats",
            Group::Workers => "Workers",
            Group::Sizes => "Buffers and queues",
            Group::Tests => "Tests",
        }
    }
}

/// The type of a setting's value, the allowed values, and the field of [`Config`] that it sets.
#[derive(Clone, Copy, Debug)]
pub enum ValueKind {
    /// A whole number.
    Count {
        /// The minimum.
        min: usize,
        /// The maximum.
        max: usize,
        /// Accept only powers of two.
        power_of_two: bool,
        /// The unit: `bytes`, `connections`.
        unit: &'static str,
        /// Returns the field.
        field: fn(&mut Config) -> &mut usize,
    },
    /// The permissions of a file, in octal.
    FileMode(fn(&mut Config) -> &mut u32),
    /// `auto`, or a whole number from 0.
    AutoCount {
        /// The maximum.
        max: usize,
        /// The unit: `connections`.
        unit: &'static str,
        /// Returns the field, which is `None` for `auto`.
        field: fn(&mut Config) -> &mut Option<usize>,
    },
    /// A percentage: 1 to 100.
    Percent(fn(&mut Config) -> &mut u8),
    /// A duration from `min` to [`DURATION_MAX`].
    Duration {
        /// The minimum.
        min: Duration,
        /// Returns the field.
        field: fn(&mut Config) -> &mut Duration,
    },
    /// `auto`, or 1 to [`SHARDS_MAX`].
    Shards(fn(&mut Config) -> &mut Option<usize>),
    /// A list of addresses, with at least one entry.
    Addresses(fn(&mut Config) -> &mut Vec<Listen>),
    /// An address, which may take TLS, or `off`.
    AddressOrOff {
        /// Returns the field of the addresses: a name may have several.
        addresses: fn(&mut Config) -> &mut Vec<SocketAddr>,
        /// Returns the field that tells whether they take TLS.
        tls: fn(&mut Config) -> &mut bool,
    },
    /// A list of names and files of applications, which may be empty.
    Apps(fn(&mut Config) -> &mut Vec<App>),
    /// A list of names of hosts, which may be empty.
    Hosts(fn(&mut Config) -> &mut Vec<String>),
    /// A list of networks and the word `unix`, which may be empty.
    Proxies(fn(&mut Config) -> &mut Vec<TrustedProxy>),
    /// A list of origins of web pages with at least one entry, or `*`.
    Origins(fn(&mut Config) -> &mut Vec<String>),
    /// A list of texts without spaces, which may be empty.
    Texts(fn(&mut Config) -> &mut Vec<String>),
    /// A list of names of HTTP headers, which may be empty.
    Headers(fn(&mut Config) -> &mut Vec<String>),
    /// A text without spaces, or empty for none.
    Text(fn(&mut Config) -> &mut Option<String>),
    /// On or off. A flag without a value means on.
    Switch(fn(&mut Config) -> &mut bool),
    /// The name or path of a program.
    Program(fn(&mut Config) -> &mut PathBuf),
    /// A list of paths of files, which may be empty.
    Files(fn(&mut Config) -> &mut Vec<PathBuf>),
    /// The path of a file, or empty for none.
    File(fn(&mut Config) -> &mut Option<PathBuf>),
    /// The path of a directory, or empty for none.
    Directory(fn(&mut Config) -> &mut Option<PathBuf>),
    /// One of a few words.
    Choice {
        /// The choices.
        choices: &'static [&'static str],
        /// Sets the field to the choice with this index.
        set: fn(&mut Config, usize),
    },
}

/// The longest duration that can be set: one day.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const NO_TIME: Duration = Duration::ZERO;
const ONE_MS: Duration = Duration::from_millis(1);
const KI: usize = 1 << 10;
const MI: usize = 1 << 20;

/// All settings, in the order in which they are shown.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        group: Group::Serving,
        kind: ValueKind::Addresses(|config| &mut config.listen),
        default: "0.0.0.0:8080",
        doc: "The addresses at which clients connect, over any protocol. Every shard listens on each of them, and the \
              kernel spreads new connections over the shards. The word before :// tells what they take: tls://ADDRESS \
              only TLS, plain://ADDRESS no TLS, either://ADDRESS both. Without it, a TCP port takes only TLS if tls-cert \
              is set, and a Unix socket is plain.",
    },
    Setting {
        name: "listen-mode",
        group: Group::Serving,
        kind: ValueKind::FileMode(|config| &mut config.listen_mode),
        default: "0666",
        doc: "The permissions of Unix sockets in listen, in octal. A program can connect if it may write to the socket \
              and enter its directory. 0666 allows every user of this host to connect, as a TCP port does; 0660 allows \
              only the server's user and listen-group.",
    },
    Setting {
        name: "listen-group",
        group: Group::Serving,
        kind: ValueKind::Text(|config| &mut config.listen_group),
        default: "",
        doc: "The group of Unix sockets in listen, by name or number, such as the group of a proxy. The server's user \
              must be root or a member of the group. None means the group of the server.",
    },
    Setting {
        name: "admin",
        group: Group::Serving,
        kind: ValueKind::AddressOrOff {
            addresses: |config| &mut config.admin,
            tls: |config| &mut config.admin_tls,
        },
        default: "127.0.0.1:8081",
        doc: "The address that serves the operator's page and statistics over HTTP: /, /stats, /metrics and /healthz. \
              Without admin-password-file it does not ask for a password: make sure that only operators can reach it. \
              tls://ADDRESS serves them over HTTPS, with the certificates of tls-cert.",
    },
    Setting {
        name: "admin-password-file",
        group: Group::Serving,
        kind: ValueKind::File(|config| &mut config.admin_password_file),
        default: "",
        doc: "The file with the password for admin, of 12 to 128 bytes, which is read at the start. All of its pages but \
              /healthz then ask for it (HTTP Basic authentication, with any user name). None means that there is no \
              password; the operator's page, and what tells about single clients, are then only for this host.",
    },
    Setting {
        name: "api",
        group: Group::Serving,
        kind: ValueKind::AddressOrOff {
            addresses: |config| &mut config.api,
            tls: |config| &mut config.api_tls,
        },
        default: "off",
        doc: "The address of the server API, by which back ends broadcast events over HTTP. It needs keys: [[api-keys]] in \
              the settings file. tls://ADDRESS serves it over HTTPS, with the certificates of tls-cert; without TLS, anybody \
              on the way can read the keys.",
    },
    Setting {
        name: "admin-hosts",
        group: Group::Serving,
        kind: ValueKind::Hosts(|config| &mut config.admin_hosts),
        default: "",
        doc: "The names that requests to admin may use for this host, in addition to localhost and IP addresses. A \
              request with any other name in its Host header is answered with 421: this keeps the web pages of other \
              sites from reading the statistics through an operator's browser (DNS rebinding).",
    },
    Setting {
        name: "shards",
        group: Group::Serving,
        kind: ValueKind::Shards(|config| &mut config.shards),
        default: "auto",
        doc: "The number of shards. Each runs on a thread and a core of its own. auto starts one for each core that \
              the process may use, by its CPU affinity and by the CPU quota of its control group. More shards than cores are allowed.",
    },
    Setting {
        name: "app",
        group: Group::Serving,
        kind: ValueKind::Apps(|config| &mut config.app),
        default: "",
        doc: "The applications to run: names of bundled applications, names of files in app-dir without their ending, \
              or files (with a slash or the ending in their names). A .so file is loaded into the server (C or C++). \
              Files that end in .py, .js, .mjs or .cjs run in worker processes, as does an executable file that begins \
              with #!. FILE,instances=4 starts four workers.",
    },
    Setting {
        name: "app-dir",
        group: Group::Serving,
        kind: ValueKind::Directory(|config| &mut config.app_dir),
        default: "",
        doc: "The directory of application files. NAME is looked up there as NAME.so, NAME.py, NAME.mjs, NAME.js \
              and NAME.cjs.",
    },
    Setting {
        name: "python",
        group: Group::Serving,
        kind: ValueKind::Program(|config| &mut config.python),
        default: "python3",
        doc: "The interpreter of Python applications: CPython 3.9 or newer. It can be the interpreter of a virtual \
              environment.",
    },
    Setting {
        name: "node",
        group: Group::Serving,
        kind: ValueKind::Program(|config| &mut config.node),
        default: "node",
        doc: "The interpreter of JavaScript applications: Node.js 18 or newer.",
    },
    Setting {
        name: "reload",
        group: Group::Serving,
        kind: ValueKind::Switch(|config| &mut config.reload),
        default: "off",
        doc: "Replaces workers when a file that they have loaded changes, as SIGHUP does. For development.",
    },
    Setting {
        name: "public-address",
        group: Group::Serving,
        kind: ValueKind::Text(|config| &mut config.public_address),
        default: "",
        doc: "The name or address at which clients reach this particular server, if a load balancer is in front of \
              several. It is the answer to /qio/hostname.",
    },
    Setting {
        name: "origin",
        group: Group::Serving,
        kind: ValueKind::Origins(|config| &mut config.origin),
        default: "*",
        doc: "The web pages that browsers may connect from, over any protocol, by their Origin header. A request with \
              any other origin is answered with 403. A request without an Origin header is allowed: browsers send one \
              with every request by which a page of another site could connect. * allows all pages. Apps and \
              extensions have origins with schemes of their own, such as capacitor://localhost and \
              chrome-extension://ID. null and file:// are local files and sandboxed pages, whoever made them.",
    },
    Setting {
        name: "compression",
        group: Group::Serving,
        kind: ValueKind::Switch(|config| &mut config.compression),
        default: "off",
        doc: "Compresses WebSocket messages for clients that offer permessage-deflate, as browsers do. A broadcast is \
              compressed once for all subscribers of a shard, and connections take no more memory. Leave it off if one \
              message can contain a secret and text that an attacker chooses: its length would tell the attacker about \
              the secret (CRIME).",
    },
    Setting {
        name: "compression-min-bytes",
        group: Group::Serving,
        kind: ValueKind::Count {
            min: 1,
            max: 256 * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.compression_min_bytes,
        },
        default: "256",
        doc: "The length from which on a broadcast is compressed. Shorter ones hardly shrink. A message that compression does \
              not make shorter by a tenth is sent as it is.",
    },
    Setting {
        name: "compression-single-min-bytes",
        group: Group::Serving,
        kind: ValueKind::Count {
            min: 1,
            max: 256 * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.compression_single_min_bytes,
        },
        default: "1024",
        doc: "The length from which on a message for one client, such as an answer, is compressed. It is longer than \
              compression-min-bytes because the work is done for one client only.",
    },
    Setting {
        name: "tls-cert",
        group: Group::Tls,
        kind: ValueKind::Files(|config| &mut config.tls_cert),
        default: "",
        doc: "The files with the certificates of the server, in PEM: each has the server's own certificate first, and \
              those of its issuers after it, such as fullchain.pem of certbot. Clients get the first one that is for the \
              name that they ask for and whose kind of key they know; clients that ask for another name, or for none, get \
              the first of the list. The files are read again after SIGHUP, and when they change.",
    },
    Setting {
        name: "tls-key",
        group: Group::Tls,
        kind: ValueKind::Files(|config| &mut config.tls_key),
        default: "",
        doc: "The files with the private keys of tls-cert, in the same order, in PEM and without a passphrase. None means \
              that the key is in the file of its certificate.",
    },
    Setting {
        name: "tls-min-version",
        group: Group::Tls,
        kind: ValueKind::Choice {
            choices: &["1.2", "1.3"],
            set: |config, index| {
                config.tls_min_version = [TlsVersion::Tls12, TlsVersion::Tls13][index];
            },
        },
        default: "1.2",
        doc: "The oldest version of TLS that a client may use.",
    },
    Setting {
        name: "tls-client-ca",
        group: Group::Tls,
        kind: ValueKind::File(|config| &mut config.tls_client_ca),
        default: "",
        doc: "The file with the certificates of those who issue certificates to clients, in PEM. With it, clients are asked \
              for a certificate, and a certificate of anybody else is refused. It applies to all addresses that take TLS, \
              admin included.",
    },
    Setting {
        name: "tls-client-auth",
        group: Group::Tls,
        kind: ValueKind::Choice {
            choices: &["required", "optional"],
            set: |config, index| {
                config.tls_client_auth = [TlsClientAuth::Required, TlsClientAuth::Optional][index];
            },
        },
        default: "required",
        doc: "The treatment of clients that have no certificate, if tls-client-ca is set: required refuses them, optional \
              lets them connect.",
    },
    Setting {
        name: "tls-ticket-key-file",
        group: Group::Tls,
        kind: ValueKind::File(|config| &mut config.tls_ticket_key_file),
        default: "",
        doc: "The file with the secret from which the keys of session tickets are derived, so that clients can resume their \
              sessions after a restart of the server, or on another server with the same file. If it does not exist, the \
              server creates it, for its own user only. Whoever reads it can decrypt recorded TLS 1.2 connections, and \
              pretend to have a client's certificate. None means a secret that ends with the process.",
    },
    Setting {
        name: "auth",
        group: Group::Identity,
        kind: ValueKind::Choice {
            choices: &["off", "optional", "required"],
            set: |config, index| {
                config.auth = [AuthMode::Off, AuthMode::Optional, AuthMode::Required][index];
            },
        },
        default: "off",
        doc: "Clients authenticate with a token (/qio/auth, or an Authorization header). With optional they may; with required \
              they must, and until then every event other than /qio/auth, /qio/ping, /qio/hostname and answers to the server \
              is answered with 401. The keys that verify tokens are in [[auth-keys]].",
    },
    Setting {
        name: "auth-audience",
        group: Group::Identity,
        kind: ValueKind::Texts(|config| &mut config.auth_audience),
        default: "",
        doc: "The audiences that this server is. A token must be for one of them (its claim aud). None means that tokens \
              must not be for any: one that is made for another service is not accepted here.",
    },
    Setting {
        name: "auth-issuer",
        group: Group::Identity,
        kind: ValueKind::Texts(|config| &mut config.auth_issuer),
        default: "",
        doc: "The issuers of which a token must be from one (its claim iss), exactly as tokens have it. None means any.",
    },
    Setting {
        name: "auth-timeout",
        group: Group::Identity,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.auth_timeout },
        default: "10s",
        doc: "How long a client may take to authenticate if auth is required, before its connection is closed (1008).",
    },
    Setting {
        name: "auth-grace",
        group: Group::Identity,
        kind: ValueKind::Duration { min: NO_TIME, field: |config| &mut config.auth_grace },
        default: "25s",
        doc: "How long a client whose token has expired may take to send another one, before its connection is closed (1008).",
    },
    Setting {
        name: "auth-leeway",
        group: Group::Identity,
        kind: ValueKind::Duration { min: NO_TIME, field: |config| &mut config.auth_leeway },
        default: "5s",
        doc: "The time by which the clocks of the server and of those who sign tokens may differ: a token is accepted this \
              much before it is valid (nbf) and after it has expired (exp). Whole seconds count.",
    },
    Setting {
        name: "auth-cache-bytes-max",
        group: Group::Identity,
        kind: ValueKind::Count {
            min: 0,
            max: 64 * KI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.auth_cache_bytes_max,
        },
        default: "67108864",
        doc: "The memory in which each shard remembers the tokens that it has verified, so that clients that come back cost \
              less. A token takes about 350 bytes, more with more claims. The thread that verifies signatures for all \
              shards has as much.",
    },
    Setting {
        name: "app-headers",
        group: Group::Identity,
        kind: ValueKind::Headers(|config| &mut config.app_headers),
        default: "",
        doc: "The headers of the request that opens a WebSocket or an HTTP session that applications can read, such as \
              origin, cookie and user-agent. They are kept while the client is connected. Each takes its length and about \
              30 bytes; together at most 4096 bytes for a client.",
    },
    Setting {
        name: "log-level",
        group: Group::Log,
        kind: ValueKind::Choice {
            choices: &["error", "warn", "info", "debug", "trace"],
            set: |config, index| {
                config.log_level =
                    [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
                        [index];
            },
        },
        default: "info",
        doc: "The least severe level that is logged. The log goes to standard error.",
    },
    Setting {
        name: "log-format",
        group: Group::Log,
        kind: ValueKind::Choice {
            choices: &["text", "json"],
            set: |config, index| config.log_format = [LogFormat::Text, LogFormat::Json][index],
        },
        default: "text",
        doc: "The format of a log line: text for people, or json for one JSON object per line.",
    },
    Setting {
        name: "clients-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: 1,
            max: SHARDS_MAX * MI,
            power_of_two: false,
            unit: "connections",
            field: |config| &mut config.clients_max,
        },
        default: "1048576",
        doc: "The maximum number of connections and HTTP sessions of the whole server. A connection counts from the \
              moment it is accepted. One more is answered with 503 if it speaks HTTP, and closed otherwise.",
    },
    Setting {
        name: "trusted-proxies",
        group: Group::Limits,
        kind: ValueKind::Proxies(|config| &mut config.trusted_proxies),
        default: "",
        doc: "The proxies in front of the server: IP addresses, networks, and unix for whatever connects to a Unix \
              socket. A client behind them has the last address in X-Forwarded-For (or Forwarded) that is not a proxy's \
              own. This address is logged, and connections-per-address-max limits it. List only proxies that set the \
              header themselves, because a client could write any address into it otherwise. The headers of other peers \
              are ignored.",
    },
    Setting {
        name: "proxy-protocol",
        group: Group::Limits,
        kind: ValueKind::Proxies(|config| &mut config.proxy_protocol),
        default: "",
        doc: "The proxies that begin each connection with a header of the PROXY protocol, version 1 or 2: IP addresses, \
              networks, and unix. The client's address is the one in the header, for every protocol. A \
              connection from one of them without a valid header is closed, and so is a connection from elsewhere that \
              begins with one.",
    },
    Setting {
        name: "proxy-protocol-optional",
        group: Group::Limits,
        kind: ValueKind::Switch(|config| &mut config.proxy_protocol_optional),
        default: "off",
        doc: "Also serves connections of these proxies that have no such header: they are the proxy's own. For hosts that \
              run a proxy and other clients.",
    },
    Setting {
        name: "sessions-share",
        group: Group::Limits,
        kind: ValueKind::Percent(|config| &mut config.sessions_share),
        default: "75",
        doc: "The percentage of clients-max that HTTP sessions may take. One more session is answered with 503. A client \
              that polls or streams has a session and, most of the time, a connection. If all clients do, half of \
              clients-max is enough for their sessions; the rest of the default is for those between two requests. What \
              sessions cannot take is left to WebSockets and raw TCP whatever happens over HTTP.",
    },
    Setting {
        name: "connections-per-address-max",
        group: Group::Limits,
        kind: ValueKind::AutoCount {
            max: SHARDS_MAX * MI,
            unit: "connections",
            field: |config| &mut config.connections_per_address_max,
        },
        default: "auto",
        doc: "The maximum number of connections and HTTP sessions from one address; a /64 network of IPv6 counts as one. \
              One more is answered with 429 if it speaks HTTP, and closed otherwise. auto means a sixteenth of what the \
              server can hold (clients-max, or the places for connections that the limit on open files leaves it), but at \
              least 1024. 0 means no limit. Peers on Unix sockets and in trusted-proxies are not limited themselves.",
    },
    Setting {
        name: "message-bytes-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: 64,
            max: 256 * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.message_bytes_max,
        },
        default: "65536",
        doc: "The maximum size of a message from a client, all its fragments together. A longer message closes the \
              connection (1009).",
    },
    Setting {
        name: "http-head-bytes-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: KI,
            max: 256 * KI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.http_head_bytes_max,
        },
        default: "16384",
        doc: "The maximum size of the head of an HTTP request: its request line, headers and cookies. A larger head is \
              answered with 431. It takes memory only until it is complete.",
    },
    Setting {
        name: "outbox-bytes-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: KI,
            max: KI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.outbox_bytes_max,
        },
        default: "1048576",
        doc: "The maximum amount of output that waits for one client to read it. A client that exceeds the limit is \
              closed (1013). Each message counts with its bytes and with the memory that the server needs to keep it: 128 \
              bytes, unless it is a small answer, of which many are kept together.",
    },
    Setting {
        name: "outboxes-bytes-max",
        group: Group::Limits,
        kind: ValueKind::AutoCount {
            max: KI * KI * MI,
            unit: "bytes",
            field: |config| &mut config.outboxes_bytes_max,
        },
        default: "auto",
        doc: "The amount of output that may wait for all clients together, counted as for outbox-bytes-max and divided \
              equally among the shards. While a shard has more, a client that does not read is closed (1013) as soon as \
              32 KiB, or one larger message, wait for it. auto means a quarter of the memory that the server may use: \
              that of the machine, or the limit of its control group.",
    },
    Setting {
        name: "incomplete-bytes-max",
        group: Group::Limits,
        kind: ValueKind::AutoCount {
            max: KI * KI * MI,
            unit: "bytes",
            field: |config| &mut config.incomplete_bytes_max,
        },
        default: "auto",
        doc: "The memory that incomplete messages, heads and bodies of all connections may take together, and the requests of \
              HTTP sessions that arrived too early, divided equally among the shards. While a shard has more, a connection \
              whose own takes more than 20 KiB is closed as soon as more of it comes (1013; over HTTP, 503), and a session \
              may have 20 KiB of such requests (503). Events that wait for a token to be verified count too; beyond 20 KiB of a \
              client they are answered with 420. TLS handshakes that are not complete count too, but for the 20 KiB of \
              a connection only the bytes that its client has sent of one. auto means an eighth of the memory that the server may use, as for \
              outboxes-bytes-max.",
    },
    Setting {
        name: "clients-subs-total",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: 1,
            max: KI * MI,
            power_of_two: false,
            unit: "subscriptions",
            field: |config| &mut config.clients_subs_total,
        },
        default: "4194304",
        doc: "The maximum number of subscriptions of all clients together. One more is answered with 420.",
    },
    Setting {
        name: "clients-subs-pressure",
        group: Group::Limits,
        kind: ValueKind::Percent(|config| &mut config.clients_subs_pressure),
        default: "60",
        doc: "The percentage of clients-subs-total above which a client that already has clients-subs-min \
              subscriptions is answered with 420.",
    },
    Setting {
        name: "clients-subs-min",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: 0,
            max: KI * MI,
            power_of_two: false,
            unit: "subscriptions",
            field: |config| &mut config.clients_subs_min,
        },
        default: "128",
        doc: "The number of subscriptions that each client may have even above clients-subs-pressure.",
    },
    Setting {
        name: "clients-subs-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: 1,
            max: KI * MI,
            power_of_two: false,
            unit: "subscriptions",
            field: |config| &mut config.clients_subs_max,
        },
        default: "4096",
        doc: "The maximum number of subscriptions of one client. One more is answered with 420.",
    },
    Setting {
        name: "paths-bytes-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: MI,
            max: MI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.paths_bytes_max,
        },
        default: "1073741824",
        doc: "The maximum memory for the paths of all subscriptions: their text, and about 150 bytes on each shard. A path \
              counts once for each shard that has subscribers. Above clients-subs-pressure percent of it, only clients \
              with fewer than clients-subs-min subscriptions get new paths. One more is answered with 420.",
    },
    Setting {
        name: "history-bytes-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: 0,
            max: 64 * KI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.history_bytes_max,
        },
        default: "67108864",
        doc: "The memory in which each shard keeps the last events of paths, for rules with history. An event takes its data and \
              about 48 bytes, and a path about 300. When the memory is full, paths that were not used for long lose their events: \
              their clients are told that they may have missed some.",
    },
    Setting {
        name: "members-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: 0,
            max: MEMBERS_MAX,
            power_of_two: false,
            unit: "members",
            field: |config| &mut config.members_max,
        },
        default: "1000",
        doc: "The number of members of a path, for rules with members, above which clients are only told the number. Each member \
              with a list gets all of it in one message.",
    },
    Setting {
        name: "members-bytes-max",
        group: Group::Limits,
        kind: ValueKind::Count {
            min: 0,
            max: 64 * KI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.members_bytes_max,
        },
        default: "67108864",
        doc: "The memory in which each shard keeps the members of paths. A member takes about 130 bytes, its user and its \
              information, and a path about 500. When the memory is full, clients are only told the number of members of a path \
              that somebody joins.",
    },
    Setting {
        name: "clients-cb-max-age",
        group: Group::Limits,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.clients_cb_max_age },
        default: "15s",
        doc: "How long a client may take to answer a server callback before the callback is dropped.",
    },
    Setting {
        name: "members-linger",
        group: Group::Times,
        kind: ValueKind::Duration { min: NO_TIME, field: |config| &mut config.members_linger },
        default: "15s",
        doc: "How long a user whose connection has ended stays a member of its paths. If the user is back within this time, \
              nobody is told. Clients without a user leave at once.",
    },
    Setting {
        name: "timeout",
        group: Group::Times,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.timeout },
        default: "10s",
        doc: "How long a peer may take to complete its handshake, or a message that it has begun, before its \
              connection is closed (1008). Time in which the server could not read what the peer has sent does not count.",
    },
    Setting {
        name: "close-timeout",
        group: Group::Times,
        kind: ValueKind::Duration { min: NO_TIME, field: |config| &mut config.close_timeout },
        default: "5s",
        doc: "How long a peer may take to complete the closing handshake before its connection is dropped.",
    },
    Setting {
        name: "send-timeout",
        group: Group::Times,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.send_timeout },
        default: "30s",
        doc: "How long a peer may read nothing of what it is sent before its connection is closed (1013), whatever it \
              sends meanwhile. A peer that reads slowly is not closed. 30s is longer than networks lose packets or \
              phones change cells, and short enough that output is not held for peers that never read it.",
    },
    Setting {
        name: "http-idle-timeout",
        group: Group::Times,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.http_idle_timeout },
        default: "75s",
        doc: "How long an HTTP connection may be idle after a response before it is closed. A proxy in front must close \
              its idle connections to the server earlier than this; most of them do after 60s. Otherwise it may send a \
              request at the moment at which the server closes, and the request fails.",
    },
    Setting {
        name: "heartbeat-interval",
        group: Group::Times,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.heartbeat_interval },
        default: "50s",
        doc: "A client that was sent nothing for this long is sent a heartbeat, never later. Proxies in between must wait \
              longer for data; most of them wait for 60s. Clients reconnect if they receive nothing for 65s.",
    },
    Setting {
        name: "heartbeat-slack",
        group: Group::Times,
        kind: ValueKind::Duration { min: NO_TIME, field: |config| &mut config.heartbeat_slack },
        default: "10s",
        doc: "How much earlier than heartbeat-interval a heartbeat may be sent. The heartbeats of clients that connected \
              at the same time are spread over this time.",
    },
    Setting {
        name: "poll-interval",
        group: Group::Times,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.poll_interval },
        default: "50s",
        doc: "The longest time that an HTTP poll is held. It is then answered with an empty body. Proxies in between \
              must wait longer than this; most of them wait for 60s.",
    },
    Setting {
        name: "poll-slack",
        group: Group::Times,
        kind: ValueKind::Duration { min: NO_TIME, field: |config| &mut config.poll_slack },
        default: "5s",
        doc: "How much earlier than poll-interval a poll may be answered, which keeps clients from returning all at \
              once.",
    },
    Setting {
        name: "heartbeat-challenge",
        group: Group::Times,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.heartbeat_challenge },
        default: "15m",
        doc: "A client from which nothing was received for this long is sent a heartbeat that it must answer.",
    },
    Setting {
        name: "heartbeat-timeout",
        group: Group::Times,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.heartbeat_timeout },
        default: "16m",
        doc: "A client from which nothing was received for this long is closed (1008).",
    },
    Setting {
        name: "shutdown-timeout",
        group: Group::Times,
        kind: ValueKind::Duration { min: NO_TIME, field: |config| &mut config.shutdown_timeout },
        default: "10s",
        doc: "How long an orderly shutdown may take: clients are informed, queued output is sent, applications stop. \
              Anything left after that is dropped.",
    },
    Setting {
        name: "worker-start-timeout",
        group: Group::Workers,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.worker_start_timeout },
        default: "30s",
        doc: "How long a worker may take to load its application and become ready.",
    },
    Setting {
        name: "worker-timeout",
        group: Group::Workers,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.worker_timeout },
        default: "30s",
        doc: "A worker that does not answer a ping within this time is considered hung: it is killed, and another one \
              is started. This is also the interval between pings.",
    },
    Setting {
        name: "worker-request-timeout",
        group: Group::Workers,
        kind: ValueKind::Duration { min: ONE_MS, field: |config| &mut config.worker_request_timeout },
        default: "60s",
        doc: "How long a worker may take to answer an event before its client gets a 500 answer.",
    },
    Setting {
        name: "worker-stop-timeout",
        group: Group::Workers,
        kind: ValueKind::Duration { min: NO_TIME, field: |config| &mut config.worker_stop_timeout },
        default: "30s",
        doc: "How long a worker may take to end when the server stops, before it is killed. A worker that is being \
              replaced has this time plus worker-request-timeout (or clients-cb-max-age, if that is longer).",
    },
    Setting {
        name: "worker-requests-max",
        group: Group::Workers,
        kind: ValueKind::Count {
            min: 1,
            max: 512 * KI,
            power_of_two: false,
            unit: "events",
            field: |config| &mut config.worker_requests_max,
        },
        default: "16384",
        doc: "The maximum number of events from one shard that a worker may be handling at once. One more is answered \
              with 420.",
    },
    Setting {
        name: "worker-outbox-bytes-max",
        group: Group::Workers,
        kind: ValueKind::Count {
            min: KI,
            max: KI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.worker_outbox_bytes_max,
        },
        default: "8388608",
        doc: "The maximum amount of output from one shard that a worker has not read yet. At this limit events are \
              answered with 420.",
    },
    Setting {
        name: "receive-buffers",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 2,
            max: 32 * KI,
            power_of_two: true,
            unit: "buffers",
            field: |config| &mut config.receive_buffers,
        },
        default: "512",
        doc: "The number of buffers of each shard that the kernel receives into. All connections of the shard share \
              them. If buffers_exhausted grows often, there are too few.",
    },
    Setting {
        name: "receive-buffer-bytes",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 64,
            max: MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.receive_buffer_bytes,
        },
        default: "4096",
        doc: "The size of one receive buffer. A message that fits into one is decoded in place.",
    },
    Setting {
        name: "sends-per-turn-max",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 1,
            max: 32 * KI,
            power_of_two: false,
            unit: "sends",
            field: |config| &mut config.sends_per_turn_max,
        },
        default: "1024",
        doc: "The maximum number of sends that a shard submits in one turn. The output of other clients follows in the \
              next turn. The limit bounds how long received data waits while a large broadcast is sent.",
    },
    Setting {
        name: "listen-backlog",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 1,
            max: 65_535,
            power_of_two: false,
            unit: "connections",
            field: |config| &mut config.listen_backlog,
        },
        default: "4096",
        doc: "The maximum number of connections that the kernel keeps for each listener until they are accepted. \
              net.core.somaxconn limits it too.",
    },
    Setting {
        name: "accepts-in-flight",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 1,
            max: 4096,
            power_of_two: false,
            unit: "accepts",
            field: |config| &mut config.accepts_in_flight,
        },
        default: "64",
        doc: "The maximum number of accept operations that each listener keeps in a shard's ring. It limits the \
              connections that can be accepted in one turn. All listeners of a shard together reserve at most a \
              sixteenth of its places for connections, but at least one each.",
    },
    Setting {
        name: "mesh-ring-messages",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 8,
            max: MI,
            power_of_two: true,
            unit: "messages",
            field: |config| &mut config.mesh_ring_messages,
        },
        default: "1024",
        doc: "The maximum number of messages on their way from one shard to another. There is a queue for each ordered \
              pair of shards. It takes memory only once it is used, grows by doubling, and is given back when it is \
              hardly used.",
    },
    Setting {
        name: "mesh-overflow-bytes-max",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 64 * KI,
            max: KI * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.mesh_overflow_bytes_max,
        },
        default: "16777216",
        doc: "The maximum cost of the broadcasts and events that wait for one other shard when such a queue is full: \
              data, and about 300 bytes for each. A shard stops reading from connections, workers and applications' threads \
              long before they have caused as much. If one handler or timer causes more at once, the rest is refused.",
    },
    Setting {
        name: "inbox-messages-max",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 1,
            max: 16 * MI,
            power_of_two: false,
            unit: "messages",
            field: |config| &mut config.inbox_messages_max,
        },
        default: "8192",
        doc: "The maximum number of commands from applications' own threads that wait for one shard. One more is \
              refused, and the application receives an error.",
    },
    Setting {
        name: "api-body-bytes-max",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: KI,
            max: 256 * MI,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.api_body_bytes_max,
        },
        default: "4Mi",
        doc: "The maximum size of the body of a request to the server API. A larger one is answered 413.",
    },
    Setting {
        name: "api-bytes-max",
        group: Group::Sizes,
        kind: ValueKind::Count {
            min: 64 * KI,
            max: 1 << 40,
            power_of_two: false,
            unit: "bytes",
            field: |config| &mut config.api_bytes_max,
        },
        default: "64Mi",
        doc: "The maximum memory of all requests to the server API that the shards have not carried out yet. A request that \
              finds no room is answered 503, and nothing of it is done.",
    },
    Setting {
        name: "clock",
        group: Group::Tests,
        kind: ValueKind::Choice {
            choices: &["system", "manual"],
            set: |config, index| config.clock = [ClockKind::System, ClockKind::Manual][index],
        },
        default: "system",
        doc: "The time source of the timers. manual is for tests: time stands still until POST /clock?advance=MS on \
              the admin endpoint moves it.",
    },
];

/// A required order of two settings.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) lesser: &'static str,
    pub(super) greater: &'static str,
    /// Allow equal values.
    pub(super) or_equal: bool,
    pub(super) holds: fn(&Config) -> bool,
    /// The consequence of a violation, as the end of the error message.
    pub(super) consequence: &'static str,
}

/// All required orders.
pub(super) static RELATIONS: &[Relation] = &[
    Relation {
        lesser: "heartbeat-slack",
        greater: "heartbeat-interval",
        or_equal: false,
        holds: |config| config.heartbeat_slack < config.heartbeat_interval,
        consequence: "heartbeats would be sent without a pause",
    },
    Relation {
        lesser: "poll-slack",
        greater: "poll-interval",
        or_equal: false,
        holds: |config| config.poll_slack < config.poll_interval,
        consequence: "polls would be answered at once",
    },
    Relation {
        lesser: "heartbeat-challenge",
        greater: "heartbeat-timeout",
        or_equal: false,
        holds: |config| config.heartbeat_challenge < config.heartbeat_timeout,
        consequence: "a silent client would be closed without having been challenged",
    },
    Relation {
        lesser: "message-bytes-max",
        greater: "outbox-bytes-max",
        or_equal: false,
        holds: |config| config.message_bytes_max < config.outbox_bytes_max,
        consequence: "a message that is echoed or broadcast would close the clients that receive it",
    },
    Relation {
        lesser: "clients-subs-min",
        greater: "clients-subs-total",
        or_equal: true,
        holds: |config| config.clients_subs_min <= config.clients_subs_total,
        consequence: "no client could have the subscriptions that each is granted",
    },
    Relation {
        lesser: "clients-subs-min",
        greater: "clients-subs-max",
        or_equal: true,
        holds: |config| config.clients_subs_min <= config.clients_subs_max,
        consequence: "no client could have the subscriptions that each is granted",
    },
];

impl ValueKind {
    /// Returns whether the value is a list: the flag may be repeated, and commas separate entries.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(
            self,
            ValueKind::Addresses(_)
                | ValueKind::Apps(_)
                | ValueKind::Files(_)
                | ValueKind::Hosts(_)
                | ValueKind::Texts(_)
                | ValueKind::Headers(_)
                | ValueKind::Proxies(_)
                | ValueKind::Origins(_)
        )
    }

    /// Returns whether a file may have the value as a number, without quotes.
    #[must_use]
    pub fn takes_numbers(&self) -> bool {
        matches!(
            self,
            ValueKind::Count { .. }
                | ValueKind::AutoCount { .. }
                | ValueKind::Percent(_)
                | ValueKind::Shards(_)
        )
    }

    /// Describes the allowed values, as the end of a sentence.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            ValueKind::Count { min, max, power_of_two, unit, .. } => {
                let power = if *power_of_two { ", a power of two" } else { "" };
                format!("{min} to {max} {unit}{power}")
            }
            ValueKind::FileMode(_) => "0000 to 0777".into(),
            ValueKind::AutoCount { max, unit, .. } => format!("auto, or 0 to {max} {unit}"),
            ValueKind::Percent(_) => "1 to 100 percent".into(),
            ValueKind::Duration { min, .. } => {
                format!("{} to {}", duration_text(*min), duration_text(DURATION_MAX))
            }
            ValueKind::Shards(_) => format!("auto, or 1 to {SHARDS_MAX}"),
            ValueKind::Addresses(_) => {
                "one or more of ip:port, [ip6]:port, name:port and unix:/path, each after tls://, plain://, either:// or \
                 nothing"
                    .into()
            }
            ValueKind::AddressOrOff { .. } => {
                "ip:port, [ip6]:port or name:port, after tls://, plain:// or nothing; or off".into()
            }
            ValueKind::Apps(_) => "names and files".into(),
            ValueKind::Hosts(_) => "names of hosts".into(),
            ValueKind::Texts(_) => "texts without spaces".into(),
            ValueKind::Headers(_) => "names of headers".into(),
            ValueKind::Proxies(_) => "IP addresses, networks such as 10.0.0.0/8, and unix".into(),
            ValueKind::Origins(_) => "*, or one or more of http://host[:port], https://host[:port], scheme://host, file:// and null".into(),
            ValueKind::Text(_) => "a text without spaces, or empty".into(),
            ValueKind::Switch(_) => "on or off".into(),
            ValueKind::Program(_) => "the name or path of a program".into(),
            ValueKind::Files(_) => "paths of files".into(),
            ValueKind::File(_) => "the path of a file, or empty".into(),
            ValueKind::Directory(_) => "the path of a directory, or empty".into(),
            ValueKind::Choice { choices, .. } => one_of(choices),
        }
    }

    /// Describes the format of the value, unless it is obvious. Help and docs describe it once, errors each time.
    #[must_use]
    pub fn format(&self) -> Option<&'static str> {
        match self {
            ValueKind::Count { power_of_two: false, .. } => Some("optionally followed by k, M, Ki, Mi or Gi"),
            ValueKind::Duration { .. } => Some("a whole number with a unit, such as 500ms, 10s, 15m or 1h"),
            ValueKind::Addresses(_)
            | ValueKind::Apps(_)
            | ValueKind::Files(_)
            | ValueKind::Hosts(_)
            | ValueKind::Texts(_)
            | ValueKind::Headers(_)
            | ValueKind::Proxies(_)
            | ValueKind::Origins(_) => Some("separated by commas"),
            _ => None,
        }
    }

    /// Returns the placeholder of the value in the help.
    #[must_use]
    pub fn placeholder(&self) -> String {
        match self {
            ValueKind::Count { unit: "bytes", .. } => "BYTES".into(),
            ValueKind::Count { .. } => "COUNT".into(),
            ValueKind::FileMode(_) => "MODE".into(),
            ValueKind::Percent(_) => "PERCENT".into(),
            ValueKind::Duration { .. } => "DURATION".into(),
            ValueKind::Shards(_) | ValueKind::AutoCount { .. } => "auto|COUNT".into(),
            ValueKind::Addresses(_) => "ADDRESS,...".into(),
            ValueKind::AddressOrOff { .. } => "ADDRESS|off".into(),
            ValueKind::Apps(_) => "NAME|FILE,...".into(),
            ValueKind::Hosts(_) | ValueKind::Headers(_) => "NAME,...".into(),
            ValueKind::Texts(_) => "TEXT,...".into(),
            ValueKind::Proxies(_) => "NETWORK|unix,...".into(),
            ValueKind::Origins(_) => "*|ORIGIN,...".into(),
            ValueKind::Text(_) => "TEXT".into(),
            ValueKind::Switch(_) => "[=off]".into(),
            ValueKind::Program(_) => "PROGRAM".into(),
            ValueKind::Files(_) => "FILE,...".into(),
            ValueKind::File(_) => "FILE".into(),
            ValueKind::Directory(_) => "DIRECTORY".into(),
            ValueKind::Choice { choices, .. } => choices.join("|"),
        }
    }
}

/// Joins the words as `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
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
            assert!(seen.insert(setting.name), "{} appears twice", setting.name);
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
            assert!((relation.holds)(&Config::default()), "{}", relation.consequence);
        }
    }
}
