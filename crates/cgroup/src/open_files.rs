//! Open files of each process of a VE (`RLIMIT_NOFILE`, getrlimit(2)): the one bound that lies in the
//! processes themselves. They hand it down to their children, and none can raise it: that takes
//! `CAP_SYS_RESOURCE` in the host's own user namespace.
//!
//! A process may lower its own bound, and what did so is left alone when the VE's is raised.

use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::error::{FileError, UsageError};
use crate::group::VeGroup;

/// Looks at all processes before they are frozen for the last: each finds only children of those that
/// the one before had not come to.
const ROUNDS: usize = 8;
/// How long the freezer may take then.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(2);

/// Which processes got a new bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFiles {
    /// All that were to.
    Now,
    /// This process may not change others' (it lacks `CAP_SYS_RESOURCE`): who runs keeps what it has.
    NextStart,
}

impl VeGroup {
    /// Open files of the process of the VE that has most of them.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn open_files_most(&self) -> Result<u64, UsageError> {
        let count = |pid| {
            // The size of the folder is their number since Linux 6.2 (proc_pid_fd(5)).
            let folder = PathBuf::from(format!("/proc/{pid}/fd"));
            statx(CWD, folder, rustix::fs::AtFlags::empty(), StatxFlags::SIZE).ok()
        };
        let sizes = self.processes()?.into_iter().filter_map(count);
        Ok(sizes.map(|found| found.stx_size).max().unwrap_or(0))
    }

    /// Lets each process of the VE have at most this many open files, those included that are made
    /// meanwhile.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub fn limit_open_files(&self, most: u64) -> Result<OpenFiles, FileError> {
        let Some(before) = self.bounds_of_processes()?.into_values().max() else {
            return Ok(OpenFiles::Now);
        };
        for _ in 0..ROUNDS {
            match self.open_files_round(before, most)? {
                Round::Nothing => return Ok(OpenFiles::Now),
                Round::Changed => {}
                Round::NotPermitted => return Ok(OpenFiles::NextStart),
            }
        }
        // They fork away. One that is paused does not.
        let frozen = self.freeze(FREEZE_TIMEOUT).is_ok();
        let last = self.open_files_round(before, most);
        if frozen {
            self.write_thaw()?;
        }
        last.map(|_| OpenFiles::Now)
    }

    fn bounds_of_processes(&self) -> Result<std::collections::BTreeMap<u32, u64>, FileError> {
        let listed = self.process_list()?.into_iter();
        let known = |pid| Some((pid, bounds(pid)?.1));
        Ok(listed.filter_map(known).collect())
    }

    /// Changes everybody once who has not what they are to have.
    fn open_files_round(&self, before: u64, most: u64) -> Result<Round, FileError> {
        let mut round = Round::Nothing;
        for pid in self.process_list()? {
            // One that is gone needs nothing.
            let Some((soft, hard)) = bounds(pid) else {
                continue;
            };
            let wanted = hard > most || (hard == before && hard < most);
            let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                continue;
            };
            if !wanted {
                continue;
            }
            let limit = Rlimit {
                current: Some(soft.min(most)),
                maximum: Some(most),
            };
            // One whose number went to another process within these microseconds is told apart by nobody.
            match prlimit(Some(process), Resource::Nofile, limit) {
                Ok(_) => round = Round::Changed,
                Err(Errno::PERM) => return Ok(Round::NotPermitted),
                Err(_) => {}
            }
        }
        Ok(round)
    }
}

enum Round {
    Nothing,
    Changed,
    NotPermitted,
}

/// Soft and hard bound of a process. Asking the kernel by prlimit(2) would set them.
fn bounds(pid: u32) -> Option<(u64, u64)> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn parse(limits: &str) -> Option<(u64, u64)> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_whitespace();
    let mut number = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        word => word.parse().ok(),
    };
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_shows() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             63438                63438                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(parse(text), Some((1_024, 524_288)));
        assert_eq!(
            parse("Max open files  unlimited  unlimited  files"),
            Some((u64::MAX, u64::MAX))
        );
        assert_eq!(parse("Max processes 1 2"), None);
        assert!(bounds(std::process::id()).is_some());
    }
}
