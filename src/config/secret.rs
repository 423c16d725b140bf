//! Secrets that entries of the settings name by their files, such as `secret-file` of `[[api-keys]]`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// The maximum size of a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The permissions of others than the owner and the group of a file.
const OTHERS_MODE: u32 = 0o007;

/// A secret that was read from a file. It is wiped when it is dropped.
pub struct FileSecret {
    /// The content of the file, without the end of its last line.
    pub bytes: Zeroizing<Vec<u8>>,
    /// A sentence about permissions that are probably a mistake.
    pub warning: Option<String>,
}

/// The reason why a secret cannot be used. `needed_by` is the setting that names the file, such as `secret-file of
/// [[api-keys]] number 2`.
#[derive(Debug, Error)]
pub enum SecretError {
    #[error(
        "cannot read {} ({needed_by}): {source}. The server's user must be able to read it; a path without a slash at its \
         beginning is relative to the working directory of the server", .path.display()
    )]
    Read { needed_by: String, path: PathBuf, source: io::Error },
    #[error("{} ({needed_by}) has more than {max} bytes: it is not the file of a secret", .path.display())]
    TooLong { needed_by: String, path: PathBuf, max: u64 },
    #[error(
        "{path} ({needed_by}) is empty; write a secret into it: (umask 077; openssl rand -hex 32 > {path})",
        path = .path.display()
    )]
    Empty { needed_by: String, path: PathBuf },
    #[error(
        "{path} ({needed_by}) has {len} bytes, but a secret that cannot be guessed has at least {min}; write a longer one: \
         (umask 077; openssl rand -hex 32 > {path})", path = .path.display()
    )]
    TooShort { needed_by: String, path: PathBuf, len: usize, min: usize },
}

impl FileSecret {
    /// Reads a secret of at least `bytes_min` bytes. The end of the last line, which editors and `openssl rand -hex` write,
    /// does not belong to it.
    pub fn read(path: &Path, bytes_min: usize, needed_by: &str) -> Result<FileSecret, SecretError> {
        let (path_buf, needed_by) = (|| path.to_owned(), || needed_by.to_owned());
        let unreadable = |source| SecretError::Read { needed_by: needed_by(), path: path_buf(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            let max = SECRET_BYTES_MAX;
            return Err(SecretError::TooLong { needed_by: needed_by(), path: path_buf(), max });
        }
        for end in [b'\n', b'\r'] {
            if bytes.last() == Some(&end) {
                bytes.pop();
            }
        }
        match bytes.len() {
            0 => Err(SecretError::Empty { needed_by: needed_by(), path: path_buf() }),
            len if len < bytes_min => {
                Err(SecretError::TooShort { needed_by: needed_by(), path: path_buf(), len, min: bytes_min })
            }
            _ => Ok(FileSecret { bytes, warning: exposed(path, mode, &needed_by()) }),
        }
    }
}

/// Returns a warning if every user of the host may read or change the file.
fn exposed(path: &Path, mode: u32, needed_by: &str) -> Option<String> {
    (mode & OTHERS_MODE != 0).then(|| {
        format!(
            "every user of this host can use the secret in {path} ({needed_by}, mode {mode:04o}); run `chmod o= {path}`",
            path = path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file with this content, which is removed when the value is dropped.
    struct SecretFile(PathBuf);

    impl SecretFile {
        fn new(name: &str, content: &[u8], mode: u32) -> SecretFile {
            let path = std::env::temp_dir().join(format!("quickio-secret-{}-{name}", std::process::id()));
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            SecretFile(path)
        }
    }

    impl Drop for SecretFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn secrets_end_before_the_end_of_their_line() {
        for (number, content) in
            ["0123456789abcdef", "0123456789abcdef\n", "0123456789abcdef\r\n"].into_iter().enumerate()
        {
            let file = SecretFile::new(&number.to_string(), content.as_bytes(), 0o640);
            let secret = FileSecret::read(&file.0, 16, "x").unwrap();
            assert_eq!((&secret.bytes[..], secret.warning), (&b"0123456789abcdef"[..], None));
        }
    }

    #[test]
    fn wrong_secrets_are_explained() {
        let read =
            |file: &SecretFile| match FileSecret::read(&file.0, 16, "secret-file of [[api-keys]] number 2") {
                Ok(secret) => secret.warning.expect("a warning"),
                Err(error) => error.to_string(),
            };
        let is_named = |file: &SecretFile, text: &str| {
            assert!(text.contains("secret-file of [[api-keys]] number 2"), "{text}");
            assert!(text.contains(file.0.to_str().unwrap()), "{text}");
        };
        for (name, content, mode, part) in [
            ("empty", &b""[..], 0o600, "is empty"),
            ("line", b"\n", 0o600, "is empty"),
            ("short", b"short\n", 0o600, "has 5 bytes"),
            ("long", &[b'x'; 70_000], 0o600, "more than 65536 bytes"),
            ("public", b"0123456789abcdef", 0o644, "chmod o= "),
        ] {
            let file = SecretFile::new(name, content, mode);
            let text = read(&file);
            assert!(text.contains(part), "{text}");
            is_named(&file, &text);
        }
        let missing = SecretFile::new("missing", b"", 0o600);
        fs::remove_file(&missing.0).unwrap();
        is_named(&missing, &read(&missing));
    }
}
