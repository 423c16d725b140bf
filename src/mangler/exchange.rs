//! The state that the two directions of a connection share.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_lite::future;

use super::refusal::ProxyRefusal;
use crate::config::clienttest::Mode;
use crate::limits::MANGLER_PIPELINE_MAX;
use crate::qev::control::timeout;

/// The response that a request will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectedResponse {
    /// A response that has a body, unless its status or its length says otherwise.
    WithBody,
    /// A response without a body, whatever its length says: the request is a HEAD.
    WithoutBody,
    /// A response to an upgrade, which may be a 101.
    Upgrade(Mode),
    /// Requests pass unexamined, and so do their responses.
    Unknown,
}

/// The treatment of the bytes after a 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// They pass.
    Pass,
    /// They are dropped.
    Swallow,
}

/// The shared state. Both directions run in one task, so one waker is enough for both.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    state: RefCell<ExchangeState>,
    waiting: RefCell<Option<Waker>>,
}

#[derive(Debug, Default)]
struct ExchangeState {
    /// The responses that are still to come, in their order: at most [`MANGLER_PIPELINE_MAX`].
    expected: VecDeque<ExpectedResponse>,
    /// Requests pass unexamined.
    is_unknown: bool,
    /// Set by a 101.
    tunnel: Option<Tunnel>,
    /// The proxy's own response, after the server's.
    refusal: Option<ProxyRefusal>,
    client_ended: bool,
    server_ended: bool,
}

impl ExchangeState {
    fn has_undecided_upgrade(&self) -> bool {
        matches!(self.expected.back(), Some(ExpectedResponse::Upgrade(_))) && !self.server_ended
    }
}

/// The methods for the direction from client to server.
impl Exchange {
    /// Returns the tunnel that the client's bytes belong to, or `None` if they are HTTP. Waits while an upgrade is
    /// undecided.
    pub(super) async fn tunnel(&self) -> Option<Tunnel> {
        self.wait_while(ExchangeState::has_undecided_upgrade).await.tunnel
    }

    /// Records that a request goes to the server. Waits while too many responses are still to come.
    pub(super) async fn expect(&self, response: ExpectedResponse) {
        let is_full =
            |state: &ExchangeState| state.expected.len() >= MANGLER_PIPELINE_MAX && !state.server_ended;
        let mut state = self.wait_while(is_full).await;
        state.expected.push_back(response);
    }

    /// Records that requests pass unexamined from now on.
    pub(super) fn stop_examining(&self) {
        self.state.borrow_mut().is_unknown = true;
    }

    /// Records the proxy's own response, which ends the connection. Waits until the responses before it have been sent.
    pub(super) async fn refuse(&self, refusal: ProxyRefusal) {
        let owes = |state: &ExchangeState| !state.expected.is_empty() && !state.server_ended;
        self.wait_while(owes).await.refusal = Some(refusal);
    }

    /// Records that the client sends no more.
    pub(super) fn end_client(&self) {
        self.change(|state| state.client_ended = true);
    }
}

/// The methods for the direction from server to client.
impl Exchange {
    /// Returns what the next response belongs to. A response that no request expects is an ordinary one: a server may
    /// send 408 on its own.
    pub(super) fn expected(&self) -> ExpectedResponse {
        let state = self.state.borrow();
        let unexpected =
            if state.is_unknown { ExpectedResponse::Unknown } else { ExpectedResponse::WithBody };
        state.expected.front().copied().unwrap_or(unexpected)
    }

    /// Records that this response is complete.
    pub(super) fn complete_response(&self) {
        self.change(|state| state.expected.pop_front());
    }

    /// Records that this response was a 101.
    pub(super) fn open_tunnel(&self, tunnel: Tunnel) {
        self.change(|state| {
            state.expected.pop_front();
            state.tunnel = Some(tunnel);
        });
    }

    /// Records that the server sends no more. Returns the proxy's own response, if there is one.
    pub(super) fn end_server(&self) -> Option<ProxyRefusal> {
        self.change(|state| {
            state.server_ended = true;
            state.refusal.take()
        })
    }

    /// Waits for [`Exchange::end_client`], at most for this time.
    pub(super) async fn wait_for_client(&self, time: Duration) {
        timeout(time, self.wait_while(|state| !state.client_ended)).await;
    }
}

impl Exchange {
    fn change<T>(&self, change: impl FnOnce(&mut ExchangeState) -> T) -> T {
        let changed = change(&mut self.state.borrow_mut());
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
        changed
    }

    async fn wait_while(&self, holds: impl Fn(&ExchangeState) -> bool) -> RefMut<'_, ExchangeState> {
        future::poll_fn(|cx| {
            if !holds(&self.state.borrow()) {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.state.borrow_mut()
    }
}
