//! The open server callbacks of a client. The server has offered them, and the client may answer each of them once.

use crate::limits::CLIENT_CALLBACKS_MAX;

/// The server callbacks of one client. Each has a value that the caller needs when the client answers.
///
/// At most [`CLIENT_CALLBACKS_MAX`] callbacks are open. If none is open, no heap is used. The ids of each client are 1,
/// 2, 3 and higher. An id is used once and is not valid on any other connection.
///
/// Invariants, asserted after each change in debug builds: `open` is present exactly while a callback is open, and the
/// ids in it are different and at most `issued`.
#[derive(Debug)]
pub struct Callbacks<T> {
    /// The number of callbacks that were opened, which is also the last id.
    issued: u64,
    /// The open callbacks.
    open: Option<Box<CallbackSlots<T>>>,
}

/// Open callbacks, in no particular order. The oldest has the smallest id.
type CallbackSlots<T> = [Option<IssuedCallback<T>>; CLIENT_CALLBACKS_MAX];

#[derive(Debug)]
struct IssuedCallback<T> {
    id: u64,
    expires_ms: u64,
    value: T,
}

impl<T> Callbacks<T> {
    /// Returns a set in which no callback was opened.
    pub fn new() -> Callbacks<T> {
        Callbacks { issued: 0, open: None }
    }

    /// Opens a callback that expires at `expires_ms`. Returns its id, and the value of the oldest callback if it was
    /// evicted.
    pub fn issue(&mut self, value: T, expires_ms: u64) -> (u64, Option<T>) {
        self.issued += 1;
        let callback = IssuedCallback { id: self.issued, expires_ms, value };
        let open = self.open.get_or_insert_with(|| Box::new([const { None }; CLIENT_CALLBACKS_MAX]));
        // Free places are taken first: they have no id, and `None` is less than every `Some`.
        let place = open.iter_mut().min_by_key(|place| place.as_ref().map(|callback| callback.id));
        let evicted = place.expect("the array has places").replace(callback);
        self.check();
        (self.issued, evicted.map(|callback| callback.value))
    }

    /// Closes a callback and returns its value. Returns `None` if it was never opened, is closed, or expired by
    /// `now_ms`.
    pub fn take(&mut self, id: u64, now_ms: u64) -> Option<T> {
        let taken = self.take_first(|callback| callback.id == id)?;
        (now_ms < taken.expires_ms).then_some(taken.value)
    }

    /// Drops the callbacks that expired by `now_ms`. Returns their number.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        std::iter::from_fn(|| self.take_first(|callback| callback.expires_ms <= now_ms)).count()
    }

    /// Returns the time at which the next callback expires.
    pub fn next_expiry(&self) -> Option<u64> {
        self.iter().map(|callback| callback.expires_ms).min()
    }

    /// Returns the number of open callbacks.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Returns `true` if no callback is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    fn iter(&self) -> impl Iterator<Item = &IssuedCallback<T>> {
        self.open.iter().flat_map(|open| open.iter().flatten())
    }

    fn take_first(&mut self, wanted: impl Fn(&IssuedCallback<T>) -> bool) -> Option<IssuedCallback<T>> {
        let open = self.open.as_mut()?;
        let taken = open.iter_mut().find_map(|place| place.take_if(|callback| wanted(callback)))?;
        if open.iter().all(Option::is_none) {
            self.open = None;
        }
        self.check();
        Some(taken)
    }

    /// Asserts the invariants in debug builds. The cost is constant.
    fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        assert_eq!(
            self.open.is_some(),
            self.iter().next().is_some(),
            "memory must be freed with the last callback"
        );
        for callback in self.iter() {
            assert!(callback.id <= self.issued, "callback {} must have been opened", callback.id);
            let same = self.iter().filter(|other| other.id == callback.id).count();
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

    #[test]
    fn a_client_without_callbacks_needs_no_heap() {
        assert!(size_of::<Callbacks<[u64; 8]>>() <= 16);
        let mut callbacks = Callbacks::new();
        let (id, _) = callbacks.issue("value", 10);
        assert!(!callbacks.is_empty());
        callbacks.take(id, 0);
        assert!(callbacks.is_empty() && callbacks.open.is_none());
    }

    #[test]
    fn ids_are_counted_and_used_once() {
        let mut callbacks = Callbacks::default();
        assert_eq!(callbacks.issue("a", 10), (1, None));
        assert_eq!(callbacks.issue("b", 10), (2, None));
        assert_eq!(callbacks.take(1, 0), Some("a"));
        assert_eq!(callbacks.take(1, 0), None);
        assert_eq!(callbacks.take(0, 0), None);
        assert_eq!(callbacks.take(3, 0), None);
        assert_eq!(callbacks.take(u64::MAX, 0), None);
        assert_eq!(callbacks.take(2, 0), Some("b"));
        assert_eq!(callbacks.issue("c", 10), (3, None), "an id is not used again");
    }

    #[test]
    fn the_oldest_is_evicted() {
        let mut callbacks = Callbacks::new();
        for value in 1..=CLIENT_CALLBACKS_MAX as u64 {
            assert_eq!(callbacks.issue(value, 10), (value, None));
        }
        assert_eq!(callbacks.issue(5, 10), (5, Some(1)));
        assert_eq!(callbacks.take(3, 0), Some(3));
        assert_eq!(callbacks.issue(6, 10), (6, None));
        assert_eq!(callbacks.issue(7, 10), (7, Some(2)));
        assert_eq!(callbacks.len(), CLIENT_CALLBACKS_MAX);
    }

    #[test]
    fn callbacks_expire_at_their_time() {
        let mut callbacks = Callbacks::new();
        assert_eq!(callbacks.next_expiry(), None);
        for expires_ms in [30, 10, 20] {
            callbacks.issue(expires_ms, expires_ms);
        }
        assert_eq!(callbacks.next_expiry(), Some(10));
        assert_eq!(callbacks.expire(9), 0);
        assert_eq!(callbacks.expire(10), 1);
        assert_eq!(callbacks.next_expiry(), Some(20));
        assert_eq!(callbacks.take(3, 20), None, "too late, although `expire` was not called");
        assert_eq!(callbacks.take(3, 0), None, "the late answer closed the callback");
        assert_eq!(callbacks.expire(u64::MAX), 1);
        assert!(callbacks.is_empty());
    }

    #[test]
    #[should_panic(expected = "callback 1 must be open once")]
    fn the_check_finds_an_id_that_is_used_twice() {
        let mut callbacks = Callbacks::new();
        callbacks.issue("a", 10);
        callbacks.issued = 0;
        callbacks.issue("b", 10);
    }

    #[test]
    #[should_panic(expected = "callback 2 must have been opened")]
    fn the_check_finds_an_id_that_was_never_given() {
        let mut callbacks = Callbacks::new();
        callbacks.issue("a", 10);
        callbacks.issue("b", 10);
        callbacks.issued = 1;
        callbacks.check();
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
            let (mut callbacks, mut model, mut issued, mut now_ms) = (Callbacks::new(), BTreeMap::new(), 0, 0);
            for (step, passed_ms) in steps {
                now_ms += passed_ms;
                match step {
                    Step::Issue { lasts_ms } => {
                        issued += 1;
                        let full = model.len() == CLIENT_CALLBACKS_MAX;
                        let evicted = full.then(|| model.pop_first().unwrap().0);
                        model.insert(issued, now_ms + lasts_ms);
                        prop_assert_eq!(callbacks.issue(issued, now_ms + lasts_ms), (issued, evicted));
                    }
                    Step::Take { id } => {
                        let expected = model.remove(&id).filter(|expires_ms| now_ms < *expires_ms).map(|_| id);
                        prop_assert_eq!(callbacks.take(id, now_ms), expected);
                    }
                    Step::Expire => {
                        let before = model.len();
                        model.retain(|_, expires_ms| now_ms < *expires_ms);
                        prop_assert_eq!(callbacks.expire(now_ms), before - model.len());
                    }
                }
                prop_assert_eq!(callbacks.len(), model.len());
                prop_assert_eq!(callbacks.is_empty(), model.is_empty());
                prop_assert_eq!(callbacks.next_expiry(), model.values().min().copied());
            }
        }
    }
}
