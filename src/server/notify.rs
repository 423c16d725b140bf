//! Messages to the service manager that started the server, by the protocol of sd_notify(3): datagrams with lines such as
//! `READY=1`. systemd waits for them with `Type=notify`. Without a service manager, nothing is sent.
//!
//! The protocol is one datagram to one socket, which the standard library can send. A crate would only add functions
//! that change the environment, which other threads may be reading.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The variables of the service manager. They are for this process only, and are removed from the environment of
/// workers (`app::worker::process`).
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The connection to the service manager, if there is one. Clones are for other threads.
#[derive(Clone, Debug)]
pub(super) struct ServiceManager {
    /// The socket to send from, and the address of the manager.
    channel: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
    /// Set when the shutdown begins.
    is_stopping: Arc<AtomicBool>,
}

impl ServiceManager {
    /// Returns the service manager that the environment names.
    pub fn from_environment() -> ServiceManager {
        let pid = process::id().to_string();
        let is_ours = env::var(WATCHDOG_PID).map_or(true, |of| of == pid);
        let usec = env::var(WATCHDOG_USEC).ok().filter(|_| is_ours);
        ServiceManager::new(env::var_os(SOCKET), usec.as_deref())
    }

    /// Returns the service manager with this address and this period of its watchdog in microseconds.
    pub fn new(address: Option<OsString>, watchdog_usec: Option<&str>) -> ServiceManager {
        let channel =
            address.filter(|address| !address.is_empty()).and_then(|address| match open(&address) {
                Ok(channel) => Some(Arc::new(channel)),
                Err(error) => {
                    let address = address.to_string_lossy();
                    tracing::warn!(%address, %error, "the service manager cannot be reached (NOTIFY_SOCKET)");
                    None
                }
            });
        let usec = watchdog_usec.and_then(|usec| usec.parse().ok()).filter(|usec| *usec > 0);
        let watchdog = usec.filter(|_| channel.is_some()).map(Duration::from_micros);
        ServiceManager { watchdog, channel, is_stopping: Arc::default() }
    }

    /// Returns the time within which the service manager expects the next [`ServiceManager::alive`], if it does.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Reports what the server is doing, for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// Reports that clients can connect, or that a reload is complete.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Reports the beginning of a reload. [`ServiceManager::ready`] ends it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reloading"));
    }

    /// Reports the beginning of the shutdown.
    pub fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.send("STOPPING=1\nSTATUS=shutting down");
    }

    /// Returns whether the shutdown has begun. The service manager then no longer expects
    /// [`alive`](ServiceManager::alive).
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Reports that all shards are working.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, text: &str) {
        let Some((socket, manager)) = self.channel.as_deref() else { return };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), manager) {
            tracing::warn!(%error, text, "a message to the service manager was lost");
        }
    }
}

/// Returns the first line of a status: a line break would begin another message.
fn one_line(status: &str) -> &str {
    status.lines().next().unwrap_or_default()
}

/// Opens the socket for an address: a path, or `@` and the name of an abstract socket.
fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is neither the path of a Unix socket nor an abstract one (@NAME)",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop the server.
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        manager.set_nonblocking(true).unwrap();
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// Sends one message of each kind and compares all of them.
    fn assert_reaches(manager: &UnixDatagram, address: OsString) {
        let server = ServiceManager::new(Some(address), Some("3000000"));
        assert_eq!(server.watchdog(), Some(Duration::from_secs(3)));
        server.status("starting");
        server.ready("serves\nREADY=0");
        server.alive();
        server.stopping();
        let expected =
            ["STATUS=starting", "READY=1\nSTATUS=serves", "WATCHDOG=1", "STOPPING=1\nSTATUS=shutting down"];
        assert_eq!([(); 4].map(|()| read(manager)), expected);
        server.reloading();
        let reloading = read(manager);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().lines().next().unwrap();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let seconds = usec.parse::<f64>().unwrap() / 1e6;
        assert!((seconds - uptime).abs() < 60.0, "{seconds} s is the monotonic time: {uptime} s");
    }

    #[test]
    fn a_manager_is_reached_by_its_path() {
        let path = std::env::temp_dir().join(format!("quickio-{}-notify", std::process::id()));
        let manager = UnixDatagram::bind(&path).unwrap();
        assert_reaches(&manager, path.clone().into());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_manager_is_reached_by_its_abstract_name() {
        let name = format!("quickio-{}-notify", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        assert_reaches(&manager, format!("@{name}").into());
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        for address in [None, Some(""), Some("vsock:2:1"), Some("relative"), Some("/nonexistent/socket")] {
            let server = ServiceManager::new(address.map(OsString::from), Some("1000"));
            server.ready("serves");
            assert_eq!(server.watchdog().is_some(), address == Some("/nonexistent/socket"), "{address:?}");
        }
        let server = ServiceManager::new(Some("/nonexistent/socket".into()), Some("soon"));
        assert_eq!(server.watchdog(), None);
    }
}
