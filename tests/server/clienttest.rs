//! protocol.md, section 8: the application against which client libraries are tested, over every transport.

use crate::support::{Conversation, Ended, Server, Transport};
use std::time::Duration;

#[test]
fn broadcasts_every_ten_milliseconds() {
    let server = Server::start_with_clock(&[]);
    let mut clients: Vec<Box<dyn Conversation>> = Vec::new();
    for client in server.spread(4) {
        clients.push(Box::new(client));
    }
    clients.push(server.conversation(Transport::Raw));
    // Enough that each of the two shards almost certainly has sessions.
    for transport in [Transport::HTTP; 8].as_flattened() {
        clients.push(server.conversation(*transport));
    }
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
    // Once in ten milliseconds, not once for each shard.
    for client in &mut clients {
        client.ping();
        assert_eq!(client.events(), []);
    }
}

/// One shard has the timer of the broadcasts. It keeps it for the subscribers of others, and the timer ends with the last
/// subscription and starts again with the next one.
#[test]
fn broadcasts_last_as_long_as_subscriptions_and_start_again() {
    let server = Server::start_with_clock(&[]);
    for round in 0..4 {
        let mut clients = server.spread(8);
        for client in &mut clients {
            client.subscribe("/clienttest/broadcast");
        }
        while !clients.is_empty() {
            server.advance(Duration::from_millis(10));
            for client in &mut clients {
                assert_eq!(client.text(), "/clienttest/broadcast:0=\"broadcast event\"");
                client.ping();
                assert_eq!(client.events(), [], "once in ten milliseconds");
            }
            clients.remove(0).unsubscribe("/clienttest/broadcast");
        }
        if round % 2 == 0 {
            server.advance(Duration::from_millis(10));
        }
    }
}

#[test]
fn close_closes() {
    let server = Server::start(&[]);
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        client.tell("/clienttest/close", "null");
        client.expect_closed(1000, "closed by the application");
    }
    for transport in Transport::HTTP {
        let mut client = server.http_client(transport);
        client.tell("/clienttest/close", "null");
        assert_eq!(client.ended(), Ended::Status(403), "{transport:?}");
    }
    server.eventually_is("http_sessions", 0);
    assert_eq!(server.eventually_is("connections", 0).value("closes_by_app"), 4);
}

#[test]
fn drop_callback_never_answers() {
    let server = Server::start_with_clock(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.ask("/clienttest/drop-callback", "1");
        client.ping();
        // An HTTP session without requests ends after ten seconds.
        let seconds = if Transport::HTTP.contains(&transport) { 5 } else { 30 };
        server.advance(Duration::from_secs(seconds));
        client.ping();
        assert!(client.answers().is_empty(), "{transport:?}");
    }
}

#[test]
fn echo_offers_a_callback_with_every_answer() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let mut answer = client.request_code("/clienttest/echo", "{\"a\": [1]}", 200);
        for number in 0..20 {
            assert_ne!(answer.callback, 0, "another callback is offered");
            let callback = format!("/qio/callback/{}", answer.callback);
            answer = client.request_code(&callback, &number.to_string(), 200);
            assert_eq!(answer.body["data"], number);
            client.request_code(&callback, "1", 404);
        }
    }
}

#[test]
fn error_returns_the_requested_code() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        for code in [201, 401, 404, 420, 500, 65535] {
            let answer = client.request_code(&format!("/clienttest/error/{code}"), "null", code);
            assert_eq!(answer.body["data"], "you requested an error?");
            assert_eq!(answer.body["err_msg"], format!("{code}s are fun!"));
        }
    }
}

#[test]
fn heartbeat_challenge_is_answered_when_its_heartbeat_is() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let challenge = client.ask("/clienttest/heartbeat-challenge", "null");
        let heartbeat = client.event();
        assert_eq!((heartbeat.path.as_str(), heartbeat.data.as_str()), ("/qio/heartbeat", "null"));
        assert_ne!(heartbeat.callback, 0);
        client.ping();
        assert!(client.answers().is_empty(), "answered too early");
        client.tell(&format!("/qio/callback/{}", heartbeat.callback), "null");
        assert_eq!(client.answer(challenge).code(), 200);
    }
}

#[test]
fn in_progress_is_decided_by_an_event() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let pending = client.ask("/qio/on", "\"/clienttest/in-progress\"");
        client.request_code("/qio/on", "\"/clienttest/in-progress\"", 202);
        assert!(client.answers().is_empty());
        client.request_code("/clienttest/in-progress", "null", 200);
        assert_eq!(client.answer(pending).code(), 200);
    }
}

#[test]
fn move_sends_the_client_elsewhere() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.tell("/clienttest/move", "\"other.example.com:1234\"");
        assert_eq!(client.text(), "/qio/move:0=\"other.example.com:1234\"");
        let ended = client.ended();
        match transport {
            Transport::Raw => assert_eq!(ended, Ended::Disconnected),
            Transport::WebSocket => assert!(matches!(ended, Ended::Close(1000, _)), "{ended:?}"),
            Transport::Poll | Transport::Stream => assert_eq!(ended, Ended::Status(403)),
        }
    }
}

#[test]
fn on_data_requires_its_extra() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
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
fn texts_that_only_a_client_library_rejects() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.tell("/clienttest/send-unsubscribed", "null");
        let event = client.event();
        assert_eq!(event.callback, 0);
        assert!(event.path.starts_with('/'), "{event:?}");
        client.tell("/clienttest/send-invalid", "null");
        assert_eq!(client.text(), "this is no event");
    }
}

/// Events of one client reach the others, over whichever transport each is connected.
#[test]
fn clients_of_all_transports_receive_each_others_events() {
    let server = Server::start(&[]);
    let mut clients = Transport::ALL.map(|transport| server.conversation(transport));
    clients.iter_mut().for_each(|client| client.subscribe("/relay/all"));
    // A line end within JSON would end an event of a poll or a stream. HTTP clients receive a space for it.
    clients[1].tell("/relay/all", "[1,\n2,\r\n3]");
    let received = clients.each_mut().map(|client| client.event().data);
    assert_eq!(received, ["[1,\n2,\r\n3]", "[1,\n2,\r\n3]", "[1, 2,  3]", "[1, 2,  3]"]);
    for sender in 0..clients.len() {
        clients[sender].tell("/relay/all", "\"é\"");
        clients.iter_mut().for_each(|client| assert_eq!(client.event().data, "\"é\""));
    }
}
