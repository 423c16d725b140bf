//! protocol.md, section 8, over polls and event streams: the same as over any other protocol.

use crate::support::http_client::{HttpClient, Way};
use crate::support::{Server, Wire};
use std::time::Duration;

fn open(server: &Server, way: Way) -> HttpClient {
    HttpClient::open(server.address(), way)
}

#[test]
fn broadcast_comes_every_ten_milliseconds() {
    let server = Server::start_with_clock(&[]);
    // Sessions on both shards, most surely.
    let mut clients: Vec<HttpClient> = (0..8).flat_map(|_| Way::ALL).map(|way| open(&server, way)).collect();
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
    for client in &mut clients {
        client.ping();
        assert_eq!(client.events(), [], "once in ten milliseconds");
    }
}

#[test]
fn close_closes() {
    let server = Server::start(&[]);
    for way in Way::ALL {
        let mut client = open(&server, way);
        client.tell("/clienttest/close", "null");
        assert_eq!(client.ended(), 403, "{way:?}");
    }
    assert_eq!(server.eventually_is("http_sessions", 0).value("closes_by_app"), 2);
}

#[test]
fn drop_callback_never_answers() {
    let server = Server::start_with_clock(&[]);
    for way in Way::ALL {
        let mut client = open(&server, way);
        client.ask("/clienttest/drop-callback", "1");
        client.ping();
        server.advance(Duration::from_secs(5));
        client.ping();
        assert!(client.answers().is_empty());
    }
}

#[test]
fn echo_echoes_without_end() {
    let server = Server::start(&[]);
    for way in Way::ALL {
        let mut client = open(&server, way);
        let mut answer = client.request_code("/clienttest/echo", "{\"a\": [1]}", 200);
        for number in 0..20 {
            assert_ne!(answer.callback, 0, "another callback is offered");
            let fired = format!("/qio/callback/{}", answer.callback);
            answer = client.request_code(&fired, &number.to_string(), 200);
            assert_eq!(answer.body["data"], number);
            client.request_code(&fired, "1", 404);
        }
    }
}

#[test]
fn errors_are_those_that_were_asked_for() {
    let server = Server::start(&[]);
    for way in Way::ALL {
        let mut client = open(&server, way);
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
    for way in Way::ALL {
        let mut client = open(&server, way);
        let question = client.ask("/clienttest/heartbeat-challenge", "null");
        let heartbeat = client.event();
        assert_eq!((heartbeat.path.as_str(), heartbeat.data.as_str()), ("/qio/heartbeat", "null"));
        client.ping();
        assert!(client.answers().is_empty(), "answered too early");
        client.tell(&format!("/qio/callback/{}", heartbeat.callback), "null");
        assert_eq!(client.answer(question).code(), 200);
    }
}

#[test]
fn in_progress_is_decided_by_an_event() {
    let server = Server::start(&[]);
    for way in Way::ALL {
        let mut client = open(&server, way);
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
    for way in Way::ALL {
        let mut client = open(&server, way);
        client.tell("/clienttest/move", "\"other.example.com:1234\"");
        assert_eq!(client.text(), "/qio/move:0=\"other.example.com:1234\"");
        assert_eq!(client.ended(), 403);
    }
}

#[test]
fn on_data_wants_its_extra() {
    let server = Server::start(&[]);
    for way in Way::ALL {
        let mut client = open(&server, way);
        for wrong in ["\"/clienttest/on-data\"", "[\"/clienttest/on-data\",1]"] {
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
    for way in Way::ALL {
        let mut client = open(&server, way);
        client.tell("/clienttest/send-unsubscribed", "null");
        assert_eq!(client.event().callback, 0);
        client.tell("/clienttest/send-invalid", "null");
        assert_eq!(client.text(), "this is no event");
    }
}

/// What one client sends reaches the others, whatever each of them speaks.
#[test]
fn clients_of_all_protocols_hear_each_other() {
    let server = Server::start(&[]);
    let mut sockets = Wire::ALL.map(|wire| server.client(wire));
    let mut sessions = Way::ALL.map(|way| open(&server, way));
    sockets.iter_mut().for_each(|client| client.subscribe("/relay/all"));
    sessions.iter_mut().for_each(|client| client.subscribe("/relay/all"));
    // Line ends in JSON would be the end of an event in both of HTTP's ways.
    sockets[1].tell("/relay/all", "[1,\n2,\r\n3]");
    for client in &mut sockets {
        assert_eq!(client.event().data, "[1,\n2,\r\n3]");
    }
    for client in &mut sessions {
        assert_eq!(client.event().data, "[1, 2,  3]");
    }
    for sender in 0..2 {
        sessions[sender].tell("/relay/all", "\"é\"");
        sockets.iter_mut().for_each(|client| assert_eq!(client.event().data, "\"é\""));
        sessions.iter_mut().for_each(|client| assert_eq!(client.event().data, "\"é\""));
    }
}
