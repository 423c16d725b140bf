//! The io_uring of a shard. Only this file, its submodules and `buffers.rs` use the kernel's interface. Their input is
//! typed (listeners, sockets, frames), and their output is a list of [`Completion`]s. The shard sees neither entries
//! nor pointers.
//!
//! All operations of a turn are submitted to the kernel by one `io_uring_enter`. The same call runs the kernel's
//! completion work (`DEFER_TASKRUN`) and, if there is nothing to do, waits: [`Ring::turn`].
//!
//! Safety: all memory that an operation names (an address to fill, a frame to read, an iovec) is owned by the ring and
//! does not move until the ring has seen the completion that ends the operation. These operations are accepts and
//! sends, and `outstanding` counts them. A ring that is dropped cancels them and waits, and leaks the memory that the
//! kernel does not release. (The eight bytes that the doorbell is read into are always leaked, because this read is
//! always armed.) A receive names no memory while it waits. When data has come, the kernel chooses a provided buffer
//! for it, on this thread and inside a call of the ring. A wait for input names no memory at all.
//!
//! Operations are cancelled by their user data, which the kernel looks up. Cancelling by socket, or all operations at
//! once, makes the kernel examine every waiting operation each time: with 16,384 sockets, this took 0.9 ms for each
//! call.

#![allow(unsafe_code)]

mod doorbell;
mod errno;
mod peer_address;
#[cfg(test)]
mod tests;
mod user_data;

use super::buffers::{Buffer, Buffers, Frame, GROUP};
use super::clock::nanos;
use super::shrink::List;
use super::slots::Slots;
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Parameters, cqueue, opcode, squeue};
use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;
use std::{fmt, mem};

pub use self::doorbell::Doorbell;
pub use self::errno::Errno;
pub use self::peer_address::PeerAddress;
use self::user_data::{OpKind, pack, unpack};

/// The maximum number of entries in the completion queue. The kernel queues further completions itself and loses none,
/// but that takes longer.
const COMPLETIONS_MAX: u32 = 4096;

/// The minimum number of these entries.
const COMPLETIONS_MIN: u32 = 2048;

/// The number of these entries in the rings of all shards together, unless each has the minimum. An entry takes 16 bytes.
const COMPLETIONS_OF_ALL: u32 = 64 << 10;

/// The number of entries in the completion queue for each one in the submission queue, which takes 64 bytes. If a turn has
/// more submissions, it makes more calls into the kernel.
const COMPLETIONS_PER_SUBMISSION: u32 = 8;

/// The maximum number of threads on which the kernel performs the operations of a ring that may block, which is the
/// shutting down of sockets. Without a maximum, the kernel would start a thread for each of them.
const WORKERS_MAX: u32 = 2;

/// The time limit of a mark: none. The kernel reads it when the mark is submitted.
static AT_ONCE: Timespec = Timespec::new();

/// The maximum number of frames in one `sendmsg`: the kernel's limit on an iovec (UIO_MAXIOV).
pub const FRAMES_PER_SEND_MAX: usize = 1024;

/// The number of turns after which a dropped ring leaks the memory of operations that are still outstanding.
const DROP_TURNS: usize = 100;

/// The time for which more receive buffers than at first are kept after the kernel has run out of them.
const BUFFERS_KEPT: Duration = Duration::from_secs(10);

/// The settings of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingSettings {
    /// The number of rings of the process. The queues of many rings are smaller: their memory is taken at once, and each
    /// of the rings has less to do.
    pub rings: u32,
    /// The maximum number of sockets, apart from those in reserved places. `RLIMIT_NOFILE` bounds it for each ring, and
    /// not for the process.
    pub descriptors: u32,
    /// The number of provided receive buffers, a power of two.
    pub buffers: u16,
    /// The size of a receive buffer, in bytes.
    pub buffer_bytes: u32,
    /// The number of reserved places. These are the first places of the descriptor table; they are for sockets that the
    /// process has connected itself ([`Ring::adopt`]). The kernel does not use them for the sockets that it accepts.
    pub reserved: u32,
}

/// A socket in the ring's own descriptor table. It is not a file descriptor of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(u32);

impl Descriptor {
    /// Returns the socket in a reserved place.
    pub fn at(place: u32) -> Descriptor {
        Descriptor(place)
    }

    /// Returns the socket's place in the table.
    pub fn place(self) -> u32 {
        self.0
    }

    /// Returns a socket of a simulated kernel, for tests and benchmarks.
    pub(crate) fn made_up(number: u32) -> Descriptor {
        Descriptor(number)
    }
}

/// The caller's name for a socket. Each completion of the socket returns it.
pub type Token = u32;

/// The identity of a send in flight, by which it is cancelled. `Option<SendId>` has four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendId(NonZeroU32);

impl SendId {
    /// Returns the send with this index.
    pub(crate) fn at(index: usize) -> SendId {
        SendId(NonZeroU32::new(index as u32 + 1).expect("a send has at most 28 bits"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// How long a turn may wait for completions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    No,
    For(Duration),
    Forever,
}

/// A completion. `ended` is set if it was the last completion of its operation.
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
    /// A [`Ring::await_input`] has ended: there is something to receive, or the stream has ended or is broken.
    InputReady {
        token: Token,
    },
    /// The receive ended: with `Ok` at the end of the stream, and with `ENOBUFS` if there was no provided buffer.
    ReceiveEnded {
        token: Token,
        result: Result<(), Errno>,
    },
    Sent {
        token: Token,
        result: Result<(), Errno>,
        frames: FrameBatch,
    },
    /// The kernel has accepted a part of a send. The rest has been submitted again.
    SendProgressed {
        token: Token,
    },
    ShutDown {
        token: Token,
    },
    Closed {
        token: Token,
    },
    /// Another shard or thread rang the doorbell.
    Woken,
    /// The completion of a [`Ring::mark`].
    Marked,
    /// A doorbell did not reach the ring with this descriptor.
    DoorbellFailed {
        ring: RawFd,
        error: Errno,
    },
}

/// A send that the kernel has not completed.
struct InFlight {
    token: Token,
    socket: Descriptor,
    /// The number of bytes that the kernel has accepted.
    accepted: usize,
    /// `true` if the send was cancelled: what is left of it is not submitted again.
    cancelled: bool,
    /// `true` if the socket is closed behind the send.
    is_last: bool,
    frames: FrameBatch,
}

/// The frames of a send, which the ring holds until its completion returns them.
#[derive(Debug)]
pub enum FrameBatch {
    One(Frame),
    Many(Box<GatheredFrames>),
}

/// The frames of one `sendmsg`, with the iovecs that name them.
pub struct GatheredFrames {
    frames: Vec<Frame>,
    iovecs: Vec<libc::iovec>,
    /// The first iovec that has bytes left to send.
    next: usize,
    header: libc::msghdr,
}

/// A ring. It must be created on the thread that uses it, because the kernel accepts submissions from no other thread.
///
/// Invariants, asserted after each turn in debug builds:
///
/// - `outstanding` is the number of armed accepts and of sends in flight.
/// - An accept that is not armed is once in the `idle` list of its listener.
/// - A send in flight holds its frames.
/// - Reserved places are not used for accepted sockets, and only reserved places are used for adopted sockets if the
///   ring accepts.
pub struct Ring {
    io: IoUring,
    buffers: ManuallyDrop<Buffers>,
    listeners: Vec<ListeningSocket>,
    accepts: ManuallyDrop<Vec<Accept>>,
    in_flight: ManuallyDrop<Slots<InFlight>>,
    doorbell: Doorbell,
    doorbell_count: ManuallyDrop<Box<u64>>,
    /// The number of operations that name memory of the ring.
    outstanding: usize,
    /// The flags of a call that waits.
    wait_flags: EnterFlags,
    /// `true` if the kernel knows [`ACCEPT_POLL_FIRST`].
    can_poll_first: bool,
    reserved: u32,
    submission_overflows: u64,
    needs_buffers: bool,
    /// The time until which the kernel keeps the buffers that it has needed last, in nanoseconds.
    keep_buffers_until_ns: u64,
    /// The memory for the entries of a turn, which is kept for the next turn.
    reaped: Vec<cqueue::Entry>,
}

/// A listening socket, and its accepts that are not armed.
struct ListeningSocket {
    /// The socket, or `None` after it was closed.
    socket: Option<OwnedFd>,
    /// The indexes of the accepts that are not armed.
    idle: Vec<usize>,
}

/// An accept. While it is armed, the kernel may write the peer's address here.
struct Accept {
    listener: usize,
    address: Box<(libc::sockaddr_storage, libc::socklen_t)>,
    armed: bool,
}

impl Ring {
    /// Creates a ring. [`super::probe`] explains the errors to operators.
    pub fn new(settings: RingSettings) -> io::Result<Ring> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(completions(settings.rings))
            .dontfork()
            .build(completions(settings.rings) / COMPLETIONS_PER_SUBMISSION)?;
        io.submitter().register_files_sparse(settings.descriptors + settings.reserved)?;
        io.submitter().register_iowq_max_workers(&mut [WORKERS_MAX, WORKERS_MAX])?;
        let buffers = Buffers::register(&io, settings.rings, settings.buffers, settings.buffer_bytes)?;
        let mut ring = Ring {
            wait_flags: wait_flags(io.params()),
            // The kernel has got both with the same release, 6.10.
            can_poll_first: io.params().is_feature_recvsend_bundle(),
            io,
            buffers: ManuallyDrop::new(buffers),
            listeners: Vec::new(),
            accepts: ManuallyDrop::new(Vec::new()),
            in_flight: ManuallyDrop::new(Slots::new()),
            doorbell: Doorbell::new()?,
            doorbell_count: ManuallyDrop::new(Box::new(0)),
            outstanding: 0,
            reserved: settings.reserved,
            submission_overflows: 0,
            needs_buffers: false,
            keep_buffers_until_ns: 0,
            reaped: Vec::new(),
        };
        // A thread may register 16 rings. It enters further ones by their descriptors, which costs a little more.
        match ring.io.submitter().register_ring_fd() {
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
            _ => {}
        }
        for place in 0..settings.reserved {
            ring.occupy(place)?;
        }
        ring.listen_to_doorbell();
        Ok(ring)
    }

    /// Returns the file descriptor by which other shards name this ring; see [`Ring::ring_peer`].
    pub fn raw_fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }

    /// Returns the ring's file descriptor, for a thread that waits for several rings with `poll`. It is readable if
    /// the next turn has completions.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `io`, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }

    /// Returns the handle that wakes this ring from other threads.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// Adds a listening socket, from which [`Ring::accept`] accepts. `accepts` is the maximum number of accepts that are
    /// armed at the same time. Returns the number of the listener, which its completions have. Listeners are numbered
    /// from 0.
    pub fn listen(&mut self, socket: OwnedFd, accepts: u16) -> usize {
        let listener = self.listeners.len();
        let idle = (self.accepts.len()..).take(accepts.into()).collect();
        self.listeners.push(ListeningSocket { socket: Some(socket), idle });
        for _ in 0..accepts {
            // SAFETY: all-zero bytes are a valid sockaddr_storage.
            let address = Box::new((unsafe { mem::zeroed() }, 0));
            self.accepts.push(Accept { listener, address, armed: false });
        }
        listener
    }

    /// Arms one more accept of a listener, which accepts one connection. Does nothing once the ring has stopped
    /// listening.
    ///
    /// An accept takes a connection from the kernel's backlog before it looks for a free place in the table, and
    /// the connection is reset if there is none. At most as many accepts should therefore be armed as places are free.
    ///
    /// # Panics
    ///
    /// All accepts of the listener are armed.
    pub fn accept(&mut self, listener: usize) {
        let ListeningSocket { socket: Some(socket), idle } = &mut self.listeners[listener] else { return };
        let socket = Fd(socket.as_raw_fd());
        let index = idle.pop().expect("the caller must count the accepts that are armed");
        let accept = &mut self.accepts[index];
        accept.armed = true;
        accept.address.1 = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let (address, len) = &mut *accept.address;
        let entry = opcode::Accept::new(socket, (&raw mut *address).cast(), len)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        let entry = if self.can_poll_first { with_ioprio(entry, ACCEPT_POLL_FIRST) } else { entry };
        self.push_counted(entry.user_data(pack(OpKind::Accept, index, 0)));
    }

    /// Stops accepting: cancels the armed accepts and closes the listening sockets.
    pub fn stop_listening(&mut self) {
        for index in 0..self.accepts.len() {
            if self.accepts[index].armed {
                self.cancel_operation(pack(OpKind::Accept, index, 0));
            }
        }
        // An accept that is still queued names its socket by the file descriptor. The kernel must see it before the
        // descriptor is closed, because another file may then have the same number.
        self.submit_all();
        self.listeners.iter_mut().for_each(|listener| listener.socket = None);
    }

    /// Puts a connected socket of the process into the ring's table, at this place.
    ///
    /// If the ring also accepts, the place must be a reserved one; the kernel chooses among the others.
    pub fn adopt(&mut self, place: u32, socket: OwnedFd) -> io::Result<Descriptor> {
        let is_free = self.listeners.is_empty() || place < self.reserved;
        debug_assert!(is_free, "place {place} must be reserved, because the ring accepts");
        self.io.submitter().register_files_update(place, &[socket.as_raw_fd()])?;
        Ok(Descriptor(place))
    }

    /// Removes a socket from a reserved place. The socket must have no operations in flight.
    pub fn release(&mut self, place: u32) {
        debug_assert!(place < self.reserved, "place {place} must be reserved");
        // This fails only if there is no memory. The socket then stays until another one replaces it.
        let _ = self.occupy(place);
    }

    /// Puts the doorbell into a reserved place, which keeps the kernel from using the place for an accepted socket.
    fn occupy(&self, place: u32) -> io::Result<()> {
        self.io.submitter().register_files_update(place, &[self.doorbell.raw_fd()]).map(drop)
    }

    /// Receives from a socket until the stream ends. Each piece of data is one [`Completion::Received`].
    pub fn receive(&mut self, socket: Descriptor, token: Token) {
        let entry = opcode::RecvMulti::new(Fixed(socket.0), GROUP).build();
        self.push(entry.user_data(pack(OpKind::Receive, 0, token)));
    }

    /// Waits until there is something to receive from a socket, which has one [`Completion::InputReady`]. The kernel keeps a
    /// third of the memory of a receive for it (256 bytes for 864), but the data is a turn away: it has to be received then.
    ///
    /// This takes the place of the socket's receive, which must have ended. It is cancelled as the receive is.
    pub fn await_input(&mut self, socket: Descriptor, token: Token) {
        let entry = opcode::PollAdd::new(Fixed(socket.0), INPUT_EVENTS).build();
        self.push(entry.user_data(pack(OpKind::Receive, 0, token)));
    }

    /// Sets a mark behind everything that has happened to the sockets of the ring up to the submission. What was received
    /// by then is in completions before [`Completion::Marked`], except for data that is more than the kernel receives at
    /// once from a socket (32 buffers), and for receives that had no buffer. [`Completion::InputReady`] comes before it, too,
    /// but not the data that it announces.
    ///
    /// The mark is a time limit that has passed. The kernel queues it, as it has queued each socket that became ready, and
    /// works through that queue in order. A turn handles only a part of a long queue (20 entries since Linux 6.14), so that
    /// a turn without a mark says nothing about what was sent before it.
    pub fn mark(&mut self) {
        let entry = opcode::Timeout::new(&raw const AT_ONCE).build();
        self.push(entry.user_data(pack(OpKind::Mark, 0, 0)));
    }

    /// Returns the bytes of a received buffer, which may be decoded in place.
    pub fn data(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.buffers.data(buffer)
    }

    /// Returns a received buffer to the kernel.
    pub fn recycle(&mut self, buffer: Buffer) {
        self.buffers.recycle(buffer);
    }

    /// Sends a frame. The kernel accepts as much as the socket has room for, and the ring submits the rest again:
    /// there is one [`Completion::Sent`] for the whole frame, and a [`Completion::SendProgressed`] for each part before.
    ///
    /// A socket must have at most one send in flight, because the kernel may reorder two of them.
    pub fn send(&mut self, socket: Descriptor, token: Token, frame: Frame) -> SendId {
        self.start_send(socket, token, FrameBatch::One(frame), false)
    }

    /// Sends a frame as [`Ring::send`] does, to a socket that is closed as soon as the send has completed. The kernel keeps
    /// back the end of the frame until then, and sends it in one packet with the end of the stream (`MSG_MORE`). If the
    /// socket is not closed, the kernel sends it 200 ms later.
    pub fn send_last(&mut self, socket: Descriptor, token: Token, frame: Frame) -> SendId {
        self.start_send(socket, token, FrameBatch::One(frame), true)
    }

    /// Sends several frames with one `sendmsg`, at most [`FRAMES_PER_SEND_MAX`]. See [`Ring::send`].
    pub fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>) -> SendId {
        assert!(frames.len() <= FRAMES_PER_SEND_MAX, "the caller must split its outbox into batches");
        self.start_send(socket, token, FrameBatch::Many(GatheredFrames::new(frames)), false)
    }

    fn start_send(&mut self, socket: Descriptor, token: Token, frames: FrameBatch, is_last: bool) -> SendId {
        let in_flight = InFlight { token, socket, accepted: 0, cancelled: false, is_last, frames };
        let index = self.in_flight.insert(in_flight);
        self.submit_send(index);
        SendId::at(index)
    }

    /// Submits what the kernel has not accepted of a send.
    fn submit_send(&mut self, index: usize) {
        let InFlight { token, socket, accepted, is_last, frames, .. } =
            self.in_flight.get(index).expect("a send must be in flight to be submitted");
        let (socket, data) = (Fixed(socket.0), pack(OpKind::Send, index, *token));
        let flags = if *is_last { SEND_FLAGS | libc::MSG_MORE } else { SEND_FLAGS };
        let entry = match frames {
            FrameBatch::One(frame) => {
                let rest = &frame.as_slice()[*accepted..];
                opcode::Send::new(socket, rest.as_ptr(), rest.len() as u32).flags(flags).build()
            }
            FrameBatch::Many(gathered) => {
                opcode::SendMsg::new(socket, &raw const gathered.header).flags(flags as u32).build()
            }
        };
        self.push_counted(entry.user_data(data));
    }

    /// Shuts down the sending direction, which tells the peer the end of the stream.
    ///
    /// The kernel does this on a thread of its own, which looks up the socket when it runs. The socket must not be
    /// closed before [`Completion::ShutDown`]; otherwise another connection may have its place by then and would be
    /// shut down.
    pub fn shut_down(&mut self, socket: Descriptor, token: Token) {
        let entry = opcode::Shutdown::new(Fixed(socket.0), libc::SHUT_WR).build();
        self.push(entry.user_data(pack(OpKind::ShutDown, 0, token)));
    }

    /// Cancels the receive, or the wait for input, with this token, and a send. Both complete with an error. No other socket
    /// may have the same token. A send that has completed since is ignored.
    pub fn cancel(&mut self, token: Token, send: Option<SendId>) {
        self.cancel_operation(pack(OpKind::Receive, 0, token));
        if let Some(send) = send {
            self.cancel_send(send.index(), token);
        }
    }

    fn cancel_send(&mut self, index: usize, token: Token) {
        let in_flight = self.in_flight.get_mut(index).filter(|in_flight| in_flight.token == token);
        if let Some(in_flight) = in_flight {
            in_flight.cancelled = true;
            self.cancel_operation(pack(OpKind::Send, index, token));
        }
    }

    /// Closes a socket and frees its place in the table. The socket must have no operations in flight.
    pub fn close(&mut self, socket: Descriptor, token: Token) {
        let entry = opcode::Close::new(Fixed(socket.0)).build();
        self.push(entry.user_data(pack(OpKind::Close, 0, token)));
    }

    /// Closes a socket as [`Ring::close`] does. Only a failure has a completion.
    pub fn discard(&mut self, socket: Descriptor, token: Token) {
        let entry = opcode::Close::new(Fixed(socket.0)).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(pack(OpKind::Close, 0, token)));
    }

    /// Wakes the ring of another shard, which receives [`Completion::Woken`]. This is part of the next submission. Only
    /// a failure has a completion in this ring.
    pub fn ring_peer(&mut self, ring: RawFd) {
        let entry = opcode::MsgRingData::new(Fd(ring), 0, pack(OpKind::MessageRing, 0, 0), None).build();
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(pack(OpKind::MessageRing, 0, ring as u32)));
    }

    /// Submits all queued operations, runs the kernel's completion work, and appends the completions. If there are
    /// none, waits for one, if `wait` allows it.
    pub fn turn(&mut self, wait: Wait, completions: &mut Vec<Completion>) -> io::Result<()> {
        let wait = if self.buffers.has_grown() { self.shrink_buffers(wait) } else { wait };
        self.enter(wait)?;
        let mut reaped = mem::take(&mut self.reaped);
        reaped.extend(self.io.completion());
        completions.extend(reaped.drain(..).filter_map(|entry| self.complete(&entry)));
        self.reaped = reaped;
        if mem::take(&mut self.needs_buffers) {
            self.buffers.grow();
            self.keep_buffers_until_ns = nanos() + BUFFERS_KEPT.as_nanos() as u64;
        }
        if cfg!(debug_assertions) {
            self.check();
        }
        Ok(())
    }

    /// Gives back the memory that only a turn with many completions has needed.
    pub fn give_back(&mut self) {
        self.reaped.give_back();
    }

    /// Gives the memory of buffers that only a burst has needed back to the system, some time after it. Returns how long to
    /// wait for completions: if it is too early, not longer than until then, because nothing else may end the wait.
    #[cold]
    fn shrink_buffers(&mut self, wait: Wait) -> Wait {
        let left = Duration::from_nanos(self.keep_buffers_until_ns.saturating_sub(nanos()));
        // Operations that were submitted early may have completed at once, into a buffer.
        let is_reaped = self.io.completion().is_empty() && !self.io.submission().cq_overflow();
        if left.is_zero() && is_reaped {
            self.buffers.shrink();
        }
        match wait {
            _ if left.is_zero() => wait,
            Wait::No => Wait::No,
            Wait::For(time) => Wait::For(time.min(left)),
            Wait::Forever => Wait::For(left),
        }
    }

    /// Returns how often the submission queue was full before the end of a turn since the last call.
    pub fn take_submission_overflows(&mut self) -> u64 {
        mem::take(&mut self.submission_overflows)
    }

    /// Returns the number of sends in flight.
    pub fn sends_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Calls `each` with the tokens of sends in flight: those among the `count` places from `from` on. Returns the place
    /// to continue at, or `None` at the end.
    pub fn visit_sends(&self, from: usize, count: usize, mut each: impl FnMut(Token)) -> Option<usize> {
        let places = from..from.saturating_add(count).min(self.in_flight.slots());
        let next = places.end;
        places.filter_map(|place| self.in_flight.get(place)).for_each(|in_flight| each(in_flight.token));
        (next < self.in_flight.slots()).then_some(next)
    }

    /// Asserts the invariants. The cost is linear in the number of accepts and of sends in flight.
    ///
    /// # Panics
    ///
    /// Panics if an invariant is broken.
    fn check(&self) {
        let armed = self.accepts.iter().filter(|accept| accept.armed).count();
        let idle: usize = self.listeners.iter().map(|listener| listener.idle.len()).sum();
        assert_eq!(self.outstanding, armed + self.in_flight.len(), "accepts and sends must be counted");
        assert_eq!(idle, self.accepts.len() - armed, "an accept is armed or idle");
        for (index, in_flight) in self.in_flight.iter() {
            let frames = in_flight.frames.frames().len();
            assert!((1..=FRAMES_PER_SEND_MAX).contains(&frames), "send {index} must hold its frames");
        }
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let submitter = self.io.submitter();
        let entered = match wait {
            Wait::Forever => submitter.submit_with_args_and_flags(1, &SubmitArgs::new(), self.wait_flags),
            Wait::For(time) => {
                let time = Timespec::new().sec(time.as_secs()).nsec(time.subsec_nanos());
                submitter.submit_with_args_and_flags(1, &SubmitArgs::new().timespec(&time), self.wait_flags)
            }
            Wait::No => {
                let queued = self.io.submission().len() as u32;
                let flags = EnterFlags::GETEVENTS.bits();
                // SAFETY: no argument is passed. GETEVENTS without a completion to wait for only runs completion work.
                unsafe { self.io.submitter().enter::<libc::sigset_t>(queued, 0, flags, None) }
            }
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The call was interrupted or timed out, or the kernel requires that completions are reaped first.
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (kind, index, token) = unpack(entry.user_data());
        let ended = !cqueue::more(entry.flags());
        if ended && matches!(kind, OpKind::Accept | OpKind::Send) {
            self.outstanding -= 1;
        }
        let result = entry.result();
        match kind {
            OpKind::Accept => self.accepted(index, result),
            OpKind::Receive => {
                self.needs_buffers |= result == -libc::ENOBUFS;
                let received = received(token, entry, ended);
                if let Completion::Received { .. } = received {
                    self.buffers.lend();
                }
                Some(received)
            }
            OpKind::Send => Some(self.sent(index, result)),
            OpKind::ShutDown => Some(Completion::ShutDown { token }),
            OpKind::Close => Some(Completion::Closed { token }),
            OpKind::Doorbell => {
                self.listen_to_doorbell();
                Some(Completion::Woken)
            }
            OpKind::MessageRing if result < 0 => {
                Some(Completion::DoorbellFailed { ring: token as RawFd, error: Errno(-result) })
            }
            OpKind::MessageRing => Some(Completion::Woken),
            OpKind::Cancel => None,
            OpKind::Mark => Some(Completion::Marked),
        }
    }

    fn sent(&mut self, index: usize, result: i32) -> Completion {
        let in_flight = self.in_flight.get_mut(index).expect("a send must be in flight until its completion");
        let token = in_flight.token;
        in_flight.accepted += result.max(0) as usize;
        let left = in_flight.frames.len() - in_flight.accepted;
        if result > 0 && left > 0 && !in_flight.cancelled {
            in_flight.frames.skip(result as usize);
            self.submit_send(index);
            return Completion::SendProgressed { token };
        }
        let InFlight { frames, cancelled, .. } =
            self.in_flight.remove(index).expect("the send was just looked at");
        let result = match result {
            ..0 => Err(Errno(-result)),
            _ if left == 0 => Ok(()),
            // A part was accepted before the send was cancelled.
            _ if cancelled => Err(Errno(libc::ECANCELED)),
            _ => Err(Errno(libc::EPIPE)),
        };
        Completion::Sent { token, result, frames }
    }

    fn accepted(&mut self, index: usize, result: i32) -> Option<Completion> {
        let accept = &mut self.accepts[index];
        accept.armed = false;
        let listener = accept.listener;
        self.listeners[listener].idle.push(index);
        if result < 0 && self.listeners[listener].socket.is_none() {
            return None;
        }
        if result < 0 {
            return Some(Completion::AcceptFailed { listener, error: Errno(-result) });
        }
        let peer = peer_address(&self.accepts[index].address.0);
        Some(Completion::Accepted { listener, socket: Descriptor(result as u32), peer })
    }

    fn listen_to_doorbell(&mut self) {
        let into = (&raw mut **self.doorbell_count).cast();
        let entry = opcode::Read::new(Fd(self.doorbell.raw_fd()), into, 8).build();
        self.push(entry.user_data(pack(OpKind::Doorbell, 0, 0)));
    }

    fn cancel_all_sends(&mut self) {
        let sends = self.in_flight.iter().map(|(index, in_flight)| (index, in_flight.token));
        let sends: Vec<(usize, Token)> = sends.collect();
        sends.into_iter().for_each(|(index, token)| self.cancel_send(index, token));
    }

    fn cancel_operation(&mut self, operation: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(operation)).build();
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(pack(OpKind::Cancel, 0, 0)));
    }

    /// Pushes an operation that names memory of the ring.
    fn push_counted(&mut self, entry: squeue::Entry) {
        self.outstanding += 1;
        self.push(entry);
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: every entry is made by a method of this type, and the ring keeps the memory that it names alive
            // and in place until the operation has completed (see the top of the file).
            if unsafe { self.io.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submission_overflows += 1;
            self.submit();
        }
    }

    /// Submits all queued operations to the kernel.
    fn submit_all(&mut self) {
        while !self.io.submission().is_empty() {
            self.submit();
        }
    }

    fn submit(&mut self) {
        if let Err(error) = self.io.submit() {
            // EBUSY and EAGAIN are temporary. Any other error is a bug in this file.
            assert!(
                matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)),
                "io_uring_enter rejected the submissions: {error}"
            );
        }
    }
}

impl Drop for Ring {
    /// Cancels the operations that name memory of the ring and waits for their completions. If they do not come, the
    /// memory is leaked.
    fn drop(&mut self) {
        self.stop_listening();
        self.cancel_all_sends();
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
        // SAFETY: no accept and no send is outstanding, therefore the kernel no longer uses their memory. These fields
        // are not used after drop.
        unsafe {
            ManuallyDrop::drop(&mut self.accepts);
            ManuallyDrop::drop(&mut self.in_flight);
        }
        if self.io.submitter().unregister_buf_ring(GROUP).is_ok() {
            // SAFETY: receives that still wait find no buffers. This field is not used after drop.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}

/// The flags of sends: a peer that has disconnected causes an error and not a signal. A send completes with what the
/// socket has room for. With `MSG_WAITALL` the kernel would itself send the rest, and nobody could tell a peer that reads
/// slowly from one that does not read.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;

/// The events of a socket that has something to receive. Errors are among them, named or not.
const INPUT_EVENTS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;

/// `IORING_ACCEPT_POLL_FIRST`: the accept waits for a connection before it is attempted. The attempt makes a socket
/// before it finds that no connection waits, and frees it again, which takes about 2 us.
const ACCEPT_POLL_FIRST: u16 = 1 << 2;

/// Sets the field `ioprio` of an entry, which has the flags of an accept.
fn with_ioprio(mut entry: squeue::Entry, ioprio: u16) -> squeue::Entry {
    const IOPRIO_AT: usize = 2;
    const { assert!(size_of::<squeue::Entry>() == 64, "an entry is an io_uring_sqe") };
    // SAFETY: an entry is an io_uring_sqe (repr(C), 64 bytes), whose third and fourth bytes are this field. Any value is
    // valid.
    unsafe { (&raw mut entry).cast::<u8>().add(IOPRIO_AT).cast::<u16>().write(ioprio) };
    entry
}

/// Returns the number of entries in the completion queue of each of this many rings, a power of two.
fn completions(rings: u32) -> u32 {
    let share = COMPLETIONS_OF_ALL / rings.max(1);
    share.clamp(COMPLETIONS_MIN, COMPLETIONS_MAX).next_power_of_two()
}

/// Returns the flags of a call that waits for completions.
///
/// Without NO_IOWAIT (Linux 6.15), a ring that waits for clients counts as waiting for a disk: an idle server would show
/// 100 percent iowait on its cores, in `top` and in the figures for pressure stalls.
fn wait_flags(parameters: &Parameters) -> EnterFlags {
    if parameters.is_feature_no_iowait() { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() }
}

fn received(token: Token, entry: &cqueue::Entry, ended: bool) -> Completion {
    match (entry.result(), cqueue::buffer_select(entry.flags())) {
        (len @ 1.., Some(id)) => {
            Completion::Received { token, buffer: Buffer::received(id, len as u32), ended }
        }
        // A poll completes with the events that have occurred, and has no buffer.
        (1.., None) => Completion::InputReady { token },
        (error @ ..=-1, _) => Completion::ReceiveEnded { token, result: Err(Errno(-error)) },
        _ => Completion::ReceiveEnded { token, result: Ok(()) },
    }
}

impl FrameBatch {
    /// Returns the frames in their order.
    pub fn frames(&self) -> &[Frame] {
        match self {
            FrameBatch::One(frame) => std::slice::from_ref(frame),
            FrameBatch::Many(gathered) => &gathered.frames,
        }
    }

    /// Returns the total length of the frames.
    pub fn len(&self) -> usize {
        self.frames().iter().map(Frame::len).sum()
    }

    /// Returns `true` if the frames have no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the frames of a gathered send of a simulated kernel, for tests.
    #[cfg(test)]
    pub(crate) fn gathered(frames: Vec<Frame>) -> FrameBatch {
        FrameBatch::Many(GatheredFrames::new(frames))
    }

    /// Returns the frames, of which there may be many.
    pub fn into_frames(self) -> Vec<Frame> {
        match self {
            FrameBatch::One(frame) => vec![frame],
            FrameBatch::Many(gathered) => gathered.frames,
        }
    }

    /// Skips bytes that the kernel has accepted.
    fn skip(&mut self, bytes: usize) {
        if let FrameBatch::Many(gathered) = self {
            gathered.skip(bytes);
        }
    }
}

impl GatheredFrames {
    fn new(frames: Vec<Frame>) -> Box<GatheredFrames> {
        let iovec = |frame: &Frame| libc::iovec {
            iov_base: frame.as_slice().as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        };
        let iovecs = frames.iter().map(iovec).collect();
        // SAFETY: all-zero bytes are a valid msghdr without a name, control data and iovecs.
        let header = unsafe { mem::zeroed() };
        let mut gathered = Box::new(GatheredFrames { frames, iovecs, next: 0, header });
        gathered.header.msg_iov = gathered.iovecs.as_mut_ptr();
        gathered.header.msg_iovlen = gathered.iovecs.len() as _;
        gathered
    }

    /// Moves the beginning of what is left to send. No send may be in flight.
    fn skip(&mut self, mut bytes: usize) {
        while let Some(iovec) = self.iovecs.get_mut(self.next) {
            if bytes < iovec.iov_len {
                iovec.iov_base = iovec.iov_base.wrapping_byte_add(bytes);
                iovec.iov_len -= bytes;
                break;
            }
            bytes -= iovec.iov_len;
            self.next += 1;
        }
        let rest = &mut self.iovecs[self.next..];
        self.header.msg_iov = rest.as_mut_ptr();
        self.header.msg_iovlen = rest.len() as _;
    }
}

impl fmt::Debug for GatheredFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames", self.frames.len())
    }
}

/// Returns the address that the kernel has stored.
fn peer_address(storage: &libc::sockaddr_storage) -> PeerAddress {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel stored a sockaddr_in, for which sockaddr_storage has room.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = u32::from_be(address.sin_addr.s_addr);
            let port = u16::from_be(address.sin_port);
            PeerAddress::internet(SocketAddr::new(IpAddr::from(ip.to_be_bytes()), port))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel stored a sockaddr_in6, for which sockaddr_storage has room.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = address.sin6_addr.s6_addr;
            PeerAddress::internet(SocketAddr::new(IpAddr::from(ip), u16::from_be(address.sin6_port)))
        }
        _ => PeerAddress::UNIX,
    }
}
