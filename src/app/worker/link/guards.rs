//! Values whose drop is reported to a worker: callbacks that it offers, and watches on clients.

use super::WorkerLink;
use crate::app::worker::wire::{LinkFrameHeader, ToWorker};
use crate::app::{Answer, Callback};
use crate::client::ClientId;
use std::rc::Rc;

/// A server callback that a worker offers. If it never runs, for any reason (it expired, its client disconnected, it
/// could not be offered), the worker is told.
pub(super) struct OfferedCallback {
    /// `None` once the callback runs or was dropped.
    link: Option<Rc<WorkerLink>>,
    number: u32,
}

impl OfferedCallback {
    /// Returns the callback of this number, and counts it as open.
    pub(super) fn new(link: Rc<WorkerLink>, number: u32) -> OfferedCallback {
        link.open_callbacks.set(link.open_callbacks.get() + 1);
        OfferedCallback { link: Some(link), number }
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
        let open = link.open_callbacks.get();
        debug_assert!(open > 0, "an open callback is counted");
        link.open_callbacks.set(open - 1);
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

/// A watch of a worker on a client. It is kept among the client's data, which is dropped when the client disconnects,
/// and is dropped at once if the client has already disconnected. The worker is told then.
pub(super) struct ClientWatch {
    pub(super) link: Rc<WorkerLink>,
    pub(super) client: ClientId,
}

impl Drop for ClientWatch {
    fn drop(&mut self) {
        let header = LinkFrameHeader { client: self.client, ..self.link.header_at_last_time() };
        self.link.put_frame(ToWorker::Gone, &header, "", "");
    }
}
