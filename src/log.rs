//! Structured logs on standard error, written by a thread of their own.
//!
//! The thread that logs an event formats the line, adds it to a bounded queue, and never waits. When the queue is
//! full, lines are dropped and counted: a terminal or a pipe that is not read must not block a shard.

use std::io::{self, IsTerminal, Write};

use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogLevel};

/// The maximum number of lines that wait to be written: about 1 MiB.
const LINES_MAX: usize = 8192;

/// The reason why the log could not be started.
#[derive(Debug, Error)]
pub enum LogError {
    /// The process already has a log, which all its threads share.
    #[error("the log has already been started")]
    Started(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// A guard that keeps the log running; it must live as long as `main`. Dropping it writes the queued lines (for at
/// most one second), and a last line with the number of dropped lines, if there are any.
#[must_use = "the log stops when its guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    // The order matters: `Drop` logs the last line, then the worker is stopped.
    dropped: DroppedLines,
    _worker: WorkerGuard,
}

impl Guard {
    /// Returns the counter of lines that were dropped because the queue was full.
    #[must_use]
    pub fn dropped_lines(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let lines = self.dropped.count();
        if lines > 0 {
            tracing::warn!(lines, "log lines were dropped because standard error was not read fast enough");
        }
    }
}

/// The number of lines dropped until now. Any thread may read it.
#[derive(Clone, Debug)]
pub struct DroppedLines(ErrorCounter);

impl DroppedLines {
    /// Returns the number of lines.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.dropped_lines() as u64
    }
}

/// Starts the log of this process, which writes events of `level` and above to standard error. Terminals get colours,
/// unless `NO_COLOR` is set.
///
/// # Errors
///
/// Returns an error if the process already has a log.
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

/// Creates the bounded queue in front of `writer`, and the thread that empties it.
fn queue(writer: impl Write + Send + 'static) -> (NonBlocking, Guard) {
    let builder =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_MAX).thread_name("log");
    let (writer, worker) = builder.finish(writer);
    let dropped = DroppedLines(writer.error_counter());
    (writer, Guard { dropped, _worker: worker })
}

/// Creates a subscriber for lines such as
/// `2026-01-01T00:00:00.000000Z  INFO quickio::server: listening address=0.0.0.0:8080`.
fn text<W>(level: LogLevel, ansi: bool, writer: W) -> impl Subscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt().with_max_level(filter(level)).with_ansi(ansi).with_writer(writer).finish()
}

/// Creates a subscriber for lines such as
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

    /// A writer whose output a test can read.
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

    /// A writer that reports each write to the test, and then blocks until the test releases it.
    struct BlockedWriter {
        started: Sender<()>,
        release: Receiver<()>,
        sink: Sink,
    }

    impl Write for BlockedWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.started.send(());
            let _ = self.release.recv();
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
        tracing::trace!("a trace");
    }

    #[test]
    fn less_severe_levels_are_not_logged() {
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
    fn a_blocked_writer_drops_lines_and_does_not_block_the_caller() {
        let ((started_end, started), (release, release_end)) = (channel(), channel());
        let sink = Sink::default();
        let (writer, guard) =
            queue(BlockedWriter { started: started_end, release: release_end, sink: sink.clone() });
        let dropped = guard.dropped_lines();
        let log = |lines: usize| (0..lines).for_each(|n| tracing::info!(n));
        tracing::subscriber::with_default(json(LogLevel::Info, writer), || {
            log(1);
            started.recv().unwrap(); // The thread holds one line; the queue is empty.
            log(LINES_MAX + 10);
            assert_eq!(dropped.count(), 10);
            drop(release);
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
