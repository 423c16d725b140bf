//! A shard's subscriptions: who is subscribed to a path, and what each client is subscribed to.
//!
//! A path that somebody cares for has a small integer, [`PathId`]. It leads to a dense list of the clients
//! that are subscribed, which is all that a broadcast walks. Each client has its own list of paths, which
//! says for each the client's place among the path's subscribers. So unsubscribing is a swap: the last
//! subscriber takes the place that is vacant, and is found in its client's list to be told so.
//!
//! ```text
//!   clients: slot -> path -> pending, tombstoned or place ---+
//!                      |                                     v
//!   index: text -> PathId -> entry { path, subscribers: [client, client, client], pending, remote shards }
//! ```
//!
//! What a client has at a path:
//!
//! ```text
//!              on                decide(true)
//!   nothing ---------> pending ---------------> active ---> nothing
//!                      |   ^                        off
//!                  off |   | on
//!                      v   |
//!                   tombstoned ---> nothing     a refusal, or the client's end, makes it nothing from anywhere
//!                              decide(true): accepted too late, its off-hook must run
//! ```
//!
//! Memory: 4 to 8 bytes a subscription in the path's list, up to 22 in the client's; two of a client's need
//! no heap. Lists give memory back as they shrink, or clients that subscribe and unsubscribe in turns could
//! make a shard hold far more than the limits say.

mod list;
mod table;
#[cfg(test)]
mod tests;

use ahash::RandomState;
use smallvec::SmallVec;

use self::list::{List, PLACES_MAX, State};
use self::table::{Secret, Slot, Table};
use crate::event::path::{Path, PathRef};
use crate::limits::SHARDS_MAX;

/// A path that has subscribers, pending ones, or subscribers on other shards. Used again once it has none.
///
/// Ids are dense, from 0: [`index`](Self::index) may be used for tables beside this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(u32);

impl PathId {
    /// The id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One of a path's subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The client's slot on this shard.
    pub client: u32,
}

/// What a wish to subscribe comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// It is pending now: somebody must decide, once, and say so to [`Subscriptions::decide`].
    Decide(PathId),
    /// It is being decided already: 202.
    InProgress,
    /// The client is subscribed already: 200.
    Active,
}

/// What a decision comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionOutcome {
    /// The client is subscribed; `first` of this shard's clients to that path.
    Subscribed { first: bool },
    /// The client was accepted, but unsubscribed meanwhile: the off-hook must run.
    Unsubscribed { path: Path },
    /// The client was refused, and is not subscribed.
    Refused { path: Path },
    /// There was nothing to decide.
    Unknown,
}

/// What unsubscribing comes to. The answer is 200 in each case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnsubscribeOutcome {
    /// The client was subscribed; `last` of this shard's clients to that path.
    Unsubscribed { path: Path, last: bool },
    /// It is being decided: the client will not be subscribed, whatever the decision is.
    Tombstoned,
    /// The client was not subscribed.
    NotSubscribed,
}

/// What a client had at a path when it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedSubscription {
    /// It was subscribed; `last` of this shard's clients to that path.
    Active { last: bool },
    /// It was being decided; nobody waits for that decision any more.
    Pending,
}

/// The subscriptions of one shard's clients, which are named by their slots.
///
/// A client holds one of the shared pool of subscriptions from [`SubscribeOutcome::Decide`] until [`DecisionOutcome::Refused`],
/// [`DecisionOutcome::Unsubscribed`], [`UnsubscribeOutcome::Unsubscribed`], or the call of `each` when it is closed. All
/// that time [`held`](Self::held) counts it.
#[derive(Debug)]
pub struct Subscriptions {
    /// By the client's slot.
    clients: Vec<List>,
    /// By [`PathId`].
    entries: Vec<Entry>,
    vacant: Vec<PathId>,
    /// From 32 bits of the path's hash to its [`PathId`].
    index: Table,
    hasher: RandomState,
    secret: Secret,
    active: usize,
}

/// What is known of a path. Vacant where it has no path; otherwise somebody cares for it.
#[derive(Debug, Default)]
struct Entry {
    path: Option<Path>,
    /// Four need no heap.
    subscribers: SmallVec<[Subscriber; 4]>,
    /// The shards that have subscribers too. Not one `u128`, which would be aligned to 16 bytes.
    remote: [u64; SHARDS_MAX / 64],
    /// Clients for which it is being decided, those included that do not wait for it any more.
    pending: u32,
    /// What the index has it by, so that it is forgotten without another look at its text.
    tag: u32,
}

impl Subscriptions {
    /// An empty table.
    pub fn new() -> Subscriptions {
        Subscriptions::with_hasher(RandomState::new())
    }

    fn with_hasher(hasher: RandomState) -> Subscriptions {
        let secret = Secret::new(&hasher);
        Subscriptions {
            clients: Vec::new(),
            entries: Vec::new(),
            vacant: Vec::new(),
            index: Table::new(),
            hasher,
            secret,
            active: 0,
        }
    }

    /// A client wants to subscribe.
    pub fn subscribe(&mut self, client: u32, path: PathRef<'_>) -> SubscribeOutcome {
        let id = self.find_or_add(path);
        match self.state(client, id) {
            None => self.await_decision(client, id),
            Some(State::Pending) => SubscribeOutcome::InProgress,
            Some(State::Tombstoned) => {
                self.clients[client as usize].set(self.secret, id, State::Pending);
                SubscribeOutcome::InProgress
            }
            Some(State::Active(_)) => SubscribeOutcome::Active,
        }
    }

    /// What [`SubscribeOutcome::Decide`] asked for: whether the client may subscribe.
    ///
    /// A decision is told once, and only while the client lives: afterwards `path` may be another path.
    pub fn decide(&mut self, client: u32, path: PathId, accepted: bool) -> DecisionOutcome {
        match self.state(client, path) {
            Some(State::Pending) if accepted => self.activate(client, path),
            Some(State::Tombstoned) if accepted => {
                DecisionOutcome::Unsubscribed { path: self.forget_pending(client, path) }
            }
            Some(State::Pending | State::Tombstoned) => {
                DecisionOutcome::Refused { path: self.forget_pending(client, path) }
            }
            Some(State::Active(_)) | None => DecisionOutcome::Unknown,
        }
    }

    /// A client does not want to be subscribed any more.
    pub fn unsubscribe(&mut self, client: u32, path: PathRef<'_>) -> UnsubscribeOutcome {
        let Some(id) = self.find(path) else { return UnsubscribeOutcome::NotSubscribed };
        match self.state(client, id) {
            None => UnsubscribeOutcome::NotSubscribed,
            Some(State::Pending | State::Tombstoned) => {
                self.clients[client as usize].set(self.secret, id, State::Tombstoned);
                UnsubscribeOutcome::Tombstoned
            }
            Some(State::Active(place)) => {
                self.clients[client as usize].remove(self.secret, id);
                let (path, last) = self.vacate(id, place);
                UnsubscribeOutcome::Unsubscribed { path, last }
            }
        }
    }

    /// The client has gone: tells `each` what it had at every path, and forgets it.
    pub fn close(&mut self, client: u32, each: impl FnMut(Path, EndedSubscription)) {
        self.close_some(client, usize::MAX, each);
    }

    /// As [`close`](Self::close), but no more than `max` paths: a client may have a million, too many for one
    /// turn.
    ///
    /// Returns whether it is done. Until then the client's slot must not be used again, and its subscriptions
    /// that are left stay among the subscribers.
    pub fn close_some(
        &mut self,
        client: u32,
        max: usize,
        mut each: impl FnMut(Path, EndedSubscription),
    ) -> bool {
        for _ in 0..max {
            let secret = self.secret;
            let popped = self.clients.get_mut(client as usize).and_then(|list| list.pop(secret));
            let Some((id, state)) = popped else { break };
            let (path, ended) = match state {
                State::Active(place) => {
                    let (path, last) = self.vacate(id, place);
                    (path, EndedSubscription::Active { last })
                }
                State::Pending | State::Tombstoned => (self.decided(id), EndedSubscription::Pending),
            };
            each(path, ended);
        }
        self.held(client) == 0
    }

    /// Subscriptions that the client has or awaits, those included that were tombstoned.
    pub fn held(&self, client: u32) -> usize {
        self.clients.get(client as usize).map_or(0, List::len)
    }

    /// This shard's active subscribers to a path, in no order.
    pub fn subscribers(&self, path: PathId) -> &[Subscriber] {
        &self.entries[path.index()].subscribers
    }

    /// Another shard has subscribers to the path.
    pub fn add_remote(&mut self, path: &Path, shard: u16) {
        let (word, bit) = remote_bit(shard);
        let id = self.find_or_add(path.as_ref());
        self.entries[id.index()].remote[word] |= bit;
    }

    /// Another shard has no subscribers to the path any more.
    pub fn remove_remote(&mut self, path: &Path, shard: u16) {
        let Some(id) = self.find(path.as_ref()) else { return };
        let (word, bit) = remote_bit(shard);
        self.entries[id.index()].remote[word] &= !bit;
        self.release(id);
    }

    /// The path's id, if anybody cares for it.
    pub fn find(&self, path: PathRef<'_>) -> Option<PathId> {
        self.find_by_tag(self.tag(path), path)
    }

    /// The other shards that have subscribers: a bit for each.
    pub fn remote(&self, path: PathId) -> u128 {
        let [low, high] = self.entries[path.index()].remote;
        u128::from(low) | u128::from(high) << 64
    }

    /// The path of an id that is in use.
    pub fn path(&self, path: PathId) -> &Path {
        self.entries[path.index()].path.as_ref().expect(IN_USE)
    }

    /// Active subscriptions.
    pub fn len(&self) -> usize {
        self.active
    }

    /// Whether no subscription is active.
    pub fn is_empty(&self) -> bool {
        self.active == 0
    }

    /// Paths that somebody cares for.
    pub fn paths(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    fn state(&self, client: u32, path: PathId) -> Option<State> {
        self.clients.get(client as usize)?.get(self.secret, path)
    }

    fn await_decision(&mut self, client: u32, id: PathId) -> SubscribeOutcome {
        let slots = client as usize + 1;
        if self.clients.len() < slots {
            self.clients.resize_with(slots, || List::EMPTY);
        }
        self.clients[client as usize].insert(self.secret, id, State::Pending);
        self.entries[id.index()].pending += 1;
        SubscribeOutcome::Decide(id)
    }

    fn activate(&mut self, client: u32, id: PathId) -> DecisionOutcome {
        let entry = &mut self.entries[id.index()];
        let place = u32::try_from(entry.subscribers.len()).expect("clients are counted in u32");
        assert!(place < PLACES_MAX, "more subscribers than places can name");
        entry.subscribers.push(Subscriber { client });
        entry.pending -= 1;
        self.active += 1;
        self.clients[client as usize].set(self.secret, id, State::Active(place));
        DecisionOutcome::Subscribed { first: place == 0 }
    }

    fn forget_pending(&mut self, client: u32, id: PathId) -> Path {
        self.clients[client as usize].remove(self.secret, id);
        self.decided(id)
    }

    /// One less is pending.
    fn decided(&mut self, id: PathId) -> Path {
        self.entries[id.index()].pending -= 1;
        self.release(id)
    }

    /// Removes the subscriber at `place`, whose client knows nothing of it any more; the last one moves
    /// there.
    fn vacate(&mut self, id: PathId, place: u32) -> (Path, bool) {
        let subscribers = &mut self.entries[id.index()].subscribers;
        subscribers.swap_remove(place as usize);
        if let Some(moved) = subscribers.get(place as usize) {
            self.clients[moved.client as usize].set(self.secret, id, State::Active(place));
        }
        if subscribers.spilled() && subscribers.len() <= subscribers.capacity() / 4 {
            subscribers.grow(subscribers.capacity() / 2);
        }
        let last = subscribers.is_empty();
        self.active -= 1;
        (self.release(id), last)
    }

    fn find_or_add(&mut self, path: PathRef<'_>) -> PathId {
        let tag = self.tag(path);
        self.find_by_tag(tag, path).unwrap_or_else(|| self.add(tag, path))
    }

    fn tag(&self, path: PathRef<'_>) -> u32 {
        self.hasher.hash_one(path.as_str()) as u32
    }

    fn find_by_tag(&self, tag: u32, path: PathRef<'_>) -> Option<PathId> {
        let at = self.index.find(self.secret, tag, |id| self.path(PathId(id)).as_str() == path.as_str())?;
        Some(PathId(self.index.value(at)))
    }

    fn add(&mut self, tag: u32, path: PathRef<'_>) -> PathId {
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            PathId(u32::try_from(self.entries.len() - 1).expect("paths are bounded by subscriptions"))
        });
        let entry = &mut self.entries[id.index()];
        (entry.path, entry.tag) = (Some(path.to_path()), tag);
        self.index.insert(self.secret, Slot { key: tag, value: id.0 });
        id
    }

    /// Forgets a path if nobody cares for it any more; returns it in any case.
    fn release(&mut self, id: PathId) -> Path {
        let entry = &mut self.entries[id.index()];
        if !entry.is_idle() {
            return entry.path.clone().expect(IN_USE);
        }
        let path = entry.path.take().expect(IN_USE);
        let at = self.index.find(self.secret, entry.tag, |value| value == id.0).expect(IN_USE);
        self.index.remove(self.secret, at);
        self.vacant.push(id);
        path
    }
}

const IN_USE: &str = "a path's entry lives while somebody cares for the path";

impl Entry {
    fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.pending == 0 && self.remote == [0; SHARDS_MAX / 64]
    }
}

fn remote_bit(shard: u16) -> (usize, u64) {
    let shard = usize::from(shard);
    assert!(shard < SHARDS_MAX, "shard {shard} is beyond the limit");
    (shard / 64, 1 << (shard % 64))
}

impl Default for Subscriptions {
    fn default() -> Subscriptions {
        Subscriptions::new()
    }
}
