//! The additional steps for HTTP: requests that follow responses, and a second socket when one is needed.

use super::connection::ConnectionState;
use super::session::{STREAM_SOCKET, Session};
use super::{SocketId, Worker};
use crate::plan::Protocol;
use crate::request::Sid;
use crate::results::Counter;
use quickio::qev::buffers::Frame;
use quickio::qev::ring::Token;

impl Worker<'_> {
    /// Starts a session on its first socket, which is open.
    pub fn begin_session(&mut self, token: Token) {
        let streams = self.plan.protocol == Protocol::EventStream;
        let sid = Sid { run: self.run, number: self.number_of(token) as u64 };
        let mut session = Session::new(sid, streams);
        if !streams {
            session.add_events(&self.encoder.hostname());
        }
        self.connections[token as usize].session = Some(Box::new(session));
        if streams {
            self.results.counters.add(Counter::Requests, 1);
            let request = self.request_builder.stream(sid);
            return self.send_on(SocketId { token, index: STREAM_SOCKET }, Frame::new(request, 0));
        }
        self.send_next_request(token);
    }

    /// Sends the next request of a session, if there is one to send and a socket for it.
    pub fn send_next_request(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        if !matches!(connection.state, ConnectionState::Opening | ConnectionState::Open) {
            return;
        }
        let Some(session) = &mut connection.session else { return };
        let Some(index) = session.next_socket().filter(|index| !connection.sockets[*index].closing) else {
            return;
        };
        let request = self.request_builder.post(&session.next_request(index));
        let id = SocketId { token, index };
        if connection.sockets[index].descriptor.is_some() || self.connect(id) {
            self.results.counters.add(Counter::Requests, 1);
            self.send_on(id, Frame::new(request, 0));
        }
    }
}
