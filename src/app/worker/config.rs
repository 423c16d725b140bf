//! The configuration of an application's workers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The kind of program that a worker runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerKind {
    Python,
    Node,
    /// A file that is executable and begins with `#!`.
    Program,
}

impl WorkerKind {
    /// Returns the kind of an application's file, by its extension or its first bytes, or `None` if the file is not for
    /// workers.
    pub fn of(file: &Path) -> Option<WorkerKind> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("py") => Some(WorkerKind::Python),
            Some("js" | "mjs" | "cjs") => Some(WorkerKind::Node),
            Some("so") => None,
            _ if is_script(file) => Some(WorkerKind::Program),
            _ => None,
        }
    }
}

/// Returns whether a file is executable and begins with `#!`.
fn is_script(file: &Path) -> bool {
    let is_executable = |found: fs::Metadata| found.is_file() && found.permissions().mode() & 0o111 != 0;
    let mut head = [0; 2];
    fs::metadata(file).is_ok_and(is_executable)
        && File::open(file).is_ok_and(|mut file| file.read_exact(&mut head).is_ok())
        && head == *b"#!"
}

/// The configuration of an application's workers.
#[derive(Clone)]
pub struct WorkerConfig {
    /// The name of the application.
    pub name: String,
    /// The absolute path of the application's file, with its symbolic links. It is resolved at each start of a worker.
    pub file: PathBuf,
    /// The server's working directory, which workers start in.
    pub folder: WorkingFolder,
    pub kind: WorkerKind,
    /// The number of workers, at least 1.
    pub instances: usize,
    /// The number of links of each worker.
    pub shards: usize,
    /// The application's section of the settings file.
    pub settings: BTreeMap<String, String>,
    /// The Python interpreter.
    pub python: PathBuf,
    /// The Node executable.
    pub node: PathBuf,
    pub limits: LinkLimits,
    /// The time within which a worker must be ready.
    pub start_timeout: Duration,
    /// The time within which a worker must finish when the server shuts down.
    pub stop_timeout: Duration,
    /// The time within which a worker must finish when it is replaced. Longer than its requests and callbacks may take.
    pub replace_timeout: Duration,
    /// The time within which a worker must answer a ping.
    pub timeout: Duration,
    /// Workers are replaced when their files change.
    pub reload: bool,
    /// Workers run their self-test and do not serve.
    pub test: bool,
    pub clock: WorkerClock,
}

impl WorkerConfig {
    /// Returns the application's file as it is now, without symbolic links.
    ///
    /// # Errors
    ///
    /// The file does not exist, or its path is not UTF-8.
    pub fn resolve(&self) -> io::Result<PathBuf> {
        let resolved = fs::canonicalize(&self.file)?;
        if resolved.to_str().is_none() {
            return Err(io::Error::other("its path is not UTF-8"));
        }
        Ok(resolved)
    }
}

/// The working directory of a server and its workers, by a path that may contain symbolic links.
///
/// A process keeps its working directory even if a symbolic link on the path that led there changes, or if the directory
/// is deleted. A worker must start in the directory that has the path now.
#[derive(Clone, Debug)]
pub struct WorkingFolder(Option<PathBuf>);

impl WorkingFolder {
    /// Returns this process's working directory: by the path that its shell noted in `PWD` if it is correct, else
    /// without symbolic links.
    pub fn current() -> WorkingFolder {
        let noted = std::env::var_os("PWD").map(PathBuf::from).filter(|noted| is_same(noted, Path::new(".")));
        WorkingFolder(noted.filter(|noted| noted.is_absolute()).or_else(|| std::env::current_dir().ok()))
    }

    /// Returns the absolute path of a file, with its symbolic links.
    pub fn absolute(&self, file: &Path) -> PathBuf {
        let folder = self.0.as_deref().unwrap_or(Path::new("/"));
        // Removes `.` components.
        folder.join(file).components().collect()
    }

    /// Returns the directory in which a worker must start, or `other` if it does not exist any more.
    pub fn or(&self, other: &Path) -> PathBuf {
        self.0.as_ref().filter(|folder| folder.is_dir()).map_or_else(|| other.to_owned(), PathBuf::clone)
    }
}

/// Returns whether two paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// The limits of each link.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// Pending requests, at most [`super::REQUESTS_MAX`]. Further events are answered 420.
    pub requests_max: usize,
    /// Bytes that the worker has not read. While there are this many, further events are answered 420.
    pub outbox_bytes_max: usize,
    /// Bytes that the worker has not read. A worker that causes more by its own commands is killed.
    pub unread_bytes_max: usize,
    /// The time within which the worker must answer a request.
    pub request_timeout: Duration,
}

/// The clock of the server's timers.
#[derive(Clone)]
pub struct WorkerClock {
    /// Returns the time since the server started.
    pub now: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// The clock stands still until a test moves it.
    pub is_manual: bool,
}
