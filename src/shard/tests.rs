//! What a shard does, told by what peers at the other end see: its state over a kernel that tests made up.

use super::testing::{App, At, World, client_close, client_frame, peer, raw_text};
use crate::app::clienttest::ClientTest;
use crate::app::relay::Relay;
use crate::app::{Answer, Application, Decision, Error, Later, LaterDecision, Registrar};
use crate::config::Config;
use crate::event::path::Path;
use crate::metrics::{Counter, Gauge};
use crate::protocol::websocket::encode;
use crate::protocol::websocket::frame::Opcode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn app(
    register: impl Fn(&mut Registrar) -> Result<(), Error> + Send + Sync + 'static,
) -> Vec<Arc<dyn Application>> {
    vec![Arc::new(App(register))]
}

fn relay() -> Vec<Arc<dyn Application>> {
    vec![Arc::new(Relay)]
}

fn clienttest() -> Vec<Arc<dyn Application>> {
    vec![Arc::new(ClientTest)]
}

fn path(path: &str) -> Path {
    Path::parse(path).unwrap()
}

fn ok(callback: u64) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":200,\"data\":null}}")
}

fn refused(callback: u64, code: u16) -> String {
    format!("/qio/callback/{callback}:0={{\"code\":{code},\"data\":null,\"err_msg\":null}}")
}

/// Subscribes, and is told that it did.
fn subscribe(world: &mut World, at: At, path: &str) {
    world.say(at, &format!("/qio/on:1=\"{path}\""));
    world.settle();
    assert_eq!(world.take_texts(at), [ok(1)], "{path}");
}

/// Turns of all shards, second by second, so that timers are looked at as they would be.
fn pass(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.advance(SECOND);
        world.settle();
    }
}

fn server_close(code: u16, reason: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::close(&mut bytes, code, reason);
    bytes
}

// Closing.

#[test]
fn a_connection_comes_and_goes_and_leaves_nothing() {
    let mut world = World::new(2, relay());
    for shard in [0, 1] {
        let at = world.raw_client(shard);
        subscribe(&mut world, at, "/relay/a");
        world.end_of_stream(at);
        world.settle();
        assert!(world.is_closed(at));
    }
    let at = world.websocket_client(0);
    world.feed(at, &client_close(1000));
    world.settle();
    assert_eq!(world.take_bytes(at), server_close(1000, ""));
    assert!(world.is_ended(at) && !world.is_closed(at), "the peer may still be reading");
    world.end_of_stream(at);
    world.settle();
    world.assert_empty();
}

#[test]
fn a_socket_is_closed_only_after_it_was_shut_down() {
    let mut world = World::new(1, relay());
    let at = world.raw_client(0);
    world.shards[0].kernel_mut().shuts_down_late = true;
    world.feed(at, &raw_text("no event"));
    world.settle();
    // The order to shut down is with the kernel when the peer ends its stream: were the socket closed now, its
    // number might be another connection's when the order is carried out.
    world.end_of_stream(at);
    world.settle();
    assert!(!world.is_closed(at));
    world.shards[0].kernel_mut().shuts_down_late = false;
    world.settle();
    world.assert_empty();
}

#[test]
fn a_close_that_follows_the_event_in_the_same_bytes_is_seen() {
    let mut world = World::new(1, clienttest());
    let at = world.websocket_client(0);
    let mut bytes = client_frame(Opcode::Text, b"/clienttest/close:0=null");
    bytes.extend(client_frame(Opcode::Text, b"/qio/ping:1=null"));
    bytes.extend(client_close(1000));
    let (first, second) = bytes.split_at(bytes.len() - 3);
    world.feed(at, first);
    world.feed(at, second);
    world.settle();
    assert_eq!(world.take_bytes(at), server_close(1000, "closed by the application"));
    assert!(world.is_ended(at), "both have said Close: the server ends the stream");
    world.end_of_stream(at);
    world.settle();
    world.assert_empty();
}

#[test]
fn a_peer_that_has_only_stopped_to_write_gets_the_close_and_what_was_before_it() {
    let mut world = World::new(1, clienttest());
    let at = world.websocket_client(0);
    world.read(at, false);
    world.feed(at, &client_frame(Opcode::Text, b"/qio/ping:1=null"));
    world.turn(0);
    world.feed(at, &client_frame(Opcode::Text, b"/qio/ping:2=null"));
    world.feed(at, &client_frame(Opcode::Text, b"/clienttest/close:0=null"));
    world.turn(0);
    world.end_of_stream(at);
    world.turn(0);
    world.turn(0);
    world.read(at, true);
    world.turn(0);
    world.turn(0);
    let bytes = world.take_bytes(at);
    world.settle();
    let got = String::from_utf8_lossy(&bytes);
    assert!(got.contains(&ok(1)) && got.contains(&ok(2)), "{got}");
    assert!(got.contains("closed by the application"), "{got}");
    world.settle();
    world.assert_empty();
}

#[test]
fn what_was_queued_before_a_close_is_sent_broadcasts_too() {
    let mut world = World::new(1, {
        app(|registrar| {
            registrar.event("/all").register()?;
            registrar
                .event("/last")
                .handler(|cx, event| {
                    cx.broadcast(&path("/all"), "\"last\"");
                    cx.send(event.client, &path("/all"), "\"yours\"");
                    cx.close(event.client);
                    Answer::never()
                })
                .register()
        })
    });
    let at = world.raw_client(0);
    subscribe(&mut world, at, "/all");
    world.say(at, "/last:0=null");
    world.turn(0);
    world.turn(0);
    let mut texts = world.take_texts(at);
    texts.sort();
    assert_eq!(texts, ["/all:0=\"last\"", "/all:0=\"yours\""]);
    world.end_of_stream(at);
    world.settle();
    world.assert_empty();
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_in_the_turn_that_found_it() {
    let config = Config { outbox_bytes_max: 100_000, ..Config::default() };
    let mut world = World::with(1, config, relay());
    let [slow, sender] = [0, 0].map(|shard| world.raw_client(shard));
    subscribe(&mut world, slow, "/relay/a");
    world.read(slow, false);
    let data = "x".repeat(30_000);
    for _ in 0..4 {
        world.say(sender, &format!("/relay/a:0=\"{data}\""));
        world.turn(0);
    }
    assert_eq!(world.count(Counter::ClosesSlow), 1);
    assert_eq!(world.count(Counter::BroadcastDeliveries), 3, "the fourth was one too many");
    assert!(!world.shards[0].state().connections.has_endings(), "nothing would wake the shard for it");
    pass(&mut world, 6);
    assert!(world.is_closed(slow), "close-timeout is over");
    world.end_of_stream(sender);
    world.settle();
    world.assert_empty();
}

#[test]
fn one_connection_too_many_of_an_address_is_closed_at_once() {
    let config = Config { connections_per_address_max: 2, ..Config::default() };
    let mut world = World::with(3, config, relay());
    let from = |port: u16| peer(&format!("192.0.2.1:{port}"));
    let first = world.connect_from(0, from(1));
    let second = world.connect_from(1, from(2));
    world.settle();
    let third = world.connect_from(2, from(3));
    world.settle();
    assert!(world.is_closed(third) && !world.is_closed(first) && !world.is_closed(second));
    assert_eq!(world.count(Counter::ConnectionsRefusedAddress), 1);
    world.end_of_stream(first);
    world.settle();
    let fourth = world.connect_from(2, from(4));
    world.settle();
    assert!(!world.is_closed(fourth), "one has left");
    [second, fourth].into_iter().for_each(|at| world.end_of_stream(at));
    world.settle();
    world.assert_empty();
    assert!(world.shards.iter().all(|shard| shard.state().addresses.is_empty()));
}

#[test]
fn whoever_holds_many_subscriptions_does_not_stop_the_shard_when_it_goes() {
    let mut world = World::new(2, relay());
    let at = world.raw_client(0);
    for n in 0..5000 {
        world.say(at, &format!("/qio/on:0=\"/relay/{n}\""));
    }
    world.settle();
    assert_eq!(world.gauge(Gauge::Subscriptions), 5000);
    assert_eq!(world.shards[1].state().pubsub.paths(), 5000);
    world.end_of_stream(at);
    world.turn(0);
    world.turn(0);
    assert!(world.gauge(Gauge::Subscriptions) > 0, "not all in one turn");
    world.settle();
    world.assert_empty();
}

// Time.

#[test]
fn nobody_is_sent_nothing_for_more_than_a_minute() {
    let mut world = World::new(1, relay());
    let [idle, busy] = [0, 0].map(|shard| world.raw_client(shard));
    let mut silence = [0; 2];
    for second in 0..600 {
        if second % 47 == 0 {
            world.say(busy, "/qio/ping:7=null");
        }
        // Somebody who talks keeps the others from being challenged.
        world.say(idle, "/qio/ping:0=null");
        pass(&mut world, 1);
        for (at, silence) in [idle, busy].into_iter().zip(&mut silence) {
            let texts = world.take_texts(at);
            *silence += 1;
            if texts.iter().any(|text| text == "/qio/heartbeat:0=null") {
                assert!((50..=60).contains(silence), "a heartbeat after {silence} s");
            }
            if !texts.is_empty() {
                *silence = 0;
            }
            assert!(*silence <= 60);
        }
    }
    assert!(world.count(Counter::Heartbeats) >= 10);
}

#[test]
fn a_heartbeat_is_in_time_also_where_the_handshake_may_take_longer() {
    let config = Config { timeout: 10 * MINUTE, ..Config::default() };
    let mut world = World::with(1, config, relay());
    let at = world.raw_client(0);
    pass(&mut world, 60);
    assert_eq!(world.take_texts(at), ["/qio/heartbeat:0=null"]);
}

#[test]
fn a_timer_that_is_late_is_not_put_off_by_what_happens_in_its_turn() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar
                .event("/ask")
                .handler(|cx, event| {
                    cx.send_with_callback(event.client, &path("/ask"), "1", |_, _| Answer::ok());
                    Answer::never()
                })
                .register()
        }),
    );
    let at = world.raw_client(0);
    // Half a message, and by the time that it is late, in the same turn, a callback that lives for longer.
    world.feed(at, &[0]);
    world.settle();
    world.advance(11 * SECOND);
    let state = world.shards[0].state_mut();
    let client = state.connections.client_of(0).unwrap();
    state.begin_turn();
    state.issue(client, 0, None);
    world.settle();
    assert_eq!(world.count(Counter::TimeoutsMessage), 1);
    assert_eq!(world.gauge(Gauge::Timers), 1, "the end of its closing, and nothing else");
}

#[test]
fn silence_is_challenged_after_fifteen_minutes_and_ended_after_sixteen() {
    let mut world = World::new(1, relay());
    let [silent, alive] = [0, 0].map(|shard| world.raw_client(shard));
    pass(&mut world, 15 * 60 - 1);
    assert!(world.take_texts(silent).iter().all(|text| text == "/qio/heartbeat:0=null"));
    pass(&mut world, 1);
    assert_eq!(world.take_texts(silent), ["/qio/heartbeat:1=null"]);
    assert_eq!(world.take_texts(alive).pop().as_deref(), Some("/qio/heartbeat:1=null"));
    world.say(alive, "/qio/callback/1:0=null");
    pass(&mut world, 59);
    assert!(!world.is_ended(silent));
    pass(&mut world, 1);
    assert!(world.is_ended(silent) && !world.is_ended(alive));
    assert_eq!(world.count(Counter::TimeoutsLiveness), 1);
    assert_eq!(world.count(Counter::Challenges), 2);
}

#[test]
fn a_peer_that_always_has_a_message_begun_is_not_late_while_it_ends_them() {
    let mut world = World::new(1, relay());
    let [streaming, stuck] = [0, 0].map(|shard| world.raw_client(shard));
    let message = raw_text("/qio/ping:0=null");
    let (head, tail) = message.split_at(5);
    world.feed(streaming, head);
    world.feed(stuck, head);
    for second in 0..30 {
        // The end of one message and the beginning of the next, always.
        world.feed(streaming, &[tail, head].concat());
        pass(&mut world, 1);
        assert!(!world.is_ended(streaming), "after {second} s");
    }
    assert!(world.is_ended(stuck));
    assert_eq!(world.count(Counter::TimeoutsMessage), 1);
    pass(&mut world, 10);
    assert!(world.is_ended(streaming), "this message never ends");
}

#[test]
fn pings_do_not_keep_an_unfinished_message_alive() {
    let mut world = World::new(1, relay());
    let at = world.websocket_client(0);
    let mut begun = client_frame(Opcode::Text, b"/qio");
    begun[0] &= 0x7F;
    world.feed(at, &begun);
    for _ in 0..11 {
        world.feed(at, &client_frame(Opcode::Ping, b""));
        pass(&mut world, 1);
    }
    assert_eq!(world.count(Counter::TimeoutsMessage), 1);
}

#[test]
fn a_handshake_is_complete_in_time_or_over() {
    let mut world = World::new(1, relay());
    let [silent, half] = [0, 0].map(|shard| world.connect(shard));
    world.feed(half, b"GET / HTTP/1.1\r\n");
    pass(&mut world, 9);
    assert!(!world.is_ended(silent) && !world.is_ended(half));
    pass(&mut world, 1);
    assert!(world.is_ended(silent) && world.is_ended(half));
    assert_eq!(world.count(Counter::TimeoutsHandshake), 2);
    pass(&mut world, 6);
    world.assert_empty();
}

#[test]
fn timers_do_not_multiply() {
    let mut world = World::new(1, clienttest());
    let at = world.raw_client(0);
    for n in 0..200 {
        world.say(at, &format!("/clienttest/echo:{}=1", n + 1));
        pass(&mut world, 1 + n % 7);
    }
    // One for the connection, one for the broadcasts of `clienttest`.
    assert_eq!(world.gauge(Gauge::Timers), 2);
}

// Applications.

#[test]
fn a_promise_that_outlives_its_refusal_does_no_harm() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar
                .event("/never")
                .on(|cx, subscription| {
                    let (_, _promise) = subscription.later(cx);
                    Decision::Refuse
                })
                .register()
        }),
    );
    let at = world.raw_client(0);
    world.say(at, "/qio/on:1=\"/never\"");
    world.settle();
    assert_eq!(world.take_texts(at), [refused(1, 401)]);
    world.say(at, "/qio/ping:2=null");
    world.settle();
    assert_eq!(world.take_texts(at), [ok(2)]);
}

#[test]
fn an_application_that_panics_fails_its_event_only() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar.event("/on").on(|_, _| panic!("on")).register()?;
            registrar.event("/off").off(|_, _| panic!("off")).register()?;
            registrar
                .event("/offer")
                .handler(|_, _| Answer::ok().with_callback(|_, _| panic!("callback")))
                .register()?;
            registrar
                .event("/after")
                .handler(|cx, _| {
                    cx.after(Duration::ZERO, |_| panic!("after"));
                    Answer::ok()
                })
                .register()?;
            registrar.every(SECOND, |_| panic!("every"));
            registrar.event("/handler").handler(|_, _| panic!("handler")).register()
        }),
    );
    let at = world.raw_client(0);
    let mut ask = |text: &str, expected: &str| {
        world.say(at, text);
        world.settle();
        assert_eq!(world.take_texts(at), [expected], "{text}");
    };
    ask("/handler:1=null", &refused(1, 500));
    ask("/qio/on:2=\"/on\"", &refused(2, 500));
    ask("/qio/on:3=\"/off\"", &ok(3));
    ask("/qio/off:4=\"/off\"", &ok(4));
    ask("/after:5=null", &ok(5));
    ask("/offer:6=null", "/qio/callback/6:1={\"code\":200,\"data\":null}");
    ask("/qio/callback/1:7=null", &refused(7, 500));
    pass(&mut world, 3);
    world.end_of_stream(at);
    world.settle();
    world.assert_empty();
}

#[test]
fn times_without_end_are_no_overflow() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar.every(Duration::MAX, |_| panic!("never"));
            registrar.every(Duration::from_millis(u64::MAX), |_| panic!("never"));
            registrar
                .event("/after")
                .handler(|cx, _| {
                    cx.after(Duration::MAX, |_| panic!("never"));
                    Answer::ok()
                })
                .register()
        }),
    );
    let at = world.raw_client(0);
    pass(&mut world, 5);
    world.say(at, "/after:1=null");
    world.settle();
    assert_eq!(world.take_texts(at), [ok(1)]);
    pass(&mut world, 5);
}

#[test]
fn a_promise_that_is_dropped_is_answered_500_and_one_that_is_kept_as_it_says() {
    let kept: Arc<Mutex<Vec<Later>>> = Arc::default();
    let keeping = Arc::clone(&kept);
    let mut world = World::new(
        2,
        app(move |registrar| {
            let kept = Arc::clone(&keeping);
            registrar.event("/drop").handler(|cx, event| event.later(cx).0).register()?;
            registrar
                .event("/keep")
                .handler(move |cx, event| {
                    let (answer, later) = event.later(cx);
                    kept.lock().unwrap().push(later);
                    answer
                })
                .register()
        }),
    );
    let at = world.raw_client(1);
    world.say(at, "/drop:1=null");
    world.say(at, "/keep:2=null");
    world.settle();
    assert_eq!(world.take_texts(at), [refused(1, 500)]);
    let later = kept.lock().unwrap().pop().unwrap();
    later.answer(Answer::data("7")).unwrap();
    world.settle();
    assert_eq!(world.take_texts(at), ["/qio/callback/2:0={\"code\":200,\"data\":7}"]);
    world.say(at, "/keep:3=null");
    world.end_of_stream(at);
    world.settle();
    kept.lock().unwrap().clear();
    world.settle();
    assert_eq!(world.count(Counter::AnswersLateDropped), 1);
    world.assert_empty();
}

#[test]
fn what_is_offered_later_runs_in_the_application_that_offered_it() {
    let mut world = World::new(
        1,
        app(|registrar| {
            registrar
                .event("/offer")
                .handler(|cx, event| {
                    cx.set_client_data(event.client, String::from("\"mine\""));
                    let (answer, later) = event.later(cx);
                    let offer = Answer::ok().with_send_callback(|cx, reply| {
                        let mine = cx.client_data::<String>(reply.client).cloned();
                        Answer::data(mine.unwrap_or_default())
                    });
                    later.answer(offer).unwrap();
                    answer
                })
                .register()
        }),
    );
    let at = world.raw_client(0);
    world.say(at, "/offer:1=null");
    world.settle();
    world.say(at, "/qio/callback/1:2=null");
    world.settle();
    assert_eq!(world.take_texts(at).pop().unwrap(), "/qio/callback/2:0={\"code\":200,\"data\":\"mine\"}");
}

#[test]
fn data_of_clients_goes_when_they_go() {
    let alive = Arc::new(());
    let counted = Arc::clone(&alive);
    let mut world = World::new(
        1,
        app(move |registrar| {
            let (alive, late) = (Arc::clone(&counted), Arc::clone(&counted));
            registrar
                .event("/keep")
                .handler(move |cx, event| {
                    cx.set_client_data(event.client, Arc::clone(&alive));
                    let (late, client) = (Arc::clone(&late), event.client);
                    cx.after(SECOND, move |cx| {
                        cx.set_client_data(client, late);
                    });
                    Answer::ok()
                })
                .register()
        }),
    );
    let registered = Arc::strong_count(&alive);
    for late in [false, true] {
        let at = world.raw_client(0);
        world.say(at, "/keep:0=null");
        world.settle();
        assert!(Arc::strong_count(&alive) > registered);
        if late {
            pass(&mut world, 2);
        }
        world.end_of_stream(at);
        world.settle();
        pass(&mut world, 2);
        assert_eq!(Arc::strong_count(&alive), registered, "kept for a client that has gone");
    }
}

#[test]
fn the_namespace_of_the_server_is_its_own_however_it_is_written() {
    let refusal = |path: &'static str| {
        let shard = std::panic::catch_unwind(|| World::new(1, app(move |r| r.event(path).register())));
        shard.is_err()
    };
    for path in ["/qio", "/qio/x", "//qio/x", "/@qio/x", "/q.io", "/qio/", "", "/", "relative", "@"] {
        assert!(refusal(path), "{path:?}");
    }
    for path in ["/qiox", "/a/qio", "/qi/o"] {
        assert!(!refusal(path), "{path:?}");
    }
}

// Subscriptions.

#[test]
fn decisions_that_come_later_meet_what_the_client_wants_by_then() {
    let promises: Arc<Mutex<Vec<LaterDecision>>> = Arc::default();
    let offs: Arc<Mutex<usize>> = Arc::default();
    let (keep, count) = (Arc::clone(&promises), Arc::clone(&offs));
    let mut world = World::new(
        2,
        app(move |registrar| {
            let (keep, count) = (Arc::clone(&keep), Arc::clone(&count));
            registrar
                .event("/later")
                .on(move |cx, subscription| {
                    let (decision, later) = subscription.later(cx);
                    keep.lock().unwrap().push(later);
                    decision
                })
                .off(move |_, _| *count.lock().unwrap() += 1)
                .register()
        }),
    );
    let at = world.raw_client(0);
    // What the client sends, what it is answered at once, the decision, what it is answered then, whether it is
    // subscribed, and how often the off-hook has run.
    const ON: &str = "/qio/on:CB=\"/later\"";
    const OFF: &str = "/qio/off:CB=\"/later\"";
    type Case = (&'static [&'static str], &'static [u16], bool, u16, bool, usize);
    let cases: [Case; 5] = [
        (&[ON, ON], &[202], true, 200, true, 0),
        (&[ON, OFF], &[200], true, 200, false, 1),
        (&[ON, OFF], &[200], false, 401, false, 0),
        (&[ON, OFF, ON], &[200, 202], true, 200, true, 0),
        (&[ON], &[], false, 401, false, 0),
    ];
    for (sent, at_once, accepted, then, subscribed, off_hooks) in cases {
        for text in sent {
            world.say(at, &text.replace("CB", "5"));
        }
        world.settle();
        let code = |code| if code == 200 { ok(5) } else { refused(5, code) };
        assert_eq!(world.take_texts(at), at_once.iter().map(|c| code(*c)).collect::<Vec<_>>(), "{sent:?}");
        promises.lock().unwrap().pop().unwrap().decide(accepted).unwrap();
        world.settle();
        assert_eq!(world.take_texts(at), [code(then)], "{sent:?}");
        assert_eq!(world.gauge(Gauge::Subscriptions), u64::from(subscribed), "{sent:?}");
        assert_eq!(std::mem::take(&mut *offs.lock().unwrap()), off_hooks, "{sent:?}");
        world.say(at, &OFF.replace("CB", "0"));
        world.settle();
        *offs.lock().unwrap() = 0;
        assert_eq!(world.shared.subscriptions.used(), 0);
    }
    world.say(at, "/qio/on:9=\"/later\"");
    world.end_of_stream(at);
    world.settle();
    promises.lock().unwrap().clear();
    world.settle();
    world.assert_empty();
}

#[test]
fn broadcasts_cross_to_shards_that_have_subscribers_and_to_no_other() {
    let mut world = World::new(3, relay());
    let [sender, near, far] = [0, 0, 2].map(|shard| world.raw_client(shard));
    subscribe(&mut world, near, "/relay/a");
    subscribe(&mut world, far, "/relay/a");
    let before = [0, 1, 2].map(|shard| world.shards[shard].state().mesh.counters().received);
    for n in 0..10 {
        world.say(sender, &format!("/relay/a:0={n}"));
    }
    world.settle();
    let expected: Vec<String> = (0..10).map(|n| format!("/relay/a:0={n}")).collect();
    assert_eq!(world.take_texts(near), expected);
    assert_eq!(world.take_texts(far), expected);
    let after = [0, 1, 2].map(|shard| world.shards[shard].state().mesh.counters().received);
    assert_eq!([0, 1, 2].map(|shard| after[shard] - before[shard]), [0, 0, 10]);
}

// Shutdown.

#[test]
fn shutting_down_tells_everybody_and_sends_what_was_queued() {
    let mut world = World::new(1, relay());
    let [websocket, raw, handshaking] = [world.websocket_client(0), world.raw_client(0), world.connect(0)];
    subscribe(&mut world, raw, "/relay/a");
    world.say(raw, "/relay/a:0=\"last\"");
    world.turn(0);
    world.control(0, super::ControlMessage::Shutdown { deadline_ns: u64::MAX });
    world.turn(0);
    world.settle();
    assert!(world.shards[0].kernel().listens_no_more);
    assert_eq!(world.take_texts(raw), ["/relay/a:0=\"last\""]);
    assert_eq!(world.take_bytes(websocket), server_close(1001, "server going away"));
    assert!(world.is_ended(raw) && world.is_ended(handshaking));
    world.feed(websocket, &client_close(1001));
    world.settle();
    [websocket, raw, handshaking].into_iter().for_each(|at| world.end_of_stream(at));
    world.settle();
    assert!(world.shards[0].state().is_done());
    world.assert_empty();
}

#[test]
fn while_other_shards_do_not_listen_nothing_new_is_subscribed_to_and_the_old_stays() {
    let config = Config { mesh_ring_messages: 8, mesh_overflow_messages_max: 0, ..Config::default() };
    let mut world = World::with(2, config, relay());
    let client = world.raw_client(0);
    subscribe(&mut world, client, "/relay/old");
    world.take_bytes(client);
    // The other shard takes no turn: what it is told of first subscriptions fills its ring, and overflows.
    for number in 2..30 {
        world.say(client, &format!("/qio/on:{number}=\"/relay/{number}\""));
    }
    world.say(client, "/qio/on:30=\"/relay/old\"");
    world.turn(0);
    world.turn(0);
    let answers = world.take_texts(client);
    let busy = |answer: &&String| answer.contains("\"code\":420");
    let refused = answers.iter().filter(busy).count();
    assert!((1..28).contains(&refused), "{refused} of {answers:?}");
    assert_eq!(world.count(Counter::SubscriptionsRefusedLimit), refused as u64);
    assert_eq!(answers.last(), Some(&ok(30)), "a second `on` changes nothing, and needs nobody to listen");
    world.settle();
    world.say(client, "/qio/on:31=\"/relay/29\"");
    world.settle();
    assert_eq!(world.take_texts(client), [ok(31)], "they listen again");
    world.end_of_stream(client);
    world.settle();
    world.assert_empty();
}
