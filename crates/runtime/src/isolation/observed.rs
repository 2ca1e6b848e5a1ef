//! What the kernel says of a running VE: read from `/proc` of its first process, from outside.
//!
//! Only files that the kernel itself writes are read; nothing of the VE is followed or executed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use super::namespaces::NAMESPACES;

/// Facts about a VE's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What each name in `/proc/PID/ns` leads to.
    pub namespaces: BTreeMap<String, String>,
    /// The same of the process that looks.
    pub own_namespaces: BTreeMap<String, String>,
    /// `/proc/PID/uid_map`, blanks made one.
    pub uid_map: String,
    /// `/proc/PID/gid_map`, likewise.
    pub gid_map: String,
    /// Fields of `/proc/PID/status`.
    pub status: BTreeMap<String, String>,
    /// Where something is mounted in the VE, with the mount's and the file system's options.
    pub mounts: BTreeMap<String, String>,
}

/// The process could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct ObserveError {
    /// The file.
    pub path: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Observed {
    /// Looks at a process of this machine.
    ///
    /// # Errors
    /// When it has ended, or this process may not look at it (`CAP_SYS_PTRACE`).
    pub fn of(pid: u32) -> Result<Self, ObserveError> {
        let file = |name: &str| read(&format!("/proc/{pid}/{name}"));
        Ok(Self {
            namespaces: links(&pid.to_string())?,
            own_namespaces: links("self")?,
            uid_map: one_blank(&file("uid_map")?),
            gid_map: one_blank(&file("gid_map")?),
            status: status(&file("status")?),
            mounts: mounts(&file("mountinfo")?),
        })
    }

    /// A field of the status that is a hexadecimal mask.
    pub(super) fn mask(&self, field: &str) -> Option<u64> {
        u64::from_str_radix(self.status.get(field)?, 16).ok()
    }

    /// The paths at which something lies over a file or folder.
    pub(super) fn covered(&self) -> BTreeSet<&str> {
        self.mounts.keys().map(String::as_str).collect()
    }
}

fn read(path: &str) -> Result<String, ObserveError> {
    fs::read_to_string(path).map_err(|source| ObserveError {
        path: path.to_owned(),
        source,
    })
}

fn links(process: &str) -> Result<BTreeMap<String, String>, ObserveError> {
    let mut links = BTreeMap::new();
    for namespace in NAMESPACES {
        let path = format!("/proc/{process}/ns/{}", namespace.name);
        match fs::read_link(&path) {
            Ok(target) => {
                links.insert(namespace.name.to_owned(), target.display().to_string());
            }
            // A kernel without that kind.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ObserveError { path, source }),
        }
    }
    Ok(links)
}

fn one_blank(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn status(text: &str) -> BTreeMap<String, String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// `mountinfo` of proc(5): the fifth word is the place, the sixth and the last are options.
fn mounts(text: &str) -> BTreeMap<String, String> {
    let mut mounts = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let (Some(place), Some(own), Some(last)) = (words.get(4), words.get(5), words.last()) {
            mounts.insert((*place).to_owned(), format!("{own},{last}"));
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_can_be_looked_at() {
        let seen = Observed::of(std::process::id()).unwrap();
        assert_eq!(seen.namespaces, seen.own_namespaces);
        assert!(seen.mask("CapBnd").is_some() && seen.mask("Name").is_none());
        assert!(seen.covered().contains("/proc"));
    }

    #[test]
    fn mounts_are_read_by_their_places() {
        let line = "29 1 0:26 / /dev/pts rw,nosuid - devpts devpts rw,mode=620,max=256";
        let mounts = mounts(line);
        assert_eq!(mounts["/dev/pts"], "rw,nosuid,rw,mode=620,max=256");
    }
}
