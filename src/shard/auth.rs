//! The tokens of a shard's clients: the keys in use, tokens that were verified recently, those that are being verified
//! beside the shard, and the clients that have to authenticate.

use super::addresses::CountedAddress;
use super::connection::Moment;
use crate::app::{ReplyTo, UnknownClient};
use crate::config::AuthMode;
use crate::identity::{Flaw, Identity, KeySet, Seen, SeenTokens, TokenDigest, TokenError};
use crate::limits::{
    AUTH_HELD_BYTES_MAX, AUTH_PENDING_ADDRESS_MAX, AUTH_PENDING_MAX, AUTH_REFUSED_MAX, AUTH_TOKEN_BYTES_MAX,
};
use crate::qev::shrink::shrink;
use ahash::AHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// A token to be verified beside the shards.
pub struct VerifyJob {
    /// The shard that gets the result.
    pub shard: u16,
    /// The slot of the connection, and its generation.
    pub slot: u32,
    pub generation: u32,
    /// `None` for a client that is known by a header.
    pub token: Option<(TokenDigest, Box<str>)>,
    /// The client as an application is told of it. `None` if no application is asked.
    pub client: Option<Box<UnknownClient>>,
    /// The address that counts the token, or `None` for a peer that none counts.
    pub(super) address: Option<CountedAddress>,
}

impl VerifyJob {
    /// A client of shard 0 that is known by a header, in this slot.
    #[cfg(test)]
    pub(crate) fn of_test(slot: u32) -> VerifyJob {
        VerifyJob { shard: 0, slot, generation: 1, token: None, client: None, address: None }
    }

    /// Returns the message with the result.
    #[must_use]
    pub fn verified(&self, result: Result<VerifiedAs, TokenError>) -> VerifiedToken {
        let VerifyJob { slot, generation, address, .. } = *self;
        let digest = self.token.as_ref().map(|(digest, _)| *digest);
        VerifiedToken { slot, generation, digest, result, address }
    }
}

/// The identity that a verification has found.
#[derive(Debug)]
pub enum VerifiedAs {
    /// A key has verified the token.
    Token(Seen),
    /// An application vouches for the client.
    Vouched(Arc<Identity>),
    /// An application says that the client is nobody in particular.
    Nobody,
}

/// The result of verifying a token beside the shards.
#[derive(Debug)]
pub struct VerifiedToken {
    pub slot: u32,
    pub generation: u32,
    /// `None` for a client that is known by a header.
    pub digest: Option<TokenDigest>,
    pub result: Result<VerifiedAs, TokenError>,
    pub(super) address: Option<CountedAddress>,
}

/// The verification of tokens beside the shards. The server implements it.
pub trait VerifyTokens: Send + Sync {
    /// Queues a token. Never waits.
    ///
    /// # Errors
    ///
    /// Too many tokens wait already.
    fn verify(&self, job: VerifyJob) -> Result<(), VerifyJob>;
}

/// What a shard needs for tokens.
#[derive(Clone)]
pub struct AuthParts {
    pub keys: Arc<KeySet>,
    pub verifier: Arc<dyn VerifyTokens>,
    /// The headers that say who a client is, by their places in the setting `app-headers`, if an application is asked about
    /// what no key verifies.
    pub asks: Option<Arc<[u8]>>,
}

/// The way in which a client has given a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TokenOrigin {
    /// By an event, which is answered.
    Event(ReplyTo),
    /// With the request that has opened its connection or session, which ends if the token is refused.
    Opening,
}

/// What is known of a token at once.
pub(super) enum Verdict {
    /// The token is accepted. `seen`: it was verified recently.
    Accepted { identity: Arc<Identity>, seen: bool },
    /// The token is refused.
    Refused(TokenError),
    /// The verification takes long, a key has to be fetched first, or an application is asked. `None`: without a token.
    Slow(Option<(TokenDigest, Box<str>)>),
}

/// The memory of an event that is kept, apart from its text: a queue of pointers grows by doubling, and an allocation has a header.
const HELD_EVENT_BYTES: usize = 2 * size_of::<Box<str>>() + 16;

/// A token that is being verified beside the shard, and the events that its client has sent since. They stay here until they
/// were handled, after the token was verified.
pub(super) struct PendingToken {
    source: TokenOrigin,
    is_verified: bool,
    /// The texts of events, in order.
    held: VecDeque<Box<str>>,
    held_bytes: usize,
    /// The session of the client ends after these events.
    closes: bool,
}

impl PendingToken {
    /// Keeps an event until the client is known. Returns `false` if too many are kept.
    pub fn hold(&mut self, text: &str) -> bool {
        let fits = self.bytes_with(text) <= AUTH_HELD_BYTES_MAX;
        if fits {
            self.held_bytes = self.bytes_with(text);
            self.held.push_back(text.into());
        }
        fits
    }

    /// The memory that the events take that are kept.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The memory that they would take together with another one.
    pub fn bytes_with(&self, text: &str) -> usize {
        self.held_bytes + text.len() + HELD_EVENT_BYTES
    }

    /// Takes the first event that was kept.
    pub fn take_first(&mut self) -> Option<Box<str>> {
        let text = self.held.pop_front()?;
        self.held_bytes -= text.len() + HELD_EVENT_BYTES;
        Some(text)
    }

    /// Returns whether no event is kept.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Notes that the session of the client ends after the events that are kept.
    pub fn close(&mut self) {
        self.closes = true;
    }

    /// Returns whether the session of the client ends after the events that were kept.
    pub fn closes(&self) -> bool {
        self.closes
    }
}

/// What is remembered of a connection that has to authenticate, or whose token is being verified, or was refused.
#[derive(Default)]
struct AuthWait {
    /// The moment from which on the client has had time to authenticate.
    since: Option<Moment>,
    pending: Option<Box<PendingToken>>,
    /// The number of tokens that were refused.
    refused: u8,
}

/// The tokens of a shard's clients.
///
/// Invariants, which [`check`](Auth::check) asserts:
/// - `pending` is the number of connections with a token that is being verified, or with events that were kept meanwhile;
/// - `in_flight` is at least the number of those whose token is being verified, and at most [`AUTH_PENDING_MAX`]: a connection
///   may end while its token is being verified, but the result comes nevertheless, and has its place in the inbox;
/// - each connection whose token was verified and of which events are kept is in `released`;
/// - `of_address` counts the tokens in flight, and has no address without any;
/// - if nobody can authenticate, nothing is remembered of anybody;
/// - no entry is empty.
pub(super) struct Auth {
    mode: AuthMode,
    parts: Option<AuthParts>,
    seen: SeenTokens,
    waits: AHashMap<u32, AuthWait>,
    pending: usize,
    /// The number of tokens whose results have not come.
    in_flight: usize,
    /// The maximum of `in_flight`.
    in_flight_max: usize,
    /// The tokens in flight of each address.
    of_address: AHashMap<CountedAddress, u16>,
    /// The connections whose events can be handled, in order. Some may have ended.
    released: VecDeque<u32>,
}

impl Auth {
    /// Begins with these keys. Without parts, nobody can authenticate.
    pub fn new(mode: AuthMode, parts: Option<AuthParts>, seen_bytes_max: usize) -> Auth {
        let mode = if parts.is_some() { mode } else { AuthMode::Off };
        Auth {
            mode,
            parts,
            seen: SeenTokens::new(seen_bytes_max),
            waits: AHashMap::new(),
            pending: 0,
            in_flight: 0,
            in_flight_max: AUTH_PENDING_MAX,
            of_address: AHashMap::new(),
            released: VecDeque::new(),
        }
    }

    /// Returns whether clients can authenticate.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.mode != AuthMode::Off
    }

    /// Returns whether clients must authenticate.
    #[inline]
    pub fn is_required(&self) -> bool {
        self.mode == AuthMode::Required
    }

    /// Returns whether an application is asked about what no key verifies.
    pub fn asks(&self) -> bool {
        self.is_on() && self.parts.as_ref().is_some_and(|parts| parts.asks.is_some())
    }

    /// Returns whether one of these headers says who a client is.
    pub fn has_credentials(&self, headers: &[(u8, Box<str>)]) -> bool {
        let credentials = self.parts.as_ref().and_then(|parts| parts.asks.as_deref()).unwrap_or_default();
        self.is_on() && headers.iter().any(|(place, _)| credentials.contains(place))
    }

    /// Uses these keys from now on. What they do not verify is forgotten.
    pub fn set_keys(&mut self, keys: Arc<KeySet>) {
        let Some(parts) = &mut self.parts else { return };
        if parts.keys.policy() != keys.policy() {
            self.seen.clear();
        }
        parts.keys = keys;
    }

    /// Verifies a token, if that takes only microseconds. `now` is in Unix seconds.
    pub fn verify(&mut self, token: &str, now: u64) -> Verdict {
        let parts = self.parts.as_ref().expect("tokens are only verified with keys");
        if token.len() > AUTH_TOKEN_BYTES_MAX {
            return Verdict::Refused(TokenError::Invalid(Flaw::TooLong));
        }
        let digest = TokenDigest::of(token);
        if let Some(identity) = self.seen.get(&digest, &parts.keys) {
            let has_expired = identity.has_expired(now, parts.keys.policy().leeway);
            return match has_expired {
                true => Verdict::Refused(TokenError::Expired),
                false => Verdict::Accepted { identity, seen: true },
            };
        }
        match parts.keys.open(token) {
            Ok(open) if open.is_fast() => match open.verify(&parts.keys, now) {
                Ok(identity) => {
                    let seen = Seen { identity: Arc::new(identity), key: open.key_mark() };
                    self.seen.insert(digest, seen.clone());
                    Verdict::Accepted { identity: seen.identity, seen: false }
                }
                Err(error) => Verdict::Refused(error),
            },
            Ok(_) => Verdict::Slow(Some((digest, token.into()))),
            Err(TokenError::Invalid(Flaw::UnknownKey)) if parts.keys.may_grow() => {
                Verdict::Slow(Some((digest, token.into())))
            }
            Err(error) if parts.asks.is_some() && error.is_of_no_key() => {
                Verdict::Slow(Some((digest, token.into())))
            }
            Err(error) => Verdict::Refused(error),
        }
    }

    /// Has a token verified beside the shard, unless too many are. Returns whether it is.
    pub fn verify_beside(&mut self, job: VerifyJob, source: TokenOrigin) -> bool {
        let parts = self.parts.as_ref().expect("tokens are only verified with keys");
        let (slot, address) = (job.slot, job.address);
        let of_address = address.and_then(|address| self.of_address.get(&address)).copied().unwrap_or(0);
        let is_full = self.in_flight >= self.in_flight_max || of_address >= AUTH_PENDING_ADDRESS_MAX;
        if is_full || parts.verifier.verify(job).is_err() {
            return false;
        }
        let pending =
            PendingToken { source, is_verified: false, held: VecDeque::new(), held_bytes: 0, closes: false };
        self.keep_pending(slot, Box::new(pending));
        self.in_flight += 1;
        if let Some(address) = address {
            self.of_address.insert(address, of_address + 1);
        }
        true
    }

    /// Notes that a result has come, and remembers the token if a key has verified it. The settings may have changed since
    /// then. Returns who the client is, or `None` for nobody. `now` is in Unix seconds.
    ///
    /// Decisions of applications are not remembered: the next one may be another, because a user has logged out.
    pub fn result_came(
        &mut self,
        verified: VerifiedToken,
        now: u64,
    ) -> Result<Option<Arc<Identity>>, TokenError> {
        self.in_flight = self.in_flight.checked_sub(1).expect("each result is that of a token in flight");
        if let Some(address) = verified.address {
            let count = self.of_address.get_mut(&address).expect("a token in flight is counted");
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&address);
                shrink(&mut self.of_address);
            }
        }
        let parts = self.parts.as_ref().expect("tokens are only verified with keys");
        match (verified.result?, verified.digest) {
            (VerifiedAs::Token(seen), digest) => {
                parts.keys.check_again(&seen.identity, now)?;
                let identity = Arc::clone(&seen.identity);
                self.seen.insert(digest.expect("a key verifies a token"), seen);
                Ok(Some(identity))
            }
            (VerifiedAs::Vouched(identity), _) if identity.has_expired(now, parts.keys.policy().leeway) => {
                Err(TokenError::Expired)
            }
            (VerifiedAs::Vouched(identity), _) => Ok(Some(identity)),
            (VerifiedAs::Nobody, None) => Ok(None),
            // A token is of somebody.
            (VerifiedAs::Nobody, Some(_)) => Err(TokenError::Invalid(Flaw::Refused)),
        }
    }

    fn keep_pending(&mut self, slot: u32, pending: Box<PendingToken>) {
        let before = self.waits.entry(slot).or_default().pending.replace(pending);
        assert!(before.is_none(), "one token of connection {slot} is verified at a time");
        self.pending += 1;
    }

    /// The token of a connection that is being verified, or was verified while events of its client are still kept. What its
    /// client sends now waits behind these.
    pub fn pending_mut(&mut self, slot: u32) -> Option<&mut PendingToken> {
        if self.pending == 0 {
            return None;
        }
        self.waits.get_mut(&slot)?.pending.as_deref_mut()
    }

    /// Returns whether events of a connection's client have to be kept.
    pub fn keeps_events(&self, slot: u32) -> bool {
        self.pending > 0 && self.waits.get(&slot).is_some_and(|wait| wait.pending.is_some())
    }

    /// Returns whether a token of a connection is being verified.
    pub fn is_pending(&self, slot: u32) -> bool {
        let is_pending = |wait: &AuthWait| wait.pending.as_ref().is_some_and(|pending| !pending.is_verified);
        self.pending > 0 && self.waits.get(&slot).is_some_and(is_pending)
    }

    /// Notes that the token of a connection was verified. Returns where it came from, or `None` if nobody waits for the result.
    pub fn end_verification(&mut self, slot: u32) -> Option<TokenOrigin> {
        let pending = self.waits.get_mut(&slot)?.pending.as_mut()?;
        pending.is_verified = true;
        Some(pending.source)
    }

    /// Lets the events be handled that were kept of a connection whose token was verified.
    pub fn release(&mut self, slot: u32) {
        self.released.push_back(slot);
    }

    /// Returns whether there are events that can be handled.
    pub fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// Takes the connection whose events are handled next, and these events.
    pub fn next_released(&mut self) -> Option<(u32, Box<PendingToken>)> {
        while let Some(slot) = self.released.pop_front() {
            if let Some(pending) = self.take_verified(slot) {
                return Some((slot, pending));
            }
        }
        // Many may have been released at once.
        self.released = VecDeque::new();
        None
    }

    /// Puts back what was taken: the rest is handled in the next turn.
    pub fn put_back(&mut self, slot: u32, pending: Box<PendingToken>) {
        self.keep_pending(slot, pending);
        self.released.push_front(slot);
    }

    /// Takes the token of a connection that was verified. The connection may have ended, and another one may be in its slot.
    fn take_verified(&mut self, slot: u32) -> Option<Box<PendingToken>> {
        let wait = self.waits.get_mut(&slot)?;
        let pending = wait.pending.take_if(|pending| pending.is_verified)?;
        self.pending -= 1;
        self.remove_empty(slot);
        Some(pending)
    }

    fn remove_empty(&mut self, slot: u32) {
        let is_empty = |wait: &AuthWait| wait.since.is_none() && wait.pending.is_none() && wait.refused == 0;
        if self.waits.get(&slot).is_some_and(is_empty) {
            self.waits.remove(&slot);
            shrink(&mut self.waits);
        }
    }

    /// Notes that the client of a connection has to authenticate, from this moment on.
    pub fn require(&mut self, slot: u32, since: Moment) {
        self.waits.entry(slot).or_default().since = Some(since);
    }

    /// The moment from which on the client of a connection has had time to authenticate, if it has to and has not.
    pub fn required_since(&self, slot: u32) -> Option<Moment> {
        self.waits.get(&slot)?.since
    }

    /// Notes that a token of a connection was refused. Returns whether there were too many.
    pub fn refuse(&mut self, slot: u32) -> bool {
        let wait = self.waits.entry(slot).or_default();
        wait.refused = wait.refused.saturating_add(1);
        wait.refused > AUTH_REFUSED_MAX
    }

    /// Notes that the client of a connection has authenticated.
    pub fn accepted(&mut self, slot: u32) {
        if let Some(wait) = self.waits.get_mut(&slot) {
            (wait.since, wait.refused) = (None, 0);
            self.remove_empty(slot);
        }
    }

    /// Forgets what is remembered of a connection that has ended. A token of it that is still being verified is ignored then.
    /// Returns the memory of the events that were kept.
    pub fn forget(&mut self, slot: u32) -> usize {
        let Some(wait) = self.waits.remove(&slot) else { return 0 };
        self.pending -= usize::from(wait.pending.is_some());
        shrink(&mut self.waits);
        wait.pending.map_or(0, |pending| pending.held_bytes)
    }

    /// The memory of all events that are kept. Linear in the number of entries.
    pub fn all_held_bytes(&self) -> usize {
        self.waits.values().filter_map(|wait| wait.pending.as_deref()).map(PendingToken::held_bytes).sum()
    }

    /// Sets the maximum number of tokens that are being verified beside the shard, for tests: [`AUTH_PENDING_MAX`]
    /// connections take long.
    #[cfg(test)]
    pub fn set_in_flight_max(&mut self, max: usize) {
        self.in_flight_max = max;
    }

    /// The number of connections whose token is being verified beside the shard.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The memory of the tokens that were verified recently, in bytes.
    pub fn seen_bytes(&self) -> usize {
        self.seen.bytes()
    }

    /// Asserts the invariants. Linear in the number of entries.
    pub fn check(&self, is_open: impl Fn(u32) -> bool) {
        let pending = self.waits.values().filter(|wait| wait.pending.is_some()).count();
        assert_eq!(self.pending, pending, "the tokens that are being verified");
        let verifying = self.waits.keys().filter(|slot| self.is_pending(**slot)).count();
        assert!(verifying <= self.in_flight, "a token that is being verified has no result to come");
        let counted: usize = self.of_address.values().map(|count| usize::from(*count)).sum();
        assert!(counted <= self.in_flight, "an address has tokens that are not in flight");
        assert!(self.of_address.values().all(|count| *count > 0), "an address without tokens is counted");
        assert!(self.in_flight <= self.in_flight_max, "too many tokens are being verified");
        assert!(self.is_on() || self.waits.is_empty(), "nobody can authenticate");
        for (slot, wait) in &self.waits {
            let is_verified = wait.pending.as_ref().is_some_and(|pending| pending.is_verified);
            assert!(!is_verified || self.released.contains(slot), "the events of connection {slot} are lost");
            assert!(is_open(*slot), "connection {slot} is waited for, but has ended");
            assert!(
                wait.since.is_some() || wait.pending.is_some() || wait.refused > 0,
                "nothing is remembered of connection {slot}"
            );
        }
        self.seen.check();
    }
}
