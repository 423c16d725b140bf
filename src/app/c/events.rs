//! Registration of the events of an application in C, and the closures that call its handlers and hooks.

use super::abi::{self, EventSpec, Fault};
use super::host::Host;
use super::scope::{self, CallKind, Registration};
use super::user::{HeldPointer, OwnedPointer};
use crate::app::{Answer, Context, Decision, Error, Event, Subscription, Unsubscribed};
use crate::log::throttle;
use std::rc::Rc;

/// The values that the closures of one event share. The user pointer is freed with the last closure.
struct EventOwner {
    host: &'static Host,
    user: HeldPointer,
}

/// Registers an event. The first error is kept in the registration, which then fails.
///
/// # Errors
///
/// The specification is invalid, or its path is taken.
pub fn register(
    registration: &mut Registration<'_>,
    spec: &EventSpec,
    path: Result<&str, Fault>,
    user: OwnedPointer,
) -> Result<(), Fault> {
    let registered = path.map_err(|fault| (fault, invalid_path())).and_then(|path| {
        let are_known = spec.flags & !(abi::CHILDREN | abi::NO_SUBSCRIPTIONS) == 0;
        let is_contradictory = spec.flags & abi::NO_SUBSCRIPTIONS != 0 && spec.on.is_some();
        if !are_known || is_contradictory {
            let reason = if are_known {
                "it has both an on-hook and the flag QIO_NO_SUBSCRIPTIONS"
            } else {
                "it has unknown flags"
            };
            return Err((Fault::BadValue, Error::Path { path: path.to_owned(), reason: reason.to_owned() }));
        }
        register_at(registration, spec, path, user).map_err(|error| match error {
            Error::Duplicate { .. } => (Fault::Duplicate, error),
            _ => (Fault::BadPath, error),
        })
    });
    registered.map_err(|(fault, error)| {
        registration.error.get_or_insert(error);
        fault
    })
}

fn invalid_path() -> Error {
    Error::Failed("it registered a path that is not UTF-8 or has an invalid pointer".into())
}

fn register_at(
    registration: &mut Registration<'_>,
    spec: &EventSpec,
    path: &str,
    user: OwnedPointer,
) -> Result<(), Error> {
    let host = registration.host;
    let owner = Rc::new(EventOwner { host, user: user.held_for(host) });
    let mut event = registration.registrar.event(path);
    if spec.flags & abi::CHILDREN != 0 {
        event = event.children();
    }
    if spec.flags & abi::NO_SUBSCRIPTIONS != 0 {
        event = event.no_subscriptions();
    }
    if let Some(handler) = spec.handler {
        let owner = Rc::clone(&owner);
        event = event.handler(move |cx, event| call_handler(&owner, handler, cx, event));
    }
    if let Some(on) = spec.on {
        let owner = Rc::clone(&owner);
        event = event.on(move |cx, subscription| call_on_hook(&owner, on, cx, subscription));
    }
    if let Some(off) = spec.off {
        event = event.off(move |cx, unsubscribed| call_off_hook(&owner, off, cx, unsubscribed));
    }
    event.register()
}

fn call_handler(owner: &EventOwner, handler: abi::Handler, cx: &mut Context<'_>, event: Event<'_>) -> Answer {
    let parameter = abi::Event {
        client: event.client.into(),
        wants_answer: event.wants_answer().into(),
        path: abi::Str::of(event.path),
        extra: abi::Str::of(event.extra),
        data: abi::Str::of(event.data),
    };
    let kind = CallKind::Event(event.reply_to());
    scope::enter(cx, owner.host, kind, |handle| handler(handle, &parameter, owner.user.ptr()))
        .into_answer(owner.host)
}

fn call_on_hook(
    owner: &EventOwner,
    hook: abi::OnHook,
    cx: &mut Context<'_>,
    subscription: Subscription<'_>,
) -> Decision {
    let parameter = abi::Subscription {
        client: subscription.client.into(),
        reserved: 0,
        path: abi::Str::of(subscription.path),
        extra: abi::Str::of(subscription.extra),
        data: abi::Str::of(subscription.data),
        options: abi::Str::of(subscription.options),
    };
    let kind = CallKind::Subscription(subscription.reply_to(), subscription.id);
    let call = |handle| hook(handle, &parameter, owner.user.ptr());
    let (decision, outcome) = scope::enter_for(cx, owner.host, kind, call);
    match decision {
        // The promise decides, when it is kept or dropped. The returned value is ignored.
        _ if outcome.is_promised() => Decision::Later,
        _ if outcome.is_refused() => Decision::Fail(420),
        abi::ACCEPT => Decision::Accept,
        abi::REFUSE => Decision::Refuse,
        abi::FAIL => Decision::Fail(500),
        unknown => {
            let path = subscription.path;
            throttle!(
                error,
                "on-hook",
                app = owner.host.name,
                path,
                "an on-hook returned {unknown} without a promise; the subscription is refused"
            );
            Decision::Refuse
        }
    }
}

fn call_off_hook(
    owner: &EventOwner,
    hook: abi::OffHook,
    cx: &mut Context<'_>,
    unsubscribed: Unsubscribed<'_>,
) {
    let parameter = abi::Unsubscribed {
        client: unsubscribed.client.into(),
        reserved: 0,
        path: abi::Str::of(unsubscribed.path),
        extra: abi::Str::of(unsubscribed.extra),
    };
    scope::enter(cx, owner.host, CallKind::Unsubscribed, |handle| hook(handle, &parameter, owner.user.ptr()));
}
