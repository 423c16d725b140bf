//! Memory that the kernel reads or writes while the program does something else: the provided buffers, into which data
//! is received, and the frames that are being sent.
//!
//! Such memory must not be freed or changed while the kernel uses it. A received buffer is a [`Buffer`], which only a
//! completion creates and only [`Buffers::recycle`] consumes. A frame is immutable and reference-counted, and
//! [`super::ring::Ring`] holds a reference until the kernel has finished.

#![allow(unsafe_code)]

use super::clock::nanos;
use io_uring::{IoUring, types::BufRingEntry};
use smallvec::SmallVec;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only group of provided buffers of a ring.
pub(super) const GROUP: u16 = 0;

/// Bytes to send, which are encoded once and shared by all outboxes and sends that hold them.
///
/// A frame has the size of a pointer. Its reference count is not atomic, because a frame never leaves its shard. It
/// contains the times from which latencies are measured.
#[derive(Clone)]
pub struct Frame(Rc<Encoded>);

struct Encoded {
    bytes: Vec<u8>,
    queued_ns: u64,
    accepted: SmallVec<[AcceptedBroadcasts; 1]>,
}

/// The broadcasts in a frame that the server accepted at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedBroadcasts {
    /// The time at which the server accepted the broadcasts.
    pub at_ns: u64,
    /// The number of broadcasts.
    pub events: u32,
}

impl Frame {
    /// Returns a frame of these bytes, which were queued at `queued_ns`.
    pub fn new(bytes: Vec<u8>, queued_ns: u64) -> Frame {
        Frame(Rc::new(Encoded { bytes, queued_ns, accepted: SmallVec::new() }))
    }

    /// Returns a frame of one or more broadcasts that were accepted at the same time.
    pub fn broadcast(bytes: Vec<u8>, queued_ns: u64, accepted: AcceptedBroadcasts) -> Frame {
        Frame(Rc::new(Encoded { bytes, queued_ns, accepted: SmallVec::from_elem(accepted, 1) }))
    }

    /// Returns a frame of bytes that contain these broadcasts, or none.
    pub fn with_broadcasts(
        bytes: Vec<u8>,
        queued_ns: u64,
        accepted: SmallVec<[AcceptedBroadcasts; 1]>,
    ) -> Frame {
        Frame(Rc::new(Encoded { bytes, queued_ns, accepted }))
    }

    /// Returns a frame with the bytes of all these frames, in order. Its queueing time is that of the first one.
    pub fn joined(frames: &[Frame]) -> Frame {
        let mut bytes = Vec::with_capacity(frames.iter().map(Frame::len).sum());
        let mut accepted = SmallVec::new();
        for frame in frames {
            bytes.extend_from_slice(frame.as_slice());
            accepted.extend_from_slice(frame.accepted());
        }
        let queued_ns = frames.first().map_or_else(nanos, Frame::queued_ns);
        Frame(Rc::new(Encoded { bytes, queued_ns, accepted }))
    }

    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Returns `true` if the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.bytes.is_empty()
    }

    /// Returns the time at which the frame was queued, as returned by [`nanos`].
    pub fn queued_ns(&self) -> u64 {
        self.0.queued_ns
    }

    /// Returns the broadcasts in the frame.
    pub fn accepted(&self) -> &[AcceptedBroadcasts] {
        &self.0.accepted
    }

    /// Returns the number of references to this frame.
    #[cfg(test)]
    pub(super) fn ref_count(&self) -> usize {
        Rc::strong_count(&self.0)
    }

    /// Returns whether both are references to the same frame, which is more than having equal bytes.
    pub fn ptr_eq(&self, other: &Frame) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame of {} bytes", self.len())
    }
}

/// A received buffer, which belongs to the program until it is recycled. Only a completion creates one.
#[derive(Debug)]
#[must_use = "a buffer that is not recycled is lost to the ring"]
pub struct Buffer {
    id: u16,
    len: u32,
}

impl Buffer {
    pub(super) fn received(id: u16, len: u32) -> Buffer {
        Buffer { id, len }
    }

    /// Returns the number of bytes received.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns whether the buffer holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The number of buffers that the kernel has at first. The kernel uses its buffers in turn and therefore touches all of
/// them. A shard that never needs more buffers at the same time does not have more resident memory.
const BUFFERS_AT_FIRST: u16 = 64;

/// The provided buffer ring of a shard. The kernel chooses a buffer when data arrives, which means that idle
/// connections hold none.
///
/// Invariants:
///
/// - `entries` maps `count` ring entries and `memory` maps `count * size` bytes during the lifetime of this value.
/// - The kernel owns a buffer from `recycle` to the completion that names it. The program owns it otherwise.
/// - Buffers from `provided` on have never been given to the kernel.
pub struct Buffers {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    size: u32,
    provided: u16,
    tail: u16,
}

impl Buffers {
    /// Registers `count` buffers of `size` bytes with the ring. `count` must be a power of two and at most 32,768.
    pub(super) fn register(ring: &IoUring, count: u16, size: u32) -> io::Result<Buffers> {
        assert!(
            count.is_power_of_two() && count <= 32_768,
            "the number of buffers must be a power of two and at most 32,768"
        );
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size as usize)?;
        // SAFETY: `entries` is page-aligned, has room for `count` entries, and lives until the ring has ended: `Ring`
        // drops its `IoUring` first, or leaks the mapping if the kernel may still use it.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.start.as_ptr() as u64, count, GROUP, 0)?;
        }
        let mut buffers = Buffers { entries, memory, count, size, provided: 0, tail: 0 };
        buffers.provide(count.min(BUFFERS_AT_FIRST));
        Ok(buffers)
    }

    /// Doubles the number of buffers that the kernel has, up to the maximum. To be called when it has run out of them.
    pub(super) fn grow(&mut self) {
        self.provide(self.provided.saturating_mul(2).min(self.count));
    }

    fn provide(&mut self, up_to: u16) {
        for id in self.provided..up_to {
            self.recycle(Buffer { id, len: 0 });
        }
        self.provided = up_to;
    }

    /// Returns the bytes received in `buffer`. They belong to the program alone, and may be decoded in place.
    pub fn data(&mut self, buffer: &Buffer) -> &mut [u8] {
        assert!(
            buffer.id < self.count && buffer.len <= self.size,
            "the kernel must name a buffer that it was given"
        );
        let start = usize::from(buffer.id) * self.size as usize;
        // SAFETY: the range is within `memory` (asserted above). `Buffer` values are created only by completions and
        // cannot be copied, hence the kernel does not own this buffer. `&mut self` excludes a second reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(start), buffer.len as usize) }
    }

    /// Returns the buffer to the kernel.
    pub fn recycle(&mut self, buffer: Buffer) {
        debug_assert!(buffer.id < self.count, "buffer {} must exist", buffer.id);
        let slot = usize::from(self.tail & (self.count - 1));
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `slot < count`, hence the entry is within `entries`. The kernel reads only entries below the tail,
        // and this entry is published by the store below, with release order. The tail is in the reserved bytes of the
        // first entry, which the `set_*` methods do not change, and is aligned for u16.
        unsafe {
            let entry = &mut *entries.add(slot);
            entry
                .set_addr(self.memory.start.as_ptr().add(usize::from(buffer.id) * self.size as usize) as u64);
            entry.set_len(self.size);
            entry.set_bid(buffer.id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Anonymous memory from the kernel. It is page-aligned and zeroed, and only the pages that were touched are resident.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping does not affect existing memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED never maps address 0");
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping, and references into it borrow the `Buffers` that owns this value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_size_of_a_pointer() {
        assert_eq!(size_of::<Frame>(), 8);
        assert_eq!(size_of::<Option<Frame>>(), 8);
    }

    #[test]
    fn joined_frames_keep_their_bytes_times_and_broadcasts_in_order() {
        let accepted = |at_ns, events| AcceptedBroadcasts { at_ns, events };
        let frames = [
            Frame::new(b"one ".to_vec(), 10),
            Frame::broadcast(b"two ".to_vec(), 20, accepted(5, 1)),
            Frame::broadcast(b"three".to_vec(), 30, accepted(7, 20)),
        ];
        let joined = Frame::joined(&frames);
        assert_eq!(joined.as_slice(), b"one two three");
        assert_eq!(joined.queued_ns(), 10);
        assert_eq!(joined.accepted(), [accepted(5, 1), accepted(7, 20)]);
    }
}
