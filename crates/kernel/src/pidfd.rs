//! What a pidfd tells beyond pidfd_open(2): a process's namespaces and how it ended.
//!
//! Numbers from the kernel's `include/uapi/linux/pidfd.h` (6.11 for namespaces, 6.15 for exits),
//! which older C libraries lack.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `_IO(PIDFS_IOCTL_MAGIC, 4)`.
const PIDFD_GET_NET_NAMESPACE: libc::Ioctl = 0xff04;
/// `_IO(PIDFS_IOCTL_MAGIC, 9)`.
const PIDFD_GET_USER_NAMESPACE: libc::Ioctl = 0xff09;
/// `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)` with the structure's first size, 64 bytes.
const PIDFD_GET_INFO: libc::Ioctl = 0xc040_ff0b;
/// Asks for, and says that there is, an exit code.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info`, `PIDFD_INFO_SIZE_VER0`.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);

/// Opens the user namespace of a process.
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM` without `CAP_SYS_PTRACE` over it.
pub fn user_namespace(pidfd: impl AsFd) -> io::Result<OwnedFd> {
    namespace(pidfd, PIDFD_GET_USER_NAMESPACE)
}

/// Opens the network namespace of a process.
///
/// # Errors
/// As [`user_namespace`].
pub fn network_namespace(pidfd: impl AsFd) -> io::Result<OwnedFd> {
    namespace(pidfd, PIDFD_GET_NET_NAMESPACE)
}

fn namespace(pidfd: impl AsFd, request: libc::Ioctl) -> io::Result<OwnedFd> {
    // SAFETY: these requests take no argument (the kernel refuses any but 0), touch no memory of
    // ours and return a new descriptor.
    let fd = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), request, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal by its number. Real-time signals, which systemd takes its orders by, have no
/// place in the type that libraries have for signals.
///
/// # Errors
/// `ESRCH` when the process has ended, `EINVAL` for what is no signal.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: the call takes numbers and a null pointer (the kernel then fills the signal's
    // details itself) and touches no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// How a process ended that is somebody else's child, as waitpid(2) encodes it; nothing while it
/// lives or was not reaped.
///
/// # Errors
/// `ESRCH` or `ENOTTY` on kernels before 6.15, which keep no exit code.
pub fn exit_status(pidfd: impl AsFd) -> io::Result<Option<i32>> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request's encoded size is this structure's (asserted above), and it lives until
    // the call returns.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn tells_the_namespaces_and_the_end_of_a_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert!(user_namespace(&pidfd).is_ok());
        assert!(network_namespace(&pidfd).is_ok());
        assert!(matches!(exit_status(&pidfd), Ok(None) | Err(_)));
        child.kill().unwrap();
        child.wait().unwrap();
        match exit_status(&pidfd) {
            Ok(status) => assert_eq!(status, Some(libc::SIGKILL)),
            Err(error) => println!("kernel before 6.15 keeps no exit codes: {error}"),
        }
    }
}
