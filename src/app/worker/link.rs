//! The shard's end of a link to a worker. It converts events to frames and frames to commands, and keeps the requests
//! that the worker has not answered.
//!
//! This file has the frames to the worker; `incoming` has the frames from the worker, `timing` the timers and timeouts,
//! `guards` the values whose drop the worker is told about, `instance` what one worker of an instance leaves to the
//! next, and `load` what each client has open.
//!
//! A link does no I/O. The shard sends the bytes that it takes with [`WorkerLink::take_output`], and passes received
//! bytes to [`WorkerLink::handle_received`].

mod guards;
mod incoming;
mod instance;
mod load;
mod timing;

pub use instance::Instance;

use super::counters::WorkerCounters;
use super::ends::ClientEnd;
use super::manifest::{EventDeclaration, Manifest, SubscriptionMode};
use super::requests::RequestTable;
use super::timers::WorkerTimers;
use super::wire::{self, HAS_INFO, HAS_OPTIONS, LinkFrameHeader, NO_CLIENT, ToWorker, WANTS_ANSWER};
use super::{LinkLimits, SupervisorHandle};
use crate::app::shares::ShareRefusal;
use crate::app::{Answer, Command, Context, Decision, Event, LocalCommand, Reply, ReplyTo, Subscription};
use crate::client::ClientId;
use crate::client::subscriptions::PathId;
use crate::event::path::Path;
use crate::limits::WORKER_CALLBACKS_MAX;
use ahash::AHashMap;
use load::LinkLoad;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a buffer that a link keeps. The memory of a larger buffer is released when it is no longer needed.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The number of clients of earlier workers that a link remembers as gone. A watch of one of them may still be on its
/// way, for as long as the worker takes to read what it was sent.
const TOLD_GONE_MAX: usize = 1024;

// The messages of errors that are answered in place of a worker.
const NOT_RUNNING: &str = "the application is not running";
const BUSY: &str = "the application is busy";
const TOO_LATE: &str = "the application did not answer in time";
const ENDED: &str = "the application has ended";

/// The shard's end of the link to one worker.
///
/// Invariants, which [`check`](WorkerLink::check) asserts: `unread_bytes` is at least the length of `output`; while a
/// request is pending, a sweep is scheduled; a link that has ended has no requests, timers or bytes; the pending
/// requests are those that clients have open by `load`.
pub struct WorkerLink {
    /// The serial number of the worker.
    worker: u32,
    /// The instance, which outlives the worker.
    instance: Weak<Instance>,
    /// The application and the instance, for the log: `chat#0`.
    name: String,
    limits: LinkLimits,
    supervisor: Arc<dyn SupervisorHandle>,
    manifest: Arc<Manifest>,
    counters: Rc<WorkerCounters>,
    /// The index of each event in the worker's manifest, by the group's number of the event. `None` if the worker does
    /// not handle the event.
    events: RefCell<Vec<Option<u32>>>,
    /// Frames that the shard has not taken yet.
    output: RefCell<Vec<u8>>,
    /// Bytes in `output`, and bytes that the shard has taken and the kernel has not accepted yet.
    unread_bytes: Cell<usize>,
    /// The beginning of a frame whose end has not arrived.
    partial: RefCell<Vec<u8>>,
    requests: RefCell<RequestTable<TimedRequest>>,
    timers: RefCell<WorkerTimers>,
    /// The requests, unread bytes and open callbacks of each client.
    load: RefCell<LinkLoad>,
    /// The latest clients of earlier workers that this worker was told to be gone.
    told_gone: RefCell<VecDeque<ClientId>>,
    /// The time in the last frame to the worker.
    last_time_ms: Cell<u64>,
    /// A timer of the shard is set that ends the requests that take too long.
    sweep_is_scheduled: Cell<bool>,
    /// The shard does not read the link for now: answers of the worker may wait in it.
    is_paused: Cell<bool>,
    /// No request is taken to be late until `request_timeout` has passed since this time.
    patience_since: Cell<Duration>,
    state: Cell<LinkState>,
}

/// The state of a link. A link never returns to an earlier state of this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum LinkState {
    /// The worker receives events.
    Serving,
    /// Another worker receives the events. This one finishes its requests.
    Draining,
    /// The worker was told that no more frames will come. Its own frames are still handled.
    Closed,
    /// The worker broke the protocol. Its frames are ignored.
    Broken,
    /// The link has ended.
    Ended,
}

/// A request that a worker has to answer.
enum WorkerRequest {
    Event(ReplyTo),
    Subscription(ReplyTo, PathId),
    /// A client's reply to a callback of the worker.
    Reply(ReplyTo),
}

/// A request, and when the worker was sent it: for the statistics, by the real time. Timeouts go by the shard's clock.
struct TimedRequest {
    request: WorkerRequest,
    sent: Instant,
}

impl WorkerRequest {
    fn client(&self) -> ClientId {
        match self {
            WorkerRequest::Event(reply_to)
            | WorkerRequest::Subscription(reply_to, _)
            | WorkerRequest::Reply(reply_to) => reply_to.client,
        }
    }
}

impl WorkerLink {
    /// Returns a link to a worker with this manifest. It sends no events before
    /// [`set_event_numbers`](WorkerLink::set_event_numbers).
    pub fn new(
        worker: u32,
        instance: &Rc<Instance>,
        name: String,
        manifest: Arc<Manifest>,
        limits: LinkLimits,
        supervisor: Arc<dyn SupervisorHandle>,
        counters: Rc<WorkerCounters>,
    ) -> Rc<WorkerLink> {
        Rc::new(WorkerLink {
            worker,
            instance: Rc::downgrade(instance),
            name,
            limits,
            supervisor,
            manifest,
            counters,
            events: RefCell::default(),
            output: RefCell::default(),
            unread_bytes: Cell::new(0),
            partial: RefCell::default(),
            requests: RefCell::new(RequestTable::new()),
            timers: RefCell::default(),
            load: RefCell::new(LinkLoad::new(&limits)),
            told_gone: RefCell::default(),
            last_time_ms: Cell::new(0),
            sweep_is_scheduled: Cell::new(false),
            is_paused: Cell::new(false),
            patience_since: Cell::new(Duration::ZERO),
            state: Cell::new(LinkState::Serving),
        })
    }

    /// Sets the group's numbers of events, by path.
    pub fn set_event_numbers(&self, event_numbers: &AHashMap<Path, u32>) {
        let mut events = vec![None; event_numbers.len()];
        for (event, index) in self.manifest.events.iter().zip(0..) {
            let number = Path::parse(&event.path).ok().and_then(|path| event_numbers.get(&path).copied());
            if let Some(number) = number {
                events[number as usize] = Some(index);
            }
        }
        self.events.replace(events);
    }

    /// Returns the serial number of the worker.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// Returns whether the worker may be sent frames.
    fn is_open(&self) -> bool {
        self.state.get() < LinkState::Closed
    }

    // From the shard to the worker.

    /// Sends an event to the worker, which answers it later. Returns an error if the event cannot be sent.
    pub fn send_event(self: &Rc<Self>, cx: &mut Context<'_>, event_number: u32, event: Event<'_>) -> Answer {
        let Some((number, declaration)) = self.declaration(event_number) else {
            return Answer::refusal(404, None);
        };
        if !declaration.handler {
            return Answer::refusal(500, None);
        }
        if let Err((code, message)) = self.check_room(event.client) {
            return Answer::error(code, message);
        }
        let request = self.begin_request(cx, WorkerRequest::Event(event.reply_to()));
        let (info_flag, text) = text_with_info(cx, declaration, event.client, event.extra);
        let flags = answer_flag(event.wants_answer()) | info_flag;
        let header = LinkFrameHeader { number, request, client: event.client, flags, ..header_now(cx) };
        self.put_frame(ToWorker::Event, &header, &text, event.data);
        self.counters.add_sent();
        Answer::never()
    }

    /// Asks the worker whether a client may subscribe, if the manifest does not decide that.
    pub fn send_subscription(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        event_number: u32,
        subscription: Subscription<'_>,
    ) -> Decision {
        let Some((number, declaration)) = self.declaration(event_number) else { return Decision::Fail(404) };
        match declaration.subscriptions {
            SubscriptionMode::Everyone if !declaration.off => return Decision::Accept,
            SubscriptionMode::Everyone => {
                // Its end needs a frame. A client that subscribes and unsubscribes without a pause must not fill the
                // output with them.
                let admitted = self.check_bytes(subscription.client);
                return admitted.map_or_else(|(code, _)| Decision::Fail(code), |()| Decision::Accept);
            }
            SubscriptionMode::Nobody => return Decision::Refuse,
            SubscriptionMode::Ask => {}
        }
        if let Err((code, _)) = self.check_room(subscription.client) {
            return Decision::Fail(code);
        }
        let Subscription { client, extra, data, options, id, .. } = subscription;
        let request = self.begin_request(cx, WorkerRequest::Subscription(subscription.reply_to(), id));
        let (flag, extra) = text_with_options(declaration, extra, options);
        let (flags, text) = text_with_info(cx, declaration, client, &extra);
        let flags = flags | flag;
        let header = LinkFrameHeader { number, request, client, flags, ..header_now(cx) };
        self.put_frame(ToWorker::On, &header, &text, data);
        self.counters.add_sent();
        Decision::Later
    }

    /// Tells the worker of the end of a client, or of a subscription if its manifest asks for that.
    fn send_end(&self, end: &ClientEnd, time_ms: u64) {
        let header = LinkFrameHeader { client: end.client(), ..LinkFrameHeader::at(time_ms) };
        match end {
            ClientEnd::Unsubscribed { event_number, extra, .. } => {
                let Some((number, declaration)) = self.declaration(*event_number) else { return };
                if declaration.off {
                    self.put_frame(ToWorker::Off, &LinkFrameHeader { number, ..header }, extra, "");
                    self.counters.add_sent();
                }
            }
            ClientEnd::Gone { client } => {
                let mut told_gone = self.told_gone.borrow_mut();
                if told_gone.len() == TOLD_GONE_MAX {
                    told_gone.pop_front();
                }
                told_gone.push_back(*client);
                self.put_frame(ToWorker::Gone, &header, "", "");
            }
        }
    }

    /// Sends a client's reply to a callback of the worker.
    fn send_reply(self: &Rc<Self>, cx: &mut Context<'_>, number: u32, reply: Reply<'_>) -> Answer {
        // A client may reply to a callback that it was offered even if the worker is busy: replies have a limit of their
        // own.
        if let Err((code, message)) = self.check_room_for_reply(reply.client) {
            return Answer::error(code, message);
        }
        let request = self.begin_request(cx, WorkerRequest::Reply(reply.reply_to()));
        let flags = answer_flag(reply.wants_answer());
        let header = LinkFrameHeader { number, request, client: reply.client, flags, ..header_now(cx) };
        self.put_frame(ToWorker::Reply, &header, "", reply.data);
        self.counters.add_sent();
        Answer::never()
    }

    /// Returns the index of an event in the worker's manifest, and its declaration, or `None` if the worker does not
    /// handle the event.
    fn declaration(&self, event_number: u32) -> Option<(u32, &EventDeclaration)> {
        let index = self.events.borrow().get(event_number as usize).copied().flatten()?;
        Some((index, &self.manifest.events[index as usize]))
    }

    /// Checks whether the worker may be sent one more event or subscription of a client. Counts a refusal.
    ///
    /// # Errors
    ///
    /// The code and message to answer instead.
    fn check_room(&self, client: ClientId) -> Result<(), (u16, &'static str)> {
        self.check_running()?;
        let admitted = self.load.borrow().admit_request(client);
        admitted.map_err(|refusal| self.refuse_event(refusal))?;
        self.check_bytes(client)
    }

    /// As [`check_room`](WorkerLink::check_room), for a reply to a callback.
    fn check_room_for_reply(&self, client: ClientId) -> Result<(), (u16, &'static str)> {
        self.check_running()?;
        let admitted = self.load.borrow().admit_reply(client);
        admitted.map_err(|refusal| self.refuse_event(refusal))
    }

    /// Checks whether a client may cause more output.
    fn check_bytes(&self, client: ClientId) -> Result<(), (u16, &'static str)> {
        let admitted = self.load.borrow().admit_bytes(client, self.unread_bytes.get());
        admitted.map_err(|refusal| self.refuse_event(refusal))
    }

    fn check_running(&self) -> Result<(), (u16, &'static str)> {
        if self.state.get() < LinkState::Closed {
            return Ok(());
        }
        self.counters.add_event_refused();
        Err((500, NOT_RUNNING))
    }

    /// Counts an event that is refused because of a limit. Returns the code and message to answer.
    fn refuse_event(&self, refusal: ShareRefusal) -> (u16, &'static str) {
        self.counters.add_event_refused();
        if refusal == ShareRefusal::Share {
            self.counters.add_share_refused();
        }
        (420, BUSY)
    }

    /// Returns whether `worker-outbox-bytes-max` bytes or more wait for the worker. The shard then delays the ends of
    /// clients, of which the worker has to be told.
    pub fn is_full(&self) -> bool {
        self.unread_bytes.get() >= self.limits.outbox_bytes_max
    }

    fn begin_request(self: &Rc<Self>, cx: &mut Context<'_>, request: WorkerRequest) -> u32 {
        if !self.sweep_is_scheduled.replace(true) {
            self.schedule_sweep(cx, self.limits.request_timeout);
        }
        self.load.borrow_mut().begin(&request);
        self.requests.borrow_mut().begin(TimedRequest { request, sent: Instant::now() }, cx.now())
    }

    /// Removes and returns a pending request that the worker has answered, or returns `None` if the number is not pending.
    fn end_request(&self, number: u32) -> Option<WorkerRequest> {
        let TimedRequest { request, sent } = self.requests.borrow_mut().end(number)?;
        self.load.borrow_mut().end(&request);
        self.counters.record_answer(sent.elapsed());
        Some(request)
    }

    /// Appends a frame to the output, unless the link is closed.
    fn put_frame(&self, kind: ToWorker, header: &LinkFrameHeader, text: &str, data: &str) {
        if self.state.get() >= LinkState::Closed {
            return;
        }
        self.last_time_ms.set(header.time_ms);
        let mut output = self.output.borrow_mut();
        let before = output.len();
        wire::encode(&mut output, kind, header, text, data);
        let bytes = output.len() - before;
        self.unread_bytes.set(self.unread_bytes.get() + bytes);
        if header.client != NO_CLIENT {
            self.load.borrow_mut().add_bytes(header.client, bytes);
        }
    }

    /// Tells the worker that one of its callbacks will never run.
    fn send_dropped(&self, number: u32) {
        self.put_frame(ToWorker::Dropped, &LinkFrameHeader { number, ..self.header_at_last_time() }, "", "");
    }

    /// Returns a header with the time of the last frame, for frames that are sent where the current time is not known.
    fn header_at_last_time(&self) -> LinkFrameHeader {
        LinkFrameHeader::at(self.last_time_ms.get())
    }

    // For the shard.

    /// Removes and returns the output, or returns `None` if there is none.
    pub fn take_output(&self) -> Option<Vec<u8>> {
        let output = self.output.take();
        if output.is_empty() {
            return None;
        }
        self.load.borrow_mut().output_taken();
        Some(output)
    }

    /// Records that the kernel has accepted the output that was taken last, of this many bytes.
    pub fn handle_sent(&self, bytes: usize) {
        self.unread_bytes.set(self.unread_bytes.get().saturating_sub(bytes));
        self.load.borrow_mut().output_sent();
    }

    /// Sets whether the shard reads the link. While it does not, no request is taken to be late.
    pub fn set_paused(&self, is_paused: bool) {
        self.is_paused.set(is_paused);
    }

    /// Gives the worker the whole time for each of its requests anew: the shard did not listen to it.
    pub fn restart_patience(&self, now: Duration) {
        self.patience_since.set(now);
    }

    /// Breaks the link off: the worker has read nothing for this time.
    pub fn handle_stall(&self, time: Duration) {
        if self.state.get() < LinkState::Broken {
            let bytes = self.unread_bytes.get();
            self.break_off(&format!("it has read nothing for {time:?}; {bytes} bytes are waiting"));
        }
    }

    /// Stops sending events: another worker has taken this worker's place. Timers that fire once, and within the
    /// request timeout, still do.
    pub fn begin_draining(&self, now: Duration) {
        if self.state.get() == LinkState::Serving {
            self.state.set(LinkState::Draining);
            self.timers.borrow_mut().cancel_after(now + self.limits.request_timeout);
        }
    }

    /// Drops all requests and timers: no client is left.
    pub fn abandon(&self) {
        self.begin_draining(Duration::ZERO);
        self.timers.borrow_mut().clear();
        self.requests.borrow_mut().end_all(drop);
        self.load.borrow_mut().clear_requests();
    }

    /// Closes the link if another worker has taken this worker's place and nothing is left to send: no request is
    /// pending, no callback is open, no timer is set, and the output is empty. Returns whether this call closed the
    /// link.
    pub fn close_if_drained(&self) -> bool {
        let is_drained = self.state.get() == LinkState::Draining
            && self.requests.borrow().len() == 0
            && self.load.borrow().callbacks() == 0
            && self.timers.borrow().is_empty()
            && self.output.borrow().is_empty();
        if is_drained {
            self.state.set(LinkState::Closed);
        }
        is_drained
    }

    /// Returns the number of pending requests, and the number of bytes that the worker has not read.
    pub fn load(&self) -> (usize, usize) {
        (self.requests.borrow().len(), self.unread_bytes.get())
    }

    /// Ends the link: the worker, or its end of the link, has ended. Pending requests are answered 500.
    pub fn handle_end(&self, cx: &mut Context<'_>) {
        if self.state.replace(LinkState::Ended) < LinkState::Closed {
            self.supervisor.report_link_end(self.worker);
        }
        // Clients that the worker watches keep the link until they disconnect: it must be small.
        self.output.take();
        self.partial.take();
        self.events.take();
        self.told_gone.take();
        self.timers.borrow_mut().clear();
        let mut failed = 0;
        self.requests.replace(RequestTable::new()).end_all(|TimedRequest { request, .. }| {
            failed += 1;
            fail_request(cx, request, ENDED);
        });
        self.load.borrow_mut().clear_requests();
        self.counters.add_failed(failed);
    }

    /// Asserts the invariants of the link.
    pub fn check(&self) {
        let (requests, timers, output) = (self.requests.borrow(), self.timers.borrow(), self.output.borrow());
        requests.check();
        timers.check();
        let unread = self.unread_bytes.get();
        assert!(unread >= output.len(), "{unread} bytes are unread, and the output has {}", output.len());
        let load = self.load.borrow();
        load.check();
        assert!(load.callbacks() <= WORKER_CALLBACKS_MAX, "too many callbacks are open");
        assert_eq!(load.requests(), requests.len(), "the pending requests are those that clients have open");
        assert!(
            requests.len() == 0 || self.sweep_is_scheduled.get(),
            "{} requests are pending and no sweep is scheduled",
            requests.len()
        );
        if self.state.get() == LinkState::Ended {
            let is_empty = requests.len() == 0 && timers.is_empty() && output.is_empty();
            assert!(is_empty && self.partial.borrow().is_empty(), "a link that has ended is empty");
        }
    }
}

/// Returns a header with the current time.
fn header_now(cx: &Context<'_>) -> LinkFrameHeader {
    LinkFrameHeader::at(cx.now().as_millis() as u64)
}

/// Returns the text of a frame that asks about a subscription, and its flag: the options are behind `extra` if there are any, and
/// the worker asks for them.
fn text_with_options<'a>(
    declaration: &EventDeclaration,
    extra: &'a str,
    options: &str,
) -> (u8, Cow<'a, str>) {
    if !declaration.options || options == "null" {
        return (0, extra.into());
    }
    // The strings of valid JSON have no line ends.
    (HAS_OPTIONS, format!("{extra}\n{}", options.replace('\n', " ")).into())
}

/// Returns the text of a frame, and its flag: what the server knows of the client is behind `extra` if the worker asks for
/// it. A path has no line ends.
fn text_with_info<'a>(
    cx: &Context<'_>,
    declaration: &EventDeclaration,
    client: ClientId,
    extra: &'a str,
) -> (u8, Cow<'a, str>) {
    if !declaration.client_info {
        return (0, extra.into());
    }
    let info = cx.client(client).map_or_else(|| "null".to_owned(), |info| info.to_json());
    (HAS_INFO, format!("{extra}\n{info}").into())
}

fn answer_flag(wants_answer: bool) -> u8 {
    if wants_answer { WANTS_ANSWER } else { 0 }
}

/// Returns the answer to an event whose worker is not running.
pub fn not_running(counters: &WorkerCounters) -> Answer {
    counters.add_event_refused();
    Answer::error(500, NOT_RUNNING)
}

/// Answers a request in place of its worker.
fn fail_request(cx: &mut Context<'_>, request: WorkerRequest, message: &str) {
    cx.push_local(match request {
        WorkerRequest::Event(reply_to) | WorkerRequest::Reply(reply_to) => {
            LocalCommand::Answer { reply_to, answer: Answer::error(500, message) }
        }
        WorkerRequest::Subscription(reply_to, path) => LocalCommand::Any(Command::Decide {
            reply_to,
            path,
            decision: Decision::Fail(500),
            promised: None,
        }),
    });
}
