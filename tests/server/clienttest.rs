//! protocol.md, section 8: the application against which client libraries are tested.

use crate::support::client::Ended;
use crate::support::wire::Frame;
use crate::support::{Server, Wire};
use std::time::Duration;

#[test]
fn broadcast_comes_every_ten_milliseconds() {
    let server = Server::start_with_clock(&[]);
    let mut clients = server.spread(4);
    clients.push(server.client(Wire::Raw));
    for client in &mut clients {
        client.subscribe("/clienttest/broadcast");
        client.ping();
        assert_eq!(client.events(), [], "before its time");
    }
    for _ in 0..5 {
        server.advance(Duration::from_millis(10));
        for client in &mut clients {
            assert_eq!(client.text(), "/clienttest/broadcast:0=\"broadcast event\"");
        }
    }
    // Once in ten milliseconds, not once a shard.
    for client in &mut clients {
        client.ping();
        assert_eq!(client.events(), []);
    }
}

#[test]
fn close_closes() {
    let server = Server::start(&[]);
    for wire in Wire::ALL {
        let mut client = server.client(wire);
        client.tell("/clienttest/close", "null");
        if let Ended::Close(code, _) = client.ended() {
            assert_eq!(code, 1000);
            client.try_send(&Frame::close(code, "").bytes());
            client.expect_gone();
        }
    }
    assert_eq!(server.eventually_is("connections", 0).value("closes_by_app"), 2);
}

#[test]
fn drop_callback_never_answers() {
    let server = Server::start_with_clock(&[]);
    let mut client = server.websocket();
    client.ask("/clienttest/drop-callback", "1");
    client.ping();
    server.advance(Duration::from_secs(30));
    client.ping();
    assert!(client.answers().is_empty());
}

#[test]
fn heartbeat_challenge_is_answered_when_its_heartbeat_is() {
    let server = Server::start(&[]);
    for wire in Wire::ALL {
        let mut client = server.client(wire);
        let question = client.ask("/clienttest/heartbeat-challenge", "null");
        let heartbeat = client.event();
        assert_eq!((heartbeat.path.as_str(), heartbeat.data.as_str()), ("/qio/heartbeat", "null"));
        assert_ne!(heartbeat.callback, 0);
        client.ping();
        assert!(client.answers().is_empty(), "answered too early");
        client.tell(&format!("/qio/callback/{}", heartbeat.callback), "null");
        assert_eq!(client.answer(question).code(), 200);
    }
}

#[test]
fn move_sends_the_client_elsewhere() {
    let server = Server::start(&[]);
    for wire in Wire::ALL {
        let mut client = server.client(wire);
        client.tell("/clienttest/move", "\"other.example.com:1234\"");
        assert_eq!(client.text(), "/qio/move:0=\"other.example.com:1234\"");
        assert_ne!(client.ended(), Ended::Close(1002, String::new()));
    }
}

#[test]
fn on_data_wants_its_extra() {
    let server = Server::start(&[]);
    for wire in Wire::ALL {
        let mut client = server.client(wire);
        for wrong in
            ["\"/clienttest/on-data\"", "[\"/clienttest/on-data\",1]", "[\"/clienttest/on-data\",\"123987\"]"]
        {
            client.request_code("/qio/on", wrong, 401);
        }
        client.ping();
        assert_eq!(client.events(), []);
        client.request_code("/qio/on", "[\"/clienttest/on-data\", 123987]", 200);
        let event = client.event();
        assert_eq!((event.path.as_str(), event.data.as_str()), ("/clienttest/on-data", "true"));
    }
}

#[test]
fn what_only_a_client_library_minds() {
    let server = Server::start(&[]);
    for wire in Wire::ALL {
        let mut client = server.client(wire);
        client.tell("/clienttest/send-unsubscribed", "null");
        let event = client.event();
        assert_eq!(event.callback, 0);
        assert!(event.path.starts_with('/'), "{event:?}");
        client.tell("/clienttest/send-invalid", "null");
        let text = client.text();
        let well_formed = text.split_once(':').and_then(|(_, rest)| rest.split_once('='));
        assert!(
            well_formed.is_none_or(|(digits, _)| digits.parse::<u64>().is_err()),
            "{text} is well-formed"
        );
    }
}
