//! The functions of `qio_api`. Each begins with [`guarded`], which ends panics, and takes its pointers by [`text`],
//! [`of_ptr`] and [`write`], which check them; nothing else here looks behind a pointer.

#![allow(unsafe_code)]

use super::abi::{self, ABI_VERSION, Api, Fault, OK, Status, Str};
use super::host::Host;
use super::promises::{Emptied, Open, PROMISES};
use super::scope::{self, Kind, Said, Scope};
use super::user::{self, Given, User, guarded};
use super::{events, json};
use crate::app::paths;
use crate::app::{
    Answer, AnswerState, Busy, Command, Json, Later, LaterDecision, LocalCommand, SendCallback, Server,
};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::limits::C_LOG_BYTES_MAX;
use std::ffi::c_char;
use std::ptr::null_mut;
use std::time::Duration;

/// The table.
pub static API: Api = Api {
    abi: ABI_VERSION,
    size: size_of::<Api>() as u32,
    error_text,
    fail,
    log,
    log_enabled,
    setting,
    setting_nth,
    registrar_shard,
    register_event,
    every,
    shard,
    now_ms,
    answer,
    answer_error,
    answer_with,
    answer_never,
    later,
    later_decision,
    broadcast,
    send,
    close,
    move_,
    after,
    client_data,
    set_client_data,
    take_client_data,
    promise_answer,
    promise_decide,
    promise_drop,
    promise_client,
    server_broadcast,
    server_send,
    server_close,
    server_move,
    json_check,
    json_member,
    json_text,
    json_string,
};

// What the functions begin with.

fn status(run: impl FnOnce() -> Result<(), Fault>) -> Status {
    guarded(Fault::Panic as Status, || run().map_or_else(|fault| fault as Status, |()| OK))
}

/// What is done in a context.
fn in_scope(cx: abi::Cx, run: impl FnOnce(&mut Scope<'_, '_>) -> Result<(), Fault>) -> Status {
    status(|| scope::with(cx, run))
}

/// What is done by any thread.
fn on_server(server: abi::ServerHandle, run: impl FnOnce(&Server) -> Result<(), Fault>) -> Status {
    status(|| run(Host::of(server)?.server()?))
}

// Pointers.

/// Bytes that an application points at, for as long as the call lasts.
fn bytes<'a>(text: Str) -> Result<&'a [u8], Fault> {
    if text.len == 0 {
        return Ok(&[]);
    }
    if text.ptr.is_null() || text.len > isize::MAX as usize {
        return Err(Fault::BadPointer);
    }
    // SAFETY: it is neither null nor longer than anything can be, and bytes are always aligned. That they are there, and stay
    // as they are until the call returns, is what the header asks of the application; nobody keeps them longer.
    Ok(unsafe { std::slice::from_raw_parts(text.ptr.cast(), text.len) })
}

fn text<'a>(text: Str) -> Result<&'a str, Fault> {
    std::str::from_utf8(bytes(text)?).map_err(|_| Fault::BadText)
}

fn data(json: Str) -> Result<Json, Fault> {
    // Most answers have none.
    if json.len == 0 { Ok(Json::NULL) } else { text(json).map(Json::from) }
}

fn path(of: Str) -> Result<Path, Fault> {
    paths::parse(text(of)?).map_err(|_| Fault::BadPath)
}

/// A struct of the application's.
fn of_ptr<T: Copy>(ptr: *const T) -> Result<T, Fault> {
    if ptr.is_null() || !ptr.is_aligned() {
        return Err(Fault::BadPointer);
    }
    // SAFETY: it is neither null nor misaligned, and of a type of the ABI, for which any bits are a value: numbers and
    // pointers. That it points at one is what the header asks of the application.
    Ok(unsafe { ptr.read() })
}

/// A struct that says its own size, which may have grown since.
fn of_sized<T: Copy>(ptr: *const T) -> Result<T, Fault> {
    // The size is its first field.
    if of_ptr(ptr.cast::<u32>())? < size_of::<T>() as u32 {
        return Err(Fault::BadValue);
    }
    of_ptr(ptr)
}

/// Writes what a function answers by a pointer.
fn write<T>(ptr: *mut T, value: T) -> Result<(), Fault> {
    if ptr.is_null() || !ptr.is_aligned() {
        return Err(Fault::BadPointer);
    }
    // SAFETY: it is neither null nor misaligned; that it points at room for a value is what the header asks of the
    // application.
    unsafe { ptr.write(value) };
    Ok(())
}

/// Writes a text and a 0 behind it.
fn write_text(text: &str, out: *mut c_char, room: usize, len: *mut usize) -> Result<(), Fault> {
    if !len.is_null() {
        write(len, text.len())?;
    }
    if text.len() >= room {
        return Err(Fault::TooLong);
    }
    if out.is_null() {
        return Err(Fault::BadPointer);
    }
    // SAFETY: the room is more than the text, and the header asks of the application that it is there. It does not overlap
    // the text, which was made anew.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

// What is given away. It is taken before anything is checked that may fail, so that it is freed in any case.

/// A callback of the application's.
struct Offered {
    run: Option<abi::ReplyHandler>,
    given: Given,
}

impl Offered {
    /// None where the pointer is null.
    fn of(callback: *const abi::Callback) -> Result<Option<Offered>, Fault> {
        if callback.is_null() {
            return Ok(None);
        }
        let abi::Callback { run, user, free } = of_ptr(callback)?;
        Ok(Some(Offered { run, given: Given::new(user, free) }))
    }

    fn bind(self, host: &'static Host) -> Result<SendCallback, Fault> {
        let run = self.run.ok_or(Fault::BadPointer)?;
        Ok(user::callback(host, run, self.given.tied(host)))
    }
}

fn bind(offered: Option<Offered>, host: &'static Host) -> Result<Option<SendCallback>, Fault> {
    offered.map(|offered| offered.bind(host)).transpose()
}

/// An answer of the application's.
struct Written {
    code: u32,
    data: Str,
    message: Str,
    callback: Option<Offered>,
}

impl Written {
    fn of(answer: *const abi::Answer) -> Result<Written, Fault> {
        let abi::Answer { code, data, message, callback, .. } = of_sized(answer)?;
        Ok(Written { code, data, message, callback: Offered::of(callback)? })
    }

    fn bind(self, host: &'static Host) -> Result<Answer<SendCallback>, Fault> {
        let callback = bind(self.callback, host)?;
        let code = u16::try_from(self.code).map_err(|_| Fault::BadValue)?;
        let message = if self.message.ptr.is_null() { None } else { Some(text(self.message)?.into()) };
        Ok(Answer(AnswerState::Ready { code, data: data(self.data)?, message, callback }))
    }
}

// Any thread: errors, log, settings.

extern "C" fn error_text(status: Status) -> *const c_char {
    Fault::text(status).as_ptr()
}

extern "C" fn fail(server: abi::ServerHandle, why: Str) {
    status(|| {
        let why = bytes(why)?;
        Host::of(server)?.fail(lossy(why));
        Ok(())
    });
}

extern "C" fn log(server: abi::ServerHandle, level: i32, line: Str) {
    status(|| {
        let (app, line) = (Host::of(server)?.name.as_str(), bytes(line)?);
        match level {
            abi::LOG_ERROR => tracing::error!(app, "{}", lossy(line)),
            abi::LOG_WARN => tracing::warn!(app, "{}", lossy(line)),
            abi::LOG_INFO => tracing::info!(app, "{}", lossy(line)),
            abi::LOG_DEBUG => tracing::debug!(app, "{}", lossy(line)),
            _ => tracing::trace!(app, "{}", lossy(line)),
        }
        Ok(())
    });
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(C_LOG_BYTES_MAX)]).into_owned()
}

extern "C" fn log_enabled(level: i32) -> i32 {
    guarded(0, || {
        let enabled = match level {
            abi::LOG_ERROR => tracing::enabled!(tracing::Level::ERROR),
            abi::LOG_WARN => tracing::enabled!(tracing::Level::WARN),
            abi::LOG_INFO => tracing::enabled!(tracing::Level::INFO),
            abi::LOG_DEBUG => tracing::enabled!(tracing::Level::DEBUG),
            _ => tracing::enabled!(tracing::Level::TRACE),
        };
        enabled.into()
    })
}

extern "C" fn setting(server: abi::ServerHandle, key: Str, value: *mut Str) -> Status {
    status(|| {
        let found = Host::of(server)?.settings.get(text(key)?).ok_or(Fault::NotFound)?;
        write(value, Str::of(found))
    })
}

extern "C" fn setting_nth(server: abi::ServerHandle, nth: usize, key: *mut Str, value: *mut Str) -> Status {
    status(|| {
        let (its_key, its_value) = Host::of(server)?.settings.iter().nth(nth).ok_or(Fault::NotFound)?;
        write(key, Str::of(its_key))?;
        write(value, Str::of(its_value))
    })
}

// Registering.

extern "C" fn registrar_shard(registrar: abi::RegistrarHandle) -> u32 {
    let shard = || scope::with_registrar(registrar, |registering| Ok(registering.registrar.shard().into()));
    guarded(u32::MAX, || shard().unwrap_or(u32::MAX))
}

extern "C" fn register_event(registrar: abi::RegistrarHandle, spec: *const abi::EventSpec) -> Status {
    status(|| {
        let spec: abi::EventSpec = of_sized(spec)?;
        let given = Given::new(spec.user, spec.free);
        scope::with_registrar(registrar, |registering| {
            events::register(registering, &spec, text(spec.path), given)
        })
    })
}

extern "C" fn every(
    registrar: abi::RegistrarHandle,
    period_ms: u64,
    run: Option<abi::Timer>,
    user: abi::User,
    free: Option<abi::Free>,
) -> Status {
    let given = Given::new(user, free);
    status(|| {
        scope::with_registrar(registrar, |registering| {
            let run = run.ok_or(Fault::BadPointer)?;
            let run = user::timer(registering.host, run, given.tied(registering.host));
            registering.registrar.every(Duration::from_millis(period_ms), run);
            Ok(())
        })
    })
}

// In a context.

extern "C" fn shard(cx: abi::Cx) -> u32 {
    guarded(u32::MAX, || scope::with(cx, |scope| Ok(scope.cx.shard().into())).unwrap_or(u32::MAX))
}

extern "C" fn now_ms(cx: abi::Cx) -> u64 {
    let now = || scope::with(cx, |scope| Ok(scope.cx.now().as_millis() as u64));
    guarded(u64::MAX, || now().unwrap_or(u64::MAX))
}

extern "C" fn answer(cx: abi::Cx, json: Str) -> Status {
    in_scope(cx, |scope| {
        scope.unanswered()?;
        scope.given = Said::Answer(Answer::data(data(json)?));
        Ok(())
    })
}

extern "C" fn answer_error(cx: abi::Cx, code: u32, message: Str) -> Status {
    in_scope(cx, |scope| {
        scope.unanswered()?;
        let code = u16::try_from(code).map_err(|_| Fault::BadValue)?;
        let message = if message.ptr.is_null() { None } else { Some(text(message)?.into()) };
        scope.given = Said::Answer(Answer::refusal(code, message));
        Ok(())
    })
}

extern "C" fn answer_with(cx: abi::Cx, answer: *const abi::Answer) -> Status {
    status(|| {
        let written = Written::of(answer)?;
        scope::with(cx, |scope| {
            scope.unanswered()?;
            scope.given = Said::Answer(written.bind(scope.host)?.into_local());
            Ok(())
        })
    })
}

extern "C" fn answer_never(cx: abi::Cx) -> Status {
    in_scope(cx, |scope| {
        scope.unanswered()?;
        scope.given = Said::Answer(Answer::never());
        Ok(())
    })
}

extern "C" fn later(cx: abi::Cx, promise: *mut abi::Promise) -> Status {
    in_scope(cx, |scope| {
        let reply_to = scope.unanswered()?;
        write(promise, NO_PROMISE)?;
        let open = Open::Answer(Later::new(scope.cx.server().clone(), reply_to), scope.host);
        scope.given = Said::Promised;
        promise_for(open, promise)
    })
}

extern "C" fn later_decision(cx: abi::Cx, promise: *mut abi::Promise) -> Status {
    in_scope(cx, |scope| {
        let Kind::Subscription(reply_to, path) = scope.kind else { return Err(Fault::WrongPlace) };
        scope.undecided()?;
        write(promise, NO_PROMISE)?;
        let open = Open::Decision(LaterDecision::new(scope.cx.server().clone(), reply_to, path));
        scope.given = Said::Promised;
        promise_for(open, promise)
    })
}

const NO_PROMISE: abi::Promise = abi::Promise { id: 0 };

/// Where there are too many the promise is dropped, and so tells the client.
fn promise_for(open: Open, out: *mut abi::Promise) -> Result<(), Fault> {
    write(out, PROMISES.put(open).map_err(|_| Fault::Full)?)
}

extern "C" fn broadcast(cx: abi::Cx, to: Str, json: Str) -> Status {
    in_scope(cx, |scope| {
        scope.cx.broadcast(&path(to)?, data(json)?);
        Ok(())
    })
}

extern "C" fn send(
    cx: abi::Cx,
    client: abi::Client,
    to: Str,
    json: Str,
    callback: *const abi::Callback,
) -> Status {
    status(|| {
        let offered = Offered::of(callback)?;
        scope::with(cx, |scope| {
            let callback = bind(offered, scope.host)?;
            scope.cx.push_local(LocalCommand::Any(Command::Send {
                client: client.into(),
                path: path(to)?,
                data: data(json)?,
                callback,
            }));
            Ok(())
        })
    })
}

extern "C" fn close(cx: abi::Cx, client: abi::Client) -> Status {
    in_scope(cx, |scope| {
        scope.cx.close(client.into());
        Ok(())
    })
}

extern "C" fn move_(cx: abi::Cx, client: abi::Client, address: Str) -> Status {
    in_scope(cx, |scope| {
        scope.cx.move_to(client.into(), text(address)?);
        Ok(())
    })
}

extern "C" fn after(
    cx: abi::Cx,
    ms: u64,
    run: Option<abi::Timer>,
    user: abi::User,
    free: Option<abi::Free>,
) -> Status {
    let given = Given::new(user, free);
    status(|| {
        scope::with(cx, |scope| {
            let mut run = user::timer(scope.host, run.ok_or(Fault::BadPointer)?, given.tied(scope.host));
            scope.cx.after(Duration::from_millis(ms), move |cx| run(cx));
            Ok(())
        })
    })
}

extern "C" fn client_data(cx: abi::Cx, client: abi::Client) -> abi::User {
    let kept = |scope: &mut Scope<'_, '_>| {
        Ok(scope.cx.client_data::<User>(client.into()).map_or(null_mut(), |user| user.ptr()))
    };
    guarded(null_mut(), || scope::with(cx, kept).unwrap_or(null_mut()))
}

extern "C" fn set_client_data(
    cx: abi::Cx,
    client: abi::Client,
    data: abi::User,
    free: Option<abi::Free>,
) -> Status {
    let given = Given::new(data, free);
    status(|| {
        scope::with(cx, |scope| {
            let is_kept = scope.cx.set_client_data(client.into(), given.tied(scope.host));
            if is_kept { Ok(()) } else { Err(Fault::Gone) }
        })
    })
}

extern "C" fn take_client_data(cx: abi::Cx, client: abi::Client) -> abi::User {
    let taken = |scope: &mut Scope<'_, '_>| {
        Ok(scope.cx.take_client_data::<User>(client.into()).map_or(null_mut(), User::into_ptr))
    };
    guarded(null_mut(), || scope::with(cx, taken).unwrap_or(null_mut()))
}

// Any thread: promises.

extern "C" fn promise_answer(promise: abi::Promise, answer: *const abi::Answer) -> Status {
    status(|| {
        let written = Written::of(answer)?;
        let taken = PROMISES.take(promise)?;
        let (later, host, place) = match taken.into_parts() {
            (Open::Answer(later, host), place) => (later, host, place),
            (decision, place) => return refill(place, decision, Fault::WrongPlace),
        };
        match written.bind(host) {
            Ok(answer) => later
                .answer(answer)
                .or_else(|unanswered| refill(place, Open::Answer(unanswered.later, host), Fault::Busy)),
            Err(fault) => refill(place, Open::Answer(later, host), fault),
        }
    })
}

extern "C" fn promise_decide(promise: abi::Promise, accepted: i32) -> Status {
    status(|| match PROMISES.take(promise)?.into_parts() {
        (Open::Decision(later), place) => {
            later.decide(accepted != 0).or_else(|later| refill(place, Open::Decision(later), Fault::Busy))
        }
        (answer, place) => refill(place, answer, Fault::WrongPlace),
    })
}

fn refill(place: Emptied<'_>, open: Open, fault: Fault) -> Result<(), Fault> {
    place.fill(open);
    Err(fault)
}

extern "C" fn promise_drop(promise: abi::Promise) -> Status {
    status(|| PROMISES.take(promise).map(drop))
}

extern "C" fn promise_client(promise: abi::Promise, client: *mut abi::Client) -> Status {
    status(|| {
        let (open, place) = PROMISES.take(promise)?.into_parts();
        let waits = match &open {
            Open::Answer(later, _) => later.client(),
            Open::Decision(later) => later.client(),
        };
        place.fill(open);
        write(client, waits.into())
    })
}

// Any thread: the server.

fn posted(result: Result<(), Busy>) -> Result<(), Fault> {
    result.map_err(|Busy| Fault::Busy)
}

extern "C" fn server_broadcast(server: abi::ServerHandle, to: Str, json: Str) -> Status {
    on_server(server, |server| posted(server.broadcast(&path(to)?, data(json)?)))
}

extern "C" fn server_send(
    server: abi::ServerHandle,
    client: abi::Client,
    to: Str,
    json: Str,
    callback: *const abi::Callback,
) -> Status {
    status(|| {
        let offered = Offered::of(callback)?;
        let host = Host::of(server)?;
        let (server, path, data) = (host.server()?, path(to)?, data(json)?);
        posted(match bind(offered, host)? {
            Some(callback) => server.send_with_callback(client.into(), &path, data, callback),
            None => server.send(client.into(), &path, data),
        })
    })
}

extern "C" fn server_close(server: abi::ServerHandle, client: abi::Client) -> Status {
    on_server(server, |server| posted(server.close(client.into())))
}

extern "C" fn server_move(server: abi::ServerHandle, client: abi::Client, address: Str) -> Status {
    on_server(server, |server| {
        let client = ClientId::from(client);
        posted(server.send(client, &paths::of_move(), Json::string(text(address)?)))?;
        posted(server.close(client))
    })
}

// Any thread: JSON.

extern "C" fn json_check(json: Str) -> Status {
    status(|| json::check(text(json)?))
}

extern "C" fn json_member(json: Str, name: Str, value: *mut Str) -> Status {
    status(|| write(value, Str::of(json::member(text(json)?, text(name)?)?)))
}

extern "C" fn json_text(json: Str, out: *mut c_char, room: usize, len: *mut usize) -> Status {
    status(|| write_text(&json::text(text(json)?)?, out, room, len))
}

extern "C" fn json_string(plain: Str, out: *mut c_char, room: usize, len: *mut usize) -> Status {
    status(|| write_text(Json::string(text(plain)?).as_str(), out, room, len))
}
