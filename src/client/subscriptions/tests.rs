//! Tests of the subscription table: its states, its memory, and random operations against a model of ordered maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[path = "../../../tests/fuzz/mod.rs"]
mod fuzz;

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn subscribe(table: &mut Subscriptions, client: u32, raw: &str) -> PathId {
    let SubscribeOutcome::Decide(id) = table.subscribe(client, &path(raw)) else {
        panic!("nothing to decide")
    };
    assert!(matches!(table.decide(client, id, true), DecisionOutcome::Subscribed { .. }));
    id
}

fn clients(table: &Subscriptions, raw: &str) -> Vec<u32> {
    let id = table.find(path(raw).as_ref());
    id.map_or(Vec::new(), |id| table.subscribers(id).iter().map(|subscriber| subscriber.client()).collect())
}

#[test]
fn subscribing_and_unsubscribing() {
    let (mut table, chat) = (Subscriptions::default(), path("/chat"));
    let SubscribeOutcome::Decide(id) = table.subscribe(7, &chat) else { panic!("nothing to decide") };
    assert_eq!((table.path(id), table.held(7), table.len(), table.paths()), (&chat, 1, 0, 1));
    assert_eq!(clients(&table, "/chat"), [0_u32; 0], "a pending one is no subscriber");
    assert_eq!(table.subscribe(7, &chat), SubscribeOutcome::InProgress);
    assert_eq!(table.decide(7, id, true), DecisionOutcome::Subscribed { first: true });
    assert_eq!(table.subscribe(7, &chat), SubscribeOutcome::Active);
    assert_eq!(table.decide(7, id, true), DecisionOutcome::Unknown);
    assert_eq!(table.subscribe(8, &chat), SubscribeOutcome::Decide(id));
    assert_eq!(table.decide(8, id, true), DecisionOutcome::Subscribed { first: false });
    assert_eq!((clients(&table, "/chat"), table.len()), (vec![7, 8], 2));
    assert_eq!(
        table.unsubscribe(7, chat.as_ref()),
        UnsubscribeOutcome::Unsubscribed { path: chat.clone(), last: false, membership: Membership::None }
    );
    assert_eq!(table.unsubscribe(7, chat.as_ref()), UnsubscribeOutcome::NotSubscribed);
    assert_eq!(clients(&table, "/chat"), [8]);
    assert_eq!(
        table.unsubscribe(8, chat.as_ref()),
        UnsubscribeOutcome::Unsubscribed { path: chat.clone(), last: true, membership: Membership::None }
    );
    assert_eq!((table.find(chat.as_ref()), table.len(), table.paths()), (None, 0, 0));
    assert!(table.is_empty());
    table.check();
}

#[test]
fn outcomes_of_a_decision() {
    // The steps of the client while the subscription is pending, the decision, its outcome, and whether the client is
    // then subscribed.
    let refused = || DecisionOutcome::Refused { path: path("/chat") };
    let unsubscribed = || DecisionOutcome::Unsubscribed { path: path("/chat") };
    let cases = [
        ("", true, DecisionOutcome::Subscribed { first: true }, true),
        ("", false, refused(), false),
        ("-", true, unsubscribed(), false),
        ("-", false, refused(), false),
        ("--", true, unsubscribed(), false),
        ("-+", true, DecisionOutcome::Subscribed { first: true }, true),
        ("-+", false, refused(), false),
        ("-+-", true, unsubscribed(), false),
        ("+-+", true, DecisionOutcome::Subscribed { first: true }, true),
    ];
    for (steps, accepted, expected, subscribed) in cases {
        let (mut table, chat) = (Subscriptions::new(), path("/chat"));
        let SubscribeOutcome::Decide(id) = table.subscribe(0, &chat) else { panic!("nothing to decide") };
        for step in steps.chars() {
            match step {
                '+' => assert_eq!(table.subscribe(0, &chat), SubscribeOutcome::InProgress),
                _ => assert_eq!(table.unsubscribe(0, chat.as_ref()), UnsubscribeOutcome::Tombstoned),
            }
        }
        assert_eq!(table.held(0), 1, "{steps}");
        assert_eq!(table.decide(0, id, accepted), expected, "{steps}");
        assert_eq!((table.held(0) == 1, table.len() == 1), (subscribed, subscribed), "{steps}");
        assert_eq!(table.paths(), usize::from(subscribed), "{steps}");
        table.check();
    }
}

#[test]
fn decisions_about_nothing_are_unknown() {
    let mut table = Subscriptions::new();
    assert_eq!(table.decide(0, PathId(0), true), DecisionOutcome::Unknown);
    let id = subscribe(&mut table, 3, "/chat");
    for (client, id) in [(0, id), (4, id), (3, PathId(id.0 + 1)), (u32::MAX, id), (3, id)] {
        assert_eq!(table.decide(client, id, false), DecisionOutcome::Unknown);
    }
    assert_eq!(clients(&table, "/chat"), [3]);
}

#[test]
fn a_client_that_disconnects_leaves_nothing() {
    let mut table = Subscriptions::new();
    subscribe(&mut table, 1, "/alone");
    subscribe(&mut table, 1, "/both");
    subscribe(&mut table, 2, "/both");
    let SubscribeOutcome::Decide(pending) = table.subscribe(1, &path("/pending")) else { panic!("active") };
    let SubscribeOutcome::Decide(tombstoned) = table.subscribe(1, &path("/tombstoned")) else {
        panic!("active")
    };
    table.unsubscribe(1, path("/tombstoned").as_ref());
    let mut ended = BTreeMap::new();
    table.close(1, |path, how| assert_eq!(ended.insert(path.to_string(), how), None));
    let expected = [
        ("/alone", EndedSubscription::Active { last: true, membership: Membership::None }),
        ("/both", EndedSubscription::Active { last: false, membership: Membership::None }),
        ("/pending", EndedSubscription::Pending(pending)),
        ("/tombstoned", EndedSubscription::Pending(tombstoned)),
    ];
    assert_eq!(ended, expected.map(|(path, how)| (path.to_owned(), how)).into());
    assert_eq!((table.held(1), table.len(), table.paths()), (0, 1, 1));
    table.close(1, |_, _| panic!("the client has no subscriptions"));
    table.close(99, |_, _| panic!("the client never existed"));
    table.check();
}

#[test]
fn a_client_may_be_closed_in_pieces() {
    let mut table = Subscriptions::new();
    for number in 0..100 {
        subscribe(&mut table, 0, &format!("/{number}"));
    }
    let mut gone = 0;
    while !table.close_some(0, 7, |_, _| gone += 1) {
        assert_eq!((gone % 7, table.held(0)), (0, 100 - gone));
        table.check();
    }
    assert_eq!((gone, table.paths()), (100, 0));
    assert!(table.close_some(0, 0, |_, _| ()), "nothing is left to do");
}

#[test]
fn other_shards_keep_a_path() {
    let (mut table, chat) = (Subscriptions::new(), path("/chat"));
    table.remove_remote(&chat, 0);
    let shards = [0, 1, 63, 64, 127];
    for shard in shards {
        table.add_remote(&chat, shard);
        table.add_remote(&chat, shard);
    }
    let id = subscribe(&mut table, 0, "/chat");
    assert_eq!(table.remote(id), shards.iter().map(|shard| 1 << shard).sum::<u128>());
    assert_eq!(
        table.unsubscribe(0, chat.as_ref()),
        UnsubscribeOutcome::Unsubscribed { path: chat.clone(), last: true, membership: Membership::None }
    );
    assert_eq!(table.find(chat.as_ref()), Some(id));
    for shard in shards {
        assert_eq!(table.paths(), 1);
        table.remove_remote(&chat, shard);
        table.check();
    }
    assert_eq!(table.paths(), 0);
}

#[test]
#[should_panic = "shard 128 is beyond the limit"]
fn a_shard_beyond_the_limit_is_a_panic() {
    Subscriptions::new().add_remote(&path("/chat"), SHARDS_MAX as u16);
}

#[test]
fn ids_are_dense_and_used_again() {
    let mut table = Subscriptions::new();
    let ids: Vec<usize> =
        (0..9).map(|number| subscribe(&mut table, 0, &format!("/{number}")).index()).collect();
    assert_eq!(ids, (0..9).collect::<Vec<_>>());
    table.unsubscribe(0, path("/4").as_ref());
    assert_eq!(subscribe(&mut table, 0, "/new").index(), 4);
}

/// The budget of a subscription, in bytes, beyond its path and its client's slot.
const SUBSCRIPTION_BYTES_MAX: usize = 32;

#[test]
fn records_are_within_their_budgets() {
    assert_eq!(size_of::<Subscriber>(), 4);
    assert!(size_of::<ClientPaths>() <= 24, "a client's slot");
    assert!(size_of::<PathEntry>() <= 64, "a path's entry");
    assert_eq!(size_of::<PathId>(), 4);
}

#[test]
fn subscriptions_are_within_their_budget() {
    // Sizes at which a list has just grown and has the most unused memory, and sizes around them.
    for (clients, paths) in
        [(1, 1), (1, 2), (5, 2), (9, 3), (17, 4), (33, 7), (65, 13), (129, 25), (1, 3073), (1025, 1)]
    {
        let mut table = Subscriptions::new();
        for client in 0..clients {
            for number in 0..paths {
                subscribe(&mut table, client, &format!("/{number}"));
            }
        }
        let bytes = table.subscription_bytes();
        assert!(
            bytes <= SUBSCRIPTION_BYTES_MAX * table.len(),
            "{bytes} bytes, {clients} clients, {paths} paths"
        );
        let index = table.index.heap_bytes();
        assert!(index <= 22 * table.paths().max(2), "{index} bytes of index for {paths} paths");
    }
}

#[test]
fn one_or_two_subscriptions_need_no_heap() {
    let mut table = Subscriptions::new();
    for client in 0..4 {
        subscribe(&mut table, client, "/chat");
        subscribe(&mut table, client, "/news");
    }
    assert_eq!(table.subscription_bytes(), 0);
}

#[test]
fn memory_is_freed_with_subscriptions() {
    let mut table = Subscriptions::new();
    for number in 0..20_000 {
        subscribe(&mut table, 0, &format!("/{number}"));
        subscribe(&mut table, number + 1, "/all");
    }
    for number in 1..20_000 {
        table.unsubscribe(0, path(&format!("/{number}")).as_ref());
        table.unsubscribe(number + 1, path("/all").as_ref());
    }
    assert_eq!(table.len(), 2);
    assert_eq!(table.subscription_bytes(), 0);
    assert!(table.index.heap_bytes() <= 64);
    table.check();
}

#[test]
fn entries_at_the_end_are_freed_when_most_are_vacant() {
    const PATHS: usize = 8 * ENTRIES_KEPT;
    let mut table = Subscriptions::default();
    for number in 0..PATHS {
        subscribe(&mut table, 1, &format!("/a{number}"));
    }
    let keep = path("/a10");
    for number in (0..PATHS).filter(|number| *number != 10) {
        table.unsubscribe(1, path(&format!("/a{number}")).as_ref());
    }
    table.check();
    assert!(table.entries.len() <= ENTRIES_KEPT, "{}", table.entries.len());
    assert!(table.entries.capacity() <= 2 * ENTRIES_KEPT, "{}", table.entries.capacity());
    assert!(table.vacant.capacity() <= 2 * ENTRIES_KEPT, "{}", table.vacant.capacity());
    assert_eq!(clients(&table, "/a10"), [1]);
    // The last entry in use keeps those before it, until it is gone.
    let mut table = Subscriptions::default();
    let ids: Vec<PathId> =
        (0..PATHS).map(|number| subscribe(&mut table, 1, &format!("/a{number}"))).collect();
    let last = (0..PATHS).max_by_key(|number| ids[*number].index()).unwrap();
    for number in (0..PATHS).filter(|number| *number != last) {
        table.unsubscribe(1, path(&format!("/a{number}")).as_ref());
    }
    table.check();
    assert_eq!(table.entries.len(), PATHS);
    table.unsubscribe(1, path(&format!("/a{last}")).as_ref());
    table.check();
    assert_eq!((table.entries.len(), table.vacant.len()), (0, 0));
    subscribe(&mut table, 1, keep.as_str());
    table.check();
}

#[test]
fn a_client_with_many_subscriptions() {
    let mut table = Subscriptions::new();
    let paths: Vec<Path> = (0..50_000).map(|number| path(&format!("/many/{number}"))).collect();
    for path in &paths {
        let SubscribeOutcome::Decide(id) = table.subscribe(0, path) else { panic!("nothing to decide") };
        table.decide(0, id, true);
    }
    assert!(paths.iter().all(|path| table.subscribe(0, path) == SubscribeOutcome::Active));
    assert!(
        paths.iter().step_by(2).all(|path| matches!(
            table.unsubscribe(0, path.as_ref()),
            UnsubscribeOutcome::Unsubscribed { .. }
        ))
    );
    assert_eq!((table.held(0), table.len(), table.paths()), (25_000, 25_000, 25_000));
    table.check();
}

impl Subscriptions {
    /// The heap that lists of subscriptions take, beyond the paths' entries and the clients' slots.
    fn subscription_bytes(&self) -> usize {
        let spilled =
            self.entries.iter().map(|entry| &entry.subscribers).filter(|subscribers| subscribers.spilled());
        let of_paths = spilled.map(|subscribers| subscribers.capacity() * size_of::<Subscriber>());
        of_paths.sum::<usize>() + self.clients.iter().map(|(_, list)| list.heap_bytes()).sum::<usize>()
    }
}

/// Two clients and two paths, with an active and a pending subscription of each client.
fn two_by_two() -> Subscriptions {
    let mut table = Subscriptions::new();
    for client in 0..2 {
        subscribe(&mut table, client, "/chat");
        table.subscribe(client, &path("/news"));
    }
    table.check();
    (0..all_parts(&table)).for_each(|turn| table.check_some(turn));
    table
}

/// The number of turns in which [`Subscriptions::check_some`] examines the whole of a small table.
fn all_parts(table: &Subscriptions) -> u64 {
    table.clients.slots().div_ceil(CHECKED_RECORDS) as u64
}

/// Breaks an invariant, and expects this message from both checks or, if it is not visible in a part of the table, from
/// the full check alone.
#[track_caller]
fn expect_broken(message: &str, is_local: bool, break_it: impl Fn(&mut Subscriptions)) {
    let mut table = two_by_two();
    break_it(&mut table);
    let panics = |check: &dyn Fn(&Subscriptions)| {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&table)));
        outcome
            .err()
            .is_some_and(|panic| panic.downcast_ref::<String>().is_some_and(|it| it.contains(message)))
    };
    assert!(panics(&|table| table.check()), "{message}");
    let check_parts = |table: &Subscriptions| (0..all_parts(table)).for_each(|turn| table.check_some(turn));
    assert_eq!(panics(&check_parts), is_local, "{message}");
}

#[test]
fn the_checks_find_broken_invariants() {
    let (chat, news) = (PathId(0), PathId(1));
    expect_broken("client 0 must be subscriber 1 of path 0", true, |table| {
        let secret = table.secret;
        table.clients.set(secret, 0, chat, SubscriptionState::Active(1));
    });
    expect_broken("client 0 must be subscriber 0 of path 0", true, |table| {
        table.entries[0].subscribers.swap(0, 1);
    });
    expect_broken("path 0 must be in the list of client 1", true, |table| {
        let secret = table.secret;
        table.clients.remove(secret, 1, chat);
        table.active -= 1;
    });
    expect_broken("`active` must be the number of active subscriptions", false, |table| table.active += 1);
    expect_broken("pending subscriptions of path 1 must be in clients' lists", false, |table| {
        table.entries[1].pending += 1;
    });
    expect_broken("path 1 must have a pending subscription of client 0", true, |table| {
        table.entries[1].pending = 0;
    });
    expect_broken("path 2 must be vacant if it is not in use", true, |table| {
        table.entries.push(PathEntry { path: Some(path("/lost")), ..PathEntry::default() });
    });
    expect_broken("the index must find /news", true, |table| {
        let secret = table.secret;
        let at = table.index.find(secret, table.entries[1].tag, |id| id == news.0).unwrap();
        table.index.remove(secret, at);
    });
    expect_broken("each vacant id must be in `vacant` once", false, |table| table.vacant.push(news));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Has {
    Pending,
    Tombstoned,
    Active,
}

/// The model: the rules of the protocol in ordered maps.
#[derive(Default)]
struct Model {
    states: BTreeMap<(u32, usize), Has>,
    remote: BTreeSet<(usize, u16)>,
    /// The ids that the table returned for pending decisions.
    asked: BTreeMap<(u32, usize), PathId>,
}

impl Model {
    fn subscribers(&self, path: usize) -> BTreeSet<u32> {
        let active = self.states.iter().filter(|(key, has)| key.1 == path && **has == Has::Active);
        active.map(|(key, _)| key.0).collect()
    }

    fn paths(&self) -> BTreeSet<usize> {
        let local = self.states.keys().map(|(_, path)| *path);
        local.chain(self.remote.iter().map(|(path, _)| *path)).collect()
    }
}

/// An operation. There are few clients and paths, which makes them collide.
#[derive(Clone, Debug)]
enum Step {
    Subscribe(u32, usize),
    Decide(u32, usize, bool),
    Unsubscribe(u32, usize),
    Close(u32),
    CloseSome(u32, usize),
    AddRemote(usize, u16),
    RemoveRemote(usize, u16),
}

/// A table and its model, driven together.
struct Pair {
    table: Subscriptions,
    model: Model,
    paths: Vec<Path>,
}

impl Pair {
    fn new(paths: usize, colliding: bool) -> Pair {
        let mut table = Subscriptions::with_hasher(RandomState::with_seeds(1, 2, 3, 4));
        if colliding {
            table.secret = Secret::colliding();
        }
        let paths = (0..paths).map(|number| path(&format!("/path/{number}"))).collect();
        Pair { table, model: Model::default(), paths }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Subscribe(client, path) => self.subscribe(client, path),
            Step::Decide(client, path, accepted) => self.decide(client, path, accepted),
            Step::Unsubscribe(client, path) => self.unsubscribe(client, path),
            Step::Close(client) => self.close(client, usize::MAX),
            Step::CloseSome(client, max) => self.close(client, max),
            Step::AddRemote(path, shard) => {
                self.table.add_remote(&self.paths[path], shard);
                self.model.remote.insert((path, shard));
            }
            Step::RemoveRemote(path, shard) => {
                self.table.remove_remote(&self.paths[path], shard);
                self.model.remote.remove(&(path, shard));
            }
        }
    }

    fn subscribe(&mut self, client: u32, path: usize) {
        let key = (client, path);
        let answer = self.table.subscribe(client, &self.paths[path]);
        match self.model.states.get(&key) {
            None => {
                let SubscribeOutcome::Decide(id) = answer else { panic!("{answer:?} instead of a decision") };
                self.model.asked.insert(key, id);
                self.model.states.insert(key, Has::Pending);
            }
            Some(Has::Active) => assert_eq!(answer, SubscribeOutcome::Active),
            Some(Has::Pending | Has::Tombstoned) => {
                assert_eq!(answer, SubscribeOutcome::InProgress);
                self.model.states.insert(key, Has::Pending);
            }
        }
    }

    fn decide(&mut self, client: u32, path: usize, accepted: bool) {
        let key = (client, path);
        let Some(id) = self.model.asked.remove(&key) else { return };
        let expected = match self.model.states.remove(&key).expect("what was asked has a state") {
            Has::Pending if accepted => {
                let first = self.model.subscribers(path).is_empty();
                self.model.states.insert(key, Has::Active);
                DecisionOutcome::Subscribed { first }
            }
            Has::Tombstoned if accepted => DecisionOutcome::Unsubscribed { path: self.paths[path].clone() },
            _ => DecisionOutcome::Refused { path: self.paths[path].clone() },
        };
        assert_eq!(self.table.decide(client, id, accepted), expected);
    }

    fn unsubscribe(&mut self, client: u32, path: usize) {
        let key = (client, path);
        let expected = match self.model.states.get(&key) {
            None => UnsubscribeOutcome::NotSubscribed,
            Some(Has::Active) => {
                self.model.states.remove(&key);
                let last = self.model.subscribers(path).is_empty();
                UnsubscribeOutcome::Unsubscribed {
                    path: self.paths[path].clone(),
                    last,
                    membership: Membership::None,
                }
            }
            Some(Has::Pending | Has::Tombstoned) => {
                self.model.states.insert(key, Has::Tombstoned);
                UnsubscribeOutcome::Tombstoned
            }
        };
        assert_eq!(self.table.unsubscribe(client, self.paths[path].as_ref()), expected);
    }

    fn close(&mut self, client: u32, max: usize) {
        let held = self.table.held(client);
        let (model, paths, mut gone) = (&mut self.model, &self.paths, 0);
        let done = self.table.close_some(client, max, |path, ended| {
            let number = paths.iter().position(|known| *known == path).expect("only known paths");
            let has = model.states.remove(&(client, number)).expect("what ends was there");
            let expected = match has {
                Has::Active => Some(model.subscribers(number).is_empty()),
                Has::Pending | Has::Tombstoned => None,
            };
            let last = match ended {
                EndedSubscription::Active { last, .. } => Some(last),
                EndedSubscription::Pending(_) => None,
            };
            assert_eq!(last, expected);
            model.asked.remove(&(client, number));
            gone += 1;
        });
        assert_eq!((gone, done), (held.min(max), held <= max));
    }

    fn compare(&self) {
        self.table.check();
        let active = self.model.states.values().filter(|has| **has == Has::Active).count();
        assert_eq!((self.table.len(), self.table.is_empty()), (active, active == 0));
        let alive = self.model.paths();
        assert_eq!(self.table.paths(), alive.len());
        for (number, path) in self.paths.iter().enumerate() {
            let id = self.table.find(path.as_ref());
            assert_eq!(id.is_some(), alive.contains(&number), "{path}");
            if let Some(id) = id {
                assert_eq!(self.table.path(id), path);
                let subscribers: BTreeSet<u32> =
                    self.table.subscribers(id).iter().map(|one| one.client()).collect();
                assert_eq!(subscribers, self.model.subscribers(number));
                let remote = self.model.remote.iter().filter(|(path, _)| *path == number);
                assert_eq!(self.table.remote(id), remote.map(|(_, shard)| 1_u128 << shard).sum::<u128>());
            }
        }
        for client in 0..self.table.clients.slots() as u32 {
            let held = self.model.states.keys().filter(|key| key.0 == client).count();
            assert_eq!(self.table.held(client), held);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, path, shard) = (0..6_u32, 0..10_usize, 0..128_u16);
    let step = prop_oneof![
        5 => (client.clone(), path.clone()).prop_map(|(client, path)| Step::Subscribe(client, path)),
        5 => (client.clone(), path.clone(), prop::bool::weighted(0.8))
            .prop_map(|(client, path, accepted)| Step::Decide(client, path, accepted)),
        3 => (client.clone(), path.clone()).prop_map(|(client, path)| Step::Unsubscribe(client, path)),
        1 => client.prop_map(Step::Close),
        1 => (path.clone(), shard.clone()).prop_map(|(path, shard)| Step::AddRemote(path, shard)),
        1 => (path, shard).prop_map(|(path, shard)| Step::RemoveRemote(path, shard)),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn behaves_like_the_model(steps in steps(), colliding: bool) {
        let mut pair = Pair::new(10, colliding);
        for step in steps {
            pair.step(step);
            pair.compare();
        }
    }
}

/// Longer runs than those of the property: lists grow into tables and shrink again. Phases alternate between mostly
/// subscribing and mostly unsubscribing.
#[test]
fn fuzz_against_the_model() {
    fuzz::run(|random| {
        let (clients, paths) = (1 + random.below(12), 1 + random.below(40));
        let mut pair = Pair::new(paths, random.one_in(4));
        for _ in 0..4 {
            let leaving = random.one_in(2);
            for _ in 0..random.below(150) {
                pair.step(random_step(random, clients, paths, leaving));
                pair.compare();
            }
        }
        (0..clients as u32).for_each(|client| pair.step(Step::Close(client)));
        pair.compare();
        assert_eq!(pair.table.subscription_bytes(), 0, "all memory is freed");
    });
}

fn random_step(random: &mut fuzz::Random, clients: usize, paths: usize, leaving: bool) -> Step {
    let (client, path) = (random.below(clients) as u32, random.below(paths));
    let shard = random.below(3) as u16 * 50;
    match (random.below(20), leaving) {
        (0, true) => Step::Close(client),
        (1, _) => Step::CloseSome(client, random.below(5)),
        (2, _) => Step::AddRemote(path, shard),
        (3..=4, _) => Step::RemoveRemote(path, shard),
        (5..=11, true) | (5, false) => Step::Unsubscribe(client, path),
        (12..=15, _) => Step::Decide(client, path, !random.one_in(6)),
        _ => Step::Subscribe(client, path),
    }
}
