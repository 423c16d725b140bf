//! The doorbell of a ring, which wakes it from any thread.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// The handle that wakes a ring from any thread.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<File>);

impl Doorbell {
    pub(super) fn new() -> io::Result<Doorbell> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Doorbell(Arc::new(File::from(descriptor))))
    }

    /// Wakes the ring, with one system call. Should be used only if the ring sleeps.
    pub fn ring(&self) {
        // The write cannot fail: each read resets the counter, which would overflow only after 2^64-2 writes.
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
