//! Applications in C: shared objects that the server loads, and the functions that they call.
//!
//! | file | is |
//! | --- | --- |
//! | `quickio.h` | the ABI, documented: what applications are compiled with |
//! | `quickio.hpp` | the same for C++: closures, promises that drop themselves, exceptions that stay inside |
//! | `abi` | the types of `quickio.h` in Rust |
//! | `api` | the functions that applications call |
//! | `events` | what the server calls: handlers and hooks |
//! | `user` | what applications give away: callbacks, timers, pointers with their free functions |
//! | `scope` | contexts: handles that are good while one call lasts |
//! | `promises`, `host` | tables of what handles stand for longer |
//! | `json` | a little JSON |
//! | `elf` | whether a file can be loaded at all |
//!
//! This folder is the only place above `qev` that has `unsafe`: behind every pointer of an application is nothing but its
//! word.

mod abi;
mod api;
mod elf;
mod events;
mod host;
mod json;
mod promises;
mod scope;
#[cfg(test)]
mod tests;
mod user;

use super::{Application, Error, Registrar, Server};
use crate::limits::{C_APPLICATIONS_MAX, C_STOP_WAIT};
use abi::{ABI_VERSION, AppInfo, MAGIC, OK, RegistrarHandle, ServerHandle};
use api::API;
use elf::Not;
use host::Host;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use scope::Registering;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error as ThisError;

/// What an application is exported as.
const SYMBOL: &CStr = c"qio_app";

/// What languages export that have functions only.
const GETTER: &CStr = c"qio_app_get";

/// Bytes of an application's name.
const NAME_BYTES_MAX: usize = 64;

/// Settings of applications, by name and key.
pub type Settings = BTreeMap<String, BTreeMap<String, String>>;

/// Why a file is no application that can run here.
#[derive(Debug, ThisError)]
pub enum LoadError {
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    #[error(
        "it is no shared object; scripts end in .py, .js, .mjs or .cjs, or are executable (chmod +x) and begin with #!"
    )]
    NoObject,
    #[error("it is a program or an object file: link it with -shared -fPIC")]
    NotShared,
    #[error("it is made for {theirs}, and this server is {ours}")]
    WrongMachine { theirs: String, ours: &'static str },
    #[error("the dynamic linker refuses it: {0}")]
    Linker(String),
    #[error("it is no application: it exports neither `qio_app` nor `qio_app_get` (see quickio.h)")]
    NoSymbol,
    #[error("it is no application: its `qio_app` does not begin with QIO_APP_HEAD")]
    WrongMagic,
    #[error("it was compiled for ABI version {0}, and this server has version {ABI_VERSION}")]
    WrongVersion(u32),
    #[error("its `qio_app` is broken: {0}")]
    Broken(&'static str),
    #[error("there are too many applications: {C_APPLICATIONS_MAX} can be loaded")]
    TooMany,
    #[error("init failed: {0}")]
    Init(String),
}

/// An application in a shared object.
pub struct CApplication {
    functions: Functions,
    host: &'static Host,
    file: PathBuf,
    stopped: AtomicBool,
}

/// What it is called by, once `init` was.
struct Functions {
    register_events: Option<extern "C-unwind" fn(RegistrarHandle) -> i32>,
    start: Option<extern "C-unwind" fn() -> i32>,
    stop: Option<extern "C-unwind" fn()>,
    self_test: Option<extern "C-unwind" fn() -> i32>,
}

/// Loads an application and calls its `init`.
///
/// # Errors
///
/// The file is no application that this server can run, or its `init` failed.
pub fn load(file: &Path, settings: &Settings) -> Result<Arc<CApplication>, LoadError> {
    match elf::look(file).map_err(LoadError::Unreadable)? {
        Some(Not::Elf) => return Err(LoadError::NoObject),
        Some(Not::Shared) => return Err(LoadError::NotShared),
        Some(Not::OurMachine(theirs)) => {
            return Err(LoadError::WrongMachine { theirs, ours: std::env::consts::ARCH });
        }
        None => {}
    }
    let library = open(file)?;
    let (info, name) = info(&library)?;
    let settings = settings.get(&name).cloned().unwrap_or_default();
    let (host, handle) = Host::add(name, settings).ok_or(LoadError::TooMany)?;
    // It is never unloaded: its threads, callbacks that are still held, and what the C library keeps of it (atexit,
    // thread-local destructors) may run its code up to the last moment. The process ends soon after it in any case.
    std::mem::forget(library);
    init(&info, host, handle).map_err(LoadError::Init)?;
    let AppInfo { register_events, start, stop, self_test, .. } = info;
    let functions = Functions { register_events, start, stop, self_test };
    Ok(Arc::new(CApplication { functions, host, file: file.to_owned(), stopped: AtomicBool::new(false) }))
}

#[allow(unsafe_code)]
fn open(file: &Path) -> Result<Library, LoadError> {
    // A name without a slash would be looked up along the linker's own path.
    let file = std::path::absolute(file).map_err(LoadError::Unreadable)?;
    // SAFETY: it runs the constructors of a file that the operator has named as part of this server. There is no other
    // safety in that.
    let opened = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) };
    opened.map_err(|error| LoadError::Linker(linker_words(&error)))
}

/// The linker's own words, which libloading keeps beneath its own.
fn linker_words(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// What the application exports, checked.
#[allow(unsafe_code)]
fn info(library: &Library) -> Result<(AppInfo, String), LoadError> {
    let info = exported(library)?;
    if info.is_null() || !info.is_aligned() {
        return Err(LoadError::WrongMagic);
    }
    // SAFETY: it is neither null nor misaligned; a symbol that is something else has four bytes, too, or lies in a section
    // that has.
    let magic = unsafe { info.cast::<u32>().read() };
    if magic != MAGIC {
        return Err(LoadError::WrongMagic);
    }
    // SAFETY: whatever begins with the magic number has two more such fields, in all versions.
    let [_, version, size] = unsafe { info.cast::<[u32; 3]>().read() };
    if version != ABI_VERSION {
        return Err(LoadError::WrongVersion(version));
    }
    if (size as usize) < size_of::<AppInfo>() {
        return Err(LoadError::Broken("its size is too small"));
    }
    // SAFETY: it says that it is of this version and size. Its function pointers have the types of the header, as C had them
    // checked, and may be null where it says so.
    let info = unsafe { info.read() };
    if info.init.is_none() || info.register_events.is_none() {
        return Err(LoadError::Broken("init or register_events is NULL"));
    }
    let name = name(info.name).ok_or(LoadError::Broken("its name is not 1 to 64 of A-Z a-z 0-9 - _"))?;
    Ok((info, name))
}

#[allow(unsafe_code)]
fn exported(library: &Library) -> Result<*const AppInfo, LoadError> {
    // SAFETY: the symbol's address is only looked at as a number here.
    if let Ok(symbol) = unsafe { library.get::<*const AppInfo>(SYMBOL.to_bytes_with_nul()) } {
        return Ok(symbol.as_raw_ptr().cast_const().cast());
    }
    // SAFETY: the header says of which type a function of this name is.
    let getter =
        unsafe { library.get::<extern "C-unwind" fn() -> *const AppInfo>(GETTER.to_bytes_with_nul()) };
    getter.map(|getter| getter()).map_err(|_| LoadError::NoSymbol)
}

/// A name that is terminated and of the characters that names have.
#[allow(unsafe_code)]
fn name(ptr: *const c_char) -> Option<String> {
    let mut name = String::new();
    if ptr.is_null() {
        return None;
    }
    for at in 0..=NAME_BYTES_MAX {
        // SAFETY: no byte up to this one was the last of a terminated text.
        let byte = unsafe { ptr.add(at).read() } as u8;
        match byte {
            0 => return Some(name).filter(|name| !name.is_empty()),
            byte if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) => name.push(byte.into()),
            _ => return None,
        }
    }
    None
}

fn init(info: &AppInfo, host: &'static Host, handle: ServerHandle) -> Result<(), String> {
    let status = info.init.map_or(OK, |init| init(&raw const API, handle));
    outcome(host, status)
}

/// What a function of the application answered, and what it said about that.
fn outcome(host: &Host, status: i32) -> Result<(), String> {
    let why = host.take_failure();
    if status == OK {
        return Ok(());
    }
    let known = || abi::Fault::text(status).to_string_lossy();
    Err(why.unwrap_or_else(|| format!("it answered {status} ({})", known())))
}

impl CApplication {
    /// The file that it came from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Calls `stop`, once, when nothing of the application's is held any more. Left out where a shard was left behind that
    /// may be running it.
    pub fn finish(&self) {
        if self.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        let Some(stop) = self.functions.stop else { return };
        if self.host.wait_until_released(C_STOP_WAIT) {
            stop();
        } else {
            tracing::warn!(app = self.host.name, "a shard still runs it: it is not stopped");
        }
    }
}

impl Application for CApplication {
    fn name(&self) -> &str {
        &self.host.name
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let mut registering = Registering { registrar, host: self.host, error: None };
        let register = self
            .functions
            .register_events
            .map_or(OK, |register| scope::enter_registrar(&mut registering, |handle| register(handle)));
        let outcome = outcome(self.host, register);
        match registering.error {
            Some(error) => Err(error),
            None => outcome.map_err(|why| Error::Failed(format!("register_events failed: {why}"))),
        }
    }

    fn start(&self, server: &Server) -> Result<(), Error> {
        let _ = self.host.server.set(server.clone());
        let started = self.functions.start.map_or(OK, |start| start());
        outcome(self.host, started).map_err(|why| Error::Failed(format!("start failed: {why}")))
    }

    fn stop(&self) {
        self.finish();
    }

    fn self_test(&self) -> Result<(), Error> {
        let tested = self.functions.self_test.map_or(OK, |test| test());
        outcome(self.host, tested).map_err(Error::Failed)
    }
}
