//! Where the output of a session goes: to the request that is held, or to the stream that is open.

use super::session::{Outlet, RequestId};
use super::{Output, PendingResponse, ResponsePart};
use crate::metrics::{Counter, Gauge};
use crate::protocol::{Framing, http};
use crate::qev::buffers::Frame;
use crate::shard::connection::{OUTBOX_INLINE, Stage};
use crate::shard::state::State;
use smallvec::SmallVec;

impl State {
    /// Hands over what sessions have to say, to whoever waits for it.
    pub fn flush_sessions(&mut self) {
        let mut ready = std::mem::take(&mut self.http.ready);
        for slot in ready.drain(..) {
            self.flush_session(slot);
        }
        self.http.ready = ready;
    }

    /// Sessions whose output waited for the mesh are looked at again.
    pub fn unblock_sessions(&mut self) {
        let mut blocked = std::mem::take(&mut self.http.blocked);
        blocked.drain(..).for_each(|slot| self.look_at_session(slot));
        self.http.blocked = blocked;
    }

    /// Has a session looked at when the turn ends.
    pub fn look_at_session(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        // The slot may be another's by now.
        if !connection.queued && !connection.is_socket() {
            connection.queued = true;
            self.http.ready.push(slot);
        }
    }

    /// A stream is opened: output goes there from now on.
    pub fn stream(&mut self, slot: u32, request_id: RequestId) {
        self.answer_held(slot);
        self.heard_of(slot);
        let Some(session) = self.session(slot) else { return };
        let before = std::mem::replace(&mut session.outlet, Outlet::Stream(request_id));
        if let Outlet::Stream(before) = before {
            self.send_to_stream(slot, before);
            self.answer_request(before, ResponsePart::End);
        }
        self.metrics.counters.add(Counter::StreamsOpened, 1);
        self.answer_request(request_id, ResponsePart::Stream);
        self.frame_for_stream(slot);
        self.outlet_changed(slot);
    }

    /// Output goes to this request from now on; with none it waits for the next. Where a stream is open the request is
    /// answered.
    pub fn hold(&mut self, slot: u32, request_id: Option<RequestId>) {
        let Some(session) = self.session(slot) else { return };
        if let Outlet::Stream(_) = session.outlet {
            return request_id
                .into_iter()
                .for_each(|request_id| self.answer_request(request_id, ResponsePart::nothing()));
        }
        session.outlet = request_id.map_or(Outlet::Nothing, Outlet::Poll);
        self.outlet_changed(slot);
    }

    /// Answers the request that is held, if one is, with what is there.
    pub fn answer_held(&mut self, slot: u32) {
        let Some(session) = self.session(slot) else { return };
        if let Outlet::Poll(request_id) = session.outlet {
            session.outlet = Outlet::Nothing;
            self.answer_poll(slot, request_id);
        }
    }

    /// Answers a poll with what is there.
    pub fn answer_poll(&mut self, slot: u32, request_id: RequestId) {
        let output = Output::of(&self.take_outbox(slot));
        self.answer_request(request_id, ResponsePart::Whole { status: 200, output });
    }

    /// What the session's client has not been sent.
    pub fn take_outbox(&mut self, slot: u32) -> SmallVec<[Frame; OUTBOX_INLINE]> {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return SmallVec::new() };
        self.metrics.gauges.sub(Gauge::OutboxBytes, u64::from(connection.outbox_bytes));
        connection.outbox_bytes = 0;
        std::mem::take(&mut connection.outbox)
    }

    fn flush_session(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if connection.is_socket() {
            return; // it has ended, and its slot is another's
        }
        connection.queued = false;
        if connection.outbox.is_empty() || connection.stage != Stage::Open {
            return;
        }
        let Some(outlet) = self.session(slot).map(|session| session.outlet) else { return };
        match outlet {
            Outlet::Nothing => {}
            Outlet::Poll(_) => {
                self.answer_held(slot);
                self.hold(slot, None);
            }
            Outlet::Stream(request_id) if request_id.shard != self.id && self.mesh_is_stuck() => {
                self.http.blocked.push(slot);
            }
            Outlet::Stream(request_id) => self.send_to_stream(slot, request_id),
        }
    }

    /// Sends what is there over a stream.
    pub fn send_to_stream(&mut self, slot: u32, request_id: RequestId) {
        let frames = self.take_outbox(slot);
        if frames.is_empty() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(slot as usize) {
            connection.sent = self.now;
        }
        if request_id.shard == self.id {
            self.http.answers.push((request_id, PendingResponse::Frames(frames)));
        } else {
            self.answer_request(request_id, ResponsePart::More(Output::of(&frames)));
        }
    }

    /// What waits was encoded for a poll.
    fn frame_for_stream(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        if std::mem::replace(&mut connection.framing, Framing::EventStream) == Framing::EventStream {
            return;
        }
        for frame in self.take_outbox(slot) {
            let mut bytes = Vec::new();
            for line in frame.as_slice().split_inclusive(|byte| *byte == b'\n') {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                http::streamed(&mut bytes, |out| out.extend_from_slice(text));
            }
            let frame = Frame::with_broadcasts(bytes, frame.queued_ns(), frame.accepted().into());
            self.queue_frame(slot, frame);
        }
    }

    /// Output goes elsewhere from now on.
    pub fn outlet_changed(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot as usize) else { return };
        connection.began = self.now;
        connection.sent = self.now;
        if !connection.outbox.is_empty() {
            self.look_at_session(slot);
        }
        self.wake_session(slot);
    }
}

impl ResponsePart {
    /// The response that says nothing.
    pub fn nothing() -> ResponsePart {
        ResponsePart::Whole { status: 200, output: Output::default() }
    }
}
