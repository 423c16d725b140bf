//! Applications in workers, from outside: the real server runs a worker that speaks docs/workers.md by itself
//! and does what events tell it (`apps/raw`), and clients speak to the server.
//!
//! An event's data are steps for the worker: pairs of a name and its arguments, as that file describes them.

mod broken;
mod hard;
mod life;
mod limits;
mod printing;
mod refused;
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

/// The worker that does what it is told.
const RAW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workers/apps/raw");

/// A folder for one test. It is removed at the end.
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

    /// A settings file with these for the application `raw`: texts are what they are, all else is JSON.
    fn settings(&self, settings: &Value) -> String {
        let mut text = String::from("[app-settings.raw]\n");
        for (name, value) in settings.as_object().expect("settings have names") {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // What JSON escapes in a string TOML reads.
            text += &format!("{name} = {}\n", json!(value));
        }
        let file = self.file("settings.toml");
        fs::write(&file, text).expect("a file can be written");
        file
    }

    /// A worker's file of its own, to be changed.
    fn worker(&self, name: &str) -> String {
        let file = self.file(name);
        fs::copy(RAW, &file).expect("a file can be copied, with its mode");
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // a test's leftover harms nobody
    }
}

/// A server that runs the worker with these settings of its own. Its clock moves by hand: that
/// makes no ping late.
fn start(settings: Value, arguments: &[&str]) -> Server {
    let folder = Folder::new();
    // It is read at the start only.
    let file = folder.settings(&settings);
    let app = if arguments.contains(&"--app") { &[][..] } else { &["--app", RAW] };
    let timeout =
        if arguments.contains(&"--worker-timeout") { &[][..] } else { &["--worker-timeout", "24h"] };
    Server::start_with_clock(&[app, timeout, &["--config", &file], arguments].concat())
}

/// Has the worker do this.
fn ask(client: &mut Client, steps: &Value) -> u64 {
    client.ask("/raw", &steps.to_string())
}

/// As [`ask`], and its answer is awaited.
fn request(client: &mut Client, steps: Value) -> Answer {
    let id = ask(client, &steps);
    client.answer(id)
}

/// As [`request`], and the answer has this code.
#[track_caller]
fn request_code(client: &mut Client, steps: Value, code: u64) -> Answer {
    let answer = request(client, steps);
    assert_eq!(answer.code(), code, "{}", answer.text);
    answer
}

/// Has the worker do this; afterwards it has done it.
#[track_caller]
fn order(client: &mut Client, steps: Value) {
    let Value::Array(mut steps) = steps else { panic!("a list of steps") };
    steps.push(json!(["answer", {}]));
    request_code(client, Value::Array(steps), 200);
}

/// Has the worker do this, whatever becomes of it.
fn tell(client: &mut Client, steps: Value) {
    client.tell("/raw", &steps.to_string());
}

/// What the worker of this client is.
fn who(client: &mut Client) -> Value {
    request_code(client, json!([["who", {}]]), 200).body["data"].take()
}

fn pid(client: &mut Client) -> u32 {
    who(client)["pid"].as_u64().expect("a process has a number") as u32
}

/// The client's name, by which the worker knows it.
fn name(client: &mut Client) -> Value {
    who(client)["client"].take()
}

/// What the worker was told of this kind, without the kind.
fn told(client: &mut Client, kind: &str) -> Vec<Value> {
    let all = request_code(client, json!([["told", {}]]), 200).body["data"].take();
    let Value::Array(all) = all else { panic!("a list") };
    let of_kind = all.into_iter().filter(|what| what[0] == kind);
    of_kind.map(|what| what.as_array().expect("a list")[1..].into()).collect()
}

/// Waits until the worker was told so much of this kind, which may come over another link than the client's.
#[track_caller]
fn told_eventually(client: &mut Client, kind: &str, count: usize) -> Vec<Value> {
    eventually(&format!("told of {count} {kind}"), || {
        Some(told(client, kind)).filter(|told| told.len() >= count)
    })
}

/// Waits until there is something.
#[track_caller]
fn eventually<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(got) = get() {
            return got;
        }
        assert!(Instant::now() < deadline, "never {what}");
        thread::sleep(MS(5)); // not for the server's sake: to leave it the core
    }
}

/// Waits until the log says something so often.
#[track_caller]
fn logged(server: &Server, needle: &str, count: usize) -> String {
    eventually(&format!("{needle:?} in the log, {count} times"), || {
        Some(server.log_with("")).filter(|log| log.matches(needle).count() >= count)
    })
}

/// A client of each shard, in their order.
fn one_of_each_shard(server: &Server, wire: Transport) -> [Client; 2] {
    let mut found: [Option<Client>; 2] = [None, None];
    for _ in 0..200 {
        let mut client = server.client(wire);
        let shard = who(&mut client)["link"].as_u64().expect("a number") as usize;
        found[shard] = Some(client);
        if let [Some(_), Some(_)] = &found {
            return found.map(|client| client.expect("it was just seen"));
        }
    }
    panic!("a shard gets no connections");
}

/// Two clients of one shard.
fn two_of_one_shard(server: &Server) -> [Client; 2] {
    let mut one = server.websocket();
    let shard = name(&mut one)[0].take();
    for _ in 0..200 {
        let mut other = server.websocket();
        if name(&mut other)[0] == shard {
            return [one, other];
        }
    }
    panic!("a shard gets no connections");
}

/// Waits until every instance has its links to both shards.
fn is_served_by(server: &Server, instances: u64) {
    server.eventually_is("worker_links", 2 * instances);
}

fn signal(pid: u32, name: &str) {
    let kill = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &kill]).status().expect("sh runs");
    assert!(status.success(), "{kill}");
}

/// Whether a process runs. One that has ended and that nobody has asked about does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[track_caller]
fn ends(pid: u32) {
    eventually(&format!("the end of process {pid}"), || (!runs(pid)).then_some(()));
}

/// The part of an answer behind its number.
fn body(answer: &Answer) -> &str {
    answer.text.split_once('=').expect("an equals sign").1
}
