//! The node, its pool and its health.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::words::words;

words! {
    /// What holds a pool.
    pub enum PoolKind {
        /// A sparse file behind a loop device.
        Loop = "loop",
        /// A device of its own.
        Device = "device",
        /// A folder on a btrfs that was there.
        Folder = "folder",
    }
}

/// The pool of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// What holds it.
    pub kind: PoolKind,
    /// The file, device or folder.
    pub source: String,
    /// Its size.
    pub size_bytes: u64,
    /// What is used of it.
    pub used_bytes: u64,
    /// What is free for VEs.
    pub free_bytes: u64,
    /// Sum of `disk.guarantee` of all VEs.
    #[serde(default)]
    pub guaranteed_bytes: u64,
    /// Sum of `disk.limit` of all VEs: what they may take if all take what they may.
    #[serde(default)]
    pub limits_bytes: u64,
    /// VEs without `disk.limit`, which may take what is free.
    #[serde(default)]
    pub unlimited_ves: u32,
    /// What a pool on a sparse file takes of the disk below; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
    /// What that disk has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Space that VEs would take more if each had its own copy of its template's files.
    pub saved_disk_bytes: u64,
    /// Page cache that VEs would take more if each had its own copy of its template's files: at least so much, of
    /// what they have mapped.
    pub saved_memory_bytes: u64,
    /// Running VEs whose memory was looked at for that; they stand for the others of their template.
    #[serde(default)]
    pub saved_memory_measured_ves: u32,
    /// Whether the file system reports no error.
    pub healthy: bool,
    /// What is wrong or will be soon, each with the next step.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Processors.
    pub cpu_cores: f64,
    /// Memory.
    pub memory_bytes: u64,
    /// Space in the pool.
    pub disk_bytes: u64,
    /// Bits per second of its way to other networks, as its administrator said; absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_bits_per_second: Option<u64>,
    /// VEs at most, by ids and addresses.
    pub ves: u32,
}

/// What a node keeps for itself: that is never guaranteed to VEs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// Processors.
    pub cpu_cores: f64,
    /// Memory, which VEs together never use.
    pub memory_bytes: u64,
    /// Space in the pool, which VEs together never use while one is guaranteed some.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Bits per second of its way to other networks; absent when its capacity is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_bits_per_second: Option<u64>,
}

/// How much the limits of VEs may sum up to, as multiples of what the node has for VEs; what is absent
/// is without bound.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overcommit {
    /// Of `cpu.limit` of running VEs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Of `memory.limit` of running VEs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// Of `disk.limit` of all VEs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<f64>,
}

/// What a node has promised to VEs. A guarantee is sold while its VE has processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sold {
    /// Sum of `cpu.guarantee` of VEs that have processes.
    pub cpu_guarantee_cores: f64,
    /// Sum of `cpu.limit`.
    pub cpu_limit_cores: f64,
    /// Sum of `memory.guarantee` of VEs that have processes.
    pub memory_guarantee_bytes: u64,
    /// Sum of `memory.limit`.
    pub memory_limit_bytes: u64,
    /// Sum of `disk.guarantee` of all VEs.
    #[serde(default)]
    pub disk_guarantee_bytes: u64,
    /// Sum of `disk.limit`.
    pub disk_limit_bytes: u64,
    /// Sum of `network.guarantee` of VEs that have processes.
    #[serde(default)]
    pub network_guarantee_bits_per_second: u64,
    /// Sum of `network.limit`.
    #[serde(default)]
    pub network_limit_bits_per_second: u64,
    /// VEs that exist.
    pub ves: u32,
    /// VEs that have processes.
    pub ves_running: u32,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Where it answers.
    pub url: String,
    /// Version of the daemon.
    pub version: String,
    /// Host name of the machine.
    pub hostname: String,
    /// Release of its kernel.
    pub kernel: String,
    /// How resources are controlled: `v2`, `v1` or `hybrid`.
    pub cgroup: String,
    /// Root folder of the node.
    pub root: String,
    /// Whether it was prepared by `vessel init`.
    pub initialized: bool,
    /// Networks that addresses are taken from, in CIDR.
    pub networks: Vec<String>,
    /// First number of its VEs.
    pub first_id: u32,
    /// Last number of its VEs.
    pub last_id: u32,
    /// When the daemon was started.
    pub started: Timestamp,
    /// What it has.
    pub capacity: Capacity,
    /// What of it the node keeps for itself.
    #[serde(default)]
    pub reserve: Reserve,
    /// How much more than it has it may give as limits.
    #[serde(default)]
    pub overcommit: Overcommit,
    /// What of it is promised.
    pub sold: Sold,
}

/// Prepares a node. At most one of `pool_size`, `device` and `pool`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitRequest {
    /// Size of the pool's file, as people write it: `40G`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<String>,
    /// A device to make the pool on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// A folder on an existing btrfs to keep the pool in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// IPv4 network that addresses are taken from, in CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// First number of its VEs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_id: Option<u32>,
}

/// What became of an [`InitRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitReply {
    /// Whether there was something to do.
    pub changed: bool,
    /// The node as it is now.
    pub node: NodeStatus,
}

words! {
    /// What the doctor says of one thing.
    pub enum Diagnosis {
        /// It is as it should be.
        Ok = "ok",
        /// VEs run, but something is lost without it.
        Warning = "warning",
        /// VEs cannot run without it.
        Missing = "missing",
    }
}

/// One thing that the doctor looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorRow {
    /// What: `kernel`, `cgroup`, `mmdebstrap`, ...
    pub check: String,
    /// How it is.
    pub diagnosis: Diagnosis,
    /// What was found.
    pub found: String,
    /// What is lost without it, and how to get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What the doctor says of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// What was looked at.
    pub rows: Vec<DoctorRow>,
}
