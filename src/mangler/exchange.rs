//! What the two directions of a connection tell each other.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::refusal::Refusal;
use crate::config::clienttest::Mode;
use crate::limits::MANGLER_PIPELINE_MAX;

/// What will answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// An answer that has a body, unless its status or its length says otherwise.
    Body,
    /// One without a body, whatever its length says: HEAD.
    NoBody,
    /// Perhaps a 101.
    Upgrade(Mode),
    /// Requests pass without being looked at: so do their answers.
    Unknown,
}

/// What happens to the bytes behind a 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    Pass,
    Swallow,
}

/// The state that both directions see.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The answers that are still to come, in their order: at most [`MANGLER_PIPELINE_MAX`].
    expected: VecDeque<Expected>,
    /// Requests are not looked at any more.
    is_unknown: bool,
    /// Set by a 101.
    tunnel: Option<Tunnel>,
    /// The proxy's own answer, behind the server's.
    refusal: Option<Refusal>,
    client_ended: bool,
    server_ended: bool,
}

impl State {
    fn is_undecided(&self) -> bool {
        matches!(self.expected.back(), Some(Expected::Upgrade(_))) && !self.server_ended
    }
}

/// What the direction from client to server asks and tells.
impl Exchange {
    /// What the client's bytes belong to; `None` is HTTP. Waits while an upgrade is undecided.
    pub(super) fn tunnel(&self) -> Option<Tunnel> {
        self.wait_while(State::is_undecided).tunnel
    }

    /// A request goes to the server. Waits while too many do.
    pub(super) fn expect(&self, answer: Expected) {
        let is_full = |state: &State| state.expected.len() >= MANGLER_PIPELINE_MAX && !state.server_ended;
        self.wait_while(is_full).expected.push_back(answer);
    }

    /// From now on requests are not looked at.
    pub(super) fn lose_sight(&self) {
        self.lock().is_unknown = true;
    }

    /// The proxy answers, and ends the connection: behind the answers that are still to come, for which this waits.
    pub(super) fn refuse(&self, refusal: Refusal) {
        let owes = |state: &State| !state.expected.is_empty() && !state.server_ended;
        self.wait_while(owes).refusal = Some(refusal);
    }

    /// The client sends no more.
    pub(super) fn end_client(&self) {
        self.lock().client_ended = true;
        self.changed.notify_all();
    }
}

/// What the direction from server to client asks and tells.
impl Exchange {
    /// What the next answer belongs to. Where nobody asked it is an ordinary one: a server may answer 408 unasked.
    pub(super) fn expected(&self) -> Expected {
        let state = self.lock();
        let unasked = if state.is_unknown { Expected::Unknown } else { Expected::Body };
        state.expected.front().copied().unwrap_or(unasked)
    }

    /// That answer is over.
    pub(super) fn answered(&self) {
        self.lock().expected.pop_front();
        self.changed.notify_all();
    }

    /// That answer was a 101.
    pub(super) fn open(&self, tunnel: Tunnel) {
        let mut state = self.lock();
        state.expected.pop_front();
        state.tunnel = Some(tunnel);
        self.changed.notify_all();
    }

    /// The server sends no more: what the proxy has to say then.
    pub(super) fn end_server(&self) -> Option<Refusal> {
        let mut state = self.lock();
        state.server_ended = true;
        self.changed.notify_all();
        state.refusal.take()
    }

    /// Waits for [`Exchange::end_client`], at most so long.
    pub(super) fn wait_for_client(&self, time: Duration) {
        let goes_on = |state: &mut State| !state.client_ended;
        let waited = self.changed.wait_timeout_while(self.lock(), time, goes_on);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Exchange {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, holds: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_while(self.lock(), |state| holds(state));
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}
