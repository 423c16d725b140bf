//! Methods of answers and of the server callbacks that they offer.

use super::event::Reply;
use super::json::Json;
use super::types::{Answer, AnswerState, Callback, Context, SendCallback};
use std::fmt;

impl<C> Answer<C> {
    /// Returns an answer with code 200 and the data `null`.
    pub fn ok() -> Self {
        Self::data(Json::NULL)
    }

    /// Returns an answer with code 200 and this data.
    pub fn data(data: impl Into<Json>) -> Self {
        Self::with(200, data.into(), None)
    }

    /// Returns an error: a code other than 200 (docs/protocol.md, section 2, lists the usual ones) and a message.
    pub fn error(code: u16, message: impl Into<String>) -> Self {
        Self::refusal(code, Some(message.into().into_boxed_str()))
    }

    /// Returns an error with data.
    pub fn error_with(code: u16, message: impl Into<String>, data: impl Into<Json>) -> Self {
        Self::with(code, data.into(), Some(message.into().into_boxed_str()))
    }

    /// Returns an error with the data `null`. `err_msg` is null if there is no message.
    pub(crate) fn refusal(code: u16, message: Option<Box<str>>) -> Self {
        Self::with(code, Json::NULL, message)
    }

    /// Returns an answer with this code, data and message.
    pub(crate) fn with(code: u16, data: Json, message: Option<Box<str>>) -> Self {
        Answer(AnswerState::Ready { code, data, message, callback: None })
    }

    /// Returns the absence of an answer: the client never receives one.
    pub fn never() -> Self {
        Answer(AnswerState::Deferred)
    }

    /// Offers the client a callback.
    pub(crate) fn offering(mut self, offered: C) -> Self {
        if let AnswerState::Ready { callback, .. } = &mut self.0 {
            *callback = Some(offered);
        }
        self
    }
}

impl Answer {
    /// Offers the client a callback: the client may answer this answer, and `callback` receives that reply. Ignored
    /// if the code is not 200.
    pub fn with_callback(
        self,
        callback: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + 'static,
    ) -> Answer {
        self.offering(Callback::new(callback))
    }
}

impl Answer<SendCallback> {
    /// Offers the client a callback: the client may answer this answer, and `callback` receives that reply. Ignored
    /// if the code is not 200.
    pub fn with_send_callback(
        self,
        callback: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + Send + 'static,
    ) -> Answer<SendCallback> {
        self.offering(SendCallback::new(callback))
    }

    /// Converts the answer to one that stays on the shard of its client.
    pub(crate) fn into_local(self) -> Answer {
        Answer(match self.0 {
            AnswerState::Ready { code, data, message, callback } => {
                AnswerState::Ready { code, data, message, callback: callback.map(Callback::from) }
            }
            AnswerState::Deferred => AnswerState::Deferred,
        })
    }
}

impl<C> fmt::Debug for Answer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            AnswerState::Ready { code, data, .. } => write!(f, "{code} {data:?}"),
            AnswerState::Deferred => f.write_str("deferred"),
        }
    }
}

impl Callback {
    pub(crate) fn new(run: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + 'static) -> Callback {
        Callback(Box::new(run))
    }

    pub(crate) fn run(self, cx: &mut Context<'_>, reply: Reply<'_>) -> Answer {
        (self.0)(cx, reply)
    }
}

impl SendCallback {
    /// Returns a callback that runs this function.
    pub fn new(run: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + Send + 'static) -> SendCallback {
        SendCallback(Box::new(run))
    }
}

impl From<SendCallback> for Callback {
    fn from(callback: SendCallback) -> Callback {
        Callback(callback.0)
    }
}
