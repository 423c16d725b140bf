//! Looks, before anything is started, whether the kernel has what a shard stands on; and says what is missing
//! and what to do about it in words for the person who runs the server.

use super::buffers::Buffers;
use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{fs, io};
use thiserror::Error;

/// Memory that may be locked, at least, in bytes: what glommio asks for before it makes its rings.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// What the kernel has, for the line printed at start-up.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` has it.
    pub release: String,
    /// Sockets that one ring can hold: `RLIMIT_NOFILE`, after it was raised as far as it may be.
    pub descriptors_per_ring: u32,
    /// The features in use, by their names in the kernel's documentation.
    pub features: &'static [&'static str],
}

/// Why no shard can run here.
#[derive(Debug, Error)]
pub enum Missing {
    #[error(
        "io_uring is not available: io_uring_setup answers ENOSYS on Linux {release}. The kernel was built \
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
        "io_uring is filtered: io_uring_setup answers EPERM although kernel.io_uring_disabled is 0, as the \
         default seccomp profiles of container engines do. Run the container with \
         `--security-opt seccomp=scripts/seccomp.json` (see docs/operations.md, Containers), or allow \
         io_uring_setup, io_uring_enter and io_uring_register in the filter that is in force"
    )]
    Filtered,
    #[error("the kernel is too old: Linux {release} has no {feature}. Use Linux 6.1 or newer")]
    TooOld { release: String, feature: &'static str },
    #[error(
        "the limit on locked memory is {limit} bytes, and 524288 are needed. Raise it: `ulimit -l 8192`, \
         LimitMEMLOCK=8M in a systemd unit, `--ulimit memlock=8388608` for a container"
    )]
    LockedMemory { limit: u64 },
    #[error("the kernel refuses {what}: {error}. See docs/operations.md, Kernel")]
    Refused { what: &'static str, error: io::Error },
}

/// Probes the kernel, and raises the limit on descriptors as far as this process may.
pub fn probe() -> Result<Kernel, Missing> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    check_locked_memory()?;
    check_setup(&release)?;
    let ring = check_flags(&release)?;
    check_operations(&ring, &release)?;
    ring.submitter()
        .register_files_sparse(1)
        .map_err(|error| old_or_refused(error, &release, "sparse tables"))?;
    Buffers::register(&ring, 2, 4096)
        .map_err(|error| old_or_refused(error, &release, "provided buffer rings"))?;
    Ok(Kernel { release, descriptors_per_ring: raise_descriptor_limit(), features: FEATURES })
}

const FEATURES: &[&str] = &[
    "SINGLE_ISSUER",
    "DEFER_TASKRUN",
    "direct descriptors",
    "provided buffer ring",
    "multishot receive",
    "MSG_RING doorbells",
];

fn check_locked_memory() -> Result<(), Missing> {
    match getrlimit(Resource::Memlock).current {
        Some(limit) if limit < MEMLOCK_BYTES_MIN => Err(Missing::LockedMemory { limit }),
        _ => Ok(()),
    }
}

fn check_setup(release: &str) -> Result<(), Missing> {
    let Err(error) = IoUring::new(2) else { return Ok(()) };
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Err(Missing::NoIoUring { release: release.to_owned() }),
        Some(libc::EPERM | libc::EACCES) => Err(refused_setup()),
        _ => Err(Missing::Refused { what: "to set up io_uring", error }),
    }
}

/// EPERM has two sources, which the sysctl tells apart.
fn refused_setup() -> Missing {
    let value = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match value.trim().parse() {
        Ok(1) => Missing::Disabled {
            value: 1,
            group: ", or run the server in the group that kernel.io_uring_group names",
        },
        Ok(value @ 2..) => Missing::Disabled { value, group: "" },
        _ => Missing::Filtered,
    }
}

fn check_flags(release: &str) -> Result<IoUring, Missing> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(2)
        .map_err(|error| old_or_refused(error, release, "SINGLE_ISSUER and DEFER_TASKRUN rings"))
}

fn check_operations(ring: &IoUring, release: &str) -> Result<(), Missing> {
    let mut probe = Probe::new();
    let asked = ring.submitter().register_probe(&mut probe);
    asked.map_err(|error| old_or_refused(error, release, "probing of operations"))?;
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
        Some((_, feature)) => Err(Missing::TooOld { release: release.to_owned(), feature }),
        None => Ok(()),
    }
}

fn old_or_refused(error: io::Error, release: &str, feature: &'static str) -> Missing {
    match error.raw_os_error() {
        Some(libc::EINVAL) => Missing::TooOld { release: release.to_owned(), feature },
        _ => Missing::Refused { what: feature, error },
    }
}

/// Raises the soft limit on descriptors to the hard one; answers what is in force then.
fn raise_descriptor_limit() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the soft limit stays in force, and is what the next line reads.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}
