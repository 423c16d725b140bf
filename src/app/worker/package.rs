//! The libraries of workers, which the server has in itself: written to a folder of its own, so that nothing has to be
//! installed.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where Python looks for the package `quickio`.
pub const PYTHON: &str = "python";
/// Where the package `quickio` of Node is.
pub const NODE: &str = "node";

/// Names and texts of files that lie beside this one.
macro_rules! files {
    ($($name:literal,)+) => { &[$(($name, include_str!($name))),+] };
}

/// All of them.
const FILES: &[(&str, &str)] = files![
    "node/app.cjs",
    "node/callbacks.cjs",
    "node/client.cjs",
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

/// The folder. It is removed when this is dropped.
pub struct Package {
    folder: PathBuf,
    /// Locked as long as the server lives, so that others can tell it from one that was left behind.
    lock: File,
}

/// What the names of all such folders begin with.
const PREFIX: &str = "quickio-libraries-";

/// The folders of this process.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes the folders of this process, which ends without dropping anything.
pub fn remove_all() {
    for folder in FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = fs::remove_dir_all(folder); // the next server looks for what is left
    }
}

impl Package {
    /// A folder that only this user can look into.
    pub fn new() -> io::Result<Package> {
        remove_abandoned();
        // Nobody can have made one of this name before, so the first attempt succeeds.
        let random = RandomState::new().build_hasher().finish();
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}-{random:016x}", std::process::id()));
        create(&folder)?;
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(folder.clone());
        let package = Package { lock: lock(&folder)?, folder };
        package.write()?;
        Ok(package)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes it anew where something has cleaned it away: temporary folders are cleaned of what is old.
    pub fn ensure(&mut self) -> io::Result<()> {
        if !self.folder.exists() {
            create(&self.folder)?;
            self.lock = lock(&self.folder)?;
        }
        // Somebody else may have waited for its name to be free.
        if !is_ours(&self.folder) {
            return Err(io::Error::other("another user has a folder of that name"));
        }
        if FILES.iter().all(|(name, _)| self.folder.join(name).exists()) { Ok(()) } else { self.write() }
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

impl Drop for Package {
    fn drop(&mut self) {
        // Where it cannot be removed the next server tries.
        let _ = fs::remove_dir_all(&self.folder);
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|folder| *folder != self.folder);
    }
}

fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

/// Whether this user has made it, and nobody else can put anything into it.
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

/// Removes what servers of this user have left behind that were killed.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    let names = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PREFIX);
    for entry in entries.flatten().filter(names) {
        let folder = entry.path();
        // A folder that was just made is not locked yet, and has nothing in it.
        let is_begun = folder.join(PYTHON).exists();
        if is_ours(&folder) && is_begun && lock(&folder).is_ok() {
            let _ = fs::remove_dir_all(folder); // whoever it is, another one is at it, too
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_private_comes_back_when_it_is_cleaned_away_and_goes_in_the_end() {
        let mut package = Package::new().unwrap();
        let folder = package.folder().to_owned();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.join(PYTHON).join("quickio/py.typed").exists());
        fs::remove_dir_all(folder.join(PYTHON)).unwrap();
        package.ensure().unwrap();
        assert!(folder.join(PYTHON).join("quickio/py.typed").exists());
        fs::remove_dir_all(&folder).unwrap();
        package.ensure().unwrap();
        assert!(folder.join(NODE).join("runner.mjs").exists());
        drop(package);
        assert!(!folder.exists());
    }

    #[test]
    fn what_others_could_have_made_is_not_used() {
        let mut package = Package::new().unwrap();
        let folder = package.folder().to_owned();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(package.ensure().is_err());
    }

    #[test]
    fn what_was_left_behind_is_removed_and_what_is_in_use_is_not() {
        let (used, left) = (Package::new().unwrap(), Package::new().unwrap());
        flock(&left.lock, FlockOperation::Unlock).unwrap(); // as its process's end does
        let another = Package::new().unwrap();
        assert!(used.folder().exists() && another.folder().exists() && !left.folder().exists());
    }

    /// What tools leave behind.
    fn is_cache(folder: &Path) -> bool {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with('.') || name == "__pycache__"
    }

    /// What lies in the sources is what is built in.
    #[test]
    fn no_file_is_forgotten() {
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
