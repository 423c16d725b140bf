//! The output of a session: it goes to the request that is held, or to the stream that is open.

use crate::metrics::Counter;
use crate::protocol::{Framing, http};
use crate::qev::buffers::Frame;
use crate::shard::connection::Stage;
use crate::shard::connections::output_of;
use crate::shard::sessions::messages::{PendingResponse, RequestId, ResponsePart, SessionOutput};
use crate::shard::sessions::refusal::SessionRefusal;
use crate::shard::sessions::session::Outlet;
use crate::shard::state::State;

impl State {
    /// Hands the output of sessions to the request or stream that waits for it.
    pub fn flush_sessions(&mut self) {
        while let Some(slot) = self.connections.pop_ready_session() {
            self.flush_session(slot);
        }
    }

    /// Opens a stream, which gets all output from now on. `lingers`: if it is broken off, the session takes requests for a
    /// moment.
    pub fn open_stream(&mut self, slot: u32, request_id: RequestId, lingers: bool) {
        self.answer_held(slot);
        self.heard_of(slot);
        let session = self.session_mut(slot);
        if session.outlet == Outlet::Left {
            return self.refuse_request(request_id, SessionRefusal::Ended);
        }
        let before = session.stream(request_id, lingers);
        if let Outlet::Stream(before) = before {
            self.send_to_stream(slot, before);
            self.respond(before, ResponsePart::End);
        }
        self.count(Counter::StreamsOpened, 1);
        self.respond(request_id, ResponsePart::Stream);
        self.frame_for_stream(slot);
        self.outlet_changed(slot);
    }

    /// Holds a request, which gets the next output. If a stream is open, the request gets an empty response instead.
    pub fn hold(&mut self, slot: u32, request_id: Option<RequestId>) {
        let connection = self.connections.live(slot);
        let session = self.sessions.of_mut(connection.transport());
        if matches!(session.outlet, Outlet::Stream(_) | Outlet::Left) {
            let empty = |request_id| self.respond(request_id, ResponsePart::empty());
            return request_id.into_iter().for_each(empty);
        }
        session.outlet = request_id.map_or(Outlet::Nothing, Outlet::Poll);
        self.outlet_changed(slot);
    }

    /// Drops the output of a session whose stream was broken off, now and later. The session ends after a moment.
    pub fn leave_stream(&mut self, slot: u32) {
        self.connections.drop_outbox(slot);
        self.count(Counter::StreamsLingered, 1);
        self.outlet_changed(slot);
    }

    /// Responds to the held request, if there is one, with the output in the outbox.
    pub fn answer_held(&mut self, slot: u32) {
        let session = self.session_mut(slot);
        if let Outlet::Poll(request_id) = session.outlet {
            session.outlet = Outlet::Nothing;
            self.respond_to_poll(slot, request_id);
        }
    }

    /// Responds to a poll with the output in the outbox.
    pub fn respond_to_poll(&mut self, slot: u32, request_id: RequestId) {
        let output = SessionOutput::of(&self.connections.take_outbox(slot));
        self.recoveries.look_again();
        self.respond(request_id, ResponsePart::Output(output));
    }

    /// Hands the output of a session to the request or stream that waits for it, if there is one.
    pub fn flush_session(&mut self, slot: u32) {
        let connection = self.connections.live(slot);
        if connection.outbox.is_empty() || connection.stage != Stage::Open {
            return;
        }
        let outlet = self.sessions.of(connection.transport()).outlet;
        match outlet {
            Outlet::Nothing => {}
            Outlet::Left => self.connections.drop_outbox(slot),
            Outlet::Poll(request_id) | Outlet::Stream(request_id)
                if request_id.shard != self.mesh.shard() && self.is_output_blocked(slot) =>
            {
                self.connections.block_session(slot);
            }
            Outlet::Poll(_) => {
                self.answer_held(slot);
                self.hold(slot, None);
            }
            Outlet::Stream(request_id) => self.send_to_stream(slot, request_id),
        }
    }

    /// Returns whether the output of a session must wait until other shards have caught up.
    fn is_output_blocked(&mut self, slot: u32) -> bool {
        // A session whose output waits is still listened to.
        let source = output_of(self.connections.source(slot));
        self.mesh.begin(source);
        self.mesh.is_stuck() || self.mesh.is_over(source)
    }

    /// Sends the output in the outbox over a stream.
    pub fn send_to_stream(&mut self, slot: u32, request_id: RequestId) {
        let frames = self.connections.take_outbox(slot);
        self.recoveries.look_again();
        if frames.is_empty() {
            return;
        }
        let now = self.time.now();
        self.connections.live_mut(slot).sent = now;
        if request_id.shard == self.mesh.shard() {
            self.sessions.respond_later(request_id, PendingResponse::Frames(frames));
        } else {
            self.respond(request_id, ResponsePart::More(SessionOutput::of(&frames)));
        }
    }

    /// Encodes output that was encoded for a poll again, as events of a stream.
    fn frame_for_stream(&mut self, slot: u32) {
        if self.connections.set_framing(slot, Framing::EventStream) == Framing::EventStream {
            return;
        }
        for frame in self.connections.take_outbox(slot) {
            let mut bytes = Vec::new();
            for line in frame.as_slice().split_inclusive(|byte| *byte == b'\n') {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                http::streamed(&mut bytes, |out| out.extend_from_slice(text));
            }
            let frame = Frame::with_broadcasts(bytes, frame.queued_ns(), frame.accepted().into());
            self.queue(slot, frame);
        }
    }

    /// Notes that output goes elsewhere from now on.
    pub fn outlet_changed(&mut self, slot: u32) {
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        connection.began = now;
        connection.sent = now;
        if !connection.outbox.is_empty() {
            self.connections.queue_session(slot);
        }
        self.wake_session(slot);
    }
}
