//! Installing a seccomp filter without `no_new_privs`.
//!
//! The libraries that install filters set `no_new_privs` with them, which would end `sudo` and
//! every other setuid program inside. A process with `CAP_SYS_ADMIN` in its user namespace needs
//! it not (seccomp(2)).

use std::io;

/// One instruction of classic BPF, `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation, as `BPF_*` bits.
    pub code: u16,
    /// Instructions to skip when the condition holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// The operation's operand.
    pub operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

/// Puts a filter on this thread and everything that it starts or executes.
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN`; `EINVAL` for a program that the kernel does not accept
/// (more than 4,096 instructions, jumps out of it, no return).
pub fn install(program: &[Instruction]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `filter` points to `length` instructions, laid out as `struct sock_filter` (repr(C)
    // of the same fields, size asserted), which the kernel copies and never writes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
