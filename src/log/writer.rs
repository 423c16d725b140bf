//! The stream of the log, which may fail and recover: a full disk, a limit on the size of files, a reader that has ended.

use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::Duration;

use super::LineCount;

/// The pause before the next attempt to write to a stream that does not block and takes no more at present.
const RETRY: Duration = Duration::from_millis(10);

/// Writes lines to a stream, and counts those that cannot be written.
///
/// Invariant: if the last write failed, `since` has the number of lines that were lost since the last line that was
/// written, and is not 0.
pub(super) struct LineWriter<W> {
    stream: W,
    /// The lines that could not be written, for the statistics.
    failed: LineCount,
    /// The lines that were lost since the last line that was written.
    since: u64,
    /// The error of the last write that failed.
    error: Option<io::Error>,
    /// `true` if the stream ends with a part of a line.
    is_torn: bool,
}

/// The lines that could not be written, reported when the stream works again.
#[derive(Debug)]
pub(super) struct Recovered {
    pub lines: u64,
    pub error: io::Error,
}

impl<W: Write> LineWriter<W> {
    pub fn new(stream: W, failed: LineCount) -> LineWriter<W> {
        LineWriter { stream, failed, since: 0, error: None, is_torn: false }
    }

    /// Writes a line, with its end. If lines before it could not be written, and this one could, returns their number.
    pub fn write(&mut self, line: &[u8]) -> Option<Recovered> {
        match self.try_write(line) {
            Ok(()) => {
                let lines = std::mem::take(&mut self.since);
                self.error.take().map(|error| Recovered { lines, error })
            }
            Err(error) => {
                self.since += 1;
                self.failed.add_one();
                self.error = Some(error);
                None
            }
        }
    }

    pub fn flush(&mut self) {
        // The process ends: the error can be reported to nobody.
        let _ = self.stream.flush();
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_all(b"\n")?;
            self.is_torn = false;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len();
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.is_torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The stream was given to this process, and another one has changed its mode.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(error) => {
                    self.is_torn |= bytes.len() < len;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    /// The result of one write to a stream: the number of bytes that it takes, or its error.
    type Step = Result<usize, ErrorKind>;

    /// The steps of a stream, the text that is then written for three lines, the reports, and the lines that failed.
    type Case = (&'static [Step], &'static str, &'static [(usize, u64)], u64);

    /// A stream that does what a test says: takes at most so many bytes, or fails. After that it takes everything.
    #[derive(Clone, Default)]
    struct Stream(Rc<RefCell<(VecDeque<Step>, Vec<u8>)>>);

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (plan, written) = &mut *self.0.borrow_mut();
            let len = plan.pop_front().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
            written.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The text that is written for the lines `0`, `1` and so on, the reports, and the number of lines that failed.
    fn write(plan: &[Step], lines: usize) -> (String, Vec<(usize, u64)>, u64) {
        let stream = Stream::default();
        stream.0.borrow_mut().0.extend(plan);
        let failed = LineCount::default();
        let mut writer = LineWriter::new(stream.clone(), failed.clone());
        let mut reports = Vec::new();
        for n in 0..lines {
            let report = writer.write(format!("line {n}\n").as_bytes());
            reports.extend(report.map(|report| (n, report.lines)));
        }
        let written = String::from_utf8(stream.0.borrow().1.clone()).unwrap();
        (written, reports, failed.count())
    }

    #[test]
    fn lines_are_lost_while_the_stream_fails_and_counted() {
        const FULL: Step = Err(ErrorKind::StorageFull);
        const CASES: &[Case] = &[
            (&[], "line 0\nline 1\nline 2\n", &[], 0),
            (&[FULL], "line 1\nline 2\n", &[(1, 1)], 1),
            (&[Ok(99), FULL, FULL], "line 0\n", &[], 2),
            (&[FULL, Ok(99), FULL], "line 1\n", &[(1, 1)], 2),
            // The rest of a line cannot be written: the next one begins on a line of its own.
            (&[Ok(3), FULL], "lin\nline 1\nline 2\n", &[(1, 1)], 1),
            (&[Ok(3), FULL, FULL], "lin\nline 2\n", &[(2, 2)], 2),
            (&[Ok(3), FULL, Ok(1), FULL], "lin\nline 2\n", &[(2, 2)], 2),
            (&[Ok(3), Ok(1), Ok(2)], "line 0\nline 1\nline 2\n", &[], 0),
            (&[Ok(0)], "line 1\nline 2\n", &[(1, 1)], 1),
            (&[Err(ErrorKind::Interrupted), Err(ErrorKind::WouldBlock)], "line 0\nline 1\nline 2\n", &[], 0),
        ];
        for (plan, written, reports, failed) in CASES {
            assert_eq!(write(plan, 3), (written.to_string(), reports.to_vec(), *failed), "{plan:?}");
        }
    }
}
