//! The provided buffers of the floors, whose contents are not read.

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed};
use std::sync::atomic::{AtomicU16, Ordering};

/// The number of provided buffers. Number and size are the defaults of the server.
const BUFFERS: u16 = 512;
const BUFFER_BYTES: usize = 4096;

/// The provided buffers of a ring, in its group 0.
pub struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    /// Registers new buffers with a ring.
    pub fn register(io: &IoUring) -> Result<Buffers, Box<dyn std::error::Error>> {
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

    /// Gives a buffer back to the kernel.
    pub fn recycle(&mut self, id: u16) {
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
