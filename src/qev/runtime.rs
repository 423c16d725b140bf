//! The executors of the shards, which are pinned glommio executors, and the cores to which they are pinned.
//!
//! The loop of a shard is the only task of its executor. It sleeps inside its own ring (`Ring::turn`) and not in
//! glommio's reactor: one system call then submits, completes and waits, whereas parking with an eventfd takes three.
//! The measurement is in `docs/architecture.md`.

use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement, PoolPlacement};
use std::io;

/// The memory that glommio registers for file I/O, in bytes for each executor. Glommio touches all of it at the start.
/// Its default is 10 MiB, but a shard does no file I/O.
const EXECUTOR_IO_BYTES: usize = 64 << 10;

/// The number of entries in glommio's own rings, which a shard does not use.
const EXECUTOR_RING_DEPTH: usize = 8;

/// Returns the cores on which this process may run: its affinity mask, as set by `taskset` and container engines.
pub fn cores() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let cores: Vec<usize> = cores.into_iter().map(|core| core.id).collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Returns the name of this host.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A running executor.
pub struct Executor<T: Send + 'static>(ExecutorJoinHandle<T>);

/// Starts an executor that is pinned to `core` and runs `work` to its end.
///
/// `work` may block its thread, because it is alone on the executor.
pub fn spawn<T, W>(name: &str, core: usize, work: W) -> io::Result<Executor<T>>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(name)
        .io_memory(EXECUTOR_IO_BYTES)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(|| async move { work() })
        .map(Executor)
        .map_err(io_error)
}

impl<T: Send + 'static> Executor<T> {
    /// Waits until the work has ended.
    ///
    /// # Errors
    ///
    /// Fails if the executor could not be created or has panicked.
    pub fn join(self) -> io::Result<T> {
        self.0.join().map_err(io_error)
    }
}

pub(super) fn io_error<R>(error: GlommioError<R>) -> io::Error {
    match error {
        GlommioError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
