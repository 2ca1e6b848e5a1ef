//! Memory that grows by itself: before a VE is killed, as far as its administrator and the node let it, and back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::guarantees::hold;
use crate::harness::{Node, slowness, tests, until};

tests! {
    Node [] =>
        memory_is_given_before_a_ve_is_killed_and_goes_back,
        without_a_ceiling_it_is_killed,
        page_cache_is_no_reason_for_more,
        pressure_while_no_daemon_ran_is_noticed,
        it_ends_at_the_ceiling_and_at_what_others_are_guaranteed,
        what_an_administrator_sets_counts;
}

/// A VE has to be heard, looked at and given more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time from one part of what a VE comes to use to the next.
const INTERVAL: Duration = Duration::from_millis(150);

/// Has a VE use more and more, in parts of so many megabytes.
fn fill(node: &Node, name: &str, parts: u32, megabytes: u32) -> Result<()> {
    for _ in 0..parts {
        hold(node, name, megabytes)?;
        std::thread::sleep(INTERVAL * slowness());
    }
    Ok(())
}

/// What was given to a VE beyond its limit, in mebibytes.
fn given(node: &Node, name: &str) -> Result<u64> {
    Ok(node.show(name)?["memory_given_bytes"].as_u64().unwrap_or(0) >> 20)
}

/// Memory that a VE has by its own account, in mebibytes.
fn seen_inside(node: &Node, name: &str) -> Result<u64> {
    let line = node.sh(name, "grep MemTotal /proc/meminfo")?;
    let number = line.split_whitespace().nth(1).context("no MemTotal")?;
    Ok(number.parse::<u64>()? >> 10)
}

fn kills(node: &Node, name: &str) -> Result<Value> {
    Ok(node.json(&["stats", name])?["memory_oom_kills"].clone())
}

/// Lines of the event log of this kind.
fn events(node: &Node, kind: &str) -> Result<Vec<String>> {
    let all = node.ok(&["events"])?;
    let mut lines = all.lines().map(str::to_owned).collect::<Vec<_>>();
    lines.retain(|line| line.split_whitespace().any(|word| word == kind));
    Ok(lines)
}

fn start(node: &Node, name: &str, settings: &[&str]) -> Result<()> {
    node.start_tiny(name)?;
    node.ok(&[&["set", name], settings].concat())?;
    Ok(())
}

fn memory_is_given_before_a_ve_is_killed_and_goes_back(node: &mut Node) -> Result<()> {
    let rules = [
        "memory.limit=64M",
        "memory.grow.ceiling=256M",
        "memory.grow.step=32M",
        "memory.grow.give-back=2s",
    ];
    start(node, "web", &rules)?;
    fill(node, "web", 7, 20)?;
    // 140 megabytes of its own are 80 % of 167 mebibytes.
    let enough = |given: &u64| (96..=192).contains(given);
    let more = until("it was given more", PATIENCE, || given(node, "web"), enough)?;
    ensure!(kills(node, "web")? == 0, "it was killed");
    ensure!(node.show("web")?["limits"]["memory.limit"] == 64 << 20);
    let inside = seen_inside(node, "web")?;
    ensure!(inside == 64 + more, "{inside} inside, and {more} was given");
    let limit = &node.json(&["stats", "web"])?["memory_limit_bytes"];
    ensure!(*limit == (64 + more) << 20, "{limit}");
    ensure!(!events(node, "ve-memory-given")?.is_empty());
    // Another daemon knows what was given, and leaves it.
    node.kill_daemon()?;
    node.start_daemon()?;
    ensure!(given(node, "web")? >= 96 && seen_inside(node, "web")? >= 160);
    ensure!(kills(node, "web")? == 0, "it was killed");
    // Step by step it goes back when it is not needed.
    node.sh("web", "killall tail sleep head; true")?;
    until(
        "all of it went back",
        PATIENCE * 3,
        || given(node, "web"),
        |given| *given == 0,
    )?;
    ensure!(seen_inside(node, "web")? == 64);
    let back = events(node, "ve-memory-given-back")?;
    ensure!(back.len() >= 3, "{back:#?}");
    Ok(())
}

fn without_a_ceiling_it_is_killed(node: &mut Node) -> Result<()> {
    start(node, "web", &["memory.limit=64M"])?;
    fill(node, "web", 7, 20)?;
    let killed = |kills: &Value| kills.as_u64() > Some(0);
    until("it is killed", PATIENCE, || kills(node, "web"), killed)?;
    ensure!(given(node, "web")? == 0 && seen_inside(node, "web")? == 64);
    Ok(())
}

fn page_cache_is_no_reason_for_more(node: &mut Node) -> Result<()> {
    start(
        node,
        "web",
        &["memory.limit=64M", "memory.grow.ceiling=256M"],
    )?;
    node.sh(
        "web",
        "dd if=/dev/zero of=/root/file bs=1M count=150 2>/dev/null; cat /root/file /root/file >/dev/null",
    )?;
    std::thread::sleep(Duration::from_secs(1));
    let given = given(node, "web")?;
    ensure!(given == 0, "{given} mebibytes were given for page cache");
    Ok(())
}

fn pressure_while_no_daemon_ran_is_noticed(node: &mut Node) -> Result<()> {
    start(
        node,
        "web",
        &["memory.limit=96M", "memory.grow.ceiling=256M"],
    )?;
    // While nobody hears, it comes to use 87 of 96 mebibytes.
    let later = "(sleep 2; head -c 85000000 /dev/zero; sleep 1000) | tail -c 85000000";
    node.sh("web", &format!("({later}) >/dev/null 2>&1 </dev/null &"))?;
    let id = node.show("web")?["id"].as_u64().context("no id")?;
    node.kill_daemon()?;
    let used = || {
        let used = node.control(id, "memory", "memory.usage_in_bytes", "memory.current")?;
        Ok(used.parse::<u64>()?)
    };
    until("it uses more", PATIENCE, used, |used| *used > 85_000_000)?;
    node.start_daemon()?;
    until(
        "it was given more",
        PATIENCE,
        || given(node, "web"),
        |given| *given > 0,
    )?;
    ensure!(kills(node, "web")? == 0, "it was killed");
    Ok(())
}

fn it_ends_at_the_ceiling_and_at_what_others_are_guaranteed(node: &mut Node) -> Result<()> {
    let total = node.json(&["node", "show"])?["capacity"]["memory_bytes"]
        .as_u64()
        .context("no capacity")?;
    // As if the machine had 512 mebibytes for VEs, of which another one is promised 352.
    let reserve = format!("memory.reserve={}", total - (512 << 20));
    node.ok(&["node", "set", &reserve])?;
    start(node, "other", &["memory.guarantee=352M"])?;
    let rules = [
        "memory.limit=64M",
        "memory.grow.ceiling=128M",
        "memory.grow.step=32M",
    ];
    start(node, "web", &rules)?;
    fill(node, "web", 5, 22)?;
    until(
        "it has all of it",
        PATIENCE,
        || given(node, "web"),
        |given| *given == 64,
    )?;
    let told = || events(node, "ve-memory-not-given");
    let once = |lines: &Vec<String>| lines.len() == 1;
    let lines = until("it is told", PATIENCE, told, once)?;
    ensure!(
        lines[0].contains("memory.grow.ceiling is reached"),
        "{lines:?}"
    );
    // Some 50 mebibytes are left that nobody uses or is promised, and a step takes 64.
    node.ok(&[
        "set",
        "web",
        "memory.grow.ceiling=512M",
        "memory.grow.step=64M",
    ])?;
    let twice = |lines: &Vec<String>| lines.len() == 2;
    let lines = until("the node is told", PATIENCE, told, twice)?;
    ensure!(
        lines[1].contains("is left on the node for VEs"),
        "{lines:?}"
    );
    ensure!(given(node, "web")? == 64);
    // As soon as there is room, it is given.
    node.ok(&["set", "other", "memory.guarantee=none"])?;
    until(
        "it was given more",
        PATIENCE,
        || given(node, "web"),
        |given| *given >= 128,
    )?;
    Ok(())
}

fn what_an_administrator_sets_counts(node: &mut Node) -> Result<()> {
    node.start_tiny("web")?;
    for (settings, words) in [
        (&["memory.grow.ceiling=1G"][..], "needs a memory.limit"),
        (
            &["memory.limit=1G", "memory.grow.ceiling=512M"],
            "is less than memory.limit",
        ),
        (
            &["memory.limit=1G", "memory.grow.cooldown=5s"],
            "needs a memory.grow.ceiling",
        ),
        (
            &[
                "memory.limit=64M",
                "memory.grow.ceiling=4G",
                "memory.grow.step=1M",
            ],
            "64 steps",
        ),
        (
            &[
                "memory.limit=64M",
                "memory.grow.ceiling=1000000000000000000000000000000",
            ],
            "below 2^63",
        ),
        (&["memory.grow.threshold=101%"], "write it as 80%"),
        (&["memory.grow.step=-1"], "not a size"),
        (
            &["memory.grow.treshold=80%"],
            "did you mean `memory.grow.threshold`?",
        ),
    ] {
        let refused = node.vessel(&[&["set", "web"], settings].concat())?;
        ensure!(
            refused.code == 2 && refused.stderr.contains(words),
            "{refused}"
        );
        ensure!(node.show("web")?["limits"]["memory.limit"].is_null());
    }
    node.ok(&[
        "set",
        "web",
        "memory.limit=64M",
        "memory.grow.ceiling=256M",
        "memory.grow.step=32M",
    ])?;
    fill(node, "web", 4, 20)?;
    until(
        "it was given more",
        PATIENCE,
        || given(node, "web"),
        |given| *given == 64,
    )?;
    // A higher limit swallows what was given, and less than it uses is refused with the numbers.
    node.ok(&["set", "web", "memory.limit=96M"])?;
    ensure!(given(node, "web")? == 32 && seen_inside(node, "web")? == 128);
    let refused = node.vessel(&["set", "web", "memory.limit=64M"])?;
    ensure!(
        refused.code == 6 && refused.stderr.contains("memory.limit: 64.0M is below"),
        "{refused}"
    );
    ensure!(given(node, "web")? == 32);
    // Its next init begins with its limit.
    node.ok(&["restart", "web", "--kill"])?;
    ensure!(given(node, "web")? == 0 && seen_inside(node, "web")? == 96);
    Ok(())
}
