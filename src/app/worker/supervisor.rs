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
use super::orders::{Counts, Order, Taken};
use super::package::Package;
use super::process::{Process, Source};
use super::stage::{Ping, Stage, Worker};
use super::watch::Watch;
use super::{JoinedWorker, ShardsHandle, StartError, WorkerConfig, WorkerEvent};
use crate::limits::WORKER_WATCH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

/// How often a shard that has not looked at what is left for it is tried again, and how many times.
const NEWS_WAIT: Duration = Duration::from_millis(2);
const NEWS_TRIES: usize = 500;

/// How long a worker may really take to answer a ping, where the clock is moved by hand.
const PONG_WAIT: Duration = Duration::from_secs(1);

/// Who waits for the first workers, and is told of what they register.
pub type First = SyncSender<Result<Arc<Manifest>, StartError>>;

/// The place of an instance.
#[derive(Default)]
struct Place {
    backoff: Backoff,
    restart_at: Option<Duration>,
}

/// The shards, once they are there.
struct Serving {
    app: u32,
    shards: Arc<dyn ShardsHandle>,
}

/// The supervisor of one application.
pub struct Supervisor {
    plan: WorkerConfig,
    taken: Taken,
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
    /// No worker is started any more.
    server_stops: bool,
    /// All have to end.
    shards_ended: bool,
    first: Option<First>,
    outcome: Option<Result<(), String>>,
    tester: Option<SyncSender<Result<(), String>>>,
}

impl Supervisor {
    pub fn new(plan: WorkerConfig, taken: Taken, counts: Arc<Counts>, first: First) -> Supervisor {
        Supervisor {
            places: (0..plan.instances).map(|_| Place::default()).collect(),
            plan,
            taken,
            counts,
            package: None,
            workers: Vec::new(),
            serial: 0,
            serving: None,
            to_replace: VecDeque::new(),
            watch: Watch::default(),
            look_at: Instant::now(),
            server_stops: false,
            shards_ended: false,
            first: Some(first),
            outcome: None,
            tester: None,
        }
    }

    /// Runs until the shards and all workers have ended, or until the first workers cannot be started.
    pub fn run(mut self) {
        if let Err(error) = self.start_first() {
            self.fail_first(error);
        }
        while !(self.shards_ended && self.workers.is_empty()) {
            self.wait(None);
            self.take_orders();
            self.do_what_is_due();
        }
    }

    fn start_first(&mut self) -> Result<(), StartError> {
        self.package = Some(Package::new().map_err(StartError::Package)?);
        (0..self.plan.instances).try_for_each(|instance| self.start(instance))
    }

    /// The server cannot start.
    fn fail_first(&mut self, error: StartError) {
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(error)); // whoever started us waits for just this
        }
        self.end_all();
        self.workers.iter_mut().for_each(|worker| worker.kill("another one failed"));
    }

    fn now(&self) -> Duration {
        (self.plan.time.now)()
    }

    fn start(&mut self, instance: usize) -> Result<(), StartError> {
        let Some(package) = &mut self.package else { return Ok(()) };
        let process = Process::start(&self.plan, package, self.serial.wrapping_add(1), instance)?;
        self.serial = process.serial;
        self.places[instance].restart_at = None;
        self.counts.started.add(1);
        tracing::debug!(worker = process.name(), pid = process.pid(), "worker started");
        self.workers.push(Worker::new(process, self.plan.start_timeout));
        Ok(())
    }

    // Waiting.

    /// Waits for news of any kind, or until something is due, or for so long; and takes what workers have said and printed.
    fn wait(&mut self, at_most: Option<Duration>) {
        let timeout = self.time_to_next_due().into_iter().chain(at_most).min();
        let mut sources = Vec::new();
        let mut fds = vec![PollFd::from_borrowed_fd(self.taken.wake(), PollFlags::IN)];
        for worker in &self.workers {
            for (source, fd, flags) in worker.process.sources() {
                sources.push((worker.process.serial, source));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return; // a signal came between: everything is looked at again
        }
        let has_news: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if has_news[0] {
            self.taken.woken();
        }
        let with_news = sources.into_iter().zip(&has_news[1..]).filter(|(_, news)| **news);
        let mut with_news: Vec<(u32, Source)> = with_news.map(|(source, _)| source).collect();
        // What a worker said is heard before its end is.
        with_news.sort_by_key(|(_, source)| *source == Source::Exit);
        for (worker, source) in with_news {
            self.look(worker, source);
        }
    }

    /// A clock that is moved by hand may be so far ahead of the workers that their answers are still on the way.
    fn wait_for_pongs(&mut self) {
        let until = Instant::now() + PONG_WAIT;
        let is_asked = |worker: &Worker| matches!(&worker.stage, Stage::Serving(ping) if !ping.answered);
        while self.workers.iter().any(is_asked) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.wait(Some(left));
        }
    }

    fn time_to_next_due(&self) -> Option<Duration> {
        let real = Instant::now();
        let deadlines = self.workers.iter().filter_map(Worker::deadline).map(|(at, _)| at);
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
        self.plan.reload && self.serving.is_some() && !self.server_stops
    }

    fn position(&self, serial: u32) -> Option<usize> {
        self.workers.iter().position(|worker| worker.process.serial == serial)
    }

    fn worker(&mut self, serial: u32) -> Option<&mut Worker> {
        self.workers.iter_mut().find(|worker| worker.process.serial == serial)
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
                self.counts.lines_dropped.add(process.take_dropped());
            }
        }
    }

    fn take_orders(&mut self) {
        while let Some(order) = self.taken.next() {
            match order {
                Order::Serve { app, shards, done } => {
                    self.serve(app, shards);
                    let _ = done.send(()); // whoever starts the server waits for it
                }
                Order::Broken { worker, why } => {
                    if let Some(worker) = self.worker(worker) {
                        worker.kill(&format!("it broke the protocol of its links: {why}"));
                    }
                }
                Order::LinkEnded { worker } => {
                    if let Some(worker) = self.worker(worker) {
                        worker.has_to_end("it ended a link, and went on");
                    }
                }
                Order::Replace => self.replace("SIGHUP"),
                Order::ClockMoved(done) => {
                    self.wait_for_pongs();
                    self.do_what_is_due();
                    let _ = done.send(()); // whoever moved it may have given up
                }
                Order::Outcome(tester) => {
                    self.tester = Some(tester);
                    self.tell_tester();
                }
                Order::ServerStops => self.start_no_more(),
                Order::ShardsEnded => self.end_all(),
            }
        }
    }

    fn do_what_is_due(&mut self) {
        let (real, now) = (Instant::now(), self.now());
        for worker in &mut self.workers {
            if let Some((_, why)) = worker.deadline().filter(|(at, _)| real >= *at) {
                worker.kill(why);
            }
            match &mut worker.stage {
                Stage::Serving(ping) if now >= ping.next && !ping.answered => {
                    self.counts.hung.add(1);
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
        let Some(worker) = self.worker(serial) else { return };
        let mut said = Vec::new();
        let heard = worker.process.hear(|line| said.push(line));
        if !worker.process.is_heard() {
            worker.has_to_end("it closed its control socket, and went on");
        }
        for line in said {
            self.said(serial, line);
        }
        if let (Err(why), Some(worker)) = (heard, self.worker(serial)) {
            worker.kill(&why);
        }
    }

    fn said(&mut self, serial: u32, said: Said) {
        let Some(worker) = self.worker(serial) else { return };
        match said {
            Said::Ready(manifest) => {
                if manifest.events.is_empty() {
                    tracing::warn!(worker = worker.process.name(), "its application registers no event");
                }
                if matches!(worker.stage, Stage::Starting { .. }) {
                    worker.stage = Stage::Ready(Arc::new(manifest));
                    self.became_ready(serial);
                }
            }
            Said::Failed(why) => {
                worker.says_failed(&why);
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
            Said::Log(level, text) => worker.process.log(level, &text),
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
        if self.server_stops {
            let deadline = Instant::now() + self.plan.stop_timeout;
            if let Some(worker) = self.worker(serial) {
                worker.process.links.clear();
                worker.stage = Stage::Leaving { deadline };
            }
        } else if self.serving.is_some() {
            self.put_to_work(serial);
        } else {
            self.tell_first();
        }
    }

    /// Tells whoever started us, when all workers are ready.
    fn tell_first(&mut self) {
        let ready = self.workers.iter().filter_map(|worker| match &worker.stage {
            Stage::Ready(manifest) => Some(Arc::clone(manifest)),
            _ => None,
        });
        let manifests: Vec<Arc<Manifest>> = ready.collect();
        if let Some(first) = self.first.take_if(|_| manifests.len() == self.plan.instances) {
            let _ = first.send(Ok(Arc::clone(&manifests[0]))); // whoever started us waits for just this
        }
        if self.plan.test {
            let deadline = Instant::now() + self.plan.start_timeout;
            self.workers.iter_mut().for_each(|worker| worker.stage = Stage::Testing { deadline });
        }
    }

    // Serving.

    fn serve(&mut self, app: u32, shards: Arc<dyn ShardsHandle>) {
        self.serving = Some(Serving { app, shards });
        let ready = self.workers.iter().filter(|worker| matches!(worker.stage, Stage::Ready(_)));
        let ready: Vec<u32> = ready.map(|worker| worker.process.serial).collect();
        ready.into_iter().for_each(|serial| self.put_to_work(serial));
    }

    /// Gives a worker its place: the shards have its links from now on, and the one before it finishes what it has.
    fn put_to_work(&mut self, serial: u32) {
        let now = self.now();
        let (Some(at), Some(serving)) = (self.position(serial), &self.serving) else { return };
        let worker = &mut self.workers[at];
        let Stage::Ready(manifest) = &worker.stage else { return };
        let (manifest, instance) = (Arc::clone(manifest), worker.process.instance);
        let told = serving.introduce(&mut worker.process, &manifest, now);
        worker.stage = Stage::Serving(Ping { number: 0, answered: true, next: now });
        worker.since = Some(now);
        self.watch.set(manifest.files.iter().cloned());
        let deadline = Instant::now() + self.plan.replace_timeout;
        let mut replaces = false;
        for before in &mut self.workers {
            let is_other = before.process.serial != serial && before.process.instance == instance;
            if is_other && matches!(before.stage, Stage::Serving(_)) {
                before.stage = Stage::Leaving { deadline };
                before.is_replaced = true;
                replaces = true;
            }
        }
        if !told {
            // Some shards have it and some have the one before it: neither can be kept.
            let of_place = self.workers.iter_mut().filter(|worker| worker.process.instance == instance);
            of_place.for_each(|worker| worker.kill("a shard does not answer"));
        }
        // Where its place was empty there is nobody whose end is waited for.
        if !replaces && self.to_replace.front() == Some(&instance) {
            self.to_replace.pop_front();
            self.replace_next();
        }
    }

    // Replacing.

    fn replace(&mut self, why: &str) {
        if self.serving.is_none() || self.server_stops {
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

    /// One has ended: where it is the one whose place was taken, the next may be replaced.
    fn go_on_replacing(&mut self, ended: &Worker) {
        let instance = ended.process.instance;
        if self.server_stops || self.to_replace.front() != Some(&instance) {
            return;
        }
        let is_served = |worker: &Worker| {
            worker.process.instance == instance && matches!(worker.stage, Stage::Serving(_))
        };
        if self.workers.iter().any(is_served) {
            self.to_replace.pop_front();
            self.replace_next();
        }
    }

    // Ends.

    /// `status`: how it ended, where that is known.
    fn ended(&mut self, mut worker: Worker, status: Option<ExitStatus>) {
        self.counts.lines_dropped.add(worker.process.take_dropped());
        if let (Some(serving), Some(_)) = (&self.serving, worker.since) {
            serving.tell_left(worker.process.serial, self.plan.shards);
        }
        let why = worker.take_fault();
        let may_end = matches!(worker.stage, Stage::Leaving { .. }) || self.server_stops || self.plan.test;
        if why.is_none() && may_end && status.is_some_and(|status| status.success()) {
            tracing::debug!(worker = worker.process.name(), "worker ended");
        } else {
            let status = status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string());
            self.failed(&worker, &status, &why.unwrap_or_else(|| "it ended by itself".into()));
        }
        self.tested(Err("it ended without a word on its self-test".into()));
        self.go_on_replacing(&worker);
    }

    /// A worker has ended as it should not.
    fn failed(&mut self, worker: &Worker, status: &str, why: &str) {
        let name = worker.process.name();
        let printed = worker.last_words();
        if self.first.is_some() {
            let failed = format!("its worker failed: {why} ({status}){printed}");
            return self.fail_first(StartError::Failed(failed));
        }
        self.tested(Err(format!("{why}{printed}")));
        if self.server_stops || self.plan.test || worker.is_replaced {
            return tracing::warn!(worker = name, status, why, "a worker did not end in order{printed}");
        }
        let instance = worker.process.instance;
        if worker.since.is_none() && self.to_replace.front() == Some(&instance) {
            return self.give_up_replacing(&format!("{name}: {why} ({status}){printed}"));
        }
        self.counts.crashed.add(1);
        if self.workers.iter().any(|other| other.process.instance == instance && other.holds_place()) {
            return tracing::error!(worker = name, status, why, "a worker crashed{printed}");
        }
        let now = self.now();
        let place = &mut self.places[instance];
        let wait = place.backoff.next(worker.since.map(|since| now.saturating_sub(since)));
        place.restart_at = Some(now + wait);
        tracing::error!(worker = name, status, why, again_in = ?wait, "a worker crashed{printed}");
    }

    fn start_again(&mut self, instance: usize) {
        if let Err(error) = self.start(instance) {
            let wait = self.places[instance].backoff.next(None);
            self.places[instance].restart_at = Some(self.now() + wait);
            tracing::error!(app = self.plan.name, instance, %error, again_in = ?wait, "a worker cannot be started");
        }
    }

    /// No worker is started any more, and whoever ends may.
    fn start_no_more(&mut self) {
        self.server_stops = true;
        self.to_replace.clear();
        self.places.iter_mut().for_each(|place| place.restart_at = None);
    }

    /// Ends all workers: those that serve are told by the shards, which have ended their links.
    fn end_all(&mut self) {
        self.start_no_more();
        self.shards_ended = true;
        let deadline = Instant::now() + self.plan.stop_timeout;
        for worker in &mut self.workers {
            worker.process.links.clear();
            match worker.stage {
                Stage::Starting { .. } => worker.kill("the server stops"),
                Stage::Testing { .. } => worker.has_to_end("it was tested, and went on"),
                Stage::Leaving { deadline: earlier } if earlier < deadline => {}
                Stage::Ready(_) => worker.has_to_end("the server does not start"),
                Stage::Serving(_) | Stage::Leaving { .. } => {
                    worker.stage = Stage::Leaving { deadline };
                }
                Stage::Killed => {}
            }
        }
    }
}

impl Serving {
    /// Gives the shards the links of a worker; whether all of them took theirs.
    fn introduce(&self, process: &mut Process, manifest: &Arc<Manifest>, joined_at: Duration) -> bool {
        let (app, instance, worker) = (self.app, process.instance as u32, process.serial);
        let sockets = std::mem::take(&mut process.links);
        sockets.into_iter().enumerate().all(|(shard, socket)| {
            let joined =
                JoinedWorker { app, instance, worker, manifest: Arc::clone(manifest), joined_at, socket };
            self.tell(shard, WorkerEvent::Joined(joined))
        })
    }

    /// A worker's process has ended: should anybody else still hold its links, they end all the same.
    fn tell_left(&self, worker: u32, shards: usize) {
        for shard in 0..shards {
            let _ = self.shards.send(shard, WorkerEvent::Left { app: self.app, worker }); // a link that has ended is noticed in any case
        }
    }

    /// Tells a shard. One that does not look for so long has ended.
    fn tell(&self, shard: usize, mut news: WorkerEvent) -> bool {
        for _ in 0..NEWS_TRIES {
            match self.shards.send(shard, news) {
                Ok(()) => return true,
                Err(back) => news = back,
            }
            thread::sleep(NEWS_WAIT);
        }
        false
    }
}
