//! Who in a VE uses its console in a way that CRIU cannot wake.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, FileType, StatxFlags, makedev, statat, statx};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::inspect;

/// A process, and its program's name.
pub(crate) type Holder = (u32, String);

/// A process that has `/dev/tty` open: CRIU opens a terminal of its own again by that name, and no
/// other.
pub(crate) fn holder_of_tty(processes: &[u32]) -> Option<Holder> {
    let holds = |pid: &u32| files(*pid).any(|(_, target)| target.ends_with("dev/tty"));
    processes.iter().copied().find(holds).map(named)
}

/// A process that holds the VE's console, when that was cut off: the launcher that had its other end
/// was killed. CRIU writes such a terminal to disk, and does not read it again (`Corrupted master
/// peer`).
pub(crate) fn holder_of_dead_console(processes: &[u32], init: u32) -> Option<Holder> {
    let dev = inspect::dev_of(init).ok()?;
    let console = statat(dev, "console", AtFlags::SYMLINK_NOFOLLOW)
        .ok()?
        .st_rdev;
    let holds = |pid: &u32| {
        let number = i32::try_from(*pid).ok().and_then(Pid::from_raw);
        let Some(Ok(process)) = number.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return false;
        };
        files(*pid).any(|(number, _)| {
            let held = pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty());
            held.is_ok_and(|held| is_cut_off(&held, console))
        })
    };
    processes.iter().copied().find(holds).map(named)
}

/// Descriptors of a process for something that has a name in some file system, with that name. The
/// console of a VE that was woken has the one that it has outside.
fn files(pid: u32) -> impl Iterator<Item = (i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    entries.flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let target = target.to_string_lossy().into_owned();
        target.starts_with('/').then_some((number, target))
    })
}

/// Whether this is the device with that number, and a terminal whose other end is gone. A file of a
/// file system that the VE serves itself is not asked anything: it might never answer.
fn is_cut_off(held: &OwnedFd, device: u64) -> bool {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(found) = statx(held, "", flags, StatxFlags::BASIC_STATS) else {
        return false;
    };
    FileType::from_raw_mode(found.stx_mode.into()).is_char_device()
        && makedev(found.stx_rdev_major, found.stx_rdev_minor) == device
        && rustix::termios::tcgetattr(held).is_err_and(|error| error == Errno::IO)
}

fn named(pid: u32) -> Holder {
    (pid, kernel::proc::program_name(pid).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    #[test]
    fn a_terminal_is_cut_off_when_its_other_end_is_gone() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let device = rustix::fs::fstat(&slave).unwrap().st_rdev;
        assert!(!is_cut_off(&slave, device));
        drop(master);
        assert!(is_cut_off(&slave, device));
        assert!(!is_cut_off(&slave, device + 1));
        let null = OwnedFd::from(fs::File::open("/dev/null").unwrap());
        assert!(!is_cut_off(
            &null,
            rustix::fs::fstat(&null).unwrap().st_rdev
        ));
    }
}
