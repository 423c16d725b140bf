//! Every bound that is no setting: its name, its unit, and the reason for its size. Settings are in `config`.

use std::time::Duration;

/// Shards of one server, at most. A path keeps the shards that have subscribers as the bits of a `u128`.
pub const SHARDS_MAX: usize = 128;

/// Open server callbacks of one client (protocol.md, section 2): a fifth evicts the oldest.
pub const CLIENT_CALLBACKS_MAX: usize = 4;

/// Bytes of the head of an HTTP request, its empty line included: what browsers send with many cookies fits; more is
/// answered 431. The head of an unfinished request takes no more memory than this.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Header lines of an HTTP request: they are parsed into an array on the stack. More are answered 431.
pub const HTTP_HEADERS_MAX: usize = 64;

/// Empty lines before an HTTP request: some peers send one behind a body. One more is answered 400.
pub const HTTP_EMPTY_LINES_MAX: u8 = 4;

/// HTTP requests of one connection that are not answered: one a request that the peer does not wait for, most of
/// which clients never send. One more is answered 429. They take less than 100 KiB; the responses among them that wait
/// for earlier ones count for `outbox-bytes-max`.
pub const HTTP_REQUESTS_UNANSWERED_MAX: usize = 256;

/// Requests of one HTTP session that wait for one before them (`seq`): more than browsers have connections to a host.
/// One more is answered 429.
pub const HTTP_EARLY_REQUESTS_MAX: usize = 8;

/// Bytes of the longest event text that has no data: a path, `:`, 20 digits, `=`.
pub const EVENT_HEAD_BYTES_MAX: usize = PATH_BYTES_MAX + 22;

/// Bytes of a cleaned path. Subscriptions keep their path, so a peer decides how much memory a path takes.
pub const PATH_BYTES_MAX: usize = 1024;

/// Connections of the proxy of `quickio clienttest`, each with two threads: a suite's, not the public's. One more is
/// answered 503.
pub const MANGLER_CONNECTIONS_MAX: usize = 256;

/// Requests of one of them that wait for their responses: while there are so many, no more are read.
pub const MANGLER_PIPELINE_MAX: usize = 1024;

/// Bytes that such a connection holds in each direction, beyond a head: what was read and is not written yet.
pub const MANGLER_BUFFER_BYTES: usize = 16 * 1024;

/// How long it may take to connect to the server, which is the same process.
pub const MANGLER_CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How long a client of the proxy may keep its end open after the server's: as long as the server itself lets it by
/// default (`close-timeout`).
pub const MANGLER_LINGER: Duration = Duration::from_secs(5);

/// How long a client of the proxy may read nothing of what waits for it, before its connection is reset: as long as other
/// proxies let it. While it is held up the server's end goes unnoticed.
pub const MANGLER_STALL: Duration = Duration::from_secs(60);

/// After so much silence the kernel asks whether a peer is still there; it asks `MANGLER_KEEPALIVE_PROBES` times.
pub const MANGLER_KEEPALIVE: Duration = Duration::from_secs(60);

/// Questions without an answer, ten seconds apart, after which a peer is taken for gone.
pub const MANGLER_KEEPALIVE_PROBES: u32 = 3;

/// Shared objects that are loaded as applications: each takes a place in a table that handles are looked up in.
pub const C_APPLICATIONS_MAX: usize = 64;

/// Open promises of all applications in C: 4 Mi of them take half a GiB, and clients have given up long before. One more is
/// refused (`QIO_FULL`), and its event answered 500.
pub const C_PROMISES_MAX: usize = 4 << 20;

/// Paths that a thread keeps parsed, since applications in C and workers name them by their text: a power of two.
pub const PATHS_KEPT: usize = 64;

/// Bytes of one line that an application in C logs; the rest is cut off.
pub const C_LOG_BYTES_MAX: usize = 8 * 1024;

/// How long an application in C is not stopped because a shard may still run it.
pub const C_STOP_WAIT: Duration = Duration::from_secs(1);

/// Workers of all applications together: each is a process, and has a link to every shard.
pub const WORKERS_MAX: usize = 256;

/// Bytes of a frame of a worker's, its head among them: more than any client may be sent. A worker that announces more is
/// killed.
pub const WORKER_FRAME_BYTES_MAX: usize = 16 << 20;

/// Events that a worker registers; more are refused when it gets ready.
pub const WORKER_EVENTS_MAX: usize = 4096;

/// Timers that are set on one link. One more is refused.
pub const WORKER_TIMERS_MAX: usize = 65_536;

/// Server callbacks that one link has offered and that are open. One more is dropped at once, and its worker told.
pub const WORKER_CALLBACKS_MAX: usize = 65_536;

/// Bytes of one line of the control socket: a manifest of all events that are allowed fits. A worker whose line is longer is
/// killed.
pub const WORKER_LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes of one line that a worker prints; the rest is cut off.
pub const WORKER_LOG_BYTES_MAX: usize = 8 * 1024;

/// Lines that a worker may print at once, and each second after that. More are dropped and counted: one that floods must not
/// push out what others log.
pub const WORKER_LOG_LINES_MAX: u32 = 1000;

/// The last lines that a worker printed, which are logged again with its crash.
pub const WORKER_LAST_LINES: usize = 20;

/// After which time a worker that crashed is started again, at first; each time it is doubled.
pub const WORKER_BACKOFF: Duration = Duration::from_millis(100);

/// The longest time after which it is.
pub const WORKER_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A worker that has served for so long begins again with `WORKER_BACKOFF`.
pub const WORKER_BACKOFF_FORGET: Duration = Duration::from_secs(10);

/// How long a worker that has let go of the server (it ended a link or its control socket, or said that it failed) may take
/// to end. One that goes on is killed.
pub const WORKER_END_WAIT: Duration = Duration::from_secs(1);

/// How often the files of workers are looked at, where `reload` is on.
pub const WORKER_WATCH: Duration = Duration::from_millis(250);
