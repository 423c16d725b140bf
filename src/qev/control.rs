//! The control executor: one glommio executor for everything that does I/O and is not the data plane.
//!
//! The executor runs on one thread that is not pinned to a core. Tasks wait in glommio's reactor. While all of them
//! wait, the thread sleeps in the kernel. It never spins.
//!
//! Any thread can start a service with [`ControlExecutor::spawn`]. The tasks of a service use [`Spawner::spawn`],
//! [`AsyncListener`], [`AsyncStream`], [`sleep`] and [`timeout`]. Other threads reach a task through the channels of
//! `futures-channel`: waking a task from another thread wakes the executor.
//!
//! Four properties of glommio 0.9 shape this file:
//!
//! - **Task handles.** Dropping the handle of a completed task frees the task if its count of wakers is zero. A thread
//!   that drops the last waker reads the task once more after it has decremented the count, and may read freed memory.
//!   Therefore every task is detached before it runs. The handle of the executor's root task cannot be detached: only
//!   tasks of this executor wake the root, and none of its wakers reaches another thread.
//! - **The end.** Tasks that wait when their executor ends are leaked, together with their sockets. Therefore each task
//!   also waits for the stop of the executor, and the root returns when the last task has been dropped.
//! - **Panics.** A panic in a task ends the executor. Therefore panics are caught in each task.
//! - **Accepted sockets** are not closed on exec. [`AsyncListener::accept`] sets the flag at once. A worker process
//!   that is forked in the few microseconds before that inherits the descriptor. This does no harm: [`AsyncStream`]
//!   shuts its connection down when it is dropped, and does not rely on its descriptor being the last one.

mod permits;
mod tcp;
#[cfg(test)]
mod tests;

pub use permits::{Permit, Permits};
pub use tcp::{AsyncListener, AsyncStream, BoundSocket};

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_lite::{FutureExt, StreamExt, future};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement, timer};

use super::runtime::io_error;

/// The size in bytes of the memory that glommio registers with the kernel for file I/O: the minimum. The control
/// executor does no file I/O, and registered memory counts towards `ulimit -l`.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// The number of entries of each of glommio's three submission rings. A full ring is submitted and filled again: this
/// bounds neither connections nor operations.
const RING_ENTRIES: usize = 128;

/// The number of threads for blocking calls. No task uses them, but glommio needs at least one.
const BLOCKING_THREADS: usize = 1;

/// A running control executor. Dropping it drops every task and waits for the thread to end.
pub struct ControlExecutor {
    /// Closed by dropping it, which stops the executor.
    services: Option<mpsc::Sender<Service>>,
    /// Taken when the handle is dropped.
    thread: Option<ExecutorJoinHandle<()>>,
}

/// A function that starts the first task of a service on the executor.
type Service = Box<dyn FnOnce(&Spawner) + Send>;

impl ControlExecutor {
    /// Starts an executor on a thread of this name.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started, or if the kernel refuses the rings or the locked memory.
    pub fn start(name: &str) -> io::Result<ControlExecutor> {
        let (services, queue) = mpsc::channel(0);
        let (ready, is_ready) = sync_channel(1);
        let thread = LocalExecutorBuilder::new(Placement::Unbound)
            .name(name)
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_ENTRIES)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
            .spawn(move || async move {
                // The starting thread waits for this message.
                let _ = ready.send(());
                run(queue).await;
            })
            .map_err(io_error)?;
        if is_ready.recv().is_err() {
            let ended = io::Error::other("the executor ended at once");
            return Err(thread.join().map_err(io_error).err().unwrap_or(ended));
        }
        Ok(ControlExecutor { services: Some(services), thread: Some(thread) })
    }

    /// Runs a service. `make` is called on the executor, and returns the first task of the service.
    pub fn spawn<F, Task>(&self, make: F)
    where
        F: FnOnce(Spawner) -> Task + Send + 'static,
        Task: Future<Output = ()> + 'static,
    {
        let service: Service = Box::new(|spawner| spawner.spawn(make(spawner.clone())));
        // Each clone of the sender has a slot of its own in the channel.
        let sent = self.services.clone().map(|mut services| services.try_send(service));
        if !matches!(sent, Some(Ok(()))) {
            tracing::error!("a service cannot be started: the control executor has ended");
        }
    }
}

impl Drop for ControlExecutor {
    fn drop(&mut self) {
        self.services = None;
        let ended = self.thread.take().map(ExecutorJoinHandle::join);
        if let Some(Err(error)) = ended {
            tracing::error!(error = %io_error(error), "the control executor failed");
        }
    }
}

impl fmt::Debug for ControlExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlExecutor").finish_non_exhaustive()
    }
}

/// The executor's root task: starts services until the handle is dropped, then stops all tasks and waits for them.
async fn run(mut services: mpsc::Receiver<Service>) {
    let (alive, mut all_ended) = mpsc::channel(0);
    let spawner = Spawner(Rc::new(Tasks { stops: RefCell::new(Some(Stops::default())), _alive: alive }));
    let starts = async move {
        while let Some(service) = services.next().await {
            service(&spawner);
        }
        spawner.stop();
    };
    glommio::spawn_local(starts).detach();
    let _none: Option<Infallible> = all_ended.next().await;
}

/// Starts tasks on the executor that it belongs to.
#[derive(Clone)]
pub struct Spawner(Rc<Tasks>);

struct Tasks {
    /// `None` if the executor is stopping.
    stops: RefCell<Option<Stops>>,
    /// Each task holds a reference to `Tasks`. When the last task has been dropped, the channel closes, which ends the
    /// root task.
    _alive: mpsc::Sender<Infallible>,
}

/// The senders that stop a task when they are dropped, by the number of the task.
#[derive(Default)]
struct Stops {
    next_id: u64,
    senders: HashMap<u64, oneshot::Sender<Infallible>>,
}

impl Spawner {
    /// Runs a task until it ends or the executor stops. A task that panics ends alone.
    ///
    /// The task is dropped at once if the executor is stopping.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let Some((id, stopped)) = self.register() else { return };
        let registered = Registered { spawner: self.clone(), id };
        // Boxed, because each of the futures around it would otherwise reserve its size once more.
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
        let task = async move {
            let _registered = registered;
            let stopped = async {
                let Err(oneshot::Canceled) = stopped.await;
            };
            if AssertUnwindSafe(future::or(stopped, task)).catch_unwind().await.is_err() {
                // The panic hook has reported the message and the place.
                tracing::error!("a task of the control executor panicked and was ended");
            }
        };
        glommio::spawn_local(task).detach();
    }

    fn register(&self) -> Option<(u64, oneshot::Receiver<Infallible>)> {
        let mut stops = self.0.stops.borrow_mut();
        let stops = stops.as_mut()?;
        let (stop, stopped) = oneshot::channel();
        let id = stops.next_id;
        stops.next_id += 1;
        stops.senders.insert(id, stop);
        Some((id, stopped))
    }

    fn stop(&self) {
        // Dropped after the borrow has ended, because it wakes tasks.
        let stops = self.0.stops.borrow_mut().take();
        drop(stops);
    }
}

/// A task's entry in [`Stops`]. Dropping it removes the entry.
struct Registered {
    spawner: Spawner,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(stops) = self.spawner.0.stops.borrow_mut().as_mut() {
            stops.senders.remove(&self.id);
        }
    }
}

/// Waits for the given time.
pub async fn sleep(time: Duration) {
    timer::Timer::new(time).await;
}

/// Returns the output of `work`, or `None` if it takes longer than `time`.
pub async fn timeout<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let expires = async {
        sleep(time).await;
        None
    };
    future::or(async { Some(work.await) }, expires).await
}
