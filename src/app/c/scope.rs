//! Contexts and registrars, as applications in C have them: numbers that are good while one call lasts.
//!
//! A thread remembers the call that it is in. A handle is looked up there and never followed as a pointer, so that an old
//! one, another thread's and a made-up one all find nothing.

#![allow(unsafe_code)]

use super::abi::{Cx, Fault, RegistrarHandle};
use super::host::Host;
use crate::app::{Answer, Context, Error, Registrar, ReplyTo};
use crate::client::subscriptions::PathId;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a function of the application was called for.
#[derive(Clone, Copy)]
pub enum Kind {
    /// To answer an event, or a reply.
    ReplyTo(ReplyTo),
    /// To decide about a subscription.
    Subscription(ReplyTo, PathId),
    /// To be told that one has ended.
    Unsubscribed,
    Timer,
}

/// A call of a function of the application.
pub struct Scope<'s, 'c> {
    pub cx: &'s mut Context<'c>,
    pub host: &'static Host,
    pub kind: Kind,
    pub given: Said,
}

/// What the application has said so far.
pub enum Said {
    Nothing,
    Answer(Answer),
    Promised,
}

impl Said {
    /// The answer to the event. Nobody waits for ever because a handler forgot.
    pub fn answer(self, host: &Host) -> Answer {
        match self {
            Said::Answer(answer) => answer,
            Said::Promised => Answer::never(),
            Said::Nothing => {
                tracing::debug!(app = host.name, "a handler returned without an answer");
                Answer::refusal(500, None)
            }
        }
    }

    pub fn is_promised(&self) -> bool {
        matches!(self, Said::Promised)
    }
}

impl Scope<'_, '_> {
    /// Who waits for an answer that was not given yet.
    pub fn unanswered(&self) -> Result<ReplyTo, Fault> {
        let Kind::ReplyTo(reply_to) = self.kind else { return Err(Fault::WrongPlace) };
        self.undecided().map(|()| reply_to)
    }

    /// Whether nothing was said so far.
    pub fn undecided(&self) -> Result<(), Fault> {
        if matches!(self.given, Said::Nothing) { Ok(()) } else { Err(Fault::Answered) }
    }
}

/// A registration on one shard.
pub struct Registering<'r> {
    pub registrar: &'r mut Registrar,
    pub host: &'static Host,
    /// The first thing that could not be registered.
    pub error: Option<Error>,
}

/// The call that a thread is in.
struct Current<T> {
    id: Cell<u64>,
    /// Null while a function of the table uses it, so that there is never a second reference.
    place: Cell<*mut T>,
}

impl<T> Current<T> {
    const fn none() -> Current<T> {
        Current { id: Cell::new(0), place: Cell::new(ptr::null_mut()) }
    }

    /// Calls with a new handle for `place`.
    fn enter<R>(&self, place: *mut T, call: impl FnOnce(u64) -> R) -> R {
        let id = next_id();
        let _before = Restore { current: self, id: self.id.replace(id), place: self.place.replace(place) };
        call(id)
    }

    fn with<R>(&self, id: u64, run: impl FnOnce(&mut T) -> Result<R, Fault>) -> Result<R, Fault> {
        if id != self.id.get() || id == 0 {
            return Err(if thread_of(id) == thread_of(next_id()) || id == 0 {
                Fault::Stale
            } else {
                Fault::WrongThread
            });
        }
        let place = self.place.replace(ptr::null_mut());
        let _again = Restore { current: self, id, place };
        // SAFETY: where it is not null it is what `enter` was given, whose caller is still in that call, since the handle is
        // the current one; and it was replaced by null for as long as this reference lives, so that there is no other.
        let place = unsafe { place.as_mut() }.ok_or(Fault::Nested)?;
        run(place)
    }
}

/// Puts back what was current, also where a panic passes.
struct Restore<'a, T> {
    current: &'a Current<T>,
    id: u64,
    place: *mut T,
}

impl<T> Drop for Restore<'_, T> {
    fn drop(&mut self) {
        self.current.id.set(self.id);
        self.current.place.set(self.place);
    }
}

/// Bits of a handle that count the calls of one thread; those above are the thread's.
const CALL_BITS: u32 = 44;

static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CONTEXT: Current<Scope<'static, 'static>> = const { Current::none() };
    static REGISTRAR: Current<Registering<'static>> = const { Current::none() };
    static LAST_ID: Cell<u64> = const { Cell::new(0) };
}

fn thread_of(id: u64) -> u64 {
    id >> CALL_BITS
}

/// The handle of the next call: none is used again within 200 days of 1,000,000 calls a second.
fn next_id() -> u64 {
    LAST_ID.with(|last| {
        let mut id = last.get();
        if id == 0 {
            // From 1 on: no handle is 0.
            id = (THREADS.fetch_add(1, Ordering::Relaxed) + 1) << CALL_BITS;
        }
        let in_thread = (id + 1) & ((1 << CALL_BITS) - 1);
        id = thread_of(id) << CALL_BITS | in_thread;
        last.set(id);
        id
    })
}

/// Calls a function of the application with a context.
pub fn enter(cx: &mut Context<'_>, host: &'static Host, kind: Kind, call: impl FnOnce(Cx)) -> Said {
    enter_for(cx, host, kind, call).1
}

/// As [`enter`], for a function that answers something.
pub fn enter_for<R>(
    cx: &mut Context<'_>,
    host: &'static Host,
    kind: Kind,
    call: impl FnOnce(Cx) -> R,
) -> (R, Said) {
    let mut scope = Scope { cx, host, kind, given: Said::Nothing };
    // The lifetimes end with this function, and `Current` forgets the pointer before.
    let place = ptr::from_mut(&mut scope).cast();
    let answered = CONTEXT.with(|current| current.enter(place, |id| call(Cx { id })));
    (answered, scope.given)
}

/// What a function of the table does with a context.
pub fn with<R>(cx: Cx, run: impl FnOnce(&mut Scope<'_, '_>) -> Result<R, Fault>) -> Result<R, Fault> {
    CONTEXT.with(|current| current.with(cx.id, |scope| run(scope)))
}

/// Calls the application's `register_events`.
pub fn enter_registrar<R>(registering: &mut Registering<'_>, call: impl FnOnce(RegistrarHandle) -> R) -> R {
    let place = ptr::from_mut(registering).cast();
    REGISTRAR.with(|current| current.enter(place, |id| call(RegistrarHandle { id })))
}

/// What a function of the table does with a registrar.
pub fn with_registrar<R>(
    registrar: RegistrarHandle,
    run: impl FnOnce(&mut Registering<'_>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    REGISTRAR.with(|current| current.with(registrar.id, |registering| run(registering)))
}
