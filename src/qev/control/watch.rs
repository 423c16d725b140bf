//! Directories whose changes wake a task.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::io;
use std::path::PathBuf;
use tokio::net::unix::pipe::Receiver;

/// The size of a read in bytes: at least one event with the longest name.
const READ_BYTES: usize = 4096;

/// A watch over directories, by inotify(7). It costs nothing while nothing changes in them.
///
/// The descriptor of inotify is read as a pipe is, and registered with the executor as one.
pub struct DirectoryWatch(Receiver);

impl DirectoryWatch {
    /// Watches directories on the executor of the calling task: files and links that appear in them, are written, renamed,
    /// or get other permissions.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read, or if the limits of the user for inotify are used up.
    pub fn new(directories: &[PathBuf]) -> io::Result<DirectoryWatch> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let changes = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        for directory in directories {
            inotify::add_watch(&watch, directory, changes)?;
        }
        Receiver::from_owned_fd_unchecked(watch).map(DirectoryWatch)
    }

    /// Waits for a change since the last call.
    ///
    /// # Errors
    ///
    /// If the kernel has ended the watch.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            if discard_events(&self.0)? {
                return Ok(());
            }
        }
    }
}

/// Reads everything that the kernel has to tell. Returns whether it was anything.
fn discard_events(watch: &Receiver) -> io::Result<bool> {
    let mut has_changed = false;
    let mut events = [0; READ_BYTES];
    loop {
        match watch.try_read(&mut events) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => has_changed = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(has_changed),
            Err(error) => return Err(error),
        }
    }
}
