//! The shard's io_uring: the only file with the kernel interface. What goes in is typed (listeners, sockets,
//! frames), what comes out is a list of [`Completion`]s; the shard sees neither entries nor pointers.
//!
//! Everything queued in a turn goes to the kernel in one `io_uring_enter`, which also runs the kernel's
//! completion work (`DEFER_TASKRUN`) and, where there is nothing to do, waits: [`Ring::turn`].
//!
//! Invariant of the `unsafe` here: whatever memory an operation names (an address to fill, a frame to read, an
//! iovec) is owned by the ring, at a place that does not move, until the completion that ends the operation
//! was seen. These are accepts and sends, which `outstanding` counts; a ring that is dropped cancels them and
//! waits, and leaks what the kernel would not let go. (The doorbell's eight bytes are always leaked: its read is
//! always armed.) A receive names no memory while it waits: the kernel takes a provided buffer when data has come,
//! on this thread, inside a call of ours.
//!
//! Operations are cancelled by their user data, which the kernel looks up. Cancelling by socket, or all at once,
//! makes it look at every operation that waits, each time: with 16,384 sockets that took 0.9 ms for each.

#![allow(unsafe_code)]

use super::buffers::{Buffer, Buffers, Frame, GROUP};
use super::slots::Slots;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, mem};

/// Submissions that fit between two calls into the kernel. More than that make an extra call, no harm.
const SUBMISSIONS: u32 = 2048;

/// Completions the kernel keeps in the shared ring; beyond, it queues them itself and loses none.
const COMPLETIONS: u32 = 16_384;

/// Threads on which the kernel may do for a ring what it cannot do at once: shutting sockets down. It would start
/// as many as there are shutdowns otherwise.
const WORKERS_MAX: u32 = 2;

/// Frames of one `sendmsg`, at most: the kernel's limit for an iovec (UIO_MAXIOV).
pub const FRAMES_PER_SEND_MAX: usize = 1024;

/// How often a dropped ring asks the kernel to let go before it leaks what is in flight.
const DROP_TURNS: usize = 100;

/// What a ring is made with.
#[derive(Clone, Copy, Debug)]
pub struct RingSettings {
    /// Sockets the ring can hold, at most. Bounded by `RLIMIT_NOFILE` for each ring (not for the process).
    pub descriptors: u32,
    /// Provided receive buffers: a power of two.
    pub buffers: u16,
    /// Bytes of each receive buffer.
    pub buffer_bytes: u32,
    /// Places of the table, from 0 on, that are kept for sockets which the process connects itself ([`Ring::adopt`]): the
    /// kernel gives none of them to what it accepts.
    pub reserved: u32,
}

/// A socket in the ring's own descriptor table. It is no process descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(u32);

impl Descriptor {
    /// What lies in a place that is reserved.
    pub fn at(place: u32) -> Descriptor {
        Descriptor(place)
    }

    /// A name for a socket of a kernel that is made up, in tests and benches.
    pub(crate) fn made_up(number: u32) -> Descriptor {
        Descriptor(number)
    }
}

/// The caller's name for a socket, given back with each of its completions.
pub type Token = u32;

/// How long a turn may wait for news.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    No,
    For(Duration),
    Forever,
}

/// The kernel's error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What the ring has to tell. `ended` says that this was the operation's last completion.
#[derive(Debug)]
pub enum Completion {
    Accepted {
        listener: usize,
        socket: Descriptor,
        peer: PeerAddress,
    },
    AcceptFailed {
        listener: usize,
        error: Errno,
    },
    Received {
        token: Token,
        buffer: Buffer,
        ended: bool,
    },
    /// The receive ended: `Ok` at the end of the stream, `ENOBUFS` where the buffers had run out.
    ReceiveEnded {
        token: Token,
        result: Result<(), Errno>,
    },
    Sent {
        token: Token,
        result: Result<(), Errno>,
        frames: FrameBatch,
    },
    ShutDown {
        token: Token,
    },
    Closed {
        token: Token,
    },
    /// A peer shard or another thread has left something.
    Woken,
    /// A doorbell did not reach the ring of this descriptor.
    DoorbellFailed {
        ring: RawFd,
        error: Errno,
    },
}

/// A send that the kernel has not completed yet.
struct InFlight {
    token: Token,
    frames: FrameBatch,
}

/// Frames that are in flight, or that were until the completion that carries them.
#[derive(Debug)]
pub enum FrameBatch {
    One(Frame),
    Many(Box<Gathered>),
}

/// Frames that one `sendmsg` sends, with the iovec that names them.
pub struct Gathered {
    frames: Vec<Frame>,
    iovecs: Vec<libc::iovec>,
    header: libc::msghdr,
}

/// A ring, made on the thread that uses it: the kernel takes submissions from no other.
pub struct Ring {
    io: IoUring,
    buffers: ManuallyDrop<Buffers>,
    listeners: Vec<Listener>,
    accepts: ManuallyDrop<Vec<Accept>>,
    in_flight: ManuallyDrop<Slots<InFlight>>,
    doorbell: Doorbell,
    doorbell_count: ManuallyDrop<Box<u64>>,
    outstanding: usize,
    full: u64,
    buffers_ran_out: bool,
    reaped: Vec<cqueue::Entry>,
}

/// A listening socket; none once it was closed.
struct Listener(Option<OwnedFd>);

/// An accept in flight: the kernel writes the peer's address here.
struct Accept {
    listener: usize,
    address: Box<(libc::sockaddr_storage, libc::socklen_t)>,
    armed: bool,
}

/// What a completion belongs to: the low bits of its user data. Above them stand 28 bits of index (in flight)
/// and 32 bits of token.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Kind {
    Accept,
    Receive,
    Send,
    ShutDown,
    Close,
    Doorbell,
    MessageRing,
    Cancel,
}

const KIND_BITS: u32 = 4;
const INDEX_BITS: u32 = 28;

impl Ring {
    /// Makes a ring. See [`super::probe`] for what the errors mean to an operator.
    pub fn new(settings: RingSettings) -> io::Result<Ring> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(SUBMISSIONS)?;
        io.submitter().register_files_sparse(settings.descriptors + settings.reserved)?;
        io.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, WORKERS_MAX])?;
        let buffers = Buffers::register(&io, settings.buffers, settings.buffer_bytes)?;
        let mut ring = Ring {
            io,
            buffers: ManuallyDrop::new(buffers),
            listeners: Vec::new(),
            accepts: ManuallyDrop::new(Vec::new()),
            in_flight: ManuallyDrop::new(Slots::new()),
            doorbell: Doorbell::new()?,
            doorbell_count: ManuallyDrop::new(Box::new(0)),
            outstanding: 0,
            full: 0,
            buffers_ran_out: false,
            reaped: Vec::new(),
        };
        ring.io.submitter().register_ring_fd()?;
        for place in 0..settings.reserved {
            ring.occupy(place)?;
        }
        ring.listen_to_doorbell();
        Ok(ring)
    }

    /// The descriptor by which other shards name this ring: see [`Ring::ring_peer`].
    pub fn raw_fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }

    /// What other threads wake this ring with.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// Starts to accept from a listening socket; answers its number, which its completions carry.
    /// `accepts` are in flight at once.
    pub fn listen(&mut self, socket: OwnedFd, accepts: u16) -> usize {
        let listener = self.listeners.len();
        self.listeners.push(Listener(Some(socket)));
        for _ in 0..accepts {
            // SAFETY: all-zero bytes are a valid sockaddr_storage.
            let address = Box::new((unsafe { mem::zeroed() }, 0));
            self.accepts.push(Accept { listener, address, armed: false });
        }
        self.accept_again();
        listener
    }

    /// Arms accepts that failed, or that completed, again. A failed accept waits for this call, so that a
    /// lack of descriptors does not become a busy loop.
    pub fn accept_again(&mut self) {
        for index in 0..self.accepts.len() {
            self.arm_accept(index);
        }
    }

    /// Stops accepting: accepts in flight are cancelled, the listening sockets closed.
    pub fn stop_listening(&mut self) {
        for index in 0..self.accepts.len() {
            if self.accepts[index].armed {
                self.cancel_operation(user_data(Kind::Accept, index, 0));
            }
        }
        // An accept that is still queued names its socket by number: the kernel has to see it before that number
        // can be another file's.
        self.submit_all();
        self.listeners.iter_mut().for_each(|listener| listener.0 = None);
    }

    /// Puts a connected socket of the process into the ring's table, at a place of the caller's choice.
    ///
    /// A ring that also accepts must leave the places to the kernel, but those that are reserved.
    pub fn adopt(&mut self, place: u32, socket: OwnedFd) -> io::Result<Descriptor> {
        self.io.submitter().register_files_update(place, &[socket.as_raw_fd()])?;
        Ok(Descriptor(place))
    }

    /// Takes a socket out of a reserved place. Nothing may be in flight on it any more.
    pub fn release(&mut self, place: u32) {
        // It can fail only for a lack of memory; then the socket stays until another is put there.
        let _ = self.occupy(place);
    }

    /// Puts something harmless into a reserved place, so that the kernel takes it for taken.
    fn occupy(&self, place: u32) -> io::Result<()> {
        self.io.submitter().register_files_update(place, &[self.doorbell.0.as_raw_fd()]).map(drop)
    }

    /// Receives from a socket until it ends: each piece of data is one [`Completion::Received`].
    pub fn receive(&mut self, socket: Descriptor, token: Token) {
        let entry = opcode::RecvMulti::new(Fixed(socket.0), GROUP).build();
        self.push(entry.user_data(user_data(Kind::Receive, 0, token)));
    }

    /// The bytes of a received buffer, to be decoded in place.
    pub fn data(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.buffers.data(buffer)
    }

    /// Gives a received buffer back to the kernel.
    pub fn recycle(&mut self, buffer: Buffer) {
        self.buffers.recycle(buffer);
    }

    /// Sends a frame. The kernel retries short sends (`MSG_WAITALL`), so there is one completion for it all.
    ///
    /// At most one send of a socket may be in flight: the kernel orders no two of them.
    pub fn send(&mut self, socket: Descriptor, token: Token, frame: Frame) {
        let (start, len) = (frame.as_slice().as_ptr(), frame.len() as u32);
        let index = self.in_flight.insert(InFlight { token, frames: FrameBatch::One(frame) });
        let entry = opcode::Send::new(Fixed(socket.0), start, len).flags(SEND_FLAGS).build();
        self.push_counted(entry.user_data(user_data(Kind::Send, index, token)));
    }

    /// Sends several frames with one `sendmsg`, at most [`FRAMES_PER_SEND_MAX`].
    pub fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>) {
        assert!(frames.len() <= FRAMES_PER_SEND_MAX, "the caller cuts its outbox to what one sendmsg takes");
        let gathered = Gathered::new(frames);
        let header = &raw const gathered.header;
        let index = self.in_flight.insert(InFlight { token, frames: FrameBatch::Many(gathered) });
        let entry = opcode::SendMsg::new(Fixed(socket.0), header).flags(SEND_FLAGS as u32).build();
        self.push_counted(entry.user_data(user_data(Kind::Send, index, token)));
    }

    /// Tells the peer the end of our stream: shuts the sending direction down.
    ///
    /// The kernel does it on a thread of its own, and looks the socket up when it gets there: the socket must not be
    /// closed before [`Completion::ShutDown`], or another connection that has its place by then is shut down.
    pub fn shut_down(&mut self, socket: Descriptor, token: Token) {
        let entry = opcode::Shutdown::new(Fixed(socket.0), libc::SHUT_WR).build();
        self.push(entry.user_data(user_data(Kind::ShutDown, 0, token)));
    }

    /// Cancels the receive with this token, and, where one is under way (`sending`), the send: both complete, with an
    /// error. The token must be that of one socket only.
    ///
    /// Finding the send takes a look at all sends in flight, so say that there is one only where there is.
    pub fn cancel(&mut self, token: Token, sending: bool) {
        self.cancel_operation(user_data(Kind::Receive, 0, token));
        if sending {
            self.cancel_sends(|in_flight| in_flight.token == token);
        }
    }

    /// Closes a socket and frees its place in the table. Nothing may be in flight on it any more.
    pub fn close(&mut self, socket: Descriptor, token: Token) {
        let entry = opcode::Close::new(Fixed(socket.0)).build();
        self.push(entry.user_data(user_data(Kind::Close, 0, token)));
    }

    /// Wakes the ring of another shard: it sees [`Completion::Woken`]. Rides in the next submission; only a
    /// failure comes back.
    pub fn ring_peer(&mut self, ring: RawFd) {
        let entry = opcode::MsgRingData::new(Fd(ring), 0, user_data(Kind::MessageRing, 0, 0), None).build();
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(user_data(Kind::MessageRing, 0, ring as u32)));
    }

    /// Submits everything that was queued, runs the kernel's completion work, waits where asked to and nothing
    /// is there, and appends what has completed.
    pub fn turn(&mut self, wait: Wait, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.enter(wait)?;
        let mut reaped = mem::take(&mut self.reaped);
        reaped.extend(self.io.completion());
        completions.extend(reaped.drain(..).filter_map(|entry| self.complete(&entry)));
        self.reaped = reaped;
        if mem::take(&mut self.buffers_ran_out) {
            self.buffers.grow();
        }
        Ok(())
    }

    /// How often the submission queue was full before its turn, since the last call.
    pub fn take_submission_overflows(&mut self) -> u64 {
        mem::take(&mut self.full)
    }

    /// Sends that are in flight.
    pub fn sends_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let submitter = self.io.submitter();
        let entered = match wait {
            Wait::Forever => submitter.submit_and_wait(1),
            Wait::For(time) => {
                let time = Timespec::new().sec(time.as_secs()).nsec(time.subsec_nanos());
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
            Wait::No => {
                let queued = self.io.submission().len() as u32;
                // SAFETY: no argument is passed; GETEVENTS with 0 to wait for only runs completion work.
                unsafe { self.io.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) }
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Interrupted, timed out, or the kernel wants completions to be reaped first.
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (kind, index, token) = split_user_data(entry.user_data());
        let ended = !cqueue::more(entry.flags());
        if ended && matches!(kind, Kind::Accept | Kind::Send) {
            self.outstanding -= 1;
        }
        let result = entry.result();
        match kind {
            Kind::Accept => self.accepted(index, result),
            Kind::Receive => {
                self.buffers_ran_out |= result == -libc::ENOBUFS;
                Some(received(token, entry, ended))
            }
            Kind::Send => {
                let sent = self.in_flight.remove(index).expect("an index is free once its completion came");
                let frames = sent.frames;
                let result = if result == frames.len() as i32 { Ok(()) } else { Err(short_send(result)) };
                Some(Completion::Sent { token, result, frames })
            }
            Kind::ShutDown => Some(Completion::ShutDown { token }),
            Kind::Close => Some(Completion::Closed { token }),
            Kind::Doorbell => {
                self.listen_to_doorbell();
                Some(Completion::Woken)
            }
            Kind::MessageRing if result < 0 => {
                Some(Completion::DoorbellFailed { ring: token as RawFd, error: Errno(-result) })
            }
            Kind::MessageRing => Some(Completion::Woken),
            Kind::Cancel => None,
        }
    }

    fn accepted(&mut self, index: usize, result: i32) -> Option<Completion> {
        let accept = &mut self.accepts[index];
        accept.armed = false;
        let listener = accept.listener;
        if result < 0 && self.listeners[listener].0.is_none() {
            return None;
        }
        if result < 0 {
            return Some(Completion::AcceptFailed { listener, error: Errno(-result) });
        }
        let peer = PeerAddress::from_storage(&accept.address.0);
        self.arm_accept(index);
        Some(Completion::Accepted { listener, socket: Descriptor(result as u32), peer })
    }

    fn arm_accept(&mut self, index: usize) {
        let accept = &mut self.accepts[index];
        let Some(socket) = &self.listeners[accept.listener].0 else { return };
        if accept.armed {
            return;
        }
        accept.armed = true;
        accept.address.1 = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let (address, len) = &mut *accept.address;
        let entry = opcode::Accept::new(Fd(socket.as_raw_fd()), (&raw mut *address).cast(), len)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push_counted(entry.user_data(user_data(Kind::Accept, index, 0)));
    }

    fn listen_to_doorbell(&mut self) {
        let into = (&raw mut **self.doorbell_count).cast();
        let entry = opcode::Read::new(Fd(self.doorbell.0.as_raw_fd()), into, 8).build();
        self.push(entry.user_data(user_data(Kind::Doorbell, 0, 0)));
    }

    fn cancel_sends(&mut self, which: impl Fn(&InFlight) -> bool) {
        let sends = self.in_flight.iter().filter(|(_, in_flight)| which(in_flight));
        let sends: Vec<u64> =
            sends.map(|(index, in_flight)| user_data(Kind::Send, index, in_flight.token)).collect();
        sends.into_iter().for_each(|send| self.cancel_operation(send));
    }

    fn cancel_operation(&mut self, operation: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(operation)).build();
        self.push(entry.user_data(user_data(Kind::Cancel, 0, 0)));
    }

    /// Pushes an operation that names memory of ours.
    fn push_counted(&mut self, entry: squeue::Entry) {
        self.outstanding += 1;
        self.push(entry);
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: every entry is made by a method of this type, which keeps the memory that it names alive
            // and in place until the operation has completed (the invariant at the top).
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                return;
            }
            self.full += 1;
            self.submit();
        }
    }

    /// Hands everything that is queued to the kernel.
    fn submit_all(&mut self) {
        while !self.io.submission().is_empty() {
            self.submit();
        }
    }

    fn submit(&mut self) {
        if let Err(error) = self.io.submit() {
            // EBUSY and EAGAIN pass once memory is there; anything else is a bug of this file.
            assert!(
                matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)),
                "io_uring_enter refused the submissions: {error}"
            );
        }
    }
}

impl Drop for Ring {
    /// Cancels what names memory of ours and waits until the kernel has let go of it; leaks it otherwise.
    fn drop(&mut self) {
        self.stop_listening();
        self.cancel_sends(|_| true);
        let mut dropped = Vec::new();
        for _ in 0..DROP_TURNS {
            if self.outstanding == 0 {
                break;
            }
            if self.turn(Wait::For(Duration::from_millis(10)), &mut dropped).is_err() {
                return;
            }
            dropped.clear();
        }
        if self.outstanding > 0 {
            return;
        }
        // SAFETY: no accept and no send is outstanding, so the kernel names none of their memory any more, and
        // nothing uses these fields after drop.
        unsafe {
            ManuallyDrop::drop(&mut self.accepts);
            ManuallyDrop::drop(&mut self.in_flight);
        }
        if self.io.submitter().unregister_buf_ring(GROUP).is_ok() {
            // SAFETY: receives that still wait find no buffers any more; nothing uses this field after drop.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}

/// A peer that is gone is an error, never a signal; a send is whole or it has failed.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1;

fn received(token: Token, entry: &cqueue::Entry, ended: bool) -> Completion {
    match (entry.result(), cqueue::buffer_select(entry.flags())) {
        (len @ 1.., Some(id)) => {
            Completion::Received { token, buffer: Buffer::received(id, len as u32), ended }
        }
        (error @ ..=-1, _) => Completion::ReceiveEnded { token, result: Err(Errno(-error)) },
        _ => Completion::ReceiveEnded { token, result: Ok(()) },
    }
}

/// A send that is short although the kernel retries met the connection's end.
fn short_send(result: i32) -> Errno {
    if result < 0 { Errno(-result) } else { Errno(libc::EPIPE) }
}

fn user_data(kind: Kind, index: usize, token: Token) -> u64 {
    debug_assert!(index < 1 << INDEX_BITS);
    kind as u64 | (index as u64) << KIND_BITS | u64::from(token) << (KIND_BITS + INDEX_BITS)
}

fn split_user_data(data: u64) -> (Kind, usize, Token) {
    const KINDS: [Kind; 8] = [
        Kind::Accept,
        Kind::Receive,
        Kind::Send,
        Kind::ShutDown,
        Kind::Close,
        Kind::Doorbell,
        Kind::MessageRing,
        Kind::Cancel,
    ];
    let index = (data >> KIND_BITS) as usize & ((1 << INDEX_BITS) - 1);
    (KINDS[data as usize & 7], index, (data >> (KIND_BITS + INDEX_BITS)) as Token)
}

impl FrameBatch {
    /// The frames, in order.
    pub fn frames(&self) -> &[Frame] {
        match self {
            FrameBatch::One(frame) => std::slice::from_ref(frame),
            FrameBatch::Many(gathered) => &gathered.frames,
        }
    }

    /// Bytes of all frames.
    pub fn len(&self) -> usize {
        self.frames().iter().map(Frame::len).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Gathered {
    fn new(frames: Vec<Frame>) -> Box<Gathered> {
        let iovec = |frame: &Frame| libc::iovec {
            iov_base: frame.as_slice().as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        };
        let iovecs = frames.iter().map(iovec).collect();
        // SAFETY: all-zero bytes are a valid msghdr: no name, no control data, no iovec yet.
        let header = unsafe { mem::zeroed() };
        let mut gathered = Box::new(Gathered { frames, iovecs, header });
        gathered.header.msg_iov = gathered.iovecs.as_mut_ptr();
        gathered.header.msg_iovlen = gathered.iovecs.len() as _;
        gathered
    }
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames", self.frames.len())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame of {} bytes", self.len())
    }
}

impl Errno {
    /// Whether the process or the system has no descriptor or memory left for another connection.
    pub fn is_exhaustion(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
    }

    /// Whether only the connection that was to be accepted is at fault: it has gone.
    pub fn affects_one_connection(self) -> bool {
        matches!(self.0, libc::ECONNABORTED | libc::EPROTO | libc::EINTR)
    }

    /// Whether the provided buffers had run out.
    pub fn is_no_buffers(self) -> bool {
        self.0 == libc::ENOBUFS
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What wakes a ring from any thread.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<File>);

impl Doorbell {
    fn new() -> io::Result<Doorbell> {
        // SAFETY: eventfd takes two integers; the descriptor it answers is new and ours alone.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Doorbell(Arc::new(unsafe { File::from_raw_fd(descriptor) })))
    }

    /// Wakes the ring: one system call. Use it only where the ring sleeps.
    pub fn ring(&self) {
        // The counter cannot reach its limit: each reading takes it to zero, and 2^64-2 rings take longer.
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }
}

/// The address of a peer, compactly: what a connection's record can afford.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress {
    ip: [u8; 16],
    port: u16,
    unix: bool,
}

impl PeerAddress {
    /// The peer of a Unix socket: it has no address worth naming.
    pub const UNIX: PeerAddress = PeerAddress { ip: [0; 16], port: 0, unix: true };

    /// The peer of an internet socket.
    pub fn internet(address: SocketAddr) -> PeerAddress {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        PeerAddress { ip: ip.octets(), port: address.port(), unix: false }
    }

    /// The internet address; none for Unix sockets.
    pub fn ip(&self) -> Option<IpAddr> {
        (!self.unix).then(|| Ipv6Addr::from(self.ip).to_canonical())
    }

    fn from_storage(storage: &libc::sockaddr_storage) -> PeerAddress {
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the kernel says that it stored a sockaddr_in, which sockaddr_storage can hold.
                let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
                let ip = u32::from_be(address.sin_addr.s_addr);
                PeerAddress::internet(SocketAddr::new(
                    IpAddr::from(ip.to_be_bytes()),
                    u16::from_be(address.sin_port),
                ))
            }
            libc::AF_INET6 => {
                // SAFETY: the kernel says that it stored a sockaddr_in6, which sockaddr_storage can hold.
                let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
                let ip = address.sin6_addr.s6_addr;
                PeerAddress::internet(SocketAddr::new(IpAddr::from(ip), u16::from_be(address.sin6_port)))
            }
            _ => PeerAddress::UNIX,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => f.write_str("unix"),
        }
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
