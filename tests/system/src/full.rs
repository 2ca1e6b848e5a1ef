//! A pool without space: clear errors, no broken VE, and all well once there is space again.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::{Node, tests, tree, until};

tests! {
    Daemon [] =>
        a_full_pool_breaks_no_ve_and_heals;
}

fn a_full_pool_breaks_no_ve_and_heals(node: &mut Node) -> Result<()> {
    node.init_with_pool("2G")?;
    node.import_tiny()?;
    node.start_tiny("greedy")?;
    node.start_tiny("quiet")?;
    let fill = "dd if=/dev/urandom of=/root/big bs=1M conv=fsync 2>&1; while echo x >> /root/rest; do :; done 2>&1 | head -n 1";
    let output = node.vessel(&["exec", "greedy", "--", "sh", "-c", fill])?;
    ensure!(
        output.stdout.contains("space"),
        "the pool did not fill: {output}"
    );
    // Whoever runs goes on running.
    node.expect_page(&node.v4("quiet")?, "quiet")?;
    ensure!(node.state("greedy")? == "running" && node.state("quiet")? == "running");
    ensure!(
        node.json(&["pool", "show"])?["warnings"]
            .as_array()
            .is_some_and(|w| !w.is_empty())
    );
    // What needs space is refused for that reason, or done; it is never half done.
    let before = node.ok(&["list", "--json"])?;
    let output = node.vessel(&["create", "new", "--template", "tiny"])?;
    ensure!(
        output.code == 0 || (output.code == 6 && output.stderr.contains("space")),
        "{output}"
    );
    if output.code == 0 {
        node.ok(&["delete", "new"])?;
    }
    ensure!(node.ok(&["list", "--json"])? == before);
    let big = node.folder().join("big");
    std::fs::create_dir(&big)?;
    tree::write(&big)?;
    std::fs::copy("/proc/self/exe", big.join("usr/program"))?;
    let output = node.vessel(&[
        "template",
        "import",
        &big.display().to_string(),
        "--name",
        "big",
    ])?;
    ensure!(
        output.code == 6 && output.stderr.contains("space"),
        "{output}"
    );
    // A stop and a deletion need no space to speak of.
    node.ok(&["stop", "quiet"])?;
    node.ok(&["exec", "greedy", "--", "rm", "/root/big"])?;
    let start = || node.ok(&["start", "quiet"]);
    until(
        "there is space again",
        Duration::from_secs(30),
        start,
        |_| true,
    )?;
    node.expect_page(&node.v4("quiet")?, "quiet")?;
    node.ok(&["create", "new", "--template", "tiny", "--start"])?;
    ensure!(node.sh("new", "hostname")? == "new");
    Ok(())
}
