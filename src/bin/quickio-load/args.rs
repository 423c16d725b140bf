//! The command line: one table of flags makes the parser and the help.

use crate::plan::{Plan, Protocol, Scenario, Share};
use crate::wire::DATA_BYTES_MIN;
use lexopt::Arg;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What was asked for.
#[derive(Debug)]
pub enum Command {
    Run(Args),
    /// To be a part of a run: a child process of it.
    Part(Args, Share),
    /// To say how many bytes the frames of a run have.
    Sizes(Plan),
    Help(String),
}

/// A run and how it is carried out.
#[derive(Clone, Debug)]
pub struct Args {
    pub plan: Plan,
    pub threads: usize,
    pub processes: usize,
    /// The cores that threads are pinned to, in turn; empty: they are not.
    pub cpus: Vec<usize>,
    pub server_pid: Option<u32>,
    /// A worker of the server's, whose CPU time is measured, too.
    pub worker_pid: Option<u32>,
    pub json: Option<PathBuf>,
    pub quiet: bool,
    /// As typed, for the child processes and the report.
    pub typed: Vec<OsString>,
    part: Option<Share>,
    /// The names of the flags.
    given: Vec<&'static str>,
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(String);

struct Flag {
    name: &'static str,
    /// What its value is; empty for a flag without one.
    value: &'static str,
    doc: &'static str,
    /// The scenarios that it belongs to; empty: all.
    of: &'static [Scenario],
    put: fn(&mut Args, &str) -> Result<(), String>,
}

/// Flags about clients that there are none of over HTTP. A session has no end that its client could ask for, so none
/// come and go; and whoever does not read is no other than over WebSocket.
const NOT_OVER_HTTP: &[&str] = &["slow", "slow-buffer", "churners", "churn-rate"];

use Scenario::{Churn, Fanout, Hold, Mixed, Ping, Slow};

/// Every flag, in the order they are shown.
const FLAGS: &[Flag] = &[
    Flag {
        name: "connections",
        value: "N",
        doc: "clients (hold 10000, ping 200, churn 50 at once)",
        of: &[Hold, Ping, Churn],
        put: |args, value| {
            let plan = &mut args.plan;
            let of = match plan.scenario {
                Hold => &mut plan.idle,
                Ping => &mut plan.pingers,
                _ => &mut plan.churners,
            };
            count(of, value)
        },
    },
    Flag {
        name: "rooms",
        value: "N",
        doc: "paths that idle clients subscribe to, one each; 0: they do not subscribe (100)",
        of: &[Hold, Mixed],
        put: |args, value| count(&mut args.plan.idle_rooms, value),
    },
    Flag {
        name: "event",
        value: "PATH",
        doc: "what is sent for a ping; it has to be answered 200 (/qio/ping)",
        of: &[Ping, Mixed],
        put: |args, value| {
            args.plan.ping_event = value.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "depth",
        value: "N",
        doc: "pings that a client has open at once, where there is no --rate (1)",
        of: &[Ping, Mixed],
        put: |args, value| count(&mut args.plan.depth, value),
    },
    Flag {
        name: "rate",
        value: "R",
        doc: "a second, over all clients: pings, publishes or connections; 0: the next when the last one is \
              done (0; slow 200)",
        of: &[Ping, Fanout, Churn, Slow],
        put: |args, value| {
            let plan = &mut args.plan;
            let of = match plan.scenario {
                Ping => &mut plan.ping_rate,
                Churn => &mut plan.churn_rate,
                _ => &mut plan.publish_rate,
            };
            rate(of, value)
        },
    },
    Flag {
        name: "subscribers",
        value: "N",
        doc: "clients that get what is published (fanout 1000, slow 50, mixed 500)",
        of: &[Fanout, Slow, Mixed],
        put: |args, value| count(&mut args.plan.subscribers, value),
    },
    Flag {
        name: "publishers",
        value: "N",
        doc: "clients that publish, each into a room of its own, over which the subscribers are spread (1; \
              mixed 2)",
        of: &[Fanout, Slow, Mixed],
        put: |args, value| count(&mut args.plan.publishers, value),
    },
    Flag {
        name: "size",
        value: "BYTES",
        doc: "data of a published event (64; slow 16384)",
        of: &[Fanout, Slow, Mixed],
        put: |args, value| count(&mut args.plan.size, value),
    },
    Flag {
        name: "burst",
        value: "N",
        doc: "events of one publish, sent in one write (1)",
        of: &[Fanout, Slow, Mixed],
        put: |args, value| count(&mut args.plan.burst, value),
    },
    Flag {
        name: "slow",
        value: "N",
        doc: "subscribers that never read (slow 10, mixed 5)",
        of: &[Slow, Mixed],
        put: |args, value| count(&mut args.plan.slow, value),
    },
    Flag {
        name: "slow-buffer",
        value: "BYTES",
        doc: "receive buffer of such a subscriber (4096)",
        of: &[Slow, Mixed],
        put: |args, value| count(&mut args.plan.slow_buffer_bytes, value),
    },
    Flag {
        name: "pingers",
        value: "N",
        doc: "clients that ping (100)",
        of: &[Mixed],
        put: |args, value| count(&mut args.plan.pingers, value),
    },
    Flag {
        name: "churners",
        value: "N",
        doc: "clients that connect, ping, close, at once (10)",
        of: &[Mixed],
        put: |args, value| count(&mut args.plan.churners, value),
    },
    Flag {
        name: "idle",
        value: "N",
        doc: "clients that do nothing (1000)",
        of: &[Mixed],
        put: |args, value| count(&mut args.plan.idle, value),
    },
    Flag {
        name: "ping-rate",
        value: "R",
        doc: "pings a second (1000)",
        of: &[Mixed],
        put: |args, value| rate(&mut args.plan.ping_rate, value),
    },
    Flag {
        name: "publish-rate",
        value: "R",
        doc: "publishes a second (20)",
        of: &[Mixed],
        put: |args, value| rate(&mut args.plan.publish_rate, value),
    },
    Flag {
        name: "churn-rate",
        value: "R",
        doc: "connections a second (50)",
        of: &[Mixed],
        put: |args, value| rate(&mut args.plan.churn_rate, value),
    },
    Flag {
        name: "server",
        value: "ADDR",
        doc: "where the server listens (127.0.0.1:8080)",
        of: &[],
        put: |args, value| parsed(&mut args.plan.server, value, "an address such as 127.0.0.1:8080"),
    },
    Flag {
        name: "protocol",
        value: "NAME",
        doc: "websocket, raw, long-polling, event-stream, or none: as many bytes as over WebSocket and nothing \
              else, for examples/floor.rs (websocket)",
        of: &[],
        put: |args, value| {
            let named = Protocol::ALL.into_iter().find(|protocol| protocol.name() == value);
            args.plan.protocol = named.ok_or("takes websocket, raw, long-polling, event-stream or none")?;
            Ok(())
        },
    },
    Flag {
        name: "server-pid",
        value: "PID",
        doc: "the server's process: its CPU time and memory are measured",
        of: &[],
        put: |args, value| {
            args.server_pid = Some(value.parse().map_err(|_| "takes a process id")?);
            Ok(())
        },
    },
    Flag {
        name: "worker-pid",
        value: "PID",
        doc: "a process of the server's in which an application runs: its CPU time is measured, too",
        of: &[],
        put: |args, value| {
            args.worker_pid = Some(value.parse().map_err(|_| "takes a process id")?);
            Ok(())
        },
    },
    Flag {
        name: "seconds",
        value: "S",
        doc: "how long is measured (5)",
        of: &[],
        put: |args, value| seconds(&mut args.plan.seconds, value),
    },
    Flag {
        name: "warmup",
        value: "S",
        doc: "load before that, which is not measured (1; hold 0)",
        of: &[],
        put: |args, value| seconds(&mut args.plan.warmup, value),
    },
    Flag {
        name: "settle",
        value: "S",
        doc: "rest between the last connection and the first load (0.5)",
        of: &[],
        put: |args, value| seconds(&mut args.plan.settle, value),
    },
    Flag {
        name: "drain",
        value: "S",
        doc: "at most, to wait for what is still under way at the end (5)",
        of: &[],
        put: |args, value| seconds(&mut args.plan.drain, value),
    },
    Flag {
        name: "connect-timeout",
        value: "S",
        doc: "for all connections together (60)",
        of: &[],
        put: |args, value| seconds(&mut args.plan.connect_timeout, value),
    },
    Flag {
        name: "connect-window",
        value: "N",
        doc: "connections that a thread opens at once (64)",
        of: &[],
        put: |args, value| count(&mut args.plan.connect_window, value),
    },
    Flag {
        name: "sources",
        value: "N",
        doc: "loopback addresses that connections come from, 127.0.0.1 and those above (16)",
        of: &[],
        put: |args, value| count(&mut args.plan.sources, value),
    },
    Flag {
        name: "threads",
        value: "N",
        doc: "threads of each process, one ring each (1)",
        of: &[],
        put: |args, value| count(&mut args.threads, value),
    },
    Flag {
        name: "processes",
        value: "N",
        doc: "processes, where the descriptors of one do not suffice (1)",
        of: &[],
        put: |args, value| count(&mut args.processes, value),
    },
    Flag {
        name: "cpu",
        value: "LIST",
        doc: "cores to pin the threads to, in turn: 1 or 1,2,3 (not pinned)",
        of: &[],
        put: |args, value| {
            let cpus = value.split(',').map(str::parse).collect::<Result<_, _>>();
            args.cpus = cpus.map_err(|_| "takes core numbers, such as 1 or 1,2,3")?;
            Ok(())
        },
    },
    Flag {
        name: "json",
        value: "FILE",
        doc: "write the report there as well, as JSON",
        of: &[],
        put: |args, value| {
            args.json = Some(value.into());
            Ok(())
        },
    },
    Flag {
        name: "quiet",
        value: "",
        doc: "no progress",
        of: &[],
        put: |args, _| {
            args.quiet = true;
            Ok(())
        },
    },
];

/// Reads the command line.
pub fn parse(typed: impl Iterator<Item = OsString>) -> Result<Command, Wrong> {
    let typed: Vec<OsString> = typed.collect();
    let mut parser = lexopt::Parser::from_args(typed.clone());
    let first = match parser.next().map_err(wrong)? {
        Some(Arg::Value(first)) => first.to_string_lossy().into_owned(),
        Some(Arg::Long("help") | Arg::Short('h')) | None => return Ok(Command::Help(help(None))),
        Some(other) => return Err(Wrong(format!("the scenario comes first, not {other:?} (see --help)"))),
    };
    let Some(scenario) = Scenario::named(if first == "sizes" { "fanout" } else { &first }) else {
        return Err(Wrong(format!("there is no scenario {first}: {} (see --help)", names())));
    };
    let mut args = Args::new(scenario, typed);
    while let Some(arg) = parser.next().map_err(wrong)? {
        let name = match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(help(Some(scenario)))),
            Arg::Long(name) => name.to_owned(),
            other => return Err(Wrong(other.unexpected().to_string())),
        };
        args.flag(&name, &mut parser)?;
    }
    args.leave_out()?;
    args.check()?;
    match args.part {
        _ if first == "sizes" => Ok(Command::Sizes(args.plan)),
        Some(part) => Ok(Command::Part(args, part)),
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
            part: None,
            given: Vec::new(),
        }
    }

    fn flag(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), Wrong> {
        if name == PART {
            self.part = Some(part(&text(parser)?)?);
            return Ok(());
        }
        let scenario = self.plan.scenario;
        let flag = FLAGS.iter().find(|flag| flag.name == name);
        let flag = flag.ok_or_else(|| Wrong(format!("there is no flag --{name} (see --help)")))?;
        if !flag.belongs_to(scenario) {
            return Err(Wrong(format!("--{name} has no meaning for {}", scenario.name())));
        }
        let value = if flag.value.is_empty() { String::new() } else { text(parser)? };
        self.given.push(flag.name);
        (flag.put)(self, &value).map_err(|error| Wrong(format!("--{name} {value}: {error}")))
    }

    /// Over HTTP `mixed` is without the clients that there are none of.
    fn leave_out(&mut self) -> Result<(), Wrong> {
        let plan = &mut self.plan;
        if !plan.protocol.is_http() {
            return Ok(());
        }
        let protocol = plan.protocol.name();
        if matches!(plan.scenario, Churn | Slow) {
            return Err(Wrong(format!("--protocol {protocol} knows hold, ping, fanout and mixed only")));
        }
        if let Some(flag) = NOT_OVER_HTTP.iter().find(|flag| self.given.contains(flag)) {
            return Err(Wrong(format!("--{flag} has no meaning over {protocol}")));
        }
        (plan.churners, plan.slow) = (0, 0);
        Ok(())
    }

    fn check(&self) -> Result<(), Wrong> {
        let plan = &self.plan;
        let workers = self.threads * self.processes;
        let connections = plan.connections() + plan.slow;
        let problem = if workers == 0 || plan.connect_window == 0 || plan.sources == 0 {
            "--threads, --processes, --connect-window and --sources are at least 1".into()
        } else if plan.sources > 200 {
            "--sources is 200 at most".into()
        } else if connections == 0 {
            "there are no clients".into()
        } else if plan.size < DATA_BYTES_MIN {
            format!("--size is at least {DATA_BYTES_MIN}: a published event carries its time")
        } else if plan.burst == 0 || plan.depth == 0 {
            "--burst and --depth are at least 1".into()
        } else if plan.subscribers > 0 && plan.publishers == 0 {
            "subscribers without publishers get nothing".into()
        } else if plan.protocol == Protocol::None && (workers > 1 || plan.publishers > 1) {
            "--protocol none takes one thread, and one publisher".into()
        } else if plan.protocol == Protocol::None && !matches!(plan.scenario, Hold | Ping | Fanout) {
            "--protocol none knows hold, ping and fanout only".into()
        } else if plan.protocol == Protocol::None && plan.depth > 1 {
            "--protocol none cannot tell two pings apart: --depth is 1".into()
        } else {
            return Ok(());
        };
        Err(Wrong(problem))
    }
}

impl Flag {
    fn belongs_to(&self, scenario: Scenario) -> bool {
        self.of.is_empty() || self.of.contains(&scenario)
    }
}

/// The hidden flag by which a run tells its child processes their part: `1/4` is the second of four.
pub const PART: &str = "part";

fn part(value: &str) -> Result<Share, Wrong> {
    let wrong = || Wrong(format!("--{PART} {value}: takes a part such as 1/4"));
    let (index, of) = value.split_once('/').ok_or_else(wrong)?;
    let number = |text: &str| text.parse().map_err(|_| wrong());
    Ok(Share { index: number(index)?, of: number(of)? })
}

fn text(parser: &mut lexopt::Parser) -> Result<String, Wrong> {
    let value = parser.value().map_err(wrong)?;
    value.into_string().map_err(|_| Wrong("a value that is no text".into()))
}

fn wrong(error: lexopt::Error) -> Wrong {
    Wrong(error.to_string())
}

fn names() -> String {
    Scenario::ALL.map(|(_, name, _)| name).join(", ")
}

fn count(into: &mut usize, value: &str) -> Result<(), String> {
    parsed(into, &value.replace('_', ""), "a whole number")
}

fn parsed<T: std::str::FromStr>(into: &mut T, value: &str, what: &str) -> Result<(), String> {
    *into = value.parse().map_err(|_| format!("takes {what}"))?;
    Ok(())
}

fn rate(into: &mut f64, value: &str) -> Result<(), String> {
    match value.replace('_', "").parse::<f64>() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => *into = rate,
        _ => return Err("takes a number a second, up to ten million".into()),
    }
    Ok(())
}

/// At most a day, so that no run is without an end.
fn seconds(into: &mut Duration, value: &str) -> Result<(), String> {
    match value.trim_end_matches('s').parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => *into = Duration::from_secs_f64(seconds),
        _ => return Err("takes seconds, such as 5 or 0.5, up to a day".into()),
    }
    Ok(())
}

fn help(scenario: Option<Scenario>) -> String {
    let mut out = String::from("Loads a QuickIO server, and says how it bore it.\n\n");
    let name = scenario.map_or("SCENARIO", Scenario::name);
    let _ = writeln!(out, "Usage: quickio-load {name} [FLAGS]\n\nScenarios:");
    for (known, name, doc) in Scenario::ALL {
        if scenario.is_none_or(|scenario| scenario == known) {
            let _ = writeln!(out, "  {name:<8}{doc}");
        }
    }
    out.push_str(
        "  sizes   print how many bytes the frames of fanout and ping have, for examples/floor.rs\n",
    );
    out.push_str("\nFlags of the scenario (and where there are several, their defaults):\n");
    let belongs = |flag: &&Flag| scenario.is_none_or(|scenario| flag.belongs_to(scenario));
    let of_some = FLAGS.iter().filter(|flag| !flag.of.is_empty()).filter(belongs);
    of_some.for_each(|flag| flag_help(&mut out, flag, scenario.is_none()));
    out.push_str("\nFlags of all scenarios:\n");
    FLAGS.iter().filter(|flag| flag.of.is_empty()).for_each(|flag| flag_help(&mut out, flag, false));
    out.push_str(
        "\nLatencies are taken from the time at which a message was intended to be sent, so they include\n\
         waiting for a server, or a load generator, that is behind. Exit code: 0 where all went well, 1 where\n\
         connections failed or messages were lost, 2 where the command line is wrong.\n",
    );
    out
}

/// Columns of the help.
const HELP_INDENT: usize = 26;
const HELP_WIDTH: usize = 100;

fn flag_help(out: &mut String, flag: &Flag, name_scenarios: bool) {
    let mut doc = flag.doc.to_owned();
    if name_scenarios {
        let of: Vec<&str> = flag.of.iter().map(|scenario| scenario.name()).collect();
        let _ = write!(doc, " [{}]", of.join(", "));
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

    fn parse_words(words: &str) -> Result<Command, Wrong> {
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
    fn what_is_wrong_is_named() {
        for (words, expected) in [
            ("pong", "there is no scenario pong: hold, ping, fanout, churn, slow, mixed (see --help)"),
            ("--rate 3", "the scenario comes first, not Long(\"rate\") (see --help)"),
            ("ping --burst 3", "--burst has no meaning for ping"),
            ("ping --bursts 3", "there is no flag --bursts (see --help)"),
            ("ping --rate many", "--rate many: takes a number a second, up to ten million"),
            ("ping --seconds 1e9", "--seconds 1e9: takes seconds, such as 5 or 0.5, up to a day"),
            ("ping --server here", "--server here: takes an address such as 127.0.0.1:8080"),
            ("ping --connections 0", "there are no clients"),
            ("fanout --size 3", "--size is at least 25: a published event carries its time"),
            ("fanout --publishers 0", "subscribers without publishers get nothing"),
            ("ping --protocol none --threads 2", "--protocol none takes one thread, and one publisher"),
            (
                "ping --protocol http",
                "--protocol http: takes websocket, raw, long-polling, event-stream or none",
            ),
            (
                "churn --protocol long-polling",
                "--protocol long-polling knows hold, ping, fanout and mixed only",
            ),
            ("mixed --slow 3 --protocol event-stream", "--slow has no meaning over event-stream"),
            ("churn --protocol none", "--protocol none knows hold, ping and fanout only"),
        ] {
            assert_eq!(parse_words(words).unwrap_err(), Wrong(expected.into()), "{words}");
        }
    }

    #[test]
    fn parts_are_told_to_children() {
        match parse_words("ping --part 1/4") {
            Ok(Command::Part(_, part)) => assert_eq!(part, Share { index: 1, of: 4 }),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn help_names_every_flag_within_its_width() {
        let Ok(Command::Help(help)) = parse_words("--help") else { panic!("no help") };
        for flag in FLAGS {
            assert!(help.contains(&format!("--{}", flag.name)));
        }
        assert!(help.lines().all(|line| line.len() <= HELP_WIDTH + 1));
        assert!(matches!(parse_words("ping -h"), Ok(Command::Help(text)) if !text.contains("--burst")));
    }
}
