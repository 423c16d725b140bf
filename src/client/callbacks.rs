//! The open server callbacks of clients. The server has offered them, and the client may answer each of them once.

use ahash::AHashMap;

use crate::limits::CLIENT_CALLBACKS_MAX;
use crate::qev::shrink::shrink;

/// The ids that the callbacks of one client have had: 1, 2, 3 and higher. Every client has this record, which has 8 bytes
/// and is aligned to 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallbackIds {
    /// The lower and the upper half of the last id, which as one number would be aligned to 8 bytes.
    last: [u32; 2],
}

impl CallbackIds {
    /// Returns the id that was given last, or 0 if none was.
    fn last(self) -> u64 {
        u64::from(self.last[0]) | u64::from(self.last[1]) << 32
    }

    /// Returns an id that was not given before.
    fn give(&mut self) -> u64 {
        let id = self.last() + 1;
        self.last = [id as u32, (id >> 32) as u32];
        id
    }
}

/// The open server callbacks of all clients of a shard, by the slots of the clients. Each has a value that the caller needs
/// when the client answers.
///
/// At most [`CLIENT_CALLBACKS_MAX`] callbacks of a client are open. A client without an open callback takes no memory here.
/// An id is used once for a client, and is not valid on any other connection.
///
/// Invariants, asserted by [`check`](Callbacks::check), and for one client after each change in debug builds: a client is
/// listed exactly while it has an open callback, and the ids of its callbacks are different; `len` is the number of
/// callbacks of all clients.
#[derive(Debug)]
pub struct Callbacks<T> {
    open: AHashMap<u32, Box<ClientCallbacks<T>>>,
    len: usize,
}

/// Open callbacks of a client, in no particular order. The oldest has the smallest id.
type ClientCallbacks<T> = [Option<IssuedCallback<T>>; CLIENT_CALLBACKS_MAX];

#[derive(Debug)]
struct IssuedCallback<T> {
    id: u64,
    expires_ms: u64,
    value: T,
}

impl<T> Callbacks<T> {
    /// Returns a set in which no callback is open.
    pub fn new() -> Callbacks<T> {
        Callbacks { open: AHashMap::new(), len: 0 }
    }

    /// Opens a callback of a client that expires at `expires_ms`. Returns its id, and the value of the client's oldest
    /// callback if it was evicted.
    pub fn issue(
        &mut self,
        client: u32,
        ids: &mut CallbackIds,
        value: T,
        expires_ms: u64,
    ) -> (u64, Option<T>) {
        let id = ids.give();
        let callback = IssuedCallback { id, expires_ms, value };
        let open =
            self.open.entry(client).or_insert_with(|| Box::new([const { None }; CLIENT_CALLBACKS_MAX]));
        // Free places are taken first: they have no id, and `None` is less than every `Some`.
        let place = open.iter_mut().min_by_key(|place| place.as_ref().map(|callback| callback.id));
        let evicted = place.expect("the array has places").replace(callback);
        self.len += usize::from(evicted.is_none());
        self.check_client(client, *ids);
        (id, evicted.map(|callback| callback.value))
    }

    /// Closes a callback of a client and returns its value. Returns `None` if it was never opened, is closed, or expired by
    /// `now_ms`.
    pub fn take(&mut self, client: u32, id: u64, now_ms: u64) -> Option<T> {
        let taken = self.take_first(client, |callback| callback.id == id)?;
        (now_ms < taken.expires_ms).then_some(taken.value)
    }

    /// Drops the callbacks of a client that expired by `now_ms`. Returns their number.
    pub fn expire(&mut self, client: u32, now_ms: u64) -> usize {
        let expired = |callback: &IssuedCallback<T>| callback.expires_ms <= now_ms;
        std::iter::from_fn(|| self.take_first(client, expired)).count()
    }

    /// Drops all callbacks of a client.
    pub fn close(&mut self, client: u32) {
        self.len -= self.of(client).count();
        self.forget(client);
    }

    /// Returns the time at which the next callback of a client expires.
    pub fn next_expiry(&self, client: u32) -> Option<u64> {
        self.of(client).map(|callback| callback.expires_ms).min()
    }

    /// Returns the number of open callbacks of all clients.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns `true` if no callback is open.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asserts the invariants. `ids` returns the record of a client, which must exist. The cost is linear in the number of
    /// open callbacks.
    pub fn check(&self, ids: impl Fn(u32) -> CallbackIds) {
        let counted: usize = self.open.keys().map(|client| self.of(*client).count()).sum();
        assert_eq!(counted, self.len, "the open callbacks of all clients");
        for client in self.open.keys() {
            self.check_callbacks(*client, ids(*client));
        }
    }

    fn of(&self, client: u32) -> impl Iterator<Item = &IssuedCallback<T>> {
        self.open.get(&client).into_iter().flat_map(|open| open.iter().flatten())
    }

    fn take_first(
        &mut self,
        client: u32,
        wanted: impl Fn(&IssuedCallback<T>) -> bool,
    ) -> Option<IssuedCallback<T>> {
        let open = self.open.get_mut(&client)?;
        let taken = open.iter_mut().find_map(|place| place.take_if(|callback| wanted(callback)))?;
        let is_last = open.iter().all(Option::is_none);
        self.len -= 1;
        if is_last {
            self.forget(client);
        }
        Some(taken)
    }

    /// Frees the memory of a client that has no more open callbacks.
    fn forget(&mut self, client: u32) {
        if self.open.remove(&client).is_some() {
            shrink(&mut self.open);
        }
    }

    /// Asserts the invariants of one client in debug builds. The cost is constant.
    fn check_client(&self, client: u32, ids: CallbackIds) {
        if cfg!(debug_assertions) {
            self.check_callbacks(client, ids);
        }
    }

    fn check_callbacks(&self, client: u32, ids: CallbackIds) {
        assert!(self.of(client).next().is_some(), "a client is listed while it has an open callback");
        for callback in self.of(client) {
            assert!(callback.id <= ids.last(), "callback {} must have been opened", callback.id);
            let same = self.of(client).filter(|other| other.id == callback.id).count();
            assert_eq!(same, 1, "callback {} must be open once", callback.id);
        }
    }
}

impl<T> Default for Callbacks<T> {
    fn default() -> Callbacks<T> {
        Callbacks::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The callbacks of one client, which another client with open callbacks must not disturb.
    struct OneClient<T> {
        callbacks: Callbacks<T>,
        ids: CallbackIds,
    }

    const CLIENT: u32 = 7;

    impl<T> OneClient<T> {
        fn new(of_another: T) -> OneClient<T> {
            let mut callbacks = Callbacks::new();
            callbacks.issue(8, &mut CallbackIds::default(), of_another, 1000);
            OneClient { callbacks, ids: CallbackIds::default() }
        }

        fn issue(&mut self, value: T, expires_ms: u64) -> (u64, Option<T>) {
            self.callbacks.issue(CLIENT, &mut self.ids, value, expires_ms)
        }

        fn take(&mut self, id: u64, now_ms: u64) -> Option<T> {
            self.callbacks.take(CLIENT, id, now_ms)
        }

        fn expire(&mut self, now_ms: u64) -> usize {
            self.callbacks.expire(CLIENT, now_ms)
        }

        fn next_expiry(&self) -> Option<u64> {
            self.callbacks.next_expiry(CLIENT)
        }

        /// The number of callbacks, without that of the other client.
        fn len(&self) -> usize {
            self.check();
            self.callbacks.len() - 1
        }

        fn check(&self) {
            let other = CallbackIds { last: [1, 0] };
            self.callbacks.check(|client| if client == CLIENT { self.ids } else { other });
        }
    }

    #[test]
    fn a_client_without_callbacks_takes_no_memory() {
        assert_eq!((size_of::<CallbackIds>(), align_of::<CallbackIds>()), (8, 4));
        let mut client = OneClient::new("another");
        let (id, _) = client.issue("value", 10);
        assert_eq!(client.callbacks.open.len(), 2);
        client.take(id, 0);
        assert_eq!((client.len(), client.callbacks.open.len()), (0, 1));
    }

    #[test]
    fn ids_are_counted_and_used_once() {
        let mut client = OneClient::new("another");
        assert_eq!(client.issue("a", 10), (1, None));
        assert_eq!(client.issue("b", 10), (2, None));
        assert_eq!(client.take(1, 0), Some("a"));
        assert_eq!(client.take(1, 0), None);
        assert_eq!(client.take(0, 0), None);
        assert_eq!(client.take(3, 0), None);
        assert_eq!(client.take(u64::MAX, 0), None);
        assert_eq!(client.take(2, 0), Some("b"));
        assert_eq!(client.issue("c", 10), (3, None), "an id is not used again");
        client.ids.last = [u32::MAX, 0];
        assert_eq!(client.issue("d", 10), (1 << 32, None));
    }

    #[test]
    fn the_oldest_is_evicted() {
        let mut client = OneClient::new(0);
        for value in 1..=CLIENT_CALLBACKS_MAX as u64 {
            assert_eq!(client.issue(value, 10), (value, None));
        }
        assert_eq!(client.issue(5, 10), (5, Some(1)));
        assert_eq!(client.take(3, 0), Some(3));
        assert_eq!(client.issue(6, 10), (6, None));
        assert_eq!(client.issue(7, 10), (7, Some(2)));
        assert_eq!(client.len(), CLIENT_CALLBACKS_MAX);
    }

    #[test]
    fn callbacks_expire_at_their_time() {
        let mut client = OneClient::new(0);
        assert_eq!(client.next_expiry(), None);
        for expires_ms in [30, 10, 20] {
            client.issue(expires_ms, expires_ms);
        }
        assert_eq!(client.next_expiry(), Some(10));
        assert_eq!(client.expire(9), 0);
        assert_eq!(client.expire(10), 1);
        assert_eq!(client.next_expiry(), Some(20));
        assert_eq!(client.take(3, 20), None, "too late, although `expire` was not called");
        assert_eq!(client.take(3, 0), None, "the late answer closed the callback");
        assert_eq!(client.expire(u64::MAX), 1);
        assert_eq!(client.len(), 0);
    }

    #[test]
    fn all_callbacks_of_a_client_are_closed() {
        let mut client = OneClient::new("another");
        for value in ["a", "b"] {
            client.issue(value, 10);
        }
        client.callbacks.close(CLIENT);
        assert_eq!((client.len(), client.take(1, 0)), (0, None));
        client.callbacks.close(CLIENT);
        assert_eq!(client.len(), 0);
    }

    #[test]
    #[should_panic(expected = "callback 1 must be open once")]
    fn the_check_finds_an_id_that_is_used_twice() {
        let mut client = OneClient::new("another");
        client.issue("a", 10);
        client.ids.last = [0, 0];
        client.issue("b", 10);
    }

    #[test]
    #[should_panic(expected = "callback 2 must have been opened")]
    fn the_check_finds_an_id_that_was_never_given() {
        let mut client = OneClient::new("another");
        client.issue("a", 10);
        client.issue("b", 10);
        client.ids.last = [1, 0];
        client.check();
    }

    #[test]
    #[should_panic(expected = "the open callbacks of all clients")]
    fn the_check_finds_a_wrong_number() {
        let mut client = OneClient::new("another");
        client.callbacks.len += 1;
        client.check();
    }

    #[test]
    #[should_panic(expected = "a client is listed while it has an open callback")]
    fn the_check_finds_a_client_that_should_not_be_listed() {
        let mut client = OneClient::new("another");
        client.callbacks.open.insert(CLIENT, Box::new([const { None }; CLIENT_CALLBACKS_MAX]));
        client.check();
    }

    #[derive(Clone, Debug)]
    enum Step {
        Issue { lasts_ms: u64 },
        Take { id: u64 },
        Expire,
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
        let step = prop_oneof![
            (0..50_u64).prop_map(|lasts_ms| Step::Issue { lasts_ms }),
            (0..40_u64).prop_map(|id| Step::Take { id }),
            Just(Step::Expire),
        ];
        prop::collection::vec((step, 0..10_u64), 0..60)
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(steps in steps()) {
            let (mut client, mut model, mut issued, mut now_ms) =
                (OneClient::new(0), BTreeMap::new(), 0, 0);
            for (step, passed_ms) in steps {
                now_ms += passed_ms;
                match step {
                    Step::Issue { lasts_ms } => {
                        issued += 1;
                        let full = model.len() == CLIENT_CALLBACKS_MAX;
                        let evicted = full.then(|| model.pop_first().unwrap().0);
                        model.insert(issued, now_ms + lasts_ms);
                        prop_assert_eq!(client.issue(issued, now_ms + lasts_ms), (issued, evicted));
                    }
                    Step::Take { id } => {
                        let expected = model.remove(&id).filter(|expires_ms| now_ms < *expires_ms).map(|_| id);
                        prop_assert_eq!(client.take(id, now_ms), expected);
                    }
                    Step::Expire => {
                        let before = model.len();
                        model.retain(|_, expires_ms| now_ms < *expires_ms);
                        prop_assert_eq!(client.expire(now_ms), before - model.len());
                    }
                }
                prop_assert_eq!(client.len(), model.len());
                prop_assert_eq!(client.next_expiry(), model.values().min().copied());
            }
        }
    }
}
