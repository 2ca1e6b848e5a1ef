//! What VEs use.

use serde::{Deserialize, Serialize};

use super::ve::VeState;
use crate::time::Timestamp;

/// What a VE uses now, in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time since its start.
    pub cpu_seconds: f64,
    /// Memory now, with the page cache charged to it.
    pub memory_bytes: u64,
    /// Processes and threads now.
    pub processes: u64,
    /// Space of its private area in the pool.
    pub disk_bytes: u64,
}

/// The counters of a VE. A counter begins at 0 with each start of the VE; what a node cannot count
/// (a controller is missing, the VE has no processes) is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Number of the VE.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: VeState,
    /// When the counters were read.
    pub sampled: Timestamp,
    /// Time since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<f64>,
    /// Processor time, all processors together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Part of it in user mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_user_seconds: Option<f64>,
    /// Part of it in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_system_seconds: Option<f64>,
    /// Time in which its limit held it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_seconds: Option<f64>,
    /// Time in which something waited for a processor (PSI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pressure_seconds: Option<f64>,
    /// Time in which something waited for memory (PSI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_pressure_seconds: Option<f64>,
    /// Time in which something waited for a disk (PSI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_pressure_seconds: Option<f64>,
    /// `cpu.limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit_cores: Option<f64>,
    /// Memory now, with the page cache charged to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Part of it that belongs to processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_anonymous_bytes: Option<u64>,
    /// Part of it that is page cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_file_bytes: Option<u64>,
    /// Most memory since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// `memory.limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Memory of its processes that is merged with equal pages, where it chose that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_merged_bytes: Option<u64>,
    /// Memory that merging saves, less what the kernel needs to know of its pages; negative where it costs more.
    /// Each of those who share a page counts it, so VEs together save less than the sum: see the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_merge_profit_bytes: Option<i64>,
    /// What merging saves on the whole machine, less what it needs, for all who chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_merge_node_profit_bytes: Option<i64>,
    /// Processor time of the machine's merging since it booted, for all who chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_merge_cpu_seconds: Option<f64>,
    /// Swap now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Processes that the kernel killed for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_oom_kills: Option<u64>,
    /// Processes and threads now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// `processes.limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_limit: Option<u64>,
    /// Space of its private area in the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// `disk.limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_limit_bytes: Option<u64>,
    /// Bytes read from disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_bytes: Option<u64>,
    /// Bytes written to disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_bytes: Option<u64>,
    /// Read operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_operations: Option<u64>,
    /// Write operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_operations: Option<u64>,
    /// Bytes that the VE received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_receive_bytes: Option<u64>,
    /// Bytes that the VE sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_transmit_bytes: Option<u64>,
    /// Packets that the VE received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_receive_packets: Option<u64>,
    /// Packets that the VE sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_transmit_packets: Option<u64>,
}
