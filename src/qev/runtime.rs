//! The executors of the shards, which are pinned glommio executors, and the cores to which they are pinned.
//!
//! The loop of a shard is the only task of its executor. It sleeps inside its own ring (`Ring::turn`) and not in
//! glommio's reactor: one system call then submits, completes and waits, whereas parking with an eventfd takes three.
//! The measurement is in `docs/architecture.md`.

use super::affinity;
use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement, PoolPlacement};
use std::io;

/// The memory that glommio registers for file I/O, in bytes for each executor. Glommio touches all of it at the start.
/// Its default is 10 MiB, but a shard does no file I/O.
const EXECUTOR_IO_BYTES: usize = 64 << 10;

/// The number of entries in glommio's own rings, which a shard does not use.
const EXECUTOR_RING_DEPTH: usize = 8;

/// The cores on which this process may run, and how much of them it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The numbers of the cores: the affinity mask, as set by `taskset` and the CPU sets of container engines.
    pub ids: Vec<usize>,
    /// The number of cores that the process may keep busy: all of them, or fewer if its control group or one of the
    /// groups above has a CPU quota (`docker run --cpus`, limits of Kubernetes, `CPUQuota=`).
    ///
    /// A quota is rounded down, and is at least 1. With more busy shards than the quota pays for, the kernel would stop
    /// all of them at the end of each period, for up to 100 ms.
    pub usable: usize,
}

impl Cores {
    /// Returns the cores of this process.
    #[must_use]
    pub fn of_process() -> Cores {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        let ids: Vec<usize> = ids.into_iter().map(|core| core.id).collect();
        // The standard library reads the quotas of both versions of control groups.
        let quota = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
        Cores::new(ids, quota)
    }

    fn new(ids: Vec<usize>, quota: usize) -> Cores {
        let ids = if ids.is_empty() { vec![0] } else { ids };
        Cores { usable: quota.clamp(1, ids.len()), ids }
    }

    /// Returns whether a CPU quota allows less than all cores.
    #[must_use]
    pub fn have_quota(&self) -> bool {
        self.usable < self.ids.len()
    }

    /// Returns the core to which a shard is pinned, or `None` if the kernel chooses one at any time.
    ///
    /// With a quota, other groups share the cores. If each of them pinned its threads to the first cores, these would be
    /// overloaded and the others idle.
    #[must_use]
    pub fn for_shard(&self, shard: usize) -> Option<usize> {
        (!self.have_quota()).then(|| self.ids[shard % self.ids.len()])
    }
}

/// Returns the name of this host.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A running executor.
pub struct Executor<T: Send + 'static>(ExecutorJoinHandle<T>);

/// Starts an executor that runs `work` to its end, on `core` or on any core.
///
/// `work` may block its thread, because it is alone on the executor.
pub fn spawn<T, W>(name: &str, core: Option<usize>, work: W) -> io::Result<Executor<T>>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    if core.is_some() {
        affinity::release_started_threads();
    }
    LocalExecutorBuilder::new(core.map_or(Placement::Unbound, Placement::Fixed))
        .name(name)
        .io_memory(EXECUTOR_IO_BYTES)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(move || async move {
            if core.is_some() {
                affinity::mark_pinned();
            }
            work()
        })
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

fn io_error<R>(error: GlommioError<R>) -> io::Error {
    match error {
        GlommioError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_limits_the_cores_and_frees_the_shards_from_them() {
        for (ids, quota, usable, cores_of_shards) in [
            (vec![0, 1], 2, 2, [Some(0), Some(1), Some(0)]),
            (vec![2, 3, 4, 5], 4, 4, [Some(2), Some(3), Some(4)]),
            (vec![2, 3, 4, 5], 9, 4, [Some(2), Some(3), Some(4)]),
            (vec![2, 3, 4, 5], 3, 3, [None; 3]),
            (vec![2, 3, 4, 5], 1, 1, [None; 3]),
            (vec![7], 1, 1, [Some(7); 3]),
            (vec![], 1, 1, [Some(0); 3]),
        ] {
            let cores = Cores::new(ids.clone(), quota);
            assert_eq!(cores.usable, usable, "{ids:?}, {quota}");
            assert_eq!([0, 1, 2].map(|shard| cores.for_shard(shard)), cores_of_shards, "{ids:?}, {quota}");
        }
    }
}
