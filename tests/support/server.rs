//! One running server: the real binary, on ports that the kernel chose.

use super::{Client, DEADLINE, Wire, http};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_quickio");

/// A server process. It is killed when this is dropped; where the test fails, its log is printed.
pub struct Server {
    child: Child,
    output: Receiver<String>,
    log: Arc<Log>,
    log_thread: Option<JoinHandle<()>>,
    /// The lines that it printed, but `ready`.
    pub greeting: Vec<String>,
}

/// What it wrote to stderr so far.
#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Server {
    /// Two shards, the bundled applications, a listener on loopback, and these arguments.
    ///
    /// An argument that is given takes the place of the default one.
    pub fn start(arguments: &[&str]) -> Server {
        Server::launch(command(BINARY, arguments))
    }

    /// As [`Server::start`], with a clock that only [`Server::advance`] moves.
    pub fn start_with_clock(arguments: &[&str]) -> Server {
        Server::start(&[&["--clock", "manual"], arguments].concat())
    }

    /// Starts a command that runs the server in the end, and waits until it is ready.
    pub fn launch(command: Command) -> Server {
        let mut server = Server::spawn(command);
        let deadline = Instant::now() + DEADLINE;
        loop {
            match server.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => return server,
                Ok(line) => server.greeting.push(line),
                Err(error) => panic!("the server did not get ready: {error}; it said {:?}", server.greeting),
            }
        }
    }

    fn spawn(mut command: Command) -> Server {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server's binary starts");
        let log = Arc::new(Log::default());
        let (sender, output) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line); // nobody listens once the server is dropped
            }
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let grows = Arc::clone(&log);
        let log_thread = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *grows.text.lock().unwrap() += &(line + "\n");
                grows.grown.notify_all();
            }
        });
        Server { child, output, log, log_thread: Some(log_thread), greeting: Vec::new() }
    }

    /// The address behind the first `listening on`.
    pub fn address(&self) -> &str {
        self.printed("listening on ").next().expect("`listening on ADDRESS` was printed")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All addresses that it listens on.
    pub fn addresses(&self) -> Vec<&str> {
        self.printed("listening on ").collect()
    }

    /// The address of the statistics endpoint.
    pub fn admin(&self) -> &str {
        self.printed("admin on ").next().expect("`admin on ADDRESS` was printed")
    }

    /// The address of the proxy of `quickio clienttest`.
    pub fn proxy(&self) -> &str {
        self.printed("proxy on ").next().expect("`proxy on ADDRESS` was printed")
    }

    fn printed<'a>(&'a self, prefix: &'static str) -> impl Iterator<Item = &'a str> {
        self.greeting.iter().filter_map(move |line| line.strip_prefix(prefix))
    }

    /// A client whose handshake is complete.
    pub fn client(&self, wire: Wire) -> Client {
        Client::open(self.address(), wire)
    }

    /// A WebSocket client whose handshake is complete.
    pub fn websocket(&self) -> Client {
        self.client(Wire::WebSocket)
    }

    /// Moves the manual clock.
    pub fn advance(&self, by: Duration) {
        let path = format!("/clock?advance={}", by.as_millis());
        let response = self.ask("POST", &path);
        assert!(response.head.status < 300, "the clock was not moved: {response:?}");
    }

    /// The statistics of this moment.
    pub fn stats(&self) -> Stats {
        let response = self.ask("GET", "/stats");
        assert_eq!(response.head.status, 200);
        Stats(serde_json::from_str(&response.body).expect("/stats is JSON"))
    }

    /// Asks the statistics endpoint.
    pub fn ask(&self, method: &str, path: &str) -> http::Response {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        http::exchange(self.admin(), request)
    }

    /// Waits until the statistics are as they should be.
    pub fn eventually(&self, what: &str, is: impl Fn(&Stats) -> bool) -> Stats {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stats = self.stats();
            if is(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "never {what}: {:#}", stats.0);
            thread::sleep(Duration::from_millis(2)); // not for the server's sake: to leave it the core
        }
    }

    /// Waits until a counter or gauge, of all shards together, has a value.
    pub fn eventually_is(&self, name: &str, value: u64) -> Stats {
        self.eventually(&format!("{name} = {value}"), |stats| stats.value(name) == value)
    }

    /// Waits until the log says something, and returns the whole log.
    pub fn log_with(&self, needle: &str) -> String {
        let text = self.log.text.lock().unwrap();
        let missing = |text: &mut String| !text.contains(needle);
        let (text, waited) = self.log.grown.wait_timeout_while(text, DEADLINE, missing).unwrap();
        assert!(!waited.timed_out(), "the log never said {needle:?}");
        text.clone()
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("sh runs");
        assert!(status.success(), "{kill}");
    }

    /// Waits for the process's end.
    pub fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            // Its stdout ends with it.
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.greeting.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("the server does not exit"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(thread) = self.log_thread.take() {
            thread.join().expect("the thread that reads the log does not panic");
        }
        self.child.wait().expect("the child can be waited for")
    }

    /// Panics where the server does not serve any more.
    pub fn assert_serves(&self) {
        for wire in [Wire::Raw, Wire::WebSocket] {
            self.client(wire).ping();
        }
    }

    /// Opens WebSocket clients until every shard has at least one, and `count` in all.
    pub fn spread(&self, count: usize) -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| self.websocket()).collect();
        while !self.stats().shards().all(|shard| shard["gauges"]["clients"].as_u64() > Some(0)) {
            assert!(clients.len() < count + 200, "a shard gets no connections");
            clients.push(self.websocket());
        }
        clients
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have exited already
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the server's output\n{}", self.greeting.join("\n"));
            eprintln!("--- the server's log\n{}---", self.log.text.lock().unwrap());
        }
    }
}

const DEFAULTS: [(&str, &str); 3] =
    [("--listen", "127.0.0.1:0"), ("--admin", "127.0.0.1:0"), ("--shards", "2")];

/// The command line of a server on free ports.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["--app", "relay", "--app", "clienttest"]);
    with_defaults(command, &DEFAULTS, arguments)
}

/// The command line of `quickio clienttest` on free ports.
pub fn client_test_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("clienttest");
    with_defaults(command, &[&DEFAULTS[..], &[("--proxy", "127.0.0.1:0")]].concat(), arguments)
}

fn with_defaults(mut command: Command, defaults: &[(&str, &str)], arguments: &[&str]) -> Command {
    for (flag, value) in defaults {
        if !arguments.contains(flag) {
            command.args([flag, value]);
        }
    }
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUICKIO_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the server where it should end by itself, and returns its exit code, stdout and stderr.
pub fn run(mut command: Command) -> (Option<i32>, String, String) {
    // A server that starts against expectation is stopped by the deadline, not waited for without end.
    command.stdin(Stdio::null());
    let mut server = Server::spawn(command);
    let status = server.exit();
    let log = server.log.text.lock().unwrap().clone();
    (status.code(), server.greeting.join("\n"), log)
}

/// An answer of `/stats`.
#[derive(Debug)]
pub struct Stats(pub Value);

impl Stats {
    /// A counter or gauge of all shards together.
    pub fn value(&self, name: &str) -> u64 {
        let value = self.0["counters"][name].as_u64().or_else(|| self.0["gauges"][name].as_u64());
        value.unwrap_or_else(|| panic!("/stats has no {name}: {:#}", self.0))
    }

    /// A latency histogram of all shards together.
    pub fn timer(&self, name: &str) -> &Value {
        &self.0["timers"][name]
    }

    /// The statistics of each shard.
    pub fn shards(&self) -> impl Iterator<Item = &Value> {
        self.0["shards"].as_array().expect("a list of shards").iter()
    }
}
