//! A shard's end of a link: what events become frames, what frames become commands, and what is under way between them.
//!
//! Here is what the shard sends; `taken` has what the worker says, `timing` and `offers` what happens by itself.
//!
//! It does no I/O. The shard carries the bytes: what is to be sent it takes by [`WorkerLink::take_output`], what came it gives to
//! [`WorkerLink::handle_received`].

mod offers;
mod taken;
mod timing;

use super::manifest::{EventSpec, Manifest, Subscriptions};
use super::requests::Requests;
use super::tally::WorkerCounters;
use super::timers::Timers;
use super::wire::{self, Head, ToWorker, WANTS_ANSWER};
use super::{LinkLimits, SupervisorHandle};
use crate::app::{
    Answer, Command, Context, Decision, Event, LocalCommand, Reply, ReplyTo, Subscription, Unsubscribed,
};
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use crate::limits::WORKER_CALLBACKS_MAX;
use ahash::AHashMap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a buffer that a link keeps: what was larger once is given back.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// How long a link is silent about what it refuses, once it has warned.
const WARN_AGAIN: Duration = Duration::from_secs(1);

/// What requests are answered that cannot be handled: 500, as nothing is wrong with them.
const NOT_RUNNING: &str = "the application is not running";
const BUSY: &str = "the application is busy";
const TOO_LATE: &str = "the application did not answer in time";
const ENDED: &str = "the application has ended";

/// One end of one link.
pub struct WorkerLink {
    worker: u32,
    /// For the log.
    name: String,
    limits: LinkLimits,
    supervisor: Arc<dyn SupervisorHandle>,
    manifest: Arc<Manifest>,
    tally: Rc<WorkerCounters>,
    /// What each of the team's events is to this worker, if anything.
    events: RefCell<Vec<Option<u32>>>,
    output: RefCell<Vec<u8>>,
    /// Bytes in the output, and those that the shard has taken and the kernel has not.
    unread: Cell<usize>,
    /// The beginning of a frame of which the rest has not come.
    partial: RefCell<Vec<u8>>,
    requests: RefCell<Requests<Request>>,
    timers: RefCell<Timers>,
    callbacks: Cell<usize>,
    /// The time that the worker was told last.
    told_ms: Cell<u64>,
    /// A look at the requests that take too long is due.
    sweep_is_due: Cell<bool>,
    warned: Cell<Option<Duration>>,
    stage: Cell<Stage>,
}

/// How far a link is. It only ever moves down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    /// Its worker gets events.
    Serving,
    /// Another worker gets them; this one finishes what it has.
    Leaving,
    /// It was told that no more will come. What it says is still done.
    Closed,
    /// It has broken the protocol: what it says is not listened to any more.
    Broken,
    /// Nothing crosses it any more.
    Ended,
}

/// What the worker has under way.
enum Request {
    Event(ReplyTo),
    Subscription(ReplyTo, PathId),
}

impl WorkerLink {
    /// The end of a link to a worker of this manifest. `known` are the team's events, by their numbers.
    pub fn new(
        worker: u32,
        name: String,
        manifest: Arc<Manifest>,
        limits: LinkLimits,
        supervisor: Arc<dyn SupervisorHandle>,
        tally: Rc<WorkerCounters>,
        known: &AHashMap<Path, u32>,
    ) -> Rc<WorkerLink> {
        let link = WorkerLink {
            worker,
            name,
            limits,
            supervisor,
            manifest,
            tally,
            events: RefCell::default(),
            output: RefCell::default(),
            unread: Cell::new(0),
            partial: RefCell::default(),
            requests: RefCell::new(Requests::new()),
            timers: RefCell::default(),
            callbacks: Cell::new(0),
            told_ms: Cell::new(0),
            sweep_is_due: Cell::new(false),
            warned: Cell::new(None),
            stage: Cell::new(Stage::Serving),
        };
        link.know(known);
        Rc::new(link)
    }

    /// The team has these events now.
    pub fn know(&self, known: &AHashMap<Path, u32>) {
        let mut events = vec![None; known.len()];
        for (event, own) in self.manifest.events.iter().zip(0..) {
            let number = Path::parse(&event.path).ok().and_then(|path| known.get(&path).copied());
            if let Some(number) = number {
                events[number as usize] = Some(own);
            }
        }
        self.events.replace(events);
    }

    /// The serial number of its worker.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    // From the shard to the worker.

    /// Sends an event to the worker, which answers later; or says why not.
    pub fn event(self: &Rc<Self>, cx: &mut Context<'_>, event: u32, given: Event<'_>) -> Answer {
        let Some((number, spec)) = self.spec(event) else { return Answer::refusal(404, None) };
        if !spec.handler {
            return Answer::refusal(500, None);
        }
        if let Err((code, why)) = self.has_room(0) {
            self.tally.event_refused();
            return Answer::error(code, why);
        }
        let request = self.begin(cx, Request::Event(given.reply_to()));
        let head =
            Head { number, request, client: given.client, flags: wants(given.wants_answer()), ..now(cx) };
        self.put(ToWorker::Event, &head, given.extra, given.data);
        self.tally.sent(1);
        Answer::never()
    }

    /// Asks the worker whether somebody may subscribe.
    pub fn on(self: &Rc<Self>, cx: &mut Context<'_>, event: u32, given: Subscription<'_>) -> Decision {
        let Some((number, spec)) = self.spec(event) else { return Decision::Fail(404) };
        match spec.subscriptions {
            Subscriptions::Everyone => return Decision::Accept,
            Subscriptions::Nobody => return Decision::Refuse,
            Subscriptions::Ask => {}
        }
        if let Err((code, _)) = self.has_room(0) {
            self.tally.event_refused();
            return Decision::Fail(code);
        }
        let reply_to = ReplyTo { client: given.client, callback: given.callback };
        let request = self.begin(cx, Request::Subscription(reply_to, given.id));
        self.put(
            ToWorker::On,
            &Head { number, request, client: given.client, ..now(cx) },
            given.extra,
            given.data,
        );
        self.tally.sent(1);
        Decision::Later
    }

    /// Tells the worker that a subscription has ended.
    pub fn off(&self, cx: &Context<'_>, event: u32, given: Unsubscribed<'_>) {
        let Some((number, spec)) = self.spec(event) else { return };
        if spec.off {
            self.put(ToWorker::Off, &Head { number, client: given.client, ..now(cx) }, given.extra, "");
            self.tally.sent(1);
        }
    }

    fn reply(self: &Rc<Self>, cx: &mut Context<'_>, number: u32, given: Reply<'_>) -> Answer {
        // A callback that was offered may be answered also by one that has much to do.
        if let Err((code, why)) = self.has_room(WORKER_CALLBACKS_MAX) {
            self.tally.event_refused();
            return Answer::error(code, why);
        }
        let reply_to = ReplyTo { client: given.client, callback: given.callback };
        let request = self.begin(cx, Request::Event(reply_to));
        let head =
            Head { number, request, client: given.client, flags: wants(given.wants_answer()), ..now(cx) };
        self.put(ToWorker::Reply, &head, "", given.data);
        self.tally.sent(1);
        Answer::never()
    }

    /// What the worker calls one of the team's events.
    fn spec(&self, event: u32) -> Option<(u32, &EventSpec)> {
        let number = self.events.borrow().get(event as usize).copied().flatten()?;
        Some((number, &self.manifest.events[number as usize]))
    }

    /// Whether the worker may be given more to do, so many requests beyond their bound; otherwise the answer.
    fn has_room(&self, beyond: usize) -> Result<(), (u16, &'static str)> {
        let is_busy = self.requests.borrow().len() >= self.limits.requests_max + beyond
            || beyond == 0 && self.is_full();
        match self.stage.get() {
            Stage::Closed | Stage::Broken | Stage::Ended => Err((500, NOT_RUNNING)),
            Stage::Serving | Stage::Leaving if is_busy => Err((420, BUSY)),
            Stage::Serving | Stage::Leaving => Ok(()),
        }
    }

    /// Whether so much waits for the worker that the ends of clients are put off.
    pub fn is_full(&self) -> bool {
        self.unread.get() >= self.limits.outbox_bytes_max
    }

    fn begin(self: &Rc<Self>, cx: &mut Context<'_>, request: Request) -> u32 {
        if !self.sweep_is_due.replace(true) {
            self.sweep_in(cx, self.limits.request_timeout);
        }
        self.requests.borrow_mut().begin(request, cx.now())
    }

    fn put(&self, kind: ToWorker, head: &Head, text: &str, data: &str) {
        if self.stage.get() >= Stage::Closed {
            return;
        }
        self.told_ms.set(head.time_ms);
        let mut output = self.output.borrow_mut();
        let before = output.len();
        wire::write(&mut output, kind, head, text, data);
        self.unread.set(self.unread.get() + output.len() - before);
    }

    /// Tells the worker that a callback of its own will never run.
    fn drop_callback(&self, number: u32) {
        self.put(ToWorker::Dropped, &Head { number, ..Head::at(self.told_ms.get()) }, "", "");
    }

    // The shard's side.

    /// What is to be sent, if anything.
    pub fn take_output(&self) -> Option<Vec<u8>> {
        let mut output = self.output.borrow_mut();
        (!output.is_empty()).then(|| std::mem::take(&mut *output))
    }

    /// The kernel has taken so many bytes.
    pub fn handle_sent(&self, bytes: usize) {
        self.unread.set(self.unread.get().saturating_sub(bytes));
    }

    /// The worker has taken nothing for so long.
    pub fn handle_stall(&self, time: Duration) {
        if self.stage.get() < Stage::Broken {
            self.break_off(&format!("it has not read for {time:?}: {} bytes wait for it", self.unread.get()));
        }
    }

    /// Another worker has taken its place: no more events are sent. What was to be done once, and soon, still is.
    pub fn leave(&self, now: Duration) {
        if self.stage.get() == Stage::Serving {
            self.stage.set(Stage::Leaving);
            self.timers.borrow_mut().keep_until(now + self.limits.request_timeout);
        }
    }

    /// No client is left whom an answer could reach: what is under way does not matter any more.
    pub fn abandon(&self) {
        self.leave(Duration::ZERO);
        self.timers.borrow_mut().clear();
        self.requests.borrow_mut().end_all(drop);
    }

    /// Closes the way to the worker, if nothing more will come: another has its place, it has answered everything, no
    /// callback and no timer of its own is open, and what is in the output was taken. Whether that is so now, and was not before.
    pub fn close_if_drained(&self) -> bool {
        let is_done = self.stage.get() == Stage::Leaving
            && self.requests.borrow().len() == 0
            && self.callbacks.get() == 0
            && self.timers.borrow().is_empty()
            && self.output.borrow().is_empty();
        if is_done {
            self.stage.set(Stage::Closed);
        }
        is_done
    }

    /// Requests under way, and bytes that the worker has not read.
    pub fn load(&self) -> (usize, usize) {
        (self.requests.borrow().len(), self.unread.get())
    }

    /// The worker has ended, or this end of its link: what it had under way is answered 500.
    pub fn handle_end(&self, cx: &mut Context<'_>) {
        if self.stage.replace(Stage::Ended) < Stage::Closed {
            self.supervisor.report_link_end(self.worker);
        }
        // Watched clients keep it for as long as they are there: it has to be small.
        self.output.take();
        self.partial.take();
        self.events.take();
        self.timers.borrow_mut().clear();
        let mut failed = 0;
        self.requests.replace(Requests::new()).end_all(|request| {
            failed += 1;
            fail(cx, request, ENDED);
        });
        self.tally.failed(failed);
    }
}

/// A head with nothing but the time.
fn now(cx: &Context<'_>) -> Head {
    Head::at(cx.now().as_millis() as u64)
}

fn wants(answer: bool) -> u8 {
    if answer { WANTS_ANSWER } else { 0 }
}

/// What is answered where there is no worker.
pub fn not_running(tally: &WorkerCounters) -> Answer {
    tally.event_refused();
    Answer::error(500, NOT_RUNNING)
}

/// Answers a request that its worker will not.
fn fail(cx: &mut Context<'_>, request: Request, why: &str) {
    cx.push_local(match request {
        Request::Event(reply_to) => LocalCommand::Answer { reply_to, answer: Answer::error(500, why) },
        Request::Subscription(reply_to, path) => {
            LocalCommand::Any(Command::Decide { reply_to, path, decision: Decision::Fail(500) })
        }
    });
}
