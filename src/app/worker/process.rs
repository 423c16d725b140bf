//! The process of one worker, its control socket and its output.

use super::control::{self, Hello, ServerMessage, WorkerLogLevel, WorkerMessage};
use super::libraries::{LibraryFolder, NODE, PYTHON};
use super::lines::{LineLimiter, LineSplitter, shortened};
use super::manifest::PROTOCOL_VERSION;
use super::{StartError, WorkerConfig, WorkerKind};
use crate::limits::WORKER_LINE_BYTES_MAX;
use command_fds::{CommandFdExt, FdMapping};
use rustix::event::PollFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The worker's file descriptor of the control socket. The descriptors of the links follow it.
const CONTROL_FD: i32 = 3;

/// The environment variable that contains `CONTROL_FD`.
const CONTROL_VARIABLE: &str = "QUICKIO_WORKER";

/// The environment variables of a service manager, which are meant for one process.
const SERVICE_MANAGER_VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// Reads of one socket or pipe without a pause. Together they read more than the kernel buffers, and they end even if
/// the worker writes without a pause.
const READS_MAX: usize = 64;

/// The processes of all workers that have not been waited for.
static PROCESSES: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills all workers. For a server that ends without waiting for them.
pub fn kill_all() {
    for pid in PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn forget(pid: Pid) {
    PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != pid);
}

/// A worker's process. It is killed when this value is dropped.
pub struct WorkerProcess {
    /// The serial number of the worker, unique among the workers of its application.
    pub serial: u32,
    /// The instance that the worker runs for, from 0.
    pub instance: usize,
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    /// `None` once the worker has closed it.
    control: Option<UnixStream>,
    /// Bytes that the control socket has not accepted yet.
    unsent: Vec<u8>,
    /// The beginning of a line from the control socket. Its first `searched` bytes contain no line end.
    line: Vec<u8>,
    searched: usize,
    /// `None` once the worker has closed it.
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    stdout_lines: LineSplitter,
    stderr_lines: LineSplitter,
    limiter: LineLimiter,
    /// The server's ends of the worker's links, until the shards take them.
    pub links: Vec<OwnedFd>,
    /// The application and the instance, for the log: `chat#0`.
    name: String,
}

/// An event source of a process that the supervisor polls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PollSource {
    Exit,
    Control,
    Stdout,
    Stderr,
}

impl WorkerProcess {
    /// Starts a worker's process, and sends it the first message.
    ///
    /// # Errors
    ///
    /// The application's file does not exist, the libraries cannot be written, the kernel has no sockets left, or the
    /// program cannot be started.
    pub fn start(
        config: &WorkerConfig,
        libraries: &mut LibraryFolder,
        serial: u32,
        instance: usize,
    ) -> Result<WorkerProcess, StartError> {
        let missing = |error| StartError::Missing { file: config.file.clone(), error };
        let script = config.resolve().map_err(missing)?;
        libraries.ensure().map_err(StartError::Libraries)?;
        let pair = || UnixStream::pair().map_err(StartError::Resources);
        let (control, worker_control) = pair()?;
        let (mut links, mut worker_ends) = (Vec::new(), vec![OwnedFd::from(worker_control)]);
        for _ in 0..config.shards {
            let (server_end, worker_end) = pair()?;
            links.push(server_end.into());
            worker_ends.push(worker_end.into());
        }
        let mut command = command(config, &script, libraries);
        let mappings = worker_ends.into_iter().zip(CONTROL_FD..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(|error| StartError::Resources(io::Error::other(error)))?;
        // Only the server itself speaks to its service manager (systemd).
        for name in SERVICE_MANAGER_VARIABLES {
            command.env_remove(name);
        }
        command.env(CONTROL_VARIABLE, CONTROL_FD.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C at a terminal must reach only the server, which then ends its workers.
        command.process_group(0);
        let spawned = command.spawn();
        let program = || command.get_program().into();
        let mut child =
            spawned.map_err(|error| StartError::Spawn { program: program(), kind: config.kind, error })?;
        // Dropping the command closes the worker's ends in this process: the server's ends then end with the worker.
        drop(command);
        let pid = Pid::from_child(&child);
        PROCESSES.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut process = WorkerProcess {
            serial,
            instance,
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).map_err(|error| {
                let _ = child.kill();
                forget(pid);
                let _ = child.wait();
                StartError::Resources(error.into())
            })?,
            child,
            control: Some(control),
            unsent: Vec::new(),
            line: Vec::new(),
            searched: 0,
            stdout,
            stderr,
            stdout_lines: LineSplitter::default(),
            stderr_lines: LineSplitter::default(),
            limiter: LineLimiter::new(Instant::now()),
            links,
            name: format!("{}#{instance}", config.name),
        };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            app: &config.name,
            instance,
            instances: config.instances,
            links: (CONTROL_FD + 1..).take(config.shards).collect(),
            script: &script,
            settings: &config.settings,
            test: config.test,
        };
        process.set_nonblocking().map_err(StartError::Resources)?;
        process.send(&ServerMessage::Hello(hello));
        Ok(process)
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        let pipes = [self.stdout.as_ref().map(AsFd::as_fd), self.stderr.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        self.control.as_ref().map_or(Ok(()), |control| control.set_nonblocking(true))
    }

    /// Returns the name of the worker in the log, for example `chat#0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Returns the event sources to poll, with their descriptors and the events of interest.
    pub fn poll_sources(&self) -> impl Iterator<Item = (PollSource, BorrowedFd<'_>, PollFlags)> {
        let writable = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let control = self.control.as_ref();
        let control = control.map(|control| (PollSource::Control, control.as_fd(), PollFlags::IN | writable));
        let stdout = self.stdout.as_ref().map(|pipe| (PollSource::Stdout, pipe.as_fd(), PollFlags::IN));
        let stderr = self.stderr.as_ref().map(|pipe| (PollSource::Stderr, pipe.as_fd(), PollFlags::IN));
        let exit = Some((PollSource::Exit, self.pidfd.as_fd(), PollFlags::IN));
        [exit, control, stdout, stderr].into_iter().flatten()
    }

    /// Sends a message on the control socket. Never waits. A worker that reads nothing has at most one hello and one
    /// ping waiting.
    pub fn send(&mut self, message: &ServerMessage<'_>) {
        self.unsent.extend_from_slice(&message.to_line());
        self.send_unsent();
    }

    fn send_unsent(&mut self) {
        let Some(control) = &mut self.control else { return };
        while !self.unsent.is_empty() {
            match control.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if is_temporary(&error) => return,
                // The worker has closed the socket. The next read finds that out too.
                Err(_) => self.unsent.clear(),
            }
        }
    }

    /// Returns whether the control socket is open.
    pub fn is_connected(&self) -> bool {
        self.control.is_some()
    }

    /// Reads the control socket, and passes each message to `handle`. Never waits.
    ///
    /// # Errors
    ///
    /// A line is invalid or too long. The lines that follow it are not read.
    pub fn read_control(&mut self, mut handle: impl FnMut(WorkerMessage)) -> Result<(), String> {
        self.send_unsent();
        for _ in 0..READS_MAX {
            if !self.read_piece() {
                break;
            }
            let mut parsed = 0;
            while let Some(len) = self.line[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + len;
                control::parse(&self.line[parsed..end])?.into_iter().for_each(&mut handle);
                parsed = end + 1;
                self.searched = parsed;
            }
            self.line.drain(..parsed);
            self.searched = self.line.len();
            if self.line.len() > WORKER_LINE_BYTES_MAX {
                return Err(format!(
                    "it sent a line longer than {WORKER_LINE_BYTES_MAX} bytes on its control socket"
                ));
            }
        }
        Ok(())
    }

    /// Reads once from the control socket. Returns whether there was anything to read.
    fn read_piece(&mut self) -> bool {
        let Some(control) = &mut self.control else { return false };
        let mut bytes = [0; READ_BYTES];
        match control.read(&mut bytes) {
            Ok(len @ 1..) => {
                self.line.extend_from_slice(&bytes[..len]);
                return true;
            }
            Err(error) if is_temporary(&error) => {}
            Ok(_) | Err(_) => self.control = None,
        }
        false
    }

    /// Reads once from the worker's output, and logs the lines. Returns whether there was anything to read.
    pub fn log_output(&mut self, source: PollSource) -> bool {
        let mut bytes = [0; READ_BYTES];
        let read = match source {
            PollSource::Stdout => self.stdout.as_mut().map(|pipe| pipe.read(&mut bytes)),
            PollSource::Stderr => self.stderr.as_mut().map(|pipe| pipe.read(&mut bytes)),
            PollSource::Exit | PollSource::Control => None,
        };
        let len = match read {
            Some(Ok(len @ 1..)) => len,
            Some(Err(error)) if is_temporary(&error) => return false,
            None => return false,
            Some(_) => {
                match source {
                    PollSource::Stdout => self.stdout = None,
                    _ => self.stderr = None,
                }
                return false;
            }
        };
        let WorkerProcess { stdout_lines, stderr_lines, limiter, name, .. } = self;
        let (lines, level) = match source {
            PollSource::Stdout => (stdout_lines, WorkerLogLevel::Info),
            _ => (stderr_lines, WorkerLogLevel::Warn),
        };
        lines.push(&bytes[..len], |line| log_line(limiter, name, level, line));
        true
    }

    /// Logs a text that the worker sent for the log: one record, however many lines it has.
    pub fn log(&mut self, level: WorkerLogLevel, text: &str) {
        log_line(&mut self.limiter, &self.name, level, &shortened(text.trim_end()));
    }

    /// Kills the process and all processes of its group. [`PollSource::Exit`] reports when the process has ended.
    pub fn kill(&mut self) {
        // The process id cannot have been reused: the process has not been waited for.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.child.kill();
    }

    /// Waits for the process if it has ended, and logs the rest of its output.
    ///
    /// Returns `None` if the process has not ended, and `Some(None)` if it has ended and its exit status is unknown.
    pub fn reap(&mut self) -> Option<Option<ExitStatus>> {
        let without_waiting = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), without_waiting) {
            Ok(None) => return None,
            // The processes that it started must not outlive it and keep its links open. Its process id, and the
            // group's, cannot be reused before `try_wait`.
            Ok(Some(_)) => _ = kill_process_group(self.pid, Signal::KILL),
            // Other code of this process, for example an application in C, has waited for the process.
            Err(_) => {}
        }
        for source in [PollSource::Stdout, PollSource::Stderr] {
            (0..READS_MAX).take_while(|_| self.log_output(source)).for_each(drop);
        }
        let WorkerProcess { stdout_lines, stderr_lines, limiter, name, .. } = self;
        stdout_lines.finish(|line| log_line(limiter, name, WorkerLogLevel::Info, line));
        stderr_lines.finish(|line| log_line(limiter, name, WorkerLogLevel::Warn, line));
        forget(self.pid);
        Some(self.child.try_wait().ok().flatten())
    }

    /// Returns the last lines that the worker printed, as one text.
    pub fn last_lines(&self) -> String {
        self.limiter.last_lines().collect::<Vec<_>>().join(" | ")
    }

    /// Returns the number of lines that were dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        self.limiter.take_dropped()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
            forget(self.pid);
            let _ = self.child.wait();
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Logs a line or record of a worker, unless the worker has printed too many.
fn log_line(limiter: &mut LineLimiter, worker: &str, level: WorkerLogLevel, line: &str) {
    let Some(dropped) = limiter.admit(line, Instant::now()) else { return };
    if dropped > 0 {
        tracing::warn!(
            worker,
            lines = dropped,
            "the worker printed too much: some of its lines were dropped"
        );
    }
    match level {
        WorkerLogLevel::Error => tracing::error!(worker, "{line}"),
        WorkerLogLevel::Warn => tracing::warn!(worker, "{line}"),
        WorkerLogLevel::Info => tracing::info!(worker, "{line}"),
        WorkerLogLevel::Debug => tracing::debug!(worker, "{line}"),
        WorkerLogLevel::Trace => tracing::trace!(worker, "{line}"),
    }
}

/// Returns the command that starts a worker.
fn command(config: &WorkerConfig, script: &Path, libraries: &LibraryFolder) -> Command {
    let mut command = match config.kind {
        WorkerKind::Python => {
            let mut command = Command::new(&config.python);
            let folder = libraries.path().join(PYTHON);
            // The path of the file is given, because `-m` would search the working directory first, for the module and
            // for its imports.
            command.arg("-u").arg(folder.join("quickio/__main__.py"));
            command
                .env("PYTHONPATH", prepended(folder.as_os_str(), std::env::var_os("PYTHONPATH").as_deref()));
            command
        }
        WorkerKind::Node => {
            let mut command = Command::new(&config.node);
            command.arg(libraries.path().join(NODE).join("runner.mjs"));
            command
        }
        WorkerKind::Program => Command::new(script),
    };
    let folder = config.folder.or(script.parent().unwrap_or(Path::new("/")));
    // A shell does the same. Python and Node resolve the path themselves.
    command.current_dir(&folder).env("PWD", &folder);
    command
}

/// Returns a list of folders with `folder` before the others.
fn prepended(folder: &OsStr, others: Option<&OsStr>) -> OsString {
    let mut list = folder.to_owned();
    if let Some(others) = others.filter(|others| !others.is_empty()) {
        list.push(":");
        list.push(others);
    }
    list
}
