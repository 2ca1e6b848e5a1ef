//! Work on a VE that is cut off in the middle: by the end of CRIU, of the VE's own init, or of the daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, tests, until};

tests! {
    Node [] =>
        a_missing_criu_leaves_the_ve_as_it_was,
        a_criu_that_is_killed_leaves_the_ve_as_it_was,
        an_init_that_dies_in_the_middle_leaves_a_whole_ve,
        a_daemon_that_dies_in_the_middle_leaves_the_ve_as_before_or_after;
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A VE that counts, and says whether it went on counting.
fn count_on(node: &Node, name: &str) -> Result<()> {
    let count =
        "(i=0; while :; do i=$((i+1)); echo $i > /run/n; sleep 0.02; done) > /dev/null 2>&1 &";
    node.sh(name, count)?;
    counted(node, name).map(drop)
}

fn counted(node: &Node, name: &str) -> Result<u64> {
    let count = || Ok(node.sh(name, "cat /run/n")?.parse().unwrap_or(0));
    let first = until("it counts", PATIENCE, count, |n| *n > 0)?;
    until("it counts on", PATIENCE, count, |n| *n > first + 2)
}

/// The VE runs on with the processes that it had, and its network.
fn unharmed(node: &Node, name: &str, pid: u64, least: u64) -> Result<u64> {
    ensure!(node.state(name)? == "running" && node.init_pid(name)? == pid);
    let now = counted(node, name)?;
    ensure!(now > least, "it began anew: {now} after {least}");
    node.expect_page(&node.v4(name)?, name)?;
    Ok(now)
}

fn script(node: &Node, name: &str, text: &str) -> Result<String> {
    let path = node.folder().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

fn a_missing_criu_leaves_the_ve_as_it_was(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    count_on(node, "web")?;
    let (pid, mut count) = (node.init_pid("web")?, 0);
    let old = script(node, "old", "echo Version: 3.17")?;
    let mute = script(node, "mute", "exit 0")?;
    let refuses = script(node, "refuses", "echo Version: 9.9; exit 7")?;
    for (program, word) in [
        ("/nowhere/criu", "/nowhere/criu"),
        (&old, "too old"),
        (&mute, "version"),
        (&refuses, "code 7"),
    ] {
        node.give_daemon("VESSEL_CRIU", program)?;
        let output = node.vessel(&["suspend", "web"])?;
        ensure!(output.code != 0 && output.stderr.contains(word), "{output}");
        // Whoever asks first is told before it is needed; one that only fails cannot be known.
        let doctor = node.vessel(&["doctor"])?;
        let known = doctor.stdout.contains(word);
        ensure!(known || program == refuses, "{doctor}");
        count = unharmed(node, "web", pid, count)?;
    }
    // A sleeper stays on disk meanwhile, and wakes when there is one.
    node.give_daemon("VESSEL_CRIU", "")?;
    node.ok(&["suspend", "web"])?;
    node.give_daemon("VESSEL_CRIU", &refuses)?;
    let output = node.vessel(&["resume", "web"])?;
    ensure!(
        output.code == 1 && output.stderr.contains("stays on disk"),
        "{output}"
    );
    ensure!(node.state("web")? == "checkpointed");
    node.give_daemon("VESSEL_CRIU", "")?;
    node.ok(&["resume", "web"])?;
    unharmed(node, "web", node.init_pid("web")?, count)?;
    Ok(())
}

/// The CRIU that this machine's nodes use, as words of a shell.
fn criu(node: &Node) -> Result<String> {
    let report = node.json(&["doctor"])?;
    let rows = report["rows"].as_array().context("no rows")?;
    let row = rows.iter().find(|row| row["check"] == "CRIU in use");
    let found = row
        .and_then(|row| row["found"].as_str())
        .context("no CRIU")?;
    let program = found.rsplit(' ').next().context("no program")?;
    let Some(tree) = program
        .strip_suffix("/usr/sbin/criu")
        .filter(|tree| !tree.is_empty())
    else {
        return Ok(program.to_owned());
    };
    Ok(format!(
        "{tree}/usr/lib64/ld-linux-x86-64.so.2 --library-path {tree}/usr/lib/x86_64-linux-gnu {program}"
    ))
}

/// Processes and data are promised, connections are not: a CRIU that is killed just when it works in a
/// process that holds one may cost it.
fn a_criu_that_is_killed_leaves_the_ve_as_it_was(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    count_on(node, "web")?;
    let (pid, mut count) = (node.init_pid("web")?, 0);
    let real = criu(node)?;
    let folder = node.folder();
    let after = |seconds: &str| {
        format!(
            "case \"$1\" in --version) exec {real} \"$@\";; esac\n\
             {real} \"$@\" & criu=$!\n\
             sleep {seconds}; kill -KILL $criu && echo killed >> {}/kills; wait $criu",
            folder.display()
        )
    };
    let file = node.folder().join("kills");
    let kills = || fs::read_to_string(&file).unwrap_or_default();
    let programs = ["0.01", "0.04", "0.08", "0.12"]
        .map(|seconds| script(node, &format!("after-{seconds}"), &after(seconds)));
    let programs = programs.into_iter().collect::<Result<Vec<_>>>()?;
    for program in &programs {
        let before = kills().lines().count();
        node.give_daemon("VESSEL_CRIU", program)?;
        let output = node.vessel(&["suspend", "web"])?;
        if output.code == 0 {
            // It was done before it was killed.
            ensure!(node.state("web")? == "checkpointed", "{output}");
            node.give_daemon("VESSEL_CRIU", "")?;
            node.ok(&["resume", "web"])?;
        } else {
            ensure!(
                kills().lines().count() > before,
                "nobody was killed: {output}"
            );
            ensure!(output.stderr.contains("runs on"), "{output}");
            ensure!(node.init_pid("web")? == pid);
        }
        count = unharmed(node, "web", node.init_pid("web")?, count)?;
    }
    ensure!(!kills().is_empty(), "CRIU was never killed");
    node.give_daemon("VESSEL_CRIU", "")?;
    node.ok(&["suspend", "web"])?;
    for program in &programs {
        node.give_daemon("VESSEL_CRIU", program)?;
        let output = node.vessel(&["resume", "web"])?;
        if output.code != 0 {
            ensure!(output.stderr.contains("stays on disk"), "{output}");
            ensure!(node.state("web")? == "checkpointed", "{output}");
            let groups = node.control_groups();
            let id = format!("/{}", node.show("web")?["id"]);
            ensure!(
                !groups.iter().any(|group| group.ends_with(&id)),
                "{groups:?}"
            );
            continue;
        }
        count = unharmed(node, "web", node.init_pid("web")?, count)?;
        node.give_daemon("VESSEL_CRIU", "")?;
        node.ok(&["suspend", "web"])?;
    }
    node.give_daemon("VESSEL_CRIU", "")?;
    node.ok(&["resume", "web"])?;
    unharmed(node, "web", node.init_pid("web")?, count)?;
    Ok(())
}

fn an_init_that_dies_in_the_middle_leaves_a_whole_ve(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    let address = node.v4("web")?;
    let verbs: [&[&str]; 6] = [
        &["suspend", "web"],
        &["stop", "web"],
        &["restart", "web"],
        &["pause", "web"],
        &[
            "set",
            "web",
            "memory.limit=90M",
            "address=auto",
            "cpu.limit=1",
        ],
        &["exec", "web", "--", "sleep", "1000"],
    ];
    for verb in verbs {
        for milliseconds in [0, 40, 120] {
            let pid = node.init_pid("web")?;
            let mut running = node.begin(verb)?;
            std::thread::sleep(Duration::from_millis(milliseconds));
            let init = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
            // It may have ended by what was asked for.
            let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
            running.wait()?;
            let context = format!("{verb:?}, killed after {milliseconds} ms");
            let shown = || node.show("web");
            let shown = until(&context, PATIENCE, shown, |shown| {
                let busy = ["starting", "stopping"].map(serde_json::Value::from);
                shown["pid"] != pid && !busy.contains(&shown["state"])
            })?;
            let state = shown["state"].as_str().unwrap_or_default();
            let open = node.json(&["operation", "list"])?;
            ensure!(open == serde_json::json!([]), "{context}: {open}");
            match state {
                "checkpointed" => node.ok(&["resume", "web"])?,
                "running" => String::new(),
                "stopped" => node.ok(&["start", "web"])?,
                other => anyhow::bail!("{context}: it is {other}"),
            };
            node.expect_page(&node.v4("web")?, "web").context(context)?;
        }
    }
    node.ok(&["set", "web", &format!("address={address}")])?;
    node.expect_page(&address, "web")
}

/// What is asked, and the states before and after.
const VERBS: [(&[&str], &str, &str); 8] = [
    (&["start", "web"], "stopped", "running"),
    (
        &["set", "web", "memory.limit=90M", "processes.limit=90"],
        "running",
        "running",
    ),
    (&["pause", "web"], "running", "paused"),
    (&["resume", "web"], "paused", "running"),
    (&["suspend", "web"], "running", "checkpointed"),
    (&["resume", "web"], "checkpointed", "running"),
    (&["restart", "web"], "running", "running"),
    (&["stop", "web"], "running", "stopped"),
];

fn a_daemon_that_dies_in_the_middle_leaves_the_ve_as_before_or_after(
    node: &mut Node,
) -> Result<()> {
    node.start_tiny("web")?;
    node.sh("web", "echo kept > /root/file")?;
    node.ok(&["stop", "web"])?;
    let address = node.v4("web")?;
    for (verb, before, after) in VERBS {
        for milliseconds in [8, 60] {
            let context = format!("{verb:?}, the daemon killed after {milliseconds} ms");
            let pid = node.show("web")?["pid"].as_u64();
            node.cut_off(verb, Duration::from_millis(milliseconds))?;
            let settled = || node.show("web");
            let shown = until(&context, PATIENCE, settled, |shown| {
                [before, after]
                    .map(serde_json::Value::from)
                    .contains(&shown["state"])
            })?;
            let open = node.json(&["operation", "list"])?;
            ensure!(open == serde_json::json!([]), "{context}: {open}");
            let state = shown["state"].as_str().unwrap_or_default();
            if verb[0] != "restart" && state == before && before != "checkpointed" {
                ensure!(shown["pid"].as_u64() == pid, "{context}: another init");
            }
            // An init that was told to end does so, with or without a daemon.
            let ending = verb[0] == "stop";
            if state == "running" && !ending {
                node.expect_page(&address, "web").context(context.clone())?;
                ensure!(node.sh("web", "cat /root/file")? == "kept", "{context}");
            }
            // And what was asked for can be asked for again.
            if state == before && before != after && !ending {
                node.ok(verb).context(context.clone())?;
            } else if state == before && ending {
                let _ = node.vessel(verb)?;
                node.expect_state("web", after).context(context.clone())?;
            }
            // Back to what was before, for the next time; the last leads on to the next verb.
            if milliseconds < 60 && before != after {
                back(node, before)?;
            }
        }
    }
    Ok(())
}

/// Brings a VE into a state, whatever it is in.
fn back(node: &Node, wanted: &str) -> Result<()> {
    let now = node.state("web")?;
    let verbs: &[&[&str]] = match (now.as_str(), wanted) {
        ("running", "stopped") => &[&["stop", "--kill", "web"]],
        ("stopped", "running") => &[&["start", "web"]],
        ("paused" | "checkpointed", "running") => &[&["resume", "web"]],
        ("running", "paused") => &[&["pause", "web"]],
        ("running", "checkpointed") => &[&["suspend", "web"]],
        (now, wanted) => {
            ensure!(now == wanted, "no way from {now} to {wanted}");
            &[]
        }
    };
    for verb in verbs {
        node.ok(verb)?;
    }
    Ok(())
}
