//! A client's open server callbacks: what the server offered and the client may answer, once.

use crate::limits::CLIENT_CALLBACKS_MAX;

/// The server callbacks of one client, each with a value that says what to do when the client answers.
///
/// At most [`CLIENT_CALLBACKS_MAX`] are open; where none is, no heap is used. Ids are 1, 2, 3 and so on for each
/// client, and are used once; they mean nothing on any other connection.
#[derive(Debug)]
pub struct Callbacks<T> {
    issued: u64,
    /// Here only while one at least is open.
    open: Option<Box<Open<T>>>,
}

/// In no order: the oldest has the smallest id.
type Open<T> = [Option<Callback<T>>; CLIENT_CALLBACKS_MAX];

#[derive(Debug)]
struct Callback<T> {
    id: u64,
    expires_ms: u64,
    value: T,
}

impl<T> Callbacks<T> {
    /// None open, none issued.
    pub fn new() -> Callbacks<T> {
        Callbacks { issued: 0, open: None }
    }

    /// Opens a callback that is gone at `expires_ms`. Returns its id, and the oldest's value where it had to go.
    pub fn issue(&mut self, value: T, expires_ms: u64) -> (u64, Option<T>) {
        self.issued += 1;
        let callback = Callback { id: self.issued, expires_ms, value };
        let open = self.open.get_or_insert_with(|| Box::new([const { None }; CLIENT_CALLBACKS_MAX]));
        // Free places first: they have no id, and `None` is less than every `Some`.
        let place = open.iter_mut().min_by_key(|place| place.as_ref().map(|callback| callback.id));
        let evicted = place.expect("there are places").replace(callback);
        (self.issued, evicted.map(|callback| callback.value))
    }

    /// Closes a callback and returns its value; nothing where it was never issued, is closed, or expired by `now_ms`.
    pub fn take(&mut self, id: u64, now_ms: u64) -> Option<T> {
        let taken = self.take_first(|callback| callback.id == id)?;
        (now_ms < taken.expires_ms).then_some(taken.value)
    }

    /// Drops those that expired by `now_ms`; returns how many.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        std::iter::from_fn(|| self.take_first(|callback| callback.expires_ms <= now_ms)).count()
    }

    /// When the next one expires.
    pub fn next_expiry(&self) -> Option<u64> {
        self.iter().map(|callback| callback.expires_ms).min()
    }

    /// Open callbacks.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    fn iter(&self) -> impl Iterator<Item = &Callback<T>> {
        self.open.iter().flat_map(|open| open.iter().flatten())
    }

    fn take_first(&mut self, wanted: impl Fn(&Callback<T>) -> bool) -> Option<Callback<T>> {
        let open = self.open.as_mut()?;
        let taken = open.iter_mut().find_map(|place| place.take_if(|callback| wanted(callback)))?;
        if open.iter().all(Option::is_none) {
            self.open = None;
        }
        Some(taken)
    }
}

impl<T> Default for Callbacks<T> {
    fn default() -> Callbacks<T> {
        Callbacks::new()
    }
}
