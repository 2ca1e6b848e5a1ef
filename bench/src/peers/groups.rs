//! Control groups that a killed container left.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process;

/// Kills what lives in the control groups of this name, directly below each hierarchy, and removes
/// them.
pub(super) fn sweep(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let mut groups: Vec<PathBuf> = hierarchies.map(|entry| entry.path().join(name)).collect();
    groups.push(Path::new("/sys/fs/cgroup").join(name));
    for group in groups.iter().filter(|group| group.is_dir()) {
        let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines().filter_map(|line| line.parse().ok()) {
            process::kill(pid);
            let _ = process::await_end(pid);
        }
        remove(group);
    }
}

fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
