//! From creation to deletion: what each verb does to a VE, and what the VE does to itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Node, slowness, tests, tree, until};

const MINUTE: Duration = Duration::from_secs(60);

tests! {
    Node [] =>
        a_ve_is_created_started_stopped_and_deleted,
        a_stop_lets_init_finish_and_a_kill_does_not,
        a_stop_kills_an_init_that_does_not_listen,
        a_restart_gives_a_new_init_and_keeps_the_files,
        a_pause_freezes_every_process_until_resume,
        a_paused_ve_can_be_stopped,
        reboot_inside_starts_it_again,
        poweroff_inside_stops_it,
        an_init_that_ends_leaves_a_stopped_ve,
        an_init_that_cannot_run_is_named_at_once,
        deletion_refuses_what_runs_and_what_is_protected,
        autostart_follows_the_order,
        a_name_inside_is_the_ves_own,
        list_selects_and_tells_scripts_numbers,
        nothing_is_left_of_a_deleted_ve;
}

fn a_ve_is_created_started_stopped_and_deleted(node: &mut Node) -> Result<()> {
    node.ok(&["create", "web", "--template", "tiny"])?;
    let shown = node.show("web")?;
    ensure!(
        shown["state"] == "stopped" && shown["template"] == "tiny",
        "{shown}"
    );
    ensure!(shown["id"] == u64::from(node.first_id()), "{shown}");
    node.ok(&["start", "web"])?;
    node.expect_state("web", "running")?;
    let pid = node.init_pid("web")?;
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    ensure!(line.contains("init"), "init is {line}");
    // Its uid on this machine is the first of its own range.
    let shown = node.show("web")?;
    ensure!(
        shown["uid_base"] == u64::from(node.first_id()) * 65_536,
        "{shown}"
    );
    node.ok(&["stop", "web"])?;
    ensure!(node.state("web")? == "stopped");
    node.ok(&["delete", "web"])?;
    ensure!(node.vessel(&["show", "web"])?.code == 3);
    ensure!(node.json(&["list"])?.as_array().is_some_and(Vec::is_empty));
    Ok(())
}

fn a_stop_lets_init_finish_and_a_kill_does_not(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["stop", "web"])?;
    node.ok(&["start", "web"])?;
    ensure!(node.sh("web", "cat /var/ends")? == "ended");
    node.ok(&["stop", "--kill", "web"])?;
    ensure!(node.state("web")? == "stopped");
    node.ok(&["start", "web"])?;
    ensure!(
        node.sh("web", "cat /var/ends")? == "ended",
        "a killed init ran its last script"
    );
    Ok(())
}

fn a_stop_kills_an_init_that_does_not_listen(node: &mut Node) -> Result<()> {
    let folder = node.folder().join("deaf");
    fs::create_dir(&folder)?;
    tree::write(&folder)?;
    fs::remove_file(folder.join("sbin/init"))?;
    // As process 1 it is sent no signal that it has no handler for.
    fs::write(
        folder.join("sbin/init"),
        "#!/bin/sh\nwhile :; do sleep 1; done\n",
    )?;
    fs::set_permissions(folder.join("sbin/init"), fs::Permissions::from_mode(0o755))?;
    node.ok(&[
        "template",
        "import",
        &folder.display().to_string(),
        "--name",
        "deaf",
    ])?;
    node.ok(&["create", "web", "--template", "deaf", "--start"])?;
    let begun = Instant::now();
    node.ok(&["stop", "web", "--timeout", "1s"])?;
    let took = begun.elapsed();
    ensure!(node.state("web")? == "stopped");
    ensure!(
        (Duration::from_millis(900)..Duration::from_secs(6) * slowness()).contains(&took),
        "took {took:?}"
    );
    Ok(())
}

fn a_restart_gives_a_new_init_and_keeps_the_files(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.sh(
        "web",
        "echo kept > /root/file; echo gone > /run/file; rm /etc/os-release",
    )?;
    let before = node.init_pid("web")?;
    node.ok(&["restart", "web"])?;
    node.expect_state("web", "running")?;
    ensure!(node.init_pid("web")? != before);
    ensure!(node.sh("web", "cat /root/file")? == "kept");
    ensure!(
        node.sh("web", "cat /run/file 2>/dev/null || echo none")? == "none",
        "/run survived"
    );
    ensure!(
        node.sh("web", "ls /etc/os-release 2>/dev/null || echo none")? == "none",
        "a deletion was undone"
    );
    Ok(())
}

fn a_pause_freezes_every_process_until_resume(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.sh(
        "web",
        "(i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.02; done) >/dev/null 2>&1 &",
    )?;
    let pid = node.init_pid("web")?;
    let count = || {
        Ok(fs::read_to_string(format!("/proc/{pid}/root/tmp/n"))?
            .trim()
            .to_owned())
    };
    until("it counts", MINUTE, count, |n| !n.is_empty())?;
    node.ok(&["pause", "web"])?;
    ensure!(node.state("web")? == "paused");
    let first = count()?;
    std::thread::sleep(Duration::from_millis(200));
    ensure!(count()? == first, "a paused VE counted on");
    node.ok(&["resume", "web"])?;
    ensure!(node.state("web")? == "running");
    until("it counts on", MINUTE, count, |n| {
        !n.is_empty() && *n != first
    })?;
    Ok(())
}

fn a_paused_ve_can_be_stopped(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["pause", "web"])?;
    node.ok(&["stop", "web"])?;
    ensure!(node.state("web")? == "stopped");
    node.ok(&["start", "web"])?;
    node.expect_state("web", "running")
}

fn reboot_inside_starts_it_again(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let before = node.init_pid("web")?;
    node.sh("web", "echo kept > /root/file; reboot")?;
    let pid = || Ok(node.show("web")?["pid"].as_u64());
    until("it has a new init", MINUTE, pid, |pid| {
        pid.is_some_and(|pid| pid != before)
    })?;
    node.expect_state("web", "running")?;
    ensure!(node.sh("web", "cat /root/file /var/ends")? == "kept\nended");
    node.expect_page(&node.v4("web")?, "web")
}

fn poweroff_inside_stops_it(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.sh("web", "poweroff")?;
    node.expect_state("web", "stopped")?;
    ensure!(node.show("web")?["pid"].is_null());
    node.ok(&["start", "web"])?;
    ensure!(node.sh("web", "cat /var/ends")? == "ended");
    Ok(())
}

fn an_init_that_ends_leaves_a_stopped_ve(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let pid = Pid::from_raw(i32::try_from(node.init_pid("web")?)?).context("no pid")?;
    kill_process(pid, Signal::KILL)?;
    node.expect_state("web", "stopped")?;
    node.ok(&["start", "web"])?;
    node.expect_state("web", "running")
}

fn an_init_that_cannot_run_is_named_at_once(node: &mut Node) -> Result<()> {
    let folder = node.folder().join("headless");
    fs::create_dir(&folder)?;
    tree::write(&folder)?;
    fs::remove_file(folder.join("sbin/init"))?;
    fs::write(folder.join("sbin/init"), "neither a program nor a script")?;
    fs::set_permissions(folder.join("sbin/init"), fs::Permissions::from_mode(0o755))?;
    let source = folder.display().to_string();
    let imported = node.vessel(&["template", "import", &source, "--name", "headless"])?;
    if imported.code != 0 {
        ensure!(imported.stderr.contains("init"), "{imported}");
        return Ok(());
    }
    let begun = Instant::now();
    let output = node.vessel(&["create", "web", "--template", "headless", "--start"])?;
    ensure!(
        output.code == 1 && output.stderr.contains("/sbin/init"),
        "{output}"
    );
    ensure!(
        begun.elapsed() < Duration::from_secs(5) * slowness(),
        "took {:?}",
        begun.elapsed()
    );
    ensure!(node.state("web")? == "stopped");
    node.ok(&["delete", "web"])?;
    Ok(())
}

fn deletion_refuses_what_runs_and_what_is_protected(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let refused = node.vessel(&["delete", "web"])?;
    ensure!(
        refused.code == 5 && refused.stderr.contains("stop"),
        "{refused}"
    );
    node.ok(&["set", "web", "protected=yes"])?;
    let refused = node.vessel(&["delete", "--force", "web"])?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("protected"),
        "{refused}"
    );
    ensure!(node.state("web")? == "running");
    node.ok(&["set", "web", "protected=no"])?;
    node.ok(&["delete", "--force", "web"])?;
    ensure!(node.vessel(&["show", "web"])?.code == 3);
    Ok(())
}

fn autostart_follows_the_order(node: &mut Node) -> Result<()> {
    for (name, order) in [
        ("last", "30"),
        ("first", "10"),
        ("off", "no"),
        ("middle", "20"),
    ] {
        let setting = format!("autostart={order}");
        node.ok(&["create", name, "--template", "tiny", "--set", &setting])?;
    }
    // A machine after its own reboot: neither of the two programs runs.
    let launcher = Pid::from_raw(node.launcher_pid()?).context("no launcher")?;
    node.stop_daemon()?;
    kill_process(launcher, Signal::KILL)?;
    node.start_daemon()?;
    for name in ["first", "middle", "last"] {
        node.expect_state(name, "running")?;
    }
    ensure!(node.state("off")? == "stopped");
    let mut begun = Vec::new();
    for name in ["first", "middle", "last"] {
        let stat = fs::read_to_string(format!("/proc/{}/stat", node.init_pid(name)?))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        // Field 22 of proc_pid_stat(5), the 20th after the name: ticks since boot.
        begun.push(fields.get(19).unwrap_or(&"").parse::<u64>()?);
    }
    ensure!(begun.is_sorted(), "started at {begun:?}");
    Ok(())
}

fn a_name_inside_is_the_ves_own(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    ensure!(node.sh("web", "hostname")? == "web");
    node.ok(&["set", "web", "hostname=www.example.org"])?;
    node.ok(&["restart", "web"])?;
    node.expect_state("web", "running")?;
    ensure!(node.sh("web", "hostname")? == "www.example.org");
    ensure!(fs::read_to_string("/proc/sys/kernel/hostname")?.trim() != "www.example.org");
    Ok(())
}

fn list_selects_and_tells_scripts_numbers(node: &mut Node) -> Result<()> {
    node.ok(&[
        "create",
        "one",
        "--template",
        "tiny",
        "--label",
        "team=a",
        "--set",
        "memory.limit=64M",
    ])?;
    node.ok(&["create", "two", "--template", "tiny", "--label", "team=b"])?;
    let table = node.ok(&["list"])?;
    ensure!(table.contains("one") && table.contains("two"), "{table}");
    let selected = node.json(&["list", "--label", "team=b"])?;
    ensure!(
        selected.as_array().is_some_and(|list| list.len() == 1),
        "{selected}"
    );
    ensure!(
        selected[0]["name"] == "two" && selected[0]["labels"]["team"] == "b",
        "{selected}"
    );
    let one = node.show("one")?;
    ensure!(one["limits"]["memory.limit"] == 64 << 20, "{one}");
    for field in [
        "id",
        "name",
        "state",
        "template",
        "addresses",
        "labels",
        "created",
        "limits",
    ] {
        ensure!(!one[field].is_null(), "`{field}` is missing: {one}");
    }
    // A number names it as well as a name does.
    let number = one["id"].to_string();
    ensure!(node.show(&number)?["name"] == "one");
    Ok(())
}

fn nothing_is_left_of_a_deleted_ve(node: &mut Node) -> Result<()> {
    // What stays after the first VE ever is the node's own.
    node.start_tiny("first")?;
    node.ok(&["delete", "--force", "first"])?;
    let before = everything(node)?;
    for _ in 0..3 {
        node.start_tiny("web")?;
        node.sh("web", "echo x > /root/x")?;
        node.ok(&["stop", "web"])?;
        node.ok(&["delete", "web"])?;
    }
    let same = |now: &BTreeSet<String>| now.is_subset(&before);
    let left = until(
        "nothing is left",
        Duration::from_secs(10),
        || everything(node),
        same,
    );
    if let Err(error) = left {
        let now = everything(node)?;
        let differences: Vec<&String> = now.symmetric_difference(&before).collect();
        return Err(error.context(format!("before and after: {differences:#?}")));
    }
    Ok(())
}

/// Everything of the node that a VE could leave behind.
fn everything(node: &Node) -> Result<BTreeSet<String>> {
    let mut all: BTreeSet<String> = node.network()?.lines().map(str::to_owned).collect();
    for (who, pid) in [
        ("daemon", node.daemon_pid()?),
        ("launcher", node.launcher_pid()?),
    ] {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        // Rounded, because a daemon may open one for a moment.
        all.insert(format!(
            "{who} has about {} descriptors",
            descriptors / 8 * 8
        ));
        let root = node.root().display().to_string();
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        let own = mounts.lines().filter(|line| line.contains(&root));
        all.insert(format!("{who} sees {} mounts of the node", own.count()));
    }
    for folder in [
        node.pool()?.join("private"),
        node.root().join("run"),
        node.root().join("log"),
    ] {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            all.insert(format!(
                "{}/{}",
                folder.display(),
                entry.file_name().display()
            ));
        }
    }
    all.extend(node.control_groups());
    Ok(all)
}
