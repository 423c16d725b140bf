//! A settings file for a test.

use crate::support::Server;
use std::fs;
use std::path::PathBuf;

/// A settings file. Dropping it removes it.
pub struct SettingsFile(PathBuf);

impl SettingsFile {
    /// Writes a file, whose name must be that of no other test.
    pub fn new(name: &str, text: &str) -> SettingsFile {
        let file =
            SettingsFile(std::env::temp_dir().join(format!("quickio-{}-{name}.toml", std::process::id())));
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("a file can be written");
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Starts a server with these settings, and a clock that the test moves.
    pub fn start(&self, arguments: &[&str]) -> Server {
        Server::start_with_clock(&[&["--config", self.path()], arguments].concat())
    }
}

impl Drop for SettingsFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // a file that remains harms no other test
    }
}
