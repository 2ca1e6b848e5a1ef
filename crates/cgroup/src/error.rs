//! What can go wrong, one small enum per operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ve::VeId;

/// One access to one file or directory of a control group failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct FileError {
    /// What was tried: `read`, `write "x" to`, `make directory` ...
    pub action: String,
    /// The file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Whether the file or directory does not exist (or the controller that brings it).
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.is(rustix::io::Errno::NOENT) || self.is(rustix::io::Errno::NODEV)
    }

    pub(crate) fn is(&self, errno: rustix::io::Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }
}

/// The control groups of this host could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// `/proc` does not answer.
    #[error("cannot find out which control groups this host has")]
    Proc(#[from] kernel::proc::ProcError),
    /// `/proc/self/cgroup` does not answer.
    #[error("cannot find out in which control group this process is")]
    Own(#[source] FileError),
    /// Neither version is mounted.
    #[error(
        "no control groups are mounted: mount them with `mount -t cgroup2 cgroup2 /sys/fs/cgroup`"
    )]
    NoneMounted,
    /// A file of the hierarchy could not be read.
    #[error("the control groups of this host do not answer")]
    File(#[source] FileError),
}

/// A node's own group could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another node has it.
    #[error(
        "the control group {group} is held by {holder}: another node with the same first id runs \
         on this host; stop it, or give this node another range of ids"
    )]
    Held {
        /// Path of the group.
        group: PathBuf,
        /// Who holds it, as far as it can be told.
        holder: String,
    },
    /// The lock that was inherited is none for this group.
    #[error("the lock that was handed over is not for the control group {group}")]
    WrongLock {
        /// Path of the group.
        group: PathBuf,
    },
    /// A controller of cgroup2 could not be switched on.
    #[error(
        "cannot switch on the controller {controller} in {path}: on cgroup2 the group must hold no \
         processes itself, and no process outside the root may have a real-time policy"
    )]
    Enable {
        /// Name of the controller.
        controller: String,
        /// The group.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: FileError,
    },
    /// A file or directory was refused.
    #[error("cannot prepare the node's control group")]
    File(#[from] FileError),
}

/// A VE's group could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A file or directory was refused.
    #[error("cannot make the control group of VE {ve}")]
    File {
        /// The VE.
        ve: VeId,
        /// What was refused.
        #[source]
        source: FileError,
    },
    /// Device control could not be set.
    #[error("cannot restrict the devices of VE {ve}")]
    Devices {
        /// The VE.
        ve: VeId,
        /// What was refused.
        #[source]
        source: kernel::device_program::DeviceProgramError,
    },
}

/// What a process needs to enter a VE's group could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the control group of VE {ve} for a new process")]
pub struct EntryError {
    /// The VE.
    pub ve: VeId,
    /// What was refused; `NotFound` when the group was not created.
    #[source]
    pub source: FileError,
}

/// A VE could not be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// Not all processes stopped in time; all were thawed again.
    #[error(
        "VE {ve} did not freeze within {} ms, because {reason}; it runs on", waited.as_millis()
    )]
    Timeout {
        /// The VE.
        ve: VeId,
        /// How long was waited.
        waited: Duration,
        /// The process that did not stop, if it could be found.
        reason: String,
    },
    /// Thawing did not come through in time.
    #[error("VE {ve} is still frozen {} ms after it was thawed", waited.as_millis())]
    StillFrozen {
        /// The VE.
        ve: VeId,
        /// How long was waited.
        waited: Duration,
    },
    /// This host can freeze nothing.
    #[error("VE {ve} cannot be frozen: neither cgroup2 nor the freezer of cgroup v1 is mounted")]
    Unsupported {
        /// The VE.
        ve: VeId,
    },
    /// A file was refused.
    #[error("cannot freeze or thaw VE {ve}")]
    File {
        /// The VE.
        ve: VeId,
        /// What was refused.
        #[source]
        source: FileError,
    },
}

/// Processes of a VE could not be killed.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// Some are still there.
    #[error(
        "{} of VE {ve} did not die within {} ms: pid {}; a process that waits for a device or a \
         network file system dies when that answers",
        if left.len() == 1 { "one process" } else { "some processes" }, waited.as_millis(),
        left.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Left {
        /// The VE.
        ve: VeId,
        /// Their pids.
        left: Vec<u32>,
        /// How long was waited.
        waited: Duration,
    },
    /// A file was refused.
    #[error("cannot kill the processes of VE {ve}")]
    File {
        /// The VE.
        ve: VeId,
        /// What was refused.
        #[source]
        source: FileError,
    },
}

/// A group could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Processes are in it.
    #[error(
        "the control group {path} cannot be removed: it was still in use after {} ms; kill its \
         processes first", waited.as_millis()
    )]
    Busy {
        /// The group.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// Too many groups are below it.
    #[error("the control group {path} has more than {limit} groups below it")]
    TooDeep {
        /// The group.
        path: PathBuf,
        /// The most that are removed in one call.
        limit: usize,
    },
    /// A file or directory was refused.
    #[error("cannot remove a control group")]
    File(#[from] FileError),
}

/// Usage of a VE could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read what VE {ve} uses")]
pub struct UsageError {
    /// The VE.
    pub ve: VeId,
    /// What was refused; [`FileError::is_missing`] when the VE has no group.
    #[source]
    pub source: FileError,
}
