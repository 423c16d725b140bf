//! The flags: their names, help texts, scenarios and fields.

use super::Args;
use crate::plan::{Protocol, Scenario};
use std::fs;
use std::time::Duration;

/// A flag.
pub struct Flag {
    pub name: &'static str,
    /// The placeholder of its value in the help; empty for a flag without a value.
    pub value: &'static str,
    pub doc: &'static str,
    /// The scenarios that have the flag; empty if all have it.
    pub scenarios: &'static [Scenario],
    pub set: fn(&mut Args, &str) -> Result<(), String>,
}

/// Flags about clients that do not exist over HTTP. There are no churners, because a client cannot ask for the end of
/// its session, and no slow clients, because they would not differ from those over WebSocket.
pub const NOT_OVER_HTTP: &[&str] = &["slow", "slow-buffer", "churners", "churn-rate"];

/// The flags of all scenarios that `million` does not have: it has its own steps, one thread, and one protocol.
const NOT_OF_MILLION: &[&str] = &[
    "protocol",
    "compression",
    "token-file",
    "server-pid",
    "worker-pid",
    "seconds",
    "warmup",
    "settle",
    "drain",
    "threads",
    "processes",
    "cpu",
    "json",
    "tls",
    "tls-ca",
    "tls-name",
    "tls-full",
];

use Scenario::{Churn, Fanout, Hold, Million, Mixed, Ping, Slow};

/// All flags, in the order in which they are shown.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "connections",
        value: "N",
        doc: "number of clients (hold 10000, ping 200, churn 50 at a time, million 1000000)",
        scenarios: &[Hold, Ping, Churn, Million],
        set: |args, value| {
            let plan = &mut args.plan;
            let field = match plan.scenario {
                Million => &mut args.million.clients,
                Hold => &mut plan.idle,
                Ping => &mut plan.pingers,
                _ => &mut plan.churners,
            };
            count(field, value)
        },
    },
    Flag {
        name: "rooms",
        value: "N",
        doc: "number of paths that idle clients subscribe to, one path per client; 0: they do not subscribe (100; \
              million 1000)",
        scenarios: &[Hold, Mixed, Million],
        set: |args, value| {
            let field = match args.plan.scenario {
                Million => &mut args.million.rooms,
                _ => &mut args.plan.idle_rooms,
            };
            count(field, value)
        },
    },
    Flag {
        name: "event",
        value: "PATH",
        doc: "event to send as a ping; it must be answered 200 (/qio/ping)",
        scenarios: &[Ping, Mixed],
        set: |args, value| {
            args.plan.ping_event = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "depth",
        value: "N",
        doc: "number of open pings per client, without --rate (1)",
        scenarios: &[Ping, Mixed],
        set: |args, value| count(&mut args.plan.depth, value),
    },
    Flag {
        name: "rate",
        value: "R",
        doc: "pings, publishes or connections per second, over all clients; 0: each starts when the previous \
              one has finished (0; slow 200)",
        scenarios: &[Ping, Fanout, Churn, Slow],
        set: |args, value| {
            let plan = &mut args.plan;
            let field = match plan.scenario {
                Ping => &mut plan.ping_rate,
                Churn => &mut plan.churn_rate,
                _ => &mut plan.publish_rate,
            };
            rate(field, value)
        },
    },
    Flag {
        name: "subscribers",
        value: "N",
        doc: "number of clients that receive the published events (fanout 1000, slow 50, mixed 500)",
        scenarios: &[Fanout, Slow, Mixed],
        set: |args, value| count(&mut args.plan.subscribers, value),
    },
    Flag {
        name: "publishers",
        value: "N",
        doc: "number of clients that publish, each to a room of its own; the subscribers are divided among \
              the rooms (1; mixed 2)",
        scenarios: &[Fanout, Slow, Mixed],
        set: |args, value| count(&mut args.plan.publishers, value),
    },
    Flag {
        name: "size",
        value: "BYTES",
        doc: "size of the data of a published event (64; slow 16384)",
        scenarios: &[Fanout, Slow, Mixed],
        set: |args, value| count(&mut args.plan.size, value),
    },
    Flag {
        name: "json-rows",
        value: "",
        doc: "fill published events up to their size with rows of JSON and not with spaces, which compression would remove",
        scenarios: &[Fanout, Slow],
        set: |args, _| {
            args.plan.has_rows = true;
            Ok(())
        },
    },
    Flag {
        name: "burst",
        value: "N",
        doc: "number of events per publish, sent in one write (1)",
        scenarios: &[Fanout, Slow, Mixed],
        set: |args, value| count(&mut args.plan.burst, value),
    },
    Flag {
        name: "slow",
        value: "N",
        doc: "number of subscribers that never read (slow 10, mixed 5)",
        scenarios: &[Slow, Mixed],
        set: |args, value| count(&mut args.plan.slow, value),
    },
    Flag {
        name: "slow-buffer",
        value: "BYTES",
        doc: "receive buffer of a subscriber that never reads (4096)",
        scenarios: &[Slow, Mixed],
        set: |args, value| count(&mut args.plan.slow_buffer_bytes, value),
    },
    Flag {
        name: "pingers",
        value: "N",
        doc: "number of clients that ping (100; million 1000, each once a second)",
        scenarios: &[Mixed, Million],
        set: |args, value| {
            let field = match args.plan.scenario {
                Million => &mut args.million.pingers,
                _ => &mut args.plan.pingers,
            };
            count(field, value)
        },
    },
    Flag {
        name: "connect-rate",
        value: "R",
        doc: "connections per second; 0: as fast as the server accepts them (0)",
        scenarios: &[Million],
        set: |args, value| rate(&mut args.million.connect_rate, value),
    },
    Flag {
        name: "clients-per-ring",
        value: "N",
        doc: "number of clients of a ring, at most `ulimit -n` (that number)",
        scenarios: &[Million],
        set: |args, value| {
            let mut clients = 0;
            count(&mut clients, value)?;
            args.million.clients_per_ring = Some(clients);
            Ok(())
        },
    },
    Flag {
        name: "churners",
        value: "N",
        doc: "number of clients that repeatedly connect, ping and close (10)",
        scenarios: &[Mixed],
        set: |args, value| count(&mut args.plan.churners, value),
    },
    Flag {
        name: "idle",
        value: "N",
        doc: "number of idle clients (1000)",
        scenarios: &[Mixed],
        set: |args, value| count(&mut args.plan.idle, value),
    },
    Flag {
        name: "ping-rate",
        value: "R",
        doc: "pings per second (1000)",
        scenarios: &[Mixed],
        set: |args, value| rate(&mut args.plan.ping_rate, value),
    },
    Flag {
        name: "publish-rate",
        value: "R",
        doc: "publishes per second (20)",
        scenarios: &[Mixed],
        set: |args, value| rate(&mut args.plan.publish_rate, value),
    },
    Flag {
        name: "churn-rate",
        value: "R",
        doc: "connections per second (50)",
        scenarios: &[Mixed],
        set: |args, value| rate(&mut args.plan.churn_rate, value),
    },
    Flag {
        name: "no-ping",
        value: "",
        doc: "clients close their connection after the greeting, without a ping",
        scenarios: &[Churn],
        set: |args, _| {
            args.plan.churn_pings = false;
            Ok(())
        },
    },
    Flag {
        name: "server",
        value: "ADDR",
        doc: "address of the server (127.0.0.1:8080)",
        scenarios: &[],
        set: |args, value| parsed(&mut args.plan.server, value, "an address such as 127.0.0.1:8080"),
    },
    Flag {
        name: "protocol",
        value: "NAME",
        doc: "websocket, raw, long-polling, event-stream, or none: plain bytes of the same number as over \
              WebSocket, for examples/floor.rs (websocket)",
        scenarios: &[],
        set: |args, value| {
            let named = Protocol::ALL.into_iter().find(|protocol| protocol.name() == value);
            args.plan.protocol =
                named.ok_or("expected websocket, raw, long-polling, event-stream or none")?;
            Ok(())
        },
    },
    Flag {
        name: "tls",
        value: "",
        doc: "clients use TLS; to a server on loopback they accept any certificate",
        scenarios: &[],
        set: |args, _| {
            args.plan.tls.get_or_insert_default();
            Ok(())
        },
    },
    Flag {
        name: "tls-ca",
        value: "FILE",
        doc: "use TLS, and accept only certificates from the authorities in this file",
        scenarios: &[],
        set: |args, value| {
            args.plan.tls.get_or_insert_default().ca = Some(value.into());
            Ok(())
        },
    },
    Flag {
        name: "tls-name",
        value: "NAME",
        doc: "use TLS, and ask for the certificate of this name (the address)",
        scenarios: &[],
        set: |args, value| {
            args.plan.tls.get_or_insert_default().name = Some(value.to_owned());
            Ok(())
        },
    },
    Flag {
        name: "tls-full",
        value: "",
        doc: "use TLS, and resume no session: every handshake is a full one",
        scenarios: &[],
        set: |args, _| {
            args.plan.tls.get_or_insert_default().resumes = false;
            Ok(())
        },
    },
    Flag {
        name: "compression",
        value: "",
        doc: "clients over WebSocket offer compression (permessage-deflate) as a browser does, and inflate what they \
              receive",
        scenarios: &[],
        set: |args, _| {
            args.plan.compression = true;
            Ok(())
        },
    },
    Flag {
        name: "token-file",
        value: "FILE",
        doc: "clients over WebSocket have tokens: each connection that is opened has the next line of this file",
        scenarios: &[],
        set: |args, value| {
            args.plan.tokens = tokens(value)?.into();
            Ok(())
        },
    },
    Flag {
        name: "server-pid",
        value: "PID",
        doc: "process of the server, to measure its CPU time and memory",
        scenarios: &[],
        set: |args, value| {
            args.server_pid = Some(value.parse().map_err(|_| "expected a process id")?);
            Ok(())
        },
    },
    Flag {
        name: "worker-pid",
        value: "PID",
        doc: "worker process of the server, to measure its CPU time too",
        scenarios: &[],
        set: |args, value| {
            args.worker_pid = Some(value.parse().map_err(|_| "expected a process id")?);
            Ok(())
        },
    },
    Flag {
        name: "seconds",
        value: "S",
        doc: "duration of the measurement (5)",
        scenarios: &[],
        set: |args, value| seconds(&mut args.plan.seconds, value),
    },
    Flag {
        name: "warmup",
        value: "S",
        doc: "duration of the load before the measurement (1; hold 0)",
        scenarios: &[],
        set: |args, value| seconds(&mut args.plan.warmup, value),
    },
    Flag {
        name: "settle",
        value: "S",
        doc: "pause between the last connection and the first load (0.5)",
        scenarios: &[],
        set: |args, value| seconds(&mut args.plan.settle, value),
    },
    Flag {
        name: "drain",
        value: "S",
        doc: "maximum time to wait for outstanding messages at the end (5)",
        scenarios: &[],
        set: |args, value| seconds(&mut args.plan.drain, value),
    },
    Flag {
        name: "connect-timeout",
        value: "S",
        doc: "time limit for opening all connections; million: for each part of an opening (60)",
        scenarios: &[],
        set: |args, value| seconds(&mut args.plan.connect_timeout, value),
    },
    Flag {
        name: "connect-window",
        value: "N",
        doc: "number of connections that a thread opens at a time (64; million 1000)",
        scenarios: &[],
        set: |args, value| count(&mut args.plan.connect_window, value),
    },
    Flag {
        name: "sources",
        value: "N",
        doc: "number of loopback addresses to connect from, starting at 127.0.0.1 (16; million: one for each \
              7000 clients)",
        scenarios: &[],
        set: |args, value| count(&mut args.plan.sources, value),
    },
    Flag {
        name: "threads",
        value: "N",
        doc: "number of threads per process, with one ring each (1)",
        scenarios: &[],
        set: |args, value| count(&mut args.threads, value),
    },
    Flag {
        name: "processes",
        value: "N",
        doc: "number of processes, if the file descriptors of one are not enough (1)",
        scenarios: &[],
        set: |args, value| count(&mut args.processes, value),
    },
    Flag {
        name: "cpu",
        value: "LIST",
        doc: "cores to which the threads are pinned, in turn: 1 or 1,2,3 (not pinned)",
        scenarios: &[],
        set: |args, value| {
            let cpus = value.split(',').map(str::parse).collect::<Result<_, _>>();
            args.cpus = cpus.map_err(|_| "expected core numbers, such as 1 or 1,2,3")?;
            Ok(())
        },
    },
    Flag {
        name: "json",
        value: "FILE",
        doc: "also write the report to this file, as JSON",
        scenarios: &[],
        set: |args, value| {
            args.json = Some(value.into());
            Ok(())
        },
    },
    Flag {
        name: "quiet",
        value: "",
        doc: "do not show progress",
        scenarios: &[],
        set: |args, _| {
            args.quiet = true;
            Ok(())
        },
    },
];

impl Flag {
    /// Returns whether a scenario has the flag.
    pub fn belongs_to(&self, scenario: Scenario) -> bool {
        match self.scenarios {
            [] => scenario != Million || !NOT_OF_MILLION.contains(&self.name),
            scenarios => scenarios.contains(&scenario),
        }
    }
}

/// Reads a file with a token in each line.
fn tokens(path: &str) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
    let tokens: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_token = |line: &String| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_graphic());
    match tokens.iter().position(|line| !is_token(line)) {
        Some(line) => Err(format!("line {} is no token", line + 1)),
        None if tokens.is_empty() => Err("it is empty".into()),
        None => Ok(tokens),
    }
}

fn count(field: &mut usize, value: &str) -> Result<(), String> {
    parsed(field, &value.replace('_', ""), "a whole number")
}

fn parsed<T: std::str::FromStr>(field: &mut T, value: &str, what: &str) -> Result<(), String> {
    *field = value.parse().map_err(|_| format!("expected {what}"))?;
    Ok(())
}

fn rate(field: &mut f64, value: &str) -> Result<(), String> {
    match value.replace('_', "").parse::<f64>() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => *field = rate,
        _ => return Err("expected a number per second, up to ten million".into()),
    }
    Ok(())
}

/// Parses a duration in seconds, of at most a day: every run must end.
fn seconds(field: &mut Duration, value: &str) -> Result<(), String> {
    match value.trim_end_matches('s').parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => *field = Duration::from_secs_f64(seconds),
        _ => return Err("expected seconds, such as 5 or 0.5, up to a day".into()),
    }
    Ok(())
}
