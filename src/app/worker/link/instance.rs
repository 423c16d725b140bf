//! An instance on one shard: what one of its workers leaves to the next.

use super::WorkerLink;
use crate::app::Context;
use crate::app::shares::ShareRefusal;
use crate::app::worker::LinkLimits;
use crate::app::worker::counters::WorkerCounters;
use crate::app::worker::ends::{ClientEnd, WaitingEnds};
use crate::client::ClientId;
use std::cell::RefCell;
use std::rc::Rc;

/// The part of `worker-outbox-bytes-max`, as its divisor, that ends may take while they wait for a worker. The new
/// worker is sent all of them at once, and must be able to accept events then.
const WAITING_PART: usize = 2;

/// An instance of an application, as one shard sees it: the link to the worker that runs for it, if there is one, and
/// the ends of which no worker has been told.
///
/// Each end is sent to the worker that runs for the instance at that time, or waits for the next worker. A worker is
/// told of an end at most once: if it crashes, what it was sent and has not handled is lost.
pub struct Instance {
    link: RefCell<Option<Rc<WorkerLink>>>,
    waiting: RefCell<WaitingEnds>,
    counters: Rc<WorkerCounters>,
}

impl Instance {
    /// Returns an instance that has no worker yet.
    pub fn new(limits: &LinkLimits, counters: Rc<WorkerCounters>) -> Rc<Instance> {
        let waiting = RefCell::new(WaitingEnds::new(limits.outbox_bytes_max / WAITING_PART));
        Rc::new(Instance { link: RefCell::new(None), waiting, counters })
    }

    /// Returns the link to the worker that receives the instance's events.
    pub fn link(&self) -> Option<Rc<WorkerLink>> {
        self.link.borrow().clone()
    }

    /// Has a worker receive the instance's events from now on, after the ends that waited for it. Drains the worker that
    /// received them before.
    pub fn set_link(&self, cx: &Context<'_>, link: Rc<WorkerLink>) {
        let time_ms = cx.now().as_millis() as u64;
        self.waiting.borrow_mut().take().iter().for_each(|end| link.send_end(end, time_ms));
        link.last_time_ms.set(time_ms);
        if let Some(before) = self.link.replace(Some(link)) {
            before.begin_draining(cx.now());
        }
    }

    /// Stops sending events over a link that has ended.
    pub fn remove_link(&self, link: &Rc<WorkerLink>) {
        self.link.borrow_mut().take_if(|current| Rc::ptr_eq(current, link));
    }

    /// Checks whether a client may subscribe while no worker runs: the end of the subscription would wait.
    ///
    /// # Errors
    ///
    /// Too many ends wait, or too many of this client.
    pub fn admit_end(&self, client: ClientId) -> Result<(), ShareRefusal> {
        self.waiting.borrow().admit(client)
    }

    /// Tells the worker of an end, at this time. If no worker runs, the next one is told.
    pub fn tell(&self, end: ClientEnd, time_ms: u64) {
        match &*self.link.borrow() {
            Some(link) if link.is_open() => link.send_end(&end, time_ms),
            _ if self.waiting.borrow_mut().push(end) => {}
            _ => self.counters.add_end_dropped(),
        }
    }

    /// Tells the worker that a client is gone which an earlier worker has watched.
    pub(super) fn tell_gone(&self, client: ClientId) {
        let time_ms = self.link.borrow().as_ref().map_or(0, |link| link.last_time_ms.get());
        self.tell(ClientEnd::Gone { client }, time_ms);
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        self.waiting.borrow().check();
        self.link.borrow().iter().for_each(|link| link.check());
    }
}
