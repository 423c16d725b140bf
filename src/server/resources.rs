//! The descriptors and the locked memory that a server needs, checked before its shards start, and the advice that
//! follows if the kernel refuses them.

use crate::config::{Config, ListenAddress};
use rustix::process::{Resource, getrlimit};
use std::io;
use thiserror::Error;

/// The descriptors of a process with no shard: standard streams, signals, threads.
const DESCRIPTORS_BASE: usize = 8;

/// The descriptors of a shard: its ring, its doorbell, and those of its executor. A test counts them.
const DESCRIPTORS_PER_SHARD: usize = 6;

/// The descriptors of the control executor, and one for each connection that may be served while no other is free.
const DESCRIPTORS_CONTROL: usize = 8;

/// The descriptors of TLS: the watch over the files of certificates, and a file that is read.
const DESCRIPTORS_TLS: usize = 2;

/// The descriptors of a worker: its process, its control socket, its output, and those that start it.
const DESCRIPTORS_PER_WORKER: usize = 8;

/// The memory that the kernel locks for a shard, in KiB: 448 for the queues of its ring and 192 for its executor, as
/// measured on Linux 6.18. Older kernels count less of it.
const LOCKED_KIB_PER_SHARD: u64 = 640;

/// A limit of the process that is too low for the settings.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ResourceError {
    #[error(
        "the limit on open files is {limit} (ulimit -n), and {shards} shards need at least {needed}, apart from clients. \
         Raise it: `ulimit -n {needed}`, LimitNOFILE= in a systemd unit, `--ulimit nofile=` for a container; or start \
         fewer shards"
    )]
    Descriptors { limit: u64, needed: usize, shards: usize },
}

/// The needs of a server.
pub(super) struct Needs {
    shards: usize,
    descriptors: usize,
    locked_kib: u64,
}

impl Needs {
    /// Returns the needs of a server with these settings.
    pub fn of(config: &Config, shards: usize, workers: usize) -> Needs {
        let unix =
            config.listen.iter().filter(|listen| matches!(listen.address, ListenAddress::Unix(_))).count();
        // A Unix socket has one more descriptor, for its file.
        let listeners = config.listen.len() * shards + unix;
        let takes_tls = !config.tls_cert.is_empty();
        let control = !config.admin.is_empty() || !config.api.is_empty() || takes_tls;
        let descriptors = DESCRIPTORS_BASE
            + DESCRIPTORS_PER_SHARD * shards
            + listeners
            + (DESCRIPTORS_PER_WORKER + shards) * workers
            + if control { DESCRIPTORS_CONTROL + config.admin.len() + config.api.len() } else { 0 }
            + if takes_tls { DESCRIPTORS_TLS } else { 0 };
        let buffers_kib = config.receive_buffers as u64 * 16 / 1024;
        let locked_kib = (LOCKED_KIB_PER_SHARD + buffers_kib) * shards as u64;
        Needs { shards, descriptors, locked_kib }
    }

    /// Checks the limit on descriptors, which the kernel would enforce in the middle of the start.
    pub fn check(&self) -> Result<(), ResourceError> {
        match getrlimit(Resource::Nofile).maximum {
            Some(limit) if limit < self.descriptors as u64 => {
                Err(ResourceError::Descriptors { limit, needed: self.descriptors, shards: self.shards })
            }
            _ => Ok(()),
        }
    }

    /// Returns a warning if the limit on locked memory may be too low. It depends on the kernel what counts, and the
    /// memory of all processes of a user counts together: only the attempt decides.
    pub fn locked_memory_warning(&self) -> Option<String> {
        let limit = locked_memory_limit_kib()?;
        let needed = self.locked_kib;
        (needed > limit).then(|| {
            format!(
                "the limit on locked memory is {limit} KiB (ulimit -l), and {} shards need up to {needed} KiB. {}",
                self.shards,
                remedy(needed)
            )
        })
    }

    /// Returns the advice that follows the error of a shard or of the control executor that could not start.
    pub fn hint(&self, error: &io::Error) -> String {
        match error.raw_os_error() {
            Some(libc::ENOMEM) => {
                let limit =
                    locked_memory_limit_kib().map_or_else(|| "no limit".into(), |kib| format!("{kib} KiB"));
                let (shards, needed) = (self.shards, self.locked_kib);
                format!(
                    ". The limit on locked memory (ulimit -l) is {limit} for all processes of this user together, and \
                     {shards} shards need up to {needed} KiB. {}",
                    remedy(needed)
                )
            }
            Some(libc::EMFILE) => format!(
                ". The limit on open files (ulimit -n) is too low; {} shards need at least {}. Raise it, or start fewer \
                 shards",
                self.shards, self.descriptors
            ),
            _ => String::new(),
        }
    }
}

fn remedy(needed_kib: u64) -> String {
    format!(
        "Raise it: `ulimit -l {needed_kib}`, LimitMEMLOCK={needed_kib}K in a systemd unit, `--ulimit memlock={}` for a \
         container; or start fewer shards",
        needed_kib * 1024
    )
}

/// Returns the limit on locked memory in KiB, or `None` if there is none.
fn locked_memory_limit_kib() -> Option<u64> {
    getrlimit(Resource::Memlock).current.map(|bytes| bytes / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_grow_with_shards_addresses_and_workers() {
        let of = |config: &Config, shards, workers| Needs::of(config, shards, workers);
        let config = Config::default();
        let (one, two) = (of(&config, 1, 0), of(&config, 2, 0));
        assert_eq!(two.descriptors - one.descriptors, DESCRIPTORS_PER_SHARD + 1);
        assert_eq!(two.locked_kib - one.locked_kib, 648);
        let more = Config { listen: [&config.listen[..], &config.listen].concat(), ..config.clone() };
        assert_eq!(of(&more, 2, 0).descriptors - two.descriptors, 2);
        assert_eq!(of(&config, 2, 3).descriptors - two.descriptors, 3 * (DESCRIPTORS_PER_WORKER + 2));
        assert!(two.check().is_ok());
    }

    #[test]
    fn refused_resources_have_a_remedy() {
        let needs = Needs::of(&Config::default(), 16, 0);
        let hint = |errno| needs.hint(&io::Error::from_raw_os_error(errno));
        assert!(hint(libc::ENOMEM).contains("16 shards need up to 10368 KiB"), "{}", hint(libc::ENOMEM));
        assert!(hint(libc::ENOMEM).contains("LimitMEMLOCK=10368K"), "{}", hint(libc::ENOMEM));
        assert!(hint(libc::EMFILE).contains("ulimit -n"), "{}", hint(libc::EMFILE));
        assert_eq!(hint(libc::EINVAL), "");
    }
}
