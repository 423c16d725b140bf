//! The libraries of workers, which the server has in itself: written to a folder of its own, so that nothing has to be
//! installed.

use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

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
}

impl Package {
    /// A folder that only this user can look into.
    pub fn new() -> io::Result<Package> {
        // Nobody can have made one of this name before, so the first attempt succeeds.
        let random = RandomState::new().build_hasher().finish();
        let name = format!("quickio-{}-{random:016x}", std::process::id());
        let package = Package { folder: std::env::temp_dir().join(name) };
        package.make()?;
        Ok(package)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes it anew where something has cleaned it away: temporary folders are cleaned of what is old.
    pub fn ensure(&self) -> io::Result<()> {
        if self.is_whole() { Ok(()) } else { self.make() }
    }

    fn is_whole(&self) -> bool {
        FILES.iter().all(|(name, _)| self.folder.join(name).exists())
    }

    /// Whether it is not somebody else's, who waited for its name to be free.
    fn is_ours(&self) -> bool {
        let ours = rustix::process::geteuid().as_raw();
        fs::symlink_metadata(&self.folder).is_ok_and(|found| found.is_dir() && found.uid() == ours)
    }

    fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_ours() => {}
            made => made?,
        }
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
        // Where it cannot be removed the next cleaning will.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_private_comes_back_when_it_is_cleaned_away_and_goes_in_the_end() {
        let package = Package::new().unwrap();
        let folder = package.folder().to_owned();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.join(PYTHON).join("quickio/py.typed").exists());
        fs::remove_dir_all(folder.join(PYTHON)).unwrap();
        package.ensure().unwrap();
        assert!(package.is_whole());
        fs::remove_dir_all(&folder).unwrap();
        package.ensure().unwrap();
        assert!(package.is_whole());
        drop(package);
        assert!(!folder.exists());
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
