//! Tests of the races that could lose a wake-up, one at a time. A shard goes to sleep at the same moment at which
//! another thread gives it something to do. If the shard sleeps, it must have been rung.
//!
//! The result of each round is exact and does not depend on a clock. The delays of the two threads go through all
//! pairs, which makes them meet in many ways. `QUICKIO_FUZZ_MILLIS` is the duration of each race (300). Machines
//! differ: to find a race that is lost once in a million rounds, run an optimized build for a long time.

use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quickio::qev::mesh::{Class, MeshSettings, Port, SendOutcome, mesh};

#[test]
fn a_message_arrives() {
    let (mut sleeper, mut sender) = pair();
    race(
        |step| match step {
            Step::Prepare => false,
            Step::Race => sleeper.try_sleep(),
            Step::CleanUp => clean_up(&mut sleeper, 1),
            Step::FinishCleaningUp => false,
        },
        |step| match step {
            Step::Race => {
                let _ = sender.send(0, 7, Class::Data);
                must_ring(&mut sender)
            }
            _ => false,
        },
    );
}

/// In each round the sender creates its first ring and a second one, and gives the second one back.
#[test]
fn messages_arrive_in_new_rings() {
    let (mut sleeper, mut sender) = pair_of(64);
    race(
        |step| match step {
            Step::Race => sleeper.try_sleep(),
            Step::CleanUp => {
                sleeper.end_sleep();
                let mut next = 0;
                sleeper.receive(usize::MAX, |_, number| {
                    assert_eq!(number, next);
                    next += 1;
                });
                assert_eq!(next, 9);
                must_ring(&mut sleeper)
            }
            _ => false,
        },
        |step| match step {
            Step::Race => {
                for number in 0..9 {
                    assert_eq!(sender.send(0, number, Class::Data), SendOutcome::Queued);
                }
                must_ring(&mut sender)
            }
            Step::FinishCleaningUp => {
                (0..GIVEN_BACK_AFTER).for_each(|_| sender.flush());
                false
            }
            _ => false,
        },
    );
}

/// The sender creates rings and gives them back while the receiver looks into them.
#[test]
fn rings_grow_and_are_given_back_while_messages_are_received() {
    let (mut receiver, mut sender) = pair_of(256);
    let end = Instant::now() + Duration::from_millis(millis());
    let over = AtomicBool::new(false);
    let (sent, received) = thread::scope(|scope| {
        let sends = scope.spawn(|| {
            let mut sent = 0;
            for round in 0_u32.. {
                for _ in 0..round * 7 % 101 {
                    let outcome =
                        sender.send(0, sent, if round % 3 == 0 { Class::Control } else { Class::Data });
                    sent += u32::from(!matches!(outcome, SendOutcome::Refused(_)));
                }
                sender.doorbells(|_| ());
                sender.flush();
                if round % 5 == 0 && !sender.has_overflow() {
                    (0..GIVEN_BACK_AFTER).for_each(|_| sender.flush());
                }
                if Instant::now() >= end {
                    break;
                }
            }
            while sender.has_overflow() {
                sender.flush();
            }
            over.store(true, Ordering::Release);
            sent
        });
        let mut received = 0;
        loop {
            let is_over = over.load(Ordering::Acquire);
            // The classes have an order of their own each, which the stress tests check.
            let count = receiver.receive(received % 31 + 1, |_, _| ());
            received += count;
            if count == 0 && is_over {
                break (sends.join().expect("the sender does not panic"), received);
            }
        }
    });
    assert_eq!(received, sent as usize);
}

#[test]
fn room_is_made_for_a_message_that_overflowed() {
    let (mut sleeper, mut receiver) = pair();
    race(
        |step| match step {
            Step::Prepare => {
                let _ = sleeper.send(1, 1, Class::Control);
                let _ = sleeper.send(1, 2, Class::Control);
                assert!(sleeper.has_overflow());
                must_ring(&mut sleeper)
            }
            Step::Race => sleeper.try_sleep(),
            Step::CleanUp => {
                sleeper.flush();
                assert!(!sleeper.has_overflow());
                clean_up(&mut sleeper, 0)
            }
            Step::FinishCleaningUp => false,
        },
        |step| match step {
            Step::Race => {
                assert_eq!(receiver.receive(1, |_, number| assert_eq!(number, 1)), 1);
                must_ring(&mut receiver)
            }
            Step::FinishCleaningUp => clean_up(&mut receiver, 1),
            _ => false,
        },
    );
}

#[test]
fn a_message_is_posted() {
    let (mut sleeper, _peer) = pair();
    let (mailbox, mut inbox) = sleeper.inbox(1);
    race(
        |step| match step {
            Step::Race => sleeper.try_sleep(),
            Step::CleanUp => {
                assert_eq!(inbox.receive(2, |number: u32| assert_eq!(number, 7)), 1);
                clean_up(&mut sleeper, 0)
            }
            _ => false,
        },
        |step| match step {
            Step::Race => mailbox.post(7).expect("the inbox was emptied"),
            _ => false,
        },
    );
}

#[test]
fn a_note_is_left() {
    let (mut sleeper, _peer) = pair();
    let waker = sleeper.waker();
    race(
        |step| match step {
            Step::Race => sleeper.try_sleep(),
            Step::CleanUp => {
                sleeper.end_sleep();
                // A note keeps the shard awake for at most one turn.
                assert!(sleeper.try_sleep() || sleeper.try_sleep());
                clean_up(&mut sleeper, 0)
            }
            _ => false,
        },
        |step| match step {
            Step::Race => waker.needs_wake(),
            _ => false,
        },
    );
}

/// A number of calls of `flush` after which a ring that has grown and is empty was given back.
const GIVEN_BACK_AFTER: usize = 2050;

fn pair() -> (Port<u32>, Port<u32>) {
    pair_of(1)
}

fn pair_of(ring_messages: usize) -> (Port<u32>, Port<u32>) {
    let mut ports = mesh(2, MeshSettings { ring_messages, overflow_bytes_max: 100 }).into_iter();
    (ports.next().expect("shard 0"), ports.next().expect("shard 1"))
}

/// Returns whether the other shard must be woken.
fn must_ring(port: &mut Port<u32>) -> bool {
    let mut rung = false;
    port.doorbells(|_| rung = true);
    rung
}

/// Ends the sleep of the port and receives the waiting messages. Returns whether the other shard must be woken.
fn clean_up(port: &mut Port<u32>, waiting: usize) -> bool {
    port.end_sleep();
    assert_eq!(port.receive(2, |_, _| ()), waiting);
    must_ring(port)
}

/// A step of a round. Both threads begin each step together.
#[derive(Clone, Copy)]
enum Step {
    Prepare,
    Race,
    CleanUp,
    FinishCleaningUp,
}

/// Runs rounds in two threads. In [`Step::Race`], `sleep` returns whether the shard sleeps, and `wake` whether it was
/// rung.
fn race(mut sleep: impl FnMut(Step) -> bool + Send, mut wake: impl FnMut(Step) -> bool + Send) {
    // Races run one at a time, because both threads of a race must run at the same time, even on a machine with two
    // cores.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let end = Instant::now() + Duration::from_millis(millis());
    let (barrier, over, rang) = (SpinBarrier::default(), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u64.. {
                barrier.pass(|| wake(Step::Prepare));
                barrier.pass(|| {
                    delay(round % 67);
                    rang.store(wake(Step::Race), Ordering::Relaxed);
                });
                barrier.pass(|| wake(Step::CleanUp));
                over.store(Instant::now() >= end, Ordering::Relaxed);
                barrier.pass(|| wake(Step::FinishCleaningUp));
                if over.load(Ordering::Relaxed) {
                    return println!("{} rounds", round + 1);
                }
            }
        });
        let mut lost = 0;
        for round in 0_u64.. {
            barrier.pass(|| sleep(Step::Prepare));
            let asleep = barrier.pass(|| {
                delay(round % 71);
                sleep(Step::Race)
            });
            lost += u64::from(asleep && !rang.load(Ordering::Relaxed));
            barrier.pass(|| sleep(Step::CleanUp));
            barrier.pass(|| sleep(Step::FinishCleaningUp));
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
        assert_eq!(lost, 0, "wake-ups lost: the shard slept, but was not rung");
    });
}

fn millis() -> u64 {
    std::env::var("QUICKIO_FUZZ_MILLIS").map_or(300, |value| value.parse().expect("a number"))
}

fn delay(spins: u64) {
    (0..spins).for_each(|spin| {
        std::hint::black_box(spin);
    });
}

/// A barrier at which two threads wait for each other. They spin, and therefore continue at the same moment.
#[derive(Default)]
struct SpinBarrier {
    arrived: AtomicU64,
}

impl SpinBarrier {
    /// Performs a step. Returns when the other thread has performed it too.
    fn pass<T>(&self, step: impl FnOnce() -> T) -> T {
        let done = step();
        let number = self.arrived.fetch_add(1, Ordering::AcqRel);
        let all = number - number % 2 + 2;
        for spins in 1.. {
            if self.arrived.load(Ordering::Acquire) >= all {
                break;
            }
            spin_loop();
            if spins % 256 == 0 {
                thread::yield_now();
            }
        }
        done
    }
}
