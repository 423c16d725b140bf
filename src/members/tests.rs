//! Tests of the members of paths against a model that knows only lists.

use super::*;
use crate::event::path::Path;
use crate::limits::{MEMBERS_GATHER_MAX, MEMBERS_GATHER_MIN, MEMBERS_LIST_BYTES_MAX};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const LINGER_MS: u64 = 1000;

fn path(name: &str) -> Path {
    Path::parse(name).unwrap()
}

fn client(slot: u32) -> ClientId {
    ClientId { shard: (slot % 3) as u16, slot, generation: 1 }
}

fn identity(user: &str, info: Option<&str>) -> Option<Arc<Identity>> {
    Some(Arc::new(Identity {
        user: user.into(),
        expires: None,
        claims: "{}".into(),
        on: [].into(),
        send: [].into(),
        info: info.map(Into::into),
    }))
}

fn rosters(members_max: usize, bytes_max: usize) -> Rosters {
    Rosters::new(RosterBounds { members_max, bytes_max, linger_ms: LINGER_MS }, 3, 36)
}

/// Publishes what is due, and returns the news of the path, and the list for those who ask.
fn publish(rosters: &mut Rosters, now_ms: u64) -> (Option<String>, Option<String>) {
    let Some(path) = rosters.first_due(now_ms).cloned() else { return (None, None) };
    let publication = rosters.publish(&path, now_ms);
    rosters.check();
    let list = (!publication.askers.is_empty()).then(|| rosters.text(&path).unwrap().1());
    (publication.changes, list)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn changes_are_gathered() {
    let (mut rosters, chat) = (rosters(10, usize::MAX), path("/chat"));
    rosters.join(&chat, (client(0), identity("7", None)), true, 1000);
    let list = some(r#"{"count":1,"here":[["10","7",null]]}"#);
    assert_eq!(publish(&mut rosters, 1000), (None, list), "the first change is told at once");
    rosters.join(&chat, (client(1), None), false, 1001);
    rosters.join(&chat, (client(2), None), false, 1002);
    rosters.join(&chat, (client(3), identity("9", Some("[1]"))), false, 1003);
    rosters.leave(&chat, client(2), false, false, 1004);
    assert_eq!(rosters.next_ms(), Some(1000 + MEMBERS_GATHER_MIN));
    assert_eq!(publish(&mut rosters, 1249), (None, None));
    let news = r#"{"count":3,"join":[["11",null,null],["13","9",[1]]]}"#;
    assert_eq!(publish(&mut rosters, 1250), (some(news), None));
    rosters.leave(&chat, client(1), true, false, 1300);
    rosters.identify(&chat, (client(3), identity("9", Some("[2]"))), 1300);
    rosters.identify(&chat, (client(0), identity("7", None)), 1300);
    let news = r#"{"count":2,"join":[["13","9",[2]]],"leave":["11"]}"#;
    assert_eq!(publish(&mut rosters, 2000), (some(news), None), "one without a user leaves at once");
    rosters.leave(&chat, client(3), false, false, 3000);
    rosters.leave(&chat, client(0), false, true, 3000);
    rosters.check();
    assert_eq!((rosters.paths(), rosters.totals()), (0, RosterTotals::default()));
    assert_eq!(rosters.next_ms(), None);
}

#[test]
fn a_user_that_comes_back_has_not_left() {
    let (mut rosters, chat) = (rosters(10, usize::MAX), path("/chat"));
    rosters.join(&chat, (client(0), None), true, 0);
    rosters.join(&chat, (client(1), identity("7", None)), false, 0);
    publish(&mut rosters, 0);
    // Within the time, nobody is told.
    rosters.leave(&chat, client(1), true, false, 500);
    rosters.join(&chat, (client(2), identity("7", None)), false, 1499);
    assert_eq!(publish(&mut rosters, 1499), (None, None));
    rosters.expire(1500, 10);
    assert_eq!((rosters.count(&chat), rosters.totals().connections), (2, 2));
    // With another token, the member has changed.
    rosters.leave(&chat, client(2), true, false, 2000);
    rosters.join(&chat, (client(3), identity("7", Some("1"))), false, 2000);
    assert_eq!(publish(&mut rosters, 2000), (some(r#"{"count":2,"join":[["11","7",1]]}"#), None));
    // Two connections of a user are two members.
    rosters.join(&chat, (client(4), identity("7", None)), false, 3000);
    assert_eq!(publish(&mut rosters, 3000), (some(r#"{"count":3,"join":[["12","7",null]]}"#), None));
    rosters.leave(&chat, client(4), true, false, 4000);
    rosters.expire(4999, 10);
    assert_eq!(publish(&mut rosters, 4999), (None, None));
    rosters.expire(5000, 10);
    assert_eq!(publish(&mut rosters, 5249), (some(r#"{"count":2,"leave":["12"]}"#), None));
    // One that unsubscribes leaves at once.
    rosters.leave(&chat, client(3), false, false, 6000);
    assert_eq!(publish(&mut rosters, 6000), (some(r#"{"count":1,"leave":["11"]}"#), None));
}

#[test]
fn above_the_maximum_there_are_only_counts() {
    let (mut rosters, chat) = (rosters(4, usize::MAX), path("/chat"));
    rosters.join(&chat, (client(0), None), true, 0);
    publish(&mut rosters, 0);
    for slot in 1..5 {
        rosters.join(&chat, (client(slot), None), false, 0);
    }
    assert_eq!(rosters.totals().dropped, 1);
    assert_eq!(publish(&mut rosters, 250), (some(r#"{"count":5}"#), None));
    rosters.leave(&chat, client(4), false, false, 600);
    let publication = rosters.publish(&chat, 600);
    assert_eq!((publication.changes, publication.round), (some(r#"{"count":4}"#), None));
    // With three quarters, all shards are asked. What they tell before their lists is not in the new one.
    rosters.leave(&chat, client(3), false, false, 900);
    let publication = rosters.publish(&chat, 900);
    assert_eq!((publication.changes, publication.round), (some(r#"{"count":3}"#), Some(1)));
    rosters.add_shard(&chat, 1, 0, Some(vec![(client(0), None)]), 1000);
    rosters.leave(&chat, client(2), false, false, 1000);
    rosters.join(&chat, (client(6), None), false, 1000);
    rosters.add_shard(&chat, 1, 2, Some(vec![]), 1000);
    rosters.join(&chat, (client(4), None), false, 1000);
    rosters.leave(&chat, client(1), false, false, 1000);
    assert_eq!(publish(&mut rosters, 1200), (None, None), "the count is the same");
    rosters.add_shard(&chat, 1, 1, Some(vec![(client(4), None)]), 1300);
    let (news, _) = publish(&mut rosters, 1450);
    let news: Value = serde_json::from_str(&news.unwrap()).unwrap();
    assert_eq!((&news["count"], news["here"].as_array().unwrap().len()), (&3.into(), 3));
    rosters.check();
    // An answer to an older question has no effect.
    rosters.add_shard(&chat, 1, 1, Some(vec![(client(4), None)]), 1300);
    assert_eq!(rosters.count(&chat), 3);
}

#[test]
fn lists_are_bounded_in_bytes() {
    let (mut all, long) = (rosters(10_000, usize::MAX), "x".repeat(6000));
    for slot in 0..100 {
        all.join(&path("/a"), (client(slot), identity("7", Some(&long))), false, 0);
    }
    all.check();
    let text = all.text(&path("/a")).unwrap().1();
    assert_eq!((text.as_str(), all.totals().dropped), (r#"{"count":100}"#, 1));
    assert!(all.totals().bytes < 1000 && 100 * long.len() > MEMBERS_LIST_BYTES_MAX);
    // All lists together.
    let mut all = rosters(10_000, 20_000);
    for slot in 0..1000 {
        all.join(&path(&format!("/{}", slot % 50)), (client(slot), None), false, 0);
    }
    all.check();
    assert!(all.totals().dropped > 0 && all.totals().bytes < 50 * 1024, "{:?}", all.totals());
    assert_eq!(all.totals().connections, 1000);
}

#[test]
fn very_many_members_are_told_less_often() {
    let (mut rosters, chat) = (rosters(10, usize::MAX), path("/chat"));
    for (slots, gather_ms) in
        [(0..2000, MEMBERS_GATHER_MIN), (2000..10_000, 1000), (10_000..200_000, MEMBERS_GATHER_MAX)]
    {
        let now_ms = rosters.next_ms().unwrap_or(0);
        slots.for_each(|slot| rosters.join(&chat, (client(slot), None), slot == 0, now_ms));
        publish(&mut rosters, now_ms);
        rosters.ask(&chat, client(0), false, now_ms);
        assert_eq!(rosters.next_ms(), Some(now_ms + gather_ms));
    }
}

/// Ten thousand clients join within a second, and all of them watch.
#[test]
fn a_rush_costs_each_member_at_most_five_messages() {
    for members_max in [1000, 10_000] {
        let (mut rosters, chat) = (rosters(members_max, usize::MAX), path("/chat"));
        let (mut publications, mut told_to_all) = (0, 0);
        for ms in 0..3000 {
            for slot in ms * 10..if ms < 1000 { ms * 10 + 10 } else { 0 } {
                rosters.join(&chat, (client(slot), identity("7", None)), true, u64::from(ms));
            }
            while let Some(path) = rosters.first_due(u64::from(ms)).cloned() {
                let publication = rosters.publish(&path, u64::from(ms));
                publications += 1;
                told_to_all += usize::from(publication.changes.is_some());
            }
        }
        assert!(publications <= 5, "{publications}");
        assert!(told_to_all < publications, "the first one tells only those who ask");
        assert_eq!(rosters.count(&chat), 10_000);
    }
}

/// A client that watches, and what it was told.
#[derive(Default)]
struct Watcher {
    list: Option<BTreeMap<String, Value>>,
    count: u64,
}

impl Watcher {
    fn told(&mut self, news: &str) {
        let news: Value = serde_json::from_str(news).unwrap();
        self.count = news["count"].as_u64().unwrap();
        let by_id = |list: &Value| -> Vec<(String, Value)> {
            let list = list.as_array().map_or(&[][..], Vec::as_slice).iter();
            list.map(|member| (member[0].as_str().unwrap().to_owned(), member.clone())).collect()
        };
        match (news.get("here"), news.get("join"), news.get("leave")) {
            (Some(here), None, None) => self.list = Some(by_id(here).into_iter().collect()),
            (None, None, None) => self.list = None,
            (None, join, leave) => {
                let list = self.list.as_mut().expect("changes follow a list");
                for id in leave.and_then(Value::as_array).into_iter().flatten() {
                    assert!(list.remove(id.as_str().unwrap()).is_some(), "{id} was in the list");
                }
                list.extend(by_id(join.unwrap_or(&Value::Null)));
            }
            _ => panic!("{news}"),
        }
        if let Some(list) = &self.list {
            assert_eq!(list.len() as u64, self.count, "{news}");
        }
    }
}

/// Random numbers, which are used up in order.
struct Choices(std::vec::IntoIter<u32>);

impl Choices {
    fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0.next().map_or(0, |number| number as usize % bound)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn is_lucky(&mut self) -> bool {
        self.below(2) == 0
    }
}

proptest! {
    #[test]
    fn a_watcher_knows_the_members(choices in prop::collection::vec(any::<u32>(), 0..1000)) {
        let random = &mut Choices(choices.into_iter());
        let chat = path("/chat");
        let mut rosters = rosters(random.pick(&[3, 5, 1000]), random.pick(&[1200, usize::MAX]));
        let (mut now_ms, mut next) = (0, 0);
        let mut here: BTreeMap<u32, Option<Arc<Identity>>> = BTreeMap::new();
        let mut watchers: BTreeMap<ClientId, Watcher> = BTreeMap::new();
        // The shards that were asked for their members, and have not answered.
        let mut asked: Vec<(u64, u16)> = Vec::new();
        while !random.is_empty() {
            match random.below(8) {
                0..=2 => {
                    let member = (client(next), random_identity(random));
                    here.insert(next, member.1.clone());
                    let asks = random.is_lucky();
                    if asks {
                        watchers.insert(client(next), Watcher::default());
                    }
                    rosters.join(&chat, member, asks, now_ms);
                    next += 1;
                }
                3 | 4 if !here.is_empty() => {
                    let slots: Vec<u32> = here.keys().copied().collect();
                    let slot = random.pick(&slots);
                    here.remove(&slot);
                    let has_asked = watchers.remove(&client(slot)).is_some();
                    rosters.leave(&chat, client(slot), random.is_lucky(), has_asked, now_ms);
                }
                5 if !here.is_empty() => {
                    let slots: Vec<u32> = here.keys().copied().collect();
                    let slot = random.pick(&slots);
                    // A user stays the same.
                    if here[&slot].is_none() {
                        here.insert(slot, random_identity(random));
                        rosters.identify(&chat, (client(slot), here[&slot].clone()), now_ms);
                    }
                }
                6 => now_ms += random.below(500) as u64,
                _ => {
                    if let Some((round, shard)) = asked.pop() {
                        let of_shard = here.iter().filter(|(slot, _)| client(**slot).shard == shard);
                        let members = of_shard.map(|(slot, who)| (client(*slot), who.clone())).collect();
                        rosters.add_shard(&chat, round, shard, Some(members), now_ms);
                    }
                }
            }
            rosters.expire(now_ms, 100);
            rosters.check();
            while let Some(path) = rosters.first_due(now_ms).cloned() {
                let publication = rosters.publish(&path, now_ms);
                if let Some(news) = publication.changes {
                    let told = |watcher: &&mut Watcher| watcher.list.is_some() || watcher.count > 0;
                    watchers.values_mut().filter(told).for_each(|watcher| watcher.told(&news));
                }
                let list = rosters.text(&path).unwrap().1();
                for asker in &publication.askers {
                    watchers.get_mut(asker).expect("those who ask watch").told(&list);
                }
                if let Some(round) = publication.round {
                    asked = (0..3).map(|shard| (round, shard)).collect();
                }
                for watcher in watchers.values() {
                    assert_eq!(watcher.count as usize, rosters.count(&path));
                }
                check_list(&rosters, &path, &here);
            }
        }
        now_ms += LINGER_MS;
        rosters.expire(now_ms, 10_000);
        assert_eq!(rosters.totals().connections, here.len());
        assert_eq!(rosters.count(&chat), here.len());
    }
}

fn random_identity(random: &mut Choices) -> Option<Arc<Identity>> {
    let user = random.pick(&["", "", "7", "8"]);
    identity(user, random.pick(&[None, Some("1"), Some("{}")])).filter(|_| !user.is_empty())
}

/// Those who are connected are in the list, if there is one.
fn check_list(rosters: &Rosters, path: &Path, here: &BTreeMap<u32, Option<Arc<Identity>>>) {
    let news: Value = serde_json::from_str(&rosters.text(path).unwrap().1()).unwrap();
    let Some(list) = news["here"].as_array() else { return };
    let mut left: Vec<(Value, Value)> = list.iter().map(|who| (who[1].clone(), who[2].clone())).collect();
    for who in here.values() {
        let user = who.as_ref().map_or(Value::Null, |who| Value::from(&*who.user));
        let info = who.as_ref().and_then(|who| who.info.as_deref());
        let info = info.map_or(Value::Null, |info| serde_json::from_str(info).unwrap());
        let place = left.iter().position(|other| *other == (user.clone(), info.clone()));
        left.swap_remove(place.unwrap_or_else(|| panic!("{user} {info} is in {list:?}")));
    }
    let ids: BTreeSet<&str> = list.iter().map(|who| who[0].as_str().unwrap()).collect();
    assert_eq!(ids.len(), list.len());
    assert!(left.iter().all(|(user, _)| !user.is_null()), "only users linger: {left:?}");
}
