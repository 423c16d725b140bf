//! What shards send each other over the mesh, and what other threads leave in a shard's inbox.

use super::flush::RingOp;
use super::http::session::RequestId;
use super::http::{RelayedRequest, ResponsePart};
use super::state::{Shutdown, State};
use crate::app::worker::WorkerEvent;
use crate::app::{Command, Json};
use crate::event::path::Path;
use crate::metrics::{Snapshot, Timing};
use crate::protocol::http::Sid;
use crate::qev::mesh::{Class, SendOutcome};
use futures_channel::mpsc;
use std::net::IpAddr;

/// How long the log is silent about a full mesh after it has warned.
const WARN_AGAIN_MS: u64 = 1000;

/// A message from shard to shard, with the time it was sent.
pub struct Envelope {
    sent_ns: u64,
    mail: ShardMessage,
}

pub(super) enum ShardMessage {
    /// For the subscribers that you have.
    Broadcast { path: Path, data: Json, accepted_ns: u64 },
    /// I have subscribers for this path now, or no longer.
    Interest { path: Path, subscribed: bool },
    /// For a client of yours, from this application.
    Command { app: u32, command: Command },
    /// You count the connections of this address: one more, mine, in this slot.
    AddressCame { address: IpAddr, slot: u32, generation: u32 },
    /// One less.
    AddressLeft { address: IpAddr },
    /// That connection was one too many.
    AddressRefused { slot: u32, generation: u32 },
    /// An HTTP request for a session of yours.
    Request(Box<RelayedRequest>),
    /// That request has gone with its connection.
    RequestLost { request_id: RequestId, sid: Sid },
    /// The answer to a request of yours.
    ResponsePart(RequestId, Box<ResponsePart>),
}

/// A command from an application's thread.
pub struct AppCommand {
    /// The number of the application.
    pub app: u32,
    pub command: Command,
}

/// A message from the server's own threads. They have an inbox of their own, which no application can fill.
pub enum ControlMessage {
    /// For the statistics endpoint: what was counted, with the number of the shard.
    Snapshot(mpsc::Sender<(u16, Snapshot)>),
    /// Stop accepting, close everything, and end by `deadline_ns`, as `nanos` tells time.
    Shutdown { deadline_ns: u64 },
    /// Of an application's workers.
    Workers(WorkerEvent),
    /// The clock that tests move was moved; tell when what is due by then is done.
    ClockMoved(mpsc::Sender<()>),
}

impl State {
    /// Sends to another shard. It never waits; what does not fit is counted by the mesh.
    pub fn mail(&mut self, shard: u16, mail: ShardMessage, class: Class) {
        let letter = Envelope { sent_ns: self.now_ns, mail };
        let sent = self.port.send(usize::from(shard), letter, class);
        // Control is refused by a shard that has ended only.
        if class == Class::Data && matches!(sent, SendOutcome::Refused(_)) {
            self.warn_of_full_mesh(shard);
        }
    }

    /// Warns once a second at most: the mesh counts every message that it refuses.
    fn warn_of_full_mesh(&mut self, to: u16) {
        if self.now_ms >= self.warn_again_ms {
            self.warn_again_ms = self.now_ms + WARN_AGAIN_MS;
            tracing::warn!(shard = self.id, to, "the mesh is full: messages did not cross");
        }
    }

    /// Whether other shards are so far behind that whatever would be told to them has to be refused here. What must
    /// not be lost waits without a limit of its own: this is what keeps it bounded.
    pub fn mesh_is_stuck(&self) -> bool {
        self.port.overflow_len() > self.config.mesh_overflow_messages_max
    }

    /// Takes what other shards have sent.
    pub fn take_letters(&mut self, max: usize) {
        let mut letters = std::mem::take(&mut self.letters);
        self.port.receive(max, |from, letter| letters.push((from as u16, letter)));
        for (from, letter) in letters.drain(..) {
            self.metrics.latencies.record(Timing::MeshHop, self.now_ns.saturating_sub(letter.sent_ns));
            self.take_letter(from, letter.mail);
        }
        self.letters = letters;
    }

    /// Takes what applications' threads have left.
    pub fn take_posted(&mut self) {
        let mut posted = std::mem::take(&mut self.posted);
        posted.drain(..).for_each(|AppCommand { app, command }| self.apply(app, command));
        self.posted = posted;
    }

    /// Takes what the server's other threads have left.
    pub fn take_notices(&mut self) {
        let mut notices = std::mem::take(&mut self.notices);
        for notice in notices.drain(..) {
            match notice {
                // Whoever asked may have given up.
                ControlMessage::Snapshot(mut to) => drop(to.try_send((self.id, self.snapshot()))),
                ControlMessage::Workers(event) => self.handle_worker_event(event),
                ControlMessage::Shutdown { deadline_ns } => self.shut_down(deadline_ns),
                ControlMessage::ClockMoved(to) => {
                    self.read_clock();
                    self.clock_watchers.push(to);
                }
            }
        }
        self.notices = notices;
    }

    /// The timers that were due have run: whoever moved the clock is told.
    pub fn tell_clock_watchers(&mut self) {
        for mut watcher in self.clock_watchers.drain(..) {
            // Whoever asked may have given up.
            let _ = watcher.try_send(());
        }
    }

    fn take_letter(&mut self, from: u16, mail: ShardMessage) {
        match mail {
            ShardMessage::Broadcast { path, data, accepted_ns } => {
                if let Some(path) = self.subscriptions.find(path.as_ref()) {
                    self.queue_broadcast(path, data, accepted_ns);
                }
            }
            ShardMessage::Interest { path, subscribed: true } => self.subscriptions.add_remote(&path, from),
            ShardMessage::Interest { path, subscribed: false } => {
                self.subscriptions.remove_remote(&path, from)
            }
            ShardMessage::Command { app, command } => self.apply(app, command),
            ShardMessage::AddressCame { address, slot, generation } => {
                if !self.addresses.came(address) {
                    self.mail(from, ShardMessage::AddressRefused { slot, generation }, Class::Control);
                }
            }
            ShardMessage::AddressLeft { address } => self.addresses.left(address),
            ShardMessage::AddressRefused { slot, generation } => self.refuse_address(slot, generation),
            ShardMessage::Request(relayed) => self.handle_session_request(&relayed.as_ask()),
            ShardMessage::RequestLost { request_id, sid } => self.lost_request(sid, request_id),
            ShardMessage::ResponsePart(request_id, answer) => self.deliver(request_id, *answer),
        }
    }

    fn shut_down(&mut self, deadline_ns: u64) {
        self.shutdown = Some(Shutdown { deadline_ns });
        self.ring_ops.push(RingOp::StopListening);
        self.end_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_small() {
        assert!(size_of::<Envelope>() <= 128, "{}", size_of::<Envelope>());
    }
}
