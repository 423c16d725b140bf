//! The code measured by `benches/fanout.rs`, `benches/apps.rs` and `benches/turns.rs`: complete turns of a shard on a
//! kernel that does nothing.

use super::kernel::{IoEvent, Kernel, RingOp};
use super::state::{ShardParts, SharedState};
use super::{AppCommand, Apps, AuthParts, Inboxes, Loop, VerifyJob, VerifyTokens};
use crate::app::qio::Qio;
use crate::app::relay::Relay;
use crate::app::{Application, Command, Json, Post, Server};
use crate::config::{AuthMode, Config, ListenKind};
use crate::event::path::Path;
use crate::history::HistoryBounds;
use crate::identity::{Algorithm, AuthKey, KeySet, TokenPolicy};
use crate::metrics::Counter;
use crate::protocol::websocket::encode;
use crate::protocol::websocket::frame::Opcode;
use crate::qev::buffers::Frame;
use crate::qev::clock::Clock;
use crate::qev::inbox::Mailbox;
use crate::qev::mesh::{self, mesh};
use crate::qev::ring::{Descriptor, Errno, FrameBatch, PeerAddress, SendId, Token, Wait};
use crate::rules::Rule;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io;
use std::sync::Arc;

/// The capacity of an inbox in the benchmarks, in messages.
const INBOX_MESSAGES: usize = 1024;

/// One shard with WebSocket clients that are subscribed to one path.
pub struct FanOut {
    shard: Loop<NoKernel>,
    commands: Mailbox<AppCommand>,
    path: Path,
}

impl FanOut {
    /// Creates a shard with this many subscribers, each of which has completed its handshake.
    pub fn new(subscribers: u32) -> FanOut {
        FanOut::with_rules(subscribers, Vec::new(), "/qio/on:1=\"/relay/room\"")
    }

    /// Creates a shard whose path keeps its last 100 events, with this many subscribers that get their numbers.
    pub fn numbered(subscribers: u32) -> FanOut {
        FanOut::with_rules(subscribers, history(), "/qio/on:1=[\"/relay/room\",null,{\"history\":0}]")
    }

    fn with_rules(subscribers: u32, rules: Vec<Rule>, subscribe: &str) -> FanOut {
        let (mut shard, commands) = shard_with(Arc::new(Relay), rules, None);
        for client in 0..subscribers {
            connect(&mut shard, client);
            let events = ["/qio/ohai", subscribe];
            let hello = [UPGRADE.to_vec(), frames(&events, 1)].concat();
            shard.kernel.received.push((client, hello));
            turn(&mut shard);
        }
        // Subscriptions with options begin with the next turn.
        turn(&mut shard);
        assert_eq!(shard.state.metrics.counters.get(Counter::Subscribes), u64::from(subscribers));
        let path = Path::parse("/relay/room").expect("the path is clean");
        FanOut { shard, commands, path }
    }

    /// Runs a turn with this many broadcasts; returns the bytes that were sent.
    pub fn turn(&mut self, broadcasts: usize, data: &str) -> usize {
        for _ in 0..broadcasts {
            let command = Command::Broadcast { path: self.path.clone(), data: Json::from(data) };
            let posted = self.commands.post(AppCommand { app: 1, command });
            assert!(posted.is_ok(), "a turn has at most {INBOX_MESSAGES} broadcasts");
        }
        turn(&mut self.shard)
    }
}

/// One shard with an application, and one WebSocket client of it.
pub struct Handling {
    shard: Loop<NoKernel>,
}

impl Handling {
    /// Creates a shard with one client, which is subscribed to a path of the application.
    pub fn new(app: Arc<dyn Application>, path: &str) -> Handling {
        Handling::with_rules(app, path, Vec::new())
    }

    /// Creates a shard with one client, where the paths of the application keep their last 100 events.
    pub fn with_history(app: Arc<dyn Application>, path: &str) -> Handling {
        Handling::with_rules(app, path, history())
    }

    fn with_rules(app: Arc<dyn Application>, path: &str, rules: Vec<Rule>) -> Handling {
        let (mut shard, _) = shard_with(app, rules, None);
        connect(&mut shard, 0);
        shard.kernel.received.push((0, UPGRADE.to_vec()));
        turn(&mut shard);
        let mut handling = Handling { shard };
        handling.turn(&["/qio/ohai".to_owned(), format!("/qio/on:1=\"{path}\"")], 1);
        assert_eq!(handling.shard.state.metrics.counters.get(Counter::Subscribes), 1);
        handling
    }

    /// Runs a turn in which the client has sent these events this many times; returns the number of bytes sent to it.
    pub fn turn(&mut self, events: &[String], times: usize) -> usize {
        self.shard.kernel.received.push((0, frames(events, times)));
        turn(&mut self.shard)
    }
}

/// One shard to which WebSocket clients connect, one after the other, each for a moment.
pub struct Reconnecting {
    shard: Loop<NoKernel>,
    /// What each client sends: its upgrade and its greeting.
    requests: Vec<Vec<u8>>,
    next: usize,
}

impl Reconnecting {
    /// Creates a shard to which this many clients connect, each with a token of its own if `has_tokens`. A token has about 260
    /// bytes.
    pub fn new(clients: usize, has_tokens: bool) -> Reconnecting {
        let secret = [7; 32];
        let request = |client: usize| {
            let upgrade = std::str::from_utf8(UPGRADE).expect("the request is text");
            let header = if has_tokens {
                format!("Authorization: Bearer {}\r\n\r\n", token(client, &secret))
            } else {
                "\r\n".into()
            };
            let head = upgrade.trim_end().to_owned() + "\r\n" + &header;
            [head.into_bytes(), frames(&["/qio/ohai"], 1)].concat()
        };
        let key =
            AuthKey::from_secret("bench", Algorithm::Hs256, &secret).expect("the secret is long enough");
        let keys = Arc::new(KeySet::new([key], TokenPolicy::default()));
        let auth = AuthParts { keys, verifier: Arc::new(NoThreads), asks: None };
        let (shard, _) = shard_with(Arc::new(Relay), Vec::new(), has_tokens.then_some(auth));
        Reconnecting { shard, requests: (0..clients).map(request).collect(), next: 0 }
    }

    /// Returns what the next clients send, as it is in a cache of the processor when a kernel has just received it.
    pub fn received(&mut self, clients: usize) -> Vec<Vec<u8>> {
        let first = self.next;
        self.next = (first + clients) % self.requests.len();
        (first..first + clients).map(|client| self.requests[client % self.requests.len()].clone()).collect()
    }

    /// Lets clients connect that send this, and disconnects them.
    pub fn connect(&mut self, received: Vec<Vec<u8>>) {
        for request in received {
            connect(&mut self.shard, 0);
            self.shard.kernel.received.push((0, request));
            turn(&mut self.shard);
            self.shard.kernel.reset = Some(0);
            turn(&mut self.shard);
        }
    }

    /// Returns the numbers of tokens that were accepted, and of those that the shard remembered.
    pub fn accepted(&self) -> (u64, u64) {
        let counters = &self.shard.state.metrics.counters;
        (counters.get(Counter::AuthAccepted), counters.get(Counter::AuthSeen))
    }
}

/// A token of a client, as a back end signs it.
fn token(client: usize, secret: &[u8]) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"HS256","kid":"bench"}"#);
    let claims = format!(
        r#"{{"sub":"user-{client}","iat":1790000000,"exp":9790000000,"name":"Somebody","qio":{{"on":["/user/{{user}}/**"]}}}}"#
    );
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Connects a client; its token is its number.
fn connect(shard: &mut Loop<NoKernel>, client: u32) {
    shard.kernel.accepted = Some(Descriptor::made_up(client));
    turn(shard);
}

/// Events as a WebSocket client sends them, this many times.
fn frames(events: &[impl AsRef<str>], times: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in (0..times).flat_map(|_| events) {
        encode::client_frame(&mut bytes, Opcode::Text, text.as_ref().as_bytes(), [1, 2, 3, 4]);
    }
    bytes
}

fn turn(shard: &mut Loop<NoKernel>) -> usize {
    shard.kernel.bytes = 0;
    shard.turn().expect("this kernel never fails");
    shard.kernel.bytes
}

/// A request for an upgrade, as a browser makes it.
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: quickio\r\n\r\n";

/// A rule that keeps the last 100 events of every path.
fn history() -> Vec<Rule> {
    vec![Rule {
        history: Some(HistoryBounds { events: 100, age_s: None }),
        ..Rule::open("/**".parse().expect("the pattern is valid"))
    }]
}

fn shard_with(
    app: Arc<dyn Application>,
    rules: Vec<Rule>,
    auth: Option<AuthParts>,
) -> (Loop<NoKernel>, Mailbox<AppCommand>) {
    let mode = if auth.is_some() { AuthMode::Optional } else { AuthMode::Off };
    let config = Arc::new(Config {
        sends_per_turn_max: usize::MAX,
        auth: mode,
        rules,
        // All tokens are in one half.
        auth_cache_bytes_max: 128 << 20,
        ..Config::default()
    });
    let message_bytes_max = config.message_bytes_max;
    let qio = Qio { public_address: None, hostname: "here".into(), has_auth: false, message_bytes_max };
    let apps: [Arc<dyn Application>; 2] = [Arc::new(qio), app];
    let apps = Apps::register(0, Server::new(Arc::new(NoThreads)), &apps);
    let sizes = mesh::MeshSettings { ring_messages: 8, overflow_bytes_max: 8 };
    let mut port = mesh(1, sizes).pop().expect("a mesh of one shard has one port");
    let (_, control) = port.inbox(1);
    let (commands, app_commands) = port.inbox(INBOX_MESSAGES);
    let (_, api) = port.inbox(1);
    let parts = ShardParts {
        id: 0,
        auth,
        shared: Arc::new(SharedState::new(&config, 1 << 20)),
        config,
        port,
        clock: Clock::system(),
        apps: apps.unwrap_or_else(|(app, error)| panic!("{app}: {error}")),
        places: 1 << 20,
        link_places: 0,
    };
    let mut shard = Loop::new(NoKernel::default(), Inboxes { control, app_commands, api }, parts);
    shard.state.start_accepting(vec![ListenKind::Plain]);
    (shard, commands)
}

/// A kernel that does nothing: each send completes in the next turn.
#[derive(Default)]
struct NoKernel {
    accepted: Option<Descriptor>,
    received: Vec<(Token, Vec<u8>)>,
    sent: Vec<(Token, FrameBatch)>,
    /// The connection that its peer has reset.
    reset: Option<Token>,
    /// Bytes that were sent since this was set to 0.
    bytes: usize,
}

impl Kernel for NoKernel {
    fn ring_doorbell(&mut self, _: usize) {}

    fn enter(&mut self, _: Wait) -> io::Result<()> {
        Ok(())
    }

    fn drain(&mut self, mut handle: impl FnMut(IoEvent<'_>) -> usize) {
        for (token, frames) in self.sent.drain(..) {
            handle(IoEvent::Sent { token, result: Ok(()), frames });
        }
        if let Some(socket) = self.accepted.take() {
            handle(IoEvent::Accepted { listener: 0, socket, peer: PeerAddress::UNIX });
        }
        for (token, mut data) in self.received.drain(..) {
            handle(IoEvent::Received { token, data: &mut data, ended: false });
        }
        if let Some(token) = self.reset.take() {
            handle(IoEvent::ReceiveEnded { token, result: Err(Errno(libc::ECONNRESET)) });
        }
    }

    fn send(&mut self, _: Descriptor, token: Token, frame: Frame) -> SendId {
        self.bytes += frame.len();
        self.sent.push((token, FrameBatch::One(frame)));
        SendId::at(0)
    }

    fn send_gathered(&mut self, socket: Descriptor, token: Token, frames: Vec<Frame>) -> SendId {
        self.send(socket, token, Frame::joined(&frames))
    }

    fn sends_in_flight(&self) -> usize {
        self.sent.len()
    }

    fn visit_sends(&self, _: usize, _: usize, _: impl FnMut(Token)) -> Option<usize> {
        None
    }

    fn submit(&mut self, _: RingOp) {}

    fn take_submissions_full(&mut self) -> u64 {
        0
    }
}

/// Rejects commands of other threads: the applications of the benchmarks have none.
struct NoThreads;

impl Post for NoThreads {
    fn post(&self, _: u32, command: Command) -> Result<(), Command> {
        Err(command)
    }
}

/// Verifies nothing: the tokens of the benchmarks need no other thread.
impl VerifyTokens for NoThreads {
    fn verify(&self, job: VerifyJob) -> Result<(), VerifyJob> {
        Err(job)
    }
}
