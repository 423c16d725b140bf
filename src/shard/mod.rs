//! One shard: one thread, one loop of turns, and everything that its connections need. The only part of the
//! server that sees all others.
//!
//! Data goes through a turn in one direction. Each step has a file:
//!
//! | step | file |
//! | --- | --- |
//! | reap the ring's completions | `mod` (this one) |
//! | drain the mesh and the inbox | `mail` |
//! | connections that come, bytes that were received, sends that are done | `intake` |
//! | links to workers | `links` |
//! | HTTP: requests find their session, output finds its request | `http` |
//! | a text: event, route, handler, answer | `dispatch` |
//! | the commands that handlers and other shards push | `apply`, `subscribe` |
//! | timers that are due | `liveness` |
//! | connections whose end was decided | `closing` |
//! | this turn's broadcasts into the outboxes of subscribers | `fanout` |
//! | one send for each client that has output | `flush` |
//!
//! The steps work on `State`, which has no ring: what the kernel is to do is noted there and handed to the ring
//! by `flush`. The mesh is drained after the ring is reaped and before what was received is looked at. So whoever
//! was told that it is subscribed gets every broadcast sent after that, also from another shard: the news of the
//! subscription was in the mesh before the answer was in the kernel.

mod addresses;
mod apply;
mod apps;
#[doc(hidden)]
pub mod bench;
mod closing;
mod connection;
mod dispatch;
mod fanout;
mod flush;
mod http;
mod intake;
mod links;
mod liveness;
mod mail;
mod outbox;
#[cfg(test)]
mod simulation;
mod state;
mod subscribe;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use apps::Apps;
pub use mail::{AppCommand, ControlMessage, Envelope};
pub use state::{Parts, Shared};

use crate::metrics::{Counter, Timing};
use crate::qev::clock::nanos;
use crate::qev::inbox::Inbox;
use crate::qev::ring::{Completion, Doorbell, Ring, Wait};
use state::State;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

/// Messages taken from an inbox in one turn: busy threads must not starve the shard's own clients.
const MAIL_PER_TURN_MAX: usize = 4096;

/// How other shards and threads wake a shard.
#[derive(Clone)]
pub struct Wakeup {
    /// For shards: a message from ring to ring.
    pub ring: RawFd,
    /// For threads, and where the message fails.
    pub doorbell: Doorbell,
}

/// Where other threads leave something for a shard.
pub struct Inboxes {
    /// For the server's own threads.
    pub notices: Inbox<ControlMessage>,
    /// For the applications' threads.
    pub posted: Inbox<AppCommand>,
}

/// A shard, on its own thread.
pub struct Shard {
    ring: Ring,
    peers: Arc<[Wakeup]>,
    inboxes: Inboxes,
    state: State,
    completions: Vec<Completion>,
}

impl Shard {
    /// A shard around a ring of this thread.
    pub fn new(ring: Ring, inboxes: Inboxes, parts: Parts) -> Shard {
        Shard { ring, peers: Arc::new([]), inboxes, state: State::new(parts), completions: Vec::new() }
    }

    /// Runs until the server shuts down. `peers` are all shards in order, this one among them.
    ///
    /// # Errors
    ///
    /// The kernel refused to run the ring: the shard cannot go on, and its connections are lost.
    pub fn run(mut self, listeners: Vec<OwnedFd>, peers: Arc<[Wakeup]>) -> io::Result<()> {
        self.peers = peers;
        let accepts = self.state.config.accepts_in_flight as u16;
        for listener in listeners {
            self.ring.listen(listener, accepts);
        }
        self.state.start_app_timers();
        while !self.state.is_done() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        // Before the decision to sleep, which has to wait until everybody else is awake who must be.
        self.ring_doorbells();
        let wait = self.wait();
        self.ring.turn(wait, &mut self.completions)?;
        self.state.begin_turn();
        let began_ns = self.state.now_ns;
        self.take_mail();
        self.take_completions();
        self.state.finish_turn(&mut self.ring);
        let metrics = &mut self.state.metrics;
        metrics.counters.add(Counter::SubmissionsFull, self.ring.take_submission_overflows());
        metrics.latencies.record(Timing::Turn, nanos() - began_ns);
        Ok(())
    }

    /// How long the kernel may wait for news: not at all while there is work, for ever where nothing is due.
    fn wait(&mut self) -> Wait {
        if self.state.has_work() {
            return Wait::No;
        }
        let wait = self.state.time_to_next_due();
        if wait == Wait::No || !self.state.port.try_sleep() {
            return Wait::No;
        }
        self.state.metrics.counters.add(Counter::Sleeps, 1);
        wait
    }

    fn ring_doorbells(&mut self) {
        let Shard { ring, peers, state, .. } = self;
        let mut rung = 0;
        state.port.doorbells(|peer| {
            ring.ring_peer(peers[peer].ring);
            rung += 1;
        });
        state.metrics.counters.add(Counter::Doorbells, rung);
    }

    fn take_mail(&mut self) {
        // As many as all rings hold: news of a subscription must not be left behind others' messages.
        let rings = self.state.port.shards() * self.state.config.mesh_ring_messages;
        self.state.take_letters(rings);
        let Shard { state, inboxes, .. } = self;
        let taken = inboxes.posted.receive(MAIL_PER_TURN_MAX, |posted| state.posted.push(posted));
        state.metrics.counters.add(Counter::InboxReceived, taken as u64);
        state.take_posted();
        inboxes.notices.receive(MAIL_PER_TURN_MAX, |notice| state.notices.push(notice));
        state.take_notices();
    }

    fn take_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received { token, buffer, ended } if links::is_link(token) => {
                self.state.link_received(token, self.ring.data(&buffer), ended);
                self.ring.recycle(buffer);
            }
            Completion::ReceiveEnded { token, result } if links::is_link(token) => {
                self.state.link_receive_ended(token, result);
            }
            Completion::Sent { token, frames, .. } if links::is_link(token) => {
                self.state.link_sent(token, &frames)
            }
            Completion::ShutDown { token } if links::is_link(token) => self.state.link_shut_down(token),
            Completion::Received { token, buffer, ended } => {
                self.state.received(token, self.ring.data(&buffer), ended);
                self.ring.recycle(buffer);
            }
            Completion::ReceiveEnded { token, result } => self.state.receive_ended(token, result),
            Completion::Sent { token, result, frames } => self.state.sent(token, result, &frames),
            Completion::Accepted { socket, peer, .. } => self.state.accepted(socket, peer),
            Completion::AcceptFailed { error, .. } => self.state.accept_failed(error),
            Completion::DoorbellFailed { ring, .. } => {
                if let Some(peer) = self.peers.iter().find(|peer| peer.ring == ring) {
                    peer.doorbell.ring();
                }
            }
            Completion::ShutDown { token } => self.state.shutdown_done(token),
            Completion::Woken | Completion::Closed { .. } => {}
        }
    }
}
