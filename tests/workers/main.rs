//! Black-box tests of workers: the real server runs a worker that implements docs/workers.md itself (`apps/raw`), and
//! clients control the worker by events.
//!
//! The data of an event are steps for the worker: pairs of a name and its arguments, described in that file.

mod broken;
mod errors;
mod hard;
mod life;
mod limits;
mod options;
mod presence;
mod printing;
mod refused;
mod releases;
mod reload;
mod spread;
mod start;
mod stop;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other tests need the rest")]
mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{Answer, Client, Conversation, DEADLINE, Server, Transport};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The worker that executes the steps of events.
const RAW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workers/apps/raw");

/// A folder for one test. Dropping it removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("workers-{}-{nth}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        Folder(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Writes a settings file with these settings for the application `raw`, and returns its path. A string is written as
    /// it is, every other value as JSON.
    fn settings(&self, settings: &Value) -> String {
        let mut text = String::from("[app-settings.raw]\n");
        for (name, value) in settings.as_object().expect("settings have names") {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // A JSON string is also a TOML string.
            text += &format!("{name} = {}\n", json!(value));
        }
        let file = self.file("settings.toml");
        fs::write(&file, text).expect("a file can be written");
        file
    }

    /// Copies the worker, so that the test can change the copy, and returns its path.
    fn worker(&self, name: &str) -> String {
        let file = self.file(name);
        fs::copy(RAW, &file).expect("a file can be copied, with its mode");
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // a folder that remains harms no other test
    }
}

/// Starts a server that runs the worker with these settings. The test moves the clock of the server, which does not make
/// the worker's pings late.
fn start(settings: Value, arguments: &[&str]) -> Server {
    let folder = Folder::new();
    // The server reads the file when it starts, and after SIGHUP.
    let file = folder.settings(&settings);
    let app = if arguments.contains(&"--app") { &[][..] } else { &["--app", RAW] };
    let timeout =
        if arguments.contains(&"--worker-timeout") { &[][..] } else { &["--worker-timeout", "24h"] };
    Server::start_with_clock(&[app, timeout, &["--config", &file], arguments].concat()).keep(folder)
}

/// Sends steps to the worker, and returns the callback's id.
fn ask(client: &mut impl Conversation, steps: &Value) -> u64 {
    client.ask("/raw", &steps.to_string())
}

/// Sends steps to the worker, and returns the answer.
fn request(client: &mut impl Conversation, steps: Value) -> Answer {
    let id = ask(client, &steps);
    client.answer(id)
}

/// Sends steps to the worker, and returns the answer, which must have this code.
#[track_caller]
fn request_code(client: &mut impl Conversation, steps: Value, code: u64) -> Answer {
    let answer = request(client, steps);
    assert_eq!(answer.code(), code, "{}", answer.text);
    answer
}

/// Sends steps to the worker, and waits until the worker has executed them.
#[track_caller]
fn execute(client: &mut impl Conversation, steps: Value) {
    let Value::Array(mut steps) = steps else { panic!("a list of steps") };
    steps.push(json!(["answer", {}]));
    request_code(client, Value::Array(steps), 200);
}

/// Sends steps to the worker, without a callback.
fn tell(client: &mut impl Conversation, steps: Value) {
    client.tell("/raw", &steps.to_string());
}

/// Returns a description of this client's worker and of the client.
fn describe(client: &mut impl Conversation) -> Value {
    request_code(client, json!([["who", {}]]), 200).body["data"].take()
}

fn pid(client: &mut impl Conversation) -> u32 {
    describe(client)["pid"].as_u64().expect("a process id") as u32
}

/// Returns the client's id as the worker knows it.
fn name(client: &mut impl Conversation) -> Value {
    describe(client)["client"].take()
}

/// Returns the frames of a type that the worker has received, without their type.
fn received(client: &mut impl Conversation, kind: &str) -> Vec<Value> {
    let all = request_code(client, json!([["told", {}]]), 200).body["data"].take();
    let Value::Array(all) = all else { panic!("a list") };
    let of_kind = all.into_iter().filter(|frame| frame[0] == kind);
    of_kind.map(|frame| frame.as_array().expect("a list")[1..].into()).collect()
}

/// Waits until the worker has received `count` frames of a type, possibly over another link than the client's.
#[track_caller]
fn received_eventually(client: &mut impl Conversation, kind: &str, count: usize) -> Vec<Value> {
    eventually(&format!("told of {count} {kind}"), || {
        Some(received(client, kind)).filter(|received| received.len() >= count)
    })
}

/// Repeats `get` until it returns a value. `state` names the awaited state in the error.
#[track_caller]
fn eventually<T>(state: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(got) = get() {
            return got;
        }
        assert!(Instant::now() < deadline, "never {state}");
        thread::sleep(MS(5)); // leaves the core to the server
    }
}

/// Waits until the log contains a text `count` times, and returns the log.
#[track_caller]
fn wait_for_log(server: &Server, needle: &str, count: usize) -> String {
    eventually(&format!("{needle:?} in the log, {count} times"), || {
        Some(server.log_with("")).filter(|log| log.matches(needle).count() >= count)
    })
}

/// Connects a client of each shard, in the order of the shards.
fn one_of_each_shard(server: &Server, transport: Transport) -> [Client; 2] {
    let mut found: [Option<Client>; 2] = [None, None];
    for _ in 0..200 {
        let mut client = server.client(transport);
        let shard = describe(&mut client)["link"].as_u64().expect("a number") as usize;
        found[shard] = Some(client);
        if let [Some(_), Some(_)] = &found {
            return found.map(|client| client.expect("checked above"));
        }
    }
    panic!("a shard accepts no connections");
}

/// Connects two clients of one shard.
fn two_of_one_shard(server: &Server) -> [Client; 2] {
    let mut one = server.websocket();
    let shard = name(&mut one)[0].take();
    for _ in 0..200 {
        let mut other = server.websocket();
        if name(&mut other)[0] == shard {
            return [one, other];
        }
    }
    panic!("a shard accepts no connections");
}

/// Waits until every instance has its links to both shards.
fn wait_for_links(server: &Server, instances: u64) {
    server.eventually_is("worker_links", 2 * instances);
}

fn signal(pid: u32, name: &str) {
    let kill = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &kill]).status().expect("sh runs");
    assert!(status.success(), "{kill}");
}

/// Returns whether a process runs. A zombie does not.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until a process has ended.
#[track_caller]
fn wait_for_end(pid: u32) {
    eventually(&format!("the end of process {pid}"), || (!is_running(pid)).then_some(()));
}

/// Returns the data of an answer.
fn body(answer: &Answer) -> &str {
    answer.text.split_once('=').expect("an equals sign").1
}
