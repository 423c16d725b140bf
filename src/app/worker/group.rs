//! The workers of one application, as one shard has them: which of them a client's events go to, over which link.

use super::link::{WorkerLink, not_running};
use super::manifest::{EventSpec, Manifest, Subscriptions};
use super::tally::WorkerCounters;
use super::{JoinedWorker, LinkLimits, SupervisorHandle};
use crate::app::{Answer, Context, Decision, Error, Event, Registrar, Subscription, Unsubscribed};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::metrics::Counters;
use ahash::AHashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The links of one application's workers on one shard.
pub struct WorkerGroup {
    /// The application's, for the log.
    name: Arc<str>,
    shard: u16,
    limits: LinkLimits,
    supervisor: Arc<dyn SupervisorHandle>,
    tally: Rc<WorkerCounters>,
    /// The numbers by which closures know events: of all paths that workers have registered so far. A worker that does not
    /// know one answers 404.
    known: RefCell<AHashMap<Path, u32>>,
    /// What is registered, where all of it could be.
    registered: RefCell<Option<Arc<Manifest>>>,
    /// By instance: the link over which events go now.
    links: RefCell<Vec<Option<Rc<WorkerLink>>>>,
}

impl WorkerGroup {
    /// So many workers, none of which is there yet.
    pub fn new(
        name: Arc<str>,
        shard: u16,
        instances: usize,
        limits: LinkLimits,
        supervisor: Arc<dyn SupervisorHandle>,
    ) -> Rc<WorkerGroup> {
        Rc::new(WorkerGroup {
            name,
            shard,
            limits,
            supervisor,
            tally: Rc::default(),
            known: RefCell::default(),
            registered: RefCell::default(),
            links: RefCell::new(vec![None; instances]),
        })
    }

    /// Registers the events of a manifest.
    ///
    /// # Errors
    ///
    /// The first one that cannot be registered; the others are.
    pub fn register(
        self: &Rc<Self>,
        registrar: &mut Registrar,
        manifest: &Arc<Manifest>,
    ) -> Result<(), Error> {
        let mut first = Ok(());
        for event in &manifest.events {
            let registered = self.register_one(registrar, event);
            first = first.and(registered);
        }
        let known = self.known.borrow();
        self.links.borrow().iter().flatten().for_each(|link| link.know(&known));
        self.registered.replace(first.is_ok().then(|| Arc::clone(manifest)));
        first
    }

    fn register_one(self: &Rc<Self>, registrar: &mut Registrar, event: &EventSpec) -> Result<(), Error> {
        let number = self.number_of(&event.path)?;
        let mut builder = registrar.event(&event.path);
        if event.children {
            builder = builder.children();
        }
        if event.handler {
            let group = Rc::clone(self);
            builder = builder.handler(move |cx, event| group.event(cx, number, event));
        }
        if event.off {
            let group = Rc::clone(self);
            builder = builder.off(move |cx, unsubscribed| group.off(cx, number, unsubscribed));
        }
        match event.subscriptions {
            Subscriptions::Everyone => {}
            Subscriptions::Nobody => builder = builder.no_subscriptions(),
            Subscriptions::Ask => {
                let group = Rc::clone(self);
                builder = builder.on(move |cx, subscription| group.on(cx, number, subscription));
            }
        }
        builder.register()
    }

    /// The number of the event at a path.
    fn number_of(&self, path: &str) -> Result<u32, Error> {
        let path = Path::parse(path)
            .map_err(|error| Error::Path { path: path.to_owned(), reason: error.to_string() })?;
        let mut known = self.known.borrow_mut();
        let next = known.len() as u32;
        Ok(*known.entry(path).or_insert(next))
    }

    /// Whether these events are not the ones that are registered.
    pub fn events_differ(&self, manifest: &Manifest) -> bool {
        self.registered.borrow().as_ref().is_none_or(|registered| registered.events != manifest.events)
    }

    /// The shard cannot have a link to this worker.
    pub fn reject_worker(&self, worker: u32, why: &str) {
        self.supervisor.report_broken(worker, why);
    }

    /// A worker has come: from now on it gets what the one before it got, which finishes what it has.
    pub fn add_worker(&self, cx: &mut Context<'_>, joined: &JoinedWorker) -> Option<Rc<WorkerLink>> {
        let JoinedWorker { instance, worker, manifest, joined_at, .. } = joined;
        let link = WorkerLink::new(
            *worker,
            format!("{}#{instance}", self.name),
            Arc::clone(manifest),
            self.limits,
            Arc::clone(&self.supervisor),
            Rc::clone(&self.tally),
            &self.known.borrow(),
        );
        let before = self.links.borrow_mut().get_mut(*instance as usize)?.replace(Rc::clone(&link));
        if let Some(before) = before {
            before.leave(cx.now());
        }
        // Once for the worker, which has a link to every shard.
        if self.shard == 0 {
            for timer in &manifest.timers {
                let _ = link.set(cx, timer.timer, *joined_at, timer.period(), true); // a manifest has no more than may be set
            }
        }
        Some(link)
    }

    /// A link has ended: its worker gets nothing more.
    pub fn remove_link(&self, link: &Rc<WorkerLink>) {
        for place in &mut *self.links.borrow_mut() {
            if place.as_ref().is_some_and(|current| Rc::ptr_eq(current, link)) {
                *place = None;
            }
        }
    }

    /// The link to the worker of a client: the same for as long as it is connected.
    fn link_of(&self, client: ClientId) -> Option<Rc<WorkerLink>> {
        let links = self.links.borrow();
        let nth = (client.slot as usize + usize::from(client.shard)) % links.len();
        links[nth].clone()
    }

    fn event(&self, cx: &mut Context<'_>, number: u32, event: Event<'_>) -> Answer {
        match self.link_of(event.client) {
            Some(link) => link.event(cx, number, event),
            None => not_running(&self.tally),
        }
    }

    fn on(&self, cx: &mut Context<'_>, number: u32, subscription: Subscription<'_>) -> Decision {
        match self.link_of(subscription.client) {
            Some(link) => link.on(cx, number, subscription),
            None => {
                self.tally.event_refused();
                Decision::Fail(500)
            }
        }
    }

    fn off(&self, cx: &Context<'_>, number: u32, unsubscribed: Unsubscribed<'_>) {
        // A worker that is not there has nothing to forget.
        if let Some(link) = self.link_of(unsubscribed.client) {
            link.off(cx, number, unsubscribed);
        }
    }

    /// Adds what was counted.
    pub fn add_to(&self, counters: &mut Counters) {
        self.tally.add_to(counters);
    }
}
