//! Bytes that the kernel reads or writes while we do something else: the provided buffer ring, where received
//! data arrives, and the frames that are being sent.
//!
//! Both are about one danger: memory that is freed or changed while the kernel still uses it. A received
//! buffer is a [`Buffer`], which only a completion makes and only [`Buffers::recycle`] takes back; a frame is
//! immutable and counted, and [`super::ring::Ring`] holds a count of its own until the kernel is done.

#![allow(unsafe_code)]

use super::clock::nanos;
use io_uring::{IoUring, types::BufRingEntry};
use smallvec::SmallVec;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The one group of provided buffers of a ring.
pub(super) const GROUP: u16 = 0;

/// Bytes to be sent, encoded once and shared by every outbox and send that has them.
///
/// A frame is one pointer wide and counted without atomics: it never leaves its shard. It carries the times
/// that latencies are measured from, so that nothing has to be kept beside it.
#[derive(Clone)]
pub struct Frame(Rc<Encoded>);

struct Encoded {
    bytes: Vec<u8>,
    queued_ns: u64,
    accepted: SmallVec<[AcceptedBroadcasts; 1]>,
}

/// When the broadcasts inside a frame were accepted by the server, and how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedBroadcasts {
    pub at_ns: u64,
    pub events: u32,
}

impl Frame {
    /// A frame of these bytes, queued at `queued_ns`.
    pub fn new(bytes: Vec<u8>, queued_ns: u64) -> Frame {
        Frame(Rc::new(Encoded { bytes, queued_ns, accepted: SmallVec::new() }))
    }

    /// A frame of one or more broadcasts that were accepted at the time stated.
    pub fn broadcast(bytes: Vec<u8>, queued_ns: u64, accepted: AcceptedBroadcasts) -> Frame {
        Frame(Rc::new(Encoded { bytes, queued_ns, accepted: SmallVec::from_elem(accepted, 1) }))
    }

    /// A frame of bytes in which there are these broadcasts, or none.
    pub fn with_broadcasts(
        bytes: Vec<u8>,
        queued_ns: u64,
        accepted: SmallVec<[AcceptedBroadcasts; 1]>,
    ) -> Frame {
        Frame(Rc::new(Encoded { bytes, queued_ns, accepted }))
    }

    /// One frame with the bytes of all these, in order. It counts as queued when the first of them was.
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

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0.bytes
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0.bytes.is_empty()
    }

    /// When the frame was queued, by [`nanos`].
    pub fn queued_ns(&self) -> u64 {
        self.0.queued_ns
    }

    /// The broadcasts inside; empty for frames that are none.
    pub fn accepted(&self) -> &[AcceptedBroadcasts] {
        &self.0.accepted
    }

    /// How many hold this frame: outboxes, the ring.
    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        Rc::strong_count(&self.0)
    }

    /// Whether both are the very same frame (not only equal bytes).
    pub fn ptr_eq(&self, other: &Frame) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// A received buffer that is ours until it is recycled. Only a completion makes one.
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
}

/// Buffers that the kernel is given at first. It takes them in turns, so it touches all that it has been given:
/// a shard that never needs more at once never has more resident.
const BUFFERS_AT_FIRST: u16 = 64;

/// The provided buffer ring of a shard: the kernel takes a buffer when data arrives, so that connections
/// at rest hold none.
///
/// Invariants: `entries` maps `count` ring entries and `memory` maps `count * size` bytes for as long as this
/// lives; the kernel owns the buffers between `recycle` and the completion that names them, we own the others;
/// those from `provided` on were never given to it.
pub struct Buffers {
    entries: Mapping,
    memory: Mapping,
    count: u16,
    size: u32,
    provided: u16,
    tail: u16,
}

impl Buffers {
    /// Registers `count` (a power of two, at most 32,768) buffers of `size` bytes with the ring.
    pub(super) fn register(ring: &IoUring, count: u16, size: u32) -> io::Result<Buffers> {
        assert!(count.is_power_of_two() && count <= 32_768, "the settings allow powers of two only");
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size as usize)?;
        // SAFETY: `entries` is page-aligned, holds `count` entries, and lives until the ring has ended: `Ring`
        // drops its `IoUring` first, or leaks the mapping where the kernel may still use it.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.start.as_ptr() as u64, count, GROUP, 0)?;
        }
        let mut buffers = Buffers { entries, memory, count, size, provided: 0, tail: 0 };
        buffers.provide(count.min(BUFFERS_AT_FIRST));
        Ok(buffers)
    }

    /// Gives the kernel twice the buffers that it has had so far, as far as there are any: it has run out of them.
    pub(super) fn grow(&mut self) {
        self.provide(self.provided.saturating_mul(2).min(self.count));
    }

    fn provide(&mut self, up_to: u16) {
        for id in self.provided..up_to {
            self.recycle(Buffer { id, len: 0 });
        }
        self.provided = up_to;
    }

    /// The bytes received in `buffer`. They are ours alone, so a protocol may decode them in place.
    pub fn data(&mut self, buffer: &Buffer) -> &mut [u8] {
        assert!(
            buffer.id < self.count && buffer.len <= self.size,
            "the kernel names buffers that it was given"
        );
        let start = usize::from(buffer.id) * self.size as usize;
        // SAFETY: the range lies within `memory` (asserted above); `Buffer` values are made by completions only
        // and are no copies, so the kernel does not own this buffer, and `&mut self` excludes a second reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(start), buffer.len as usize) }
    }

    /// Gives the buffer back to the kernel.
    pub fn recycle(&mut self, buffer: Buffer) {
        let slot = usize::from(self.tail & (self.count - 1));
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `slot < count`, so the entry lies within `entries`; the kernel reads entries below the tail
        // only, and this one is published by the store below, with release order. The tail is part of the
        // first entry's reserved bytes, which `set_*` leave alone, and is aligned for u16.
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

/// Anonymous memory from the kernel: page-aligned, zeroed, resident only where it was touched.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping touches no memory that exists.
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
        // SAFETY: the mapping is ours, and references into it borrow the `Buffers` that owns it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_pointer_wide() {
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
