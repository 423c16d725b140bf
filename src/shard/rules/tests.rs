//! Tests of rules with complete shards on the simulated kernel.

use crate::app::{Answer, Application, Decision, Error, Json, LaterDecision, Registrar, ReplyTo};
use crate::config::Config;
use crate::event::path::Path;
use crate::identity::Identity;
use crate::metrics::RuleCounter;
use crate::rules::{Access, Rate, Rule, RuleSet};
use crate::shard::ControlMessage;
use crate::shard::testing::{FnApp, Peer, World, address};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the application of these tests was asked.
#[derive(Default)]
struct Asked {
    events: AtomicUsize,
    subscriptions: AtomicUsize,
    ends: AtomicUsize,
    later: Mutex<Vec<LaterDecision>>,
}

impl Asked {
    fn counts(&self) -> [usize; 3] {
        [&self.events, &self.subscriptions, &self.ends].map(|count| count.load(Ordering::Relaxed))
    }
}

/// An application that accepts everything below `/x`, and decides about `/later` later.
fn app(asked: &Arc<Asked>) -> Vec<Arc<dyn Application>> {
    let asked = Arc::clone(asked);
    let register = move |registrar: &mut Registrar| -> Result<(), Error> {
        let [on, handled, off, later] = [(); 4].map(|()| Arc::clone(&asked));
        registrar
            .event("/x")
            .children()
            .on(move |_, _| {
                on.subscriptions.fetch_add(1, Ordering::Relaxed);
                Decision::Accept
            })
            .off(move |_, _| _ = off.ends.fetch_add(1, Ordering::Relaxed))
            .handler(move |cx, event| {
                handled.events.fetch_add(1, Ordering::Relaxed);
                cx.broadcast(&event.full_path(), event.data);
                Answer::ok()
            })
            .register()?;
        registrar
            .event("/later")
            .on(move |cx, subscription| {
                let (decision, promise) = subscription.later(cx);
                later.later.lock().unwrap().push(promise);
                decision
            })
            .register()
    };
    vec![Arc::new(FnApp(register))]
}

fn rule(pattern: &str, on: Access, send: Access) -> Rule {
    Rule { on, send, ..Rule::open(pattern.parse().unwrap()) }
}

fn world(shards: usize, rules: Vec<Rule>) -> (World, Arc<Asked>) {
    let asked = Arc::default();
    let config = Config { rules, ..Config::default() };
    let mut world = World::with_config(shards, config, app(&asked));
    // The connections of clients have other numbers than the clients.
    for shard in 0..shards {
        world.connect_from(shard, address("10.0.0.9:9"));
    }
    (world, asked)
}

/// Sends an event that wants an answer, and returns the code and the message of the answer.
fn ask(world: &mut World, client: Peer, path: &str, data: &str) -> String {
    world.send_event(client, &format!("{path}:1={data}"));
    world.run_until_idle();
    let messages = world.take_raw_messages(client);
    let answer = messages.iter().find_map(|text| text.strip_prefix("/qio/callback/1:0="));
    let answer: serde_json::Value = serde_json::from_str(answer.expect("an answer")).unwrap();
    match &answer["err_msg"] {
        serde_json::Value::String(message) => format!("{} {message}", answer["code"]),
        _ => answer["code"].to_string(),
    }
}

fn on(world: &mut World, client: Peer, path: &str) -> String {
    ask(world, client, "/qio/on", &format!("\"{path}\""))
}

/// Gives the client that has connected last to a shard an identity, whose token grants subscribing to `/x/team/{user}`.
fn authenticate(world: &mut World, shard: usize, user: &str) {
    let state = world.shards[shard].state_mut();
    let client = state.connections.client_ids().max_by_key(|id| id.generation).expect("a client");
    let slot = state.connections.connection_of(client).expect("a connection");
    let identity = Identity {
        user: user.into(),
        expires: None,
        claims: "{}".into(),
        on: ["/x/team/{user}".parse().unwrap()].into(),
        send: Default::default(),
        info: None,
    };
    assert_ne!(slot, client.slot);
    state.identities.set(slot, Arc::new(identity));
}

fn counted(world: &World, rule: usize, counter: RuleCounter) -> u64 {
    world.states().map(|state| state.snapshot().rules[rule].get(counter)).sum()
}

#[test]
fn refused_events_and_subscriptions_reach_no_application() {
    let rules = vec![
        rule("/x/user/{user}/**", Access::Owner, Access::User),
        rule("/x/news", Access::Anyone, Access::Nobody),
        rule("/none", Access::Nobody, Access::Nobody),
    ];
    let (mut world, asked) = world(1, rules);
    let stranger = world.connect_raw(0);
    let seven = world.connect_raw(0);
    authenticate(&mut world, 0, "7");
    for (client, path, expected) in [
        (stranger, "/x/user/7/inbox", "401 authenticate first"),
        (stranger, "/x/news", "401 not allowed"),
        (stranger, "/none", "401 not allowed"),
        (seven, "/x//news@", "401 not allowed"),
        (stranger, "/nothing", "404"),
    ] {
        assert_eq!(ask(&mut world, client, path, "1"), expected, "{path}");
    }
    for (client, path, expected) in [
        (stranger, "/x/user/7", "401 authenticate first"),
        (seven, "/x/user/8", "401 not allowed"),
        (seven, "/x/user/77/inbox", "401 not allowed"),
        (seven, "/none", "401 not allowed"),
    ] {
        assert_eq!(on(&mut world, client, path), expected, "{path}");
    }
    assert_eq!(asked.counts(), [0, 0, 0]);
    assert_eq!(counted(&world, 0, RuleCounter::EventsRefused), 1);
    assert_eq!(counted(&world, 0, RuleCounter::SubscriptionsRefused), 3);
    assert_eq!(counted(&world, 1, RuleCounter::EventsRefused), 2);
    assert_eq!(counted(&world, 2, RuleCounter::EventsRefused), 1);
    // The rules allow these, and the application is asked.
    assert_eq!(ask(&mut world, seven, "/x/user/8/inbox", "1"), "200");
    assert_eq!(ask(&mut world, stranger, "/x/open", "1"), "200");
    assert_eq!(on(&mut world, seven, "/x/user/7/inbox"), "200");
    assert_eq!(on(&mut world, stranger, "/x/news"), "200");
    assert_eq!(asked.counts(), [2, 2, 0]);
    // An event that wants no answer gets none, and is refused all the same.
    world.send_event(stranger, "/x/news:0=1");
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(stranger), [""; 0]);
    assert_eq!(asked.counts(), [2, 2, 0]);
}

#[test]
fn the_own_events_of_the_server_are_not_subject_to_rules() {
    let (mut world, _) = world(1, vec![rule("/**", Access::Nobody, Access::Nobody)]);
    let client = world.connect_raw(0);
    assert_eq!(ask(&mut world, client, "/qio/ping", "null"), "200");
    assert_eq!(ask(&mut world, client, "/qio/off", "\"/x/a\""), "200");
    assert_eq!(ask(&mut world, client, "/qio/callback/7", "1"), "404 callback doesn't exist");
    assert_eq!(on(&mut world, client, "/x/a"), "401 not allowed");
    assert_eq!(ask(&mut world, client, "/x/a", "1"), "401 not allowed");
}

#[test]
fn a_rate_is_for_each_client_and_counts_only_what_is_allowed() {
    let rate = Rate::parse("2/s", None).ok();
    let rules = vec![Rule { rate, ..rule("/x/a/**", Access::Anyone, Access::Anyone) }];
    let (mut world, asked) = world(1, rules);
    let (one, other) = (world.connect_raw(0), world.connect_raw(0));
    for client in [one, other] {
        for expected in ["200", "200", "420 rate limit", "420 rate limit"] {
            assert_eq!(ask(&mut world, client, "/x/a/b", "1"), expected);
        }
    }
    assert_eq!(ask(&mut world, one, "/x/b", "1"), "200", "no rule matches this path");
    assert_eq!(asked.counts(), [5, 0, 0]);
    assert_eq!(counted(&world, 0, RuleCounter::EventsLimited), 4);
    world.advance(Duration::from_millis(500));
    assert_eq!(ask(&mut world, one, "/x/a", "1"), "200");
    assert_eq!(ask(&mut world, one, "/x/a", "1"), "420 rate limit");
    world.advance(Duration::from_secs(10));
    for expected in ["200", "200", "420 rate limit"] {
        assert_eq!(ask(&mut world, one, "/x/a", "1"), expected);
    }
    // Subscribing is no event of the path.
    assert_eq!(on(&mut world, one, "/x/a"), "200");
}

#[test]
fn clients_of_an_address_share_its_rate_on_all_shards() {
    let address_rate = Rate::parse("3/s", None).ok();
    let rules = vec![Rule { address_rate, ..rule("/x/**", Access::Anyone, Access::Anyone) }];
    let (mut world, _) = world(2, rules);
    let codes = |world: &mut World, clients: &[Peer]| -> Vec<String> {
        clients.iter().map(|client| ask(world, *client, "/x", "1")).collect()
    };
    let clients: Vec<Peer> = (0..4).map(|number| world.connect_raw(number % 2)).collect();
    assert_eq!(codes(&mut world, &clients), ["200", "200", "200", "420 rate limit"]);
    // A client that connects again gains nothing.
    world.end_stream(clients[0]);
    world.run_until_idle();
    let again = world.connect_raw(0);
    assert_eq!(codes(&mut world, &[again]), ["420 rate limit"]);
    let elsewhere = world.connect_from(1, address("10.0.0.2:1000"));
    world.turn(1);
    world.send_bytes(elsewhere, crate::protocol::OHAI.as_bytes());
    world.run_until_idle();
    world.take_bytes(elsewhere);
    assert_eq!(codes(&mut world, &[elsewhere]), ["200"]);
    world.advance(Duration::from_secs(1));
    assert_eq!(codes(&mut world, &[again]), ["200"]);
}

fn change_rules(world: &mut World, rules: Vec<Rule>) {
    let rules = Arc::new(RuleSet::new(rules));
    for shard in 0..world.shards.len() {
        world.send_control(shard, ControlMessage::Rules(Arc::clone(&rules)));
    }
}

#[test]
fn subscriptions_that_changed_rules_do_not_allow_end() {
    let (mut world, asked) = world(2, Vec::new());
    let stranger = world.connect_raw(0);
    let seven = world.connect_raw(0);
    authenticate(&mut world, 0, "7");
    let eight = world.connect_raw(1);
    authenticate(&mut world, 1, "8");
    for client in [stranger, seven, eight] {
        for path in ["/x/user/7", "/x/secret", "/x/open"] {
            assert_eq!(on(&mut world, client, path), "200");
        }
    }
    change_rules(
        &mut world,
        vec![
            rule("/x/user/{user}", Access::Owner, Access::Anyone),
            rule("/x/secret", Access::Nobody, Access::Anyone),
        ],
    );
    world.run_until_idle();
    let ended = |path: &str| format!("/qio/off:0=\"{path}\"");
    for client in [stranger, eight] {
        let mut told = world.take_raw_messages(client);
        told.sort();
        assert_eq!(told, [ended("/x/secret"), ended("/x/user/7")]);
    }
    assert_eq!(world.take_raw_messages(seven), [ended("/x/secret")]);
    assert_eq!(asked.counts(), [0, 9, 5], "the off-hook runs for each");
    assert_eq!(counted(&world, 0, RuleCounter::SubscriptionsEnded), 2);
    assert_eq!(counted(&world, 1, RuleCounter::SubscriptionsEnded), 3);
    // Broadcasts reach those who are still subscribed.
    for path in ["/x/user/7", "/x/secret", "/x/open"] {
        assert_eq!(ask(&mut world, stranger, path, "1"), "200");
    }
    assert_eq!(world.take_raw_messages(seven), ["/x/user/7:0=1", "/x/open:0=1"]);
    assert_eq!(world.take_raw_messages(eight), ["/x/open:0=1"]);
    // Counters of a rule that stays go on; the others are forgotten.
    change_rules(&mut world, vec![rule("/x/secret", Access::Anyone, Access::Anyone)]);
    world.run_until_idle();
    assert_eq!(counted(&world, 0, RuleCounter::SubscriptionsEnded), 3);
    assert_eq!(on(&mut world, eight, "/x/secret"), "200");
    change_rules(&mut world, Vec::new());
    world.run_until_idle();
    assert!(world.states().all(|state| !state.access.has_rules() && state.metrics.rules.is_empty()));
}

#[test]
fn a_decision_that_comes_after_rules_have_changed_is_checked_again() {
    let (mut world, asked) = world(1, Vec::new());
    let client = world.connect_raw(0);
    for (rules, expected) in [
        (vec![rule("/later", Access::Anyone, Access::Nobody)], 200),
        (vec![rule("/later", Access::Nobody, Access::Anyone)], 401),
    ] {
        world.send_event(client, "/qio/on:1=\"/later\"");
        world.run_until_idle();
        change_rules(&mut world, rules);
        world.run_until_idle();
        let promise = asked.later.lock().unwrap().pop().unwrap();
        promise.decide(true).unwrap();
        world.run_until_idle();
        let messages = world.take_raw_messages(client);
        assert!(
            messages[0].starts_with(&format!("/qio/callback/1:0={{\"code\":{expected},")),
            "{messages:?}"
        );
        ask(&mut world, client, "/qio/off", "\"/later\"");
        change_rules(&mut world, Vec::new());
        world.run_until_idle();
    }
}

/// A change of rules is enforced in many short turns, while clients subscribe, unsubscribe and disconnect.
#[test]
fn many_subscriptions_end_in_many_turns() {
    let (mut world, _) = world(1, Vec::new());
    let clients: Vec<Peer> = (0..40).map(|_| world.connect_raw(0)).collect();
    let paths = 500;
    for client in &clients {
        for path in 0..paths {
            world.send_event(*client, &format!("/qio/on:0=\"/x/{}/{path}\"", path % 2));
        }
    }
    world.run_until_idle();
    let subscriptions = |world: &World| world.shards[0].state().pubsub.subscriptions();
    assert_eq!(subscriptions(&world), 40 * paths);
    change_rules(&mut world, vec![rule("/x/1/*", Access::User, Access::Anyone)]);
    let mut turns = 0;
    let mut rounds = clients.iter();
    while world.shards[0].state().access.enforcing().is_some() || turns == 0 {
        let (leaving, changing) = (*rounds.next().unwrap(), *rounds.next().unwrap());
        world.reset(leaving);
        for path in 0..40 {
            world.send_event(changing, &format!("/qio/off:0=\"/x/{}/{path}\"", path % 2));
            world.send_event(changing, &format!("/qio/on:0=\"/x/{}/new{path}\"", path % 2));
        }
        world.turn(0);
        turns += 1;
    }
    assert!((3..20).contains(&turns), "{turns} turns");
    world.run_until_idle();
    let state = world.shards[0].state();
    for index in 0..state.pubsub.path_ids() {
        let Some((path, subscribers)) = state.pubsub.subscribers_at(index) else { continue };
        assert!(subscribers.is_empty() || path.as_str().starts_with("/x/0/"), "{path} has subscribers");
    }
    let left = 40 - turns;
    assert_eq!(
        subscriptions(&world),
        left * paths / 2,
        "each of the others has lost half, and one that changes as well"
    );
}

/// The table of paths shrinks while its last paths lose their subscribers.
#[test]
fn all_paths_of_a_shard_may_end() {
    let (mut world, _) = world(1, Vec::new());
    let client = world.connect_raw(0);
    for path in 0..4000 {
        world.send_event(client, &format!("/qio/on:0=\"/x/{path}\""));
    }
    world.run_until_idle();
    change_rules(&mut world, vec![rule("/x/*", Access::Nobody, Access::Anyone)]);
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client).len(), 4000);
    let state = world.shards[0].state();
    assert_eq!((state.pubsub.subscriptions(), state.pubsub.paths(), state.access.enforcing()), (0, 0, None));
}

#[test]
fn subscriptions_that_back_ends_make_are_not_subject_to_rules() {
    let (mut world, asked) = world(1, vec![rule("/**", Access::Nobody, Access::Nobody)]);
    let client = world.connect_raw(0);
    for path in ["/x/a", "/later"] {
        assert_eq!(on(&mut world, client, path), "401 not allowed");
        let state = world.shards[0].state_mut();
        let reply_to = ReplyTo { client: state.connections.client_ids().next().unwrap(), callback: 0 };
        state.subscribe(reply_to, &Path::parse(path).unwrap(), &Json::NULL, None);
    }
    asked.later.lock().unwrap().pop().unwrap().decide(true).unwrap();
    world.run_until_idle();
    assert_eq!(world.shards[0].state().pubsub.subscriptions(), 2);
    // The next change of rules ends them.
    change_rules(&mut world, vec![rule("/x/**", Access::Nobody, Access::Anyone)]);
    world.run_until_idle();
    assert_eq!(world.take_raw_messages(client), ["/qio/off:0=\"/x/a\""]);
}

#[test]
fn tokens_grant_paths() {
    let (mut world, _) = world(1, vec![rule("/x/**", Access::Granted, Access::Granted)]);
    let (stranger, seven) = (world.connect_raw(0), world.connect_raw(0));
    authenticate(&mut world, 0, "7");
    for (path, expected) in
        [("/x/team/7", "200"), ("/x/team/8", "401 not allowed"), ("/x/other", "401 not allowed")]
    {
        assert_eq!(on(&mut world, seven, path), expected, "{path}");
        assert_eq!(on(&mut world, stranger, path), "401 authenticate first", "{path}");
        assert_eq!(ask(&mut world, seven, path, "1"), "401 not allowed", "the token grants nothing to send");
    }
}
