//! The HTTP sessions of a shard, and the responses that wait for connections of this shard.

pub(super) mod messages;
pub(super) mod refusal;
pub(super) mod session;

use crate::limits::{SESSIONS_UNUSED_MAX, SESSIONS_UNUSED_OF_SHARD_MIN};
use crate::protocol::http::Sid;
use crate::qev::pairs::{PairTable, Secret, TableSlot};
use crate::qev::shrink::shrink;
use crate::qev::slots::Slots;
use crate::shard::addresses::ShareUse;
use crate::shard::connection::Transport;
use crate::shard::connections::Connections;
use ahash::{AHashMap, RandomState};
use messages::{PendingResponse, RequestId};
use session::HttpSession;

/// The connection that created a session. It may live on another shard, and may have ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(in crate::shard) struct Creator {
    shard: u16,
    connection: u32,
    generation: u32,
}

impl Creator {
    /// The connection that has this request.
    pub fn of(request_id: RequestId) -> Creator {
        let RequestId { shard, connection, generation, .. } = request_id;
        Creator { shard, connection, generation }
    }
}

/// The sessions of a shard.
///
/// A session's connection is a record among the shard's connections, without a socket. Invariants:
/// - each session has a connection that names it, and `by_sid` names that connection;
/// - each connection without a socket names a session;
/// - each session in `unused` exists, and `by_creator` has the number of them for each creator, which is at most
///   `unused_max`;
/// - between turns no response waits, and every connection that has brought a request was examined.
pub(in crate::shard) struct Sessions {
    sessions: Slots<HttpSession>,
    /// The slot of each session's connection, by 32 bits of the hash of its sid.
    by_sid: PairTable,
    hasher: RandomState,
    secret: Secret,
    /// The sessions that had no second request, with their creators. Those of peers that carry many clients are not here.
    unused: AHashMap<u32, Creator>,
    /// The number of sessions in `unused` of each creator.
    by_creator: AHashMap<Creator, usize>,
    /// The most sessions in `unused` that a creator may have.
    unused_max: usize,
    /// Responses to requests of this shard's own connections. Like those from other shards they are delivered in a
    /// step of their own: while a request is dispatched, the codec of its connection is borrowed.
    responses: Vec<(RequestId, PendingResponse)>,
    /// Connections of this shard that have brought a request in this turn, by slot and generation.
    asking: Vec<(u32, u32)>,
}

impl Sessions {
    /// No sessions. The shard is one of `shards`.
    pub fn new(shards: usize) -> Sessions {
        let hasher = RandomState::new();
        let secret = Secret::new(&hasher);
        Sessions {
            sessions: Slots::new(),
            by_sid: PairTable::new(),
            hasher,
            secret,
            unused: AHashMap::new(),
            by_creator: AHashMap::new(),
            unused_max: (SESSIONS_UNUSED_MAX / shards).max(SESSIONS_UNUSED_OF_SHARD_MIN),
            responses: Vec::new(),
            asking: Vec::new(),
        }
    }

    /// The number of sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Adds a session; returns its number.
    pub fn insert(&mut self, sid: Sid) -> u32 {
        self.sessions.insert(HttpSession::new(sid)) as u32
    }

    /// Returns how much of its sessions without a second request a connection has.
    pub fn share_of(&self, creator: Creator) -> ShareUse {
        let unused = self.by_creator.get(&creator).copied().unwrap_or_default();
        if unused >= self.unused_max {
            ShareUse::Full
        } else if unused >= self.unused_max / 2 {
            ShareUse::High
        } else {
            ShareUse::Low
        }
    }

    /// Notes that a session that was just added has had one request, from this connection.
    pub fn set_unused(&mut self, session: u32, creator: Creator) {
        let before = self.unused.insert(session, creator);
        assert!(before.is_none(), "a session is created once");
        *self.by_creator.entry(creator).or_default() += 1;
    }

    /// Notes that a session has a second request.
    pub fn set_used(&mut self, transport: Transport) {
        self.of_mut(transport).is_on_trial = false;
        self.forget_unused(index(transport) as u32);
    }

    /// Lets a session end early if it has no second request, and had none until now; returns whether that is so.
    pub fn try_unused(&mut self, transport: Transport) -> bool {
        let is_unused = self.unused.contains_key(&(index(transport) as u32));
        self.of_mut(transport).is_on_trial = is_unused;
        is_unused
    }

    fn forget_unused(&mut self, session: u32) {
        let Some(creator) = self.unused.remove(&session) else { return };
        shrink(&mut self.unused);
        let unused = self.by_creator.get_mut(&creator).expect("each unused session counts for its creator");
        *unused -= 1;
        if *unused == 0 {
            self.by_creator.remove(&creator);
            shrink(&mut self.by_creator);
        }
    }

    /// Names the connection of a session that was just added.
    pub fn set_connection(&mut self, sid: Sid, slot: u32, connections: &Connections) {
        assert!(self.find(sid, connections).is_none(), "a sid names one session");
        self.by_sid.insert(self.secret, TableSlot::new(self.tag(sid), slot));
    }

    /// Removes a session, which has ended. Its connection has this slot.
    pub fn remove(&mut self, session: u32, slot: u32) {
        self.forget_unused(session);
        let session = self.sessions.remove(session as usize).expect("a session ends once");
        let named = self.by_sid.find(self.secret, self.tag(session.sid), |named| named == slot);
        self.by_sid.remove(self.secret, named.expect("a sid names the connection of its session"));
    }

    /// The slot of the connection of the session with this sid.
    pub fn find(&self, sid: Sid, connections: &Connections) -> Option<u32> {
        let is_named = |slot| self.of(connections.live(slot).transport()).sid == sid;
        let at = self.by_sid.find(self.secret, self.tag(sid), is_named)?;
        Some(self.by_sid.value(at))
    }

    fn tag(&self, sid: Sid) -> u32 {
        self.hasher.hash_one(sid) as u32
    }

    /// The session of a connection that has not ended.
    ///
    /// # Panics
    ///
    /// The connection does not belong to a session.
    #[track_caller]
    pub fn of(&self, transport: Transport) -> &HttpSession {
        let index = index(transport);
        self.sessions.get(index).unwrap_or_else(|| panic!("slot {index} must hold a session"))
    }

    /// Returns a mutable reference to the session; see [`Sessions::of`].
    #[track_caller]
    pub fn of_mut(&mut self, transport: Transport) -> &mut HttpSession {
        let index = index(transport);
        self.sessions.get_mut(index).unwrap_or_else(|| panic!("slot {index} must hold a session"))
    }

    /// Notes that a connection of this shard has brought a request.
    pub fn asks(&mut self, slot: u32, generation: u32) {
        self.asking.push((slot, generation));
    }

    /// Takes a connection that has brought a request since this was last asked.
    pub fn pop_asking(&mut self) -> Option<(u32, u32)> {
        self.asking.pop()
    }

    /// Keeps a response for a connection of this shard.
    pub fn respond_later(&mut self, request_id: RequestId, response: PendingResponse) {
        self.responses.push((request_id, response));
    }

    /// Returns whether a response waits.
    pub fn has_responses(&self) -> bool {
        !self.responses.is_empty()
    }

    /// Takes the responses that wait. Return the list by [`Sessions::reuse`] once it is empty.
    pub fn take_responses(&mut self) -> Vec<(RequestId, PendingResponse)> {
        std::mem::take(&mut self.responses)
    }

    /// Keeps the memory of a list of responses, unless more responses have been added since.
    pub fn reuse(&mut self, responses: Vec<(RequestId, PendingResponse)>) {
        debug_assert!(responses.is_empty(), "every response must be delivered");
        if self.responses.is_empty() {
            self.responses = responses;
        }
    }

    /// The memory of the requests that all sessions keep, in bytes. Linear in the number of sessions.
    pub fn kept_bytes(&self) -> u64 {
        self.sessions.iter().map(|(_, session)| session.kept_bytes() as u64).sum()
    }

    /// Asserts the invariants. Linear in the number of connections.
    pub fn check(&self, connections: &Connections) {
        assert!(self.responses.is_empty(), "a response was left over by its turn");
        assert!(self.asking.is_empty(), "a request was left over by its turn");
        self.by_sid.check(self.secret);
        assert_eq!(self.by_sid.len(), self.sessions.len(), "each session has a sid");
        let mut named = 0;
        for (slot, connection) in connections.iter() {
            let Transport::HttpSession(session) = connection.transport() else { continue };
            let session = self.sessions.get(session as usize);
            let sid = session.unwrap_or_else(|| panic!("connection {slot} names no session")).sid;
            let found = self.by_sid.find(self.secret, self.tag(sid), |named| named == slot);
            assert!(found.is_some(), "the connection of a session");
            named += 1;
        }
        assert_eq!(named, self.sessions.len(), "each session has a connection");
        let mut by_creator: AHashMap<Creator, usize> = AHashMap::new();
        for (session, creator) in &self.unused {
            assert!(self.sessions.get(*session as usize).is_some(), "an unused session has ended");
            *by_creator.entry(*creator).or_default() += 1;
        }
        assert_eq!(by_creator, self.by_creator, "the unused sessions of each creator");
        assert!(
            self.by_creator.values().all(|unused| *unused <= self.unused_max),
            "too many unused sessions"
        );
    }
}

#[track_caller]
fn index(transport: Transport) -> usize {
    match transport {
        Transport::HttpSession(session) => session as usize,
        Transport::Socket(_) => panic!("a connection with a socket has no session"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qev::ring::PeerAddress;
    use crate::shard::connection::{Connection, Moment};
    use messages::ResponsePart;

    /// A session and its connection.
    fn one() -> (Sessions, Connections) {
        let (mut sessions, mut connections) = (Sessions::new(2), Connections::new(0, 1000));
        let session = sessions.insert(Sid::from(7));
        let connection = Connection::of_session(session, PeerAddress::UNIX, 1, Moment::default());
        let slot = connections.insert(connection);
        sessions.set_connection(Sid::from(7), slot, &connections);
        (sessions, connections)
    }

    #[test]
    fn a_session_is_found_until_it_is_removed() {
        let (mut sessions, connections) = one();
        sessions.check(&connections);
        assert_eq!((sessions.find(Sid::from(7), &connections), sessions.len()), (Some(0), 1));
        sessions.remove(0, 0);
        assert_eq!((sessions.find(Sid::from(7), &connections), sessions.len()), (None, 0));
    }

    fn creator(connection: u32) -> Creator {
        Creator::of(RequestId { shard: 1, connection, generation: 1, number: 0 })
    }

    #[test]
    fn a_connection_has_few_sessions_without_a_second_request() {
        let (mut sessions, mut connections) = one();
        let mut add = |sessions: &mut Sessions, creator| {
            let number = sessions.len() as u128 + 100;
            let session = sessions.insert(Sid::from(number));
            let connection = Connection::of_session(session, PeerAddress::UNIX, 1, Moment::default());
            let slot = connections.insert(connection);
            sessions.set_connection(Sid::from(number), slot, &connections);
            sessions.set_unused(session, creator);
            sessions.check(&connections);
            session
        };
        let max = SESSIONS_UNUSED_MAX / 2;
        assert_eq!(sessions.share_of(creator(1)), ShareUse::Low);
        let first = add(&mut sessions, creator(1));
        for _ in 2..=max / 2 {
            add(&mut sessions, creator(1));
        }
        assert_eq!(sessions.share_of(creator(1)), ShareUse::High);
        for _ in max / 2..max {
            add(&mut sessions, creator(1));
        }
        assert_eq!(sessions.share_of(creator(1)), ShareUse::Full);
        assert_eq!(sessions.share_of(creator(2)), ShareUse::Low);
        sessions.set_used(Transport::HttpSession(first));
        sessions.set_used(Transport::HttpSession(first));
        assert_eq!(sessions.share_of(creator(1)), ShareUse::High, "one of them had a second request");
        sessions.remove(first + 1, first + 1);
        assert_eq!(sessions.unused.len(), max - 2);
    }

    #[test]
    #[should_panic(expected = "the unused sessions of each creator")]
    fn the_check_finds_an_unused_session_that_is_not_counted() {
        let (mut sessions, connections) = one();
        sessions.unused.insert(0, creator(1));
        sessions.check(&connections);
    }

    #[test]
    #[should_panic(expected = "a response was left over by its turn")]
    fn the_check_finds_a_response_that_was_left_over() {
        let (mut sessions, connections) = one();
        let request_id = RequestId { shard: 0, connection: 0, generation: 1, number: 1 };
        sessions.respond_later(request_id, PendingResponse::Part(ResponsePart::End));
        sessions.check(&connections);
    }

    #[test]
    #[should_panic(expected = "each session has a sid")]
    fn the_check_finds_a_session_that_no_sid_names() {
        let (mut sessions, connections) = one();
        sessions.by_sid = PairTable::new();
        sessions.check(&connections);
    }

    #[test]
    #[should_panic(expected = "the connection of a session")]
    fn the_check_finds_a_sid_that_names_another_connection() {
        let (mut sessions, connections) = one();
        let at = sessions.by_sid.find(sessions.secret, sessions.tag(Sid::from(7)), |_| true).unwrap();
        sessions.by_sid.set(at, 1);
        sessions.check(&connections);
    }

    #[test]
    #[should_panic(expected = "each session has a connection")]
    fn the_check_finds_a_session_without_a_connection() {
        let (mut sessions, connections) = one();
        sessions.insert(Sid::from(8));
        let pair = TableSlot::new(sessions.tag(Sid::from(8)), 1);
        sessions.by_sid.insert(sessions.secret, pair);
        sessions.check(&connections);
    }

    #[test]
    #[should_panic(expected = "connection 0 names no session")]
    fn the_check_finds_a_connection_without_a_session() {
        let (mut sessions, connections) = one();
        sessions.remove(0, 0);
        sessions.check(&connections);
    }

    #[test]
    #[should_panic(expected = "a sid names one session")]
    fn a_sid_cannot_be_given_to_a_second_session() {
        let (mut sessions, connections) = one();
        sessions.set_connection(Sid::from(7), 1, &connections);
    }

    #[test]
    #[should_panic(expected = "a session ends once")]
    fn a_session_cannot_be_removed_twice() {
        let (mut sessions, _) = one();
        sessions.remove(0, 0);
        sessions.remove(0, 0);
    }
}
