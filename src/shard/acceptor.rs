//! The places of the ring for accepted sockets, and the accepts that are armed for those that are free.
//!
//! An accept takes a connection from the kernel's backlog before it looks for a place. If there is none, the connection
//! is reset. The shard therefore arms no more accepts than it has free places: if all are taken, connections wait in the
//! backlog.

/// The part of all places that accepts in flight may reserve, over all listeners: a listener that nobody connects to
/// keeps its accepts, and others cannot use their places.
const PLACES_PER_ACCEPT: usize = 16;

/// The part of all places that proxies may have connections in that have not brought a request: until then nobody knows
/// for whom they are. Proxies usually connect when they have a request.
const PLACES_PER_SILENT_PROXY: usize = 4;

/// The places of a shard for accepted sockets, and its accepts.
///
/// Invariants:
/// - each place is free, has a socket, or is reserved for an accept in flight: sockets and accepts in flight together
///   are at most the places;
/// - no listener has more than `accepts_max` accepts in flight;
/// - `silent_proxies` is at most a part of the places.
pub(super) struct Acceptor {
    /// The places for accepted sockets. Those that are reserved for links to workers are not among them.
    places: usize,
    /// The sockets that have a place. A socket loses its place as soon as its close is requested, because the ring
    /// executes its operations in order: an accept that is armed later finds the place free.
    sockets: usize,
    /// The sockets of proxies that have not brought a request.
    silent_proxies: usize,
    /// The number of accepts in flight of each listener.
    in_flight: Vec<usize>,
    /// The maximum number of accepts in flight of each listener.
    accepts_max: usize,
    /// The listener that is served first if two have equally few accepts in flight.
    next: usize,
    is_paused: bool,
    /// `true` if the server shuts down.
    has_stopped: bool,
    /// `true` if the timer that ends a pause is set. The timer may outlast the pause.
    timer_is_set: bool,
    /// `true` if [`Acceptor::has_filled`] has told that all places are taken, and none was freed since.
    was_full: bool,
}

impl Acceptor {
    /// Places of which all are free, and no listeners. Each listener will have at most `accepts_max` accepts in flight.
    pub fn new(places: usize, accepts_max: usize) -> Acceptor {
        Acceptor {
            places,
            sockets: 0,
            silent_proxies: 0,
            in_flight: Vec::new(),
            accepts_max,
            next: 0,
            is_paused: false,
            has_stopped: false,
            timer_is_set: false,
            was_full: false,
        }
    }

    /// Begins to accept from this many listeners. Those that nobody connects to keep few places from the others.
    pub fn listen(&mut self, listeners: usize) {
        self.in_flight = vec![0; listeners];
        let share = self.places / PLACES_PER_ACCEPT / listeners.max(1);
        self.accepts_max = share.clamp(1, self.accepts_max);
    }

    /// The number of places.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Returns a listener for which one more accept must be armed now, or `None` if no place is free or every listener
    /// has enough. The listener with the fewest accepts in flight comes first.
    pub fn arm(&mut self) -> Option<usize> {
        if self.is_paused || self.has_stopped || self.free() == 0 {
            return None;
        }
        let listeners = self.in_flight.len();
        let in_turn = (0..listeners).map(|offset| (self.next + offset) % listeners);
        let listener = in_turn.min_by_key(|listener| self.in_flight[*listener])?;
        if self.in_flight[listener] == self.accepts_max {
            return None;
        }
        self.in_flight[listener] += 1;
        self.next = (listener + 1) % listeners;
        Some(listener)
    }

    /// Notes that an accept has brought a socket, which has a place now.
    pub fn accepted(&mut self, listener: usize) {
        self.completed(listener);
        self.sockets += 1;
    }

    /// Counts the socket of a proxy that has not brought a request; returns whether there may be one more.
    pub fn add_silent_proxy(&mut self) -> bool {
        let may_be_added = self.silent_proxies < self.silent_proxies_max();
        self.silent_proxies += usize::from(may_be_added);
        may_be_added
    }

    /// Notes that such a socket has brought a request, or ends.
    pub fn remove_silent_proxy(&mut self) {
        self.silent_proxies -= 1;
    }

    /// The maximum number of sockets of proxies that have not brought a request.
    pub fn silent_proxies_max(&self) -> usize {
        (self.places / PLACES_PER_SILENT_PROXY).max(1)
    }

    /// Notes that an accept is no longer in flight: it has failed.
    pub fn completed(&mut self, listener: usize) {
        let accepts = &mut self.in_flight[listener];
        *accepts = accepts.checked_sub(1).expect("an accept that completes was in flight");
    }

    /// Notes that the close of a socket was requested. Its place is free.
    pub fn closed(&mut self) {
        self.sockets = self.sockets.checked_sub(1).expect("a socket that is closed has a place");
        self.was_full = false;
    }

    /// Returns whether all places are taken, once until a place is freed.
    pub fn has_filled(&mut self) -> bool {
        self.sockets == self.places && !std::mem::replace(&mut self.was_full, true)
    }

    /// The number of places that are neither taken nor reserved.
    fn free(&self) -> usize {
        self.places - self.sockets - self.in_flight.iter().sum::<usize>()
    }

    /// Pauses accepting; returns whether the timer that ends the pause must be set.
    pub fn pause(&mut self) -> bool {
        self.is_paused = true;
        !std::mem::replace(&mut self.timer_is_set, true)
    }

    /// Notes that the timer has fired.
    pub fn timer_fired(&mut self) {
        self.timer_is_set = false;
    }

    /// Ends the pause, if there is one.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Stops accepting for good. Accepts in flight may still bring sockets.
    pub fn stop(&mut self) {
        self.has_stopped = true;
    }

    /// Asserts the invariants. `sockets` is the number of sockets that have a record, of which `silent_proxies` are those
    /// of proxies that have not brought a request.
    pub fn check(&self, sockets: usize, silent_proxies: usize) {
        assert_eq!(self.silent_proxies, silent_proxies, "proxies that have not brought a request");
        assert!(silent_proxies <= self.silent_proxies_max(), "{silent_proxies} silent proxies");
        let in_flight: usize = self.in_flight.iter().sum();
        assert_eq!(self.sockets, sockets, "each socket with a place has a record");
        assert!(
            self.sockets + in_flight <= self.places,
            "{} sockets and {in_flight} accepts for {} places",
            self.sockets,
            self.places
        );
        let most = self.in_flight.iter().max().copied().unwrap_or_default();
        assert!(most <= self.accepts_max, "a listener has {most} accepts, of at most {}", self.accepts_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(acceptor: &mut Acceptor) -> Vec<usize> {
        std::iter::from_fn(|| acceptor.arm()).collect()
    }

    fn listening(places: usize, accepts_max: usize, listeners: usize) -> Acceptor {
        let mut acceptor = Acceptor::new(places, accepts_max);
        acceptor.listen(listeners);
        acceptor
    }

    #[test]
    fn no_more_accepts_are_in_flight_than_places_are_free() {
        let mut acceptor = listening(40, 64, 1);
        assert_eq!(armed(&mut acceptor), [0, 0], "a part of the places");
        for sockets in 1..=40 {
            acceptor.accepted(0);
            acceptor.check(sockets, 0);
            assert_eq!(armed(&mut acceptor).len(), usize::from(sockets <= 38), "{sockets}");
            assert_eq!(acceptor.has_filled(), sockets == 40);
        }
        assert!(!acceptor.has_filled(), "it is told once");
        acceptor.closed();
        assert_eq!(armed(&mut acceptor), [0]);
        acceptor.accepted(0);
        assert!(acceptor.has_filled(), "and again when a place was free in between");
    }

    #[test]
    fn the_setting_is_the_maximum_for_each_listener() {
        let mut acceptor = listening(1 << 20, 64, 3);
        let mut listeners = armed(&mut acceptor);
        assert_eq!(listeners[..4], [0, 1, 2, 0]);
        listeners.sort_unstable();
        assert_eq!(listeners, [vec![0; 64], vec![1; 64], vec![2; 64]].concat());
    }

    #[test]
    fn a_flood_of_one_listener_leaves_places_to_the_others() {
        let mut acceptor = listening(64, 64, 2);
        assert_eq!(armed(&mut acceptor), [0, 1, 0, 1]);
        for flood in 1..=62 {
            acceptor.accepted(0);
            armed(&mut acceptor);
            acceptor.check(flood, 0);
        }
        assert_eq!(acceptor.in_flight, [0, 2], "what is left is reserved for the other one");
        acceptor.closed();
        assert_eq!(armed(&mut acceptor), [0], "what is freed goes to the one that has none");
        acceptor.accepted(1);
        acceptor.accepted(1);
        assert!(armed(&mut acceptor).is_empty());
        acceptor.closed();
        assert_eq!(armed(&mut acceptor), [1]);
    }

    #[test]
    fn fewer_places_than_listeners_are_given_in_turn() {
        let mut acceptor = listening(1, 64, 3);
        for listener in [0, 1, 2, 0] {
            assert_eq!(armed(&mut acceptor), [listener]);
            acceptor.accepted(listener);
            assert!(armed(&mut acceptor).is_empty());
            acceptor.closed();
        }
    }

    #[test]
    fn nothing_is_armed_in_a_pause_or_after_the_end() {
        let mut acceptor = listening(64, 1, 1);
        assert!(acceptor.pause() && !acceptor.pause(), "the timer is set once");
        assert!(armed(&mut acceptor).is_empty());
        acceptor.resume();
        assert_eq!(armed(&mut acceptor), [0]);
        acceptor.timer_fired();
        assert!(acceptor.pause());
        acceptor.resume();
        acceptor.accepted(0);
        acceptor.stop();
        assert!(armed(&mut acceptor).is_empty());
    }

    #[test]
    #[should_panic(expected = "2 sockets and 1 accepts for 2 places")]
    fn the_check_finds_an_accept_without_a_place() {
        let mut acceptor = listening(2, 64, 1);
        acceptor.sockets = 2;
        acceptor.in_flight = vec![1];
        acceptor.check(2, 0);
    }

    #[test]
    #[should_panic(expected = "each socket with a place has a record")]
    fn the_check_finds_a_place_that_was_lost() {
        let mut acceptor = listening(2, 64, 1);
        acceptor.arm();
        acceptor.accepted(0);
        acceptor.check(0, 0);
    }

    #[test]
    #[should_panic(expected = "a listener has 2 accepts, of at most 1")]
    fn the_check_finds_too_many_accepts() {
        let mut acceptor = listening(10, 64, 1);
        acceptor.in_flight = vec![2];
        acceptor.check(0, 0);
    }

    #[test]
    #[should_panic(expected = "an accept that completes was in flight")]
    fn an_accept_cannot_complete_twice() {
        listening(10, 64, 1).accepted(0);
    }
}
