//! The process with the number 1 of a container. The kernel makes it the parent of every process whose own parent has
//! ended, and it must wait for them when they end: they would otherwise remain as zombies.
//!
//! A server has children of its own, its workers, and must not wait for them by accident. For this reason the process
//! with the number 1 does nothing else: it starts the server as its only child, passes signals on to it, waits for every
//! process that ends, and ends with the server.

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

/// The signals that are passed on to the server.
const PASSED_ON: [i32; 7] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT];

/// The exit code of a process that a signal has ended, without the signal's number.
const EXIT_SIGNALED: i32 = 128;

/// If this process has the number 1, runs the same program with the same arguments as its child, and returns its exit
/// code. Otherwise returns `None` at once: the caller is to go on.
///
/// Also returns `None` if the child cannot be started.
pub fn run_as_init() -> Option<u8> {
    (process::id() == 1).then(|| run_child().ok()).flatten()
}

fn run_child() -> io::Result<u8> {
    let mut signals = Signals::new(PASSED_ON.into_iter().chain([SIGCHLD]))?;
    let mut args = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    args.next().map(|name| command.arg0(name));
    // Ctrl-C at a terminal goes to all processes of a group. The server must get it once.
    let child = Pid::from_child(&command.args(args).process_group(0).spawn()?);
    for signal in signals.forever() {
        if signal != SIGCHLD {
            let signal = Signal::from_named_raw(signal).expect("all signals that are passed on have names");
            // The server may be ending at this moment.
            let _ = kill_process(child, signal);
            continue;
        }
        // One signal may stand for the ends of several processes.
        while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
            if ended == child {
                return Ok(exit_code(status));
            }
        }
    }
    unreachable!("the list of signals has no end")
}

fn exit_code(status: WaitStatus) -> u8 {
    let of_signal = status.terminating_signal().map(|signal| EXIT_SIGNALED + signal);
    let code = status.exit_status().or(of_signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
