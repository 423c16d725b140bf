//! Reading the files that the settings of TLS name, and noticing that they have changed.

use super::error::TlsError;
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The maximum size of a file, in bytes: a bundle of all public authorities has 220 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The content of a file, which may be a key: it is wiped when it is dropped.
pub(super) type Content = Zeroizing<Vec<u8>>;

/// A digest of the contents of all files of a configuration.
pub(super) type Fingerprint = [u8; 32];

/// The files that were read, with a digest of their contents.
pub(super) struct FilesRead {
    paths: BTreeSet<PathBuf>,
    digest: Context,
}

impl FilesRead {
    pub fn new() -> FilesRead {
        FilesRead { paths: BTreeSet::new(), digest: Context::new(&SHA256) }
    }

    /// Reads a file that a setting names.
    pub fn read(&mut self, setting: &'static str, path: &Path) -> Result<Content, TlsError> {
        self.paths.insert(path.to_owned());
        let content = read(setting, path)?;
        self.note(path.as_os_str().as_encoded_bytes());
        self.note(&content);
        Ok(content)
    }

    /// Adds to the digest what is not a file, and decides what the configuration is.
    pub fn note(&mut self, value: &[u8]) {
        self.digest.update(&(value.len() as u64).to_be_bytes());
        self.digest.update(value);
    }

    /// Returns the digest, and the directories in which a change of a file shows: the file's own, and that of the file
    /// that a symbolic link leads to.
    pub fn finish(self) -> (Fingerprint, Vec<PathBuf>) {
        let digest = self.digest.finish();
        let fingerprint = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        (fingerprint, directories(&self.paths))
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Content, TlsError> {
    let unreadable = |source| TlsError::Read { setting, path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut content = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::TooLong { setting, path: path.to_owned(), max: FILE_BYTES_MAX });
    }
    Ok(content)
}

fn directories(paths: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut found = BTreeSet::new();
    for path in paths {
        found.insert(parent(path));
        if let Ok(target) = path.canonicalize() {
            found.insert(parent(&target));
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_files_and_of_what_links_lead_to() {
        let paths = ["a.pem", "/x/a.pem", "/x/b.pem"].map(PathBuf::from);
        assert_eq!(directories(&paths.into()), ["/x", "."].map(PathBuf::from));
    }

    #[test]
    fn the_fingerprint_depends_on_where_a_value_ends() {
        let of = |values: &[&[u8]]| {
            let mut files = FilesRead::new();
            values.iter().for_each(|value| files.note(value));
            files.finish().0
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
    }
}
