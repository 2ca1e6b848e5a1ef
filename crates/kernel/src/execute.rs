//! The last steps before another program: which descriptors it inherits, and execve(2).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Closes every descriptor of this process but `kept`, none of which may be a standard stream.
///
/// The first three numbers are taken by descriptors that lead nowhere: what is opened later must
/// not land where the standard streams of the next program will be put.
///
/// Only for processes that [`crate::clone::spawn`] made: they leave by execve(2) or `_exit`, so
/// nobody's destructor finds its descriptor closed, or worse, taken by another file.
///
/// # Errors
/// `EPERM` in any other process; else what close_range(2) says.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    if !crate::clone::in_child() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let mut numbers: Vec<u32> = kept
        .iter()
        .map(|descriptor| descriptor.as_raw_fd().unsigned_abs())
        .collect();
    numbers.sort_unstable();
    let mut first = 0;
    for number in numbers {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)?;
    for _ in 0..3 {
        // SAFETY: takes two numbers and touches no memory. The descriptor is owned by nobody and
        // stays open until another is put over it or the process ends, as is meant.
        if unsafe { libc::eventfd(0, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: this process leaves without running the destructors of whatever owned these
    // descriptors (see `close_all_but`), so no owner uses a number that was closed here.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Becomes another program; returns only when that failed.
#[must_use]
pub fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let argv = pointers(arguments);
    let envp = pointers(environment);
    // SAFETY: `path` is a C string; both arrays hold pointers to C strings that outlive the call
    // and end with a null pointer. On success nothing of this process is left to be used.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts
        .iter()
        .map(|text| text.as_ptr())
        .chain([ptr::null()])
        .collect()
}
