//! Dying managers: VEs live on, work that was cut off is finished or undone, nothing is lost.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Node, tests, tree, until};

const PATIENCE: Duration = Duration::from_secs(20);

tests! {
    Node [] =>
        a_killed_daemon_takes_no_ve_with_it,
        a_stopped_daemon_takes_no_ve_with_it,
        a_killed_launcher_takes_no_ve_with_it,
        what_ended_while_the_daemon_was_dead_is_noticed,
        a_reboot_while_the_daemon_was_dead_happens,
        a_crash_in_the_middle_of_creating_loses_nothing,
        a_crash_in_the_middle_of_deleting_loses_nothing,
        a_crash_in_the_middle_of_an_import_leaves_a_whole_store,
        limits_set_before_a_crash_are_kept,
        a_second_daemon_on_one_root_is_refused;
}

fn a_killed_daemon_takes_no_ve_with_it(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["create", "off", "--template", "tiny"])?;
    let (pid, address) = (node.init_pid("web")?, node.v4("web")?);
    for _ in 0..3 {
        node.kill_daemon()?;
        node.expect_page(&address, "web")?;
        let unreachable = node.vessel(&["list"])?;
        ensure!(
            unreachable.code == 8 && unreachable.stderr.contains("vesseld"),
            "{unreachable}"
        );
        node.start_daemon()?;
        ensure!(node.state("web")? == "running" && node.init_pid("web")? == pid);
        ensure!(node.state("off")? == "stopped");
        ensure!(node.sh("web", "hostname")? == "web");
    }
    // Everything that a VE can be asked for still works.
    node.ok(&["set", "web", "memory.limit=80M"])?;
    node.ok(&["pause", "web"])?;
    node.ok(&["resume", "web"])?;
    ensure!(node.ok(&["logs", "web"])?.contains("init has begun"));
    node.ok(&["stop", "web"])?;
    node.ok(&["start", "web", "off"])?;
    node.expect_page(&address, "web")
}

fn a_stopped_daemon_takes_no_ve_with_it(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let pid = node.init_pid("web")?;
    node.stop_daemon()?;
    node.expect_page(&node_address(node)?, "web")?;
    node.start_daemon()?;
    ensure!(node.init_pid("web")? == pid);
    Ok(())
}

/// The first address of the node's range that a VE answers on, found without the daemon.
fn node_address(node: &Node) -> Result<String> {
    let routes = node.inside(&["ip", "-4", "route"])?.success()?;
    let line = routes
        .lines()
        .find(|line| line.contains(" dev ve"))
        .context("no route to a VE")?;
    Ok(line.split([' ', '/']).next().unwrap_or_default().to_owned())
}

fn a_killed_launcher_takes_no_ve_with_it(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let (pid, address) = (node.init_pid("web")?, node.v4("web")?);
    kill(node.launcher_pid()?)?;
    node.expect_page(&address, "web")?;
    let hostname = || node.sh("web", "hostname");
    until("commands run again", PATIENCE, hostname, |name| {
        name == "web"
    })?;
    ensure!(node.state("web")? == "running" && node.init_pid("web")? == pid);
    node.start_tiny("new")?;
    node.kill_daemon()?;
    kill(node.launcher_pid()?)?;
    node.start_daemon()?;
    ensure!(node.state("web")? == "running" && node.init_pid("web")? == pid);
    node.ok(&["stop", "web", "new"])?;
    ensure!(node.state("web")? == "stopped");
    node.ok(&["start", "web"])?;
    node.expect_page(&address, "web")
}

fn kill(pid: i32) -> Result<()> {
    kill_process(Pid::from_raw(pid).context("no process")?, Signal::KILL).context("cannot kill it")
}

fn what_ended_while_the_daemon_was_dead_is_noticed(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.start_tiny("stays")?;
    let pid = node.init_pid("web")?;
    node.sh("web", "(sleep 0.7; poweroff) > /dev/null 2>&1 &")?;
    node.kill_daemon()?;
    gone(pid)?;
    node.start_daemon()?;
    node.expect_state("web", "stopped")?;
    ensure!(node.state("stays")? == "running");
    node.ok(&["start", "web"])?;
    node.expect_state("web", "running")
}

fn a_reboot_while_the_daemon_was_dead_happens(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let pid = node.init_pid("web")?;
    node.sh("web", "(sleep 0.7; reboot) > /dev/null 2>&1 &")?;
    node.kill_daemon()?;
    gone(pid)?;
    node.start_daemon()?;
    node.expect_state("web", "running")?;
    ensure!(node.init_pid("web")? != pid);
    node.expect_page(&node.v4("web")?, "web")
}

fn gone(pid: u64) -> Result<()> {
    let folder = format!("/proc/{pid}/root");
    until(
        "its init ends",
        PATIENCE,
        || Ok(fs::read_link(&folder).is_err()),
        |gone| *gone,
    )?;
    Ok(())
}

/// VEs that the node lists, and private areas that its pool holds.
fn settled(node: &Node) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let list = node.json(&["list"])?;
    let listed = list
        .as_array()
        .context("no list")?
        .iter()
        .map(|ve| ve["id"].to_string())
        .collect();
    let folder = node.pool()?.join("private");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let stored = entries
        .flatten()
        .map(|entry| entry.file_name().display().to_string())
        .collect();
    Ok((listed, stored))
}

fn a_crash_in_the_middle_of_creating_loses_nothing(node: &mut Node) -> Result<()> {
    for (round, milliseconds) in [5, 20, 45, 90, 200].into_iter().enumerate() {
        let prefix = format!("r{round}");
        let words = [
            "create",
            &prefix,
            "--template",
            "tiny",
            "--count",
            "8",
            "--start",
        ];
        node.cut_off(&words, Duration::from_millis(milliseconds))?;
        let same = |(listed, stored): &(BTreeSet<String>, BTreeSet<String>)| listed == stored;
        until(
            "what is listed is what is stored",
            PATIENCE,
            || settled(node),
            same,
        )?;
        // What is there is whole: it starts, runs and goes.
        node.ok(&["start", "--all"])?;
        let list = node.json(&["list"])?;
        for ve in list.as_array().context("no list")? {
            let name = ve["name"].as_str().unwrap_or_default();
            ensure!(node.sh(name, "hostname")? == name);
        }
        if !list.as_array().is_some_and(Vec::is_empty) {
            node.ok(&["delete", "--all", "--force"])?;
        }
    }
    // The names are free, and so is everything else.
    node.ok(&[
        "create",
        "r0",
        "--template",
        "tiny",
        "--count",
        "8",
        "--start",
    ])?;
    Ok(())
}

fn a_crash_in_the_middle_of_deleting_loses_nothing(node: &mut Node) -> Result<()> {
    for milliseconds in [5, 30, 100] {
        node.ok(&[
            "create",
            "web",
            "--template",
            "tiny",
            "--count",
            "6",
            "--start",
        ])?;
        node.cut_off(
            &["delete", "--all", "--force"],
            Duration::from_millis(milliseconds),
        )?;
        let same = |(listed, stored): &(BTreeSet<String>, BTreeSet<String>)| listed == stored;
        until(
            "what is listed is what is stored",
            PATIENCE,
            || settled(node),
            same,
        )?;
        if !settled(node)?.0.is_empty() {
            node.ok(&["delete", "--all", "--force"])?;
        }
    }
    Ok(())
}

fn a_crash_in_the_middle_of_an_import_leaves_a_whole_store(node: &mut Node) -> Result<()> {
    let archive = tree::tiny_archive()?;
    for milliseconds in [10, 60, 150] {
        let words = ["template", "import", archive.as_str(), "--name", "again"];
        node.cut_off(&words, Duration::from_millis(milliseconds))?;
        if node.vessel(&["template", "show", "again"])?.code == 0 {
            node.ok(&["template", "remove", "again"])?;
        }
        node.ok(&words)?;
        node.ok(&["create", "web", "--template", "again", "--start"])?;
        ensure!(node.sh("web", "hostname")? == "web");
        node.ok(&["delete", "--force", "web"])?;
        node.ok(&["template", "remove", "again"])?;
    }
    // The template that was whole before is whole now.
    node.start_tiny("web")
}

fn limits_set_before_a_crash_are_kept(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&[
        "set",
        "web",
        "memory.limit=72M",
        "autostart=5",
        "hostname=kept",
    ])?;
    node.kill_daemon()?;
    node.start_daemon()?;
    ensure!(node.show("web")?["limits"]["memory.limit"] == 72 << 20);
    node.ok(&["restart", "web"])?;
    node.expect_state("web", "running")?;
    ensure!(node.sh("web", "hostname")? == "kept");
    Ok(())
}

fn a_second_daemon_on_one_root_is_refused(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let mut second = Command::new(crate::harness::node::program("vesseld"));
    let output = crate::harness::command::run(second.arg("--root").arg(node.root()))?;
    ensure!(
        output.code != 0 && output.stderr.contains(&node.root().display().to_string()),
        "{output}"
    );
    ensure!(
        node.state("web")? == "running",
        "the refused daemon broke the first"
    );
    Ok(())
}
