//! What VEs used: their past, and their totals for billing.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// One step of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryPoint {
    /// When the step began.
    pub time: Timestamp,
    /// Mean over the step.
    pub mean: f64,
    /// Largest sample in it.
    pub max: f64,
}

/// A metric over time. Steps in which nobody looked, or which had no value, are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistorySeries {
    /// Its name, with its unit: `memory_bytes`.
    pub metric: String,
    /// Its unit: `bytes`, `bytes_per_second`, `per_second`, `cores`, `ratio`, `number`.
    pub unit: String,
    /// What it tells.
    pub help: String,
    /// Its steps, oldest first.
    pub points: Vec<HistoryPoint>,
}

/// The past of a VE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Number of the VE.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Length of a step.
    pub step_seconds: u32,
    /// Begin of what was asked for.
    pub since: Timestamp,
    /// End of it.
    pub until: Timestamp,
    /// The metrics that were asked for.
    pub series: Vec<HistorySeries>,
}

/// What a VE used in a month, in UTC. Exact across restarts of VE, daemon and node; what a power cut
/// took from the last minute is missing.
///
/// *Inside* is what it exchanged with its own node's network, *outside* all else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The month: `2026-11`.
    pub month: String,
    /// Number of the VE.
    pub id: u32,
    /// Its name, as last known; the VE may be gone.
    pub name: String,
    /// When it was created: numbers and names are given again.
    pub created: Timestamp,
    /// How long it had processes.
    pub running_seconds: f64,
    /// Processor time.
    pub cpu_seconds: f64,
    /// Part of it in user mode.
    pub cpu_user_seconds: f64,
    /// Part of it in the kernel.
    pub cpu_system_seconds: f64,
    /// Time in which its limit held it back.
    pub cpu_throttled_seconds: f64,
    /// Memory times the time for which it had it.
    pub memory_byte_seconds: f64,
    /// What it was given by itself beyond `memory.limit`, in bytes, times seconds.
    #[serde(default)]
    pub memory_given_byte_seconds: f64,
    /// Space in the pool times the time for which it had it.
    pub disk_byte_seconds: f64,
    /// Processes that the kernel killed for memory.
    pub memory_oom_kills: u64,
    /// Bytes read from disks.
    pub io_read_bytes: u64,
    /// Bytes written to disks.
    pub io_write_bytes: u64,
    /// Read operations.
    pub io_read_operations: u64,
    /// Write operations.
    pub io_write_operations: u64,
    /// Bytes received from inside.
    pub network_receive_inside_bytes: u64,
    /// Bytes received from outside.
    pub network_receive_outside_bytes: u64,
    /// Bytes sent inside.
    pub network_transmit_inside_bytes: u64,
    /// Bytes sent outside.
    pub network_transmit_outside_bytes: u64,
    /// Packets received from inside.
    pub network_receive_inside_packets: u64,
    /// Packets received from outside.
    pub network_receive_outside_packets: u64,
    /// Packets sent inside.
    pub network_transmit_inside_packets: u64,
    /// Packets sent outside.
    pub network_transmit_outside_packets: u64,
}
