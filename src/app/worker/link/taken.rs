//! What a worker says: frames become commands of the shard.

use super::offers::{Offered, Watch};
use super::{KEPT_BYTES_MAX, Request, Stage, WARN_AGAIN, WorkerLink};
use crate::app::worker::wire::{self, FromWorker, HAS_MESSAGE, Head, REPEATS};
use crate::app::{Answer, Command, Context, Decision, Json, LocalCommand, paths};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::limits::WORKER_CALLBACKS_MAX;
use std::rc::Rc;
use std::time::Duration;

impl WorkerLink {
    /// Takes what has come from the worker.
    pub fn handle_received(self: &Rc<Self>, cx: &mut Context<'_>, bytes: &[u8]) {
        let mut partial = self.partial.take();
        if partial.is_empty() {
            let taken = self.take_frames(cx, bytes);
            partial.extend_from_slice(&bytes[taken..]);
        } else {
            partial.extend_from_slice(bytes);
            let taken = self.take_frames(cx, &partial);
            // Of a large frame most comes in pieces, and nothing is moved then.
            partial.drain(..taken);
        }
        if partial.len() < KEPT_BYTES_MAX {
            partial.shrink_to(KEPT_BYTES_MAX);
        }
        self.partial.replace(partial);
    }

    /// Takes the frames that are complete; answers how many bytes they are.
    fn take_frames(self: &Rc<Self>, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.stage.get() < Stage::Broken {
            match wire::read(&bytes[taken..]) {
                Ok(Some((frame, len))) => {
                    self.take(cx, &frame);
                    taken += len;
                    self.expect_it_reads();
                }
                Ok(None) => return taken,
                Err(broken) => self.break_off(&broken.to_string()),
            }
        }
        bytes.len()
    }

    /// What a worker causes itself (callbacks that are dropped at once, say) it has to read.
    fn expect_it_reads(&self) {
        let unread = self.unread.get();
        if unread > self.limits.unread_bytes_max {
            self.break_off(&format!("it says more and more, and does not read: {unread} bytes wait for it"));
        }
    }

    /// Nothing that the worker says can be understood any more, or it does not listen: it has to be ended.
    pub(super) fn break_off(&self, why: &str) {
        self.stage.set(self.stage.get().max(Stage::Broken));
        self.supervisor.report_broken(self.worker, why);
    }

    fn take(self: &Rc<Self>, cx: &mut Context<'_>, frame: &wire::Frame<'_>) {
        let taken = match frame.kind {
            FromWorker::Answer => self.answered(cx, frame),
            FromWorker::Broadcast => self.broadcast(cx, frame),
            FromWorker::Send => self.send(cx, frame),
            FromWorker::Close => {
                cx.close(frame.head.client);
                Ok(())
            }
            FromWorker::Move => text(frame.text).map(|address| cx.move_to(frame.head.client, address)),
            FromWorker::Timer => self.set_timer(cx, frame),
            FromWorker::Cancel => {
                self.timers.borrow_mut().cancel(frame.head.number);
                Ok(())
            }
            FromWorker::Watch => self.watch(cx, frame.head.client),
        };
        if let Err(why) = taken {
            self.refuse(cx, frame.kind, why);
        }
    }

    /// What an application has done wrong is said, and left out.
    fn refuse(&self, cx: &Context<'_>, kind: FromWorker, why: &str) {
        self.tally.frame_refused();
        let now = cx.now();
        if self.warned.get().is_none_or(|warned| now.saturating_sub(warned) >= WARN_AGAIN) {
            self.warned.set(Some(now));
            tracing::warn!(worker = self.name, frame = ?kind, why, "a worker reply_to for what cannot be: it is left out");
        }
    }

    fn answered(self: &Rc<Self>, cx: &mut Context<'_>, frame: &wire::Frame<'_>) -> Result<(), &'static str> {
        let Head { number, request, code, .. } = frame.head;
        let offered = (number != 0).then(|| self.offer(number)).flatten();
        let Some(request) = self.requests.borrow_mut().end(request) else {
            self.tally.answered_late();
            return Ok(());
        };
        let reply_to = match request {
            Request::Event(reply_to) => reply_to,
            Request::Subscription(reply_to, path) => {
                let decision = match code {
                    200 => Decision::Accept,
                    0 | 401 | 404 => Decision::Refuse,
                    code => Decision::Fail(code),
                };
                cx.push_local(LocalCommand::Any(Command::Decide { reply_to, path, decision }));
                return Ok(());
            }
        };
        if code == 0 || reply_to.callback == 0 {
            return Ok(());
        }
        let (answer, taken) = match answer_of(frame) {
            Ok(answer) => (answer, Ok(())),
            Err(why) => (Answer::refusal(500, None), Err(why)),
        };
        let answer = match offered.filter(|_| code == 200 && taken.is_ok()) {
            Some(offered) => answer.offering(offered.into_callback()),
            None => answer,
        };
        cx.push_local(LocalCommand::Answer { reply_to, answer });
        taken
    }

    fn broadcast(&self, cx: &mut Context<'_>, frame: &wire::Frame<'_>) -> Result<(), &'static str> {
        cx.broadcast(&path(frame.text)?, json(frame.data)?);
        Ok(())
    }

    fn send(self: &Rc<Self>, cx: &mut Context<'_>, frame: &wire::Frame<'_>) -> Result<(), &'static str> {
        let Head { number, client, .. } = frame.head;
        let offered = (number != 0).then(|| self.offer(number)).flatten();
        let (path, data) = (path(frame.text)?, json(frame.data)?);
        if number == 0 {
            cx.send(client, &path, data);
        } else if client.shard != cx.shard() {
            return Err("a callback is offered to a client of another shard");
        } else if let Some(offered) = offered {
            let callback = Some(offered.into_callback());
            cx.push_local(LocalCommand::Send { client, path, data, callback });
        }
        Ok(())
    }

    /// A callback of the worker's own; none where it has too many open.
    fn offer(self: &Rc<Self>, number: u32) -> Option<Offered> {
        if self.callbacks.get() >= WORKER_CALLBACKS_MAX || self.stage.get() >= Stage::Closed {
            self.drop_callback(number);
            return None;
        }
        self.callbacks.set(self.callbacks.get() + 1);
        Some(Offered { link: Some(Rc::clone(self)), number })
    }

    fn watch(self: &Rc<Self>, cx: &mut Context<'_>, client: ClientId) -> Result<(), &'static str> {
        if client.shard != cx.shard() {
            return Err("a client of another shard is watched");
        }
        if self.stage.get() >= Stage::Closed {
            return Ok(());
        }
        let watch = || Watch { link: Rc::clone(self), client };
        match cx.client_data::<Vec<Watch>>(client) {
            // Whoever it replaces goes on to watch until it ends.
            Some(watches) if watches.iter().any(|watch| Rc::ptr_eq(&watch.link, self)) => {}
            Some(watches) => {
                watches.retain(|watch| watch.link.stage.get() < Stage::Closed);
                watches.push(watch());
            }
            None => _ = cx.set_client_data(client, vec![watch()]),
        }
        Ok(())
    }

    fn set_timer(self: &Rc<Self>, cx: &mut Context<'_>, frame: &wire::Frame<'_>) -> Result<(), &'static str> {
        let Head { number, flags, time_ms, .. } = frame.head;
        self.set(cx, number, cx.now(), Duration::from_millis(time_ms), flags & REPEATS != 0)
    }
}

fn answer_of(frame: &wire::Frame<'_>) -> Result<Answer, &'static str> {
    let Head { code, flags, .. } = frame.head;
    let data = json(frame.data)?;
    let message = (flags & HAS_MESSAGE != 0).then(|| text(frame.text)).transpose()?;
    Ok(Answer::of(code, data, message.map(Box::from)))
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
