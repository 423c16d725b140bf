//! The share of a turn that each connection's received data gets.
//!
//! The kernel fills many buffers for a peer that sends as fast as it can: up to 32 at a time, and each can hold hundreds
//! of small messages. If all of them were handled at once, everybody else would wait for that peer. Each connection
//! therefore has a share of a turn, and a turn has a time limit. Buffers beyond that are deferred: they are the first of
//! the next turn. A peer that sends faster than its share allows is slowed down, because deferred buffers are not given
//! back to the kernel.

use crate::qev::ring::Token;
use std::time::Duration;

/// The share of a connection: the bytes after which its further buffers are deferred. They are four buffers of the
/// default size, or hundreds of small messages, which take less than a millisecond. A larger share would not make a
/// turn cheaper.
const CONNECTION_BYTES: usize = 16 << 10;

/// The share of a link, which carries the messages of many clients.
const LINK_BYTES: usize = 128 << 10;

/// The time after which all further buffers of a turn are deferred: time of the core. A shard that shares its core with
/// others would otherwise handle only a few buffers each time that it gets the core, and fall behind what it accepts.
const TURN_TIME: Duration = Duration::from_millis(4);

/// The number of buffers that are handled between two looks at the clock.
const BUFFERS_PER_LOOK: u32 = 8;

/// Decides which of a turn's received buffers are handled, and which are deferred.
///
/// Invariant: once a buffer of a connection is deferred, all later ones of the same connection are deferred too, until
/// the turn ends. The order of a connection's data is therefore kept if deferred buffers come first in the next turn.
#[derive(Debug)]
pub(super) struct ReceiveShares {
    /// The first token of a link. Smaller ones are connections.
    first_link: Token,
    /// The connection whose buffer was handled last, and the bytes of its buffers that were handled one after the other.
    last: Option<Token>,
    bytes: usize,
    /// The connections that have used up their share of this turn. They are few: each has several buffers.
    used_up: Vec<Token>,
    /// Buffers handled since the last look at the clock.
    handled: u32,
    /// The time at which this turn's buffers may have used up their time, or `None` if no look at the clock was needed yet.
    deadline_ns: Option<u64>,
    /// The core's time that the thread had used when the time of a turn was last used up.
    core_ns: u64,
    is_over: bool,
}

impl ReceiveShares {
    /// No shares are used. Tokens from `first_link` on belong to links.
    pub fn new(first_link: Token) -> ReceiveShares {
        ReceiveShares {
            first_link,
            last: None,
            bytes: 0,
            used_up: Vec::new(),
            handled: 0,
            deadline_ns: None,
            core_ns: 0,
            is_over: false,
        }
    }

    /// Begins a turn, in which every connection has its full share.
    pub fn begin_turn(&mut self) {
        (self.last, self.bytes, self.handled) = (None, 0, 0);
        self.used_up.clear();
        (self.deadline_ns, self.is_over) = (None, false);
    }

    /// Returns whether a buffer with this many bytes is handled in this turn. `now_ns` and `core_ns`, the core's time that
    /// the thread has used, are only called when these clocks are needed.
    #[inline]
    pub fn admit(
        &mut self,
        token: Token,
        bytes: usize,
        now_ns: impl FnOnce() -> u64,
        core_ns: impl FnOnce() -> u64,
    ) -> bool {
        if self.is_deferred(token) {
            return false;
        }
        if self.last != Some(token) {
            (self.last, self.bytes) = (Some(token), 0);
        }
        let share = if token < self.first_link { CONNECTION_BYTES } else { LINK_BYTES };
        if self.bytes >= share {
            self.used_up.push(token);
            return false;
        }
        self.bytes += bytes;
        self.handled += 1;
        if self.handled == BUFFERS_PER_LOOK {
            self.handled = 0;
            self.look(now_ns(), core_ns);
        }
        true
    }

    /// Notes that the buffer that was handled last was as much work as one with these bytes more: its messages were
    /// inflated. They count against the connection's share, and the clock is looked at before the next buffer.
    #[inline]
    pub fn charge(&mut self, token: Token, bytes: usize) {
        if bytes == 0 {
            return;
        }
        debug_assert!(self.last == Some(token), "the work of a buffer is charged when it has been handled");
        self.bytes = self.bytes.saturating_add(bytes);
        self.handled = BUFFERS_PER_LOOK - 1;
    }

    /// Returns whether the further completions of a connection's receive are deferred in this turn.
    #[inline]
    pub fn is_deferred(&self, token: Token) -> bool {
        self.is_over || !self.used_up.is_empty() && self.used_up.contains(&token)
    }

    fn look(&mut self, now_ns: u64, core_ns: impl FnOnce() -> u64) {
        let turn_ns = TURN_TIME.as_nanos() as u64;
        if now_ns < *self.deadline_ns.get_or_insert(now_ns + turn_ns) {
            return;
        }
        // Reading the core's time is a system call, which a turn that ends earlier does without. What was used in earlier
        // turns, since their time was last used up, counts too.
        let core_ns = core_ns();
        match turn_ns.checked_sub(core_ns.saturating_sub(self.core_ns)) {
            Some(left_ns @ 1..) => self.deadline_ns = Some(now_ns + left_ns),
            _ => (self.is_over, self.core_ns) = (true, core_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, VecDeque};

    const LINK: Token = 1000;
    const BUFFER: usize = 4096;

    fn shares() -> ReceiveShares {
        ReceiveShares::new(LINK)
    }

    #[test]
    fn a_connection_gets_its_share_of_each_turn() {
        let mut shares = shares();
        for _ in 0..2 {
            shares.begin_turn();
            let admitted = (0..10).filter(|_| shares.admit(1, BUFFER, || 0, || 0)).count();
            assert_eq!(admitted, CONNECTION_BYTES / BUFFER);
            assert!(shares.admit(2, BUFFER, || 0, || 0), "another connection has its own share");
            assert!(
                !shares.admit(1, BUFFER, || 0, || 0),
                "a later buffer must not overtake those that are deferred"
            );
            assert!(shares.is_deferred(1) && !shares.is_deferred(2));
        }
    }

    #[test]
    fn one_buffer_of_any_size_is_handled() {
        let mut shares = shares();
        shares.begin_turn();
        assert!(shares.admit(1, 1 << 20, || 0, || 0));
        assert!(!shares.admit(1, 1, || 0, || 0));
    }

    #[test]
    fn a_link_has_a_larger_share() {
        let mut shares = shares();
        shares.begin_turn();
        let admitted = (0..100).filter(|_| shares.admit(LINK, BUFFER, || 0, || 0)).count();
        assert_eq!(admitted, LINK_BYTES / BUFFER);
    }

    #[test]
    fn a_turn_ends_after_its_time() {
        let mut shares = shares();
        shares.begin_turn();
        let mut now_ns = 0;
        // A millisecond for each buffer, and a connection for each.
        let admitted = (0..100)
            .filter(|token| {
                now_ns += 1_000_000;
                shares.admit(*token, BUFFER, || now_ns, || now_ns)
            })
            .count();
        assert_eq!(admitted, 16, "the first look begins the time, the second one ends it");
        assert!(shares.is_deferred(999));
        shares.begin_turn();
        assert!(!shares.is_deferred(999));
    }

    /// A thread that waits for its core handles as much as one that does not.
    #[test]
    fn time_without_the_core_does_not_end_a_turn() {
        let mut shares = shares();
        let (mut now_ns, mut core_ns) = (0, 1_000_000_000);
        for turn in 0..3 {
            shares.begin_turn();
            // A tenth of a millisecond of the core for each buffer, and a hundred times as long without it.
            let admitted = (0..1000)
                .take_while(|token| {
                    (now_ns, core_ns) = (now_ns + 10_000_000, core_ns + 100_000);
                    shares.admit(*token, BUFFER, || now_ns, || core_ns)
                })
                .count();
            // The first turn does not know what the thread has used before.
            assert!(turn == 0 || (40..=56).contains(&admitted), "{admitted}");
        }
    }

    #[test]
    fn inflated_bytes_count_as_received_ones() {
        let mut shares = shares();
        shares.begin_turn();
        let clock = std::cell::Cell::new(1_000_000_000_u64);
        let now = || clock.get();
        assert!(shares.admit(1, 100, now, now));
        shares.charge(1, 0);
        assert!(shares.admit(1, 100, now, now));
        shares.charge(1, CONNECTION_BYTES);
        assert!(!shares.admit(1, 100, now, now), "its share is used up");
        // Each inflated buffer is followed by a look at the clock.
        let mut admitted = 0;
        for token in 2..1000 {
            if !shares.admit(token, 100, now, now) {
                break;
            }
            shares.charge(token, 1 << 20);
            clock.set(clock.get() + 1_000_000);
            admitted += 1;
        }
        assert!((4..=7).contains(&admitted), "{admitted}");
    }

    proptest! {
        /// Deferred buffers come first in the next turn: the order of each connection's buffers is kept, and all of them
        /// are handled in the end.
        #[test]
        fn the_order_of_each_connections_data_is_kept(
            turns in prop::collection::vec(prop::collection::vec((0..4_u32, 1..20_000_usize), 0..40), 1..8),
            pace_ns in 0..2_000_000_u64,
        ) {
            let (mut shares, mut queue) = (shares(), VecDeque::new());
            let (mut now_ns, mut serial, mut total) = (0, 0_u32, 0);
            let mut handled: BTreeMap<Token, Vec<u32>> = BTreeMap::new();
            for arrived in turns.into_iter().chain(std::iter::repeat_n(Vec::new(), 400)) {
                for (token, bytes) in arrived {
                    queue.push_back((token, bytes, serial));
                    (serial, total) = (serial + 1, total + 1);
                }
                shares.begin_turn();
                for _ in 0..queue.len() {
                    let Some((token, bytes, number)) = queue.pop_front() else { break };
                    now_ns += pace_ns;
                    if shares.admit(token, bytes, || now_ns, || now_ns) {
                        handled.entry(token).or_default().push(number);
                    } else {
                        queue.push_back((token, bytes, number));
                    }
                }
            }
            prop_assert_eq!(handled.values().map(Vec::len).sum::<usize>(), total);
            for numbers in handled.values() {
                prop_assert!(numbers.is_sorted(), "{:?}", numbers);
            }
        }
    }
}
