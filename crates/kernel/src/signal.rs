//! Giving a new program the signals as it expects them.

use std::io;

/// Sets every signal to its default action and blocks none, as init(1) and shells expect at their
/// start: the runtime library ignores `SIGPIPE`, and ignored signals survive execve(2).
///
/// # Errors
/// What sigprocmask(2) says.
pub fn reset_all() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no code. Numbers that cannot be set (KILL, STOP, the two that
        // the C library keeps) are refused by it and stay as they are.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set that it is given.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was filled above; no old set is wanted.
    let result =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
