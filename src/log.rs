//! The log: structured events to standard error, written by a thread of their own.
//!
//! Whoever logs formats the line and puts it into a bounded queue, and never waits: while the queue is full, lines
//! are dropped and counted, since a terminal or a pipe that does not drain must not hold a shard up.

use std::io::{self, IsTerminal, Write};

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogLevel};

/// Lines that wait to be written, at most: some 1 MiB of them.
const LINES_MAX: usize = 8192;

/// Why the log could not be started.
#[derive(Debug, Error)]
pub enum LogError {
    /// The process logs already: there is one log for all its threads.
    #[error("the log was started before")]
    Started(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Keeps the log alive. Dropping it writes what is queued (for a second at most), and a last line where any were
/// dropped; so it has to live as long as `main`.
#[must_use = "the log ends when its guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    // The order matters: `Drop` logs, then the worker is told to finish.
    dropped: DroppedLines,
    _worker: WorkerGuard,
}

impl Guard {
    /// The count of lines that were dropped because the queue was full.
    #[must_use]
    pub fn dropped_lines(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let lines = self.dropped.count();
        if lines > 0 {
            tracing::warn!(lines, "log lines were dropped: nobody read them fast enough");
        }
    }
}

/// How many lines were dropped so far; any thread may ask.
#[derive(Clone, Debug)]
pub struct DroppedLines(ErrorCounter);

impl DroppedLines {
    /// The number of lines.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.dropped_lines() as u64
    }
}

/// Starts the log of this process: events of `level` and more important ones, on standard error. Colours are used
/// on a terminal, unless `NO_COLOR` is set.
///
/// # Errors
///
/// Where the process has a log already.
pub fn start(level: LogLevel, format: LogFormat) -> Result<Guard, LogError> {
    let ansi =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (writer, guard) = queue(io::stderr());
    match format {
        LogFormat::Text => tracing::subscriber::set_global_default(text(level, ansi, writer))?,
        LogFormat::Json => tracing::subscriber::set_global_default(json(level, writer))?,
    }
    Ok(guard)
}

/// The bounded queue before `writer`, and the thread that empties it.
fn queue(writer: impl Write + Send + 'static) -> (NonBlocking, Guard) {
    let builder =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("log");
    let (writer, worker) = builder.finish(writer);
    let dropped = DroppedLines(writer.error_counter());
    (writer, Guard { dropped, _worker: worker })
}

/// `2026-01-01T00:00:00.000000Z  INFO quickio::server: listening address=0.0.0.0:8080`.
fn text<W>(level: LogLevel, ansi: bool, writer: W) -> impl Subscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt().with_max_level(filter(level)).with_ansi(ansi).with_writer(writer).finish()
}

/// `{"timestamp":"…","level":"INFO","message":"listening","address":"0.0.0.0:8080","target":"quickio::server"}`.
fn json<W>(level: LogLevel, writer: W) -> impl Subscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_max_level(filter(level)).with_writer(writer);
    builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish()
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    /// What was written, for a test to read.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap();
            std::str::from_utf8(&bytes).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A writer that tells when it was asked to write, and then waits until it is let go.
    struct Stuck {
        asked: Sender<()>,
        go: Receiver<()>,
        sink: Sink,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.asked.send(());
            let _ = self.go.recv();
            self.sink.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_of_everything() {
        tracing::error!(peer = "192.0.2.1:9", "an error");
        tracing::warn!("a warning");
        tracing::info!(shards = 2, "hello \"world\"\n\u{1b}[31mred");
        tracing::debug!("a detail");
        tracing::trace!("a trifle");
    }

    #[test]
    fn levels_are_cut_off() {
        for (level, expected) in [
            (LogLevel::Error, 1),
            (LogLevel::Warn, 2),
            (LogLevel::Info, 3),
            (LogLevel::Debug, 4),
            (LogLevel::Trace, 5),
        ] {
            let sink = Sink::default();
            let (writer, guard) = queue(sink.clone());
            tracing::subscriber::with_default(json(level, writer), log_of_everything);
            drop(guard);
            assert_eq!(sink.lines().len(), expected, "{level:?}");
        }
    }

    #[test]
    fn text_is_one_line_with_its_fields() {
        let sink = Sink::default();
        let (writer, guard) = queue(sink.clone());
        tracing::subscriber::with_default(text(LogLevel::Error, false, writer), log_of_everything);
        drop(guard);
        let lines = sink.lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with("ERROR quickio::log::tests: an error peer=\"192.0.2.1:9\""), "{lines:?}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let sink = Sink::default();
        let (writer, guard) = queue(sink.clone());
        tracing::subscriber::with_default(json(LogLevel::Info, writer), log_of_everything);
        drop(guard);
        let lines = sink.lines();
        let last: serde_json::Value = serde_json::from_str(&lines[2]).unwrap();
        assert_eq!(last["level"], "INFO");
        assert_eq!(last["message"], "hello \"world\"\n\u{1b}[31mred");
        assert_eq!(last["shards"], 2);
        assert_eq!(last["target"], "quickio::log::tests");
        assert!(last["timestamp"].is_string());
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_no_time() {
        let ((asked_end, asked), (go, go_end)) = (channel(), channel());
        let sink = Sink::default();
        let (writer, guard) = queue(Stuck { asked: asked_end, go: go_end, sink: sink.clone() });
        let dropped = guard.dropped_lines();
        let log = |lines: usize| (0..lines).for_each(|n| tracing::info!(n));
        tracing::subscriber::with_default(json(LogLevel::Info, writer), || {
            log(1);
            asked.recv().unwrap(); // The thread holds one line; the queue is empty.
            log(LINES_MAX + 10);
            assert_eq!(dropped.count(), 10);
            drop(go);
            while sink.lines().len() < LINES_MAX + 1 {
                std::thread::yield_now();
            }
            drop(guard);
        });
        let lines = sink.lines();
        assert_eq!(lines.len(), LINES_MAX + 2);
        assert!(lines[LINES_MAX + 1].contains("log lines were dropped"), "{}", lines[LINES_MAX + 1]);
        assert!(lines[LINES_MAX + 1].contains("\"lines\":10"));
    }
}
