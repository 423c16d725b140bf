//! A client of HTTP in the simulation: one session, several connections.

use super::Socket;
use crate::protocol::testing::Random;
use crate::shard::testing::World;
use std::collections::{BTreeMap, VecDeque};

/// Requests that are not answered, at most: those that come too early are fewer than a session keeps.
const UNANSWERED_MAX: usize = 6;

/// Connections for requests.
const LINES: usize = 3;

/// A client that has a session.
pub struct Browser {
    sid: u128,
    /// Its requests state their place, so it knows in which order responses belong; or it has a stream.
    pub ordered: bool,
    stream: Option<Line>,
    lines: Vec<Line>,
    /// Events that are in no request yet.
    unsaid: String,
    /// The number of its next request; from 1.
    next: u64,
    /// The bodies of responses, by the number of their request.
    bodies: BTreeMap<u64, String>,
    left: Vec<Line>,
}

/// A connection, and the requests on it that were not answered.
struct Line {
    socket: Socket,
    input: Vec<u8>,
    requests: VecDeque<Request>,
}

struct Request {
    number: u64,
    text: String,
}

impl Line {
    fn open(world: &mut World, random: &mut Random) -> Line {
        let shard = random.below(world.shards.len());
        Line { socket: Socket::new(world.connect(shard)), input: Vec::new(), requests: VecDeque::new() }
    }

    /// Takes what came; the responses that are whole, with the requests that they are for.
    fn take_responses(&mut self, world: &mut World) -> Vec<(Request, u16, String)> {
        self.input.extend(world.take_bytes(self.socket.at));
        let mut responses = Vec::new();
        while let Some((status, head_len, body_len)) = head(&self.input) {
            let Some(body) = self.input.get(head_len..head_len + body_len) else { break };
            let body = String::from_utf8(body.to_vec()).unwrap();
            self.input.drain(..head_len + body_len);
            let request = self.requests.pop_front().expect("a response without a request");
            responses.push((request, status, body));
        }
        responses
    }
}

/// Status, bytes of the head, bytes of the body.
fn head(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_len) = response.parse(bytes).unwrap() else { return None };
    let length = response.headers.iter().find(|header| header.name == "Content-Length");
    let length = length.map_or("0", |header| std::str::from_utf8(header.value).unwrap());
    Some((response.code.unwrap(), head_len, length.parse().unwrap()))
}

impl Browser {
    /// A client whose session is there: a request of it is held, or its stream is open.
    pub fn open(world: &mut World, random: &mut Random) -> Browser {
        let mut browser = Browser {
            sid: u128::from(random.next()) << 64 | u128::from(random.next()),
            ordered: true,
            stream: None,
            lines: (0..LINES).map(|_| Line::open(world, random)).collect(),
            unsaid: String::new(),
            next: 1,
            bodies: BTreeMap::new(),
            left: Vec::new(),
        };
        match random.below(3) {
            0 => browser.open_stream(world, random),
            which => browser.ordered = which == 1,
        }
        // So that none of them is one that never says anything.
        for line in 0..LINES {
            browser.request(line);
            browser.send_all(world);
            world.run_until_idle();
        }
        browser.collect(world);
        browser
    }

    fn open_stream(&mut self, world: &mut World, random: &mut Random) {
        let line = Line::open(world, random);
        let sid = self.sid;
        let request = format!(
            "GET /?sid={sid:032x}&connect=true HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
        );
        world.send_bytes(line.socket.at, request.as_bytes());
        world.run_until_idle();
        let head = world.take_bytes(line.socket.at);
        assert!(head.ends_with(b"\r\n\r\n: quickio\n\n"), "{}", String::from_utf8_lossy(&head));
        self.stream = Some(line);
    }

    pub fn say(&mut self, event: &str) {
        self.unsaid.push_str(event);
        self.unsaid.push('\n');
    }

    /// Puts what was said into a request of this line.
    fn request(&mut self, line: usize) {
        let (sid, number) = (self.sid, self.next);
        self.next += 1;
        let body = std::mem::take(&mut self.unsaid);
        let connect = if number == 1 { "&connect=true" } else { "" };
        let seq = if self.ordered { format!("&seq={number}") } else { String::new() };
        let text = format!(
            "POST /?sid={sid:032x}{connect}{seq} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let line = &mut self.lines[line];
        line.socket.unsent.extend(text.as_bytes());
        line.requests.push_back(Request { number, text });
    }

    /// Makes a request, or sends a piece of one, cut anywhere.
    pub fn send_some(&mut self, world: &mut World, random: &mut Random) {
        self.collect(world);
        let unanswered: usize = self.lines.iter().map(|line| line.requests.len()).sum();
        if unanswered < UNANSWERED_MAX && random.once_in(3) {
            // Events of requests that state no place must go by one connection to stay in order.
            let line = if self.ordered || self.unsaid.is_empty() { random.below(LINES) } else { 0 };
            self.request(line);
        }
        self.lines[random.below(LINES)].socket.send_some(world, random);
    }

    pub fn send_all(&mut self, world: &mut World) {
        if !self.unsaid.is_empty() {
            self.request(0);
        }
        self.lines.iter_mut().for_each(|line| line.socket.send_all(world));
    }

    pub fn stop_or_go_on_reading(&mut self, world: &mut World, random: &mut Random) {
        let line = random.below(LINES + 1);
        let line = if line < LINES { Some(&mut self.lines[line]) } else { self.stream.as_mut() };
        if let Some(Line { socket, .. }) = line {
            socket.reads ^= true;
            world.set_reading(socket.at, socket.reads);
        }
    }

    pub fn read(&mut self, world: &mut World) {
        self.lines.iter_mut().chain(&mut self.stream).for_each(|line| line.socket.read(world));
    }

    /// Asks until a request is held: then nothing is left that it did not get.
    pub fn wait_for_more(&mut self, world: &mut World) {
        for line in (0..LINES).cycle().take(10) {
            self.collect(world);
            let waits = self.lines.iter().any(|line| !line.requests.is_empty());
            if waits || self.stream.is_some() {
                return;
            }
            self.request(line);
            self.send_all(world);
            world.run_until_idle();
        }
        panic!("it is given something again and again");
    }

    /// What it was sent, in its order as far as that is known.
    pub fn take_raw_messages(&mut self, world: &mut World) -> Vec<String> {
        self.collect(world);
        let bodies = std::mem::take(&mut self.bodies);
        let Some(stream) = &mut self.stream else {
            return bodies
                .into_values()
                .flat_map(|body| body.lines().map(str::to_owned).collect::<Vec<_>>())
                .collect();
        };
        assert!(bodies.values().all(String::is_empty), "everything detach to the stream: {bodies:?}");
        let text = String::from_utf8(world.take_bytes(stream.socket.at)).unwrap();
        assert!(text.is_empty() || text.ends_with("\n\n"), "half an event: {text}");
        let events = text.split_terminator("\n\n");
        events.map(|event| event.strip_prefix("data:").expect("an event").to_owned()).collect()
    }

    fn collect(&mut self, world: &mut World) {
        for line in &mut self.lines {
            for (request, status, body) in line.take_responses(world) {
                assert_eq!(status, 200, "{}: {body}", request.text);
                assert!(self.bodies.insert(request.number, body).is_none(), "answered twice");
            }
        }
    }

    /// A connection breaks while nothing is under way: nothing is lost, whatever it had asked.
    pub fn break_some(&mut self, world: &mut World, random: &mut Random) {
        self.collect(world);
        let which = random.below(LINES);
        let next = Line::open(world, random);
        let broken = std::mem::replace(&mut self.lines[which], next);
        end(world, random, &broken);
        if random.once_in(2) {
            world.run_until_idle();
        }
        assert!(broken.requests.len() <= 1 && broken.socket.unsent.is_empty() && broken.input.is_empty());
        match broken.requests.into_iter().next() {
            // The request was held: it comes again, as browsers do it. Its events are not handled again.
            Some(request) if self.ordered && random.once_in(2) => {
                let line = &mut self.lines[(which + 1) % LINES];
                line.socket.unsent.extend(request.text.as_bytes());
                line.requests.push_back(request);
                line.socket.send_all(world);
                world.run_until_idle();
            }
            _ => {}
        }
        self.request(which);
        self.send_all(world);
        if self.stream.is_some() && random.once_in(2) {
            let before = self.stream.take().expect("it was just looked at");
            self.open_stream(world, random);
            end(world, random, &before);
        }
        world.run_until_idle();
        world.shards.iter_mut().for_each(|shard| shard.kernel_mut().unread_output.clear());
    }

    /// Goes, by one connection after the other, or without a word.
    pub fn leave(&mut self, world: &mut World, random: &mut Random) {
        let is_ended = random.once_in(3);
        if is_ended {
            self.say("no event");
            self.send_all(world);
        }
        if self.stream.is_some() {
            // The end of a stream ends the session, and may overtake what was sent by other connections.
            world.run_until_idle();
        }
        let lines: Vec<Line> = self.lines.drain(..).chain(self.stream.take()).collect();
        for line in lines {
            if !is_ended && random.once_in(3) {
                self.left.push(line);
            } else {
                end(world, random, &line);
            }
        }
    }

    /// Whether it has connections.
    pub fn is_connected(&self) -> bool {
        !self.left.is_empty() || !self.lines.is_empty()
    }

    /// All of its connections end.
    pub fn close(&mut self, world: &mut World) {
        for line in self.lines.drain(..).chain(self.left.drain(..)).chain(self.stream.take()) {
            if !world.is_closed(line.socket.at) {
                world.set_reading(line.socket.at, true);
                world.end_stream(line.socket.at);
            }
        }
    }
}

fn end(world: &mut World, random: &mut Random, line: &Line) {
    if random.once_in(2) {
        world.end_stream(line.socket.at);
    } else {
        world.reset(line.socket.at);
    }
}
