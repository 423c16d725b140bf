//! The workers of one application, as one shard has them: which of them a client's events go to, over which link.

use super::link::{Link, not_running};
use super::manifest::Manifest;
use super::tally::Tally;
use super::{Alarm, Limits};
use crate::app::{Answer, Context, Decision, Error, Event, Registrar, Subscription, Unsubscribed};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::metrics::{Counters, Gauge, Gauges};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The links of one application's workers on one shard.
pub struct Team {
    /// The application's, for the log.
    name: Arc<str>,
    shard: u16,
    limits: Limits,
    alarm: Arc<dyn Alarm>,
    tally: Rc<Tally>,
    /// The paths of all events that workers have registered so far, by the number that closures know them by. They are never
    /// forgotten: a worker that does not know one answers 404.
    paths: RefCell<Vec<Path>>,
    /// By instance: the link over which events go now.
    links: RefCell<Vec<Option<Rc<Link>>>>,
}

impl Team {
    /// So many workers, none of which is there yet.
    pub fn new(
        name: Arc<str>,
        shard: u16,
        instances: usize,
        limits: Limits,
        alarm: Arc<dyn Alarm>,
    ) -> Rc<Team> {
        Rc::new(Team {
            name,
            shard,
            limits,
            alarm,
            tally: Rc::default(),
            paths: RefCell::default(),
            links: RefCell::new(vec![None; instances]),
        })
    }

    /// Registers the events of a manifest.
    pub fn register(self: &Rc<Self>, registrar: &mut Registrar, manifest: &Manifest) -> Result<(), Error> {
        for event in &manifest.events {
            let number = self.number_of(&event.path)?;
            let [handle, on, off] = [(); 3].map(|()| Rc::clone(self));
            let mut builder = registrar
                .event(&event.path)
                .handler(move |cx, event| handle.event(cx, number, event))
                .on(move |cx, subscription| on.on(cx, number, subscription))
                .off(move |cx, unsubscribed| off.off(cx, number, unsubscribed));
            if event.children {
                builder = builder.children();
            }
            builder.register()?;
        }
        let paths = self.paths.borrow();
        self.links.borrow().iter().flatten().for_each(|link| link.know(&paths));
        Ok(())
    }

    /// The number of the event at a path.
    fn number_of(&self, path: &str) -> Result<u32, Error> {
        let path = Path::parse(path)
            .map_err(|error| Error::Path { path: path.to_owned(), reason: error.to_string() })?;
        let mut paths = self.paths.borrow_mut();
        let known = paths.iter().position(|known| *known == path);
        Ok(known.unwrap_or_else(|| {
            paths.push(path);
            paths.len() - 1
        }) as u32)
    }

    /// A worker has come: from now on it gets what the one before it got, which finishes what it has.
    pub fn join(
        &self,
        cx: &mut Context<'_>,
        instance: u32,
        worker: u32,
        manifest: &Arc<Manifest>,
    ) -> Option<Rc<Link>> {
        let link = Link::new(
            worker,
            format!("{}#{instance}", self.name),
            Arc::clone(manifest),
            self.limits,
            Arc::clone(&self.alarm),
            Rc::clone(&self.tally),
            &self.paths.borrow(),
        );
        let before = self.links.borrow_mut().get_mut(instance as usize)?.replace(Rc::clone(&link));
        if let Some(before) = before {
            before.leave();
        }
        // Once for the worker, which has a link to every shard.
        if self.shard == 0 {
            for timer in &manifest.timers {
                let _ = link.set(cx, timer.timer, timer.period(), true); // a manifest has no more than may be set
            }
        }
        Some(link)
    }

    /// A link has ended: its worker gets nothing more.
    pub fn left(&self, link: &Rc<Link>) {
        for place in &mut *self.links.borrow_mut() {
            if place.as_ref().is_some_and(|current| Rc::ptr_eq(current, link)) {
                *place = None;
            }
        }
    }

    /// The link to the worker of a client: the same for as long as it is connected.
    fn link_of(&self, client: ClientId) -> Option<Rc<Link>> {
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

    /// Adds what was counted, and what is under way now.
    pub fn add_to(&self, counters: &mut Counters, gauges: &mut Gauges) {
        self.tally.add_to(counters);
        for link in self.links.borrow().iter().flatten() {
            let (requests, bytes) = link.load();
            gauges.add(Gauge::WorkerRequests, requests as u64);
            gauges.add(Gauge::WorkerOutboxBytes, bytes as u64);
            gauges.add(Gauge::WorkerLinks, 1);
        }
    }
}
