//! Limits that are not settings, each with its unit and the reason for its size. Settings are in `config`.

use std::time::Duration;

/// The maximum number of shards of one server. A path stores the shards that have subscribers as the bits of a `u128`.
pub const SHARDS_MAX: usize = 128;

/// The maximum number of open server callbacks of one client (protocol.md, section 2). A fifth evicts the oldest.
pub const CLIENT_CALLBACKS_MAX: usize = 4;

/// The maximum number of connections over a limit that a shard keeps for a moment, to refuse them in their protocol. Each
/// has a place of the ring, and a record of its own although `clients-max` may be reached. The rest is closed at once.
pub const REFUSALS_MAX: usize = 64;

/// The maximum number of them from one address, so that a host that connects in a loop does not take all of them.
pub const REFUSALS_PER_ADDRESS_MAX: usize = 8;

/// The maximum number of them from peers that have no address of their own: Unix sockets and trusted proxies, which carry
/// many clients.
pub const REFUSALS_UNCOUNTED_MAX: usize = 48;

/// How long such a connection is kept at most, in each of two stages: until its request has come, and then until its peer
/// has closed. A request usually comes with the connection; a slow network takes a second.
pub const REFUSAL_WAIT: Duration = Duration::from_secs(2);

/// The maximum length of a header of the PROXY protocol, in bytes. The addresses take 52 bytes, and what proxies add about
/// a connection that has used TLS (names, a certificate's subject) a few hundred. A longer one is refused.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// The time without input after which a connection becomes dormant. It is examined with each heartbeat. A connection that
/// sends something this seldom takes a few microseconds more each time.
pub const DORMANT_AFTER: Duration = Duration::from_secs(30);

/// The maximum number of TLS handshakes that a shard has begun and that are not complete. Each takes about
/// `TLS_HANDSHAKE_BYTES`. A client needs one round trip to complete its own, so that even clients of a slow mobile network
/// leave room for thousands in each second. Beyond it, the one that began first ends.
pub const TLS_HANDSHAKES_MAX: usize = 8192;

/// The time of its core, in nanoseconds, that a shard spends on TLS handshakes in one turn. A signature that is not expected
/// to fit waits, unless it is the first one of the turn: one with a long RSA key takes longer. Everybody else on
/// the shard waits this much longer while handshakes come faster than they can be made.
pub const TLS_HANDSHAKES_TURN_NS: u64 = 1_000_000;

/// The same for a turn in which the kernel has brought as many events as it brings at once: one or two handshakes. Others'
/// messages may be among those that it has not brought yet, and would wait for the full time in each of these turns.
pub const TLS_HANDSHAKES_BUSY_TURN_NS: u64 = 100_000;

/// The bytes that are kept of a client whose TLS handshake waits for its share of a turn: a client sends little before the
/// handshake is complete, and what it sends behind its last message may come in the same packets. The handshake of a client
/// that has sent more does not wait any longer, and is refused if it has not begun.
pub const TLS_HANDSHAKE_INPUT_BYTES_MAX: usize = 64 * 1024;

/// The plaintext, in bytes, after which the output of a TLS connection is sent in a further send: sealing takes the time of
/// the shard, unlike a plain send, whose bytes the kernel copies. A frame is not divided.
pub const TLS_SEND_BYTES: usize = 64 * 1024;

/// The maximum number of origins in the setting `origin`: a request that waits has the number of one in two bytes.
pub const ORIGINS_MAX: usize = 1 << 16;

/// The maximum number of header lines of an HTTP request, which are parsed into an array on the stack. A browser sends
/// about 20, and each proxy adds some; other servers allow 100 too. More are answered 431.
pub const HTTP_HEADERS_MAX: usize = 100;

/// The maximum number of bytes of a chunked body that are not data, in addition to one for each byte of data: sizes,
/// extensions, line ends and trailers. A chunk costs at least five such bytes; most clients send chunks of a hundred
/// bytes and more. More are answered 400. They take time to decode, but no memory.
pub const HTTP_CHUNK_OVERHEAD_BYTES_MAX: usize = 16 * 1024;

/// The maximum total length of the names of the headers that a page may ask to send, in bytes (Fetch, 4.8). They are
/// repeated in the response. If there are more, the response allows `Content-Type` only.
pub const HTTP_PREFLIGHT_BYTES_MAX: usize = 1024;

/// The maximum number of empty lines before an HTTP request: some peers send one after a body. One more is answered
/// 400.
pub const HTTP_EMPTY_LINES_MAX: u8 = 4;

/// The maximum number of HTTP sessions that one connection has created and that had no second request yet. A connection of
/// a browser has one. One of a proxy that is not in `trusted-proxies` carries many clients, and proxies prefer the
/// connection that was used last: if each client sends its second request within 2 seconds, as all client libraries do,
/// 128 clients may come over it in each second. One more session is answered 429. The number is divided among the shards.
pub const SESSIONS_UNUSED_MAX: usize = 256;

/// The least number of these sessions on each shard, because their sids choose their shards at random.
pub const SESSIONS_UNUSED_OF_SHARD_MIN: usize = 16;

/// How long a session may be without a second request under pressure, instead of `timeout`: while more than half of what
/// its connection, its address or all sessions may have is taken. Old clients pause for up to 2 seconds after a response;
/// the other 2 seconds are for the response and the next request on a slow mobile network, one lost packet included.
pub const SESSION_FIRST_WAIT: Duration = Duration::from_secs(4);

/// How long a session takes requests after its stream was broken off, if the client has asked for it. A browser breaks off
/// the stream of a page that is left, and sends the last events at the same time, in requests that outlive the page. They
/// come on other connections, which may have to be opened first.
pub const STREAM_LINGER: Duration = Duration::from_secs(2);

/// The maximum number of unanswered HTTP requests of one connection. There is more than one only if the peer sends
/// requests without waiting for responses, which most clients never do. One more is answered 429. The requests take
/// less than 100 KiB; responses that wait for earlier ones count towards `outbox-bytes-max`.
pub const HTTP_REQUESTS_UNANSWERED_MAX: usize = 256;

/// The maximum number of requests of one HTTP session that wait for an earlier one (`seq`): more than the number of
/// connections that browsers open to a host. One more is answered 429. Their memory counts towards `incomplete-bytes-max`.
pub const HTTP_EARLY_REQUESTS_MAX: usize = 8;

/// The output, in bytes, that the kernel holds for a client beyond what its peer has room for (`TCP_NOTSENT_LOWAT`). The
/// kernel's memory for all sockets of the machine is limited (`tcp_mem`), and without this limit a thousand peers that
/// do not read could use it up, at up to 4 MiB each: all other connections would then wait and lose packets. What the
/// kernel does not take waits in the outbox, where it is counted.
pub const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// The output, in bytes, that a client may leave unread even while all outboxes together are full: more than a client
/// that reads has at any time. One larger message is allowed too.
pub const OUTBOX_BYTES_MIN: usize = 32 * 1024;

/// The memory, in bytes, that the incomplete message of a connection, or the early requests of an HTTP session, may always
/// take, even while those of all together have reached their limit: an HTTP head of the default maximum size, and most
/// messages. Of a TLS handshake, only what the client has sent counts for this limit: the rest is not its choice.
pub const INCOMPLETE_BYTES_MIN: usize = 20 * 1024;

/// The input, in bytes, for which the peer of a closing connection loses a millisecond of its `close-timeout`. The server
/// reads on to find the peer's Close, and because closing a socket with unread input would take from the peer what it has
/// not read yet. In 5 s a peer may send 20 MiB, twice as much as the sockets of both sides usually hold; a peer that never
/// stops has that much twice.
pub const CLOSING_BYTES_PER_MS: usize = 4096;

/// The size in bytes of the longest event text without data: a path, `:`, 20 digits, `=`.
pub const EVENT_HEAD_BYTES_MAX: usize = PATH_BYTES_MAX + 22;

/// The maximum size of a cleaned path, in bytes. Subscriptions store their path, which means that a peer decides how
/// much memory a path takes.
pub const PATH_BYTES_MAX: usize = 1024;

/// The maximum number of connections of the admin endpoint. Monitoring opens a few; the rest is for idle connections that
/// somebody forgot. One more is answered 503. Each takes a descriptor, and about 12 KiB while it is served.
pub const ADMIN_CONNECTIONS_MAX: usize = 1024;

/// The maximum number of clients in `/clients`: more do not help an operator.
pub const CLIENTS_LISTED_MAX: usize = 100;

/// The maximum number of paths in `/paths/busiest`.
pub const PATHS_LISTED_MAX: usize = 100;

/// The maximum number of paths that `/clients/ID` lists of one client, which may have a million.
pub const CLIENT_PATHS_LISTED_MAX: usize = 100;

/// The number of slots that a shard examines in one turn for `/clients`, which takes about 0.1 ms.
pub const SLOTS_INSPECTED_PER_TURN: u32 = 8192;

/// The number of paths whose broadcasts a shard counts while somebody looks at the busiest ones. A path that has more than
/// this share of all broadcasts is always among them.
pub const PATHS_COUNTED_MAX: usize = 256;

/// The time after which a shard stops to count the broadcasts to paths if nobody has asked for the busiest ones.
pub const PATHS_COUNTED_FOR: Duration = Duration::from_secs(30);

/// The age up to which an answer about all clients or paths is given again, so that many open pages cost as much as one.
pub const INSPECTION_REUSED_FOR: Duration = Duration::from_secs(1);

/// The maximum number of bytes of a request's credentials for the admin endpoint, in Base64: a user name and a password.
pub const ADMIN_CREDENTIALS_BYTES_MAX: usize = 1024;

/// The minimum length of the password of the admin endpoint, in bytes. With [`ADMIN_FAILURE_PAUSE`], an address that
/// guesses one made of random letters and digits needs more than a billion years.
pub const ADMIN_PASSWORD_BYTES_MIN: usize = 12;

/// The maximum length of the password of the admin endpoint, in bytes.
pub const ADMIN_PASSWORD_BYTES_MAX: usize = 128;

/// The maximum number of wrong passwords from one address (IPv6: one network of 64 bits) before it has to wait. People
/// mistype a few times.
pub const ADMIN_FAILURES_MAX: u32 = 10;

/// The time after which an address may try one password more.
pub const ADMIN_FAILURE_PAUSE: Duration = Duration::from_secs(6);

/// The maximum number of addresses whose wrong passwords are remembered. If there are more, the one that failed longest
/// ago is forgotten.
pub const ADMIN_FAILED_ADDRESSES_MAX: usize = 4096;

/// The maximum number of connections of the proxy of `quickio clienttest`, which is for test suites, not for the public.
/// One more is answered 503.
pub const MANGLER_CONNECTIONS_MAX: usize = 256;

/// The maximum size of the head of a request or a response that passes through the proxy, in bytes: the default of the
/// server itself (`http-head-bytes-max`). A larger one is refused.
pub const MANGLER_HEAD_BYTES_MAX: usize = 16 * 1024;

/// The maximum number of requests of one such connection that wait for their responses. At this limit no more are read.
pub const MANGLER_PIPELINE_MAX: usize = 1024;

/// The maximum number of bytes beyond a head that such a connection holds in each direction: bytes that were read and
/// are not written yet.
pub const MANGLER_BUFFER_BYTES: usize = 16 * 1024;

/// How long connecting to the server may take, which is the same process.
pub const MANGLER_CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How long a client of the proxy may keep its end open after the server has closed its own: as long as the server
/// itself allows by default (`close-timeout`).
pub const MANGLER_LINGER: Duration = Duration::from_secs(5);

/// How long a client of the proxy may read nothing while output waits for it, before its connection is reset: as long
/// as other proxies allow. During that time the proxy does not notice if the server ends the connection.
pub const MANGLER_STALL: Duration = Duration::from_secs(60);

/// How long a peer may be silent before the kernel starts to send keep-alive probes, `MANGLER_KEEPALIVE_PROBES` of
/// them.
pub const MANGLER_KEEPALIVE: Duration = Duration::from_secs(60);

/// The number of unanswered keep-alive probes, ten seconds apart, after which a peer is considered disconnected.
pub const MANGLER_KEEPALIVE_PROBES: u32 = 3;

/// The number of bytes of messages that a shard compresses in one turn (permessage-deflate). They take about 3 ms. Further
/// messages of the turn are sent as they are, as are longer ones: peers that cause many large messages must not stall the
/// shard.
pub const DEFLATED_BYTES_PER_TURN_MAX: usize = 1 << 20;

/// The maximum number of shared objects that are loaded as applications. Each takes a slot in a table of handles.
pub const C_APPLICATIONS_MAX: usize = 64;

/// The maximum number of open promises of all applications in C. 4 Mi of them take half a GiB, and clients have given
/// up long before. One more is refused (`QIO_FULL`), and its event is answered 420.
pub const C_PROMISES_MAX: usize = 4 << 20;

/// The number of open promises that a client may always have, unless only the last quarter of `C_PROMISES_MAX` is free.
/// Above it, a client has a share of what is free, as with workers: no client may keep the others out.
pub const C_CLIENT_PROMISES_MIN: usize = 16;

/// The number of clients for which a thread keeps the counts of their promises before it looks for those that have none
/// left.
pub const C_CLIENTS_COUNTED_MIN: usize = 1024;

/// The number of parsed paths that a thread caches, because applications in C and workers pass paths as text: a power
/// of two.
pub const PATHS_KEPT: usize = 64;

/// The maximum size of a line logged by an application in C, in bytes. The rest is cut off.
pub const C_LOG_BYTES_MAX: usize = 8 * 1024;

/// How long stopping an application in C waits until no shard runs it any more. After that it is not stopped.
pub const C_STOP_WAIT: Duration = Duration::from_secs(1);

/// The maximum number of workers of all applications together. Each is a process, and has a link to every shard.
pub const WORKERS_MAX: usize = 256;

/// The maximum size of a frame from a worker in bytes, including its head: more than any client may be sent. A worker
/// that announces a larger frame is killed.
pub const WORKER_FRAME_BYTES_MAX: usize = 16 << 20;

/// The maximum number of events that a worker registers. More are refused when it becomes ready.
pub const WORKER_EVENTS_MAX: usize = 4096;

/// The maximum number of files that are watched for the workers of an application. Each is looked at four times a
/// second.
pub const WORKER_FILES_MAX: usize = 16_384;

/// The maximum number of timers that are set on one link. One more is refused.
pub const WORKER_TIMERS_MAX: usize = 65_536;

/// The maximum number of open server callbacks offered on one link. One more is dropped at once, and its worker is
/// informed.
pub const WORKER_CALLBACKS_MAX: usize = 65_536;

/// The number of unanswered events that a client may always have on a link, unless only the last quarter of
/// `worker-requests-max` is free. Above it, a client has a share of what is free: an application must be able to handle
/// a burst of one client, and no client may keep the others out.
pub const WORKER_CLIENT_REQUESTS_MIN: usize = 16;

/// The maximum size of a line on the control socket, in bytes. A manifest with all allowed events fits. A worker that
/// sends a longer line is killed.
pub const WORKER_LINE_BYTES_MAX: usize = 1 << 20;

/// The maximum size of a line that a worker prints, in bytes. The rest is cut off.
pub const WORKER_LOG_BYTES_MAX: usize = 8 * 1024;

/// The maximum size of a record of several lines that a worker logs, in bytes: a long traceback. The middle of a longer
/// one is cut out.
pub const WORKER_RECORD_BYTES_MAX: usize = 32 * 1024;

/// The maximum number of lines that a worker may print at once, and in each second after that. More are dropped and
/// counted: a worker that floods the log must not push out the lines of others.
pub const WORKER_LOG_LINES_MAX: u32 = 1000;

/// The number of last lines of a worker that are logged again with its crash.
pub const WORKER_LAST_LINES: usize = 20;

/// The delay before the first restart of a crashed worker. Each further crash doubles it.
pub const WORKER_BACKOFF: Duration = Duration::from_millis(100);

/// The maximum delay before a restart.
pub const WORKER_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How long a worker must have served for its delay to start again with `WORKER_BACKOFF`.
pub const WORKER_BACKOFF_FORGET: Duration = Duration::from_secs(10);

/// How long a worker may take to end after it has detached from the server (it closed a link or its control socket, or
/// reported a failure). If it is still running then, it is killed.
pub const WORKER_END_WAIT: Duration = Duration::from_secs(1);

/// The interval at which the files of workers are checked, if `reload` is on.
pub const WORKER_WATCH: Duration = Duration::from_millis(250);

/// The time after a log line that a peer caused during which further lines of its kind are counted and not logged. An
/// operator sees within seconds that something happens; the counters tell how often.
pub const LOG_WINDOW: Duration = Duration::from_secs(5);

/// The maximum number of lines of all such kinds that are logged in one second, summaries included. More are counted. A
/// flood of lines costs disk space, and pushes the lines of others out of the log.
pub const LOG_THROTTLED_LINES_MAX: u64 = 100;

/// The maximum number of kinds of such lines that have a window of their own: about twice as many as there are. Further
/// kinds share one window.
pub const LOG_KINDS_MAX: usize = 128;

/// The maximum number of bytes of a text from outside, such as an origin, that are shown in a log line.
pub const LOG_TEXT_BYTES_MAX: usize = 256;

/// The maximum number of questions for earlier events that wait for a shard: a whole server's clients may come back at once,
/// and each costs about 150 bytes until it is answered. Further ones are answered with 420.
pub const REPLAYS_WAITING_MAX: usize = 1 << 18;

/// The number of events, and their bytes, that a shard replays in one turn: they take about a millisecond.
pub const REPLAYED_PER_TURN_MAX: usize = 2048;
/// See [`REPLAYED_PER_TURN_MAX`].
pub const REPLAYED_BYTES_PER_TURN_MAX: usize = 1 << 20;

/// The bytes of events that a client is sent at once when it catches up, and may have in its outbox before it is sent more. A
/// single event may be longer.
pub const REPLAY_BYTES_MAX: usize = 64 << 10;

/// The number of events that a client is sent at once when it catches up.
pub const REPLAY_EVENTS_MAX: usize = 512;

/// The maximum number of events in the answer to `/qio/history`, and the number without a limit in the request.
pub const HISTORY_PAGE_MAX: usize = 1000;
/// See [`HISTORY_PAGE_MAX`].
pub const HISTORY_PAGE_DEFAULT: usize = 100;

/// The maximum number of events of a path that are kept (`history` of a rule). A path may be evicted in one turn, and dropping
/// this many takes half a millisecond.
pub const HISTORY_EVENTS_MAX: usize = 10_000;

/// The times over which changes of the members of a path are gathered, in milliseconds. The time grows with the number of
/// members, so that a path of any size causes about 10,000 messages a second.
pub const MEMBERS_GATHER_MIN: u64 = 250;
/// See [`MEMBERS_GATHER_MIN`].
pub const MEMBERS_GATHER_MAX: u64 = 10_000;

/// The maximum length of the text of a list of members, in bytes, apart from escapes. A longer list is not kept: its members are
/// only counted. A client gets all of it in one message, and a thousand members with a name and a picture's address fit.
pub const MEMBERS_LIST_BYTES_MAX: usize = 256 << 10;

/// The maximum of the setting `members-max`. Such a list may be made or dropped in one turn, which takes some milliseconds.
pub const MEMBERS_MAX: usize = 10_000;

/// The memory of a member in a list, in bytes, apart from its user and its information: places in a tree and in a table.
pub const MEMBER_BYTES: usize = 128;

/// The memory of the members of a path, in bytes, apart from the list and the text of the path.
pub const ROSTER_BYTES: usize = 512;

/// The maximum number of requests for members (`/qio/members`) that wait for a shard. Each takes about 100 bytes. Further ones
/// are answered with 420.
pub const MEMBERS_WAITING_MAX: usize = 1 << 16;

/// The bytes of lists of members that a shard sends in one turn to those who ask: they take about a millisecond.
pub const MEMBERS_BYTES_PER_TURN_MAX: usize = 1 << 20;

/// The number of paths whose changed members are told in one turn, and of members that leave in it because they have been
/// absent for long. They take a few milliseconds.
pub const MEMBERS_PER_TURN_MAX: usize = 1024;

/// The maximum number of rules. Statistics have a row for each, and a table of shards and rules must stay small.
pub const RULES_MAX: usize = 1000;

/// The maximum number of segments of a pattern of paths: a path has at most half as many as bytes, but no application has
/// paths as deep as this. Matching takes a step for each.
pub const PATTERN_SEGMENTS_MAX: usize = 32;

/// The maximum number of token buckets of a shard's clients, and of all addresses, that rates of rules need at one time. A
/// bucket is needed only until it is full again, most of them for a second. Each takes eight bytes, so that a table has at
/// most 8 MiB. Beyond it, buckets make room that are nearly full.
pub const RATE_BUCKETS_MAX: usize = 1 << 20;

/// How long a server that starts waits at most until the kernel has closed the connections of a killed server that used
/// the same address. A million of them took 80 s on two cores, while their clients connected again. The limit is below
/// `TimeoutStartSec` in scripts/quickio.service. If a process listens on the address, the server waits one second.
pub const LEFT_OVER_WAIT_MAX: Duration = Duration::from_secs(100);

/// The maximum number of bytes that a client may send in a TLS handshake, record headers included. A ClientHello with the
/// keys of a post-quantum exchange has 2 KiB, two of them if the server asks for another group, and session tickets
/// are shorter than that.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// The same for listeners that ask clients for certificates: a chain of several with RSA keys has 10 KiB. rustls accepts
/// no longer messages.
pub const TLS_HANDSHAKE_CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// The memory that a TLS handshake occupies besides the bytes of the client, in bytes. Measured with malloc: 8,700 between
/// the flights of a handshake with P-256 or RSA-2048.
pub const TLS_HANDSHAKE_BYTES: usize = 10 * 1024;

/// The maximum number of TLS records without data that a client may send one after the other: empty ones, warnings and
/// key updates. OpenSSL and rustls allow as many. Each costs the server as much as a message, or more.
pub const TLS_IDLE_RECORDS_MAX: u8 = 32;

/// The maximum number of requests for another handshake that a client of TLS 1.2 may make. Each is refused with a warning,
/// after which a client may go on, but has no reason to ask again.
pub const TLS_RENEGOTIATIONS_MAX: u8 = 1;

/// The number of records after which the server changes the key with which it sends (TLS 1.3 KeyUpdate). AES-GCM
/// protects 2^24.5 full records with one key (RFC 8446 section 5.5). A quarter of that is safe without counting exactly, and
/// a key update every four million records costs nothing.
pub const TLS_KEY_UPDATE_RECORDS: u64 = 1 << 22;

/// The number of records that the server sends with one key of AES-GCM over TLS 1.2, which cannot change keys. The
/// connection is closed then, and the client connects again. The distance to 2^24 is for what is already on its way.
pub const TLS_KEY_RECORDS_MAX: u64 = (1 << 24) - (1 << 20);

/// The maximum length of a token, in bytes. Tokens of identity providers have 1 to 4 KiB; one with several hundred groups
/// does not fit into the headers that proxies pass on either. A longer one is refused before anything of it is parsed.
pub const AUTH_TOKEN_BYTES_MAX: usize = 8192;

/// The maximum length of a user's name (the claim `sub`), in bytes. OpenID Connect permits 255.
pub const AUTH_USER_BYTES_MAX: usize = 256;

/// The maximum number of claims of a token. Names are compared with each other, because each may occur only once.
pub const AUTH_CLAIMS_MAX: usize = 64;

/// The maximum number of patterns in each list of a token's `qio` claim. They are tried one after the other.
pub const AUTH_PATTERNS_MAX: usize = 64;

/// The maximum number of entries of `[[auth-keys]]`. Each may be the address of a set of keys.
pub const AUTH_KEYS_MAX: usize = 32;

/// The maximum number of names in `app-headers`. Each request that opens a connection is searched for them.
pub const APP_HEADERS_MAX: usize = 16;

/// The maximum length of the values of `app-headers` that are kept of one client, in bytes: browsers send at most 4 KiB of
/// cookies for one name. A header that does not fit beside those before it is left out.
pub const APP_HEADERS_BYTES_MAX: usize = 4096;

/// The maximum number of tokens of one shard that are being verified beside it, or wait for that. A verification takes
/// 30 to 150 microseconds, so that the last of them waits a tenth of a second for each shard. More are answered with 420.
pub const AUTH_PENDING_MAX: usize = 1024;

/// The maximum number of them that may be from clients of one address. More are answered with 420, so that the tokens of one
/// peer, whose keys may have to be fetched first, do not keep those of others from being verified.
pub const AUTH_PENDING_ADDRESS_MAX: u16 = 256;

/// The number of events of clients whose tokens were verified that a shard handles in one turn: they were kept meanwhile, and
/// take about a millisecond. The others wait for the next turns.
pub const AUTH_RELEASED_PER_TURN_MAX: usize = 1024;

/// The maximum length of the events that are kept of a client whose token is being verified, in bytes: they may depend on
/// who the client is. More are answered with 420. They count towards `incomplete-bytes-max` too.
pub const AUTH_HELD_BYTES_MAX: usize = 64 * 1024;

/// The maximum number of tokens that may be refused on one connection. One more closes it: a client has a few tokens, and
/// each that is forged costs as much as one that is not.
pub const AUTH_REFUSED_MAX: u8 = 8;

/// The maximum number of keys in a JSON Web Key Set. Providers publish two to ten.
pub const JWKS_KEYS_MAX: usize = 64;

/// The maximum number of keys of the server API. Each request is compared with all of them.
pub const API_KEYS_MAX: usize = 256;

/// The maximum number of connections of the server API. A back end has a few for each of its processes; the rest is for idle
/// ones. One more is answered 503. Each takes a descriptor, and about 12 KiB while it is served.
pub const API_CONNECTIONS_MAX: usize = 1024;

/// The maximum number of messages of the server API that wait for one shard. Each request has one message at most for a shard,
/// and the bodies of all of them are bounded by `api-bytes-max`. A request that finds no room is answered 503.
pub const API_MESSAGES_MAX: usize = 1024;

/// The maximum number of events of the server API that a shard broadcasts, and of connections to which it does something, in one
/// turn. They take about a millisecond if the paths have few subscribers. The rest follows in the next turns.
pub const API_EVENTS_PER_TURN_MAX: usize = 4096;

/// The number of deliveries after which a shard begins no other event of the server API in a turn. They take about 3 ms. One
/// event reaches all of its subscribers in one turn, whatever their number.
pub const API_DELIVERIES_PER_TURN_MAX: usize = 65_536;

/// The number of places of paths or of connections that a shard examines for one question of the server API: about 0.1 ms.
pub const API_PLACES_PER_QUESTION_MAX: usize = 4096;

/// The maximum number of paths or clients in an answer of the server API. An answer with long paths has 1 MiB.
pub const API_PAGE_MAX: usize = 1000;

/// The maximum length of a reason for which a back end closes a client, in bytes: what the Close frame of a WebSocket has room
/// for.
pub const API_REASON_BYTES_MAX: usize = 123;

/// The maximum time that a request to the server API waits for the replies of shards.
pub const API_REPLY_WAIT: Duration = Duration::from_secs(2);

/// The time after which a list of the server API ends early, with the place to go on at: a prefix may match few of very many
/// paths.
pub const API_LIST_WAIT: Duration = Duration::from_secs(1);

/// The time for which the answer to a request with an `Idempotency-Key` is remembered: longer than back ends try again.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(300);

/// The maximum length of an `Idempotency-Key` in bytes. Most are UUIDs.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The maximum number of answers that are remembered, for five minutes of 300 requests a second. The oldest give way.
pub const IDEMPOTENCY_KEYS_MAX: usize = 100_000;

/// The maximum memory of the answers that are remembered, in bytes. The oldest give way.
pub const IDEMPOTENCY_BYTES_MAX: usize = 64 << 20;

/// The maximum number of requests to the back end of the application webhook that are under way. A back end of 50 ms answers
/// 5,000 a second with them. Further events are answered with 420. One address has a fifth of them at most.
pub const WEBHOOK_REQUESTS_MAX: usize = 256;

/// The maximum number of clients that the back end of webhook is being asked about because they connect. It is apart from
/// [`WEBHOOK_REQUESTS_MAX`], so that clients that come back at once leave room for the events of those that are connected. Further
/// ones wait, within `AUTH_PENDING_MAX`; their addresses take turns.
pub const WEBHOOK_CONNECTS_MAX: usize = 128;

/// The maximum number of connections to the back end of webhook that are kept open without a request.
pub const WEBHOOK_IDLE_CONNECTIONS_MAX: usize = 64;

/// The maximum size of an answer of the back end of webhook, in bytes. It becomes data for one client.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 1 << 20;

/// The maximum number of disconnected clients that the back end of webhook has not taken notice of. Each takes about 50 bytes.
/// It is not told about more.
pub const WEBHOOK_GONE_MAX: usize = 1 << 20;

/// The maximum number of disconnected clients in one request to the back end of webhook.
pub const WEBHOOK_GONE_BATCH: usize = 1000;

/// The time for which disconnected clients are gathered for one request to the back end of webhook.
pub const WEBHOOK_GONE_LINGER: Duration = Duration::from_millis(100);

/// The pause before the back end of webhook is told again about disconnected clients. Each further one is twice as long.
pub const WEBHOOK_RETRY_WAIT: Duration = Duration::from_millis(250);

/// The maximum of these pauses.
pub const WEBHOOK_RETRY_WAIT_MAX: Duration = Duration::from_secs(10);

/// The number of failures in a row after which the back end of webhook is left alone for a while.
pub const WEBHOOK_BREAKER_FAILURES: u32 = 10;

/// The time after which the back end of webhook is tried again.
pub const WEBHOOK_BREAKER_WAIT: Duration = Duration::from_secs(2);
