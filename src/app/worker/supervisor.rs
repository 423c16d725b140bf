//! The thread that keeps an application's workers running: starts them, starts them again when they crash, replaces them one
//! by one, and ends them.
//!
//! ```text
//!   Starting ---> Ready ---> Serving ---> Leaving ---> (gone)
//!       |           |           |            |
//!       +-----------+-----------+------------+--- killed, crashed ---> (gone)
//! ```
//!
//! It waits for everything at once, in one `poll`: orders, control sockets, what workers print, the ends of processes.

use super::backoff::Backoff;
use super::manifest::{Line, Manifest, Said};
use super::package::Package;
use super::process::{Process, Source};
use super::watch::Watch;
use super::{Alarm, Berth, Docks, Kind, News, Plan, StartError};
use crate::limits::WORKER_WATCH;
use crate::metrics::{Counter, Counters};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a shard may take to look at what is left for it, and how often it is tried.
const NEWS_WAIT: Duration = Duration::from_millis(2);
const NEWS_TRIES: usize = 5000;

/// How long a worker that said that it failed, or ends its control socket, may take to end.
const END_WAIT: Duration = Duration::from_secs(1);

/// Bytes of what a worker printed that are logged again with its end.
const LAST_BYTES: usize = 2000;

/// What the supervisor is told.
pub enum Order {
    /// The server serves: shards can be reached.
    Serve { app: u32, docks: Arc<dyn Docks>, done: SyncSender<()> },
    /// A worker has to be ended.
    Broken { worker: u32, why: String },
    /// All workers have to be replaced.
    Replace,
    /// Time has passed.
    ClockMoved(SyncSender<()>),
    /// How the self-test ended.
    Outcome(SyncSender<Result<(), String>>),
    /// The server begins to stop: workers end when the shards end their links.
    Ending,
    /// The shards have ended: whatever still runs has to end.
    Stop,
}

/// How it is told, by any thread.
#[derive(Clone)]
pub struct Orders {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
    counts: Arc<Counts>,
}

/// The supervisor's end of that.
pub struct Taken {
    orders: Receiver<Order>,
}

/// A way to a supervisor.
pub fn orders() -> io::Result<(Orders, Taken)> {
    let (sender, orders) = channel();
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    Ok((Orders { orders: sender, wake: Arc::new(wake), counts: Arc::default() }, Taken { orders }))
}

impl Orders {
    /// Tells it. It never waits; nobody is told where the supervisor has ended.
    pub fn give(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // It is counted up to a limit that is not reached: each reading takes it to 0.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Alarm for Orders {
    fn broken(&self, worker: u32, why: &str) {
        self.give(Order::Broken { worker, why: why.to_owned() });
    }
}

/// What it counts: no shard does.
#[derive(Default)]
pub struct Counts {
    started: AtomicU64,
    crashed: AtomicU64,
    hung: AtomicU64,
    lines_dropped: AtomicU64,
}

impl Counts {
    pub fn add_to(&self, counters: &mut Counters) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        counters.add(Counter::WorkersStarted, get(&self.started));
        counters.add(Counter::WorkersCrashed, get(&self.crashed));
        counters.add(Counter::WorkersHung, get(&self.hung));
        counters.add(Counter::WorkerLinesDropped, get(&self.lines_dropped));
    }
}

fn count(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Ordering::Relaxed);
}

/// A worker, and how far it is.
struct Worker {
    process: Process,
    stage: Stage,
    /// Why it was killed, or says that it failed.
    fault: Option<String>,
    /// When it began to serve.
    since: Option<Duration>,
}

enum Stage {
    /// It loads the application.
    Starting {
        deadline: Instant,
    },
    /// The server does not serve yet.
    Ready(Arc<Manifest>),
    Serving(Ping),
    /// It finishes what it has.
    Leaving {
        deadline: Instant,
    },
    /// It was killed; its end is awaited.
    Killed,
}

/// Whether a worker still answers.
struct Ping {
    number: u64,
    answered: bool,
    next: Duration,
}

/// The place of an instance.
#[derive(Default)]
struct Place {
    backoff: Backoff,
    restart_at: Option<Duration>,
}

/// The shards, once they are there.
struct Serving {
    app: u32,
    docks: Arc<dyn Docks>,
    registered: Arc<Manifest>,
}

/// The supervisor of one application.
pub struct Supervisor {
    plan: Plan,
    taken: Taken,
    wake: Arc<OwnedFd>,
    counts: Arc<Counts>,
    package: Option<Package>,
    workers: Vec<Worker>,
    places: Vec<Place>,
    serial: u32,
    serving: Option<Serving>,
    /// Instances that are to be replaced, the one that is at work first.
    to_replace: VecDeque<usize>,
    watch: Watch,
    look_at: Instant,
    ending: bool,
    stopping: bool,
    /// Who waits for the first workers.
    first: Option<SyncSender<Result<Arc<Manifest>, StartError>>>,
    outcome: Option<Result<(), String>>,
    tester: Option<SyncSender<Result<(), String>>>,
}

impl Supervisor {
    pub fn new(
        plan: Plan,
        taken: Taken,
        orders: &Orders,
        first: SyncSender<Result<Arc<Manifest>, StartError>>,
    ) -> Supervisor {
        Supervisor {
            places: (0..plan.instances).map(|_| Place::default()).collect(),
            plan,
            taken,
            wake: Arc::clone(&orders.wake),
            counts: Arc::clone(&orders.counts),
            package: None,
            workers: Vec::new(),
            serial: 0,
            serving: None,
            to_replace: VecDeque::new(),
            watch: Watch::default(),
            look_at: Instant::now(),
            ending: false,
            stopping: false,
            first: Some(first),
            outcome: None,
            tester: None,
        }
    }

    /// Runs until it is told to stop and all workers have ended, or until the first ones cannot be started.
    pub fn run(mut self) {
        if let Err(error) = self.start_first() {
            self.fail_first(error);
        }
        while !(self.stopping && self.workers.is_empty()) {
            self.wait();
            self.take_orders();
            self.do_what_is_due();
        }
    }

    fn start_first(&mut self) -> Result<(), StartError> {
        self.package = Some(Package::new().map_err(|error| StartError::Package { error })?);
        (0..self.plan.instances).try_for_each(|instance| self.start(instance))
    }

    /// The server cannot start.
    fn fail_first(&mut self, error: StartError) {
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(error)); // whoever started us waits for just this
        }
        self.stop();
        self.workers.iter_mut().for_each(|worker| worker.kill("another one failed"));
    }

    fn now(&self) -> Duration {
        (self.plan.time.now)()
    }

    fn start(&mut self, instance: usize) -> Result<(), StartError> {
        let Some(package) = &self.package else { return Ok(()) };
        self.serial = self.serial.wrapping_add(1);
        self.places[instance].restart_at = None;
        let program = self.program();
        let started = Process::start(&self.plan, package, self.serial, instance);
        let process = started.map_err(|error| StartError::Spawn { program, kind: self.plan.kind, error })?;
        count(&self.counts.started, 1);
        tracing::debug!(worker = process.name(), pid = process.pid(), "worker started");
        let deadline = Instant::now() + self.plan.start_timeout;
        self.workers.push(Worker { process, stage: Stage::Starting { deadline }, fault: None, since: None });
        Ok(())
    }

    fn program(&self) -> PathBuf {
        match self.plan.kind {
            Kind::Python => self.plan.python.clone(),
            Kind::Node => self.plan.node.clone(),
            Kind::Program => self.plan.file.clone(),
        }
    }

    // Waiting.

    /// Waits for news of any kind, or until something is due, and takes what workers have said and printed.
    fn wait(&mut self) {
        let timeout = self.time_to_next_due();
        let mut sources = Vec::new();
        let mut fds = vec![PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        for worker in &self.workers {
            for (source, fd) in worker.process.sources() {
                sources.push((worker.process.serial, source));
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        let timeout = timeout.map(|timeout| rustix::event::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return; // a signal came between: everything is looked at again
        }
        let has_news: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if has_news[0] {
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        }
        let mut with_news: Vec<(u32, Source)> = sources
            .into_iter()
            .zip(&has_news[1..])
            .filter(|(_, news)| **news)
            .map(|(source, _)| source)
            .collect();
        // What a worker said is heard before its end is.
        with_news.sort_by_key(|(_, source)| *source == Source::Exit);
        for (worker, source) in with_news {
            self.look(worker, source);
        }
    }

    fn time_to_next_due(&self) -> Option<Duration> {
        let real = Instant::now();
        let deadlines = self.workers.iter().filter_map(|worker| match worker.stage {
            Stage::Starting { deadline } | Stage::Leaving { deadline } => Some(deadline),
            _ => None,
        });
        let watch = self.watches().then_some(self.look_at);
        let deadlines = deadlines.chain(watch).map(|at| at.saturating_duration_since(real));
        if self.plan.time.is_manual {
            return deadlines.min();
        }
        let now = self.now();
        let pings = self.workers.iter().filter_map(|worker| match &worker.stage {
            Stage::Serving(ping) => Some(ping.next),
            _ => None,
        });
        let restarts = self.places.iter().filter_map(|place| place.restart_at);
        let dues = pings.chain(restarts).map(|at| at.saturating_sub(now));
        // The server's clock has milliseconds: to wake up within the last one would be too early.
        deadlines.chain(dues).min().map(|time| time + Duration::from_millis(1))
    }

    fn watches(&self) -> bool {
        self.plan.reload && self.serving.is_some() && !self.ending
    }

    fn position(&self, serial: u32) -> Option<usize> {
        self.workers.iter().position(|worker| worker.process.serial == serial)
    }

    fn look(&mut self, serial: u32, source: Source) {
        let Some(at) = self.position(serial) else { return };
        match source {
            Source::Exit => {
                if let Some(status) = self.workers[at].process.ended() {
                    self.hear(serial);
                    let worker = self.workers.remove(at);
                    self.ended(worker, status);
                }
            }
            Source::Control => self.hear(serial),
            Source::Stdout | Source::Stderr => {
                let process = &mut self.workers[at].process;
                process.log_printed(source);
                count(&self.counts.lines_dropped, process.take_dropped());
            }
        }
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.taken.orders.try_recv() {
            match order {
                Order::Serve { app, docks, done } => {
                    self.serve(app, docks);
                    let _ = done.send(()); // whoever starts the server waits for it
                }
                Order::Broken { worker, why } => self.broken(worker, &why),
                Order::Replace => self.replace("SIGHUP"),
                Order::ClockMoved(done) => {
                    self.do_what_is_due();
                    let _ = done.send(()); // whoever moved it may have given up
                }
                Order::Outcome(tester) => {
                    self.tester = Some(tester);
                    self.tell_tester();
                }
                Order::Ending => self.begin_to_end(),
                Order::Stop => self.stop(),
            }
        }
    }

    fn do_what_is_due(&mut self) {
        let (real, now) = (Instant::now(), self.now());
        for worker in &mut self.workers {
            match &mut worker.stage {
                Stage::Starting { deadline } if real >= *deadline => {
                    worker.kill("it was not ready within worker-start-timeout");
                }
                Stage::Leaving { deadline } if real >= *deadline => {
                    worker.kill("it did not end within worker-stop-timeout");
                }
                Stage::Serving(ping) if now >= ping.next && !ping.answered => {
                    count(&self.counts.hung, 1);
                    worker.kill("it hangs: it did not answer a ping within worker-timeout");
                }
                Stage::Serving(ping) if now >= ping.next => {
                    *ping = Ping { number: ping.number + 1, answered: false, next: now + self.plan.timeout };
                    worker.process.tell(&Line::Ping(ping.number));
                }
                _ => {}
            }
        }
        for instance in 0..self.places.len() {
            if self.places[instance].restart_at.is_some_and(|at| now >= at) {
                self.start_again(instance);
            }
        }
        if self.watches() && real >= self.look_at {
            self.look_at = real + WORKER_WATCH;
            if self.watch.has_changed() {
                self.replace("a file changed");
            }
        }
    }

    // What workers say.

    fn hear(&mut self, serial: u32) {
        let Some(at) = self.position(serial) else { return };
        let mut said = Vec::new();
        let heard = self.workers[at].process.hear(|line| said.push(line));
        for line in said {
            self.said(serial, line);
        }
        if let (Err(why), Some(at)) = (heard, self.position(serial)) {
            self.workers[at].kill(&why);
        }
    }

    fn said(&mut self, serial: u32, said: Said) {
        let Some(at) = self.position(serial) else { return };
        let worker = &mut self.workers[at];
        match said {
            Said::Ready(manifest) => {
                if matches!(worker.stage, Stage::Starting { .. }) {
                    worker.stage = Stage::Ready(Arc::new(manifest));
                    self.became_ready(serial);
                }
            }
            Said::Failed(why) => {
                worker.fault = Some(why.clone());
                worker.stage = Stage::Leaving { deadline: Instant::now() + END_WAIT };
                self.tested(Err(why));
            }
            Said::Tested(passed) => {
                self.tested(if passed { Ok(()) } else { Err("its self-test failed".into()) });
            }
            Said::Pong(number) => {
                if let Stage::Serving(ping) = &mut worker.stage {
                    ping.answered |= ping.number == number;
                }
            }
            Said::Log { log, text } => worker.process.log(log, &text),
        }
    }

    fn tested(&mut self, outcome: Result<(), String>) {
        if self.plan.test {
            self.outcome.get_or_insert(outcome);
            self.tell_tester();
        }
    }

    fn tell_tester(&mut self) {
        if let (Some(outcome), Some(tester)) = (&self.outcome, &self.tester) {
            let _ = tester.try_send(outcome.clone()); // told once is enough
        }
    }

    fn became_ready(&mut self, serial: u32) {
        if self.serving.is_some() {
            return self.put_to_work(serial);
        }
        let manifests: Vec<&Arc<Manifest>> = self
            .workers
            .iter()
            .filter_map(|worker| match &worker.stage {
                Stage::Ready(manifest) => Some(manifest),
                _ => None,
            })
            .collect();
        let [manifest, ..] = manifests.as_slice() else { return };
        if manifests.len() == self.plan.instances {
            let manifest = Arc::clone(manifest);
            if let Some(first) = self.first.take() {
                let _ = first.send(Ok(manifest)); // whoever started us waits for just this
            }
        }
    }

    // Serving.

    fn serve(&mut self, app: u32, docks: Arc<dyn Docks>) {
        let ready = self.workers.iter().filter_map(|worker| match &worker.stage {
            Stage::Ready(manifest) => Some((worker.process.serial, Arc::clone(manifest))),
            _ => None,
        });
        let ready: Vec<(u32, Arc<Manifest>)> = ready.collect();
        let registered = ready.first().map(|(_, manifest)| Arc::clone(manifest)).unwrap_or_default();
        self.serving = Some(Serving { app, docks, registered });
        for (serial, _) in ready {
            self.put_to_work(serial);
        }
    }

    /// Gives a worker its place: the shards have its links from now on, and the one before it finishes what it has.
    fn put_to_work(&mut self, serial: u32) {
        let now = self.now();
        let deadline = Instant::now() + self.plan.stop_timeout;
        let (Some(at), Some(serving)) = (self.position(serial), &mut self.serving) else { return };
        let worker = &mut self.workers[at];
        let Stage::Ready(manifest) = &worker.stage else { return };
        let (manifest, instance) = (Arc::clone(manifest), worker.process.instance);
        let told = serving.introduce(&mut worker.process, &manifest);
        worker.stage = Stage::Serving(Ping { number: 0, answered: true, next: now });
        worker.since = Some(now);
        if !told {
            return worker.kill("a shard does not answer");
        }
        self.watch.set(manifest.files.iter().cloned());
        let mut is_replaced = false;
        for before in &mut self.workers {
            let is_other = before.process.serial != serial && before.process.instance == instance;
            if is_other && matches!(before.stage, Stage::Serving(_)) {
                before.stage = Stage::Leaving { deadline };
                is_replaced = true;
            }
        }
        // Where its place was empty there is nobody whose end is waited for.
        if !is_replaced && self.to_replace.front() == Some(&instance) {
            self.to_replace.pop_front();
            self.replace_next();
        }
    }

    fn broken(&mut self, serial: u32, why: &str) {
        if let Some(at) = self.position(serial) {
            self.workers[at].kill(&format!("it broke the protocol of its links: {why}"));
        }
    }

    // Replacing.

    fn replace(&mut self, why: &str) {
        if self.serving.is_none() || self.ending {
            return;
        }
        tracing::info!(app = self.plan.name, why, "workers are replaced");
        let is_at_work = !self.to_replace.is_empty();
        // Those that wait are loaded from the files as they are by then; the one that is loading may have begun too early.
        self.to_replace.truncate(1);
        self.to_replace.extend(0..self.plan.instances);
        if !is_at_work {
            self.replace_next();
        }
    }

    /// Starts the one that takes the next one's place.
    fn replace_next(&mut self) {
        let Some(instance) = self.to_replace.front().copied() else { return };
        if let Err(error) = self.start(instance) {
            self.give_up_replacing(&error.to_string());
        }
    }

    fn give_up_replacing(&mut self, why: &str) {
        tracing::error!(app = self.plan.name, why, "the reload is given up: workers go on as they are");
        self.to_replace.clear();
    }

    // Ends.

    fn ended(&mut self, mut worker: Worker, status: ExitStatus) {
        count(&self.counts.lines_dropped, worker.process.take_dropped());
        let why = worker.fault.take();
        let left = matches!(worker.stage, Stage::Leaving { .. }) || self.ending || self.plan.test;
        if why.is_none() && left && status.success() {
            tracing::debug!(worker = worker.process.name(), "worker ended");
        } else {
            self.failed(&worker, status, &why.unwrap_or_else(|| "it ended by itself".into()));
        }
        self.tested(Err("it ended without a word on its self-test".into()));
        self.go_on_replacing(&worker);
    }

    /// A worker has ended as it should not.
    fn failed(&mut self, worker: &Worker, status: ExitStatus, why: &str) {
        let name = worker.process.name();
        let printed = worker.last_words();
        if self.first.is_some() {
            let failed = format!("its worker failed: {why} ({status}){printed}");
            return self.fail_first(StartError::Failed(failed));
        }
        self.tested(Err(format!("{why}{printed}")));
        if self.ending || self.plan.test {
            return tracing::warn!(worker = name, %status, why, "a worker did not end in order{printed}");
        }
        count(&self.counts.crashed, 1);
        let instance = worker.process.instance;
        if self.is_held(instance) {
            return tracing::error!(worker = name, %status, why, "a worker crashed{printed}");
        }
        let now = self.now();
        let place = &mut self.places[instance];
        let wait = place.backoff.next(worker.since.map(|since| now.saturating_sub(since)));
        place.restart_at = Some(now + wait);
        tracing::error!(worker = name, %status, why, again_in = ?wait, "a worker crashed{printed}");
    }

    /// Whether an instance has a worker, or will have one.
    fn is_held(&self, instance: usize) -> bool {
        let holds = |worker: &&Worker| !matches!(worker.stage, Stage::Leaving { .. } | Stage::Killed);
        self.workers.iter().filter(holds).any(|worker| worker.process.instance == instance)
    }

    /// One has ended: where it is the one whose place was taken, the next may be replaced; where it is the one that should
    /// have taken it, none is.
    fn go_on_replacing(&mut self, ended: &Worker) {
        if self.ending || self.to_replace.front() != Some(&ended.process.instance) {
            return;
        }
        if ended.since.is_none() {
            self.give_up_replacing("the new worker did not get ready");
        } else if self.is_served(ended.process.instance) {
            self.to_replace.pop_front();
            self.replace_next();
        }
    }

    fn is_served(&self, instance: usize) -> bool {
        self.workers
            .iter()
            .any(|worker| worker.process.instance == instance && matches!(worker.stage, Stage::Serving(_)))
    }

    fn start_again(&mut self, instance: usize) {
        if let Err(error) = self.start(instance) {
            let wait = self.places[instance].backoff.next(None);
            self.places[instance].restart_at = Some(self.now() + wait);
            tracing::error!(app = self.plan.name, instance, %error, again_in = ?wait, "a worker cannot be started");
        }
    }

    /// No worker is started any more, and whoever ends may.
    fn begin_to_end(&mut self) {
        self.ending = true;
        self.to_replace.clear();
        self.places.iter_mut().for_each(|place| place.restart_at = None);
    }

    /// Ends all workers: those that serve are told by the shards, which end their links.
    fn stop(&mut self) {
        self.stopping = true;
        self.begin_to_end();
        let deadline = Instant::now() + self.plan.stop_timeout;
        for worker in &mut self.workers {
            worker.process.links.clear();
            match worker.stage {
                Stage::Starting { .. } => worker.kill("the server stops"),
                Stage::Ready(_) | Stage::Serving(_) => worker.stage = Stage::Leaving { deadline },
                Stage::Leaving { .. } | Stage::Killed => {}
            }
        }
    }
}

impl Worker {
    fn kill(&mut self, why: &str) {
        if !matches!(self.stage, Stage::Killed) {
            self.fault.get_or_insert_with(|| why.to_owned());
            self.stage = Stage::Killed;
            self.process.kill();
        }
    }

    /// What it printed last, for the line that tells its end.
    fn last_words(&self) -> String {
        let printed = self.process.last_lines();
        let from = printed.len().saturating_sub(LAST_BYTES);
        let from = (from..=printed.len()).find(|at| printed.is_char_boundary(*at)).unwrap_or(printed.len());
        if printed.is_empty() { String::new() } else { format!("; it printed last: {}", &printed[from..]) }
    }
}

impl Serving {
    /// Tells the shards of a worker, and of the events that it handles; whether all of them were told.
    fn introduce(&mut self, process: &mut Process, manifest: &Arc<Manifest>) -> bool {
        let is_news = manifest.events != self.registered.events;
        self.registered = Arc::clone(manifest);
        let app = self.app;
        let sockets = std::mem::take(&mut process.links);
        sockets.into_iter().enumerate().all(|(shard, socket)| {
            let (instance, worker) = (process.instance as u32, process.serial);
            let events = is_news.then(|| News::Events { app, manifest: Arc::clone(manifest) });
            let joined =
                News::Joined(Berth { app, instance, worker, manifest: Arc::clone(manifest), socket });
            events.into_iter().chain([joined]).all(|news| self.tell(shard, news))
        })
    }

    /// Tells a shard. One that does not look for so long has ended.
    fn tell(&self, shard: usize, mut news: News) -> bool {
        for _ in 0..NEWS_TRIES {
            match self.docks.tell(shard, news) {
                Ok(()) => return true,
                Err(back) => news = back,
            }
            thread::sleep(NEWS_WAIT);
        }
        false
    }
}
