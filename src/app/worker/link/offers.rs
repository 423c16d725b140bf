//! What a worker has to be told of when it is dropped: callbacks that it offers, clients that it watches.

use super::WorkerLink;
use crate::app::worker::wire::{Head, ToWorker};
use crate::app::{Answer, Callback};
use crate::client::ClientId;
use std::rc::Rc;

/// A server callback that the worker offers. One that never runs is told to it, whatever became of it: it expired, its client
/// has gone, it could not be offered.
pub(super) struct Offered {
    pub(super) link: Option<Rc<WorkerLink>>,
    pub(super) number: u32,
}

impl Offered {
    pub(super) fn into_callback(mut self) -> Callback {
        Callback::new(move |cx, reply| match self.close() {
            Some(link) => link.reply(cx, self.number, reply),
            None => Answer::refusal(500, None),
        })
    }

    /// It is not open any more.
    fn close(&mut self) -> Option<Rc<WorkerLink>> {
        let link = self.link.take()?;
        link.callbacks.set(link.callbacks.get() - 1);
        Some(link)
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if let Some(link) = self.close() {
            link.drop_callback(self.number);
        }
    }
}

/// Kept among a client's data, so that it is dropped when the client has gone; at once where it has already.
pub(super) struct Watch {
    pub(super) link: Rc<WorkerLink>,
    pub(super) client: ClientId,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let link = &self.link;
        link.put(ToWorker::Gone, &Head { client: self.client, ..Head::at(link.told_ms.get()) }, "", "");
    }
}
