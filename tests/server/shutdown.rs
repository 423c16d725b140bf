//! SIGTERM and SIGINT: the server sends what is queued, closes its clients and exits with 0. A second signal ends it at
//! once.

use crate::support::Ended;
use crate::support::wire::Frame;
use crate::support::{Client, Conversation, Server, Transport};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::TcpStream;

#[test]
fn signals_end_the_server_in_order() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[]);
        let mut clients = server.spread(6);
        let mut raw = server.client(Transport::Raw);
        let mut half_open = Client::connect(server.address(), Transport::WebSocket);
        half_open.upgrade();
        for client in &mut clients {
            client.subscribe("/relay/last");
        }
        raw.request_code("/relay/last", "\"words\"", 200);
        let address = server.address().to_string();
        server.signal(signal);
        for client in &mut clients {
            assert_eq!(client.text(), "/relay/last:0=\"words\"");
            let Ended::Close(code, _) = client.ended() else { panic!("no close frame") };
            assert_eq!(code, 1001);
            client.try_send(&Frame::close(1001, "").bytes());
            client.expect_disconnect();
        }
        assert_eq!(raw.ended(), Ended::Disconnected);
        half_open.ended();
        drop((clients, raw, half_open)); // the server waits some time for the end of their streams
        assert_eq!(server.exit().code(), Some(0), "SIG{signal}");
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}

/// Each of many shards tells all of its clients, whose subscriptions end with them.
#[test]
fn many_shards_tell_thousands_of_clients() {
    const CLIENTS: usize = 2000;
    raise_descriptor_limit();
    let args = ["--shards", "12", "--shutdown-timeout", "120s", "--connections-per-address-max", "0"];
    let mut server = Server::start(&args);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.websocket()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe(&format!("/relay/room/{}", number % 50));
        client.subscribe("/relay/all");
    }
    server.signal("TERM");
    for client in &mut clients {
        let Ended::Close(1001, _) = client.ended() else { panic!("not told") };
        client.try_send(&Frame::close(1001, "").bytes());
    }
    for client in &mut clients {
        client.expect_disconnect();
    }
    drop(clients);
    assert_eq!(server.exit().code(), Some(0));
    let log = server.log_with("shutting down");
    assert!(!log.contains("shutdown-timeout has passed"), "a shard is left behind: {log}");
}

/// Raises the soft limit on open files, which is 1024 on most systems, to the hard limit.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

#[test]
fn the_wait_for_silent_clients_is_bounded() {
    let mut server = Server::start(&["--shutdown-timeout", "300ms"]);
    let mut silent: Vec<Client> = (0..4).map(|_| server.websocket()).collect();
    let _nothing_said = Client::connect(server.address(), Transport::Raw);
    server.signal("TERM");
    for client in &mut silent {
        let Ended::Close(1001, _) = client.ended() else { panic!("not told") };
    }
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn a_second_signal_exits_at_once() {
    let mut server = Server::start(&["--shutdown-timeout", "1h", "--close-timeout", "1h"]);
    let mut silent = server.websocket();
    server.signal("TERM");
    // The server waits for this client to answer the close frame, which it never does.
    let Ended::Close(1001, _) = silent.ended() else { panic!("not told") };
    // A reload would report to a service manager that the server is ready.
    server.signal("HUP");
    let log = server.log_with("SIGHUP ignored: the server is shutting down");
    assert!(!log.contains("the reload"), "{log}");
    server.signal("TERM");
    server.exit();
}

#[test]
fn an_idle_server_exits() {
    let mut server = Server::start(&[]);
    server.signal("TERM");
    assert_eq!(server.exit().code(), Some(0));
    let mut server = Server::start_with_clock(&[]);
    server.signal("INT");
    assert_eq!(server.exit().code(), Some(0), "with a clock that stands still, too");
}
