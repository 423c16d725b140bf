//! The control executor: a single-threaded tokio runtime for everything that does I/O and is not the data plane.
//!
//! The runtime runs on one thread that is not pinned to a core. While all of its tasks wait, the thread sleeps in
//! `epoll_wait` without a timeout, unless a task waits for a time. It never spins, and it has no helper threads.
//!
//! Any thread can start a service with [`ControlExecutor::spawn`]. The tasks of a service use [`Spawner::spawn`],
//! [`AsyncListener`], [`AsyncStream`], [`TlsAcceptor`], [`DirectoryWatch`], [`sleep`] and [`timeout`]. Other threads reach a task through the channels of
//! `futures-channel`: waking a task from another thread wakes the executor.
//!
//! Three properties of tokio matter to the services:
//!
//! - **The end.** Tasks that wait when the runtime is dropped are dropped with it, together with their sockets.
//!   Handles of tasks and wakers may outlive the runtime on any thread.
//! - **Panics.** A panic in a task ends only this task.
//! - **Fairness.** A task that never has to wait yields on its own: after 128 reads and writes, its sockets report that
//!   they are not ready.

mod client;
mod permits;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod watch;

pub use client::ClientStream;
pub use permits::{Permit, Permits};
pub use tcp::{AsyncListener, AsyncStream, BoundSocket};
pub use tls::{HandshakeError, ServerStream, TlsAcceptor};
pub use watch::DirectoryWatch;

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use futures_channel::mpsc;
use futures_lite::{FutureExt, StreamExt};
use tokio::runtime::{self, LocalOptions, LocalRuntime};

/// A running control executor. Dropping it drops every task and waits for the thread to end.
pub struct ControlExecutor {
    /// Closed by dropping it, which stops the executor.
    services: Option<mpsc::Sender<Service>>,
    /// Taken when the handle is dropped.
    thread: Option<JoinHandle<()>>,
}

/// A function that starts the first task of a service on the executor.
type Service = Box<dyn FnOnce(&Spawner) + Send>;

impl ControlExecutor {
    /// Starts an executor on a thread of this name.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started, or if the kernel refuses the descriptors: the executor needs three.
    pub fn start(name: &str) -> io::Result<ControlExecutor> {
        let (services, queue) = mpsc::channel(0);
        let (started, has_started) = sync_channel(1);
        let thread = Builder::new().name(name.into()).spawn(move || {
            let (runtime, result) = match runtime() {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // The starting thread waits for this message.
            let _ = started.send(result);
            // Dropped at the end, with all tasks.
            if let Some(runtime) = runtime {
                runtime.block_on(run(queue));
            }
        })?;
        has_started.recv().unwrap_or_else(|_| Err(io::Error::other("the executor ended at once")))?;
        Ok(ControlExecutor { services: Some(services), thread: Some(thread) })
    }

    /// Runs a service. `make` is called on the executor, and returns the first task of the service.
    pub fn spawn<F, Task>(&self, make: F)
    where
        F: FnOnce(Spawner) -> Task + Send + 'static,
        Task: Future<Output = ()> + 'static,
    {
        let service: Service = Box::new(|spawner| {
            let own = spawner.clone();
            spawner.spawn(async move { make(own).await });
        });
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
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            // The panic hook has reported the message and the place.
            tracing::error!("the control executor panicked");
        }
    }
}

impl fmt::Debug for ControlExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlExecutor").finish_non_exhaustive()
    }
}

fn runtime() -> io::Result<LocalRuntime> {
    runtime::Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}

/// Starts services until the handle of the executor is dropped.
async fn run(mut services: mpsc::Receiver<Service>) {
    let spawner = Spawner(PhantomData);
    while let Some(service) = services.next().await {
        service(&spawner);
    }
}

/// Starts tasks on the executor that it belongs to. It cannot leave the executor's thread.
#[derive(Clone)]
pub struct Spawner(PhantomData<Rc<()>>);

impl Spawner {
    /// Runs a task until it ends or the executor stops. A task that panics ends alone.
    ///
    /// The task is dropped at once if the executor is stopping.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // Boxed, because the future around it would otherwise reserve its size once more.
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
        let task = async {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                // The panic hook has reported the message and the place.
                tracing::error!("a task of the control executor panicked and was ended");
            }
        };
        // Dropping the handle detaches the task.
        drop(tokio::task::spawn_local(task));
    }
}

/// Waits for the given time.
pub async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Returns the output of `work`, or `None` if it takes longer than `time`.
pub async fn timeout<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, work).await.ok()
}
