//! The subscriptions of a shard: the subscribers of each path, and the paths of each client.
//!
//! A path in use has a small integer, its [`PathId`]. The id leads to a dense list of the path's subscribers, which is
//! all that a broadcast walks. Each client has a list of its paths, which records for each path the client's place
//! among the path's subscribers. Unsubscribing is therefore a swap: the last subscriber moves to the vacant place, and
//! its new place is recorded in the list of its client.
//!
//! ```text
//!   clients: slot -> path -> pending, tombstoned or place ---+
//!                      |                                     v
//!   index: text -> PathId -> entry { path, subscribers: [client, client, client], pending, remote shards }
//! ```
//!
//! The states of a client at a path:
//!
//! ```text
//!              subscribe         decide(true)
//!   none ------------> pending ---------------> active ---> none
//!                      |   ^                    unsubscribe
//!          unsubscribe |   | subscribe
//!                      v   |
//!                   tombstoned ---> none        a refusal or the client's end leads to none from any state
//!                              decide(true): accepted too late, and the off-hook must run
//! ```
//!
//! Memory: 4 to 8 bytes a subscription in the path's list and up to 22 in the client's list. Two paths of a client need
//! no heap. Lists shrink when they become sparse; otherwise clients that take turns to subscribe and unsubscribe could
//! make a shard hold far more memory than the limits suggest.

mod clients;
mod list;
#[cfg(test)]
mod tests;

use ahash::RandomState;
use smallvec::SmallVec;

use self::clients::ClientLists;
use self::list::{ClientPaths, PLACES_MAX, SubscriptionState};
use crate::event::path::{Path, PathRef};
use crate::limits::SHARDS_MAX;
use crate::qev::blocks::Blocks;
use crate::qev::pairs::{PairTable, Secret, TableSlot};

/// The id of a path in use: one that has subscribers, pending subscribers, or subscribers on other shards. The id is
/// used again when its path is no longer in use.
///
/// Ids are dense, from 0. [`index`](Self::index) may therefore index tables outside of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(u32);

impl PathId {
    /// Returns the id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A subscriber of a path: the client's slot on this shard, the form in which it wants events, and its membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber(u32);

/// The bit of a subscriber that wants the numbers of events.
const NUMBERED: u32 = 1 << 31;

/// The number of bits of a slot. The two bits above it are the membership.
const SLOT_BITS: u32 = 29;

/// The bits of a slot.
const SLOT: u32 = (1 << SLOT_BITS) - 1;

impl Subscriber {
    fn new(client: u32, form: EventForm) -> Subscriber {
        assert!(client <= SLOT, "slots are below 2^{SLOT_BITS}");
        Subscriber(client | if form == EventForm::Numbered { NUMBERED } else { 0 })
    }

    /// Returns the client's slot.
    #[inline]
    pub fn client(self) -> u32 {
        self.0 & SLOT
    }

    /// Returns the client's membership of the path.
    #[inline]
    pub fn membership(self) -> Membership {
        match (self.0 & !NUMBERED) >> SLOT_BITS {
            0 => Membership::None,
            1 => Membership::Member,
            2 => Membership::Asking,
            _ => Membership::Watching,
        }
    }

    fn set_membership(&mut self, membership: Membership) {
        self.0 = self.0 & (NUMBERED | SLOT) | (membership as u32) << SLOT_BITS;
    }

    /// Returns the form in which it wants the events of a path that have numbers.
    #[inline]
    pub fn form(self) -> EventForm {
        if self.0 & NUMBERED == 0 { EventForm::Plain } else { EventForm::Numbered }
    }
}

/// The form of the events of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventForm {
    /// The path and the data.
    #[default]
    Plain,
    /// The same with the number of the event, if it has one.
    Numbered,
}

/// The membership of a subscriber of a path, for paths whose members are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Membership {
    /// The client is no member: the path has none.
    #[default]
    None,
    /// The client is a member.
    Member,
    /// The same, and it has asked for the members and has not got them.
    Asking,
    /// The same, and it is told of changes.
    Watching,
}

impl Membership {
    /// Returns whether the client has asked for the members.
    #[must_use]
    pub fn has_asked(self) -> bool {
        matches!(self, Membership::Asking | Membership::Watching)
    }
}

/// The outcome of a client's request to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeOutcome {
    /// The subscription is pending. The caller must decide once and pass the decision to [`Subscriptions::decide`].
    Decide(PathId),
    /// The subscription is already pending: 202.
    InProgress,
    /// The client is already subscribed: 200.
    Active,
}

/// The outcome of a decision about a pending subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionOutcome {
    /// The client is subscribed. `first` is `true` if it is this shard's first subscriber of the path.
    Subscribed { first: bool },
    /// The client was accepted but has unsubscribed in the meantime: the off-hook must run.
    Unsubscribed { path: Path },
    /// The client was refused and is not subscribed.
    Refused { path: Path },
    /// There was no pending subscription.
    Unknown,
}

/// The outcome of unsubscribing. The server answers 200 in each case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnsubscribeOutcome {
    /// The client was subscribed. `last` is `true` if it was this shard's last subscriber of the path.
    Unsubscribed { path: Path, last: bool, membership: Membership },
    /// The subscription is still pending. The client will not be subscribed, no matter how the decision turns out.
    Tombstoned,
    /// The client was not subscribed.
    NotSubscribed,
}

/// The state of a subscription that ended because its client disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedSubscription {
    /// The client was subscribed. `last` is `true` if it was this shard's last subscriber of the path.
    Active { last: bool, membership: Membership },
    /// The subscription with this id was pending. The decision is no longer needed.
    Pending(PathId),
}

/// The subscriptions of one shard's clients. A client is named by its slot.
///
/// A client holds one subscription of the shared pool from [`SubscribeOutcome::Decide`] until
/// [`DecisionOutcome::Refused`], [`DecisionOutcome::Unsubscribed`], [`UnsubscribeOutcome::Unsubscribed`], or the call
/// of `each` when its subscriptions are closed. [`held`](Self::held) counts the subscription during all of this time.
///
/// Invariants, asserted by [`check`](Subscriptions::check):
///
/// - The two ends of an active subscription point at each other: if a client's list has a path with a place, the
///   subscriber at this place of the path is the client, and each subscriber of a path has the path in its client's
///   list with its place.
/// - `pending` of a path is the number of clients in whose lists the path is pending or tombstoned.
/// - `active` is the number of active subscriptions.
/// - `held_paths` and `held_text_bytes` are the number and the text of the paths that clients of this shard hold.
/// - An entry is either in use, or its id is in `vacant`, once. An entry in use has a path, and `index` finds it by the
///   path's text. The index has no other pairs.
#[derive(Debug)]
pub struct Subscriptions {
    /// The paths of each client.
    clients: ClientLists,
    /// The paths, by [`PathId`].
    entries: Blocks<PathEntry>,
    /// The ids that are not in use.
    vacant: Vec<PathId>,
    /// The number of vacant ids from which on it is worth while to look for vacant entries at the end.
    next_look: usize,
    /// Pairs of 32 bits of a path's hash and its [`PathId`].
    index: PairTable,
    hasher: RandomState,
    secret: Secret,
    active: usize,
    held_paths: usize,
    held_text_bytes: usize,
}

/// A path and its subscribers. An entry without a path is vacant.
#[derive(Debug, Default)]
struct PathEntry {
    path: Option<Path>,
    /// Four subscribers need no heap.
    subscribers: SmallVec<[Subscriber; 4]>,
    /// The other shards that have subscribers, a bit for each. A `u128` would be aligned to 16 bytes.
    remote: [u64; SHARDS_MAX / 64],
    /// The number of clients whose subscription is pending or tombstoned.
    pending: u32,
    /// The key of the path in the index. With it, an entry is removed from the index without hashing the path again.
    tag: u32,
}

/// The memory of a shared text apart from its bytes: two counts.
const TEXT_HEADER_BYTES: usize = 16;

/// The memory of a path on a shard: its entry and its pair in the index. The index grows by doubling, and is at most three
/// quarters full: at worst, five eighths of its memory are unused.
const ENTRY_BYTES: usize = size_of::<PathEntry>() + 3 * size_of::<TableSlot>();

/// The number of places by which a list of subscribers grows at least.
const SUBSCRIBERS_GROWN_MIN: usize = 4;

/// The number of entries that a table keeps, however few are in use.
const ENTRIES_KEPT: usize = 1024;

/// The number of clients and of paths that [`Subscriptions::check_some`] examines.
const CHECKED_RECORDS: usize = 16;

/// The number of subscriptions that [`Subscriptions::check_some`] examines of each client and of each path.
const CHECKED_SUBSCRIPTIONS: usize = 64;

impl Subscriptions {
    /// Returns an empty table.
    pub fn new() -> Subscriptions {
        Subscriptions::with_hasher(RandomState::new())
    }

    fn with_hasher(hasher: RandomState) -> Subscriptions {
        let secret = Secret::new(&hasher);
        Subscriptions {
            clients: ClientLists::default(),
            entries: Blocks::new(),
            vacant: Vec::new(),
            next_look: 0,
            index: PairTable::new(),
            hasher,
            secret,
            active: 0,
            held_paths: 0,
            held_text_bytes: 0,
        }
    }

    /// Begins to subscribe a client to a path.
    ///
    /// If the path is not in use, it keeps this text, which all shards share.
    pub fn subscribe(&mut self, client: u32, path: &Path) -> SubscribeOutcome {
        let id = self.find_or_add(path);
        match self.state(client, id) {
            None => self.add_pending(client, id),
            Some(SubscriptionState::Pending) => SubscribeOutcome::InProgress,
            Some(SubscriptionState::Tombstoned) => {
                self.clients.set(self.secret, client, id, SubscriptionState::Pending);
                SubscribeOutcome::InProgress
            }
            Some(SubscriptionState::Active(_)) => SubscribeOutcome::Active,
        }
    }

    /// Takes the decision that [`SubscribeOutcome::Decide`] asked for.
    ///
    /// The caller must pass a decision at most once, and only while the client is connected. Afterwards the id may
    /// belong to another path.
    pub fn decide(&mut self, client: u32, path: PathId, accepted: bool) -> DecisionOutcome {
        self.decide_in(client, path, accepted.then_some(EventForm::Plain))
    }

    /// Like [`decide`](Self::decide), but events come in the form with which the subscription is accepted, if it is.
    pub fn decide_in(&mut self, client: u32, path: PathId, accepted: Option<EventForm>) -> DecisionOutcome {
        match (self.state(client, path), accepted) {
            (Some(SubscriptionState::Pending), Some(form)) => self.activate(client, path, form),
            (Some(SubscriptionState::Tombstoned), Some(_)) => {
                DecisionOutcome::Unsubscribed { path: self.remove_pending(client, path) }
            }
            (Some(SubscriptionState::Pending | SubscriptionState::Tombstoned), None) => {
                DecisionOutcome::Refused { path: self.remove_pending(client, path) }
            }
            (Some(SubscriptionState::Active(_)) | None, _) => DecisionOutcome::Unknown,
        }
    }

    /// Unsubscribes a client from a path.
    pub fn unsubscribe(&mut self, client: u32, path: PathRef<'_>) -> UnsubscribeOutcome {
        let Some(id) = self.find(path) else { return UnsubscribeOutcome::NotSubscribed };
        match self.state(client, id) {
            None => UnsubscribeOutcome::NotSubscribed,
            Some(SubscriptionState::Pending | SubscriptionState::Tombstoned) => {
                self.clients.set(self.secret, client, id, SubscriptionState::Tombstoned);
                UnsubscribeOutcome::Tombstoned
            }
            Some(SubscriptionState::Active(place)) => {
                self.clients.remove(self.secret, client, id);
                let (path, last, membership) = self.remove_subscriber(id, place);
                UnsubscribeOutcome::Unsubscribed { path, last, membership }
            }
        }
    }

    /// Ends all subscriptions of a client that has disconnected. Calls `each` for each of them.
    pub fn close(&mut self, client: u32, each: impl FnMut(Path, EndedSubscription)) {
        self.close_some(client, usize::MAX, each);
    }

    /// Like [`close`](Self::close), but ends at most `max` subscriptions: a client may have a million of them, too many
    /// for one turn.
    ///
    /// Returns `true` when none are left. Until then the client's slot must not be used again, and the client stays
    /// among the subscribers of the paths that are left.
    pub fn close_some(
        &mut self,
        client: u32,
        max: usize,
        mut each: impl FnMut(Path, EndedSubscription),
    ) -> bool {
        for _ in 0..max {
            let Some((id, state)) = self.clients.pop(self.secret, client) else { break };
            let (path, ended) = match state {
                SubscriptionState::Active(place) => {
                    let (path, last, membership) = self.remove_subscriber(id, place);
                    (path, EndedSubscription::Active { last, membership })
                }
                SubscriptionState::Pending | SubscriptionState::Tombstoned => {
                    (self.end_pending(id), EndedSubscription::Pending(id))
                }
            };
            each(path, ended);
        }
        let is_done = self.held(client) == 0;
        if is_done {
            self.clients.forget(client);
        }
        is_done
    }

    /// Returns the number of the client's subscriptions, including pending and tombstoned ones.
    pub fn held(&self, client: u32) -> usize {
        self.clients.get(client).map_or(0, ClientPaths::len)
    }

    /// Returns the places of a client's list of paths, of which at least a quarter has a path if there are many.
    /// Tombstoned ones are left out.
    pub fn paths_of(&self, client: u32) -> impl Iterator<Item = Option<PathId>> {
        self.clients
            .get(client)
            .into_iter()
            .flat_map(ClientPaths::places)
            .map(|place| place.filter(|(_, state)| *state != SubscriptionState::Tombstoned).map(|(id, _)| id))
    }

    /// Returns the clients that have subscriptions, including pending and tombstoned ones.
    pub fn holders(&self) -> impl Iterator<Item = u32> {
        self.clients.iter().map(|(client, _)| client)
    }

    /// Returns this shard's active subscribers of a path, in no particular order.
    pub fn subscribers(&self, path: PathId) -> &[Subscriber] {
        &self.entries[path.index()].subscribers
    }

    /// Returns the path of a client's pending subscription, or `None` if the client has none with this id.
    pub fn pending_path(&self, client: u32, path: PathId) -> Option<&Path> {
        match self.state(client, path) {
            Some(SubscriptionState::Pending) => Some(self.path(path)),
            _ => None,
        }
    }

    /// Returns whether a client has a subscription with this id that waits for a decision, or is tombstoned.
    pub fn is_pending(&self, client: u32, path: PathId) -> bool {
        matches!(self.state(client, path), Some(SubscriptionState::Pending | SubscriptionState::Tombstoned))
    }

    /// Returns the number of ids, some of which may be vacant.
    pub fn path_ids(&self) -> usize {
        self.entries.len()
    }

    /// Returns the path whose id has this index, and its active subscribers, or `None` if the id is vacant.
    pub fn subscribers_at(&self, index: usize) -> Option<(&Path, &[Subscriber])> {
        let entry = &self.entries[index];
        entry.path.as_ref().map(|path| (path, &*entry.subscribers))
    }

    /// Records that another shard has subscribers of the path.
    pub fn add_remote(&mut self, path: &Path, shard: u16) {
        let (word, bit) = remote_bit(shard);
        let id = self.find_or_add(path);
        self.entries[id.index()].remote[word] |= bit;
    }

    /// Records that another shard has no more subscribers of the path.
    pub fn remove_remote(&mut self, path: &Path, shard: u16) {
        let Some(id) = self.find(path.as_ref()) else { return };
        let (word, bit) = remote_bit(shard);
        self.entries[id.index()].remote[word] &= !bit;
        self.release(id);
    }

    /// Returns the id of a path, or `None` if the path is not in use.
    pub fn find(&self, path: PathRef<'_>) -> Option<PathId> {
        self.find_by_tag(self.tag(path), path)
    }

    /// Returns the other shards that have subscribers of the path, a bit for each.
    pub fn remote(&self, path: PathId) -> u128 {
        let [low, high] = self.entries[path.index()].remote;
        u128::from(low) | u128::from(high) << 64
    }

    /// Returns the path of an id in use.
    pub fn path(&self, path: PathId) -> &Path {
        self.entries[path.index()].path.as_ref().expect(IN_USE)
    }

    /// Returns the number of active subscriptions.
    pub fn len(&self) -> usize {
        self.active
    }

    /// Returns `true` if no subscription is active.
    pub fn is_empty(&self) -> bool {
        self.active == 0
    }

    /// Returns the memory in bytes that the paths cost which clients of this shard hold, if each is in use on this many
    /// shards: their text once, and an entry on each shard.
    pub fn held_path_bytes(&self, shards: usize) -> usize {
        self.held_text_bytes + self.held_paths * (TEXT_HEADER_BYTES + shards * ENTRY_BYTES)
    }

    /// Returns whether a client has a subscription of the path that is active or pending, and has not given it up.
    pub fn is_wanted(&self, client: u32, path: PathRef<'_>) -> bool {
        let state = self.find(path).and_then(|id| self.state(client, id));
        matches!(state, Some(SubscriptionState::Pending | SubscriptionState::Active(_)))
    }

    /// Returns whether a client is subscribed to a path.
    pub fn is_active(&self, client: u32, path: PathRef<'_>) -> bool {
        let state = self.find(path).and_then(|id| self.state(client, id));
        matches!(state, Some(SubscriptionState::Active(_)))
    }

    /// Returns the membership of a client of a path, or `None` if it is not subscribed.
    pub fn membership(&self, client: u32, path: PathId) -> Option<Membership> {
        let Some(SubscriptionState::Active(place)) = self.state(client, path) else { return None };
        Some(self.entries[path.index()].subscribers[place as usize].membership())
    }

    /// Sets the membership of a client that is subscribed to a path.
    ///
    /// # Panics
    ///
    /// Panics if it is not.
    pub fn set_membership(&mut self, client: u32, path: PathId, membership: Membership) {
        let Some(SubscriptionState::Active(place)) = self.state(client, path) else {
            panic!("client {client} must be subscribed to path {}", path.0);
        };
        self.entries[path.index()].subscribers[place as usize].set_membership(membership);
    }

    /// Returns the ids in use among `max` places from this one on.
    pub fn ids_from(&self, from: usize, max: usize) -> impl Iterator<Item = PathId> {
        let to = self.entries.len().min(from.saturating_add(max));
        let is_used = |index: &usize| self.entries[*index].path.is_some();
        (from..to).filter(is_used).map(|index| PathId(index as u32))
    }

    /// Returns the number of places of paths, vacant ones included.
    pub fn places(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of paths in use.
    pub fn paths(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// Asserts all invariants. The cost is linear in the number of clients, paths and subscriptions; see
    /// [`check_some`](Self::check_some) for large tables.
    ///
    /// # Panics
    ///
    /// Panics if an invariant is broken.
    pub fn check(&self) {
        let mut pending = vec![0; self.entries.len()];
        let mut active = 0;
        self.clients.check(self.secret);
        for (client, list) in self.clients.iter() {
            for (id, state) in list.iter() {
                self.check_state(client, id, state);
                match state {
                    SubscriptionState::Active(_) => active += 1,
                    SubscriptionState::Pending | SubscriptionState::Tombstoned => pending[id.index()] += 1,
                }
            }
        }
        assert_eq!(
            active, self.active,
            "`active` must be the number of active subscriptions in clients' lists"
        );
        for (index, pending) in pending.into_iter().enumerate() {
            let (id, entry) = (PathId(index as u32), &self.entries[index]);
            self.check_entry(id);
            assert_eq!(
                entry.pending, pending,
                "pending subscriptions of path {index} must be in clients' lists"
            );
            (0..entry.subscribers.len()).for_each(|place| self.check_subscriber(id, place));
        }
        let subscribers: usize = self.entries.iter().map(|entry| entry.subscribers.len()).sum();
        assert_eq!(subscribers, self.active, "`active` must be the number of subscribers of all paths");
        let held = || self.entries.iter().filter(|entry| entry.is_held());
        assert_eq!(held().count(), self.held_paths, "`held_paths` must be the number of paths that are held");
        let text: usize = held().map(PathEntry::text_bytes).sum();
        assert_eq!(
            text, self.held_text_bytes,
            "`held_text_bytes` must be the text of the paths that are held"
        );
        let vacant = self.entries.iter().filter(|entry| entry.path.is_none()).count();
        assert_eq!(vacant, self.vacant.len(), "each vacant id must be in `vacant` once");
        self.index.check(self.secret);
        assert_eq!(self.index.len(), self.paths(), "the index must have the paths in use and no others");
    }

    /// Asserts the invariants of a few clients, paths and subscriptions, which are chosen by `turn`. If it is called
    /// with consecutive numbers, all of them are examined in the course of time. The cost is constant: 16 clients and
    /// 16 paths, and 64 subscriptions of each.
    ///
    /// # Panics
    ///
    /// Panics if an invariant is broken.
    pub fn check_some(&self, turn: u64) {
        for client in window(turn, CHECKED_RECORDS, self.clients.slots()).map(|slot| slot as u32) {
            let list = self.clients.get(client).into_iter();
            for (id, state) in list.flat_map(|list| list.iter_some(turn, CHECKED_SUBSCRIPTIONS)) {
                self.check_state(client, id, state);
            }
        }
        for index in window(turn, CHECKED_RECORDS, self.entries.len()) {
            let (id, entry) = (PathId(index as u32), &self.entries[index]);
            self.check_entry(id);
            let places = window(turn, CHECKED_SUBSCRIPTIONS, entry.subscribers.len());
            places.for_each(|place| self.check_subscriber(id, place));
        }
        assert_eq!(self.index.len(), self.paths(), "the index must have the paths in use and no others");
    }

    /// Asserts that the other end of a subscription in a client's list agrees.
    fn check_state(&self, client: u32, id: PathId, state: SubscriptionState) {
        let entry = &self.entries[id.index()];
        assert!(entry.path.is_some(), "path {} of client {client} must be in use", id.0);
        match state {
            SubscriptionState::Active(place) => assert_eq!(
                entry.subscribers.get(place as usize).map(|subscriber| subscriber.client()),
                Some(client),
                "client {client} must be subscriber {place} of path {}",
                id.0
            ),
            SubscriptionState::Pending | SubscriptionState::Tombstoned => {
                assert!(
                    entry.pending > 0,
                    "path {} must have a pending subscription of client {client}",
                    id.0
                );
            }
        }
    }

    /// Asserts that the other end of a subscription in a path's list agrees.
    fn check_subscriber(&self, id: PathId, place: usize) {
        let client = self.entries[id.index()].subscribers[place].client();
        let expected = Some(SubscriptionState::Active(place as u32));
        assert_eq!(self.state(client, id), expected, "path {} must be in the list of client {client}", id.0);
    }

    /// Asserts that an entry is in use or vacant, and that it can be found if it is in use.
    fn check_entry(&self, id: PathId) {
        let entry = &self.entries[id.index()];
        assert_eq!(entry.path.is_none(), entry.is_idle(), "path {} must be vacant if it is not in use", id.0);
        if let Some(path) = &entry.path {
            assert_eq!(self.find(path.as_ref()), Some(id), "the index must find {path}");
        }
    }

    fn state(&self, client: u32, path: PathId) -> Option<SubscriptionState> {
        self.clients.get(client)?.get(self.secret, path)
    }

    fn add_pending(&mut self, client: u32, id: PathId) -> SubscribeOutcome {
        self.clients.insert(self.secret, client, id, SubscriptionState::Pending);
        let entry = &mut self.entries[id.index()];
        if !entry.is_held() {
            self.held_paths += 1;
            self.held_text_bytes += entry.text_bytes();
        }
        entry.pending += 1;
        SubscribeOutcome::Decide(id)
    }

    fn activate(&mut self, client: u32, id: PathId, form: EventForm) -> DecisionOutcome {
        let entry = &mut self.entries[id.index()];
        let place = u32::try_from(entry.subscribers.len()).expect("clients are counted in u32");
        assert!(place < PLACES_MAX, "a path has at most {PLACES_MAX} subscribers");
        entry.add_subscriber(Subscriber::new(client, form));
        entry.pending -= 1;
        self.active += 1;
        self.clients.set(self.secret, client, id, SubscriptionState::Active(place));
        DecisionOutcome::Subscribed { first: place == 0 }
    }

    /// Removes a pending or tombstoned subscription from both lists. Returns the path.
    fn remove_pending(&mut self, client: u32, id: PathId) -> Path {
        self.clients.remove(self.secret, client, id);
        self.end_pending(id)
    }

    /// Removes a pending or tombstoned subscription from the path; the client's list no longer has it. Returns the
    /// path.
    fn end_pending(&mut self, id: PathId) -> Path {
        self.entries[id.index()].pending -= 1;
        self.count_released(id);
        self.release(id)
    }

    /// Removes the subscriber at `place` from the path; the client's list no longer has it. The last subscriber moves
    /// to this place. Returns the path, whether it has no more subscribers, and the membership of the one that was removed.
    fn remove_subscriber(&mut self, id: PathId, place: u32) -> (Path, bool, Membership) {
        let subscribers = &mut self.entries[id.index()].subscribers;
        let removed = subscribers.swap_remove(place as usize);
        if let Some(moved) = subscribers.get(place as usize) {
            self.clients.set(self.secret, moved.client(), id, SubscriptionState::Active(place));
        }
        if subscribers.spilled() && subscribers.len() <= subscribers.capacity() / 4 {
            subscribers.grow(subscribers.capacity() / 2);
        }
        let last = subscribers.is_empty();
        self.active -= 1;
        self.count_released(id);
        (self.release(id), last, removed.membership())
    }

    /// Notes that a client no longer holds a path.
    fn count_released(&mut self, id: PathId) {
        let entry = &self.entries[id.index()];
        if !entry.is_held() {
            self.held_paths -= 1;
            self.held_text_bytes -= entry.text_bytes();
        }
    }

    fn find_or_add(&mut self, path: &Path) -> PathId {
        let tag = self.tag(path.as_ref());
        self.find_by_tag(tag, path.as_ref()).unwrap_or_else(|| self.add(tag, path))
    }

    fn tag(&self, path: PathRef<'_>) -> u32 {
        self.hasher.hash_one(path.as_str()) as u32
    }

    fn find_by_tag(&self, tag: u32, path: PathRef<'_>) -> Option<PathId> {
        let at = self.index.find(self.secret, tag, |id| self.path(PathId(id)).as_str() == path.as_str())?;
        Some(PathId(self.index.value(at)))
    }

    fn add(&mut self, tag: u32, path: &Path) -> PathId {
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(PathEntry::default());
            PathId(u32::try_from(self.entries.len() - 1).expect("paths are bounded by subscriptions"))
        });
        let entry = &mut self.entries[id.index()];
        (entry.path, entry.tag) = (Some(path.clone()), tag);
        self.index.insert(self.secret, TableSlot::new(tag, id.0));
        id
    }

    /// Makes the id of a path vacant if the path is no longer in use. Returns the path in any case.
    fn release(&mut self, id: PathId) -> Path {
        let entry = &mut self.entries[id.index()];
        if !entry.is_idle() {
            return entry.path.clone().expect(IN_USE);
        }
        let path = entry.path.take().expect(IN_USE);
        let at = self.index.find(self.secret, entry.tag, |value| value == id.0).expect(IN_USE);
        self.index.remove(self.secret, at);
        self.vacant.push(id);
        self.free_last_entries();
        path
    }

    /// Frees the entries behind the last one in use if they are at least half of a table of which most is vacant. Looking
    /// for that entry may take time for each vacant one. A look that finds too few is therefore not repeated before half
    /// of those in use are vacant too.
    fn free_last_entries(&mut self) {
        let (entries, vacant) = (self.entries.len(), self.vacant.len());
        let is_sparse = entries >= ENTRIES_KEPT && vacant >= entries - entries / 4;
        if !is_sparse || vacant < self.next_look.min(entries) {
            return;
        }
        let last = (0..entries).rev().find(|index| self.entries[*index].path.is_some());
        let used = last.map_or(0, |last| last + 1);
        if used > entries / 2 {
            self.next_look = vacant + ((entries - vacant) / 2).max(1);
            return;
        }
        self.next_look = 0;
        while self.entries.len() > used {
            self.entries.pop();
        }
        self.vacant.retain(|id| id.index() < used);
        self.vacant.shrink_to(used);
    }
}

const IN_USE: &str = "the entry of a path in use must have a path and be in the index";

/// Returns up to `count` of the indexes of a table of `len` records. They begin at a place that moves on with each
/// turn.
fn window(turn: u64, count: usize, len: usize) -> impl Iterator<Item = usize> {
    let start = (turn as usize).wrapping_mul(count);
    (0..count.min(len)).map(move |offset| start.wrapping_add(offset) % len)
}

impl PathEntry {
    /// Adds a subscriber. A long list grows by an eighth, not by doubling: a list of a million entries has little memory
    /// that is not used, and each entry is still copied only about eight times.
    fn add_subscriber(&mut self, subscriber: Subscriber) {
        let list = &mut self.subscribers;
        if list.len() == list.capacity() {
            list.grow(list.len() + (list.len() / 8).max(SUBSCRIBERS_GROWN_MIN));
        }
        list.push(subscriber);
    }

    /// Returns whether a client of this shard is subscribed to the path, or pending.
    fn is_held(&self) -> bool {
        !self.subscribers.is_empty() || self.pending > 0
    }

    fn text_bytes(&self) -> usize {
        self.path.as_ref().expect(IN_USE).as_str().len()
    }

    /// Returns whether the path has no subscribers on any shard, and none that are pending.
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
