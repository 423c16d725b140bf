//! `quickio top`.
//!
//! | file | contents |
//! | --- | --- |
//! | `statistics` | the pages of the admin endpoint, parsed, and the rates between two of them |
//! | `view` | the statistics as lines of text |
//! | `screen` | the terminal, which is restored at every end |

mod screen;
mod statistics;
mod view;

use super::args::{ArgumentError, Arguments};
use super::command::{Example, Flag, Invocation, Subcommand, no_details};
use super::connect::{self, ClientError};
use super::outcome;
use super::peer::{self, PeerError, ServerUrl, TlsFiles};
use super::wait::EndSignals;
use crate::config::{self, FileSecret};
use screen::{Key, Screen};
use statistics::{IntervalStatistics, Pages};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "top",
    summary: "Shows what a server does, in a terminal",
    usage: "[FLAG VALUE]...",
    about: "Shows the statistics of the admin endpoint, and refreshes them: connections, events and deliveries a second, the \
            time of deliveries, memory, and each shard. Rates and latencies are those of the last interval.\n\n\
            The keys q, Escape and Ctrl-C end it.",
    flags: &[
        Flag {
            name: "admin",
            value: "URL",
            doc: "The admin endpoint: http:// or https:// with HOST:PORT, or HOST:PORT. [default: http://127.0.0.1:8081]",
        },
        Flag {
            name: "admin-password-file",
            value: "FILE",
            doc: "Sends the password in this file, which is that of the server's setting with the same name.",
        },
        Flag { name: "interval", value: "DURATION", doc: "The time between two updates. [default: 1s]" },
        Flag {
            name: "once",
            value: "",
            doc: "Prints the statistics of one interval as text and ends. It needs no terminal.",
        },
        connect::TLS_CA,
        connect::TLS_CERT,
        connect::TLS_KEY,
    ],
    takes_settings: false,
    examples: &[
        Example { line: "quickio top", does: "Shows the server on this host." },
        Example {
            line: "quickio top --admin https://10.0.0.5:8081 --tls-ca ca.pem --interval 5s",
            does: "Shows another server, whose admin endpoint has TLS.",
        },
        Example { line: "quickio top --once", does: "Prints the statistics of one second." },
    ],
    details: no_details,
    run: |invocation: Invocation| connect::act(invocation, run),
};

/// The default of `--interval`, and its bounds.
const INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The time in which the admin endpoint must answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The interval at which keys, signals and the size of the terminal are examined.
const KEY_WAIT: Duration = Duration::from_millis(50);

fn run(arguments: &Arguments) -> Result<ExitCode, ClientError> {
    if !arguments.words.is_empty() {
        let problem = "top takes only flags".into();
        return Err(ArgumentError::Usage { command: COMMAND.name, problem }.into());
    }
    let admin = arguments.parsed("admin", ServerUrl::for_admin)?;
    let interval = arguments.parsed("interval", |text| match config::parse_duration(text)? {
        interval if interval < INTERVAL_MIN => Err("it must be at least 100ms".into()),
        interval => Ok(interval),
    })?;
    let file = |flag| arguments.value(flag).map(PathBuf::from);
    let read = |path: PathBuf| FileSecret::read(&path, 1, "--admin-password-file");
    let password = file("admin-password-file").map(read).transpose();
    let password = password.map_err(|error| ClientError::Failed(error.to_string()))?;
    let source = AdminEndpoint {
        url: admin.unwrap_or_else(|| ServerUrl::for_admin("127.0.0.1:8081").expect("it is valid")),
        tls: TlsFiles { ca: file("tls-ca"), cert: file("tls-cert"), key: file("tls-key") },
        password,
        signals: Arc::new(connect::catch_signals()?),
    };
    let interval = interval.unwrap_or(INTERVAL);
    if arguments.has("once") {
        return once(&source, interval);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(ClientError::Failed("top needs a terminal; --once prints the statistics as text".into()));
    }
    // A server that cannot be reached is reported before the screen changes.
    let first = source.fetch()?;
    watch(source, first, interval)
}

/// The admin endpoint.
struct AdminEndpoint {
    url: ServerUrl,
    tls: TlsFiles,
    password: Option<FileSecret>,
    signals: Arc<EndSignals>,
}

impl AdminEndpoint {
    fn fetch(&self) -> Result<Pages, ClientError> {
        let password = self.password.as_ref().map(|password| &password.bytes[..]);
        let page = |path| peer::fetch(&self.url, path, password, &self.tls, ANSWER_WAIT, &self.signals);
        let (stats, histograms) = (page("/stats")?, page("/histograms")?);
        Pages::parse(&stats, &histograms, Instant::now()).map_err(|error| {
            ClientError::Failed(format!("{} is no admin endpoint of this version: {error}", self.url))
        })
    }
}

fn once(source: &AdminEndpoint, interval: Duration) -> Result<ExitCode, ClientError> {
    let first = source.fetch()?;
    let ready = source.signals.wait([], Some(Instant::now() + interval)).map_err(PeerError::Lost)?;
    let [] = ready.map_err(PeerError::Signal)?;
    let statistics = IntervalStatistics::between(&first, &source.fetch()?);
    Ok(outcome::print(&view::text(&statistics, &source.url.to_string())))
}

/// Shows the statistics until a key or a signal ends it.
fn watch(source: AdminEndpoint, mut last: Pages, interval: Duration) -> Result<ExitCode, ClientError> {
    let signals = Arc::clone(&source.signals);
    let url = source.url.to_string();
    let (sender, pages) = sync_channel(1);
    thread::spawn(move || fetch_repeatedly(&source, interval, &sender));
    let failed = |error: io::Error| ClientError::Stream(format!("cannot use the terminal: {error}"));
    let mut screen = Screen::open().map_err(failed)?;
    let mut shown = vec![format!("{url}: reading the statistics ...")];
    screen.draw(&shown).map_err(failed)?;
    loop {
        match screen.key(KEY_WAIT).map_err(failed)? {
            Some(Key::End) => return Ok(ExitCode::SUCCESS),
            Some(Key::Resized) => screen.draw(&shown).map_err(failed)?,
            None => {}
        }
        if let Some(signal) = signals.received() {
            drop(screen);
            return Err(PeerError::Signal(signal).into());
        }
        if let Some(next) = newest(&pages) {
            match next {
                Ok(next) => {
                    shown = view::lines(&IntervalStatistics::between(&last, &next), &url);
                    last = next;
                }
                Err(error) => view::set_problem(&mut shown, &error),
            }
            screen.draw(&shown).map_err(failed)?;
        }
    }
}

/// Fetches pages until nobody takes them.
fn fetch_repeatedly(source: &AdminEndpoint, interval: Duration, pages: &SyncSender<Result<Pages, String>>) {
    loop {
        thread::sleep(interval);
        if pages.send(source.fetch().map_err(|error| error.to_string())).is_err() {
            return;
        }
    }
}

fn newest(pages: &Receiver<Result<Pages, String>>) -> Option<Result<Pages, String>> {
    pages.try_iter().last()
}
