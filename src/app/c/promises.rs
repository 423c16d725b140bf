//! The promises that applications in C hold: by number, so that one which was used up is told from an open one.
//!
//! A table that only grows, without a lock: each place has a number that is odd while it is full, and whoever raises it
//! owns the place. A handle is a place and its number.

#![allow(unsafe_code)]

use super::abi::{Fault, Promise};
use super::host::Host;
use crate::app::{Later, LaterDecision};
use crate::limits::C_PROMISES_MAX;
use crossbeam_queue::SegQueue;
use std::cell::UnsafeCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A promise that is open, and whose it is.
pub enum Open {
    Answer(Later, &'static Host),
    Decision(LaterDecision),
}

struct Place {
    number: AtomicU32,
    open: UnsafeCell<Option<Open>>,
}

// SAFETY: `open` is touched only by whoever owns the place: one thread, as `take` and `put` say.
unsafe impl Sync for Place {}

/// Places of the first chunk; each has as many as all before it.
const FIRST_CHUNK: usize = 1024;
const CHUNKS: usize = (C_PROMISES_MAX / FIRST_CHUNK).ilog2() as usize + 1;

pub struct Promises {
    chunks: [OnceLock<Box<[Place]>>; CHUNKS],
    made: AtomicU32,
    free: SegQueue<u32>,
}

/// Those of this process.
pub static PROMISES: Promises = Promises::new();

impl Promises {
    pub const fn new() -> Promises {
        Promises {
            chunks: [const { OnceLock::new() }; CHUNKS],
            made: AtomicU32::new(0),
            free: SegQueue::new(),
        }
    }

    /// Keeps a promise; gives it back where there are too many.
    pub fn put(&self, open: Open) -> Result<Promise, Open> {
        let Some(index) = self.free.pop().or_else(|| self.make()) else { return Err(open) };
        let place = self.place(index);
        let number = place.number.load(Ordering::Acquire) | 1;
        // SAFETY: the index was in the list of free places, or is new: nobody else has it, and no handle is good while the
        // number is even.
        unsafe { *place.open.get() = Some(open) };
        place.number.store(number, Ordering::Release);
        Ok(Promise { id: u64::from(number) << 32 | u64::from(index) })
    }

    /// Takes a promise out, for whoever will use it up or put it back.
    pub fn take(&self, promise: Promise) -> Result<Taken<'_>, Fault> {
        let (number, index) = ((promise.id >> 32) as u32, promise.id as u32);
        if number % 2 == 0 || index >= self.made.load(Ordering::Acquire).min(C_PROMISES_MAX as u32) {
            return Err(Fault::Gone);
        }
        let place = self.place(index);
        place
            .number
            .compare_exchange(number, number.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| Fault::Gone)?;
        // SAFETY: only one thread can raise this number, and the place is not in the list of free ones yet.
        let open = unsafe { (*place.open.get()).take() };
        let place = Emptied { promises: self, index, number };
        open.map(|open| Taken { open, place }).ok_or(Fault::Gone)
    }

    fn make(&self) -> Option<u32> {
        let within = |made: u32| (made < C_PROMISES_MAX as u32).then_some(made + 1);
        self.made.fetch_update(Ordering::AcqRel, Ordering::Relaxed, within).ok()
    }

    fn place(&self, index: u32) -> &Place {
        let index = index as usize;
        // The chunks hold 1024, 1024, 2048, 4096 and so on.
        let chunk = (index / FIRST_CHUNK).checked_ilog2().map_or(0, |log| log as usize + 1);
        let (first, len) = match chunk {
            0 => (0, FIRST_CHUNK),
            chunk => (FIRST_CHUNK << (chunk - 1), FIRST_CHUNK << (chunk - 1)),
        };
        let make =
            || (0..len).map(|_| Place { number: AtomicU32::new(0), open: UnsafeCell::new(None) }).collect();
        &self.chunks[chunk].get_or_init(make)[index - first]
    }
}

/// A promise that was taken out, and its place.
pub struct Taken<'p> {
    open: Open,
    place: Emptied<'p>,
}

impl<'p> Taken<'p> {
    /// The promise, to be used up, or to be put back into its place.
    pub fn into_parts(self) -> (Open, Emptied<'p>) {
        (self.open, self.place)
    }
}

/// A place whose promise was taken out: free again when this is dropped.
pub struct Emptied<'p> {
    promises: &'p Promises,
    index: u32,
    number: u32,
}

impl Emptied<'_> {
    /// Puts a promise back under its old handle.
    pub fn fill(self, open: Open) {
        let place = self.promises.place(self.index);
        // SAFETY: this owns the place: its number is even, and its index in nobody else's hands.
        unsafe { *place.open.get() = Some(open) };
        place.number.store(self.number, Ordering::Release);
        std::mem::forget(self);
    }
}

impl Drop for Emptied<'_> {
    fn drop(&mut self) {
        self.promises.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Command, Post, ReplyTo, Server};
    use crate::client::ClientId;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Post for Count {
        fn post(&self, _: u32, _: Command) -> Result<(), Command> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn host() -> &'static Host {
        static HOST: OnceLock<&'static Host> = OnceLock::new();
        HOST.get_or_init(|| Host::add("test".into(), BTreeMap::new()).unwrap().0)
    }

    fn promise(posted: &Arc<Count>) -> Open {
        let client = ClientId { shard: 0, slot: 0, generation: 1 };
        let server = Server::new(Arc::clone(posted) as Arc<dyn Post>);
        Open::Answer(Later::new(server, ReplyTo { client, callback: 1 }), host())
    }

    #[test]
    fn a_handle_is_good_once() {
        let (promises, posted) = (Promises::new(), Arc::default());
        let first = promises.put(promise(&posted)).ok().unwrap();
        let second = promises.put(promise(&posted)).ok().unwrap();
        assert_ne!(first, second);
        drop(promises.take(first).ok().unwrap());
        assert_eq!(posted.0.load(Ordering::Relaxed), 1, "dropped, it has answered");
        assert_eq!(promises.take(first).err(), Some(Fault::Gone));
        let third = promises.put(promise(&posted)).ok().unwrap();
        assert_eq!(third.id as u32, first.id as u32, "the place is used again");
        assert_eq!(promises.take(first).err(), Some(Fault::Gone), "and the old handle is still none");
        let (open, place) = promises.take(second).ok().unwrap().into_parts();
        place.fill(open);
        assert!(promises.take(second).is_ok() && promises.take(third).is_ok());
        for id in [0, 1, 1 << 32, u64::MAX, 1 << 32 | 1 << 30] {
            assert_eq!(promises.take(Promise { id }).err(), Some(Fault::Gone), "{id:x}");
        }
    }

    #[test]
    fn every_place_is_its_own() {
        let (promises, posted) = (Promises::new(), Arc::default());
        let handles: Vec<_> = (0..5000).map(|_| promises.put(promise(&posted)).ok().unwrap()).collect();
        let taken = handles.iter().filter(|handle| promises.take(**handle).is_ok()).count();
        assert_eq!((taken, posted.0.load(Ordering::Relaxed)), (5000, 5000));
    }

    #[test]
    fn of_two_threads_one_takes_it() {
        const ROUNDS: usize = 2000;
        let (promises, posted) = (Promises::new(), Arc::<Count>::default());
        let won = AtomicUsize::new(0);
        for _ in 0..ROUNDS / 100 {
            let handles: Vec<_> = (0..100).map(|_| promises.put(promise(&posted)).ok().unwrap()).collect();
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let taken = handles.iter().filter(|handle| promises.take(**handle).is_ok()).count();
                        won.fetch_add(taken, Ordering::Relaxed);
                    });
                }
            });
        }
        assert_eq!(won.load(Ordering::Relaxed), ROUNDS);
        assert_eq!(posted.0.load(Ordering::Relaxed), ROUNDS, "each was dropped once");
    }
}
