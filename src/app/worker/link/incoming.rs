//! The frames from a worker, which become commands of the shard.

use super::guards::{ClientWatches, OfferedCallback};
use super::{KEPT_BYTES_MAX, LinkState, WorkerLink, WorkerRequest};
use crate::app::worker::wire::{self, FromWorker, HAS_MESSAGE, LinkFrameHeader, REPEATS, WorkerFrame};
use crate::app::{Answer, Command, Context, Decision, Json, LocalCommand, paths};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::log::throttle;
use std::rc::Rc;
use std::time::Duration;

impl WorkerLink {
    /// Handles bytes that the worker has sent.
    pub fn handle_received(self: &Rc<Self>, cx: &mut Context<'_>, bytes: &[u8]) {
        let mut partial = self.partial.take();
        if partial.is_empty() {
            let handled = self.handle_frames(cx, bytes);
            partial.extend_from_slice(&bytes[handled..]);
        } else {
            partial.extend_from_slice(bytes);
            let handled = self.handle_frames(cx, &partial);
            // While the pieces of a large frame arrive, nothing is handled and nothing moves.
            partial.drain(..handled);
        }
        if partial.len() < KEPT_BYTES_MAX {
            partial.shrink_to(KEPT_BYTES_MAX);
        }
        self.partial.replace(partial);
    }

    /// Handles the complete frames at the beginning of `bytes`. Returns their length.
    fn handle_frames(self: &Rc<Self>, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut handled = 0;
        while self.state.get() < LinkState::Broken {
            match wire::decode(&bytes[handled..]) {
                Ok(Some((frame, len))) => {
                    self.handle_frame(cx, &frame);
                    handled += len;
                    self.check_unread();
                }
                Ok(None) => return handled,
                Err(error) => self.break_off(&error.to_string()),
            }
        }
        bytes.len()
    }

    /// Breaks the link off if the worker causes more and more output (for example by callbacks that are dropped at
    /// once) and does not read it.
    fn check_unread(&self) {
        let unread = self.unread_bytes.get();
        if unread > self.limits.unread_bytes_max {
            self.break_off(&format!("it sends commands and does not read; {unread} bytes are waiting"));
        }
    }

    /// Ignores the worker from now on, and has it killed. `why` is the reason for the log.
    pub(super) fn break_off(&self, why: &str) {
        self.state.set(self.state.get().max(LinkState::Broken));
        self.supervisor.report_broken(self.worker, why);
    }

    fn handle_frame(self: &Rc<Self>, cx: &mut Context<'_>, frame: &WorkerFrame<'_>) {
        let result = match frame.kind {
            FromWorker::Answer => self.handle_answer(cx, frame),
            FromWorker::Broadcast => broadcast(cx, frame),
            FromWorker::Send => self.send_to_client(cx, frame),
            FromWorker::Close => {
                cx.close(frame.header.client);
                Ok(())
            }
            FromWorker::Move => text(frame.text).map(|address| cx.move_to(frame.header.client, address)),
            FromWorker::Timer => self.handle_timer(cx, frame),
            FromWorker::Cancel => {
                self.timers.borrow_mut().cancel(frame.header.number);
                Ok(())
            }
            FromWorker::Watch => self.watch(cx, frame.header.client),
        };
        if let Err(why) = result {
            self.refuse(frame.kind, why);
        }
    }

    /// Counts a command that is invalid and was ignored, and warns about it.
    fn refuse(&self, kind: FromWorker, why: &'static str) {
        self.counters.add_frame_refused();
        throttle!(warn, why, worker = self.name, frame = ?kind, why, "ignored an invalid command of a worker");
    }

    fn handle_answer(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        frame: &WorkerFrame<'_>,
    ) -> Result<(), &'static str> {
        let LinkFrameHeader { number, request, code, .. } = frame.header;
        let Some(request) = self.end_request(request) else {
            self.counters.add_late_answer();
            if number != 0 {
                self.send_dropped(number);
            }
            return Ok(());
        };
        let client = request.client();
        let offered = (number != 0).then(|| self.offer_callback(client, number)).flatten();
        let reply_to = match request {
            WorkerRequest::Event(reply_to) | WorkerRequest::Reply(reply_to) => reply_to,
            WorkerRequest::Subscription(reply_to, path) => {
                let decision = match code {
                    200 => Decision::Accept,
                    0 | 401 | 404 => Decision::Refuse,
                    code => Decision::Fail(code),
                };
                cx.push_local(LocalCommand::Any(Command::Decide {
                    reply_to,
                    path,
                    decision,
                    promised: None,
                }));
                return Ok(());
            }
        };
        // The worker never answers with code 0.
        if code == 0 || reply_to.callback == 0 {
            self.counters.add_unsent_answer(code);
            return Ok(());
        }
        let (answer, result) = match answer_of(frame) {
            Ok(answer) => (answer, Ok(())),
            Err(why) => (Answer::refusal(500, None), Err(why)),
        };
        let answer = match offered.filter(|_| code == 200 && result.is_ok()) {
            Some(offered) => answer.offering(offered.into_callback()),
            None => answer,
        };
        cx.push_local(LocalCommand::Answer { reply_to, answer });
        result
    }

    fn send_to_client(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        frame: &WorkerFrame<'_>,
    ) -> Result<(), &'static str> {
        let LinkFrameHeader { number, client, .. } = frame.header;
        let offered = (number != 0).then(|| self.offer_callback(client, number)).flatten();
        let (path, data) = (path(frame.text)?, json(frame.data)?);
        if number == 0 {
            cx.send(client, &path, data);
        } else if client.shard != cx.shard() {
            return Err("the client of a callback is on another shard than the link");
        } else if let Some(offered) = offered {
            let callback = Some(offered.into_callback());
            cx.push_local(LocalCommand::Send { client, path, data, callback });
        }
        Ok(())
    }

    /// Returns a callback of the worker for a client. Returns `None`, and tells the worker, if too many callbacks are
    /// open, or too many of this client.
    fn offer_callback(self: &Rc<Self>, client: ClientId, number: u32) -> Option<OfferedCallback> {
        if !self.is_open() || !self.load.borrow_mut().open_callback(client) {
            self.send_dropped(number);
            return None;
        }
        Some(OfferedCallback::new(Rc::clone(self), client, number))
    }

    fn watch(self: &Rc<Self>, cx: &mut Context<'_>, client: ClientId) -> Result<(), &'static str> {
        if client.shard != cx.shard() {
            return Err("the watched client is on another shard than the link");
        }
        if self.told_gone.borrow().contains(&client) {
            return Ok(());
        }
        if let Some(watches) = cx.client_data::<ClientWatches>(client) {
            watches.add(self);
        } else if let Some(instance) = self.instance.upgrade() {
            let mut watches = ClientWatches::new(instance, client);
            watches.add(self);
            cx.set_client_data(client, watches);
        }
        Ok(())
    }

    fn handle_timer(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        frame: &WorkerFrame<'_>,
    ) -> Result<(), &'static str> {
        let LinkFrameHeader { number, flags, time_ms, .. } = frame.header;
        self.set_timer(cx, number, cx.now(), Duration::from_millis(time_ms), flags & REPEATS != 0)
    }
}

fn broadcast(cx: &mut Context<'_>, frame: &WorkerFrame<'_>) -> Result<(), &'static str> {
    cx.broadcast(&path(frame.text)?, json(frame.data)?);
    Ok(())
}

fn answer_of(frame: &WorkerFrame<'_>) -> Result<Answer, &'static str> {
    let LinkFrameHeader { code, flags, .. } = frame.header;
    let data = json(frame.data)?;
    let message = (flags & HAS_MESSAGE != 0).then(|| text(frame.text)).transpose()?;
    Ok(Answer::with(code, data, message.map(Box::from)))
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| "its text is not UTF-8")
}

fn path(bytes: &[u8]) -> Result<Path, &'static str> {
    paths::parse(text(bytes)?).map_err(|_| "its path is empty or too long")
}

fn json(bytes: &[u8]) -> Result<Json, &'static str> {
    let data = std::str::from_utf8(bytes).map_err(|_| "its data is not UTF-8")?;
    Json::checked(data).map_err(|_| "its data is not JSON")
}
