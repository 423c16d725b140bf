//! An HTTP client of the simulation: one session on several connections.

use super::socket::SimSocket;
use crate::protocol::testing::Random;
use crate::shard::testing::World;
use std::collections::{BTreeMap, VecDeque};

/// The maximum number of unanswered requests. It keeps early requests below the number that a session holds.
const UNANSWERED_MAX: usize = 6;

/// The number of connections for requests.
const CONNECTIONS: usize = 3;

/// An HTTP client with a session.
pub struct Browser {
    sid: u128,
    /// `true` if the order of the output is known: the requests have sequence numbers, or there is a stream.
    pub ordered: bool,
    stream: Option<HttpConnection>,
    connections: Vec<HttpConnection>,
    /// Events that are not in a request yet, one per line.
    unsent_events: String,
    /// The number of the next request, from 1.
    next_number: u64,
    /// The bodies of the responses received, by the number of their request.
    bodies: BTreeMap<u64, String>,
    /// Connections that were left open when the client stopped.
    abandoned: Vec<HttpConnection>,
}

/// A connection, and its unanswered requests.
struct HttpConnection {
    socket: SimSocket,
    input: Vec<u8>,
    requests: VecDeque<PendingRequest>,
}

struct PendingRequest {
    number: u64,
    text: String,
}

impl HttpConnection {
    fn open(world: &mut World, random: &mut Random) -> HttpConnection {
        let shard = random.below(world.shards.len());
        HttpConnection {
            socket: SimSocket::new(world.connect(shard)),
            input: Vec::new(),
            requests: VecDeque::new(),
        }
    }

    /// Receives input and returns the complete responses, each with its request.
    fn take_responses(&mut self, world: &mut World) -> Vec<(PendingRequest, u16, String)> {
        self.input.extend(world.take_bytes(self.socket.peer));
        let mut responses = Vec::new();
        while let Some((status, head_len, body_len)) = parse_head(&self.input) {
            let Some(body) = self.input.get(head_len..head_len + body_len) else { break };
            let body = String::from_utf8(body.to_vec()).unwrap();
            self.input.drain(..head_len + body_len);
            let request = self.requests.pop_front().expect("a response without a request");
            responses.push((request, status, body));
        }
        responses
    }
}

/// Parses the head of a response; returns the status, the length of the head and the length of the body.
fn parse_head(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_len) = response.parse(bytes).unwrap() else { return None };
    let length = response.headers.iter().find(|header| header.name == "Content-Length");
    let length = length.map_or("0", |header| std::str::from_utf8(header.value).unwrap());
    Some((response.code.unwrap(), head_len, length.parse().unwrap()))
}

impl Browser {
    /// Opens a session: a request is held, or a stream is open.
    pub fn open(world: &mut World, random: &mut Random) -> Browser {
        let mut browser = Browser {
            sid: u128::from(random.next()) << 64 | u128::from(random.next()),
            ordered: true,
            stream: None,
            connections: (0..CONNECTIONS).map(|_| HttpConnection::open(world, random)).collect(),
            unsent_events: String::new(),
            next_number: 1,
            bodies: BTreeMap::new(),
            abandoned: Vec::new(),
        };
        match random.below(3) {
            0 => browser.open_stream(world, random),
            index => browser.ordered = index == 1,
        }
        // Every connection sends a request, because a connection that sends nothing times out.
        for connection in 0..CONNECTIONS {
            browser.begin_request(connection);
            browser.send_all(world);
            world.run_until_idle();
        }
        browser.collect_responses(world);
        browser
    }

    fn open_stream(&mut self, world: &mut World, random: &mut Random) {
        let connection = HttpConnection::open(world, random);
        let sid = self.sid;
        let request = format!(
            "GET /?sid={sid:032x}&connect=true HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
        );
        world.send_bytes(connection.socket.peer, request.as_bytes());
        world.run_until_idle();
        let head = world.take_bytes(connection.socket.peer);
        assert!(head.ends_with(b"\r\n\r\n: quickio\n\n"), "{}", String::from_utf8_lossy(&head));
        self.stream = Some(connection);
    }

    /// Adds an event to the next request.
    pub fn queue_event(&mut self, event: &str) {
        self.unsent_events.push_str(event);
        self.unsent_events.push('\n');
    }

    /// Puts the queued events into a request on this connection.
    fn begin_request(&mut self, connection: usize) {
        let (sid, number) = (self.sid, self.next_number);
        self.next_number += 1;
        let body = std::mem::take(&mut self.unsent_events);
        let connect = if number == 1 { "&connect=true" } else { "" };
        let seq = if self.ordered { format!("&seq={number}") } else { String::new() };
        let text = format!(
            "POST /?sid={sid:032x}{connect}{seq} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let connection = &mut self.connections[connection];
        connection.socket.unsent.extend(text.as_bytes());
        connection.requests.push_back(PendingRequest { number, text });
    }

    /// Begins a request or not, at random, and sends a piece of random length of the unsent output.
    pub fn send_some(&mut self, world: &mut World, random: &mut Random) {
        self.collect_responses(world);
        let unanswered: usize = self.connections.iter().map(|connection| connection.requests.len()).sum();
        if unanswered < UNANSWERED_MAX && random.once_in(3) {
            // Events in requests without sequence numbers stay in order only on a single connection.
            let connection =
                if self.ordered || self.unsent_events.is_empty() { random.below(CONNECTIONS) } else { 0 };
            self.begin_request(connection);
        }
        self.connections[random.below(CONNECTIONS)].socket.send_some(world, random);
    }

    pub fn send_all(&mut self, world: &mut World) {
        if !self.unsent_events.is_empty() {
            self.begin_request(0);
        }
        self.connections.iter_mut().for_each(|connection| connection.socket.send_all(world));
    }

    pub fn toggle_reading(&mut self, world: &mut World, random: &mut Random) {
        let connection = random.below(CONNECTIONS + 1);
        let connection = if connection < CONNECTIONS {
            Some(&mut self.connections[connection])
        } else {
            self.stream.as_mut()
        };
        if let Some(HttpConnection { socket, .. }) = connection {
            socket.toggle_reading(world);
        }
    }

    pub fn resume_reading(&mut self, world: &mut World) {
        self.connections
            .iter_mut()
            .chain(&mut self.stream)
            .for_each(|connection| connection.socket.resume_reading(world));
    }

    /// Polls until a request is held, which means that no output is left, or until everything goes to the stream.
    pub fn poll_until_held(&mut self, world: &mut World) {
        for connection in (0..CONNECTIONS).cycle().take(10) {
            self.collect_responses(world);
            let waits = self.connections.iter().any(|connection| !connection.requests.is_empty());
            if waits || self.stream.is_some() {
                return;
            }
            self.begin_request(connection);
            self.send_all(world);
            world.run_until_idle();
        }
        panic!("every poll was answered: the output does not end");
    }

    /// Takes the events received, in order as far as the order is known.
    pub fn take_events(&mut self, world: &mut World) -> Vec<String> {
        self.collect_responses(world);
        let bodies = std::mem::take(&mut self.bodies);
        let Some(stream) = &mut self.stream else {
            return bodies
                .into_values()
                .flat_map(|body| body.lines().map(str::to_owned).collect::<Vec<_>>())
                .collect();
        };
        assert!(bodies.values().all(String::is_empty), "all output must go to the stream: {bodies:?}");
        let text = String::from_utf8(world.take_bytes(stream.socket.peer)).unwrap();
        assert!(text.is_empty() || text.ends_with("\n\n"), "an event is incomplete: {text}");
        let events = text.split_terminator("\n\n");
        events.map(|event| event.strip_prefix("data:").expect("an event").to_owned()).collect()
    }

    fn collect_responses(&mut self, world: &mut World) {
        for connection in &mut self.connections {
            for (request, status, body) in connection.take_responses(world) {
                assert_eq!(status, 200, "{}: {body}", request.text);
                assert!(self.bodies.insert(request.number, body).is_none(), "answered twice");
            }
        }
    }

    /// Breaks a connection while the shards are idle. Nothing may be lost, even if a request was held.
    pub fn break_some(&mut self, world: &mut World, random: &mut Random) {
        self.collect_responses(world);
        let index = random.below(CONNECTIONS);
        let replacement = HttpConnection::open(world, random);
        let broken = std::mem::replace(&mut self.connections[index], replacement);
        disconnect(world, random, &broken);
        if random.once_in(2) {
            world.run_until_idle();
        }
        assert!(broken.requests.len() <= 1 && broken.socket.unsent.is_empty() && broken.input.is_empty());
        match broken.requests.into_iter().next() {
            // The held request is repeated, as browsers do. Its events must not be handled again.
            Some(request) if self.ordered && random.once_in(2) => {
                let connection = &mut self.connections[(index + 1) % CONNECTIONS];
                connection.socket.unsent.extend(request.text.as_bytes());
                connection.requests.push_back(request);
                connection.socket.send_all(world);
                world.run_until_idle();
            }
            _ => {}
        }
        self.begin_request(index);
        self.send_all(world);
        if self.stream.is_some() && random.once_in(2) {
            let before = self.stream.take().expect("the stream was found above");
            self.open_stream(world, random);
            disconnect(world, random, &before);
        }
        world.run_until_idle();
        world.shards.iter_mut().for_each(|shard| shard.kernel_mut().unread_output.clear());
    }

    /// Stops the client. Each of its connections ends or is left open.
    pub fn leave(&mut self, world: &mut World, random: &mut Random) {
        let is_ended = random.once_in(3);
        if is_ended {
            self.queue_event("no event");
            self.send_all(world);
        }
        if self.stream.is_some() {
            // The end of a stream ends the session, and may overtake requests on other connections.
            world.run_until_idle();
        }
        let connections: Vec<HttpConnection> = self.connections.drain(..).chain(self.stream.take()).collect();
        for connection in connections {
            if !is_ended && random.once_in(3) {
                self.abandoned.push(connection);
            } else {
                disconnect(world, random, &connection);
            }
        }
    }

    /// Returns whether the client has connections.
    pub fn is_connected(&self) -> bool {
        !self.abandoned.is_empty() || !self.connections.is_empty()
    }

    /// Ends all connections of the client.
    pub fn close_connections(&mut self, world: &mut World) {
        for connection in self.connections.drain(..).chain(self.abandoned.drain(..)).chain(self.stream.take())
        {
            if !world.is_closed(connection.socket.peer) {
                world.set_reading(connection.socket.peer, true);
                world.end_stream(connection.socket.peer);
            }
        }
    }
}

/// Ends or resets a connection.
fn disconnect(world: &mut World, random: &mut Random, connection: &HttpConnection) {
    if random.once_in(2) {
        world.end_stream(connection.socket.peer);
    } else {
        world.reset(connection.socket.peer);
    }
}
