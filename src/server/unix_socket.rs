//! The files of Unix sockets: created with their permissions before anybody can connect, and removed at the end.

use crate::config::Config;
use nix::unistd::Group;
use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long an address may still be in use after its server was killed: the kernel cancels the accepts of a ring only
/// after the process has ended, and they keep the socket open until then.
pub(super) const LEFT_OVER_WAIT: Duration = Duration::from_secs(1);

/// How long the lock on a directory is waited for. Servers hold it for less than a millisecond.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The access to the Unix sockets of the settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketAccess {
    mode: Mode,
    /// `None` for the group of the process.
    group: Option<Gid>,
}

/// The ending of a socket that `quickio check` creates for a moment.
const TRIAL: &str = ".check";

/// The error of the setting `listen-group`.
#[derive(Debug, Error)]
pub enum GroupError {
    #[error(
        "there is no group `{name}` on this host (setting listen-group). `getent group` lists the groups"
    )]
    Unknown { name: String },
    #[error("the group `{name}` cannot be looked up (setting listen-group): {error}")]
    Unreadable { name: String, error: io::Error },
}

impl SocketAccess {
    /// Returns the access that the settings define.
    pub fn of(config: &Config) -> Result<SocketAccess, GroupError> {
        let group = config.listen_group.as_deref().map(find_group).transpose()?;
        Ok(SocketAccess { mode: Mode::from_raw_mode(config.listen_mode), group })
    }
}

fn find_group(name: &str) -> Result<Gid, GroupError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Gid::from_raw(group.gid.as_raw())),
        Ok(None) => Err(GroupError::Unknown { name: name.to_owned() }),
        Err(error) => Err(GroupError::Unreadable { name: name.to_owned(), error: error.into() }),
    }
}

/// The file of a bound socket. Dropping it removes the file, unless another file has replaced it.
pub(super) struct SocketFile {
    path: PathBuf,
    /// The file itself, by which it is recognized.
    file: OwnedFd,
    /// The permissions that it gets.
    mode: Mode,
}

/// The step of binding a Unix socket that failed.
#[derive(Debug)]
pub(super) enum UnixBindError {
    Bind(io::Error),
    Group(Gid, io::Error),
    Mode(io::Error),
}

impl From<io::Error> for UnixBindError {
    fn from(error: io::Error) -> UnixBindError {
        UnixBindError::Bind(error)
    }
}

impl From<UnixBindError> for io::Error {
    fn from(error: UnixBindError) -> io::Error {
        match error {
            UnixBindError::Bind(error) | UnixBindError::Group(_, error) | UnixBindError::Mode(error) => error,
        }
    }
}

/// Binds a Unix socket, and listens. Its file is created with permissions for its owner only, and gets its group:
/// [`SocketFile::admit`] then allows those to connect who may. Without those of the owner, a server of the same user could
/// not find out that a file was left over by one that was killed while it started.
///
/// Of several servers that start at once, one gets the path: the others find that it listens. The directory is locked from
/// the look at the path until the socket listens, because a socket that does not listen yet looks like one that was left
/// over.
pub(super) fn bind(
    path: &Path,
    access: SocketAccess,
    backlog: i32,
) -> Result<(Socket, SocketFile), UnixBindError> {
    bind_within(path, access, backlog, LEFT_OVER_WAIT)
}

/// As [`bind`], for a path whose owner may take this long to end.
fn bind_within(
    path: &Path,
    access: SocketAccess,
    backlog: i32,
    wait: Duration,
) -> Result<(Socket, SocketFile), UnixBindError> {
    let until = Instant::now() + wait;
    loop {
        let lock = FolderLock::of(path);
        if remove_left_over(path)? == PathState::InUse && Instant::now() < until {
            drop(lock);
            thread::sleep(LEFT_OVER_WAIT / 100);
            continue;
        }
        return bind_locked(path, access, backlog);
    }
}

/// Binds a Unix socket while the directory is locked.
fn bind_locked(
    path: &Path,
    access: SocketAccess,
    backlog: i32,
) -> Result<(Socket, SocketFile), UnixBindError> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file that is created by binding has the mode of the socket, without the bits of the umask.
    fs::fchmod(&socket, access.mode & Mode::RWXU).map_err(io::Error::from)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::open(path, access.mode)?;
    if let Some(group) = access.group {
        let changed = fs::chownat(&file.file, "", None, Some(group), AtFlags::EMPTY_PATH);
        changed.map_err(|error| UnixBindError::Group(group, error.into()))?;
    }
    socket.listen(backlog)?;
    Ok((socket, file))
}

/// A lock on the directory of a socket, which servers hold for the moment in which they look for a file that was left over,
/// replace it and listen. No file is left behind. Dropping it unlocks the directory.
struct FolderLock(#[expect(dead_code, reason = "closing it unlocks the directory")] OwnedFd);

impl FolderLock {
    /// Locks the directory of a path. Returns `None` if it cannot be locked: it cannot be read, its file system has no
    /// locks, or another program keeps it locked.
    fn of(path: &Path) -> Option<FolderLock> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::open(folder, flags, Mode::empty()).ok()?;
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(FolderLock(folder)),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until => {
                    thread::sleep(LOCK_WAIT / 1000);
                }
                Err(_) => return None,
            }
        }
    }
}

/// Checks a path without binding it: its directory can be written to, and no file is in the way. A server may be
/// running there.
pub(super) fn check(path: &Path, access: SocketAccess) -> Result<(), UnixBindError> {
    if fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok() && !is_socket(path) {
        return Err(UnixBindError::Bind(io::Error::from(io::ErrorKind::AddrInUse)));
    }
    let mut trial = path.as_os_str().to_owned();
    trial.push(TRIAL);
    let trial = PathBuf::from(trial);
    if SockAddr::unix(&trial).is_err() {
        // The name for the trial is too long. The server itself will report the errors.
        return Ok(());
    }
    let (_socket, file) = bind(&trial, access, 1)?;
    file.admit()
}

impl SocketFile {
    fn open(path: &Path, mode: Mode) -> io::Result<SocketFile> {
        let file = fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Ok(SocketFile { path: path.to_owned(), file, mode })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Allows those to connect whom the settings allow it.
    pub fn admit(&self) -> Result<(), UnixBindError> {
        self.set_mode(self.mode).map_err(UnixBindError::Mode)
    }

    fn set_mode(&self, mode: Mode) -> io::Result<()> {
        // A descriptor of a socket's file only names the file, and fchmod refuses it. The link in /proc leads to this
        // file even if another one has its path now.
        let link = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match fs::chmod(&link, mode) {
            Err(Errno::NOENT) => fs::chmod(&self.path, mode), // there is no /proc
            changed => changed,
        }
        .map_err(io::Error::from)
    }

    fn is_at_its_path(&self) -> bool {
        let at_path = fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        let (Ok(at_path), Ok(ours)) = (at_path, fs::fstat(&self.file)) else { return false };
        (at_path.st_dev, at_path.st_ino) == (ours.st_dev, ours.st_ino)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _lock = FolderLock::of(&self.path);
        if self.is_at_its_path() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Returns whether a path is the file of a socket.
fn is_socket(path: &Path) -> bool {
    let found = fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|file| FileType::from_raw_mode(file.st_mode) == FileType::Socket)
}

/// The state of a path that is to be bound.
#[derive(PartialEq, Eq)]
enum PathState {
    /// Nothing is there, or a file that is no socket.
    NoSocket,
    /// A process listens there, or may.
    InUse,
}

/// Removes the file of a socket that no process listens on any more. Any other file is left alone.
fn remove_left_over(path: &Path) -> io::Result<PathState> {
    if !is_socket(path) {
        return Ok(PathState::NoSocket);
    }
    // Without waiting: a server whose backlog is full listens too.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map(|()| PathState::NoSocket)
        }
        _ => Ok(PathState::InUse),
    }
}

/// Returns the advice that follows an error of binding a path.
pub(super) fn hint(path: &Path, error: &UnixBindError) -> String {
    let folder = path.parent().unwrap_or(path).display();
    let error = match error {
        UnixBindError::Bind(error) => error,
        UnixBindError::Group(group, _) => {
            return format!(
                ". The setting listen-group is the group {}; only root and members of the group may use it. In a \
                 systemd unit, SupplementaryGroups= makes the server's user a member",
                group.as_raw()
            );
        }
        UnixBindError::Mode(_) => return ". The permissions of the setting listen-mode cannot be set".into(),
    };
    match error.kind() {
        io::ErrorKind::AddrInUse if !is_socket(path) => {
            ". The path is a file that is not a socket; remove the file, or choose another path".into()
        }
        io::ErrorKind::AddrInUse => ". Another process listens there; stop it, or choose another path".into(),
        io::ErrorKind::NotFound => format!(
            ". The directory {folder} does not exist; create it, or choose another path. In a systemd unit, \
             RuntimeDirectory=quickio creates /run/quickio"
        ),
        io::ErrorKind::NotADirectory => format!(". {folder} is not a directory; choose another path"),
        io::ErrorKind::PermissionDenied => {
            format!(
                ". The server's user may not create files in {folder}; change its permissions, or choose another path"
            )
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;

    /// A directory that is removed when the value is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("quickio-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn access(mode: u32) -> SocketAccess {
        SocketAccess { mode: Mode::from_raw_mode(mode), group: None }
    }

    #[test]
    fn a_file_has_exactly_the_mode_of_the_setting() {
        let folder = Folder::new("modes");
        for mode in [0o666, 0o660, 0o600, 0o777, 0] {
            let path = folder.0.join(format!("{mode:o}"));
            let (_socket, file) = bind(&path, access(mode), 1).unwrap();
            let before = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(before, mode & 0o700, "{mode:o}: at first only the owner may connect");
            file.admit().unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode, "{mode:o}");
            drop(file);
            assert!(!path.exists(), "dropping it removes the file");
        }
    }

    #[test]
    fn a_socket_that_is_bound_has_no_permissions_until_it_gets_its_own() {
        let folder = Folder::new("before");
        let path = folder.0.join("socket");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        fs::fchmod(&socket, Mode::empty()).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0);
    }

    #[test]
    fn a_file_gets_the_group_of_the_setting() {
        let folder = Folder::new("group");
        let path = folder.0.join("socket");
        // Root may use any group, and any other user the own one.
        let group = if rustix::process::getuid().is_root() {
            find_group("12345").unwrap()
        } else {
            rustix::process::getgid()
        };
        let (_socket, _file) = bind(&path, SocketAccess { group: Some(group), ..access(0o660) }, 1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().gid(), group.as_raw());
    }

    #[test]
    fn groups_are_found_by_name_and_by_number() {
        assert_eq!(find_group("4711").unwrap().as_raw(), 4711);
        assert_eq!(find_group("root").unwrap().as_raw(), 0);
        let error = find_group("no-such-group").unwrap_err().to_string();
        assert!(error.contains("no-such-group") && error.contains("listen-group"), "{error}");
    }

    #[test]
    fn the_file_of_another_server_is_not_removed() {
        let folder = Folder::new("other");
        let path = folder.0.join("socket");
        let (_socket, file) = bind(&path, access(0o600), 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (_other_socket, _other_file) = bind(&path, access(0o600), 1).unwrap();
        drop(file);
        assert!(path.exists());
    }

    /// Each server finds a file that was left over. One of them replaces it, and the others must neither remove its file nor
    /// believe that they listen.
    #[test]
    fn of_servers_that_start_at_once_one_gets_the_path() {
        const SERVERS: usize = 4;
        let folder = Folder::new("race");
        for round in 0..100 {
            let path = folder.0.join(round.to_string());
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let start = Barrier::new(SERVERS);
            let bind = || {
                start.wait();
                bind_within(&path, access(0o600), SERVERS as i32, Duration::ZERO).ok()
            };
            let bound: Vec<_> = thread::scope(|scope| {
                let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(bind)).collect();
                servers.into_iter().filter_map(|server| server.join().unwrap()).collect()
            });
            assert_eq!(bound.len(), 1, "one server listens");
            let (socket, file) = &bound[0];
            file.admit().unwrap();
            assert!(file.is_at_its_path(), "its file is still there");
            let client = UnixStream::connect(&path).unwrap();
            let (accepted, _) = socket.accept().unwrap();
            drop((client, accepted, bound));
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_server_that_was_killed_while_it_started_is_in_nobodys_way() {
        let folder = Folder::new("killed");
        let path = folder.0.join("socket");
        let (socket, file) = bind(&path, access(0o660), 1).unwrap();
        std::mem::forget(file);
        drop(socket);
        let (_socket, file) = bind_within(&path, access(0o660), 1, Duration::ZERO).unwrap();
        file.admit().unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_directory_that_stays_locked_keeps_no_server_from_starting() {
        let folder = Folder::new("locked");
        let path = folder.0.join("socket");
        let held = FolderLock::of(&path).unwrap();
        assert!(FolderLock::of(&path).is_none(), "after a wait");
        drop(held);
        assert!(FolderLock::of(&path).is_some());
        assert!(FolderLock::of(&folder.0.join("missing/socket")).is_none());
    }

    #[test]
    fn each_error_has_its_remedy() {
        let folder = Folder::new("hints");
        let (regular, listening) = (folder.0.join("regular"), folder.0.join("listening"));
        std::fs::write(&regular, "text").unwrap();
        let server = std::os::unix::net::UnixListener::bind(&listening).unwrap();
        for (path, remedy) in [
            (regular.clone(), "not a socket; remove the file"),
            (listening, "Another process listens there; stop it"),
            (folder.0.join("missing/socket"), "missing does not exist; create it"),
            (regular.join("socket"), "is not a directory"),
        ] {
            let Err(error) = bind(&path, access(0o600), 1) else { panic!("{} was bound", path.display()) };
            let hint = hint(&path, &error);
            assert!(hint.contains(remedy), "{}: {error:?}{hint}", path.display());
        }
        assert_eq!(std::fs::read_to_string(&regular).unwrap(), "text", "it is left alone");
        drop(server);
    }
}
