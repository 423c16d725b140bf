//! What a handler returns: an answer to the event, or a decision about a subscription.

use super::context::{Context, Reply};
use super::json::Json;
use std::fmt;

/// What runs when a client answers an answer or an event: a server callback. It may answer in its turn.
pub struct Callback(Box<Run>);

type Run = dyn FnOnce(&mut Context<'_>, Reply<'_>) -> Answer;

/// A server callback that may be made on one thread and run on another.
pub struct SendCallback(Box<SendRun>);

type SendRun = dyn FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + Send;

impl Callback {
    pub(crate) fn new(run: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + 'static) -> Callback {
        Callback(Box::new(run))
    }

    pub(crate) fn run(self, cx: &mut Context<'_>, reply: Reply<'_>) -> Answer {
        (self.0)(cx, reply)
    }
}

impl SendCallback {
    /// A callback of this function.
    pub fn new(run: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + Send + 'static) -> SendCallback {
        SendCallback(Box::new(run))
    }
}

impl From<SendCallback> for Callback {
    fn from(callback: SendCallback) -> Callback {
        Callback(callback.0)
    }
}

/// The answer to an event. Where the client asked for none it is dropped.
///
/// `C` is the kind of server callback it may offer: answers given later, from other threads, need one that
/// can be sent.
#[must_use = "an answer is given by returning it, or by `Later::answer`"]
pub struct Answer<C = Callback>(pub(crate) AnswerState<C>);

pub(crate) enum AnswerState<C> {
    Ready {
        code: u16,
        data: Json,
        message: Option<Box<str>>,
        callback: Option<C>,
    },
    /// Somebody holds a `Later`, or nobody will ever answer.
    Deferred,
}

impl<C> Answer<C> {
    /// 200, data `null`.
    pub fn ok() -> Self {
        Self::data(Json::NULL)
    }

    /// 200 with data.
    pub fn data(data: impl Into<Json>) -> Self {
        Self::of(200, data.into(), None)
    }

    /// An error: a code other than 200 (protocol.md, section 2, lists the usual ones), and what to tell.
    pub fn error(code: u16, message: impl Into<String>) -> Self {
        Self::refusal(code, Some(message.into().into_boxed_str()))
    }

    /// An error with data.
    pub fn error_with(code: u16, message: impl Into<String>, data: impl Into<Json>) -> Self {
        Self::of(code, data.into(), Some(message.into().into_boxed_str()))
    }

    /// An error without words: `err_msg` is null.
    pub(crate) fn refusal(code: u16, message: Option<Box<str>>) -> Self {
        Self::of(code, Json::NULL, message)
    }

    /// Code, data and message as they are.
    pub(crate) fn of(code: u16, data: Json, message: Option<Box<str>>) -> Self {
        Answer(AnswerState::Ready { code, data, message, callback: None })
    }

    /// No answer, not now and not later: the client waits in vain.
    pub fn never() -> Self {
        Answer(AnswerState::Deferred)
    }
}

impl<C> fmt::Debug for Answer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            AnswerState::Ready { code, data, .. } => write!(f, "{code} {data:?}"),
            AnswerState::Deferred => f.write_str("not now"),
        }
    }
}

impl Answer {
    /// Offers the client a callback: it may answer this answer. Ignored where the code is not 200.
    pub fn with_callback(
        self,
        callback: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + 'static,
    ) -> Answer {
        self.offering(Callback::new(callback))
    }
}

impl Answer<SendCallback> {
    /// Offers the client a callback: it may answer this answer. Ignored where the code is not 200.
    pub fn with_send_callback(
        self,
        callback: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + Send + 'static,
    ) -> Answer<SendCallback> {
        self.offering(SendCallback::new(callback))
    }

    /// The same answer, for the shard that its client lives on.
    pub(crate) fn into_local(self) -> Answer {
        Answer(match self.0 {
            AnswerState::Ready { code, data, message, callback } => {
                AnswerState::Ready { code, data, message, callback: callback.map(Callback::from) }
            }
            AnswerState::Deferred => AnswerState::Deferred,
        })
    }
}

impl<C> Answer<C> {
    pub(crate) fn offering(mut self, offered: C) -> Self {
        if let AnswerState::Ready { callback, .. } = &mut self.0 {
            *callback = Some(offered);
        }
        self
    }
}

/// What an on-hook says to a client that wants to subscribe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Decision {
    /// 200.
    Accept,
    /// 401, or 404 where the event handles children.
    Refuse,
    /// This code: what decides is not there, say (500).
    Fail(u16),
    /// Somebody holds a [`super::LaterDecision`].
    Later,
}
