//! A session of HTTP long polling, apart from sockets and clients: in which order its requests are handled, and which
//! of them gets its output (protocol.md, section 5).
//!
//! ```text
//!              a request                      output, another request, or time
//!   Nothing ---------------> Poll (held) ---------------------------------------> Nothing
//!      |                        |
//!      +------------------------+--- a stream ---> Stream ---> the session's end
//! ```

use crate::limits::HTTP_EARLY_REQUESTS_MAX;
use crate::protocol::http::Sid;
use crate::shard::connection::Moment;

/// Who waits for an answer: a request, on a connection of some shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) struct RequestId {
    pub shard: u16,
    pub connection: u32,
    /// Of the connection.
    pub generation: u32,
    /// Of the request on the connection.
    pub number: u32,
}

/// Where the session's output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Outlet {
    /// It waits for the next request.
    Nothing,
    /// To the request that is held.
    Poll(RequestId),
    /// To the stream that is open.
    Stream(RequestId),
}

/// What a session is beyond the record of its connection.
pub(in crate::shard) struct HttpSession {
    pub sid: Sid,
    pub outlet: Outlet,
    /// Of the next request that states its place.
    next_seq: u64,
    /// The request before that was held, and has gone with its connection: it may come again.
    lost: bool,
    /// Requests that came before others that have to be handled first; as they came.
    early: Vec<Early>,
}

/// A request that came too early.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) struct Early {
    pub seq: u64,
    pub came: Moment,
    /// None where its connection has gone: its events count all the same.
    pub request_id: Option<RequestId>,
    pub host: Box<str>,
    pub body: Box<str>,
    /// The session ends behind it.
    pub close: bool,
}

/// When a request is to be handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Turn {
    Now,
    /// Others must be handled before.
    Later,
    /// It is the one that is held, or was until its connection broke, sent again because of that. Its events were
    /// handled, and it got no output yet.
    Again,
    /// It was handled, and answered.
    Over,
}

/// A request would be one more than may wait for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) struct TooManyEarly;

/// What has gone with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Lost {
    /// The request that was held: output waits for the next.
    Poll,
    /// The stream, and what was under way on it.
    Stream,
    /// A request that came too early. It will be handled all the same.
    Early,
    /// Nothing that was not answered.
    Nothing,
}

impl HttpSession {
    pub fn new(sid: Sid) -> HttpSession {
        HttpSession { sid, outlet: Outlet::Nothing, next_seq: 1, lost: false, early: Vec::new() }
    }

    /// When a request is to be handled that states this place, or none.
    pub fn turn_of(&self, seq: Option<u64>) -> Turn {
        let Some(seq) = seq else { return Turn::Now };
        if seq == self.next_seq {
            Turn::Now
        } else if seq > self.next_seq {
            Turn::Later
        } else {
            let is_the_last = seq + 1 == self.next_seq;
            match self.outlet {
                Outlet::Poll(_) if is_the_last => Turn::Again,
                Outlet::Nothing if is_the_last && self.lost => Turn::Again,
                _ => Turn::Over,
            }
        }
    }

    /// A request is handled that states this place, or none.
    pub fn handle(&mut self, seq: Option<u64>) {
        self.lost = false;
        if let Some(seq) = seq {
            self.next_seq = seq.saturating_add(1);
        }
    }

    /// Keeps a request until those before it were handled. Answers whom to answer in its place: the same request came
    /// before, by a connection that is broken now.
    pub fn keep(&mut self, request: Early) -> Result<Option<RequestId>, TooManyEarly> {
        if let Some(same) = self.early.iter_mut().find(|early| early.seq == request.seq) {
            return Ok(std::mem::replace(&mut same.request_id, request.request_id));
        }
        if self.early.len() == HTTP_EARLY_REQUESTS_MAX {
            return Err(TooManyEarly);
        }
        self.early.push(request);
        Ok(None)
    }

    /// The request whose turn it is now, among those that were kept.
    pub fn next_kept(&mut self) -> Option<Early> {
        let at = self.early.iter().position(|early| early.seq == self.next_seq)?;
        let early = self.early.remove(at);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        Some(early)
    }

    /// A request that was handled has come again, and is held in place of the one before it, which it returns.
    pub fn hold_again(&mut self, request_id: RequestId) -> Option<RequestId> {
        self.lost = false;
        match std::mem::replace(&mut self.outlet, Outlet::Poll(request_id)) {
            Outlet::Poll(before) => Some(before),
            Outlet::Nothing | Outlet::Stream(_) => None,
        }
    }

    /// Since when requests wait for one that has not come.
    pub fn gap_since(&self) -> Option<Moment> {
        self.early.first().map(|early| early.came)
    }

    /// A connection has gone, and this request with it.
    pub fn lose(&mut self, request_id: RequestId) -> Lost {
        let lost = match self.outlet {
            Outlet::Poll(held) if held == request_id => Lost::Poll,
            Outlet::Stream(open) if open == request_id => Lost::Stream,
            _ => Lost::Nothing,
        };
        if lost != Lost::Nothing {
            self.outlet = Outlet::Nothing;
            self.lost = lost == Lost::Poll;
            return lost;
        }
        match self.early.iter_mut().find(|early| early.request_id == Some(request_id)) {
            Some(early) => {
                early.request_id = None;
                Lost::Early
            }
            None => Lost::Nothing,
        }
    }

    /// Those whose requests were kept, and will not be handled.
    pub fn forget_kept(&mut self) -> impl Iterator<Item = RequestId> + use<> {
        std::mem::take(&mut self.early).into_iter().filter_map(|early| early.request_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_id(number: u32) -> RequestId {
        RequestId { shard: 0, connection: 1, generation: 1, number }
    }

    fn early(seq: u64) -> Early {
        Early {
            seq,
            came: Moment::at(seq),
            request_id: Some(request_id(seq as u32)),
            host: "".into(),
            body: seq.to_string().into(),
            close: false,
        }
    }

    fn session() -> HttpSession {
        HttpSession::new(Sid::from(7))
    }

    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Option<HttpSession>>() <= 72, "{}", size_of::<Option<HttpSession>>());
    }

    #[test]
    fn requests_without_a_place_are_handled_as_they_come() {
        let mut session = session();
        for _ in 0..3 {
            assert_eq!(session.turn_of(None), Turn::Now);
            session.handle(None);
        }
        assert_eq!(session.turn_of(Some(1)), Turn::Now, "they are not counted");
    }

    #[test]
    fn requests_with_a_place_are_handled_in_order() {
        let mut session = session();
        for seq in [3, 2] {
            assert_eq!(session.turn_of(Some(seq)), Turn::Later);
            assert_eq!(session.keep(early(seq)), Ok(None));
        }
        assert_eq!((session.gap_since(), session.next_kept()), (Some(Moment::at(3)), None));
        assert_eq!(session.turn_of(Some(1)), Turn::Now);
        session.handle(Some(1));
        for seq in [2, 3] {
            assert_eq!(session.next_kept().map(|early| early.seq), Some(seq));
            session.handle(Some(seq));
        }
        assert_eq!((session.gap_since(), session.next_kept()), (None, None));
        assert_eq!(session.turn_of(Some(3)), Turn::Over);
    }

    #[test]
    fn a_request_that_is_held_may_be_sent_again() {
        let mut session = session();
        session.handle(Some(1));
        session.outlet = Outlet::Poll(request_id(0));
        assert_eq!(session.turn_of(Some(1)), Turn::Again);
        session.outlet = Outlet::Nothing;
        assert_eq!(session.turn_of(Some(1)), Turn::Over, "it was answered");
        assert_eq!(session.turn_of(Some(0)), Turn::Over);
        // Its connection may be known to be broken before it comes again.
        session.outlet = Outlet::Poll(request_id(0));
        assert_eq!(session.lose(request_id(0)), Lost::Poll);
        assert_eq!((session.turn_of(Some(1)), session.turn_of(Some(0))), (Turn::Again, Turn::Over));
        session.handle(Some(2));
        assert_eq!((session.turn_of(Some(1)), session.turn_of(Some(2))), (Turn::Over, Turn::Over));
    }

    #[test]
    fn a_request_that_is_kept_may_be_sent_again() {
        let mut session = session();
        assert_eq!(session.keep(early(2)), Ok(None));
        let again = Early { request_id: Some(request_id(9)), body: "another".into(), ..early(2) };
        assert_eq!(session.keep(again), Ok(Some(request_id(2))));
        session.handle(Some(1));
        let kept = session.next_kept().unwrap();
        assert_eq!((kept.request_id, &*kept.body), (Some(request_id(9)), "2"));
    }

    #[test]
    fn only_so_many_requests_are_kept() {
        let mut session = session();
        for seq in 0..HTTP_EARLY_REQUESTS_MAX as u64 {
            assert_eq!(session.keep(early(seq + 2)), Ok(None));
        }
        assert_eq!(session.keep(early(1000)), Err(TooManyEarly));
        assert_eq!(session.forget_kept().count(), HTTP_EARLY_REQUESTS_MAX);
        assert_eq!(session.gap_since(), None);
    }

    #[test]
    fn the_largest_place_is_the_last() {
        let mut session = session();
        session.handle(Some(u64::MAX - 1));
        assert_eq!(session.turn_of(Some(u64::MAX)), Turn::Now);
        session.handle(Some(u64::MAX));
        assert_eq!(session.turn_of(Some(u64::MAX)), Turn::Now, "nobody counts so far");
    }

    #[test]
    fn what_a_connection_took_with_it_is_known() {
        let mut session = session();
        session.outlet = Outlet::Poll(request_id(1));
        assert_eq!(session.keep(early(2)), Ok(None));
        assert_eq!((session.lose(request_id(2)), session.lose(request_id(2))), (Lost::Early, Lost::Nothing));
        assert_eq!(session.lose(request_id(1)), Lost::Poll);
        assert_eq!(session.lose(request_id(1)), Lost::Nothing);
        session.outlet = Outlet::Stream(request_id(3));
        assert_eq!(session.lose(request_id(3)), Lost::Stream);
        session.handle(Some(1));
        assert_eq!(session.next_kept().map(|early| early.request_id), Some(None), "its events count");
    }
}
