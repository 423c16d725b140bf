//! Writing to standard output and standard error without panics, and without waiting for ever for somebody to read.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::json;
use crate::config::{LogFormat, LogLevel};

/// The longest time that a message that is not part of the log may wait until it is written.
const WRITE_WAIT: Duration = Duration::from_secs(1);

/// The format of [`report`] is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Sets the format of [`report`]. [`start`](super::start) does this too.
pub fn set_report_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Writes one message to standard error, such as the error that ends the program: `quickio: MESSAGE`, or an object like
/// those of the log in JSON. The message does not go through the log, which may not run. If nobody reads standard error,
/// this returns after a second; if it is closed or full, the message is lost.
pub fn report(message: &dyn Display) {
    let line = if IS_JSON.load(Ordering::Relaxed) {
        json_line(message)
    } else {
        format!("quickio: {message}\n").into_bytes()
    };
    // The thread of the log may be writing, and block there for ever: nobody reads.
    let _ = write_in_time(io::stderr(), line);
}

/// Writes a text to standard output, and waits for at most a second.
///
/// # Errors
///
/// If the text cannot be written, or is not written in time.
pub fn write_stdout_in_time(text: impl Into<Vec<u8>>) -> io::Result<()> {
    write_in_time(io::stdout(), text.into())
}

/// Writes a text to standard output, and waits as long as it takes.
///
/// # Errors
///
/// If the text cannot be written: the output is full, or its reader has ended.
pub fn write_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn write_in_time(mut stream: impl Write + Send + 'static, bytes: Vec<u8>) -> io::Result<()> {
    let (written_end, written) = channel();
    let write = move || {
        let result = stream.write_all(&bytes).and_then(|()| stream.flush());
        // This fails only if the time is over.
        let _ = written_end.send(result);
    };
    thread::Builder::new().name("write".into()).spawn(write)?;
    match written.recv_timeout(WRITE_WAIT) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the thread that writes has ended")),
    }
}

fn json_line(message: &dyn Display) -> Vec<u8> {
    let line = Collected::default();
    let subscriber = json(LogLevel::Error, line.clone());
    tracing::subscriber::with_default(subscriber, || tracing::error!(target: "quickio", "{message}"));
    line.take()
}

/// The bytes that a subscriber writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Collected(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Collected {
    /// Takes the bytes.
    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Collected {
    type Writer = Collected;

    fn make_writer(&'a self) -> Collected {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Receiver;
    use std::time::Instant;

    /// A stream that nobody reads, until the test ends.
    struct Blocked(Receiver<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_that_nobody_reads_delays_a_message_for_a_second() {
        let (_release, blocked) = channel();
        let before = Instant::now();
        let error = write_in_time(Blocked(blocked), b"x".to_vec()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((WRITE_WAIT..WRITE_WAIT * 10).contains(&before.elapsed()));
    }

    #[test]
    fn a_message_is_written_whole() {
        let written = Collected::default();
        write_in_time(written.clone(), b"a message\n".to_vec()).unwrap();
        assert_eq!(written.take(), b"a message\n");
    }

    #[test]
    fn an_error_in_json_is_an_object_like_those_of_the_log() {
        let line = json_line(&"no \"such\"\nsetting\u{1b}");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(object["level"], "ERROR");
        assert_eq!(object["message"], "no \"such\"\nsetting\u{1b}");
        assert_eq!(object["target"], "quickio");
        assert!(object["timestamp"].is_string());
    }
}
