//! A shard: one thread, one loop of turns, and everything that its connections need. The only module of the server that
//! sees all others.
//!
//! `Loop::turn` is the whole turn. Data goes through it in one direction, from what the kernel and other shards bring
//! to what the kernel is to send. Files of this folder are of three kinds:
//!
//! - *owners* have a piece of the shard's state in private fields, and know nothing above them: `time`, `connections`,
//!   `access`, `auth`, `grant_checks`, `client_facts`, `codecs`, `pubsub`, `mesh`, `addresses`, `identities`, `refused`, `acceptor`,
//!   `listeners`, `apps`, `sessions`, `link_table`, `held`, `stalls`, `tls`, `api_queue`, `drops`,
//!   `busiest`, `recoveries`, `replays`, `presence`;
//! - *steps* of a turn are methods of `State`, which composes the owners: `accept`, `authenticate`, `intake`, `links`, `http`,
//!   `dispatch`, `rules`, `apply`, `subscribe`, `inbound`, `backpressure`, `dormant`, `liveness`, `closing`, `flush`,
//!   `handshakes`, `records`, `sealing`, `api`, `api_questions`, `inspect`, `keep`, `recover`, `members`;
//! - *plain types* that owners and steps share: `connection`, `ending`, `frames`, `messages`, `kernel`,
//!   `receive_shares`.
//!
//! | step | file |
//! | --- | --- |
//! | messages from other shards and from threads | `inbound` |
//! | connections accepted, bytes received, sends completed | `accept`, `intake` |
//! | links to workers | `links` |
//! | TLS: handshakes, records that are received, and those that are sent | `handshakes`, `records`, `sealing` |
//! | HTTP: requests find their session, output finds its request | `http` |
//! | an event: its text, path, handler, and answer | `dispatch` |
//! | tokens: who clients are, and what they may send before | `authenticate` |
//! | events and subscriptions that rules refuse, and subscriptions that changed rules do not allow | `rules` |
//! | the commands that handlers, threads and other shards queue | `apply`, `subscribe` |
//! | peers that are not listened to while other shards are behind | `backpressure` |
//! | peers that are silent for long | `dormant` |
//! | timers that are due | `liveness` |
//! | connections whose end was decided | `closing` |
//! | this turn's broadcasts into the outboxes of subscribers | `pubsub` |
//! | one send for each client that has output | `flush` |
//! | the questions of operators about clients and paths | `inspect` |

mod accept;
mod acceptor;
mod access;
mod addresses;
mod api;
mod api_questions;
mod api_queue;
mod apply;
mod apps;
mod auth;
mod authenticate;
mod backpressure;
#[doc(hidden)]
pub mod bench;
mod busiest;
mod client_facts;
mod closing;
mod codecs;
mod connection;
mod connections;
mod directory;
mod dispatch;
mod dormant;
mod drops;
mod ending;
mod flush;
mod frames;
mod grant_checks;
mod handshakes;
mod held;
mod http;
mod identities;
mod inbound;
mod incomplete;
mod inspect;
mod intake;
mod keep;
mod kernel;
mod link_table;
mod links;
mod listeners;
mod liveness;
mod lost_time;
mod members;
mod mesh;
mod messages;
mod numbered;
mod presence;
mod proxied;
mod proxy_headers;
mod pubsub;
mod questions;
mod receive_shares;
mod records;
mod recover;
mod recoveries;
mod refusal_texts;
mod refused;
mod replays;
mod rules;
mod sealing;
mod sessions;
#[cfg(test)]
mod simulation;
mod stalls;
mod state;
mod subscribe;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;
mod tls;

pub use apps::Apps;
pub use auth::{AuthParts, VerifiedAs, VerifiedToken, VerifyJob, VerifyTokens};
pub use kernel::Wakeup;
pub use listeners::Listener;
pub use messages::{AppCommand, ControlMessage, Envelope};
pub use state::{ShardParts, SharedState};

use crate::api::ApiMessage;
use crate::metrics::{Counter, Timing};
use crate::qev::inbox::Inbox;
use crate::qev::ring::Ring;
use closing::ENDS_PER_TURN;
use codecs::Codecs;
use kernel::{Kernel, RingKernel};
use mesh::SHARD;
use state::State;
use std::io;
use std::sync::Arc;

/// The inboxes in which threads leave messages for a shard.
pub struct Inboxes {
    /// Messages of the server's own threads.
    pub control: Inbox<ControlMessage>,
    /// Commands of the applications' threads.
    pub app_commands: Inbox<AppCommand>,
    /// Messages of the server API.
    pub api: Inbox<ApiMessage>,
}

/// A shard, on its own thread.
pub struct Shard(Loop<RingKernel>);

impl Shard {
    /// Creates a shard on a ring of this thread.
    pub fn new(ring: Ring, inboxes: Inboxes, parts: ShardParts) -> Shard {
        Shard(Loop::new(RingKernel::new(ring), inboxes, parts))
    }

    /// Runs until the server shuts down. `peers` are all shards in order, this one among them.
    ///
    /// # Errors
    ///
    /// The kernel refused to run the ring: the shard has failed, and its connections are lost.
    pub fn run(mut self, listeners: Vec<Listener>, peers: Arc<[Wakeup]>) -> io::Result<()> {
        let accepts = self.0.state.config.accepts_in_flight as u16;
        let kinds = listeners.iter().map(|listener| listener.kind).collect();
        let sockets = listeners.into_iter().map(|listener| listener.socket).collect();
        self.0.kernel.start(sockets, accepts, peers);
        self.0.state.start_accepting(kinds);
        self.0.state.start_app_timers();
        while !self.0.state.is_done() {
            self.0.turn()?;
        }
        Ok(())
    }
}

/// The loop of a shard over a kernel, which tests and benchmarks replace by one of their own.
struct Loop<K> {
    kernel: K,
    inboxes: Inboxes,
    codecs: Codecs,
    state: State,
}

impl<K: Kernel> Loop<K> {
    fn new(kernel: K, inboxes: Inboxes, parts: ShardParts) -> Loop<K> {
        Loop { kernel, inboxes, codecs: Codecs::default(), state: State::new(parts) }
    }

    /// One turn. docs/architecture.md explains its steps and their order.
    ///
    /// The mesh is drained after the kernel's events have been gathered (2) and before they are handled (4). A client
    /// that was told that it is subscribed therefore gets every broadcast sent after that, also from another shard:
    /// the message about the subscription was in the mesh before the answer was in the kernel.
    fn turn(&mut self) -> io::Result<()> {
        let Loop { kernel, inboxes, codecs, state } = self;
        // 1. Wake the shards that sleep and were sent messages, before this one decides whether it sleeps.
        let rung = state.mesh.ring_doorbells(kernel);
        state.count(Counter::Doorbells, rung);
        // 2. One system call submits everything, and waits for events if there is nothing to do.
        let wait = state.wait();
        kernel.enter(wait)?;
        let is_new_second = state.begin_turn();
        // 3. Messages from other shards and from threads.
        state.handle_messages(codecs, inboxes);
        state.dispatch_released();
        state.answer_questions();
        // Peers that were not listened to while other shards were behind: what was received of them is older than the
        // kernel's events.
        state.listen_to_sources_again(codecs);
        // 4. The kernel's events: connections, bytes (decode, route, handle, apply commands), completed sends.
        kernel.drain(|event| state.handle_io(codecs, event));
        state.run_handshakes(codecs, kernel);
        // 5. Timers that are due, and sends that make no progress.
        state.run_timers(codecs);
        state.check_sends(kernel);
        state.mesh.begin(SHARD);
        state.go_on_with_recoveries();
        state.set_mark();
        // 6. Subscriptions of clients that have disconnected, and those that changed rules do not allow; news of members.
        state.mesh.begin(SHARD);
        state.end_subscriptions();
        state.enforce_rules();
        state.renew_memberships();
        state.tell_members();
        // 7. Broadcasts into outboxes, output of HTTP sessions to its requests, ends that were decided.
        state.settle(codecs);
        state.set_members_timer();
        // 8. One send for each client that has output.
        state.flush(codecs, kernel);
        // 9. Messages that overflowed, into rings that have room again.
        state.mesh.flush();
        inboxes.app_commands.set_paused(state.threads_must_wait());
        inboxes.api.set_paused(!state.api.is_empty());
        state.end_turn(kernel.take_submissions_full());
        if is_new_second {
            kernel.give_back();
            state.give_back();
        }
        if cfg!(debug_assertions) {
            state.check_sometimes(codecs);
        }
        Ok(())
    }
}

impl State {
    /// Fans out broadcasts, responds to the requests that wait for output, and carries out the ends that were decided,
    /// until none of these steps has caused another.
    fn settle(&mut self, codecs: &mut Codecs) {
        self.connections.unblock_sessions();
        self.end_some_for_shutdown();
        let mut ends = ENDS_PER_TURN;
        loop {
            self.fan_out();
            self.deliver_responses(codecs);
            if self.connections.has_endings() {
                self.finish_endings(codecs);
            } else if !self.finish_overflowed(codecs, &mut ends) {
                break;
            }
        }
        self.connections.free_discarded();
        codecs.truncate(self.connections.slots());
        self.tls.truncate(self.connections.slots());
        if self.is_shutting_down() && self.is_empty() {
            self.links.abandon_all();
        }
    }

    fn end_turn(&mut self, submissions_full: u64) {
        self.notify_clock_watchers();
        self.count(Counter::SubmissionsFull, submissions_full);
        let pressed = self.connections.take_pressed();
        self.count(Counter::ClosesSlowPressed, pressed);
        self.metrics.latencies.record(Timing::Turn, self.time.end_turn());
    }
}
