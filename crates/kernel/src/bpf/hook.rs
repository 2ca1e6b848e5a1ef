//! Where links ask programs: their ingress (`tcx`, Linux 6.6).
//!
//! A program stays attached until somebody detaches it or the link goes; nobody has to hold it. Links are
//! those of the calling thread's network namespace.

use std::io;
use std::os::fd::AsRawFd as _;

use super::{Attributes, Command, Program, call};

/// `BPF_TCX_INGRESS`.
const TCX_INGRESS: u32 = 46;
/// Programs of one link that are listed; the kernel allows 64.
const PROGRAMS_MAX: u32 = 64;

#[repr(C)]
struct AttachAttributes {
    interface: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
    relative: u32,
    revision: u64,
}
// SAFETY: `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`, without pointers.
unsafe impl Attributes for AttachAttributes {}

#[repr(C)]
struct QueryAttributes {
    interface: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}
// SAFETY: `BPF_PROG_QUERY`; the word after the count is padding there, too.
unsafe impl Attributes for QueryAttributes {}

fn attributes(interface: u32, program: &Program) -> AttachAttributes {
    AttachAttributes {
        interface,
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        kind: TCX_INGRESS,
        flags: 0,
        replaced: 0,
        relative: 0,
        revision: 0,
    }
}

/// Lets a link ask a program about each packet that comes in, after those that are there.
///
/// # Errors
/// `EEXIST` when it is attached there already, `ENODEV` without such a link, `EINVAL` on a kernel that
/// cannot.
pub fn attach_ingress(interface: u32, program: &Program) -> io::Result<()> {
    // SAFETY: no pointer is in it.
    unsafe { call(Command::Attach, &mut attributes(interface, program)) }.map(|_| ())
}

/// Lets a link no longer ask a program.
///
/// # Errors
/// `ENOENT` when it is not attached there, `ENODEV` without such a link.
pub fn detach_ingress(interface: u32, program: &Program) -> io::Result<()> {
    // SAFETY: no pointer is in it.
    unsafe { call(Command::Detach, &mut attributes(interface, program)) }.map(|_| ())
}

/// Numbers of the programs that a link asks.
///
/// # Errors
/// `ENODEV` without such a link, `EINVAL` on a kernel that cannot.
pub fn ingress_programs(interface: u32) -> io::Result<Vec<u32>> {
    let mut programs = [0_u32; PROGRAMS_MAX as usize];
    let mut attributes = QueryAttributes {
        interface,
        kind: TCX_INGRESS,
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr().addr() as u64,
        count: PROGRAMS_MAX,
        padding: 0,
        program_flags: 0,
        links: 0,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: the kernel writes at most `count` numbers at `programs`, which has place for them and is
    // borrowed by nobody else; all other pointers are null.
    match unsafe { call(Command::Query, &mut attributes) } {
        Ok(_) => {}
        // No program was ever attached there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let count = attributes.count.min(PROGRAMS_MAX) as usize;
    Ok(programs.into_iter().take(count).collect())
}
