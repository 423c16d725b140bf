//! Applications in C: shared objects that the server loads.
//!
//! | file | contents |
//! | --- | --- |
//! | `quickio.h` | the ABI and its documentation: the header that applications include |
//! | `quickio.hpp` | the same for C++: closures, promises with destructors, and exceptions that do not leave the application |
//! | `abi` | the types of `quickio.h` in Rust |
//! | `api` | the functions that applications call |
//! | `events` | the functions that the server calls: handlers and hooks |
//! | `user` | pointers that applications give to the server, with their free functions |
//! | `scope` | the handles that are valid during one call |
//! | `promises`, `host` | the handles that are valid for longer |
//! | `json` | JSON functions |
//! | `elf` | a check of a file before it is loaded |
//!
//! This folder is the only place above `qev` that contains `unsafe` code, because the server cannot check the pointers
//! of an application.

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
use elf::Unloadable;
use host::Host;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use scope::Registration;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error as ThisError;

/// The name of the symbol that an application exports.
const SYMBOL: &CStr = c"qio_app";

/// The name of the function that an application exports if its language can export only functions.
const GETTER: &CStr = c"qio_app_get";

/// Bytes of the longest name of an application.
const NAME_BYTES_MAX: usize = 64;

/// The settings of applications, by the application's name and by key.
pub type Settings = BTreeMap<String, BTreeMap<String, String>>;

/// The reason why a file cannot be loaded as an application.
#[derive(Debug, ThisError)]
pub enum LoadError {
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    #[error(
        "it is not a shared object; scripts end in .py, .js, .mjs or .cjs, or are executable (chmod +x) and begin with #!"
    )]
    NoObject,
    #[error("it is a program or an object file; link it with -shared -fPIC")]
    NotShared,
    #[error("it was built for {theirs}, and this server runs on {ours}")]
    WrongMachine { theirs: String, ours: &'static str },
    #[error("the dynamic linker refused it: {0}")]
    Linker(String),
    #[error("it is not an application: it exports neither `qio_app` nor `qio_app_get` (see quickio.h)")]
    NoSymbol,
    #[error("it is not an application: its `qio_app` does not begin with QIO_APP_HEAD")]
    WrongMagic,
    #[error(
        "it was compiled for ABI version {0}, and this server has version {ABI_VERSION}; compile it with this server's quickio.h"
    )]
    WrongVersion(u32),
    #[error("its `qio_app` is invalid: {0}")]
    Invalid(&'static str),
    #[error("at most {C_APPLICATIONS_MAX} applications in C can be loaded")]
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

/// The functions of an application that are called after `init`.
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
/// The file is not an application that this server can run, or its `init` failed.
pub fn load(file: &Path, settings: &Settings) -> Result<Arc<CApplication>, LoadError> {
    inspect(file)?;
    let library = open(file)?;
    let (info, name) = info(&library)?;
    let settings = settings.get(&name).cloned().unwrap_or_default();
    let (host, handle) = Host::add(name, settings).ok_or(LoadError::TooMany)?;
    // The library is never unloaded. Its threads, callbacks that the server still holds, and functions that the C
    // library has recorded (atexit, thread-local destructors) may run its code until the process ends, which is soon
    // after the server has stopped.
    std::mem::forget(library);
    init(&info, host, handle).map_err(LoadError::Init)?;
    let AppInfo { register_events, start, stop, self_test, .. } = info;
    let functions = Functions { register_events, start, stop, self_test };
    Ok(Arc::new(CApplication { functions, host, file: file.to_owned(), stopped: AtomicBool::new(false) }))
}

/// Checks that a file is a shared object for this machine, without loading it, which would run its code.
///
/// # Errors
///
/// The file cannot be read, or is something else.
pub fn inspect(file: &Path) -> Result<(), LoadError> {
    match elf::inspect(file).map_err(LoadError::Unreadable)? {
        Some(Unloadable::NotElf) => Err(LoadError::NoObject),
        Some(Unloadable::NotShared) => Err(LoadError::NotShared),
        Some(Unloadable::OtherMachine(theirs)) => {
            Err(LoadError::WrongMachine { theirs, ours: std::env::consts::ARCH })
        }
        None => Ok(()),
    }
}

#[allow(unsafe_code)]
fn open(file: &Path) -> Result<Library, LoadError> {
    // The linker would search its own path for a name without a slash.
    let file = std::path::absolute(file).map_err(LoadError::Unreadable)?;
    // SAFETY: this runs the constructors of the file. The operator has named the file as a part of this server and is
    // responsible for its code.
    let opened = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) };
    opened.map_err(|error| LoadError::Linker(linker_message(&error)))
}

/// Returns the linker's own message, which libloading makes the source of its error.
fn linker_message(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Returns the exported structure of the application, and the application's name, after checking both.
#[allow(unsafe_code)]
fn info(library: &Library) -> Result<(AppInfo, String), LoadError> {
    let info = exported(library)?;
    if info.is_null() || !info.is_aligned() {
        return Err(LoadError::WrongMagic);
    }
    // SAFETY: the pointer is neither null nor misaligned. If the symbol is something else, it also has four bytes, or
    // is in a section that has.
    let magic = unsafe { info.cast::<u32>().read() };
    if magic != MAGIC {
        return Err(LoadError::WrongMagic);
    }
    // SAFETY: in all versions, a structure that begins with the magic number has two more fields of this type.
    let [_, version, size] = unsafe { info.cast::<[u32; 3]>().read() };
    if version != ABI_VERSION {
        return Err(LoadError::WrongVersion(version));
    }
    if (size as usize) < size_of::<AppInfo>() {
        return Err(LoadError::Invalid("its size is too small"));
    }
    // SAFETY: the structure has this version and at least this size. The C compiler has checked that its function
    // pointers have the types of the header. They are `Option` here, and may be null.
    let info = unsafe { info.read() };
    if info.init.is_none() || info.register_events.is_none() {
        return Err(LoadError::Invalid("init or register_events is NULL"));
    }
    let name = name(info.name).ok_or(LoadError::Invalid("its name is not 1 to 64 of A-Z a-z 0-9 - _"))?;
    Ok((info, name))
}

#[allow(unsafe_code)]
fn exported(library: &Library) -> Result<*const AppInfo, LoadError> {
    // SAFETY: only the symbol's address is used here, as a number.
    if let Ok(symbol) = unsafe { library.get::<*const AppInfo>(SYMBOL.to_bytes_with_nul()) } {
        return Ok(symbol.as_raw_ptr().cast_const().cast());
    }
    // SAFETY: the header specifies the type of the function with this name.
    let getter =
        unsafe { library.get::<extern "C-unwind" fn() -> *const AppInfo>(GETTER.to_bytes_with_nul()) };
    getter.map(|getter| getter()).map_err(|_| LoadError::NoSymbol)
}

/// Reads a name. Returns `None` if it is empty, too long, or contains characters that are not allowed.
#[allow(unsafe_code)]
fn name(ptr: *const c_char) -> Option<String> {
    let mut name = String::new();
    if ptr.is_null() {
        return None;
    }
    for at in 0..=NAME_BYTES_MAX {
        // SAFETY: no byte before this one is 0, and the header requires that the name ends with a 0.
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
    result_of(host, status)
}

/// Converts the status that a function of the application returned, together with the description that the application
/// may have given of a failure.
fn result_of(host: &Host, status: i32) -> Result<(), String> {
    let description = host.take_failure();
    if status == OK {
        return Ok(());
    }
    let known = || abi::Fault::text(status).to_string_lossy();
    Err(description.unwrap_or_else(|| format!("it returned {status} ({})", known())))
}

impl CApplication {
    /// Returns the file from which the application was loaded.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Calls `stop` once, after the server has released everything that belongs to the application. If a shard did not
    /// end in time and may still be running the application, `stop` is not called.
    pub fn finish(&self) {
        if self.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        let Some(stop) = self.functions.stop else { return };
        if self.host.wait_until_released(C_STOP_WAIT) {
            stop();
        } else {
            tracing::warn!(
                app = self.host.name,
                "a shard did not end in time and may still run the application; its stop function is not called"
            );
        }
    }
}

impl Application for CApplication {
    fn name(&self) -> &str {
        &self.host.name
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let mut registration = Registration { registrar, host: self.host, error: None };
        let status = self
            .functions
            .register_events
            .map_or(OK, |register| scope::enter_registrar(&mut registration, |handle| register(handle)));
        let result = result_of(self.host, status);
        match registration.error {
            Some(error) => Err(error),
            None => result.map_err(|why| Error::Failed(format!("register_events failed: {why}"))),
        }
    }

    fn start(&self, server: &Server) -> Result<(), Error> {
        let _ = self.host.server.set(server.clone());
        let started = self.functions.start.map_or(OK, |start| start());
        result_of(self.host, started).map_err(|why| Error::Failed(format!("start failed: {why}")))
    }

    fn stop(&self) {
        self.finish();
    }

    fn self_test(&self) -> Result<(), Error> {
        let tested = self.functions.self_test.map_or(OK, |test| test());
        result_of(self.host, tested).map_err(Error::Failed)
    }
}
