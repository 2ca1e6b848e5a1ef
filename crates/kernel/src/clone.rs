//! New processes by clone3(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// Namespaces that a new process gets for itself, as `CLONE_NEW*` bits.
pub mod namespaces {
    /// User ids and capabilities.
    pub const USER: u64 = libc::CLONE_NEWUSER as u64;
    /// Mounts.
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    /// Process numbers.
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    /// Network.
    pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
    /// Host name.
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    /// System V IPC and POSIX message queues.
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
}

/// Exit code of a child whose closure panicked (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_PANICKED: i32 = 70;

/// The C library's constant is an `int`, in which this bit has no place.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a child is made.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// [`namespaces`] of its own.
    pub namespaces: u64,
    /// The cgroup v2 group that it is born in.
    pub into_cgroup: Option<BorrowedFd<'a>>,
    /// Whether it becomes its maker's sibling (`CLONE_PARENT`), so that the maker's parent reaps
    /// it. With it the child ends as its maker would, by `SIGCHLD`.
    pub sibling: bool,
}

/// A new process.
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's pid namespace.
    pub pid: u32,
    /// Refers to it for good, also when the number is reused.
    pub pidfd: OwnedFd,
}

/// Set in every process that [`spawn`] made.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process was made by [`spawn`].
#[must_use]
pub fn in_child() -> bool {
    IN_CHILD.load(Ordering::Relaxed)
}

/// Makes a process that runs `child` on a copy of this one's memory and exits with its result.
///
/// Nothing of the caller's frames is unwound or dropped in the child: it leaves by `_exit`.
///
/// # Errors
/// Refuses (`EDEADLK`) when this process has more than one thread: a lock that another thread
/// holds, the allocator's for one, would be held for ever in the child. Else what clone3(2) says.
pub fn spawn<F>(options: &Options<'_>, child: F) -> io::Result<Child>
where
    F: FnOnce() -> u8,
{
    if !in_child() && thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: libc::c_int = -1;
    let mut flags = options.namespaces | libc::CLONE_PIDFD as u64;
    if options.into_cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    if options.sibling {
        flags |= libc::CLONE_PARENT as u64;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd).addr() as u64,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the kernel wants none and takes the maker's own.
        exit_signal: if options.sibling {
            0
        } else {
            libc::SIGCHLD as u64
        },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: options
            .into_cgroup
            .map_or(0, |group| u64::from(group.as_raw_fd().unsigned_abs())),
    };
    // SAFETY: `arguments` and the `pidfd` it points to live until the call returns, and the size
    // is the structure's own. No stack is given and CLONE_VM is not set, so the child goes on
    // here on a copy of this thread's stack; this is the only thread (checked above), so no lock
    // of the copied memory is held by a thread that the child lacks.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => leave(run(child)),
        pid => Ok(Child {
            pid: u32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a new descriptor there that
            // nothing else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Moves this process into a new cgroup namespace, whose root is the group that it is in now.
///
/// As a flag of [`spawn`] it would take the maker's group for the root.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in this process's user namespace.
pub fn enter_new_cgroup_namespace() -> io::Result<()> {
    // SAFETY: of all flags this one changes only what paths /proc/self/cgroup and new cgroup
    // mounts show; no memory and no descriptor table is touched.
    let result = unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes a time namespace for children of this process, and for itself once it executes another
/// program. Until then its offsets can be set (time_namespaces(7)).
///
/// # Errors
/// `EINVAL` on a kernel without time namespaces, `EPERM` without `CAP_SYS_ADMIN` in this process's
/// user namespace.
pub fn prepare_time_namespace() -> io::Result<()> {
    // SAFETY: this flag changes what clocks say to later children; no memory and no descriptor
    // table of this process is touched.
    let result = unsafe { libc::unshare(libc::CLONE_NEWTIME) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends this process at once, without destructors, exit handlers or flushing.
pub fn leave(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and touches no memory.
    unsafe { libc::_exit(code) }
}

fn run<F: FnOnce() -> u8>(child: F) -> i32 {
    IN_CHILD.store(true, Ordering::Relaxed);
    // The caller's frames belong to the caller's copy of this process: a panic ends here.
    catch_unwind(AssertUnwindSafe(child)).map_or(EXIT_PANICKED, i32::from)
}

/// Number of threads of this process: `/proc/self/task` has two links and one for each.
fn thread_count() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::metadata("/proc/self/task")?
        .nlink()
        .saturating_sub(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_makes_no_children() {
        // The test harness itself has threads; one more makes it certain.
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        let error = spawn(&Options::default(), || 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EDEADLK));
        drop(sender);
        let _ = thread.join();
    }
}
