//! The floor of a server's cost: the smallest io_uring program that makes the same receives and sends as the server in
//! a scenario, without a protocol, clients or events. Its cost is that of the kernel. The cost of the server above this
//! floor is that of the server itself.
//!
//! ```text
//! cargo run --release --example floor -- ping   --listen 127.0.0.1:9000 --answer-bytes 44
//! cargo run --release --example floor -- fanout --listen 127.0.0.1:9000 --frame-bytes 86 --burst 1
//! cargo run --release --example floor -- accept --listen 127.0.0.1:9000 --answers 162,11,4
//! ```
//!
//! `ping`: each receive, of any bytes, is answered with one send of `--answer-bytes`. `fanout`: each receive on the
//! first connection causes one send of `--frame-bytes` times `--burst` to each of the others. `accept`: the receives on
//! a connection are answered with sends of these sizes, and the connection is closed behind the last one. These are the
//! upgrade, the greeting and the Close frame of a WebSocket. `quickio-load ping|fanout|churn --protocol none` generates
//! the load, and `scripts/floor.sh` runs both programs.
//!
//! The program uses the kernel in the same way as the server: one thread, a ring with SINGLE_ISSUER and DEFER_TASKRUN,
//! direct descriptors, single accepts that bring the address of the peer, multishot receive into provided buffers, and one
//! send for each client with output. All operations of a turn are submitted by one `io_uring_enter`, which also waits.

#![allow(unsafe_code)]

#[path = "floor_io/buffers.rs"]
mod buffers;

use buffers::Buffers;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

const SUBMISSIONS: u32 = 2048;
const COMPLETIONS: u32 = 16_384;
const DESCRIPTORS: u32 = 16_384;

/// The number of accepts that are armed, which is the default of the server.
const ACCEPTS: usize = 64;

/// The flags of sends, as in the server: a peer that has disconnected causes no signal, and the kernel retries short
/// sends.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// The kind of an operation, in the lowest bits of its user data. The descriptor, or the number of an accept, is in the
/// bits above.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;

/// The reaction to a receive.
#[derive(Clone, Copy)]
enum Mode {
    /// Sends the answer.
    Ping,
    /// Sends the output to every connection but the first, if the receive was on the first one.
    Fanout,
    /// Sends the next answer, and closes the connection behind the last one.
    Accept,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut parser = lexopt::Parser::from_env();
    let (mut mode, mut listen) = (Mode::Ping, SocketAddr::from(([127, 0, 0, 1], 9000)));
    let mut answers = "162,11,4".to_owned();
    let (mut answer_bytes, mut frame_bytes, mut burst) = (44, 86, 1);
    while let Some(arg) = parser.next()? {
        use lexopt::prelude::*;
        match arg {
            Value(name) if name == "ping" => mode = Mode::Ping,
            Value(name) if name == "fanout" => mode = Mode::Fanout,
            Value(name) if name == "accept" => mode = Mode::Accept,
            Long("listen") => listen = parser.value()?.parse()?,
            Long("answer-bytes") => answer_bytes = parser.value()?.parse()?,
            Long("frame-bytes") => frame_bytes = parser.value()?.parse()?,
            Long("answers") => answers = parser.value()?.string()?,
            Long("burst") => burst = parser.value()?.parse::<usize>()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let sizes = match mode {
        Mode::Ping => vec![answer_bytes],
        Mode::Fanout => vec![frame_bytes * burst],
        Mode::Accept => answers.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?,
    };
    // The output is leaked and therefore outlives all sends.
    let outputs: Vec<&[u8]> = sizes.into_iter().map(|len| &*vec![b'x'; len].leak()).collect();
    serve(mode, listen, &outputs)
}

/// Serves until the process is killed.
fn serve(
    mode: Mode,
    listen: SocketAddr,
    outputs: &[&'static [u8]],
) -> Result<(), Box<dyn std::error::Error>> {
    let listener = listener(listen)?;
    let mut io = ring()?;
    let mut buffers = Buffers::register(&io)?;
    let mut peers = Peers::new(&io);
    (0..ACCEPTS).for_each(|accept| push(&mut io, &peers.accept(&listener, accept)));
    let mut clients: Vec<u32> = Vec::new();
    let mut answered = vec![0; DESCRIPTORS as usize];
    let mut completions: Vec<(u64, i32, u32)> = Vec::new();
    loop {
        io.submit_and_wait(1)?;
        completions.extend(io.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        for (data, result, flags) in completions.drain(..) {
            let (kind, descriptor) = (data & 3, (data >> 2) as u32);
            match kind {
                ACCEPT if result >= 0 => {
                    push(&mut io, &peers.accept(&listener, descriptor as usize));
                    push(&mut io, &receive(result as u32));
                    answered[result as usize] = 0;
                    if !matches!(mode, Mode::Accept) {
                        clients.push(result as u32);
                    }
                }
                ACCEPT => return Err(std::io::Error::from_raw_os_error(-result).into()),
                RECEIVE if result > 0 => {
                    buffers.recycle(cqueue::buffer_select(flags).ok_or("a receive without a buffer")?);
                    let answer = &mut answered[descriptor as usize];
                    react(&mut io, mode, descriptor, &clients, outputs, answer);
                    if !cqueue::more(flags) {
                        push(&mut io, &receive(descriptor));
                    }
                }
                RECEIVE if result == -libc::ENOBUFS => push(&mut io, &receive(descriptor)),
                RECEIVE => {
                    clients.retain(|client| *client != descriptor);
                    let close = opcode::Close::new(Fixed(descriptor)).build();
                    push(&mut io, &close.flags(squeue::Flags::SKIP_SUCCESS).user_data(CLOSE));
                }
                _ => {}
            }
        }
    }
}

fn listener(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.set_tcp_nodelay(true)?; // accepted sockets inherit it
    listener.bind(&listen.into())?;
    listener.listen(4096)?;
    Ok(listener.into())
}

fn ring() -> std::io::Result<IoUring> {
    let io = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)?;
    io.submitter().register_files_sparse(DESCRIPTORS.min(descriptors_max()))?;
    io.submitter().register_ring_fd()?;
    Ok(io)
}

/// Sends what a receive causes. `answer` is the number of answers that the connection has received.
#[inline]
fn react(
    io: &mut IoUring,
    mode: Mode,
    descriptor: u32,
    clients: &[u32],
    outputs: &[&'static [u8]],
    answer: &mut usize,
) {
    match mode {
        Mode::Ping => push(io, &send(descriptor, outputs[0])),
        Mode::Fanout if clients.first() == Some(&descriptor) => {
            clients[1..].iter().for_each(|client| push(io, &send(*client, outputs[0])));
        }
        Mode::Fanout => {}
        Mode::Accept => {
            let (output, is_last) = (outputs[*answer], *answer + 1 == outputs.len());
            *answer += 1;
            let flags = if is_last { SEND_FLAGS | libc::MSG_MORE } else { SEND_FLAGS };
            push(io, &send_with(descriptor, output, flags));
            if is_last {
                push(io, &cancel_receive(descriptor));
            }
        }
    }
}

fn receive(descriptor: u32) -> squeue::Entry {
    opcode::RecvMulti::new(Fixed(descriptor), 0).build().user_data(RECEIVE | u64::from(descriptor) << 2)
}

/// Ends the receive of a connection, which is then closed.
fn cancel_receive(descriptor: u32) -> squeue::Entry {
    let receive = CancelBuilder::user_data(RECEIVE | u64::from(descriptor) << 2);
    opcode::AsyncCancel2::new(receive).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(CLOSE)
}

fn send(descriptor: u32, output: &'static [u8]) -> squeue::Entry {
    send_with(descriptor, output, SEND_FLAGS)
}

fn send_with(descriptor: u32, output: &'static [u8], flags: i32) -> squeue::Entry {
    let send = opcode::Send::new(Fixed(descriptor), output.as_ptr(), output.len() as u32);
    send.flags(flags).build().user_data(SEND | u64::from(descriptor) << 2)
}

fn push(io: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: the only memory that entries name are outputs and the addresses of peers, which are never freed.
    while unsafe { io.submission().push(entry) }.is_err() {
        io.submit().expect("the kernel accepts the submissions");
    }
}

/// `IORING_ACCEPT_POLL_FIRST`, as in the server: an accept is not attempted before a connection waits.
const ACCEPT_POLL_FIRST: u16 = 1 << 2;

/// Sets the field `ioprio` of an entry, which has the flags of an accept.
fn with_ioprio(mut entry: squeue::Entry, ioprio: u16) -> squeue::Entry {
    // SAFETY: an entry is an io_uring_sqe, whose third and fourth bytes are this field. Any value is valid.
    unsafe { (&raw mut entry).cast::<u8>().add(2).cast::<u16>().write(ioprio) };
    entry
}

/// Returns the maximum number of descriptors of a ring, which is the limit of the process.
fn descriptors_max() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

/// The memory for the addresses of peers, one for each accept. It is never freed.
struct Peers {
    addresses: Vec<(*mut libc::sockaddr, *mut libc::socklen_t)>,
    poll_first: bool,
}

impl Peers {
    fn new(io: &IoUring) -> Peers {
        // SAFETY: all-zero bytes are a valid sockaddr_storage.
        let address = || Box::leak(Box::new(unsafe { std::mem::zeroed::<libc::sockaddr_storage>() }));
        let each = |_| ((&raw mut *address()).cast(), &raw mut *Box::leak(Box::new(0)));
        // The kernel has got both with the same release, 6.10.
        let poll_first = io.params().is_feature_recvsend_bundle();
        Peers { addresses: (0..ACCEPTS).map(each).collect(), poll_first }
    }

    fn accept(&mut self, listener: &TcpListener, accept: usize) -> squeue::Entry {
        let (address, len) = self.addresses[accept];
        // SAFETY: the memory is never freed, and the kernel uses it only while the accept is in flight.
        unsafe { *len = size_of::<libc::sockaddr_storage>() as libc::socklen_t };
        let entry = opcode::Accept::new(Fd(listener.as_raw_fd()), address, len)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        let entry = if self.poll_first { with_ioprio(entry, ACCEPT_POLL_FIRST) } else { entry };
        entry.user_data(ACCEPT | (accept as u64) << 2)
    }
}
