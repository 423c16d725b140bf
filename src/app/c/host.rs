//! The server's record of each application in C.
//!
//! Handles are looked up in a table that only grows. An invalid handle finds nothing, and no record is ever freed.

use super::abi::{Fault, ServerHandle};
use crate::app::Server;
use crate::limits::C_APPLICATIONS_MAX;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The host side of one application: its settings, its handle to the server, and what the server holds of it.
pub struct Host {
    pub name: String,
    pub settings: BTreeMap<String, String>,
    /// Set when the application is started.
    pub server: OnceLock<Server>,
    /// The application's own description of the failure that its function is about to return.
    failure: Mutex<Option<String>>,
    /// The number of pointers of the application that the server holds.
    held: AtomicUsize,
}

static HOSTS: [OnceLock<Host>; C_APPLICATIONS_MAX] = [const { OnceLock::new() }; C_APPLICATIONS_MAX];
static HOSTS_LEN: AtomicUsize = AtomicUsize::new(0);

impl Host {
    /// Adds an application. Returns its record and its handle, or `None` if the table is full.
    pub fn add(name: String, settings: BTreeMap<String, String>) -> Option<(&'static Host, ServerHandle)> {
        let index = HOSTS_LEN.fetch_add(1, Ordering::Relaxed);
        let entry = HOSTS.get(index)?;
        let (server, failure, held) = (OnceLock::new(), Mutex::default(), AtomicUsize::new(0));
        let host = entry.get_or_init(|| Host { name, settings, server, failure, held });
        Some((host, ServerHandle { id: index as u64 + 1 }))
    }

    /// Returns the application of a handle.
    ///
    /// # Errors
    ///
    /// [`Fault::Stale`] if the handle belongs to no application.
    pub fn of(handle: ServerHandle) -> Result<&'static Host, Fault> {
        let index = usize::try_from(handle.id).ok().and_then(|id| id.checked_sub(1)).ok_or(Fault::Stale)?;
        HOSTS.get(index).and_then(OnceLock::get).ok_or(Fault::Stale)
    }

    /// Returns the handle to the server.
    ///
    /// # Errors
    ///
    /// [`Fault::NotRunning`] before the application is started.
    pub fn server(&self) -> Result<&Server, Fault> {
        self.server.get().ok_or(Fault::NotRunning)
    }

    /// Records the application's description of a failure.
    pub fn set_failure(&self, why: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Removes and returns the application's description of a failure.
    pub fn take_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Counts a pointer of the application that the server holds, until the returned value is dropped.
    pub fn hold(&'static self) -> HostHold {
        self.held.fetch_add(1, Ordering::Relaxed);
        HostHold(self)
    }

    /// Waits until the server holds nothing of the application. Returns `false` if that takes longer than `timeout`.
    ///
    /// Nothing is held once all shards have ended. This waits only if a shard did not end in time, or if the server
    /// could not start.
    pub fn wait_until_released(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.held.load(Ordering::Acquire) > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(RELEASE_POLL);
        }
        true
    }
}

/// The pause between two checks whether everything has been released.
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// A pointer of an application that the server holds and counts.
pub struct HostHold(&'static Host);

impl Drop for HostHold {
    fn drop(&mut self) {
        // Everything that was done with the pointer happens before the thread that waits sees the new count.
        self.0.held.fetch_sub(1, Ordering::Release);
    }
}
