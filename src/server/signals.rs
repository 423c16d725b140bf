//! Signals: SIGTERM and SIGINT stop the server, SIGHUP reloads settings and workers, SIGUSR1 logs a summary of the statistics. The
//! other signals that would end a process, although they report no fault of it, are ignored with a line in the log.
//!
//! A separate thread handles signals from the first moment on: a signal during startup must leave nothing behind.
//! Until the server serves, this thread ends the process itself. After that it passes signals on to the main thread.
//!
//! To end the process during startup, the thread first kills the workers, which makes the startup fail in the main
//! thread. This failure must not decide the exit code, because the signal arrived before it. Therefore
//! [`SignalWatch::fail`] does not return if a stop signal has been delivered. The signal handler itself records the
//! delivery, which is therefore recorded before any of its consequences.

use super::error::ServerError;
use crate::app::worker;
use crate::log;
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM,
};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The exit code if a second signal ends the process before the shutdown is complete.
const EXIT_CUT_SHORT: i32 = 130;

/// The signals that stop the server.
const STOPPING: [Signal; 2] = [SIGTERM, SIGINT];

/// The signals that the server acts on while it serves.
const SERVED: [Signal; 2] = [SIGHUP, SIGUSR1];

/// Signals that end a process by default, but have no meaning for the server: somebody meant another program, or a
/// timer of a library has expired. They have a handler, because workers would inherit that a signal is ignored.
///
/// SIGPIPE is not among them: the runtime library of Rust ignores it, and restores it in child processes. SIGQUIT and
/// the signals of faults end the process with a core dump, which is their purpose. SIGXFSZ belongs to the log, which may
/// cause it with each line: a line about it would cause the next one.
const IGNORED: [(Signal, &str); 7] = [
    (SIGUSR2, "SIGUSR2"),
    (SIGALRM, "SIGALRM"),
    (SIGVTALRM, "SIGVTALRM"),
    (SIGPROF, "SIGPROF"),
    (SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
];

/// The number of a signal.
pub(super) type Signal = i32;

/// The handle of the thread that handles signals.
pub(super) struct SignalWatch {
    stage: Arc<StageCell>,
}

/// The stage of the server, which decides how a signal is handled.
enum ServerStage {
    /// A stop signal ends the process.
    Starting,
    /// The startup has failed with an error that has this exit code. A stop signal ends the process at once.
    Failed(u8),
    /// Signals are passed on to this function.
    Serving(Box<dyn Fn(Signal) + Send>),
}

struct StageCell {
    stage: Mutex<ServerStage>,
    /// Set by the handlers of SIGTERM and SIGINT.
    stop_delivered: Arc<AtomicBool>,
}

impl StageCell {
    fn new() -> StageCell {
        StageCell { stage: Mutex::new(ServerStage::Starting), stop_delivered: Arc::default() }
    }

    /// Leaves the stage `Starting`, unless a stop signal has been delivered. Returns whether the stage was left.
    fn leave_start(&self, next: ServerStage) -> bool {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop_delivered.load(Ordering::SeqCst) {
            return false;
        }
        assert!(matches!(*stage, ServerStage::Starting), "the start succeeds or fails once");
        *stage = next;
        true
    }
}

impl SignalWatch {
    /// Starts the thread that handles signals.
    pub fn start() -> Result<SignalWatch, ServerError> {
        let stage = Arc::new(StageCell::new());
        // If the parent process has set SIGCHLD to be ignored, the server could not wait for its child processes.
        flag::register(SIGCHLD, Arc::default()).map_err(ServerError::Signals)?;
        for stop in STOPPING {
            flag::register(stop, Arc::clone(&stage.stop_delivered)).map_err(ServerError::Signals)?;
        }
        let handled = STOPPING.into_iter().chain(SERVED).chain(IGNORED.map(|(signal, _)| signal));
        let mut signals = Signals::new(handled).map_err(ServerError::Signals)?;
        let watched = Arc::clone(&stage);
        let watch = move || {
            let mut is_stopping = false;
            for signal in signals.forever() {
                handle(signal, &watched.stage, &mut is_stopping);
            }
        };
        thread::Builder::new().name("signals".into()).spawn(watch).map_err(ServerError::Signals)?;
        Ok(SignalWatch { stage })
    }

    /// Passes signals on from now on. If a stop signal was delivered before, this does not return: the process ends.
    pub fn serve(&self, pass_on: impl Fn(Signal) + Send + 'static) {
        if !self.stage.leave_start(ServerStage::Serving(Box::new(pass_on))) {
            wait_for_end_of_process();
        }
    }

    /// Returns the error that prevents the server from starting. If a stop signal was delivered before, this does not
    /// return: the process ends, and the error is probably a consequence of that.
    pub fn fail(&self, error: ServerError) -> ServerError {
        if !self.stage.leave_start(ServerStage::Failed(error.exit_code())) {
            wait_for_end_of_process();
        }
        error
    }
}

fn wait_for_end_of_process() -> ! {
    loop {
        thread::park();
    }
}

/// Handles a signal in the thread for signals.
fn handle(signal: Signal, stage: &Mutex<ServerStage>, is_stopping: &mut bool) {
    if let Some((_, name)) = IGNORED.iter().find(|(ignored, _)| *ignored == signal) {
        tracing::info!("{name} ignored: it has no meaning for this server");
        return;
    }
    // If the process ends here, the lock is held to the end: the main thread cannot leave the stage any more.
    let stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
    match &*stage {
        ServerStage::Starting | ServerStage::Failed(_) if signal == SIGHUP => {
            tracing::info!("SIGHUP ignored: the server is starting");
        }
        ServerStage::Starting | ServerStage::Failed(_) if signal == SIGUSR1 => {
            tracing::info!("SIGUSR1 ignored: the server is starting and has no statistics");
        }
        ServerStage::Starting => {
            // The thread of the log might not write the message before the process ends.
            log::report(&"stopped by a signal during startup");
            end_process(0);
        }
        ServerStage::Failed(code) => end_process(i32::from(*code)),
        ServerStage::Serving(pass_on) => {
            if STOPPING.contains(&signal) && std::mem::replace(is_stopping, true) {
                end_process(EXIT_CUT_SHORT);
            }
            pass_on(signal);
        }
    }
}

/// Ends the process without waiting for anything.
fn end_process(code: i32) -> ! {
    worker::abandon_all();
    process::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_that_was_delivered_before_the_failure_wins() {
        let cell = StageCell::new();
        cell.stop_delivered.store(true, Ordering::SeqCst);
        assert!(!cell.leave_start(ServerStage::Failed(1)), "the signal decides the exit code");
        assert!(
            matches!(*cell.stage.lock().unwrap(), ServerStage::Starting),
            "the thread for signals ends the process"
        );
        assert!(!cell.leave_start(ServerStage::Serving(Box::new(|_| ()))));
    }

    #[test]
    fn a_failure_before_the_stop_signal_keeps_its_exit_code() {
        let cell = StageCell::new();
        assert!(cell.leave_start(ServerStage::Failed(2)));
        cell.stop_delivered.store(true, Ordering::SeqCst);
        assert!(matches!(*cell.stage.lock().unwrap(), ServerStage::Failed(2)));
    }
}
