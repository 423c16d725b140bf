//! What the server keeps for each application that it has loaded.
//!
//! Handles are looked up in a table that only grows: an old or made-up one finds nothing, and none is ever freed.

use super::abi::{Fault, ServerHandle};
use crate::app::Server;
use crate::limits::C_APPLICATIONS_MAX;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// An application's side of the server.
pub struct Host {
    pub name: String,
    pub settings: BTreeMap<String, String>,
    /// Set by `start`.
    pub server: OnceLock<Server>,
    /// Why its function is about to fail, in its own words.
    failure: Mutex<Option<String>>,
    /// How many things of the application's the server holds.
    held: AtomicUsize,
}

static HOSTS: [OnceLock<Host>; C_APPLICATIONS_MAX] = [const { OnceLock::new() }; C_APPLICATIONS_MAX];
static HOSTS_LEN: AtomicUsize = AtomicUsize::new(0);

impl Host {
    /// A place in the table; `None` where that is full.
    pub fn add(name: String, settings: BTreeMap<String, String>) -> Option<(&'static Host, ServerHandle)> {
        let index = HOSTS_LEN.fetch_add(1, Ordering::Relaxed);
        let place = HOSTS.get(index)?;
        let (server, failure, held) = (OnceLock::new(), Mutex::default(), AtomicUsize::new(0));
        let host = place.get_or_init(|| Host { name, settings, server, failure, held });
        Some((host, ServerHandle { id: index as u64 + 1 }))
    }

    /// The application of a handle.
    pub fn of(handle: ServerHandle) -> Result<&'static Host, Fault> {
        let index = usize::try_from(handle.id).ok().and_then(|id| id.checked_sub(1)).ok_or(Fault::Stale)?;
        HOSTS.get(index).and_then(OnceLock::get).ok_or(Fault::Stale)
    }

    /// The server, from `start` on.
    pub fn server(&self) -> Result<&Server, Fault> {
        self.server.get().ok_or(Fault::NotRunning)
    }

    pub fn fail(&self, why: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub fn take_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Something of the application's is held from now on, until the tie is dropped.
    pub fn tie(&'static self) -> Tie {
        self.held.fetch_add(1, Ordering::Relaxed);
        Tie(self)
    }

    /// Waits until nothing of the application's is held; whether that came. Nothing is where all shards have ended: this
    /// waits only where one was left behind, or where the server could not start.
    pub fn wait_until_released(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        while self.held.load(Ordering::Acquire) > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(RELEASE_POLL);
        }
        true
    }
}

/// How often it is looked whether everything was released.
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// Something of an application's that the server holds.
pub struct Tie(&'static Host);

impl Drop for Tie {
    fn drop(&mut self) {
        // Everything that was done with it comes before whoever sees that it is gone.
        self.0.held.fetch_sub(1, Ordering::Release);
    }
}
