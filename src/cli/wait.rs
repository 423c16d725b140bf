//! Waits for sockets, streams and signals at once.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// The signals that end a command: it closes its connection first. A second one ends it at once.
#[derive(Debug)]
pub(super) struct EndSignals {
    /// Readable as soon as a signal has come.
    received: UnixStream,
    /// The number of the signal, or 0.
    number: Arc<AtomicUsize>,
}

impl EndSignals {
    /// Begins to catch SIGINT and SIGTERM.
    pub(super) fn catch() -> io::Result<EndSignals> {
        let (received, sent) = UnixStream::pair()?;
        let number = Arc::new(AtomicUsize::new(0));
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal arms what the second one does.
            flag::register_conditional_default(signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register_usize(signal, Arc::clone(&number), signal as usize)?;
            low_level::pipe::register(signal, sent.try_clone()?)?;
        }
        Ok(EndSignals { received, number })
    }

    /// Returns the signal that has come.
    pub(super) fn received(&self) -> Option<i32> {
        match self.number.load(Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }

    /// Waits until one of the descriptors is ready, a signal has come or the time is over. Returns the events of each
    /// descriptor, or the signal.
    pub(super) fn wait<const N: usize>(
        &self,
        fds: [(Option<BorrowedFd<'_>>, PollFlags); N],
        until: Option<Instant>,
    ) -> io::Result<Result<[PollFlags; N], i32>> {
        // A descriptor that is not waited for has no events.
        let own = self.received.as_fd();
        let mut polled: Vec<PollFd<'_>> = fds
            .iter()
            .map(|(fd, events)| {
                let events = if fd.is_some() { *events } else { PollFlags::empty() };
                PollFd::from_borrowed_fd(fd.unwrap_or(own), events)
            })
            .collect();
        polled.push(PollFd::from_borrowed_fd(own, PollFlags::IN));
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec::try_from(left).expect("a duration of hours"));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(signal) = self.received() {
            return Ok(Err(signal));
        }
        let ready = |at: usize| if fds[at].0.is_some() { polled[at].revents() } else { PollFlags::empty() };
        Ok(Ok(std::array::from_fn(ready)))
    }
}

/// Ends the process as the signal would have done if it had not been caught, so that shells see why.
pub(super) fn end_by(signal: i32) -> ! {
    let _ = low_level::emulate_default_handler(signal);
    // Only a signal that the process blocks returns here.
    std::process::exit(128 + signal)
}
