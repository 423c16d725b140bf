//! The workers of one application, as seen by one shard. A group knows the link over which the events of each client
//! go.

use super::counters::WorkerCounters;
use super::link::{WorkerLink, not_running};
use super::manifest::Manifest;
use super::{JoinedWorker, LinkLimits, SupervisorHandle};
use crate::app::{Answer, Context, Decision, Error, Event, Subscription, Unsubscribed};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::metrics::Counters;
use ahash::AHashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The links of one application's workers on one shard.
pub struct WorkerGroup {
    /// The application's name, for the log.
    name: Arc<str>,
    shard: u16,
    limits: LinkLimits,
    supervisor: Arc<dyn SupervisorHandle>,
    counters: Rc<WorkerCounters>,
    /// The numbers by which handlers and hooks identify events, by path. All paths that workers have registered so far
    /// have one. A worker that does not handle an event answers it 404.
    event_numbers: RefCell<AHashMap<Path, u32>>,
    /// The manifest whose events are registered, or `None` if some of its events could not be registered.
    registered: RefCell<Option<Arc<Manifest>>>,
    /// The links to the workers that receive events, by instance.
    links: RefCell<Vec<Option<Rc<WorkerLink>>>>,
}

impl WorkerGroup {
    /// Returns a group of this many instances, none of which has a worker yet.
    pub fn new(
        name: Arc<str>,
        shard: u16,
        instances: usize,
        limits: LinkLimits,
        supervisor: Arc<dyn SupervisorHandle>,
    ) -> Rc<WorkerGroup> {
        assert!(instances > 0, "an application has at least one worker");
        Rc::new(WorkerGroup {
            name,
            shard,
            limits,
            supervisor,
            counters: Rc::default(),
            event_numbers: RefCell::default(),
            registered: RefCell::default(),
            links: RefCell::new(vec![None; instances]),
        })
    }

    /// Returns the number of the event at a path. A path that has none gets the next one.
    ///
    /// # Errors
    ///
    /// The path is empty or too long.
    pub(in crate::app) fn number_event(&self, path: &str) -> Result<u32, Error> {
        let path = Path::parse(path)
            .map_err(|error| Error::Path { path: path.to_owned(), reason: error.to_string() })?;
        let mut event_numbers = self.event_numbers.borrow_mut();
        let next = event_numbers.len() as u32;
        Ok(*event_numbers.entry(path).or_insert(next))
    }

    /// Records that events were registered. `manifest` is `None` if some of its events could not be registered.
    pub(in crate::app) fn set_registered(&self, manifest: Option<&Arc<Manifest>>) {
        let event_numbers = self.event_numbers.borrow();
        self.links.borrow().iter().flatten().for_each(|link| link.set_event_numbers(&event_numbers));
        self.registered.replace(manifest.map(Arc::clone));
    }

    /// Returns whether the events of a manifest differ from those that are registered.
    pub fn events_differ(&self, manifest: &Manifest) -> bool {
        self.registered.borrow().as_ref().is_none_or(|registered| registered.events != manifest.events)
    }

    /// Has a worker killed because the shard cannot have a link to it.
    pub fn reject_worker(&self, worker: u32, why: &str) {
        self.supervisor.report_broken(worker, why);
    }

    /// Adds a worker, which receives the events of its instance from now on. A worker that received them before is
    /// drained.
    ///
    /// Returns `None` if there is no such instance.
    pub fn add_worker(&self, cx: &mut Context<'_>, joined: &JoinedWorker) -> Option<Rc<WorkerLink>> {
        let JoinedWorker { instance, worker, manifest, joined_at, .. } = joined;
        let link = WorkerLink::new(
            *worker,
            format!("{}#{instance}", self.name),
            Arc::clone(manifest),
            self.limits,
            Arc::clone(&self.supervisor),
            Rc::clone(&self.counters),
            &self.event_numbers.borrow(),
        );
        let before = self.links.borrow_mut().get_mut(*instance as usize)?.replace(Rc::clone(&link));
        if let Some(before) = before {
            before.begin_draining(cx.now());
        }
        // A worker has a link to every shard, and its timers must fire once.
        if self.shard == 0 {
            for timer in &manifest.timers {
                let set = link.set_timer(cx, timer.timer, *joined_at, timer.period(), true);
                debug_assert_eq!(set, Ok(()), "a manifest has no more timers than a link");
            }
        }
        Some(link)
    }

    /// Stops sending events over a link that has ended.
    pub fn remove_link(&self, link: &Rc<WorkerLink>) {
        for current in &mut *self.links.borrow_mut() {
            if current.as_ref().is_some_and(|current| Rc::ptr_eq(current, link)) {
                *current = None;
            }
        }
    }

    /// Returns the link to the worker of a client, which has the same instance for as long as it is connected.
    fn link_for(&self, client: ClientId) -> Option<Rc<WorkerLink>> {
        let links = self.links.borrow();
        let instance = (client.slot as usize + usize::from(client.shard)) % links.len();
        links[instance].clone()
    }

    /// Handles an event: sends it to the worker of its client.
    pub(in crate::app) fn handle(&self, cx: &mut Context<'_>, number: u32, event: Event<'_>) -> Answer {
        match self.link_for(event.client) {
            Some(link) => link.send_event(cx, number, event),
            None => not_running(&self.counters),
        }
    }

    /// Decides about a subscription: asks the worker of its client.
    pub(in crate::app) fn decide(
        &self,
        cx: &mut Context<'_>,
        number: u32,
        subscription: Subscription<'_>,
    ) -> Decision {
        match self.link_for(subscription.client) {
            Some(link) => link.send_subscription(cx, number, subscription),
            None => {
                self.counters.add_event_refused();
                Decision::Fail(500)
            }
        }
    }

    /// Tells the worker of a client that a subscription has ended.
    pub(in crate::app) fn unsubscribed(&self, cx: &Context<'_>, number: u32, unsubscribed: Unsubscribed<'_>) {
        // A worker that is not running has no state about the subscription.
        if let Some(link) = self.link_for(unsubscribed.client) {
            link.send_unsubscribed(cx, number, unsubscribed);
        }
    }

    /// Adds the counters of the links to `counters`.
    pub fn add_to(&self, counters: &mut Counters) {
        self.counters.add_to(counters);
    }

    /// Asserts the invariants of the current links.
    pub fn check(&self) {
        self.links.borrow().iter().flatten().for_each(|link| link.check());
        let numbers: std::collections::BTreeSet<u32> =
            self.event_numbers.borrow().values().copied().collect();
        assert!(
            numbers.into_iter().eq(0..self.event_numbers.borrow().len() as u32),
            "event numbers are dense"
        );
    }
}
