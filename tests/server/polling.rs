//! HTTP long polling and event streams (protocol.md, section 5): racing requests over many sockets and shards lose
//! nothing, duplicate nothing, and keep the order.

use crate::support::http::{Connection, Session};
use crate::support::{Client, Conversation, Server, Transport};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const SOCKETS: u64 = 12;
const REQUESTS: u64 = 600;
const BROADCASTS: u64 = 400;

fn session(number: u128) -> Session {
    Session(0x5e55_1011_0000_0000_0000_0000_0000_0000 | number)
}

/// The content of responses.
#[derive(Default, Debug)]
struct Received {
    /// The number of answers to each callback.
    answers: BTreeMap<u64, usize>,
    /// The data of the broadcasts to each path, in order.
    broadcasts: BTreeMap<String, Vec<u64>>,
}

impl Received {
    fn add(&mut self, body: &str) {
        for line in body.lines() {
            let (path, rest) = line.split_once(':').expect("an event");
            let (_, data) = rest.split_once('=').expect("an event");
            match path.strip_prefix("/qio/callback/") {
                Some(id) => {
                    assert_eq!(data, "{\"code\":200,\"data\":null}", "{line}");
                    *self.answers.entry(id.parse().unwrap()).or_default() += 1;
                }
                None => self.broadcasts.entry(path.into()).or_default().push(data.parse().unwrap()),
            }
        }
    }

    /// Returns whether some events of [`broadcast_numbers`] are missing. The last of them can still be in a queue between
    /// two shards although they have been answered.
    fn awaits_broadcasts(&self) -> bool {
        self.broadcasts.get("/relay/race").map_or(0, Vec::len) < BROADCASTS as usize
    }
}

/// Connects another client, which broadcasts numbers to a path and waits for the answer to each.
fn broadcast_numbers(address: &str, path: &str) {
    let mut other = Client::open(address, Transport::Raw);
    for number in 1..=BROADCASTS {
        other.request_code(path, &number.to_string(), 200);
    }
}

#[test]
fn requests_that_race_lose_nothing_and_duplicate_nothing() {
    let server = Server::start(&["--shards", "4"]);
    let session = session(1);
    let address = server.address();
    let mut first = Connection::open(address);
    let on = session.post("&connect=true", "/qio/on:0=\"/relay/race\"\n/qio/ping:1000000=");
    let mut all = Received::default();
    all.add(&first.request(on).body);
    let (received, next) = (Mutex::new(all), AtomicU64::new(1));
    let running = AtomicU64::new(SOCKETS);
    thread::scope(|scope| {
        let racer = || {
            let mut connection = Connection::open(address);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > REQUESTS {
                    break;
                }
                // Every third request is only a poll, which the server holds until another request or a broadcast.
                let events = format!("/qio/ping:{}=\n/relay/race/own:{}=1", number * 2, number * 2 + 1);
                let body = if number % 3 == 0 { "" } else { &events };
                let response = connection.request(session.post("", body));
                assert_eq!(response.head.status, 200);
                // The broadcasts within one response are in order, independently of other responses.
                let mut alone = Received::default();
                alone.add(&response.body);
                assert!(alone.broadcasts.values().all(|numbers| numbers.is_sorted()));
                received.lock().unwrap().add(&response.body);
            }
            running.fetch_sub(1, Ordering::Relaxed);
        };
        (0..SOCKETS).for_each(|_| drop(scope.spawn(racer)));
        scope.spawn(|| broadcast_numbers(address, "/relay/race"));
        // Requests that are still held after all others have finished are released.
        while running.load(Ordering::Relaxed) > 0 {
            let response = first.request(session.post("", "/qio/ping:1000001="));
            received.lock().unwrap().add(&response.body);
        }
    });
    let mut received = received.into_inner().unwrap();
    // The last output waits for a request.
    received.add(&first.request(session.post("", "/qio/ping:1000001=")).body);
    while received.awaits_broadcasts() {
        received.add(&first.request(session.post("", "")).body);
    }
    received.answers.retain(|id, _| *id < 1_000_000);
    let asked = (2..REQUESTS * 2 + 2).filter(|id| id / 2 % 3 != 0);
    let expected: BTreeMap<u64, usize> = asked.map(|id| (id, 1)).collect();
    assert_eq!(received.answers, expected, "each callback once");
    let numbers = received.broadcasts.get_mut("/relay/race").expect("broadcasts came");
    numbers.sort_unstable();
    assert_eq!(*numbers, (1..=BROADCASTS).collect::<Vec<_>>(), "each broadcast once");
}

#[test]
fn requests_with_a_seq_keep_the_order_in_both_directions() {
    const AT_ONCE: u64 = 6;
    let server = Server::start(&["--shards", "4"]);
    let session = session(2);
    let address = server.address();
    let mut first = Connection::open(address);
    let on = "/qio/on:0=\"/relay/race\"\n/qio/on:0=\"/relay/own\"\n/qio/ping:1000000=";
    assert_eq!(first.request(session.post("&connect=true&seq=1", on)).head.status, 200);
    // The responses, ordered by the `seq` of their requests.
    let responses: Mutex<BTreeMap<u64, String>> = Mutex::default();
    let next = AtomicU64::new(2);
    let done = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let racer = || {
            let mut connection = Connection::open(address);
            while !done.load(Ordering::Relaxed) {
                let seq = next.fetch_add(1, Ordering::Relaxed);
                let events = format!("/relay/own:0={0}\n/qio/ping:{0}=", seq);
                let response = connection.request(session.post(&format!("&seq={seq}"), &events));
                assert_eq!(response.head.status, 200, "{seq}");
                responses.lock().unwrap().insert(seq, response.body);
            }
        };
        let racers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(racer)).collect();
        broadcast_numbers(address, "/relay/race");
        done.store(true, Ordering::Relaxed);
        racers.into_iter().for_each(|racer| racer.join().unwrap());
        next.load(Ordering::Relaxed)
    });
    let body = first.request(session.post(&format!("&seq={last}"), "/qio/ping:1000001=")).body;
    let mut responses = responses.into_inner().unwrap();
    responses.insert(last, body);
    let mut received = Received::default();
    responses.values().for_each(|body| received.add(body));
    let mut seq = last;
    while received.awaits_broadcasts() {
        seq += 1;
        received.add(&first.request(session.post(&format!("&seq={seq}"), "")).body);
    }
    assert_eq!(
        received.broadcasts["/relay/race"],
        (1..=BROADCASTS).collect::<Vec<_>>(),
        "broadcasts in order"
    );
    assert_eq!(received.broadcasts["/relay/own"], (2..last).collect::<Vec<_>>(), "events in order");
    received.answers.remove(&1_000_001);
    assert_eq!(received.answers, (2..last).map(|id| (id, 1)).collect::<BTreeMap<_, _>>(), "answers once");
}

#[test]
fn a_stream_receives_the_output_of_racing_requests() {
    let server = Server::start(&["--shards", "4"]);
    let session = session(3);
    let address = server.address();
    let mut stream = Connection::open(address);
    stream.send(session.stream("&connect=true"));
    let head = stream.head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(stream.read_to("\n\n"), ": quickio\n\n");
    Connection::open(address).request(session.post("", "/qio/on:0=\"/relay/race\""));
    let next = AtomicU64::new(1);
    thread::scope(|scope| {
        for _ in 0..SOCKETS {
            scope.spawn(|| {
                let mut connection = Connection::open(address);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number > REQUESTS {
                        break;
                    }
                    let response = connection.request(session.post("", &format!("/qio/ping:{number}=")));
                    assert_eq!((response.head.status, response.body.as_str()), (200, ""));
                }
            });
        }
        scope.spawn(|| broadcast_numbers(address, "/relay/race"));
    });
    Connection::open(address).request(session.post("", "/qio/ping:1000000="));
    let text = stream.read_to("/qio/callback/1000000:0={\"code\":200,\"data\":null}\n\n");
    let mut received = Received::default();
    for event in text.split_terminator("\n\n") {
        received.add(event.strip_prefix("data:").expect("an event of a stream"));
    }
    while received.awaits_broadcasts() {
        received.add(stream.read_to("\n\n").trim_end().strip_prefix("data:").expect("an event of a stream"));
    }
    assert_eq!(received.broadcasts["/relay/race"], (1..=BROADCASTS).collect::<Vec<_>>());
    received.answers.remove(&1_000_000);
    assert_eq!(received.answers, (1..=REQUESTS).map(|id| (id, 1)).collect::<BTreeMap<_, _>>());
}
