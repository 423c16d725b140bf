//! Threads and processes that code on a shard starts. A thread inherits the cores of the thread that starts it, and a
//! shard is pinned to one core: without the measures of this file, they would compete with the shard for its core while
//! others are idle.
//!
//! - A thread that is started without attributes of its own (`pthread_create(&thread, NULL, ...)`, `std::thread` of C++)
//!   may run on all cores of the process.
//! - So may a process that a shard forks.
//!
//! The standard library of Rust starts threads with attributes of its own, and nothing can change what they inherit. For
//! those there is `app::threads`.

#![allow(unsafe_code)]

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::cell::Cell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

thread_local! {
    /// `true` on the threads of shards.
    static IS_PINNED: Cell<bool> = const { Cell::new(false) };
}

/// The cores on which the process may run. Set before any thread is pinned.
static CORES: OnceLock<CpuSet> = OnceLock::new();

unsafe extern "C" {
    fn pthread_getattr_default_np(attributes: *mut libc::pthread_attr_t) -> c_int;
    fn pthread_setattr_default_np(attributes: *const libc::pthread_attr_t) -> c_int;
}

/// Lets the threads and processes that pinned threads start run on all cores on which the calling thread, which must not
/// be pinned, may run. If the kernel or the C library refuses this, they inherit the core of the thread that starts them.
pub(super) fn release_started_threads() {
    let Ok(cores) = sched_getaffinity(None) else { return };
    if CORES.set(cores).is_err() {
        return; // done before, by another server of this process
    }
    // SAFETY: the function only registers another one, which is never unloaded and makes one system call. That is
    // allowed in the child of a process with several threads.
    unsafe { libc::pthread_atfork(None, None, Some(release_child)) };
    set_default_cores(&cores);
}

/// Records that the calling thread is pinned.
pub(super) fn mark_pinned() {
    IS_PINNED.set(true);
}

/// Runs in a process that was forked, before anything else.
extern "C" fn release_child() {
    if let (true, Some(cores)) = (IS_PINNED.get(), CORES.get()) {
        let _ = sched_setaffinity(None, cores); // if it fails, the child keeps the core of the shard
    }
}

/// Sets the cores of threads that are started without attributes.
fn set_default_cores(cores: &CpuSet) {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: a `cpu_set_t` consists of integers, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in (0..libc::CPU_SETSIZE as usize).filter(|core| cores.is_set(*core)) {
        // SAFETY: the core is one of the set.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: the first call initializes the attributes, which are used only if it succeeded, and destroyed once. The set
    // outlives the calls, which copy it.
    unsafe {
        if pthread_getattr_default_np(attributes.as_mut_ptr()) == 0 {
            let attributes = attributes.as_mut_ptr();
            if libc::pthread_attr_setaffinity_np(attributes, size_of_val(&set), &set) == 0 {
                pthread_setattr_default_np(attributes);
            }
            libc::pthread_attr_destroy(attributes);
        }
    }
}
