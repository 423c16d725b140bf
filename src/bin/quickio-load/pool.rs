//! The workers of a run, in threads of this process or of child processes. The parent controls a child process over its
//! standard input and output, with a line of JSON for each request and each response.

use crate::args::{Args, SHARE};
use crate::plan::{Plan, Share, Window};
use crate::process::CpuTime;
use crate::results::{Counters, Results};
use crate::slow::SlowClients;
use crate::worker::{self, WorkerControl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

/// The workers of a run.
pub enum WorkerPool {
    Threads(WorkerThreads),
    Processes(Vec<WorkerProcess>),
}

/// The workers in threads of this process.
pub struct WorkerThreads {
    workers: Vec<WorkerThread>,
    slow: SlowClients,
}

/// A thread with one worker.
struct WorkerThread {
    control: Arc<WorkerControl>,
    thread: JoinHandle<Result<Results, String>>,
}

/// A child process with workers of its own.
pub struct WorkerProcess {
    child: Child,
    requests: Option<ChildStdin>,
    responses: BufReader<ChildStdout>,
}

/// A request to a child process.
#[derive(Serialize, Deserialize)]
enum ControlRequest {
    Counters,
    Start { begin: u64, from: u64, until: u64 },
    Stop,
}

impl WorkerPool {
    /// Starts the workers, which immediately begin to connect.
    pub fn start(args: &Args) -> Result<WorkerPool, String> {
        match args.processes {
            1 => WorkerThreads::start(args, Share { index: 0, of: 1 }).map(WorkerPool::Threads),
            of => {
                let start = |index| WorkerProcess::start(args, Share { index, of });
                (0..of).map(start).collect::<Result<_, _>>().map(WorkerPool::Processes)
            }
        }
    }

    /// Returns the current counters of all workers.
    pub fn counters(&mut self) -> Result<Counters, String> {
        match self {
            WorkerPool::Threads(threads) => threads.counters(),
            WorkerPool::Processes(processes) => {
                // All requests are sent before the first response is read, which makes the counters simultaneous.
                processes.iter_mut().try_for_each(|process| process.send(&ControlRequest::Counters))?;
                let responses = processes.iter_mut().map(WorkerProcess::receive::<Counters>);
                responses.into_iter().try_fold(Counters::default(), |all, counters| Ok(all.plus(counters?)))
            }
        }
    }

    /// Starts the load.
    pub fn start_load(&mut self, window: Window) -> Result<(), String> {
        match self {
            WorkerPool::Threads(threads) => threads.start_load(window),
            WorkerPool::Processes(processes) => {
                let Window { begin, from, until } = window;
                let start = ControlRequest::Start { begin, from, until };
                processes.iter_mut().try_for_each(|process| process.send(&start))?;
            }
        }
        Ok(())
    }

    /// Stops all workers and returns their results.
    pub fn stop(self) -> Result<Results, String> {
        match self {
            WorkerPool::Threads(threads) => threads.stop(),
            WorkerPool::Processes(mut processes) => {
                processes.iter_mut().try_for_each(|process| process.send(&ControlRequest::Stop))?;
                let mut all = Results::default();
                for process in processes {
                    all.merge(process.finish()?);
                }
                Ok(all)
            }
        }
    }

    /// Returns the CPU time of all processes with workers.
    pub fn cpu_times(&self) -> Vec<CpuTime> {
        let pids = match self {
            WorkerPool::Threads(_) => vec![std::process::id()],
            WorkerPool::Processes(processes) => processes.iter().map(|process| process.child.id()).collect(),
        };
        pids.into_iter().map(|pid| CpuTime::of(pid).unwrap_or_default()).collect()
    }
}

impl WorkerThreads {
    /// Starts the threads of this process. `share` is its share among the processes.
    fn start(args: &Args, share: Share) -> Result<WorkerThreads, String> {
        let plan = Arc::new(args.plan.clone());
        let start = |thread| {
            let index = share.index * args.threads + thread;
            let cpu = (!args.cpus.is_empty()).then(|| args.cpus[index % args.cpus.len()]);
            WorkerThread::spawn(Arc::clone(&plan), Share { index, of: share.of * args.threads }, cpu)
        };
        let workers = (0..args.threads).map(start).collect::<Result<_, _>>()?;
        Ok(WorkerThreads { workers, slow: SlowClients::open(&plan, share)? })
    }

    fn counters(&mut self) -> Result<Counters, String> {
        if let Some(ended) = self.workers.iter().position(|worker| worker.thread.is_finished()) {
            return self.workers.swap_remove(ended).finish().and(Err("a worker ended unexpectedly".into()));
        }
        let counters = self.workers.iter().map(|worker| worker.control.counters.load());
        Ok(counters.fold(Counters::default(), Counters::plus))
    }

    fn start_load(&self, window: Window) {
        for worker in &self.workers {
            // The load starts once per run: the window is not set yet.
            let _ = worker.control.window.set(window);
        }
    }

    fn stop(self) -> Result<Results, String> {
        self.workers.iter().for_each(|worker| worker.control.stop.store(true, Ordering::Relaxed));
        let mut all = Results::default();
        all.slow = self.slow.finish();
        for worker in self.workers {
            all.merge(worker.finish()?);
        }
        Ok(all)
    }
}

impl WorkerThread {
    fn spawn(plan: Arc<Plan>, share: Share, cpu: Option<usize>) -> Result<WorkerThread, String> {
        let control = Arc::new(WorkerControl::default());
        let shared = Arc::clone(&control);
        let work = move || {
            pin(cpu)?;
            worker::run(&plan, share, &shared)
        };
        let thread = thread::Builder::new().name(format!("load-{}", share.index)).spawn(work);
        Ok(WorkerThread {
            control,
            thread: thread.map_err(|error| format!("cannot start a thread: {error}"))?,
        })
    }

    fn finish(self) -> Result<Results, String> {
        self.thread.join().map_err(|_| "a worker panicked".to_owned())?
    }
}

fn pin(cpu: Option<usize>) -> Result<(), String> {
    match cpu {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
            Err(format!("cannot pin a thread to core {id}"))
        }
        _ => Ok(()),
    }
}

impl WorkerProcess {
    fn start(args: &Args, share: Share) -> Result<WorkerProcess, String> {
        let failed = |error: io::Error| format!("cannot start a child process: {error}");
        let mut child = std::process::Command::new(env::current_exe().map_err(failed)?)
            .args(&args.typed)
            .arg(format!("--{SHARE}={}/{}", share.index, share.of))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (requests, responses) = (child.stdin.take(), child.stdout.take());
        let responses = responses.ok_or("a child process has no standard output")?;
        Ok(WorkerProcess { child, requests, responses: BufReader::new(responses) })
    }

    fn send(&mut self, request: &ControlRequest) -> Result<(), String> {
        let requests = self.requests.as_mut().ok_or("a child process has no standard input")?;
        write_line(requests, request).map_err(|error| format!("a child process ended: {error}"))
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let mut line = String::new();
        match self.responses.read_line(&mut line) {
            Ok(1..) => serde_json::from_str(&line)
                .map_err(|error| format!("invalid response of a child process: {error}")),
            _ => Err("a child process ended unexpectedly".into()),
        }
    }

    fn finish(mut self) -> Result<Results, String> {
        let results = self.receive();
        self.requests = None;
        self.child.wait().map_err(|error| format!("a child process: {error}"))?;
        results
    }
}

impl Drop for WorkerProcess {
    /// Closes the input of the child process, which makes it end.
    fn drop(&mut self) {
        self.requests = None;
        // An error means that it has already ended.
        let _ = self.child.wait();
    }
}

/// Runs a child process: handles the requests of the parent until the input ends.
pub fn run_child(args: &Args, share: Share) -> Result<(), String> {
    let mut threads = WorkerThreads::start(args, share)?;
    for line in io::stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let respond = |written: io::Result<()>| {
            written.map_err(|error| format!("cannot write to the parent process: {error}"))
        };
        match serde_json::from_str(&line).map_err(|error| error.to_string())? {
            ControlRequest::Counters => respond(write_line(&mut io::stdout(), &threads.counters()?))?,
            ControlRequest::Start { begin, from, until } => threads.start_load(Window { begin, from, until }),
            ControlRequest::Stop => return respond(write_line(&mut io::stdout(), &threads.stop()?)),
        }
    }
    Err("the parent process ended".into())
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}
