//! The client's side of an HTTP session: which request uses which of its two sockets, and when.
//!
//! Browsers do not send a request on a connection while a response is outstanding. Events that a client sends while a
//! poll is held therefore use a second connection. Their request becomes the next poll, because the server then
//! answers the held one: the two connections take turns. A session never needs more than two, and a client that only
//! listens has one. Of the two sockets of a stream, one carries the stream and the other the requests.

use crate::request::{PostRequest, Sid};

/// The maximum number of sockets of a session.
pub const SOCKETS_MAX: usize = 2;

/// The socket that carries a stream.
pub const STREAM_SOCKET: usize = 0;

/// The socket that carries the requests of a client with a stream.
const REQUEST_SOCKET: usize = 1;

/// The client's side of a session.
#[derive(Debug)]
pub struct Session {
    sid: Sid,
    streams: bool,
    /// The number of the last request.
    seq: u64,
    /// The events that were not sent yet, one per line.
    events: Vec<u8>,
    /// The number of the unanswered request on each socket; 0: none.
    unanswered: [u64; SOCKETS_MAX],
    /// Bytes received on a socket before the response on the other socket, which belongs to an earlier request.
    early: Vec<u8>,
}

impl Session {
    /// Returns a new session.
    pub fn new(sid: Sid, streams: bool) -> Session {
        Session { sid, streams, seq: 0, events: Vec::new(), unanswered: [0; SOCKETS_MAX], early: Vec::new() }
    }

    /// Adds events to send.
    pub fn add_events(&mut self, events: &[u8]) {
        self.events.extend_from_slice(events);
    }

    /// Returns whether new events would have to wait for a response.
    pub fn is_busy(&self) -> bool {
        self.free_socket().is_none() || !self.events.is_empty()
    }

    /// Returns the socket for the next request, if there is one to send: events, or a poll if none is held.
    pub fn next_socket(&self) -> Option<usize> {
        let is_due = !self.events.is_empty() || (!self.streams && self.unanswered == [0; SOCKETS_MAX]);
        self.free_socket().filter(|_| is_due)
    }

    /// Returns the next request, which must be sent on this socket.
    pub fn next_request(&mut self, socket: usize) -> PostRequest {
        self.seq += 1;
        self.unanswered[socket] = self.seq;
        let events = std::mem::take(&mut self.events);
        PostRequest { sid: self.sid, connect: self.seq == 1 && !self.streams, seq: self.seq, events }
    }

    /// Stores received bytes if the response on the other socket must be handled first. Returns whether it did.
    pub fn keep_early(&mut self, socket: usize, bytes: &[u8]) -> bool {
        let earlier = self.unanswered.iter().any(|seq| (1..self.unanswered[socket]).contains(seq));
        if earlier {
            self.early.extend_from_slice(bytes);
        }
        earlier
    }

    /// Records a complete response on a socket. Returns the other socket and the bytes that were stored for it, or
    /// `None` if no request was unanswered.
    pub fn answered(&mut self, socket: usize) -> Option<(usize, Vec<u8>)> {
        let seq = std::mem::take(&mut self.unanswered[socket]);
        (seq > 0).then(|| (SOCKETS_MAX - 1 - socket, std::mem::take(&mut self.early)))
    }

    /// Returns whether no response is expected on a socket: the server may close it.
    pub fn is_idle(&self, socket: usize) -> bool {
        self.unanswered[socket] == 0 && !(self.streams && socket == STREAM_SOCKET)
    }

    fn free_socket(&self) -> Option<usize> {
        let sockets = if self.streams { REQUEST_SOCKET..SOCKETS_MAX } else { 0..SOCKETS_MAX };
        sockets.into_iter().find(|socket| self.unanswered[*socket] == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: Sid = Sid { run: 1, number: 2 };

    /// Returns the next request: its socket, number and events.
    fn sent(session: &mut Session) -> Option<(usize, u64, String)> {
        let socket = session.next_socket()?;
        let PostRequest { seq, events, .. } = session.next_request(socket);
        Some((socket, seq, String::from_utf8(events).unwrap()))
    }

    #[test]
    fn a_poll_follows_every_response() {
        let mut session = Session::new(SID, false);
        assert_eq!(sent(&mut session), Some((0, 1, "".into())));
        assert_eq!(sent(&mut session), None, "the poll is held");
        assert_eq!(session.answered(0), Some((1, vec![])));
        session.add_events(b"a\n");
        session.add_events(b"b\n");
        assert_eq!(sent(&mut session), Some((0, 2, "a\nb\n".into())), "one request carries all events");
    }

    #[test]
    fn events_use_the_free_socket() {
        let mut session = Session::new(SID, false);
        session.next_request(0);
        session.add_events(b"a\n");
        assert_eq!(sent(&mut session), Some((1, 2, "a\n".into())));
        session.add_events(b"b\n");
        assert!(session.is_busy());
        assert_eq!(sent(&mut session), None);
        assert_eq!(session.answered(0), Some((1, vec![])));
        assert_eq!(sent(&mut session), Some((0, 3, "b\n".into())));
        session.answered(1);
        assert_eq!(sent(&mut session), None, "a request is held");
        assert!(!session.is_busy());
    }

    #[test]
    fn stores_early_bytes() {
        let mut session = Session::new(SID, false);
        [0, 1].into_iter().for_each(|socket| drop(session.next_request(socket)));
        assert!(session.keep_early(1, b"HTTP/"));
        assert!(!session.keep_early(0, b"HTTP/1.1"));
        assert!(session.keep_early(1, b"1.1"));
        assert_eq!(session.answered(0), Some((1, b"HTTP/1.1".to_vec())));
        assert!(!session.keep_early(1, b"more"));
        session.next_request(0);
        assert!(session.keep_early(0, b"a third"), "sockets take turns");
    }

    #[test]
    fn only_the_first_request_of_a_poll_connects() {
        let mut session = Session::new(SID, false);
        assert!(session.next_request(0).connect && !session.next_request(1).connect);
        assert!(!Session::new(SID, true).next_request(1).connect, "the stream has connected");
    }

    #[test]
    fn a_stream_has_one_request_at_a_time_and_no_polls() {
        let mut session = Session::new(SID, true);
        assert_eq!(sent(&mut session), None);
        session.add_events(b"a\n");
        assert_eq!(sent(&mut session), Some((1, 1, "a\n".into())));
        session.add_events(b"b\n");
        assert_eq!(sent(&mut session), None);
        assert_eq!((session.is_idle(0), session.is_idle(1)), (false, false));
        assert!(session.answered(1).is_some());
        assert_eq!(sent(&mut session), Some((1, 2, "b\n".into())));
        session.answered(1);
        assert_eq!((sent(&mut session), session.is_idle(0), session.is_idle(1)), (None, false, true));
        assert_eq!(session.answered(1), None, "there was no request");
    }
}
