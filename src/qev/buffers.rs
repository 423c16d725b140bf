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
use std::mem;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only group of provided buffers of a ring.
pub(super) const GROUP: u16 = 0;

/// The memory in bytes that a frame takes beyond its own bytes: its record with the reference count (80), what the
/// allocator adds to the record and to the bytes (up to 32), its place in an outbox that has room for twice as many (16).
/// Without it, a peer that reads nothing could have 60 times more memory held for it than was counted.
pub const FRAME_COST_BYTES: usize = 128;

/// The maximum size in bytes of a frame to which more is appended. Larger frames gain nothing, because the cost of their
/// records no longer matters; and a frame that grows is copied.
pub const APPENDED_BYTES_MAX: usize = 16 << 10;

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
    /// See [`Frame::cost`].
    cost: usize,
}

impl Encoded {
    fn new(bytes: Vec<u8>, queued_ns: u64, accepted: SmallVec<[AcceptedBroadcasts; 1]>) -> Encoded {
        let spilled = if accepted.spilled() { accepted.capacity() } else { 0 };
        let cost = FRAME_COST_BYTES + bytes.capacity() + spilled * size_of::<AcceptedBroadcasts>();
        Encoded { bytes, queued_ns, accepted, cost }
    }
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
        Frame(Rc::new(Encoded::new(bytes, queued_ns, SmallVec::new())))
    }

    /// Returns a frame of one or more broadcasts that were accepted at the same time.
    pub fn broadcast(bytes: Vec<u8>, queued_ns: u64, accepted: AcceptedBroadcasts) -> Frame {
        Frame(Rc::new(Encoded::new(bytes, queued_ns, SmallVec::from_elem(accepted, 1))))
    }

    /// Returns a frame of bytes that contain these broadcasts, or none.
    pub fn with_broadcasts(
        bytes: Vec<u8>,
        queued_ns: u64,
        accepted: SmallVec<[AcceptedBroadcasts; 1]>,
    ) -> Frame {
        Frame(Rc::new(Encoded::new(bytes, queued_ns, accepted)))
    }

    /// Returns a frame with the bytes of all these frames, in order. Its queueing time is that of the first one.
    pub fn joined<'a>(frames: impl IntoIterator<Item = &'a Frame, IntoIter: Clone>) -> Frame {
        let frames = frames.into_iter();
        let queued_ns = frames.clone().next().map_or_else(nanos, Frame::queued_ns);
        let mut bytes = Vec::with_capacity(frames.clone().map(Frame::len).sum());
        let mut accepted = SmallVec::new();
        frames.for_each(|frame| {
            bytes.extend_from_slice(frame.as_slice());
            accepted.extend_from_slice(frame.accepted());
        });
        Frame(Rc::new(Encoded::new(bytes, queued_ns, accepted)))
    }

    /// Appends bytes to the frame, if this is the only reference to it and the frame keeps to [`APPENDED_BYTES_MAX`].
    /// Returns by how much the frame's cost has grown, or `None` if the bytes were not appended.
    pub fn append(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.len() + bytes.len() > APPENDED_BYTES_MAX {
            return None;
        }
        self.replace_end(0, bytes)
    }

    /// Replaces the last `len` bytes of the frame, if this is the only reference to it. Returns by how much the frame's
    /// cost has grown, or `None` if the frame is shared.
    pub fn replace_end(&mut self, len: usize, bytes: &[u8]) -> Option<usize> {
        let encoded = Rc::get_mut(&mut self.0)?;
        let before = encoded.bytes.capacity();
        encoded.bytes.truncate(encoded.bytes.len() - len);
        encoded.bytes.extend_from_slice(bytes);
        let grown = encoded.bytes.capacity() - before;
        encoded.cost += grown;
        Some(grown)
    }

    /// Returns the number of bytes of memory that the frame takes in an outbox, at most: its bytes, and
    /// [`FRAME_COST_BYTES`]. A frame that is shared costs as much in each outbox, because any of them may be the last to
    /// hold it.
    #[inline]
    pub fn cost(&self) -> usize {
        self.0.cost
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
    pub(crate) fn ref_count(&self) -> usize {
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

/// The maximum number of buffers that the kernel has at first. The kernel uses its buffers in turn and therefore touches all
/// of them. A shard that never needs more buffers at the same time does not have more resident memory.
const BUFFERS_AT_FIRST_MAX: u16 = 64;

/// The minimum of this number.
const BUFFERS_AT_FIRST_MIN: u16 = 16;

/// The number of these buffers of all rings together, unless each has the minimum.
const BUFFERS_AT_FIRST_OF_ALL: u32 = 1024;

/// The provided buffer ring of a shard. The kernel chooses a buffer when data arrives, which means that idle
/// connections hold none.
///
/// Invariants:
///
/// - `entries` maps `count` ring entries and `memory` maps `count * size` bytes during the lifetime of this value.
/// - The kernel owns a buffer from `recycle` to the completion that names it. The program owns it otherwise.
/// - Buffers from `provided` on have never been given to the kernel.
/// - The buffers in `withheld` are owned by the program, and are from `target` on. `target` is at most `provided`.
pub struct Buffers {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    size: u32,
    provided: u16,
    tail: u16,
    /// The number of buffers that the kernel has at first, and again some time after a burst.
    at_first: u16,
    /// The kernel is to have the buffers below this one. Those above return when the kernel has used them.
    target: u16,
    /// The buffers that have returned.
    withheld: Vec<u16>,
    /// The number of buffers that the program owns because of completions.
    lent: u16,
}

impl Buffers {
    /// Registers `count` buffers of `size` bytes with the ring, which is one of `rings`. `count` must be a power of two and
    /// at most 32,768.
    pub(super) fn register(ring: &IoUring, rings: u32, count: u16, size: u32) -> io::Result<Buffers> {
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
        let at_first = count.min(at_first(rings));
        let mut buffers = Buffers {
            entries,
            memory,
            count,
            size,
            provided: 0,
            tail: 0,
            at_first,
            target: at_first,
            withheld: Vec::new(),
            lent: 0,
        };
        buffers.provide();
        Ok(buffers)
    }

    /// Doubles the number of buffers that the kernel has, up to the maximum. To be called when it has run out of them.
    pub(super) fn grow(&mut self) {
        self.target = self.target.saturating_mul(2).min(self.count);
        let (given, withheld) = mem::take(&mut self.withheld).into_iter().partition(|id| *id < self.target);
        self.withheld = withheld;
        <Vec<u16>>::into_iter(given).for_each(|id| self.give(id));
        self.provide();
    }

    /// Gives the kernel the buffers below `target` that it has never had.
    fn provide(&mut self) {
        for id in self.provided..self.target {
            self.give(id);
        }
        self.provided = self.provided.max(self.target);
    }

    /// Returns `true` if the kernel was given more buffers than at first.
    #[inline]
    pub(super) fn has_grown(&self) -> bool {
        self.target > self.at_first
    }

    /// Returns to the number of buffers that the kernel has at first, and gives the memory of all buffers back to the
    /// system. The caller must have seen every completion, which means that no buffer in the kernel has data; if the
    /// program owns a buffer, nothing happens.
    pub(super) fn shrink(&mut self) {
        if self.lent > 0 {
            return;
        }
        self.target = self.at_first;
        self.memory.forget(0, usize::from(self.provided) * self.size as usize);
    }

    /// Notes that a completion has named a buffer, which the program owns from now on.
    pub(super) fn lend(&mut self) {
        self.lent += 1;
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

    /// Returns the buffer to the kernel, unless the kernel has enough buffers.
    pub fn recycle(&mut self, buffer: Buffer) {
        debug_assert!(buffer.id < self.count, "buffer {} must exist", buffer.id);
        self.lent -= 1;
        if buffer.id < self.target {
            self.give(buffer.id);
        } else {
            self.withhold(buffer.id);
        }
    }

    #[cold]
    fn withhold(&mut self, id: u16) {
        self.memory.forget(usize::from(id) * self.size as usize, self.size as usize);
        self.withheld.push(id);
    }

    #[inline]
    fn give(&mut self, id: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `slot < count`, hence the entry is within `entries`. The kernel reads only entries below the tail,
        // and this entry is published by the store below, with release order. The tail is in the reserved bytes of the
        // first entry, which the `set_*` methods do not change, and is aligned for u16.
        unsafe {
            let entry = &mut *entries.add(slot);
            entry.set_addr(self.memory.start.as_ptr().add(usize::from(id) * self.size as usize) as u64);
            entry.set_len(self.size);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Returns the number of buffers that each of this many rings has at first.
fn at_first(rings: u32) -> u16 {
    let share = u16::try_from(BUFFERS_AT_FIRST_OF_ALL / rings.max(1)).unwrap_or(u16::MAX);
    share.clamp(BUFFERS_AT_FIRST_MIN, BUFFERS_AT_FIRST_MAX)
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

    /// Gives the whole pages in a part of the memory back to the system. They are zeroed when they are touched again.
    fn forget(&mut self, offset: usize, len: usize) {
        let page = rustix::param::page_size();
        let (from, to) = (offset.next_multiple_of(page), (offset + len) / page * page);
        assert!(to <= self.len.next_multiple_of(page), "the part must be within the mapping");
        if from < to {
            // SAFETY: the pages are within the mapping, which this value owns. `&mut self` excludes references into it.
            // The kernel writes to it by address, like the program. An error changes nothing.
            unsafe { libc::madvise(self.start.as_ptr().add(from).cast(), to - from, libc::MADV_DONTNEED) };
        }
    }

    /// Returns the number of resident pages.
    #[cfg(test)]
    fn resident_pages(&self) -> usize {
        let page = rustix::param::page_size();
        let mut pages = vec![0u8; self.len.div_ceil(page)];
        // SAFETY: the vector has a byte for each page of the mapping.
        let result = unsafe { libc::mincore(self.start.as_ptr().cast(), self.len, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.into_iter().filter(|page| page & 1 == 1).count()
    }
}

#[cfg(test)]
impl Buffers {
    /// Returns the number of pages of the buffers' memory that are resident, of buffers that the kernel is to have, and of
    /// buffers that were withheld.
    pub(super) fn counts(&self) -> (usize, u16, usize) {
        (self.memory.resident_pages(), self.target, self.withheld.len())
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
    fn many_rings_have_fewer_buffers_at_first() {
        assert_eq!([0, 1, 16, 17, 53, 64, 65, 128].map(at_first), [64, 64, 64, 60, 19, 16, 16, 16]);
    }

    #[test]
    fn the_cost_of_a_frame_covers_its_record_and_its_place_in_an_outbox() {
        let record = size_of::<Encoded>() + 2 * size_of::<usize>();
        assert!(record + 32 + 2 * size_of::<Frame>() <= FRAME_COST_BYTES, "{record}");
        assert_eq!(Frame::new(Vec::with_capacity(1000), 0).cost(), 1000 + FRAME_COST_BYTES);
        let accepted = (0..5).map(|at_ns| AcceptedBroadcasts { at_ns, events: 1 }).collect();
        let frame = Frame::with_broadcasts(Vec::new(), 0, accepted);
        assert!(frame.cost() >= FRAME_COST_BYTES + 5 * 16, "{}", frame.cost());
    }

    #[test]
    fn bytes_are_appended_to_a_frame_that_is_not_shared_until_it_is_large() {
        let mut frame = Frame::new(b"one".to_vec(), 0);
        let before = frame.cost();
        let grown = frame.append(b" two").unwrap();
        assert_eq!((frame.as_slice(), frame.cost()), (&b"one two"[..], before + grown));
        assert!(frame.replace_end(3, b"2").is_some());
        assert_eq!(frame.as_slice(), b"one 2");
        let other = frame.clone();
        assert_eq!((frame.append(b"!"), frame.replace_end(1, b"!")), (None, None), "the frame is shared");
        assert_eq!(other.as_slice(), b"one 2");
        drop(other);
        assert!(frame.append(&[b'.'; APPENDED_BYTES_MAX - 5]).is_some());
        assert_eq!(frame.append(b"!"), None, "the frame is large");
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
