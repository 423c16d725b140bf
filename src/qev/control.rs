//! The control executor: one glommio executor for everything that does I/O and is not the data plane.
//!
//! It runs on one thread that is not pinned to a core. Its tasks wait in glommio's reactor, and the thread sleeps in the
//! kernel while all of them wait. It never spins.
//!
//! Services are started from any thread by [`ControlExecutor::spawn`]. Their tasks use [`Spawner::spawn`], [`Listener`],
//! [`Stream`], [`sleep`] and [`timeout`]. Other threads reach a task through the channels of `futures-channel`: waking
//! a task from another thread wakes the executor.
//!
//! Four properties of glommio 0.9 shape this file:
//!
//! - **Task handles.** Dropping the handle of a task frees the task if no waker of it exists. Another thread that is in
//!   the middle of dropping the last waker still reads the task then. Therefore every task is detached before it runs.
//!   The executor's root task has a handle that cannot be detached, so the root waits only for what tasks of this
//!   executor do, and none of its wakers reaches another thread.
//! - **The end.** Tasks that wait when their executor ends are leaked, together with their sockets. Therefore each task
//!   is raced against the executor's stop, and the root returns when the last task has been dropped.
//! - **Panics.** A panic in a task ends the executor. Therefore panics are caught in each task, which ends alone.
//! - **Accepted sockets** are not closed on exec. [`Listener::accept`] sets the flag at once. A worker process that is
//!   forked in the few microseconds before inherits the descriptor, which is harmless because [`Stream`] shuts its
//!   connection down when it is dropped, and does not rely on the descriptor being the last one.
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

/// Memory that glommio registers with the kernel for file I/O, in bytes: the least that it takes. The control executor
/// does no file I/O, and registered memory counts against `ulimit -l`.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Entries of each of glommio's three submission rings. A full ring is submitted and filled again, so this bounds
/// neither connections nor operations.
const RING_ENTRIES: usize = 128;

/// Threads for blocking calls. Nothing here uses them, and glommio wants at least one.
const BLOCKING_THREADS: usize = 1;

/// Connections that the kernel accepts before [`Listener::accept`] takes them: as many as may arrive at one moment.
const BACKLOG: i32 = 1024;

/// How long a listener waits after a failed accept: if no descriptor is free, the next accept fails too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The control executor's handle. Dropping it drops every task of the executor and waits for its thread to end.
pub struct ControlExecutor {
    /// Closed by dropping it, which stops the executor.
    services: Option<mpsc::Sender<Service>>,
    /// Taken when the handle is dropped.
    thread: Option<ExecutorJoinHandle<()>>,
}

/// Starts a service's first task on the executor.
type Service = Box<dyn FnOnce(&Spawner) + Send>;

impl ControlExecutor {
    /// Starts an executor on a thread of this name.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started, or the kernel does not grant the executor its rings and locked memory.
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

    /// Runs a service: `make` is called on the executor and returns the service's first task.
    pub fn spawn<F, Task>(&self, make: F)
    where
        F: FnOnce(Spawner) -> Task + Send + 'static,
        Task: Future<Output = ()> + 'static,
    {
        let service: Service = Box::new(|spawner| spawner.spawn(make(spawner.clone())));
        // Each clone of the sender has a place of its own in the channel.
        let sent = self.services.clone().map(|mut services| services.try_send(service));
        if !matches!(sent, Some(Ok(()))) {
            tracing::error!("the control executor has ended: a service cannot be started");
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
    /// `None` after the executor was told to stop.
    stops: RefCell<Option<Stops>>,
    /// Each task holds these `Tasks`. The channel closes when the last one has been dropped, which ends the root task.
    _alive: mpsc::Sender<Infallible>,
}

/// By task: dropping the sender stops it.
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
        // Boxed once, so that it is not moved into each of the futures around it, which would all have its size.
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
        // Dropped behind the borrow: it wakes tasks.
        let stops = self.0.stops.borrow_mut().take();
        drop(stops);
    }
}

/// A task's entry among those that can be stopped.
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

/// Waits for this long.
pub async fn sleep(time: Duration) {
    timer::Timer::new(time).await;
}

/// Returns what `work` returns, or `None` if that takes longer than `time`.
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

/// A TCP socket that was bound on any thread, for a [`Listener`].
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
        // As std does: connections of a process that has ended must not keep its port.
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
pub struct Listener {
    /// The service that it belongs to, for the log.
    service: &'static str,
    socket: Socket,
    acceptor: net::TcpListener,
}

impl Listener {
    /// Accepts connections on the executor of the calling task.
    #[must_use]
    pub fn new(bound: BoundSocket, service: &'static str) -> Listener {
        // SAFETY: the descriptor is an open listening socket, and only the acceptor owns it.
        let acceptor = unsafe { net::TcpListener::from_raw_fd(bound.twin.into_raw_fd()) };
        Listener { service, socket: bound.socket, acceptor }
    }

    /// Waits for the next connection. If a connection cannot be accepted, most often because no descriptor is free, the
    /// log says so and the next attempt is made after a pause.
    pub async fn accept(&self) -> Stream {
        loop {
            // A queue of connections must not keep other tasks from running.
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

    async fn try_accept(&self) -> io::Result<Stream> {
        let stream = self.acceptor.accept().await.map(Stream::new).map_err(io_error)?;
        SockRef::from(&stream).set_cloexec(true)?;
        Ok(stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // An accept that waits in the ring would keep the socket listening for a while.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A TCP connection. Two parts of a task may use it at the same time: one to read, and one to write.
///
/// Dropping it ends the connection in both directions.
pub struct Stream(RefCell<net::TcpStream>);

impl Stream {
    /// Connects to an address within a time.
    ///
    /// # Errors
    ///
    /// If the peer refuses the connection, or does not accept it in time.
    pub async fn connect(address: SocketAddr, within: Duration) -> io::Result<Stream> {
        net::TcpStream::connect_timeout(address, within).await.map(Stream::new).map_err(io_error)
    }

    fn new(stream: net::TcpStream) -> Stream {
        Stream(RefCell::new(stream))
    }

    /// Returns the address of the peer.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.0.borrow().peer_addr().map_err(io_error)
    }

    /// Ends one direction or both. What was written before is still sent.
    pub fn shut_down(&self, directions: Shutdown) {
        // A connection that has ended cannot be shut down again, and need not be.
        let _ = SockRef::from(self).shutdown(directions);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A poll that waits in the ring keeps the socket open for a while after its descriptor is closed.
        self.shut_down(Shutdown::Both);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: glommio's stream owns the descriptor and keeps it open for as long as it lives. It lives as long as
        // `self`, which the result borrows: nothing takes it out of its cell.
        unsafe { BorrowedFd::borrow_raw(self.0.borrow().as_raw_fd()) }
    }
}

impl AsyncRead for &Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for &Stream {
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

    /// How long anything is waited for: far more than is ever needed.
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

    /// Sends back what each connection sends.
    fn echo(control: &ControlExecutor) -> SocketAddr {
        let bound = bound();
        let address = bound.address();
        control.spawn(|spawner| async move {
            let listener = Listener::new(bound, "echo");
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
                // Long enough that it sleeps in the kernel. The others arrive while it falls asleep.
                thread::sleep(Duration::from_millis(5));
            }
            question.try_send(number).unwrap();
            assert_eq!(answers.recv_timeout(DEADLINE), Ok(number));
        }
    }

    #[test]
    fn wakers_that_other_threads_drop_harm_no_task() {
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
        // Some that wait when the executor ends, and are woken afterwards.
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
        // More than fits into a ring, so that sends and receives are under way on all of them.
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
    fn the_end_drops_all_tasks_and_frees_their_sockets() {
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
    fn a_connection_is_made_refused_or_given_up() {
        let control = start();
        let address = echo(&control);
        let (result, results) = channel();
        let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        control.spawn(move |_| async move {
            let stream = Stream::connect(address, DEADLINE).await.unwrap();
            assert_eq!(stream.peer_address().unwrap(), address);
            (&stream).write_all(b"hello").await.unwrap();
            let mut bytes = [0; 5];
            (&stream).read_exact(&mut bytes).await.unwrap();
            result.send((bytes, Stream::connect(refused, DEADLINE).await.err().map(|e| e.kind()))).unwrap();
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
    fn work_that_takes_too_long_is_dropped() {
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
            let listener = Listener::new(bound, "test");
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
