//! The progress line on standard error.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// A progress line on standard error. On a terminal it is overwritten, elsewhere a line is written every second.
pub struct Progress {
    quiet: bool,
    terminal: bool,
    last: Option<Instant>,
}

impl Progress {
    /// Returns a progress line that was not shown yet.
    pub fn new(quiet: bool) -> Progress {
        Progress { quiet, terminal: stderr().is_terminal(), last: None }
    }

    /// Returns whether the line may be shown again.
    pub fn is_due(&self) -> bool {
        let interval = Duration::from_millis(if self.terminal { 200 } else { 1000 });
        !self.quiet && self.last.is_none_or(|last| last.elapsed() >= interval)
    }

    /// Shows a text, unless one was shown a short time ago.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        if !self.is_due() {
            return;
        }
        self.last = Some(Instant::now());
        // A terminal that was closed does not end the run.
        let _ = match self.terminal {
            true => write!(stderr(), "\r\x1b[K{}", text()),
            false => writeln!(stderr(), "{}", text()),
        };
    }

    /// Removes the line from a terminal.
    pub fn end(&mut self) {
        if self.terminal && !self.quiet {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
