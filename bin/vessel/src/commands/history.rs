//! `vessel stats --history` and `vessel stats --month`.

use api::latest::{Account, History, HistorySeries};

use super::show::ask;
use crate::Context;
use crate::arguments::StatsArguments;
use crate::human;
use crate::output::{Outcome, Stop, usage};
use crate::plot::{Columns, ROWS};
use crate::table::{Align, Table};
use crate::terminal;

/// Width of a plot where no terminal says one.
const WIDTH_DEFAULT: u16 = 80;
/// Below that a plot shows nothing.
const WIDTH_MIN: u16 = 30;
/// How far back when nobody says.
const SINCE_DEFAULT_SECONDS: u64 = 3_600;
/// What is plotted when no metric is named: one for each resource.
const METRICS_DEFAULT: [&str; 6] = [
    "cpu_cores",
    "memory_bytes",
    "io_read_bytes_per_second",
    "io_write_bytes_per_second",
    "network_receive_outside_bytes_per_second",
    "network_transmit_outside_bytes_per_second",
];

pub(crate) async fn run(context: &Context, arguments: StatsArguments) -> Outcome {
    let seconds = arguments
        .since
        .map_or(SINCE_DEFAULT_SECONDS, ve::units::Seconds::get);
    let chosen = arguments.targets.choose(context, &[]).await?;
    let metrics = match (arguments.metric.is_empty(), context.out.json) {
        (true, false) => METRICS_DEFAULT.map(str::to_owned).to_vec(),
        _ => arguments.metric,
    };
    let (histories, code) = ask(context, chosen.names, |client, name| {
        let metrics = metrics.clone();
        async move { client.history(&name, seconds, &metrics).await }
    })
    .await?;
    if context.out.json && !(histories.is_empty() && code != 0) {
        context.out.json_of(&histories, chosen.one)?;
    } else {
        let width = match context.out.on_terminal {
            true => terminal::size().columns.max(WIDTH_MIN),
            false => WIDTH_DEFAULT,
        };
        for history in &histories {
            for line in plots(history, usize::from(width)) {
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

/// The plots of a VE, one below the other.
fn plots(history: &History, width: usize) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: steps of {}",
        history.name,
        human::seconds(f64::from(history.step_seconds))
    )];
    for series in &history.series {
        lines.push(String::new());
        lines.extend(plot(history, series, width));
    }
    lines
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times in seconds are far below 2^53, widths of terminals, too"
)]
fn plot(history: &History, series: &HistorySeries, width: usize) -> Vec<String> {
    let seconds = |milliseconds: u64| milliseconds as f64 / 1_000.0;
    let span = (
        seconds(history.since.milliseconds()),
        seconds(history.until.milliseconds()),
    );
    let title = format!("{}: {}", series.metric, series.help);
    let Some(peak) = series.points.iter().map(|p| p.max).reduce(f64::max) else {
        return vec![cut(&title, width), "  (nothing in this time)".to_owned()];
    };
    let shown = |value: f64| quantity(value, &series.unit);
    let points = series
        .points
        .iter()
        .map(|point| (seconds(point.time.milliseconds()), point.mean));
    // The scale at the left takes some columns of each line.
    let label_width = shown(peak).chars().count().max(shown(0.0).chars().count());
    let plot_width = width.saturating_sub(label_width + 2).max(8);
    let columns = Columns::new(points, span, plot_width * 2);
    let per_step =
        plot_width as f64 * 2.0 * f64::from(history.step_seconds) / (span.1 - span.0).max(1.0);
    let columns = columns.hold(per_step);
    let top = columns.max().unwrap_or(0.0);
    let mean =
        series.points.iter().map(|point| point.mean).sum::<f64>() / series.points.len() as f64;
    let last = series.points.last().map_or(0.0, |point| point.mean);
    let summary = format!(
        "  peak {}, mean {}, now {}",
        shown(peak),
        shown(mean),
        shown(last)
    );
    let mut lines = vec![cut(&title, width), cut(&summary, width)];
    for (row, line) in columns.rows(ROWS, top).into_iter().enumerate() {
        let label = match row {
            0 => shown(top),
            row if row == ROWS - 1 => shown(0.0),
            _ => String::new(),
        };
        lines.push(
            format!("{label:>label_width$} |{line}")
                .trim_end()
                .to_owned(),
        );
    }
    let clock = |time| {
        let text = human::time(time);
        // The day matters when more than one is shown.
        let from = if span.1 - span.0 > 86_400.0 { 5 } else { 11 };
        text.get(from..16).unwrap_or_default().to_owned()
    };
    let (from, to) = (clock(history.since), clock(history.until));
    let gap = plot_width.saturating_sub(from.len() + to.len() + 4);
    lines.push(format!("{:label_width$}  {from}{:gap$}{to} UTC", "", ""));
    lines
}

fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

/// A value with its unit, short.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "values are not negative, and `as` saturates"
)]
fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => human::bytes(value.round() as u64),
        "bytes_per_second" => format!("{}/s", human::bytes(value.round() as u64)),
        "ratio" => format!("{:.0}%", value * 100.0),
        "cores" => format!("{value:.2}"),
        "per_second" => format!("{value:.1}/s"),
        _ => format!("{value:.0}"),
    }
}

/// What VEs used in a month: all of them, or those that are named.
pub(crate) async fn month(context: &Context, arguments: StatsArguments, month: &str) -> Outcome {
    let month = (month != "all").then_some(month);
    let targets = &arguments.targets;
    if !targets.label.is_empty() {
        return Err(
            usage("labels are of VEs that exist; a month has others, too: name them").into(),
        );
    }
    let mut accounts = context.client.accounts(month).await?;
    let named =
        |account: &Account, name: &str| account.name == name || account.id.to_string() == name;
    if !targets.names.is_empty() {
        if let Some(name) = targets
            .names
            .iter()
            .find(|name| !accounts.iter().any(|account| named(account, name)))
        {
            let error = api::latest::ApiError::new(
                api::latest::ErrorCode::NotFound,
                format!("nothing is known of what VE `{name}` used then"),
            );
            return Err(error
                .with_hint("`vessel stats --all --month all` shows everything that is kept")
                .into());
        }
        accounts.retain(|account| targets.names.iter().any(|name| named(account, name)));
    }
    if context.out.json {
        return context.out.json(&accounts);
    }
    table(&accounts)
        .lines(true)
        .iter()
        .try_for_each(|line| context.out.line(line))
}

fn table(accounts: &[Account]) -> Table {
    let right = [
        "RUNNING", "CPU", "MEM*H", "DISK*H", "READ", "WRITTEN", "RECV IN", "RECV OUT", "SENT IN",
        "SENT OUT",
    ];
    let left = ["MONTH", "NAME"].map(|name| (name, Align::Left));
    let columns = left
        .into_iter()
        .chain(right.map(|name| (name, Align::Right)));
    let mut table = Table::new(columns);
    let hours = |byte_seconds: f64| quantity(byte_seconds / 3_600.0, "bytes");
    for account in accounts {
        table.row([
            account.month.clone(),
            account.name.clone(),
            human::seconds(account.running_seconds),
            human::seconds(account.cpu_seconds),
            hours(account.memory_byte_seconds),
            hours(account.disk_byte_seconds),
            human::bytes(account.io_read_bytes),
            human::bytes(account.io_write_bytes),
            human::bytes(account.network_receive_inside_bytes),
            human::bytes(account.network_receive_outside_bytes),
            human::bytes(account.network_transmit_inside_bytes),
            human::bytes(account.network_transmit_outside_bytes),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::latest::{HistoryPoint, Timestamp};

    fn history(values: &[f64]) -> History {
        let at = |step: usize| Timestamp::from_milliseconds(u64::try_from(step).unwrap() * 10_000);
        let points = values.iter().enumerate().map(|(step, value)| HistoryPoint {
            time: at(step),
            mean: *value,
            max: value * 2.0,
        });
        History {
            id: 100,
            name: "web".to_owned(),
            step_seconds: 10,
            since: at(0),
            until: at(values.len().max(1)),
            series: vec![HistorySeries {
                metric: "memory_bytes".to_owned(),
                unit: "bytes".to_owned(),
                help: "memory".to_owned(),
                points: points.collect(),
            }],
        }
    }

    #[test]
    fn a_plot_has_a_scale_and_fits_the_terminal() {
        let values: Vec<f64> = (0..200).map(|at| f64::from(at) * 1e6).collect();
        for width in [30, 80, 200] {
            let lines = plots(&history(&values), width);
            let widest = lines.iter().map(|line| line.chars().count()).max();
            assert!(widest.unwrap() <= width, "{width}: {lines:#?}");
            let text = lines.join("\n");
            assert!(text.contains("190M |") && text.contains("0 |⣀"), "{text}");
            assert!(
                text.contains("peak 380M") && text.contains("00:33 UTC"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_time_without_anything_says_so() {
        let lines = plots(&history(&[]), 80);
        assert_eq!(lines.last().unwrap(), "  (nothing in this time)");
    }
}
