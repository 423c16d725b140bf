//! The shares that clients have of a limit which they use together. One client cannot use it up: the more is used, the
//! less of it a single client may hold.

use crate::client::ClientId;
use ahash::AHashMap;
use std::hash::Hash;

/// The part of what is free, as its divisor, that one client may hold. One client alone gets up to a fifth of the limit:
/// a quarter of what it leaves free.
const PART: usize = 4;

/// The part of the limit, as its divisor, that is reserved for clients that hold nothing yet.
const RESERVE: usize = 4;

/// The number of clients for which an empty table keeps its memory.
const KEPT_CLIENTS_MAX: usize = 1024;

/// A limit that clients use together, and the part of it that each of them holds. A client is one connection, or whatever else
/// `K` names, such as an address.
///
/// - A client may take more while it holds less than a quarter of what is free, or less than `small`.
/// - When only the last quarter of the limit is free, a client may take something only if it holds nothing.
///
/// Invariant, which [`check`](Shares::check) asserts: `used` is the sum of what the clients hold, and no client is
/// listed that holds nothing.
pub struct Shares<K = ClientId> {
    max: usize,
    /// A client may hold this much as long as the last quarter has not been reached.
    small: usize,
    used: usize,
    held: AHashMap<K, usize>,
}

/// The reason why a client may not take more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShareRefusal {
    /// The limit is reached.
    Full,
    /// The client holds its share.
    Share,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// Returns a limit of which nothing is used.
    pub fn new(max: usize, small: usize) -> Shares<K> {
        Shares { max, small, used: 0, held: AHashMap::new() }
    }

    /// Checks whether a client may take more.
    ///
    /// # Errors
    ///
    /// The reason why it may not.
    pub fn admit(&self, client: K) -> Result<(), ShareRefusal> {
        self.admit_of(client, self.used)
    }

    /// As [`admit`](Shares::admit), if `used` of the limit are used, by others than clients as well.
    pub fn admit_of(&self, client: K, used: usize) -> Result<(), ShareRefusal> {
        admit(self.max, self.small, used, self.held.get(&client).copied().unwrap_or_default())
    }

    /// Records that a client has taken `n`.
    pub fn add(&mut self, client: K, n: usize) {
        self.used += n;
        *self.held.entry(client).or_default() += n;
    }

    /// Records that a client has given `n` back.
    pub fn remove(&mut self, client: K, n: usize) {
        let held = self.held.get_mut(&client).expect("a client gives back only what it holds");
        *held -= n;
        if *held == 0 {
            self.held.remove(&client);
        }
        self.used -= n;
    }

    /// Records that all clients have given everything back. The memory of a large table is released.
    pub fn clear(&mut self) {
        self.used = 0;
        if self.held.capacity() > KEPT_CLIENTS_MAX {
            self.held = AHashMap::new();
        } else {
            self.held.clear();
        }
    }

    /// Returns how much all clients hold together.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Asserts the invariants. Linear in the number of clients that hold something.
    pub fn check(&self) {
        assert_eq!(
            self.used,
            self.held.values().sum::<usize>(),
            "what is used is the sum of what clients hold"
        );
        assert!(self.held.values().all(|held| *held > 0), "a client is listed that holds nothing");
    }
}

/// Checks whether a client that holds `held` may take more of the limit `max`, of which `used` are used; see [`Shares`].
///
/// # Errors
///
/// The reason why it may not.
pub fn admit(max: usize, small: usize, used: usize, held: usize) -> Result<(), ShareRefusal> {
    if used >= max {
        return Err(ShareRefusal::Full);
    }
    let free = max - used;
    let share = if free <= max / RESERVE { 0 } else { small.max(free / PART) };
    if held == 0 || held < share { Ok(()) } else { Err(ShareRefusal::Share) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn client(slot: u32) -> ClientId {
        ClientId { shard: 0, slot, generation: 1 }
    }

    /// Takes as much as a client may, one at a time.
    fn fill(shares: &mut Shares, client: ClientId) -> usize {
        let mut taken = 0;
        while shares.admit(client).is_ok() {
            shares.add(client, 1);
            taken += 1;
        }
        shares.check();
        taken
    }

    #[test]
    fn one_client_leaves_most_of_it_to_others() {
        let mut shares = Shares::new(1000, 16);
        assert_eq!(fill(&mut shares, client(1)), 200, "a quarter of the 800 that are free");
        assert_eq!(shares.admit(client(1)), Err(ShareRefusal::Share));
        assert_eq!(fill(&mut shares, client(2)), 160, "the next one gets a quarter of the rest");
        shares.remove(client(1), 200);
        shares.check();
        assert!(shares.admit(client(1)).is_ok());
    }

    #[test]
    fn the_last_quarter_is_for_clients_that_hold_nothing() {
        let mut shares = Shares::new(1000, 16);
        let hogs: usize = (0..100).map(|slot| fill(&mut shares, client(slot))).sum();
        assert_eq!(shares.used(), hogs);
        assert!((750..=850).contains(&hogs), "{hogs}: after three quarters each gets one");
        for slot in 1000..1000 + (1000 - hogs as u32) {
            assert_eq!(fill(&mut shares, client(slot)), 1);
        }
        assert_eq!(shares.admit(client(9999)), Err(ShareRefusal::Full));
    }

    #[test]
    fn a_small_limit_can_be_used_by_one_client() {
        for max in 1..4 {
            assert_eq!(fill(&mut Shares::new(max, 16), client(1)), max);
        }
        assert_eq!(fill(&mut Shares::new(16, 16), client(1)), 12, "except for the last quarter");
    }

    #[test]
    fn items_may_have_any_size_and_others_may_use_the_limit() {
        let mut shares = Shares::new(1000, 0);
        shares.add(client(1), 5000);
        assert_eq!(shares.admit_of(client(1), 100), Err(ShareRefusal::Share));
        assert_eq!(shares.admit_of(client(2), 999), Ok(()), "the item may be larger than what is free");
        assert_eq!(shares.admit_of(client(2), 1000), Err(ShareRefusal::Full));
        shares.clear();
        shares.check();
        assert_eq!(shares.used(), 0);
    }
}
