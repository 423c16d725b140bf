//! The worker libraries for Python and Node, which are part of the server's executable. The server writes them to a
//! folder of its own; nothing has to be installed.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The subfolder in which Python finds the package `quickio`.
pub const PYTHON: &str = "python";
/// The subfolder that is Node's package `quickio`.
pub const NODE: &str = "node";

/// Returns the names and texts of files in the folder of this source file.
macro_rules! files {
    ($($name:literal,)+) => { &[$(($name, include_str!($name))),+] };
}

/// All files of the libraries.
const FILES: &[(&str, &str)] = files![
    "node/app.cjs",
    "node/callbacks.cjs",
    "node/child.mjs",
    "node/client.cjs",
    "node/context.cjs",
    "node/control.cjs",
    "node/dispatch.cjs",
    "node/errors.cjs",
    "node/hooks.mjs",
    "node/index.cjs",
    "node/index.d.cts",
    "node/index.d.ts",
    "node/index.js",
    "node/json.cjs",
    "node/links.cjs",
    "node/package.json",
    "node/paths.cjs",
    "node/registration.cjs",
    "node/requests.cjs",
    "node/resolve.mjs",
    "node/runner.mjs",
    "node/script.cjs",
    "node/state.cjs",
    "node/timers.cjs",
    "node/wire.cjs",
    "node/work.cjs",
    "node/worker.cjs",
    "python/quickio/__init__.py",
    "python/quickio/__main__.py",
    "python/quickio/_answers.py",
    "python/quickio/_app.py",
    "python/quickio/_client.py",
    "python/quickio/_context.py",
    "python/quickio/_control.py",
    "python/quickio/_dispatch.py",
    "python/quickio/_errors.py",
    "python/quickio/_events.py",
    "python/quickio/_json.py",
    "python/quickio/_later.py",
    "python/quickio/_links.py",
    "python/quickio/_old.py",
    "python/quickio/_output.py",
    "python/quickio/_paths.py",
    "python/quickio/_pool.py",
    "python/quickio/_registration.py",
    "python/quickio/_report.py",
    "python/quickio/_runner.py",
    "python/quickio/_script.py",
    "python/quickio/_timers.py",
    "python/quickio/_wire.py",
    "python/quickio/_worker.py",
    "python/quickio/py.typed",
];

/// A folder that contains the libraries. It is removed when this value is dropped.
pub struct LibraryFolder {
    folder: PathBuf,
    /// The lock on the folder, held for the life of the server. Other servers remove folders that are not locked.
    lock: File,
}

/// The prefix of the names of all such folders.
const PREFIX: &str = "quickio-libraries-";

/// The folders of this process that still exist.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes the folders of this process. For a process that ends without dropping its values.
pub fn remove_all() {
    for folder in FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = fs::remove_dir_all(folder); // the next server removes a folder that is left
    }
}

impl LibraryFolder {
    /// Creates a folder that only this user can read, and writes the libraries to it. Removes folders that killed
    /// servers of this user have left.
    ///
    /// # Errors
    ///
    /// The folder for temporary files cannot be written to.
    pub fn new() -> io::Result<LibraryFolder> {
        remove_abandoned();
        // The name is random: no other folder has it.
        let random = RandomState::new().build_hasher().finish();
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}-{random:016x}", std::process::id()));
        create(&folder)?;
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(folder.clone());
        let libraries = LibraryFolder { lock: lock(&folder)?, folder };
        libraries.write()?;
        Ok(libraries)
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes the folder again if it or some of its files have been removed: programs remove old files from folders for
    /// temporary files.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or another user has created a folder with its name.
    pub fn ensure(&mut self) -> io::Result<()> {
        if !self.folder.exists() {
            create(&self.folder)?;
            self.lock = lock(&self.folder)?;
        }
        // Another user may have waited for the name to become free.
        if !is_ours(&self.folder) {
            let why = format!("another user owns the folder {}", self.folder.display());
            return Err(io::Error::other(why));
        }
        let is_complete = FILES.iter().all(|(name, _)| self.folder.join(name).exists());
        if is_complete { Ok(()) } else { self.write() }
    }

    fn write(&self) -> io::Result<()> {
        for (name, text) in FILES {
            let file = self.folder.join(name);
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(file, text)?;
        }
        Ok(())
    }
}

impl Drop for LibraryFolder {
    fn drop(&mut self) {
        // If the folder cannot be removed, the next server tries again.
        let _ = fs::remove_dir_all(&self.folder);
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|folder| *folder != self.folder);
    }
}

fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

/// Returns whether the folder belongs to this user and no other user has access to it.
fn is_ours(folder: &Path) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(folder)
        .is_ok_and(|found| found.is_dir() && found.uid() == ours && found.mode() & 0o077 == 0)
}

fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

/// Removes the folders that killed servers of this user have left.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    let is_named = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PREFIX);
    for entry in entries.flatten().filter(is_named) {
        let folder = entry.path();
        // A folder that another server has just created is empty and not locked yet.
        let has_files = folder.join(PYTHON).exists();
        if is_ours(&folder) && has_files && lock(&folder).is_ok() {
            let _ = fs::remove_dir_all(folder); // if it fails, another server is removing the folder
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_private_and_restored_and_removed_in_the_end() {
        let mut libraries = LibraryFolder::new().unwrap();
        let folder = libraries.path().to_owned();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.join(PYTHON).join("quickio/py.typed").exists());
        fs::remove_dir_all(folder.join(PYTHON)).unwrap();
        libraries.ensure().unwrap();
        assert!(folder.join(PYTHON).join("quickio/py.typed").exists());
        fs::remove_dir_all(&folder).unwrap();
        libraries.ensure().unwrap();
        assert!(folder.join(NODE).join("runner.mjs").exists());
        drop(libraries);
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_rejected() {
        let mut libraries = LibraryFolder::new().unwrap();
        let folder = libraries.path().to_owned();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(libraries.ensure().is_err());
    }

    #[test]
    fn abandoned_folders_are_removed_and_used_ones_are_not() {
        let (used, left) = (LibraryFolder::new().unwrap(), LibraryFolder::new().unwrap());
        flock(&left.lock, FlockOperation::Unlock).unwrap(); // as the end of its process would
        let another = LibraryFolder::new().unwrap();
        assert!(used.path().exists() && another.path().exists() && !left.path().exists());
    }

    /// Returns whether a folder is a cache that a tool has created.
    fn is_cache(folder: &Path) -> bool {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with('.') || name == "__pycache__"
    }

    /// Compares the source folders with the files that are built in.
    #[test]
    fn all_source_files_are_built_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app/worker");
        for sources in [PYTHON, NODE] {
            let mut folders = vec![root.join(sources)];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        if !is_cache(&path) {
                            folders.push(path);
                        }
                        continue;
                    }
                    let name = path.strip_prefix(&root).unwrap();
                    let built_in = FILES.iter().find(|(file, _)| Path::new(file) == name);
                    assert!(built_in.is_some(), "{} is not built in", path.display());
                }
            }
        }
    }
}
