//! The worker's timers, and the timeout of its requests. Both are driven by timers of the shard.

use super::{TOO_LATE, TimedRequest, WorkerLink, fail_request, header_now};
use crate::app::Context;
use crate::app::worker::wire::{LinkFrameHeader, ToWorker};
use crate::log::throttle;
use std::rc::Rc;
use std::time::Duration;

/// The resolution of the shard's timers.
const TICK: Duration = Duration::from_millis(1);

/// The time after which requests are examined again while the link is not read.
const PAUSED: Duration = Duration::from_millis(10);

impl WorkerLink {
    /// Schedules a sweep after this time.
    pub(super) fn schedule_sweep(self: &Rc<Self>, cx: &mut Context<'_>, time: Duration) {
        let link = Rc::downgrade(self);
        cx.after(time, move |cx| {
            if let Some(link) = link.upgrade() {
                link.sweep(cx);
            }
        });
    }

    /// Fails the requests that have been pending for too long, and schedules the next sweep if others are pending.
    fn sweep(self: &Rc<Self>, cx: &mut Context<'_>) {
        if self.is_paused.get() {
            return self.schedule_sweep(cx, PAUSED);
        }
        let (now, timeout) = (cx.now(), self.limits.request_timeout);
        let patience_until = self.patience_since.get() + timeout;
        if self.patience_since.get() > Duration::ZERO && now < patience_until {
            return self.schedule_sweep(cx, patience_until - now);
        }
        let Some(began_until) = now.checked_sub(timeout) else { return self.schedule_sweep(cx, timeout) };
        let mut late = 0;
        let oldest = self.requests.borrow_mut().end_until(began_until, |TimedRequest { request, .. }| {
            late += 1;
            self.load.borrow_mut().end(&request);
            fail_request(cx, request, TOO_LATE);
        });
        if late > 0 {
            let worker = &self.name;
            throttle!(
                warn,
                "worker-request-timeout",
                worker,
                requests = late,
                "a worker did not answer within worker-request-timeout; the requests were answered 500"
            );
        }
        self.counters.add_timed_out(late);
        self.sweep_is_scheduled.set(oldest.is_some());
        if let Some(oldest) = oldest {
            self.schedule_sweep(cx, (oldest + timeout).saturating_sub(now).max(TICK));
        }
    }

    /// Sets a timer that is due `time` after `since`, which may be in the past. A period is at least 1 ms.
    ///
    /// # Errors
    ///
    /// The worker has too many timers.
    pub fn set_timer(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        number: u32,
        since: Duration,
        time: Duration,
        repeats: bool,
    ) -> Result<(), &'static str> {
        let time = if repeats { time.max(TICK) } else { time };
        let due = since.saturating_add(time);
        if !self.timers.borrow_mut().set(number, due, repeats.then_some(time)) {
            return Err("the worker has too many timers");
        }
        self.arm_timers(cx);
        Ok(())
    }

    /// Sets a timer of the shard for the earliest of the worker's timers, unless there is one.
    fn arm_timers(self: &Rc<Self>, cx: &mut Context<'_>) {
        let Some(due) = self.timers.borrow_mut().arm() else { return };
        let link = Rc::downgrade(self);
        cx.after(due.saturating_sub(cx.now()), move |cx| {
            if let Some(link) = link.upgrade() {
                link.fire_timers(cx);
            }
        });
    }

    /// Tells the worker of each timer that is due.
    fn fire_timers(self: &Rc<Self>, cx: &mut Context<'_>) {
        self.timers.borrow_mut().shard_timers_fired(cx.now());
        while let Some(number) = self.take_due_timer(cx.now()) {
            self.put_frame(ToWorker::Timer, &LinkFrameHeader { number, ..header_now(cx) }, "", "");
        }
        self.arm_timers(cx);
    }

    /// Returns the number of a timer that is due. A method of its own: the borrow ends before the frame is put.
    fn take_due_timer(&self, now: Duration) -> Option<u32> {
        self.timers.borrow_mut().take_due(now)
    }
}
