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
//! **Threads that are no shard** leave a note instead: one atomic exchange puts NOTED and takes ASLEEP away.
//! A shard that has a note does not go to sleep, once. Every change of the state is a read-modify-write, so a
//! note is never overwritten unseen, and whoever finds it also sees what was written before it. Notes need no
//! fence.
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

/// A thread that is no shard left something: the shard must take another turn before it sleeps.
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
        // The state may have changed between load and exchange: what counts is who took ASLEEP away.
        self.state.load(Ordering::Relaxed) & state != 0
            && self.state.fetch_and(!(ASLEEP | STARVING), Ordering::AcqRel) & ASLEEP != 0
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

    /// Makes sure that the shard takes a turn, in which it sees everything that this thread wrote before (an
    /// entry in a queue, a flag): `true` where it sleeps, and the caller must wake it, now and always.
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
