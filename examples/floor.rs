//! The floor of a server's cost: the smallest io_uring program that makes the same receives and sends as the server in
//! a scenario, without a protocol, clients or events. Its cost is that of the kernel. The cost of the server above this
//! floor is that of the server itself.
//!
//! ```text
//! cargo run --release --example floor -- ping   --listen 127.0.0.1:9000 --answer-bytes 44
//! cargo run --release --example floor -- fanout --listen 127.0.0.1:9000 --frame-bytes 86 --burst 1
//! ```
//!
//! `ping`: each receive, of any bytes, is answered with one send of `--answer-bytes`. `fanout`: each receive on the
//! first connection causes one send of `--frame-bytes` times `--burst` to each of the others. `quickio-load ping|fanout
//! --protocol none` generates the load, and `scripts/floor.sh` runs both programs.
//!
//! The program uses the kernel in the same way as the server: one thread, a ring with SINGLE_ISSUER and DEFER_TASKRUN,
//! direct descriptors, multishot receive into provided buffers, and one send for each client with output. All
//! operations of a turn are submitted by one `io_uring_enter`, which also waits.

#![allow(unsafe_code)]

use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::alloc::{Layout, alloc_zeroed};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

const SUBMISSIONS: u32 = 2048;
const COMPLETIONS: u32 = 16_384;
const DESCRIPTORS: u32 = 16_384;

/// The number of provided buffers. Number and size are the defaults of the server.
const BUFFERS: u16 = 512;
const BUFFER_BYTES: usize = 4096;

/// The flags of sends, as in the server: a peer that has disconnected causes no signal, and the kernel retries short
/// sends.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// The kind of an operation, in the lowest bits of its user data. The descriptor is in the bits above.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut parser = lexopt::Parser::from_env();
    let (mut fanout, mut listen) = (false, SocketAddr::from(([127, 0, 0, 1], 9000)));
    let (mut answer_bytes, mut frame_bytes, mut burst) = (44, 86, 1);
    while let Some(arg) = parser.next()? {
        use lexopt::prelude::*;
        match arg {
            Value(mode) if mode == "ping" => fanout = false,
            Value(mode) if mode == "fanout" => fanout = true,
            Long("listen") => listen = parser.value()?.parse()?,
            Long("answer-bytes") => answer_bytes = parser.value()?.parse()?,
            Long("frame-bytes") => frame_bytes = parser.value()?.parse()?,
            Long("burst") => burst = parser.value()?.parse::<usize>()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let len = if fanout { frame_bytes * burst } else { answer_bytes };
    serve(fanout, listen, vec![b'x'; len].leak())
}

/// Serves until the process is killed. Every send sends `output`, which is leaked and therefore outlives all sends.
fn serve(fanout: bool, listen: SocketAddr, output: &'static [u8]) -> Result<(), Box<dyn std::error::Error>> {
    let listener = socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.set_tcp_nodelay(true)?; // accepted sockets inherit it
    listener.bind(&listen.into())?;
    listener.listen(4096)?;
    let listener = TcpListener::from(listener);
    let mut io = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)?;
    io.submitter().register_files_sparse(DESCRIPTORS.min(descriptors_max()))?;
    io.submitter().register_ring_fd()?;
    let mut buffers = Buffers::register(&io)?;
    push(&mut io, &opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true).build());
    let mut clients: Vec<u32> = Vec::new();
    let mut completions: Vec<(u64, i32, u32)> = Vec::new();
    loop {
        io.submit_and_wait(1)?;
        completions.extend(io.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        for (data, result, flags) in completions.drain(..) {
            let (kind, descriptor) = (data & 3, (data >> 2) as u32);
            match kind {
                ACCEPT if result >= 0 => {
                    clients.push(result as u32);
                    push(&mut io, &receive(result as u32));
                }
                ACCEPT => return Err(std::io::Error::from_raw_os_error(-result).into()),
                RECEIVE if result > 0 => {
                    buffers.recycle(cqueue::buffer_select(flags).ok_or("a receive without a buffer")?);
                    if !fanout {
                        push(&mut io, &send(descriptor, output));
                    } else if clients.first() == Some(&descriptor) {
                        clients[1..].iter().for_each(|client| push(&mut io, &send(*client, output)));
                    }
                    if !cqueue::more(flags) {
                        push(&mut io, &receive(descriptor));
                    }
                }
                RECEIVE if result == -libc::ENOBUFS => push(&mut io, &receive(descriptor)),
                RECEIVE => {
                    clients.retain(|client| *client != descriptor);
                    let close = opcode::Close::new(Fixed(descriptor)).build();
                    push(&mut io, &close.user_data(CLOSE | u64::from(descriptor) << 2));
                }
                _ => {}
            }
        }
    }
}

fn receive(descriptor: u32) -> squeue::Entry {
    opcode::RecvMulti::new(Fixed(descriptor), 0).build().user_data(RECEIVE | u64::from(descriptor) << 2)
}

fn send(descriptor: u32, output: &'static [u8]) -> squeue::Entry {
    let send = opcode::Send::new(Fixed(descriptor), output.as_ptr(), output.len() as u32);
    send.flags(SEND_FLAGS).build().user_data(SEND | u64::from(descriptor) << 2)
}

fn push(io: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: the only memory that entries name is `output`, which is never freed.
    while unsafe { io.submission().push(entry) }.is_err() {
        io.submit().expect("the kernel accepts the submissions");
    }
}

/// Returns the maximum number of descriptors of a ring, which is the limit of the process.
fn descriptors_max() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

/// The provided buffers. The received data is not read.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    fn register(io: &IoUring) -> Result<Buffers, Box<dyn std::error::Error>> {
        let entries = Layout::from_size_align(usize::from(BUFFERS) * size_of::<BufRingEntry>(), 4096)?;
        let memory = Layout::from_size_align(usize::from(BUFFERS) * BUFFER_BYTES, 4096)?;
        // SAFETY: the layouts are not empty. The memory is never freed, and the kernel may use it until the process
        // ends.
        let (entries, memory) =
            unsafe { (alloc_zeroed(entries).cast::<BufRingEntry>(), alloc_zeroed(memory)) };
        if entries.is_null() || memory.is_null() {
            return Err("no memory for the receive buffers".into());
        }
        // SAFETY: `entries` is page-aligned, has room for BUFFERS entries, and is never freed.
        unsafe { io.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, 0, 0)? };
        let mut buffers = Buffers { entries, memory, tail: 0 };
        (0..BUFFERS).for_each(|id| buffers.recycle(id));
        Ok(buffers)
    }

    fn recycle(&mut self, id: u16) {
        let slot = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: slot and id are below BUFFERS (the kernel names only buffers that it was given), hence both are
        // within the allocations. The kernel reads only entries below the tail, and this entry is published by the
        // store below.
        unsafe {
            let entry = &mut *self.entries.add(slot);
            entry.set_addr(self.memory.add(usize::from(id) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
