//! Loaded programs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{
    Attributes, ByIdAttributes, Command, InformationAttributes, Instruction, call, name_bytes, open,
};

/// What a program is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// Whether a process may use a device.
    CgroupDevice,
    /// What becomes of a packet.
    Packet,
}

/// A loaded program. It lives as long as a descriptor or a hook refers to it.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

/// What the kernel tells of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its number.
    pub id: u32,
    /// At most 15 bytes.
    pub name: String,
    /// Numbers of its maps.
    pub maps: Vec<u32>,
}

/// Where the kernel tells why it refuses a program; of more it keeps the end.
const LOG_BYTES: usize = 1 << 16;

/// Size of [`Information`].
const INFORMATION_BYTES: u32 = 80;

/// Most maps of a program that are listed.
const MAPS_MAX: u32 = 8;

/// `BPF_PROG_LOAD`; the kernel takes a shorter union as one whose rest is zero.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}
// SAFETY: as `union bpf_attr` has it for BPF_PROG_LOAD, up to the name.
unsafe impl Attributes for LoadAttributes {}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Information {
    kind: u32,
    id: u32,
    tag: u64,
    jited_bytes: u32,
    translated_bytes: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

const _: () = assert!(size_of::<Information>() == INFORMATION_BYTES as usize);

impl Program {
    /// Loads a program. Its licence must be one that the helpers ask for which it calls.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`; `EINVAL` and `EACCES` with the last words of
    /// the kernel's verifier.
    pub fn load(
        kind: ProgramKind,
        name: &str,
        license: &std::ffi::CStr,
        program: &[Instruction],
    ) -> io::Result<Self> {
        // Only after a refusal: to write it takes most of the time of loading.
        match load(kind, name, license, program, None) {
            Err(error) if error.raw_os_error() != Some(libc::EPERM) => {
                let mut log = vec![0; LOG_BYTES];
                load(kind, name, license, program, Some(&mut log))
                    .map_err(|error| explained(error, &log))
            }
            done => done,
        }
    }

    /// Opens a program by its number.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub fn by_id(id: u32) -> io::Result<Self> {
        let mut attributes = ByIdAttributes {
            id,
            next: 0,
            flags: 0,
        };
        // SAFETY: no pointer is in it, and the command answers with a descriptor.
        let fd = unsafe { open(Command::ProgramById, &mut attributes) }?;
        Ok(Self { fd })
    }

    /// What the kernel tells of it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn description(&self) -> io::Result<Description> {
        let mut maps = [0_u32; MAPS_MAX as usize];
        let mut found = Information {
            map_count: MAPS_MAX,
            maps: maps.as_mut_ptr().addr() as u64,
            ..Information::default()
        };
        let mut attributes = InformationAttributes {
            fd: self.fd.as_raw_fd().cast_unsigned(),
            length: INFORMATION_BYTES,
            information: std::ptr::from_mut(&mut found).addr() as u64,
        };
        // SAFETY: the kernel writes at most `length` bytes of `struct bpf_prog_info`, whose beginning
        // `Information` is, without padding and of plain numbers, and at most `map_count` numbers at `maps`,
        // which has place for them and is borrowed by nobody else; all other pointers in it are null.
        unsafe { call(Command::Information, &mut attributes) }?;
        let count = found.map_count.min(MAPS_MAX) as usize;
        let name: Vec<u8> = found
            .name
            .into_iter()
            .take_while(|byte| *byte != 0)
            .collect();
        Ok(Description {
            id: found.id,
            name: String::from_utf8_lossy(&name).into_owned(),
            maps: maps.into_iter().take(count).collect(),
        })
    }

    /// Its descriptor.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn load(
    kind: ProgramKind,
    name: &str,
    license: &std::ffi::CStr,
    program: &[Instruction],
    log: Option<&mut [u8]>,
) -> io::Result<Program> {
    let (log_level, log_bytes, log) = match log {
        Some(log) => (1, log.len(), log.as_mut_ptr().addr() as u64),
        None => (0, 0, 0),
    };
    let too_long = |_| io::Error::from_raw_os_error(libc::E2BIG);
    let mut attributes = LoadAttributes {
        kind: match kind {
            ProgramKind::Packet => 3,
            ProgramKind::CgroupDevice => 15,
        },
        instruction_count: u32::try_from(program.len()).map_err(too_long)?,
        instructions: program.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level,
        log_bytes: u32::try_from(log_bytes).map_err(too_long)?,
        log,
        kernel_version: 0,
        flags: 0,
        name: name_bytes(name),
    };
    // SAFETY: `instructions` points to `instruction_count` instructions of 8 bytes and `license` to a terminated
    // string, which are only read; the kernel writes at most `log_bytes` at `log`, which is borrowed by
    // nobody else. The command answers with a descriptor.
    let fd = unsafe { open(Command::ProgramLoad, &mut attributes) }?;
    Ok(Program { fd })
}

/// The error with the last words of the verifier, which say what is wrong.
fn explained(error: io::Error, log: &[u8]) -> io::Error {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(log.get(..end).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("processed "))
        .collect();
    match lines.last() {
        Some(last) if !last.is_empty() => io::Error::new(error.kind(), format!("{error}: {last}")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Assembler, Operation, Register};
    use super::*;

    #[test]
    fn a_refusal_has_the_verifiers_words() {
        if !rustix::process::geteuid().is_root() {
            println!("not run: loading a program needs root");
            return;
        }
        let mut program = Assembler::default();
        program.compute(Operation::Move, Register::R0, 0);
        program.exit();
        let good = program.finish().unwrap();
        let loaded = Program::load(ProgramKind::Packet, "ve_test", c"GPL", &good).unwrap();
        let found = loaded.description().unwrap();
        assert_eq!((found.name.as_str(), found.maps), ("ve_test", vec![]));
        let same = Program::by_id(found.id).unwrap().description().unwrap();
        assert_eq!(same.id, found.id);
        let mut program = Assembler::default();
        program.exit();
        let bad = program.finish().unwrap();
        let error = Program::load(ProgramKind::Packet, "ve_test", c"GPL", &bad).unwrap_err();
        assert!(error.to_string().contains("R0 !read_ok"), "{error}");
    }
}
