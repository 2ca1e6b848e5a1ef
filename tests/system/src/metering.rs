//! What VEs use: counted exactly whatever ends meanwhile, kept, plotted, and read by Prometheus.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::{Need, Node, command, tests, until};

/// Three sweeps of the meter, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_secs(60);

tests! {
    Node [] =>
        totals_of_a_month_survive_every_end,
        history_and_alarm_tell_of_a_killed_process;
    Node [Need::Packages] =>
        prometheus_own_tool_finds_nothing_wrong;
}

fn number(value: &Value) -> Result<f64> {
    value
        .as_f64()
        .with_context(|| format!("{value} is no number"))
}

/// What a VE used this month.
fn account(node: &Node, name: &str) -> Result<Value> {
    let all = node.json(&["stats", "--all", "--month", "all"])?;
    let all = all.as_array().context("no accounts")?;
    let own = all.iter().find(|account| account["name"] == name);
    own.cloned()
        .with_context(|| format!("no account of {name}"))
}

/// Works for a while in a VE; gives the processor time that it has used since its start then.
fn work(node: &Node, name: &str) -> Result<f64> {
    node.sh(name, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")?;
    number(&node.json(&["stats", name])?["cpu_seconds"])
}

fn totals_of_a_month_survive_every_end(node: &mut Node) -> Result<()> {
    const FETCHES: u64 = 5;
    const PAGE: usize = 100_000;
    node.start_tiny("reader")?;
    let begun = std::time::Instant::now();
    node.start_tiny("web")?;
    let page = format!("head -c {PAGE} /dev/zero > /srv/page");
    node.sh("web", &page)?;
    let url = format!("http://{}/page", node.v4("web")?);
    for _ in 0..FETCHES {
        node.sh("reader", &format!("wget -q -O /dev/null {url}"))?;
    }
    let first = work(node, "web")?;
    node.ok(&["restart", "web"])?;
    let second = work(node, "web")?;
    node.kill_daemon()?;
    node.start_daemon()?;
    let third = work(node, "web")?;
    ensure!(
        third > second,
        "the counter went on: {third} after {second}"
    );
    node.ok(&["delete", "web", "--force"])?;
    let lasted = begun.elapsed().as_secs_f64();
    node.kill_daemon()?;
    node.start_daemon()?;
    let told = account(node, "web")?;
    let (cpu, known) = (number(&told["cpu_seconds"])?, first + third);
    // Beside what was looked at: how it was stopped and deleted.
    ensure!(
        cpu >= known && cpu < known + 1.0,
        "{cpu} s were told, and {known} s used: {told}"
    );
    let sent = told["network_transmit_inside_bytes"].as_u64().unwrap_or(0);
    let least = FETCHES * u64::try_from(PAGE)?;
    ensure!(sent > least && sent < least * 2, "{sent} bytes: {told}");
    for direction in ["receive", "transmit"] {
        let outside = &told[format!("network_{direction}_outside_bytes")];
        ensure!(*outside == 0, "{direction}: {told}");
    }
    // From the first instruction on, and not from the first reading.
    let ran = number(&told["running_seconds"])?;
    ensure!(
        ran > lasted / 2.0 && ran < lasted,
        "{ran} s of {lasted}: {told}"
    );
    let received = account(node, "reader")?["network_receive_inside_bytes"].clone();
    ensure!(received.as_u64().unwrap_or(0) > least, "{received}");
    Ok(())
}

fn history_and_alarm_tell_of_a_killed_process(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let points = |metric: &str| -> Result<Vec<Value>> {
        let words = ["stats", "web", "--history", "--metric", metric];
        let history = node.json(&words)?;
        let points = history["series"][0]["points"].as_array();
        points.cloned().with_context(|| format!("{history}"))
    };
    until(
        "a reading",
        PATIENCE,
        || points("memory_bytes"),
        |all| !all.is_empty(),
    )?;
    node.ok(&["set", "web", "memory.limit=32M", "memory.swap=0"])?;
    // `tail` keeps everything of an endless line.
    let hog = "head -c 200000000 /dev/zero | tail -c 150000000 | wc -c";
    node.vessel(&["exec", "web", "--", "sh", "-c", hog])?;
    let counted = node.json(&["stats", "web"])?["memory_oom_kills"].clone();
    ensure!(counted.as_u64() >= Some(1), "{counted}");
    // Whoever looks in between hides nothing from the rules.
    node.ok(&["top", "--once", "--interval", "1s"])?;
    let fires = || node.json(&["alert", "list", "--all"]);
    let killed = |alerts: &Value| {
        let all = alerts.as_array().into_iter().flatten();
        all.into_iter()
            .any(|alert| alert["rule"] == "memory-killed" && alert["name"] == "web")
    };
    until("the alarm", PATIENCE, fires, killed)?;
    let killed = |all: &Vec<Value>| all.iter().any(|point| point["max"].as_f64() > Some(0.0));
    let kills = || points("oom_kills_per_second");
    until("the kill in the history", PATIENCE, kills, killed)?;
    ensure!(account(node, "web")?["memory_oom_kills"] == counted);
    let plot = node.ok(&["stats", "web", "--history", "--metric", "memory_bytes"])?;
    ensure!(plot.contains("peak") && plot.contains(" UTC"), "{plot}");
    Ok(())
}

/// Prometheus' own checker, of Debian's package. It is unpacked and not installed: a service would begin
/// with it.
fn promtool(folder: &Path) -> Result<PathBuf> {
    let mut download = Command::new("apt-get");
    download.args(["--quiet", "download", "prometheus"]);
    command::run(download.current_dir(folder))?.success()?;
    let unpack = "dpkg-deb --fsys-tarfile prometheus_*.deb | tar --extract ./usr/bin/promtool";
    let mut shell = Command::new("sh");
    command::run(shell.args(["-c", unpack]).current_dir(folder))?.success()?;
    Ok(folder.join("usr/bin/promtool"))
}

fn prometheus_own_tool_finds_nothing_wrong(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["create", "off", "--template", "tiny"])?;
    node.ok(&["set", "web", "memory.limit=64M", "processes.limit=50"])?;
    node.ok(&["alert", "rule", "set", "up", "--if", "running > 0"])?;
    let socket = node.root().join("vessel.sock").display().to_string();
    let ask = || {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--fail",
            "--unix-socket",
            &socket,
            "http://x/metrics",
        ]);
        command::run(&mut curl)?.success()
    };
    let fires = |text: &String| text.contains("vessel_alert{rule=\"up\"");
    let text = until("the alert in the metrics", PATIENCE, ask, fires)?;
    for line in [
        "vessel_ve_up{ve=\"web\"} 1",
        "vessel_ve_up{ve=\"off\"} 0",
        "vessel_node_ves{state=\"running\"} 1",
    ] {
        ensure!(text.lines().any(|own| own == line), "{line} in:\n{text}");
    }
    for family in [
        "vessel_ve_cpu_seconds_total",
        "vessel_ve_cpu_throttled_seconds_total",
        "vessel_ve_pressure_seconds_total",
        "vessel_ve_oom_kills_total",
        "vessel_ve_memory_bytes",
        "vessel_ve_disk_bytes",
        "vessel_ve_processes",
        "vessel_ve_io_write_bytes_total",
        "vessel_ve_network_receive_bytes_total",
    ] {
        let line = format!("{family}{{ve=\"web\"");
        ensure!(
            text.lines().any(|own| own.starts_with(&line)),
            "{family} in:\n{text}"
        );
    }
    let tool = promtool(&node.folder())?;
    let mut check = Command::new(tool);
    check.args(["check", "metrics"]);
    let said = command::run_with_input(&mut check, text.as_bytes())?;
    // It writes what it would name otherwise and ends with 3.
    ensure!(
        said.code == 0 && said.stdout.is_empty() && said.stderr.is_empty(),
        "{said}\n{text}"
    );
    Ok(())
}
