//! Threads that an application starts on a shard.
//!
//! A shard is pinned to a core, and a thread inherits the cores of the thread that starts it. A thread that a handler,
//! hook, callback, timer or `register` starts with [`std::thread::spawn`] would run on the shard's core only and compete
//! with the shard for it. Start it with [`spawn`] instead, or call [`unpin`] on it first.
//!
//! Threads that [`Application::start`](super::Application::start) starts are not concerned.

use rustix::process::getpid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that may run on all cores on which the process may run.
///
/// ```
/// let thread = quickio::app::threads::spawn("sums", || (1..=10).sum::<u32>())?;
/// assert_eq!(thread.join().unwrap(), 55);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// The kernel refuses another thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        // If it fails, the thread runs on the core of the shard.
        let _ = unpin();
        run()
    })
}

/// Lets the calling thread run on all cores on which the process may run: those of its main thread. For the threads that
/// a library starts, for example in the start handler of a thread pool.
///
/// # Errors
///
/// The kernel refuses it.
pub fn unpin() -> io::Result<()> {
    let cores = sched_getaffinity(Some(getpid()))?;
    Ok(sched_setaffinity(None, &cores)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::CpuSet;

    /// A thread that is pinned as a shard is starts others.
    #[test]
    fn threads_of_a_pinned_thread_run_on_all_cores_of_the_process() {
        let all = sched_getaffinity(Some(getpid())).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap();
        std::thread::spawn(move || {
            let mut one = CpuSet::new();
            one.set(first);
            sched_setaffinity(None, &one).unwrap();
            let cores = || sched_getaffinity(None).unwrap();
            assert!(std::thread::spawn(cores).join().unwrap() == one, "what the standard library does");
            assert!(spawn("test", cores).unwrap().join().unwrap() == all);
            unpin().unwrap();
            assert!(cores() == all);
        })
        .join()
        .unwrap();
    }
}
