//! `relay`: what is sent to a path under `/relay` is broadcast to that path's subscribers.

use super::{Answer, Application, Context, Error, Event, Registrar};

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
    cx.broadcast(&event.full_path(), event.data);
    Answer::ok()
}
