//! Structured logs on standard error, written by a thread of their own.
//!
//! The thread that logs an event formats the line, adds it to a bounded queue, and never waits. When the queue is
//! full, lines are dropped and counted: a terminal or a pipe that is not read must not block a shard.
//!
//! Lines that peers can cause are bounded, see `throttle`. The stream may fail and recover, see `writer`.

mod escape;
mod panics;
mod streams;
mod throttle;
mod writer;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGXFSZ;
use signal_hook::flag;
use thiserror::Error;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;

use crate::config::{LogFormat, LogLevel};
pub(crate) use escape::Escaped;
pub use streams::{report, set_report_format, write_stdout, write_stdout_in_time};
pub(crate) use throttle::{admit, throttle};
use writer::{LineWriter, Recovered};

/// The maximum number of lines that wait to be written: about 1 MiB.
const LINES_MAX: usize = 8192;

/// How long the end of the process may be delayed to write the queued lines.
const END_WAIT: Duration = Duration::from_secs(1);

/// The interval at which the end of the process tries again to add to a full queue.
const END_RETRY: Duration = Duration::from_millis(1);

/// The reason why the log could not be started.
#[derive(Debug, Error)]
pub enum LogError {
    /// The process already has a log, which all its threads share.
    #[error("the log has already been started")]
    Started(#[from] tracing::subscriber::SetGlobalDefaultError),

    /// The thread that writes the log, or the handler of SIGXFSZ, could not be started.
    #[error("no thread for the log: {0}")]
    Thread(#[from] io::Error),
}

/// A guard that keeps the log running; it must live as long as `main`. Dropping it writes the queued lines (for at
/// most one second), and a last line with the number of dropped lines, if there are any.
#[must_use = "the log stops when its guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    queue: LineQueue,
    failed: LineCount,
    level: LevelHandle,
    /// Disconnected when the thread has written all lines.
    written: Receiver<()>,
}

impl Guard {
    /// Returns the counter of lines that were dropped because the queue was full.
    #[must_use]
    pub fn dropped_lines(&self) -> LineCount {
        self.queue.dropped.clone()
    }

    /// Returns the handle that changes the level.
    #[must_use]
    pub fn level(&self) -> LevelHandle {
        self.level.clone()
    }

    /// Returns the counter of lines that could not be written.
    #[must_use]
    pub fn failed_lines(&self) -> LineCount {
        self.failed.clone()
    }
}

/// The handle that changes the level while the log is running.
#[derive(Clone)]
pub struct LevelHandle(Arc<dyn Fn(LogLevel) + Send + Sync>);

impl LevelHandle {
    fn new<S: 'static>(handle: reload::Handle<LevelFilter, S>) -> LevelHandle {
        LevelHandle(Arc::new(move |level| {
            // This fails only if the log has ended.
            let _ = handle.reload(filter(level));
        }))
    }

    /// Returns a handle without an effect.
    fn none() -> LevelHandle {
        LevelHandle(Arc::new(|_| ()))
    }

    /// Logs events of `level` and above from now on.
    pub fn set(&self, level: LogLevel) {
        (self.0)(level);
    }
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelHandle").finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        throttle::log_all();
        let lines = self.queue.dropped.count();
        if lines > 0 {
            tracing::warn!(lines, "log lines were dropped because standard error was not read fast enough");
        }
        let deadline = Instant::now() + END_WAIT;
        while let Err(TrySendError::Full(_)) = self.queue.sender.try_send(Entry::End) {
            if Instant::now() > deadline {
                return;
            }
            thread::sleep(END_RETRY);
        }
        let _ = self.written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// A number of lines, for example of those that were dropped until now. Any thread may read it.
#[derive(Clone, Debug, Default)]
pub struct LineCount(Arc<AtomicU64>);

impl LineCount {
    /// Returns the number of lines.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the number of lines that peers caused and that were counted instead of being logged.
#[must_use]
pub fn suppressed_lines() -> u64 {
    throttle::suppressed_lines()
}

/// The bounded queue of lines, as a writer that never blocks. Each write must be a whole line.
#[derive(Clone, Debug)]
struct LineQueue {
    sender: SyncSender<Entry>,
    dropped: LineCount,
}

/// An entry of the queue.
#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Ends the thread that writes the log.
    End,
}

impl Write for &LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Entry::Line(line.to_vec())).is_err() {
            self.dropped.add_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = &'a LineQueue;

    fn make_writer(&'a self) -> &'a LineQueue {
        self
    }
}

/// Starts the log of this process, which writes events of `level` and above to standard error. Terminals get colours,
/// unless `NO_COLOR` is set.
///
/// # Errors
///
/// Returns an error if the process already has a log, or if the thread of the log cannot be started.
pub fn start(level: LogLevel, format: LogFormat) -> Result<Guard, LogError> {
    // Without a handler the signal ends the process when the log has reached the limit on the size of files.
    flag::register(SIGXFSZ, Arc::default())?;
    set_report_format(format);
    let ansi =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (writer, mut guard) = queue(io::stderr(), ansi)?;
    guard.level = match format {
        LogFormat::Text => {
            let (subscriber, handle) = changeable_text(level, ansi, writer);
            tracing::subscriber::set_global_default(subscriber)?;
            handle
        }
        LogFormat::Json => {
            let (subscriber, handle) = changeable_json(level, writer);
            tracing::subscriber::set_global_default(subscriber)?;
            handle
        }
    };
    panics::log_panics();
    Ok(guard)
}

/// Creates the bounded queue in front of `writer`, and the thread that empties it.
fn queue(writer: impl Write + Send + 'static, has_colours: bool) -> io::Result<(LineQueue, Guard)> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    let (written_end, written) = channel();
    let failed = LineCount::default();
    let writer = LineWriter::new(writer, failed.clone());
    thread::Builder::new().name("log".into()).spawn(move || {
        write_lines(&receiver, writer, has_colours);
        drop(written_end);
    })?;
    let queue = LineQueue { sender, dropped: LineCount::default() };
    Ok((queue.clone(), Guard { queue, failed, level: LevelHandle::none(), written }))
}

/// Writes lines until the queue ends, and logs the summaries of lines that were counted.
fn write_lines(receiver: &Receiver<Entry>, mut writer: LineWriter<impl Write>, has_colours: bool) {
    loop {
        // A summary is a line of the queue.
        let entry = match throttle::log_due() {
            Some(wait) => receiver.recv_timeout(wait),
            None => receiver.recv().map_err(RecvTimeoutError::from),
        };
        match entry {
            Ok(Entry::Line(line)) => {
                if let Some(Recovered { lines, error }) = writer.write(&escape::contained(&line, has_colours))
                {
                    tracing::warn!(lines, %error, "log lines were lost because standard error could not be written");
                }
            }
            Ok(Entry::End) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    writer.flush();
}

/// Creates a subscriber for lines such as
/// `2026-01-01T00:00:00.000000Z  INFO quickio::server: listening address=0.0.0.0:8080`.
fn changeable_text<W>(level: LogLevel, ansi: bool, writer: W) -> (impl Subscriber, LevelHandle)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer);
    (tracing_subscriber::registry().with(filter).with(lines), LevelHandle::new(handle))
}

/// Creates a subscriber for lines such as
/// `{"timestamp":"…","level":"INFO","message":"listening","address":"0.0.0.0:8080","target":"quickio::server"}`.
fn changeable_json<W>(level: LogLevel, writer: W) -> (impl Subscriber, LevelHandle)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
    (tracing_subscriber::registry().with(filter).with(lines), LevelHandle::new(handle))
}

/// As [`changeable_json`], with a level that stays.
fn json<W>(level: LogLevel, writer: W) -> impl Subscriber
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    changeable_json(level, writer).0
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
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

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
            let (writer, guard) = queue(sink.clone(), false).unwrap();
            tracing::subscriber::with_default(json(level, writer), log_of_everything);
            drop(guard);
            assert_eq!(sink.lines().len(), expected, "{level:?}");
        }
    }

    #[test]
    fn the_level_can_change_while_the_log_is_running() {
        let sink = Sink::default();
        let (writer, guard) = queue(sink.clone(), false).unwrap();
        let (subscriber, level) = changeable_json(LogLevel::Error, writer);
        tracing::subscriber::with_default(subscriber, || {
            for (next, lines) in [(LogLevel::Debug, 1), (LogLevel::Warn, 1 + 4), (LogLevel::Error, 1 + 4 + 2)]
            {
                log_of_everything();
                level.set(next);
                while sink.lines().len() < lines {
                    thread::yield_now();
                }
            }
        });
        drop(guard);
        assert_eq!(sink.lines().len(), 1 + 4 + 2);
    }

    #[test]
    fn text_is_one_line_with_its_fields() {
        let sink = Sink::default();
        let (writer, guard) = queue(sink.clone(), false).unwrap();
        tracing::subscriber::with_default(
            changeable_text(LogLevel::Error, false, writer).0,
            log_of_everything,
        );
        drop(guard);
        let lines = sink.lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with("ERROR quickio::log::tests: an error peer=\"192.0.2.1:9\""), "{lines:?}");
    }

    #[test]
    fn no_field_of_a_text_has_a_sequence_for_a_terminal() {
        let sink = Sink::default();
        let (writer, guard) = queue(sink.clone(), false).unwrap();
        tracing::subscriber::with_default(changeable_text(LogLevel::Error, false, writer).0, || {
            let text = "\u{1b}[2J\u{9b}2J\nERROR forged";
            tracing::error!(text, shown = %text, "message {text}");
        });
        drop(guard);
        let written = sink.lines().join("\n");
        assert!(!written.contains(['\u{1b}', '\u{9b}']) && !written.contains("\nERROR"), "{written:?}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let sink = Sink::default();
        let (writer, guard) = queue(sink.clone(), false).unwrap();
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
            queue(BlockedWriter { started: started_end, release: release_end, sink: sink.clone() }, false)
                .unwrap();
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
        // Other tests of this process may have lines that were counted, whose summaries are written too.
        let mut last = lines[LINES_MAX + 1..].iter().filter(|line| line.contains("log lines were dropped"));
        assert!(last.next().is_some_and(|line| line.contains("\"lines\":10")), "{:?}", lines.last());
        assert!(last.next().is_none());
    }

    #[test]
    fn a_writer_that_never_recovers_delays_the_end_only_for_a_second() {
        let ((started_end, started), (_release, release_end)) = (channel(), channel());
        let sink = Sink::default();
        let writer = BlockedWriter { started: started_end, release: release_end, sink: sink.clone() };
        let (writer, guard) = queue(writer, false).unwrap();
        tracing::subscriber::with_default(json(LogLevel::Info, writer), || {
            (0..LINES_MAX + 10).for_each(|n| tracing::info!(n));
            started.recv().unwrap();
            let before = Instant::now();
            drop(guard);
            assert!((END_WAIT..END_WAIT * 10).contains(&before.elapsed()));
        });
        assert!(sink.lines().is_empty());
    }
}
