//! The check, before the server starts, that the kernel has the features that a shard needs. Its errors tell operators
//! what is missing and what to do.

use super::buffers::Buffers;
use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs, io};
use thiserror::Error;

/// The minimum limit on locked memory, in bytes. Glommio requires it before it creates its rings.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// The features of the kernel, for the line that is printed at the start.
#[derive(Clone, Debug)]
pub struct KernelFeatures {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The maximum number of sockets in a ring: `RLIMIT_NOFILE`, after it was raised as far as possible.
    pub descriptors_per_ring: u32,
    /// The features in use, with their names from the kernel's documentation.
    pub features: &'static [&'static str],
}

/// The reason why shards cannot run on this kernel.
#[derive(Debug, Error)]
pub enum UnsupportedKernel {
    #[error(
        "io_uring is not available: io_uring_setup returns ENOSYS on Linux {release}. The kernel was built \
         without it, or a seccomp filter hides it. Use Linux 6.1 or newer; in a container, run with \
         `--security-opt seccomp=scripts/seccomp.json` (see docs/operations.md, Containers)"
    )]
    NoIoUring { release: String },
    #[error(
        "io_uring is disabled on this host: kernel.io_uring_disabled is {value}. Set it to 0 \
         (`sysctl -w kernel.io_uring_disabled=0`){group}"
    )]
    Disabled { value: u8, group: &'static str },
    #[error(
        "io_uring is filtered: io_uring_setup returns EPERM although kernel.io_uring_disabled is 0, as the \
         default seccomp profiles of container engines do. Run the container with \
         `--security-opt seccomp=scripts/seccomp.json` (see docs/operations.md, Containers), or allow \
         io_uring_setup, io_uring_enter and io_uring_register in the current filter"
    )]
    Filtered,
    #[error("the kernel is too old: Linux {release} has no {feature}. Use Linux 6.1 or newer")]
    TooOld { release: String, feature: &'static str },
    #[error(
        "the limit on locked memory is {limit} bytes, and each shard needs up to 640 KiB (655360). Raise it: \
         `ulimit -l 8192`, LimitMEMLOCK=8M in a systemd unit, `--ulimit memlock=8388608` for a container"
    )]
    LockedMemory { limit: u64 },
    #[error(
        "the kernel has no memory for an io_uring: the processes of this user have locked as much as they may. Raise the \
         limit: `ulimit -l 8192`, LimitMEMLOCK=8M in a systemd unit, `--ulimit memlock=8388608` for a container; or stop \
         other processes of this user"
    )]
    MemoryInUse,
    #[error("the kernel refuses {what}: {error}. See docs/operations.md, section Kernel")]
    Refused { what: &'static str, error: io::Error },
}

/// Probes the kernel, and raises the limit on descriptors as far as this process is allowed to.
pub fn probe() -> Result<KernelFeatures, UnsupportedKernel> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    check_locked_memory()?;
    check_setup(&release)?;
    let ring = check_flags(&release)?;
    check_operations(&ring, &release)?;
    ring.submitter()
        .register_files_sparse(1)
        .map_err(|error| old_or_refused(error, &release, "sparse tables"))?;
    Buffers::register(&ring, 1, 2, 4096)
        .map_err(|error| old_or_refused(error, &release, "provided buffer rings"))?;
    Ok(KernelFeatures { release, descriptors_per_ring: raise_descriptor_limit(), features: FEATURES })
}

const FEATURES: &[&str] = &[
    "SINGLE_ISSUER",
    "DEFER_TASKRUN",
    "direct descriptors",
    "provided buffer ring",
    "multishot receive",
    "MSG_RING doorbells",
];

fn check_locked_memory() -> Result<(), UnsupportedKernel> {
    match getrlimit(Resource::Memlock).current {
        Some(limit) if limit < MEMLOCK_BYTES_MIN => Err(UnsupportedKernel::LockedMemory { limit }),
        _ => Ok(()),
    }
}

fn check_setup(release: &str) -> Result<(), UnsupportedKernel> {
    let Err(error) = IoUring::new(2) else { return Ok(()) };
    match error.raw_os_error() {
        Some(libc::ENOMEM) => Err(UnsupportedKernel::MemoryInUse),
        Some(libc::ENOSYS) => Err(UnsupportedKernel::NoIoUring { release: release.to_owned() }),
        Some(libc::EPERM | libc::EACCES) => Err(refused_setup()),
        _ => Err(UnsupportedKernel::Refused { what: "to set up io_uring", error }),
    }
}

/// Returns the reason for EPERM. It has two possible causes, which the sysctl distinguishes.
fn refused_setup() -> UnsupportedKernel {
    let value = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match value.trim().parse() {
        Ok(1) => UnsupportedKernel::Disabled {
            value: 1,
            group: ", or run the server in the group that kernel.io_uring_group names",
        },
        Ok(value @ 2..) => UnsupportedKernel::Disabled { value, group: "" },
        _ => UnsupportedKernel::Filtered,
    }
}

fn check_flags(release: &str) -> Result<IoUring, UnsupportedKernel> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(2)
        .map_err(|error| old_or_refused(error, release, "SINGLE_ISSUER and DEFER_TASKRUN rings"))
}

fn check_operations(ring: &IoUring, release: &str) -> Result<(), UnsupportedKernel> {
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    probed.map_err(|error| old_or_refused(error, release, "probing of operations"))?;
    let needed = [
        (opcode::Accept::CODE, "accept operation"),
        (opcode::RecvMulti::CODE, "receive operation"),
        (opcode::Send::CODE, "send operation"),
        (opcode::SendMsg::CODE, "sendmsg operation"),
        (opcode::Shutdown::CODE, "shutdown operation"),
        (opcode::Close::CODE, "close operation"),
        (opcode::Read::CODE, "read operation"),
        (opcode::AsyncCancel2::CODE, "cancel operation"),
        (opcode::MsgRingData::CODE, "MSG_RING operation"),
    ];
    match needed.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, feature)) => Err(UnsupportedKernel::TooOld { release: release.to_owned(), feature }),
        None => Ok(()),
    }
}

fn old_or_refused(error: io::Error, release: &str, feature: &'static str) -> UnsupportedKernel {
    match error.raw_os_error() {
        Some(libc::EINVAL) => UnsupportedKernel::TooOld { release: release.to_owned(), feature },
        _ => UnsupportedKernel::Refused { what: feature, error },
    }
}

/// Raises the soft limit on descriptors to the hard limit. Returns the soft limit that is then in effect.
fn raise_descriptor_limit() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    // If this fails, the soft limit remains, and the next line reads it.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}
