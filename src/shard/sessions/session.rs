//! The rules of one HTTP session, without sockets and clients: the order in which its requests are handled, and which
//! of them gets its output (protocol.md, section 5).
//!
//! ```text
//!              a request                      output, another request, or time
//!   Nothing ---------------> Poll (held) ---------------------------------------> Nothing
//!      |                        |
//!      +------------------------+--- a stream ---> Stream ---> the session's end
//!                                                    |                ^
//!                                                    +---> Left ------+
//! ```

use super::messages::RequestId;
use crate::limits::HTTP_EARLY_REQUESTS_MAX;
use crate::protocol::http::{Sid, lines};
use crate::shard::connection::Moment;

/// The destination of a session's output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Outlet {
    /// Output waits for the next request.
    Nothing,
    /// Output goes to the request that is held.
    Poll(RequestId),
    /// Output goes to the stream that is open.
    Stream(RequestId),
    /// Output is dropped: the stream was broken off, and the client can only send its last events.
    Left,
}

/// The state of a session, beyond the record of its connection.
pub(in crate::shard) struct HttpSession {
    pub sid: Sid,
    pub outlet: Outlet,
    /// The `seq` of the next request that has one.
    next_seq: u64,
    /// `true` if the session takes requests for a moment when its stream is broken off.
    lingers: bool,
    /// `true` if the last held request lost its connection, in which case the client may repeat the request.
    lost: bool,
    /// `true` if the session ends early unless it has a second request.
    pub is_on_trial: bool,
    /// The request that is held, or was held last.
    wait: PollWait,
    /// Requests that must wait until others have been handled, in the order of their arrival, if there are any.
    #[expect(clippy::box_collection, reason = "few sessions have such requests: 8 bytes, not 24")]
    early: Option<Box<Vec<EarlyRequest>>>,
}

/// The kind of the request that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PollWait {
    /// A request without events, which only waits for output.
    NoEvents,
    /// A request with events, which waits for their answers.
    Events,
    /// A request with events whose peer sends nothing more.
    Hurried,
}

/// A request that has arrived before others that must be handled first.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::shard) struct EarlyRequest {
    pub seq: u64,
    pub arrived: Moment,
    /// `None` if its connection has been lost. Its events are handled nevertheless.
    pub request_id: Option<RequestId>,
    pub host: Box<str>,
    pub body: Box<str>,
    /// `true` if the session ends after this request.
    pub close: bool,
    /// `true` if the request has events and its peer sends nothing more.
    pub hurried: bool,
}

/// The decision when a request is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum RequestTurn {
    /// Immediately.
    Now,
    /// After others that have not arrived yet.
    Later,
    /// Never, but it gets output: it repeats the request that is held, or that was held until its connection was lost.
    /// The events of that request were handled, and it got no output yet.
    Repeated,
    /// Never: it was handled and answered.
    Over,
}

/// The error of a request that exceeds the number of requests that may wait for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) struct TooManyEarly;

/// A request that is waited for although its peer sends nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Hurried {
    /// The request that is held. It had events, whose answers it waits for.
    Held,
    /// A request with events that has arrived too early. It is handled in its turn.
    Early,
    /// No request: it had no events, or was answered, or asks for a stream.
    Nothing,
}

/// The item that was lost with a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Lost {
    /// The request that was held. Output waits for the next one.
    Poll,
    /// The stream, with the output in flight on it.
    Stream,
    /// The stream, as above. The session takes requests for a moment.
    LingeringStream,
    /// A request that had arrived too early. Its events will be handled nevertheless.
    Early,
    /// Nothing: every request on it had been answered.
    Nothing,
}

impl EarlyRequest {
    /// Returns the memory of the texts, in bytes.
    pub fn text_bytes(&self) -> usize {
        self.host.len() + self.body.len()
    }

    /// Notes that the peer of the request sends nothing more; returns whether the request has events.
    pub fn hurry(&mut self) -> bool {
        self.hurried = lines(&self.body).next().is_some();
        self.hurried
    }
}

impl HttpSession {
    /// Creates a session that has had no request.
    pub fn new(sid: Sid) -> HttpSession {
        HttpSession {
            sid,
            outlet: Outlet::Nothing,
            next_seq: 1,
            lingers: false,
            lost: false,
            is_on_trial: false,
            wait: PollWait::NoEvents,
            early: None,
        }
    }

    /// Returns when a request with this `seq`, or without one, is to be handled.
    pub fn turn_of(&self, seq: Option<u64>) -> RequestTurn {
        let Some(seq) = seq else { return RequestTurn::Now };
        if seq == self.next_seq {
            RequestTurn::Now
        } else if seq > self.next_seq {
            RequestTurn::Later
        } else {
            let is_the_last = seq + 1 == self.next_seq;
            match self.outlet {
                Outlet::Poll(_) if is_the_last => RequestTurn::Repeated,
                Outlet::Nothing if is_the_last && self.lost => RequestTurn::Repeated,
                _ => RequestTurn::Over,
            }
        }
    }

    /// Notes that a request with this `seq`, or without one, is being handled.
    pub fn begin(&mut self, seq: Option<u64>) {
        self.lost = false;
        if let Some(seq) = seq {
            self.next_seq = seq.saturating_add(1);
        }
    }

    /// Sends output over a stream from now on; returns where it went before. `lingers`: if the stream is broken off, the
    /// session takes requests for a moment.
    pub fn stream(&mut self, request_id: RequestId, lingers: bool) -> Outlet {
        self.lingers = lingers;
        std::mem::replace(&mut self.outlet, Outlet::Stream(request_id))
    }

    /// Notes that a request was handled and begins to wait for output. `has_events`: it had events.
    pub fn begin_wait(&mut self, has_events: bool) {
        self.wait = if has_events { PollWait::Events } else { PollWait::NoEvents };
    }

    /// Notes that the peer of a request sends nothing more; returns whether the request is waited for.
    pub fn hurry(&mut self, request_id: RequestId) -> Hurried {
        if self.outlet == Outlet::Poll(request_id) && self.wait != PollWait::NoEvents {
            self.wait = PollWait::Hurried;
            return Hurried::Held;
        }
        let mut early = self.early_mut().iter_mut().filter(|early| early.request_id == Some(request_id));
        if early.any(EarlyRequest::hurry) { Hurried::Early } else { Hurried::Nothing }
    }

    /// Returns whether the peer of the request that is held sends nothing more.
    pub fn is_hurried(&self) -> bool {
        self.wait == PollWait::Hurried
    }

    /// Keeps a request until those before it have been handled. If the same request had arrived before, on a
    /// connection that is broken now, returns the earlier arrival, which must be completed instead.
    pub fn keep(&mut self, request: EarlyRequest) -> Result<Option<RequestId>, TooManyEarly> {
        if let Some(same) = self.early_mut().iter_mut().find(|early| early.seq == request.seq) {
            return Ok(std::mem::replace(&mut same.request_id, request.request_id));
        }
        let early = self.early.get_or_insert_default();
        if early.len() == HTTP_EARLY_REQUESTS_MAX {
            return Err(TooManyEarly);
        }
        early.push(request);
        Ok(None)
    }

    /// Returns the memory of the requests that are kept, in bytes.
    pub fn kept_bytes(&self) -> usize {
        self.early.as_deref().map_or(0, |kept| {
            let texts: usize = kept.iter().map(EarlyRequest::text_bytes).sum();
            size_of::<Vec<EarlyRequest>>() + kept.capacity() * size_of::<EarlyRequest>() + texts
        })
    }

    fn early_mut(&mut self) -> &mut [EarlyRequest] {
        self.early.as_mut().map_or(&mut [], |early| early)
    }

    /// Takes the request that must be handled next, if it is among those that were kept.
    pub fn next_kept(&mut self) -> Option<EarlyRequest> {
        let kept = self.early.as_mut()?;
        let at = kept.iter().position(|early| early.seq == self.next_seq)?;
        let early = kept.remove(at);
        if kept.is_empty() {
            self.early = None;
        }
        Some(early)
    }

    /// Holds a request that repeats the one that was held before; returns the earlier one, if it is still held.
    pub fn hold_again(&mut self, request_id: RequestId) -> Option<RequestId> {
        self.lost = false;
        if self.is_hurried() {
            self.wait = PollWait::Events;
        }
        match std::mem::replace(&mut self.outlet, Outlet::Poll(request_id)) {
            Outlet::Poll(before) => Some(before),
            Outlet::Nothing | Outlet::Stream(_) | Outlet::Left => None,
        }
    }

    /// The time since which requests have waited for one that has not arrived, or `None` if none waits.
    pub fn gap_since(&self) -> Option<Moment> {
        self.early.as_ref()?.first().map(|early| early.arrived)
    }

    /// Notes that a request's connection has been lost; returns what was lost with it.
    pub fn lose(&mut self, request_id: RequestId) -> Lost {
        let lost = match self.outlet {
            Outlet::Poll(held) if held == request_id => Lost::Poll,
            Outlet::Stream(open) if open == request_id => Lost::Stream,
            _ => Lost::Nothing,
        };
        if lost == Lost::Stream && self.lingers {
            self.outlet = Outlet::Left;
            return Lost::LingeringStream;
        }
        if lost != Lost::Nothing {
            self.outlet = Outlet::Nothing;
            self.lost = lost == Lost::Poll;
            return lost;
        }
        match self.early_mut().iter_mut().find(|early| early.request_id == Some(request_id)) {
            Some(early) => {
                early.request_id = None;
                Lost::Early
            }
            None => Lost::Nothing,
        }
    }

    /// Drops the requests that were kept; returns those that still wait for a response.
    pub fn forget_kept(&mut self) -> impl Iterator<Item = RequestId> + use<> {
        std::mem::take(&mut self.early)
            .into_iter()
            .flat_map(|kept| *kept)
            .filter_map(|early| early.request_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_id(number: u32) -> RequestId {
        RequestId { shard: 0, connection: 1, generation: 1, number }
    }

    fn early(seq: u64) -> EarlyRequest {
        EarlyRequest {
            seq,
            arrived: Moment::at(seq),
            request_id: Some(request_id(seq as u32)),
            host: "".into(),
            body: seq.to_string().into(),
            close: false,
            hurried: false,
        }
    }

    fn session() -> HttpSession {
        HttpSession::new(Sid::from(7))
    }

    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Option<HttpSession>>() <= 56, "{}", size_of::<Option<HttpSession>>());
    }

    #[test]
    fn requests_without_a_place_are_handled_as_they_come() {
        let mut session = session();
        for _ in 0..3 {
            assert_eq!(session.turn_of(None), RequestTurn::Now);
            session.begin(None);
        }
        assert_eq!(session.turn_of(Some(1)), RequestTurn::Now, "they are not counted");
    }

    #[test]
    fn requests_with_a_place_are_handled_in_order() {
        let mut session = session();
        for seq in [3, 2] {
            assert_eq!(session.turn_of(Some(seq)), RequestTurn::Later);
            assert_eq!(session.keep(early(seq)), Ok(None));
        }
        assert_eq!((session.gap_since(), session.next_kept()), (Some(Moment::at(3)), None));
        assert_eq!(session.turn_of(Some(1)), RequestTurn::Now);
        session.begin(Some(1));
        for seq in [2, 3] {
            assert_eq!(session.next_kept().map(|early| early.seq), Some(seq));
            session.begin(Some(seq));
        }
        assert_eq!((session.gap_since(), session.next_kept()), (None, None));
        assert_eq!(session.turn_of(Some(3)), RequestTurn::Over);
    }

    #[test]
    fn a_request_that_is_held_may_be_sent_again() {
        let mut session = session();
        session.begin(Some(1));
        session.outlet = Outlet::Poll(request_id(0));
        assert_eq!(session.turn_of(Some(1)), RequestTurn::Repeated);
        session.outlet = Outlet::Nothing;
        assert_eq!(session.turn_of(Some(1)), RequestTurn::Over, "it was answered");
        assert_eq!(session.turn_of(Some(0)), RequestTurn::Over);
        // Its connection may be known to be broken before it comes again.
        session.outlet = Outlet::Poll(request_id(0));
        assert_eq!(session.lose(request_id(0)), Lost::Poll);
        assert_eq!(
            (session.turn_of(Some(1)), session.turn_of(Some(0))),
            (RequestTurn::Repeated, RequestTurn::Over)
        );
        session.begin(Some(2));
        assert_eq!(
            (session.turn_of(Some(1)), session.turn_of(Some(2))),
            (RequestTurn::Over, RequestTurn::Over)
        );
    }

    #[test]
    fn a_request_that_is_kept_may_be_sent_again() {
        let mut session = session();
        assert_eq!(session.keep(early(2)), Ok(None));
        let again = EarlyRequest { request_id: Some(request_id(9)), body: "another".into(), ..early(2) };
        assert_eq!(session.keep(again), Ok(Some(request_id(2))));
        session.begin(Some(1));
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
        session.begin(Some(u64::MAX - 1));
        assert_eq!(session.turn_of(Some(u64::MAX)), RequestTurn::Now);
        session.begin(Some(u64::MAX));
        assert_eq!(session.turn_of(Some(u64::MAX)), RequestTurn::Now, "nobody counts so far");
    }

    #[test]
    fn what_a_connection_took_with_it_is_known() {
        let mut session = session();
        session.outlet = Outlet::Poll(request_id(1));
        assert_eq!(session.keep(early(2)), Ok(None));
        assert_eq!((session.lose(request_id(2)), session.lose(request_id(2))), (Lost::Early, Lost::Nothing));
        assert_eq!(session.lose(request_id(1)), Lost::Poll);
        assert_eq!(session.lose(request_id(1)), Lost::Nothing);
        session.stream(request_id(2), true);
        assert_eq!(session.stream(request_id(3), false), Outlet::Stream(request_id(2)));
        assert_eq!(session.lose(request_id(3)), Lost::Stream);
        session.stream(request_id(3), true);
        assert_eq!((session.lose(request_id(3)), session.outlet), (Lost::LingeringStream, Outlet::Left));
        assert_eq!(
            (session.lose(request_id(3)), session.turn_of(Some(1))),
            (Lost::Nothing, RequestTurn::Now)
        );
        session.begin(Some(1));
        assert_eq!(session.next_kept().map(|early| early.request_id), Some(None), "its events count");
    }
}
