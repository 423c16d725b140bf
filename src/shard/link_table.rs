//! The shard's ends of the links to workers, and the places of the ring that they use.

use super::kernel::FIRST_LINK_TOKEN;
use crate::app::worker::{WorkerGroup, WorkerLink};
use crate::metrics::{Gauge, Gauges};
use crate::qev::ring::{Descriptor, Token};
use std::rc::Rc;

/// The links of a shard.
///
/// Invariants: each reserved place of the ring is used by one link or is free; a link is removed only when no operation
/// on its socket is in flight.
pub(super) struct Links {
    ends: Vec<Option<LinkEnd>>,
    /// Reserved places of the ring that no link uses.
    free: Vec<u32>,
    /// The number of reserved places.
    places: u32,
    /// A timer is set after which the links are checked.
    check_is_due: bool,
}

/// The shard's end of a link, and the operations on its socket that are in flight.
pub(super) struct LinkEnd {
    pub link: Rc<WorkerLink>,
    pub group: Rc<WorkerGroup>,
    pub app: u32,
    /// The socket's place in the ring.
    pub place: u32,
    pub receiving: bool,
    pub sending: bool,
    /// The worker is being told that nothing more will be sent.
    pub shutting_down: bool,
    /// The worker has been told so.
    pub is_shut_down: bool,
    /// When the send that is in flight was submitted.
    pub sent_ms: u64,
    /// When the worker's process ended.
    pub left_ms: Option<u64>,
}

impl LinkEnd {
    /// An end whose receive is armed.
    pub fn new(link: Rc<WorkerLink>, group: Rc<WorkerGroup>, app: u32, place: u32) -> LinkEnd {
        LinkEnd {
            link,
            group,
            app,
            place,
            receiving: true,
            sending: false,
            shutting_down: false,
            is_shut_down: false,
            sent_ms: 0,
            left_ms: None,
        }
    }

    /// The socket, by its place.
    pub fn socket(&self) -> Descriptor {
        Descriptor::at(self.place)
    }

    /// Returns whether an operation on the socket is in flight.
    pub fn is_in_flight(&self) -> bool {
        self.receiving || self.sending || self.shutting_down
    }
}

impl Links {
    /// No links, and this many reserved places.
    pub fn new(places: u32) -> Links {
        Links { ends: Vec::new(), free: (0..places).rev().collect(), places, check_is_due: false }
    }

    /// Takes a free place, if there is one.
    pub(super) fn take_place(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives a place back.
    pub(super) fn free_place(&mut self, place: u32) {
        self.free.push(place);
    }

    /// Adds a link; returns the token of its operations.
    pub(super) fn insert(&mut self, end: LinkEnd) -> Token {
        let free = self.ends.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.ends.push(None);
            self.ends.len() - 1
        });
        self.ends[index] = Some(end);
        token(index as u32)
    }

    /// The link that a completion belongs to.
    ///
    /// # Panics
    ///
    /// There is no such link.
    #[track_caller]
    pub(super) fn live_mut(&mut self, index: u32) -> &mut LinkEnd {
        let end = self.ends.get_mut(index as usize).and_then(Option::as_mut);
        end.unwrap_or_else(|| panic!("index {index} must hold a link"))
    }

    /// Removes a link from which nothing is in flight; returns its place, which is free again.
    pub(super) fn remove(&mut self, index: u32) -> u32 {
        let end = self.ends[index as usize].take().expect("the link was just looked at");
        assert!(!end.is_in_flight(), "link {index} was removed with an operation in flight");
        self.free.push(end.place);
        end.place
    }

    /// All links with the tokens of their operations.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Token, &mut LinkEnd)> {
        let ends = self.ends.iter_mut().enumerate();
        ends.filter_map(|(index, end)| end.as_mut().map(|end| (token(index as u32), end)))
    }

    /// Notes that the links have to be checked after a while; returns whether a timer must be set.
    pub(super) fn request_check(&mut self) -> bool {
        !std::mem::replace(&mut self.check_is_due, true)
    }

    /// Notes that the timer has fired.
    pub(super) fn check_begins(&mut self) {
        self.check_is_due = false;
    }

    fn iter(&self) -> impl Iterator<Item = &LinkEnd> {
        self.ends.iter().flatten()
    }

    /// Tells all links that every client has disconnected: nothing more will be sent to any worker.
    pub fn abandon_all(&self) {
        self.iter().for_each(|end| end.link.abandon());
    }

    /// Returns whether all workers have been told that nothing more will be sent.
    pub fn are_shut_down(&self) -> bool {
        self.iter().all(|end| end.is_shut_down || !end.receiving)
    }

    /// Returns whether a worker has so much to read that it must not be told of more disconnected clients now.
    pub fn are_full(&self) -> bool {
        self.iter().any(|end| end.receiving && end.link.is_full())
    }

    /// Adds what is in progress now to the gauges.
    pub fn add_to(&self, gauges: &mut Gauges) {
        for end in self.iter() {
            let (requests, bytes) = end.link.load();
            gauges.add(Gauge::WorkerRequests, requests as u64);
            gauges.add(Gauge::WorkerOutboxBytes, bytes as u64);
            gauges.add(Gauge::WorkerLinks, 1);
        }
    }

    /// Asserts the invariants. Linear in the number of places.
    pub fn check(&self) {
        let mut places: Vec<u32> =
            self.free.iter().copied().chain(self.iter().map(|end| end.place)).collect();
        places.sort_unstable();
        assert!(places.iter().copied().eq(0..self.places), "places of links: {places:?} of {}", self.places);
        for end in self.iter() {
            assert!(end.is_in_flight(), "a link from which nothing is in flight was not removed");
            end.link.check();
        }
    }
}

/// The token of a link's operations.
pub(super) fn token(index: u32) -> Token {
    FIRST_LINK_TOKEN + index
}
