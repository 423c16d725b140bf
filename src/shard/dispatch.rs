//! Dispatching an event: its text is parsed, its path is routed to a handler, and the handler's answer is queued.

use super::connection::ServerCallback;
use super::directory::directory;
use super::ending::Cause;
use super::frames::{encode_event_for_one, encode_for_one};
use super::state::State;
use crate::app::{Answer, AnswerState, Callback, Event, ReplyTo};
use crate::client::ClientId;
use crate::event::path::PathRef;
use crate::event::text::{self, AnswerText};
use crate::log::throttle;
use crate::metrics::{AppCounter, Counter, Timing};
use crate::protocol::Reason;
use crate::qev::buffers::Frame;
use crate::qev::clock::nanos;

impl State {
    /// Handles the text of an event from a connection's client.
    pub fn dispatch(&mut self, slot: u32, text: &str) {
        let Ok(event) = text::parse(text) else {
            return self.end(slot, Cause::Reason(Reason::MalformedEvent));
        };
        if self.auth.is_on() && self.defer_or_refuse(slot, text, &event) {
            return;
        }
        self.count(Counter::EventsReceived, 1);
        let client = self.connections.client_of(slot).expect("only a connection with a client sends events");
        let reply_to = ReplyTo { client, callback: event.callback };
        // Nearly every path is already clean; the buffer then stays empty.
        let mut scratch = String::new();
        let path = PathRef::clean(event.path, &mut scratch).ok();
        if self.access.has_rules() {
            if let Some(refusal) = path.and_then(|path| self.refuse_event(slot, reply_to, path)) {
                self.answer(0, reply_to, refusal);
                return self.record_routed();
            }
        }
        let routed = path.and_then(|path| self.apps.route(path).map(|(index, extra)| (path, index, extra)));
        match routed {
            Some((path, index, extra)) => {
                let event = Event {
                    client,
                    path: "",
                    extra,
                    data: event.data,
                    callback: event.callback,
                    full_path: path,
                };
                self.has_refused_data = false;
                let answer = self.apps.handle(&directory!(self), index, event);
                let app = self.apps.event(index).app as u32;
                self.metrics.app(app).add(AppCounter::Events, 1);
                self.apply_commands(app);
                let answer = self.answer_or_refusal(answer);
                self.answer(app, reply_to, answer);
            }
            None => {
                self.count(Counter::EventsUnrouted, 1);
                self.answer(0, reply_to, Answer::refusal(404, None));
            }
        }
        self.record_routed();
    }

    /// Records how long the turn has taken until an event was handled.
    #[inline]
    fn record_routed(&mut self) {
        self.metrics.latencies.record(Timing::Route, nanos().saturating_sub(self.time.now_ns()));
    }

    /// Answers an event if its client wants an answer and is still connected.
    pub fn answer(&mut self, app: u32, reply_to: ReplyTo, answer: Answer) {
        let AnswerState::Ready { code, data, message, callback } = answer.0 else { return };
        if code != 200 {
            self.metrics.app(app).add_answer(code);
            if code == 420 {
                self.note_refusal(reply_to.client);
            }
        }
        if reply_to.callback == 0 {
            return;
        }
        let Some(slot) = self.connections.connection_of(reply_to.client) else {
            return self.count(Counter::AnswersLateDropped, 1);
        };
        let Ok(data) = data.verify() else {
            self.count(Counter::DataRefused, 1);
            throttle!(
                warn,
                "invalid JSON in an answer",
                app,
                "an application answered with data that is not JSON; the event is answered 400"
            );
            return self.answer(0, reply_to, Answer::error(400, "invalid json"));
        };
        let offered = callback.filter(|_| code == 200);
        let server_callback = offered.map_or(0, |callback| self.issue(reply_to.client, app, Some(callback)));
        let text = AnswerText {
            id: reply_to.callback,
            server_callback,
            code,
            data: data.as_str(),
            message: message.as_deref(),
        };
        let framing = self.connections.live(slot).framing;
        let bytes = encode_for_one(&self.protocol.compression, framing, text.len(), |out| text.write(out));
        let queued = u64::from(self.queue_bytes(slot, bytes));
        self.count(Counter::Answers, queued);
        self.count(Counter::MessagesSent, queued);
    }

    /// Notes that a request of a client was answered with 420.
    #[cold]
    fn note_refusal(&mut self, client: ClientId) {
        if let Some(slot) = self.connections.connection_of(client) {
            self.drops.of(slot).requests_refused += 1;
        }
    }

    /// Offers a client a server callback; returns its id, or 0 if the client has disconnected.
    pub fn issue(&mut self, client: ClientId, app: u32, run: Option<Callback>) -> u64 {
        let expires_ms = self.time.ms_from_now(self.config.clients_cb_max_age);
        let Some(slot) = self.connections.connection_of(client) else { return 0 };
        let callback = ServerCallback { app, run };
        let Some((id, evicted)) = self.connections.issue(client, callback, expires_ms) else { return 0 };
        self.count(Counter::CallbacksIssued, 1);
        if evicted {
            self.count(Counter::CallbacksEvicted, 1);
            self.drops.of(slot).callbacks_dropped += 1;
        }
        self.wake_at(slot, expires_ms);
        id
    }

    /// Queues an event for one client.
    pub fn queue_event(&mut self, slot: u32, path: &str, callback: u64, data: &str) {
        let framing = self.connections.live(slot).framing;
        let bytes = encode_event_for_one(&self.protocol.compression, framing, path, callback, data);
        let queued = self.queue_bytes(slot, bytes);
        self.count(Counter::MessagesSent, u64::from(queued));
    }

    /// Puts a frame into the outbox of a connection; returns whether the outbox accepted it. If the frame exceeds the
    /// outbox's limit, the connection ends. Broadcasts that were accepted earlier still reach it.
    #[inline]
    pub fn queue(&mut self, slot: u32, frame: Frame) -> bool {
        if self.pubsub.has_broadcasts() && self.connections.would_overflow(slot, frame.len()) {
            self.fan_out();
        }
        self.connections.queue(slot, frame).is_in_outbox()
    }

    /// Puts bytes for this connection alone into its outbox; see [`State::queue`].
    #[inline]
    pub fn queue_bytes(&mut self, slot: u32, bytes: Vec<u8>) -> bool {
        if self.pubsub.has_broadcasts() && self.connections.would_overflow(slot, bytes.capacity()) {
            self.fan_out();
        }
        self.connections.queue_bytes(slot, bytes, self.time.now_ns()).is_in_outbox()
    }
}
