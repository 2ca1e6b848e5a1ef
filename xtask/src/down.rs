//! `down`: takes away the node that `up` made, and proves that nothing of it is left.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::up::{self, Node};
use crate::workspace::Workspace;

/// Destroys the node with all its VEs. Does nothing where there is none.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let node = Node::of_environment(workspace);
    if !node.root.exists() {
        println!("there is no node at {}", node.root.display());
        return Ok(());
    }
    process::need_root("removing a node")?;
    if !node.programs.join("vesseld").exists() {
        up::build(workspace)?;
    }
    // Only a running daemon knows all that belongs to the node.
    node.start_daemon()?;
    process::run(&mut node.vessel(&["node", "destroy", "--force", "--yes"]))?;
    let left = traces(&node)?;
    if !left.is_empty() {
        bail!(
            "the node is gone, but these are left:\n  {}",
            left.join("\n  ")
        );
    }
    println!("nothing is left of the node at {}", node.root.display());
    Ok(())
}

/// Everything on this machine that names the node's root.
fn traces(node: &Node) -> Result<Vec<String>> {
    let root = node.root.display().to_string();
    let mut left = Vec::new();
    if node.root.exists() {
        left.push(root.clone());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    let ours = mounts.lines().filter(|line| line.contains(&root));
    left.extend(ours.map(|line| format!("mount {line}")));
    for entry in fs::read_dir("/sys/block")
        .context("cannot list block devices")?
        .flatten()
    {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file"));
        if backing.is_ok_and(|file| file.starts_with(&root)) {
            left.push(format!("loop device {}", entry.file_name().display()));
        }
    }
    for entry in fs::read_dir("/proc")
        .context("cannot list processes")?
        .flatten()
    {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let program = line.split(' ').next().unwrap_or_default();
        if program.contains("vessel") && line.contains(&root) {
            left.push(format!("process {}: {line}", entry.file_name().display()));
        }
    }
    Ok(left)
}
