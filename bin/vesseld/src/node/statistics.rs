//! Counters of VEs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::latest::{ApiError, Stats};
use api::time::Timestamp;
use cgroup::Usage;
use network::Counters;
use registry::{Run, VeRecord};
use server::node::{VeFilter, VeKey};
use ve::{Bytes, VeId};

use super::ves::{self, seconds};
use crate::convert;
use crate::daemon::Up;

/// Unit of start times (`_SC_CLK_TCK`, sysconf(3)); fixed in the kernel's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn of_one(up: &Arc<Up>, ve: &VeKey) -> Result<Stats, ApiError> {
    let record = ves::find(up, ve)?;
    let counters = network::counters(&mut up.host.netlink(), record.spec.id)
        .ok()
        .flatten()
        .map(|counters| with_fast_path(up, record.spec.id, counters));
    Ok(stats(up, &record, counters.as_ref()))
}

pub(super) fn of_many(up: &Arc<Up>, filter: &VeFilter) -> Result<Vec<Stats>, ApiError> {
    let records = ves::matching(up, filter)?;
    let facts = up.engine.facts();
    let ids = facts.first_id..=facts.last_id;
    let counters = network::counters_all(&mut up.host.netlink(), ids).unwrap_or_default();
    Ok(records
        .iter()
        .map(|record| {
            let id = record.spec.id;
            let counters = counters.get(&id);
            let counters = counters.map(|counters| with_fast_path(up, id, *counters));
            stats(up, record, counters.as_ref())
        })
        .collect())
}

/// Adds what the node's end of a link has not seen.
fn with_fast_path(up: &Up, id: VeId, mut counters: Counters) -> Counters {
    let fast_path = up.host.fast_path.as_ref();
    if let Some(Ok(passed)) = fast_path.map(|fast_path| fast_path.passed_of(id)) {
        counters.receive_bytes += passed.receive_of_link.bytes;
        counters.receive_packets += passed.receive_of_link.packets;
    }
    counters
}

/// When an init was started, by the node's clock.
pub(super) fn started(run: &Run) -> Option<Timestamp> {
    let now = SystemTime::now();
    now.checked_sub(Duration::try_from_secs_f64(uptime_seconds(run)?).ok()?)
        .map(Timestamp::from)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 ticks are three million years"
)]
fn uptime_seconds(run: &Run) -> Option<f64> {
    let node = kernel::proc::uptime_seconds().ok()?;
    Some((node - run.start_time_ticks as f64 / TICKS_PER_SECOND).max(0.0))
}

/// What is known of a VE. A group that vanishes while it is read belongs to a VE that just ended,
/// and has no counters.
fn stats(up: &Up, record: &VeRecord, network: Option<&Counters>) -> Stats {
    let spec = &record.spec;
    let running = record.run.as_ref().filter(|_| record.state.has_processes());
    let usage = running.and_then(|_| up.host.groups.ve(spec.id).usage().ok());
    let usage = usage.as_ref();
    let merged = running
        .filter(|_| spec.memory_merge)
        .and_then(|_| merged(up, spec.id));
    let merging = merged.and_then(|_| kernel::merging::merging_costs());
    let pressure = |of: fn(&Usage) -> Option<u64>| usage.and_then(of).map(seconds);
    Stats {
        id: spec.id.get(),
        name: spec.name.to_string(),
        state: convert::state(record.state),
        sampled: convert::now(),
        uptime_seconds: running.and_then(uptime_seconds),
        cpu_seconds: usage.map(|usage| seconds(usage.cpu_microseconds)),
        cpu_user_seconds: usage.map(|usage| seconds(usage.cpu_user_microseconds)),
        cpu_system_seconds: usage.map(|usage| seconds(usage.cpu_system_microseconds)),
        cpu_throttled_seconds: usage.map(|usage| seconds(usage.cpu_throttled_microseconds)),
        cpu_pressure_seconds: pressure(|usage| usage.cpu_pressure_microseconds),
        memory_pressure_seconds: pressure(|usage| usage.memory_pressure_microseconds),
        io_pressure_seconds: pressure(|usage| usage.io_pressure_microseconds),
        cpu_limit_cores: spec.limits.cpu.map(convert::cores),
        memory_bytes: usage.map(|usage| usage.memory_bytes),
        memory_anonymous_bytes: usage.map(|usage| usage.memory_anonymous_bytes),
        memory_file_bytes: usage.map(|usage| usage.memory_cache_bytes),
        memory_peak_bytes: usage.and_then(|usage| usage.memory_peak_bytes),
        memory_limit_bytes: spec.limits.memory_now().map(Bytes::get),
        memory_merged_bytes: merged.map(|m| m.pages * rustix::param::page_size() as u64),
        memory_merge_profit_bytes: merged.map(|merged| merged.profit_bytes),
        memory_merge_node_profit_bytes: merging.map(|costs| costs.profit_bytes),
        memory_merge_cpu_seconds: merging.map(|costs| seconds(costs.cpu_ticks * 10_000)),
        swap_bytes: usage.map(|usage| usage.swap_bytes),
        memory_oom_kills: usage.map(|usage| usage.out_of_memory_kills),
        processes: usage.map(|usage| usage.processes),
        processes_limit: spec.limits.processes.map(u64::from),
        disk_bytes: up.host.pool.private_usage(spec.id).ok(),
        disk_limit_bytes: spec.limits.disk.map(Bytes::get),
        io_read_bytes: usage.map(|usage| usage.io_read_bytes),
        io_write_bytes: usage.map(|usage| usage.io_write_bytes),
        io_read_operations: usage.map(|usage| usage.io_read_operations),
        io_write_operations: usage.map(|usage| usage.io_write_operations),
        network_receive_bytes: network.map(|network| network.receive_bytes),
        network_transmit_bytes: network.map(|network| network.transmit_bytes),
        network_receive_packets: network.map(|network| network.receive_packets),
        network_transmit_packets: network.map(|network| network.transmit_packets),
    }
}

/// What merging does for all processes of a VE.
fn merged(up: &Up, id: VeId) -> Option<kernel::merging::Merged> {
    let processes = up.host.groups.ve(id).processes().ok()?;
    let each = processes
        .into_iter()
        .filter_map(|pid| kernel::merging::merged(pid).ok());
    each.reduce(|all, one| kernel::merging::Merged {
        pages: all.pages + one.pages,
        profit_bytes: all.profit_bytes + one.profit_bytes,
    })
}
