//! Answers that are remembered for requests with an `Idempotency-Key`, so that a back end may repeat a request whose answer
//! it has not received.

use super::reply::ApiAnswer;
use crate::limits::{IDEMPOTENCY_BYTES_MAX, IDEMPOTENCY_KEPT, IDEMPOTENCY_KEYS_MAX};
use ahash::AHashMap;
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyedRequest {
    /// The name of the back end's own key, and the key of the request.
    pub id: RequestKey,
    /// The digest of the target, the type and the body.
    pub digest: [u8; 32],
}

/// The key of a request. Each back end has keys of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    pub owner: Arc<str>,
    pub key: Box<str>,
}

impl KeyedRequest {
    /// Describes a request by its parts.
    pub fn new(owner: &Arc<str>, key: &str, parts: &[&[u8]]) -> KeyedRequest {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        KeyedRequest { id: RequestKey { owner: Arc::clone(owner), key: key.into() }, digest }
    }
}

/// The state of a key.
#[derive(Debug, PartialEq)]
pub(super) enum KeyState {
    /// The key is new. The request must be handled, and then completed or abandoned.
    New,
    /// The request was handled before, and had this answer.
    Done(ApiAnswer),
    /// The request is being handled.
    InProgress,
    /// The key was used for another request.
    OfAnother,
}

/// The keys that are remembered.
///
/// Invariants: `order` has each key of `entries` that has an answer, once, with its time, and these times do not decrease;
/// `bytes` is the sum of the costs of all entries.
#[derive(Debug, Default)]
pub(super) struct RememberedKeys {
    entries: AHashMap<RequestKey, KeyEntry>,
    order: VecDeque<(Duration, RequestKey)>,
    bytes: usize,
    evicted: u64,
}

#[derive(Debug)]
struct KeyEntry {
    digest: [u8; 32],
    /// `None` while the request is being handled.
    answer: Option<ApiAnswer>,
}

/// The memory of an entry, besides its key and its answer: a place in the map, one in the order, and the headers of the
/// allocations.
const ENTRY_BYTES: usize = 2 * size_of::<RequestKey>() + size_of::<KeyEntry>() + size_of::<Duration>() + 64;

fn cost(id: &RequestKey, answer: Option<&ApiAnswer>) -> usize {
    // The text of the key is in the map and in the order.
    ENTRY_BYTES + 2 * id.key.len() + answer.map_or(0, |answer| answer.body.len())
}

impl RememberedKeys {
    /// Begins a request. `now` is a time that does not go back.
    pub fn begin(&mut self, request: &KeyedRequest, now: Duration) -> KeyState {
        self.forget_old(now);
        match self.entries.get(&request.id) {
            Some(entry) if entry.digest != request.digest => KeyState::OfAnother,
            Some(KeyEntry { answer: Some(answer), .. }) => KeyState::Done(answer.clone()),
            Some(_) => KeyState::InProgress,
            None => {
                self.bytes += cost(&request.id, None);
                self.entries.insert(request.id.clone(), KeyEntry { digest: request.digest, answer: None });
                KeyState::New
            }
        }
    }

    /// Remembers the answer of a request that was begun.
    pub fn complete(&mut self, request: &KeyedRequest, answer: ApiAnswer, now: Duration) {
        let entry = self.entries.get_mut(&request.id).expect("a request that was begun has an entry");
        self.bytes += answer.body.len();
        entry.answer = Some(answer);
        self.order.push_back((now, request.id.clone()));
        while self.bytes > IDEMPOTENCY_BYTES_MAX || self.order.len() > IDEMPOTENCY_KEYS_MAX {
            self.evicted += 1;
            self.forget_first();
        }
    }

    /// Forgets a request that was begun and has done nothing: it may be repeated.
    pub fn abandon(&mut self, request: &KeyedRequest) {
        self.remove(&request.id);
    }

    /// Returns how many answers were forgotten early, because there was no room for more, since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    fn forget_old(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(at, _)| *at + IDEMPOTENCY_KEPT <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let (_, id) = self.order.pop_front().expect("memory that is taken belongs to an answer");
        self.remove(&id);
    }

    fn remove(&mut self, id: &RequestKey) {
        let entry = self.entries.remove(id).expect("a key that is remembered has an entry");
        self.bytes -= cost(id, entry.answer.as_ref());
    }

    /// Asserts the invariants.
    #[cfg(test)]
    fn check(&self) {
        let answered = self.entries.values().filter(|entry| entry.answer.is_some()).count();
        assert_eq!(answered, self.order.len(), "each answer has a place in the order");
        assert!(self.order.iter().all(|(_, id)| self.entries[id].answer.is_some()));
        assert!(self.order.iter().is_sorted_by_key(|(at, _)| *at), "times do not decrease");
        let bytes: usize = self.entries.iter().map(|(id, entry)| cost(id, entry.answer.as_ref())).sum();
        assert_eq!(bytes, self.bytes, "`bytes` is the sum of the costs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    fn request(key: &str, body: &str) -> KeyedRequest {
        KeyedRequest::new(&"shop".into(), key, &[b"/broadcast", body.as_bytes()])
    }

    fn answer(body: &str) -> ApiAnswer {
        ApiAnswer { status: StatusCode::OK, body: body.to_owned().into() }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_request_is_handled_once_and_its_answer_repeated() {
        let mut keys = RememberedKeys::default();
        let one = request("k", "a");
        assert_eq!(keys.begin(&one, at(0)), KeyState::New);
        assert_eq!(keys.begin(&one, at(1)), KeyState::InProgress);
        assert_eq!(keys.begin(&request("k", "b"), at(1)), KeyState::OfAnother);
        keys.complete(&one, answer("1"), at(2));
        keys.check();
        assert_eq!(keys.begin(&one, at(301)), KeyState::Done(answer("1")));
        assert_eq!(keys.begin(&request("k", "b"), at(301)), KeyState::OfAnother);
        assert_eq!(keys.begin(&one, at(302)), KeyState::New, "five minutes have passed");
        keys.abandon(&one);
        keys.check();
        assert_eq!(keys.begin(&request("k", "b"), at(303)), KeyState::New);
        assert_eq!(keys.take_evicted(), 0);
    }

    #[test]
    fn back_ends_have_their_own_keys_and_parts_are_kept_apart() {
        let mut keys = RememberedKeys::default();
        let other = KeyedRequest::new(&"blog".into(), "k", &[b"/broadcast", b"a"]);
        assert_eq!(keys.begin(&request("k", "a"), at(0)), KeyState::New);
        assert_eq!(keys.begin(&other, at(0)), KeyState::New);
        let shifted = KeyedRequest::new(&"shop".into(), "k", &[b"/broadcasta", b""]);
        assert_ne!(shifted.digest, request("k", "a").digest);
    }

    #[test]
    fn the_oldest_answers_give_way() {
        let mut keys = RememberedKeys::default();
        let body = "x".repeat(IDEMPOTENCY_BYTES_MAX / 4);
        for number in 0..5 {
            let request = request(&number.to_string(), "a");
            assert_eq!(keys.begin(&request, at(number)), KeyState::New);
            keys.complete(&request, answer(&body), at(number));
            keys.check();
            assert!(keys.bytes <= IDEMPOTENCY_BYTES_MAX);
        }
        assert_eq!(keys.take_evicted(), 2);
        assert_eq!(keys.begin(&request("0", "a"), at(9)), KeyState::New);
        assert_eq!(keys.begin(&request("4", "a"), at(9)), KeyState::Done(answer(&body)));
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let mut keys = RememberedKeys::default();
        for number in 0..IDEMPOTENCY_KEYS_MAX + 3 {
            let request = request(&number.to_string(), "a");
            assert_eq!(keys.begin(&request, at(0)), KeyState::New);
            keys.complete(&request, answer(""), at(0));
        }
        keys.check();
        assert_eq!(keys.take_evicted() as usize + keys.order.len(), IDEMPOTENCY_KEYS_MAX + 3);
        assert!(keys.order.len() <= IDEMPOTENCY_KEYS_MAX);
    }
}
