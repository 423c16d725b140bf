//! Every counter, gauge and latency of a shard: its name, its unit, and what it tells the operator.
//!
//! A shard counts in plain integers of its own ([`Counters`], [`Gauges`], [`Timers`]); nothing here is locked,
//! atomic or shared. A request to the statistics endpoint gathers a [`Snapshot`] from each shard.

use crate::qev::stats::LatencyHistogram;

/// What is known of a counter, gauge or timer beside its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name in `/stats`; in `/metrics` with `quickio_` before it. Lower case, words joined by `_`.
    pub name: &'static str,
    /// What one is: `connections`, `bytes`, `events`; `microseconds` for timers.
    pub unit: &'static str,
    /// One sentence for the operator.
    pub help: &'static str,
}

/// Declares an enum of metrics and the table beside it, so that neither can lack what the other has.
macro_rules! metrics {
    ($(#[$doc:meta])* $list:ident { $($variant:ident = $name:literal, $unit:literal, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $list {
            $(#[doc = $help] $variant,)+
        }

        impl $list {
            /// All of them, in the order they are shown.
            pub const ALL: &'static [$list] = &[$($list::$variant),+];

            /// How many there are.
            pub const COUNT: usize = $list::ALL.len();

            /// Its name, unit and help.
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
    /// What only ever grows, from the start of the server on.
    Counter {
        ConnectionsAccepted = "connections_accepted", "connections",
            "Connections accepted from the kernel.";
        ConnectionsClosed = "connections_closed", "connections",
            "Connections that ended, whatever the cause.";
        ConnectionsRefusedLimit = "connections_refused_limit", "connections",
            "Connections closed at once because clients-max were connected.";
        ConnectionsRefusedAddress = "connections_refused_address", "connections",
            "Connections closed at once because their address had connections-per-address-max already.";
        ConnectionsRefusedDescriptors = "connections_refused_descriptors", "connections",
            "Connections that the kernel could not give because no descriptor was free.";
        AcceptErrors = "accept_errors", "errors",
            "Accepts that failed for any other reason.";
        ProtocolUnknown = "protocol_unknown", "connections",
            "Connections closed because their first bytes fit no protocol.";
        HandshakesWebsocket = "handshakes_websocket", "connections",
            "WebSocket clients that completed their handshake, up to /qio/ohai.";
        HandshakesRaw = "handshakes_raw", "connections",
            "Raw TCP clients that completed their handshake.";
        HandshakesRefused = "handshakes_refused", "connections",
            "Handshakes refused: an HTTP request answered with an error, or a first message other than /qio/ohai.";
        TimeoutsHandshake = "timeouts_handshake", "connections",
            "Connections closed because they did not complete their handshake within timeout.";
        TimeoutsMessage = "timeouts_message", "connections",
            "Connections closed because they did not complete a message within timeout of beginning it.";
        TimeoutsLiveness = "timeouts_liveness", "connections",
            "Connections closed because nothing came from them for heartbeat-timeout.";
        TimeoutsSession = "timeouts_session", "sessions",
            "HTTP sessions ended because no request of them came for timeout: their clients have gone.";
        TimeoutsClose = "timeouts_close", "connections",
            "Connections dropped because the peer did not do its part of the closing handshake within close-timeout.";
        ClosesViolation = "closes_violation", "connections",
            "Connections closed because the peer broke a rule of its protocol (WebSocket: 1002).";
        ClosesInvalidUtf8 = "closes_invalid_utf8", "connections",
            "Connections closed because a text was not UTF-8 (WebSocket: 1007).";
        ClosesTooLarge = "closes_too_large", "connections",
            "Connections closed because a message was over message-bytes-max (WebSocket: 1009).";
        ClosesBinary = "closes_binary", "connections",
            "Connections closed because a binary message came (WebSocket: 1003).";
        ClosesMalformedEvent = "closes_malformed_event", "connections",
            "Connections closed because a message was no event (WebSocket: 1002).";
        ClosesSlow = "closes_slow", "connections",
            "Connections closed because the peer did not read and its outbox was full (WebSocket: 1013).";
        ClosesByPeer = "closes_by_peer", "connections",
            "Connections that the peer closed in good order.";
        ClosesReset = "closes_reset", "connections",
            "Connections that ended with an error of the network, as when the peer vanished.";
        ClosesByApp = "closes_by_app", "connections",
            "Connections that an application closed.";
        ClosesShutdown = "closes_shutdown", "connections",
            "Connections closed because the server shut down (WebSocket: 1001).";
        HttpRequests = "http_requests", "requests",
            "HTTP requests for sessions and documents.";
        HttpRelayed = "http_relayed", "requests",
            "HTTP requests passed to the shard that their session lives on.";
        HttpRefused = "http_refused", "requests",
            "HTTP requests refused on connections that live on: malformed or unknown sids, documents that are not there.";
        HttpRefusedBusy = "http_refused_busy", "requests",
            "HTTP requests answered 503 because the shard of their session was too far behind.";
        HttpRefusedEarly = "http_refused_early", "requests",
            "HTTP requests answered 429 because too many of their session waited for one before them (seq).";
        SessionsCreated = "sessions_created", "sessions",
            "HTTP sessions created, by clients that poll or stream.";
        SessionsRefused = "sessions_refused", "sessions",
            "HTTP sessions not created because clients-max were connected, or the server shut down (503).";
        SessionsUnknown = "sessions_unknown", "requests",
            "HTTP requests that named a session that is not there (403): it has ended, or somebody guesses.";
        StreamsOpened = "streams_opened", "streams",
            "Event streams opened.";
        BytesReceived = "bytes_received", "bytes",
            "Bytes received from peers.";
        BytesSent = "bytes_sent", "bytes",
            "Bytes that the kernel took for peers.";
        EventsReceived = "events_received", "events",
            "Well-formed events received from clients.";
        EventsUnrouted = "events_unrouted", "events",
            "Events received at whose path nothing is registered (answered 404).";
        MessagesSent = "messages_sent", "messages",
            "Events, answers and heartbeats put into outboxes, one for each client that gets it.";
        Sends = "sends", "sends",
            "Sends submitted to the kernel; one send carries everything that a client got in a turn.";
        SendErrors = "send_errors", "sends",
            "Sends that failed; the connection is closed.";
        Answers = "answers", "answers",
            "Answers sent to callbacks of clients.";
        AnswersLateDropped = "answers_late_dropped", "answers",
            "Answers that came after their client had gone, and were dropped.";
        Broadcasts = "broadcasts", "broadcasts",
            "Broadcasts accepted from applications, on the shard where they began.";
        BroadcastDeliveries = "broadcast_deliveries", "messages",
            "Messages that broadcasts put into the outboxes of subscribers.";
        Subscribes = "subscribes", "subscriptions",
            "Subscriptions that became active.";
        Unsubscribes = "unsubscribes", "subscriptions",
            "Active subscriptions that ended, by the client's wish or with its connection.";
        SubscriptionsRefusedLimit = "subscriptions_refused_limit", "subscriptions",
            "Subscriptions answered 420 because of clients-subs-total or clients-subs-min.";
        SubscriptionsRefusedApp = "subscriptions_refused_app", "subscriptions",
            "Subscriptions that an application refused.";
        CallbacksIssued = "callbacks_issued", "callbacks",
            "Server callbacks offered to clients.";
        CallbacksFired = "callbacks_fired", "callbacks",
            "Server callbacks that clients fired.";
        CallbacksExpired = "callbacks_expired", "callbacks",
            "Server callbacks dropped because they were not fired within clients-cb-max-age.";
        CallbacksEvicted = "callbacks_evicted", "callbacks",
            "Server callbacks dropped because their client was offered one more than it may hold.";
        CallbacksUnknown = "callbacks_unknown", "callbacks",
            "Callback ids from clients that were stale, unknown or malformed (answered 404 or 400).";
        Heartbeats = "heartbeats", "messages",
            "Heartbeats sent to clients that were sent nothing else.";
        Challenges = "challenges", "messages",
            "Heartbeats sent that the client must answer, since nothing came from it for heartbeat-challenge.";
        MeshSent = "mesh_sent", "messages",
            "Messages sent to other shards.";
        MeshReceived = "mesh_received", "messages",
            "Messages received from other shards.";
        MeshOverflowed = "mesh_overflowed", "messages",
            "Messages to other shards that found the ring full and waited in the overflow queue.";
        MeshRefused = "mesh_refused", "messages",
            "Messages to other shards that were lost because ring and overflow queue were full.";
        InboxReceived = "inbox_received", "messages",
            "Commands received from application threads.";
        InboxRefused = "inbox_refused", "messages",
            "Commands of application threads that were refused because the shard's inbox was full.";
        WorkersStarted = "workers_started", "workers",
            "Worker processes started, those that took another one's place among them.";
        WorkersCrashed = "workers_crashed", "workers",
            "Worker processes that ended as they should not, also those that were killed because they hung.";
        WorkersHung = "workers_hung", "workers",
            "Worker processes killed because they did not answer a ping within worker-timeout.";
        WorkerLinesDropped = "worker_lines_dropped", "lines",
            "Lines that workers printed and that were not logged, because there were too many.";
        WorkerEvents = "worker_events", "events",
            "Events, subscriptions, ends of subscriptions and answers to callbacks sent to workers.";
        WorkerEventsRefused = "worker_events_refused", "events",
            "Events and subscriptions that no worker was given: it had worker-requests-max under way or \
             worker-outbox-bytes-max unread (420), or was not running (500).";
        WorkerRequestsFailed = "worker_requests_failed", "requests",
            "Events, subscriptions and answers to callbacks that a worker had under way when it ended (answered 500).";
        WorkerRequestsTimedOut = "worker_requests_timed_out", "requests",
            "Events, subscriptions and answers to callbacks that a worker did not answer within worker-request-timeout (500).";
        WorkerAnswersLate = "worker_answers_late", "answers",
            "Answers of workers to what was not under way any more; they are dropped.";
        WorkerFramesRefused = "worker_frames_refused", "frames",
            "Frames of workers left out because of what stood in them: a bad path, data that is no JSON.";
        Doorbells = "doorbells", "wakeups",
            "Times that this shard woke another one that slept.";
        Turns = "turns", "turns",
            "Turns of the shard's loop.";
        Sleeps = "sleeps", "sleeps",
            "Times that the shard slept because there was nothing to do.";
        BuffersExhausted = "buffers_exhausted", "receives",
            "Receives that the kernel ended because no receive buffer was free; they are begun again.";
        SubmissionsFull = "submissions_full", "submissions",
            "Times that the submission queue was full and had to be handed to the kernel before the turn's end.";
    }
}

metrics! {
    /// What goes up and down: the state of a shard at this moment.
    Gauge {
        Connections = "connections", "connections",
            "Connections open now, in handshake or in use.";
        Clients = "clients", "clients",
            "Clients whose handshake is complete.";
        HttpSessions = "http_sessions", "sessions",
            "HTTP sessions, whether a request of them is held or not. Each is a client.";
        Subscriptions = "subscriptions", "subscriptions",
            "Active subscriptions.";
        Paths = "paths", "paths",
            "Paths that the shard keeps, with subscribers here or on another shard; one path counts on each shard.";
        OutboxBytes = "outbox_bytes", "bytes",
            "Bytes that wait in outboxes for their client to read.";
        CallbacksOpen = "callbacks_open", "callbacks",
            "Server callbacks that clients may still fire.";
        WorkerLinks = "worker_links", "links",
            "Links to workers that get events: one for each worker on each shard.";
        WorkerRequests = "worker_requests", "requests",
            "Events, subscriptions and answers to callbacks that workers have under way.";
        WorkerOutboxBytes = "worker_outbox_bytes", "bytes",
            "Bytes that wait for workers to read them.";
        Timers = "timers", "timers",
            "Timers set in the timing wheel.";
    }
}

metrics! {
    /// What takes time, recorded as a latency histogram.
    Timing {
        Turn = "turn", "microseconds",
            "A turn of the shard's loop, from waking to the submission; sleep is not in it.";
        Route = "route", "microseconds",
            "An event, from its receipt to the end of its handler.";
        MeshHop = "mesh_hop", "microseconds",
            "A message between shards, from its sending to its receipt by the other one.";
        Send = "send", "microseconds",
            "A send, from the moment its messages were queued to its completion by the kernel.";
        Delivery = "delivery", "microseconds",
            "A broadcast, from its acceptance to the completion of the send at each subscriber.";
    }
}

/// The counters of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    values: [u64; Counter::COUNT],
}

impl Counters {
    /// All zero.
    #[must_use]
    pub const fn new() -> Counters {
        Counters { values: [0; Counter::COUNT] }
    }

    /// Counts `n` more.
    #[inline]
    pub fn add(&mut self, counter: Counter, n: u64) {
        let value = &mut self.values[counter as usize];
        *value = value.wrapping_add(n);
    }

    /// How many were counted so far.
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

/// The gauges of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauges {
    values: [u64; Gauge::COUNT],
}

impl Gauges {
    /// All zero.
    #[must_use]
    pub const fn new() -> Gauges {
        Gauges { values: [0; Gauge::COUNT] }
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&mut self, gauge: Gauge, value: u64) {
        self.values[gauge as usize] = value;
    }

    /// Moves a gauge up.
    #[inline]
    pub fn add(&mut self, gauge: Gauge, n: u64) {
        self.values[gauge as usize] += n;
    }

    /// Moves a gauge down; one that would fall below zero stays there, and a debug build stops: what is taken
    /// away must have been added before.
    #[inline]
    pub fn sub(&mut self, gauge: Gauge, n: u64) {
        let value = &mut self.values[gauge as usize];
        debug_assert!(*value >= n, "{gauge:?} falls from {value} by {n}");
        *value = value.saturating_sub(n);
    }

    /// The gauge's value.
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
pub struct Timers {
    timers: [LatencyHistogram; Timing::COUNT],
}

impl Timers {
    /// All empty.
    #[must_use]
    pub fn new() -> Timers {
        Timers::default()
    }

    /// Records one latency, in nanoseconds.
    #[inline]
    pub fn record(&mut self, timing: Timing, ns: u64) {
        self.timers[timing as usize].record(ns);
    }

    /// Records the same latency `n` times, in nanoseconds: a send that carried `n` messages.
    #[inline]
    pub fn record_n(&mut self, timing: Timing, ns: u64, n: u64) {
        self.timers[timing as usize].record_n(ns, n);
    }

    /// The histogram.
    #[must_use]
    pub fn get(&self, timing: Timing) -> &LatencyHistogram {
        &self.timers[timing as usize]
    }

    /// Adds another shard's histograms to these.
    pub fn merge(&mut self, other: &Timers) {
        for (mine, others) in self.timers.iter_mut().zip(&other.timers) {
            mine.merge(others);
        }
    }
}

/// Everything that one shard counted, at one moment; or, merged, all of them.
///
/// A shard keeps one as its live statistics and clones it when it is asked.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What only grows.
    pub counters: Counters,
    /// What goes up and down.
    pub gauges: Gauges,
    /// What takes time.
    pub timers: Timers,
}

impl Snapshot {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Snapshot {
        Snapshot::default()
    }

    /// Adds another shard's statistics to these.
    pub fn merge(&mut self, other: &Snapshot) {
        self.counters.merge(&other.counters);
        self.gauges.merge(&other.gauges);
        self.timers.merge(&other.timers);
    }
}

/// Everything that is counted, as tables in Markdown for the docs.
#[must_use]
pub fn docs() -> String {
    let counters = Counter::ALL.iter().map(|counter| counter.metric());
    let gauges = Gauge::ALL.iter().map(|gauge| gauge.metric());
    let timings = Timing::ALL.iter().map(|timing| timing.metric());
    let tables = [table("Counters", counters), table("Gauges", gauges), table("Latencies", timings)];
    tables.join("\n")
}

fn table(heading: &str, metrics: impl Iterator<Item = Metric>) -> String {
    let mut table = format!("### {heading}\n\n| name | unit | what it tells |\n| --- | --- | --- |\n");
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
        counters.chain(gauges).chain(timings).collect()
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for metric in all_metrics() {
            assert!(seen.insert(metric.name), "{} stands twice", metric.name);
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
    fn merging_sums_every_part() {
        let mut one = Snapshot::new();
        one.counters.add(Counter::Sends, 3);
        one.gauges.set(Gauge::Clients, 5);
        one.timers.record(Timing::Turn, 1_000);
        let mut two = Snapshot::new();
        two.counters.add(Counter::Sends, 4);
        two.counters.add(Counter::Turns, 1);
        two.gauges.add(Gauge::Clients, 7);
        two.gauges.sub(Gauge::Clients, 1);
        two.timers.record_n(Timing::Turn, 9_000, 2);

        one.merge(&two);
        assert_eq!(one.counters.get(Counter::Sends), 7);
        assert_eq!(one.counters.get(Counter::Turns), 1);
        assert_eq!(one.gauges.get(Gauge::Clients), 11);
        assert_eq!(one.timers.get(Timing::Turn).summary().count, 3);
        assert_eq!(one.timers.get(Timing::Route).summary().count, 0);
    }
}
