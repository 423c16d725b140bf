//! The files that workers were loaded from: whether one of them has changed. They are looked at, since editors put new files
//! in the place of old ones, on any file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files, and when each was changed last; `None`: it is not there.
#[derive(Default)]
pub struct Watch {
    files: BTreeMap<PathBuf, Option<Stamp>>,
}

/// A file of the same time and length may still be another, but not one that somebody has just written.
type Stamp = (SystemTime, u64);

impl Watch {
    /// Looks at these files from now on. What has changed of those that it looks at already is still to be told.
    pub fn set(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let mut known = std::mem::take(&mut self.files);
        let with_stamp = |file: PathBuf| {
            let stamp = known.remove(&file).unwrap_or_else(|| stamp(&file));
            (file, stamp)
        };
        self.files = files.into_iter().map(with_stamp).collect();
    }

    /// Whether one of them has changed since it was looked at last.
    pub fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for (file, before) in &mut self.files {
            let now = stamp(file);
            // One that is not there is being replaced.
            if now.is_some() && now != *before {
                *before = now;
                changed = true;
            }
        }
        changed
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let found = fs::metadata(file).ok()?;
    Some((found.modified().ok()?, found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_change_is_told_once_and_a_file_that_is_away_waits() {
        let folder = std::env::temp_dir().join(format!("quickio-watch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("app.py");
        fs::write(&file, "1").unwrap();
        let mut watch = Watch::default();
        watch.set([file.clone(), folder.join("none")]);
        assert!(!watch.has_changed());
        fs::write(&file, "22").unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
        fs::write(&file, "333").unwrap();
        watch.set([file.clone()]);
        assert!(watch.has_changed() && !watch.has_changed(), "saved while it was loaded");
        let open = fs::File::options().write(true).open(&file).unwrap();
        open.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        assert!(watch.has_changed() && !watch.has_changed(), "also back in time");
        fs::remove_file(&file).unwrap();
        assert!(!watch.has_changed());
        fs::write(&file, "333").unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
        fs::remove_dir_all(folder).unwrap();
    }
}
