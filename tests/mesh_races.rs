//! The races that could lose a wake-up, one at a time: a shard goes to sleep at the very moment at which
//! another thread gives it something to do. Whenever it sleeps, it must have been rung.
//!
//! The verdict is exact in every round, and needs no clock; the delays on both sides go through all pairs, so
//! that the two meet in many ways. `QUICKIO_FUZZ_MILLIS` is how long each race is run (300): machines differ,
//! and a race that is lost once in a million rounds takes a long run of an optimized build to be found.

use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quickio::qev::mesh::{Class, MeshSettings, Port, mesh};

#[test]
fn a_message_arrives() {
    let (mut sleeper, mut sender) = pair();
    race(
        |step| match step {
            Step::Prepare => false,
            Step::Race => sleeper.try_sleep(),
            Step::CleanUp => tidy(&mut sleeper, 1),
            Step::FinishCleaningUp => false,
        },
        |step| match step {
            Step::Race => {
                let _ = sender.send(0, 7, Class::Data);
                rings(&mut sender)
            }
            _ => false,
        },
    );
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
                rings(&mut sleeper)
            }
            Step::Race => sleeper.try_sleep(),
            Step::CleanUp => {
                sleeper.flush();
                assert!(!sleeper.has_overflow());
                tidy(&mut sleeper, 0)
            }
            Step::FinishCleaningUp => false,
        },
        |step| match step {
            Step::Race => {
                assert_eq!(receiver.receive(1, |_, number| assert_eq!(number, 1)), 1);
                rings(&mut receiver)
            }
            Step::FinishCleaningUp => tidy(&mut receiver, 1),
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
                tidy(&mut sleeper, 0)
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
                // Whether or not the note is gone, it keeps nobody awake for longer than a turn.
                assert!(sleeper.try_sleep() || sleeper.try_sleep());
                tidy(&mut sleeper, 0)
            }
            _ => false,
        },
        |step| match step {
            Step::Race => waker.needs_wake(),
            _ => false,
        },
    );
}

fn pair() -> (Port<u32>, Port<u32>) {
    let mut ports = mesh(2, MeshSettings { ring_messages: 1, overflow_messages_max: 1 }).into_iter();
    (ports.next().expect("shard 0"), ports.next().expect("shard 1"))
}

/// Whether the other must be woken.
fn rings(port: &mut Port<u32>) -> bool {
    let mut rung = false;
    port.doorbells(|_| rung = true);
    rung
}

/// Leaves the port awake, with nothing to do.
fn tidy(port: &mut Port<u32>, waiting: usize) -> bool {
    port.end_sleep();
    assert_eq!(port.receive(2, |_, _| ()), waiting);
    rings(port)
}

/// What happens in a round; both sides pass each step together.
#[derive(Clone, Copy)]
enum Step {
    Prepare,
    Race,
    CleanUp,
    FinishCleaningUp,
}

/// Runs rounds in two threads. In [`Step::Race`] the first says whether it sleeps, the second whether it
/// rang.
fn race(mut sleeps: impl FnMut(Step) -> bool + Send, mut rings: impl FnMut(Step) -> bool + Send) {
    // One race at a time: the two of it have to run at once, on machines with two cores, too.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let end = Instant::now() + Duration::from_millis(millis());
    let (meeting, over, rang) = (Meeting::default(), AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u64.. {
                meeting.pass(|| rings(Step::Prepare));
                meeting.pass(|| {
                    delay(round % 67);
                    rang.store(rings(Step::Race), Ordering::Relaxed);
                });
                meeting.pass(|| rings(Step::CleanUp));
                over.store(Instant::now() >= end, Ordering::Relaxed);
                meeting.pass(|| rings(Step::FinishCleaningUp));
                if over.load(Ordering::Relaxed) {
                    return println!("{} rounds", round + 1);
                }
            }
        });
        let mut lost = 0;
        for round in 0_u64.. {
            meeting.pass(|| sleeps(Step::Prepare));
            let asleep = meeting.pass(|| {
                delay(round % 71);
                sleeps(Step::Race)
            });
            lost += u64::from(asleep && !rang.load(Ordering::Relaxed));
            meeting.pass(|| sleeps(Step::CleanUp));
            meeting.pass(|| sleeps(Step::FinishCleaningUp));
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
        assert_eq!(lost, 0, "wake-ups lost: the shard slept, and nobody rang");
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

/// Where two threads wait for each other, spinning, so that they go on at the same moment.
#[derive(Default)]
struct Meeting {
    arrived: AtomicU64,
}

impl Meeting {
    /// Takes a step; returns when the other took it, too.
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
