//! Space in the pool: sold once, and kept for whom it was promised while others fill what they can.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::{Node, tests, until};

tests! {
    Node [] =>
        guaranteed_space_is_sold_once,
        guaranteed_space_is_left_while_others_fill_the_pool;
}

const MEBIBYTE: u64 = 1 << 20;

fn guaranteed_space_is_sold_once(node: &mut Node) -> Result<()> {
    let shown = node.json(&["node", "show"])?;
    let number = |value: &serde_json::Value| value.as_u64().context("no number");
    let all = number(&shown["capacity"]["disk_bytes"])?;
    let reserve = number(&shown["reserve"]["disk_bytes"])?;
    let most = (all - reserve) / 4 * 3 / MEBIBYTE;
    let asked = format!("disk.guarantee={most}M");
    node.ok(&["create", "a", "--template", "tiny", "--set", &asked])?;
    let refused = node.vessel(&["create", "b", "--template", "tiny", "--set", &asked])?;
    ensure!(refused.code == 6, "{refused}");
    for words in ["disk.guarantee: ", "is left: ", "1 other VE"] {
        ensure!(refused.stderr.contains(words), "{refused}");
    }
    node.start_tiny("b")?;
    let both = ["set", "b", "memory.limit=64M", &asked];
    ensure!(node.vessel(&both)?.code == 6);
    ensure!(node.show("b")?["limits"]["memory.limit"].is_null());
    let refused = node.vessel(&["set", "b", "disk.guarantee=2G", "disk.limit=1G"])?;
    ensure!(refused.code == 2, "{refused}");
    let refused = node.vessel(&["node", "set", &format!("disk.reserve={all}")])?;
    ensure!(refused.code == 6, "{refused}");
    let pool = node.json(&["pool", "show"])?;
    ensure!(pool["guaranteed_bytes"] == most * MEBIBYTE, "{pool}");
    ensure!(pool["unlimited_ves"] == 2, "{pool}");
    ensure!(number(&pool["disk_free_bytes"])? > 0, "{pool}");
    node.ok(&["delete", "--force", "a"])?;
    node.ok(&["set", "b", &asked])?;
    Ok(())
}

/// Writes until no more fits, at most so many megabytes; says how many did.
fn filled(node: &Node, name: &str, file: &str, megabytes: u32) -> Result<u64> {
    let line = format!(
        "dd if=/dev/zero of=/root/{file} bs=1M count={megabytes} conv=fsync 2>/dev/null; \
         stat -c %s /root/{file} 2>/dev/null || echo 0"
    );
    Ok(node.sh(name, &line)?.parse::<u64>()? / MEBIBYTE)
}

fn guaranteed_space_is_left_while_others_fill_the_pool(node: &mut Node) -> Result<()> {
    for name in ["a", "b"] {
        node.start_tiny(name)?;
    }
    let size = node.json(&["pool", "show"])?["size_bytes"]
        .as_u64()
        .context("no size")?;
    // As if VEs had 600 megabytes.
    let reserve = format!("disk.reserve={}M", size / MEBIBYTE - 600);
    node.ok(&["node", "set", &reserve])?;
    node.ok(&["set", "a", "disk.guarantee=200M"])?;
    // One that is new is one of the others.
    node.start_tiny("c")?;
    node.kill_daemon()?;
    node.start_daemon()?;
    let mut others = 0;
    for round in 0..3 {
        for name in ["b", "c"] {
            others += filled(node, name, &format!("file{round}"), 500)?;
        }
        // What is free and not guaranteed is dealt out anew.
        std::thread::sleep(Duration::from_secs(11));
    }
    ensure!(
        (300..=400).contains(&others),
        "others filled {others} of 400"
    );
    let own = filled(node, "a", "own", 500)?;
    ensure!(own >= 190, "of 200 guaranteed {own} were there");
    // Without a guarantee the others go on.
    node.ok(&["set", "a", "disk.guarantee=none"])?;
    let more = || filled(node, "b", "more", 200);
    until(
        "nobody is held any more",
        Duration::from_secs(15),
        more,
        |more| *more == 200,
    )?;
    Ok(())
}
