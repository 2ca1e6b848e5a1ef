//! The processes of a VE: listing and killing them all.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{FileError, KillError, UsageError};
use crate::files::Directory;
use crate::group::VeGroup;
use crate::wait;

/// How long the processes of a group are left to die between two rounds of signals on v1.
const ROUND: Duration = Duration::from_millis(20);

impl VeGroup {
    /// The pids of the VE's processes as this host sees them, nested groups included, in no order.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn processes(&self) -> Result<Vec<u32>, UsageError> {
        self.process_list().map_err(|source| UsageError {
            ve: self.ve,
            source,
        })
    }

    /// Kills all processes of the VE at once, frozen or not, and waits until they are gone.
    ///
    /// On cgroup2 the kernel does it against any fork bomb (`cgroup.kill`). On pure v1 the group is
    /// frozen, everybody is signalled, and it is thawed again, until nobody is left.
    ///
    /// # Errors
    /// [`KillError::Left`] names who did not die in `timeout`.
    pub fn kill_all(&self, timeout: Duration) -> Result<(), KillError> {
        let refused = |source| KillError::File {
            ve: self.ve,
            source,
        };
        let start = Instant::now();
        if let Some(v2) = &self.inner.v2 {
            match v2.write(&self.file("cgroup.kill"), "1") {
                Err(error) if error.is_missing() && !v2.has(&self.below) => {}
                other => other.map_err(refused)?,
            }
            let events = self.file("cgroup.events");
            wait::for_event(v2, &events, "populated", 0, timeout).map_err(refused)?;
        }
        // All of them on pure v1; else only a process that is in the v1 groups and not in cgroup2's,
        // which the launcher makes none of.
        loop {
            let left = self.process_list().map_err(refused)?;
            if left.is_empty() {
                break;
            }
            if start.elapsed() >= timeout {
                return Err(KillError::Left {
                    ve: self.ve,
                    left,
                    waited: start.elapsed(),
                });
            }
            self.kill_listed(&left).map_err(refused)?;
            std::thread::sleep(ROUND.min(timeout));
        }
        // A group that stays frozen would stop whoever enters next.
        match self.write_thaw() {
            Err(error) if error.is_missing() => Ok(()),
            other => other.map_err(refused),
        }
    }

    /// One round of v1: freeze, so that nobody forks away from the list, signal, thaw.
    fn kill_listed(&self, listed: &[u32]) -> Result<(), FileError> {
        // What cannot be frozen is signalled all the same.
        let frozen = self.freeze(ROUND).is_ok();
        let listed = if frozen {
            self.process_list()?
        } else {
            listed.to_vec()
        };
        listed.into_iter().for_each(kill);
        self.write_thaw()
    }

    /// From the one v1 group that has them all, else from the tree of cgroup2.
    pub(crate) fn process_list(&self) -> Result<Vec<u32>, FileError> {
        if let Some(directory) = self.inner.v1.iter().flatten().next() {
            return match directory.read(&self.file("cgroup.procs")) {
                Ok(text) => Ok(pids(&text)),
                Err(error) if error.is_missing() => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        let mut found = Vec::new();
        if let Some(v2) = &self.inner.v2 {
            collect(v2, &self.below, &mut found)?;
        }
        Ok(found)
    }
}

/// Reads the pids of a `cgroup.procs` file. 0 stands for a process outside the reader's pid namespace,
/// which cannot be named.
pub(crate) fn pids(text: &str) -> Vec<u32> {
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect()
}

fn collect(v2: &Directory, group: &Path, found: &mut Vec<u32>) -> Result<(), FileError> {
    let procs = match v2.read(&group.join("cgroup.procs")) {
        Ok(text) => text,
        // Removed while we walk, or a threaded group, whose processes its parent lists.
        Err(e) if e.is_missing() || e.is(rustix::io::Errno::OPNOTSUPP) => String::new(),
        Err(error) => return Err(error),
    };
    found.extend(pids(&procs));
    let below = match v2.directories(group) {
        Err(error) if error.is_missing() => Vec::new(),
        other => other?,
    };
    // The kernel bounds the depth, see `NESTED_DEPTH_MAX`.
    below.iter().try_for_each(|child| collect(v2, child, found))
}

/// Kills one process of the list. One that is gone already is well; one whose number went to
/// another process within these microseconds is told apart by nobody, hence the frozen group.
fn kill(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL).ok();
    }
}
