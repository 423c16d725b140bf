//! Pointers that an application gives to the server, together with a free function, which runs exactly once.

#![allow(unsafe_code)]

use super::abi;
use super::host::{Host, HostHold};
use super::scope::{self, CallKind};
use crate::app::{Answer, Context, Reply, SendCallback};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A pointer of an application. Dropping it calls the free function.
pub struct OwnedPointer {
    ptr: abi::User,
    free: Option<abi::Free>,
}

// SAFETY: this side never dereferences the pointer. `quickio.h` says that the functions which do may run on any thread.
unsafe impl Send for OwnedPointer {}

impl OwnedPointer {
    pub fn new(ptr: abi::User, free: Option<abi::Free>) -> OwnedPointer {
        OwnedPointer { ptr, free }
    }

    /// Records that the server holds the pointer.
    pub fn held_for(self, host: &'static Host) -> HeldPointer {
        HeldPointer { pointer: self, _hold: host.hold() }
    }
}

impl Drop for OwnedPointer {
    fn drop(&mut self) {
        if let Some(free) = self.free.take() {
            free(self.ptr);
        }
    }
}

/// A pointer of an application that the server holds. While one exists, the application must not be stopped.
pub struct HeldPointer {
    pointer: OwnedPointer,
    /// Dropped after the pointer: fields are dropped in order.
    _hold: HostHold,
}

impl HeldPointer {
    pub fn ptr(&self) -> abi::User {
        self.pointer.ptr
    }

    /// Returns the pointer to the application. It will not be freed.
    pub fn into_ptr(mut self) -> abi::User {
        self.pointer.free = None;
        self.pointer.ptr
    }
}

/// Returns a server callback that calls a function of the application.
pub fn callback(host: &'static Host, run: abi::ReplyHandler, user: HeldPointer) -> SendCallback {
    SendCallback::new(move |cx, reply| call_reply_handler(host, run, &user, cx, reply))
}

fn call_reply_handler(
    host: &'static Host,
    run: abi::ReplyHandler,
    user: &HeldPointer,
    cx: &mut Context<'_>,
    reply: Reply<'_>,
) -> Answer {
    let parameter = abi::Reply {
        client: reply.client.into(),
        wants_answer: reply.wants_answer().into(),
        data: abi::Str::of(reply.data),
    };
    let kind = CallKind::Event(reply.reply_to());
    scope::enter(cx, host, kind, |handle| run(handle, &parameter, user.ptr())).into_answer(host)
}

/// Returns a closure that calls a timer function of the application.
pub fn timer(
    host: &'static Host,
    run: abi::Timer,
    user: HeldPointer,
) -> impl FnMut(&mut Context<'_>) + 'static {
    move |cx| {
        // The closure must own the whole value, not only its pointer: the value is dropped with the closure.
        let user: &HeldPointer = &user;
        scope::enter(cx, host, CallKind::Timer, |handle| run(handle, user.ptr()));
    }
}

/// Runs a function of the table. If it panics, returns `otherwise`: a panic of the server must not unwind into C.
pub fn guarded<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(otherwise)
}
