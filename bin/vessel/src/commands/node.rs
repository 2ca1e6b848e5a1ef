//! `vessel node` and `vessel pool`.

use std::path::Path;
use std::time::Duration;

use api::latest::{DestroyRequest, NodeSetRequest, NodeStatus, PoolStatus, ShutdownRequest};
use tokio::time::{Instant, sleep};

use super::delete::confirm;
use crate::Context;
use crate::arguments::{NodeVerb, PoolVerb};
use crate::follow;
use crate::human;
use crate::output::{Outcome, Stop, failed};
use crate::table::pairs;

/// How long a daemon may take to end after its last answer.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Time between two looks whether it has.
const END_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) async fn run(context: &Context, verb: NodeVerb) -> Outcome {
    match verb {
        NodeVerb::Show => {
            let node = context.client.node().await?;
            show(context, &node)
        }
        NodeVerb::Set { settings } => {
            let node = context
                .client
                .set_node(&NodeSetRequest { settings })
                .await?;
            show(context, &node)
        }
        NodeVerb::Shutdown { timeout } => {
            let timeout_ms = timeout.map(|timeout| timeout.get().saturating_mul(1_000));
            let bar = follow::spinner(context.out, "shut down");
            let ended = context
                .client
                .shutdown(&ShutdownRequest { timeout_ms })
                .await;
            bar.finish_and_clear();
            ended?;
            daemon_gone(&context.root).await?;
            context
                .out
                .note("every VE is stopped, and the node's programs ended");
            Ok(())
        }
        NodeVerb::Destroy { force, yes } => {
            let question = format!(
                "destroy the node in {} with every VE, template and file of it?",
                context.root.display()
            );
            if !yes && !confirm(&question)? {
                context.out.note("nothing was destroyed");
                return Err(Stop::Said(1));
            }
            let bar = follow::spinner(context.out, "destroy");
            let ended = context.client.destroy(&DestroyRequest { force }).await;
            bar.finish_and_clear();
            ended?;
            daemon_gone(&context.root).await?;
            context.out.note("the node is gone");
            Ok(())
        }
    }
}

/// Waits for the end of a daemon that was told to: it answers first, then takes its socket away and
/// the root that it left empty.
async fn daemon_gone(root: &Path) -> Outcome {
    let deadline = Instant::now() + END_TIMEOUT;
    let is_empty = || std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none());
    while root.join("vessel.sock").exists() || is_empty() {
        if Instant::now() > deadline {
            let message = format!(
                "the daemon of {} did its work and does not end",
                root.display()
            );
            return Err(failed(message).with_hint("see its log, or kill it").into());
        }
        sleep(END_INTERVAL).await;
    }
    Ok(())
}

pub(crate) async fn pool(context: &Context, verb: &PoolVerb) -> Outcome {
    match verb {
        PoolVerb::Show => {
            let pool = context.client.pool().await?;
            show_pool(context, &pool)
        }
    }
}

/// Writes what a node is.
pub(super) fn show(context: &Context, node: &NodeStatus) -> Outcome {
    if context.out.json {
        return context.out.json(node);
    }
    let mut lines = vec![
        ("url", node.url.clone()),
        ("version", node.version.clone()),
        (
            "host",
            format!(
                "{} (Linux {}, cgroup {})",
                node.hostname, node.kernel, node.cgroup
            ),
        ),
        ("root", node.root.clone()),
        (
            "prepared",
            if node.initialized {
                "yes"
            } else {
                "no: `vessel init`"
            }
            .to_owned(),
        ),
        ("networks", node.networks.join(", ")),
        ("numbers", format!("{} to {}", node.first_id, node.last_id)),
        ("up since", human::time(node.started)),
    ];
    lines.extend(resources(node));
    pairs(&lines)
        .iter()
        .try_for_each(|line| context.out.line(line))
}

fn guaranteed(sold: String, whole: String, reserve: String) -> String {
    format!("{sold} of {whole}, {reserve} reserved for the node")
}

fn network(node: &NodeStatus) -> String {
    let (has, sold, reserve) = (&node.capacity, &node.sold, &node.reserve);
    match (has.network_bits_per_second, reserve.network_bits_per_second) {
        (Some(whole), reserve) => guaranteed(
            human::bits_per_second(sold.network_guarantee_bits_per_second),
            human::bits_per_second(whole),
            human::bits_per_second(reserve.unwrap_or_default()),
        ),
        (None, _) => "nothing: `vessel node set network.capacity=RATE`".to_owned(),
    }
}

/// What the node has, keeps for itself and has sold.
fn resources(node: &NodeStatus) -> Vec<(&'static str, String)> {
    let (has, sold, reserve) = (&node.capacity, &node.sold, &node.reserve);
    let limits = |sum: String, overcommit: Option<f64>| match overcommit {
        Some(factor) => format!("{sum}, overcommitment {}", human::cores(factor)),
        None => sum,
    };
    let mut lines = vec![
        (
            "ves",
            format!("{} ({} running) of {}", sold.ves, sold.ves_running, has.ves),
        ),
        (
            "cpu guaranteed",
            guaranteed(
                human::cores(sold.cpu_guarantee_cores),
                human::cores(has.cpu_cores),
                human::cores(reserve.cpu_cores),
            ),
        ),
        (
            "cpu limits",
            limits(human::cores(sold.cpu_limit_cores), node.overcommit.cpu),
        ),
        (
            "memory guaranteed",
            guaranteed(
                human::bytes(sold.memory_guarantee_bytes),
                human::bytes(has.memory_bytes),
                human::bytes(reserve.memory_bytes),
            ),
        ),
        (
            "memory limits",
            limits(
                human::bytes(sold.memory_limit_bytes),
                node.overcommit.memory,
            ),
        ),
        (
            "disk guaranteed",
            guaranteed(
                human::bytes(sold.disk_guarantee_bytes),
                human::bytes(has.disk_bytes),
                human::bytes(reserve.disk_bytes),
            ),
        ),
        (
            "disk limits",
            limits(
                format!(
                    "{} of {}",
                    human::bytes(sold.disk_limit_bytes),
                    human::bytes(has.disk_bytes)
                ),
                node.overcommit.disk,
            ),
        ),
    ];
    lines.push(("network guaranteed", network(node)));
    lines
}

/// What VEs may take if all take what they may.
fn limits_of_ves(pool: &PoolStatus) -> String {
    let sum = human::bytes(pool.limits_bytes);
    match pool.unlimited_ves {
        0 => sum,
        1 => format!("{sum}, and 1 VE without a limit"),
        count => format!("{sum}, and {count} VEs without a limit"),
    }
}

fn below(pool: &PoolStatus) -> String {
    match (pool.allocated_bytes, pool.disk_free_bytes) {
        (Some(taken), Some(free)) => {
            format!("{} taken, {} free", human::bytes(taken), human::bytes(free))
        }
        _ => "all of it".to_owned(),
    }
}

fn show_pool(context: &Context, pool: &PoolStatus) -> Outcome {
    if context.out.json {
        return context.out.json(pool);
    }
    let lines = pairs(&[
        ("kind", pool.kind.to_string()),
        ("source", pool.source.clone()),
        ("size", human::bytes(pool.size_bytes)),
        ("used", human::bytes(pool.used_bytes)),
        ("free", human::bytes(pool.free_bytes)),
        ("guaranteed to VEs", human::bytes(pool.guaranteed_bytes)),
        ("limits of VEs", limits_of_ves(pool)),
        ("on the disk below", below(pool)),
        ("saved on disk", human::bytes(pool.saved_disk_bytes)),
        ("saved in memory", human::bytes(pool.saved_memory_bytes)),
        (
            "health",
            if pool.healthy { "good" } else { "damaged" }.to_owned(),
        ),
    ]);
    lines.iter().try_for_each(|line| context.out.line(line))?;
    pool.warnings
        .iter()
        .for_each(|warning| context.out.note(&format!("warning: {warning}")));
    Ok(())
}
