//! The last walls, put up by every process of the launcher that is about to run a VE's code.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::step::Step;
use crate::capabilities;
use crate::isolation::kernel_limits::USER_LIMITS;
use crate::protocol::Failure;
use crate::seccomp::{self, Profile};

/// Writes this process into control groups of v1: `0` names the writer.
///
/// First of all that a new process does, so that everything it causes is on the VE's account.
///
/// # Errors
/// What the kernel says: `ENOSPC` when a group has no processor or memory node.
pub(super) fn enter_groups(tasks: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    for file in tasks {
        rustix::io::write(file, b"0").step("enter the VE's control groups")?;
    }
    Ok(())
}

/// Writes [`USER_LIMITS`] for the user namespace that this process is in. `proc` is the root of a
/// mounted procfs.
///
/// # Errors
/// Names the limit; `EPERM` without `CAP_SYS_RESOURCE` in the user namespace.
pub(super) fn limit_namespaces(proc: BorrowedFd<'_>) -> Result<(), Failure> {
    for limit in USER_LIMITS {
        let what = format!("limit the VE's namespaces (user.{})", limit.name);
        let path = format!("sys/user/{}", limit.name);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(proc, path, flags, Mode::empty()).step(&what)?;
        rustix::io::write(&file, limit.most.to_string().as_bytes()).step(&what)?;
    }
    Ok(())
}

/// Drops capabilities and installs the filter. What follows runs as the VE would.
///
/// # Errors
/// Names the step.
pub(super) fn drop_privileges(profile: Profile) -> Result<(), Failure> {
    capabilities::drop_for_ve().step("drop capabilities")?;
    kernel::seccomp::install(&seccomp::program(profile)).step("install the system call filter")
}

/// Sets the limit of open files, lowered to what this process may give.
///
/// # Errors
/// What setrlimit(2) says.
pub(super) fn limit_open_files(soft: u64, hard: u64) -> Result<(), Failure> {
    let maximum = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let hard = hard.min(maximum);
    let limit = Rlimit {
        current: Some(soft.min(hard)),
        maximum: Some(hard),
    };
    setrlimit(Resource::Nofile, limit).step("set the limit of open files")
}

/// Puts three descriptors where a program expects its standard streams.
///
/// # Errors
/// What dup2(2) says.
pub(super) fn use_streams(streams: [BorrowedFd<'_>; 3]) -> Result<(), Failure> {
    // Copied above the first three numbers, so that none is overwritten before it was used.
    let copies = streams.map(|stream| rustix::io::fcntl_dupfd_cloexec(stream, 10));
    let [input, output, error] = copies;
    let apply = |result: rustix::io::Result<OwnedFd>,
                 to: fn(BorrowedFd<'_>) -> rustix::io::Result<()>| {
        result
            .and_then(|stream| to(stream.as_fd()))
            .step("give the program its streams")
    };
    apply(input, |stream| rustix::stdio::dup2_stdin(stream))?;
    apply(output, |stream| rustix::stdio::dup2_stdout(stream))?;
    apply(error, |stream| rustix::stdio::dup2_stderr(stream))
}
