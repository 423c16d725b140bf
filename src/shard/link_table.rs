//! The shard's ends of the links to workers, and the places of the ring that they use.

use super::connection::Input;
use super::kernel::{FIRST_LINK_TOKEN, Owner};
use crate::app::worker::{WorkerGroup, WorkerLink};
use crate::metrics::{Gauge, Gauges};
use crate::qev::mesh::LoadSource;
use crate::qev::ring::{Descriptor, SendId, Token};
use std::rc::Rc;

/// The links of a shard.
///
/// Invariants:
/// - each reserved place of the ring is used by one link or is free;
/// - a link has an operation in flight, and is removed as soon as it has none;
/// - a link whose send may stall, or whose worker has ended, is checked again later.
pub(super) struct Links {
    ends: Vec<Option<LinkEnd>>,
    /// Reserved places of the ring that no link uses.
    free: Vec<u32>,
    /// The number of reserved places.
    places: u32,
    /// `true` if the timer after which the links are checked is set.
    check_is_due: bool,
}

/// The shard's end of a link, and the operations on its socket that are in flight.
pub(super) struct LinkEnd {
    pub link: Rc<WorkerLink>,
    pub group: Rc<WorkerGroup>,
    pub app: u32,
    /// The socket's place in the ring.
    pub place: u32,
    pub input: Input,
    /// The send that is in flight.
    pub send: Option<SendId>,
    /// `true` if the shutdown that tells the worker that nothing more will be sent is in flight.
    pub shutting_down: bool,
    /// `true` if that shutdown has completed.
    pub is_shut_down: bool,
    /// When the send that is in flight was submitted, or made progress.
    pub sent_ms: u64,
    /// When the worker's process ended.
    pub left_ms: Option<u64>,
}

impl LinkEnd {
    /// Creates an end whose receive is armed.
    pub fn new(link: Rc<WorkerLink>, group: Rc<WorkerGroup>, app: u32, place: u32) -> LinkEnd {
        LinkEnd {
            link,
            group,
            app,
            place,
            input: Input::Armed,
            send: None,
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

    /// Returns whether an operation on the socket is in flight, or will be when the shard listens to the worker again.
    pub fn is_in_flight(&self) -> bool {
        self.input != Input::Ended || self.send.is_some() || self.shutting_down
    }

    /// Returns whether the worker may still send frames.
    pub fn is_open(&self) -> bool {
        self.input != Input::Ended
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

    /// Frees a place.
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

    /// The indexes of the links whose worker's process has ended.
    pub fn left(&self) -> impl Iterator<Item = u32> {
        let ends = (0..).zip(&self.ends);
        ends.filter(|(_, end)| end.as_ref().is_some_and(|end| end.left_ms.is_some())).map(|(index, _)| index)
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
        self.iter().all(|end| end.is_shut_down || !end.is_open())
    }

    /// Returns whether a worker has so much unread input that it must not be sent more ends of clients now.
    pub fn are_full(&self) -> bool {
        self.iter().any(|end| end.is_open() && end.link.is_full())
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
            let needs_check = end.is_open() && (end.send.is_some() || end.left_ms.is_some());
            assert!(!needs_check || self.check_is_due, "a link has to be checked, but no timer is set");
            end.link.check();
        }
    }
}

/// A link as a source of messages to other shards. No connection has a generation of 0, and these sources have no other.
pub(super) fn source_of_link(index: u32) -> LoadSource {
    LoadSource(u64::from(token(index)))
}

/// The index of the link that is a source, if the source is a link.
pub(super) fn link_of_source(source: LoadSource) -> Option<u32> {
    match u32::try_from(source.0).map(Owner::of) {
        Ok(Owner::Link(index)) => Some(index),
        Ok(Owner::Connection(_)) | Err(_) => None,
    }
}

/// The token of a link's operations.
pub(super) fn token(index: u32) -> Token {
    FIRST_LINK_TOKEN + index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::worker::{Instance, LinkLimits, Manifest, SupervisorHandle};
    use std::sync::Arc;
    use std::time::Duration;

    struct Nobody;

    impl SupervisorHandle for Nobody {
        fn report_broken(&self, _: u32, _: &str) {}
        fn report_link_end(&self, _: u32) {}
    }

    const LIMITS: LinkLimits = LinkLimits {
        requests_max: 1,
        outbox_bytes_max: 1,
        unread_bytes_max: 1,
        request_timeout: Duration::from_secs(1),
    };

    /// Three places, the first of which has a link.
    fn one() -> Links {
        let manifest: Arc<Manifest> = Arc::new(serde_json::from_str(r#"{"version":1,"events":[]}"#).unwrap());
        let supervisor: Arc<dyn SupervisorHandle> = Arc::new(Nobody);
        let group = WorkerGroup::new("app".into(), 0, 1, LIMITS, Arc::clone(&supervisor));
        let counters = Default::default();
        let instance = Instance::new(&LIMITS, Rc::clone(&counters));
        let link = WorkerLink::new(1, &instance, "app#0".into(), manifest, LIMITS, supervisor, counters);
        let mut links = Links::new(3);
        let place = links.take_place().unwrap();
        assert_eq!(links.insert(LinkEnd::new(link, group, 0, place)), FIRST_LINK_TOKEN);
        links
    }

    #[test]
    fn a_place_is_free_again_when_its_link_is_removed() {
        let mut links = one();
        links.check();
        links.live_mut(0).input = Input::Ended;
        assert_eq!(links.remove(0), 0);
        links.check();
        assert_eq!(links.take_place(), Some(0));
    }

    #[test]
    #[should_panic(expected = "places of links: [0, 0, 1, 2] of 3")]
    fn the_check_finds_a_place_that_is_used_and_free() {
        let mut links = one();
        links.free_place(0);
        links.check();
    }

    #[test]
    #[should_panic(expected = "places of links: [0, 1] of 3")]
    fn the_check_finds_a_place_that_was_lost() {
        let mut links = one();
        links.free.remove(0);
        links.check();
    }

    #[test]
    #[should_panic(expected = "a link from which nothing is in flight was not removed")]
    fn the_check_finds_a_link_that_was_not_removed() {
        let mut links = one();
        links.live_mut(0).input = Input::Ended;
        links.check();
    }

    #[test]
    #[should_panic(expected = "a link has to be checked, but no timer is set")]
    fn the_check_finds_a_send_that_may_stall_unseen() {
        let mut links = one();
        links.live_mut(0).send = Some(SendId::at(0));
        links.check();
    }

    #[test]
    #[should_panic(expected = "a link has to be checked, but no timer is set")]
    fn the_check_finds_a_link_that_may_outlive_its_worker_for_ever() {
        let mut links = one();
        links.live_mut(0).left_ms = Some(0);
        links.check();
    }

    #[test]
    #[should_panic(expected = "link 0 was removed with an operation in flight")]
    fn a_link_is_not_removed_while_something_is_in_flight() {
        one().remove(0);
    }

    #[test]
    #[should_panic(expected = "index 1 must hold a link")]
    fn a_completion_belongs_to_a_link() {
        one().live_mut(1);
    }
}
