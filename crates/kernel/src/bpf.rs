//! The kernel's BPF machine by bpf(2) alone: programs that are assembled here, maps, and links' hooks.
//!
//! No compiler, no BTF and no library is needed for programs of some hundred instructions. `linux/bpf.h`
//! and `Documentation/bpf/standardization/instruction-set.rst` are the reference.

mod assembler;
mod hook;
mod map;
mod program;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

pub use assembler::{Assembler, Condition, Instruction, Label, Operation, Register, Size};
pub use hook::{attach_ingress, detach_ingress, ingress_programs};
pub use map::{Map, MapKind};
pub use program::{Description, Program, ProgramKind};

/// Commands of bpf(2).
#[derive(Clone, Copy, Debug)]
#[repr(i64)]
pub(crate) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapNextKey = 4,
    ProgramLoad = 5,
    Attach = 8,
    Detach = 9,
    ProgramById = 13,
    MapById = 14,
    Information = 15,
    Query = 16,
}

/// The parts of `union bpf_attr` that the commands here read.
///
/// # Safety
/// Only for `repr(C)` structures without padding that are a prefix of the union as `linux/bpf.h` has
/// it for the commands that they are used with, and whose pointers the kernel only follows within the call.
pub(crate) unsafe trait Attributes {}

/// Calls bpf(2).
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// Whatever `attributes` points to must be as large as `command` reads or writes there, and the latter
/// not be borrowed elsewhere.
pub(crate) unsafe fn call<A: Attributes>(
    command: Command,
    attributes: &mut A,
) -> io::Result<libc::c_long> {
    // SAFETY: the structure is a padding-free prefix of the union with its size (`Attributes`), and the kernel
    // takes a shorter union as one whose rest is zero; what it points to is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Calls bpf(2) with a command that answers with a new descriptor.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As [`call`]; and `command` must be one of those.
pub(crate) unsafe fn open<A: Attributes>(
    command: Command,
    attributes: &mut A,
) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let result = unsafe { call(command, attributes) }?;
    let number =
        i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: such a command returns a new descriptor (close-on-exec) that nobody else in this process
    // knows.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A name as the kernel takes it: at most 15 of letters, digits, `_` and `.`.
pub(crate) fn name_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bytes
}

#[derive(Debug)]
#[repr(C)]
pub(crate) struct ByIdAttributes {
    pub(crate) id: u32,
    pub(crate) next: u32,
    pub(crate) flags: u32,
}
// SAFETY: `BPF_*_GET_FD_BY_ID`: three words, no pointer.
unsafe impl Attributes for ByIdAttributes {}

#[derive(Debug)]
#[repr(C)]
pub(crate) struct InformationAttributes {
    pub(crate) fd: u32,
    pub(crate) length: u32,
    pub(crate) information: u64,
}
// SAFETY: `BPF_OBJ_GET_INFO_BY_FD`: two words and a pointer.
unsafe impl Attributes for InformationAttributes {}
