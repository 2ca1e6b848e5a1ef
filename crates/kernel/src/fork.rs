//! What happens in a program that others fork within: see the crate `criu-plugin`.

use std::io;

/// Has `handler` run in each child that this process makes by fork(3), before fork returns there.
/// Children made by clone(2) are not concerned.
///
/// # Errors
/// `ENOMEM`.
pub fn at_fork_in_child(handler: extern "C" fn()) -> io::Result<()> {
    // SAFETY: `handler` is a function of this library, which CRIU unloads only at its end; it takes
    // and returns nothing, and the other two hooks are absent, which pthread_atfork(3) allows.
    let error = unsafe { libc::pthread_atfork(None, None, Some(handler)) };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}
