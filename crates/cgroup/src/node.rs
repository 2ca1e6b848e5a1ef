//! The group that holds all VEs of one node, in every hierarchy.
//!
//! ```text
//! v1, each hierarchy    <mount>/vessel-100/            root's
//!                       <mount>/vessel-100/101/        a VE: its limits; it cannot see it
//! cgroup2               <base>/vessel-100/             root's; gives controllers to the groups below
//!                       <base>/vessel-100/101/         a VE: its limits, root's; directory and
//!                                                      cgroup.procs belong to the VE's root: this is
//!                                                      the root of its cgroup namespace
//!                       <base>/vessel-100/101/vessel-exec/  processes that came in from outside
//! ```
//!
//! One node has one group, and an `flock` on its directory says so: it lasts as long as anybody has
//! the descriptor open, so it is handed to the launcher, which outlives the daemon.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use ve::VeId;

use crate::device::DeviceTable;
use crate::error::{CreateError, FileError, OpenError, RemoveError};
use crate::files::{Directory, failure};
use crate::group::VeGroup;
use crate::layout::{Controller, DAEMON_GROUP, Home, Layout, Unified};
use crate::remove;

/// Weight of all VEs of a node together, against what else runs on the host with 100: VEs come
/// first, and the daemon and the administrator's shell keep a tenth of a contended processor.
const NODE_CPU_WEIGHT: u32 = 1_000;

/// What the name of a node's group begins with; the first number of its VEs follows.
pub(crate) const NAME_PREFIX: &str = "vessel-";

/// A node's group, open. Cheap to clone; may be used from several threads.
#[derive(Clone, Debug)]
pub struct NodeGroup {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    /// The node's directory in each of `layout.hierarchies()`; `None` for one that has only
    /// `cpuset`, until a mask is set (then opened each time: masks are rare).
    pub(crate) v1: Vec<Option<Directory>>,
    pub(crate) v2: Option<Directory>,
    pub(crate) devices: DeviceTable,
    /// The block device whose I/O is counted, as the kernel writes it: `7:0`.
    pub(crate) io_device: OnceLock<String>,
    name: PathBuf,
    lock: OwnedFd,
}

impl NodeGroup {
    /// Opens the group of the node whose range of VE ids begins with `first_id`, making it in every
    /// hierarchy if need be, and takes its lock. With `held`, the lock that another process of the
    /// same node (the launcher) kept is taken over instead, unless its group was removed meanwhile.
    ///
    /// On a delegated cgroup2 this moves the calling process into the group `daemon` beside the
    /// node's.
    ///
    /// # Errors
    /// [`OpenError::Held`] when another node has the group; otherwise when the kernel refuses.
    pub fn open(layout: &Layout, first_id: VeId, held: Option<OwnedFd>) -> Result<Self, OpenError> {
        let name = PathBuf::from(format!("{NAME_PREFIX}{first_id}"));
        let lock_path = match (layout.unified(), layout.hierarchies().first()) {
            (Some(unified), _) => unified.base.join(&name),
            (None, Some(hierarchy)) => hierarchy.mount_point.join(&name),
            (None, None) => name.clone(),
        };
        let lock = lock(&lock_path, held)?;
        let v2 = layout
            .unified()
            .map(|unified| open_unified(unified, &name))
            .transpose()?;
        let mut v1 = Vec::new();
        for hierarchy in layout.hierarchies() {
            let only_cpuset = hierarchy.is_only_cpuset();
            v1.push(match only_cpuset {
                true => None,
                false => Some(open_v1(&hierarchy.mount_point, &name)?),
            });
        }
        let inner = Inner {
            layout: layout.clone(),
            v1,
            v2,
            devices: DeviceTable::standard(),
            io_device: OnceLock::new(),
            name,
            lock,
        };
        inner.set_node_weight()?;
        inner.bound_processes()?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The lock, to hand a copy of it to the launcher.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.inner.lock.as_fd()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// What this host has.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// Counts in [`crate::Usage`] the I/O of one block device only: the pool's, by its numbers. Without
    /// it, a pool on a loop file counts twice, at the loop device and at the disk below; and cgroup v1
    /// counts nothing at all, since its kernel begins to count on a device at the first limit there (so
    /// this sets one that limits nothing). The first device that is named stays.
    ///
    /// # Errors
    /// When the kernel knows no such device.
    pub fn count_io_of(&self, major: u32, minor: u32) -> Result<(), FileError> {
        let device = self
            .inner
            .io_device
            .get_or_init(|| format!("{major}:{minor}"));
        if let Some((directory, Home::V1(_))) = self.inner.directory(Controller::Io) {
            let file = Path::new("blkio.throttle.read_bps_device");
            if directory.has(file) {
                directory.write(file, &format!("{device} 0"))?;
            }
        }
        Ok(())
    }

    /// Makes the group of a VE and gives it the VE's limits on devices and nested groups. One that
    /// is there is brought to the same state; processes in it stay.
    ///
    /// # Errors
    /// When the kernel refuses; what was made stays, and [`NodeGroup::remove`] takes it away.
    pub fn create(&self, ve: VeId) -> Result<VeGroup, CreateError> {
        let group = self.ve(ve);
        group.create()?;
        Ok(group)
    }

    /// A VE's group, without asking whether it exists.
    #[must_use]
    pub fn ve(&self, ve: VeId) -> VeGroup {
        VeGroup::new(Arc::clone(&self.inner), ve)
    }

    /// Removes a VE's group in every hierarchy, with the groups that the VE made below it. One that
    /// is not there is well. Waits up to [`crate::BUSY_TIMEOUT`] for processes that are dying.
    ///
    /// # Errors
    /// [`RemoveError::Busy`] while processes live in it; they are not killed.
    pub fn remove(&self, ve: VeId) -> Result<(), RemoveError> {
        let below = PathBuf::from(ve.to_string());
        for directory in self.inner.v2.iter().chain(self.inner.v1.iter().flatten()) {
            remove::tree(directory, &below)?;
        }
        match self.inner.cpuset_group()? {
            Some(directory) => remove::tree(&directory, &below),
            None => Ok(()),
        }
    }

    /// The VEs that have a group in any hierarchy, ascending: for finding what was left over.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self) -> Result<Vec<VeId>, FileError> {
        let mut found = Vec::new();
        let cpuset = self.inner.cpuset_group()?;
        let all = self
            .inner
            .v2
            .iter()
            .chain(self.inner.v1.iter().flatten())
            .chain(&cpuset);
        for directory in all {
            let names = directory.directories(Path::new("."))?;
            found.extend(
                names
                    .iter()
                    .filter_map(|name| name.file_name()?.to_str()?.parse::<VeId>().ok()),
            );
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Removes the node's group, which must have no VEs any more, and gives up this copy of the
    /// lock. What other clones would do afterwards fails.
    ///
    /// # Errors
    /// [`RemoveError::Busy`] when VEs are left.
    pub fn close_and_remove(self) -> Result<(), RemoveError> {
        let inner = &self.inner;
        let unified = inner.layout.unified().map(|unified| unified.base.clone());
        let mounts = inner
            .layout
            .hierarchies()
            .iter()
            .map(|h| h.mount_point.clone());
        for base in mounts.chain(unified) {
            let base = Directory::open(&base)?;
            if base.has(&inner.name) {
                remove::one(&base, &inner.name)?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// The node's directory in the hierarchy that carries nothing but `cpuset`, if it was made.
    pub(crate) fn cpuset_group(&self) -> Result<Option<Directory>, FileError> {
        let Some(hierarchy) = self
            .layout
            .hierarchies()
            .iter()
            .find(|h| h.is_only_cpuset())
        else {
            return Ok(None);
        };
        match Directory::open(&hierarchy.mount_point.join(&self.name)) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the node's directory in the hierarchy that carries nothing but `cpuset`.
    pub(crate) fn make_cpuset_group(&self, mount_point: &Path) -> Result<Directory, FileError> {
        open_v1(mount_point, &self.name)
    }

    /// The directory that carries a controller, with where it is at home.
    pub(crate) fn directory(&self, controller: Controller) -> Option<(&Directory, Home)> {
        let home = self.layout.home(controller)?;
        let directory = match home {
            Home::V1(at) => self.v1.get(at)?.as_ref()?,
            Home::V2 => self.v2.as_ref()?,
        };
        Some((directory, home))
    }

    fn set_node_weight(&self) -> Result<(), FileError> {
        match self.directory(Controller::Cpu) {
            Some((directory, Home::V1(_))) => {
                let shares = crate::limits::shares(NODE_CPU_WEIGHT);
                directory.write(Path::new("cpu.shares"), &shares.to_string())
            }
            Some((directory, Home::V2)) => {
                directory.write(Path::new("cpu.weight"), &NODE_CPU_WEIGHT.to_string())
            }
            None => Ok(()),
        }
    }
}

impl Inner {
    /// Keeps processes for the node itself: all VEs together must not use up the machine's.
    fn bound_processes(&self) -> Result<(), FileError> {
        let most = crate::processes::processes_of_all().to_string();
        match self.directory(Controller::Processes) {
            Some((directory, _)) if directory.has(Path::new("pids.max")) => {
                directory.write(Path::new("pids.max"), &most)
            }
            _ => Ok(()),
        }
    }
}

/// Makes and opens a directory directly below `base`.
fn make_and_open(base: &Directory, name: &Path) -> Result<Directory, FileError> {
    base.make(name)?;
    base.open_below(name)
}

fn open_v1(mount_point: &Path, name: &Path) -> Result<Directory, FileError> {
    let base = Directory::open(mount_point)?;
    let directory = make_and_open(&base, name)?;
    if directory.has(Path::new("cpuset.cpus")) {
        inherit_cpuset(&base, &directory, Path::new("."))?;
    }
    // Without it a limit of the node's group would not bind the VEs below. The kernel gave up the
    // other setting in 5.11 and still has the file.
    let hierarchical = Path::new("memory.use_hierarchy");
    if directory.has(hierarchical) && directory.read(hierarchical)?.trim() != "1" {
        directory.write(hierarchical, "1")?;
    }
    Ok(directory)
}

/// A new v1 cpuset has no processors and takes no process until it has: give it those above it.
pub(crate) fn inherit_cpuset(
    above: &Directory,
    directory: &Directory,
    below: &Path,
) -> Result<(), FileError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = below.join(name);
        if directory.read(&file)?.trim().is_empty() {
            directory.write(&file, above.read(Path::new(name))?.trim())?;
        }
    }
    Ok(())
}

fn open_unified(unified: &Unified, name: &Path) -> Result<Directory, OpenError> {
    let base = Directory::open(&unified.base)?;
    if unified.must_move {
        leave(&base)?;
    }
    let directory = make_and_open(&base, name)?;
    for controller in Controller::ENABLED {
        let Some(controller) = controller.v2_name() else {
            continue;
        };
        if unified
            .controllers
            .iter()
            .any(|offered| offered == controller)
        {
            enable(&base, controller)?;
            enable(&directory, controller)?;
        }
    }
    Ok(directory)
}

/// Switches on a controller for the groups below `directory`.
pub(crate) fn enable(directory: &Directory, controller: &str) -> Result<(), OpenError> {
    let file = Path::new("cgroup.subtree_control");
    let enabled = directory.read(file)?;
    if enabled.split_whitespace().any(|name| name == controller) {
        return Ok(());
    }
    directory
        .write(file, &format!("+{controller}"))
        .map_err(|source| OpenError::Enable {
            controller: controller.to_owned(),
            path: directory.path().to_owned(),
            source,
        })
}

/// Moves every process of a delegated group, which are all ours, into its child `daemon`.
fn leave(base: &Directory) -> Result<(), FileError> {
    let daemon = make_and_open(base, Path::new(DAEMON_GROUP))?;
    let file = Path::new("cgroup.procs");
    for pid in base.read(file)?.lines() {
        match daemon.write(file, pid) {
            // It ended meanwhile.
            Err(error) if error.is(Errno::SRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

fn lock(path: &Path, held: Option<OwnedFd>) -> Result<OwnedFd, OpenError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failure("open", path.to_owned(), Errno::INVAL).into());
    };
    Directory::open(parent)?.make(Path::new(name))?;
    // An O_PATH descriptor takes no lock.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |errno| failure("open", path.to_owned(), errno);
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let lock = match held.filter(is_there) {
        Some(held) => {
            let (ours, theirs) = (
                rustix::fs::fstat(&opened).map_err(failed)?,
                rustix::fs::fstat(&held).map_err(failed)?,
            );
            if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) {
                return Err(OpenError::WrongLock {
                    group: path.to_owned(),
                });
            }
            held
        }
        None => opened,
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(OpenError::Held {
            group: path.to_owned(),
            holder: holder(&lock),
        }),
        Err(errno) => Err(failure("lock", path.to_owned(), errno).into()),
    }
}

/// Whether a group that is held open was not removed: systemd removes what is empty in a service's
/// group when the service stops, and a node without running VEs is empty.
fn is_there(group: &OwnedFd) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty());
    !matches!(inside, Err(Errno::NOENT))
}

/// Who holds the lock, from `/proc/locks`. The kernel names the process that took it, which may
/// have ended and left the descriptor to another.
pub(crate) fn holder(lock: &OwnedFd) -> String {
    let unknown = || "a process that does not show".to_owned();
    let Ok(stat) = rustix::fs::fstat(lock) else {
        return unknown();
    };
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let target = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let Ok(locks) = std::fs::read_to_string("/proc/locks") else {
        return unknown();
    };
    // "1: FLOCK  ADVISORY  WRITE 4711 00:26:113 0 EOF"
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&target.as_str());
        ours.then(|| fields.get(4)?.parse::<u32>().ok()).flatten()
    });
    match pid {
        Some(pid) => match kernel::proc::program_name(pid) {
            Ok(name) => format!("`{name}` (pid {pid})"),
            Err(_) => format!("what process {pid}, which ended, left behind (its launcher)"),
        },
        None => unknown(),
    }
}
