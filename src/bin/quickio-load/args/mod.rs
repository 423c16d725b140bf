//! The command line. The parser and the help are made from one table of flags.

mod flags;
mod help;

use crate::encoder::DATA_BYTES_MIN;
use crate::million::MillionPlan;
use crate::plan::{Plan, Protocol, Scenario, Share};
use Scenario::{Churn, Fanout, Hold, Million, Ping, Slow};
use flags::{FLAGS, NOT_OVER_HTTP};
use help::help;
use lexopt::Arg;
use std::ffi::OsString;
use std::path::PathBuf;

/// The action that a command line requests.
#[derive(Debug)]
pub enum Command {
    Run(Args),
    /// Runs the steps of `million`, which it reads from standard input.
    Million(Args),
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
    /// The parts of the plan that only `million` has.
    pub million: MillionPlan,
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
    if scenario == Million {
        args.apply_million()?;
        return Ok(Command::Million(args));
    }
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
            million: MillionPlan::default(),
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

    /// Chooses the number of source addresses of `million`, if it was not given, and validates the flags.
    fn apply_million(&mut self) -> Result<(), UsageError> {
        if !self.given.contains(&"sources") {
            self.plan.sources = self.million.sources();
        }
        if !self.given.contains(&"connect-window") {
            self.plan.connect_window = MillionPlan::CONNECT_WINDOW;
        }
        self.million.validate(&self.plan).map_err(UsageError)
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
        } else if plan.protocol == Protocol::None && !matches!(plan.scenario, Hold | Ping | Fanout | Churn) {
            "--protocol none supports only hold, ping, fanout and churn".into()
        } else if plan.tls.is_some() && (plan.protocol == Protocol::None || plan.slow > 0) {
            "--tls supports neither --protocol none nor clients that do not read (--slow)".into()
        } else if plan.tls.as_ref().is_some_and(|tls| tls.ca.is_none()) && !plan.server.ip().is_loopback() {
            "a server on another host must be verified: give the file of its authority with --tls-ca".into()
        } else if plan.protocol == Protocol::None && plan.depth > 1 {
            "--protocol none cannot distinguish two pings: --depth must be 1".into()
        } else if !plan.tokens.is_empty() && plan.protocol != Protocol::WebSocket {
            format!("--token-file is not supported over {}", plan.protocol.name())
        } else if plan.compression && plan.protocol != Protocol::WebSocket {
            format!("--compression is not supported over {}", plan.protocol.name())
        } else {
            return Ok(());
        };
        Err(UsageError(problem))
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

#[cfg(test)]
mod tests {
    use super::help::HELP_WIDTH;
    use super::*;
    use std::time::Duration;

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
        let tls = run("ping --tls-name a.example --tls-full").plan.tls.unwrap();
        assert_eq!((tls.name.as_deref(), tls.ca, tls.resumes), (Some("a.example"), None, false));
        assert!(run("mixed --tls --slow 0").plan.tls.unwrap().resumes);
        assert_eq!(run("slow --rate 9 --slow 3").plan.publish_rate, 9.0);
        let mixed = run("mixed --protocol long-polling").plan;
        assert_eq!((mixed.churners, mixed.slow, mixed.pingers), (0, 0, 100));
    }

    #[test]
    fn tokens_are_the_lines_of_a_file() {
        let path = std::env::temp_dir().join(format!("quickio-load-tokens-{}", std::process::id()));
        let churn = |text: &str, more: &str| {
            std::fs::write(&path, text).unwrap();
            parse_words(&format!("churn --token-file {} {more}", path.display()))
        };
        let Ok(Command::Run(args)) = churn("a.b.c\nd.e.f\n", "") else { panic!("no run") };
        assert_eq!(*args.plan.tokens, ["a.b.c", "d.e.f"]);
        for (text, more, expected) in [
            ("", "", "it is empty"),
            ("a.b.c\n\n", "", "line 2 is no token"),
            ("a.b.c\nd e\n", "", "line 2 is no token"),
            ("a.b.c\n", "--protocol raw", "--token-file is not supported over raw"),
        ] {
            let error = churn(text, more).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(
            parse_words("churn --token-file /nowhere").unwrap_err().to_string().contains("cannot read it")
        );
    }

    #[test]
    fn reports_invalid_command_lines() {
        for (words, expected) in [
            (
                "pong",
                "there is no scenario pong; the scenarios are hold, ping, fanout, churn, slow, mixed, million (see --help)",
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
            ("slow --protocol none", "--protocol none supports only hold, ping, fanout and churn"),
            ("million --tls", "--tls is not a flag of the scenario million"),
            ("mixed --tls", "--tls supports neither --protocol none nor clients that do not read (--slow)"),
            (
                "ping --tls --server 192.0.2.1:443",
                "a server on another host must be verified: give the file of its authority with --tls-ca",
            ),
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
