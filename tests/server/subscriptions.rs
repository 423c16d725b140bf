//! protocol.md, section 4: subscriptions, decided at once or later, and broadcasts to all shards.

use crate::fuzz::{self, Random};
use crate::support::{Client, Conversation, Server, Transport};
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

#[test]
fn on_and_off_accept_only_paths() {
    let server = Server::start_with_clock(&[]);
    for (transport, subscribes) in Transport::ALL.into_iter().zip(1..) {
        let mut client = server.conversation(transport);
        for event in ["/qio/on", "/qio/off"] {
            let malformed =
                ["5", "{}", "null", "", "true", "[]", "[\"/relay/x\"]", "[1,2]", "{\"path\":\"/relay/x\"}"];
            for data in malformed {
                let answer = client.request_code(event, data, 400);
                assert_eq!(answer.body["err_msg"], "invalid json ev_path", "{event}={data}");
                assert!(answer.body["data"].is_null());
            }
            for data in ["{", "\"/relay", "[\"/relay/x\",", "/relay/x", "\"\\ud800\""] {
                client.request_code(event, data, 400);
            }
            client.request_code(event, "\"/nowhere\"", 404);
            client.request_code(event, "\"\"", 404);
            client.request_code(event, "\"@\"", 404);
        }
        client.request_code("/qio/on", "[\"/relay/x\", {\"extra\":[1]}]", 200);
        client.request_code("/qio/on", " \"/relay/escaped\\u0041\" ", 200);
        client.request_code("/relay/escapedA", "1", 200);
        assert_eq!(client.event().path, "/relay/escapedA");
        // The server's own events cannot be subscribed to.
        for path in [
            "/qio/ping",
            "/qio/on",
            "/qio/hostname",
            "/qio/limits",
            "/qio/heartbeat",
            "/qio/callback",
            "/qio/callback/1",
            "/qio",
        ] {
            let code = client.request("/qio/on", &format!("{path:?}")).code();
            assert!(code == 401 || code == 404, "{path} was answered {code}");
        }
        assert_eq!(server.eventually_is("subscriptions", 2).value("subscribes"), 2 * subscribes);
        drop(client);
        server.advance(Duration::from_secs(11)); // ends an HTTP session
        server.eventually_is("subscriptions", 0);
    }
}

#[test]
fn a_client_has_one_subscription_to_a_path_under_all_its_spellings() {
    let server = Server::start_with_clock(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.subscribe("/relay/room/1");
        client.subscribe("/relay/room/1");
        client.subscribe("//relay///r@o(o)m/1/");
        client.request_code("/relay/room/1", "{\"a\": 1}", 200);
        client.request_code("/relay//room/+/1/", "", 200);
        client.ping();
        let texts: Vec<_> =
            client.events().iter().map(|event| (event.path.clone(), event.data.clone())).collect();
        let path = "/relay/room/1".to_string();
        assert_eq!(texts, [(path.clone(), "{\"a\": 1}".into()), (path, "null".into())], "{transport:?}");
        // One `off` ends the subscription. Further ones change nothing.
        client.unsubscribe("/relay/ro%om/1");
        client.unsubscribe("/relay/room/1");
        client.unsubscribe("/relay/never");
        client.request_code("/relay/room/1", "3", 200);
        client.ping();
        assert!(client.events().is_empty());
        assert_eq!(server.stats().value("subscriptions"), 0, "{transport:?}");
    }
}

#[test]
fn subscriptions_match_whole_paths() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        for path in ["/relay", "/relay/a", "/relay/a/b", "/relay/A", "/relay/ab", "/relay/a-b_c"] {
            client.subscribe(path);
        }
        for path in ["/relay/a/b", "/relay", "/relay/A", "/relay/a/b/c", "/relay/a"] {
            client.request_code(path, &format!("{path:?}"), 200);
        }
        client.ping();
        let paths: Vec<_> = client.events().into_iter().map(|event| event.path).collect();
        assert_eq!(paths, ["/relay/a/b", "/relay", "/relay/A", "/relay/a"], "{transport:?}");
    }
}

#[test]
fn a_pending_subscription_says_so_on_every_transport() {
    let server = Server::start(&[]);
    const PATH: &str = "/clienttest/in-progress";
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.ask("/qio/on", &format!("{PATH:?}"));
        let answer = client.request_code("/qio/on", &format!("{PATH:?}"), 202);
        let expected = "={\"code\":202,\"data\":null,\"err_msg\":\"subscription pending\"}";
        assert!(answer.text.ends_with(expected), "{transport:?}: {}", answer.text);
    }
}

#[test]
fn pending_subscriptions() {
    let server = Server::start(&[]);
    const PATH: &str = "/clienttest/in-progress";
    let on = format!("{PATH:?}");
    let decide = |client: &mut Client| drop(client.request_code(PATH, "null", 200));

    // The answer is sent after the decision. Until then a second `on` is answered with 202.
    let mut client = server.websocket();
    let first = client.ask("/qio/on", &on);
    client.request_code("/qio/on", &on, 202);
    client.request_code("/qio/on", &on, 202);
    client.ping();
    assert!(client.answers().is_empty(), "answered before the decision");
    assert_eq!(server.stats().value("subscriptions"), 0);
    decide(&mut client);
    assert_eq!(client.answer(first).code(), 200);
    client.subscribe(PATH);
    server.eventually_is("subscriptions", 1);

    // An `off` while the `on` is pending is answered at once, and the `on` after the decision. The client is not
    // subscribed afterwards.
    let mut client = server.websocket();
    let first = client.ask("/qio/on", &on);
    client.unsubscribe(PATH);
    client.unsubscribe(PATH);
    decide(&mut client);
    assert_eq!(client.answer(first).code(), 200);
    server.eventually_is("subscriptions", 1);

    // An `on` after that `off` cancels the `off`.
    let mut client = server.websocket();
    let first = client.ask("/qio/on", &on);
    client.unsubscribe(PATH);
    client.request_code("/qio/on", &on, 202);
    decide(&mut client);
    assert_eq!(client.answer(first).code(), 200);
    server.eventually_is("subscriptions", 2);
    client.unsubscribe(PATH);
    server.eventually_is("subscriptions", 1);

    // After the subscription has ended, a new one can be made.
    let first = client.ask("/qio/on", &on);
    client.request_code("/qio/on", &on, 202);
    decide(&mut client);
    assert_eq!(client.answer(first).code(), 200);
    server.eventually_is("subscriptions", 2);
    drop(client);
    server.eventually_is("subscriptions", 1);

    // A client that disconnects while its subscription is pending leaves nothing behind.
    for _ in 0..10 {
        let mut client = server.websocket();
        client.ask("/qio/on", &on);
        client.ping();
    }
    server.eventually("ten disconnected", |stats| stats.value("connections_closed") == 11);
    assert_eq!(server.stats().value("subscriptions"), 1);
}

#[test]
fn closing_ends_every_subscription() {
    let server = Server::start(&[]);
    let clients = server.spread(8);
    let count = clients.len() as u64;
    for (number, mut client) in clients.into_iter().enumerate() {
        for path in 0..20 {
            client.subscribe(&format!("/relay/{path}"));
        }
        client.subscribe("/relay/other");
        client.unsubscribe("/relay/other");
        if number % 2 == 0 {
            client.reset();
        }
    }
    let stats = server.eventually("without connections and subscriptions", |stats| {
        stats.value("subscriptions") == 0 && stats.value("connections") == 0 && stats.value("paths") == 0
    });
    assert_eq!(stats.value("subscribes"), 21 * count);
    assert_eq!(stats.value("unsubscribes"), 21 * count);
    // A broadcast without subscribers is answered as any other.
    let mut sender = server.websocket();
    sender.request_code("/relay/3", "1", 200);
    assert_eq!(server.stats().value("broadcast_deliveries"), 0);
}

/// Every broadcast must reach exactly the subscribed clients, once, on every shard, from the moment at which `on` is
/// answered to the moment at which `off` is answered.
#[test]
fn broadcasts_reach_exactly_the_subscribers() {
    // The clock stands still, and so no HTTP session ends while its client waits for others.
    let server = Server::start_with_clock(&["--shards", "3"]);
    let mut clients: Vec<Box<dyn Conversation>> = Vec::new();
    for client in server.spread(12) {
        clients.push(Box::new(client));
    }
    for transport in [Transport::Raw, Transport::Poll, Transport::Stream].repeat(4) {
        clients.push(server.conversation(transport));
    }
    let mut subscribed = BTreeSet::new();
    fuzz::run(|random| {
        for round in 0..100 {
            subscribe_or_not(random, &mut clients, &mut subscribed);
            let (sender, path) = (random.below(clients.len()), random.below(PATHS));
            clients[sender].request_code(&format!("/relay/{path}"), &round.to_string(), 200);
            for &(subscriber, _) in subscribed.iter().filter(|(_, subscribed)| *subscribed == path) {
                let event = clients[subscriber].event();
                assert_eq!((event.path, event.data), (format!("/relay/{path}"), round.to_string()));
            }
        }
        for client in &mut clients {
            client.ping();
            assert_eq!(client.events(), [], "a broadcast came twice, or to a client without a subscription");
        }
    });
    assert!(server.stats().value("mesh_received") > 0, "nothing crossed shards");
    assert_eq!(server.stats().value("mesh_refused"), 0);
}

const PATHS: usize = 4;

/// One client subscribes to a path, or ends its subscription. `subscribed` has the pairs of client and path.
fn subscribe_or_not(
    random: &mut Random,
    clients: &mut [Box<dyn Conversation>],
    subscribed: &mut BTreeSet<(usize, usize)>,
) {
    let (client, path) = (random.below(clients.len()), random.below(PATHS));
    if subscribed.remove(&(client, path)) {
        clients[client].unsubscribe(&format!("/relay/{path}"));
    } else {
        subscribed.insert((client, path));
        clients[client].subscribe(&format!("/relay/{path}"));
    }
}

/// Many clients on all shards send to one path at once: each subscriber receives every sender's events once, in order.
#[test]
fn broadcasts_of_each_sender_stay_in_order_across_shards() {
    const SENDERS: usize = 8;
    const EVENTS: usize = 300;
    let server = Server::start(&[]);
    let mut subscribers = server.spread(10);
    for subscriber in &mut subscribers {
        subscriber.subscribe("/relay/order");
    }
    let senders = server.spread(SENDERS);
    let count = senders.len();
    thread::scope(|scope| {
        for (number, mut sender) in senders.into_iter().enumerate() {
            scope.spawn(move || {
                for event in 0..EVENTS {
                    sender.tell("/relay/order", &format!("[{number},{event}]"));
                }
                sender.ping();
            });
        }
        for mut subscriber in subscribers {
            scope.spawn(move || {
                let mut next = vec![0; count];
                for _ in 0..count * EVENTS {
                    let [sender, event]: [usize; 2] = serde_json::from_str(&subscriber.event().data).unwrap();
                    assert_eq!(event, next[sender], "from sender {sender}");
                    next[sender] += 1;
                }
                subscriber.ping();
                assert_eq!(subscriber.events(), []);
            });
        }
    });
}

/// A broadcast is sent only to shards that have subscribers of its path.
#[test]
fn broadcasts_are_not_sent_to_shards_without_subscribers() {
    // The clock stands still, and so no application broadcasts by its timers.
    let server = Server::start_with_clock(&[]);
    let mut clients = server.spread(2);
    for client in &mut clients {
        client.request_code("/relay/nobody", "1", 200);
    }
    let before = server.stats().value("mesh_sent");
    for client in &mut clients {
        for _ in 0..50 {
            client.request_code("/relay/nobody", "1", 200);
        }
    }
    let stats = server.stats();
    // The messages that the statistics cause between shards do not grow with the broadcasts.
    assert!(stats.value("mesh_sent") < before + 50, "broadcasts were sent to shards without subscribers");
    assert_eq!(stats.value("broadcasts"), 51 * clients.len() as u64);
    assert_eq!(stats.value("broadcast_deliveries"), 0);
}
