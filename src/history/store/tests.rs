use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const RULES: [(&str, u32); 2] = [("/a/**", 3), ("/b/**", 5)];

fn store(bytes_max: usize) -> Store {
    let mut store = Store::new(bytes_max, 1);
    store.set_rules(RULES.iter().map(|(rule, events)| (*rule, bounds(*events, None))));
    store
}

fn bounds(events: u32, age_s: Option<u32>) -> Option<HistoryBounds> {
    Some(HistoryBounds { events, age_s })
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn since(text: &str) -> ReplayFrom {
    ReplayFrom { since: Some(text.parse().unwrap()), last: None }
}

fn last(last: u32) -> ReplayFrom {
    ReplayFrom { since: None, last: Some(last) }
}

/// Appends events whose data are their numbers.
fn append(store: &mut Store, rule: usize, path: &Path, events: u64) {
    for number in 1..=events {
        let at = store.append(rule, path, number.to_string().into(), 0);
        assert_eq!(at.number, number);
    }
}

/// Returns the number of the position, completeness, and the numbers and data of the events.
fn seen(replay: Replay<'_>) -> (u64, bool, Vec<(u64, String)>) {
    let events = (replay.first..).zip(replay.events).map(|(number, data)| (number, data.to_string()));
    (replay.at.number, replay.is_complete, events.collect())
}

fn numbered(numbers: std::ops::RangeInclusive<u64>) -> Vec<(u64, String)> {
    numbers.map(|number| (number, number.to_string())).collect()
}

#[test]
fn a_client_gets_what_it_has_missed_or_is_told_that_it_cannot() {
    let (mut store, chat) = (store(1 << 20), path("/b/chat"));
    append(&mut store, 1, &chat, 8);
    store.check();
    let epoch = store.replay(1, chat.as_ref(), last(0), 0).at.epoch;
    let at = |number: u64| since(&Position { epoch, number }.to_string());
    for (from, expected) in [
        (at(8), (8, true, vec![])),
        (at(6), (8, true, numbered(7..=8))),
        (at(3), (8, true, numbered(4..=8))),
        // The fourth event is the first one that is kept.
        (at(2), (8, false, vec![])),
        (at(9), (8, false, vec![])),
        (at(u64::MAX), (8, false, vec![])),
        (since("0.8"), (8, false, vec![])),
        (ReplayFrom { last: Some(2), ..at(2) }, (8, false, numbered(7..=8))),
        (ReplayFrom { last: Some(2), ..at(4) }, (8, true, numbered(5..=8))),
        (last(0), (8, true, vec![])),
        (last(2), (8, true, numbered(7..=8))),
        (last(5), (8, true, numbered(4..=8))),
        (last(6), (8, false, numbered(4..=8))),
        (last(u32::MAX), (8, false, numbered(4..=8))),
    ] {
        assert_eq!(seen(store.replay(1, chat.as_ref(), from, 0)), expected, "{from:?}");
    }
    // Of a path that never had more events, all are the last ones.
    store.append(0, &path("/a/x"), "1".into(), 0);
    assert_eq!(seen(store.replay(0, path("/a/x").as_ref(), last(9), 0)), (1, true, numbered(1..=1)));
}

#[test]
fn pages_end_before_a_position() {
    let (mut store, chat) = (store(1 << 20), path("/b/chat"));
    assert_eq!(seen(store.page(1, chat.as_ref(), None, 10, 0)), (0, true, vec![]));
    append(&mut store, 1, &chat, 8);
    let epoch = store.replay(1, chat.as_ref(), last(0), 0).at.epoch;
    for (before, limit, expected) in [
        (None, 2, (8, false, numbered(7..=8))),
        (None, 9, (8, false, numbered(4..=8))),
        (Some(7), 2, (8, false, numbered(5..=6))),
        (Some(5), 2, (8, false, numbered(4..=4))),
        (Some(4), 2, (8, false, vec![])),
        (Some(0), 2, (8, false, vec![])),
        (Some(100), 1, (8, false, numbered(8..=8))),
    ] {
        let before = before.map(|number| Position { epoch, number });
        assert_eq!(seen(store.page(1, chat.as_ref(), before, limit, 0)), expected, "{before:?}");
    }
    let other = Some("0.7".parse().unwrap());
    assert_eq!(seen(store.page(1, chat.as_ref(), other, 9, 0)).2, vec![]);
}

#[test]
fn events_end_by_age() {
    let mut store = Store::new(1 << 20, 1);
    store.set_rules([("/a", bounds(9, Some(60)))].into_iter());
    let a = path("/a");
    store.append(0, &a, "1".into(), 100);
    store.append(0, &a, "2".into(), 130);
    let epoch = store.replay(0, a.as_ref(), last(0), 159).at.epoch;
    let from = since(&Position { epoch, number: 1 }.to_string());
    assert_eq!(seen(store.replay(0, a.as_ref(), last(9), 159)), (2, true, numbered(1..=2)));
    assert_eq!(seen(store.replay(0, a.as_ref(), from, 160)), (2, true, numbered(2..=2)));
    assert_eq!(seen(store.replay(0, a.as_ref(), from, 190)), (2, false, vec![]));
    assert_eq!(store.totals().events, 0);
    store.append(0, &a, "3".into(), 191);
    store.sweep(10, 250);
    assert_eq!(store.totals().events, 1);
    store.sweep(10, 251);
    store.check();
    assert_eq!((store.totals().events, store.paths()), (0, 1));
}

#[test]
fn a_position_of_an_empty_path_holds_until_its_first_events_are_lost() {
    let (mut store, a, b) = (store(1 << 20), path("/a/x"), path("/b/x"));
    let at = store.replay(0, a.as_ref(), last(0), 0).at;
    let from = since(&at.to_string());
    assert_eq!(seen(store.replay(0, a.as_ref(), from, 0)), (0, true, vec![]));
    store.append(0, &a, "1".into(), 0);
    assert_eq!(seen(store.replay(0, a.as_ref(), from, 0)), (1, true, numbered(1..=1)));
    // It needs no memory.
    assert_eq!(store.paths(), 1);
    assert_eq!(store.replay(1, b.as_ref(), last(0), 0).at.number, 0);
    assert_eq!(store.paths(), 1);
    // The path loses its events, and its rule gets new ones: no position is as before.
    store.set_rules(std::iter::empty());
    store.sweep(1, 0);
    assert_eq!((store.paths(), store.evicted()), (0, 1));
    store.set_rules([(RULES[0].0, bounds(3, None))].into_iter());
    assert_eq!(seen(store.replay(0, a.as_ref(), from, 0)), (0, false, vec![]));
    store.append(0, &a, "2".into(), 0);
    assert_eq!(seen(store.replay(0, a.as_ref(), from, 0)), (1, false, vec![]));
}

#[test]
fn many_paths_of_one_rule_do_not_evict_those_of_another() {
    let mut store = store(100 << 10);
    let kept = path("/b/kept");
    append(&mut store, 1, &kept, 3);
    for number in 0..10_000 {
        store.append(0, &path(&format!("/a/{number}")), "x".repeat(100).into(), 0);
    }
    store.check();
    assert_eq!(seen(store.replay(1, kept.as_ref(), last(9), 0)).2, numbered(1..=3));
    assert!(store.paths() > 100 && store.evicted() as usize == 10_001 - store.paths());
    // The ones that were used last are left.
    assert_eq!(store.replay(0, path("/a/9999").as_ref(), last(1), 0).events.len(), 1);
    assert_eq!(store.replay(0, path("/a/0").as_ref(), last(1), 0).events.len(), 0);
}

#[test]
fn a_path_with_more_data_than_there_is_room_keeps_its_last_events() {
    let (mut store, a) = (store(10 << 10), path("/a/x"));
    for (size, left) in [(4 << 10, 1), (4 << 10, 2), (4 << 10, 2), (20 << 10, 0), (1, 1)] {
        store.append(0, &a, "x".repeat(size).into(), 0);
        store.check();
        assert_eq!(store.totals().events, left);
    }
    assert_eq!((store.replay(0, a.as_ref(), last(1), 0).at.number, store.evicted()), (5, 0));
}

#[test]
fn the_first_rule_that_matches_may_change() {
    let (mut store, x) = (store(1 << 20), path("/a/x"));
    append(&mut store, 0, &x, 3);
    let rules = [("/a/x", bounds(2, None)), ("/a/**", bounds(3, None)), ("/c", None)];
    store.set_rules(rules.into_iter());
    assert_eq!([0, 1, 2, 3].map(|rule| store.keeps(rule)), [true, true, false, false]);
    assert_eq!(seen(store.replay(0, x.as_ref(), last(9), 0)), (3, false, numbered(2..=3)));
    assert_eq!([0, 1, 2].map(|rule| store.totals_of(rule).events), [2, 0, 0]);
    store.check();
}

#[derive(Clone, Debug)]
enum Step {
    Append { path: usize, len: usize },
    Replay { path: usize, client: usize },
    Wait { seconds: u32 },
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..PATHS, 0usize..300).prop_map(|(path, len)| Step::Append { path, len }),
        4 => (0..PATHS, 0usize..3).prop_map(|(path, client)| Step::Replay { path, client }),
        1 => (0u32..20).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 0..400)
}

const PATHS: usize = 8;

proptest! {
    /// Clients remember a position for each path, and what was sent after it. What they get is all of that, or not complete.
    #[test]
    fn what_is_complete_is_what_was_sent(steps in steps(), bytes_max in 2_000usize..20_000) {
        let mut store = Store::new(bytes_max, 7);
        store.set_rules([("/a/**", bounds(10, Some(30))), ("/b/**", bounds(3, None))].into_iter());
        let paths: Vec<Path> = (0..PATHS).map(|n| path(&format!("/{}/{n}", ["a", "b"][n % 2]))).collect();
        let mut sent: Vec<Vec<String>> = vec![Vec::new(); PATHS];
        let mut known: BTreeMap<(usize, usize), (Position, usize)> = BTreeMap::new();
        let (mut now_s, mut number) = (0, 0);
        for step in steps {
            match step {
                Step::Append { path, len } => {
                    number += 1;
                    let data = format!("{number}{}", "x".repeat(len));
                    sent[path].push(data.clone());
                    store.append(path % 2, &paths[path], data.into(), now_s);
                }
                Step::Replay { path, client } => {
                    let before = known.get(&(path, client)).copied();
                    let from = ReplayFrom { since: before.map(|(at, _)| at), last: None };
                    let replay = store.replay(path % 2, paths[path].as_ref(), from, now_s);
                    let at = replay.at;
                    let got: Vec<String> = replay.events.clone().map(|data| data.to_string()).collect();
                    if let (Some((since, had)), true) = (before, replay.is_complete) {
                        prop_assert_eq!(&got, &sent[path][had..]);
                        prop_assert_eq!(since.number + got.len() as u64, at.number);
                    } else {
                        prop_assert!(got.is_empty());
                    }
                    known.insert((path, client), (at, sent[path].len()));
                }
                Step::Wait { seconds } => now_s += seconds,
                Step::Sweep => store.sweep(5, now_s),
            }
            store.check();
        }
    }
}
