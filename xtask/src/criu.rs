//! CRIU, which puts VEs on disk and wakes them.
//!
//! The distribution's own is taken where it works with the running kernel. Elsewhere a newer one is
//! fetched with the libraries that it was built with, into a folder of ours: the host's own
//! libraries stay as they are, and it is run through its own loader.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// The folder; `checkpoint::criu` looks there.
const OWN: &str = "/usr/lib/vessel/criu";

/// Release of Debian with a CRIU that works with every kernel of today.
const SUITE: &str = "forky";

/// The oldest that works, in general and from a kernel on that changed what sockets tell.
const OLDEST: (u32, u32) = (4, 1);
const NEW_KERNEL: (u32, u32) = (6, 16);
const OLDEST_ON_NEW: (u32, u32) = (4, 2);

/// Installs a CRIU that works with the running kernel. Running it again does nothing.
pub(crate) fn install() -> Result<()> {
    let wanted = if kernel()? >= NEW_KERNEL {
        OLDEST_ON_NEW
    } else {
        OLDEST
    };
    if Path::new(OWN).join("usr/sbin/criu").exists() {
        return Ok(());
    }
    if said("criu", &["--version"]).is_some_and(|text| after(&text, "Version: ") >= wanted) {
        return Ok(());
    }
    process::need_root("installing CRIU")?;
    let offered = said("apt-cache", &["policy", "criu"]).unwrap_or_default();
    if after(&offered, "Candidate: ") >= wanted {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        return process::run(apt.args(["install", "--quiet", "--yes", "criu"]));
    }
    fetch()
}

fn fetch() -> Result<()> {
    eprintln!("missing: criu {SUITE} in {OWN} (the distribution's is too old for this kernel)");
    let new = format!("{OWN}.new");
    if Path::new(&new).exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot remove {new}"))?;
    }
    if let Some(parent) = Path::new(OWN).parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--quiet", "--variant=extract", "--include=criu"]);
    // A release that is not out yet is signed for a week at a time.
    mmdebstrap.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    process::run(mmdebstrap.args([SUITE, &new]))?;
    fs::rename(&new, OWN).with_context(|| format!("cannot put {new} at {OWN}"))
}

fn kernel() -> Result<(u32, u32)> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(numbers(&release))
}

/// What a program writes; nothing if it is not there or fails.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// The version that follows a word; (0, 0) without one.
fn after(text: &str, word: &str) -> (u32, u32) {
    text.split_once(word)
        .map_or((0, 0), |(_, rest)| numbers(rest))
}

/// First two numbers of a version.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert_eq!(after("Version: 4.2.1\nGitID: 0\n", "Version: "), (4, 2));
        assert_eq!(
            after("criu:\n  Candidate: 3.17.1-2\n", "Candidate: "),
            (3, 17)
        );
        assert_eq!(after("criu:\n  Candidate: (none)\n", "Candidate: "), (0, 0));
        assert_eq!(after("", "Version: "), (0, 0));
    }
}
