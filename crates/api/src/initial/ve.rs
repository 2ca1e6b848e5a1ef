//! VEs as lists and details show them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stats::Usage;
use super::template::{first_revision, is_first_revision};
use crate::time::Timestamp;
use crate::words::words;

words! {
    /// What a VE is doing.
    pub enum VeState {
        /// It has no processes.
        Stopped = "stopped",
        /// Its init runs and has not said that it is ready.
        Starting = "starting",
        /// Its init runs and is ready.
        Running = "running",
        /// Its processes exist and are frozen.
        Paused = "paused",
        /// Its init was asked to end.
        Stopping = "stopping",
        /// Its processes are on disk, to be resumed.
        Checkpointed = "checkpointed",
        /// It is on its way to another node.
        Migrating = "migrating",
        /// Something that it needs is missing or damaged.
        Broken = "broken",
    }
}

/// A VE in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ve {
    /// Its number, the same on every node.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: VeState,
    /// Name of the template that it was made from.
    pub template: String,
    /// Which revision of that template.
    #[serde(default = "first_revision", skip_serializing_if = "is_first_revision")]
    pub revision: u32,
    /// Applications on that template, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<String>,
    /// Its addresses, IPv4 and IPv6, without prefix length.
    pub addresses: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// What it is promised and may use at most.
    pub limits: Limits,
}

/// Everything about one VE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VeDetails {
    /// Its number, the same on every node.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: VeState,
    /// Why it is in that state, when there is something to say: what is broken, how its init ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Name of the template that it was made from.
    pub template: String,
    /// Which revision of that template.
    #[serde(default = "first_revision", skip_serializing_if = "is_first_revision")]
    pub revision: u32,
    /// Applications on that template, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<String>,
    /// Its addresses, IPv4 and IPv6, without prefix length.
    pub addresses: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    /// When its init was started; absent when it has no processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// What it is promised and may use at most.
    pub limits: Limits,
    /// Host name inside.
    pub hostname: String,
    /// Name servers inside.
    pub dns: Vec<String>,
    /// Place in the order of the node's start (smaller first); absent when it does not start with the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostart: Option<u32>,
    /// Whether it refuses to be deleted.
    pub protected: bool,
    /// Whether it may run containers of its own.
    #[serde(default)]
    pub nesting: bool,
    /// Whether equal pages of its processes are merged, with those of other VEs that chose it.
    #[serde(rename = "memory.merge", default)]
    pub memory_merge: bool,
    /// Who it belongs to, in words of its administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is for, in words of its administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its init's process id as the node sees it; absent when it has no processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The host user id that its root has.
    pub uid_base: u32,
    /// Host end of its network link.
    pub interface: String,
    /// Memory that it was given by itself beyond `memory.limit`, in bytes; absent when it was given none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_given_bytes: Option<u64>,
    /// What it uses now; absent when it has no processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What was chosen of what its applications offer, by `APPLICATION.SETTING`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Settings that were saved and act from the next start on, by key.
    #[serde(default)]
    pub pending: Vec<String>,
}

/// The resource settings of a VE by the keys that `vessel set` takes; an absent key is not set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Processors that it gets whatever others do, in processors (0.5 is half of one).
    #[serde(
        rename = "cpu.guarantee",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub cpu_guarantee: Option<f64>,
    /// Processors that it gets at most.
    #[serde(rename = "cpu.limit", default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<f64>,
    /// Weight against other VEs when processors are short, 1 to 10,000, normally 100.
    #[serde(rename = "cpu.share", default, skip_serializing_if = "Option::is_none")]
    pub cpu_share: Option<u32>,
    /// Processors that it may use beyond its limit for a tenth of a second, saved up while it used less.
    #[serde(rename = "cpu.burst", default, skip_serializing_if = "Option::is_none")]
    pub cpu_burst: Option<f64>,
    /// The processors that it runs on, in the kernel's list format: `0-3,8`.
    #[serde(rename = "cpu.set", default, skip_serializing_if = "Option::is_none")]
    pub cpu_set: Option<String>,
    /// Memory that it keeps whatever others do, in bytes.
    #[serde(
        rename = "memory.guarantee",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_guarantee: Option<u64>,
    /// Memory that it gets at most, in bytes.
    #[serde(
        rename = "memory.limit",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_limit: Option<u64>,
    /// Memory that it may use beyond its limit while the node has some free, in bytes.
    #[serde(
        rename = "memory.burst",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_burst: Option<u64>,
    /// Memory that it may have at most with what it is given by itself, in bytes.
    #[serde(
        rename = "memory.grow.ceiling",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_grow_ceiling: Option<u64>,
    /// How much it is given at a time, in bytes.
    #[serde(
        rename = "memory.grow.step",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_grow_step: Option<u64>,
    /// The part of its memory whose use calls for more, in percent.
    #[serde(
        rename = "memory.grow.threshold",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_grow_threshold: Option<u32>,
    /// Shortest time between two steps, in seconds.
    #[serde(
        rename = "memory.grow.cooldown",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_grow_cooldown: Option<u64>,
    /// How long it does without a step before that goes back, in seconds; absent is never.
    #[serde(
        rename = "memory.grow.give-back",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_grow_give_back: Option<u64>,
    /// Swap that it may use, in bytes.
    #[serde(
        rename = "memory.swap",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_swap: Option<u64>,
    /// Number of processes and threads.
    #[serde(
        rename = "processes.limit",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub processes_limit: Option<u64>,
    /// Number of open files of each process.
    #[serde(
        rename = "files.limit",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub files_limit: Option<u64>,
    /// Space in the pool that nobody else takes, in bytes.
    #[serde(
        rename = "disk.guarantee",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub disk_guarantee: Option<u64>,
    /// Space of its private area in the pool, in bytes.
    #[serde(
        rename = "disk.limit",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub disk_limit: Option<u64>,
    /// Weight against other VEs when the disk is busy, 1 to 1,000, normally 100.
    #[serde(rename = "io.share", default, skip_serializing_if = "Option::is_none")]
    pub io_share: Option<u32>,
    /// Bytes per second read at most.
    #[serde(
        rename = "io.read.limit",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub io_read_limit: Option<u64>,
    /// Bytes per second written at most.
    #[serde(
        rename = "io.write.limit",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub io_write_limit: Option<u64>,
    /// Read operations per second at most.
    #[serde(
        rename = "io.read.ops",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub io_read_ops: Option<u64>,
    /// Write operations per second at most.
    #[serde(
        rename = "io.write.ops",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub io_write_ops: Option<u64>,
    /// Bits per second, each way, to and from other networks, that it gets whatever others do.
    #[serde(
        rename = "network.guarantee",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub network_guarantee: Option<u64>,
    /// Bits per second, each way, to and from other networks, that it gets at most.
    #[serde(
        rename = "network.limit",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub network_limit: Option<u64>,
    /// Bits per second that it may use beyond its limit for a second, saved up while it used less.
    #[serde(
        rename = "network.burst",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub network_burst: Option<u64>,
}
