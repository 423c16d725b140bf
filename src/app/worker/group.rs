//! The workers of one application, as seen by one shard. A group knows the link over which the events of each client
//! go.

use super::counters::WorkerCounters;
use super::ends::ClientEnd;
use super::link::{Instance, WorkerLink, not_running};
use super::manifest::Manifest;
use super::{JoinedWorker, LinkLimits, SupervisorHandle};
use crate::app::{Answer, Context, Decision, Error, Event, Subscription, Unsubscribed};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::metrics::{AppStatistics, Counters};
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
    instances: Vec<Rc<Instance>>,
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
        let counters: Rc<WorkerCounters> = Rc::default();
        let instances = (0..instances).map(|_| Instance::new(&limits, Rc::clone(&counters))).collect();
        Rc::new(WorkerGroup {
            name,
            shard,
            limits,
            supervisor,
            counters,
            event_numbers: RefCell::default(),
            registered: RefCell::default(),
            instances,
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
        self.links().for_each(|link| link.set_event_numbers(&event_numbers));
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
        let of = self.instances.get(*instance as usize)?;
        let link = WorkerLink::new(
            *worker,
            of,
            format!("{}#{instance}", self.name),
            Arc::clone(manifest),
            self.limits,
            Arc::clone(&self.supervisor),
            Rc::clone(&self.counters),
        );
        link.set_event_numbers(&self.event_numbers.borrow());
        of.set_link(cx, Rc::clone(&link));
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
        self.instances.iter().for_each(|instance| instance.remove_link(link));
    }

    /// The links to the workers that receive events.
    fn links(&self) -> impl Iterator<Item = Rc<WorkerLink>> {
        self.instances.iter().filter_map(|instance| instance.link())
    }

    /// Returns the instance of a client, which it has for as long as it is connected.
    fn instance_of(&self, client: ClientId) -> &Instance {
        &self.instances[(client.slot as usize + usize::from(client.shard)) % self.instances.len()]
    }

    /// Handles an event: sends it to the worker of its client.
    pub(in crate::app) fn handle(&self, cx: &mut Context<'_>, number: u32, event: Event<'_>) -> Answer {
        match self.instance_of(event.client).link() {
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
        match self.instance_of(subscription.client).link() {
            Some(link) => link.send_subscription(cx, number, subscription),
            None => {
                self.counters.add_event_refused();
                Decision::Fail(500)
            }
        }
    }

    /// Decides about a subscription that every client may have and whose end the worker is told of. The worker is not
    /// asked, and need not run.
    pub(in crate::app) fn accept(
        &self,
        cx: &mut Context<'_>,
        number: u32,
        subscription: Subscription<'_>,
    ) -> Decision {
        let instance = self.instance_of(subscription.client);
        if let Some(link) = instance.link() {
            return link.send_subscription(cx, number, subscription);
        }
        match instance.admit_end(subscription.client) {
            Ok(()) => Decision::Accept,
            Err(_) => {
                self.counters.add_event_refused();
                Decision::Fail(420)
            }
        }
    }

    /// Tells the worker of a client that a subscription has ended. If no worker runs, the next one is told.
    pub(in crate::app) fn unsubscribed(&self, cx: &Context<'_>, number: u32, unsubscribed: Unsubscribed<'_>) {
        let Unsubscribed { client, extra, .. } = unsubscribed;
        let end = ClientEnd::Unsubscribed { event_number: number, client, extra: extra.into() };
        self.instance_of(client).tell(end, cx.now().as_millis() as u64);
    }

    /// Adds the counters of the links to `counters`, and the statistics of the application to `app`.
    pub fn add_to(&self, counters: &mut Counters, app: &mut AppStatistics) {
        self.counters.add_to(counters, app);
    }

    /// Asserts the invariants of the instances and their current links.
    pub fn check(&self) {
        self.instances.iter().for_each(|instance| instance.check());
        let numbers: std::collections::BTreeSet<u32> =
            self.event_numbers.borrow().values().copied().collect();
        assert!(
            numbers.into_iter().eq(0..self.event_numbers.borrow().len() as u32),
            "event numbers are dense"
        );
    }
}
