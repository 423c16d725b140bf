//! A check that a file is a shared object for this machine. It precedes the dynamic linker, whose messages do not
//! explain the fault.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The reason why a file cannot be loaded.
#[derive(Debug, PartialEq, Eq)]
pub enum Unloadable {
    /// The file is not an ELF file.
    NotElf,
    /// The file is a program, or an object file that was not linked.
    NotShared,
    /// The file is for another machine, which has this name.
    OtherMachine(String),
}

/// Bytes of the ELF header that are read (ELF-64 object file format, figure 2).
const HEADER_BYTES: usize = 20;

// Offsets in the header.
const CLASS: usize = 4;
const DATA: usize = 5;
const TYPE: usize = 16;
const MACHINE: usize = 18;

/// The type `ET_DYN`.
const SHARED_OBJECT: u16 = 3;

/// The `EM_` numbers of machines that Linux runs on, with their names.
const MACHINES: &[(u16, &str)] = &[
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv"),
    (258, "loongarch"),
];

/// Returns the reason why a file cannot be loaded, or `None` if its header is that of a shared object for this machine.
///
/// # Errors
///
/// The file cannot be read.
pub fn inspect(path: &Path) -> io::Result<Option<Unloadable>> {
    let mut header = [0; HEADER_BYTES];
    let mut file = File::open(path)?;
    // A folder, a device or a pipe is not an ELF file, and reading it may block forever.
    if !file.metadata()?.is_file() {
        return Ok(Some(Unloadable::NotElf));
    }
    match file.read_exact(&mut header) {
        Ok(()) => Ok(check_header(&header)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(Unloadable::NotElf)),
        Err(error) => Err(error),
    }
}

fn check_header(header: &[u8; HEADER_BYTES]) -> Option<Unloadable> {
    if !header.starts_with(b"\x7fELF") {
        return Some(Unloadable::NotElf);
    }
    let is_little = header[DATA] == 1;
    let number = |at: usize| {
        let bytes = [header[at], header[at + 1]];
        if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    };
    let is_our_width = (header[CLASS] == 2) == cfg!(target_pointer_width = "64");
    let is_our_order = is_little == cfg!(target_endian = "little");
    let known = MACHINES.iter().find(|(machine, _)| *machine == number(MACHINE)).map(|(_, name)| *name);
    let is_ours = known.is_some_and(|name| std::env::consts::ARCH.starts_with(name));
    if !is_our_width || !is_our_order || !is_ours {
        let bits = if header[CLASS] == 2 { 64 } else { 32 };
        let name = known.map_or_else(|| format!("machine {}", number(MACHINE)), str::to_owned);
        let order = if is_little { "" } else { ", big-endian" };
        return Some(Unloadable::OtherMachine(format!("{name} ({bits} bits{order})")));
    }
    (number(TYPE) != SHARED_OBJECT).then_some(Unloadable::NotShared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_header() -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        File::open("/proc/self/exe").unwrap().read_exact(&mut header).unwrap();
        header[TYPE] = SHARED_OBJECT as u8;
        header
    }

    #[test]
    fn headers_are_checked() {
        assert_eq!(check_header(&own_header()), None);
        let with = |at: usize, byte: u8| {
            let mut header = own_header();
            header[at] = byte;
            check_header(&header)
        };
        assert_eq!(with(0, 0), Some(Unloadable::NotElf));
        assert_eq!(with(TYPE, 1), Some(Unloadable::NotShared), "an object file that was not linked");
        assert!(
            matches!(with(MACHINE, 250), Some(Unloadable::OtherMachine(name)) if name.starts_with("machine 250"))
        );
        assert!(matches!(with(CLASS, 1), Some(Unloadable::OtherMachine(name)) if name.contains("32 bits")));
    }
}
