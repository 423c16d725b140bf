//! The counters, gauges and latencies of a shard, each with its name, unit and description.
//!
//! A shard counts in plain integers of its own ([`Counters`], [`Gauges`], [`Latencies`]); nothing here is locked,
//! atomic or shared. A request to the statistics endpoint collects a [`Snapshot`] from each shard.

use crate::qev::stats::LatencyHistogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The description of a counter, gauge or latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name in `/stats`. `/metrics` prefixes it with `quickio_`. Lower case, words joined by `_`.
    pub name: &'static str,
    /// The unit: `connections`, `bytes`, `events`; `microseconds` for latencies.
    pub unit: &'static str,
    /// The meaning, in one or two sentences for the operator.
    pub help: &'static str,
}

/// Declares an enum of metrics together with its table, which keeps the two complete.
macro_rules! metrics {
    ($(#[$doc:meta])* $list:ident { $($variant:ident = $name:literal, $unit:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $list {
            $(#[doc = $help] $variant,)+
        }

        impl $list {
            /// All metrics of this kind, in the order in which they are shown.
            pub const ALL: &'static [$list] = &[$($list::$variant),+];

            /// The number of metrics of this kind.
            pub const COUNT: usize = $list::ALL.len();

            /// Returns the name, unit and help text.
            #[must_use]
            pub const fn metric(self) -> Metric {
                match self {
                    $($list::$variant => Metric { name: $name, unit: $unit, help: $help },)+
                }
            }
        }
    };
}

metrics! {
    /// A number that only grows, from the start of the server.
    Counter {
        ConnectionsAccepted = "connections_accepted", "connections",
            "Connections accepted from the kernel.";
        ConnectionsClosed = "connections_closed", "connections",
            "Connections that ended for any reason.";
        ConnectionsRefusedLimit = "connections_refused_limit", "connections",
            "Connections refused because clients-max was reached, or because a shard had too many connections of proxies that \
             had brought no request or PROXY header: answered with 503 if they speak HTTP, and closed.";
        ConnectionsRefusedAddress = "connections_refused_address", "connections",
            "Connections and HTTP sessions refused because their address had reached connections-per-address-max: \
             answered with 429 if they speak HTTP, and closed.";
        ConnectionsRefusedDescriptors = "connections_refused_descriptors", "connections",
            "Accepts that failed because the system has no descriptor or memory for another connection.";
        AcceptsPaused = "accepts_paused", "pauses",
            "Number of times that all places of a shard for connections were taken. New connections wait in the \
             kernel's backlog until others end.";
        AcceptErrors = "accept_errors", "errors",
            "Accepts that failed for any other reason.";
        ProtocolUnknown = "protocol_unknown", "connections",
            "Connections closed because their first bytes match no protocol.";
        ProxyHeaders = "proxy_headers", "connections",
            "Connections that began with a header of the PROXY protocol.";
        ProxyHeadersRefused = "proxy_headers_refused", "connections",
            "Connections closed because such a header was missing or invalid, or came from a peer that proxy-protocol \
             does not list.";
        HandshakesWebsocket = "handshakes_websocket", "connections",
            "WebSocket clients that completed their handshake, including /qio/ohai.";
        HandshakesDeflate = "handshakes_deflate", "connections",
            "Of handshakes_websocket, those of clients with which compression was negotiated.";
        HandshakesRaw = "handshakes_raw", "connections",
            "Raw TCP clients that completed their handshake.";
        TlsHandshakes = "tls_handshakes", "connections",
            "TLS handshakes completed, including those that resumed a session.";
        TlsResumed = "tls_resumed", "connections",
            "Of tls_handshakes, those that resumed the session of an earlier connection.";
        TlsFailedPlain = "tls_failed_plain", "connections",
            "Connections to a port that takes only TLS whose first bytes were not TLS: answered with 400 if they were HTTP, \
             and closed.";
        TlsFailedIncompatible = "tls_failed_incompatible", "connections",
            "TLS handshakes that failed because client and server had no common version, suite, group, signature or protocol.";
        TlsFailedCertificate = "tls_failed_certificate", "connections",
            "TLS handshakes that failed because the client had no certificate, or one that is not accepted.";
        TlsFailedProtocol = "tls_failed_protocol", "connections",
            "TLS connections that ended because the client broke a rule of TLS, or sent too many bytes or records.";
        TlsFailedAlert = "tls_failed_alert", "connections",
            "TLS connections that the client ended with an alert: it does not accept the certificate, for example.";
        TlsFailedInternal = "tls_failed_internal", "connections",
            "TLS connections that ended because of an error of the server. The log has the error.";
        TlsBadRecords = "tls_bad_records", "connections",
            "TLS connections that ended because a record could not be decrypted: it was changed on its way, repeated or lost.";
        TlsAbandoned = "tls_abandoned", "connections",
            "TLS handshakes whose client closed the connection, or did not go on within timeout.";
        TlsEvicted = "tls_evicted", "connections",
            "TLS handshakes that were ended because their client had taken longest to go on, and a shard had 8192 incomplete \
             ones.";
        TlsTruncated = "tls_truncated", "connections",
            "TLS connections whose stream ended without the client having closed TLS: what it sent last may be lost.";
        TlsWornOut = "tls_worn_out", "connections",
            "TLS 1.2 connections closed because their key had protected as many records as it may (WebSocket: 1001).";
        TlsKeyUpdates = "tls_key_updates", "updates",
            "Changes of the keys of TLS connections, in either direction.";
        HandshakesRefused = "handshakes_refused", "connections",
            "Handshakes refused: an HTTP request answered with an error, or a first message other than /qio/ohai.";
        TimeoutsHandshake = "timeouts_handshake", "connections",
            "Connections closed because they did not complete their handshake within timeout.";
        TimeoutsMessage = "timeouts_message", "connections",
            "Connections closed because they did not complete a message within timeout.";
        TimeoutsLiveness = "timeouts_liveness", "connections",
            "Connections closed because nothing was received from them for heartbeat-timeout.";
        TimeoutsIdle = "timeouts_idle", "connections",
            "HTTP connections closed because no request came for http-idle-timeout.";
        TimeoutsSession = "timeouts_session", "sessions",
            "HTTP sessions ended because no request was received for timeout: the client has disconnected.";
        TimeoutsSend = "timeouts_send", "connections",
            "Connections closed because the peer read nothing of what it was sent for send-timeout (WebSocket: 1013).";
        TimeoutsClose = "timeouts_close", "connections",
            "Connections dropped because the peer did not complete the closing handshake within close-timeout.";
        ClosesViolation = "closes_violation", "connections",
            "Connections closed because the peer violated its protocol (WebSocket: 1002).";
        ClosesInvalidUtf8 = "closes_invalid_utf8", "connections",
            "Connections closed because a text was not valid UTF-8, or a compressed message was not valid (WebSocket: 1007).";
        ClosesTooLarge = "closes_too_large", "connections",
            "Connections closed because a message exceeded message-bytes-max (WebSocket: 1009).";
        ClosesBinary = "closes_binary", "connections",
            "Connections closed because a binary message was received (WebSocket: 1003).";
        ClosesMalformedEvent = "closes_malformed_event", "connections",
            "Connections closed because a message was not a valid event (WebSocket: 1002).";
        ClosesSlow = "closes_slow", "connections",
            "Connections closed because the peer did not read and its outbox was full (WebSocket: 1013).";
        ClosesSlowPressed = "closes_slow_pressed", "connections",
            "Of closes_slow, those that outboxes-bytes-max has caused.";
        ClosesIncomplete = "closes_incomplete", "connections",
            "Connections closed because their incomplete message was large while those of all connections took \
             incomplete-bytes-max (WebSocket: 1013, HTTP: 503).";
        TimeoutsAuth = "timeouts_auth", "connections",
            "Clients closed because they had not authenticated within auth-timeout (WebSocket: 1008).";
        ClosesTokenExpired = "closes_token_expired", "connections",
            "Clients closed because their token had expired for auth-grace (WebSocket: 1008).";
        ClosesTokenRefused = "closes_token_refused", "connections",
            "Clients closed because the token of the request that opened the connection was refused, or more than 8 tokens were \
             (WebSocket: 1008).";
        AuthAccepted = "auth_accepted", "tokens",
            "Tokens accepted.";
        AuthSeen = "auth_seen", "tokens",
            "Of auth_accepted, those that the shard remembered from an earlier time.";
        AuthVerifiedBeside = "auth_verified_beside", "tokens",
            "Tokens verified beside the shards, because their algorithm is slow or their key had to be fetched.";
        AuthRefusedForm = "auth_refused_form", "tokens",
            "Tokens refused because they are too long or malformed.";
        AuthRefusedKey = "auth_refused_key", "tokens",
            "Tokens refused because no key has their kid and algorithm.";
        AuthRefusedSignature = "auth_refused_signature", "tokens",
            "Tokens refused because their signature does not match: they were forged, or signed with another key.";
        AuthRefusedClaims = "auth_refused_claims", "tokens",
            "Tokens refused for what they say: no user, another audience or issuer, or not valid yet. The log has the reason.";
        AuthRefusedExpired = "auth_refused_expired", "tokens",
            "Tokens refused because they have expired.";
        AuthRefusedUser = "auth_refused_user", "tokens",
            "Tokens refused because the connection belongs to another user.";
        AuthRefusedBusy = "auth_refused_busy", "tokens",
            "Tokens refused because a shard had 1024 tokens that were being verified, or 256 of the address (420).";
        AuthRefusedApp = "auth_refused_app", "tokens",
            "Tokens and connections refused by the application that authenticates clients, such as the back end of webhook.";
        AuthUnavailable = "auth_unavailable", "tokens",
            "Tokens and connections that were answered with 503, because the application that authenticates clients did not \
             answer.";
        AuthNobody = "auth_nobody", "connections",
            "Connections without a token that the application that authenticates clients has let in as nobody.";
        AppHeadersLeftOut = "app_headers_left_out", "headers",
            "Headers of app-headers that were not kept, because those of their client have more than 4096 bytes.";
        EventsRefusedAuth = "events_refused_auth", "events",
            "Events refused because their client has to authenticate first (401), or sends too many while its token is being \
             verified (420).";
        ClosesByPeer = "closes_by_peer", "connections",
            "Connections that the peer closed in an orderly way.";
        ClosesReset = "closes_reset", "connections",
            "Connections that ended with a network error, for example because the peer disappeared.";
        ClosesByApp = "closes_by_app", "connections",
            "Connections closed by an application.";
        ClosesShutdown = "closes_shutdown", "connections",
            "Connections closed because the server shut down (WebSocket: 1001).";
        HttpRequests = "http_requests", "requests",
            "HTTP requests for sessions and documents.";
        HttpRelayed = "http_relayed", "requests",
            "HTTP requests passed to the shard that owns their session.";
        HttpRefused = "http_refused", "requests",
            "HTTP requests refused without closing the connection: malformed or unknown sids, documents that do \
             not exist.";
        HttpRefusedBusy = "http_refused_busy", "requests",
            "HTTP requests answered with 503 because the shard that owns their session was overloaded, or because they \
             arrived too early (seq) while incomplete-bytes-max was reached.";
        HttpRefusedEarly = "http_refused_early", "requests",
            "HTTP requests answered with 429 because too many requests of their session waited for an earlier one \
             (seq).";
        SessionsCreated = "sessions_created", "sessions",
            "HTTP sessions created by clients that poll or stream.";
        SessionsRefused = "sessions_refused", "sessions",
            "HTTP sessions refused because clients-max or sessions-share was reached, or because the server was \
             shutting down (503).";
        SessionsRefusedConnection = "sessions_refused_connection", "sessions",
            "HTTP sessions refused because their connection had created 256 sessions that had no second request (429).";
        SessionsEndedEarly = "sessions_ended_early", "sessions",
            "HTTP sessions ended after 4 s instead of timeout, because they had no second request and much of the \
             limit for their connection, their address or all sessions was used.";
        SessionsUnknown = "sessions_unknown", "requests",
            "HTTP requests for a session that does not exist (403): it has ended, or the sid was guessed.";
        StreamsOpened = "streams_opened", "streams",
            "Event streams opened.";
        StreamsLingered = "streams_lingered", "streams",
            "Event streams that were broken off and whose sessions took requests for 2 s more (linger).";
        BytesReceived = "bytes_received", "bytes",
            "Bytes received from peers.";
        BytesSent = "bytes_sent", "bytes",
            "Bytes accepted by the kernel for sending to peers.";
        PongsReplaced = "pongs_replaced", "messages",
            "Pings that were not answered because the same peer had sent a newer one before it read the answer.";
        EventsReceived = "events_received", "events",
            "Well-formed events received from clients.";
        EventsUnrouted = "events_unrouted", "events",
            "Events received for a path that no application has registered (answered with 404).";
        MessagesSent = "messages_sent", "messages",
            "Events, answers and heartbeats added to outboxes, counted once for each recipient.";
        MessagesCompressed = "messages_compressed", "messages",
            "Messages that were compressed. A broadcast counts once on each shard that has subscribers with compression.";
        MessagesIncompressible = "messages_incompressible", "messages",
            "Messages that were sent as they are, because compression did not make them shorter by a tenth.";
        CompressionSkipped = "compression_skipped", "messages",
            "Messages that were sent as they are, because the shard had compressed 1 MiB in the same turn, or because they \
             are longer than that.";
        CompressedBytesBefore = "compressed_bytes_before", "bytes",
            "Bytes of the messages counted in messages_compressed, before compression.";
        CompressedBytesAfter = "compressed_bytes_after", "bytes",
            "Bytes of the messages counted in messages_compressed, after compression.";
        MessagesInflated = "messages_inflated", "messages",
            "Compressed messages received from clients.";
        InflatedBytes = "inflated_bytes", "bytes",
            "Bytes of the messages counted in messages_inflated, after they were inflated.";
        InflationsRefused = "inflations_refused", "messages",
            "Compressed messages that were longer than message-bytes-max once inflated. Their connections are closed \
             (closes_too_large).";
        Sends = "sends", "sends",
            "Sends submitted to the kernel. One send carries everything for one client in one turn.";
        SendErrors = "send_errors", "sends",
            "Sends that failed; their connections are closed.";
        Answers = "answers", "answers",
            "Answers sent to callbacks of clients.";
        AnswersLateDropped = "answers_late_dropped", "answers",
            "Answers dropped because their client had already disconnected.";
        Broadcasts = "broadcasts", "broadcasts",
            "Broadcasts accepted from applications, counted on the shard where they started.";
        BroadcastDeliveries = "broadcast_deliveries", "messages",
            "Messages that broadcasts added to the outboxes of subscribers.";
        Subscribes = "subscribes", "subscriptions",
            "Subscriptions that became active.";
        Unsubscribes = "unsubscribes", "subscriptions",
            "Active subscriptions that ended, because the client unsubscribed or disconnected.";
        SubscriptionsRefusedLimit = "subscriptions_refused_limit", "subscriptions",
            "Subscriptions answered with 420 because of clients-subs-max, clients-subs-total, clients-subs-min or \
             paths-bytes-max, or because other shards were behind.";
        EventsReplayed = "events_replayed", "events",
            "Earlier events that were sent to clients that subscribed with options.";
        ReplaysOutrun = "replays_outrun", "replays",
            "Clients that read so slowly what they had missed that newer events were dropped before they got them. They were told \
             by an event /qio/lost.";
        HistoryEvictions = "history_evictions", "paths",
            "Paths whose events were dropped because of history-bytes-max, or because their rule keeps none any more.";
        MembersPublished = "members_published", "events",
            "Events about members of paths that were broadcast to clients that have asked for them.";
        MembersListsSent = "members_lists_sent", "lists",
            "Lists of members that were sent to clients, or their number if there is no list.";
        MembersListsDropped = "members_lists_dropped", "lists",
            "Lists of members that were dropped because of members-max or members-bytes-max, or because they were too long. Their \
             clients are told the number of members only.";
        RateBucketsEvicted = "rate_buckets_evicted", "buckets",
            "Token buckets of rates of rules that were dropped before they were full, because too many were in use: their \
             clients may have sent a few events too many. Those of addresses are counted on shard 0.";
        SubscriptionsRefusedApp = "subscriptions_refused_app", "subscriptions",
            "Subscriptions refused by an application.";
        CallbacksIssued = "callbacks_issued", "callbacks",
            "Server callbacks offered to clients.";
        CallbacksFired = "callbacks_fired", "callbacks",
            "Server callbacks that clients fired.";
        CallbacksExpired = "callbacks_expired", "callbacks",
            "Server callbacks dropped because they were not fired within clients-cb-max-age.";
        CallbacksEvicted = "callbacks_evicted", "callbacks",
            "Server callbacks dropped because their client was offered more than it may hold.";
        CallbacksUnknown = "callbacks_unknown", "callbacks",
            "Callback ids from clients that were stale, unknown or malformed (answered with 404 or 400).";
        Heartbeats = "heartbeats", "messages",
            "Heartbeats sent to clients that were sent nothing else.";
        Challenges = "challenges", "messages",
            "Heartbeats that the client must answer, sent because nothing was received from it for \
             heartbeat-challenge.";
        MeshSent = "mesh_sent", "messages",
            "Messages sent to other shards.";
        MeshReceived = "mesh_received", "messages",
            "Messages received from other shards.";
        MeshOverflowed = "mesh_overflowed", "messages",
            "Messages to other shards that waited in the overflow queue because the ring was full.";
        DataRefused = "data_refused", "messages",
            "Answers, broadcasts and events of applications that were refused because their data was not JSON.";
        MeshRefused = "mesh_refused", "messages",
            "Broadcasts, and events for one client, that were refused because mesh-overflow-bytes-max bytes waited for \
             another shard: one handler or timer caused too many. A client whose event caused them was answered 420.";
        InputsPaused = "inputs_paused", "pauses",
            "Times that a connection, HTTP session or worker was not listened to because it had caused more than its share \
             of the messages that waited for other shards.";
        InputsDormant = "inputs_dormant", "times",
            "Times that a connection on which nothing had been received for 30 s was changed to wait with less of the \
             kernel's memory.";
        InboxReceived = "inbox_received", "messages",
            "Commands received from application threads.";
        InboxRefused = "inbox_refused", "messages",
            "Commands from application threads that were refused because the shard's inbox was full.";
        WorkersStarted = "workers_started", "workers",
            "Worker processes started, including replacements.";
        WorkersCrashed = "workers_crashed", "workers",
            "Worker processes that ended unexpectedly, including those that were killed because they hung.";
        WorkersHung = "workers_hung", "workers",
            "Worker processes killed because they did not answer a ping within worker-timeout.";
        WorkerLinesDropped = "worker_lines_dropped", "lines",
            "Lines printed by workers that were not logged because there were too many.";
        WorkerEvents = "worker_events", "events",
            "Events, subscriptions, ends of subscriptions and answers to callbacks sent to workers.";
        WorkerEventsRefused = "worker_events_refused", "events",
            "Events and subscriptions that no worker could accept: worker-requests-max or worker-outbox-bytes-max \
             was reached (answered with 420), or no worker was running (answered with 500).";
        WorkerSharesRefused = "worker_shares_refused", "events",
            "Events, subscriptions and replies counted in worker_events_refused whose client alone had its share of \
             worker-requests-max or worker-outbox-bytes-max.";
        WorkerEndsDropped = "worker_ends_dropped", "ends",
            "Ends of subscriptions and clients of which no worker was told, because no worker was running and too \
             many of them were waiting for the next one.";
        WorkerRequestsFailed = "worker_requests_failed", "requests",
            "Events, subscriptions and answers to callbacks that a worker was handling when it ended (answered with \
             500).";
        WorkerRequestsTimedOut = "worker_requests_timed_out", "requests",
            "Events, subscriptions and answers to callbacks that a worker did not answer within \
             worker-request-timeout (answered with 500).";
        WorkerAnswersLate = "worker_answers_late", "answers",
            "Answers from workers to requests that were no longer open; they are dropped.";
        WorkerFramesRefused = "worker_frames_refused", "frames",
            "Frames from workers that were rejected because of their content: an invalid path, or data that is \
             not JSON.";
        Doorbells = "doorbells", "wakeups",
            "Number of times that this shard woke another shard.";
        Turns = "turns", "turns",
            "Turns of the shard's loop.";
        Sleeps = "sleeps", "sleeps",
            "Number of times that the shard slept because it had nothing to do.";
        BuffersExhausted = "buffers_exhausted", "receives",
            "Receives that the kernel ended because no receive buffer was free; they are restarted.";
        SubmissionsFull = "submissions_full", "submissions",
            "Number of times that the submission queue was full and was submitted before the end of the turn.";
        WebhookRequests = "webhook_requests", "requests",
            "Requests that the application webhook has made to its back end.";
        WebhookFailures = "webhook_failures", "requests",
            "Requests to the back end of webhook that were not answered in time, or with a status of 500 and above.";
        WebhookUnusable = "webhook_unusable", "requests",
            "Answers of the back end of webhook to the event connect that could not be used. The log has the reason.";
        WebhookRefused = "webhook_refused", "events",
            "Events and subscriptions that were answered with 420 because too many requests to the back end of webhook \
             were under way.";
        WebhookSkipped = "webhook_skipped", "requests",
            "Requests to the back end of webhook that were not made because several had failed in a row.";
        WebhookBreakerOpened = "webhook_breaker_opened", "times",
            "Number of times that the back end of webhook was left alone because requests had failed in a row.";
        WebhookGoneRetries = "webhook_gone_retries", "requests",
            "Attempts to tell the back end of webhook about clients that have disconnected which failed and are repeated.";
        WebhookGoneDropped = "webhook_gone_dropped", "clients",
            "Disconnected clients that the back end of webhook is not told about: too many were waiting, or it refuses.";
        ApiRequests = "api_requests", "requests",
            "Requests to the server API, refused ones included.";
        ApiEvents = "api_events", "events",
            "Events that back ends have broadcast by the server API.";
        ApiRefusedKey = "api_refused_key", "requests",
            "Requests to the server API that were answered 401: they had no key, or one that is unknown.";
        ApiRefusedScope = "api_refused_scope", "requests",
            "Requests to the server API that were answered 403: their key does not have the scope that they need.";
        ApiRefusedInvalid = "api_refused_invalid", "requests",
            "Requests to the server API that were refused because of their body, its size or its type, or their \
             Idempotency-Key.";
        ApiRefusedBusy = "api_refused_busy", "requests",
            "Requests to the server API that were answered 503: a shard had no room for their messages, or the bodies of \
             all requests took too much memory (api-bytes-max). Nothing was done.";
        ApiReplayed = "api_replayed", "requests",
            "Requests to the server API whose Idempotency-Key was known: they were answered as before, and nothing was done.";
        ApiKeysEvicted = "api_keys_evicted", "keys",
            "Idempotency keys that were forgotten before five minutes had passed, because there were too many.";
    }
}

metrics! {
    /// A number that goes up and down: the current state of a shard.
    Gauge {
        Connections = "connections", "connections",
            "Open connections, including those in their handshake.";
        ConnectionsRefusing = "connections_refusing", "connections",
            "Connections over a limit that are kept for a moment, to answer their request with 503 or 429.";
        TlsConnections = "tls_connections", "connections",
            "Open connections that have completed a TLS handshake.";
        TlsHandshakesOpen = "tls_handshakes_open", "connections",
            "TLS handshakes that have begun and are not complete.";
        TlsHandshakesWaiting = "tls_handshakes_waiting", "connections",
            "TLS handshakes that wait for their share of a turn.";
        Clients = "clients", "clients",
            "Clients that have completed their handshake.";
        ClientsAuthenticated = "clients_authenticated", "clients",
            "Clients that have authenticated.";
        Users = "users", "users",
            "Users of these clients. A user counts on each shard that has a client of it.";
        ClientFactsBytes = "client_facts_bytes", "bytes",
            "Memory of what is kept of clients for applications: headers (app-headers), and subjects of certificates.";
        AuthPending = "auth_pending", "tokens",
            "Tokens that are being verified beside the shards, or whose clients have sent events meanwhile that are not handled yet.";
        AuthSeenBytes = "auth_seen_bytes", "bytes",
            "Memory of the tokens that were verified recently.";
        HttpSessions = "http_sessions", "sessions",
            "HTTP sessions, with or without a held request. Each is a client.";
        ClientsWebsocket = "clients_websocket", "clients",
            "Clients that are connected over WebSocket.";
        ClientsRaw = "clients_raw", "clients",
            "Clients that are connected over raw TCP.";
        ClientsPolling = "clients_polling", "clients",
            "Clients that have an HTTP session and have only used long polling.";
        ClientsStreaming = "clients_streaming", "clients",
            "Clients that have an HTTP session and have opened an event stream.";
        Subscriptions = "subscriptions", "subscriptions",
            "Active subscriptions.";
        Paths = "paths", "paths",
            "Paths with subscribers on this shard or on another one. A path counts on each shard that knows it.";
        PathBytes = "path_bytes", "bytes",
            "The cost of the paths that clients of this shard are subscribed to: their text once, and an entry on every \
             shard.";
        OutboxBytes = "outbox_bytes", "bytes",
            "Bytes in outboxes that wait for their clients to read.";
        IncompleteBytes = "incomplete_bytes", "bytes",
            "Memory of messages, heads and bodies that peers have not sent completely, of HTTP requests that wait for \
             an earlier one (seq), and of events that wait for a token to be verified.";
        MeshOverflowBytes = "mesh_overflow_bytes", "bytes",
            "The cost of the messages that wait for other shards.";
        InputsHeld = "inputs_held", "sources",
            "Connections, HTTP sessions and workers that are not listened to for that reason.";
        InputBytesHeld = "input_bytes_held", "bytes",
            "Bytes that were received from them and are not handled yet.";
        HistoryPaths = "history_paths", "paths",
            "Paths whose last events are kept.";
        HistoryEvents = "history_events", "events",
            "Events that are kept.";
        HistoryBytes = "history_bytes", "bytes",
            "Memory of the events that are kept, and of their paths (`history-bytes-max` for each shard).";
        ReplaysWaiting = "replays_waiting", "requests",
            "Requests for earlier events that wait for their turn.";
        Recoveries = "recoveries", "subscriptions",
            "Subscriptions whose clients get earlier events before the live ones.";
        MembersPaths = "members_paths", "paths",
            "Paths that have members.";
        Members = "members", "subscriptions",
            "Subscriptions whose clients are members of their paths.";
        MembersBytes = "members_bytes", "bytes",
            "Memory of the members of paths (`members-bytes-max` for each shard).";
        MembersWaiting = "members_waiting", "requests",
            "Requests for members that wait for their turn.";
        RateBucketBytes = "rate_bucket_bytes", "bytes",
            "Memory of the token buckets of rates of rules. Those of addresses are counted on shard 0.";
        CallbacksOpen = "callbacks_open", "callbacks",
            "Server callbacks that clients may still fire.";
        WorkerLinks = "worker_links", "links",
            "Links to workers that receive events: one for each worker on each shard.";
        WorkerRequests = "worker_requests", "requests",
            "Events, subscriptions and answers to callbacks that workers are handling.";
        WorkerOutboxBytes = "worker_outbox_bytes", "bytes",
            "Bytes that wait for workers to read them.";
        Timers = "timers", "timers",
            "Timers set in the timing wheel.";
    }
}

metrics! {
    /// A duration that is recorded in a latency histogram.
    Timing {
        Turn = "turn", "microseconds",
            "A turn of the shard's loop, from waking up to the submission, without sleep.";
        TlsHandshake = "tls_handshake", "microseconds",
            "The time of a core that a completed TLS handshake has taken.";
        Route = "route", "microseconds",
            "An event, from receipt to the end of its handler.";
        MeshHop = "mesh_hop", "microseconds",
            "A message between shards, from sending to receipt.";
        Send = "send", "microseconds",
            "A send, from the queueing of its messages to its completion by the kernel.";
        Delivery = "delivery", "microseconds",
            "A broadcast, from its acceptance to the completion of the send to each subscriber.";
    }
}

metrics! {
    /// A number that only grows, for each application. There are as many of each as there are applications.
    AppCounter {
        Events = "app_events", "events",
            "Events, subscriptions that the application decides about, and answers to callbacks that were passed to the \
             application.";
        Failures = "app_failures", "events",
            "Events, subscriptions and answers to callbacks that were answered with 500, with or without a callback: the \
             handler failed, or its worker was not running, ended, or did not answer in time.";
        Refusals = "app_refusals", "events",
            "Events, subscriptions and answers to callbacks that were answered with 420, by the application or because \
             its worker was busy.";
        PromisesRefused = "app_promises_refused", "promises",
            "Promises of an application in C that were refused because there were too many, or because the client had its \
             share of them: the event or subscription was answered with 420.";
        Errors = "app_errors", "errors",
            "Exceptions and panics that the application did not handle, and other records that a worker logged as errors. \
             A worker's are counted on shard 0.";
    }
}

metrics! {
    /// A duration that is recorded in a latency histogram, for each application.
    AppTiming {
        Answer = "app_answer", "microseconds",
            "An event, subscription or answer to a callback, from its handler to the answer of a worker or of a promise.";
    }
}

/// The statistics of one application on one shard, or the sum over several shards.
#[derive(Clone, Debug, Default)]
pub struct AppStatistics {
    counters: [u64; AppCounter::COUNT],
    latencies: [LatencyHistogram; AppTiming::COUNT],
}

impl AppStatistics {
    /// Adds `n` to a counter.
    #[inline]
    pub fn add(&mut self, counter: AppCounter, n: u64) {
        let value = &mut self.counters[counter as usize];
        *value = value.wrapping_add(n);
    }

    /// Counts an answer by its code.
    #[inline]
    pub fn add_answer(&mut self, code: u16) {
        match code {
            500 => self.add(AppCounter::Failures, 1),
            420 => self.add(AppCounter::Refusals, 1),
            _ => {}
        }
    }

    /// Records one latency.
    pub fn record(&mut self, timing: AppTiming, time: Duration) {
        self.latencies[timing as usize].record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Returns the value of a counter.
    #[must_use]
    pub fn get(&self, counter: AppCounter) -> u64 {
        self.counters[counter as usize]
    }

    /// Returns the histogram of a latency.
    #[must_use]
    pub fn latency(&self, timing: AppTiming) -> &LatencyHistogram {
        &self.latencies[timing as usize]
    }

    /// Adds other statistics of the same application to these.
    pub fn merge(&mut self, other: &AppStatistics) {
        for &counter in AppCounter::ALL {
            self.add(counter, other.get(counter));
        }
        for (ours, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            ours.merge(theirs);
        }
    }
}

metrics! {
    /// A counter of each rule.
    RuleCounter {
        SubscriptionsRefused = "rule_subscriptions_refused", "subscriptions",
            "Subscriptions that the rule refused: answered with 401.";
        SubscriptionsEnded = "rule_subscriptions_ended", "subscriptions",
            "Subscriptions that ended because rules or the client's token were changed, and the rule does not allow them.";
        EventsRefused = "rule_events_refused", "events",
            "Events that the rule refused: answered with 401.";
        EventsLimited = "rule_events_limited", "events",
            "Events above a rate of the rule: answered with 420.";
        RecoveriesComplete = "rule_recoveries_complete", "recoveries",
            "Subscriptions with a position whose clients got everything that they had missed.";
        RecoveriesIncomplete = "rule_recoveries_incomplete", "recoveries",
            "Subscriptions with a position whose clients were told that they may have missed events: these were too old, or more \
             than the rule keeps, or evicted, or the server was restarted.";
    }
}

metrics! {
    /// A gauge of each rule.
    RuleGauge {
        HistoryEvents = "rule_history_events", "events",
            "Events of the rule that are kept.";
        HistoryBytes = "rule_history_bytes", "bytes",
            "Memory of the events of the rule that are kept, and of their paths.";
    }
}

/// The counters and gauges of one rule on one shard, or the sum over several shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRule {
    /// The path, which is unique among the rules of the server.
    pub path: Arc<str>,
    values: [u64; RuleCounter::COUNT],
    gauges: [u64; RuleGauge::COUNT],
}

impl NamedRule {
    /// Returns counters and gauges that are all zero, for the rule with this path.
    #[must_use]
    pub fn new(path: &str) -> NamedRule {
        NamedRule { path: path.into(), values: [0; RuleCounter::COUNT], gauges: [0; RuleGauge::COUNT] }
    }

    /// Adds `n` to a counter.
    pub fn add(&mut self, counter: RuleCounter, n: u64) {
        self.values[counter as usize] += n;
    }

    /// Returns the value of a counter.
    #[must_use]
    pub fn get(&self, counter: RuleCounter) -> u64 {
        self.values[counter as usize]
    }

    /// Sets a gauge.
    pub fn set_gauge(&mut self, gauge: RuleGauge, value: u64) {
        self.gauges[gauge as usize] = value;
    }

    /// Returns the value of a gauge.
    #[must_use]
    pub fn gauge(&self, gauge: RuleGauge) -> u64 {
        self.gauges[gauge as usize]
    }

    /// Adds another shard's statistics of the same rule to these.
    fn merge(&mut self, other: &NamedRule) {
        RuleCounter::ALL.iter().for_each(|&counter| self.add(counter, other.get(counter)));
        for (ours, theirs) in self.gauges.iter_mut().zip(other.gauges) {
            *ours += theirs;
        }
    }
}

/// The name and the statistics of one application.
#[derive(Clone, Debug)]
pub struct NamedApp {
    /// The name, which is unique among the applications of the server.
    pub name: Arc<str>,
    /// The statistics.
    pub statistics: AppStatistics,
}

/// The counters of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    values: [u64; Counter::COUNT],
}

impl Counters {
    /// Returns counters that are all zero.
    #[must_use]
    pub const fn new() -> Counters {
        Counters { values: [0; Counter::COUNT] }
    }

    /// Adds `n` to a counter.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        let value = &mut self.values[counter as usize];
        *value = value.wrapping_add(n);
    }

    /// Returns the value of a counter.
    #[inline]
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// Adds another shard's counters to these.
    pub fn merge(&mut self, other: &Counters) {
        for &counter in Counter::ALL {
            self.add(counter, other.get(counter));
        }
    }
}

impl Default for Counters {
    fn default() -> Counters {
        Counters::new()
    }
}

/// Counters that several threads may use: those of services that belong to no shard.
#[derive(Debug)]
pub struct SharedCounters {
    values: [AtomicU64; Counter::COUNT],
}

impl SharedCounters {
    /// Returns counters that are all zero.
    #[must_use]
    pub fn new() -> SharedCounters {
        SharedCounters { values: [const { AtomicU64::new(0) }; Counter::COUNT] }
    }

    /// Adds `n` to a counter.
    pub fn add(&self, counter: Counter, n: u64) {
        self.values[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Adds these to the counters of a shard.
    pub fn add_to(&self, counters: &mut Counters) {
        for &counter in Counter::ALL {
            counters.add(counter, self.values[counter as usize].load(Ordering::Relaxed));
        }
    }
}

impl Default for SharedCounters {
    fn default() -> SharedCounters {
        SharedCounters::new()
    }
}

/// The gauges of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauges {
    values: [u64; Gauge::COUNT],
}

impl Gauges {
    /// Returns gauges that are all zero.
    #[must_use]
    pub const fn new() -> Gauges {
        Gauges { values: [0; Gauge::COUNT] }
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&mut self, gauge: Gauge, value: u64) {
        self.values[gauge as usize] = value;
    }

    /// Increases a gauge by `n`.
    #[inline]
    pub fn add(&mut self, gauge: Gauge, n: u64) {
        self.values[gauge as usize] += n;
    }

    /// Decreases a gauge by `n`. The value does not fall below zero: a debug build panics instead, because only a
    /// value that was added before may be subtracted.
    #[inline]
    pub fn sub(&mut self, gauge: Gauge, n: u64) {
        let value = &mut self.values[gauge as usize];
        debug_assert!(*value >= n, "{gauge:?} is {value} and cannot decrease by {n}");
        *value = value.saturating_sub(n);
    }

    /// Returns the value of a gauge.
    #[inline]
    #[must_use]
    pub fn get(&self, gauge: Gauge) -> u64 {
        self.values[gauge as usize]
    }

    /// Adds another shard's gauges to these: every gauge is a sum over the shards.
    pub fn merge(&mut self, other: &Gauges) {
        for &gauge in Gauge::ALL {
            self.add(gauge, other.get(gauge));
        }
    }
}

impl Default for Gauges {
    fn default() -> Gauges {
        Gauges::new()
    }
}

/// The latency histograms of one shard.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    histograms: [LatencyHistogram; Timing::COUNT],
}

impl Latencies {
    /// Returns histograms that are all empty.
    #[must_use]
    pub fn new() -> Latencies {
        Latencies::default()
    }

    /// Records one latency, in nanoseconds.
    #[inline]
    pub fn record(&mut self, timing: Timing, ns: u64) {
        self.histograms[timing as usize].record(ns);
    }

    /// Records a latency, in nanoseconds, `n` times: once for each message of a send.
    #[inline]
    pub fn record_n(&mut self, timing: Timing, ns: u64, n: u64) {
        self.histograms[timing as usize].record_n(ns, n);
    }

    /// Returns the histogram of a latency.
    #[must_use]
    pub fn get(&self, timing: Timing) -> &LatencyHistogram {
        &self.histograms[timing as usize]
    }

    /// Adds another shard's histograms to these.
    pub fn merge(&mut self, other: &Latencies) {
        for (ours, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            ours.merge(theirs);
        }
    }
}

/// The statistics of one shard at one moment, or the sum of several shards' statistics.
///
/// A shard keeps a snapshot as its live statistics, and clones it on request.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The counters.
    pub counters: Counters,
    /// The gauges.
    pub gauges: Gauges,
    /// The latencies.
    pub latencies: Latencies,
    /// The applications, in the same order on all shards.
    pub apps: Vec<NamedApp>,
    /// The rules. While rules are changed, shards may have different ones.
    pub rules: Vec<NamedRule>,
}

impl Snapshot {
    /// Returns a snapshot in which everything is zero.
    #[must_use]
    pub fn new() -> Snapshot {
        Snapshot::default()
    }

    /// Returns a snapshot in which everything is zero, with these applications.
    #[must_use]
    pub fn with_apps<'a>(names: impl IntoIterator<Item = &'a str>) -> Snapshot {
        let named = |name: &str| NamedApp { name: name.into(), statistics: AppStatistics::default() };
        Snapshot { apps: names.into_iter().map(named).collect(), ..Snapshot::new() }
    }

    /// Returns the statistics of the application with this number.
    #[inline]
    pub fn app(&mut self, app: u32) -> &mut AppStatistics {
        &mut self.apps[app as usize].statistics
    }

    /// Adds another shard's statistics to these.
    pub fn merge(&mut self, other: &Snapshot) {
        self.counters.merge(&other.counters);
        self.gauges.merge(&other.gauges);
        self.latencies.merge(&other.latencies);
        for (index, theirs) in other.apps.iter().enumerate() {
            match self.apps.get_mut(index) {
                Some(ours) => ours.statistics.merge(&theirs.statistics),
                None => self.apps.push(theirs.clone()),
            }
        }
        for (index, theirs) in other.rules.iter().enumerate() {
            // Nearly always, all shards have the same rules.
            let is_same = |ours: &&mut NamedRule| ours.path == theirs.path;
            let at_index = self.rules.get(index).is_some_and(|ours| ours.path == theirs.path);
            let ours = if at_index { self.rules.get_mut(index) } else { self.rules.iter_mut().find(is_same) };
            match ours {
                Some(ours) => ours.merge(theirs),
                None => self.rules.push(theirs.clone()),
            }
        }
    }
}

/// Returns all metrics as Markdown tables for the docs.
#[must_use]
pub fn docs() -> String {
    let counters = Counter::ALL.iter().map(|counter| counter.metric());
    let gauges = Gauge::ALL.iter().map(|gauge| gauge.metric());
    let timings = Timing::ALL.iter().map(|timing| timing.metric());
    let app_counters = AppCounter::ALL.iter().map(|counter| counter.metric());
    let app_timings = AppTiming::ALL.iter().map(|timing| timing.metric());
    let rule_counters = RuleCounter::ALL.iter().map(|counter| counter.metric());
    let rule_gauges = RuleGauge::ALL.iter().map(|gauge| gauge.metric());
    let tables = [
        table("Counters", counters),
        table("Gauges", gauges),
        table("Latencies", timings),
        table("Counters of each application", app_counters),
        table("Latencies of each application", app_timings),
        table("Counters of each rule", rule_counters),
        table("Gauges of each rule", rule_gauges),
    ];
    tables.join("\n")
}

fn table(heading: &str, metrics: impl Iterator<Item = Metric>) -> String {
    let mut table = format!("### {heading}\n\n| name | unit | description |\n| --- | --- | --- |\n");
    for Metric { name, unit, help } in metrics {
        table.push_str(&format!("| `{name}` | {unit} | {help} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all_metrics() -> Vec<Metric> {
        let counters = Counter::ALL.iter().map(|counter| counter.metric());
        let gauges = Gauge::ALL.iter().map(|gauge| gauge.metric());
        let timings = Timing::ALL.iter().map(|timing| timing.metric());
        let app_counters = AppCounter::ALL.iter().map(|counter| counter.metric());
        let app_timings = AppTiming::ALL.iter().map(|timing| timing.metric());
        let rule_counters = RuleCounter::ALL.iter().map(|counter| counter.metric());
        let rule_gauges = RuleGauge::ALL.iter().map(|gauge| gauge.metric());
        counters
            .chain(gauges)
            .chain(timings)
            .chain(app_counters)
            .chain(app_timings)
            .chain(rule_counters)
            .chain(rule_gauges)
            .collect()
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for metric in all_metrics() {
            assert!(seen.insert(metric.name), "{} appears twice", metric.name);
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
            assert!(!metric.unit.is_empty());
        }
    }

    #[test]
    fn the_enum_indexes_its_table() {
        for (index, &counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter as usize, index);
        }
        for (index, &gauge) in Gauge::ALL.iter().enumerate() {
            assert_eq!(gauge as usize, index);
        }
        for (index, &timing) in Timing::ALL.iter().enumerate() {
            assert_eq!(timing as usize, index);
        }
    }

    #[test]
    fn the_docs_have_a_row_for_each() {
        let docs = docs();
        for metric in all_metrics() {
            assert!(docs.contains(&format!("| `{}` | {} | {} |\n", metric.name, metric.unit, metric.help)));
        }
    }

    #[test]
    fn shared_counters_are_added_to_those_of_a_shard() {
        let (shared, mut counters) = (SharedCounters::new(), Counters::new());
        shared.add(Counter::ApiEvents, 2);
        shared.add(Counter::ApiEvents, 3);
        counters.add(Counter::ApiEvents, 1);
        shared.add_to(&mut counters);
        assert_eq!(counters.get(Counter::ApiEvents), 6);
        assert_eq!(counters.get(Counter::ApiRequests), 0);
    }

    #[test]
    fn merging_sums_every_part() {
        let mut one = Snapshot::new();
        one.counters.add(Counter::Sends, 3);
        one.gauges.set(Gauge::Clients, 5);
        one.latencies.record(Timing::Turn, 1_000);
        let mut two = Snapshot::new();
        two.counters.add(Counter::Sends, 4);
        two.counters.add(Counter::Turns, 1);
        two.gauges.add(Gauge::Clients, 7);
        two.gauges.sub(Gauge::Clients, 1);
        two.latencies.record_n(Timing::Turn, 9_000, 2);
        let mut three = Snapshot::with_apps(["chat"]);
        three.app(0).add_answer(500);
        three.app(0).add_answer(200);
        three.app(0).record(AppTiming::Answer, Duration::from_micros(5));
        for (path, events) in [("/a", 1), ("/b", 2)] {
            three.rules.push(NamedRule::new(path));
            three.rules.last_mut().unwrap().add(RuleCounter::EventsLimited, events);
            three.rules.last_mut().unwrap().set_gauge(RuleGauge::HistoryBytes, 100 * events);
        }
        two.merge(&three);
        // A shard that has other rules already.
        three.rules.reverse();
        three.rules.push(NamedRule::new("/c"));
        two.merge(&three);

        one.merge(&two);
        assert_eq!(one.counters.get(Counter::Sends), 7);
        assert_eq!(one.counters.get(Counter::Turns), 1);
        assert_eq!(one.gauges.get(Gauge::Clients), 11);
        assert_eq!(one.latencies.get(Timing::Turn).summary().count, 3);
        assert_eq!(one.latencies.get(Timing::Route).summary().count, 0);
        let NamedApp { name, statistics } = &one.apps[0];
        let counts = [AppCounter::Failures, AppCounter::Refusals].map(|counter| statistics.get(counter));
        assert_eq!((&**name, counts), ("chat", [2, 0]));
        assert_eq!(statistics.latency(AppTiming::Answer).summary().count, 2);
        let limited = one.rules.iter().map(|rule| (&*rule.path, rule.get(RuleCounter::EventsLimited)));
        assert!(limited.eq([("/a", 2), ("/b", 4), ("/c", 0)]));
        let bytes = one.rules.iter().map(|rule| rule.gauge(RuleGauge::HistoryBytes));
        assert!(bytes.eq([200, 400, 0]));
    }
}
