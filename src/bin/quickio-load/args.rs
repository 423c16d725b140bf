//! The command line. The parser and the help are made from one table of flags.

use crate::encoder::DATA_BYTES_MIN;
use crate::plan::{Plan, Protocol, Scenario, Share};
use lexopt::Arg;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// The action that a command line requests.
#[derive(Debug)]
pub enum Command {
    Run(Args),
    /// Runs a share of the clients, as a child process of a run.
    Part(Args, Share),
    /// Prints the sizes of the frames of a run.
    Sizes(Plan),
    Help(String),
}

/// A plan and the way in which it is executed.
#[derive(Clone, Debug)]
pub struct Args {
    pub plan: Plan,
    pub threads: usize,
    pub processes: usize,
    /// The cores to which threads are pinned, in turn. If it is empty, they are not pinned.
    pub cpus: Vec<usize>,
    pub server_pid: Option<u32>,
    /// A worker process of the server, whose CPU time is measured too.
    pub worker_pid: Option<u32>,
    pub json: Option<PathBuf>,
    pub quiet: bool,
    /// The arguments as typed, for the child processes and the report.
    pub typed: Vec<OsString>,
    share: Option<Share>,
    /// The names of the flags that were given.
    given: Vec<&'static str>,
}

/// A problem with the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

struct Flag {
    name: &'static str,
    /// The placeholder of its value in the help; empty for a flag without a value.
    value: &'static str,
    doc: &'static str,
    /// The scenarios that have the flag; empty if all have it.
    scenarios: &'static [Scenario],
    set: fn(&mut Args, &str) -> Result<(), String>,
}

/// Flags about clients that do not exist over HTTP. There are no churners, because a client cannot ask for the end of
/// its session, and no slow clients, because they would not differ from those over WebSocket.
const NOT_OVER_HTTP: &[&str] = &["slow", "slow-buffer", "churners", "churn-rate"];

use Scenario::{Churn, Fanout, Hold, Mixed, Ping, Slow};

/// All flags, in the order in which they are shown.
const FLAGS: &[Flag] = &[
    Flag {
        name: "connections",
        value: "N",
        doc: "number of clients (hold 10000, ping 200, churn 50 at a time)",
        scenarios: &[Hold, Ping, Churn],
        set: |args, value| {
            let plan = &mut args.plan;
            let field = match plan.scenario {
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
        doc: "number of paths that idle clients subscribe to, one path per client; 0: they do not subscribe (100)",
        scenarios: &[Hold, Mixed],
        set: |args, value| count(&mut args.plan.idle_rooms, value),
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
        doc: "number of clients that ping (100)",
        scenarios: &[Mixed],
        set: |args, value| count(&mut args.plan.pingers, value),
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
        doc: "time limit for opening all connections (60)",
        scenarios: &[],
        set: |args, value| seconds(&mut args.plan.connect_timeout, value),
    },
    Flag {
        name: "connect-window",
        value: "N",
        doc: "number of connections that a thread opens at a time (64)",
        scenarios: &[],
        set: |args, value| count(&mut args.plan.connect_window, value),
    },
    Flag {
        name: "sources",
        value: "N",
        doc: "number of loopback addresses to connect from, starting at 127.0.0.1 (16)",
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

/// Reads the command line.
pub fn parse(typed: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let typed: Vec<OsString> = typed.collect();
    let mut parser = lexopt::Parser::from_args(typed.clone());
    let first = match parser.next().map_err(usage_error)? {
        Some(Arg::Value(first)) => first.to_string_lossy().into_owned(),
        Some(Arg::Long("help") | Arg::Short('h')) | None => return Ok(Command::Help(help(None))),
        Some(other) => {
            return Err(UsageError(format!(
                "the first argument must be a scenario, not {other:?} (see --help)"
            )));
        }
    };
    let Some(scenario) = Scenario::find(if first == "sizes" { "fanout" } else { &first }) else {
        return Err(UsageError(format!(
            "there is no scenario {first}; the scenarios are {} (see --help)",
            scenario_names()
        )));
    };
    let mut args = Args::new(scenario, typed);
    while let Some(arg) = parser.next().map_err(usage_error)? {
        let name = match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(help(Some(scenario)))),
            Arg::Long(name) => name.to_owned(),
            other => return Err(UsageError(other.unexpected().to_string())),
        };
        args.flag(&name, &mut parser)?;
    }
    args.apply_protocol()?;
    args.validate()?;
    match args.share {
        _ if first == "sizes" => Ok(Command::Sizes(args.plan)),
        Some(share) => Ok(Command::Part(args, share)),
        None => Ok(Command::Run(args)),
    }
}

impl Args {
    fn new(scenario: Scenario, typed: Vec<OsString>) -> Args {
        Args {
            plan: Plan::new(scenario),
            threads: 1,
            processes: 1,
            cpus: Vec::new(),
            server_pid: None,
            worker_pid: None,
            json: None,
            quiet: false,
            typed,
            share: None,
            given: Vec::new(),
        }
    }

    fn flag(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), UsageError> {
        if name == SHARE {
            self.share = Some(share(&text(parser)?)?);
            return Ok(());
        }
        let scenario = self.plan.scenario;
        let flag = FLAGS.iter().find(|flag| flag.name == name);
        let flag = flag.ok_or_else(|| UsageError(format!("there is no flag --{name} (see --help)")))?;
        if !flag.belongs_to(scenario) {
            return Err(UsageError(format!("--{name} is not a flag of the scenario {}", scenario.name())));
        }
        let value = if flag.value.is_empty() { String::new() } else { text(parser)? };
        self.given.push(flag.name);
        (flag.set)(self, &value).map_err(|error| UsageError(format!("--{name} {value}: {error}")))
    }

    /// Removes the clients of `mixed` that do not exist over HTTP, and rejects scenarios and flags about them.
    fn apply_protocol(&mut self) -> Result<(), UsageError> {
        let plan = &mut self.plan;
        if !plan.protocol.is_http() {
            return Ok(());
        }
        let protocol = plan.protocol.name();
        if matches!(plan.scenario, Churn | Slow) {
            return Err(UsageError(format!(
                "--protocol {protocol} supports only hold, ping, fanout and mixed"
            )));
        }
        if let Some(flag) = NOT_OVER_HTTP.iter().find(|flag| self.given.contains(flag)) {
            return Err(UsageError(format!("--{flag} is not supported over {protocol}")));
        }
        (plan.churners, plan.slow) = (0, 0);
        Ok(())
    }

    fn validate(&self) -> Result<(), UsageError> {
        let plan = &self.plan;
        let workers = self.threads * self.processes;
        let connections = plan.connections() + plan.slow;
        let problem = if workers == 0 || plan.connect_window == 0 || plan.sources == 0 {
            "--threads, --processes, --connect-window and --sources must be at least 1".into()
        } else if plan.sources > 200 {
            "--sources must be at most 200".into()
        } else if connections == 0 {
            "the run has no clients".into()
        } else if plan.size < DATA_BYTES_MIN {
            format!("--size must be at least {DATA_BYTES_MIN}, because a published event contains its time")
        } else if plan.burst == 0 || plan.depth == 0 {
            "--burst and --depth must be at least 1".into()
        } else if plan.subscribers > 0 && plan.publishers == 0 {
            "subscribers need at least one publisher".into()
        } else if plan.protocol == Protocol::None && (workers > 1 || plan.publishers > 1) {
            "--protocol none supports only one thread and one publisher".into()
        } else if plan.protocol == Protocol::None && !matches!(plan.scenario, Hold | Ping | Fanout) {
            "--protocol none supports only hold, ping and fanout".into()
        } else if plan.protocol == Protocol::None && plan.depth > 1 {
            "--protocol none cannot distinguish two pings: --depth must be 1".into()
        } else {
            return Ok(());
        };
        Err(UsageError(problem))
    }
}

impl Flag {
    fn belongs_to(&self, scenario: Scenario) -> bool {
        self.scenarios.is_empty() || self.scenarios.contains(&scenario)
    }
}

/// The hidden flag that gives a child process its share of the clients: `1/4` is the second of four.
pub const SHARE: &str = "part";

fn share(value: &str) -> Result<Share, UsageError> {
    let error = || UsageError(format!("--{SHARE} {value}: expected a share such as 1/4"));
    let (index, of) = value.split_once('/').ok_or_else(error)?;
    let number = |text: &str| text.parse().map_err(|_| error());
    Ok(Share { index: number(index)?, of: number(of)? })
}

fn text(parser: &mut lexopt::Parser) -> Result<String, UsageError> {
    let value = parser.value().map_err(usage_error)?;
    value.into_string().map_err(|_| UsageError("a value is not valid UTF-8".into()))
}

fn usage_error(error: lexopt::Error) -> UsageError {
    UsageError(error.to_string())
}

fn scenario_names() -> String {
    Scenario::ALL.map(|(_, name, _)| name).join(", ")
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

fn help(scenario: Option<Scenario>) -> String {
    let mut out =
        String::from("Generates load against a QuickIO server and reports throughput, latency and cost.\n\n");
    let name = scenario.map_or("SCENARIO", Scenario::name);
    let _ = writeln!(out, "Usage: quickio-load {name} [FLAGS]\n\nScenarios:");
    for (known, name, doc) in Scenario::ALL {
        if scenario.is_none_or(|scenario| scenario == known) {
            let _ = writeln!(out, "  {name:<8}{doc}");
        }
    }
    out.push_str("  sizes   prints the sizes of the frames of fanout and ping, for examples/floor.rs\n");
    out.push_str("\nFlags of the scenario, with their defaults in parentheses:\n");
    let belongs = |flag: &&Flag| scenario.is_none_or(|scenario| flag.belongs_to(scenario));
    let of_scenarios = FLAGS.iter().filter(|flag| !flag.scenarios.is_empty()).filter(belongs);
    of_scenarios.for_each(|flag| flag_help(&mut out, flag, scenario.is_none()));
    out.push_str("\nFlags of all scenarios:\n");
    FLAGS.iter().filter(|flag| flag.scenarios.is_empty()).for_each(|flag| flag_help(&mut out, flag, false));
    out.push_str(
        "\nLatencies are measured from the time at which a message was intended to be sent. They include the\n\
         time that it waits because the server or the load generator is late.\n\n\
         Exit code: 0 if the run had no errors, 1 if connections failed or messages were lost, 2 if the\n\
         command line is invalid.\n",
    );
    out
}

/// The column at which the descriptions start, and the width of the help.
const HELP_INDENT: usize = 26;
const HELP_WIDTH: usize = 100;

fn flag_help(out: &mut String, flag: &Flag, name_scenarios: bool) {
    let mut doc = flag.doc.to_owned();
    if name_scenarios {
        let scenarios: Vec<&str> = flag.scenarios.iter().map(|scenario| scenario.name()).collect();
        let _ = write!(doc, " [{}]", scenarios.join(", "));
    }
    let mut line = format!("  --{} {}", flag.name, flag.value);
    line = format!("{line:<width$}", width = HELP_INDENT);
    for word in doc.split(' ') {
        if line.len() + word.len() > HELP_WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(HELP_INDENT);
        }
        let _ = write!(line, "{word} ");
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Command, UsageError> {
        parse(words.split_ascii_whitespace().map(OsString::from))
    }

    fn run(words: &str) -> Args {
        match parse_words(words) {
            Ok(Command::Run(args)) => args,
            other => panic!("{words}: {other:?}"),
        }
    }

    #[test]
    fn flags_reach_the_plan() {
        let args =
            run("ping --connections 1_000 --rate=250.5 --seconds 2.5s --cpu 1,3 --server [::1]:9 --quiet");
        assert_eq!((args.plan.pingers, args.plan.ping_rate), (1000, 250.5));
        assert_eq!(args.plan.seconds, Duration::from_millis(2500));
        assert_eq!((args.cpus.as_slice(), args.quiet), (&[1, 3][..], true));
        assert_eq!(args.plan.server, "[::1]:9".parse().unwrap());
        assert_eq!(run("churn --connections 7 --rate 9").plan.churn_rate, 9.0);
        assert_eq!(run("hold --connections 7").plan.idle, 7);
        assert_eq!(run("slow --rate 9 --slow 3").plan.publish_rate, 9.0);
        let mixed = run("mixed --protocol long-polling").plan;
        assert_eq!((mixed.churners, mixed.slow, mixed.pingers), (0, 0, 100));
    }

    #[test]
    fn reports_invalid_command_lines() {
        for (words, expected) in [
            (
                "pong",
                "there is no scenario pong; the scenarios are hold, ping, fanout, churn, slow, mixed (see --help)",
            ),
            ("--rate 3", "the first argument must be a scenario, not Long(\"rate\") (see --help)"),
            ("ping --burst 3", "--burst is not a flag of the scenario ping"),
            ("ping --bursts 3", "there is no flag --bursts (see --help)"),
            ("ping --rate many", "--rate many: expected a number per second, up to ten million"),
            ("ping --seconds 1e9", "--seconds 1e9: expected seconds, such as 5 or 0.5, up to a day"),
            ("ping --server here", "--server here: expected an address such as 127.0.0.1:8080"),
            ("ping --connections 0", "the run has no clients"),
            ("fanout --size 3", "--size must be at least 25, because a published event contains its time"),
            ("fanout --publishers 0", "subscribers need at least one publisher"),
            (
                "ping --protocol none --threads 2",
                "--protocol none supports only one thread and one publisher",
            ),
            (
                "ping --protocol http",
                "--protocol http: expected websocket, raw, long-polling, event-stream or none",
            ),
            (
                "churn --protocol long-polling",
                "--protocol long-polling supports only hold, ping, fanout and mixed",
            ),
            ("mixed --slow 3 --protocol event-stream", "--slow is not supported over event-stream"),
            ("churn --protocol none", "--protocol none supports only hold, ping and fanout"),
        ] {
            assert_eq!(parse_words(words).unwrap_err(), UsageError(expected.into()), "{words}");
        }
    }

    #[test]
    fn child_processes_get_their_share() {
        match parse_words("ping --part 1/4") {
            Ok(Command::Part(_, share)) => assert_eq!(share, Share { index: 1, of: 4 }),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn help_lists_every_flag_within_its_width() {
        let Ok(Command::Help(help)) = parse_words("--help") else { panic!("no help") };
        for flag in FLAGS {
            assert!(help.contains(&format!("--{}", flag.name)));
        }
        assert!(help.lines().all(|line| line.len() <= HELP_WIDTH + 1));
        assert!(matches!(parse_words("ping -h"), Ok(Command::Help(text)) if !text.contains("--burst")));
    }
}
