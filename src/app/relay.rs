//! The bundled application `relay`: an event that is sent to a path under `/relay` is broadcast to that path's
//! subscribers.

use super::{Answer, Application, Context, Error, Event, Json, Registrar};

/// The bundled application `relay`. Clients may subscribe to every path under `/relay`. An event that is sent to such
/// a path is broadcast with its data to the path's subscribers, including the sender if it is subscribed, and answered
/// 200. Data that is not JSON is answered 400.
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
    match Json::checked(event.data) {
        Ok(data) => {
            cx.broadcast(&event.full_path(), data);
            Answer::ok()
        }
        Err(_) => Answer::error(400, "invalid json"),
    }
}
