//! The thread that keeps an application's workers running: it starts them, restarts them when they crash, replaces them
//! one by one, and ends them.
//!
//! ```text
//!   Starting ---> Ready ---> Serving ---> Draining ---> (ended)
//!       |           |           |            |
//!       +-----------+-----------+------------+--- killed, crashed ---> (ended)
//! ```
//!
//! The thread waits for everything at once, in one `poll`: commands, control sockets, the workers' output, and the ends
//! of their processes.
//!
//! This file has the thread and what it waits for; `serving` has the way of a worker into service, `replacing` the
//! replacement of workers, and `ending` their ends.

mod ending;
mod replacing;
mod serving;
mod status;

use super::backoff::Backoff;
use super::commands::{ReplaceDone, SupervisorCommand, SupervisorReceiver};
use super::control::{ServerMessage, WorkerLogLevel, WorkerMessage};
use super::counters::SupervisorCounters;
use super::file_watcher::FileWatcher;
use super::libraries::LibraryFolder;
use super::manifest::Manifest;
use super::process::{PollSource, WorkerProcess};
use super::supervised::{PingState, SupervisedWorker, WorkerState};
use super::{ShardsHandle, StartError, WorkerConfig};
use crate::limits::WORKER_WATCH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// The longest time for which the supervisor waits for the answers to its pings after a test has moved the clock.
const PONG_WAIT: Duration = Duration::from_secs(1);

/// The time by which the supervisor may run later than planned before it takes itself to have been stalled.
const STALL: Duration = Duration::from_millis(250);

/// The sender of the result of the start: the manifest of the first workers, or the reason why they cannot run.
pub type ReadySender = SyncSender<Result<Arc<Manifest>, StartError>>;

/// The supervisor of one application.
///
/// Invariants, which `check` asserts: at most one worker of an instance is serving, and no restart is scheduled for an
/// instance that has a worker, or after the shutdown has begun.
pub struct Supervisor {
    config: WorkerConfig,
    commands: SupervisorReceiver,
    counters: Arc<SupervisorCounters>,
    /// `None` until the first workers are started.
    libraries: Option<LibraryFolder>,
    workers: Vec<SupervisedWorker>,
    instances: Vec<InstanceState>,
    /// The serial number of the worker that was started last.
    last_serial: u32,
    /// `None` until the shards are running.
    shards: Option<ServedShards>,
    /// Instances whose workers are to be replaced. The first one is being replaced.
    replacements: VecDeque<usize>,
    /// The functions to call at the end of the replacement.
    replaced: Vec<ReplaceDone>,
    file_watcher: FileWatcher,
    next_file_check: Instant,
    /// The server is shutting down: no more workers are started.
    is_shutting_down: bool,
    /// The shards have ended: all workers have to end.
    shards_ended: bool,
    /// `None` once the result of the start has been sent.
    ready_tx: Option<ReadySender>,
    /// The result of the self-test, once it is known.
    self_test: Option<Result<(), String>>,
    /// The receiver of that result, once there is one.
    self_test_tx: Option<SyncSender<Result<(), String>>>,
}

/// The restarts of one instance.
#[derive(Default)]
struct InstanceState {
    backoff: Backoff,
    /// The time of the next restart, by the server's clock, if one is scheduled.
    restart_at: Option<Duration>,
    /// The number of workers that were started.
    started: u64,
    /// The number of workers that ended unexpectedly.
    crashed: u64,
}

/// The shards that the workers serve.
struct ServedShards {
    /// The number of the application.
    app: u32,
    handle: Arc<dyn ShardsHandle>,
}

impl Supervisor {
    pub fn new(
        config: WorkerConfig,
        commands: SupervisorReceiver,
        counters: Arc<SupervisorCounters>,
        ready_tx: ReadySender,
    ) -> Supervisor {
        Supervisor {
            instances: (0..config.instances).map(|_| InstanceState::default()).collect(),
            config,
            commands,
            counters,
            libraries: None,
            workers: Vec::new(),
            last_serial: 0,
            shards: None,
            replacements: VecDeque::new(),
            replaced: Vec::new(),
            file_watcher: FileWatcher::default(),
            next_file_check: Instant::now(),
            is_shutting_down: false,
            shards_ended: false,
            ready_tx: Some(ready_tx),
            self_test: None,
            self_test_tx: None,
        }
    }

    /// Runs until the shards and all workers have ended, or until the first workers cannot be started.
    pub fn run(mut self) {
        if let Err(error) = self.start_first() {
            self.fail_start(error);
        }
        while !(self.shards_ended && self.workers.is_empty()) {
            self.wait_or_catch_up();
            self.handle_commands();
            self.handle_due();
            if cfg!(debug_assertions) {
                self.check();
            }
        }
    }

    fn start_first(&mut self) -> Result<(), StartError> {
        self.libraries = Some(LibraryFolder::new().map_err(StartError::Libraries)?);
        (0..self.config.instances).try_for_each(|instance| self.start_worker(instance))
    }

    fn start_worker(&mut self, instance: usize) -> Result<(), StartError> {
        let libraries =
            self.libraries.as_mut().expect("the libraries are written before a worker is started");
        let serial = self.last_serial.wrapping_add(1);
        let process = WorkerProcess::start(&self.config, libraries, serial, instance)?;
        self.last_serial = serial;
        self.instances[instance].restart_at = None;
        self.instances[instance].started += 1;
        self.counters.started.add(1);
        tracing::debug!(worker = process.name(), pid = process.pid(), "worker started");
        self.workers.push(SupervisedWorker::new(process, self.config.start_timeout));
        Ok(())
    }

    /// Returns the time since the server started.
    fn now(&self) -> Duration {
        (self.config.clock.now)()
    }

    fn position(&self, serial: u32) -> Option<usize> {
        self.workers.iter().position(|worker| worker.process.serial == serial)
    }

    /// Returns a worker, or `None` if it has ended. Commands and poll events may name a worker that has ended
    /// meanwhile.
    fn worker(&mut self, serial: u32) -> Option<&mut SupervisedWorker> {
        self.workers.iter_mut().find(|worker| worker.process.serial == serial)
    }

    fn has_serving_worker(&self, instance: usize) -> bool {
        let is_serving = |worker: &SupervisedWorker| matches!(worker.state, WorkerState::Serving(_));
        self.workers.iter().any(|worker| worker.process.instance == instance && is_serving(worker))
    }

    /// Asserts the invariants of the supervisor.
    fn check(&self) {
        for (instance, state) in self.instances.iter().enumerate() {
            let workers = || self.workers.iter().filter(|worker| worker.process.instance == instance);
            let serving = workers().filter(|worker| matches!(worker.state, WorkerState::Serving(_))).count();
            assert!(serving <= 1, "instance {instance} has {serving} serving workers");
            if state.restart_at.is_some() {
                assert!(!self.is_shutting_down, "a restart is scheduled during the shutdown");
                let holds = workers().any(SupervisedWorker::holds_instance);
                assert!(!holds, "a restart is scheduled for instance {instance}, which has a worker");
            }
        }
    }

    // Waiting.

    /// Waits until an event occurs or something is due. If the supervisor then runs much later than planned, because its
    /// process was stopped or its machine paused, it handles everything that has arrived meanwhile before anything is due,
    /// and gives the workers their time anew.
    fn wait_or_catch_up(&mut self) {
        let (planned, began) = (self.time_to_next_due(), Instant::now());
        self.wait(None);
        let late = planned.map_or(Duration::ZERO, |planned| began.elapsed().saturating_sub(planned));
        if late >= STALL {
            self.workers.iter_mut().for_each(|worker| worker.postpone(began.elapsed()));
            let now = self.now();
            let timeout = self.config.timeout;
            for worker in &mut self.workers {
                if let WorkerState::Serving(ping) = &mut worker.state {
                    ping.next = ping.next.max(now + timeout);
                }
            }
            self.wait(Some(Duration::ZERO));
        }
    }

    /// Waits until an event occurs, something is due, or `at_most` has passed. Then handles the events of the workers.
    fn wait(&mut self, at_most: Option<Duration>) {
        let timeout = self.time_to_next_due().into_iter().chain(at_most).min();
        let mut sources = Vec::new();
        let mut fds = vec![PollFd::from_borrowed_fd(self.commands.wake(), PollFlags::IN)];
        for worker in &self.workers {
            for (source, fd, flags) in worker.process.poll_sources() {
                sources.push((worker.process.serial, source));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return; // a signal interrupted the call; the caller waits again
        }
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if is_ready[0] {
            self.commands.clear_wake();
        }
        let ready = sources.into_iter().zip(&is_ready[1..]).filter(|(_, is_ready)| **is_ready);
        let mut ready: Vec<(u32, PollSource)> = ready.map(|(source, _)| source).collect();
        // The messages of a worker are handled before its end.
        ready.sort_by_key(|(_, source)| *source == PollSource::Exit);
        for (worker, source) in ready {
            self.handle_ready(worker, source);
        }
    }

    /// Waits for the answers to the pings. A clock that a test has moved may be far ahead of the workers.
    fn wait_for_pongs(&mut self) {
        let until = Instant::now() + PONG_WAIT;
        let is_waiting =
            |worker: &SupervisedWorker| matches!(&worker.state, WorkerState::Serving(ping) if !ping.answered);
        while self.workers.iter().any(is_waiting) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.wait(Some(left));
        }
    }

    /// Returns the time until something is due, or `None` if nothing is.
    fn time_to_next_due(&self) -> Option<Duration> {
        let real = Instant::now();
        let deadlines = self.workers.iter().filter_map(SupervisedWorker::deadline).map(|(at, _)| at);
        let file_check = self.watches_files().then_some(self.next_file_check);
        let deadlines = deadlines.chain(file_check).map(|at| at.saturating_duration_since(real));
        if self.config.clock.is_manual {
            return deadlines.min();
        }
        let now = self.now();
        let pings = self.workers.iter().filter_map(|worker| match &worker.state {
            WorkerState::Serving(ping) => Some(ping.next),
            _ => None,
        });
        let restarts = self.instances.iter().filter_map(|instance| instance.restart_at);
        let dues = pings.chain(restarts).map(|at| at.saturating_sub(now));
        // The server's clock counts milliseconds. Without one more, the thread could wake up within the last one, too
        // early.
        deadlines.chain(dues).min().map(|time| time + Duration::from_millis(1))
    }

    fn watches_files(&self) -> bool {
        self.config.reload && self.shards.is_some() && !self.is_shutting_down
    }

    // Events.

    fn handle_ready(&mut self, serial: u32, source: PollSource) {
        let Some(at) = self.position(serial) else { return };
        match source {
            PollSource::Exit => {
                if let Some(status) = self.workers[at].process.reap() {
                    self.read_control(serial);
                    let worker = self.workers.remove(at);
                    self.handle_end(worker, status);
                }
            }
            PollSource::Control => self.read_control(serial),
            PollSource::Stdout | PollSource::Stderr => {
                let process = &mut self.workers[at].process;
                process.log_output(source);
                self.counters.lines_dropped.add(process.take_dropped());
            }
        }
    }

    fn read_control(&mut self, serial: u32) {
        let Some(worker) = self.worker(serial) else { return };
        let mut messages = Vec::new();
        let result = worker.process.read_control(|message| messages.push(message));
        if !worker.process.is_connected() {
            worker.expect_end("it closed its control socket and did not end");
        }
        for message in messages {
            self.handle_message(serial, message);
        }
        if let (Err(why), Some(worker)) = (result, self.worker(serial)) {
            worker.kill(&why);
        }
    }

    fn handle_message(&mut self, serial: u32, message: WorkerMessage) {
        let Some(worker) = self.worker(serial) else { return };
        match message {
            WorkerMessage::Ready(manifest) => {
                if manifest.events.is_empty() {
                    tracing::warn!(worker = worker.process.name(), "the application registers no events");
                }
                if matches!(worker.state, WorkerState::Starting { .. }) {
                    worker.state = WorkerState::Ready(Arc::new(manifest));
                    self.handle_ready_worker(serial);
                }
            }
            WorkerMessage::Failed(failure) => {
                worker.record_failure(&failure);
                self.set_self_test(Err(failure.why));
            }
            WorkerMessage::Tested(passed) => {
                self.set_self_test(if passed { Ok(()) } else { Err("its self-test failed".into()) });
            }
            WorkerMessage::Pong(number) => {
                if let WorkerState::Serving(ping) = &mut worker.state {
                    ping.answered |= ping.number == number;
                }
            }
            WorkerMessage::Log(level, text) => {
                worker.process.log(level, &text);
                self.counters.errors.add(u64::from(level == WorkerLogLevel::Error));
            }
        }
    }

    /// Records the result of the self-test. Only the first result counts.
    fn set_self_test(&mut self, result: Result<(), String>) {
        if self.config.test {
            self.self_test.get_or_insert(result);
            self.report_self_test();
        }
    }

    fn report_self_test(&mut self) {
        if let (Some(result), Some(self_test_tx)) = (&self.self_test, &self.self_test_tx) {
            let _ = self_test_tx.try_send(result.clone()); // the receiver needs one result, and has room for it
        }
    }

    fn handle_commands(&mut self) {
        while let Some(command) = self.commands.next() {
            match command {
                SupervisorCommand::Serve { app, shards, done } => {
                    self.serve(app, shards);
                    let _ = done.send(()); // the thread that starts the server waits for it
                }
                SupervisorCommand::KillBroken { worker, why } => {
                    if let Some(worker) = self.worker(worker) {
                        worker.kill(&format!("its link failed: {why}"));
                    }
                }
                SupervisorCommand::LinkEnded { worker } => {
                    if let Some(worker) = self.worker(worker) {
                        worker.expect_end("it ended a link and did not end");
                    }
                }
                SupervisorCommand::Replace { settings, done } => {
                    if let Some(settings) = settings {
                        self.config.settings = settings;
                    }
                    self.replaced.push(done);
                    self.replace("SIGHUP");
                }
                SupervisorCommand::ClockMoved(done) => {
                    self.wait_for_pongs();
                    self.handle_due();
                    let _ = done.send(()); // the thread that moved the clock may have given up
                }
                SupervisorCommand::ReportSelfTest(self_test_tx) => {
                    self.self_test_tx = Some(self_test_tx);
                    self.report_self_test();
                }
                // The admin endpoint may have given up.
                SupervisorCommand::Describe(reply) => drop(reply.send(self.status())),
                SupervisorCommand::BeginShutdown => self.begin_shutdown(),
                SupervisorCommand::ShardsEnded => self.end_all(),
            }
        }
    }

    /// Kills the workers whose deadline has passed, sends pings, restarts workers, and checks files, if these are due.
    fn handle_due(&mut self) {
        let (real, now) = (Instant::now(), self.now());
        for worker in &mut self.workers {
            if let Some((_, why)) = worker.deadline().filter(|(at, _)| real >= *at) {
                worker.kill(why);
            }
            match &mut worker.state {
                WorkerState::Serving(ping) if now >= ping.next && !ping.answered => {
                    self.counters.hung.add(1);
                    worker.kill("it hangs: it did not answer a ping within worker-timeout");
                }
                WorkerState::Serving(ping) if now >= ping.next => {
                    let next = now + self.config.timeout;
                    *ping = PingState { number: ping.number + 1, answered: false, next };
                    worker.process.send(&ServerMessage::Ping(ping.number));
                }
                _ => {}
            }
        }
        for instance in 0..self.instances.len() {
            if self.instances[instance].restart_at.is_some_and(|at| now >= at) {
                self.restart(instance);
            }
        }
        if self.watches_files() && real >= self.next_file_check {
            self.next_file_check = real + WORKER_WATCH;
            if self.file_watcher.has_changed() {
                self.replace("a file changed");
            }
        }
    }
}
