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
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_lite::{AsyncRead, AsyncWrite, FutureExt, StreamExt, future};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement, net, timer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::runtime::io_error;

/// The size in bytes of the memory that glommio registers with the kernel for file I/O: the minimum. The control
/// executor does no file I/O, and registered memory counts towards `ulimit -l`.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// The number of entries of each of glommio's three submission rings. A full ring is submitted and filled again: this
/// bounds neither connections nor operations.
const RING_ENTRIES: usize = 128;

/// The number of threads for blocking calls. No task uses them, but glommio needs at least one.
const BLOCKING_THREADS: usize = 1;

/// The number of connections that the kernel accepts before [`AsyncListener::accept`] takes them: as many as may
/// arrive at the same moment.
const BACKLOG: i32 = 1024;

/// The pause after a failed accept: if no descriptor is free, an immediate retry fails too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// A bound on the number of things that exist at the same time, such as the connections of a service.
#[derive(Clone, Debug)]
pub struct Permits(Arc<PermitCount>);

#[derive(Debug)]
struct PermitCount {
    max: usize,
    taken: AtomicUsize,
}

impl Permits {
    /// Creates a bound of `max`.
    #[must_use]
    pub fn new(max: usize) -> Permits {
        Permits(Arc::new(PermitCount { max, taken: AtomicUsize::new(0) }))
    }

    /// Returns a permit, or `None` if all are taken.
    #[must_use]
    pub fn try_acquire(&self) -> Option<Permit> {
        let more = |taken| (taken < self.0.max).then_some(taken + 1);
        let acquired = self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        acquired.is_ok().then(|| Permit(self.clone()))
    }

    /// Returns the number of permits that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }
}

/// One of the things that [`Permits`] bound. Dropping it gives the permit back.
#[derive(Debug)]
pub struct Permit(Permits);

impl Drop for Permit {
    fn drop(&mut self) {
        let taken = self.0.0.taken.fetch_sub(1, Ordering::Relaxed);
        assert!(taken > 0, "a permit is given back once");
    }
}

/// A TCP socket that was bound on any thread, for an [`AsyncListener`].
#[derive(Debug)]
pub struct BoundSocket {
    socket: Socket,
    /// The same socket, for glommio.
    twin: Socket,
    address: SocketAddr,
}

impl BoundSocket {
    /// Binds an address and listens there. The kernel chooses the port if it is 0.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<BoundSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // As std does: connections of a process that has ended do not block its port.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(BoundSocket { twin: socket.try_clone()?, socket, address })
    }

    /// Returns the bound address, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A listening TCP socket. Dropping it frees its address at once.
pub struct AsyncListener {
    /// The name of the service, for the log.
    service: &'static str,
    socket: Socket,
    acceptor: net::TcpListener,
}

impl AsyncListener {
    /// Accepts connections on the executor of the calling task.
    #[must_use]
    pub fn new(bound: BoundSocket, service: &'static str) -> AsyncListener {
        // SAFETY: the descriptor is an open listening socket, and only the acceptor owns it.
        let acceptor = unsafe { net::TcpListener::from_raw_fd(bound.twin.into_raw_fd()) };
        AsyncListener { service, socket: bound.socket, acceptor }
    }

    /// Waits for the next connection. If an accept fails, usually because no descriptor is free, logs a warning and
    /// retries after a pause.
    pub async fn accept(&self) -> AsyncStream {
        loop {
            // Other tasks must be able to run even if connections are already waiting.
            future::yield_now().await;
            match self.try_accept().await {
                Ok(stream) => return stream,
                Err(error) => {
                    tracing::warn!(service = self.service, %error, "a connection cannot be accepted; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<AsyncStream> {
        let stream = self.acceptor.accept().await.map(AsyncStream::new).map_err(io_error)?;
        SockRef::from(&stream).set_cloexec(true)?;
        Ok(stream)
    }
}

impl Drop for AsyncListener {
    fn drop(&mut self) {
        // A pending accept in the ring would otherwise keep the socket listening for some time.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A TCP connection. One part of a task may read from it while another part writes to it.
///
/// Dropping it ends the connection in both directions.
pub struct AsyncStream(RefCell<net::TcpStream>);

impl AsyncStream {
    /// Connects to an address within a time.
    ///
    /// # Errors
    ///
    /// If the peer refuses the connection or does not accept it in time.
    pub async fn connect(address: SocketAddr, within: Duration) -> io::Result<AsyncStream> {
        net::TcpStream::connect_timeout(address, within).await.map(AsyncStream::new).map_err(io_error)
    }

    fn new(stream: net::TcpStream) -> AsyncStream {
        AsyncStream(RefCell::new(stream))
    }

    /// Returns the address of the peer.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.0.borrow().peer_addr().map_err(io_error)
    }

    /// Ends one direction or both. Bytes that were written before are still sent.
    pub fn shut_down(&self, directions: Shutdown) {
        // This fails only if the connection has ended already.
        let _ = SockRef::from(self).shutdown(directions);
    }
}

impl Drop for AsyncStream {
    fn drop(&mut self) {
        // A pending poll in the ring keeps the socket open for some time after its descriptor is closed.
        self.shut_down(Shutdown::Both);
    }
}

impl AsFd for AsyncStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: glommio's stream owns the descriptor and keeps it open until it is dropped. It is never moved out
        // of its cell, and is therefore dropped only with `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.0.borrow().as_raw_fd()) }
    }
}

impl AsyncRead for &AsyncStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for &AsyncStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;

    /// The longest time that a test waits for anything: far more than is ever needed.
    const DEADLINE: Duration = Duration::from_secs(20);

    fn start() -> ControlExecutor {
        ControlExecutor::start("control-test").unwrap()
    }

    fn bound() -> BoundSocket {
        BoundSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Starts a service that sends back the bytes that it receives.
    fn echo(control: &ControlExecutor) -> SocketAddr {
        let bound = bound();
        let address = bound.address();
        control.spawn(|spawner| async move {
            let listener = AsyncListener::new(bound, "echo");
            loop {
                let stream = listener.accept().await;
                spawner.spawn(async move {
                    let mut bytes = [0; 1000];
                    while let Ok(len @ 1..) = (&stream).read(&mut bytes).await {
                        (&stream).write_all(&bytes[..len]).await.unwrap();
                    }
                });
            }
        });
        address
    }

    #[test]
    fn a_message_from_another_thread_wakes_an_executor_that_sleeps() {
        let control = start();
        let (mut question, mut questions) = mpsc::channel(1);
        let (answer, answers) = channel();
        control.spawn(|_| async move {
            while let Some(number) = questions.next().await {
                answer.send(number).unwrap();
            }
        });
        for number in 0..2000 {
            if number % 100 == 0 {
                // Long enough for the executor to sleep in the kernel. The other messages arrive while it goes to
                // sleep.
                thread::sleep(Duration::from_millis(5));
            }
            question.try_send(number).unwrap();
            assert_eq!(answers.recv_timeout(DEADLINE), Ok(number));
        }
    }

    #[test]
    fn other_threads_may_drop_wakers_at_any_time() {
        let control = start();
        for round in 0..200 {
            let (sender, receiver) = oneshot::channel::<u32>();
            let (done, is_done) = channel();
            control.spawn(|_| async move {
                let got = receiver.await;
                let _ = done.send(got);
            });
            let thread = thread::spawn(move || {
                if round % 2 == 0 {
                    sender.send(round).unwrap()
                }
            });
            let expected = if round % 2 == 0 { Ok(round) } else { Err(oneshot::Canceled) };
            assert_eq!(is_done.recv_timeout(DEADLINE), Ok(expected));
            thread.join().unwrap();
        }
        // Tasks that wait when the executor ends, and whose wakers are used after that.
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..100).map(|_| oneshot::channel::<u32>()).unzip();
        let (started, is_started) = channel();
        control.spawn(move |spawner| async move {
            for receiver in receivers {
                spawner.spawn(async {
                    let _ = receiver.await;
                });
            }
            future::yield_now().await;
            started.send(()).unwrap();
            future::pending().await
        });
        is_started.recv_timeout(DEADLINE).unwrap();
        drop(control);
        senders.into_iter().for_each(|sender| assert_eq!(sender.send(1), Err(1)));
    }

    #[test]
    fn hundreds_of_connections_are_served_at_once() {
        let control = start();
        let address = echo(&control);
        let mut streams: Vec<TcpStream> = (0..300).map(|_| connect(address)).collect();
        // More connections than the rings have entries, and more bytes than one read returns.
        let sent: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        for stream in &mut streams {
            stream.write_all(&sent).unwrap();
        }
        for stream in &mut streams {
            let mut got = vec![0; sent.len()];
            stream.read_exact(&mut got).unwrap();
            assert!(got == sent);
        }
    }

    #[test]
    fn a_task_that_panics_ends_alone() {
        let control = start();
        let address = echo(&control);
        control.spawn(|_| async { panic!("as it should") });
        let mut stream = connect(address);
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn dropping_the_executor_drops_all_tasks_and_frees_their_sockets() {
        struct Dropped(std::sync::mpsc::Sender<()>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let control = start();
        let address = echo(&control);
        let mut stream = connect(address);
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let (sender, dropped) = channel();
        let waits = Dropped(sender);
        control.spawn(|spawner| async move {
            spawner.spawn(async move {
                let _waits = waits;
                sleep(DEADLINE * 100).await;
            });
        });
        assert_eq!(dropped.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
        drop(control);
        assert_eq!(dropped.try_recv(), Ok(()));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn connecting_succeeds_or_is_refused() {
        let control = start();
        let address = echo(&control);
        let (result, results) = channel();
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        control.spawn(move |_| async move {
            let stream = AsyncStream::connect(address, DEADLINE).await.unwrap();
            assert_eq!(stream.peer_address().unwrap(), address);
            (&stream).write_all(b"hello").await.unwrap();
            let mut bytes = [0; 5];
            (&stream).read_exact(&mut bytes).await.unwrap();
            result
                .send((bytes, AsyncStream::connect(refused, DEADLINE).await.err().map(|e| e.kind())))
                .unwrap();
        });
        let expected = (*b"hello", Some(io::ErrorKind::ConnectionRefused));
        assert_eq!(results.recv_timeout(DEADLINE), Ok(expected));
    }

    #[test]
    fn permits_are_bounded_and_given_back() {
        let permits = Permits::new(2);
        let first = permits.try_acquire().unwrap();
        let second = permits.try_acquire();
        assert_eq!((second.is_some(), permits.try_acquire().is_none(), permits.taken()), (true, true, 2));
        drop(first);
        assert_eq!(permits.taken(), 1);
        assert!(permits.try_acquire().is_some());
    }

    #[test]
    fn a_timeout_drops_the_work() {
        let control = start();
        let (result, results) = channel();
        control.spawn(move |_| async move {
            let late = timeout(Duration::from_millis(5), future::pending::<()>()).await;
            let in_time = timeout(DEADLINE, async { 7 }).await;
            result.send((late, in_time)).unwrap();
        });
        assert_eq!(results.recv_timeout(DEADLINE), Ok((None, Some(7))));
    }

    #[test]
    fn accepted_sockets_are_closed_on_exec() {
        let control = start();
        let bound = bound();
        let address = bound.address();
        let (result, results) = channel();
        control.spawn(|_| async move {
            let listener = AsyncListener::new(bound, "test");
            for _ in 0..2 {
                let stream = listener.accept().await;
                result.send(rustix::io::fcntl_getfd(&stream).unwrap()).unwrap();
            }
        });
        for _ in 0..2 {
            let _stream = connect(address);
            assert!(results.recv_timeout(DEADLINE).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
    }
}
