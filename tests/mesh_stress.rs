//! Stress tests of the mesh against a ledger: no message may be lost, doubled or out of order, and no shard may sleep
//! forever. One test simulates all shards in one thread, step by step from a seed. The other runs threads that really
//! block.
//!
//! `QUICKIO_FUZZ_MILLIS` is the duration of each test (300), `QUICKIO_FUZZ_SEED` the first seed (1). The duration
//! decides how much is tried, but not the result.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quickio::qev::inbox::{Inbox, Mailbox};
use quickio::qev::mesh::{Class, MeshCounters, MeshSettings, Port, SendOutcome, Waker, mesh};

/// About the cost of a message in an overflow queue.
const MESSAGE_BYTES: usize = 100;

#[test]
fn every_schedule_of_steps_delivers_everything() {
    let end = Instant::now() + Duration::from_millis(setting("QUICKIO_FUZZ_MILLIS", 300));
    let mut seed = setting("QUICKIO_FUZZ_SEED", 1);
    while Instant::now() < end {
        println!("QUICKIO_FUZZ_SEED={seed}");
        Simulation::new(seed).run();
        seed += 1;
    }
}

#[test]
fn threads_that_block_are_woken_for_everything() {
    // With few tokens and tiny rings, a thread blocks between almost any two messages. With many tokens, the rings are
    // always full, and threads block because there is no room. Threads that spin attempt to sleep many times as often,
    // just when the other thread sends. Threads that block involve the scheduler.
    let relay = |shards, ring_messages, overflow_messages, tokens, posters, spin| Relay {
        shards,
        ring_messages,
        overflow_bytes_max: MESSAGE_BYTES * overflow_messages,
        tokens,
        posters,
        spin,
    };
    let relays = [
        relay(2, 1, 1, 1, 0, true),
        relay(2, 1, 1, 4, 0, true),
        relay(2, 1, 1, 1, 0, false),
        relay(2, 1, 0, 8, 0, false),
        relay(2, 2, 3, 40, 0, false),
        relay(3, 1, 2, 6, 0, true),
        relay(3, 1, 2, 6, 0, false),
        relay(4, 8, 4, 200, 0, false),
        relay(2, 4, 4, 1, 1, true),
        relay(3, 4, 4, 2, 2, false),
        relay(8, 2, 2, 50, 1, false),
        relay(2, 50, 4, 300, 0, true),
        relay(3, 100, 4, 500, 0, false),
    ];
    let each = Duration::from_millis(setting("QUICKIO_FUZZ_MILLIS", 300)) / relays.len() as u32;
    let seed = setting("QUICKIO_FUZZ_SEED", 1);
    for relay in relays {
        println!("QUICKIO_FUZZ_SEED={seed} {relay:?}");
        relay.run(each, seed);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// A generator of random numbers (splitmix64). The same seed gives the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn class(&mut self) -> Class {
        if self.one_in(3) { Class::Control } else { Class::Data }
    }
}

/// A message. It tells what its receiver must have received before.
#[derive(Clone, Copy)]
struct Message {
    class: Class,
    /// The number of the message among those of its class from the same sender to the same receiver.
    number: u64,
    /// The number of Control messages that were sent to the same receiver before this one.
    controls_before: u64,
}

/// The number of messages of each class that were sent from one shard to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ledger {
    controls: u64,
    data: u64,
}

impl Ledger {
    fn next(&self, class: Class) -> Message {
        let number = if class == Class::Control { self.controls } else { self.data };
        Message { class, number, controls_before: self.controls }
    }

    fn enter(&mut self, class: Class) {
        *(if class == Class::Control { &mut self.controls } else { &mut self.data }) += 1;
    }

    /// Enters a received message. Panics if it is not the next one of its class, or if it overtook Control.
    fn enter_received(&mut self, message: Message) {
        let expected = self.next(message.class);
        assert_eq!(message.number, expected.number, "{:?} was lost, doubled or out of order", message.class);
        assert!(message.controls_before <= self.controls, "{:?} overtook Control", message.class);
        self.enter(message.class);
    }
}

/// Sends the next message of a class. Returns whether it was accepted.
fn send(port: &mut Port<Message>, ledger: &mut Ledger, to: usize, class: Class) -> bool {
    match port.send(to, ledger.next(class), class) {
        SendOutcome::Queued | SendOutcome::Overflowed => ledger.enter(class),
        SendOutcome::Refused(_) => {
            assert_eq!(class, Class::Data, "Control is refused only if the peer has ended");
            return false;
        }
    }
    true
}

/// All shards in one thread. The seed decides the order of their steps.
struct Simulation {
    random: Random,
    shards: Vec<Shard>,
    /// The messages that each shard sent to each other one: `[from][to]`.
    sent: Vec<Vec<Ledger>>,
    posted: Vec<u64>,
    /// A flag for each shard, which is raised with a note and which the shard sees only in a turn.
    flags: Vec<u64>,
    /// The doorbells that were rung and have not arrived yet.
    pending_doorbells: Vec<usize>,
}

struct Shard {
    port: Port<Message>,
    inbox: Inbox<u64>,
    mailbox: Mailbox<u64>,
    waker: Waker,
    received: Vec<Ledger>,
    received_posts: u64,
    seen_flag: u64,
    blocked: bool,
    /// A doorbell has arrived: blocking returns at once.
    rung: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let shards = 1 + random.below(4);
        // Rings begin with eight messages, and grow if they may hold more.
        let at_most = if random.one_in(2) { 12 } else { 60 };
        let ring_messages = 1 + random.below(at_most);
        let settings = MeshSettings { ring_messages, overflow_bytes_max: MESSAGE_BYTES * random.below(6) };
        let shard = |mut port: Port<Message>| {
            let (mailbox, inbox) = port.inbox(3);
            let received = vec![Ledger::default(); shards];
            let (waker, received_posts, seen_flag) = (port.waker(), 0, 0);
            Shard {
                port,
                inbox,
                mailbox,
                waker,
                received,
                received_posts,
                seen_flag,
                blocked: false,
                rung: false,
            }
        };
        Self {
            random,
            shards: mesh(shards, settings).into_iter().map(shard).collect(),
            sent: vec![vec![Ledger::default(); shards]; shards],
            posted: vec![0; shards],
            flags: vec![0; shards],
            pending_doorbells: Vec::new(),
        }
    }

    fn run(&mut self) {
        for _ in 0..2_000 {
            match self.random.below(20) {
                0 => self.post(),
                1 => self.raise_flag(),
                2..4 => self.doorbell_arrives(),
                _ => self.step(),
            }
        }
        self.settle();
        self.check();
    }

    fn post(&mut self) {
        let to = self.random.below(self.shards.len());
        if let Ok(wake) = self.shards[to].mailbox.post(self.posted[to]) {
            self.posted[to] += 1;
            if wake {
                self.pending_doorbells.push(to);
            }
        }
    }

    fn raise_flag(&mut self) {
        let to = self.random.below(self.shards.len());
        self.flags[to] += 1;
        if self.shards[to].waker.needs_wake() {
            self.pending_doorbells.push(to);
        }
    }

    fn doorbell_arrives(&mut self) {
        if !self.pending_doorbells.is_empty() {
            let which = self.random.below(self.pending_doorbells.len());
            let at = self.pending_doorbells.swap_remove(which);
            self.shards[at].rung = true;
        }
    }

    fn step(&mut self) {
        let at = self.random.below(self.shards.len());
        let shard = &mut self.shards[at];
        if shard.blocked {
            // Sometimes the shard is woken for another reason.
            if shard.rung || self.random.one_in(50) {
                shard.wake(self.flags[at]);
            }
            return;
        }
        match self.random.below(8) {
            0..3 => {
                let (to, class) = (self.random.below(self.sent.len()), self.random.class());
                send(&mut shard.port, &mut self.sent[at][to], to, class);
            }
            3 => shard.receive(self.random.below(6)),
            4 => shard.receive_posts(self.random.below(3)),
            // So many calls give back rings that have grown.
            5 if self.random.one_in(50) => (0..2050).for_each(|_| shard.port.flush()),
            5 => shard.port.flush(),
            6 => shard.port.doorbells(|peer| self.pending_doorbells.push(peer)),
            _ => shard.try_block(self.flags[at]),
        }
        self.shards[at].port.check();
    }

    /// Stops sending and delivers all doorbells. All shards must then go to sleep in bounded time.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            for at in std::mem::take(&mut self.pending_doorbells) {
                self.shards[at].rung = true;
            }
            for (shard, flag) in self.shards.iter_mut().zip(&self.flags) {
                shard.turn(*flag, &mut self.pending_doorbells);
            }
            self.shards.iter().for_each(|shard| shard.port.check());
            let asleep = self.shards.iter().all(|shard| shard.blocked && !shard.rung);
            if asleep && self.pending_doorbells.is_empty() {
                return;
            }
        }
        panic!("a shard stays awake without work");
    }

    fn check(&self) {
        for (to, shard) in self.shards.iter().enumerate() {
            assert!(!shard.port.has_overflow(), "shard {to} sleeps although it has messages for others");
            assert_eq!(shard.received_posts, self.posted[to], "posts to shard {to}");
            assert_eq!(shard.seen_flag, self.flags[to], "flag of shard {to}");
            for (from, received) in shard.received.iter().enumerate() {
                assert_eq!(*received, self.sent[from][to], "from {from} to {to}");
            }
        }
        check_counters(self.shards.iter().map(|shard| shard.port.counters()));
    }
}

impl Shard {
    fn wake(&mut self, flag: u64) {
        (self.blocked, self.rung) = (false, false);
        self.port.end_sleep();
        self.seen_flag = flag;
    }

    fn turn(&mut self, flag: u64, doorbells: &mut Vec<usize>) {
        if self.blocked && !self.rung {
            return;
        }
        if self.blocked {
            self.wake(flag);
        }
        self.receive(3);
        self.receive_posts(2);
        self.port.flush();
        self.port.doorbells(|peer| doorbells.push(peer));
        self.try_block(flag);
    }

    /// Blocks, or takes another turn, in which the shard sees its flag.
    fn try_block(&mut self, flag: u64) {
        if self.port.try_sleep() {
            self.blocked = true;
        } else {
            self.seen_flag = flag;
        }
    }

    fn receive(&mut self, max: usize) {
        let received = &mut self.received;
        let count = self.port.receive(max, |from, message| received[from].enter_received(message));
        assert!(count <= max);
    }

    fn receive_posts(&mut self, max: usize) {
        let count = self.inbox.receive(max, |number| {
            assert_eq!(number, self.received_posts, "posts arrive in order");
            self.received_posts += 1;
        });
        assert!(count <= max);
    }
}

fn check_counters(ports: impl Iterator<Item = MeshCounters>) {
    let all = ports.fold((0, 0, 0), |all, counters| {
        (all.0 + counters.sent, all.1 + counters.received, all.2 + counters.dropped)
    });
    assert_eq!((all.0, 0), (all.1, all.2), "all messages must be received, and none dropped");
}

/// Tokens that threads pass to each other. A thread blocks when it holds none.
#[derive(Clone, Copy, Debug)]
struct Relay {
    shards: usize,
    ring_messages: usize,
    overflow_bytes_max: usize,
    tokens: i64,
    /// The number of threads that add tokens through the inboxes while there are few.
    posters: usize,
    /// `true` if a thread that sleeps spins until its doorbell rings. Otherwise it blocks.
    spin: bool,
}

/// The state that all threads of a relay share.
struct RelayState {
    /// Tokens are retired as soon as a thread holds them.
    closing: AtomicBool,
    /// All tokens are retired, and the threads return.
    over: AtomicBool,
    tokens: AtomicI64,
    /// The number of tokens that were passed on or retired. It must keep growing.
    progress: AtomicU64,
}

/// The doorbell on which a shard blocks. If it was rung before, the shard does not block.
struct Doorbell {
    spin: bool,
    rung: AtomicBool,
    blocked: Mutex<()>,
    wake: Condvar,
}

impl Doorbell {
    fn new(spin: bool) -> Self {
        Self { spin, rung: AtomicBool::new(false), blocked: Mutex::new(()), wake: Condvar::new() }
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        if !self.spin {
            drop(self.blocked.lock().expect("no thread panics while it holds the lock"));
            self.wake.notify_one();
        }
    }

    fn wait(&self) {
        if self.spin {
            for spins in 1.. {
                if self.rung.swap(false, Ordering::Acquire) {
                    return;
                }
                std::hint::spin_loop();
                if spins % 64 == 0 {
                    thread::yield_now();
                }
            }
        }
        let mut blocked = self.blocked.lock().expect("no thread panics while it holds the lock");
        while !self.rung.swap(false, Ordering::Acquire) {
            blocked = self.wake.wait(blocked).expect("no thread panics while it holds the lock");
        }
    }
}

struct Runner {
    port: Port<Message>,
    inbox: Inbox<Post>,
    state: Arc<RelayState>,
    random: Random,
    doorbells: Arc<[Doorbell]>,
    held: usize,
    sent: Vec<Ledger>,
    received: Vec<Ledger>,
    received_posts: Vec<u64>,
}

/// A token from a thread outside of the mesh: its poster, and its number among the posts from there to the same shard.
struct Post {
    poster: usize,
    number: u64,
}

/// The handles of a shard for threads outside of the mesh.
struct ShardHandle {
    mailbox: Mailbox<Post>,
    waker: Waker,
    doorbells: Arc<[Doorbell]>,
}

/// The time without progress after which the test fails. A shard whose wake-up was lost sleeps forever; a slow machine
/// makes progress.
const STUCK: Duration = Duration::from_secs(60);

impl Relay {
    fn run(self, time: Duration, seed: u64) {
        let state = Arc::new(RelayState {
            closing: AtomicBool::new(false),
            over: AtomicBool::new(false),
            tokens: AtomicI64::new(0),
            progress: AtomicU64::new(0),
        });
        let (runners, handles) = self.start_runners(&state, seed);
        self.post_all_tokens(&state, &handles, seed);
        let posters: Vec<_> =
            (1..=self.posters).map(|poster| self.start_poster(poster, &state, &handles, seed)).collect();
        wait_until(&state, Instant::now() + time, |_| false);
        state.closing.store(true, Ordering::Relaxed);
        posters.into_iter().for_each(|poster| poster.join().expect("posters do not panic"));
        wake_all(&handles);
        wait_until(&state, Instant::now() + STUCK * 1000, |state| state.tokens.load(Ordering::Relaxed) == 0);
        state.over.store(true, Ordering::Relaxed);
        wake_all(&handles);
        let runners: Vec<Runner> =
            runners.into_iter().map(|runner| runner.join().expect("runners do not panic")).collect();
        check_runners(&runners);
    }

    fn start_runners(
        self,
        state: &Arc<RelayState>,
        seed: u64,
    ) -> (Vec<JoinHandle<Runner>>, Arc<[ShardHandle]>) {
        let Self { ring_messages, overflow_bytes_max, .. } = self;
        let doorbells: Arc<[Doorbell]> = (0..self.shards).map(|_| Doorbell::new(self.spin)).collect();
        let (mut threads, mut handles) = (Vec::new(), Vec::new());
        for mut port in mesh::<Message>(self.shards, MeshSettings { ring_messages, overflow_bytes_max }) {
            let (mailbox, inbox) = port.inbox(2);
            handles.push(ShardHandle { mailbox, waker: port.waker(), doorbells: Arc::clone(&doorbells) });
            let runner = Runner {
                inbox,
                state: Arc::clone(state),
                random: Random(seed ^ (port.shard() as u64) << 32),
                doorbells: Arc::clone(&doorbells),
                held: 0,
                sent: vec![Ledger::default(); self.shards],
                received: vec![Ledger::default(); self.shards],
                received_posts: vec![0; self.posters + 1],
                port,
            };
            threads.push(thread::spawn(|| runner.run()));
        }
        (threads, handles.into())
    }

    fn post_all_tokens(self, state: &RelayState, handles: &[ShardHandle], seed: u64) {
        let mut poster = Poster::new(0, handles, seed);
        for _ in 0..self.tokens {
            poster.post(state, handles);
        }
    }

    /// Starts a thread that adds tokens while there are not too many.
    fn start_poster(
        self,
        poster: usize,
        state: &Arc<RelayState>,
        handles: &Arc<[ShardHandle]>,
        seed: u64,
    ) -> JoinHandle<()> {
        let (state, handles) = (Arc::clone(state), Arc::clone(handles));
        thread::spawn(move || {
            let mut poster = Poster::new(poster, &handles, seed);
            while !state.closing.load(Ordering::Relaxed) {
                if state.tokens.load(Ordering::Relaxed) < 2 * self.tokens {
                    poster.post(&state, &handles);
                } else {
                    thread::yield_now();
                }
            }
        })
    }
}

struct Poster {
    poster: usize,
    posted: Vec<u64>,
    random: Random,
}

impl Poster {
    fn new(poster: usize, handles: &[ShardHandle], seed: u64) -> Self {
        Self { poster, posted: vec![0; handles.len()], random: Random(!seed ^ (poster as u64) << 32) }
    }

    /// Posts a token to a random shard. Retries until it is accepted.
    fn post(&mut self, state: &RelayState, handles: &[ShardHandle]) {
        let to = self.random.below(handles.len());
        state.tokens.fetch_add(1, Ordering::Relaxed);
        let mut post = Post { poster: self.poster, number: self.posted[to] };
        self.posted[to] += 1;
        loop {
            match handles[to].mailbox.post(post) {
                Ok(true) => return handles[to].doorbells[to].ring(),
                Ok(false) => return,
                Err(full) => post = full.0,
            }
            thread::yield_now();
        }
    }
}

impl Runner {
    fn run(mut self) -> Self {
        while !self.state.over.load(Ordering::Relaxed) {
            let held = self.held;
            self.receive();
            if self.held > held {
                self.state.progress.fetch_add(1, Ordering::Relaxed);
            }
            self.pass_on();
            self.port.flush();
            self.port.doorbells(|peer| self.doorbells[peer].ring());
            // If a token was refused and no message overflowed, the thread must retry, because no other thread will
            // wake it.
            let must_retry = self.held > 0 && !self.port.has_overflow();
            self.wait_a_little();
            if !must_retry && self.port.try_sleep() {
                self.doorbells[self.port.shard()].wait();
                self.port.end_sleep();
            }
        }
        self
    }

    fn receive(&mut self) {
        let max = 1 + self.random.below(8);
        let received = &mut self.received;
        self.held += self.port.receive(max, |from, message| received[from].enter_received(message));
        let received = &mut self.received_posts;
        self.held += self.inbox.receive(max, |post| {
            assert_eq!(post.number, received[post.poster], "posts of one thread arrive in order");
            received[post.poster] += 1;
        });
    }

    /// Waits for a random time, which makes turns meet in many ways.
    fn wait_a_little(&mut self) {
        if self.random.one_in(256) {
            thread::yield_now();
        }
        for _ in 0..self.random.below(64) {
            std::hint::spin_loop();
        }
    }

    fn pass_on(&mut self) {
        if self.state.closing.load(Ordering::Relaxed) {
            self.state.tokens.fetch_sub(self.held as i64, Ordering::Relaxed);
            self.held = 0;
        }
        for _ in 0..self.held {
            let (to, class) = (self.random.below(self.doorbells.len()), self.random.class());
            if send(&mut self.port, &mut self.sent[to], to, class) {
                self.held -= 1;
            }
        }
    }
}

/// Waits until this time or until `done`. Panics if there is no progress.
fn wait_until(state: &RelayState, time: Instant, done: impl Fn(&RelayState) -> bool) {
    let mut moved = (0, Instant::now());
    while Instant::now() < time && !done(state) {
        let progress = state.progress.load(Ordering::Relaxed);
        if progress != moved.0 {
            moved = (progress, Instant::now());
        }
        assert!(moved.1.elapsed() < STUCK, "a wake-up was lost: there is no progress");
        thread::park_timeout(Duration::from_millis(1));
    }
}

fn wake_all(handles: &[ShardHandle]) {
    for (handle, doorbell) in handles.iter().zip(&*handles[0].doorbells) {
        if handle.waker.needs_wake() {
            doorbell.ring();
        }
    }
}

fn check_runners(runners: &[Runner]) {
    for (to, runner) in runners.iter().enumerate() {
        assert!(!runner.port.has_overflow());
        for (from, received) in runner.received.iter().enumerate() {
            assert_eq!(*received, runners[from].sent[to], "from {from} to {to}");
        }
    }
    check_counters(runners.iter().map(|runner| runner.port.counters()));
    let counters: Vec<MeshCounters> = runners.iter().map(|runner| runner.port.counters()).collect();
    println!(
        "  received {}, overflowed {}, refused {}, doorbells {}",
        counters.iter().map(|counters| counters.received).sum::<u64>(),
        counters.iter().map(|counters| counters.overflowed).sum::<u64>(),
        counters.iter().map(|counters| counters.refused).sum::<u64>(),
        counters.iter().map(|counters| counters.doorbells).sum::<u64>()
    );
}
