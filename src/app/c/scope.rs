//! The handles of contexts and registrars in C: numbers that are valid during one call of a function of the
//! application.
//!
//! A thread remembers the call that it is in. A handle is compared with that call and never used as a pointer. A stale
//! handle, a handle of another thread and an invented one are all detected.

#![allow(unsafe_code)]

use super::abi::{Cx, Fault, RegistrarHandle};
use super::host::Host;
use crate::app::{Answer, Context, Error, Registrar, ReplyTo};
use crate::client::subscriptions::PathId;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The kind of function of the application that is called.
#[derive(Clone, Copy)]
pub enum CallKind {
    /// A handler of an event or a reply, which answers.
    Event(ReplyTo),
    /// An on-hook, which decides.
    Subscription(ReplyTo, PathId),
    /// An off-hook.
    Unsubscribed,
    Timer,
}

/// A call of a function of the application.
pub struct CallScope<'s, 'c> {
    pub cx: &'s mut Context<'c>,
    pub host: &'static Host,
    pub kind: CallKind,
    pub outcome: CallOutcome,
}

/// The answer that the application has given during a call.
pub enum CallOutcome {
    Unanswered,
    Answered(Answer),
    /// The application holds a promise.
    Promised,
    /// The application wanted to promise an answer, but holds too many promises.
    Refused,
}

impl CallOutcome {
    /// Returns the answer to the event. An event that its handler did not answer is answered 500.
    pub fn into_answer(self, host: &Host) -> Answer {
        match self {
            CallOutcome::Answered(answer) => answer,
            CallOutcome::Promised => Answer::never(),
            CallOutcome::Refused => Answer::refusal(420, None),
            CallOutcome::Unanswered => {
                tracing::debug!(
                    app = host.name,
                    "a handler returned without an answer; the event is answered 500"
                );
                Answer::refusal(500, None)
            }
        }
    }

    pub fn is_promised(&self) -> bool {
        matches!(self, CallOutcome::Promised)
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, CallOutcome::Refused)
    }
}

impl CallScope<'_, '_> {
    /// Returns the client that waits for an answer.
    ///
    /// # Errors
    ///
    /// The call is not one that answers, or it has answered already.
    pub fn unanswered(&self) -> Result<ReplyTo, Fault> {
        let CallKind::Event(reply_to) = self.kind else { return Err(Fault::WrongPlace) };
        self.check_unanswered().map(|()| reply_to)
    }

    /// Checks that the call has neither answered nor promised anything.
    ///
    /// # Errors
    ///
    /// [`Fault::Answered`]
    pub fn check_unanswered(&self) -> Result<(), Fault> {
        if matches!(self.outcome, CallOutcome::Unanswered) { Ok(()) } else { Err(Fault::Answered) }
    }
}

/// A registration of an application on one shard.
pub struct Registration<'r> {
    pub registrar: &'r mut Registrar,
    pub host: &'static Host,
    /// The error of the first event that could not be registered.
    pub error: Option<Error>,
}

/// The call that a thread is in.
struct CurrentCall<T> {
    id: Cell<u64>,
    /// Null while a function of the table uses the value: there is never a second reference.
    value: Cell<*mut T>,
}

impl<T> CurrentCall<T> {
    const fn none() -> CurrentCall<T> {
        CurrentCall { id: Cell::new(0), value: Cell::new(ptr::null_mut()) }
    }

    /// Runs a call with a new handle for `value`.
    fn enter<R>(&self, value: *mut T, call: impl FnOnce(u64) -> R) -> R {
        let id = next_id();
        let _restore =
            RestoreCall { current: self, id: self.id.replace(id), value: self.value.replace(value) };
        call(id)
    }

    /// Runs a function of the table with the value of a handle.
    ///
    /// # Errors
    ///
    /// The handle is not that of the current call, or the value is in use.
    fn with<R>(&self, id: u64, run: impl FnOnce(&mut T) -> Result<R, Fault>) -> Result<R, Fault> {
        if id != self.id.get() || id == 0 {
            return Err(if thread_of(id) == thread_of(next_id()) || id == 0 {
                Fault::Stale
            } else {
                Fault::WrongThread
            });
        }
        let value = self.value.replace(ptr::null_mut());
        let _restore = RestoreCall { current: self, id, value };
        // SAFETY: a pointer that is not null is the argument of `enter`, whose call has not ended, because the handle
        // is the current one. The pointer is replaced by null for as long as this reference lives: there is no other
        // reference.
        let value = unsafe { value.as_mut() }.ok_or(Fault::Nested)?;
        run(value)
    }
}

/// Restores the previous call when it is dropped, even by a panic.
struct RestoreCall<'a, T> {
    current: &'a CurrentCall<T>,
    id: u64,
    value: *mut T,
}

impl<T> Drop for RestoreCall<'_, T> {
    fn drop(&mut self) {
        self.current.id.set(self.id);
        self.current.value.set(self.value);
    }
}

/// Low bits of a handle: the number of the call in its thread. The high bits are the number of the thread.
const CALL_BITS: u32 = 44;

static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CONTEXT: CurrentCall<CallScope<'static, 'static>> = const { CurrentCall::none() };
    static REGISTRAR: CurrentCall<Registration<'static>> = const { CurrentCall::none() };
    static LAST_ID: Cell<u64> = const { Cell::new(0) };
}

fn thread_of(id: u64) -> u64 {
    id >> CALL_BITS
}

/// Returns the handle of the next call. With 1,000,000 calls a second, a handle is used again after 200 days.
fn next_id() -> u64 {
    LAST_ID.with(|last| {
        let mut id = last.get();
        if id == 0 {
            // Threads count from 1, and for this reason no handle is 0.
            id = (THREADS.fetch_add(1, Ordering::Relaxed) + 1) << CALL_BITS;
        }
        let in_thread = (id + 1) & ((1 << CALL_BITS) - 1);
        id = thread_of(id) << CALL_BITS | in_thread;
        last.set(id);
        id
    })
}

/// Calls a function of the application with a handle of this context.
pub fn enter(
    cx: &mut Context<'_>,
    host: &'static Host,
    kind: CallKind,
    call: impl FnOnce(Cx),
) -> CallOutcome {
    enter_for(cx, host, kind, call).1
}

/// Like [`enter`], for a function that returns a value.
pub fn enter_for<R>(
    cx: &mut Context<'_>,
    host: &'static Host,
    kind: CallKind,
    call: impl FnOnce(Cx) -> R,
) -> (R, CallOutcome) {
    let mut scope = CallScope { cx, host, kind, outcome: CallOutcome::Unanswered };
    // The cast removes the lifetimes. `CurrentCall` drops the pointer before they end.
    let value = ptr::from_mut(&mut scope).cast();
    let returned = CONTEXT.with(|current| current.enter(value, |id| call(Cx { id })));
    (returned, scope.outcome)
}

/// Runs a function of the table with the context of a handle.
///
/// # Errors
///
/// The handle is invalid, or the function fails.
pub fn with<R>(cx: Cx, run: impl FnOnce(&mut CallScope<'_, '_>) -> Result<R, Fault>) -> Result<R, Fault> {
    CONTEXT.with(|current| current.with(cx.id, |scope| run(scope)))
}

/// Calls the application's `register_events` with a handle of this registration.
pub fn enter_registrar<R>(registration: &mut Registration<'_>, call: impl FnOnce(RegistrarHandle) -> R) -> R {
    let value = ptr::from_mut(registration).cast();
    REGISTRAR.with(|current| current.enter(value, |id| call(RegistrarHandle { id })))
}

/// Runs a function of the table with the registration of a handle.
///
/// # Errors
///
/// The handle is invalid, or the function fails.
pub fn with_registrar<R>(
    registrar: RegistrarHandle,
    run: impl FnOnce(&mut Registration<'_>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    REGISTRAR.with(|current| current.with(registrar.id, |registration| run(registration)))
}
