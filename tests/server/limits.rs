//! The limits, most of them settings: each holds, is counted when it is reached, and can be used again afterwards.

use crate::support::http;
use crate::support::http_client::new_session;
use crate::support::server::{BINARY, command};
use crate::support::wire::Frame;
use crate::support::{Client, Conversation, Server, Transport};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Sends a handshake on a connection that is over a limit. Asserts that it is refused with a status and a reason, and
/// that the connection ends in order.
#[track_caller]
fn assert_refused(mut client: Client, request: &str, status: u16, reason: &str) {
    client.send(request.as_bytes());
    let head = client.head();
    assert_eq!((head.status, head.header("connection")), (status, Some("close")), "{head:?}");
    assert_eq!(head.header("retry-after"), Some("10"), "{head:?}");
    assert_eq!(String::from_utf8(client.rest()).unwrap(), format!("{reason}\n"));
}

#[test]
fn clients_max() {
    let server = Server::start(&["--clients-max", "5"]);
    let upgrade = http::upgrade("Sec-WebSocket-Protocol: quickio\r\n");
    let poll = new_session().post("&connect=true", "/qio/ping:1=");
    let mut clients: Vec<Client> = (0..5).map(|_| server.websocket()).collect();
    for (refused, request) in (1..).zip([&upgrade, &poll, &upgrade]) {
        let one_more = Client::connect(server.address(), Transport::Raw);
        assert_refused(one_more, request, 503, "the server is full");
        assert_eq!(server.stats().value("connections_refused_limit"), refused);
    }
    let mut raw = Client::connect(server.address(), Transport::Raw);
    raw.send(b"/qio/ohai");
    raw.expect_disconnect();
    clients.iter_mut().for_each(Client::ping);
    clients.pop();
    server.eventually_is("connections", 4);
    clients.push(server.websocket());
    clients.iter_mut().for_each(Client::ping);
    // Connections that have sent nothing yet count, too.
    clients.truncate(3);
    server.eventually_is("connections", 3);
    let _silent: Vec<Client> = (0..2).map(|_| Client::connect(server.address(), Transport::Raw)).collect();
    server.eventually_is("connections", 5);
    assert_refused(Client::connect(server.address(), Transport::Raw), &upgrade, 503, "the server is full");
}

/// An address that connects in a loop is answered a few times at once, and closed otherwise. Others still get an answer.
#[test]
fn a_flood_of_one_address_is_refused_without_harm_to_others() {
    let server = Server::start(&["--clients-max", "3", "--shards", "1"]);
    let upgrade = http::upgrade("Sec-WebSocket-Protocol: quickio\r\n");
    let mut clients: Vec<Client> = (0..3).map(|_| server.websocket()).collect();
    let flood: Vec<Client> = (0..500).map(|_| Client::connect(server.address(), Transport::Raw)).collect();
    let stats = server.eventually_is("connections_refused_limit", 500);
    assert!(stats.value("connections_refusing") <= 8 && stats.value("connections") == 3);
    for last in 2..40 {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let honest = Client::connect_from(address, server.address(), Transport::Raw);
        assert_refused(honest, &upgrade, 503, "the server is full");
    }
    drop(flood);
    clients.iter_mut().for_each(Client::ping);
    drop(clients);
    server.eventually_is("connections", 0);
    server.assert_serves();
    let log = server.log_with("clients are connected (clients-max)");
    assert!(log.lines().count() < 5, "{log}");
}

#[test]
fn connections_per_address_max() {
    // The limit is that of all shards together.
    let server = Server::start(&["--connections-per-address-max", "3"]);
    let address = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let upgrade = http::upgrade("Sec-WebSocket-Protocol: quickio\r\n");
    let connect = |last| Client::connect_from(address(last), server.address(), Transport::WebSocket);
    let open = |last| {
        let mut client = connect(last);
        client.shake_hands();
        client
    };
    for last in [2, 3] {
        let mut clients: Vec<Client> = (0..3).map(|_| open(last)).collect();
        for _ in 0..4 {
            assert_refused(connect(last), &upgrade, 429, "too many connections from this address");
        }
        // A session counts, too.
        clients.pop();
        server.eventually_is("connections", 2);
        clients.push(open(last));
        let poll = new_session().post("&connect=true", "/qio/ping:1=");
        assert_refused(connect(last), &poll, 429, "too many connections from this address");
        clients.iter_mut().for_each(Client::ping);
        drop(clients);
        server.eventually_is("connections", 0);
    }
    assert_eq!(server.stats().value("connections_refused_address"), 10);
}

/// Behind a trusted proxy, clients are limited and logged by the addresses that it tells. Nobody believes other peers.
#[test]
fn trusted_proxies_tell_the_addresses_of_their_clients() {
    let limits = ["--connections-per-address-max", "2", "--trusted-proxies", "127.0.0.1,10.0.0.0/8"];
    let server = Server::start(&limits);
    let upgrade = |client: &str| {
        http::upgrade(&format!("Sec-WebSocket-Protocol: quickio\r\nX-Forwarded-For: {client}, 10.0.0.7\r\n"))
    };
    let connect = |source: u8, client: &str| {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, source));
        let mut one = Client::connect_from(source, server.address(), Transport::WebSocket);
        one.send(upgrade(client).as_bytes());
        one
    };
    let open = |client: &str| {
        let mut one = connect(1, client);
        assert_eq!(one.head().status, 101);
        one.send(&Frame::text("/qio/ohai").bytes());
        assert_eq!(one.text(), "/qio/ohai");
        one
    };
    // The proxy itself has any number of connections.
    let mut clients: Vec<Client> =
        (1..6).flat_map(|last| [last, last]).map(|last| open(&format!("192.0.2.{last}"))).collect();
    let mut third = connect(1, "192.0.2.9, 192.0.2.1");
    assert_eq!(third.head().status, 101);
    third.expect_closed(1013, "too many clients");
    drop(third);
    clients.iter_mut().for_each(Client::ping);
    drop(clients.remove(0));
    server.eventually_is("connections", 9);
    clients.push(open("192.0.2.1"));
    // A peer that is no proxy has its own address, whatever it writes.
    let mut others: Vec<Client> = (1..3).map(|last| connect(2, &format!("192.0.2.1{last}"))).collect();
    others.iter_mut().for_each(|other| assert_eq!(other.head().status, 101));
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let forger = Client::connect_from(source, server.address(), Transport::WebSocket);
    assert_refused(forger, &upgrade("192.0.2.13"), 429, "too many connections from this address");
    server.log_with("peer=192.0.2.1 ");
}

/// protocol.md, section 4: below the pressure any client may subscribe to more; above it, only a client with few
/// subscriptions.
#[test]
fn subscriptions_are_shared_fairly() {
    let server = Server::start(&[
        "--clients-subs-total",
        "20",
        "--clients-subs-pressure",
        "50",
        "--clients-subs-min",
        "3",
    ]);
    let mut clients = server.spread(6);
    clients.truncate(6);
    let taken: Vec<usize> = clients.iter_mut().map(|client| take_all(client, "a")).collect();
    assert!((10..=11).contains(&taken[0]), "the first takes up to the pressure: {taken:?}");
    assert_eq!(taken[1..4], [3, 3, 3], "{taken:?}");
    assert_eq!(taken.iter().sum::<usize>(), 20, "the total is reached exactly: {taken:?}");
    assert_eq!(taken[5], 0);
    let stats = server.stats();
    assert_eq!(stats.value("subscriptions"), 20);
    assert_eq!(stats.value("subscriptions_refused_limit"), 6);
    // A client that was refused by the limit is not subscribed. Subscribing again to the same path is free.
    clients[5].request_code("/relay/a/0", "1", 200);
    clients[5].ping();
    assert_eq!(clients[5].events(), []);
    clients[0].subscribe("/relay/a/0");

    // A subscription that was given up can be taken by a client that has few.
    clients[1].unsubscribe("/relay/a/0");
    assert_eq!(take_all(&mut clients[0], "b"), 0);
    assert_eq!(take_all(&mut clients[5], "b"), 1);
    drop(clients.remove(0));
    server.eventually_is("subscriptions", 20 - taken[0] as u64);
    assert!(take_all(&mut clients[4], "b") > 0);
}

/// Subscribes to paths below `/relay/BRANCH`, one after the other, until one is refused. Returns the number of accepted
/// ones.
fn take_all(client: &mut Client, branch: &str) -> usize {
    let mut taken = 0;
    for path in 0.. {
        let answer = client.request("/qio/on", &format!("\"/relay/{branch}/{path}\""));
        match answer.code() {
            200 => taken += 1,
            420 => return taken,
            _ => panic!("{}", answer.text),
        }
        assert!(path < 100, "no limit");
    }
    taken
}

/// The kernel's limit: a ring holds as many sockets as a process may have descriptors. Whoever comes when all places are
/// taken waits in the backlog, without a reset and without a flood of log lines.
#[test]
fn connections_wait_for_a_place_in_the_ring() {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", BINARY]);
    limited.args(command(BINARY, &["--shards", "1"]).get_args());
    let server = Server::launch(limited);
    let mut first = server.websocket();
    let mut flood: Vec<Client> =
        (0..150).map(|_| Client::connect(server.address(), Transport::WebSocket)).collect();
    let stats = server.eventually("all places taken", |stats| stats.value("accepts_paused") > 0);
    assert!((60..=64).contains(&stats.value("connections")), "{}", stats.value("connections"));
    first.ping();
    // Clients that leave make room for those that wait, until the last of them has been served.
    let mut served = 0;
    while !flood.is_empty() {
        let mut clients = flood.drain(..flood.len().min(30)).collect::<Vec<_>>();
        for client in &mut clients {
            client.shake_hands();
            client.ping();
            served += 1;
        }
    }
    assert_eq!(served, 150);
    server.eventually_is("connections", 1);
    server.assert_serves();
    first.ping();
    let stats = server.stats();
    assert_eq!(stats.value("connections_refused_descriptors") + stats.value("accept_errors"), 0);
    let lines =
        server.log_with("places of the shard are taken").matches("places of the shard are taken").count();
    assert!((1..=2).contains(&lines), "{lines} lines");
}

/// A ring between two shards that stays full: the sender is held back. Nothing is lost, and the order is kept.
#[test]
fn a_full_mesh_holds_the_sender_back() {
    const EVENTS: u64 = 20_000;
    let server =
        Server::start_with_clock(&["--mesh-ring-messages", "8", "--mesh-overflow-bytes-max", "65536"]);
    let mut clients = server.spread(4);
    for client in &mut clients {
        client.subscribe("/relay/mesh");
    }
    let burst: Vec<u8> =
        (0..EVENTS).flat_map(|event| clients[0].framed(format!("/relay/mesh:0={event}"))).collect();
    clients[0].send(&burst);
    clients[0].ping();
    let stats = server.eventually("all broadcasts received by the other shard", |stats| {
        stats.value("mesh_sent") == stats.value("mesh_received")
    });
    assert_eq!(stats.value("mesh_refused"), 0);
    println!("paused {} times", stats.value("inputs_paused"));
    for client in &mut clients {
        client.ping();
        let events: Vec<u64> =
            client.events().iter().map(|event| event.data.parse().expect("a number")).collect();
        assert!(events.into_iter().eq(0..EVENTS), "lost, out of order, or received twice");
    }
    server.assert_serves();
}

/// One publisher floods a path with subscribers on both shards. The events of another one reach their own subscribers: each of
/// them, in order. The flood waits for its subscribers, which this machine may let run late: what they have not read fits into
/// their outboxes (1 MiB, in which each event takes less than 200 bytes).
#[test]
fn a_flood_loses_nothing_of_others() {
    const HONEST: u64 = 100;
    const BURST: usize = 1000;
    const UNREAD_MAX: usize = 5 * BURST;
    let server =
        Server::start_with_clock(&["--mesh-ring-messages", "8", "--mesh-overflow-bytes-max", "65536"]);
    let mut drains = server.spread(2);
    for drain in &mut drains {
        drain.subscribe("/relay/flood");
    }
    let mut readers = server.spread(2);
    for reader in &mut readers {
        reader.subscribe("/relay/honest");
    }
    let done = AtomicBool::new(false);
    let received: Vec<AtomicUsize> = drains.iter().map(|_| AtomicUsize::new(0)).collect();
    let all_received =
        || received.iter().map(|received| received.load(Ordering::Relaxed)).min().expect("there are drains");
    let mut flooder = server.websocket();
    let mut honest = server.websocket();
    std::thread::scope(|scope| {
        for (drain, received) in drains.iter_mut().zip(&received) {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    drain.request_code("/qio/ping", "", 200);
                    received.fetch_add(drain.events().len(), Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let burst = flooder.framed("/relay/flood:0=1").repeat(BURST);
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                if sent + BURST - all_received() <= UNREAD_MAX {
                    flooder.send(&burst);
                    sent += BURST;
                } else {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        });
        for number in 0..HONEST {
            honest.request_code("/relay/honest", &number.to_string(), 200);
        }
        done.store(true, Ordering::Relaxed);
    });
    flooder.ping();
    let stats = server.stats();
    println!("{} pauses, {} overflowed", stats.value("inputs_paused"), stats.value("mesh_overflowed"));
    assert_eq!(stats.value("mesh_refused"), 0);
    for reader in &mut readers {
        reader.ping();
        let numbers =
            reader.events().iter().map(|event| event.data.parse().expect("a number")).collect::<Vec<u64>>();
        assert!(numbers.iter().copied().eq(0..HONEST), "{numbers:?}");
    }
    server.assert_serves();
}
