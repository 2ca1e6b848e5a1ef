//! Removing groups: deepest first, waiting a while for processes that are dying.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::RemoveError;
use crate::files::Directory;
use crate::group::NESTED_GROUPS_MAX;

/// How long one group is tried. A killed process leaves its group within some milliseconds; one
/// that frees much memory within seconds.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Most groups in one tree: what a VE may make, and as many again that host tools added.
const GROUPS_MAX: usize = 2 * NESTED_GROUPS_MAX as usize;

/// Removes a group and all below it. One that is not there is well.
pub(crate) fn tree(directory: &Directory, below: &Path) -> Result<(), RemoveError> {
    // Nearly every group has none below it, and then this is one call.
    match directory.remove(below) {
        Ok(()) => return Ok(()),
        Err(error) if error.is(Errno::BUSY) || error.is(Errno::NOTEMPTY) => {}
        Err(error) => return Err(error.into()),
    }
    let mut found: Vec<PathBuf> = vec![below.to_owned()];
    let mut next = 0;
    while let Some(group) = found.get(next) {
        next += 1;
        match directory.directories(group) {
            Ok(children) => found.extend(children),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
        if found.len() > GROUPS_MAX {
            let path = directory.path().join(below);
            return Err(RemoveError::TooDeep {
                path,
                limit: GROUPS_MAX,
            });
        }
    }
    found
        .iter()
        .rev()
        .try_for_each(|group| one(directory, group))
}

/// Removes one group that has none below it.
pub(crate) fn one(directory: &Directory, below: &Path) -> Result<(), RemoveError> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match directory.remove(below) {
            Ok(()) => return Ok(()),
            Err(error) if error.is(Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
        let waited = start.elapsed();
        if waited >= BUSY_TIMEOUT {
            return Err(RemoveError::Busy {
                path: directory.path().join(below),
                waited,
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
