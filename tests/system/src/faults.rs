//! Damage from outside: each ends in a clear message, and in a whole node once the cause is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, command, tests, until};

tests! {
    Node [] =>
        a_lost_registry_is_told_and_its_copy_takes_its_place,
        a_journal_cut_short_harms_no_ve,
        a_pool_that_is_gone_is_told_and_comes_back,
        a_pool_that_breaks_while_it_is_used_is_told;
}

const PATIENCE: Duration = Duration::from_secs(20);

/// What stands between backticks behind a word of a message.
fn command_of(message: &str) -> Result<&str> {
    let words = message.split('`').nth(1);
    words.with_context(|| format!("no command: {message}"))
}

/// A way to harm a file.
type Harm = fn(&Path) -> std::io::Result<()>;

/// Waits for a copy of the registry that is younger than what was done last.
fn fresh_copy(node: &mut Node) -> Result<()> {
    let copy = node.root().join("registry.copy");
    let _ = fs::remove_file(&copy);
    node.kill_daemon()?;
    node.start_daemon()?;
    until("there is a copy", PATIENCE, || Ok(copy.exists()), |is| *is)?;
    Ok(())
}

fn a_lost_registry_is_told_and_its_copy_takes_its_place(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["create", "off", "--template", "tiny"])?;
    let (pid, address) = (node.init_pid("web")?, node.v4("web")?);
    fresh_copy(node)?;
    let registry = node.root().join("registry.db");
    let damage: [(&str, Harm); 4] = [
        ("damaged", |path| {
            fs::write(path, "no registry\n".repeat(900))
        }),
        ("damaged", |path| {
            let mut bytes = fs::read(path)?;
            let half = bytes.len() / 2;
            bytes.truncate(half + 100);
            fs::write(path, bytes)
        }),
        ("empty", |path| fs::write(path, "")),
        ("gone", |path| fs::remove_file(path)),
    ];
    for (what, harm) in damage {
        // With a clean end everything is in the one file.
        node.stop_daemon()?;
        harm(&registry).context("cannot harm it")?;
        let message = node.daemon_refuses()?;
        for word in [
            what,
            &registry.display().to_string(),
            "registry.copy",
            "VEs run on",
        ] {
            ensure!(message.contains(word), "`{word}` is missing: {message}");
        }
        node.expect_page(&address, "web")?;
        // The message says what to do, and that is all there is to do.
        let mend = command_of(&message)?;
        command::run(Command::new("sh").args(["-c", mend]))?.success()?;
        node.start_daemon()?;
        ensure!(node.state("web")? == "running" && node.init_pid("web")? == pid);
        ensure!(node.state("off")? == "stopped");
        ensure!(node.sh("web", "hostname")? == "web");
    }
    node.ok(&["restart", "web"])?;
    node.ok(&["start", "off"])?;
    node.expect_page(&address, "web")
}

fn a_journal_cut_short_harms_no_ve(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.stop_daemon()?;
    let registry = node.root().join("registry.db");
    let old = fs::read(&registry)?;
    // From here on everything is in the journal only.
    node.start_daemon()?;
    node.start_tiny("new")?;
    node.sh("new", "echo mine > /root/file; sync")?;
    let (pid, id) = (node.init_pid("new")?, node.show("new")?["id"].to_string());
    let (web, address) = (node.v4("web")?, node.v4("new")?);
    node.kill_daemon()?;
    let journal = node.root().join("registry.db-wal");
    let whole = fs::read(&journal).context("there is no journal")?;
    for length in [0, 40, whole.len() / 3] {
        fs::write(&journal, &whole[..length])?;
        let message = node.daemon_refuses()?;
        for word in [format!("VE {id}"), pid.to_string(), "registry".to_owned()] {
            ensure!(message.contains(&word), "`{word}` is missing: {message}");
        }
        node.expect_page(&web, "web")?;
        node.expect_page(&address, "new")?;
    }
    // A newer one brings everything back.
    let _ = fs::remove_file(node.root().join("registry.db-shm"));
    fs::write(&journal, &whole)?;
    node.start_daemon()?;
    ensure!(node.state("new")? == "running" && node.init_pid("new")? == pid);
    ensure!(node.sh("new", "cat /root/file")? == "mine");
    // Who has none loses the VE, and nothing of what it wrote; and nobody else gets that.
    node.kill_daemon()?;
    fs::write(&registry, old)?;
    for file in ["registry.db-wal", "registry.db-shm"] {
        fs::remove_file(node.root().join(file))?;
    }
    let init = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    rustix::process::kill_process(init, rustix::process::Signal::KILL)?;
    let ended = || Ok(fs::read_link(format!("/proc/{pid}/root")).is_err());
    until("its init has ended", PATIENCE, ended, |ended| *ended)?;
    node.start_daemon()?;
    ensure!(node.state("web")? == "running" && node.vessel(&["show", "new"])?.code == 3);
    node.start_tiny("other")?;
    ensure!(node.show("other")?["id"].to_string() != id);
    let area = node.pool()?.join("private").join(&id);
    let file = area.join("upper/root/file");
    ensure!(fs::read_to_string(&file).ok().as_deref() == Some("mine\n"));
    let warnings = node.json(&["pool", "show"])?["warnings"].to_string();
    ensure!(warnings.contains(&format!("private/{id}")), "{warnings}");
    let remove = warnings.split('`').nth(3).context("no command")?;
    command::run(Command::new("sh").args(["-c", remove]))?.success()?;
    node.kill_daemon()?;
    node.start_daemon()?;
    let warnings = node.json(&["pool", "show"])?["warnings"].to_string();
    ensure!(
        !area.exists() && !warnings.contains(&format!("private/{id}")),
        "{warnings}"
    );
    node.expect_page(&web, "web")
}

fn image(node: &Node) -> PathBuf {
    node.root().join("pool.img")
}

fn a_pool_that_is_gone_is_told_and_comes_back(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.sh("web", "echo kept > /root/file; sync")?;
    // One that is in use cannot be taken away: the kernel waits for its end.
    let device = node.pool_device()?;
    command::run(Command::new("losetup").args(["--detach", &device]))?.success()?;
    node.sh("web", "echo more >> /root/file; sync")?;
    node.ok(&["restart", "web"])?;
    // With the last process it goes, and is there again with the node.
    node.ok(&["stop", "web"])?;
    node.cut_power()?;
    node.ok(&["start", "web"])?;
    ensure!(node.sh("web", "cat /root/file")? == "kept\nmore");
    node.ok(&["stop", "web"])?;
    // Its file is gone.
    node.stop_daemon()?;
    node.end_all()?;
    let (image, aside) = (image(node), node.folder().join("aside"));
    fs::rename(&image, &aside)?;
    let message = node.daemon_refuses()?;
    ensure!(message.contains(&image.display().to_string()), "{message}");
    ensure!(!image.exists(), "an empty pool was made in its place");
    // Or is something else.
    fs::write(&image, vec![7; 4 << 20])?;
    let message = node.daemon_refuses()?;
    ensure!(message.contains(&image.display().to_string()), "{message}");
    ensure!(fs::read(&image)? == vec![7; 4 << 20], "it was written to");
    fs::rename(&aside, &image)?;
    node.start_daemon()?;
    node.ok(&["start", "web"])?;
    ensure!(node.sh("web", "cat /root/file")? == "kept\nmore");
    node.expect_page(&node.v4("web")?, "web")
}

fn a_pool_that_breaks_while_it_is_used_is_told(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    node.ok(&["create", "off", "--template", "tiny"])?;
    node.sh("web", "echo kept > /root/file; sync")?;
    node.ok(&["stop", "web"])?;
    node.stop_daemon()?;
    node.end_all()?;
    let (image, copy) = (image(node), node.folder().join("copy"));
    let mut cp = Command::new("cp");
    command::run(cp.args(["--sparse=always"]).arg(&image).arg(&copy))?.success()?;
    node.start_daemon()?;
    node.ok(&["start", "web"])?;
    // The disk under it fails.
    fs::File::options()
        .write(true)
        .open(&image)?
        .set_len(1 << 20)?;
    let device = node.pool_device()?;
    command::run(Command::new("losetup").args(["--set-capacity", &device]))?.success()?;
    let _ = node.vessel(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "echo lost > /root/lost; sync",
    ])?;
    let health = || node.json(&["pool", "show"]);
    let shown = until("it is told", PATIENCE * 2, health, |shown| {
        shown["healthy"] == false
    })?;
    ensure!(shown["warnings"] != serde_json::json!([]), "{shown}");
    for arguments in [
        &["create", "new", "--template", "tiny"][..],
        &["suspend", "web"],
    ] {
        let output = node.vessel(arguments)?;
        ensure!([1, 6].contains(&output.code), "{output}");
        ensure!(output.stderr.starts_with("error: "), "{output}");
    }
    // The daemon lives, says what is wrong, and stops what runs.
    ensure!(node.state("web")? == "running" && node.state("off")? == "stopped");
    node.ok(&["stop", "--kill", "web"])?;
    node.stop_daemon()?;
    node.end_all()?;
    fs::rename(&copy, &image)?;
    node.start_daemon()?;
    node.ok(&["start", "web", "off"])?;
    ensure!(node.sh("web", "cat /root/file")? == "kept");
    node.expect_page(&node.v4("web")?, "web")?;
    ensure!(node.json(&["pool", "show"])?["healthy"] == true);
    ensure!(
        node.json(&["list"])?
            .as_array()
            .is_some_and(|all| all.len() == 2)
    );
    Ok(())
}
