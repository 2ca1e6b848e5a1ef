//! What is refused, how it is said, and that it changed nothing.
//!
//! Every refusal has its documented exit code; its message names the thing, the cause and the next
//! step; and the node is afterwards as it was.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::harness::node::program;
use crate::harness::{Node, command, tests};

tests! {
    Node [] =>
        bad_names_settings_and_words_are_usage,
        what_does_not_exist_is_not_found,
        what_is_taken_is_a_conflict,
        a_wrong_state_says_which_would_be_right,
        a_limit_below_use_is_refused,
        too_much_is_no_resources,
        the_numbers_of_another_node_are_refused,
        others_than_root_are_refused;
    Daemon [] =>
        an_unprepared_node_says_so,
        bad_pools_are_refused,
        a_node_is_prepared_once,
        a_daemon_needs_root,
        no_daemon_is_unreachable,
        the_doctor_names_what_is_missing;
}

/// Everything that a refusal must not change.
fn everything(node: &Node) -> Result<BTreeSet<String>> {
    let mut all: BTreeSet<String> = node.network()?.lines().map(str::to_owned).collect();
    all.insert(node.ok(&["list", "--json"])?);
    all.insert(node.ok(&["template", "list", "--json"])?);
    for folder in ["private", "staging", "templates/catalogue"] {
        for entry in fs::read_dir(node.pool()?.join(folder))
            .into_iter()
            .flatten()
            .flatten()
        {
            all.insert(format!("{folder}/{}", entry.file_name().display()));
        }
    }
    all.extend(node.control_groups());
    Ok(all)
}

/// Runs what must be refused: with this code, with these words in the message, with a next step,
/// and without an effect.
fn refuse(node: &Node, code: i32, words: &[&str], arguments: &[&str]) -> Result<()> {
    let before = everything(node)?;
    let output = node.vessel(arguments)?;
    ensure!(output.code == code, "expected exit code {code}: {output}");
    ensure!(output.stdout.is_empty(), "a refusal wrote data: {output}");
    for word in words {
        ensure!(
            output.stderr.contains(word),
            "the message does not name `{word}`: {output}"
        );
    }
    let has_next_step = [
        "hint:",
        "--help",
        "did you mean",
        "write ",
        "possible values",
        "keys are",
        "choose ",
    ];
    ensure!(
        has_next_step
            .iter()
            .any(|next| output.stderr.contains(next)),
        "no next step: {output}"
    );
    ensure!(
        !output.stderr.contains("panicked") && !output.stderr.contains("Error("),
        "{output}"
    );
    let after = everything(node)?;
    ensure!(
        after == before,
        "something changed: {:?}",
        after.symmetric_difference(&before)
    );
    Ok(())
}

fn bad_names_settings_and_words_are_usage(node: &mut Node) -> Result<()> {
    node.ok(&["create", "web", "--template", "tiny"])?;
    for name in ["Web", "a_b", "-a", "1a", "a.b", "", "../x", &"a".repeat(64)] {
        let words: &[&str] = if name.starts_with('-') { &[] } else { &[name] };
        refuse(
            node,
            2,
            words,
            &["create", "--template", "tiny", "--", name],
        )
        .with_context(|| format!("the name `{name}`"))?;
    }
    for (setting, word) in [
        ("memory.limit=5Mbit", "5Mbit"),
        ("memory.limit=lots", "lots"),
        ("memory.limit=1", "memory.limit"),
        ("cpu.limit=-1", "-1"),
        ("cpu.limit=0", "cpu.limit"),
        ("cpu.set=9-1", "9-1"),
        ("processes.limit=0", "processes.limit"),
        ("disk.limit=5x", "5x"),
        ("memry.limit=5M", "memory.limit"),
        ("nonsense=1", "nonsense"),
        ("memory.limit", "memory.limit"),
        ("address=10.99.0.300", "10.99.0.300"),
        ("dns=here", "here"),
        ("hostname=a b", "a b"),
        ("autostart=maybe", "maybe"),
    ] {
        refuse(node, 2, &[word], &["set", "web", setting]).with_context(|| setting.to_owned())?;
        refuse(
            node,
            2,
            &[word],
            &["create", "new", "--template", "tiny", "--set", setting],
        )
        .with_context(|| setting.to_owned())?;
    }
    // One bad setting among good ones: none is taken.
    refuse(
        node,
        2,
        &["cpu.limit"],
        &["set", "web", "memory.limit=64M", "cpu.limit=zero"],
    )?;
    refuse(node, 2, &["no-such-verb"], &["no-such-verb"])?;
    refuse(node, 2, &["--no-such-flag"], &["list", "--no-such-flag"])?;
    refuse(
        node,
        2,
        &["count"],
        &["create", "new", "--template", "tiny", "--count", "0"],
    )
}

fn what_does_not_exist_is_not_found(node: &mut Node) -> Result<()> {
    refuse(
        node,
        3,
        &["no-such"],
        &["create", "web", "--template", "no-such"],
    )?;
    refuse(node, 3, &["no-such"], &["template", "remove", "no-such"])?;
    refuse(
        node,
        3,
        &["/no/such.tar"],
        &["template", "import", "/no/such.tar", "--name", "new"],
    )?;
    for verb in [
        "start", "stop", "restart", "pause", "resume", "delete", "show", "logs",
    ] {
        refuse(node, 3, &["nobody"], &[verb, "nobody"]).with_context(|| verb.to_owned())?;
    }
    refuse(node, 3, &["nobody"], &["set", "nobody", "memory.limit=64M"])?;
    refuse(node, 3, &["59999"], &["start", "59999"])
}

fn what_is_taken_is_a_conflict(node: &mut Node) -> Result<()> {
    node.ok(&[
        "create",
        "web",
        "--template",
        "tiny",
        "--set",
        "address=10.99.7.7",
    ])?;
    let owner = node.first_id().to_string();
    node.ok(&["create", "other", "--template", "tiny"])?;
    refuse(node, 4, &["web"], &["create", "web", "--template", "tiny"])?;
    refuse(
        node,
        4,
        &["10.99.7.7", &owner],
        &[
            "create",
            "new",
            "--template",
            "tiny",
            "--set",
            "address=10.99.7.7",
        ],
    )?;
    refuse(
        node,
        4,
        &["10.99.7.7", &owner],
        &["set", "other", "address=10.99.7.7"],
    )?;
    refuse(node, 4, &["tiny"], &["template", "remove", "tiny"])?;
    let archive = crate::harness::tree::tiny_archive()?;
    refuse(
        node,
        4,
        &["tiny"],
        &["template", "import", &archive, "--name", "tiny"],
    )
}

fn a_wrong_state_says_which_would_be_right(node: &mut Node) -> Result<()> {
    node.start_tiny("on")?;
    node.ok(&["create", "off", "--template", "tiny"])?;
    refuse(node, 5, &["on", "running"], &["delete", "on"])?;
    refuse(node, 5, &["off", "stopped"], &["pause", "off"])?;
    refuse(node, 5, &["on", "running"], &["resume", "on"])?;
    refuse(node, 5, &["on", "running"], &["start", "on"])?;
    refuse(node, 5, &["off", "stopped"], &["stop", "off"])
}

fn a_limit_below_use_is_refused(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    // Memory that cannot be taken back: no swap here, and a tmpfs keeps it.
    node.sh("web", "dd if=/dev/zero of=/run/kept bs=1M count=40 2>&1; dd if=/dev/urandom of=/root/big bs=1M count=40 conv=fsync 2>&1")?;
    refuse(
        node,
        6,
        &["memory.limit"],
        &["set", "web", "memory.limit=16M"],
    )?;
    refuse(node, 6, &["disk.limit"], &["set", "web", "disk.limit=20M"])?;
    let before = node.sh("web", "ls /proc | grep -c '^[0-9]'")?;
    refuse(
        node,
        6,
        &["processes.limit", "1"],
        &["set", "web", "processes.limit=1"],
    )?;
    ensure!(before.parse::<u32>()? > 1);
    ensure!(node.show("web")?["limits"]["memory.limit"].is_null());
    Ok(())
}

fn too_much_is_no_resources(node: &mut Node) -> Result<()> {
    // More VEs than the node has numbers or addresses for.
    refuse(
        node,
        6,
        &["1000000"],
        &["create", "web", "--template", "tiny", "--count", "1000000"],
    )
}

fn as_nobody(command: Command) -> Result<command::Output> {
    let mut demoted = Command::new("setpriv");
    demoted.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--",
    ]);
    demoted
        .arg(command.get_program())
        .args(command.get_args())
        .env("NO_COLOR", "1");
    command::run(&mut demoted)
}

fn others_than_root_are_refused(node: &mut Node) -> Result<()> {
    for arguments in [&["list"][..], &["create", "web", "--template", "tiny"]] {
        let output = as_nobody(node.command(arguments))?;
        ensure!(
            output.code == 7 && output.stderr.contains("root"),
            "{output}"
        );
    }
    // Nobody reads a node's records either.
    let mut cat = Command::new("cat");
    cat.arg(node.root().join("registry.db"));
    ensure!(as_nobody(cat)?.code != 0, "everybody reads the registry");
    Ok(())
}

fn an_unprepared_node_says_so(node: &mut Node) -> Result<()> {
    for arguments in [
        &["create", "web", "--template", "tiny"][..],
        &["template", "list"],
    ] {
        let output = node.vessel(arguments)?;
        ensure!(
            output.code == 5 && output.stderr.contains("vessel init"),
            "{output}"
        );
    }
    Ok(())
}

fn bad_pools_are_refused(node: &mut Node) -> Result<()> {
    let file = node.folder().join("plain");
    fs::write(&file, "no device")?;
    let file = file.display().to_string();
    let mut wrong = Vec::new();
    // What cannot be a pool is wrong usage, what the host cannot give a lack of resources.
    for (code, word, arguments) in [
        (2, "1M", &["init", "--pool-size", "1M"][..]),
        (2, "much", &["init", "--pool-size", "much"]),
        (6, "too large", &["init", "--pool-size", "900000T"]),
        (3, "/dev/no-such", &["init", "--device", "/dev/no-such"]),
        (2, &file, &["init", "--device", &file]),
        (2, "/proc", &["init", "--pool", "/proc"]),
        (2, "10.99.0.0/99", &["init", "--network", "10.99.0.0/99"]),
        (
            2,
            "--device",
            &["init", "--pool-size", "2G", "--device", "/dev/no-such"],
        ),
    ] {
        let output = node.vessel(arguments)?;
        if output.code != code || !output.stderr.contains(word) {
            wrong.push(format!("expected {code} and `{word}`: {output}"));
        }
        for left in ["pool.img", "pool.img.new", "node.toml", "registry.db"] {
            if node.root().join(left).exists() {
                wrong.push(format!("it left {left}: {output}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing of that is in the way of a good one.
    node.init()
}

fn the_numbers_of_another_node_are_refused(node: &mut Node) -> Result<()> {
    let first = node.first_id().to_string();
    let root = node.folder().join("other");
    let other = |words: &[&str]| {
        let mut vessel = Command::new(program("vessel"));
        vessel.arg("--root").arg(&root).arg("init").args(words);
        command::run(&mut vessel)
    };
    let output = other(&["--first-id", &first, "--pool-size", "2G"])?;
    ensure!(
        output.code == 4 && output.stderr.contains("--first-id"),
        "{output}"
    );
    ensure!(!root.exists(), "it left its root");
    // What is chosen for it is free.
    let output = other(&["--pool-size", "2G"])?;
    ensure!(output.code == 0, "{output}");
    let made = fs::read_to_string(root.join("node.toml"))?;
    ensure!(!made.contains(&format!("first_id = {first}\n")), "{made}");
    fs::remove_dir_all(&root)?;
    Ok(())
}

fn a_node_is_prepared_once(node: &mut Node) -> Result<()> {
    node.init()?;
    let before = node.json(&["pool", "show"])?;
    node.init()?;
    let after = node.json(&["pool", "show"])?;
    ensure!(
        before["size_bytes"] == after["size_bytes"] && before["size_bytes"] == 2_u64 << 30,
        "{after}"
    );
    let other = node.vessel(&["init", "--pool-size", "3G"])?;
    ensure!(other.code == 4 || other.code == 0, "{other}");
    ensure!(node.json(&["pool", "show"])?["size_bytes"] == before["size_bytes"]);
    let shown = node.json(&["node", "show"])?;
    ensure!(
        shown["first_id"] == node.first_id() && shown["version"].is_string(),
        "{shown}"
    );
    Ok(())
}

fn a_daemon_needs_root(node: &mut Node) -> Result<()> {
    let mut daemon = Command::new(crate::harness::node::program("vesseld"));
    daemon.arg("--root").arg(node.folder().join("other"));
    let output = as_nobody(daemon)?;
    ensure!(
        output.code == 7 && output.stderr.contains("root"),
        "{output}"
    );
    Ok(())
}

fn no_daemon_is_unreachable(node: &mut Node) -> Result<()> {
    node.stop_daemon()?;
    let output = node.vessel(&["list"])?;
    ensure!(
        output.code == 8 && output.stderr.contains("vesseld"),
        "{output}"
    );
    ensure!(output.stderr.contains("hint:"), "{output}");
    // A script sees the same as JSON on its error stream or not at all, never on its output.
    let output = node.vessel(&["list", "--json"])?;
    ensure!(output.code == 8 && output.stdout.is_empty(), "{output}");
    Ok(())
}

fn the_doctor_names_what_is_missing(node: &mut Node) -> Result<()> {
    let report = node.json(&["doctor"])?;
    let rows = report["rows"].as_array().context("no rows")?;
    ensure!(rows.iter().any(|row| row["check"] == "kernel"), "{report}");
    ensure!(
        rows.iter().all(|row| row["diagnosis"] != "missing"),
        "{report}"
    );
    for row in rows.iter().filter(|row| row["diagnosis"] != "ok") {
        ensure!(row["remedy"].is_string(), "no remedy: {row}");
    }
    Ok(())
}
