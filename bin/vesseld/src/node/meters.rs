//! What VEs used, as the door asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::latest::{Account, AlertState, ApiError, ErrorCode, History, HistoryPoint, HistorySeries};
use meter::exposition::{Kind, Page, Shown};
use meter::history::{LEVELS, Record, level_for};
use meter::{Metric, Month};
use registry::AccountMonth;
use server::node::{Reply, VeKey};
use server::{HistoryQuery, Meters};

use super::{NodeDoor, blocking, ves};
use crate::convert;
use crate::daemon::Up;

impl Meters for NodeDoor {
    fn history(&self, ve: VeKey, query: HistoryQuery) -> Reply<'_, History> {
        Box::pin(self.with_up(move |up| history(up, &ve, &query)))
    }

    fn accounts(&self, month: Option<String>) -> Reply<'_, Vec<Account>> {
        Box::pin(self.with_up(move |up| accounts(up, month)))
    }

    fn metrics(&self) -> Reply<'_, String> {
        let door = self.clone();
        Box::pin(blocking(move || {
            Ok(metrics(door.0.up_if_prepared().as_ref()))
        }))
    }
}

fn history(up: &Arc<Up>, ve: &VeKey, query: &HistoryQuery) -> Result<History, ApiError> {
    let spec = ves::find(up, ve)?.spec;
    let metrics = metrics_of(&query.metrics)?;
    let until = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let level = level_for(query.since_seconds);
    let since = until.saturating_sub(query.since_seconds);
    let read = up
        .host
        .metering
        .with_history(|history| history.read(spec.id, spec.created, level, since..until + 1));
    let records = match read {
        Some(Ok(records)) => records,
        Some(Err(error)) => return Err(failed(&anyhow::Error::from(error))),
        None => {
            let message = "this node keeps no history: its file could not be opened";
            return Err(ApiError::new(ErrorCode::Failed, message)
                .with_hint("the log of `vesseld` says why"));
        }
    };
    Ok(History {
        id: spec.id.get(),
        name: spec.name.to_string(),
        step_seconds: LEVELS[level].step_seconds,
        since: convert::timestamp(since),
        until: convert::timestamp(until),
        series: metrics
            .into_iter()
            .map(|metric| series(metric, &records))
            .collect(),
    })
}

fn metrics_of(names: &[String]) -> Result<Vec<Metric>, ApiError> {
    if names.is_empty() {
        return Ok(Metric::ALL.to_vec());
    }
    let find = |name: &String| {
        Metric::from_name(name).ok_or_else(|| {
            let known = Metric::ALL.map(Metric::name).join(", ");
            ApiError::new(ErrorCode::Usage, format!("there is no metric `{name}`"))
                .with_hint(format!("there are {known}"))
        })
    };
    names.iter().map(find).collect()
}

fn series(metric: Metric, records: &[Record]) -> HistorySeries {
    let points = records.iter().filter_map(|record| {
        let point = record.get(metric)?;
        Some(HistoryPoint {
            time: convert::timestamp(u64::from(record.time)),
            mean: point.mean,
            max: point.max,
        })
    });
    HistorySeries {
        metric: metric.name().to_owned(),
        unit: metric.unit().as_str().to_owned(),
        help: metric.help().to_owned(),
        points: points.collect(),
    }
}

fn accounts(up: &Arc<Up>, month: Option<String>) -> Result<Vec<Account>, ApiError> {
    if let Some(text) = &month {
        text.parse::<Month>()
            .map_err(|error| ApiError::new(ErrorCode::Usage, error.to_string()))?;
    }
    // What was used until now, not until the last storing.
    up.host.metering.current(up);
    up.host.metering.store(up);
    let rows = up.engine.registry().account_months(month.as_deref());
    let rows = rows.map_err(|error| failed(&anyhow::Error::from(error)))?;
    Ok(rows.iter().map(account).collect())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds and byte-seconds are told in floats: 53 bits of them are exact enough for any bill"
)]
fn account(row: &AccountMonth) -> Account {
    let amount = |name: &str| row.amounts.get(name).copied().unwrap_or(0);
    let seconds = |name: &str| amount(name) as f64 / 1e6;
    let kibibytes = |name: &str| amount(name) as f64 * 1_024.0;
    Account {
        month: row.month.clone(),
        id: row.ve,
        name: row.name.clone(),
        created: convert::timestamp(row.created),
        running_seconds: amount("running_milliseconds") as f64 / 1e3,
        cpu_seconds: seconds("cpu_microseconds"),
        cpu_user_seconds: seconds("cpu_user_microseconds"),
        cpu_system_seconds: seconds("cpu_system_microseconds"),
        cpu_throttled_seconds: seconds("cpu_throttled_microseconds"),
        memory_byte_seconds: kibibytes("memory_kibibyte_seconds"),
        memory_given_byte_seconds: kibibytes("memory_given_kibibyte_seconds"),
        disk_byte_seconds: kibibytes("disk_kibibyte_seconds"),
        memory_oom_kills: amount("oom_kills"),
        io_read_bytes: amount("io_read_bytes"),
        io_write_bytes: amount("io_write_bytes"),
        io_read_operations: amount("io_read_operations"),
        io_write_operations: amount("io_write_operations"),
        network_receive_inside_bytes: amount("network_receive_inside_bytes"),
        network_receive_outside_bytes: amount("network_receive_outside_bytes"),
        network_transmit_inside_bytes: amount("network_transmit_inside_bytes"),
        network_transmit_outside_bytes: amount("network_transmit_outside_bytes"),
        network_receive_inside_packets: amount("network_receive_inside_packets"),
        network_receive_outside_packets: amount("network_receive_outside_packets"),
        network_transmit_inside_packets: amount("network_transmit_inside_packets"),
        network_transmit_outside_packets: amount("network_transmit_outside_packets"),
    }
}

/// The text for Prometheus. A node that is not prepared says that, and no more.
fn metrics(up: Option<&Arc<Up>>) -> String {
    let mut page = Page::default();
    let one = |page: &mut Page, name: &str, help: &str, value: f64| {
        page.family(name, Kind::Gauge, help, [(Vec::new(), value)]);
    };
    page.family(
        "vessel_build_info",
        Kind::Gauge,
        "The version of the daemon.",
        [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
    );
    let prepared = f64::from(u8::from(up.is_some()));
    one(
        &mut page,
        "vessel_node_up",
        "Whether the node is prepared and up.",
        prepared,
    );
    let Some(up) = up else {
        return page.into_text();
    };
    let current = up.host.metering.current(up);
    let mut states: BTreeMap<&str, f64> = BTreeMap::new();
    for ve in &current {
        *states.entry(ve.record.state.as_str()).or_default() += 1.0;
    }
    let states = states
        .iter()
        .map(|(state, count)| (vec![("state", *state)], *count));
    let help = "VEs of the node by their state.";
    page.family("vessel_node_ves", Kind::Gauge, help, states);
    pool(&mut page, up);
    alerts(&mut page, up);
    let names: Vec<String> = current
        .iter()
        .map(|ve| ve.record.spec.name.to_string())
        .collect();
    let shown: Vec<Shown<'_>> = current
        .iter()
        .zip(&names)
        .map(|(ve, name)| Shown {
            name,
            running: ve.record.state.has_processes(),
            broken: crate::metering::is_broken(&ve.record),
            reading: &ve.reading,
        })
        .collect();
    page.ves(&shown);
    page.into_text()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn pool(page: &mut Page, up: &Up) {
    let Ok(usage) = up.host.pool.usage() else {
        return;
    };
    for (name, help, bytes) in [
        (
            "vessel_pool_size_bytes",
            "Size of the pool.",
            usage.size_bytes,
        ),
        (
            "vessel_pool_used_bytes",
            "Space of the pool that is in use.",
            usage.used_bytes,
        ),
        (
            "vessel_pool_free_bytes",
            "Space of the pool that is free for files.",
            usage.free_bytes,
        ),
    ] {
        page.family(name, Kind::Gauge, help, [(Vec::new(), bytes as f64)]);
    }
}

/// What is pending and what fires, for whoever has alerts of Prometheus as well.
fn alerts(page: &mut Page, up: &Up) {
    let mut alerts = up.alerts.list();
    alerts.retain(|alert| alert.state != AlertState::Resolved);
    let samples = alerts.iter().map(|alert| {
        let labels = vec![
            ("rule", alert.rule.as_str()),
            ("severity", alert.severity.as_str()),
            ("state", alert.state.as_str()),
            ("ve", alert.name.as_deref().unwrap_or_default()),
        ];
        (labels, 1.0)
    });
    let help = "A rule that is pending or fires about a VE, or about the node.";
    page.family("vessel_alert", Kind::Gauge, help, samples);
    let Ok(waiting) = up.engine.registry().outbox_waiting() else {
        return;
    };
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
    let samples = waiting
        .iter()
        .map(|(channel, count, _)| (vec![("channel", channel.as_str())], *count as f64));
    let help = "Alerts that wait for a channel to take them.";
    page.family("vessel_alert_messages_waiting", Kind::Gauge, help, samples);
}

fn failed(error: &anyhow::Error) -> ApiError {
    ApiError::new(ErrorCode::Failed, format!("{error:#}"))
}
