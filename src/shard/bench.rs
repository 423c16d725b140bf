//! What `benches/fanout.rs` and `benches/apps.rs` measure: a shard's own turn, from broadcasts or from what a client has
//! sent to the sends that it hands to the kernel and back, with a kernel that does nothing.

use super::Apps;
use super::flush::{Kernel, RingOp};
use super::state::{Parts, Shared, State};
use crate::app::qio::Qio;
use crate::app::relay::Relay;
use crate::app::{Application, Command, Json, Post, Server};
use crate::config::Config;
use crate::event::path::Path;
use crate::metrics::Counter;
use crate::protocol::websocket::encode;
use crate::protocol::websocket::frame::Opcode;
use crate::qev::buffers::Frame;
use crate::qev::clock::Clock;
use crate::qev::mesh::{self, mesh};
use crate::qev::ring::{Descriptor, FrameBatch, PeerAddress, Token};
use std::sync::Arc;

/// One shard with WebSocket clients that are subscribed to one path.
pub struct FanOut {
    state: State,
    kernel: Nothing,
    path: Path,
}

impl FanOut {
    /// So many subscribers, each with a handshake behind it.
    pub fn new(subscribers: u32) -> FanOut {
        let path = Path::parse("/relay/room").expect("a path of the program's own is clean");
        let mut fan_out = FanOut { state: shard(Arc::new(Relay)), kernel: Nothing::default(), path };
        for client in 0..subscribers {
            fan_out.state.begin_turn();
            fan_out.state.accepted(Descriptor::made_up(client), PeerAddress::UNIX);
            let mut hello = UPGRADE.to_vec();
            for text in ["/qio/ohai", "/qio/on:1=\"/relay/room\""] {
                encode::client_frame(&mut hello, Opcode::Text, text.as_bytes(), [1, 2, 3, 4]);
            }
            fan_out.state.received(client, &mut hello, false);
            fan_out.finish_turn();
        }
        assert_eq!(fan_out.state.metrics.counters.get(Counter::Subscribes), u64::from(subscribers));
        fan_out
    }

    /// A turn with so many broadcasts, up to the completions of its sends; answers the bytes that were sent.
    pub fn turn(&mut self, broadcasts: usize, data: &str) -> usize {
        self.state.begin_turn();
        for _ in 0..broadcasts {
            self.state.broadcast(&self.path.clone(), Json::from(data));
        }
        self.finish_turn()
    }

    fn finish_turn(&mut self) -> usize {
        finish_turn(&mut self.state, &mut self.kernel)
    }
}

fn finish_turn(state: &mut State, kernel: &mut Nothing) -> usize {
    state.finish_turn(kernel);
    let mut bytes = 0;
    for (token, sent) in kernel.sent.drain(..) {
        bytes += sent.len();
        state.sent(token, Ok(()), &sent);
    }
    bytes
}

/// One shard with an application, and one WebSocket client of it.
pub struct Handling {
    state: State,
    kernel: Nothing,
    bytes: Vec<u8>,
}

impl Handling {
    /// The client is subscribed to a path of the application's.
    pub fn new(app: Arc<dyn Application>, path: &str) -> Handling {
        let mut handling = Handling { state: shard(app), kernel: Nothing::default(), bytes: Vec::new() };
        handling.state.begin_turn();
        handling.state.accepted(Descriptor::made_up(0), PeerAddress::UNIX);
        handling.bytes.extend_from_slice(UPGRADE);
        handling.turn(&["/qio/ohai".to_owned(), format!("/qio/on:1=\"{path}\"")], 1);
        assert_eq!(handling.state.metrics.counters.get(Counter::Subscribes), 1);
        handling
    }

    /// A turn in which the client has sent these events so many times; answers the bytes that it was sent.
    pub fn turn(&mut self, events: &[String], times: usize) -> usize {
        for text in (0..times).flat_map(|_| events) {
            encode::client_frame(&mut self.bytes, Opcode::Text, text.as_bytes(), [1, 2, 3, 4]);
        }
        self.state.begin_turn();
        self.state.received(0, &mut self.bytes, false);
        self.bytes.clear();
        finish_turn(&mut self.state, &mut self.kernel)
    }
}

/// A request for an upgrade, as a browser makes it.
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: quickio\r\n\r\n";

fn shard(app: Arc<dyn Application>) -> State {
    let config = Arc::new(Config { sends_per_turn_max: usize::MAX, ..Config::default() });
    let apps: [Arc<dyn Application>; 2] =
        [Arc::new(Qio { public_address: None, hostname: "here".into() }), app];
    let apps = Apps::register(0, Server::new(Arc::new(Nowhere)), &apps);
    let sizes = mesh::MeshSettings { ring_messages: 8, overflow_messages_max: 8 };
    State::new(Parts {
        id: 0,
        shared: Arc::new(Shared::new(&config)),
        config,
        port: mesh(1, sizes).pop().expect("a mesh of one shard has one port"),
        clock: Clock::system(),
        apps: apps.unwrap_or_else(|(app, error)| panic!("{app}: {error}")),
        link_places: 0,
    })
}

/// A kernel that does nothing but remember what it was given to send.
#[derive(Default)]
struct Nothing {
    sent: Vec<(Token, FrameBatch)>,
}

impl Kernel for Nothing {
    fn send(&mut self, _: Descriptor, token: Token, frame: Frame) {
        self.sent.push((token, FrameBatch::One(frame)));
    }

    fn send_gathered(&mut self, _: Descriptor, token: Token, frames: Vec<Frame>) {
        frames.into_iter().for_each(|frame| self.sent.push((token, FrameBatch::One(frame))));
    }

    fn order(&mut self, _: RingOp) {}
}

/// Threads that are none.
struct Nowhere;

impl Post for Nowhere {
    fn post(&self, _: u32, command: Command) -> Result<(), Command> {
        Err(command)
    }
}
