//! Compiles applications in C and C++ for tests, with the compilers of this machine.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// The folder of the headers.
pub const HEADERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/c");

const C_FLAGS: &[&str] = &["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"];
const CPP_FLAGS: &[&str] = &["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"];

/// Returns the path of a file of this repository.
pub fn in_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compiles a C or C++ source, and returns the path of its shared object.
pub fn shared_object(source: &Path) -> PathBuf {
    shared_object_with(source, &[])
}

/// As [`shared_object`], with more flags.
pub fn shared_object_with(source: &Path, flags: &[&str]) -> PathBuf {
    let (compiler, own) = if source.extension().is_some_and(|extension| extension == "cpp") {
        ("c++", CPP_FLAGS)
    } else {
        ("cc", C_FLAGS)
    };
    let text = fs::read_to_string(source).expect("the source can be read");
    let headers = ["quickio.h", "quickio.hpp"].map(|name| fs::read(Path::new(HEADERS).join(name)).unwrap());
    let mut hasher = DefaultHasher::new();
    (&text, &headers, flags, own).hash(&mut hasher);
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let object = temporary(&format!("{stem}-{:016x}.so", hasher.finish()));
    if !object.exists() {
        // Tests run at the same time, and each must see only complete objects: the compiler writes to a name of its
        // own, and a rename is atomic.
        let unfinished =
            object.with_extension(format!("{}-{:?}.tmp", std::process::id(), thread::current().id()));
        let mut command = Command::new(compiler);
        command.args(own).args(["-g", "-O1", "-shared", "-fPIC", "-I", HEADERS]).args(flags);
        command.arg("-o").arg(&unfinished).arg(source);
        run(&mut command);
        fs::rename(&unfinished, &object).expect("the object can be renamed");
    }
    object
}

/// Compiles the text of a C source, and returns the path of its shared object.
pub fn shared_object_of(name: &str, text: &str) -> PathBuf {
    let source = temporary(&format!("{name}-{}.c", std::process::id()));
    fs::write(&source, text).expect("the source can be written");
    shared_object(&source)
}

/// Returns the path of a temporary file of the tests.
pub fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs a compiler. Panics with its output if it fails.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{messages}");
}
