//! `relay`: what is sent to a path under `/relay` is broadcast to that path's subscribers.

use super::{Answer, Application, Context, Error, Event, Registrar};
use crate::event::path::Path;

/// The bundled application `relay`. Everything under `/relay` may be subscribed to; an event sent to a path
/// there is broadcast with its data to that path's subscribers (the sender too, if subscribed), and answered 200.
pub struct Relay;

impl Application for Relay {
    fn name(&self) -> &str {
        "relay"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        registrar.event("/relay").children().handler(relay).register()
    }
}

fn relay(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    match Path::parse(&[event.path, event.extra].concat()) {
        Ok(path) => {
            cx.broadcast(&path, event.data);
            Answer::ok()
        }
        Err(error) => Answer::error(400, error.to_string()),
    }
}
