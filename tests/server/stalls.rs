//! Stalls: the process of the server is stopped (SIGSTOP), as in a paused container or virtual machine. What peers and
//! workers have sent meanwhile is handled before anything is too late.

use crate::support::http::{self, Session};
use crate::support::{Client, Conversation, Server, Transport, wire};
use std::thread::sleep;
use std::time::Duration;

/// Longer than the timeouts of these tests, which are one second unless they say otherwise.
const STOP: Duration = Duration::from_millis(2500);

fn stopped(server: &Server, meanwhile: impl FnOnce()) {
    stopped_for(STOP, server, meanwhile);
}

fn stopped_for(time: Duration, server: &Server, meanwhile: impl FnOnce()) {
    server.signal("STOP");
    meanwhile();
    sleep(time);
    server.signal("CONT");
}

#[test]
fn messages_handshakes_and_polls_that_arrive_during_a_stop_are_served() {
    const EACH: usize = 100;
    let server = Server::start(&["--timeout", "1s", "--poll-interval", "900ms", "--poll-slack", "100ms"]);
    let address = server.address();
    let ping = wire::raw("/qio/ping:1=null");
    let mut messages: Vec<Client> = (0..EACH).map(|_| server.client(Transport::Raw)).collect();
    let mut handshakes: Vec<Client> = (0..EACH).map(|_| Client::connect(address, Transport::Raw)).collect();
    let sessions: Vec<Session> = (1..=EACH as u128).map(Session).collect();
    let mut polls: Vec<http::Connection> = sessions.iter().map(|_| http::Connection::open(address)).collect();
    for (poll, session) in polls.iter_mut().zip(&sessions) {
        let created = poll.request(session.post("&connect=true", "/qio/ping:1=null"));
        assert_eq!(created.head.status, 200);
    }
    for client in &mut messages {
        client.send(&ping[..7]);
    }
    for client in &mut handshakes {
        client.send(b"/qio");
    }
    // The shards have read the halves, and begun to wait.
    sleep(Duration::from_millis(200));
    stopped(&server, || {
        for client in &mut messages {
            client.send(&ping[7..]);
        }
        for client in &mut handshakes {
            client.send(b"/ohai");
        }
        for (poll, session) in polls.iter_mut().zip(&sessions) {
            poll.send(session.post("", "/qio/ping:2=null"));
        }
    });
    for client in &mut messages {
        client.expect_bytes(&wire::raw(r#"/qio/callback/1:0={"code":200,"data":null}"#));
    }
    for client in &mut handshakes {
        client.expect_bytes(b"/qio/ohai");
    }
    for poll in &mut polls {
        assert_eq!(poll.response().head.status, 200);
    }
    let stats = server.stats();
    for timeouts in ["timeouts_message", "timeouts_handshake", "timeouts_session"] {
        assert_eq!(stats.value(timeouts), 0, "{timeouts}");
    }
    server.assert_serves();
}

/// A storm of connections on more shards than cores. The server is stopped in the middle of it for longer than `timeout`:
/// some have connected before, others connect meanwhile, and all of them send their handshake meanwhile.
#[test]
fn nobody_in_a_storm_is_late_because_the_server_was_stopped() {
    const EACH: usize = 200;
    // Long enough for this test to connect the first half on a loaded machine.
    let server = Server::start(&["--timeout", "4s", "--shards", "6"]);
    let connect = || Client::connect(server.address(), Transport::Raw);
    let mut silent = connect();
    let mut storm: Vec<Client> = (0..EACH).map(|_| connect()).collect();
    stopped_for(Duration::from_secs(5), &server, || {
        storm.extend((0..EACH).map(|_| connect()));
        storm.iter_mut().for_each(|client| client.send(b"/qio/ohai"));
    });
    for client in &mut storm {
        client.expect_bytes(b"/qio/ohai");
    }
    silent.expect_disconnect();
    assert_eq!(server.stats().value("timeouts_handshake"), 1, "only the one that has sent nothing");
    server.assert_serves();
}

/// The time is over at once after the peers have sent their handshakes: what is in the sockets by then was sent in time,
/// although the server reads only some of it in each turn.
#[test]
fn what_was_sent_before_the_time_is_over_is_in_time() {
    const EACH: usize = 150;
    let server = Server::start_with_clock(&[]);
    for round in 1..=4 {
        let mut storm: Vec<Client> =
            (0..EACH).map(|_| Client::connect(server.address(), Transport::Raw)).collect();
        let silent = Client::connect(server.address(), Transport::Raw);
        server.eventually_is("connections", EACH as u64 + 1);
        storm.iter_mut().for_each(|client| client.send(b"/qio/ohai"));
        server.advance(Duration::from_secs(10));
        for client in &mut storm {
            client.expect_bytes(b"/qio/ohai");
        }
        assert_eq!(server.stats().value("timeouts_handshake"), round);
        drop((storm, silent));
        server.eventually_is("connections", 0);
    }
}

#[test]
fn answers_of_workers_that_arrive_during_a_stop_are_delivered() {
    let app = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/slow.py");
    let server = Server::start(&["--app", app, "--worker-request-timeout", "1s", "--worker-timeout", "1s"]);
    let mut clients: Vec<Client> = (0..20).map(|_| server.websocket()).collect();
    for client in &mut clients {
        let event = client.framed("/slow:1=null");
        client.send(&event);
    }
    server.eventually("all events sent to the worker", |stats| stats.value("worker_requests") == 20);
    stopped(&server, || ());
    for client in &mut clients {
        assert_eq!(client.next_text().expect("an answer"), r#"/qio/callback/1:0={"code":200,"data":7}"#);
    }
    let stats = server.stats();
    for counter in ["worker_requests_timed_out", "workers_hung", "workers_crashed"] {
        assert_eq!(stats.value(counter), 0, "{counter}");
    }
}
