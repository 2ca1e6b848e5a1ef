//! The tree of a trivial container: one static program of ours as init, and empty folders.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;

/// Source of the init.
const INIT: &str = include_str!("../init/x86_64.S");

const FOLDERS: [&str; 9] = [
    "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "var",
];

/// Writes the tree into a folder that does not exist yet.
pub(crate) fn write(folder: &Path) -> Result<()> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "the trivial init is written for x86_64; this machine is {}",
        std::env::consts::ARCH
    );
    for name in FOLDERS {
        fs::create_dir_all(folder.join(name)).with_context(|| format!("cannot make {name}"))?;
    }
    let source = folder.join("init.S");
    fs::write(&source, INIT).context("cannot write the init's source")?;
    let mut assemble = Command::new("gcc");
    assemble
        .args(["-nostdlib", "-static", "-no-pie", "-s", "-o"])
        .arg(folder.join("sbin/init"))
        .arg(&source);
    command::output(&mut assemble)?;
    fs::remove_file(&source).context("cannot remove the init's source")
}
