//! Whether a file is a shared object of this machine, told before the dynamic linker is asked: its own words do not say.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What a file is that cannot be loaded.
#[derive(Debug, PartialEq, Eq)]
pub enum Not {
    /// No ELF file at all.
    Elf,
    /// A program, or an object that was not linked.
    Shared,
    /// For another kind of machine, by its name.
    OurMachine(String),
}

/// Bytes of the head that are looked at (ELF-64 object file format, figure 2).
const HEAD_BYTES: usize = 20;

const CLASS: usize = 4;
const DATA: usize = 5;
const TYPE: usize = 16;
const MACHINE: usize = 18;

const SHARED_OBJECT: u16 = 3;

/// `EM_` numbers of machines that Linux runs on.
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

/// Looks at the head of a file.
pub fn look(path: &Path) -> io::Result<Option<Not>> {
    let mut head = [0; HEAD_BYTES];
    let mut file = File::open(path)?;
    // A folder, a device or a pipe is none, and reading it may never end.
    if !file.metadata()?.is_file() {
        return Ok(Some(Not::Elf));
    }
    match file.read_exact(&mut head) {
        Ok(()) => Ok(judge(&head)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(Not::Elf)),
        Err(error) => Err(error),
    }
}

fn judge(head: &[u8; HEAD_BYTES]) -> Option<Not> {
    if !head.starts_with(b"\x7fELF") {
        return Some(Not::Elf);
    }
    let is_little = head[DATA] == 1;
    let number = |at: usize| {
        let bytes = [head[at], head[at + 1]];
        if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    };
    let is_our_width = (head[CLASS] == 2) == cfg!(target_pointer_width = "64");
    let is_our_order = is_little == cfg!(target_endian = "little");
    let known = MACHINES.iter().find(|(machine, _)| *machine == number(MACHINE)).map(|(_, name)| *name);
    let is_ours = known.is_some_and(|name| std::env::consts::ARCH.starts_with(name));
    if !is_our_width || !is_our_order || !is_ours {
        let bits = if head[CLASS] == 2 { 64 } else { 32 };
        let name = known.map_or_else(|| format!("machine {}", number(MACHINE)), str::to_owned);
        let order = if is_little { "" } else { ", big-endian" };
        return Some(Not::OurMachine(format!("{name} ({bits} bits{order})")));
    }
    (number(TYPE) != SHARED_OBJECT).then_some(Not::Shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_head() -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        File::open("/proc/self/exe").unwrap().read_exact(&mut head).unwrap();
        head[TYPE] = SHARED_OBJECT as u8;
        head
    }

    #[test]
    fn heads_are_judged() {
        assert_eq!(judge(&own_head()), None);
        let with = |at: usize, byte: u8| {
            let mut head = own_head();
            head[at] = byte;
            judge(&head)
        };
        assert_eq!(with(0, 0), Some(Not::Elf));
        assert_eq!(with(TYPE, 1), Some(Not::Shared), "an object that was not linked");
        assert!(matches!(with(MACHINE, 250), Some(Not::OurMachine(name)) if name.starts_with("machine 250")));
        assert!(matches!(with(CLASS, 1), Some(Not::OurMachine(name)) if name.contains("32 bits")));
    }
}
