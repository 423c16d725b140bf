//! The HTTP sessions of a shard, and the responses that wait for connections of this shard.

pub(super) mod messages;
pub(super) mod session;

use crate::protocol::http::Sid;
use crate::qev::slots::Slots;
use crate::shard::codecs::Codecs;
use crate::shard::connection::{Stage, Transport};
use crate::shard::connections::Connections;
use ahash::AHashMap;
use messages::{PendingResponse, RequestId};
use session::HttpSession;

/// The sessions of a shard.
///
/// A session's connection is a record among the shard's connections, without a socket. Invariants:
/// - each session that has not ended has a connection that names it, and `by_sid` names that connection;
/// - between turns no response waits.
#[derive(Default)]
pub(in crate::shard) struct Sessions {
    sessions: Slots<HttpSession>,
    /// The slot of each session's connection.
    by_sid: AHashMap<Sid, u32>,
    /// Responses to requests of this shard's own connections. Like those from other shards they are delivered in a step of
    /// their own: while a request is dispatched, the codec of its connection is borrowed.
    responses: Vec<(RequestId, PendingResponse)>,
}

impl Sessions {
    /// The number of sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Adds a session; returns its number.
    pub fn insert(&mut self, sid: Sid) -> u32 {
        self.sessions.insert(HttpSession::new(sid)) as u32
    }

    /// Names the connection of a session that was just added.
    pub fn set_connection(&mut self, sid: Sid, slot: u32) {
        let before = self.by_sid.insert(sid, slot);
        assert!(before.is_none(), "a sid names one session");
    }

    /// Removes a session, which has ended.
    pub fn remove(&mut self, session: u32) {
        let session = self.sessions.remove(session as usize).expect("a session ends once");
        self.by_sid.remove(&session.sid);
    }

    /// The slot of the connection of the session with this sid.
    pub fn find(&self, sid: Sid) -> Option<u32> {
        self.by_sid.get(&sid).copied()
    }

    /// The session of a connection that has not ended.
    ///
    /// # Panics
    ///
    /// The connection is no session's.
    #[track_caller]
    pub fn of(&self, transport: Transport) -> &HttpSession {
        let index = index(transport);
        self.sessions.get(index).unwrap_or_else(|| panic!("slot {index} must hold a session"))
    }

    /// As [`Sessions::of`], to be changed.
    #[track_caller]
    pub fn of_mut(&mut self, transport: Transport) -> &mut HttpSession {
        let index = index(transport);
        self.sessions.get_mut(index).unwrap_or_else(|| panic!("slot {index} must hold a session"))
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

    /// Keeps the memory of a list of responses, unless more of them have come meanwhile.
    pub fn reuse(&mut self, responses: Vec<(RequestId, PendingResponse)>) {
        debug_assert!(responses.is_empty(), "every response must be delivered");
        if self.responses.is_empty() {
            self.responses = responses;
        }
    }

    /// Asserts the invariants. Linear in the number of connections.
    pub fn check(&self, connections: &Connections, codecs: &Codecs) {
        assert!(self.responses.is_empty(), "a response was left over by its turn");
        assert_eq!(self.by_sid.len(), self.sessions.len(), "each session has a sid");
        let mut alive = 0;
        for (slot, connection) in connections.iter() {
            let Transport::HttpSession(session) = connection.transport else { continue };
            codecs.check_ended(slot);
            if connection.stage != Stage::Dead {
                let session = self.sessions.get(session as usize);
                let sid = session.unwrap_or_else(|| panic!("connection {slot} names no session")).sid;
                assert_eq!(self.by_sid.get(&sid), Some(&slot), "the connection of a session");
                alive += 1;
            }
        }
        assert_eq!(alive, self.sessions.len(), "each session has a connection");
    }
}

#[track_caller]
fn index(transport: Transport) -> usize {
    match transport {
        Transport::HttpSession(session) => session as usize,
        Transport::Socket(_) => panic!("a connection with a socket has no session"),
    }
}
