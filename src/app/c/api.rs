//! The functions of `qio_api`. Each begins with [`guarded`], which catches panics, and reads and writes pointers only
//! with [`bytes`], [`read`], [`write`] and [`write_text`], which check them.

#![allow(unsafe_code)]

use super::abi::{self, ABI_VERSION, Api, Fault, OK, Status, Str};
use super::host::Host;
use super::promises::{ClientPromises, HeldPromise, PROMISES};
use super::scope::{self, CallKind, CallOutcome, CallScope};
use super::user::{self, HeldPointer, OwnedPointer, guarded};
use super::{events, json};
use crate::app::paths;
use crate::app::{
    Answer, AnswerState, Busy, ClientInfo, Command, Json, Later, LaterDecision, LocalCommand, SendCallback,
    Server,
};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::limits::C_LOG_BYTES_MAX;
use std::cell::RefCell;
use std::ffi::c_char;
use std::ptr::null_mut;
use std::time::Duration;

/// The table of functions.
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
    client_user,
    client_claims,
    client_header,
    client_certificate,
    client_address,
};

// The beginnings of the functions.

/// Runs a function and returns its status.
fn status(run: impl FnOnce() -> Result<(), Fault>) -> Status {
    guarded(Fault::Panic as Status, || run().map_or_else(|fault| fault as Status, |()| OK))
}

/// Runs a function with the context of a handle.
fn in_scope(cx: abi::Cx, run: impl FnOnce(&mut CallScope<'_, '_>) -> Result<(), Fault>) -> Status {
    status(|| scope::with(cx, run))
}

/// Runs a function with the server of a handle, on any thread.
fn on_server(server: abi::ServerHandle, run: impl FnOnce(&Server) -> Result<(), Fault>) -> Status {
    status(|| run(Host::of(server)?.server()?))
}

// Pointers.

/// Returns the bytes of a text. The caller must not keep them beyond the call.
fn bytes<'a>(text: Str) -> Result<&'a [u8], Fault> {
    if text.len == 0 {
        return Ok(&[]);
    }
    if text.ptr.is_null() || text.len > isize::MAX as usize {
        return Err(Fault::BadPointer);
    }
    // SAFETY: the pointer is not null, the length is possible, and bytes are always aligned. The header requires that
    // the bytes exist and do not change until the call returns, and no caller keeps them for longer.
    Ok(unsafe { std::slice::from_raw_parts(text.ptr.cast(), text.len) })
}

fn text<'a>(text: Str) -> Result<&'a str, Fault> {
    std::str::from_utf8(bytes(text)?).map_err(|_| Fault::BadText)
}

fn data(json: Str) -> Result<Json, Fault> {
    // Most answers have no data.
    if json.len == 0 { Ok(Json::NULL) } else { Json::checked(text(json)?).map_err(|_| Fault::BadJson) }
}

fn path(of: Str) -> Result<Path, Fault> {
    paths::parse(text(of)?).map_err(|_| Fault::BadPath)
}

/// Reads a structure of the application.
fn read<T: Copy>(ptr: *const T) -> Result<T, Fault> {
    if ptr.is_null() || !ptr.is_aligned() {
        return Err(Fault::BadPointer);
    }
    // SAFETY: the pointer is neither null nor misaligned. Its type is one of the ABI, which consists of numbers and
    // pointers, and for which all bits are valid. The header requires that the pointer points to such a structure.
    Ok(unsafe { ptr.read() })
}

/// Reads a structure that begins with its own size. A newer application's structure may be larger.
fn read_sized<T: Copy>(ptr: *const T) -> Result<T, Fault> {
    // The size is its first field.
    if read(ptr.cast::<u32>())? < size_of::<T>() as u32 {
        return Err(Fault::BadValue);
    }
    read(ptr)
}

/// Writes a result of a function through a pointer.
fn write<T>(ptr: *mut T, value: T) -> Result<(), Fault> {
    if ptr.is_null() || !ptr.is_aligned() {
        return Err(Fault::BadPointer);
    }
    // SAFETY: the pointer is neither null nor misaligned. The header requires that it points to room for the value.
    unsafe { ptr.write(value) };
    Ok(())
}

/// Writes a text, followed by a 0, to a buffer of `room` bytes. The length of the text, without the 0, is written to
/// `len`.
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
    // SAFETY: the buffer is larger than the text, and the header requires that it has this size. It does not overlap
    // the text, which was created by this call.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

// Parameters that the application gives away. They are read before any check that may fail: they are freed in any case.

/// A callback that the application passes to a function.
struct CallbackParameter {
    run: Option<abi::ReplyHandler>,
    user: OwnedPointer,
}

impl CallbackParameter {
    /// Reads a callback. Returns `None` if the pointer is null.
    fn read(callback: *const abi::Callback) -> Result<Option<CallbackParameter>, Fault> {
        if callback.is_null() {
            return Ok(None);
        }
        let abi::Callback { run, user, free } = read(callback)?;
        Ok(Some(CallbackParameter { run, user: OwnedPointer::new(user, free) }))
    }

    fn into_callback(self, host: &'static Host) -> Result<SendCallback, Fault> {
        let run = self.run.ok_or(Fault::BadPointer)?;
        Ok(user::callback(host, run, self.user.held_for(host)))
    }
}

fn into_callback(
    callback: Option<CallbackParameter>,
    host: &'static Host,
) -> Result<Option<SendCallback>, Fault> {
    callback.map(|callback| callback.into_callback(host)).transpose()
}

/// An answer that the application passes to a function.
struct AnswerParameter {
    code: u32,
    data: Str,
    message: Str,
    callback: Option<CallbackParameter>,
}

impl AnswerParameter {
    fn read(answer: *const abi::Answer) -> Result<AnswerParameter, Fault> {
        let abi::Answer { code, data, message, callback, .. } = read_sized(answer)?;
        Ok(AnswerParameter { code, data, message, callback: CallbackParameter::read(callback)? })
    }

    fn into_answer(self, host: &'static Host) -> Result<Answer<SendCallback>, Fault> {
        let callback = into_callback(self.callback, host)?;
        let code = u16::try_from(self.code).map_err(|_| Fault::BadValue)?;
        let message = if self.message.ptr.is_null() { None } else { Some(text(self.message)?.into()) };
        Ok(Answer(AnswerState::Ready { code, data: data(self.data)?, message, callback }))
    }
}

// Functions for any thread: errors, log, settings.

extern "C" fn error_text(status: Status) -> *const c_char {
    Fault::text(status).as_ptr()
}

extern "C" fn fail(server: abi::ServerHandle, why: Str) {
    status(|| {
        let why = bytes(why)?;
        Host::of(server)?.set_failure(lossy(why));
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

/// Returns a text for the log. Bytes that are not UTF-8 are replaced, and a text that is too long is cut.
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
        let found = Host::of(server)?.settings.iter().nth(nth).ok_or(Fault::NotFound)?;
        write(key, Str::of(found.0))?;
        write(value, Str::of(found.1))
    })
}

// Functions for `register_events`.

extern "C" fn registrar_shard(registrar: abi::RegistrarHandle) -> u32 {
    let shard = || scope::with_registrar(registrar, |registration| Ok(registration.registrar.shard().into()));
    guarded(u32::MAX, || shard().unwrap_or(u32::MAX))
}

extern "C" fn register_event(registrar: abi::RegistrarHandle, spec: *const abi::EventSpec) -> Status {
    status(|| {
        let spec: abi::EventSpec = read_sized(spec)?;
        let user = OwnedPointer::new(spec.user, spec.free);
        scope::with_registrar(registrar, |registration| {
            events::register(registration, &spec, text(spec.path), user)
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
    let user = OwnedPointer::new(user, free);
    status(|| {
        scope::with_registrar(registrar, |registration| {
            let run = run.ok_or(Fault::BadPointer)?;
            let run = user::timer(registration.host, run, user.held_for(registration.host));
            registration.registrar.every(Duration::from_millis(period_ms), run);
            Ok(())
        })
    })
}

// Functions for a context.

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
        scope.outcome = CallOutcome::Answered(Answer::data(data(json)?));
        Ok(())
    })
}

extern "C" fn answer_error(cx: abi::Cx, code: u32, message: Str) -> Status {
    in_scope(cx, |scope| {
        scope.unanswered()?;
        let code = u16::try_from(code).map_err(|_| Fault::BadValue)?;
        let message = if message.ptr.is_null() { None } else { Some(text(message)?.into()) };
        scope.outcome = CallOutcome::Answered(Answer::refusal(code, message));
        Ok(())
    })
}

extern "C" fn answer_with(cx: abi::Cx, answer: *const abi::Answer) -> Status {
    status(|| {
        let answer = AnswerParameter::read(answer)?;
        scope::with(cx, |scope| {
            scope.unanswered()?;
            scope.outcome = CallOutcome::Answered(answer.into_answer(scope.host)?.into_local());
            Ok(())
        })
    })
}

extern "C" fn answer_never(cx: abi::Cx) -> Status {
    in_scope(cx, |scope| {
        scope.unanswered()?;
        scope.outcome = CallOutcome::Answered(Answer::never());
        Ok(())
    })
}

extern "C" fn later(cx: abi::Cx, promise: *mut abi::Promise) -> Status {
    in_scope(cx, |scope| {
        let reply_to = scope.unanswered()?;
        write(promise, NO_PROMISE)?;
        let later = Later::new(scope.cx.server().clone(), reply_to);
        let held = HeldPromise::Answer(later, scope.host);
        write(promise, hold(scope, held)?)
    })
}

extern "C" fn later_decision(cx: abi::Cx, promise: *mut abi::Promise) -> Status {
    in_scope(cx, |scope| {
        let CallKind::Subscription(reply_to, path) = scope.kind else { return Err(Fault::WrongPlace) };
        scope.check_unanswered()?;
        write(promise, NO_PROMISE)?;
        let later = LaterDecision::new(scope.cx.server().clone(), reply_to, path);
        write(promise, hold(scope, HeldPromise::Decision(later))?)
    })
}

thread_local! {
    /// The promises of the clients of this thread's shard.
    static CLIENT_PROMISES: RefCell<ClientPromises> = RefCell::default();
}

/// Keeps a promise for the application. If there are too many, or if the client has its share, the event or subscription
/// is refused with 420.
fn hold(scope: &mut CallScope<'_, '_>, promise: HeldPromise) -> Result<abi::Promise, Fault> {
    CLIENT_PROMISES.with_borrow_mut(|clients| {
        let handle = PROMISES.insert(clients, promise).map_err(|promise| {
            promise.forget();
            scope.outcome = CallOutcome::Refused;
            scope.cx.count_refused_promise();
            Fault::Full
        })?;
        scope.outcome = CallOutcome::Promised;
        Ok(handle)
    })
}

/// The handle of no promise.
const NO_PROMISE: abi::Promise = abi::Promise { id: 0 };

extern "C" fn broadcast(cx: abi::Cx, to: Str, json: Str) -> Status {
    in_scope(cx, |scope| {
        scope.cx.broadcast(&path(to)?, data(json)?);
        Ok(())
    })
}

extern "C" fn send(
    cx: abi::Cx,
    client: abi::ClientId,
    to: Str,
    json: Str,
    callback: *const abi::Callback,
) -> Status {
    status(|| {
        let callback = CallbackParameter::read(callback)?;
        scope::with(cx, |scope| {
            let callback = into_callback(callback, scope.host)?;
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

extern "C" fn close(cx: abi::Cx, client: abi::ClientId) -> Status {
    in_scope(cx, |scope| {
        scope.cx.close(client.into());
        Ok(())
    })
}

extern "C" fn move_(cx: abi::Cx, client: abi::ClientId, address: Str) -> Status {
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
    let user = OwnedPointer::new(user, free);
    status(|| {
        scope::with(cx, |scope| {
            let run = run.ok_or(Fault::BadPointer)?;
            let mut run = user::timer(scope.host, run, user.held_for(scope.host));
            scope.cx.after(Duration::from_millis(ms), move |cx| run(cx));
            Ok(())
        })
    })
}

extern "C" fn client_data(cx: abi::Cx, client: abi::ClientId) -> abi::User {
    let find = |scope: &mut CallScope<'_, '_>| {
        Ok(scope.cx.client_data::<HeldPointer>(client.into()).map_or(null_mut(), |data| data.ptr()))
    };
    guarded(null_mut(), || scope::with(cx, find).unwrap_or(null_mut()))
}

extern "C" fn set_client_data(
    cx: abi::Cx,
    client: abi::ClientId,
    data: abi::User,
    free: Option<abi::Free>,
) -> Status {
    let data = OwnedPointer::new(data, free);
    status(|| {
        scope::with(cx, |scope| {
            let is_kept = scope.cx.set_client_data(client.into(), data.held_for(scope.host));
            if is_kept { Ok(()) } else { Err(Fault::Gone) }
        })
    })
}

extern "C" fn take_client_data(cx: abi::Cx, client: abi::ClientId) -> abi::User {
    let take = |scope: &mut CallScope<'_, '_>| {
        let data = scope.cx.take_client_data::<HeldPointer>(client.into());
        Ok(data.map_or(null_mut(), HeldPointer::into_ptr))
    };
    guarded(null_mut(), || scope::with(cx, take).unwrap_or(null_mut()))
}

// Functions for any thread: promises.

extern "C" fn promise_answer(promise: abi::Promise, answer: *const abi::Answer) -> Status {
    status(|| {
        let answer = AnswerParameter::read(answer)?;
        let entry = PROMISES.get(promise)?;
        let answer = answer.into_answer(entry.host()?)?;
        let (promise, slot) = entry.take()?;
        let (later, host) = match promise {
            HeldPromise::Answer(later, host) => (later, host),
            decision @ HeldPromise::Decision(_) => {
                slot.put_back(decision);
                return Err(Fault::WrongPlace);
            }
        };
        later.answer(answer).map_err(|unanswered| {
            slot.put_back(HeldPromise::Answer(unanswered.later, host));
            Fault::Busy
        })
    })
}

extern "C" fn promise_decide(promise: abi::Promise, accepted: i32) -> Status {
    status(|| {
        let (promise, slot) = PROMISES.get(promise)?.take()?;
        let later = match promise {
            HeldPromise::Decision(later) => later,
            answer @ HeldPromise::Answer(..) => {
                slot.put_back(answer);
                return Err(Fault::WrongPlace);
            }
        };
        later.decide(accepted != 0).map_err(|later| {
            slot.put_back(HeldPromise::Decision(later));
            Fault::Busy
        })
    })
}

extern "C" fn promise_drop(promise: abi::Promise) -> Status {
    status(|| PROMISES.get(promise)?.take().map(drop))
}

extern "C" fn promise_client(promise: abi::Promise, client: *mut abi::ClientId) -> Status {
    status(|| write(client, PROMISES.get(promise)?.client().into()))
}

// Functions for any thread: the server.

fn posted(result: Result<(), Busy>) -> Result<(), Fault> {
    result.map_err(|Busy| Fault::Busy)
}

extern "C" fn server_broadcast(server: abi::ServerHandle, to: Str, json: Str) -> Status {
    on_server(server, |server| posted(server.broadcast(&path(to)?, data(json)?)))
}

extern "C" fn server_send(
    server: abi::ServerHandle,
    client: abi::ClientId,
    to: Str,
    json: Str,
    callback: *const abi::Callback,
) -> Status {
    status(|| {
        let callback = CallbackParameter::read(callback)?;
        let host = Host::of(server)?;
        let (server, path, data) = (host.server()?, path(to)?, data(json)?);
        posted(match into_callback(callback, host)? {
            Some(callback) => server.send_with_callback(client.into(), &path, data, callback),
            None => server.send(client.into(), &path, data),
        })
    })
}

extern "C" fn server_close(server: abi::ServerHandle, client: abi::ClientId) -> Status {
    on_server(server, |server| posted(server.close(client.into())))
}

extern "C" fn server_move(server: abi::ServerHandle, client: abi::ClientId, address: Str) -> Status {
    on_server(server, |server| {
        let client = ClientId::from(client);
        posted(server.send(client, &paths::of_move(), Json::string(text(address)?)))?;
        posted(server.close(client))
    })
}

// Functions for any thread: JSON.

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

// What the server knows of a client.

/// Writes a text of a client of this shard, which lives until the function of the application has returned: what is known of
/// a client changes only between such calls.
fn of_client(
    cx: abi::Cx,
    client: abi::ClientId,
    value: *mut Str,
    find: impl FnOnce(&ClientInfo<'_>) -> Result<Option<Str>, Fault>,
) -> Status {
    in_scope(cx, |scope| {
        let info = scope.cx.client(client.into()).ok_or(Fault::Gone)?;
        write(value, find(&info)?.ok_or(Fault::NotFound)?)
    })
}

extern "C" fn client_user(cx: abi::Cx, client: abi::ClientId, value: *mut Str) -> Status {
    of_client(cx, client, value, |info| Ok(info.user().map(Str::of)))
}

extern "C" fn client_claims(cx: abi::Cx, client: abi::ClientId, value: *mut Str) -> Status {
    of_client(cx, client, value, |info| Ok(info.claims().map(Str::of)))
}

extern "C" fn client_header(cx: abi::Cx, client: abi::ClientId, name: Str, value: *mut Str) -> Status {
    of_client(cx, client, value, |info| Ok(info.header(text(name)?).map(Str::of)))
}

extern "C" fn client_certificate(cx: abi::Cx, client: abi::ClientId, value: *mut Str) -> Status {
    of_client(cx, client, value, |info| Ok(info.certificate().map(Str::of)))
}

extern "C" fn client_address(
    cx: abi::Cx,
    client: abi::ClientId,
    out: *mut c_char,
    room: usize,
    len: *mut usize,
) -> Status {
    in_scope(cx, |scope| {
        let info = scope.cx.client(client.into()).ok_or(Fault::Gone)?;
        let address = info.address().ok_or(Fault::NotFound)?;
        write_text(&address.to_string(), out, room, len)
    })
}
