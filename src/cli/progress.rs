//! A line that shows the progress of a command that takes long, on a terminal only.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The time after which a command takes long.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// The interval of updates.
const INTERVAL: Duration = Duration::from_millis(200);

/// Moves to the start of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// The line. Dropping it clears it.
#[derive(Debug)]
pub(super) struct ProgressLine {
    began: Instant,
    /// The time of the next update, or `None` if standard error is no terminal.
    next: Option<Instant>,
    is_shown: bool,
}

impl ProgressLine {
    /// Begins to measure.
    pub(super) fn begin() -> ProgressLine {
        let began = Instant::now();
        let next = io::stderr().is_terminal().then(|| began + SHOWN_AFTER);
        ProgressLine { began, next, is_shown: false }
    }

    /// Returns the time of the next update.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Shows a text, if it is time. The text is made of the time since the beginning.
    pub(super) fn update<Text: Display>(&mut self, text: impl FnOnce(Duration) -> Text) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now >= next) {
            // A terminal that has been closed ends the program by a signal.
            let _ = write!(io::stderr(), "{CLEAR}{}", text(now - self.began));
            self.is_shown = true;
            self.next = Some(now + INTERVAL);
        }
    }

    /// Clears the line, because something else is printed.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(io::stderr(), "{CLEAR}");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}
