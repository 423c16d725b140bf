//! Links to workers: their sockets, which lie in the shard's ring like those of clients. What crosses them is
//! `app::worker`'s business; here bytes are carried.

use super::flush::{Kernel, RingOp};
use super::liveness::{DueTimer, ms};
use super::state::State;
use crate::app::worker::{JoinedWorker, WorkerEvent, WorkerGroup, WorkerLink};
use crate::limits::WORKER_END_WAIT;
use crate::metrics::{Gauge, Gauges};
use crate::qev::buffers::Frame;
use crate::qev::ring::{Descriptor, Errno, FrameBatch, Token};
use std::rc::Rc;

#[cfg(test)]
mod tests;

/// Tokens from here on are those of links; those below are connections'.
const FIRST_TOKEN: Token = 1 << 31;

/// Whether a completion is a link's.
pub(super) fn is_link(token: Token) -> bool {
    token >= FIRST_TOKEN
}

/// The links of a shard.
pub(super) struct Links {
    ends: Vec<Option<End>>,
    /// Places of the ring's table that no link has.
    free: Vec<u32>,
    /// A timer is set at whose end links are looked at.
    look_is_due: bool,
}

/// The shard's end of a link, and what the kernel is at with its socket.
struct End {
    link: Rc<WorkerLink>,
    group: Rc<WorkerGroup>,
    app: u32,
    place: u32,
    receiving: bool,
    sending: bool,
    /// The worker is being told that no more will come.
    shutting_down: bool,
    /// It was told.
    is_shut_down: bool,
    /// When what is in flight was handed to the kernel.
    sent_ms: u64,
    /// When the worker's process had ended.
    left_ms: Option<u64>,
}

impl Links {
    /// So many places are reserved in the ring.
    pub fn new(places: u32) -> Links {
        Links { ends: Vec::new(), free: (0..places).rev().collect(), look_is_due: false }
    }

    fn get(&mut self, token: Token) -> Option<&mut End> {
        self.ends.get_mut((token - FIRST_TOKEN) as usize)?.as_mut()
    }

    fn insert(&mut self, end: End) -> Token {
        let free = self.ends.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.ends.push(None);
            self.ends.len() - 1
        });
        self.ends[index] = Some(end);
        FIRST_TOKEN + index as Token
    }

    fn iter(&self) -> impl Iterator<Item = &End> {
        self.ends.iter().flatten()
    }

    /// All clients have gone: nothing more will be sent to any worker.
    pub fn abandon_all(&self) {
        self.iter().for_each(|end| end.link.abandon());
    }

    /// Whether all workers have been told that no more will come.
    pub fn are_shut_down(&self) -> bool {
        self.iter().all(|end| end.is_shut_down || !end.receiving)
    }

    /// Whether a worker has so much to read that it must not be told of more clients' ends now.
    pub fn are_full(&self) -> bool {
        self.iter().any(|end| end.receiving && end.link.is_full())
    }

    /// Adds what is under way now.
    pub fn add_to(&self, gauges: &mut Gauges) {
        for end in self.iter() {
            let (requests, bytes) = end.link.load();
            gauges.add(Gauge::WorkerRequests, requests as u64);
            gauges.add(Gauge::WorkerOutboxBytes, bytes as u64);
            gauges.add(Gauge::WorkerLinks, 1);
        }
    }
}

impl State {
    /// The supervisor of an application's workers has news.
    pub fn handle_worker_event(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Joined(joined) => self.worker_joined(joined),
            WorkerEvent::Left { app, worker } => self.worker_left(app, worker),
        }
    }

    fn worker_joined(&mut self, joined: JoinedWorker) {
        let (app, worker) = (joined.app, joined.worker);
        let Some(group) = self.apps.worker_group(app) else { return };
        if group.events_differ(&joined.manifest) {
            if let Err(error) = self.apps.register_again(app, &group, &joined.manifest) {
                tracing::error!(shard = self.id, worker, %error, "an event of a worker is left out");
            }
        }
        let Some(place) = self.links.free.pop() else {
            return group.reject_worker(worker, "its shard has no place for its link");
        };
        let link = self.apps.runner().run(app, |cx| group.add_worker(cx, &joined));
        self.apply_commands(app);
        let Ok(Some(link)) = link else {
            self.links.free.push(place);
            return group.reject_worker(worker, "its shard has no such instance");
        };
        let token = self.links.insert(End {
            link,
            group,
            app,
            place,
            receiving: true,
            sending: false,
            shutting_down: false,
            is_shut_down: false,
            sent_ms: 0,
            left_ms: None,
        });
        self.ring_ops.push(RingOp::Adopt(place, joined.socket));
        self.ring_ops.push(RingOp::Receive(Descriptor::at(place), token));
    }

    /// A worker's process has ended. What it has said is still taken; should a process that it started hold the link, that is
    /// not waited for.
    fn worker_left(&mut self, app: u32, worker: u32) {
        let now_ms = self.now_ms;
        let is_its = |end: &&mut End| end.app == app && end.link.worker() == worker;
        for end in self.links.ends.iter_mut().flatten().filter(is_its) {
            end.left_ms = Some(now_ms);
        }
        self.look_at_links();
    }

    /// A worker says something. `ended`: the kernel has ended the receive, which must be begun again.
    pub fn link_received(&mut self, token: Token, data: &[u8], ended: bool) {
        let Some(end) = self.links.get(token) else { return };
        let (link, app) = (Rc::clone(&end.link), end.app);
        if ended {
            self.ring_ops.push(RingOp::Receive(Descriptor::at(end.place), token));
        }
        // Where it panics the log says so, and the worker goes on.
        let _ = self.apps.runner().run(app, |cx| link.handle_received(cx, data));
        self.apply_commands(app);
    }

    /// A worker has ended, or its end of the link.
    pub fn link_receive_ended(&mut self, token: Token, result: Result<(), Errno>) {
        let Some(end) = self.links.get(token) else { return };
        if result.is_err_and(Errno::is_no_buffers) {
            let again = RingOp::Receive(Descriptor::at(end.place), token);
            return self.ring_ops.push(again);
        }
        end.receiving = false;
        let cancel = end.sending.then_some(RingOp::Cancel { token, sending: true });
        let (link, group, app) = (Rc::clone(&end.link), Rc::clone(&end.group), end.app);
        self.ring_ops.extend(cancel);
        group.remove_link(&link);
        let _ = self.apps.runner().run(app, |cx| link.handle_end(cx));
        self.apply_commands(app);
        self.release_if_done(token);
    }

    /// The kernel has taken what was sent to a worker; or the worker has gone, which the end of the receive tells, too.
    pub fn link_sent(&mut self, token: Token, frames: &FrameBatch) {
        let Some(end) = self.links.get(token) else { return };
        end.sending = false;
        end.link.handle_sent(frames.len());
        self.release_if_done(token);
    }

    /// A worker has been told that no more will come.
    pub fn link_shut_down(&mut self, token: Token) {
        let Some(end) = self.links.get(token) else { return };
        end.shutting_down = false;
        end.is_shut_down = true;
        self.release_if_done(token);
    }

    fn release_if_done(&mut self, token: Token) {
        let Some(end) = self.links.get(token) else { return };
        if end.receiving || end.sending || end.shutting_down {
            return;
        }
        let place = end.place;
        self.links.ends[(token - FIRST_TOKEN) as usize] = None;
        self.links.free.push(place);
        self.ring_ops.push(RingOp::Release(place));
    }

    /// One send for each worker that has something to get. Those that will get no more are told so.
    pub fn flush_links(&mut self, kernel: &mut impl Kernel) {
        let mut sends = false;
        for (end, token) in self.links.ends.iter_mut().zip(FIRST_TOKEN..) {
            let Some(end) = end else { continue };
            if end.sending || !end.receiving {
                continue;
            }
            let socket = Descriptor::at(end.place);
            if let Some(output) = end.link.take_output() {
                (end.sending, end.sent_ms) = (true, self.now_ms);
                sends = true;
                kernel.send(socket, token, Frame::new(output, self.now_ns));
            } else if end.link.close_if_drained() {
                end.shutting_down = true;
                kernel.order(RingOp::ShutDown(socket, token));
            }
        }
        if sends {
            self.look_at_links();
        }
    }

    /// Has links looked at after a while.
    fn look_at_links(&mut self) {
        if !self.links.look_is_due {
            self.links.look_is_due = true;
            self.timers.insert(self.ms_in(WORKER_END_WAIT), DueTimer::Links);
        }
    }

    /// Workers that have not read for too long are ended, and links whose worker has ended.
    pub fn links_due(&mut self) {
        self.links.look_is_due = false;
        let (now_ms, timeout) = (self.now_ms, self.config.worker_timeout);
        let mut goes_on = false;
        for (end, token) in self.links.ends.iter_mut().zip(FIRST_TOKEN..) {
            let Some(end) = end.as_mut().filter(|end| end.receiving) else { continue };
            if end.sending && now_ms - end.sent_ms >= ms(timeout) {
                end.link.handle_stall(timeout);
            }
            let has_left = end.left_ms.is_some_and(|left| now_ms - left >= ms(WORKER_END_WAIT));
            if has_left {
                self.ring_ops.push(RingOp::Cancel { token, sending: end.sending });
            }
            goes_on |= end.sending || end.left_ms.is_some();
        }
        if goes_on {
            self.look_at_links();
        }
    }
}
