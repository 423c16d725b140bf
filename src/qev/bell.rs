//! Sleeping and waking: the state of each shard, one byte, without which a message could wait forever.
//!
//! A shard that has nothing to do *announces* that it will sleep, looks again at everything that others can send it,
//! and only then blocks. A sender first sends and then looks whether the receiver has announced that it sleeps. Both
//! write first and look second. Therefore at least one of them sees what the other has written:
//!
//! ```text
//! sender                                   sleeper
//! W1  push into the ring                   W2  state = ASLEEP           (Bell::announce_sleep)
//! F1  fence(SeqCst)                        F2  fence(SeqCst)            (Bell::announce_sleep)
//! L1  state is ASLEEP? then ring           L2  ring is empty? then block
//! ```
//!
//! **Why no wake-up is lost.** All threads agree on the order of the two fences. If F1 is first, L2 sees W1: the
//! sleeper finds the message and stays awake. If F2 is first, L1 sees W2 or a later change of the state. There are two
//! such changes:
//!
//! - Another thread has cleared ASLEEP. A thread that does this must ring, and the sleeper will be woken.
//! - The sleeper has cleared it. It is then awake and will announce itself again before it blocks. L1 read the state
//!   before that next announcement. Hence F1 comes before the fence of that announcement (otherwise L1 would have seen
//!   it), and the look that follows that fence finds the message.
//!
//! The stores and loads around the fences may be relaxed. `push` releases the message, and the receiver acquires it.
//! Acquire and release alone do not suffice: a processor may keep W1 in its store buffer while it performs L1, and
//! another may do the same with W2 and L2. Then neither thread would see what the other has written.
//!
//! **A full ring is the same problem in the other direction.** A sender whose messages did not fit may sleep too (it is
//! STARVING). W2 is its announcement, and L2 the check for room. W1 is the removal of a message by the receiver, and L1
//! the check for STARVING. Two shards cannot wait for each other: a shard sleeps only after it has received everything
//! that was sent to it. The shard that another one starves for therefore does not wait for room in a ring to that one.
//!
//! **Inboxes** are rings into which several threads push. All of this applies to them.
//!
//! **A [`Waker`] leaves a note** for things at which the sleeper does not look here, such as a flag. One atomic
//! exchange sets NOTED and clears ASLEEP. A shard with a note does not go to sleep, once. Every change of the state is
//! a read-modify-write: a note is never overwritten without being seen, and the thread that sees it also sees
//! everything that was written before it. Notes need no fence.
//!
//! The callers have two obligations. A thread that is told to ring must do it soon and in any case. A doorbell that
//! rings before its shard blocks must make the next block return at once, as an eventfd, a completion of a ring and the
//! token of `thread::park` do. An unnecessary ring does no harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};

/// The shard will block unless it finds something to do. A thread that clears this bit must ring.
const ASLEEP: u8 = 1;

/// Set together with `ASLEEP`: the shard also waits for room in a ring.
const STARVING: u8 = 2;

/// A thread has left a note: the shard must take another turn before it sleeps.
const NOTED: u8 = 4;

/// The state of one shard. It is on cache lines of its own, because peers read it in every turn in which they send
/// something.
///
/// Invariants: `STARVING` is set only together with `ASLEEP`, and `NOTED` only without them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Bell {
    state: AtomicU8,
}

impl Bell {
    /// Announces that this shard will sleep. The shard must look at everything again before it blocks.
    ///
    /// Returns `false`, and withdraws the announcement, if there is a note: the shard must take another turn.
    pub(super) fn announce_sleep(&self, starving: bool) -> bool {
        let sleep = if starving { ASLEEP | STARVING } else { ASLEEP };
        let before = self.state.swap(sleep, Ordering::AcqRel);
        debug_assert!(
            before & (ASLEEP | STARVING) == 0,
            "a shard must end its sleep before it announces another"
        );
        if before & NOTED != 0 {
            self.end_sleep();
            return false;
        }
        fence(Ordering::SeqCst);
        true
    }

    /// Withdraws the announcement after the shard was woken for any reason. A note stays: it costs one more turn, but
    /// the order of the caller's next steps does not matter.
    pub(super) fn end_sleep(&self) {
        self.state.fetch_and(!(ASLEEP | STARVING), Ordering::AcqRel);
    }

    /// Returns whether the caller must ring. The caller has sent something to this shard, followed by a `SeqCst` fence.
    pub(super) fn must_ring(&self) -> bool {
        self.must_ring_in(ASLEEP)
    }

    /// Returns whether the caller must ring. The caller has made room for this shard, followed by a `SeqCst` fence.
    pub(super) fn must_ring_starving(&self) -> bool {
        self.must_ring_in(STARVING)
    }

    /// Leaves a note. Returns whether the caller must ring.
    pub(super) fn leave_note(&self) -> bool {
        self.state.swap(NOTED, Ordering::AcqRel) & ASLEEP != 0
    }

    fn must_ring_in(&self, state: u8) -> bool {
        self.is_in(state) && self.claim()
    }

    /// Reads the state. This is cheap and usually suffices, because most shards are awake.
    fn is_in(&self, state: u8) -> bool {
        self.state.load(Ordering::Relaxed) & state != 0
    }

    /// Clears ASLEEP and returns whether it was set. This alone decides who rings, because the state may have changed
    /// since it was read.
    fn claim(&self) -> bool {
        self.state.fetch_and(!(ASLEEP | STARVING), Ordering::AcqRel) & ASLEEP != 0
    }
}

/// The handle by which a thread that is not a shard finds out whether it must wake a shard.
#[derive(Clone, Debug)]
pub struct Waker {
    bell: Arc<Bell>,
}

impl Waker {
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self { bell }
    }

    /// Ensures that the shard takes a turn, in which it sees everything that this thread wrote before the call, such as
    /// a flag. Returns `true` if the shard sleeps: the caller must then wake it at once and in any case.
    ///
    /// If there are several callers, only one of them must wake a sleeping shard. A shard that is awake takes one more
    /// turn before it sleeps.
    #[must_use = "a shard that is not woken continues to sleep"]
    pub fn needs_wake(&self) -> bool {
        self.bell.leave_note()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_of_many_callers_must_ring() {
        let bell = Bell::default();
        assert!(!bell.must_ring(), "awake");
        assert!(bell.announce_sleep(false));
        assert!(!bell.must_ring_starving(), "asleep, but not starving");
        assert!(bell.must_ring());
        assert!(!bell.must_ring(), "already rung");
        assert!(!bell.leave_note(), "already rung");
    }

    #[test]
    fn a_starving_sleeper_is_rung_for_either_reason() {
        let bell = Bell::default();
        for ring in [Bell::must_ring, Bell::must_ring_starving, Bell::leave_note] {
            bell.end_sleep();
            while !bell.announce_sleep(true) {}
            assert!(ring(&bell));
            assert!(!bell.must_ring() && !bell.must_ring_starving(), "already rung");
        }
    }

    #[test]
    fn a_note_keeps_the_shard_awake_once() {
        let bell = Bell::default();
        assert!(!bell.leave_note() && !bell.leave_note(), "awake");
        assert!(!bell.announce_sleep(false), "two notes cause one more turn");
        assert!(!bell.must_ring(), "still awake");
        assert!(bell.announce_sleep(false));
    }

    /// Runs all interleavings of the steps of a sleeper and of the threads that may wake it, as if all memory accesses
    /// were sequentially consistent. The sleeper must never stay asleep while something waits for it.
    #[test]
    fn no_schedule_loses_a_wake_up() {
        let casts: [&[Actor]; 6] = [
            &[Actor::Sender; 3],
            &[Actor::Sender, Actor::Sender, Actor::Noter],
            &[Actor::Noter; 3],
            &[Actor::Receiver, Actor::Receiver, Actor::Sender],
            &[Actor::Receiver, Actor::Sender, Actor::Noter],
            &[Actor::Receiver, Actor::Receiver, Actor::Noter],
        ];
        for cast in casts {
            let mut worlds = vec![World::new(cast)];
            let mut seen = BTreeSet::new();
            while let Some(world) = worlds.pop() {
                if !seen.insert(world.key()) {
                    continue;
                }
                let next = world.next_worlds();
                assert!(world.waiting == 0 || !next.is_empty(), "asleep while something waits: {world:?}");
                worlds.extend(next);
            }
            assert!(seen.len() > 100, "{cast:?} has {} states", seen.len());
        }
    }

    /// A thread that may wake the sleeper. It has three steps: it does something that the sleeper can find, reads the
    /// state, and clears ASLEEP.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Actor {
        Sender,
        /// Removes a message from a ring in which the sleeper waits for room.
        Receiver,
        /// Leaves a note for something that the sleeper sees only in a turn.
        Noter,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Sleeper {
        Announces,
        Looks,
        Blocks,
        Wakes,
        TakesATurn,
    }

    #[derive(Debug)]
    struct World {
        bell: Bell,
        sleeper: Sleeper,
        actors: Vec<(Actor, usize)>,
        /// The number of things that the sleeper finds when it looks.
        visible: usize,
        /// The number of things that the sleeper finds in a turn.
        waiting: usize,
        rung: bool,
    }

    impl World {
        fn new(cast: &[Actor]) -> Self {
            let actors = cast.iter().map(|actor| (*actor, 0)).collect();
            let (bell, sleeper) = (Bell::default(), Sleeper::Announces);
            Self { bell, sleeper, actors, visible: 0, waiting: 0, rung: false }
        }

        fn next_worlds(&self) -> Vec<Self> {
            let able = (0..self.actors.len()).filter(|at| self.actors[*at].1 < 3);
            let mut next: Vec<Self> = able.map(|at| self.copy().after_actor(at)).collect();
            if self.rung || !matches!(self.sleeper, Sleeper::Blocks) {
                next.push(self.copy().after_sleeper());
            }
            next
        }

        fn key(&self) -> (u8, Sleeper, Vec<usize>, usize, usize, bool) {
            let steps = self.actors.iter().map(|(_, step)| *step).collect();
            let state = self.bell.state.load(Ordering::Relaxed);
            (state, self.sleeper, steps, self.visible, self.waiting, self.rung)
        }

        fn copy(&self) -> Self {
            let bell = Bell { state: AtomicU8::new(self.bell.state.load(Ordering::Relaxed)) };
            Self { bell, actors: self.actors.clone(), ..*self }
        }

        fn after_actor(mut self, at: usize) -> Self {
            let (actor, step) = self.actors[at];
            self.actors[at].1 += 1;
            let looks_for = if actor == Actor::Receiver { STARVING } else { ASLEEP };
            match (step, actor) {
                (0, _) => {
                    self.waiting += 1;
                    self.visible += usize::from(actor != Actor::Noter);
                }
                (1, Actor::Noter) => self.rung |= self.bell.leave_note(),
                (1, _) if self.bell.is_in(looks_for) => {}
                (1, _) => self.actors[at].1 = 3,
                (_, Actor::Noter) => {}
                (_, _) => self.rung |= self.bell.claim(),
            }
            self
        }

        fn after_sleeper(mut self) -> Self {
            let starving = self.actors.iter().any(|(actor, _)| *actor == Actor::Receiver);
            self.sleeper = match self.sleeper {
                Sleeper::Announces if self.bell.announce_sleep(starving) => Sleeper::Looks,
                Sleeper::Announces => Sleeper::TakesATurn,
                Sleeper::Looks if self.visible == 0 => Sleeper::Blocks,
                Sleeper::Looks | Sleeper::Blocks => Sleeper::Wakes,
                Sleeper::Wakes => {
                    self.bell.end_sleep();
                    Sleeper::TakesATurn
                }
                Sleeper::TakesATurn => Sleeper::Announces,
            };
            match self.sleeper {
                Sleeper::Wakes => self.rung = false,
                // This step ends the turn, which has found everything.
                Sleeper::Announces => (self.visible, self.waiting) = (0, 0),
                _ => {}
            }
            self
        }
    }

    #[test]
    fn a_note_survives_waking_up() {
        let bell = Bell::default();
        assert!(bell.announce_sleep(false));
        assert!(bell.leave_note());
        bell.end_sleep();
        assert!(!bell.announce_sleep(false), "the note is older than the end of the sleep");
        assert!(bell.announce_sleep(false));
    }
}
