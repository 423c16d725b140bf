//! Every bound that is no setting: its name, its unit, and the reason for its size. Settings are in `config`.

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
/// which clients never send. One more is answered 429. With their responses they take less than 100 KiB.
pub const HTTP_REQUESTS_UNANSWERED_MAX: usize = 256;

/// Requests of one HTTP session that wait for one before them (`seq`): more than browsers have connections to a host.
/// One more is answered 429.
pub const HTTP_EARLY_REQUESTS_MAX: usize = 8;

/// Bytes of the longest event text that has no data: a path, `:`, 20 digits, `=`.
pub const EVENT_HEAD_BYTES_MAX: usize = PATH_BYTES_MAX + 22;

/// Bytes of a cleaned path. Subscriptions keep their path, so a peer decides how much memory a path takes.
pub const PATH_BYTES_MAX: usize = 1024;
