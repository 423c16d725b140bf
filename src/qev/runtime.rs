//! The executors: one pinned glommio executor for each shard, and the cores that they are pinned to.
//!
//! A shard's loop is its executor's only task, and it sleeps inside its own ring (`Ring::turn`), not in
//! glommio's reactor: one system call then submits, completes and waits, where parking by an eventfd takes
//! three. `docs/architecture.md` has the measurement.

use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement, PoolPlacement};
use std::io;

/// Memory that glommio registers for file I/O, in bytes, for each executor. It touches all of it at the start
/// (10 MiB unless told otherwise), and a shard does no file I/O.
const EXECUTOR_IO_BYTES: usize = 64 << 10;

/// Entries of glommio's own rings, which a shard does not use.
const EXECUTOR_RING_DEPTH: usize = 8;

/// The cores that this process may run on: its affinity mask, as `taskset` and container engines set it.
pub fn cores() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let cores: Vec<usize> = cores.into_iter().map(|core| core.id).collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// The name of this host.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// An executor that was started.
pub struct Executor<T: Send + 'static>(ExecutorJoinHandle<T>);

/// Starts an executor pinned to `core`, which runs `work` to its end.
///
/// `work` may block its thread: it has the executor for itself.
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
    /// Waits until the work is done. An error means that the executor could not be made, or that it panicked.
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
