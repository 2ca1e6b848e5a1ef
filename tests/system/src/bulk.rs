//! One command for many VEs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, slowness, tests};

tests! {
    Node [] =>
        a_count_makes_that_many,
        all_and_labels_select,
        part_of_a_bulk_that_fails_has_its_own_code,
        every_ve_has_its_line,
        many_ves_run_side_by_side;
}

fn states(node: &Node) -> Result<Vec<(String, String)>> {
    let list = node.json(&["list"])?;
    let list = list.as_array().context("no list")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(list
        .iter()
        .map(|ve| (text(&ve["name"]), text(&ve["state"])))
        .collect())
}

fn a_count_makes_that_many(node: &mut Node) -> Result<()> {
    node.ok(&[
        "create",
        "web",
        "--template",
        "tiny",
        "--count",
        "5",
        "--start",
    ])?;
    // The list goes by numbers, which are given in the order of the names.
    let states = states(node)?;
    let expected = (1..=5).map(|n| (format!("web-{n}"), "running".to_owned()));
    ensure!(states == expected.collect::<Vec<_>>(), "{states:?}");
    Ok(())
}

fn all_and_labels_select(node: &mut Node) -> Result<()> {
    node.ok(&[
        "create",
        "a",
        "--template",
        "tiny",
        "--count",
        "3",
        "--label",
        "team=a",
    ])?;
    node.ok(&[
        "create",
        "b",
        "--template",
        "tiny",
        "--count",
        "2",
        "--label",
        "team=b",
    ])?;
    node.ok(&["start", "--label", "team=a"])?;
    let running = |node: &Node| {
        Ok::<_, anyhow::Error>(
            states(node)?
                .into_iter()
                .filter(|s| s.1 == "running")
                .count(),
        )
    };
    ensure!(running(node)? == 3);
    node.ok(&["start", "--all"])?;
    ensure!(running(node)? == 5);
    node.ok(&["set", "--label", "team=b", "memory.limit=64M"])?;
    ensure!(node.show("b-2")?["limits"]["memory.limit"] == 64 << 20);
    ensure!(node.show("a-2")?["limits"]["memory.limit"].is_null());
    node.ok(&["stop", "--all"])?;
    ensure!(running(node)? == 0);
    node.ok(&["delete", "--all"])?;
    ensure!(states(node)?.is_empty());
    Ok(())
}

fn part_of_a_bulk_that_fails_has_its_own_code(node: &mut Node) -> Result<()> {
    node.ok(&["create", "web", "--template", "tiny", "--count", "2"])?;
    let output = node.vessel(&["start", "web-1", "nobody", "web-2"])?;
    ensure!(
        output.code == 9 && output.stderr.contains("nobody"),
        "{output}"
    );
    // The others were started all the same.
    ensure!(states(node)?.iter().all(|(_, state)| state == "running"));
    // One name that fails is its own failure.
    ensure!(node.vessel(&["start", "nobody"])?.code == 3);
    // All of them failing for one reason is that reason.
    let output = node.vessel(&["start", "nobody", "nowhere"])?;
    ensure!(output.code == 3 || output.code == 9, "{output}");
    Ok(())
}

fn every_ve_has_its_line(node: &mut Node) -> Result<()> {
    node.ok(&["create", "web", "--template", "tiny", "--count", "3"])?;
    let output = node.vessel(&["start", "--all"])?;
    for name in ["web-1", "web-2", "web-3"] {
        let lines = output.stdout.lines().chain(output.stderr.lines());
        ensure!(
            lines.filter(|line| line.contains(name)).count() == 1,
            "{output}"
        );
    }
    Ok(())
}

fn many_ves_run_side_by_side(node: &mut Node) -> Result<()> {
    let begun = Instant::now();
    node.ok(&[
        "create",
        "web",
        "--template",
        "tiny",
        "--count",
        "100",
        "--start",
    ])?;
    let took = begun.elapsed();
    let running = states(node)?
        .into_iter()
        .filter(|(_, state)| state == "running")
        .count();
    ensure!(running == 100, "{running} of 100 run");
    // Generous, for a debug build beside other tests: the benchmark holds the promise itself.
    ensure!(
        took < Duration::from_secs(30) * slowness(),
        "100 VEs took {took:?}"
    );
    for name in ["web-1", "web-50", "web-100"] {
        node.expect_page(&node.v4(name)?, name)?;
    }
    node.ok(&["delete", "--all", "--force"])?;
    ensure!(states(node)?.is_empty());
    Ok(())
}
