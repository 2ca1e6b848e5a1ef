//! Other nodes on this host, by the groups that they hold.

use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use ve::VeId;

use crate::error::FileError;
use crate::files::{Directory, failure};
use crate::layout::Layout;
use crate::node::{self, NAME_PREFIX};

/// A node that runs on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The first number of its VEs.
    pub first_id: VeId,
    /// Who holds its group, as far as it can be told.
    pub holder: String,
}

/// Finds the nodes of this host that are up, ascending by their first numbers. A group that nobody
/// holds is the rest of one.
///
/// # Errors
/// When the kernel refuses.
pub fn neighbours(layout: &Layout) -> Result<Vec<Neighbour>, FileError> {
    let base = match (layout.unified(), layout.hierarchies().first()) {
        (Some(unified), _) => &unified.base,
        (None, Some(hierarchy)) => &hierarchy.mount_point,
        (None, None) => return Ok(Vec::new()),
    };
    let mut found = Vec::new();
    for name in Directory::open(base)?.directories(std::path::Path::new("."))? {
        let number = name
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(NAME_PREFIX)?.parse().ok());
        let Some(first_id) = number else {
            continue;
        };
        let path = base.join(&name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let group: OwnedFd = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(group) => group,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failure("open", path, errno)),
        };
        match rustix::fs::flock(&group, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => found.push(Neighbour {
                first_id,
                holder: node::holder(&group),
            }),
            Err(errno) => return Err(failure("lock", path, errno)),
        }
    }
    found.sort_unstable_by_key(|neighbour| neighbour.first_id);
    Ok(found)
}
