//! The floor of a broadcast to very many idle connections, and of an orderly stop: the system calls that any server must
//! make for them with io_uring, and nothing else. What they cost is the kernel's.
//!
//! ```text
//! cargo run --release --example cold -- --connections 100000 --server-core 0 --client-core 1
//! ```
//!
//! One thread is the server, another one has all clients and the same rings as `quickio-load million`. Each is pinned to
//! a core. After all clients have connected, each of the server's sockets has a receive that waits. Then each gets one send
//! of `--bytes`, in batches of 1,024 for each `io_uring_enter`, as in the server (`broadcast`). At last each gets a Close
//! frame, the client answers, and the socket is closed (`stop`). Between these steps all is idle, for `--idle` seconds.
//!
//! A line for each step has the CPU time of the server's thread for each connection, which includes the delivery into the
//! receive queues of the clients: the thread that sends makes it. It also has the time until all clients have it. The limit
//! on open files bounds the sockets of each ring: there are as many rings as that needs.

#![allow(unsafe_code)]

#[path = "floor_io/buffers.rs"]
mod buffers;

use buffers::Buffers;
use io_uring::types::{CancelBuilder, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use quickio::qev::buffers::Frame;
use quickio::qev::ring::{Completion, Descriptor, Ring, RingSettings, Wait};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The submissions of a batch, which are the default of the server's setting `sends-per-turn-max`.
const BATCH: u32 = 1024;
const COMPLETIONS: u32 = 16_384;

/// The places of a ring that hold no connection.
const PLACES_SPARE: u32 = 100;

/// The clients of each source address, whose ports are then easy to find.
const CLIENTS_PER_ADDRESS: usize = 7000;

/// The time for which the server waits for clients' answers, and the clients for the server.
const WAIT: Duration = Duration::from_millis(1);
const POLL_TIME: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// A Close frame with the code 1001, and a client's answer.
const CLOSE_FRAME: &[u8] = b"\x88\x02\x03\xe9";
const CLOSE_ANSWER: &[u8] = b"\x88\x82\0\0\0\0\x03\xe9";

/// The kind of an operation of the server, in the lowest bits of its user data. The place is in the bits above.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const OTHER: u64 = 2;

/// The progress that the client's thread has seen.
#[derive(Default)]
struct Seen {
    connected: AtomicUsize,
    received: AtomicUsize,
    ended: AtomicUsize,
}

struct Settings {
    connections: usize,
    bytes: usize,
    idle: Duration,
    /// The connections of a ring.
    places: usize,
}

fn main() -> Result<(), Failure> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    let places = u32::try_from(limit)?.min(1 << 20) - PLACES_SPARE;
    let mut settings =
        Settings { connections: 100_000, bytes: 86, idle: Duration::from_secs(2), places: places as usize };
    let (mut server_core, mut client_core) = (0, 1);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        use lexopt::prelude::*;
        match arg {
            Long("connections") => settings.connections = parser.value()?.parse()?,
            Long("bytes") => settings.bytes = parser.value()?.parse()?,
            Long("idle") => settings.idle = Duration::from_secs_f64(parser.value()?.parse()?),
            Long("server-core") => server_core = parser.value()?.parse()?,
            Long("client-core") => client_core = parser.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    // SAFETY: the descriptor is that of a listening socket; `listen` only changes its backlog.
    unsafe { libc::listen(listener.as_raw_fd(), 4096) };
    let seen = Seen::default();
    thread::scope(|scope| {
        let clients = scope.spawn(|| pinned(client_core, || run_clients(&settings, address, &seen)));
        pinned(server_core, || serve(&settings, &listener, &seen))?;
        clients.join().expect("the clients do not panic")
    })
}

fn pinned(core: usize, run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)?;
    run()
}

/// The server's end of some connections.
struct ServerRing {
    io: IoUring,
    buffers: Buffers,
    connections: u32,
    closed: u32,
}

fn serve(settings: &Settings, listener: &TcpListener, seen: &Seen) -> Result<(), Failure> {
    let mut rings = Vec::new();
    for first in (0..settings.connections).step_by(settings.places) {
        let connections = settings.places.min(settings.connections - first) as u32;
        let mut ring = ServerRing::new(connections)?;
        for place in 0..connections {
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            ring.io.submitter().register_files_update(place, &[socket.as_raw_fd()])?;
        }
        ring.for_all(receive)?;
        rings.push(ring);
    }
    wait_for(&seen.connected, settings.connections);
    thread::sleep(settings.idle);

    let event: &'static [u8] = vec![b'x'; settings.bytes].leak();
    let measured = Measured::begin("broadcast", settings.connections);
    rings.iter_mut().try_for_each(|ring| ring.for_all(|place| send(place, event)))?;
    let sent = measured.cpu();
    wait_for(&seen.received, settings.connections);
    measured.end(&sent);
    thread::sleep(settings.idle);

    let measured = Measured::begin("stop", settings.connections);
    rings.iter_mut().try_for_each(|ring| ring.for_all(|place| send(place, CLOSE_FRAME)))?;
    while rings.iter().any(|ring| ring.closed < ring.connections) {
        for ring in rings.iter_mut().filter(|ring| ring.closed < ring.connections) {
            ring.turn(BATCH as usize)?;
        }
    }
    drop(rings);
    let closed = measured.cpu();
    wait_for(&seen.ended, settings.connections);
    measured.end(&closed);
    Ok(())
}

impl ServerRing {
    fn new(connections: u32) -> Result<ServerRing, Failure> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(2 * BATCH)?;
        io.submitter().register_files_sparse(connections)?;
        let buffers = Buffers::register(&io).map_err(|error| error.to_string())?;
        Ok(ServerRing { io, buffers, connections, closed: 0 })
    }

    /// Submits an operation for each connection, in batches.
    fn for_all(&mut self, operation: impl Fn(u32) -> squeue::Entry) -> Result<(), Failure> {
        for first in (0..self.connections).step_by(BATCH as usize) {
            (first..self.connections.min(first + BATCH)).for_each(|place| self.push(&operation(place)));
            self.turn(0)?;
        }
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the only memory that entries name is that of sends, which is static.
        while unsafe { self.io.submission().push(entry) }.is_err() {
            self.io.submit().expect("the kernel accepts the submissions");
        }
    }

    /// Submits what is queued, waits shortly for a number of completions, and handles them. A connection whose client has
    /// sent something is closed.
    fn turn(&mut self, wanted: usize) -> Result<(), Failure> {
        let time = Timespec::from(WAIT);
        match self.io.submitter().submit_with_args(wanted, &SubmitArgs::new().timespec(&time)) {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => return Err(error.into()),
            _ => {}
        }
        let completed: Vec<cqueue::Entry> = self.io.completion().collect();
        for entry in completed {
            let (kind, place) = (entry.user_data() & 3, (entry.user_data() >> 2) as u32);
            match (kind, entry.result()) {
                (RECEIVE, 1..) => {
                    let buffer = cqueue::buffer_select(entry.flags()).ok_or("a receive without a buffer")?;
                    self.buffers.recycle(buffer);
                    let entry =
                        if cqueue::more(entry.flags()) { cancel_receive(place) } else { close(place) };
                    self.push(&entry);
                }
                (RECEIVE, error) if error == -libc::ENOBUFS => self.push(&receive(place)),
                (RECEIVE, _) => {
                    self.closed += 1;
                    self.push(&close(place));
                }
                (SEND, error @ ..0) => return Err(std::io::Error::from_raw_os_error(-error).into()),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for ServerRing {
    fn drop(&mut self) {
        // The last closes are still queued.
        self.io.submit().expect("the kernel accepts the submissions");
    }
}

fn receive(place: u32) -> squeue::Entry {
    opcode::RecvMulti::new(Fixed(place), 0).build().user_data(RECEIVE | u64::from(place) << 2)
}

fn send(place: u32, bytes: &'static [u8]) -> squeue::Entry {
    let send = opcode::Send::new(Fixed(place), bytes.as_ptr(), bytes.len() as u32).flags(SEND_FLAGS);
    send.build().user_data(SEND | u64::from(place) << 2)
}

fn cancel_receive(place: u32) -> squeue::Entry {
    let receive = CancelBuilder::user_data(RECEIVE | u64::from(place) << 2);
    opcode::AsyncCancel2::new(receive).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(OTHER)
}

fn close(place: u32) -> squeue::Entry {
    opcode::Close::new(Fixed(place)).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(OTHER)
}

/// Connects the clients of all rings, and receives until the server has closed all connections.
fn run_clients(settings: &Settings, server: SocketAddr, seen: &Seen) -> Result<(), Failure> {
    let count = settings.connections.div_ceil(settings.places);
    let mut rings = Vec::new();
    for first in (0..settings.connections).step_by(settings.places) {
        let mut ring = Ring::new(RingSettings {
            rings: count as u32,
            descriptors: settings.places as u32,
            buffers: 512,
            buffer_bytes: 1024,
            reserved: 0,
        })?;
        for client in first..settings.connections.min(first + settings.places) {
            let socket = ring.adopt((client - first) as u32, connect(client, server)?.into())?;
            ring.receive(socket, (client - first) as u32);
        }
        rings.push(ring);
    }
    // The rings arm the receives before the clients count as connected.
    let mut completions = Vec::new();
    rings.iter_mut().try_for_each(|ring| ring.turn(Wait::No, &mut completions))?;
    seen.connected.store(settings.connections, Ordering::Release);
    let mut ended = 0;
    while ended < settings.connections {
        let mut ready: Vec<_> =
            rings.iter().map(|ring| PollFd::from_borrowed_fd(ring.as_fd(), PollFlags::IN)).collect();
        poll(&mut ready, Some(&POLL_TIME))?;
        let ready: Vec<bool> = ready.iter().map(|ring| !ring.revents().is_empty()).collect();
        for (ring, _) in rings.iter_mut().zip(ready).filter(|(_, is_ready)| *is_ready) {
            // The second turn submits what the first one has caused.
            for _ in 0..2 {
                ring.turn(Wait::No, &mut completions)?;
                let ends = completions.drain(..).map(|completion| handle(ring, completion, seen));
                ended += ends.sum::<usize>();
            }
        }
    }
    seen.ended.store(ended, Ordering::Release);
    Ok(())
}

/// Handles a completion of a client, as the clients of `quickio-load million` do. Returns the number of clients that have
/// ended.
fn handle(ring: &mut Ring, completion: Completion, seen: &Seen) -> usize {
    match completion {
        Completion::Received { token, buffer, ended } => {
            let is_close = ring.data(&buffer).starts_with(&CLOSE_FRAME[..1]);
            ring.recycle(buffer);
            if is_close {
                ring.send(Descriptor::at(token), token, Frame::new(CLOSE_ANSWER.to_vec(), 0));
            } else {
                seen.received.fetch_add(1, Ordering::Release);
            }
            if ended {
                ring.receive(Descriptor::at(token), token);
            }
            0
        }
        Completion::ReceiveEnded { token, result: Err(error) } if error.is_no_buffers() => {
            ring.receive(Descriptor::at(token), token);
            0
        }
        Completion::ReceiveEnded { token, .. } => {
            ring.close(Descriptor::at(token), token);
            1
        }
        _ => 0,
    }
}

fn connect(client: usize, server: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + (client / CLIENTS_PER_ADDRESS) as u32);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&server.into())?;
    Ok(socket)
}

fn wait_for(count: &AtomicUsize, wanted: usize) {
    while count.load(Ordering::Acquire) < wanted {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A step that is measured.
struct Measured {
    step: &'static str,
    connections: usize,
    cpu: ThreadTime,
    began: Instant,
}

/// The CPU time of a thread, in microseconds.
struct ThreadTime {
    user: f64,
    system: f64,
}

impl Measured {
    fn begin(step: &'static str, connections: usize) -> Measured {
        Measured { step, connections, cpu: ThreadTime::now(), began: Instant::now() }
    }

    /// Returns the CPU time of this thread since the step began.
    fn cpu(&self) -> ThreadTime {
        let now = ThreadTime::now();
        ThreadTime { user: now.user - self.cpu.user, system: now.system - self.cpu.system }
    }

    fn end(self, cpu: &ThreadTime) {
        let Measured { step, connections, .. } = self;
        let (user, all) = (cpu.user / connections as f64, (cpu.user + cpu.system) / connections as f64);
        let seconds = self.began.elapsed().as_secs_f64();
        println!(
            "{step}: {connections} connections; CPU for each {all:.2} us (user {user:.2}); {seconds:.2} s"
        );
    }
}

impl ThreadTime {
    fn now() -> ThreadTime {
        // SAFETY: all-zero bytes are a valid rusage, which the kernel fills.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
            usage
        };
        let us = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
        ThreadTime { user: us(usage.ru_utime), system: us(usage.ru_stime) }
    }
}
