//! `quickio sub`.

use super::args::{ArgumentError, Arguments};
use super::command::{Example, Flag, Invocation, Subcommand, no_details};
use super::connect::{self, ClientError, ServerTarget};
use super::peer::{self, Peer, PeerError, PeerEvent};
use super::publish;
use super::received::{LineForm, ReceivedOutput};
use super::wait::EndSignals;
use crate::config;
use crate::log;
use aws_lc_rs::rand;
use rustix::event::PollFlags;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "sub",
    summary: "Prints the events that are broadcast to paths",
    usage: "[FLAG VALUE]... PATH...",
    about: "Prints each event as a line: its path, a space and its data, which quickio pub reads.\n\n\
            If the connection is lost, the command connects again, after 1 s to 30 s, until that succeeds; events in the \
            meantime are missed. It ends if the first connection fails, or if the server refuses the client, its token or a \
            path. It also ends if nobody reads its output any more, as in quickio sub /a | head -n 1.\n\n\
            The exit code is 0 if it ended by --count, by --timeout without --count or with its reader; 1 if the server \
            refused it, the connection failed or fewer events than --count came; and 2 if the command line is wrong. After \
            SIGINT and SIGTERM, it disconnects in order, and ends by that signal.",
    flags: &[
        connect::SERVER,
        connect::TOKEN_FILE,
        Flag { name: "count", value: "N", doc: "Ends after this number of events." },
        Flag { name: "timeout", value: "DURATION", doc: "Ends after this time." },
        Flag { name: "data", value: "", doc: "Prints only the data of each event, without its path." },
        Flag {
            name: "json",
            value: "",
            doc: "Prints each event as an object of JSON with the members path and data.",
        },
        Flag { name: "no-reconnect", value: "", doc: "Ends if the connection is lost." },
        Flag {
            name: "quiet",
            value: "",
            doc: "Does not report subscriptions and new connections on standard error.",
        },
        connect::TLS_CA,
        connect::TLS_CERT,
        connect::TLS_KEY,
    ],
    takes_settings: false,
    examples: &[
        Example {
            line: "quickio sub /relay/room",
            does: "Prints the events of a path until it is interrupted.",
        },
        Example {
            line: "quickio sub --count 1 --timeout 5s --data /relay/jobs",
            does: "Waits for an event, and fails if none comes within 5 s.",
        },
        Example {
            line: "quickio sub --json --server wss://example.com --token-file jwt /a | jq .data",
            does: "Passes the events of an authenticated client to another program.",
        },
        Example {
            line: "quickio sub /relay/log | quickio pub --server ws://other:8080",
            does: "Copies events from one server to another.",
        },
    ],
    details: no_details,
    run: |invocation: Invocation| connect::act(invocation, run),
};

/// The time that a connection's handshakes may take, and each answer to a token or a subscription.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The time without input after which the server is asked whether it is there. It sends heartbeats about this often.
const PING_AFTER: Duration = Duration::from_secs(60);

/// The time without input after which the connection is lost.
const LOST_AFTER: Duration = Duration::from_secs(90);

/// The shortest and the longest pause before a new connection.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The time before a token's end at which it is renewed.
const RENEWED_BEFORE: Duration = Duration::from_secs(5);

fn run(arguments: &Arguments) -> Result<ExitCode, ClientError> {
    let usage = |problem: String| ArgumentError::Usage { command: COMMAND.name, problem };
    if arguments.words.is_empty() {
        return Err(usage("sub needs a path".into()).into());
    }
    let paths = arguments.words.iter().map(|path| publish::checked_path(path).map_err(usage));
    let count = arguments.parsed("count", |text| match config::parse_count(text)? {
        0 => Err("it must be at least 1".into()),
        count => Ok(count),
    })?;
    let timeout = arguments.parsed("timeout", config::parse_duration)?;
    let target = ServerTarget::new(arguments, ANSWER_WAIT)?;
    let mut subscriber = EventPrinter {
        first_url: target.options.url.clone(),
        target,
        paths: paths.collect::<Result<_, _>>()?,
        output: ReceivedOutput::new(LineForm::of(arguments.has("json"), arguments.has("data")), count),
        until: timeout.map(|timeout| Instant::now() + timeout),
        is_quiet: arguments.has("quiet"),
        signals: connect::catch_signals()?,
    };
    subscriber.run(!arguments.has("no-reconnect"))?;
    match (subscriber.output.missing(), timeout) {
        (Some(missing), Some(timeout)) if missing > 0 => {
            let all = count.unwrap_or(missing);
            Err(ClientError::Failed(format!("{} of {all} events came within {timeout:?}", all - missing)))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A run of the command.
struct EventPrinter {
    target: ServerTarget,
    /// The URL of the command line. The server may move its clients elsewhere.
    first_url: peer::ServerUrl,
    paths: Vec<String>,
    output: ReceivedOutput,
    /// The end of `--timeout`.
    until: Option<Instant>,
    is_quiet: bool,
    signals: EndSignals,
}

/// The reason why a connection is over.
enum SessionEnd {
    /// The command has done its work.
    Done,
    /// The server moves its clients to this address.
    Moved(String),
}

/// The renewal of a token.
#[derive(Default)]
struct Renewal {
    /// The time at which the token is read again.
    at: Option<Instant>,
    /// The callback of the new token.
    callback: Option<u64>,
}

impl EventPrinter {
    /// Subscribes, and prints events until the end.
    fn run(&mut self, reconnects: bool) -> Result<(), ClientError> {
        let (mut was_connected, mut pause) = (false, PAUSE_MIN);
        loop {
            let began = Instant::now();
            let lost = match self.session(&mut was_connected) {
                Ok(SessionEnd::Done) => return Ok(()),
                Ok(SessionEnd::Moved(address)) => {
                    let moved = self.target.options.url.moved_to(&address);
                    self.target.options.url = moved.map_err(|problem| {
                        ClientError::Failed(format!("the server moves its clients to `{address}`: {problem}"))
                    })?;
                    continue;
                }
                Err(ClientError::Peer(error)) if reconnects && was_connected && error.is_passing() => error,
                Err(error) => return Err(error),
            };
            self.target.options.url = self.first_url.clone();
            if began.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            let waited = jittered(pause);
            self.note(&format!("{lost}; connecting again in {:.1} s", waited.as_secs_f64()));
            if !self.pause(waited)? {
                return Ok(());
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits before the next connection. Returns `false` if the command ends first.
    fn pause(&self, pause: Duration) -> Result<bool, ClientError> {
        let next = Instant::now() + pause;
        let until = self.until.map_or(next, |until| until.min(next));
        while Instant::now() < until {
            let ready = self.signals.wait([self.output.interest()], Some(until)).map_err(PeerError::Lost)?;
            let [output] = ready.map_err(PeerError::Signal)?;
            if !output.is_empty() {
                return Ok(false);
            }
        }
        Ok(self.until.is_none_or(|end| Instant::now() < end))
    }

    /// Connects, subscribes, and prints events until the connection or the command ends.
    fn session(&mut self, was_connected: &mut bool) -> Result<SessionEnd, ClientError> {
        let (mut peer, expires) = self.target.open(&self.signals)?;
        let mut pending: BTreeMap<u64, String> = self
            .paths
            .iter()
            .map(|path| (peer.send("/qio/on", &format!("\"{path}\"")), path.clone()))
            .collect();
        let deadline = Instant::now() + ANSWER_WAIT;
        let mut renewal = Renewal { at: expires.map(renewal_time), callback: None };
        let mut pinged = peer.heard();
        loop {
            let before = pending.len();
            if let Some(end) = self.receive(&mut peer, &mut pending, &mut renewal)? {
                peer.close(&self.signals);
                return Ok(end);
            }
            if before > 0 && pending.is_empty() {
                *was_connected = true;
                self.note(&format!("subscribed to {} at {}", self.paths.join(", "), self.target.options.url));
            }
            let now = Instant::now();
            if self.until.is_some_and(|until| now >= until) {
                peer.close(&self.signals);
                return Ok(SessionEnd::Done);
            }
            if (!pending.is_empty() && now >= deadline) || now >= peer.heard() + LOST_AFTER {
                return Err(PeerError::Late { action: "answer" }.into());
            }
            if now >= peer.heard().max(pinged) + PING_AFTER {
                peer.send("/qio/ping", "null");
                pinged = now;
            }
            self.renew(&mut peer, &mut renewal)?;
            peer.turn(PollFlags::empty())?;
            let mut times = vec![peer.heard().max(pinged) + PING_AFTER, peer.heard() + LOST_AFTER];
            times.extend(self.until.into_iter().chain(renewal.at));
            if !pending.is_empty() {
                times.push(deadline);
            }
            let ready = self.signals.wait([peer.interest(), self.output.interest()], times.into_iter().min());
            match ready.map_err(PeerError::Lost)? {
                Err(signal) => {
                    peer.close(&self.signals);
                    return Err(PeerError::Signal(signal).into());
                }
                Ok([_, output]) if !output.is_empty() => {
                    peer.close(&self.signals);
                    return Ok(SessionEnd::Done);
                }
                Ok([server, _]) => peer.turn(server)?,
            }
        }
    }

    /// Handles what has come. Returns the end of the session, if it has ended.
    fn receive(
        &mut self,
        peer: &mut Peer,
        pending: &mut BTreeMap<u64, String>,
        renewal: &mut Renewal,
    ) -> Result<Option<SessionEnd>, ClientError> {
        loop {
            let event = match peer.next_event() {
                Ok(event) => event,
                Err(error) => {
                    // What came before the end is printed.
                    self.output.flush()?;
                    return Err(error.into());
                }
            };
            match event {
                Some(PeerEvent::Event { path, data }) if self.paths.contains(&path) => {
                    if !self.output.add(&path, &data)? {
                        return Ok(Some(SessionEnd::Done));
                    }
                }
                Some(PeerEvent::Event { .. }) => {}
                Some(PeerEvent::Move(address)) => {
                    self.output.flush()?;
                    return Ok(Some(SessionEnd::Moved(address)));
                }
                Some(PeerEvent::Answer(answer)) if renewal.callback == Some(answer.callback) => {
                    *renewal = Renewal { at: peer::expiry(answer)?.map(renewal_time), callback: None };
                }
                Some(PeerEvent::Answer(answer)) => match pending.remove(&answer.callback) {
                    Some(path) if answer.code != 200 => {
                        let (code, message) = (answer.code, answer.message);
                        return Err(PeerError::Subscription { path, code, message }.into());
                    }
                    _ => {}
                },
                None => return Ok((!self.output.flush()?).then_some(SessionEnd::Done)),
            }
        }
    }

    /// Sends the token again before it expires: its file may have a new one.
    fn renew(&self, peer: &mut Peer, renewal: &mut Renewal) -> Result<(), ClientError> {
        match &self.target.token {
            Some(token) if renewal.at.is_some_and(|at| Instant::now() >= at) => {
                *renewal = Renewal { at: None, callback: Some(peer.send_token(&token.read()?)) };
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&self, text: &str) {
        if !self.is_quiet {
            log::report(&text);
        }
    }
}

/// Returns the time at which a token that ends at this Unix time is renewed.
fn renewal_time(expires: u64) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(expires).saturating_sub(now).saturating_sub(RENEWED_BEFORE);
    // A clock that is wrong must not make a loop of renewals. An `Instant` of a distant year would overflow.
    Instant::now() + left.clamp(Duration::from_secs(1), Duration::from_secs(365 * 24 * 60 * 60))
}

/// Returns a random part of a pause, at least half of it, so that the clients of a server that was restarted do not all come
/// at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    rand::fill(&mut random).expect("the kernel has random bytes");
    pause / 2 + pause / 2 * u32::from(random[0]) / 255
}
