//! One worker: its process, and what joins the server with it.

use super::lines::{Allowance, Lines, Verdict};
use super::manifest::{self, Hello, Level, Line, Said, VERSION};
use super::package::{NODE, PYTHON, Package};
use super::{StartError, WorkerConfig, WorkerKind};
use crate::limits::WORKER_LINE_BYTES_MAX;
use command_fds::{CommandFdExt, FdMapping};
use rustix::event::PollFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The descriptor of the control socket, in the worker; those of the links follow.
const CONTROL: i32 = 3;

/// The variable that says so.
const VARIABLE: &str = "QUICKIO_WORKER";

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Reads in one go: more than sockets and pipes hold, and no more than that of one that goes on and on.
const READS_MAX: usize = 64;

/// The processes of all workers that have not been waited for.
static PROCESSES: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills all workers, of a server that ends without waiting for them.
pub fn kill_all() {
    for pid in PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn forget(pid: Pid) {
    PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != pid);
}

/// A worker's process. It is killed when this is dropped.
pub struct Process {
    /// Told from all others of the application.
    pub serial: u32,
    pub instance: usize,
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    /// None, once the worker has closed it.
    control: Option<UnixStream>,
    /// What the control socket did not take yet.
    untold: Vec<u8>,
    /// The beginning of a line, in which there is no end up to `looked_at`.
    line: Vec<u8>,
    looked_at: usize,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    printed: [Lines; 2],
    allowance: Allowance,
    /// The server's ends of its links, until the shards have them.
    pub links: Vec<OwnedFd>,
    name: String,
}

/// What is waited for of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Exit,
    Control,
    Stdout,
    Stderr,
}

impl Process {
    /// Starts a worker, and says hello to it.
    pub fn start(
        plan: &WorkerConfig,
        package: &mut Package,
        serial: u32,
        instance: usize,
    ) -> Result<Process, StartError> {
        package.ensure().map_err(StartError::Package)?;
        let pair = || UnixStream::pair().map_err(StartError::Sockets);
        let (control, its_control) = pair()?;
        let (mut links, mut theirs) = (Vec::new(), vec![OwnedFd::from(its_control)]);
        for _ in 0..plan.shards {
            let (ours, its) = pair()?;
            links.push(ours.into());
            theirs.push(its.into());
        }
        let mut command = command(plan, package);
        let mappings = theirs.into_iter().zip(CONTROL..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(|error| StartError::Sockets(io::Error::other(error)))?;
        command.env(VARIABLE, CONTROL.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C at a terminal is for the server, which then ends its workers in order.
        command.process_group(0);
        let spawned = command.spawn();
        let program = || command.get_program().into();
        let mut child =
            spawned.map_err(|error| StartError::Spawn { program: program(), kind: plan.kind, error })?;
        // The worker's ends close here with the command: when its process ends, so do ours.
        drop(command);
        let pid = Pid::from_child(&child);
        PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut process = Process {
            serial,
            instance,
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).map_err(|error| {
                let _ = child.kill();
                forget(pid);
                let _ = child.wait();
                StartError::Sockets(error.into())
            })?,
            child,
            control: Some(control),
            untold: Vec::new(),
            line: Vec::new(),
            looked_at: 0,
            stdout,
            stderr,
            printed: Default::default(),
            allowance: Allowance::new(Instant::now()),
            links,
            name: format!("{}#{instance}", plan.name),
        };
        let hello = Hello {
            version: VERSION,
            app: &plan.name,
            instance,
            instances: plan.instances,
            links: (CONTROL + 1..).take(plan.shards).collect(),
            script: &plan.file,
            settings: &plan.settings,
            test: plan.test,
        };
        process.make_pipes_answer_at_once().map_err(StartError::Sockets)?;
        process.tell(&Line::Hello(hello));
        Ok(process)
    }

    fn make_pipes_answer_at_once(&self) -> io::Result<()> {
        let pipes = [self.stdout.as_ref().map(AsFd::as_fd), self.stderr.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        self.control.as_ref().map_or(Ok(()), |control| control.set_nonblocking(true))
    }

    /// As logs have it: `chat#0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// What can be waited for.
    pub fn sources(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let room = if self.untold.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let control = self.control.as_ref();
        let control = control.map(|control| (Source::Control, control.as_fd(), PollFlags::IN | room));
        let stdout = self.stdout.as_ref().map(|pipe| (Source::Stdout, pipe.as_fd(), PollFlags::IN));
        let stderr = self.stderr.as_ref().map(|pipe| (Source::Stderr, pipe.as_fd(), PollFlags::IN));
        let exit = Some((Source::Exit, self.pidfd.as_fd(), PollFlags::IN));
        [exit, control, stdout, stderr].into_iter().flatten()
    }

    /// Sends a line. There are no more than one hello and one ping that it has not read.
    pub fn tell(&mut self, line: &Line<'_>) {
        self.untold.extend_from_slice(&line.to_bytes());
        self.tell_more();
    }

    fn tell_more(&mut self) {
        let Some(control) = &mut self.control else { return };
        while !self.untold.is_empty() {
            match control.write(&self.untold) {
                Ok(len) => drop(self.untold.drain(..len)),
                Err(error) if is_later(&error) => return,
                // It has closed it, which reading tells, too.
                Err(_) => self.untold.clear(),
            }
        }
    }

    /// Whether it can still say something.
    pub fn is_heard(&self) -> bool {
        self.control.is_some()
    }

    /// Reads what it says, up to its last whole line.
    ///
    /// # Errors
    ///
    /// A line cannot be understood, or is too long; behind it nothing is read.
    pub fn hear(&mut self, mut said: impl FnMut(Said)) -> Result<(), String> {
        self.tell_more();
        for _ in 0..READS_MAX {
            if !self.hear_more() {
                break;
            }
            let mut taken = 0;
            while let Some(len) = self.line[self.looked_at..].iter().position(|byte| *byte == b'\n') {
                let end = self.looked_at + len;
                manifest::read(&self.line[taken..end])?.into_iter().for_each(&mut said);
                taken = end + 1;
                self.looked_at = taken;
            }
            self.line.drain(..taken);
            self.looked_at = self.line.len();
            if self.line.len() > WORKER_LINE_BYTES_MAX {
                return Err(format!(
                    "a line on its control socket is longer than {WORKER_LINE_BYTES_MAX} bytes"
                ));
            }
        }
        Ok(())
    }

    /// Reads a piece of what it says; whether there was one.
    fn hear_more(&mut self) -> bool {
        let Some(control) = &mut self.control else { return false };
        let mut bytes = [0; READ_BYTES];
        match control.read(&mut bytes) {
            Ok(len @ 1..) => {
                self.line.extend_from_slice(&bytes[..len]);
                return true;
            }
            Err(error) if is_later(&error) => {}
            Ok(_) | Err(_) => self.control = None,
        }
        false
    }

    /// Reads what it prints, and logs it.
    pub fn log_printed(&mut self, source: Source) -> bool {
        let mut bytes = [0; READ_BYTES];
        let read = match source {
            Source::Stdout => self.stdout.as_mut().map(|pipe| pipe.read(&mut bytes)),
            Source::Stderr => self.stderr.as_mut().map(|pipe| pipe.read(&mut bytes)),
            Source::Exit | Source::Control => None,
        };
        let len = match read {
            Some(Ok(len @ 1..)) => len,
            Some(Err(error)) if is_later(&error) => return false,
            None => return false,
            Some(_) => {
                match source {
                    Source::Stdout => self.stdout = None,
                    _ => self.stderr = None,
                }
                return false;
            }
        };
        let Process { printed: [stdout, stderr], allowance, name, .. } = self;
        let (lines, level) =
            if source == Source::Stdout { (stdout, Level::Info) } else { (stderr, Level::Warn) };
        lines.push(&bytes[..len], |line| log_if_allowed(allowance, name, level, line));
        true
    }

    /// Logs a line that the worker wrote for the log.
    pub fn log(&mut self, level: Level, text: &str) {
        let Process { allowance, name, .. } = self;
        let mut lines = Lines::default();
        lines.push(text.as_bytes(), |line| log_if_allowed(allowance, name, level, line));
        lines.end(|line| log_if_allowed(allowance, name, level, line));
    }

    /// Kills it, and whatever it has started. [`Source::Exit`] tells when it has ended.
    pub fn kill(&mut self) {
        // Its number cannot be another's: it is given back only by `ended`.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.child.kill();
    }

    /// How it ended, where that can be known; `None`: it has not.
    pub fn ended(&mut self) -> Option<Option<ExitStatus>> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), look) {
            Ok(None) => return None,
            // What it has started must not outlive it, with the links that it was given. Its number is its own until `wait`.
            Ok(Some(_)) => _ = kill_process_group(self.pid, Signal::KILL),
            // Somebody else in this process has waited for it: an application in C.
            Err(_) => {}
        }
        for source in [Source::Stdout, Source::Stderr] {
            (0..READS_MAX).take_while(|_| self.log_printed(source)).for_each(drop);
        }
        let Process { printed: [stdout, stderr], allowance, name, .. } = self;
        stdout.end(|line| log_if_allowed(allowance, name, Level::Info, line));
        stderr.end(|line| log_if_allowed(allowance, name, Level::Warn, line));
        forget(self.pid);
        Some(self.child.try_wait().ok().flatten())
    }

    /// The last lines that it printed, as one text.
    pub fn last_lines(&self) -> String {
        self.allowance.last().collect::<Vec<_>>().join(" | ")
    }

    /// How many lines it printed that were not logged.
    pub fn take_dropped(&mut self) -> u64 {
        self.allowance.take_dropped()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
            forget(self.pid);
            let _ = self.child.wait();
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn log_if_allowed(allowance: &mut Allowance, worker: &str, level: Level, line: &str) {
    let Verdict::Pass { dropped } = allowance.judge(line, Instant::now()) else { return };
    if dropped > 0 {
        tracing::warn!(worker, lines = dropped, "the worker prints too much: lines were left out");
    }
    match level {
        Level::Error => tracing::error!(worker, "{line}"),
        Level::Warn => tracing::warn!(worker, "{line}"),
        Level::Info => tracing::info!(worker, "{line}"),
        Level::Debug => tracing::debug!(worker, "{line}"),
        Level::Trace => tracing::trace!(worker, "{line}"),
    }
}

/// How its program is called.
fn command(plan: &WorkerConfig, package: &Package) -> Command {
    match plan.kind {
        WorkerKind::Python => {
            let mut command = Command::new(&plan.python);
            let folder = package.folder().join(PYTHON);
            // By its file: `-m` would look for it, and for what it imports, in the working directory first.
            command.arg("-u").arg(folder.join("quickio/__main__.py"));
            command.env(
                "PYTHONPATH",
                with_before(folder.as_os_str(), std::env::var_os("PYTHONPATH").as_deref()),
            );
            command
        }
        WorkerKind::Node => {
            let mut command = Command::new(&plan.node);
            command.arg(package.folder().join(NODE).join("runner.mjs"));
            command
        }
        WorkerKind::Program => Command::new(&plan.file),
    }
}

/// A list of folders with one more before the others.
fn with_before(folder: &OsStr, others: Option<&OsStr>) -> std::ffi::OsString {
    let mut list = folder.to_owned();
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        list.push(":");
        list.push(others);
    }
    list
}
