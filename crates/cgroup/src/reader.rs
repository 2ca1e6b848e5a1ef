//! Reading the groups of a node without being the node: for whoever shows or samples what VEs use.
//!
//! Takes no lock, makes nothing, changes nothing, and knows no meaning: a file is looked for where
//! its controller is at home, and its text is returned with the version whose format it has.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use ve::VeId;

use crate::error::FileError;
use crate::files::Directory;
use crate::layout::{Controller, Home, Layout};

/// The groups of a node, for reading.
#[derive(Debug)]
pub struct NodeReader {
    layout: Layout,
    name: PathBuf,
    /// The mounted hierarchies, as `layout` has them.
    v1: Vec<Directory>,
    /// The directory on cgroup2 that holds the node's.
    v2: Option<Directory>,
}

/// A control file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As cgroup v1 writes it.
    V1(String),
    /// As cgroup2 writes it.
    V2(String),
}

impl Reading {
    /// The text, of whichever version.
    #[must_use]
    pub fn into_text(self) -> String {
        match self {
            Self::V1(text) | Self::V2(text) => text,
        }
    }
}

impl NodeReader {
    /// Finds the groups of the node whose range of VE ids begins with `first_id`; they need not
    /// exist yet.
    ///
    /// # Errors
    /// When a hierarchy of `layout` cannot be opened.
    pub fn open(layout: &Layout, first_id: VeId) -> Result<Self, FileError> {
        let mounts = layout.hierarchies().iter();
        Ok(Self {
            name: PathBuf::from(format!("vessel-{first_id}")),
            v1: mounts
                .map(|hierarchy| Directory::open(&hierarchy.mount_point))
                .collect::<Result<_, _>>()?,
            v2: layout
                .unified()
                .map(|unified| Directory::open(&unified.base))
                .transpose()?,
            layout: layout.clone(),
        })
    }

    /// Whether a controller is at home on cgroup v1.
    #[must_use]
    pub fn is_v1(&self, controller: Controller) -> bool {
        matches!(self.layout.home(controller), Some(Home::V1(_)))
    }

    /// Reads a file of a VE's group where a controller is at home; `v1` and `v2` are its names
    /// there. Nothing when the VE, the controller or the file does not exist.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(
        &self,
        ve: VeId,
        controller: Controller,
        v1: &str,
        v2: &str,
    ) -> Result<Option<Reading>, FileError> {
        match self.layout.home(controller) {
            Some(Home::V1(at)) => {
                let Some(directory) = self.v1.get(at) else {
                    return Ok(None);
                };
                Ok(optional(directory, &self.below(ve).join(v1))?.map(Reading::V1))
            }
            Some(Home::V2) => Ok(self.read_unified(ve, v2)?.map(Reading::V2)),
            None => Ok(None),
        }
    }

    /// Reads a file that every cgroup2 group has, whatever controllers are there. Nothing when the VE
    /// or the file does not exist, or no cgroup2 is mounted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read_unified(&self, ve: VeId, name: &str) -> Result<Option<String>, FileError> {
        match &self.v2 {
            Some(directory) => optional(directory, &self.below(ve).join(name)),
            None => Ok(None),
        }
    }

    /// Whether a VE has a group.
    #[must_use]
    pub fn exists(&self, ve: VeId) -> bool {
        let below = self.below(ve);
        let mut all = self.v2.iter().chain(&self.v1);
        all.any(|directory| directory.has(&below))
    }

    /// Opens the group of a VE in a v1 hierarchy that holds all its processes. Nothing on pure
    /// cgroup2, or when the VE does not exist.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_v1(&self, ve: VeId) -> Result<Option<OwnedFd>, FileError> {
        let hierarchies = self.layout.hierarchies().iter().zip(&self.v1);
        let mut full = hierarchies.filter(|(hierarchy, _)| !hierarchy.is_only_cpuset());
        let Some((_, directory)) = full.next() else {
            return Ok(None);
        };
        match directory.open_file(&self.below(ve), OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if error.is_missing() => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// Thread numbers of a VE as this host sees them, from its cgroup2 groups, of which at most
    /// `groups_max` are looked at, until `threads_max` were found. In no order.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn threads(
        &self,
        ve: VeId,
        groups_max: usize,
        threads_max: usize,
    ) -> Result<Vec<u32>, FileError> {
        let mut found = Vec::new();
        let Some(directory) = &self.v2 else {
            return Ok(found);
        };
        let mut ahead = vec![self.below(ve)];
        let mut looked = 0;
        while let Some(group) = ahead.pop() {
            looked += 1;
            if looked > groups_max || found.len() >= threads_max {
                break;
            }
            let text = optional(directory, &group.join("cgroup.threads"))?;
            let numbers = text.as_deref().unwrap_or_default().lines();
            found.extend(
                numbers
                    .filter_map(|line| line.parse::<u32>().ok())
                    .filter(|n| *n != 0),
            );
            match directory.directories(&group) {
                Err(error) if error.is_missing() => {}
                outcome => ahead.extend(outcome?),
            }
        }
        found.truncate(threads_max);
        Ok(found)
    }

    fn below(&self, ve: VeId) -> PathBuf {
        self.name.join(ve.to_string())
    }
}

/// Reads a file; nothing when it is not there or its group has just ended.
fn optional(directory: &Directory, below: &Path) -> Result<Option<String>, FileError> {
    match directory.read(below) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_missing() || error.is(rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}
