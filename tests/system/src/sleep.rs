//! VEs on disk: that they wake as they were, and what may be done to them meanwhile.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, Output, tests, until};

tests! {
    Node [] =>
        a_suspended_ve_is_on_disk_and_nowhere_else,
        who_sits_at_the_console_is_in_the_way,
        a_ve_wakes_as_it_was_and_sleeps_again,
        a_sleeper_outlives_every_daemon,
        a_sleeper_outlives_its_machine,
        a_sleeper_outlives_the_shutdown_of_its_node,
        a_sleeper_is_dropped_or_deleted,
        settings_change_while_it_sleeps,
        whoever_was_entered_is_in_the_way,
        an_address_that_was_taken_meanwhile_leaves_it_asleep,
        a_pool_without_room_leaves_it_running,
        a_suspend_is_followed_and_cancelled;
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Lets a VE count in a file, with a process that nobody but its init knows.
fn count_on(node: &Node, name: &str) -> Result<()> {
    let count =
        "(i=0; while :; do i=$((i+1)); echo $i > /run/n; sleep 0.02; done) > /dev/null 2>&1 &";
    node.sh(name, count)?;
    expect_count(node, name, 1).map(drop)
}

/// Waits until a VE has counted so far; it must not have begun anew.
fn expect_count(node: &Node, name: &str, least: u64) -> Result<u64> {
    let count = || Ok(node.sh(name, "cat /run/n")?.parse().unwrap_or(0));
    let seen = until("it counts on", PATIENCE, count, |n| *n >= least)?;
    ensure!(seen < least + 10_000, "it counts elsewhere: {seen}");
    Ok(seen)
}

fn refused(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    ensure!(output.code == code, "expected exit code {code}: {output}");
    for word in words {
        ensure!(
            output.stderr.contains(word),
            "`{word}` is missing: {output}"
        );
    }
    ensure!(output.stderr.contains("hint:"), "no next step: {output}");
    Ok(())
}

fn checkpoints(node: &Node) -> Result<PathBuf> {
    Ok(node.pool()?.join("checkpoints"))
}

/// Names of what lies on disk of sleepers.
fn on_disk(node: &Node) -> Result<Vec<String>> {
    let entries = fs::read_dir(checkpoints(node)?).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.map(|name| name.display().to_string()).collect())
}

fn a_suspended_ve_is_on_disk_and_nowhere_else(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let (pid, id) = (node.init_pid("web")?, node.show("web")?["id"].to_string());
    let address = node.v4("web")?;
    ensure!(node.ok(&["suspend", "web"])? == "web checkpointed\n");
    let shown = node.show("web")?;
    ensure!(
        shown["state"] == "checkpointed" && shown["pid"].is_null(),
        "{shown}"
    );
    ensure!(node.ok(&["list"])?.contains("checkpointed"));
    let listed = node.json(&["list", "--state", "checkpointed"])?;
    ensure!(listed[0]["name"] == "web" && listed[0]["addresses"][0].is_string());
    // Its memory is free, its processes are gone, its groups and its link with them.
    ensure!(!PathBuf::from(format!("/proc/{pid}/root")).exists());
    let groups = node.control_groups();
    ensure!(
        !groups
            .iter()
            .any(|group| group.ends_with(&format!("/{id}"))),
        "{groups:?}"
    );
    ensure!(!node.network()?.contains(&format!("ve{id}")));
    ensure!(on_disk(node)? == [id.as_str()]);
    // Its address and its name stay its own, and so does its template.
    let setting = format!("address={address}");
    let taken = ["create", "new", "--template", "tiny", "--set", &setting];
    refused(&node.vessel(&taken)?, 4, &[&address])?;
    refused(&node.vessel(&["template", "remove", "tiny"])?, 4, &["web"])?;
    // Whatever needs its processes is refused, and says what would help.
    for verb in ["start", "stop", "restart", "pause", "suspend"] {
        let output = node.vessel(&[verb, "web"])?;
        refused(&output, 5, &["checkpointed", "vessel resume"]).with_context(|| verb.to_owned())?;
    }
    for arguments in [
        &["exec", "web", "--", "true"][..],
        &["cp", "web:/etc/hosts", "/dev/null"],
    ] {
        let output = node.vessel(arguments)?;
        let code = if arguments[0] == "exec" { 125 } else { 5 };
        ensure!(output.stderr.contains("vessel resume"), "{output}");
        ensure!([code, 5].contains(&output.code), "{output}");
    }
    // Whoever means all that run does not mean it.
    node.start_tiny("other")?;
    ensure!(node.ok(&["stop", "--all", "--kill"])? == "other stopped\n");
    ensure!(node.ok(&["resume", "--all"])? == "web running\n");
    node.expect_page(&address, "web")
}

fn a_ve_wakes_as_it_was_and_sleeps_again(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    count_on(node, "web")?;
    node.sh("web", "echo kept > /run/memory")?;
    let processes = "ps -o pid,comm | grep -e init -e httpd | grep -v grep";
    // Its server is up, so that no process comes after the first look.
    let address = node.v4("web")?;
    node.expect_page(&address, "web")?;
    let before = node.sh("web", processes)?;
    for _ in 0..2 {
        let count = expect_count(node, "web", 1)?;
        node.ok(&["suspend", "web"])?;
        node.ok(&["resume", "web"])?;
        ensure!(node.state("web")? == "running");
        expect_count(node, "web", count + 5)?;
        let after = node.sh("web", processes)?;
        ensure!(after == before, "{before}\nbecame\n{after}");
        ensure!(node.sh("web", "cat /run/memory")? == "kept");
        node.expect_page(&address, "web")?;
        ensure!(node.reaches(&node.v6("web")?)?);
    }
    ensure!(
        on_disk(node)?.is_empty(),
        "what was woken from stays on disk"
    );
    // Its init does its work: it starts what ends, and the console talks.
    let server = "pidof httpd";
    let old = node.sh("web", server)?;
    node.sh("web", "kill $(pidof httpd)")?;
    until(
        "it has another server",
        PATIENCE,
        || node.sh("web", server),
        |new| *new != old,
    )?;
    let said = node.terminal(&["console", "web"], &["\necho sum $((40+2))\n", "\x1d"])?;
    ensure!(said.stdout.contains("sum 42"), "{said}");
    // Limits hold, it is told apart from others, and ends as every other.
    node.ok(&["set", "web", "memory.limit=64M", "processes.limit=40"])?;
    let forks = "for i in $(seq 60); do sleep 5 & done 2>&1; true";
    let output = node.vessel(&["exec", "web", "--", "sh", "-c", forks])?;
    ensure!(output.stdout.contains("fork"), "{output}");
    node.ok(&["pause", "web"])?;
    refused(&node.vessel(&["suspend", "web"])?, 5, &["paused"])?;
    node.ok(&["resume", "web"])?;
    node.ok(&["restart", "web"])?;
    node.expect_page(&address, "web")?;
    node.ok(&["stop", "web"])?;
    node.ok(&["start", "web"])?;
    ensure!(node.sh("web", "cat /var/ends")? == "ended\nended");
    Ok(())
}

fn a_sleeper_outlives_every_daemon(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    count_on(node, "web")?;
    let count = expect_count(node, "web", 1)?;
    node.ok(&["suspend", "web"])?;
    node.kill_daemon()?;
    node.start_daemon()?;
    ensure!(node.state("web")? == "checkpointed");
    node.stop_daemon()?;
    node.start_daemon()?;
    ensure!(node.state("web")? == "checkpointed");
    node.ok(&["resume", "web"])?;
    let count = expect_count(node, "web", count + 2)?;
    // A woken one, too, lives on without daemon and without launcher.
    let pid = node.init_pid("web")?;
    node.kill_daemon()?;
    node.kill_launcher()?;
    node.start_daemon()?;
    ensure!(node.state("web")? == "running" && node.init_pid("web")? == pid);
    expect_count(node, "web", count + 2)?;
    // With the launcher the console went: what holds it could not be woken, so it is not put to sleep.
    refused(
        &node.vessel(&["suspend", "web"])?,
        4,
        &["cut off", "console"],
    )?;
    node.ok(&["restart", "web"])?;
    count_on(node, "web")?;
    let count = expect_count(node, "web", 1)?;
    node.ok(&["suspend", "web"])?;
    node.kill_launcher()?;
    node.ok(&["resume", "web"])?;
    expect_count(node, "web", count + 2)?;
    Ok(())
}

fn a_sleeper_outlives_its_machine(node: &mut Node) -> Result<()> {
    for name in ["asleep", "awake"] {
        node.start_tiny(name)?;
        node.ok(&["set", name, "autostart=yes"])?;
    }
    count_on(node, "asleep")?;
    let count = expect_count(node, "asleep", 1)?;
    node.ok(&["suspend", "asleep"])?;
    node.cut_power()?;
    // Who slept sleeps on, also if it starts with the node; only a resume wakes it.
    node.expect_state("awake", "running")?;
    ensure!(node.state("asleep")? == "checkpointed");
    node.ok(&["resume", "asleep"])?;
    expect_count(node, "asleep", count + 2)?;
    node.expect_page(&node.v4("asleep")?, "asleep")?;
    // And who was woken is not woken once more.
    node.ok(&["set", "asleep", "autostart=no"])?;
    node.cut_power()?;
    ensure!(node.state("asleep")? == "stopped" && on_disk(node)?.is_empty());
    node.ok(&["start", "asleep"])?;
    node.expect_page(&node.v4("asleep")?, "asleep")
}

fn a_sleeper_outlives_the_shutdown_of_its_node(node: &mut Node) -> Result<()> {
    node.start_tiny("asleep")?;
    node.start_tiny("awake")?;
    count_on(node, "asleep")?;
    let count = expect_count(node, "asleep", 1)?;
    node.ok(&["suspend", "asleep"])?;
    node.ok(&["node", "shutdown"])?;
    node.await_daemon_end()?;
    node.start_daemon()?;
    ensure!(node.state("asleep")? == "checkpointed" && node.state("awake")? == "stopped");
    node.ok(&["resume", "asleep"])?;
    expect_count(node, "asleep", count + 2)?;
    // A node that is taken away takes its sleepers with it.
    node.ok(&["suspend", "asleep"])?;
    Ok(())
}

fn a_sleeper_is_dropped_or_deleted(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.sh(
        "web",
        "echo file > /root/file; echo memory > /run/memory; sync",
    )?;
    node.ok(&["suspend", "web"])?;
    ensure!(node.ok(&["stop", "--kill", "web"])? == "web stopped\n");
    ensure!(on_disk(node)?.is_empty() && node.state("web")? == "stopped");
    node.ok(&["start", "web"])?;
    let left = node.sh("web", "cat /root/file; cat /run/memory 2>/dev/null || true")?;
    ensure!(left == "file", "after a drop: {left}");
    node.ok(&["suspend", "web"])?;
    refused(&node.vessel(&["delete", "web"])?, 5, &["checkpointed"])?;
    node.ok(&["delete", "--force", "web"])?;
    ensure!(on_disk(node)?.is_empty() && node.vessel(&["show", "web"])?.code == 3);
    // Its number is free, and nobody wakes up as another.
    node.start_tiny("new")?;
    ensure!(node.sh("new", "hostname; cat /root/file 2>/dev/null || true")? == "new");
    Ok(())
}

fn settings_change_while_it_sleeps(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    hold(node, "web", 20 << 20)?;
    let old = node.v4("web")?;
    node.ok(&["suspend", "web"])?;
    // Its memory cannot be taken back by putting it on disk.
    let output = node.vessel(&["set", "web", "memory.limit=10M"])?;
    refused(&output, 6, &["memory.limit"])?;
    let said = node.ok(&[
        "set",
        "web",
        "memory.limit=90M",
        "address=10.99.7.7",
        "hostname=other",
    ])?;
    ensure!(said.contains("web memory.limit=90M applied"), "{said}");
    ensure!(
        said.lines()
            .any(|l| l.contains("hostname=other") && l.contains("restart")),
        "{said}"
    );
    node.ok(&["resume", "web"])?;
    let shown = node.show("web")?;
    ensure!(shown["limits"]["memory.limit"] == 90 << 20, "{shown}");
    let id = shown["id"].as_u64().context("no id")?;
    let limit = node.control(id, "memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(limit == (90 << 20).to_string(), "{limit}");
    node.expect_page("10.99.7.7", "web")?;
    ensure!(!node.reaches(&old)?, "it still answers at {old}");
    ensure!(node.sh("web", "hostname")? == "web");
    Ok(())
}

fn who_sits_at_the_console_is_in_the_way(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    // A shell with job control opens /dev/tty, and CRIU cannot make that open again for a console.
    let typed = ["\nsh -i\n", "set -o\n", "\x1d"];
    node.terminal(&["console", "web"], &typed)?;
    let output = node.vessel(&["suspend", "web"])?;
    refused(&output, 4, &["`sh`", "console"])?;
    ensure!(node.state("web")? == "running");
    node.expect_page(&node.v4("web")?, "web")?;
    node.terminal(&["console", "web"], &["exit\n", "\x1d"])?;
    node.ok(&["suspend", "web"])?;
    node.ok(&["resume", "web"])?;
    // The console is another one, and the shell at it is the same.
    let said = node.terminal(&["console", "web"], &["\necho sum $((40+2))\n", "\x1d"])?;
    ensure!(said.stdout.contains("sum 42"), "{said}");
    Ok(())
}

fn whoever_was_entered_is_in_the_way(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let mut inside = node.command(&["exec", "web", "--", "sleep", "1000"]);
    let mut inside = inside.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let found = || node.sh("web", "pidof sleep || true");
    until("a command runs", PATIENCE, found, |pids| !pids.is_empty())?;
    refused(&node.vessel(&["suspend", "web"])?, 4, &["`sleep`", "web"])?;
    ensure!(node.state("web")? == "running");
    node.expect_page(&node.v4("web")?, "web")?;
    ensure!(
        inside.try_wait()?.is_none(),
        "the refusal ended the command"
    );
    node.sh("web", "kill $(pidof sleep)")?;
    inside.wait()?;
    node.ok(&["suspend", "web"])?;
    node.ok(&["resume", "web"])?;
    node.expect_page(&node.v4("web")?, "web")
}

fn an_address_that_was_taken_meanwhile_leaves_it_asleep(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    count_on(node, "web")?;
    let count = expect_count(node, "web", 1)?;
    let address = node.v4("web")?;
    node.ok(&["suspend", "web"])?;
    node.inside(&["ip", "route", "add", &address, "dev", "lo"])?
        .success()?;
    let output = node.vessel(&["resume", "web"])?;
    ensure!(
        output.code == 1 && output.stderr.contains(&address),
        "{output}"
    );
    ensure!(output.stderr.contains("stays on disk"), "{output}");
    ensure!(node.state("web")? == "checkpointed");
    node.inside(&["ip", "route", "del", &address, "dev", "lo"])?
        .success()?;
    node.ok(&["resume", "web"])?;
    let seen = expect_count(node, "web", count + 2)?;
    ensure!(seen < count + 500, "it ran while it was refused: {seen}");
    node.expect_page(&address, "web")
}

fn a_pool_without_room_leaves_it_running(node: &mut Node) -> Result<()> {
    node.start_tiny("greedy")?;
    node.start_tiny("web")?;
    count_on(node, "web")?;
    // More than a full file system keeps back for whoever deletes.
    hold(node, "web", 600 << 20)?;
    let fill = "dd if=/dev/urandom of=/root/big bs=1M conv=fsync 2>&1; true";
    ensure!(
        node.sh("greedy", fill)?.contains("space"),
        "the pool did not fill"
    );
    let count = expect_count(node, "web", 1)?;
    let output = node.vessel(&["suspend", "web"])?;
    refused(&output, 6, &["web", "No space left"])?;
    ensure!(node.state("web")? == "running" && on_disk(node)?.is_empty());
    expect_count(node, "web", count + 2)?;
    node.expect_page(&node.v4("web")?, "web")?;
    node.sh("greedy", "rm /root/big")?;
    let suspend = || node.ok(&["suspend", "web"]);
    until("there is room again", PATIENCE, suspend, |_| true)?;
    // Waking needs no room.
    ensure!(node.sh("greedy", fill)?.contains("space"));
    node.ok(&["resume", "web"])?;
    expect_count(node, "web", count + 2)?;
    Ok(())
}

/// Lets a VE hold so many bytes of memory, with a process that nobody but its init knows.
pub(crate) fn hold(node: &Node, name: &str, bytes: u64) -> Result<()> {
    let held = format!(
        "x=$(head -c {bytes} /dev/zero | tr '\\0' x); echo > /run/held; while :; do sleep 9; done"
    );
    node.sh(name, &format!("({held}) > /dev/null 2>&1 &"))?;
    let done = || node.sh(name, "ls /run");
    until("it holds its memory", PATIENCE * 3, done, |files| {
        files.contains("held")
    })?;
    Ok(())
}

fn a_suspend_is_followed_and_cancelled(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    count_on(node, "web")?;
    hold(node, "web", 300 << 20)?;
    let count = expect_count(node, "web", 1)?;
    let mut follower = node.command(&["events", "--follow"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn()?;
    let begun = node.json(&["suspend", "--no-wait", "web"])?;
    let number = begun["operation"].to_string();
    let show = || node.json(&["operation", "show", &number]);
    let seen = until("it says how far it is", PATIENCE, show, |operation| {
        operation["progress"]["message"].is_string()
    })?;
    ensure!(seen["state"] == "running", "{seen}");
    ensure!(node.ok(&["operation", "list"])?.contains("suspend"));
    let output = node.vessel(&["exec", "web", "--", "true"])?;
    ensure!(
        output.code != 0 && output.stderr.contains("paused"),
        "{output}"
    );
    node.ok(&["operation", "cancel", &number])?;
    let ended = until("it has ended", PATIENCE, show, |operation| {
        operation["state"] != "running"
    })?;
    ensure!(ended["state"] == "cancelled", "{ended}");
    ensure!(node.state("web")? == "running" && on_disk(node)?.is_empty());
    expect_count(node, "web", count + 2)?;
    node.expect_page(&node.v4("web")?, "web")?;
    refused(
        &node.vessel(&["operation", "cancel", &number])?,
        5,
        &["ended"],
    )?;
    node.ok(&["suspend", "web"])?;
    node.ok(&["resume", "web"])?;
    expect_count(node, "web", count + 2)?;
    follower.kill()?;
    let told = String::from_utf8_lossy(&follower.wait_with_output()?.stdout).into_owned();
    for word in ["ve-suspended", "ve-resumed"] {
        ensure!(told.contains(word), "no event `{word}`: {told}");
    }
    Ok(())
}
