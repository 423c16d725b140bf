//! A chat on the application API, with rooms, unique names in a room, history, presence, messages to one member with a
//! receipt, and statistics.
//!
//!     cargo run --example chat -- --listen 127.0.0.1:8080
//!
//! The program accepts all flags of `quickio`. The events for clients:
//!
//! | event | effect |
//! | --- | --- |
//! | `/qio/on` with `["/chat/room/rust",{"name":"ada"}]` | joins a room; answered 404 if the name is invalid or taken |
//! | `/chat/room/rust` with `{"text":"hello"}` | sends a message to the room; the answer is the number of the message |
//! | `/chat/history/rust` | answered with the last messages |
//! | `/chat/tell/rust` with `{"to":"bob","text":"psst"}` | sends a message to bob only; answered when bob's client has confirmed it |
//! | `/qio/on` with `"/chat/stats"` | the numbers of rooms, members and messages, every second |
//!
//! The members of a room are on all shards, and for this reason no shard owns a room. A thread of the application, the
//! *keeper*, owns all rooms. Handlers check their parameters, pass the request and the promise to answer to the keeper,
//! and return.

use quickio::app::{Answer, Application, Context, Decision, Error, Event, Json, Later, LaterDecision};
use quickio::app::{Registrar, SendCallback, Server, Subscription, Unsubscribed};
use quickio::client::ClientId;
use quickio::config::{self, Action};
use quickio::event::path::Path;
use quickio::server;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Messages that a room keeps for its history.
const HISTORY_MESSAGES_MAX: usize = 50;
/// Bytes of the longest message.
const TEXT_BYTES_MAX: usize = 2000;
/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 32;
/// Requests that may wait for the keeper. One more is answered 420. Without a limit, memory would grow when the keeper
/// is slower than all shards together.
const REQUESTS_MAX: usize = 10_000;
/// Events that one client may send in each period.
const EVENTS_PER_PERIOD_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match config::from_args(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(Action::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Action::Run(config)) => match server::run_with(config, vec![Arc::new(Chat::new())]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        Err(error) => fail(&error, config::EXIT_CODE),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("chat: {error}");
    ExitCode::from(code)
}

// The application, which runs on the shards.

struct Chat {
    keeper: Keeper,
    work: Mutex<Option<Receiver<Work>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Chat {
    fn new() -> Chat {
        let (sender, receiver) = channel();
        let keeper = Keeper { work: sender, waiting: Arc::default(), totals: Arc::default() };
        Chat { keeper, work: Mutex::new(Some(receiver)), thread: Mutex::new(None) }
    }
}

impl Application for Chat {
    fn name(&self) -> &str {
        "chat"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let keeper = || self.keeper.clone();
        let (on, off, say) = (keeper(), keeper(), keeper());
        registrar
            .event("/chat/room")
            .children()
            .on(move |cx, subscription| join(&on, cx, subscription))
            .off(move |_, unsubscribed| leave(&off, unsubscribed))
            .handler(move |cx, event| ask(&say, cx, event, Request::say))
            .register()?;
        let history = keeper();
        registrar
            .event("/chat/history")
            .children()
            .no_subscriptions()
            .handler(move |cx, event| ask(&history, cx, event, |_| Ok(Request::History)))
            .register()?;
        let tell = keeper();
        registrar
            .event("/chat/tell")
            .children()
            .no_subscriptions()
            .handler(move |cx, event| ask(&tell, cx, event, Request::tell))
            .register()?;
        registrar.event("/chat/stats").register()?;
        if registrar.shard() == 0 {
            let (totals, path) = (Arc::clone(&self.keeper.totals), own_path("/chat/stats"));
            registrar.every(Duration::from_secs(1), move |cx| cx.broadcast(&path, totals.to_json()));
        }
        Ok(())
    }

    fn start(&self, server: &Server) -> Result<(), Error> {
        let Some(work) = self.work.lock().ok().and_then(|mut work| work.take()) else {
            return Err(Error::Failed("the chat was started before".into()));
        };
        let rooms = Rooms { server: server.clone(), keeper: self.keeper.clone(), rooms: HashMap::new() };
        let thread = thread::Builder::new().name("chat-keeper".into()).spawn(move || rooms.keep(&work));
        let thread = thread.map_err(|error| Error::Failed(error.to_string()))?;
        if let Ok(mut place) = self.thread.lock() {
            *place = Some(thread);
        }
        Ok(())
    }

    fn stop(&self) {
        self.keeper.tell(Work::Stop);
        if let Some(thread) = self.thread.lock().ok().and_then(|mut thread| thread.take()) {
            let _ = thread.join(); // if the thread panicked, the log contains the panic
        }
    }
}

/// The on-hook. Only the keeper knows whether the name is free, and it decides later.
fn join(keeper: &Keeper, cx: &mut Context<'_>, subscription: Subscription<'_>) -> Decision {
    #[derive(Deserialize)]
    struct Join {
        name: String,
    }
    let Some(room) = room_name(subscription.extra) else { return Decision::Refuse };
    let Ok(Join { name }) = serde_json::from_str(subscription.data) else { return Decision::Refuse };
    if name.is_empty() || name.len() > NAME_BYTES_MAX || is_flooding(keeper, cx, subscription.client) {
        return Decision::Refuse;
    }
    let (decision, promise) = subscription.later(cx);
    keeper.tell(Work::Join { room: room.to_owned(), name, promise });
    decision
}

/// The off-hook: the client has left the room or has disconnected.
fn leave(keeper: &Keeper, unsubscribed: Unsubscribed<'_>) {
    if let Some(room) = room_name(unsubscribed.extra) {
        keeper.tell(Work::Leave { room: room.to_owned(), client: unsubscribed.client });
    }
}

/// The common part of all handlers: checks a request and passes it to the keeper, which answers.
fn ask(
    keeper: &Keeper,
    cx: &mut Context<'_>,
    event: Event<'_>,
    request: impl FnOnce(&str) -> Result<Request, &'static str>,
) -> Answer {
    let Some(room) = room_name(event.extra) else { return Answer::error(404, "no such room") };
    let request = match request(event.data) {
        Ok(request) => request,
        Err(error) => return Answer::error(400, error),
    };
    if is_flooding(keeper, cx, event.client) || !keeper.takes_requests() {
        return Answer::error(420, "calm down");
    }
    let (answer, promise) = event.later(cx);
    keeper.request(Work::Request { room: room.to_owned(), request, promise });
    answer
}

/// Returns the name of a room, which is the only segment of a path such as `/rust`.
fn room_name(extra: &str) -> Option<&str> {
    extra.strip_prefix('/').filter(|name| !name.is_empty() && !name.contains('/'))
}

fn own_path(path: &str) -> Path {
    Path::parse(path).expect("a path that is part of the program is clean")
}

/// The data that a shard keeps for a client. No other thread accesses it, and it needs no lock.
struct Guest {
    client: ClientId,
    keeper: Keeper,
    period_began: Duration,
    events: u32,
}

/// Counts an event of a client. Returns whether the client has sent too many in this period.
fn is_flooding(keeper: &Keeper, cx: &mut Context<'_>, client: ClientId) -> bool {
    let now = cx.now();
    let Some(guest) = cx.client_data::<Guest>(client) else {
        cx.set_client_data(client, Guest { client, keeper: keeper.clone(), period_began: now, events: 1 });
        return false;
    };
    if now.saturating_sub(guest.period_began) >= PERIOD {
        (guest.period_began, guest.events) = (now, 0);
    }
    guest.events = guest.events.saturating_add(1);
    guest.events > EVENTS_PER_PERIOD_MAX
}

/// Tells the keeper that the client has disconnected. The off-hook is not enough: it does not run for a client that
/// disconnected before its subscription was decided. The client's data is dropped in any case.
impl Drop for Guest {
    fn drop(&mut self) {
        self.keeper.tell(Work::Gone { client: self.client });
    }
}

// The requests of the shards to the keeper.

#[derive(Clone)]
struct Keeper {
    work: Sender<Work>,
    waiting: Arc<AtomicUsize>,
    totals: Arc<Totals>,
}

enum Work {
    Join { room: String, name: String, promise: LaterDecision },
    Leave { room: String, client: ClientId },
    Gone { client: ClientId },
    Request { room: String, request: Request, promise: Later },
    Stop,
}

enum Request {
    Say { text: String },
    History,
    Tell { to: String, text: String },
}

impl Keeper {
    /// Sends work that must not be lost. Its amount is bounded by the number of clients and subscriptions.
    fn tell(&self, work: Work) {
        // If the keeper has ended, the work is dropped. A promise that is dropped answers 500, or refuses.
        let _ = self.work.send(work);
    }

    fn takes_requests(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < REQUESTS_MAX
    }

    fn request(&self, work: Work) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.tell(work);
    }
}

impl Request {
    fn say(data: &str) -> Result<Request, &'static str> {
        #[derive(Deserialize)]
        struct Say {
            text: String,
        }
        let Say { text } = serde_json::from_str(data).map_err(|_| "{\"text\":STRING} is needed")?;
        Ok(Request::Say { text: checked(text)? })
    }

    fn tell(data: &str) -> Result<Request, &'static str> {
        #[derive(Deserialize)]
        struct Tell {
            to: String,
            text: String,
        }
        let Tell { to, text } =
            serde_json::from_str(data).map_err(|_| "{\"to\":NAME,\"text\":STRING} is needed")?;
        Ok(Request::Tell { to, text: checked(text)? })
    }
}

fn checked(text: String) -> Result<String, &'static str> {
    if text.len() > TEXT_BYTES_MAX { Err("the text is too long") } else { Ok(text) }
}

// The keeper: one thread that owns all rooms. All changes to a room happen in one order.

struct Rooms {
    server: Server,
    keeper: Keeper,
    rooms: HashMap<String, Room>,
}

/// A room, which exists as long as it has members.
struct Room {
    path: Path,
    members: HashMap<ClientId, String>,
    history: VecDeque<Message>,
    last: u64,
}

#[derive(Clone, Serialize)]
struct Message {
    id: u64,
    from: String,
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Presence<'a> {
    Joined(&'a str),
    Left(&'a str),
}

impl Rooms {
    fn keep(mut self, work: &Receiver<Work>) {
        for work in work {
            match work {
                Work::Join { room, name, promise } => self.join(&room, name, promise),
                Work::Leave { room, client } => self.leave(&room, client),
                Work::Gone { client } => self.gone(client),
                Work::Request { room, request, promise } => {
                    self.keeper.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.serve(&room, request, promise);
                }
                Work::Stop => return,
            }
        }
    }

    fn join(&mut self, name_of_room: &str, name: String, promise: LaterDecision) {
        let room = self.rooms.entry(name_of_room.to_owned()).or_insert_with(|| Room::new(name_of_room));
        if room.members.values().any(|member| *member == name) {
            let _ = promise.decide(false); // if the inbox is full, it has counted the refusal
            return;
        }
        let client = promise.client();
        room.broadcast(&self.server, &Presence::Joined(&name));
        if promise.decide(true).is_ok() && room.members.insert(client, name).is_none() {
            self.keeper.totals.members.fetch_add(1, Ordering::Relaxed);
        }
        self.end_if_empty(name_of_room);
    }

    fn leave(&mut self, name: &str, client: ClientId) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if let Some(member) = room.members.remove(&client) {
            self.keeper.totals.members.fetch_sub(1, Ordering::Relaxed);
            room.broadcast(&self.server, &Presence::Left(&member));
        }
        self.end_if_empty(name);
    }

    fn gone(&mut self, client: ClientId) {
        let of_client =
            |(name, room): (&String, &Room)| room.members.contains_key(&client).then(|| name.clone());
        for room in self.rooms.iter().filter_map(of_client).collect::<Vec<_>>() {
            self.leave(&room, client);
        }
    }

    fn end_if_empty(&mut self, name: &str) {
        if self.rooms.get(name).is_some_and(|room| room.members.is_empty()) {
            self.rooms.remove(name);
        }
        self.keeper.totals.rooms.store(self.rooms.len() as u64, Ordering::Relaxed);
    }

    fn serve(&mut self, room: &str, request: Request, promise: Later) {
        let answer = match self.rooms.get_mut(room) {
            None => Answer::error(404, "no such room"),
            Some(room) => match room.members.get(&promise.client()).cloned() {
                None => Answer::error(401, "join the room first"),
                Some(from) => match request {
                    Request::History => Answer::data(to_json(&room.history)),
                    Request::Say { text } => room.say(&self.server, &self.keeper.totals, from, text),
                    // The member that receives the message answers the promise.
                    Request::Tell { to, text } => return room.tell(&self.server, &from, &to, &text, promise),
                },
            },
        };
        let _ = promise.answer(answer); // if the inbox is full, it has counted the refusal
    }
}

impl Room {
    fn new(name: &str) -> Room {
        Room {
            path: own_path(&format!("/chat/room/{name}")),
            members: HashMap::new(),
            history: VecDeque::new(),
            last: 0,
        }
    }

    fn say(&mut self, server: &Server, totals: &Totals, from: String, text: String) -> Answer<SendCallback> {
        let message = Message { id: self.last + 1, from, text };
        if server.broadcast(&self.path, to_json(&message)).is_err() {
            return Answer::error(420, "calm down");
        }
        self.last = message.id;
        totals.messages.fetch_add(1, Ordering::Relaxed);
        if self.history.len() == HISTORY_MESSAGES_MAX {
            self.history.pop_front();
        }
        self.history.push_back(message);
        Answer::data(self.last.to_string())
    }

    /// Sends a message to one member, and answers the sender when that member's client has confirmed it. If it never
    /// confirms, the callback is dropped after `clients-cb-max-age`, the promise is dropped with it, and the sender is
    /// answered 500.
    fn tell(&self, server: &Server, from: &str, to: &str, text: &str, promise: Later) {
        let Some((client, _)) = self.members.iter().find(|(_, name)| *name == to) else {
            let _ = promise.answer(Answer::error(404, "nobody here has that name"));
            return;
        };
        let data = serde_json::json!({ "from": from, "text": text }).to_string();
        let receipt = SendCallback::new(move |_, _| {
            let _ = promise.answer(Answer::data("\"delivered\""));
            Answer::ok()
        });
        // If the inbox is full, the receipt and its promise are dropped, and the sender is answered 500.
        let _ = server.send_with_callback(*client, &own_path("/chat/told"), data, receipt);
    }

    fn broadcast(&self, server: &Server, presence: &Presence<'_>) {
        let _ = server.broadcast(&self.path, to_json(presence)); // if the inbox is full, it has counted the refusal
    }
}

/// The numbers that the timer broadcasts. The keeper writes them, and shard 0 reads them once a second.
#[derive(Default)]
struct Totals {
    rooms: AtomicU64,
    members: AtomicU64,
    messages: AtomicU64,
}

impl Totals {
    fn to_json(&self) -> Json {
        let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let (rooms, members, messages) = (get(&self.rooms), get(&self.members), get(&self.messages));
        to_json(&serde_json::json!({ "rooms": rooms, "members": members, "messages": messages }))
    }
}

fn to_json(value: &impl Serialize) -> Json {
    // Serialization fails only for maps whose keys are not strings, and the chat has no such maps.
    serde_json::to_string(value).map_or(Json::NULL, Json::from)
}
