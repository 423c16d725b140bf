//! What an application gives away together with a free function, which runs exactly once.

#![allow(unsafe_code)]

use super::abi;
use super::host::{Host, Tie};
use super::scope::{self, Kind};
use crate::app::{Answer, Context, Reply, ReplyTo, SendCallback};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A pointer of an application's, and how it is freed when this is dropped.
pub struct Given {
    ptr: abi::User,
    free: Option<abi::Free>,
}

// SAFETY: nothing on this side looks behind the pointer; `quickio.h` says that the functions which do may run on any
// thread.
unsafe impl Send for Given {}

impl Given {
    pub fn new(ptr: abi::User, free: Option<abi::Free>) -> Given {
        Given { ptr, free }
    }

    pub fn tied(self, host: &'static Host) -> User {
        User { given: self, _tie: host.tie() }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Some(free) = self.free.take() {
            free(self.ptr);
        }
    }
}

/// What the server holds of an application's.
pub struct User {
    given: Given,
    /// Dropped behind what was given: while there is one of these the application must not be stopped.
    _tie: Tie,
}

impl User {
    pub fn ptr(&self) -> abi::User {
        self.given.ptr
    }

    /// Gives it back: it will not be freed.
    pub fn into_ptr(mut self) -> abi::User {
        self.given.free = None;
        self.given.ptr
    }
}

/// A server callback that runs a function of the application.
pub fn callback(host: &'static Host, run: abi::ReplyHandler, user: User) -> SendCallback {
    SendCallback::new(move |cx, reply| fire(host, run, &user, cx, reply))
}

fn fire(
    host: &'static Host,
    run: abi::ReplyHandler,
    user: &User,
    cx: &mut Context<'_>,
    reply: Reply<'_>,
) -> Answer {
    let given = abi::Reply {
        client: reply.client.into(),
        wants_answer: reply.wants_answer().into(),
        data: abi::Str::of(reply.data),
    };
    let kind = Kind::ReplyTo(ReplyTo { client: reply.client, callback: reply.callback });
    scope::enter(cx, host, kind, |token| run(token, &given, user.ptr())).answer(host)
}

/// Something that runs once or again and again.
pub fn timer(host: &'static Host, run: abi::Timer, user: User) -> impl FnMut(&mut Context<'_>) + 'static {
    move |cx| {
        // The whole of it is captured, not only its pointer: it is dropped with this closure.
        let user: &User = &user;
        scope::enter(cx, host, Kind::Timer, |token| run(token, user.ptr()));
    }
}

/// Runs a function of the table: a panic of ours ends here.
pub fn guarded<T>(or: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(or)
}
