//! A text becomes an event, finds its handler, and is answered.

use super::connection::{Cause, OpenCallback};
use super::outbox::encode;
use super::state::State;
use crate::app::{Answer, AnswerState, Callback, Event, ReplyTo};
use crate::client::ClientId;
use crate::event::path::PathRef;
use crate::event::text::{self, AnswerText};
use crate::metrics::{Counter, Gauge, Timing};
use crate::protocol::Reason;
use crate::qev::buffers::Frame;
use crate::qev::clock::nanos;

impl State {
    /// Handles the text of one event that a connection's client has sent.
    pub fn dispatch(&mut self, slot: u32, text: &str) {
        let Ok(event) = text::parse(text) else {
            return self.end(slot, Cause::Reason(Reason::MalformedEvent));
        };
        self.metrics.counters.add(Counter::EventsReceived, 1);
        let Some(client) = self.client_of(slot) else { return };
        let reply_to = ReplyTo { client, callback: event.callback };
        let mut scratch = self.lend_scratch();
        let routed = PathRef::clean(event.path, &mut scratch).ok().and_then(|path| self.apps.route(path));
        match routed {
            Some((index, extra)) => {
                let event = Event { client, path: "", extra, data: event.data, callback: event.callback };
                let answer = self.apps.handle(index, event);
                let app = self.apps.event(index).app as u32;
                self.apply_commands(app);
                self.answer(app, reply_to, answer);
            }
            None => {
                self.metrics.counters.add(Counter::EventsUnrouted, 1);
                self.answer(0, reply_to, Answer::refusal(404, None));
            }
        }
        self.take_scratch_back(scratch);
        self.metrics.latencies.record(Timing::Route, nanos().saturating_sub(self.now_ns));
    }

    /// Answers an event, where an answer is wanted and the client is still there.
    pub fn answer(&mut self, app: u32, reply_to: ReplyTo, answer: Answer) {
        let AnswerState::Ready { code, data, message, callback } = answer.0 else { return };
        if reply_to.callback == 0 {
            return;
        }
        if self.client(reply_to.client).is_none() {
            return self.metrics.counters.add(Counter::AnswersLateDropped, 1);
        }
        let offered = callback.filter(|_| code == 200);
        let server_callback = offered.map_or(0, |callback| self.issue(reply_to.client, app, Some(callback)));
        let text = AnswerText {
            id: reply_to.callback,
            server_callback,
            code,
            data: data.as_str(),
            message: message.as_deref(),
        };
        let queued = u64::from(self.queue_answer(reply_to.client, &text));
        self.metrics.counters.add(Counter::Answers, queued);
        self.metrics.counters.add(Counter::MessagesSent, queued);
    }

    /// Offers a client a server callback; answers its id, or 0 where the client has gone.
    pub fn issue(&mut self, id: ClientId, app: u32, run: Option<Callback>) -> u64 {
        let expires_ms = self.ms_in(self.config.clients_cb_max_age);
        let Some(client) = self.client(id) else { return 0 };
        let slot = client.connection;
        let (callback, evicted) = client.callbacks.issue(OpenCallback { app, run }, expires_ms);
        self.metrics.counters.add(Counter::CallbacksIssued, 1);
        match evicted {
            Some(_) => self.metrics.counters.add(Counter::CallbacksEvicted, 1),
            None => self.metrics.gauges.add(Gauge::CallbacksOpen, 1),
        }
        self.wake_at(slot, expires_ms);
        callback
    }

    /// The client of a connection, once its handshake is complete.
    pub fn client_of(&self, slot: u32) -> Option<ClientId> {
        let client = self.connections.get(slot as usize)?.client?.get();
        let generation = self.clients.get(client as usize)?.generation();
        Some(ClientId { shard: self.id, slot: client, generation })
    }

    /// The slot of a client's connection, if the client is still there.
    pub fn connection_of(&mut self, id: ClientId) -> Option<u32> {
        self.client(id).map(|client| client.connection)
    }

    fn queue_answer(&mut self, client: ClientId, text: &AnswerText<'_>) -> bool {
        let Some(slot) = self.connection_of(client) else { return false };
        let Some(framing) = self.framing_of(slot) else { return false };
        let bytes = encode(framing, text.len(), |out| text.write(out));
        self.queue_frame(slot, Frame::new(bytes, self.now_ns))
    }
}
