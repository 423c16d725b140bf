//! Error numbers of the kernel.

use std::{fmt, io};

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Returns whether the process or the system has no descriptor or memory for another connection.
    pub fn is_exhaustion(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    }

    /// Returns whether an accept failed because of the connection alone: it ended before it was accepted.
    pub fn affects_one_connection(self) -> bool {
        matches!(self.0, libc::ECONNABORTED | libc::EPROTO | libc::EINTR)
    }

    /// Returns whether the operation was cancelled.
    pub fn is_cancelled(self) -> bool {
        self.0 == libc::ECANCELED
    }

    /// Returns whether there was no provided buffer.
    pub fn is_no_buffers(self) -> bool {
        self.0 == libc::ENOBUFS
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
