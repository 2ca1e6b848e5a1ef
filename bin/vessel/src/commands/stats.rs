//! `vessel stats`.

use api::latest::Stats;

use super::show::ask;
use crate::Context;
use crate::arguments::StatsArguments;
use crate::human;
use crate::output::{Outcome, Stop};
use crate::table::pairs;

pub(crate) async fn run(context: &Context, arguments: StatsArguments) -> Outcome {
    if arguments.history {
        return super::history::run(context, arguments).await;
    }
    if let Some(month) = arguments.month.clone() {
        return super::history::month(context, arguments, &month).await;
    }
    let chosen = arguments.targets.choose(context, &[]).await?;
    let (stats, code) = ask(context, chosen.names, |client, name| async move {
        client.stats(&name).await
    })
    .await?;
    if context.out.json && !(stats.is_empty() && code != 0) {
        context.out.json_of(&stats, chosen.one)?;
    } else {
        for (index, one) in stats.iter().enumerate() {
            if index > 0 {
                context.out.line("")?;
            }
            for line in lines(one) {
                context.out.line(&line)?;
            }
        }
    }
    if code == 0 {
        Ok(())
    } else {
        Err(Stop::Said(code))
    }
}

fn lines(stats: &Stats) -> Vec<String> {
    let bytes = |value: Option<u64>| value.map(human::bytes).unwrap_or_default();
    let span = |value: Option<f64>| value.map(human::seconds).unwrap_or_default();
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    pairs(&[
        ("name", stats.name.clone()),
        ("state", stats.state.to_string()),
        ("uptime", span(stats.uptime_seconds)),
        ("cpu", span(stats.cpu_seconds)),
        ("cpu user", span(stats.cpu_user_seconds)),
        ("cpu system", span(stats.cpu_system_seconds)),
        ("cpu throttled", span(stats.cpu_throttled_seconds)),
        ("waited for cpu", span(stats.cpu_pressure_seconds)),
        ("waited for memory", span(stats.memory_pressure_seconds)),
        ("waited for disks", span(stats.io_pressure_seconds)),
        (
            "cpu limit",
            stats.cpu_limit_cores.map(human::cores).unwrap_or_default(),
        ),
        ("memory", bytes(stats.memory_bytes)),
        ("memory of processes", bytes(stats.memory_anonymous_bytes)),
        ("memory of files", bytes(stats.memory_file_bytes)),
        ("memory peak", bytes(stats.memory_peak_bytes)),
        ("memory limit", bytes(stats.memory_limit_bytes)),
        ("memory merged", bytes(stats.memory_merged_bytes)),
        ("saved by merging", signed(stats.memory_merge_profit_bytes)),
        (
            "saved by merging, all",
            signed(stats.memory_merge_node_profit_bytes),
        ),
        ("cpu of merging, all", span(stats.memory_merge_cpu_seconds)),
        ("swap", bytes(stats.swap_bytes)),
        ("killed for memory", number(stats.memory_oom_kills)),
        ("processes", number(stats.processes)),
        ("processes limit", number(stats.processes_limit)),
        ("disk", bytes(stats.disk_bytes)),
        ("disk limit", bytes(stats.disk_limit_bytes)),
        ("read", bytes(stats.io_read_bytes)),
        ("written", bytes(stats.io_write_bytes)),
        ("read operations", number(stats.io_read_operations)),
        ("write operations", number(stats.io_write_operations)),
        ("received", bytes(stats.network_receive_bytes)),
        ("sent", bytes(stats.network_transmit_bytes)),
        ("packets received", number(stats.network_receive_packets)),
        ("packets sent", number(stats.network_transmit_packets)),
    ])
}

/// Bytes that may be owed.
fn signed(bytes: Option<i64>) -> String {
    let text = |bytes: i64| {
        let sign = if bytes < 0 { "-" } else { "" };
        format!("{sign}{}", human::bytes(bytes.unsigned_abs()))
    };
    bytes.map(text).unwrap_or_default()
}
