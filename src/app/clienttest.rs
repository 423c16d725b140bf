//! The bundled application `clienttest`, against which client libraries are tested (docs/protocol.md, section 8).

use super::{Answer, Application, Context, Decision, Error, Event, Json, LaterDecision, LocalCommand};
use super::{Registrar, Reply, Subscription};
use crate::event::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The bundled application `clienttest`.
#[derive(Debug, Default)]
pub struct ClientTest {
    broadcasts: Arc<Broadcasts>,
}

/// The period of the broadcasts to `/clienttest/broadcast`.
const BROADCAST_PERIOD: Duration = Duration::from_millis(10);

/// The extra data that a subscription to `/clienttest/on-data` requires.
const ON_DATA: &str = "123987";

impl Application for ClientTest {
    fn name(&self) -> &str {
        "clienttest"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        register_broadcast(registrar, &self.broadcasts)?;
        register_in_progress(registrar)?;
        registrar.event("/clienttest/on-data").on(on_data).register()?;
        let mut event = |path, handler: fn(&mut Context<'_>, Event<'_>) -> Answer| {
            registrar.event(path).no_subscriptions().handler(handler).register()
        };
        event("/clienttest/close", close)?;
        event("/clienttest/drop-callback", |_, _| Answer::never())?;
        event("/clienttest/echo", |_, event| echo(event.data))?;
        event("/clienttest/heartbeat-challenge", heartbeat_challenge)?;
        event("/clienttest/move", move_away)?;
        event("/clienttest/send-invalid", send_invalid)?;
        event("/clienttest/send-unsubscribed", send_unsubscribed)?;
        registrar.event("/clienttest/error").children().no_subscriptions().handler(error).register()
    }
}

/// The broadcasts to `/clienttest/broadcast`, which one shard sends while any shard has a subscription.
///
/// Invariant: if there are subscriptions, and no hook or timer of them is running, then exactly one shard has a timer.
#[derive(Debug, Default)]
struct Broadcasts {
    subscriptions: AtomicUsize,
    /// A shard has a timer.
    has_timer: AtomicBool,
}

impl Broadcasts {
    /// Starts the timer on this shard, if no shard has it.
    fn start(self: &Arc<Broadcasts>, cx: &mut Context<'_>) {
        if !self.has_timer.swap(true, Ordering::SeqCst) {
            self.set_timer(cx);
        }
    }

    fn set_timer(self: &Arc<Broadcasts>, cx: &mut Context<'_>) {
        let broadcasts = Arc::clone(self);
        cx.after(BROADCAST_PERIOD, move |cx| broadcasts.fire(cx));
    }

    /// Broadcasts, or ends the timer if there is no subscription.
    fn fire(self: &Arc<Broadcasts>, cx: &mut Context<'_>) {
        const DATA: Json = Json::of_static("\"broadcast event\"");
        if self.has_subscriptions() {
            cx.broadcast(&own_path("/clienttest/broadcast"), DATA);
            return self.set_timer(cx);
        }
        self.has_timer.store(false, Ordering::SeqCst);
        // A client of another shard may have subscribed before that, and relied on this timer.
        if self.has_subscriptions() {
            self.start(cx);
        }
    }

    fn has_subscriptions(&self) -> bool {
        self.subscriptions.load(Ordering::SeqCst) > 0
    }
}

fn register_broadcast(registrar: &mut Registrar, broadcasts: &Arc<Broadcasts>) -> Result<(), Error> {
    let (begun, ended) = (Arc::clone(broadcasts), Arc::clone(broadcasts));
    registrar
        .event("/clienttest/broadcast")
        .on(move |cx, _| {
            begun.subscriptions.fetch_add(1, Ordering::SeqCst);
            begun.start(cx);
            Decision::Accept
        })
        .off(move |_, _| {
            let before = ended.subscriptions.fetch_sub(1, Ordering::SeqCst);
            assert!(before > 0, "a subscription ends once");
        })
        .register()
}

/// Registers an event whose subscriptions stay pending until their client sends an event to it. The promise is client
/// data, and is dropped when the client disconnects.
fn register_in_progress(registrar: &mut Registrar) -> Result<(), Error> {
    registrar
        .event("/clienttest/in-progress")
        .on(|cx, subscription| {
            let (decision, later) = subscription.later(cx);
            cx.set_client_data(subscription.client, later);
            decision
        })
        .handler(|cx, event| {
            let waiting = cx.take_client_data::<LaterDecision>(event.client);
            match waiting.map(|later| later.decide(true)) {
                Some(Err(later)) => {
                    cx.set_client_data(event.client, later);
                    Answer::error(420, "the shard's inbox is full")
                }
                Some(Ok(())) | None => Answer::ok(),
            }
        })
        .register()
}

fn on_data(cx: &mut Context<'_>, subscription: Subscription<'_>) -> Decision {
    if subscription.data.trim() != ON_DATA {
        return Decision::Refuse;
    }
    // The answer to the subscription is sent first: the event waits for the next tick of the shard's timers.
    let client = subscription.client;
    cx.after(Duration::ZERO, move |cx| {
        cx.send(client, &own_path("/clienttest/on-data"), Json::of_static("true"));
    });
    Decision::Accept
}

fn close(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    cx.close(event.client);
    Answer::never()
}

/// Answers with the data, and offers a callback that does the same with the reply, without a limit.
fn echo(data: &str) -> Answer {
    Answer::data(data).with_callback(|_, reply: Reply<'_>| echo(reply.data))
}

fn error(_: &mut Context<'_>, event: Event<'_>) -> Answer {
    match event.extra.trim_start_matches('/').parse() {
        Ok(code) => Answer::error_with(
            code,
            format!("{code}s are fun!"),
            Json::of_static("\"you requested an error?\""),
        ),
        Err(_) => Answer::error(400, "the path ends in a code"),
    }
}

fn heartbeat_challenge(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let (answer, later) = event.later(cx);
    let path = own_path("/qio/heartbeat");
    cx.send_with_callback(event.client, &path, Json::NULL, move |_, _| {
        // If the inbox is full, the client never receives an answer. The inbox has counted the refusal.
        let _ = later.answer(Answer::ok());
        Answer::ok()
    });
    answer
}

fn move_away(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    cx.send(event.client, &own_path("/qio/move"), event.data);
    cx.close(event.client);
    Answer::never()
}

fn send_invalid(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    cx.push_local(LocalCommand::SendText { client: event.client, text: "this is no event" });
    Answer::ok()
}

fn send_unsubscribed(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    cx.send(event.client, &own_path("/clienttest/unsubscribed"), Json::NULL);
    Answer::ok()
}

fn own_path(path: &'static str) -> Path {
    Path::parse(path).expect("a path that is part of the program is clean")
}
