//! The types of `quickio.h`, field for field. The tests of this module compare the two.
//!
//! The functions of an application are `C-unwind`. If an exception leaves one, the Rust runtime ends the process with a
//! message; without `C-unwind` the behaviour would be undefined.

use crate::client;
use std::ffi::{c_char, c_void};

pub const MAGIC: u32 = 0x314f_4951;
pub const ABI_VERSION: u32 = 1;

pub type Status = i32;

/// The reason why a function of the table did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Fault {
    Busy = 1,
    Gone,
    Answered,
    Stale,
    WrongThread,
    WrongPlace,
    Nested,
    BadPointer,
    BadText,
    BadPath,
    BadJson,
    BadValue,
    Duplicate,
    NotFound,
    TooLong,
    NotRunning,
    Full,
    Panic,
    Failed,
}

impl Fault {
    /// All faults, with their names in the header and their texts.
    #[rustfmt::skip]
    pub const ALL: &'static [(Fault, &'static str, &'static std::ffi::CStr)] = &[
        (Fault::Busy, "QIO_BUSY", c"a shard's inbox is full"),
        (Fault::Gone, "QIO_GONE", c"the promise was already kept, or the client is not connected to this shard"),
        (Fault::Answered, "QIO_ANSWERED", c"the event was already answered, or its answer was promised"),
        (Fault::Stale, "QIO_STALE", c"the function that received this handle has returned"),
        (Fault::WrongThread, "QIO_WRONG_THREAD", c"the handle belongs to another thread"),
        (Fault::WrongPlace, "QIO_WRONG_PLACE", c"this cannot be done here"),
        (Fault::Nested, "QIO_NESTED", c"the context is in use by the call that runs this free function"),
        (Fault::BadPointer, "QIO_BAD_POINTER", c"a pointer is NULL or misaligned"),
        (Fault::BadText, "QIO_BAD_TEXT", c"a text is not UTF-8"),
        (Fault::BadPath, "QIO_BAD_PATH", c"the path is empty or too long, or cannot be registered"),
        (Fault::BadJson, "QIO_BAD_JSON", c"the text is not the JSON that is needed here"),
        (Fault::BadValue, "QIO_BAD_VALUE", c"a value is invalid"),
        (Fault::Duplicate, "QIO_DUPLICATE", c"the path is already registered"),
        (Fault::NotFound, "QIO_NOT_FOUND", c"the item does not exist"),
        (Fault::TooLong, "QIO_TOO_LONG", c"the buffer is too small"),
        (Fault::NotRunning, "QIO_NOT_RUNNING", c"the server is not running yet"),
        (Fault::Full, "QIO_FULL", c"too many promises are open, or the client has its share of them"),
        (Fault::Panic, "QIO_PANIC", c"the server panicked, which is a bug of the server"),
        (Fault::Failed, "QIO_FAILED", c"the application failed"),
    ];

    /// Returns the text of a status.
    pub fn text(status: Status) -> &'static std::ffi::CStr {
        if status == OK {
            return c"no error";
        }
        let known = Fault::ALL.iter().find(|(fault, ..)| *fault as Status == status);
        known.map_or(c"an unknown status", |(_, _, text)| text)
    }
}

pub const OK: Status = 0;

pub const REFUSE: i32 = 0;
pub const ACCEPT: i32 = 1;
#[cfg(test)]
pub const DECIDE_LATER: i32 = 2;
pub const FAIL: i32 = 3;

pub const CHILDREN: u32 = 1;
pub const NO_SUBSCRIPTIONS: u32 = 2;

pub const LOG_ERROR: i32 = 1;
pub const LOG_WARN: i32 = 2;
pub const LOG_INFO: i32 = 3;
pub const LOG_DEBUG: i32 = 4;
#[cfg(test)]
pub const LOG_TRACE: i32 = 5;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Str {
    pub ptr: *const c_char,
    pub len: usize,
}

impl Str {
    /// Returns a pointer to this text. The caller must not use it for longer than the text lives.
    pub fn of(text: &str) -> Str {
        Str { ptr: text.as_ptr().cast(), len: text.len() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Cx {
    pub id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RegistrarHandle {
    pub id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Promise {
    pub id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ServerHandle {
    pub id: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct ClientId {
    pub shard: u32,
    pub slot: u32,
    pub generation: u32,
}

impl From<client::ClientId> for ClientId {
    fn from(id: client::ClientId) -> ClientId {
        ClientId { shard: id.shard.into(), slot: id.slot, generation: id.generation }
    }
}

impl From<ClientId> for client::ClientId {
    fn from(client: ClientId) -> client::ClientId {
        // A shard number above `u16::MAX` belongs to no shard, and its client is like one that has disconnected.
        let shard = u16::try_from(client.shard).unwrap_or(u16::MAX);
        client::ClientId { shard, slot: client.slot, generation: client.generation }
    }
}

#[repr(C)]
pub struct Event {
    pub client: ClientId,
    pub wants_answer: u32,
    pub path: Str,
    pub extra: Str,
    pub data: Str,
}

#[repr(C)]
pub struct Reply {
    pub client: ClientId,
    pub wants_answer: u32,
    pub data: Str,
}

#[repr(C)]
pub struct Subscription {
    pub client: ClientId,
    pub reserved: u32,
    pub path: Str,
    pub extra: Str,
    pub data: Str,
    pub options: Str,
}

#[repr(C)]
pub struct Unsubscribed {
    pub client: ClientId,
    pub reserved: u32,
    pub path: Str,
    pub extra: Str,
}

pub type User = *mut c_void;
pub type Free = extern "C-unwind" fn(User);
pub type Handler = extern "C-unwind" fn(Cx, *const Event, User);
pub type OnHook = extern "C-unwind" fn(Cx, *const Subscription, User) -> i32;
pub type OffHook = extern "C-unwind" fn(Cx, *const Unsubscribed, User);
pub type ReplyHandler = extern "C-unwind" fn(Cx, *const Reply, User);
pub type Timer = extern "C-unwind" fn(Cx, User);

#[derive(Clone, Copy)]
#[repr(C)]
pub struct EventSpec {
    pub size: u32,
    pub flags: u32,
    pub path: Str,
    pub handler: Option<Handler>,
    pub on: Option<OnHook>,
    pub off: Option<OffHook>,
    pub user: User,
    pub free: Option<Free>,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Callback {
    pub run: Option<ReplyHandler>,
    pub user: User,
    pub free: Option<Free>,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Answer {
    pub size: u32,
    pub code: u32,
    pub data: Str,
    pub message: Str,
    pub callback: *const Callback,
}

#[rustfmt::skip]
#[repr(C)]
pub struct Api {
    pub abi: u32,
    pub size: u32,
    pub error_text: extern "C" fn(Status) -> *const c_char,
    pub fail: extern "C" fn(ServerHandle, Str),
    pub log: extern "C" fn(ServerHandle, i32, Str),
    pub log_enabled: extern "C" fn(i32) -> i32,
    pub setting: extern "C" fn(ServerHandle, Str, *mut Str) -> Status,
    pub setting_nth: extern "C" fn(ServerHandle, usize, *mut Str, *mut Str) -> Status,
    pub registrar_shard: extern "C" fn(RegistrarHandle) -> u32,
    pub register_event: extern "C" fn(RegistrarHandle, *const EventSpec) -> Status,
    pub every: extern "C" fn(RegistrarHandle, u64, Option<Timer>, User, Option<Free>) -> Status,
    pub shard: extern "C" fn(Cx) -> u32,
    pub now_ms: extern "C" fn(Cx) -> u64,
    pub answer: extern "C" fn(Cx, Str) -> Status,
    pub answer_error: extern "C" fn(Cx, u32, Str) -> Status,
    pub answer_with: extern "C" fn(Cx, *const Answer) -> Status,
    pub answer_never: extern "C" fn(Cx) -> Status,
    pub later: extern "C" fn(Cx, *mut Promise) -> Status,
    pub later_decision: extern "C" fn(Cx, *mut Promise) -> Status,
    pub broadcast: extern "C" fn(Cx, Str, Str) -> Status,
    pub send: extern "C" fn(Cx, ClientId, Str, Str, *const Callback) -> Status,
    pub close: extern "C" fn(Cx, ClientId) -> Status,
    pub move_: extern "C" fn(Cx, ClientId, Str) -> Status,
    pub after: extern "C" fn(Cx, u64, Option<Timer>, User, Option<Free>) -> Status,
    pub client_data: extern "C" fn(Cx, ClientId) -> User,
    pub set_client_data: extern "C" fn(Cx, ClientId, User, Option<Free>) -> Status,
    pub take_client_data: extern "C" fn(Cx, ClientId) -> User,
    pub promise_answer: extern "C" fn(Promise, *const Answer) -> Status,
    pub promise_decide: extern "C" fn(Promise, i32) -> Status,
    pub promise_drop: extern "C" fn(Promise) -> Status,
    pub promise_client: extern "C" fn(Promise, *mut ClientId) -> Status,
    pub server_broadcast: extern "C" fn(ServerHandle, Str, Str) -> Status,
    pub server_send: extern "C" fn(ServerHandle, ClientId, Str, Str, *const Callback) -> Status,
    pub server_close: extern "C" fn(ServerHandle, ClientId) -> Status,
    pub server_move: extern "C" fn(ServerHandle, ClientId, Str) -> Status,
    pub json_check: extern "C" fn(Str) -> Status,
    pub json_member: extern "C" fn(Str, Str, *mut Str) -> Status,
    pub json_text: extern "C" fn(Str, *mut c_char, usize, *mut usize) -> Status,
    pub json_string: extern "C" fn(Str, *mut c_char, usize, *mut usize) -> Status,
    pub client_user: extern "C" fn(Cx, ClientId, *mut Str) -> Status,
    pub client_claims: extern "C" fn(Cx, ClientId, *mut Str) -> Status,
    pub client_header: extern "C" fn(Cx, ClientId, Str, *mut Str) -> Status,
    pub client_certificate: extern "C" fn(Cx, ClientId, *mut Str) -> Status,
    pub client_address: extern "C" fn(Cx, ClientId, *mut c_char, usize, *mut usize) -> Status,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct AppInfo {
    pub magic: u32,
    pub abi: u32,
    pub size: u32,
    pub reserved: u32,
    pub name: *const c_char,
    pub init: Option<extern "C-unwind" fn(*const Api, ServerHandle) -> i32>,
    pub register_events: Option<extern "C-unwind" fn(RegistrarHandle) -> i32>,
    pub start: Option<extern "C-unwind" fn() -> i32>,
    pub stop: Option<extern "C-unwind" fn()>,
    pub self_test: Option<extern "C-unwind" fn() -> i32>,
}
