//! Detection of changes in the files that workers were loaded from. The files are polled: this works on every file
//! system, and with editors that replace files by new ones.

use crate::limits::WORKER_FILES_MAX;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A watcher of files.
#[derive(Default)]
pub struct FileWatcher {
    /// The files with their stamps. `None`: the file does not exist.
    files: BTreeMap<PathBuf, Option<FileStamp>>,
}

/// The time of the last modification of a file, its length in bytes, and its identity: a symbolic link may lead to
/// another file. Two versions of a file may have the same stamp, but not if one of them was written just now.
type FileStamp = (SystemTime, u64, (u64, u64));

impl FileWatcher {
    /// Replaces the set of watched files. A change to a file that was already watched is still reported.
    pub fn set(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let mut known = std::mem::take(&mut self.files);
        let with_stamp = |file: PathBuf| {
            let stamp = known.remove(&file).unwrap_or_else(|| stamp(&file));
            (file, stamp)
        };
        self.files = files.into_iter().take(WORKER_FILES_MAX).map(with_stamp).collect();
    }

    /// Adds files to the set.
    pub fn add(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        for file in files {
            if self.files.len() < WORKER_FILES_MAX && !self.files.contains_key(&file) {
                let stamp = stamp(&file);
                self.files.insert(file, stamp);
            }
        }
    }

    /// Returns whether one of the files has changed since the last call.
    pub fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for (file, before) in &mut self.files {
            let now = stamp(file);
            // A file that does not exist is being replaced.
            if now.is_some() && now != *before {
                *before = now;
                changed = true;
            }
        }
        changed
    }
}

fn stamp(file: &Path) -> Option<FileStamp> {
    let found = fs::metadata(file).ok()?;
    Some((found.modified().ok()?, found.len(), (found.dev(), found.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_change_is_reported_once_and_a_missing_file_is_no_change() {
        let folder = std::env::temp_dir().join(format!("quickio-watch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("app.py");
        fs::write(&file, "1").unwrap();
        let mut watcher = FileWatcher::default();
        watcher.set([file.clone(), folder.join("none")]);
        assert!(!watcher.has_changed());
        fs::write(&file, "22").unwrap();
        assert!(watcher.has_changed() && !watcher.has_changed());
        fs::write(&file, "333").unwrap();
        watcher.set([file.clone()]);
        assert!(watcher.has_changed() && !watcher.has_changed(), "saved while it was loaded");
        let open = fs::File::options().write(true).open(&file).unwrap();
        open.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        assert!(watcher.has_changed() && !watcher.has_changed(), "also back in time");
        fs::remove_file(&file).unwrap();
        assert!(!watcher.has_changed());
        fs::write(&file, "333").unwrap();
        assert!(watcher.has_changed() && !watcher.has_changed());
        fs::remove_dir_all(folder).unwrap();
    }
}
