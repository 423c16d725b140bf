//! Events of an application in C: from its functions to the closures that a shard runs.

use super::abi::{self, EventSpec, Fault};
use super::host::Host;
use super::scope::{self, Kind, Registering};
use super::user::{Given, User};
use crate::app::{Answer, Context, Decision, Error, Event, ReplyTo, Subscription, Unsubscribed};
use std::rc::Rc;

/// What the closures of one event share: it is freed with the last of them.
struct Shared {
    host: &'static Host,
    user: User,
}

/// Registers an event as its spec says. The first error is kept: with it the application fails.
pub fn register(
    registering: &mut Registering<'_>,
    spec: &EventSpec,
    path: Result<&str, Fault>,
    given: Given,
) -> Result<(), Fault> {
    let registered = path.map_err(|fault| (fault, unreadable())).and_then(|path| {
        let known = spec.flags & !(abi::CHILDREN | abi::NO_SUBSCRIPTIONS) == 0;
        let decided_twice = spec.flags & abi::NO_SUBSCRIPTIONS != 0 && spec.on.is_some();
        if !known || decided_twice {
            let reason =
                if known { "it has an on-hook, and no subscriptions" } else { "it has unknown flags" };
            return Err((Fault::BadValue, Error::Path { path: path.to_owned(), reason: reason.to_owned() }));
        }
        register_at(registering, spec, path, given).map_err(|error| match error {
            Error::Duplicate { .. } => (Fault::Duplicate, error),
            _ => (Fault::BadPath, error),
        })
    });
    registered.map_err(|(fault, error)| {
        registering.error.get_or_insert(error);
        fault
    })
}

fn unreadable() -> Error {
    Error::Failed("a path that it registers cannot be read".into())
}

fn register_at(
    registering: &mut Registering<'_>,
    spec: &EventSpec,
    path: &str,
    given: Given,
) -> Result<(), Error> {
    let host = registering.host;
    let shared = Rc::new(Shared { host, user: given.tied(host) });
    let mut event = registering.registrar.event(path);
    if spec.flags & abi::CHILDREN != 0 {
        event = event.children();
    }
    if spec.flags & abi::NO_SUBSCRIPTIONS != 0 {
        event = event.no_subscriptions();
    }
    if let Some(handler) = spec.handler {
        let shared = Rc::clone(&shared);
        event = event.handler(move |cx, event| handle(&shared, handler, cx, event));
    }
    if let Some(on) = spec.on {
        let shared = Rc::clone(&shared);
        event = event.on(move |cx, subscription| decide(&shared, on, cx, subscription));
    }
    if let Some(off) = spec.off {
        event = event.off(move |cx, unsubscribed| ended(&shared, off, cx, unsubscribed));
    }
    event.register()
}

fn handle(shared: &Shared, handler: abi::Handler, cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let given = abi::Event {
        client: event.client.into(),
        wants_answer: event.wants_answer().into(),
        path: abi::Str::of(event.path),
        extra: abi::Str::of(event.extra),
        data: abi::Str::of(event.data),
    };
    let kind = Kind::ReplyTo(event.reply_to());
    scope::enter(cx, shared.host, kind, |token| handler(token, &given, shared.user.ptr())).answer(shared.host)
}

fn decide(
    shared: &Shared,
    hook: abi::OnHook,
    cx: &mut Context<'_>,
    subscription: Subscription<'_>,
) -> Decision {
    let given = abi::Subscription {
        client: subscription.client.into(),
        reserved: 0,
        path: abi::Str::of(subscription.path),
        extra: abi::Str::of(subscription.extra),
        data: abi::Str::of(subscription.data),
    };
    let reply_to = ReplyTo { client: subscription.client, callback: subscription.callback };
    let kind = Kind::Subscription(reply_to, subscription.id);
    let call = |token| hook(token, &given, shared.user.ptr());
    let (decision, said) = scope::enter_for(cx, shared.host, kind, call);
    match decision {
        // Whoever has promised decides: by the promise, or by dropping it.
        _ if said.is_promised() => Decision::Later,
        abi::ACCEPT => Decision::Accept,
        abi::REFUSE => Decision::Refuse,
        abi::FAIL => Decision::Fail(500),
        unknown => {
            let path = subscription.path;
            tracing::error!(
                app = shared.host.name,
                path,
                "an on-hook answered {unknown}, and promised nothing"
            );
            Decision::Refuse
        }
    }
}

fn ended(shared: &Shared, hook: abi::OffHook, cx: &mut Context<'_>, unsubscribed: Unsubscribed<'_>) {
    let given = abi::Unsubscribed {
        client: unsubscribed.client.into(),
        reserved: 0,
        path: abi::Str::of(unsubscribed.path),
        extra: abi::Str::of(unsubscribed.extra),
    };
    scope::enter(cx, shared.host, Kind::Unsubscribed, |token| hook(token, &given, shared.user.ptr()));
}
