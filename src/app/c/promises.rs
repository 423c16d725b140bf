//! The promises that applications in C hold.
//!
//! An application knows a promise by its handle. The handle of a promise that has been kept is detected: the slots of
//! the table have generations, and a slot has another one after each use (about 134 million, then they repeat).

use super::abi::{Fault, Promise};
use super::host::Host;
use crate::app::{Later, LaterDecision, shares};
use crate::client::ClientId;
use crate::limits::{C_CLIENT_PROMISES_MIN, C_CLIENTS_COUNTED_MIN, C_PROMISES_MAX};
use ahash::AHashMap;
use sharded_slab::{Config, DefaultConfig, Entry, Slab};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// A promise that has not been kept yet.
pub enum HeldPromise {
    /// A promise to answer an event, and the application that holds it.
    Answer(Later, &'static Host),
    Decision(LaterDecision),
}

impl HeldPromise {
    fn client(&self) -> ClientId {
        match self {
            HeldPromise::Answer(later, _) => later.client(),
            HeldPromise::Decision(later) => later.client(),
        }
    }

    /// Drops the promise without an answer, because another one was given.
    pub fn forget(self) {
        match self {
            HeldPromise::Answer(later, _) => later.forget(),
            HeldPromise::Decision(later) => later.forget(),
        }
    }
}

/// The promises of all applications in this process.
pub static PROMISES: LazyLock<PromiseTable> = LazyLock::new(PromiseTable::new);

/// A table of promises, which any thread may use. A shard inserts into a part of its own, without a lock.
///
/// The mutex of a slot is held only to move the promise out or in. No code of an application runs meanwhile: it could
/// use the same handle.
pub struct PromiseTable {
    slots: Slab<PromiseSlot, SlotConfig>,
    /// The number of occupied slots.
    open: AtomicUsize,
}

struct PromiseSlot {
    /// The client that waits.
    client: ClientId,
    /// Counts the promise among those of its client.
    _share: Arc<()>,
    /// `None` while a call tries to keep the promise, and afterwards.
    promise: Mutex<Option<HeldPromise>>,
}

impl PromiseSlot {
    /// Locks the promise. A panic cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Option<HeldPromise>> {
        self.promise.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sizes of the slab. Each bit of a slot's index or of a thread's number is one bit less of the generation.
struct SlotConfig;

impl Config for SlotConfig {
    /// Pages of a thread: 32 slots, 64, 128 and so on. Together they have room for all promises but 32.
    const MAX_PAGES: usize = 17;
    /// One bit is kept free, and for this reason a key plus one does not overflow.
    const RESERVED_BITS: usize = 1;
}

const _: () = assert!(
    DefaultConfig::INITIAL_PAGE_SIZE * ((1 << SlotConfig::MAX_PAGES) - 1) + DefaultConfig::INITIAL_PAGE_SIZE
        == C_PROMISES_MAX
);
const _: () = assert!(usize::BITS == u64::BITS, "a handle is a key of the slab");

impl PromiseTable {
    fn new() -> PromiseTable {
        PromiseTable { slots: Slab::new_with_config(), open: AtomicUsize::new(0) }
    }

    /// Adds a promise, and returns its handle, which is never 0. `clients` are the clients of this thread's shard.
    ///
    /// # Errors
    ///
    /// There are too many promises, or the client holds its share of them. The error is the promise.
    pub fn insert(&self, clients: &mut ClientPromises, promise: HeldPromise) -> Result<Promise, HeldPromise> {
        let client = promise.client();
        let Some(count) = self.admit(clients.held(client)) else { return Err(promise) };
        let Some(entry) = self.slots.vacant_entry() else { return Err(promise) };
        let (key, share) = (entry.key(), Arc::clone(clients.of(client)));
        entry.insert(PromiseSlot { client, _share: share, promise: Mutex::new(Some(promise)) });
        std::mem::forget(count); // `EmptySlot` subtracts it
        Ok(Promise { id: key as u64 + 1 })
    }

    /// Counts one more promise of a client that holds `held`, or returns `None` if it may not hold more.
    fn admit(&self, held: usize) -> Option<OpenCount<'_>> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let count = OpenCount(self);
        shares::admit(C_PROMISES_MAX, C_CLIENT_PROMISES_MIN, before, held).is_ok().then_some(count)
    }

    /// Returns the slot of a promise.
    ///
    /// # Errors
    ///
    /// [`Fault::Gone`] if the handle belongs to no promise or to one that has been kept.
    pub fn get(&self, handle: Promise) -> Result<PromiseEntry<'_>, Fault> {
        let key = handle.id.checked_sub(1).filter(|key| key >> (u64::BITS - 1) == 0).ok_or(Fault::Gone)?;
        let key = key as usize;
        let slot = self.slots.get(key).ok_or(Fault::Gone)?;
        Ok(PromiseEntry { table: self, key, slot })
    }
}

/// An open promise that is counted. Dropping it subtracts it again.
struct OpenCount<'t>(&'t PromiseTable);

impl Drop for OpenCount<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The open promises of the clients of one shard, by client. They are made on the shard's thread, and kept on any thread.
///
/// The number of references to a value of the map, without the map's own, is the number of the client's promises. Clients
/// that have none left are removed from time to time.
#[derive(Default)]
pub struct ClientPromises {
    held: AHashMap<ClientId, Arc<()>>,
    /// The number of clients from which on those are looked for that have no promise left.
    sweep_from: usize,
}

impl ClientPromises {
    /// Returns how many promises of a client are open.
    fn held(&self, client: ClientId) -> usize {
        self.held.get(&client).map_or(0, |share| Arc::strong_count(share) - 1)
    }

    /// Returns the value whose references are the client's promises.
    fn of(&mut self, client: ClientId) -> &Arc<()> {
        if self.held.len() >= self.sweep_from.max(C_CLIENTS_COUNTED_MIN) {
            self.held.retain(|_, share| Arc::strong_count(share) > 1);
            self.sweep_from = 2 * self.held.len();
            self.held.shrink_to(self.sweep_from);
        }
        self.held.entry(client).or_default()
    }
}

/// A slot of the table, which is not used again as long as this value exists.
pub struct PromiseEntry<'t> {
    table: &'t PromiseTable,
    key: usize,
    slot: Entry<'t, PromiseSlot, SlotConfig>,
}

impl<'t> PromiseEntry<'t> {
    /// Returns the client that waits for the promise to be kept.
    pub fn client(&self) -> ClientId {
        self.slot.client
    }

    /// Returns the application that promised to answer.
    ///
    /// # Errors
    ///
    /// [`Fault::WrongPlace`] if the promise is one to decide, and [`Fault::Gone`] if it has been kept or is being kept.
    pub fn host(&self) -> Result<&'static Host, Fault> {
        match &*self.slot.lock() {
            Some(HeldPromise::Answer(_, host)) => Ok(*host),
            Some(HeldPromise::Decision(_)) => Err(Fault::WrongPlace),
            None => Err(Fault::Gone),
        }
    }

    /// Moves the promise out, to be kept or put back. Of two threads one gets it.
    ///
    /// # Errors
    ///
    /// [`Fault::Gone`] if the promise has been kept or is being kept.
    pub fn take(self) -> Result<(HeldPromise, EmptySlot<'t>), Fault> {
        let promise = self.slot.lock().take().ok_or(Fault::Gone)?;
        Ok((promise, EmptySlot(Some(self))))
    }
}

/// A slot whose promise was moved out. Dropping this value frees the slot.
pub struct EmptySlot<'t>(Option<PromiseEntry<'t>>);

impl EmptySlot<'_> {
    /// Puts the promise back under its handle.
    pub fn put_back(mut self, promise: HeldPromise) {
        let entry = self.0.take().expect("only this method, which consumes the value, takes the entry");
        let before = entry.slot.lock().replace(promise);
        debug_assert!(before.is_none(), "the slot was empty");
    }
}

impl Drop for EmptySlot<'_> {
    fn drop(&mut self) {
        if let Some(PromiseEntry { table, key, slot }) = self.0.take() {
            // The slab clears the slot when the last entry is dropped.
            let was_occupied = table.slots.remove(key);
            debug_assert!(was_occupied, "the slot of a promise is freed once");
            drop(slot);
            table.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Command, Post, ReplyTo, Server};
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, OnceLock};
    use std::thread;

    /// Counts the commands that are posted.
    #[derive(Default)]
    struct CountingPost(AtomicUsize);

    impl CountingPost {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Post for CountingPost {
        fn post(&self, _: u32, _: Command) -> Result<(), Command> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn host() -> &'static Host {
        static HOST: OnceLock<&'static Host> = OnceLock::new();
        HOST.get_or_init(|| Host::add("test".into(), BTreeMap::new()).unwrap().0)
    }

    const CLIENT: ClientId = ClientId { shard: 0, slot: 3, generation: 1 };

    fn promise(post: &Arc<CountingPost>) -> HeldPromise {
        promise_of(CLIENT, post)
    }

    fn promise_of(client: ClientId, post: &Arc<CountingPost>) -> HeldPromise {
        let server = Server::new(Arc::clone(post) as Arc<dyn Post>);
        HeldPromise::Answer(Later::new(server, ReplyTo { client, callback: 1 }), host())
    }

    #[track_caller]
    fn insert(table: &PromiseTable, clients: &mut ClientPromises, promise: HeldPromise) -> Promise {
        let inserted = table.insert(clients, promise);
        inserted.unwrap_or_else(|_| panic!("the table has room for the promise"))
    }

    impl PromiseTable {
        fn take(&self, handle: Promise) -> Result<(HeldPromise, EmptySlot<'_>), Fault> {
            self.get(handle)?.take()
        }
    }

    #[test]
    fn a_handle_is_good_once() {
        let (table, mut clients, post) = (PromiseTable::new(), ClientPromises::default(), Arc::default());
        let first = insert(&table, &mut clients, promise(&post));
        let second = insert(&table, &mut clients, promise(&post));
        assert_ne!(first, second);
        drop(table.take(first).unwrap());
        assert_eq!(post.count(), 1, "a promise that is dropped answers");
        assert_eq!(table.take(first).err(), Some(Fault::Gone));
        let mut seen = BTreeSet::from([first.id, second.id]);
        for _ in 0..1000 {
            let next = insert(&table, &mut clients, promise(&post));
            assert!(next.id != 0 && seen.insert(next.id), "the slot is used again, with another handle");
            assert_eq!(table.take(first).err(), Some(Fault::Gone), "the old handle is detected");
            drop(table.take(next).unwrap());
        }
        let (taken, slot) = table.take(second).unwrap();
        assert_eq!(table.take(second).err(), Some(Fault::Gone), "the promise is being kept");
        assert_eq!(table.get(second).unwrap().client(), CLIENT);
        slot.put_back(taken);
        assert!(table.take(second).is_ok());
        for id in [0, 1, 2, 1 << 32, 1 << 63, u64::MAX, 1 << 32 | 1 << 30] {
            assert_eq!(table.take(Promise { id }).err(), Some(Fault::Gone), "{id:x}");
        }
        assert_eq!(table.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn every_promise_has_its_own_slot() {
        let (table, mut clients, post) = (PromiseTable::new(), ClientPromises::default(), Arc::default());
        let handles: Vec<_> = (0..5000).map(|_| insert(&table, &mut clients, promise(&post))).collect();
        let taken = handles.iter().filter(|handle| table.take(**handle).is_ok()).count();
        assert_eq!((taken, post.count()), (5000, 5000));
    }

    #[test]
    fn their_number_is_limited() {
        let (table, mut clients, post) = (PromiseTable::new(), ClientPromises::default(), Arc::default());
        let handle = insert(&table, &mut clients, promise(&post));
        table.open.store(C_PROMISES_MAX, Ordering::Relaxed);
        assert!(table.insert(&mut clients, promise(&post)).is_err());
        assert_eq!(post.count(), 1, "the promise is dropped and answers");
        drop(table.take(handle).unwrap());
        assert!(table.insert(&mut clients, promise(&post)).is_ok());
        assert_eq!(table.open.load(Ordering::Relaxed), C_PROMISES_MAX);
    }

    #[test]
    fn no_client_gets_more_than_its_share() {
        let (table, mut clients, post) = (PromiseTable::new(), ClientPromises::default(), Arc::default());
        let other = ClientId { slot: 4, ..CLIENT };
        // As if others had left this many.
        let leave = |free: usize| table.open.store(C_PROMISES_MAX - free, Ordering::Relaxed);
        leave(C_PROMISES_MAX / 4 + 200);
        let first: Vec<_> =
            (0..C_CLIENT_PROMISES_MIN).map(|_| insert(&table, &mut clients, promise(&post))).collect();
        leave(100);
        assert!(table.insert(&mut clients, promise(&post)).is_err(), "the rest is for other clients");
        assert!(table.insert(&mut clients, promise_of(other, &post)).is_ok());
        assert!(table.insert(&mut clients, promise_of(other, &post)).is_err());
        for handle in first {
            drop(table.take(handle).unwrap());
        }
        assert_eq!((clients.held(CLIENT), clients.held(other)), (0, 1));
        leave(100);
        assert!(table.insert(&mut clients, promise(&post)).is_ok(), "it holds nothing any more");
        leave(C_PROMISES_MAX);
        let alone = (0..1000).filter(|_| table.insert(&mut clients, promise(&post)).is_ok()).count();
        assert_eq!(alone, 1000, "there is plenty left");
        assert_eq!(clients.held(CLIENT), 1001);
    }

    #[test]
    fn clients_without_promises_are_forgotten() {
        let (table, mut clients, post) = (PromiseTable::new(), ClientPromises::default(), Arc::default());
        let kept = insert(&table, &mut clients, promise(&post));
        for slot in 0..10 * C_CLIENTS_COUNTED_MIN as u32 {
            let client = ClientId { slot, generation: 2, ..CLIENT };
            let handle = insert(&table, &mut clients, promise_of(client, &post));
            drop(table.take(handle).unwrap());
            assert!(clients.held.len() <= C_CLIENTS_COUNTED_MIN);
        }
        assert_eq!(clients.held(CLIENT), 1);
        assert!(table.take(kept).is_ok());
    }

    #[test]
    fn of_two_threads_one_takes_a_promise() {
        const ROUNDS: usize = 2000;
        let (table, mut clients) = (PromiseTable::new(), ClientPromises::default());
        let post = Arc::<CountingPost>::default();
        let taken = AtomicUsize::new(0);
        for _ in 0..ROUNDS / 100 {
            let handles: Vec<_> = (0..100).map(|_| insert(&table, &mut clients, promise(&post))).collect();
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let of_thread = handles.iter().filter(|handle| table.take(**handle).is_ok()).count();
                        taken.fetch_add(of_thread, Ordering::Relaxed);
                    });
                }
            });
        }
        assert_eq!(taken.load(Ordering::Relaxed), ROUNDS);
        assert_eq!(post.count(), ROUNDS, "each promise was dropped once");
        assert_eq!(table.open.load(Ordering::Relaxed), 0);
    }

    /// A thread that asks for the client of a promise does not keep another one from answering.
    #[test]
    fn looking_at_a_promise_does_not_hinder_keeping_it() {
        let (table, mut clients) = (PromiseTable::new(), ClientPromises::default());
        let post = Arc::<CountingPost>::default();
        for _ in 0..20 {
            let handles: Vec<_> = (0..200).map(|_| insert(&table, &mut clients, promise(&post))).collect();
            let is_done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Relaxed) {
                        for handle in &handles {
                            match table.get(*handle) {
                                Ok(entry) => assert_eq!(entry.client(), CLIENT),
                                Err(fault) => assert_eq!(fault, Fault::Gone),
                            }
                        }
                    }
                });
                let kept = handles.iter().filter(|handle| table.take(**handle).is_ok()).count();
                is_done.store(true, Ordering::Relaxed);
                assert_eq!(kept, handles.len(), "every promise is kept");
            });
        }
        assert_eq!((post.count(), table.open.load(Ordering::Relaxed)), (4000, 0));
    }
}
