//! Tests of the ring with sockets of the process at the other end.

use super::*;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread;

const SETTINGS: RingSettings =
    RingSettings { rings: 1, descriptors: 64, buffers: 128, buffer_bytes: 1024, reserved: 0 };

#[test]
fn a_waiting_ring_does_not_count_as_waiting_for_a_disk() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    let expected = if version >= (6, 15) { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() };
    let mut tested = Tested::new();
    assert_eq!(tested.ring.wait_flags, expected, "Linux {release}");
    // The kernel accepts the flags in a wait with a time limit and in one without.
    let doorbell = tested.ring.doorbell();
    tested.ring.turn(Wait::For(Duration::from_millis(1)), &mut tested.seen).unwrap();
    let ringer = thread::spawn(move || doorbell.ring());
    tested.ring.turn(Wait::Forever, &mut tested.seen).unwrap();
    ringer.join().unwrap();
    assert!(tested.seen.iter().any(|completion| matches!(completion, Completion::Woken)));
}

/// A ring and its completions.
struct Tested {
    ring: Ring,
    seen: Vec<Completion>,
}

impl Tested {
    fn new() -> Tested {
        Tested::with(SETTINGS)
    }

    fn with(settings: RingSettings) -> Tested {
        Tested { ring: Ring::new(settings).unwrap(), seen: Vec::new() }
    }

    /// Returns a socket in the ring's table and its other end.
    fn pair(&mut self, place: u32) -> (Descriptor, TcpStream) {
        let (ours, theirs) = connected();
        (self.ring.adopt(place, ours.into()).unwrap(), theirs)
    }

    /// Adds a listener with this many accepts, all of which are armed.
    fn listen(&mut self, socket: impl Into<OwnedFd>, accepts: u16) {
        let listener = self.ring.listen(socket.into(), accepts);
        (0..accepts).for_each(|_| self.ring.accept(listener));
    }

    /// Takes turns until `look` finds a completion. Removes this completion and all completions before it.
    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Ring, Completion) -> Option<T>) -> T {
        for _ in 0..1000 {
            let mut seen = mem::take(&mut self.seen).into_iter();
            while let Some(completion) = seen.next() {
                if let Some(found) = look(&mut self.ring, completion) {
                    self.seen = seen.collect();
                    return found;
                }
            }
            self.ring.turn(Wait::For(Duration::from_millis(10)), &mut self.seen).unwrap();
        }
        panic!("there was no {what}");
    }

    /// Returns the received bytes when there are at least this many.
    fn received(&mut self, of: Token, bytes: usize) -> Vec<u8> {
        let mut all = Vec::new();
        self.until("data", |ring, completion| {
            if let Completion::Received { token, buffer, ended } = completion {
                assert_eq!((token, ended), (of, false));
                all.extend_from_slice(ring.data(&buffer));
                ring.recycle(buffer);
            }
            (all.len() >= bytes).then_some(())
        });
        all
    }

    fn sent(&mut self) -> (Token, Result<(), Errno>, FrameBatch) {
        self.until("send", |_, completion| match completion {
            Completion::Sent { token, result, frames } => Some((token, result, frames)),
            _ => None,
        })
    }

    fn receive_ended(&mut self) -> (Token, Result<(), Errno>) {
        self.until("end", |ring, completion| match completion {
            Completion::ReceiveEnded { token, result } => Some((token, result)),
            Completion::Received { buffer, .. } => {
                ring.recycle(buffer);
                None
            }
            _ => None,
        })
    }

    fn accepted(&mut self) -> (usize, Descriptor, PeerAddress) {
        self.until("connection", |_, completion| match completion {
            Completion::Accepted { listener, socket, peer } => Some((listener, socket, peer)),
            Completion::AcceptFailed { error, .. } => panic!("{error}"),
            _ => None,
        })
    }

    fn close(&mut self, socket: Descriptor) {
        self.ring.close(socket, 99);
        self.until("close", |_, completion| {
            matches!(completion, Completion::Closed { token: 99 }).then_some(())
        });
    }
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

fn frame(bytes: &[u8]) -> Frame {
    Frame::new(bytes.to_vec(), 0)
}

fn read(mut from: &TcpStream, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    from.read_exact(&mut all).unwrap();
    all
}

/// The kernel hands over only some of many ready sockets in a turn. A mark comes back behind all of them.
#[test]
fn a_mark_comes_back_behind_what_was_sent_before_it() {
    const SOCKETS: u32 = 100;
    let mut tested = Tested::with(RingSettings { descriptors: SOCKETS, ..SETTINGS });
    let mut peers: Vec<TcpStream> = Vec::new();
    for place in 0..SOCKETS {
        let (socket, peer) = tested.pair(place);
        tested.ring.receive(socket, place);
        peers.push(peer);
    }
    tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
    for round in 1..=3 {
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
        tested.ring.mark();
        let mut received = 0;
        tested.until("mark", |ring, completion| match completion {
            Completion::Received { buffer, .. } => {
                received += 1;
                ring.recycle(buffer);
                None
            }
            Completion::Marked => Some(()),
            other => panic!("{other:?}"),
        });
        // Nothing is left.
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        assert_eq!((received, tested.seen.len()), (SOCKETS, 0), "round {round}");
    }
}

#[test]
fn a_thread_may_have_more_rings_than_the_kernel_registers() {
    let mut rings: Vec<Tested> = (0..20).map(|_| Tested::new()).collect();
    for tested in &mut rings {
        let (socket, mut peer) = tested.pair(0);
        tested.ring.receive(socket, 7);
        drop(peer.write_all(b"bye"));
        drop(peer);
        assert_eq!(tested.receive_ended(), (7, Ok(())));
    }
}

#[test]
fn data_is_received_in_order() {
    let mut tested = Tested::new();
    let (socket, mut peer) = tested.pair(3);
    tested.ring.receive(socket, 7);
    for text in ["one", "two", "three"] {
        peer.write_all(text.as_bytes()).unwrap();
        assert_eq!(tested.received(7, text.len()), text.as_bytes());
    }
    let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let to_write = long.clone();
    let writer = thread::spawn(move || peer.write_all(&to_write).map(|()| peer));
    assert_eq!(tested.received(7, long.len()), long, "more data than fits into all buffers");
    drop(writer.join().unwrap());
    assert_eq!(tested.receive_ended(), (7, Ok(())));
}

#[test]
fn sends_arrive_and_return_their_frames() {
    let mut tested = Tested::new();
    let (socket, peer) = tested.pair(0);
    let one = frame(b"hello");
    tested.ring.send(socket, 5, one.clone());
    assert_eq!((tested.ring.sends_in_flight(), one.ref_count()), (1, 2));
    let (token, result, frames) = tested.sent();
    assert_eq!((token, result), (5, Ok(())));
    assert!(matches!(&frames, FrameBatch::One(sent) if sent.ptr_eq(&one)));
    assert_eq!((read(&peer, 5), tested.ring.sends_in_flight()), (b"hello".to_vec(), 0));
    drop(frames);
    assert_eq!(one.ref_count(), 1, "the ring no longer holds the frame");

    tested.ring.send(socket, 6, frame(b""));
    assert_eq!(tested.sent().1, Ok(()), "an empty frame can be sent");
}

#[test]
fn gathered_frames_arrive_as_one_stream() {
    for count in [1, 2, 7, FRAMES_PER_SEND_MAX] {
        let mut tested = Tested::new();
        let (socket, peer) = tested.pair(0);
        let frames: Vec<Frame> = (0..count).map(|n| frame(n.to_string().as_bytes())).collect();
        let expected: Vec<u8> = frames.iter().flat_map(|frame| frame.as_slice()).copied().collect();
        tested.ring.send_gathered(socket, 5, frames);
        let (token, result, frames) = tested.sent();
        assert_eq!((token, result, frames.len()), (5, Ok(()), expected.len()));
        assert_eq!(frames.frames().len(), count);
        assert_eq!(read(&peer, expected.len()), expected);
    }
}

#[test]
fn sends_that_do_not_fit_into_the_socket_complete_once_and_tell_their_progress() {
    let big = vec![b'x'; 16 << 20];
    for gathered in [false, true] {
        let mut tested = Tested::new();
        let (socket, peer) = tested.pair(0);
        match gathered {
            false => {
                let _ = tested.ring.send(socket, 5, frame(&big));
            }
            true => {
                let frames = vec![frame(&big[..9 << 20]), frame(&[]), frame(&big[9 << 20..])];
                let _ = tested.ring.send_gathered(socket, 5, frames);
            }
        }
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        assert_eq!(tested.ring.sends_in_flight(), 1, "the frames do not fit into the socket");
        let len = big.len();
        let reader = thread::spawn(move || read(&peer, len));
        let mut parts = 0;
        let (result, frames) = tested.until("end of the send", |_, completion| match completion {
            Completion::SendProgressed { token } => {
                assert_eq!(token, 5);
                parts += 1;
                None
            }
            Completion::Sent { result, frames, .. } => Some((result, frames)),
            _ => None,
        });
        assert_eq!((result, frames.len()), (Ok(()), len));
        assert!(parts > 0, "what the socket has room for is accepted at once, and the rest later");
        assert!(reader.join().unwrap() == big);
    }
}

#[test]
fn a_send_to_a_peer_that_disconnects_fails() {
    let mut tested = Tested::new();
    let (socket, peer) = tested.pair(0);
    tested.ring.send(socket, 5, frame(&vec![b'x'; 16 << 20]));
    tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
    drop(peer);
    let (_, result, _) = tested.sent();
    assert!(result.is_err());
    tested.ring.send(socket, 6, frame(b"too late"));
    let (token, result, _) = tested.sent();
    assert_eq!((token, result), (6, Err(Errno(libc::EPIPE))), "there is no signal");
}

#[test]
fn cancelling_ends_operations_and_closing_frees_the_place() {
    let mut tested = Tested::new();
    for round in 0..3 {
        let (socket, peer) = tested.pair(63);
        tested.ring.receive(socket, round);
        let send = tested.ring.send(socket, round, frame(&vec![b'x'; 16 << 20]));
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        tested.ring.cancel(round, Some(send));
        let (mut sent, mut received) = (None, None);
        tested.until("end of both", |_, completion| {
            match completion {
                Completion::Sent { result, .. } => sent = Some(result),
                Completion::ReceiveEnded { result, .. } => received = Some(result),
                _ => {}
            }
            (sent.is_some() && received.is_some()).then_some(())
        });
        assert!(sent.is_some_and(|result| result.is_err()));
        assert_eq!(received, Some(Err(Errno(libc::ECANCELED))));
        tested.close(socket);
        let left = std::io::copy(&mut &peer, &mut std::io::sink());
        assert!(left.is_ok() || left.is_err(), "the peer sees the end of the stream or an error");
    }
}

/// How a wait for input ends.
fn awaited(tested: &mut Tested) -> (Token, Result<(), Errno>) {
    tested.until("input", |_, completion| match completion {
        Completion::InputReady { token } => Some((token, Ok(()))),
        Completion::ReceiveEnded { token, result } => Some((token, result)),
        other => panic!("{other:?}"),
    })
}

#[test]
fn input_is_awaited_without_being_received() {
    for is_early in [true, false] {
        let mut tested = Tested::new();
        let (socket, mut peer) = tested.pair(3);
        let mut write_if = |is_now: bool| {
            if is_now {
                peer.write_all(b"hello").unwrap();
            }
        };
        write_if(is_early);
        tested.ring.await_input(socket, 7);
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        assert_eq!(tested.seen.len(), usize::from(is_early));
        write_if(!is_early);
        assert_eq!(awaited(&mut tested), (7, Ok(())));
        // It does not end a second time.
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        assert!(tested.seen.is_empty());
        tested.ring.receive(socket, 7);
        assert_eq!(tested.received(7, 5), b"hello");
    }
}

/// A peer that shuts down its side, one that closes, and one that resets the connection.
#[test]
fn the_end_of_a_stream_is_input() {
    type End = fn(TcpStream) -> Option<TcpStream>;
    let ends: [(End, Result<(), Errno>); 3] = [
        (|peer| peer.shutdown(std::net::Shutdown::Write).map(|()| peer).ok(), Ok(())),
        (|_| None, Ok(())),
        (
            |peer| {
                socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
                None
            },
            Err(Errno(libc::ECONNRESET)),
        ),
    ];
    for (end, result) in ends {
        let mut tested = Tested::new();
        let (socket, peer) = tested.pair(3);
        tested.ring.await_input(socket, 7);
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        let _kept = end(peer);
        assert_eq!(awaited(&mut tested), (7, Ok(())));
        tested.ring.receive(socket, 7);
        assert_eq!(tested.receive_ended(), (7, result));
    }
}

/// The steps of a shard with a silent connection, in both directions. Data that comes meanwhile stays in the socket.
#[test]
fn a_wait_for_input_takes_the_place_of_a_receive_and_is_cancelled_as_it_is() {
    let mut tested = Tested::new();
    let (socket, mut peer) = tested.pair(3);
    for round in 0..3 {
        tested.ring.receive(socket, 7);
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        tested.ring.cancel(7, None);
        assert_eq!(tested.receive_ended(), (7, Err(Errno(libc::ECANCELED))));
        tested.ring.await_input(socket, 7);
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        tested.ring.cancel(7, None);
        assert_eq!(awaited(&mut tested), (7, Err(Errno(libc::ECANCELED))));
        peer.write_all(&[round]).unwrap();
        tested.ring.await_input(socket, 7);
        assert_eq!(awaited(&mut tested), (7, Ok(())));
        // There is nothing left to cancel.
        tested.ring.cancel(7, None);
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        assert!(tested.seen.is_empty());
        tested.ring.receive(socket, 7);
        assert_eq!(tested.received(7, 1), [round]);
        tested.ring.cancel(7, None);
        assert_eq!(tested.receive_ended(), (7, Err(Errno(libc::ECANCELED))));
    }
    tested.close(socket);
}

/// The kernel announces only some of many sockets in a turn, too. A mark comes back behind all of them.
#[test]
fn a_mark_comes_back_behind_input_that_was_awaited() {
    const SOCKETS: u32 = 100;
    let mut tested = Tested::with(RingSettings { descriptors: SOCKETS, ..SETTINGS });
    let mut peers: Vec<TcpStream> = Vec::new();
    for place in 0..SOCKETS {
        let (socket, peer) = tested.pair(place);
        tested.ring.await_input(socket, place);
        peers.push(peer);
    }
    tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
    peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
    tested.ring.mark();
    let mut ready = 0;
    tested.until("mark", |_, completion| match completion {
        Completion::InputReady { .. } => {
            ready += 1;
            None
        }
        Completion::Marked => Some(()),
        other => panic!("{other:?}"),
    });
    assert_eq!(ready, SOCKETS);
}

#[test]
fn a_last_send_arrives_before_the_end_of_the_stream() {
    let mut tested = Tested::new();
    for bytes in [3, 1_000_000] {
        let (socket, theirs) = tested.pair(0);
        tested.ring.send_last(socket, 1, frame(&vec![7; bytes]));
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            (&theirs).read_to_end(&mut all).map(|_| all)
        });
        assert_eq!(tested.sent().1, Ok(()));
        tested.ring.discard(socket, 99);
        tested.ring.turn(Wait::For(Duration::from_millis(1)), &mut tested.seen).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), vec![7; bytes]);
        let is_close = |completion: &Completion| matches!(completion, Completion::Closed { .. });
        assert!(!tested.seen.iter().any(is_close), "only a failure has a completion: {:?}", tested.seen);
    }
    tested.ring.discard(Descriptor(0), 99);
    tested.until("failure", |_, completion| {
        matches!(completion, Completion::Closed { token: 99 }).then_some(())
    });
}

#[test]
fn half_closed_sockets_still_receive() {
    let mut tested = Tested::new();
    let (socket, mut peer) = tested.pair(0);
    tested.ring.receive(socket, 1);
    tested.ring.shut_down(socket, 2);
    tested
        .until("end", |_, completion| matches!(completion, Completion::ShutDown { token: 2 }).then_some(()));
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    peer.write_all(b"still here").unwrap();
    assert_eq!(tested.received(1, 10), b"still here");
}

#[test]
fn without_buffers_receives_end_and_can_be_started_again() {
    let mut tested = Tested::with(RingSettings { buffers: 4, ..SETTINGS });
    let (socket, mut peer) = tested.pair(0);
    tested.ring.receive(socket, 1);
    let data: Vec<u8> = (0..8 * 1024u32).map(|n| (n / 32) as u8).collect();
    peer.write_all(&data).unwrap();
    let mut kept = Vec::new();
    let result = tested.until("end", |_, completion| match completion {
        Completion::Received { buffer, .. } => {
            kept.push(buffer);
            None
        }
        Completion::ReceiveEnded { result, .. } => Some(result),
        _ => None,
    });
    assert!(result.is_err_and(Errno::is_no_buffers));
    assert_eq!(kept.len(), 4, "every buffer was used");
    let mut all = Vec::new();
    for buffer in kept {
        all.extend_from_slice(tested.ring.data(&buffer));
        tested.ring.recycle(buffer);
    }
    tested.ring.receive(socket, 1);
    while all.len() < data.len() {
        tested.until("data", |ring, completion| match completion {
            Completion::Received { buffer, .. } => {
                all.extend_from_slice(ring.data(&buffer));
                ring.recycle(buffer);
                Some(())
            }
            Completion::ReceiveEnded { .. } => {
                ring.receive(socket, 1);
                None
            }
            _ => None,
        });
    }
    assert!(all == data);
}

#[test]
fn streams_that_end_lose_no_buffer() {
    let mut tested = Tested::with(RingSettings { buffers: 4, ..SETTINGS });
    for round in 0..20 {
        let (socket, mut peer) = tested.pair(0);
        tested.ring.receive(socket, round);
        if round % 2 == 0 {
            peer.write_all(b"bye").unwrap();
        }
        drop(peer);
        assert_eq!(tested.receive_ended(), (round, Ok(())));
        tested.close(socket);
    }
    let (socket, mut peer) = tested.pair(0);
    tested.ring.receive(socket, 99);
    peer.write_all(&[b'x'; 4 * 1024]).unwrap();
    let mut kept = Vec::new();
    tested.until("all four buffers", |_, completion| {
        if let Completion::Received { buffer, .. } = completion {
            kept.push(buffer);
        }
        (kept.len() == 4).then_some(())
    });
    kept.into_iter().for_each(|buffer| tested.ring.recycle(buffer));
}

#[test]
fn accepted_connections_have_their_peers_addresses() {
    let mut tested = Tested::new();
    let four = TcpListener::bind("127.0.0.1:0").unwrap();
    let six = TcpListener::bind("[::1]:0").unwrap();
    let addresses = [four.local_addr().unwrap(), six.local_addr().unwrap()];
    let numbers = [tested.ring.listen(four.into(), 2), tested.ring.listen(six.into(), 2)];
    for (address, number) in addresses.into_iter().zip(numbers).cycle().take(10) {
        tested.ring.accept(number);
        let mut client = TcpStream::connect(address).unwrap();
        let (listener, socket, peer) = tested.accepted();
        assert_eq!(listener, number);
        assert_eq!(peer.to_string(), client.local_addr().unwrap().to_string());
        tested.ring.receive(socket, 1);
        client.write_all(b"hi").unwrap();
        assert_eq!(tested.received(1, 2), b"hi");
    }
}

#[test]
fn unix_sockets_are_accepted() {
    let directory = std::env::temp_dir().join(format!("quickio-ring-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let mut tested = Tested::new();
    tested.listen(UnixListener::bind(&path).unwrap(), 1);
    let mut client = UnixStream::connect(&path).unwrap();
    let (_, socket, peer) = tested.accepted();
    assert_eq!((peer, peer.ip()), (PeerAddress::UNIX, None));
    tested.ring.receive(socket, 1);
    client.write_all(b"hi").unwrap();
    assert_eq!(tested.received(1, 2), b"hi");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_ring_that_has_stopped_listening_accepts_no_connections() {
    let mut tested = Tested::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tested.listen(listener, 4);
    let _client = TcpStream::connect(address).unwrap();
    tested.accepted();
    tested.ring.stop_listening();
    // The kernel closes a listener when its last accept has ended.
    let refused = (0..100).any(|_| {
        tested.ring.turn(Wait::For(Duration::from_millis(1)), &mut tested.seen).unwrap();
        let again = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        again.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    });
    assert!(refused, "the port must be closed");
    tested.ring.accept(0);
    tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
    assert!(!tested.seen.iter().any(|seen| matches!(seen, Completion::AcceptFailed { .. })));
}

#[test]
fn without_descriptors_an_accept_fails_once_and_can_be_armed_again() {
    let mut tested = Tested::with(RingSettings { descriptors: 1, ..SETTINGS });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tested.listen(listener, 1);
    let _first = TcpStream::connect(address).unwrap();
    let (_, socket, _) = tested.accepted();
    let _second = TcpStream::connect(address).unwrap();
    tested.ring.accept(0);
    let error = tested.until("failure", |_, completion| match completion {
        Completion::AcceptFailed { error, .. } => Some(error),
        _ => None,
    });
    assert!(error.is_exhaustion(), "{error}");
    tested.close(socket);
    for _ in 0..3 {
        tested.ring.turn(Wait::For(Duration::from_millis(1)), &mut tested.seen).unwrap();
    }
    assert!(tested.seen.is_empty(), "a failed accept is not armed: {:?}", tested.seen);
    let _third = TcpStream::connect(address).unwrap();
    tested.ring.accept(0);
    tested.accepted();
}

/// The shard relies on this when it counts the places that are free: a close that was requested frees its place for an
/// accept that was requested after it.
#[test]
fn a_connection_waits_in_the_backlog_until_an_accept_is_armed_behind_a_close() {
    let mut tested = Tested::with(RingSettings { descriptors: 1, ..SETTINGS });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tested.listen(listener, 1);
    let _first = TcpStream::connect(address).unwrap();
    let (_, mut socket, _) = tested.accepted();
    for token in 0..20 {
        let mut waiting = TcpStream::connect(address).unwrap();
        waiting.write_all(b"hi").unwrap();
        tested.ring.turn(Wait::For(Duration::from_millis(1)), &mut tested.seen).unwrap();
        assert!(tested.seen.is_empty(), "no accept is armed: {:?}", tested.seen);
        tested.ring.close(socket, 99);
        tested.ring.accept(0);
        (_, socket, _) = tested.accepted();
        tested.ring.receive(socket, token);
        assert_eq!(tested.received(token, 2), b"hi", "it was not reset");
        drop(waiting);
        assert_eq!(tested.receive_ended(), (token, Ok(())));
    }
}

#[test]
#[should_panic(expected = "the caller must count the accepts that are armed")]
fn no_more_accepts_are_armed_than_a_listener_has() {
    let mut tested = Tested::new();
    tested.listen(TcpListener::bind("127.0.0.1:0").unwrap(), 2);
    tested.ring.accept(0);
}

#[test]
fn a_doorbell_wakes_a_ring_that_waits_without_a_timeout() {
    let mut tested = Tested::new();
    for _ in 0..3 {
        let doorbell = tested.ring.doorbell();
        let ringer = thread::spawn(move || doorbell.ring());
        while tested.seen.is_empty() {
            tested.ring.turn(Wait::Forever, &mut tested.seen).unwrap();
        }
        assert!(matches!(tested.seen.drain(..).next(), Some(Completion::Woken)));
        ringer.join().unwrap();
    }
}

#[test]
fn rings_wake_each_other() {
    let (tell, told) = mpsc::channel();
    let (done, end) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        let mut tested = Tested::new();
        tell.send(tested.ring.raw_fd()).unwrap();
        for _ in 0..3 {
            while tested.seen.is_empty() {
                tested.ring.turn(Wait::Forever, &mut tested.seen).unwrap();
            }
            assert!(tested.seen.drain(..).all(|seen| matches!(seen, Completion::Woken)));
            done.send(()).unwrap();
        }
    });
    let peer = told.recv().unwrap();
    let mut tested = Tested::new();
    for _ in 0..3 {
        tested.ring.ring_peer(peer);
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        end.recv().unwrap();
    }
    sleeper.join().unwrap();
    assert!(tested.seen.is_empty(), "success has no completion: {:?}", tested.seen);

    let no_ring = std::fs::File::open("/dev/null").unwrap();
    tested.ring.ring_peer(no_ring.as_raw_fd());
    let failed = tested.until("failure", |_, completion| match completion {
        Completion::DoorbellFailed { ring, .. } => Some(ring),
        _ => None,
    });
    assert_eq!(failed, no_ring.as_raw_fd());
}

#[test]
fn turns_wait_for_their_timeout() {
    let mut tested = Tested::new();
    let began = std::time::Instant::now();
    tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
    tested.ring.turn(Wait::For(Duration::ZERO), &mut tested.seen).unwrap();
    tested.ring.turn(Wait::For(Duration::from_millis(20)), &mut tested.seen).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!(tested.seen.is_empty());
}

#[test]
fn many_rings_have_smaller_queues() {
    for (rings, entries) in
        [(0, 4096), (1, 4096), (16, 4096), (17, 4096), (32, 2048), (54, 2048), (128, 2048)]
    {
        assert_eq!(completions(rings), entries, "{rings} rings");
    }
}

#[test]
fn no_operation_is_lost_if_both_queues_overflow() {
    let mut tested = Tested::new();
    let (socket, _peer) = tested.pair(0);
    let many = COMPLETIONS_MAX + COMPLETIONS_MAX / COMPLETIONS_PER_SUBMISSION + 7;
    for token in 0..many {
        tested.ring.shut_down(socket, token);
    }
    assert!(tested.ring.take_submission_overflows() > 0);
    assert_eq!(tested.ring.take_submission_overflows(), 0);
    // The completions are not in order, because the kernel shuts sockets down on threads of its own.
    let mut missing: HashSet<Token> = (0..many).collect();
    tested.until("last completion", |_, completion| {
        assert!(matches!(completion, Completion::ShutDown { token } if missing.remove(&token)));
        missing.is_empty().then_some(())
    });
}

#[test]
fn a_dropped_ring_frees_everything_in_flight() {
    let big = frame(&vec![b'x'; 16 << 20]);
    let half = frame(&vec![b'y'; 8 << 20]);
    let mut peers = Vec::new();
    let began = std::time::Instant::now();
    {
        let mut tested = Tested::with(RingSettings { reserved: 64, ..SETTINGS });
        tested.listen(TcpListener::bind("127.0.0.1:0").unwrap(), 8);
        for place in 0..20 {
            let (socket, peer) = tested.pair(40 + place);
            tested.ring.receive(socket, place);
            match place % 2 {
                0 => tested.ring.send(socket, place, big.clone()),
                _ => tested.ring.send_gathered(socket, place, vec![half.clone(), half.clone()]),
            };
            peers.push(peer);
        }
        tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
        tested.seen.clear();
        assert_eq!(tested.ring.sends_in_flight(), 20);
        // These operations are not submitted yet.
        let (socket, _) = tested.pair(0);
        tested.ring.send(socket, 0, big.clone());
        tested.ring.doorbell().ring();
    }
    assert_eq!((big.ref_count(), half.ref_count()), (1, 1), "no frame may be leaked");
    assert!(began.elapsed() < Duration::from_secs(1), "the kernel releases the memory at once");
}

#[test]
#[should_panic(expected = "accepts and sends must be counted")]
fn the_check_finds_an_operation_that_is_not_counted() {
    let mut tested = Tested::new();
    let (socket, _peer) = tested.pair(0);
    tested.ring.send(socket, 1, frame(b"x"));
    let send = tested.ring.in_flight.remove(0);
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tested.ring.check()));
    tested.ring.in_flight.insert(send.expect("the send"));
    std::panic::resume_unwind(checked.expect_err("the check must fail"));
}

#[test]
#[should_panic(expected = "place 0 must be reserved")]
fn places_of_accepted_sockets_cannot_be_adopted() {
    let mut tested = Tested::new();
    tested.listen(TcpListener::bind("127.0.0.1:0").unwrap(), 1);
    tested.pair(0);
}

/// A peer reads a part of a send, whose rest must not be submitted again once the send was cancelled.
#[test]
fn a_send_that_was_cancelled_is_not_continued() {
    let mut tested = Tested::new();
    let (socket, peer) = tested.pair(0);
    let send = tested.ring.send(socket, 5, frame(&vec![b'x'; 16 << 20]));
    tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
    peer.set_nonblocking(true).unwrap();
    // A part is accepted, of which the ring hears in the turn that submits the cancellation.
    while let Ok(1..) = (&peer).read(&mut vec![0; 1 << 20]) {}
    tested.ring.cancel(5, Some(send));
    while let Ok(1..) = (&peer).read(&mut vec![0; 1 << 20]) {}
    assert!(tested.sent().1.is_err());
    assert_eq!(tested.ring.sends_in_flight(), 0);
    // A second cancellation finds nothing, or a later send of another socket, which it leaves alone.
    let (other, _other_peer) = tested.pair(1);
    assert_eq!(tested.ring.send(other, 6, frame(b"hello")), send, "the place is used again");
    tested.ring.cancel(5, Some(send));
    let (token, result, _) = tested.sent();
    assert_eq!((token, result), (6, Ok(())));
}

#[test]
fn sends_in_flight_are_visited_in_steps() {
    let mut tested = Tested::new();
    let _peers: Vec<TcpStream> = (0..20)
        .map(|token| {
            let (socket, peer) = tested.pair(token);
            let _ = tested.ring.send(socket, token, frame(&vec![b'x'; 16 << 20]));
            peer
        })
        .collect();
    let (mut tokens, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        next = tested.ring.visit_sends(from, 7, |token| tokens.push(token));
    }
    tokens.sort_unstable();
    assert_eq!(tokens, Vec::from_iter(0..20));
}

/// With this many sockets, it would show if the kernel examined all of them for each one.
#[test]
fn many_sockets_are_cancelled_and_dropped_quickly() {
    const PAIRS: u32 = 8192;
    let began = std::time::Instant::now();
    let mut tested = Tested::with(RingSettings { descriptors: 2 * PAIRS, ..SETTINGS });
    for token in 0..PAIRS {
        let (one, other) = UnixStream::pair().unwrap();
        for (place, socket) in [(2 * token, one), (2 * token + 1, other)] {
            let socket = tested.ring.adopt(place, socket.into()).unwrap();
            tested.ring.receive(socket, place);
        }
    }
    tested.ring.turn(Wait::No, &mut tested.seen).unwrap();
    for token in 0..PAIRS {
        tested.ring.cancel(2 * token, None);
    }
    let mut missing = PAIRS;
    tested.until("last end", |_, completion| {
        if let Completion::ReceiveEnded { token, result } = completion {
            assert_eq!((token % 2, result), (0, Err(Errno(libc::ECANCELED))));
            missing -= 1;
        }
        (missing == 0).then_some(())
    });
    drop(tested);
    // This takes about 0.05 seconds. If the kernel examined all waiting operations for each one, it would take over
    // seven.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn the_memory_of_buffers_that_a_burst_has_needed_is_given_back() {
    let mut tested = Tested::with(RingSettings { buffers: 256, buffer_bytes: 4096, ..SETTINGS });
    let (socket, peer) = tested.pair(0);
    tested.ring.receive(socket, 1);
    let receive = |tested: &mut Tested, data: &[u8]| {
        let (to_write, mut peer) = (data.to_vec(), peer.try_clone().unwrap());
        let writer = thread::spawn(move || peer.write_all(&to_write));
        let mut all = Vec::new();
        // Buffers are kept for a turn, as by a shard that has much to do.
        let mut kept = Vec::new();
        tested.until("data", |ring, completion| {
            if let Completion::Received { buffer, .. } = completion {
                all.extend_from_slice(ring.data(&buffer));
                kept.push(buffer);
            } else {
                kept.drain(..).for_each(|buffer| ring.recycle(buffer));
                ring.receive(socket, 1);
            }
            (all.len() >= data.len()).then_some(())
        });
        kept.into_iter().for_each(|buffer| tested.ring.recycle(buffer));
        writer.join().unwrap().unwrap();
        all
    };
    let burst: Vec<u8> = (0..4 << 20u32).map(|n| (n / 1000) as u8).collect();
    assert!(receive(&mut tested, &burst) == burst);
    let (resident, target, _) = tested.ring.buffers.counts();
    assert!(target == 256 && resident > 128, "{resident} pages, {target} buffers");
    // This is too early.
    tested.ring.turn(Wait::For(Duration::ZERO), &mut tested.seen).unwrap();
    assert_eq!(tested.ring.buffers.counts().1, 256);
    tested.ring.keep_buffers_until_ns = 0;
    tested.ring.turn(Wait::For(Duration::ZERO), &mut tested.seen).unwrap();
    assert_eq!(tested.ring.buffers.counts(), (0, 64, 0));
    // The buffers that the kernel still has are used once more, and then withheld.
    for round in 0..600 {
        let text = format!("{round:04}");
        assert_eq!(receive(&mut tested, text.as_bytes()), text.as_bytes());
    }
    assert_eq!(tested.ring.buffers.counts(), (64, 64, 192));
    // Another burst needs them again.
    assert!(receive(&mut tested, &burst) == burst);
    assert_eq!((tested.ring.buffers.counts().1, tested.ring.buffers.counts().2), (256, 0));
}
