//! protocol.md, section 2: server callbacks, in chains, with their limits and their end, over every transport.

use crate::support::{Answer, Conversation, Server, Transport};
use std::time::Duration;

const UNKNOWN: &str = "callback doesn't exist";

/// Returns a callback that the server offers.
fn echo(client: &mut impl Conversation) -> u64 {
    let callback = client.request_code("/clienttest/echo", "1", 200).callback;
    assert_ne!(callback, 0, "echo offers a callback");
    callback
}

fn fire(client: &mut impl Conversation, id: impl std::fmt::Display, data: &str) -> Answer {
    client.request(&format!("/qio/callback/{id}"), data)
}

#[track_caller]
fn assert_unknown(answer: &Answer) {
    assert_eq!((answer.code(), &answer.body["err_msg"]), (404, &UNKNOWN.into()), "{}", answer.text);
}

#[test]
fn chains() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let mut callback = echo(&mut client);
        assert_eq!(callback, 1, "the first id is 1");
        for step in 0..100 {
            let data = format!("{{\"step\":{step}}}");
            let answer = fire(&mut client, callback, &data);
            assert_eq!((answer.code(), answer.body["data"].to_string()), (200, data));
            assert!(answer.callback != 0 && answer.callback != callback);
            callback = answer.callback;
        }
        // If the client asks for no answer, none is sent, and the chain ends.
        client.tell(&format!("/qio/callback/{callback}"), "null");
        client.ping();
        assert!(client.answers().is_empty() && client.events().is_empty());
    }
    let stats = server.eventually_is("callbacks_open", 0);
    assert_eq!(stats.value("callbacks_fired"), 101 * Transport::ALL.len() as u64);
}

#[test]
fn an_id_is_valid_once() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let callback = echo(&mut client);
        assert_eq!(fire(&mut client, callback, "1").code(), 200);
        assert_unknown(&fire(&mut client, callback, "1"));
        assert_unknown(&fire(&mut client, callback, "1"));
    }
}

#[test]
fn a_fifth_evicts_one() {
    let server = Server::start_with_clock(&[]);
    for (transport, evicted) in Transport::ALL.into_iter().zip(1..) {
        let mut client = server.conversation(transport);
        let callbacks: Vec<u64> = (0..5).map(|_| echo(&mut client)).collect();
        assert_eq!(server.stats().value("callbacks_open"), 4);
        let codes: Vec<u64> = callbacks.iter().map(|id| fire(&mut client, id, "1").code()).collect();
        assert_eq!(codes.iter().filter(|&&code| code == 404).count(), 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|&&code| code == 200).count(), 4, "{codes:?}");
        assert_eq!(server.stats().value("callbacks_evicted"), evicted);
        // Each of the four has offered a further one. They end with the client: an HTTP session after ten seconds.
        drop(client);
        server.advance(Duration::from_secs(11));
        server.eventually_is("callbacks_open", 0);
    }
}

#[test]
fn unused_callbacks_expire() {
    let server = Server::start_with_clock(&["--clients-cb-max-age", "15s"]);
    for (transport, expired) in Transport::SOCKETS.into_iter().zip(1..) {
        let mut client = server.client(transport);
        let mut callback = echo(&mut client);
        // Each step of a chain restarts the time.
        for _ in 0..3 {
            server.advance(Duration::from_millis(14_000));
            let answer = fire(&mut client, callback, "1");
            assert_eq!(answer.code(), 200);
            callback = answer.callback;
        }
        server.advance(Duration::from_millis(15_001));
        assert_unknown(&fire(&mut client, callback, "1"));
        let stats = server.eventually_is("callbacks_expired", expired);
        assert_eq!(stats.value("callbacks_open"), 0);
    }
}

#[test]
fn an_id_is_unknown_to_other_clients() {
    let server = Server::start(&[]);
    let mut clients = server.spread(4);
    let callback = echo(&mut clients[0]);
    for other in &mut clients[1..] {
        assert_unknown(&fire(other, callback, "1"));
        // The ids near it.
        for id in 2..20 {
            assert_unknown(&fire(other, id, "1"));
        }
    }
    assert_eq!(fire(&mut clients[0], callback, "\"mine\"").body["data"], "mine");
}

#[test]
fn invalid_ids_are_rejected() {
    let server = Server::start(&[]);
    for (transport, round) in Transport::ALL.into_iter().zip(1..) {
        let mut client = server.conversation(transport);
        let callback = echo(&mut client);
        for id in
            ["0", "abc", "-1", "1x", "1/2", "1-", "18446744073709551616", "99999999999999999999999999", "000"]
        {
            let answer = fire(&mut client, id, "1");
            assert_eq!(
                (answer.code(), &answer.body["err_msg"]),
                (400, &"invalid server callback id".into()),
                "{id}"
            );
        }
        for id in ["18446744073709551615", "4294967297", "4294967296", "255", "65537"] {
            assert_unknown(&fire(&mut client, id, "1"));
        }
        let code = client.request("/qio/callback", "1").code();
        assert!(code == 400 || code == 404);
        let unknown = server.stats().value("callbacks_unknown");
        assert!(unknown >= 14 * round, "{unknown} of {} were counted", 14 * round);
        assert_eq!(fire(&mut client, callback, "1").code(), 200, "the open callback is unaffected");
    }
}

#[test]
fn callbacks_end_with_their_client() {
    let server = Server::start(&[]);
    for _ in 0..5 {
        let mut client = server.websocket();
        for _ in 0..3 {
            echo(&mut client);
        }
    }
    server.eventually("without callbacks", |stats| {
        stats.value("callbacks_open") == 0 && stats.value("clients") == 0
    });
}
