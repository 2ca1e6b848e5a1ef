//! `vessel top`.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use api::latest::Stats;
use client::Filter;
use serde::Serialize;
use tokio::signal::unix::SignalKind;
use tokio::time::{Instant, sleep_until};

use crate::Context;
use crate::arguments::{SortKey, TopArguments};
use crate::human;
use crate::output::{Outcome, Stop, unwritable};
use crate::table::{Align, Table};
use crate::terminal::{self, RawMode, Signals};

/// Signals that end the display; the terminal is restored on the way out.
const ENDS: [SignalKind; 4] = [
    SignalKind::interrupt(),
    SignalKind::terminate(),
    SignalKind::hangup(),
    SignalKind::quit(),
];

/// What a VE did between two looks. Fields are named as in [`Stats`], rates per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Row {
    id: u32,
    name: String,
    cpu_cores: f64,
    /// Of all processors together: for how long `cpu.limit` held it back.
    cpu_throttled_seconds_per_second: f64,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_limit_bytes: Option<u64>,
    processes: u64,
    disk_bytes: u64,
    io_read_bytes_per_second: f64,
    io_write_bytes_per_second: f64,
    network_receive_bytes_per_second: f64,
    network_transmit_bytes_per_second: f64,
}

pub(crate) async fn run(context: &Context, arguments: TopArguments) -> Outcome {
    let filter = Filter {
        labels: arguments.label,
        ves: arguments.names,
        ..Filter::default()
    };
    let interval = Duration::from_secs(arguments.interval.get().max(1));
    if context.out.on_terminal
        && !context.out.json
        && !arguments.once
        && let Some(raw) = RawMode::enter()
    {
        let screen = Screen::open();
        let ended = live(context, &filter, interval, arguments.sort).await;
        drop(screen);
        drop(raw);
        return ended;
    }
    let before = context.client.stats_of(&filter).await?;
    tokio::time::sleep(interval).await;
    let after = context.client.stats_of(&filter).await?;
    let mut rows = rows(&before, &after);
    sort(&mut rows, arguments.sort);
    if context.out.json {
        return context.out.json(&rows);
    }
    table(&rows)
        .lines(true)
        .iter()
        .try_for_each(|line| context.out.line(line))
}

/// The other screen of a terminal, with the cursor hidden, until this is dropped.
struct Screen;

impl Screen {
    fn open() -> Self {
        // A terminal that cannot be written shows in the first table.
        let _ = std::io::stdout().lock().write_all(b"\x1b[?1049h\x1b[?25l");
        Self
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = out.flush();
    }
}

async fn live(context: &Context, filter: &Filter, interval: Duration, by: SortKey) -> Outcome {
    let mut keys = terminal::input();
    let mut ends = Signals::new(&ENDS)?;
    let mut by = by;
    let mut before = context.client.stats_of(filter).await?;
    let mut after = before.clone();
    // The first table comes soon; what it shows is of a short while only.
    let mut next = Instant::now() + interval.min(Duration::from_millis(300));
    loop {
        draw(&before, &after, by, filter)?;
        tokio::select! {
            () = sleep_until(next) => {
                let now = context.client.stats_of(filter).await?;
                before = std::mem::replace(&mut after, now);
                next = Instant::now() + interval;
            }
            pressed = keys.recv() => match press(pressed.as_deref(), by) {
                Some(sort) => by = sort,
                None => return Ok(()),
            },
            number = ends.next() => return Err(Stop::Said(number.saturating_add(128))),
        }
    }
}

/// What to sort by after these keys; nothing to end.
fn press(keys: Option<&[u8]>, by: SortKey) -> Option<SortKey> {
    const CTRL_C: u8 = 3;
    keys?.iter().try_fold(by, |by, key| match key {
        b'q' | b'Q' | &CTRL_C => None,
        b'c' => Some(SortKey::Cpu),
        b'm' => Some(SortKey::Memory),
        b'p' => Some(SortKey::Processes),
        b'i' => Some(SortKey::Io),
        b'n' => Some(SortKey::Network),
        b'a' => Some(SortKey::Name),
        _ => Some(by),
    })
}

fn draw(before: &[Stats], after: &[Stats], by: SortKey, filter: &Filter) -> Outcome {
    let mut rows = rows(before, after);
    sort(&mut rows, by);
    let size = terminal::size();
    let cpu: f64 = rows.iter().map(|row| row.cpu_cores).sum();
    let memory: u64 = rows.iter().map(|row| row.memory_bytes).sum();
    let what = if *filter == Filter::default() {
        "VEs"
    } else {
        "chosen VEs"
    };
    let head = format!(
        "{} {what} run: CPU {:.0}%, memory {}; c m p i n a sort, q quits",
        rows.len(),
        cpu * 100.0,
        human::bytes(memory)
    );
    let lines = std::iter::once(head).chain(std::iter::once(String::new()));
    let lines = lines
        .chain(table(&rows).lines(true))
        .take(usize::from(size.rows));
    let mut screen = String::from("\x1b[H");
    for (index, line) in lines.enumerate() {
        if index > 0 {
            screen.push_str("\r\n");
        }
        let cut: String = line.chars().take(usize::from(size.columns)).collect();
        screen.push_str(&cut);
        screen.push_str("\x1b[K");
    }
    screen.push_str("\x1b[J");
    let mut out = std::io::stdout().lock();
    out.write_all(screen.as_bytes())
        .and_then(|()| out.flush())
        .map_err(unwritable)
}

/// What happened between two looks, of VEs that have processes. One that was not there before has no rates yet.
fn rows(before: &[Stats], after: &[Stats]) -> Vec<Row> {
    let earlier: HashMap<u32, &Stats> = before.iter().map(|stats| (stats.id, stats)).collect();
    let running = after.iter().filter(|stats| stats.memory_bytes.is_some());
    running
        .map(|now| {
            let then = earlier.get(&now.id).copied();
            // A float of milliseconds since 1970 is exact to far below one.
            let seconds = then.map_or(0, |then| {
                now.sampled
                    .milliseconds()
                    .saturating_sub(then.sampled.milliseconds())
            });
            let seconds = Duration::from_millis(seconds).as_secs_f64();
            let rate = |now: Option<f64>, then: Option<f64>| match (now, then) {
                // Counters begin anew with each start.
                (Some(now), Some(then)) if seconds > 0.0 && now >= then => (now - then) / seconds,
                _ => 0.0,
            };
            let counter = |pick: fn(&Stats) -> Option<u64>| {
                rate(pick(now).map(float), then.and_then(pick).map(float))
            };
            Row {
                id: now.id,
                name: now.name.clone(),
                cpu_cores: rate(now.cpu_seconds, then.and_then(|then| then.cpu_seconds)),
                cpu_throttled_seconds_per_second: rate(
                    now.cpu_throttled_seconds,
                    then.and_then(|then| then.cpu_throttled_seconds),
                ),
                memory_bytes: now.memory_bytes.unwrap_or(0),
                memory_limit_bytes: now.memory_limit_bytes,
                processes: now.processes.unwrap_or(0),
                disk_bytes: now.disk_bytes.unwrap_or(0),
                io_read_bytes_per_second: counter(|stats| stats.io_read_bytes),
                io_write_bytes_per_second: counter(|stats| stats.io_write_bytes),
                network_receive_bytes_per_second: counter(|stats| stats.network_receive_bytes),
                network_transmit_bytes_per_second: counter(|stats| stats.network_transmit_bytes),
            }
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no 54th bit")]
fn float(counter: u64) -> f64 {
    counter as f64
}

fn sort(rows: &mut [Row], by: SortKey) {
    let io = |row: &Row| row.io_read_bytes_per_second + row.io_write_bytes_per_second;
    let network =
        |row: &Row| row.network_receive_bytes_per_second + row.network_transmit_bytes_per_second;
    match by {
        SortKey::Cpu => rows.sort_by(|a, b| b.cpu_cores.total_cmp(&a.cpu_cores)),
        SortKey::Memory => rows.sort_by_key(|row| std::cmp::Reverse(row.memory_bytes)),
        SortKey::Processes => rows.sort_by_key(|row| std::cmp::Reverse(row.processes)),
        SortKey::Io => rows.sort_by(|a, b| io(b).total_cmp(&io(a))),
        SortKey::Network => rows.sort_by(|a, b| network(b).total_cmp(&network(a))),
        SortKey::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
    }
}

fn table(rows: &[Row]) -> Table {
    let right = [
        "CPU%", "HELD%", "MEM", "LIMIT", "PROCS", "DISK", "READ/s", "WRIT/s", "RECV/s", "SENT/s",
    ];
    let columns = std::iter::once(("NAME", Align::Left));
    let mut table = Table::new(columns.chain(right.map(|name| (name, Align::Right))));
    for row in rows {
        let limit = row.memory_limit_bytes.map(human::bytes).unwrap_or_default();
        table.row([
            row.name.clone(),
            format!("{:.1}", row.cpu_cores * 100.0),
            format!("{:.1}", row.cpu_throttled_seconds_per_second * 100.0),
            human::bytes(row.memory_bytes),
            limit,
            row.processes.to_string(),
            human::bytes(row.disk_bytes),
            rate(row.io_read_bytes_per_second),
            rate(row.io_write_bytes_per_second),
            rate(row.network_receive_bytes_per_second),
            rate(row.network_transmit_bytes_per_second),
        ]);
    }
    table
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are not negative, and `as` saturates"
)]
fn rate(bytes_per_second: f64) -> String {
    human::bytes(bytes_per_second.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::latest::{Timestamp, VeState};

    fn stats(id: u32, at_ms: u64, cpu: f64, received: u64) -> Stats {
        serde_json::from_value(serde_json::json!({
            "id": id, "name": format!("ve-{id}"), "state": VeState::Running,
            "sampled": Timestamp::from_milliseconds(at_ms), "cpu_seconds": cpu,
            "memory_bytes": 1 << 20, "network_receive_bytes": received,
        }))
        .unwrap()
    }

    #[test]
    fn rates_are_of_what_happened_between_two_looks() {
        let before = [stats(100, 1_000, 1.0, 500), stats(101, 1_000, 9.0, 900)];
        let after = [
            stats(100, 3_000, 2.0, 2_500),
            stats(101, 3_000, 0.5, 10),
            stats(102, 3_000, 7.0, 7),
        ];
        let rows = rows(&before, &after);
        assert_eq!(
            (rows[0].cpu_cores, rows[0].network_receive_bytes_per_second),
            (0.5, 1_000.0)
        );
        // Restarted meanwhile, and new: no rate rather than a wrong one.
        assert_eq!((rows[1].cpu_cores, rows[2].cpu_cores), (0.0, 0.0));
    }
}
