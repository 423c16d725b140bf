//! The mesh under stress, against a ledger: nothing lost, nothing twice, nothing out of order, nobody asleep
//! for ever. Once in one thread, step by step from a seed; once over threads that really block.
//!
//! `QUICKIO_FUZZ_MILLIS` is how long each test goes on (300), `QUICKIO_FUZZ_SEED` where it begins (1). The
//! time decides how much is tried, never the verdict.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quickio::qev::inbox::{Inbox, Mailbox};
use quickio::qev::mesh::{Class, MeshCounters, MeshSettings, Port, SendOutcome, Waker, mesh};

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
    // Few tokens and tiny rings: a thread blocks between almost any two messages. Many tokens: rings are full
    // all the time, and threads block for want of room. Spinning: many times as many attempts to sleep, just
    // as the other thread sends; real blocking: the scheduler has its say.
    let relay = |shards, ring_messages, overflow_messages_max, tokens, posters, spin| Relay {
        shards,
        ring_messages,
        overflow_messages_max,
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

/// splitmix64: the same numbers from the same seed, everywhere.
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

/// A message says what its receiver must have received before.
#[derive(Clone, Copy)]
struct Message {
    class: Class,
    /// Its number among those of its class from its sender to its receiver.
    number: u64,
    /// Control messages that were sent to the same receiver before it.
    controls_before: u64,
}

/// How many messages of each class went one way.
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

    /// Enters a message that arrived; panics where it is not the next of its class, or overtook Control.
    fn enter_received(&mut self, message: Message) {
        let expected = self.next(message.class);
        assert_eq!(message.number, expected.number, "{:?} lost, doubled or out of order", message.class);
        assert!(message.controls_before <= self.controls, "{:?} overtook Control", message.class);
        self.enter(message.class);
    }
}

/// Sends the next message of a class; whether it was accepted.
fn send(port: &mut Port<Message>, ledger: &mut Ledger, to: usize, class: Class) -> bool {
    match port.send(to, ledger.next(class), class) {
        SendOutcome::Queued | SendOutcome::Overflowed => ledger.enter(class),
        SendOutcome::Refused(_) => {
            assert_eq!(class, Class::Data, "Control is refused only where the peer has gone");
            return false;
        }
    }
    true
}

/// All shards in one thread: each step of each of them happens when the seed says so.
struct Simulation {
    random: Random,
    shards: Vec<Shard>,
    /// What each sent to each: `[from][to]`.
    sent: Vec<Vec<Ledger>>,
    posted: Vec<u64>,
    /// What a shard only sees when it looks, raised with a note.
    flags: Vec<u64>,
    /// Doorbells that were rung, and did not arrive yet.
    on_their_way: Vec<usize>,
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
    /// A doorbell arrived: blocking returns at once.
    rung: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let shards = 1 + random.below(4);
        let ring_messages = 1 + random.below(12);
        let settings = MeshSettings { ring_messages, overflow_messages_max: random.below(6) };
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
            on_their_way: Vec::new(),
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
                self.on_their_way.push(to);
            }
        }
    }

    fn raise_flag(&mut self) {
        let to = self.random.below(self.shards.len());
        self.flags[to] += 1;
        if self.shards[to].waker.needs_wake() {
            self.on_their_way.push(to);
        }
    }

    fn doorbell_arrives(&mut self) {
        if !self.on_their_way.is_empty() {
            let which = self.random.below(self.on_their_way.len());
            let at = self.on_their_way.swap_remove(which);
            self.shards[at].rung = true;
        }
    }

    fn step(&mut self) {
        let at = self.random.below(self.shards.len());
        let shard = &mut self.shards[at];
        if shard.blocked {
            // Now and then something else wakes it.
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
            5 => shard.port.flush(),
            6 => shard.port.doorbells(|peer| self.on_their_way.push(peer)),
            _ => shard.try_block(self.flags[at]),
        }
    }

    /// Nothing more is sent, and all doorbells arrive: everybody must end up asleep, in bounded time.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            for at in std::mem::take(&mut self.on_their_way) {
                self.shards[at].rung = true;
            }
            for (shard, flag) in self.shards.iter_mut().zip(&self.flags) {
                shard.turn(*flag, &mut self.on_their_way);
            }
            let asleep = self.shards.iter().all(|shard| shard.blocked && !shard.rung);
            if asleep && self.on_their_way.is_empty() {
                return;
            }
        }
        panic!("somebody is kept awake for nothing");
    }

    fn check(&self) {
        for (to, shard) in self.shards.iter().enumerate() {
            assert!(!shard.port.has_overflow(), "shard {to} sleeps on messages to others");
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

    /// Blocks; or takes another turn, of which looking at the flag is all that must be done.
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
    assert_eq!((all.0, 0), (all.1, all.2), "what was sent was received, and nothing dropped");
}

/// Tokens that go from thread to thread, each of which blocks when it holds none.
#[derive(Clone, Copy, Debug)]
struct Relay {
    shards: usize,
    ring_messages: usize,
    overflow_messages_max: usize,
    tokens: i64,
    /// Threads that add tokens while there are few, through the inboxes.
    posters: usize,
    /// Whether a thread that sleeps spins until its doorbell rings, or blocks.
    spin: bool,
}

/// What all threads of a relay see.
struct Field {
    /// Tokens that are retired as soon as somebody holds them.
    closing: AtomicBool,
    /// All tokens are retired: the threads return.
    over: AtomicBool,
    tokens: AtomicI64,
    /// Tokens that were passed on or retired: what must never stand still.
    progress: AtomicU64,
}

/// What a shard blocks on: where it was rung before, it does not block.
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
            drop(self.blocked.lock().expect("nobody panics with the lock"));
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
        let mut blocked = self.blocked.lock().expect("nobody panics with the lock");
        while !self.rung.swap(false, Ordering::Acquire) {
            blocked = self.wake.wait(blocked).expect("nobody panics with the lock");
        }
    }
}

struct Runner {
    port: Port<Message>,
    inbox: Inbox<Post>,
    field: Arc<Field>,
    random: Random,
    doorbells: Arc<[Doorbell]>,
    held: usize,
    sent: Vec<Ledger>,
    received: Vec<Ledger>,
    received_posts: Vec<u64>,
}

/// A token from outside: who posts it, and its number among those from there to here.
struct Post {
    poster: usize,
    number: u64,
}

/// What threads that are no shard know of one.
struct Outside {
    mailbox: Mailbox<Post>,
    waker: Waker,
    doorbells: Arc<[Doorbell]>,
}

/// Nothing moved for that long, and the test gives up. A lost wake-up is for ever; a slow machine is not.
const STUCK: Duration = Duration::from_secs(60);

impl Relay {
    fn run(self, time: Duration, seed: u64) {
        let field = Arc::new(Field {
            closing: AtomicBool::new(false),
            over: AtomicBool::new(false),
            tokens: AtomicI64::new(0),
            progress: AtomicU64::new(0),
        });
        let (runners, outsides) = self.start_runners(&field, seed);
        self.post_all_tokens(&field, &outsides, seed);
        let posters: Vec<_> =
            (1..=self.posters).map(|poster| self.start_poster(poster, &field, &outsides, seed)).collect();
        wait_until(&field, Instant::now() + time, |_| false);
        field.closing.store(true, Ordering::Relaxed);
        posters.into_iter().for_each(|poster| poster.join().expect("posters do not panic"));
        wake_all(&outsides);
        wait_until(&field, Instant::now() + STUCK * 1000, |field| field.tokens.load(Ordering::Relaxed) == 0);
        field.over.store(true, Ordering::Relaxed);
        wake_all(&outsides);
        let runners: Vec<Runner> =
            runners.into_iter().map(|runner| runner.join().expect("runners do not panic")).collect();
        check_runners(&runners);
    }

    fn start_runners(self, field: &Arc<Field>, seed: u64) -> (Vec<JoinHandle<Runner>>, Arc<[Outside]>) {
        let Self { ring_messages, overflow_messages_max, .. } = self;
        let doorbells: Arc<[Doorbell]> = (0..self.shards).map(|_| Doorbell::new(self.spin)).collect();
        let (mut threads, mut outsides) = (Vec::new(), Vec::new());
        for mut port in mesh::<Message>(self.shards, MeshSettings { ring_messages, overflow_messages_max }) {
            let (mailbox, inbox) = port.inbox(2);
            outsides.push(Outside { mailbox, waker: port.waker(), doorbells: Arc::clone(&doorbells) });
            let runner = Runner {
                inbox,
                field: Arc::clone(field),
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
        (threads, outsides.into())
    }

    fn post_all_tokens(self, field: &Field, outsides: &[Outside], seed: u64) {
        let mut poster = Poster::new(0, outsides, seed);
        for _ in 0..self.tokens {
            poster.post(field, outsides);
        }
    }

    /// A thread that adds tokens for as long as there are not too many.
    fn start_poster(
        self,
        poster: usize,
        field: &Arc<Field>,
        outsides: &Arc<[Outside]>,
        seed: u64,
    ) -> JoinHandle<()> {
        let (field, outsides) = (Arc::clone(field), Arc::clone(outsides));
        thread::spawn(move || {
            let mut poster = Poster::new(poster, &outsides, seed);
            while !field.closing.load(Ordering::Relaxed) {
                if field.tokens.load(Ordering::Relaxed) < 2 * self.tokens {
                    poster.post(&field, &outsides);
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
    fn new(poster: usize, outsides: &[Outside], seed: u64) -> Self {
        Self { poster, posted: vec![0; outsides.len()], random: Random(!seed ^ (poster as u64) << 32) }
    }

    /// Posts one token to some shard, as often as it takes.
    fn post(&mut self, field: &Field, outsides: &[Outside]) {
        let to = self.random.below(outsides.len());
        field.tokens.fetch_add(1, Ordering::Relaxed);
        let mut post = Post { poster: self.poster, number: self.posted[to] };
        self.posted[to] += 1;
        loop {
            match outsides[to].mailbox.post(post) {
                Ok(true) => return outsides[to].doorbells[to].ring(),
                Ok(false) => return,
                Err(full) => post = full.0,
            }
            thread::yield_now();
        }
    }
}

impl Runner {
    fn run(mut self) -> Self {
        while !self.field.over.load(Ordering::Relaxed) {
            let held = self.held;
            self.take();
            if self.held > held {
                self.field.progress.fetch_add(1, Ordering::Relaxed);
            }
            self.pass_on();
            self.port.flush();
            self.port.doorbells(|peer| self.doorbells[peer].ring());
            // A token that was refused with nothing overflowing is tried again: nobody wakes us for it.
            let must_retry = self.held > 0 && !self.port.has_overflow();
            self.tarry();
            if !must_retry && self.port.try_sleep() {
                self.doorbells[self.port.shard()].wait();
                self.port.end_sleep();
            }
        }
        self
    }

    fn take(&mut self) {
        let max = 1 + self.random.below(8);
        let received = &mut self.received;
        self.held += self.port.receive(max, |from, message| received[from].enter_received(message));
        let received = &mut self.received_posts;
        self.held += self.inbox.receive(max, |post| {
            assert_eq!(post.number, received[post.poster], "posts of one thread arrive in order");
            received[post.poster] += 1;
        });
    }

    /// So that turns meet in every possible way.
    fn tarry(&mut self) {
        if self.random.one_in(256) {
            thread::yield_now();
        }
        for _ in 0..self.random.below(64) {
            std::hint::spin_loop();
        }
    }

    fn pass_on(&mut self) {
        if self.field.closing.load(Ordering::Relaxed) {
            self.field.tokens.fetch_sub(self.held as i64, Ordering::Relaxed);
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

/// Returns at the time, or when `done`; panics where nothing moves any more.
fn wait_until(field: &Field, time: Instant, done: impl Fn(&Field) -> bool) {
    let mut moved = (0, Instant::now());
    while Instant::now() < time && !done(field) {
        let progress = field.progress.load(Ordering::Relaxed);
        if progress != moved.0 {
            moved = (progress, Instant::now());
        }
        assert!(moved.1.elapsed() < STUCK, "a wake-up was lost: nobody moves");
        thread::park_timeout(Duration::from_millis(1));
    }
}

fn wake_all(outsides: &[Outside]) {
    for (outside, doorbell) in outsides.iter().zip(&*outsides[0].doorbells) {
        if outside.waker.needs_wake() {
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
