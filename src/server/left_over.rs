//! TCP sockets that a killed server has left over.
//!
//! The sockets of a killed server are closed by the kernel: first every operation of its rings is cancelled, which takes
//! tens of microseconds for each connection, and only then the listening sockets are closed. With a million connections,
//! the address is in use for some seconds after the process seems to have ended. A server that is started again has to
//! wait for that, but not for a server that runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Returns whether a socket that listens on this address, or on all addresses with this port, belongs to a killed process
/// of the same user. If that cannot be found out, returns `false`.
pub(super) fn is_left_over(address: SocketAddr) -> bool {
    let table = if address.is_ipv6() { "/proc/net/tcp6" } else { "/proc/net/tcp" };
    let Ok(table) = fs::File::open(table) else { return false };
    let own = rustix::process::geteuid().as_raw();
    let sockets = listening(BufReader::new(table), address.port());
    !sockets.is_empty()
        && sockets.iter().all(|socket| socket.user == own)
        && no_process_has(&sockets, own, Path::new("/proc"))
}

/// A socket that listens on a port.
#[derive(Debug, PartialEq, Eq)]
struct PortHolder {
    user: u32,
    inode: u64,
}

/// Parses the sockets that listen on a port from `/proc/net/tcp` or `/proc/net/tcp6`. Sockets that listen are listed first;
/// the rest is not read, because there may be a million connections.
fn listening(table: impl BufRead, port: u16) -> Vec<PortHolder> {
    let port = format!(":{port:04X}");
    let mut sockets = Vec::new();
    for line in table.lines().skip(1).map_while(Result::ok) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, LISTEN, _, _, _, user, _, inode, ..] = fields[..] else { break };
        if let (true, Ok(user), Ok(inode)) = (local.ends_with(&port), user.parse(), inode.parse()) {
            sockets.push(PortHolder { user, inode });
        }
    }
    sockets
}

/// Returns whether no process of this user has one of these sockets open. A process that is being killed has no open files
/// any more. Returns `false` if the files of one of them cannot be read.
fn no_process_has(sockets: &[PortHolder], user: u32, processes: &Path) -> bool {
    let names: Vec<String> = sockets.iter().map(|socket| format!("socket:[{}]", socket.inode)).collect();
    let Ok(processes) = fs::read_dir(processes) else { return false };
    for process in processes.flatten() {
        let is_process = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process || process.metadata().map_or(true, |process| process.uid() != user) {
            continue;
        }
        // The process may have ended since.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            if process.path().exists() {
                return false;
            }
            continue;
        };
        let has = |file: fs::DirEntry| {
            let target = fs::read_link(file.path()).unwrap_or_default();
            names.iter().any(|name| target == Path::new(name))
        };
        if files.flatten().any(has) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1585 1 0 100 0 0 10 0
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0 100 0 0 10 0
   3: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 1587 1 0 100 0 0 10 0
   4: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 1586 1 0 20 4 30 10 -1
   5: 0100007F:1F90 00000000:0000 0A is not read
";

    #[test]
    fn listening_sockets_of_a_port_are_found() {
        let socket = |user, inode| PortHolder { user, inode };
        let listening = |table: &str, port| super::listening(table.as_bytes(), port);
        assert_eq!(listening(TABLE, 8080), [socket(1000, 1585), socket(7, 1587)]);
        assert_eq!(listening(TABLE, 8081), [socket(0, 99)]);
        assert!(listening(TABLE, 80).is_empty() && listening("", 8080).is_empty());
    }

    #[test]
    fn a_socket_that_a_process_has_is_not_left_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!is_left_over(address), "this process has it");
        drop(listener);
        assert!(!is_left_over(address), "nobody listens");
    }

    #[test]
    fn a_socket_that_no_process_has_is_left_over() {
        // No socket has this number.
        let sockets = [PortHolder { user: 0, inode: u64::MAX }];
        let own = rustix::process::geteuid().as_raw();
        let root = std::env::temp_dir().join(format!("quickio-left-over-{}", std::process::id()));
        fs::create_dir_all(root.join("1/fd")).unwrap();
        fs::create_dir_all(root.join("net")).unwrap();
        assert!(no_process_has(&sockets, own, &root));
        std::os::unix::fs::symlink(format!("socket:[{}]", u64::MAX), root.join("1/fd/3")).unwrap();
        assert!(!no_process_has(&sockets, own, &root), "a process has it");
        assert!(no_process_has(&sockets, own + 1, &root), "a process of another user");
        fs::remove_dir_all(root.join("1/fd")).unwrap();
        assert!(!no_process_has(&sockets, own, &root), "the files of a process cannot be read");
        fs::remove_dir_all(&root).unwrap();
        assert!(!no_process_has(&sockets, own, &root), "no process can be read");
    }
}
