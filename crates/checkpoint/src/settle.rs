//! What becomes of a suspension whose daemon died, and of a VE that CRIU left halfway.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use cgroup::{FreezeError, VeGroup};
use runtime::protocol::Launched;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use ve::VeId;

use crate::suspend::{DUMP, END_TIMEOUT, IMAGES_FOLDER, SuspendError};
use crate::{folder, walk};

/// How long a CRIU may take that nobody waits for any more: it ends where it would ask its daemon.
const WRITER_TIMEOUT: Duration = Duration::from_secs(900);
const WRITER_POLL: Duration = Duration::from_millis(50);

/// Flag of a process that is on its way out (`PF_EXITING`, field 9 of `proc_pid_stat(5)`).
const EXITING: u64 = 0x4;
/// `SIGKILL` in a set of signals.
const KILL_BIT: u64 = 1 << 8;

/// What became of a suspension whose daemon died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The VE is on disk and its processes are gone.
    Asleep,
    /// It is not on disk; it runs on, thawed, if its init lives.
    Awake,
}

/// Ends what a daemon began that died within [`crate::suspend::suspend`]: waits for its CRIU, then
/// completes the checkpoint or takes it back. `init` is that of the VE, if it had one since the
/// machine was started. Of a VE that sleeps already it says so.
///
/// # Errors
/// What cannot be completed or taken back; calling again is well.
pub fn settle(
    id: VeId,
    init: Option<Launched>,
    group: &VeGroup,
    folder: &Path,
) -> Result<Settled, SuspendError> {
    let write = |source| SuspendError::Write {
        folder: folder.to_owned(),
        source,
    };
    let new = folder::unfinished(folder);
    let begun = new.exists();
    // One that sleeps since its daemon said so has nobody who writes, and it takes a look at every process to know.
    if begun || init.is_some() {
        await_writer(&new).map_err(write)?;
    }
    let valid = folder::is_valid(folder);
    let alive = init.filter(|init| lives(init.pid, init.start_time));
    if begun {
        folder::remove(&new).map_err(write)?;
    }
    match alive {
        None if valid => {
            // Waits until the last are gone, and thaws the group.
            let killed = group.kill_all(END_TIMEOUT);
            killed.map_err(|source| SuspendError::Kill { id, source })?;
            Ok(Settled::Asleep)
        }
        None => Ok(Settled::Awake),
        Some(init) => {
            folder::discard(folder).map_err(write)?;
            let thawed = unfreeze(group, init);
            thawed.map_err(|source| SuspendError::Freeze { id, source })?;
            Ok(Settled::Awake)
        }
    }
}

/// Waits until nobody writes a checkpoint any more.
fn await_writer(folder: &Path) -> io::Result<()> {
    let Some(pid) = writer(folder) else {
        return Ok(());
    };
    let started = kernel::proc::start_time(pid).map_or(0, |time| time.ticks());
    let until = Instant::now() + WRITER_TIMEOUT;
    while lives(pid, started) {
        if Instant::now() > until {
            let message = format!("CRIU, process {pid}, still writes it: end that process");
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        std::thread::sleep(WRITER_POLL);
    }
    Ok(())
}

/// The CRIU that writes a checkpoint, by the folder where it began. Its own command line tells, from its first moment
/// to its last: a daemon can die before it has noted anything down, and the folder has another name once it is complete. Helpers of CRIU have its words, too, but lead no process group.
#[must_use]
pub fn writer(folder: &Path) -> Option<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.into_iter().find(|pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let writes = words.contains(&DUMP.as_bytes())
            && words
                .windows(2)
                .any(|pair| pair == [IMAGES_FOLDER.as_bytes(), folder.as_os_str().as_bytes()]);
        let leads = |stat: &str| {
            // Field 5 of `proc_pid_stat(5)`, the third behind the name.
            let (_, rest) = stat.rsplit_once(')')?;
            rest.split_whitespace().nth(2)?.parse::<u32>().ok()
        };
        writes && {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            leads(&stat) == Some(*pid)
        }
    })
}

/// Whether a process lives and is to go on: one that ended and was not reaped yet, is ending, or
/// was killed and stands still, is not.
pub(crate) fn lives(pid: u32, started: u64) -> bool {
    if kernel::proc::start_time(pid).map_or(0, |time| time.ticks()) != started {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !(is_ending(&stat) || is_killed(&status))
}

/// Reads `proc_pid_stat(5)`: the state is the first field behind the name, the flags are the seventh.
fn is_ending(stat: &str) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return true;
    };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let flags: u64 = fields
        .get(6)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    matches!(fields.first(), Some(&("Z" | "X"))) || flags & EXITING != 0
}

/// Reads the pending signals of `proc_pid_status(5)`.
fn is_killed(status: &str) -> bool {
    status.lines().any(|line| {
        let set = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"));
        let set = set.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        set.is_some_and(|set| set & KILL_BIT != 0)
    })
}

/// Lets a VE go on that stands still, after taking back what a CRIU did to it that could not do so
/// itself, because it was killed. One that ended by itself has left nothing.
///
/// # Errors
/// When the VE cannot be thawed.
pub(crate) fn unfreeze(group: &VeGroup, init: Launched) -> Result<(), FreezeError> {
    // What fails here is told: the VE runs, and may lack what is named.
    if let Err(error) = remove_locks(init.pid) {
        tracing::warn!(
            "packets of the VE with process {} may be stopped: {error}",
            init.pid
        );
    }
    for pid in group.processes().unwrap_or_default() {
        end_repairs(pid);
    }
    walk::remove_links(init.pid);
    group.thaw(END_TIMEOUT)
}

/// CRIU keeps packets away from a VE that it looks at.
fn remove_locks(init: u32) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let namespace = fs::File::open(format!("/proc/{init}/ns/net"))?;
    let inside = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        kernel::namespace::join_network_namespace(&namespace)?;
        Ok(network::inside::remove_locks()?)
    };
    let joined = std::thread::scope(|scope| scope.spawn(inside).join());
    joined.unwrap_or_else(|_| Err("its thread failed".into()))
}

/// CRIU silences the TCP connections of a VE that it looks at.
fn end_repairs(pid: u32) {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(Ok(process)) = number.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return;
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    for entry in descriptors.into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let number = entry
            .file_name()
            .to_str()
            .and_then(|text| text.parse().ok());
        let (true, Some(number)) = (target.to_string_lossy().starts_with("socket:"), number) else {
            continue;
        };
        // A descriptor that was closed meanwhile needs nothing.
        if let Ok(socket) = pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()) {
            let _ = kernel::tcp::end_repair(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_or_was_killed_does_not_live() {
        let own = std::process::id();
        let started = kernel::proc::start_time(own).unwrap().ticks();
        assert!(lives(own, started));
        assert!(!lives(own, started + 1));
        assert!(!lives(u32::MAX, started));
        assert!(is_ending("7 (a) b) Z 1 7 7 0 -1 4194560 0"));
        assert!(is_ending("7 (a) D 1 7 7 0 -1 4194564 0"));
        assert!(!is_ending("7 (Z 1) S 1 7 7 0 -1 4194560 0"));
        assert!(is_killed(
            "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"
        ));
        assert!(is_killed("SigPnd:\t0000000000000900\n"));
        assert!(!is_killed(
            "SigPnd:\t0000000000000200\nSigBlk:\t0000000000000100\n"
        ));
    }
}
