use crate::app::relay::Relay;
use crate::config::Config;
use crate::history::HistoryBounds;
use crate::limits::{REPLAY_BYTES_MAX, REPLAY_EVENTS_MAX};
use crate::metrics::{Counter, Gauge};
use crate::rules::{Access, Rule, RuleSet};
use crate::shard::ControlMessage;
use crate::shard::testing::{Peer, World};
use std::sync::Arc;

const PATH: &str = "/relay/room";

fn rule(events: u32) -> Rule {
    Rule { history: Some(HistoryBounds { events, age_s: None }), ..Rule::open("/relay/**".parse().unwrap()) }
}

/// Two shards whose paths keep so many events. Senders and readers are on different ones, and one of them numbers the path.
fn world(events: u32) -> World {
    let config = Config { rules: vec![rule(events)], ..Config::default() };
    World::with_config(2, config, vec![Arc::new(Relay)])
}

fn send(world: &mut World, sender: Peer, data: &str) {
    world.send_event(sender, &format!("{PATH}:0={data}"));
    world.run_until_idle();
}

fn subscribe(world: &mut World, reader: Peer, options: &str) {
    world.send_event(reader, &format!("/qio/on:1=[\"{PATH}\",null,{options}]"));
}

/// Returns the numbers of the events among these texts.
fn numbers(texts: &[String]) -> Vec<u64> {
    let number = |text: &String| text.strip_prefix("/qio/at/")?.split('/').next()?.parse().ok();
    texts.iter().filter_map(number).collect()
}

#[test]
fn a_slow_reader_gets_a_long_replay_in_pieces() {
    let mut world = world(1000);
    for shard in 0..2 {
        let (sender, reader) = (world.connect_raw(shard), world.connect_raw(1 - shard));
        (0..1000).for_each(|_| send(&mut world, sender, &format!("\"{}\"", "x".repeat(200))));
        world.set_reading(reader, false);
        subscribe(&mut world, reader, "{\"history\":1000}");
        world.run_until_idle();
        // What waits for the reader is bounded, and its subscription has not begun.
        let waiting = world.gauge(Gauge::OutboxBytes) as usize;
        assert!(waiting > 0 && waiting <= 2 * REPLAY_BYTES_MAX + 1000, "{waiting} bytes wait");
        assert_eq!((world.gauge(Gauge::Recoveries), world.gauge(Gauge::Subscriptions)), (1, 0));
        send(&mut world, sender, "\"live\"");
        world.set_reading(reader, true);
        world.run_until_idle();
        let texts = world.take_raw_messages(reader);
        let received = numbers(&texts);
        assert_eq!(received.len(), 1001);
        assert!(
            received.windows(2).all(|pair| pair[0] + 1 == pair[1])
                && texts.last().unwrap().ends_with("\"live\"")
        );
        assert_eq!((world.gauge(Gauge::Recoveries), world.gauge(Gauge::Subscriptions)), (0, 1));
        world.end_stream(reader);
        world.end_stream(sender);
        world.run_until_idle();
    }
}

#[test]
fn a_reader_that_is_too_slow_is_told_how_many_events_it_has_lost() {
    let mut world = world(600);
    let (sender, reader) = (world.connect_raw(0), world.connect_raw(1));
    (0..600).for_each(|_| send(&mut world, sender, "1"));
    world.set_reading(reader, false);
    subscribe(&mut world, reader, "{\"history\":600}");
    world.run_until_idle();
    // The first piece ends at this event, and the store forgets the following ones.
    let end = REPLAY_EVENTS_MAX as u64;
    (0..700).for_each(|_| send(&mut world, sender, "2"));
    world.set_reading(reader, true);
    world.run_until_idle();
    let texts = world.take_raw_messages(reader);
    let lost = 1300 - 600 - end;
    let news = texts.iter().position(|text| *text == format!("/qio/lost:0=[\"{PATH}\",{lost}]"));
    let (before, after) = texts.split_at(news.unwrap_or_else(|| panic!("{:?}", &texts[..3])));
    assert_eq!(numbers(before), (1..=end).collect::<Vec<_>>());
    assert_eq!(numbers(after), (701..=1300).collect::<Vec<_>>());
    assert_eq!(world.counter(Counter::ReplaysOutrun), 1);
}

#[test]
fn a_subscription_that_changed_rules_do_not_allow_does_not_begin() {
    for is_paced in [false, true] {
        let mut world = world(1000);
        let (sender, reader) = (world.connect_raw(0), world.connect_raw(1));
        (0..1000).for_each(|_| send(&mut world, sender, "1"));
        world.set_reading(reader, false);
        subscribe(&mut world, reader, "{\"history\":1000}");
        if is_paced {
            world.run_until_idle();
        } else {
            world.turn(1);
        }
        let rules = Arc::new(RuleSet::new(vec![Rule { on: Access::User, ..rule(1000) }]));
        for shard in 0..2 {
            world.send_control(shard, ControlMessage::Rules(Arc::clone(&rules)));
        }
        world.run_until_idle();
        world.set_reading(reader, true);
        world.run_until_idle();
        let texts = world.take_raw_messages(reader);
        let expected = match is_paced {
            false => "/qio/callback/1:0={\"code\":401,\"data\":null,\"err_msg\":null}".to_owned(),
            true => format!("/qio/off:0=\"{PATH}\""),
        };
        assert_eq!(texts.last(), Some(&expected));
        assert_eq!(numbers(&texts).len(), if is_paced { REPLAY_EVENTS_MAX } else { 0 });
        send(&mut world, sender, "2");
        assert_eq!(world.take_raw_messages(reader), Vec::<String>::new());
        assert_eq!((world.gauge(Gauge::Recoveries), world.gauge(Gauge::Subscriptions)), (0, 0));
    }
}

#[test]
fn the_last_subscriber_that_leaves_costs_a_recovery_nothing() {
    let mut world = world(10);
    let numbering = usize::from(world.shards[0].state().shard_of_path(PATH));
    let other = 1 - numbering;
    let (sender, leaver, reader) =
        (world.connect_raw(numbering), world.connect_raw(other), world.connect_raw(other));
    world.send_event(leaver, &format!("/qio/on:1=\"{PATH}\""));
    world.run_until_idle();
    subscribe(&mut world, reader, "{\"history\":0}");
    world.turn(other);
    world.send_event(leaver, &format!("/qio/off:2=\"{PATH}\""));
    world.turn(other);
    // The question is answered, and an event follows before the reader's shard has the answer.
    world.turn(numbering);
    world.send_event(sender, &format!("{PATH}:0=1"));
    world.turn(numbering);
    world.run_until_idle();
    assert_eq!(numbers(&world.take_raw_messages(reader)), [1]);

    // A recovery whose client leaves meanwhile ends the interest that it has caused.
    world.end_stream(reader);
    world.run_until_idle();
    let reader = world.connect_raw(other);
    subscribe(&mut world, reader, "{\"history\":1}");
    world.turn(other);
    world.reset(reader);
    world.run_until_idle();
    [sender, leaver].into_iter().for_each(|peer| world.end_stream(peer));
    world.run_until_idle();
    world.assert_empty();
}

#[test]
fn a_client_that_changes_its_mind_during_a_replay_is_told_to_wait() {
    let mut world = world(1000);
    let (sender, reader) = (world.connect_raw(0), world.connect_raw(1));
    (0..1000).for_each(|_| send(&mut world, sender, "1"));
    world.set_reading(reader, false);
    subscribe(&mut world, reader, "{\"history\":1000}");
    world.run_until_idle();
    world.send_event(reader, &format!("/qio/off:2=\"{PATH}\""));
    world.send_event(reader, &format!("/qio/on:3=[\"{PATH}\",null,{{\"history\":0}}]"));
    world.run_until_idle();
    world.set_reading(reader, true);
    world.run_until_idle();
    let texts = world.take_raw_messages(reader);
    let answers: Vec<_> = texts.iter().filter(|text| text.starts_with("/qio/callback/")).collect();
    assert!(answers[2].starts_with("/qio/callback/3:0={\"code\":420"), "{answers:?}");
    assert_eq!(numbers(&texts), (1..=REPLAY_EVENTS_MAX as u64).collect::<Vec<_>>());
    assert_eq!((world.gauge(Gauge::Recoveries), world.gauge(Gauge::Subscriptions)), (0, 0));
    subscribe(&mut world, reader, "{\"history\":1}");
    world.run_until_idle();
    assert_eq!(numbers(&world.take_raw_messages(reader)), [1000]);
}
