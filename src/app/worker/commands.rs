//! The channel on which any thread sends commands to a supervisor.

use super::counters::SupervisorCounters;
use super::{ShardsHandle, SupervisorHandle};
use crate::inspect::WorkerStatus;
use futures_channel::oneshot;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};

/// A command to a supervisor.
pub enum SupervisorCommand {
    /// Puts the workers into service: the shards are running.
    Serve { app: u32, shards: Arc<dyn ShardsHandle>, done: SyncSender<()> },
    /// Kills a worker that broke the link protocol.
    KillBroken { worker: u32, why: String },
    /// Expects a worker that ended one of its links to end.
    LinkEnded { worker: u32 },
    /// Replaces all workers, one by one. The new ones get these settings.
    Replace { settings: Option<BTreeMap<String, String>>, done: ReplaceDone },
    /// Does everything that is due after a test moved the server's clock.
    ClockMoved(oneshot::Sender<()>),
    /// Reports the result of the self-test.
    ReportSelfTest(SyncSender<Result<(), String>>),
    /// Describes the workers for operators.
    Describe(oneshot::Sender<Vec<WorkerStatus>>),
    /// Starts no more workers: the server is shutting down, and workers end when the shards close their links.
    BeginShutdown,
    /// Ends all workers that are still running: the shards have ended.
    ShardsEnded,
}

/// A function that is called once at the end of a replacement.
pub type ReplaceDone = Box<dyn FnOnce(ReplaceOutcome) + Send>;

/// The outcome of a replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplaceOutcome {
    /// The number of workers that were replaced.
    pub replaced: usize,
    /// The number of workers that should have been replaced.
    pub instances: usize,
}

/// The sending end of the channel.
#[derive(Clone)]
pub struct SupervisorSender {
    commands: Sender<SupervisorCommand>,
    /// An eventfd, which is readable while there are commands.
    wake: Arc<OwnedFd>,
    counters: Arc<SupervisorCounters>,
}

/// The receiving end of the channel.
pub struct SupervisorReceiver {
    commands: Receiver<SupervisorCommand>,
    wake: Arc<OwnedFd>,
}

/// Returns both ends of a new channel.
///
/// # Errors
///
/// The process has no descriptor left.
pub fn supervisor_channel() -> io::Result<(SupervisorSender, SupervisorReceiver)> {
    let (sender, receiver) = channel();
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let receiver = SupervisorReceiver { commands: receiver, wake: Arc::clone(&wake) };
    Ok((SupervisorSender { commands: sender, wake, counters: Arc::default() }, receiver))
}

impl SupervisorSender {
    /// Sends a command. Never waits. If the supervisor has ended, the command is dropped.
    pub fn send(&self, command: SupervisorCommand) {
        if self.commands.send(command).is_ok() {
            // The eventfd's counter cannot overflow: each read resets it to 0.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Returns the supervisor's counters.
    pub fn counters(&self) -> &Arc<SupervisorCounters> {
        &self.counters
    }
}

impl SupervisorHandle for SupervisorSender {
    fn report_broken(&self, worker: u32, why: &str) {
        self.send(SupervisorCommand::KillBroken { worker, why: why.to_owned() });
    }

    fn report_link_end(&self, worker: u32) {
        self.send(SupervisorCommand::LinkEnded { worker });
    }
}

impl SupervisorReceiver {
    /// Returns the next command, if there is one. Does not wait.
    pub fn next(&self) -> Option<SupervisorCommand> {
        self.commands.try_recv().ok()
    }

    /// Returns the descriptor that becomes readable when a command is sent.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Resets the descriptor. The caller must then take all commands.
    pub fn clear_wake(&self) {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }
}
