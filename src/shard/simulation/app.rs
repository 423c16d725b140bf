//! The application of the simulations.

use crate::app::{Answer, Application, Context, Error, Event, LaterDecision, Registrar};
use crate::event::path::Path;
use crate::protocol::testing::Random;
use crate::shard::testing::World;
use std::sync::{Arc, Mutex};

/// The application of the simulations. It broadcasts every event to the event's path. Subscriptions below `/later` are decided
/// late.
#[derive(Clone, Default)]
pub struct SimApp(Arc<Mutex<Vec<LaterDecision>>>);

impl Application for SimApp {
    fn name(&self) -> &str {
        "sim"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let promises = Arc::clone(&self.0);
        registrar.event("/now").children().handler(broadcast).register()?;
        let later = registrar.event("/later").children().handler(broadcast);
        later
            .on(move |cx, subscription| {
                let (decision, promise) = subscription.later(cx);
                promises.lock().unwrap().push(promise);
                decision
            })
            .register()
    }
}

impl SimApp {
    /// Accepts one of the subscriptions that wait, if there is one.
    pub fn decide_one(&self, random: &mut Random) {
        let mut promises = self.0.lock().unwrap();
        if !promises.is_empty() {
            let which = random.below(promises.len());
            let promise = promises.swap_remove(which);
            drop(promises);
            promise.decide(true).unwrap();
        }
    }

    /// Accepts all subscriptions that wait, and those that come meanwhile.
    pub fn decide_all(&self, world: &mut World) {
        while let Some(promise) = { self.0.lock().unwrap().pop() } {
            promise.decide(true).unwrap();
            world.run_until_idle();
        }
    }
}

fn broadcast(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let path = Path::parse(&[event.path, event.extra].concat()).unwrap();
    cx.broadcast(&path, event.data);
    Answer::ok()
}
