//! What HTTP asks for beyond: requests that follow responses, and a second socket where one is needed.

use super::connection::State;
use super::session::{STREAM_LINE, Session};
use super::{Line, Worker};
use crate::outcome::Count;
use crate::plan::Protocol;
use crate::request::Sid;
use quickio::qev::buffers::Frame;
use quickio::qev::ring::Token;

impl Worker<'_> {
    /// Begins a session, whose first socket is there.
    pub fn begin_session(&mut self, token: Token) {
        let streams = self.plan.protocol == Protocol::EventStream;
        let sid = Sid { run: self.run, number: self.number_of(token) as u64 };
        let mut session = Session::new(sid, streams);
        if !streams {
            session.say(&self.writer.hostname());
        }
        self.connections[token as usize].session = Some(Box::new(session));
        if streams {
            self.outcome.counts.add(Count::Requests, 1);
            let request = self.requests.stream(sid);
            return self.send_on(Line { token, of: STREAM_LINE }, Frame::new(request, 0));
        }
        self.request_next(token);
    }

    /// Sends the next request of a session, where there is one to send and a socket for it.
    pub fn request_next(&mut self, token: Token) {
        let connection = &mut self.connections[token as usize];
        if !matches!(connection.state, State::Opening | State::Open) {
            return;
        }
        let Some(session) = &mut connection.session else { return };
        let Some(of) = session.next_line().filter(|line| !connection.lines[*line].closing) else { return };
        let request = self.requests.post(&session.next_request(of));
        let line = Line { token, of };
        if connection.lines[of].socket.is_some() || self.connect(line) {
            self.outcome.counts.add(Count::Requests, 1);
            self.send_on(line, Frame::new(request, 0));
        }
    }
}
