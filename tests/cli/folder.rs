//! A folder in which shells run the commands of the documentation.

use super::support::server::BINARY;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Returns the blocks of code in a language.
pub fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("the end of the fence")).collect()
}

/// Returns a file of the sources.
pub fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("the document is there")
}

/// A folder with the files that commands read and make, which is removed when the value is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("quickio-docs-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    /// Returns the path of a file.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file that only its owner can read, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Returns a shell that runs these lines here, with `quickio` in its `PATH`.
    pub fn shell(&self, lines: &str) -> Command {
        let mut shell = Command::new("bash");
        let bin = Path::new(BINARY).parent().unwrap().display();
        let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
        shell.args(["-ec", lines]).current_dir(&self.0).env("PATH", path);
        for (name, _) in std::env::vars() {
            if name.starts_with("QUICKIO_") {
                shell.env_remove(name);
            }
        }
        shell
    }

    pub fn run(&self, lines: &str) -> Output {
        self.shell(lines).output().unwrap()
    }

    /// Runs lines that succeed, and returns what they print.
    #[track_caller]
    pub fn printed(&self, lines: &str) -> String {
        let output = self.run(lines);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
