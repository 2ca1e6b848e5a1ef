//! Resource control of VEs on cgroup v1, hybrid and v2.
//!
//! For the engine (by way of the daemon), which decides; this crate only does. The way through:
//! [`Layout::detect`] once, [`NodeGroup::open`] once per node, [`NodeGroup::create`] per VE at start, then
//! [`VeGroup::apply`] for limits, [`VeGroup::entry`] for the launcher, and [`NodeGroup::remove`]
//! at the end.
//!
//! Invariants:
//! - Nothing but the node's own groups is written to, except `cgroup.subtree_control` of the groups above
//!   them and, in a delegated group, its child `daemon`.
//! - No limit lies in a file that the VE's root may write.
//! - The work per VE does not grow with the number of VEs; hence no `cpuset` group without a mask.
//! - All calls block, most for some tens of microseconds; [`VeGroup::freeze`], [`VeGroup::kill_all`],
//!   [`NodeGroup::remove`] and a lowered memory limit may take as long as their time-outs. An
//!   asynchronous caller gives them a thread.
//!
//! Not here: limits of disk space (`pool`), of network traffic (`network`), what a value means or
//! whether there is enough of it (`policy`).
//!
//! With `RT_GROUP_SCHED` on v1, processes of a VE cannot have real-time policies, since its group gets no
//! real-time budget: a budget given to one VE is taken from the host's watchdogs.
#![forbid(unsafe_code)]

mod bounds;
mod device;
mod error;
mod files;
mod freeze;
mod group;
mod layout;
mod limits;
mod neighbours;
mod node;
mod open_files;
mod process;
mod processes;
mod reader;
mod remove;
mod strain;
mod together;
mod usage;
mod wait;

pub use bounds::{Bound, DeviceControl};
pub use device::{ALLOWED, AllowedDevice};
pub use error::{
    CreateError, DetectError, EntryError, FileError, FreezeError, KillError, OpenError,
    RemoveError, UsageError,
};
pub use group::{EXEC_GROUP, Entry, NESTED_DEPTH_MAX, NESTED_GROUPS_MAX, VeGroup};
pub use layout::{Controller, DAEMON_GROUP, Hierarchy, Home, Layout, Mode, Unified};
pub use limits::{Applied, IoControl, IoLimits, LimitKey, Limits, Refusal};
pub use neighbours::{Neighbour, neighbours};
pub use node::NodeGroup;
pub use open_files::OpenFiles;
pub use processes::processes_default;
pub use reader::{NodeReader, Reading};
pub use remove::BUSY_TIMEOUT;
pub use strain::{MemoryStrain, Told};
pub use together::Protection;
pub use usage::{Motion, Usage};
