//! A worker's timers, and its requests that take too long: both by timers of the shard.

use super::{TOO_LATE, WorkerLink, fail, now};
use crate::app::Context;
use crate::app::worker::wire::{Head, ToWorker};
use std::rc::Rc;
use std::time::Duration;

impl WorkerLink {
    /// Has the requests looked at that take too long.
    pub(super) fn sweep_in(self: &Rc<Self>, cx: &mut Context<'_>, time: Duration) {
        let link = Rc::downgrade(self);
        cx.after(time, move |cx| {
            if let Some(link) = link.upgrade() {
                link.sweep(cx);
            }
        });
    }

    fn sweep(self: &Rc<Self>, cx: &mut Context<'_>) {
        let (now, timeout) = (cx.now(), self.limits.request_timeout);
        let Some(moment) = now.checked_sub(timeout) else { return self.sweep_in(cx, timeout) };
        let mut late = 0;
        let oldest = self.requests.borrow_mut().end_before(moment, |request| {
            late += 1;
            fail(cx, request, TOO_LATE);
        });
        if late > 0 {
            let worker = &self.name;
            tracing::warn!(
                worker,
                requests = late,
                "a worker did not answer within worker-request-timeout: 500"
            );
        }
        self.tally.timed_out(late);
        self.sweep_is_due.set(oldest.is_some());
        if let Some(oldest) = oldest {
            self.sweep_in(cx, (oldest + timeout).saturating_sub(now).max(Duration::from_millis(1)));
        }
    }

    /// Sets a timer: so long from this moment on, which may be past.
    pub fn set(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        number: u32,
        since: Duration,
        time: Duration,
        repeats: bool,
    ) -> Result<(), &'static str> {
        let time = if repeats { time.max(Duration::from_millis(1)) } else { time };
        let due = since.saturating_add(time);
        if !self.timers.borrow_mut().set(number, due, repeats.then_some(time)) {
            return Err("it has too many timers");
        }
        self.arm(cx);
        Ok(())
    }

    /// Has the shard's timer fire as early as the earliest of the worker's.
    fn arm(self: &Rc<Self>, cx: &mut Context<'_>) {
        let Some(due) = self.timers.borrow_mut().arm() else { return };
        let link = Rc::downgrade(self);
        cx.after(due.saturating_sub(cx.now()), move |cx| {
            if let Some(link) = link.upgrade() {
                link.fire(cx);
            }
        });
    }

    fn fire(self: &Rc<Self>, cx: &mut Context<'_>) {
        self.timers.borrow_mut().fired(cx.now());
        while let Some(number) = self.take_due(cx.now()) {
            self.put(ToWorker::Timer, &Head { number, ..now(cx) }, "", "");
        }
        self.arm(cx);
    }

    fn take_due(&self, now: Duration) -> Option<u32> {
        self.timers.borrow_mut().take_due(now)
    }
}
