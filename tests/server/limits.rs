//! The limits that are settings: each holds, is counted when it is reached, and lets go again.

use crate::support::{Client, Server, Wire};
use std::net::{IpAddr, Ipv4Addr};

#[test]
fn clients_max() {
    let server = Server::start(&["--clients-max", "5"]);
    let mut clients: Vec<Client> = (0..5).map(|_| server.websocket()).collect();
    for refused in 1..=3 {
        let mut one_more = Client::connect(server.address(), Wire::WebSocket);
        one_more.expect_gone();
        assert_eq!(server.stats().value("connections_refused_limit"), refused);
    }
    clients.iter_mut().for_each(Client::ping);
    clients.pop();
    server.eventually_is("connections", 4);
    clients.push(server.websocket());
    clients.iter_mut().for_each(Client::ping);
    // Those that have said nothing yet count too.
    clients.truncate(3);
    server.eventually_is("connections", 3);
    let _silent: Vec<Client> = (0..2).map(|_| Client::connect(server.address(), Wire::Raw)).collect();
    server.eventually_is("connections", 5);
    Client::connect(server.address(), Wire::Raw).expect_gone();
}

#[test]
fn connections_per_address_max() {
    // Over all shards together.
    let server = Server::start(&["--connections-per-address-max", "3"]);
    let address = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let open = |last| {
        let mut client = Client::connect_from(address(last), server.address(), Wire::WebSocket);
        client.shake_hands();
        client
    };
    for last in [2, 3] {
        let mut clients: Vec<Client> = (0..3).map(|_| open(last)).collect();
        for _ in 0..4 {
            Client::connect_from(address(last), server.address(), Wire::WebSocket).expect_gone();
        }
        clients.pop();
        server.eventually_is("connections", 2);
        clients.push(open(last));
        Client::connect_from(address(last), server.address(), Wire::WebSocket).expect_gone();
        clients.iter_mut().for_each(Client::ping);
        drop(clients);
        server.eventually_is("connections", 0);
    }
    assert_eq!(server.stats().value("connections_refused_address"), 10);
}

/// protocol.md, section 4: below the pressure any client may take more; above, only one that holds few.
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
    assert_eq!(taken.iter().sum::<usize>(), 20, "the total is the total: {taken:?}");
    assert_eq!(taken[5], 0);
    let stats = server.stats();
    assert_eq!(stats.value("subscriptions"), 20);
    assert_eq!(stats.value("subscriptions_refused_limit"), 6);
    // One refused by the limit is not subscribed, and asking for what one has is free.
    clients[5].request_code("/relay/a/0", "1", 200);
    clients[5].ping();
    assert_eq!(clients[5].events(), []);
    clients[0].subscribe("/relay/a/0");

    // What is given back can be taken again, by whoever holds few.
    clients[1].unsubscribe("/relay/a/0");
    assert_eq!(take_all(&mut clients[0], "b"), 0);
    assert_eq!(take_all(&mut clients[5], "b"), 1);
    drop(clients.remove(0));
    server.eventually_is("subscriptions", 20 - taken[0] as u64);
    assert!(take_all(&mut clients[4], "b") > 0);
}

/// Subscribes to one path below `/relay/BRANCH` after the other until that is refused; returns how many were accepted.
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
