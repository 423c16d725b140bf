//! Links to workers: their sockets, which are in the shard's ring like those of clients. This file transports bytes; `app::worker`
//! interprets them.

#[cfg(test)]
mod tests;

use super::connection::Input;
use super::directory::directory;
use super::kernel::{Kernel, RingOp};
use super::link_table::{LinkEnd, source_of_link, token};
use super::state::State;
use super::time::{DueTimer, ms};
use crate::app::worker::{JoinedWorker, WorkerEvent};
use crate::limits::WORKER_END_WAIT;
use crate::log::throttle;
use crate::qev::buffers::Frame;
use crate::qev::ring::{Errno, FrameBatch};
use std::rc::Rc;
use std::time::Duration;

impl State {
    /// Handles an event from the supervisor of an application's workers.
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
                throttle!(error, "event of a worker", shard = self.mesh.shard(), worker, %error,
                    "an event of a worker could not be registered and is ignored");
            }
        }
        let Some(place) = self.links.take_place() else {
            return group.reject_worker(worker, "its shard has no place for its link");
        };
        let link = self.apps.run(&directory!(self), app, |cx| group.add_worker(cx, &joined));
        self.apply_commands(app);
        let Ok(Some(link)) = link else {
            self.links.free_place(place);
            return group.reject_worker(worker, "its shard has no such instance");
        };
        let end = LinkEnd::new(link, group, app, place);
        let socket = end.socket();
        let token = self.links.insert(end);
        self.ring_ops.push(RingOp::Adopt(place, joined.socket));
        self.ring_ops.push(RingOp::Receive(socket, token));
    }

    /// Handles the end of a worker's process. The frames that the worker has sent are still handled. A process started by the
    /// worker may keep the link open; the shard does not wait for it.
    fn worker_left(&mut self, app: u32, worker: u32) {
        let now_ms = self.time.now_ms();
        for (_, end) in self.links.iter_mut() {
            if end.app == app && end.link.worker() == worker {
                end.left_ms = Some(now_ms);
            }
        }
        self.listen_to_links_that_left();
        self.check_links_later();
    }

    /// Handles bytes from a worker. `ended`: the kernel has ended the receive, which must be submitted again.
    pub fn link_received(&mut self, index: u32, data: &[u8], ended: bool) {
        if ended {
            self.receive_from_link_again(index);
        }
        if !self.held.is_empty() && self.hold_received_from_link(index, data) {
            return;
        }
        self.handle_link_input(index, data);
        self.pause_link_if_over(index);
    }

    /// Handles bytes from a worker, in the order in which the worker has sent them.
    pub fn handle_link_input(&mut self, index: u32, data: &[u8]) {
        self.mesh.begin(source_of_link(index));
        let end = self.links.live_mut(index);
        let (link, app) = (Rc::clone(&end.link), end.app);
        // A panic is logged, and the link stays open.
        let _ = self.apps.run(&directory!(self), app, |cx| link.handle_received(cx, data));
        self.apply_commands(app);
    }

    /// Handles the end of a worker, or of its side of the link.
    pub fn link_receive_ended(&mut self, index: u32, result: Result<(), Errno>) {
        let end = self.links.live_mut(index);
        let was_paused = end.input == Input::Cancelling && result.is_err_and(Errno::is_cancelled);
        let has_left = end.left_ms.is_some();
        if result.is_err_and(Errno::is_no_buffers) || was_paused && !has_left {
            return self.receive_from_link_again(index);
        }
        // Frames that the worker has sent before its end are still handled.
        self.handle_held_of_link(index);
        let end = self.links.live_mut(index);
        end.input = Input::Ended;
        let cancel = end.send.map(|send| RingOp::Cancel { token: token(index), send: Some(send) });
        let (link, group, app) = (Rc::clone(&end.link), Rc::clone(&end.group), end.app);
        self.ring_ops.extend(cancel);
        group.remove_link(&link);
        let _ = self.apps.run(&directory!(self), app, |cx| link.handle_end(cx));
        self.apply_commands(app);
        self.release_link_if_idle(index);
    }

    /// Handles a completed send to a worker. If it failed, the worker has ended, and the receive ends as well.
    pub fn link_sent(&mut self, index: u32, frames: &FrameBatch) {
        let end = self.links.live_mut(index);
        end.send = None;
        end.link.handle_sent(frames.len());
        self.release_link_if_idle(index);
    }

    /// Notes that a worker has read a part of what it was sent.
    pub fn link_send_progressed(&mut self, index: u32) {
        self.links.live_mut(index).sent_ms = self.time.now_ms();
    }

    /// Notes that a worker has been told that nothing more will be sent.
    pub fn link_shut_down(&mut self, index: u32) {
        let end = self.links.live_mut(index);
        end.shutting_down = false;
        end.is_shut_down = true;
        self.release_link_if_idle(index);
    }

    fn release_link_if_idle(&mut self, index: u32) {
        if !self.links.live_mut(index).is_in_flight() {
            let place = self.links.remove(index);
            self.ring_ops.push(RingOp::Release(place));
        }
    }

    /// Submits one send for each worker that has output, and shuts down the links on which nothing more will be sent.
    pub fn flush_links(&mut self, kernel: &mut impl Kernel) {
        let (now_ms, now_ns) = (self.time.now_ms(), self.time.now_ns());
        let mut sends = false;
        for (token, end) in self.links.iter_mut() {
            if end.send.is_some() || !end.is_open() {
                continue;
            }
            let socket = end.socket();
            if let Some(output) = end.link.take_output() {
                end.sent_ms = now_ms;
                end.send = Some(kernel.send(socket, token, Frame::new(output, now_ns)));
                sends = true;
            } else if end.link.close_if_drained() {
                end.shutting_down = true;
                kernel.submit(RingOp::ShutDown(socket, token));
            }
        }
        if sends {
            self.check_links_later();
        }
    }

    /// Sets the timer after which the links are checked, unless it is set.
    fn check_links_later(&mut self) {
        if self.links.request_check() {
            self.time.set(self.time.ms_from_now(WORKER_END_WAIT), DueTimer::Links);
        }
    }

    /// Gives the workers their time anew, because the shard has stalled.
    pub fn restart_patience_with_workers(&mut self) {
        let now = Duration::from_millis(self.time.now_ms());
        self.links.iter_mut().for_each(|(_, end)| end.link.restart_patience(now));
    }

    /// Ends workers that have not read for too long, and links whose worker has ended.
    pub fn links_due(&mut self) {
        self.links.check_begins();
        let (now_ms, timeout) = (self.time.now_ms(), self.config.worker_timeout);
        let mut again = false;
        for (token, end) in self.links.iter_mut().filter(|(_, end)| end.is_open()) {
            if end.input != Input::Armed {
                // The worker may wait until it can write before it reads.
                end.sent_ms = now_ms;
            } else if end.send.is_some() && self.time.waited_ms(end.sent_ms) >= ms(timeout) {
                end.link.handle_stall(timeout);
            }
            let has_left = end.left_ms.is_some_and(|left| now_ms - left >= ms(WORKER_END_WAIT));
            if has_left {
                self.ring_ops.push(RingOp::Cancel { token, send: end.send });
            }
            again |= end.send.is_some() || end.left_ms.is_some();
        }
        if again {
            self.check_links_later();
        }
    }
}
