//! Authentication: tokens from events and requests, what a client may send before it has one, and what is due.

#[cfg(test)]
mod tests;

use super::addresses::CountedAddress;
use super::auth::{PendingToken, TokenOrigin, Verdict, VerifiedToken, VerifyJob};
use super::connection::{Moment, Stage};
use super::ending::Cause;
use super::state::State;
use super::time::ms;
use crate::app::{Answer, Json, ReplyTo, UnknownClient};
use crate::client::ClientId;
use crate::event::path::PathRef;
use crate::event::text::EventText;
use crate::identity::{Flaw, Identity, TokenError};
use crate::limits::AUTH_RELEASED_PER_TURN_MAX;
use crate::log::throttle;
use crate::metrics::Counter;
use crate::protocol::{Framing, OpeningHeaders, Reason};
use std::sync::Arc;
use std::time::Duration;

/// The longest time until the expiry of a token is looked at again, in milliseconds: the clock of the host may be set.
const LOOK_AGAIN_MS: u64 = 60 * 60 * 1000;

/// The events that a client may send before it has authenticated, if it must, and that do not wait for its token. Client
/// libraries send them when they connect.
const FREE: [&str; 3] = ["/qio/ping", "/qio/hostname", "/qio/limits"];
const AUTH: &str = "/qio/auth";
const CALLBACK: &str = "/qio/callback";

/// The reason for which a token is not accepted.
enum Refused {
    Token(TokenError),
    /// The token is valid, but belongs to another user than the connection.
    OtherUser,
    /// Too many tokens are being verified.
    Busy,
}

impl Refused {
    fn answer(&self) -> Answer {
        match self {
            Refused::Token(TokenError::Unavailable) => Answer::error(503, TokenError::Unavailable.message()),
            Refused::Token(error) => Answer::error(401, error.message()),
            Refused::OtherUser => Answer::error(401, "token of another user"),
            Refused::Busy => Answer::error(420, "too many tokens are being verified"),
        }
    }

    fn counter(&self) -> Counter {
        match self {
            Refused::Token(TokenError::Expired) => Counter::AuthRefusedExpired,
            Refused::Token(TokenError::Unavailable) => Counter::AuthUnavailable,
            Refused::Token(TokenError::Invalid(flaw)) => match flaw {
                Flaw::TooLong | Flaw::Form | Flaw::Header => Counter::AuthRefusedForm,
                Flaw::UnknownKey | Flaw::Algorithm => Counter::AuthRefusedKey,
                Flaw::Signature => Counter::AuthRefusedSignature,
                Flaw::Refused => Counter::AuthRefusedApp,
                _ => Counter::AuthRefusedClaims,
            },
            Refused::OtherUser => Counter::AuthRefusedUser,
            Refused::Busy => Counter::AuthRefusedBusy,
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Refused::Token(TokenError::Expired) => Reason::TokenExpired,
            Refused::Token(TokenError::Unavailable) => Reason::AuthUnavailable,
            Refused::Token(_) | Refused::OtherUser => Reason::TokenInvalid,
            Refused::Busy => Reason::AuthBusy,
        }
    }

    /// Returns whether the client has given a token that is not good. It may try others only a few times.
    fn is_of_token(&self) -> bool {
        !matches!(self, Refused::Busy | Refused::Token(TokenError::Unavailable))
    }

    fn describe(&self) -> String {
        match self {
            Refused::Token(error) => error.to_string(),
            Refused::OtherUser => "the token is for another user than the connection".into(),
            Refused::Busy => "too many tokens are being verified".into(),
        }
    }
}

impl State {
    /// Handles `/qio/auth`.
    pub fn authenticate(&mut self, reply_to: ReplyTo, token: &str) {
        let Some(slot) = self.connections.connection_of(reply_to.client) else { return };
        // If the connection ends, its end was decided.
        let _ = self.verify_token(slot, TokenOrigin::Event(reply_to), token);
    }

    /// Verifies the token of a connection, at once or beside the shard.
    ///
    /// # Errors
    ///
    /// The connection ends for this reason.
    fn verify_token(&mut self, slot: u32, source: TokenOrigin, token: &str) -> Result<(), Reason> {
        let now = self.time.unix_ms() / 1000;
        let verdict = self.auth.verify(token, now);
        self.act_on(slot, source, verdict)
    }

    fn act_on(&mut self, slot: u32, source: TokenOrigin, verdict: Verdict) -> Result<(), Reason> {
        match verdict {
            Verdict::Accepted { identity, seen } => {
                self.count(Counter::AuthSeen, u64::from(seen));
                self.token_accepted(slot, source, identity)
            }
            Verdict::Refused(error) => self.token_refused(slot, source, &Refused::Token(error)),
            Verdict::Slow(token) => {
                let (shard, generation) = (self.mesh.shard(), self.connections.live(slot).generation);
                let address = CountedAddress::of_peer(self.connections.live(slot).peer);
                let client = self.auth.asks().then(|| Box::new(self.unknown_client(slot, source)));
                let job = VerifyJob { shard, slot, generation, token, client, address };
                if self.auth.verify_beside(job, source) {
                    self.count(Counter::AuthVerifiedBeside, 1);
                    Ok(())
                } else {
                    self.token_refused(slot, source, &Refused::Busy)
                }
            }
        }
    }

    /// Returns what an application is told of a client that it is asked about, without the token.
    fn unknown_client(&self, slot: u32, source: TokenOrigin) -> UnknownClient {
        let connection = self.connections.live(slot);
        let transport = match source {
            _ if !connection.is_socket() => "http",
            TokenOrigin::Event(_) if connection.framing == Framing::Raw => "raw",
            TokenOrigin::Event(_) | TokenOrigin::Opening => "websocket",
        };
        let names = &self.protocol.wanted.names;
        let headers = self.facts.get(slot).map_or(&[][..], |facts| &facts.headers);
        let headers =
            headers.iter().map(|(place, value)| (names[usize::from(*place)].clone(), value.clone()));
        let (shard, generation) = (self.mesh.shard(), connection.generation);
        UnknownClient {
            client: ClientId { shard, slot, generation },
            token: None,
            address: connection.peer.ip(),
            transport,
            headers: headers.collect(),
        }
    }

    /// Handles what the request has brought that has opened a connection.
    ///
    /// # Errors
    ///
    /// The token was refused: the connection ends for this reason.
    pub fn opened_with(&mut self, slot: u32, opening: &OpeningHeaders) -> Result<(), Reason> {
        self.facts.set_headers(slot, &opening.values);
        self.count(Counter::AppHeadersLeftOut, u64::from(opening.left_out));
        let has_credentials = opening.bearer.is_some() || self.auth.has_credentials(&opening.values);
        if !has_credentials {
            return Ok(());
        }
        self.mesh.begin(self.connections.source(slot));
        match &opening.bearer {
            Some(token) => self.verify_token(slot, TokenOrigin::Opening, token),
            None => self.act_on(slot, TokenOrigin::Opening, Verdict::Slow(None)),
        }
    }

    /// Handles the result of a verification beside the shard. The connection may have ended meanwhile.
    pub fn token_verified(&mut self, verified: VerifiedToken) {
        let (slot, generation) = (verified.slot, verified.generation);
        let result = self.auth.result_came(verified, self.time.unix_ms() / 1000);
        if self.connections.get_of(slot, generation).is_none() {
            return;
        }
        let Some(source) = self.auth.end_verification(slot) else { return };
        self.auth.release(slot);
        self.mesh.begin(self.connections.source(slot));
        // If the connection ends, its end was decided.
        let _ = match result {
            Ok(Some(identity)) => self.token_accepted(slot, source, identity),
            Ok(None) => {
                self.count(Counter::AuthNobody, 1);
                Ok(())
            }
            Err(error) => self.token_refused(slot, source, &Refused::Token(error)),
        };
        // The time in which the client had to authenticate, or to send another token, may have ended meanwhile.
        if self.connections.live(slot).stage == Stage::Open {
            self.wake_at(slot, self.time.now_ms() + 1);
        }
    }

    /// Handles events of clients whose tokens were verified, as many as a turn permits.
    #[inline]
    pub fn dispatch_released(&mut self) {
        if self.auth.has_released() {
            self.dispatch_some_released();
        }
    }

    fn dispatch_some_released(&mut self) {
        let mut left = AUTH_RELEASED_PER_TURN_MAX;
        while left > 0 {
            let Some((slot, pending)) = self.auth.next_released() else { return };
            self.mesh.begin(self.connections.source(slot));
            self.dispatch_held(slot, pending, &mut left);
        }
    }

    /// Dispatches the events that a client has sent while its token was verified, up to `left` of them. One of them may bring
    /// another token.
    fn dispatch_held(&mut self, slot: u32, mut pending: Box<PendingToken>, left: &mut usize) {
        self.incomplete.changed(pending.held_bytes(), 0);
        while self.connections.live(slot).stage == Stage::Open {
            if *left == 0 && !pending.is_empty() && !self.auth.keeps_events(slot) {
                self.incomplete.changed(0, pending.held_bytes());
                return self.auth.put_back(slot, pending);
            }
            let Some(text) = pending.take_first() else { break };
            match self.auth.pending_mut(slot) {
                // What was held before fits again.
                Some(again) => {
                    let before = again.held_bytes();
                    again.hold(&text);
                    self.incomplete.changed(before, again.held_bytes());
                }
                None => {
                    self.dispatch(slot, &text);
                    *left -= 1;
                }
            }
        }
        if self.connections.live(slot).stage == Stage::Open && !self.connections.live(slot).is_socket() {
            self.wake_session(slot);
            if pending.closes() {
                self.close_when_handled(slot);
            }
        }
    }

    /// Ends a session, after the events of its client were handled that wait for a token.
    pub fn close_when_handled(&mut self, slot: u32) {
        match self.auth.pending_mut(slot) {
            Some(pending) => pending.close(),
            None => self.end(slot, Cause::Reason(Reason::Finished)),
        }
    }

    fn token_accepted(
        &mut self,
        slot: u32,
        source: TokenOrigin,
        identity: Arc<Identity>,
    ) -> Result<(), Reason> {
        let before = self.identities.get(slot);
        if before.is_some_and(|before| before.user != identity.user) {
            return self.token_refused(slot, source, &Refused::OtherUser);
        }
        let grants_others = before.is_some_and(|before| before.on != identity.on);
        let is_shown = self.access.has_members() && before.is_none_or(|before| before.info != identity.info);
        if self.access.has_rules() && (grants_others || is_shown) {
            self.grant_checks.request(slot);
        }
        self.count(Counter::AuthAccepted, 1);
        let data = match source {
            TokenOrigin::Event(_) => Some(answer_data(&identity)),
            TokenOrigin::Opening => None,
        };
        self.auth.accepted(slot);
        self.identities.set(slot, identity);
        if let Some(at_ms) = self.auth_due_ms(slot) {
            self.wake_at(slot, at_ms);
        }
        if let (TokenOrigin::Event(reply_to), Some(data)) = (source, data) {
            self.answer(0, reply_to, Answer::data(data));
        }
        Ok(())
    }

    fn token_refused(&mut self, slot: u32, source: TokenOrigin, refused: &Refused) -> Result<(), Reason> {
        self.count(refused.counter(), 1);
        let (peer, shard) = (self.connections.live(slot).peer, self.mesh.shard());
        let reason = refused.describe();
        throttle!(info, "token refused", %peer, shard, reason, "a client was not authenticated");
        let ends_for = match source {
            TokenOrigin::Event(reply_to) => {
                self.answer(0, reply_to, refused.answer());
                let has_too_many = refused.is_of_token() && self.auth.refuse(slot);
                has_too_many.then_some(Reason::TokenInvalid)
            }
            TokenOrigin::Opening => Some(refused.reason()),
        };
        let Some(reason) = ends_for else { return Ok(()) };
        self.end(slot, Cause::Reason(reason));
        Err(reason)
    }

    /// Holds an event if the token of its client is being verified, and refuses it if the client has to authenticate first.
    /// Returns whether that was done: the event is not dispatched then.
    #[cold]
    pub fn defer_or_refuse(&mut self, slot: u32, text: &str, event: &EventText<'_>) -> bool {
        let keeps_events = self.auth.keeps_events(slot);
        let is_known = !self.auth.is_required() || self.identities.get(slot).is_some();
        if is_known && !keeps_events {
            return false;
        }
        let mut scratch = String::new();
        let path = PathRef::clean(event.path, &mut scratch).map_or("", |path| path.as_str());
        let is_callback =
            path.strip_prefix(CALLBACK).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if FREE.contains(&path) || is_callback {
            return false;
        }
        let client = self.connections.client_of(slot).expect("only a connection with a client sends events");
        let reply_to = ReplyTo { client, callback: event.callback };
        if let Some(pending) = self.auth.pending_mut(slot) {
            let before = pending.held_bytes();
            if !self.incomplete.is_too_large(pending.bytes_with(text)) && pending.hold(text) {
                self.incomplete.changed(before, pending.held_bytes());
            } else {
                self.count(Counter::EventsRefusedAuth, 1);
                self.answer(0, reply_to, Answer::error(420, "the token is being verified"));
            }
            return true;
        }
        if path == AUTH {
            return false;
        }
        self.count(Counter::EventsReceived, 1);
        self.count(Counter::EventsRefusedAuth, 1);
        self.answer(0, reply_to, Answer::error(401, "authenticate first"));
        true
    }

    /// Notes that a client is connected, which may have to authenticate.
    pub fn require_token(&mut self, slot: u32) {
        if self.auth.is_required() && self.identities.get(slot).is_none() {
            self.auth.require(slot, self.time.now());
        }
    }

    /// Ends a connection whose client has not authenticated in time, or whose token has expired. Returns whether it ends.
    pub fn end_if_unauthenticated(&mut self, slot: u32) -> bool {
        if !self.auth.is_on() || self.auth.is_pending(slot) {
            return false;
        }
        let (since, timeout, reason) = match self.token_expired_since(slot) {
            Some(since) => (since, self.token_grace(), Reason::TokenExpired),
            None => match self.auth.required_since(slot) {
                Some(since) => (since, self.config.auth_timeout, Reason::AuthTimeout),
                None => return false,
            },
        };
        let is_over = self.has_exceeded(slot, since, timeout);
        if is_over {
            self.end(slot, Cause::Reason(reason));
        }
        is_over
    }

    /// The moment at which the token of a connection has expired, if it has.
    fn token_expired_since(&self, slot: u32) -> Option<Moment> {
        let expires_ms = self.identities.get(slot)?.expires?.saturating_mul(1000);
        let ago_ms = self.time.unix_ms().checked_sub(expires_ms)?;
        Some(self.time.now().before(ago_ms.min(ms(Duration::from_secs(24 * 60 * 60)))))
    }

    /// The time from the expiry of a token to the end of the connection. A token that has just been accepted lives longer than
    /// a moment.
    fn token_grace(&self) -> Duration {
        self.config.auth_grace.max(self.config.auth_leeway)
    }

    /// The time at which a connection has to be checked because of its client's token, or because it has none.
    pub fn auth_due_ms(&self, slot: u32) -> Option<u64> {
        if !self.auth.is_on() || self.auth.is_pending(slot) {
            return None;
        }
        let Some(identity) = self.identities.get(slot) else {
            let since = self.auth.required_since(slot)?;
            return Some(self.patience_end_ms(since, self.config.auth_timeout));
        };
        let expires_ms = identity.expires?.saturating_mul(1000);
        match self.token_expired_since(slot) {
            Some(since) => Some(self.patience_end_ms(since, self.token_grace())),
            None => {
                let left_ms = expires_ms.saturating_sub(self.time.unix_ms()).min(LOOK_AGAIN_MS);
                Some(self.time.now_ms() + left_ms + ms(self.token_grace()))
            }
        }
    }
}

/// Returns the data of the answer to a token that was accepted.
fn answer_data(identity: &Identity) -> Json {
    let user = Json::string(&identity.user);
    let expires = identity.expires.map_or_else(|| "null".to_owned(), |expires| expires.to_string());
    Json::trusted(&format!(r#"{{"user":{},"expires":{expires}}}"#, user.as_str()))
}
