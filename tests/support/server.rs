//! A running server: the real binary, on ports that the kernel chose.

use super::{Client, Conversation, DEADLINE, HttpClient, Transport, http};
use serde_json::Value;
use std::any::Any;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_quickio");

/// A server process. Dropping it kills the process, and prints its log if the test fails.
pub struct Server {
    child: Child,
    output: Receiver<String>,
    log: Arc<Log>,
    log_thread: Option<JoinHandle<()>>,
    /// The lines that the server printed, except `ready`.
    pub greeting: Vec<String>,
    /// The files that the server may still read.
    kept: Vec<Box<dyn Any + Send>>,
}

/// The output of the server on stderr so far.
#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Server {
    /// Starts a server with two shards, the bundled applications, a listener on loopback, and these arguments.
    ///
    /// An argument replaces the default of the same name.
    pub fn start(arguments: &[&str]) -> Server {
        Server::launch(command(BINARY, arguments))
    }

    /// As [`Server::start`], with a clock that only [`Server::advance`] moves.
    pub fn start_with_clock(arguments: &[&str]) -> Server {
        Server::start(&[&["--clock", "manual"], arguments].concat())
    }

    /// Starts a command that runs the server, and waits until the server is ready.
    pub fn launch(command: Command) -> Server {
        let mut server = Server::spawn(command);
        let deadline = Instant::now() + DEADLINE;
        loop {
            match server.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => return server,
                Ok(line) => server.greeting.push(line),
                Err(error) => {
                    panic!("the server did not get ready: {error}; it printed {:?}", server.greeting)
                }
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
                let _ = sender.send(line); // fails after the `Server` has been dropped
            }
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let thread_log = Arc::clone(&log);
        let log_thread = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *thread_log.text.lock().unwrap() += &(line + "\n");
                thread_log.grown.notify_all();
            }
        });
        Server { child, output, log, log_thread: Some(log_thread), greeting: Vec::new(), kept: Vec::new() }
    }

    /// Keeps a value until the server has ended, such as the guard of a file.
    #[allow(dead_code, reason = "only the tests of workers need it")]
    pub fn keep(mut self, value: impl Any + Send) -> Server {
        self.kept.push(Box::new(value));
        self
    }

    /// Returns the first address that the server listens on.
    pub fn address(&self) -> &str {
        self.printed("listening on ").next().expect("`listening on ADDRESS` was printed")
    }

    /// Returns the process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns all addresses that the server listens on.
    pub fn addresses(&self) -> Vec<&str> {
        self.printed("listening on ").collect()
    }

    /// Returns the address of the statistics endpoint.
    pub fn admin(&self) -> &str {
        self.printed("admin on ").next().expect("`admin on ADDRESS` was printed")
    }

    /// Returns the address of the server API.
    pub fn api(&self) -> &str {
        self.printed("api on ").next().expect("`api on ADDRESS` was printed")
    }

    /// Returns the address of the proxy of `quickio clienttest`.
    pub fn proxy(&self) -> &str {
        self.printed("proxy on ").next().expect("`proxy on ADDRESS` was printed")
    }

    fn printed<'a>(&'a self, prefix: &'static str) -> impl Iterator<Item = &'a str> {
        self.greeting.iter().filter_map(move |line| line.strip_prefix(prefix))
    }

    /// Connects a client over raw TCP or WebSocket and completes its handshake.
    pub fn client(&self, transport: Transport) -> Client {
        Client::open(self.address(), transport)
    }

    /// Connects a WebSocket client and completes its handshake.
    pub fn websocket(&self) -> Client {
        self.client(Transport::WebSocket)
    }

    /// Opens an HTTP session.
    pub fn http_client(&self, transport: Transport) -> HttpClient {
        HttpClient::open(self.address(), transport)
    }

    /// Connects a client over any transport.
    pub fn conversation(&self, transport: Transport) -> Box<dyn Conversation> {
        converse(self.address(), transport)
    }

    /// Moves the manual clock, and waits until every shard has handled the timers that are due then.
    pub fn advance(&self, by: Duration) {
        let path = format!("/clock?advance={}", by.as_millis());
        let mut response = self.admin_exchange("POST", &path);
        let deadline = Instant::now() + DEADLINE;
        // The clock has been moved also if a shard was silent. Only the wait is repeated.
        while response.head.status == 503 && Instant::now() < deadline {
            response = self.admin_exchange("POST", "/clock?advance=0");
        }
        assert_eq!(response.head.status, 200, "the clock was not moved: {response:?}");
    }

    /// Returns the statistics of this moment.
    #[track_caller]
    pub fn stats(&self) -> Stats {
        let response = self.admin_request("GET", "/stats");
        assert_eq!(response.head.status, 200, "{response:?}");
        Stats(serde_json::from_str(&response.body).expect("/stats is JSON"))
    }

    /// Waits until every shard has handled everything that the kernel had received for it before this call.
    #[track_caller]
    pub fn wait_for_shards(&self) {
        assert_eq!(self.admin_request("GET", "/healthz").head.status, 200);
    }

    /// Sends a request to the statistics endpoint and returns its response.
    ///
    /// The endpoint responds with 503 if a shard has been silent for two seconds, which is not an error on a loaded
    /// machine. A request that changes nothing is repeated then, until [`DEADLINE`].
    pub fn admin_request(&self, method: &str, path: &str) -> http::Response {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let response = self.admin_exchange(method, path);
            if response.head.status != 503 || method != "GET" || Instant::now() > deadline {
                return response;
            }
        }
    }

    fn admin_exchange(&self, method: &str, path: &str) -> http::Response {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        http::exchange(self.admin(), request)
    }

    /// Waits until the statistics fulfil a condition, and returns them. `state` names the condition in the error.
    #[track_caller]
    pub fn eventually(&self, state: &str, is: impl Fn(&Stats) -> bool) -> Stats {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let stats = self.stats();
            if is(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "never {state}: {:#}", stats.0);
            thread::sleep(Duration::from_millis(2)); // leaves the core to the server
        }
    }

    /// Waits until a counter or gauge of all shards together has a value.
    #[track_caller]
    pub fn eventually_is(&self, name: &str, value: u64) -> Stats {
        self.eventually(&format!("{name} = {value}"), |stats| stats.value(name) == value)
    }

    /// Waits until the log contains a text, and returns the whole log.
    #[track_caller]
    pub fn log_with(&self, needle: &str) -> String {
        let text = self.log.text.lock().unwrap();
        let missing = |text: &mut String| !text.contains(needle);
        let (text, waited) = self.log.grown.wait_timeout_while(text, DEADLINE, missing).unwrap();
        assert!(!waited.timed_out(), "the log never contained {needle:?}");
        text.clone()
    }

    /// Sends a signal, given by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("sh runs");
        assert!(status.success(), "{kill}");
    }

    /// Waits until the process has exited.
    pub fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            // The stdout of the process ends when the process exits.
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.greeting.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("the server has not exited"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(thread) = self.log_thread.take() {
            thread.join().expect("the thread that reads the log does not panic");
        }
        self.child.wait().expect("the child can be waited for")
    }

    /// Panics if the server does not serve new clients.
    #[track_caller]
    pub fn assert_serves(&self) {
        for transport in Transport::SOCKETS {
            self.client(transport).ping();
        }
    }

    /// Connects WebSocket clients until there are `count` of them and every shard has at least one.
    pub fn spread(&self, count: usize) -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| self.websocket()).collect();
        while !self.stats().shards().all(|shard| shard["gauges"]["clients"].as_u64() > Some(0)) {
            assert!(clients.len() < count + 200, "a shard accepts no connections");
            clients.push(self.websocket());
        }
        clients
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails if the server has exited already
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the server's output\n{}", self.greeting.join("\n"));
            eprintln!("--- the server's log\n{}---", self.log.text.lock().unwrap());
        }
    }
}

const DEFAULTS: [(&str, &str); 3] =
    [("--listen", "127.0.0.1:0"), ("--admin", "127.0.0.1:0"), ("--shards", "2")];

/// Returns the command line of a server on free ports.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["--app", "relay", "--app", "clienttest"]);
    with_defaults(command, &DEFAULTS, arguments)
}

/// Returns the command line of `quickio clienttest` on free ports.
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
    // A server that is killed leaves the libraries for its workers, until the next one starts.
    command.env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUICKIO_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a server that should exit without a signal, and returns its exit code, stdout and stderr.
pub fn run(mut command: Command) -> (Option<i32>, String, String) {
    // A server that starts against expectation panics at the deadline.
    command.stdin(Stdio::null());
    let mut server = Server::spawn(command);
    let status = server.exit();
    let log = server.log.text.lock().unwrap().clone();
    (status.code(), server.greeting.join("\n"), log)
}

/// The statistics as `/stats` returns them.
#[derive(Debug)]
pub struct Stats(pub Value);

impl Stats {
    /// Returns a counter or gauge of all shards together.
    pub fn value(&self, name: &str) -> u64 {
        let value = self.0["counters"][name].as_u64().or_else(|| self.0["gauges"][name].as_u64());
        value.unwrap_or_else(|| panic!("/stats has no {name}: {:#}", self.0))
    }

    /// Returns a latency histogram of all shards together.
    pub fn timer(&self, name: &str) -> &Value {
        &self.0["timers"][name]
    }

    /// Returns the statistics of each shard.
    pub fn shards(&self) -> impl Iterator<Item = &Value> {
        self.0["shards"].as_array().expect("a list of shards").iter()
    }
}

/// Connects a client of the server at this address over any transport. Threads can do so without the [`Server`].
pub fn converse(address: &str, transport: Transport) -> Box<dyn Conversation> {
    match transport {
        Transport::Raw | Transport::WebSocket => Box::new(Client::open(address, transport)),
        Transport::Poll | Transport::Stream => Box::new(HttpClient::open(address, transport)),
    }
}
