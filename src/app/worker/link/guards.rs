//! Values whose drop is reported to a worker: callbacks that it offers, and watches on clients.

use super::{Instance, WorkerLink};
use crate::app::worker::wire::{LinkFrameHeader, ToWorker};
use crate::app::{Answer, Callback};
use crate::client::ClientId;
use std::rc::Rc;

/// A server callback that a worker offers. If it never runs, for any reason (it expired, its client disconnected, it
/// could not be offered), the worker is told.
pub(super) struct OfferedCallback {
    /// `None` once the callback runs or was dropped.
    link: Option<Rc<WorkerLink>>,
    client: ClientId,
    number: u32,
}

impl OfferedCallback {
    /// Returns the callback of this number, which the link counts as open until this value closes it.
    pub(super) fn new(link: Rc<WorkerLink>, client: ClientId, number: u32) -> OfferedCallback {
        OfferedCallback { link: Some(link), client, number }
    }

    pub(super) fn into_callback(mut self) -> Callback {
        Callback::new(move |cx, reply| match self.close() {
            Some(link) => link.send_reply(cx, self.number, reply),
            None => Answer::refusal(500, None),
        })
    }

    /// Counts the callback as closed. Returns its link the first time.
    fn close(&mut self) -> Option<Rc<WorkerLink>> {
        let link = self.link.take()?;
        link.load.borrow_mut().close_callback(self.client);
        Some(link)
    }
}

impl Drop for OfferedCallback {
    fn drop(&mut self) {
        if let Some(link) = self.close() {
            link.send_dropped(self.number);
        }
    }
}

/// The watches of an instance's workers on a client. They are kept among the client's data, which is dropped when the
/// client disconnects, and are dropped at once if the client has already disconnected.
///
/// Each worker that watches the client is told then. If all of them have ended, the worker that runs for the instance
/// is told in their place, or the next one if none runs.
pub(super) struct ClientWatches {
    instance: Rc<Instance>,
    client: ClientId,
    links: Vec<Rc<WorkerLink>>,
}

impl ClientWatches {
    pub(super) fn new(instance: Rc<Instance>, client: ClientId) -> ClientWatches {
        ClientWatches { instance, client, links: Vec::new() }
    }

    /// Adds the watch of a worker, unless it watches the client already.
    pub(super) fn add(&mut self, link: &Rc<WorkerLink>) {
        self.links.retain(|other| other.is_open() && !Rc::ptr_eq(other, link));
        // The watch of a worker that is being replaced remains until that worker ends.
        if link.is_open() {
            self.links.push(Rc::clone(link));
        }
    }
}

impl Drop for ClientWatches {
    fn drop(&mut self) {
        let mut is_told = false;
        for link in self.links.iter().filter(|link| link.is_open()) {
            let header = LinkFrameHeader { client: self.client, ..link.header_at_last_time() };
            link.put_frame(ToWorker::Gone, &header, "", "");
            is_told = true;
        }
        if !is_told {
            self.instance.tell_gone(self.client);
        }
    }
}
