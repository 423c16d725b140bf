//! Who sleeps, and who must wake whom: one byte for each shard, without which a message could wait for ever.
//!
//! A shard that has nothing to do *announces* that it will sleep, looks once more at everything that it could
//! be sent, and only then blocks. Whoever sends something looks, afterwards, whether the receiver announced
//! itself. Both write first and look second, so at least one of them sees the other:
//!
//! ```text
//! sender                                   sleeper
//! W1  push into the ring                   W2  state = ASLEEP           (Bell::announce)
//! F1  fence(SeqCst)                        F2  fence(SeqCst)            (Bell::announce)
//! L1  state is ASLEEP? then ring           L2  ring is empty? then block
//! ```
//!
//! **Why nothing is lost.** The two fences have one order that all threads agree on. If F1 is first, L2 sees
//! W1: the sleeper finds the message and stays awake. If F2 is first, L1 sees W2, or a later change of the
//! state; these are all there can be:
//!
//! - someone else took ASLEEP away, and who does that must ring: so the sleeper will be woken;
//! - the sleeper took it away itself: it is awake, and will announce itself again before it blocks. L1 read
//!   the state before that next announcement, so F1 comes before the fence of it (or L1 would have seen it),
//!   and the look that follows finds the message.
//!
//! Stores and loads around the fences may be relaxed; `push` releases the message and the receiver acquires
//! it. Acquire and release alone would not do: a processor may keep W1 in its store buffer while it performs
//! L1, and the same with W2 and L2, and then neither sees the other.
//!
//! **A full ring is the same the other way round.** A sender whose messages did not fit (it is STARVING)
//! sleeps too: W2 is its announcement, L2 whether there is room by now; W1 is the receiver's taking of a
//! message, L1 whether the sender is STARVING. Two shards cannot wait for each other: one sleeps only while
//! everything sent to it was taken, so whoever it starves for is not waiting for room in a ring to it.
//!
//! **Inboxes** are rings that several threads push into: all of this holds for them.
//!
//! **A [`Waker`] leaves a note**, for what the sleeper does not look at here (a flag, say): one atomic
//! exchange puts NOTED and takes ASLEEP away. A shard that has a note does not go to sleep, once. Every
//! change of the state is a read-modify-write, so a note is never overwritten unseen, and whoever finds it
//! also sees what was written before it. Notes need no fence.
//!
//! What the callers owe: who is told to ring does so, soon and always; and a doorbell that rings while its
//! shard is not blocked yet makes the next block return at once (an eventfd, a ring's completion, a thread's
//! park token are all like that). A doorbell too many does no harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};

/// The shard will block unless it finds something; who clears this must ring.
const ASLEEP: u8 = 1;

/// Beside `ASLEEP`: the shard waits for room in a ring, too.
const STARVING: u8 = 2;

/// A thread left a note: the shard must take another turn before it sleeps.
const NOTED: u8 = 4;

/// The state of one shard, on cache lines of its own: peers look at it in every turn in which they sent
/// something.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Bell {
    state: AtomicU8,
}

impl Bell {
    /// Announces that this shard will sleep: it must look at everything once more before it does.
    ///
    /// `false`, and awake again, where a note was left: the shard must take another turn.
    pub(super) fn announce(&self, starving: bool) -> bool {
        let sleep = if starving { ASLEEP | STARVING } else { ASLEEP };
        let before = self.state.swap(sleep, Ordering::AcqRel);
        if before & NOTED != 0 {
            self.awake();
            return false;
        }
        fence(Ordering::SeqCst);
        true
    }

    /// Takes the announcement back, whoever woke the shard. A note that was left stays: it costs one more
    /// turn, and spares the caller to take care what it does first.
    pub(super) fn awake(&self) {
        self.state.fetch_and(!(ASLEEP | STARVING), Ordering::AcqRel);
    }

    /// Whether the caller must ring, having sent something to this shard and passed a `SeqCst` fence since.
    pub(super) fn must_ring(&self) -> bool {
        self.must_ring_in(ASLEEP)
    }

    /// Whether the caller must ring, having made room for this shard and passed a `SeqCst` fence since.
    pub(super) fn must_ring_starving(&self) -> bool {
        self.must_ring_in(STARVING)
    }

    /// Leaves a note. Whether the caller must ring.
    pub(super) fn note(&self) -> bool {
        self.state.swap(NOTED, Ordering::AcqRel) & ASLEEP != 0
    }

    fn must_ring_in(&self, state: u8) -> bool {
        self.is_in(state) && self.claim()
    }

    /// A look that costs little: most are awake.
    fn is_in(&self, state: u8) -> bool {
        self.state.load(Ordering::Relaxed) & state != 0
    }

    /// Takes ASLEEP away; whether it was there. That alone decides, as the state may have changed since the
    /// look.
    fn claim(&self) -> bool {
        self.state.fetch_and(!(ASLEEP | STARVING), Ordering::AcqRel) & ASLEEP != 0
    }
}

/// Tells a thread that is no shard whether it has to wake one.
#[derive(Clone, Debug)]
pub struct Waker {
    bell: Arc<Bell>,
}

impl Waker {
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self { bell }
    }

    /// Makes sure that the shard takes a turn, in which it sees everything that this thread wrote before (a
    /// flag, say): `true` where it sleeps, and the caller must wake it, now and always.
    ///
    /// Only one of several callers is told to wake a sleeping shard. One that is awake takes a turn more
    /// before it sleeps.
    #[must_use = "a shard that is not woken sleeps on"]
    pub fn needs_wake(&self) -> bool {
        self.bell.note()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_of_many_is_told_to_ring() {
        let bell = Bell::default();
        assert!(!bell.must_ring(), "awake");
        assert!(bell.announce(false));
        assert!(!bell.must_ring_starving(), "asleep, but not for want of room");
        assert!(bell.must_ring());
        assert!(!bell.must_ring(), "rung already");
        assert!(!bell.note(), "rung already");
    }

    #[test]
    fn a_starving_sleeper_is_rung_for_either_reason() {
        let bell = Bell::default();
        for ring in [Bell::must_ring, Bell::must_ring_starving, Bell::note] {
            bell.awake();
            while !bell.announce(true) {}
            assert!(ring(&bell));
            assert!(!bell.must_ring() && !bell.must_ring_starving(), "rung already");
        }
    }

    #[test]
    fn a_note_keeps_the_shard_awake_once() {
        let bell = Bell::default();
        assert!(!bell.note() && !bell.note(), "awake");
        assert!(!bell.announce(false), "two notes are one turn more");
        assert!(!bell.must_ring(), "still awake");
        assert!(bell.announce(false));
    }

    /// All interleavings of the steps of a sleeper and of those who may wake it, in which the fences are as
    /// good as done: the sleeper ends up asleep, and nothing waits for it.
    #[test]
    fn no_schedule_loses_a_wake_up() {
        let casts: [&[Actor]; 6] = [
            &[Actor::Sender; 3],
            &[Actor::Sender, Actor::Sender, Actor::Noter],
            &[Actor::Noter; 3],
            &[Actor::Taker, Actor::Taker, Actor::Sender],
            &[Actor::Taker, Actor::Sender, Actor::Noter],
            &[Actor::Taker, Actor::Taker, Actor::Noter],
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

    /// Whoever may wake the sleeper has three steps: something to be found, the look at the bell, the claim.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Actor {
        Sender,
        /// Takes from a ring that the sleeper waits for, so that there is room.
        Taker,
        /// Leaves a note for something that the sleeper only sees in a turn.
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
        /// What the sleeper finds when it looks, and all that it finds in a turn.
        visible: usize,
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
            let looks_for = if actor == Actor::Taker { STARVING } else { ASLEEP };
            match (step, actor) {
                (0, _) => {
                    self.waiting += 1;
                    self.visible += usize::from(actor != Actor::Noter);
                }
                (1, Actor::Noter) => self.rung |= self.bell.note(),
                (1, _) if self.bell.is_in(looks_for) => {}
                (1, _) => self.actors[at].1 = 3,
                (_, Actor::Noter) => {}
                (_, _) => self.rung |= self.bell.claim(),
            }
            self
        }

        fn after_sleeper(mut self) -> Self {
            let starving = self.actors.iter().any(|(actor, _)| *actor == Actor::Taker);
            self.sleeper = match self.sleeper {
                Sleeper::Announces if self.bell.announce(starving) => Sleeper::Looks,
                Sleeper::Announces => Sleeper::TakesATurn,
                Sleeper::Looks if self.visible == 0 => Sleeper::Blocks,
                Sleeper::Looks | Sleeper::Blocks => Sleeper::Wakes,
                Sleeper::Wakes => {
                    self.bell.awake();
                    Sleeper::TakesATurn
                }
                Sleeper::TakesATurn => Sleeper::Announces,
            };
            match self.sleeper {
                Sleeper::Wakes => self.rung = false,
                // The turn's end is this step: it found all that there was.
                Sleeper::Announces => (self.visible, self.waiting) = (0, 0),
                _ => {}
            }
            self
        }
    }

    #[test]
    fn a_note_outlives_waking_up() {
        let bell = Bell::default();
        assert!(bell.announce(false));
        assert!(bell.note());
        bell.awake();
        assert!(!bell.announce(false), "whatever was done before awake()");
        assert!(bell.announce(false));
    }
}
