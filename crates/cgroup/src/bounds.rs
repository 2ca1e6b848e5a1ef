//! What of a VE's group can be checked from outside: its bounds and its devices, as the kernel has
//! them beside what was planned.

use std::os::fd::AsFd;

use kernel::device_program;

use crate::device::v1_line;
use crate::group::{NESTED_DEPTH_MAX, NESTED_GROUPS_MAX, VeGroup};
use crate::layout::{Controller, Home};

/// A number that bounds a VE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What is bounded.
    pub name: &'static str,
    /// What the kernel has; `None` where this host cannot say (or the VE has no group).
    pub found: Option<String>,
    /// What was planned, where it is the same for every VE.
    pub planned: Option<String>,
    /// What it stops.
    pub reason: &'static str,
}

/// How devices are controlled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceControl {
    /// A list of v1, as it is, and as it should be; both sorted.
    List {
        /// What the kernel has.
        found: Vec<String>,
        /// The table.
        planned: Vec<String>,
    },
    /// Number of programs that are attached to the group on cgroup2; each can only take away.
    Programs(u32),
}

/// v1 says "unlimited" by the largest number of whole pages.
const UNLIMITED_FROM: u64 = 1 << 62;

/// A value as a person would say it.
fn plain(text: &str) -> String {
    let unlimited = text == "max" || text.parse().is_ok_and(|n: u64| n >= UNLIMITED_FROM);
    if unlimited { "unlimited" } else { text }.to_owned()
}

impl VeGroup {
    /// The bounds of a VE.
    #[must_use]
    pub fn bounds(&self) -> Vec<Bound> {
        let v1_or_v2 = |controller, v1: &str, v2: &str| {
            let (directory, home) = self.inner.directory(controller)?;
            let name = if home == Home::V2 { v2 } else { v1 };
            let text = directory.read(&self.file(name)).ok()?;
            Some(plain(text.trim()))
        };
        let unified = |name: &str| {
            let text = self.inner.v2.as_ref()?.read(&self.file(name)).ok()?;
            Some(text.trim().to_owned())
        };
        vec![
            Bound {
                name: "processes",
                found: v1_or_v2(Controller::Processes, "pids.max", "pids.max"),
                planned: None,
                reason: "fork bombs end at it; process numbers are one supply for the machine",
            },
            Bound {
                name: "memory",
                found: v1_or_v2(Controller::Memory, "memory.limit_in_bytes", "memory.max"),
                planned: None,
                reason: "programs, page cache, tmpfs, and what the kernel holds for them",
            },
            Bound {
                name: "nested groups",
                found: unified("cgroup.max.descendants"),
                planned: Some(NESTED_GROUPS_MAX.to_string()),
                reason: "the kernel's memory for groups is not charged in full",
            },
            Bound {
                name: "nesting of groups",
                found: unified("cgroup.max.depth"),
                planned: Some(NESTED_DEPTH_MAX.to_string()),
                reason: "every level costs at every charge",
            },
        ]
    }

    /// How the VE's devices are controlled; `None` where this host has no control groups, or the
    /// VE none.
    #[must_use]
    pub fn device_control(&self) -> Option<DeviceControl> {
        match self.inner.directory(Controller::Devices)? {
            (directory, Home::V1(_)) => {
                let list = directory.read(&self.file("devices.list")).ok()?;
                let mut found: Vec<String> = list.lines().map(str::to_owned).collect();
                let mut planned: Vec<String> =
                    self.inner.devices.rules.iter().map(v1_line).collect();
                found.sort_unstable();
                planned.sort_unstable();
                Some(DeviceControl::List { found, planned })
            }
            (directory, Home::V2) => {
                let group = directory.open_below(&self.below).ok()?;
                let count = device_program::count_attached(group.as_fd()).ok()?;
                Some(DeviceControl::Programs(count))
            }
        }
    }
}
