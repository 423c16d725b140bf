//! The workers: threads of this process, or of child processes that are told what to do over their standard
//! input, a JSON line for each request and each answer.

use crate::args::{Args, PART};
use crate::outcome::{Counts, Outcome};
use crate::plan::{Plan, Share, Window};
use crate::server::Cpu;
use crate::slow::Slow;
use crate::worker::{self, Link};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

/// All workers of a run.
pub enum Fleet {
    Threads(Threads),
    Processes(Vec<Process>),
}

/// Workers in threads of this process.
pub struct Threads {
    workers: Vec<Worker>,
    slow: Slow,
}

struct Worker {
    link: Arc<Link>,
    thread: JoinHandle<Result<Outcome, String>>,
}

/// A child process with workers of its own.
pub struct Process {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What a child is asked.
#[derive(Serialize, Deserialize)]
enum Request {
    Counts,
    Go { begin: u64, from: u64, until: u64 },
    Stop,
}

impl Fleet {
    /// Starts the workers; they begin to connect at once.
    pub fn start(args: &Args) -> Result<Fleet, String> {
        match args.processes {
            1 => Threads::start(args, Share { index: 0, of: 1 }).map(Fleet::Threads),
            of => {
                let start = |index| Process::start(args, Share { index, of });
                (0..of).map(start).collect::<Result<_, _>>().map(Fleet::Processes)
            }
        }
    }

    /// What was counted so far.
    pub fn counts(&mut self) -> Result<Counts, String> {
        match self {
            Fleet::Threads(threads) => threads.counts(),
            Fleet::Processes(processes) => {
                // All are asked before the first has to answer, so that they answer for the same time.
                processes.iter_mut().try_for_each(|process| process.say(&Request::Counts))?;
                let answers = processes.iter_mut().map(Process::hear::<Counts>);
                answers.into_iter().try_fold(Counts::default(), |all, counts| Ok(all.plus(counts?)))
            }
        }
    }

    /// Starts the load.
    pub fn go(&mut self, window: Window) -> Result<(), String> {
        match self {
            Fleet::Threads(threads) => threads.go(window),
            Fleet::Processes(processes) => {
                let Window { begin, from, until } = window;
                let go = Request::Go { begin, from, until };
                processes.iter_mut().try_for_each(|process| process.say(&go))?;
            }
        }
        Ok(())
    }

    /// Ends all workers; what they have to tell.
    pub fn stop(self) -> Result<Outcome, String> {
        match self {
            Fleet::Threads(threads) => threads.stop(),
            Fleet::Processes(mut processes) => {
                processes.iter_mut().try_for_each(|process| process.say(&Request::Stop))?;
                let mut all = Outcome::default();
                for process in processes {
                    all.merge(process.end()?);
                }
                Ok(all)
            }
        }
    }

    /// CPU time that all workers have used so far.
    pub fn cpus(&self) -> Vec<Cpu> {
        let pids = match self {
            Fleet::Threads(_) => vec![std::process::id()],
            Fleet::Processes(processes) => processes.iter().map(|process| process.child.id()).collect(),
        };
        pids.into_iter().map(|pid| Cpu::of(pid).unwrap_or_default()).collect()
    }
}

impl Threads {
    /// Starts this process's threads; `part` is its part among the processes.
    fn start(args: &Args, part: Share) -> Result<Threads, String> {
        let plan = Arc::new(args.plan.clone());
        let start = |thread| {
            let index = part.index * args.threads + thread;
            let cpu = (!args.cpus.is_empty()).then(|| args.cpus[index % args.cpus.len()]);
            Worker::spawn(Arc::clone(&plan), Share { index, of: part.of * args.threads }, cpu)
        };
        let workers = (0..args.threads).map(start).collect::<Result<_, _>>()?;
        Ok(Threads { workers, slow: Slow::open(&plan, part)? })
    }

    fn counts(&mut self) -> Result<Counts, String> {
        if let Some(ended) = self.workers.iter().position(|worker| worker.thread.is_finished()) {
            return self
                .workers
                .swap_remove(ended)
                .end()
                .and(Err("a worker ended before it was told to".into()));
        }
        let counts = self.workers.iter().map(|worker| worker.link.shown.counts());
        Ok(counts.fold(Counts::default(), Counts::plus))
    }

    fn go(&self, window: Window) {
        for worker in &self.workers {
            // There is one `go` a run, so the window is not set yet.
            let _ = worker.link.window.set(window);
        }
    }

    fn stop(self) -> Result<Outcome, String> {
        self.workers.iter().for_each(|worker| worker.link.stop.store(true, Ordering::Relaxed));
        let mut all = Outcome::default();
        all.slow = self.slow.end();
        for worker in self.workers {
            all.merge(worker.end()?);
        }
        Ok(all)
    }
}

impl Worker {
    fn spawn(plan: Arc<Plan>, share: Share, cpu: Option<usize>) -> Result<Worker, String> {
        let link = Arc::new(Link::default());
        let theirs = Arc::clone(&link);
        let work = move || {
            pin(cpu)?;
            worker::run(&plan, share, &theirs)
        };
        let thread = thread::Builder::new().name(format!("load-{}", share.index)).spawn(work);
        Ok(Worker { link, thread: thread.map_err(|error| format!("no thread: {error}"))? })
    }

    fn end(self) -> Result<Outcome, String> {
        self.thread.join().map_err(|_| "a worker panicked".to_owned())?
    }
}

fn pin(cpu: Option<usize>) -> Result<(), String> {
    match cpu {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
            Err(format!("cannot be pinned to core {id}"))
        }
        _ => Ok(()),
    }
}

impl Process {
    fn start(args: &Args, part: Share) -> Result<Process, String> {
        let wrong = |error: io::Error| format!("no child process: {error}");
        let mut child = std::process::Command::new(env::current_exe().map_err(wrong)?)
            .args(&args.typed)
            .arg(format!("--{PART}={}/{}", part.index, part.of))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(wrong)?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.ok_or("a child process without output")?;
        Ok(Process { child, requests, answers: BufReader::new(answers) })
    }

    fn say(&mut self, request: &Request) -> Result<(), String> {
        let requests = self.requests.as_mut().ok_or("a child process without input")?;
        write_line(requests, request).map_err(|error| format!("a child process ended: {error}"))
    }

    fn hear<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(1..) => serde_json::from_str(&line).map_err(|error| format!("a child's answer: {error}")),
            _ => Err("a child process ended before its time".into()),
        }
    }

    fn end(mut self) -> Result<Outcome, String> {
        let outcome = self.hear();
        self.requests = None;
        self.child.wait().map_err(|error| format!("a child process: {error}"))?;
        outcome
    }
}

impl Drop for Process {
    /// A child whose input ends, ends.
    fn drop(&mut self) {
        self.requests = None;
        // It may have ended already.
        let _ = self.child.wait();
    }
}

/// A child process: does what it is told, and ends with its input.
pub fn serve(args: &Args, part: Share) -> Result<(), String> {
    let mut threads = Threads::start(args, part)?;
    for line in io::stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let answer = |answered: io::Result<()>| answered.map_err(|error| format!("no parent: {error}"));
        match serde_json::from_str(&line).map_err(|error| error.to_string())? {
            Request::Counts => answer(write_line(&mut io::stdout(), &threads.counts()?))?,
            Request::Go { begin, from, until } => threads.go(Window { begin, from, until }),
            Request::Stop => return answer(write_line(&mut io::stdout(), &threads.stop()?)),
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
