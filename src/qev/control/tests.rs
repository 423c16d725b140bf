//! Tests of the control executor, its permits and its sockets.

use super::*;
use futures_channel::oneshot;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
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
        let listener = AsyncListener::new(bound);
        loop {
            let stream = listener.accept(drop).await;
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
    // More bytes than one read returns.
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
    control.spawn(|_| -> future::Ready<()> { panic!("before it has a task") });
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
    /// Starts a task when it is dropped.
    struct LastWish(Spawner, Option<Dropped>);
    impl Drop for LastWish {
        fn drop(&mut self) {
            let dropped = self.1.take();
            self.0.spawn(async move {
                let _dropped = dropped;
                future::pending().await
            });
        }
    }
    let control = start();
    let address = echo(&control);
    let mut stream = connect(address);
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let (sender, dropped) = channel();
    let (waits, late) = (Dropped(sender.clone()), Dropped(sender));
    control.spawn(|spawner| async move {
        let last = LastWish(spawner.clone(), Some(late));
        spawner.spawn(async move {
            let _held = (waits, last);
            sleep(DEADLINE * 100).await;
        });
    });
    assert_eq!(dropped.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
    drop(control);
    assert_eq!((dropped.try_recv(), dropped.try_recv()), (Ok(()), Ok(())));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    TcpListener::bind(address).unwrap();
}

#[test]
fn a_dropped_socket_is_shut_down_even_if_another_process_has_it() {
    let control = start();
    let bound = bound();
    let address = bound.address();
    let (result, results) = channel();
    // The copies are those of a process that an application has forked.
    let _listener = rustix::io::dup(&bound).unwrap();
    control.spawn(|_| async move {
        let listener = AsyncListener::new(bound);
        let stream = listener.accept(drop).await;
        let copy = rustix::io::dup(&stream).unwrap();
        drop((stream, listener));
        result.send(copy).unwrap();
    });
    let mut stream = connect(address);
    let _stream = results.recv_timeout(DEADLINE).unwrap();
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
        result.send((bytes, AsyncStream::connect(refused, DEADLINE).await.err().map(|e| e.kind()))).unwrap();
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
        let listener = AsyncListener::new(bound);
        for _ in 0..2 {
            let stream = listener.accept(drop).await;
            result.send(rustix::io::fcntl_getfd(&stream).unwrap()).unwrap();
        }
    });
    for _ in 0..2 {
        let _stream = connect(address);
        assert!(results.recv_timeout(DEADLINE).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
