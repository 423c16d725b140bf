//! An HTTP session: which request goes by which of its two sockets, and when.
//!
//! Browsers send no request on a connection whose last one has no response yet, so what a client has to say while a poll
//! is held goes by a second connection. That one becomes the poll, as the server answers the other: the two take turns.
//! More than two are never needed, and a client that only listens has one. Of a stream's two sockets one is the
//! stream, and the other has the requests.

use crate::request::{Post, Sid};

/// Sockets of a session, at most.
pub const LINES: usize = 2;

/// By which a stream comes, and by which what its client says goes.
pub const STREAM_LINE: usize = 0;
const STREAM_REQUESTS: usize = 1;

/// A session as its client has it.
#[derive(Debug)]
pub struct Session {
    sid: Sid,
    streams: bool,
    /// Of the last request.
    seq: u64,
    /// Events that no request has taken yet, one a line.
    events: Vec<u8>,
    /// The request that is not answered, on each line; 0: none.
    unanswered: [u64; LINES],
    /// What has come on a line before the other's response, which is the earlier one.
    early: Vec<u8>,
}

impl Session {
    /// A new session.
    pub fn new(sid: Sid, streams: bool) -> Session {
        Session { sid, streams, seq: 0, events: Vec::new(), unanswered: [0; LINES], early: Vec::new() }
    }

    /// Adds to what the client has to say.
    pub fn say(&mut self, events: &[u8]) {
        self.events.extend_from_slice(events);
    }

    /// Whether what the client says now would have to wait for a response.
    pub fn is_busy(&self) -> bool {
        self.free_line().is_none() || !self.events.is_empty()
    }

    /// The line of the next request, where there is one to send: events, or a poll where none is held.
    pub fn next_line(&self) -> Option<usize> {
        let is_due = !self.events.is_empty() || (!self.streams && self.unanswered == [0; LINES]);
        self.free_line().filter(|_| is_due)
    }

    /// The next request, which is sent by that line.
    pub fn next_request(&mut self, line: usize) -> Post {
        self.seq += 1;
        self.unanswered[line] = self.seq;
        let events = std::mem::take(&mut self.events);
        Post { sid: self.sid, connect: self.seq == 1 && !self.streams, seq: self.seq, events }
    }

    /// Takes what has come on a line, where it is early; whether it is.
    pub fn keep_early(&mut self, line: usize, bytes: &[u8]) -> bool {
        let earlier = self.unanswered.iter().any(|seq| (1..self.unanswered[line]).contains(seq));
        if earlier {
            self.early.extend_from_slice(bytes);
        }
        earlier
    }

    /// A response has come on that line, as the earliest. The other line, and what has come on it already; none where no
    /// request was unanswered.
    pub fn answered(&mut self, line: usize) -> Option<(usize, Vec<u8>)> {
        let seq = std::mem::take(&mut self.unanswered[line]);
        (seq > 0).then(|| (LINES - 1 - line, std::mem::take(&mut self.early)))
    }

    /// Whether nothing is expected on a line: the server may close its socket.
    pub fn is_idle(&self, line: usize) -> bool {
        self.unanswered[line] == 0 && !(self.streams && line == STREAM_LINE)
    }

    fn free_line(&self) -> Option<usize> {
        let lines = if self.streams { STREAM_REQUESTS..LINES } else { 0..LINES };
        lines.into_iter().find(|line| self.unanswered[*line] == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: Sid = Sid { run: 1, number: 2 };

    /// What is sent next: by which line, as what.
    fn sent(session: &mut Session) -> Option<(usize, u64, String)> {
        let line = session.next_line()?;
        let Post { seq, events, .. } = session.next_request(line);
        Some((line, seq, String::from_utf8(events).unwrap()))
    }

    #[test]
    fn a_poll_follows_every_response() {
        let mut session = Session::new(SID, false);
        assert_eq!(sent(&mut session), Some((0, 1, "".into())));
        assert_eq!(sent(&mut session), None, "it is held");
        assert_eq!(session.answered(0), Some((1, vec![])));
        session.say(b"a\n");
        session.say(b"b\n");
        assert_eq!(sent(&mut session), Some((0, 2, "a\nb\n".into())), "events are gathered");
    }

    #[test]
    fn events_go_by_the_line_that_is_free() {
        let mut session = Session::new(SID, false);
        session.next_request(0);
        session.say(b"a\n");
        assert_eq!(sent(&mut session), Some((1, 2, "a\n".into())));
        session.say(b"b\n");
        assert!(session.is_busy());
        assert_eq!(sent(&mut session), None);
        assert_eq!(session.answered(0), Some((1, vec![])));
        assert_eq!(sent(&mut session), Some((0, 3, "b\n".into())));
        session.answered(1);
        assert_eq!(sent(&mut session), None, "a request is held");
        assert!(!session.is_busy());
    }

    #[test]
    fn what_comes_early_is_kept() {
        let mut session = Session::new(SID, false);
        [0, 1].into_iter().for_each(|line| drop(session.next_request(line)));
        assert!(session.keep_early(1, b"HTTP/"));
        assert!(!session.keep_early(0, b"HTTP/1.1"));
        assert!(session.keep_early(1, b"1.1"));
        assert_eq!(session.answered(0), Some((1, b"HTTP/1.1".to_vec())));
        assert!(!session.keep_early(1, b"more"));
        session.next_request(0);
        assert!(session.keep_early(0, b"a third"), "lines take turns");
    }

    #[test]
    fn only_the_first_request_of_a_poll_connects() {
        let mut session = Session::new(SID, false);
        assert!(session.next_request(0).connect && !session.next_request(1).connect);
        assert!(!Session::new(SID, true).next_request(1).connect, "the stream has");
    }

    #[test]
    fn a_stream_has_one_request_at_a_time_and_no_polls() {
        let mut session = Session::new(SID, true);
        assert_eq!(sent(&mut session), None);
        session.say(b"a\n");
        assert_eq!(sent(&mut session), Some((1, 1, "a\n".into())));
        session.say(b"b\n");
        assert_eq!(sent(&mut session), None);
        assert_eq!((session.is_idle(0), session.is_idle(1)), (false, false));
        assert!(session.answered(1).is_some());
        assert_eq!(sent(&mut session), Some((1, 2, "b\n".into())));
        session.answered(1);
        assert_eq!((sent(&mut session), session.is_idle(0), session.is_idle(1)), (None, false, true));
        assert_eq!(session.answered(1), None, "nothing was asked");
    }
}
