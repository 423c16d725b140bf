//! Workers: applications that run in processes of their own, in Python, JavaScript, or whatever speaks docs/workers.md.
//!
//! ```text
//!   supervisor (a thread)  --- starts, stops, replaces --->  worker processes
//!        |                 <-- control socket, prints, exit --      |
//!        | News                                                     |
//!        v                                                          |
//!   team, link (on each shard)  <------------- links --------------+
//! ```
//!
//! | file | is |
//! | --- | --- |
//! | `supervisor`, `orders` | the thread that keeps an application's workers running; what it is told |
//! | `stage` | a worker as that thread sees it |
//! | `backoff` | when a worker that crashed is started again |
//! | `process` | one worker's process, its control socket, what it prints |
//! | `manifest` | the lines of the control socket |
//! | `lines` | what it prints, bounded |
//! | `watch` | the files that it is replaced for |
//! | `package` | the libraries, which the server has in itself |
//! | `team` | an application's links on a shard |
//! | `link` | a shard's end of one link |
//! | `requests`, `timers` | what is under way on it; its worker's timers |
//! | `wire` | its frames |
//! | `tally` | what is counted |
//! | `python/`, `node/` | the libraries themselves |

mod backoff;
mod group;
mod lines;
mod link;
mod manifest;
mod orders;
mod package;
mod process;
mod requests;
mod stage;
mod supervisor;
mod tally;
mod timers;
mod watch;
mod wire;

pub use link::WorkerLink;
pub use manifest::Manifest;

pub use group::WorkerGroup;
pub use requests::REQUESTS_MAX;

use super::{Application, Error, Registrar, Server};
use crate::metrics::Counters;
use futures_channel::oneshot;
use orders::{Order, Orders};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use supervisor::Supervisor;
use thiserror::Error as ThisError;

/// What runs a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerKind {
    Python,
    Node,
    /// It runs by itself, by what its first line names.
    Program,
}

impl WorkerKind {
    /// What an application's file is, by its ending or its first bytes; `None`: it is no worker.
    pub fn of(file: &Path) -> Option<WorkerKind> {
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("py") => Some(WorkerKind::Python),
            Some("js" | "mjs" | "cjs") => Some(WorkerKind::Node),
            Some("so") => None,
            _ if is_script(file) => Some(WorkerKind::Program),
            _ => None,
        }
    }
}

/// Whether a file may be executed and begins with `#!`.
fn is_script(file: &Path) -> bool {
    let executable = |found: fs::Metadata| found.is_file() && found.permissions().mode() & 0o111 != 0;
    let mut head = [0; 2];
    fs::metadata(file).is_ok_and(executable)
        && fs::File::open(file).is_ok_and(|mut file| std::io::Read::read_exact(&mut file, &mut head).is_ok())
        && head == *b"#!"
}

/// How an application's workers are run.
#[derive(Clone)]
pub struct WorkerConfig {
    pub name: String,
    pub file: PathBuf,
    pub kind: WorkerKind,
    /// How many workers: 1 at least.
    pub instances: usize,
    /// How many links each has.
    pub shards: usize,
    /// The section of the settings file.
    pub settings: BTreeMap<String, String>,
    /// The interpreters.
    pub python: PathBuf,
    pub node: PathBuf,
    pub limits: LinkLimits,
    /// For a worker to get ready.
    pub start_timeout: Duration,
    /// For one to finish when the server stops.
    pub stop_timeout: Duration,
    /// For one that is replaced to finish what it has: longer than its requests and callbacks may take.
    pub replace_timeout: Duration,
    /// For one to answer a ping.
    pub timeout: Duration,
    /// Whether they are replaced when their files change.
    pub reload: bool,
    /// Whether they are to test themselves, in place of serving.
    pub test: bool,
    pub time: WorkerClock,
}

/// What each link may take.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// Requests under way: [`REQUESTS_MAX`] at most.
    pub requests_max: usize,
    /// Bytes that the worker has not read, from which on it is given no more events.
    pub outbox_bytes_max: usize,
    /// Bytes that it has not read, while it says more and more, from which on it is killed.
    pub unread_bytes_max: usize,
    /// For the worker to answer a request.
    pub request_timeout: Duration,
}

/// The clock that the server's timers go by.
#[derive(Clone)]
pub struct WorkerClock {
    pub now: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Whether it stands still until it is moved.
    pub is_manual: bool,
}

/// What shards tell the supervisor.
pub trait SupervisorHandle: Send + Sync {
    /// A worker has broken the protocol: it has to be ended.
    fn report_broken(&self, worker: u32, why: &str);
    /// A link has ended that was in use: so has its worker, or it has to.
    fn report_link_end(&self, worker: u32);
}

/// What the supervisor tells a shard.
pub enum WorkerEvent {
    /// A worker has come: its events are the application's from now on.
    Joined(JoinedWorker),
    /// The process of a worker has ended.
    Left { app: u32, worker: u32 },
}

/// A worker that has come, and a shard's end of its link to there.
pub struct JoinedWorker {
    /// The number of the application.
    pub app: u32,
    pub instance: u32,
    /// The serial number of the worker, among those of the application.
    pub worker: u32,
    pub manifest: Arc<Manifest>,
    /// When it came, by the server's clock: its timers go from then on, whenever the shard looks.
    pub joined_at: Duration,
    pub socket: OwnedFd,
}

/// How the supervisor reaches the shards. The server implements it.
pub trait ShardsHandle: Send + Sync {
    /// Leaves news for a shard; gives them back where it has not looked at so many.
    fn send(&self, shard: usize, event: WorkerEvent) -> Result<(), WorkerEvent>;
}

/// Why an application's workers do not run.
#[derive(Debug, ThisError)]
pub enum StartError {
    #[error("the libraries of workers cannot be written to the folder for temporary files (TMPDIR): {0}")]
    Package(std::io::Error),
    #[error("the kernel has no socket, thread or descriptor for it: {0}")]
    Sockets(std::io::Error),
    #[error("{} cannot be started{}: {error}", .program.display(), setting_of(*.kind))]
    Spawn { program: PathBuf, kind: WorkerKind, error: std::io::Error },
    #[error("{0}")]
    Failed(String),
}

fn setting_of(kind: WorkerKind) -> &'static str {
    match kind {
        WorkerKind::Python => " (the setting python names it)",
        WorkerKind::Node => " (the setting node names it)",
        WorkerKind::Program => "",
    }
}

/// Leaves nothing behind of a server that ends without waiting for anything.
pub fn abandon_all() {
    process::kill_all();
    package::remove_all();
}

/// An application whose workers run.
pub struct WorkerApplication {
    name: Arc<str>,
    instances: usize,
    limits: LinkLimits,
    manifest: Arc<Manifest>,
    orders: Orders,
    shards: OnceLock<Arc<dyn ShardsHandle>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    test: bool,
}

/// Starts an application's workers, and waits until all of them are ready.
///
/// # Errors
///
/// One of them cannot be started, or says that it failed.
pub fn start(plan: WorkerConfig) -> Result<Arc<WorkerApplication>, StartError> {
    let (name, instances, limits, test) = (plan.name.as_str().into(), plan.instances, plan.limits, plan.test);
    let (orders, taken) = orders::orders().map_err(StartError::Sockets)?;
    let (first, is_ready) = sync_channel(1);
    let supervisor = Supervisor::new(plan, taken, Arc::clone(orders.counts()), first);
    let thread = std::thread::Builder::new().name(format!("workers-{name}")).spawn(move || supervisor.run());
    let thread = thread.map_err(StartError::Sockets)?;
    match is_ready.recv() {
        Ok(Ok(manifest)) => Ok(Arc::new(WorkerApplication {
            name,
            instances,
            limits,
            manifest,
            orders,
            shards: OnceLock::new(),
            thread: Mutex::new(Some(thread)),
            test,
        })),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => Err(StartError::Failed("its supervisor has ended".into())),
    }
}

impl WorkerApplication {
    /// How many workers it has.
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// How the shards are reached, once they are there; before [`Application::start`].
    pub fn set_shards(&self, shards: Arc<dyn ShardsHandle>) {
        let _ = self.shards.set(shards);
    }

    /// Replaces the workers one by one.
    pub fn replace(&self) {
        self.orders.give(Order::Replace);
    }

    /// Tells the supervisor that the server's clock was moved by hand. The receiver resolves when everything that was due
    /// has been done.
    pub fn clock_moved(&self) -> oneshot::Receiver<()> {
        let (done, is_done) = oneshot::channel();
        self.orders.give(Order::ClockMoved(done));
        is_done
    }

    /// Adds what the supervisor counts.
    pub fn add_counters(&self, counters: &mut Counters) {
        self.orders.counts().add_to(counters);
    }

    /// The server begins to stop: no worker is started any more.
    pub fn begin_shutdown(&self) {
        self.orders.give(Order::ServerStops);
    }

    /// The shards have ended: whatever still runs has to end.
    pub fn shards_ended(&self) {
        self.orders.give(Order::ShardsEnded);
    }

    /// Ends the workers, and waits for that.
    pub fn finish(&self) {
        self.shards_ended();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Where it panicked, the log has it.
        thread.map(|thread| thread.join());
    }
}

impl Application for WorkerApplication {
    fn name(&self) -> &str {
        &self.name
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let supervisor = Arc::new(self.orders.clone());
        let group = WorkerGroup::new(
            Arc::clone(&self.name),
            registrar.shard(),
            self.instances,
            self.limits,
            supervisor,
        );
        group.register(registrar, &self.manifest)?;
        registrar.add_worker_group(group);
        Ok(())
    }

    fn start(&self, server: &Server) -> Result<(), Error> {
        let shards = self.shards.get().ok_or_else(|| Error::Failed("it has no way to the shards".into()))?;
        let (done, is_done) = sync_channel(1);
        self.orders.give(Order::Serve { app: server.app(), shards: Arc::clone(shards), done });
        // Whoever connects finds the workers at work.
        is_done.recv().map_err(|_| Error::Failed("its supervisor has ended".into()))
    }

    fn stop(&self) {
        self.finish();
    }

    fn self_test(&self) -> Result<(), Error> {
        if !self.test {
            return Ok(());
        }
        let (outcome, tested) = sync_channel(1);
        self.orders.give(Order::Outcome(outcome));
        tested.recv().unwrap_or_else(|_| Err("its supervisor has ended".into())).map_err(Error::Failed)
    }
}
