//! Which control groups this host has, and where a node's own may be.
//!
//! | host | v1 hierarchies | cgroup2 |
//! |---|---|---|
//! | v2 | none | all controllers |
//! | hybrid | all controllers | mounted too, (all but) empty |
//! | v1 | all controllers | not mounted |
//!
//! A controller is at home in exactly one hierarchy, and a host may mix freely, so the rest of
//! this crate asks [`Layout::home`] per controller and never for the mode. cgroup2 carries freezing,
//! killing and processor time even without controllers; where it is not mounted, mount it
//! (anywhere, in the daemon's own mount namespace) before [`Layout::detect`]: the VEs need a view
//! of it in any case.
//!
//! On cgroup2 the node's group lies in the group that systemd delegated to the daemon
//! (`Delegate=yes`; systemd says so by the attribute `trusted.delegate` or `user.delegate`), else at
//! the root of the hierarchy. Groups that are not ours are never written to, except to switch on
//! controllers at the root.

use std::path::{Path, PathBuf};

use kernel::proc::MountInfo;

use crate::error::DetectError;
use crate::files::Directory;

/// A controller that this crate uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Controller {
    /// Weight and quota of processor time.
    Cpu,
    /// Accounting of processor time (v1; on cgroup2 every group has it).
    CpuAccounting,
    /// Masks of processors.
    CpuSet,
    /// Memory and swap.
    Memory,
    /// Device nodes (v1; on cgroup2 a BPF program).
    Devices,
    /// Freezing (v1; on cgroup2 every group has it).
    Freezer,
    /// Block devices.
    Io,
    /// Number of processes.
    Processes,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Cpu,
        Self::CpuAccounting,
        Self::CpuSet,
        Self::Memory,
        Self::Devices,
        Self::Freezer,
        Self::Io,
        Self::Processes,
    ];

    /// Those that are switched on for every VE on cgroup2. `cpuset` costs time in proportion to the
    /// number of its groups, so it waits until a mask is set.
    pub(crate) const ENABLED: [Self; 4] = [Self::Cpu, Self::Memory, Self::Io, Self::Processes];

    /// Its name on v1.
    #[must_use]
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuAccounting => "cpuacct",
            Self::CpuSet => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Io => "blkio",
            Self::Processes => "pids",
        }
    }

    /// Its name on cgroup2, unless what it does needs no controller there.
    #[must_use]
    pub fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Io => Some("io"),
            Self::CpuAccounting | Self::Devices | Self::Freezer => None,
            other => Some(other.v1_name()),
        }
    }
}

/// What kind of host this is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only v1 hierarchies are mounted.
    V1,
    /// v1 hierarchies carry controllers, and cgroup2 is mounted too.
    Hybrid,
    /// Only cgroup2 is mounted.
    V2,
}

/// Where a controller is at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In the v1 hierarchy with this index in [`Layout::hierarchies`].
    V1(usize),
    /// On cgroup2.
    V2,
}

/// A mounted v1 hierarchy that VEs get groups in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its controllers, as v1 names them (several when they are mounted together).
    pub controllers: Vec<String>,
}

/// The mounted cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The group below which the node's group is made.
    pub base: PathBuf,
    /// Whether `base` was delegated to us; else it is the root.
    pub delegated: bool,
    /// Whether this process must leave `base` for a child of it first, as cgroup2 wants groups with
    /// controllers below them to have no processes.
    pub must_move: bool,
    /// Whether protection of memory reaches groups below the one that has it (the mount option
    /// `memory_recursiveprot`).
    pub protects_below: bool,
    /// The controllers that `base` can give to groups below it.
    pub controllers: Vec<String>,
}

/// The control groups of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    hierarchies: Vec<Hierarchy>,
    unified: Option<Unified>,
}

/// Name of the group, in a delegated one, that the daemon itself moves to. The same name belongs
/// into `DelegateSubgroup=` of its unit, so that systemd can start it again while VEs live.
pub const DAEMON_GROUP: &str = "daemon";

impl Layout {
    /// Finds out by reading `/proc/self/mountinfo`, `/proc/self/cgroup` and attributes of
    /// directories. Changes nothing.
    ///
    /// # Errors
    /// When nothing is mounted, or `/proc` does not answer.
    pub fn detect() -> Result<Self, DetectError> {
        let mounts = kernel::proc::mounts()?;
        let own = Directory::open(Path::new("/proc/self"))
            .and_then(|directory| directory.read(Path::new("cgroup")))
            .map_err(DetectError::Own)?;
        Self::from_parts(&mounts, &own, is_delegated)
    }

    /// Decides from the mounts, the text of `/proc/self/cgroup` and a question whether a directory
    /// was delegated; for tests on trees of plain files.
    ///
    /// # Errors
    /// As [`Layout::detect`].
    pub fn from_parts(
        mounts: &[MountInfo],
        own_groups: &str,
        is_delegated: impl Fn(&Path) -> bool,
    ) -> Result<Self, DetectError> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        // A part of a hierarchy that was bound somewhere is not the hierarchy.
        for mount in mounts.iter().filter(|mount| mount.root == Path::new("/")) {
            match mount.file_system.as_str() {
                "cgroup" => {
                    let found = hierarchy(mount);
                    let known = hierarchies
                        .iter()
                        .any(|h| Some(&h.controllers) == found.as_ref());
                    if let Some(controllers) = found.filter(|_| !known) {
                        let mount_point = mount.mount_point.clone();
                        hierarchies.push(Hierarchy {
                            mount_point,
                            controllers,
                        });
                    }
                }
                "cgroup2" if unified.is_none() => {
                    let mut options = mount.super_options.split(',');
                    let protects_below = options.any(|option| option == "memory_recursiveprot");
                    unified = Some((mount.mount_point.clone(), protects_below));
                }
                _ => {}
            }
        }
        if hierarchies.is_empty() && unified.is_none() {
            return Err(DetectError::NoneMounted);
        }
        let unified = unified
            .map(|mounted| self::unified(mounted, own_groups, is_delegated))
            .transpose()?;
        Ok(Self {
            hierarchies,
            unified,
        })
    }

    /// The mounted v1 hierarchies that carry a controller of ours or systemd's name.
    #[must_use]
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The mounted cgroup2 hierarchy. Without it, mount one and detect again: VEs cannot be launched.
    #[must_use]
    pub fn unified(&self) -> Option<&Unified> {
        self.unified.as_ref()
    }

    /// What kind of host this is.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.hierarchies.is_empty(), &self.unified) {
            (true, _) => Mode::V2,
            (false, Some(_)) => Mode::Hybrid,
            (false, None) => Mode::V1,
        }
    }

    /// Where a controller is at home. `None` when this host does not have it.
    #[must_use]
    pub fn home(&self, controller: Controller) -> Option<Home> {
        let name = controller.v1_name();
        if let Some(at) = self.hierarchies.iter().position(|h| h.has(name)) {
            return Some(Home::V1(at));
        }
        let unified = self.unified.as_ref()?;
        match controller.v2_name() {
            Some(name) => unified
                .controllers
                .iter()
                .any(|c| c == name)
                .then_some(Home::V2),
            None => Some(Home::V2),
        }
    }

    /// The controllers that this host lacks: what they would limit is not limited.
    #[must_use]
    pub fn missing(&self) -> Vec<Controller> {
        Controller::ALL
            .into_iter()
            .filter(|c| self.home(*c).is_none())
            .collect()
    }
}

impl Hierarchy {
    /// Whether it carries a controller.
    #[must_use]
    pub fn has(&self, v1_name: &str) -> bool {
        self.controllers
            .iter()
            .any(|controller| controller == v1_name)
    }

    /// Whether it carries `cpuset` and nothing else of ours: then a VE gets a group in it only with a
    /// mask.
    #[must_use]
    pub fn is_only_cpuset(&self) -> bool {
        self.has("cpuset") && !self.controllers.iter().any(|c| c != "cpuset" && is_ours(c))
    }
}

fn is_ours(name: &str) -> bool {
    name == "name=systemd" || Controller::ALL.iter().any(|c| c.v1_name() == name)
}

/// The controllers of a v1 mount, if there is one of ours among them.
fn hierarchy(mount: &MountInfo) -> Option<Vec<String>> {
    const OPTIONS: [&str; 6] = [
        "rw",
        "ro",
        "xattr",
        "clone_children",
        "noprefix",
        "cpuset_v2_mode",
    ];
    let names: Vec<String> = mount
        .super_options
        .split(',')
        .filter(|name| !OPTIONS.contains(name) && !name.starts_with("release_agent="))
        .map(str::to_owned)
        .collect();
    names.iter().any(|name| is_ours(name)).then_some(names)
}

fn unified(
    (mount_point, protects_below): (PathBuf, bool),
    own_groups: &str,
    is_delegated: impl Fn(&Path) -> bool,
) -> Result<Unified, DetectError> {
    let own = own_groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    let own = Path::new(own);
    // Outside of the reader's cgroup namespace: nothing that we could use.
    let visible = !own.starts_with("..") && !own.as_os_str().is_empty();
    let (mut base, mut delegated, mut must_move) = (mount_point.clone(), false, false);
    if visible && is_delegated(&mount_point.join(own)) {
        (base, delegated, must_move) = (mount_point.join(own), true, true);
    } else if let Some(parent) = own
        .parent()
        .filter(|_| visible && own.ends_with(DAEMON_GROUP))
        && is_delegated(&mount_point.join(parent))
    {
        (base, delegated) = (mount_point.join(parent), true);
    }
    let controllers = Directory::open(&base)
        .and_then(|directory| directory.read(Path::new("cgroup.controllers")))
        .map_err(DetectError::File)?;
    let controllers = controllers.split_whitespace().map(str::to_owned).collect();
    Ok(Unified {
        mount_point,
        base,
        delegated,
        must_move,
        protects_below,
        controllers,
    })
}

/// Whether systemd marked a group as somebody's own, see `systemd.resource-control(5)`, `Delegate=`.
fn is_delegated(directory: &Path) -> bool {
    ["trusted.delegate", "user.delegate"]
        .into_iter()
        .any(|name| {
            let mut value = [0_u8; 8];
            rustix::fs::getxattr(directory, name, &mut value).is_ok_and(|n| value[..n] == *b"1")
        })
}
